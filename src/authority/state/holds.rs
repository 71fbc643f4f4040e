//! Requests that are held for people, and what people said.
//!
//! A hold is on exactly one request: surface, action, actor and digest. Its approvals are for one execution: a PERMIT
//! uses it up, and `not_sent` gives it back. Refused, it answers until its time; each operator's word counts once.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::claims::{RequestDigest, digest_of};
use super::{Approval, Asked, HoldView};
use crate::clock::WallTime;
use crate::limits;
use crate::model::{ActionName, ActorId, Digest, LeafIndex, ReceiptId, SurfaceName};

/// Of one request by one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey(Digest);

impl RequestKey {
    pub fn of(surface: &SurfaceName, action: &ActionName, actor: &ActorId, digest: Digest) -> Self {
        let digest = digest.to_string();
        Self(digest_of("interlock-hold-v1", &[surface.as_str(), action.as_str(), actor.as_str(), &digest]))
    }

    pub fn asked(asked: &Asked<'_>) -> Self {
        Self::of(asked.surface, asked.action, asked.actor, asked.digest)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    pub surface: SurfaceName,
    pub action: ActionName,
    pub actor: ActorId,
    pub request: RequestDigest,
    pub opened: LeafIndex,
    /// The leaf that changed it last.
    pub changed: LeafIndex,
    pub at: WallTime,
    pub until: WallTime,
    /// One of each operator, in the order they were given.
    pub approvals: Vec<Approval>,
    pub refused: Option<Approval>,
    /// The PERMIT that uses it up.
    pub used_by: Option<ReceiptId>,
}

/// A hold as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldStatus {
    pub id: ReceiptId,
    pub surface: SurfaceName,
    pub action: ActionName,
    pub actor: ActorId,
    /// Of the request; `None` where the leaf keeps it out.
    pub digest: Option<Digest>,
    /// Leaf of the decision that opened it.
    pub index: LeafIndex,
    /// When it was opened.
    pub at: WallTime,
    /// Approvals count until then.
    pub until: WallTime,
    pub is_expired: bool,
    /// One of each operator, in the order they were given.
    pub approvals: Vec<Approval>,
    pub refused: Option<Approval>,
    /// The PERMIT that used it and has no final outcome yet.
    pub used_by: Option<ReceiptId>,
}

impl Hold {
    fn key(&self) -> Option<RequestKey> {
        let digest = self.request.known()?;
        Some(RequestKey::of(&self.surface, &self.action, &self.actor, digest))
    }

    /// Whether it answers a request: open or refused, and nobody has used it.
    fn answers(&self, now: WallTime) -> bool {
        self.used_by.is_none() && now < self.until
    }

    pub fn view(&self, id: ReceiptId) -> HoldView {
        let (approvals, refused) = (self.approvals.clone(), self.refused.clone());
        HoldView { id, until: self.until, approvals, refused }
    }

