//! Freezes and quarantines: nothing may be sent, whatever policy says, until an operator ends it.

use std::sync::Arc;

use imbl::OrdMap;

use super::{Restriction, Scope};
use crate::clock::WallTime;
use crate::model::{ActorId, LeafIndex, ReceiptId, SurfaceName};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    pub by: Arc<str>,
    pub reason: Arc<str>,
    pub at: WallTime,
    pub index: LeafIndex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    pub cause: Cause,
    pub at: WallTime,
    pub index: LeafIndex,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Policy said so.
    Decision(ReceiptId),
    Operator {
        by: Arc<str>,
        reason: Arc<str>,
    },
}

/// What is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restricted {
    Frozen(Scope),
    /// By a decision, or by an operator (`None`).
    Quarantined {
        surface: SurfaceName,
        actor: ActorId,
        decision: Option<ReceiptId>,
    },
}

/// A restriction as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestrictionStatus {
    pub what: Restricted,
    /// The operator; `None` if it was policy.
    pub by: Option<Arc<str>>,
    /// The operator's; `None` if it was policy: see the decision's reasons.
    pub reason: Option<Arc<str>>,
    pub at: WallTime,
    /// The leaf that did it.
    pub index: LeafIndex,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restrictions {
    pub freezes: OrdMap<Scope, Freeze>,
    pub quarantines: OrdMap<(SurfaceName, ActorId), Quarantine>,
    /// The leaf that changed them last.
    pub changed: Option<LeafIndex>,
}

impl Restrictions {
    /// The widest one that this request is under.
    pub fn find(&self, surface: &SurfaceName, actor: &ActorId) -> Option<Restriction> {
        if !self.freezes.is_empty() {
            let scopes = [Scope::All, Scope::Surface(surface.clone()), Scope::Actor(actor.clone())];
            for scope in scopes {
                if let Some(Freeze { by, reason, .. }) = self.freezes.get(&scope) {
                    return Some(Restriction::Frozen { scope, by: by.clone(), reason: reason.clone() });
                }
            }
        }
        if self.quarantines.is_empty() {
            return None;
        }
        let quarantine = self.quarantines.get(&(surface.clone(), actor.clone()))?;
        Some(Restriction::Quarantined { by: decision(&quarantine.cause) })
    }

    /// Freezes, the last word standing.
    pub fn freeze(&mut self, scope: Scope, freeze: Freeze) {
        self.changed = Some(freeze.index);
        self.freezes.insert(scope, freeze);
    }

    pub fn unfreeze(&mut self, scope: &Scope, index: LeafIndex) {
        if self.freezes.remove(scope).is_some() {
            self.changed = Some(index);
        }
    }

    /// Isolates; who is isolated already stays so for the first cause.
    pub fn quarantine(&mut self, surface: SurfaceName, actor: ActorId, quarantine: Quarantine) {
        let of = (surface, actor);
        if !self.quarantines.contains_key(&of) {
            self.changed = Some(quarantine.index);
            self.quarantines.insert(of, quarantine);
        }
    }

    pub fn release(&mut self, surface: SurfaceName, actor: ActorId, index: LeafIndex) {
        if self.quarantines.remove(&(surface, actor)).is_some() {
            self.changed = Some(index);
        }
    }

    pub fn statuses(&self) -> Vec<RestrictionStatus> {
        let frozen = self.freezes.iter().map(|(scope, freeze)| RestrictionStatus {
            what: Restricted::Frozen(scope.clone()),
            by: Some(freeze.by.clone()),
            reason: Some(freeze.reason.clone()),
            at: freeze.at,
            index: freeze.index,
        });
        let quarantined = self.quarantines.iter().map(|((surface, actor), quarantine)| {
            let (by, reason) = match &quarantine.cause {
                Cause::Decision(_) => (None, None),
                Cause::Operator { by, reason } => (Some(by.clone()), Some(reason.clone())),
            };
            let decision = decision(&quarantine.cause);
            let what = Restricted::Quarantined { surface: surface.clone(), actor: actor.clone(), decision };
            RestrictionStatus { what, by, reason, at: quarantine.at, index: quarantine.index }
        });
        frozen.chain(quarantined).collect()
    }
}

fn decision(cause: &Cause) -> Option<ReceiptId> {
    match cause {
        Cause::Decision(id) => Some(*id),
        Cause::Operator { .. } => None,
    }
}
