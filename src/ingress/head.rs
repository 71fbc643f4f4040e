//! The strict reading of an HTTP/1.1 message head (RFC 9112), done before hyper sees a byte.
//!
//! hyper accepts more than one spelling of the same message, and drops part of what it reads (a fragment, a repeated
//! Content-Length). Here every line ends in CRLF, every field is `name: value`, the framing is one of three, and
//! the target is kept exactly as it came. What passes has one reading for hyper, for us and for the upstream.

use crate::canonical::Malformed;
use crate::limits;
use crate::model::{Place, ReasonCode};

/// How the body that follows is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// What is known of a head that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawHead {
    /// The request target, byte for byte.
    pub(super) target: String,
    pub(super) framing: Framing,
}

/// Where the head ends in `bytes`: the offset after its empty line. `Ok(None)`: not all there yet.
///
/// A line end that is not CRLF is refused as soon as it is seen, and so is a head that is over its bound.
/// `scanned` is how much of `bytes` an earlier call has looked at.
pub(super) fn end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Malformed> {
    // One byte back: a CR may have been the last byte then.
    let from = scanned.saturating_sub(1);
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => return Err(head_byte(ReasonCode::HeadBareLf, at)),
            b'\n' if bytes[..at + 1].ends_with(b"\r\n\r\n") => {
                return within_bound(at + 1).map(Some);
            }
            _ if at > 0 && bytes[at - 1] == b'\r' && byte != b'\n' => {
                return Err(head_byte(ReasonCode::HeadBareLf, at - 1));
            }
            0 => return Err(head_byte(ReasonCode::HeadMalformed, at)),
            _ => {}
        }
    }
    within_bound(bytes.len()).map(|_| None)
}

fn within_bound(len: usize) -> Result<usize, Malformed> {
    if len <= limits::HEAD_BYTES_MAX {
        Ok(len)
    } else {
        Err(Malformed {
            code: ReasonCode::HeadTooLarge,
            place: Some(Place::HeadByte(limits::HEAD_BYTES_MAX as u64)),
            detail: Some(format!("at most {} bytes", limits::HEAD_BYTES_MAX)),
        })
    }
}

/// Reads one whole head, its empty line included.
pub(super) fn read(bytes: &[u8]) -> Result<RawHead, Malformed> {
    let mut lines = Lines { bytes, at: 0 };
    let (at, request_line) = lines.next().unwrap_or_default();
    let target = request_line_target(at, request_line)?;
    let mut fields = Fields::default();
    for (at, line) in lines.take_while(|(_, line)| !line.is_empty()) {
        fields.read(at, line)?;
    }
    if fields.hosts == 0 {
        return Err(Malformed { code: ReasonCode::HostMissing, place: None, detail: None });
    }
    let framing = match (fields.is_chunked, fields.length) {
        (true, Some(_)) => return Err(header(ReasonCode::FramingConflict, "content-length")),
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::None,
    };
    Ok(RawHead { target, framing })
}

/// `METHOD SP target SP HTTP/1.1`, single spaces (RFC 9112 section 3).
fn request_line_target(at: usize, line: &[u8]) -> Result<String, Malformed> {
    let mut parts = line.split(|&b| b == b' ');
    let (method, target, version, more) = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, more) else {
        return Err(head_byte(ReasonCode::HeadMalformed, at));
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(head_byte(ReasonCode::MethodInvalid, at));
    }
    if version != b"HTTP/1.1" {
        let is_http = version.starts_with(b"HTTP/");
        let code = if is_http { ReasonCode::VersionUnsupported } else { ReasonCode::HeadMalformed };
        return Err(head_byte(code, at + line.len() - version.len()));
    }
    if method == b"CONNECT" {
        return Err(head_byte(ReasonCode::UpgradeRefused, at));
    }
    let target_byte = |at: usize| Some(Place::TargetByte(at as u64));
    if target.is_empty() || target.len() > limits::TARGET_BYTES_MAX {
        let code = if target.is_empty() { ReasonCode::HeadMalformed } else { ReasonCode::TargetTooLong };
        return Err(Malformed { code, place: target_byte(target.len()), detail: None });
    }
    // Refused here too because hyper would not show it: it cuts the fragment off.
    if let Some(at) = target.iter().position(|&b| b == b'#') {
        return Err(Malformed { code: ReasonCode::TargetFragment, place: target_byte(at), detail: None });
    }
    match target.iter().position(|b| !b.is_ascii_graphic()) {
        Some(at) => {
            Err(Malformed { code: ReasonCode::TargetCharacterInvalid, place: target_byte(at), detail: None })
        }
        None => Ok(target.iter().map(|&b| char::from(b)).collect()),
    }
}

