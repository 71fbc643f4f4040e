//! The file as a whole: its sections in order, and the checks between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::{self, Rule, Section};
use super::reader::{Fields, Reader};
use super::redact;
use super::surface::{self, Draft, Secrets, Source};
use super::yaml::{At, Node, Value};
use super::{
    AdminConfig, Config, LedgerConfig, LimitsConfig, ListenerConfig, ListenerName, LogFormat, PolicyConfig,
    SecretsAre, SurfaceConfig, Surroundings, TelemetryConfig, Warnings, admin, keys, secret, sinks, tls,
};
use crate::authority::{ApiKeyIdentity, ApiKeys, Credentials, Identities};
use crate::clock::{Clock, WallTime};
use crate::limits;
use crate::merkle::note::VerifierKey;
use crate::model::{Digest, LogOrigin, SecretName, SurfaceName};
use crate::pep::Hosts;

/// Everything but what is known only of the file itself.
pub struct Parts {
    log_origin: LogOrigin,
    ledger: LedgerConfig,
    policy: PolicyConfig,
    admin: AdminConfig,
    telemetry: TelemetryConfig,
    limits: LimitsConfig,
    listeners: Vec<ListenerConfig>,
    api_keys: Arc<ApiKeys>,
    surfaces: Vec<SurfaceConfig>,
    credentials: Credentials,
    sinks: Vec<crate::sinks::Settings>,
}

impl Parts {
    pub fn into_config(self, file: &Path, digest: Digest, warnings: Warnings) -> Config {
        Config {
            file: file.to_owned(),
            digest,
            log_origin: self.log_origin,
            ledger: self.ledger,
            policy: self.policy,
            admin: self.admin,
            telemetry: self.telemetry,
            limits: self.limits,
            listeners: self.listeners,
            api_keys: self.api_keys,
            surfaces: self.surfaces,
            credentials: self.credentials,
            sinks: self.sinks,
            warnings,
        }
    }
}

/// `None` only after at least one problem was reported.
pub fn read(reader: &mut Reader<'_>, tree: &Node, surroundings: Surroundings<'_>) -> Option<Parts> {
    let now = surroundings.clock.wall();
    let file = reader.fields(tree, &fields::FILE)?;
    let log_origin = file.optional("log_origin").and_then(|n| reader.name(n));
    let ledger = file
        .optional("ledger")
        .and_then(|n| read_ledger(reader, n, log_origin.as_ref(), surroundings.secrets));
    let policy = file.optional("policy").and_then(|n| read_policy(reader, n));
    let admin = admin::read(reader, &file, surroundings.secrets, now);
    let telemetry = read_telemetry(reader, &file);
    let limits = read_limits(reader, &file);
    let listeners = file.optional("listeners").map(|n| read_listeners(reader, n, surroundings.secrets, now));
    let (api_keys, named) = match file.optional("api_keys") {
        Some(n) => keys::read(reader, n, now),
        None => (ApiKeys::new(), Vec::new()),
    };
    let secrets = Secrets { variable: surroundings.variable, are: surroundings.secrets };
    let drafts = file.optional("surfaces").map(|n| read_surfaces(reader, n, secrets));
    let sinks = file.optional("sinks").map_or_else(Vec::new, |n| sinks::read(reader, n, secrets));
    let (listeners, mut drafts) = (listeners?, drafts?);
    check_surfaces(reader, &drafts);
    // What was read only in part would look as if something were missing: that was told already.
    let listener_count = file.optional("listeners").map_or(0, count);
    let surface_count = file.optional("surfaces").map_or(0, count);
    if listeners.len() == listener_count {
        check_listeners(reader, &drafts, &listeners, drafts.len() == surface_count);
    }
    if drafts.len() == surface_count {
        check_keys(reader, &drafts, &api_keys, &named);
        // With a key that could not be read, a claim would seem to be missing.
        if file.optional("api_keys").map(count) == Some(api_keys.len()) {
            redact::check_claims(reader, &drafts, &api_keys);
        }
    }
    if let Some(ledger) = &ledger {
        redact::check_salts(reader, &drafts, ledger);
    }
    if let (Some(admin), Some(node)) = (&admin, file.optional("admin")) {
        admin::check_api_keys(reader, node.at, &admin.operators, &api_keys);
    }
    let credentials = take_credentials(reader, &mut drafts);
    let api_keys = Arc::new(api_keys);
    Some(Parts {
        log_origin: log_origin?,
        ledger: ledger?,
        policy: policy?,
        admin: admin?,
        telemetry: telemetry?,
        limits: limits?,
        listeners: listeners.into_iter().map(|(_, listener)| listener).collect(),
        surfaces: drafts.into_iter().map(|d| finish(d, &api_keys, surroundings.clock)).collect(),
        api_keys,
        credentials,
        sinks,
    })
}

