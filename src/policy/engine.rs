//! How an engine is set up: strict, and bounded in steps.
//!
//! The engine counts work units (a statement, a call, an element of a loop, a collection built) and asks
//! its clock once every `check_interval` of them, failing if more than `limit` has passed. With a limit of
//! zero that clock is beside the point: some time always has, so the evaluation ends at exactly the unit
//! `check_interval` names, on every machine. That makes the bound a deterministic step budget, which
//! replays; the wall clock is the caller's deadline in `pdp`.

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError};

use super::fault::{BundleError, Fault};
use crate::limits;

/// The reference evaluator: an error in a builtin is an error, never `undefined`.
pub(super) fn strict() -> Engine {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    engine
}

/// Bounds each following evaluation of one rule to `steps_max` work units.
pub(super) fn bound(engine: &mut Engine, steps_max: u32) {
    let check_interval = NonZeroU32::new(steps_max).unwrap_or(NonZeroU32::MIN);
    engine.set_execution_timer_config(ExecutionTimerConfig { limit: Duration::ZERO, check_interval });
}

/// Runs `work` on a stack that holds what the engine needs, and waits for it.
pub fn on_a_large_stack<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, BundleError> {
    let joined = thread::scope(|scope| {
        let builder = thread::Builder::new().name(name.into()).stack_size(limits::EVALUATION_STACK_BYTES);
        builder.spawn_scoped(scope, work).map(|thread| thread.join())
    });
    match joined {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(BundleError::engine_panicked()),
        Err(e) => Err(Fault::of_bundle("no_thread", format!("there is no thread to work on: {e}")).into()),
    }
}

pub(super) fn is_step_limit(error: &anyhow::Error) -> bool {
    error.downcast_ref::<LimitError>().is_some()
}
