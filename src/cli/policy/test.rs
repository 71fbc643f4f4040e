//! `interlock policy test`: runs `test_...` rules, says which expression failed, and counts what the tests come to.

mod html;
mod report;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::Result;
use interlock::clock::Clock;
use interlock::limits;
use interlock::policy::testing::{Counts, Options, TestReport, TestsIn, run as run_tests};
use interlock::policy::{BundleError, Sources};
use regex::Regex;

use super::bundle::write_file;

/// A test does not pass, or a threshold is not met: the code of `opa test`.
const FAILED: u8 = 2;

/// Exit codes, as `opa test` has them: 0 every test passes; 1 the files cannot be read, parsed or bounded, there is no
/// test, or wrong usage of a flag's value; 2 a test fails, is an error or was skipped (skipped ones do not count with
/// --exit-zero-on-skipped), a threshold is not met, or wrong usage.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TestArgs {
    /// Directories, bundles and single Rego files, tested together
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Only tests whose full name (data.PACKAGE.test_NAME) this regular expression matches
    #[arg(short, long, value_name = "REGEX")]
    run: Option<Regex>,
    /// Also show tests that pass, with their time and what they print
    #[arg(short, long)]
    verbose: bool,
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "pretty")]
    format: Format,
    /// Tests that run at the same time; as many as the machine has cores
    #[arg(short = 'p', long, value_name = "N")]
    parallel: Option<NonZeroUsize>,
    /// Tests that were skipped do not make the run fail
    #[arg(short = 'z', long)]
    exit_zero_on_skipped: bool,
    /// Count the lines and rules that the tests come to
    #[arg(short, long)]
    coverage: bool,
    /// Fail if fewer lines than this are covered, in percent
    #[arg(long, value_name = "PERCENT")]
    threshold: Option<f64>,
    /// Fail if fewer rules than this hold in some test, in percent
    #[arg(long, value_name = "PERCENT")]
    rule_threshold: Option<f64>,
    /// Write every file with its covered and missed lines as one HTML page
    #[arg(long, value_name = "FILE")]
    coverage_html: Option<PathBuf>,
    /// Write the coverage as JSON, in the form of `opa test --coverage`
    #[arg(long, value_name = "FILE")]
    coverage_json: Option<PathBuf>,
    /// Run again whenever a file has changed, until interrupted
    #[arg(short, long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Pretty,
    /// A list of results in the form of `opa test --format json`; with --coverage the coverage, as there
    Json,
    /// JUnit XML
    Junit,
}

pub fn run(args: &TestArgs) -> Result<ExitCode> {
    if args.watch {
        return watch(args);
    }
    once(args, Sources::read_all(&args.paths))
}

/// The content is what counts, as for a gateway that reloads: a touched file is no change.
fn watch(args: &TestArgs) -> Result<ExitCode> {
    let mut before = None;
    loop {
        let read = Sources::read_all(&args.paths);
        let now = match &read {
            Ok(sources) => sources.digest().to_string(),
            Err(faults) => faults.to_string(),
        };
        if before.as_ref() != Some(&now) {
            if stdout().is_terminal() {
                write!(stdout(), "\u{1b}[2J\u{1b}[H")?;
            }
            once(args, read)?;
            writeln!(stdout(), "watching for changes")?;
            stdout().flush()?;
            before = Some(now);
        }
        sleep(Duration::from_millis(limits::POLICY_POLL_MS));
    }
}

fn once(args: &TestArgs, sources: Result<Sources, BundleError>) -> Result<ExitCode> {
    let options = Options {
        run: args.run.clone(),
        threads: args.parallel.or(available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        explain: true,
        coverage: args.wants_coverage(),
        clock: Some(Clock::system()),
    };
    let tested =
        sources.and_then(|sources| Ok((run_tests(&sources, TestsIn::EveryFile, &options)?, sources)));
    let (report, sources) = match tested {
        Ok(tested) => tested,
        Err(faults) => {
            writeln!(stderr(), "{faults}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let root = match &args.paths[..] {
        [only] if only.is_dir() => only.clone(),
        _ => PathBuf::new(),
    };
    let text = match args.format {
        Format::Pretty => report::pretty(&report, &root, args.verbose),
        Format::Json if args.coverage => String::new(),
        Format::Json => report::json(&report)?,
        Format::Junit => report::junit(&report),
    };
    stdout().lock().write_all(text.as_bytes())?;
    let covered = args.covered(&report, &sources)?;
    let Counts { failed, errors, skipped, .. } = report.counts();
    let passed = failed + errors == 0 && (skipped == 0 || args.exit_zero_on_skipped);
    Ok(if passed && covered { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

impl TestArgs {
    fn wants_coverage(&self) -> bool {
        let files = self.coverage_html.is_some() || self.coverage_json.is_some();
        self.coverage || files || self.threshold.is_some() || self.rule_threshold.is_some()
    }

    /// Writes what was asked for; whether the thresholds are met.
    fn covered(&self, report: &TestReport, sources: &Sources) -> Result<bool> {
        let Some(coverage) = &report.coverage else { return Ok(true) };
        let json = report::coverage_json(coverage)?;
        if self.coverage {
            let text = match self.format {
                Format::Pretty => report::coverage(coverage),
                Format::Json => json.clone(),
                Format::Junit => String::new(),
            };
            stdout().lock().write_all(text.as_bytes())?;
        }
        if let Some(path) = &self.coverage_json {
            write_file(path, json.as_bytes())?;
        }
        if let Some(path) = &self.coverage_html {
            write_file(path, html::page(coverage, sources).as_bytes())?;
        }
        let mut is_met = true;
        for (what, got, wanted) in [
            ("Code coverage", coverage.lines(), self.threshold),
            ("Rule coverage", coverage.rules(), self.rule_threshold),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| got < *wanted) {
                writeln!(stderr(), "{what} threshold not met: got {got:.2} instead of {wanted:.2}")?;
                is_met = false;
            }
        }
        Ok(is_met)
    }
}
