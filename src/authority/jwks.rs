//! Key sets of token issuers (RFC 7517), and where the current one is found.
//!
//! In: the bytes of a JWK set. Out: public keys, each for exactly one algorithm. Keys of another kind or use are left
//! out, as RFC 7517 section 5 asks; a symmetric key never verifies anything here, and a set with a private key is
//! refused whole. [`KeySource`] holds the set that is in force: whoever reads files or fetches puts it in.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use tokio::sync::Notify;

use crate::canonical::json;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::model::{CredentialFault, Digest, Json, Object};

/// The asymmetric algorithms of RFC 7518 and RFC 8037 that ring verifies. There is no other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [(&str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// As `alg` spells it; case counts.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    const fn is_rsa(self) -> bool {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => true,
            Self::Es256 | Self::Es384 | Self::EdDsa => false,
        }
    }
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// As the signature library takes it: an uncompressed point, or an Ed25519 key.
    Point(Vec<u8>),
}

/// One public key, for one algorithm.
#[derive(Clone, Debug)]
pub struct Key {
    id: Option<Arc<str>>,
    algorithm: Algorithm,
    material: Material,
}

impl Key {
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether this key signed the message. Never panics, whatever the bytes are.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = |algorithm: &'static dyn signature::VerificationAlgorithm| match &self.material {
            Material::Point(point) => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            Material::Rsa { .. } => false,
        };
        let rsa = |parameters: &'static signature::RsaParameters| match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Material::Point(_) => false,
        };
        match self.algorithm {
            Algorithm::Rs256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::Es256 => point(&signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => point(&signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDsa => point(&signature::ED25519),
        }
    }
}

/// Keys of an issuer; at least one, no two with one id.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    digest: Digest,
}

/// A set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    #[error("is larger than {} bytes", limits::KEY_SET_BYTES_MAX)]
    TooLarge,
    #[error("is not strict JSON")]
    NotJson,
    #[error("is not an object with a list `keys`")]
    NotASet,
    #[error("has more than {} keys", limits::KEY_SET_KEYS_MAX)]
    TooMany,
    #[error("holds a private key: whoever can read it can forge tokens")]
    Private,
    #[error("has two keys with the id `{0}`")]
    Twice(Arc<str>),
    #[error("has several keys, and one of them has no `kid`")]
    Nameless,
    #[error("holds no key for the algorithms that are taken")]
    Empty,
}

impl KeySet {
    /// Reads a JWK set, and keeps the keys for `algorithms`.
    pub fn parse(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, InvalidKeySet> {
        if bytes.len() > limits::KEY_SET_BYTES_MAX {
            return Err(InvalidKeySet::TooLarge);
        }
        let bounds =
            json::Bounds { depth_max: limits::TOKEN_DEPTH_MAX, values_max: limits::KEY_SET_VALUES_MAX };
        let set = json::parse(bytes, bounds).map_err(|_| InvalidKeySet::NotJson)?;
        let Some(Json::Array(items)) = set.as_object().and_then(|set| set.member("keys")) else {
            return Err(InvalidKeySet::NotASet);
        };
        if items.len() > limits::KEY_SET_KEYS_MAX {
            return Err(InvalidKeySet::TooMany);
        }
        let mut keys: Vec<Key> = Vec::new();
        for item in items {
            let item = item.as_object().ok_or(InvalidKeySet::NotASet)?;
            if text(item, "kty") != Some("oct") && item.member("d").is_some() {
                return Err(InvalidKeySet::Private);
            }
            let Some(key) = read_key(item, algorithms) else { continue };
            if let Some(id) = &key.id
                && keys.iter().any(|other| other.id.as_ref() == Some(id))
            {
                return Err(InvalidKeySet::Twice(id.clone()));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(InvalidKeySet::Empty);
        }
        if keys.len() > 1 && keys.iter().any(|key| key.id.is_none()) {
            return Err(InvalidKeySet::Nameless);
        }
        Ok(Self { keys, digest: Digest::of(bytes) })
    }

    /// The key of a token. Without an id there must be only one; an id must be the key's own.
    pub fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, &self.keys[..]) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// SHA-256 of the set's bytes.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// `None`: of a kind, for a use, or with numbers that are not ours.
fn read_key(item: &Object, algorithms: &[Algorithm]) -> Option<Key> {
    if item.member("use").is_some_and(|usage| usage.as_str() != Some("sig")) {
        return None;
    }
    match item.member("key_ops") {
        None => {}
        Some(Json::Array(uses)) if uses.iter().any(|u| u.as_str() == Some("verify")) => {}
        Some(_) => return None,
    }
    let id: Option<Arc<str>> = match item.member("kid") {
        None => None,
        Some(id) => Some(id.as_str()?.into()),
    };
    let declared = match item.member("alg") {
        None => None,
        Some(name) => Some(Algorithm::named(name.as_str()?)?),
    };
    let (own, material) = match (text(item, "kty")?, text(item, "crv")) {
        ("EC", Some("P-256")) => (Some(Algorithm::Es256), Material::Point(point(item, 32)?)),
        ("EC", Some("P-384")) => (Some(Algorithm::Es384), Material::Point(point(item, 48)?)),
        ("OKP", Some("Ed25519")) => (Some(Algorithm::EdDsa), Material::Point(bytes(item, "x", 32)?)),
        ("RSA", None) => (None, rsa(item)?),
        _ => return None,
    };
    let mut rsa_algorithms = algorithms.iter().filter(|algorithm| algorithm.is_rsa());
    let algorithm = match (declared, own) {
        (Some(declared), Some(own)) if declared == own => own,
        (None, Some(own)) => own,
        (Some(declared), None) if declared.is_rsa() => declared,
        // An RSA key that does not say what it is for takes the one RSA algorithm there is, if there is one only.
        (None, None) => match (rsa_algorithms.next(), rsa_algorithms.next()) {
            (Some(only), None) => *only,
            (None, _) | (Some(_), Some(_)) => return None,
        },
        (Some(_), Some(_) | None) => return None,
    };
    algorithms.contains(&algorithm).then_some(Key { id, algorithm, material })
}

fn text<'a>(item: &'a Object, name: &str) -> Option<&'a str> {
    item.member(name)?.as_str()
}

