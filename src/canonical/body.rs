//! Bodies: whole or refused, in the one form their route declares.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use super::media_type::{MediaType, refuse};
use super::{BodyRules, Forward, Malformed, PolicyBody, Required, Rules, form, json};
use crate::model::entry::BodyForm;
use crate::model::{Place, ReasonCode};

/// A body as it will be written.
#[derive(Debug)]
pub(super) struct ReadBody {
    pub bytes: Bytes,
    pub policy: PolicyBody,
    pub form: BodyForm,
    /// `type/subtype`, and Content-Type as it will be written.
    pub media_type: Option<(Arc<str>, Arc<str>)>,
}

/// No body, which is not the same as an empty one.
const ABSENT: ReadBody =
    ReadBody { bytes: Bytes::new(), policy: PolicyBody::Absent, form: BodyForm::None, media_type: None };

pub(super) fn read(
    received: Bytes,
    content_type: Option<&HeaderValue>,
    rules: &Rules,
) -> Result<ReadBody, Malformed> {
    let required = match &rules.body {
        BodyRules::None if received.is_empty() => return Ok(ABSENT),
        BodyRules::None => return Err(whole(ReasonCode::BodyUnexpected, 0)),
        BodyRules::Json { required, .. }
        | BodyRules::Form { required }
        | BodyRules::Opaque { required, .. } => *required,
    };
    if received.len() > rules.body_bytes_max {
        return Err(whole(ReasonCode::BodyTooLarge, rules.body_bytes_max));
    }
    // No JSON text is empty and no form without a pair says anything; an opaque body of no bytes is one if
    // it has a type.
    let is_opaque = matches!(rules.body, BodyRules::Opaque { .. });
    if received.is_empty() && !(is_opaque && content_type.is_some()) {
        return match required {
            Required::Required => Err(whole(ReasonCode::BodyMissing, 0)),
            Required::Optional => Ok(ABSENT),
        };
    }
    let Some(content_type) = content_type else {
        return Err(Malformed::new(ReasonCode::MediaTypeMissing, Place::Header("content-type".into())));
    };
    let media = MediaType::parse(content_type)?;
    match &rules.body {
        BodyRules::None => Ok(ABSENT),
        BodyRules::Json { forward, .. } => {
            check(media.is_json(), "This route takes application/json.")?;
            check(media.is_plain_utf8(), "The only parameter accepted here is charset=utf-8.")?;
            let value = json::parse(&received, json::Bounds::BODY)?;
            check_schema(rules, &value)?;
            let (bytes, form) = match forward {
                Forward::Canonical => (json::write(&value).into(), BodyForm::JsonCanonical),
                Forward::Verbatim => (received, BodyForm::JsonVerbatim),
            };
            let media_type = Some((media.essence.clone(), media.essence));
            Ok(ReadBody { bytes, policy: PolicyBody::Value(value), form, media_type })
        }
        BodyRules::Form { .. } => {
            check(media.is_form(), "This route takes application/x-www-form-urlencoded.")?;
            check(media.is_plain_utf8(), "The only parameter accepted here is charset=utf-8.")?;
            let form::Form { encoded, value } = form::parse(&received)?;
            check_schema(rules, &value)?;
            let media_type = Some((media.essence.clone(), media.essence));
            Ok(ReadBody {
                bytes: encoded.into(),
                policy: PolicyBody::Value(value),
                form: BodyForm::Form,
                media_type,
            })
        }
        BodyRules::Opaque { media_types, .. } => {
            check(media_types.contains(&media.essence), "This route does not declare that media type.")?;
            let written = media.write();
            let media_type = Some((media.essence, written));
            Ok(ReadBody { bytes: received, policy: PolicyBody::Absent, form: BodyForm::Opaque, media_type })
        }
    }
}

fn check(holds: bool, detail: &str) -> Result<(), Malformed> {
    match holds {
        true => Ok(()),
        false => Err(refuse(ReasonCode::MediaTypeUnsupported, detail)),
    }
}

