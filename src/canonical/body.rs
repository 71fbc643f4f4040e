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
