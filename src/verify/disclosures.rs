//! Disclosures (RFC 9901 section 4.2) held against one leaf, and against the policy input that it names.
//!
//! In: what somebody hands over to show a value that a route keeps out of the log. Out: for each disclosure the places
//! that hold its digest, or that none does. Where a digest stands says which member it stands for: `request`, `sent` and
//! `response` of the leaf, or any object or list of the policy input. A disclosure is taken only in the one form in which
//! docs/REDACTION.md has them written, so that the value that is shown is the value that was digested.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::canonical::canonical_json;
use super::report::{Verdict, escape};
use crate::limits;
use crate::model::entry::{DisclosureDigest, Entry, RequestEntry, ResponseEntry, SentEntry};
use crate::model::{DIGESTS, Digest, ELEMENT, escape_step, is_reserved};

/// What was handed over, in its order.
#[derive(Debug)]
pub struct Disclosures(Vec<Disclosure>);

/// One of them. What it discloses is a secret of somebody until it is printed for who holds it.
struct Disclosure {
    digest: DisclosureDigest,
    /// `None` of an element of a list.
    name: Option<String>,
    /// RFC 8785 JSON.
    value: String,
}

impl fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disclosure({})", self.digest.as_str())
    }
}

/// Not a disclosure, or not in the form that the log's are written in. Does not show it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("disclosure {number}: {what}")]
pub struct NotDisclosures {
    /// From 1.
    pub number: usize,
    pub what: String,
}

/// Where a digest stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HeldAt {
    #[serde(rename = "in")]
    pub holder: Holder,
    /// Of the disclosed value (RFC 6901).
    pub pointer: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    Leaf,
    /// The policy input.
    Evidence,
}

/// What was found of one disclosure.
#[derive(Clone, Debug, Serialize)]
pub struct Disclosed {
    pub digest: DisclosureDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The value as RFC 8785 JSON: its very characters.
    pub value: String,
    /// Empty: found nowhere.
    pub held_at: Vec<HeldAt>,
    /// Its digest stands where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// All of them.
#[derive(Debug)]
pub struct Answer {
    pub disclosed: Vec<Disclosed>,
    pub verdict: Verdict,
    /// What is wrong with the evidence that was handed over.
    pub evidence: Option<String>,
}

impl Disclosures {
    /// One a line, or with `~` between them as SD-JWT has them.
    pub fn parse(text: &str) -> Result<Self, NotDisclosures> {
        let parts = text.split(|c: char| c == '~' || c.is_ascii_whitespace()).filter(|part| !part.is_empty());
        let read = |(number, part): (usize, &str)| {
            parse(part).map_err(|what| NotDisclosures { number, what: what.into() })
        };
        let all = (1..).zip(parts).map(read).collect::<Result<Vec<_>, _>>()?;
        let mut seen = BTreeSet::new();
        match all.iter().position(|disclosure| !seen.insert(&disclosure.digest)) {
            Some(at) => Err(NotDisclosures { number: at + 1, what: "the same as one before it".into() }),
            None if all.is_empty() => Err(NotDisclosures { number: 1, what: "there is none".into() }),
            None => Ok(Self(all)),
        }
    }

