//! Puts back what disclosures hold (RFC 9901 section 7.1).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Disclosure, Disclosures};
use crate::model::entry::DisclosureDigest;
use crate::model::{DIGESTS, ELEMENT, Json, Object, escape_step};

/// A tree with what could be put back.
#[derive(Clone, PartialEq)]
pub struct Restored {
    /// Without any trace of redaction. If nothing is missing, this is the tree before it was redacted.
    pub value: Json,
    /// What was put back, in the order of the tree.
    pub withheld: Vec<Json>,
    /// What was kept out and has no disclosure here.
    pub missing: Vec<Missing>,
}

impl Restored {
    /// Whether the tree was redacted at all.
    pub fn was_redacted(&self) -> bool {
        !(self.withheld.is_empty() && self.missing.is_empty())
    }
}

/// A digest without a disclosure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// RFC 6901: of the object that lacks a member, whose name is not known, or of the element.
    pub pointer: String,
    pub digest: DisclosureDigest,
}

/// The tree is not redacted JSON, or a disclosure does not fit where its digest stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRestorable {
    #[error("`{pointer}`: what stands for redacted values is not a digest, or not a list of digests")]
    Digests { pointer: String },
    #[error("`{pointer}`: the same digest stands in two places")]
    Twice { pointer: String },
    #[error("`{pointer}`: a disclosed member has a name that is there already")]
    Name { pointer: String },
    #[error("`{pointer}`: the disclosure is of a member where an element was, or the other way round")]
    Kind { pointer: String },
}

/// Every value whose disclosure is at hand goes back to its place.
///
/// Nothing inside a disclosed value was redacted, so it is put back as it is.
pub fn restore(redacted: Json, disclosures: &Disclosures) -> Result<Restored, NotRestorable> {
    let mut walk = Walk {
        disclosures,
        seen: BTreeSet::new(),
        path: Vec::new(),
        withheld: Vec::new(),
        missing: Vec::new(),
    };
    let value = walk.value(redacted)?;
    Ok(Restored { value, withheld: walk.withheld, missing: walk.missing })
}

struct Walk<'d> {
    disclosures: &'d Disclosures,
    seen: BTreeSet<DisclosureDigest>,
    /// Steps to the value at hand.
    path: Vec<Arc<str>>,
    withheld: Vec<Json>,
    missing: Vec<Missing>,
}

