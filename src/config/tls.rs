//! Certificates and keys: files in, a rustls config out.
//!
//! One provider (ring), TLS 1.2 and 1.3, agents by `h2` and `http/1.1`, operators by `http/1.1`. After [`server`] the key belongs to the
//! certificate and every certificate of the chain is valid at the time given. Client certificates are verified
//! by webpki, and with lists of revoked certificates the whole chain must be known not to be revoked, by lists
//! that have not ended. RFC 5280, RFC 7301, RFC 7468.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use zeroize::Zeroizing;

use super::reload::{read_named, read_private_named};
use crate::clock::{Clock, WallTime};
use crate::ingress::ServerTls;
use crate::limits;

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    Agents,
    /// The admin listener.
    Operators,
}

impl Serves {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Agents => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Operators => vec![b"http/1.1".to_vec()],
        }
    }
}

/// The files of one listener.
#[derive(Clone, Debug)]
pub struct Paths {
    pub serves: Serves,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client: Option<ClientPaths>,
}

/// Whom client certificates must come from.
#[derive(Clone, Debug)]
pub struct ClientPaths {
    pub roots: PathBuf,
    pub crls: Vec<PathBuf>,
    pub are: ClientsAre,
}

/// Whether a client without a certificate is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsAre {
    Required,
    Optional,
}

/// Which file is at fault, by its place in [`Paths::all`], and why.
pub type AtFault = (usize, String);

/// Places in [`Paths::all`].
const CERTIFICATE: usize = 0;
pub const KEY: usize = 1;
const CLIENT_ROOTS: usize = 2;
const FIRST_CRL: usize = 3;

impl Paths {
    /// Certificate, key, client roots, lists.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let client = self.client.iter().flat_map(|client| std::iter::once(&client.roots).chain(&client.crls));
        [&self.certificate, &self.key].into_iter().chain(client)
    }

    /// The bytes of all files, in that order.
    pub fn read(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
        let mut files = Vec::new();
        for (at, path) in self.all().enumerate() {
            files.push(if at == KEY { read_private_named(path)? } else { read_named(path)?.into() });
        }
        Ok(files)
    }

    /// From the bytes of all files, in that order; and what is worth a warning.
    pub fn build(
        &self,
        files: &[Zeroizing<Vec<u8>>],
        clock: &Clock,
    ) -> Result<(ServerTls, Vec<AtFault>), AtFault> {
        let file = |at: usize| files.get(at).map_or(&[][..], |file| file);
        let mut warnings = Vec::new();
        let client = match &self.client {
            None => None,
            Some(client) => {
                let crls = files.get(FIRST_CRL..).unwrap_or_default();
                let (verifier, warned) = client_verifier(file(CLIENT_ROOTS), crls, client.are, clock)?;
                warnings.extend(warned);
                Some(verifier)
            }
        };
        let (config, warning) = server(file(CERTIFICATE), file(KEY), client.clone(), self.serves, clock)?;
        warnings.extend(warning.map(|warning| (CERTIFICATE, warning)));
        Ok((ServerTls { config, client }, warnings))
    }
}

