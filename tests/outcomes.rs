//! What became of a permitted request, when things go wrong between the gateway and the upstream.

use std::net::TcpListener;
use std::time::Duration;

use crate::support::{KEY, Reads, Script, Setup, Step, World, request};

const BODY: &str = r#"{"amount": 10}"#;

#[test]
fn an_upstream_that_dies_after_bytes_left_is_indeterminate_and_nothing_is_sent_again() {
    let world = World::start();
    // With a connection in the pool first, so that the exchange begins on a used one.
    assert_eq!(world.ask("POST", "/v1/things", "permit", BODY).status, 200);
    world.upstream.next(Script::steps([Step::Close]));
    let answer = world.ask("POST", "/v1/things", "permit", BODY);
    answer.assert_refused(504, "upstream_silent");
    assert_eq!(
        (&answer.json()["outcome"], &answer.json()["decision"]),
        (&"indeterminate".into(), &"PERMIT".into())
    );
    assert_eq!(answer.header("retry-after"), None, "nobody is invited to send it again");
    assert_eq!(world.upstream.captures().len(), 2, "it was sent once");
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["confirmed", "indeterminate"]);
}

#[test]
fn an_upstream_that_closes_in_the_middle_of_the_request_is_indeterminate() {
    let world = World::start();
    world.upstream.next(Script::steps([Step::Close]).reads(Reads::Head));
    let body = vec![7; 4 * 1024 * 1024];
    let answer = world.ask("PUT", "/v1/blobs/b", "permit", &body);
    answer.assert_refused(504, "upstream_silent");
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["indeterminate"], 1));
}

#[test]
fn an_idle_connection_that_has_closed_is_decided_again_on_a_new_lease() {
    let world = World::start();
    for round in 0..20 {
        // Answers, then closes: the gateway has it in its pool, and may or may not have seen the end.
        world.upstream.next(Script::ok("{}").then(Step::Close));
        let answer = world.ask("POST", "/v1/things", "permit", BODY);
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let audit = world.finish();
    assert_eq!(audit.effects, 20, "one effect for each request");
    assert_eq!(audit.statuses().iter().filter(|s| **s == "confirmed").count(), 20);
}

#[test]
fn an_upstream_that_cannot_be_reached_is_a_502_and_a_refusal_leaf() {
    let port = {
        let closed = TcpListener::bind("127.0.0.1:0").expect("a free port");
        closed.local_addr().expect("bound").port()
    };
    let world = Setup { upstream_url: Some(format!("http://127.0.0.1:{port}")), ..Setup::default() }.start();
    let answer = world.ask("POST", "/v1/things", "permit", BODY);
    answer.assert_refused(502, "upstream_unreachable");
    assert_eq!(answer.json()["outcome"], "not_sent");
    let audit = world.finish();
    assert_eq!((audit.decisions().len(), audit.refusals().len()), (0, 1));
    assert_eq!(&*audit.refusals()[0].reason, "upstream_unreachable");
}

#[test]
fn an_upstream_that_never_answers_is_a_504() {
    let world = Setup { upstream: &["response_head_ms_max: 200"], ..Setup::default() }.start();
    world.upstream.next(Script::steps([Step::Hang]));
    world.ask("POST", "/v1/things", "permit", BODY).assert_refused(504, "upstream_silent");
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["indeterminate"], 1));
}

#[test]
fn a_cut_answer_is_an_error_and_not_a_short_body() {
    for (bytes, received) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this", "only this"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", "hello"),
    ] {
        let world = World::start();
        // The pause lets the head and the first piece pass before the cut.
        let script = Script::answer(bytes).then(Step::Sleep(Duration::from_millis(100))).then(Step::Close);
        world.upstream.next(script);
        let mut client = world.client();
        client.send(request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", "permit")], ""));
        // If the answer breaks at once, there may be none at all; there is never a whole one.
        if let Some(answer) = client.try_response(false) {
            assert_eq!(answer.status, 200);
            assert!(!answer.is_whole, "{answer:?}");
            assert!(received.starts_with(&answer.text()), "{answer:?}");
        }
        let audit = world.finish();
        assert_eq!(audit.statuses(), ["indeterminate"]);
        assert_eq!(audit.outcomes()[0].cause.as_deref(), Some("answer_cut"));
    }
}

