//! What policy said, bound to what it said it about.

use std::sync::Arc;

use bytes::Bytes;

use crate::canonical::ExecutionRequest;
use crate::clock::WallTime;
use crate::model::{Decision, Digest, PackageName, PolicyReason, ReadSet, ReasonCode};

/// An element of `permit` was found, and nothing above it in precedence.
#[derive(Debug)]
pub struct Permit {
    reasons: Vec<PolicyReason>,
}

/// Anything else.
#[derive(Debug)]
pub struct Refusal {
    decision: Decision,
    reasons: Vec<PolicyReason>,
    code: ReasonCode,
}

/// How the verdict came about.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// `Some` if policy was not evaluated to the end.
    pub not_evaluated: Option<ReasonCode>,
    /// The policy input in RFC 8785 form: evidence.
    pub input: Bytes,
    pub input_digest: Digest,
    pub package: PackageName,
    pub revision: Digest,
    pub engine: Arc<str>,
    pub at: WallTime,
}

/// A request, what was read, and the verdict on it. Cannot be taken apart and put together otherwise.
#[derive(Debug)]
pub struct Evaluated<V> {
    execution: ExecutionRequest,
    read_set: ReadSet,
    evaluation: Evaluation,
    verdict: V,
}

impl<V> Evaluated<V> {
    pub(in crate::policy) fn new(
        execution: ExecutionRequest,
        read_set: ReadSet,
        evaluation: Evaluation,
        verdict: V,
    ) -> Self {
        Self { execution, read_set, evaluation, verdict }
    }

    #[cfg(test)]
    pub(crate) fn for_test(
        execution: ExecutionRequest,
        read_set: ReadSet,
        evaluation: Evaluation,
        verdict: V,
    ) -> Self {
        Self::new(execution, read_set, evaluation, verdict)
    }

    pub fn execution(&self) -> &ExecutionRequest {
        &self.execution
    }

    pub fn read_set(&self) -> &ReadSet {
        &self.read_set
    }

    pub fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    pub fn verdict(&self) -> &V {
        &self.verdict
    }

    /// Gives the request up for another evaluation; the verdict is gone with it.
    pub fn into_execution(self) -> ExecutionRequest {
        self.execution
    }
}

impl Permit {
    pub(in crate::policy) fn new(reasons: Vec<PolicyReason>) -> Self {
        Self { reasons }
    }

    #[cfg(test)]
    pub(crate) fn for_test(reasons: Vec<PolicyReason>) -> Self {
        Self::new(reasons)
    }

    pub fn reasons(&self) -> &[PolicyReason] {
        &self.reasons
    }
}

impl Refusal {
    /// A refusal that says PERMIT would be our own broken promise.
    pub(in crate::policy) fn new(decision: Decision, reasons: Vec<PolicyReason>, code: ReasonCode) -> Self {
        assert!(decision != Decision::Permit, "a refusal is never a PERMIT");
        Self { decision, reasons, code }
    }

    #[cfg(test)]
    pub(crate) fn for_test(decision: Decision, reasons: Vec<PolicyReason>, code: ReasonCode) -> Self {
        Self::new(decision, reasons, code)
    }

    /// Never [`Decision::Permit`].
    pub fn decision(&self) -> Decision {
        self.decision
    }

    pub fn reasons(&self) -> &[PolicyReason] {
        &self.reasons
    }

    /// Which answer the caller gets.
    pub fn code(&self) -> ReasonCode {
        self.code
    }
}

/// One of the two.
#[derive(Debug)]
pub enum Judgment {
    Permit(Evaluated<Permit>),
    Refusal(Evaluated<Refusal>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a refusal is never a PERMIT")]
    fn a_refusal_cannot_say_permit() {
        let _ = Refusal::for_test(Decision::Permit, Vec::new(), ReasonCode::PolicyDenied);
    }

    #[test]
    fn evidence_keeps_what_it_was_made_of() {
        let question = crate::policy::tests::question("gateway.p");
        let evaluation = Evaluation {
            not_evaluated: None,
            input: Bytes::from_static(b"{}"),
            input_digest: Digest::of(b"{}"),
            package: question.package.clone(),
            revision: Digest::of(b"bundle"),
            engine: "engine".into(),
            at: question.now,
        };
        let digest = question.execution.request.digest();
        let permit = Permit::for_test(vec![ReasonCode::PolicySilent.into()]);
        let evaluated = Evaluated::for_test(question.execution, question.read_set, evaluation, permit);
        assert_eq!(evaluated.verdict().reasons().len(), 1);
        assert_eq!(evaluated.execution().request.digest(), digest);
        assert_eq!(evaluated.into_execution().request.digest(), digest);
    }
}
