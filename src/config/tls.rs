//! Certificates and keys: PEM files in, a rustls config out.
//!
//! One provider (ring), TLS 1.2 and 1.3, `h2` and `http/1.1`. After [`server`] the key belongs to the
//! certificate and every certificate of the chain is valid at the time given. RFC 5280, RFC 7301, RFC 7468.

use std::sync::Arc;

use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock::WallTime;
use crate::limits;

/// Why certificates cannot be used, and whether the certificate or the key is at fault.
#[derive(Debug, PartialEq, Eq)]
pub enum InvalidTls {
    Certificate(String),
    Key(String),
}

/// A server's config, and the warning to give if a certificate ends soon.
pub fn server(
    certificate_pem: &[u8],
    key_pem: &[u8],
    now: WallTime,
) -> Result<(Arc<ServerConfig>, Option<String>), InvalidTls> {
    let chain = certificates(certificate_pem).map_err(InvalidTls::Certificate)?;
    let mut warning = None;
    for certificate in &chain {
        warning = check_validity(certificate, now).map_err(InvalidTls::Certificate)?.or(warning);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|e| InvalidTls::Key(format!("holds no private key in PEM ({e})")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| InvalidTls::Certificate(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                InvalidTls::Key("does not belong to the certificate".to_owned())
            }
            other => InvalidTls::Key(format!("cannot be used ({other})")),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), warning))
}

/// Checks a file of trusted roots: at least one, each usable. Gives their number.
pub fn roots(pem: &[u8]) -> Result<usize, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(|e| format!("holds a certificate that cannot be a root ({e})"))?;
    }
    Ok(store.len())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("is not PEM ({e})"))?;
    if chain.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(chain) }
}

fn check_validity(certificate: &CertificateDer<'_>, now: WallTime) -> Result<Option<String>, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| format!("holds a certificate that cannot be read ({e})"))?;
    let validity = parsed.validity();
    // Seconds since 1970: u64 nanoseconds divided end far below i64.
    let now = (now.unix_ns() / 1_000_000_000) as i64;
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now < from {
        return Err(format!("is not valid before {}", validity.not_before));
    }
    if now > until {
        return Err(format!("expired on {}", validity.not_after));
    }
    let left_days = (until - now) as u64 / 86_400;
    let soon = left_days < limits::CERTIFICATE_WARNING_DAYS;
    Ok(soon.then(|| format!("expires on {} ({left_days} days left)", validity.not_after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    /// Valid in all of 2026.
    fn pair() -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn at(text: &str) -> WallTime {
        WallTime::parse_rfc3339(text).expect("a time")
    }

    #[test]
    fn a_valid_pair_serves_h2_and_http_1_1() {
        let (certificate, key) = pair();
        let (config, warning) =
            server(certificate.as_bytes(), key.as_bytes(), at("2026-06-01T00:00:00Z")).expect("valid");
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(warning, None);
    }

    #[test]
    fn a_certificate_is_refused_before_and_after_its_time_and_warned_of_near_its_end() {
        let (certificate, key) = pair();
        let on = |time| server(certificate.as_bytes(), key.as_bytes(), at(time));
        let why = |time| match on(time) {
            Err(InvalidTls::Certificate(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(why("2025-12-31T23:59:59Z").contains("not valid before"));
        assert!(why("2027-01-01T00:00:00Z").contains("expired on"));
        let warning = on("2026-12-25T00:00:00Z").expect("still valid").1.expect("a warning");
        assert!(warning.contains("6 days left"), "{warning}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ((certificate, _), (_, key)) = (pair(), pair());
        let refused = server(certificate.as_bytes(), key.as_bytes(), at("2026-06-01T00:00:00Z"));
        assert_eq!(refused.err(), Some(InvalidTls::Key("does not belong to the certificate".into())));
    }

    #[test]
    fn files_without_what_they_should_hold_are_refused() {
        let (certificate, key) = pair();
        let now = at("2026-06-01T00:00:00Z");
        let of = |c: &str, k: &str| server(c.as_bytes(), k.as_bytes(), now).err();
        assert!(matches!(of("", &key), Some(InvalidTls::Certificate(_))));
        assert!(matches!(of(&key, &key), Some(InvalidTls::Certificate(_))));
        assert!(matches!(of(&certificate, ""), Some(InvalidTls::Key(_))));
        assert_eq!(roots(certificate.as_bytes()), Ok(1));
        assert!(roots(key.as_bytes()).is_err());
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(roots(garbage.as_bytes()).is_err());
    }
}
