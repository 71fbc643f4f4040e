//! The embedded state: a fold of the ledger's leaves, and what is taken for leaves that are not durable yet.
//!
//! Everything in [`Folded`] comes from leaves and their times alone, so equal leaves give equal states; what has ended is
//! passed over when it is read and leaves memory when a later leaf arrives. The maps are persistent: a snapshot is a
//! clone that costs nothing, and is written out on another thread while the original goes on.
//!
//! One lock, held for some lookups and never while something is waited for. The version of the freezes is set after the
//! lock is given back: setting it waits for messages whose first byte is just leaving (`versions`). Who is to be told of
//! a freeze or a quarantine that it stands is told only after that ([`Fold::restrictions`]).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imbl::OrdMap;
use rust_decimal::Decimal;

use super::super::budget::{add, exact_number};
use super::super::versions::{Moved, Versions};
use super::budgets::{BudgetKey, Budgets, Sums, Taken};
use super::changes::{Changes, Stirring};
use super::claims::{Claim, ClaimKey, Claims, Executed, Progress, RequestDigest};
use super::holds::{Hold, HoldStatus, Holds, RequestKey};
use super::overlay::{Overlay, Pending};
use super::restrictions::{Cause, Freeze, Quarantine, RestrictionStatus, Restrictions};
use super::snapshot;
use super::{
    Answer, Approval, Asked, BudgetView, ClaimState, ClaimView, Intent, NotReserved, Scope, State, Ticket,
    View,
};
use crate::clock::WallTime;
use crate::ledger::Follower;
use crate::limits;
use crate::model::entry::{AdminAction, Reserve};
use crate::model::{
    Activations, Administered, Change, Held, LeafIndex, OutcomeStatus, Permitted, ReadItem, ReceiptId,
    Settlement, TreeSize,
};

/// Name and first version of what freezes and quarantines share in a read set.
const FREEZES: &str = "freezes";
const NEVER: &str = "none";

/// See the module's text. Cheap to share; every method is quick and none waits.
pub struct Fold {
    shared: Arc<Shared>,
    versions: Versions,
    /// Held from before a change is in the state until its version has moved.
    telling: Mutex<()>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Moves with every change of a hold.
    hold_changes: Arc<Stirring>,
}

#[derive(Default)]
struct Inner {
    folded: Folded,
    overlay: Overlay,
    seen: Seen,
}

/// What leaves said. Equal leaves give equal values.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// The last leaf that changed something here.
    pub applied: Option<LeafIndex>,
    pub claims: Claims,
    pub budgets: Budgets,
    pub holds: Holds,
    pub restrictions: Restrictions,
    /// What had ended by then may have left memory: what counted before it is not known any more.
    pub forgotten: WallTime,
    /// PERMITs that took something and have no final outcome, by leaf.
    pub open: OrdMap<LeafIndex, Open>,
    /// Decisions whose outcome is not known, by leaf.
    pub unknown: OrdMap<LeafIndex, Unknown>,
    pub activations: Activations,
}

impl Default for Folded {
    fn default() -> Self {
        Self {
            applied: None,
            claims: Claims::default(),
            budgets: Budgets::default(),
            holds: Holds::default(),
            restrictions: Restrictions::default(),
            forgotten: WallTime::from_unix_ns(0),
            open: OrdMap::default(),
            unknown: OrdMap::default(),
            activations: Activations::default(),
        }
    }
}

/// What a PERMIT took.
#[derive(Clone, Debug, PartialEq)]
pub struct Open {
    pub id: ReceiptId,
    pub claim: Option<ClaimKey>,
    pub reserves: Vec<Taken>,
    pub approved_hold: Option<ReceiptId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub id: ReceiptId,
    pub at: WallTime,
}

/// An outcome that nobody knows, until it is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOutcome {
    pub decision_id: ReceiptId,
    pub decision_index: LeafIndex,
    /// When the outcome was recorded.
    pub at: WallTime,
}

/// How much the state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    pub claims: usize,
    pub budget_keys: usize,
    pub holds: usize,
    pub open: usize,
    pub unknown: usize,
}

/// Which sums have been read of which key: a version stands for a value, and moves only when the value does.
#[derive(Default)]
struct Seen {
    versions: BTreeMap<BudgetKey, (Sums, u64)>,
    last: u64,
}

/// A change that others wait for.
#[derive(Default)]
struct Stirred {
    holds: bool,
    restrictions: bool,
}

impl Fold {
    /// The state of an empty log. Sets the version `freezes` in `versions` from now on.
    pub fn new(versions: Versions) -> Arc<Self> {
        versions.set(FREEZES, NEVER);
        let shared = Shared { inner: Mutex::default(), hold_changes: Arc::default() };
        Arc::new(Self { shared: Arc::new(shared), versions, telling: Mutex::default() })
    }

    /// All holds that are open, refused, in use, or past their time without a leaf that says so; oldest first.
    pub fn holds(&self, now: WallTime) -> Vec<HoldStatus> {
        let holds = self.shared.lock().folded.holds.clone();
        holds.statuses(now)
    }

    pub fn hold(&self, id: ReceiptId, now: WallTime) -> Option<HoldStatus> {
        self.shared.lock().folded.holds.status(id, now)
    }

    /// Holds past their time whose expiry is not recorded, and that nothing uses: also no PERMIT that is about to be
    /// recorded.
    pub fn expired_holds(&self, now: WallTime) -> Vec<ReceiptId> {
        let inner = self.shared.lock();
        inner.folded.holds.expired(now, |id| inner.overlay.is_used(id))
    }

    /// Whether this is one of [`Fold::expired_holds`].
    pub fn has_expired(&self, hold: ReceiptId, now: WallTime) -> bool {
        let inner = self.shared.lock();
        inner.folded.holds.is_expired(hold, now, |id| inner.overlay.is_used(id))
    }

