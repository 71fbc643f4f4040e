//! The ledger as a whole: permits, outcomes, limits, closing; on real files and on simulated ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::queue::Done;
use super::*;
use crate::clock::{Clock, WallTime};
use crate::merkle::note::Signer;
use crate::merkle::note::tests::SeedSigner;
use crate::model::entry::{
    ActorEntry, AdminAction, AttestedBy, BodyForm, ClaimEntry, DecisionEntry, EntryType, EvaluationEntry,
    EvaluationStatus, HoldEntry, Mode, OperatorEntry, OutcomeEntry, PolicyReference, RequestEntry, Reserve,
    Role, SPEC, Settle, SettledAs,
};
use crate::model::{Actor, AuthenticationMethod, Json, OutcomeStatus, Place, ReasonCode};
use crate::policy::BundleFile;

pub(super) const SEGMENT_BYTES: u64 = crate::limits::SEGMENT_BYTES_MIN;
pub(super) const ORIGIN: &str = "example.org/log";

pub(super) fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        origin: ORIGIN.parse().expect("a name"),
        segment_bytes: SEGMENT_BYTES,
        salts: None,
        heartbeat: None,
    }
}

pub(super) fn signer() -> Box<SeedSigner> {
    Box::new(SeedSigner::new(ORIGIN, 1))
}

