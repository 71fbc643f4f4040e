//! What outlives the gateway's process: the disk, the upstream, the clock, and the script.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::journal::{Journal, What};
use super::script::{Ambush, Limits, POLICIES, Rng, SURFACE, Script, TRAP};
use super::upstream::Upstream;
use super::wirings::Wiring;
use crate::clock::paused::Paused;
use crate::clock::{Clock, WallTime};
use crate::ledger::simulated::Simulated;
use crate::model::PackageName;
use crate::policy::{Bundle, Pdp, Prepared, Settings, Sources};
use crate::telemetry::Metrics;

/// 2026-09-21T14:13:20Z.
pub const START: WallTime = WallTime::from_unix_ns(1_790_000_000_000_000_000);

pub struct World {
    pub seed: u64,
    pub script: Script,
    pub wiring: Wiring,
    pub clock: Clock,
    pub paused: Arc<Paused>,
    pub journal: Journal,
    pub storage: Arc<Simulated>,
    pub upstream: Arc<Upstream>,
    /// Which of the two bundles lies where the gateway looks for one.
    pub policy: AtomicUsize,
    asks: AtomicUsize,
    /// PERMITs that rest on approvals, and all.
    reserved: [AtomicUsize; 2],
    /// By how much the wall clock is wrong, nanoseconds.
    pub wrong: AtomicI64,
    dice: Mutex<Rng>,
}

impl World {
    pub fn new(seed: u64, wiring: Wiring) -> Arc<Self> {
        let script = Script::new(seed);
        let (clock, paused) = Clock::paused(START);
        let journal = Journal::new(clock.clone());
        let storage = Arc::new(Simulated::new());
        let witness = journal.clone();
        storage.tell(move |bytes| witness.add(What::Durable(bytes.to_vec())));
        if script.is_full {
            storage.set_room(1);
        }
        if wiring == Wiring::DiskLies {
            storage.lie();
        }
        let upstream = Upstream::new(seed, script.pace.wire_bytes, wiring, journal.clone());
        let (policy, asks, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicI64::new(0));
        let dice = Mutex::new(Rng::new(seed, 2));
        Arc::new(Self {
            seed,
            script,
            wiring,
            clock,
            paused,
            journal,
            storage,
            upstream,
            policy,
            asks,
            reserved: Default::default(),
            wrong,
            dice,
        })
    }

    /// Throws the dice for something that happens in the gateway's own order.
    pub fn dice<T>(&self, throw: impl FnOnce(&mut Rng) -> T) -> T {
        throw(&mut self.dice.lock().expect("nothing panics in here"))
    }

    /// The number of the next thing that is asked.
    pub fn asks(&self) -> usize {
        self.asks.fetch_add(1, Ordering::Relaxed)
    }

    /// What waits for this reservation.
    pub fn ambush(&self, is_approved: bool) -> Option<Ambush> {
        let count = |n: usize| self.reserved[n].fetch_add(1, Ordering::Relaxed);
        let (nth_of_approved, nth) = (is_approved.then(|| count(0)), count(1));
        let is_it = |ambush: &&Ambush| match ambush.of_approved {
            true => nth_of_approved == Some(ambush.nth),
            false => nth == ambush.nth,
        };
        self.script.ambushes.iter().find(is_it).copied()
    }

    pub fn commit_takes(&self) -> Duration {
        let pace = self.script.pace;
        self.dice(|dice| match dice.percent(pace.slow_commits) {
            true => dice.ms(300, 1_500),
            false => dice.ms(0, pace.commit_ms),
        })
    }

    /// Of a wall clock that is right: by how much it is set away, nanoseconds. No time passes.
    pub fn set_clock(&self, wrong: i64) {
        let before = self.wrong.swap(wrong, Ordering::Relaxed);
        self.paused.set_by(wrong - before);
        self.journal.add(What::ClockIs(wrong));
    }

    /// The evaluator of a process that starts.
    pub fn pdp(self: &Arc<Self>, policy: usize) -> Pdp {
        let world = Arc::clone(self);
        let pace = move || {
            let ms = world.script.pace.evaluation_ms;
            world.dice(|dice| if dice.percent(2) { dice.ms(0, 400) } else { dice.ms(0, ms) })
        };
        Pdp::without_threads(prepared(policy), settings(), self.clock.clone(), Arc::new(pace))
    }
}

pub fn package() -> PackageName {
    "gateway.payments".parse().expect("a package name")
}

fn settings() -> Settings {
    Settings {
        workers: NonZeroUsize::MIN,
        queue_max: 64,
        evaluation_max: Duration::from_millis(250),
        steps_max: NonZeroU32::new(100_000).expect("not zero"),
    }
}

/// One of the two bundles, compiled once for all runs.
pub fn prepared(policy: usize) -> Prepared {
    static PREPARED: LazyLock<[Prepared; 2]> = LazyLock::new(|| POLICIES.map(compiled));
    PREPARED[policy].again()
}

pub fn metrics() -> Arc<Metrics> {
    static METRICS: LazyLock<Arc<Metrics>> =
        LazyLock::new(|| Arc::new(Metrics::new().expect("distinct names")));
    Arc::clone(&METRICS)
}

fn compiled(Limits { alone_max, budget_max }: Limits) -> Prepared {
    let text = format!(
        "package gateway.{SURFACE}

amount := input.request.body.amount

sums := input.context.budgets.spend

permit contains \"alone\" if amount <= {alone_max}

permit contains \"approved\" if count(input.context.approvals) >= 1

escalate contains \"people_decide\" if {{
	amount > {alone_max}
	count(input.context.approvals) < 1
}}

deny contains \"budget\" if (sums.spent + sums.in_flight) + amount > {budget_max}

quarantine contains \"trap\" if amount == {TRAP}
"
    );
    let sources =
        Sources::from_files([("gateway/payments.rego".to_owned(), text.into_bytes())]).expect("sources");
    let bundle = Bundle::from_sources(sources, &[package()]).expect("a bundle");
    Prepared::of(bundle, &settings()).expect("compiles")
}
