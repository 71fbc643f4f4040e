//! The evaluator: the active bundle, its threads, and the one place that makes evidence of a verdict.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use regorus::Engine;

use super::bundle::{Bundle, ENGINE};
use super::evaluate::{Finding, evaluate};
use super::fault::{BundleError, Fault};
use super::input::Input;
use super::source::BundleFile;
use super::verdict::{Evaluated, Evaluation, Judgment, Permit, Refusal};
use super::workers::{Place, Workers};
use crate::canonical::ExecutionRequest;
use crate::clock::{Clock, WallTime};
use crate::limits;
use crate::model::{Decision, Digest, Json, PackageName, PolicyReason, ReadSet, ReasonCode};

/// What authority knows about a request, for `input.context`.
#[derive(Clone, Debug)]
pub struct Context {
    /// Objects and lists exactly as the contract names them.
    pub facts: Json,
    pub budgets: Json,
    pub approvals: Json,
    /// From 1; evaluations of this request so far, counting this one.
    pub attempt: u32,
}

impl Context {
    /// Nothing but the attempt: no facts, budgets or approvals.
    pub fn empty(attempt: u32) -> Self {
        Self {
            facts: Json::object([]),
            budgets: Json::object([]),
            approvals: Json::Array(Vec::new()),
            attempt,
        }
    }
}

/// Everything one evaluation needs.
#[derive(Debug)]
pub struct Question {
    pub execution: ExecutionRequest,
    pub package: PackageName,
    pub context: Context,
    pub read_set: ReadSet,
    pub now: WallTime,
}

/// How evaluation is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Evaluation threads.
    pub workers: NonZeroUsize,
    /// Questions that wait for a thread.
    pub queue_max: usize,
    /// From the question to its verdict, waiting included.
    pub evaluation_max: Duration,
    /// Work units of the engine for each of the four sets; the same on every machine, see `engine`.
    pub steps_max: NonZeroU32,
}

impl Default for Settings {
    /// One thread for each core, and the bounds of `limits`.
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            queue_max: limits::EVALUATION_QUEUE_MAX_DEFAULT,
            evaluation_max: Duration::from_millis(limits::EVALUATION_MAX_MS_DEFAULT),
            steps_max: NonZeroU32::new(limits::EVALUATION_STEPS_MAX_DEFAULT).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// Sees each evaluation end; for metrics.
pub trait Observer: Send + Sync {
    /// `not_evaluated` is the class of the failure if there was one.
    fn evaluated(
        &self,
        package: &PackageName,
        took: Duration,
        decision: Decision,
        not_evaluated: Option<ReasonCode>,
    );
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub evaluations: u64,
    pub panics: u64,
    pub timeouts: u64,
    pub overloads: u64,
    /// Threads whose caller has left and whose call has not returned: a gauge.
    pub stuck_workers: u64,
}

/// The active bundle and its evaluation threads. Cheap to clone.
#[derive(Clone)]
pub struct Pdp(Arc<Inner>);

struct Inner {
    settings: Settings,
    clock: Clock,
    observer: Option<Arc<dyn Observer>>,
    active: ArcSwap<Active>,
    place: Place,
    evaluations: AtomicU64,
    panics: AtomicU64,
    timeouts: AtomicU64,
    overloads: AtomicU64,
}

/// A bundle and one prepared engine for each thread: two threads that share one pay for it in reference
/// counts.
pub(super) struct Active {
    pub bundle: Bundle,
    pub engines: Vec<Engine>,
}

/// Whether the log shows why policy could not be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Logged,
    Withheld,
}

impl Active {
    pub fn new(bundle: Bundle, settings: &Settings) -> Result<Self, BundleError> {
        let engines = (0..settings.workers.get()).map(|_| bundle.engine()).collect::<Result<_, _>>()?;
        Ok(Self { bundle, engines })
    }
}