    /// Freezes, then quarantines, each in the order of what they close. Nothing that was permitted before one of them
    /// starts after this has returned: waits for a version that is about to move.
    pub fn restrictions(&self) -> Vec<RestrictionStatus> {
        let _told = self.tell();
        let restrictions = self.shared.lock().folded.restrictions.clone();
        restrictions.statuses()
    }

    /// Decisions whose outcome is not known, oldest first.
    pub fn unknown(&self) -> Vec<UnknownOutcome> {
        self.unknown_after(None, usize::MAX)
    }

    /// The first of them, at most so many, after the decision of this leaf.
    pub fn unknown_after(&self, after: Option<LeafIndex>, max: usize) -> Vec<UnknownOutcome> {
        let unknown = self.shared.lock().folded.unknown.clone();
        let of = |(index, Unknown { id, at }): (&LeafIndex, &Unknown)| UnknownOutcome {
            decision_id: *id,
            decision_index: *index,
            at: *at,
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        unknown.range((from, Bound::Unbounded)).take(max).map(of).collect()
    }

    /// Whether the decision of this leaf has an outcome that is not known.
    pub fn is_unknown(&self, decision: LeafIndex) -> bool {
        self.shared.lock().folded.unknown.contains_key(&decision)
    }

    /// What policy was active, as far as the log goes.
    pub fn activations(&self) -> Activations {
        self.shared.lock().folded.activations
    }

    pub fn population(&self) -> Population {
        let inner = self.shared.lock();
        let Folded { claims, budgets, holds, open, unknown, .. } = &inner.folded;
        Population {
            claims: claims.len(),
            budget_keys: budgets.len(),
            holds: holds.len(),
            open: open.len(),
            unknown: unknown.len(),
        }
    }

    /// Moves whenever a hold was opened, approved, refused, used, given back or has expired. Whoever waits for one hold:
    /// take this, read the state, wait for a change, read again.
    pub fn hold_changes(&self) -> Changes {
        self.shared.hold_changes.changes()
    }

    /// What was reserved for the decision is given back when the ticket drops, if it is there still.
    fn ticket(&self, id: ReceiptId, reserves: Vec<Reserve>) -> Ticket {
        let shared = Arc::clone(&self.shared);
        let give_back = move || {
            let pending = shared.lock().overlay.remove(id);
            if pending.is_some_and(|pending| pending.approved_hold.is_some() || pending.holds.is_some()) {
                shared.stir_holds();
            }
        };
        Ticket::new(id, reserves, Box::new(give_back))
    }

    fn tell(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others learn of it, after the lock was given back.
    fn stir(&self, stirred: Stirred) {
        if stirred.restrictions {
            let changed = self.shared.lock().folded.restrictions.changed;
            let version = changed.map_or_else(|| NEVER.to_owned(), |index| index.to_string());
            self.versions.set(FREEZES, &version);
        }
        if stirred.holds {
            self.shared.stir_holds();
        }
    }

    fn replace(&self, folded: Folded) {
        let _telling = self.tell();
        *self.shared.lock() = Inner { folded, ..Inner::default() };
        self.stir(Stirred { holds: true, restrictions: true });
    }
}

impl fmt::Debug for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fold").field("population", &self.population()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stir_holds(&self) {
        self.hold_changes.tell();
    }
}

impl State for Fold {
    fn read<'s>(&'s self, asked: Asked<'s>) -> Answer<'s, View> {
        Box::pin(std::future::ready(self.shared.lock().view(&asked)))
    }

    fn reserve<'s>(&'s self, id: ReceiptId, intent: Intent<'s>) -> Answer<'s, Result<Ticket, NotReserved>> {
        let reserved = self.shared.lock().reserve(id, &intent);
        Box::pin(std::future::ready(reserved.map(|reserves| self.ticket(id, reserves))))
    }

    fn open_hold<'s>(
        &'s self,
        id: ReceiptId,
        asked: Asked<'s>,
        read: &'s [ReadItem],
    ) -> Answer<'s, Result<Ticket, NotReserved>> {
        let opened = self.shared.lock().open_hold(id, &asked, read);
        Box::pin(std::future::ready(opened.map(|()| self.ticket(id, Vec::new()))))
    }
}

impl Follower for Fold {
    fn apply(&self, changes: Vec<(LeafIndex, Change)>, _: TreeSize) {
        let mut stirred = Stirred::default();
        let _telling = self.tell();
        let mut inner = self.shared.lock();
        for (index, change) in changes {
            inner.apply(index, change, &mut stirred);
        }
        drop(inner);
        self.stir(stirred);
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let folded = self.shared.lock().folded.clone();
        Box::new(move || snapshot::write(&folded))
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        match snapshot::read(bytes) {
            Ok(folded) => {
                self.replace(folded);
                Ok(())
            }
            Err(why) => {
                self.clear();
                Err(why.to_string())
            }
        }
    }

    fn clear(&self) {
        self.replace(Folded::default());
    }
}

fn moved(name: &str) -> NotReserved {
    NotReserved::Moved(Moved { name: name.into() })
}

const CLAIM: &str = "claim";
const APPROVALS: &str = "approvals";

fn item(name: impl Into<Arc<str>>, version: String) -> ReadItem {
    ReadItem { age_ms: 0, name: name.into(), version: version.into() }
}

/// Whether each of these was read as it is now.
fn compare<'i>(
    current: impl IntoIterator<Item = &'i ReadItem>,
    read: &[ReadItem],
) -> Result<(), NotReserved> {
    let is_same = |own: &ReadItem| read.iter().any(|r| r.name == own.name && r.version == own.version);
    match current.into_iter().find(|own| !is_same(own)) {
        Some(changed) => Err(moved(&changed.name)),
        None => Ok(()),
    }
}

fn budget_keys(asked: &Asked<'_>) -> impl Iterator<Item = BudgetKey> {
    asked.draws.iter().map(|draw| BudgetKey {
        surface: asked.surface.clone(),
        budget: draw.budget.clone(),
        key: draw.key,
    })
}

