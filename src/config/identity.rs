//! `surfaces[].identity`: which credentials a surface takes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::fields;
use super::reader::{Fields, Reader};
use super::reload::{Files, IdentityPart, Part};
use super::yaml::{At, Node};
use super::{route, sinks, upstream};
use crate::authority::{Algorithm, JwtIdentity, KeySet, KeySource, MtlsIdentity, PathPattern, Require};
use crate::clock::Clock;
use crate::limits;
use crate::upstream::{Endpoint, Roots, Scheme};

/// What a surface takes, before it is known which API keys there are.
pub struct IdentityDraft {
    pub api_key_headers: Option<Vec<HeaderName>>,
    /// Where it stands, for the check that the listener asks for certificates.
    pub mtls: Option<(At, MtlsIdentity)>,
    pub jwt: Option<JwtIdentity>,
    pub require: Require,
    /// The file of a key set, to be read again.
    pub files: Option<IdentityPart>,
    /// The address of a key set, to be fetched.
    pub fetch: Option<KeySetFetch>,
}

/// A key set that is fetched while the gateway runs.
#[derive(Debug)]
pub struct KeySetFetch {
    pub endpoint: Endpoint,
    pub algorithms: Vec<Algorithm>,
    pub source: Arc<KeySource>,
    /// Between two fetches when nobody asks for one.
    pub refresh: Duration,
    /// Between two fetches at least.
    pub refetch_min: Duration,
}

impl IdentityDraft {
    /// Headers that identity reads, and that are never forwarded.
    pub fn headers(&self) -> BTreeSet<Arc<str>> {
        let token = self.jwt.as_ref().map(|_| AUTHORIZATION);
        let keys = self.api_key_headers.iter().flatten().cloned();
        keys.chain(token).map(|name| name.as_str().into()).collect()
    }
}

pub fn read(reader: &mut Reader<'_>, node: &Node, clock: &Clock) -> Option<IdentityDraft> {
    let fields = reader.fields(node, &fields::IDENTITY)?;
    let api_key =
        fields.optional("api_key").map(|n| read_api_key(reader, n, fields.optional("jwt").is_some()));
    let mtls = fields.optional("mtls").map(|n| (n.at, read_mtls(reader, n)));
    let jwt = fields.optional("jwt").map(|n| read_jwt(reader, n, clock));
    let require_both = reader.flag(&fields, "require_both")?;
    if api_key.is_none() && mtls.is_none() && jwt.is_none() {
        reader.error(node.at, "`identity` needs one of `mtls`, `jwt` and `api_key`");
    }
    let is_pair = mtls.is_some() && jwt.is_some() && api_key.is_none();
    if require_both && !is_pair {
        let why = "`require_both` asks for a certificate and a token bound to it: declare `mtls` and `jwt`, and no `api_key`";
        reader.error(fields.place("require_both"), why);
    }
    let require = if require_both { Require::CertificateAndToken } else { Require::One };
    // Inner `None`s have reported why.
    let (mtls, jwt) = (flatten(mtls.map(|(at, mtls)| mtls.map(|m| (at, m))))?, flatten(jwt)?);
    let (jwt, files, fetch) = match jwt {
        None => (None, None, None),
        Some((jwt, Keys::File(part))) => (Some(jwt), Some(*part), None),
        Some((jwt, Keys::Url(fetch))) => (Some(jwt), None, Some(*fetch)),
    };
    Some(IdentityDraft { api_key_headers: flatten(api_key)?, mtls, jwt, require, files, fetch })
}

/// `None`: declared, and wrong. `Some(None)`: not declared.
#[expect(clippy::option_option, reason = "absent and wrong are different, and both are ordinary here")]
fn flatten<T>(declared: Option<Option<T>>) -> Option<Option<T>> {
    match declared {
        None => Some(None),
        Some(None) => None,
        Some(Some(read)) => Some(Some(read)),
    }
}

fn read_api_key(reader: &mut Reader<'_>, node: &Node, has_tokens: bool) -> Option<Vec<HeaderName>> {
    let fields = reader.fields(node, &fields::IDENTITY_API_KEY)?;
    let mut headers: Vec<HeaderName> = Vec::new();
    match fields.optional("headers") {
        None => headers.extend([AUTHORIZATION, HeaderName::from_static("x-api-key")]),
        Some(node) => {
            let texts = reader.texts(node, "header names")?;
            if texts.is_empty() {
                reader.error(node.at, "expected at least one header to read API keys from");
            }
            for (at, text) in texts {
                let Some(name) = route::header_name(reader, at, text) else { continue };
                let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
                if headers.contains(&name) {
                    reader.error(at, format!("`{name}` appears twice"));
                } else {
                    headers.push(name);
                }
            }
        }
    }
    if has_tokens && headers.contains(&AUTHORIZATION) {
        let why = "with `jwt`, `authorization` holds the token: declare other `headers` for API keys";
        reader.error(fields.optional("headers").map_or(node.at, |n| n.at), why);
        return None;
    }
    Some(headers)
}

