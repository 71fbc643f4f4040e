//! Redaction end to end: what a surface keeps out is nowhere on disk, cannot be guessed, and can be disclosed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use interlock::canonical::json;
use interlock::ledger::salts;
use interlock::model::entry::{DecisionEntry, Entry};
use interlock::model::{Digest, Epoch, Json, LogOrigin, ReceiptId};
use interlock::redaction::{Disclosure, Disclosures, EpochKey, Unrestored, places};
use interlock::verify::Directory;
use interlock::verify::walk::{Step, Walk};
use zeroize::Zeroizing;

use super::verification::proof_in;
use crate::support::auditor::Audit;
use crate::support::client::Response;
use crate::support::http2::Http2;
use crate::support::world::root;
use crate::support::{KEY, SLOT, Setup, World, request};

/// A policy that lets nothing slip: it repeats what it was given wherever it can.
const POLICY: &str = r#"package gateway.test

wanted contains input.request.headers["x-want"]

permit contains {"code": "wanted", "message": sprintf("pin %v", [input.request.body.pin]), "pin": input.request.body.pin} if "permit" in wanted

permit contains "listed" if "list" in wanted

deny contains {"code": sprintf("denied_%s", [input.request.body.iban]), "message": input.request.headers["x-patient-id"]} if "deny" in wanted

permit contains to_number(input.request.body.iban) if "fail" in wanted

permit contains "soon" if {
	"panic" in wanted
	time.parse_duration_ns(input.request.body.iban) > 0
}
"#;

const ROUTES: &str = r#"
      - { action: pay.create, method: POST, path: /v1/payments, body: json, headers: [x-want, x-patient-id], body_required: false }
      - { action: pay.form, method: POST, path: /v1/forms, body: form, headers: [x-want] }
      - { action: pay.verbatim, method: POST, path: /v1/verbatim, body: json, forward: verbatim, headers: [x-want] }
      - { action: person.read, method: GET, path: "/v1/people/{id}", body: none, headers: [x-want, x-patient-id] }
      - { action: image.put, method: PUT, path: /v1/images, body: { opaque: [image/png] }, headers: [x-want], sensitive: true }
      - { action: letter.create, method: POST, path: /v1/letters, body: json, headers: [x-want], sensitive: true }
      - { action: pay.shaped, method: POST, path: /v1/shaped, body: json, headers: [x-want], schema: ./schema.json }
"#;

const SURFACE: &[&str] = &[
    "redact: { pointers: [/request/body/pin, /request/body/iban, \"/request/body/items/*/account\", \
     /request/body/codes/*, /request/query/email, /request/params/id, /actor/claims/phone], headers: [x-patient-id] }",
];

/// Four characters that no digest, base64 or timestamp has by accident.
const PIN: &str = "#7!2";
const IBAN: &str = "DE!02!1203!0000";
const REDACTED: &[&str] = &[
    PIN,
    IBAN,
    "acc#1",
    "acc#2",
    "co!de",
    "m!il@x",
    "m%21il",
    "per!son",
    "per%21son",
    "+49!151",
    "pat!ent",
    "pix!els",
    "let!ter",
];

fn setup() -> Setup {
    Setup {
        policy: POLICY.into(),
        routes: ROUTES.into(),
        surface: SURFACE,
        claims: "{ roles: [agent], phone: \"+49!151\" }",
        redacted: REDACTED,
        ..Setup::default()
    }
}

fn ask(world: &World, method: &str, target: &str, want: &str, media: &str, body: &str) -> Response {
    let mut headers =
        vec![("x-api-key", KEY), ("x-want", want), ("x-patient-id", "pat!ent"), ("connection", "close")];
    if !body.is_empty() {
        headers.push(("content-type", media));
    }
    world.send(request(method, target, &headers, body))
}

fn payment() -> String {
    format!(
        r#"{{"codes":["co!de",1234],"iban":"{IBAN}","items":[{{"account":"acc#1","n":1}},{{"account":"acc#2"}}],"pin":"{PIN}"}}"#
    )
}

fn pay(world: &World, want: &str) -> Response {
    ask(world, "POST", "/v1/payments?email=m!il@x&n=1", want, "application/json", &payment())
}

