//! What is true about a request now: facts, claim, budgets, hold, freezes; and the read set that names it.

use std::sync::Arc;
use std::time::Duration;

use super::turns::Turn;
use super::{Gate, Surface};
use crate::authority::{Asked, ClaimView, Draw, ProvedUnder, Restriction, View, draws, exact_number};
use crate::canonical::ExecutionRequest;
use crate::clock::WallTime;
use crate::limits;
use crate::model::{Decision, IdempotencyKey, Json, Object, PolicyReason, ReadItem, ReadSet, ReasonCode};
use crate::policy::{Context, Question, subject};
use crate::telemetry::Alarm;

/// Everything one decision rests on, captured before it is made.
pub(super) struct Consulted {
    pub question: Question,
    pub view: View,
    pub draws: Vec<Draw>,
    /// Held until the decision has taken what it takes.
    pub turn: Turn,
}

/// Policy is not asked.
#[expect(clippy::large_enum_variant, reason = "one for each decision, taken apart at once")]
pub(super) enum Settled {
    /// Nothing is permitted whatever policy says, or policy could not be told what it needs.
    Refused {
        question: Question,
        decision: Decision,
        code: ReasonCode,
        reason: PolicyReason,
        view: Option<View>,
    },
    /// The idempotency key has been used.
    Repeats { execution: ExecutionRequest, claim: ClaimView },
}

/// The request as the state is asked about it.
pub(super) fn asked<'a>(
    surface: &'a Surface,
    execution: &'a ExecutionRequest,
    draws: &'a [Draw],
    now: WallTime,
) -> Asked<'a> {
    Asked {
        surface: &surface.name,
        action: &execution.action,
        actor: &execution.actor.id,
        digest: execution.request.digest(),
        key: claimed_key(surface, execution),
        draws,
        now,
    }
}

/// The key that a PERMIT claims.
pub(super) fn claimed_key<'a>(
    surface: &Surface,
    execution: &'a ExecutionRequest,
) -> Option<&'a IdempotencyKey> {
    surface.authority.idempotency.and_then(|_claims| execution.request.idempotency_key())
}

