//! The evaluator.

use std::sync::Arc;

use crate::canonical::ExecutionRequest;
use crate::clock::WallTime;
use crate::model::{Digest, Json, PackageName, ReadSet};

/// What authority knows about a request, for `input.context`.
#[derive(Clone, Debug)]
pub struct Context {
    /// Objects and lists exactly as the contract names them.
    pub facts: Json,
    pub budgets: Json,
    pub approvals: Json,
    /// From 1; evaluations of this request so far, counting this one.
    pub attempt: u32,
}

impl Context {
    /// Nothing but the attempt: no facts, budgets or approvals.
    pub fn empty(attempt: u32) -> Self {
        Self {
            facts: Json::object([]),
            budgets: Json::object([]),
            approvals: Json::Array(Vec::new()),
            attempt,
        }
    }
}

/// Everything one evaluation needs.
#[derive(Debug)]
pub struct Question {
    pub execution: ExecutionRequest,
    pub package: PackageName,
    pub context: Context,
    pub read_set: ReadSet,
    pub now: WallTime,
}

/// The active bundle and its evaluation threads. Cheap to clone.
#[derive(Clone)]
pub struct Pdp(Arc<()>);

impl Pdp {
    /// Always a judgment; whatever goes wrong is SILENCE with its cause.
    pub async fn judge(&self, question: Question) -> super::Judgment {
        let _ = question;
        todo!()
    }

    /// Digest of the active bundle (RECEIPTS.md).
    pub fn revision(&self) -> Digest {
        todo!()
    }
}
