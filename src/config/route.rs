//! `routes`: which requests a surface takes, and in which form.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, Method};

use super::fields;
use super::reader::{Fields, Reader};
use super::yaml::{At, Node, Value};
use crate::canonical::headers;
use crate::canonical::schema::Schema;
use crate::canonical::target::PathAllowances;
use crate::canonical::template::PathTemplate;
use crate::canonical::{BodyRules, CredentialSlot, Forward, Required, Rules};
use crate::limits;
use crate::model::{ActionName, Pointer, Redaction, is_reserved};

/// One route: an action, the requests it stands for, and their form.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    pub action: ActionName,
    pub method: Method,
    pub path: PathTemplate,
    /// The template as written.
    pub path_text: Arc<str>,
    pub rules: Arc<Rules>,
    /// Where `rules.schema` came from.
    pub schema_file: Option<PathBuf>,
}

/// What a route takes from its surface.
pub struct Surroundings<'s> {
    pub upstream_authority: Arc<str>,
    pub identity_headers: &'s BTreeSet<Arc<str>>,
    pub credential: Option<&'s CredentialSlot>,
    /// What the surface keeps out of the log.
    pub redacted: &'s [Pointer],
    /// Whether a key claims anything.
    pub claims_keys: bool,
}

/// A lowercase header name that a route, an identity or a credential may use.
pub fn header_name(reader: &mut Reader<'_>, at: At, text: &str) -> Option<Arc<str>> {
    let valid = HeaderName::from_bytes(text.as_bytes()).is_ok_and(|name| name.as_str() == text);
    if !valid {
        reader.error(at, format!("`{text}` is not a lowercase header name"));
        return None;
    }
    if !headers::is_forwardable(text) || is_reserved(text) {
        reader.error(
            at,
            format!("`{text}` is written or refused by the gateway itself and cannot be named here"),
        );
        return None;
    }
    Some(text.into())
}

/// Every route of a surface, and where the first `sensitive` one says so. Each action once; no path that two routes of one method take alike.
pub fn read_all(
    reader: &mut Reader<'_>,
    node: &Node,
    surface: &Surroundings<'_>,
) -> Option<(Vec<RouteConfig>, Option<At>)> {
    let items = reader.items(node, "routes")?;
    if items.is_empty() {
        reader.error(node.at, "a surface needs at least one route");
    }
    if items.len() > limits::ROUTES_PER_SURFACE_MAX {
        reader.error(node.at, format!("more than {} routes", limits::ROUTES_PER_SURFACE_MAX));
        return None;
    }
    let mut routes: Vec<Placed> = Vec::new();
    for item in items {
        let Some(placed) = read(reader, item, surface) else { continue };
        let route = &placed.route;
        if let Some(earlier) = routes.iter().find(|e| e.route.action == route.action) {
            let line = earlier.action_at.line;
            let message = format!("action `{}` is already declared on line {line}", route.action);
            reader.error(placed.action_at, message);
        }
        let alike =
            |e: &&Placed| e.route.method == route.method && e.route.path.is_ambiguous_with(&route.path);
        if let Some(earlier) = routes.iter().find(alike) {
            let line = earlier.path_at.line;
            let both = format!("`{}` and `{}` (line {line})", route.path_text, earlier.route.path_text);
            reader
                .error(placed.path_at, format!("one path can fit both {both}, and neither is more specific"));
        }
        routes.push(placed);
    }
    let sensitive_at = routes.iter().find_map(|placed| placed.sensitive_at);
    Some((routes.into_iter().map(|placed| placed.route).collect(), sensitive_at))
}

struct Placed {
    route: RouteConfig,
    action_at: At,
    path_at: At,
    sensitive_at: Option<At>,
}

