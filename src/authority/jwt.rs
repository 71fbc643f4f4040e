//! Bearer tokens: JWTs (RFC 7519) signed by a key of the configured issuer, as RFC 8725 and RFC 9068 ask.
//!
//! In: an `Authorization` header, and the client's certificate if there is one. Out: the actor `ISSUER#SUBJECT` with
//! the token's claims, or why not. Header and payload are read by the strict JSON parser, so that a name that stands
//! twice is no token; the algorithm comes from the key, and the token has to agree; and a token that is bound to
//! something (`cnf`) proves nothing without it. Nothing in a token says where to find its key.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;

use super::identity::Unauthenticated;
use super::jwks::{Algorithm, KeySource};
use super::mtls::PeerCertificate;
use crate::canonical::json;
use crate::clock::{Clock, WallTime};
use crate::limits;
use crate::model::{Actor, AuthenticationMethod, CredentialFault, Digest, Json, Object, reserved_name};

/// Tokens as one surface takes them.
#[derive(Clone, Debug)]
pub struct JwtIdentity {
    /// `iss`, byte for byte; without `#`, so that an actor's id has one reading.
    pub issuer: Arc<str>,
    /// One of these must be in `aud`.
    pub audiences: Vec<Arc<str>>,
    /// Whether nothing else may be in `aud`.
    pub only_our_audiences: bool,
    pub algorithms: Vec<Algorithm>,
    /// `typ`, lowercase, without `application/`.
    pub types: Vec<Arc<str>>,
    /// How far the clocks of issuer and gateway may differ, for `nbf` and `iat`. `exp` has none.
    pub leeway_seconds: u64,
    /// How long ago `iat` may be; then it is required.
    pub age_seconds_max: Option<u64>,
    pub keys: Arc<KeySource>,
    pub clock: Clock,
}

/// Whether a token must be bound to the client's certificate (RFC 8705).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Required,
    /// Only if the token says so.
    AsTheTokenSays,
}

/// The claim under which policy sees the certificate that was presented with a token. A token must not have it.
pub(super) const CERTIFICATE_CLAIM: &str = "mtls";

type Checked<T> = Result<T, CredentialFault>;

impl JwtIdentity {
    pub(super) fn prove(
        &self,
        value: &HeaderValue,
        certificate: Option<&PeerCertificate>,
        binding: Binding,
    ) -> Result<Actor, Unauthenticated> {
        self.check(value, certificate, binding).map_err(Unauthenticated)
    }

    fn check(
        &self,
        value: &HeaderValue,
        certificate: Option<&PeerCertificate>,
        binding: Binding,
    ) -> Checked<Actor> {
        let token = bearer(value)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(CredentialFault::TokenMalformed)?;
        let (header, payload) = signed.split_once('.').ok_or(CredentialFault::TokenMalformed)?;
        // Exactly three parts: an encrypted token has five.
        if payload.contains('.') {
            return Err(CredentialFault::TokenMalformed);
        }
        let (header, signature) = (part(header)?, decode(signature)?);
        // The head first, then the signature, and only then what the token says.
        let algorithm = self.check_header(&header)?;
        let key_id = match header.member("kid") {
            None => None,
            Some(id) => Some(id.as_str().ok_or(CredentialFault::TokenKeyUnknown)?),
        };
        self.keys.with_key(key_id, |key| match key.algorithm() == algorithm {
            false => Err(CredentialFault::TokenAlgorithm),
            true if key.verifies(signed.as_bytes(), &signature) => Ok(()),
            true => Err(CredentialFault::TokenSignature),
        })?;
        let claims = part(payload)?;
        self.check_parties(&claims)?;
        let valid_until = self.check_times(&claims)?;
        check_binding(&claims, certificate, binding)?;
        let subject = claims.member("sub").and_then(Json::as_str).ok_or(CredentialFault::TokenSubject)?;
        if subject.is_empty() {
            return Err(CredentialFault::TokenSubject);
        }
        let id = format!("{}#{subject}", self.issuer);
        let id = id.parse().map_err(|_| CredentialFault::TokenSubject)?;
        let claims = Json::Object(claims);
        let is_reserved = claims.as_object().is_some_and(|c| c.member(CERTIFICATE_CLAIM).is_some());
        if is_reserved || reserved_name(&claims).is_some() {
            return Err(CredentialFault::TokenClaims);
        }
        Ok(Actor {
            id,
            method: AuthenticationMethod::Jwt,
            credential_digest: Some(Digest::of(token.as_bytes())),
            claims,
            valid_until: Some(valid_until),
        })
    }

