//! `interlock replay`: evaluates recorded decisions again and compares.

use std::fs::File;
use std::io::{IsTerminal, Read, Write, stderr, stdout};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};
use interlock::limits;
use interlock::merkle::trust::Trust;
use interlock::model::{LeafIndex, ReceiptId};
use interlock::policy::Bundle;
use interlock::replay::{Disclosures, Progress, Replayer, Selection, Under};
use interlock::verify::{Check, Directory, Problem, Verdict, escape_json};

use super::verify::Trusted;

/// Exit codes: 0 all that policy decided came out exactly as recorded; 1 cannot be read; 2 wrong usage; 3 some could not be replayed;
/// 10 frames or leaves malformed; 11 not included; 12 not signed; 15 evidence; 17 some differ. Problems of the
/// log come before differences, and those before what could not be replayed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ReplayArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    #[command(flatten)]
    trusted: Trusted,
    /// Only the decision with this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "to"])]
    receipt: Option<ReceiptId>,
    /// Only decisions from this entry on
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Only decisions up to this entry, itself included
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
    /// Evaluate by this bundle instead of the recorded ones, to see what it changes
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// Disclosures of redacted evidence, one a line
    #[arg(long, value_name = "FILE")]
    disclosures: Option<PathBuf>,
    /// Evaluate also what another engine has judged
    #[arg(long)]
    accept_engine: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let trust = args.trusted.read()?;
    let cannot_read = || format!("cannot read the log in {}", args.log.display());
    let log = Directory::open(&args.log).with_context(cannot_read)?;
    let under = under(args.policy.as_deref())?;
    let replayer = Replayer {
        trust,
        selection: args.selection(),
        under,
        disclosures: args.disclosures.as_deref().map(disclosures).transpose()?.unwrap_or_default(),
        accept_engine: args.accept_engine,
        threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let mut shown = Shown::new();
    let report = replayer.run(&log, |progress| shown.show(progress)).with_context(cannot_read)?;
    shown.clear();
    if let Some(id) = args.receipt.filter(|_| report.decisions == 0 && report.problem_count == 0) {
        bail!("no decision has the id {id}");
    }
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(&report)?))?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// The verdict `replayed` of `interlock verify --replay`.
pub fn fill_in(log: &Directory, trust: &Trust, report: &mut interlock::verify::Report) -> Result<()> {
    let replayer = Replayer {
        trust: trust.clone(),
        selection: Selection::All,
        under: Under::Recorded,
        disclosures: Disclosures::default(),
        accept_engine: false,
        threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let replayed = replayer.run(log, |_| {})?;
    let differ = replayed.differences.iter().map(|difference| Problem {
        check: Check::Replayed,
        index: Some(difference.about.index),
        file: None,
        offset: None,
        what: format!("was {}, is {}", difference.before, difference.after),
    });
    let verdict = if replayed.differ > 0 {
        Verdict::Fail
    } else if replayed.says_all_of_the_signed() {
        Verdict::Pass
    } else {
        Verdict::NotEstablished
    };
    let left = replayed.not_replayed.iter().map(|(why, count)| format!(", {count} {}", why.as_str()));
    let left: String = left.collect();
    let note = format!("replayed {} of {} decisions exactly{left}", replayed.exact, replayed.decisions);
    report.replayed(verdict, differ.collect(), note);
    Ok(())
}

impl ReplayArgs {
    fn selection(&self) -> Selection {
        match (self.receipt, self.from, self.to) {
            (Some(id), _, _) => Selection::Receipt(id),
            (None, None, None) => Selection::All,
            (None, from, to) => Selection::Entries {
                from: LeafIndex(from.unwrap_or(0)),
                to: LeafIndex(to.unwrap_or(u64::MAX)),
            },
        }
    }
}

/// The recorded bundles, or this one.
pub fn under(policy: Option<&Path>) -> Result<Under> {
    let Some(dir) = policy else { return Ok(Under::Recorded) };
    let bundle = Bundle::load(dir, &[]).with_context(|| format!("the policy in {}", dir.display()))?;
    Ok(Under::Given(Box::new(bundle)))
}

pub fn disclosures(path: &Path) -> Result<Disclosures> {
    let cannot = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(cannot)?;
    file.take(limits::DISCLOSURES_BYTES_MAX + 1).read_to_string(&mut text).with_context(cannot)?;
    if text.len() as u64 > limits::DISCLOSURES_BYTES_MAX {
        bail!("{} is over {} bytes", path.display(), limits::DISCLOSURES_BYTES_MAX);
    }
    Disclosures::parse(&text).with_context(|| path.display().to_string())
}

/// One line that is written over, for whoever watches.
pub struct Shown {
    is_shown: bool,
    /// Leaves read when it was last written.
    at: u64,
}

impl Shown {
    const EVERY_LEAVES: u64 = 4_096;

    pub fn new() -> Self {
        Self { is_shown: stderr().is_terminal(), at: 0 }
    }

    pub fn show(&mut self, progress: Progress) {
        if self.is_shown && progress.read.0 >= self.at + Self::EVERY_LEAVES {
            self.at = progress.read.0;
            // A terminal that is gone is no reason to stop.
            let _ = write!(stderr(), "\r{} of {} signed leaves read", progress.read, progress.signed);
        }
    }

    pub fn clear(&self) {
        if self.at > 0 {
            let _ = write!(stderr(), "\r\u{1b}[K");
        }
    }
}
