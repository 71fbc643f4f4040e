//! Clients that hang up, dawdle or send too much. None of them changes what a permit means.

use std::time::Duration;

use crate::support::{Client, Gate, KEY, Script, Setup, Step, World, request};

const HEADERS: [(&str, &str); 3] =
    [("x-api-key", KEY), ("x-want", "permit"), ("content-type", "application/json")];

fn post(body: &str) -> Vec<u8> {
    request("POST", "/v1/things", &HEADERS, body)
}

fn answer(body: &str) -> Step {
    Step::Write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[test]
fn a_client_that_hangs_up_before_its_request_is_whole_has_asked_nothing() {
    let world = World::start();
    let whole = post(r#"{"a":1}"#);
    for cut in [1, 20, whole.len() - 8, whole.len() - 1] {
        let mut client = world.client();
        client.send(&whole[..cut]);
        drop(client);
    }
    world.wait_for_metric("interlock_connections", 0.0);
    assert_eq!(world.upstream.connections(), 0);
    let audit = world.finish();
    assert_eq!((audit.decisions().len(), audit.effects), (0, 0));
}

#[test]
fn a_client_that_hangs_up_while_the_upstream_works_cancels_nothing() {
    let world = World::start();
    let gate = Gate::default();
    world.upstream.next(Script::steps([Step::Wait(gate.clone()), answer("{}")]));
    let mut client = world.client();
    client.send(post("{}"));
    world.upstream.wait_for(1);
    drop(client);
    std::thread::sleep(Duration::from_millis(100));
    gate.open();
    world.wait_for_metric("interlock_connections", 0.0);
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["confirmed"], 1));
}

#[test]
fn a_client_that_hangs_up_right_after_its_request_leaves_a_whole_record() {
    let world = World::start();
    for _ in 0..50 {
        let mut client = world.client();
        client.send(post("{}"));
        drop(client);
    }
    world.wait_for_metric("interlock_connections", 0.0);
    // How many got as far as a permit is the race; that each of those was carried through is not.
    let audit = world.finish();
    assert_eq!(audit.effects, audit.statuses().iter().filter(|s| **s == "confirmed").count());
}

#[test]
fn a_client_that_hangs_up_in_the_middle_of_the_answer_does_not_change_the_outcome() {
    let world = World::start();
    let (gate, body) = (Gate::default(), vec![b'x'; 4 * 1024 * 1024]);
    world.upstream.next(Script::steps([
        Step::Write(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nfirst", body.len() + 5).into_bytes(),
        ),
        Step::Wait(gate.clone()),
        Step::Write(body),
    ]));
    let mut client = world.client();
    client.send(post("{}"));
    client.read_until("first").expect("the first piece");
    drop(client);
    gate.open();
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["confirmed"]);
    assert_eq!(audit.outcomes()[0].response.as_ref().map(|r| r.size), Some(4 * 1024 * 1024 + 5));
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let world = World::start();
    world.upstream.next(Script::steps([Step::Sleep(Duration::from_millis(50)), answer("{}")]));
    let mut client = world.client();
    client.send(post("{}"));
    client.half_close();
    assert_eq!(client.response().status, 200);
    world.finish();
}

/// The permit was given while the key was good, or not at all: what counts is the instant of sending.
#[test]
fn a_key_that_runs_out_while_its_request_arrives_sends_nothing() {
    let world = Setup { keys_last: Some(Duration::from_millis(3_000)), ..Setup::default() }.start();
    let mut client = world.client();
    let whole = post("{}");
    client.send(&whole[..whole.len() - 1]);
    std::thread::sleep(Duration::from_millis(3_500));
    client.send(&whole[whole.len() - 1..]);
    let response = client.response();
    response.assert_refused(401, "credential_invalid");
    assert_eq!(response.json()["outcome"], "not_sent");
    let audit = world.finish();
    assert_eq!((audit.statuses(), audit.effects), (vec!["not_sent"], 0));
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let world = Setup { limits: &["head_ms_max: 200"], ..Setup::default() }.start();
    for bytes in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"POST /v1/things HTTP/1.1\r\nhost: api"] {
        let mut client = world.client();
        client.send(bytes);
        let rest = client.read_to_end();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
    }
    world.wait_for_metric("interlock_connections", 0.0);
    world.finish();
}

