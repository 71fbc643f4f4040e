//! The request target: authority, path, query (RFC 3986, RFC 9112 section 3.2, RFC 9113 section 8.3.1).
//!
//! In: a head. Out: host, path and query in the one form that is judged and written. What a route may
//! allow (`;`, `%2F`, `//`, non-ASCII) is noted while reading and judged by `canonicalize`, because the
//! route is found by the path read here. Everything else with two readings is refused here.

mod authority;
mod path;
mod query;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Malformed, ReceivedHead, Version};
use crate::limits;
use crate::model::{Json, Place, ReasonCode};
use authority::Authority;
pub(super) use path::read_segment;
use path::{FirstUses, Path};

/// What a route allows in its paths beyond plain segments. All off unless declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathAllowances {
    /// `;` inside a segment.
    pub parameters: bool,
    /// Percent-encoded UTF-8 beyond ASCII.
    pub non_ascii: bool,
    /// `%2F` inside a segment.
    pub encoded_slash: bool,
    /// `//`.
    pub empty_segments: bool,
}

/// Host, path and query in their one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalTarget {
    authority: Arc<str>,
    path: Arc<str>,
    /// Path and query as written.
    target: Arc<str>,
    query: query::Pairs,
    /// What the path made use of; `canonicalize` compares with the route's.
    used: FirstUses,
}

impl CanonicalTarget {
    /// Reads `:authority`/Host and the target as they came. Exactly one host; an absolute-form target
    /// must agree with it.
    pub fn parse(head: &ReceivedHead) -> Result<Self, Malformed> {
        let raw = head.target.as_str();
        if raw.len() > limits::TARGET_BYTES_MAX {
            return Err(too_long());
        }
        let host = authority::of_head(head)?;
        let at = origin_form(head, &host)?;
        if let Some(fragment) = raw.find('#') {
            return Err(refuse(ReasonCode::TargetFragment, fragment));
        }
        let (raw_path, raw_query) = match raw[at..].split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&raw[at..], None),
        };
        let Path { text: path, used } = path::read(raw_path, at)?;
        let mut target = path.clone();
        let query = match raw_query {
            Some(raw) => query::read(raw, at + raw_path.len() + 1, &mut target)?,
            None => Vec::new(),
        };
        if target.len() > limits::TARGET_BYTES_MAX {
            return Err(too_long().because("It grew over the limit when it was brought into its one form."));
        }
        Ok(Self { authority: host.to_string().into(), path: path.into(), target: target.into(), query, used })
    }

    /// Lowercase host, with the port if one was given.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Begins with `/`; each segment in the one form that `target/path.rs` describes.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn into_path_and_target(self) -> (Arc<str>, Arc<str>) {
        (self.path, self.target)
    }

    /// Whether the path uses only what its route allows.
    pub(super) fn check_path(&self, allowed: PathAllowances) -> Result<(), Malformed> {
        let used = &self.used;
        for (first, is_allowed, code) in [
            (used.empty_segment, allowed.empty_segments, ReasonCode::TargetEmptySegment),
            (used.encoded_slash, allowed.encoded_slash, ReasonCode::TargetEncodedSlash),
            (used.parameter, allowed.parameters, ReasonCode::TargetParameters),
            (used.non_ascii, allowed.non_ascii, ReasonCode::TargetNonAscii),
        ] {
            if let (Some(at), false) = (first, is_allowed) {
                return Err(refuse(code, at));
            }
        }
        Ok(())
    }

    /// The query as policy sees it: a string for each name, a list for each name in `lists` or ending in `[]`.
    pub(super) fn query_object(&self, lists: &BTreeSet<Arc<str>>) -> Result<Json, Malformed> {
        query::object(&self.query, lists)
    }
}

/// Where path and query begin.
fn origin_form(head: &ReceivedHead, host: &Authority) -> Result<usize, Malformed> {
    let raw = head.target.as_str();
    if raw.starts_with('/') {
        return Ok(0);
    }
    let unsupported = || refuse(ReasonCode::TargetFormUnsupported, 0);
    if head.version == Version::Http2 {
        return Err(unsupported());
    }
    let (scheme, rest) = raw.split_once("://").ok_or_else(unsupported)?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err(unsupported().because("Only the schemes http and https are accepted.")),
    };
    let start = scheme.len() + 3;
    let length = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let named = Authority::parse(&rest[..length])
        .map_err(|rule| refuse(ReasonCode::HostInvalid, start).because(rule))?;
    if !named.agrees_with(host, default_port) {
        return Err(refuse(ReasonCode::HostMismatch, start));
    }
    Ok(start + length)
}

