//! What the leaves of a log owe each other: every PERMIT one outcome, every start the tree it found.
//!
//! Memory grows with open permits only. So ids are not compared across the log: an outcome names its decision by
//! index and id, and the index is what tells two decisions apart.

use std::collections::BTreeMap;
use std::slice;

use crate::clock::WallTime;
use crate::merkle::frame::Evidence;
use crate::merkle::tree::RightEdge;
use crate::model::entry::{
    DecisionEntry, Entry, EpochEntry, EpochEvent, EvaluationStatus, OutcomeEntry, PolicyEntry, RequestEntry,
    SPEC, SentEntry,
};
use crate::model::{Decision, Digest, Epoch, LeafIndex, OutcomeStatus, ReceiptId, Settled, TreeSize};

use super::report::Check;
use super::strict::strict_canonical;

/// What is remembered of a PERMIT until its outcome comes.
#[derive(Clone, Debug)]
pub struct OpenDecision {
    pub id: ReceiptId,
    request: RequestEntry,
}

/// Reads leaves in order; `Err` never stops it, each problem is its own.
#[derive(Debug, Default)]
pub struct Leaves {
    pub open: BTreeMap<LeafIndex, OpenDecision>,
    epoch: Option<Epoch>,
    stopped: bool,
    /// The last start, until the first leaf after it that is no outcome: what earlier runs owe is due between.
    due_since: Option<LeafIndex>,
    pub epochs: u64,
    pub decisions: u64,
    pub permits: u64,
}

/// A problem of one leaf.
pub type Complaint = (Check, String);

impl Leaves {
    /// Whether the last leaf was a clean stop.
    pub fn ends_with_stop(&self) -> bool {
        self.stopped
    }