    fn status(&self, id: ReceiptId, now: WallTime) -> HoldStatus {
        HoldStatus {
            id,
            surface: self.surface.clone(),
            action: self.action.clone(),
            actor: self.actor.clone(),
            digest: self.request.logged(),
            index: self.opened,
            at: self.at,
            until: self.until,
            is_expired: self.until <= now,
            approvals: self.approvals.clone(),
            refused: self.refused.clone(),
            used_by: self.used_by,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holds {
    by_id: OrdMap<ReceiptId, Arc<Hold>>,
    by_request: OrdSet<(RequestKey, LeafIndex, ReceiptId)>,
    ends: OrdSet<(WallTime, ReceiptId)>,
}

impl Holds {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ReceiptId, &Arc<Hold>)> {
        self.by_id.iter()
    }

    pub fn has_room(&self, pending: usize) -> bool {
        self.len().saturating_add(pending) < limits::HOLDS_MAX
    }

    /// The hold that answers this request: one that was refused before one that is open, an older one before a newer
    /// one, and none that is being used.
    pub fn find(
        &self,
        key: RequestKey,
        now: WallTime,
        is_used: impl Fn(ReceiptId) -> bool,
    ) -> Option<(ReceiptId, &Hold)> {
        let lowest = ReceiptId::new(WallTime::from_unix_ns(0), [0; 10]);
        let mut first = None;
        for (own, _, id) in self.by_request.range((key, LeafIndex(0), lowest)..) {
            if *own != key {
                break;
            }
            let Some(hold) = self.by_id.get(id).filter(|hold| hold.answers(now) && !is_used(*id)) else {
                continue;
            };
            if hold.refused.is_some() {
                return Some((*id, hold));
            }
            first = first.or(Some((*id, &**hold)));
        }
        first
    }

    pub fn insert(&mut self, id: ReceiptId, hold: Hold) {
        self.remove(id);
        if let Some(key) = hold.key() {
            self.by_request.insert((key, hold.opened, id));
        }
        self.ends.insert((hold.until, id));
        self.by_id.insert(id, Arc::new(hold));
    }

    /// Whether there was one.
    pub fn remove(&mut self, id: ReceiptId) -> bool {
        let Some(hold) = self.by_id.remove(&id) else { return false };
        if let Some(key) = hold.key() {
            self.by_request.remove(&(key, hold.opened, id));
        }
        self.ends.remove(&(hold.until, id));
        true
    }

    /// Whether somebody has approved it.
    pub fn is_approved(&self, id: ReceiptId) -> bool {
        self.by_id.get(&id).is_some_and(|hold| !hold.approvals.is_empty())
    }

    pub fn approve(&mut self, id: ReceiptId, word: Approval, index: LeafIndex) -> bool {
        self.change(id, index, |hold| {
            let said = hold.approvals.iter().any(|approval| approval.by == word.by);
            let counts = !said && hold.approvals.len() < limits::APPROVALS_PER_HOLD_MAX;
            if counts {
                hold.approvals.push(word);
            }
            counts
        })
    }

    pub fn refuse(&mut self, id: ReceiptId, word: Approval, index: LeafIndex) -> bool {
        self.change(id, index, |hold| {
            let counts = hold.refused.is_none();
            if counts {
                hold.refused = Some(word);
            }
            counts
        })
    }

    /// `by` uses it up, or gives it back (`None`).
    pub fn set_used(&mut self, id: ReceiptId, by: Option<ReceiptId>, index: LeafIndex) -> bool {
        self.change(id, index, |hold| {
            hold.used_by = by;
            true
        })
    }

    fn change(&mut self, id: ReceiptId, index: LeafIndex, by: impl FnOnce(&mut Hold) -> bool) -> bool {
        let Some(hold) = self.by_id.get_mut(&id) else { return false };
        let hold = Arc::make_mut(hold);
        let changed = by(hold);
        if changed {
            hold.changed = index;
        }
        changed
    }

    pub fn status(&self, id: ReceiptId, now: WallTime) -> Option<HoldStatus> {
        self.by_id.get(&id).map(|hold| hold.status(id, now))
    }

    /// In the order they were opened.
    pub fn statuses(&self, now: WallTime) -> Vec<HoldStatus> {
        let mut all: Vec<_> = self.by_id.iter().map(|(id, hold)| hold.status(*id, now)).collect();
        all.sort_by_key(|status| status.index);
        all
    }

    /// Past their time, and neither refused nor in use: their expiry is to be recorded.
    pub fn expired(&self, now: WallTime, is_used: impl Fn(ReceiptId) -> bool) -> Vec<ReceiptId> {
        let ended = self.ends.iter().take_while(|(until, _)| *until <= now);
        ended.map(|(_, id)| *id).filter(|id| self.is_expired(*id, now, &is_used)).collect()
    }

    /// Whether this is one of [`Holds::expired`].
    pub fn is_expired(&self, id: ReceiptId, now: WallTime, is_used: impl Fn(ReceiptId) -> bool) -> bool {
        let is_over =
            |hold: &Arc<Hold>| hold.until <= now && hold.refused.is_none() && hold.used_by.is_none();
        self.by_id.get(&id).is_some_and(is_over) && !is_used(id)
    }

    /// Lets go of some that were refused and have ended; the others wait for the leaf that says they expired.
    pub fn prune(&mut self, at: WallTime) {
        let ended = self.ends.iter().take_while(|(until, _)| *until <= at).map(|(_, id)| *id);
        let is_over =
            |id: &ReceiptId| self.by_id.get(id).is_some_and(|h| h.refused.is_some() && h.used_by.is_none());
        // Those that wait for their leaf do not stand in the way of the others.
        let over: Vec<ReceiptId> = ended.filter(is_over).take(limits::ENDED_PER_CHANGE_MAX).collect();
        for id in over {
            self.remove(id);
        }
    }
}
