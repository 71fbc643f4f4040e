//! What happens in one run, and when: everything follows from the seed.
//!
//! Times gather around a few moments, because what happens at almost the same time is what races.

use std::time::Duration;

use crate::ledger::simulated::Failure;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// One sequence for each purpose, so that what one of them takes does not shift the others.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut rng = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ purpose.rotate_left(32));
        rng.next();
        rng
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 on, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

pub const ACTORS: [&str; 2] = ["agent-a", "agent-b"];
pub const SURFACE: &str = "payments";
/// How long approvals count.
pub const HOLD_EXPIRES: Duration = Duration::from_secs(12);
/// How long a key is taken.
pub const KEY_KEPT: Duration = Duration::from_secs(600);
pub const BUDGET_WINDOW: Duration = Duration::from_secs(60);
pub const PERMIT_AGE_MAX: Duration = Duration::from_millis(600);

/// A policy's limits. Above `alone_max` people have to approve; above `budget_max` altogether, nothing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub alone_max: u64,
    pub budget_max: u64,
}

/// Of the two bundles that take turns.
pub const POLICIES: [Limits; 2] =
    [Limits { alone_max: 100, budget_max: 400 }, Limits { alone_max: 50, budget_max: 300 }];
/// Whoever asks for this is isolated.
pub const TRAP: u64 = 13;

/// One thing that somebody wants done; it may be asked for more than once.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Tells its message from all others.
    pub number: usize,
    pub actor: usize,
    pub amount: u64,
    pub key: Option<String>,
    /// The actor's credential ends then, after the beginning of the run.
    pub credential_ends: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub wish: usize,
    /// `Prefer: wait`.
    pub wait: Option<Duration>,
    /// Its client is gone after so long.
    pub hangs_up: Option<Duration>,
    /// From proving who asks to the last byte of the body.
    pub arrives: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    All,
    Surface,
    Actor(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum Event {
    Ask(Ask),
    Freeze(Frozen),
    Unfreeze(Frozen),
    /// Of the holds there are, the one with this number, by this operator.
    Approve(usize, usize),
    Refuse(usize),
    Quarantine(usize),
    Release(usize),
    /// Somebody looks after what nobody knows the outcome of.
    Resolve,
    Reload(usize),
    /// What identity rests on changes.
    Identity,
    /// The wall clock is set, by so many milliseconds.
    SetClock(i64),
    /// And set right again.
    RightClock,
    /// The upstream ends all connections, and takes none for so long.
    Restart(Duration),
    /// The gateway ends in order, and starts again.
    Stop,
    /// The gateway's process ends at once; and starts again after so many milliseconds.
    Kill(u64),
    /// One of the next operations on the disk fails.
    Fault(usize, Failure),
    /// The disk takes so many more segments.
    Room(usize),
}

/// What happens between a PERMIT's reservation and its first byte, whenever that is.
#[derive(Clone, Copy, Debug)]
pub struct Ambush {
    /// Of the PERMITs that rest on approvals, or of all.
    pub of_approved: bool,
    /// The how-manieth of them, from 0 on.
    pub nth: usize,
    pub after: Duration,
    pub event: Event,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub commit_ms: u64,
    /// Percent of commits that take long.
    pub slow_commits: u64,
    pub evaluation_ms: u64,
    /// Bytes that a connection holds in flight.
    pub wire_bytes: usize,
    pub leases: usize,
}

#[derive(Clone, Debug)]
pub struct Script {
    pub pace: Pace,
    pub wishes: Vec<Wish>,
    /// In order.
    pub events: Vec<(Duration, Event)>,
    pub ambushes: Vec<Ambush>,
    /// Bytes of an answer that are kept; none where the gateway may start anew: a kept answer would be read by a
    /// thread then.
    pub keeps_answers: bool,
    /// At first the disk has no room for decisions.
    pub is_full: bool,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 1);
        let pace = Pace {
            commit_ms: rng.pick(&[0, 2, 10, 40]),
            slow_commits: rng.pick(&[0, 0, 5, 20]),
            evaluation_ms: rng.pick(&[0, 1, 5, 30]),
            wire_bytes: rng.pick(&[48, 160, 4_096]),
            leases: rng.pick(&[1, 2, 8]),
        };
        let moments: Vec<u64> = (0..1 + rng.below(3)).map(|_| rng.below(12_000)).collect();
        let mut writer = Writer { rng, moments, events: Vec::new() };
        let mut wishes = writer.wishes();
        if writer.rng.percent(25) {
            writer.rush(&mut wishes);
        }
        let keeps_answers = writer.rng.percent(50);
        writer.operators();
        writer.surroundings();
        if !keeps_answers {
            writer.ends();
        }
        let is_full = writer.rng.percent(5);
        if is_full {
            let at = writer.moment() + Duration::from_millis(20);
            writer.add(at, Event::Room(8));
        }
        let ambushes = writer.ambushes();
        let Writer { mut events, .. } = writer;
        events.sort_by_key(|(at, _)| *at);
        Self { pace, wishes, events, ambushes, keeps_answers, is_full }
    }
}

