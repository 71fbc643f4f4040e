//! Numbers about the ledger, for metrics. Each is read alone; together they are no snapshot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Told about each group commit, on the committer's thread: it must not block.
pub trait Observer: Send + Sync {
    /// `batch` leaves took this long from being drained to being signed, `sync` of it in fdatasync.
    fn committed(&self, batch: usize, took: Duration, sync: Duration);
}

impl Observer for () {
    fn committed(&self, _: usize, _: Duration, _: Duration) {}
}

/// What [`super::Ledger::statistics`] shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Leaves in the log.
    pub leaves: u64,
    /// Frames written since the start.
    pub frames: u64,
    /// Leaves in the last frame.
    pub last_batch: u64,
    pub last_commit_us: u64,
    /// Leaves that wait for the committer.
    pub queued: u64,
    /// PERMITs recorded or queued, whose outcome is not durable.
    pub open_permits: u64,
    /// Refusals counted instead of written since the start.
    pub suppressed: u64,
    /// Checkpoint files that could not be written since the start.
    pub publish_failures: u64,
    /// Durable leaves that cannot be read yet.
    pub archive_lag: u64,
    /// How often the archive stopped at an error since the start.
    pub archive_failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub leaves: AtomicU64,
    pub frames: AtomicU64,
    pub last_batch: AtomicU64,
    pub last_commit_us: AtomicU64,
    pub queued: AtomicU64,
    pub open_permits: AtomicU64,
    pub suppressed: AtomicU64,
    pub publish_failures: AtomicU64,
    /// Leaves in the newest snapshot.
    pub archived: AtomicU64,
    pub archive_failures: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> Statistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            leaves: of(&self.leaves),
            frames: of(&self.frames),
            last_batch: of(&self.last_batch),
            last_commit_us: of(&self.last_commit_us),
            queued: of(&self.queued),
            open_permits: of(&self.open_permits),
            suppressed: of(&self.suppressed),
            publish_failures: of(&self.publish_failures),
            archive_lag: of(&self.leaves).saturating_sub(of(&self.archived)),
            archive_failures: of(&self.archive_failures),
        }
    }

    pub fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }

    pub fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