pub(super) fn start() -> Start {
    Start {
        follower: Arc::new(()),
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
        approved_hold: None,
        claim: None,
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
            revision: activation().revision,
        },
        reasons: vec![ReasonCode::PolicyDenied.into()],
        request: RequestEntry {
            disclosures: Vec::new(),
            body_digest: Some(Digest::of(b"body")),
            digest: Some(Digest::of(b"message")),
            form: BodyForm::JsonCanonical,
            media_type: Some("application/json".into()),
            method: "POST".into(),
            received_digest: Some(Digest::of(b"received")),
            size: 4,
            target: Some("/v1/charges".into()),
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

/// The policy that all decisions of these tests stand under.
pub(super) fn activation() -> PolicyActivation {
    let engine: Arc<str> = "regorus/0.14.1 strict".into();
    let revision = crate::model::entry::policy_revision(&engine, &[]);
    PolicyActivation {
        activated_by: "start".into(),
        engine,
        files: Vec::new(),
        revision,
        older_than: None,
        ordered: None,
        version: None,
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
        self.append_decision(entry, (id, decision), (Digest::of(&input), input), None).await
    }
}

pub(super) fn confirmed() -> Outcome {
    Outcome {
        status: OutcomeStatus::Confirmed,
        cause: None,
        sent: Some(Sent { digest: Digest::of(b"message"), size: 120 }),
        response: Some(ResponseSeen { status_code: 201, size: 2, body_digest: Digest::of(b"{}") }),
        answer: None,
        duration: Duration::from_micros(1_500),
    }
}

/// Somebody changes a file behind everybody's back.
pub(super) fn overwrite(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().write(true).truncate(true).open(path);
    file.expect("there").write_all(bytes).expect("written");
}

/// Of RECEIPTS.md.
pub(super) const KEPT_ANSWER: &[u8] =
    br#"{"body":"e30=","headers":[["content-type","application/json"]],"status":201}"#;

pub(super) fn administration(action: AdminAction) -> Administration {
    Administration {
        action,
        by: OperatorEntry { id: "ops@example.org".into(), role: Role::Operator },
        surface: Some("payments".parse().expect("a name")),
        actor: None,
        hold: None,
        reason: "Card testing.".into(),
    }
}

pub(super) fn rejection(actor: &str) -> Rejection {
    let actor = Actor {
        id: actor.parse().expect("an id"),
        method: AuthenticationMethod::ApiKey,
        credential_digest: None,
        claims: Json::object([]),
        valid_until: None,
    };
    Rejection {
        actor: Arc::new(actor),
        surface: Some("payments".parse().expect("a name")),
        code: ReasonCode::SchemaMismatch,
        place: Some(Place::Json { byte: 12, pointer: "/amount".into() }),
        received_digest: Some(Digest::of(b"received")),
        redacts: false,
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

#[tokio::test]
async fn a_permit_dropped_without_an_outcome_is_not_sent_or_indeterminate_by_whether_bytes_may_have_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    drop(ledger.decide(Decision::Permit).await.expect("recorded"));
    let mut sent = ledger.decide(Decision::Permit).await.expect("recorded").open.expect("a permit");
    sent.bytes_may_leave();
    drop(sent);
    // The future is given up while the leaf is on its way: its permit is dropped by the committer.
    tokio::select! {
        biased;
        done = ledger.decide(Decision::Permit) => drop(done),
        () = std::future::ready(()) => {}
    }
    assert_eq!(ledger.close(Duration::from_secs(5)).await, Closed::Clean);
    let outcomes: Vec<_> = entries_in(dir.path()).into_iter().filter_map(outcome_of).collect();
    let abandoned = |status| (status, Some("abandoned".to_owned()));
    assert_eq!(outcomes.len(), 3);
    assert_eq!(outcomes.iter().filter(|o| **o == abandoned(OutcomeStatus::NotSent)).count(), 2);
    assert_eq!(outcomes.iter().filter(|o| **o == abandoned(OutcomeStatus::Indeterminate)).count(), 1);
}

fn entries_in(dir: &Path) -> Vec<Entry> {
    let source = crate::verify::Directory::open(dir).expect("a log");
    let origin = ORIGIN.parse().expect("a name");
    let mut walk = crate::verify::walk::Walk::new(&source, &origin).expect("readable");
    let mut entries = Vec::new();
    while let crate::verify::walk::Step::Frame(frame, _) = walk.step().expect("readable") {
        entries.extend(frame.entries.iter().map(|e| Entry::from_bytes_unverified(e).expect("an entry")));
    }
    entries
}

fn outcome_of(entry: Entry) -> Option<(OutcomeStatus, Option<String>)> {
    match entry {
        Entry::Outcome(o) => Some((o.status, o.cause.map(|c| c.to_string()))),
        Entry::Admin(_)
        | Entry::Decision(_)
        | Entry::Epoch(_)
        | Entry::Heartbeat(_)
        | Entry::Key(_)
        | Entry::Policy(_)
        | Entry::Refusal(_) => None,
    }
}

#[tokio::test]
async fn a_permit_left_open_by_a_crash_is_indeterminate_after_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let open_permit = ledger.decide(Decision::Permit).await.expect("recorded").open;
    // The process ends here: nothing is written when the permit is dropped later.
    drop(ledger);
    drop(open_permit);
    let (ledger, opened) = open(dir.path());
    assert_eq!((opened.recovered_permits, opened.clean, opened.epoch), (1, false, Epoch(2)));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let outcomes: Vec<_> = entries_in(dir.path()).into_iter().filter_map(outcome_of).collect();
    assert_eq!(outcomes, [(OutcomeStatus::Indeterminate, Some("recovered".to_owned()))]);
}

#[tokio::test]
async fn a_close_with_permits_open_writes_no_stop_and_a_late_outcome_is_told_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let open_permit = ledger.decide(Decision::Permit).await.expect("recorded").open.expect("a permit");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::PermitsOpen(1));
    assert_eq!(ledger.health(), Health::Closed);
    assert_eq!(open_permit.close(confirmed()).durable().await.err(), Some(Unrecorded::Poisoned));
    assert_eq!(ledger.decide(Decision::Deny).await.err(), Some(Unrecorded::Poisoned));
    drop(ledger);
    assert!(!open(dir.path()).1.clean);
}

#[tokio::test]
async fn a_close_waits_for_outcomes_that_are_on_their_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let open_permit = ledger.decide(Decision::Permit).await.expect("recorded").open.expect("a permit");
    let closing = ledger.close(Duration::from_secs(30));
    let settling = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        open_permit.close(confirmed()).durable().await.expect("recorded")
    };
    let (closed, outcome) = tokio::join!(closing, settling);
    assert_eq!((closed, outcome.index.0), (Closed::Clean, 2));
}

