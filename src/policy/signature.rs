//! Signatures of bundles as OPA defines them: `.signatures.json` holds one JWT, which names every file with its digest.
//!
//! In: the files and the pinned keys. Out: the id of the key that signed exactly these files, or why not. The algorithm is
//! the key's, and the token has to agree, so a public key is never a secret and `none` is nothing; no file may be missing
//! from the list or from the bundle. Structured files (`data.json`, `.manifest`) are hashed by their structure: members in
//! the order of their names, without white space, numbers as they were written, strings as Go's encoder writes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey,
};
use ring::{digest, hmac};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::archive::Files;
use super::fault::{BundleError, Fault};
use super::opa::{MANIFEST, object_of};
use crate::canonical::json::{self, Bounds};
use crate::limits;
use crate::model::{Json, Object};

pub(super) const FILE: &str = ".signatures.json";

enum Material {
    Rsa(Vec<u8>),
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
    Hmac(hmac::Key),
}

/// A key that may sign bundles, pinned by config.
pub struct BundleKey {
    id: Arc<str>,
    material: Material,
    scope: Arc<str>,
}

impl std::fmt::Debug for BundleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleKey").field("id", &self.id).field("algorithm", &self.algorithm()).finish()
    }
}

impl BundleKey {
    /// A public key in PEM: RSA of at least 2,048 bits, P-256 or Ed25519. `scope` is empty where the signature names none.
    pub fn public(id: &str, pem: &[u8], scope: &str) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| "is no PEM of a public key")?;
        let (rest, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| "is no public key")?;
        let key = info.subject_public_key.data.to_vec();
        let material = match (&*info.algorithm.algorithm.to_id_string(), key.len()) {
            ("1.2.840.113549.1.1.1", _) => Material::Rsa(key),
            ("1.2.840.10045.2.1", 65) => Material::P256(key),
            ("1.3.101.112", 32) => Material::Ed25519(key),
            _ => return Err("is neither RSA, P-256 nor Ed25519".into()),
        };
        if !rest.is_empty() {
            return Err("has something after the key".into());
        }
        Ok(Self { id: id.into(), material, scope: scope.into() })
    }

    /// A secret that signer and gateway share: whoever can verify can sign.
    pub fn secret(id: &str, secret: &[u8], scope: &str) -> Result<Self, String> {
        if secret.len() < 32 {
            return Err("is shorter than 32 bytes".into());
        }
        Ok(Self {
            id: id.into(),
            material: Material::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret)),
            scope: scope.into(),
        })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// As a JWT names it.
    pub const fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Rsa(_) => "RS256",
            Material::P256(_) => "ES256",
            Material::Ed25519(_) => "EdDSA",
            Material::Hmac(_) => "HS256",
        }
    }

    fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        let by = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signed).is_ok()
        };
        match &self.material {
            Material::Rsa(key) => by(&signature::RSA_PKCS1_2048_8192_SHA256, key),
            Material::P256(key) => by(&signature::ECDSA_P256_SHA256_FIXED, key),
            Material::Ed25519(key) => by(&signature::ED25519, key),
            Material::Hmac(key) => hmac::verify(key, message, signed).is_ok(),
        }
    }
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Hmac(hmac::Key),
}

/// A key that signs bundles.
pub struct SigningKey {
    id: Arc<str>,
    pair: Pair,
    scope: Option<Arc<str>>,
}

impl SigningKey {
    /// A PKCS#8 private key in PEM: RSA, P-256 or Ed25519.
    pub fn private(id: &str, pem: &[u8], scope: Option<&str>) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| "is no PEM of a PKCS#8 private key")?;
        let der = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        let random = SystemRandom::new();
        let pair = if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            Pair::Ed25519(Box::new(pair))
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random) {
            Pair::P256(Box::new(pair))
        } else if let Ok(pair) = RsaKeyPair::from_pkcs8(&der) {
            Pair::Rsa(Box::new(pair))
        } else {
            return Err("is neither RSA, P-256 nor Ed25519".into());
        };
        Ok(Self { id: id.into(), pair, scope: scope.map(Into::into) })
    }

    /// See [`BundleKey::secret`].
    pub fn secret(id: &str, secret: &[u8], scope: Option<&str>) -> Result<Self, String> {
        BundleKey::secret(id, secret, "")?;
        let pair = Pair::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Ok(Self { id: id.into(), pair, scope: scope.map(Into::into) })
    }

    const fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Hmac(_) => "HS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signed).ok()?;
                Some(signed)
            }
            Pair::P256(pair) => pair.sign(&random, message).ok().map(|signed| signed.as_ref().to_vec()),
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
        }
    }

    /// The raw public key, for whoever pins it in a test.
    #[cfg(test)]
    fn public_key(&self) -> Option<&[u8]> {
        use ring::signature::KeyPair;
        match &self.pair {
            Pair::Rsa(pair) => Some(pair.public_key().as_ref()),
            Pair::P256(pair) => Some(pair.public_key().as_ref()),
            Pair::Ed25519(pair) => Some(pair.public_key().as_ref()),
            Pair::Hmac(_) => None,
        }
    }
}

