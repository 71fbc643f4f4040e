//! One decision on what is true now, and what it takes.
//!
//! Whatever a PERMIT takes is reserved before its leaf is queued, by comparing: of two decisions that read the same
//! state and take of it, one is made again. The reservation goes with the leaf ([`Recording`]) and is given back if the
//! leaf is not written.

use std::time::Duration;

use tokio::time::timeout;

use super::consult::{Consulted, Settled, asked, claimed_key, consult};
use super::{Gate, Surface};
use crate::authority::{ClaimView, Intent, NotReserved, ProvedUnder, Ticket, View};
use crate::canonical::ExecutionRequest;
use crate::clock::WallTime;
use crate::ledger::{Guard, Recording, Unrecorded};
use crate::limits;
use crate::model::entry::HoldEntry;
use crate::model::{ReasonCode, ReceiptId};
use crate::policy::{Context, Evaluated, Judgment, Permit, Question, Refusal};
use crate::telemetry::Alarm;

/// Whether a PERMIT is about to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To know whether a connection is worth opening: nothing is taken, and the verdict is thrown away.
    Look,
    Use,
}

#[expect(clippy::large_enum_variant, reason = "one for each decision, taken apart at once")]
pub(super) enum Decided {
    /// What it takes is reserved.
    Permit(Box<(Evaluated<Permit>, Recording)>),
    /// What the verdict rests on changed before it could take anything.
    Moved(ExecutionRequest),
    NoPermit(Box<NoPermit>),
}

#[expect(clippy::large_enum_variant, reason = "one for each decision, taken apart at once")]
pub(super) enum NoPermit {
    Refusal(Evaluated<Refusal>, Recording, Option<Held>),
    /// The idempotency key has been used; nothing was decided.
    Repeats(ExecutionRequest, ClaimView),
    Unrecorded(Unrecorded),
}

impl From<NoPermit> for Decided {
    fn from(no_permit: NoPermit) -> Self {
        Self::NoPermit(Box::new(no_permit))
    }
}

/// The request is held for people, or was refused by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: ReceiptId,
    pub until: WallTime,
    pub is_refused: bool,
    /// Words of people that the verdict has seen.
    pub approvals: usize,
}

pub(super) async fn decide(
    gate: &Gate,
    surface: &Surface,
    execution: ExecutionRequest,
    proved: &ProvedUnder,
    (attempt, supersedes): (u32, Option<ReceiptId>),
    purpose: Purpose,
) -> Decided {
    let id = match gate.ledger.new_id() {
        Ok(id) => id,
        Err(unrecorded) => return NoPermit::Unrecorded(unrecorded).into(),
    };
    let recording = Recording::new(id, supersedes);
    let consulted = match consult(gate, surface, execution, proved, attempt).await {
        Ok(consulted) => consulted,
        Err(settled) => return settle(gate, *settled, recording),
    };
    let Consulted { question, view, draws, turn } = consulted;
    let now = question.now;
    match gate.pdp.judge(question).await {
        Judgment::Refusal(refusal) if refusal.verdict().code() == ReasonCode::PolicyEscalated => {
            drop(turn);
            hold(gate, surface, refusal, attempt, recording, view).await
        }
        Judgment::Refusal(refusal) => NoPermit::Refusal(refusal, recording, None).into(),
        Judgment::Permit(permit) if purpose == Purpose::Look => {
            Decided::Permit(Box::new((permit, recording)))
        }
        Judgment::Permit(permit) => {
            let key = claimed_key(surface, permit.execution());
            let claims = surface.authority.idempotency.filter(|_claims| key.is_some());
            let approved = view.hold.as_ref().filter(|hold| !hold.approvals.is_empty());
            let intent = Intent {
                asked: asked(surface, permit.execution(), &draws, now),
                read: &view.read,
                claim_until: claims.map(|claims| after(now, claims.keep)),
                approved_hold: approved.map(|hold| hold.id),
            };
            let takes = intent.claim_until.is_some() || !draws.is_empty() || view.hold.is_some();
            if !takes {
                return Decided::Permit(Box::new((permit, recording)));
            }
            let (claim_until, approved_hold) = (intent.claim_until, intent.approved_hold);
            match gate.state.reserve(id, intent).await {
                Ok(ticket) => {
                    let recording = Recording { claim_until, approved_hold, ..taking(recording, ticket) };
                    Decided::Permit(Box::new((permit, recording)))
                }
                Err(why) => not_taken(gate, surface, permit, attempt, recording, &why),
            }
        }
    }
}

