//! Who asks, proved. API keys now; the trait is ready for mTLS and JWT.

use std::sync::Arc;

use http::HeaderMap;

use crate::model::{Actor, ReasonCode};

/// What a connection and a request put forward to prove who they are.
pub struct Presented<'a> {
    pub headers: &'a HeaderMap,
    /// DER of the client's verified certificate chain, leaf first; empty without mTLS.
    pub peer_certificates: &'a [rustls_pki_types::CertificateDer<'a>],
}

/// Nobody was proved. Holds one of the `Unauthenticated` class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthenticated(pub ReasonCode);

/// One way to prove an identity.
pub trait Identity: Send + Sync {
    /// `Ok(None)`: nothing of this kind was presented. `Err`: something was, and it is not valid.
    fn authenticate(&self, presented: &Presented<'_>) -> Result<Option<Arc<Actor>>, Unauthenticated>;
}