#[test]
fn what_is_no_tls_is_not_served_by_a_tls_listener() {
    let world = Setup { listener_tls: true, limits: &["head_ms_max: 500"], ..Setup::default() }.start();
    for bytes in [post("{}"), vec![0x16, 3, 1, 0xff, 0xff], Vec::new()] {
        let mut client = Client::connect(world.address());
        client.send(bytes);
        let rest = client.read_to_end();
        assert!(!rest.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&rest));
    }
    world.wait_for_metric("interlock_connections", 0.0);
    let audit = world.finish();
    assert_eq!((audit.decisions().len(), audit.effects), (0, 0));
}

#[test]
fn a_body_that_does_not_come_is_a_408() {
    let world = Setup { limits: &["body_ms_max: 200"], ..Setup::default() }.start();
    let whole = post(r#"{"a":1}"#);
    let mut client = world.client();
    client.send(&whole[..whole.len() - 2]);
    client.response().assert_refused(408, "body_timeout");
    assert_eq!(world.upstream.connections(), 0);
    world.finish();
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_it() {
    let world = World::start();
    let body = vec![b'y'; 16 * 1024 * 1024];
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    world.upstream.next(Script::steps([Step::Write(head.into_bytes()), Step::Write(body.clone())]));
    let mut client = world.client();
    client.send(post("{}"));
    // Long enough for every buffer on the way to fill up.
    std::thread::sleep(Duration::from_millis(500));
    let answer = client.response();
    assert!(answer.is_whole && answer.body == body, "{} bytes", answer.body.len());
    world.finish();
}

#[test]
fn empty_bodies_are_bodies_where_they_are_allowed() {
    let world = World::start();
    let empty = |more: &str| {
        format!("POST /v1/things HTTP/1.1\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\n{more}")
    };
    for bytes in [
        empty("content-length: 0\r\n\r\n"),
        empty("\r\n"),
        empty("transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        let answer = world.send(&bytes);
        assert_eq!(answer.status, 200, "{bytes}: {}", answer.text());
    }
    let bodies: Vec<_> = world.upstream.captures().iter().map(|c| c.body().len()).collect();
    assert_eq!(bodies, [0, 0, 0]);
    world.finish();
}

#[test]
fn too_large_is_said_while_the_client_still_sends() {
    let world = World::start();
    for (framing, body) in [
        ("content-length: 50000000\r\n", vec![b' '; 2_000_000]),
        ("transfer-encoding: chunked\r\n", {
            let mut chunks = Vec::new();
            for _ in 0..100 {
                chunks.extend_from_slice(b"1000\r\n");
                chunks.extend_from_slice(&[b' '; 0x1000]);
                chunks.extend_from_slice(b"\r\n");
            }
            chunks
        }),
    ] {
        let mut client = world.client();
        client.send(format!(
            "POST /v1/small HTTP/1.1\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\n\
             content-type: application/json\r\n{framing}\r\n"
        ));
        client.send(&body);
        // The message is not at its end: the refusal is there all the same.
        client.response().assert_refused(413, "body_too_large");
    }
    assert_eq!(world.upstream.connections(), 0);
    world.finish();
}

#[test]
fn a_body_is_asked_for_only_if_it_may_be_sent() {
    let world = World::start();
    let head = |target: &str, length: usize, key: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nhost: api.test\r\nx-api-key: {key}\r\nx-want: permit\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = world.client();
    client.send(head("/v1/things", 2, KEY));
    assert_eq!(client.read_head().expect("an interim answer").status, 100);
    client.send("{}");
    assert_eq!(client.response().status, 200);
    for (bytes, status) in [
        (head("/v1/small", 1_000, KEY), 413),
        (head("/v1/other", 2, KEY), 404),
        (head("/v1/things", 2, "nobody"), 401),
    ] {
        let mut client = world.client();
        client.send(bytes);
        let answer = client.response();
        assert_eq!((answer.status, answer.interim.len()), (status, 0));
    }
    world.finish();
}
