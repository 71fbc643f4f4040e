//! Requests from a small space of spellings, so that many of them mean the same: the one form is a fixed
//! point, it reads back with another parser, and equal digests mean equal requests.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::template::PathTemplate;
use interlock::canonical::{
    BodyRules, CanonicalRequest, CredentialSlot, Forward, Malformed, Received, ReceivedHead, Required, Rules,
    Version, WhenSent, canonicalize,
};
use interlock::model::Digest;

use super::Source;

const REQUESTS: u64 = 40_000;

#[test]
fn the_one_form_is_a_fixed_point_and_another_parser_reads_it_back() {
    let mut source = Source::new(1);
    let mut accepted = 0;
    for _ in 0..REQUESTS {
        let (rules, received) = any_request(&mut source);
        let Ok(request) = read(received, &rules) else { continue };
        accepted += 1;
        let digest = request.digest();
        let wire = request.wire();

        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(&wire.head).expect("valid HTTP").is_complete());
        assert_eq!(parsed.method, Some(wire.method.as_str()));
        assert_eq!(parsed.path, Some(&*wire.target));
        let fields: Vec<_> = parsed.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
        let written: Vec<_> = wire.fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        assert_eq!(fields, written);

        let again = ReceivedHead {
            version: Version::Http11,
            method: wire.method.clone(),
            target: wire.target.to_string(),
            authority: None,
            headers: wire
                .fields
                .iter()
                .filter(|(name, _)| &**name != "authorization")
                .map(|(name, value)| {
                    (header_name(name), HeaderValue::from_str(value).expect("visible ASCII"))
                })
                .collect(),
        };
        let again = read(Received { head: again, body: wire.body.clone() }, &rules).expect("its own form");
        assert_eq!(again.digest(), digest);
        let again = again.wire();
        assert_eq!((&again.head, &again.body, &again.slot), (&wire.head, &wire.body, &wire.slot));
    }
    assert!(accepted > REQUESTS / 4, "{accepted} accepted");
}

#[test]
fn equal_digests_mean_equal_requests() {
    let mut source = Source::new(2);
    let mut seen: HashMap<Digest, (String, String)> = HashMap::new();
    let mut spellings = 0;
    for _ in 0..REQUESTS {
        let (rules, received) = any_request(&mut source);
        let as_it_came =
            format!("{} {} {:?}", received.head.target, received.head.headers.len(), received.body);
        let Ok(request) = read(received, &rules) else { continue };
        let judged = judged(&request);
        let (first_came, first_judged) =
            seen.entry(request.digest()).or_insert_with(|| (as_it_came.clone(), judged.clone()));
        assert_eq!(*first_judged, judged, "{as_it_came}");
        spellings += u64::from(*first_came != as_it_came);
    }
    // The space is small enough that other spellings of the same request turn up again and again.
    assert!(spellings > 1_000 && seen.len() > 1_000, "{spellings} spellings of {} requests", seen.len());
}

#[test]
fn any_target_is_refused_or_has_one_form() {
    const PIECES: &[&str] = &[
        "/", "/", "/", "a", "B", "%", "%4", "%41", "%2e", ".", "..", "%2F", "%5c", "\\", "?", "&", "=", "+",
        "%2b", ";", "%3b", "#", "%00", "%c3%a9", "%c3", "é", "[]", "%5B", "~", "@", ":", "'", "\"", " ",
        "//", "http://a",
    ];
    let mut source = Source::new(3);
    let mut accepted = 0;
    for _ in 0..200_000 {
        let pieces = source.below(7);
        let mut target = String::from(source.pick(&["/", "/", ""]));
        (0..pieces).for_each(|_| target.push_str(source.pick(PIECES)));
        let parse = |target: &str| {
            CanonicalTarget::parse(&ReceivedHead {
                version: Version::Http11,
                method: Method::GET,
                target: target.into(),
                authority: None,
                headers: HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("a"))]),
            })
        };
        let Ok(once) = parse(&target) else { continue };
        accepted += 1;
        let path = once.path();
        assert!(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()), "{target}");
        assert!(!path.contains(['?', '#', '\\', '+', '"']), "{target}");
        assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{target}");
        assert_eq!(parse(path).expect("its own form").path(), path, "{target}");
    }
    assert!(accepted > 10_000, "{accepted} accepted");
}

/// Everything policy sees of the request.
fn judged(request: &CanonicalRequest) -> String {
    use interlock::canonical::PolicyBody;
    let body = match request.body() {
        PolicyBody::Value(value) => format!("{value:?}"),
        PolicyBody::Absent => "absent".into(),
    };
    format!(
        "{} {} {:?} {:?} {:?} {body} {:?} {}",
        request.method(),
        request.path(),
        request.params(),
        request.query(),
        request.headers(),
        request.media_type(),
        request.size(),
    )
}

