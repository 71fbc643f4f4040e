//! Opening a log: lock, recovery, the start leaf, the outcomes that a crash left owing, the threads.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::appender::{Appender, Duty, Leaf, NotAppended};
use super::archive::{Archiver, End, Feed};
use super::committer::{Closing, Committer};
use super::entries::{self, EpochFacts};
use super::follow::{Follower, Following};
use super::full::FullSegments;
use super::heartbeat::Heartbeat;
use super::ids::IdSource;
use super::queue::{Shared, change_of};
use super::recorded::Outcome;
use super::recovery::{Recovered, Unrecoverable, recover};
use super::rejections::Rejections;
use super::salts::{self, SaltsError};
use super::seal::SealerThread;
use super::signers::Signers;
use super::snapshots::StateKeeper;
use super::statistics::{Counters, Observer};
use super::storage::{Disk, Storage, Unusable};
use super::{Handle, Health, Ledger, Threads};
use crate::clock::Clock;
use crate::limits;
use crate::merkle::frame;
use crate::model::entry::{Entry, EpochEvent};
use crate::model::{Change, Digest, Epoch, LeafIndex, LogOrigin, OutcomeStatus, TreeSize};

/// Where the log is and what it is called.
#[derive(Clone, Debug)]
pub struct Settings {
    pub dir: PathBuf,
    /// Must be the signing key's name.
    pub origin: LogOrigin,
    /// A multiple of 4,096, within the bounds of limits.rs.
    pub segment_bytes: u64,
    /// Where the keys of redacted values are kept, outside `dir`; needed for requests that redact.
    pub salts: Option<PathBuf>,
    /// After so long without a leaf a `heartbeat` is written. Leaves name it in whole seconds, at least one. `None`: never.
    pub heartbeat: Option<Duration>,
}

/// What starts: recorded in the start and stop leaves.
#[derive(Clone)]
pub struct Start {
    pub binary_digest: Digest,
    pub config_digest: Digest,
    pub observer: Arc<dyn Observer>,
    /// Keeps state as a fold of the log.
    pub follower: Arc<dyn Follower>,
}

/// What was found, and what was done about it.
#[derive(Clone, Debug)]
pub struct Opened {
    pub epoch: Epoch,
    /// Leaves now, with the start leaf.
    pub size: TreeSize,
    /// Whether the log ended with a stop leaf, or is new.
    pub clean: bool,
    pub torn_bytes: u64,
    /// Copy of the torn bytes, relative to the log's directory.
    pub quarantined: Option<String>,
    /// PERMITs that had no outcome and now have `indeterminate`.
    pub recovered_permits: u64,
}

/// The log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("the log is called `{origin}`, the signing key `{key}`")]
    OtherKey { origin: LogOrigin, key: LogOrigin },
    #[error("segment_bytes must be a multiple of 4096 from {min} to {max}", min = limits::SEGMENT_BYTES_MIN, max = limits::SEGMENT_BYTES_MAX)]
    SegmentBytes,
    #[error("the log in {dir} is not appended to: {source}")]
    Unrecoverable { dir: PathBuf, source: Unrecoverable },
    #[error("keys of redacted values: {0}")]
    Salts(#[from] SaltsError),
    #[error("the log in {dir} cannot be written: {why}")]
    NotWritable { dir: PathBuf, why: String },
}

impl Ledger {
    /// Creates a log in the directory, or recovers the one that is there, and starts a new epoch.
    ///
    /// Returns after the start leaf is durable and its checkpoint is in place. Blocks: call it before
    /// serving, or off the async threads.
    pub fn open(
        settings: Settings,
        signers: impl Into<Signers>,
        clock: Clock,
        start: Start,
    ) -> Result<(Self, Opened), OpenError> {
        let signers = signers.into();
        let valid = (limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX).contains(&settings.segment_bytes)
            && settings.segment_bytes.is_multiple_of(limits::FRAME_ALIGNMENT_BYTES as u64);
        if !valid {
            return Err(OpenError::SegmentBytes);
        }
        if settings.origin != *signers.origin() {
            let key = signers.origin().clone();
            return Err(OpenError::OtherKey { origin: settings.origin, key });
        }
        let disk = Arc::new(Disk::open(&settings.dir)?);
        Self::open_on(disk, settings, signers, clock, start)
    }

    /// The same on any storage.
    pub(super) fn open_on(
        storage: Arc<dyn Storage>,
        settings: Settings,
        signers: impl Into<Signers>,
        clock: Clock,
        start: Start,
    ) -> Result<(Self, Opened), OpenError> {
        let dir = settings.dir.clone();
        let (ready, opened) = Self::ready_on(storage, settings, signers, clock, start)?;
        let not_writable = |why: std::io::Error| OpenError::NotWritable { dir, why: why.to_string() };
        Ok((ready.start_threads().map_err(not_writable)?, opened))
    }

