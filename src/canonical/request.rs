//! The received request, the canonical one, and the unit of control.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::message::Wire;
use super::target::CanonicalTarget;
use super::{Malformed, Rules, body, headers};
use crate::model::entry::BodyForm;
use crate::model::{
    ActionName, Actor, Digest, IdempotencyKey, Json, Place, ReasonCode, Redaction, SurfaceName, reserved_name,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http11,
    Http2,
}

/// The head of a request as it came, after the transport's own checks.
#[derive(Clone)]
pub struct ReceivedHead {
    pub version: Version,
    pub method: http::Method,
    /// HTTP/1.1: the target's exact bytes. HTTP/2: `:path`.
    pub target: String,
    /// HTTP/2 only: `:authority`.
    pub authority: Option<String>,
    pub headers: HeaderMap,
}

/// Without targets and values, which may hold credentials.
impl fmt::Debug for ReceivedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedHead")
            .field("version", &self.version)
            .field("method", &self.method)
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

/// A whole request, bounded, untrusted.
#[derive(Clone)]
pub struct Received {
    pub head: ReceivedHead,
    pub body: Bytes,
}

/// Without the body.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Received");
        out.field("head", &self.head).field("body_bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// What policy sees of the body.
#[derive(Clone, PartialEq)]
pub enum PolicyBody {
    /// A json body, or a form as nested objects.
    Value(Json),
    /// An opaque body, or none: policy has size, media type and digest.
    Absent,
}

/// Without the value.
impl fmt::Debug for PolicyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value(..)",
            Self::Absent => "Absent",
        })
    }
}

/// The request in its one form. Owns the bytes that will be written; nothing can change them.
pub struct CanonicalRequest {
    wire: Wire,
    path: Arc<str>,
    params: Vec<(Arc<str>, String)>,
    query: Json,
    headers: Vec<(Arc<str>, Arc<str>)>,
    body: PolicyBody,
    media_type: Option<Arc<str>>,
    idempotency_key: Option<IdempotencyKey>,
    form: BodyForm,
    digest: Digest,
    body_digest: Digest,
    received_digest: Digest,
    redaction: Option<Arc<Redaction>>,
}

/// Without path, query, headers and body: any of them may hold what no log may.
impl fmt::Debug for CanonicalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CanonicalRequest")
            .field("method", &self.wire.method)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Takes what was received into its one form under the rules of its route.
///
/// `params` are the path parameters as the route matched them, percent-decoded.
pub fn canonicalize(
    received: Received,
    target: CanonicalTarget,
    params: Vec<(Arc<str>, String)>,
    rules: &Rules,
) -> Result<CanonicalRequest, Malformed> {
    let Received { head, body: received_body } = received;
    check_method(&head.method)?;
    target.check_path(rules.path)?;
    let query = target.query_object(&rules.query_lists)?;
    let headers::ReadHeaders { forwarded: mut fields, content_type, idempotency_key } =
        headers::read(&head, received_body.len(), rules)?;
    let body = body::read(received_body.clone(), content_type, rules)?;
    if rules.redaction.is_some() {
        check_names(&query, &body.policy)?;
    }

    // Framing is our own. A body has its exact length; without one, the methods that usually have one say so.
    let is_usual = matches!(head.method.as_str(), "POST" | "PUT" | "PATCH");
    if body.form != BodyForm::None || is_usual {
        fields.push(("content-length".into(), body.bytes.len().to_string().into()));
    }
    let media_type = body.media_type.map(|(essence, written)| {
        fields.push(("content-type".into(), written));
        essence
    });

    let received_digest = Digest::of(&received_body);
    let body_digest = if body.bytes == received_body { received_digest } else { Digest::of(&body.bytes) };
    let (path, target) = target.into_path_and_target();
    let (authority, credential) = (rules.upstream_authority.clone(), rules.credential.as_ref());
    let wire = Wire::new(head.method, target, authority, fields, credential, body.bytes);
    let is_visible = |name: &Arc<str>| credential.is_none_or(|slot| slot.header != *name);
    Ok(CanonicalRequest {
        headers: wire.fields.iter().filter(|(name, _)| is_visible(name)).cloned().collect(),
        digest: wire.digest(),
        wire,
        path,
        params,
        query,
        body: body.policy,
        media_type,
        idempotency_key,
        form: body.form,
        body_digest,
        received_digest,
        redaction: rules.redaction.clone(),
    })
}

