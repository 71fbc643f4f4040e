//! Builds the leaves: from what policy, upstream and the gateway know to the members of RECEIPTS.md.
//!
//! In debug builds every leaf is compared with its canonical form before it is queued.

use std::sync::Arc;

use bytes::Bytes;

use super::Start;
use super::recorded::{Administration, Attestation, Obliges, Outcome, Recording, Rejection};
use super::withhold;
use crate::canonical::ExecutionRequest;
use crate::clock::WallTime;
use crate::merkle::tree::RightEdge;
use crate::model::entry::{
    ActorEntry, AdminEntry, ClaimEntry, DecisionEntry, Entry, EntryType, EpochEntry, EpochEvent,
    EvaluationEntry, EvaluationStatus, HeartbeatEntry, KeyEntry, KeyEvent, Mode, OperatorEntry, OutcomeEntry,
    PolicyEntry, PolicyFile, PolicyReference, PreviousTree, RefusalEntry, RequestEntry, ResponseEntry, SPEC,
    SentEntry, Settle, SettledAs,
};
use crate::model::{Actor, BudgetName, Digest, Epoch, LeafIndex, OutcomeStatus, ReceiptId, Settled};
use crate::policy::{BundleFile, Evaluated};
use crate::verify::strict_canonical;

/// The leaf's bytes, checked against the canonical form where that costs nothing to customers.
pub fn bytes(entry: &Entry) -> Vec<u8> {
    let bytes = entry.to_bytes();
    debug_assert_eq!(strict_canonical(&bytes), Ok(()), "{}", String::from_utf8_lossy(&bytes));
    bytes
}

pub fn decision<V: Obliges>(
    evaluated: &Evaluated<V>,
    recording: Recording,
    epoch: Epoch,
    now: WallTime,
) -> DecisionEntry {
    let Recording { id, supersedes, claim_until, reserves, approved_hold, hold, guard: _ } = recording;
    let execution = evaluated.execution();
    let evaluation = evaluated.evaluation();
    DecisionEntry {
        action: execution.action.clone(),
        actor: actor(&execution.actor),
        approved_hold,
        claim: claim_until.map(|until| ClaimEntry { until: until.rfc3339().into() }),
        decision: evaluated.verdict().decision(),
        epoch,
        evaluation: EvaluationEntry {
            cause: evaluation.not_evaluated.map(|code| code.as_str().into()),
            input_digest: evaluation.input_digest,
            read_set: evaluated.read_set().items(),
            status: match evaluation.not_evaluated {
                Some(_) => EvaluationStatus::NotEvaluated,
                None => EvaluationStatus::Evaluated,
            },
        },
        hold,
        id,
        idempotency_key: execution.request.idempotency_key().cloned(),
        mode: Mode::Enforce,
        policy: PolicyReference {
            engine: Arc::clone(&evaluation.engine),
            package: evaluation.package.clone(),
            revision: evaluation.revision,
        },
        reasons: evaluated.verdict().reasons().to_vec(),
        request: request(execution),
        reserves,
        spec: SPEC.into(),
        supersedes,
        surface: execution.surface.clone(),
        time: now.rfc3339().into(),
        trace: execution.trace.clone(),
        entry_type: EntryType::Decision,
    }
}

fn request(execution: &ExecutionRequest) -> RequestEntry {
    let request = &execution.request;
    RequestEntry {
        disclosures: Vec::new(),
        body_digest: Some(request.body_digest()),
        digest: Some(request.digest()),
        form: request.form(),
        media_type: request.media_type().cloned(),
        method: request.method().as_str().into(),
        received_digest: Some(request.received_digest()),
        size: request.size(),
        target: Some(Arc::clone(request.target())),
    }
}

pub fn actor(actor: &Actor) -> ActorEntry {
    ActorEntry { credential_digest: actor.credential_digest, id: actor.id.clone(), method: actor.method }
}

