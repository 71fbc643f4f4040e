//! The Auditor itself: what it is there to find, it finds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::{Client, KEY, Lookup, SLOT, Script, Setup, Step, World, request};

/// What it says when it does not accept the world.
fn complaint(world: World) -> String {
    let finished = catch_unwind(AssertUnwindSafe(|| world.finish()));
    let panic = finished.expect_err("the Auditor complains");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).expect("a message")
}

/// The bytes that a permitted `GET /v1/things` has on the wire.
fn permitted_bytes(world: &World) -> Vec<u8> {
    assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
    world.upstream.the_one().bytes
}

/// Past the gateway.
fn straight_to_the_upstream(world: &World, bytes: &[u8]) {
    let before = world.upstream.captures().len();
    let mut client = Client::connect(world.upstream.address());
    client.send(bytes);
    world.upstream.wait_until(|captures| captures.len() > before);
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn an_effect_that_nobody_permitted_is_found() {
    let world = World::start();
    straight_to_the_upstream(&world, &request("GET", "/v1/things", &[], ""));
    let complaint = complaint(world);
    assert!(complaint.contains("an effect without an earlier PERMIT"), "{complaint}");
}

#[test]
fn a_second_effect_of_one_permit_is_found() {
    let world = World::start();
    let bytes = permitted_bytes(&world);
    straight_to_the_upstream(&world, &bytes);
    let complaint = complaint(world);
    assert!(complaint.contains("an effect without an earlier PERMIT"), "{complaint}");
}

#[test]
fn an_effect_before_its_permit_is_found() {
    let world = World::start();
    let port = world.upstream.address().port();
    // What the gateway is going to send a moment later.
    let early = format!(
        "GET /v1/things HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {}\r\nx-want: permit\r\n\r\n",
        SLOT.secret
    );
    straight_to_the_upstream(&world, early.as_bytes());
    assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
    let captures = world.upstream.captures();
    assert_eq!(captures[0].bytes, captures[1].bytes, "the same message");
    let complaint = complaint(world);
    assert!(complaint.contains("an effect without an earlier PERMIT"), "{complaint}");
}

#[test]
fn part_of_a_message_that_nobody_permitted_is_found() {
    let world = World::start();
    straight_to_the_upstream(&world, b"DELETE /v1/things/7 HTT");
    let complaint = complaint(world);
    assert!(complaint.contains("part of a message"), "{complaint}");
}

#[test]
fn a_changed_byte_is_found() {
    let world = World::start();
    let mut bytes = permitted_bytes(&world);
    let at = bytes.windows(6).position(|w| w == b"things").expect("the path");
    bytes[at] = b'T';
    straight_to_the_upstream(&world, &bytes);
    let complaint = complaint(world);
    assert!(complaint.contains("an effect without an earlier PERMIT"), "{complaint}");
}

#[test]
fn an_effect_that_is_missing_is_found() {
    let world = World::start();
    permitted_bytes(&world);
    assert_eq!(world.upstream.take_captures().len(), 1);
    let complaint = complaint(world);
    assert!(complaint.contains("nothing arrived"), "{complaint}");
}

#[test]
fn a_credential_in_the_log_is_found() {
    let world = World::start();
    // An agent that knows the secret and puts it into a request's path: it is in the leaf then.
    let target = format!("/v1/things/{}", SLOT.secret);
    world.ask("GET", &target, "deny", "").assert_refused(403, "policy_denied");
    let complaint = complaint(world);
    assert!(complaint.contains("holds the credential"), "{complaint}");
}

#[test]
fn a_test_that_forgets_the_auditor_fails() {
    let world = World::start();
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(world)));
    assert!(dropped.is_err());
}

/// Nobody asks within an hour.
const LOOKUP: Lookup = Lookup {
    path: "/v1/status/{idempotency_key}",
    header: None,
    more: "status: /status, confirmed: [succeeded], after_ms: 3600000",
};

/// A world in which the outcome of the request with this key is not known, and one with another key is confirmed.
fn unknown(key: &str) -> World {
    let world = Setup { status_lookup: Some(LOOKUP), ..Setup::default() }.start();
    let ask = |key: &str| {
        let headers = [
            ("x-api-key", KEY),
            ("x-want", "permit"),
            ("content-type", "application/json"),
            ("idempotency-key", key),
            ("connection", "close"),
        ];
        world.send(request("POST", "/v1/keyed", &headers, "{}"))
    };
    assert_eq!(ask("known").status, 200);
    world.upstream.next(Script::steps([Step::Close]));
    ask(key).assert_refused(504, "upstream_silent");
    world.wait_for_metric("interlock_outcomes_unknown", 1.0);
    world
}

fn question(world: &World, key: &str) -> String {
    format!(
        "GET /v1/status/{key} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\naccept: application/json, application/problem+json\r\n\
         cache-control: no-cache\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        world.upstream.address().port(),
        SLOT.secret
    )
}

#[test]
fn only_the_declared_question_about_an_unknown_outcome_is_no_effect() {
    let world = unknown("a:b");
    let asked = question(&world, "a%3Ab");
    straight_to_the_upstream(&world, asked.as_bytes());
    let audit = world.finish();
    assert_eq!((audit.effects, audit.lookups), (2, 1));

    let other_key = |text: String| text.replace("a%3Ab", "known");
    let other_header = |text: String| text.replace("no-cache", "no-store");
    let one_more = |text: String| text.replace("connection: close", "connection: close\r\nx-more: 1");
    let one_less = |text: String| text.replace("cache-control: no-cache\r\n", "");
    let other_method = |text: String| text.replace("GET", "DELETE");
    let other_secret = |text: String| text.replace("Bearer ", "Bearer x");
    let with_body = |text: String| text.replace("\r\n\r\n", "\r\ncontent-length: 1\r\n\r\nx");
    let edits: [&dyn Fn(String) -> String; 7] =
        [&other_key, &other_header, &one_more, &one_less, &other_method, &other_secret, &with_body];
    for edit in edits {
        let world = unknown("a:b");
        let bytes = edit(asked.replace(
            &asked[asked.find("127.0.0.1:").expect("a host")..asked.find("\r\naccept").expect("a header")],
            &format!("127.0.0.1:{}", world.upstream.address().port()),
        ));
        straight_to_the_upstream(&world, bytes.as_bytes());
        let complaint = complaint(world);
        assert!(complaint.contains("an effect without an earlier PERMIT"), "{bytes}: {complaint}");
    }
    // Asked before the outcome was unknown, and where no question is declared.
    let world = World::start();
    straight_to_the_upstream(&world, question(&world, "a%3Ab").as_bytes());
    assert!(complaint(world).contains("an effect without an earlier PERMIT"));
}
