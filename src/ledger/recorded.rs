//! Evidence that a leaf is durable, and the obligation a PERMIT carries.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::appender::{Duty, Leaf};
use super::entries;
use super::queue::{Answer, Effect, Kind, Shared, change_of};
use super::withhold;
use crate::canonical::ExecutionRequest;
use crate::clock::{Moment, WallTime};
use crate::merkle::batch::BatchTree;
use crate::merkle::proof::prove_inclusion;
use crate::merkle::tlog_proof::TlogProof;
#[cfg(test)]
use crate::merkle::tree::RightEdge;
use crate::model::entry::{AdminAction, AttestedBy, Entry, HoldEntry, OperatorEntry, OutcomeEntry, Reserve};
use crate::model::{
    Actor, ActorId, BudgetName, Decision, Digest, LeafIndex, OutcomeStatus, Place, PolicyReason, ReasonCode,
    ReceiptId, SurfaceName, TreeSize,
};
use crate::policy::{Evaluated, Permit, Refusal};
use crate::redaction::Salter;

/// What the caller can keep: the leaf's place and hash, and the size of the tree that was signed with it.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Of a decision; a refusal leaf has none.
    pub id: Option<ReceiptId>,
    pub index: LeafIndex,
    pub size: TreeSize,
    /// RFC 6962 leaf hash.
    pub leaf_hash: Digest,
    pub decision: Option<Decision>,
    pub(super) batch: Arc<Batch>,
}

/// What all receipts of one group commit have in common, and can be proved with.
#[derive(Debug)]
pub struct Batch {
    pub tree: BatchTree,
    /// Signed, of the tree that ends with the batch.
    pub checkpoint: Arc<str>,
}

impl Receipt {
    /// Proves the leaf in the tree of `size`, with the checkpoint that was signed for it. Reads nothing.
    pub fn proof(&self) -> TlogProof {
        let Batch { tree, checkpoint } = &*self.batch;
        assert!(tree.size() == self.size, "a receipt is of the batch that it was made with");
        let path = prove_inclusion(tree, self.index, self.size)
            .expect("a batch keeps every hash on the paths of its own leaves, and this is one");
        TlogProof { index: self.index, path, checkpoint: checkpoint.to_string() }
    }

    /// A receipt of the first leaf of a log, for tests of what is made from receipts.
    #[cfg(test)]
    pub(crate) fn of_first_leaf(id: ReceiptId, decision: Decision, checkpoint: &str) -> Self {
        let leaf_hash = Digest::from_bytes([1; 32]);
        let tree = BatchTree::new(RightEdge::empty(), vec![leaf_hash]);
        let batch = Arc::new(Batch { tree, checkpoint: checkpoint.into() });
        let (id, decision) = (Some(id), Some(decision));
        Self { id, index: LeafIndex(0), size: TreeSize(1), leaf_hash, decision, batch }
    }
}

/// Nothing is forwarded. The enum says what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrecorded {
    /// Nothing was written; may be asked again when there is room.
    #[error("the log has no room for new decisions")]
    Full,
    /// Nothing was written: too many wait, or too many permits are open. May be asked again soon.
    #[error("too many decisions are being recorded or carried out")]
    Busy,
    /// Nothing was written, and never will be for this request.
    #[error("the receipt would be over 65,535 bytes, or its evidence over its bound")]
    TooLarge,
    /// Nothing was written, and never will be for this request.
    #[error("what must stay out of the log cannot be kept out of it")]
    NotRedactable,
    /// Disk state unknown, or the ledger is closed; stop admitting.
    #[error("the log cannot be written")]
    Poisoned,
}

/// A verdict as the log sees it. It carries an obligation: a PERMIT must end in exactly one outcome.
pub trait Obliges: sealed::Sealed {
    type Obligation;

    fn decision(&self) -> Decision;
    fn reasons(&self) -> &[PolicyReason];
    /// What the committer gave with the receipt. `None` if that does not fit the verdict.
    #[doc(hidden)]
    fn obligation(open: Option<OpenPermit>) -> Option<Self::Obligation>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::policy::Permit {}
    impl Sealed for crate::policy::Refusal {}
}

impl Obliges for Permit {
    type Obligation = OpenPermit;

    fn decision(&self) -> Decision {
        Decision::Permit
    }

    fn reasons(&self) -> &[PolicyReason] {
        Permit::reasons(self)
    }

    fn obligation(open: Option<OpenPermit>) -> Option<OpenPermit> {
        open
    }
}

impl Obliges for Refusal {
    type Obligation = ();

