//! TLS towards an upstream: rustls with ring, TLS 1.2 and 1.3, certificates always verified.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Roots;

/// Why the declared roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRoots {
    #[error("{}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: String },
    #[error("no usable root certificate")]
    Empty,
    #[error("rustls refused the settings: {0}")]
    Refused(#[from] rustls::Error),
}

/// The client configuration for one upstream. HTTP/1.1 is the only protocol offered.
pub(super) fn client_config(roots: &Roots) -> Result<Arc<ClientConfig>, InvalidRoots> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(root_store(roots)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // No early data: it could be replayed, and it would leave before the handshake proves the peer.
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn root_store(roots: &Roots) -> Result<RootCertStore, InvalidRoots> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::WebPki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Native => {
            // Single unreadable files of the host's store are common and do not matter while others load.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Roots::File(path) => {
            let unreadable = |cause: String| InvalidRoots::Unreadable { path: path.clone(), cause };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| unreadable(e.to_string()))?;
            for certificate in certificates {
                store
                    .add(certificate.map_err(|e| unreadable(e.to_string()))?)
                    .map_err(|e| unreadable(e.to_string()))?;
            }
        }
    }
    if store.is_empty() { Err(InvalidRoots::Empty) } else { Ok(store) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roots_file_without_a_certificate_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ca.pem");
        std::fs::File::create_new(&path).expect("new file");
        assert!(matches!(client_config(&Roots::File(path)), Err(InvalidRoots::Empty)));
        let missing = Roots::File(dir.path().join("missing.pem"));
        assert!(matches!(client_config(&missing), Err(InvalidRoots::Unreadable { .. })));
    }

    #[test]
    fn the_compiled_in_roots_load() {
        let config = client_config(&Roots::WebPki).expect("compiled in");
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