    /// Reads one leaf. `tree` is the tree before it, `evidence` what no earlier leaf of the frame has taken,
    /// `vkey` the pinned key as text.
    pub fn read(
        &mut self,
        bytes: &[u8],
        tree: &RightEdge,
        evidence: &mut slice::Iter<'_, Evidence<'_>>,
        vkey: &str,
    ) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let strict = strict_canonical(bytes);
        if let Err(why) = &strict {
            complaints.push((Check::WellFormed, why.to_string()));
        }
        let entry = match Entry::from_bytes_unverified(bytes) {
            Ok(entry) => entry,
            Err(why) => {
                complaints.push((Check::WellFormed, why.to_string()));
                self.stopped = false;
                return complaints;
            }
        };
        // Reading is more generous than writing: a list of the right values is taken for a struct.
        if strict.is_ok() && entry.to_bytes() != bytes {
            complaints.push((Check::WellFormed, "its members are not written as the format says".into()));
        }
        complaints.extend(common(&entry).map(|what| (Check::WellFormed, what)));
        let index = LeafIndex(tree.size().0);
        let after_stop = std::mem::take(&mut self.stopped);
        match &entry {
            Entry::Epoch(e) => self.read_epoch(e, tree, vkey, after_stop, &mut complaints),
            Entry::Decision(_) | Entry::Key(_) | Entry::Outcome(_) | Entry::Policy(_) | Entry::Refusal(_) => {
                if self.epoch != Some(epoch_of(&entry)) {
                    complaints.push((
                        Check::Epochs,
                        format!("of epoch {}, which is not running", epoch_of(&entry)),
                    ));
                } else if after_stop {
                    complaints.push((Check::Epochs, "a leaf between a stop and the next start".into()));
                }
                complaints.extend(self.unsettled(&entry).map(|what| (Check::Paired, what)));
            }
        }
        match entry {
            Entry::Decision(d) => self.read_decision(index, &d, evidence, &mut complaints),
            Entry::Outcome(o) => self.read_outcome(index, &o, &mut complaints),
            Entry::Policy(p) => complaints.extend(missing_files(&p, evidence)),
            Entry::Epoch(_) | Entry::Key(_) | Entry::Refusal(_) => {}
        }
        complaints
    }

    /// A run settles what earlier ones left open before it does anything else.
    fn unsettled(&mut self, entry: &Entry) -> Option<String> {
        if matches!(entry, Entry::Outcome(_)) {
            return None;
        }
        let start = self.due_since.take()?;
        let left = self.open.range(..start).count();
        (left > 0).then(|| format!("{left} permits of earlier runs have no outcome, and the run goes on"))
    }

    fn read_decision(
        &mut self,
        index: LeafIndex,
        d: &DecisionEntry,
        evidence: &mut slice::Iter<'_, Evidence<'_>>,
        complaints: &mut Vec<Complaint>,
    ) {
        self.decisions += 1;
        if !take(evidence, d.evaluation.input_digest) {
            let what = "the policy input that its `input_digest` names is not beside it";
            complaints.push((Check::Evidence, what.into()));
        }
        let not_evaluated = d.evaluation.status == EvaluationStatus::NotEvaluated;
        if d.decision == Decision::Permit {
            self.permits += 1;
            self.open.insert(index, OpenDecision { id: d.id, request: d.request.clone() });
            if not_evaluated {
                complaints.push((Check::WellFormed, "a PERMIT that was not evaluated".into()));
            }
            if d.reasons.is_empty() {
                complaints.push((Check::WellFormed, "a PERMIT without a reason".into()));
            }
        }
        if not_evaluated != d.evaluation.cause.is_some() {
            let what = "a decision names a cause exactly if policy was not evaluated";
            complaints.push((Check::WellFormed, what.into()));
        }
    }

    fn read_outcome(&mut self, index: LeafIndex, o: &OutcomeEntry, complaints: &mut Vec<Complaint>) {
        let mut paired = |what: String| complaints.push((Check::Paired, what));
        if o.decision_index >= index {
            return paired(format!("the outcome of entry {}, which is not before it", o.decision_index));
        }
        let Some(decision) = self.open.remove(&o.decision_index) else {
            return paired(format!(
                "an outcome of entry {}, which is no PERMIT or has its outcome already",
                o.decision_index
            ));
        };
        if o.decision_id != decision.id {
            paired(format!("the outcome names receipt {}, its decision is {}", o.decision_id, decision.id));
        }
        if let Some(what) = contradiction(o, &decision.request) {
            paired(what.into());
        }
    }

    fn read_epoch(
        &mut self,
        e: &EpochEntry,
        tree: &RightEdge,
        vkey: &str,
        after_stop: bool,
        complaints: &mut Vec<Complaint>,
    ) {
        let mut wrong = |what: String| complaints.push((Check::Epochs, what));
        if e.previous.size != tree.size() || e.previous.root != tree.root() {
            wrong(format!(
                "names a tree of {} leaves with another root or size than the one before it",
                e.previous.size
            ));
        }
        match e.event {
            EpochEvent::Start => {
                let expected = Epoch(self.epoch.map_or(1, |last| last.0.saturating_add(1)));
                if e.epoch != expected {
                    wrong(format!("epoch {} starts, expected epoch {expected}", e.epoch));
                }
                let clean = (after_stop || tree.size() == TreeSize(0)) && e.torn_bytes == 0;
                if e.clean != clean {
                    wrong(format!(
                        "says that the log ended {}, which it did not",
                        if e.clean { "cleanly" } else { "without a stop" }
                    ));
                }
                if !e.vkeys.iter().any(|k| &**k == vkey) {
                    wrong("the pinned key is not among the keys of this epoch".into());
                }
                self.epoch = Some(e.epoch);
                self.epochs += 1;
                self.due_since = Some(LeafIndex(tree.size().0));
            }
            EpochEvent::Stop => {
                if self.epoch != Some(e.epoch) || after_stop {
                    wrong(format!("epoch {} stops, which is not running", e.epoch));
                }
                if !e.clean || e.torn_bytes != 0 {
                    wrong("a stop is clean and finds nothing torn".into());
                }
                if !self.open.is_empty() {
                    complaints
                        .push((Check::Paired, format!("a clean stop with {} permits open", self.open.len())));
                }
                self.stopped = true;
            }
        }
    }
}