    pub(super) fn ready_on(
        storage: Arc<dyn Storage>,
        settings: Settings,
        signers: impl Into<Signers>,
        clock: Clock,
        start: Start,
    ) -> Result<(Ready, Opened), OpenError> {
        let Settings { dir, origin, segment_bytes, salts, heartbeat } = settings;
        let signers = signers.into();
        let not_writable = |why: String| OpenError::NotWritable { dir: dir.clone(), why };
        let recognized = signers.recognized().map_err(|e| not_writable(e.to_string()))?;
        let recovered = recover(&*storage, &recognized, segment_bytes, &*start.follower)
            .map_err(|source| OpenError::Unrecoverable { dir: dir.clone(), source })?;

        let epoch = Epoch(recovered.fold.last_epoch.map_or(1, |last| last.0 + 1));
        // Durable before the first leaf of the run. A crash right after it leaves a key that the next start takes.
        let salts = salts.map(|salts| salts::begin(&salts, &dir, epoch)).transpose()?;
        let is_new = recovered.tail.edge.size() == TreeSize(0);
        let mut opened = Opened {
            epoch,
            size: recovered.tail.edge.size(),
            clean: (recovered.fold.ends_with_stop || is_new) && recovered.torn_bytes == 0,
            torn_bytes: recovered.torn_bytes,
            quarantined: recovered.quarantined.clone(),
            recovered_permits: recovered.fold.open.len() as u64,
        };
        let mut leaves = first_leaves(&recovered, &opened, &signers, &clock, &start);
        let Recovered { tail, fold, .. } = recovered;
        let opened_size = opened.size;
        let frame_key = signers.frame_key().map_err(|e| not_writable(e.to_string()))?;
        let state_key = signers.frame_key().map_err(|e| not_writable(e.to_string()))?;
        let keeper = StateKeeper { log: origin.clone(), key: state_key };
        let mut appender = Appender::new(Arc::clone(&storage), signers, clock.clone(), segment_bytes, tail)
            .map_err(|e| not_writable(e.to_string()))?;
        let sealer = SealerThread::new(storage.directory().is_some());
        let following = Following { follower: Arc::clone(&start.follower), sealing: sealer.queue() };
        // The start leaf first, then what the last run owes: a crash in between leaves the rest to the next.
        while !leaves.is_empty() {
            let (frame, changes) = take_frame(&mut leaves, batch_bytes_max(segment_bytes));
            let appended = appender.append(&frame).map_err(|e| not_writable(e.to_string()))?;
            let changed = (appended.first.0..).map(LeafIndex).zip(changes);
            let changes = changed.filter_map(|(index, change)| change.map(|change| (index, change)));
            following.tell(&appended, changes.collect());
        }
        opened.size = appender.edge().size();
        let checkpoint = appender.checkpoint().map_err(|e| not_writable(e.to_string()))?;
        storage.write_checkpoint(checkpoint.as_bytes()).map_err(|e| not_writable(e.to_string()))?;

        let health = match appender.take_spare() {
            Ok(()) => Health::Accepting,
            Err(NotAppended::NoRoom(error)) => {
                tracing::warn!(%error, "the log has no room for decisions");
                Health::Full
            }
            Err(error) => return Err(not_writable(error.to_string())),
        };
        let nothing = appender.checkpoint_of_nothing().map_err(|e| not_writable(e.to_string()))?;
        let shared = Arc::new(Shared::new(
            clock,
            epoch,
            salts,
            Feed::new(nothing),
            permits_max(segment_bytes),
            leaf_cost_max(segment_bytes),
        ));
        shared.health.send_replace(health);
        shared.publisher.offer(Arc::clone(&checkpoint));
        shared.archive.offer(checkpoint);
        Counters::set(&shared.counters.leaves, opened.size.0);
        let known = (opened_size, fold);
        let full = FullSegments::new(Arc::clone(&storage), origin.clone(), frame_key, sealer.queue(), known);
        let archiver = storage
            .directory()
            .map(|root| Archiver::new(Arc::clone(&shared), root, origin, Some(Arc::new(full))));
        let heartbeat = heartbeat.map(|every| Heartbeat::new(every, shared.clock.monotonic()));
        let committer = Committer {
            shared,
            appender,
            observer: Arc::clone(&start.observer),
            start,
            following,
            batch_bytes_max: batch_bytes_max(segment_bytes),
            heartbeat,
            closing: Arc::default(),
        };
        Ok((Ready { storage, committer, archiver, sealer, keeper, dir: dir.clone() }, opened))
    }
}

/// A log that is open, and nothing of it runs yet.
pub(super) struct Ready {
    storage: Arc<dyn Storage>,
    committer: Committer,
    archiver: Option<Archiver>,
    sealer: SealerThread,
    keeper: StateKeeper,
    dir: PathBuf,
}

