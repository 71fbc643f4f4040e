//! The state that decisions read and change: claims, budgets, holds, freezes, quarantines.
//!
//! [`State`] is what the gateway needs of it. The embedded one, [`Fold`], is a fold of the ledger: the same
//! [`Change`]s in the same order give the same state, whether they come from the running committer or from a log
//! that is read at a start. What is reserved for a decision whose leaf is not durable yet stands beside the fold and
//! is gone with its [`Ticket`].
//!
//! | what | who may have it at once | ends |
//! |---|---|---|
//! | claim | one decision for each actor, surface and key | `not_sent` frees it; else at its time, never while the outcome is unknown |
//! | reserve | adds up per budget and key | `confirmed` spends; `not_sent` and `failed` release; at its time |
//! | approvals of a hold | one PERMIT | `not_sent` gives them back; at its time; refusal |
//! | freeze, quarantine | - | an operator ends it |
//!
//! The versions must be captured before [`State::read`]: a freeze is in the fold before its version moves, so whoever
//! read the state before it has the old version.
//!
//! What has ended is passed over by the clock of whoever reads, and stays in memory for a while beyond that: the clock may
//! have been ahead, and be set back. Past that while nothing is reserved for an earlier time ([`NotReserved::Forgotten`]):
//! no clock that is set back makes a used key free or a spent budget whole, and none that is set forth while the gateway runs
//! (docs/adr/0021). One that is ahead when it starts ends what it takes for old.
//!
//! Reading and reserving are two steps with an evaluation between them, so [`State::reserve`] compares: what the
//! decision read of claim, budgets and hold must still be so, or nothing is taken. Freezes are versions in the read
//! set: they are looked at again at the first byte (`versions`).

mod budgets;
mod changes;
mod claims;
#[cfg(test)]
mod conformance;
mod fold;
mod holds;
mod overlay;
mod restrictions;
mod snapshot;

pub use changes::Changes;
pub use fold::{Fold, Population, UnknownOutcome};
pub use holds::HoldStatus;
pub use restrictions::{Restricted, RestrictionStatus};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::versions::Moved;
use crate::clock::WallTime;
use crate::model::entry::Reserve;
use crate::model::{
    ActionName, ActorId, BudgetName, Digest, IdempotencyKey, LeafIndex, OutcomeStatus, ReadItem, ReceiptId,
    SurfaceName,
};

/// An engine behind the state may be elsewhere; the embedded one never waits.
pub type Answer<'s, T> = Pin<Box<dyn Future<Output = T> + Send + 's>>;

/// The request that is about to be decided.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub surface: &'a SurfaceName,
    pub action: &'a ActionName,
    pub actor: &'a ActorId,
    /// Of the canonical request.
    pub digest: Digest,
    /// Set where the route claims keys and the request carries one.
    pub key: Option<&'a IdempotencyKey>,
    /// What it would take of each budget of its surface.
    pub draws: &'a [Draw],
    pub now: WallTime,
}

/// What one request would take of one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    pub budget: BudgetName,
    /// As in [`Reserve::key`].
    pub key: Digest,
    /// Zero or more.
    pub amount: Decimal,
    /// As in [`Reserve::until`].
    pub until: WallTime,
}

/// What is true now.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub claim: Option<ClaimView>,
    pub hold: Option<HoldView>,
    /// In the order of the draws.
    pub budgets: Vec<BudgetView>,
    pub restriction: Option<Restriction>,
    /// One item each: `claim`, `approvals`, `budget:NAME`, as far as they were asked for. [`State::reserve`] compares
    /// them.
    pub read: Vec<ReadItem>,
}

/// The key has been used.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimView {
    /// The decision that has the claim. Its leaf may not be durable yet.
    pub id: ReceiptId,
    pub same_request: SameRequest,
    pub state: ClaimState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameRequest {
    Yes,
    No,
    /// The route keeps digests out of the log, and the claim is of an earlier run.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ClaimState {
    /// No outcome yet.
    Running,
    /// Confirmed or failed.
    Executed {
        status: OutcomeStatus,
        decision: LeafIndex,
        /// Of the outcome's leaf, beside which the answer is kept.
        outcome: LeafIndex,
        answer: Option<Digest>,
    },
    /// `indeterminate`, until it is reconciled.
    Unknown { decision: LeafIndex },
}

/// An open hold on exactly this request.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldView {
    pub id: ReceiptId,
    pub until: WallTime,
    pub approvals: Vec<Approval>,
    pub refused: Option<Approval>,
}

/// One operator's word on a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub by: Arc<str>,
    pub role: crate::model::entry::Role,
    pub at: WallTime,
    pub reason: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetView {
    pub budget: BudgetName,
    pub spent: Decimal,
    /// Of decisions without an outcome, and of those whose outcome is not known.
    pub in_flight: Decimal,
}

/// Nothing may be sent, whatever policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restriction {
    Frozen { scope: Scope, by: Arc<str>, reason: Arc<str> },
    Quarantined { by: Option<ReceiptId> },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    All,
    Surface(SurfaceName),
    Actor(ActorId),
}

/// What a PERMIT takes, all of it or nothing.
#[derive(Clone, Debug)]
pub struct Intent<'a> {
    pub asked: Asked<'a>,
    pub read: &'a [ReadItem],
    pub claim_until: Option<WallTime>,
    pub approved_hold: Option<ReceiptId>,
}

/// What was taken for a decision whose leaf is not durable yet. Dropped, it is given back; the fold takes over when the
/// leaf with its id is applied.
pub struct Ticket {
    pub id: ReceiptId,
    pub reserves: Vec<Reserve>,
    give_back: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Ticket {
    pub fn new(id: ReceiptId, reserves: Vec<Reserve>, give_back: Box<dyn FnOnce() + Send + Sync>) -> Self {
        Self { id, reserves, give_back: Some(give_back) }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            give_back();
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("reserves", &self.reserves)
            .finish_non_exhaustive()
    }
}

/// An amount that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReserved {
    #[error("{} moved", .0.name)]
    Moved(Moved),
    /// A sum is past what a decimal of 28 digits holds.
    #[error("the sums of budget {0} are past their bound")]
    Overflow(BudgetName),
    /// The time is before what the state has let go of: whether a key is free, or what is left of a budget, is not known.
    #[error("the clock is behind what the state has let go of")]
    Forgotten,
    /// More live claims or reserves than the state may hold.
    #[error("the state is full")]
    Full,
}

/// See the module's text. Implementations share the suite in `conformance`.
pub trait State: fmt::Debug + Send + Sync {
    /// What is true about this request now. Takes nothing.
    fn read<'s>(&'s self, asked: Asked<'s>) -> Answer<'s, View>;

    /// Takes what a PERMIT with this id takes, if everything it read is still so.
    fn reserve<'s>(&'s self, id: ReceiptId, intent: Intent<'s>) -> Answer<'s, Result<Ticket, NotReserved>>;

    /// Remembers which request the hold of this id will be on, if nothing that was read of its approvals moved and no
    /// other hold on it is about to be opened: of requests that are equal and come at once, one opens a hold. Also the
    /// way in which a hold is found whose leaf keeps the request's digest out; after a restart such a hold is not found
    /// again.
    fn open_hold<'s>(
        &'s self,
        id: ReceiptId,
        asked: Asked<'s>,
        read: &'s [ReadItem],
    ) -> Answer<'s, Result<Ticket, NotReserved>>;
}