/// Time for rustls, from the clock that everything else reads.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(self.0.wall().unix_ns())))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server's config, and the warning to give if a certificate ends soon.
fn server(
    certificate_pem: &[u8],
    key_pem: &[u8],
    client: Option<Arc<dyn ClientCertVerifier>>,
    serves: Serves,
    clock: &Clock,
) -> Result<(Arc<ServerConfig>, Option<String>), AtFault> {
    let of_certificate = |why| (CERTIFICATE, why);
    let chain = certificates(certificate_pem).map_err(of_certificate)?;
    let mut warning = None;
    for certificate in &chain {
        warning = check_validity(certificate, clock.wall()).map_err(of_certificate)?.or(warning);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|e| (KEY, format!("holds no private key in PEM ({e})")))?;
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(Time(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| of_certificate(e.to_string()))?;
    let asks_clients = client.is_some();
    let builder = match client {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => (KEY, "does not belong to the certificate".to_owned()),
        other => (KEY, format!("cannot be used ({other})")),
    })?;
    config.alpn_protocols = serves.protocols();
    if asks_clients {
        // A resumed session is not verified again: it would outlive its certificate and its revocation.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok((Arc::new(config), warning))
}

/// Verifies clients' chains: of these roots, and with lists, of nobody who is in one of them.
fn client_verifier(
    roots_pem: &[u8],
    crls: &[Zeroizing<Vec<u8>>],
    are: ClientsAre,
    clock: &Clock,
) -> Result<(Arc<dyn ClientCertVerifier>, Vec<AtFault>), AtFault> {
    let roots = root_store(roots_pem).map_err(|why| (CLIENT_ROOTS, why))?;
    let (mut lists, mut warnings) = (Vec::new(), Vec::new());
    for (at, file) in crls.iter().enumerate() {
        let at = FIRST_CRL + at;
        for list in revocation_lists(file).map_err(|why| (at, why))? {
            if let Some(warning) = check_list(&list, clock.wall()).map_err(|why| (at, why))? {
                warnings.push((at, warning));
            }
            lists.push(list);
        }
    }
    // What the builder does by itself stands here too, for the reader: the whole chain is checked, and a certificate
    // that no list speaks of is refused. What it does not do by itself is to refuse a list that has ended.
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
        .with_crls(lists)
        .enforce_revocation_expiration();
    let builder = match are {
        ClientsAre::Required => builder,
        ClientsAre::Optional => builder.allow_unauthenticated(),
    };
    let verifier = builder.build().map_err(|e| (CLIENT_ROOTS, format!("cannot be used ({e})")))?;
    Ok((verifier, warnings))
}

/// Checks a file of trusted roots: at least one, each usable. Gives their number.
pub fn roots(pem: &[u8]) -> Result<usize, String> {
    root_store(pem).map(|store| store.len())
}

fn root_store(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(|e| format!("holds a certificate that cannot be a root ({e})"))?;
    }
    Ok(store)
}

/// One list in DER, or any number of them in PEM.
fn revocation_lists(file: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    // DER begins with the tag of a sequence.
    if file.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(file.to_vec())]);
    }
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(file)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("is neither DER nor PEM ({e})"))?;
    if lists.is_empty() { Err("holds no list of revoked certificates".to_owned()) } else { Ok(lists) }
}

/// A list that has ended is in force all the same: whoever it speaks of is refused until there is a newer one.
fn check_list(list: &CertificateRevocationListDer<'_>, now: WallTime) -> Result<Option<String>, String> {
    let (_, parsed) = x509_parser::parse_x509_crl(list)
        .map_err(|e| format!("holds a list of revoked certificates that cannot be read ({e})"))?;
    // webpki reads it too, by itself, so that an error names the file.
    webpki::BorrowedCertRevocationList::from_der(list)
        .map_err(|e| format!("holds a list of revoked certificates that cannot be used ({e})"))?;
    let now = (now.unix_ns() / 1_000_000_000) as i64;
    let ended = parsed.next_update().filter(|next| next.timestamp() <= now);
    Ok(ended
        .map(|next| format!("ended on {next}: whoever it speaks of is refused until there is a newer one")))
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

    fn at(text: &str) -> Clock {
        Clock::manual(WallTime::parse_rfc3339(text).expect("a time"))
    }

    #[test]
    fn a_valid_pair_serves_h2_and_http_1_1() {
        let (certificate, key) = pair();
        let (config, warning) =
            server(certificate.as_bytes(), key.as_bytes(), None, Serves::Agents, &at("2026-06-01T00:00:00Z"))
                .expect("valid");
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(warning, None);
    }

    #[test]
    fn a_certificate_is_refused_before_and_after_its_time_and_warned_of_near_its_end() {
        let (certificate, key) = pair();
        let on = |time| server(certificate.as_bytes(), key.as_bytes(), None, Serves::Agents, &at(time));
        let why = |time| match on(time) {
            Err((CERTIFICATE, why)) => why,
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
        let refused =
            server(certificate.as_bytes(), key.as_bytes(), None, Serves::Agents, &at("2026-06-01T00:00:00Z"));
        assert_eq!(refused.err(), Some((KEY, "does not belong to the certificate".into())));
    }

    #[test]
    fn files_without_what_they_should_hold_are_refused() {
        let (certificate, key) = pair();
        let now = at("2026-06-01T00:00:00Z");
        let of = |c: &str, k: &str| server(c.as_bytes(), k.as_bytes(), None, Serves::Agents, &now).err();
        assert!(matches!(of("", &key), Some((CERTIFICATE, _))));
        assert!(matches!(of(&key, &key), Some((CERTIFICATE, _))));
        assert!(matches!(of(&certificate, ""), Some((KEY, _))));
        assert_eq!(roots(certificate.as_bytes()), Ok(1));
        assert!(roots(key.as_bytes()).is_err());
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(roots(garbage.as_bytes()).is_err());
    }
}
