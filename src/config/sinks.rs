//! `sinks`: where receipts are streamed to.

use std::sync::Arc;

use http::HeaderName;
use http::uri::PathAndQuery;

use super::fields::{self, Section};
use super::reader::{Fields, Reader};
use super::route;
use super::surface::{self, Secrets};
use super::upstream::{self, Url};
use super::yaml::Node;
use crate::limits;
use crate::sinks::{Destination, Settings};
use crate::upstream::{Endpoint, OwnCredential, Roots, Scheme};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stdout,
    Http,
}

/// What only a sink of kind `http` has.
const HTTP_ONLY: [&str; 4] = ["url", "roots", "timeout_ms_max", "credential"];

pub fn read(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>) -> Vec<Settings> {
    let items = reader.items(node, "sinks").unwrap_or_default();
    if items.len() > limits::SINKS_MAX {
        reader.error(node.at, format!("more than {} sinks", limits::SINKS_MAX));
        return Vec::new();
    }
    let mut sinks: Vec<Settings> = Vec::new();
    for item in items {
        let Some(sink) = read_sink(reader, item, secrets) else { continue };
        if sinks.iter().any(|other| other.name == sink.name) {
            reader.error(item.at, format!("another sink is called `{}`", sink.name));
        }
        let is_stdout = |sink: &Settings| matches!(sink.destination, Destination::Stdout);
        if is_stdout(&sink) && sinks.iter().any(is_stdout) {
            reader.error(item.at, "another sink is standard output already");
        }
        sinks.push(sink);
    }
    sinks
}

fn read_sink(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>) -> Option<Settings> {
    let fields = reader.fields(node, &fields::SINK)?;
    let name = fields.optional("name").and_then(|n| reader.name(n));
    let kinds = [("stdout", Kind::Stdout), ("http", Kind::Http)];
    let kind = fields.optional("kind").and_then(|n| reader.one_of(n, &kinds));
    let batch_leaves_max = reader.number(&fields, "batch_leaves_max");
    let destination = match kind? {
        Kind::Stdout => read_stdout(reader, &fields),
        Kind::Http => read_http(reader, &fields, secrets).map(Destination::Http),
    };
    Some(Settings {
        name: name?,
        batch_leaves_max: usize::try_from(batch_leaves_max?).ok()?,
        destination: destination?,
    })
}

fn read_stdout(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Destination> {
    for name in HTTP_ONLY {
        if fields.optional(name).is_some() {
            reader.error(fields.place(name), format!("`{name}` is of no use with the kind `stdout`"));
        }
    }
    Some(Destination::Stdout)
}

fn read_http(reader: &mut Reader<'_>, fields: &Fields<'_>, secrets: Secrets<'_>) -> Option<Endpoint> {
    let url = match fields.optional("url") {
        Some(n) => {
            let text = reader.text(n, "an http or https URL")?;
            let parsed = parse_url(text).map_err(|why| reader.error(n.at, format!("`url` {why}")));
            parsed.ok().map(|url| (n.at, url))
        }
        None => {
            reader.error(fields.at, "a sink of kind `http` needs the field `url`");
            None
        }
    };
    let roots = match fields.optional("roots") {
        Some(n) => upstream::read_roots(reader, n, &fields::SINK_ROOTS),
        None => Some(Roots::WebPki),
    };
    let timeout = reader.milliseconds(fields, "timeout_ms_max");
    let credential = match fields.optional("credential") {
        Some(n) => read_credential(reader, n, &fields::SINK_CREDENTIAL, secrets),
        None => None,
    };
    let (at, (url, target)) = url?;
    let scheme = if url.tls {
        Scheme::Tls(roots?)
    } else {
        if fields.optional("roots").is_some() {
            reader.error(fields.place("roots"), "`roots` is of no use with an http URL");
        }
        if !upstream::is_loopback(&url.host) {
            reader.warn(at, "receipts go to this sink without encryption");
        }
        Scheme::Plain
    };
    let Url { host, port, authority, tls: _ } = url;
    Some(Endpoint { scheme, host, port, authority, target, credential, timeout: timeout? })
}

/// Scheme, host and port as for an upstream, and the path and query.
pub fn parse_url(text: &str) -> Result<(Url, Arc<str>), String> {
    let after_scheme = text.find("://").map_or(0, |at| at + "://".len());
    let (origin, target) = match text[after_scheme..].find('/') {
        Some(at) => text.split_at(after_scheme + at),
        None => (text, "/"),
    };
    let is_plain = target.bytes().all(|b| b.is_ascii_graphic()) && !target.contains(['#', '\\']);
    if !is_plain || target.parse::<PathAndQuery>().is_err() {
        return Err("must have a path and query of visible ASCII, without a fragment".to_owned());
    }
    Ok((upstream::parse_url(origin)?, target.into()))
}

/// `None` if there is a problem, or a secret is missing where it need not be there.
pub fn read_credential(
    reader: &mut Reader<'_>,
    node: &Node,
    section: &'static Section,
    secrets: Secrets<'_>,
) -> Option<OwnCredential> {
    let fields = reader.fields(node, section)?;
    let header = fields.optional("header").and_then(|n| {
        let text = reader.text(n, "a header name")?;
        let name = route::header_name(reader, n.at, text)?;
        HeaderName::from_bytes(name.as_bytes()).ok()
    });
    let prefix = surface::read_prefix(reader, &fields);
    let source = surface::read_source(reader, &fields);
    let secret = source.and_then(|(at, source)| surface::read_secret(reader, at, &source, secrets));
    Some(OwnCredential { header: header?, prefix: prefix?, secret: secret?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_have_a_path_and_a_query() {
        for (text, authority, target) in [
            ("https://logs.example.com/in?source=a%2Fb", "logs.example.com", "/in?source=a%2Fb"),
            ("http://127.0.0.1:9000", "127.0.0.1:9000", "/"),
            ("http://[::1]:9000/", "[::1]:9000", "/"),
        ] {
            let (url, read) = parse_url(text).expect(text);
            assert_eq!((&*url.authority, &*read), (authority, target), "{text}");
        }
        for bad in [
            "logs.example.com/in",
            "ftp://a/in",
            "https://user@a/in",
            "https://a?x=1",
            "https://a/in#x",
            "https://a/i n",
            "https://a/\\in",
            "https:///in",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