fn read(reader: &mut Reader<'_>, node: &Node, surface: &Surroundings<'_>) -> Option<Placed> {
    let fields = reader.fields(node, &fields::ROUTE)?;
    let action = fields.optional("action").and_then(|n| reader.name(n).map(|a| (n.at, a)));
    let method = fields.optional("method").and_then(|n| read_method(reader, n));
    let path = fields.optional("path").and_then(|n| read_path(reader, n));
    let body = read_body(reader, &fields, method.as_ref());
    let body_bytes_max = read_body_bytes_max(reader, &fields, body.as_ref());
    let schema = read_schema(reader, &fields, body.as_ref());
    let forward_headers = read_headers(reader, &fields, surface);
    let required = [("required", Required::Required), ("optional", Required::Optional)];
    let idempotency_key = reader.choice(&fields, "idempotency_key", &required);
    if idempotency_key == Some(Required::Required) && !surface.claims_keys {
        reader.error(
            fields.place("idempotency_key"),
            "a required key claims nothing without `idempotency` on the surface: sent twice, it would be carried out twice",
        );
    }
    let query_lists = read_names(reader, &fields, "query_lists");
    let allowances = read_allowances(reader, &fields);
    let sensitive = reader.flag(&fields, "sensitive");
    let (action_at, action) = action?;
    let (path_at, path_text, path) = path?;
    let (schema, schema_file) = schema?.unzip();
    let rules = Rules {
        upstream_authority: surface.upstream_authority.clone(),
        body: body?,
        body_bytes_max: body_bytes_max?,
        schema,
        forward_headers: forward_headers?,
        identity_headers: surface.identity_headers.clone(),
        credential: surface.credential.cloned(),
        path: allowances?,
        query_lists: query_lists?,
        idempotency_key: idempotency_key?,
        redaction: Redaction::new(surface.redacted, sensitive?).map(Arc::new),
    };
    let route = RouteConfig { action, method: method?, path, path_text, rules: Arc::new(rules), schema_file };
    let sensitive_at = sensitive?.then(|| fields.place("sensitive"));
    Some(Placed { route, action_at, path_at, sensitive_at })
}

fn read_method(reader: &mut Reader<'_>, node: &Node) -> Option<Method> {
    let text = reader.text(node, "a method")?;
    let plain = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if !plain || matches!(text, "CONNECT" | "TRACE") {
        reader.error(node.at, format!("`{text}` is not an uppercase method that can be forwarded"));
        return None;
    }
    Method::from_bytes(text.as_bytes()).ok()
}

fn read_path(reader: &mut Reader<'_>, node: &Node) -> Option<(At, Arc<str>, PathTemplate)> {
    let text = reader.text(node, "a path template")?;
    match PathTemplate::parse(text) {
        Ok(template) => Some((node.at, text.into(), template)),
        Err(why) => {
            // The caret goes to the byte that breaks the rule, where the text stands as it is spelled.
            let before = text.get(..why.at).map_or(0, |t| t.chars().count());
            let spelled = node.at.width == text.chars().count();
            let at =
                if spelled { At { column: node.at.column + before, width: 1, ..node.at } } else { node.at };
            reader.error(at, format!("`{text}`: {}", why.rule));
            None
        }
    }
}

#[derive(Clone, Copy)]
enum BodyKind {
    Json,
    Form,
    None,
}

fn read_body(reader: &mut Reader<'_>, fields: &Fields<'_>, method: Option<&Method>) -> Option<BodyRules> {
    let node = fields.optional("body");
    let forward = [("canonical", Forward::Canonical), ("verbatim", Forward::Verbatim)];
    let forward = reader.choice(fields, "forward", &forward);
    let required = reader.flag(fields, "body_required");
    let node = node?;
    let required = if required? { Required::Required } else { Required::Optional };
    let forward = forward?;
    let body = match &node.value {
        Value::Scalar { .. } | Value::Sequence(_) => {
            let kinds = [("json", BodyKind::Json), ("form", BodyKind::Form), ("none", BodyKind::None)];
            match reader.one_of(node, &kinds)? {
                BodyKind::Json => BodyRules::Json { forward, required },
                BodyKind::Form => BodyRules::Form { required },
                BodyKind::None => BodyRules::None,
            }
        }
        Value::Mapping(_) => {
            let opaque = reader.fields(node, &fields::OPAQUE)?.optional("opaque")?;
            BodyRules::Opaque { media_types: read_media_types(reader, opaque)?, required }
        }
    };
    if fields.optional("forward").is_some() && !matches!(body, BodyRules::Json { .. }) {
        reader.error(fields.place("forward"), "`forward` is a choice for `body: json` only");
    }
    if body == BodyRules::None {
        for name in ["body_required", "body_bytes_max"] {
            if fields.optional(name).is_some() {
                reader.error(fields.place(name), format!("`{name}` says nothing with `body: none`"));
            }
        }
    } else if method.is_some_and(|m| m == Method::GET || m == Method::HEAD) {
        // RFC 9110 section 9.3.1: content in a GET has no defined meaning, so two readers may differ.
        reader.error(node.at, "a GET or HEAD request has no body; use `body: none`");
    }
    Some(body)
}

