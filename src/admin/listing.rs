//! Answers to operators who look: JSON, members in RFC 8785 order.

use std::sync::Arc;

use serde::Serialize;

use super::operators::role_name;
use crate::authority::{Approval, HoldStatus, Restricted, RestrictionStatus, Scope, UnknownOutcome};
use crate::limits;
use crate::model::LeafIndex;
use crate::model::entry::DecisionEntry;
use crate::reconcile::Progress;

/// A list with an end: there may be more than it shows.
#[derive(Serialize)]
pub struct Listed<T> {
    items: Vec<T>,
    /// What to ask for with `after`, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// With those that are not shown.
    total: usize,
}

/// As many of a list as one answer shows, oldest first. The place of each is its leaf's: what is added or ends between two
/// pages moves nothing from one to the other.
pub struct Page<S> {
    pub items: Vec<S>,
    next: Option<LeafIndex>,
    total: usize,
}

impl<S> Page<S> {
    pub fn of(mut all: Vec<S>, place: impl Fn(&S) -> LeafIndex, after: Option<LeafIndex>) -> Self {
        let total = all.len();
        all.sort_by_key(&place);
        all.retain(|item| after.is_none_or(|after| place(item) > after));
        let is_cut = all.len() > limits::ADMIN_LISTED_MAX;
        all.truncate(limits::ADMIN_LISTED_MAX);
        let next = all.last().filter(|_| is_cut).map(place);
        Self { items: all, next, total }
    }

    pub fn listed<T>(&self, each: impl FnMut(&S) -> T) -> Listed<T> {
        let items = self.items.iter().map(each).collect();
        Listed { items, next: self.next.map(|index| index.0), total: self.total }
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
    /// How far asking the upstream has come, if it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup: Option<LookupShown>,
    since: String,
    surface: String,
}

#[derive(Serialize)]
struct LookupShown {
    /// What came of the last question, or why none is asked.
    last: &'static str,
    questions: u32,
}

impl UnknownShown {
    pub fn of(unknown: &UnknownOutcome, decision: &DecisionEntry, lookup: Option<Progress>) -> Self {
        Self {
            action: decision.action.to_string(),
            actor: decision.actor.id.to_string(),
            entry: unknown.decision_index.0,
            id: unknown.decision_id.to_string(),
            idempotency_key: decision.idempotency_key.as_ref().map(ToString::to_string),
            lookup: lookup.map(|Progress { questions, last }| LookupShown { last: last.as_str(), questions }),
            since: unknown.at.rfc3339(),
            surface: decision.surface.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_each_once_whatever_ends_between_them() {
        let mut all: Vec<u64> = (0..limits::ADMIN_LISTED_MAX as u64 * 2 + 50).rev().map(|n| n * 3).collect();
        let count = all.len();
        let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = Page::of(all.clone(), |n| LeafIndex(*n), after);
            let listed = page.listed(|n| *n);
            assert_eq!(listed.total, all.len());
            seen.extend(listed.items);
            pages += 1;
            match listed.next {
                Some(next) => after = Some(LeafIndex(next)),
                None => break,
            }
            // One that was shown ends, the last of the page among them.
            all.retain(|n| Some(LeafIndex(*n)) != after);
        }
        assert_eq!(pages, 3);
        assert_eq!(seen, (0..count as u64).map(|n| n * 3).collect::<Vec<_>>());
        let exact: Vec<u64> = (0..limits::ADMIN_LISTED_MAX as u64).collect();
        assert_eq!(Page::of(exact, |n| LeafIndex(*n), None).listed(|n| *n).next, None);
    }
}
