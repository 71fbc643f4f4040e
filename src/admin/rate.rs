//! How often one operator may ask: a bucket for each, refilled by time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::limits;

/// As many buckets as there are operators in config.
#[derive(Debug)]
pub struct Rate {
    clock: Clock,
    buckets: Mutex<BTreeMap<Arc<str>, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    /// Requests that are left, in milliseconds of refilling.
    left_ms: u64,
    filled_at: Moment,
}

const REQUEST_MS: u64 = 1_000 / limits::OPERATOR_REQUESTS_PER_SECOND;
const FULL_MS: u64 = REQUEST_MS * limits::OPERATOR_REQUESTS_BURST;

impl Rate {
    pub fn new(clock: Clock) -> Self {
        Self { clock, buckets: Mutex::default() }
    }

    /// `Err`: how long to wait for the next one.
    pub fn admit(&self, operator: &Arc<str>) -> Result<(), Duration> {
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(operator.clone()).or_insert(Bucket { left_ms: FULL_MS, filled_at: now });
        let passed_ms = u64::try_from(now.since(bucket.filled_at).as_millis()).unwrap_or(FULL_MS);
        if passed_ms > 0 {
            bucket.left_ms = bucket.left_ms.saturating_add(passed_ms).min(FULL_MS);
            bucket.filled_at = now;
        }
        match bucket.left_ms.checked_sub(REQUEST_MS) {
            Some(left_ms) => {
                bucket.left_ms = left_ms;
                Ok(())
            }
            None => Err(Duration::from_millis(REQUEST_MS - bucket.left_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    #[test]
    fn a_burst_is_admitted_then_the_rate_and_each_operator_has_its_own() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let rate = Rate::new(clock.clone());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let burst = limits::OPERATOR_REQUESTS_BURST;
        assert!((0..burst).all(|_| rate.admit(&ann).is_ok()));
        assert_eq!(rate.admit(&ann), Err(Duration::from_millis(REQUEST_MS)));
        assert_eq!(rate.admit(&bob), Ok(()));
        clock.advance(Duration::from_millis(REQUEST_MS));
        assert_eq!(rate.admit(&ann), Ok(()));
        assert!(rate.admit(&ann).is_err());
        clock.advance(Duration::from_secs(3_600));
        assert!((0..burst).all(|_| rate.admit(&ann).is_ok()));
        assert!(rate.admit(&ann).is_err(), "no more than a burst is saved");
    }
}