/// A plain uppercase word. CONNECT makes a tunnel, TRACE answers with what it was sent, PRI opens HTTP/2.
fn check_method(method: &http::Method) -> Result<(), Malformed> {
    let text = method.as_str();
    let is_plain = text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    let code = match text {
        "CONNECT" => ReasonCode::UpgradeRefused,
        "TRACE" | "PRI" => ReasonCode::MethodInvalid,
        _ if is_plain => return Ok(()),
        _ => ReasonCode::MethodInvalid,
    };
    Err(Malformed { code, place: Some(Place::HeadByte(0)), detail: None })
}

/// Redacted JSON gives two names a meaning of their own, so no member may come with one.
fn check_names(query: &Json, body: &PolicyBody) -> Result<(), Malformed> {
    let body = match body {
        PolicyBody::Value(body) => reserved_name(body),
        PolicyBody::Absent => None,
    };
    let place = match (reserved_name(query), body) {
        (Some(pointer), _) => Place::Query(pointer.trim_start_matches('/').to_owned()),
        (None, Some(pointer)) => Place::Json { byte: 0, pointer },
        (None, None) => return Ok(()),
    };
    Err(Malformed::new(ReasonCode::NameReserved, place))
}

impl CanonicalRequest {
    pub fn method(&self) -> &http::Method {
        &self.wire.method
    }

    /// Path and query as written on the wire.
    pub fn target(&self) -> &Arc<str> {
        &self.wire.target
    }

    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    pub fn params(&self) -> &[(Arc<str>, String)] {
        &self.params
    }

    /// An object: name to string, or to a list of strings for declared list names.
    pub fn query(&self) -> &Json {
        &self.query
    }

    /// Every header of the message but the credential's, as written, in the order written.
    pub fn headers(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.headers
    }

    /// The authority written as `host`.
    pub fn authority(&self) -> &str {
        // `Wire::new` writes `host` first.
        &self.wire.fields[0].1
    }

    pub fn body(&self) -> &PolicyBody {
        &self.body
    }

    pub fn media_type(&self) -> Option<&Arc<str>> {
        self.media_type.as_ref()
    }

    /// Of the forwarded body, bytes.
    pub fn size(&self) -> u64 {
        self.wire.body.len() as u64
    }

    pub fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.idempotency_key.as_ref()
    }

    pub fn form(&self) -> BodyForm {
        self.form
    }

    /// SHA-256 of the message to be written, with `{credential:NAME}` in the slot.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn body_digest(&self) -> Digest {
        self.body_digest
    }

    pub fn received_digest(&self) -> Digest {
        self.received_digest
    }

    /// What of this request never reaches the disk.
    pub fn redaction(&self) -> Option<&Redaction> {
        self.redaction.as_deref()
    }

    /// The bytes. Called by `upstream::permit` alone; `tests/architecture.rs` holds that.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }
}

/// Surface, action, actor and canonical request: the unit of control.
#[derive(Debug)]
pub struct ExecutionRequest {
    pub surface: SurfaceName,
    pub action: ActionName,
    pub actor: Arc<Actor>,
    /// A well-formed W3C `traceparent` the caller sent.
    pub trace: Option<Arc<str>>,
    pub request: CanonicalRequest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{JSON, read, received, refusal, rules};
    use crate::canonical::{BodyRules, Forward, Required};

