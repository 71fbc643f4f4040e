//! API keys: found by a prefix that is not secret, proved by SHA-256 of the whole key.
//!
//! In: the headers a surface reads keys from. Out: the actor, or why nobody was proved. The gateway holds no
//! key, only digests; they need no salt, because a key has at least 128 random bits. Between reading the
//! headers and the answer every candidate takes the same steps: hash, look up, compare 32 bytes in constant
//! time (against a digest of nothing if the prefix is unknown), then combine. A caller learns
//! `credential_invalid` and nothing more, whether the key is unknown, wrong, expired or not for this surface.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::identity::Unauthenticated;
use crate::clock::{Clock, WallTime};
use crate::limits;
use crate::model::{Actor, CredentialFault, Digest, SurfaceName};

/// The part of a key by which it is found: its first [`limits::API_KEY_PREFIX_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPrefix(Arc<str>);

/// Not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix of an API key must be its first {} characters, visible ASCII",
    limits::API_KEY_PREFIX_BYTES
)]
pub struct InvalidKeyPrefix;

impl std::str::FromStr for KeyPrefix {
    type Err = InvalidKeyPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidKeyPrefix> {
        let valid = text.len() == limits::API_KEY_PREFIX_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
        if valid { Ok(Self(text.into())) } else { Err(InvalidKeyPrefix) }
    }
}

/// What is known about one key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub prefix: KeyPrefix,
    /// SHA-256 of the whole key. The actor's `credential_digest` is the same value.
    pub digest: Digest,
    pub actor: Arc<Actor>,
    /// `None`: every surface that reads API keys.
    pub surfaces: Option<BTreeSet<SurfaceName>>,
}

/// All keys.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(BTreeMap<Arc<str>, ApiKey>);

impl ApiKeys {
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the key back if there is one with its prefix.
    pub fn insert(&mut self, key: ApiKey) -> Result<(), ApiKey> {
        if self.0.contains_key(&key.prefix.0) {
            return Err(key);
        }
        self.0.insert(key.prefix.0.clone(), key);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is the key with this SHA-256.
    pub fn has_digest(&self, digest: &Digest) -> bool {
        self.0.values().any(|key| key.digest == *digest)
    }

    /// Whether one of them is of the agent with this id.
    pub fn has_agent(&self, id: &str) -> bool {
        self.0.values().any(|key| key.actor.id.as_str() == id)
    }

    /// Whether a key that is valid on the surface has a claim of this name.
    pub fn has_claim(&self, surface: &SurfaceName, name: &str) -> bool {
        let mut here = self.0.values().filter(|k| k.surfaces.as_ref().is_none_or(|s| s.contains(surface)));
        here.any(|k| k.actor.claims.as_object().is_some_and(|claims| claims.member(name).is_some()))
    }

    fn prove(&self, presented: &[u8], surface: &SurfaceName, now: WallTime) -> Option<Arc<Actor>> {
        let digest = Digest::of(presented);
        let prefix = presented.get(..limits::API_KEY_PREFIX_BYTES).and_then(|p| std::str::from_utf8(p).ok());
        let key = prefix.and_then(|p| self.0.get(p));
        let nothing = Digest::from_bytes([0; 32]);
        let stored = key.map_or(&nothing, |k| &k.digest);
        let same = stored.as_bytes().ct_eq(digest.as_bytes());
        let known = Choice::from(u8::from(key.is_some()));
        let length = (limits::API_KEY_BYTES_MIN..=limits::API_KEY_BYTES_MAX).contains(&presented.len());
        let here = key.is_some_and(|k| k.surfaces.as_ref().is_none_or(|s| s.contains(surface)));
        let current = key.is_some_and(|k| k.actor.valid_until.is_none_or(|end| now < end));
        let proved = same
            & known
            & Choice::from(u8::from(length))
            & Choice::from(u8::from(here))
            & Choice::from(u8::from(current));
        key.filter(|_| bool::from(proved)).map(|k| k.actor.clone())
    }
}

/// The keys in force. All surfaces share them, and they may be exchanged while the gateway runs.
pub type SharedApiKeys = Arc<ArcSwap<ApiKeys>>;

/// API keys as one surface reads them.
#[derive(Clone, Debug)]
pub struct ApiKeyIdentity {
    pub keys: SharedApiKeys,
    pub surface: SurfaceName,
    /// `authorization` takes `Bearer KEY`, or `Basic` with the key as the user and no password (RFC 6750,
    /// RFC 7617); any other header holds the key itself.
    pub headers: Vec<HeaderName>,
    pub clock: Clock,
}

impl ApiKeyIdentity {
    /// Proves the key that [`ApiKeyIdentity::find`] has found.
    pub(super) fn prove(
        &self,
        (name, value): (&HeaderName, &HeaderValue),
    ) -> Result<Arc<Actor>, Unauthenticated> {
        let key = if name == AUTHORIZATION { from_authorization(value) } else { Some(own(value.as_bytes())) };
        // What cannot hold a key is looked up as the empty key, and takes the same steps.
        let key = key.unwrap_or_default();
        let actor = self.keys.load().prove(&key, &self.surface, self.clock.wall());
        actor.ok_or(Unauthenticated(CredentialFault::ApiKey))
    }

