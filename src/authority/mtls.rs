//! Client certificates: a verified chain in, a SPIFFE ID out (X.509-SVID specification).
//!
//! The chain was verified in the handshake, by webpki. [`PeerCertificate`] takes the leaf's URI from that same parser
//! and demands that a second one reads the same: webpki leaves out names it cannot read, and a name that is left
//! out must not turn two into one. The common name is never looked at.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::Unauthenticated;
use super::spiffe::{PathPattern, SpiffeId, TrustDomain};
use crate::clock::WallTime;
use crate::limits;
use crate::model::{Actor, ActorId, AuthenticationMethod, CredentialFault, Digest, Json};

/// The certificates of a connection, verified in its handshake.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// SHA-256 of the leaf's DER, as `x5t#S256` has it (RFC 8705 section 3.1).
    thumbprint: Digest,
    leaf: Result<Leaf, CredentialFault>,
}

#[derive(Clone, Debug)]
struct Leaf {
    id: SpiffeId,
    actor_id: ActorId,
    /// Of the first instant after `notAfter`, which itself is still valid (RFC 5280 section 4.1.2.5).
    valid_until: WallTime,
    serial: String,
    issuer: String,
}

impl PeerCertificate {
    /// Leaf first, as rustls gives them. `None`: the client sent none.
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let first = chain.first()?;
        let (thumbprint, leaf) = (Digest::of(first), read_leaf(first));
        Some(Self { thumbprint, leaf, chain })
    }

    /// Leaf first; at least one.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub const fn thumbprint(&self) -> Digest {
        self.thumbprint
    }

    /// The workload or person that the leaf is of, if both parsers read the same one and nothing else.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.leaf.as_ref().ok().map(|leaf| &leaf.id)
    }
}

/// Which workloads a surface takes.
#[derive(Clone, Debug)]
pub struct MtlsIdentity {
    /// At least one.
    pub trust_domains: Vec<TrustDomain>,
    /// At least one; a path must fit one.
    pub paths: Vec<PathPattern>,
}

impl MtlsIdentity {
    /// Whether a certificate of this workload proves an actor here, if it is good.
    pub fn takes(&self, id: &SpiffeId) -> bool {
        self.trust_domains.iter().any(|allowed| allowed.as_str() == id.trust_domain())
            && self.paths.iter().any(|pattern| pattern.fits(id.path()))
    }

    pub(super) fn prove(&self, presented: &PeerCertificate, now: WallTime) -> Result<Actor, Unauthenticated> {
        let leaf = presented.leaf.as_ref().map_err(|fault| Unauthenticated(*fault))?;
        let domain = leaf.id.trust_domain();
        if !self.trust_domains.iter().any(|allowed| allowed.as_str() == domain) {
            return Err(Unauthenticated(CredentialFault::SpiffeTrustDomain));
        }
        if !self.paths.iter().any(|pattern| pattern.fits(leaf.id.path())) {
            return Err(Unauthenticated(CredentialFault::SpiffePath));
        }
        // The handshake may have been long ago.
        if now >= leaf.valid_until {
            return Err(Unauthenticated(CredentialFault::CertificateExpired));
        }
        Ok(Actor {
            id: leaf.actor_id.clone(),
            method: AuthenticationMethod::Mtls,
            credential_digest: Some(presented.thumbprint),
            claims: leaf.claims(),
            valid_until: Some(leaf.valid_until),
        })
    }
}

impl Leaf {
    fn claims(&self) -> Json {
        Json::object([
            ("issuer", Json::string(&self.issuer)),
            ("path", Json::string(self.id.path())),
            ("serial", Json::string(&self.serial)),
            ("spiffe_id", Json::string(self.id.as_str())),
            ("trust_domain", Json::string(self.id.trust_domain())),
        ])
    }
}

fn read_leaf(der: &CertificateDer<'_>) -> Result<Leaf, CredentialFault> {
    let malformed = CredentialFault::CertificateMalformed;
    let verified = webpki::EndEntityCert::try_from(der).map_err(|_| malformed)?;
    let (rest, shown) = X509Certificate::from_der(der).map_err(|_| malformed)?;
    if !rest.is_empty() {
        return Err(malformed);
    }
    let names: Vec<&str> = verified.valid_uri_names().take(2).collect();
    let shown_names = uris(&shown)?;
    let uri = match (&names[..], &shown_names[..]) {
        ([], []) => return Err(CredentialFault::SpiffeMissing),
        ([_, _, ..], _) | (_, [_, _, ..]) => return Err(CredentialFault::SpiffeSeveral),
        ([one], [same]) if one == same => *one,
        ([], [_]) | ([_], [] | [_]) => return Err(malformed),
    };
    // X.509-SVID section 4.3: a leaf signs no certificates and no lists.
    let usage = shown.key_usage().map_err(|_| malformed)?;
    if usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
        return Err(CredentialFault::CertificateRefused);
    }
    let id: SpiffeId = uri.parse().map_err(|_| CredentialFault::SpiffeMalformed)?;
    let actor_id = id.as_str().parse().map_err(|_| CredentialFault::SpiffeMalformed)?;
    let not_after = u64::try_from(shown.validity().not_after.timestamp()).map_err(|_| malformed)?;
    Ok(Leaf {
        id,
        actor_id,
        valid_until: end_of_second(not_after),
        serial: verified.serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        issuer: bounded(&shown.issuer().to_string()),
    })
}

/// A time beyond what a `WallTime` holds is as good as its end.
fn end_of_second(seconds: u64) -> WallTime {
    WallTime::from_unix_ns(seconds.saturating_add(1).saturating_mul(1_000_000_000))
}

/// Every URI that the second parser sees. A name it cannot read makes the certificate unreadable.
fn uris<'c>(certificate: &'c X509Certificate<'_>) -> Result<Vec<&'c str>, CredentialFault> {
    let malformed = CredentialFault::CertificateMalformed;
    let Some(names) = certificate.subject_alternative_name().map_err(|_| malformed)? else {
        return Ok(Vec::new());
    };
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(malformed),
            // Other kinds of names neither help nor harm.
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    Ok(uris)
}

/// A name of the issuer is for people and policies; it is cut where it is longer than any real one.
fn bounded(text: &str) -> String {
    text.chars().take(limits::SPIFFE_ID_BYTES_MAX / 4).collect()
}

/// What a handshake refused, if it was the client's certificate.
pub fn fault_of_handshake(error: &rustls::Error) -> Option<CredentialFault> {
    use rustls::{CertificateError, Error};
    match error {
        Error::NoCertificatesPresented => Some(CredentialFault::CertificateMissing),
        Error::InvalidCertificate(why) => Some(match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                CredentialFault::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CredentialFault::CertificateNotYetValid
            }
            CertificateError::Revoked => CredentialFault::CertificateRevoked,
            // A root of the same name with another key is another root.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                CredentialFault::CertificateUntrusted
            }
            CertificateError::UnknownRevocationStatus => CredentialFault::RevocationUnknown,
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => CredentialFault::RevocationListExpired,
            CertificateError::BadEncoding => CredentialFault::CertificateMalformed,
            // Not an enum of ours, and open: wrong purpose, and what later versions add.
            _ => CredentialFault::CertificateRefused,
        }),
        _ => None,
    }
}