/// A decision with its index, its leaf's bytes and its evidence.
struct Stored {
    decision: Box<DecisionEntry>,
    evidence: Json,
}

/// Every decision, and every byte of every leaf and record as text.
fn stored(log: &Path) -> (Vec<Stored>, String) {
    let directory = Directory::open(log).expect("a log");
    let origin: LogOrigin = "interlock.test/log".parse().expect("a name");
    let mut walk = Walk::new(&directory, &origin).expect("a log");
    let (mut found, mut text) = (Vec::new(), String::new());
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        for bytes in &frame.entries {
            text.push_str(std::str::from_utf8(bytes).expect("UTF-8"));
            if let Entry::Decision(decision) = Entry::from_bytes_unverified(bytes).expect("a leaf") {
                let digest = decision.evaluation.input_digest;
                let record = frame.evidence.iter().find(|r| r.digest == digest).expect("its evidence");
                let evidence = json::parse(record.bytes, json::Bounds::BODY).expect("JSON");
                found.push(Stored { decision, evidence });
            }
        }
        frame.evidence.iter().for_each(|r| text.push_str(std::str::from_utf8(r.bytes).expect("UTF-8")));
    }
    (found, text)
}

fn disclose(world: &World, receipt: ReceiptId, pointer: &str, value: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
    command.arg("disclose").arg("--log").arg(world.path("ledger")).arg("--salts").arg(world.path("salts"));
    command.args(["--receipt", &receipt.to_string(), "--pointer", pointer]).args(value);
    command.stdin(Stdio::null()).output().expect("the program runs")
}