/// A time as a leaf has it.
fn in_microseconds(time: WallTime) -> WallTime {
    WallTime::from_unix_ns(time.unix_ns() / 1_000 * 1_000)
}

impl Inner {
    fn view(&mut self, asked: &Asked<'_>) -> View {
        let mut read = Vec::with_capacity(2 + asked.draws.len());
        let claim = ClaimKey::asked(asked).and_then(|key| self.claim(key, asked));
        if asked.key.is_some() {
            read.push(item(CLAIM, claim_version(claim.as_ref())));
        }
        let (folded, overlay) = (&self.folded, &self.overlay);
        let request = RequestKey::asked(asked);
        let hold = folded.holds.find(request, asked.now, |id| overlay.is_used(id));
        let version = match (&hold, overlay.opens_hold(request)) {
            (Some((id, hold)), _) => format!("{id}/{}", hold.changed),
            (None, Some(opening)) => format!("{opening}/opening"),
            (None, None) => "none".to_owned(),
        };
        read.push(item(APPROVALS, version));
        let hold = hold.map(|(id, hold)| hold.view(id));
        let restriction = folded.restrictions.find(asked.surface, asked.actor);
        let mut budgets = Vec::with_capacity(asked.draws.len());
        for key in budget_keys(asked) {
            // Past the bound nothing more can be reserved: the largest sum says so.
            let sums =
                self.sums(&key, asked.now).unwrap_or(Sums { spent: Decimal::MAX, in_flight: Decimal::MAX });
            let Sums { spent, in_flight } = sums;
            let version = self.version(&key, sums);
            read.push(item(format!("budget:{}", key.budget), version));
            budgets.push(BudgetView { budget: key.budget, spent, in_flight });
        }
        View { claim, hold, budgets, restriction, read }
    }

    fn claim(&self, key: ClaimKey, asked: &Asked<'_>) -> Option<ClaimView> {
        match self.overlay.claim(key) {
            Some((id, pending)) => {
                let same_request = RequestDigest::Remembered(pending.digest).is(asked.digest);
                Some(ClaimView { id, same_request, state: ClaimState::Running })
            }
            None => self.folded.claims.find(key, asked.now).map(|claim| claim.view(asked.digest)),
        }
    }

    fn sums(&self, key: &BudgetKey, now: WallTime) -> Option<Sums> {
        self.overlay.add_to(self.folded.budgets.sums(key, now), key, now)
    }

    fn version(&mut self, key: &BudgetKey, sums: Sums) -> String {
        // Keys whose sums ended are not read again, perhaps never.
        let kept = self.folded.budgets.len() + self.overlay.budget_keys().len();
        self.seen.version(key, sums, kept)
    }

    fn reserve(&mut self, id: ReceiptId, intent: &Intent<'_>) -> Result<Vec<Reserve>, NotReserved> {
        let Intent { asked, read, claim_until, approved_hold } = intent;
        if asked.now < self.folded.forgotten {
            return Err(NotReserved::Forgotten);
        }
        let view = self.view(asked);
        compare(&view.read, read)?;
        if view.restriction.is_some() {
            return Err(moved(FREEZES));
        }
        let claim = ClaimKey::asked(asked).filter(|_| claim_until.is_some());
        if claim.is_some() && view.claim.is_some() {
            return Err(moved(CLAIM));
        }
        if let Some(used) = approved_hold {
            let is_approved = |hold: &super::HoldView| {
                hold.id == *used && hold.refused.is_none() && !hold.approvals.is_empty()
            };
            view.hold.as_ref().filter(|hold| is_approved(hold)).ok_or_else(|| moved(APPROVALS))?;
        }
        if claim.is_some()
            && !self.folded.claims.has_room(self.folded.forgotten_at(asked.now), self.overlay.claims())
        {
            return Err(NotReserved::Full);
        }
        let reserves = self.take(asked)?;
        let written = |taken: &Taken| Reserve {
            amount: taken.amount.to_string().into(),
            budget: taken.key.budget.clone(),
            key: taken.key.key,
            until: taken.until.rfc3339().into(),
        };
        let leaf = reserves.iter().map(written).collect();
        let pending =
            Pending { digest: asked.digest, claim, reserves, approved_hold: *approved_hold, holds: None };
        self.overlay.insert(id, pending);
        Ok(leaf)
    }

    /// What the draws take, if all of it can be counted.
    fn take(&self, asked: &Asked<'_>) -> Result<Vec<Taken>, NotReserved> {
        let mut totals: BTreeMap<BudgetKey, Decimal> = BTreeMap::new();
        let mut reserves = Vec::with_capacity(asked.draws.len());
        for (key, draw) in budget_keys(asked).zip(asked.draws) {
            let overflow = || NotReserved::Overflow(key.budget.clone());
            let before = match totals.get(&key) {
                Some(total) => *total,
                None => self.sums(&key, asked.now).and_then(Sums::total).ok_or_else(overflow)?,
            };
            let total = add(before, draw.amount).ok_or_else(overflow)?;
            // A sum that policy could not be told would refuse everybody after this one.
            exact_number(total).ok_or_else(overflow)?;
            totals.insert(key.clone(), total);
            reserves.push(Taken { key, amount: draw.amount, until: in_microseconds(draw.until) });
        }
        let is_new = |key: &&BudgetKey| !self.folded.budgets.has(key);
        let pending = self.overlay.budget_keys().filter(is_new).count();
        let more = totals.keys().filter(is_new).filter(|key| !self.overlay.has_budget(key)).count();
        let has_room =
            more == 0 || self.folded.budgets.has_room(self.folded.forgotten_at(asked.now), pending + more);
        if has_room { Ok(reserves) } else { Err(NotReserved::Full) }
    }