    fn check_header(&self, header: &Object) -> Checked<Algorithm> {
        // RFC 7515 section 4.1.11: what is critical must be understood, and no extension is.
        if header.member("crit").is_some() {
            return Err(CredentialFault::TokenCritical);
        }
        let algorithm = header.member("alg").and_then(Json::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.filter(|algorithm| self.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(CredentialFault::TokenAlgorithm)?;
        let media_type = header.member("typ").and_then(Json::as_str).map(str::to_ascii_lowercase);
        let media_type = media_type.as_deref().map(|t| t.strip_prefix("application/").unwrap_or(t));
        match media_type.is_some_and(|t| self.types.iter().any(|taken| **taken == *t)) {
            true => Ok(algorithm),
            false => Err(CredentialFault::TokenType),
        }
    }

    fn check_parties(&self, claims: &Object) -> Checked<()> {
        if claims.member("iss").and_then(Json::as_str) != Some(&*self.issuer) {
            return Err(CredentialFault::TokenIssuer);
        }
        let audiences: Option<Vec<&str>> = match claims.member("aud") {
            Some(Json::String(one)) => Some(vec![one]),
            Some(Json::Array(several)) => several.iter().map(Json::as_str).collect(),
            Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_)) | None => None,
        };
        let audiences = audiences.ok_or(CredentialFault::TokenAudience)?;
        let is_ours = |audience: &&str| self.audiences.iter().any(|ours| **ours == **audience);
        let is_for_us = audiences.iter().any(is_ours);
        let is_for_others = !audiences.iter().all(is_ours);
        match is_for_us && !(self.only_our_audiences && is_for_others) {
            true => Ok(()),
            false => Err(CredentialFault::TokenAudience),
        }
    }

    /// The instant from which on the token is not valid.
    fn check_times(&self, claims: &Object) -> Checked<WallTime> {
        let now_seconds = self.clock.wall().unix_ns() / 1_000_000_000;
        let ahead_max = now_seconds.saturating_add(self.leeway_seconds);
        let expiry = seconds(claims, "exp").ok().flatten().ok_or(CredentialFault::TokenExpiry)?;
        if now_seconds >= expiry {
            return Err(CredentialFault::TokenExpired);
        }
        let not_before = seconds(claims, "nbf").map_err(|()| CredentialFault::TokenNotYetValid)?;
        if not_before.is_some_and(|not_before| not_before > ahead_max) {
            return Err(CredentialFault::TokenNotYetValid);
        }
        let issued_at = seconds(claims, "iat").map_err(|()| CredentialFault::TokenIssuedAt)?;
        let is_young = match (self.age_seconds_max, issued_at) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(age_max), Some(issued_at)) => now_seconds.saturating_sub(issued_at) <= age_max,
        };
        if !is_young || issued_at.is_some_and(|issued_at| issued_at > ahead_max) {
            return Err(CredentialFault::TokenIssuedAt);
        }
        Ok(WallTime::from_unix_ns(expiry.saturating_mul(1_000_000_000)))
    }
}

/// `Bearer TOKEN`, one space, the scheme in any case (RFC 6750 section 2.1, RFC 9110 section 11.1).
fn bearer(value: &HeaderValue) -> Checked<&str> {
    let text = value.to_str().map_err(|_| CredentialFault::TokenMalformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(CredentialFault::TokenMalformed)?;
    if token.len() > limits::TOKEN_BYTES_MAX {
        return Err(CredentialFault::TokenTooLarge);
    }
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(CredentialFault::TokenMalformed) }
}

/// RFC 7515 section 2: base64url without padding, in its only spelling.
fn decode(text: &str) -> Checked<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| CredentialFault::TokenMalformed)
}

fn part(text: &str) -> Checked<Object> {
    let bounds = json::Bounds { depth_max: limits::TOKEN_DEPTH_MAX, values_max: limits::TOKEN_VALUES_MAX };
    match json::parse(&decode(text)?, bounds) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) | Err(_) => {
            Err(CredentialFault::TokenMalformed)
        }
    }
}

/// A NumericDate (RFC 7519 section 2) that is a whole number and not before 1970.
fn seconds(claims: &Object, name: &str) -> Result<Option<u64>, ()> {
    match claims.member(name) {
        None => Ok(None),
        Some(Json::Number(n)) => {
            let whole = n.as_exact_i64().and_then(|n| u64::try_from(n).ok());
            whole.map(Some).ok_or(())
        }
        Some(Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_)) => Err(()),
    }
}

/// RFC 8705 section 3.1. A confirmation that is not a certificate's (a DPoP key, RFC 9449) cannot be checked here,
/// and to take the token without it would be to take its binding off.
fn check_binding(claims: &Object, certificate: Option<&PeerCertificate>, binding: Binding) -> Checked<()> {
    let Some(confirmation) = claims.member("cnf") else {
        return match binding {
            Binding::Required => Err(CredentialFault::TokenUnbound),
            Binding::AsTheTokenSays => Ok(()),
        };
    };
    let members = confirmation.as_object().map_or(&[][..], Object::members);
    let [(name, Json::String(thumbprint))] = members else {
        return Err(CredentialFault::TokenBoundElsewhere);
    };
    let presented = certificate.map(|certificate| certificate.thumbprint());
    let bound_to = URL_SAFE_NO_PAD.decode(thumbprint.as_bytes()).ok();
    match (presented, bound_to) {
        (Some(presented), Some(bound_to))
            if &**name == "x5t#S256" && presented.as_bytes()[..] == bound_to =>
        {
            Ok(())
        }
        (Some(_) | None, Some(_) | None) => Err(CredentialFault::TokenBoundElsewhere),
    }
}
