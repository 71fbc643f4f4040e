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
