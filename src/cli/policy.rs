//! `interlock policy`: what the people who write policy work with.

mod check;

use std::process::ExitCode;

use clap::Subcommand;

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
}

pub fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check::run(&args),
    }
}
