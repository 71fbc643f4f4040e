//! `interlock policy`: what the people who write policy do with a bundle.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::operate::{self, PolicyReloadArgs};

#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Makes a running gateway look now at what it reads policy from, and activate it if it can be used
    Reload(PolicyReloadArgs),
}

pub fn run(args: &PolicyArgs) -> Result<ExitCode> {
    match &args.command {
        PolicyCommand::Reload(args) => operate::reload_policy(args),
    }
}
