//! Requests with a second one inside. Whatever a head or a body tries to say twice, what reaches the upstream is
//! either nothing or exactly the permitted message; the Auditor fails on any effect without a PERMIT of its own.

use crate::support::{KEY, World};

/// A whole request that would be permitted if anybody took it for one.
fn inner() -> String {
    format!(
        "POST /v1/things HTTP/1.1\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    )
}

fn head(line: &str, more: &str) -> String {
    format!(
        "{line}\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\ncontent-type: application/json\r\n{more}\r\n"
    )
}

fn post(more: &str, body: &str) -> String {
    head("POST /v1/things HTTP/1.1", more) + body
}

/// Sends, says that nothing more comes, and reads all answers.
fn answers(world: &World, bytes: &[u8]) -> (Vec<u16>, usize) {
    let before = world.upstream.captures().len();
    let mut client = world.client();
    client.send(bytes);
    client.half_close();
    let mut statuses = Vec::new();
    while let Some(answer) = client.try_response(false) {
        statuses.push(answer.status);
    }
    (statuses, world.upstream.captures().len() - before)
}

#[test]
fn a_message_with_two_framings_is_refused_with_all_that_follows() {
    let world = World::start();
    let inner = inner();
    let chunked_inner = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let length = |n: usize| format!("content-length: {n}\r\n");
    let te = "transfer-encoding: chunked\r\n";
    let both = |n: usize| length(n) + te;
    let cases: Vec<(&str, String)> = vec![
        ("CL.TE", post(&both(6), &format!("0\r\n\r\n{inner}"))),
        ("TE.CL", post(&(te.to_owned() + &length(4)), &chunked_inner)),
        ("CL.0 with TE", post(&both(0), &format!("0\r\n\r\n{inner}"))),
        ("TE.TE, second unknown", post(&format!("{te}transfer-encoding: x\r\n"), &chunked_inner)),
        ("TE.TE, twice", post(&format!("{te}{te}"), &chunked_inner)),
        ("TE list", post("transfer-encoding: chunked, chunked\r\n", &chunked_inner)),
        ("TE identity list", post("transfer-encoding: identity, chunked\r\n", &chunked_inner)),
        ("TE with a space before the colon", post("transfer-encoding : chunked\r\n", &chunked_inner)),
        ("TE with a tab", post("transfer-encoding:\tchunked,\r\n", &chunked_inner)),
        ("TE with vertical tab", post("transfer-encoding: \x0bchunked\r\n", &chunked_inner)),
        ("TE quoted", post("transfer-encoding: \"chunked\"\r\n", &chunked_inner)),
        ("TE xchunked", post(&format!("transfer-encoding: xchunked\r\n{}", length(4)), &chunked_inner)),
        ("TE in a fold", post("x-a: 1\r\n transfer-encoding: chunked\r\n", &chunked_inner)),
        ("TE after a bare LF", post("x-a: 1\ntransfer-encoding: chunked\r\n", &chunked_inner)),
        ("TE after a bare CR", post("x-a: 1\rtransfer-encoding: chunked\r\n", &chunked_inner)),
        ("two lengths", post(&(length(0) + &length(inner.len())), &inner)),
        ("a list of lengths", post(&format!("content-length: 0, {}\r\n", inner.len()), &inner)),
        ("a signed length", post("content-length: +0\r\n", &inner)),
        ("a hexadecimal length", post("content-length: 0x0\r\n", &inner)),
        ("a length with a space inside", post("content-length: 0 0\r\n", &inner)),
        ("an empty length", post("content-length:\r\n", &inner)),
        ("a length that overflows", post("content-length: 18446744073709551616\r\n", &inner)),
        ("a length with an underscore name", post("content_length: 5\r\ncontent-length: x\r\n", &inner)),
        ("host twice", post("host: other.test\r\ncontent-length: 0\r\n", &inner)),
        ("a line inside the target", head("POST /v1/things\r\nx: HTTP/1.1", &length(0)) + &inner),
        ("HTTP/1.0 with chunks", head("POST /v1/things HTTP/1.0", te) + &chunked_inner),
        ("HTTP/0.9", format!("GET /v1/things\r\n{inner}")),
        ("a tab in the request line", head("POST\t/v1/things\tHTTP/1.1", &length(0)) + &inner),
        ("an empty line before a fold", format!("\r\n {inner}")),
    ];
    for (name, bytes) in cases {
        let (statuses, effects) = answers(&world, bytes.as_bytes());
        assert_eq!(effects, 0, "{name}: {statuses:?}");
        assert!(statuses.len() <= 1, "{name}: what follows a refused head is not read: {statuses:?}");
        assert!(statuses.iter().all(|s| (400..600).contains(s)), "{name}: {statuses:?}");
    }
    let audit = world.finish();
    assert_eq!((audit.effects, audit.decisions().len()), (0, 0));
}

#[test]
fn what_follows_a_refused_message_with_one_framing_is_judged_by_itself() {
    let world = World::start();
    for line in ["POST http://other.test/v1/things HTTP/1.1", "POST http://a@api.test/v1/things HTTP/1.1"] {
        let bytes = head(line, "content-length: 0\r\n") + &inner();
        assert_eq!(answers(&world, bytes.as_bytes()), (vec![400, 200], 1), "{line}");
    }
    let audit = world.finish();
    assert_eq!((audit.effects, audit.verdicts()), (2, vec!["PERMIT", "PERMIT"]));
}

#[test]
fn a_chunked_body_has_one_reading_or_none() {
    let world = World::start();
    let te = "transfer-encoding: chunked\r\n";
    let inner = inner();
    let cases: Vec<(&str, String)> = vec![
        ("an extension", "2;a=1\r\n{}\r\n0\r\n\r\n".into()),
        ("an extension that ends in LF", format!("2;\n{{}}\r\n0\r\n\r\n{inner}")),
        ("a bare LF after the size", "2\n{}\r\n0\r\n\r\n".into()),
        ("a bare LF after the data", "2\r\n{}\n0\r\n\r\n".into()),
        ("a bare CR", "2\r{}\r\n0\r\n\r\n".into()),
        ("a space before the size", " 2\r\n{}\r\n0\r\n\r\n".into()),
        ("a space after the size", "2 \r\n{}\r\n0\r\n\r\n".into()),
        ("a signed size", "+2\r\n{}\r\n0\r\n\r\n".into()),
        ("a prefixed size", "0x2\r\n{}\r\n0\r\n\r\n".into()),
        ("a size that overflows", "10000000000000002\r\n{}\r\n0\r\n\r\n".into()),
        ("a size that is too small", format!("1\r\n{{}}\r\n0\r\n\r\n{inner}")),
        ("a size that is too large", format!("3\r\n{{}}\r\n0\r\n\r\n{inner}")),
        ("a trailer", "2\r\n{}\r\n0\r\nx-want: deny\r\n\r\n".into()),
        ("a trailer with a length", format!("2\r\n{{}}\r\n0\r\ncontent-length: 5\r\n\r\n{inner}")),
        ("a negative size", "-1\r\n{}\r\n0\r\n\r\n".into()),
        ("no last chunk", "2\r\n{}\r\n".into()),
        ("no end after the last chunk", "2\r\n{}\r\n0\r\n".into()),
    ];
    for (name, body) in cases {
        let (statuses, effects) = answers(&world, post(te, &body).as_bytes());
        assert_eq!(effects, 0, "{name}: {statuses:?}");
        assert!(
            statuses.iter().all(|s| (400..500).contains(s)) && statuses.len() <= 1,
            "{name}: {statuses:?}"
        );
    }
    // And the plain form, in one and in many pieces, is one message with our framing.
    for body in ["2\r\n{}\r\n0\r\n\r\n", "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", "0002\r\n{}\r\n000\r\n\r\n"] {
        assert_eq!(answers(&world, post(te, body).as_bytes()), (vec![200], 1), "{body:?}");
    }
    for arrived in world.upstream.captures() {
        assert_eq!((arrived.header("content-length"), arrived.body()), (Some("2".into()), &b"{}"[..]));
        assert!(!arrived.head().contains("chunked"));
    }
    world.finish();
}

#[test]
fn a_request_inside_a_body_stays_a_body() {
    let world = World::start();
    let inner = inner();
    let put = format!(
        "PUT /v1/blobs/b HTTP/1.1\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\n\
         content-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n{inner}",
        inner.len()
    );
    assert_eq!(answers(&world, put.as_bytes()), (vec![200], 1));
    assert_eq!(world.upstream.the_one().body(), inner.as_bytes());
    let audit = world.finish();
    assert_eq!((audit.effects, audit.decisions().len()), (1, 1));
}

#[test]
fn pipelined_requests_are_as_many_requests_each_judged() {
    let world = World::start();
    let get = |want: &str| {
        format!(
            "GET /v1/things?n={want} HTTP/1.1\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: {want}\r\n\r\n"
        )
    };
    let bytes = get("permit") + &get("deny") + &inner() + &get("nothing") + &get("permit");
    assert_eq!(answers(&world, bytes.as_bytes()), (vec![200, 403, 200, 403, 200], 3));
    // A malformed one ends the row.
    let bytes = get("permit") + "GET  / HTTP/1.1\r\n\r\n" + &get("permit");
    assert_eq!(answers(&world, bytes.as_bytes()), (vec![200, 400], 1));
    // Bytes that follow a body are the next request, whatever the first one was.
    let bytes = post("content-length: 1\r\n", "{}") + &get("permit");
    let (statuses, effects) = answers(&world, bytes.as_bytes());
    assert_eq!((statuses.first(), effects), (Some(&400), 0), "{statuses:?}");
    let audit = world.finish();
    assert_eq!(audit.verdicts(), ["PERMIT", "DENY", "PERMIT", "SILENCE", "PERMIT", "PERMIT"]);
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_the_same_request() {
    let world = World::start();
    let mut client = world.client();
    for byte in post("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n").as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.response().status, 200);
    for byte in post("content-length: 2\r\n", "{}").as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.response().status, 200);
    let audit = world.finish();
    let decisions = audit.decisions();
    assert_eq!(decisions[0].request.digest, decisions[1].request.digest);
}
