//! When a heartbeat is due: so long after the last leaf, by the monotonic clock.
//!
//! A wall clock that is set, back or forth, moves nothing here. However long the committer could not look (a process that
//! was stopped, a disk that hung, a disk that was full), one heartbeat is due and not one for each time missed.

use std::time::Duration;

use crate::clock::Moment;

#[derive(Debug)]
pub struct Heartbeat {
    every: Duration,
    /// When a leaf was last written, or could not be.
    last: Moment,
}

impl Heartbeat {
    pub fn new(every: Duration, now: Moment) -> Self {
        Self { every, last: now }
    }

    /// A leaf was written, or a heartbeat was turned away.
    pub fn begin_again(&mut self, now: Moment) {
        self.last = now;
    }

    /// How long until one is due; `None` if it is.
    pub fn left(&self, now: Moment) -> Option<Duration> {
        self.every.checked_sub(now.since(self.last)).filter(|left| !left.is_zero())
    }

    /// As leaves name it.
    pub fn every_s(&self) -> u64 {
        self.every.as_secs().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, WallTime};

    const EVERY: Duration = Duration::from_secs(3_600);

    #[test]
    fn one_is_due_so_long_after_the_last_leaf_and_only_one_however_late() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let mut heartbeat = Heartbeat::new(EVERY, clock.monotonic());
        assert_eq!(heartbeat.left(clock.monotonic()), Some(EVERY));
        clock.advance(EVERY - Duration::from_secs(1));
        assert_eq!(heartbeat.left(clock.monotonic()), Some(Duration::from_secs(1)));
        heartbeat.begin_again(clock.monotonic());
        clock.advance(Duration::from_secs(1));
        assert_eq!(heartbeat.left(clock.monotonic()), Some(EVERY - Duration::from_secs(1)));
        clock.advance(100 * EVERY);
        assert_eq!(heartbeat.left(clock.monotonic()), None);
        heartbeat.begin_again(clock.monotonic());
        assert_eq!(heartbeat.left(clock.monotonic()), Some(EVERY));
        clock.set_wall(WallTime::from_unix_ns(u64::MAX));
        assert_eq!(heartbeat.left(clock.monotonic()), Some(EVERY), "the wall clock moves nothing");
    }
}
