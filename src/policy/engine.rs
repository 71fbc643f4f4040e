//! How an engine is set up: strict, and bounded in steps.
//!
//! The engine counts work units (a statement, a call, an element of a loop, a collection built) and asks
//! its clock once every `check_interval` of them, failing if more than `limit` has passed. With a limit of
//! zero that clock is beside the point: some time always has, so the evaluation ends at exactly the unit
//! `check_interval` names, on every machine. That makes the bound a deterministic step budget, which
//! replays; the wall clock is the caller's deadline in `pdp`.

use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError};

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

pub(super) fn is_step_limit(error: &anyhow::Error) -> bool {
    error.downcast_ref::<LimitError>().is_some()
}