impl Ready {
    fn start_threads(self) -> std::io::Result<Ledger> {
        let Self { storage, committer, archiver, mut sealer, keeper, dir } = self;
        let (done_sender, done) = oneshot::channel();
        let (shared, closing) = (Arc::clone(&committer.shared), Arc::clone(&committer.closing));
        sealer.start(Arc::clone(&storage), shared.clock.clone(), keeper)?;
        let publishing = Arc::clone(&shared);
        let publisher = thread::Builder::new()
            .name("ledger-publisher".into())
            .spawn(move || publishing.publisher.run(&*storage, &publishing.counters))?;
        let committer = thread::Builder::new().name("ledger-committer".into()).spawn(move || {
            let closed = committer.run();
            // Nobody waits if the last handle was dropped.
            let _ = done_sender.send(());
            closed
        });
        let (archived_sender, archived) = oneshot::channel();
        let archiver = archiver.map(|archiver| {
            thread::Builder::new().name("ledger-archiver".into()).spawn(move || {
                archiver.run();
                let _ = archived_sender.send(());
            })
        });
        if committer.is_err() {
            shared.publisher.close();
            shared.archive.end(End::Now);
        }
        let threads = Threads {
            committer: committer?,
            publisher,
            archiver: archiver.transpose()?,
            sealer,
            done,
            archived,
        };
        Ok(handle(shared, dir, IdSource::system(), closing, Some(threads)))
    }

    /// Whoever asks for it commits, in their own thread.
    #[cfg(test)]
    pub(super) fn without_threads(self, ids: IdSource) -> (Ledger, Arc<dyn Storage>, Committer) {
        let Self { storage, committer, archiver: _, sealer: _, keeper: _, dir } = self;
        let (shared, closing) = (Arc::clone(&committer.shared), Arc::clone(&committer.closing));
        (handle(shared, dir, ids, closing, None), storage, committer)
    }
}

fn handle(
    shared: Arc<Shared>,
    dir: PathBuf,
    ids: IdSource,
    closing: Arc<Mutex<Option<Closing>>>,
    threads: Option<Threads>,
) -> Ledger {
    let (rejections, threads) = (Mutex::new(Rejections::default()), Mutex::new(threads));
    Ledger(Arc::new(Handle { shared, dir, rejections, ids, closing, threads }))
}

/// The start leaf, an outcome for each permit that the last run left open, and what is new about the keys.
fn first_leaves(
    recovered: &Recovered,
    opened: &Opened,
    signers: &Signers,
    clock: &Clock,
    start: &Start,
) -> VecDeque<(Leaf, Option<Change>)> {
    let owed = |bytes| (Leaf::new(bytes, Vec::new(), Duty::Owed), None);
    let facts = EpochFacts {
        epoch: opened.epoch,
        now: clock.wall(),
        start,
        vkeys: signers.vkeys(),
        tree: &recovered.tail.edge,
        clean: opened.clean,
        torn_bytes: opened.torn_bytes,
    };
    let mut leaves = VecDeque::from([owed(entries::epoch_bytes(EpochEvent::Start, facts))]);
    for (&index, &id) in &recovered.fold.open {
        let outcome = Outcome {
            status: OutcomeStatus::Indeterminate,
            cause: Some("recovered"),
            sent: None,
            response: None,
            answer: None,
            // How long it took, or whether it did, was lost with the process.
            duration: Duration::ZERO,
        };
        let entry = entries::outcome(outcome, id, index, opened.epoch, clock.wall());
        let entry = Entry::Outcome(Box::new(entry));
        leaves.push_back((Leaf::new(entries::bytes(&entry), Vec::new(), Duty::Owed), change_of(&entry)));
    }
    for (event, vkey) in recovered.fold.keys.unsaid(&signers.vkeys(), &signers.compromised()) {
        tracing::info!(?event, %vkey, "signing keys changed");
        leaves.push_back(owed(entries::key_bytes(event, vkey, opened.epoch, clock.wall())));
    }
    leaves
}

/// What one frame can hold off the front, and what each leaf changes. The last run may have had larger segments, and more
/// permits open.
fn take_frame(
    leaves: &mut VecDeque<(Leaf, Option<Change>)>,
    bytes_max: usize,
) -> (Vec<Leaf>, Vec<Option<Change>>) {
    let (mut frame, mut changes) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    while bytes < bytes_max && frame.len() < limits::FRAME_ENTRIES_MAX {
        let Some((leaf, change)) = leaves.pop_front() else { break };
        bytes += leaf.cost();
        frame.push(leaf);
        changes.push(change);
    }
    (frame, changes)
}

/// Half of a segment's blocks hold the outcomes of all open permits, each alone in its frame.
fn permits_max(segment_bytes: u64) -> usize {
    let blocks = segment_bytes / limits::FRAME_ALIGNMENT_BYTES as u64;
    limits::PERMITS_IN_FLIGHT_MAX.min((blocks / 2) as usize)
}

/// A batch takes no more once it has a quarter of a segment, and one leaf may take half of one.
fn batch_bytes_max(segment_bytes: u64) -> usize {
    limits::BATCH_BYTES_MAX.min((segment_bytes / 4) as usize)
}

fn leaf_cost_max(segment_bytes: u64) -> usize {
    let in_segment = (segment_bytes / 2) as usize - frame::padded_length(0);
    in_segment
        .min(frame::evidence_cost(limits::EVIDENCE_BYTES_MAX) + frame::entry_cost(limits::ENTRY_BYTES_MAX))
}
