//! How many refusal leaves an actor may cause: a burst, then one a second; the rest is counted.
//!
//! The count goes into the actor's next leaf, or into one more at a clean close. The number of actors is
//! bounded: the one that was quiet longest is let go first, and what was counted for it is written then.

use std::collections::HashMap;
use std::time::Duration;

use super::entries;
use super::recorded::Rejection;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::model::entry::RefusalEntry;
use crate::model::{ActorId, Epoch};

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When a token was last added.
    filled: Moment,
    last_seen: Moment,
    /// Counted and not written.
    suppressed: u64,
    /// The last of those, to be written with the count of the others.
    last_suppressed: Option<RefusalEntry>,
}

#[derive(Debug, Default)]
pub struct Rejections {
    actors: HashMap<ActorId, Bucket>,
}

/// What becomes of one rejection.
#[derive(Debug)]
pub struct Admitted {
    /// To be written; `None` if it was only counted.
    pub leaf: Option<RefusalEntry>,
    /// The count of an actor that was let go, also to be written.
    pub let_go: Option<RefusalEntry>,
}

impl Rejections {
    pub fn admit(&mut self, rejection: &Rejection, epoch: Epoch, clock: &Clock) -> Admitted {
        let (now, wall) = (clock.monotonic(), clock.wall());
        let id = &rejection.actor.id;
        let let_go = if self.actors.contains_key(id) { None } else { self.make_place() };
        let bucket = self.actors.entry(id.clone()).or_insert_with(|| Bucket {
            tokens: limits::REJECTIONS_BURST,
            filled: now,
            last_seen: now,
            suppressed: 0,
            last_suppressed: None,
        });
        bucket.refill(now);
        bucket.last_seen = now;
        let leaf = match bucket.tokens.checked_sub(1) {
            Some(left) => {
                bucket.tokens = left;
                bucket.last_suppressed = None;
                Some(entries::refusal(rejection, std::mem::take(&mut bucket.suppressed), epoch, wall))
            }
            None => {
                bucket.suppressed += 1;
                bucket.last_suppressed = Some(entries::refusal(rejection, 0, epoch, wall));
                None
            }
        };
        Admitted { leaf, let_go }
    }

    /// A leaf that could not be written is counted instead, with what it had counted itself.
    pub fn give_back(&mut self, leaf: RefusalEntry) {
        if let Some(bucket) = self.actors.get_mut(&leaf.actor.id) {
            bucket.suppressed += leaf.suppressed + 1;
            bucket.last_suppressed.get_or_insert(RefusalEntry { suppressed: 0, ..leaf });
        }
    }

    /// Everything that was counted and not written, one leaf an actor, by actor.
    pub fn remainders(&mut self) -> Vec<RefusalEntry> {
        let mut all: Vec<_> = self.actors.drain().filter_map(|(_, bucket)| bucket.remainder()).collect();
        all.sort_by(|a, b| a.actor.id.cmp(&b.actor.id));
        all
    }

    fn make_place(&mut self) -> Option<RefusalEntry> {
        if self.actors.len() < limits::REJECTION_ACTORS_MAX {
            return None;
        }
        let quietest = self.actors.iter().min_by_key(|(_, b)| b.last_seen).map(|(id, _)| id.clone())?;
        self.actors.remove(&quietest).and_then(Bucket::remainder)
    }
}

impl Bucket {
    fn refill(&mut self, now: Moment) {
        let step = Duration::from_millis(limits::REJECTION_REFILL_MS);
        let due = now.since(self.filled).as_nanos() / step.as_nanos();
        if due > 0 {
            self.tokens = u32::try_from(due)
                .unwrap_or(u32::MAX)
                .saturating_add(self.tokens)
                .min(limits::REJECTIONS_BURST);
            // Part of a step is lost at most once a token: the rate stays at or below one a step.
            self.filled = now;
        }
    }

    /// The last suppressed one as a leaf of its own, and how many more there were.
    fn remainder(self) -> Option<RefusalEntry> {
        let last = self.last_suppressed?;
        Some(RefusalEntry { suppressed: self.suppressed.saturating_sub(1), ..last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::model::{Actor, AuthenticationMethod, Json, ReasonCode};
    use std::sync::Arc;

    fn by(actor: &str) -> Rejection {
        Rejection {
            actor: Arc::new(Actor {
                id: actor.parse().expect("an id"),
                method: AuthenticationMethod::ApiKey,
                credential_digest: None,
                claims: Json::object([]),
                valid_until: None,
            }),
            surface: None,
            code: ReasonCode::SchemaMismatch,
            place: None,
            received_digest: None,
            redacts: false,
        }
    }

    struct Bench(Rejections, Clock);

    impl Bench {
        fn new() -> Self {
            Self(Rejections::default(), Clock::manual(WallTime::from_unix_ns(0)))
        }

        /// The suppressed count of the leaf, if one is written.
        fn reject(&mut self, actor: &str) -> Option<u64> {
            self.0.admit(&by(actor), Epoch(1), &self.1).leaf.map(|l| l.suppressed)
        }
    }

    #[test]
    fn after_a_burst_an_actor_gets_one_leaf_a_second_that_counts_the_rest() {
        let mut bench = Bench::new();
        for _ in 0..limits::REJECTIONS_BURST {
            assert_eq!(bench.reject("a"), Some(0));
        }
        assert_eq!((bench.reject("a"), bench.reject("a"), bench.reject("a")), (None, None, None));
        assert_eq!(bench.reject("b"), Some(0), "another actor is not held back");
        bench.1.advance(Duration::from_millis(999));
        assert_eq!(bench.reject("a"), None);
        bench.1.advance(Duration::from_millis(1));
        assert_eq!(bench.reject("a"), Some(4));
        assert_eq!(bench.reject("a"), None);
    }

    #[test]
    fn a_quiet_actor_regains_its_burst_and_no_more() {
        let mut bench = Bench::new();
        while bench.reject("a").is_some() {}
        bench.1.advance(Duration::from_secs(3_600));
        let leaves = std::iter::from_fn(|| bench.reject("a")).count();
        assert_eq!(leaves, limits::REJECTIONS_BURST as usize);
    }

    #[test]
    fn remainders_are_written_once_with_the_last_reason() {
        let mut bench = Bench::new();
        while bench.reject("a").is_some() {}
        bench.reject("a");
        bench.reject("b");
        let remainders = bench.0.remainders();
        assert_eq!(remainders.len(), 1, "nothing was suppressed for b");
        assert_eq!((remainders[0].actor.id.as_str(), remainders[0].suppressed), ("a", 1));
        assert_eq!(bench.0.remainders(), []);
    }

    #[test]
    fn a_leaf_that_was_not_written_is_counted_again() {
        let mut bench = Bench::new();
        let leaf = bench.0.admit(&by("a"), Epoch(1), &bench.1).leaf.expect("a leaf");
        bench.0.give_back(leaf);
        assert_eq!(bench.reject("a"), Some(1));
    }

    #[test]
    fn the_actor_that_was_quiet_longest_makes_place_and_its_count_is_kept() {
        let mut bench = Bench::new();
        while bench.reject("quiet").is_some() {}
        for n in 1..limits::REJECTION_ACTORS_MAX {
            bench.1.advance(Duration::from_nanos(1));
            bench.reject(&format!("actor-{n}"));
        }
        let admitted = bench.0.admit(&by("one-too-many"), Epoch(1), &bench.1);
        assert_eq!(admitted.let_go.expect("was suppressed").actor.id.as_str(), "quiet");
        assert_eq!(bench.0.actors.len(), limits::REJECTION_ACTORS_MAX);
    }
}