    fn open_hold(&mut self, id: ReceiptId, asked: &Asked<'_>, read: &[ReadItem]) -> Result<(), NotReserved> {
        let view = self.view(asked);
        compare(view.read.iter().filter(|item| &*item.name == APPROVALS), read)?;
        let request = RequestKey::asked(asked);
        if view.hold.is_some() || self.overlay.opens_hold(request).is_some() {
            return Err(moved(APPROVALS));
        }
        if !self.folded.holds.has_room(self.overlay.holds()) {
            return Err(NotReserved::Full);
        }
        let (claim, reserves, approved_hold) = (None, Vec::new(), None);
        let pending = Pending { digest: asked.digest, claim, reserves, approved_hold, holds: Some(request) };
        self.overlay.insert(id, pending);
        Ok(())
    }

    /// A leaf that was applied already changes nothing.
    fn apply(&mut self, index: LeafIndex, change: Change, stirred: &mut Stirred) {
        if self.folded.applied >= Some(index) {
            return;
        }
        self.folded.applied = Some(index);
        let restrictions = self.folded.restrictions.changed;
        match change {
            Change::Permitted(permitted) => {
                let remembered = self.overlay.remove(permitted.id).map(|pending| pending.digest);
                stirred.holds |= permitted.approved_hold.is_some();
                let request = RequestDigest::new(permitted.digest, remembered);
                self.folded.permit(index, *permitted, request);
            }
            Change::Held(held) => {
                let remembered = self.overlay.remove(held.id).map(|pending| pending.digest);
                stirred.holds = true;
                let request = RequestDigest::new(held.digest, remembered);
                self.folded.hold(index, *held, request);
            }
            Change::Quarantined { surface, actor, by, at } => {
                let quarantine = Quarantine { cause: Cause::Decision(by), at, index };
                self.folded.restrictions.quarantine(surface, actor, quarantine);
                self.folded.prune(at);
            }
            Change::Settled(settlement) => stirred.holds |= self.folded.settle(index, settlement),
            Change::Administered(administered) => {
                stirred.holds |= self.folded.administer(index, *administered);
            }
            Change::Activated(activated) => self.folded.activations.take(index, activated),
        }
        stirred.restrictions |= self.folded.restrictions.changed != restrictions;
    }
}

fn claim_version(claim: Option<&ClaimView>) -> String {
    match claim {
        None => "free".to_owned(),
        Some(ClaimView { id, state, .. }) => match state {
            ClaimState::Running => format!("{id}/running"),
            ClaimState::Unknown { .. } => format!("{id}/unknown"),
            ClaimState::Executed { .. } => format!("{id}/executed"),
        },
    }
}

/// Versions that are remembered beyond those of keys that something is taken of.
const SEEN_BESIDE_MAX: usize = 1_024;

impl Seen {
    /// Of a key with these sums. Equal only to one that was given for equal sums.
    fn version(&mut self, key: &BudgetKey, sums: Sums, kept: usize) -> String {
        if sums == Sums::ZERO {
            self.versions.remove(key);
            return "0".to_owned();
        }
        if let Some((known, version)) = self.versions.get(key)
            && *known == sums
        {
            return version.to_string();
        }
        if self.versions.len() > kept + SEEN_BESIDE_MAX {
            // Whoever read one of them reads again.
            self.versions.clear();
        }
        self.last += 1;
        self.versions.insert(key.clone(), (sums, self.last));
        self.last.to_string()
    }
}

impl Folded {
    /// How far a decision of this time lets the state forget. Never back: what is gone is gone.
    fn forgotten_at(&self, at: WallTime) -> WallTime {
        let kept_ns = limits::ENDED_KEPT_MS * 1_000_000;
        self.forgotten.max(WallTime::from_unix_ns(at.unix_ns().saturating_sub(kept_ns)))
    }

    /// At a decision: only those are made by a clock that was looked at (`pep`), and only those make the state larger.
    fn prune(&mut self, at: WallTime) {
        self.forgotten = self.forgotten_at(at);
        self.claims.prune(self.forgotten);
        self.budgets.prune(self.forgotten);
        self.holds.prune(at);
    }

    fn permit(&mut self, index: LeafIndex, permitted: Permitted, request: RequestDigest) {
        let Permitted { id, surface, actor, claim, reserves, approved_hold, at, digest: _ } = permitted;
        self.prune(at);
        let claim = claim.map(|claim| {
            let key = ClaimKey::of(&surface, &actor, &claim.key);
            let progress = Progress::Running;
            self.claims.insert(
                key,
                Claim { id, decision: index, digest: request, at, until: claim.until, progress },
            );
            key
        });
        let mut taken = Vec::with_capacity(reserves.len());
        for reserved in reserves {
            let key = BudgetKey { surface: surface.clone(), budget: reserved.budget, key: reserved.key };
            let reserve = Taken { key, amount: reserved.amount, until: reserved.until };
            if self.budgets.reserve(&reserve, self.forgotten) {
                taken.push(reserve);
            }
        }
        if let Some(hold) = approved_hold {
            self.holds.set_used(hold, Some(id), index);
        }
        self.open.insert(index, Open { id, claim, reserves: taken, approved_hold });
    }

    fn hold(&mut self, index: LeafIndex, held: Held, request: RequestDigest) {
        let Held { id, surface, action, actor, until, at, digest: _ } = held;
        self.prune(at);
        let (approvals, refused, used_by) = (Vec::new(), None, None);
        let (opened, changed) = (index, index);
        let hold =
            Hold { surface, action, actor, request, opened, changed, at, until, approvals, refused, used_by };
        self.holds.insert(id, hold);
    }

