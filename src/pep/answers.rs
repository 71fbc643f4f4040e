//! Requests whose idempotency key has been used: the kept answer once more, or why there is none.
//!
//! Nothing is decided and nothing is sent; that the key was used again is a `refusal` leaf, as often as an actor may
//! cause one. Answers that were given lately are in memory, the others beside their outcomes in the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::{Admitted, Gate, Refused, Surface};
use crate::authority::{ClaimState, ClaimView, SameRequest};
use crate::canonical::ExecutionRequest;
use crate::ledger::{Reader, Receipt, Rejection};
use crate::limits;
use crate::merkle::tree::leaf_hash;
use crate::model::{Digest, LeafIndex, Place, ReasonCode, ReceiptId, TreeSize};
use crate::upstream::KeptAnswer;

/// The decision that has the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    pub id: ReceiptId,
    /// Once its leaf is known to be durable.
    pub index: Option<LeafIndex>,
}

/// An answer that was given before.
#[derive(Debug)]
pub struct Replayed {
    pub answer: KeptAnswer,
    pub receipt: OriginalReceipt,
}

/// The receipt of the request that was carried out.
#[derive(Clone, Debug)]
pub struct OriginalReceipt {
    pub id: ReceiptId,
    pub index: LeafIndex,
    pub size: TreeSize,
    pub leaf_hash: Digest,
    /// A tlog-proof.
    pub proof: Arc<str>,
}

/// Answers that were given lately, up to a bound of bytes; the oldest leave first.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    by_id: HashMap<ReceiptId, Arc<Given>>,
    oldest_first: VecDeque<ReceiptId>,
    bytes: u64,
}

#[derive(Debug)]
struct Given {
    answer: KeptAnswer,
    receipt: Receipt,
}

impl Given {
    /// What it takes, roughly: a receipt has a share of its batch.
    fn bytes(&self) -> u64 {
        let headers: usize = self.answer.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 64).sum();
        (self.answer.body.len() + headers + 1_024) as u64
    }
}

impl Answers {
    /// To be called before the outcome is queued: once it is durable, the key says that there is an answer.
    pub fn keep(&self, receipt: Receipt, answer: KeptAnswer) {
        let Some(id) = receipt.id else { return };
        let given = Arc::new(Given { answer, receipt });
        let mut lately = self.lately();
        lately.bytes += given.bytes();
        if lately.by_id.insert(id, given).is_none() {
            lately.oldest_first.push_back(id);
        }
        while lately.bytes > limits::KEPT_ANSWERS_BYTES_MAX {
            let Some(oldest) = lately.oldest_first.pop_front() else { return };
            let gone = lately.by_id.remove(&oldest).map_or(0, |given| given.bytes());
            lately.bytes = lately.bytes.saturating_sub(gone);
        }
    }

