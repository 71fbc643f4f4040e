//! What became of requests that the upstream did not answer, asked of the upstream itself: on real sockets, audited.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use interlock::authority::{Fold, Versions};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::{
    BodyRules, ExecutionRequest, Forward, Received, ReceivedHead, Required, Rules, Version, canonicalize,
};
use interlock::clock::Clock;
use interlock::gateway::Stopped;
use interlock::ledger::{
    Administration, Attestation, Attested, FileSigner, Follower, Ledger, Outcome, Recording, Settings, Start,
};
use interlock::limits;
use interlock::model::entry::{AdminAction, AttestedBy, OperatorEntry, OutcomeEntry, Role, SettledAs};
use interlock::model::{
    Actor, AuthenticationMethod, Digest, Json, LeafIndex, OutcomeStatus, ReadSet, ReceiptId, Settled,
};
use interlock::policy::{self, Bundle, Context, Judgment, Pdp, Question, Sources};
use interlock::reconcile::{NotSettled, Reconciler};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::ledger_faults::start;
use crate::replay::recording::Recorder;
use crate::support::auditor::Audit;
use crate::support::client::Response;
use crate::support::{Client, Gate, KEY, Lookup, OTHER_KEY, Script, Setup, Step, World, request};

const POLICY: &str = r#"package gateway.test

wanted contains input.request.headers["x-want"]

permit contains "wanted" if "permit" in wanted

permit contains "within" if {
	"spend" in wanted
	spend := input.context.budgets.spend
	spend.spent + spend.in_flight + input.request.body.amount <= 10
}

deny contains "over_budget" if {
	"spend" in wanted
	spend := input.context.budgets.spend
	spend.spent + spend.in_flight + input.request.body.amount > 10
}
"#;

const SURFACE: &[&str] = &[
    "idempotency: { keep_hours: 24, answer_bytes_max: 4096 }",
    "budgets: [ { name: spend, actions: [keyed.create], amount: /request/body/amount, window: { calendar: month, zone: UTC }, unit: EUR } ]",
];

/// At once, and again soon.
const LOOKUP: Lookup = Lookup {
    path: "/v1/status/{idempotency_key}",
    header: None,
    more: "status: /status, confirmed: [succeeded], failed: [declined], after_ms: 0, again_ms_max: 100, timeout_ms: 10000",
};

const OPERATOR: &str = "ilo_operator_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";

fn setup(lookup: Lookup) -> Setup {
    let digest = Digest::of(OPERATOR.as_bytes()).to_string().split_off("sha-256:".len());
    let oda = format!("{{ id: oda, role: operator, prefix: {}, sha256: {digest} }}", &OPERATOR[..12]);
    Setup {
        policy: POLICY.into(),
        surface: SURFACE,
        status_lookup: Some(lookup),
        admin: vec![format!("operators: [{oda}]")],
        ..Setup::default()
    }
}