#[tokio::test]
async fn permits_in_flight_are_bounded_and_an_outcome_makes_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let mut permits = Vec::new();
    for _ in 0..SEGMENT_BYTES / 4_096 / 2 {
        permits.push(ledger.decide(Decision::Permit).await.expect("recorded").open.expect("a permit"));
    }
    assert_eq!(ledger.decide(Decision::Permit).await.err(), Some(Unrecorded::Busy));
    ledger.decide(Decision::Deny).await.expect("a refusal opens nothing");
    permits.pop().expect("one").close(confirmed()).durable().await.expect("recorded");
    ledger.decide(Decision::Permit).await.expect("there is place again");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let leaves = ledger.statistics().leaves;
    let half = Bytes::from(vec![b'1'; SEGMENT_BYTES as usize / 2]);
    assert_eq!(ledger.decide_on(Decision::Permit, half).await.err(), Some(Unrecorded::TooLarge));
    let files = |count: usize| PolicyActivation {
        activated_by: "start".into(),
        engine: "regorus/0.14.1 strict".into(),
        files: (0..count)
            .map(|n| BundleFile { name: format!("{n:04}.rego").into(), bytes: Bytes::new() })
            .collect(),
        revision: Digest::of(b"bundle"),
        older_than: None,
        ordered: None,
        version: None,
    };
    assert_eq!(ledger.record_policy(files(1_000)).await.err(), Some(Unrecorded::TooLarge));
    assert_eq!(ledger.statistics().leaves, leaves);
    assert_eq!(ledger.statistics().open_permits, 0);
    let mut large = files(1);
    large.files[0].bytes = Bytes::from(vec![b' '; SEGMENT_BYTES as usize / 2]);
    assert_eq!(ledger.record_policy(large).await.err(), Some(Unrecorded::TooLarge));
    assert_eq!(ledger.statistics().leaves, leaves);
    ledger.record_policy(files(100)).await.expect("recorded");
}

#[tokio::test]
async fn suppressed_refusals_are_counted_in_the_leaf_that_a_clean_close_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let mut written = 0;
    for _ in 0..40 {
        written += usize::from(ledger.record_rejection(rejection("agent-7")).await.expect("taken").is_some());
    }
    assert_eq!((written, ledger.statistics().suppressed), (16, 24));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let refusals: Vec<_> = entries_in(dir.path())
        .into_iter()
        .filter_map(|e| match e {
            Entry::Refusal(r) => Some(r.suppressed),
            Entry::Admin(_)
            | Entry::Decision(_)
            | Entry::Epoch(_)
            | Entry::Heartbeat(_)
            | Entry::Key(_)
            | Entry::Outcome(_)
            | Entry::Policy(_) => None,
        })
        .collect();
    assert_eq!(refusals.len(), 17);
    assert_eq!(refusals.iter().sum::<u64>() + refusals.len() as u64, 40, "every one is written or counted");
}

struct Panics;

impl Observer for Panics {
    fn committed(&self, _: usize, _: Duration, _: Duration) {
        panic!("an observer that panics");
    }
}

#[tokio::test]
async fn a_panic_in_the_committer_poisons_the_ledger_and_wakes_everybody() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start { observer: Arc::new(Panics), ..start() };
    let (ledger, _) = Ledger::open(settings(dir.path()), signer(), clock(), start).expect("opens");
    let watching = ledger.clone();
    let watcher = tokio::spawn(async move { watching.poisoned().await });
    assert_eq!(ledger.decide(Decision::Permit).await.err(), Some(Unrecorded::Poisoned));
    watcher.await.expect("resolves");
    assert_eq!(ledger.health(), Health::Poisoned);
    assert_eq!(ledger.decide(Decision::Deny).await.err(), Some(Unrecorded::Poisoned));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Poisoned);
}

#[tokio::test]
async fn many_callers_share_frames_and_each_gets_its_own_leaf() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings { segment_bytes: 4 * SEGMENT_BYTES, ..settings(dir.path()) };
    let (ledger, _) = Ledger::open(settings, signer(), clock(), start()).expect("opens");
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let done = ledger.decide(Decision::Permit).await.expect("recorded");
                let outcome = done.open.expect("a permit").close(confirmed());
                (done.receipt, outcome.durable().await.expect("recorded"))
            })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for task in tasks {
        let (decision, outcome) = task.await.expect("ends");
        assert!(decision.index < outcome.index && outcome.index.0 < outcome.size.0);
        assert!(seen.insert(decision.index) && seen.insert(outcome.index));
    }
    assert!(ledger.statistics().frames < 200, "leaves share frames");
    let checkpoint = ledger.checkpoint().expect("signed");
    assert!(checkpoint.starts_with(&format!("{ORIGIN}\n201\n")), "{checkpoint}");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
}

