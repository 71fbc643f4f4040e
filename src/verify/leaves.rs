//! What the leaves of a log owe each other: every PERMIT one outcome, every start the tree it found, every decision
//! the policy it names.
//!
//! Memory grows with open permits only, and those are bounded. So ids are not compared across the log: an outcome names its decision by
//! index and id, and the index is what tells two decisions apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::keys::Keys;
use super::prepare::{DecisionFact, Fact, Message, OutcomeFact};
use super::report::Check;
use crate::limits;
use crate::merkle::tile::Fringe;
use crate::model::entry::{EpochEntry, EpochEvent, PreviousTree};
use crate::model::{
    Activated, Activations, BudgetName, Digest, Epoch, LeafIndex, OutcomeStatus, ReceiptId, Settled, TreeSize,
};

/// What is remembered of a PERMIT until its outcome comes.
#[derive(Debug)]
pub struct OpenDecision {
    pub id: ReceiptId,
    budgets: Vec<BudgetName>,
    request: Message,
}

/// PERMITs that the gateway left as `indeterminate` and nobody has vouched for since.
#[derive(Debug, Default)]
struct Unknown {
    decisions: BTreeMap<LeafIndex, (ReceiptId, Vec<BudgetName>)>,
    /// Of the earliest ones, when they became too many: of decisions up to this one nothing is said.
    forgotten: Option<LeafIndex>,
}

impl Unknown {
    fn add(&mut self, index: LeafIndex, id: ReceiptId, budgets: Vec<BudgetName>) {
        self.decisions.insert(index, (id, budgets));
        if self.decisions.len() > limits::INDETERMINATE_REMEMBERED
            && let Some((first, _)) = self.decisions.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(first));
        }
    }
}

/// A problem of one leaf.
pub type Complaint = (Check, String);

/// Takes facts in order; each problem is its own.
#[derive(Debug)]
pub struct Leaves {
    pub open: BTreeMap<LeafIndex, OpenDecision>,
    /// Permits that were closed last, and how.
    closed: VecDeque<(ReceiptId, OutcomeStatus)>,
    unknown: Unknown,
    pub keys: Keys,
    epoch: Option<Epoch>,
    stopped: bool,
    /// The last start, until the first leaf after it that is no outcome: what earlier runs owe is due between.
    due_since: Option<LeafIndex>,
    revisions: BTreeSet<Digest>,
    /// More were activated in this epoch than are remembered.
    revisions_lost: bool,
    activations: Activations,
    pub epochs: u64,
    pub decisions: u64,
    pub permits: u64,
}

impl Leaves {
    pub fn new(keys: Keys) -> Self {
        Self {
            open: BTreeMap::new(),
            closed: VecDeque::new(),
            unknown: Unknown::default(),
            keys,
            epoch: None,
            stopped: false,
            due_since: None,
            revisions: BTreeSet::new(),
            revisions_lost: false,
            activations: Activations::default(),
            epochs: 0,
            decisions: 0,
            permits: 0,
        }
    }

    /// Whether the last leaf was a clean stop.
    pub fn ends_with_stop(&self) -> bool {
        self.stopped
    }

