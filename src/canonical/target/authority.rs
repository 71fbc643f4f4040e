//! Host and port (RFC 3986 section 3.2.2), and the one host of a head.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::canonical::{Malformed, ReceivedHead, Version};
use crate::model::{Place, ReasonCode};

const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// A host in lowercase, and the port as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// `Err` is the rule that is broken.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('@') {
            return Err("User information is refused.");
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                let address: Ipv6Addr = address.parse().map_err(|_| "The IPv6 address is not valid.")?;
                let port = match rest.strip_prefix(':') {
                    None if !rest.is_empty() => return Err("Only a port may follow an IPv6 address."),
                    port => port,
                };
                (format!("[{address}]"), port)
            }
            None => {
                let (name, port) = match text.split_once(':') {
                    Some((name, port)) => (name, Some(port)),
                    None => (text, None),
                };
                check_name(name)?;
                (name.to_ascii_lowercase(), port)
            }
        };
        Ok(Self { host, port: port.map(parse_port).transpose()? })
    }

    pub(super) fn agrees_with(&self, other: &Self, default_port: u16) -> bool {
        let port = |authority: &Self| authority.port.unwrap_or(default_port);
        self.host == other.host && port(self) == port(other)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The one host that `:authority` and Host name together.
pub(super) fn of_head(head: &ReceivedHead) -> Result<Authority, Malformed> {
    let refuse = |code, name: &str| Malformed::new(code, Place::Header(name.into()));
    let mut hosts = head.headers.get_all(http::header::HOST).iter();
    let host = match hosts.next() {
        None => None,
        Some(value) => {
            let parsed = value.to_str().map_err(|_| "A host is ASCII.").and_then(Authority::parse);
            Some(parsed.map_err(|rule| refuse(ReasonCode::HostInvalid, "host").because(rule))?)
        }
    };
    if hosts.next().is_some() {
        return Err(refuse(ReasonCode::HostDuplicate, "host"));
    }
    let authority = match head.authority.as_deref() {
        None => None,
        Some(text) => Some(
            Authority::parse(text)
                .map_err(|rule| refuse(ReasonCode::HostInvalid, ":authority").because(rule))?,
        ),
    };
    match (authority, host) {
        (Some(authority), Some(host)) if authority != host => Err(refuse(ReasonCode::HostMismatch, "host")),
        (Some(one), _) | (None, Some(one)) => Ok(one),
        (None, None) => Err(refuse(
            ReasonCode::HostMissing,
            match head.version {
                Version::Http11 => "host",
                Version::Http2 => ":authority",
            },
        )),
    }
}

/// A dotted-quad IPv4 address, or a name of letters, digits, `-` and `_`.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err("A host has 1 to 253 characters.");
    }
    for label in name.split('.') {
        let is_plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let has_ends = !label.starts_with('-') && !label.ends_with('-');
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !is_plain || !has_ends {
            return Err("A host is labels of 1 to 63 letters, digits, `-` or `_`, joined by single dots.");
        }
    }
    // The URL Standard reads a host whose last label is a number as an IPv4 address, in many spellings.
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    if is_number && name.parse::<Ipv4Addr>().is_err() {
        return Err("A host that ends in a number is a dotted-quad IPv4 address.");
    }
    Ok(())
}

/// 1 to 65535, in its shortest spelling.
fn parse_port(text: &str) -> Result<u16, &'static str> {
    const RULE: &str = "A port is a number from 1 to 65535, without leading zeros.";
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.starts_with('0') {
        return Err(RULE);
    }
    text.parse().map_err(|_| RULE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_have_one_form() {
        for (text, canonical) in [
            ("API.Example", "api.example"),
            ("api_1.my-host:1", "api_1.my-host:1"),
            ("localhost:65535", "localhost:65535"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443"),
            ("0x.example", "0x.example"),
            ("a1.b2", "a1.b2"),
        ] {
            assert_eq!(Authority::parse(text).expect(text).to_string(), canonical);
        }
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(Authority::parse(&longest).is_ok());
        assert!(Authority::parse(&format!("{longest}a")).is_err());
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+80",
            "a:8a",
            "a:80:80",
            "a@b",
            "a.",
            ".a",
            "a..b",
            "-a.b",
            "a-.b",
            "a b",
            "a/b",
            "é.example",
            "a%41",
            "1.2.3",
            "1.2.3.256",
            "01.2.3.4",
            "127.1",
            "2130706433",
            "0x7f.0x1",
            "a.0X1",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[::g]",
            "[fe80::1%25eth0]",
            "::1",
            "[127.0.0.1]",
            "[]",
            "a]",
            "*",
        ] {
            assert!(Authority::parse(text).is_err(), "{text}");
        }
        assert!(Authority::parse(&"a".repeat(63)).is_ok());
        assert!(Authority::parse(&"a".repeat(64)).is_err());
    }
}