#[tokio::test]
async fn permits_of_a_run_with_large_segments_are_settled_in_small_ones() {
    let storage = Arc::new(super::simulated::Simulated::new());
    let open = |segment_bytes| {
        let on: Arc<super::simulated::Simulated> = Arc::clone(&storage);
        let settings = Settings { segment_bytes, ..settings("/nowhere".as_ref()) };
        Ledger::open_on(on, settings, signer(), clock(), start()).expect("opens")
    };
    let (ledger, _) = open(32 * SEGMENT_BYTES);
    ledger.record_policy(activation()).await.expect("recorded");
    let mut permits = Vec::new();
    for _ in 0..1_000 {
        permits.push(ledger.decide(Decision::Permit).await.expect("recorded"));
    }
    drop(ledger);
    drop(permits);
    let (ledger, opened) = open(SEGMENT_BYTES);
    assert_eq!((opened.recovered_permits, opened.size.0), (1_000, 2_003));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert!(crate::verify::verify_log(&*storage, signer().verifier()).expect("readable").passed());
}

/// Every leaf type with all its members, as it is written.
fn golden_entries() -> Vec<(&'static str, Entry)> {
    let now = WallTime::from_unix_ns(1_763_643_600_123_456_000);
    let id = ReceiptId::new(now, [7; 10]);
    let decision = DecisionEntry {
        idempotency_key: Some("order-9".parse().expect("a key")),
        reasons: vec![crate::model::PolicyReason {
            code: "over_limit".into(),
            detail: Some(Json::object([("limit", Json::string("100.00"))])),
            message: Some("More than the limit.".into()),
        }],
        supersedes: Some(id),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        policy: PolicyReference {
            engine: "regorus/0.14.1 strict".into(),
            package: "gateway.payments".parse().expect("a package"),
            revision: Digest::of(b"bundle"),
        },
        ..decision_entry(id, Decision::Permit, Epoch(3), b"{}")
    };
    let claimed = DecisionEntry {
        approved_hold: Some(ReceiptId::new(now, [8; 10])),
        claim: Some(ClaimEntry { until: "2025-11-21T13:00:00.123456Z".into() }),
        idempotency_key: Some("order-9".parse().expect("a key")),
        reserves: vec![Reserve {
            amount: "12.50".into(),
            budget: "daily".parse().expect("a name"),
            key: Digest::of(b"key"),
            until: "2025-11-21T00:00:00.000000Z".into(),
        }],
        ..decision_entry(id, Decision::Permit, Epoch(3), b"{}")
    };
    let held = DecisionEntry {
        hold: Some(HoldEntry { id, until: "2025-11-20T14:00:00.123456Z".into() }),
        ..decision_entry(id, Decision::Escalate, Epoch(3), b"{}")
    };
    let outcome = Outcome { cause: Some("recovered"), ..confirmed() };
    let by = OperatorEntry { id: "ops@example.org".into(), role: Role::Operator };
    let outcome = entries::outcome(outcome, id, crate::model::LeafIndex(7), Epoch(3), now);
    let kept = OutcomeEntry {
        answer_digest: Some(Digest::of(KEPT_ANSWER)),
        cause: None,
        settles: vec![Settle { budget: "daily".parse().expect("a name"), settled_as: SettledAs::Spent }],
        ..outcome.clone()
    };
    let attestation = |operator, status| Attestation {
        decision_id: id,
        decision_index: crate::model::LeafIndex(7),
        status,
        by: AttestedBy { evidence: "ticket 7".into(), operator },
        budgets: vec!["daily".parse().expect("a name")],
    };
    let attested = entries::attested(attestation(Some(by.clone()), Attested::Confirmed), Epoch(3), now);
    let looked_up = entries::attested(attestation(None, Attested::Failed), Epoch(3), now);
    let admin = |administration| Entry::Admin(Box::new(entries::admin(administration, Epoch(3), now)));
    let (surface, actor) =
        (administration(AdminAction::Freeze).surface, Some("agent-7".parse().expect("an id")));
    let quarantine = Administration { surface, actor, ..administration(AdminAction::Quarantine) };
    let approve = Administration { surface: None, hold: Some(id), ..administration(AdminAction::Approve) };
    let refusal = entries::refusal(&rejection("agent-7"), 4, Epoch(3), now);
    let parsed = |bytes: Vec<u8>| Entry::from_bytes_unverified(&bytes).expect("an entry");
    let mut tree = crate::merkle::tree::RightEdge::empty();
    tree.append(Digest::of(b"leaf"));
    let epoch = entries::epoch_bytes(
        crate::model::entry::EpochEvent::Start,
        entries::EpochFacts {
            epoch: Epoch(3),
            now,
            start: &start(),
            vkeys: vec!["example.org/log+00000000+AQ==".into()],
            tree: &tree,
            clean: false,
            torn_bytes: 4_096,
        },
    );
    let stop = entries::epoch_bytes(
        crate::model::entry::EpochEvent::Stop,
        entries::EpochFacts {
            epoch: Epoch(3),
            now,
            start: &start(),
            vkeys: vec!["example.org/log+00000000+AQ==".into()],
            tree: &tree,
            clean: true,
            torn_bytes: 0,
        },
    );
    let file = |name: &str| BundleFile { name: name.into(), bytes: Bytes::copy_from_slice(name.as_bytes()) };
    let activation = PolicyActivation {
        activated_by: "start".into(),
        engine: "regorus/0.14.1 strict".into(),
        files: vec![file("b.rego"), file("a.rego")],
        revision: Digest::of(b"bundle"),
        older_than: None,
        ordered: None,
        version: None,
    };
    let ordered = Ordered { by, reason: "the new limits refuse refunds".into() };
    let older = PolicyActivation {
        activated_by: "operator".into(),
        older_than: Some(9),
        ordered: Some(ordered),
        version: Some(8),
        ..activation.clone()
    };
    let vkey: Arc<str> = SeedSigner::new(ORIGIN, 2).verifier().to_string().into();
    let key = |event| parsed(entries::key_bytes(event, vkey.clone(), Epoch(3), now));
    vec![
        ("admin", admin(administration(AdminAction::Freeze))),
        ("admin_of_quarantine", admin(quarantine)),
        ("admin_of_approval", admin(approve)),
        ("decision_of_claim", Entry::Decision(Box::new(claimed))),
        ("decision_of_hold", Entry::Decision(Box::new(held))),
        ("outcome_with_answer", Entry::Outcome(Box::new(kept))),
        ("outcome_by_operator", Entry::Outcome(Box::new(attested))),
        ("outcome_by_upstream_log", Entry::Outcome(Box::new(looked_up))),
        ("decision", Entry::Decision(Box::new(decision))),
        ("outcome", Entry::Outcome(Box::new(outcome))),
        ("refusal", Entry::Refusal(Box::new(refusal))),
        ("epoch", parsed(epoch)),
        ("epoch_stop", parsed(stop)),
        ("heartbeat", parsed(entries::heartbeat_bytes(3_600, &tree, Epoch(3), now))),
        ("key", key(crate::model::entry::KeyEvent::Add)),
        ("key_retired", key(crate::model::entry::KeyEvent::Retire)),
        ("key_compromised", key(crate::model::entry::KeyEvent::Compromised)),
        ("policy", entries::policy(activation, Epoch(3), now).0),
        ("policy_older", entries::policy(older, Epoch(3), now).0),
    ]
}

