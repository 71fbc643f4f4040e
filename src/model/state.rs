//! What a leaf changes in the state that later decisions read: claims, budgets, holds, freezes, quarantines.
//!
//! The state is `fold(leaves)`: [`Change::of`] takes from a leaf all that the fold needs, and nothing else. The
//! running gateway and the one that starts from a log apply the same changes, made by the same function.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::entry::{
    AdminAction, AdminEntry, DecisionEntry, Entry, EvaluationStatus, HoldEntry, OperatorEntry, OutcomeEntry,
    Reserve,
};
use super::{
    ActionName, Activated, ActorId, BudgetName, Decision, Digest, IdempotencyKey, LeafIndex, OutcomeStatus,
    ReceiptId, Settled, SurfaceName,
};
use crate::clock::WallTime;

/// One change. What it is applied to, and when, comes with it; equal leaves give equal changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A PERMIT that claims an idempotency key, reserves of budgets, or uses up approvals.
    Permitted(Box<Permitted>),
    /// An ESCALATE that opened a hold.
    Held(Box<Held>),
    /// A QUARANTINE by policy: the actor is isolated on the surface until an operator releases it. One that only says
    /// that the actor is isolated already changes nothing, or it could undo a release that came between.
    Quarantined { surface: SurfaceName, actor: ActorId, by: ReceiptId, at: WallTime },
    /// An outcome, of the gateway or, later, of an operator or the upstream's own log.
    Settled(Settlement),
    /// What an operator did, or the gateway itself when a hold expired.
    Administered(Box<Administered>),
    /// A policy bundle became the active one.
    Activated(Activated),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Permitted {
    pub id: ReceiptId,
    pub surface: SurfaceName,
    pub actor: ActorId,
    /// Of the request; `None` where the leaf keeps it out.
    pub digest: Option<Digest>,
    pub claim: Option<Claim>,
    pub reserves: Vec<Reserved>,
    /// The hold whose approvals this PERMIT uses up.
    pub approved_hold: Option<ReceiptId>,
    pub at: WallTime,
}

/// One execution for one key, for this actor on this surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub key: IdempotencyKey,
    /// From when on the key is free again, unless its outcome is not known.
    pub until: WallTime,
}

/// A [`Reserve`] as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub budget: BudgetName,
    /// As in [`Reserve::key`].
    pub key: Digest,
    /// Zero or more.
    pub amount: Decimal,
    /// From when on it counts no more.
    pub until: WallTime,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Of the decision, and of the hold.
    pub id: ReceiptId,
    pub surface: SurfaceName,
    pub action: ActionName,
    pub actor: ActorId,
    /// `None` where the leaf keeps it out.
    pub digest: Option<Digest>,
    pub until: WallTime,
    pub at: WallTime,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    pub decision_id: ReceiptId,
    pub decision_index: LeafIndex,
    pub status: OutcomeStatus,
    pub attestation: Settled,
    /// The kept answer, by the digest of its evidence beside the outcome.
    pub answer: Option<Digest>,
    pub at: WallTime,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Administered {
    pub action: AdminAction,
    pub by: OperatorEntry,
    pub surface: Option<SurfaceName>,
    pub actor: Option<ActorId>,
    pub hold: Option<ReceiptId>,
    pub reason: Arc<str>,
    pub at: WallTime,
}

/// A leaf that should change the state says something that no gateway writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` is missing, or not what a gateway writes there")]
pub struct InvalidLeaf {
    pub member: &'static str,
}

impl Change {
    /// What the leaf changes; `None` for one that changes nothing.
    pub fn of(entry: &Entry) -> Result<Option<Self>, InvalidLeaf> {
        match entry {
            Entry::Decision(decision) => of_decision(decision),
            Entry::Outcome(outcome) => of_outcome(outcome).map(Some),
            Entry::Admin(admin) => of_admin(admin).map(Some),
            Entry::Policy(policy) => {
                Ok(Some(Change::Activated(Activated { revision: policy.revision, version: policy.version })))
            }
            Entry::Epoch(_) | Entry::Heartbeat(_) | Entry::Key(_) | Entry::Refusal(_) => Ok(None),
        }
    }
}

