//! The exact HTTP/1.1 message: head with the credential's placeholder, and body.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::CredentialSlot;
use crate::model::{Digest, Digester, SecretName};

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

impl Wire {
    /// `fields` are all but `host` and the credential's; their names are distinct lowercase tokens.
    pub(super) fn new(
        method: http::Method,
        target: Arc<str>,
        authority: Arc<str>,
        mut fields: Vec<(Arc<str>, Arc<str>)>,
        credential: Option<&CredentialSlot>,
        body: Bytes,
    ) -> Self {
        if let Some(slot) = credential {
            let value = format!("{}{{credential:{}}}", slot.prefix, slot.secret);
            fields.push((slot.header.clone(), value.into()));
        }
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let repeats = fields.windows(2).any(|pair| pair[0].0 == pair[1].0);
        assert!(!repeats && fields.iter().all(|(name, _)| &**name != "host"), "a header is written once");
        fields.insert(0, ("host".into(), authority));
        let (head, ends) = write_head(&method, &target, &fields);
        let slot = credential.map(|slot| {
            let at = fields.iter().position(|(name, _)| *name == slot.header);
            // The placeholder is the last thing on its line.
            let end = ends[at.expect("the slot's field was added above")];
            let length = "{credential:}".len() + slot.secret.as_str().len();
            Slot { secret: slot.secret.clone(), header: slot.header.clone(), range: end - length..end }
        });
        Self { method, target, fields, head, slot, body }
    }

    /// SHA-256 of head and body.
    pub(super) fn digest(&self) -> Digest {
        let mut digester = Digester::new();
        digester.update(&self.head);
        digester.update(&self.body);
        digester.finish()
    }
}

/// The head, and where in it the value of each field ends.
fn write_head(method: &http::Method, target: &str, fields: &[(Arc<str>, Arc<str>)]) -> (Bytes, Vec<usize>) {
    let line = |name: &str, value: &str| name.len() + value.len() + ": \r\n".len();
    let lines: usize = fields.iter().map(|(name, value)| line(name, value)).sum();
    let size = method.as_str().len() + target.len() + "  HTTP/1.1\r\n\r\n".len() + lines;
    let mut head = Vec::with_capacity(size);
    let mut ends = Vec::with_capacity(fields.len());
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in fields {
        // Values of the caller were checked where they were read; those of config must not break a line either.
        assert!(value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')), "a header value is printable ASCII");
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        ends.push(head.len());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    (head.into(), ends)
}

/// Without the body, which may hold what no log may.
impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("slot", &self.slot)
            .field("head_bytes", &self.head.len())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::WhenSent;

    fn wire(fields: &[(&str, &str)], prefix: &str) -> Wire {
        let slot = CredentialSlot {
            header: "authorization".into(),
            secret: "stripe-live".parse().expect("a name"),
            prefix: prefix.into(),
            when_sent: WhenSent::Refuse,
        };
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (authority, body) = ("api.example:8443".into(), Bytes::from_static(b"secret body"));
        Wire::new(http::Method::POST, "/a?b=c".into(), authority, fields, Some(&slot), body)
    }

    #[test]
    fn the_message_is_written_in_one_order_with_the_placeholder_in_its_slot() {
        let wire = wire(&[("x-b", "2"), ("content-length", "11"), ("accept", "*/*")], "Bearer ");
        let head = "POST /a?b=c HTTP/1.1\r\nhost: api.example:8443\r\naccept: */*\r\n\
                    authorization: Bearer {credential:stripe-live}\r\ncontent-length: 11\r\nx-b: 2\r\n\r\n";
        assert_eq!(std::str::from_utf8(&wire.head), Ok(head));
        let names: Vec<_> = wire.fields.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["host", "accept", "authorization", "content-length", "x-b"]);
        let slot = wire.slot.as_ref().expect("a slot");
        assert_eq!(&head[slot.range.clone()], "{credential:stripe-live}");
        assert_eq!((&*slot.header, slot.secret.as_str()), ("authorization", "stripe-live"));
        assert_eq!(wire.digest(), Digest::of(&[head.as_bytes(), b"secret body"].concat()));
    }

    #[test]
    fn debugging_a_message_never_prints_its_body_or_values() {
        let text = format!("{:?}", wire(&[("x-b", "hidden value")], ""));
        assert!(!text.contains("secret body") && !text.contains("hidden value"), "{text}");
        assert!(text.contains("/a?b=c") && text.contains("body_bytes: 11"), "{text}");
    }

    #[test]
    #[should_panic(expected = "a header value is printable ASCII")]
    fn a_line_break_from_config_never_reaches_the_wire() {
        wire(&[], "Bearer\r\nx-smuggled: ");
    }

    #[test]
    #[should_panic(expected = "a header is written once")]
    fn a_header_is_never_written_twice() {
        wire(&[("authorization", "x")], "");
    }

    #[test]
    #[should_panic(expected = "a header is written once")]
    fn the_host_is_never_written_twice() {
        wire(&[("host", "x")], "");
    }
}
