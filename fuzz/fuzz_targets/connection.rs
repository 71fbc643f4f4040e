//! Any bytes on a client connection of a real gateway: every answer has one reading, and what reaches the upstream are
//! whole messages, one for each answer that carries a PERMIT.

#![no_main]

use libfuzzer_sys::fuzz_target;
use support::{KEY, World};

#[allow(dead_code, unused_imports, reason = "the end-to-end tests use more of it")]
#[path = "../../tests/support/mod.rs"]
mod support;

thread_local! {
    // Runs as long as the fuzzer does; the log of millions of requests is not audited.
    static WORLD: &'static World = Box::leak(Box::new(World::start()));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let mut message = match how % 4 {
        0 => Vec::new(),
        1 => b"POST /v1/things HTTP/1.1\r\n".to_vec(),
        2 => start("GET", ""),
        _ => start("POST", "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"),
    };
    message.extend_from_slice(bytes);
    // Frames of HTTP/2 have answers in frames; the tests of that are elsewhere.
    if message.starts_with(b"PRI") {
        return;
    }
    WORLD.with(|world| {
        let mut client = world.client();
        client.send(&message);
        client.half_close();
        let mut permits = 0;
        while let Some(answer) = client.try_response(message.starts_with(b"HEAD ")) {
            let receipt = answer.header("interlock-receipt").unwrap_or_default();
            if receipt.contains("decision=PERMIT") {
                permits += 1;
            } else {
                assert!((400..600).contains(&answer.status), "no PERMIT and no refusal: {answer:?}");
            }
        }
        let arrived = world.upstream.take_captures();
        assert_eq!(arrived.len(), permits, "effects and permits");
        assert!(arrived.iter().all(|capture| capture.is_whole), "whole messages");
    });
});

fn start(method: &str, more: &str) -> Vec<u8> {
    format!("{method} /v1/things HTTP/1.1\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\n{more}").into()
}
