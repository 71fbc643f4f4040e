//! Headers: what is forwarded, what is refused by name, and what silently stays here (RFC 9110, 9112, 9113).
//!
//! In: every header of the head. Out: those the route forwards, in one form, and those the message is
//! built from. Refused are all that change the framing, the method or the connection: RFC 9110 section
//! 7.6.1 asks an intermediary to remove them, but a caller who sends one means something that will not
//! happen. Dropped are `connection: close` and `keep-alive` on HTTP/1.1, `te: trailers`, `expect:
//! 100-continue`, `content-encoding: identity`, `want-receipt: proof`, `interlock-*`, what identity has read, and all
//! unlisted ones.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Malformed, ReceivedHead, Required, Rules, Version, WhenSent};
use crate::model::{IdempotencyKey, Place, ReasonCode};

/// What a head leaves behind.
pub(super) struct ReadHeaders<'a> {
    /// Lowercase and distinct names, values in one form; in the order they came.
    pub forwarded: Vec<(Arc<str>, Arc<str>)>,
    pub content_type: Option<&'a HeaderValue>,
    pub idempotency_key: Option<IdempotencyKey>,
}

/// What a name means to a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Read by `target`.
    Host,
    ContentType,
    ContentLength,
    ContentEncoding,
    TransferEncoding,
    Connection,
    Te,
    Expect,
    IdempotencyKey,
    /// For the gateway alone: whether answers carry the proof of their receipt.
    WantReceipt,
    /// Refused whatever it says.
    Refused(ReasonCode),
    /// `interlock-*`: only the gateway sends these.
    Ours,
    Plain,
}

fn meaning(name: &str) -> Meaning {
    match name {
        "host" => Meaning::Host,
        "content-type" => Meaning::ContentType,
        "content-length" => Meaning::ContentLength,
        "content-encoding" => Meaning::ContentEncoding,
        "transfer-encoding" => Meaning::TransferEncoding,
        "connection" => Meaning::Connection,
        "te" => Meaning::Te,
        "expect" => Meaning::Expect,
        "want-receipt" => Meaning::WantReceipt,
        "idempotency-key" => Meaning::IdempotencyKey,
        "keep-alive" => Meaning::Refused(ReasonCode::HeaderHopByHop),
        "trailer" => Meaning::Refused(ReasonCode::TrailersRefused),
        "upgrade" | "http2-settings" => Meaning::Refused(ReasonCode::UpgradeRefused),
        "x-http-method-override" | "x-http-method" | "x-method-override" => {
            Meaning::Refused(ReasonCode::HeaderMethodOverride)
        }
        _ if name.starts_with("proxy-") => Meaning::Refused(ReasonCode::HeaderHopByHop),
        _ if name.starts_with("interlock-") => Meaning::Ours,
        _ => Meaning::Plain,
    }
}

/// Whether a route may list the name in `forward_headers`, or fill it with a credential: it is a lowercase
/// token that neither frames the message nor steers the connection.
pub fn is_forwardable(name: &str) -> bool {
    let is_lowercase_token = is_token(name) && !name.bytes().any(|b| b.is_ascii_uppercase());
    is_lowercase_token && matches!(meaning(name), Meaning::Plain | Meaning::IdempotencyKey)
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Visible ASCII with spaces and tabs only inside; what surrounds it is not part of it (RFC 9110 section 5.5).
pub(super) fn plain_value(value: &HeaderValue) -> Option<&str> {
    let is_plain = |b: u8| b.is_ascii_graphic() || matches!(b, b' ' | b'\t');
    let text = std::str::from_utf8(value.as_bytes()).ok()?.trim_matches([' ', '\t']);
    (!text.is_empty() && text.bytes().all(is_plain)).then_some(text)
}

/// Reads every header once, under the rules of the route. `body_bytes` is the length of the received body.
pub(super) fn read<'a>(
    head: &'a ReceivedHead,
    body_bytes: usize,
    rules: &Rules,
) -> Result<ReadHeaders<'a>, Malformed> {
    let mut read = ReadHeaders { forwarded: Vec::new(), content_type: None, idempotency_key: None };
    for name in head.headers.keys() {
        match meaning(name.as_str()) {
            Meaning::Host | Meaning::Ours => {}
            Meaning::ContentType => read.content_type = Some(only_value(head, name)?),
            Meaning::ContentLength => check_content_length(head, name, body_bytes)?,
            Meaning::TransferEncoding => check_transfer_encoding(head, name)?,
            Meaning::Connection => check_connection(head, name)?,
            Meaning::ContentEncoding => {
                check_each(head, name, "identity", ReasonCode::ContentEncodingUnsupported)?;
            }
            Meaning::Te => check_each(head, name, "trailers", ReasonCode::HeaderHopByHop)?,
            Meaning::Expect => check_each(head, name, "100-continue", ReasonCode::ExpectationUnsupported)?,
            Meaning::WantReceipt => {
                wants_proof(&head.headers)?;
            }
            Meaning::IdempotencyKey => {
                read.idempotency_key = Some(idempotency_key(head, name)?);
                forward(head, name, rules, &mut read.forwarded)?;
            }
            Meaning::Refused(code) => return Err(refuse(code, name)),
            Meaning::Plain => forward(head, name, rules, &mut read.forwarded)?,
        }
    }
    if rules.idempotency_key == Required::Required && read.idempotency_key.is_none() {
        let place = Place::Header("idempotency-key".into());
        return Err(Malformed::new(ReasonCode::IdempotencyKeyMissing, place));
    }
    Ok(read)
}