fn read_ledger(
    reader: &mut Reader<'_>,
    node: &Node,
    log_origin: Option<&LogOrigin>,
    secrets: SecretsAre,
) -> Option<LedgerConfig> {
    let fields = reader.fields(node, &fields::LEDGER)?;
    let dir = fields.optional("dir").and_then(|n| reader.path(n));
    let signing_key = fields.optional("signing_key").and_then(|n| read_signing_key(reader, n, secrets));
    let segment_mib = reader.number(&fields, "segment_mib");
    let salts = match fields.optional("salts") {
        Some(n) => redact::read_salts(reader, n, dir.as_deref()).map(Some),
        None => Some(None),
    };
    let also = fields.optional("also_sign_with");
    let also_sign_with = also.map_or(Some(Vec::new()), |n| read_more_keys(reader, n, secrets));
    let compromised = fields.optional("compromised_keys");
    let compromised_keys = compromised.map_or(Some(Vec::new()), |n| read_vkeys(reader, n, log_origin));
    let (signing_key, also_sign_with) = (signing_key?, also_sign_with?);
    if let (Some(node), true) = (also, also_sign_with.contains(&signing_key)) {
        reader.error(node.at, format!("{} signs already as `signing_key`", signing_key.display()));
    }
    Some(LedgerConfig {
        dir: dir?,
        signing_key,
        segment_bytes: segment_mib? * limits::MIB_BYTES,
        salts: salts?,
        also_sign_with,
        compromised_keys: compromised_keys?,
    })
}

fn read_signing_key(reader: &mut Reader<'_>, node: &Node, secrets: SecretsAre) -> Option<PathBuf> {
    let path = reader.path(node)?;
    if let Err(why) = secret::check_private(&path) {
        secret_problem(reader, node.at, format!("{}: {why}", path.display()), secrets);
    }
    Some(path)
}

fn read_more_keys(reader: &mut Reader<'_>, node: &Node, secrets: SecretsAre) -> Option<Vec<PathBuf>> {
    let items = reader.items(node, "key files")?;
    if items.len() >= limits::NOTE_SIGNATURES_MAX {
        let most = limits::NOTE_SIGNATURES_MAX - 1;
        reader.error(node.at, format!("at most {most} keys, a checkpoint has room for no more"));
    }
    let mut paths = Vec::new();
    for item in items {
        let path = read_signing_key(reader, item, secrets)?;
        if paths.contains(&path) {
            reader.error(item.at, format!("{} appears twice", path.display()));
        }
        paths.push(path);
    }
    Some(paths)
}

fn read_vkeys(
    reader: &mut Reader<'_>,
    node: &Node,
    log_origin: Option<&LogOrigin>,
) -> Option<Vec<VerifierKey>> {
    let texts = reader.texts(node, "verifier keys")?;
    if texts.len() > limits::COMPROMISED_KEYS_MAX {
        reader.error(node.at, format!("more than {} verifier keys", limits::COMPROMISED_KEYS_MAX));
    }
    let mut keys: Vec<VerifierKey> = Vec::new();
    for (at, text) in texts {
        match text.parse::<VerifierKey>() {
            Err(why) => reader.error(at, format!("`{text}` is not a verifier key: {why}")),
            Ok(key) if log_origin.is_some_and(|name| name != key.name()) => {
                reader.error(at, format!("this is a key of the log `{}`", key.name()));
            }
            Ok(key) if keys.contains(&key) => reader.error(at, format!("`{key}` appears twice")),
            Ok(key) => keys.push(key),
        }
    }
    Some(keys)
}

