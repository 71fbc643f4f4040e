//! The members of a leaf by which it is found, and by which the fold goes on. One parse, small.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

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
    actor: Option<ActorMembers<'e>>,
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
            actor: actor.map(|actor| actor.id.into()),
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
