//! The upstream's answer reaches the caller as it came.

use std::time::Duration;

use crate::support::{Gate, KEY, Script, Step, World, request};

const BIG: usize = 32 * 1024 * 1024;

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn get(target: &str) -> Vec<u8> {
    request("GET", target, &[("x-api-key", KEY), ("x-want", "permit")], "")
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..65_521_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    block.iter().copied().cycle().take(len).collect()
}

#[test]
fn events_are_passed_on_before_the_next_one_is_sent() {
    let world = World::start();
    let gate = Gate::default();
    world.upstream.next(Script::steps([
        Step::Write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
        ),
        Step::Write(chunk("data: first\n\n")),
        // The second is sent only after the first has reached the client.
        Step::Wait(gate.clone()),
        Step::Write(chunk("data: second\n\n")),
        Step::Write(b"0\r\n\r\n".to_vec()),
    ]));
    let mut client = world.client();
    client.send(get("/v1/things"));
    let head = client.read_head().expect("a head");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert!(head.header("interlock-receipt").is_some());
    client.read_until("data: first\n\n").expect("the first event");
    gate.open();
    client.read_until("data: second\n\n\r\n0\r\n\r\n").expect("the second event and the end");
    let audit = world.finish();
    let seen = audit.outcomes()[0].response.clone().expect("an answer");
    assert_eq!((seen.status_code, seen.size), (200, 27));
}

#[test]
fn an_announced_body_is_passed_on_piece_by_piece() {
    let world = World::start();
    let gate = Gate::default();
    world.upstream.next(Script::steps([
        Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst".to_vec()),
        Step::Wait(gate.clone()),
        Step::Write(b"final".to_vec()),
    ]));
    let mut client = world.client();
    client.send(get("/v1/things"));
    assert_eq!(client.read_head().expect("a head").header("content-length"), Some("10"));
    client.read_until("first").expect("the first piece");
    gate.open();
    client.read_until("final").expect("the rest");
    world.finish();
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    let world = World::start();
    let mut client = world.client();
    world.upstream.next(Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"));
    client.send(request("HEAD", "/v1/things", &[("x-api-key", KEY), ("x-want", "permit")], ""));
    let answer = client.response_to_head();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    world.upstream.next(Script::answer("HTTP/1.1 204 No Content\r\n\r\n"));
    client.send(request("DELETE", "/v1/things/7", &[("x-api-key", KEY), ("x-want", "permit")], ""));
    assert_eq!(client.response().status, 204);
    world
        .upstream
        .next(Script::answer("HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\ncontent-length: 99\r\n\r\n"));
    client.send(get("/v1/things"));
    let answer = client.response();
    assert_eq!((answer.status, answer.header("etag")), (304, Some("\"v1\"")));
    world.upstream.next(Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    client.send(get("/v1/things"));
    assert_eq!(client.response().body, b"");
    client.send(get("/v1/things"));
    assert_eq!(client.response().text(), r#"{"done":true}"#);
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["confirmed"; 5]);
    assert!(audit.outcomes().iter().take(4).all(|o| o.response.as_ref().is_some_and(|r| r.size == 0)));
}

#[test]
fn interim_answers_before_the_final_one_do_no_harm() {
    let world = World::start();
    world.upstream.next(Script::answer(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal",
    ));
    let mut client = world.client();
    for expected in ["final", r#"{"done":true}"#] {
        client.send(get("/v1/things"));
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (200, expected));
    }
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["confirmed", "confirmed"]);
}

#[test]
fn big_bodies_pass_whole_in_both_directions() {
    let world = World::start();
    let body = pattern(BIG);
    let digest = interlock::model::Digest::of(&body);
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(&body);
    world.upstream.next(Script::answer(bytes));
    let answer = world.ask("PUT", "/v1/blobs/big", "permit", &body);
    assert_eq!(answer.status, 200);
    assert!(answer.is_whole && interlock::model::Digest::of(&answer.body) == digest);
    assert_eq!(interlock::model::Digest::of(world.upstream.the_one().body()), digest);
    let audit = world.finish();
    let seen = audit.outcomes()[0].response.clone().expect("an answer");
    assert_eq!((seen.size, seen.body_digest), (BIG as u64, Some(digest)));
    assert_eq!(audit.decisions()[0].request.body_digest, Some(digest));
}

