//! The only HTTP client: leases, the airlock, and what became of a sent request.
//!
//! In: a [`Recorded`](crate::ledger::Recorded) PERMIT and a [`Lease`] on a connected, idle connection.
//! Out: the upstream's [`Answer`], or [`NoAnswer`]; either way exactly one outcome in the log.
//!
//! ```text
//! Upstream::lease ----------------> Lease            connected, TLS complete, every write refused
//! permit::seal(Recorded<Permit>) -> PermittedRequest read set valid, permit young, credential in place
//! PermittedRequest::forward(Lease)> InFlight         the seal is armed with exactly these bytes, once;
//!                                                    the first of them leaves only if all that still holds
//! InFlight::answer ---------------> Answer           streams the body; concluding it records the outcome
//! ```
//!
//! Nothing here retries, follows, decompresses or edits. [`Client`] is for what the gateway itself has to say.

mod client;
mod conditions;
mod departed;
mod exchange;
mod fact;
mod kept;
mod lease;
mod passed;
mod permit;
mod sealed_io;
mod settings;
mod status;
mod tls;

pub use client::{Client, Endpoint, NoDocument, OwnCredential};
pub use conditions::CREDENTIAL_EXPIRED;
pub use exchange::{Answer, Concluded, Cut, InFlight, NoAnswer};
pub use fact::HttpSource;
pub use kept::KeptAnswer;
pub use lease::{Lease, LeaseError, PoolGauge, Upstream};
#[cfg(test)]
pub(crate) use lease::{Reach, Wire};
pub use passed::{passed_fields, passed_trailers};
pub use permit::{Moved, PermittedRequest, seal};
pub use settings::{Roots, Scheme, Settings};
pub use status::{
    AnswerPointer, InvalidAnswerPointer, InvalidStatusQuestion, NoStatus, NotFoundIs, Said, StatusAnswer,
    StatusQuestion, StatusRules, StatusSource,
};
pub use tls::InvalidRoots;