    /// Whether a hold was changed by it.
    fn settle(&mut self, index: LeafIndex, settlement: Settlement) -> bool {
        let Settlement { decision_id: id, decision_index, status, attestation: _, answer, at } = settlement;
        let open = self.open.get(&decision_index).filter(|open| open.id == id).cloned();
        if status == OutcomeStatus::Indeterminate {
            // All that was taken stays taken, until someone knows.
            self.unknown.insert(decision_index, Unknown { id, at });
            if let Some(key) = open.and_then(|open| open.claim) {
                self.claims.progress(key, id, Progress::Unknown, at);
            }
            return false;
        }
        self.unknown.remove(&decision_index);
        let Some(Open { claim, reserves, approved_hold, .. }) = open else { return false };
        self.open.remove(&decision_index);
        let is_carried_out = status != OutcomeStatus::NotSent;
        for taken in &reserves {
            match status {
                OutcomeStatus::Confirmed => self.budgets.spend(taken),
                OutcomeStatus::NotSent | OutcomeStatus::Failed | OutcomeStatus::Indeterminate => {
                    self.budgets.release(taken);
                }
            }
        }
        match (claim, is_carried_out) {
            (Some(key), true) => {
                let executed = Executed { status, outcome: index, answer };
                self.claims.progress(key, id, Progress::Executed(executed), at);
            }
            (Some(key), false) => self.claims.free(key, id),
            (None, _) => {}
        }
        match (approved_hold, is_carried_out) {
            (Some(hold), true) => self.holds.remove(hold),
            (Some(hold), false) => self.holds.set_used(hold, None, index),
            (None, _) => false,
        }
    }

    /// Whether a hold was changed by it.
    fn administer(&mut self, index: LeafIndex, administered: Administered) -> bool {
        let Administered { action, by, surface, actor, hold, reason, at } = administered;
        match action {
            AdminAction::Freeze => {
                let freeze = Freeze { by: by.id, reason, at, index };
                for scope in scopes(surface, actor) {
                    self.restrictions.freeze(scope, freeze.clone());
                }
            }
            AdminAction::Unfreeze => {
                for scope in scopes(surface, actor) {
                    self.restrictions.unfreeze(&scope, index);
                }
            }
            AdminAction::Quarantine => {
                if let (Some(surface), Some(actor)) = (surface, actor) {
                    let quarantine = Quarantine { cause: Cause::Operator { by: by.id, reason }, at, index };
                    self.restrictions.quarantine(surface, actor, quarantine);
                }
            }
            AdminAction::Release => {
                if let (Some(surface), Some(actor)) = (surface, actor) {
                    self.restrictions.release(surface, actor, index);
                }
            }
            AdminAction::Approve | AdminAction::Refuse | AdminAction::Expire => {
                let word = Approval { by: by.id, role: by.role, at, reason };
                return hold.is_some_and(|hold| self.say(action, hold, word, index));
            }
        }
        false
    }

    fn say(&mut self, action: AdminAction, hold: ReceiptId, word: Approval, index: LeafIndex) -> bool {
        match action {
            AdminAction::Approve => self.holds.approve(hold, word, index),
            AdminAction::Refuse => {
                // Its approvals may be on their way to the wire: what rests on them is judged again.
                self.restrictions.changed = Some(index);
                self.holds.refuse(hold, word, index)
            }
            AdminAction::Expire => {
                if self.holds.is_approved(hold) {
                    // As above: a decision may have read them just before.
                    self.restrictions.changed = Some(index);
                }
                self.holds.remove(hold)
            }
            AdminAction::Freeze | AdminAction::Unfreeze | AdminAction::Quarantine | AdminAction::Release => {
                false
            }
        }
    }
}

/// What a freeze closes: everything, or each that it names.
fn scopes(surface: Option<crate::model::SurfaceName>, actor: Option<crate::model::ActorId>) -> Vec<Scope> {
    let named: Vec<Scope> = surface.map(Scope::Surface).into_iter().chain(actor.map(Scope::Actor)).collect();
    if named.is_empty() { vec![Scope::All] } else { named }
}

const _: () = assert!(limits::CLAIMS_MAX > limits::PERMITS_IN_FLIGHT_MAX);

#[cfg(test)]
mod tests {
    use super::super::conformance::{
        Harness, Of, Request, World, any_changes, at, conformance, decimal, hold, id, item_names, name,
        request,
    };
    use super::*;
    use crate::model::{Claim as ClaimOf, Digest};
    use proptest::prelude::*;

    struct Embedded {
        fold: Arc<Fold>,
        versions: Versions,
    }

    impl Harness for Embedded {
        fn new() -> Self {
            let versions = Versions::new();
            Self { fold: Fold::new(versions.clone()), versions }
        }

        fn state(&self) -> &dyn State {
            &*self.fold
        }

        fn versions(&self) -> &Versions {
            &self.versions
        }

        fn apply(&self, changes: Vec<(LeafIndex, Change)>) {
            let size = changes.last().map_or(0, |(index, _)| index.0 + 1);
            self.fold.apply(changes, TreeSize(size));
        }

        fn written(&self) -> Vec<u8> {
            self.fold.snapshot()()
        }

        fn restarted(written: &[u8]) -> Self {
            let new = Self::new();
            new.fold.restore(written).expect("a snapshot");
            new
        }
    }

    type Log = World<Embedded>;

    conformance! { Embedded }

    /// Claims, budgets, holds, in numbers.
    fn counts(world: &Log) -> (usize, usize, usize) {
        let Population { claims, budget_keys, holds, .. } = world.harness.fold.population();
        (claims, budget_keys, holds)
    }

