//! Official clients, unmodified: told where the API is and which key to use, and nothing else.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::world::root;
use crate::support::{Gate, KEY, SLOT, Script, Setup, Step, World};

/// Permits what a payments agent does, up to an amount; the agent names itself with the API's own header.
const PAYMENTS: &str = r#"package gateway.test

amount := to_number(input.request.body.amount) if input.action == "intent.create"

permit contains "within_limit" if {
	input.action == "intent.create"
	input.request.body.currency == "usd"
	amount <= 100000
}

permit contains "reads" if input.action in {"intent.list", "intent.read", "chat.create"}
"#;

const ROUTES: &str = r#"
      - { action: intent.create, method: POST, path: /v1/payment_intents, body: form, headers: [idempotency-key, stripe-version, user-agent], idempotency_key: required }
      - { action: intent.list, method: GET, path: /v1/payment_intents, body: none, headers: [stripe-version, user-agent] }
      - { action: intent.read, method: GET, path: "/v1/payment_intents/{id}", body: none, headers: [stripe-version, user-agent] }
      - { action: chat.create, method: POST, path: /v1/chat/completions, body: json, headers: [accept, user-agent] }
"#;

fn payments() -> World {
    let world = Setup { policy: PAYMENTS.into(), routes: ROUTES.into(), ..Setup::default() }.start();
    let intent = r#"{"id":"pi_1","object":"payment_intent","amount":1999}"#;
    world.upstream.on("/v1/payment_intents/pi_1", Script::ok(intent));
    world.upstream.next(Script::ok(intent));
    world.upstream.next(Script::ok(&format!(
        r#"{{"object":"list","url":"/v1/payment_intents","has_more":false,"data":[{intent},{intent}]}}"#
    )));
    world
}

/// A tool that `make test` installs.
fn installed(path: &str) -> PathBuf {
    let path = root().join("target").join(path);
    assert!(
        path.exists(),
        "{} is missing: run `make test`, which installs what the tests need",
        path.display()
    );
    path
}

pub fn python(script: &str) -> Command {
    let mut command = Command::new(installed("test-venv/bin/python"));
    command.arg(root().join("tests/clients").join(script));
    command
}

fn node(script: &str) -> Command {
    installed("test-node/node_modules/stripe");
    let mut command = Command::new("node");
    command.arg(root().join("tests/clients").join(script));
    command.env("NODE_PATH", root().join("target/test-node/node_modules"));
    command
}

/// The last line it prints, as JSON.
fn run(command: &mut Command) -> serde_json::Value {
    // No proxy of the machine may come between.
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run `make test`"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {text} {errors}"))
}

fn stripe_works_unmodified(mut command: Command) {
    let world = payments();
    let found = run(command.arg(format!("http://{}", world.address())).arg(KEY));
    assert_eq!((&found["id"], &found["listed"], &found["read"]), (&"pi_1".into(), &2.into(), &"pi_1".into()));
    // A refusal is a 403 that the library does not retry.
    assert_eq!(found["denied"]["status"], 403, "{found}");
    let arrived = world.upstream.captures();
    assert_eq!(arrived.len(), 3);
    let create = &arrived[0];
    let body = String::from_utf8_lossy(create.body()).into_owned();
    for pair in ["amount=1999", "metadata%5Border%5D=6735", "payment_method_types%5B0%5D=card"] {
        assert!(body.split('&').any(|p| p == pair), "{pair} in {body}");
    }
    assert_eq!(create.header("idempotency-key").as_deref(), Some("order-6735"));
    assert!(arrived[1].head().starts_with("GET /v1/payment_intents?"), "{}", arrived[1].head());
    for capture in &arrived {
        assert_eq!(capture.header("authorization"), Some(format!("Bearer {}", SLOT.secret)));
        assert!(!capture.head().contains(KEY));
    }
    let audit = world.finish();
    assert_eq!(audit.verdicts(), ["PERMIT", "PERMIT", "PERMIT", "SILENCE"]);
    let keys: Vec<_> =
        audit.decisions().iter().map(|d| d.idempotency_key.as_ref().map(|k| k.as_str().len())).collect();
    assert!(keys[0].is_some() && keys[3].is_some(), "{keys:?}");
}