fn of_decision(decision: &DecisionEntry) -> Result<Option<Change>, InvalidLeaf> {
    let at = time(&decision.time, "time")?;
    let (surface, actor) = (decision.surface.clone(), decision.actor.id.clone());
    Ok(match decision.decision {
        Decision::Permit => {
            let claim = match (&decision.claim, &decision.idempotency_key) {
                (Some(claim), Some(key)) => {
                    Some(Claim { key: key.clone(), until: time(&claim.until, "claim.until")? })
                }
                (Some(_), None) | (None, _) => None,
            };
            let reserves = decision.reserves.iter().map(reserved).collect::<Result<_, _>>()?;
            let changes =
                claim.is_some() || !decision.reserves.is_empty() || decision.approved_hold.is_some();
            changes.then(|| {
                Change::Permitted(Box::new(Permitted {
                    id: decision.id,
                    surface,
                    actor,
                    digest: decision.request.digest,
                    claim,
                    reserves,
                    approved_hold: decision.approved_hold,
                    at,
                }))
            })
        }
        Decision::Escalate => match &decision.hold {
            Some(HoldEntry { id, until }) if *id == decision.id => Some(Change::Held(Box::new(Held {
                id: *id,
                surface,
                action: decision.action.clone(),
                actor,
                digest: decision.request.digest,
                until: time(until, "hold.until")?,
                at,
            }))),
            Some(_) | None => None,
        },
        Decision::Quarantine => match decision.evaluation.status {
            EvaluationStatus::Evaluated => Some(Change::Quarantined { surface, actor, by: decision.id, at }),
            EvaluationStatus::NotEvaluated => None,
        },
        Decision::Deny | Decision::Silence => None,
    })
}

fn reserved(reserve: &Reserve) -> Result<Reserved, InvalidLeaf> {
    let amount = Decimal::from_str_exact(&reserve.amount)
        .ok()
        .filter(|amount| *amount >= Decimal::ZERO && amount.to_string() == *reserve.amount)
        .ok_or(InvalidLeaf { member: "reserves.amount" })?;
    let until = time(&reserve.until, "reserves.until")?;
    Ok(Reserved { budget: reserve.budget.clone(), key: reserve.key, amount, until })
}

fn of_outcome(outcome: &OutcomeEntry) -> Result<Change, InvalidLeaf> {
    Ok(Change::Settled(Settlement {
        decision_id: outcome.decision_id,
        decision_index: outcome.decision_index,
        status: outcome.status,
        attestation: outcome.attestation,
        answer: outcome.answer_digest,
        at: time(&outcome.time, "time")?,
    }))
}

fn of_admin(admin: &AdminEntry) -> Result<Change, InvalidLeaf> {
    match admin.action {
        AdminAction::Freeze | AdminAction::Unfreeze => {}
        AdminAction::Approve | AdminAction::Refuse | AdminAction::Expire => {
            admin.hold.ok_or(InvalidLeaf { member: "hold" })?;
        }
        AdminAction::Quarantine | AdminAction::Release => {
            admin.surface.as_ref().ok_or(InvalidLeaf { member: "surface" })?;
            admin.actor.as_ref().ok_or(InvalidLeaf { member: "actor" })?;
        }
    }
    Ok(Change::Administered(Box::new(Administered {
        action: admin.action,
        by: admin.by.clone(),
        surface: admin.surface.clone(),
        actor: admin.actor.clone(),
        hold: admin.hold,
        reason: Arc::clone(&admin.reason),
        at: time(&admin.time, "time")?,
    })))
}

fn time(text: &str, member: &'static str) -> Result<WallTime, InvalidLeaf> {
    WallTime::parse_rfc3339(text).ok_or(InvalidLeaf { member })
}
