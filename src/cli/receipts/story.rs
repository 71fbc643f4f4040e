//! All that a log says about one decision: its leaf and evidence, its outcomes, and what other leaves did to it.
//!
//! In: leaves in the order of the log, each with the evidence of its frame. Out: a [`Story`]. Nothing is verified but
//! that evidence has the digest it is named by.

use interlock::canonical::json::{self, Bounds};
use interlock::limits;
use interlock::merkle::frame::Evidence;
use interlock::model::entry::{AdminAction, AdminEntry, DecisionEntry, Entry, OutcomeEntry, PolicyEntry};
use interlock::model::{
    ActorId, Change, Decision, Digest, Json, LeafIndex, OutcomeStatus, ReceiptId, Settled, SurfaceName,
};
use interlock::upstream::KeptAnswer;

/// A leaf and where it stands.
pub struct At<T> {
    pub index: LeafIndex,
    /// Exactly as they are in the log.
    pub bytes: Vec<u8>,
    pub entry: Box<T>,
}

/// Another decision that has to do with this one.
pub struct Other {
    pub index: LeafIndex,
    pub id: ReceiptId,
    pub decision: Decision,
}

pub struct Story {
    pub decision: At<DecisionEntry>,
    /// The policy input; `None` if the log holds none with its digest, or it cannot be read.
    pub input: Option<Json>,
    /// By the gateway.
    pub outcome: Option<At<OutcomeEntry>>,
    /// By an operator or the upstream's log, later.
    pub attested: Option<At<OutcomeEntry>>,
    /// Beside the outcome.
    pub kept: Option<KeptAnswer>,
    /// How its policy became the active one.
    pub policy: Option<At<PolicyEntry>>,
    /// Freezes and quarantines that it had to see, on its surface or its actor.
    pub restrictions: Vec<Restricted>,
    /// What operators, or time, did later to the hold that it opened or joined.
    pub words: Vec<At<AdminEntry>>,
    /// The PERMIT that used the approvals of its hold up.
    pub used_by: Option<Other>,
    /// The decision that was made again because this one was not sent.
    pub superseded_by: Option<Other>,
}

/// A freeze or a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restricted {
    pub index: LeafIndex,
    pub surface: Option<SurfaceName>,
    pub actor: Option<ActorId>,
    pub is_quarantine: bool,
    /// Who, when and why.
    pub by: String,
}

/// Takes leaves until nothing more can follow.
pub struct Listener {
    id: ReceiptId,
    policy: Option<At<PolicyEntry>>,
    /// What began or ended a freeze or a quarantine, before the decision.
    changes: Vec<(Restricted, bool)>,
    story: Option<Story>,
}

impl Listener {
    pub fn new(id: ReceiptId) -> Self {
        Self { id, policy: None, changes: Vec::new(), story: None }
    }

    /// `None`: no such decision was heard of.
    pub fn finish(self) -> Option<Story> {
        self.story
    }