    #[test]
    fn what_has_ended_leaves_memory_as_leaves_arrive() {
        let world = Log::new();
        for n in 0..100 {
            let mut pay = request("10").keyed(&format!("k{n}")).drawing("1", 10);
            pay.draws[0].key = Digest::of(&[n as u8]);
            world.settle(world.permit(n, &pay, 0), OutcomeStatus::Confirmed, 0);
            let held = world.hold(1_000 + n, &request(&format!("{n}")), 10, 0);
            world.administer(AdminAction::Refuse, "ann", hold(held), 0);
        }
        assert_eq!(counts(&world), (100, 100, 100));
        // Each is a decision, and keeps nothing itself.
        let later = 1_000 + limits::ENDED_KEPT_MS / 1_000;
        for n in 0..100_u64.div_ceil(limits::ENDED_PER_CHANGE_MAX as u64) {
            world.settle(world.permit(10_000 + n, &request("bare"), later), OutcomeStatus::NotSent, later);
        }
        assert_eq!(counts(&world), (0, 0, 0));
        assert_eq!(world.harness.fold.population(), Population::default());
    }

    #[test]
    fn holds_that_wait_for_their_leaf_do_not_keep_refused_ones_in_memory() {
        let world = Log::new();
        for n in 0..20 {
            world.hold(n, &request(&format!("open {n}")), 10, 0);
        }
        let refused = world.hold(100, &request("refused"), 11, 0);
        world.administer(AdminAction::Refuse, "ann", hold(refused), 0);
        world.permit(200, &request("bare"), 12);
        assert_eq!(world.harness.fold.hold(refused, at(12)), None);
        assert_eq!(world.harness.fold.expired_holds(at(12)).len(), 20);
    }

    /// Of leaves alone: the same after a restart.
    #[test]
    fn a_clock_that_was_ahead_and_is_set_back_frees_no_key_and_no_budget() {
        let kept = limits::ENDED_KEPT_MS / 1_000;
        let mut world = Log::new();
        let pay = request("10").keyed("k").drawing("4", 100);
        world.settle(world.permit(1, &pay, 0), OutcomeStatus::Confirmed, 0);
        // Ahead, by less than what is kept: both have ended, and are there again when it is set back.
        let ahead = world.read(&pay, 1_001);
        assert_eq!((ahead.claim, ahead.budgets[0].spent), (None, Decimal::ZERO));
        world.permit(2, &request("bare"), 100 + kept - 1);
        for _ in 0..2 {
            let back = world.read(&pay, 99);
            assert!(back.claim.is_some());
            assert_eq!(back.budgets[0].spent, decimal("4"));
            let moved = world.reserve(3, &pay, &back, 99);
            assert!(matches!(moved, Err(NotReserved::Moved(_))), "{moved:?}");
            world = world.restart();
        }
        // Ahead by more: it is gone from memory, and nothing is taken at a time that it counted in.
        for n in 0..2 {
            world.permit(10 + n, &request("bare"), 1_000 + kept);
        }
        for _ in 0..2 {
            for now in [50, 999] {
                let back = world.read(&pay, now);
                assert_eq!(back.claim, None);
                let refused = world.reserve(4, &pay, &back, now);
                assert!(matches!(refused, Err(NotReserved::Forgotten)), "{now}: {refused:?}");
            }
            world = world.restart();
        }
        let later = pay.clone().drawing("4", 5_000);
        drop(world.reserve(5, &later, &world.read(&later, 1_000), 1_000).expect("time has come there"));
    }

    #[test]
    fn outcomes_and_operators_let_nothing_be_forgotten() {
        let world = Log::new();
        let pay = request("10").keyed("k").drawing("4", 100);
        let permit = world.permit(1, &pay, 0);
        let other = world.permit(2, &pay.clone().keyed("l"), 0);
        world.settle(permit, OutcomeStatus::Confirmed, 0);
        // By a clock that nobody looked at.
        world.settle(other, OutcomeStatus::Confirmed, 1_000_000);
        world.administer(AdminAction::Freeze, "ann", Of::default(), 1_000_000);
        let back = world.read(&pay, 50);
        assert!(back.claim.is_some());
        assert_eq!(back.budgets[0].spent, decimal("8"));
    }

    #[test]
    fn a_hold_that_a_permit_is_about_to_use_has_not_expired() {
        let world = Log::new();
        let pay = request("10");
        let held = world.hold(1, &pay, 100, 0);
        world.administer(AdminAction::Approve, "ann", hold(held), 0);
        let fold = &world.harness.fold;
        let ticket = world.reserve(2, &pay, &world.read(&pay, 99), 99).expect("approved");
        assert_eq!((fold.expired_holds(at(100)), fold.has_expired(held, at(100))), (vec![], false));
        drop(ticket);
        assert_eq!((fold.expired_holds(at(100)), fold.has_expired(held, at(100))), (vec![held], true));
        world.administer(AdminAction::Refuse, "ann", hold(held), 100);
        assert!(!fold.has_expired(held, at(100)), "refused since it was listed");
    }

    #[test]
    fn the_expiry_of_approvals_moves_what_rests_on_them() {
        let world = Log::new();
        let (one, two) = (world.hold(1, &request("10"), 100, 0), world.hold(2, &request("11"), 100, 0));
        world.administer(AdminAction::Approve, "ann", hold(two), 0);
        let version = || world.harness.versions.version(FREEZES);
        let before = version();
        world.administer(AdminAction::Expire, "gateway", hold(one), 100);
        assert_eq!(version(), before, "nothing rested on it");
        world.administer(AdminAction::Expire, "gateway", hold(two), 100);
        assert_ne!(version(), before);
    }

    #[test]
    fn who_is_told_of_a_quarantine_is_told_after_its_version_moved() {
        use std::sync::mpsc;
        use std::time::Duration;
        let world = Log::new();
        let fold = Arc::clone(&world.harness.fold);
        let clock = crate::clock::Clock::system();
        let read = fold.versions.capture(&clock, &[FREEZES.into()]);
        let (told, telling) = mpsc::channel();
        let by_policy =
            Change::Quarantined { surface: name("payments"), actor: name("agent"), by: id(1), at: at(0) };
        std::thread::scope(|scope| {
            let started = fold.versions.start(&read, || {
                // A first byte is leaving: the version cannot move, and the quarantine is in the fold.
                scope.spawn(|| fold.apply(vec![(LeafIndex(0), by_policy)], TreeSize(1)));
                while fold.shared.lock().folded.restrictions.quarantines.is_empty() {
                    std::thread::yield_now();
                }
                scope.spawn(|| {
                    let listed = fold.restrictions().len();
                    told.send((listed, fold.versions.version(FREEZES))).expect("somebody listens");
                });
                assert!(telling.recv_timeout(Duration::from_millis(100)).is_err(), "it is not told yet");
            });
            started.expect("nothing has moved");
        });
        assert_eq!(telling.recv().expect("told"), (1, Some("0".into())));
    }