pub fn outcome(
    outcome: Outcome,
    id: ReceiptId,
    index: LeafIndex,
    epoch: Epoch,
    now: WallTime,
) -> OutcomeEntry {
    OutcomeEntry {
        answer_digest: outcome.answer.as_ref().map(|answer| Digest::of(answer)),
        attestation: Settled::Gateway,
        attested_by: None,
        cause: outcome.cause.map(Into::into),
        decision_id: id,
        decision_index: index,
        // A duration past the bound of leaves (285 years) is no real one.
        duration_us: u64::try_from(outcome.duration.as_micros()).map_or(MICROS_MAX, |us| us.min(MICROS_MAX)),
        epoch,
        response: outcome.response.map(|seen| ResponseEntry {
            disclosures: Vec::new(),
            body_digest: Some(seen.body_digest),
            size: seen.size,
            status_code: seen.status_code,
        }),
        sent: outcome.sent.map(|sent| SentEntry {
            disclosures: Vec::new(),
            digest: Some(sent.digest),
            size: sent.size,
        }),
        settles: Vec::new(),
        spec: SPEC.into(),
        status: outcome.status,
        time: now.rfc3339().into(),
        entry_type: EntryType::Outcome,
    }
}

/// What an outcome does to what was reserved. While it is not known, nothing.
pub fn settles(status: OutcomeStatus, budgets: &[BudgetName]) -> Vec<Settle> {
    let settled_as = match status {
        OutcomeStatus::Confirmed => SettledAs::Spent,
        OutcomeStatus::NotSent | OutcomeStatus::Failed => SettledAs::Released,
        OutcomeStatus::Indeterminate => return Vec::new(),
    };
    budgets.iter().map(|budget| Settle { budget: budget.clone(), settled_as }).collect()
}

pub fn attested(attestation: Attestation, epoch: Epoch, now: WallTime) -> OutcomeEntry {
    let Attestation { decision_id, decision_index, status, by, budgets } = attestation;
    let status = status.status();
    OutcomeEntry {
        answer_digest: None,
        attestation: if by.operator.is_some() { Settled::Operator } else { Settled::UpstreamLog },
        attested_by: Some(by),
        cause: None,
        decision_id,
        decision_index,
        // Nobody measured it.
        duration_us: 0,
        epoch,
        response: None,
        sent: None,
        settles: settles(status, &budgets),
        spec: SPEC.into(),
        status,
        time: now.rfc3339().into(),
        entry_type: EntryType::Outcome,
    }
}

pub fn admin(administration: Administration, epoch: Epoch, now: WallTime) -> AdminEntry {
    let Administration { action, by, surface, actor, hold, reason } = administration;
    AdminEntry {
        action,
        actor,
        by,
        epoch,
        hold,
        reason,
        spec: SPEC.into(),
        surface,
        time: now.rfc3339().into(),
        entry_type: EntryType::Admin,
    }
}

/// Integers in leaves stay below 2^53.
const MICROS_MAX: u64 = (1 << 53) - 1;

pub fn outcome_bytes(entry: OutcomeEntry) -> Vec<u8> {
    bytes(&Entry::Outcome(Box::new(entry)))
}

pub fn refusal(rejection: &Rejection, suppressed: u64, epoch: Epoch, now: WallTime) -> RefusalEntry {
    let (place, received_digest) = match rejection.redacts {
        true => (rejection.place.clone().and_then(withhold::place), None),
        false => (rejection.place.clone(), rejection.received_digest),
    };
    RefusalEntry {
        actor: actor(&rejection.actor),
        epoch,
        place,
        reason: rejection.code.as_str().into(),
        received_digest,
        spec: SPEC.into(),
        suppressed,
        surface: rejection.surface.clone(),
        time: now.rfc3339().into(),
        entry_type: EntryType::Refusal,
    }
}

pub fn refusal_bytes(entry: RefusalEntry) -> Vec<u8> {
    bytes(&Entry::Refusal(Box::new(entry)))
}

/// What became the active policy.
#[derive(Clone, Debug)]
pub struct PolicyActivation {
    /// What caused it; see [`PolicyEntry::activated_by`].
    pub activated_by: Arc<str>,
    pub engine: Arc<str>,
    /// Every file that decides, whole.
    pub files: Vec<BundleFile>,
    /// See [`PolicyEntry::older_than`].
    pub older_than: Option<u64>,
    /// An operator asked for it.
    pub ordered: Option<Ordered>,
    pub revision: Digest,
    /// Of a signed bundle.
    pub version: Option<u64>,
}

