//! The enforcement point: one execution request, from admission to the head of an answer.
//!
//! [`admit`] is the whole path on one screen. Every way out of it is either the upstream's answer to exactly the
//! bytes that were judged, or a [`Refused`] that names why nothing came of it.

mod surface;

use std::sync::Arc;

pub use surface::{Hosts, Matched, NoRoute, Route, Routes, Surface};

use crate::authority::{Credentials, IDENTITY, ProvedUnder, Versions};
use crate::canonical::ExecutionRequest;
use crate::clock::{Clock, Moment};
use crate::ledger::{Ledger, Receipt, Recorded, Recording, Rejection, Unrecorded};
use crate::limits;
use crate::model::{Decision, OutcomeStatus, PolicyReason, ReasonCode, ReceiptId};
use crate::policy::{Context, Evaluated, Judgment, Pdp, Permit, Question, Refusal};
use crate::telemetry::{Alarm, Metrics};
use crate::upstream::{self, Answer, Lease, LeaseError, NoAnswer, PermittedRequest};

/// What every request passes: the decision point, the log, and the state both rest on.
#[derive(Clone)]
pub struct Gate {
    pub pdp: Pdp,
    pub ledger: Ledger,
    pub versions: Versions,
    pub credentials: Arc<Credentials>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// Nothing was forwarded, or no answer came.
#[derive(Debug)]
pub enum Refused {
    /// Policy gave no permit; the receipt is durable.
    Verdict { code: ReasonCode, decision: Decision, reasons: Vec<PolicyReason>, receipt: Receipt },
    /// The receipt could not be written.
    Unrecorded(Unrecorded),
    /// No connection to the upstream; no decision was made.
    NotLeased { error: LeaseError, receipt: Option<Receipt> },
    /// Permitted, but what the permits rested on kept moving, or connections kept closing before a byte left.
    NotSent { code: ReasonCode, receipt: Receipt },
    /// Sent, at least in part, and not answered: `indeterminate`.
    NoAnswer { code: ReasonCode, receipt: Receipt },
}

/// A permit of which nothing was sent, and the request to decide on again.
struct Again {
    execution: ExecutionRequest,
    receipt: Receipt,
    code: ReasonCode,
}

/// Decides, records, seals and sends one request. `received` is when its last byte came in, and `proved` what its
/// actor was proved under.
pub async fn admit(
    gate: &Gate,
    surface: &Surface,
    mut execution: ExecutionRequest,
    received: Moment,
    proved: &ProvedUnder,
) -> Result<Answer, Refused> {
    let mut last: Option<(Receipt, ReasonCode)> = None;
    for attempt in 1..=limits::EVALUATIONS_MAX {
        let supersedes = last.as_ref().and_then(|(receipt, _)| receipt.id);
        // A connection first, so that nothing waits between the decision and the first byte.
        let lease;
        (lease, execution) = lease_for(gate, surface, execution, proved, attempt, supersedes).await?;
        // Now decide, on what is true now.
        let permit = match judge(gate, surface, execution, proved, attempt).await {
            Judgment::Permit(permit) => permit,
            Judgment::Refusal(refusal) => {
                lease.give_back_unused();
                return Err(record_refusal(gate, refusal, supersedes).await);
            }
        };
        // Nothing is forwarded before the receipt is durable.
        let recorded = record_permit(gate, permit, supersedes).await?;
        // The airlock: still true, still young, exactly these bytes; then the wire.
        let again = match upstream::seal(
            recorded,
            &gate.versions,
            &gate.credentials,
            surface.permit_age_max,
            &gate.clock,
        ) {
            Err(moved) => {
                lease.give_back_unused();
                gate.metrics.settled(&surface.name, OutcomeStatus::NotSent);
                tracing::info!(surface = %surface.name, what = %moved.name, "read set moved");
                if *moved.name == *upstream::CREDENTIAL_EXPIRED {
                    let (code, receipt) = (ReasonCode::CredentialInvalid, moved.receipt);
                    return Err(Refused::NotSent { code, receipt });
                }
                if *moved.name == *IDENTITY {
                    // The credential has to be looked at again, and only a new request brings it.
                    let (code, receipt) = (ReasonCode::ReadSetMoved, moved.receipt);
                    return Err(Refused::NotSent { code, receipt });
                }
                Again { execution: moved.execution, receipt: moved.receipt, code: ReasonCode::ReadSetMoved }
            }
            Ok(permitted) => {
                gate.metrics.added(&surface.name, gate.clock.monotonic().since(received));
                match send(gate, surface, permitted, lease).await? {
                    Sent::Answered(answer) => return Ok(*answer),
                    Sent::Nothing(again) => *again,
                }
            }
        };
        execution = again.execution;
        last = Some((again.receipt, again.code));
    }
    let (receipt, code) = last.expect("the loop runs at least once and every round that goes on sets it");
    Err(Refused::NotSent { code, receipt })
}

/// A connection for this round. When none is idle, policy is asked before one is opened, so that what is refused
/// never opens a connection; that answer is thrown away, and the one that counts is given after the connection
/// stands.
async fn lease_for(
    gate: &Gate,
    surface: &Surface,
    mut execution: ExecutionRequest,
    proved: &ProvedUnder,
    attempt: u32,
    supersedes: Option<ReceiptId>,
) -> Result<(Lease, ExecutionRequest), Refused> {
    let leased = if attempt == 1 {
        if let Some(lease) = surface.upstream.try_idle() {
            return Ok((lease, execution));
        }
        execution = match judge(gate, surface, execution, proved, attempt).await {
            Judgment::Permit(permit) => permit.into_execution(),
            Judgment::Refusal(refusal) => return Err(record_refusal(gate, refusal, supersedes).await),
        };
        surface.upstream.lease().await
    } else {
        // An idle connection that had closed unnoticed is a reason for a second round, not for a third.
        surface.upstream.lease_new().await
    };
    match leased {
        Ok(lease) => Ok((lease, execution)),
        Err(error) => {
            tracing::warn!(surface = %surface.name, %error, "no connection to the upstream");
            let rejection = Rejection {
                actor: execution.actor.clone(),
                surface: Some(surface.name.clone()),
                code: error.code(),
                place: None,
                received_digest: Some(execution.request.received_digest()),
                redacts: execution.request.redaction().is_some(),
            };
            let receipt = gate.ledger.record_rejection(rejection).await.map_err(Refused::Unrecorded)?;
            Err(Refused::NotLeased { error, receipt })
        }
    }
}

async fn judge(
    gate: &Gate,
    surface: &Surface,
    execution: ExecutionRequest,
    proved: &ProvedUnder,
    attempt: u32,
) -> Judgment {
    let mut read_set = gate.versions.capture(&gate.clock);
    proved.stand_in(&mut read_set);
    let question = Question {
        execution,
        package: surface.package.clone(),
        context: Context::empty(attempt),
        read_set,
        now: gate.clock.wall(),
    };
    gate.pdp.judge(question).await
}

async fn record_permit(
    gate: &Gate,
    permit: Evaluated<Permit>,
    supersedes: Option<ReceiptId>,
) -> Result<Recorded<Permit>, Refused> {
    let before = gate.clock.monotonic();
    let id = gate.ledger.new_id().map_err(Refused::Unrecorded)?;
    let recording = Recording::new(id, supersedes);
    let recorded = gate.ledger.record_permit(permit, recording).await.map_err(Refused::Unrecorded)?;
    gate.metrics.recorded(gate.clock.monotonic().since(before));
    let unit = recorded.evaluated().execution();
    gate.metrics.decided(&unit.surface, &unit.action, Decision::Permit, None);
    Ok(recorded)
}

/// A refusal is answered only after its leaf is durable.
async fn record_refusal(gate: &Gate, refusal: Evaluated<Refusal>, supersedes: Option<ReceiptId>) -> Refused {
    let unit = refusal.execution();
    let verdict = refusal.verdict();
    let (code, decision, reasons) = (verdict.code(), verdict.decision(), verdict.reasons().to_vec());
    gate.metrics.decided(&unit.surface, &unit.action, decision, Some(code));
    tracing::info!(
        surface = %unit.surface, action = %unit.action, actor = %unit.actor.id, decision = decision.as_str(),
        reason = %code, "not permitted"
    );
    let before = gate.clock.monotonic();
    let id = match gate.ledger.new_id() {
        Ok(id) => id,
        Err(unrecorded) => return Refused::Unrecorded(unrecorded),
    };
    match gate.ledger.record_refusal(refusal, Recording::new(id, supersedes)).await {
        Err(unrecorded) => Refused::Unrecorded(unrecorded),
        Ok(recorded) => {
            gate.metrics.recorded(gate.clock.monotonic().since(before));
            Refused::Verdict { code, decision, reasons, receipt: recorded.receipt().clone() }
        }
    }
}

enum Sent {
    Answered(Box<Answer>),
    Nothing(Box<Again>),
}

async fn send(
    gate: &Gate,
    surface: &Surface,
    permitted: PermittedRequest,
    lease: Lease,
) -> Result<Sent, Refused> {
    let settings = surface.upstream.settings();
    let before = gate.clock.monotonic();
    let in_flight = permitted.forward(lease);
    match in_flight.answer(settings.response_head_max, settings.response_idle_max).await {
        Ok(answer) => {
            gate.metrics.answered(&surface.name, gate.clock.monotonic().since(before));
            Ok(Sent::Answered(Box::new(answer)))
        }
        Err(no_answer) => {
            let NoAnswer { status, code, receipt, again, is_violation, cause } = *no_answer;
            gate.metrics.settled(&surface.name, status);
            if is_violation {
                gate.metrics.alarm(Alarm::SealViolated);
            }
            tracing::warn!(surface = %surface.name, outcome = status.as_str(), cause, "no answer from the upstream");
            match (again, status) {
                (Some(execution), _) => {
                    Ok(Sent::Nothing(Box::new(Again { execution: *execution, receipt, code })))
                }
                (None, OutcomeStatus::NotSent) => Err(Refused::NotSent { code, receipt }),
                (None, OutcomeStatus::Indeterminate | OutcomeStatus::Confirmed | OutcomeStatus::Failed) => {
                    Err(Refused::NoAnswer { code, receipt })
                }
            }
        }
    }
}
