//! The policy decision point: the only user of the Rego engine.
//!
//! In: an [`ExecutionRequest`](crate::canonical::ExecutionRequest), a read set and the context. Out: a
//! [`Judgment`], always: whatever the engine does (error, panic, time-out) ends as a refusal with
//! SILENCE. Only this module can make an [`Evaluated`].

mod pdp;
mod verdict;

pub use pdp::{Context, Pdp, Question};
pub use verdict::{Evaluated, Evaluation, Judgment, Permit, Refusal};
