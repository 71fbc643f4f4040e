//! The words of the design as types: names, ids, digests, verdicts, reasons, leaves.
//!
//! Nothing here does I/O or knows how a value came about. A name is checked once, when it is made,
//! and is valid from then on. `entry` holds the leaves of the log exactly as RECEIPTS.md lists them.

mod activation;
mod actor;
mod digest;
pub mod entry;
mod fault;
mod ids;
mod json;
mod line;
mod read_set;
mod reason;
mod redaction;
mod state;
mod text;
mod verdict;

pub use activation::{Activated, Activations, Highest, Older};
pub use actor::{Actor, AuthenticationMethod};
pub use digest::{Digest, Digester, InvalidDigest};
pub use fault::CredentialFault;
pub use ids::{
    ActionName, ActorId, BudgetName, Epoch, FactName, IdempotencyKey, InvalidName, LeafIndex, LogOrigin,
    PackageName, ReceiptId, SecretName, SinkName, SurfaceName, TreeSize,
};
pub use json::{Json, Number, Object};
pub use line::{append_line, parse_line};
pub use read_set::{ReadItem, ReadSet};
pub use reason::{Place, PolicyReason, ReasonClass, ReasonCode};
pub use redaction::{
    DIGESTS, ELEMENT, InvalidPointer, Pointer, Redaction, Step, escape_step, is_reserved, reserved_name,
    unescape_pointer,
};
pub use state::{Administered, Change, Claim, Held, InvalidLeaf, Permitted, Reserved, Settlement};
pub use verdict::{Decision, OutcomeStatus, Settled};
