//! Heads, rules and shorthands for tests that need a canonical request.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::target::CanonicalTarget;
use super::*;

pub(crate) fn rules(body: BodyRules) -> Rules {
    Rules {
        upstream_authority: "upstream.example".into(),
        body,
        body_bytes_max: 100,
        schema: None,
        forward_headers: ["accept", "x-trace", "idempotency-key", "authorization", "interlock-x"]
            .map(Into::into)
            .into(),
        identity_headers: ["x-api-key".into()].into(),
        credential: Some(CredentialSlot {
            header: "authorization".into(),
            secret: "stripe".parse().expect("a name"),
            prefix: "Bearer ".into(),
            when_sent: WhenSent::Refuse,
        }),
        path: Default::default(),
        query_lists: Default::default(),
        idempotency_key: Required::Optional,
        redaction: None,
    }
}

pub(crate) const JSON: BodyRules =
    BodyRules::Json { forward: Forward::Canonical, required: Required::Required };

/// A request on HTTP/1.1 with a host.
pub(crate) fn received(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Received {
    let mut map = HeaderMap::new();
    map.append("host", HeaderValue::from_static("gateway.example"));
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a header name");
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    }
    Received {
        head: ReceivedHead {
            version: Version::Http11,
            method: Method::from_bytes(method.as_bytes()).expect("a method"),
            target: target.into(),
            authority: None,
            headers: map,
        },
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub(crate) fn read(received: Received, rules: &Rules) -> Result<CanonicalRequest, Malformed> {
    let target = CanonicalTarget::parse(&received.head)?;
    canonicalize(received, target, Vec::new(), rules)
}

/// The code, and the place in words.
pub(crate) fn refusal(received: Received, rules: &Rules) -> (ReasonCode, String) {
    let malformed = read(received, rules).expect_err("a refusal");
    (malformed.code, malformed.place.map(|place| place.to_string()).unwrap_or_default())
}
