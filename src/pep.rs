//! The enforcement point: one execution request, from admission to the head of an answer.
//!
//! [`admit`] is the whole path on one screen. Every way out of it is the upstream's answer to exactly the bytes that
//! were judged, the kept answer to an earlier request with the same idempotency key, or a [`Refused`] that names why
//! nothing came of it.
//!
//! ```text
//! consult   claim, facts, budgets, hold, freezes: what is true now, and its versions
//! decide    policy's verdict on that; a PERMIT reserves what it takes, an ESCALATE opens its hold
//! answers   the key has been used: the kept answer, or why there is none
//! holds     the caller waits for people
//! turns     requests that draw on one budget go one after the other
//! ```

mod answers;
mod consult;
mod decide;
mod holds;
mod surface;
mod turns;

use std::sync::Arc;

pub use answers::{Answers, Original, OriginalReceipt, Replayed};
pub use decide::Held;
pub use holds::{Patience, waiters};
pub use surface::{Authority, Holds, Hosts, Idempotency, Matched, NoRoute, Route, Routes, Surface};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
pub use turns::Turns;

use crate::authority::{Changes, Credentials, IDENTITY, ProvedUnder, State, Versions};
use crate::canonical::ExecutionRequest;
use crate::clock::{Anchor, Clock, Moment};
use crate::ledger::{Ledger, Receipt, Recorded, Recording, Rejection, Unrecorded};
use crate::limits;
use crate::model::{Decision, OutcomeStatus, PolicyReason, ReasonCode, ReceiptId};
use crate::policy::{Evaluated, Pdp, Permit, Refusal};
use crate::telemetry::{Alarm, Metrics};
use crate::upstream::{self, Answer, Lease, LeaseError, NoAnswer, PermittedRequest};
use decide::{Decided, NoPermit, Purpose, decide};

/// What every request passes: the decision point, the log, and the state both rest on.
#[derive(Clone)]
pub struct Gate {
    pub pdp: Pdp,
    pub ledger: Ledger,
    pub versions: Versions,
    /// What every decision rests on: `freezes`, `identity`, `policy`.
    pub watched: Arc<[Arc<str>]>,
    pub state: Arc<dyn State>,
    /// Moves with every change of a hold.
    pub hold_changes: Changes,
    pub turns: Turns,
    /// Answers that were given lately, for requests with the same idempotency key.
    pub answers: Arc<Answers>,
    /// Requests that wait for people.
    pub waiters: Arc<Semaphore>,
    /// Nobody is waited for any more.
    pub drain: CancellationToken,
    pub credentials: Arc<Credentials>,
    pub clock: Clock,
    /// Of the start: a wall clock that has been set since decides nothing.
    pub anchor: Anchor,
    pub metrics: Arc<Metrics>,
}

/// Nothing was forwarded, or no answer came.
#[derive(Debug)]
pub enum Refused {
    /// No permit was given; the receipt is durable.
    Verdict {
        code: ReasonCode,
        decision: Decision,
        reasons: Vec<PolicyReason>,
        receipt: Receipt,
        /// It waits for people, or was refused by one.
        held: Option<Held>,
    },
    /// The idempotency key has been used, and there is no answer to give. `receipt` is of the leaf that says so.
    Repeats { code: ReasonCode, original: Original, receipt: Option<Receipt> },
    /// The receipt could not be written.
    Unrecorded(Unrecorded),
    /// No connection to the upstream; no decision was made.
    NotLeased { error: LeaseError, receipt: Option<Receipt> },
    /// Permitted, but what the permits rested on kept moving, or connections kept closing before a byte left.
    NotSent { code: ReasonCode, receipt: Receipt },
    /// Sent, at least in part, and not answered: `indeterminate`.
    NoAnswer { code: ReasonCode, receipt: Receipt },
}

/// Something came of it.
pub enum Admitted {
    Answer(Box<Answer>),
    /// The answer to an earlier request with the same idempotency key.
    Again(Box<Replayed>),
}

/// A permit of which nothing was sent, or none at all, and the request to decide on again.
struct Again {
    execution: ExecutionRequest,
    /// Of the permit.
    receipt: Option<Receipt>,
    code: ReasonCode,
    /// A connection that nothing was written to.
    lease: Option<Lease>,
}

