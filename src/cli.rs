//! Flags and exit codes; no logic.

mod check;
mod demo;
mod run;
mod sample_api;

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
    /// Runs the gateway.
    Run(run::RunArgs),
    /// Shows the gateway at work: some requests, what becomes of them, and the log they leave.
    Demo(demo::DemoArgs),
    /// A small API to put behind the gateway.
    SampleApi(sample_api::SampleApiArgs),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check(args) => check::run(args),
            Command::Run(args) => run::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::SampleApi(args) => sample_api::run(&args),
        }
    }
}
