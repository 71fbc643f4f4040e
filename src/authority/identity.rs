//! Who asks, proved: by a client certificate, a bearer token, or an API key.
//!
//! In: what a connection and a request put forward. Out: the actor, or the one fault that stands for it in logs and
//! metrics. What a surface takes, it takes alone: two credentials at once are ambiguous, unless the surface requires a
//! certificate and a token that is bound to it, together. What proves identities can be exchanged while the gateway
//! runs; [`ProvedUnder`] is the version it had, and stands in the read set of every decision about the actor.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::api_key::ApiKeyIdentity;
use super::jwt::{Binding, CERTIFICATE_CLAIM, JwtIdentity};
use super::mtls::{MtlsIdentity, PeerCertificate};
use super::versions::{UNSET, Versions};
use crate::clock::Clock;
use crate::model::{Actor, CredentialFault, Json, Object, ReadSet, ReasonCode};

/// What a connection and a request put forward to prove who they are.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    pub headers: &'a HeaderMap,
    /// The client's certificate, verified in the handshake.
    pub certificate: Option<&'a PeerCertificate>,
}

/// Nobody was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthenticated(pub CredentialFault);

impl Unauthenticated {
    pub const MISSING: Self = Self(CredentialFault::Missing);
    pub const AMBIGUOUS: Self = Self(CredentialFault::Ambiguous);

    /// What the caller is told.
    pub const fn code(self) -> ReasonCode {
        self.0.code()
    }
}

/// Which credentials count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    /// Exactly one of those that are taken.
    One,
    /// A certificate, and a token that is bound to it. The token says who acts.
    CertificateAndToken,
}

/// What a surface takes. With nothing, it proves nobody.
#[derive(Clone, Debug)]
pub struct Taken {
    pub mtls: Option<MtlsIdentity>,
    pub jwt: Option<JwtIdentity>,
    pub api_key: Option<ApiKeyIdentity>,
    pub require: Require,
    pub clock: Clock,
}

/// What a surface takes, shared. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identities(Arc<Taken>);

impl Identities {
    pub fn new(taken: Taken) -> Self {
        Self(taken.into())
    }

    pub fn taken(&self) -> &Taken {
        &self.0
    }

    /// Proves who asks. Every credential that the surface takes is looked for before any is looked at.
    pub fn authenticate(&self, presented: &Presented<'_>) -> Result<Arc<Actor>, Unauthenticated> {
        let Taken { mtls, jwt, api_key, require, clock } = &*self.0;
        let key = match api_key {
            Some(way) => way.find(presented.headers)?.map(|found| (way, found)),
            None => None,
        };
        let token = match jwt {
            Some(way) => only_authorization(presented.headers)?.map(|found| (way, found)),
            None => None,
        };
        let certificate = mtls.as_ref().zip(presented.certificate);
        match (require, certificate, token, key) {
            (_, None, None, None) => Err(Unauthenticated::MISSING),
            (Require::One, Some((way, certificate)), None, None) => {
                way.prove(certificate, clock.wall()).map(Arc::new)
            }
            (Require::One, None, Some((way, token)), None) => {
                way.prove(token, presented.certificate, Binding::AsTheTokenSays).map(Arc::new)
            }
            (Require::One, None, None, Some((way, key))) => way.prove(key),
            (Require::CertificateAndToken, Some((mtls, certificate)), Some((jwt, token)), None) => {
                let holder = mtls.prove(certificate, clock.wall())?;
                let actor = jwt.prove(token, Some(certificate), Binding::Required)?;
                Ok(Arc::new(together(actor, holder)))
            }
            (Require::CertificateAndToken, None, Some(_), None) => {
                Err(Unauthenticated(CredentialFault::CertificateMissing))
            }
            (Require::CertificateAndToken, Some(_), None, None) => {
                Err(Unauthenticated(CredentialFault::TokenMissing))
            }
            (Require::One, Some(_), Some(_), None)
            | (_, Some(_), _, Some(_))
            | (_, _, Some(_), Some(_))
            | (Require::CertificateAndToken, None, None, Some(_)) => Err(Unauthenticated::AMBIGUOUS),
        }
    }
}

