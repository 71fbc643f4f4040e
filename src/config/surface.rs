//! `surfaces`: an interface under control, with its identity, upstream, credential and routes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use zeroize::Zeroizing;

use super::authority;
use super::budgets;
use super::facts::{self, FactConfig};
use super::fields;
use super::identity::{self, IdentityDraft};
use super::reader::{Fields, Reader};
use super::redact;
use super::route::{self, RouteConfig};
use super::secret::{self, ReadVariable};
use super::sections::count;
use super::status;
use super::upstream::{self, parse_authority};
use super::yaml::{At, Node};
use super::{ListenerName, SecretsAre};
use crate::authority::{BudgetRule, Credential};
use crate::canonical::{CredentialSlot, WhenSent};
use crate::clock::Clock;
use crate::model::{PackageName, SecretName, SurfaceName};
use crate::pep::{Holds, Hosts, Idempotency};
use crate::reconcile::StatusLookup;
use crate::upstream::Settings;

/// One surface. Its credential's secret is in [`super::Config::credentials`], by the slot's name.
#[derive(Clone, Debug)]
pub struct SurfaceConfig {
    pub name: SurfaceName,
    pub listener: ListenerName,
    /// None if this is the only surface of its listener.
    pub hosts: Hosts,
    pub package: PackageName,
    /// Headers that API keys are read from, in order; none if it takes no API keys.
    pub api_key_headers: Vec<HeaderName>,
    pub identities: crate::authority::Identities,
    pub permit_age_max: Duration,
    pub upstream: Settings,
    pub credential: Option<CredentialSlot>,
    pub facts: Vec<FactConfig>,
    pub budgets: Vec<BudgetRule>,
    /// `None`: keys are passed on, and claim nothing.
    pub idempotency: Option<Idempotency>,
    pub holds: Holds,
    /// `None`: the upstream is not asked what became of requests.
    pub status_lookup: Option<StatusLookup>,
    pub routes: Vec<RouteConfig>,
}

/// A surface as read, before identities are made from keys that may name surfaces declared after it.
pub struct Draft {
    pub name: SurfaceName,
    pub name_at: At,
    pub listener: ListenerName,
    pub listener_at: At,
    pub hosts: Vec<(At, Arc<str>)>,
    pub package: PackageName,
    pub identity: IdentityDraft,
    pub permit_age_max: Duration,
    pub upstream: Settings,
    pub credential: Option<ReadCredential>,
    pub facts: Vec<FactConfig>,
    pub budgets: Vec<BudgetRule>,
    /// `None`: keys are passed on, and claim nothing.
    pub idempotency: Option<Idempotency>,
    pub holds: Holds,
    pub status_lookup: Option<StatusLookup>,
    pub routes: Vec<RouteConfig>,
    /// What must stay out of the log.
    pub redacted: Vec<redact::Declared>,
    /// Where the first route says that it is sensitive.
    pub sensitive_at: Option<At>,
}

impl Draft {
    /// Where something is first declared that must stay out of the log.
    pub fn redacts_at(&self) -> Option<At> {
        self.redacted.first().map(|(at, _)| *at).or(self.sensitive_at)
    }
}

pub struct ReadCredential {
    pub at: At,
    pub slot: CredentialSlot,
    pub source: Source,
    /// `None` only where secrets need not be there.
    pub secret: Option<Credential>,
}

/// Where a secret comes from. Two credentials of one name must agree in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Environment(String),
    File(PathBuf),
}

/// What reading secrets needs.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    pub variable: ReadVariable<'a>,
    pub are: SecretsAre,
}

pub fn read(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>, clock: &Clock) -> Option<Draft> {
    let fields = reader.fields(node, &fields::SURFACE)?;
    let name = fields.optional("name").and_then(|n| reader.name(n).map(|name| (n.at, name)));
    let listener = fields.optional("listener").and_then(|n| {
        let text = reader.text(n, "the name of a listener")?;
        Some((n.at, ListenerName(text.into())))
    });
    let hosts = match fields.optional("hosts") {
        Some(n) => read_hosts(reader, n),
        None => Some(Vec::new()),
    };
    let package = fields.optional("package").and_then(|n| reader.name(n));
    let identity = fields.optional("identity").and_then(|n| identity::read(reader, n, clock));
    let permit_age_max = reader.milliseconds(&fields, "permit_age_ms_max");
    let upstream = fields.optional("upstream").and_then(|n| upstream::read(reader, n));
    let credential = match fields.optional("credential") {
        Some(n) => read_credential(reader, n, secrets).map(Some),
        None => Some(None),
    };
    let redacted = match fields.optional("redact") {
        Some(n) => redact::read(reader, n),
        None => Some(Vec::new()),
    };
    let declared = redacted.as_deref().unwrap_or_default();
    let facts = match fields.optional("facts") {
        Some(n) => facts::read(reader, n, declared, secrets),
        None => Some(Vec::new()),
    };
    let budgets = match fields.optional("budgets") {
        Some(n) => budgets::read(reader, n),
        None => Some(Vec::new()),
    };
    let idempotency = authority::read_idempotency(reader, &fields);
    let holds = authority::read_holds(reader, &fields);
    let slot = credential.as_ref().and_then(|c| c.as_ref()).map(|c| &c.slot);
    let status_lookup = match fields.optional("status_lookup") {
        Some(n) => status::read(reader, n, slot).map(Some),
        None => Some(None),
    };
    // Routes are read even if something above is wrong, so that their problems are told in the same run.
    let identity_headers = identity.as_ref().map(IdentityDraft::headers).unwrap_or_default();
    let places: Vec<_> = redacted.iter().flatten().map(|(_, pointer)| pointer.clone()).collect();
    let surroundings = route::Surroundings {
        upstream_authority: upstream.as_ref().map_or("".into(), |u| u.authority.clone()),
        identity_headers: &identity_headers,
        credential: slot,
        redacted: &places,
        claims_keys: fields.optional("idempotency").is_some(),
    };
    let routes = fields.optional("routes").and_then(|n| route::read_all(reader, n, &surroundings));
    // With routes that were read only in part, one would seem to be missing.
    if let (Some(redacted), Some((routes, _))) = (&redacted, &routes)
        && fields.optional("routes").map(count) == Some(routes.len())
    {
        redact::check_routes(reader, redacted, routes);
        budgets::check_routes(reader, budgets.as_deref().unwrap_or_default(), routes);
    }
    let ((name_at, name), (listener_at, listener)) = (name?, listener?);
    let (routes, sensitive_at) = routes?;
    let status_lookup = match status_lookup? {
        // As above.
        Some(declared) if fields.optional("routes").map(count) == Some(routes.len()) => {
            Some(status::about(reader, declared, &routes, fields.optional("idempotency").is_some())?)
        }
        Some(_) | None => None,
    };
    Some(Draft {
        name,
        name_at,
        listener,
        listener_at,
        hosts: hosts?,
        package: package?,
        identity: identity?,
        permit_age_max: permit_age_max?,
        upstream: upstream?,
        credential: credential?,
        facts: facts?,
        budgets: budgets?.into_iter().map(budgets::Declared::into_rule).collect(),
        idempotency: idempotency?,
        holds: holds?,
        status_lookup,
        routes,
        redacted: redacted?,
        sensitive_at,
    })
}