    #[test]
    fn what_is_in_flight_is_what_open_permits_took() {
        proptest!(|(changes in any_changes())| {
            let world = Embedded::new();
            for change in changes {
                world.apply(vec![change]);
                let inner = world.fold.shared.lock();
                let Folded { budgets, open, claims, holds, .. } = &inner.folded;
                let mut expected: BTreeMap<(BudgetKey, WallTime), Decimal> = BTreeMap::new();
                for taken in open.values().flat_map(|open| &open.reserves) {
                    *expected.entry((taken.key.clone(), taken.until)).or_default() += taken.amount;
                }
                for (key, tally) in budgets.iter() {
                    prop_assert!(!tally.is_empty());
                    for window in tally {
                        let own = expected.remove(&(key.clone(), window.until)).unwrap_or_default();
                        prop_assert_eq!(window.sums.in_flight, own);
                    }
                }
                // A claim that is not over belongs to a permit that is open.
                for (key, claim) in claims.iter() {
                    let owner = open.get(&claim.decision).filter(|open| open.id == claim.id);
                    let is_over = matches!(claim.progress, Progress::Executed(_));
                    prop_assert_eq!(owner.and_then(|open| open.claim) == Some(*key), !is_over);
                }
                // A hold that is in use is used by a permit that is open.
                for hold in holds.iter().filter_map(|(_, hold)| hold.used_by) {
                    prop_assert!(open.values().any(|open| open.id == hold));
                }
            }
        });
    }

    #[test]
    fn a_full_state_takes_no_new_claims_until_one_ends() {
        let mut claims = Claims::default();
        assert!(claims.has_room(at(0), limits::CLAIMS_MAX - 1));
        assert!(!claims.has_room(at(0), limits::CLAIMS_MAX));
        let executed = Executed { status: OutcomeStatus::Confirmed, outcome: LeafIndex(2), answer: None };
        let claim = Claim {
            id: id(1),
            decision: LeafIndex(1),
            digest: RequestDigest::Withheld,
            at: at(0),
            until: at(10),
            progress: Progress::Executed(executed),
        };
        claims.insert(ClaimKey(Digest::of(b"key")), claim);
        assert!(!claims.has_room(at(9), limits::CLAIMS_MAX - 1));
        assert!(claims.has_room(at(10), limits::CLAIMS_MAX - 1), "the leaf that comes makes room");
    }

    #[test]
    fn a_full_state_opens_no_new_holds() {
        let world = Log::new();
        for n in 0..limits::HOLDS_MAX as u64 {
            world.hold(n, &request(&format!("{n}")), 1_000, 0);
        }
        let one_more = request("one more");
        let refused = world.open_hold(1_000_000, &one_more, &world.read(&one_more, 0), 0);
        assert!(matches!(refused, Err(NotReserved::Full)));
    }

