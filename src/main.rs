//! The command line: flags and exit codes, no logic.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