impl Pdp {
    /// Starts the threads with a bundle. `BundleError` also if there is no thread to be had.
    pub fn start(
        bundle: Bundle,
        settings: Settings,
        clock: Clock,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, BundleError> {
        let active = Active::new(bundle, &settings)?;
        let workers = Workers::start(settings.workers, settings.queue_max)
            .map_err(|e| Fault::of_bundle("no_thread", format!("no thread to evaluate on: {e}")))?;
        Ok(Self::with(settings, clock, observer, active.into(), Place::Threads(workers)))
    }

    /// Evaluates in its caller's thread, for as long as `pace` says.
    #[cfg(test)]
    pub(crate) fn without_threads(
        Prepared(active): Prepared,
        settings: Settings,
        clock: Clock,
        pace: super::workers::Pace,
    ) -> Self {
        Self::with(settings, clock, None, active, Place::Here(pace))
    }

    fn with(
        settings: Settings,
        clock: Clock,
        observer: Option<Arc<dyn Observer>>,
        active: Arc<Active>,
        place: Place,
    ) -> Self {
        Self(Arc::new(Inner {
            settings,
            clock,
            observer,
            active: ArcSwap::new(active),
            place,
            evaluations: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            overloads: AtomicU64::new(0),
        }))
    }

    /// Always a judgment; whatever goes wrong is SILENCE with its cause.
    pub async fn judge(&self, question: Question) -> Judgment {
        let active = self.active();
        let input = Input::of(&question);
        // The engine's words may repeat the values it was given.
        let cause = match question.execution.request.redaction() {
            Some(_) => Cause::Withheld,
            None => Cause::Logged,
        };
        let finding = self.find(active.clone(), &question.package, input.tree.clone(), cause).await;
        bind(question, input, &active.bundle, finding)
    }

    /// A refusal without asking policy: what the evaluation would rest on is missing or stale, or people have decided
    /// already; `reason` says which of it. Never a PERMIT.
    pub fn refuse(
        &self,
        question: Question,
        decision: Decision,
        code: ReasonCode,
        reason: PolicyReason,
    ) -> Evaluated<Refusal> {
        let active = self.active();
        let input = Input::of(&question);
        let finding = Finding { decision, reasons: vec![reason], ..Finding::silence(code, String::new()) };
        let evaluation = evaluation(&question, input, &active.bundle, &finding);
        let refusal = Refusal::new(decision, finding.reasons, code);
        Evaluated::new(question.execution, question.read_set, evaluation, refusal)
    }

    /// [`Pdp::refuse`] with SILENCE.
    pub fn silence(&self, question: Question, code: ReasonCode) -> Evaluated<Refusal> {
        self.refuse(question, Decision::Silence, code, code.into())
    }

    /// What the active bundle says to a recorded (or made up) input. For replay and dry runs: a finding
    /// is no capability.
    pub async fn find_on(&self, package: &PackageName, input: Json) -> Finding {
        self.find(self.active(), package, input, Cause::Logged).await
    }

    /// The evaluator of one package without threads and deadline, on the caller's stack: for offline
    /// replay and for measuring. `None` if the bundle has no such package.
    pub fn bare(&self, package: &PackageName) -> Option<Bare> {
        let active = self.active();
        active.bundle.sets(package)?;
        let steps_max = self.0.settings.steps_max.get();
        Some(Bare { active, package: package.clone(), steps_max })
    }

    /// Compiles `bundle` for every thread, so that nothing is left that could fail. Blocks.
    pub fn prepare(&self, bundle: Bundle) -> Result<Prepared, BundleError> {
        Ok(Prepared(Arc::new(Active::new(bundle, &self.0.settings)?)))
    }

    /// Makes it the active one; never waits. Evaluations that run keep the bundle they began with.
    pub fn activate(&self, prepared: Prepared) {
        self.0.active.store(prepared.0);
    }

    /// Digest of the active bundle (RECEIPTS.md).
    pub fn revision(&self) -> Digest {
        self.active().bundle.revision()
    }

    /// The active bundle's files, for the policy leaf and its evidence.
    pub fn files(&self) -> Vec<BundleFile> {
        self.active().bundle.sources().deciding()
    }

    /// The evaluator as receipts name it.
    pub fn engine(&self) -> &'static str {
        ENGINE
    }

    pub fn counts(&self) -> Counts {
        let inner = &*self.0;
        Counts {
            evaluations: inner.evaluations.load(Ordering::Relaxed),
            panics: inner.panics.load(Ordering::Relaxed),
            timeouts: inner.timeouts.load(Ordering::Relaxed),
            overloads: inner.overloads.load(Ordering::Relaxed),
            stuck_workers: inner.place.stuck() as u64,
        }
    }

    /// Never waits.
    fn active(&self) -> Arc<Active> {
        self.0.active.load_full()
    }

