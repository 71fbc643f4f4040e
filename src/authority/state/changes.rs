//! Word that something has changed, for everybody who waits for it, in the order in which they began to wait.
//!
//! A `watch` channel would do as well, but for that order: it wakes those who wait in one of its own that differs from run
//! to run, and a simulation must be able to repeat what it found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Where changes are told.
#[derive(Debug, Default)]
pub struct Stirring {
    told: AtomicU64,
    woken: Notify,
}

/// Sees every change that is told after it was made, several at once as one.
#[derive(Clone, Debug)]
pub struct Changes {
    seen: u64,
    of: Arc<Stirring>,
}

impl Stirring {
    pub fn tell(&self) {
        self.told.fetch_add(1, Ordering::AcqRel);
        self.woken.notify_waiters();
    }

    pub fn changes(self: &Arc<Self>) -> Changes {
        Changes { seen: self.told.load(Ordering::Acquire), of: Arc::clone(self) }
    }
}

impl Changes {
    /// What was told so far is not waited for.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.of.told.load(Ordering::Acquire);
    }

    pub fn has_changed(&self) -> bool {
        self.seen != self.of.told.load(Ordering::Acquire)
    }

    /// Waits for a change that was not seen yet.
    pub async fn changed(&mut self) {
        let of = Arc::clone(&self.of);
        loop {
            // Made before the look, so that what is told in between is not missed.
            let woken = of.woken.notified();
            if self.has_changed() {
                return self.mark_unchanged();
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn a_change_that_was_told_before_the_wait_began_is_seen_once() {
        let told = Arc::new(Stirring::default());
        let mut changes = told.changes();
        assert!(!changes.has_changed());
        told.tell();
        told.tell();
        changes.changed().await;
        assert!(!changes.has_changed());
        told.tell();
        changes.mark_unchanged();
        assert!(!changes.has_changed());
    }

    #[tokio::test]
    async fn those_who_wait_wake_in_the_order_in_which_they_began() {
        let (told, order) = (Arc::new(Stirring::default()), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let (mut changes, order) = (told.changes(), Arc::clone(&order));
                tokio::spawn(async move {
                    changes.changed().await;
                    order.lock().expect("no panic").push(n);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        told.tell();
        for task in waiting {
            task.await.expect("no panic");
        }
        assert_eq!(*order.lock().expect("no panic"), (0..20).collect::<Vec<_>>());
    }
}
