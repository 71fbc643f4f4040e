//! What `receipts show` tells an auditor: proposed, consulted, decided, happened. And nothing that steers a terminal.

use serde_json::{Value, json};

use crate::ledger_faults::{Forged, golden, interlock, outcome_of, stdout};
use crate::support::{KEY, Setup, World, request};

const POLICY: &str = r#"package gateway.test

permit contains {"code": "wanted", "rate": input.context.facts.rates.usd} if input.request.headers["x-want"] == "permit"
"#;

const ROUTES: &str = r#"
      - { action: pay.create, method: POST, path: /v1/payments, body: json, headers: [x-want, x-patient-id] }
"#;

const SURFACE: &[&str] = &[
    "facts: [ { name: rates, file: ./rates.json, max_age_ms: 60000 } ]",
    "redact: { pointers: [/request/body/pin, \"/request/body/items/*/account\"], headers: [x-patient-id] }",
];

fn show(log: &str, id: &str) -> String {
    let shown = interlock(&["receipts", "show", id, "--log", log]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    stdout(&shown)
}

#[track_caller]
fn assert_holds(shown: &str, expected: &[&str]) {
    for text in expected {
        assert!(shown.contains(text), "`{text}` in:\n{shown}");
    }
}

#[test]
fn receipts_show_facts_and_mark_what_was_redacted() {
    let mut world: World = Setup {
        policy: POLICY.into(),
        routes: ROUTES.into(),
        surface: SURFACE,
        files: vec![("rates.json", r#"{"usd":"1.08\u001b[2J"}"#.into())],
        redacted: &["#7!2", "acc#1", "pat!ent"],
        ..Setup::default()
    }
    .start();
    let body = r##"{"items":[{"account":"acc#1","n":1}],"memo":"a\u001b]0;x\u202e","pin":"#7!2"}"##;
    let headers = [
        ("x-api-key", KEY),
        ("x-want", "permit"),
        ("x-patient-id", "pat!ent"),
        ("content-type", "application/json"),
        ("connection", "close"),
    ];
    let answer = world.send(request("POST", "/v1/payments", &headers, body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    let receipt = answer.header("interlock-receipt").expect("a receipt").to_owned();
    let id = receipt.split('"').nth(1).expect("an id");
    world.finish_here(interlock::gateway::Stopped::Clean);

    let log = world.path("ledger");
    let shown = show(log.to_str().expect("UTF-8"), id);
    assert_holds(
        &shown,
        &[
            "request        POST /v1/payments",
            "digest         (redacted)",
            "\"(redacted)\": \"1 member\"",
            "\"memo\": \"a\\u001b]0;x\\u202e\"",
            "\"n\": 1",
            "headers        (redacted): 1 member",
            "x-want: permit",
            "fact:",
            "version sha-256:",
            " ms old",
            "{\"usd\":\"1.08\\u001b[2J\"}",
            "activated by start",
            "outcome        confirmed, seen by the gateway",
        ],
    );
    for hidden in ["#7!2", "acc#1", "pat!ent"] {
        assert!(!shown.contains(hidden), "{hidden} in:\n{shown}");
    }
    assert!(!shown.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{shown}");
}

#[test]
fn receipts_that_were_made_again_name_each_other() {
    let mut forged = Forged::under_policy();
    let first = golden("decision");
    let at = forged.add(&first);
    let mut not_sent = outcome_of(at);
    not_sent["status"] = json!("not_sent");
    not_sent["cause"] = json!("superseded");
    for member in ["sent", "response"] {
        not_sent.as_object_mut().expect("an object").remove(member);
    }
    forged.add(&not_sent);
    let mut second = golden("decision");
    let second_id = "019aa159-acfb-7707-8707-070707070708";
    second["id"] = json!(second_id);
    second["supersedes"] = first["id"].clone();
    let again = forged.add(&second);
    let mut outcome = outcome_of(again);
    outcome["decision_id"] = json!(second_id);
    forged.add(&outcome);
    forged.verify();
    let log = forged.log.dir.path().to_str().expect("UTF-8");

    let first_id = first["id"].as_str().expect("an id");
    let shown = show(log, first_id);
    assert_holds(&shown, &["outcome        not_sent, superseded"]);
    assert_holds(&shown, &[&format!("superseded by  {second_id} (PERMIT, entry {again})")]);
    let shown = show(log, second_id);
    assert_holds(&shown, &[&format!("supersedes     {first_id}, which was not sent"), "confirmed"]);
}

#[test]
fn receipts_show_who_attested_an_outcome_and_what_that_settled() {
    let mut forged = Forged::under_policy();
    let mut permit = golden("decision");
    let key = golden("outcome")["decision_id"].clone();
    assert_eq!(permit["id"], key, "the goldens are one request");
    permit["reserves"] = json!([{
        "amount": "4200", "budget": "day", "key": permit["request"]["digest"], "until": "2025-11-21T00:00:00.000000Z",
    }]);
    let at = forged.add(&permit);
    let mut unknown = outcome_of(at);
    unknown["status"] = json!("indeterminate");
    unknown["settles"] = json!([]);
    unknown.as_object_mut().expect("an object").remove("response");
    forged.add(&unknown);
    forged.verify();
    let log = forged.log.dir.path().to_str().expect("UTF-8").to_owned();
    let id = permit["id"].as_str().expect("an id");
    assert_holds(&show(&log, id), &["indeterminate", "day: 4200 reserved until the outcome is reconciled"]);

    let mut attested = unknown.clone();
    attested["attestation"] = json!("operator");
    attested["status"] = json!("confirmed");
    attested["attested_by"] =
        json!({"evidence": "ticket 4\u{9b}", "operator": {"id": "ann\u{1b}", "role": "operator"}});
    attested["settles"] = json!([{"budget": "day", "settled_as": "spent"}]);
    attested["cause"] = json!("bank statement");
    attested.as_object_mut().expect("an object").remove("sent");
    forged.add(&attested);
    forged.verify();
    let shown = show(&log, id);
    assert_holds(
        &shown,
        &[
            "outcome        indeterminate",
            "attested       confirmed by ann\\u{1b} (operator)",
            "evidence: ticket 4\\u{9b}",
            ": bank statement",
            "day: 4200 spent; counts until 2025-11-21T00:00:00.000000Z",
        ],
    );
    let lines = stdout(&interlock(&["receipts", "show", id, "--log", &log, "--json"]));
    let leaves: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(leaves.len(), 3, "{lines}");
    assert_eq!((&leaves[2]["entry"], &leaves[2]["index"]), (&attested, &json!(at + 2)));
}
