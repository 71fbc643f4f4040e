//! The ledger as a whole: permits, outcomes, limits, closing; on real files and on simulated ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::queue::Done;
use super::*;
use crate::clock::{Clock, WallTime};
use crate::merkle::note::tests::SeedSigner;
use crate::model::entry::{
    ActorEntry, BodyForm, DecisionEntry, EntryType, EvaluationEntry, EvaluationStatus, Mode, PolicyReference,
    RequestEntry, SPEC,
};
use crate::model::{Actor, AuthenticationMethod, Json, OutcomeStatus, Place, ReasonCode};

pub(super) const SEGMENT_BYTES: u64 = crate::limits::SEGMENT_BYTES_MIN;
pub(super) const ORIGIN: &str = "example.org/log";

pub(super) fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.to_owned(), origin: ORIGIN.parse().expect("a name"), segment_bytes: SEGMENT_BYTES }
}

pub(super) fn signer() -> Box<SeedSigner> {
    Box::new(SeedSigner::new(ORIGIN, 1))
}

pub(super) fn start() -> Start {
    Start {
        binary_digest: Digest::of(b"binary"),
        config_digest: Digest::of(b"config"),
        observer: Arc::new(()),
    }
}

pub(super) fn clock() -> Clock {
    Clock::manual(WallTime::from_unix_ns(1_763_643_600_123_456_000))
}

pub(super) fn open(dir: &Path) -> (Ledger, Opened) {
    Ledger::open(settings(dir), signer(), clock(), start()).expect("opens")
}

pub(super) fn decision_entry(id: ReceiptId, decision: Decision, epoch: Epoch, input: &[u8]) -> DecisionEntry {
    DecisionEntry {
        action: "charge.create".parse().expect("a name"),
        actor: ActorEntry {
            credential_digest: Some(Digest::of(b"credential")),
            id: "agent-7".parse().expect("an id"),
            method: AuthenticationMethod::ApiKey,
        },
        decision,
        epoch,
        evaluation: EvaluationEntry {
            cause: None,
            input_digest: Digest::of(input),
            read_set: Vec::new(),
            status: EvaluationStatus::Evaluated,
        },
        hold: None,
        id,
        idempotency_key: None,
        mode: Mode::Enforce,
        policy: PolicyReference {
            engine: "regorus/0.14.1 strict".into(),
            package: "gateway.payments".parse().expect("a package"),
            revision: Digest::of(b"bundle"),
        },
        reasons: vec![ReasonCode::PolicyDenied.into()],
        request: RequestEntry {
            body_digest: Digest::of(b"body"),
            digest: Digest::of(b"message"),
            form: BodyForm::JsonCanonical,
            media_type: Some("application/json".into()),
            method: "POST".into(),
            received_digest: Digest::of(b"received"),
            size: 4,
            target: "/v1/charges".into(),
        },
        reserves: Vec::new(),
        spec: SPEC.into(),
        supersedes: None,
        surface: "payments".parse().expect("a name"),
        time: "2025-11-20T13:00:00.123456Z".into(),
        trace: None,
        entry_type: EntryType::Decision,
    }
}

impl Ledger {
    /// Records a decision without a policy evaluation behind it.
    pub(super) async fn decide(&self, decision: Decision) -> Result<Done, Unrecorded> {
        self.decide_on(decision, Bytes::from_static(b"{\"surface\":\"payments\"}")).await
    }

    pub(super) async fn decide_on(&self, decision: Decision, input: Bytes) -> Result<Done, Unrecorded> {
        let id = self.new_id()?;
        let entry = Entry::Decision(Box::new(decision_entry(id, decision, self.epoch(), &input)));
        self.append_decision(entry, (id, decision), (Digest::of(&input), input)).await
    }
}

pub(super) fn confirmed() -> Outcome {
    Outcome {
        status: OutcomeStatus::Confirmed,
        cause: None,
        sent: Some(Sent { digest: Digest::of(b"message"), size: 120 }),
        response: Some(ResponseSeen { status_code: 201, size: 2, body_digest: Digest::of(b"{}") }),
        duration: Duration::from_micros(1_500),
    }
}

pub(super) fn rejection(actor: &str) -> Rejection {
    let actor = Actor {
        id: actor.parse().expect("an id"),
        method: AuthenticationMethod::ApiKey,
        credential_digest: None,
        claims: Json::object([]),
    };
    Rejection {
        actor: Arc::new(actor),
        surface: Some("payments".parse().expect("a name")),
        code: ReasonCode::SchemaMismatch,
        place: Some(Place::Json { byte: 12, pointer: "/amount".into() }),
        received_digest: Some(Digest::of(b"received")),
    }
}

#[tokio::test]
async fn a_permit_and_its_outcome_are_durable_leaves_that_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, opened) = open(dir.path());
    assert_eq!((opened.epoch, opened.size.0, opened.clean), (Epoch(1), 1, true));
    let done = ledger.decide(Decision::Permit).await.expect("recorded");
    assert_eq!((done.receipt.index.0, done.receipt.size.0), (1, 2));
    assert_eq!(ledger.statistics().open_permits, 1);
    let outcome = done.open.expect("a permit").close(confirmed()).durable().await.expect("recorded");
    assert_eq!(outcome.index.0, 2);
    assert_eq!(ledger.statistics().open_permits, 0);
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    drop(ledger);
    let (ledger, opened) = open(dir.path());
    assert_eq!((opened.epoch, opened.size.0, opened.clean), (Epoch(2), 5, true));
    assert_eq!(opened.recovered_permits, 0);
    assert_eq!(ledger.health(), Health::Accepting);
}
