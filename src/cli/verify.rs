//! `interlock verify` and `interlock-verify`: one verdict for each question about a log, or about one receipt.

use std::io::{IsTerminal, Read, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interlock::clock::Clock;
use interlock::limits;
use interlock::merkle::note::VerifierKey;
use interlock::merkle::tlog_proof::TlogProof;
use interlock::merkle::trust::Trust;
use interlock::model::{Digest, InvalidDigest, TreeSize, parse_line};
use interlock::verify::{
    Directory, Disclosures, Options, Progress, ReceiptReport, Report, escape_json, verify_leaf_hash,
    verify_log_with, verify_mirror, verify_receipt,
};
use serde::Serialize;

/// Exit codes: 0 everything passed; 1 cannot be read; 2 wrong usage; 10 frames or leaves malformed; 11 not
/// included; 12 not signed; 13 not paired; 14 epochs; 15 evidence; 16 tiles; 17 not replayed
/// as recorded; 18 a disclosure belongs to nothing. The lowest one that failed is given.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct VerifyArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    trusted: Trusted,
    /// The receipt's proof (C2SP tlog-proof)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["log", "mirror"])]
    proof: Option<PathBuf>,
    /// A checkpoint of this log that was kept elsewhere: must be signed and lie on the log's history
    #[arg(long, value_name = "FILE", conflicts_with_all = ["receipt", "leaf"])]
    checkpoint: Vec<PathBuf>,
    /// How long to wait for a checkpoint that covers the newest leaves of a log that is being written
    #[arg(long, value_name = "MS", default_value_t = limits::CHECKPOINT_WAIT_MS_DEFAULT)]
    wait_ms: u64,
    /// SD-JWT disclosures (RFC 9901), one a line: each must belong to the receipt, or to its evidence
    #[arg(long, value_name = "FILE", conflicts_with_all = ["log", "mirror", "leaf"])]
    disclosures: Option<PathBuf>,
    /// The receipt's policy input, as `log export --evidence` writes it: where disclosures that are not the leaf's belong
    #[arg(long, value_name = "FILE", requires = "disclosures")]
    evidence: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Directory of a mirror: `checkpoint` and `tile/`, as the log serves them or `log export` writes them. It has no frames
    /// and no evidence, and nothing is said of them
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    mirror: Option<PathBuf>,
    /// One leaf, as exact bytes or as the line of JSON in which receipts are listed; a line feed after it is no part of it
    #[arg(long, value_name = "FILE", requires = "proof")]
    receipt: Option<PathBuf>,
    /// The hash of one leaf, as `sha-256:` and hex, or in base64 as the header `interlock-receipt` has it
    #[arg(long, value_name = "HASH", requires = "proof", value_parser = leaf_hash)]
    leaf: Option<Digest>,
}

fn leaf_hash(text: &str) -> Result<Digest, InvalidDigest> {
    text.parse().or_else(|_| Digest::from_base64(text))
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Trusted {
    /// The pinned verifier key (`name+hex+base64`), or a file that holds it
    #[arg(long, value_name = "FILE-OR-VKEY")]
    key: Option<String>,
    /// The trusted keys of one log, as a C2SP tlog-policy
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
}

/// Replays the log and adds what it found. Verification itself evaluates nothing.
pub type Replay = fn(&Directory, &Trust, &mut Report) -> Result<()>;

pub fn run(args: VerifyArgs, replay: Option<Replay>) -> Result<ExitCode> {
    let trust = args.trusted.read()?;
    let Subject { log, mirror, receipt, leaf } = &args.subject;
    if let Some(log) = log {
        return run_log(log, &trust, &args, replay);
    }
    if let Some(mirror) = mirror {
        return run_mirror(mirror, &trust, &args);
    }
    let proof = read_proof(args.proof.as_deref().expect("clap asks for it with a receipt, and with a leaf"))?;
    let report = match (receipt, leaf) {
        (Some(receipt), _) => verify_file(receipt, &proof, &trust, &args)?,
        (None, Some(leaf)) => verify_leaf_hash(*leaf, &proof, &trust),
        (None, None) => unreachable!("clap asks for a log, a receipt or a leaf"),
    };
    print(&report, &report, args.json)?;
    Ok(ExitCode::from(report.exit_code()))
}

fn run_log(dir: &Path, trust: &Trust, args: &VerifyArgs, replay: Option<Replay>) -> Result<ExitCode> {
    let cannot_read = || format!("cannot read the log in {}", dir.display());
    let log = Directory::open(dir).with_context(|| match Directory::open_mirror(dir) {
        Ok(_) => format!(
            "{} holds no frames; what a log serves to read is verified with `--mirror`",
            dir.display()
        ),
        Err(_) => cannot_read(),
    })?;
    let mut report = verify_log_with(&log, trust, options(args)?).with_context(cannot_read)?;
    if let Some(replay) = replay {
        replay(&log, trust, &mut report).with_context(cannot_read)?;
    }
    print(&report, &report, args.json)?;
    Ok(ExitCode::from(report.exit_code()))
}

fn run_mirror(dir: &Path, trust: &Trust, args: &VerifyArgs) -> Result<ExitCode> {
    let cannot_read = || format!("cannot read the mirror in {}", dir.display());
    let mirror = Directory::open_mirror(dir).with_context(cannot_read)?;
    let report = verify_mirror(&mirror, trust, options(args)?).with_context(cannot_read)?;
    print(&report, &report, args.json)?;
    Ok(ExitCode::from(report.exit_code()))
}

fn options(args: &VerifyArgs) -> Result<Options<'static>> {
    let mut archived = Vec::new();
    for path in &args.checkpoint {
        archived.push((path.display().to_string(), read_file(path, limits::NOTE_BYTES_MAX)?));
    }
    Ok(Options { wait: Duration::from_millis(args.wait_ms), archived, progress: Bar::on_terminal() })
}

