//! Takes declared places out of a tree and leaves their digests.

use std::fmt::Write;
use std::sync::Arc;

use super::{Disclosure, Salter};
use crate::model::{DIGESTS, ELEMENT, Json, Object, Redaction, Step, escape_step, reserved_name};

/// A tree without what its route keeps out of the log.
#[derive(Clone, PartialEq)]
pub struct Redacted {
    pub value: Json,
    /// What is not there any more, in the order of the tree.
    pub withheld: Vec<Json>,
}

/// The tree has a member called `_sd` or `...`, which would be read as a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pointer}` has a name that is reserved in redacted JSON")]
pub struct NotRedactable {
    pub pointer: String,
}

/// The redacted form of a policy input.
pub fn redact(tree: Json, redaction: &Redaction, salter: &Salter) -> Result<Redacted, NotRedactable> {
    if let Some(pointer) = reserved_name(&tree) {
        return Err(NotRedactable { pointer });
    }
    let mut walk = Walk { salter, path: String::new(), withheld: Vec::new() };
    let pointers: Vec<&[Step]> = redaction.pointers().iter().map(|p| p.steps()).collect();
    let value = walk.value(tree, &pointers);
    Ok(Redacted { value, withheld: walk.withheld })
}

struct Walk<'s> {
    salter: &'s Salter,
    /// Pointer of the value at hand.
    path: String,
    withheld: Vec<Json>,
}

impl Walk<'_> {
    /// `pointers` are what is left of those that lead here; none of them ends here.
    fn value(&mut self, value: Json, pointers: &[&[Step]]) -> Json {
        if pointers.is_empty() {
            return value;
        }
        match value {
            Json::Object(object) => Json::Object(self.object(object, pointers)),
            Json::Array(items) => {
                let each = items.into_iter().enumerate();
                Json::Array(each.map(|(at, item)| self.element(at, item, pointers)).collect())
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value,
        }
    }

    fn object(&mut self, object: Object, pointers: &[&[Step]]) -> Object {
        let mut digests = Vec::new();
        let mut kept: Vec<(Arc<str>, Json)> = Vec::new();
        for (name, value) in object.into_members() {
            let length = self.enter(&name);
            match leading_to(pointers, &name) {
                Leads::Here => {
                    let disclosure = Disclosure::of_member(&self.salter.salt(&self.path), &name, value);
                    digests.push(Json::string(disclosure.digest().as_str()));
                    self.withheld.push(disclosure.value().clone());
                }
                Leads::Below(below) => kept.push((name, self.value(value, &below))),
            }
            self.path.truncate(length);
        }
        if !digests.is_empty() {
            // By digest, so that the order says nothing about the names.
            digests.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            kept.push((DIGESTS.into(), Json::Array(digests)));
        }
        Object::new(kept).expect("the names were distinct, and none was reserved")
    }

    fn element(&mut self, at: usize, item: Json, pointers: &[&[Step]]) -> Json {
        let index = at.to_string();
        let length = self.enter(&index);
        let kept = match leading_to(pointers, &index) {
            Leads::Here => {
                let disclosure = Disclosure::of_element(&self.salter.salt(&self.path), item);
                self.withheld.push(disclosure.value().clone());
                Json::object([(ELEMENT, Json::string(disclosure.digest().as_str()))])
            }
            Leads::Below(below) => self.value(item, &below),
        };
        self.path.truncate(length);
        kept
    }

    /// Returns the length of the path before.
    fn enter(&mut self, step: &str) -> usize {
        let length = self.path.len();
        write!(self.path, "/{}", escape_step(step)).expect("a string takes every write");
        length
    }
}

enum Leads<'p> {
    Here,
    Below(Vec<&'p [Step]>),
}

/// What is left of the pointers after a step into this name. If one ends there, it wins over those that go on.
fn leading_to<'p>(pointers: &[&'p [Step]], name: &str) -> Leads<'p> {
    let fitting = pointers.iter().filter_map(|steps| {
        let (first, rest) = steps.split_first()?;
        first.fits(name).then_some(rest)
    });
    let below: Vec<_> = fitting.collect();
    if below.iter().any(|rest| rest.is_empty()) { Leads::Here } else { Leads::Below(below) }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::canonical::json;
    use crate::clock::WallTime;
    use crate::model::{Pointer, ReceiptId};
    use crate::redaction::{Disclosures, EpochKey, Unrestored};

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
        let restored = all().into_iter().collect::<Disclosures>().restore(redacted.value).expect("restored");
        assert_eq!(restored.value, read(TREE));
        assert_eq!(restored.withheld.len(), redacted.withheld.len());
    }

    #[test]
    fn what_has_no_disclosure_is_named() {
        let redacted = redact(read(TREE), &redaction(POINTERS), &salter()).expect("redacted").value;
        let without = [2, 9];
        let some = all().into_iter().enumerate().filter(|(at, _)| !without.contains(at));
        let some: Disclosures = some.map(|(_, disclosure)| disclosure).collect();
        let pointers =
            ["/request/body/items/1/_sd/0", "/request/body/pins/1/..."].map(str::to_owned).to_vec();
        assert_eq!(some.restore(redacted), Err(Unrestored::Missing { pointers, more: 0 }));
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
}