/// Takes the next record if it is the one that is named. Records stand in the order in which leaves name them, and a
/// frame's digests of them were checked.
fn take(evidence: &mut slice::Iter<'_, Evidence<'_>>, named: Digest) -> bool {
    let is_next = evidence.as_slice().first().is_some_and(|record| record.digest == named);
    if is_next {
        evidence.next();
    }
    is_next
}

fn missing_files(p: &PolicyEntry, evidence: &mut slice::Iter<'_, Evidence<'_>>) -> Vec<Complaint> {
    let missing = p.files.iter().filter(|file| !take(evidence, file.sha256));
    missing
        .map(|file| {
            (
                Check::Evidence,
                format!("the bundle's file `{}` is not beside it as `{}`", file.name, file.sha256),
            )
        })
        .collect()
}

/// Whether what was sent is what was permitted: by the plain digest, or by that of its disclosure.
fn is_of(sent: &SentEntry, request: &RequestEntry) -> bool {
    match (&sent.digest, &*sent.disclosures) {
        (Some(digest), []) => request.digest == Some(*digest),
        (None, [disclosure]) => request.digest.is_none() && request.disclosures.contains(disclosure),
        (Some(_), [_, ..]) | (None, [] | [_, _, ..]) => false,
    }
}

/// What an outcome says that cannot be true.
fn contradiction(o: &OutcomeEntry, request: &RequestEntry) -> Option<&'static str> {
    // An operator or the upstream's own log may know the truth without having seen the bytes.
    if o.attestation != Settled::Gateway {
        return None;
    }
    match (o.status, &o.sent, &o.response) {
        (_, Some(sent), _) if !is_of(sent, request) => Some("other bytes were sent than were permitted"),
        (OutcomeStatus::NotSent, None, None) | (OutcomeStatus::Indeterminate, _, _) => None,
        (OutcomeStatus::NotSent, _, _) => Some("not sent, and yet something was sent or answered"),
        (OutcomeStatus::Confirmed, None, _) => Some("confirmed, and yet not sent whole"),
        (OutcomeStatus::Confirmed | OutcomeStatus::Failed, _, None) => {
            Some("settled by an answer that is not there")
        }
        // An upstream may refuse with a 4xx before it has read the whole message.
        (OutcomeStatus::Confirmed, Some(_), Some(seen)) | (OutcomeStatus::Failed, _, Some(seen)) => {
            let stands_for = OutcomeStatus::of_whole_answer(seen.status_code);
            (stands_for != o.status).then_some("the status code stands for another outcome")
        }
    }
}

fn epoch_of(entry: &Entry) -> Epoch {
    match entry {
        Entry::Decision(e) => e.epoch,
        Entry::Epoch(e) => e.epoch,
        Entry::Key(e) => e.epoch,
        Entry::Outcome(e) => e.epoch,
        Entry::Policy(e) => e.epoch,
        Entry::Refusal(e) => e.epoch,
    }
}

/// `spec` and `time`, which every leaf has.
fn common(entry: &Entry) -> Option<String> {
    let (spec, time) = match entry {
        Entry::Decision(e) => (&e.spec, &e.time),
        Entry::Epoch(e) => (&e.spec, &e.time),
        Entry::Key(e) => (&e.spec, &e.time),
        Entry::Outcome(e) => (&e.spec, &e.time),
        Entry::Policy(e) => (&e.spec, &e.time),
        Entry::Refusal(e) => (&e.spec, &e.time),
    };
    if &**spec != SPEC {
        return Some(format!("of another specification, `{spec}`"));
    }
    let is_time = WallTime::parse_rfc3339(time).is_some_and(|t| t.rfc3339() == **time);
    (!is_time).then(|| format!("`{time}` is not a time in UTC with microseconds"))
}