    #[test]
    fn a_snapshot_that_is_cut_bent_or_of_another_version_is_refused_and_leaves_nothing() {
        let world = Log::new();
        let pay = request("10").keyed("k").drawing("10.50", 100);
        world.permit(1, &pay, 0);
        world.settle(world.permit(2, &pay.clone().keyed("l"), 0), OutcomeStatus::Confirmed, 0);
        world.hold(3, &request("11"), 100, 0);
        world.administer(AdminAction::Freeze, "ann", Of::default(), 0);
        let bytes = world.harness.written();
        let fold = &world.harness.fold;
        for cut in 0..bytes.len() {
            assert!(fold.restore(&bytes[..cut]).is_err(), "cut at {cut}");
            assert_eq!((fold.population(), fold.restrictions().len()), (Population::default(), 0));
        }
        assert!(fold.restore(&[&bytes[..], &[0]].concat()).is_err(), "a byte too many");
        assert!(fold.restore(&bytes[1..]).is_err());
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x80;
            // Refused, or another state: never the same one, and never a panic or much memory.
            if fold.restore(&bent).is_ok() {
                assert_ne!(world.harness.written(), bytes, "byte {at}");
            }
        }
        fold.restore(&bytes).expect("a snapshot");
        assert_eq!(world.harness.written(), bytes);
    }

    #[test]
    fn a_snapshot_holds_no_digest_that_its_leaf_keeps_out() {
        let world = Log::new();
        let pay = request("secret").keyed("k").withheld();
        world.permit(1, &pay, 0);
        world.hold(2, &pay, 100, 0);
        let has = |bytes: &[u8]| bytes.windows(32).any(|window| window == pay.digest.as_bytes());
        assert!(!has(&world.harness.written()));
        assert!(world.read(&pay, 0).hold.is_some(), "this run knows it");
        let world = world.restart();
        assert_eq!(world.read(&pay, 0).hold, None);
        world.permit(3, &Request { withholds: false, ..pay.clone().keyed("l") }, 0);
        assert!(has(&world.harness.written()), "the search finds one that is there");
    }

    #[test]
    fn a_snapshot_is_of_the_moment_it_was_asked_for() {
        let world = Log::new();
        world.permit(1, &request("10").keyed("k"), 0);
        let (before, job) = (world.harness.written(), world.harness.fold.snapshot());
        world.permit(2, &request("10").keyed("l"), 0);
        assert_eq!(job(), before);
        assert_ne!(world.harness.written(), before);
    }

    #[test]
    fn operators_see_holds_restrictions_and_what_is_not_known() {
        let world = Log::new();
        let fold = Arc::clone(&world.harness.fold);
        let (first, second) = (request("10"), request("11").withheld());
        let (one, two) = (world.hold(1, &first, 100, 5), world.hold(2, &second, 50, 6));
        world.administer(AdminAction::Approve, "ann", hold(one), 7);
        let holds = fold.holds(at(60));
        assert_eq!(
            holds.iter().map(|h| (h.id, h.is_expired)).collect::<Vec<_>>(),
            [(one, false), (two, true)]
        );
        assert_eq!((holds[0].digest, holds[1].digest), (Some(first.digest), None));
        assert_eq!((&*holds[0].approvals[0].by, holds[0].at), ("ann", at(5)));
        assert_eq!(fold.hold(one, at(60)).as_ref(), holds.first());
        assert_eq!(fold.expired_holds(at(60)), [two]);
        assert_eq!(fold.expired_holds(at(100)), [two, one]);
        let permit = world.permit(3, &first, 8);
        assert_eq!(fold.hold(one, at(60)).expect("in use").used_by, Some(permit.id));
        assert_eq!(fold.expired_holds(at(100)), [two], "one in use has not expired");
        world.settle(permit, OutcomeStatus::Indeterminate, 9);
        let unknown = UnknownOutcome { decision_id: permit.id, decision_index: permit.index, at: at(9) };
        assert_eq!((fold.unknown(), fold.is_unknown(permit.index)), (vec![unknown], true));
        assert_eq!(fold.population().unknown, 1);
        world.settle_by(permit, OutcomeStatus::Confirmed, crate::model::Settled::Operator, 10);
        assert_eq!((fold.unknown(), fold.is_unknown(permit.index)), (vec![], false));
        assert_eq!(fold.hold(one, at(60)), None);
        // Of a decision that took nothing as well.
        let bare = super::super::conformance::Durable { id: id(9), index: LeafIndex(77) };
        world.settle(bare, OutcomeStatus::Indeterminate, 11);
        assert!(fold.is_unknown(LeafIndex(77)));
        let frozen = world.administer(AdminAction::Freeze, "bob", Of::default(), 12);
        let restrictions = fold.restrictions();
        let [RestrictionStatus { what, by, reason, at: when, index }] = &*restrictions else {
            panic!("one freeze: {restrictions:?}")
        };
        assert_eq!(what, &super::super::Restricted::Frozen(Scope::All));
        assert_eq!((by.as_deref(), reason.as_deref()), (Some("bob"), Some("freeze it")));
        assert_eq!((*when, *index), (at(12), frozen));
    }

    #[test]
    fn who_waits_for_a_hold_learns_of_each_change_of_it() {
        let world = Log::new();
        let mut changes = world.harness.fold.hold_changes();
        let mut moved = move || {
            let moved = changes.has_changed();
            changes.mark_unchanged();
            moved
        };
        let pay = request("10");
        let held = world.hold(1, &pay, 100, 0);
        assert!(moved());
        world.permit(2, &request("11").keyed("k"), 0);
        assert!(!moved(), "that was no hold's");
        world.administer(AdminAction::Approve, "ann", hold(held), 0);
        assert!(moved());
        drop(world.reserve(3, &pay, &world.read(&pay, 0), 0).expect("approved"));
        assert!(moved(), "its approvals can be used again");
        world.settle(world.permit(4, &pay, 0), OutcomeStatus::NotSent, 0);
        assert!(moved());
        world.administer(AdminAction::Expire, "gateway", hold(held), 100);
        assert!(moved());
    }

    #[test]
    fn a_leaf_of_another_gateway_closes_rather_than_opens() {
        let world = Log::new();
        let draw = request("10").drawing("1", 100);
        for n in 0..2 {
            let taken = crate::model::Reserved {
                budget: name("spend"),
                key: draw.draws[0].key,
                amount: Decimal::MAX,
                until: at(100),
            };
            world.append(Change::Permitted(Box::new(Permitted {
                id: id(n),
                surface: name("payments"),
                actor: name("agent"),
                digest: None,
                claim: Some(ClaimOf { key: name("k"), until: at(100) }),
                reserves: vec![taken],
                approved_hold: Some(id(77)),
                at: at(0),
            })));
        }
        let view = world.read(&draw, 0);
        assert_eq!(view.budgets[0].in_flight, Decimal::MAX);
        assert!(matches!(world.reserve(9, &draw, &view, 0), Err(NotReserved::Overflow(_))));
        assert_eq!(decimal("79228162514264337593543950335"), Decimal::MAX);
    }

    #[test]
    fn a_view_names_what_was_asked_for() {
        let world = Log::new();
        assert_eq!(item_names(&world.read(&request("10"), 0)), ["approvals".into()]);
        let all = request("10").keyed("k").drawing("1", 100);
        let names = item_names(&world.read(&all, 0));
        assert_eq!(names, ["claim".into(), "approvals".into(), "budget:spend".into()]);
    }

    #[test]
    fn versions_of_many_keys_do_not_fill_memory() {
        let mut seen = Seen::default();
        let sums = Sums { spent: Decimal::ONE, in_flight: Decimal::ZERO };
        for n in 0..3 * SEEN_BESIDE_MAX {
            let key = Digest::of(&n.to_be_bytes());
            let key = BudgetKey { surface: name("payments"), budget: name("spend"), key };
            let version = seen.version(&key, sums, 0);
            assert_eq!(seen.version(&key, sums, 0), version);
            assert_ne!(seen.version(&key, Sums { in_flight: Decimal::ONE, ..sums }, 0), version);
            assert_eq!(seen.version(&key, Sums::ZERO, 0), "0");
            seen.version(&key, sums, 0);
            assert!(seen.versions.len() <= SEEN_BESIDE_MAX + 1);
        }
    }
}
