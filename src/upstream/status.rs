//! What the upstream's own records say of one request: a GET that carries its idempotency key, and a strict reading of
//! the answer.
//!
//! In: [`StatusRules`] as config declares them, and a key. Out: what the answer says in words of outcomes, with what it
//! can be held to, or why it says nothing ([`NoStatus`]). The question is fixed but for the key, which stands in one
//! declared place and cannot become anything but data there: a key that could is not asked about. It goes where the
//! surface's requests go, with the surface's credential. No redirect is followed. Only a whole answer of status 200 or
//! 404, JSON with one reading, is read.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};

use super::client::{Question, Reply};
use super::{Client, Endpoint, InvalidRoots, NoDocument, OwnCredential, Settings};
use crate::canonical::{encode_component, json};
use crate::limits;
use crate::model::{Digest, IdempotencyKey, Json, unescape_pointer};

/// Stands for the key in a declared target.
const PLACEHOLDER: &str = "{idempotency_key}";

/// What is asked, and how answers are read.
#[derive(Clone, Debug)]
pub struct StatusRules {
    pub question: StatusQuestion,
    /// Where an answer says what became of the request.
    pub status: AnswerPointer,
    /// Where an answer repeats the key it is about. One about another key then says nothing.
    pub echo: Option<AnswerPointer>,
    /// Values at `status`, as text.
    pub confirmed: BTreeSet<Arc<str>>,
    pub failed: BTreeSet<Arc<str>>,
    pub not_found: NotFoundIs,
    /// Connecting, asking and the whole answer together.
    pub timeout: Duration,
    pub bytes_max: usize,
}

/// What it means that the upstream knows no such key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFoundIs {
    Unknown,
    Failed,
}

/// Path and query of the question, and where the key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusQuestion {
    /// As declared.
    text: Arc<str>,
    place: KeyPlace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyPlace {
    /// One whole segment of the path.
    Segment {
        before: Arc<str>,
        after: Arc<str>,
    },
    /// One whole value of the query.
    Query {
        before: Arc<str>,
        after: Arc<str>,
    },
    Header(HeaderName),
}

/// Why a text is no target of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStatusQuestion {
    #[error(
        "a path begins with `/`, has no empty segments, none of dots only, and is visible ASCII without `#`, `\\`, `{{` and \
         `}}` other than those of `{PLACEHOLDER}`"
    )]
    Form,
    #[error("a path has at most {} bytes", limits::STATUS_TARGET_BYTES_MAX)]
    Long,
    #[error(
        "`{PLACEHOLDER}` must stand in it, once: a whole segment of the path or a whole value of the query"
    )]
    NoKey,
    #[error("the key is sent once: as `header`, or where `{PLACEHOLDER}` stands")]
    TwoKeys,
}

impl StatusQuestion {
    /// With the key in this header, or without one where the placeholder stands.
    pub fn new(text: &str, header: Option<HeaderName>) -> Result<Self, InvalidStatusQuestion> {
        if text.len() > limits::STATUS_TARGET_BYTES_MAX {
            return Err(InvalidStatusQuestion::Long);
        }
        let filled = text.replace(PLACEHOLDER, "key");
        let (path, query) = filled.split_once('?').map_or((&*filled, ""), |(path, query)| (path, query));
        let is_plain = |b: u8| b.is_ascii_graphic() && !b"#\\{}".contains(&b);
        let path = path.strip_prefix('/').ok_or(InvalidStatusQuestion::Form)?;
        // It may end in `/`.
        let segments = path.strip_suffix('/').unwrap_or(path).split('/');
        let is_formed = path.bytes().chain(query.bytes()).all(is_plain)
            && (path.is_empty() || segments.into_iter().all(|segment| !matches!(segment, "" | "." | "..")))
            && filled.parse::<PathAndQuery>().is_ok();
        if !is_formed {
            return Err(InvalidStatusQuestion::Form);
        }
        let place = match (header, text.matches(PLACEHOLDER).count()) {
            (Some(header), 0) => KeyPlace::Header(header),
            (Some(_), _) => return Err(InvalidStatusQuestion::TwoKeys),
            (None, 1) => KeyPlace::of(text).ok_or(InvalidStatusQuestion::NoKey)?,
            (None, _) => return Err(InvalidStatusQuestion::NoKey),
        };
        Ok(Self { text: text.into(), place })
    }

