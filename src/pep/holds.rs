//! Requests that wait for people.
//!
//! A caller that sends `Prefer: wait=N` (RFC 7240) waits in place until the hold on its request changes, then the
//! request is decided again from the beginning. A bounded number waits, each no longer than the surface allows; a
//! caller that has gone, and a gateway that is going, end the wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::consult::asked;
use super::decide::Held;
use super::{Gate, Surface};
use crate::authority::HoldView;
use crate::canonical::ExecutionRequest;
use crate::limits;

/// How long a caller is ready to wait for people.
#[derive(Debug)]
pub struct Patience {
    /// What it asked for; `None` if it does not wait.
    pub wait: Option<Duration>,
    /// Cancelled when the caller has gone.
    pub gone: CancellationToken,
    /// How long the gateway was ready to wait with it, once it did.
    pub applied: Option<Duration>,
}

impl Patience {
    pub fn none() -> Self {
        Self { wait: None, gone: CancellationToken::new(), applied: None }
    }
}

/// Requests that wait at once.
pub fn waiters() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits::HOLD_WAITERS_MAX))
}

/// Waits for a change of the hold. `false`: there was none in time, or nobody waits any more.
pub(super) async fn changed(
    gate: &Gate,
    surface: &Surface,
    execution: &ExecutionRequest,
    held: &Held,
    patience: &mut Patience,
) -> bool {
    // A second wait in one request gets what the first one left.
    let Some(wait) = patience.wait.take() else { return false };
    let wait = wait.min(surface.authority.holds.wait_max);
    if wait.is_zero() || held.is_refused {
        return false;
    }
    let Ok(_slot) = gate.waiters.try_acquire() else { return false };
    patience.applied.get_or_insert(wait);
    let began = gate.clock.monotonic();
    // In this order: a change that has come counts also for a caller that goes just then, and equal runs are equal.
    let seen_change = tokio::select! {
        biased;
        change = timeout(wait, other_than(gate, surface, execution, held)) => change.is_ok(),
        () = patience.gone.cancelled() => false,
        () = gate.drain.cancelled() => false,
    };
    patience.wait = wait.checked_sub(gate.clock.monotonic().since(began));
    seen_change
}

/// Resolves when the hold is not what the decision saw.
async fn other_than(gate: &Gate, surface: &Surface, execution: &ExecutionRequest, held: &Held) {
    let mut changes = gate.hold_changes.clone();
    loop {
        changes.mark_unchanged();
        let now = gate.clock.wall();
        let view = gate.state.read(asked(surface, execution, &[], now)).await;
        let is_as_seen = |hold: &HoldView| {
            hold.id == held.id && hold.refused.is_none() && hold.approvals.len() == held.approvals
        };
        if !view.hold.as_ref().is_some_and(is_as_seen) {
            return;
        }
        // Time changes a hold as well, and nobody is told.
        let look_again = Duration::from_millis(limits::HOLD_SWEEP_MS);
        let _ = timeout(look_again, changes.changed()).await;
    }
}
