//! The file as a whole: its sections in order, and the checks between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::fields::{self, Rule, Section};
use super::reader::{Fields, Reader};
use super::redact;
use super::reload::{Files, IdentityPart, Part, read_named, read_private_named};
use super::surface::{self, Draft, Secrets, Source};
use super::yaml::{At, Node, Value};
use super::{
    AdminConfig, Config, KeySetFetch, LedgerConfig, LimitsConfig, ListenerConfig, ListenerName, LogFormat,
    PolicyConfig, SecretsAre, SurfaceConfig, Surroundings, TelemetryConfig, Warnings, admin, keys, policy,
    secret, sinks, tls, yaml,
};
use crate::authority::{ApiKeyIdentity, ApiKeys, Credentials, Identities, SharedApiKeys, Taken, TrustDomain};
use crate::clock::{Clock, WallTime};
use crate::ingress::SharedTls;
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
    api_keys: SharedApiKeys,
    identity_parts: Vec<IdentityPart>,
    key_sets: Vec<KeySetFetch>,
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
            identity_parts: self.identity_parts,
            key_sets: self.key_sets,
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
    let policy = file.optional("policy").and_then(|n| policy::read(reader, n, surroundings.secrets));
    let mut admin = admin::read(reader, &file, surroundings);
    let telemetry = read_telemetry(reader, &file);
    let limits = read_limits(reader, &file);
    let mut parts = Vec::new();
    let listeners = file.optional("listeners").map(|n| read_listeners(reader, n, surroundings, &mut parts));
    let ReadKeys { keys: api_keys, named, file: key_file, is_whole: keys_are_whole } =
        file.optional("api_keys").map_or_else(ReadKeys::default, |n| read_api_keys(reader, n, now));
    let secrets = Secrets { variable: surroundings.variable, are: surroundings.secrets };
    let drafts = file.optional("surfaces").map(|n| read_surfaces(reader, n, secrets, surroundings.clock));
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
        if file.optional("api_keys").is_some() && keys_are_whole {
            redact::check_claims(reader, &drafts, &api_keys);
        }
    }
    if let Some(ledger) = &ledger {
        redact::check_salts(reader, &drafts, ledger);
    }
    let taking = |draft: &Draft| Some((draft.name.clone(), draft.identity.mtls.as_ref()?.1.clone()));
    let workloads: admin::Workloads = drafts.iter().filter_map(taking).collect();
    if let Some(admin) = &mut admin {
        admin.config.agents = workloads.iter().map(|(_, agents)| agents.clone()).collect();
    }
    if let (Some(admin), Some(node)) = (&admin, file.optional("admin")) {
        let operators = admin.config.operators.load();
        admin::check_api_keys(reader, node.at, &operators, &api_keys);
        admin::check_workloads(reader, node.at, &operators, &workloads);
    }
    let credentials = take_credentials(reader, &mut drafts);
    let api_keys: SharedApiKeys = Arc::new(ArcSwap::from_pointee(api_keys));
    if let Some((path, files)) = key_file {
        let surfaces = drafts.iter().map(|d| d.name.clone()).collect();
        let operators = admin.as_ref().map(|admin| admin.config.operators.clone());
        let part = Part::ApiKeys {
            path,
            slot: api_keys.clone(),
            surfaces,
            operators: operators.unwrap_or_default(),
        };
        parts.push(IdentityPart::new(part, &files));
    }
    parts.extend(drafts.iter_mut().filter_map(|d| d.identity.files.take()));
    if let Some(admin) = &mut admin {
        parts.extend(admin.parts(&api_keys, &workloads));
    }
    let key_sets = drafts.iter_mut().filter_map(|d| d.identity.fetch.take()).collect();
    Some(Parts {
        log_origin: log_origin?,
        ledger: ledger?,
        policy: policy?,
        admin: admin?.config,
        telemetry: telemetry?,
        limits: limits?,
        listeners: listeners.into_iter().map(|(_, listener)| listener).collect(),
        surfaces: drafts.into_iter().map(|d| finish(d, &api_keys, surroundings.clock)).collect(),
        api_keys,
        identity_parts: parts,
        key_sets,
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
    let heartbeat_s = reader.number(&fields, "heartbeat_s");
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
        heartbeat: heartbeat_s.map(|s| (s > 0).then(|| Duration::from_secs(s)))?,
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

pub fn secret_problem(reader: &mut Reader<'_>, at: At, message: String, secrets: SecretsAre) {
    match secrets {
        SecretsAre::Needed => reader.error(at, message),
        SecretsAre::Optional => reader.warn(at, message),
    }
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
    let connection_age_max = reader.milliseconds(&fields, "connection_age_ms_max");
    let drain_max = reader.milliseconds(&fields, "drain_ms_max");
    Some(LimitsConfig {
        requests_in_flight_max: requests_in_flight_max?,
        connections_max: connections_max?,
        head_max: head_max?,
        body_max: body_max?,
        evaluation_max: evaluation_max?,
        evaluation_threads: evaluation_threads?,
        connection_age_max: connection_age_max?,
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
    surroundings: Surroundings<'_>,
    parts: &mut Vec<IdentityPart>,
) -> Vec<(At, ListenerConfig)> {
    let items = reader.items(node, "listeners").unwrap_or_default();
    if items.is_empty() {
        reader.error(node.at, "expected at least one listener");
    }
    let mut listeners: Vec<(At, ListenerConfig)> = Vec::new();
    for item in items {
        let Some((at, listener)) = read_listener(reader, item, surroundings, parts) else { continue };
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
    surroundings: Surroundings<'_>,
    parts: &mut Vec<IdentityPart>,
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
        Some(n) => read_tls(reader, n, tls::Serves::Agents, surroundings),
        None => Some(None),
    };
    let (at, name) = name?;
    let tls = tls?.map(|(paths, files, slot)| {
        let part = Part::Tls { listener: name.clone(), paths, slot: slot.clone() };
        parts.push(IdentityPart::new(part, &files));
        slot
    });
    let asks_clients = fields.optional("tls").is_some_and(|n| has_field(n, "client_roots"));
    Some((at, ListenerConfig { name, address: address?, tls, asks_clients }))
}

/// Also where the section could not be read whole.
pub(super) fn has_field(node: &Node, name: &str) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries.iter().any(|(key, _)| key.name == name),
        Value::Scalar { .. } | Value::Sequence(_) => false,
    }
}

pub(super) type ReadTls = (tls::Paths, Files, SharedTls);

/// `Some(None)` only where secrets need not be there and the key is not.
#[expect(clippy::option_option, reason = "a problem and a secret that need not be there are different")]
pub(super) fn read_tls(
    reader: &mut Reader<'_>,
    node: &Node,
    serves: tls::Serves,
    surroundings: Surroundings<'_>,
) -> Option<Option<ReadTls>> {
    let section = match serves {
        tls::Serves::Agents => &fields::LISTENER_TLS,
        tls::Serves::Operators => &fields::ADMIN_TLS,
    };
    let fields = reader.fields(node, section)?;
    let client = read_client_paths(reader, &fields, serves);
    let (certificate, key) = (fields.optional("certificate"), fields.optional("key")?);
    let certificate = certificate.and_then(|n| reader.path(n).map(|path| (n.at, path)));
    let key_path = reader.path(key)?;
    if let Err(why) = read_private_named(&key_path) {
        secret_problem(reader, key.at, why, surroundings.secrets);
        return (surroundings.secrets == SecretsAre::Optional).then_some(None);
    }
    let (client, (certificate_at, certificate)) = (client?, certificate?);
    let mut places = vec![certificate_at, key.at];
    let client = client.map(|(at, paths)| {
        places.extend(at);
        paths
    });
    let paths = tls::Paths { serves, certificate, key: key_path, client };
    for (at, path) in places.iter().zip(paths.all()).filter(|(at, _)| **at != key.at) {
        if let Err(why) = read_named(path) {
            reader.error(*at, why);
            return None;
        }
    }
    // Read once more, all together, so that what is in force and what is compared with later are the same bytes.
    let files = paths.read().map_err(|why| reader.error(node.at, why)).ok()?;
    let place = |at: usize| places.get(at).copied().unwrap_or(node.at);
    let say = |(at, why): &tls::AtFault| match paths.all().nth(*at) {
        Some(path) => format!("{} {why}", path.display()),
        None => why.clone(),
    };
    match paths.build(&files, surroundings.clock) {
        Ok((tls, warnings)) => {
            warnings.iter().for_each(|warning| reader.warn(place(warning.0), say(warning)));
            let slot = Arc::new(ArcSwap::from_pointee(tls));
            Some(Some((paths, Files::of(files), slot)))
        }
        Err(fault) => {
            reader.error(place(fault.0), say(&fault));
            None
        }
    }
}

/// Whom client certificates must come from, with the places of the roots and of each list. Outer `None`: a problem.
#[expect(clippy::option_option, reason = "a problem and a field that is not there are different")]
fn read_client_paths(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    serves: tls::Serves,
) -> Option<Option<(Vec<At>, tls::ClientPaths)>> {
    let choices = [("required", tls::ClientsAre::Required), ("optional", tls::ClientsAre::Optional)];
    let are = match serves {
        tls::Serves::Agents => reader.choice(fields, "client_certificates", &choices)?,
        // An operator without a certificate may prove itself by a token.
        tls::Serves::Operators => tls::ClientsAre::Optional,
    };
    let Some(roots) = fields.optional("client_roots") else {
        for name in ["crls", "client_certificates"] {
            if fields.optional(name).is_some() {
                reader.error(fields.place(name), format!("`{name}` needs `client_roots`"));
            }
        }
        return Some(None);
    };
    let mut places = vec![roots.at];
    let roots = reader.path(roots)?;
    let mut crls = Vec::new();
    if let Some(node) = fields.optional("crls") {
        let items = reader.items(node, "files")?;
        if items.len() > limits::CRL_FILES_MAX {
            reader.error(node.at, format!("more than {} files", limits::CRL_FILES_MAX));
        }
        for item in items {
            crls.push(reader.path(item)?);
            places.push(item.at);
        }
    }
    Some(Some((places, tls::ClientPaths { roots, crls, are })))
}

/// API keys as read, here or from a file of their own.
#[derive(Default)]
struct ReadKeys {
    keys: ApiKeys,
    named: Vec<(At, SurfaceName)>,
    file: Option<(PathBuf, Files)>,
    /// Every key that is declared could be read.
    is_whole: bool,
}

fn read_api_keys(reader: &mut Reader<'_>, node: &Node, now: WallTime) -> ReadKeys {
    let Value::Mapping(_) = &node.value else {
        let (keys, named) = keys::read(reader, node, now);
        let is_whole = count(node) == keys.len();
        return ReadKeys { keys, named, file: None, is_whole };
    };
    let read = reader.fields(node, &fields::API_KEYS).and_then(|f| f.optional("file"));
    let Some((at, (path, bytes))) = read.and_then(|n| Some((n.at, reader.file(n)?))) else {
        return ReadKeys::default();
    };
    // Problems of the other file are told at the place that names it, with their own places in front.
    let there = |place: At, why: &str| format!("{}:{}:{}: {why}", path.display(), place.line, place.column);
    let Ok(text) = std::str::from_utf8(&bytes) else {
        reader.error(at, format!("{} is not UTF-8", path.display()));
        return ReadKeys::default();
    };
    let tree = match yaml::parse(text) {
        Ok(tree) => tree,
        Err(e) => {
            reader.error(at, there(e.at, &e.message));
            return ReadKeys::default();
        }
    };
    let mut inner = Reader::new(path.parent().unwrap_or(Path::new("")));
    let (keys, named) = keys::read(&mut inner, &tree, now);
    inner.problems.iter().for_each(|p| reader.error(at, there(p.at, &p.message)));
    inner.warnings.iter().for_each(|p| reader.warn(at, there(p.at, &p.message)));
    let is_whole = count(&tree) == keys.len();
    let named = named.into_iter().map(|(_, surface)| (at, surface)).collect();
    let files = Files::of(vec![bytes.into()]);
    ReadKeys { keys, named, file: Some((path, files)), is_whole }
}

fn read_surfaces(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>, clock: &Clock) -> Vec<Draft> {
    let items = reader.items(node, "surfaces").unwrap_or_default();
    if items.is_empty() {
        reader.error(node.at, "expected at least one surface");
    }
    if items.len() > limits::SURFACES_MAX {
        reader.error(node.at, format!("more than {} surfaces", limits::SURFACES_MAX));
        return Vec::new();
    }
    items.iter().filter_map(|item| surface::read(reader, item, secrets, clock)).collect()
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
        if let Some((at, _)) = &draft.identity.mtls
            && listeners.iter().any(|(_, l)| l.name == draft.listener && !l.asks_clients)
        {
            let listener = &draft.listener;
            reader.error(
                *at,
                format!(
                    "the listener `{listener}` asks for no certificates: it needs `tls` with `client_roots`"
                ),
            );
        }
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
        check_trust_domains(reader, &served);
    }
}

/// All roots of a listener vouch for all names: with two trust domains behind it, the authority of one could name
/// members of the other (SPIFFE: a bundle belongs to one trust domain).
fn check_trust_domains(reader: &mut Reader<'_>, served: &[&Draft]) {
    let mut first: Option<&str> = None;
    for (at, mtls) in served.iter().filter_map(|draft| draft.identity.mtls.as_ref()) {
        for domain in mtls.trust_domains.iter().map(TrustDomain::as_str) {
            let known = *first.get_or_insert(domain);
            if known != domain {
                let why =
                    "a listener's `client_roots` vouch for one trust domain: give each a listener of its own";
                reader.error(*at, format!("`{known}` and `{domain}` behind one listener; {why}"));
                return;
            }
        }
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
        for draft in drafts.iter().filter(|d| d.identity.mtls.is_none() && d.identity.jwt.is_none()) {
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

fn finish(draft: Draft, keys: &SharedApiKeys, clock: &Clock) -> SurfaceConfig {
    let headers = draft.identity.api_key_headers;
    let api_key = headers.as_ref().map(|headers| ApiKeyIdentity {
        keys: keys.clone(),
        surface: draft.name.clone(),
        headers: headers.clone(),
        clock: clock.clone(),
    });
    let taken = Taken {
        mtls: draft.identity.mtls.map(|(_, mtls)| mtls),
        jwt: draft.identity.jwt,
        api_key,
        require: draft.identity.require,
        clock: clock.clone(),
    };
    SurfaceConfig {
        name: draft.name,
        listener: draft.listener,
        hosts: Hosts::new(draft.hosts.into_iter().map(|(_, host)| host).collect()),
        package: draft.package,
        api_key_headers: headers.unwrap_or_default(),
        identities: Identities::new(taken),
        permit_age_max: draft.permit_age_max,
        upstream: draft.upstream,
        credential: draft.credential.map(|c| c.slot),
        facts: draft.facts,
        budgets: draft.budgets,
        idempotency: draft.idempotency,
        holds: draft.holds,
        status_lookup: draft.status_lookup,
        routes: draft.routes,
    }
}
