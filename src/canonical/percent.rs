//! Percent-encoding (RFC 3986 section 2.1), shared by paths, queries and forms.

/// What `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// Itself: in paths.
    Plus,
    /// A space: in queries and forms.
    Space,
}

/// Why a text cannot be decoded, and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// `%` without two hex digits.
    Triplet(usize),
    /// The decoded bytes are not UTF-8.
    NotUtf8(usize),
}

/// RFC 3986 section 2.3.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Every triplet decoded once.
pub(super) fn decode(raw: &str, plus: Plus) -> Result<String, Undecodable> {
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let pair = (hex(bytes.get(at + 1)), hex(bytes.get(at + 2)));
                let (Some(high), Some(low)) = pair else { return Err(Undecodable::Triplet(at)) };
                out.push(high << 4 | low);
                at += 3;
                continue;
            }
            b'+' if plus == Plus::Space => out.push(b' '),
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8(out).map_err(|e| Undecodable::NotUtf8(raw_offset(raw, e.utf8_error().valid_up_to())))
}

/// Where in the raw text the decoded byte at `decoded` comes from. The raw text must decode.
pub(super) fn raw_offset(raw: &str, decoded: usize) -> usize {
    let bytes = raw.as_bytes();
    (0..decoded).fold(0, |at, _| at + if bytes.get(at) == Some(&b'%') { 3 } else { 1 })
}

/// Bytes for which `stays` holds as they are, every other one as `%XX` in uppercase.
pub(super) fn encode(text: &str, stays: impl Fn(u8) -> bool, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// Unreserved bytes as they are, every other one as a triplet: a text that can stand anywhere in a path or query and mean
/// nothing but itself.
pub fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(text, is_unreserved, &mut out);
    out
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    match *digit? {
        d @ b'0'..=b'9' => Some(d - b'0'),
        d @ b'a'..=b'f' => Some(d - b'a' + 10),
        d @ b'A'..=b'F' => Some(d - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triplets_decode_once_in_either_case() {
        assert_eq!(decode("%41%5a%5A%2f%252e", Plus::Plus).as_deref(), Ok("AZZ/%2e"));
        assert_eq!(decode("%c3%A9~", Plus::Plus).as_deref(), Ok("é~"));
        assert_eq!(decode("a+b", Plus::Plus).as_deref(), Ok("a+b"));
        assert_eq!(decode("a+b%2B", Plus::Space).as_deref(), Ok("a b+"));
    }

    #[test]
    fn what_cannot_be_decoded_is_named_by_its_place() {
        for (raw, at) in [("a%", 1), ("ab%4", 2), ("%4g", 0), ("%g4", 0), ("%41%%41", 3), ("% 4", 0)] {
            assert_eq!(decode(raw, Plus::Plus), Err(Undecodable::Triplet(at)), "{raw}");
        }
        for (raw, at) in [("%ff", 0), ("a%41%c3", 4), ("%C0%AF", 0), ("%ED%A0%80", 0), ("é%c3b", 2)] {
            assert_eq!(decode(raw, Plus::Plus), Err(Undecodable::NotUtf8(at)), "{raw}");
        }
    }

    #[test]
    fn encoding_is_uppercase_and_reads_back() {
        let mut out = String::new();
        encode("aZ0-._~ é/%\u{0}", is_unreserved, &mut out);
        assert_eq!(out, "aZ0-._~%20%C3%A9%2F%25%00");
        assert_eq!(decode(&out, Plus::Space).as_deref(), Ok("aZ0-._~ é/%\u{0}"));
    }
}
