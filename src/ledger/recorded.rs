//! Evidence that a leaf is durable, and the obligation a PERMIT carries.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Actor, Decision, Digest, LeafIndex, OutcomeStatus, Place, ReasonCode, ReceiptId, SurfaceName, TreeSize,
};
use crate::policy::{Evaluated, Permit, Refusal};

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
}

/// Nothing is forwarded. The enum says what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrecorded {
    /// Nothing was written; may be asked again when there is room.
    #[error("the log has no room for new decisions")]
    Full,
    /// Nothing was written, and never will be for this request.
    #[error("the receipt would be over 65,535 bytes")]
    TooLarge,
    /// Disk state unknown, or the ledger is closed; stop admitting.
    #[error("the log cannot be written")]
    Poisoned,
}

/// A verdict carries an obligation: a PERMIT must end in exactly one outcome.
pub trait Obliges {
    type Obligation;
}

impl Obliges for Permit {
    type Obligation = OpenPermit;
}

impl Obliges for Refusal {
    type Obligation = ();
}

/// A verdict whose receipt is durable.
pub struct Recorded<V: Obliges> {
    evaluated: Evaluated<V>,
    receipt: Receipt,
    obligation: V::Obligation,
}

impl<V: Obliges> Recorded<V> {
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

/// The duty to record one outcome for one PERMIT. Dropped without one, it records `not_sent` if no byte
/// can have left, else `indeterminate`.
pub struct OpenPermit {
    _private: (),
}

impl OpenPermit {
    /// From here on a drop means `indeterminate`. Called before the first byte.
    pub fn bytes_may_leave(&mut self) {
        todo!()
    }

    /// Queues the outcome at once; the returned value can be awaited for durability.
    pub fn close(self, outcome: Outcome) -> OutcomeRecorded {
        let _ = outcome;
        todo!()
    }
}

/// Resolves when the outcome leaf is durable.
pub struct OutcomeRecorded {
    _private: (),
}

impl OutcomeRecorded {
    pub async fn durable(self) -> Result<Receipt, Unrecorded> {
        todo!()
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
    pub duration: Duration,
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
}