    const JSON_TYPE: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn the_digest_is_of_exactly_the_bytes_that_will_be_written() {
        let request = received("POST", "/v1/%63?b=1+2", &[JSON_TYPE, ("accept", "*/*")], r#"{ "a": 1.0 }"#);
        let request = read(request, &rules(JSON)).expect("accepted");
        let message = "POST /v1/c?b=1%202 HTTP/1.1\r\nhost: upstream.example\r\naccept: */*\r\n\
                       authorization: Bearer {credential:stripe}\r\ncontent-length: 7\r\n\
                       content-type: application/json\r\n\r\n{\"a\":1}";
        assert_eq!(request.digest(), Digest::of(message.as_bytes()));
        assert_eq!(request.body_digest(), Digest::of(b"{\"a\":1}"));
        assert_eq!(request.received_digest(), Digest::of(b"{ \"a\": 1.0 }"));
        assert_eq!((&**request.path(), &**request.target(), request.size()), ("/v1/c", "/v1/c?b=1%202", 7));
        assert_eq!((request.method().as_str(), request.authority()), ("POST", "upstream.example"));
        assert_eq!(*request.query(), Json::object([("b", Json::string("1 2"))]));
        assert!(request.headers().iter().all(|(name, _)| &**name != "authorization"));
        assert_eq!(request.headers().len(), 4);
        let wire = request.wire();
        assert_eq!([&wire.head[..], &wire.body[..]].concat(), message.as_bytes());
    }

    #[test]
    fn digests_of_a_body_that_stays_as_it_came_are_equal() {
        let verbatim = rules(BodyRules::Json { forward: Forward::Verbatim, required: Required::Required });
        let request = read(received("POST", "/", &[JSON_TYPE], "{ }"), &verbatim).expect("accepted");
        assert_eq!(request.body_digest(), request.received_digest());
        assert_eq!(request.received_digest(), Digest::of(b"{ }"));
    }

    #[test]
    fn a_message_without_a_body_has_a_length_only_where_one_is_usual() {
        for (method, has_length) in [
            ("GET", false),
            ("HEAD", false),
            ("DELETE", false),
            ("OPTIONS", false),
            ("PURGE", false),
            ("POST", true),
            ("PUT", true),
            ("PATCH", true),
        ] {
            let request = read(received(method, "/", &[], ""), &rules(BodyRules::None)).expect(method);
            let length = request.headers().iter().find(|(name, _)| &**name == "content-length");
            assert_eq!(length.map(|(_, value)| &**value), has_length.then_some("0"), "{method}");
        }
    }

    #[test]
    fn a_method_is_a_plain_uppercase_word() {
        for method in ["GET", "VERSION-CONTROL", "PURGE"] {
            assert!(read(received(method, "/", &[], ""), &rules(BodyRules::None)).is_ok(), "{method}");
        }
        for (method, code) in [
            ("CONNECT", ReasonCode::UpgradeRefused),
            ("TRACE", ReasonCode::MethodInvalid),
            ("PRI", ReasonCode::MethodInvalid),
            ("get", ReasonCode::MethodInvalid),
            ("Get", ReasonCode::MethodInvalid),
            ("GE_T", ReasonCode::MethodInvalid),
            ("-GET", ReasonCode::MethodInvalid),
        ] {
            let place = "message head, byte 0".to_owned();
            assert_eq!(
                refusal(received(method, "/", &[], ""), &rules(BodyRules::None)),
                (code, place),
                "{method}"
            );
        }
    }

    #[test]
    fn path_and_query_are_judged_under_the_rules_of_the_route() {
        let mut rules = rules(BodyRules::None);
        let path = received("GET", "/a;b", &[], "");
        assert_eq!(refusal(path.clone(), &rules).0, ReasonCode::TargetParameters);
        let query = received("GET", "/?a=1&a=2", &[], "");
        assert_eq!(refusal(query.clone(), &rules).0, ReasonCode::QueryDuplicate);
        rules.path.parameters = true;
        rules.query_lists.insert("a".into());
        assert!(read(path, &rules).is_ok() && read(query, &rules).is_ok());
    }

    #[test]
    fn debugging_a_request_never_prints_values() {
        let headers = [JSON_TYPE, ("x-api-key", "hunter2"), ("accept", "hunter2")];
        let request = received("POST", "/hunter2?a=hunter2", &headers, "\"hunter2\"");
        assert!(!format!("{request:?}").contains("hunter2"));
        let request = read(request, &rules(JSON)).expect("accepted");
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn names_that_stand_for_redacted_values_are_refused_where_values_are_redacted() {
        let mut json = rules(JSON);
        let body = |text| received("POST", "/", &[JSON_TYPE], text);
        for text in [r#"{"_sd":[]}"#, r#"{"a":[{"...":"x"}]}"#] {
            assert!(read(body(text), &json).is_ok(), "{text}");
        }
        json.redaction =
            Redaction::new(&["/request/body/pin".parse().expect("a pointer")], false).map(Arc::new);
        let reserved = |place: &str| (ReasonCode::NameReserved, place.to_owned());
        assert_eq!(refusal(body(r#"{"_sd":[]}"#), &json), reserved("body at `/_sd` (byte 0)"));
        assert_eq!(refusal(body(r#"{"a":[{"...":1}]}"#), &json), reserved("body at `/a/0/...` (byte 0)"));
        let query = received("POST", "/?_sd=1", &[JSON_TYPE], "{}");
        assert_eq!(refusal(query, &json), reserved("query parameter `_sd`"));
        assert!(read(body(r#"{"_sd_":1,"..":2}"#), &json).is_ok());
    }
}