#[derive(Default)]
struct Fields {
    count: usize,
    hosts: usize,
    length: Option<u64>,
    is_chunked: bool,
}

impl Fields {
    /// `name: value` (RFC 9112 section 5): no space before the colon, no continuation line.
    fn read(&mut self, at: usize, line: &[u8]) -> Result<(), Malformed> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(head_byte(ReasonCode::HeadObsoleteFold, at));
        }
        self.count += 1;
        if self.count > limits::HEADERS_MAX {
            return Err(head_byte(ReasonCode::HeaderCountOver, at));
        }
        let colon = line.iter().position(|&b| b == b':').unwrap_or(line.len());
        let (name, rest) = line.split_at(colon);
        let value = rest.get(1..).ok_or_else(|| head_byte(ReasonCode::HeadMalformed, at))?;
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(head_byte(ReasonCode::HeaderNameInvalid, at));
        }
        let name: String = name.iter().map(|b| char::from(b.to_ascii_lowercase())).collect();
        if !value.iter().all(|&b| b.is_ascii_graphic() || b == b' ' || b == b'\t') {
            return Err(header(ReasonCode::HeaderValueInvalid, &name));
        }
        self.note(&name, value.trim_ascii())
    }

    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), Malformed> {
        match name {
            "host" => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(header(ReasonCode::HostDuplicate, name));
                }
            }
            "content-length" => {
                let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
                // Nineteen digits fit a u64. A list, a sign, a second field: all one refusal.
                let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
                if self.length.is_some() || length.is_none() {
                    return Err(header(ReasonCode::ContentLengthInvalid, name));
                }
                self.length = length;
            }
            "transfer-encoding" => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(header(ReasonCode::TransferEncodingUnsupported, name));
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    /// The next line without its CRLF, and where it begins.
    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        let len = rest.windows(2).position(|w| w == b"\r\n")?;
        let line = (self.at, &rest[..len]);
        self.at += len + 2;
        Some(line)
    }
}

fn head_byte(code: ReasonCode, at: usize) -> Malformed {
    Malformed { code, place: Some(Place::HeadByte(at as u64)), detail: None }
}