#[test]
fn an_encoded_answer_is_not_touched() {
    let world = World::start();
    let gzip =
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x4a, 6, 0, 0xc2, 0x41, 0x24, 0x35, 3, 0, 0, 0];
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", gzip.len());
    world.upstream.next(Script::answer([head.as_bytes(), &gzip].concat()));
    let answer = world.ask("GET", "/v1/things", "permit", "");
    assert_eq!((answer.body.as_slice(), answer.header("content-encoding")), (&gzip[..], Some("gzip")));
    world.finish();
}

#[test]
fn an_upstream_cannot_speak_for_the_gateway() {
    let world = World::start();
    world.upstream.next(Script::answer(
        "HTTP/1.1 200 OK\r\ninterlock-receipt: id=\"forged\", index=1, decision=PERMIT\r\nset-cookie: a=1\r\n\
         set-cookie: b=2\r\nconnection: x-private\r\nx-private: 1\r\nkeep-alive: timeout=5\r\ncontent-length: 2\r\n\r\n{}",
    ));
    let answer = world.ask("GET", "/v1/things", "permit", "");
    let values = |name: &str| answer.headers.iter().filter(|(n, _)| n == name).count();
    assert_eq!((values("interlock-receipt"), values("set-cookie")), (1, 2));
    assert!(!answer.header("interlock-receipt").expect("one").contains("forged"));
    assert_eq!((values("x-private"), values("keep-alive")), (0, 0), "{:?}", answer.headers);
    world.finish();
}

#[test]
fn trailers_do_not_disturb_the_body() {
    let world = World::start();
    world.upstream.next(Script::answer(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
    ));
    let answer = world.ask("GET", "/v1/things", "permit", "");
    assert!(answer.is_whole && answer.text() == "hello", "{answer:?}");
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["confirmed"]);
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole() {
    let world = World::start();
    world.upstream.next(Script::answer("HTTP/1.1 200 OK\r\n\r\nto the end").then(Step::Close));
    let answer = world.ask("GET", "/v1/things", "permit", "");
    assert!(answer.is_whole && answer.text() == "to the end", "{answer:?}");
    world.upstream.next(
        Script::answer("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            .then(Step::Close),
    );
    assert_eq!(world.ask("GET", "/v1/things", "permit", "").text(), "{}");
    assert_eq!(world.upstream.connections(), 2, "a connection that was to be closed is not used again");
    world.finish();
}

#[test]
fn redirects_and_errors_are_passed_on_and_never_followed() {
    let world = World::start();
    let answers = [
        (302, "confirmed"),
        (404, "failed"),
        (429, "failed"),
        (500, "indeterminate"),
        (503, "indeterminate"),
    ];
    for (status, _) in answers {
        world.upstream.next(Script::answer(format!(
            "HTTP/1.1 {status} X\r\nlocation: /v1/things/1\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{{}}"
        )));
        let answer = world.ask("GET", "/v1/things", "permit", "");
        assert_eq!((answer.status, answer.header("location")), (status, Some("/v1/things/1")));
    }
    let audit = world.finish();
    assert_eq!(audit.statuses(), answers.map(|(_, outcome)| outcome));
    assert_eq!(audit.effects, answers.len());
}

#[test]
fn a_slow_answer_is_not_hurried() {
    let world = World::start();
    let pieces = (0..5)
        .flat_map(|n| [Step::Sleep(Duration::from_millis(100)), Step::Write(chunk(&format!("piece {n}\n")))]);
    let mut steps = vec![Step::Write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())];
    steps.extend(pieces);
    steps.push(Step::Write(b"0\r\n\r\n".to_vec()));
    world.upstream.next(Script::steps(steps));
    let answer = world.ask("GET", "/v1/things", "permit", "");
    assert!(answer.is_whole && answer.text().lines().count() == 5, "{answer:?}");
    world.finish();
}