#[test]
fn every_leaf_type_is_written_as_its_golden_file_says_and_canonically() {
    for (name, entry) in golden_entries() {
        let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let golden = std::fs::read_to_string(&path).expect("the golden file is there");
        let written = String::from_utf8(entry.to_bytes()).expect("UTF-8");
        assert_eq!(written, golden.trim_end(), "{path}");
        assert_eq!(crate::verify::strict_canonical(written.as_bytes()), Ok(()), "{name}");
        let value: serde_json::Value = serde_json::from_str(&written).expect("json");
        assert_eq!(serde_json_canonicalizer::to_string(&value).expect("canonical"), written, "{name}");
        assert_eq!(Entry::from_bytes_unverified(written.as_bytes()).expect("an entry"), entry, "{name}");
    }
}

/// The outcomes of a log, whole.
fn outcomes_in(dir: &Path) -> Vec<OutcomeEntry> {
    let outcomes = entries_in(dir).into_iter().filter_map(|entry| match entry {
        Entry::Outcome(outcome) => Some(*outcome),
        Entry::Admin(_)
        | Entry::Decision(_)
        | Entry::Epoch(_)
        | Entry::Heartbeat(_)
        | Entry::Key(_)
        | Entry::Policy(_)
        | Entry::Refusal(_) => None,
    });
    outcomes.collect()
}