/// The token's actor, with the certificate's claims beside its own, for as long as both last.
fn together(actor: Actor, holder: Actor) -> Actor {
    let mut members = match actor.claims {
        Json::Object(claims) => claims.into_members(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => Vec::new(),
    };
    members.push((CERTIFICATE_CLAIM.into(), holder.claims));
    let claims = Object::new(members).expect("a token with this claim of its own was refused");
    let valid_until = match (actor.valid_until, holder.valid_until) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    };
    Actor { claims: Json::Object(claims), valid_until, ..actor }
}

/// Two headers are refused even if they are equal: which one counts must not be a question.
fn only_authorization(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Unauthenticated> {
    let mut found = headers.get_all(AUTHORIZATION).iter();
    match (found.next(), found.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(Unauthenticated::AMBIGUOUS),
    }
}

/// The version of everything that identities rest on, as it was before an actor was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedUnder(Option<Arc<str>>);

/// Its name among the versions.
pub const IDENTITY: &str = "identity";

impl ProvedUnder {
    /// Taken before the credential is looked at: what changes in between counts as moved.
    pub fn now(versions: &Versions) -> Self {
        Self(versions.version(IDENTITY))
    }

    /// Puts the version that was read in the place of the one there is: an actor who was proved under other keys has
    /// to be proved again, however often the request is evaluated.
    pub fn stand_in(&self, read_set: &mut ReadSet) {
        for item in read_set.watched.iter_mut().filter(|item| *item.name == *IDENTITY) {
            item.version = self.0.clone().unwrap_or_else(|| UNSET.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    fn taken() -> Taken {
        Taken {
            mtls: None,
            jwt: None,
            api_key: None,
            require: Require::One,
            clock: Clock::manual(WallTime::from_unix_ns(0)),
        }
    }

    #[test]
    fn a_surface_that_takes_nothing_proves_nobody() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        for require in [Require::One, Require::CertificateAndToken] {
            let identities = Identities::new(Taken { require, ..taken() });
            let presented = Presented { headers: &headers, certificate: None };
            assert_eq!(identities.authenticate(&presented), Err(Unauthenticated::MISSING));
        }
    }

    #[test]
    fn an_actor_who_was_proved_before_identity_changed_is_not_sent_for() {
        let (versions, clock) = (Versions::new(), Clock::manual(WallTime::from_unix_ns(0)));
        versions.set("policy", "1");
        versions.set(IDENTITY, "1");
        let proved = ProvedUnder::now(&versions);
        let mut unmoved = versions.capture(&clock, &[Arc::from("policy"), IDENTITY.into()]);
        proved.stand_in(&mut unmoved);
        assert_eq!(versions.validate(&unmoved), Ok(()));
        versions.set(IDENTITY, "2");
        // Captured after the change, by a decision about an actor from before it.
        let mut moved = versions.capture(&clock, &[Arc::from("policy"), IDENTITY.into()]);
        assert_eq!(versions.validate(&moved), Ok(()));
        proved.stand_in(&mut moved);
        let name = versions.validate(&moved).expect_err("moved").name;
        assert_eq!(&*name, IDENTITY);
    }

    #[test]
    fn a_certificate_beside_a_token_ends_the_actor_with_whichever_ends_first() {
        let actor = |claims, end: Option<u64>| Actor {
            id: "agent-7".parse().expect("an id"),
            method: crate::model::AuthenticationMethod::Jwt,
            credential_digest: None,
            claims,
            valid_until: end.map(WallTime::from_unix_ns),
        };
        let token = actor(Json::object([("sub", Json::string("7"))]), Some(9));
        let certificate = actor(Json::object([("serial", Json::string("07"))]), Some(5));
        let both = together(token, certificate);
        assert_eq!(both.valid_until, Some(WallTime::from_unix_ns(5)));
        let mtls = Json::object([("serial", Json::string("07"))]);
        assert_eq!(both.claims, Json::object([("mtls", mtls), ("sub", Json::string("7"))]));
    }
}
