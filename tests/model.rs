//! The commit protocol as a model, checked in every interleaving.
//!
//! The model is small on purpose: a few requests that want the same key, the same budget or the same approval; freeze
//! and its end, change of policy and identity, approval, refusal, expiry, age, crash with recovery, lost reply. What the
//! properties look at ([`Ghost`]) is kept apart from what the protocol reads, so that a check that forgets something is
//! not blind together with the property that it is to keep. Each rule of the protocol is a property, and for each
//! rule there is a [`Broken`] variant for which the checker must find a counterexample: a property that nothing can
//! violate would prove nothing. It is the protocol that is checked here, not the code; the steps have the names of the
//! code that takes them.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// One way to get the protocol wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    No,
    /// A message starts before its leaf is durable.
    StartsBeforeDurable,
    /// What was read of claim, budget and approval is not compared when it is taken.
    TakesWithoutComparing,
    /// The read set is validated when a message is sealed, and not again at the first byte.
    NotValidatedAtFirstByte,
    /// Recovery takes a permit without an outcome for one that was not sent.
    RecoveryFrees,
    /// A lost reply counts as a failure: the budget is given back.
    LostReplyReleasesBudget,
    /// A lost reply gives the key back.
    LostReplyFreesKey,
    /// A permit that was not sent keeps its key.
    NotSentKeepsKey,
    /// What was taken for a leaf that never became durable is not given back.
    TicketLeaks,
    /// An approval is not used up by the PERMIT that rests on it.
    ApprovalStays,
    /// A lost reply gives the approval back.
    LostReplyFreesApproval,
    PolicyNotWatched,
    IdentityNotWatched,
    AgeNotChecked,
    /// What was found valid may change before the first byte is written.
    CheckThenWriteInTwoSteps,
    FreezeReturnsBeforeVersion,
    /// The end of a freeze is not a change.
    UnfreezeNotWatched,
    ExpiredApprovalCounts,
    /// A refusal does not stop what is on its way.
    RefusalNotWatched,
    /// A permit that was not sent is judged again before that is durable.
    JudgedAgainBeforeDurable,
}

/// What may happen beside the requests, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Freeze,
    Unfreeze,
    ChangePolicy,
    ChangeIdentity,
    /// What was read by now is older than a permit may be.
    Age,
    Refuse,
    /// The hold's time is over.
    Expire,
}

/// Which request has a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Claim {
    Free,
    Running(usize),
    Executed(usize),
    Unknown(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Read,
    Evaluated,
    Reserved,
    /// The leaf is durable.
    Recorded,
    Sealed,
    /// At the first byte, inside the gate: found valid, and not written yet.
    Checked,
    /// The first byte has left.
    Started,
    /// Nothing was sent, and the leaf that says so is not durable.
    NotSent,
    Confirmed,
    Failed,
    Indeterminate,
    /// Without a durable permit, or given up after the last attempt.
    Refused,
}

/// What a request read: compared when it takes, or validated before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Seen {
    policy: u8,
    identity: u8,
    freezes: u8,
    claim: Claim,
    drawn: u8,
    approvals: u8,
    /// In the state, which is read after the versions.
    is_frozen: bool,
    is_refused: bool,
}

