//! What the log says of a request whose outcome is not known, and of its idempotency key.
//!
//! Everything is read at a snapshot that has all that was durable when the question came: a PERMIT that could have had an
//! effect by then is in it. If there is none soon, nothing is said.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::authority::UnknownOutcome;
use crate::ledger::{Ledger, ReadError, Reader, Search, Snapshot};
use crate::limits;
use crate::model::entry::{DecisionEntry, Entry};
use crate::model::{Decision, IdempotencyKey, LeafIndex, OutcomeStatus};

pub struct Records {
    ledger: Ledger,
    reader: Reader,
}

/// Nothing can be said now.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("what is durable cannot be read yet")]
    Behind,
    #[error("{0}")]
    Failed(#[from] ReadError),
    #[error("entry {0} is no decision")]
    NoDecision(LeafIndex),
    #[error("reading the log panicked")]
    Panicked,
}

impl Records {
    pub fn new(ledger: Ledger) -> Self {
        Self { reader: ledger.reader(), ledger }
    }

    /// With their decisions, in the same order.
    pub async fn decisions(
        &self,
        outcomes: Vec<UnknownOutcome>,
    ) -> Result<Vec<(UnknownOutcome, DecisionEntry)>, Unread> {
        self.read(move |reader, at| {
            let one = |outcome: UnknownOutcome| {
                let index = outcome.decision_index;
                let leaf = reader.entries(at, index, 1)?.pop();
                match leaf.map(|leaf| Entry::from_bytes_unverified(&leaf)) {
                    Some(Ok(Entry::Decision(decision))) if decision.id == outcome.decision_id => {
                        Ok((outcome, *decision))
                    }
                    Some(_) | None => Err(Unread::NoDecision(index)),
                }
            };
            outcomes.into_iter().map(one).collect()
        })
        .await
    }

    /// Whether another PERMIT of this log, of whatever actor and surface, was for a request with the same key and may have
    /// had an effect. Also if there are too many to look at.
    pub async fn is_shared(&self, key: IdempotencyKey, own: LeafIndex) -> Result<bool, Unread> {
        self.read(move |reader, at| is_shared(reader, at, &key, own)).await
    }

    /// Off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader, &Snapshot) -> Result<T, Unread> + Send + 'static,
    ) -> Result<T, Unread> {
        let leaves = self.ledger.statistics().leaves;
        let mut snapshots = self.reader.subscribe();
        let wait = Duration::from_millis(limits::ADMIN_UP_TO_DATE_MS_MAX);
        let at: Arc<Snapshot> = match timeout(wait, snapshots.wait_for(|at| at.size().0 >= leaves)).await {
            Ok(Ok(at)) => at.clone(),
            // Late, or nobody publishes any more.
            Ok(Err(_)) | Err(_) => return Err(Unread::Behind),
        };
        let reader = self.reader.clone();
        spawn_blocking(move || read(&reader, &at)).await.unwrap_or(Err(Unread::Panicked))
    }
}

fn is_shared(reader: &Reader, at: &Snapshot, key: &IdempotencyKey, own: LeafIndex) -> Result<bool, Unread> {
    let mut from = LeafIndex(0);
    for _ in 0..limits::STATUS_SEARCHES_MAX {
        let search = Search {
            actor: None,
            idempotency_key: Some(key.clone()),
            since: None,
            until: None,
            from,
            max: limits::READ_ENTRIES_MAX,
        };
        let found = reader.search(at, &search)?;
        for (index, leaf) in found.leaves {
            let Ok(Entry::Decision(decision)) = Entry::from_bytes_unverified(&leaf) else { continue };
            let is_permit = decision.decision == Decision::Permit;
            if index != own && is_permit && !is_not_sent(reader, at, index)? {
                return Ok(true);
            }
        }
        if found.next.0 >= at.size().0 {
            return Ok(false);
        }
        from = found.next;
    }
    Ok(true)
}

/// What was not sent had no effect; what has no outcome yet may have one.
fn is_not_sent(reader: &Reader, at: &Snapshot, decision: LeafIndex) -> Result<bool, Unread> {
    let leaf = reader.outcome(at, decision)?.map(|(_, leaf)| Entry::from_bytes_unverified(&leaf));
    Ok(matches!(leaf, Some(Ok(Entry::Outcome(outcome))) if outcome.status == OutcomeStatus::NotSent))
}