fn bytes(item: &Object, name: &str, length: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(item, name)?).ok().filter(|bytes| bytes.len() == length)
}

/// SEC 1 section 2.3.3, uncompressed.
fn point(item: &Object, length: usize) -> Option<Vec<u8>> {
    Some([vec![4], bytes(item, "x", length)?, bytes(item, "y", length)?].concat())
}

/// RFC 7518 section 6.3.1: without leading zeros.
fn rsa(item: &Object) -> Option<Material> {
    let number = |name| URL_SAFE_NO_PAD.decode(text(item, name)?).ok().filter(|n| n.first() != Some(&0));
    let (n, e) = (number("n")?, number("e")?);
    let is_length = (limits::RSA_MODULUS_BYTES_MIN..=limits::RSA_MODULUS_BYTES_MAX).contains(&n.len());
    // 2,048 bits, counted: the first byte has its highest bit.
    let is_whole = n.len() > limits::RSA_MODULUS_BYTES_MIN || n.first().is_some_and(|first| *first >= 0x80);
    let exponent = (e.len() <= 4).then(|| e.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte)))?;
    let is_exponent = exponent >= 65_537 && exponent % 2 == 1;
    (is_length && is_whole && is_exponent).then_some(Material::Rsa { n, e })
}

/// Where the key set in force is found. Readers never wait.
#[derive(Debug)]
pub struct KeySource {
    current: ArcSwapOption<(KeySet, Moment)>,
    /// How long a set is believed after it was put in; `None`: until there is another.
    stale_after: Option<Duration>,
    wanted: Notify,
    clock: Clock,
}

impl KeySource {
    /// Without a set: every token is refused until there is one.
    pub fn new(stale_after: Option<Duration>, clock: Clock) -> Self {
        Self { current: ArcSwapOption::empty(), stale_after, wanted: Notify::new(), clock }
    }

    /// From now on this is the set. Says whether its bytes differ from those before.
    pub fn put(&self, keys: KeySet) -> bool {
        let digest = keys.digest();
        let before = self.current.swap(Some(Arc::new((keys, self.clock.monotonic()))));
        before.is_none_or(|before| before.0.digest() != digest)
    }

    /// The digest of the set in force.
    pub fn digest(&self) -> Option<Digest> {
        self.current.load().as_ref().map(|current| current.0.digest())
    }

