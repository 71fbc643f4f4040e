//! Path templates of routes: `/v1/charges/{charge_id}`. A parameter is one whole segment.
//!
//! In: a text from config, its literals in the one form that targets have. Out: a template that either
//! fits a path, with its parameters decoded, or does not. Of two templates that fit one path the more
//! specific is the one with a literal where the other has its first parameter.

use std::cmp::Ordering;
use std::sync::Arc;

use super::percent::{self, Plus};
use super::target::{self, CanonicalTarget};
use crate::limits;
use crate::model::is_reserved;

/// Why a text is not a template: the rule, and the byte it is broken at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidTemplate {
    pub rule: &'static str,
    pub at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Arc<str>),
    Parameter(Arc<str>),
}

impl PathTemplate {
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let invalid = |rule, at| Err(InvalidTemplate { rule, at });
        let Some(rest) = text.strip_prefix('/') else {
            return invalid("a path template begins with `/`", 0);
        };
        let mut segments = Vec::new();
        let mut at = 1;
        for raw in rest.split('/') {
            if segments.len() == limits::PATH_SEGMENTS_MAX {
                return invalid("a path template has at most 64 segments", at);
            }
            let segment = Segment::parse(raw).map_err(|rule| InvalidTemplate { rule, at })?;
            if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
                return invalid("a parameter name appears twice", at);
            }
            segments.push(segment);
            at += raw.len() + 1;
        }
        Ok(Self { segments })
    }

    /// The parameters, percent-decoded, if the path fits.
    pub fn matches(&self, target: &CanonicalTarget) -> Option<Vec<(Arc<str>, String)>> {
        let mut path = target.path().strip_prefix('/')?.split('/');
        let mut params = Vec::new();
        for segment in &self.segments {
            let found = path.next()?;
            match segment {
                Segment::Literal(literal) if **literal != *found => return None,
                Segment::Literal(_) => {}
                Segment::Parameter(_) if found.is_empty() => return None,
                Segment::Parameter(name) => params.push((name, found)),
            }
        }
        if path.next().is_some() {
            return None;
        }
        // Decoded only once the path fits.
        let decoded = |raw| percent::decode(raw, Plus::Plus).expect("a canonical segment decodes to UTF-8");
        Some(params.into_iter().map(|(name, raw)| (name.clone(), decoded(raw))).collect())
    }

    /// Names of its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    /// Whether one path can fit both, with neither more specific (a literal beats a parameter, leftmost first).
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        // Equal literals in the same places. Any other two either fit no path in common, or differ at the
        // first place where one has a literal and the other a parameter.
        self.specificity(other) == Ordering::Equal
    }

    /// Orders templates so that the first that matches is the most specific.
    pub fn specificity(&self, other: &Self) -> Ordering {
        let by_segment = self.segments.iter().zip(&other.segments).map(|pair| match pair {
            (Segment::Literal(a), Segment::Literal(b)) => a.cmp(b),
            (Segment::Literal(_), Segment::Parameter(_)) => Ordering::Less,
            (Segment::Parameter(_), Segment::Literal(_)) => Ordering::Greater,
            (Segment::Parameter(_), Segment::Parameter(_)) => Ordering::Equal,
        });
        by_segment.fold(Ordering::Equal, Ordering::then).then(self.segments.len().cmp(&other.segments.len()))
    }
}

