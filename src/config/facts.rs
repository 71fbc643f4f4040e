//! `facts`: named values from outside the request, from a file or an HTTP endpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fields;
use super::reader::{Fields, Reader};
use super::redact;
use super::surface::Secrets;
use super::yaml::{self, At, Node, Value};
use super::{sinks, upstream};
use crate::authority::{FactSource, FactSpec, FileSource, Parse, parse_json};
use crate::canonical::json;
use crate::limits;
use crate::model::{FactName, Json, Object, Pointer};
use crate::upstream::{Endpoint, HttpSource, InvalidRoots, Roots, Scheme};

/// One fact of a surface.
#[derive(Clone, Debug)]
pub struct FactConfig {
    pub name: FactName,
    pub from: FactFrom,
    pub max_age: Duration,
    pub timeout: Duration,
    /// Of the document, and of the value in its RFC 8785 form.
    pub bytes_max: usize,
}

#[derive(Clone, Debug)]
pub enum FactFrom {
    File { path: PathBuf, form: Form },
    Url(Arc<Endpoint>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
}

impl FactConfig {
    /// The source, ready to be read. Fails if its roots cannot be used.
    pub fn spec(&self) -> Result<FactSpec, InvalidRoots> {
        let ahead = self.max_age / limits::FACT_REFRESH_PARTS;
        let (source, parse, refresh_every): (Box<dyn FactSource>, Parse, _) = match &self.from {
            FactFrom::File { path, form } => {
                let source = FileSource::new(path.clone(), self.bytes_max, self.timeout);
                let poll = Duration::from_millis(limits::FACT_FILE_POLL_MS);
                (Box::new(source), form.parse(), ahead.min(poll))
            }
            FactFrom::Url(endpoint) => {
                (Box::new(HttpSource::new(endpoint.clone(), self.bytes_max)?), parse_json, ahead)
            }
        };
        let (name, bytes_max, max_age) = (self.name.clone(), self.bytes_max, self.max_age);
        Ok(FactSpec { name, source, parse, bytes_max, max_age, refresh_every })
    }
}

impl Form {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    fn parse(self) -> Parse {
        match self {
            Self::Json => parse_json,
            Self::Yaml => parse_yaml,
        }
    }
}

/// `None` after a problem, or where one secret is missing that need not be there.
pub fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    redacted: &[redact::Declared],
    secrets: Secrets<'_>,
) -> Option<Vec<FactConfig>> {
    let items = reader.items(node, "facts")?;
    if items.len() > limits::FACTS_MAX {
        reader.error(node.at, format!("more than {} facts", limits::FACTS_MAX));
        return None;
    }
    let mut facts: Vec<FactConfig> = Vec::new();
    for item in items {
        let Some(fact) = read_fact(reader, item, secrets) else { continue };
        if facts.iter().any(|other| other.name == fact.name) {
            reader.error(item.at, format!("another fact of this surface is called `{}`", fact.name));
        }
        check_redaction(reader, &fact.name, redacted);
        facts.push(fact);
    }
    let bytes: u64 = facts.iter().map(|fact| fact.bytes_max as u64).sum();
    if bytes > limits::FACTS_BYTES_MAX {
        let most = limits::FACTS_BYTES_MAX;
        reader.error(node.at, format!("the `bytes_max` of all facts are {bytes} together, more than {most}"));
    }
    Some(facts)
}

fn read_fact(reader: &mut Reader<'_>, node: &Node, secrets: Secrets<'_>) -> Option<FactConfig> {
    let fields = reader.fields(node, &fields::FACT)?;
    let name = fields.optional("name").and_then(|n| reader.name(n));
    let max_age = reader.milliseconds(&fields, "max_age_ms");
    let timeout = reader.milliseconds(&fields, "timeout_ms");
    let bytes_max = reader.number(&fields, "bytes_max").and_then(|n| usize::try_from(n).ok());
    if let (Some(max_age), Some(timeout)) = (max_age, timeout)
        && timeout * limits::FACT_REFRESH_PARTS > max_age
    {
        let at = fields.optional("timeout_ms").map_or(fields.place("max_age_ms"), |n| n.at);
        let (timeout, max_age) = (timeout.as_millis(), max_age.as_millis());
        reader.error(
            at,
            format!(
                "a read may take `timeout_ms` ({timeout}) and begins after half of `max_age_ms` ({max_age}): \
                 the value would be too old before it ends"
            ),
        );
    }
    let from = match (fields.optional("file"), fields.optional("url")) {
        (Some(file), None) => read_file(reader, &fields, file, bytes_max),
        (None, Some(url)) => read_url(reader, &fields, url, secrets, timeout).map(FactFrom::Url),
        (Some(_), Some(url)) => {
            reader.error(url.at, "a fact has one source: `file` or `url`, not both");
            None
        }
        (None, None) => {
            reader.error(fields.at, "a fact needs the field `file` or `url`");
            None
        }
    };
    Some(FactConfig { name: name?, from: from?, max_age: max_age?, timeout: timeout?, bytes_max: bytes_max? })
}