fn by(agent: &str, path: &str, key: &str, want: &str, amount: u32) -> Vec<u8> {
    let headers = [
        ("x-api-key", agent),
        ("x-want", want),
        ("content-type", "application/json"),
        ("idempotency-key", key),
        ("connection", "close"),
    ];
    request("POST", path, &headers, format!(r#"{{"amount":{amount}}}"#))
}

fn pay(world: &World, key: &str, amount: u32) -> Response {
    world.send(by(KEY, "/v1/keyed", key, "spend", amount))
}

/// The upstream has it, and hangs up instead of answering; the receipt's id.
fn lost(world: &World, key: &str, amount: u32) -> String {
    world.upstream.next(Script::steps([Step::Close]));
    let answer = pay(world, key, amount);
    answer.assert_refused(504, "upstream_silent");
    receipt_id(&answer)
}

fn receipt_id(answer: &Response) -> String {
    answer.header("interlock-receipt").expect("a receipt").split('"').nth(1).expect("an id").to_owned()
}

fn says(world: &World, key: &str, script: Script) {
    world.upstream.on(&format!("/v1/status/{key}"), script);
}

fn status(value: &str) -> Script {
    Script::ok(&format!(r#"{{"status":"{value}"}}"#))
}

fn results(world: &World, result: &str) -> f64 {
    world.metric(&format!("interlock_status_lookups_total{{result=\"{result}\",surface=\"test\"}}"))
}

/// Until so many questions came to this, or more.
#[track_caller]
fn wait_for(world: &World, result: &str, count: f64) {
    let began = Instant::now();
    while results(world, result) < count {
        assert!(began.elapsed() < Duration::from_secs(30), "{result} is {}", results(world, result));
        thread::sleep(Duration::from_millis(20));
    }
}

/// What was unknown is not any more.
fn settled(world: &World) {
    world.wait_for_metric("interlock_outcomes_unknown", 0.0);
}

fn questions(world: &World) -> usize {
    world.upstream.captures().iter().filter(|capture| capture.head().starts_with("GET ")).count()
}

fn attested(audit: &Audit) -> Vec<&OutcomeEntry> {
    audit.outcomes().into_iter().filter(|outcome| outcome.attestation != Settled::Gateway).collect()
}

fn evidence(outcome: &OutcomeEntry) -> &str {
    let by = outcome.attested_by.as_ref().expect("somebody");
    assert_eq!(by.operator, None);
    &by.evidence
}

fn resolve(world: &World, id: &str, status: &str) -> Response {
    let body = json!({"status": status, "evidence": "statement 7", "reason": "looked"}).to_string();
    let mut client = Client::connect(world.admin_address());
    client.send(format!(
        "POST /outcomes/{id}/resolve HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {OPERATOR}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ));
    client.response()
}

fn command(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
    command.args(arguments).env_remove("INTERLOCK_ADMIN").env("INTERLOCK_ADMIN_TOKEN", OPERATOR);
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn what_the_upstream_says_settles_claims_and_budgets_and_stands_in_the_log_with_what_it_said() {
    let mut world = setup(LOOKUP).lay_out();
    world.run_inside();
    says(&world, "order-1", status("pending"));
    says(&world, "order-2", status("pending"));
    let (first, second) = (lost(&world, "order-1", 6), lost(&world, "order-2", 4));
    // As long as nobody knows, the keys and the amounts are taken.
    wait_for(&world, "open", 4.0);
    pay(&world, "order-1", 6).assert_refused(409, "idempotency_unknown");
    pay(&world, "order-3", 1).assert_refused(403, "policy_denied");
    assert_eq!(world.metric("interlock_status_lookups_waiting{surface=\"test\"}"), 2.0);
    says(&world, "order-1", status("succeeded"));
    says(&world, "order-2", status("declined"));
    settled(&world);
    world.wait_for_metric("interlock_status_lookups_waiting{surface=\"test\"}", 0.0);
    assert_eq!((results(&world, "confirmed"), results(&world, "failed")), (1.0, 1.0));
    // Six are spent, four are back; the keys were used, and the answers were never seen.
    let after = |world: &World| {
        pay(world, "order-1", 6).assert_refused(409, "idempotency_answer_not_kept");
        pay(world, "order-2", 4).assert_refused(409, "idempotency_answer_not_kept");
        pay(world, "order-4", 5).assert_refused(403, "policy_denied");
    };
    after(&world);
    resolve(&world, &first, "failed").assert_refused(409, "not_indeterminate");
    let asked = questions(&world);
    world.finish_here(Stopped::Clean);
    world.run_inside();
    after(&world);
    assert_eq!(pay(&world, "order-4", 4).status, 200);
    let audit = world.finish_here(Stopped::Clean);
    assert_eq!((audit.effects, audit.lookups), (3, asked));
    let mut statuses = audit.statuses();
    statuses.sort_unstable();
    assert_eq!(statuses, ["confirmed", "confirmed", "failed", "indeterminate", "indeterminate"]);
    let mut said = attested(&audit);
    said.sort_by_key(|outcome| outcome.decision_index);
    let [confirmed, failed] = said[..] else { panic!("two: {said:?}") };
    for (outcome, id, value, became) in [
        (confirmed, &first, "succeeded", SettledAs::Spent),
        (failed, &second, "declined", SettledAs::Released),
    ] {
        assert_eq!(
            (outcome.attestation, outcome.decision_id.to_string()),
            (Settled::UpstreamLog, id.clone())
        );
        let body = format!(r#"{{"status":"{value}"}}"#);
        let digest = Digest::of(body.as_bytes());
        let expected = format!(
            "GET /v1/status/{{idempotency_key}}: 200, `{value}` at `/status`, {} bytes, {digest}",
            body.len()
        );
        assert_eq!(evidence(outcome), expected);
        assert_eq!(outcome.settles[0].settled_as, became);
        assert!(outcome.response.is_none() && outcome.sent.is_none() && outcome.answer_digest.is_none());
    }
    let log = world.path("ledger").display().to_string();
    let shown = command(&["receipts", "show", &first, "--log", &log]);
    for expected in
        ["attested       confirmed by the upstream's own log", "evidence: GET /v1/status/", "spend: 6 spent"]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    command(&["verify", "--log", &log, "--key", &world.vkey(), "--replay"]);
}

#[test]
fn what_the_upstream_does_not_know_stays_unknown_unless_config_says_that_it_failed() {
    let world = setup(LOOKUP).start();
    says(&world, "order-1", Script::json(404, r#"{"error":"unknown"}"#));
    lost(&world, "order-1", 10);
    wait_for(&world, "not_found", 3.0);
    pay(&world, "order-1", 10).assert_refused(409, "idempotency_unknown");
    pay(&world, "order-2", 1).assert_refused(403, "policy_denied");
    let audit = world.finish();
    assert!(attested(&audit).is_empty());

    const FAILED: Lookup = Lookup {
        more: "status: /status, confirmed: [succeeded], not_found: failed, after_ms: 0, again_ms_max: 100",
        ..LOOKUP
    };
    let world = setup(FAILED).start();
    // What some proxy says is not what the upstream's records say.
    let html = "HTTP/1.1 404 No\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nno";
    says(&world, "order-1", Script::answer(html));
    lost(&world, "order-1", 10);
    wait_for(&world, "unusable", 2.0);
    says(&world, "order-1", Script::json(404, r#"{"error":"unknown"}"#));
    settled(&world);
    assert_eq!(pay(&world, "order-2", 10).status, 200, "it took nothing");
    let audit = world.finish();
    let said = attested(&audit);
    assert_eq!((said.len(), said[0].status), (1, OutcomeStatus::Failed));
    assert!(evidence(said[0]).starts_with("GET /v1/status/{idempotency_key}: 404, 19 bytes, sha-256:"));
}

/// No answer in time, none at all, or one that could be read in two ways or not at all.
#[test]
fn answers_that_say_nothing_change_nothing_and_nobody_waits_for_them() {
    const IMPATIENT: Lookup = Lookup {
        more: "status: /status, confirmed: [succeeded], after_ms: 0, again_ms_max: 100, timeout_ms: 300, bytes_max: 1000",
        ..LOOKUP
    };
    let world = setup(IMPATIENT).start();
    let good = r#"{"status":"succeeded"}"#;
    let typed = |media: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let twice = r#"{"status":"succeeded","status":"declined"}"#;
    let padded = format!(r#"{{"pad":"{}","status":"succeeded"}}"#, "x".repeat(1_000));
    let moved = format!(
        "HTTP/1.1 307 Moved\r\nlocation: /v1/status/moved\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{good}",
        good.len()
    );
    let zipped =
        typed("application/json", good).replace("200 OK\r\n", "200 OK\r\ncontent-encoding: gzip\r\n");
    let cut = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 23\r\n\r\n{\"status\":\"succeeded\"}";
    let open_ended = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{good}");
    says(&world, "moved", status("succeeded"));
    says(&world, "order-1", Script::steps([Step::Hang]));
    lost(&world, "order-1", 10);
    for (script, result) in [
        (Script::steps([Step::Hang]), "unanswered"),
        (Script::steps([Step::Close]), "unanswered"),
        (Script::answer(cut).then(Step::Close), "unanswered"),
        (Script::answer(&typed("application/json", good)[..60]).then(Step::Hang), "unanswered"),
        (Script::answer(moved), "unusable"),
        (Script::json(500, good), "unusable"),
        (Script::json(201, good), "unusable"),
        (Script::json(410, good), "unusable"),
        (Script::answer(typed("text/html", good)), "unusable"),
        (Script::answer(zipped), "unusable"),
        (Script::answer(open_ended).then(Step::Close), "unusable"),
        (Script::ok(&padded), "unusable"),
        (Script::ok(twice), "unusable"),
        (Script::ok("succeeded"), "unusable"),
        (Script::ok(r#"{"state":"succeeded"}"#), "unusable"),
        (Script::ok(r#"{"status":["succeeded"]}"#), "unusable"),
        (Script::json(404, good), "not_found"),
        (status("pending"), "open"),
    ] {
        says(&world, "order-1", script);
        let before = results(&world, result);
        // Twice: one may have been on its way under the script before this one.
        wait_for(&world, result, before + 2.0);
        assert_eq!(world.metric("interlock_outcomes_unknown"), 1.0, "{result}");
        // Nobody waits for it.
        assert_eq!(world.ask("POST", "/v1/things", "permit", r#"{"a":1}"#).status, 200);
    }
    let captures = world.upstream.captures();
    assert!(
        !captures.iter().any(|capture| capture.head().contains("/v1/status/moved")),
        "no redirect is followed"
    );
    says(&world, "order-1", status("succeeded"));
    settled(&world);
    let audit = world.finish();
    assert_eq!(attested(&audit).len(), 1);
}

/// An upstream that knows keys, and not who sent them, cannot say whose effect it is telling of.
#[test]
fn an_answer_that_may_be_about_another_request_with_the_same_key_settles_nothing() {
    let world = setup(LOOKUP).start();
    says(&world, "order-1", status("succeeded"));
    assert_eq!(world.send(by(OTHER_KEY, "/v1/keyed", "order-1", "spend", 1)).status, 200);
    let lost_one = lost(&world, "order-1", 1);
    wait_for(&world, "shared_key", 3.0);
    assert_eq!(questions(&world), 0, "nobody is asked what could not be told apart");
    // The other one comes between the question and its answer.
    let gate = Gate::default();
    let answer = r#"{"status":"succeeded"}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    says(&world, "order-2", Script::steps([Step::Wait(gate.clone()), Step::Write((head + answer).into())]));
    lost(&world, "order-2", 1);
    world
        .upstream
        .wait_until(|captures| captures.iter().any(|c| c.head().starts_with("GET /v1/status/order-2 ")));
    assert_eq!(world.send(by(OTHER_KEY, "/v1/keyed", "order-2", "spend", 1)).status, 200);
    let before = results(&world, "shared_key");
    gate.open();
    wait_for(&world, "shared_key", before + 4.0);
    assert_eq!(questions(&world), 1);
    assert_eq!(world.metric("interlock_outcomes_unknown"), 2.0);
    // People can tell.
    assert_eq!(resolve(&world, &lost_one, "failed").status, 200);
    world.wait_for_metric("interlock_status_lookups_waiting{surface=\"test\"}", 1.0);
    let audit = world.finish();
    assert_eq!(attested(&audit).len(), 1);
}

/// A decision point and a ledger over the world's log, without a gateway.
async fn recorder(world: &World, follower: Arc<dyn Follower>) -> Recorder {
    let settings = Settings {
        dir: world.path("ledger"),
        origin: "interlock.test/log".parse().expect("a name"),
        segment_bytes: limits::SEGMENT_BYTES_MIN,
        salts: None,
        heartbeat: None,
    };
    let signer = Box::new(FileSigner::load(&world.path("log.key")).expect("the key"));
    let (ledger, _) =
        Ledger::open(settings, signer, Clock::system(), Start { follower, ..start() }).expect("opens");
    let files = [("test.rego".to_owned(), POLICY.as_bytes().to_vec())];
    let bundle = Sources::from_files(files).and_then(|sources| Bundle::from_sources(sources, &[]));
    let bounds = policy::Settings { evaluation_max: Duration::from_secs(300), ..policy::Settings::default() };
    let pdp = Pdp::start(bundle.expect("a bundle"), bounds, Clock::system(), None).expect("threads");
    let recorder = Recorder { pdp, ledger };
    recorder.record_policy().await;
    recorder
}

/// A PERMIT for a request with this key, and its outcome.
async fn permitted(recorder: &Recorder, key: &str, status: OutcomeStatus) -> (ReceiptId, LeafIndex) {
    let Judgment::Permit(permit) = recorder.pdp.judge(question(key)).await else {
        panic!("it is not permitted")
    };
    let id = recorder.ledger.new_id().expect("random");
    let recorded = recorder.ledger.record_permit(permit, Recording::new(id, None)).await;
    let (_, receipt, open) = recorded.expect("recorded").into_parts();
    let (cause, sent, response, answer) = (None, None, None, None);
    let outcome = Outcome { status, cause, sent, response, answer, duration: Duration::ZERO };
    open.close(outcome).durable().await.expect("durable");
    (id, receipt.index)
}

fn question(key: &str) -> Question {
    let headers = [
        ("host", "api.test"),
        ("content-type", "application/json"),
        ("x-want", "permit"),
        ("idempotency-key", key),
    ];
    let headers: HeaderMap = headers
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")))
        .collect();
    let (version, method) = (Version::Http11, Method::POST);
    let head = ReceivedHead { version, method, target: "/v1/keyed".into(), authority: None, headers };
    let target = CanonicalTarget::parse(&head).expect("a target");
    let forward_headers: BTreeSet<Arc<str>> = ["x-want", "idempotency-key"].map(Arc::from).into();
    let rules = Rules {
        upstream_authority: "upstream.example".into(),
        body: BodyRules::Json { forward: Forward::Canonical, required: Required::Required },
        body_bytes_max: 65_536,
        schema: None,
        redaction: Default::default(),
        forward_headers,
        identity_headers: Default::default(),
        credential: None,
        path: Default::default(),
        query_lists: Default::default(),
        idempotency_key: Required::Required,
    };
    let received = Received { head, body: Bytes::from_static(b"{}") };
    let clock = Clock::system();
    Question {
        execution: ExecutionRequest {
            surface: "test".parse().expect("a name"),
            action: "keyed.create".parse().expect("a name"),
            actor: Arc::new(Actor {
                id: "agent-7".parse().expect("an id"),
                method: AuthenticationMethod::ApiKey,
                credential_digest: None,
                claims: Json::object([]),
                valid_until: None,
            }),
            trace: None,
            request: canonicalize(received, target, Vec::new(), &rules).expect("canonical"),
        },
        package: "gateway.test".parse().expect("a name"),
        context: Context::empty(1),
        read_set: ReadSet {
            watched: Vec::new(),
            state: Vec::new(),
            captured_at: clock.monotonic(),
            approvals_until: None,
        },
        now: clock.wall(),
    }
}

#[test]
fn a_permit_with_the_same_key_of_which_nothing_was_sent_is_in_nobodys_way() {
    let mut world = setup(LOOKUP).lay_out();
    Runtime::new().expect("built").block_on(async {
        let recorder = recorder(&world, Arc::new(())).await;
        permitted(&recorder, "order-1", OutcomeStatus::NotSent).await;
        permitted(&recorder, "order-1", OutcomeStatus::Indeterminate).await;
        recorder.close().await;
    });
    says(&world, "order-1", status("succeeded"));
    world.run_inside();
    settled(&world);
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["not_sent", "indeterminate", "confirmed"]);
}

/// Polls once: it takes a sync of the disk to end.
async fn begin(mut future: Pin<&mut impl Future>) {
    std::future::poll_fn(|context| {
        let _begun = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

#[test]
fn a_word_that_was_begun_is_recorded_though_nobody_waits_and_of_many_at_once_one_is() {
    let mut world = setup(LOOKUP).lay_out();
    Runtime::new().expect("built").block_on(async {
        let fold = Fold::new(Versions::new());
        let recorder = recorder(&world, fold.clone()).await;
        let reconciler = Reconciler::new(fold.clone(), recorder.ledger.clone());
        let word = |(decision_id, decision_index): (ReceiptId, LeafIndex), status| Attestation {
            decision_id,
            decision_index,
            status,
            by: AttestedBy { evidence: "a test".into(), operator: None },
            budgets: Vec::new(),
        };
        let first = permitted(&recorder, "order-1", OutcomeStatus::Indeterminate).await;
        let mut settling = Box::pin(reconciler.settle(word(first, Attested::Confirmed)));
        begin(settling.as_mut()).await;
        drop(settling);
        let began = Instant::now();
        while fold.is_unknown(first.1) {
            assert!(began.elapsed() < Duration::from_secs(30), "it is never recorded");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Who comes while it is being recorded waits until the state has it: the Auditor finds two words on one outcome.
        let again = permitted(&recorder, "order-4", OutcomeStatus::Indeterminate).await;
        let mut settling = Box::pin(reconciler.settle(word(again, Attested::Confirmed)));
        begin(settling.as_mut()).await;
        drop(settling);
        let after = reconciler.settle(word(again, Attested::Confirmed)).await;
        assert!(matches!(after, Ok(_) | Err(NotSettled::NotUnknown)), "{after:?}");
        let second = permitted(&recorder, "order-2", OutcomeStatus::Indeterminate).await;
        let words: Vec<_> = (0..32)
            .map(|n| {
                let status = if n % 2 == 0 { Attested::Confirmed } else { Attested::Failed };
                let (reconciler, word) = (reconciler.clone(), word(second, status));
                tokio::spawn(async move { reconciler.settle(word).await.map(|_receipt| ()) })
            })
            .collect();
        let mut recorded = 0;
        for word in words {
            match word.await.expect("no panic") {
                Ok(()) => recorded += 1,
                Err(why) => assert_eq!(why, NotSettled::NotUnknown),
            }
        }
        assert_eq!(recorded, 1);
        // Of what is known, of what has no outcome of this kind, and of what is no decision.
        let known = permitted(&recorder, "order-3", OutcomeStatus::NotSent).await;
        for of in [first, second, known, (first.0, LeafIndex(0))] {
            let again = reconciler.settle(word(of, Attested::Failed)).await;
            assert_eq!(again.err(), Some(NotSettled::NotUnknown));
        }
        recorder.close().await;
    });
    let audit = world.audit();
    assert_eq!(attested(&audit).len(), 3);
}

#[test]
fn an_operator_and_the_upstream_that_say_it_at_once_make_one_leaf() {
    let world = setup(LOOKUP).start();
    let answer = r#"{"status":"succeeded"}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    let held = |key: &str| {
        let gate = Gate::default();
        let steps = [Step::Wait(gate.clone()), Step::Write((head.clone() + answer).into())];
        says(&world, key, Script::steps(steps));
        let id = lost(&world, key, 0);
        let line = format!("GET /v1/status/{key} ");
        world.upstream.wait_until(|captures| captures.iter().any(|c| c.head().starts_with(&line)));
        (gate, id)
    };
    // The operator is first.
    let (gate, id) = held("order-0");
    assert_eq!(resolve(&world, &id, "failed").status, 200);
    gate.open();
    wait_for(&world, "settled_already", 1.0);
    // Who is first is chance; the other one is told that it is known.
    let (mut by_operator, mut refused) = (1, 0);
    for n in 1..=12 {
        let (gate, id) = held(&format!("order-{n}"));
        let resolved = thread::scope(|scope| {
            let resolving = scope.spawn(|| {
                thread::sleep(Duration::from_micros(n % 6 * 700));
                resolve(&world, &id, "failed")
            });
            gate.open();
            resolving.join().expect("an answer")
        });
        match resolved.status {
            200 => by_operator += 1,
            _ => {
                resolved.assert_refused(409, "not_indeterminate");
                refused += 1;
            }
        }
        settled(&world);
    }
    // On a busy machine the log may be read too late to say that it was settled already.
    let began = Instant::now();
    while results(&world, "settled_already") + results(&world, "log_unavailable") < f64::from(by_operator) {
        assert!(began.elapsed() < Duration::from_secs(30), "questions that came second are counted");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(results(&world, "confirmed"), f64::from(refused));
    let audit = world.finish();
    // The Auditor refuses two words on one outcome.
    let said = attested(&audit);
    let of = |by| said.iter().filter(|outcome| outcome.attestation == by).count();
    assert_eq!((of(Settled::Operator), of(Settled::UpstreamLog)), (by_operator as usize, refused as usize));
}

#[test]
fn what_a_crash_leaves_unknown_is_asked_about_after_the_next_start() {
    let mut world = setup(LOOKUP).lay_out();
    world.run_program(&[]);
    says(&world, "order-1", status("pending"));
    lost(&world, "order-1", 3);
    world.upstream.next(Script::steps([Step::Hang]));
    let mut client = world.client();
    client.send(by(KEY, "/v1/keyed", "order-2", "spend", 4));
    world.upstream.wait_until(|captures| captures.iter().any(|c| c.is_whole && c.body().ends_with(b"4}")));
    world.kill();
    for key in ["order-1", "order-2"] {
        says(&world, key, status("succeeded"));
    }
    world.run_inside();
    settled(&world);
    pay(&world, "order-3", 4).assert_refused(403, "policy_denied");
    let audit = world.finish();
    let said = attested(&audit);
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|outcome| outcome.attestation == Settled::UpstreamLog));
    assert!(audit.outcomes().iter().any(|outcome| outcome.cause.as_deref() == Some("recovered")));
}

fn freezing(action: AdminAction, surface: Option<&str>) -> Administration {
    Administration {
        action,
        by: OperatorEntry { id: "ann".into(), role: Role::Administrator },
        surface: surface.map(|name| name.parse().expect("a name")),
        actor: None,
        hold: None,
        reason: "as a test".into(),
    }
}

#[test]
fn while_its_surface_is_frozen_the_upstream_is_asked_nothing() {
    let world = setup(LOOKUP).start();
    // It becomes unknown after this was done.
    let lost_after = |key: &str, done: Administration| {
        says(&world, key, status("succeeded"));
        let gate = Gate::default();
        world.upstream.next(Script::steps([Step::Wait(gate.clone()), Step::Close]));
        let mut client = world.client();
        client.send(by(KEY, "/v1/keyed", key, "spend", 1));
        let key = format!("idempotency-key: {key}");
        world.upstream.wait_until(|captures| captures.iter().any(|c| c.is_whole && c.head().contains(&key)));
        world.administer(done);
        gate.open();
        client.response().assert_refused(504, "upstream_silent");
    };
    for (key, surface) in [("order-1", None), ("order-2", Some("test"))] {
        let before = questions(&world);
        lost_after(key, freezing(AdminAction::Freeze, surface));
        world.wait_for_metric("interlock_status_lookups_waiting{surface=\"test\"}", 1.0);
        thread::sleep(Duration::from_millis(1_000));
        assert_eq!((questions(&world), world.metric("interlock_outcomes_unknown")), (before, 1.0));
        world.administer(freezing(AdminAction::Unfreeze, surface));
        settled(&world);
        world.wait_for_metric("interlock_status_lookups_waiting{surface=\"test\"}", 0.0);
    }
    // Another surface's freeze, and an actor's, are not this one's.
    world.administer(freezing(AdminAction::Freeze, Some("other")));
    let actor = Some("agent-7".parse().expect("a name"));
    lost_after("order-3", Administration { actor, ..freezing(AdminAction::Freeze, None) });
    wait_for(&world, "confirmed", 3.0);
    let audit = world.finish();
    assert_eq!(attested(&audit).len(), 3);
}

#[test]
fn what_cannot_be_asked_about_is_counted_and_shown_to_operators() {
    let world = setup(LOOKUP).start();
    world.upstream.next(Script::steps([Step::Close]));
    let without = world.ask("POST", "/v1/things", "permit", r#"{"a":1}"#);
    without.assert_refused(504, "upstream_silent");
    // Of an action that forwards no key.
    world.upstream.next(Script::steps([Step::Close]));
    world.ask("POST", "/v1/verbatim", "permit", r#"{"a":1}"#).assert_refused(504, "upstream_silent");
    for key in ["../admin", "a%2fb", ".."] {
        lost(&world, key, 1);
    }
    says(&world, "order-1", status("pending"));
    let asked = lost(&world, "order-1", 1);
    wait_for(&world, "open", 2.0);
    wait_for(&world, "no_key", 4.0);
    assert_eq!(world.metric("interlock_outcomes_unknown"), 6.0);
    assert_eq!(world.metric("interlock_status_lookups_waiting{surface=\"test\"}"), 1.0);
    let asks: Vec<_> =
        world.upstream.captures().into_iter().filter(|c| c.head().starts_with("GET ")).collect();
    assert!(asks.iter().all(|capture| capture.head().starts_with("GET /v1/status/order-1 ")));
    let url = format!("http://{}", world.admin_address());
    let listed = command(&["reconcile", "list", "--admin", &url]);
    let line = |id: &str| listed.lines().find(|line| line.starts_with(id)).expect("listed").to_owned();
    assert!(listed.lines().next().expect("a head").ends_with("LOOKUP"), "{listed}");
    assert!(line(&receipt_id(&without)).ends_with("no_key (0)"), "{listed}");
    assert!(line(&asked).contains("open ("), "{listed}");
    let checked = command(&["check", "--config", &world.path("running.yaml").display().to_string()]);
    let line =
        "  asks the upstream what became of keyed.create, thing.create: GET /v1/status/{idempotency_key}";
    assert!(checked.lines().any(|l| l == line), "{checked}");
    world.finish();
}

/// In a header or a query; and where the route redacts, the leaf does not have the digest of the answer.
#[test]
fn a_key_in_a_header_or_a_query_is_asked_about_and_an_answer_about_another_one_says_nothing() {
    const PIN: &str = "#7!2";
    const HEADER: Lookup = Lookup {
        path: "/v1/status?full=1",
        header: Some("x-status-of"),
        more: "status: /status, echo: /key, confirmed: [true], after_ms: 0, again_ms_max: 100",
    };
    const QUERY: Lookup = Lookup { path: "/v1/status?full=1&of={idempotency_key}", header: None, ..HEADER };
    const REDACTING: &[&str] =
        &["idempotency: { keep_hours: 24 }", "redact: { pointers: [/request/body/pin] }"];
    for lookup in [HEADER, QUERY] {
        let world =
            Setup { surface: REDACTING, redacted: &[PIN], upstream_tls: true, ..setup(lookup) }.start();
        world.upstream.on("/v1/status", Script::ok(r#"{"key":"another","status":true}"#));
        let headers = [
            ("x-api-key", KEY),
            ("x-want", "permit"),
            ("content-type", "application/json"),
            ("idempotency-key", "a/b&c=%2f"),
            ("connection", "close"),
        ];
        world.upstream.next(Script::steps([Step::Close]));
        let asked = request("POST", "/v1/keyed", &headers, format!(r#"{{"pin":"{PIN}"}}"#));
        world.send(asked).assert_refused(504, "upstream_silent");
        wait_for(&world, "unusable", 2.0);
        world.upstream.on("/v1/status", Script::ok(r#"{"key":"a/b&c=%2f","status":true}"#));
        settled(&world);
        let audit = world.finish();
        let said = attested(&audit);
        assert_eq!(said.len(), 1);
        assert_eq!(evidence(said[0]), format!("GET {}: 200, `true` at `/status`", lookup.path));
        assert!(audit.lookups >= 3);
    }
}

/// The program, until it is dropped.
struct SampleApi {
    child: Child,
    address: String,
}

impl SampleApi {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
        command.args(["sample-api", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("runs");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("text");
        let address = line.trim().strip_prefix("sample API on http://").expect("where it listens").to_owned();
        // It goes on writing lines.
        thread::spawn(move || out.lines().for_each(drop));
        Self { child, address }
    }
}

impl Drop for SampleApi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With the `status_lookup` of the shipped config, word for word.
#[test]
fn the_shipped_example_learns_from_its_api_what_became_of_a_charge_that_was_not_answered() {
    let shipped = std::fs::read_to_string("deploy/interlock.yaml").expect("the example");
    let lines = shipped.lines().skip_while(|line| *line != "    status_lookup:");
    let lookup: Vec<&str> = lines
        .enumerate()
        .take_while(|(n, line)| *n == 0 || line.starts_with("      "))
        .map(|(_, line)| line.strip_prefix("    ").expect("of a surface"))
        .collect();
    assert_eq!(lookup.len(), 6, "{lookup:?}");
    let surface: String =
        ["idempotency: { keep_hours: 24 }"].iter().chain(&lookup).copied().collect::<Vec<_>>().join("\n    ");
    let api = SampleApi::start();
    let world = Setup {
        surface: vec![&*surface.leak()].leak(),
        upstream_url: Some(format!("http://{}", api.address)),
        status_lookup: None,
        routes: "\n      - { action: charge.create, method: POST, path: /v1/charges, body: json, \
                 headers: [x-want, idempotency-key], idempotency_key: required }\n"
            .into(),
        ..setup(LOOKUP)
    }
    .start();
    let headers = [
        ("x-api-key", KEY),
        ("x-want", "permit"),
        ("content-type", "application/json"),
        ("idempotency-key", "order:77"),
        ("connection", "close"),
    ];
    let charge = r#"{"amount":4200,"currency":"EUR","customer":"cus_dies"}"#;
    world.send(request("POST", "/v1/charges", &headers, charge)).assert_refused(504, "upstream_silent");
    wait_for(&world, "confirmed", 1.0);
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["indeterminate", "confirmed"]);
    let said = attested(&audit);
    assert!(
        evidence(said[0]).starts_with("GET /v1/by-key/{idempotency_key}: 200, `succeeded` at `/status`, ")
    );
}
