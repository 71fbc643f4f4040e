//! What becomes known later of outcomes that nobody knew.
//!
//! In: somebody's word on a PERMIT whose outcome is `indeterminate`: an operator's, or that of the upstream's own records,
//! which [`Lookups`] asks for where a surface declares how. Out: one leaf, never two ([`Reconciler::settle`]). Claims and
//! budgets follow the leaf, whoever's word it is.
//!
//! ```text
//! lookup    one surface's task: asks, makes sure that an answer is about that request and no other, settles
//! memory    which unknown outcomes are that surface's, and when each is asked about next
//! records   what the log says of a request, and of its key
//! ```

mod lookup;
mod memory;
mod records;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use lookup::{Lookups, StatusLookup};

use crate::authority::Fold;
use crate::ledger::{Attestation, Ledger, Receipt, Unrecorded};
use crate::model::LeafIndex;

/// Where all words on unknown outcomes come together. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler(Arc<Shared>);

struct Shared {
    fold: Arc<Fold>,
    ledger: Ledger,
    /// One looks whether an outcome is still unknown and records what became of it; by then the state has it, before the
    /// next one looks.
    turn: tokio::sync::Mutex<()>,
    /// Of outcomes that are asked about.
    progress: Mutex<BTreeMap<LeafIndex, Progress>>,
}

/// Nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSettled {
    /// The outcome is known, or there is none yet, or it is of no PERMIT.
    NotUnknown,
    Unrecorded(Unrecorded),
    Panicked,
}

/// How far asking the upstream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub questions: u32,
    pub last: LookupResult,
}

/// What came of one question, or why none was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    Confirmed,
    Failed,
    /// The upstream knows the request, and not yet what becomes of it.
    Open,
    /// The upstream does not know the key, and that says nothing.
    NotFound,
    /// No whole answer in time.
    Unanswered,
    /// An answer that says nothing that can be relied on.
    Unusable,
    /// The request had no key, or one that cannot stand in the question.
    NoKey,
    /// Another PERMIT has the same key: whose effect an answer is about cannot be told.
    SharedKey,
    /// Somebody else has said what became of it meanwhile.
    SettledAlready,
    /// The log could not be read, or did not take the leaf.
    LogUnavailable,
}

impl LookupResult {
    pub const ALL: [Self; 10] = [
        Self::Confirmed,
        Self::Failed,
        Self::Open,
        Self::NotFound,
        Self::Unanswered,
        Self::Unusable,
        Self::NoKey,
        Self::SharedKey,
        Self::SettledAlready,
        Self::LogUnavailable,
    ];

    /// For metrics and operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Open => "open",
            Self::NotFound => "not_found",
            Self::Unanswered => "unanswered",
            Self::Unusable => "unusable",
            Self::NoKey => "no_key",
            Self::SharedKey => "shared_key",
            Self::SettledAlready => "settled_already",
            Self::LogUnavailable => "log_unavailable",
        }
    }
}

impl Reconciler {
    pub fn new(fold: Arc<Fold>, ledger: Ledger) -> Self {
        Self(Arc::new(Shared {
            fold,
            ledger,
            turn: tokio::sync::Mutex::default(),
            progress: Mutex::default(),
        }))
    }

    pub fn fold(&self) -> &Arc<Fold> {
        &self.0.fold
    }

    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Records what became of a PERMIT, if nobody has said so before. In turn, and to its end, also if whoever asked has
    /// gone: when it returns, the state has it.
    pub async fn settle(&self, attestation: Attestation) -> Result<Receipt, NotSettled> {
        let own = self.0.clone();
        let settling = tokio::spawn(async move {
            let _turn = own.turn.lock().await;
            if !own.fold.is_unknown(attestation.decision_index) {
                return Err(NotSettled::NotUnknown);
            }
            own.ledger.record_attestation(attestation).await.map_err(NotSettled::Unrecorded)
        });
        settling.await.unwrap_or(Err(NotSettled::Panicked))
    }

    /// Of the outcome of this decision; `None` if it is not asked about, or was not yet.
    pub fn progress(&self, decision: LeafIndex) -> Option<Progress> {
        self.progresses().get(&decision).copied()
    }

    fn note(&self, decision: LeafIndex, progress: Progress) {
        self.progresses().insert(decision, progress);
    }

    fn forget(&self, decisions: &[LeafIndex]) {
        let mut progresses = self.progresses();
        for decision in decisions {
            progresses.remove(decision);
        }
    }

    fn progresses(&self) -> MutexGuard<'_, BTreeMap<LeafIndex, Progress>> {
        // It is whole after every statement.
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").field("fold", &self.0.fold).finish_non_exhaustive()
    }
}
