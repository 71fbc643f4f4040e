//! One evaluation: the four sets, and the one verdict they make. Pure; runs on an evaluation thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use regorus::{Engine, Value};

use super::bundle::{ContractSet, Sets};
use super::{convert, engine};
use crate::limits;
use crate::model::{Decision, Json, PolicyReason, ReasonCode};

/// What policy said. Says nothing about bytes and permits nothing by itself; `pdp` binds it to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub decision: Decision,
    /// Sorted, without repeats; never empty.
    pub reasons: Vec<PolicyReason>,
    /// `Some` if policy was not evaluated to the end; then `decision` is SILENCE.
    pub not_evaluated: Option<ReasonCode>,
    /// For the log, never for the caller.
    pub cause: Option<String>,
}

/// Why a set cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable(pub &'static str);

impl Finding {
    /// Policy could not say.
    pub(super) fn silence(code: ReasonCode, cause: String) -> Self {
        Self {
            decision: Decision::Silence,
            reasons: vec![code.into()],
            not_evaluated: Some(code),
            cause: Some(cause),
        }
    }

    /// Which answer the caller gets; `None` for a PERMIT.
    pub fn refusal_code(&self) -> Option<ReasonCode> {
        match (self.not_evaluated, self.decision) {
            (Some(code), _) => Some(code),
            (None, Decision::Permit) => None,
            (None, Decision::Deny) => Some(ReasonCode::PolicyDenied),
            (None, Decision::Silence) => Some(ReasonCode::PolicySilent),
            (None, Decision::Escalate) => Some(ReasonCode::PolicyEscalated),
            (None, Decision::Quarantine) => Some(ReasonCode::PolicyQuarantined),
        }
    }
}

/// Evaluates every set, all of them always: an error in the last is an error of the whole.
pub(super) fn evaluate(pristine: &Engine, sets: &Sets, input: &Json, steps_max: u32) -> Finding {
    // The clone is dropped in here on every path: after an error or a panic its state is nobody's.
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let mut engine = pristine.clone();
        engine::bound(&mut engine, steps_max);
        engine.set_input(convert::value_of(input));
        sets.iter().map(|(set, path)| elements(&mut engine, path).map(|found| (*set, found))).collect()
    }));
    match evaluated {
        Ok(Ok(found)) => verdict(found),
        Ok(Err(finding)) => finding,
        Err(_) => Finding::silence(ReasonCode::EvaluationPanic, "the engine panicked".into()),
    }
}

fn elements(engine: &mut Engine, path: &str) -> Result<Vec<PolicyReason>, Finding> {
    let value = engine.eval_rule(path.to_string()).map_err(|e| {
        let cause = if engine::is_step_limit(&e) {
            format!("{path} needs more steps than an evaluation may take")
        } else {
            e.to_string()
        };
        Finding::silence(ReasonCode::EvaluationError, cause)
    })?;
    reasons_of(&value).map_err(|Unusable(why)| {
        Finding::silence(ReasonCode::EvaluationResultInvalid, format!("{path} holds {why}"))
    })
}

fn reasons_of(value: &Value) -> Result<Vec<PolicyReason>, Unusable> {
    let mut reasons: Vec<PolicyReason> = match value {
        Value::Set(items) => items.iter().map(convert::reason_of).collect::<Result<_, _>>()?,
        Value::Array(items) => items.iter().map(convert::reason_of).collect::<Result<_, _>>()?,
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)
        | Value::Undefined => {
            return Err(Unusable("no set"));
        }
    };
    if reasons.len() > limits::POLICY_REASONS_MAX {
        return Err(Unusable("more reasons than a receipt may hold"));
    }
    let text =
        |r: &PolicyReason| serde_json::to_string(r).map_err(|_| Unusable("a reason with no JSON text"));
    let mut keyed = reasons.drain(..).map(|r| Ok((text(&r)?, r))).collect::<Result<Vec<_>, _>>()?;
    if keyed.iter().map(|(text, _)| text.len()).sum::<usize>() > limits::POLICY_REASONS_BYTES_MAX {
        return Err(Unusable("reasons larger than a receipt may hold"));
    }
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed.dedup_by(|(a, _), (b, _)| a == b);
    Ok(keyed.into_iter().map(|(_, reason)| reason).collect())
}

/// Quarantine over deny over escalate over permit over SILENCE.
fn verdict(found: Vec<(ContractSet, Vec<PolicyReason>)>) -> Finding {
    let first = found.into_iter().filter(|(_, reasons)| !reasons.is_empty()).min_by_key(|(set, _)| *set);
    let (decision, reasons) = match first {
        Some((ContractSet::Quarantine, reasons)) => (Decision::Quarantine, reasons),
        Some((ContractSet::Deny, reasons)) => (Decision::Deny, reasons),
        Some((ContractSet::Escalate, reasons)) => (Decision::Escalate, reasons),
        Some((ContractSet::Permit, reasons)) => (Decision::Permit, reasons),
        None => (Decision::Silence, vec![ReasonCode::PolicySilent.into()]),
    };
    Finding { decision, reasons, not_evaluated: None, cause: None }
}