    fn decision(&self) -> Decision {
        Refusal::decision(self)
    }

    fn reasons(&self) -> &[PolicyReason] {
        Refusal::reasons(self)
    }

    fn obligation(open: Option<OpenPermit>) -> Option<()> {
        open.is_none().then_some(())
    }
}

/// What was taken for a decision until its leaf is durable: given back when dropped, unless a follower of the log has
/// taken it over by then.
pub struct Guard(Box<dyn std::any::Any + Send>);

impl Guard {
    pub fn new(taken: impl std::any::Any + Send) -> Self {
        Self(Box::new(taken))
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Guard").field(&self.0.type_id()).finish()
    }
}

/// What a decision's leaf says beyond the verdict.
#[derive(Debug)]
pub struct Recording {
    /// From [`super::Ledger::new_id`].
    pub id: ReceiptId,
    pub supersedes: Option<ReceiptId>,
    /// Of a PERMIT whose idempotency key is claimed: until when.
    pub claim_until: Option<WallTime>,
    /// Of a PERMIT.
    pub reserves: Vec<Reserve>,
    /// Of a PERMIT: the hold whose approvals it uses up.
    pub approved_hold: Option<ReceiptId>,
    /// Of an ESCALATE.
    pub hold: Option<HoldEntry>,
    pub guard: Option<Guard>,
}

impl Recording {
    /// A decision that takes nothing.
    pub fn new(id: ReceiptId, supersedes: Option<ReceiptId>) -> Self {
        let (claim_until, reserves, approved_hold) = (None, Vec::new(), None);
        Self { id, supersedes, claim_until, reserves, approved_hold, hold: None, guard: None }
    }
}

/// A verdict whose receipt is durable.
#[derive(Debug)]
pub struct Recorded<V: Obliges> {
    evaluated: Evaluated<V>,
    receipt: Receipt,
    obligation: V::Obligation,
}

impl<V: Obliges> Recorded<V> {
    pub(super) fn new(evaluated: Evaluated<V>, receipt: Receipt, obligation: V::Obligation) -> Self {
        Self { evaluated, receipt, obligation }
    }

    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    pub fn evaluated(&self) -> &Evaluated<V> {
        &self.evaluated
    }

    pub fn into_parts(self) -> (Evaluated<V>, Receipt, V::Obligation) {
        (self.evaluated, self.receipt, self.obligation)
    }
}

impl Recorded<Refusal> {
    /// Gives the request up for another evaluation, once what was said of it is durable.
    pub fn into_execution(self) -> (ExecutionRequest, Receipt) {
        (self.evaluated.into_execution(), self.receipt)
    }
}

/// The duty to record one outcome for one PERMIT. Dropped without one, it records `not_sent` if no byte
/// can have left, else `indeterminate`; the cause is then `abandoned`.
#[derive(Debug)]
pub struct OpenPermit {
    shared: Arc<Shared>,
    id: ReceiptId,
    index: LeafIndex,
    /// What was reserved of, in the order of the leaf.
    budgets: Vec<BudgetName>,
    recorded_at: Moment,
    bytes_may_have_left: bool,
    closed: bool,
    /// For a decision that keeps its digests out of the log.
    salter: Option<Salter>,
}

impl OpenPermit {
    /// Made by the committer alone, once a PERMIT is durable and signed.
    pub(super) fn new(
        shared: Arc<Shared>,
        id: ReceiptId,
        index: LeafIndex,
        budgets: Vec<BudgetName>,
    ) -> Self {
        let recorded_at = shared.clock.monotonic();
        let (bytes_may_have_left, closed) = (false, false);
        Self { shared, id, index, budgets, recorded_at, bytes_may_have_left, closed, salter: None }
    }

    /// Its outcome leaves out what the decision left out.
    pub(super) fn withholding(mut self, salter: Option<Salter>) -> Self {
        self.salter = salter;
        self
    }

    /// From here on a drop means `indeterminate`. Called before the first byte.
    pub fn bytes_may_leave(&mut self) {
        self.bytes_may_have_left = true;
    }

    /// Queues the outcome at once; the returned value can be awaited for durability.
    ///
    /// Panics if the outcome says `not_sent` and what was sent: that would be a false receipt.
    pub fn close(mut self, outcome: Outcome) -> OutcomeRecorded {
        assert!(
            outcome.status != OutcomeStatus::NotSent || outcome.sent.is_none(),
            "what was sent is not `not_sent`"
        );
        self.closed = true;
        OutcomeRecorded(self.queue(outcome))
    }

