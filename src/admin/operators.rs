//! Who may operate the gateway, and how they prove it.
//!
//! In: what a connection and a request put forward. Out: one [`Operator`], or why nobody was proved. An operator is
//! found by exactly one credential and proves everything that config lists for it: a token, a client certificate, the
//! user of the process at the other end of the Unix socket. Nothing an agent proves itself with is looked at here, and
//! config keeps the tokens of the two apart ([`TOKEN_START`]). Tokens are stored and compared as in
//! [`crate::authority::ApiKeys`], and certificates are read as agents' are ([`PeerCertificate`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};

use crate::authority::{KeyPrefix, PeerCertificate};
use crate::clock::WallTime;
use crate::limits;
use crate::model::Digest;
use crate::model::entry::{OperatorEntry, Role};

/// Every operator's token starts so, and no API key does.
pub const TOKEN_START: &str = "ilo_";

/// One who may operate, by one set of proofs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    pub id: Arc<str>,
    pub role: Role,
    pub token: Option<Token>,
    /// Only over TLS.
    pub certificate: Option<CertificateOf>,
    /// Of the process at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// From then on it proves nobody.
    pub not_after: Option<WallTime>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub prefix: KeyPrefix,
    /// SHA-256 of the whole token.
    pub digest: Digest,
}

/// Which client certificate, of those that the configured roots vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateOf {
    /// The only URI among its subject alternative names (X.509-SVID section 2).
    Spiffe(Arc<str>),
    /// SHA-256 of its DER.
    Fingerprint(Digest),
}

impl Operator {
    /// As leaves name it.
    pub fn entry(&self) -> OperatorEntry {
        OperatorEntry { id: self.id.clone(), role: self.role }
    }

    /// Whether this is the same person as the agent of this identity, as far as names say.
    pub fn is_agent(&self, actor: &str) -> bool {
        let certificate = match &self.certificate {
            Some(CertificateOf::Spiffe(id)) => Some(&**id),
            Some(CertificateOf::Fingerprint(_)) | None => None,
        };
        *self.id == *actor || certificate == Some(actor)
    }

    fn proves_rest(&self, presented: &Presented<'_>, now: WallTime) -> bool {
        let certificate = match (&self.certificate, presented.certificate) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(CertificateOf::Fingerprint(digest)), Some(certificate)) => {
                *digest == certificate.thumbprint()
            }
            (Some(CertificateOf::Spiffe(id)), Some(certificate)) => {
                certificate.spiffe_id().is_some_and(|own| own.as_str() == &**id)
            }
        };
        let uid = self.uid.is_none() || self.uid == presented.uid;
        certificate && uid && self.not_after.is_none_or(|end| now < end)
    }
}

/// In the words of leaves and labels.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Approver => "approver",
        Role::Operator => "operator",
        Role::Administrator => "administrator",
    }
}

/// What a connection and a request put forward.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    pub headers: &'a HeaderMap,
    /// The client's own certificate, verified against the roots.
    pub certificate: Option<&'a PeerCertificate>,
    pub uid: Option<u32>,
}

/// Nobody was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    Missing,
    Invalid,
}

/// All operators. Empty: nobody operates this gateway.
#[derive(Clone, Debug, Default)]
pub struct Operators {
    by_prefix: BTreeMap<KeyPrefix, Arc<Operator>>,
    without_token: Vec<Arc<Operator>>,
}

/// Operators that can be exchanged; each request asks what is in force.
pub type SharedOperators = Arc<ArcSwap<Operators>>;

/// Which proof is another operator's already, or why an operator cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOperator {
    #[error("another operator's token has the same prefix")]
    SamePrefix,
    #[error("another operator has the same certificate or user, and no token either")]
    SameProof,
    #[error("the operator is declared with another role already")]
    OtherRole,
    #[error("an operator needs a token (`prefix` and `sha256`), a certificate or a `uid`")]
    NoProof,
}

impl Operators {
    /// The same id may come again with the same role: so a token is replaced without a gap.
    pub fn insert(&mut self, operator: Operator) -> Result<(), NotAnOperator> {
        if self.iter().any(|other| other.id == operator.id && other.role != operator.role) {
            return Err(NotAnOperator::OtherRole);
        }
        if let Some(token) = &operator.token {
            let prefix = token.prefix.clone();
            if self.by_prefix.contains_key(&prefix) {
                return Err(NotAnOperator::SamePrefix);
            }
            self.by_prefix.insert(prefix, Arc::new(operator));
            return Ok(());
        }
        if operator.certificate.is_none() && operator.uid.is_none() {
            return Err(NotAnOperator::NoProof);
        }
        let same = |other: &Arc<Operator>| {
            (other.certificate.is_some() && other.certificate == operator.certificate)
                || (other.uid.is_some() && other.uid == operator.uid)
        };
        if self.without_token.iter().any(same) {
            return Err(NotAnOperator::SameProof);
        }
        self.without_token.push(Arc::new(operator));
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty() && self.without_token.is_empty()
    }

