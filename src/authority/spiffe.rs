//! SPIFFE IDs, and which of them a surface takes.
//!
//! In: the text of a URI from a verified certificate. Out: an id in its only spelling. Nothing is normalized: a text
//! that would need it is no SPIFFE ID (SPIFFE-ID specification, section 2). So two different texts are two
//! different workloads, and an id can be compared byte by byte.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits;

/// The id of a workload: `spiffe://TRUST-DOMAIN/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins, with its `/`.
    path_at: usize,
}

/// Not a SPIFFE ID of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not `spiffe://`, a lowercase trust domain and a path of plain segments")]
pub struct InvalidSpiffeId;

const SCHEME: &str = "spiffe://";

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        if text.len() > limits::SPIFFE_ID_BYTES_MAX {
            return Err(InvalidSpiffeId);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidSpiffeId)?;
        // Without a path, it is the id of a trust domain: a signing certificate's, never a workload's.
        let (domain, path) = rest.split_once('/').ok_or(InvalidSpiffeId)?;
        if domain.parse::<TrustDomain>().is_err() || !path.split('/').all(is_segment) {
            return Err(InvalidSpiffeId);
        }
        Ok(Self { text: text.into(), path_at: SCHEME.len() + domain.len() })
    }
}

impl SpiffeId {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// With its leading `/`.
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }
}

/// Section 2.2: letters, digits, `.`, `-` and `_`; not empty, and not a step up or in place.
fn is_segment(segment: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain)
}

/// Section 2.1: lowercase letters, digits, `.`, `-` and `_`. No port, no user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// Not a trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trust domain has lowercase letters, digits, `.`, `-` and `_` only, such as `prod.example.org`")]
pub struct InvalidTrustDomain;

impl FromStr for TrustDomain {
    type Err = InvalidTrustDomain;

    fn from_str(text: &str) -> Result<Self, InvalidTrustDomain> {
        let is_plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        let valid = (1..=limits::TRUST_DOMAIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        if valid { Ok(Self(text.into())) } else { Err(InvalidTrustDomain) }
    }
}

impl TrustDomain {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which paths: segments as written, `*` for any one segment, and `**` at the end for one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Arc<str>,
    is_open: bool,
}

/// Not a pattern of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path pattern begins with `/` and has plain segments, `*` for any one segment, and `**` only at its end, such as `/agents/*` or `/ns/billing/**`"
)]
pub struct InvalidPathPattern;

impl FromStr for PathPattern {
    type Err = InvalidPathPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPathPattern> {
        let rest = text.strip_prefix('/').ok_or(InvalidPathPattern)?;
        let (closed, is_open) = match rest.strip_suffix("**") {
            Some("") => ("", true),
            Some(before) => (before.strip_suffix('/').ok_or(InvalidPathPattern)?, true),
            None => (rest, false),
        };
        let is_all = is_open && closed.is_empty();
        let valid = text.len() <= limits::SPIFFE_ID_BYTES_MAX
            && (is_all || closed.split('/').all(|s| s == "*" || is_segment(s)));
        if valid { Ok(Self { text: closed.into(), is_open }) } else { Err(InvalidPathPattern) }
    }
}

impl PathPattern {
    /// Every path.
    pub fn any() -> Self {
        Self { text: "".into(), is_open: true }
    }

    /// `path` with its leading `/`, as [`SpiffeId::path`] gives it. Segment by segment, case and all.
    pub fn fits(&self, path: &str) -> bool {
        let mut segments = path.trim_start_matches('/').split('/');
        if !self.text.is_empty() {
            for wanted in self.text.split('/') {
                match segments.next() {
                    Some(segment) if wanted == "*" || wanted == segment => {}
                    Some(_) | None => return false,
                }
            }
        }
        segments.next().is_some() == self.is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_trust_domain_and_a_path() {
        let id: SpiffeId = "spiffe://prod.example.org/ns/Billing/sa/agent-7".parse().expect("an id");
        assert_eq!(id.trust_domain(), "prod.example.org");
        assert_eq!(id.path(), "/ns/Billing/sa/agent-7");
        assert_eq!(id.as_str(), "spiffe://prod.example.org/ns/Billing/sa/agent-7");
    }

    #[test]
    fn whatever_would_need_to_be_normalized_is_no_id() {
        for bad in [
            "",
            "spiffe://",
            "spiffe:///agent",
            "spiffe://prod.example.org",
            "spiffe://prod.example.org/",
            "spiffe://prod.example.org/agent/",
            "spiffe://prod.example.org//agent",
            "spiffe://prod.example.org/./agent",
            "spiffe://prod.example.org/a/../agent",
            "spiffe://prod.example.org/%61gent",
            "spiffe://prod.example.org/a%2fb",
            "spiffe://prod.example.org/agent?x=1",
            "spiffe://prod.example.org/agent#x",
            "spiffe://prod.example.org:8443/agent",
            "spiffe://user@prod.example.org/agent",
            "spiffe://Prod.example.org/agent",
            "spiffe://pröd.example.org/agent",
            "spiffe://prod.example.org/agént",
            "spiffe://prod.example.org/a b",
            "spiffe://prod.example.org/a\\b",
            "spiffe://prod.example.org/a;p=1",
            "SPIFFE://prod.example.org/agent",
            "Spiffe://prod.example.org/agent",
            "https://prod.example.org/agent",
            " spiffe://prod.example.org/agent",
        ] {
            assert_eq!(bad.parse::<SpiffeId>(), Err(InvalidSpiffeId), "{bad}");
        }
    }

    #[test]
    fn an_id_and_its_trust_domain_have_their_lengths() {
        let of = |domain: usize, all: usize| {
            let start = format!("spiffe://{}/", "a".repeat(domain));
            let path = "p".repeat(all - start.len());
            format!("{start}{path}").parse::<SpiffeId>().is_ok()
        };
        assert!(of(255, 2_048));
        assert!(!of(256, 2_048));
        assert!(!of(255, 2_049));
    }

    #[test]
    fn a_pattern_fits_segment_by_segment() {
        for (pattern, path, fits) in [
            ("/**", "/a", true),
            ("/**", "/a/b/c", true),
            ("/agents/*", "/agents/7", true),
            ("/agents/*", "/agents", false),
            ("/agents/*", "/agents/7/8", false),
            ("/agents/*", "/agents-evil/7", false),
            ("/agents/*", "/Agents/7", false),
            ("/agents/**", "/agents/7/8", true),
            ("/agents/**", "/agents", false),
            ("/agents", "/agents", true),
            ("/agents", "/agentsx", false),
            ("/ns/*/sa/pay", "/ns/x/sa/pay", true),
            ("/ns/*/sa/pay", "/ns/x/sb/pay", false),
        ] {
            let pattern: PathPattern = pattern.parse().expect("a pattern");
            assert_eq!(pattern.fits(path), fits, "{pattern:?} {path}");
        }
    }

    #[test]
    fn a_pattern_is_plain() {
        for bad in ["", "agents", "/", "/agents/", "/**/a", "/a**", "/a*", "/../a", "/%61", "/a//b", "/**/**"]
        {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
    }
}
