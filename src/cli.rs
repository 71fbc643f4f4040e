//! Flags and exit codes; no logic.

mod check;
mod demo;
mod disclose;
mod keys;
mod log;
mod operate;
mod policy;
mod receipts;
mod replay;
mod run;
mod sample_api;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Inline HTTP gateway: no PERMIT, no execution.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway.
    Run(run::RunArgs),
    /// Checks a config and everything it names, without starting.
    Check(check::CheckArgs),
    /// Checks, builds, signs, inspects and reloads policy.
    Policy(policy::PolicyArgs),
    /// Makes and shows signing keys, trust files and API keys.
    Keys(keys::KeysArgs),
    /// Checks a log against a pinned key, without the gateway.
    Verify(VerifyAndReplayArgs),
    /// Evaluates the recorded decisions of a log again, and compares.
    Replay(replay::ReplayArgs),
    /// Counts, checks and copies a log's directory.
    Log(log::LogArgs),
    /// Reads the receipts of a log, without verifying them.
    Receipts(receipts::ReceiptsArgs),
    /// Lists, shows, approves and refuses requests that are held for people.
    Approvals(operate::ApprovalsArgs),
    /// Stops sending: everything, one surface or one actor. What is being sent already goes on.
    Freeze(operate::FreezeArgs),
    /// Ends a freeze.
    Unfreeze(operate::FreezeArgs),
    /// Lists what is frozen and quarantined; isolates and releases actors.
    Quarantines(operate::QuarantinesArgs),
    /// Lists and resolves outcomes that are not known.
    Reconcile(operate::ReconcileArgs),
    /// Makes the disclosure of a value that a receipt keeps out.
    Disclose(disclose::DiscloseArgs),
    /// Shows the gateway at work: some requests, what becomes of them, and the log they leave.
    Demo(demo::DemoArgs),
    /// A small API to put behind the gateway.
    SampleApi(sample_api::SampleApiArgs),
}

/// `interlock-verify` has no more than the first of these: it holds no policy engine. Clap wants another name for each
/// struct of flags of one command.
#[derive(Debug, clap::Args)]
struct VerifyAndReplayArgs {
    #[command(flatten)]
    verify: verify::VerifyArgs,
    /// Also evaluate every recorded decision again; `interlock replay` says more
    #[arg(long, requires = "log", conflicts_with_all = ["mirror", "receipt", "leaf"])]
    replay: bool,
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(&args),
            Command::Check(args) => check::run(args),
            Command::Policy(args) => policy::run(args),
            Command::Keys(args) => keys::run(args),
            Command::Verify(args) => verify::run(args.verify, args.replay.then_some(replay::fill_in)),
            Command::Replay(args) => replay::run(&args),
            Command::Log(args) => log::run(args),
            Command::Receipts(args) => receipts::run(args),
            Command::Approvals(args) => operate::approvals(&args),
            Command::Freeze(args) => operate::freeze(&args),
            Command::Unfreeze(args) => operate::unfreeze(&args),
            Command::Quarantines(args) => operate::quarantines(&args),
            Command::Reconcile(args) => operate::reconcile(&args),
            Command::Disclose(args) => disclose::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::SampleApi(args) => sample_api::run(&args),
        }
    }
}