/// `.signatures.json` for these files.
pub(super) fn sign(files: &Files, key: &SigningKey) -> Result<Vec<u8>, BundleError> {
    let mut listed = Vec::new();
    for (name, bytes) in files {
        let hash = hash_of(name, bytes, &digest::SHA256).map_err(|why| refused("signature_file", why))?;
        listed.push(Json::object([
            ("algorithm", Json::string("SHA-256")),
            ("hash", Json::string(&hash)),
            ("name", Json::string(name)),
        ]));
    }
    let header = Json::object([
        ("alg", Json::string(key.algorithm())),
        ("kid", Json::string(&key.id)),
        ("typ", Json::string("JWT")),
    ]);
    let mut claims = vec![("files", Json::Array(listed)), ("keyid", Json::string(&key.id))];
    claims.extend(key.scope.as_ref().map(|scope| ("scope", Json::string(scope))));
    let part = |json: &Json| URL_SAFE_NO_PAD.encode(json::write(json));
    let message = format!("{}.{}", part(&header), part(&object_of(claims)));
    let signed = key.sign(message.as_bytes());
    let signed = signed.ok_or_else(|| refused("signature_key", "the key does not sign".into()))?;
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed));
    Ok(json::write(&Json::object([("signatures", Json::Array(vec![Json::string(&token)]))])))
}

/// The id of the key that signed exactly these files.
pub(super) fn verify(files: &Files, keys: &[BundleKey]) -> Result<Arc<str>, BundleError> {
    let file = files.get(FILE).ok_or_else(|| refused("signature_missing", format!("has no `{FILE}`")))?;
    let (id, claims) = token(file, keys)?;
    let mut listed = BTreeMap::new();
    let Some(Json::Array(items)) = claims.member("files") else {
        return Err(refused("signature_invalid", "the signature has no list `files`".into()));
    };
    for item in items {
        let text = |name: &str| item.as_object().and_then(|item| item.member(name)).and_then(Json::as_str);
        let (Some(name), Some(hash), Some(algorithm)) = (text("name"), text("hash"), text("algorithm"))
        else {
            let message = "a signed file lacks its `name`, `hash` or `algorithm`";
            return Err(refused("signature_invalid", message.into()));
        };
        let algorithm = match algorithm {
            "SHA-256" => &digest::SHA256,
            "SHA-384" => &digest::SHA384,
            "SHA-512" => &digest::SHA512,
            "SHA-512-256" => &digest::SHA512_256,
            other => {
                return Err(refused("signature_digest", format!("`{other}` is no digest that is taken")));
            }
        };
        if listed.insert(name, (hash.to_ascii_lowercase(), algorithm)).is_some() {
            return Err(refused("signature_invalid", format!("the signature names `{name}` twice")));
        }
    }
    for (name, bytes) in files.iter().filter(|(name, _)| *name != FILE) {
        let Some((hash, algorithm)) = listed.remove(name.as_str()) else {
            return Err(refused("signature_file", format!("`{name}` is not covered by the signature")));
        };
        let own = hash_of(name, bytes, algorithm).map_err(|why| refused("signature_file", why))?;
        if own != hash {
            return Err(refused("signature_file", format!("`{name}` is not what was signed")));
        }
    }
    match listed.keys().next() {
        None => Ok(id),
        Some(name) => Err(refused("signature_file", format!("`{name}` was signed, and is not there"))),
    }
}

