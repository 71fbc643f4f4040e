//! Operating a gateway: who may do what over the admin listener, what the log says of it afterwards, and the commands.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use interlock::clock::{Clock, WallTime};
use interlock::config::{AdminListen, Config, SecretsAre, Surroundings};
use interlock::gateway::{Gateway, Stopped};
use interlock::ledger::{FileSigner, Ledger, Recording, Settings};
use interlock::limits;
use interlock::model::entry::{AdminAction, AdminEntry, Entry, HoldEntry, OperatorEntry, Role};
use interlock::model::{Digest, OutcomeStatus, ReceiptId, Settled};
use interlock::policy::{self, Judgment, Pdp};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::identity::provider::{CertificateAuthority, Client as Certified};
use crate::ledger_faults::start;
use crate::replay::recording::{Ask, Recorder, mixed, shipped};
use crate::support::client::Response;
use crate::support::{Client, KEY, Script, Setup, Step, World, request};

/// A token for each, as `interlock keys operator` makes them.
const VIEWER: &str = "ilo_viewer00_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";
const APPROVER: &str = "ilo_approver_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";
const OPERATOR: &str = "ilo_operator_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";
const ADMINISTRATOR: &str = "ilo_admin000_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";
/// Called as an agent of an earlier config is.
const AGENTS_OWN: &str = "ilo_agentown_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";

const TOKENS: [(&str, &str, &str); 4] = [
    ("vic", "viewer", VIEWER),
    ("ann", "approver", APPROVER),
    ("oda", "operator", OPERATOR),
    ("ada", "administrator", ADMINISTRATOR),
];

fn hex(text: &[u8]) -> String {
    Digest::of(text).to_string().split_off("sha-256:".len())
}

fn operators() -> Vec<String> {
    let of = |(id, role, token): &(&str, &str, &str)| {
        let (prefix, sha256) = (&token[..12], hex(token.as_bytes()));
        format!("{{ id: {id}, role: {role}, prefix: {prefix}, sha256: {sha256} }}")
    };
    let items: Vec<String> = TOKENS.iter().map(of).collect();
    vec![format!("operators: [{}]", items.join(", "))]
}

fn setup() -> Setup {
    Setup { admin: operators(), ..Setup::default() }
}

/// From now on agent-7 is an operator, and its key another agent's.
fn agent_becomes_operator(world: &World) {
    let own = format!(
        "operators: [{{ id: agent-7, role: operator, prefix: {}, sha256: {} }}, ",
        &AGENTS_OWN[..12],
        hex(AGENTS_OWN.as_bytes())
    );
    let yaml = fs::read_to_string(world.path("interlock.yaml")).expect("readable");
    assert!(yaml.contains("{ id: agent-7, prefix: ilk_") && yaml.contains("operators: ["));
    let yaml = yaml.replace("{ id: agent-7, prefix: ilk_", "{ id: agent-9, prefix: ilk_");
    world.write("interlock.yaml", &yaml.replace("operators: [", &own), 0o644);
}

/// A request as an operator's client sends it.
fn send(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut client = Client::connect(world.admin_address());
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    client.send(text + "\r\n" + body);
    client.response()
}

fn ask(world: &World, token: &str, method: &str, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("host", "localhost"), ("authorization", &*bearer)];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    if method == "POST" {
        headers.push(("content-type", "application/json"));
    }
    send(world, method, path, &headers, &body)
}

fn get(world: &World, token: &str, path: &str) -> Response {
    ask(world, token, "GET", path, &Value::Null)
}

fn post(world: &World, token: &str, path: &str, body: &Value) -> Response {
    ask(world, token, "POST", path, body)
}