/// The claim comes first: what was carried out is answered as it was, whatever is frozen, spent or missing by now, or
/// its caller would try again under another key. Then versions, then what they are versions of: whatever moves in
/// between has moved.
pub(super) async fn consult(
    gate: &Gate,
    surface: &Surface,
    execution: ExecutionRequest,
    proved: &ProvedUnder,
    attempt: u32,
) -> Result<Consulted, Box<Settled>> {
    let rules = &surface.authority;
    if claimed_key(surface, &execution).is_some() {
        let identity = captured(gate, proved);
        let now = gate.clock.wall();
        let is_proved = gate.versions.validate(&identity).is_ok()
            && execution.actor.valid_until.is_none_or(|end| now < end);
        // Whose credential does not count any more gets no answer either: that is found out below.
        let view = gate.state.read(asked(surface, &execution, &[], now)).await;
        if let Some(claim) = view.claim.filter(|_| is_proved) {
            return Err(Box::new(Settled::Repeats { execution, claim }));
        }
    }
    let subject = (!rules.budgets.is_empty()).then(|| subject(&execution));
    let drawn = |now| subject.as_ref().map_or(Ok(Vec::new()), |subject| draws(&rules.budgets, subject, now));
    let in_line = drawn(gate.clock.wall());
    let turn = gate.turns.take(&surface.name, in_line.as_deref().unwrap_or_default()).await;

    let now = gate.clock.wall();
    let read_set = captured(gate, proved);
    let package = surface.package.clone();
    let mut question = Question { execution, package, context: Context::empty(attempt), read_set, now };
    let refuse = |question, decision, code: ReasonCode, view| {
        let reason = code.into();
        Err(Box::new(Settled::Refused { question, decision, code, reason, view }))
    };
    if gate.anchor.stepped(&gate.clock) > Duration::from_millis(limits::CLOCK_STEP_MS_MAX) {
        gate.metrics.alarm(Alarm::ClockStepped);
        tracing::error!(surface = %surface.name, "the wall clock was set: nothing is decided by it");
        return refuse(question, Decision::Silence, ReasonCode::ClockStepped, None);
    }
    let draws = match drawn(now) {
        Ok(draws) => draws,
        Err(error) => {
            tracing::warn!(surface = %surface.name, %error, "nothing can be drawn on a budget");
            return refuse(question, Decision::Silence, ReasonCode::BudgetUnusable, None);
        }
    };
    match rules.facts.read(gate.clock.monotonic()) {
        Ok(facts) => {
            let item = |fact: &crate::authority::FactRead| ReadItem {
                age_ms: fact.age_ms,
                name: fact.version_name.clone(),
                version: fact.digest.clone(),
            };
            question.read_set.watched.extend(facts.iter().map(item));
            let values = facts.iter().map(|fact| (fact.name.as_str().into(), Json::clone(&fact.value)));
            question.context.facts = object(values);
        }
        Err(unavailable) => {
            tracing::warn!(surface = %surface.name, fact = %unavailable.name, "a fact is not available");
            let code = ReasonCode::FactUnavailable;
            let fact = Json::object([("fact", Json::string(unavailable.name.as_str()))]);
            let reason = PolicyReason { detail: Some(fact), ..code.into() };
            let decision = Decision::Silence;
            return Err(Box::new(Settled::Refused { question, decision, code, reason, view: None }));
        }
    }
    let view = gate.state.read(asked(surface, &question.execution, &draws, now)).await;
    question.read_set.state = view.read.clone();
    if let Some(hold) = &view.hold {
        question.context.approvals = approvals(hold);
        question.read_set.approvals_until = (!hold.approvals.is_empty()).then_some(hold.until);
    }
    // Claimed since the first look.
    if let Some(claim) = view.claim {
        return Err(Box::new(Settled::Repeats { execution: question.execution, claim }));
    }
    if let Some(restriction) = &view.restriction {
        let (decision, code) = match restriction {
            Restriction::Frozen { .. } => (Decision::Silence, ReasonCode::Frozen),
            Restriction::Quarantined { .. } => (Decision::Quarantine, ReasonCode::ActorQuarantined),
        };
        return refuse(question, decision, code, None);
    }
    if view.hold.as_ref().is_some_and(|hold| hold.refused.is_some()) {
        return refuse(question, Decision::Deny, ReasonCode::HoldRefused, Some(view));
    }
    match budgets(&view) {
        Some(budgets) => question.context.budgets = budgets,
        None => {
            tracing::warn!(surface = %surface.name, "the sums of a budget are past what policy can be told exactly");
            return refuse(question, Decision::Silence, ReasonCode::BudgetUnusable, None);
        }
    }
    Ok(Consulted { question, view, draws, turn })
}

/// What is watched, with the identity's version as it was when the actor was proved.
fn captured(gate: &Gate, proved: &ProvedUnder) -> ReadSet {
    let mut read_set = gate.versions.capture(&gate.clock, gate.watched.iter());
    proved.stand_in(&mut read_set);
    read_set
}

/// `[{"at", "by", "reason", "role"}]`, in the order in which they were given.
fn approvals(hold: &crate::authority::HoldView) -> Json {
    let approval = |approval: &crate::authority::Approval| {
        Json::object([
            ("at", Json::string(&approval.at.rfc3339())),
            ("by", Json::string(&approval.by)),
            ("reason", Json::string(&approval.reason)),
            ("role", Json::string(approval.role.as_str())),
        ])
    };
    Json::Array(hold.approvals.iter().map(approval).collect())
}

/// `{NAME: {"in_flight", "spent"}}`; `None` if a sum is not exactly a JSON number.
fn budgets(view: &View) -> Option<Json> {
    let budget = |budget: &crate::authority::BudgetView| {
        let sums = Json::object([
            ("in_flight", Json::Number(exact_number(budget.in_flight)?)),
            ("spent", Json::Number(exact_number(budget.spent)?)),
        ]);
        Some((Arc::from(budget.budget.as_str()), sums))
    };
    Some(object(view.budgets.iter().map(budget).collect::<Option<Vec<_>>>()?))
}

fn object(members: impl IntoIterator<Item = (Arc<str>, Json)>) -> Json {
    let members = Object::new(members.into_iter().collect());
    Json::Object(members.expect("config refuses two facts or budgets of one name"))
}