    /// Resolves when somebody has asked for a key that is not in the set. Where to get it is the caller's matter.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Finds a token's key. A key that is not there is asked for, and the token refused now.
    pub(super) fn with_key<T>(
        &self,
        id: Option<&str>,
        check: impl FnOnce(&Key) -> Result<T, CredentialFault>,
    ) -> Result<T, CredentialFault> {
        let current = self.current.load();
        let Some(current) = current.as_ref() else { return Err(CredentialFault::TokenKeysUnavailable) };
        let age = self.clock.monotonic().since(current.1);
        if self.stale_after.is_some_and(|bound| age > bound) {
            return Err(CredentialFault::TokenKeysStale);
        }
        let Some(key) = current.0.find(id) else {
            // Only an id can be new.
            if id.is_some() {
                self.wanted.notify_one();
            }
            return Err(CredentialFault::TokenKeyUnknown);
        };
        check(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    const X: &str = "LNz-3ot2NuTSYRGqyGC_KviHLK3eB6j5JrR7Qfb8_Sk";
    const Y: &str = "kFuNr3iF9voADxuETcSNmQVyikTkqD1anyUyKF1SJiA";

    fn ec(rest: &str) -> String {
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"{rest}}}"#)
    }

    fn set(keys: &[String]) -> Result<usize, InvalidKeySet> {
        let text = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        KeySet::parse(text.as_bytes(), &[Algorithm::Es256, Algorithm::Rs256]).map(|set| set.len())
    }

    #[test]
    fn a_key_is_for_one_algorithm() {
        let text = format!(r#"{{"keys":[{}]}}"#, ec(""));
        let keys = KeySet::parse(text.as_bytes(), &[Algorithm::Es256]).expect("a set");
        assert_eq!(keys.find(None).map(Key::algorithm), Some(Algorithm::Es256));
        assert!(keys.find(Some("a")).is_none());
        assert_eq!(set(&[ec(r#","alg":"RS256""#)]), Err(InvalidKeySet::Empty));
        assert_eq!(set(&[ec(r#","alg":"ES384""#)]), Err(InvalidKeySet::Empty));
        assert_eq!(set(&[ec(r#","alg":"HS256""#)]), Err(InvalidKeySet::Empty));
    }

    #[test]
    fn keys_of_another_kind_or_use_are_left_out() {
        let fit = ec(r#","kid":"a""#);
        let oct = r#"{"kty":"oct","kid":"b","k":"c2VjcmV0"}"#.to_owned();
        let enc = ec(r#","kid":"c","use":"enc""#);
        let sign = ec(r#","kid":"d","key_ops":["sign"]"#);
        assert_eq!(set(&[fit, oct.clone(), enc, sign]), Ok(1));
        assert_eq!(set(&[oct]), Err(InvalidKeySet::Empty));
    }

    #[test]
    fn a_set_that_is_not_one_is_refused() {
        let (a, b) = (ec(r#","kid":"a""#), ec(r#","kid":"b""#));
        assert_eq!(set(&[a.clone(), b]), Ok(2));
        assert_eq!(set(&[a.clone(), a.clone()]), Err(InvalidKeySet::Twice("a".into())));
        assert_eq!(set(&[a, ec("")]), Err(InvalidKeySet::Nameless));
        assert_eq!(set(&[ec(&format!(r#","d":"{X}""#))]), Err(InvalidKeySet::Private));
        let of = |text: &str| KeySet::parse(text.as_bytes(), &[Algorithm::Es256]).map(|set| set.len());
        assert_eq!(of("{"), Err(InvalidKeySet::NotJson));
        assert_eq!(of(r#"{"keys":[],"keys":[]}"#), Err(InvalidKeySet::NotJson));
        assert_eq!(of("[]"), Err(InvalidKeySet::NotASet));
        assert_eq!(of(r#"{"keys":{}}"#), Err(InvalidKeySet::NotASet));
        assert_eq!(of(&" ".repeat(limits::KEY_SET_BYTES_MAX + 1)), Err(InvalidKeySet::TooLarge));
    }

    #[test]
    fn an_rsa_key_has_at_least_2048_bits_and_a_usual_exponent() {
        let of = |n: &[u8], e: &[u8], rest: &str| {
            let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
            set(&[format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"{rest}}}"#)]).is_ok()
        };
        assert!(of(&[0xff; 256], &[1, 0, 1], ""));
        assert!(of(&[0xff; 256], &[1, 0, 1], r#","alg":"RS256""#));
        assert!(!of(&[0xff; 256], &[1, 0, 1], r#","alg":"PS256""#));
        assert!(!of(&[0xff; 128], &[1, 0, 1], ""));
        assert!(!of(&[0x7f; 256], &[1, 0, 1], ""));
        assert!(!of(&[0xff; 1_025], &[1, 0, 1], ""));
        assert!(!of(&[0xff; 256], &[3], ""));
        assert!(!of(&[0xff; 256], &[0, 1, 0, 1], ""));
    }

    #[test]
    fn a_set_that_is_too_old_is_not_believed() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let source = KeySource::new(Some(Duration::from_secs(10)), clock.clone());
        let ask = || source.with_key(None, |_| Ok(()));
        assert_eq!(ask(), Err(CredentialFault::TokenKeysUnavailable));
        let text = format!(r#"{{"keys":[{}]}}"#, ec(""));
        let keys = || KeySet::parse(text.as_bytes(), &[Algorithm::Es256]).expect("a set");
        assert!(source.put(keys()));
        clock.advance(Duration::from_secs(10));
        assert_eq!(ask(), Ok(()));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(ask(), Err(CredentialFault::TokenKeysStale));
        assert!(!source.put(keys()), "the same bytes");
        assert_eq!(ask(), Ok(()));
    }
}