fn secret_problem(reader: &mut Reader<'_>, at: At, message: String, secrets: SecretsAre) {
    match secrets {
        SecretsAre::Needed => reader.error(at, message),
        SecretsAre::Optional => reader.warn(at, message),
    }
}

fn read_policy(reader: &mut Reader<'_>, node: &Node) -> Option<PolicyConfig> {
    let fields = reader.fields(node, &fields::POLICY)?;
    let node = fields.optional("dir")?;
    let dir = reader.path(node)?;
    if !dir.is_dir() {
        reader.error(node.at, format!("{} is not a directory that can be read", dir.display()));
    }
    Some(PolicyConfig { dir })
}

/// A section that may be absent: its defaults then, as if it were there and empty.
pub(super) fn section_or_defaults<'n>(
    reader: &mut Reader<'_>,
    file: &Fields<'n>,
    name: &'static str,
    section: &'static Section,
    empty: &'n Node,
) -> Option<Fields<'n>> {
    debug_assert!(section.fields.iter().all(|f| f.rule != Rule::Required));
    reader.fields(file.optional(name).unwrap_or(empty), section)
}

fn empty_mapping() -> Node {
    Node { at: At::START, value: Value::Mapping(Vec::new()) }
}

fn read_telemetry(reader: &mut Reader<'_>, file: &Fields<'_>) -> Option<TelemetryConfig> {
    let empty = empty_mapping();
    let fields = section_or_defaults(reader, file, "telemetry", &fields::TELEMETRY, &empty)?;
    let formats = [("json", LogFormat::Json), ("human", LogFormat::Human)];
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let (format, level) =
        (reader.choice(&fields, "format", &formats), reader.choice(&fields, "level", &levels));
    Some(TelemetryConfig { format: format?, level: level? })
}

fn read_limits(reader: &mut Reader<'_>, file: &Fields<'_>) -> Option<LimitsConfig> {
    let empty = empty_mapping();
    let fields = section_or_defaults(reader, file, "limits", &fields::LIMITS, &empty)?;
    let mut count = |name| reader.number(&fields, name).and_then(|n| usize::try_from(n).ok());
    let requests_in_flight_max = count("requests_in_flight_max");
    let connections_max = count("connections_max");
    let evaluation_threads = count("evaluation_threads");
    let head_max = reader.milliseconds(&fields, "head_ms_max");
    let body_max = reader.milliseconds(&fields, "body_ms_max");
    let evaluation_max = reader.milliseconds(&fields, "evaluation_ms_max");
    let drain_max = reader.milliseconds(&fields, "drain_ms_max");
    Some(LimitsConfig {
        requests_in_flight_max: requests_in_flight_max?,
        connections_max: connections_max?,
        head_max: head_max?,
        body_max: body_max?,
        evaluation_max: evaluation_max?,
        evaluation_threads: evaluation_threads?,
        drain_max: drain_max?,
    })
}

pub(super) fn parse_address(reader: &mut Reader<'_>, at: At, text: &str) -> Option<SocketAddr> {
    let address = text.parse::<SocketAddr>();
    address
        .map_err(|_| {
            reader.error(
                at,
                format!("expected an IP address and a port, such as `127.0.0.1:8080`, not `{text}`"),
            )
        })
        .ok()
}

fn read_listeners(
    reader: &mut Reader<'_>,
    node: &Node,
    secrets: SecretsAre,
    now: WallTime,
) -> Vec<(At, ListenerConfig)> {
    let items = reader.items(node, "listeners").unwrap_or_default();
    if items.is_empty() {
        reader.error(node.at, "expected at least one listener");
    }
    let mut listeners: Vec<(At, ListenerConfig)> = Vec::new();
    for item in items {
        let Some((at, listener)) = read_listener(reader, item, secrets, now) else { continue };
        for (_, earlier) in &listeners {
            if earlier.name == listener.name {
                reader.error(at, format!("another listener is called `{}`", listener.name));
            }
            if earlier.address == listener.address && listener.address.port() != 0 {
                let (address, name) = (listener.address, &earlier.name);
                reader.error(at, format!("listener `{name}` has the address {address} already"));
            }
        }
        listeners.push((at, listener));
    }
    listeners
}