/// Whether the caller wants the proof of its receipt with the answer: `want-receipt: proof`, which is the only value
/// there is. Never forwarded.
pub fn wants_proof(headers: &HeaderMap) -> Result<bool, Malformed> {
    let name = HeaderName::from_static("want-receipt");
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes() == b"proof" => Ok(true),
        (Some(_), None) => Err(refuse(ReasonCode::WantReceiptInvalid, &name)),
        (Some(_), Some(_)) => Err(refuse(ReasonCode::HeaderDuplicate, &name)),
    }
}

fn forward(
    head: &ReceivedHead,
    name: &HeaderName,
    rules: &Rules,
    forwarded: &mut Vec<(Arc<str>, Arc<str>)>,
) -> Result<(), Malformed> {
    if rules.identity_headers.contains(name.as_str()) {
        return Ok(());
    }
    if let Some(slot) = rules.credential.as_ref().filter(|slot| &*slot.header == name.as_str()) {
        return match slot.when_sent {
            WhenSent::Refuse => Err(refuse(ReasonCode::HeaderCredentialSent, name)),
            WhenSent::Drop => Ok(()),
        };
    }
    if let Some(listed) = rules.forward_headers.get(name.as_str()) {
        let value = plain_value(only_value(head, name)?)
            .ok_or_else(|| refuse(ReasonCode::HeaderValueInvalid, name))?;
        forwarded.push((listed.clone(), value.into()));
    }
    Ok(())
}

fn check_content_length(head: &ReceivedHead, name: &HeaderName, body_bytes: usize) -> Result<(), Malformed> {
    if head.headers.contains_key(http::header::TRANSFER_ENCODING) {
        return Err(refuse(ReasonCode::FramingConflict, name));
    }
    let mut values = head.headers.get_all(name).iter();
    let (first, second) = (values.next().and_then(|v| v.to_str().ok()), values.next());
    let digits = first.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let (Some(digits), None) = (digits, second) else {
        return Err(refuse(ReasonCode::ContentLengthInvalid, name));
    };
    if digits.parse() == Ok(body_bytes) {
        Ok(())
    } else {
        Err(refuse(ReasonCode::ContentLengthMismatch, name))
    }
}

fn check_transfer_encoding(head: &ReceivedHead, name: &HeaderName) -> Result<(), Malformed> {
    match head.version {
        Version::Http2 => Err(refuse(ReasonCode::HeaderHopByHop, name)),
        Version::Http11 => {
            let mut values = head.headers.get_all(name).iter();
            let is_chunked = values.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
            match (is_chunked, values.next()) {
                (true, None) => Ok(()),
                _ => Err(refuse(ReasonCode::TransferEncodingUnsupported, name)),
            }
        }
    }
}

/// On HTTP/1.1 it may only speak of the connection itself.
fn check_connection(head: &ReceivedHead, name: &HeaderName) -> Result<(), Malformed> {
    let speaks_of_itself = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',').map(|option| option.trim_matches([' ', '\t'])).all(|option| {
                option.eq_ignore_ascii_case("close") || option.eq_ignore_ascii_case("keep-alive")
            })
        })
    };
    match head.version {
        Version::Http11 if head.headers.get_all(name).iter().all(speaks_of_itself) => Ok(()),
        Version::Http11 | Version::Http2 => Err(refuse(ReasonCode::HeaderHopByHop, name)),
    }
}

/// Every value of the header is the one word it may hold.
fn check_each(head: &ReceivedHead, name: &HeaderName, word: &str, code: ReasonCode) -> Result<(), Malformed> {
    let is_word = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(word.as_bytes());
    match head.headers.get_all(name).iter().all(is_word) {
        true => Ok(()),
        false => Err(refuse(code, name)),
    }
}

fn idempotency_key(head: &ReceivedHead, name: &HeaderName) -> Result<IdempotencyKey, Malformed> {
    plain_value(only_value(head, name)?)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| refuse(ReasonCode::IdempotencyKeyInvalid, name))
}

