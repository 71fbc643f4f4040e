//! Flags and exit codes; no logic.

mod check;
mod keys;
mod receipts;
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
    /// Checks a config and everything it names, without starting.
    Check(check::CheckArgs),
    /// Checks a log against a pinned key, without the gateway.
    Verify(verify::VerifyArgs),
    /// Reads the receipts of a log, without verifying them.
    Receipts(receipts::ReceiptsArgs),
    /// Makes signing keys and API keys.
    Keys(keys::KeysArgs),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check(args) => check::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Receipts(args) => receipts::run(args),
            Command::Keys(args) => keys::run(args),
        }
    }
}
