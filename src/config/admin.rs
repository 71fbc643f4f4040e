//! `admin`: where the gateway is watched and operated from, and by whom.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::fields;
use super::reader::{Fields, Reader};
use super::sections::{parse_address, read_tls_of, section_or_defaults};
use super::yaml::{At, Node, Value};
use super::{AdminConfig, AdminListen, SecretsAre};
use crate::admin::{CertificateOf, NotAnOperator, Operator, Operators, TOKEN_START, Token};
use crate::authority::{ApiKeys, KeyPrefix, MtlsIdentity, SpiffeId};
use crate::clock::{Clock, WallTime};
use crate::limits;
use crate::model::entry::Role;
use crate::model::{ActorId, Digest, SurfaceName};

pub fn read(
    reader: &mut Reader<'_>,
    file: &Fields<'_>,
    secrets: SecretsAre,
    clock: &Clock,
) -> Option<AdminConfig> {
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
        Some(node) => read_tls(reader, node, secrets, clock),
        None => Some(None),
    };
    let host = fields.optional("host").and_then(|n| reader.text(n, "a name"));
    let takes = Takes {
        certificates: fields.optional("tls").is_some_and(has_client_roots),
        uids: fields.optional("unix").is_some(),
    };
    let operators = match fields.optional("operators") {
        Some(node) => read_operators(reader, node, takes, clock.wall()),
        None => Operators::default(),
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
    Some(AdminConfig { listen, tls, host: host.map(Arc::from), operators: Arc::new(operators) })
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

fn has_client_roots(node: &Node) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries.iter().any(|(key, _)| key.name == "client_roots"),
        Value::Scalar { .. } | Value::Sequence(_) => false,
    }
}

/// `Some(None)` as in `read_tls_of`. A client without a certificate is let in: it may prove itself by a token.
fn read_tls(
    reader: &mut Reader<'_>,
    node: &Node,
    secrets: SecretsAre,
    clock: &Clock,
) -> Option<Option<Arc<ServerConfig>>> {
    let fields = reader.fields(node, &fields::ADMIN_TLS)?;
    let server = read_tls_of(reader, &fields, secrets, clock);
    let roots = match fields.optional("client_roots") {
        Some(n) => reader.file(n).and_then(|(path, pem)| {
            let roots = super::tls::root_store(&pem);
            roots.map_err(|why| reader.error(n.at, format!("{} {why}", path.display()))).ok().map(Some)
        }),
        None => Some(None),
    };
    let (server, roots) = (server?, roots?);
    // Without its key, where secrets need not be there, the listener is checked and never opened.
    let Some(server) = server else { return Some(None) };
    let built = with_clients(&server, roots);
    let built = built.map_err(|why| reader.error(node.at, format!("`tls` cannot be used ({why})")));
    built.ok().map(|config| Some(Arc::new(config)))
}

/// The same certificate and key, for HTTP/1.1 alone. Nothing is resumed: a client proves its certificate every time.
fn with_clients(server: &ServerConfig, roots: Option<RootCertStore>) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| e.to_string())?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| e.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(server.cert_resolver.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What the listener can tell of a client.
#[derive(Clone, Copy)]
struct Takes {
    certificates: bool,
    uids: bool,
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
    for operator in operators.iter() {
        if operator.token.as_ref().is_some_and(|token| keys.has_digest(&token.digest)) {
            reader.error(at, format!("the token of operator `{}` is an agent's API key", operator.id));
        }
    }
}

/// Who operates by a certificate asks for nothing by it.
pub fn check_workloads<'d>(
    reader: &mut Reader<'_>,
    at: At,
    operators: &Operators,
    surfaces: impl Iterator<Item = (&'d SurfaceName, &'d MtlsIdentity)> + Clone,
) {
    for operator in operators.iter() {
        let Some(CertificateOf::Spiffe(spiffe)) = &operator.certificate else { continue };
        let id: SpiffeId = spiffe.parse().expect("`read_certificate` takes no other");
        if let Some((surface, _)) = surfaces.clone().find(|(_, mtls)| mtls.takes(&id)) {
            let why = "takes the certificate of operator";
            reader.error(at, format!("surface `{surface}` {why} `{}` as an agent's", operator.id));
        }
    }
}
