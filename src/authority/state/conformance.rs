//! What every implementation of [`State`] must do, as tests that are written once.
//!
//! In: a [`Harness`], which makes a state, hands it the changes of durable leaves and takes it through a restart. Time is
//! always passed in. [`conformance!`] makes one test of each rule for one harness.

use std::sync::Arc;

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::super::versions::Versions;
use super::{
    Asked, ClaimState, Draw, Intent, NotReserved, Restriction, SameRequest, Scope, State, Ticket, View,
};
use crate::clock::{Clock, WallTime};
use crate::model::entry::{AdminAction, OperatorEntry, Role};
use crate::model::{
    ActionName, Activated, ActorId, Administered, BudgetName, Change, Claim, Digest, Held, IdempotencyKey,
    LeafIndex, OutcomeStatus, Permitted, ReceiptId, Reserved, Settled, Settlement, SurfaceName,
};

/// One implementation.
pub trait Harness {
    /// An empty state.
    fn new() -> Self;
    fn state(&self) -> &dyn State;
    fn versions(&self) -> &Versions;
    /// These leaves are durable.
    fn apply(&self, changes: Vec<(LeafIndex, Change)>);
    /// What of it would be on disk. Equal states, equal bytes.
    fn written(&self) -> Vec<u8>;
    /// As after a restart from that.
    fn restarted(written: &[u8]) -> Self;
}

/// One test for each rule.
macro_rules! conformance {
    ($harness:ty: $($rule:ident),+ $(,)?) => {$(
        #[test]
        fn $rule() {
            $crate::authority::state::conformance::$rule::<$harness>();
        }
    )+};
    ($harness:ty) => {
        $crate::authority::state::conformance::conformance! { $harness:
            one_key_is_claimed_once,
            a_claim_goes_on_with_its_outcome,
            other_bytes_under_one_key_are_told_apart,
            not_sent_frees_the_key,
            what_nobody_knows_is_claimed_for_ever,
            an_executed_claim_ends_at_its_time,
            a_dropped_ticket_gives_everything_back,
            a_ticket_that_outlives_its_leaf_gives_nothing_back,
            what_moved_since_it_was_read_reserves_nothing,
            an_outcome_settles_what_was_reserved,
            a_reservation_counts_until_its_window_ends,
            sums_that_cannot_be_exact_are_refused,
            a_budget_of_n_permits_exactly_n_however_they_interleave,
            approvals_are_used_once,
            not_sent_gives_approvals_back,
            one_operator_counts_once,
            a_refused_hold_answers_until_its_time,
            equal_requests_at_once_open_one_hold,
            freezes_have_one_version_and_an_order,
            a_quarantine_stands_until_it_is_released,
            a_restart_and_a_replay_give_the_same_state,
        }
    };
}
pub(crate) use conformance;

const START_S: u64 = 1_790_000_000;

pub fn at(second: u64) -> WallTime {
    WallTime::from_unix_ns((START_S + second) * 1_000_000_000)
}

pub fn id(n: u64) -> ReceiptId {
    ReceiptId::new(at(n), [7; 10])
}

pub fn name<N: std::str::FromStr>(text: &str) -> N {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is a name"))
}

pub fn decimal(text: &str) -> Decimal {
    text.parse().expect("a decimal")
}

fn wait<T>(answer: super::Answer<'_, T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(answer)
}

/// A state, and the log that it follows.
pub struct World<H> {
    pub harness: H,
    surface: SurfaceName,
    action: ActionName,
    next: std::cell::Cell<u64>,
}

/// A request, owned.
#[derive(Clone, Debug)]
pub struct Request {
    pub actor: ActorId,
    pub key: Option<IdempotencyKey>,
    pub digest: Digest,
    pub draws: Vec<Draw>,
    /// Its leaves keep the digest out.
    pub withholds: bool,
}

pub fn request(body: &str) -> Request {
    let digest = Digest::of(body.as_bytes());
    Request { actor: name("agent"), key: None, digest, draws: Vec::new(), withholds: false }
}

impl Request {
    pub fn keyed(mut self, key: &str) -> Self {
        self.key = Some(name(key));
        self
    }

    pub fn drawing(mut self, amount: &str, until: u64) -> Self {
        let (budget, key) = (name("spend"), Digest::of(b"EUR"));
        self.draws.push(Draw { budget, key, amount: decimal(amount), until: at(until) });
        self
    }

    pub fn by(mut self, actor: &str) -> Self {
        self.actor = name(actor);
        self
    }

    pub fn withheld(mut self) -> Self {
        self.withholds = true;
        self
    }
}

/// A PERMIT that is durable.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    pub id: ReceiptId,
    pub index: LeafIndex,
}

/// A claim's time, in seconds after the start.
const CLAIMED_UNTIL: u64 = 1_000;