/// Records holds that end after so long, before any gateway runs; gives their ids.
pub fn seed_holds(world: &World, last: &[Duration]) -> Vec<ReceiptId> {
    let runtime = Runtime::new().expect("built");
    runtime.block_on(async {
        let settings = Settings {
            dir: world.path("ledger"),
            origin: "interlock.test/log".parse().expect("a name"),
            segment_bytes: limits::SEGMENT_BYTES_MIN,
            salts: None,
            heartbeat: None,
        };
        let signer = FileSigner::load(&world.path("log.key")).expect("the key");
        let (ledger, _) = Ledger::open(settings, Box::new(signer), Clock::system(), start()).expect("opens");
        let bounds =
            policy::Settings { evaluation_max: Duration::from_secs(300), ..policy::Settings::default() };
        let pdp = Pdp::start(shipped(), bounds, Clock::system(), None).expect("threads");
        let recorder = Recorder { pdp, ledger };
        recorder.record_policy().await;
        let mut ids = Vec::new();
        for (n, last) in last.iter().enumerate() {
            // At night: policy wants somebody to look. Each is another request.
            let body = format!(r#"{{"dataset":"orders","rows_max":{},"format":"csv"}}"#, n + 1);
            let Judgment::Refusal(held) = recorder.judge(&Ask { body, ..mixed(10) }).await else {
                panic!("it is not held")
            };
            let id = recorder.ledger.new_id().expect("random");
            let until = Clock::system().wall().unix_ns() + last.as_nanos() as u64;
            let until = WallTime::from_unix_ns(until).rfc3339().into();
            let recording = Recording { hold: Some(HoldEntry { id, until }), ..Recording::new(id, None) };
            recorder.ledger.record_refusal(held, recording).await.expect("recorded");
            ids.push(id);
        }
        recorder.close().await;
        ids
    })
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A gateway with operators and holds of agent-7.
fn with_holds(last: &[Duration]) -> (World, Vec<ReceiptId>) {
    let mut world = setup().lay_out();
    let ids = seed_holds(&world, last);
    world.run_inside();
    (world, ids)
}

fn admin_entries(entries: &[Entry]) -> Vec<&AdminEntry> {
    fn of(entry: &Entry) -> Option<&AdminEntry> {
        match entry {
            Entry::Admin(admin) => Some(admin),
            _ => None,
        }
    }
    entries.iter().filter_map(of).collect()
}

/// A PERMIT whose outcome is not known; its id.
fn indeterminate(world: &World) -> ReceiptId {
    world.upstream.next(Script::steps([Step::Close]));
    let answer = world.ask("POST", "/v1/things", "permit", r#"{"amount": 10}"#);
    answer.assert_refused(504, "upstream_silent");
    receipt_id(&answer)
}

/// Of the decision that the answer names.
fn receipt_id(answer: &Response) -> ReceiptId {
    let header = answer.header("interlock-receipt").expect("a receipt");
    header.split('"').nth(1).expect("an id").parse().expect("an id")
}

#[test]
fn each_role_does_what_it_may_and_no_more() {
    let (world, ids) = with_holds(&[HOUR]);
    let nobody = ReceiptId::new(WallTime::from_unix_ns(1), [7; 10]);
    let why = json!({"reason": "a test"});
    let scope = json!({"surface": "test", "reason": "a test"});
    let actor = json!({"surface": "test", "actor": "agent-8", "reason": "a test"});
    let resolve = json!({"status": "failed", "evidence": "none", "reason": "a test"});
    // Path, body, the least role, what it answers to who may.
    let reads =
        ["/holds", "/restrictions", "/outcomes/unknown", "/receipts", "/checkpoint"].map(String::from);
    let reads = reads.into_iter().chain([format!("/holds/{}", ids[0])]);
    let mut cases: Vec<_> = reads.map(|path| ("GET", path, Value::Null, 0, 200)).collect();
    cases.extend([
        ("POST", format!("/holds/{nobody}/approve"), why.clone(), 1, 404),
        ("POST", format!("/holds/{nobody}/refuse"), why.clone(), 1, 404),
        ("POST", "/freeze".into(), scope.clone(), 2, 200),
        ("POST", "/unfreeze".into(), scope.clone(), 2, 200),
        ("POST", "/quarantine".into(), actor.clone(), 2, 200),
        ("POST", "/release".into(), actor.clone(), 2, 200),
        ("POST", format!("/outcomes/{nobody}/resolve"), resolve, 2, 404),
    ]);
    for (method, path, body, least, status) in &cases {
        for (rank, token) in [VIEWER, APPROVER, OPERATOR, ADMINISTRATOR].iter().enumerate() {
            let answer = ask(&world, token, method, path, body);
            match rank >= *least {
                // Somebody before may have done it.
                true => assert!(
                    answer.status == *status || answer.status == 409,
                    "{path} by {token}: {}",
                    answer.text()
                ),
                false => answer.assert_refused(403, "role_insufficient"),
            }
        }
        let wrong = format!("{ADMINISTRATOR}x");
        let refused = ask(&world, &wrong, method, path, body);
        refused.assert_refused(401, "credential_invalid");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let nobody = send(&world, method, path, &[("host", "localhost")], "");
        nobody.assert_refused(401, "credential_missing");
        let other = if *method == "GET" { ("POST", "GET, HEAD") } else { ("GET", "POST") };
        let refused = ask(&world, ADMINISTRATOR, other.0, path, &Value::Null);
        refused.assert_refused(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some(other.1));
    }
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(world.admin(open).status, 200, "{open} is for everyone");
    }
    assert!(world.metric(r#"interlock_admin_requests_total{result="denied",role="viewer"}"#) >= 7.0);
    assert!(world.metric(r#"interlock_admin_requests_total{result="denied",role="none"}"#) >= 13.0);
    world.finish();
}

#[test]
fn what_operators_do_stands_in_the_log_with_who_and_why() {
    let (world, ids) = with_holds(&[HOUR, HOUR]);
    let lost = indeterminate(&world);
    world.wait_for_metric("interlock_outcomes_unknown", 1.0);
    assert_eq!(world.metric("interlock_holds_open"), 2.0);
    let done = |token, path: &str, body: Value| {
        let answer = post(&world, token, path, &body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["changed"], true, "{path}");
        assert!(answer["receipt"]["proof"].as_str().expect("a proof").starts_with("c2sp.org/tlog-proof"));
        answer["receipt"]["entry"].as_u64().expect("an index") as usize
    };
    let unchanged = |token, path: &str, body: Value| {
        let answer = post(&world, token, path, &body);
        assert_eq!((answer.status, answer.text().as_str()), (200, "{\"changed\":false}\n"), "{path}");
    };
    let mut said = Vec::new();
    for (path, action, scope) in [
        ("/freeze", AdminAction::Freeze, json!({"all": true})),
        ("/freeze", AdminAction::Freeze, json!({"surface": "test"})),
        ("/freeze", AdminAction::Freeze, json!({"actor": "agent-8"})),
        ("/quarantine", AdminAction::Quarantine, json!({"surface": "test", "actor": "agent-8"})),
    ] {
        let mut body = scope.clone();
        body["reason"] = json!(format!("because of {path}"));
        said.push((action, scope, done(OPERATOR, path, body.clone())));
        unchanged(ADMINISTRATOR, path, body);
    }
    let listed = get(&world, VIEWER, "/restrictions").json();
    assert_eq!(listed["total"], 4);
    let quarantine = &listed["items"][3];
    assert_eq!(
        (&quarantine["kind"], &quarantine["actor"], &quarantine["by"], &quarantine["reason"]),
        (&json!("quarantine"), &json!("agent-8"), &json!("oda"), &json!("because of /quarantine"))
    );
    assert_eq!(world.metric(r#"interlock_restrictions{kind="freeze"}"#), 3.0);
    assert_eq!(world.metric(r#"interlock_restrictions{kind="quarantine"}"#), 1.0);
    for (path, action, scope) in [
        ("/unfreeze", AdminAction::Unfreeze, json!({"all": true})),
        ("/unfreeze", AdminAction::Unfreeze, json!({"surface": "test"})),
        ("/unfreeze", AdminAction::Unfreeze, json!({"actor": "agent-8"})),
        ("/release", AdminAction::Release, json!({"surface": "test", "actor": "agent-8"})),
    ] {
        let mut body = scope.clone();
        body["reason"] = json!(format!("because of {path}"));
        said.push((action, scope, done(OPERATOR, path, body.clone())));
        let code = if path == "/release" { "not_quarantined" } else { "not_frozen" };
        post(&world, OPERATOR, path, &body).assert_refused(409, code);
    }
    let typo = json!({"surface": "tset", "reason": "x"});
    post(&world, OPERATOR, "/freeze", &typo).assert_refused(404, "surface_unknown");
    let approved = done(APPROVER, &format!("/holds/{}/approve", ids[0]), json!({"reason": "I know them"}));
    done(OPERATOR, &format!("/holds/{}/approve", ids[0]), json!({"reason": "so do I"}));
    let refused = done(ADMINISTRATOR, &format!("/holds/{}/refuse", ids[1]), json!({"reason": "at night?"}));
    let shown = get(&world, VIEWER, &format!("/holds/{}", ids[0])).json();
    assert_eq!(shown["hold"]["approvals"][0]["by"], "ann");
    assert_eq!(shown["hold"]["approvals"][1]["reason"], "so do I");
    assert_eq!(shown["decision"]["id"], ids[0].to_string());
    assert_eq!(shown["decision"]["reasons"][0]["code"], "outside_business_hours");
    assert_eq!(shown["input"]["request"]["body"]["dataset"], "orders");
    let unknown = get(&world, VIEWER, "/outcomes/unknown").json();
    assert_eq!((&unknown["total"], &unknown["items"][0]["id"]), (&json!(1), &json!(lost.to_string())));
    assert_eq!(unknown["items"][0]["actor"], "agent-7");
    let resolve = json!({"status": "confirmed", "evidence": "bank statement 7", "reason": "it is on there"});
    let path = format!("/outcomes/{lost}/resolve");
    let resolved = done(OPERATOR, &path, resolve.clone());
    post(&world, OPERATOR, &path, &resolve).assert_refused(409, "not_indeterminate");
    world.wait_for_metric("interlock_outcomes_unknown", 0.0);

    let audit = world.finish();
    for (action, scope, index) in said {
        let Entry::Admin(entry) = &audit.entries[index] else { panic!("{:?}", audit.entries[index]) };
        assert_eq!((entry.action, &*entry.by.id, entry.by.role), (action, "oda", Role::Operator));
        assert_eq!(entry.surface.as_ref().map(|s| s.as_str()), scope["surface"].as_str());
        assert_eq!(entry.actor.as_ref().map(|a| a.as_str()), scope["actor"].as_str());
        assert!(entry.reason.starts_with("because of /"));
    }
    let Entry::Admin(entry) = &audit.entries[approved] else { panic!("an approval") };
    assert_eq!((entry.action, &*entry.by.id, entry.hold), (AdminAction::Approve, "ann", Some(ids[0])));
    assert_eq!((entry.by.role, &*entry.reason), (Role::Approver, "I know them"));
    let Entry::Admin(entry) = &audit.entries[refused] else { panic!("a refusal") };
    assert_eq!((entry.action, &*entry.by.id, entry.hold), (AdminAction::Refuse, "ada", Some(ids[1])));
    let Entry::Outcome(outcome) = &audit.entries[resolved] else { panic!("an outcome") };
    assert_eq!((outcome.status, outcome.attestation), (OutcomeStatus::Confirmed, Settled::Operator));
    let by = outcome.attested_by.as_ref().expect("somebody");
    assert_eq!(by.operator.as_ref().map(|o| &*o.id), Some("oda"));
    assert!(by.evidence.contains("bank statement 7") && by.evidence.contains("it is on there"));
    assert_eq!(admin_entries(&audit.entries).len(), 11, "and nothing else was done");
}

#[test]
fn nobody_opens_themselves_or_says_what_came_of_their_own_request() {
    let mut world = setup().start();
    let lost = indeterminate(&world);
    world.wait_for_metric("interlock_outcomes_unknown", 1.0);
    world.finish_here(Stopped::Clean);
    agent_becomes_operator(&world);
    world.run_inside();
    let frozen = json!({"actor": "agent-7", "reason": "a test"});
    let isolated = json!({"surface": "test", "actor": "agent-7", "reason": "a test"});
    let resolved = json!({"status": "failed", "evidence": "none", "reason": "a test"});
    // Closing oneself takes nobody else.
    assert_eq!(post(&world, AGENTS_OWN, "/freeze", &frozen).status, 200);
    assert_eq!(post(&world, AGENTS_OWN, "/quarantine", &isolated).status, 200);
    let resolve = format!("/outcomes/{lost}/resolve");
    for (path, body) in [("/unfreeze", &frozen), ("/release", &isolated), (&*resolve, &resolved)] {
        post(&world, AGENTS_OWN, path, body).assert_refused(403, "own_request");
        assert_eq!(post(&world, OPERATOR, path, body).status, 200, "{path}");
    }
    world.finish();
}

#[test]
fn a_hold_is_decided_on_once_by_each_in_time_and_never_by_who_asked() {
    let mut world = setup().lay_out();
    let ids = seed_holds(&world, &[HOUR, HOUR, Duration::from_secs(3)]);
    agent_becomes_operator(&world);
    world.run_inside();
    let approve = |token, id: &ReceiptId| {
        post(&world, token, &format!("/holds/{id}/approve"), &json!({"reason": "fine"}))
    };
    approve(AGENTS_OWN, &ids[0]).assert_refused(403, "own_request");
    post(&world, AGENTS_OWN, &format!("/holds/{}/refuse", ids[0]), &json!({"reason": "no"}))
        .assert_refused(403, "own_request");
    // At once, by one operator: one counts.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let one = || scope.spawn(|| approve(APPROVER, &ids[0]).status);
        let all: Vec<_> = (0..8).map(|_| one()).collect();
        all.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let count = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((count(200), count(409)), (1, 7), "{statuses:?}");
    approve(APPROVER, &ids[0]).assert_refused(409, "approved_already");
    assert_eq!(approve(OPERATOR, &ids[0]).status, 200, "another operator's counts as well");
    let refuse =
        |id: &ReceiptId| post(&world, OPERATOR, &format!("/holds/{id}/refuse"), &json!({"reason": "no"}));
    assert_eq!(refuse(&ids[1]).status, 200);
    refuse(&ids[1]).assert_refused(409, "hold_over");
    approve(APPROVER, &ids[1]).assert_refused(409, "hold_over");
    // One whose time ends is over, and the log says so.
    world.wait_for_metric("interlock_holds_open", 2.0);
    approve(APPROVER, &ids[2]).assert_refused(409, "hold_over");
    let denied = world.ask("POST", "/v1/things", "deny", r#"{"amount": 10}"#);
    let denied = receipt_id(&denied);
    approve(APPROVER, &denied).assert_refused(404, "hold_unknown");
    post(&world, APPROVER, "/holds/1/approve", &json!({"reason": "x"}))
        .assert_refused(400, "receipt_id_invalid");
    let audit = world.finish();
    let expired: Vec<_> =
        admin_entries(&audit.entries).into_iter().filter(|e| e.action == AdminAction::Expire).collect();
    assert_eq!(expired.len(), 1);
    assert_eq!((&*expired[0].by.id, expired[0].hold), ("gateway", Some(ids[2])));
}

#[test]
fn an_agent_does_not_operate_and_an_operator_is_no_agent() {
    let world = setup().start();
    let freeze = json!({"all": true, "reason": "mine now"});
    post(&world, KEY, "/freeze", &freeze).assert_refused(401, "credential_invalid");
    let headers = [("host", "localhost"), ("x-api-key", KEY), ("content-type", "application/json")];
    let refused = send(&world, "POST", "/freeze", &headers, &freeze.to_string());
    refused.assert_refused(401, "credential_missing");
    // Both at once: the token is wrong, and nothing else is tried.
    let bearer = format!("Bearer {KEY}");
    let mut both = headers.to_vec();
    both.push(("authorization", &bearer));
    send(&world, "POST", "/freeze", &both, &freeze.to_string()).assert_refused(401, "credential_invalid");
    let bearer = format!("Bearer {ADMINISTRATOR}");
    for header in [("x-api-key", ADMINISTRATOR), ("authorization", &*bearer)] {
        let asked =
            request("GET", "/v1/things", &[header, ("x-want", "permit"), ("connection", "close")], "");
        world.send(asked).assert_refused(401, "credential_invalid");
    }
    assert!(world.upstream.captures().is_empty());
    let audit = world.finish();
    assert!(admin_entries(&audit.entries).is_empty());
}

#[test]
fn requests_of_web_pages_and_for_other_hosts_change_nothing() {
    let world = setup().start();
    let bearer = format!("Bearer {ADMINISTRATOR}");
    let body = json!({"all": true, "reason": "a page"}).to_string();
    let json_type = ("content-type", "application/json");
    let with = |headers: &[(&str, &str)]| {
        let mut all = vec![("authorization", &*bearer)];
        all.extend(headers);
        send(&world, "POST", "/freeze", &all, &body)
    };
    let local = ("host", "localhost");
    for header in [
        ("origin", "https://evil.test"),
        ("origin", "null"),
        ("origin", "http://localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        with(&[local, json_type, header]).assert_refused(403, "cross_site");
    }
    for host in ["evil.test", "localhost.evil.test", "api.test"] {
        with(&[("host", host), json_type]).assert_refused(421, "host_not_here");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"] {
        with(&[local, ("content-type", media_type)]).assert_refused(415, "not_json");
    }
    with(&[local]).assert_refused(415, "not_json");
    // A cookie is nobody's credential.
    let cookie = [local, json_type, ("cookie", "token=x")];
    send(&world, "POST", "/freeze", &cookie, &body).assert_refused(401, "credential_missing");
    let large = "x".repeat(limits::ADMIN_BODY_BYTES_MAX + 1);
    let headers = [local, json_type, ("authorization", &*bearer)];
    send(&world, "POST", "/freeze", &headers, &large).assert_refused(413, "body_too_large");
    for body in
        [r#"{"all":true}"#, r#"{"all":true,"reason":"a","x":1}"#, "{", r#"{"all":true,"reason":"\n"}"#]
    {
        send(&world, "POST", "/freeze", &headers, body).assert_refused(400, "body_invalid");
    }
    let preflight = [local, ("origin", "https://evil.test"), ("access-control-request-method", "POST")];
    let refused = send(&world, "OPTIONS", "/freeze", &preflight, "");
    refused.assert_refused(403, "cross_site");
    assert!(!refused.headers.iter().any(|(name, _)| name.starts_with("access-control")));
    assert_eq!(get(&world, VIEWER, "/restrictions").json()["total"], 0);
    assert_eq!(with(&[local, json_type, ("sec-fetch-site", "none")]).status, 200);
    world.finish();
}

#[test]
fn an_operator_who_asks_too_often_waits_and_no_other_does() {
    let world = setup().start();
    let mut refused = None;
    for _ in 0..limits::OPERATOR_REQUESTS_BURST * 20 {
        let answer = get(&world, VIEWER, "/restrictions");
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the bucket is empty at some time");
    refused.assert_refused(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(get(&world, OPERATOR, "/restrictions").status, 200);
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(get(&world, VIEWER, "/restrictions").status, 200);
    world.finish();
}

/// Before anybody is asked who they are, so that guessing costs the gateway nothing.
#[test]
fn who_proves_nobody_waits_after_many_requests_and_the_gateway_stays_open_to_be_watched() {
    let world = setup().start();
    let nobody = || send(&world, "GET", "/restrictions", &[("host", "localhost")], "");
    let mut refused = None;
    for _ in 0..limits::ADMIN_PEER_REQUESTS_BURST * 20 {
        let answer = nobody();
        if answer.status != 401 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the bucket is empty at some time");
    refused.assert_refused(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(world.admin(open).status, 200, "{open}");
    }
    assert!(world.metric(r#"interlock_admin_requests_total{result="too_many",role="none"}"#) >= 1.0);
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(get(&world, VIEWER, "/restrictions").status, 200);
    world.finish();
}

#[test]
fn a_long_list_is_read_page_by_page_and_the_commands_read_all_of_it() {
    let world = setup().start();
    let count = limits::ADMIN_LISTED_MAX + 3;
    for n in 0..count {
        world.administer(interlock::ledger::Administration {
            action: AdminAction::Freeze,
            by: OperatorEntry { id: "oda".into(), role: Role::Operator },
            surface: None,
            actor: Some(format!("agent-of-many-{n}").parse().expect("an id")),
            hold: None,
            reason: "a test".into(),
        });
    }
    let first = get(&world, VIEWER, "/restrictions").json();
    let length = |page: &Value| page["items"].as_array().expect("a list").len();
    assert_eq!((length(&first), &first["total"]), (limits::ADMIN_LISTED_MAX, &json!(count)));
    let last = get(&world, VIEWER, &format!("/restrictions?after={}", first["next"])).json();
    assert_eq!((length(&last), last.get("next")), (3, None));
    let whose = |page: &Value, n: usize| page["items"][n]["actor"].as_str().expect("an id").to_owned();
    assert_eq!(
        (whose(&first, 0), whose(&last, 2)),
        ("agent-of-many-0".into(), format!("agent-of-many-{}", count - 1))
    );
    for query in ["after=", "after=x", "after=-1", "before=1", "after=1&after=2", "since=0"] {
        get(&world, VIEWER, &format!("/restrictions?{query}")).assert_refused(400, "parameter_invalid");
    }
    let url = format!("http://{}", world.admin_address());
    let listed = said(&command(&["quarantines", "list", "--admin", &url], Some(VIEWER)), 0);
    assert_eq!(listed.matches("agent-of-many-").count(), count);
    let all = said(&command(&["quarantines", "list", "--json", "--admin", &url], Some(VIEWER)), 0);
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!((length(&all), all.get("next")), (count, None));
    world.finish();
}

#[test]
fn a_path_that_is_nothing_is_a_problem_that_says_what_there_is() {
    let (open, closed) = (World::start(), setup().start());
    for answer in [open.admin("/receipt"), get(&closed, VIEWER, "/receipt"), get(&closed, VIEWER, "/")] {
        answer.assert_refused(404, "path_unknown");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.json()["detail"].as_str().expect("a detail").contains("/receipts"));
    }
    send(&closed, "GET", "/receipt", &[("host", "localhost")], "").assert_refused(401, "credential_missing");
    open.finish();
    closed.finish();
}

#[test]
fn without_operators_everything_is_read_and_nothing_is_operated() {
    let world = World::start();
    assert_eq!(world.admin("/receipts").status, 200);
    for path in ["/holds", "/restrictions", "/outcomes/unknown"] {
        world.admin(path).assert_refused(403, "operators_not_configured");
    }
    let freeze = json!({"all": true, "reason": "x"});
    post(&world, ADMINISTRATOR, "/freeze", &freeze).assert_refused(403, "operators_not_configured");
    post(&world, ADMINISTRATOR, "/receipts", &freeze).assert_refused(405, "method_not_allowed");
    let audit = world.finish();
    assert!(admin_entries(&audit.entries).is_empty());
}

/// A gateway whose admin listener no [`World`] can reach.
struct Hidden {
    world: World,
    runtime: Runtime,
    gateway: Gateway,
}

impl Hidden {
    fn start(mut world: World, admin: &str) -> Self {
        let yaml = fs::read_to_string(world.path("interlock.yaml")).expect("readable");
        let yaml = yaml.replace("MAIN_PORT", "0").replace("admin: { listen: 127.0.0.1:ADMIN_PORT }", admin);
        assert!(yaml.contains(admin));
        world.write("hidden.yaml", &yaml, 0o644);
        let clock = Clock::system();
        let surroundings = Surroundings { clock: &clock, variable: &|_| None, secrets: SecretsAre::Needed };
        let config = Config::load(&world.path("hidden.yaml"), surroundings);
        let config = config.unwrap_or_else(|invalid| panic!("{invalid}"));
        let runtime = Runtime::new().expect("built");
        let gateway = runtime.block_on(Gateway::start(config, clock)).expect("starts");
        world.is_looked_at_later();
        Self { world, runtime, gateway }
    }

    fn finish(mut self) -> Vec<Entry> {
        assert_eq!(self.runtime.block_on(self.gateway.stop()), Stopped::Clean);
        self.runtime.shutdown_timeout(Duration::from_secs(10));
        self.world.audit().entries
    }
}

fn command(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
    command.args(arguments).env_remove("INTERLOCK_ADMIN").env_remove("INTERLOCK_ADMIN_TOKEN");
    if let Some(token) = token {
        command.env("INTERLOCK_ADMIN_TOKEN", token);
    }
    command.output().expect("runs")
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn a_unix_socket_is_its_owners_alone_and_tells_who_asks() {
    let world = Setup::default().lay_out();
    let uid = fs::metadata(world.path(".")).expect("there").uid();
    let (socket, other) = (world.path("admin.sock"), uid + 1);
    let admin = format!(
        "admin: {{ unix: ./admin.sock, operators: [{{ id: uma, role: operator, uid: {uid} }}, \
         {{ id: ida, role: administrator, uid: {other}, prefix: ilo_admin000, sha256: {} }}] }}",
        hex(ADMINISTRATOR.as_bytes())
    );
    // What an earlier gateway left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let hidden = Hidden::start(world, &admin);
    assert_eq!(*hidden.gateway.admin_address(), AdminListen::Unix(socket.clone()));
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
    let url = format!("unix:{}", socket.display());
    let freeze = ["freeze", "--all", "--reason", "over the socket", "--admin", &url];
    assert!(said(&command(&freeze, None), 0).starts_with("done: entry "));
    assert_eq!(said(&command(&freeze, None), 0), "it was so already; nothing was recorded\n");
    // The right token of somebody who is another user.
    said(&command(&freeze, Some(ADMINISTRATOR)), 3);
    let entries = hidden.finish();
    let entries = admin_entries(&entries);
    assert_eq!((entries.len(), &*entries[0].by.id), (1, "uma"));
}

#[test]
fn client_certificates_prove_operators() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let world = Setup::default().lay_out();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a root");
        (certificate.pem(), Issuer::new(params, key))
    };
    let (roots, issuer) = authority("operators");
    let (_, stranger) = authority("operators");
    world.write("operators.crt", &roots, 0o644);
    let client = |name: &str, uri: &str, issuer: &Issuer<'_, KeyPair>| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names.push(SanType::URI(uri.parse().expect("ASCII")));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        world.write(&format!("{name}.crt"), &certificate.pem(), 0o644);
        world.write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
        certificate.der().to_vec()
    };
    client("ann", "spiffe://ops.test/ann", &issuer);
    let bob = client("bob", "spiffe://ops.test/bob", &issuer);
    client("agent", "spiffe://agents.test/agent-7", &issuer);
    client("thief", "spiffe://ops.test/ann", &stranger);
    let admin = format!(
        "admin: {{ listen: 127.0.0.1:0, tls: {{ certificate: ./tls.crt, key: ./tls.key, client_roots: ./operators.crt }}, \
         operators: [{{ id: ann, role: operator, spiffe: spiffe://ops.test/ann }}, \
         {{ id: bob, role: administrator, certificate_sha256: {}, prefix: ilo_admin000, sha256: {} }}, \
         {{ id: vic, role: viewer, prefix: ilo_viewer00, sha256: {} }}] }}",
        hex(&bob),
        hex(ADMINISTRATOR.as_bytes()),
        hex(VIEWER.as_bytes())
    );
    let hidden = Hidden::start(world, &admin);
    let AdminListen::Tcp(address) = hidden.gateway.admin_address().clone() else { panic!("a port") };
    let url = format!("https://localhost:{}", address.port());
    let path = |name: &str| hidden.world.path(name).display().to_string();
    let freeze = |name: Option<&str>, token: Option<&str>| {
        let mut arguments: Vec<String> =
            ["freeze", "--surface", "test", "--reason", "why", "--admin", &url, "--ca"]
                .map(String::from)
                .into();
        arguments.push(path("tls.crt"));
        if let Some(name) = name {
            let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
            arguments.extend(["--cert".into(), cert, "--key".into(), key]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        command(&arguments, token)
    };
    said(&freeze(None, None), 3);
    said(&freeze(None, Some(VIEWER)), 3);
    said(&freeze(Some("agent"), None), 3);
    said(&freeze(Some("thief"), None), 1);
    said(&freeze(Some("bob"), None), 3);
    said(&freeze(Some("ann"), Some(ADMINISTRATOR)), 3);
    assert!(said(&freeze(Some("ann"), None), 0).starts_with("done: entry "));
    assert!(said(&freeze(Some("bob"), Some(ADMINISTRATOR)), 0).starts_with("it was so already"));
    let entries = hidden.finish();
    let entries = admin_entries(&entries);
    assert_eq!((entries.len(), &*entries[0].by.id), (1, "ann"));
}

fn reloads(world: &World, part: &str, result: &str, count: f64) {
    let name = format!("interlock_identity_reloads_total{{part=\"{part}\",result=\"{result}\"}}");
    world.wait_for_metric(&name, count);
}

/// A file that lists operators.
fn listed(tokens: &[(&str, &str, &str)]) -> String {
    let of = |(id, role, token): &(&str, &str, &str)| {
        let (prefix, sha256) = (&token[..12], hex(token.as_bytes()));
        format!("- {{ id: {id}, role: {role}, prefix: {prefix}, sha256: {sha256} }}\n")
    };
    tokens.iter().map(of).collect()
}

#[test]
fn operators_in_a_file_change_without_a_restart_and_agents_notice_nothing() {
    let mut world = Setup {
        admin: vec!["operators: { file: ./operators.yaml }".into()],
        files: vec![("operators.yaml", listed(&[("vic", "viewer", VIEWER)]))],
        ..Setup::default()
    }
    .start();
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    assert_eq!(get(&world, VIEWER, "/restrictions").status, 200);
    get(&world, OPERATOR, "/restrictions").assert_refused(401, "credential_invalid");
    let mut following = Client::connect(world.admin_address());
    following.send(format!(
        "GET /receipts?since=0&follow=true HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {VIEWER}\r\n\r\n"
    ));
    following.read_until("\"type\":\"decision\"").expect("it follows");
    // A file that cannot be used changes nothing, and says so.
    for (count, broken) in [
        (1.0, "- { id: oda, role: boss }\n".to_owned()),
        (2.0, "[]\n".to_owned()),
        (
            3.0,
            listed(&[("oda", "operator", OPERATOR)]).replace(&hex(OPERATOR.as_bytes()), &hex(KEY.as_bytes())),
        ),
        (4.0, listed(&[("agent-8", "operator", OPERATOR)])),
    ] {
        world.write("operators.yaml", &broken, 0o600);
        world.reload();
        reloads(&world, "operators", "failed", count);
        assert_eq!(world.metric("interlock_identity_failing_parts"), 1.0);
        assert_eq!(get(&world, VIEWER, "/restrictions").status, 200, "{broken}");
    }
    world.write("operators.yaml", &listed(&[("oda", "operator", OPERATOR)]), 0o600);
    world.reload();
    reloads(&world, "operators", "in_force", 1.0);
    assert_eq!(world.metric("interlock_identity_failing_parts"), 0.0);
    get(&world, VIEWER, "/restrictions").assert_refused(401, "credential_invalid");
    let froze = post(&world, OPERATOR, "/freeze", &json!({"actor": "agent-8", "reason": "new here"}));
    assert_eq!(froze.status, 200);
    // What was being read ends with the right to read it.
    following.read_to_end();
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let audit = world.finish();
    let identity = |index: usize| {
        let read_set = &audit.decisions()[index].evaluation.read_set;
        read_set.iter().find(|item| &*item.name == "identity").expect("read").version.clone()
    };
    assert_eq!(identity(0), identity(1), "no agent's proof rests on who operates");
}

/// A gateway whose admin listener asks for certificates of this authority, and a client that trusts it.
fn certified(authority: &CertificateAuthority, crl: &str) -> Hidden {
    let world = Setup::default().lay_out();
    world.write("operators.pem", &authority.pem(), 0o644);
    world.write("operators.crl", crl, 0o644);
    let admin = format!(
        "admin: {{ listen: 127.0.0.1:0, tls: {{ certificate: ./tls.crt, key: ./tls.key, \
         client_roots: ./operators.pem, crls: [./operators.crl] }}, operators: [\
         {{ id: ann, role: operator, spiffe: {ANN} }}, \
         {{ id: vic, role: viewer, prefix: ilo_viewer00, sha256: {} }}] }}",
        hex(VIEWER.as_bytes())
    );
    Hidden::start(world, &admin)
}

const ANN: &str = "spiffe://ops.test/ann";
const RESTRICTIONS: &str = "GET /restrictions HTTP/1.1\r\nhost: localhost\r\n\r\n";

impl Hidden {
    fn client_config(&self, client: Option<&Certified>) -> Arc<ClientConfig> {
        let Some(client) = client else { return self.world.tls.client_config(&[]) };
        let mut roots = RootCertStore::empty();
        let pem = self.world.tls.certificate.as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = builder.with_client_auth_cert(client.chain.clone(), client.key.clone_key());
        Arc::new(config.expect("a certificate"))
    }

    fn address(&self) -> SocketAddr {
        let AdminListen::Tcp(address) = *self.gateway.admin_address() else { panic!("a port") };
        address
    }

    fn connect(&self, client: Option<&Certified>) -> Client {
        Client::connect_tls(self.address(), self.client_config(client))
    }

    /// Of the admin listener's metrics, as somebody without a certificate.
    fn wait_for(&self, line: &str) {
        for _ in 0..200 {
            let mut client = self.connect(None);
            client.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            if client.response().text().contains(line) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{line} never came");
    }

    fn is_turned_away(&self, client: &Certified) -> bool {
        let socket = TcpStream::connect(self.address()).expect("the gateway accepts");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(self.client_config(Some(client)), name).expect("a session");
        let mut stream = StreamOwned::new(session, socket);
        let mut answer = Vec::new();
        // Which step fails depends on when the alert arrives.
        let ended = stream.write_all(RESTRICTIONS.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
        answer.is_empty() && ended.is_err()
    }
}

/// At a start it is refused (`operators_that_cannot_be_are_refused_with_the_reason`), and so it is later.
#[test]
fn an_agents_certificate_never_becomes_an_operators_also_not_by_a_reload() {
    let authority = CertificateAuthority::new("everybody");
    let world = Setup {
        identity: "{ mtls: { trust_domains: [agents.test], paths: [/payments/**] } }".into(),
        listener_tls: true,
        client_tls: ", client_roots: ./everybody.pem",
        files: vec![
            ("everybody.pem", authority.pem()),
            ("operators.yaml", "- { id: ann, role: operator, spiffe: spiffe://ops.test/ann }\n".into()),
        ],
        ..Setup::default()
    }
    .lay_out();
    let admin = "admin: { listen: 127.0.0.1:0, tls: { certificate: ./tls.crt, key: ./tls.key, client_roots: ./everybody.pem }, \
                 operators: { file: ./operators.yaml } }";
    let hidden = Hidden::start(world, admin);
    let asks = |id: &str| {
        let mut client = hidden.connect(Some(&authority.client(&[id], |_| {})));
        client.send(RESTRICTIONS);
        client.response().status
    };
    let (agent, other) = ("spiffe://agents.test/payments/7", "spiffe://agents.test/reports/7");
    assert_eq!((asks(ANN), asks(agent), asks(other)), (200, 401, 401));
    let operator = |id: &str| format!("- {{ id: eve, role: administrator, spiffe: \"{id}\" }}\n");
    hidden.world.write("operators.yaml", &operator(agent), 0o600);
    hidden.gateway.reload();
    hidden.wait_for("interlock_identity_reloads_total{part=\"operators\",result=\"failed\"} 1");
    assert_eq!((asks(ANN), asks(agent)), (200, 401), "the last good state stays in force");
    // Of the same trust domain, and no agent of any surface.
    hidden.world.write("operators.yaml", &operator(other), 0o600);
    hidden.gateway.reload();
    hidden.wait_for("interlock_identity_reloads_total{part=\"operators\",result=\"in_force\"} 1");
    assert_eq!((asks(ANN), asks(agent), asks(other)), (401, 401, 200));
    hidden.finish();
}

/// A digest says nothing about who is certified, so each certificate is looked at when it is shown.
#[test]
fn an_agents_certificate_operates_nothing_also_where_it_is_pinned_by_its_digest() {
    let authority = CertificateAuthority::new("everybody");
    let agent = authority.client(&["spiffe://agents.test/payments/7"], |_| {});
    let other = authority.client(&["spiffe://agents.test/reports/7"], |_| {});
    let operator = |id: &str, client: &Certified| {
        let digest = Digest::of(&client.chain[0]).to_string().split_off("sha-256:".len());
        format!("- {{ id: {id}, role: operator, certificate_sha256: {digest} }}\n")
    };
    let world = Setup {
        identity: "{ mtls: { trust_domains: [agents.test], paths: [/payments/**] } }".into(),
        listener_tls: true,
        client_tls: ", client_roots: ./everybody.pem",
        files: vec![
            ("everybody.pem", authority.pem()),
            ("operators.yaml", operator("eve", &agent) + &operator("oda", &other)),
        ],
        ..Setup::default()
    }
    .lay_out();
    let admin = "admin: { listen: 127.0.0.1:0, tls: { certificate: ./tls.crt, key: ./tls.key, client_roots: ./everybody.pem }, \
                 operators: { file: ./operators.yaml } }";
    let hidden = Hidden::start(world, admin);
    let asks = |client| {
        let mut client = hidden.connect(Some(client));
        client.send(RESTRICTIONS);
        client.response().status
    };
    assert_eq!((asks(&agent), asks(&other)), (401, 200));
    hidden.finish();
}

#[test]
fn an_operators_certificate_revoked_while_its_connection_lives_proves_nobody_from_then_on() {
    let authority = CertificateAuthority::new("operators");
    let hidden = certified(&authority, &authority.revoked(&[], 2090));
    let ann = authority.client(&[ANN], |_| {});
    let mut connection = hidden.connect(Some(&ann));
    connection.send(RESTRICTIONS);
    assert_eq!(connection.response().status, 200);
    hidden.world.write("operators.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", 0o644);
    hidden.gateway.reload();
    hidden.wait_for("interlock_identity_reloads_total{part=\"admin_tls\",result=\"failed\"} 1");
    connection.send(RESTRICTIONS);
    assert_eq!(connection.response().status, 200, "the last good state stays in force");
    hidden.world.write("operators.crl", &authority.revoked(&[7], 2090), 0o644);
    hidden.gateway.reload();
    hidden.wait_for("interlock_identity_reloads_total{part=\"admin_tls\",result=\"in_force\"} 1");
    // Also on a connection whose handshake was before, unless it was closed already.
    connection.send(RESTRICTIONS);
    if let Some(refused) = connection.try_response(false) {
        refused.assert_refused(401, "credential_invalid");
    }
    assert!(hidden.is_turned_away(&ann));
    hidden.wait_for("interlock_unproved_total{fault=\"certificate_revoked\",surface=\"\"}");
    // Who proves itself by a token needs no certificate.
    let mut viewer = hidden.connect(None);
    viewer.send(format!(
        "GET /restrictions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {VIEWER}\r\n\r\n"
    ));
    assert_eq!(viewer.response().status, 200);
    hidden.finish();
}

#[test]
fn a_list_of_revoked_operators_that_has_ended_turns_every_certificate_away() {
    let authority = CertificateAuthority::new("operators");
    let hidden = certified(&authority, &authority.revoked(&[], 2022));
    assert!(hidden.is_turned_away(&authority.client(&[ANN], |_| {})));
    hidden.wait_for("interlock_unproved_total{fault=\"revocation_list_expired\",surface=\"\"} 1");
    hidden.finish();
}

#[test]
fn the_commands_list_show_decide_freeze_and_reconcile() {
    let (world, ids) = with_holds(&[HOUR, HOUR]);
    let lost = indeterminate(&world);
    world.wait_for_metric("interlock_outcomes_unknown", 1.0);
    let url = format!("http://{}", world.admin_address());
    let token_file = world.path("token");
    world.write("token", &format!("{ADMINISTRATOR}\n"), 0o600);
    let run = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        let file = token_file.display().to_string();
        all.extend(["--admin", &url, "--token-file", &file]);
        command(&all, None)
    };
    let (first, second, lost) = (ids[0].to_string(), ids[1].to_string(), lost.to_string());
    let listed = said(&run(&["approvals", "list"]), 0);
    assert!(listed.starts_with("ID ") && listed.contains(&first) && listed.contains("sample/export.create"));
    let shown = said(&run(&["approvals", "show", &first]), 0);
    for expected in ["outside_business_hours", "POST /exports", "\"dataset\": \"orders\"", "(open)"] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    let json: Value = serde_json::from_str(&said(&run(&["approvals", "list", "--json"]), 0)).expect("JSON");
    assert_eq!(json["total"], 2);
    let why = ["--reason", "a test \u{1b}[31m"];
    said(&run(&[&["approvals", "approve", &first], &why[..]].concat()), 6);
    let why = ["--reason", "a test, \u{202e}gnola"];
    assert!(
        said(&run(&[&["approvals", "approve", &first], &why[..]].concat()), 0).starts_with("done: entry ")
    );
    let again = run(&[&["approvals", "approve", &first], &why[..]].concat());
    said(&again, 4);
    assert!(String::from_utf8_lossy(&again.stderr).contains("approved_already"));
    let shown = said(&run(&["approvals", "show", &first]), 0);
    assert!(shown.contains("ada (administrator)") && !shown.contains('\u{202e}'), "{shown}");
    said(&run(&[&["approvals", "refuse", &second], &why[..]].concat()), 0);
    assert!(said(&run(&["approvals", "list"]), 0).contains("refused"));
    for scope in [&["--all"][..], &["--surface", "test"], &["--actor", "agent-8"]] {
        said(&run(&[&["freeze"], scope, &why].concat()), 0);
        said(&run(&[&["unfreeze"], scope, &why].concat()), 0);
        said(&run(&[&["unfreeze"], scope, &why].concat()), 4);
    }
    said(&run(&["freeze", "--all", "--surface", "test", "--reason", "x"]), 2);
    said(&run(&["freeze", "--reason", "x"]), 2);
    let actor = ["--surface", "test", "--actor", "agent-8"];
    said(&run(&[&["quarantines", "add"], &actor[..], &why].concat()), 0);
    let listed = said(&run(&["quarantines", "list"]), 0);
    assert!(listed.contains("quarantine") && listed.contains("agent-8") && !listed.contains('\u{202e}'));
    said(&run(&[&["quarantines", "release"], &actor[..], &why].concat()), 0);
    assert!(said(&run(&["reconcile", "list"]), 0).contains(&lost));
    let resolve = ["reconcile", "resolve", &lost, "--failed", "--evidence", "ticket 9", "--reason", "looked"];
    assert!(said(&run(&resolve), 0).starts_with("done: entry "));
    said(&run(&resolve), 4);
    assert!(!said(&run(&["reconcile", "list"]), 0).contains(&lost));
    // Who is nobody, and a token that would go out in plain text or that others can read.
    said(&command(&["approvals", "list", "--admin", &url], None), 3);
    let far = command(&["approvals", "list", "--admin", "http://192.0.2.1:9"], Some(VIEWER));
    assert!(String::from_utf8_lossy(&far.stderr).contains("plain text"));
    said(&far, 1);
    fs::set_permissions(&token_file, PermissionsExt::from_mode(0o644)).expect("set");
    said(&run(&["approvals", "list"]), 1);
    let audit = world.finish();
    let count = |action| admin_entries(&audit.entries).iter().filter(|e| e.action == action).count();
    assert_eq!((count(AdminAction::Approve), count(AdminAction::Refuse)), (1, 1));
    assert_eq!((count(AdminAction::Freeze), count(AdminAction::Unfreeze)), (3, 3));
    assert_eq!((count(AdminAction::Quarantine), count(AdminAction::Release)), (1, 1));
}

#[test]
fn what_operators_did_is_there_after_a_restart() {
    let (mut world, ids) = with_holds(&[HOUR]);
    let why = json!({"reason": "fine"});
    assert_eq!(post(&world, APPROVER, &format!("/holds/{}/approve", ids[0]), &why).status, 200);
    let freeze = json!({"surface": "test", "reason": "why"});
    assert_eq!(post(&world, OPERATOR, "/freeze", &freeze).status, 200);
    world.finish_here(Stopped::Clean);
    world.run_inside();
    let again = post(&world, APPROVER, &format!("/holds/{}/approve", ids[0]), &why);
    again.assert_refused(409, "approved_already");
    assert_eq!(post(&world, OPERATOR, "/freeze", &freeze).json()["changed"], false);
    world.finish();
}

#[test]
fn the_programs_log_names_who_operated_and_holds_no_token() {
    let world = Setup { admin: operators(), ..Setup::default() }.start_program();
    let freeze = json!({"all": true, "reason": "why"});
    assert_eq!(post(&world, OPERATOR, "/freeze", &freeze).status, 200);
    let wrong = format!("{ADMINISTRATOR}x");
    post(&world, &wrong, "/freeze", &freeze).assert_refused(401, "credential_invalid");
    post(&world, KEY, "/unfreeze", &freeze).assert_refused(401, "credential_invalid");
    let deadline = std::time::Instant::now() + Duration::from_secs(15);
    while !world.program_log().contains("somebody who is no operator") {
        assert!(std::time::Instant::now() < deadline, "{}", world.program_log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = world.program_log();
    assert!(log.contains("\"operator\":\"oda\"") && log.contains("\"action\":\"freeze\""), "{log}");
    for secret in [OPERATOR, ADMINISTRATOR, KEY] {
        assert!(!log.contains(&secret[13..]), "{secret} is in {log}");
    }
    world.finish();
}

#[test]
fn a_made_token_proves_the_operator_it_was_made_for() {
    let made = said(&command(&["keys", "operator", "--id", "ann", "--role", "approver"], None), 0);
    let (token, declared) = made.split_once('\n').expect("two parts");
    assert!(token.starts_with("ilo_") && token.len() == 4 + 8 + 1 + 43);
    let sha256 = declared.lines().find_map(|l| l.trim().strip_prefix("sha256: ")).expect("a digest");
    assert_eq!(sha256.trim_matches('"'), hex(token.as_bytes()));
    let item: String = declared
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| line.trim().trim_start_matches("- ").to_owned())
        .collect::<Vec<_>>()
        .join(", ");
    let admin = vec![format!("operators: [{{ {item} }}]")];
    let world = Setup { admin, ..Setup::default() }.start();
    assert_eq!(get(&world, token, "/holds").status, 200);
    world.finish();
}

#[test]
fn operators_that_cannot_be_are_refused_with_the_reason() {
    let sha = hex(VIEWER.as_bytes());
    let key = hex(KEY.as_bytes());
    for (admin, why) in [
        ("operators: []".to_owned(), "at least one operator"),
        ("operators: [{ id: ann, role: boss, uid: 1 }]".into(), "expected one of `viewer`"),
        ("operators: [{ id: ann, role: viewer }]".into(), "needs a token"),
        ("operators: [{ id: ann, role: viewer, uid: 1 }]".into(), "only at a Unix socket"),
        (
            format!("operators: [{{ id: ann, role: viewer, prefix: ilo_viewer00, sha256: {key} }}]"),
            "an agent's API key",
        ),
        (
            format!("operators: [{{ id: agent-7, role: viewer, prefix: ilo_viewer00, sha256: {sha} }}]"),
            "`agent-7` is an operator and an agent with an API key",
        ),
        (
            format!("operators: [{{ id: ann, role: viewer, prefix: ilk_viewer00, sha256: {sha} }}]"),
            "starts with `ilo_`",
        ),
        (
            format!("operators: [{{ id: gateway, role: viewer, prefix: ilo_viewer00, sha256: {sha} }}]"),
            "`gateway` is what",
        ),
        ("operators: [{ id: ann, role: viewer, prefix: ilo_viewer00 }]".into(), "both `prefix` and `sha256`"),
        ("operators: [{ id: ann, role: viewer, spiffe: spiffe://a/b }]".into(), "`admin.tls.client_roots`"),
        ("operators: [{ id: ann, role: viewer, spiffe: https://a/b }]".into(), "expected a SPIFFE ID"),
        (
            format!(
                "operators: [{{ id: ann, role: viewer, prefix: ilo_viewer00, sha256: {sha} }}, \
                 {{ id: bob, role: viewer, prefix: ilo_viewer00, sha256: {sha} }}]"
            ),
            "the same prefix",
        ),
        ("operators: { file: ./nowhere.yaml }".into(), "nowhere.yaml"),
        ("operators: { file: ./schema.json }".into(), "schema.json:1:1: expected"),
        (
            "tls: { certificate: ./tls.crt, key: ./tls.key, crls: [./tls.crt] }".into(),
            "`crls` needs `client_roots`",
        ),
        ("unix: ./a.sock".into(), "`listen` means nothing with `unix`"),
    ] {
        assert!(refusal(&admin, |yaml| yaml).contains(why), "{admin}: {}", refusal(&admin, |yaml| yaml));
    }
    let remote = format!(
        "allow_remote: true, operators: [{{ id: ann, role: viewer, prefix: ilo_viewer00, sha256: {sha} }}]"
    );
    let everywhere = |yaml: String| yaml.replace("127.0.0.1:ADMIN_PORT", "0.0.0.0:0");
    assert!(refusal(&remote, everywhere).contains("in plain text; add `tls`"));
    let operators_key = |yaml: String| yaml.replace(&KEY[..12], "ilo_agent007");
    assert!(refusal("allow_remote: false", operators_key).contains("`ilo_` begins the tokens of operators"));
    let workload = "operators: [{ id: ann, role: viewer, spiffe: spiffe://a.test/ann }]";
    let taking = |domain: &str| {
        let identity = format!("mtls: {{ trust_domains: [{domain}] }}");
        refusal(workload, |yaml| yaml.replace("api_key: { headers: [x-api-key, authorization] }", &identity))
    };
    let as_agent = "surface `test` takes the certificate of operator `ann` as an agent's";
    assert!(taking("a.test").contains(as_agent), "{}", taking("a.test"));
    assert!(!taking("b.test").contains(as_agent));
    let encoded = "operators: [{ id: ann, role: viewer, spiffe: spiffe://a.test/%61nn }]";
    assert!(refusal(encoded, |yaml| yaml).contains("expected a SPIFFE ID"));
}

/// Why a config with this in `admin` is refused.
fn refusal(admin: &str, edit: impl Fn(String) -> String) -> String {
    let mut world = Setup { admin: vec![admin.to_owned()], ..Setup::default() }.lay_out();
    world.is_looked_at_later();
    let yaml = edit(fs::read_to_string(world.path("interlock.yaml")).expect("readable"));
    world.write("refused.yaml", &yaml.replace("MAIN_PORT", "0").replace("ADMIN_PORT", "0"), 0o644);
    let clock = Clock::system();
    let surroundings = Surroundings { clock: &clock, variable: &|_| None, secrets: SecretsAre::Needed };
    let read = Config::load(&world.path("refused.yaml"), surroundings);
    read.err().unwrap_or_else(|| panic!("{admin} is read")).to_string()
}
