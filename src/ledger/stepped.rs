//! A log without threads, for simulations: whoever holds the [`Stepped`] commits what waits, when it is time to.
//!
//! Everything else is what runs: recovery, queue, appender, followers, and the committer's own steps.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::committer::{Closing, Committer};
use super::ids::IdSource;
use super::queue::Stage;
use super::simulated::Simulated;
use super::storage::Storage;
use super::{Closed, Follower, Health, Ledger, OpenError, Opened, Settings, Start};
use crate::clock::Clock;
use crate::limits;
use crate::merkle::note::tests::SeedSigner;
use crate::model::Digest;

/// Of every simulated log.
pub(crate) const ORIGIN: &str = "simulation.example/log";

pub(crate) fn signer() -> Box<SeedSigner> {
    Box::new(SeedSigner::new(ORIGIN, 7))
}

/// The committer.
pub(crate) struct Stepped {
    storage: Arc<dyn Storage>,
    committer: Committer,
}

impl Stepped {
    /// As [`Ledger::open`], of a log whose receipt ids come from `seed`.
    pub(crate) fn open(
        storage: &Arc<Simulated>,
        seed: u64,
        clock: Clock,
        follower: Arc<dyn Follower>,
    ) -> Result<(Ledger, Self, Opened), OpenError> {
        let settings = Settings {
            dir: "/simulated".into(),
            origin: ORIGIN.parse().expect("a name"),
            segment_bytes: limits::SEGMENT_BYTES_MIN,
            salts: None,
            heartbeat: None,
        };
        let start = Start {
            binary_digest: Digest::of(b"binary"),
            config_digest: Digest::of(b"config"),
            observer: Arc::new(()),
            follower,
        };
        let storage: Arc<dyn Storage> = Arc::<Simulated>::clone(storage);
        let (ready, opened) = Ledger::ready_on(storage, settings, signer(), clock, start)?;
        let (ledger, storage, committer) = ready.without_threads(IdSource::Seeded(seed.into()));
        Ok((ledger, Self { storage, committer }, opened))
    }

    /// Resolves when something waits.
    pub(crate) async fn wanted(&mut self) {
        let shared = Arc::clone(&self.committer.shared);
        loop {
            let pushed = shared.pushed.notified();
            if !shared.lock().items.is_empty() {
                return;
            }
            pushed.await;
        }
    }

    /// Commits one batch of what waits now. `false`: the log is poisoned.
    pub(crate) fn commit(&mut self) -> bool {
        let Committer { shared, batch_bytes_max, .. } = &self.committer;
        let batch = shared.drain(&mut shared.lock(), *batch_bytes_max);
        let committed = batch.is_empty() || self.committer.commit(batch).is_ok();
        if !committed {
            self.committer.shared.end(Health::Poisoned);
        }
        committed
    }

    /// What the publisher does once in a while.
    pub(crate) fn publish(&self) {
        if let Some(checkpoint) = self.committer.shared.publisher.newest() {
            // Not fatal: the frames hold the tree.
            let _ = self.storage.write_checkpoint(checkpoint.as_bytes());
        }
    }

    /// From here on only outcomes are taken.
    pub(crate) fn begin_close(&self) {
        let closing = Closing { wait: Duration::ZERO, remainders: Vec::new() };
        *self.committer.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(closing);
        self.committer.shared.lock().stage = Stage::Closing;
    }

    pub(crate) fn open_permits(&self) -> usize {
        self.committer.shared.lock().open_permits
    }

    /// Writes what waits, the stop leaf and the last checkpoint.
    pub(crate) fn close(mut self) -> Closed {
        while !self.committer.shared.lock().items.is_empty() {
            if !self.commit() {
                return Closed::Poisoned;
            }
        }
        let closed = self.committer.stop(self.open_permits()).unwrap_or(Closed::Poisoned);
        let health = if closed == Closed::Poisoned { Health::Poisoned } else { Health::Closed };
        self.committer.shared.end(health);
        self.publish();
        match self.storage.sync_checkpoint() {
            Ok(()) => closed,
            Err(_) => Closed::Poisoned,
        }
    }
}