    /// Holds each against the leaf, and against the policy input it names if that is at hand.
    pub fn held_by(&self, leaf: &Entry, evidence: Option<&[u8]>) -> Answer {
        let mut places = Places::default();
        places.of_leaf(leaf);
        let evidence_of = input_digest(leaf).filter(|_| !places.held.is_empty());
        let (mut is_complete, mut wrong) = (evidence_of.is_none(), None);
        match (evidence, evidence_of) {
            (None, _) => {}
            (Some(_), None) => {
                wrong = Some(
                    "a leaf that redacts nothing, or is no decision, names no evidence to disclose".into(),
                )
            }
            (Some(bytes), Some(digest)) => match read_evidence(bytes, digest) {
                Ok(input) => {
                    is_complete = true;
                    places.of_value(&input, &mut String::new());
                    places.below_disclosed(&self.0);
                }
                Err(what) => wrong = Some(what),
            },
        }
        let mut disclosed: Vec<_> = self.0.iter().map(|disclosure| places.find(disclosure)).collect();
        let mut taken = BTreeSet::new();
        for one in &mut disclosed {
            for at in &one.held_at {
                if !taken.insert(at.clone()) {
                    one.problem = Some(format!("another one discloses {} too", at.pointer));
                }
            }
        }
        let is_wrong = |one: &Disclosed| one.problem.is_some() || is_complete && one.held_at.is_empty();
        let verdict = if wrong.is_some() || disclosed.iter().any(is_wrong) {
            Verdict::Fail
        } else if disclosed.iter().any(|one| one.held_at.is_empty()) {
            // It may stand in the policy input, which nobody handed over.
            Verdict::NotEstablished
        } else {
            Verdict::Pass
        };
        Answer { disclosed, verdict, evidence: wrong }
    }
}

fn parse(text: &str) -> Result<Disclosure, &'static str> {
    const NO_LIST: &str = "not a JSON list of salt, name and value, or of salt and value";
    if text.len() > limits::DISCLOSURE_BYTES_MAX {
        return Err("too large");
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "not base64url without padding")?;
    canonical_json(&bytes)
        .map_err(|_| "not JSON in canonical form (RFC 8785), as this log's disclosures are")?;
    let list: Vec<Shape> = serde_json::from_slice(&bytes).map_err(|_| NO_LIST)?;
    let (salt, name) = match &*list {
        [Shape::Text(salt), Shape::Text(name), _] => (salt, Some(name)),
        [Shape::Text(salt), _] => (salt, None),
        _ => return Err(NO_LIST),
    };
    if name.is_some_and(|name| is_reserved(name)) {
        return Err("the name is `_sd` or `...`, which no member has");
    }
    // The value is what is left of the text: a canonical list has one way to begin.
    let before = name.iter().fold(written(salt) + ",", |text, name| text + &written(name) + ",");
    let text_of_list = std::str::from_utf8(&bytes).map_err(|_| NO_LIST)?;
    let inner = text_of_list.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(NO_LIST)?;
    let value = inner.strip_prefix(&*before).ok_or(NO_LIST)?.to_owned();
    Ok(Disclosure { digest: DisclosureDigest::of(text), name: name.map(|name| name.to_string()), value })
}

/// A string as RFC 8785 writes it.
fn written(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serializes")
}

/// Of a decision, whose policy input holds digests if its leaf does.
fn input_digest(leaf: &Entry) -> Option<Digest> {
    match leaf {
        Entry::Decision(d) => Some(d.evaluation.input_digest),
        Entry::Admin(_)
        | Entry::Epoch(_)
        | Entry::Heartbeat(_)
        | Entry::Key(_)
        | Entry::Outcome(_)
        | Entry::Policy(_)
        | Entry::Refusal(_) => None,
    }
}

fn read_evidence(bytes: &[u8], named: Digest) -> Result<Shape, String> {
    let found = Digest::of(bytes);
    if found != named {
        return Err(format!("the evidence has the digest {found}, the leaf names {named}"));
    }
    canonical_json(bytes).map_err(|why| format!("the evidence: {why}"))?;
    serde_json::from_slice(bytes).map_err(|why| format!("the evidence: {why}"))
}

/// JSON as far as digests are looked for in it. Its numbers are anybody's: their text was held to its one spelling, and no
/// value is made of it.
enum Shape {
    /// Neither text nor anything that holds something.
    Scalar,
    Text(String),
    List(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Shape::Object(members))
    }
}