/// What a line has around its leaf, with room to spare.
const LINE_BYTES_AROUND_MAX: usize = 64;

fn verify_file(receipt: &Path, proof: &TlogProof, trust: &Trust, args: &VerifyArgs) -> Result<ReceiptReport> {
    let bytes = read_file(receipt, limits::ENTRY_BYTES_MAX + LINE_BYTES_AROUND_MAX)?;
    // Editors and shells end a file with a line feed; a leaf has none.
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let (index, leaf) = parse_line(bytes).map_or((None, bytes), |(index, leaf)| (Some(index), leaf));
    let mut report = verify_receipt(leaf, proof, trust);
    if let Some(index) = index {
        report.was_said_to_stand_at(index);
    }
    if let Some(path) = &args.disclosures {
        let evidence =
            args.evidence.as_deref().map(|path| read_file(path, limits::EVIDENCE_BYTES_MAX)).transpose()?;
        report.disclose(leaf, &read_disclosures(path)?, evidence.as_deref());
    }
    Ok(report)
}

fn read_disclosures(path: &Path) -> Result<Disclosures> {
    let bytes = read_file(path, limits::DISCLOSURES_BYTES_MAX as usize)?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Disclosures::parse(&text).with_context(|| path.display().to_string())
}

fn read_proof(proof: &Path) -> Result<TlogProof> {
    let text = String::from_utf8(read_file(proof, limits::PROOF_BYTES_MAX)?).ok();
    let parsed = text.with_context(|| format!("{} is not UTF-8", proof.display()))?.parse::<TlogProof>();
    parsed.with_context(|| format!("{} is no proof", proof.display()))
}

fn print(text: &impl std::fmt::Display, value: &impl Serialize, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(value)?))?;
    } else {
        write!(out, "{text}")?;
    }
    Ok(())
}

impl Trusted {
    pub fn read(&self) -> Result<Trust> {
        match (&self.key, &self.trust) {
            (Some(key), _) => Ok(read_key(key)?.into()),
            (None, Some(path)) => Trust::parse(&read_file(path, limits::TRUST_FILE_BYTES_MAX)?)
                .with_context(|| format!("{} is no trust file", path.display())),
            (None, None) => unreachable!("clap asks for a key or a trust file"),
        }
    }
}

fn read_key(text: &str) -> Result<VerifierKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let path = Path::new(text);
    let file = std::fs::read_to_string(path)
        .with_context(|| format!("`{text}` is neither a verifier key nor a file that can be read"))?;
    file.trim_end().parse().with_context(|| format!("{} does not hold a verifier key", path.display()))
}

fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>> {
    let cannot_read = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(cannot_read)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    ensure!(bytes.len() <= bytes_max, "{} has more than {bytes_max} bytes", path.display());
    Ok(bytes)
}

/// A line on the terminal that says how far a long log was read.
struct Bar {
    clock: Clock,
    began: interlock::clock::Moment,
    drawn: Option<interlock::clock::Moment>,
}

const DRAW_EVERY: Duration = Duration::from_millis(250);

impl Bar {
    /// Nothing if nobody looks.
    fn on_terminal() -> Option<Box<Progress<'static>>> {
        let clock = Clock::system();
        let mut bar = Self { began: clock.monotonic(), clock, drawn: None };
        stderr().is_terminal().then(|| Box::new(move |read, of| bar.draw(read, of)) as Box<Progress<'static>>)
    }

    fn draw(&mut self, read: TreeSize, of: Option<TreeSize>) {
        let now = self.clock.monotonic();
        // Short logs are done before anybody could read it.
        if now.since(self.drawn.unwrap_or(self.began)) < DRAW_EVERY {
            return;
        }
        self.drawn = Some(now);
        let rate = u128::from(read.0) * 1_000 / now.since(self.began).as_millis().max(1);
        let of = match of {
            Some(of) if of.0 > 0 => format!(" of {of} ({} %)", read.0.saturating_mul(100) / of.0),
            Some(_) | None => String::new(),
        };
        // A terminal that is gone is no reason to stop.
        let _ = write!(stderr(), "\r\x1b[K{read} leaves{of}, {rate} a second");
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
