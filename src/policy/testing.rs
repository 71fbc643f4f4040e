//! Runs the `test_...` rules of Rego files, as `opa test` does.
//!
//! In: sources, and which of their rules are tests. Out: a [`TestReport`]. A test passes if its rule is `true`, or, if its
//! head has a name for each case (`test_limit[note] if { some note, tc in {...}; ... }`), if every case is. A rule
//! `todo_test_...` is skipped. The engine is the one that decides (strict, bounded in steps), each test on a copy of its
//! own. Loading a bundle, `policy build` and `policy test` all come here: there is no second runner.
//!
//! Test files may use `with`, and add rules to packages, because they are never part of a bundle; what takes the process
//! with it is refused in them too (`check::bounds`).

mod cases;
mod coverage;
mod mocks;

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use regex::Regex;
use regorus::{Engine, Value};

use super::check::names::World;
use super::check::{bounds, package_of};
use super::explain::{At, Explainer, Failure, RuleTrace, Values};
use super::fault::{BundleError, Fault};
use super::source::{RegoFile, Sources};
use super::syntax::{self, Parsed, Rule, RuleHead};
use super::{convert, engine, lexical};
use crate::clock::Clock;
use crate::limits;

use mocks::Additions;

pub use coverage::{Coverage, FileCoverage, LineRange, ranges};

/// Which files may hold tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestsIn {
    /// `*_test.rego`, as a gateway has it: in any other file a rule decides, whatever it is called.
    TestFiles,
    /// Every file, as `opa test` has it.
    EveryFile,
}

/// What to run, and what to find out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only tests whose full name (`data.gateway.payments_test.test_limit`) it matches.
    pub run: Option<Regex>,
    pub threads: NonZeroUsize,
    /// Say which expression of a failing test failed, with values.
    pub explain: bool,
    pub coverage: bool,
    /// For durations; without it they are zero.
    pub clock: Option<Clock>,
}

impl Options {
    /// Every test, one after the other, and no more than whether they pass.
    pub fn plain() -> Self {
        Self { run: None, threads: NonZeroUsize::MIN, explain: false, coverage: false, clock: None }
    }
}

/// Everything that was run, in the order of files and lines.
#[derive(Debug, Default)]
pub struct TestReport {
    pub results: Vec<TestResult>,
    pub coverage: Option<Coverage>,
}

#[derive(Clone, Debug)]
pub struct TestResult {
    /// `gateway.payments_test`.
    pub package: String,
    pub name: String,
    pub at: At,
    pub outcome: Outcome,
    /// Of a test with a name for each case, by name.
    pub cases: Vec<Case>,
    pub duration: Duration,
    /// What it printed.
    pub output: Vec<String>,
    /// Why it failed.
    pub assertion: Option<RuleTrace>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// With what the rule gave instead of `true`.
    Failed(String),
    /// Not evaluated to the end.
    Error(String),
    /// A `todo_test_...`.
    Skipped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// As it was bound: parts are joined with `/`.
    pub name: String,
    pub passed: bool,
    /// Why it does not pass.
    pub failure: Option<Failure>,
}

/// How many came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub errors: usize,
    pub skipped: usize,
}

impl TestReport {
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for result in &self.results {
            match result.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Error(_) => counts.errors += 1,
                Outcome::Skipped => counts.skipped += 1,
            }
        }
        counts
    }

    /// Those that do not pass and were not skipped, by full name, with what they gave instead.
    pub fn failures(&self) -> impl Iterator<Item = (String, &str)> {
        self.results.iter().filter_map(|result| Some((result.full_name(), result.failure()?)))
    }
}

impl TestResult {
    /// What it gave instead of `true`, unless it passed or was skipped.
    pub fn failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Failed(why) | Outcome::Error(why) => Some(why),
            Outcome::Passed | Outcome::Skipped => None,
        }
    }

    /// `gateway.payments_test.test_limit`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }
}

/// `Err` if the files do not parse, if a test file calls what may not be called, or if there is no test: a run that
/// proves nothing is not a success. Blocks.
pub fn run(sources: &Sources, tests_in: TestsIn, options: &Options) -> Result<TestReport, BundleError> {
    engine::on_a_large_stack("policy-test", || {
        let suite = Suite::load(sources, tests_in)?;
        let chosen = suite.chosen(options);
        if chosen.is_empty() {
            let message = match &options.run {
                Some(run) => format!("no test's name matches `{run}`"),
                None => "there is no `test_...` rule in any file that may hold tests".into(),
            };
            return Err(Fault::of_bundle("no_tests", message).into());
        }
        let results = suite.each(&chosen, options)?;
        let coverage = match options.coverage {
            true => Some(coverage::measure(&suite, sources, &results)?),
            false => None,
        };
        Ok(TestReport { results, coverage })
    })?
}

