//! Any request: refused, or in a form that reads back as the same bytes.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::{
    BodyRules, CanonicalRequest, Forward, Malformed, Received, ReceivedHead, Required, Rules, Version,
    canonicalize,
};

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    kind: u8,
    method: String,
    target: String,
    http2: bool,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

libfuzzer_sys::fuzz_target!(|input: Input| {
    let rules = rules(input.kind);
    let Ok(method) = Method::from_bytes(input.method.as_bytes()) else { return };
    let mut headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("a"))]);
    for (name, value) in input.headers.iter().take(50) {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) else {
            continue;
        };
        headers.append(name, value);
    }
    let version = if input.http2 { Version::Http2 } else { Version::Http11 };
    let head = ReceivedHead { version, method, target: input.target, authority: None, headers };
    let Ok(request) = read(Received { head, body: Bytes::from(input.body) }, &rules) else { return };
    let (digest, wire) = (request.digest(), request.wire());
    let field = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| {
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let head = ReceivedHead {
        version: Version::Http11,
        method: wire.method.clone(),
        target: wire.target.to_string(),
        authority: None,
        headers: wire.fields.iter().map(field).collect(),
    };
    let again = read(Received { head, body: wire.body.clone() }, &rules).expect("its own form");
    assert_eq!(again.digest(), digest);
    assert_eq!(again.wire().head, wire.head);
});

fn read(received: Received, rules: &Rules) -> Result<CanonicalRequest, Malformed> {
    let target = CanonicalTarget::parse(&received.head)?;
    canonicalize(received, target, Vec::new(), rules)
}

fn rules(kind: u8) -> Rules {
    let required = Required::Optional;
    Rules {
        upstream_authority: "upstream.example".into(),
        body: match kind % 5 {
            0 => BodyRules::None,
            1 => BodyRules::Json { forward: Forward::Canonical, required },
            2 => BodyRules::Json { forward: Forward::Verbatim, required },
            3 => BodyRules::Form { required },
            _ => BodyRules::Opaque {
                media_types: ["a/b".into(), "multipart/form-data".into()].into(),
                required,
            },
        },
        body_bytes_max: 1 << 20,
        schema: None,
        forward_headers: ["accept", "x", "idempotency-key", "te", "connection", "content-type"]
            .map(Into::into)
            .into(),
        identity_headers: Default::default(),
        credential: None,
        path: interlock::canonical::target::PathAllowances {
            parameters: true,
            non_ascii: true,
            encoded_slash: true,
            empty_segments: true,
        },
        query_lists: ["l".into()].into(),
        idempotency_key: Required::Optional,
        redaction: None,
    }
}