impl<H: Harness> World<H> {
    pub fn new() -> Self {
        Self { harness: H::new(), surface: name("payments"), action: name("charge"), next: 0.into() }
    }

    pub fn restart(self) -> Self {
        let written = self.harness.written();
        Self { harness: H::restarted(&written), ..self }
    }

    fn asked<'a>(&'a self, request: &'a Request, now: u64) -> Asked<'a> {
        Asked {
            surface: &self.surface,
            action: &self.action,
            actor: &request.actor,
            digest: request.digest,
            key: request.key.as_ref(),
            draws: &request.draws,
            now: at(now),
        }
    }

    pub fn read(&self, request: &Request, now: u64) -> View {
        wait(self.harness.state().read(self.asked(request, now)))
    }

    /// Takes what a PERMIT takes, on what was read.
    pub fn reserve(&self, id: u64, request: &Request, view: &View, now: u64) -> Result<Ticket, NotReserved> {
        let intent = Intent {
            asked: self.asked(request, now),
            read: &view.read,
            claim_until: request.key.as_ref().map(|_| at(CLAIMED_UNTIL)),
            approved_hold: view.hold.as_ref().filter(|hold| !hold.approvals.is_empty()).map(|hold| hold.id),
        };
        let id = self::id(id);
        wait(self.harness.state().reserve(id, intent))
    }

    pub fn open_hold(
        &self,
        id: u64,
        request: &Request,
        view: &View,
        now: u64,
    ) -> Result<Ticket, NotReserved> {
        let id = self::id(id);
        wait(self.harness.state().open_hold(id, self.asked(request, now), &view.read))
    }

    pub fn append(&self, change: Change) -> LeafIndex {
        let index = LeafIndex(self.next.replace(self.next.get() + 1));
        self.harness.apply(vec![(index, change)]);
        index
    }

    /// The leaf of the PERMIT is durable, then its ticket goes.
    pub fn durable(&self, ticket: Ticket, request: &Request, hold: Option<ReceiptId>, now: u64) -> Durable {
        let id = ticket.id;
        let index = self.append(self.permitted(&ticket, request, hold, now));
        drop(ticket);
        Durable { id, index }
    }

    fn permitted(&self, ticket: &Ticket, request: &Request, hold: Option<ReceiptId>, now: u64) -> Change {
        let reserved = |reserve: &crate::model::entry::Reserve| Reserved {
            budget: reserve.budget.clone(),
            key: reserve.key,
            amount: decimal(&reserve.amount),
            until: WallTime::parse_rfc3339(&reserve.until).expect("a time"),
        };
        Change::Permitted(Box::new(Permitted {
            id: ticket.id,
            surface: self.surface.clone(),
            actor: request.actor.clone(),
            digest: Some(request.digest).filter(|_| !request.withholds),
            claim: request.key.clone().map(|key| Claim { key, until: at(CLAIMED_UNTIL) }),
            reserves: ticket.reserves.iter().map(reserved).collect(),
            approved_hold: hold,
            at: at(now),
        }))
    }

    /// Reads, reserves, and has the leaf durable.
    pub fn permit(&self, id: u64, request: &Request, now: u64) -> Durable {
        let view = self.read(request, now);
        let hold = view.hold.as_ref().filter(|hold| !hold.approvals.is_empty()).map(|hold| hold.id);
        let ticket = self.reserve(id, request, &view, now).expect("nothing moved");
        self.durable(ticket, request, hold, now)
    }

    pub fn settle(&self, permit: Durable, status: OutcomeStatus, now: u64) -> LeafIndex {
        self.settle_by(permit, status, Settled::Gateway, now)
    }

    pub fn settle_by(&self, permit: Durable, status: OutcomeStatus, by: Settled, now: u64) -> LeafIndex {
        self.append(Change::Settled(Settlement {
            decision_id: permit.id,
            decision_index: permit.index,
            status,
            attestation: by,
            answer: (status == OutcomeStatus::Confirmed).then(|| Digest::of(b"answer")),
            at: at(now),
        }))
    }

    /// An ESCALATE, durable.
    pub fn hold(&self, id: u64, request: &Request, until: u64, now: u64) -> ReceiptId {
        let view = self.read(request, now);
        let ticket = self.open_hold(id, request, &view, now).expect("nothing moved");
        self.append(self.held(ticket.id, request, until, now));
        ticket.id
    }

    fn held(&self, id: ReceiptId, request: &Request, until: u64, now: u64) -> Change {
        Change::Held(Box::new(Held {
            id,
            surface: self.surface.clone(),
            action: self.action.clone(),
            actor: request.actor.clone(),
            digest: Some(request.digest).filter(|_| !request.withholds),
            until: at(until),
            at: at(now),
        }))
    }

    pub fn administer(&self, action: AdminAction, by: &str, of: Of, now: u64) -> LeafIndex {
        self.append(administered(action, by, of, now))
    }
}