/// A rule that is a test.
struct Test {
    package: String,
    name: String,
    at: At,
    is_todo: bool,
}

impl Test {
    fn path(&self) -> String {
        format!("data.{}.{}", self.package, self.name)
    }
}

/// Parsed and bounded files, in an engine that is ready.
struct Suite {
    modules: Vec<Parsed>,
    pristine: Engine,
    tests: Vec<Test>,
    /// What was put into each module's text.
    additions: Vec<Additions>,
    sources: Sources,
}

impl Suite {
    fn load(sources: &Sources, tests_in: TestsIn) -> Result<Self, BundleError> {
        let files: Vec<&RegoFile> = sources.policies.iter().chain(&sources.tests).collect();
        BundleError::unless_none(files.iter().flat_map(|file| lexical::faults(file)).collect())?;
        let (mut modules, mut faults) = (Vec::new(), Vec::new());
        for file in &files {
            match Parsed::parse(file) {
                Ok(parsed) => modules.push(parsed),
                Err(fault) => faults.push(fault),
            }
        }
        BundleError::unless_none(faults)?;
        BundleError::unless_none(test_faults(&modules, sources, |_| true))?;
        let additions = mocks::additions(&World::new(&modules, &sources.data, EMPTY));
        let written = modules
            .iter()
            .zip(&additions)
            .map(|(parsed, added)| (parsed.file.name.to_string(), mocks::applied(&parsed.file.text, added)));
        let pristine =
            prepared(written, sources).map_err(|e| syntax::engine_fault(&files, "syntax", &e.to_string()))?;
        let is_held = |parsed: &&Parsed| match tests_in {
            TestsIn::EveryFile => true,
            TestsIn::TestFiles => sources.tests.iter().any(|file| file.name == parsed.file.name),
        };
        let mut tests: Vec<Test> = Vec::new();
        for parsed in modules.iter().filter(is_held) {
            let Some(package) = package_of(parsed) else { continue };
            for rule in parsed.module.rules.iter().filter(|rule| is_test(rule)) {
                let name = rule.name();
                if tests.iter().any(|known| known.package == package && known.name == name) {
                    continue;
                }
                let is_todo = name.starts_with("todo_");
                let column = parsed.columns(rule.span()).0;
                let at = At { file: parsed.file.name.clone(), line: rule.span().line, column };
                tests.push(Test { package: package.clone(), name: name.to_owned(), at, is_todo });
            }
        }
        tests.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(Self { modules, pristine, tests, additions, sources: sources.clone() })
    }

    fn chosen(&self, options: &Options) -> Vec<&Test> {
        let is_chosen = |test: &&Test| options.run.as_ref().is_none_or(|run| run.is_match(&test.path()));
        self.tests.iter().filter(is_chosen).collect()
    }

