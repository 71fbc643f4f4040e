//! Requests that draw on the same budget take turns between reading its sums and reserving.
//!
//! Without turns they would be right as well, since reserving compares; but of sixty that come at once, most would be
//! judged for nothing and some would run out of evaluations. A turn that does not come in time is not waited for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::authority::Draw;
use crate::limits;
use crate::model::{BudgetName, Digest, SurfaceName};

type Key = (SurfaceName, BudgetName, Digest);
type Lane = Arc<tokio::sync::Mutex<()>>;

/// Lanes that somebody is in or waits for; others take no memory.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<Key, Lane>>>);

/// Dropped when the next may go.
#[derive(Debug)]
pub struct Turn {
    held: Vec<(Key, OwnedMutexGuard<()>)>,
    turns: Turns,
}

impl Turns {
    /// Waits until nobody else is in any of these lanes. The order of the lanes is the same for all, so two requests
    /// never wait for each other.
    pub async fn take(&self, surface: &SurfaceName, draws: &[Draw]) -> Turn {
        let keys: BTreeSet<Key> =
            draws.iter().map(|draw| (surface.clone(), draw.budget.clone(), draw.key)).collect();
        let mut turn = Turn { held: Vec::with_capacity(keys.len()), turns: self.clone() };
        for key in keys {
            let lane = self.lanes().entry(key.clone()).or_default().clone();
            let wait_max = Duration::from_millis(limits::TURN_WAIT_MS_MAX);
            match timeout(wait_max, lane.lock_owned()).await {
                Ok(guard) => turn.held.push((key, guard)),
                Err(_elapsed) => self.leave(&key),
            }
        }
        turn
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Key, Lane>> {
        // The map is whole between any two calls on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a lane that nobody is in or waits for.
    fn leave(&self, key: &Key) {
        let mut lanes = self.lanes();
        if lanes.get(key).is_some_and(|lane| Arc::strong_count(lane) == 1) {
            lanes.remove(key);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for (key, guard) in self.held.drain(..) {
            drop(guard);
            self.turns.leave(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use rust_decimal::Decimal;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn draw(budget: &str, key: &str) -> Draw {
        let (budget, key) = (budget.parse().expect("a name"), Digest::of(key.as_bytes()));
        Draw { budget, key, amount: Decimal::ONE, until: WallTime::from_unix_ns(0) }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_at_a_time_is_in_a_lane_and_empty_lanes_take_no_memory() {
        let (turns, inside) = (Turns::default(), Arc::new(AtomicUsize::new(0)));
        let surface: SurfaceName = "payments".parse().expect("a name");
        let tasks = (0..32).map(|n| {
            let (turns, inside, surface) = (turns.clone(), inside.clone(), surface.clone());
            // In both orders: nobody waits for a lane of somebody who waits for theirs.
            let mut draws = vec![draw("daily", "EUR"), draw("count", "EUR")];
            if n % 2 == 0 {
                draws.reverse();
            }
            tokio::spawn(async move {
                let _turn = turns.take(&surface, &draws).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::time::sleep(Duration::from_millis(1)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        assert!(turns.lanes().is_empty());
    }

    #[tokio::test]
    async fn other_keys_do_not_wait() {
        let turns = Turns::default();
        let surface: SurfaceName = "payments".parse().expect("a name");
        let _turn = turns.take(&surface, &[draw("daily", "EUR")]).await;
        let other = [draw("daily", "USD")];
        let other = turns.take(&surface, &other);
        timeout(Duration::from_secs(5), other).await.expect("at once");
    }
}
