//! A JSON value that has exactly one reading: no duplicate names, numbers exact, members in RFC 8785 order.
//!
//! Only `canonical::json` builds one from bytes. The type itself keeps two promises: members of an
//! object are unique and sorted by UTF-16 code units (RFC 8785 section 3.2.3), and a number is finite.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(Arc<str>),
    Array(Vec<Json>),
    Object(Object),
}

/// A finite IEEE 754 double, the only numbers RFC 8785 knows. Negative zero is zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Number(f64);

impl Number {
    /// `None` for NaN and the infinities.
    pub fn new(value: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0 and changes nothing else.
        value.is_finite().then_some(Self(value + 0.0))
    }

    pub const fn as_f64(self) -> f64 {
        self.0
    }

    /// The value as an integer, if it is one and every integer up to it has its own double.
    pub fn as_exact_i64(self) -> Option<i64> {
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53
        (self.0.fract() == 0.0 && self.0.abs() <= EXACT_MAX).then_some(self.0 as i64)
    }
}

/// Members of an object, unique and in RFC 8785 order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(Arc<str>, Json)>);

impl Object {
    /// Sorts the members; `Err` holds a name that appears twice.
    pub fn new(mut members: Vec<(Arc<str>, Json)>) -> Result<Self, Arc<str>> {
        members.sort_by(|a, b| Self::order(&a.0, &b.0));
        match members.windows(2).find(|w| w[0].0 == w[1].0) {
            Some(w) => Err(w[0].0.clone()),
            None => Ok(Self(members)),
        }
    }

    /// RFC 8785 section 3.2.3: names are compared as arrays of UTF-16 code units.
    pub fn order(a: &str, b: &str) -> Ordering {
        if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
    }

    pub fn members(&self) -> &[(Arc<str>, Json)] {
        &self.0
    }

    pub fn into_members(self) -> Vec<(Arc<str>, Json)> {
        self.0
    }

    pub fn member(&self, name: &str) -> Option<&Json> {
        self.0.binary_search_by(|(n, _)| Self::order(n, name)).ok().map(|at| &self.0[at].1)
    }
}

impl Json {
    pub fn string(text: &str) -> Self {
        Self::String(text.into())
    }

    /// An object from names that are known to differ, such as literals in our own code.
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Self {
        let members = members.into_iter().map(|(n, v)| (n.into(), v)).collect();
        Self::Object(Object::new(members).expect("the caller's literal names differ"))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// What is at these steps of a pointer (RFC 6901 section 4): names of members, indices without leading zeros.
    pub fn at(&self, steps: &[Arc<str>]) -> Option<&Json> {
        let index = |step: &str| {
            let plain = step.bytes().all(|b| b.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
            step.parse::<usize>().ok().filter(|_| plain)
        };
        steps.iter().try_fold(self, |at, step| match at {
            Self::Object(object) => object.member(step),
            Self::Array(items) => items.get(index(step)?),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => None,
        })
    }

    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(o) => Some(o),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }
}

/// Members in order; a whole number below 2^53 as an integer. The RFC 8785 writer for request bodies is
/// `canonical::json::write`; this one serves values inside leaves, which hold integers only.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => s.serialize_unit(),
            Self::Bool(b) => s.serialize_bool(*b),
            Self::Number(n) => match n.as_exact_i64() {
                Some(i) => s.serialize_i64(i),
                None => s.serialize_f64(n.as_f64()),
            },
            Self::String(t) => s.serialize_str(t),
            Self::Array(items) => {
                let mut seq = s.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Object(o) => {
                let mut map = s.serialize_map(Some(o.0.len()))?;
                o.0.iter().try_for_each(|(name, value)| map.serialize_entry(&**name, value))?;
                map.end()
            }
        }
    }
}

/// For our own leaves and config values; request bodies are read by `canonical::json` only.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Json, E> {
        Ok(Json::Bool(b))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Json, E> {
        exact(n as f64, n as f64 as i128 == i128::from(n))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Json, E> {
        exact(n as f64, n as f64 as i128 == i128::from(n))
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<Json, E> {
        exact(n, true)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::string(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            members.push((name.into(), value));
        }
        Object::new(members)
            .map(Json::Object)
            .map_err(|name| de::Error::custom(format_args!("member `{name}` appears twice")))
    }
}

fn exact<E: de::Error>(value: f64, is_exact: bool) -> Result<Json, E> {
    Number::new(value)
        .filter(|_| is_exact)
        .map(Json::Number)
        .ok_or_else(|| E::custom("a number is not exactly a double"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_sort_by_utf16_not_by_bytes() {
        // U+FB33 is one unit 0xFB33; U+1F600 is the pair 0xD83D 0xDE00 and so comes first.
        let o = Object::new(vec![
            ("\u{fb33}".into(), Json::Null),
            ("\u{1f600}".into(), Json::Null),
            ("a".into(), Json::Null),
        ])
        .expect("names differ");
        let names: Vec<_> = o.members().iter().map(|(n, _)| &**n).collect();
        assert_eq!(names, ["a", "\u{1f600}", "\u{fb33}"]);
        assert!(o.member("\u{fb33}").is_some() && o.member("b").is_none());
    }

    #[test]
    fn a_name_that_appears_twice_is_refused() {
        let twice = vec![("a".into(), Json::Null), ("a".into(), Json::Bool(true))];
        assert_eq!(Object::new(twice).expect_err("twice"), "a".into());
    }

    #[test]
    fn numbers_are_finite_and_zero_has_no_sign() {
        assert!(Number::new(f64::NAN).is_none() && Number::new(f64::INFINITY).is_none());
        assert!(Number::new(-0.0).expect("finite").as_f64().is_sign_positive());
        assert_eq!(Number::new(1e15).expect("finite").as_exact_i64(), Some(1_000_000_000_000_000));
        assert_eq!(Number::new(1e16).expect("finite").as_exact_i64(), None);
        assert_eq!(Number::new(0.5).expect("finite").as_exact_i64(), None);
    }
}