/// The line that is printed; it is held.
#[track_caller]
fn disclosed(world: &World, receipt: ReceiptId, pointer: &str, value: &[&str]) -> String {
    let output = disclose(world, receipt, pointer, value);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{pointer}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// All values of the payment, as an auditor who has the request makes their disclosures.
fn payment_disclosures(world: &World, stored: &Stored, request_digest: &str) -> Vec<String> {
    let id = stored.decision.id;
    let text = |pointer: &str, value: &str| disclosed(world, id, pointer, &["--text", value]);
    vec![
        text("/request/body/pin", PIN),
        text("/request/body/iban", IBAN),
        text("/request/body/items/0/account", "acc#1"),
        text("/request/body/items/1/account", "acc#2"),
        text("/request/body/codes/0", "co!de"),
        disclosed(world, id, "/request/body/codes/1", &["--value", "1234"]),
        text("/request/query/email", "m!il@x"),
        text("/request/headers/x-patient-id", "pat!ent"),
        text("/actor/claims/phone", "+49!151"),
        text("/request/path", "/v1/payments"),
        text("/request/digest", request_digest),
    ]
}

/// What the program says arrives by and by.
fn wait_for(is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn finish(world: &mut World) -> Audit {
    world.finish_here(interlock::gateway::Stopped::Clean)
}

#[test]
fn what_a_surface_redacts_is_nowhere_in_log_logs_or_metrics() {
    // The real program, at its most talkative.
    let mut world = setup().start_program();
    assert_eq!(pay(&world, "permit").status, 200);
    let denied = pay(&world, "deny");
    assert_eq!(denied.status, 403);
    // The caller is told as ever: these are its own values.
    assert!(denied.text().contains("pat!ent") && denied.text().contains(IBAN), "{}", denied.text());
    assert_eq!(pay(&world, "fail").status, 503);
    // The engine panics over a unit that is no ASCII, in words that repeat the whole text.
    let unit = format!(r#"{{"iban":"5\u00fc0{IBAN}"}}"#);
    let panicked = ask(&world, "POST", "/v1/payments", "panic", "application/json", &unit);
    assert_eq!((panicked.status, panicked.reason()), (503, "evaluation_panic".into()));
    wait_for(|| world.program_log().contains("a panic"));
    let fields = [
        (":method", "POST"),
        (":path", "/v1/payments?email=m!il@x"),
        (":scheme", "http"),
        (":authority", "api.test"),
        ("x-api-key", KEY),
        ("x-want", "fail"),
        ("x-patient-id", "pat!ent"),
        ("content-type", "application/json"),
    ];
    let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let failed = Http2::connect(world.address()).ask(&fields, Some(payment().as_bytes()));
    assert_eq!(failed.reason().as_deref(), Some("evaluation_error"));
    assert_eq!(ask(&world, "GET", "/v1/people/per!son", "list", "", "").status, 200);
    let form = format!("pin={}&iban=x", PIN.replace('#', "%23"));
    assert_eq!(
        ask(&world, "POST", "/v1/forms", "permit", "application/x-www-form-urlencoded", &form).status,
        200
    );
    assert_eq!(ask(&world, "POST", "/v1/verbatim", "permit", "application/json", &payment()).status, 200);
    assert_eq!(ask(&world, "PUT", "/v1/images", "list", "image/png", "pix!els").status, 200);
    assert_eq!(
        ask(&world, "POST", "/v1/letters", "list", "application/json", r#"{"a":"let!ter"}"#).status,
        200
    );
    // Refused before policy: the culprit's name and the body's digest would say too much.
    let broken = format!(r#"{{"{IBAN}":{{"a":1,"a":2}}}}"#);
    assert_eq!(ask(&world, "POST", "/v1/payments", "permit", "application/json", &broken).status, 400);
    assert_eq!(ask(&world, "POST", "/v1/payments?per!son=1&per!son=2", "permit", "", "").status, 400);
    let twice = "per!son=1&per!son=2";
    assert_eq!(
        ask(&world, "POST", "/v1/forms", "permit", "application/x-www-form-urlencoded", twice).status,
        400
    );
    // A value where no pointer leads, on a route whose schema knows its one place.
    let elsewhere = format!(r#"{{"name":["{PIN}"]}}"#);
    assert_eq!(ask(&world, "POST", "/v1/shaped", "permit", "application/json", &elsewhere).status, 422);

    let audit = finish(&mut world);
    assert_eq!(audit.effects, 6);
    assert_eq!(audit.refusals().len(), 4);
    for refusal in audit.refusals() {
        assert_eq!(refusal.received_digest, None, "{refusal:?}");
    }
    for decision in audit.decisions() {
        let request = &decision.request;
        assert_eq!((request.digest, request.body_digest, request.received_digest), (None, None, None));
        assert_eq!(request.target, None, "the query is redacted on every route of this surface");
        assert_eq!(request.disclosures.len(), 4);
        assert!(request.disclosures.is_sorted());
        assert!(decision.reasons.iter().all(|r| r.message.is_none() && r.detail.is_none()), "{decision:?}");
    }
    assert_eq!(&*audit.decisions()[1].reasons[0].code, "redacted");
    for outcome in audit.outcomes() {
        let sent = outcome.sent.as_ref().expect("sent");
        assert_eq!((sent.digest, sent.disclosures.len()), (None, 1));
        let response = outcome.response.as_ref().expect("answered");
        assert_eq!((response.body_digest, response.disclosures.len()), (None, 1));
    }
}

/// Every digest that the log holds, in either form.
fn digests(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':');
    text.split(|c| !is_part(c)).filter(|word| word.len() == 43 || word.starts_with("sha-256:")).collect()
}

#[test]
fn a_small_value_cannot_be_guessed_without_the_key_and_can_with_it() {
    let mut world = setup().start();
    let body = |pin: u32| format!(r#"{{"iban":"x","pin":"{pin:04}"}}"#);
    assert_eq!(ask(&world, "POST", "/v1/payments", "permit", "application/json", &body(4711)).status, 200);
    finish(&mut world);
    let message = world.upstream.the_one().without_secret(SLOT.secret, SLOT.name);
    let (stored, text) = stored(&world.path("ledger"));
    let held = digests(&text);
    assert!(held.len() > 10, "{held:?}");
    let id = stored[0].decision.id;
    // All that is public about the salts: how they are made, and everything but the key.
    let guessed_keys = [[0; 32], *Digest::of(id.as_bytes()).as_bytes()];
    let salters: Vec<_> =
        guessed_keys.iter().map(|key| EpochKey::new(Zeroizing::new(*key)).salter(id)).collect();
    let mut guesses = 0;
    let mut is_held = |digest: &str| {
        guesses += 1;
        held.contains(digest)
    };
    let key = salts::load(&world.path("salts"), Epoch(1)).expect("kept").salter(id);
    let mut found = Vec::new();
    for pin in 0..10_000 {
        let text = body(pin);
        let whole = String::from_utf8(message.clone()).expect("UTF-8").replace(&body(4711), &text);
        for plain in [text.as_bytes(), whole.as_bytes(), format!("{pin:04}").as_bytes()] {
            assert!(!is_held(&Digest::of(plain).to_string()), "{pin}");
        }
        let value = || Json::string(&format!("{pin:04}"));
        let mut salts: Vec<std::sync::Arc<str>> = vec!["".into(), id.to_string().into()];
        salts.extend(salters.iter().map(|salter| salter.salt("/request/body/pin")));
        for salt in salts {
            assert!(!is_held(Disclosure::of_member(&salt, "pin", value()).digest().as_str()), "{pin}");
        }
        if is_held(Disclosure::of_member(&key.salt("/request/body/pin"), "pin", value()).digest().as_str()) {
            found.push(pin);
        }
    }
    assert_eq!((guesses, found), (80_000, vec![4711]), "the same search finds it with the key");
    // The policy input as it was judged: its digest would be one more to guess by.
    let digest = Digest::of(&message).to_string();
    let disclosures = [("pin", "4711"), ("iban", "x")]
        .map(|(name, value)| disclosed(&world, id, &format!("/request/body/{name}"), &["--text", value]));
    let rest = [
        ("/request/headers/x-patient-id", "pat!ent"),
        ("/actor/claims/phone", "+49!151"),
        ("/request/path", "/v1/payments"),
        ("/request/digest", &digest),
    ]
    .map(|(pointer, value)| disclosed(&world, id, pointer, &["--text", value]));
    let lines = [&disclosures[..], &rest].concat().join("\n");
    let restored =
        Disclosures::parse(&lines).expect("lines").restore(stored[0].evidence.clone()).expect("whole");
    assert!(!held.contains(Digest::of(&json::write(&restored.value)).to_string().as_str()));
}

#[test]
fn whoever_has_the_values_and_the_key_can_disclose_them_one_by_one() {
    let mut world = setup().start();
    assert_eq!(pay(&world, "permit").status, 200);
    finish(&mut world);
    let capture = world.upstream.the_one();
    let digest = capture.digest(SLOT.secret, SLOT.name).to_string();
    let (stored, _) = stored(&world.path("ledger"));
    let id = stored[0].decision.id;

    // Of the message: the same line opens the decision, its outcome and its evidence.
    world.write("message", &String::from_utf8_lossy(&capture.without_secret(SLOT.secret, SLOT.name)), 0o644);
    let file = world.path("message").display().to_string();
    let output = disclose(&world, id, places::DIGEST, &["--digest-of", &file]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success()
            && said.contains("evidence of entry 2; the decision, entry 2; the outcome, entry 3"),
        "{said}"
    );
    // Of the bodies, from their bytes.
    world.write("body", &payment(), 0o644);
    let file = world.path("body").display().to_string();
    for pointer in [places::BODY_DIGEST, places::RECEIVED_DIGEST] {
        disclosed(&world, id, pointer, &["--digest-of", &file]);
    }
    disclosed(&world, id, places::TARGET, &["--text", "/v1/payments?email=m%21il%40x&n=1"]);
    let answer = Digest::of(br#"{"done":true}"#).to_string();
    disclosed(&world, id, places::RESPONSE_BODY_DIGEST, &["--text", &answer]);
    // A value from a file, and a wrong one, a wrong place, a wrong receipt.
    world.write("value.json", &format!("\"{PIN}\""), 0o600);
    let file = world.path("value.json").display().to_string();
    let line = disclosed(&world, id, "/request/body/pin", &["--value-file", &file]);
    assert_eq!(line, disclosed(&world, id, "/request/body/pin", &["--text", PIN]));
    for (pointer, value) in [
        ("/request/body/pin", "#7!3"),
        ("/request/body/nip", PIN),
        ("/request/body/x/pin", PIN),
        ("/request/body/pin/", PIN),
        (places::BODY_DIGEST, &digest),
    ] {
        let output = disclose(&world, id, pointer, &["--text", value]);
        assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{pointer} {value}");
    }

    let lines = payment_disclosures(&world, &stored[0], &digest);
    let all = Disclosures::parse(&lines.join("\n")).expect("disclosures");
    let restored = all.restore(stored[0].evidence.clone()).expect("whole");
    let body = restored
        .value
        .as_object()
        .and_then(|o| o.member("request"))
        .and_then(|r| r.as_object()?.member("body"));
    assert_eq!(json::write(body.expect("a body")), payment().into_bytes());
    // With them the decision is replayed, its reasons as the leaf holds them; without, it is not.
    let (log, key) = (world.path("ledger").display().to_string(), world.key.to_string());
    let replay = |more: &[&str]| {
        let args = [&["replay", "--log", &log, "--key", &key], more].concat();
        let ended = Command::new(env!("CARGO_BIN_EXE_interlock")).args(args).output().expect("runs");
        (ended.status.code(), String::from_utf8(ended.stdout).expect("UTF-8"))
    };
    world.write("disclosures", &lines.join("\n"), 0o600);
    let (code, said) = replay(&["--disclosures", &world.path("disclosures").display().to_string()]);
    assert!(code == Some(0) && said.contains("replayed 1 of 1 decisions exactly"), "{said}");
    let (code, said) = replay(&[]);
    assert!(code == Some(3) && said.contains("input_redacted") && said.contains("/request/body/"), "{said}");
    // One less, and it is named.
    let some = Disclosures::parse(&lines[1..].join("\n")).expect("disclosures");
    let missing = some.restore(stored[0].evidence.clone()).expect_err("one is missing");
    assert!(
        matches!(&missing, Unrestored::Missing { pointers, more: 0 } if pointers.len() == 1 && pointers[0].starts_with("/request/body/_sd/")),
        "{missing}"
    );
    // A replay is exact with all of them, and says so when it cannot be.
    let replay = |disclosures: &[String]| {
        world.write("disclosures", &disclosures.join("\n"), 0o600);
        let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
        command.arg("replay").arg("--log").arg(world.path("ledger")).args(["--key", &world.key.to_string()]);
        let output =
            command.arg("--disclosures").arg(world.path("disclosures")).output().expect("the program runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = replay(&lines);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = replay(&lines[1..]);
    assert!(code == Some(3) && text.contains("/request/body/_sd/"), "{text}");

    // An auditor without log and key holds the same lines against receipt and evidence.
    let leaves = world.leaves();
    let is_it = |leaf: &Vec<u8>| String::from_utf8_lossy(leaf).contains(&format!("\"id\":\"{id}\""));
    let at = leaves.iter().position(is_it).expect("its leaf");
    let note = std::fs::read_to_string(world.path("ledger/checkpoint")).expect("signed");
    world.write("proof", &proof_in(&leaves, at as u64, note).to_string(), 0o600);
    world.write("receipt", &String::from_utf8_lossy(&leaves[at]), 0o600);
    world.write("evidence", &String::from_utf8_lossy(&json::write(&stored[0].evidence)), 0o600);
    let verify = |disclosures: &[String]| {
        world.write("disclosures", &disclosures.join("\n"), 0o600);
        let mut command = Command::new(env!("CARGO_BIN_EXE_interlock-verify"));
        for (flag, file) in ["receipt", "proof", "disclosures", "evidence"]
            .map(|file| (format!("--{file}"), world.path(file)))
        {
            command.arg(flag).arg(file);
        }
        let output = command.args(["--key", &key]).output().expect("runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let target = disclosed(&world, id, places::TARGET, &["--text", "/v1/payments?email=m%21il%40x&n=1"]);
    let (code, told) = verify(&[lines.clone(), vec![target]].concat());
    assert_eq!(code, Some(0), "{told}");
    for pointer in ["evidence /request/body/items/1/account: \"acc#2\"", "leaf /request/target: "] {
        assert!(told.contains(pointer), "{pointer} in {told}");
    }
    let mut strange = lines.clone();
    strange[0] = Disclosure::of_member("c2FsdA", "pin", Json::string(PIN)).as_str().to_owned();
    let (code, told) = verify(&strange);
    assert!(code == Some(18) && told.contains("nowhere  pin ("), "{told}");

    // The key is destroyed: nobody can make a disclosure any more; those that were made still hold.
    std::fs::remove_file(salts::file_of(&world.path("salts"), Epoch(1))).expect("removed");
    let output = disclose(&world, id, "/request/body/pin", &["--text", PIN]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("no key of epoch 1"), "{said}");
    assert!(all.restore(stored[0].evidence.clone()).is_ok());
}

#[test]
fn the_sd_jwt_library_reads_our_disclosures() {
    let mut world = setup().start();
    assert_eq!(pay(&world, "permit").status, 200);
    finish(&mut world);
    let digest = world.upstream.the_one().digest(SLOT.secret, SLOT.name).to_string();
    let (stored, _) = stored(&world.path("ledger"));
    let mut lines = payment_disclosures(&world, &stored[0], &digest);
    let unpacked = |lines: &[String]| {
        let evidence = String::from_utf8(json::write(&stored[0].evidence)).expect("UTF-8");
        let disclosures = serde_json::to_string(lines).expect("JSON");
        world.write(
            "sd-jwt.json",
            &format!(r#"{{"evidence":{evidence},"disclosures":{disclosures}}}"#),
            0o600,
        );
        let python = root().join("target/test-venv/bin/python");
        assert!(python.exists(), "run `make test`, which installs what the tests need");
        let mut command = Command::new(python);
        command.arg(root().join("tests/clients/sd_jwt_python.py")).arg(world.path("sd-jwt.json"));
        let output = command.output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json::parse(String::from_utf8_lossy(&output.stdout).trim_end().as_bytes(), json::Bounds::BODY)
            .expect("JSON")
    };
    let all = Disclosures::parse(&lines.join("\n")).expect("disclosures");
    let ours = all.restore(stored[0].evidence.clone()).expect("whole");
    assert_eq!(unpacked(&lines), ours.value);
    assert!(String::from_utf8(json::write(&ours.value)).expect("UTF-8").contains(PIN));
    // Without the disclosure of an element, it leaves out that element and nothing else.
    lines.remove(4);
    let text = String::from_utf8(json::write(&unpacked(&lines))).expect("UTF-8");
    let whole = String::from_utf8(json::write(&ours.value)).expect("UTF-8");
    assert_eq!(text, whole.replace(r#"["co!de",1234]"#, "[1234]"));
}

#[test]
fn a_name_that_stands_for_a_redacted_value_is_refused() {
    let world = setup().start();
    for body in [r#"{"_sd":["x"]}"#, r#"{"a":[{"...":"x"}]}"#] {
        let answer = ask(&world, "POST", "/v1/payments", "permit", "application/json", body);
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("name_reserved"), "{}", answer.text());
    }
    let audit = world.finish();
    assert_eq!((audit.effects, audit.refusals().len()), (0, 2));
}

#[test]
fn each_run_has_its_own_key_and_starts_only_with_one() {
    let mut world = setup().start_program();
    assert_eq!(pay(&world, "permit").status, 200);
    finish(&mut world);
    world.run_program(&[]);
    assert_eq!(pay(&world, "permit").status, 200);
    finish(&mut world);
    let (stored, text) = stored(&world.path("ledger"));
    // The same request twice, and no digest of a value in common.
    assert_eq!((stored.len(), stored[0].decision.epoch, stored[1].decision.epoch), (2, Epoch(1), Epoch(2)));
    let sd = |s: &Stored| s.decision.request.disclosures.clone();
    assert!(sd(&stored[0]).iter().all(|digest| !sd(&stored[1]).contains(digest)));
    assert!(digests(&text).len() > 20);
    for epoch in [1, 2] {
        let key = std::fs::read(salts::file_of(&world.path("salts"), Epoch(epoch))).expect("there");
        assert_eq!(key.len(), 32);
    }
    // A file in its place.
    std::fs::rename(world.path("salts"), world.path("kept")).expect("renamed");
    world.write("salts", "", 0o600);
    world.start_without_waiting();
    let (status, log) = world.wait_for_end();
    assert!(status.code() == Some(5) && log.contains("keys of redacted values"), "{status}: {log}");
    std::fs::remove_file(world.path("salts")).expect("removed");
    std::fs::rename(world.path("kept"), world.path("salts")).expect("renamed");
    world.audit();
}