    fn find(&self, id: ReceiptId) -> Option<Arc<Given>> {
        self.lately().by_id.get(&id).cloned()
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        // A panic between two of the steps above costs room, and never gives a wrong answer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request gets whose key has been used.
pub(super) async fn repeat(
    gate: &Gate,
    surface: &Surface,
    execution: ExecutionRequest,
    claim: ClaimView,
) -> Result<Admitted, Refused> {
    let ClaimView { id, same_request, state } = claim;
    let (index, code) = match (same_request, &state) {
        (SameRequest::No, ClaimState::Running) => (None, ReasonCode::IdempotencyKeyReused),
        (SameRequest::No, ClaimState::Executed { decision, .. } | ClaimState::Unknown { decision }) => {
            (Some(*decision), ReasonCode::IdempotencyKeyReused)
        }
        (SameRequest::Yes | SameRequest::Unknown, ClaimState::Running) => {
            (None, ReasonCode::IdempotencyRunning)
        }
        (SameRequest::Yes | SameRequest::Unknown, ClaimState::Unknown { decision }) => {
            (Some(*decision), ReasonCode::IdempotencyUnknown)
        }
        // Where it is not known whether it is the same request, no answer is kept either.
        (SameRequest::Unknown, ClaimState::Executed { decision, .. }) => {
            (Some(*decision), ReasonCode::IdempotencyAnswerNotKept)
        }
        (SameRequest::Yes, ClaimState::Executed { decision, outcome, answer, .. }) => {
            match kept(gate, id, *decision, *outcome, *answer).await {
                Ok(Some(replayed)) => {
                    note(gate, surface, &execution, ReasonCode::IdempotencyReplayed).await;
                    return Ok(Admitted::Again(Box::new(replayed)));
                }
                Ok(None) => (Some(*decision), ReasonCode::IdempotencyAnswerNotKept),
                Err(why) => {
                    tracing::error!(receipt = %id, why, "a kept answer cannot be read");
                    (Some(*decision), ReasonCode::LedgerUnavailable)
                }
            }
        }
    };
    let receipt = note(gate, surface, &execution, code).await;
    Err(Refused::Repeats { code, original: Original { id, index }, receipt })
}

/// The leaf that says so, unless the actor has caused too many.
async fn note(
    gate: &Gate,
    surface: &Surface,
    execution: &ExecutionRequest,
    code: ReasonCode,
) -> Option<Receipt> {
    gate.metrics.refused(Some(&surface.name), code);
    let rejection = Rejection {
        actor: execution.actor.clone(),
        surface: Some(surface.name.clone()),
        code,
        place: Some(Place::Header("idempotency-key".into())),
        received_digest: Some(execution.request.received_digest()),
        redacts: execution.request.redaction().is_some(),
    };
    // Nothing is sent in any case; that the log is in trouble shows on readiness and in metrics.
    gate.ledger.record_rejection(rejection).await.unwrap_or_else(|error| {
        tracing::error!(%error, "refusal not recorded");
        None
    })
}

/// From memory, or from the log. `Err` is for the log of the gateway.
async fn kept(
    gate: &Gate,
    id: ReceiptId,
    decision: LeafIndex,
    outcome: LeafIndex,
    answer: Option<Digest>,
) -> Result<Option<Replayed>, String> {
    if let Some(given) = gate.answers.find(id) {
        let Receipt { index, size, leaf_hash, .. } = given.receipt;
        let proof = given.receipt.proof().to_string().into();
        let receipt = OriginalReceipt { id, index, size, leaf_hash, proof };
        return Ok(Some(Replayed { answer: given.answer.clone(), receipt }));
    }
    let Some(answer) = answer else { return Ok(None) };
    let reader = gate.ledger.reader();
    // What is durable can be read a moment later.
    let mut snapshots = reader.subscribe();
    let lag_max = Duration::from_millis(limits::ADMIN_UP_TO_DATE_MS_MAX);
    let _ = timeout(lag_max, snapshots.wait_for(|at| at.size().0 > decision.0)).await;
    drop(snapshots);
    let reading = tokio::task::spawn_blocking(move || read(&reader, id, decision, outcome, &answer));
    reading.await.unwrap_or_else(|_panicked| Err("reading it panicked".to_owned()))
}

fn read(
    reader: &Reader,
    id: ReceiptId,
    decision: LeafIndex,
    outcome: LeafIndex,
    answer: &Digest,
) -> Result<Option<Replayed>, String> {
    let Some(evidence) = reader.evidence_of(outcome, answer).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let answer = KeptAnswer::from_bytes(&evidence).ok_or("it is not written as answers are")?;
    let at = reader.snapshot();
    let leaf = reader.entries(&at, decision, 1).map_err(|e| e.to_string())?.pop();
    let leaf = leaf.ok_or("its decision cannot be read yet")?;
    let proof = reader.proof(&at, decision).map_err(|e| e.to_string())?.to_string().into();
    let receipt =
        OriginalReceipt { id, index: decision, size: at.size(), leaf_hash: leaf_hash(&leaf), proof };
    Ok(Some(Replayed { answer, receipt }))
}
