//! Flags and exit codes; no logic.

mod check;

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
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check(args) => check::run(args),
        }
    }
}
