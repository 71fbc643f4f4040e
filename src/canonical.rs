//! From what was received to the one form that policy judges and the wire carries. Strict or refused, never repaired.
//!
//! In: a [`Received`] request, whole and bounded, and the [`Rules`] of its route. Out: a
//! [`CanonicalRequest`] that owns the exact bytes to be written and their digests, or a [`Malformed`]
//! naming the rule and the place. After: equal digests mean equal requests; nothing can edit the bytes.
//! Sources: RFC 9112, RFC 3986, RFC 8259, RFC 8785, the URL Standard's form syntax.
//!
//! Order of use: [`target::CanonicalTarget::parse`] (host, path, query), then the route is matched on its
//! path, then [`canonicalize`] does the rest under that route's rules.

mod body;
pub mod form;
pub mod headers;
pub mod json;
mod media_type;
mod message;
mod percent;
mod request;
mod rules;
pub mod schema;
pub mod target;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;

pub use message::{Slot, Wire};
pub use percent::encode_component;
pub use request::{
    CanonicalRequest, ExecutionRequest, PolicyBody, Received, ReceivedHead, Version, canonicalize,
};
pub use rules::{BodyRules, CredentialSlot, Forward, Required, Rules, WhenSent};

use crate::model::{Place, ReasonCode};

/// Two readings exist, or none: nothing is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub code: ReasonCode,
    pub place: Option<Place>,
    /// One more sentence for the caller, about what was found; never holds a credential or a body value.
    pub detail: Option<String>,
}

impl Malformed {
    pub(crate) fn new(code: ReasonCode, place: Place) -> Self {
        Self { code, place: Some(place), detail: None }
    }

    pub(crate) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}
