//! How operators reach the task that loads policy.
//!
//! In: an administrator's word that what policy is read from is to be looked at now. Out: what became of it, with the
//! leaf of the activation. The task is the gateway's; it takes one order after the other, and finishes what it has
//! begun, also if whoever asked has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::control::Done;
use super::problem::Refusal;
use crate::limits;
use crate::model::Digest;
use crate::model::entry::OperatorEntry;

/// Who wants it, and why.
#[derive(Debug)]
pub struct PolicyAsk {
    pub by: OperatorEntry,
    pub reason: Arc<str>,
    /// The revision that may become active although it is not after the newest.
    pub older: Option<Digest>,
}

/// One that waits for its answer.
pub struct PolicyOrder {
    pub ask: PolicyAsk,
    answer: oneshot::Sender<Result<Done, Refusal>>,
}

impl PolicyOrder {
    /// Nobody may be there to hear it.
    pub fn answer(self, done: Result<Done, Refusal>) {
        let _ = self.answer.send(done);
    }
}

/// The operators' end.
#[derive(Clone)]
pub struct PolicyAsks(mpsc::Sender<PolicyOrder>);

/// The end of the task that loads.
pub type PolicyOrders = mpsc::Receiver<PolicyOrder>;

impl PolicyAsks {
    pub fn new() -> (Self, PolicyOrders) {
        let (asks, orders) = mpsc::channel(limits::POLICY_ASKS_MAX);
        (Self(asks), orders)
    }

    pub async fn ask(&self, ask: PolicyAsk) -> Result<Done, Refusal> {
        let (answer, answered) = oneshot::channel();
        // Either end is gone only when the gateway stops, or the task panicked.
        self.0.send(PolicyOrder { ask, answer }).await.map_err(|_stopped| Refusal::Panicked)?;
        answered.await.map_err(|_stopped| Refusal::Panicked)?
    }
}

/// Whether the newest policy is the one that judges.
#[derive(Clone, Debug, Default)]
pub struct PolicyHealth(Arc<AtomicBool>);

impl PolicyHealth {
    pub fn set_failing(&self, is_failing: bool) {
        self.0.store(is_failing, Ordering::Relaxed);
    }

    pub fn is_failing(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// For readiness: a closed list.
    pub fn word(&self) -> &'static str {
        if self.is_failing() { "failing" } else { "in_force" }
    }
}