/// What an operator acts on.
#[derive(Clone, Debug, Default)]
pub struct Of {
    pub surface: Option<SurfaceName>,
    pub actor: Option<ActorId>,
    pub hold: Option<ReceiptId>,
}

pub fn hold(id: ReceiptId) -> Of {
    Of { hold: Some(id), ..Of::default() }
}

fn administered(action: AdminAction, by: &str, of: Of, now: u64) -> Change {
    let Of { surface, actor, hold } = of;
    let by = OperatorEntry { id: by.into(), role: Role::Operator };
    let (reason, at) = (format!("{} it", action.as_str()).into(), at(now));
    Change::Administered(Box::new(Administered { action, by, surface, actor, hold, reason, at }))
}

fn state_of(view: &View) -> Option<&ClaimState> {
    view.claim.as_ref().map(|claim| &claim.state)
}

fn is_moved<T: std::fmt::Debug>(result: Result<T, NotReserved>, name: &str) {
    match result {
        Err(NotReserved::Moved(moved)) => assert_eq!(&*moved.name, name),
        other => panic!("{name} should have moved: {other:?}"),
    }
}

pub fn one_key_is_claimed_once<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10").keyed("k");
    let (first, second) = (world.read(&pay, 0), world.read(&pay, 0));
    assert_eq!(first.claim, None);
    let ticket = world.reserve(1, &pay, &first, 0).expect("free");
    is_moved(world.reserve(2, &pay, &second, 0), "claim");
    // Nor by one that reads what is pending.
    let third = world.read(&pay, 0);
    assert_eq!(state_of(&third), Some(&ClaimState::Running));
    is_moved(world.reserve(3, &pay, &third, 0), "claim");
    world.durable(ticket, &pay, None, 0);
    is_moved(world.reserve(4, &pay, &world.read(&pay, 0), 0), "claim");
    // Another actor's key is another key, and so is another key.
    world.permit(5, &pay.clone().by("other"), 0);
    world.permit(6, &pay.keyed("l"), 0);
}

pub fn a_claim_goes_on_with_its_outcome<H: Harness>() {
    let mut world = World::<H>::new();
    for (n, status) in [OutcomeStatus::Confirmed, OutcomeStatus::Failed].into_iter().enumerate() {
        let pay = request("10").keyed(&format!("k{n}"));
        let permit = world.permit(n as u64, &pay, 0);
        world = world.restart();
        assert_eq!(state_of(&world.read(&pay, 0)), Some(&ClaimState::Running));
        let outcome = world.settle(permit, status, 1);
        world = world.restart();
        let view = world.read(&pay, 1);
        let claim = view.claim.as_ref().expect("claimed");
        assert_eq!((claim.id, claim.same_request), (permit.id, SameRequest::Yes));
        let answer = (status == OutcomeStatus::Confirmed).then(|| Digest::of(b"answer"));
        assert_eq!(claim.state, ClaimState::Executed { status, decision: permit.index, outcome, answer });
        is_moved(world.reserve(9, &pay, &view, 1), "claim");
    }
}

pub fn other_bytes_under_one_key_are_told_apart<H: Harness>() {
    let world = World::<H>::new();
    let same = |world: &World<H>, body: &str, key: &str| {
        world.read(&request(body).keyed(key), 0).claim.expect("claimed").same_request
    };
    let pay = request("10").keyed("k");
    let ticket = world.reserve(1, &pay, &world.read(&pay, 0), 0).expect("free");
    assert_eq!((same(&world, "10", "k"), same(&world, "11", "k")), (SameRequest::Yes, SameRequest::No));
    world.durable(ticket, &pay, None, 0);
    assert_eq!((same(&world, "10", "k"), same(&world, "11", "k")), (SameRequest::Yes, SameRequest::No));
    // Where the leaf keeps the digest out it is known until the restart.
    world.permit(2, &request("10").keyed("w").withheld(), 0);
    assert_eq!((same(&world, "10", "w"), same(&world, "11", "w")), (SameRequest::Yes, SameRequest::No));
    let world = world.restart();
    assert_eq!((same(&world, "10", "k"), same(&world, "11", "k")), (SameRequest::Yes, SameRequest::No));
    assert_eq!(same(&world, "10", "w"), SameRequest::Unknown);
}

pub fn not_sent_frees_the_key<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10").keyed("k");
    let permit = world.permit(1, &pay, 0);
    world.settle(permit, OutcomeStatus::NotSent, 0);
    assert_eq!(world.read(&pay, 0).claim, None);
    let again = world.permit(2, &request("11").keyed("k"), 0);
    // A late word about the first one does nothing to the second.
    world.settle(permit, OutcomeStatus::NotSent, 0);
    assert_eq!(world.read(&pay, 0).claim.expect("claimed").id, again.id);
}

