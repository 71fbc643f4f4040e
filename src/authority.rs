//! What is true now about this request, and which versions were read.
//!
//! `identity` proves who asks ([`Identities`], over certificates, tokens and API keys); `credentials` holds what the
//! gateway itself proves with towards an upstream; `versions` says whether anything an evaluation read has
//! moved since. Nothing here waits, and nothing here does I/O: `config` hands in what was read.

mod api_key;
mod credentials;
mod identity;
mod jwks;
mod jwt;
mod mtls;
mod spiffe;
mod state;
mod versions;

pub use api_key::{ApiKey, ApiKeyIdentity, ApiKeys, InvalidKeyPrefix, KeyPrefix, SharedApiKeys};
pub use credentials::{Credential, Credentials, InvalidCredential};
pub use identity::{IDENTITY, Identities, Presented, ProvedUnder, Require, Taken, Unauthenticated};
pub use jwks::{Algorithm, InvalidKeySet, Key, KeySet, KeySource};
pub use jwt::JwtIdentity;
pub use mtls::{MtlsIdentity, PeerCertificate, fault_of_handshake};
pub use spiffe::{
    InvalidPathPattern, InvalidSpiffeId, InvalidTrustDomain, PathPattern, SpiffeId, TrustDomain,
};
pub use state::{
    Answer, Approval, Asked, BudgetView, ClaimState, ClaimView, Draw, HoldView, Intent, NotReserved,
    Restriction, SameRequest, Scope, State, Ticket, View,
};
pub use versions::{Moved, Versions};
