//! What an identity provider has: a certificate authority, signing keys, and tokens made part by part.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A new key of 2,048 bits; ring makes none.
fn new_rsa_key() -> PrivatePkcs8KeyDer<'static> {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).expect("PKCS #8")
}

pub struct CertificateAuthority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Client {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl CertificateAuthority {
    pub fn new(name: &str) -> Self {
        let mut params = params(1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client's certificate with these URIs, edited before it is signed.
    pub fn client(&self, uris: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Client {
        let mut params = params(7);
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
        params.subject_alt_names = uris.iter().map(uri).collect();
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        Client { chain: vec![certificate.der().clone()], key }
    }

    /// The list of revoked certificates, by serial, until the end of this year.
    pub fn revoked(&self, serials: &[u64], until_year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(until_year, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }
}

fn params(serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signing keys of an issuer.
pub struct Issuer {
    pub ec: EcdsaKeyPair,
    pub ed: Ed25519KeyPair,
    pub rsa: RsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let ec = EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).expect("a key");
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let ed = Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key");
        let rsa = RsaKeyPair::from_pkcs8(new_rsa_key().secret_pkcs8_der()).expect("a key");
        Self { ec, ed, rsa, random }
    }

    pub fn ec_jwk(&self, id: &str) -> String {
        let point = self.ec.public_key().as_ref();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        format!(r#"{{"kty":"EC","crv":"P-256","kid":"{id}","x":"{x}","y":"{y}"}}"#)
    }

    pub fn ed_jwk(&self, id: &str) -> String {
        let x = base64url(self.ed.public_key());
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}"#)
    }

    pub fn rsa_jwk(&self, id: &str, algorithm: &str) -> String {
        let public: RsaPublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let (n, e) = (base64url(public.n), base64url(public.e));
        format!(r#"{{"kty":"RSA","use":"sig","alg":"{algorithm}","kid":"{id}","n":"{n}","e":"{e}"}}"#)
    }

    pub fn es256(&self, header: &str, payload: &str) -> String {
        let sign = |signed: &[u8]| self.ec.sign(&self.random, signed).expect("signed").as_ref().to_vec();
        token(header, payload, sign)
    }

    pub fn eddsa(&self, header: &str, payload: &str) -> String {
        token(header, payload, |signed| self.ed.sign(signed).as_ref().to_vec())
    }

    pub fn rs256(&self, header: &str, payload: &str) -> String {
        self.with_rsa(&RSA_PKCS1_SHA256, header, payload)
    }

    pub fn ps256(&self, header: &str, payload: &str) -> String {
        self.with_rsa(&RSA_PSS_SHA256, header, payload)
    }

    fn with_rsa(&self, padding: &'static dyn RsaEncoding, header: &str, payload: &str) -> String {
        token(header, payload, |signed| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &self.random, signed, &mut signature).expect("signed");
            signature
        })
    }
}

pub fn token(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(payload));
    format!("{signed}.{}", base64url(sign(signed.as_bytes())))
}

pub fn key_set(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}