pub fn what_nobody_knows_is_claimed_for_ever<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10").keyed("k");
    let running = world.permit(1, &pay, 0);
    let late = CLAIMED_UNTIL * 1_000;
    assert_eq!(state_of(&world.read(&pay, late)), Some(&ClaimState::Running), "it may still be sent");
    world.settle(running, OutcomeStatus::Indeterminate, 1);
    let world = world.restart();
    // Other leaves, so that what has ended goes.
    for n in 0..20 {
        world.permit(10 + n, &request("x").keyed(&format!("x{n}")), late);
    }
    let view = world.read(&pay, late);
    assert_eq!(state_of(&view), Some(&ClaimState::Unknown { decision: running.index }));
    is_moved(world.reserve(2, &pay, &view, late), "claim");
    let outcome = world.settle_by(running, OutcomeStatus::Failed, Settled::Operator, 2);
    let executed = ClaimState::Executed {
        status: OutcomeStatus::Failed,
        decision: running.index,
        outcome,
        answer: None,
    };
    assert_eq!(state_of(&world.read(&pay, 3)), Some(&executed));
    let kept = |now| world.read(&pay, now).claim.is_some();
    assert!(kept(CLAIMED_UNTIL + 1), "as long as if it had been known at once");
    assert!(!kept(CLAIMED_UNTIL + 2));
}

pub fn an_executed_claim_ends_at_its_time<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10").keyed("k");
    world.settle(world.permit(1, &pay, 0), OutcomeStatus::Confirmed, 1);
    assert!(world.read(&pay, CLAIMED_UNTIL - 1).claim.is_some());
    assert_eq!(world.read(&pay, CLAIMED_UNTIL).claim, None);
    let again = world.permit(2, &pay, CLAIMED_UNTIL);
    assert_eq!(world.read(&pay, CLAIMED_UNTIL).claim.expect("claimed").id, again.id);
}

pub fn a_dropped_ticket_gives_everything_back<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10").keyed("k").drawing("10.00", 100);
    let held = world.hold(1, &pay, 500, 0);
    world.administer(AdminAction::Approve, "ann", hold(held), 0);
    let (before, written) = (world.read(&pay, 0), world.harness.written());
    let ticket = world.reserve(2, &pay, &before, 0).expect("free");
    let during = world.read(&pay, 0);
    assert!(during.claim.is_some() && during.hold.is_none());
    assert_eq!(during.budgets[0].in_flight, decimal("10.00"));
    assert_eq!(world.harness.written(), written, "what is pending is not written");
    drop(ticket);
    assert_eq!(world.read(&pay, 0), before);
    drop(world.reserve(3, &pay, &before, 0).expect("all of it is free again"));
}

pub fn a_ticket_that_outlives_its_leaf_gives_nothing_back<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10").keyed("k").drawing("10", 100);
    let ticket = world.reserve(1, &pay, &world.read(&pay, 0), 0).expect("free");
    let before = world.read(&pay, 0);
    world.append(world.permitted(&ticket, &pay, None, 0));
    assert_eq!(world.read(&pay, 0), before, "durable or not, it is the same to others: nothing moved");
    drop(ticket);
    assert_eq!(world.read(&pay, 0), before);
}

pub fn what_moved_since_it_was_read_reserves_nothing<H: Harness>() {
    let world = World::<H>::new();
    let draw = request("10").drawing("10", 100);
    let view = world.read(&draw, 0);
    let first = world.permit(1, &draw, 0);
    is_moved(world.reserve(2, &draw, &view, 0), "budget:spend");
    let view = world.read(&draw, 0);
    world.settle(first, OutcomeStatus::Confirmed, 0);
    is_moved(world.reserve(2, &draw, &view, 0), "budget:spend");
    let view = world.read(&draw, 99);
    is_moved(world.reserve(2, &draw, &view, 100), "budget:spend");
    // What it does not read at all has moved as well.
    let other = request("11");
    is_moved(world.reserve(2, &draw, &world.read(&other, 0), 0), "budget:spend");
    let plain = world.read(&request("10"), 0);
    world.hold(3, &request("10"), 100, 0);
    is_moved(world.reserve(2, &request("10"), &plain, 0), "approvals");
    assert_eq!(world.read(&draw, 0).budgets[0].in_flight, Decimal::ZERO);
    world.permit(4, &draw, 0);
}

