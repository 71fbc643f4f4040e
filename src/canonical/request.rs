//! The received request, the canonical one, and the unit of control.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::message::Wire;
use super::target::CanonicalTarget;
use super::{Malformed, Rules};
use crate::model::entry::BodyForm;
use crate::model::{ActionName, Actor, Digest, IdempotencyKey, Json, SurfaceName};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http11,
    Http2,
}

/// The head of a request as it came, after the transport's own checks.
#[derive(Clone, Debug)]
pub struct ReceivedHead {
    pub version: Version,
    pub method: http::Method,
    /// HTTP/1.1: the target's exact bytes. HTTP/2: `:path`.
    pub target: String,
    /// HTTP/2 only: `:authority`.
    pub authority: Option<String>,
    pub headers: HeaderMap,
}

/// A whole request, bounded, untrusted.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: ReceivedHead,
    pub body: Bytes,
}

/// What policy sees of the body.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyBody {
    /// A json body, or a form as nested objects.
    Value(Json),
    /// An opaque body, or none: policy has size, media type and digest.
    Absent,
}

/// The request in its one form. Owns the bytes that will be written; nothing can change them.
#[derive(Debug)]
pub struct CanonicalRequest {
    wire: Wire,
    method: http::Method,
    target: Arc<str>,
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
    let _ = (received, target, params, rules);
    todo!()
}

impl CanonicalRequest {
    pub fn method(&self) -> &http::Method {
        &self.method
    }

    /// Path and query as written on the wire.
    pub fn target(&self) -> &Arc<str> {
        &self.target
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
        todo!()
    }

    pub fn body(&self) -> &PolicyBody {
        &self.body
    }

    pub fn media_type(&self) -> Option<&Arc<str>> {
        self.media_type.as_ref()
    }

    /// Of the forwarded body, bytes.
    pub fn size(&self) -> u64 {
        todo!()
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