    /// Each on a copy of the engine, in parallel; in the order of the tests.
    fn each(&self, chosen: &[&Test], options: &Options) -> Result<Vec<TestResult>, BundleError> {
        let next = AtomicUsize::new(0);
        let threads = options.threads.get().min(chosen.len()).max(1);
        let work = || {
            // Two threads that share an engine's parts pay for it in reference counts.
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(test) = chosen.get(number) else { return done };
                done.push((number, self.run(test, options)));
            }
        };
        let mut results = thread::scope(|scope| {
            let mut workers = Vec::new();
            for number in 0..threads {
                let builder = thread::Builder::new()
                    .name(format!("policy-test-{number}"))
                    .stack_size(limits::EVALUATION_STACK_BYTES);
                let worker = builder.spawn_scoped(scope, work);
                workers.push(
                    worker
                        .map_err(|e| Fault::of_bundle("no_thread", format!("no thread to test on: {e}")))?,
                );
            }
            let mut results = Vec::new();
            for worker in workers {
                results.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            Ok::<_, BundleError>(results)
        })?;
        results.sort_by_key(|(number, _)| *number);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    fn run(&self, test: &Test, options: &Options) -> TestResult {
        let start = options.clock.as_ref().map(Clock::monotonic);
        let mut result = TestResult {
            package: test.package.clone(),
            name: test.name.clone(),
            at: test.at.clone(),
            outcome: Outcome::Skipped,
            cases: Vec::new(),
            duration: Duration::ZERO,
            output: Vec::new(),
            assertion: None,
        };
        if test.is_todo {
            return result;
        }
        let (given, output) = evaluated(&self.pristine, &test.path());
        result.output = output;
        result.outcome = match given {
            Ok(Value::Bool(true)) => Outcome::Passed,
            Ok(Value::Undefined) => Outcome::Failed("undefined".into()),
            Ok(Value::Object(members)) => {
                result.cases = self.cases(test, &Value::Object(members), options.explain);
                cases::outcome(&result.cases)
            }
            Ok(other) => Outcome::Failed(
                serde_json::to_string(&other).unwrap_or_else(|_| "a value with no text".into()),
            ),
            Err(why) => Outcome::Error(why),
        };
        let is_wrong = matches!(result.outcome, Outcome::Failed(_) | Outcome::Error(_));
        if options.explain && is_wrong && result.cases.is_empty() {
            result.assertion = Some(self.explainer().rule(&result.full_name()));
        }
        if let (Some(start), Some(clock)) = (start, &options.clock) {
            result.duration = clock.monotonic().since(start);
        }
        result
    }

    fn explainer(&self) -> Explainer<'_> {
        let world = World::new(&self.modules, &self.sources.data, EMPTY);
        let input = Value::new_object();
        let steps = limits::EVALUATION_STEPS_MAX_DEFAULT;
        Explainer::new(&self.modules, world, &self.pristine, input, Values::All, steps)
    }
}

/// `test_...` and `todo_test_...`, no functions.
fn is_test(rule: &Rule) -> bool {
    let is_rule = match rule {
        Rule::Spec { head: RuleHead::Func { .. }, .. } | Rule::Default { .. } => false,
        Rule::Spec { head: RuleHead::Compr { .. } | RuleHead::Set { .. }, .. } => true,
    };
    is_rule && (rule.name().starts_with("test_") || rule.name().starts_with("todo_test_"))
}

/// What keeps modules from being run as tests; only of the files that `held` names.
pub(super) fn test_faults(modules: &[Parsed], sources: &Sources, held: impl Fn(&str) -> bool) -> Vec<Fault> {
    let unnamed = modules.iter().filter(|parsed| held(&parsed.file.name) && package_of(parsed).is_none());
    let mut faults: Vec<Fault> = unnamed
        .map(|parsed| {
            let message = "a package is plain identifiers joined by dots, at most 128 bytes".into();
            parsed.fault(parsed.module.package.span, "package_name", message)
        })
        .collect();
    let world = World::new(modules, &sources.data, EMPTY);
    faults.extend(bounds::faults(&world, held));
    faults
}

/// Whether a document has a value is not asked here.
const EMPTY: &crate::model::Json = &crate::model::Json::Null;

/// Of the files, by name and text, and the documents.
fn prepared(
    files: impl Iterator<Item = (String, String)>,
    sources: &Sources,
) -> Result<Engine, anyhow::Error> {
    let mut engine = engine::strict();
    for (name, text) in files {
        engine.add_policy(name, text)?;
    }
    engine.add_data(convert::value_of(&sources.data_document()))?;
    Ok(engine)
}

/// What a rule gives on an empty input, and what it printed on the way.
fn evaluated(pristine: &Engine, path: &str) -> (Result<Value, String>, Vec<String>) {
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let mut engine = pristine.clone();
        engine::bound(&mut engine, limits::EVALUATION_STEPS_MAX_DEFAULT);
        engine.set_gather_prints(true);
        engine.set_input(Value::new_object());
        let given = engine.eval_rule(path.to_owned());
        (given, engine.take_prints().unwrap_or_default())
    }));
    match evaluated {
        Ok((Ok(value), prints)) => (Ok(value), prints),
        Ok((Err(e), prints)) if engine::is_step_limit(&e) => {
            (Err("needs more steps than an evaluation may take".into()), prints)
        }
        Ok((Err(e), prints)) => (Err(e.to_string()), prints),
        Err(_) => (Err("the engine panicked".into()), Vec::new()),
    }
}

/// A name that a person can read: a text as it is, anything else as JSON.
fn name_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => serde_json::to_string(other).unwrap_or_else(|_| "a value with no text".into()),
    }
}

#[cfg(test)]
mod tests;