fn read_listener(
    reader: &mut Reader<'_>,
    node: &Node,
    secrets: SecretsAre,
    now: WallTime,
) -> Option<(At, ListenerConfig)> {
    let fields = reader.fields(node, &fields::LISTENER)?;
    // A listener's name has the form of a surface's.
    let name = fields.optional("name").and_then(|n| {
        let text = reader.text(n, "a name")?;
        let valid = text.parse::<SurfaceName>().map_err(|e| format!("a listener name must be {}", e.rule));
        valid.map_err(|why| reader.error(n.at, why)).ok().map(|_| (n.at, ListenerName(text.into())))
    });
    let address = fields.optional("address").and_then(|n| {
        let text = reader.text(n, "an address")?;
        parse_address(reader, n.at, text)
    });
    let tls = match fields.optional("tls") {
        Some(n) => read_tls(reader, n, secrets, now),
        None => Some(None),
    };
    let (at, name) = name?;
    Some((at, ListenerConfig { name, address: address?, tls: tls? }))
}

/// `Some(None)` only where secrets need not be there and the key is not.
fn read_tls(
    reader: &mut Reader<'_>,
    node: &Node,
    secrets: SecretsAre,
    now: WallTime,
) -> Option<Option<Arc<rustls::ServerConfig>>> {
    let fields = reader.fields(node, &fields::LISTENER_TLS)?;
    read_tls_of(reader, &fields, secrets, now)
}

/// Of a mapping with `certificate` and `key`.
pub(super) fn read_tls_of(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    secrets: SecretsAre,
    now: WallTime,
) -> Option<Option<Arc<rustls::ServerConfig>>> {
    let certificate = fields.optional("certificate").and_then(|n| reader.file(n).map(|f| (n.at, f)));
    let key_node = fields.optional("key")?;
    let key_path = reader.path(key_node)?;
    let key = match secret::read_private(&key_path) {
        Ok(key) => key,
        Err(why) => {
            secret_problem(reader, key_node.at, format!("{}: {why}", key_path.display()), secrets);
            return (secrets == SecretsAre::Optional).then_some(None);
        }
    };
    let (at, (path, pem)) = certificate?;
    match tls::server(&pem, &key, now) {
        Ok((config, warning)) => {
            if let Some(warning) = warning {
                reader.warn(at, format!("{} {warning}", path.display()));
            }
            Some(Some(config))
        }
        Err(tls::InvalidTls::Certificate(why)) => {
            reader.error(at, format!("{} {why}", path.display()));
            None
        }
        Err(tls::InvalidTls::Key(why)) => {
            reader.error(key_node.at, format!("{} {why}", key_path.display()));
            None
        }
    }
}

fn read_surfaces(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>) -> Vec<Draft> {
    let items = reader.items(node, "surfaces").unwrap_or_default();
    if items.is_empty() {
        reader.error(node.at, "expected at least one surface");
    }
    if items.len() > limits::SURFACES_MAX {
        reader.error(node.at, format!("more than {} surfaces", limits::SURFACES_MAX));
        return Vec::new();
    }
    items.iter().filter_map(|item| surface::read(reader, item, secrets)).collect()
}

pub fn count(node: &Node) -> usize {
    match &node.value {
        Value::Sequence(items) => items.len(),
        Value::Scalar { .. } | Value::Mapping(_) => 0,
    }
}

fn check_surfaces(reader: &mut Reader<'_>, drafts: &[Draft]) {
    let mut names = BTreeSet::new();
    for draft in drafts {
        if !names.insert(&draft.name) {
            reader.error(draft.name_at, format!("another surface is called `{}`", draft.name));
        }
    }
}