/// What only a fact with a `url` has.
const URL_ONLY: [&str; 2] = ["roots", "credential"];

fn read_file(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    node: &Node,
    bytes_max: Option<usize>,
) -> Option<FactFrom> {
    for name in URL_ONLY {
        if fields.optional(name).is_some() {
            reader.error(fields.place(name), format!("`{name}` is of no use with a file"));
        }
    }
    let path = reader.path(node)?;
    let Some(form) = Form::of(&path) else {
        reader.error(node.at, "the name of a fact's file must end in `.json`, `.yaml` or `.yml`");
        return None;
    };
    // It may come later, and may be another when it is used: what is wrong with it now is no error of this file.
    let document = super::reader::read_bounded(&path);
    let too_large = |bytes: &Vec<u8>| bytes_max.is_some_and(|most| bytes.len() > most);
    let wrong = match document {
        Ok(bytes) if too_large(&bytes) => Some("has more than `bytes_max` bytes".to_owned()),
        Ok(bytes) => form.parse()(&bytes).err().map(|why| format!("is not accepted: {why}")),
        Err(why) => Some(why),
    };
    if let Some(wrong) = wrong {
        let path = path.display();
        reader.warn(
            node.at,
            format!("{path}: {wrong}; until it can be read, this surface refuses every request"),
        );
    }
    Some(FactFrom::File { path, form })
}

fn read_url(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    node: &Node,
    secrets: Secrets<'_>,
    timeout: Option<Duration>,
) -> Option<Arc<Endpoint>> {
    let text = reader.text(node, "an http or https URL")?;
    let url = sinks::parse_url(text).map_err(|why| reader.error(node.at, format!("`url` {why}"))).ok();
    let roots = match fields.optional("roots") {
        Some(n) => upstream::read_roots(reader, n, &fields::FACT_ROOTS),
        None => Some(Roots::WebPki),
    };
    let credential = match fields.optional("credential") {
        Some(n) => sinks::read_credential(reader, n, &fields::FACT_CREDENTIAL, secrets),
        None => None,
    };
    let (url, target) = url?;
    let scheme = if url.tls {
        Scheme::Tls(roots?)
    } else {
        if fields.optional("roots").is_some() {
            reader.error(fields.place("roots"), "`roots` is of no use with an http URL");
        }
        if !upstream::is_loopback(&url.host) {
            reader.warn(node.at, "whoever is between here and this server can change the fact: use https");
        }
        Scheme::Plain
    };
    let upstream::Url { host, port, authority, tls: _ } = url;
    Some(Arc::new(Endpoint { scheme, host, port, authority, target, credential, timeout: timeout? }))
}

/// The digest of a fact stands in each receipt, and a digest of few possible values is the value.
fn check_redaction(reader: &mut Reader<'_>, name: &FactName, redacted: &[redact::Declared]) {
    let place = format!("/context/facts/{name}");
    let fact: Pointer =
        place.parse().expect("a fact's name needs no escaping, and `/context` may be redacted");
    for (at, pointer) in redacted {
        if pointer.overlaps(&fact) {
            reader.error(*at, format!("the digest of the fact `{name}` stands in every receipt: `{place}` cannot be kept out of the log"));
        }
    }
}

/// YAML as far as it has one reading: mappings with distinct keys, lists, quoted text, plain text that looks like
/// nothing else, `true`, `false`, `null`, and numbers as JSON writes them.
pub fn parse_yaml(document: &[u8]) -> Result<Json, String> {
    let text = std::str::from_utf8(document).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
    let told = |at: At, message: &str| format!("line {}, column {}: {message}", at.line, at.column);
    let node = yaml::parse(text).map_err(|e| told(e.at, &e.message))?;
    let mut values_left = limits::FACT_VALUES_MAX;
    value_of(&node, &mut values_left).map_err(|(at, message)| told(at, &message))
}

