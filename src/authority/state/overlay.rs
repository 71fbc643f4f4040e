//! What is taken for decisions whose leaves are not durable yet. Never in a snapshot.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::super::budget::add;
use super::budgets::{BudgetKey, Sums, Taken};
use super::claims::ClaimKey;
use super::holds::RequestKey;
use crate::clock::WallTime;
use crate::model::{Digest, ReceiptId};

/// Of one decision.
#[derive(Debug)]
pub struct Pending {
    /// Of its request.
    pub digest: Digest,
    pub claim: Option<ClaimKey>,
    pub reserves: Vec<Taken>,
    pub approved_hold: Option<ReceiptId>,
    /// The request that it opens a hold on.
    pub holds: Option<RequestKey>,
}

#[derive(Debug, Default)]
pub struct Overlay {
    decisions: BTreeMap<ReceiptId, Pending>,
    claims: BTreeMap<ClaimKey, ReceiptId>,
    reserves: BTreeMap<BudgetKey, Vec<(ReceiptId, Decimal, WallTime)>>,
    used_holds: BTreeMap<ReceiptId, ReceiptId>,
    holds: BTreeMap<RequestKey, ReceiptId>,
}

impl Overlay {
    /// Claims that are about to be taken.
    pub fn claims(&self) -> usize {
        self.claims.len()
    }

    /// Holds that are about to be opened.
    pub fn holds(&self) -> usize {
        self.holds.len()
    }

    /// Budget keys that something is about to be taken of.
    pub fn budget_keys(&self) -> impl ExactSizeIterator<Item = &BudgetKey> {
        self.reserves.keys()
    }

    pub fn has_budget(&self, key: &BudgetKey) -> bool {
        self.reserves.contains_key(key)
    }

    pub fn claim(&self, key: ClaimKey) -> Option<(ReceiptId, &Pending)> {
        let id = self.claims.get(&key)?;
        self.decisions.get(id).map(|pending| (*id, pending))
    }

    pub fn is_used(&self, hold: ReceiptId) -> bool {
        self.used_holds.contains_key(&hold)
    }

    pub fn opens_hold(&self, key: RequestKey) -> Option<ReceiptId> {
        self.holds.get(&key).copied()
    }

    /// With what is about to be taken of the budget; `None` past the bound.
    pub fn add_to(&self, sums: Sums, key: &BudgetKey, now: WallTime) -> Option<Sums> {
        let taken = self.reserves.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut live = taken.iter().filter(|(_, _, until)| now < *until);
        let in_flight = live.try_fold(sums.in_flight, |sum, (_, amount, _)| add(sum, *amount))?;
        Some(Sums { in_flight, ..sums })
    }

    pub fn insert(&mut self, id: ReceiptId, pending: Pending) {
        if let Some(key) = pending.claim {
            self.claims.insert(key, id);
        }
        for taken in &pending.reserves {
            let of_key = self.reserves.entry(taken.key.clone()).or_default();
            of_key.push((id, taken.amount, taken.until));
        }
        if let Some(hold) = pending.approved_hold {
            self.used_holds.insert(hold, id);
        }
        if let Some(key) = pending.holds {
            self.holds.insert(key, id);
        }
        let before = self.decisions.insert(id, pending);
        assert!(before.is_none(), "an id names one decision");
    }

    /// Takes out what is there for the decision, if anything.
    pub fn remove(&mut self, id: ReceiptId) -> Option<Pending> {
        let pending = self.decisions.remove(&id)?;
        if let Some(key) = &pending.claim {
            self.claims.remove(key);
        }
        for taken in &pending.reserves {
            if let Some(of_key) = self.reserves.get_mut(&taken.key) {
                of_key.retain(|(of, _, _)| *of != id);
                if of_key.is_empty() {
                    self.reserves.remove(&taken.key);
                }
            }
        }
        if let Some(hold) = &pending.approved_hold {
            self.used_holds.remove(hold);
        }
        if let Some(key) = &pending.holds {
            self.holds.remove(key);
        }
        Some(pending)
    }
}