    fn queue(&self, mut outcome: Outcome) -> Result<Answer, Unrecorded> {
        let now = self.shared.clock.wall();
        // What the decision keeps out of the log, an answer could bring in.
        let answer = outcome.answer.take().filter(|_| self.salter.is_none());
        let settles = entries::settles(outcome.status, &self.budgets);
        let entry = entries::outcome(outcome, self.id, self.index, self.shared.epoch, now);
        let lean = match &self.salter {
            Some(salter) => withhold::outcome(OutcomeEntry { settles, ..entry }, salter),
            None => OutcomeEntry { settles, ..entry },
        };
        let bytes = |entry: &OutcomeEntry| entries::outcome_bytes(entry.clone());
        let (entry, leaf) = match answer {
            Some(answer) => {
                let digest = Digest::of(&answer);
                let entry = OutcomeEntry { answer_digest: Some(digest), ..lean.clone() };
                let leaf = Leaf::with_spare_evidence(bytes(&entry), (digest, answer), bytes(&lean));
                (entry, leaf)
            }
            None => {
                let leaf = Leaf::new(bytes(&lean), Vec::new(), Duty::Owed);
                (lean, leaf)
            }
        };
        let change = change_of(&Entry::Outcome(Box::new(entry)));
        self.shared.push(leaf, Kind::Outcome, Effect { change, guard: None })
    }
}

impl Drop for OpenPermit {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let status =
            if self.bytes_may_have_left { OutcomeStatus::Indeterminate } else { OutcomeStatus::NotSent };
        let duration = self.shared.clock.monotonic().since(self.recorded_at);
        let (sent, response, answer) = (None, None, None);
        let abandoned = Outcome { status, cause: Some("abandoned"), sent, response, answer, duration };
        if self.queue(abandoned).is_err() {
            // The ledger has ended: the next start finds the permit open and settles it.
            tracing::warn!(receipt = %self.id, "a permit was abandoned after the ledger ended");
        }
    }
}

/// Resolves when the outcome leaf is durable.
#[derive(Debug)]
pub struct OutcomeRecorded(Result<Answer, Unrecorded>);

impl OutcomeRecorded {
    pub async fn durable(self) -> Result<Receipt, Unrecorded> {
        // A committer that panics drops the sender: what became of the leaf is not known.
        let done = self.0?.await.unwrap_or(Err(Unrecorded::Poisoned))?;
        Ok(done.receipt)
    }
}

/// What became of a permitted request.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: OutcomeStatus,
    /// Why it is not simply what the answer says: `superseded`, `recovered`, a `ReasonCode`.
    pub cause: Option<&'static str>,
    pub sent: Option<Sent>,
    pub response: Option<ResponseSeen>,
    /// The answer to keep for requests with the same idempotency key: evidence beside the leaf, which names it. Left out
    /// where it does not fit, and where the decision keeps values out of the log; the outcome is written all the same.
    pub answer: Option<Bytes>,
    pub duration: Duration,
}

/// What somebody else vouches for after an outcome that is `indeterminate`.
#[derive(Clone, Debug)]
pub struct Attestation {
    pub decision_id: ReceiptId,
    pub decision_index: LeafIndex,
    pub status: Attested,
    /// An operator, or without one the upstream's own log.
    pub by: AttestedBy,
    /// Of which the decision reserved.
    pub budgets: Vec<BudgetName>,
}

/// What can be known later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attested {
    Confirmed,
    Failed,
}

impl Attested {
    pub const fn status(self) -> OutcomeStatus {
        match self {
            Self::Confirmed => OutcomeStatus::Confirmed,
            Self::Failed => OutcomeStatus::Failed,
        }
    }
}

/// What an operator did, or the gateway itself when a hold expired. Which members an action has, [`AdminAction`] says.
#[derive(Clone, Debug)]
pub struct Administration {
    pub action: AdminAction,
    pub by: OperatorEntry,
    pub surface: Option<SurfaceName>,
    pub actor: Option<ActorId>,
    pub hold: Option<ReceiptId>,
    pub reason: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct ResponseSeen {
    pub status_code: u16,
    pub size: u64,
    pub body_digest: Digest,
}

/// Refused before it became an execution request.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub actor: Arc<Actor>,
    pub surface: Option<SurfaceName>,
    pub code: ReasonCode,
    pub place: Option<Place>,
    pub received_digest: Option<Digest>,
    /// The route redacts: the body's digest and names that the caller chose stay out of the leaf.
    pub redacts: bool,
}