    /// As declared, with the placeholder.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path alone names the request: an upstream that does not know the question cannot answer it.
    pub fn is_path(&self) -> bool {
        matches!(self.place, KeyPlace::Segment { .. })
    }

    /// Whether this can be asked about the key.
    pub fn takes(&self, key: &IdempotencyKey) -> bool {
        match &self.place {
            KeyPlace::Segment { .. } => stays_in_its_segment(key.as_str()),
            // Percent-encoded, and visible ASCII, whatever it is.
            KeyPlace::Query { .. } | KeyPlace::Header(_) => true,
        }
    }

    fn about(&self, key: &IdempotencyKey) -> (String, Option<(HeaderName, HeaderValue)>) {
        match &self.place {
            KeyPlace::Segment { before, after } | KeyPlace::Query { before, after } => {
                (format!("{before}{}{after}", encode_component(key.as_str())), None)
            }
            KeyPlace::Header(name) => {
                let value = HeaderValue::from_str(key.as_str()).expect("a key is visible ASCII");
                (self.text.to_string(), Some((name.clone(), value)))
            }
        }
    }
}

impl KeyPlace {
    /// Where the placeholder stands; `None` if it shares its segment or value with something.
    fn of(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(PLACEHOLDER)?;
        match before.contains('?') {
            false => {
                let is_whole = before.ends_with('/') && (after.is_empty() || after.starts_with(['/', '?']));
                is_whole.then(|| Self::Segment { before: before.into(), after: after.into() })
            }
            true => {
                let is_whole = before.ends_with('=') && (after.is_empty() || after.starts_with('&'));
                is_whole.then(|| Self::Query { before: before.into(), after: after.into() })
            }
        }
    }
}

/// Percent-encoding keeps a key in its segment by the standards. Servers that decode a path before they take it apart, or
/// twice, must not find anything in it either: nothing but what a segment may hold (RFC 3986 section 3.3), no `;`, and no
/// dot segment.
fn stays_in_its_segment(key: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&b);
    key.bytes().all(is_plain) && !matches!(key, "." | "..")
}

/// A place in an answer (RFC 6901), below its root.
#[derive(Clone, PartialEq, Eq)]
pub struct AnswerPointer {
    text: Arc<str>,
    steps: Vec<Arc<str>>,
}

/// Why a text is no such pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pointer begins with `/`, has at most {} bytes, and `~` in it is written `~0`, `/` is `~1` (RFC 6901)",
    limits::STATUS_POINTER_BYTES_MAX
)]
pub struct InvalidAnswerPointer;

impl FromStr for AnswerPointer {
    type Err = InvalidAnswerPointer;

    fn from_str(text: &str) -> Result<Self, InvalidAnswerPointer> {
        if text.len() > limits::STATUS_POINTER_BYTES_MAX {
            return Err(InvalidAnswerPointer);
        }
        let steps = unescape_pointer(text).ok_or(InvalidAnswerPointer)?;
        Ok(Self { text: text.into(), steps })
    }
}

impl fmt::Debug for AnswerPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for AnswerPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What one answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Confirmed,
    Failed,
    /// Neither: it may become one of them.
    Open,
    /// The upstream knows no such key, and that says nothing.
    NotFound,
}

/// What one answer says, and what it can be held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    pub said: Said,
    pub status_code: u16,
    /// What stood at [`StatusRules::status`].
    pub value: Option<Arc<str>>,
    /// Of the body, bytes.
    pub size: u64,
    /// Of the body.
    pub digest: Digest,
}

/// The upstream said nothing. Changes nothing; may be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStatus {
    #[error("{0}")]
    Unanswered(String),
    /// Another status, another media type, no JSON with one reading, another key.
    #[error("{0}")]
    Unusable(String),
}

