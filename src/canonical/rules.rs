//! What a route declares about the form of its requests. Built by `config`, read here.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::canonical::schema::Schema;
use crate::canonical::target::PathAllowances;
use crate::model::{Redaction, SecretName};

/// The rules of one route.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Written as `host`: the upstream's authority.
    pub upstream_authority: Arc<str>,
    pub body: BodyRules,
    /// Largest body that is read, bytes; for [`BodyRules::None`] no body at all is accepted.
    pub body_bytes_max: usize,
    /// What does not fit never reaches policy. For json and form bodies.
    pub schema: Option<Arc<Schema>>,
    /// Lowercase names that are forwarded when sent; everything else stays here.
    pub forward_headers: BTreeSet<Arc<str>>,
    /// Lowercase names that identity reads (`authorization`, `x-api-key`): never forwarded.
    pub identity_headers: BTreeSet<Arc<str>>,
    pub credential: Option<CredentialSlot>,
    pub path: PathAllowances,
    /// Query names that may repeat; policy sees them as lists, always. Names ending in `[]` always are.
    pub query_lists: BTreeSet<Arc<str>>,
    pub idempotency_key: Required,
    /// What of these requests never reaches the disk. With one, names that redacted JSON reserves are refused.
    pub redaction: Option<Arc<Redaction>>,
}

/// How a body is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyRules {
    None,
    Json {
        forward: Forward,
        required: Required,
    },
    Form {
        required: Required,
    },
    /// Any of these media types (lowercase `type/subtype`); policy sees size, media type and digest.
    Opaque {
        media_types: BTreeSet<Arc<str>>,
        required: Required,
    },
}

/// Which bytes of a JSON body leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The RFC 8785 form.
    Canonical,
    /// The caller's own bytes, after the same refusals.
    Verbatim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required {
    Required,
    Optional,
}

/// The header slot that the gateway fills with a secret inside the sealed bytes.
#[derive(Clone, Debug)]
pub struct CredentialSlot {
    /// Lowercase.
    pub header: Arc<str>,
    pub secret: SecretName,
    /// Written before the secret, such as `Bearer `.
    pub prefix: Arc<str>,
    pub when_sent: WhenSent,
}

/// What happens to a header of the slot's name that the caller sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenSent {
    Refuse,
    Drop,
}