struct Writer {
    rng: Rng,
    moments: Vec<u64>,
    events: Vec<(Duration, Event)>,
}

impl Writer {
    /// Close to one of the moments, most of the time.
    fn moment(&mut self) -> Duration {
        let at = self.rng.pick(&self.moments.clone());
        let after = match self.rng.below(10) {
            0..5 => self.rng.below(30),
            5..8 => self.rng.below(300),
            _ => self.rng.below(5_000),
        };
        Duration::from_millis(at + after)
    }

    fn add(&mut self, at: Duration, event: Event) {
        self.events.push((at, event));
    }

    fn wishes(&mut self) -> Vec<Wish> {
        let count = 2 + self.rng.below(4) as usize;
        let mut wishes = Vec::new();
        for number in 0..count {
            let rng = &mut self.rng;
            let actor = rng.below(ACTORS.len() as u64) as usize;
            let amount = match rng.below(40) {
                0 => TRAP,
                1..18 => 20 + rng.below(30),
                18..28 => 60 + rng.below(40),
                _ => 120 + rng.below(100),
            };
            // Sometimes with a key that another wish has as well.
            let key = match rng.below(10) {
                0..3 => None,
                3 if number > 0 => Some(format!("key-{}", rng.below(number as u64))),
                _ => Some(format!("key-{number}")),
            };
            let credential_ends = rng.percent(6).then(|| rng.ms(1_000, 16_000));
            wishes.push(Wish { number, actor, amount, key, credential_ends });
            self.asks(number, amount > POLICIES[1].alone_max);
        }
        wishes
    }

    fn asks(&mut self, wish: usize, may_be_held: bool) {
        let first = self.moment();
        let mut at = first;
        let times = 1 + self.rng.below(if may_be_held { 4 } else { 3 });
        for _ in 0..times {
            let rng = &mut self.rng;
            let wait = (may_be_held && rng.percent(60)).then(|| rng.ms(500, 15_000));
            let hangs_up = rng.percent(12).then(|| rng.ms(0, 1_500));
            let arrives = if rng.percent(20) { rng.ms(1, 400) } else { Duration::ZERO };
            self.add(at, Event::Ask(Ask { wish, wait, hangs_up, arrives }));
            at = match self.rng.below(3) {
                0 => first + self.rng.ms(0, 20),
                1 => self.moment(),
                _ => at + self.rng.ms(200, 6_000),
            };
        }
    }

    fn operators(&mut self) {
        for _ in 0..self.rng.below(8) {
            let (at, nth, by) = (self.moment(), self.rng.below(3) as usize, self.rng.below(2) as usize);
            let at = at + self.rng.ms(0, 2_000);
            self.add(at, Event::Approve(nth, by));
        }
        if self.rng.percent(20) {
            let (at, nth) = (self.moment(), self.rng.below(2) as usize);
            self.add(at, Event::Refuse(nth));
        }
        for _ in 0..self.rng.below(3) {
            let what = match self.rng.below(4) {
                0 | 1 => Frozen::All,
                2 => Frozen::Surface,
                _ => Frozen::Actor(self.rng.below(2) as usize),
            };
            let at = self.moment();
            self.add(at, Event::Freeze(what));
            let until = at + self.rng.ms(5, 3_000);
            self.add(until, Event::Unfreeze(what));
        }
        if self.rng.percent(15) {
            let (at, actor) = (self.moment(), self.rng.below(2) as usize);
            self.add(at, Event::Quarantine(actor));
            let until = at + self.rng.ms(5, 4_000);
            self.add(until, Event::Release(actor));
        }
        if self.rng.percent(10) {
            let at = self.moment();
            (0..2).for_each(|actor| self.add(at + Duration::from_secs(5), Event::Release(actor)));
        }
        if self.rng.percent(40) {
            let at = self.moment() + self.rng.ms(1_000, 6_000);
            self.add(at, Event::Resolve);
        }
    }

