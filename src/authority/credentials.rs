//! The secrets the gateway injects. Handed in by `config`, zeroized when dropped, never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::limits;
use crate::model::SecretName;

/// One secret: 1 to [`limits::SECRET_BYTES_MAX`] bytes of visible ASCII, so that it can stand in a header
/// (RFC 9110 section 5.5) and can neither end it nor begin another.
pub struct Credential(Zeroizing<Vec<u8>>);

/// The bytes cannot stand in a header. Says what is wrong, never with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredential {
    #[error("the secret is empty")]
    Empty,
    #[error("the secret is longer than {} bytes", limits::SECRET_BYTES_MAX)]
    TooLong,
    #[error("the secret holds a byte that is not visible ASCII")]
    NotVisible,
}

impl Credential {
    /// Takes the bytes over. One line end at the end, as editors write, is not part of the secret.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, InvalidCredential> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(InvalidCredential::Empty);
        }
        if bytes.len() > limits::SECRET_BYTES_MAX {
            return Err(InvalidCredential::TooLong);
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidCredential::NotVisible);
        }
        Ok(Self(bytes))
    }

    /// The secret itself, for the slot in the message. Copies of it must be zeroized too.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// All secrets by name.
#[derive(Debug, Default)]
pub struct Credentials(BTreeMap<SecretName, Arc<Credential>>);

impl Credentials {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one.
    pub fn insert(&mut self, name: SecretName, credential: Credential) {
        self.0.insert(name, Arc::new(credential));
    }

    /// Shared: a secret is in memory once.
    pub fn find(&self, name: &SecretName) -> Option<&Arc<Credential>> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(bytes: &[u8]) -> Result<Credential, InvalidCredential> {
        Credential::new(Zeroizing::new(bytes.to_vec()))
    }

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        for bytes in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            assert_eq!(credential(bytes.as_bytes()).expect("valid").expose(), b"s3cret");
        }
        assert_eq!(credential(b"s3cret\n\n").err(), Some(InvalidCredential::NotVisible));
    }

    #[test]
    fn a_secret_that_could_not_stand_in_a_header_is_refused() {
        assert_eq!(credential(b"").err(), Some(InvalidCredential::Empty));
        assert_eq!(credential(b"\n").err(), Some(InvalidCredential::Empty));
        assert_eq!(credential(b"a\r\nx-evil: 1").err(), Some(InvalidCredential::NotVisible));
        assert_eq!(credential(b"two words").err(), Some(InvalidCredential::NotVisible));
        assert_eq!(credential("gr\u{fc}n".as_bytes()).err(), Some(InvalidCredential::NotVisible));
        assert!(credential(&[b'a'; limits::SECRET_BYTES_MAX]).is_ok());
        assert_eq!(credential(&[b'a'; limits::SECRET_BYTES_MAX + 1]).err(), Some(InvalidCredential::TooLong));
    }

    #[test]
    fn printing_shows_names_and_no_secret() {
        let mut all = Credentials::new();
        let name: SecretName = "payments-key".parse().expect("a name");
        all.insert(name.clone(), credential(b"s3cret").expect("valid"));
        let shown = format!("{all:?}");
        assert!(shown.contains("payments-key") && !shown.contains("s3cret"), "{shown}");
        assert_eq!(all.find(&name).map(|credential| credential.expose()), Some(&b"s3cret"[..]));
        assert_eq!(all.names().count(), 1);
    }
}
