//! Queries, in the application/x-www-form-urlencoded reading of the URL Standard: `&` separates, the first
//! `=` divides, `+` is a space. Written again with everything but unreserved characters as `%XX`, so that
//! an upstream of any other reading finds the same pairs; `flag` stays without `=`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::path::is_path_character;
use super::refuse;
use crate::canonical::Malformed;
use crate::canonical::percent::{self, Plus, Undecodable};
use crate::limits;
use crate::model::{Json, Object, Place, ReasonCode};

/// Names and values, decoded, in the order they came.
pub(super) type Pairs = Vec<(String, Option<String>)>;

/// Appends `?` and the one form of the query. `at` is the query's offset in the target.
pub(super) fn read(raw: &str, at: usize, out: &mut String) -> Result<Pairs, Malformed> {
    // Brackets are outside of RFC 3986's set, but have one reading and are what payment APIs are sent.
    let is_query_character = |b: u8| is_path_character(b) || matches!(b, b'/' | b'?' | b'[' | b']' | b'%');
    if let Some(offset) = raw.bytes().position(|b| !is_query_character(b)) {
        return Err(refuse(ReasonCode::TargetCharacterInvalid, at + offset));
    }
    let mut pairs = Vec::new();
    let mut start = at;
    for pair in raw.split('&') {
        if pairs.len() == limits::QUERY_PAIRS_MAX {
            return Err(refuse(ReasonCode::QueryCountOver, start));
        }
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (pair, None),
        };
        if name.is_empty() {
            return Err(refuse(ReasonCode::QueryMalformed, start).because("A query parameter has a name."));
        }
        out.push(if pairs.is_empty() { '?' } else { '&' });
        let read_name = read_part(name, start, out)?;
        let read_value = match value {
            Some(value) => {
                out.push('=');
                Some(read_part(value, start + name.len() + 1, out)?)
            }
            None => None,
        };
        pairs.push((read_name, read_value));
        start += pair.len() + 1;
    }
    Ok(pairs)
}

fn read_part(raw: &str, at: usize, out: &mut String) -> Result<String, Malformed> {
    let decoded = percent::decode(raw, Plus::Space).map_err(|why| match why {
        Undecodable::Triplet(offset) => refuse(ReasonCode::TargetPercentInvalid, at + offset),
        Undecodable::NotUtf8(offset) => refuse(ReasonCode::TargetNotUtf8, at + offset),
    })?;
    if let Some(offset) = decoded.find(char::is_control) {
        return Err(refuse(ReasonCode::TargetEncodedControl, at + percent::raw_offset(raw, offset)));
    }
    percent::encode(&decoded, percent::is_unreserved, out);
    Ok(decoded)
}

