//! What the committer tells the archiver: the newest signed checkpoint, the leaves that it covers, and when it is over.
//!
//! The committer never waits here, and wakes the thread only when that is idle. Leaves are handed over as long as there is
//! room for them, so that they need not be read and hashed again; the others are read from the frames.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::ledger::reader::Snapshot;
use crate::limits;
use crate::model::{Digest, LeafIndex, TreeSize};
use crate::verify::walk::Spot;

/// How the archiver ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Within a bound: catches up, and writes what makes the directory a whole static log.
    CatchUp,
    /// At once.
    Now,
}

/// What to do next.
#[derive(Debug)]
pub enum Order {
    /// Follow the frames up to this checkpoint.
    Follow(Arc<str>),
    /// Nothing came for the time asked for.
    Quiet,
    End(End),
}

/// A frame that was written, made durable and signed by this run, without its evidence.
#[derive(Debug)]
pub struct Written {
    pub first: LeafIndex,
    /// Each with its hash.
    pub leaves: Vec<(Vec<u8>, Digest)>,
    /// Of the tree after it.
    pub root: Digest,
    pub spot: Spot,
    /// Where in its segment the next one goes.
    pub end: u64,
    /// Closing digest of the one before it, and its own.
    pub previous: Digest,
    pub chain: Digest,
}

impl Written {
    /// Index after the last leaf.
    pub fn next(&self) -> LeafIndex {
        LeafIndex(self.first.0 + self.leaves.len() as u64)
    }

    fn bytes(&self) -> usize {
        self.leaves.iter().map(|(bytes, _)| bytes.capacity() + size_of::<(Vec<u8>, Digest)>()).sum()
    }
}

#[derive(Debug, Default)]
struct Slot {
    newest: Option<Arc<str>>,
    /// In the order of the log; some may be missing in between.
    frames: VecDeque<Written>,
    frames_bytes: usize,
    unseen: bool,
    /// The thread waits for a checkpoint, and not for the time to follow it.
    idle: bool,
    end: Option<End>,
}

pub struct Feed {
    slot: Mutex<Slot>,
    changed: Condvar,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// `nothing` is the signed checkpoint of the empty log, which is what readers see at first.
    pub fn new(nothing: Arc<str>) -> Self {
        let snapshots = watch::Sender::new(Arc::new(Snapshot::of_nothing(nothing)));
        Self { slot: Mutex::default(), changed: Condvar::new(), snapshots }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        // The slot is whole after every statement: a panic elsewhere leaves nothing half-done in it.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn offer(&self, checkpoint: Arc<str>) {
        self.offer_with(checkpoint, None);
    }

    /// A checkpoint, and the frame that it was signed for.
    pub fn offer_frame(&self, checkpoint: Arc<str>, frame: Written) {
        self.offer_with(checkpoint, Some(frame));
    }

    fn offer_with(&self, checkpoint: Arc<str>, frame: Option<Written>) {
        let frame = frame.map(|frame| (frame.bytes(), frame));
        let mut slot = self.lock();
        if let Some((bytes, frame)) = frame
            && slot.frames_bytes + bytes <= limits::ARCHIVE_HANDED_BYTES_MAX
        {
            slot.frames_bytes += bytes;
            slot.frames.push_back(frame);
        }
        slot.newest = Some(checkpoint);
        slot.unseen = true;
        if slot.idle {
            // One wake is enough, however many commits come before the thread runs.
            slot.idle = false;
            drop(slot);
            self.changed.notify_all();
        }
    }

    /// The frame with the leaf that comes after so many, if it was handed over.
    pub fn frame_at(&self, size: TreeSize) -> Option<Written> {
        let mut slot = self.lock();
        while slot.frames.front().is_some_and(|frame| frame.first.0 <= size.0) {
            let frame = slot.frames.pop_front()?;
            slot.frames_bytes -= frame.bytes();
            if frame.next().0 > size.0 {
                return Some(frame);
            }
        }
        None
    }

    pub fn end(&self, end: End) {
        self.lock().end = Some(end);
        self.changed.notify_all();
    }

    pub fn ending(&self) -> Option<End> {
        self.lock().end
    }

    pub fn newest(&self) -> Option<Arc<str>> {
        self.lock().newest.clone()
    }

    /// A new session has seen nothing yet.
    pub fn begin(&self) {
        let mut slot = self.lock();
        slot.unseen = slot.newest.is_some();
    }

    /// Waits for a checkpoint or the end; at most for `quiet`, if that is given.
    pub fn next(&self, quiet: Option<Duration>) -> Order {
        let mut slot = self.lock();
        slot.idle = true;
        let waits = |s: &mut Slot| !s.unseen && s.end.is_none();
        let mut slot = match quiet {
            None => self.changed.wait_while(slot, waits).unwrap_or_else(PoisonError::into_inner),
            Some(quiet) => {
                self.changed.wait_timeout_while(slot, quiet, waits).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        slot.idle = false;
        if let Some(end) = slot.end {
            return Order::End(end);
        }
        match &slot.newest {
            Some(newest) if slot.unseen => {
                let newest = Arc::clone(newest);
                slot.unseen = false;
                Order::Follow(newest)
            }
            Some(_) | None => Order::Quiet,
        }
    }

    /// False if the feed ended meanwhile.
    pub fn pause(&self, interval: Duration) -> bool {
        let slot = self.lock();
        let waited = self.changed.wait_timeout_while(slot, interval, |s| s.end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.end.is_none()
    }

    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Size of the newest snapshot.
    pub fn archived(&self) -> TreeSize {
        self.snapshots.borrow().size()
    }
}
