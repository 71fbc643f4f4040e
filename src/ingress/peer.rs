//! TLS of a listener as it is in force, and the client's certificate on one connection.
//!
//! Certificates, roots and lists of revoked certificates are exchanged while the gateway runs. A connection was
//! verified under those of its handshake; [`Peer::certificate`] verifies again under those of now before a request is
//! believed, when they are others or when the last time is long enough ago for a list to have ended.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::authority::{PeerCertificate, fault_of_handshake};
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::model::CredentialFault;

/// What a listener serves TLS with.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// What client certificates are verified with; `None`: none is asked for.
    pub client: Option<Arc<dyn ClientCertVerifier>>,
}

/// TLS that can be exchanged; each accept reads what is in force.
pub type SharedTls = Arc<ArcSwap<ServerTls>>;

/// A client that presented a certificate.
pub struct Peer {
    certificate: PeerCertificate,
    verified: ArcSwap<Verified>,
}

struct Verified {
    under: Arc<ServerTls>,
    at: Moment,
}

impl Peer {
    /// After a handshake under `tls` that has verified this chain.
    pub fn new(chain: &[CertificateDer<'_>], under: Arc<ServerTls>, clock: &Clock) -> Option<Arc<Self>> {
        let certificate = PeerCertificate::new(chain)?;
        let verified = ArcSwap::from_pointee(Verified { under, at: clock.monotonic() });
        Some(Arc::new(Self { certificate, verified }))
    }

    /// The certificate, if it is good under what is in force now.
    pub fn certificate(
        &self,
        current: &ArcSwap<ServerTls>,
        clock: &Clock,
    ) -> Result<&PeerCertificate, CredentialFault> {
        let (now, under) = (clock.monotonic(), current.load_full());
        let last = self.verified.load();
        let age_max = Duration::from_millis(limits::PEER_VERIFIED_MS_MAX);
        if Arc::ptr_eq(&last.under, &under) && now.since(last.at) <= age_max {
            return Ok(&self.certificate);
        }
        let verifier = under.client.as_ref().ok_or(CredentialFault::CertificateUntrusted)?;
        let (leaf, others) =
            self.certificate.chain().split_first().ok_or(CredentialFault::CertificateMissing)?;
        let wall = UnixTime::since_unix_epoch(Duration::from_nanos(clock.wall().unix_ns()));
        verifier
            .verify_client_cert(leaf, others, wall)
            .map_err(|error| fault_of_handshake(&error).unwrap_or(CredentialFault::CertificateRefused))?;
        self.verified.store(Arc::new(Verified { under, at: now }));
        Ok(&self.certificate)
    }
}
