//! Disclosures (RFC 9901): what puts redacted members and elements back into a recorded policy input.
//!
//! A disclosure is base64url of a JSON list, `[salt, name, value]` for a member of an object or `[salt, value]` for an
//! element of a list. The input holds its digest: of members in the list `_sd` of their object, of an element in its
//! place as `{"...": digest}`. A disclosure is found by digest, so one that was changed is not found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Disclosure, NoDisclosure};
use crate::limits;
use crate::model::entry::DisclosureDigest;
use crate::model::{DIGESTS, ELEMENT, Json, Object, escape_step};

/// By digest. What was disclosed is a secret of somebody: it is never shown.
#[derive(Default)]
pub struct Disclosures(BTreeMap<DisclosureDigest, Disclosure>);

/// Not a disclosure. Does not show it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("disclosure {number}: {what}")]
pub struct InvalidDisclosure {
    /// From 1.
    pub number: usize,
    pub what: NoDisclosure,
}

/// An input with everything that was kept out of it.
#[derive(Clone, PartialEq)]
pub struct Restored {
    pub value: Json,
    /// What was put back.
    pub withheld: Vec<Json>,
}

/// Why an input is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unrestored {
    /// Pointers (RFC 6901) into the recorded input, to digests without a disclosure.
    Missing {
        pointers: Vec<String>,
        more: usize,
    },
    Malformed {
        pointer: String,
        what: &'static str,
    },
}

/// Pointers that are named; the rest are counted.
const POINTERS_MAX: usize = 16;

impl Disclosures {
    /// One a line, or with `~` between them as SD-JWT has them.
    pub fn parse(text: &str) -> Result<Self, InvalidDisclosure> {
        let mut all = Self::default();
        let parts = text.split(|c: char| c == '~' || c.is_ascii_whitespace()).filter(|part| !part.is_empty());
        for (number, part) in (1..).zip(parts) {
            let disclosure = Disclosure::parse(part).map_err(|what| InvalidDisclosure { number, what })?;
            all.0.insert(disclosure.digest(), disclosure);
        }
        Ok(all)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The input as policy saw it.
    pub fn restore(&self, recorded: Json) -> Result<Restored, Unrestored> {
        let mut restoring = Restoring {
            disclosures: self,
            used: BTreeSet::new(),
            withheld: Vec::new(),
            missing: Vec::new(),
            more: 0,
        };
        let restored = restoring.value(recorded, &mut Pointer::default())?;
        match restoring.missing {
            missing if missing.is_empty() => Ok(Restored { value: restored, withheld: restoring.withheld }),
            pointers => Err(Unrestored::Missing { pointers, more: restoring.more }),
        }
    }
}

impl FromIterator<Disclosure> for Disclosures {
    fn from_iter<I: IntoIterator<Item = Disclosure>>(disclosures: I) -> Self {
        Self(disclosures.into_iter().map(|d| (d.digest(), d)).collect())
    }
}

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an input with {} values put back", self.withheld.len())
    }
}

impl fmt::Debug for Disclosures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} disclosures", self.0.len())
    }
}

impl fmt::Display for Unrestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { pointers, more } => {
                write!(f, "redacted, and not disclosed: {}", pointers.join(", "))?;
                if *more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::Malformed { pointer, what } => write!(f, "{pointer}: {what}"),
        }
    }
}

/// Steps down to where we are.
#[derive(Default)]
struct Pointer(Vec<String>);

impl Pointer {
    fn text(&self) -> String {
        self.0.iter().fold(String::new(), |text, step| text + "/" + &escape_step(step))
    }
}

struct Restoring<'d> {
    disclosures: &'d Disclosures,
    /// RFC 9901 section 7.1: a digest stands in one place only. It is also what bounds the work.
    used: BTreeSet<DisclosureDigest>,
    withheld: Vec<Json>,
    missing: Vec<String>,
    more: usize,
}

impl<'d> Restoring<'d> {
    fn value(&mut self, value: Json, at: &mut Pointer) -> Result<Json, Unrestored> {
        match value {
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(value),
            Json::Array(items) => {
                let mut restored = Vec::with_capacity(items.len());
                for (n, item) in items.into_iter().enumerate() {
                    let item = self.below(&n.to_string(), at, |this, at| this.element(item, at))?;
                    restored.push(item);
                }
                Ok(Json::Array(restored))
            }
            Json::Object(object) => self.object(&object, at),
        }
    }

