//! The strict reading of a leaf: one JSON value, in RFC 8785 form, of strings, integers, booleans, lists and
//! objects. No null, no floats, no integer at or past 2^53, no duplicate member names.

use crate::model::Json;

/// Why bytes are not the canonical form of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    #[error("not one JSON value: {0}")]
    Json(String),
    #[error("holds null, or a number that is no integer below 2^53")]
    Value,
    #[error("not in canonical form (RFC 8785)")]
    Form,
}

/// `Ok` only for bytes that have one reading, and are the one way to write it.
pub fn strict_canonical(bytes: &[u8]) -> Result<(), NotCanonical> {
    // `Json` refuses duplicate names and numbers that are not exact, sorts members by UTF-16, and is
    // written with the shortest escapes: for values without floats that is RFC 8785.
    let value: Json = serde_json::from_slice(bytes).map_err(|e| NotCanonical::Json(e.to_string()))?;
    if !is_leaf_value(&value) {
        return Err(NotCanonical::Value);
    }
    let written = serde_json::to_vec(&value).map_err(|e| NotCanonical::Json(e.to_string()))?;
    if written == bytes { Ok(()) } else { Err(NotCanonical::Form) }
}

fn is_leaf_value(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(_) | Json::String(_) => true,
        Json::Number(n) => n.as_exact_i64().is_some_and(|i| i.unsigned_abs() < 1 << 53),
        Json::Array(items) => items.iter().all(is_leaf_value),
        Json::Object(o) => o.members().iter().all(|(_, v)| is_leaf_value(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_canonical_spelling_passes() {
        let good = r#"{"a":[1,-2,true,"\n\u001f\"\\é😀"],"b":{},"c":9007199254740991}"#;
        assert_eq!(strict_canonical(good.as_bytes()), Ok(()));
        let form = [
            r#"{"b":1,"a":1}"#,
            r#"{"a": 1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e2}"#,
            r#"{"a":-0}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u001F"}"#,
            "{}\n",
        ];
        for text in form {
            assert_eq!(strict_canonical(text.as_bytes()), Err(NotCanonical::Form), "{text}");
        }
        for text in [r#"{"a":null}"#, r#"{"a":0.5}"#, r#"{"a":9007199254740992}"#] {
            assert_eq!(strict_canonical(text.as_bytes()), Err(NotCanonical::Value), "{text}");
        }
        for text in ["", "{", r#"{"a":1,"a":1}"#, "{}{}", r#"{"a":9007199254740993}"#, r#""\ud800""#] {
            assert!(matches!(strict_canonical(text.as_bytes()), Err(NotCanonical::Json(_))), "{text}");
        }
        assert!(matches!(strict_canonical(b"\"\xff\""), Err(NotCanonical::Json(_))));
    }

    #[test]
    fn it_agrees_with_an_independent_canonicalizer() {
        for text in [r#"{"z":{"\u0000":"\u007f","é":1},"a":["\b\t\n\f\r"]}"#, r#"{"\ufb33":1,"😀":2,"a":3}"#]
        {
            let value: serde_json::Value = serde_json::from_str(text).expect("json");
            let canonical = serde_json_canonicalizer::to_vec(&value).expect("canonical");
            assert_eq!(strict_canonical(&canonical), Ok(()), "{text}");
        }
    }
}
