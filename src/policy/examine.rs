//! What an author, and a gateway before it activates a bundle, is told: the faults that loading finds, and the
//! type check.
//!
//! Loading alone keeps out what is not safe to evaluate, and is all that replay asks: a recorded bundle stays
//! replayable whatever the type check learns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use super::bundle::Bundle;
use super::fault::{BundleError, Fault};
use super::problem::{Problem, Severity};
use super::source::Sources;
use super::surroundings::Surroundings;
use super::syntax::Parsed;
use super::{lexical, types};
use crate::limits;
use crate::model::PackageName;

/// A bundle that was loaded, if it could be, and everything there is to say about it.
#[derive(Debug)]
pub struct Examined {
    pub bundle: Option<Bundle>,
    /// Sorted by file and place.
    pub problems: Vec<Problem>,
}

impl Examined {
    /// The bundle and what its author should look at; `Err` with every error.
    pub fn accepted(self) -> Result<(Bundle, Vec<Problem>), BundleError> {
        let errors = self.problems.iter().filter(|p| p.severity == Severity::Error);
        BundleError::unless_none(errors.map(Problem::to_fault).collect())?;
        match self.bundle {
            Some(bundle) => Ok((bundle, self.problems)),
            None => {
                Err(Fault::of_bundle("engine_panicked", "nothing was loaded, and nothing says why".into())
                    .into())
            }
        }
    }
}

/// Loads the bundle and checks it against what the config says about its routes. `packages` are those that
/// surfaces name. Blocks for as long as compiling takes.
pub fn examine(sources: Sources, packages: &[PackageName], surroundings: Option<&Surroundings>) -> Examined {
    let loaded = Bundle::from_sources(sources.clone(), packages);
    let mut problems: Vec<Problem> = match &loaded {
        Ok(_) => Vec::new(),
        Err(error) => error.faults().iter().map(|fault| placed(fault, &sources)).collect(),
    };
    // Without a tree there is nothing to check, and loading has said why.
    let is_parsed =
        problems.iter().all(|p| !matches!(p.rule, "engine_panicked" | "load_timeout" | "no_thread"));
    if is_parsed {
        let surroundings = surroundings.cloned();
        problems.extend(aside(move || typed(&sources, surroundings.as_ref())));
    }
    problems.sort();
    problems.dedup();
    Examined { bundle: loaded.ok(), problems }
}

/// With its column in characters: the engine counts a tab as four.
fn placed(fault: &Fault, sources: &Sources) -> Problem {
    let problem = Problem::from(fault);
    let file = sources.policies.iter().chain(&sources.tests).find(|file| file.name == fault.file);
    let number = (fault.line as usize).checked_sub(1);
    let Some(line) = file.zip(number).and_then(|(file, n)| file.text.lines().nth(n)) else { return problem };
    let mut engine_column = 1;
    let before = line.chars().take_while(|c| {
        let is_before = engine_column < fault.column;
        engine_column += if *c == '\t' { 4 } else { 1 };
        is_before
    });
    let column = u32::try_from(before.count()).unwrap_or(0) + 1;
    Problem { column, end_column: column + 1, ..problem }
}

fn typed(sources: &Sources, surroundings: Option<&Surroundings>) -> Vec<Problem> {
    if sources.policies.iter().any(|file| !lexical::faults(file).is_empty()) {
        return Vec::new();
    }
    let modules: Result<Vec<Parsed>, Fault> = sources.policies.iter().map(Parsed::parse).collect();
    let Ok(modules) = modules else { return Vec::new() };
    let data = sources.data_document();
    types::problems(&modules, &sources.data, &data, surroundings).into_iter().collect()
}

/// On a thread with the stack and the deadline of loading.
fn aside(work: impl FnOnce() -> Vec<Problem> + Send + 'static) -> Vec<Problem> {
    let failed = |message: String| vec![Problem::from(&Fault::of_bundle("check_failed", message))];
    let (send, receive) = sync_channel(1);
    let run = move || {
        // Nobody waits any more after the deadline.
        let _ = send.send(catch_unwind(AssertUnwindSafe(work)));
    };
    let builder =
        thread::Builder::new().name("policy-check".into()).stack_size(limits::EVALUATION_STACK_BYTES);
    if let Err(e) = builder.spawn(run) {
        return failed(format!("no thread to check it on: {e}"));
    }
    match receive.recv_timeout(Duration::from_millis(limits::POLICY_LOAD_MAX_MS)) {
        Ok(Ok(problems)) => problems,
        Ok(Err(_)) => failed("the type check panicked on this bundle".into()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            failed(format!("could not be checked within {} ms", limits::POLICY_LOAD_MAX_MS))
        }
    }
}
