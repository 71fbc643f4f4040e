//! The Auditor itself: what it is there to find, it finds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::{Client, SLOT, World, request};

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
