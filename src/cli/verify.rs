//! `interlock verify`: one verdict for each question about a log.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use interlock::merkle::note::VerifierKey;
use interlock::verify::{Directory, escape_json, verify_log};

/// Exit codes: 0 everything passed; 1 cannot be read; 2 wrong usage; 10 frames or leaves malformed; 11 not
/// included; 12 not signed; 13 not paired; 14 epochs; 15 evidence. The lowest one that failed is given.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct VerifyArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// The pinned verifier key (`name+hex+base64`), or a file that holds it
    #[arg(long, value_name = "FILE-OR-VKEY")]
    key: String,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: VerifyArgs) -> Result<ExitCode> {
    let key = read_key(&args.key)?;
    let cannot_read = || format!("cannot read the log in {}", args.log.display());
    let log = Directory::open(&args.log).with_context(cannot_read)?;
    let report = verify_log(&log, &key).with_context(cannot_read)?;
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(&report)?))?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

pub(super) fn read_key(text: &str) -> Result<VerifierKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let path = Path::new(text);
    let file = std::fs::read_to_string(path)
        .with_context(|| format!("`{text}` is neither a verifier key nor a file that can be read"))?;
    file.trim_end().parse().with_context(|| format!("{} does not hold a verifier key", path.display()))
}
