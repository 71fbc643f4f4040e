//! The receipt log: the only writer of files.
//!
//! In: evaluated requests, outcomes, and the gateway's own events. Out: [`Recorded`] evidence, which
//! exists only after the leaf is on disk (fdatasync) and covered by a signed checkpoint.
//!
//! [`Ledger::open`] recovers what the last run left (`recovery`), starts the committer (`committer`, which
//! appends frames through `appender`), the publisher of the `checkpoint` file and the archiver (`archive`), which
//! makes the log readable through [`Reader`]. Never signed: what is not
//! durable. Never released: what is not signed. After a write or sync whose result is not known, nothing
//! more is written by this process ([`Health::Poisoned`]); the next start reads what is there.

mod appender;
mod archive;
mod committer;
mod entries;
mod evidence;
mod export;
mod follow;
mod fsck;
mod full;
mod heartbeat;
mod ids;
mod key;
mod key_events;
mod open;
mod positions;
mod publisher;
mod queue;
mod reader;
mod recorded;
mod recovery;
mod rejections;
mod restart;
mod seal;
pub mod salts;
mod signers;
mod snapshots;
mod stat;
mod statistics;
mod storage;
mod withhold;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod following;
#[cfg(test)]
mod obstacles;
#[cfg(test)]
mod rotation;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
pub(crate) mod stepped;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use committer::Closed;
pub use entries::{Ordered, PolicyActivation};
pub use export::{ExportError, Exported, export};
pub use follow::Follower;
pub use fsck::{Checked, Uncheckable, Unfit, fsck};
pub use key::{FileSigner, KeyError};
pub use open::{OpenError, Opened, Settings, Start};
pub use positions::Positions;
pub use reader::{Found, ReadError, Reader, Search, Snapshot};
pub use recorded::{
    Administration, Attestation, Attested, Guard, Obliges, OpenPermit, Outcome, OutcomeRecorded, Receipt,
    Recorded, Recording, Rejection, ResponseSeen, Sent, Unrecorded,
};
pub use recovery::Unrecoverable;
pub use signers::{InvalidSigners, Signers};
pub use stat::{Stat, stat};
pub use statistics::{Observer, Statistics};
pub use storage::Unusable;

use crate::limits;
use crate::model::entry::Entry;
use crate::model::{Decision, Digest, Epoch, ReceiptId};
use crate::policy::{Evaluated, Permit, Refusal};
use appender::{Duty, Leaf};
use committer::Closing;
use ids::IdSource;
use queue::{Done, Effect, Kind, Shared, Stage, change_of};
use rejections::Rejections;

/// What the ledger can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Accepting,
    /// No room for decisions; outcomes still fit. Ends by itself when there is room again.
    Full,
    /// Disk state unknown; nothing more is written by this process.
    Poisoned,
    /// Closed; nothing more is taken.
    Closed,
}

/// A handle to the one committer thread. Cheap to clone. When the last one is dropped without
/// [`Ledger::close`], what is queued is written and the log ends without a stop leaf.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    /// Where the log lies.
    dir: PathBuf,
    rejections: Mutex<Rejections>,
    ids: IdSource,
    closing: Arc<Mutex<Option<Closing>>>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    committer: JoinHandle<Closed>,
    publisher: JoinHandle<bool>,
    archiver: Option<JoinHandle<()>>,
    sealer: seal::SealerThread,
    /// Resolves when the committer is done.
    done: oneshot::Receiver<()>,
    /// Resolves when the archiver is.
    archived: oneshot::Receiver<()>,
}

impl Ledger {
    /// Appends the decision leaf; returns after it is durable and signed.
    ///
    /// If the returned future is dropped, the leaf is still written, and its outcome will be `not_sent`.
    pub async fn record_permit(
        &self,
        permit: Evaluated<Permit>,
        recording: Recording,
    ) -> Result<Recorded<Permit>, Unrecorded> {
        self.record(permit, recording).await
    }

    pub async fn record_refusal(
        &self,
        refusal: Evaluated<Refusal>,
        recording: Recording,
    ) -> Result<Recorded<Refusal>, Unrecorded> {
        self.record(refusal, recording).await
    }

