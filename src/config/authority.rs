//! `idempotency` and `holds`: the state that a surface's decisions change.

use std::time::Duration;

use super::fields;
use super::reader::{Fields, Reader};
use super::yaml::{At, Node, Value};
use crate::pep::{Holds, Idempotency};

/// Of a surface; `Some(None)` if it has no `idempotency`.
pub fn read_idempotency(reader: &mut Reader<'_>, surface: &Fields<'_>) -> Option<Option<Idempotency>> {
    let Some(node) = surface.optional("idempotency") else { return Some(None) };
    let fields = reader.fields(node, &fields::IDEMPOTENCY)?;
    let keep_hours = reader.number(&fields, "keep_hours");
    let answer_bytes_max = reader.number(&fields, "answer_bytes_max");
    let keep = Duration::from_secs(keep_hours? * 60 * 60);
    Some(Some(Idempotency { keep, answer_bytes_max: usize::try_from(answer_bytes_max?).ok()? }))
}

/// Of a surface; the defaults if it has no `holds`.
pub fn read_holds(reader: &mut Reader<'_>, surface: &Fields<'_>) -> Option<Holds> {
    let empty = Node { at: At::START, value: Value::Mapping(Vec::new()) };
    let fields = reader.fields(surface.optional("holds").unwrap_or(&empty), &fields::HOLDS)?;
    let expire_minutes = reader.number(&fields, "expire_minutes");
    let wait_seconds_max = reader.number(&fields, "wait_seconds_max");
    let expire_after = Duration::from_secs(expire_minutes? * 60);
    Some(Holds { expire_after, wait_max: Duration::from_secs(wait_seconds_max?) })
}