impl Walk<'_> {
    fn pointer(&self) -> String {
        self.path.iter().map(|step| format!("/{}", escape_step(step))).collect()
    }

    fn value(&mut self, value: Json) -> Result<Json, NotRestorable> {
        match value {
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(value),
            Json::Object(object) => self.object(object).map(Json::Object),
            Json::Array(items) => {
                let mut restored = Vec::with_capacity(items.len());
                for (at, item) in items.into_iter().enumerate() {
                    self.path.push(at.to_string().into());
                    restored.extend(self.element(item)?);
                    self.path.pop();
                }
                Ok(Json::Array(restored))
            }
        }
    }

    fn object(&mut self, object: Object) -> Result<Object, NotRestorable> {
        let mut members = Vec::new();
        for (name, value) in object.into_members() {
            if &*name == DIGESTS {
                self.members(&value, &mut members)?;
            } else if &*name == ELEMENT {
                // A whole object in the place of an element was taken by `element`.
                return Err(NotRestorable::Digests { pointer: self.pointer() });
            } else {
                self.path.push(name.clone());
                let value = self.value(value)?;
                self.path.pop();
                members.push((name, value));
            }
        }
        Object::new(members).map_err(|_| NotRestorable::Name { pointer: self.pointer() })
    }

    fn members(&mut self, digests: &Json, members: &mut Vec<(Arc<str>, Json)>) -> Result<(), NotRestorable> {
        let Json::Array(digests) = digests else {
            return Err(NotRestorable::Digests { pointer: self.pointer() });
        };
        for digest in digests {
            let Some(disclosure) = self.find(digest)? else { continue };
            let Some(name) = disclosure.name() else {
                return Err(NotRestorable::Kind { pointer: self.pointer() });
            };
            members.push((name.clone(), disclosure.value().clone()));
            self.withheld.push(disclosure.value().clone());
        }
        Ok(())
    }

    /// `None` for an element that is missing.
    fn element(&mut self, item: Json) -> Result<Option<Json>, NotRestorable> {
        let digest = match item.as_object().map(Object::members) {
            Some([(name, digest)]) if &**name == ELEMENT => digest.clone(),
            Some(_) | None => return self.value(item).map(Some),
        };
        let Some(disclosure) = self.find(&digest)? else { return Ok(None) };
        if disclosure.name().is_some() {
            return Err(NotRestorable::Kind { pointer: self.pointer() });
        }
        self.withheld.push(disclosure.value().clone());
        Ok(Some(disclosure.value().clone()))
    }

    fn find(&mut self, digest: &Json) -> Result<Option<Disclosure>, NotRestorable> {
        let digest: Option<DisclosureDigest> = digest.as_str().and_then(|text| text.parse().ok());
        let digest = digest.ok_or_else(|| NotRestorable::Digests { pointer: self.pointer() })?;
        if !self.seen.insert(digest.clone()) {
            return Err(NotRestorable::Twice { pointer: self.pointer() });
        }
        let found = self.disclosures.get(&digest).cloned();
        if found.is_none() {
            self.missing.push(Missing { pointer: self.pointer(), digest });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::canonical::json;
    use crate::clock::WallTime;
    use crate::model::{Pointer, ReceiptId, Redaction, reserved_name};
    use crate::redaction::{EpochKey, NotRedactable, Salter, redact};

    const TREE: &str = r#"{"actor":{"claims":{"mail":"a@example.org","roles":["agent"]},"id":"agent-7"},"request":{
        "body":{"card":{"cvc":"123","number":"4111"},"items":[{"iban":"DE1","n":1},{"iban":"DE2","n":2},{"n":3}],
        "pins":[1,2,3]},"digest":"sha-256:aa","headers":{"x-patient-id":"p-1"},"params":{"id":"7"},"path":"/v1/7"}}"#;

    fn read(text: &str) -> Json {
        json::parse(text.as_bytes(), json::Bounds::BODY).expect(text)
    }

    fn salter() -> Salter {
        let id = ReceiptId::new(WallTime::from_unix_ns(1_763_643_600_123_456_000), [7; 10]);
        EpochKey::new(Zeroizing::new([1; 32])).salter(id)
    }

    fn redaction(pointers: &[&str]) -> Redaction {
        let pointers: Vec<Pointer> = pointers.iter().map(|p| p.parse().expect(p)).collect();
        Redaction::new(&pointers, false).expect("something")
    }

    const POINTERS: &[&str] = &[
        "/request/body/card/number",
        "/request/body/items/*/iban",
        "/request/body/pins/*",
        "/request/headers/x-patient-id",
        "/request/params/id",
        "/actor/claims/mail",
    ];

    fn member(pointer: &str, value: &str) -> Disclosure {
        let name = pointer.rsplit('/').next().expect("a name");
        Disclosure::of_member(&salter().salt(pointer), name, read(value))
    }

    fn element(pointer: &str, value: &str) -> Disclosure {
        Disclosure::of_element(&salter().salt(pointer), read(value))
    }

    fn all() -> Vec<Disclosure> {
        let pins = (0..3).map(|at| element(&format!("/request/body/pins/{at}"), &(at + 1).to_string()));
        [
            member("/request/body/card/number", r#""4111""#),
            member("/request/body/items/0/iban", r#""DE1""#),
            member("/request/body/items/1/iban", r#""DE2""#),
            member("/request/headers/x-patient-id", r#""p-1""#),
            member("/request/params/id", r#""7""#),
            member("/request/path", r#""/v1/7""#),
            member("/request/digest", r#""sha-256:aa""#),
            member("/actor/claims/mail", r#""a@example.org""#),
        ]
        .into_iter()
        .chain(pins)
        .collect()
    }

    #[test]
    fn what_is_redacted_is_gone_and_comes_back_with_its_disclosures() {
        let redacted = redact(read(TREE), &redaction(POINTERS), &salter()).expect("redacted");
        assert_eq!(redacted.withheld.len(), all().len());
        let text = String::from_utf8(json::write(&redacted.value)).expect("UTF-8");
        for gone in ["4111", "DE1", "DE2", "p-1", "/v1/7", "sha-256", "example.org", "number", "iban", "path"]
        {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        for kept in ["cvc", "\"n\":3", "roles", "agent-7"] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
        for disclosure in all() {
            assert!(text.contains(disclosure.digest().as_str()), "{}", disclosure.as_str());
        }
        let restored = restore(redacted.value, &all().into_iter().collect()).expect("restored");
        assert_eq!((restored.missing, &restored.value), (Vec::new(), &read(TREE)));
        assert_eq!(restored.withheld.len(), redacted.withheld.len());
    }

    #[test]
    fn what_has_no_disclosure_is_named_by_place_and_digest() {
        let redacted = redact(read(TREE), &redaction(POINTERS), &salter()).expect("redacted").value;
        let without = [("/request/body/items/1/iban", 2), ("/request/body/pins/1", 9)];
        let some = all().into_iter().enumerate().filter(|(at, _)| !without.iter().any(|(_, n)| n == at));
        let restored = restore(redacted, &some.map(|(_, d)| d).collect()).expect("restored");
        let digest = |at: usize| all()[at].digest();
        let expected = [
            Missing { pointer: "/request/body/items/1".into(), digest: digest(2) },
            Missing { pointer: "/request/body/pins/1".into(), digest: digest(9) },
        ];
        assert_eq!(restored.missing, expected);
        let text = String::from_utf8(json::write(&restored.value)).expect("UTF-8");
        assert!(text.contains(r#"{"iban":"DE1","n":1},{"n":2},{"n":3}],"pins":[1,3]"#), "{text}");
        assert!(reserved_name(&restored.value).is_none());
    }

    #[test]
    fn what_is_not_there_leaves_nothing_behind() {
        let pointers = [
            "/request/body/card/expiry",
            "/request/body/items/9/n",
            "/context/facts",
            "/request/body/pins/*/x",
        ];
        let redacted = redact(read(TREE), &redaction(&pointers), &salter()).expect("redacted");
        assert_eq!(redacted.withheld, [Json::string("sha-256:aa")]);
    }

    #[test]
    fn a_tree_with_reserved_names_is_not_redacted() {
        for (tree, pointer) in [
            (r#"{"request":{"body":{"_sd":[]}}}"#, "/request/body/_sd"),
            (r#"{"request":{"body":[1,{"a/b":{"...":"x"}}]}}"#, "/request/body/1/a~1b/..."),
        ] {
            let refused = redact(read(tree), &redaction(POINTERS), &salter()).err();
            assert_eq!(refused, Some(NotRedactable { pointer: pointer.into() }));
        }
        assert_eq!(reserved_name(&read(r#"{"a":[{"_sd_":1,"..":2,"_SD":3}]}"#)), None);
    }

    #[test]
    fn what_is_no_redacted_tree_is_refused() {
        let (m, e) = (member("/request/body/a", "1"), element("/request/body/0", "1"));
        let (md, ed) = (m.digest(), e.digest());
        let disclosures: Disclosures = [m, e].into_iter().collect();
        let at = |pointer: &str| pointer.to_owned();
        for (tree, why) in [
            (r#"{"_sd":"x"}"#.to_owned(), NotRestorable::Digests { pointer: at("") }),
            (r#"{"b":{"_sd":["x"]}}"#.to_owned(), NotRestorable::Digests { pointer: at("/b") }),
            (r#"{"b":[{"...":1}]}"#.to_owned(), NotRestorable::Digests { pointer: at("/b/0") }),
            (r#"{"b":{"...":"x"}}"#.to_owned(), NotRestorable::Digests { pointer: at("/b") }),
            (format!(r#"{{"_sd":["{0}","{0}"]}}"#, md.as_str()), NotRestorable::Twice { pointer: at("") }),
            (format!(r#"{{"_sd":["{}"],"a":2}}"#, md.as_str()), NotRestorable::Name { pointer: at("") }),
            (format!(r#"{{"_sd":["{}"]}}"#, ed.as_str()), NotRestorable::Kind { pointer: at("") }),
            (format!(r#"[{{"...":"{}"}}]"#, md.as_str()), NotRestorable::Kind { pointer: at("/0") }),
        ] {
            assert_eq!(restore(read(&tree), &disclosures).err(), Some(why), "{tree}");
        }
    }
}
