//! The request target: authority, path, query (RFC 3986, RFC 9112 section 3.2).

use std::sync::Arc;

use super::{Malformed, ReceivedHead};

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
    query: Vec<(String, Option<String>)>,
    /// What the path made use of; `canonicalize` compares with the route's.
    used: PathAllowances,
}

impl CanonicalTarget {
    /// Reads `:authority`/Host and the target as they came. Exactly one host; an absolute-form target
    /// must agree with it.
    pub fn parse(head: &ReceivedHead) -> Result<Self, Malformed> {
        let _ = head;
        todo!()
    }

    /// Lowercase host, with the port if one was given.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Begins with `/`; unreserved characters decoded, the rest as `%XX` in uppercase.
    pub fn path(&self) -> &str {
        &self.path
    }
}