fn header(code: ReasonCode, name: &str) -> Malformed {
    Malformed { code, place: Some(Place::Header(name.to_owned())), detail: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(head: &str) -> Result<RawHead, ReasonCode> {
        let bytes = head.as_bytes();
        match end(bytes, 0) {
            Err(m) => Err(m.code),
            Ok(None) => panic!("not a whole head: {head:?}"),
            Ok(Some(n)) => read(&bytes[..n]).map_err(|m| m.code),
        }
    }

    fn with(line: &str) -> Result<RawHead, ReasonCode> {
        code(&format!("POST /a HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n"))
    }

    #[test]
    fn a_plain_head_keeps_its_target_and_framing() {
        let head = code("GET /a%2e?q=1 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n").expect("plain");
        assert_eq!(head, RawHead { target: "/a%2e?q=1".into(), framing: Framing::None });
        assert_eq!(with("Content-Length: 12").expect("length").framing, Framing::Length(12));
        assert_eq!(with("Transfer-Encoding:  Chunked ").expect("chunked").framing, Framing::Chunked);
        assert_eq!(with("Content-Length: 0").expect("zero").framing, Framing::Length(0));
        assert_eq!(with("X-Empty:").expect("empty value").framing, Framing::None);
    }

    #[test]
    fn every_line_ends_in_crlf() {
        for head in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
        ] {
            assert_eq!(code(head), Err(ReasonCode::HeadBareLf), "{head:?}");
        }
    }

    #[test]
    fn a_head_is_refused_by_its_own_rule() {
        use ReasonCode as R;
        let whole = |line: &str| code(&format!("{line}\r\nHost: x\r\n\r\n"));
        assert_eq!(whole("GET /"), Err(R::HeadMalformed));
        assert_eq!(whole("GET  / HTTP/1.1"), Err(R::HeadMalformed));
        assert_eq!(whole(" GET / HTTP/1.1"), Err(R::HeadMalformed));
        assert_eq!(whole("GET / HTTP/1.1 "), Err(R::HeadMalformed));
        assert_eq!(whole("GET / HTTX/1.1"), Err(R::HeadMalformed));
        assert_eq!(whole("G{T / HTTP/1.1"), Err(R::MethodInvalid));
        assert_eq!(whole("GET / HTTP/1.0"), Err(R::VersionUnsupported));
        assert_eq!(whole("GET / HTTP/2.0"), Err(R::VersionUnsupported));
        assert_eq!(whole("CONNECT x:1 HTTP/1.1"), Err(R::UpgradeRefused));
        assert_eq!(whole("GET /a#b HTTP/1.1"), Err(R::TargetFragment));
        assert_eq!(whole("GET /\u{e9} HTTP/1.1"), Err(R::TargetCharacterInvalid));
        assert_eq!(whole("GET /a\tb HTTP/1.1"), Err(R::TargetCharacterInvalid));
        assert_eq!(code("GET / HTTP/1.1\r\n\r\n"), Err(R::HostMissing));
        assert_eq!(with("Host: x"), Err(R::HostDuplicate));
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 1"), Err(R::ContentLengthInvalid));
        assert_eq!(with("Content-Length: 1, 1"), Err(R::ContentLengthInvalid));
        assert_eq!(with("Content-Length: +1"), Err(R::ContentLengthInvalid));
        assert_eq!(with("Content-Length:"), Err(R::ContentLengthInvalid));
        assert_eq!(with("Content-Length: 12345678901234567890"), Err(R::ContentLengthInvalid));
        assert_eq!(with("Transfer-Encoding: gzip, chunked"), Err(R::TransferEncodingUnsupported));
        assert_eq!(with("Transfer-Encoding: identity"), Err(R::TransferEncodingUnsupported));
        assert_eq!(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            Err(R::TransferEncodingUnsupported)
        );
        assert_eq!(with("Content-Length: 1\r\nTransfer-Encoding: chunked"), Err(R::FramingConflict));
        assert_eq!(with("Transfer-Encoding: chunked\r\nContent-Length: 1"), Err(R::FramingConflict));
        assert_eq!(with("X: a\r\n folded"), Err(R::HeadObsoleteFold));
        assert_eq!(with("X : a"), Err(R::HeaderNameInvalid));
        assert_eq!(with(": a"), Err(R::HeaderNameInvalid));
        assert_eq!(with("no colon"), Err(R::HeadMalformed));
        assert_eq!(with("X: \u{e9}"), Err(R::HeaderValueInvalid));
        assert_eq!(with("X: a\u{1}b"), Err(R::HeaderValueInvalid));
        assert_eq!(with("X: a\0b"), Err(R::HeadMalformed));
        let long = format!("GET /{} HTTP/1.1", "a".repeat(limits::TARGET_BYTES_MAX));
        assert_eq!(whole(&long), Err(R::TargetTooLong));
        let many: Vec<_> = (0..limits::HEADERS_MAX).map(|n| format!("x{n}: y")).collect();
        assert_eq!(with(&many.join("\r\n")), Err(R::HeaderCountOver));
        assert!(with(&many[1..].join("\r\n")).is_ok());
        let big = format!("X: {}", "a".repeat(limits::HEAD_BYTES_MAX));
        assert_eq!(with(&big), Err(R::HeadTooLarge));
    }

    #[test]
    fn a_head_is_found_whole_however_it_arrives() {
        let bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody";
        let whole = bytes.len() - 4;
        for cut in 0..bytes.len() {
            let first = end(&bytes[..cut], 0).expect("well-formed so far");
            assert_eq!(first.is_some(), cut >= whole, "{cut}");
            if first.is_none() {
                assert_eq!(end(bytes, cut).expect("well-formed"), Some(whole), "{cut}");
            }
        }
    }
}