    /// Two credentials are refused even if they are equal: which one counts must not be a question.
    pub(super) fn find<'s>(
        &'s self,
        headers: &'s HeaderMap,
    ) -> Result<Option<(&'s HeaderName, &'s HeaderValue)>, Unauthenticated> {
        let mut found =
            self.headers.iter().flat_map(|name| headers.get_all(name).iter().map(move |v| (name, v)));
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => Ok(Some(one)),
            (Some(_), Some(_)) => Err(Unauthenticated::AMBIGUOUS),
        }
    }
}

fn own(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}

/// `Bearer KEY` or `Basic base64(KEY:)`, one space, the scheme in any case (RFC 9110 section 11.1).
fn from_authorization(value: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(own(rest.as_bytes()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut pair = Zeroizing::new(STANDARD.decode(rest).ok()?);
    // A password would be a second credential that nobody checks; a second colon begins one.
    if pair.pop() != Some(b':') || pair.contains(&b':') {
        return None;
    }
    Some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AuthenticationMethod, Json};
    use std::time::Duration;

    const KEY: &str = "ilk_ab12cd34_0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ilk_ffffffff_0123456789abcdef0123456789abcdef";

    fn identity(surfaces: Option<&[&str]>, not_after: Option<u64>) -> ApiKeyIdentity {
        let digest = Digest::of(KEY.as_bytes());
        let actor = Arc::new(Actor {
            id: "agent-7".parse().expect("an id"),
            method: AuthenticationMethod::ApiKey,
            credential_digest: Some(digest),
            claims: Json::Object(Default::default()),
            valid_until: not_after.map(WallTime::from_unix_ns),
        });
        let mut keys = ApiKeys::new();
        let key = ApiKey {
            prefix: KEY[..12].parse().expect("a prefix"),
            digest,
            actor,
            surfaces: surfaces.map(|s| s.iter().map(|n| n.parse().expect("a name")).collect()),
        };
        keys.insert(key.clone()).expect("the first");
        keys.insert(key).expect_err("its prefix is taken");
        assert_eq!((keys.len(), keys.is_empty()), (1, false));
        ApiKeyIdentity {
            keys: Arc::new(ArcSwap::from_pointee(keys)),
            surface: "payments".parse().expect("a name"),
            headers: vec![AUTHORIZATION, HeaderName::from_static("x-api-key")],
            clock: Clock::manual(WallTime::from_unix_ns(1_000)),
        }
    }

    fn ask(identity: &ApiKeyIdentity, headers: &[(&str, &str)]) -> Result<Option<String>, Unauthenticated> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(n, v)| {
                (n.parse::<HeaderName>().expect("a name"), v.parse::<HeaderValue>().expect("a value"))
            })
            .collect();
        let mut map = HeaderMap::new();
        map.extend(headers);
        let found = identity.find(&map)?;
        found.map(|found| identity.prove(found).map(|actor| actor.id.to_string())).transpose()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_key_proves_its_actor_in_each_accepted_form() {
        let identity = identity(None, None);
        for (name, value) in [
            ("authorization", format!("Bearer {KEY}")),
            ("authorization", format!("bearer {KEY}")),
            ("authorization", basic(&format!("{KEY}:"))),
            ("x-api-key", KEY.to_owned()),
        ] {
            assert_eq!(ask(&identity, &[(name, &value)]), Ok(Some("agent-7".into())), "{name}: {value}");
        }
    }

    #[test]
    fn nothing_presented_is_not_an_answer() {
        assert_eq!(ask(&identity(None, None), &[("accept", "*/*")]), Ok(None));
    }

    #[test]
    fn a_key_that_is_wrong_unknown_cut_or_in_another_form_is_invalid() {
        let identity = identity(None, None);
        let wrong = format!("{}0", &KEY[..KEY.len() - 1]);
        for (name, value) in [
            ("x-api-key", wrong.as_str()),
            ("x-api-key", OTHER),
            ("x-api-key", &KEY[..12]),
            ("x-api-key", ""),
            ("x-api-key", &format!("Bearer {KEY}")),
            ("authorization", KEY),
            ("authorization", "Bearer"),
            ("authorization", &format!("Bearer  {KEY}")),
            ("authorization", &format!("Digest {KEY}")),
            ("authorization", "Basic !!!"),
            ("authorization", &basic(KEY)),
            ("authorization", &basic(&format!("{KEY}:password"))),
            ("authorization", &basic(&format!("{KEY}::"))),
        ] {
            assert_eq!(
                ask(&identity, &[(name, value)]),
                Err(Unauthenticated(CredentialFault::ApiKey)),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn two_credentials_at_once_are_ambiguous_even_if_equal() {
        let identity = identity(None, None);
        let bearer = format!("Bearer {KEY}");
        for headers in [
            [("authorization", bearer.as_str()), ("x-api-key", KEY)],
            [("authorization", &bearer), ("authorization", &bearer)],
            [("x-api-key", KEY), ("x-api-key", OTHER)],
        ] {
            assert_eq!(ask(&identity, &headers), Err(Unauthenticated::AMBIGUOUS), "{headers:?}");
        }
    }

    #[test]
    fn a_header_that_the_surface_does_not_read_proves_nobody() {
        let mut identity = identity(None, None);
        identity.headers = vec![HeaderName::from_static("x-api-key")];
        assert_eq!(ask(&identity, &[("authorization", &format!("Bearer {KEY}"))]), Ok(None));
    }

    #[test]
    fn a_key_is_valid_only_on_its_surfaces() {
        let here = identity(Some(&["exports", "payments"]), None);
        assert_eq!(ask(&here, &[("x-api-key", KEY)]), Ok(Some("agent-7".into())));
        let elsewhere = identity(Some(&["exports"]), None);
        assert_eq!(ask(&elsewhere, &[("x-api-key", KEY)]), Err(Unauthenticated(CredentialFault::ApiKey)));
    }

    #[test]
    fn a_key_ends_at_its_instant() {
        let identity = identity(None, Some(2_000));
        identity.clock.advance(Duration::from_nanos(999));
        assert_eq!(ask(&identity, &[("x-api-key", KEY)]), Ok(Some("agent-7".into())));
        identity.clock.advance(Duration::from_nanos(1));
        assert_eq!(ask(&identity, &[("x-api-key", KEY)]), Err(Unauthenticated(CredentialFault::ApiKey)));
    }

    #[test]
    fn an_unknown_prefix_never_matches_the_digest_it_is_compared_with() {
        // The stand-in is all zero bytes: not the digest of anything that can be sent.
        let keys = ApiKeys::new();
        let surface = "payments".parse().expect("a name");
        assert!(keys.prove(KEY.as_bytes(), &surface, WallTime::from_unix_ns(0)).is_none());
        assert!(keys.prove(b"", &surface, WallTime::from_unix_ns(0)).is_none());
    }

    #[test]
    fn a_key_shorter_than_128_random_bits_is_refused_even_if_its_digest_is_known() {
        let short = &KEY[..limits::API_KEY_BYTES_MIN - 1];
        let identity = identity(None, None);
        let mut key = identity.keys.load().0.values().next().expect("one key").clone();
        key.digest = Digest::of(short.as_bytes());
        let mut keys = ApiKeys::new();
        keys.insert(key).expect("the first");
        identity.keys.store(Arc::new(keys));
        assert_eq!(ask(&identity, &[("x-api-key", short)]), Err(Unauthenticated(CredentialFault::ApiKey)));
    }

    #[test]
    fn a_prefix_has_exactly_its_length() {
        assert!("ilk_ab12cd34".parse::<KeyPrefix>().is_ok());
        for bad in ["ilk_ab12cd3", "ilk_ab12cd345", "ilk ab12cd34", ""] {
            assert_eq!(bad.parse::<KeyPrefix>(), Err(InvalidKeyPrefix), "{bad}");
        }
    }
}
