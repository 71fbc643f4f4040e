//! Between our JSON and the engine's values; never through JSON text.

use std::sync::Arc;

use regorus::Value;

use super::evaluate::Unusable;
use crate::model::{Json, Number, Object, PolicyReason};

/// The engine's value of a JSON tree. A whole number is the integer its RFC 8785 text spells, so policy
/// computes with exactly the digits that evidence shows; from 1e21 on, where that text has an exponent,
/// and for fractions, it is the double.
pub(super) fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => number_of(*n),
        Json::String(s) => Value::String(s.clone()),
        Json::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(o) => {
            let members = o.members().iter().map(|(name, v)| (Value::String(name.clone()), value_of(v)));
            members.collect::<regorus::value::Object>().into_value()
        }
    }
}

fn number_of(n: Number) -> Value {
    if let Some(i) = n.as_exact_i64() {
        return Value::from(i);
    }
    let double = n.as_f64();
    // The shortest digits that read back as this double, padded with zeros: RFC 8785's text below 1e21.
    match format!("{double}").parse::<i128>() {
        Ok(i) if double.abs() < 1e21 => Value::from(i),
        _ => Value::from(double),
    }
}

/// One element of a policy set as the leaf holds it.
pub(super) fn reason_of(element: &Value) -> Result<PolicyReason, Unusable> {
    match element {
        Value::String(code) => Ok(PolicyReason { code: code_of(code)?, detail: None, message: None }),
        Value::Object(members) => {
            let mut code = None;
            let mut message = None;
            let mut detail = Vec::new();
            for (name, value) in members.iter_sorted() {
                match (name, value) {
                    (Value::String(name), Value::String(text)) if &**name == "code" => {
                        code = Some(code_of(text)?)
                    }
                    (Value::String(name), Value::String(text)) if &**name == "message" => {
                        message = Some(text.clone());
                    }
                    (Value::String(name), _) if matches!(&**name, "code" | "message") => {
                        return Err(Unusable("`code` and `message` must be strings"));
                    }
                    (name, value) => detail.push((name_of(name)?, leaf_of(value)?)),
                }
            }
            let code = code.ok_or(Unusable("an element without `code`"))?;
            let detail = if detail.is_empty() { None } else { Some(object_of(detail)?) };
            Ok(PolicyReason { code, detail, message })
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Set(_)
        | Value::Undefined => Err(Unusable("an element that is neither a string nor an object")),
    }
}

fn code_of(text: &Arc<str>) -> Result<Arc<str>, Unusable> {
    let fits = (1..=crate::limits::POLICY_REASON_CODE_BYTES_MAX).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        Ok(text.clone())
    } else {
        Err(Unusable("a code that is empty, too long or holds control characters"))
    }
}

/// A value in the form leaves allow: no null, integers below 2^53 only, sets as sorted arrays.
fn leaf_of(value: &Value) -> Result<Json, Unusable> {
    match value {
        Value::Null => Ok(Json::string("null")),
        Value::Bool(b) => Ok(Json::Bool(*b)),
        Value::String(s) => Ok(Json::String(s.clone())),
        Value::Number(_) => {
            let small = value.as_i64().ok().filter(|i| i.unsigned_abs() < 1 << 53);
            match small.and_then(|i| Number::new(i as f64)) {
                Some(n) => Ok(Json::Number(n)),
                None => Ok(Json::String(text_of(value)?)),
            }
        }
        Value::Array(items) => items.iter().map(leaf_of).collect::<Result<_, _>>().map(Json::Array),
        Value::Set(items) => items.iter().map(leaf_of).collect::<Result<_, _>>().map(Json::Array),
        Value::Object(members) => {
            let members = members.iter_sorted().map(|(name, v)| Ok((name_of(name)?, leaf_of(v)?)));
            object_of(members.collect::<Result<_, _>>()?)
        }
        Value::Undefined => Err(Unusable("an undefined value")),
    }
}

fn object_of(members: Vec<(Arc<str>, Json)>) -> Result<Json, Unusable> {
    Object::new(members).map(Json::Object).map_err(|_| Unusable("two members with one name"))
}

/// A member's name; a key that is no string stands as its JSON text.
fn name_of(key: &Value) -> Result<Arc<str>, Unusable> {
    match key {
        Value::String(s) => Ok(s.clone()),
        other => text_of(other),
    }
}

fn text_of(value: &Value) -> Result<Arc<str>, Unusable> {
    serde_json::to_string(value).map(Arc::from).map_err(|_| Unusable("a value with no JSON text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::json::{self, Bounds};

    fn parse(text: &str) -> Json {
        json::parse(text.as_bytes(), Bounds { depth_max: 64, values_max: 1_000 }).expect("strict JSON")
    }

    #[test]
    fn policy_computes_with_exactly_the_digits_of_the_evidence() {
        for digits in [
            "0",
            "-7",
            "9007199254740991",
            "9007199254740992",
            "1763643600123456000",
            "-100000000000000000000",
        ] {
            let tree = parse(digits);
            assert_eq!(json::write(&tree), digits.as_bytes(), "{digits}");
            let integer: i128 = digits.parse().expect("an integer");
            assert_eq!(value_of(&tree), Value::from(integer), "{digits}");
        }
        assert_eq!(value_of(&parse("1.5")), Value::from(1.5));
        assert_eq!(value_of(&parse("1e21")), Value::from(1e21));
    }

    #[test]
    fn every_microsecond_until_2116_has_its_own_digits() {
        let mut us: u64 = 1_000_000_000_000_000;
        while us < 4_600_000_000_000_000 {
            let ns = us * 1_000;
            let tree = Json::Number(Number::new(ns as f64).expect("finite"));
            assert_eq!(json::write(&tree), ns.to_string().as_bytes());
            assert_eq!(value_of(&tree), Value::from(ns));
            us += 7_777_777_777_777;
        }
    }

    #[test]
    fn the_value_of_a_tree_is_what_the_engine_reads_from_its_bytes() {
        let tree = parse(r#"{"a":[1,2.5,"x",null,true,{"\u00e9":{}}],"b":{"c":-3}}"#);
        let text = String::from_utf8(json::write(&tree)).expect("UTF-8");
        assert_eq!(value_of(&tree), Value::from_json_str(&text).expect("JSON"));
    }

    #[test]
    fn a_member_named_like_the_readers_own_is_only_a_member() {
        let tree = parse(r#"{"amount":{"$serde_json::private::Number":"5"}}"#);
        let value = value_of(&tree);
        assert!(value["amount"].as_object().is_ok());
    }
}
