//! Evaluates recorded decisions again: the recorded input, the recorded bundle, the same engine and bounds.
//!
//! In: a log, the trust in its keys, and what to replay. Out: a [`Report`]: how many decisions came out exactly as recorded
//! (verdict, reasons, and why policy was not evaluated, if it was not), which differ and how, and which cannot be
//! replayed and why. Nothing is called replayed unless its leaf stands under a checkpoint that a trusted key signed.
//!
//! One walk over the log holds frames, roots and signature, and keeps the newest bundles by revision as it meets
//! their activations; threads evaluate. Memory does not grow with the log. Pairing, epochs and canonical form are
//! [`verify`](crate::verify)'s questions.
//!
//! Exit codes of `interlock replay`: 0 all that policy decided is exact; 1 cannot be read; 2 wrong usage; 3 some, or all, could not be
//! replayed; 10, 11, 12, 15 as `verify` has them; 17 some differ. Of several, the log's own come first, then 17.

mod bundles;
mod diff;
mod judge;
mod pass;
mod records;
mod report;

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use crate::redaction::{Disclosures, InvalidDisclosure};
pub use diff::{Amount, Changed, Comparison, Gate, Group, Measure, NoAmounts, Place, Sum};
pub use report::{About, Change, Difference, Explanation, Left, Report, Said, WhyNot};

use crate::limits;
use crate::merkle::trust::Trust;
use crate::model::{LeafIndex, ReceiptId, TreeSize};
use crate::policy::{Bundle, BundleError, Offline};
use crate::verify::Source;
use diff::Groups;
use judge::{Job, Replayed};
use pass::Pass;
use report::Tally;

/// Which decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Receipt(ReceiptId),
    /// Both ends included.
    Entries {
        from: LeafIndex,
        to: LeafIndex,
    },
    /// About one in so many of them, by the random bits of their ids: the same ones each time.
    Sampled {
        from: LeafIndex,
        to: LeafIndex,
        one_in: NonZeroU64,
    },
}

impl Selection {
    fn takes(self, index: LeafIndex, id: ReceiptId) -> bool {
        match self {
            Self::All => true,
            Self::Receipt(receipt) => id == receipt,
            Self::Entries { from, to } => (from..=to).contains(&index),
            Self::Sampled { from, to, one_in } => {
                let (_, random) = id.as_bytes().split_last_chunk().expect("an id has sixteen bytes");
                (from..=to).contains(&index) && u64::from_be_bytes(*random) % one_in == 0
            }
        }
    }
}

/// By which policy.
#[derive(Debug)]
pub enum Under {
    /// The one that each decision names, from the evidence of its activation.
    Recorded,
    /// This one, whatever was recorded: shows what it would have changed.
    Given(Box<Bundle>),
}

/// What to replay, and how.
#[derive(Debug)]
pub struct Replayer {
    /// Pinned: nothing that none of these keys has signed is replayed.
    pub trust: Trust,
    pub selection: Selection,
    pub under: Under,
    /// For evidence that was redacted.
    pub disclosures: Disclosures,
    /// Evaluates also what another engine has judged, and says so.
    pub accept_engine: bool,
    /// At most [`limits::REPLAY_THREADS_MAX`] are used.
    pub threads: NonZeroUsize,
}

/// Nothing can be said about the log.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the given policy: {0}")]
    Given(BundleError),
    #[error("no thread to evaluate on: {0}")]
    NoThread(io::Error),
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Leaves read, and leaves that are signed.
    pub read: TreeSize,
    pub signed: TreeSize,
}

impl Replayer {
    /// Reads the whole log, front to back; `progress` is called after each frame.
    pub fn run<S: Source + ?Sized>(
        self,
        source: &S,
        progress: impl FnMut(Progress),
    ) -> Result<Report, ReplayError> {
        self.each(source, progress, Besides::Nothing).map(|(report, _)| report)
    }