/// The claims of the one token, after its signature.
fn token(file: &[u8], keys: &[BundleKey]) -> Result<(Arc<str>, Object), BundleError> {
    let invalid = |why: &str| refused("signature_invalid", why.into());
    let document = object(file).ok_or_else(|| invalid("`.signatures.json` is no strict JSON object"))?;
    if document.member("plugin").is_some() {
        return Err(invalid("`plugin` asks for a verifier that this gateway does not have"));
    }
    let Some(Json::Array(tokens)) = document.member("signatures") else {
        return Err(invalid("`.signatures.json` has no list `signatures`"));
    };
    let [Json::String(token)] = &tokens[..] else {
        return Err(invalid("there has to be exactly one signature"));
    };
    let malformed = || invalid("the signature is no JWT");
    let (message, signed) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, claims) = message.split_once('.').ok_or_else(malformed)?;
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| object(&bytes));
    let (header, claims) = (part(header).ok_or_else(malformed)?, part(claims).ok_or_else(malformed)?);
    let signed = URL_SAFE_NO_PAD.decode(signed).map_err(|_| malformed())?;
    if header.member("crit").is_some() {
        return Err(invalid("the signature has critical extensions"));
    }
    // As OPA does: the header's `kid`, then the claim `keyid`.
    let id = header.member("kid").or_else(|| claims.member("keyid")).and_then(Json::as_str);
    let key = id.and_then(|id| keys.iter().find(|key| *key.id == *id));
    let key = key.ok_or_else(|| {
        refused("signature_key", "no pinned key has the id that the signature names".into())
    })?;
    if header.member("alg").and_then(Json::as_str) != Some(key.algorithm()) {
        let message = format!("the signature is not {}, which the key `{}` is for", key.algorithm(), key.id);
        return Err(refused("signature_algorithm", message));
    }
    if !key.verifies(message.as_bytes(), &signed) {
        return Err(refused("signature_wrong", format!("the key `{}` did not sign this", key.id)));
    }
    let scope = claims.member("scope").map_or(Some(""), Json::as_str);
    if scope != Some(&*key.scope) {
        return Err(refused("signature_scope", "the signature is for another scope".into()));
    }
    Ok((Arc::clone(&key.id), claims))
}

fn object(bytes: &[u8]) -> Option<Object> {
    let bounds = Bounds { depth_max: limits::JSON_DEPTH_MAX, values_max: limits::JSON_VALUES_MAX };
    match json::parse(bytes, bounds) {
        Ok(Json::Object(object)) if bytes.len() <= limits::POLICY_SIGNATURE_BYTES_MAX => Some(object),
        Ok(_) | Err(_) => None,
    }
}

fn refused(rule: &'static str, message: String) -> BundleError {
    Fault::of_bundle(rule, message).into()
}

/// Lowercase hexadecimal.
fn hash_of(name: &str, bytes: &[u8], algorithm: &'static digest::Algorithm) -> Result<String, String> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let structured = matches!(base, "data.json" | MANIFEST);
    let hashed = match structured {
        false => digest::digest(algorithm, bytes),
        true => {
            let structure = structure(bytes).map_err(|why| format!("`{name}` {why}"))?;
            digest::digest(algorithm, &structure)
        }
    };
    Ok(hashed.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What OPA hashes of a JSON document.
fn structure(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let bounds = Bounds { depth_max: limits::JSON_DEPTH_MAX, values_max: limits::POLICY_DATA_VALUES_MAX };
    // One reading, and bounded: what follows need not check.
    json::parse(bytes, bounds)
        .map_err(|malformed| format!("is not strict JSON: {}", malformed.code.title()))?;
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let mut scan = Scan { rest: text };
    scan.value().ok_or_else(|| "is not JSON".to_owned())
}

/// Over text that is strict JSON.
struct Scan<'t> {
    rest: &'t str,
}

impl Scan<'_> {
    fn value(&mut self) -> Option<Vec<u8>> {
        self.rest = self.rest.trim_start();
        match self.rest.bytes().next()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string().map(|text| go_string(&text)),
            _ => {
                let end = self.rest.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                Some(word.as_bytes().to_vec())
            }
        }
    }

    /// Whether this is the next character that counts; it is taken then.
    fn takes(&mut self, expected: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn object(&mut self) -> Option<Vec<u8>> {
        let mut members = BTreeMap::new();
        self.takes('{');
        while !self.takes('}') {
            self.takes(',');
            self.rest = self.rest.trim_start();
            let name = self.string()?;
            self.takes(':');
            members.insert(name, self.value()?);
        }
        let mut out = vec![b'{'];
        for (n, (name, value)) in members.into_iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend(go_string(&name));
            out.push(b':');
            out.extend(value);
        }
        out.push(b'}');
        Some(out)
    }

    fn array(&mut self) -> Option<Vec<u8>> {
        let mut out = vec![b'['];
        self.takes('[');
        while !self.takes(']') {
            if self.takes(',') {
                out.push(b',');
            }
            out.extend(self.value()?);
        }
        out.push(b']');
        Some(out)
    }

    fn string(&mut self) -> Option<String> {
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let (token, rest) = self.rest.split_at(end?.0 + 1);
        self.rest = rest;
        serde_json::from_str(token).ok()
    }
}

