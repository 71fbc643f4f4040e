//! Form bodies (URL Standard, application/x-www-form-urlencoded), with the bracket keys of payment APIs.
//!
//! In: bytes. Out: the pairs in the order they came, written in one form (`name=value`, everything but
//! unreserved characters as `%XX`), and the nested value that policy judges: `a[b]=1` is a member of an
//! object, `a[]=1` an item of a list, and an object whose keys are 0, 1, 2... in order of appearance is an
//! array. A key that gives one place two shapes, or appears twice, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Malformed;
use super::percent::{self, Plus, Undecodable};
use crate::limits;
use crate::model::{Json, Object, Place, ReasonCode};

/// A form in its one form.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    pub encoded: Vec<u8>,
    /// Objects, arrays and strings; the outermost is an object.
    pub value: Json,
}

/// Reads a form that is not empty.
pub fn parse(bytes: &[u8]) -> Result<Form, Malformed> {
    let refuse = |code, at: usize| Malformed::new(code, Place::BodyByte(at as u64));
    if let Some(at) = bytes.iter().position(|b| !b.is_ascii_graphic()) {
        let detail = "Spaces, controls and characters beyond ASCII must be percent-encoded.";
        return Err(refuse(ReasonCode::FormInvalid, at).because(detail));
    }
    let raw = std::str::from_utf8(bytes).expect("visible ASCII is UTF-8");
    let decode = |raw: &str, at: usize| {
        percent::decode(raw, Plus::Space).map_err(|why| match why {
            Undecodable::Triplet(offset) => refuse(ReasonCode::FormInvalid, at + offset)
                .because("A percent sign must be followed by two hex digits."),
            Undecodable::NotUtf8(offset) => refuse(ReasonCode::FormNotUtf8, at + offset),
        })
    };
    let mut encoded = String::with_capacity(raw.len() + raw.len() / 4);
    let mut keys = BTreeSet::new();
    let mut root = Fields::default();
    let mut start = 0;
    for (count, pair) in raw.split('&').enumerate() {
        if count == limits::FORM_KEYS_MAX {
            return Err(refuse(ReasonCode::FormTooManyKeys, start));
        }
        let (raw_key, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        if raw_key.is_empty() {
            return Err(refuse(ReasonCode::FormInvalid, start).because("A form field has a name."));
        }
        let key = decode(raw_key, start)?;
        let value = decode(raw_value, start + raw_key.len() + 1)?;
        if count > 0 {
            encoded.push('&');
        }
        percent::encode(&key, percent::is_unreserved, &mut encoded);
        encoded.push('=');
        percent::encode(&value, percent::is_unreserved, &mut encoded);
        let at_key = |code| Malformed::new(code, Place::FormKey(key.clone()));
        let path = key_path(&key).map_err(at_key)?;
        root.insert(&path, Json::String(value.into())).map_err(at_key)?;
        if !key.ends_with("[]") && !keys.insert(key.clone()) {
            return Err(at_key(ReasonCode::FormDuplicateKey));
        }
        start += pair.len() + 1;
    }
    Ok(Form { encoded: encoded.into(), value: root.into_object() })
}

/// `a[b][]` as `a`, `b` and an empty last step.
fn key_path(key: &str) -> Result<Vec<&str>, ReasonCode> {
    let (name, mut rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    if name.is_empty() || name.contains(']') || key.contains(char::is_control) {
        return Err(ReasonCode::FormKeyInvalid);
    }
    let mut path = vec![name];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
        let (step, after) = inner.ok_or(ReasonCode::FormKeyInvalid)?;
        // `a[][b]` would have to guess which item is meant.
        if step.contains('[') || (step.is_empty() && !after.is_empty()) {
            return Err(ReasonCode::FormKeyInvalid);
        }
        if path.len() == limits::FORM_DEPTH_MAX {
            return Err(ReasonCode::FormTooManyKeys);
        }
        path.push(step);
        rest = after;
    }
    Ok(path)
}

/// One place of the form.
#[derive(Debug)]
enum Node {
    Value(Json),
    List(Vec<Json>),
    Fields(Fields),
}

/// Members in order of first appearance.
#[derive(Debug, Default)]
struct Fields {
    members: Vec<(Arc<str>, Node)>,
    places: BTreeMap<Arc<str>, usize>,
}

impl Fields {
    /// The path has a step.
    fn insert(&mut self, path: &[&str], value: Json) -> Result<(), ReasonCode> {
        let (name, below) = path.split_first().expect("a key has a name");
        let Some(place) = self.places.get(*name) else {
            let name: Arc<str> = (*name).into();
            self.places.insert(name.clone(), self.members.len());
            self.members.push((name, Node::new(below, value)?));
            return Ok(());
        };
        match (&mut self.members[*place].1, below) {
            // The same key once more; `parse` sees that and names it.
            (Node::Value(_), []) => Ok(()),
            (Node::List(items), [""]) => {
                items.push(value);
                Ok(())
            }
            (Node::Fields(fields), [step, ..]) if !step.is_empty() => fields.insert(below, value),
            (Node::Value(_) | Node::List(_) | Node::Fields(_), _) => Err(ReasonCode::FormKeyConflict),
        }
    }

    fn into_object(self) -> Json {
        let members = self.members.into_iter().map(|(name, node)| (name, node.into_json())).collect();
        Json::Object(Object::new(members).expect("each name has one place"))
    }
}

impl Node {
    fn new(below: &[&str], value: Json) -> Result<Self, ReasonCode> {
        match below {
            [] => Ok(Self::Value(value)),
            [""] => Ok(Self::List(vec![value])),
            _ => {
                let mut fields = Fields::default();
                fields.insert(below, value)?;
                Ok(Self::Fields(fields))
            }
        }
    }

    fn into_json(self) -> Json {
        match self {
            Self::Value(value) => value,
            Self::List(items) => Json::Array(items),
            Self::Fields(fields) => {
                let is_array =
                    fields.members.iter().enumerate().all(|(i, (name, _))| **name == *i.to_string());
                if is_array {
                    Json::Array(fields.members.into_iter().map(|(_, node)| node.into_json()).collect())
                } else {
                    fields.into_object()
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        crate::canonical::json::parse(text.as_bytes(), crate::canonical::json::Bounds::BODY).expect(text)
    }

    #[test]
    fn bracket_keys_are_nested_objects_and_lists() {
        for (form, value) in [
            ("amount=100&currency=eur", r#"{"amount":"100","currency":"eur"}"#),
            ("a[b][c]=1&a[d]=2&e=", r#"{"a":{"b":{"c":"1"},"d":"2"},"e":""}"#),
            ("x[]=1&x[]=2&a[b][]=1", r#"{"x":["1","2"],"a":{"b":["1"]}}"#),
            ("i[0][price]=p&i[0][n]=2&i[1][price]=q", r#"{"i":[{"price":"p","n":"2"},{"price":"q"}]}"#),
            ("i[0]=a&i[1]=b&i[0x]=c", r#"{"i":{"0":"a","1":"b","0x":"c"}}"#),
            ("i[1]=a&i[0]=b", r#"{"i":{"1":"a","0":"b"}}"#),
            ("i[1]=a", r#"{"i":{"1":"a"}}"#),
            ("i[00]=a", r#"{"i":{"00":"a"}}"#),
            ("0=a&1=b", r#"{"0":"a","1":"b"}"#),
            ("flag", r#"{"flag":""}"#),
            ("a=b=c&%61+b=%2b+;", r#"{"a":"b=c","a b":"+ ;"}"#),
            ("a%5Bb%5D=%0A%00", r#"{"a":{"b":"\n\u0000"}}"#),
        ] {
            assert_eq!(parse(form.as_bytes()).expect(form).value, json(value), "{form}");
        }
    }

    #[test]
    fn a_form_has_one_form() {
        for (form, encoded) in [
            ("b=1&a=2", "b=1&a=2"),
            ("flag&x=1+2%20%7e", "flag=&x=1%202%20~"),
            ("a[b]=c*!'()", "a%5Bb%5D=c%2A%21%27%28%29"),
            ("x[]=%c3%a9&x%5b]=;", "x%5B%5D=%C3%A9&x%5B%5D=%3B"),
            ("a=b=c", "a=b%3Dc"),
        ] {
            let read = parse(form.as_bytes()).expect(form);
            assert_eq!(String::from_utf8_lossy(&read.encoded), encoded);
            assert_eq!(parse(encoded.as_bytes()), Ok(read), "{form}");
        }
    }

    #[test]
    fn what_is_not_a_form_is_refused_at_its_byte() {
        for (form, code, at) in [
            ("", ReasonCode::FormInvalid, 0),
            ("a=1&&b=2", ReasonCode::FormInvalid, 4),
            ("a=1&", ReasonCode::FormInvalid, 4),
            ("=1", ReasonCode::FormInvalid, 0),
            ("a=1 2", ReasonCode::FormInvalid, 3),
            ("a=1\r\n", ReasonCode::FormInvalid, 3),
            ("a=é", ReasonCode::FormInvalid, 2),
            ("a=\u{7f}", ReasonCode::FormInvalid, 2),
            ("a=1%", ReasonCode::FormInvalid, 3),
            ("a=1&b%4g=1", ReasonCode::FormInvalid, 5),
            ("a=1%41%ff", ReasonCode::FormNotUtf8, 6),
            ("a=1&%c0%af=1", ReasonCode::FormNotUtf8, 4),
        ] {
            let malformed = parse(form.as_bytes()).expect_err(form);
            assert_eq!((malformed.code, malformed.place), (code, Some(Place::BodyByte(at))), "{form}");
        }
    }

    #[test]
    fn keys_that_have_two_readings_are_refused_by_name() {
        for (form, code, key) in [
            ("a=1&b=2&%61=3", ReasonCode::FormDuplicateKey, "a"),
            ("a[b]=1&a%5bb]=2", ReasonCode::FormDuplicateKey, "a[b]"),
            ("[a]=1", ReasonCode::FormKeyInvalid, "[a]"),
            ("[]=1", ReasonCode::FormKeyInvalid, "[]"),
            ("a]=1", ReasonCode::FormKeyInvalid, "a]"),
            ("a[=1", ReasonCode::FormKeyInvalid, "a["),
            ("a[b=1", ReasonCode::FormKeyInvalid, "a[b"),
            ("a[b]c=1", ReasonCode::FormKeyInvalid, "a[b]c"),
            ("a[b]]=1", ReasonCode::FormKeyInvalid, "a[b]]"),
            ("a[[b]]=1", ReasonCode::FormKeyInvalid, "a[[b]]"),
            ("a[[b]=1", ReasonCode::FormKeyInvalid, "a[[b]"),
            ("a[][b]=1", ReasonCode::FormKeyInvalid, "a[][b]"),
            ("a[][]=1", ReasonCode::FormKeyInvalid, "a[][]"),
            ("a%00=1", ReasonCode::FormKeyInvalid, "a\u{0}"),
            ("a=1&a[b]=2", ReasonCode::FormKeyConflict, "a[b]"),
            ("a[b]=1&a=2", ReasonCode::FormKeyConflict, "a"),
            ("a=1&a[]=2", ReasonCode::FormKeyConflict, "a[]"),
            ("a[]=1&a=2", ReasonCode::FormKeyConflict, "a"),
            ("a[b]=1&a[]=2", ReasonCode::FormKeyConflict, "a[]"),
            ("a[]=1&a[b]=2", ReasonCode::FormKeyConflict, "a[b]"),
            ("a[b][c]=1&a[b][]=2", ReasonCode::FormKeyConflict, "a[b][]"),
        ] {
            let malformed = parse(form.as_bytes()).expect_err(form);
            assert_eq!((malformed.code, malformed.place), (code, Some(Place::FormKey(key.into()))), "{form}");
        }
    }

    #[test]
    fn keys_are_bounded_in_number_and_depth() {
        let keys = |n: usize| (0..n).map(|i| format!("k{i}=")).collect::<Vec<_>>().join("&");
        assert!(parse(keys(limits::FORM_KEYS_MAX).as_bytes()).is_ok());
        let over = parse(keys(limits::FORM_KEYS_MAX + 1).as_bytes()).expect_err("one more");
        assert_eq!(over.code, ReasonCode::FormTooManyKeys);
        assert_eq!(over.place, Some(Place::BodyByte(keys(limits::FORM_KEYS_MAX).len() as u64 + 1)));
        let deep = |n: usize| format!("a{}=1", "[b]".repeat(n));
        assert!(parse(deep(limits::FORM_DEPTH_MAX - 1).as_bytes()).is_ok());
        let deeper = parse(deep(limits::FORM_DEPTH_MAX).as_bytes()).expect_err("deeper");
        assert_eq!(deeper.code, ReasonCode::FormTooManyKeys);
    }
}