fn check_schema(rules: &Rules, value: &crate::model::Json) -> Result<(), Malformed> {
    rules.schema.as_ref().map_or(Ok(()), |schema| schema.check(value))
}

fn whole(code: ReasonCode, at: usize) -> Malformed {
    Malformed::new(code, Place::BodyByte(at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::schema::Schema;
    use crate::canonical::testing::{JSON, read as canonicalize, received, refusal, rules};

    const FORM: BodyRules = BodyRules::Form { required: Required::Required };
    const JSON_TYPE: &str = "application/json; charset=UTF-8";
    const FORM_TYPE: &str = "application/x-www-form-urlencoded";

    fn opaque(required: Required) -> BodyRules {
        BodyRules::Opaque { media_types: ["multipart/form-data".into()].into(), required }
    }

    /// Content-Type as written, the body as written, and its form.
    fn written(rules: &Rules, content_type: &str, body: &str) -> (String, String, BodyForm) {
        let request = received("POST", "/", &[("content-type", content_type)], body);
        let request = canonicalize(request, rules).expect("accepted");
        let content_type = request.headers().iter().find(|(name, _)| &**name == "content-type");
        let content_type = content_type.map(|(_, value)| value.to_string()).unwrap_or_default();
        let form = request.form();
        (content_type, String::from_utf8(request.wire().body.to_vec()).expect("UTF-8"), form)
    }

    #[test]
    fn each_kind_of_body_has_one_form() {
        let json = rules(JSON);
        let expected = ("application/json".into(), r#"{"a":1,"b":2}"#.into(), BodyForm::JsonCanonical);
        assert_eq!(written(&json, JSON_TYPE, r#"{ "b": 2.0, "a": 1 }"#), expected);
        let patch = written(&json, "Application/Merge-Patch+json", "{}");
        assert_eq!(patch.0, "application/merge-patch+json");

        let verbatim = rules(BodyRules::Json { forward: Forward::Verbatim, required: Required::Required });
        let expected = ("application/json".into(), r#"{ "b": 2.0 }"#.into(), BodyForm::JsonVerbatim);
        assert_eq!(written(&verbatim, JSON_TYPE, r#"{ "b": 2.0 }"#), expected);

        let expected = (FORM_TYPE.into(), "a%5Bb%5D=1%202".into(), BodyForm::Form);
        assert_eq!(written(&rules(FORM), FORM_TYPE, "a[b]=1+2"), expected);

        let multipart = rules(opaque(Required::Required));
        let expected = ("multipart/form-data; boundary=x".into(), "any\0thing".into(), BodyForm::Opaque);
        assert_eq!(written(&multipart, "multipart/form-data;boundary=\"x\"", "any\0thing"), expected);
    }

    #[test]
    fn policy_sees_the_value_that_is_forwarded() {
        let value = |rules: &Rules, content_type: &str, body: &str| {
            let request = received("POST", "/", &[("content-type", content_type)], body);
            let request = canonicalize(request, rules).expect("accepted");
            assert_eq!(request.media_type().map(|m| &**m), content_type.split(';').next());
            request.body().clone()
        };
        let nested = PolicyBody::Value(json::parse(br#"{"a":{"b":"1"}}"#, json::Bounds::BODY).expect("JSON"));
        let verbatim = BodyRules::Json { forward: Forward::Verbatim, required: Required::Required };
        assert!(value(&rules(JSON), JSON_TYPE, r#"{"a":{"b":"1"}}"#) == nested);
        assert!(value(&rules(verbatim), JSON_TYPE, r#"{"a" : {"b":"1"}}"#) == nested);
        assert!(value(&rules(FORM), FORM_TYPE, "a[b]=1") == nested);
        assert!(value(&rules(opaque(Required::Required)), "multipart/form-data", "x") == PolicyBody::Absent);
    }

    #[test]
    fn a_body_that_does_not_fit_its_route_is_refused() {
        use ReasonCode as Code;
        let long = format!("\"{}\"", "a".repeat(99));
        let typed = |content_type| vec![("content-type", content_type)];
        let header = "header `content-type`";
        for (rules, headers, body, code, place) in [
            (rules(BodyRules::None), vec![], "x", Code::BodyUnexpected, "body, byte 0"),
            (rules(JSON), vec![], "{}", Code::MediaTypeMissing, header),
            (rules(JSON), typed(JSON_TYPE), "", Code::BodyMissing, "body, byte 0"),
            (rules(FORM), vec![], "", Code::BodyMissing, "body, byte 0"),
            (rules(opaque(Required::Required)), vec![], "", Code::BodyMissing, "body, byte 0"),
            (rules(JSON), typed(JSON_TYPE), long.as_str(), Code::BodyTooLarge, "body, byte 100"),
            (rules(JSON), typed(FORM_TYPE), "{}", Code::MediaTypeUnsupported, header),
            (
                rules(JSON),
                typed("application/json; charset=utf-16"),
                "{}",
                Code::MediaTypeUnsupported,
                header,
            ),
            (rules(JSON), typed("json"), "{}", Code::MediaTypeUnsupported, header),
            (rules(JSON), typed(JSON_TYPE), "{,}", Code::JsonInvalid, "body at `` (byte 1)"),
            (rules(FORM), typed(JSON_TYPE), "a=1", Code::MediaTypeUnsupported, header),
            (rules(FORM), typed(&*format!("{FORM_TYPE};v=1")), "a=1", Code::MediaTypeUnsupported, header),
            (rules(FORM), typed(FORM_TYPE), "a=1&a=2", Code::FormDuplicateKey, "form key `a`"),
            (rules(opaque(Required::Optional)), typed("text/csv"), "a", Code::MediaTypeUnsupported, header),
            (rules(opaque(Required::Optional)), typed("text/csv"), "", Code::MediaTypeUnsupported, header),
        ] {
            let request = received("POST", "/", &headers, body);
            assert_eq!(refusal(request, &rules), (code, place.to_owned()), "{headers:?} {body}");
        }
        let fits = received("POST", "/", &[("content-type", JSON_TYPE)], &long[1..]);
        assert_eq!(refusal(fits, &rules(JSON)).0, Code::JsonInvalid, "100 bytes are read");
    }

    #[test]
    fn an_optional_body_may_be_absent() {
        for body in [
            BodyRules::Json { forward: Forward::Canonical, required: Required::Optional },
            BodyRules::Form { required: Required::Optional },
            opaque(Required::Optional),
            BodyRules::None,
        ] {
            let headers: &[_] =
                if matches!(body, BodyRules::Opaque { .. }) { &[] } else { &[("content-type", JSON_TYPE)] };
            let request = canonicalize(received("GET", "/", headers, ""), &rules(body)).expect("accepted");
            assert_eq!((request.form(), request.size(), request.headers().len()), (BodyForm::None, 0, 1));
            assert!(*request.body() == PolicyBody::Absent && request.media_type().is_none());
        }
    }

    #[test]
    fn an_opaque_body_of_no_bytes_is_one_if_it_has_a_type() {
        let headers = [("content-type", "multipart/form-data")];
        let request = received("DELETE", "/", &headers, "");
        let request = canonicalize(request, &rules(opaque(Required::Required))).expect("accepted");
        assert_eq!((request.form(), request.headers().len()), (BodyForm::Opaque, 3));
    }

    #[test]
    fn the_schema_bounds_json_and_forms() {
        let schema = r#"{"properties":{"a":{"maxLength":1}}}"#;
        for (body, content_type, fits, over) in
            [(JSON, JSON_TYPE, r#"{"a":"1"}"#, r#"{"a":"12"}"#), (FORM, FORM_TYPE, "a=1", "a=12")]
        {
            let mut rules = rules(body);
            rules.schema = Some(Arc::new(Schema::compile(schema).expect("a schema")));
            let request = |body| received("POST", "/", &[("content-type", content_type)], body);
            assert!(canonicalize(request(fits), &rules).is_ok());
            let place = "body at `/a` (byte 0)".to_owned();
            assert_eq!(refusal(request(over), &rules), (ReasonCode::SchemaMismatch, place));
        }
    }
}
