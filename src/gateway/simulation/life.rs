//! One life of the gateway's process: what `Gateway::start` wires, over the simulated disk and upstream; and its end.
//!
//! Each life has a runtime of its own, whose end is the death of everything that runs in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::super::policy::{POLICY, put_in_force, version_of};
use super::client::{self, AUTHORITY, SECRET};
use super::journal::{How, Sums, What};
use super::operators::Operators;
use super::script::{BUDGET_WINDOW, Event, HOLD_EXPIRES, KEY_KEPT, PERMIT_AGE_MAX, Rng, SURFACE};
use super::upstream::{HEAD_MAX, IDLE_MAX};
use super::wirings::{self, Hears, Seen, Wiring};
use super::world::{self, World};
use crate::authority::{
    Amount, Asked, BudgetRule, Credential, Credentials, Facts, Fold, IDENTITY, Identities, Require, State,
    Taken, Versions, Window, draws,
};
use crate::ingress::{Bounds, Listener};
use crate::ledger::simulated::Target;
use crate::ledger::stepped::Stepped;
use crate::ledger::{Closed, Ledger, PolicyActivation};
use crate::limits;
use crate::pep::{self, Authority, Gate, Holds, Hosts, Idempotency, Routes, Surface, Turns};
use crate::policy::{ENGINE, Pdp, Prepared, subject};
use crate::upstream::{Scheme, Settings, Upstream};

/// How long a client is waited for, at most, when nothing more happens.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Life {
    pub world: Arc<World>,
    pub fold: Arc<Fold>,
    pub ledger: Ledger,
    pub versions: Versions,
    pub pdp: Pdp,
    gate: Gate,
    pub surface: Arc<Surface>,
    tasks: TaskTracker,
    drain: CancellationToken,
    abandon: CancellationToken,
    in_flight: Arc<Semaphore>,
}

/// Lives until the script is over or ends it. `None`: the script is over.
pub fn live(world: &Arc<World>, events: &mut VecDeque<(Duration, Event)>) -> Option<How> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let how = runtime.block_on(async {
        world.paused.begin_life();
        world.journal.add(What::Started);
        let how = whole_life(world, events).await;
        world.journal.add(What::Ended(how));
        world.paused.end_life();
        how
    });
    // What still runs dies here, and whatever it leaves behind is never written.
    drop(runtime);
    (how != How::Stopped || !events.is_empty()).then_some(how)
}

async fn whole_life(world: &Arc<World>, events: &mut VecDeque<(Duration, Event)>) -> How {
    let versions = Versions::new();
    let fold = Fold::new(versions.clone());
    let hears = Arc::new(Hears::new(Arc::clone(&fold), world.wiring));
    let ids = world.dice(Rng::next);
    let opened = Stepped::open(&world.storage, ids, world.clock.clone(), hears);
    let (ledger, stepped) = match opened {
        Ok((ledger, stepped, _)) => (ledger, stepped),
        // A fault that was planned for an operation of the start; a start without one must succeed.
        Err(error) => {
            if !world.storage.has_failed() {
                world.journal.add(What::Broken(error.to_string()));
            }
            return How::Poisoned;
        }
    };
    let end_commits = CancellationToken::new();
    let committing = tokio::spawn(commit(Arc::clone(world), stepped, end_commits.clone()));
    let poisoned = {
        let (ledger, world) = (ledger.clone(), Arc::clone(world));
        async move {
            ledger.poisoned().await;
            // Until the process has ended, requests go on to be refused.
            sleep(world.dice(|dice| dice.ms(0, 60))).await;
            How::Poisoned
        }
    };
    tokio::select! {
        biased;
        how = poisoned => how,
        how = served(world, (ledger, versions, fold), events, (committing, end_commits)) => how,
    }
}

