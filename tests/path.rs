//! The five verdicts and every refusal, over the wire.

use crate::support::{KEY, OTHER_KEY, SLOT, Setup, World, request};

const BODY: &str = r#"{"amount": 10, "name": "x"}"#;

#[test]
fn a_permitted_request_arrives_once_in_its_canonical_form() {
    let world = World::start();
    let answer = world.ask("POST", "/v1/things?b=2&a=%41", "permit", BODY);
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"done":true}"#));
    let arrived = world.upstream.only();
    let port = world.upstream.address().port();
    assert_eq!(
        String::from_utf8_lossy(&arrived.bytes),
        format!(
            "POST /v1/things?b=2&a=A HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {}\r\n\
             content-length: 24\r\ncontent-type: application/json\r\nx-want: permit\r\n\r\n{{\"amount\":10,\"name\":\"x\"}}",
            SLOT.secret
        )
    );
    let audit = world.finish();
    assert_eq!((audit.verdicts(), audit.statuses()), (vec!["PERMIT"], vec!["confirmed"]));
    assert_eq!(audit.stops(), 1);
}
