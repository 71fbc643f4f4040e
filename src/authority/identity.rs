//! Who asks, proved. API keys now; the trait is ready for mTLS and JWT.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use crate::model::{Actor, ReasonClass, ReasonCode};

/// What a connection and a request put forward to prove who they are.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    pub headers: &'a HeaderMap,
    /// DER of the client's verified certificate chain, leaf first; empty without mTLS.
    pub peer_certificates: &'a [rustls_pki_types::CertificateDer<'a>],
}

/// Nobody was proved. Holds one of the `Unauthenticated` class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthenticated(pub ReasonCode);

impl Unauthenticated {
    pub const MISSING: Self = Self(ReasonCode::CredentialMissing);
    pub const INVALID: Self = Self(ReasonCode::CredentialInvalid);
    pub const AMBIGUOUS: Self = Self(ReasonCode::CredentialAmbiguous);
}

const _: () = {
    assert!(matches!(Unauthenticated::MISSING.0.class(), ReasonClass::Unauthenticated));
    assert!(matches!(Unauthenticated::INVALID.0.class(), ReasonClass::Unauthenticated));
    assert!(matches!(Unauthenticated::AMBIGUOUS.0.class(), ReasonClass::Unauthenticated));
};

/// One way to prove an identity.
pub trait Identity: fmt::Debug + Send + Sync {
    /// `Ok(None)`: nothing of this kind was presented. `Err`: something was, and it is not valid.
    fn authenticate(&self, presented: &Presented<'_>) -> Result<Option<Arc<Actor>>, Unauthenticated>;
}

/// The ways a surface accepts, in order. An empty list proves nobody.
#[derive(Clone, Debug)]
pub struct Identities(Arc<[Arc<dyn Identity>]>);

impl Identities {
    pub fn new(ways: Vec<Arc<dyn Identity>>) -> Self {
        Self(ways.into())
    }

    /// The first way that recognizes something decides, whichever way it decides.
    pub fn authenticate(&self, presented: &Presented<'_>) -> Result<Arc<Actor>, Unauthenticated> {
        for way in self.0.iter() {
            if let Some(actor) = way.authenticate(presented)? {
                return Ok(actor);
            }
        }
        Err(Unauthenticated::MISSING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AuthenticationMethod, Json};

    #[derive(Debug)]
    struct Fixed(Result<Option<&'static str>, Unauthenticated>);

    impl Identity for Fixed {
        fn authenticate(&self, _: &Presented<'_>) -> Result<Option<Arc<Actor>>, Unauthenticated> {
            let actor = |id: &str| Actor {
                id: id.parse().expect("an id"),
                method: AuthenticationMethod::Jwt,
                credential_digest: None,
                claims: Json::Object(Default::default()),
                valid_until: None,
            };
            Ok(self.0?.map(|id| Arc::new(actor(id))))
        }
    }

    fn decide(ways: &[Result<Option<&'static str>, Unauthenticated>]) -> Result<String, Unauthenticated> {
        let ways = ways.iter().map(|w| Arc::new(Fixed(*w)) as Arc<dyn Identity>).collect();
        let presented = Presented { headers: &HeaderMap::new(), peer_certificates: &[] };
        Identities::new(ways).authenticate(&presented).map(|a| a.id.to_string())
    }

    #[test]
    fn the_first_way_that_recognizes_something_decides() {
        assert_eq!(decide(&[Ok(None), Ok(Some("b")), Ok(Some("c"))]), Ok("b".into()));
        assert_eq!(decide(&[Err(Unauthenticated::INVALID), Ok(Some("b"))]), Err(Unauthenticated::INVALID));
    }

    #[test]
    fn nothing_presented_proves_nobody() {
        assert_eq!(decide(&[]), Err(Unauthenticated::MISSING));
        assert_eq!(decide(&[Ok(None), Ok(None)]), Err(Unauthenticated::MISSING));
    }
}
