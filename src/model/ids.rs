//! Identifiers. Each is checked once, when it is made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::WallTime;
use crate::limits;

/// Why a text is not a name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be {rule}")]
pub struct InvalidName {
    pub kind: &'static str,
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { kind: $kind, rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                super::text::parse(d)
            }
        }
    };
}

/// Lowercase words: letters, digits and single separators, starting with a letter.
fn is_word_path(text: &str, separators: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= limits::NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || separators.contains(b))
        && !bytes.windows(2).any(|w| separators.contains(&w[0]) && separators.contains(&w[1]))
}

fn is_visible_ascii(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

name!(
    /// An exposed interface under control, such as `payments`.
    SurfaceName,
    "a surface name",
    "lowercase letters, digits and single `-` or `_`, starting with a letter, at most 64 bytes",
    |t| is_word_path(t, b"-_")
);
name!(
    /// What a route does, such as `charge.create`; declared, never guessed.
    ActionName,
    "an action name",
    "lowercase letters, digits and single `.`, `-` or `_`, starting with a letter, at most 64 bytes",
    |t| is_word_path(t, b".-_")
);
name!(
    /// The name under which a gateway-held secret is declared; it appears in digested bytes as `{credential:NAME}`.
    SecretName,
    "a credential name",
    "lowercase letters, digits and single `-` or `_`, starting with a letter, at most 64 bytes",
    |t| is_word_path(t, b"-_")
);
name!(
    /// A place that receipts are streamed to, such as `siem`.
    SinkName,
    "a sink name",
    "lowercase letters, digits and single `-` or `_`, starting with a letter, at most 64 bytes",
    |t| is_word_path(t, b"-_")
);
name!(
    /// A counter that a surface declares, such as `daily-spend`.
    BudgetName,
    "a budget name",
    "lowercase letters, digits and single `-` or `_`, starting with a letter, at most 64 bytes",
    |t| is_word_path(t, b"-_")
);
name!(
    /// A named source of data that a surface's policy reads, such as `exchange-rates`.
    FactName,
    "a fact name",
    "lowercase letters, digits and single `-` or `_`, starting with a letter, at most 64 bytes",
    |t| is_word_path(t, b"-_")
);
name!(
    /// A Rego package without the leading `data.`, such as `gateway.payments`.
    PackageName,
    "a policy package",
    "identifiers joined by `.`, each a letter or `_` followed by letters, digits or `_`, at most 128 bytes",
    |t| t.len() <= 128
        && t.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
);
name!(
    /// A proved identity: an API key's id, a SPIFFE ID, an issuer and subject.
    ActorId,
    "an actor id",
    "1 to 256 visible ASCII characters",
    |t| is_visible_ascii(t, 256)
);
name!(
    /// The value of `Idempotency-Key` as the caller sent it.
    IdempotencyKey,
    "an idempotency key",
    "1 to 255 visible ASCII characters",
    |t| is_visible_ascii(t, 255)
);
name!(
    /// The log's name: first line of every checkpoint and key name of its signature (C2SP tlog-checkpoint).
    LogOrigin,
    "a log origin",
    "1 to 128 visible ASCII characters without `+`",
    // C2SP signed-note: a key name has no spaces and no plus sign.
    |t| is_visible_ascii(t, 128) && !t.contains('+')
);

/// A UUIDv7 (RFC 9562 section 5.7) naming one decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId(uuid::Uuid);

impl ReceiptId {
    /// Built from a time and ten random bytes, both handed in by the caller.
    pub fn new(time: WallTime, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(time.unix_ms(), &random).into_uuid())
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// `None` if these are not the bytes of a version 7 UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        Some(uuid::Uuid::from_bytes(bytes)).filter(|uuid| uuid.get_version_num() == 7).map(Self)
    }
}

impl FromStr for ReceiptId {
    type Err = InvalidName;

    /// Only the hyphenated lowercase form of a version 7 UUID.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        uuid::Uuid::try_parse(text)
            .ok()
            .filter(|u| {
                u.get_version_num() == 7
                    && u.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()) == text
            })
            .map(Self)
            .ok_or(InvalidName { kind: "a receipt id", rule: "a lowercase hyphenated UUIDv7" })
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ReceiptId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
    }
}

impl<'de> Deserialize<'de> for ReceiptId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::text::parse(d)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter!(
    /// Position of a leaf in the log, from 0.
    LeafIndex
);
counter!(
    /// Number of leaves in a tree.
    TreeSize
);
counter!(
    /// Number of the gateway's run over one log, from 1; every start adds one.
    Epoch
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_is_not_a_name() {
        for good in ["payments", "data-export", "a1"] {
            assert!(good.parse::<SurfaceName>().is_ok(), "{good}");
        }
        for bad in ["", "Payments", "1a", "a--b", "a-", "a b", "a/b", &"a".repeat(65)] {
            assert!(bad.parse::<SurfaceName>().is_err(), "{bad}");
        }
        assert!("charge.create".parse::<ActionName>().is_ok());
        assert!("charge..create".parse::<ActionName>().is_err());
        assert!("gateway.payments".parse::<PackageName>().is_ok());
        assert!("gateway.".parse::<PackageName>().is_err());
        assert!("gateway.pay-ments".parse::<PackageName>().is_err());
        assert!("a key".parse::<IdempotencyKey>().is_err());
        assert!("log+1".parse::<LogOrigin>().is_err());
    }

    #[test]
    fn receipt_ids_sort_by_time_and_read_back() {
        let a = ReceiptId::new(WallTime::from_unix_ns(1_000_000_000), [9; 10]);
        let b = ReceiptId::new(WallTime::from_unix_ns(1_001_000_000), [1; 10]);
        assert!(a < b && a.to_string() < b.to_string());
        assert_eq!(a.to_string().parse(), Ok(a));
        assert!(a.to_string().to_uppercase().parse::<ReceiptId>().is_err());
        assert!("9f1b9f8e-6b0e-4b5c-9d59-000000000000".parse::<ReceiptId>().is_err());
    }
}