/// As Go's `encoding/json` writes a string without escaping HTML.
fn go_string(text: &str) -> Vec<u8> {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{0}'..='\u{1f}' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            other => out.push(other),
        }
    }
    out.push('"');
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a secret of thirty-two bytes, or more";

    fn files() -> Files {
        let files = [
            ("p.rego", "package p\n"),
            ("data.json", "{\"b\": 1.0, \"a\": [true, \"x\"]}"),
            (MANIFEST, "{}"),
        ];
        files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into()
    }

    fn ed25519(id: &str) -> SigningKey {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random");
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).expect("its own form");
        SigningKey { id: id.into(), pair: Pair::Ed25519(Box::new(pair)), scope: None }
    }

    fn p256(id: &str) -> SigningKey {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).expect("its own form");
        SigningKey { id: id.into(), pair: Pair::P256(Box::new(pair)), scope: None }
    }

    fn pinned(key: &SigningKey) -> BundleKey {
        let material = match &key.pair {
            Pair::Rsa(_) => Material::Rsa(key.public_key().expect("public").to_vec()),
            Pair::P256(_) => Material::P256(key.public_key().expect("public").to_vec()),
            Pair::Ed25519(_) => Material::Ed25519(key.public_key().expect("public").to_vec()),
            Pair::Hmac(key) => Material::Hmac(key.clone()),
        };
        BundleKey { id: key.id.clone(), material, scope: key.scope.clone().unwrap_or_default() }
    }

    fn signed(key: &SigningKey) -> Files {
        let mut files = files();
        let signed = sign(&files, key).expect("signs");
        files.insert(FILE.to_owned(), signed);
        files
    }

    fn rule(files: &Files, keys: &[BundleKey]) -> &'static str {
        verify(files, keys).map_or_else(|error| error.faults()[0].rule, |_| "")
    }

    #[test]
    fn what_a_pinned_key_signed_is_taken_under_its_id() {
        let secret = SigningKey::secret("shared", SECRET, Some("write")).expect("long enough");
        for key in [ed25519("a"), p256("b"), secret] {
            let id = verify(&signed(&key), &[pinned(&ed25519("other")), pinned(&key)]);
            assert_eq!(id.expect("its own").as_ref(), &*key.id);
        }
    }

    #[test]
    fn whatever_was_changed_after_signing_is_named() {
        let key = p256("a");
        let keys = [pinned(&key)];
        let good = signed(&key);
        let mut changed = good.clone();
        changed.insert("p.rego".into(), b"package q\n".to_vec());
        assert_eq!(rule(&changed, &keys), "signature_file");
        let mut missing = good.clone();
        missing.remove("p.rego");
        assert_eq!(rule(&missing, &keys), "signature_file");
        let mut extra = good.clone();
        extra.insert("q.rego".into(), b"package q\n".to_vec());
        assert_eq!(rule(&extra, &keys), "signature_file");
        let mut readme = good.clone();
        readme.insert("README.md".into(), b"hello".to_vec());
        assert_eq!(rule(&readme, &keys), "signature_file");
        let mut manifest = good.clone();
        manifest.insert(MANIFEST.into(), b"{\"roots\":[]}".to_vec());
        assert_eq!(rule(&manifest, &keys), "signature_file");
        // White space and the order of members are not what is signed.
        let mut spaced = good.clone();
        spaced.insert("data.json".into(), b"{\"a\":[true,\"\\u0078\"],\"b\":1.0}".to_vec());
        assert_eq!(rule(&spaced, &keys), "");
        spaced.insert("data.json".into(), b"{\"a\":[true,\"x\"],\"b\":1}".to_vec());
        assert_eq!(rule(&spaced, &keys), "signature_file", "numbers are, as they were written");
    }

    #[test]
    fn a_key_or_algorithm_that_is_not_pinned_signs_nothing() {
        let (key, other) = (ed25519("a"), ed25519("a"));
        let good = signed(&key);
        assert_eq!(rule(&good, &[]), "signature_key");
        assert_eq!(rule(&good, &[pinned(&other)]), "signature_wrong");
        assert_eq!(rule(&good, &[pinned(&ed25519("b"))]), "signature_key");
        // Who knows the public key signs with it as a secret.
        let confused = SigningKey {
            id: "a".into(),
            pair: Pair::Hmac(hmac::Key::new(hmac::HMAC_SHA256, key.public_key().expect("public"))),
            scope: None,
        };
        assert_eq!(rule(&signed(&confused), &[pinned(&key)]), "signature_algorithm");
        let scoped = BundleKey { scope: "write".into(), ..pinned(&key) };
        assert_eq!(rule(&good, &[scoped]), "signature_scope");
        let with_token = |token: &str| {
            let mut files = good.clone();
            files.insert(FILE.into(), format!("{{\"signatures\":[\"{token}\"]}}").into_bytes());
            files
        };
        let document: serde_json::Value = serde_json::from_slice(&good[FILE]).expect("JSON");
        let token = document["signatures"][0].as_str().expect("a token").to_owned();
        let (head, rest) = token.split_once('.').expect("parts");
        let (claims, signature) = rest.split_once('.').expect("parts");
        assert_eq!(rule(&with_token(&token), &[pinned(&key)]), "");
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\",\"kid\":\"a\"}");
        assert_eq!(rule(&with_token(&format!("{none}.{claims}.")), &[pinned(&key)]), "signature_algorithm");
        let critical = URL_SAFE_NO_PAD.encode("{\"alg\":\"EdDSA\",\"kid\":\"a\",\"crit\":[]}");
        let forged = format!("{critical}.{claims}.{signature}");
        assert_eq!(rule(&with_token(&forged), &[pinned(&key)]), "signature_invalid");
        let emptied = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode("{\"files\":[]}"));
        assert_eq!(rule(&with_token(&emptied), &[pinned(&key)]), "signature_wrong");
        for malformed in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d"] {
            assert_eq!(rule(&with_token(malformed), &[pinned(&key)]), "signature_invalid", "{malformed:?}");
        }
        for document in
            ["{}", "[]", "{\"signatures\":[]}", "{\"signatures\":[1]}", "{\"signatures\":[\"a\",\"b\"]}"]
        {
            let mut files = good.clone();
            files.insert(FILE.into(), document.into());
            assert_eq!(rule(&files, &[pinned(&key)]), "signature_invalid", "{document}");
        }
        let mut plugin = good.clone();
        plugin.insert(FILE.into(), format!("{{\"plugin\":\"x\",\"signatures\":[\"{token}\"]}}").into_bytes());
        assert_eq!(rule(&plugin, &[pinned(&key)]), "signature_invalid");
    }

    #[test]
    fn the_structure_is_hashed_as_opa_hashes_it() {
        let told = |text: &str| String::from_utf8(structure(text.as_bytes()).expect("JSON")).expect("UTF-8");
        assert_eq!(
            told(" { \"b\" : [ 1.50 , 1E2 ] , \"a\" : { } , \"\" : null } "),
            "{\"\":null,\"a\":{},\"b\":[1.50,1E2]}"
        );
        assert_eq!(
            told("\"<\\u00e9\\/\\\"\\\\\\u2028\\u0001\\b>\""),
            "\"<\u{e9}/\\\"\\\\\\u2028\\u0001\\b>\""
        );
        assert_eq!(told("[\"a]\\\\\",\"b\"]"), "[\"a]\\\\\",\"b\"]");
    }
}