/// What was true when a request read, whatever it made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Ghost {
    policy: u8,
    identity: u8,
    /// How often a freeze came or went, or a hold was refused.
    changes: u8,
    refused: bool,
    /// Too old by now.
    is_old: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    phase: Phase,
    attempt: u8,
    seen: Option<Seen>,
    ghost: Ghost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    policy: u8,
    identity: u8,
    /// The version of freezes, which a refusal moves as well.
    freezes: u8,
    /// In the state. It comes before the version.
    is_frozen: bool,
    is_refused: bool,
    is_expired: bool,
    /// What has happened, as bits of [`Event`].
    happened: u8,
    /// A freeze has returned to whoever asked for it, and has not ended.
    freeze_returned: bool,
    /// Given, and not used up by a durable permit.
    approvals: u8,
    approved: bool,
    claim: Claim,
    /// Bits of requests: what is reserved in the fold, and what is spent.
    reserved: u8,
    spent: u8,
    /// What is taken for leaves that are not durable yet.
    overlay_claim: Option<usize>,
    overlay_reserved: u8,
    overlay_approval: u8,
    requests: Vec<Request>,
    crashes: u8,
    // What the properties look at, and the protocol does not.
    changes: u8,
    starts: Vec<u8>,
    started_without_durable_permit: bool,
    started_on_stale_state: bool,
    started_after_freeze: bool,
    started_old: bool,
    started_after_refusal: bool,
    permitted_after_expiry: bool,
    /// A request was refused for what it had taken itself.
    met_itself: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Read(usize),
    Evaluate(usize),
    Reserve(usize),
    Record(usize),
    NotRecorded(usize),
    Seal(usize),
    Check(usize),
    Start(usize),
    NotSentDurable(usize),
    Confirm(usize),
    Fail(usize),
    LoseReply(usize),
    ReconcileConfirmed(usize),
    ReconcileFailed(usize),
    Happen(Event),
    FreezeMovesVersion,
    FreezeReturns,
    Approve,
    Crash,
}

/// What the requests of a run have in common.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    requests: usize,
    /// All carry one idempotency key.
    keyed: bool,
    /// Each draws 1 of a budget of so much.
    budget: Option<u8>,
    /// Policy permits with an approval only.
    approval: bool,
    crashes_max: u8,
    events: &'static [Event],
    broken: Broken,
}

const ATTEMPTS_MAX: u8 = 2;

impl Protocol {
    fn drawn(&self, world: &World) -> u8 {
        (world.reserved | world.spent | world.overlay_reserved).count_ones() as u8
    }

    fn holder(&self, world: &World) -> Claim {
        world.overlay_claim.map_or_else(|| world.claim.clone(), Claim::Running)
    }

    fn approvals(&self, world: &World) -> u8 {
        if world.is_expired && self.broken != Broken::ExpiredApprovalCounts {
            return 0;
        }
        world.approvals.saturating_sub(world.overlay_approval.count_ones() as u8)
    }

    fn seen(&self, world: &World) -> Seen {
        Seen {
            policy: world.policy,
            identity: world.identity,
            freezes: world.freezes,
            is_frozen: world.is_frozen,
            is_refused: world.is_refused,
            claim: self.holder(world),
            drawn: self.drawn(world),
            approvals: self.approvals(world),
        }
    }

    fn permits(&self, seen: &Seen) -> bool {
        seen.policy == 0
            && !seen.is_frozen
            && !(self.approval && seen.is_refused)
            && (!self.keyed || seen.claim == Claim::Free)
            && self.budget.is_none_or(|limit| seen.drawn < limit)
            && (!self.approval || seen.approvals > 0)
    }

    /// What a permit takes is as it was read. What others do is of no matter to a request that takes none of it.
    fn takes(&self, seen: &Seen, now: &Seen) -> bool {
        (!self.keyed || seen.claim == now.claim)
            && (self.budget.is_none() || seen.drawn == now.drawn)
            && (!self.approval || seen.approvals == now.approvals)
    }

    /// The protocol's own look: versions and age.
    fn is_valid(&self, world: &World, request: usize) -> bool {
        let Request { seen, ghost, .. } = &world.requests[request];
        let seen = seen.as_ref().expect("it has read");
        (seen.policy == world.policy || self.broken == Broken::PolicyNotWatched)
            && (seen.identity == world.identity || self.broken == Broken::IdentityNotWatched)
            && seen.freezes == world.freezes
            && (!ghost.is_old || self.broken == Broken::AgeNotChecked)
    }

