//! Content-Type (RFC 9110 section 8.3): type and parameters in one form.

use std::sync::Arc;

use super::Malformed;
use super::headers::{is_token, plain_value};
use crate::model::{Place, ReasonCode};

/// A media type in lowercase, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// `type/subtype`.
    pub essence: Arc<str>,
    /// Names in lowercase and distinct, values without quotes, in the order they came.
    parameters: Vec<(String, String)>,
}

pub(super) fn refuse(code: ReasonCode, detail: &str) -> Malformed {
    Malformed::new(code, Place::Header("content-type".into())).because(detail)
}

impl MediaType {
    pub(super) fn parse(value: &http::HeaderValue) -> Result<Self, Malformed> {
        let unsupported = |detail| refuse(ReasonCode::MediaTypeUnsupported, detail);
        let text =
            plain_value(value).ok_or_else(|| refuse(ReasonCode::HeaderValueInvalid, "It is not ASCII."))?;
        let (essence, mut rest) = split_at_semicolon(text);
        let is_essence = essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
        if !is_essence {
            return Err(unsupported("A media type is `type/subtype`."));
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        while let Some(text) = rest {
            let (name, value, after) =
                parameter(text).ok_or_else(|| unsupported("A parameter of a media type is `name=value`."))?;
            let name = name.to_ascii_lowercase();
            if parameters.iter().any(|(n, _)| *n == name) {
                return Err(unsupported("A parameter of the media type appears twice."));
            }
            parameters.push((name, value));
            rest = after;
        }
        Ok(Self { essence: essence.to_ascii_lowercase().into(), parameters })
    }

    /// `application/json`, and what is written in it (RFC 6839 section 3.1).
    pub(super) fn is_json(&self) -> bool {
        let subtype = self.essence.strip_prefix("application/");
        subtype.is_some_and(|s| s == "json" || s.strip_suffix("+json").is_some_and(|base| !base.is_empty()))
    }

    pub(super) fn is_form(&self) -> bool {
        &*self.essence == "application/x-www-form-urlencoded"
    }

    /// Nothing but `charset=utf-8`, which says what holds anyway. Any other parameter may change the
    /// meaning of the body, so it cannot be left out.
    pub(super) fn is_plain_utf8(&self) -> bool {
        self.parameters.iter().all(|(name, value)| name == "charset" && value.eq_ignore_ascii_case("utf-8"))
    }

    /// With every parameter; values in quotes only where they need them.
    pub(super) fn write(&self) -> Arc<str> {
        if self.parameters.is_empty() {
            return self.essence.clone();
        }
        let mut out = self.essence.to_string();
        for (name, value) in &self.parameters {
            out.push_str("; ");
            out.push_str(name);
            out.push('=');
            if is_token(value) {
                out.push_str(value);
            } else {
                out.push('"');
                for c in value.chars() {
                    if matches!(c, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
        out.into()
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// What stands before a semicolon, and what after.
fn split_at_semicolon(text: &str) -> (&str, Option<&str>) {
    match text.split_once(';') {
        Some((before, after)) => (before.trim_matches(is_space), Some(after)),
        None => (text.trim_matches(is_space), None),
    }
}

/// `name=token` or `name="quoted"`: name, value, and what follows the next semicolon.
fn parameter(text: &str) -> Option<(&str, String, Option<&str>)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_start_matches(is_space);
    let (value, after) = match value.strip_prefix('"') {
        Some(quoted) => {
            let (value, rest) = unquote(quoted)?;
            match split_at_semicolon(rest) {
                ("", after) => (value, after),
                _ => return None,
            }
        }
        None => {
            let (value, after) = match value.split_once(';') {
                Some((value, after)) => (value.trim_end_matches(is_space), Some(after)),
                None => (value, None),
            };
            (is_token(value).then(|| value.to_owned())?, after)
        }
    };
    is_token(name).then_some((name, value, after))
}

/// Past the opening quote: the value, and what follows the closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn parse(text: &str) -> Result<MediaType, Malformed> {
        MediaType::parse(&HeaderValue::from_bytes(text.as_bytes()).expect("a header value"))
    }

    #[test]
    fn a_media_type_has_one_form() {
        for (text, form) in [
            ("Text/CSV", "text/csv"),
            (" text/csv ", "text/csv"),
            ("multipart/form-data;boundary=AbC", "multipart/form-data; boundary=AbC"),
            ("multipart/form-data ; Boundary=\"AbC\" ", "multipart/form-data; boundary=AbC"),
            ("a/b; x=\"a;b=\\\"c\\\\\\d\"; y=1", "a/b; x=\"a;b=\\\"c\\\\d\"; y=1"),
            ("a/b; x=\"\"", "a/b; x=\"\""),
            ("a/b; x=1 ;y=2", "a/b; x=1; y=2"),
        ] {
            let media = parse(text).expect(text);
            assert_eq!(&*media.write(), form, "{text}");
            assert_eq!(parse(form), Ok(media), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_media_type_is_refused() {
        for text in [
            "text",
            "text/",
            "/csv",
            "text/c sv",
            "a/b/c",
            "a/b,c/d",
            "a/b;",
            "a/b;;x=1",
            "a/b; x",
            "a/b; =1",
            "a/b; x=",
            "a/b; x = 1",
            "a/b; x=\"1",
            "a/b; x=\"1\"y",
            "a/b; x=\"1\\",
            "a/b; x=1; X=2",
            "a/b; x=1;",
            "a/b; x y=1",
        ] {
            let malformed = parse(text).expect_err(text);
            assert_eq!(malformed.code, ReasonCode::MediaTypeUnsupported, "{text}");
            assert_eq!(malformed.place, Some(Place::Header("content-type".into())));
        }
        assert_eq!(parse("text/é").expect_err("not ASCII").code, ReasonCode::HeaderValueInvalid);
    }

    #[test]
    fn json_is_json_and_its_suffix_in_utf8() {
        for (text, is_json) in [
            ("application/json", true),
            ("Application/Merge-Patch+JSON", true),
            ("application/scim+json", true),
            ("application/+json", false),
            ("text/json", false),
            ("application/jsonx", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            assert_eq!(parse(text).expect(text).is_json(), is_json, "{text}");
        }
        for (text, is_plain) in [
            ("a/b", true),
            ("a/b; charset=UTF-8", true),
            ("a/b;charset=\"utf-8\"", true),
            ("a/b; charset=utf-16", false),
            ("a/b; version=2", false),
            ("a/b; charset=utf-8; version=2", false),
            ("a/b; version=utf-8", false),
        ] {
            assert_eq!(parse(text).expect(text).is_plain_utf8(), is_plain, "{text}");
        }
    }
}