fn value_of(node: &Node, values_left: &mut usize) -> Result<Json, (At, String)> {
    let mut count = |at: At| {
        *values_left = values_left
            .checked_sub(1)
            .ok_or_else(|| (at, format!("more than {} values", limits::FACT_VALUES_MAX)))?;
        Ok(())
    };
    count(node.at)?;
    match &node.value {
        Value::Scalar { text, plain: false } => Ok(Json::string(text)),
        Value::Scalar { text, plain: true } => plain(text).map_err(|why| (node.at, why)),
        Value::Sequence(items) => {
            let items = items.iter().map(|item| value_of(item, values_left));
            items.collect::<Result<_, _>>().map(Json::Array)
        }
        Value::Mapping(entries) => {
            let mut members: Vec<(Arc<str>, Json)> = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                if key.name == "<<" {
                    return Err((key.at, "merges are not accepted; write the members out".to_owned()));
                }
                members.push((key.name.as_str().into(), value_of(value, values_left)?));
            }
            Object::new(members).map(Json::Object).map_err(|twice| {
                let again = entries.iter().filter(|(key, _)| *key.name == *twice).nth(1);
                (again.map_or(node.at, |(key, _)| key.at), format!("`{twice}` appears twice"))
            })
        }
    }
}

/// Words that some reader of YAML takes for something other than text (YAML 1.1 and 1.2), lowercase.
const DOUBTFUL: [&str; 14] =
    ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "="];

fn plain(text: &str) -> Result<Json, String> {
    match text {
        "true" => return Ok(Json::Bool(true)),
        "false" => return Ok(Json::Bool(false)),
        "null" => return Ok(Json::Null),
        _ => {}
    }
    if DOUBTFUL.contains(&&*text.to_ascii_lowercase()) {
        return Err(format!(
            "`{text}` is not plainly one thing; quote it, or write `true`, `false` or `null`"
        ));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(Json::string(text));
    }
    let bounds = json::Bounds { depth_max: 0, values_max: 1 };
    json::parse(text.as_bytes(), bounds).map_err(|_malformed| {
        format!("`{text}` is no number that JSON has and a double holds exactly; quote it if it is text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_that_has_one_reading_is_what_its_json_would_be() {
        let yaml = "rates:\n  EUR: 1.5\n  JPY: -2e2\nopen: true\nnote: \"no\"\nnone: null\nwho: [a b, '7', https://x]\n";
        let json = r#"{"rates":{"EUR":1.5,"JPY":-200},"open":true,"note":"no","none":null,"who":["a b","7","https://x"]}"#;
        assert_eq!(parse_yaml(yaml.as_bytes()), parse_json(json.as_bytes()));
    }

    #[test]
    fn yaml_that_could_be_read_in_two_ways_is_refused_with_its_place() {
        for doubtful in [
            "no",
            "Yes",
            "off",
            "TRUE",
            "Null",
            "~",
            "",
            "0x10",
            "0o7",
            "010",
            "1_000",
            "+1",
            ".5",
            "1.",
            "-",
            ".inf",
            "-.INF",
            ".nan",
            "2026-11-20",
            "1:30",
            "1e999",
            "0.1234567890123456789",
            "9007199254740993",
            "&a 1",
            "*a",
            "!!str 1",
            "y",
            "=",
        ] {
            let told = parse_yaml(format!("a: 1\nb: {doubtful}\n").as_bytes());
            assert!(told.as_ref().is_err_and(|why| why.starts_with("line 2, ")), "{doubtful}: {told:?}");
        }
        for (document, place) in [
            ("a: 1\nb: {c: 1, c: 2}\n", "line 2, column 11: `c` appears twice"),
            ("a: 1\n<<: {c: 1}\n", "line 2, column 1: merges"),
            ("a: 1\n---\nb: 1\n", "line 2, "),
        ] {
            let told = parse_yaml(document.as_bytes()).expect_err(document);
            assert!(told.starts_with(place), "{told}");
        }
        let many = "[".to_owned() + &"1,".repeat(limits::FACT_VALUES_MAX) + "]";
        assert!(parse_yaml(many.as_bytes()).is_err_and(|why| why.contains("more than 20000 values")));
    }
}