#[test]
fn the_stripe_library_for_python_works_unmodified() {
    stripe_works_unmodified(python("stripe_python.py"));
}

#[test]
fn the_stripe_library_for_node_works_unmodified() {
    stripe_works_unmodified(node("stripe_node.cjs"));
}

#[test]
fn the_openai_library_streams_as_the_model_speaks() {
    let world = payments();
    let gate = Gate::default();
    let event = |text: &str| {
        let data = format!(
            "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"model-1\",\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
        );
        Step::Write(format!("{:x}\r\n{data}\r\n", data.len()).into_bytes())
    };
    world.upstream.on(
        "/v1/chat/completions",
        Script::steps([
            Step::Write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                    .to_vec(),
            ),
            event("no "),
            Step::Wait(gate.clone()),
            event("permit, "),
            event("no execution"),
            Step::Write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_vec()),
        ]),
    );
    let mut command = python("openai_python.py");
    command.arg(format!("http://{}", world.address())).arg(KEY).env("NO_PROXY", "*").env("no_proxy", "*");
    let mut child = command.stdout(Stdio::piped()).spawn().expect("python starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "\"no \"");
    // Only now does the upstream say more.
    gate.open();
    assert_eq!((next().as_str(), next().as_str()), ("\"permit, \"", "\"no execution\""));
    assert_eq!(next(), r#"{"text": "no permit, no execution"}"#);
    assert!(child.wait().expect("a child").success());
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["confirmed"], 1));
}

fn httpx_works(version: &str, called: &str) {
    let world = Setup { listener_tls: true, ..Setup::default() }.start();
    let mut command = python("httpx_python.py");
    command.arg(format!("https://localhost:{}", world.address().port())).arg(KEY);
    let found = run(command.arg(world.path("tls.crt")).arg(version));
    let expected = serde_json::json!([
        [200, called, null],
        [403, called, "policy_denied"],
        [403, called, "policy_denied"],
        [200, called, null],
        [200, called, null]
    ]);
    assert_eq!(found, expected);
    let arrived = world.upstream.captures();
    assert!(
        arrived[0].head().starts_with("POST /v1/things?a=b%20c&n=1 HTTP/1.1\r\n"),
        "{}",
        arrived[0].head()
    );
    assert_eq!(arrived[0].body(), "{\"amount\":10,\"text\":\"Gr\u{fc}\u{df}e\"}".as_bytes());
    assert_eq!(arrived[2].body().len(), 100_000);
    world.finish();
}

#[test]
fn httpx_works_over_http_1() {
    httpx_works("1", "HTTP/1.1");
}

#[test]
fn httpx_works_over_http_2() {
    httpx_works("2", "HTTP/2");
}

#[test]
fn curl_works_over_every_version() {
    let world = Setup { listener_tls: true, ..Setup::default() }.start();
    for version in ["--http1.1", "--http2"] {
        let mut command = Command::new("curl");
        command.args(["-sS", version, "--noproxy", "*", "--cacert"]).arg(world.path("tls.crt"));
        command.args(["-H", &format!("x-api-key: {KEY}"), "-H", "x-want: permit"]);
        command.args(["-H", "content-type: application/json", "-d", r#"{"amount": 3}"#]);
        let found = run(command.arg(format!("https://localhost:{}/v1/things", world.address().port())));
        assert_eq!(found["done"], true, "{version}");
    }
    let audit = world.finish();
    assert_eq!(audit.effects, 2);
    assert_eq!(audit.decisions()[0].request.digest, audit.decisions()[1].request.digest);
}