    async fn record<V: Obliges>(
        &self,
        evaluated: Evaluated<V>,
        mut recording: Recording,
    ) -> Result<Recorded<V>, Unrecorded> {
        let shared = &self.0.shared;
        let (id, guard) = (recording.id, recording.guard.take());
        if recording.reserves.len() > limits::RESERVES_MAX {
            return Err(Unrecorded::TooLarge);
        }
        let entry = entries::decision(&evaluated, recording, shared.epoch, shared.clock.wall());
        let decision = entry.decision;
        let input = evaluated.evaluation().input.clone();
        let (entry, input, salter) = match evaluated.execution().request.redaction() {
            None => (entry, input, None),
            Some(redaction) => {
                // Config asks for the directory of keys wherever something is redacted.
                let salter = shared.salts.as_ref().ok_or(Unrecorded::NotRedactable)?.salter(id);
                let (entry, redacted) = withhold::decision(entry, &input, redaction, &salter)?;
                (entry, redacted, Some(salter))
            }
        };
        let evidence = (entry.evaluation.input_digest, input);
        let entry = Entry::Decision(Box::new(entry));
        let done = self.append_decision(entry, (id, decision), evidence, guard).await?;
        // Nothing waits between here and the permit, so none is dropped without knowing what it keeps out; one that
        // is dropped before has sent nothing, and so has no digest to keep out.
        let open = done.open.map(|open| open.withholding(salter));
        let obligation = V::obligation(open).expect("the committer opens a permit for a PERMIT only");
        Ok(Recorded::new(evaluated, done.receipt, obligation))
    }

    /// The part of recording that knows no policy types.
    async fn append_decision(
        &self,
        entry: Entry,
        (id, decision): (ReceiptId, Decision),
        (digest, input): (Digest, Bytes),
        guard: Option<Guard>,
    ) -> Result<Done, Unrecorded> {
        debug_assert_eq!(Digest::of(&input), digest, "evidence is what its digest names");
        let leaf = Leaf::new(entries::bytes(&entry), vec![(digest, input)], Duty::Optional);
        let effect = Effect { change: change_of(&entry), guard };
        let answer = self.0.shared.push(leaf, Kind::Decision(id, decision), effect)?;
        // A committer that panics drops the sender: what became of the leaf is not known.
        answer.await.unwrap_or(Err(Unrecorded::Poisoned))
    }

    /// What was refused before it became an execution request. Rate-limited per actor: `Ok(None)` if only counted.
    pub async fn record_rejection(&self, rejection: Rejection) -> Result<Option<Receipt>, Unrecorded> {
        let shared = &self.0.shared;
        let admitted = self.rejections().admit(&rejection, shared.epoch, &shared.clock);
        if let Some(let_go) = admitted.let_go {
            // Nobody waits for this one; the queue's bound holds for it as for any other.
            drop(shared.push(note(entries::refusal_bytes(let_go)), Kind::Note, Effect::default()));
        }
        let Some(entry) = admitted.leaf else {
            statistics::Counters::add(&shared.counters.suppressed, 1);
            return Ok(None);
        };
        let written =
            self.append(note(entries::refusal_bytes(entry.clone())), Kind::Note, Effect::default()).await;
        match written {
            Ok(done) => Ok(Some(done.receipt)),
            Err(error) => {
                self.rejections().give_back(entry);
                Err(error)
            }
        }
    }

    /// A policy bundle became the active one; its files are evidence beside the leaf. Written also when the disk is full: what is judged from here on, even
    /// if only to be refused, is judged by it.
    pub async fn record_policy(&self, activation: PolicyActivation) -> Result<Receipt, Unrecorded> {
        let shared = &self.0.shared;
        let (entry, evidence) = entries::policy(activation, shared.epoch, shared.clock.wall());
        let effect = Effect { change: change_of(&entry), guard: None };
        let leaf = Leaf::new(entries::bytes(&entry), evidence, Duty::Wanted);
        Ok(self.append(leaf, Kind::Event, effect).await?.receipt)
    }

    /// What an operator did. When this returns, whoever follows the log has heard of it. Written also when the disk is
    /// full, until the room is left that open permits need for their outcomes.
    pub async fn record_admin(&self, administration: Administration) -> Result<Receipt, Unrecorded> {
        let shared = &self.0.shared;
        let entry = entries::admin(administration, shared.epoch, shared.clock.wall());
        self.append_event(Entry::Admin(Box::new(entry))).await
    }

    /// What became of a PERMIT whose outcome is `indeterminate`, by the word of somebody else. The caller sees to it that
    /// it is, and that nobody has said so before: a second word makes a log that does not verify. Written like
    /// [`Ledger::record_admin`].
    pub async fn record_attestation(&self, attestation: Attestation) -> Result<Receipt, Unrecorded> {
        let shared = &self.0.shared;
        let entry = entries::attested(attestation, shared.epoch, shared.clock.wall());
        self.append_event(Entry::Outcome(Box::new(entry))).await
    }

    async fn append_event(&self, entry: Entry) -> Result<Receipt, Unrecorded> {
        let effect = Effect { change: change_of(&entry), guard: None };
        let leaf = Leaf::new(entries::bytes(&entry), Vec::new(), Duty::Wanted);
        Ok(self.append(leaf, Kind::Event, effect).await?.receipt)
    }