impl Segment {
    /// `Err` is the rule that is broken.
    fn parse(raw: &str) -> Result<Self, &'static str> {
        if let Some(name) = raw.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let is_word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !is_word || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                return Err("a parameter name is letters, digits and `_`, not starting with a digit");
            }
            if is_reserved(name) {
                return Err("`_sd` has a meaning in receipts and is no parameter's name");
            }
            return Ok(Self::Parameter(name.into()));
        }
        if raw.contains(['{', '}']) {
            return Err("a parameter is one whole segment, written `{name}`");
        }
        let mut canonical = String::with_capacity(raw.len());
        match target::read_segment(raw, 0, &mut canonical, &mut Default::default()) {
            Ok(()) if canonical == raw => Ok(Self::Literal(raw.into())),
            _ => {
                Err("a literal segment must be written as requests are forwarded: plain characters as they \
                      are, others as %XX in uppercase")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::{ReceivedHead, Version};
    use http::{HeaderMap, HeaderValue, Method};

    fn target(path: &str) -> CanonicalTarget {
        let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("a"))]);
        let (version, method) = (Version::Http11, Method::GET);
        let head = ReceivedHead { version, method, target: path.into(), authority: None, headers };
        CanonicalTarget::parse(&head).expect(path)
    }

    fn template(text: &str) -> PathTemplate {
        PathTemplate::parse(text).expect(text)
    }

    fn fit(text: &str, path: &str) -> Option<Vec<(String, String)>> {
        let params = template(text).matches(&target(path))?;
        Some(params.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
    }

    #[test]
    fn a_parameter_is_one_whole_segment_decoded() {
        let params = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect::<Vec<_>>())
        };
        assert_eq!(fit("/", "/"), params(&[]));
        assert_eq!(fit("/v1/charges", "/v1/charges?a=b"), params(&[]));
        assert_eq!(
            fit("/v1/{a}/x/{_b2}", "/v1/one/x/t%20%C3%A9%2b"),
            params(&[("a", "one"), ("_b2", "t é+")])
        );
        assert_eq!(fit("/{a}/", "/x/"), params(&[("a", "x")]));
        assert_eq!(fit("/a//b", "/a//b"), params(&[]));
        assert_eq!(fit("/users:batch", "/users%3Abatch"), params(&[]));
        for (text, path) in [
            ("/{a}", "/"),
            ("/{a}", "/x/"),
            ("/{a}", "/x/y"),
            ("/{a}/{b}", "/x"),
            ("/{a}/b", "//b"),
            ("/v1", "/V1"),
            ("/v1", "/v1/"),
            ("/v1/", "/v1"),
            ("/v1/charges", "/v1/charge"),
        ] {
            assert_eq!(fit(text, path), None, "{text} {path}");
        }
    }

    #[test]
    fn what_is_not_a_template_is_refused_at_its_byte() {
        for (text, at) in [
            ("", 0),
            ("v1", 0),
            ("/v1/{}", 4),
            ("/v1/{1a}", 4),
            ("/v1/{a-b}", 4),
            ("/v1/x{a}", 4),
            ("/v1/{a}x", 4),
            ("/v1/{a", 4),
            ("/v1/a}", 4),
            ("/{a}/x/{a}", 7),
            ("/v1/%61", 4),
            ("/v1/%2f", 4),
            ("/v1/..", 4),
            ("/v1/a b", 4),
            ("/v1/é", 4),
            ("/c++", 1),
            ("/a?b", 1),
        ] {
            assert_eq!(PathTemplate::parse(text).expect_err(text).at, at, "{text}");
        }
        assert!(PathTemplate::parse(&"/a".repeat(limits::PATH_SEGMENTS_MAX)).is_ok());
        let over = PathTemplate::parse(&"/a".repeat(limits::PATH_SEGMENTS_MAX + 1)).expect_err("one more");
        assert_eq!(over.at, 129);
        assert!(over.to_string().contains("64"));
        let repeated = PathTemplate::parse("/a/a/{x}/%2F/{y}").expect("literals may repeat");
        assert_eq!(repeated.segments.len(), 5);
    }

    #[test]
    fn the_most_specific_template_comes_first() {
        let mut templates =
            ["/{a}/{b}", "/{a}/x", "/v1/{b}", "/v1/x", "/v1", "/{a}", "/v1/x/{c}"].map(template);
        templates.sort_by(PathTemplate::specificity);
        let expected = ["/v1", "/v1/x", "/v1/x/{c}", "/v1/{b}", "/{a}", "/{a}/x", "/{a}/{b}"].map(template);
        assert_eq!(templates, expected);
        let first = templates.iter().find(|t| t.matches(&target("/v1/x")).is_some());
        assert_eq!(first, Some(&template("/v1/x")));
    }

    #[test]
    fn only_templates_of_one_shape_are_ambiguous() {
        assert!(template("/a/{x}/b").is_ambiguous_with(&template("/a/{y}/b")));
        for (one, other) in
            [("/a/{x}", "/a/b"), ("/{x}/b", "/a/{x}"), ("/a", "/a/"), ("/a", "/b"), ("/{x}", "/{x}/")]
        {
            assert!(!template(one).is_ambiguous_with(&template(other)), "{one} {other}");
            assert!(!template(other).is_ambiguous_with(&template(one)), "{one} {other}");
        }
    }
}