    /// Nobody is between the look and the first byte: a version may move.
    fn gate_is_free(&self, world: &World) -> bool {
        self.broken == Broken::CheckThenWriteInTwoSteps
            || world.requests.iter().all(|request| request.phase != Phase::Checked)
    }

    fn may_happen(&self, world: &World, event: Event) -> bool {
        let has = |event: Event| world.happened & 1 << event as u8 != 0;
        if has(event) {
            return false;
        }
        match event {
            // The state first; the version is a step of its own.
            Event::Freeze | Event::Expire => true,
            Event::Unfreeze => world.freeze_returned && world.freezes > 0 && self.gate_is_free(world),
            // Between the look and the first byte no time passes that counts.
            Event::ChangePolicy | Event::ChangeIdentity | Event::Age => self.gate_is_free(world),
            Event::Refuse => self.approval && self.gate_is_free(world),
        }
    }

    fn happen(&self, world: &mut World, event: Event) {
        world.happened |= 1 << event as u8;
        match event {
            Event::Freeze => world.is_frozen = true,
            Event::Unfreeze => {
                (world.is_frozen, world.freeze_returned) = (false, false);
                world.changes += 1;
                world.freezes = if self.broken == Broken::UnfreezeNotWatched { 0 } else { world.freezes + 1 };
            }
            Event::ChangePolicy => world.policy += 1,
            Event::ChangeIdentity => world.identity += 1,
            Event::Age => {
                let readers = world.requests.iter_mut().filter(|request| request.seen.is_some());
                readers.for_each(|request| request.ghost.is_old = true);
            }
            Event::Refuse => {
                world.is_refused = true;
                world.changes += 1;
                world.freezes += u8::from(self.broken != Broken::RefusalNotWatched);
            }
            Event::Expire => world.is_expired = true,
        }
    }

    fn give_back(&self, world: &mut World, request: usize) {
        if self.broken == Broken::TicketLeaks {
            return;
        }
        if world.overlay_claim == Some(request) {
            world.overlay_claim = None;
        }
        world.overlay_reserved &= !(1 << request);
        world.overlay_approval &= !(1 << request);
    }

    /// The outcome `not_sent` is queued. What the permit took is free once that is durable, and not before.
    fn not_sent(&self, world: &mut World, request: usize) {
        world.requests[request].phase = Phase::NotSent;
        if self.broken == Broken::JudgedAgainBeforeDurable {
            self.again(world, request);
        }
    }

    /// The outcome is durable: everything is free again, and the request is evaluated once more.
    fn not_sent_durable(&self, world: &mut World, request: usize) {
        if self.broken != Broken::NotSentKeepsKey && world.claim == Claim::Running(request) {
            world.claim = Claim::Free;
        }
        world.reserved &= !(1 << request);
        if self.approval && self.broken != Broken::ApprovalStays {
            world.approvals += 1;
        }
        self.again(world, request);
    }

    fn again(&self, world: &mut World, request: usize) {
        let request = &mut world.requests[request];
        request.attempt += 1;
        request.seen = None;
        request.ghost = Ghost::default();
        request.phase = if request.attempt < ATTEMPTS_MAX { Phase::Idle } else { Phase::Refused };
    }

    fn executed(&self, world: &mut World, request: usize, confirmed: bool) {
        if self.keyed && matches!(world.claim, Claim::Running(r) | Claim::Unknown(r) if r == request) {
            world.claim = Claim::Executed(request);
        }
        if self.budget.is_some() && world.reserved & 1 << request != 0 && confirmed {
            world.spent |= 1 << request;
        }
        world.reserved &= !(1 << request);
        world.requests[request].phase = if confirmed { Phase::Confirmed } else { Phase::Failed };
    }

    fn unknown(&self, world: &mut World, request: usize) {
        if world.claim == Claim::Running(request) {
            let frees = self.broken == Broken::LostReplyFreesKey;
            world.claim = if frees { Claim::Free } else { Claim::Unknown(request) };
        }
        if self.broken == Broken::LostReplyReleasesBudget {
            world.reserved &= !(1 << request);
        }
        if self.approval && self.broken == Broken::LostReplyFreesApproval {
            world.approvals += 1;
        }
        world.requests[request].phase = Phase::Indeterminate;
    }