fn too_long() -> Malformed {
    Malformed::new(ReasonCode::TargetTooLong, Place::TargetByte(limits::TARGET_BYTES_MAX as u64))
}

fn refuse(code: ReasonCode, at: usize) -> Malformed {
    Malformed::new(code, Place::TargetByte(at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Method};

    fn head(version: Version, target: &str, authority: Option<&str>, hosts: &[&str]) -> ReceivedHead {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append("host", HeaderValue::from_str(host).expect("a header value"));
        }
        ReceivedHead {
            version,
            method: Method::GET,
            target: target.into(),
            authority: authority.map(Into::into),
            headers,
        }
    }

    fn parse(target: &str) -> Result<CanonicalTarget, Malformed> {
        CanonicalTarget::parse(&head(Version::Http11, target, None, &["api.example"]))
    }

    fn refusal(target: &str) -> (ReasonCode, u64) {
        let malformed = parse(target).expect_err(target);
        match malformed.place {
            Some(Place::TargetByte(at)) => (malformed.code, at),
            other => panic!("{target}: {other:?}"),
        }
    }

    fn host_refusal(
        version: Version,
        authority: Option<&str>,
        hosts: &[&str],
    ) -> (ReasonCode, Option<Place>) {
        let malformed = CanonicalTarget::parse(&head(version, "/", authority, hosts)).expect_err("refused");
        (malformed.code, malformed.place)
    }

    #[test]
    fn a_path_has_one_form() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/v1/charges/", "/v1/charges/"),
            ("/%7euser/%41%2d%5f", "/~user/A-_"),
            ("/a%3ab/@%40/x%20y", "/a:b/@@/x%20y"),
            ("/m('k')$v!*,=&", "/m('k')$v!*,=&"),
            ("/m(%27k%27)%24v%21%2a%2c%3d%26", "/m('k')$v!*,=&"),
            ("/c++/c%2b%2b", "/c%2B%2B/c%2B%2B"),
            ("/%7b%25%22%3f%23", "/%7B%25%22%3F%23"),
            ("/...%2e/.a/a.", "/..../.a/a."),
            ("/%252e%252e", "/%252e%252e"),
        ] {
            let target = parse(raw).expect(raw);
            assert_eq!((target.path(), &*target.target), (canonical, canonical), "{raw}");
            assert_eq!(target.check_path(PathAllowances::default()), Ok(()), "{raw}");
            let again = parse(target.path()).expect("canonical");
            assert_eq!(again.path(), canonical, "{raw}");
        }
    }

    #[test]
    fn what_has_two_readings_is_refused_at_its_byte() {
        for (raw, code, at) in [
            ("/a#b", ReasonCode::TargetFragment, 2),
            ("/a?b=c#d", ReasonCode::TargetFragment, 6),
            ("/a/../b", ReasonCode::TargetDotSegment, 3),
            ("/a/.", ReasonCode::TargetDotSegment, 3),
            ("/%2e%2E/b", ReasonCode::TargetDotSegment, 1),
            ("/a/.%2e", ReasonCode::TargetDotSegment, 3),
            ("/a/..;x=1/b", ReasonCode::TargetDotSegment, 3),
            ("/a/.%3Bx", ReasonCode::TargetDotSegment, 3),
            ("/a/b%2F..%2F..%2Fadmin", ReasonCode::TargetDotSegment, 3),
            ("/..%2fadmin", ReasonCode::TargetDotSegment, 1),
            ("/a/b%2f.;x%2fc", ReasonCode::TargetDotSegment, 3),
            ("/a\\b", ReasonCode::TargetBackslash, 2),
            ("/a/%41%5cb", ReasonCode::TargetBackslash, 6),
            ("/a%", ReasonCode::TargetPercentInvalid, 2),
            ("/a/%zz", ReasonCode::TargetPercentInvalid, 3),
            ("/%00", ReasonCode::TargetEncodedControl, 1),
            ("/a/b%41%0a", ReasonCode::TargetEncodedControl, 7),
            ("/%7f", ReasonCode::TargetEncodedControl, 1),
            ("/%c3%a9%c2%85", ReasonCode::TargetEncodedControl, 7),
            ("/%ff", ReasonCode::TargetNotUtf8, 1),
            ("/a/b%c0%af", ReasonCode::TargetNotUtf8, 4),
            ("/a b", ReasonCode::TargetCharacterInvalid, 2),
            ("/a/é", ReasonCode::TargetCharacterInvalid, 3),
            ("/a[", ReasonCode::TargetCharacterInvalid, 2),
            ("/a\u{7f}", ReasonCode::TargetCharacterInvalid, 2),
            ("/<>", ReasonCode::TargetCharacterInvalid, 1),
            ("*", ReasonCode::TargetFormUnsupported, 0),
            ("", ReasonCode::TargetFormUnsupported, 0),
            ("api.example:443", ReasonCode::TargetFormUnsupported, 0),
            ("ftp://api.example/", ReasonCode::TargetFormUnsupported, 0),
            ("?a=b", ReasonCode::TargetFormUnsupported, 0),
        ] {
            assert_eq!(refusal(raw), (code, at), "{raw}");
        }
    }

    #[test]
    fn what_a_route_may_allow_is_refused_unless_it_does() {
        type Allow = fn(&mut PathAllowances) -> &mut bool;
        let cases: [(&str, &str, ReasonCode, u64, Allow); 9] = [
            ("/a//b", "/a//b", ReasonCode::TargetEmptySegment, 3, |p| &mut p.empty_segments),
            ("//", "//", ReasonCode::TargetEmptySegment, 1, |p| &mut p.empty_segments),
            ("//evil.example/a", "//evil.example/a", ReasonCode::TargetEmptySegment, 1, |p| {
                &mut p.empty_segments
            }),
            ("/a%2fb%2F", "/a%2Fb%2F", ReasonCode::TargetEncodedSlash, 2, |p| &mut p.encoded_slash),
            ("/x/a;p=1", "/x/a;p=1", ReasonCode::TargetParameters, 4, |p| &mut p.parameters),
            ("/x/%61%3bp;", "/x/a;p;", ReasonCode::TargetParameters, 6, |p| &mut p.parameters),
            ("/x/;", "/x/;", ReasonCode::TargetParameters, 3, |p| &mut p.parameters),
            ("/a/b%c3%a9", "/a/b%C3%A9", ReasonCode::TargetNonAscii, 4, |p| &mut p.non_ascii),
            ("/%e2%82%ac/%c3%a9", "/%E2%82%AC/%C3%A9", ReasonCode::TargetNonAscii, 1, |p| &mut p.non_ascii),
        ];
        let all =
            PathAllowances { parameters: true, non_ascii: true, encoded_slash: true, empty_segments: true };
        for (raw, canonical, code, at, allow) in cases {
            let target = parse(raw).expect(raw);
            assert_eq!(target.path(), canonical);
            let mut only = PathAllowances::default();
            *allow(&mut only) = true;
            assert_eq!(target.check_path(only), Ok(()), "{raw}");
            let mut others = all;
            *allow(&mut others) = false;
            assert_eq!(target.check_path(others), Err(refuse(code, at as usize)), "{raw}");
        }
    }

    #[test]
    fn targets_are_bounded_before_and_after() {
        let longest = format!("/{}", "a".repeat(limits::TARGET_BYTES_MAX - 1));
        assert!(parse(&longest).is_ok());
        assert_eq!(refusal(&format!("{longest}a")), (ReasonCode::TargetTooLong, 8192));
        // Each `+` becomes three bytes.
        let growing = |count: usize| format!("/{}", "+".repeat(count));
        assert_eq!(parse(&growing(2_730)).expect("8,191 bytes").target.len(), 8_191);
        assert_eq!(refusal(&growing(2_731)), (ReasonCode::TargetTooLong, 8192));
        assert!(parse(&"/a".repeat(limits::PATH_SEGMENTS_MAX)).is_ok());
        assert_eq!(refusal(&"/a".repeat(limits::PATH_SEGMENTS_MAX + 1)), (ReasonCode::TargetTooLong, 129));
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        use Version::{Http2, Http11};
        let host = |name: &str| Some(Place::Header(name.into()));
        assert_eq!(host_refusal(Http11, None, &[]), (ReasonCode::HostMissing, host("host")));
        assert_eq!(host_refusal(Http11, None, &["a", "a"]), (ReasonCode::HostDuplicate, host("host")));
        assert_eq!(host_refusal(Http2, None, &[]), (ReasonCode::HostMissing, host(":authority")));
        assert_eq!(host_refusal(Http2, Some("a"), &["b"]), (ReasonCode::HostMismatch, host("host")));
        assert_eq!(host_refusal(Http2, Some("a"), &["a", "a"]), (ReasonCode::HostDuplicate, host("host")));
        assert_eq!(host_refusal(Http2, Some("u@a"), &[]), (ReasonCode::HostInvalid, host(":authority")));
        assert_eq!(host_refusal(Http11, None, &["a b"]), (ReasonCode::HostInvalid, host("host")));
        assert_eq!(host_refusal(Http11, Some("b"), &["a"]), (ReasonCode::HostMismatch, host("host")));
        for (version, authority, hosts) in [
            (Http2, Some("API.example:8443"), &[][..]),
            (Http2, Some("API.example:8443"), &["api.EXAMPLE:8443"]),
            (Http2, None, &["api.example:8443"]),
            (Http11, None, &["Api.Example:8443"]),
        ] {
            let target = CanonicalTarget::parse(&head(version, "/", authority, hosts)).expect("one host");
            assert_eq!(target.authority(), "api.example:8443");
        }
    }

    #[test]
    fn a_host_that_is_not_ascii_is_refused() {
        let mut head = head(Version::Http11, "/", None, &[]);
        head.headers.append("host", HeaderValue::from_bytes(b"a\xffb").expect("obs-text"));
        assert_eq!(CanonicalTarget::parse(&head).expect_err("refused").code, ReasonCode::HostInvalid);
    }

    #[test]
    fn an_absolute_target_agrees_with_the_host() {
        let of =
            |target: &str, host: &str| CanonicalTarget::parse(&head(Version::Http11, target, None, &[host]));
        for (target, host, canonical) in [
            ("http://api.example/a?b=c", "api.example", "/a?b=c"),
            ("HTTP://API.example:80/", "api.example", "/"),
            ("http://api.example", "api.example:80", "/"),
            ("https://api.example:443?b=c", "api.example", "/?b=c"),
            ("https://api.example:8443/", "api.example:8443", "/"),
        ] {
            let parsed = of(target, host).expect(target);
            assert_eq!((parsed.authority(), &*parsed.target), (host, canonical), "{target}");
        }
        for (target, host, code, at) in [
            ("http://other.example/", "api.example", ReasonCode::HostMismatch, 7),
            ("https://api.example/", "api.example:80", ReasonCode::HostMismatch, 8),
            ("http://api.example/", "api.example:443", ReasonCode::HostMismatch, 7),
            ("http://api.example:8080/", "api.example", ReasonCode::HostMismatch, 7),
            ("http://u:p@api.example/", "api.example", ReasonCode::HostInvalid, 7),
            ("http:///a", "api.example", ReasonCode::HostInvalid, 7),
            ("http://api.example/a/../b", "api.example", ReasonCode::TargetDotSegment, 21),
            ("http://api.example#f", "api.example", ReasonCode::TargetFragment, 18),
            ("http://api.example?=v", "api.example", ReasonCode::QueryMalformed, 19),
        ] {
            assert_eq!(
                of(target, host),
                Err(refuse(code, at)).map_err(|m: Malformed| Malformed {
                    detail: of(target, host).expect_err(target).detail,
                    ..m
                })
            );
        }
        let on_http2 = head(Version::Http2, "http://api.example/", Some("api.example"), &[]);
        let refused = CanonicalTarget::parse(&on_http2).expect_err("a path only");
        assert_eq!(refused.code, ReasonCode::TargetFormUnsupported);
    }
}
