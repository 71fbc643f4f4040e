//! What is true now about this request, and which versions were read.
//!
//! `identity` proves who asks ([`Identities`], over [`ApiKeyIdentity`] today); `credentials` holds what the
//! gateway itself proves with towards an upstream; `versions` says whether anything an evaluation read has
//! moved since; `state` is what leaves left behind, and `budget` says what a request would draw on it. Nothing here
//! waits, and nothing here does I/O: `config` hands in what was read.

mod api_key;
mod budget;
mod credentials;
mod identity;
mod state;
mod versions;

pub use api_key::{ApiKey, ApiKeyIdentity, ApiKeys, InvalidKeyPrefix, KeyPrefix};
pub use budget::{
    Amount, BudgetError, BudgetRule, CalendarUnit, InputPointer, InvalidInputPointer, Window, draws,
    exact_number, parse_amount,
};
pub use credentials::{Credential, Credentials, InvalidCredential};
pub use identity::{Identities, Identity, Presented, Unauthenticated};
pub use state::{
    Answer, Approval, Asked, BudgetView, ClaimState, ClaimView, Draw, Fold, HoldStatus, HoldView, Intent,
    NotReserved, Population, Restricted, Restriction, RestrictionStatus, SameRequest, Scope, State, Ticket,
    UnknownOutcome, View,
};
pub use versions::{Moved, Versions};
