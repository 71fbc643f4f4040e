//! The only reader of time.
//!
//! Two scales, never mixed: [`WallTime`] (UTC, for receipts and policy input; may jump) and
//! [`Moment`] (monotonic, for ages and durations; never goes back). Everything that needs either
//! is handed a [`Clock`], so that a test can own time. Timers (`tokio::time`) are not time readings
//! and stay where they are used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in UTC, in nanoseconds since 1970-01-01T00:00:00Z. Receipts show microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    pub const fn from_unix_ns(unix_ns: u64) -> Self {
        Self(unix_ns)
    }

    pub const fn unix_ns(self) -> u64 {
        self.0
    }

    pub const fn unix_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// RFC 3339, UTC, exactly six fractional digits: `2026-11-20T13:00:00.000000Z`.
    pub fn rfc3339(self) -> String {
        // Whole days and seconds since the epoch: the range of u64 nanoseconds ends in the year 2554.
        let seconds = (self.0 / 1_000_000_000) as i64;
        let micros = (self.0 % 1_000_000_000) / 1_000;
        let t = time::OffsetDateTime::from_unix_timestamp(seconds)
            .expect("u64 nanoseconds end in 2554, inside the range of OffsetDateTime");
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        )
    }

    /// Reads any RFC 3339 time, with any offset. Times before 1970 and after 2554 are refused.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let t = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        u64::try_from(t.unix_timestamp_nanos()).ok().map(Self)
    }
}

/// A monotonic reading: nanoseconds since the process first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Both scales at one time: where the wall clock stood when it began to be relied on. Only a clock that is set, or a
/// machine that was suspended, comes apart from it: slewing moves both scales alike.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    wall: WallTime,
    moment: Moment,
}

impl Anchor {
    /// By how much the wall clock has been set since, either way.
    pub fn stepped(&self, clock: &Clock) -> Duration {
        let passed = u64::try_from(clock.monotonic().since(self.moment).as_nanos()).unwrap_or(u64::MAX);
        let expected = self.wall.0.saturating_add(passed);
        Duration::from_nanos(clock.wall().0.abs_diff(expected))
    }
}

/// A source of both scales. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
    #[cfg(test)]
    Paused(Arc<paused::Paused>),
}

#[derive(Debug)]
struct Manual {
    wall_ns: AtomicU64,
    monotonic_ns: AtomicU64,
}

static PROCESS_START: LazyLock<Instant> = LazyLock::new(read_monotonic);

#[expect(clippy::disallowed_methods, reason = "the one reader of the monotonic clock")]
fn read_monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
fn read_wall() -> SystemTime {
    SystemTime::now()
}

impl Clock {
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: WallTime) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            wall_ns: AtomicU64::new(start.0),
            monotonic_ns: AtomicU64::new(0),
        })))
    }

    /// Moves a manual clock; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(m) = &self.0 {
            let ns = by.as_nanos() as u64;
            m.wall_ns.fetch_add(ns, Ordering::Relaxed);
            m.monotonic_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// Sets the wall time of a manual clock, back or forth, as an operator or a time server would; no time passes.
    /// Does nothing to the system's.
    pub fn set_wall(&self, to: WallTime) {
        if let Source::Manual(m) = &self.0 {
            m.wall_ns.store(to.0, Ordering::Relaxed);
        }
    }

    pub fn anchor(&self) -> Anchor {
        Anchor { wall: self.wall(), moment: self.monotonic() }
    }

    pub fn wall(&self) -> WallTime {
        match &self.0 {
            // A host clock before 1970 reads as the last time there is: every credential has ended by then.
            Source::System => {
                WallTime(read_wall().duration_since(UNIX_EPOCH).map_or(u64::MAX, |d| d.as_nanos() as u64))
            }
            Source::Manual(m) => WallTime(m.wall_ns.load(Ordering::Relaxed)),
            #[cfg(test)]
            Source::Paused(paused) => paused.wall(),
        }
    }

    pub fn monotonic(&self) -> Moment {
        match &self.0 {
            Source::System => {
                let start = *PROCESS_START;
                Moment(read_monotonic().saturating_duration_since(start).as_nanos() as u64)
            }
            Source::Manual(m) => Moment(m.monotonic_ns.load(Ordering::Relaxed)),
            #[cfg(test)]
            Source::Paused(paused) => paused.monotonic(),
        }
    }
}