    /// Memory is gone; what is durable is recovered: a permit without an outcome may have been sent.
    fn crash(&self, world: &mut World) {
        world.crashes += 1;
        world.overlay_claim = None;
        world.overlay_reserved = 0;
        world.overlay_approval = 0;
        for request in 0..self.requests {
            match world.requests[request].phase {
                // It comes after the restart.
                Phase::Idle => {}
                Phase::Read | Phase::Evaluated | Phase::Reserved => {
                    world.requests[request].phase = Phase::Refused;
                }
                Phase::Recorded | Phase::Sealed | Phase::Checked | Phase::Started | Phase::NotSent
                    if self.broken == Broken::RecoveryFrees =>
                {
                    self.not_sent_durable(world, request);
                    world.requests[request].phase = Phase::Refused;
                }
                Phase::Recorded | Phase::Sealed | Phase::Checked | Phase::Started | Phase::NotSent => {
                    self.unknown(world, request);
                }
                Phase::Confirmed | Phase::Failed | Phase::Indeterminate | Phase::Refused => {}
            }
        }
    }

    /// Inside the gate: no version moves from here to the first byte.
    fn check(&self, world: &mut World, request: usize) {
        if self.is_valid(world, request) || self.broken == Broken::NotValidatedAtFirstByte {
            world.requests[request].phase = Phase::Checked;
        } else {
            self.not_sent(world, request);
        }
    }

    fn start(&self, world: &mut World, request: usize) {
        let Request { phase, ghost, .. } = world.requests[request].clone();
        world.started_without_durable_permit |= phase != Phase::Checked;
        let is_as_read = ghost.policy == world.policy
            && ghost.identity == world.identity
            && ghost.changes == world.changes;
        world.started_on_stale_state |= !is_as_read;
        world.started_after_freeze |= world.freeze_returned;
        world.started_old |= ghost.is_old;
        world.started_after_refusal |= self.approval && world.is_refused && !ghost.refused;
        world.starts[request] += 1;
        world.requests[request].phase = Phase::Started;
    }

    fn reserve(&self, world: &mut World, request: usize) {
        let seen = world.requests[request].seen.clone().expect("it has read");
        let compares = self.broken != Broken::TakesWithoutComparing;
        if compares && !self.takes(&seen, &self.seen(world)) {
            return self.again(world, request);
        }
        world.permitted_after_expiry |= self.approval && world.is_expired;
        if self.keyed {
            world.overlay_claim = Some(request);
        }
        if self.budget.is_some() {
            world.overlay_reserved |= 1 << request;
        }
        if self.approval && self.broken != Broken::ApprovalStays {
            world.overlay_approval |= 1 << request;
        }
        world.requests[request].phase = Phase::Reserved;
    }