    /// Whether the agent of this identity is the same person as the operator, by any of the operator's entries.
    pub fn is_agent(&self, operator: &Operator, actor: &str) -> bool {
        operator.is_agent(actor) || self.iter().any(|other| other.id == operator.id && other.is_agent(actor))
    }

    /// Whether who was proved by these proofs would be proved again: for answers that last.
    pub fn still_prove(&self, operator: &Operator, presented: &Presented<'_>, now: WallTime) -> bool {
        self.iter().any(|other| **other == *operator) && operator.proves_rest(presented, now)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Operator>> {
        self.by_prefix.values().chain(&self.without_token)
    }

    /// A token that is presented decides, whichever way; nothing else is tried then.
    pub fn authenticate(&self, presented: &Presented<'_>, now: WallTime) -> Result<Arc<Operator>, Unproved> {
        let mut credentials = presented.headers.get_all(AUTHORIZATION).iter();
        let found = match (credentials.next(), credentials.next()) {
            (Some(one), None) => {
                let token = one.to_str().ok().and_then(|text| {
                    let (scheme, token) = text.split_once(' ')?;
                    scheme.eq_ignore_ascii_case("bearer").then_some(token)
                });
                self.by_token(token.unwrap_or_default())
            }
            (Some(_), Some(_)) => None,
            (None, _) => {
                let mut proved = self.without_token.iter().filter(|o| o.proves_rest(presented, now));
                return match (proved.next(), proved.next()) {
                    (Some(operator), None) => Ok(operator.clone()),
                    // A certificate that is two operators' is neither's.
                    (Some(_), Some(_)) => Err(Unproved::Invalid),
                    (None, _) => Err(Unproved::Missing),
                };
            }
        };
        found.filter(|operator| operator.proves_rest(presented, now)).cloned().ok_or(Unproved::Invalid)
    }

    /// The same steps whether or not the prefix is known.
    fn by_token(&self, token: &str) -> Option<&Arc<Operator>> {
        let digest = Digest::of(token.as_bytes());
        let prefix = token.get(..limits::API_KEY_PREFIX_BYTES).and_then(|p| p.parse::<KeyPrefix>().ok());
        let operator = prefix.and_then(|p| self.by_prefix.get(&p));
        let nothing = Digest::from_bytes([0; 32]);
        let stored = operator.and_then(|o| o.token.as_ref()).map_or(&nothing, |token| &token.digest);
        let length = (limits::API_KEY_BYTES_MIN..=limits::API_KEY_BYTES_MAX).contains(&token.len());
        let same = stored.as_bytes().ct_eq(digest.as_bytes())
            & Choice::from(u8::from(operator.is_some()))
            & Choice::from(u8::from(length));
        operator.filter(|_| bool::from(same))
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, role_name(self.role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const TOKEN: &str = "ilo_ab12cd34_0123456789abcdef0123456789abcdef";
    const NOW: WallTime = WallTime::from_unix_ns(1_000);

    fn operator(id: &str) -> Operator {
        let token = None;
        Operator { id: id.into(), role: Role::Approver, token, certificate: None, uid: None, not_after: None }
    }

    fn with_token(id: &str, token: &str) -> Operator {
        let prefix = token[..12].parse().expect("a prefix");
        Operator { token: Some(Token { prefix, digest: Digest::of(token.as_bytes()) }), ..operator(id) }
    }

    fn prove(operators: &Operators, credentials: &[&str], uid: Option<u32>) -> Result<String, Unproved> {
        let mut headers = HeaderMap::new();
        for value in credentials {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        let presented = Presented { headers: &headers, certificate: None, uid };
        operators.authenticate(&presented, NOW).map(|o| o.id.to_string())
    }

    #[test]
    fn a_token_proves_its_operator_and_nobody_else() {
        let mut operators = Operators::default();
        operators.insert(with_token("ann", TOKEN)).expect("the first");
        operators.insert(Operator { uid: Some(7), ..operator("uma") }).expect("another proof");
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(prove(&operators, &[&bearer], None), Ok("ann".into()));
        assert_eq!(prove(&operators, &[&format!("bearer {TOKEN}")], Some(7)), Ok("ann".into()));
        let wrong = format!("{bearer}x");
        let basic = format!("Basic {TOKEN}");
        for credentials in [&[&*wrong][..], &[&basic], &[TOKEN], &["Bearer "], &[&bearer, &bearer]] {
            // Also where the socket's user would do: what is presented decides.
            assert_eq!(prove(&operators, credentials, Some(7)), Err(Unproved::Invalid), "{credentials:?}");
        }
        assert_eq!(prove(&operators, &[], Some(7)), Ok("uma".into()));
        assert_eq!(prove(&operators, &[], Some(8)), Err(Unproved::Missing));
        assert_eq!(prove(&operators, &[], None), Err(Unproved::Missing));
    }

    #[test]
    fn everything_that_is_listed_has_to_be_proved() {
        let mut operators = Operators::default();
        operators.insert(Operator { uid: Some(7), ..with_token("ann", TOKEN) }).expect("the first");
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(prove(&operators, &[&bearer], Some(7)), Ok("ann".into()));
        for uid in [None, Some(8)] {
            assert_eq!(prove(&operators, &[&bearer], uid), Err(Unproved::Invalid));
        }
        assert_eq!(prove(&operators, &[], Some(7)), Err(Unproved::Missing));
        let mut ended = Operators::default();
        ended.insert(Operator { not_after: Some(NOW), ..with_token("ann", TOKEN) }).expect("the first");
        assert_eq!(prove(&ended, &[&bearer], None), Err(Unproved::Invalid));
    }

    #[test]
    fn a_proof_is_one_operators() {
        let mut operators = Operators::default();
        operators.insert(with_token("ann", TOKEN)).expect("the first");
        assert_eq!(operators.insert(with_token("bob", TOKEN)), Err(NotAnOperator::SamePrefix));
        assert_eq!(operators.insert(operator("bob")), Err(NotAnOperator::NoProof));
        let other = Operator { role: Role::Operator, uid: Some(1), ..operator("ann") };
        assert_eq!(operators.insert(other), Err(NotAnOperator::OtherRole));
        operators.insert(Operator { uid: Some(1), ..operator("ann") }).expect("a second way");
        let same = Operator { uid: Some(1), ..operator("bob") };
        assert_eq!(operators.insert(same), Err(NotAnOperator::SameProof));
    }

    fn peer(params: rcgen::CertificateParams) -> PeerCertificate {
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        PeerCertificate::new(std::slice::from_ref(made.der())).expect("one certificate")
    }

    fn certificate(uris: &[&str]) -> PeerCertificate {
        let mut params = rcgen::CertificateParams::new(vec!["ann.test".to_owned()]).expect("names");
        let uri = |uri: &&str| rcgen::SanType::URI(uri.parse().expect("ASCII"));
        params.subject_alt_names.extend(uris.iter().map(uri));
        peer(params)
    }

    /// With these as the URIs among its names, byte by byte (RFC 5280 section 4.2.1.6).
    fn certificate_of_bytes(uris: &[&[u8]]) -> PeerCertificate {
        let named = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).ok().filter(|length| *length < 128).expect("short");
            [&[tag, length], content].concat()
        };
        let names: Vec<u8> = uris.iter().flat_map(|uri| named(0x86, uri)).collect();
        let mut params = rcgen::CertificateParams::default();
        let names = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], named(0x30, &names));
        params.custom_extensions.push(names);
        peer(params)
    }

