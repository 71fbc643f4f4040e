//! `api_keys`: who may ask, by the digest of a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fields;
use super::reader::Reader;
use super::yaml::{At, Node, Value};
use crate::admin::TOKEN_START;
use crate::authority::{ApiKey, ApiKeys, KeyPrefix};
use crate::clock::WallTime;
use crate::limits;
use crate::model::{
    Actor, ActorId, AuthenticationMethod, Digest, Json, Number, Object, SurfaceName, is_reserved,
};

/// The key that deploy/interlock.yaml declares, so that the example can be tried. Published, hence no secret.
pub const EXAMPLE_KEY: &str = "ilk_example0_this-key-is-published-and-protects-nothing";

/// The keys, and every surface they name with its place, so that the caller can check that they exist.
pub fn read(reader: &mut Reader<'_>, node: &Node, now: WallTime) -> (ApiKeys, Vec<(At, SurfaceName)>) {
    let (mut keys, mut named) = (ApiKeys::new(), Vec::new());
    let items = reader.items(node, "API keys").unwrap_or_default();
    if items.len() > limits::API_KEYS_MAX {
        reader.error(node.at, format!("more than {} API keys", limits::API_KEYS_MAX));
        return (keys, named);
    }
    for item in items {
        let Some((at, key)) = read_key(reader, item, now, &mut named) else { continue };
        if keys.insert(key).is_err() {
            reader.error(at, "another API key has the same prefix");
        }
    }
    (keys, named)
}

fn read_key(
    reader: &mut Reader<'_>,
    node: &Node,
    now: WallTime,
    named: &mut Vec<(At, SurfaceName)>,
) -> Option<(At, ApiKey)> {
    let fields = reader.fields(node, &fields::API_KEY)?;
    let id = fields.optional("id").and_then(|n| {
        let id: ActorId = reader.name(n)?;
        // So that no API key can stand for a workload or for a token's subject.
        if id.as_str().starts_with("spiffe://") || id.as_str().contains('#') {
            let why = "an API key's id must not begin with `spiffe://` or have a `#`: those are ids of certificates and tokens";
            reader.error(n.at, why);
        }
        Some(id)
    });
    let prefix = fields.optional("prefix").and_then(|n| {
        let text = reader.text(n, "the first characters of the key")?;
        if text.starts_with(TOKEN_START) {
            reader.error(n.at, format!("`{TOKEN_START}` begins the tokens of operators, and no agent's key"));
            return None;
        }
        text.parse::<KeyPrefix>().map_err(|e| reader.error(n.at, e.to_string())).ok().map(|p| (n.at, p))
    });
    let digest = fields.optional("sha256").and_then(|n| {
        let text = reader.text(n, "64 lowercase hex digits")?;
        let digest = format!("sha-256:{text}").parse::<Digest>();
        digest
            .map_err(|_| {
                reader.error(n.at, "`sha256` must be 64 lowercase hex digits: the SHA-256 of the whole key")
            })
            .ok()
    });
    if let (Some(n), Some(digest)) = (fields.optional("sha256"), digest)
        && digest == Digest::of(EXAMPLE_KEY.as_bytes())
    {
        reader
            .warn(n.at, "this is the key of the shipped example, which everyone knows; use one of your own");
    }
    let claims = match fields.optional("claims") {
        Some(n) => read_claims(reader, n),
        None => Some(Json::Object(Object::default())),
    };
    let surfaces = match fields.optional("surfaces") {
        Some(n) => Some(read_surfaces(reader, n, named)?),
        None => None,
    };
    let not_after = match fields.optional("not_after") {
        Some(n) => Some(read_end(reader, n, now)?),
        None => None,
    };
    let (at, prefix) = prefix?;
    let digest = digest?;
    let method = AuthenticationMethod::ApiKey;
    let actor = Arc::new(Actor {
        id: id?,
        method,
        credential_digest: Some(digest),
        claims: claims?,
        valid_until: not_after,
    });
    Some((at, ApiKey { prefix, digest, actor, surfaces }))
}

fn read_surfaces(
    reader: &mut Reader<'_>,
    node: &Node,
    named: &mut Vec<(At, SurfaceName)>,
) -> Option<BTreeSet<SurfaceName>> {
    let items = reader.items(node, "surface names")?;
    if items.is_empty() {
        reader.error(node.at, "an empty list of surfaces makes the key useless; leave the key out instead");
    }
    let names: Vec<_> = items.iter().filter_map(|i| Some((i.at, reader.name(i)?))).collect();
    named.extend(names.iter().cloned());
    Some(names.into_iter().map(|(_, name)| name).collect())
}

fn read_end(reader: &mut Reader<'_>, node: &Node, now: WallTime) -> Option<WallTime> {
    let text = reader.text(node, "a time")?;
    let Some(end) = WallTime::parse_rfc3339(text) else {
        reader.error(node.at, "expected an RFC 3339 time, such as `2027-01-31T00:00:00Z`");
        return None;
    };
    if end <= now {
        reader.warn(node.at, "this key is not valid any more");
    }
    Some(end)
}

fn read_claims(reader: &mut Reader<'_>, node: &Node) -> Option<Json> {
    let claims = to_json(reader, node)?;
    if claims.as_object().is_none() {
        reader.error(node.at, "`claims` must be a mapping");
        return None;
    }
    Some(claims)
}

/// Unquoted `true`, `false` and whole numbers are what they look like; every other scalar is text.
fn to_json(reader: &mut Reader<'_>, node: &Node) -> Option<Json> {
    match &node.value {
        Value::Scalar { text, plain } => match (text.as_str(), plain) {
            ("true", true) => Some(Json::Bool(true)),
            ("false", true) => Some(Json::Bool(false)),
            ("" | "~" | "null", true) => {
                reader.error(node.at, "a claim has no value; leave it out, or quote it");
                None
            }
            (digits, true) if looks_like_a_number(digits) => whole_number(reader, node.at, digits),
            (text, _) => Some(Json::string(text)),
        },
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(|i| to_json(reader, i)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        Value::Mapping(entries) => {
            let mut members: BTreeMap<&str, Json> = BTreeMap::new();
            for (key, value) in entries {
                let value = to_json(reader, value)?;
                if is_reserved(&key.name) {
                    reader.error(key.at, format!("`{}` is reserved and cannot be a claim", key.name));
                }
                if members.insert(&key.name, value).is_some() {
                    reader.error(key.at, format!("`{}` appears twice in `claims`", key.name));
                }
            }
            let members = members.into_iter().map(|(name, value)| (name.into(), value)).collect();
            Object::new(members).ok().map(Json::Object)
        }
    }
}

fn looks_like_a_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

/// Leaves hold integers below 2^53 only, and a leading zero is more likely an id than a number.
fn whole_number(reader: &mut Reader<'_>, at: At, text: &str) -> Option<Json> {
    let exact = text.parse::<i64>().ok().filter(|n| n.to_string() == text && n.unsigned_abs() < 1 << 53);
    let number = exact.and_then(|n| Number::new(n as f64));
    if number.is_none() {
        reader.error(at, "a claim must be a whole number below 2^53, or quoted text");
    }
    number.map(Json::Number)
}
