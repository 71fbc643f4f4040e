//! The policy decision point: the only user of the Rego engine.
//!
//! In: an [`ExecutionRequest`](crate::canonical::ExecutionRequest), a read set and the context. Out: a
//! [`Judgment`], always: whatever the engine does (error, panic, time-out) ends as a refusal with
//! SILENCE. Only this module can make an [`Evaluated`].

mod archive;
mod bundle;
mod check;
mod convert;
mod engine;
mod evaluate;
mod examine;
mod explain;
mod fault;
mod input;
mod lexical;
mod offline;
mod opa;
mod pdp;
mod problem;
mod schema;
mod signature;
mod source;
mod surroundings;
mod syntax;
pub mod testing;
#[cfg(test)]
mod tests;
mod types;
mod verdict;
mod workers;

pub use bundle::{Bundle, ENGINE};
pub use engine::on_a_large_stack;
pub use evaluate::Finding;
pub use examine::{Examined, examine};
pub use explain::{At, Became, Binding, BodyTrace, Failure, How, RuleTrace, Seen, SetTrace, Values};
pub use fault::{BundleError, Fault};
pub use input::{input_of, subject};
pub use offline::{Offline, read_input};
pub use opa::{Packaged, Signatures, read_archive};
pub use pdp::{Bare, Context, Counts, Observer, Pdp, Prepared, Question, Settings};
pub use problem::{Problem, Severity};
pub use schema::input_schema;
pub use signature::{BundleKey, SigningKey};
pub use source::{BundleFile, DataFile, RegoFile, Sources};
pub use surroundings::{BodyShape, BudgetShape, RouteShape, SurfaceShape, Surroundings};
pub use verdict::{Evaluated, Evaluation, Judgment, Permit, Refusal};