#[test]
fn an_answer_that_stalls_is_cut() {
    let world = Setup { upstream: &["response_idle_ms_max: 200"], ..Setup::default() }.start();
    world
        .upstream
        .next(Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").then(Step::Hang));
    let answer = world.ask("GET", "/v1/things", "permit", "");
    assert!(answer.status == 200 && !answer.is_whole, "{answer:?}");
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["indeterminate"]);
}

#[test]
fn an_answer_that_is_not_http_is_a_504() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 20x OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "\0\0\0\0",
        // Valid, and still not an answer to what was asked: no coding but `chunked` is understood here.
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab",
    ] {
        let world = World::start();
        world.upstream.next(Script::answer(garbage).then(Step::Close));
        let answer = world.ask("GET", "/v1/things", "permit", "");
        assert_eq!(answer.status, 504, "{garbage:?}: {}", answer.text());
        assert_eq!(answer.json()["outcome"], "indeterminate");
        let audit = world.finish();
        assert_eq!((audit.statuses(), audit.effects), (vec!["indeterminate"], 1), "{garbage:?}");
    }
}

#[test]
fn a_success_before_the_request_was_read_confirms_nothing() {
    let world = World::start();
    let early = Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").reads(Reads::Head);
    world.upstream.next(early.then(Step::Sleep(Duration::from_millis(200))).then(Step::Close));
    let body = vec![7; 16 * 1024 * 1024];
    let answer = world.ask("PUT", "/v1/blobs/b", "permit", &body);
    assert!([200, 504].contains(&answer.status), "{}", answer.text());
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["indeterminate"], 1));
}

#[test]
fn an_early_refusal_by_the_upstream_reaches_the_caller() {
    let world = World::start();
    let early = Script::answer("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
    world.upstream.next(early.reads(Reads::Head).then(Step::ReadRest).then(Step::Close));
    let answer = world.ask("PUT", "/v1/blobs/b", "permit", vec![7; 4 * 1024 * 1024]);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.header("interlock-receipt").is_some(), "it is the upstream's, not ours");
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["failed"], 1));
}

#[test]
fn an_upstream_that_speaks_unasked_loses_its_connection() {
    let world = World::start();
    // More bytes than the answer: the next exchange must not begin with them.
    world.upstream.next(Script::answer(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
    ));
    let first = world.ask("GET", "/v1/things", "permit", "");
    assert_eq!(first.text(), "{}");
    std::thread::sleep(Duration::from_millis(50));
    let second = world.ask("GET", "/v1/things", "permit", "");
    assert_ne!(second.text(), "forged", "an answer belongs to its own request");
    world.finish();
}

#[test]
fn connections_are_used_again() {
    let world = World::start();
    let mut client = world.client();
    for _ in 0..10 {
        client.send(request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", "permit")], ""));
        assert_eq!(client.response().status, 200);
        // The agent has the whole answer a moment before the connection is given back.
        world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    }
    assert_eq!(world.upstream.connections(), 1);
    world.finish();
}

#[test]
fn all_leases_taken_is_a_503_without_an_effect() {
    let world = Setup { upstream: &["leases_max: 1", "lease_wait_ms_max: 100"], ..Setup::default() }.start();
    let gate = crate::support::Gate::default();
    world.upstream.next(
        Script::steps([Step::Wait(gate.clone())])
            .then(Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec())),
    );
    let mut first = world.client();
    first.send(request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", "permit")], ""));
    world.upstream.wait_for(1);
    world.ask("GET", "/v1/things", "permit", "").assert_refused(503, "upstream_busy");
    gate.open();
    assert_eq!(first.response().status, 200);
    let audit = world.finish();
    assert_eq!(audit.effects, 1);
}
