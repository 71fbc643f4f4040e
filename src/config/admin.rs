//! `admin`: where the gateway is watched and operated from, and by whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::fields;
use super::reader::{Fields, Reader, read_bounded};
use super::reload::{Files, IdentityPart, Part};
use super::sections::{self, ReadTls, has_field, parse_address, secret_problem, section_or_defaults};
use super::yaml::{self, At, Node, Value};
use super::{AdminConfig, AdminListen, Surroundings, tls};
use crate::admin::{CertificateOf, NotAnOperator, Operator, Operators, TOKEN_START, Token};
use crate::authority::{ApiKeys, KeyPrefix, MtlsIdentity, SharedApiKeys, SpiffeId};
use crate::clock::WallTime;
use crate::limits;
use crate::model::entry::Role;
use crate::model::{ActorId, Digest, SurfaceName};

/// The admin listener, and what of it is read again while the gateway runs.
pub struct ReadAdmin {
    pub config: AdminConfig,
    tls: Option<ReadTls>,
    /// The file that lists the operators.
    file: Option<(PathBuf, Files)>,
    takes: Takes,
}

impl ReadAdmin {
    /// Once: no operator's token may become one of `keys`, and no operator's certificate one of `workloads`.
    pub fn parts(&mut self, keys: &SharedApiKeys, workloads: &Workloads) -> Vec<IdentityPart> {
        let tls = self
            .tls
            .take()
            .map(|(paths, files, slot)| IdentityPart::new(Part::AdminTls { paths, slot }, &files));
        let operators = self.file.take().map(|(path, files)| {
            let (slot, keys) = (self.config.operators.clone(), keys.clone());
            let (takes, workloads) = (self.takes, workloads.clone());
            IdentityPart::new(Part::Operators { path, slot, takes, keys, workloads }, &files)
        });
        tls.into_iter().chain(operators).collect()
    }
}

pub fn read(reader: &mut Reader<'_>, file: &Fields<'_>, surroundings: Surroundings<'_>) -> Option<ReadAdmin> {
    let empty = Node { at: At::START, value: Value::Mapping(Vec::new()) };
    let fields = section_or_defaults(reader, file, "admin", &fields::ADMIN, &empty)?;
    let listen = match fields.optional("unix") {
        Some(node) => {
            for with in ["listen", "tls", "host", "allow_remote"] {
                if fields.optional(with).is_some() {
                    reader.error(fields.place(with), format!("`{with}` means nothing with `unix`"));
                }
            }
            reader.path(node).map(AdminListen::Unix)
        }
        None => read_address(reader, &fields).map(AdminListen::Tcp),
    };
    let tls = match fields.optional("tls") {
        Some(node) => sections::read_tls(reader, node, tls::Serves::Operators, surroundings),
        None => Some(None),
    };
    let host = fields.optional("host").and_then(|n| reader.text(n, "a name"));
    let takes = Takes {
        certificates: fields.optional("tls").is_some_and(|n| has_field(n, "client_roots")),
        uids: fields.optional("unix").is_some(),
    };
    let (operators, operators_file) = match fields.optional("operators") {
        Some(node) => read_list_or_file(reader, node, takes, surroundings),
        None => (Operators::default(), None),
    };
    let (listen, tls) = (listen?, tls?);
    let is_plain = fields.optional("tls").is_none();
    match &listen {
        AdminListen::Tcp(address) if !address.ip().is_loopback() && is_plain && !operators.is_empty() => {
            let at = fields.place("operators");
            reader.error(at, "operators would prove themselves over a network in plain text; add `tls`");
        }
        AdminListen::Tcp(_) | AdminListen::Unix(_) => {}
    }
    let config = AdminConfig {
        listen,
        tls: tls.as_ref().map(|(_, _, slot)| slot.clone()),
        host: host.map(Arc::from),
        operators: Arc::new(ArcSwap::from_pointee(operators)),
        agents: Vec::new(),
    };
    Some(ReadAdmin { config, tls, file: operators_file, takes })
}