/// An operator's word on an activation.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub by: OperatorEntry,
    pub reason: Arc<str>,
}

/// The leaf, and its evidence: the files in the order in which the leaf names them.
pub fn policy(activation: PolicyActivation, epoch: Epoch, now: WallTime) -> (Entry, Vec<(Digest, Bytes)>) {
    let PolicyActivation { activated_by, engine, mut files, older_than, ordered, revision, version } =
        activation;
    let (by, reason) = ordered.map(|ordered| (ordered.by, ordered.reason)).unzip();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let evidence: Vec<_> = files.iter().map(|f| (Digest::of(&f.bytes), f.bytes.clone())).collect();
    let named = files.into_iter().zip(&evidence);
    let files = named.map(|(file, &(sha256, _))| PolicyFile { name: file.name, sha256 }).collect();
    let entry = Entry::Policy(Box::new(PolicyEntry {
        activated_by,
        by,
        engine,
        epoch,
        files,
        older_than,
        reason,
        revision,
        spec: SPEC.into(),
        time: now.rfc3339().into(),
        entry_type: EntryType::Policy,
        version,
    }));
    (entry, evidence)
}

/// What a start or stop leaf says beyond its event.
pub struct EpochFacts<'e> {
    pub epoch: Epoch,
    pub now: WallTime,
    pub start: &'e Start,
    /// The primary key first.
    pub vkeys: Vec<Arc<str>>,
    /// The tree before the leaf.
    pub tree: &'e RightEdge,
    pub clean: bool,
    pub torn_bytes: u64,
}

pub fn epoch_bytes(event: EpochEvent, facts: EpochFacts<'_>) -> Vec<u8> {
    bytes(&Entry::Epoch(Box::new(EpochEntry {
        binary_digest: facts.start.binary_digest,
        clean: facts.clean,
        config_digest: facts.start.config_digest,
        epoch: facts.epoch,
        event,
        previous: PreviousTree { root: facts.tree.root(), size: facts.tree.size() },
        spec: SPEC.into(),
        time: facts.now.rfc3339().into(),
        torn_bytes: facts.torn_bytes,
        entry_type: EntryType::Epoch,
        vkeys: facts.vkeys,
    })))
}

pub fn heartbeat_bytes(every_s: u64, tree: &RightEdge, epoch: Epoch, now: WallTime) -> Vec<u8> {
    bytes(&Entry::Heartbeat(Box::new(HeartbeatEntry {
        epoch,
        every_s,
        previous: PreviousTree { root: tree.root(), size: tree.size() },
        spec: SPEC.into(),
        time: now.rfc3339().into(),
        entry_type: EntryType::Heartbeat,
    })))
}