/// What one digest stands for.
#[derive(Clone, Debug)]
enum Stands {
    /// A member of this object, which is one of the leaf's and lacks these members.
    LeafMember { pointer: String, lacks: Vec<&'static str> },
    /// A member of the object at this pointer of the policy input, which has these members.
    Member { pointer: String, has: Rc<BTreeSet<String>> },
    /// The element at this pointer of the policy input.
    Element { pointer: String },
}

#[derive(Default)]
struct Places {
    held: BTreeMap<DisclosureDigest, Vec<Stands>>,
}

impl Places {
    fn of_leaf(&mut self, leaf: &Entry) {
        match leaf {
            Entry::Decision(d) => {
                let RequestEntry { body_digest, digest, received_digest, target, .. } = &d.request;
                let members = [
                    ("body_digest", body_digest.is_none()),
                    ("digest", digest.is_none()),
                    ("received_digest", received_digest.is_none()),
                    ("target", target.is_none()),
                ];
                self.of_object("/request", &members, &d.request.disclosures);
            }
            Entry::Outcome(o) => {
                if let Some(SentEntry { disclosures, digest, .. }) = &o.sent {
                    self.of_object("/sent", &[("digest", digest.is_none())], disclosures);
                }
                if let Some(ResponseEntry { disclosures, body_digest, .. }) = &o.response {
                    self.of_object("/response", &[("body_digest", body_digest.is_none())], disclosures);
                }
            }
            Entry::Admin(_)
            | Entry::Epoch(_)
            | Entry::Heartbeat(_)
            | Entry::Key(_)
            | Entry::Policy(_)
            | Entry::Refusal(_) => {}
        }
    }