impl From<NoDocument> for NoStatus {
    fn from(why: NoDocument) -> Self {
        match why {
            NoDocument::Late | NoDocument::Unreachable(_) => Self::Unanswered(why.to_string()),
            NoDocument::Status(_)
            | NoDocument::MediaType
            | NoDocument::Encoded
            | NoDocument::Undelimited
            | NoDocument::TooLarge(_) => Self::Unusable(why.to_string()),
        }
    }
}

/// One surface's upstream, to be asked.
pub struct StatusSource {
    client: Client,
    rules: Arc<StatusRules>,
}

impl StatusSource {
    pub fn new(
        upstream: &Settings,
        rules: Arc<StatusRules>,
        credential: Option<OwnCredential>,
    ) -> Result<Self, InvalidRoots> {
        let endpoint = Endpoint {
            scheme: upstream.scheme.clone(),
            host: upstream.host.clone(),
            port: upstream.port,
            authority: upstream.authority.clone(),
            target: rules.question.as_str().into(),
            credential,
            timeout: rules.timeout,
        };
        Ok(Self { client: Client::new(endpoint)?, rules })
    }

    pub fn rules(&self) -> &StatusRules {
        &self.rules
    }

    /// Asks once. The key must be one that the question takes.
    pub async fn ask(&self, key: &IdempotencyKey) -> Result<StatusAnswer, NoStatus> {
        assert!(self.rules.question.takes(key), "nobody asks about a key that the question does not take");
        let (target, header) = self.rules.question.about(key);
        let question = Question {
            target: &target,
            header,
            media_types: &["application/json", "application/problem+json"],
            statuses: &[StatusCode::OK, StatusCode::NOT_FOUND],
            bytes_max: self.rules.bytes_max,
        };
        let reply = self.client.ask(&question).await?;
        self.rules.read(&reply, key)
    }
}

const BOUNDS: json::Bounds =
    json::Bounds { depth_max: limits::STATUS_DEPTH_MAX, values_max: limits::STATUS_ANSWER_VALUES_MAX };

impl StatusRules {
    fn read(&self, reply: &Reply, key: &IdempotencyKey) -> Result<StatusAnswer, NoStatus> {
        let tree = json::parse(&reply.body, BOUNDS).map_err(|malformed| {
            let place = malformed.place.map(|place| format!(" at {place}")).unwrap_or_default();
            NoStatus::Unusable(format!("the answer is not accepted: {}{place}", malformed.code.as_str()))
        })?;
        let (said, value) = match reply.status {
            StatusCode::OK => self.read_found(&tree, key)?,
            _not_found => match self.not_found {
                NotFoundIs::Unknown => (Said::NotFound, None),
                NotFoundIs::Failed => (Said::Failed, None),
            },
        };
        Ok(StatusAnswer {
            said,
            status_code: reply.status.as_u16(),
            value,
            size: reply.body.len() as u64,
            digest: Digest::of(&reply.body),
        })
    }

    fn read_found(&self, tree: &Json, key: &IdempotencyKey) -> Result<(Said, Option<Arc<str>>), NoStatus> {
        if let Some(echo) = &self.echo
            && tree.at(&echo.steps).and_then(Json::as_str) != Some(key.as_str())
        {
            return Err(NoStatus::Unusable(format!("the key is not at `{echo}` of the answer")));
        }
        let value = tree.at(&self.status.steps).and_then(text_of);
        let value =
            value.ok_or_else(|| NoStatus::Unusable(format!("there is no status at `{}`", self.status)))?;
        let said = match (self.confirmed.contains(&value), self.failed.contains(&value)) {
            (true, false) => Said::Confirmed,
            (false, true) => Said::Failed,
            (false, false) => return Ok((Said::Open, None)),
            (true, true) => unreachable!("config refuses a value that stands for both"),
        };
        Ok((said, Some(value)))
    }
}

/// A text, a number in its RFC 8785 form, or a truth value.
fn text_of(value: &Json) -> Option<Arc<str>> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Bool(_) | Json::Number(_) => String::from_utf8(json::write(value)).ok().map(Arc::from),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