fn read_mtls(reader: &mut Reader<'_>, node: &Node) -> Option<MtlsIdentity> {
    let fields = reader.fields(node, &fields::IDENTITY_MTLS)?;
    let most = limits::TRUST_DOMAINS_MAX;
    let trust_domains =
        fields.optional("trust_domains").and_then(|n| parsed_list(reader, n, "trust domains", most));
    let paths = match fields.optional("paths") {
        Some(n) => parsed_list(reader, n, "path patterns", limits::SPIFFE_PATTERNS_MAX),
        None => Some(vec![PathPattern::any()]),
    };
    Some(MtlsIdentity { trust_domains: trust_domains?, paths: paths? })
}

/// At least one, each as its own parser wants it.
fn parsed_list<T>(reader: &mut Reader<'_>, node: &Node, what: &str, most: usize) -> Option<Vec<T>>
where
    T: FromStr + PartialEq,
    T::Err: std::fmt::Display,
{
    let texts = reader.texts(node, what)?;
    if texts.is_empty() || texts.len() > most {
        reader.error(node.at, format!("expected 1 to {most} {what}, not {}", texts.len()));
        return None;
    }
    let mut list = Vec::new();
    for (at, text) in texts {
        match text.parse::<T>() {
            Err(why) => reader.error(at, format!("`{text}`: {why}")),
            Ok(item) if list.contains(&item) => reader.error(at, format!("`{text}` appears twice")),
            Ok(item) => list.push(item),
        }
    }
    Some(list)
}

enum Keys {
    File(Box<IdentityPart>),
    Url(Box<KeySetFetch>),
}

fn read_jwt(reader: &mut Reader<'_>, node: &Node, clock: &Clock) -> Option<(JwtIdentity, Keys)> {
    let fields = reader.fields(node, &fields::IDENTITY_JWT)?;
    let issuer = fields.optional("issuer").and_then(|n| {
        let text = reader.text(n, "an issuer")?;
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            reader.error(n.at, "an issuer has visible ASCII without `#`, which stands before the subject");
        }
        Some(Arc::<str>::from(text))
    });
    let audiences = fields.optional("audiences").and_then(|n| {
        let most = limits::TOKEN_AUDIENCES_MAX;
        let texts = reader.texts(n, "audiences")?;
        if texts.is_empty() || texts.len() > most {
            reader.error(n.at, format!("expected 1 to {most} audiences, not {}", texts.len()));
        }
        Some(texts.into_iter().map(|(_, text)| Arc::<str>::from(text)).collect::<Vec<_>>())
    });
    let only_our_audiences = reader.flag(&fields, "only_our_audiences");
    let algorithms = fields.optional("algorithms").and_then(|n| read_algorithms(reader, n));
    let types = match fields.optional("types") {
        Some(n) => read_types(reader, n),
        None => Some(vec!["at+jwt".into()]),
    };
    let leeway_seconds = reader.number(&fields, "leeway_seconds");
    let age_seconds_max = match fields.optional("age_seconds_max") {
        Some(n) => read_age(reader, n).map(Some),
        None => Some(None),
    };
    let algorithms = algorithms?;
    let keys = fields.optional("keys").and_then(|n| read_keys(reader, n, &algorithms, clock));
    let (source, keys) = keys?;
    let jwt = JwtIdentity {
        issuer: issuer?,
        audiences: audiences?,
        only_our_audiences: only_our_audiences?,
        algorithms,
        types: types?,
        leeway_seconds: leeway_seconds?,
        age_seconds_max: age_seconds_max?,
        keys: source,
        clock: clock.clone(),
    };
    Some((jwt, keys))
}

fn read_age(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let most = limits::TOKEN_AGE_SECONDS_MAX_HARD;
    let expected = format!("a whole number from 1 to {most}");
    let text = reader.text(node, &expected)?;
    let parsed = text.parse::<u64>().ok().filter(|n| (1..=most).contains(n) && n.to_string() == text);
    if parsed.is_none() {
        reader.error(node.at, format!("`age_seconds_max` must be {expected}, not `{text}`"));
    }
    parsed
}

