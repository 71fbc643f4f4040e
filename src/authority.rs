//! What is true now about this request, and which versions were read.
//!
//! `identity` proves who asks ([`Identities`], over certificates, tokens and API keys); `credentials` holds what the
//! gateway itself proves with towards an upstream; `versions` says whether anything an evaluation read has
//! moved since; `state` is what leaves left behind, and `budget` says what a request would draw on it. `config` hands in
//! what was read. What a request asks here never waits and does no I/O; only `facts` reads sources again, in tasks of
//! its own.

mod api_key;
mod budget;
mod credentials;
mod facts;
mod identity;
mod jwks;
mod jwt;
mod mtls;
mod spiffe;
mod state;
mod versions;

pub use api_key::{ApiKey, ApiKeyIdentity, ApiKeys, InvalidKeyPrefix, KeyPrefix, SharedApiKeys};
pub use budget::{
    Amount, BudgetError, BudgetRule, CalendarUnit, InputPointer, InvalidInputPointer, Window, draws,
    exact_number, parse_amount,
};
pub use credentials::{Credential, Credentials, InvalidCredential};
pub use facts::{
    FactRead, FactSource, FactSpec, FactUnavailable, Facts, FileSource, Parse, Unread, parse_json,
};
pub use identity::{IDENTITY, Identities, Presented, ProvedUnder, Require, Taken, Unauthenticated};
pub use jwks::{Algorithm, InvalidKeySet, Key, KeySet, KeySource};
pub use jwt::JwtIdentity;
pub use mtls::{MtlsIdentity, PeerCertificate, fault_of_handshake};
pub use spiffe::{
    InvalidPathPattern, InvalidSpiffeId, InvalidTrustDomain, PathPattern, SpiffeId, TrustDomain,
};
pub use state::{
    Answer, Approval, Asked, BudgetView, Changes, ClaimState, ClaimView, Draw, Fold, HoldStatus, HoldView,
    Intent, NotReserved, Population, Restricted, Restriction, RestrictionStatus, SameRequest, Scope, State,
    Ticket, UnknownOutcome, View,
};
pub use versions::{Moved, UNSET, Versions};
