//! The exact HTTP/1.1 message: head with the credential's placeholder, and body.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::SecretName;

/// Where the secret goes in the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub secret: SecretName,
    /// Lowercase name of the header that holds the slot.
    pub header: Arc<str>,
    /// Bytes of the head that `{credential:NAME}` occupies.
    pub range: Range<usize>,
}

/// What will be written: `METHOD SP target SP HTTP/1.1 CRLF`, `host`, the other headers sorted by name, an
/// empty line, the body. Only `upstream::permit` takes it apart.
#[derive(Debug)]
pub struct Wire {
    pub method: http::Method,
    pub target: Arc<str>,
    /// Header fields in the order written, values with the placeholder in the slot.
    pub fields: Vec<(Arc<str>, Arc<str>)>,
    /// The head as bytes, ending in the empty line.
    pub head: Bytes,
    pub slot: Option<Slot>,
    pub body: Bytes,
}
