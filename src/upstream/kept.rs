//! An answer that is kept for requests with the same idempotency key.
//!
//! It stands as evidence beside the outcome: RFC 8785 of `{"body", "headers", "status"}`, the body in base64, the
//! headers as a list of `[name, value]` as they passed to the caller. What has no such form (trailers, a value that is
//! not text) is not kept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::passed::passed_fields;
use crate::canonical::json;
use crate::model::{Json, Number};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// Collects the body of an answer as it passes.
#[derive(Debug)]
pub(super) struct Keeping {
    body: Vec<u8>,
    bytes_max: usize,
}

impl Keeping {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { body: Vec::new(), bytes_max }
    }

    /// `None`: it has become too large.
    pub(super) fn with(mut self, data: &[u8]) -> Option<Self> {
        if data.len() > self.bytes_max - self.body.len() {
            return None;
        }
        self.body.extend_from_slice(data);
        Some(self)
    }

    pub(super) fn finish(self, status: StatusCode, received: &HeaderMap, len: Option<u64>) -> KeptAnswer {
        let headers = passed_fields(received, len).map(|(name, value)| (name.clone(), value.clone()));
        KeptAnswer { status, headers: headers.collect(), body: self.body.into() }
    }
}

impl KeptAnswer {
    /// The evidence. `None`: a header's value is not visible ASCII.
    pub fn to_bytes(&self) -> Option<Bytes> {
        let header = |(name, value): &(HeaderName, HeaderValue)| {
            Some(Json::Array(vec![Json::string(name.as_str()), Json::string(value.to_str().ok()?)]))
        };
        let headers = self.headers.iter().map(header).collect::<Option<_>>()?;
        let status = Number::new(f64::from(self.status.as_u16()))?;
        let tree = Json::object([
            ("body", Json::string(&STANDARD.encode(&self.body))),
            ("headers", Json::Array(headers)),
            ("status", Json::Number(status)),
        ]);
        Some(json::write(&tree).into())
    }

    /// `None`: the bytes are no kept answer.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Kept {
            body: String,
            headers: Vec<(String, String)>,
            status: u16,
        }
        let Kept { body, headers, status } = serde_json::from_slice(bytes).ok()?;
        let header = |(name, value): (String, String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        Some(Self {
            status: StatusCode::from_u16(status).ok()?,
            headers: headers.into_iter().map(header).collect::<Option<_>>()?,
            body: STANDARD.decode(body).ok()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(status: u16, body: &[u8]) -> KeptAnswer {
        let headers = [("content-type", "text/plain"), ("x-b", "1"), ("x-b", "2")];
        let headers = headers.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        KeptAnswer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.to_vec(),
            body: Bytes::copy_from_slice(body),
        }
    }

    #[test]
    fn a_kept_answer_reads_back_as_it_was_and_has_one_form() {
        for answer in [kept(201, b"{\"id\":1}"), kept(404, b""), kept(200, &[0, 255, 10])] {
            let bytes = answer.to_bytes().expect("plain headers");
            assert_eq!(KeptAnswer::from_bytes(&bytes), Some(answer));
            assert_eq!(crate::verify::strict_canonical(&bytes), Ok(()));
        }
        assert_eq!(
            kept(200, b"ab").to_bytes().expect("plain headers"),
            r#"{"body":"YWI=","headers":[["content-type","text/plain"],["x-b","1"],["x-b","2"]],"status":200}"#
        );
    }

    #[test]
    fn what_has_no_such_form_is_not_kept() {
        let mut answer = kept(200, b"");
        answer
            .headers
            .push((HeaderName::from_static("x-c"), HeaderValue::from_bytes(b"\xff").expect("opaque")));
        assert_eq!(answer.to_bytes(), None);
        assert!(Keeping::new(3).with(b"ab").and_then(|k| k.with(b"c")).is_some());
        assert!(Keeping::new(3).with(b"ab").and_then(|k| k.with(b"cd")).is_none());
        assert_eq!(KeptAnswer::from_bytes(b"{}"), None);
    }
}
