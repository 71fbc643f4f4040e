//! The receipt log: the only writer of files.
//!
//! In: evaluated requests, outcomes, and the gateway's own events. Out: [`Recorded`] evidence, which
//! exists only after the leaf is on disk (fdatasync) and covered by a signed checkpoint.

mod recorded;

pub use recorded::{
    Obliges, OpenPermit, Outcome, OutcomeRecorded, Receipt, Recorded, Rejection, ResponseSeen, Sent,
    Unrecorded,
};

use crate::model::{Decision, Digest};
use crate::policy::{Evaluated, Permit, Refusal};

/// A handle to the one committer thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger(());

/// What the ledger can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Accepting,
    /// No room for decisions; outcomes still fit.
    Full,
    /// Disk state unknown; nothing more is written by this process.
    Poisoned,
}

impl Ledger {
    /// Appends the decision leaf; returns after it is durable and signed.
    pub async fn record_permit(
        &self,
        permit: Evaluated<Permit>,
        supersedes: Option<crate::model::ReceiptId>,
    ) -> Result<Recorded<Permit>, Unrecorded> {
        let _ = (permit, supersedes);
        todo!()
    }

    pub async fn record_refusal(
        &self,
        refusal: Evaluated<Refusal>,
        supersedes: Option<crate::model::ReceiptId>,
    ) -> Result<Recorded<Refusal>, Unrecorded> {
        let _ = (refusal, supersedes);
        todo!()
    }

    /// What was refused before it became an execution request. Rate-limited per actor: `Ok(None)` if only counted.
    pub async fn record_rejection(&self, rejection: Rejection) -> Result<Option<Receipt>, Unrecorded> {
        let _ = rejection;
        todo!()
    }

    pub fn health(&self) -> Health {
        todo!()
    }
}

#[expect(dead_code, reason = "skeleton")]
fn unused(_: Decision, _: Digest) {}

pub struct Statistics {
    pub leaves: u64,
    pub queued: u64,
    pub open_permits: u64,
}

impl Ledger {
    pub fn statistics(&self) -> Statistics {
        todo!()
    }
}