pub fn key_bytes(event: KeyEvent, vkey: Arc<str>, epoch: Epoch, now: WallTime) -> Vec<u8> {
    bytes(&Entry::Key(Box::new(KeyEntry {
        epoch,
        event,
        spec: SPEC.into(),
        time: now.rfc3339().into(),
        entry_type: EntryType::Key,
        vkey,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::Rules;
    use crate::canonical::testing::{JSON, read, received, rules};
    use crate::clock::Clock;
    use crate::ledger::tests::{clock, open, settings, signer, start};
    use crate::ledger::{Ledger, Unrecorded};
    use crate::model::{AuthenticationMethod, Decision, Json, PolicyReason, ReadItem, ReadSet, ReasonCode};
    use crate::policy::{Evaluation, Permit, Refusal};

    const SENT: &str = "POST /v1/charges?limit=2 HTTP/1.1\r\nhost: upstream.example\r\n\
        authorization: Bearer {credential:stripe}\r\ncontent-length: 12\r\n\
        content-type: application/json\r\nidempotency-key: order-9\r\n\r\n{\"amount\":5}";
    const RECEIVED: &str = "{ \"amount\": 5 }";

    fn now() -> WallTime {
        WallTime::from_unix_ns(1_763_643_600_123_456_000)
    }

    fn evaluated<V>(verdict: V, not_evaluated: Option<ReasonCode>) -> Evaluated<V> {
        under(&rules(JSON), verdict, not_evaluated)
    }

    fn under<V>(rules: &Rules, verdict: V, not_evaluated: Option<ReasonCode>) -> Evaluated<V> {
        let headers = [("content-type", "application/json"), ("idempotency-key", "order-9")];
        let request = read(received("POST", "/v1/charges?limit=2", &headers, RECEIVED), rules);
        let execution = ExecutionRequest {
            surface: "payments".parse().expect("a name"),
            action: "charge.create".parse().expect("a name"),
            actor: Arc::new(Actor {
                id: "agent-7".parse().expect("an id"),
                method: AuthenticationMethod::ApiKey,
                credential_digest: Some(Digest::of(b"credential")),
                claims: Json::object([("role", Json::string("never in the leaf"))]),
                valid_until: None,
            }),
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            request: request.expect("canonical"),
        };
        let items = vec![ReadItem { age_ms: 0, name: "policy".into(), version: "v1".into() }];
        let read_set = ReadSet {
            watched: items,
            state: Vec::new(),
            captured_at: Clock::system().monotonic(),
            approvals_until: None,
        };
        let evaluation = Evaluation {
            not_evaluated,
            input: Bytes::from_static(b"{}"),
            input_digest: Digest::of(b"{}"),
            package: "gateway.payments".parse().expect("a package"),
            revision: Digest::of(b"bundle"),
            engine: "regorus/0.14.1 strict".into(),
            at: now(),
        };
        Evaluated::for_test(execution, read_set, evaluation, verdict)
    }

    fn leaf<V: Obliges>(evaluated: &Evaluated<V>, supersedes: Option<ReceiptId>) -> String {
        let id = ReceiptId::new(now(), [7; 10]);
        let entry = decision(evaluated, Recording::new(id, supersedes), Epoch(3), now());
        String::from_utf8(bytes(&Entry::Decision(Box::new(entry)))).expect("UTF-8")
    }

    #[test]
    fn a_permit_becomes_its_golden_leaf_over_exactly_the_bytes_that_leave() {
        let detail = Some(Json::object([("limit", Json::string("100.00"))]));
        let reason = PolicyReason { code: "within_limit".into(), detail, message: Some("Small.".into()) };
        let permit = evaluated(Permit::for_test(vec![reason]), None);
        let written = leaf(&permit, Some(ReceiptId::new(now(), [1; 10])));
        assert_eq!(written, include_str!("../../tests/golden/decision_of_permit.json").trim_end());
        for of in [SENT, RECEIVED, "{\"amount\":5}", "{}", "bundle", "credential"] {
            assert!(written.contains(&Digest::of(of.as_bytes()).to_string()), "the digest of {of:?}");
        }
        assert!(!written.contains("never in the leaf"));
    }

    #[test]
    fn a_refusal_that_was_not_evaluated_becomes_its_golden_leaf() {
        let code = ReasonCode::EvaluationTimeout;
        let refusal = Refusal::for_test(Decision::Silence, vec![code.into()], code);
        let written = leaf(&evaluated(refusal, Some(code)), None);
        assert_eq!(written, include_str!("../../tests/golden/decision_of_refusal.json").trim_end());
    }

    #[tokio::test]
    async fn a_request_that_redacts_is_recorded_only_by_a_ledger_that_has_a_key() {
        let mut rules = rules(JSON);
        rules.redaction = crate::model::Redaction::new(&[], true).map(Arc::new);
        let permit = || under(&rules, Permit::for_test(vec![ReasonCode::PolicySilent.into()]), None);
        let dir = tempfile::tempdir().expect("a directory");
        let (without, _) = open(&dir.path().join("log"));
        let refused = without
            .record_permit(permit(), Recording::new(without.new_id().expect("random"), None))
            .await
            .map(|_| ());
        assert_eq!(refused, Err(Unrecorded::NotRedactable));
        assert_eq!(without.statistics().leaves, 1);
        drop(without);
        let with = crate::ledger::Settings {
            salts: Some(dir.path().join("salts")),
            ..settings(&dir.path().join("log"))
        };
        let (with, _) = Ledger::open(with, signer(), clock(), start()).expect("opens");
        assert!(
            with.record_permit(permit(), Recording::new(with.new_id().expect("random"), None)).await.is_ok()
        );
    }
}