fn read_media_types(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeSet<Arc<str>>> {
    let texts = reader.texts(node, "media types")?;
    if texts.is_empty() {
        reader.error(node.at, "expected at least one media type");
    }
    let token = |t: &str| !t.is_empty() && t.bytes().all(|b| is_token(b) && !b.is_ascii_uppercase());
    for (at, text) in &texts {
        if !text.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub)) {
            reader.error(*at, format!("`{text}` is not a lowercase `type/subtype`"));
        } else if matches!(*text, "application/json" | "application/x-www-form-urlencoded") {
            reader.error(*at, format!("`{text}` can be read; use `body: json` or `body: form`"));
        }
    }
    Some(texts.into_iter().map(|(_, t)| t.into()).collect())
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn read_body_bytes_max(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    body: Option<&BodyRules>,
) -> Option<usize> {
    let declared = reader.number(fields, "body_bytes_max").and_then(|n| usize::try_from(n).ok());
    if body == Some(&BodyRules::None) { Some(0) } else { declared }
}

/// `None` is a problem; `Some(None)` is a route without a schema.
fn read_schema(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    body: Option<&BodyRules>,
) -> Option<Option<(Arc<Schema>, PathBuf)>> {
    let Some(node) = fields.optional("schema") else { return Some(None) };
    if matches!(body, Some(BodyRules::None | BodyRules::Opaque { .. })) {
        reader.error(fields.place("schema"), "a `schema` needs `body: json` or `body: form`");
    }
    let (path, bytes) = reader.file(node)?;
    let Ok(text) = String::from_utf8(bytes) else {
        reader.error(node.at, format!("{}: is not UTF-8", path.display()));
        return None;
    };
    match Schema::compile(&text) {
        Ok(schema) => Some(Some((Arc::new(schema), path))),
        Err(why) => {
            let place = if why.pointer.is_empty() { String::new() } else { format!(" at `{}`", why.pointer) };
            reader.error(node.at, format!("{}{place}: {}", path.display(), why.message));
            None
        }
    }
}

fn read_headers(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    surface: &Surroundings<'_>,
) -> Option<BTreeSet<Arc<str>>> {
    let Some(node) = fields.optional("headers") else { return Some(BTreeSet::new()) };
    let mut names = BTreeSet::new();
    for (at, text) in reader.texts(node, "header names")? {
        let Some(name) = header_name(reader, at, text) else { continue };
        if surface.identity_headers.contains(&name) {
            reader.error(at, format!("`{name}` proves who asks; it is never forwarded"));
        } else if surface.credential.is_some_and(|slot| slot.header == name) {
            reader.error(
                at,
                format!("`{name}` holds the gateway's credential; the caller's is never forwarded"),
            );
        } else if !names.insert(name) {
            reader.error(at, format!("`{text}` appears twice"));
        }
    }
    Some(names)
}

fn read_names(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    name: &'static str,
) -> Option<BTreeSet<Arc<str>>> {
    let Some(node) = fields.optional(name) else { return Some(BTreeSet::new()) };
    let mut names = BTreeSet::new();
    for (at, text) in reader.texts(node, "names")? {
        if !names.insert(text.into()) {
            reader.error(at, format!("`{text}` appears twice"));
        }
    }
    Some(names)
}

fn read_allowances(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<PathAllowances> {
    let mut allowances = PathAllowances::default();
    let Some(node) = fields.optional("path_allows") else { return Some(allowances) };
    type Allow = fn(&mut PathAllowances);
    let set: [(&str, Allow); 4] = [
        ("parameters", |a| a.parameters = true),
        ("non_ascii", |a| a.non_ascii = true),
        ("encoded_slash", |a| a.encoded_slash = true),
        ("empty_segments", |a| a.empty_segments = true),
    ];
    for item in reader.items(node, "allowances")? {
        if let Some(allow) = reader.one_of(item, &set) {
            allow(&mut allowances);
        }
    }
    Some(allowances)
}
