//! How often one may ask: a bucket for each, refilled by time. One kind for operators, by id; one for whoever connects,
//! by where from, so that who proves nobody cannot ask for ever whether they do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::limits;

/// Buckets of one kind. Those that have no room of their own share one.
#[derive(Debug)]
pub struct Rate<K> {
    clock: Clock,
    pace: Pace,
    buckets: Mutex<BTreeMap<Option<K>, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long one request takes to come back.
    request_ms: u64,
    burst: u64,
    buckets_max: usize,
}

#[derive(Debug)]
struct Bucket {
    /// Requests that are left, in milliseconds of refilling.
    left_ms: u64,
    filled_at: Moment,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whence {
    Address(IpAddr),
    /// Of the process at the other end of a Unix socket.
    User(u32),
}

impl Whence {
    /// Who has one IPv6 address has all that share its first half.
    pub fn of(address: SocketAddr) -> Self {
        Self::Address(match address.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl Pace {
    const fn full_ms(self) -> u64 {
        self.request_ms * self.burst
    }
}

impl Rate<Arc<str>> {
    pub fn of_operators(clock: Clock) -> Self {
        let request_ms = 1_000 / limits::OPERATOR_REQUESTS_PER_SECOND;
        let (burst, buckets_max) = (limits::OPERATOR_REQUESTS_BURST, limits::OPERATORS_MAX);
        Self { clock, pace: Pace { request_ms, burst, buckets_max }, buckets: Mutex::default() }
    }
}

impl Rate<Whence> {
    pub fn of_peers(clock: Clock) -> Self {
        let request_ms = 1_000 / limits::ADMIN_PEER_REQUESTS_PER_SECOND;
        let (burst, buckets_max) = (limits::ADMIN_PEER_REQUESTS_BURST, limits::ADMIN_PEERS_MAX);
        Self { clock, pace: Pace { request_ms, burst, buckets_max }, buckets: Mutex::default() }
    }
}

impl<K: Clone + Ord> Rate<K> {
    /// `Err`: how long to wait for the next one. `None` is who cannot be told apart.
    pub fn admit(&self, who: Option<&K>) -> Result<(), Duration> {
        let (now, pace) = (self.clock.monotonic(), self.pace);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut who = who.cloned();
        if !buckets.contains_key(&who) && buckets.len() >= pace.buckets_max {
            // A full bucket is as good as none.
            buckets.retain(|_, bucket| bucket.left_at(now, pace) < pace.full_ms());
            if buckets.len() >= pace.buckets_max {
                who = None;
            }
        }
        let full = Bucket { left_ms: pace.full_ms(), filled_at: now };
        let bucket = buckets.entry(who).or_insert(full);
        let left_ms = bucket.left_at(now, pace);
        if left_ms > bucket.left_ms || left_ms == pace.full_ms() {
            *bucket = Bucket { left_ms, filled_at: now };
        }
        match bucket.left_ms.checked_sub(pace.request_ms) {
            Some(left_ms) => {
                bucket.left_ms = left_ms;
                Ok(())
            }
            None => Err(Duration::from_millis(pace.request_ms - bucket.left_ms)),
        }
    }
}

impl Bucket {
    fn left_at(&self, now: Moment, pace: Pace) -> u64 {
        let passed_ms = u64::try_from(now.since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        self.left_ms.saturating_add(passed_ms).min(pace.full_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    #[test]
    fn a_burst_is_admitted_then_the_rate_and_each_operator_has_its_own() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let rate = Rate::of_operators(clock.clone());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let (burst, request) = (limits::OPERATOR_REQUESTS_BURST, Duration::from_millis(rate.pace.request_ms));
        assert!((0..burst).all(|_| rate.admit(Some(&ann)).is_ok()));
        assert_eq!(rate.admit(Some(&ann)), Err(request));
        assert_eq!(rate.admit(Some(&bob)), Ok(()));
        clock.advance(request);
        assert_eq!(rate.admit(Some(&ann)), Ok(()));
        assert!(rate.admit(Some(&ann)).is_err());
        clock.advance(Duration::from_secs(3_600));
        assert!((0..burst).all(|_| rate.admit(Some(&ann)).is_ok()));
        assert!(rate.admit(Some(&ann)).is_err(), "no more than a burst is saved");
    }

    #[test]
    fn peers_without_end_share_one_bucket_and_take_none_from_those_who_have_one() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let rate = Rate::of_peers(clock.clone());
        let peer = |n: usize| Whence::User(n as u32);
        (0..limits::ADMIN_PEERS_MAX).for_each(|n| rate.admit(Some(&peer(n))).expect("the first of its own"));
        let burst = limits::ADMIN_PEER_REQUESTS_BURST as usize;
        let more = || (limits::ADMIN_PEERS_MAX..).map(|n| rate.admit(Some(&peer(n))));
        assert!(more().take(burst).all(|admitted| admitted.is_ok()));
        assert!(more().skip(burst).take(burst).all(|admitted| admitted.is_err()));
        assert_eq!(rate.admit(Some(&peer(0))), Ok(()), "it has its own");
        assert_eq!(rate.buckets.lock().expect("unpoisoned").len(), limits::ADMIN_PEERS_MAX + 1);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(rate.admit(Some(&peer(limits::ADMIN_PEERS_MAX))), Ok(()));
        assert_eq!(rate.buckets.lock().expect("unpoisoned").len(), 1, "full ones are forgotten");
    }

    #[test]
    fn a_peer_is_its_address_or_half_of_it() {
        let of = |text: &str| Whence::of(text.parse().expect("an address"));
        assert_eq!(of("[2001:db8::1]:80"), of("[2001:db8::ffff:0:0:2]:81"));
        assert_ne!(of("[2001:db8::1]:80"), of("[2001:db8:0:1::1]:80"));
        assert_eq!(of("[::ffff:192.0.2.1]:80"), of("192.0.2.1:81"));
        assert_ne!(of("192.0.2.2:80"), of("192.0.2.1:80"));
    }
}
