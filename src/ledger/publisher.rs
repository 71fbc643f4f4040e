//! Keeps the `checkpoint` file at the newest signed checkpoint, without making anybody wait for it.
//!
//! Checkpoints that come while one is being written replace each other. The file may be behind the log by
//! [`limits::PUBLISH_INTERVAL_MS`] and one write; after a crash it is made again from the frames. Only the last one is
//! made durable under its name: a log that was stopped verifies also after a power cut, before anybody starts it again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::statistics::Counters;
use super::storage::Storage;
use crate::limits;

#[derive(Debug, Default)]
struct Slot {
    newest: Option<Arc<str>>,
    unpublished: bool,
    /// The thread waits for something to publish, and not for the time to do so.
    idle: bool,
    closing: bool,
}

#[derive(Debug, Default)]
pub struct Publisher {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Publisher {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        // The slot is whole after every statement: a panic elsewhere leaves nothing half-done in it.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn offer(&self, checkpoint: Arc<str>) {
        let mut slot = self.lock();
        slot.newest = Some(checkpoint);
        slot.unpublished = true;
        // Not while the thread pauses: waking it once per commit would cost more than the commit.
        if slot.idle {
            self.changed.notify_one();
        }
    }

    pub fn newest(&self) -> Option<Arc<str>> {
        self.lock().newest.clone()
    }

    /// The thread publishes what it has, and ends.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    /// The publisher's thread. Returns whether the newest checkpoint is in place, durably.
    pub fn run(&self, storage: &dyn Storage, counters: &Counters) -> bool {
        let mut in_place = true;
        while let Some((checkpoint, is_last_try)) = self.next() {
            let written = storage.write_checkpoint(checkpoint.as_bytes());
            in_place = written.is_ok();
            let Err(error) = written else {
                self.pause(limits::PUBLISH_INTERVAL_MS);
                continue;
            };
            // Not fatal: the frames hold the tree, and the newest one is tried again.
            Counters::add(&counters.publish_failures, 1);
            tracing::warn!(%error, "the checkpoint file was not written");
            if is_last_try {
                break;
            }
            self.lock().unpublished = true;
            self.pause(limits::ROOM_RETRY_MS);
        }
        in_place && make_durable(storage, counters)
    }

    /// The newest checkpoint that is not published, and whether the ledger is closing.
    fn next(&self) -> Option<(Arc<str>, bool)> {
        let mut slot = self.lock();
        slot.idle = true;
        let mut slot = self
            .changed
            .wait_while(slot, |s| !s.unpublished && !s.closing)
            .unwrap_or_else(PoisonError::into_inner);
        slot.idle = false;
        let closing = slot.closing;
        std::mem::take(&mut slot.unpublished).then(|| slot.newest.clone()).flatten().map(|c| (c, closing))
    }

    fn pause(&self, interval_ms: u64) {
        let interval = Duration::from_millis(interval_ms);
        let slot = self.lock();
        drop(self.changed.wait_timeout_while(slot, interval, |s| !s.closing));
    }
}

/// Whether the checkpoint that was written last outlives a power cut now.
fn make_durable(storage: &dyn Storage, counters: &Counters) -> bool {
    let synced = storage.sync_checkpoint();
    if let Err(error) = &synced {
        Counters::add(&counters.publish_failures, 1);
        tracing::warn!(%error, "the last checkpoint may not outlive a power cut");
    }
    synced.is_ok()
}
