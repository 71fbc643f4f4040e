//! From what was received to the sealed form: a payment of 600 bytes with ten headers, 64 KiB of JSON, and a
//! form as payment APIs take it.

use std::fmt::Write as _;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::template::PathTemplate;
use interlock::canonical::{
    BodyRules, CredentialSlot, Forward, Received, ReceivedHead, Required, Rules, Version, WhenSent,
    canonicalize,
};

const FORM: &str = "amount=2000&currency=eur&confirm=true&customer=cus_NffrFeUfNV2Hib&\
    payment_method_types[]=card&payment_method_types[]=link&metadata[order_id]=6735&\
    metadata[cart]=c-99&line_items[0][price]=price_1MotwRLkdIwHu7ix&line_items[0][quantity]=2&\
    line_items[1][price]=price_1MotwRLkdIwHu7iy&line_items[1][quantity]=1&description=Two+boxes%2C+one+lid";

pub fn group(c: &mut Criterion) {
    let json = BodyRules::Json { forward: Forward::Canonical, required: Required::Required };
    let form = BodyRules::Form { required: Required::Required };
    let mut group = c.benchmark_group("canonicalize");
    for (name, content_type, body, rules) in [
        ("json_600_bytes", "application/json", payment(600), &json),
        ("json_64_kib", "application/json", payment(64 * 1024), &json),
        ("form", "application/x-www-form-urlencoded", FORM.to_owned(), &form),
    ] {
        let rules = self::rules(rules.clone());
        let received = received(content_type, body);
        let template = PathTemplate::parse("/v1/customers/{customer}/charges").expect("a template");
        group.throughput(Throughput::Bytes(received.body.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || received.clone(),
                |received| {
                    let target = CanonicalTarget::parse(&received.head).expect("a target");
                    let params = template.matches(&target).expect("the route fits");
                    black_box(canonicalize(received, target, params, &rules).expect("a request"))
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A payment with as many lines as fit.
fn payment(bytes: usize) -> String {
    let mut body = String::from(
        r#"{"reference":"2026-11-20/0017","currency":"EUR","amount":"129.90","capture":true,"lines":["#,
    );
    let mut line = 0;
    while body.len() + 90 < bytes {
        let comma = if line == 0 { "" } else { ", " };
        write!(body, r#"{comma}{{"sku":"box-{line:04}","quantity":{line},"price":12.5,"note":"gr\u00fcn"}}"#)
            .expect("a string takes every write");
        line += 1;
    }
    body.push_str("]}");
    body
}

fn received(content_type: &'static str, body: String) -> Received {
    let headers = [
        ("host", "payments.gateway.example"),
        ("user-agent", "agent/1.0"),
        ("accept", "application/json"),
        ("accept-language", "en"),
        ("content-type", content_type),
        ("idempotency-key", "0193469e-7d1c-7cc2-a5d0-5a8f4d0ee2b3"),
        ("x-api-key", "ik_live_0123456789abcdef0123456789abcdef"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("api-version", "2026-10-01"),
    ];
    let mut headers: HeaderMap = headers
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    headers.insert("content-length", body.len().into());
    let (version, method) = (Version::Http11, Method::POST);
    let target = "/v1/customers/cus_NffrFeUfNV2Hib/charges?expand%5B%5D=customer&dry_run=false".into();
    Received {
        head: ReceivedHead { version, method, target, authority: None, headers },
        body: Bytes::from(body),
    }
}

fn rules(body: BodyRules) -> Rules {
    Rules {
        upstream_authority: "api.payments.example".into(),
        body,
        body_bytes_max: 1024 * 1024,
        schema: None,
        forward_headers: ["accept", "idempotency-key", "traceparent", "api-version"].map(Into::into).into(),
        identity_headers: ["x-api-key".into()].into(),
        credential: Some(CredentialSlot {
            header: "authorization".into(),
            secret: "payments".parse().expect("a name"),
            prefix: "Bearer ".into(),
            when_sent: WhenSent::Refuse,
        }),
        path: Default::default(),
        query_lists: Default::default(),
        idempotency_key: Required::Required,
        redaction: None,
    }
}
