//! SHA-256 digests (FIPS 180-4) and their one text form, `sha-256:` and 64 lowercase hex digits.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PREFIX: &str = "sha-256:";

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of one byte string.
    pub fn of(bytes: &[u8]) -> Self {
        let mut d = Digester::new();
        d.update(bytes);
        d.finish()
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As the `interlock-receipt` header and a tlog-proof have it, where colons may stand around it (RFC 9651).
    pub fn from_base64(text: &str) -> Result<Self, InvalidDigest> {
        let bare = text.strip_prefix(':').and_then(|text| text.strip_suffix(':')).unwrap_or(text);
        let bytes = STANDARD.decode(bare).map_err(|_| InvalidDigest)?;
        bytes.try_into().map(Self).map_err(|_| InvalidDigest)
    }
}

/// A digest in the making, for messages that pass by in pieces.
#[derive(Clone)]
pub struct Digester(Context);

impl Digester {
    #[expect(clippy::new_without_default, reason = "a digest of nothing is never a default")]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Digest(out)
    }
}

/// The value of each hex digit that is accepted; all others are 255.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [255; 256];
    let mut n = 0;
    while n < 16 {
        nibbles[HEX[n] as usize] = n as u8;
        n += 1;
    }
    nibbles
};
const HEX: &[u8; 16] = b"0123456789abcdef";

impl Digest {
    /// The text form, given to `f` without an allocation.
    fn with_text<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        let mut text = [0; PREFIX.len() + 64];
        text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        for (pair, byte) in text[PREFIX.len()..].chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        f(std::str::from_utf8(&text).expect("a prefix and hex digits are ASCII"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `sha-256:` followed by 64 lowercase hex digits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `sha-256:` followed by 64 lowercase hex digits")]
pub struct InvalidDigest;

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix(PREFIX).ok_or(InvalidDigest)?.as_bytes();
        if hex.len() != 64 {
            return Err(InvalidDigest);
        }
        let mut out = [0; 32];
        let mut seen = 0;
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
            seen |= high | low;
            *byte = high << 4 | low & 15;
        }
        if seen > 15 {
            return Err(InvalidDigest);
        }
        Ok(Self(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| s.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::text::parse(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_and_refuses_other_spellings() {
        let d = Digest::of(b"abc");
        // FIPS 180-4 example B.1.
        assert_eq!(d.to_string(), "sha-256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(d.to_string().parse(), Ok(d));
        assert_eq!(d.to_string().to_uppercase().parse::<Digest>(), Err(InvalidDigest));
        assert_eq!(d.to_string()[..70].parse::<Digest>(), Err(InvalidDigest));
        let base64 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        assert_eq!(Digest::from_base64(base64), Ok(d));
        assert_eq!(Digest::from_base64(&format!(":{base64}:")), Ok(d));
        for other in [&base64[1..], &format!(":{base64}"), "", "::"] {
            assert_eq!(Digest::from_base64(other), Err(InvalidDigest), "{other}");
        }
    }
}
