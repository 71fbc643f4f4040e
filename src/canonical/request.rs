//! The received request, the canonical one, and the unit of control.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::message::Wire;
use super::target::CanonicalTarget;
use super::{Malformed, Rules, body, headers};
use crate::model::entry::BodyForm;
use crate::model::{ActionName, Actor, Digest, IdempotencyKey, Json, Place, ReasonCode, SurfaceName};

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
#[derive(Debug)]
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