    const ANN: &str = "spiffe://ops.test/ann";

    fn with_certificates(none: &PeerCertificate) -> Operators {
        let mut operators = Operators::default();
        let spiffe = Some(CertificateOf::Spiffe(ANN.into()));
        operators.insert(Operator { certificate: spiffe, ..operator("ann") }).expect("the first");
        let fingerprint = Some(CertificateOf::Fingerprint(none.thumbprint()));
        operators.insert(Operator { certificate: fingerprint, ..operator("bob") }).expect("another");
        operators
    }

    fn proves(operators: &Operators, certificate: &PeerCertificate) -> Result<String, Unproved> {
        let headers = HeaderMap::new();
        let presented = Presented { headers: &headers, certificate: Some(certificate), uid: None };
        operators.authenticate(&presented, NOW).map(|o| o.id.to_string())
    }

    #[test]
    fn a_certificate_with_one_uri_or_a_fingerprint_proves_an_operator() {
        let none = certificate(&[]);
        let operators = with_certificates(&none);
        assert_eq!(proves(&operators, &certificate(&[ANN])), Ok("ann".into()));
        assert_eq!(proves(&operators, &none), Ok("bob".into()));
        let two = certificate(&[ANN, "spiffe://ops.test/bob"]);
        assert_eq!(proves(&operators, &two), Err(Unproved::Missing));
    }

    #[test]
    fn a_certificate_with_a_name_that_cannot_be_read_proves_nobody_by_another_one() {
        let operators = with_certificates(&certificate(&[]));
        let ann = ANN.as_bytes();
        assert_eq!(proves(&operators, &certificate_of_bytes(&[ann])), Ok("ann".into()));
        for unreadable in [&b"spiffe://ops.test/b\xffb"[..], b"\xc3\xa9", b"\x80"] {
            for names in [[ann, unreadable], [unreadable, ann]] {
                let certificate = certificate_of_bytes(&names);
                assert_eq!(proves(&operators, &certificate), Err(Unproved::Missing), "{names:?}");
            }
        }
    }
}