fn read(received: Received, rules: &Rules) -> Result<CanonicalRequest, Malformed> {
    let target = CanonicalTarget::parse(&received.head)?;
    let params = PathTemplate::parse("/{first}").expect("a template").matches(&target).unwrap_or_default();
    canonicalize(received, target, params, rules)
}

fn header_name(name: &str) -> HeaderName {
    name.parse().expect("a header name")
}

/// Rules for one of the kinds of body, and a request that may fit them.
fn any_request(source: &mut Source) -> (Rules, Received) {
    let required = Required::Optional;
    let (body_rules, content_types, bodies): (_, &[&str], &[&str]) = match source.below(5) {
        0 => (
            BodyRules::Json { forward: Forward::Canonical, required },
            &["application/json", "Application/JSON; charset=utf-8", "application/x+json"],
            &[
                "",
                "{}",
                " {} ",
                "[1.0,1e0]",
                "[1,1]",
                r#"{"b":1,"a":2}"#,
                r#"{"\u0061":2,"b":1.00}"#,
                "{",
                "-0",
                "0",
            ],
        ),
        1 => (
            BodyRules::Json { forward: Forward::Verbatim, required },
            &["application/json", "application/json;charset=\"UTF-8\""],
            &["", "{}", " {} ", r#"{"a":1}"#, r#"{"a":1.0}"#, r#"{"a":1,"a":1}"#],
        ),
        2 => (
            BodyRules::Form { required },
            &["application/x-www-form-urlencoded"],
            &["", "a=1", "%61=%31", "a[b]=+&c", "a%5Bb%5D=%20&c=", "x[]=1&x[]=2", "a=1&a=2", "i[0]=a&i[1]=b"],
        ),
        3 => (
            BodyRules::Opaque { media_types: ["a/b".into(), "text/csv".into()].into(), required },
            &["a/b", "A/B; x=1", "a/b;x=\"1\"", "a/b; x=\"1 2\"", "text/csv"],
            &["", "x", "\0", "a,b\r\n"],
        ),
        _ => (BodyRules::None, &["application/json"], &["", "", "x"]),
    };
    let body = source.pick(bodies);
    let mut headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("gateway"))]);
    let mut add = |name: &str, value: &str| {
        headers.append(header_name(name), HeaderValue::from_str(value).expect("visible ASCII"));
    };
    if !source.one_in(4) {
        add("content-type", source.pick(content_types));
    }
    match source.below(3) {
        0 => add("content-length", &body.len().to_string()),
        1 => add("transfer-encoding", "chunked"),
        _ => {}
    }
    const HEADERS: &[(&str, &str)] = &[
        ("accept", "*/*"),
        ("accept", " */*\t"),
        ("x-trace", "a  b"),
        ("cookie", "unlisted"),
        ("te", "trailers"),
        ("connection", "keep-alive"),
        ("authorization", "Bearer caller"),
        ("idempotency-key", "k1"),
    ];
    for _ in 0..source.below(3) {
        let (name, value) = source.pick(HEADERS);
        add(name, value);
    }
    const SEGMENTS: &[&str] = &[
        "a", "%61", "x%20y", "a;b", "a%3bb", "%2f", "%2F", "", "%C3%A9", "%c3%a9", "c+", "c%2B", "a:@",
        "%2e", "..",
    ];
    const PAIRS: &[&str] = &[
        "a=1",
        "%61=%31",
        "b",
        "b=",
        "l=1",
        "l=2",
        "c[]=1",
        "c%5B%5d=1",
        "q=+",
        "q=%20",
        "q=%2B",
        "s=;",
        "s=%3B",
    ];
    let mut target: String = (0..=source.below(2)).map(|_| format!("/{}", source.pick(SEGMENTS))).collect();
    for i in 0..source.below(3) {
        target.push(if i == 0 { '?' } else { '&' });
        target.push_str(source.pick(PAIRS));
    }
    let rules = Rules {
        upstream_authority: "upstream.example:8443".into(),
        body: body_rules,
        body_bytes_max: 1_000,
        schema: None,
        forward_headers: ["accept".into(), "x-trace".into()].into(),
        identity_headers: Default::default(),
        credential: Some(CredentialSlot {
            header: "authorization".into(),
            secret: "key".parse().expect("a name"),
            prefix: "Bearer ".into(),
            when_sent: WhenSent::Drop,
        }),
        path: interlock::canonical::target::PathAllowances {
            parameters: true,
            non_ascii: true,
            encoded_slash: true,
            empty_segments: true,
        },
        query_lists: ["l".into()].into(),
        idempotency_key: Required::Optional,
        redaction: None,
    };
    let method = source.pick(&[Method::GET, Method::POST, Method::DELETE].each_ref()).clone();
    let head = ReceivedHead { version: Version::Http11, method, target, authority: None, headers };
    (rules, Received { head, body: Bytes::from_static(body.as_bytes()) })
}
