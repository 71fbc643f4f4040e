//! The commands. Each is a file with its arguments and a `run` that returns the exit code.

mod keys;
mod receipts;
mod verify;

use std::process::ExitCode;

use clap::Parser;

/// Lets an HTTP request through only if policy permits those exact bytes at that moment, and leaves a
/// signed receipt that anyone can check.
#[derive(Debug, Parser)]
#[command(name = "interlock", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a log against a pinned key, without the gateway.
    Verify(verify::VerifyArgs),
    /// Read the receipts of a log, without verifying them.
    Receipts(receipts::ReceiptsArgs),
    /// Make signing keys and API keys.
    Keys(keys::KeysArgs),
}

pub fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let ended = match command {
        Command::Verify(args) => verify::run(args),
        Command::Receipts(args) => receipts::run(args),
        Command::Keys(args) => keys::run(args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("interlock: {error:#}");
        ExitCode::from(1)
    })
}
