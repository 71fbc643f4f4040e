//! Disclosures: RFC 9901 section 4.2.1 (members) and 4.2.2 (elements of lists).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::canonical::json;
use crate::limits;
use crate::model::entry::DisclosureDigest;
use crate::model::{Json, is_reserved};

/// A value with its salt, and its name if it is a member: what a digest in a leaf stands for.
#[derive(Clone, PartialEq)]
pub struct Disclosure {
    text: Arc<str>,
    name: Option<Arc<str>>,
    value: Json,
}

/// The text is no disclosure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDisclosure {
    #[error("not base64url without padding")]
    Encoding,
    #[error("not a JSON list of salt, name and value, or of salt and value")]
    Form,
    #[error("the name is `_sd` or `...`, which no member has")]
    Name,
    #[error("larger than {} bytes", limits::DISCLOSURE_BYTES_MAX)]
    TooLarge,
}

impl Disclosure {
    /// Of a member of an object.
    pub fn of_member(salt: &str, name: &str, value: Json) -> Self {
        let list = vec![Json::string(salt), Json::string(name), value];
        Self::of(list, Some(name.into()))
    }

    /// Of an element of a list.
    pub fn of_element(salt: &str, value: Json) -> Self {
        Self::of(vec![Json::string(salt), value], None)
    }

    fn of(list: Vec<Json>, name: Option<Arc<str>>) -> Self {
        let list = Json::Array(list);
        let text = URL_SAFE_NO_PAD.encode(json::write(&list)).into();
        let Json::Array(mut list) = list else { unreachable!("made two lines above") };
        Self { text, name, value: list.pop().expect("a list of two or three") }
    }

    /// Reads one as it is handed over. The digest is of these very characters.
    pub fn parse(text: &str) -> Result<Self, InvalidDisclosure> {
        if text.len() > limits::DISCLOSURE_BYTES_MAX {
            return Err(InvalidDisclosure::TooLarge);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidDisclosure::Encoding)?;
        // One level for the list itself, and what a policy input is deeper than a body.
        let bounds = json::Bounds { depth_max: limits::JSON_DEPTH_MAX + 8, values_max: usize::MAX };
        let value = json::parse(&bytes, bounds).map_err(|_| InvalidDisclosure::Form)?;
        let Json::Array(list) = value else { return Err(InvalidDisclosure::Form) };
        let (name, value) = match <[Json; 3]>::try_from(list) {
            Ok([Json::String(_), Json::String(name), value]) => (Some(name), value),
            Ok(_) => return Err(InvalidDisclosure::Form),
            Err(list) => match <[Json; 2]>::try_from(list) {
                Ok([Json::String(_), value]) => (None, value),
                Ok(_) | Err(_) => return Err(InvalidDisclosure::Form),
            },
        };
        match name.as_deref().is_some_and(is_reserved) {
            true => Err(InvalidDisclosure::Name),
            false => Ok(Self { text: text.into(), name, value }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn digest(&self) -> DisclosureDigest {
        DisclosureDigest::of(&self.text)
    }

    /// `None` for an element.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    pub fn value(&self) -> &Json {
        &self.value
    }
}

/// Without what is kept out of logs.
impl fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disclosure({})", self.digest().as_str())
    }
}

/// Disclosures by their digests.
#[derive(Clone, Debug, Default)]
pub struct Disclosures(BTreeMap<DisclosureDigest, Disclosure>);

impl Disclosures {
    /// One a line; empty lines say nothing. `Err` has the line, from 1.
    pub fn parse(lines: &str) -> Result<Self, (usize, InvalidDisclosure)> {
        let numbered = lines.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        numbered.map(|(at, line)| Disclosure::parse(line).map_err(|why| (at + 1, why))).collect()
    }

    pub fn get(&self, digest: &DisclosureDigest) -> Option<&Disclosure> {
        self.0.get(digest)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Disclosure> for Disclosures {
    fn from_iter<I: IntoIterator<Item = Disclosure>>(disclosures: I) -> Self {
        Self(disclosures.into_iter().map(|d| (d.digest(), d)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    #[test]
    fn a_disclosure_is_a_list_in_base64url_and_its_digest_is_of_the_characters() {
        let member = Disclosure::of_member("c2FsdA", "family_name", Json::string("Müller"));
        assert_eq!(member.as_str(), encoded(r#"["c2FsdA","family_name","Müller"]"#));
        assert_eq!(Disclosure::parse(member.as_str()), Ok(member.clone()));
        let element = Disclosure::of_element("c2FsdA", Json::object([]));
        assert_eq!(element.as_str(), encoded(r#"["c2FsdA",{}]"#));
        assert_eq!((element.name(), element.value()), (None, &Json::object([])));
        assert_eq!(Disclosure::parse(element.as_str()), Ok(element));
    }

    /// RFC 9901 section 4.2.3 gives both, one for a member and one for an element.
    #[test]
    fn digests_are_those_of_the_rfc() {
        for (text, name, digest) in [
            (
                "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0",
                Some("family_name"),
                "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0",
            ),
            (
                "WyJsa2x4RjVqTVlsR1RQVW92TU5JdkNBIiwgIkZSIl0",
                None,
                "w0I8EKcdCtUPkGCNUrfwVp2xEgNjtoIDlOxc9-PlOhs",
            ),
        ] {
            let disclosure = Disclosure::parse(text).expect("a disclosure");
            assert_eq!(disclosure.name().map(|n| &**n), name);
            assert_eq!(disclosure.digest().as_str(), digest);
        }
    }

    #[test]
    fn what_is_no_disclosure_is_refused() {
        for (text, why) in [
            ("WyJ=".to_owned(), InvalidDisclosure::Encoding),
            ("not base64".to_owned(), InvalidDisclosure::Encoding),
            (encoded("{}"), InvalidDisclosure::Form),
            (encoded("[]"), InvalidDisclosure::Form),
            (encoded(r#"["a"]"#), InvalidDisclosure::Form),
            (encoded(r#"["a","b","c","d"]"#), InvalidDisclosure::Form),
            (encoded(r#"[1,"b"]"#), InvalidDisclosure::Form),
            (encoded(r#"["a",2,"c"]"#), InvalidDisclosure::Form),
            (encoded(r#"["a","a",{"b":1,"b":2}]"#), InvalidDisclosure::Form),
            (encoded(r#"["a","_sd",1]"#), InvalidDisclosure::Name),
            (encoded(r#"["a","...",1]"#), InvalidDisclosure::Name),
            ("A".repeat(limits::DISCLOSURE_BYTES_MAX + 1), InvalidDisclosure::TooLarge),
        ] {
            assert_eq!(Disclosure::parse(&text), Err(why));
        }
        let list = format!("\n{}\n\nx y\n", encoded(r#"["a","b"]"#));
        assert_eq!(Disclosures::parse(&list).err(), Some((4, InvalidDisclosure::Encoding)));
        assert_eq!(Disclosures::parse(&list.replace("x y", "")).expect("lines").len(), 1);
    }

    #[test]
    fn debugging_a_disclosure_shows_its_digest_only() {
        let disclosure = Disclosure::of_element("c2FsdA", Json::string("hunter2"));
        assert!(
            !format!("{disclosure:?}").contains("hunter2") && !format!("{disclosure:?}").contains("c2Fs")
        );
    }
}