fn only_value<'a>(head: &'a ReceivedHead, name: &HeaderName) -> Result<&'a HeaderValue, Malformed> {
    let mut values = head.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(refuse(ReasonCode::HeaderDuplicate, name)),
    }
}

fn refuse(code: ReasonCode, name: &HeaderName) -> Malformed {
    Malformed::new(code, Place::Header(name.as_str().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{read as canonicalize, received, refusal, rules};
    use crate::canonical::{BodyRules, Received};

    fn get(headers: &[(&str, &str)]) -> Received {
        received("GET", "/", headers, "")
    }

    fn on_http2(headers: &[(&str, &str)]) -> Received {
        let mut request = get(headers);
        request.head.version = Version::Http2;
        request
    }

    fn forwarded(request: Received, rules: &Rules) -> Vec<String> {
        let request = canonicalize(request, rules).expect("accepted");
        request.headers().iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn only_listed_headers_leave_in_one_form() {
        let headers = [
            ("X-Trace", " a\t b  c "),
            ("accept", "*/*"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("x-unlisted", "\u{e9}"),
            ("interlock-x", "1"),
            ("idempotency-key", "k-1"),
            ("connection", "Keep-Alive, close"),
            ("te", "Trailers"),
            ("expect", "100-Continue"),
            ("want-receipt", "proof"),
            ("content-encoding", "Identity"),
            ("content-length", "0"),
            ("content-type", "text/csv"),
            ("x-api-key", "secret"),
        ];
        let expected = ["host: upstream.example", "accept: */*", "idempotency-key: k-1", "x-trace: a\t b  c"];
        assert_eq!(forwarded(get(&headers), &rules(BodyRules::None)), expected);
        let without_connection: Vec<_> = headers.into_iter().filter(|h| h.0 != "connection").collect();
        assert_eq!(forwarded(on_http2(&without_connection), &rules(BodyRules::None)), expected);
    }

    #[test]
    fn what_has_two_readings_is_refused_by_name() {
        use ReasonCode as Code;
        let key = "k".repeat(256);
        for (headers, code, name) in [
            (&[("accept", "a"), ("accept", "a")][..], Code::HeaderDuplicate, "accept"),
            (&[("idempotency-key", "a"), ("idempotency-key", "a")], Code::HeaderDuplicate, "idempotency-key"),
            (&[("content-type", "a/b"), ("content-type", "a/b")], Code::HeaderDuplicate, "content-type"),
            (&[("accept", "\u{e9}")], Code::HeaderValueInvalid, "accept"),
            (&[("accept", "")], Code::HeaderValueInvalid, "accept"),
            (&[("accept", " \t ")], Code::HeaderValueInvalid, "accept"),
            (&[("idempotency-key", "a b")], Code::IdempotencyKeyInvalid, "idempotency-key"),
            (&[("idempotency-key", "")], Code::IdempotencyKeyInvalid, "idempotency-key"),
            (&[("idempotency-key", &key)], Code::IdempotencyKeyInvalid, "idempotency-key"),
            (&[("authorization", "Bearer x")], Code::HeaderCredentialSent, "authorization"),
            (&[("connection", "x-trace")], Code::HeaderHopByHop, "connection"),
            (&[("connection", "close, x-trace")], Code::HeaderHopByHop, "connection"),
            (&[("connection", "close"), ("connection", "upgrade")], Code::HeaderHopByHop, "connection"),
            (&[("connection", "")], Code::HeaderHopByHop, "connection"),
            (&[("keep-alive", "timeout=5")], Code::HeaderHopByHop, "keep-alive"),
            (&[("proxy-connection", "close")], Code::HeaderHopByHop, "proxy-connection"),
            (&[("proxy-authorization", "Basic x")], Code::HeaderHopByHop, "proxy-authorization"),
            (&[("proxy-authenticate", "Basic")], Code::HeaderHopByHop, "proxy-authenticate"),
            (&[("te", "gzip")], Code::HeaderHopByHop, "te"),
            (&[("te", "trailers"), ("te", "gzip")], Code::HeaderHopByHop, "te"),
            (&[("trailer", "x")], Code::TrailersRefused, "trailer"),
            (&[("upgrade", "websocket")], Code::UpgradeRefused, "upgrade"),
            (&[("http2-settings", "x")], Code::UpgradeRefused, "http2-settings"),
            (&[("x-http-method-override", "PUT")], Code::HeaderMethodOverride, "x-http-method-override"),
            (&[("x-http-method", "PUT")], Code::HeaderMethodOverride, "x-http-method"),
            (&[("x-method-override", "PUT")], Code::HeaderMethodOverride, "x-method-override"),
            (&[("content-encoding", "gzip")], Code::ContentEncodingUnsupported, "content-encoding"),
            (&[("content-encoding", "identity, gzip")], Code::ContentEncodingUnsupported, "content-encoding"),
            (&[("want-receipt", "cose")], Code::WantReceiptInvalid, "want-receipt"),
            (&[("want-receipt", "proof"), ("want-receipt", "proof")], Code::HeaderDuplicate, "want-receipt"),
            (&[("expect", "200-ok")], Code::ExpectationUnsupported, "expect"),
            (
                &[("transfer-encoding", "gzip, chunked")],
                Code::TransferEncodingUnsupported,
                "transfer-encoding",
            ),
            (&[("transfer-encoding", "identity")], Code::TransferEncodingUnsupported, "transfer-encoding"),
            (
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Code::TransferEncodingUnsupported,
                "transfer-encoding",
            ),
            (
                &[("content-length", "0"), ("content-length", "0")],
                Code::ContentLengthInvalid,
                "content-length",
            ),
            (&[("content-length", "+0")], Code::ContentLengthInvalid, "content-length"),
            (&[("content-length", "0, 0")], Code::ContentLengthInvalid, "content-length"),
            (&[("content-length", "")], Code::ContentLengthInvalid, "content-length"),
            (&[("content-length", "1")], Code::ContentLengthMismatch, "content-length"),
            (
                &[("content-length", "99999999999999999999999999")],
                Code::ContentLengthMismatch,
                "content-length",
            ),
            (
                &[("content-length", "0"), ("transfer-encoding", "chunked")],
                Code::FramingConflict,
                "content-length",
            ),
        ] {
            let expected = (code, format!("header `{name}`"));
            assert_eq!(refusal(get(headers), &rules(BodyRules::None)), expected, "{headers:?}");
        }
    }

    #[test]
    fn connection_specific_headers_do_not_exist_on_http2() {
        for (name, value, code) in [
            ("connection", "close", ReasonCode::HeaderHopByHop),
            ("keep-alive", "timeout=5", ReasonCode::HeaderHopByHop),
            ("proxy-connection", "close", ReasonCode::HeaderHopByHop),
            ("transfer-encoding", "chunked", ReasonCode::HeaderHopByHop),
            ("upgrade", "h2c", ReasonCode::UpgradeRefused),
            ("te", "gzip", ReasonCode::HeaderHopByHop),
        ] {
            let refused = refusal(on_http2(&[(name, value)]), &rules(BodyRules::None));
            assert_eq!(refused, (code, format!("header `{name}`")));
        }
    }

    #[test]
    fn a_chunked_body_is_forwarded_with_its_length() {
        let opaque = BodyRules::Opaque { media_types: ["a/b".into()].into(), required: Required::Required };
        let headers = [("transfer-encoding", "Chunked"), ("content-type", "a/b")];
        let request = received("POST", "/", &headers, "abc");
        let expected = ["host: upstream.example", "content-length: 3", "content-type: a/b"];
        assert_eq!(forwarded(request, &rules(opaque)), expected);
    }

    #[test]
    fn a_sent_credential_is_refused_or_dropped_as_the_route_says() {
        let mut rules = rules(BodyRules::None);
        let request = || get(&[("authorization", "Bearer caller")]);
        let slot = rules.credential.as_mut().expect("a slot");
        slot.when_sent = WhenSent::Drop;
        assert_eq!(forwarded(request(), &rules), ["host: upstream.example"]);
        // Identity has read it: it is the caller's own credential, and stays here.
        rules.credential.as_mut().expect("a slot").when_sent = WhenSent::Refuse;
        rules.identity_headers.insert("authorization".into());
        assert_eq!(forwarded(request(), &rules), ["host: upstream.example"]);
        // Without a slot of that name it is a header like any other.
        rules.identity_headers.clear();
        rules.credential = None;
        assert_eq!(forwarded(request(), &rules), ["host: upstream.example", "authorization: Bearer caller"]);
    }

    #[test]
    fn a_route_may_need_an_idempotency_key_without_forwarding_it() {
        let mut rules = rules(BodyRules::None);
        rules.idempotency_key = Required::Required;
        rules.forward_headers.clear();
        let missing = (ReasonCode::IdempotencyKeyMissing, "header `idempotency-key`".to_owned());
        assert_eq!(refusal(get(&[]), &rules), missing);
        let request = canonicalize(get(&[("idempotency-key", "k")]), &rules).expect("accepted");
        assert_eq!(request.idempotency_key().map(IdempotencyKey::as_str), Some("k"));
        assert_eq!(request.headers().len(), 1);
    }

    #[test]
    fn only_plain_lowercase_names_are_forwardable() {
        for name in ["accept", "x-api-key", "idempotency-key", "authorization", "cookie"] {
            assert!(is_forwardable(name), "{name}");
        }
        for name in [
            "",
            "Accept",
            "x y",
            "host",
            "content-length",
            "te",
            "want-receipt",
            "proxy-x",
            "interlock-a",
            "trailer",
        ] {
            assert!(!is_forwardable(name), "{name}");
        }
    }
}