    fn below<T>(
        &mut self,
        step: &str,
        at: &mut Pointer,
        then: impl FnOnce(&mut Self, &mut Pointer) -> Result<T, Unrestored>,
    ) -> Result<T, Unrestored> {
        // What one disclosure holds may hold the digest of the next: only the depth bounds that.
        if at.0.len() >= limits::REPLAY_INPUT_DEPTH_MAX {
            return malformed(at, "disclosures nest too deep");
        }
        at.0.push(step.to_owned());
        let done = then(self, at);
        at.0.pop();
        done
    }

    fn element(&mut self, item: Json, at: &mut Pointer) -> Result<Json, Unrestored> {
        let digest = match item.as_object().map(Object::members) {
            Some([(name, digest)]) if &**name == ELEMENT => digest.clone(),
            Some(_) | None => return self.value(item, at),
        };
        self.below(ELEMENT, at, |this, at| match this.take(&digest, at)? {
            None => Ok(Json::Null),
            Some(found) if found.name().is_none() => this.value(found.value().clone(), at),
            Some(_) => malformed(at, "an element's digest, and a member's disclosure"),
        })
    }

    fn object(&mut self, object: &Object, at: &mut Pointer) -> Result<Json, Unrestored> {
        let mut members = Vec::with_capacity(object.members().len());
        for (name, value) in object.members().iter().filter(|(name, _)| &**name != DIGESTS) {
            let value = self.below(name, at, |this, at| this.value(value.clone(), at))?;
            members.push((Arc::clone(name), value));
        }
        if let Some(digests) = object.member(DIGESTS) {
            self.below(DIGESTS, at, |this, at| this.left_out(digests, &mut members, at))?;
        }
        match Object::new(members) {
            Ok(object) => Ok(Json::Object(object)),
            Err(_) => malformed(at, "a disclosed member is there already"),
        }
    }

    fn left_out(
        &mut self,
        digests: &Json,
        members: &mut Vec<(Arc<str>, Json)>,
        at: &mut Pointer,
    ) -> Result<(), Unrestored> {
        let Json::Array(digests) = digests else { return malformed(at, "not a list of digests") };
        for (n, digest) in digests.iter().enumerate() {
            let member = self.below(&n.to_string(), at, |this, at| match this.take(digest, at)? {
                None => Ok(None),
                Some(found) => match found.name() {
                    Some(name) => Ok(Some((Arc::clone(name), this.value(found.value().clone(), at)?))),
                    None => malformed(at, "a member's digest, and an element's disclosure"),
                },
            })?;
            members.extend(member);
        }
        Ok(())
    }

    /// The disclosure of this digest; `None` if it is not at hand, which is noted.
    fn take(&mut self, digest: &Json, at: &Pointer) -> Result<Option<&'d Disclosure>, Unrestored> {
        let Some(digest) = digest.as_str().and_then(|text| text.parse::<DisclosureDigest>().ok()) else {
            return malformed(at, "not the digest of a disclosure");
        };
        let disclosures = self.disclosures;
        let found = disclosures.0.get(&digest);
        if !self.used.insert(digest) {
            return malformed(at, "a digest that stands elsewhere too");
        }
        self.withheld.extend(found.map(|found| found.value().clone()));
        if found.is_none() {
            if self.missing.len() < POINTERS_MAX {
                self.missing.push(at.text());
            } else {
                self.more += 1;
            }
        }
        Ok(found)
    }
}