pub fn an_outcome_settles_what_was_reserved<H: Harness>() {
    let draw = request("10").drawing("10.05", 100);
    let sums = |world: &World<H>| {
        let budget = world.read(&draw, 1).budgets.remove(0);
        (budget.spent, budget.in_flight)
    };
    let (nothing, taken) = (Decimal::ZERO, decimal("10.05"));
    for (status, then) in [
        (OutcomeStatus::Confirmed, (taken, nothing)),
        (OutcomeStatus::Failed, (nothing, nothing)),
        (OutcomeStatus::NotSent, (nothing, nothing)),
        (OutcomeStatus::Indeterminate, (nothing, taken)),
    ] {
        let world = World::<H>::new();
        let permit = world.permit(1, &draw, 0);
        let world = world.restart();
        assert_eq!(sums(&world), (nothing, taken));
        world.settle(permit, status, 1);
        let world = world.restart();
        assert_eq!(sums(&world), then, "{status:?}");
        // Settled is settled; only what is not known can become known.
        let again = if status == OutcomeStatus::Indeterminate { (taken, nothing) } else { then };
        world.settle_by(permit, OutcomeStatus::Confirmed, Settled::Operator, 1);
        world.settle_by(permit, OutcomeStatus::Failed, Settled::Operator, 1);
        assert_eq!(sums(&world), again, "{status:?}");
    }
}

pub fn a_reservation_counts_until_its_window_ends<H: Harness>() {
    let world = World::<H>::new();
    let (short, long) = (request("10").drawing("1.5", 100), request("10").drawing("20", 200));
    let unknown = world.permit(1, &short, 0);
    world.settle(unknown, OutcomeStatus::Indeterminate, 0);
    world.settle(world.permit(2, &long, 0), OutcomeStatus::Confirmed, 0);
    let sums = |world: &World<H>, now| {
        let budget = world.read(&short, now).budgets.remove(0);
        (budget.spent, budget.in_flight)
    };
    let zero = Decimal::ZERO;
    assert_eq!(sums(&world, 99), (decimal("20"), decimal("1.5")));
    assert_eq!(sums(&world, 100), (decimal("20"), zero));
    assert_eq!(sums(&world, 200), (zero, zero));
    // It ended before anyone knew: it counts in no window.
    world.permit(3, &request("11").drawing("4", 300), 150);
    world.settle_by(unknown, OutcomeStatus::Confirmed, Settled::UpstreamLog, 160);
    assert_eq!(sums(&world, 160), (decimal("20"), decimal("4")));
    assert_eq!(sums(&world, 200), (zero, decimal("4")));
}

pub fn sums_that_cannot_be_exact_are_refused<H: Harness>() {
    let world = World::<H>::new();
    let large = request("10").drawing("123456789", 100);
    let small = request("10").drawing("0.1", 100);
    world.permit(1, &large, 0);
    for too_fine in ["0.000000001", "79228162514264337593543950335"] {
        let asked = request("10").drawing(too_fine, 100);
        let refused = world.reserve(2, &asked, &world.read(&asked, 0), 0);
        assert!(matches!(refused, Err(NotReserved::Overflow(budget)) if budget.as_str() == "spend"));
    }
    world.permit(3, &small, 0);
    let world = World::<H>::new();
    for n in 1..=10 {
        world.permit(n, &small, 0);
    }
    assert_eq!(world.read(&small, 0).budgets[0].in_flight, decimal("1.0"), "ten tenths are one");
}

pub fn a_budget_of_n_permits_exactly_n_however_they_interleave<H: Harness>() {
    #[expect(clippy::large_enum_variant, reason = "five of them")]
    enum Client {
        Idle,
        HasRead(View),
        Reserved(Ticket),
        Sent(Durable),
    }
    const LIMIT: u64 = 3;
    let draw = request("1").drawing("1", 100);
    let steps = proptest::collection::vec((0usize..5, any::<u8>()), 0..80);
    proptest!(ProptestConfig::with_cases(64), |(steps in steps)| {
        let world = World::<H>::new();
        let mut clients: Vec<Client> = (0..5).map(|_| Client::Idle).collect();
        let (mut next, mut confirmed, mut unknown) = (0, 0, 0);
        for (n, how) in steps {
            clients[n] = match std::mem::replace(&mut clients[n], Client::Idle) {
                Client::Idle => Client::HasRead(world.read(&draw, 0)),
                Client::HasRead(view) => {
                    let budget = &view.budgets[0];
                    let is_permitted = budget.spent + budget.in_flight + Decimal::ONE <= Decimal::from(LIMIT);
                    next += 1;
                    match is_permitted.then(|| world.reserve(next, &draw, &view, 0)) {
                        Some(Ok(ticket)) => Client::Reserved(ticket),
                        Some(Err(_)) | None => Client::Idle,
                    }
                }
                Client::Reserved(ticket) if how < 64 => {
                    drop(ticket);
                    Client::Idle
                }
                Client::Reserved(ticket) => Client::Sent(world.durable(ticket, &draw, None, 0)),
                Client::Sent(permit) => {
                    let status = OutcomeStatus::ALL[usize::from(how) % 4];
                    confirmed += u64::from(status == OutcomeStatus::Confirmed);
                    unknown += u64::from(status == OutcomeStatus::Indeterminate);
                    world.settle(permit, status, 0);
                    Client::Idle
                }
            };
            let sent = clients.iter().filter(|c| matches!(c, Client::Reserved(_) | Client::Sent(_))).count();
            let budget = world.read(&draw, 0).budgets.remove(0);
            prop_assert_eq!(budget.spent, Decimal::from(confirmed));
            prop_assert_eq!(budget.in_flight, Decimal::from(unknown + sent as u64));
            prop_assert!(confirmed + unknown + sent as u64 <= LIMIT);
        }
        for client in clients {
            if let Client::Sent(permit) = client {
                world.settle(permit, OutcomeStatus::NotSent, 0);
            }
        }
        // What is left can be permitted, and not one more.
        let world = world.restart();
        let left = LIMIT - confirmed - unknown;
        for n in 0..left {
            prop_assert_eq!(world.read(&draw, 0).budgets[0].in_flight, Decimal::from(unknown + n));
            world.permit(1_000 + n, &draw, 0);
        }
        let budget = world.read(&draw, 0).budgets.remove(0);
        prop_assert_eq!(budget.spent + budget.in_flight, Decimal::from(LIMIT));
    });
}