fn read_hosts(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(At, Arc<str>)>> {
    let mut hosts = Vec::new();
    let texts = reader.texts(node, "hosts")?;
    if texts.is_empty() {
        reader.error(node.at, "expected at least one host; leave `hosts` out to serve every host");
    }
    for (at, text) in texts {
        match parse_authority(text) {
            Ok((host, port)) => {
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                hosts.push((at, port.map_or(host.clone(), |p| format!("{host}:{p}")).into()));
            }
            Err(why) => reader.error(at, format!("a host {why}")),
        }
    }
    Some(hosts)
}

fn read_credential(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>) -> Option<ReadCredential> {
    let fields = reader.fields(node, &fields::CREDENTIAL)?;
    let name: Option<(At, SecretName)> =
        fields.optional("name").and_then(|n| reader.name(n).map(|name| (n.at, name)));
    let header = fields.optional("header").and_then(|n| {
        let text = reader.text(n, "a header name")?;
        route::header_name(reader, n.at, text)
    });
    let prefix = read_prefix(reader, &fields);
    let when_sent = [("refuse", WhenSent::Refuse), ("drop", WhenSent::Drop)];
    let when_sent = reader.choice(&fields, "when_sent", &when_sent);
    let source = read_source(reader, &fields);
    let secret = source.as_ref().and_then(|(at, source)| read_secret(reader, *at, source, secrets));
    let (at, secret_name) = name?;
    let slot =
        CredentialSlot { header: header?, secret: secret_name, prefix: prefix?, when_sent: when_sent? };
    let (_, source) = source?;
    Some(ReadCredential { at, slot, source, secret })
}

pub fn read_prefix(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Arc<str>> {
    let Some(node) = fields.optional("prefix") else { return Some("".into()) };
    let text = reader.text(node, "the text before the secret")?;
    // Visible ASCII with single spaces inside or at the end: what a header value may begin with.
    let valid = text.len() <= 64
        && !text.starts_with(' ')
        && !text.contains("  ")
        && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        && !text.contains(['{', '}']);
    if !valid {
        reader.error(
            node.at,
            "`prefix` must be at most 64 visible ASCII characters and single spaces, without braces",
        );
        return None;
    }
    Some(text.into())
}

pub fn read_source(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<(At, Source)> {
    match (fields.optional("from_env"), fields.optional("from_file")) {
        (Some(node), None) => {
            let text = reader.text(node, "the name of an environment variable")?;
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !text.starts_with(|c: char| c.is_ascii_digit());
            if !plain {
                reader.error(node.at, "an environment variable's name has letters, digits and `_` only");
                return None;
            }
            Some((node.at, Source::Environment(text.to_owned())))
        }
        (None, Some(node)) => reader.path(node).map(|path| (node.at, Source::File(path))),
        (Some(_), Some(node)) => {
            reader.error(node.at, "a secret has one source: `from_env` or `from_file`, not both");
            None
        }
        (None, None) => {
            reader.error(
                fields.at,
                "`credential` needs `from_env` or `from_file`; a secret never stands in this file",
            );
            None
        }
    }
}

pub fn read_secret(
    reader: &mut Reader<'_>,
    at: At,
    source: &Source,
    secrets: Secrets<'_>,
) -> Option<Credential> {
    let read = match source {
        Source::Environment(name) => (secrets.variable)(name)
            .map(|text| Zeroizing::new(text.into_bytes()))
            .ok_or_else(|| format!("the environment variable `{name}` is not set, or is not UTF-8")),
        Source::File(path) => secret::read_private(path).map_err(|why| format!("{}: {why}", path.display())),
    };
    match (read.and_then(|bytes| Credential::new(bytes).map_err(|e| e.to_string())), secrets.are) {
        (Ok(secret), _) => Some(secret),
        (Err(why), SecretsAre::Needed) => {
            reader.error(at, why);
            None
        }
        (Err(why), SecretsAre::Optional) => {
            reader.warn(at, why);
            None
        }
    }
}
