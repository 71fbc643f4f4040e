//! `interlock policy`: what the people who write policy work with.

mod bundle;
mod check;
mod diff;
mod eval;
mod test;
pub mod trace;

use std::process::ExitCode;

use clap::Subcommand;

use super::operate::{self, PolicyReloadArgs};

pub use check::show;

#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is wrong with bundles of policy, before a gateway would.
    Check(check::CheckArgs),
    /// Runs the tests of policy: `test_...` rules, as `opa test` does
    Test(test::TestArgs),
    /// Says what policy says to one request, and why, without a gateway
    Eval(eval::EvalArgs),
    /// Says what another bundle would have said to recorded traffic
    Diff(diff::DiffArgs),
    /// Checks a directory and makes one file of it, an OPA bundle: the same bytes for the same files
    Build(bundle::BuildArgs),
    /// Signs a bundle again, with another key or version
    Sign(bundle::SignArgs),
    /// Shows what a directory or a bundle holds: revision, files, packages, version, signature
    Inspect(bundle::InspectArgs),
    /// Makes a running gateway look now at what it reads policy from, and activate it if it can be used
    Reload(PolicyReloadArgs),
}

pub fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Build(args) => bundle::build(&args),
        Command::Sign(args) => bundle::sign(&args),
        Command::Inspect(args) => bundle::inspect(&args),
        Command::Reload(args) => operate::reload_policy(&args),
    }
}
