//! `redact`: what a surface keeps out of the log, and that it names places which exist.

use std::path::{Component, Path, PathBuf};

use super::reader::Reader;
use super::route::{self, RouteConfig};
use super::surface::Draft;
use super::yaml::{At, Node, Value};
use super::{LedgerConfig, fields};
use crate::authority::ApiKeys;
use crate::canonical::BodyRules;
use crate::limits;
use crate::model::Pointer;

/// A declared place, and where it was declared.
pub type Declared = (At, Pointer);

/// Headers that a leaf has in a member of its own.
const IN_LEAVES: [&str; 2] = ["idempotency-key", "traceparent"];

pub fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Declared>> {
    let fields = reader.fields(node, &fields::REDACT)?;
    let mut read = Vec::new();
    let pointers = match fields.optional("pointers") {
        Some(n) => reader.texts(n, "pointers")?,
        None => Vec::new(),
    };
    for (at, text) in pointers {
        match text.parse::<Pointer>() {
            Ok(pointer) => read.push((at, pointer)),
            Err(why) => reader.error(at, format!("`{text}`: {why}")),
        }
    }
    let headers = match fields.optional("headers") {
        Some(n) => reader.texts(n, "header names")?,
        None => Vec::new(),
    };
    read.extend(headers.into_iter().map(|(at, name)| (at, Pointer::of_header(name))));
    let is_empty =
        |name| fields.optional(name).is_none_or(|n| matches!(&n.value, Value::Sequence(s) if s.is_empty()));
    if is_empty("pointers") && is_empty("headers") {
        reader.error(node.at, "`redact` needs `pointers` or `headers`, and at least one place in them");
    }
    if read.len() > limits::REDACT_POINTERS_MAX {
        reader.error(node.at, format!("more than {} places", limits::REDACT_POINTERS_MAX));
        return None;
    }
    check_headers(reader, &read);
    check_overlaps(reader, &read);
    Some(read)
}

fn check_headers(reader: &mut Reader<'_>, declared: &[Declared]) {
    for (at, pointer) in declared {
        let Some(name) = pointer.header() else { continue };
        if IN_LEAVES.contains(&name) {
            reader.error(*at, format!("`{name}` stands in every receipt and cannot be kept out of it"));
        } else {
            // Reports by itself.
            let _ = route::header_name(reader, *at, name);
        }
    }
}

/// Of two places inside one another, only one could be disclosed.
fn check_overlaps(reader: &mut Reader<'_>, declared: &[Declared]) {
    for (nth, (at, pointer)) in declared.iter().enumerate() {
        if let Some((earlier_at, earlier)) = declared[..nth].iter().find(|(_, e)| e.overlaps(pointer)) {
            let line = earlier_at.line;
            reader.error(*at, format!("`{pointer}` and `{earlier}` (line {line}) can be the same place"));
        }
    }
}

/// A place that no request has is a slip of the pen, and the value would be in the log.
pub fn check_routes(reader: &mut Reader<'_>, declared: &[Declared], routes: &[RouteConfig]) {
    for (at, pointer) in declared {
        if let Some(name) = pointer.header()
            && !routes.iter().any(|route| route.rules.forward_headers.contains(name))
        {
            reader.error(*at, format!("no route of this surface forwards the header `{name}`"));
        }
        if let Some(name) = pointer.parameter()
            && !routes.iter().any(|route| route.path.parameters().any(|own| own == name))
        {
            reader.error(*at, format!("no route of this surface has a parameter `{name}`"));
        }
        if pointer.is_in_body() && !routes.iter().any(|route| is_read(&route.rules.body)) {
            reader.error(
                *at,
                "policy sees the body of no route of this surface; `sensitive` keeps out its digests",
            );
        }
    }
}

fn is_read(body: &BodyRules) -> bool {
    match body {
        BodyRules::Json { .. } | BodyRules::Form { .. } => true,
        BodyRules::Opaque { .. } | BodyRules::None => false,
    }
}

/// A claim that no key of the surface has is as much a slip of the pen.
/// Certificates and tokens bring claims of their own.
pub fn check_claims(reader: &mut Reader<'_>, drafts: &[Draft], keys: &ApiKeys) {
    for draft in drafts.iter().filter(|d| d.identity.mtls.is_none() && d.identity.jwt.is_none()) {
        for (at, pointer) in &draft.redacted {
            if let Some(name) = pointer.claim()
                && !keys.has_claim(&draft.name, name)
            {
                reader.error(*at, format!("no API key of this surface has a claim `{name}`"));
            }
        }
    }
}

/// A directory that is not part of the log: whoever has a copy of the log must not have the keys with it.
pub fn read_salts(reader: &mut Reader<'_>, node: &Node, log: Option<&Path>) -> Option<PathBuf> {
    let salts = reader.path(node)?;
    if log.is_some_and(|log| plain(&salts).starts_with(plain(log))) {
        reader.error(node.at, "`salts` must be outside the directory of the log");
        return None;
    }
    Some(salts)
}

/// Without `.` and `..`, as far as that can be said without looking at the disk; opening the log looks.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            Component::ParentDir | Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                plain.push(component);
            }
        }
    }
    plain
}

/// What is kept out of the log needs keys that are kept outside of it.
pub fn check_salts(reader: &mut Reader<'_>, drafts: &[Draft], ledger: &LedgerConfig) {
    let redacts_at = drafts.iter().find_map(|draft| draft.redacts_at());
    if let (Some(at), None) = (redacts_at, &ledger.salts) {
        reader.error(at, "redaction needs `ledger.salts`, a directory for its keys");
    }
}