fn malformed<T>(at: &Pointer, what: &'static str) -> Result<T, Unrestored> {
    Err(Unrestored::Malformed { pointer: at.text(), what })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::canonical;

    fn json(text: &str) -> Json {
        canonical::json::parse(text.as_bytes(), canonical::json::Bounds::BODY).expect("JSON")
    }

    /// A disclosure and its digest.
    fn disclosure(text: &str) -> (String, String) {
        let disclosure = URL_SAFE_NO_PAD.encode(text);
        let digest = DisclosureDigest::of(&disclosure).as_str().to_owned();
        (disclosure, digest)
    }

    #[test]
    fn the_example_of_the_standard_is_read() {
        // RFC 9901 section 4.2.3 and 4.2.1.
        let text = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0";
        let digest = "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0";
        let recorded = json(&format!(r#"{{"_sd":["{digest}"],"given_name":"A"}}"#));
        let restored = Disclosures::parse(text).expect("a disclosure").restore(recorded).expect("whole");
        assert_eq!(restored.value, json(r#"{"family_name":"Möbius","given_name":"A"}"#));
    }

    #[test]
    fn members_and_elements_come_back_at_any_depth_and_in_their_order() {
        let (number, number_digest) = disclosure(r#"["s1","number","4242"]"#);
        let (card, card_digest) =
            disclosure(&format!(r#"["s2","card",{{"_sd":["{number_digest}"],"brand":"visa"}}]"#));
        let (item, item_digest) = disclosure(r#"["s3",{"sku":"b"}]"#);
        let recorded = json(&format!(
            r#"{{"body":{{"_sd":["{card_digest}"],"items":[1,{{"...":"{item_digest}"}},3]}}}}"#
        ));
        let all = Disclosures::parse(&format!("{number}\n{card}~{item}\n")).expect("disclosures");
        let whole = r#"{"body":{"card":{"brand":"visa","number":"4242"},"items":[1,{"sku":"b"},3]}}"#;
        assert_eq!(all.restore(recorded.clone()).map(|restored| restored.value), Ok(json(whole)));

        let without = Disclosures::parse(&card).expect("disclosures").restore(recorded);
        let pointers = vec!["/body/items/1/...".to_owned(), "/body/_sd/0/_sd/0".to_owned()];
        assert_eq!(without, Err(Unrestored::Missing { pointers, more: 0 }));
    }

    #[test]
    fn contradictions_are_refused_with_their_place() {
        let (member, digest) = disclosure(r#"["s","a",1]"#);
        let (element, element_digest) = disclosure(r#"["s",1]"#);
        let all = Disclosures::parse(&format!("{member} {element}")).expect("disclosures");
        let cases = [
            (format!(r#"{{"_sd":["{digest}"],"a":2}}"#), "", "a disclosed member is there already"),
            (format!(r#"{{"_sd":["{digest}","{digest}"]}}"#), "/_sd/1", "a digest that stands elsewhere too"),
            (
                format!(r#"{{"_sd":["{element_digest}"]}}"#),
                "/_sd/0",
                "a member's digest, and an element's disclosure",
            ),
            (
                format!(r#"{{"x":[{{"...":"{digest}"}}]}}"#),
                "/x/0/...",
                "an element's digest, and a member's disclosure",
            ),
            (r#"{"_sd":["short"]}"#.into(), "/_sd/0", "not the digest of a disclosure"),
            (r#"{"_sd":1}"#.into(), "/_sd", "not a list of digests"),
        ];
        for (recorded, pointer, what) in cases {
            let expected = Err(Unrestored::Malformed { pointer: pointer.into(), what });
            assert_eq!(all.restore(json(&recorded)), expected, "{recorded}");
        }
    }

    #[test]
    fn disclosures_that_nest_without_end_are_refused() {
        let (mut text, mut inner) = (String::new(), "1".to_owned());
        for n in 0..200 {
            let (disclosure, digest) = disclosure(&format!(r#"["{n}","a",{inner}]"#));
            text += &(disclosure + "\n");
            inner = format!(r#"{{"_sd":["{digest}"]}}"#);
        }
        let refused = Disclosures::parse(&text).expect("disclosures").restore(json(&inner));
        assert!(matches!(refused, Err(Unrestored::Malformed { what: "disclosures nest too deep", .. })));
    }

    #[test]
    fn what_is_no_disclosure_is_refused_by_its_number() {
        let (good, _) = disclosure(r#"["s","a",1]"#);
        let bad = ["a=", "bm90IEpTT04", &URL_SAFE_NO_PAD.encode("[1,2]"), &URL_SAFE_NO_PAD.encode("{}")];
        for bad in bad.into_iter().chain([&*URL_SAFE_NO_PAD.encode(r#"["s","_sd",[]]"#)]) {
            let refused = Disclosures::parse(&format!("{good}\n{bad}\n")).expect_err("refused");
            assert_eq!(refused.number, 2, "{bad}");
        }
    }
}
