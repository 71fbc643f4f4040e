//! What is true now about this request, and which versions were read.
//!
//! `identity` proves who asks ([`Identities`], over [`ApiKeyIdentity`] today); `credentials` holds what the
//! gateway itself proves with towards an upstream; `versions` says whether anything an evaluation read has
//! moved since. `config` hands in what was read. What a request asks here never waits and does no I/O; only `facts` reads
//! sources again, in tasks of its own.

mod api_key;
mod credentials;
mod facts;
mod identity;
mod state;
mod versions;

pub use api_key::{ApiKey, ApiKeyIdentity, ApiKeys, InvalidKeyPrefix, KeyPrefix};
pub use credentials::{Credential, Credentials, InvalidCredential};
pub use facts::{
    FactRead, FactSource, FactSpec, FactUnavailable, Facts, FileSource, Parse, Unread, parse_json,
};
pub use identity::{Identities, Identity, Presented, Unauthenticated};
pub use state::{
    Answer, Approval, Asked, BudgetView, ClaimState, ClaimView, Draw, HoldView, Intent, NotReserved,
    Restriction, SameRequest, Scope, State, Ticket, View,
};
pub use versions::{Moved, UNSET, Versions};