fn read_address(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<SocketAddr> {
    let allow_remote = reader.flag(fields, "allow_remote");
    let text = reader.text_or_default(fields, "listen", "an address")?;
    let at = fields.optional("listen").map_or(fields.at, |n| n.at);
    let listen = parse_address(reader, at, text)?;
    if !listen.ip().is_loopback() && !allow_remote? {
        reader.error(
            at,
            format!(
                "`{listen}` can be reached from other machines; add `allow_remote: true` if that is meant"
            ),
        );
    }
    Some(listen)
}

/// What the listener can tell of a client.
#[derive(Clone, Copy, Debug)]
pub struct Takes {
    certificates: bool,
    uids: bool,
}

/// Either the list, or the name of a file that holds it.
fn read_list_or_file(
    reader: &mut Reader<'_>,
    node: &Node,
    takes: Takes,
    surroundings: Surroundings<'_>,
) -> (Operators, Option<(PathBuf, Files)>) {
    let now = surroundings.clock.wall();
    let Value::Mapping(_) = &node.value else { return (read_operators(reader, node, takes, now), None) };
    let named = reader.fields(node, &fields::OPERATORS).and_then(|f| f.optional("file"));
    let read = named.and_then(|n| Some((n.at, reader.path(n)?)));
    let Some((at, path)) = read else { return (Operators::default(), None) };
    let bytes = match read_bounded(&path) {
        Ok(bytes) => bytes,
        // It is made where the gateway runs, as secrets are.
        Err(why) => {
            secret_problem(reader, at, format!("{}: {why}", path.display()), surroundings.secrets);
            return (Operators::default(), None);
        }
    };
    // Problems of the other file are told at the place that names it, with their own places in front.
    match read_operators_file(&path, &bytes, takes, now) {
        Ok(operators) => (operators, Some((path, Files::of(vec![bytes.into()])))),
        Err(problems) => {
            problems.into_iter().for_each(|problem| reader.error(at, problem));
            (Operators::default(), None)
        }
    }
}

/// A file that holds the list and nothing else; or all that is wrong with it.
pub fn read_operators_file(
    path: &Path,
    bytes: &[u8],
    takes: Takes,
    now: WallTime,
) -> Result<Operators, Vec<String>> {
    let there = |place: At, why: &str| format!("{}:{}:{}: {why}", path.display(), place.line, place.column);
    let text = std::str::from_utf8(bytes).map_err(|_| vec![format!("{} is not UTF-8", path.display())])?;
    let tree = yaml::parse(text).map_err(|e| vec![there(e.at, &e.message)])?;
    let mut inner = Reader::new(path.parent().unwrap_or(Path::new("")));
    let operators = read_operators(&mut inner, &tree, takes, now);
    match inner.problems.is_empty() {
        true => Ok(operators),
        false => Err(inner.problems.iter().map(|p| there(p.at, &p.message)).collect()),
    }
}

fn read_operators(reader: &mut Reader<'_>, node: &Node, takes: Takes, now: WallTime) -> Operators {
    let mut operators = Operators::default();
    let items = reader.items(node, "operators").unwrap_or_default();
    if items.len() > limits::OPERATORS_MAX {
        reader.error(node.at, format!("more than {} operators", limits::OPERATORS_MAX));
        return operators;
    }
    if items.is_empty() {
        reader.error(node.at, "expected at least one operator; leave `operators` out if nobody operates");
    }
    for item in items {
        let Some(operator) = read_operator(reader, item, takes, now) else { continue };
        if let Err(why) = operators.insert(operator) {
            let hint = match why {
                NotAnOperator::NoProof if !takes.uids => " (`uid` needs `admin.unix`)",
                NotAnOperator::NoProof
                | NotAnOperator::SamePrefix
                | NotAnOperator::SameProof
                | NotAnOperator::OtherRole => "",
            };
            reader.error(item.at, format!("{why}{hint}"));
        }
    }
    operators
}

const ROLES: [(&str, Role); 4] = [
    ("viewer", Role::Viewer),
    ("approver", Role::Approver),
    ("operator", Role::Operator),
    ("administrator", Role::Administrator),
];

fn read_operator(reader: &mut Reader<'_>, node: &Node, takes: Takes, now: WallTime) -> Option<Operator> {
    let fields = reader.fields(node, &fields::OPERATOR)?;
    let id = fields.optional("id").and_then(|n| {
        let id: ActorId = reader.name(n)?;
        if id.as_str() == "gateway" {
            reader.error(n.at, "`gateway` is what the gateway itself does in the log");
            return None;
        }
        Some(id)
    });
    let role = fields.optional("role").and_then(|n| reader.one_of(n, &ROLES));
    let token = read_token(reader, &fields);
    let certificate = read_certificate(reader, &fields, takes);
    let uid = match fields.optional("uid") {
        Some(n) => {
            if !takes.uids {
                reader.error(n.at, "a `uid` can be told only at a Unix socket; add `admin.unix`");
            }
            let text = reader.text(n, "a user's number")?;
            let uid = text.parse::<u32>().ok().filter(|uid| uid.to_string() == text);
            if uid.is_none() {
                reader.error(n.at, format!("expected a user's number, not `{text}`"));
            }
            Some(uid?)
        }
        None => None,
    };
    let not_after = match fields.optional("not_after") {
        Some(n) => {
            let end = WallTime::parse_rfc3339(reader.text(n, "a time")?);
            if end.is_none() {
                reader.error(n.at, "expected an RFC 3339 time, such as `2027-01-31T00:00:00Z`");
            }
            if end? <= now {
                reader.warn(n.at, "this operator is not valid any more");
            }
            end
        }
        None => None,
    };
    let id: Arc<str> = id?.as_str().into();
    Some(Operator { id, role: role?, token: token?, certificate: certificate?, uid, not_after })
}

/// `Some(None)`: none is declared.
fn read_token(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Option<Token>> {
    let (prefix, digest) = match (fields.optional("prefix"), fields.optional("sha256")) {
        (None, None) => return Some(None),
        (Some(prefix), Some(digest)) => (prefix, digest),
        (Some(_), None) | (None, Some(_)) => {
            reader.error(fields.at, "a token needs both `prefix` and `sha256`");
            return None;
        }
    };
    let text = reader.text(prefix, "the first characters of the token");
    let digest = text_digest(reader, digest, "the SHA-256 of the whole token");
    let text = text?;
    if !text.starts_with(TOKEN_START) {
        let why =
            format!("an operator's token starts with `{TOKEN_START}`; `interlock keys operator` makes one");
        reader.error(prefix.at, why);
        return None;
    }
    let parsed = text.parse::<KeyPrefix>().map_err(|e| reader.error(prefix.at, e.to_string())).ok();
    Some(Some(Token { prefix: parsed?, digest: digest? }))
}

fn text_digest(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Digest> {
    let text = reader.text(node, "64 lowercase hex digits")?;
    let digest = format!("sha-256:{text}").parse::<Digest>();
    digest.map_err(|_| reader.error(node.at, format!("expected 64 lowercase hex digits: {what}"))).ok()
}

/// `Some(None)`: none is declared.
fn read_certificate(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    takes: Takes,
) -> Option<Option<CertificateOf>> {
    let (spiffe, fingerprint) = (fields.optional("spiffe"), fields.optional("certificate_sha256"));
    let certificate = match (spiffe, fingerprint) {
        (None, None) => return Some(None),
        (Some(_), Some(_)) => {
            let at = fields.place("certificate_sha256");
            reader.error(at, "an operator has one certificate: `spiffe` or `certificate_sha256`");
            None
        }
        (Some(n), None) => {
            let id = reader.text(n, "a SPIFFE ID").and_then(|text| text.parse::<SpiffeId>().ok());
            if id.is_none() {
                reader.error(n.at, "expected a SPIFFE ID, such as `spiffe://example.org/operators/ann`");
            }
            id.map(|id| CertificateOf::Spiffe(id.as_str().into()))
        }
        (None, Some(n)) => {
            text_digest(reader, n, "the SHA-256 of the certificate's DER").map(CertificateOf::Fingerprint)
        }
    };
    if !takes.certificates {
        let at = if spiffe.is_some() { fields.place("spiffe") } else { fields.place("certificate_sha256") };
        reader.error(at, "a certificate is asked for only with `admin.tls.client_roots`");
    }
    certificate.map(Some)
}

/// What is an operator's is no agent's.
pub fn check_api_keys(reader: &mut Reader<'_>, at: At, operators: &Operators, keys: &ApiKeys) {
    shared(operators, keys).for_each(|problem| reader.error(at, problem));
}

/// Tokens, and ids: by one name the log would not tell who asked from who decided on it.
pub fn shared(operators: &Operators, keys: &ApiKeys) -> impl Iterator<Item = String> {
    operators.iter().flat_map(|operator| {
        let id = &operator.id;
        let is_key = operator.token.as_ref().is_some_and(|token| keys.has_digest(&token.digest));
        let token = is_key.then(|| format!("the token of operator `{id}` is an agent's API key"));
        let name = keys.has_agent(id).then(|| format!("`{id}` is an operator and an agent with an API key"));
        token.into_iter().chain(name)
    })
}

/// Surfaces, and whose certificates prove an agent there.
pub type Workloads = Vec<(SurfaceName, MtlsIdentity)>;

/// Who operates by a certificate asks for nothing by it.
pub fn check_workloads(reader: &mut Reader<'_>, at: At, operators: &Operators, workloads: &Workloads) {
    also_workloads(operators, workloads).for_each(|problem| reader.error(at, problem));
}

pub fn also_workloads(operators: &Operators, workloads: &Workloads) -> impl Iterator<Item = String> {
    operators.iter().filter_map(|operator| {
        let Some(CertificateOf::Spiffe(spiffe)) = &operator.certificate else { return None };
        let id: SpiffeId = spiffe.parse().expect("`read_certificate` takes no other");
        let (surface, _) = workloads.iter().find(|(_, mtls)| mtls.takes(&id))?;
        Some(format!("surface `{surface}` takes the certificate of operator `{}` as an agent's", operator.id))
    })
}
