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
        let _ = text;
        todo!()
    }

    /// The parameters, percent-decoded, if the path fits.
    pub fn matches(&self, target: &CanonicalTarget) -> Option<Vec<(Arc<str>, String)>> {
        let _ = (target, &self.segments, Segment::Literal, Segment::Parameter);
        todo!()
    }

    /// Whether one path can fit both, with neither more specific (a literal beats a parameter, leftmost first).
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        let _ = other;
        todo!()
    }

    /// Orders templates so that the first that matches is the most specific.
    pub fn specificity(&self, other: &Self) -> std::cmp::Ordering {
        let _ = other;
        todo!()
    }
}
