//! The commit protocol as a model, checked in every interleaving.
//!
//! The model is small on purpose: a few requests that want the same key, the same budget or the same approval; freeze,
//! change of policy, approval, crash with recovery, lost reply. Each rule of the protocol is a property, and for each
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
    /// The first byte has left.
    Started,
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
    freezes: u8,
    claim: Claim,
    drawn: u8,
    approvals: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    phase: Phase,
    attempt: u8,
    seen: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    policy: u8,
    /// 0: none; 1: frozen. Also its version.
    freezes: u8,
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
    starts: Vec<u8>,
    started_without_durable_permit: bool,
    started_on_stale_state: bool,
    started_after_freeze: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Read(usize),
    Evaluate(usize),
    Reserve(usize),
    Record(usize),
    NotRecorded(usize),
    Seal(usize),
    Start(usize),
    Confirm(usize),
    Fail(usize),
    LoseReply(usize),
    ReconcileConfirmed(usize),
    ReconcileFailed(usize),
    Freeze,
    ChangePolicy,
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
        world.approvals.saturating_sub(world.overlay_approval.count_ones() as u8)
    }

    fn seen(&self, world: &World) -> Seen {
        Seen {
            policy: world.policy,
            freezes: world.freezes,
            claim: self.holder(world),
            drawn: self.drawn(world),
            approvals: self.approvals(world),
        }
    }

    fn permits(&self, seen: &Seen) -> bool {
        seen.policy == 0
            && seen.freezes == 0
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

    fn is_valid(&self, world: &World, request: usize) -> bool {
        let seen = world.requests[request].seen.as_ref().expect("it has read");
        seen.policy == world.policy && seen.freezes == world.freezes
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

    /// The outcome `not_sent`: everything is free again, and the request is evaluated once more.
    fn not_sent(&self, world: &mut World, request: usize) {
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
                Phase::Recorded | Phase::Sealed | Phase::Started if self.broken == Broken::RecoveryFrees => {
                    self.not_sent(world, request);
                    world.requests[request].phase = Phase::Refused;
                }
                Phase::Recorded | Phase::Sealed | Phase::Started => self.unknown(world, request),
                Phase::Confirmed | Phase::Failed | Phase::Indeterminate | Phase::Refused => {}
            }
        }
    }

    fn start(&self, world: &mut World, request: usize) {
        let is_durable = world.requests[request].phase == Phase::Sealed;
        let is_valid = self.is_valid(world, request);
        if !is_valid && self.broken != Broken::NotValidatedAtFirstByte && is_durable {
            return self.not_sent(world, request);
        }
        world.started_without_durable_permit |= !is_durable;
        world.started_on_stale_state |= !is_valid;
        world.started_after_freeze |= world.freezes != 0;
        world.starts[request] += 1;
        world.requests[request].phase = Phase::Started;
    }

    fn reserve(&self, world: &mut World, request: usize) {
        let seen = world.requests[request].seen.clone().expect("it has read");
        let compares = self.broken != Broken::TakesWithoutComparing;
        if compares && !self.takes(&seen, &self.seen(world)) {
            return self.again(world, request);
        }
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
        let request = Request { phase: Phase::Idle, attempt: 0, seen: None };
        vec![World {
            policy: 0,
            freezes: 0,
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
            starts: vec![0; self.requests],
            started_without_durable_permit: false,
            started_on_stale_state: false,
            started_after_freeze: false,
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
                Phase::Sealed => steps.push(Step::Start(n)),
                Phase::Started => steps.extend([Step::Confirm(n), Step::Fail(n), Step::LoseReply(n)]),
                Phase::Indeterminate => {
                    steps.extend([Step::ReconcileConfirmed(n), Step::ReconcileFailed(n)]);
                }
                Phase::Confirmed | Phase::Failed | Phase::Refused => {}
            }
        }
        if world.freezes == 0 {
            steps.push(Step::Freeze);
        }
        if world.policy == 0 {
            steps.push(Step::ChangePolicy);
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
                world.requests[n].phase = Phase::Read;
            }
            Step::Evaluate(n) => {
                let permits = world.requests[n].seen.as_ref().is_some_and(|seen| self.permits(seen));
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
            Step::Start(n) => self.start(world, n),
            Step::Confirm(n) | Step::ReconcileConfirmed(n) => self.executed(world, n, true),
            Step::Fail(n) | Step::ReconcileFailed(n) => self.executed(world, n, false),
            Step::LoseReply(n) => self.unknown(world, n),
            // When it returns, no start is under way: the first byte is written under the gate, in one step.
            Step::Freeze => world.freezes = 1,
            Step::ChangePolicy => world.policy = 1,
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

const KEYED: Protocol =
    Protocol { requests: 3, keyed: true, budget: None, approval: false, crashes_max: 1, broken: Broken::No };
const BUDGETED: Protocol = Protocol { keyed: false, budget: Some(2), ..KEYED };
const APPROVED: Protocol = Protocol { keyed: false, approval: true, ..KEYED };
/// All three at once.
const ALL: Protocol = Protocol { requests: 2, budget: Some(1), approval: true, ..KEYED };

#[test]
fn the_commit_protocol_keeps_its_rules_in_every_interleaving() {
    for protocol in [KEYED, BUDGETED, APPROVED, ALL] {
        let checker = protocol.checker().threads(2).spawn_bfs().join();
        assert!(checker.is_done(), "every state was seen");
        checker.assert_properties();
        assert!(checker.unique_state_count() > 1_000, "{protocol:?}: {}", checker.unique_state_count());
    }
}

#[test]
fn each_rule_that_is_broken_is_caught() {
    for (protocol, broken, rule) in [
        (KEYED, Broken::StartsBeforeDurable, DURABLE),
        (KEYED, Broken::NotValidatedAtFirstByte, VALID),
        (KEYED, Broken::NotValidatedAtFirstByte, BARRIER),
        (KEYED, Broken::TakesWithoutComparing, KEY),
        (BUDGETED, Broken::TakesWithoutComparing, BUDGET),
        (APPROVED, Broken::TakesWithoutComparing, APPROVAL),
        (APPROVED, Broken::ApprovalStays, APPROVAL),
        (KEYED, Broken::RecoveryFrees, KEY),
        (BUDGETED, Broken::RecoveryFrees, BUDGET),
        (APPROVED, Broken::RecoveryFrees, APPROVAL),
        (BUDGETED, Broken::LostReplyReleasesBudget, BUDGET),
        (KEYED, Broken::LostReplyFreesKey, KEY),
        (KEYED, Broken::NotSentKeepsKey, STUCK),
        (KEYED, Broken::TicketLeaks, STUCK),
        (BUDGETED, Broken::TicketLeaks, STUCK),
    ] {
        let found = HasDiscoveries::AnyOf(BTreeSet::from([rule]));
        let checker = Protocol { broken, ..protocol }.checker().finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(rule).is_some(), "{broken:?} with {protocol:?}: `{rule}` is not violated");
    }
}
