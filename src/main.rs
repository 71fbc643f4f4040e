//! The `interlock` program.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // One TLS provider for the whole process, before anything can ask for one. Nobody else has had a chance to.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("interlock: {error:#}");
        ExitCode::FAILURE
    })
}
