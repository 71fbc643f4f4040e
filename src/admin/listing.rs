//! Answers to operators who look: JSON, members in RFC 8785 order.

use std::sync::Arc;

use serde::Serialize;

use super::board::{Freeze, OpenHold, Quarantine, UnknownOutcome};
use super::operators::role_name;
use crate::authority::{Approval, Scope};
use crate::limits;

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
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<ApprovalShown>,
    surface: String,
    until: String,
    used: bool,
}

impl From<&OpenHold> for HoldShown {
    fn from(hold: &OpenHold) -> Self {
        Self {
            action: hold.action.to_string(),
            actor: hold.actor.to_string(),
            approvals: hold.approvals.iter().map(Into::into).collect(),
            digest: hold.digest.map(|digest| digest.to_string()),
            id: hold.id.to_string(),
            refused: hold.refused.as_ref().map(Into::into),
            surface: hold.surface.to_string(),
            until: hold.until.rfc3339(),
            used: hold.is_used,
        }
    }
}

#[derive(Serialize)]
pub struct RestrictionsShown {
    pub freezes: Listed<FreezeShown>,
    pub quarantines: Listed<QuarantineShown>,
}

#[derive(Serialize)]
pub struct FreezeShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    all: bool,
    by: Arc<str>,
    reason: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    surface: Option<String>,
}

impl From<&Freeze> for FreezeShown {
    fn from(freeze: &Freeze) -> Self {
        let (surface, actor) = match &freeze.scope {
            Scope::All => (None, None),
            Scope::Surface(surface) => (Some(surface.to_string()), None),
            Scope::Actor(actor) => (None, Some(actor.to_string())),
        };
        let all = freeze.scope == Scope::All;
        Self { actor, all, by: freeze.by.clone(), reason: freeze.reason.clone(), surface }
    }
}

#[derive(Serialize)]
pub struct QuarantineShown {
    actor: String,
    /// The decision that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    surface: String,
}

impl From<&Quarantine> for QuarantineShown {
    fn from(quarantine: &Quarantine) -> Self {
        Self {
            actor: quarantine.actor.to_string(),
            decision: quarantine.by.map(|id| id.to_string()),
            surface: quarantine.surface.to_string(),
        }
    }
}

#[derive(Serialize)]
pub struct UnknownShown {
    entry: u64,
    id: String,
}

impl From<&UnknownOutcome> for UnknownShown {
    fn from(unknown: &UnknownOutcome) -> Self {
        Self { entry: unknown.decision.0, id: unknown.id.to_string() }
    }
}