pub fn approvals_are_used_once<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10");
    let held = world.hold(1, &pay, 500, 0);
    // Nobody approved: there is nothing to use.
    let view = world.read(&pay, 0);
    let intent = Intent {
        asked: world.asked(&pay, 0),
        read: &view.read,
        claim_until: None,
        approved_hold: Some(held),
    };
    is_moved(wait(world.harness.state().reserve(id(2), intent)), "approvals");
    world.administer(AdminAction::Approve, "ann", hold(held), 0);
    is_moved(world.reserve(2, &pay, &view, 0), "approvals");
    let world = world.restart();
    // Not of other bytes, and not by others.
    assert_eq!(world.read(&request("11"), 0).hold, None);
    assert_eq!(world.read(&pay.clone().by("other"), 0).hold, None);
    let (first, second) = (world.read(&pay, 0), world.read(&pay, 0));
    let approvals = &first.hold.as_ref().expect("held").approvals;
    assert_eq!(approvals.iter().map(|a| &*a.by).collect::<Vec<_>>(), ["ann"]);
    let ticket = world.reserve(3, &pay, &first, 0).expect("approved");
    is_moved(world.reserve(4, &pay, &second, 0), "approvals");
    assert_eq!(world.read(&pay, 0).hold, None);
    let permit = world.durable(ticket, &pay, Some(held), 0);
    is_moved(world.reserve(4, &pay, &second, 0), "approvals");
    world.settle(permit, OutcomeStatus::Failed, 0);
    let world = world.restart();
    assert_eq!(world.read(&pay, 0).hold, None);
    is_moved(world.reserve(5, &pay, &second, 0), "approvals");
}

pub fn not_sent_gives_approvals_back<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10");
    let held = world.hold(1, &pay, 500, 0);
    world.administer(AdminAction::Approve, "ann", hold(held), 0);
    let permit = world.permit(2, &pay, 0);
    assert_eq!(world.read(&pay, 0).hold, None);
    world.settle(permit, OutcomeStatus::Indeterminate, 0);
    let world = world.restart();
    assert_eq!(world.read(&pay, 0).hold, None, "it may have been carried out");
    let world = World::<H>::new();
    let held = world.hold(1, &pay, 500, 0);
    world.administer(AdminAction::Approve, "ann", hold(held), 0);
    world.settle(world.permit(2, &pay, 0), OutcomeStatus::NotSent, 0);
    let view = world.restart().read(&pay, 0);
    let back = view.hold.expect("given back");
    assert_eq!((back.id, back.approvals.len()), (held, 1));
}

pub fn one_operator_counts_once<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10");
    let held = world.hold(1, &pay, 500, 0);
    for by in ["ann", "ann", "bob"] {
        world.administer(AdminAction::Approve, by, hold(held), 0);
    }
    let approvals = world.read(&pay, 0).hold.expect("held").approvals;
    assert_eq!(approvals.iter().map(|a| &*a.by).collect::<Vec<_>>(), ["ann", "bob"]);
}

pub fn a_refused_hold_answers_until_its_time<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10");
    let held = world.hold(1, &pay, 500, 0);
    world.administer(AdminAction::Approve, "ann", hold(held), 0);
    let approved = world.read(&pay, 0);
    world.administer(AdminAction::Refuse, "bob", hold(held), 0);
    is_moved(world.reserve(2, &pay, &approved, 0), "approvals");
    let world = world.restart();
    let view = world.read(&pay, 499);
    assert_eq!(&*view.hold.as_ref().expect("held").refused.as_ref().expect("refused").by, "bob");
    is_moved(world.reserve(2, &pay, &view, 499), "approvals");
    is_moved(world.open_hold(3, &pay, &view, 499), "approvals");
    assert_eq!(world.read(&pay, 500).hold, None);
    world.hold(4, &pay, 900, 500);
    // One that nobody refused goes when the leaf says that it expired, and answers nobody from its time on.
    assert_eq!(world.read(&pay, 900).hold, None);
    world.administer(AdminAction::Expire, "gateway", hold(id(4)), 900);
    assert_eq!(world.read(&pay, 600).hold, None);
}

