//! What a request to operate may not carry: the marks of a web page behind it, or the name of another machine.
//!
//! There are no cookies here and no pages, so no browser has a reason to come; one that was led here by a page of
//! somebody else's, or by a name that resolves to this machine (DNS rebinding), is refused before anything else is
//! looked at. Fetch Metadata (W3C), RFC 9110 section 7.2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;

use super::problem::Refusal;

/// Under which names the listener is asked for.
#[derive(Clone, Debug)]
pub struct Door {
    /// `None`: a Unix socket, which no name leads to.
    pub address: Option<SocketAddr>,
    /// A name from config, besides those of the loopback.
    pub host: Option<Arc<str>>,
}

impl Door {
    pub fn admits(&self, parts: &Parts) -> Result<(), Refusal> {
        // A browser sets these by itself, and a page cannot take them away.
        if parts.headers.contains_key(ORIGIN) {
            return Err(Refusal::CrossSite);
        }
        let sites = parts.headers.get_all("sec-fetch-site").iter();
        if sites.into_iter().any(|site| !matches!(site.as_bytes(), b"none" | b"same-origin")) {
            return Err(Refusal::CrossSite);
        }
        let Some(address) = self.address else { return Ok(()) };
        let mut named = parts.headers.get_all(HOST).iter();
        let host = match (named.next(), named.next()) {
            (Some(host), None) => host.to_str().ok(),
            (Some(_), Some(_)) | (None, _) => None,
        };
        let is_here = |host: &str| self.is_here(host, address);
        let target = parts.uri.authority().is_none_or(|authority| is_here(authority.as_str()));
        if host.is_some_and(is_here) && target { Ok(()) } else { Err(Refusal::HostNotHere) }
    }

    fn is_here(&self, host: &str, address: SocketAddr) -> bool {
        let name = match host.rsplit_once(':') {
            // Not the last group of an IPv6 address.
            Some((name, port)) if !port.ends_with(']') => {
                if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
                    return false;
                }
                name
            }
            Some(_) | None => host,
        };
        let ip = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
            Some(v6) => v6.parse().ok().map(IpAddr::V6),
            None => name.parse().ok().map(IpAddr::V4),
        };
        match ip {
            Some(ip) => ip.is_loopback() || ip == address.ip(),
            None => {
                name.eq_ignore_ascii_case("localhost")
                    || self.host.as_ref().is_some_and(|own| name.eq_ignore_ascii_case(own))
            }
        }
    }
}

/// JSON, and nothing that a form could send.
pub fn is_json(parts: &Parts) -> bool {
    let mut types = parts.headers.get_all(CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return false };
    let Ok(text) = one.to_str() else { return false };
    let mut pieces = text.split(';').map(str::trim);
    let media_type = pieces.next().unwrap_or_default();
    media_type.eq_ignore_ascii_case("application/json")
        && pieces.all(|parameter| parameter.eq_ignore_ascii_case("charset=utf-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/freeze");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn door() -> Door {
        Door { address: Some("192.0.2.7:9095".parse().expect("an address")), host: Some("ops.test".into()) }
    }

    #[test]
    fn only_names_of_this_listener_lead_in() {
        for host in ["localhost", "LOCALHOST:9095", "127.0.0.1:9095", "127.9.9.9", "[::1]", "[::1]:9095"] {
            assert!(door().admits(&parts(&[("host", host)])).is_ok(), "{host}");
        }
        for host in ["ops.test", "Ops.Test:443", "192.0.2.7:9095"] {
            assert!(door().admits(&parts(&[("host", host)])).is_ok(), "{host}");
        }
        for host in [
            "evil.test",
            "localhost.evil.test",
            "ops.test.evil",
            "192.0.2.8",
            "localhost:",
            "localhost:80x",
            "[::2]",
            "::1",
            "",
            "127.0.0.1.evil.test",
        ] {
            let refused = door().admits(&parts(&[("host", host)]));
            assert!(matches!(refused, Err(Refusal::HostNotHere)), "{host}");
        }
        assert!(matches!(door().admits(&parts(&[])), Err(Refusal::HostNotHere)));
        let twice = parts(&[("host", "localhost"), ("host", "localhost")]);
        assert!(matches!(door().admits(&twice), Err(Refusal::HostNotHere)));
        let unix = Door { address: None, host: None };
        assert!(unix.admits(&parts(&[("host", "anything")])).is_ok());
    }

    #[test]
    fn what_a_page_sent_is_refused() {
        let of = |name, value| door().admits(&parts(&[("host", "localhost"), (name, value)]));
        for (name, value) in [
            ("origin", "https://evil.test"),
            ("origin", "null"),
            ("origin", "http://localhost:9095"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", ""),
        ] {
            assert!(matches!(of(name, value), Err(Refusal::CrossSite)), "{name}: {value}");
        }
        for value in ["none", "same-origin"] {
            assert!(of("sec-fetch-site", value).is_ok());
        }
    }

    #[test]
    fn only_json_is_json() {
        for (media_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=utf-16", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("application/jsonp", false),
            ("text/plain; application/json", false),
        ] {
            assert_eq!(is_json(&parts(&[("content-type", media_type)])), expected, "{media_type}");
        }
        assert!(!is_json(&parts(&[])));
        assert!(!is_json(&parts(&[("content-type", "application/json"), ("content-type", "text/plain")])));
    }
}
