//! The words of the design as types: names, ids, digests, verdicts, reasons, leaves.
//!
//! Nothing here does I/O or knows how a value came about. A name is checked once, when it is made,
//! and is valid from then on. `entry` holds the leaves of the log exactly as RECEIPTS.md lists them.

mod actor;
mod digest;
pub mod entry;
mod ids;
mod json;
mod read_set;
mod reason;
mod text;
mod verdict;

pub use actor::{Actor, AuthenticationMethod};
pub use digest::{Digest, Digester};
pub use ids::{
    ActionName, ActorId, Epoch, IdempotencyKey, InvalidName, LeafIndex, LogOrigin, PackageName, ReceiptId,
    SecretName, SurfaceName, TreeSize,
};
pub use json::{Json, Number, Object};
pub use read_set::{ReadItem, ReadSet};
pub use reason::{Place, PolicyReason, ReasonClass, ReasonCode};
pub use verdict::{Decision, OutcomeStatus, Settled};