    async fn find(&self, active: Arc<Active>, package: &PackageName, input: Json, cause: Cause) -> Finding {
        let inner = &*self.0;
        let began = inner.clock.monotonic();
        let finding = if active.bundle.sets(package).is_some() {
            let steps_max = inner.settings.steps_max.get();
            let name = package.clone();
            let work = move |worker: usize| match (active.bundle.sets(&name), active.engines.get(worker)) {
                (Some(sets), Some(engine)) => evaluate(engine, sets, &input, steps_max),
                (Some(_), None) | (None, _) => {
                    Finding::silence(ReasonCode::EvaluationError, "no engine for this thread".into())
                }
            };
            inner.place.run(inner.settings.evaluation_max, work).await
        } else {
            no_package(package)
        };
        self.count(package, inner.clock.monotonic().since(began), &finding, cause);
        finding
    }

    fn count(&self, package: &PackageName, took: Duration, finding: &Finding, cause: Cause) {
        let inner = &*self.0;
        inner.evaluations.fetch_add(1, Ordering::Relaxed);
        match finding.not_evaluated {
            Some(ReasonCode::EvaluationPanic) => inner.panics.fetch_add(1, Ordering::Relaxed),
            Some(ReasonCode::EvaluationTimeout) => inner.timeouts.fetch_add(1, Ordering::Relaxed),
            Some(ReasonCode::EvaluationOverloaded) => inner.overloads.fetch_add(1, Ordering::Relaxed),
            Some(_) | None => 0,
        };
        if let Some(code) = finding.not_evaluated {
            let cause = match cause {
                Cause::Logged => finding.cause.as_deref().unwrap_or_default(),
                Cause::Withheld => "withheld: this route redacts",
            };
            tracing::warn!(%package, reason = %code, cause, "policy was not evaluated");
        }
        if let Some(observer) = &inner.observer {
            observer.evaluated(package, took, finding.decision, finding.not_evaluated);
        }
    }
}

/// A bundle that can be activated at once.
pub struct Prepared(Arc<Active>);

impl Prepared {
    /// Compiled for one thread, without a [`Pdp`]; and the same once more.
    #[cfg(test)]
    pub(crate) fn of(bundle: Bundle, settings: &Settings) -> Result<Self, BundleError> {
        Ok(Self(Arc::new(Active::new(bundle, settings)?)))
    }

    #[cfg(test)]
    pub(crate) fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    pub fn bundle(&self) -> &Bundle {
        &self.0.bundle
    }
}

/// See [`Pdp::bare`]. Keeps the bundle that was active when it was made.
pub struct Bare {
    active: Arc<Active>,
    package: PackageName,
    steps_max: u32,
}

impl Bare {
    pub fn find(&self, input: &Json) -> Finding {
        match (self.active.bundle.sets(&self.package), self.active.engines.first()) {
            (Some(sets), Some(engine)) => evaluate(engine, sets, input, self.steps_max),
            (Some(_), None) | (None, _) => {
                Finding::silence(ReasonCode::EvaluationError, "no such package".into())
            }
        }
    }
}

pub(super) fn no_package(package: &PackageName) -> Finding {
    Finding::silence(ReasonCode::EvaluationError, format!("the bundle has no package {package}"))
}

/// The only way from a finding to evidence. A PERMIT needs the verdict and a finished evaluation, both.
fn bind(question: Question, input: Input, bundle: &Bundle, finding: Finding) -> Judgment {
    let evaluation = evaluation(&question, input, bundle, &finding);
    let code = finding.refusal_code();
    let Question { execution, read_set, .. } = question;
    match (code, finding.decision) {
        (None, Decision::Permit) => {
            let permit = Permit::new(finding.reasons);
            Judgment::Permit(Evaluated::new(execution, read_set, evaluation, permit))
        }
        (code, decision) => {
            let code = code.unwrap_or(ReasonCode::EvaluationError);
            let refusal = Refusal::new(decision, finding.reasons, code);
            Judgment::Refusal(Evaluated::new(execution, read_set, evaluation, refusal))
        }
    }
}

fn evaluation(question: &Question, input: Input, bundle: &Bundle, finding: &Finding) -> Evaluation {
    Evaluation {
        not_evaluated: finding.not_evaluated,
        input_digest: Digest::of(&input.bytes),
        input: input.bytes,
        package: question.package.clone(),
        revision: bundle.revision(),
        engine: ENGINE.into(),
        at: question.now,
    }
}