    fn surroundings(&mut self) {
        let mut reloads: Vec<Duration> = (0..self.rng.below(4)).map(|_| self.moment()).collect();
        reloads.sort();
        for (n, at) in reloads.into_iter().enumerate() {
            // Most change something, some only seem to.
            let policy = if self.rng.percent(80) { (n + 1) % POLICIES.len() } else { n % POLICIES.len() };
            self.add(at, Event::Reload(policy));
        }
        if self.rng.percent(25) {
            let at = self.moment();
            self.add(at, Event::Identity);
        }
        for _ in 0..self.rng.below(3) {
            let at = self.moment();
            let ms = match self.rng.below(4) {
                0 => self.rng.below(1_000),
                1 | 2 => 5_000 + self.rng.below(45_000),
                _ => 70_000 + self.rng.below(7_200_000),
            } as i64;
            let by = if self.rng.percent(50) { ms } else { -ms };
            self.add(at, Event::SetClock(by));
            if self.rng.percent(60) {
                let right = at + self.rng.ms(0, 4_000);
                self.add(right, Event::RightClock);
            }
        }
        for _ in 0..self.rng.below(3) {
            let (at, down) = (self.moment(), self.rng.pick(&[0, 0, 20, 500, 3_000]));
            self.add(at, Event::Restart(Duration::from_millis(down)));
        }
    }

    /// The same request several times at once, waiting for people, who approve it.
    fn rush(&mut self, wishes: &mut Vec<Wish>) {
        let (number, actor) = (wishes.len(), self.rng.below(2) as usize);
        let key = self.rng.percent(25).then(|| format!("key-{number}"));
        wishes.push(Wish { number, actor, amount: 110 + self.rng.below(40), key, credential_ends: None });
        let began = self.moment();
        for _ in 0..2 + self.rng.below(2) {
            let ask = Ask { wish: number, wait: Some(HOLD_EXPIRES), hangs_up: None, arrives: Duration::ZERO };
            let at = began + self.rng.ms(0, 40);
            self.add(at, Event::Ask(ask));
        }
        let approved = began + self.rng.ms(200, 3_000);
        (0..3).for_each(|nth| self.add(approved, Event::Approve(nth, 0)));
    }

    fn ambushes(&mut self) -> Vec<Ambush> {
        let mut ambushes = Vec::new();
        for of_approved in [false, true] {
            if !self.rng.percent(if of_approved { 60 } else { 40 }) {
                continue;
            }
            let past_approvals = HOLD_EXPIRES.as_millis() as u64 + self.rng.below(40_000);
            let (policy, actor) = (self.rng.below(2) as usize, self.rng.below(2) as usize);
            let clock = Event::SetClock(past_approvals as i64);
            let event = match self.rng.below(10) {
                0 | 1 => Event::Freeze(self.rng.pick(&[Frozen::All, Frozen::Surface, Frozen::Actor(actor)])),
                2 => Event::Reload(policy),
                3 => Event::Identity,
                4 => Event::Restart(Duration::ZERO),
                5 if of_approved => Event::Refuse(self.rng.below(2) as usize),
                6..=8 if of_approved => clock,
                5 | 6 => clock,
                _ => Event::Quarantine(actor),
            };
            let nth = if of_approved { 0 } else { self.rng.below(3) as usize };
            ambushes.push(Ambush { of_approved, nth, after: self.rng.ms(0, 25), event });
            // At some time all of it is over again.
            let end = self.moment() + Duration::from_secs(2);
            match event {
                Event::Freeze(what) => self.add(end, Event::Unfreeze(what)),
                Event::Quarantine(actor) => self.add(end, Event::Release(actor)),
                Event::SetClock(_) => self.add(end, Event::RightClock),
                _ => {}
            }
        }
        ambushes
    }

    /// Of the gateway.
    fn ends(&mut self) {
        for _ in 0..1 + self.rng.below(2) {
            let at = self.moment() + self.rng.ms(0, 40);
            let event = match self.rng.below(8) {
                0 | 1 => Event::Stop,
                2..5 => Event::Kill(self.rng.pick(&[0, 1, 500, 4_000])),
                _ => {
                    let blocks = self.rng.below(8) as usize;
                    let failure = self.rng.pick(&[
                        Failure::FailsAndNotPersisted,
                        Failure::FailsButPersisted,
                        Failure::PowerCut,
                        Failure::TornAfter(blocks),
                        Failure::TornBefore(blocks),
                    ]);
                    Event::Fault(self.rng.below(8) as usize, failure)
                }
            };
            self.add(at, event);
        }
    }
}