/// The decision when what it rests on has moved too often: SILENCE.
pub(super) fn give_up(
    gate: &Gate,
    surface: &Surface,
    execution: ExecutionRequest,
    proved: &ProvedUnder,
    attempt: u32,
) -> Evaluated<Refusal> {
    let mut read_set = gate.versions.capture(&gate.clock, gate.watched.iter());
    proved.stand_in(&mut read_set);
    let (package, context) = (surface.package.clone(), Context::empty(attempt));
    let question = Question { execution, package, context, read_set, now: gate.clock.wall() };
    gate.pdp.silence(question, ReasonCode::ReadSetMoved)
}

fn settle(gate: &Gate, settled: Settled, recording: Recording) -> Decided {
    match settled {
        Settled::Repeats { execution, claim } => NoPermit::Repeats(execution, claim).into(),
        Settled::Refused { question, decision, code, reason, view } => {
            let held = view.and_then(|view| view.hold).map(|hold| Held {
                id: hold.id,
                until: hold.until,
                is_refused: hold.refused.is_some(),
                approvals: hold.approvals.len(),
            });
            NoPermit::Refusal(gate.pdp.refuse(question, decision, code, reason), recording, held).into()
        }
    }
}

/// The open hold on this request, or one that this decision opens.
async fn hold(
    gate: &Gate,
    surface: &Surface,
    refusal: Evaluated<Refusal>,
    attempt: u32,
    recording: Recording,
    view: View,
) -> Decided {
    let now = refusal.evaluation().at;
    let shown = |id, until: WallTime, approvals| {
        let entry = HoldEntry { id, until: until.rfc3339().into() };
        (entry, Held { id, until, is_refused: false, approvals })
    };
    if let Some(open) = &view.hold {
        let (entry, held) = shown(open.id, open.until, open.approvals.len());
        return NoPermit::Refusal(refusal, Recording { hold: Some(entry), ..recording }, Some(held)).into();
    }
    let mut changes = gate.hold_changes.clone();
    changes.mark_unchanged();
    let opened =
        gate.state.open_hold(recording.id, asked(surface, refusal.execution(), &[], now), &view.read).await;
    match opened {
        Ok(ticket) => {
            let until = after(now, surface.authority.holds.expire_after);
            let (entry, held) = shown(recording.id, until, 0);
            let recording = Recording { hold: Some(entry), ..taking(recording, ticket) };
            NoPermit::Refusal(refusal, recording, Some(held)).into()
        }
        Err(NotReserved::Moved(_)) => {
            // Somebody else opens it just now. When that is done, it is there to be found.
            let _ = timeout(Duration::from_millis(limits::HOLD_POLL_MS), changes.changed()).await;
            Decided::Moved(refusal.into_execution())
        }
        Err(why @ (NotReserved::Full | NotReserved::Forgotten | NotReserved::Overflow(_))) => {
            not_taken(gate, surface, refusal, attempt, recording, &why)
        }
    }
}

fn not_taken<V>(
    gate: &Gate,
    surface: &Surface,
    evaluated: Evaluated<V>,
    attempt: u32,
    recording: Recording,
    why: &NotReserved,
) -> Decided {
    let code = match why {
        NotReserved::Moved(_) => return Decided::Moved(evaluated.into_execution()),
        NotReserved::Overflow(_) => ReasonCode::BudgetUnusable,
        NotReserved::Forgotten => {
            gate.metrics.alarm(Alarm::ClockStepped);
            ReasonCode::ClockStepped
        }
        NotReserved::Full => ReasonCode::StateFull,
    };
    tracing::warn!(surface = %surface.name, %why, "nothing could be reserved");
    let (read_set, now) = (evaluated.read_set().clone(), evaluated.evaluation().at);
    let question = Question {
        execution: evaluated.into_execution(),
        package: surface.package.clone(),
        context: Context::empty(attempt),
        read_set,
        now,
    };
    NoPermit::Refusal(gate.pdp.silence(question, code), recording, None).into()
}

/// The recording of a decision that takes what the ticket stands for.
fn taking(recording: Recording, ticket: Ticket) -> Recording {
    let reserves = ticket.reserves.clone();
    Recording { reserves, guard: Some(Guard::new(ticket)), ..recording }
}

fn after(now: WallTime, by: Duration) -> WallTime {
    let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    WallTime::from_unix_ns(now.unix_ns().saturating_add(ns))
}
