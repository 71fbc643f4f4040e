//! `interlock policy eval` and `interlock explain`: the same verdict as the gateway's, and the rule that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use interlock::canonical::json;
use interlock::clock::{Clock, WallTime};
use interlock::config::{Config, SecretsAre, Surroundings};
use interlock::model::entry::{DecisionEntry, Entry};
use interlock::model::{Actor, AuthenticationMethod, Decision, Digest, Json, LogOrigin, ReasonCode};
use interlock::policy::{Became, Bundle, Seen, Sources};
use interlock::redaction::Disclosures;
use interlock::trial::{self, Given, NotAsked};
use interlock::verify::Directory;
use interlock::verify::walk::{Step, Walk};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::Value;

use crate::support::{KEY, Setup, World, request};

const POLICY: &str = r#"package gateway.test

wanted contains input.request.headers["x-want"]

small if {
	input.request.body.amount <= 100
	input.actor.claims.roles[_] == "agent"
}

permit contains {"code": "small", "amount": input.request.body.amount} if {
	"permit" in wanted
	small
}

permit contains "listed" if input.action == "thing.list"

deny contains "over" if input.request.body.amount > 1000

escalate contains "ask" if {
	some item in input.request.body.items
	item.n > 5
}

quarantine contains "isolated" if input.request.body.name == "canary"

permit contains {"code": "n", "n": to_number(input.request.body.text)} if "permit" in wanted
"#;

fn interlock(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().expect("the program runs")
}

