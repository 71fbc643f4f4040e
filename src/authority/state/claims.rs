//! Idempotency keys that are claimed: one decision for each actor, surface and key.
//!
//! A claim is kept under the SHA-256 of the three, so that all have one size and the order of a snapshot does not
//! depend on the run. A claim has no end before its decision has a final outcome: what still runs, and what nobody
//! knows the outcome of, cannot be executed again however late it is. From when it is known late, the key stands as
//! long as it was to stand from the decision.

use imbl::{OrdMap, OrdSet};

use super::{Asked, ClaimState, ClaimView, SameRequest};
use crate::clock::WallTime;
use crate::limits;
use crate::model::{
    ActorId, Digest, Digester, IdempotencyKey, LeafIndex, OutcomeStatus, ReceiptId, SurfaceName,
};

/// Of whom, where and which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimKey(pub Digest);

impl ClaimKey {
    pub fn of(surface: &SurfaceName, actor: &ActorId, key: &IdempotencyKey) -> Self {
        Self(digest_of("interlock-claim-v1", &[surface.as_str(), actor.as_str(), key.as_str()]))
    }

    pub fn asked(asked: &Asked<'_>) -> Option<Self> {
        asked.key.map(|key| Self::of(asked.surface, asked.actor, key))
    }
}

/// SHA-256 over parts that hold no NUL, each ended by one.
pub fn digest_of(label: &str, parts: &[&str]) -> Digest {
    let mut digester = Digester::new();
    for part in std::iter::once(&label).chain(parts) {
        digester.update(part.as_bytes());
        digester.update(&[0]);
    }
    digester.finish()
}

/// The digest of a request that something is kept about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestDigest {
    /// As the leaf has it.
    Logged(Digest),
    /// The leaf keeps it out; known from this run, never written.
    Remembered(Digest),
    Withheld,
}

impl RequestDigest {
    pub fn new(logged: Option<Digest>, remembered: Option<Digest>) -> Self {
        match (logged, remembered) {
            (Some(digest), _) => Self::Logged(digest),
            (None, Some(digest)) => Self::Remembered(digest),
            (None, None) => Self::Withheld,
        }
    }

    pub fn known(self) -> Option<Digest> {
        match self {
            Self::Logged(digest) | Self::Remembered(digest) => Some(digest),
            Self::Withheld => None,
        }
    }

    pub fn logged(self) -> Option<Digest> {
        match self {
            Self::Logged(digest) => Some(digest),
            Self::Remembered(_) | Self::Withheld => None,
        }
    }

    pub fn is(self, digest: Digest) -> SameRequest {
        match self.known() {
            Some(own) if own == digest => SameRequest::Yes,
            Some(_) => SameRequest::No,
            None => SameRequest::Unknown,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: ReceiptId,
    pub decision: LeafIndex,
    pub digest: RequestDigest,
    /// When the decision was made.
    pub at: WallTime,
    pub until: WallTime,
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Running,
    Unknown,
    Executed(Executed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Confirmed or failed.
    pub status: OutcomeStatus,
    pub outcome: LeafIndex,
    pub answer: Option<Digest>,
}

impl Claim {
    /// Until when it stands if its outcome became known at `known`: as long as if it had been known at once. A caller
    /// that was told to wait for people must not find its key free as soon as they have decided.
    fn kept_from(&self, known: WallTime) -> WallTime {
        let keep = self.until.unix_ns().saturating_sub(self.at.unix_ns());
        WallTime::from_unix_ns(known.unix_ns().saturating_add(keep))
    }

    pub fn view(&self, digest: Digest) -> ClaimView {
        let decision = self.decision;
        let state = match self.progress {
            Progress::Running => ClaimState::Running,
            Progress::Unknown => ClaimState::Unknown { decision },
            Progress::Executed(Executed { status, outcome, answer }) => {
                ClaimState::Executed { status, decision, outcome, answer }
            }
        };
        ClaimView { id: self.id, same_request: self.digest.is(digest), state }
    }
}

/// All claims.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    by_key: OrdMap<ClaimKey, Claim>,
    /// Of those that are executed.
    ends: OrdSet<(WallTime, ClaimKey)>,
}

impl Claims {
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ClaimKey, &Claim)> {
        self.by_key.iter()
    }

    /// The claim that holds the key now.
    pub fn find(&self, key: ClaimKey, now: WallTime) -> Option<&Claim> {
        self.by_key.get(&key).filter(|claim| match claim.progress {
            Progress::Running | Progress::Unknown => true,
            Progress::Executed(_) => now < claim.until,
        })
    }

    /// Whether one more can be taken beside so many that are about to be, when what has ended by then may be let go of.
    pub fn has_room(&self, forgotten: WallTime, pending: usize) -> bool {
        // The leaf that brings one more takes away some that have ended.
        let ended = self.ends.get_min().is_some_and(|(until, _)| *until <= forgotten);
        self.len().saturating_add(pending) < limits::CLAIMS_MAX || ended
    }

    /// Takes the key, from whoever had it.
    pub fn insert(&mut self, key: ClaimKey, claim: Claim) {
        let end = Self::end(key, &claim);
        if let Some(before) = self.by_key.insert(key, claim)
            && let Some(end) = Self::end(key, &before)
        {
            self.ends.remove(&end);
        }
        self.ends.extend(end);
    }

    fn end(key: ClaimKey, claim: &Claim) -> Option<(WallTime, ClaimKey)> {
        match claim.progress {
            Progress::Running | Progress::Unknown => None,
            Progress::Executed(_) => Some((claim.until, key)),
        }
    }

    /// The decision that has the claim went on, at this time. Nothing happens if another one has it.
    pub fn progress(&mut self, key: ClaimKey, id: ReceiptId, progress: Progress, at: WallTime) {
        if let Some(claim) = self.by_key.get(&key).filter(|claim| claim.id == id) {
            let until = match progress {
                Progress::Running | Progress::Unknown => claim.until,
                Progress::Executed(_) if claim.progress == Progress::Unknown || claim.until <= at => {
                    claim.until.max(claim.kept_from(at))
                }
                Progress::Executed(_) => claim.until,
            };
            let claim = Claim { progress, until, ..claim.clone() };
            self.insert(key, claim);
        }
    }

    /// The decision was not carried out: the key is free.
    pub fn free(&mut self, key: ClaimKey, id: ReceiptId) {
        if let Some(claim) = self.by_key.get(&key).filter(|claim| claim.id == id) {
            if let Some(end) = Self::end(key, claim) {
                self.ends.remove(&end);
            }
            self.by_key.remove(&key);
        }
    }

    /// Lets go of some that have ended by then.
    pub fn prune(&mut self, forgotten: WallTime) {
        for _ in 0..limits::ENDED_PER_CHANGE_MAX {
            let Some(&(until, key)) = self.ends.get_min().filter(|(until, _)| *until <= forgotten) else {
                return;
            };
            self.ends.remove(&(until, key));
            self.by_key.remove(&key);
        }
    }
}
