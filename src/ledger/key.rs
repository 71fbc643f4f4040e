//! The signing key in a file: one line, `PRIVATE+KEY+<origin>+<hex8>+<base64(0x01 || seed)>` and LF, mode 0600.
//!
//! The form is the one that C2SP note signers write. [`Signer`] is a trait so that a key in hardware can
//! take the file's place.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::{Zeroize, Zeroizing};

use crate::merkle::note::{ALGORITHM_ED25519, Signer, SigningFailed, VerifierKey};
use crate::model::LogOrigin;

const PREFIX: &str = "PRIVATE+KEY+";
const FILE_BYTES_MAX: u64 = 1_024;

/// Why a key file is not used. Never shows what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: mode {mode:04o} lets others read the signing key; expected 0600 (chmod 600 {path})")]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{path}: not a signing key; expected one line `PRIVATE+KEY+<log origin>+<8 hex digits>+<base64>`"
    )]
    Form { path: PathBuf },
    #[error("the system has no randomness for a new key")]
    NoRandomness,
}

/// An Ed25519 key in memory.
pub struct FileSigner {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl FileSigner {
    /// Reads a key file; refuses one that others than its owner may read or write.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let at = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(at)?;
        // Of the open file, so that it cannot be exchanged between the check and the read.
        let mode = file.metadata().map_err(at)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(at)?;
        Self::parse(&text).ok_or_else(|| KeyError::Form { path: path.to_owned() })
    }

    /// A new key of this name: the signer, and its file's text.
    pub fn generate(name: LogOrigin) -> Result<(Self, Zeroizing<String>), KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| KeyError::NoRandomness)?;
        let signer = Self::from_seed(name, &seed).ok_or(KeyError::NoRandomness)?;
        let mut typed = Zeroizing::new(vec![ALGORITHM_ED25519]);
        typed.extend_from_slice(&*seed);
        let mut encoded = STANDARD.encode(&*typed);
        let text = format!("{PREFIX}{}+{}+{encoded}\n", signer.verifier.name(), signer.verifier.id());
        encoded.zeroize();
        Ok((signer, Zeroizing::new(text)))
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let mut parts = line.strip_prefix(PREFIX)?.splitn(3, '+');
        let (name, id, encoded) = (parts.next()?, parts.next()?, parts.next()?);
        let typed = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let seed = typed.strip_prefix(&[ALGORITHM_ED25519])?.try_into().ok()?;
        Self::from_seed(name.parse().ok()?, seed).filter(|s| s.verifier.id().to_string() == id)
    }

    fn from_seed(name: LogOrigin, seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let verifier = VerifierKey::new(name, pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, verifier })
    }
}

impl Signer for FileSigner {
    fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SigningFailed> {
        self.pair.sign(text).as_ref().try_into().map_err(|_| SigningFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::io::Write;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.as_file().set_permissions(Permissions::from_mode(mode)).expect("mode set");
        file
    }

    fn fresh() -> (FileSigner, Zeroizing<String>) {
        FileSigner::generate("example.org/log".parse().expect("a name")).expect("generated")
    }

    #[test]
    fn a_generated_key_reads_back_and_signs_the_same() {
        let (signer, text) = fresh();
        let read = FileSigner::load(file(&text, 0o600).path()).expect("a key");
        assert_eq!(read.verifier(), signer.verifier());
        assert_eq!(read.sign(b"text"), signer.sign(b"text"));
        assert_ne!(fresh().0.verifier(), signer.verifier());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_, text) = fresh();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let refused = FileSigner::load(file(&text, mode).path()).err().expect("refused");
            assert!(matches!(refused, KeyError::Exposed { mode: m, .. } if m == mode), "{refused}");
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_showing_it() {
        let (_, text) = fresh();
        let wrong = [
            text.replace("example.org", "example.com"),
            text.replace("PRIVATE+KEY+", ""),
            text[..text.len() - 8].to_owned(),
            format!("{}{}", &*text, "more"),
            String::new(),
        ];
        for text in wrong {
            let refused = FileSigner::load(file(&text, 0o600).path()).err().expect("refused");
            assert!(matches!(refused, KeyError::Form { .. }), "{refused}");
            let secret = text.rsplit('+').next().unwrap_or_default();
            assert!(secret.is_empty() || !refused.to_string().contains(secret.trim_end()));
        }
    }
}