async fn served(
    world: &Arc<World>,
    (ledger, versions, fold): (Ledger, Versions, Arc<Fold>),
    events: &mut VecDeque<(Duration, Event)>,
    commits: (JoinHandle<Stepped>, CancellationToken),
) -> How {
    let policy = world.policy.load(Ordering::Relaxed);
    let pdp = world.pdp(policy);
    world.journal.add(What::ReloadAsked(policy));
    let Ok(receipt) = ledger.record_policy(activation(&world::prepared(policy), "start")).await else {
        // Of a full disk or of a poisoned log; the start fails.
        return How::Poisoned;
    };
    versions.set(POLICY, &version_of(receipt.index));
    versions.set(IDENTITY, &world.dice(Rng::next).to_string());
    world.journal.add(What::InForce(policy));
    let (reserved, reservations) = mpsc::unbounded_channel();
    let life = Arc::new(Life::new(Arc::clone(world), ledger, versions, (fold, reserved), pdp));
    life.run(events, reservations, commits).await
}

/// The committer's thread, and the publisher's.
async fn commit(world: Arc<World>, mut stepped: Stepped, end: CancellationToken) -> Stepped {
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => return stepped,
            () = stepped.wanted() => {}
        }
        sleep(world.commit_takes()).await;
        if !stepped.commit() {
            return stepped;
        }
        if world.dice(|dice| dice.percent(30)) {
            stepped.publish();
        }
    }
}

/// Whom events are left to.
#[derive(Clone)]
struct Others {
    operate: mpsc::UnboundedSender<Event>,
    reload: mpsc::UnboundedSender<usize>,
}

impl Life {
    fn new(
        world: Arc<World>,
        ledger: Ledger,
        versions: Versions,
        (fold, reserved): (Arc<Fold>, mpsc::UnboundedSender<bool>),
        pdp: Pdp,
    ) -> Self {
        let (wiring, clock) = (world.wiring, world.clock.clone());
        let state = Seen { fold: Arc::clone(&fold), wiring, journal: world.journal.clone(), reserved };
        let mut credentials = Credentials::new();
        let secret = Credential::new(Zeroizing::new(SECRET.as_bytes().to_vec())).expect("visible");
        credentials.insert("stripe".parse().expect("a name"), secret);
        let drain = CancellationToken::new();
        let gate = Gate {
            pdp: pdp.clone(),
            ledger: ledger.clone(),
            versions: wirings::versions(wiring, &versions),
            watched: wirings::watched(wiring),
            state: Arc::new(state),
            hold_changes: fold.hold_changes(),
            turns: Turns::default(),
            answers: Arc::default(),
            waiters: pep::waiters(),
            drain: drain.clone(),
            credentials: Arc::new(credentials),
            anchor: clock.anchor(),
            clock,
            metrics: world::metrics(),
        };
        let surface = Arc::new(surface(&world));
        let (tasks, abandon) = (TaskTracker::new(), CancellationToken::new());
        let in_flight = Arc::new(Semaphore::new(1_000));
        Self { world, fold, ledger, versions, pdp, gate, surface, tasks, drain, abandon, in_flight }
    }

    /// What a request goes through.
    pub fn listener(&self) -> Arc<Listener> {
        let mut gate = self.gate.clone();
        if self.world.wiring == Wiring::ClockIsTrusted {
            gate.anchor = gate.clock.anchor();
        }
        let bounds = Bounds {
            head_max: Duration::from_secs(10),
            body_max: Duration::from_secs(10),
            client_stall_max: Duration::from_secs(2),
            connection_age_max: Duration::from_secs(600),
        };
        Arc::new(Listener {
            surfaces: vec![Arc::clone(&self.surface)],
            tls: None,
            gate,
            bounds,
            connections: Arc::new(Semaphore::new(1)),
            in_flight: Arc::clone(&self.in_flight),
            bodies: Arc::new(Semaphore::new(1_000)),
            tasks: self.tasks.clone(),
            drain: self.drain.clone(),
            abandon: self.abandon.clone(),
        })
    }

