//! Strict JSON (RFC 8259) in, RFC 8785 out.
//!
//! In: bytes. Out: a [`Json`] with exactly one reading, or a [`Malformed`] with the JSON pointer and the
//! byte of the culprit. Refused beyond RFC 8259's own grammar: a byte order mark, a member name that
//! appears twice after unescaping, half a surrogate pair, a number whose decimal value RFC 8785 would
//! change, and whatever is over the bounds. Work and memory are linear in the length of the text.

mod number;
mod scan;
mod write;

use super::Malformed;
use crate::limits;
use crate::model::Json;

pub use write::write;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Arrays and objects inside one another.
    pub depth_max: usize,
    /// Values and member names together.
    pub values_max: usize,
}

impl Bounds {
    /// For request bodies, and for schemas.
    pub const BODY: Self = Self { depth_max: limits::JSON_DEPTH_MAX, values_max: limits::JSON_VALUES_MAX };
}

/// The one value of the text.
pub fn parse(bytes: &[u8], bounds: Bounds) -> Result<Json, Malformed> {
    scan::document(bytes, bounds)
}