impl fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusSource").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn key(text: &str) -> IdempotencyKey {
        text.parse().expect("a key")
    }

    fn question(text: &str) -> StatusQuestion {
        StatusQuestion::new(text, None).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn rules(not_found: NotFoundIs, echo: Option<&str>) -> StatusRules {
        let values = |values: &[&str]| values.iter().map(|value| Arc::from(*value)).collect();
        StatusRules {
            question: question("/v1/status/{idempotency_key}"),
            status: "/payment/status".parse().expect("a pointer"),
            echo: echo.map(|pointer| pointer.parse().expect("a pointer")),
            confirmed: values(&["succeeded", "true", "2"]),
            failed: values(&["declined", "-1.5"]),
            not_found,
            timeout: Duration::from_secs(1),
            bytes_max: 1_000,
        }
    }

    fn read(rules: &StatusRules, status: u16, body: &str) -> Result<StatusAnswer, NoStatus> {
        let status = StatusCode::from_u16(status).expect("a status");
        rules.read(&Reply { status, body: Bytes::copy_from_slice(body.as_bytes()) }, &key("order-1"))
    }

    #[test]
    fn the_key_stands_in_its_place_and_is_data_there() {
        let about = |text: &str, key_text: &str| question(text).about(&key(key_text)).0;
        assert_eq!(about("/v1/status/{idempotency_key}", "a:b=c"), "/v1/status/a%3Ab%3Dc");
        assert_eq!(about("/v1/{idempotency_key}/status?full=1", "a.b"), "/v1/a.b/status?full=1");
        let odd = "../x?y=1&z#%2e;\\";
        assert_eq!(
            about("/v1/status?a=1&key={idempotency_key}&b=2", odd),
            "/v1/status?a=1&key=..%2Fx%3Fy%3D1%26z%23%252e%3B%5C&b=2"
        );
        let header =
            StatusQuestion::new("/v1/status?a=1", Some(HeaderName::from_static("x-key"))).expect("one");
        let (target, header) = header.about(&key(odd));
        let (name, value) = header.expect("a header");
        assert_eq!((&*target, name.as_str(), value.as_bytes()), ("/v1/status?a=1", "x-key", odd.as_bytes()));
    }

    #[test]
    fn a_key_that_could_leave_its_segment_is_not_asked_about() {
        let path = question("/v1/status/{idempotency_key}");
        for good in ["order-1", "a:b", "019aa159-acfb-7707-8707-070707070707", "...", "a@b!$&'()*+,="] {
            assert!(path.takes(&key(good)), "{good}");
        }
        for bad in [".", "..", "../admin", "a/b", "a\\b", "a%2fb", "a;b", "a?b", "a#b", "a\"b", "<a>", "a|b"]
        {
            assert!(!path.takes(&key(bad)), "{bad}");
            assert!(question("/v1/status?key={idempotency_key}").takes(&key(bad)), "{bad}");
        }
    }

    #[test]
    fn a_target_has_the_key_once_whole_and_nothing_else_that_changes() {
        use InvalidStatusQuestion::{Form, Long, NoKey, TwoKeys};
        for (text, why) in [
            ("v1/{idempotency_key}", Form),
            ("//{idempotency_key}", Form),
            ("/v1//{idempotency_key}", Form),
            ("/v1/../{idempotency_key}", Form),
            ("/v1/./{idempotency_key}", Form),
            ("/v1/{idempotency_key}//", Form),
            ("/v1/{key}", Form),
            ("/v1/{idempotency_key}#a", Form),
            ("/v1\\{idempotency_key}", Form),
            ("/v1/ {idempotency_key}", Form),
            ("/v1/\u{e9}/{idempotency_key}", Form),
            ("/v1/status", NoKey),
            ("/v1/{idempotency_key}/{idempotency_key}", NoKey),
            ("/v1/a{idempotency_key}", NoKey),
            ("/v1/{idempotency_key}.json", NoKey),
            ("/v1?{idempotency_key}=1", NoKey),
            ("/v1?key=a{idempotency_key}", NoKey),
            ("/v1?key={idempotency_key}.", NoKey),
        ] {
            assert_eq!(StatusQuestion::new(text, None).err(), Some(why), "{text}");
        }
        let long = format!("/{}/{PLACEHOLDER}", "a".repeat(limits::STATUS_TARGET_BYTES_MAX));
        assert_eq!(StatusQuestion::new(&long, None).err(), Some(Long));
        let header = Some(HeaderName::from_static("x-key"));
        let twice = StatusQuestion::new("/v1/{idempotency_key}", header.clone());
        assert_eq!(twice.err(), Some(TwoKeys));
        for text in ["/v1/status", "/", "/v1/?a=/../b"] {
            let question = StatusQuestion::new(text, header.clone());
            assert!(question.is_ok_and(|question| !question.is_path()), "{text}");
        }
        assert!(question("/v1/{idempotency_key}/").is_path());
    }

    #[test]
    fn only_a_declared_value_at_the_declared_place_says_what_became_of_it() {
        let rules = rules(NotFoundIs::Unknown, None);
        for (body, said, value) in [
            (r#"{"payment":{"status":"succeeded"}}"#, Said::Confirmed, Some("succeeded")),
            (r#"{"payment":{"status":true}}"#, Said::Confirmed, Some("true")),
            (r#"{"payment":{"status":2.0}}"#, Said::Confirmed, Some("2")),
            (r#"{"payment":{"status":"declined"}}"#, Said::Failed, Some("declined")),
            (r#"{"payment":{"status":-1.5}}"#, Said::Failed, Some("-1.5")),
            (r#"{"payment":{"status":"pending"}}"#, Said::Open, None),
            (r#"{"payment":{"status":"Succeeded"}}"#, Said::Open, None),
            (r#"{"payment":{"status":""}}"#, Said::Open, None),
        ] {
            let answer = read(&rules, 200, body).unwrap_or_else(|why| panic!("{body}: {why}"));
            assert_eq!(
                (answer.said, answer.value.as_deref(), answer.status_code),
                (said, value, 200),
                "{body}"
            );
            assert_eq!((answer.size, answer.digest), (body.len() as u64, Digest::of(body.as_bytes())));
        }
        for body in [
            r#"{"payment":{"status":null}}"#,
            r#"{"payment":{"status":["succeeded"]}}"#,
            r#"{"payment":{"status":{"succeeded":true}}}"#,
            r#"{"status":"succeeded"}"#,
            r#"[{"payment":{"status":"succeeded"}}]"#,
            r#"{"payment":{"status":"succeeded","status":"declined"}}"#,
            r#"{"payment":{"status":"succeeded"}} "x""#,
            r#"{"payment":{"status":"succeeded"}"#,
            "",
            "<html>",
        ] {
            assert!(matches!(read(&rules, 200, body), Err(NoStatus::Unusable(_))), "{body}");
        }
    }

    #[test]
    fn what_is_not_found_is_unknown_unless_config_says_that_it_failed() {
        let body = r#"{"payment":{"status":"succeeded"}}"#;
        let said = |not_found| read(&rules(not_found, Some("/key")), 404, body).map(|answer| answer.said);
        assert_eq!(said(NotFoundIs::Unknown), Ok(Said::NotFound));
        assert_eq!(said(NotFoundIs::Failed), Ok(Said::Failed));
        // What some proxy says is not what the upstream's records say.
        assert!(read(&rules(NotFoundIs::Failed, None), 404, "not found").is_err());
    }

    #[test]
    fn an_answer_about_another_key_says_nothing() {
        let rules = rules(NotFoundIs::Unknown, Some("/key"));
        let about =
            |key: &str| read(&rules, 200, &format!(r#"{{"key":{key},"payment":{{"status":"succeeded"}}}}"#));
        assert_eq!(about("\"order-1\"").map(|answer| answer.said), Ok(Said::Confirmed));
        for other in ["\"order-2\"", "\"Order-1\"", "1", "null"] {
            assert!(about(other).is_err(), "{other}");
        }
        assert!(read(&rules, 200, r#"{"payment":{"status":"succeeded"}}"#).is_err());
    }
}
