//! A proved identity. Only `authority` makes one, from a credential it has checked.

use serde::{Deserialize, Serialize};

use super::{ActorId, Digest, Json};
use crate::clock::WallTime;

/// How an identity was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticationMethod {
    Mtls,
    Jwt,
    ApiKey,
}

impl AuthenticationMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Jwt => "jwt",
            Self::ApiKey => "api_key",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Actor {
    pub id: ActorId,
    pub method: AuthenticationMethod,
    /// Digest of the credential that proved it, so that a receipt can tell two keys of one actor apart.
    /// Never the digest of a guessable secret: an API key has at least 128 random bits.
    pub credential_digest: Option<Digest>,
    /// What the credential says about the actor; an object.
    pub claims: Json,
    /// From when on the credential proves nothing. Looked at again at the instant of sending.
    pub valid_until: Option<WallTime>,
}
