//! Strict JSON (RFC 8259) in, RFC 8785 out.
use super::Malformed;
use crate::model::Json;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub depth_max: usize,
    pub values_max: usize,
}

pub fn parse(bytes: &[u8], bounds: Bounds) -> Result<Json, Malformed> {
    let _ = (bytes, bounds);
    todo!()
}

/// The RFC 8785 form.
pub fn write(value: &Json) -> Vec<u8> {
    let _ = value;
    todo!()
}