    fn of_object(&mut self, pointer: &str, members: &[(&'static str, bool)], digests: &[DisclosureDigest]) {
        let lacks: Vec<_> = members.iter().filter(|(_, lacks)| *lacks).map(|(name, _)| *name).collect();
        for digest in digests {
            let stands = Stands::LeafMember { pointer: pointer.into(), lacks: lacks.clone() };
            self.held.entry(digest.clone()).or_default().push(stands);
        }
    }

    /// Digests in a value of the policy input; `at` is its pointer.
    fn of_value(&mut self, value: &Shape, at: &mut String) {
        let length = at.len();
        match value {
            Shape::Scalar | Shape::Text(_) => {}
            Shape::List(items) => {
                for (n, item) in items.iter().enumerate() {
                    at.push_str(&format!("/{n}"));
                    match item {
                        Shape::Object(members) if members.len() == 1 && members[0].0 == ELEMENT => {
                            self.stands(&members[0].1, Stands::Element { pointer: at.clone() });
                        }
                        Shape::Scalar | Shape::Text(_) | Shape::List(_) | Shape::Object(_) => {
                            self.of_value(item, at);
                        }
                    }
                    at.truncate(length);
                }
            }
            Shape::Object(members) => {
                let has: Rc<BTreeSet<_>> = Rc::new(members.iter().map(|(name, _)| name.clone()).collect());
                for (name, value) in members {
                    if name == DIGESTS {
                        let digests = if let Shape::List(digests) = value { &digests[..] } else { &[] };
                        for digest in digests {
                            self.stands(digest, Stands::Member { pointer: at.clone(), has: Rc::clone(&has) });
                        }
                        continue;
                    }
                    at.push('/');
                    at.push_str(&escape_step(name));
                    self.of_value(value, at);
                    at.truncate(length);
                }
            }
        }
    }

    fn stands(&mut self, digest: &Shape, stands: Stands) {
        let Shape::Text(text) = digest else { return };
        if let Ok(digest) = text.parse() {
            self.held.entry(digest).or_default().push(stands);
        }
    }

    /// What a disclosure of the policy input holds may hold digests itself. Each is looked into once.
    fn below_disclosed(&mut self, disclosures: &[Disclosure]) {
        let mut left: Vec<&Disclosure> = disclosures.iter().collect();
        loop {
            let (found, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|disclosure| {
                let held = self.held.get(&disclosure.digest).into_iter().flatten();
                held.into_iter().any(|stands| !matches!(stands, Stands::LeafMember { .. }))
            });
            if found.is_empty() {
                return;
            }
            left = rest;
            for disclosure in found {
                let Ok(value) = serde_json::from_str::<Shape>(&disclosure.value) else { continue };
                let held = self.find(disclosure).held_at;
                for at in held.into_iter().filter(|at| at.holder == Holder::Evidence) {
                    self.of_value(&value, &mut at.pointer.clone());
                }
            }
        }
    }

    fn find(&self, disclosure: &Disclosure) -> Disclosed {
        let Disclosure { digest, name, value } = disclosure;
        let (mut held_at, mut problem) = (BTreeSet::new(), None);
        let stands = self.held.get(digest).map_or(&[][..], Vec::as_slice);
        for one in stands {
            match place(one, name.as_deref(), value) {
                Ok(place) if held_at.contains(&place) => {
                    problem = Some("its digest stands twice in the same place".into());
                }
                Ok(place) => drop(held_at.insert(place)),
                Err(what) => problem = Some(what),
            }
        }
        if stands.iter().filter(|one| !matches!(one, Stands::LeafMember { .. })).count() > 1 {
            // RFC 9901 section 7.1.
            problem = Some("its digest stands in more than one place of the policy input".into());
        }
        let held_at = held_at.into_iter().collect();
        Disclosed { digest: digest.clone(), name: name.clone(), value: value.clone(), held_at, problem }
    }
}

/// The place that a disclosure of this name and value has where its digest stands; or why it has none.
fn place(stands: &Stands, name: Option<&str>, value: &str) -> Result<HeldAt, String> {
    let below = |pointer: &str, name: &str| format!("{pointer}/{}", escape_step(name));
    match (stands, name) {
        (Stands::LeafMember { pointer, lacks }, Some(name)) if lacks.contains(&name) => {
            let pointer = below(pointer, name);
            let text = serde_json::from_str::<String>(value).ok();
            let is_value = match name {
                "target" => text.is_some(),
                _ => text.is_some_and(|text| text.parse::<Digest>().is_ok()),
            };
            let what = || format!("its digest stands for {pointer}, and its value is none of that member");
            if is_value { Ok(HeldAt { holder: Holder::Leaf, pointer }) } else { Err(what()) }
        }
        (Stands::LeafMember { pointer, .. }, Some(name)) => {
            Err(format!("its digest stands in {pointer}, of which no member `{name}` was left out"))
        }
        (Stands::Member { pointer, has }, Some(name)) if !has.contains(name) => {
            Ok(HeldAt { holder: Holder::Evidence, pointer: below(pointer, name) })
        }
        (Stands::Member { pointer, .. }, Some(name)) => {
            Err(format!("its digest stands in {pointer} of the policy input, which has a member `{name}`"))
        }
        (Stands::Element { pointer }, None) => {
            Ok(HeldAt { holder: Holder::Evidence, pointer: pointer.clone() })
        }
        (Stands::LeafMember { pointer, .. } | Stands::Member { pointer, .. }, None) => {
            Err(format!("its digest stands for a member of {pointer}, and it discloses an element of a list"))
        }
        (Stands::Element { pointer }, Some(_)) => {
            Err(format!("its digest stands for the element {pointer}, and it discloses a member"))
        }
    }
}

/// For people. Whoever is disclosed wrote the name and the value, so both are escaped.
impl fmt::Display for Disclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("an element");
        let value = escape(&self.value);
        for HeldAt { holder, pointer } in &self.held_at {
            let holder = match holder {
                Holder::Leaf => "leaf",
                Holder::Evidence => "evidence",
            };
            writeln!(f, "disclosed  {} {}: {value}", holder, escape(pointer))?;
        }
        match &self.problem {
            Some(what) => writeln!(
                f,
                "problem  disclosed: {} ({}): {}",
                escape(name),
                self.digest.as_str(),
                escape(what)
            ),
            None if self.held_at.is_empty() => {
                writeln!(f, "nowhere  {} ({}): {value}", escape(name), self.digest.as_str())
            }
            None => Ok(()),
        }
    }
}
