//! JSON Schema as an admission bound: what does not fit never reaches policy.
//!
//! In: a schema as JSON text, read by the same strict reader as bodies. Out: a validator that never touches
//! the network or the disk: a `$ref` to anything outside of the text is refused when it is compiled.
//! Patterns run on an engine of linear time, so look-around and back-references are refused too. `format`
//! is checked, and an unknown format is refused, because a bound that does nothing is worse than none.

use std::fmt;

use jsonschema::error::ValidationError;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{Malformed, json};
use crate::model::{Json, Place, ReasonCode};

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    document: Json,
}

/// Why a text is not a schema, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at `{pointer}`)")]
pub struct InvalidSchema {
    pub message: String,
    /// RFC 6901; empty for the whole text.
    pub pointer: String,
}

impl Schema {
    /// `text` is a JSON Schema; without `$schema` it is of draft 2020-12.
    pub fn compile(text: &str) -> Result<Self, InvalidSchema> {
        let schema = json::parse(text.as_bytes(), json::Bounds::BODY).map_err(|malformed| {
            let pointer = match &malformed.place {
                Some(Place::Json { pointer, .. }) => pointer.clone(),
                _ => String::new(),
            };
            let place = malformed.place.map(|place| format!(" ({place})")).unwrap_or_default();
            InvalidSchema { message: format!("{}{place}", malformed.code.title()), pointer }
        })?;
        let invalid = |error: ValidationError<'_>| InvalidSchema {
            message: error.to_string(),
            pointer: error.instance_path().to_string(),
        };
        jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .build(&to_serde(&schema))
            .map_err(invalid)
            .map(|validator| Self { validator, document: schema })
    }

    /// The schema itself.
    pub fn document(&self) -> &Json {
        &self.document
    }

    /// Whether the value fits. The detail names the rule, never what was found.
    pub fn check(&self, value: &Json) -> Result<(), Malformed> {
        let value = to_serde(value);
        self.validator.validate(&value).map_err(|error| {
            let pointer = error.instance_path().to_string();
            let detail = format!("`{}` of the schema does not hold.", error.schema_path());
            Malformed::new(ReasonCode::SchemaMismatch, Place::Json { byte: 0, pointer }).because(detail)
        })
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(..)")
    }
}

fn to_serde(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        // Whole numbers as integers, which is what the keywords compare exactly.
        Json::Number(n) => match n.as_exact_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(n.as_f64()),
        },
        Json::String(text) => Value::from(&**text),
        Json::Array(items) => items.iter().map(to_serde).collect(),
        Json::Object(object) => {
            object.members().iter().map(|(name, value)| (name.to_string(), to_serde(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Json {
        json::parse(text.as_bytes(), json::Bounds::BODY).expect(text)
    }

    #[test]
    fn what_fits_passes_and_what_does_not_is_named_by_its_pointer() {
        let schema = Schema::compile(
            r#"{"type":"object","required":["amount"],"additionalProperties":false,"properties":{
                "amount":{"type":"integer","maximum":500},
                "id":{"type":"string","format":"uuid"},
                "tags":{"type":"array","items":{"pattern":"^[a-z]+$"}}}}"#,
        )
        .expect("a schema");
        for text in [
            r#"{"amount":500}"#,
            r#"{"amount":1.0,"tags":["a"],"id":"00000000-0000-4000-8000-000000000000"}"#,
        ] {
            assert_eq!(schema.check(&parse(text)), Ok(()), "{text}");
        }
        for (text, pointer, rule) in [
            (r#"{"amount":501}"#, "/amount", "/properties/amount/maximum"),
            (r#"{"amount":"hunter2"}"#, "/amount", "/properties/amount/type"),
            (r#"{"amount":1.5}"#, "/amount", "/properties/amount/type"),
            ("{}", "", "/required"),
            (r#"{"amount":1,"hunter2":1}"#, "", "/additionalProperties"),
            (r#"{"amount":1,"id":"hunter2"}"#, "/id", "/properties/id/format"),
            (r#"{"amount":1,"tags":["a","hunter2"]}"#, "/tags/1", "/properties/tags/items/pattern"),
            ("[]", "", "/type"),
        ] {
            let malformed = schema.check(&parse(text)).expect_err(text);
            assert_eq!(malformed.code, ReasonCode::SchemaMismatch);
            assert_eq!(malformed.place, Some(Place::Json { byte: 0, pointer: pointer.into() }), "{text}");
            let detail = malformed.detail.expect("a detail");
            assert!(detail.contains(rule) && !detail.contains("hunter2"), "{detail}");
        }
    }

    #[test]
    fn a_schema_that_would_fetch_or_cannot_bound_is_refused() {
        for text in [
            r#"{"$ref":"https://schemas.example/a.json"}"#,
            r#"{"$ref":"file:///etc/passwd"}"#,
            r#"{"$ref":"other.json#/a"}"#,
            r##"{"$ref":"#/$defs/missing"}"##,
            r#"{"$schema":"https://schemas.example/meta"}"#,
            r#"{"type":"strnig"}"#,
            r#"{"type":"string","format":"no-such-format"}"#,
            r#"{"pattern":"(?=a)b"}"#,
            r#"{"pattern":"(a)\\1"}"#,
            r#"{"type":"string","type":"object"}"#,
            "{",
            "1",
        ] {
            assert!(Schema::compile(text).is_err(), "{text}");
        }
        let twice = Schema::compile(r#"{"properties":{"a":{},"a":{}}}"#).expect_err("twice");
        assert_eq!(twice.pointer, "/properties/a");
        assert!(twice.message.contains("same member name twice"), "{twice}");
        let wrong = Schema::compile(r#"{"properties":{"a":{"type":"strnig"}}}"#).expect_err("no such type");
        assert_eq!(wrong.pointer, "/properties/a/type");
    }

    #[test]
    fn a_schema_that_refers_to_itself_comes_to_an_end() {
        let tree =
            Schema::compile(r##"{"properties":{"next":{"$ref":"#"}},"maxProperties":1}"##).expect("a schema");
        assert_eq!(tree.check(&parse(r#"{"next":{"next":{}}}"#)), Ok(()));
        assert!(tree.check(&parse(r#"{"next":{"next":{},"b":1}}"#)).is_err());
        // Without a step down there is nothing to validate: refused, or true at once; never endless.
        if let Ok(endless) = Schema::compile(r##"{"$ref":"#"}"##) {
            let _ = endless.check(&parse("{}"));
        }
        if let Ok(endless) = Schema::compile(r##"{"allOf":[{"$ref":"#"}]}"##) {
            let _ = endless.check(&parse("{}"));
        }
    }

    #[test]
    fn debugging_a_schema_says_nothing_about_it() {
        assert_eq!(format!("{:?}", Schema::compile("{}").expect("any")), "Schema(..)");
    }
}