    /// The same, and counts what differs. Under another bundle, that is what the bundle would change.
    pub fn compare<S: Source + ?Sized>(
        self,
        source: &S,
        measure: &dyn Measure,
        progress: impl FnMut(Progress),
    ) -> Result<Comparison, ReplayError> {
        let (report, groups) = self.each(source, progress, Besides::Measure(measure))?;
        // Of a log that is not what was signed nothing is said.
        let groups = if report.signed_size.is_some() { groups.into_list() } else { Vec::new() };
        Ok(Comparison { report, groups })
    }

    /// The same, and says of every decision which rules made it and what kept the others from it. For one receipt: it
    /// asks the engine many times about each.
    pub fn explain<S: Source + ?Sized>(self, source: &S) -> Result<Report, ReplayError> {
        self.each(source, |_| {}, Besides::Explain).map(|(report, _)| report)
    }

    fn each<S: Source + ?Sized>(
        self,
        source: &S,
        mut progress: impl FnMut(Progress),
        besides: Besides<'_>,
    ) -> Result<(Report, Groups), ReplayError> {
        let Self { trust, selection, under, disclosures, accept_engine, threads } = self;
        let threads = threads.min(THREADS_MAX);
        let given = match under {
            Under::Recorded => None,
            Under::Given(bundle) => Some(Offline::new(*bundle, threads).map_err(ReplayError::Given)?),
        };
        let (jobs, waiting) = sync_channel(2 * threads.get());
        // Of the threads alone: when none is left, nobody waits for one to take a batch.
        let waiting = Arc::new(Mutex::new(waiting));
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for copy in 0..threads.get() {
                let (waiting, disclosures) = (Arc::clone(&waiting), &disclosures);
                let worker = thread::Builder::new()
                    .name(format!("replay-{copy}"))
                    .stack_size(limits::EVALUATION_STACK_BYTES)
                    .spawn_scoped(scope, move || serve(copy, &waiting, disclosures, besides));
                match worker {
                    Ok(worker) => workers.push(worker),
                    // The threads there are end with their channel.
                    Err(error) => return Err(ReplayError::NoThread(error)),
                }
            }
            drop(waiting);
            let options = pass::Options { selection, given, accept_engine, threads };
            // Owns the sending end; when it is done or has failed, the threads end.
            let pass =
                Pass::new(source, &trust, options, jobs).and_then(|pass| pass.walk(source, &mut progress));
            let tallies = workers.into_iter().map(|worker| match worker.join() {
                Ok(tally) => tally,
                Err(panic) => resume_unwind(panic),
            });
            let (tallies, groups): (Vec<Tally>, Vec<Groups>) = tallies.unzip();
            Ok((pass?.report(tallies), groups.into_iter().fold(Groups::default(), Groups::merge)))
        })
    }
}

const THREADS_MAX: NonZeroUsize =
    NonZeroUsize::new(limits::REPLAY_THREADS_MAX).expect("the bound is not zero");

/// What is wanted of each decision, other than whether it comes out again.
#[derive(Clone, Copy)]
enum Besides<'m> {
    Nothing,
    Explain,
    Measure(&'m dyn Measure),
}

/// A thread: evaluates batches until no more come.
fn serve(
    copy: usize,
    waiting: &Mutex<Receiver<Vec<Job>>>,
    disclosures: &Disclosures,
    besides: Besides<'_>,
) -> (Tally, Groups) {
    let (mut tally, mut groups) = (Tally::default(), Groups::default());
    loop {
        // The lock is held while waiting: the others wait for it instead of for a batch.
        let batch = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return (tally, groups) };
        for job in batch {
            let replayed = match besides {
                Besides::Nothing => job.run(copy, disclosures),
                Besides::Explain => {
                    tally.explanations.extend(job.explain(copy, disclosures));
                    job.run(copy, disclosures)
                }
                Besides::Measure(measure) => {
                    let (replayed, input) = job.run_and_keep(copy, disclosures);
                    if let (Replayed::Differs { difference, .. }, Some(input)) = (&replayed, input) {
                        groups.add(difference, &measure.amounts(&input));
                    }
                    replayed
                }
            };
            tally.add(replayed);
        }
    }
}