/// Asked until the log's checkpoint covers what it is about: it is written behind.
fn explained(dir: &Path, arguments: &[&str]) -> Output {
    for _ in 0..200 {
        let run = interlock(dir, arguments);
        if !text(&run).contains("unsigned") {
            return run;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the checkpoint is not written");
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every decision with the input that it was made from.
fn decisions(log: &Path) -> Vec<(Box<DecisionEntry>, Json)> {
    let directory = Directory::open(log).expect("a log");
    let origin: LogOrigin = "interlock.test/log".parse().expect("a name");
    let mut walk = Walk::new(&directory, &origin).expect("a log");
    let mut found = Vec::new();
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        let records: BTreeMap<Digest, &[u8]> = frame.evidence.iter().map(|r| (r.digest, r.bytes)).collect();
        for bytes in &frame.entries {
            if let Entry::Decision(decision) = Entry::from_bytes_unverified(bytes).expect("a leaf") {
                let bytes = records[&decision.evaluation.input_digest];
                found.push((decision, json::parse(bytes, json::Bounds::BODY).expect("JSON")));
            }
        }
    }
    found
}

fn config(world: &World) -> Config {
    let clock = Clock::system();
    let read = Surroundings { secrets: SecretsAre::Optional, ..Surroundings::of_process(&clock) };
    Config::load(&world.path("running.yaml"), read).unwrap_or_else(|e| panic!("{e}"))
}

fn actor() -> Actor {
    let claims = json::parse(br#"{"roles":["agent"]}"#, json::Bounds::BODY).expect("JSON");
    let id = "agent-7".parse().expect("an id");
    Actor { id, method: AuthenticationMethod::ApiKey, credential_digest: None, claims, valid_until: None }
}

fn given(now: WallTime) -> Given {
    Given { actor: actor(), surface: None, context: Json::object([]), now }
}

fn asked(config: &Config, message: &[u8], now: WallTime) -> Result<trial::Asked, NotAsked> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("built");
    runtime.block_on(trial::ask(config, message, given(now)))
}

fn bundle(world: &World) -> Bundle {
    let sources = Sources::read(&world.path("policies")).expect("sources");
    Bundle::from_sources(sources, &[]).unwrap_or_else(|e| panic!("{e}"))
}

#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    target: String,
    want: &'static str,
    body: String,
}

impl Ask {
    fn message(&self) -> Vec<u8> {
        let mut headers = vec![("x-api-key", KEY), ("x-want", self.want), ("connection", "close")];
        if !self.body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        request(self.method, &self.target, &headers, &self.body)
    }
}

fn asks() -> impl Strategy<Value = Ask> {
    let member = prop_oneof![
        (0..2_000_i64).prop_map(|n| format!("\"amount\":{n}")),
        Just("\"amount\":\"5\"".to_owned()),
        Just("\"amount\":1.0".to_owned()),
        Just("\"text\":\"x\"".to_owned()),
        Just("\"text\":\"12\"".to_owned()),
        (0..9_i64).prop_map(|n| format!("\"items\":[{{\"n\":{n}}},{{}}]")),
        Just("\"a\":1,\"a\":2".to_owned()),
        Just("\"big\":9007199254740993".to_owned()),
    ];
    let body = proptest::collection::vec(member, 0..4).prop_map(|mut members| {
        members.dedup_by_key(|member| member.split(':').next().map(str::to_owned));
        format!("{{{}}}", members.join(","))
    });
    let target = prop_oneof![
        Just(("POST", "/v1/things")),
        Just(("POST", "/v1/%74hings?a=1&b=%c3%a9")),
        Just(("POST", "/v1/things?a=1&a=2")),
        Just(("GET", "/v1/things")),
        Just(("GET", "/v1/things?expand[]=x&expand[]=y")),
        Just(("GET", "/v1/things/7")),
        Just(("GET", "/v1//things")),
        Just(("GET", "/v1/../things")),
        Just(("PUT", "/v1/things")),
        Just(("GET", "/nothing")),
    ];
    (target, prop_oneof![Just("permit"), Just("other")], body).prop_map(|((method, target), want, body)| {
        Ask {
            method,
            target: target.to_owned(),
            want,
            body: if method == "GET" { String::new() } else { body },
        }
    })
}

/// The same request, the same config: the gateway's own input and verdict come out, or its own refusal.
#[test]
fn a_request_is_judged_as_the_gateway_judges_it() {
    let world = Setup { policy: POLICY.into(), ..Setup::default() }.start();
    let config = config(&world);
    let mut runner = TestRunner::new(Runs { cases: 120, failure_persistence: None, ..Runs::default() });
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut refused = Vec::new();
    let mut judged = Vec::new();
    // The last one isolates its actor: policy is not asked about what comes after.
    let post =
        |want, body: &str| Ask { method: "POST", target: "/v1/things".into(), want, body: body.into() };
    let canary = post("permit", r#"{"name":"canary"}"#);
    let each = [
        post("permit", r#"{"amount":5}"#),
        post("other", r#"{"amount":5}"#),
        post("permit", r#"{"amount":5000}"#),
        post("permit", r#"{"items":[{"n":9}]}"#),
        post("permit", r#"{"text":"x"}"#),
        Ask { method: "GET", target: "/nothing".into(), want: "permit", body: String::new() },
    ];
    let random: Vec<Ask> =
        (0..120).map(|_| asks().new_tree(&mut runner).expect("a request").current()).collect();
    for ask in each.into_iter().chain(random).chain([canary]) {
        let response = world.send(ask.message());
        match asked(&config, &ask.message(), WallTime::from_unix_ns(0)) {
            Ok(_) => judged.push(ask),
            Err(NotAsked::Refused { code, .. }) => {
                *kinds.entry(code.as_str().to_owned()).or_default() += 1;
                refused.push((ask, code, response));
            }
            Err(NotAsked::Given(why)) => panic!("{ask:?}: {why}"),
        }
    }
    for (ask, code, response) in refused {
        assert_eq!((response.status, response.reason().as_str()), (code.status(), code.as_str()), "{ask:?}");
    }
    let log = world.path("ledger");
    let recorded = decisions(&log);
    assert_eq!(recorded.len(), judged.len(), "each that was not refused was decided");
    for (ask, (decision, input)) in judged.iter().zip(&recorded) {
        let time = input.as_object().and_then(|o| o.member("time")).and_then(Json::as_object);
        let time = time.and_then(|time| time.member("rfc3339")).and_then(Json::as_str).expect("a time");
        let asked = asked(&config, &ask.message(), WallTime::parse_rfc3339(time).expect("a time"))
            .unwrap_or_else(|e| panic!("{ask:?}: {e:?}"));
        assert_eq!(asked.shown(), input, "{ask:?}");
        assert_eq!(&asked.package, &decision.policy.package);
        let again =
            trial::recorded(input.clone(), asked.package.clone(), &Disclosures::default()).expect("an input");
        for asked in [asked, again] {
            let tried = trial::evaluate(bundle(&world), &asked, true).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(tried.finding.decision, decision.decision, "{ask:?}");
            assert_eq!(tried.reasons, decision.reasons, "{ask:?}");
            let cause = tried.finding.not_evaluated.map(|code| code.as_str());
            assert_eq!(cause, decision.evaluation.cause.as_deref(), "{ask:?}");
            assert_eq!(tried.revision, decision.policy.revision);
        }
        *kinds.entry(decision.decision.as_str().to_owned()).or_default() += 1;
    }
    for kind in ["PERMIT", "DENY", "SILENCE", "ESCALATE", "QUARANTINE", "route_not_declared"] {
        assert!(kinds.contains_key(kind), "{kind} is missing: {kinds:?}");
    }
    world.finish();
}

#[test]
fn a_curl_command_a_message_and_an_input_are_explained_alike() {
    let world = Setup { policy: POLICY.into(), ..Setup::default() }.start();
    let dir = world.path("");
    let body = r#"{"amount":150,"items":[{"n":1},{"n":2}]}"#;
    let as_agent =
        ["--actor", "agent-7", "--claims", r#"{"roles":["agent"]}"#, "--time", "2026-11-20T13:00:00Z"];
    let eval = |request: &[&str]| {
        let arguments =
            [&["policy", "eval", "--config", "running.yaml", "--explain"], &as_agent[..], request].concat();
        interlock(&dir, &arguments)
    };
    let command = format!(
        "curl -sS http://api.test/v1/things -H 'Content-Type: application/json' -H 'x-want: permit' \\\n  -d '{body}'"
    );
    let run = eval(&["--curl", &command]);
    assert_eq!(run.status.code(), Some(10), "{}", text(&run));
    let revision = bundle(&world).revision();
    let expected = format!(
        "\
verdict    SILENCE
package    gateway.test at {revision}
reason     {{\"code\":\"policy_silent\"}}

quarantine
  - test.rego:24:1  quarantine contains \"isolated\"
    test.rego:24:35: `input.request.body.name == \"canary\"` is undefined
      input.request.body.name = undefined
deny
  - test.rego:17:1  deny contains \"over\"
    test.rego:17:25: `input.request.body.amount > 1000` is false
      input.request.body.amount = 150
escalate
  - test.rego:19:1  escalate contains \"ask\"
    test.rego:21:2: `item.n > 5` is false
      item.n = 1
      item.n = 2
permit
  - test.rego:10:1  permit contains {{\"code\": \"small\", \"amount\": input.request.body.amount}}
    test.rego:12:2: `small` is undefined
      small = undefined
      data.gateway.test.small gives nothing:
        - test.rego:5:1  small
          test.rego:6:2: `input.request.body.amount <= 100` is false
            input.request.body.amount = 150
  - test.rego:15:1  permit contains \"listed\"
    test.rego:15:29: `input.action == \"thing.list\"` is false
      input.action = \"thing.create\"
  - test.rego:26:1  permit contains {{\"code\": \"n\", \"n\": to_number(input.request.body.text)}}
    test.rego:26:17: `{{\"code\": \"n\", \"n\": to_number(input.request.body.text)}}` has no value (everything before it holds)
      to_number(input.request.body.text) = undefined
      input.request.body.text = undefined
"
    );
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected);

    let message = format!(
        "POST /v1/things HTTP/1.1\nHost: api.test\nUser-Agent: curl\nAccept: */*\nContent-Type: application/json\nX-Want: permit\nContent-Length: {}\n\n{body}",
        body.len()
    );
    fs::write(dir.join("message.txt"), &message).expect("written");
    let as_text = eval(&["--http-text", "message.txt"]);
    assert_eq!(as_text.stdout, run.stdout, "{}", text(&as_text));
    fs::write(dir.join("message.http"), trial::with_crlf(message.as_bytes())).expect("written");
    assert_eq!(eval(&["--http", "message.http"]).stdout, run.stdout);
    let lf = eval(&["--http", "message.txt"]);
    assert_eq!(lf.status.code(), Some(11), "{}", text(&lf));
    assert!(text(&lf).contains("head_bare_lf"), "{}", text(&lf));

    let json = eval(&["--http-text", "message.txt", "--json"]);
    let page: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&page["decision"], &page["package"]), (&"SILENCE".into(), &"gateway.test".into()));
    assert_eq!(page["explanation"][3]["bodies"][0]["because"][0]["bodies"][0]["line"], 6);
    fs::write(dir.join("input.json"), page["input"].to_string()).expect("written");
    let input = interlock(
        &dir,
        &["policy", "eval", "--config", "running.yaml", "--explain", "--input", "input.json"],
    );
    assert_eq!(input.stdout, run.stdout, "{}", text(&input));
    let alone = [
        "policy",
        "eval",
        "--policy",
        "policies",
        "--package",
        "gateway.test",
        "--explain",
        "--input",
        "input.json",
    ];
    assert_eq!(interlock(&dir, &alone).stdout, run.stdout);

    let permitted = eval(&["--curl", "curl http://api.test/v1/things"]);
    assert_eq!(permitted.status.code(), Some(0), "{}", text(&permitted));
    assert!(
        text(&permitted).contains("+ test.rego:15:1  permit contains \"listed\" -> \"listed\""),
        "{}",
        text(&permitted)
    );
    world.finish();
}

#[test]
fn what_cannot_be_asked_says_why() {
    let mut world = Setup {
        policy: POLICY.into(),
        surface: &["budgets: [{ name: day, key: [/actor/id], amount: /request/body/amount, window: day, timezone: UTC, actions: [thing.create] }]"],
        ..Setup::default()
    }
    .lay_out();
    let yaml = fs::read_to_string(world.path("interlock.yaml")).expect("a config");
    let yaml = yaml.replace("MAIN_PORT", "0").replace("ADMIN_PORT", "0");
    fs::write(world.path("running.yaml"), yaml.replace("    budgets: [{ name: day, key: [/actor/id], amount: /request/body/amount, window: day, timezone: UTC, actions: [thing.create] }]\n", "")).expect("written");
    let dir = world.path("");
    let eval = |arguments: &[&str]| {
        interlock(&dir, &[&["policy", "eval", "--config", "running.yaml"], arguments].concat())
    };
    let agent = ["--actor", "agent-7"];
    for (arguments, code, part) in [
        (vec!["--curl", "curl http://api.test/v1/things"], 1, "--actor"),
        ([&agent[..], &["--curl", "curl http://api.test/nothing"]].concat(), 11, "route_not_declared"),
        ([&agent[..], &["--curl", "curl -X PUT http://api.test/v1/things"]].concat(), 11, "Allowed here: "),
        ([&agent[..], &["--curl", "curl http://api.test/v1/things/a/../b"]].concat(), 1, "dot segments"),
        ([&agent[..], &["--curl", "curl http://api.test/v1/things -d a=1"]].concat(), 11, "415"),
        (
            [&agent[..], &["--claims", "[]", "--curl", "curl http://api.test/v1/things"]].concat(),
            1,
            "no JSON object",
        ),
        (
            [&agent[..], &["--surface", "other", "--curl", "curl http://api.test/v1/things"]].concat(),
            1,
            "no surface `other`",
        ),
        (
            [&agent[..], &["--context", "none.json", "--curl", "curl http://api.test/v1/things"]].concat(),
            1,
            "cannot be read",
        ),
        (vec!["--input", "none.json"], 1, "cannot be read"),
        (vec![], 2, "required"),
    ] {
        let run = eval(&arguments);
        assert_eq!(run.status.code(), Some(code), "{arguments:?}: {}", text(&run));
        assert!(text(&run).contains(part), "{arguments:?}: {}", text(&run));
    }
    let two = "GET /v1/things HTTP/1.1\r\nhost: api.test\r\n\r\n".repeat(2);
    for (message, part) in [
        (two.as_str(), "more than one message"),
        ("GET /v1/things HTTP/1.1\r\nhost: a\r\n", "no whole message"),
    ] {
        fs::write(world.path("message.http"), message).expect("written");
        let run = eval(&[&agent[..], &["--http", "message.http"]].concat());
        assert_eq!(run.status.code(), Some(1), "{}", text(&run));
        assert!(text(&run).contains(part), "{}", text(&run));
    }
    fs::write(world.path("in.json"), r#"{"surface":"unknown"}"#).expect("written");
    assert!(text(&eval(&["--input", "in.json"])).contains("--package"));
    world.nothing_to_audit();
}

const SECRETS: [&str; 2] = ["4111!2222", "hunter!2"];

fn redacting() -> Setup {
    Setup {
        policy: "package gateway.test\n\ncard := input.request.body.card\n\npermit contains {\"code\": \"card\", \"card\": card} if {\n\tinput.request.body.amount > 5\n\tstartswith(card, \"41\")\n\tinput.request.headers[\"x-pin\"] == \"none\"\n}\n\n\
                 deny contains sprintf(\"no_%s\", [card]) if {\n\tcard == input.request.body.blocked\n}\n"
            .into(),
        routes: "\n      - { action: pay.create, method: POST, path: /v1/payments, body: json, headers: [x-want, x-pin] }\n".into(),
        surface: &["redact: { pointers: [/request/body/card], headers: [x-pin] }"],
        redacted: &SECRETS,
        ..Setup::default()
    }
}

#[test]
fn redacted_members_stay_redacted_in_what_is_explained() {
    let world = redacting().start();
    let dir = world.path("");
    let body = format!(r#"{{"amount":9,"card":"{}"}}"#, SECRETS[0]);
    let headers = [
        ("x-api-key", KEY),
        ("x-pin", SECRETS[1]),
        ("content-type", "application/json"),
        ("connection", "close"),
    ];
    let message = request("POST", "/v1/payments", &headers, &body);
    assert_eq!(world.send(&message).status, 403);
    fs::write(dir.join("message.http"), &message).expect("written");
    for more in [&["--explain"][..], &["--explain", "--json"]] {
        let arguments = [
            &["policy", "eval", "--config", "running.yaml", "--actor", "agent-7", "--http", "message.http"],
            more,
        ]
        .concat();
        let run = interlock(&dir, &arguments);
        assert_eq!(run.status.code(), Some(10), "{}", text(&run));
        assert!(SECRETS.iter().all(|secret| !text(&run).contains(secret)), "{}", text(&run));
        assert!(text(&run).contains("test.rego"), "{}", text(&run));
    }
    // The recorded one: without disclosures it cannot be judged again; with them it is, and still not shown.
    let key = world.vkey();
    let (decision, _) = decisions(&world.path("ledger")).pop().expect("a decision");
    let receipt = decision.id.to_string();
    let explain = ["explain", &receipt, "--log", "ledger", "--key", &key];
    let without = explained(&dir, &explain);
    assert_eq!(without.status.code(), Some(3), "{}", text(&without));
    assert!(text(&without).contains("input_redacted"), "{}", text(&without));
    let mut disclosures = String::new();
    for (pointer, value) in [
        ("/request/body/card", SECRETS[0].to_owned()),
        ("/request/headers/x-pin", SECRETS[1].to_owned()),
        ("/request/digest", digest_of(&world)),
    ] {
        let arguments = [
            "disclose",
            "--log",
            "ledger",
            "--salts",
            "salts",
            "--receipt",
            &receipt,
            "--pointer",
            pointer,
            "--text",
            &value,
        ];
        let line = interlock(&dir, &arguments);
        assert!(line.status.success(), "{pointer}: {}", text(&line));
        disclosures.push_str(&String::from_utf8_lossy(&line.stdout));
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), disclosures).expect("written");
    let with = ["--disclosures", file.path().to_str().expect("UTF-8")];
    let run = interlock(&dir, &[&explain[..], &with].concat());
    assert_eq!(run.status.code(), Some(0), "{}", text(&run));
    assert!(
        text(&run).contains("test.rego:8:2: `input.request.headers[\"x-pin\"] == \"none\"` is false"),
        "{}",
        text(&run)
    );
    assert!(text(&run).contains("withheld"), "{}", text(&run));
    assert!(SECRETS.iter().all(|secret| !text(&run).contains(secret)), "{}", text(&run));
    fs::remove_file(dir.join("message.http")).expect("removed");
    world.finish();
}

/// The digest of the one message that was judged: over what would be sent, with the credential's slot.
fn digest_of(world: &World) -> String {
    let config = config(world);
    let message = fs::read(world.path("message.http")).expect("written before");
    let given = given(Clock::system().wall());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("built");
    let asked = runtime.block_on(trial::ask(&config, &message, given)).unwrap_or_else(|e| panic!("{e:?}"));
    asked.request_digest().to_string()
}

#[test]
fn a_receipt_is_explained_from_the_log_alone() {
    let world = Setup { policy: POLICY.into(), ..Setup::default() }.start();
    let over = r#"{"amount":1500}"#;
    assert_eq!(world.ask("POST", "/v1/things", "permit", over).status, 403);
    let key = world.vkey();
    let (decision, _) = decisions(&world.path("ledger")).pop().expect("a decision");
    // What is in force now says nothing about what was in force then.
    fs::remove_file(world.path("policies/test.rego")).expect("removed");
    let receipt = decision.id.to_string();
    let arguments = ["explain", &receipt, "--log", "ledger", "--key", &key];
    let run = explained(&world.path(""), &arguments);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run));
    let page = text(&run);
    assert!(page.contains("recorded   DENY [{\"code\":\"over\"}]\n"), "{page}");
    assert!(page.contains("deny\n  + test.rego:17:1  deny contains \"over\" -> \"over\"\n"), "{page}");
    assert!(page.contains("test.rego:6:2: `input.request.body.amount <= 100` is false"), "{page}");
    let json = interlock(&world.path(""), &[&arguments[..], &["--json"]].concat());
    let page: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(page["explanation"]["after"]["decision"], "DENY");
    assert_eq!(page["explanation"]["sets"][1]["bodies"][0]["became"], "made", "{page:#}");
    let unknown = receipt.replace(&receipt[30..], &"0".repeat(receipt.len() - 30));
    let run = interlock(&world.path(""), &["explain", &unknown, "--log", "ledger", "--key", &key]);
    assert_eq!(run.status.code(), Some(1), "{}", text(&run));
    world.finish();
}

/// What a rule is said to make is what the engine made of it: on shipped policies and a corpus of good ones.
#[test]
fn what_an_explanation_says_is_made_is_the_verdict() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bundles = vec![Sources::read(&root.join("policies")).expect("sources")];
    for entry in fs::read_dir(root.join("tests/policies/good")).expect("a corpus") {
        let text = fs::read(entry.expect("an entry").path()).expect("readable");
        let mut files = vec![("example/p.rego".to_owned(), text)];
        for entry in fs::read_dir(root.join("policies/ref")).expect("documents") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            files.push((format!("ref/{name}"), fs::read(path).expect("readable")));
        }
        bundles.push(Sources::from_files(files).expect("sources"));
    }
    assert!(bundles.len() > 40);
    let (mut asked, mut verdicts) = (0, BTreeMap::<&str, usize>::new());
    for (number, sources) in bundles.into_iter().enumerate() {
        let bundle = || Bundle::from_sources(sources.clone(), &[]).unwrap_or_else(|e| panic!("{e}"));
        let packages: Vec<_> = bundle().packages().cloned().collect();
        for package in packages {
            for turn in 0..4 {
                let input = made_up(number * 4 + turn);
                let shown = String::from_utf8(json::write(&input)).expect("UTF-8");
                let put = trial::recorded(input, package.clone(), &Disclosures::default()).expect("an input");
                let tried = trial::evaluate(bundle(), &put, true).unwrap_or_else(|e| panic!("{e}"));
                let page = serde_json::to_string(&tried.sets).expect("JSON");
                assert!(!page.contains("\"became\":\"unknown\""), "{package} {shown}: {page}");
                let made = tried.sets.iter().find_map(|set| {
                    let values = set.trace.bodies.iter().flat_map(|body| match &body.became {
                        Became::Made { values } => values.clone(),
                        _ => Vec::new(),
                    });
                    let codes: BTreeSet<String> = values.map(|value| code(&value)).collect();
                    (!codes.is_empty()).then_some((set.set.to_uppercase(), codes))
                });
                let expected: BTreeSet<String> = tried.reasons.iter().map(|r| r.code.to_string()).collect();
                let said = tried.finding.decision.as_str();
                *verdicts.entry(said).or_default() += 1;
                asked += 1;
                match (made, tried.finding.not_evaluated) {
                    (_, Some(_)) => assert!(page.contains("\"how\":\"error\""), "{package} {shown}: {page}"),
                    (None, None) => assert_eq!(said, "SILENCE", "{package} {shown}: {page}"),
                    (Some((set, codes)), None) => {
                        assert_eq!((set.as_str(), codes), (said, expected), "{package} {shown}: {page}");
                    }
                }
            }
        }
    }
    assert!(asked > 150 && verdicts.len() >= 4, "{asked}: {verdicts:?}");
}

fn code(value: &Seen) -> String {
    match value {
        Seen::Value(Value::String(code)) => code.clone(),
        Seen::Value(value) => value["code"].as_str().expect("a code").to_owned(),
        Seen::Each(_) | Seen::Undefined | Seen::Withheld => panic!("{value:?}"),
    }
}

/// An input of some request, each number another one.
fn made_up(number: usize) -> Json {
    let pick = |from: &[&str], by: usize| from[(number / by) % from.len()].to_owned();
    let action =
        pick(&["charge.create", "charge.retrieve", "refund.create", "export.create", "config.change"], 1);
    let method = pick(&["POST", "GET", "PUT"], 5);
    let amount = pick(&["12", "60000", "\"4200\"", "1.5", "null"], 3);
    let roles = pick(&["[\"agent\"]", "[\"senior\",\"auditor\"]", "[]"], 2);
    let more = pick(
        &[
            "",
            ",\"customer\":\"cus_1\"",
            ",\"customer\":\"cus_blocked\",\"items\":[{\"sku\":\"a\",\"n\":3},{}]",
        ],
        7,
    );
    let approvals = pick(
        &[
            "[]",
            "[{\"by\":\"ada\",\"role\":\"approver\",\"at\":\"2026-11-20T13:00:00.000000Z\",\"reason\":\"ok\"}]",
        ],
        4,
    );
    let text = format!(
        r#"{{"surface":"payments","action":"{action}","actor":{{"id":"agent-7","method":"api_key","claims":{{"roles":{roles}}}}},
        "request":{{"method":"{method}","authority":"api.test","path":"/v1/charges","params":{{"id":"7"}},"query":{{}},"headers":{{"accept":"a/b"}},
        "size":1,"digest":"sha-256:00","media_type":"application/json","body":{{"amount":{amount},"currency":"EUR"{more}}}}},
        "context":{{"facts":{{}},"budgets":{{"customer_day":{{"spent":1,"in_flight":0}}}},"approvals":{approvals},"attempt":1}},
        "time":{{"unix_ns":1795179600000000000,"rfc3339":"2026-11-20T13:00:00.000000Z"}}}}"#
    );
    json::parse(text.as_bytes(), json::Bounds::BODY).expect("JSON")
}

/// Not as in OPA, and closed: nothing is permitted by it. The explanation says which rule it was.
#[test]
fn a_rule_named_through_an_import_rests_on_its_whole_package() {
    let said = |reference: &str| {
        let asking = format!("package a\n\nimport data.b\n\npermit contains \"x\" if {reference}\n");
        let asked = "package b\n\nok if input.x == 1\n\nother if to_number(input.y) == 1\n";
        let files = [("a/a.rego", asking.as_str()), ("b/b.rego", asked)];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        let sources = Sources::from_files(files).expect("sources");
        let bundle = Bundle::from_sources(sources, &[]).unwrap_or_else(|e| panic!("{e}"));
        let input = json::parse(br#"{"x":1,"y":"no"}"#, json::Bounds::BODY).expect("JSON");
        let put =
            trial::recorded(input, "a".parse().expect("a name"), &Disclosures::default()).expect("an input");
        trial::evaluate(bundle, &put, true).unwrap_or_else(|e| panic!("{e}"))
    };
    assert_eq!(said("data.b.ok").finding.decision, Decision::Permit);
    let through = said("b.ok");
    assert_eq!(through.finding.not_evaluated, Some(ReasonCode::EvaluationError));
    let Became::Failed(failure) = &through.sets[0].trace.bodies[0].became else {
        panic!("{:#?}", through.sets)
    };
    assert_eq!(failure.error.as_deref(), Some("b/b.rego:5:25: could not parse string as number"));
}