/// Listeners exist, and every host of one leads to one surface.
fn check_listeners(
    reader: &mut Reader<'_>,
    drafts: &[Draft],
    listeners: &[(At, ListenerConfig)],
    all_surfaces: bool,
) {
    for draft in drafts {
        if !listeners.iter().any(|(_, l)| l.name == draft.listener) {
            let known: Vec<&str> = listeners.iter().map(|(_, l)| l.name.as_str()).collect();
            let hint = super::reader::one_of(&known);
            reader.error(
                draft.listener_at,
                format!("there is no listener `{}`; expected {hint}", draft.listener),
            );
        }
    }
    for (at, listener) in listeners {
        let served: Vec<&Draft> = drafts.iter().filter(|d| d.listener == listener.name).collect();
        if served.is_empty() && all_surfaces {
            reader.warn(*at, format!("no surface uses the listener `{}`", listener.name));
        }
        let mut hosts: BTreeMap<&str, &SurfaceName> = BTreeMap::new();
        for draft in &served {
            if draft.hosts.is_empty() && served.len() > 1 {
                let message = "needs `hosts`, because its listener has another surface";
                reader.error(draft.name_at, format!("surface `{}` {message}", draft.name));
            }
            for (at, host) in &draft.hosts {
                if let Some(other) = hosts.insert(host, &draft.name) {
                    reader.error(
                        *at,
                        format!("surface `{other}` has the host `{host}` on this listener already"),
                    );
                }
            }
        }
        check_overlaps(reader, &served, &hosts);
    }
}

/// `a` fits every port, so `a:8080` on another surface would fit two.
fn check_overlaps(reader: &mut Reader<'_>, served: &[&Draft], hosts: &BTreeMap<&str, &SurfaceName>) {
    for draft in served {
        for (at, host) in &draft.hosts {
            let Some((name, port)) = host.rsplit_once(':') else { continue };
            let other = hosts.get(name).filter(|other| !port.ends_with(']') && ***other != draft.name);
            if let Some(other) = other {
                reader.error(*at, format!("surface `{other}` has `{name}` with every port on this listener"));
            }
        }
    }
}

fn check_keys(reader: &mut Reader<'_>, drafts: &[Draft], keys: &ApiKeys, named: &[(At, SurfaceName)]) {
    for (at, name) in named {
        if !drafts.iter().any(|d| d.name == *name) {
            reader.error(*at, format!("there is no surface `{name}`"));
        }
    }
    if keys.is_empty() {
        for draft in drafts {
            reader.warn(draft.name_at, format!("no API key is declared: `{}` refuses everyone", draft.name));
        }
    }
}

/// Moves the secrets into one map. One name is one secret.
fn take_credentials(reader: &mut Reader<'_>, drafts: &mut [Draft]) -> Credentials {
    let mut sources: BTreeMap<SecretName, Source> = BTreeMap::new();
    let mut credentials = Credentials::new();
    for credential in drafts.iter_mut().filter_map(|d| d.credential.as_mut()) {
        let name = credential.slot.secret.clone();
        match sources.insert(name.clone(), credential.source.clone()) {
            Some(other) if other != credential.source => {
                reader.error(
                    credential.at,
                    format!("another credential is called `{name}` and has another source"),
                );
            }
            Some(_) | None => {}
        }
        if let Some(secret) = credential.secret.take() {
            credentials.insert(name, secret);
        }
    }
    credentials
}

fn finish(draft: Draft, keys: &Arc<ApiKeys>, clock: &Clock) -> SurfaceConfig {
    let api_keys = ApiKeyIdentity {
        keys: keys.clone(),
        surface: draft.name.clone(),
        headers: draft.api_key_headers.clone(),
        clock: clock.clone(),
    };
    SurfaceConfig {
        name: draft.name,
        listener: draft.listener,
        hosts: Hosts::new(draft.hosts.into_iter().map(|(_, host)| host).collect()),
        package: draft.package,
        api_key_headers: draft.api_key_headers,
        identities: Identities::new(vec![Arc::new(api_keys)]),
        permit_age_max: draft.permit_age_max,
        upstream: draft.upstream,
        credential: draft.credential.map(|c| c.slot),
        facts: draft.facts,
        budgets: draft.budgets,
        idempotency: draft.idempotency,
        holds: draft.holds,
        routes: draft.routes,
    }
}
