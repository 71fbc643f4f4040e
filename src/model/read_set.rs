//! The read set: every piece of state an evaluation consulted, with the version it read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, WallTime};

/// One piece of state: `policy`, `identity`, a fact, a budget. Members in RFC 8785 order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadItem {
    /// How old the value was when it was read, milliseconds; 0 for state the gateway owns.
    pub age_ms: u64,
    pub name: Arc<str>,
    /// Opaque; equal versions mean the same value.
    pub version: Arc<str>,
}

/// Captured before evaluation, written into the receipt, validated between "receipt durable" and "first byte".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSet {
    /// What is looked at again in the airlock and at the first byte: `policy`, `identity`, `freezes`, facts.
    pub watched: Vec<ReadItem>,
    /// What is compared when the decision takes it, and is its own from then on: `claim`, `approvals`, budgets.
    pub state: Vec<ReadItem>,
    /// When it was captured; the age of a permit counts from here.
    pub captured_at: Moment,
    /// From then on the approvals among it do not count any more.
    pub approvals_until: Option<WallTime>,
}

impl ReadSet {
    /// As it stands in the receipt: everything, in the order of the names.
    pub fn items(&self) -> Vec<ReadItem> {
        let mut items: Vec<_> = self.watched.iter().chain(&self.state).cloned().collect();
        items.sort_by(|a, b| a.name.cmp(&b.name));
        items
    }
}