/// How one request ended, if it was not answered.
#[expect(clippy::large_enum_variant, reason = "one for each decision, taken apart at once")]
enum Ended {
    Refused(Refused),
    /// Held for people; the request is kept in case the caller waits.
    Held(ExecutionRequest, Held, Refused),
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Decides, records, seals and sends one request; where policy holds it and the caller waits, again when the hold has
/// changed. `received` is when its last byte came in, and `proved` what its actor was proved under.
pub async fn admit(
    gate: &Gate,
    surface: &Surface,
    mut execution: ExecutionRequest,
    mut received: Moment,
    proved: &ProvedUnder,
    patience: &mut Patience,
) -> Result<Admitted, Refused> {
    loop {
        let (kept, held, refused) = match carry_out(gate, surface, execution, received, proved).await {
            Ok(admitted) => return Ok(admitted),
            Err(Ended::Refused(refused)) => return Err(refused),
            Err(Ended::Held(execution, held, refused)) => (execution, held, refused),
        };
        if !holds::changed(gate, surface, &kept, &held, patience).await {
            return Err(refused);
        }
        execution = kept;
        received = gate.clock.monotonic();
    }
}

async fn carry_out(
    gate: &Gate,
    surface: &Surface,
    execution: ExecutionRequest,
    received: Moment,
    proved: &ProvedUnder,
) -> Result<Admitted, Ended> {
    let mut again = Again { execution, receipt: None, code: ReasonCode::ReadSetMoved, lease: None };
    let mut supersedes = None;
    for attempt in 1..=limits::EVALUATIONS_MAX {
        // A connection first, so that nothing waits between the decision and the first byte.
        let (lease, execution) = match lease_for(gate, surface, again, proved, (attempt, supersedes)).await? {
            Leased::Yes(lease, execution) => (lease, execution),
            Leased::NoNeed(no_permit) => return not_permitted(gate, surface, *no_permit).await,
        };
        // Now decide, on what is true now.
        let decided = decide(gate, surface, execution, proved, (attempt, supersedes), Purpose::Use).await;
        let (permit, recording) = match decided {
            Decided::Permit(permit) => *permit,
            Decided::Moved(execution) => {
                let code = ReasonCode::ReadSetMoved;
                again = Again { execution, receipt: None, code, lease: Some(lease) };
                continue;
            }
            Decided::NoPermit(no_permit) => {
                lease.give_back_unused();
                return not_permitted(gate, surface, *no_permit).await;
            }
        };
        // Nothing is forwarded before the receipt is durable.
        let recorded = record_permit(gate, permit, recording).await?;
        supersedes = recorded.receipt().id;
        // The airlock: still true, still young, exactly these bytes; then the wire, where the first byte asks again.
        let credentials = &gate.credentials;
        let sealed =
            upstream::seal(recorded, &gate.versions, credentials, surface.permit_age_max, &gate.clock);
        again = match sealed {
            Err(moved) => not_sealed(gate, surface, *moved, lease).await?,
            Ok(permitted) => {
                gate.metrics.added(&surface.name, gate.clock.monotonic().since(received));
                match send(gate, surface, permitted, lease).await? {
                    Sent::Answered(answer) => return Ok(Admitted::Answer(answer)),
                    Sent::Nothing(again) => *again,
                }
            }
        };
    }
    Err(too_often(gate, surface, again, proved, supersedes).await.into())
}

#[expect(clippy::large_enum_variant, reason = "one for each decision, taken apart at once")]
enum Leased {
    Yes(Lease, ExecutionRequest),
    /// Nothing would be sent, so no connection was opened.
    NoNeed(Box<NoPermit>),
}

/// A connection for this round. When none is idle, policy is asked before one is opened, so that what is refused
/// never opens a connection; that answer is thrown away, and the one that counts is given after the connection
/// stands.
async fn lease_for(
    gate: &Gate,
    surface: &Surface,
    again: Again,
    proved: &ProvedUnder,
    round: (u32, Option<ReceiptId>),
) -> Result<Leased, Refused> {
    let Again { mut execution, lease, receipt, code: _ } = again;
    // An idle connection that had closed unnoticed is a reason for a second round, not for a third.
    let may_be_idle = receipt.is_none();
    let idle = lease.or_else(|| may_be_idle.then(|| surface.upstream.try_idle()).flatten());
    if let Some(lease) = idle {
        return Ok(Leased::Yes(lease, execution));
    }
    let leased = if may_be_idle {
        execution = match decide(gate, surface, execution, proved, round, Purpose::Look).await {
            Decided::Permit(permit) => permit.0.into_execution(),
            Decided::Moved(execution) => execution,
            Decided::NoPermit(no_permit) => return Ok(Leased::NoNeed(no_permit)),
        };
        surface.upstream.lease().await
    } else {
        surface.upstream.lease_new().await
    };
    match leased {
        Ok(lease) => Ok(Leased::Yes(lease, execution)),
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

/// Every end of a request that came to no permit.
async fn not_permitted(gate: &Gate, surface: &Surface, no_permit: NoPermit) -> Result<Admitted, Ended> {
    match no_permit {
        NoPermit::Refusal(refusal, recording, held) => {
            Err(record_refusal(gate, refusal, recording, held).await)
        }
        NoPermit::Repeats(execution, claim) => Ok(answers::repeat(gate, surface, execution, claim).await?),
        NoPermit::Unrecorded(unrecorded) => Err(Refused::Unrecorded(unrecorded).into()),
    }
}

/// The airlock stayed shut.
async fn not_sealed(
    gate: &Gate,
    surface: &Surface,
    moved: upstream::Moved,
    lease: Lease,
) -> Result<Again, Refused> {
    let upstream::Moved { execution, receipt, name, outcome } = moved;
    gate.metrics.settled(&surface.name, OutcomeStatus::NotSent);
    tracing::info!(surface = %surface.name, what = %name, "read set moved");
    if *name == *upstream::CREDENTIAL_EXPIRED {
        lease.give_back_unused();
        return Err(Refused::NotSent { code: ReasonCode::CredentialInvalid, receipt });
    }
    let code = ReasonCode::ReadSetMoved;
    if *name == *IDENTITY {
        // The credential has to be looked at again, and only a new request brings it.
        lease.give_back_unused();
        return Err(Refused::NotSent { code, receipt });
    }
    // What the permit had taken would stand in the way of the next one.
    match outcome.durable().await {
        Ok(_) => Ok(Again { execution, receipt: Some(receipt), code, lease: Some(lease) }),
        Err(unrecorded) => {
            lease.give_back_unused();
            Err(Refused::Unrecorded(unrecorded))
        }
    }
}

/// What the permits rested on kept moving, or connections kept closing.
async fn too_often(
    gate: &Gate,
    surface: &Surface,
    again: Again,
    proved: &ProvedUnder,
    supersedes: Option<ReceiptId>,
) -> Refused {
    let Again { execution, receipt, code, lease } = again;
    if let Some(lease) = lease {
        lease.give_back_unused();
    }
    if let Some(receipt) = receipt {
        return Refused::NotSent { code, receipt };
    }
    let id = match gate.ledger.new_id() {
        Ok(id) => id,
        Err(unrecorded) => return Refused::Unrecorded(unrecorded),
    };
    let refusal = decide::give_up(gate, surface, execution, proved, limits::EVALUATIONS_MAX);
    match record_refusal(gate, refusal, Recording::new(id, supersedes), None).await {
        Ended::Refused(refused) | Ended::Held(_, _, refused) => refused,
    }
}

async fn record_permit(
    gate: &Gate,
    permit: Evaluated<Permit>,
    recording: Recording,
) -> Result<Recorded<Permit>, Refused> {
    let before = gate.clock.monotonic();
    let recorded = gate.ledger.record_permit(permit, recording).await.map_err(Refused::Unrecorded)?;
    gate.metrics.recorded(gate.clock.monotonic().since(before));
    let unit = recorded.evaluated().execution();
    gate.metrics.decided(&unit.surface, &unit.action, Decision::Permit, None);
    Ok(recorded)
}

/// A refusal is answered only after its leaf is durable.
async fn record_refusal(
    gate: &Gate,
    refusal: Evaluated<Refusal>,
    recording: Recording,
    held: Option<Held>,
) -> Ended {
    let unit = refusal.execution();
    let verdict = refusal.verdict();
    let (code, decision, reasons) = (verdict.code(), verdict.decision(), verdict.reasons().to_vec());
    gate.metrics.decided(&unit.surface, &unit.action, decision, Some(code));
    tracing::info!(
        surface = %unit.surface, action = %unit.action, actor = %unit.actor.id, decision = decision.as_str(),
        reason = %code, "not permitted"
    );
    let before = gate.clock.monotonic();
    let recorded = match gate.ledger.record_refusal(refusal, recording).await {
        Err(unrecorded) => return Refused::Unrecorded(unrecorded).into(),
        Ok(recorded) => recorded,
    };
    gate.metrics.recorded(gate.clock.monotonic().since(before));
    let (execution, receipt) = recorded.into_execution();
    let refused = Refused::Verdict { code, decision, reasons, receipt, held: held.clone() };
    match held {
        Some(held) => Ended::Held(execution, held, refused),
        None => Ended::Refused(refused),
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
    let keep_max = surface.keep_max(permitted.execution());
    let before = gate.clock.monotonic();
    let in_flight = permitted.forward(lease);
    match in_flight.answer(settings.response_head_max, settings.response_idle_max, keep_max).await {
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
                (Some(again), _) => {
                    let (execution, outcome) = *again;
                    outcome.durable().await.map_err(Refused::Unrecorded)?;
                    let (receipt, lease) = (Some(receipt), None);
                    Ok(Sent::Nothing(Box::new(Again { execution, receipt, code, lease })))
                }
                (None, OutcomeStatus::NotSent) => Err(Refused::NotSent { code, receipt }),
                (None, OutcomeStatus::Indeterminate | OutcomeStatus::Confirmed | OutcomeStatus::Failed) => {
                    Err(Refused::NoAnswer { code, receipt })
                }
            }
        }
    }
}