pub fn equal_requests_at_once_open_one_hold<H: Harness>() {
    let world = World::<H>::new();
    for (n, pay) in [request("10"), request("11").withheld()].into_iter().enumerate() {
        let n = n as u64 * 10;
        let (first, second) = (world.read(&pay, 0), world.read(&pay, 0));
        let ticket = world.open_hold(n, &pay, &first, 0).expect("none is open");
        is_moved(world.open_hold(n + 1, &pay, &second, 0), "approvals");
        is_moved(world.open_hold(n + 1, &pay, &world.read(&pay, 0), 0), "approvals");
        drop(ticket);
        let ticket = world.open_hold(n + 2, &pay, &world.read(&pay, 0), 0).expect("it was given back");
        world.append(world.held(ticket.id, &pay, 500, 0));
        drop(ticket);
        let view = world.read(&pay, 0);
        assert_eq!(view.hold.as_ref().map(|hold| hold.id), Some(id(n + 2)));
        is_moved(world.open_hold(n + 3, &pay, &view, 0), "approvals");
    }
}

pub fn freezes_have_one_version_and_an_order<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10");
    let version = |world: &World<H>| {
        let read = world.harness.versions().capture(&Clock::manual(at(0)), &["freezes".into()]);
        let item = read.watched.iter().find(|item| &*item.name == "freezes").expect("there from the start");
        item.version.to_string()
    };
    let scope = |world: &World<H>| match world.read(&pay, 0).restriction {
        Some(Restriction::Frozen { scope, .. }) => Some(scope),
        Some(Restriction::Quarantined { .. }) => panic!("nobody is in quarantine"),
        None => None,
    };
    let before = world.harness.versions().capture(&Clock::manual(at(0)), &["freezes".into()]);
    let of_actor = Of { actor: Some(pay.actor.clone()), ..Of::default() };
    let of_surface = Of { surface: Some(name("payments")), ..Of::default() };
    let elsewhere = Of { surface: Some(name("exports")), ..Of::default() };
    assert_eq!(scope(&world), None);
    let view = world.read(&pay, 0);
    world.administer(AdminAction::Freeze, "ann", of_actor.clone(), 0);
    assert!(world.harness.versions().validate(&before).is_err());
    assert_eq!(scope(&world), Some(Scope::Actor(pay.actor.clone())));
    is_moved(world.reserve(1, &pay, &view, 0), "freezes");
    world.administer(AdminAction::Freeze, "ann", of_surface.clone(), 0);
    assert_eq!(scope(&world), Some(Scope::Surface(name("payments"))));
    let last = world.administer(AdminAction::Freeze, "ann", Of::default(), 0);
    assert_eq!((scope(&world), version(&world)), (Some(Scope::All), last.to_string()));
    let world = world.restart();
    assert_eq!((scope(&world), version(&world)), (Some(Scope::All), last.to_string()));
    world.administer(AdminAction::Unfreeze, "ann", elsewhere, 0);
    assert_eq!(version(&world), last.to_string(), "nothing was frozen there");
    for of in [Of::default(), of_surface, of_actor] {
        assert!(scope(&world).is_some());
        let index = world.administer(AdminAction::Unfreeze, "ann", of, 0);
        assert_eq!(version(&world), index.to_string());
    }
    assert_eq!(scope(&world), None);
}

pub fn a_quarantine_stands_until_it_is_released<H: Harness>() {
    let world = World::<H>::new();
    let pay = request("10");
    let by = |world: &World<H>| match world.read(&pay, 0).restriction {
        Some(Restriction::Quarantined { by }) => Some(by),
        Some(Restriction::Frozen { .. }) => panic!("nothing is frozen"),
        None => None,
    };
    let quarantine =
        |n| Change::Quarantined { surface: name("payments"), actor: pay.actor.clone(), by: id(n), at: at(0) };
    let before = world.harness.versions().capture(&Clock::manual(at(0)), &["freezes".into()]);
    world.append(quarantine(1));
    world.append(quarantine(2));
    assert_eq!(by(&world), Some(Some(id(1))), "the first cause stands");
    assert!(world.harness.versions().validate(&before).is_err());
    assert_eq!(world.read(&pay.clone().by("other"), 0).restriction, None);
    let world = world.restart();
    assert_eq!(by(&world), Some(Some(id(1))));
    let of = Of { surface: Some(name("payments")), actor: Some(pay.actor.clone()), hold: None };
    world.administer(AdminAction::Release, "ann", of.clone(), 0);
    assert_eq!(by(&world), None);
    world.administer(AdminAction::Quarantine, "ann", of, 0);
    assert_eq!(by(&world), Some(None));
}