/// The clock of a simulation: the paused one of the runtime that it is asked in.
#[cfg(test)]
pub(crate) mod paused {
    use super::*;

    /// Goes on from life to life of what is simulated, each in a runtime of its own; its wall time can be set.
    #[derive(Debug)]
    pub(crate) struct Paused {
        /// When the runtime of this life began, and what had passed before.
        life: std::sync::Mutex<(Option<tokio::time::Instant>, u64)>,
        /// Wall time where the monotonic one is zero, nanoseconds.
        origin_ns: AtomicU64,
    }

    impl Paused {
        pub(super) fn monotonic(&self) -> Moment {
            let (since, before) = *self.life.lock().expect("nothing panics in here");
            // Between two lives no time passes.
            let passed =
                since.map_or(0, |since| tokio::time::Instant::now().duration_since(since).as_nanos() as u64);
            Moment(before + passed)
        }

        pub(super) fn wall(&self) -> WallTime {
            WallTime(self.origin_ns.load(Ordering::Relaxed) + self.monotonic().0)
        }
    }

    impl Clock {
        pub(crate) fn paused(start: WallTime) -> (Self, Arc<Paused>) {
            let life = std::sync::Mutex::new((None, 0));
            let paused = Arc::new(Paused { life, origin_ns: AtomicU64::new(start.0) });
            (Self(Source::Paused(Arc::clone(&paused))), paused)
        }
    }

    impl Paused {
        /// A runtime with a paused clock has begun, and this is asked in it.
        pub(crate) fn begin_life(&self) {
            self.life.lock().expect("nothing panics in here").0 = Some(tokio::time::Instant::now());
        }

        /// It is about to end.
        pub(crate) fn end_life(&self) {
            let now = self.monotonic().0;
            *self.life.lock().expect("nothing panics in here") = (None, now);
        }

        /// Between two lives.
        pub(crate) fn pass(&self, time: Duration) {
            self.life.lock().expect("nothing panics in here").1 += time.as_nanos() as u64;
        }

        /// As an operator or a time server sets a clock: no time passes. Nanoseconds, back or forth.
        pub(crate) fn set_by(&self, ns: i64) {
            let origin = self.origin_ns.load(Ordering::Relaxed);
            self.origin_ns.store(origin.saturating_add_signed(ns), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_back_what_it_wrote() {
        let t = WallTime::from_unix_ns(1_763_643_600_123_456_000);
        assert_eq!(t.rfc3339(), "2025-11-20T13:00:00.123456Z");
        assert_eq!(WallTime::parse_rfc3339(&t.rfc3339()), Some(t));
        assert_eq!(WallTime::parse_rfc3339("2025-11-20T15:00:00.123456+02:00"), Some(t));
        assert_eq!(WallTime::parse_rfc3339("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(WallTime::from_unix_ns(5));
        let before = clock.monotonic();
        assert_eq!(clock.monotonic().since(before), Duration::ZERO);
        clock.advance(Duration::from_millis(3));
        assert_eq!(clock.monotonic().since(before), Duration::from_millis(3));
        assert_eq!(before.since(clock.monotonic()), Duration::ZERO);
        assert_eq!(clock.wall().unix_ns(), 3_000_005);
    }

    #[test]
    fn a_wall_clock_that_is_set_comes_apart_from_its_anchor_and_time_that_passes_does_not() {
        let clock = Clock::manual(WallTime::from_unix_ns(50_000));
        let anchor = clock.anchor();
        clock.advance(Duration::from_secs(1_000));
        assert_eq!(anchor.stepped(&clock), Duration::ZERO);
        let right = clock.wall();
        for set in [right.unix_ns() - 7, right.unix_ns() + 7] {
            clock.set_wall(WallTime::from_unix_ns(set));
            assert_eq!(anchor.stepped(&clock), Duration::from_nanos(7));
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_lets_no_time_pass() {
        let clock = Clock::manual(WallTime::from_unix_ns(5));
        let before = clock.monotonic();
        clock.set_wall(WallTime::from_unix_ns(2));
        assert_eq!(clock.wall().unix_ns(), 2);
        assert_eq!(clock.monotonic().since(before), Duration::ZERO);
    }
}