    async fn run(
        self: &Arc<Self>,
        events: &mut VecDeque<(Duration, Event)>,
        reservations: mpsc::UnboundedReceiver<bool>,
        commits: (JoinHandle<Stepped>, CancellationToken),
    ) -> How {
        let (world, began) = (&self.world, self.world.journal.now());
        let (operate, operated) = mpsc::unbounded_channel();
        let operating = tokio::spawn(Operators::new(self).keep_operating(operated));
        let (reload, reloads) = mpsc::unbounded_channel();
        tokio::spawn(Arc::clone(self).keep_reloading(reloads));
        let others = Others { operate, reload };
        let ambushing = tokio::spawn(Arc::clone(self).keep_ambushing(reservations, others.clone()));
        let mut clients = Vec::new();
        while let Some((at, event)) = events.front().copied() {
            sleep(at.saturating_sub(world.journal.now())).await;
            events.pop_front();
            match event {
                // Nobody was there to be asked.
                Event::Ask(_) if at < began => {}
                Event::Ask(ask) => {
                    world.journal.add(What::Scripted(event));
                    let number = world.asks();
                    clients.push((number, tokio::spawn(client::ask(Arc::clone(self), number, ask))));
                }
                Event::Stop => return self.stop(clients, commits).await,
                Event::Kill(down_ms) => return How::Killed(down_ms),
                other => self.happens(other, &others),
            }
        }
        for (number, client) in &mut clients {
            match timeout(PATIENCE, client).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => world.journal.add(What::Panicked(error.to_string())),
                Err(_elapsed) => world.journal.add(What::Hung(*number)),
            }
        }
        clients.clear();
        ambushing.abort();
        let _ = ambushing.await;
        drop(others);
        if let Err(error) = operating.await {
            world.journal.add(What::Panicked(error.to_string()));
        }
        self.stop(clients, commits).await
    }

    fn happens(&self, event: Event, others: &Others) {
        let world = &self.world;
        world.journal.add(What::Scripted(event));
        match event {
            Event::Freeze(_)
            | Event::Unfreeze(_)
            | Event::Approve(..)
            | Event::Refuse(_)
            | Event::Quarantine(_)
            | Event::Release(_)
            | Event::Resolve => others.operate.send(event).expect("operators live as long"),
            Event::Reload(policy) => others.reload.send(policy).expect("it lives as long"),
            Event::Identity => {
                self.versions.set(IDENTITY, &world.dice(Rng::next).to_string());
                world.journal.add(What::IdentityMoved);
            }
            Event::SetClock(ms) => world.set_clock(ms * 1_000_000),
            Event::RightClock => world.set_clock(0),
            Event::Restart(down) => world.upstream.restart(down),
            Event::Fault(after, failure) => {
                let operation = world.storage.history().0.len() + after;
                world.storage.plan(Target::Operation(operation), failure);
            }
            Event::Room(segments) => world.storage.set_room(segments),
            Event::Ask(_) | Event::Stop | Event::Kill(_) => unreachable!("told apart before"),
        }
    }

    async fn keep_ambushing(
        self: Arc<Self>,
        mut reservations: mpsc::UnboundedReceiver<bool>,
        others: Others,
    ) {
        while let Some(is_approved) = reservations.recv().await {
            if let Some(ambush) = self.world.ambush(is_approved) {
                sleep(ambush.after).await;
                self.happens(ambush.event, &others);
            }
        }
    }

    async fn keep_reloading(self: Arc<Self>, mut reloads: mpsc::UnboundedReceiver<usize>) {
        let world = &self.world;
        while let Some(policy) = reloads.recv().await {
            world.policy.store(policy, Ordering::Relaxed);
            world.journal.add(What::ReloadAsked(policy));
            let prepared = world::prepared(policy);
            let activation = activation(&prepared, "change");
            if world.wiring == Wiring::PolicyIsActiveBeforeItsLeaf {
                let early = prepared.again();
                self.versions.set_after(POLICY, "early", || self.pdp.activate(early));
                sleep(Duration::from_millis(100)).await;
            }
            let put = put_in_force(&self.ledger, &self.versions, &self.pdp, (prepared, activation));
            if put.await.is_ok() {
                world.journal.add(What::InForce(policy));
            }
            sleep(Duration::from_millis(limits::POLICY_ACTIVATION_MS_MIN)).await;
        }
    }

    /// As `Gateway::stop`: listeners, requests, log.
    async fn stop(
        &self,
        clients: Vec<(usize, JoinHandle<()>)>,
        (committing, end_commits): (JoinHandle<Stepped>, CancellationToken),
    ) -> How {
        let world = &self.world;
        let abandon_max = Duration::from_secs(2);
        self.drain.cancel();
        self.tasks.close();
        let drain_max = world.dice(|dice| dice.ms(0, 2_000));
        if timeout(drain_max, self.tasks.wait()).await.is_err() {
            self.abandon.cancel();
            let _ = timeout(abandon_max, self.tasks.wait()).await;
        }
        for (_, client) in clients {
            if let Ok(Err(error)) = timeout(abandon_max, client).await {
                world.journal.add(What::Panicked(error.to_string()));
            }
        }
        // What was queued is written, in as many commits as that takes.
        let _ = timeout(abandon_max, async {
            while self.ledger.statistics().open_permits > 0 || self.ledger.statistics().queued > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        end_commits.cancel();
        let Ok(stepped) = committing.await else { return How::Poisoned };
        stepped.begin_close();
        if stepped.open_permits() == 0 && self.ledger.statistics().queued == 0 {
            world.journal.add(What::State(sums(world, &self.fold)));
        }
        match stepped.close() {
            Closed::Clean | Closed::PermitsOpen(_) => How::Stopped,
            Closed::Poisoned => How::Poisoned,
        }
    }
}

fn activation(prepared: &Prepared, activated_by: &str) -> PolicyActivation {
    PolicyActivation {
        activated_by: activated_by.into(),
        engine: ENGINE.into(),
        files: prepared.bundle().sources().deciding(),
        older_than: None,
        ordered: None,
        revision: prepared.bundle().revision(),
        version: None,
    }
}

fn budgets() -> Arc<[BudgetRule]> {
    let rule = BudgetRule {
        name: "spend".parse().expect("a name"),
        key: Vec::new(),
        amount: Amount::At("/request/body/amount".parse().expect("a pointer")),
        window: Window::Sliding(BUDGET_WINDOW),
        unit: "EUR".into(),
        actions: None,
    };
    [rule].into()
}

fn surface(world: &World) -> Surface {
    let clock = world.clock.clone();
    let settings = Settings {
        scheme: Scheme::Plain,
        host: "upstream.example".into(),
        port: 80,
        authority: AUTHORITY.into(),
        leases_max: world.script.pace.leases,
        idle_max: Duration::from_secs(3),
        connect_max: Duration::from_secs(1),
        lease_wait_max: Duration::from_secs(2),
        response_head_max: HEAD_MAX,
        response_idle_max: IDLE_MAX,
    };
    let answer_bytes_max = if world.script.keeps_answers { 10_000 } else { 0 };
    let permit_age_max = match world.wiring {
        Wiring::PermitsNeverAge => Duration::from_secs(60),
        _ => PERMIT_AGE_MAX,
    };
    let taken = Taken { mtls: None, jwt: None, api_key: None, require: Require::One, clock: clock.clone() };
    Surface {
        name: SURFACE.parse().expect("a name"),
        hosts: Hosts::new(Default::default()),
        package: world::package(),
        identities: Identities::new(taken),
        routes: Routes::new(Vec::new()),
        upstream: Upstream::simulated(settings, clock, world.upstream.reach()),
        permit_age_max,
        authority: Authority {
            budgets: budgets(),
            facts: Facts::none(),
            idempotency: Some(Idempotency { keep: KEY_KEPT, answer_bytes_max }),
            holds: Holds { expire_after: HOLD_EXPIRES, wait_max: Duration::from_secs(20) },
        },
    }
}

/// What the state says now.
pub fn sums(world: &World, fold: &Fold) -> Sums {
    let at = world.clock.wall();
    let execution = client::execution(&world.script.wishes[0], None);
    let draws = draws(&budgets(), &subject(&execution), at).expect("a number");
    let asked = Asked {
        surface: &execution.surface,
        action: &execution.action,
        actor: &execution.actor.id,
        digest: execution.request.digest(),
        key: None,
        draws: &draws,
        now: at,
    };
    let view = futures_util::FutureExt::now_or_never(fold.read(asked)).expect("it never waits");
    let population = fold.population();
    Sums {
        at,
        spent: view.budgets[0].spent.normalize().to_string(),
        in_flight: view.budgets[0].in_flight.normalize().to_string(),
        open: population.open,
        unknown: population.unknown,
        frozen: fold.restrictions().len(),
    }
}