    async fn append(&self, leaf: Leaf, kind: Kind, effect: Effect) -> Result<Done, Unrecorded> {
        let answer = self.0.shared.push(leaf, kind, effect)?;
        // A committer that panics drops the sender: what became of the leaf is not known.
        answer.await.unwrap_or(Err(Unrecorded::Poisoned))
    }

    pub fn health(&self) -> Health {
        *self.0.shared.health.borrow()
    }

    /// Resolves when the ledger is poisoned, and only then: the gateway must exit.
    pub async fn poisoned(&self) {
        let mut health = self.0.shared.health.subscribe();
        if health.wait_for(|h| *h == Health::Poisoned).await.is_err() {
            // The sender lives in `shared`, which this handle holds; it cannot be gone.
            std::future::pending::<()>().await;
        }
    }

    pub fn statistics(&self) -> Statistics {
        self.0.shared.counters.read()
    }

    /// The newest signed checkpoint, a note; covers every receipt given out so far.
    pub fn checkpoint(&self) -> Option<Arc<str>> {
        self.0.shared.publisher.newest()
    }

    /// Reads what is durable, signed and archived.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.0.shared), &self.0.dir)
    }

    /// This run's number.
    pub fn epoch(&self) -> Epoch {
        self.0.shared.epoch
    }

    /// Takes no more decisions, waits at most `wait` for the outcomes of open permits, writes what was
    /// counted, the stop leaf and the last checkpoint, and ends the threads. A second close is answered
    /// with [`Closed::Poisoned`] only if the log is poisoned.
    pub async fn close(&self, wait: Duration) -> Closed {
        let threads = self.0.take_threads();
        let Some(Threads { committer, publisher, archiver, sealer, done, archived }) = threads else {
            return match self.health() {
                Health::Poisoned => Closed::Poisoned,
                Health::Accepting | Health::Full | Health::Closed => Closed::Clean,
            };
        };
        let remainders = self.rejections().remainders();
        *self.0.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(Closing { wait, remainders });
        self.0.enter(Stage::Closing);
        // An error means that the sender is gone, and so is the thread.
        let _ = done.await;
        let in_time = timeout(Duration::from_millis(limits::ARCHIVE_END_MS_MAX), archived).await.is_ok();
        sealer.end();
        join(committer, publisher, archiver.filter(|_| in_time || is_late()))
    }

    /// A new id, for the next decision.
    pub fn new_id(&self) -> Result<ReceiptId, Unrecorded> {
        // Nothing was written; a system without randomness refuses every request.
        let random = self.0.ids.random().ok_or(Unrecorded::Busy)?;
        Ok(ReceiptId::new(self.0.shared.clock.wall(), random))
    }

    fn rejections(&self) -> std::sync::MutexGuard<'_, Rejections> {
        self.0.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(bytes: Vec<u8>) -> Leaf {
    Leaf::new(bytes, Vec::new(), Duty::Optional)
}

/// The archiver is left behind: what it derives is made again.
fn is_late() -> bool {
    tracing::error!("the archiver does not end, and is not waited for");
    false
}

/// Whether the thread ends before it has to.
fn ends_in_time(thread: &JoinHandle<()>) -> bool {
    let look = Duration::from_millis(1);
    for _ in 0..limits::ARCHIVE_END_MS_MAX {
        if thread.is_finished() {
            return true;
        }
        std::thread::sleep(look);
    }
    thread.is_finished()
}

fn join(
    committer: JoinHandle<Closed>,
    publisher: JoinHandle<bool>,
    archiver: Option<JoinHandle<()>>,
) -> Closed {
    // The committer catches its panics, so an error here is one outside its loop.
    let closed = committer.join().unwrap_or(Closed::Poisoned);
    let archiver = archiver.filter(|thread| ends_in_time(thread) || is_late());
    if let Some(Err(_)) = archiver.map(JoinHandle::join) {
        tracing::error!("the archiver panicked");
    }
    // An error is a panic.
    if publisher.join().unwrap_or(false) {
        return closed;
    }
    tracing::error!("the last checkpoint is not in place");
    Closed::Poisoned
}

impl Handle {
    fn take_threads(&self) -> Option<Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn enter(&self, stage: Stage) {
        let mut queue = self.shared.lock();
        if queue.stage != Stage::Ended {
            queue.stage = stage;
        }
        drop(queue);
        self.shared.changed.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(Threads { committer, publisher, archiver, sealer, done: _, archived: _ }) =
            self.take_threads()
        {
            self.enter(Stage::Ended);
            sealer.end();
            join(committer, publisher, archiver);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("shared", &self.shared).finish_non_exhaustive()
    }
}
