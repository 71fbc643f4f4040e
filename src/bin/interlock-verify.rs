//! The `interlock-verify` program: `interlock verify` and nothing else, for whoever checks logs and runs no gateway.

#[path = "../cli/verify.rs"]
mod verify;

use std::process::ExitCode;

use clap::Parser;

/// Checks a log, or one receipt, against pinned keys, without the gateway.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    args: verify::VerifyArgs,
}

fn main() -> ExitCode {
    verify::run(Cli::parse().args, None).unwrap_or_else(|error| {
        eprintln!("interlock-verify: {error:#}");
        ExitCode::FAILURE
    })
}
