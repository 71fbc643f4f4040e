//! The members of a leaf by which it is found, and by which the fold goes on. One parse, small.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::index::Term;
use crate::clock::WallTime;
use crate::ledger::recovery::{Event, Glance};
use crate::model::entry::EntryType;
use crate::model::{Decision, Digest, Epoch, LeafIndex, ReceiptId, Settled};

/// Bytes of an idempotency key's digest that stand in the index.
const KEY_DIGEST_BYTES: usize = 16;

/// serde borrows from a `Cow` only where it is the member itself.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'e>(#[serde(borrow)] Cow<'e, str>);

/// An object with an `id` in decisions and refusals; the id itself in what operators did to an actor.
struct ActorId<'e>(Cow<'e, str>);

impl<'de: 'e, 'e> Deserialize<'de> for ActorId<'e> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ActorVisitor)
    }
}

struct ActorVisitor;

impl<'de> Visitor<'de> for ActorVisitor {
    type Value = ActorId<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an actor, or its id")
    }

    fn visit_borrowed_str<E: de::Error>(self, id: &'de str) -> Result<ActorId<'de>, E> {
        Ok(ActorId(Cow::Borrowed(id)))
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<ActorId<'de>, E> {
        Ok(ActorId(Cow::Owned(id.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<ActorId<'de>, A::Error> {
        let ActorMembers { id } = ActorMembers::deserialize(MapAccessDeserializer::new(members))?;
        Ok(ActorId(id))
    }
}

#[derive(Deserialize)]
struct ActorMembers<'e> {
    #[serde(borrow)]
    id: Cow<'e, str>,
}

#[derive(Deserialize)]
struct Members<'e> {
    #[serde(rename = "type")]
    entry_type: EntryType,
    epoch: Epoch,
    id: Option<ReceiptId>,
    decision: Option<Decision>,
    decision_index: Option<LeafIndex>,
    attestation: Option<Settled>,
    event: Option<Event>,
    vkey: Option<Arc<str>>,
    vkeys: Option<Vec<Arc<str>>>,
    #[serde(borrow)]
    time: Option<Text<'e>>,
    #[serde(borrow)]
    actor: Option<ActorId<'e>>,
    #[serde(borrow)]
    idempotency_key: Option<Text<'e>>,
}

/// What is remembered of a leaf until its bundle is full.
#[derive(Clone, Debug)]
pub struct Seen {
    pub glance: Glance,
    /// `None` if it is no time, which verification reports.
    pub time: Option<WallTime>,
    pub actor: Option<Box<str>>,
    pub key: Option<[u8; KEY_DIGEST_BYTES]>,
}

impl Seen {
    pub fn of(entry: &[u8]) -> Result<Self, serde_json::Error> {
        let members: Members<'_> = serde_json::from_slice(entry)?;
        let Members { entry_type, epoch, id, decision, decision_index, attestation, .. } = members;
        let Members { event, vkey, vkeys, time, actor, idempotency_key, .. } = members;
        Ok(Self {
            glance: Glance {
                entry_type,
                epoch,
                id,
                decision,
                decision_index,
                attestation,
                event,
                vkey,
                vkeys,
            },
            time: time.and_then(|text| WallTime::parse_rfc3339(&text.0)),
            actor: actor.map(|actor| actor.0.into()),
            key: idempotency_key.map(|key| key_digest(&key.0)),
        })
    }

    /// What this leaf can be looked up by.
    pub fn terms(&self) -> impl Iterator<Item = Term> + '_ {
        let id = self.glance.id.map(|id| Term::id(&id));
        let outcome = match self.glance.entry_type {
            EntryType::Outcome => self.glance.decision_index.map(Term::outcome_of),
            EntryType::Admin
            | EntryType::Decision
            | EntryType::Epoch
            | EntryType::Heartbeat
            | EntryType::Key
            | EntryType::Policy
            | EntryType::Refusal => None,
        };
        let actor = self.actor.as_deref().map(Term::actor);
        let key = self.key.map(|key| Term::key(&key));
        [id, outcome, actor, key].into_iter().flatten()
    }
}

/// Keys are as long as callers make them; the index holds digests.
pub fn key_digest(key: &str) -> [u8; KEY_DIGEST_BYTES] {
    let mut short = [0; KEY_DIGEST_BYTES];
    short.copy_from_slice(&Digest::of(key.as_bytes()).as_bytes()[..KEY_DIGEST_BYTES]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_actor_of_every_type_of_leaf_is_seen() {
        let of = |actor: &str| {
            let leaf = format!(r#"{{{actor}"epoch":1,"type":"admin"}}"#);
            Seen::of(leaf.as_bytes()).map(|seen| seen.actor)
        };
        let seven = Some(Box::from("agent-7"));
        assert_eq!(of(r#""actor":{"id":"agent-7","method":"api_key"},"#).expect("read"), seven);
        assert_eq!(of(r#""actor":"agent-7","#).expect("read"), seven);
        assert_eq!(of(r#""actor":"agent\u002d7","#).expect("read"), seven);
        assert_eq!(of("").expect("read"), None);
        for broken in [r#""actor":7,"#, r#""actor":{"method":"api_key"},"#, r#""actor":["agent-7"],"#] {
            assert!(of(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn every_golden_leaf_can_be_archived() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let mut leaves = 0;
        for file in std::fs::read_dir(folder).expect("readable") {
            let path = file.expect("readable").path();
            let text = std::fs::read(&path).expect("readable");
            let is_leaf =
                path.extension().is_some_and(|e| e == "json") && text.windows(6).any(|w| w == b"\"spec\"");
            if is_leaf {
                leaves += 1;
                Seen::of(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            }
        }
        assert!(leaves >= 15, "{leaves}");
    }
}