    /// Takes the next leaf. `tree` is the tree before it.
    pub fn take(&mut self, fact: Fact, tree: &Fringe) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let index = LeafIndex(tree.size().0);
        let after_stop = std::mem::take(&mut self.stopped);
        if let Some(epoch) = epoch_inside(&fact) {
            if self.epoch != Some(epoch) {
                complaints.push((Check::Epochs, format!("of epoch {epoch}, which is not running")));
            } else if after_stop {
                complaints.push((Check::Epochs, "a leaf between a stop and the next start".into()));
            }
        }
        complaints.extend(self.unsettled(&fact).map(|what| (Check::Paired, what)));
        if !matches!(fact, Fact::Key(_)) && !is_own_outcome(&fact) {
            complaints.extend(self.keys.settled().map(|what| (Check::Epochs, what)));
        }
        match fact {
            Fact::Decision(d) => self.decision(index, d, &mut complaints),
            Fact::Outcome(o) => match o.attestation {
                Settled::Gateway => self.outcome(index, o, &mut complaints),
                Settled::Operator | Settled::UpstreamLog => {
                    complaints.extend(self.attested(&o).map(|what| (Check::Paired, what)));
                }
            },
            Fact::Epoch(e) => self.epoch(&e, tree, after_stop, &mut complaints),
            Fact::Heartbeat { previous, .. } => {
                complaints.extend(wrong_tree(&previous, tree).map(|what| (Check::Epochs, what)));
            }
            Fact::Key(k) => complaints.extend(self.keys.event(&k, index).map(|what| (Check::Epochs, what))),
            Fact::Policy { activated, older_than, .. } => {
                complaints.extend(self.older(activated, older_than).map(|what| (Check::Epochs, what)));
                self.activations.take(index, activated);
                self.revisions_lost |= self.revisions.len() >= limits::REVISIONS_REMEMBERED;
                if !self.revisions_lost {
                    self.revisions.insert(activated.revision);
                }
            }
            Fact::Admin { .. } | Fact::Refusal { .. } | Fact::Unreadable => {}
        }
        complaints
    }

    /// What is wrong with the version of a policy. One that is read from a directory has none, and says nothing.
    fn older(&self, activated: Activated, older_than: Option<u64>) -> Option<String> {
        match (self.activations.judge(activated), older_than) {
            (Ok(()), None) => None,
            (Err(older), Some(said)) if older.than.version == said => None,
            (Err(older), None) => activated.version.map(|_| format!("{older}, and nobody answers for that")),
            (Ok(()) | Err(_), Some(said)) => {
                Some(format!("says that it is not after version {said}, which is not the highest before it"))
            }
        }
    }

    /// A run settles what earlier ones left open before it does anything else.
    fn unsettled(&mut self, fact: &Fact) -> Option<String> {
        match fact {
            Fact::Epoch(_) | Fact::Key(_) | Fact::Unreadable => return None,
            Fact::Outcome(_) if is_own_outcome(fact) => return None,
            Fact::Outcome(_)
            | Fact::Decision(_)
            | Fact::Heartbeat { .. }
            | Fact::Policy { .. }
            | Fact::Refusal { .. }
            | Fact::Admin { .. } => {}
        }
        let start = self.due_since.take()?;
        let left = self.open.range(..start).count();
        (left > 0).then(|| format!("{left} permits of earlier runs have no outcome, and the run goes on"))
    }

    fn decision(&mut self, index: LeafIndex, d: DecisionFact, complaints: &mut Vec<Complaint>) {
        self.decisions += 1;
        if !self.revisions_lost && !self.revisions.contains(&d.revision) {
            let what = format!("under policy {}, of which no leaf of this epoch before it tells", d.revision);
            complaints.push((Check::Epochs, what));
        }
        complaints.extend(d.supersedes.and_then(|id| self.superseded(id)).map(|what| (Check::Paired, what)));
        if d.is_permit {
            self.permits += 1;
            // A gateway never has so many. Of a log that says so, no more is remembered.
            if self.open.len() >= limits::PERMITS_IN_FLIGHT_MAX {
                let max = limits::PERMITS_IN_FLIGHT_MAX;
                complaints.push((Check::Paired, format!("more than {max} permits are open")));
                return;
            }
            let DecisionFact { id, budgets, request, .. } = d;
            self.open.insert(index, OpenDecision { id, budgets, request });
        }
    }

    /// What is wrong with naming this receipt as superseded. Of receipts that are long gone nothing is said.
    fn superseded(&self, id: ReceiptId) -> Option<String> {
        match self.closed.iter().rev().find(|(closed, _)| *closed == id) {
            Some((_, OutcomeStatus::NotSent)) => None,
            Some((_, status)) => Some(format!("supersedes receipt {id}, which ended as {}", status.as_str())),
            None => {
                let newest = self.open.values().rev().take(limits::CLOSED_PERMITS_REMEMBERED);
                let is_open = newest.into_iter().any(|open| open.id == id);
                is_open.then(|| format!("supersedes receipt {id}, which has no outcome yet"))
            }
        }
    }

    fn outcome(&mut self, index: LeafIndex, o: OutcomeFact, complaints: &mut Vec<Complaint>) {
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
        if o.sent.as_ref().is_some_and(|sent| !sent.is_of(&decision.request)) {
            paired("other bytes were sent than were permitted".into());
        } else if let Some(what) = o.contradiction {
            paired(what.into());
        }
        if o.status == OutcomeStatus::Indeterminate {
            self.unknown.add(o.decision_index, decision.id, decision.budgets);
        } else if o.settles != decision.budgets {
            paired("it settles other budgets than the decision reserved of".into());
        }
        if self.closed.len() == limits::CLOSED_PERMITS_REMEMBERED {
            self.closed.pop_front();
        }
        self.closed.push_back((decision.id, o.status));
    }

    /// What is wrong with an outcome that somebody else than the gateway vouches for.
    fn attested(&mut self, o: &OutcomeFact) -> Option<String> {
        let of = o.decision_index;
        let Some((id, budgets)) = self.unknown.decisions.remove(&of) else {
            let what = "an attested outcome of an entry whose outcome is not `indeterminate`, or was attested before";
            return (self.unknown.forgotten < Some(of)).then(|| format!("{what}: {of}"));
        };
        if o.decision_id != id {
            return Some(format!("the outcome names receipt {}, its decision is {id}", o.decision_id));
        }
        (o.settles != budgets).then(|| "it settles other budgets than the decision reserved of".into())
    }

    fn epoch(&mut self, e: &EpochEntry, tree: &Fringe, after_stop: bool, complaints: &mut Vec<Complaint>) {
        let mut wrong = |what: String| complaints.push((Check::Epochs, what));
        wrong_tree(&e.previous, tree).into_iter().for_each(&mut wrong);
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
                if let Some(what) = self.keys.start(&e.vkeys, LeafIndex(tree.size().0)) {
                    wrong(what);
                }
                self.epoch = Some(e.epoch);
                self.epochs += 1;
                self.revisions.clear();
                self.revisions_lost = false;
                self.due_since = Some(LeafIndex(tree.size().0));
            }
            EpochEvent::Stop => {
                if self.epoch != Some(e.epoch) || after_stop {
                    wrong(format!("epoch {} stops, which is not running", e.epoch));
                }
                if !e.clean || e.torn_bytes != 0 {
                    wrong("a stop is clean and finds nothing torn".into());
                }
                if let Some(what) = self.keys.stop(&e.vkeys) {
                    wrong(what);
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

/// A start, a stop or a heartbeat says what stood before it.
fn wrong_tree(named: &PreviousTree, before: &Fringe) -> Option<String> {
    (named.size != before.size() || named.root != before.root()).then(|| {
        format!("names a tree of {} leaves with another root or size than the one before it", named.size)
    })
}

/// By the gateway, of its own or an earlier run's PERMIT.
fn is_own_outcome(fact: &Fact) -> bool {
    matches!(fact, Fact::Outcome(o) if o.attestation == Settled::Gateway)
}

/// Of a leaf that stands between a start and a stop.
fn epoch_inside(fact: &Fact) -> Option<Epoch> {
    match fact {
        Fact::Decision(d) => Some(d.epoch),
        Fact::Outcome(o) => Some(o.epoch),
        Fact::Key(k) => Some(k.epoch),
        Fact::Heartbeat { epoch, .. }
        | Fact::Policy { epoch, .. }
        | Fact::Refusal { epoch }
        | Fact::Admin { epoch } => Some(*epoch),
        Fact::Epoch(_) | Fact::Unreadable => None,
    }
}
