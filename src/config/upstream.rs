//! `upstream`: whom a surface's requests go to.

use std::net::IpAddr;
use std::sync::Arc;

use super::fields::{self, Section};
use super::reader::Reader;
use super::tls;
use super::yaml::{Node, Value};
use crate::upstream::{Roots, Scheme, Settings};

pub fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Settings> {
    let fields = reader.fields(node, &fields::UPSTREAM)?;
    let url = fields.optional("url").and_then(|n| {
        let text = reader.text(n, "an http or https URL")?;
        parse_url(text).map_err(|why| reader.error(n.at, format!("`url` {why}"))).ok().map(|url| (n.at, url))
    });
    let roots = match fields.optional("roots") {
        Some(node) => read_roots(reader, node, &fields::ROOTS),
        None => Some(Roots::WebPki),
    };
    let leases_max = reader.number(&fields, "leases_max");
    let idle_max = reader.milliseconds(&fields, "idle_ms_max");
    let connect_max = reader.milliseconds(&fields, "connect_ms_max");
    let lease_wait_max = reader.milliseconds(&fields, "lease_wait_ms_max");
    let response_head_max = reader.milliseconds(&fields, "response_head_ms_max");
    let response_idle_max = reader.milliseconds(&fields, "response_idle_ms_max");
    let (at, url) = url?;
    let scheme = if url.tls {
        Scheme::Tls(roots?)
    } else {
        if fields.optional("roots").is_some() {
            reader.error(fields.place("roots"), "`roots` is of no use with an http URL");
        }
        if !is_loopback(&url.host) {
            reader.warn(at, "requests and the credential go to this upstream without encryption");
        }
        Scheme::Plain
    };
    Some(Settings {
        scheme,
        host: url.host,
        port: url.port,
        authority: url.authority,
        leases_max: usize::try_from(leases_max?).ok()?,
        idle_max: idle_max?,
        connect_max: connect_max?,
        lease_wait_max: lease_wait_max?,
        response_head_max: response_head_max?,
        response_idle_max: response_idle_max?,
    })
}

/// `webpki`, `native`, or `{file: PATH}`.
pub fn read_roots(reader: &mut Reader<'_>, node: &Node, section: &'static Section) -> Option<Roots> {
    if let Value::Scalar { .. } = &node.value {
        // Roots is not Copy: chosen by name, then made.
        let native = reader.one_of(node, &[("webpki", false), ("native", true)])?;
        return Some(if native { Roots::Native } else { Roots::WebPki });
    }
    let fields = reader.fields(node, section)?;
    let file = fields.optional("file")?;
    let (path, pem) = reader.file(file)?;
    match tls::roots(&pem) {
        Ok(_) => Some(Roots::File(path)),
        Err(why) => {
            reader.error(file.at, format!("{} {why}", path.display()));
            None
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: Arc<str>,
    pub port: u16,
    /// As written in `host`.
    pub authority: Arc<str>,
}

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`, at most with a final `/` (RFC 3986).
pub fn parse_url(text: &str) -> Result<Url, String> {
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("must begin with `https://` or `http://`".to_owned()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(bad) = authority.chars().find(|c| matches!(c, '/' | '?' | '#' | '@' | '\\')) {
        return Err(format!("must end after host and port: no user, path, query or fragment (`{bad}`)"));
    }
    let (host, port) = parse_authority(authority)?;
    let default = if tls { 443 } else { 80 };
    let port = port.unwrap_or(default);
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = if port == default { bracketed } else { format!("{bracketed}:{port}") };
    Ok(Url { tls, host: host.into(), port, authority: authority.into() })
}

/// A lowercase DNS name or an IP address (IPv6 in brackets, given back without them), and the port if any.
pub fn parse_authority(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("has a `[` without `]`")?;
            let address: std::net::Ipv6Addr =
                address.parse().map_err(|_| format!("`{address}` is not an IPv6 address"))?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or("has something other than a port after `]`")?),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
            let all_numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if all_numeric && host.parse::<std::net::Ipv4Addr>().is_err() || !is_dns_name(host) {
                return Err(format!("`{host}` is not a lowercase host name or an IP address"));
            }
            (host.to_owned(), port)
        }
    };
    let port = port
        .map(|p| p.parse::<u16>().ok().filter(|n| *n > 0 && *p == n.to_string()).ok_or(p))
        .transpose()
        .map_err(|p| format!("`{p}` is not a port"))?;
    Ok((host, port))
}

/// RFC 1123 section 2.1, lowercase; underscores too, which internal names have.
fn is_dns_name(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label)
}

pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_host_and_port_and_no_more() {
        let url = |tls, host: &str, port, authority: &str| {
            Ok(Url { tls, host: host.into(), port, authority: authority.into() })
        };
        for (text, expected) in [
            ("https://api.example.com", url(true, "api.example.com", 443, "api.example.com")),
            ("https://api.example.com:443/", url(true, "api.example.com", 443, "api.example.com")),
            ("http://127.0.0.1:9000", url(false, "127.0.0.1", 9000, "127.0.0.1:9000")),
            ("http://[::1]:80", url(false, "::1", 80, "[::1]")),
            ("https://[2001:DB8::1]:8443", url(true, "2001:db8::1", 8443, "[2001:db8::1]:8443")),
        ] {
            assert_eq!(parse_url(text), expected, "{text}");
        }
        for bad in [
            "api.example.com",
            "ftp://a",
            "https://",
            "https://user@a",
            "https://a/v1",
            "https://a?x",
            "https://a#x",
            "https://a:",
            "https://a:0",
            "https://a:+80",
            "https://a:65536",
            "https://A.example",
            "https://1.2.3",
            "https://1.2.3.400",
            "https://-a",
            "https://a..b",
            "https://[::1",
            "https://[::1]x",
            "https://a\\b",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "::1"].iter().all(|h| is_loopback(h)));
        assert!(!["sample-api", "10.0.0.1", "localhost.example"].iter().any(|h| is_loopback(h)));
    }
}