/// Real time that the committer has to do what is due: many times what it needs.
const SOON: Duration = Duration::from_secs(10);

async fn has_leaves(ledger: &Ledger, leaves: u64) -> bool {
    for _ in 0..SOON.as_millis() / 5 {
        if ledger.statistics().leaves == leaves {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

#[tokio::test]
async fn an_idle_log_says_that_it_is_alive_once_each_time_and_no_clock_makes_it_say_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = clock();
    // The committer looks at the clock so often in real time, and the clock is moved by hand.
    let every = Duration::from_millis(20);
    let settings = Settings { heartbeat: Some(every), ..settings(dir.path()) };
    let (ledger, _) = Ledger::open(settings, signer(), clock.clone(), start()).expect("opens");
    let stays_at = async |leaves| {
        tokio::time::sleep(every * 10).await;
        assert_eq!(ledger.statistics().leaves, leaves);
    };
    // No time passes; the wall clock jumps by years, back and forth.
    clock.set_wall(WallTime::from_unix_ns(4_000_000_000_000_000_000));
    stays_at(1).await;
    clock.set_wall(WallTime::from_unix_ns(1_000_000_000_000_000_000));
    stays_at(1).await;
    clock.advance(every);
    assert!(has_leaves(&ledger, 2).await, "one is due");
    stays_at(2).await;
    // A hundred were missed: a process that was stopped.
    clock.advance(100 * every);
    assert!(has_leaves(&ledger, 3).await, "one is due");
    stays_at(3).await;
    // Something else was written meanwhile.
    clock.advance(every / 2);
    ledger.record_policy(activation()).await.expect("recorded");
    clock.advance(every / 2 + Duration::from_millis(1));
    stays_at(4).await;
    clock.advance(every / 2);
    assert!(has_leaves(&ledger, 5).await, "one is due");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let beats: Vec<_> = (0..)
        .zip(entries_in(dir.path()))
        .filter_map(|(index, entry)| match entry {
            Entry::Heartbeat(beat) => Some((index, beat.previous.size.0, beat.every_s)),
            Entry::Admin(_)
            | Entry::Decision(_)
            | Entry::Epoch(_)
            | Entry::Key(_)
            | Entry::Outcome(_)
            | Entry::Policy(_)
            | Entry::Refusal(_) => None,
        })
        .collect();
    assert_eq!(beats, [(1, 1, 1), (2, 2, 1), (4, 4, 1)]);
    let source = crate::verify::Directory::open(dir.path()).expect("a log");
    let report = crate::verify::verify_log(&source, signer().verifier()).expect("readable");
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn an_idle_log_without_heartbeats_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let (ledger, _) = Ledger::open(settings(dir.path()), signer(), clock.clone(), start()).expect("opens");
    clock.advance(Duration::from_secs(1_000_000));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert_eq!(entries_in(dir.path()).len(), 2, "a start and a stop");
}

#[tokio::test]
async fn an_outcome_settles_what_its_permit_reserved_of_also_when_it_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let reserving = async || {
        let id = ledger.new_id().expect("random");
        let mut entry = decision_entry(id, Decision::Permit, ledger.epoch(), b"{}");
        entry.reserves = ["daily", "monthly"]
            .map(|budget| Reserve {
                amount: "12.50".into(),
                budget: budget.parse().expect("a name"),
                key: Digest::of(b"key"),
                until: "2025-11-21T00:00:00.000000Z".into(),
            })
            .into();
        let entry = Entry::Decision(Box::new(entry));
        let evidence = (Digest::of(b"{}"), Bytes::from_static(b"{}"));
        let done = ledger.append_decision(entry, (id, Decision::Permit), evidence, None).await;
        done.expect("recorded").open.expect("a permit")
    };
    drop(reserving().await);
    for status in [OutcomeStatus::Confirmed, OutcomeStatus::Failed, OutcomeStatus::Indeterminate] {
        let outcome = Outcome { status, ..confirmed() };
        reserving().await.close(outcome).durable().await.expect("recorded");
    }
    assert_eq!(ledger.close(Duration::from_secs(5)).await, Closed::Clean);
    let settled = outcomes_in(dir.path()).into_iter().map(|outcome| {
        let names = outcome.settles.iter().map(|settle| (settle.budget.to_string(), settle.settled_as));
        (outcome.status, names.collect::<Vec<_>>())
    });
    let both = |settled_as| vec![("daily".to_owned(), settled_as), ("monthly".to_owned(), settled_as)];
    let expected = [
        (OutcomeStatus::NotSent, both(SettledAs::Released)),
        (OutcomeStatus::Confirmed, both(SettledAs::Spent)),
        (OutcomeStatus::Failed, both(SettledAs::Released)),
        (OutcomeStatus::Indeterminate, Vec::new()),
    ];
    assert_eq!(settled.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn evidence_is_read_beside_its_entry_in_every_segment_and_one_that_is_too_large_is_left_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    ledger.record_policy(activation()).await.expect("recorded");
    let reader = ledger.reader();
    let mut kept = Vec::new();
    for n in 0..12u32 {
        let input: Bytes = format!("\"{}\"", (n % 10).to_string().repeat(90_000)).into();
        let answer: Bytes = format!("{{\"status\":{n}}}").into();
        let done = ledger.decide_on(Decision::Permit, input.clone()).await.expect("recorded");
        kept.push((done.receipt.index, input));
        let outcome = Outcome { answer: Some(answer.clone()), ..confirmed() };
        let receipt = done.open.expect("a permit").close(outcome).durable().await.expect("recorded");
        // At once, from the segment that is written.
        let read = reader.evidence_of(receipt.index, &Digest::of(&answer)).expect("readable");
        assert_eq!(read.as_ref(), Some(&answer));
        kept.push((receipt.index, answer));
    }
    let huge = Bytes::from(vec![b'7'; SEGMENT_BYTES as usize]);
    let done = ledger.decide(Decision::Permit).await.expect("recorded");
    let outcome = Outcome { answer: Some(huge.clone()), ..confirmed() };
    let receipt = done.open.expect("a permit").close(outcome).durable().await.expect("recorded");
    assert_eq!(reader.evidence_of(receipt.index, &Digest::of(&huge)).expect("readable"), None);
    let is_sealed = || {
        let forms = crate::verify::source::segment_files(dir.path()).expect("listed");
        forms.iter().filter(|(_, form)| *form == crate::verify::Form::Sealed).count() >= 3
    };
    for _ in 0..500 {
        if is_sealed() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_sealed(), "the life is too short");
    let fresh = ledger.reader();
    for (index, bytes) in kept.iter().rev().chain(&kept) {
        for reader in [&reader, &fresh] {
            let read = reader.evidence_of(*index, &Digest::of(bytes)).expect("readable");
            assert_eq!(read.as_ref(), Some(bytes), "{index}");
        }
    }
    assert_eq!(fresh.evidence_of(kept[0].0, &Digest::of(b"other")).expect("readable"), None);
    let past = crate::model::LeafIndex(receipt.index.0 + 1);
    assert!(matches!(fresh.evidence_of(past, &Digest::of(b"{}")), Err(ReadError::NoFrame { .. })));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert_eq!(outcomes_in(dir.path()).last().expect("one").answer_digest, None);
    let report = crate::verify::verify_log(
        &crate::verify::Directory::open(dir.path()).expect("a log"),
        signer().verifier(),
    );
    let report = report.expect("readable");
    assert!(report.passed(), "{report}");
}
