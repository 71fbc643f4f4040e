//! Answers to operators who look: JSON, members in RFC 8785 order.

use std::sync::Arc;

use serde::Serialize;

use super::operators::role_name;
use crate::authority::{Approval, HoldStatus, Restricted, RestrictionStatus, Scope, UnknownOutcome};
use crate::limits;
use crate::model::entry::DecisionEntry;

/// A list with an end: there may be more than it shows.
#[derive(Serialize)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// With those that are not shown.
    pub total: usize,
}

impl<T> Listed<T> {
    pub fn of<S>(items: &[S], each: impl Fn(&S) -> T) -> Self {
        let shown = items.iter().take(limits::ADMIN_LISTED_MAX).map(each).collect();
        Self { items: shown, total: items.len() }
    }
}

#[derive(Serialize)]
pub struct ApprovalShown {
    at: String,
    by: Arc<str>,
    reason: Arc<str>,
    role: &'static str,
}

impl From<&Approval> for ApprovalShown {
    fn from(approval: &Approval) -> Self {
        let Approval { by, role, at, reason } = approval;
        Self { at: at.rfc3339(), by: by.clone(), reason: reason.clone(), role: role_name(*role) }
    }
}

#[derive(Serialize)]
pub struct HoldShown {
    action: String,
    actor: String,
    approvals: Vec<ApprovalShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    entry: u64,
    expired: bool,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<ApprovalShown>,
    since: String,
    surface: String,
    until: String,
    used: bool,
}

impl From<&HoldStatus> for HoldShown {
    fn from(hold: &HoldStatus) -> Self {
        Self {
            action: hold.action.to_string(),
            actor: hold.actor.to_string(),
            approvals: hold.approvals.iter().map(Into::into).collect(),
            digest: hold.digest.map(|digest| digest.to_string()),
            entry: hold.index.0,
            expired: hold.is_expired,
            id: hold.id.to_string(),
            refused: hold.refused.as_ref().map(Into::into),
            since: hold.at.rfc3339(),
            surface: hold.surface.to_string(),
            until: hold.until.rfc3339(),
            used: hold.used_by.is_some(),
        }
    }
}

#[derive(Serialize)]
pub struct RestrictionShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// The operator; absent if it was policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Arc<str>>,
    /// The decision that began a quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    entry: u64,
    /// `freeze` or `quarantine`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Arc<str>>,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    surface: Option<String>,
}

impl From<&RestrictionStatus> for RestrictionShown {
    fn from(status: &RestrictionStatus) -> Self {
        let RestrictionStatus { what, by, reason, at, index } = status;
        let (kind, surface, actor, decision) = match what {
            Restricted::Frozen(Scope::All) => ("freeze", None, None, None),
            Restricted::Frozen(Scope::Surface(surface)) => ("freeze", Some(surface), None, None),
            Restricted::Frozen(Scope::Actor(actor)) => ("freeze", None, Some(actor), None),
            Restricted::Quarantined { surface, actor, decision } => {
                ("quarantine", Some(surface), Some(actor), *decision)
            }
        };
        Self {
            actor: actor.map(ToString::to_string),
            by: by.clone(),
            decision: decision.map(|id| id.to_string()),
            entry: index.0,
            kind,
            reason: reason.clone(),
            since: at.rfc3339(),
            surface: surface.map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
pub struct UnknownShown {
    action: String,
    actor: String,
    entry: u64,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    since: String,
    surface: String,
}

impl UnknownShown {
    pub fn of(unknown: &UnknownOutcome, decision: &DecisionEntry) -> Self {
        Self {
            action: decision.action.to_string(),
            actor: decision.actor.id.to_string(),
            entry: unknown.decision_index.0,
            id: unknown.decision_id.to_string(),
            idempotency_key: decision.idempotency_key.as_ref().map(ToString::to_string),
            since: unknown.at.rfc3339(),
            surface: decision.surface.to_string(),
        }
    }
}
