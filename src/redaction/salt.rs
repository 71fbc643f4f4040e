//! Salts: from a key of the run, the receipt and the place, so that they can be made again and are stored nowhere.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use zeroize::Zeroizing;

use crate::model::ReceiptId;

/// The secret of one run. Never shown, never in a log.
#[derive(Clone)]
pub struct EpochKey(Zeroizing<[u8; EpochKey::BYTES]>);

impl EpochKey {
    pub const BYTES: usize = 32;

    pub fn new(bytes: Zeroizing<[u8; Self::BYTES]>) -> Self {
        Self(bytes)
    }

    /// For one receipt.
    pub fn salter(&self, id: ReceiptId) -> Salter {
        Salter { key: hmac::Key::new(hmac::HMAC_SHA256, &*self.0), id }
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(..)")
    }
}

/// Makes the salts of one receipt.
pub struct Salter {
    key: hmac::Key,
    id: ReceiptId,
}

/// So that no other use of the key can give the same bytes.
const DOMAIN: &[u8] = b"interlock-redaction-v1\n";
/// 128 bits, as RFC 9901 section 9.3 asks.
const SALT_BYTES: usize = 16;

impl Salter {
    /// Of a place: an RFC 6901 pointer. Domain and id have fixed lengths, so no two inputs give the same bytes.
    pub fn salt(&self, pointer: &str) -> Arc<str> {
        let mut context = hmac::Context::with_key(&self.key);
        [DOMAIN, self.id.as_bytes(), pointer.as_bytes()].iter().for_each(|part| context.update(part));
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..SALT_BYTES]).into()
    }
}

impl fmt::Debug for Salter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salter").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    fn key(byte: u8) -> EpochKey {
        EpochKey::new(Zeroizing::new([byte; 32]))
    }

    fn id(byte: u8) -> ReceiptId {
        ReceiptId::new(WallTime::from_unix_ns(1_763_643_600_123_456_000), [byte; 10])
    }

    #[test]
    fn a_salt_depends_on_the_run_the_receipt_and_the_place_and_on_nothing_else() {
        let salt = key(1).salter(id(7)).salt("/request/digest");
        assert_eq!(key(1).salter(id(7)).salt("/request/digest"), salt);
        assert_ne!(key(2).salter(id(7)).salt("/request/digest"), salt);
        assert_ne!(key(1).salter(id(8)).salt("/request/digest"), salt);
        assert_ne!(key(1).salter(id(7)).salt("/request/digest/"), salt);
    }

    #[test]
    fn a_salt_is_what_the_document_says() {
        let receipt = id(7);
        let message = [b"interlock-redaction-v1\n", &receipt.as_bytes()[..], b"/request/body/pin"].concat();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[3; 32]), &message);
        let expected = URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16]);
        assert_eq!(*key(3).salter(receipt).salt("/request/body/pin"), *expected);
        assert_eq!(expected.len(), 22);
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", key(7)), "EpochKey(..)");
        assert!(!format!("{:?}", key(7).salter(id(1))).contains("key"));
    }
}