/// Any changes, in any order, as no gateway would write them: of few actors, keys and budgets, so that they meet.
pub fn any_changes() -> impl Strategy<Value = Vec<(LeafIndex, Change)>> {
    proptest::collection::vec((0u8..14, any::<u8>(), any::<u8>(), any::<u8>()), 0..60).prop_map(|seeds| {
        let mut second = 0;
        let all = seeds.into_iter().enumerate().map(|(n, seed)| {
            second += u64::from(seed.3) % 8;
            // Not every leaf changes the state.
            (LeafIndex(n as u64 * 2), any_change(n as u64, seed, second))
        });
        all.collect()
    })
}

fn any_change(n: u64, (kind, a, b, c): (u8, u8, u8, u8), second: u64) -> Change {
    let (a, b, c) = (u64::from(a), u64::from(b), u64::from(c));
    let of = |n: u64, what: &str| format!("{what}{}", n % 2);
    let (surface, actor) = (name::<SurfaceName>(&of(a, "s")), name::<ActorId>(&of(b, "a")));
    // Of an earlier leaf, mostly.
    let earlier = n.saturating_sub(1 + a % 4);
    let admin = |action, of| administered(action, if b % 2 == 0 { "ann" } else { "bob" }, of, second);
    let place = Of {
        surface: Some(surface.clone()).filter(|_| a % 4 > 0),
        actor: Some(actor.clone()).filter(|_| b % 4 > 1),
        hold: None,
    };
    let both = Of { surface: Some(surface.clone()), actor: Some(actor.clone()), hold: None };
    let digest = (c % 3 > 0).then(|| Digest::of(&[(c % 2) as u8]));
    match kind {
        0..=3 => {
            let reserve = |n: u64| Reserved {
                budget: name::<BudgetName>(&of(n, "b")),
                key: Digest::of(&[(n % 3) as u8]),
                amount: Decimal::new((n * 7 % 500) as i64, (n % 3) as u32),
                until: at(second + 2 + n % 4 * 8),
            };
            let key = || name::<IdempotencyKey>(&format!("k{}", c % 4));
            Change::Permitted(Box::new(Permitted {
                id: id(n),
                surface,
                actor,
                digest,
                claim: (a % 4 > 0).then(|| Claim { key: key(), until: at(second + c % 20) }),
                reserves: [b, c].into_iter().take((a % 3) as usize).map(reserve).collect(),
                approved_hold: (b % 3 == 0).then(|| id(earlier)),
                at: at(second),
            }))
        }
        4..=7 => Change::Settled(Settlement {
            decision_id: id(earlier),
            decision_index: LeafIndex(earlier * 2),
            status: OutcomeStatus::ALL[(b % 4) as usize],
            attestation: if c % 2 == 0 { Settled::Gateway } else { Settled::Operator },
            answer: digest,
            at: at(second),
        }),
        8 => Change::Held(Box::new(Held {
            id: id(n),
            surface,
            action: name("charge"),
            actor,
            digest,
            until: at(second + c % 20),
            at: at(second),
        })),
        9 => admin(
            [AdminAction::Approve, AdminAction::Refuse, AdminAction::Expire][(c % 3) as usize],
            hold(id(earlier)),
        ),
        10 => admin(if c % 2 == 0 { AdminAction::Freeze } else { AdminAction::Unfreeze }, place),
        11 => admin(if c % 2 == 0 { AdminAction::Quarantine } else { AdminAction::Release }, both),
        12 => Change::Quarantined { surface, actor, by: id(n), at: at(second) },
        _ => Change::Activated(Activated {
            revision: Digest::of(&[(a % 5) as u8]),
            version: (b % 4 > 0).then_some(b % 9),
        }),
    }
}

pub fn a_restart_and_a_replay_give_the_same_state<H: Harness>() {
    proptest!(|(changes in any_changes(), cut in any::<prop::sample::Index>(), piece in 1usize..5)| {
        let whole = H::new();
        whole.apply(changes.clone());
        let cut = cut.index(changes.len() + 1);
        let before = H::new();
        changes[..cut].chunks(piece).for_each(|some| before.apply(some.to_vec()));
        let after = H::restarted(&before.written());
        prop_assert_eq!(after.written(), before.written());
        // Leaves that were applied before the restart change nothing.
        after.apply(changes[cut.saturating_sub(2)..].to_vec());
        prop_assert_eq!(after.written(), whole.written());
    });
}

/// The names of a view's items, as receipts will have them.
pub fn item_names(view: &View) -> Vec<Arc<str>> {
    view.read.iter().map(|item| item.name.clone()).collect()
}
