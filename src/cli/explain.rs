//! `interlock explain`: which rules made a recorded decision, and what kept the others from it.

use std::io::{Write, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use interlock::model::ReceiptId;
use interlock::replay::{Explanation, Replayer, Selection};
use interlock::verify::{Directory, escape, escape_json};

use super::policy::trace;
use super::replay::{disclosures, under};
use super::verify::Trusted;

/// Evaluates the recorded input under the recorded bundle once more, and asks the engine about each rule of the four
/// sets. Exit codes are those of `interlock replay`: 0 it comes out exactly as recorded; 1 cannot be read; 2 wrong
/// usage; 3 it cannot be replayed; 10, 11, 12, 15 the log is not what was signed; 17 it comes out otherwise.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ExplainArgs {
    /// The decision's id, as in `interlock-receipt`
    #[arg(value_name = "RECEIPT")]
    receipt: ReceiptId,
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    #[command(flatten)]
    trusted: Trusted,
    /// Explain what this bundle would say instead of the recorded one
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// Disclosures of redacted evidence, one a line; what they disclose is judged, and not shown
    #[arg(long, value_name = "FILE")]
    disclosures: Option<PathBuf>,
    /// Explain also what another engine has judged
    #[arg(long)]
    accept_engine: bool,
    /// Print the explanation as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let cannot_read = || format!("cannot read the log in {}", args.log.display());
    let log = Directory::open(&args.log).with_context(cannot_read)?;
    let under = under(args.policy.as_deref())?;
    let replayer = Replayer {
        trust: args.trusted.read()?,
        selection: Selection::Receipt(args.receipt),
        under,
        disclosures: args.disclosures.as_deref().map(disclosures).transpose()?.unwrap_or_default(),
        accept_engine: args.accept_engine,
        threads: NonZeroUsize::MIN,
    };
    let report = replayer.explain(&log).with_context(cannot_read)?;
    if report.decisions == 0 && report.problem_count == 0 {
        bail!("no decision has the id {}", args.receipt);
    }
    let mut out = stdout().lock();
    if args.json {
        let (explanations, left, problems) = (&report.explanations, &report.left, &report.problems);
        let page = serde_json::json!({
            "explanation": explanations.first(), "not_replayed": left.first(), "problems": problems,
        });
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(&page)?))?;
    } else {
        report.explanations.iter().try_for_each(|explanation| write!(out, "{}", page(explanation)))?;
        for left in &report.left {
            writeln!(out, "{}: {}: {}", left.about, left.why.as_str(), escape(&left.what))?;
        }
        for problem in &report.problems {
            writeln!(out, "problem  {problem}")?;
        }
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn page(explanation: &Explanation) -> String {
    let Explanation { about, before, after, sets } = explanation;
    let mut page = format!("{about}\nrecorded   {before}\n");
    if before != after {
        page.push_str(&format!("evaluated  {after}\n"));
    }
    page.push('\n');
    page + &trace::sets(sets)
}