    /// Whether more leaves could say more.
    pub fn hear(&mut self, index: LeafIndex, bytes: &[u8], entry: &Entry, evidence: &[Evidence<'_>]) -> bool {
        match &mut self.story {
            Some(story) => story.hear(index, bytes, entry, evidence),
            None => self.before(index, bytes, entry, evidence),
        }
        self.story.as_ref().is_none_or(|story| !story.is_whole())
    }

    fn before(&mut self, index: LeafIndex, bytes: &[u8], entry: &Entry, evidence: &[Evidence<'_>]) {
        if let Entry::Policy(policy) = entry {
            self.policy = Some(At { index, bytes: bytes.to_vec(), entry: policy.clone() });
        }
        if let Entry::Decision(d) = entry
            && d.id == self.id
        {
            let policy = self.policy.take().filter(|policy| policy.entry.revision == d.policy.revision);
            self.story = Some(Story {
                input: found(evidence, &d.evaluation.input_digest).and_then(parse),
                outcome: None,
                attested: None,
                kept: None,
                policy,
                restrictions: in_force(&self.changes, d),
                words: Vec::new(),
                used_by: None,
                superseded_by: None,
                decision: At { index, bytes: bytes.to_vec(), entry: d.clone() },
            });
            return;
        }
        self.changes.extend(restriction(index, entry));
    }
}

impl Story {
    fn hear(&mut self, index: LeafIndex, bytes: &[u8], entry: &Entry, evidence: &[Evidence<'_>]) {
        let decision = &self.decision.entry;
        let hold = decision.hold.as_ref().map(|hold| hold.id);
        match entry {
            Entry::Outcome(o) if o.decision_index == self.decision.index => {
                let at = At { index, bytes: bytes.to_vec(), entry: o.clone() };
                match o.attestation {
                    Settled::Gateway => {
                        let digest = o.answer_digest;
                        self.kept = digest.and_then(|d| found(evidence, &d)).and_then(KeptAnswer::from_bytes);
                        self.outcome = Some(at);
                    }
                    Settled::Operator | Settled::UpstreamLog => self.attested = Some(at),
                }
            }
            Entry::Decision(d) => {
                let other = || Some(Other { index, id: d.id, decision: d.decision });
                if d.supersedes == Some(decision.id) {
                    self.superseded_by = other();
                }
                if hold.is_some() && d.approved_hold == hold {
                    self.used_by = other();
                }
            }
            Entry::Admin(a) if hold.is_some() && a.hold == hold => {
                self.words.push(At { index, bytes: bytes.to_vec(), entry: a.clone() });
            }
            Entry::Admin(_)
            | Entry::Outcome(_)
            | Entry::Epoch(_)
            | Entry::Heartbeat(_)
            | Entry::Key(_)
            | Entry::Policy(_)
            | Entry::Refusal(_) => {}
        }
    }

    /// Whether no later leaf can say anything about it.
    fn is_whole(&self) -> bool {
        let is_last_word = |word: &At<AdminEntry>| match word.entry.action {
            AdminAction::Expire => true,
            AdminAction::Approve
            | AdminAction::Refuse
            | AdminAction::Freeze
            | AdminAction::Unfreeze
            | AdminAction::Quarantine
            | AdminAction::Release => false,
        };
        match self.decision.entry.decision {
            Decision::Permit => self.outcome.as_ref().is_some_and(|outcome| match outcome.entry.status {
                OutcomeStatus::Confirmed | OutcomeStatus::Failed => true,
                OutcomeStatus::Indeterminate => self.attested.is_some(),
                OutcomeStatus::NotSent => self.superseded_by.is_some(),
            }),
            Decision::Escalate => {
                self.decision.entry.hold.is_none()
                    || self.used_by.is_some()
                    || self.words.iter().any(is_last_word)
            }
            Decision::Deny | Decision::Silence | Decision::Quarantine => true,
        }
    }
}

fn found<'e>(evidence: &[Evidence<'e>], digest: &Digest) -> Option<&'e [u8]> {
    let record = evidence.iter().find(|record| record.digest == *digest)?;
    (Digest::of(record.bytes) == *digest).then_some(record.bytes)
}

fn parse(bytes: &[u8]) -> Option<Json> {
    // A body stands some levels deep in the input, and redaction adds more.
    let bounds = Bounds { depth_max: limits::JSON_DEPTH_MAX * 2, values_max: usize::MAX };
    json::parse(bytes, bounds).ok()
}

/// What the leaf begins (`true`) or ends.
fn restriction(index: LeafIndex, entry: &Entry) -> Option<(Restricted, bool)> {
    match Change::of(entry).ok()?? {
        Change::Administered(admin) => {
            let (is_quarantine, begins) = match admin.action {
                AdminAction::Freeze => (false, true),
                AdminAction::Unfreeze => (false, false),
                AdminAction::Quarantine => (true, true),
                AdminAction::Release => (true, false),
                AdminAction::Approve | AdminAction::Refuse | AdminAction::Expire => return None,
            };
            let (at, reason) = (admin.at.rfc3339(), &admin.reason);
            let by = format!("by {} ({}) at {at}: {reason}", admin.by.id, admin.by.role.as_str());
            let (surface, actor) = (admin.surface, admin.actor);
            Some((Restricted { index, surface, actor, is_quarantine, by }, begins))
        }
        Change::Quarantined { surface, actor, by, at } => {
            let by = format!("by policy in {by} at {}", at.rfc3339());
            let (surface, actor) = (Some(surface), Some(actor));
            Some((Restricted { index, surface, actor, is_quarantine: true, by }, true))
        }
        Change::Permitted(_) | Change::Held(_) | Change::Settled(_) | Change::Activated(_) => None,
    }
}

/// What was in force when the decision read the version of the freezes, and is about its surface or its actor.
fn in_force(changes: &[(Restricted, bool)], decision: &DecisionEntry) -> Vec<Restricted> {
    let read = decision.evaluation.read_set.iter().find(|item| &*item.name == "freezes");
    let Some(version) = read.and_then(|item| item.version.parse().ok()).map(LeafIndex) else {
        return Vec::new();
    };
    let mut active: Vec<Restricted> = Vec::new();
    for (change, begins) in changes.iter().filter(|(change, _)| change.index <= version) {
        let is_same = |other: &Restricted| {
            (&other.surface, &other.actor, other.is_quarantine)
                == (&change.surface, &change.actor, change.is_quarantine)
        };
        active.retain(|other| !is_same(other));
        if *begins {
            active.push(change.clone());
        }
    }
    active.retain(|restricted| {
        restricted.surface.as_ref().is_none_or(|surface| *surface == decision.surface)
            && restricted.actor.as_ref().is_none_or(|actor| *actor == decision.actor.id)
    });
    active
}