fn read_algorithms(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Algorithm>> {
    let items = reader.items(node, "algorithms")?;
    if items.is_empty() {
        reader.error(node.at, "expected at least one algorithm");
        return None;
    }
    let mut algorithms = Vec::new();
    for item in items {
        let algorithm = reader.one_of(item, &Algorithm::ALL)?;
        if algorithms.contains(&algorithm) {
            reader.error(item.at, "this algorithm appears twice");
        }
        algorithms.push(algorithm);
    }
    Some(algorithms)
}

fn read_types(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Arc<str>>> {
    let texts = reader.texts(node, "token types")?;
    if texts.is_empty() {
        reader.error(node.at, "expected at least one token type");
    }
    let lowercase = texts.into_iter().map(|(_, text)| text.to_ascii_lowercase());
    Some(lowercase.map(|t| t.strip_prefix("application/").unwrap_or(&t).into()).collect())
}

fn read_keys(
    reader: &mut Reader<'_>,
    node: &Node,
    algorithms: &[Algorithm],
    clock: &Clock,
) -> Option<(Arc<KeySource>, Keys)> {
    let fields = reader.fields(node, &fields::IDENTITY_JWT_KEYS)?;
    match (fields.optional("file"), fields.optional("url")) {
        (Some(file), None) => {
            for name in
                ["roots", "timeout_ms_max", "refresh_seconds", "refetch_seconds_min", "stale_seconds_max"]
            {
                if fields.optional(name).is_some() {
                    reader.error(fields.place(name), format!("`{name}` is of no use with a file"));
                }
            }
            read_key_file(reader, file, algorithms, clock)
        }
        (None, Some(url)) => read_key_url(reader, &fields, url, algorithms, clock),
        (Some(_), Some(_)) | (None, None) => {
            reader.error(node.at, "`keys` needs either `file` or `url`");
            None
        }
    }
}

fn read_key_file(
    reader: &mut Reader<'_>,
    node: &Node,
    algorithms: &[Algorithm],
    clock: &Clock,
) -> Option<(Arc<KeySource>, Keys)> {
    let (path, bytes): (PathBuf, Vec<u8>) = reader.file(node)?;
    match KeySet::parse(&bytes, algorithms) {
        Ok(keys) => {
            let source = Arc::new(KeySource::new(None, clock.clone()));
            source.put(keys);
            let part = Part::KeySet { path, algorithms: algorithms.to_vec(), source: source.clone() };
            let part = IdentityPart::new(part, &Files::of(vec![bytes.into()]));
            Some((source, Keys::File(Box::new(part))))
        }
        Err(why) => {
            reader.error(node.at, format!("{} {why}", path.display()));
            None
        }
    }
}

fn read_key_url(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    node: &Node,
    algorithms: &[Algorithm],
    clock: &Clock,
) -> Option<(Arc<KeySource>, Keys)> {
    let text = reader.text(node, "an http or https URL")?;
    let url = sinks::parse_url(text).map_err(|why| reader.error(node.at, format!("`url` {why}"))).ok();
    let roots = match fields.optional("roots") {
        Some(n) => upstream::read_roots(reader, n, &fields::IDENTITY_JWT_ROOTS),
        None => Some(Roots::WebPki),
    };
    let timeout = reader.milliseconds(fields, "timeout_ms_max");
    let refresh = reader.number(fields, "refresh_seconds").map(Duration::from_secs);
    let refetch_min = reader.number(fields, "refetch_seconds_min").map(Duration::from_secs);
    let stale_after = reader.number(fields, "stale_seconds_max").map(Duration::from_secs);
    let (url, target) = url?;
    let (refresh, refetch_min, stale_after) = (refresh?, refetch_min?, stale_after?);
    if stale_after <= refresh || refresh < refetch_min {
        let why =
            "`refetch_seconds_min` is at most `refresh_seconds`, and that is less than `stale_seconds_max`";
        reader.error(fields.at, why);
    }
    let scheme = match url.tls {
        true => Scheme::Tls(roots?),
        false if upstream::is_loopback(&url.host) => {
            if fields.optional("roots").is_some() {
                reader.error(fields.place("roots"), "`roots` is of no use with an http URL");
            }
            Scheme::Plain
        }
        false => {
            let why = "keys that decide who asks must come by https, unless they come from this machine";
            reader.error(node.at, why);
            return None;
        }
    };
    let endpoint = Endpoint {
        scheme,
        host: url.host,
        port: url.port,
        authority: url.authority,
        target,
        credential: None,
        timeout: timeout?,
    };
    let source = Arc::new(KeySource::new(Some(stale_after), clock.clone()));
    let algorithms = algorithms.to_vec();
    let fetch = KeySetFetch { endpoint, algorithms, source: source.clone(), refresh, refetch_min };
    Some((source, Keys::Url(Box::new(fetch))))
}
