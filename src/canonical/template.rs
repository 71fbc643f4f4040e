//! Path templates of routes: `/v1/charges/{charge_id}`. A parameter is one whole segment.

use std::sync::Arc;

use super::target::CanonicalTarget;

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
        let Some(rest) = text.strip_prefix('/') else {
            return Err(InvalidTemplate { rule: "a path template begins with `/`", at: 0 });
        };
        let segment = |s: &str| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => Segment::Parameter(name.into()),
            None => Segment::Literal(s.into()),
        };
        Ok(Self { segments: rest.split('/').map(segment).collect() })
    }

    /// The parameters, percent-decoded, if the path fits.
    pub fn matches(&self, target: &CanonicalTarget) -> Option<Vec<(Arc<str>, String)>> {
        let _ = (target, &self.segments, Segment::Literal, Segment::Parameter);
        todo!()
    }

    /// Whether one path can fit both, with neither more specific (a literal beats a parameter, leftmost first).
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        let alike = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Parameter(_), Segment::Parameter(_)) => true,
            (Segment::Literal(_), Segment::Parameter(_)) | (Segment::Parameter(_), Segment::Literal(_)) => {
                false
            }
        };
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// Orders templates so that the first that matches is the most specific.
    pub fn specificity(&self, other: &Self) -> std::cmp::Ordering {
        let _ = other;
        todo!()
    }
}
