//! `interlock policy diff`: what another bundle would have said to recorded traffic.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use interlock::authority::{BudgetRule, InputPointer};
use interlock::config::{Config, SurfaceConfig};
use interlock::model::{Json, LeafIndex};
use interlock::policy::{Bundle, Sources};
use interlock::replay::{Amount, Gate, Measure, NoAmounts, Replayer, Selection, Under};
use interlock::verify::{Directory, escape_json};

use super::super::replay::{self, Shown};
use super::super::verify::Trusted;
use super::eval::read_config;

/// Exit codes: 0 no gate fails; 1 cannot be read; 2 wrong usage; 3 some decisions could not be judged by the bundle, or
/// there were none; 10 frames or leaves malformed; 11 not included; 12 not signed; 15 evidence; 20 a gate fails.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DiffArgs {
    /// The candidate: a directory, or a bundle in one file
    #[arg(long, value_name = "PATH")]
    policy: PathBuf,
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    #[command(flatten)]
    trusted: Trusted,
    /// A config: sums what changes by the amounts that its budgets declare
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sums apart what has another text at this place of the policy input, such as /request/body/currency
    #[arg(long, value_name = "POINTER", requires = "config")]
    by: Option<InputPointer>,
    /// Only decisions from this entry on
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Only decisions up to this entry, itself included
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Only about one decision in N, the same ones each time
    #[arg(long, value_name = "N")]
    one_in: Option<NonZeroU64>,
    /// What must not happen; may be given several times
    #[arg(long, value_name = "CHANGE", value_enum)]
    fail_on: Vec<FailOn>,
    /// Disclosures of redacted evidence, one a line
    #[arg(long, value_name = "FILE")]
    disclosures: Option<PathBuf>,
    /// Judge also what another engine has judged
    #[arg(long)]
    accept_engine: bool,
    /// How many of the decisions that differ are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    receipts: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    /// Something that was not permitted would be
    NewPermit,
    /// Something that was permitted would not be
    NewRefusal,
    /// Any verdict would be another one
    AnyVerdict,
}

impl From<FailOn> for Gate {
    fn from(on: FailOn) -> Self {
        match on {
            FailOn::NewPermit => Self::NewPermit,
            FailOn::NewRefusal => Self::NewRefusal,
            FailOn::AnyVerdict => Self::AnyVerdict,
        }
    }
}

pub fn run(args: &DiffArgs) -> Result<ExitCode> {
    let trust = args.trusted.read()?;
    let cannot_read = || format!("cannot read the log in {}", args.log.display());
    let log = Directory::open(&args.log).with_context(cannot_read)?;
    let sources = Sources::read_bundle(&args.policy).map_err(|faults| anyhow!("{faults}"))?;
    let bundle = Bundle::from_sources(sources, &[]).map_err(|faults| anyhow!("{faults}"))?;
    let measure: Box<dyn Measure> = match &args.config {
        Some(file) => Box::new(Declared::new(read_config(file)?, args.by.clone())),
        None => Box::new(NoAmounts),
    };
    let disclosures = args.disclosures.as_deref().map(replay::disclosures).transpose()?.unwrap_or_default();
    let replayer = Replayer {
        trust,
        selection: args.selection(),
        under: Under::Given(Box::new(bundle)),
        disclosures,
        accept_engine: args.accept_engine,
        threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let mut shown = Shown::new();
    let comparison =
        replayer.compare(&log, &*measure, |progress| shown.show(progress)).with_context(cannot_read)?;
    shown.clear();
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(&comparison)?))?;
    } else {
        write!(out, "{}", comparison.show(args.receipts))?;
    }
    let gates: Vec<Gate> = args.fail_on.iter().copied().map(Gate::from).collect();
    Ok(ExitCode::from(comparison.exit_code(&gates)))
}

impl DiffArgs {
    fn selection(&self) -> Selection {
        let (from, to) = (LeafIndex(self.from), LeafIndex(self.to));
        match self.one_in {
            Some(one_in) => Selection::Sampled { from, to, one_in },
            None => Selection::Entries { from, to },
        }
    }
}

/// The amounts that the budgets of each surface declare.
#[derive(Debug)]
struct Declared {
    budgets: BTreeMap<String, Vec<BudgetRule>>,
    by: Option<InputPointer>,
}

impl Declared {
    fn new(config: Config, by: Option<InputPointer>) -> Self {
        let of_surface = |surface: SurfaceConfig| (surface.name.to_string(), surface.budgets);
        Self { budgets: config.surfaces.into_iter().map(of_surface).collect(), by }
    }
}

impl Measure for Declared {
    fn amounts(&self, input: &Json) -> Vec<Amount> {
        let surface = input.as_object().and_then(|object| object.member("surface")).and_then(Json::as_str);
        let rules = surface.and_then(|surface| self.budgets.get(surface)).into_iter().flatten();
        let apart = self.by.as_ref().and_then(|by| by.find(input)).and_then(Json::as_str);
        let amount = |rule: &BudgetRule| {
            let amount = rule.amount_of(input)?;
            let unit = apart.map_or(rule.unit.clone(), |apart| format!("{} {apart}", rule.unit).into());
            Some(Amount { name: rule.name.to_string().into(), unit, amount })
        };
        rules.filter_map(amount).collect()
    }
}