/// A name's type never depends on how often it was sent, nor on who reads it: many servers make one parameter of
/// `a` and `a[b]`, and do not agree on which.
pub(super) fn object(pairs: &Pairs, lists: &BTreeSet<Arc<str>>) -> Result<Json, Malformed> {
    let mut members: BTreeMap<&str, Json> = BTreeMap::new();
    let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in pairs {
        let (base, key) = name.split_at(name.find('[').unwrap_or(name.len()));
        let shape = if matches!(key, "" | "[]") { key } else { "[key]" };
        if *keys.entry(base).or_insert(shape) != shape {
            let detail = "The same parameter has been sent in another form, with or without brackets.";
            return Err(
                Malformed::new(ReasonCode::QueryDuplicate, Place::Query(name.clone())).because(detail)
            );
        }
        let value = Json::string(value.as_deref().unwrap_or(""));
        let is_list = name.ends_with("[]") || lists.contains(name.as_str());
        match (members.get_mut(name.as_str()), is_list) {
            (Some(Json::Array(items)), _) => items.push(value),
            (Some(_), _) => {
                return Err(Malformed::new(ReasonCode::QueryDuplicate, Place::Query(name.clone())));
            }
            (None, true) => drop(members.insert(name, Json::Array(vec![value]))),
            (None, false) => drop(members.insert(name, value)),
        }
    }
    let members = members.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Ok(Json::Object(Object::new(members).expect("the names of a map differ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_form(raw: &str) -> Result<(String, Pairs), Malformed> {
        let mut out = String::new();
        let pairs = read(raw, 10, &mut out)?;
        Ok((out, pairs))
    }

    fn pair(name: &str, value: Option<&str>) -> (String, Option<String>) {
        (name.into(), value.map(Into::into))
    }

    #[test]
    fn a_query_has_one_form() {
        for (raw, form) in [
            ("a=b&c=d", "?a=b&c=d"),
            ("a=1+2%202&b=%2B", "?a=1%202%202&b=%2B"),
            ("flag&empty=", "?flag&empty="),
            ("a=b=c", "?a=b%3Dc"),
            ("%61=%7e", "?a=~"),
            ("ids[]=1&ids%5b%5d=2", "?ids%5B%5D=1&ids%5B%5D=2"),
            ("q=a;b%3bc/?:@!$'()*,", "?q=a%3Bb%3Bc%2F%3F%3A%40%21%24%27%28%29%2A%2C"),
            ("q=%26%3D%23%5c", "?q=%26%3D%23%5C"),
            ("q=%c3%a9", "?q=%C3%A9"),
        ] {
            let (out, pairs) = one_form(raw).expect(raw);
            assert_eq!(out, form, "{raw}");
            assert_eq!(one_form(&out[1..]), Ok((out.clone(), pairs)), "{raw}");
        }
    }

    #[test]
    fn pairs_are_what_forms_read() {
        let (_, pairs) = one_form("a+b=c+%2B&flag&x==&a;b=1").expect("pairs");
        let expected =
            [pair("a b", Some("c +")), pair("flag", None), pair("x", Some("=")), pair("a;b", Some("1"))];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn what_is_not_a_list_of_pairs_is_refused_at_its_byte() {
        for (raw, code, at) in [
            ("", ReasonCode::QueryMalformed, 10),
            ("a=1&&b=2", ReasonCode::QueryMalformed, 14),
            ("a=1&", ReasonCode::QueryMalformed, 14),
            ("a&=1", ReasonCode::QueryMalformed, 12),
            ("a=%", ReasonCode::TargetPercentInvalid, 12),
            ("a=1&b%4=1", ReasonCode::TargetPercentInvalid, 15),
            ("ab=c%ff", ReasonCode::TargetNotUtf8, 14),
            ("a=%41%00", ReasonCode::TargetEncodedControl, 15),
            ("a%0a=1", ReasonCode::TargetEncodedControl, 11),
            ("a=\"", ReasonCode::TargetCharacterInvalid, 12),
            ("a=\\", ReasonCode::TargetCharacterInvalid, 12),
            ("a= ", ReasonCode::TargetCharacterInvalid, 12),
            ("a=é", ReasonCode::TargetCharacterInvalid, 12),
            ("a={}", ReasonCode::TargetCharacterInvalid, 12),
        ] {
            let malformed = one_form(raw).expect_err(raw);
            assert_eq!((malformed.code, malformed.place), (code, Some(Place::TargetByte(at))), "{raw}");
        }
        let most = vec!["a"; limits::QUERY_PAIRS_MAX].join("&");
        assert!(one_form(&most).is_ok());
        let over = one_form(&format!("{most}&a")).expect_err("one more");
        assert_eq!((over.code, over.place), (ReasonCode::QueryCountOver, Some(Place::TargetByte(522))));
    }

    #[test]
    fn a_name_repeats_only_where_it_always_is_a_list() {
        let lists = BTreeSet::from(["id".into()]);
        let of = |raw: &str| object(&one_form(raw).expect(raw).1, &lists);
        let list = |items: &[&str]| Json::Array(items.iter().map(|i| Json::string(i)).collect());
        assert_eq!(
            of("id=1&z&x%5b%5d=3&id=2&id&y=4"),
            Ok(Json::object([
                ("id", list(&["1", "2", ""])),
                ("x[]", list(&["3"])),
                ("y", Json::string("4")),
                ("z", Json::string("")),
            ]))
        );
        assert_eq!(of("id=1"), Ok(Json::object([("id", list(&["1"]))])));
        for raw in ["a=1&a[]=2", "a[]=2&a=1", "a=1&a%5Bb%5D=2", "a[b]=1&a[]=2", "a&a[b][c]=1"] {
            let refused = of(raw).expect_err(raw);
            assert_eq!(refused.code, ReasonCode::QueryDuplicate, "{raw}");
        }
        assert!(of("a[b]=1&a[c]=2&b[]=1&b[]=2&c=1").is_ok());
        let twice = Malformed::new(ReasonCode::QueryDuplicate, Place::Query("y".into()));
        assert_eq!(of("y=1&id=1&%79=1"), Err(twice));
    }
}