    /// The leaf is durable, and the fold takes over what was taken for it.
    fn record(&self, world: &mut World, request: usize) {
        if self.keyed {
            world.claim = Claim::Running(request);
        }
        if self.budget.is_some() {
            world.reserved |= 1 << request;
        }
        if world.overlay_approval & 1 << request != 0 {
            world.approvals = world.approvals.saturating_sub(1);
        }
        if world.overlay_claim == Some(request) {
            world.overlay_claim = None;
        }
        world.overlay_reserved &= !(1 << request);
        world.overlay_approval &= !(1 << request);
        world.requests[request].phase = Phase::Recorded;
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let request = Request { phase: Phase::Idle, attempt: 0, seen: None, ghost: Ghost::default() };
        vec![World {
            policy: 0,
            identity: 0,
            freezes: 0,
            is_frozen: false,
            is_refused: false,
            is_expired: false,
            happened: 0,
            freeze_returned: false,
            approvals: 0,
            approved: false,
            claim: Claim::Free,
            reserved: 0,
            spent: 0,
            overlay_claim: None,
            overlay_reserved: 0,
            overlay_approval: 0,
            requests: vec![request; self.requests],
            crashes: 0,
            changes: 0,
            starts: vec![0; self.requests],
            started_without_durable_permit: false,
            started_on_stale_state: false,
            started_after_freeze: false,
            started_old: false,
            started_after_refusal: false,
            permitted_after_expiry: false,
            met_itself: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (n, request) in world.requests.iter().enumerate() {
            match request.phase {
                Phase::Idle => steps.push(Step::Read(n)),
                Phase::Read => steps.push(Step::Evaluate(n)),
                Phase::Evaluated => steps.push(Step::Reserve(n)),
                Phase::Reserved => {
                    steps.extend([Step::Record(n), Step::NotRecorded(n)]);
                    if self.broken == Broken::StartsBeforeDurable {
                        steps.push(Step::Start(n));
                    }
                }
                Phase::Recorded => steps.push(Step::Seal(n)),
                Phase::Sealed => steps.push(Step::Check(n)),
                Phase::Checked => steps.push(Step::Start(n)),
                Phase::NotSent => steps.push(Step::NotSentDurable(n)),
                Phase::Started => steps.extend([Step::Confirm(n), Step::Fail(n), Step::LoseReply(n)]),
                Phase::Indeterminate => {
                    steps.extend([Step::ReconcileConfirmed(n), Step::ReconcileFailed(n)]);
                }
                Phase::Confirmed | Phase::Failed | Phase::Refused => {}
            }
        }
        let may = self.events.iter().filter(|event| self.may_happen(world, **event));
        steps.extend(may.map(|event| Step::Happen(*event)));
        let has_moved =
            world.freezes > u8::from(world.is_refused && self.broken != Broken::RefusalNotWatched);
        if world.is_frozen && !has_moved && self.gate_is_free(world) {
            steps.push(Step::FreezeMovesVersion);
        }
        if world.is_frozen
            && !world.freeze_returned
            && (has_moved || self.broken == Broken::FreezeReturnsBeforeVersion)
        {
            steps.push(Step::FreezeReturns);
        }
        if self.approval && !world.approved {
            steps.push(Step::Approve);
        }
        if world.crashes < self.crashes_max {
            steps.push(Step::Crash);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        let world = &mut next;
        match step {
            Step::Read(n) => {
                world.requests[n].seen = Some(self.seen(world));
                world.requests[n].ghost = Ghost {
                    policy: world.policy,
                    identity: world.identity,
                    changes: world.changes,
                    refused: world.is_refused,
                    is_old: false,
                };
                world.requests[n].phase = Phase::Read;
            }
            Step::Evaluate(n) => {
                let seen = world.requests[n].seen.as_ref().expect("it has read");
                let permits = self.permits(seen);
                world.met_itself |= seen.claim == Claim::Running(n);
                world.requests[n].phase = if permits { Phase::Evaluated } else { Phase::Refused };
            }
            Step::Reserve(n) => self.reserve(world, n),
            Step::Record(n) => self.record(world, n),
            Step::NotRecorded(n) => {
                self.give_back(world, n);
                world.requests[n].phase = Phase::Refused;
            }
            Step::Seal(n) if self.is_valid(world, n) => world.requests[n].phase = Phase::Sealed,
            Step::Seal(n) => self.not_sent(world, n),
            Step::Check(n) => self.check(world, n),
            Step::Start(n) => self.start(world, n),
            Step::NotSentDurable(n) => self.not_sent_durable(world, n),
            Step::Confirm(n) | Step::ReconcileConfirmed(n) => self.executed(world, n, true),
            Step::Fail(n) | Step::ReconcileFailed(n) => self.executed(world, n, false),
            Step::LoseReply(n) => self.unknown(world, n),
            Step::Happen(event) => self.happen(world, event),
            // Under the gate, which it waits for: no start is under way.
            Step::FreezeMovesVersion => {
                world.freezes += 1;
                world.changes += 1;
            }
            Step::FreezeReturns => world.freeze_returned = true,
            Step::Approve => {
                world.approved = true;
                world.approvals += 1;
            }
            Step::Crash => self.crash(world),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DURABLE, |_, world: &World| !world.started_without_durable_permit),
            Property::always(VALID, |_, world: &World| !world.started_on_stale_state),
            Property::always(BARRIER, |_, world: &World| !world.started_after_freeze),
            Property::always(AGE, |_, world: &World| !world.started_old),
            Property::always(REFUSED, |_, world: &World| !world.started_after_refusal),
            Property::always(EXPIRED, |_, world: &World| !world.permitted_after_expiry),
            Property::always(SELF, |_, world: &World| !world.met_itself),
            Property::always(BUDGET, |protocol: &Self, world: &World| {
                protocol.budget.is_none_or(|limit| effects(world) <= usize::from(limit))
            }),
            Property::always(KEY, |protocol: &Self, world: &World| {
                !protocol.keyed || world.starts.iter().sum::<u8>() <= 1
            }),
            Property::always(APPROVAL, |protocol: &Self, world: &World| {
                !protocol.approval || world.starts.iter().sum::<u8>() <= u8::from(world.approved)
            }),
            Property::always(STUCK, |_, world: &World| !is_over(world) || nothing_is_stuck(world)),
            // The model can do what it is about.
            Property::sometimes(USEFUL, |_, world: &World| {
                world.requests.iter().any(|r| r.phase == Phase::Confirmed)
            }),
        ]
    }
}

const DURABLE: &str = "no start without a durable permit";
const VALID: &str = "no start on a read set that has moved";
const BARRIER: &str = "no start after freeze has returned";
const AGE: &str = "no start on what is too old";
const REFUSED: &str = "no start after a refusal of what it rests on";
const EXPIRED: &str = "no approval is taken after its time";
const SELF: &str = "no request meets what it has taken itself";
const BUDGET: &str = "a budget of N has at most N effects";
const KEY: &str = "one key is sent once";
const APPROVAL: &str = "one approval is used once";
const STUCK: &str = "every claim and reserve is freed, executed or unknown";
const USEFUL: &str = "a request can be confirmed";

/// What the upstream may have done, as far as nobody has said that it has not.
fn effects(world: &World) -> usize {
    let has_effect = |(request, starts): &(&Request, &u8)| **starts > 0 && request.phase != Phase::Failed;
    world.requests.iter().zip(&world.starts).filter(has_effect).count()
}

fn is_over(world: &World) -> bool {
    let over =
        |phase| matches!(phase, Phase::Confirmed | Phase::Failed | Phase::Refused | Phase::Indeterminate);
    world.requests.iter().all(|request| over(request.phase))
}

fn nothing_is_stuck(world: &World) -> bool {
    let unknown = |n: usize| world.requests[n].phase == Phase::Indeterminate;
    let claim = match world.claim {
        Claim::Free | Claim::Executed(_) => true,
        Claim::Running(_) => false,
        Claim::Unknown(n) => unknown(n),
    };
    let reserves = (0..world.requests.len()).all(|n| world.reserved & 1 << n == 0 || unknown(n));
    let taken = world.overlay_claim.is_some() || world.overlay_reserved != 0 || world.overlay_approval != 0;
    claim && reserves && !taken
}

const FREEZE_AND_POLICY: &[Event] = &[Event::Freeze, Event::ChangePolicy];
const KEYED: Protocol = Protocol {
    requests: 3,
    keyed: true,
    budget: None,
    approval: false,
    crashes_max: 1,
    events: &[Event::ChangePolicy],
    broken: Broken::No,
};
const BUDGETED: Protocol = Protocol { keyed: false, budget: Some(2), events: &[], ..KEYED };
const APPROVED: Protocol = Protocol { keyed: false, approval: true, ..KEYED };
/// All three at once.
const ALL: Protocol =
    Protocol { requests: 2, budget: Some(1), approval: true, events: FREEZE_AND_POLICY, ..KEYED };
/// What is watched, moving around two requests.
const WATCHED: Protocol = Protocol {
    requests: 2,
    keyed: false,
    crashes_max: 0,
    events: &[Event::Freeze, Event::Unfreeze, Event::ChangePolicy],
    ..KEYED
};
const AGED: Protocol = Protocol { events: &[Event::ChangeIdentity, Event::Age], ..WATCHED };
/// What people and time do to a hold.
const HELD: Protocol =
    Protocol { requests: 2, events: &[Event::Refuse, Event::Expire, Event::Freeze], ..APPROVED };

#[test]
fn the_commit_protocol_keeps_its_rules_in_every_interleaving() {
    for (name, protocol) in [
        ("keyed", KEYED),
        ("budgeted", BUDGETED),
        ("approved", APPROVED),
        ("all", ALL),
        ("watched", WATCHED),
        ("aged", AGED),
        ("held", HELD),
    ] {
        let began = std::time::Instant::now();
        let checker = protocol.checker().threads(2).spawn_bfs().join();
        println!("{name}: {} states in {:?}", checker.unique_state_count(), began.elapsed());
        assert!(checker.is_done(), "every state was seen");
        checker.assert_properties();
        assert!(checker.unique_state_count() > 1_000, "{protocol:?}: {}", checker.unique_state_count());
    }
}

#[test]
fn each_rule_that_is_broken_is_caught() {
    for (protocol, broken, rule) in [
        (KEYED, Broken::StartsBeforeDurable, DURABLE),
        (WATCHED, Broken::NotValidatedAtFirstByte, VALID),
        (WATCHED, Broken::NotValidatedAtFirstByte, BARRIER),
        (WATCHED, Broken::CheckThenWriteInTwoSteps, VALID),
        (WATCHED, Broken::CheckThenWriteInTwoSteps, BARRIER),
        (WATCHED, Broken::FreezeReturnsBeforeVersion, BARRIER),
        (WATCHED, Broken::UnfreezeNotWatched, VALID),
        (WATCHED, Broken::PolicyNotWatched, VALID),
        (AGED, Broken::IdentityNotWatched, VALID),
        (AGED, Broken::AgeNotChecked, AGE),
        (HELD, Broken::RefusalNotWatched, REFUSED),
        (HELD, Broken::ExpiredApprovalCounts, EXPIRED),
        (KEYED, Broken::JudgedAgainBeforeDurable, SELF),
        (KEYED, Broken::TakesWithoutComparing, KEY),
        (BUDGETED, Broken::TakesWithoutComparing, BUDGET),
        (APPROVED, Broken::TakesWithoutComparing, APPROVAL),
        (APPROVED, Broken::ApprovalStays, APPROVAL),
        (KEYED, Broken::RecoveryFrees, KEY),
        (BUDGETED, Broken::RecoveryFrees, BUDGET),
        (APPROVED, Broken::RecoveryFrees, APPROVAL),
        (BUDGETED, Broken::LostReplyReleasesBudget, BUDGET),
        (KEYED, Broken::LostReplyFreesKey, KEY),
        (APPROVED, Broken::LostReplyFreesApproval, APPROVAL),
        (KEYED, Broken::NotSentKeepsKey, STUCK),
        (KEYED, Broken::TicketLeaks, STUCK),
        (BUDGETED, Broken::TicketLeaks, STUCK),
        (APPROVED, Broken::TicketLeaks, STUCK),
    ] {
        let found = HasDiscoveries::AnyOf(BTreeSet::from([rule]));
        let checker = Protocol { broken, ..protocol }.checker().finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(rule).is_some(), "{broken:?} with {protocol:?}: `{rule}` is not violated");
    }
}
