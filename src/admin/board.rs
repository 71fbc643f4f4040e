//! What operators look at before they act: what is held, frozen, quarantined and not known.

use std::sync::Arc;

use crate::authority::{Approval, Scope};
use crate::clock::WallTime;
use crate::model::{ActionName, ActorId, Digest, LeafIndex, ReceiptId, SurfaceName};

/// State as operators see it. Never waits.
pub trait Board: Send + Sync {
    /// Every hold that has not been recorded as expired or used up.
    fn holds(&self) -> Vec<OpenHold>;
    fn hold(&self, id: ReceiptId) -> Option<OpenHold>;
    fn freezes(&self) -> Vec<Freeze>;
    fn quarantines(&self) -> Vec<Quarantine>;
    /// Outcomes that are indeterminate and that nobody has settled.
    fn unknown(&self) -> Vec<UnknownOutcome>;
}

/// A request that is held for people.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHold {
    pub id: ReceiptId,
    pub surface: SurfaceName,
    pub action: ActionName,
    pub actor: ActorId,
    /// `None` where the log keeps it out.
    pub digest: Option<Digest>,
    pub until: WallTime,
    pub approvals: Vec<Approval>,
    pub refused: Option<Approval>,
    /// A PERMIT uses its approvals, and has not been given back.
    pub is_used: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Freeze {
    pub scope: Scope,
    pub by: Arc<str>,
    pub reason: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Quarantine {
    pub surface: SurfaceName,
    pub actor: ActorId,
    /// The decision that began it; `None`: an operator did.
    pub by: Option<ReceiptId>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UnknownOutcome {
    /// Of the PERMIT.
    pub id: ReceiptId,
    pub decision: LeafIndex,
}

pub struct Nothing;
impl Board for Nothing {
    fn holds(&self) -> Vec<OpenHold> {
        Vec::new()
    }
    fn hold(&self, _: ReceiptId) -> Option<OpenHold> {
        None
    }
    fn freezes(&self) -> Vec<Freeze> {
        Vec::new()
    }
    fn quarantines(&self) -> Vec<Quarantine> {
        Vec::new()
    }
    fn unknown(&self) -> Vec<UnknownOutcome> {
        Vec::new()
    }
}
