//! Disclosures: RFC 9901 section 4.2.1 (members) and 4.2.2 (elements of lists).

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
pub enum NoDisclosure {
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
    pub fn parse(text: &str) -> Result<Self, NoDisclosure> {
        if text.len() > limits::DISCLOSURE_BYTES_MAX {
            return Err(NoDisclosure::TooLarge);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoDisclosure::Encoding)?;
        // One level for the list itself, and what a policy input is deeper than a body.
        let bounds = json::Bounds { depth_max: limits::JSON_DEPTH_MAX + 8, values_max: usize::MAX };
        let value = json::parse(&bytes, bounds).map_err(|_| NoDisclosure::Form)?;
        let Json::Array(list) = value else { return Err(NoDisclosure::Form) };
        let (name, value) = match <[Json; 3]>::try_from(list) {
            Ok([Json::String(_), Json::String(name), value]) => (Some(name), value),
            Ok(_) => return Err(NoDisclosure::Form),
            Err(list) => match <[Json; 2]>::try_from(list) {
                Ok([Json::String(_), value]) => (None, value),
                Ok(_) | Err(_) => return Err(NoDisclosure::Form),
            },
        };
        match name.as_deref().is_some_and(is_reserved) {
            true => Err(NoDisclosure::Name),
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
            ("WyJ=".to_owned(), NoDisclosure::Encoding),
            ("not base64".to_owned(), NoDisclosure::Encoding),
            (encoded("{}"), NoDisclosure::Form),
            (encoded("[]"), NoDisclosure::Form),
            (encoded(r#"["a"]"#), NoDisclosure::Form),
            (encoded(r#"["a","b","c","d"]"#), NoDisclosure::Form),
            (encoded(r#"[1,"b"]"#), NoDisclosure::Form),
            (encoded(r#"["a",2,"c"]"#), NoDisclosure::Form),
            (encoded(r#"["a","a",{"b":1,"b":2}]"#), NoDisclosure::Form),
            (encoded(r#"["a","_sd",1]"#), NoDisclosure::Name),
            (encoded(r#"["a","...",1]"#), NoDisclosure::Name),
            ("A".repeat(limits::DISCLOSURE_BYTES_MAX + 1), NoDisclosure::TooLarge),
        ] {
            assert_eq!(Disclosure::parse(&text), Err(why));
        }
    }

    #[test]
    fn debugging_a_disclosure_shows_its_digest_only() {
        let disclosure = Disclosure::of_element("c2FsdA", Json::string("hunter2"));
        assert!(
            !format!("{disclosure:?}").contains("hunter2") && !format!("{disclosure:?}").contains("c2Fs")
        );
    }
}
