//! The same rules on HTTP/2: one reading, or no effect.

use crate::support::http2::{Ended, Http2};
use crate::support::{KEY, World};

type Field = (&'static [u8], &'static [u8]);

const METHOD: Field = (b":method", b"POST");
const PATH: Field = (b":path", b"/v1/things");
const SCHEME: Field = (b":scheme", b"http");
const AUTHORITY: Field = (b":authority", b"api.test");
const AGENT: Field = (b"x-api-key", KEY.as_bytes());
const PERMIT: Field = (b"x-want", b"permit");
const JSON: Field = (b"content-type", b"application/json");
const USUAL: [Field; 7] = [METHOD, PATH, SCHEME, AUTHORITY, AGENT, PERMIT, JSON];

fn with(more: &[Field]) -> Vec<Field> {
    [&USUAL[..], more].concat()
}

fn without(name: &[u8], instead: &[Field]) -> Vec<Field> {
    let kept = USUAL.iter().copied().filter(|(n, _)| *n != name);
    // Pseudo-header fields come first.
    instead.iter().copied().chain(kept).collect()
}

#[test]
fn a_permitted_request_is_the_same_bytes_whatever_version_it_came_by() {
    let world = World::start();
    let mut client = Http2::connect(world.address());
    for _ in 0..3 {
        assert_eq!(client.ask(&USUAL, Some(b"{\"a\": 1}")), Ended::Answered(br#"{"done":true}"#.to_vec()));
    }
    assert_eq!(world.ask("POST", "/v1/things", "permit", r#"{"a":1}"#).status, 200);
    let denied = client.ask(&without(b"x-want", &[]), Some(b"{}"));
    assert_eq!(denied.reason().as_deref(), Some("policy_silent"));
    drop(client);
    let audit = world.finish();
    let digests: Vec<_> = audit.decisions().iter().take(4).map(|d| d.request.digest).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    assert_eq!(audit.effects, 4);
}

#[test]
fn what_http2_forbids_has_no_effect() {
    let world = World::start();
    let cases: Vec<(&str, Vec<Field>)> = vec![
        ("connection", with(&[(b"connection", b"close")])),
        ("connection that nominates", with(&[(b"connection", b"x-want")])),
        ("keep-alive", with(&[(b"keep-alive", b"timeout=5")])),
        ("proxy-connection", with(&[(b"proxy-connection", b"close")])),
        ("transfer-encoding", with(&[(b"transfer-encoding", b"chunked")])),
        ("upgrade", with(&[(b"upgrade", b"h2c")])),
        ("te", with(&[(b"te", b"gzip")])),
        ("trailer", with(&[(b"trailer", b"x")])),
        ("an upper-case name", with(&[(b"X-Upper", b"1")])),
        ("an empty name", with(&[(b"", b"1")])),
        ("a name with a space", with(&[(b"x a", b"1")])),
        ("a name with a colon", with(&[(b"x:a", b"1")])),
        ("a name with CR LF", with(&[(b"x\r\nx-want", b"permit")])),
        ("a value with CR LF", with(&[(b"accept", b"a\r\nx-want: permit")])),
        ("a value with LF", with(&[(b"accept", b"a\nb")])),
        ("a value with NUL", with(&[(b"accept", b"a\0b")])),
        ("a value that is not ASCII", with(&[(b"accept", b"gr\xc3\xbcn")])),
        ("a pseudo-header after a header", with(&[(b":path", b"/v1/other")])),
        ("two paths", without(b":none", &[(b":path", b"/v1/things/1")])),
        ("two methods", without(b":none", &[(b":method", b"GET")])),
        ("two authorities", without(b":none", &[(b":authority", b"other.test")])),
        ("an unknown pseudo-header", without(b":none", &[(b":sneaky", b"1")])),
        ("a response's pseudo-header", without(b":none", &[(b":status", b"200")])),
        ("no method", without(b":method", &[])),
        ("no path", without(b":path", &[])),
        ("no scheme", without(b":scheme", &[])),
        ("an empty path", without(b":path", &[(b":path", b"")])),
        ("a path without a slash", without(b":path", &[(b":path", b"v1/things")])),
        ("a path with a space", without(b":path", &[(b":path", b"/v1/things HTTP/1.1")])),
        ("a path with CR LF", without(b":path", &[(b":path", b"/v1/things\r\nx: y")])),
        ("a path with dots", without(b":path", &[(b":path", b"/v1/x/../things")])),
        ("an absolute path", without(b":path", &[(b":path", b"http://other.test/v1/things")])),
        ("a method with a space", without(b":method", &[(b":method", b"POST /v1/things")])),
        ("a method with CR LF", without(b":method", &[(b":method", b"POST\r\nx: y")])),
        ("CONNECT", without(b":method", &[(b":method", b"CONNECT")])),
        ("an authority with user info", without(b":authority", &[(b":authority", b"a@api.test")])),
        ("an authority with a path", without(b":authority", &[(b":authority", b"api.test/x")])),
        ("host that differs", with(&[(b"host", b"other.test")])),
        ("a length that is too small", with(&[(b"content-length", b"1")])),
        ("a length that is too large", with(&[(b"content-length", b"3")])),
        ("two lengths", with(&[(b"content-length", b"2"), (b"content-length", b"2")])),
        ("the key twice", with(&[AGENT])),
        ("a forwarded header twice", with(&[PERMIT])),
    ];
    for (name, fields) in cases {
        let ended = Http2::connect(world.address()).ask(&fields, Some(b"{}"));
        let refused = match &ended {
            Ended::Answered(_) => ended.reason().is_some(),
            Ended::Reset(_) | Ended::GoneAway(_) | Ended::Closed => true,
        };
        assert!(refused, "{name}: {ended:?}");
        assert_eq!(world.upstream.captures().len(), 0, "{name}: {ended:?}");
    }
    let audit = world.finish();
    assert_eq!((audit.effects, audit.decisions().len()), (0, 0));
}

#[test]
fn a_refused_stream_leaves_the_others_alone() {
    let world = World::start();
    let mut client = Http2::connect(world.address());
    let malformed = client.ask(&with(&[(b"x-http-method-override", b"DELETE")]), Some(b"{}"));
    assert_eq!(malformed.reason().as_deref(), Some("header_method_override"));
    let too_long = client.ask(&USUAL, Some(b"{} {}"));
    assert_eq!(too_long.reason().as_deref(), Some("json_trailing"));
    assert_eq!(client.ask(&USUAL, Some(b"{}")), Ended::Answered(br#"{"done":true}"#.to_vec()));
    drop(client);
    let audit = world.finish();
    assert_eq!(audit.effects, 1);
}
