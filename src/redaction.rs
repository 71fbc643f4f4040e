//! Keeps declared values out of leaves and evidence, and gives them back to who holds their disclosures.
//!
//! In: the policy input as it was judged, the places its route declares, and a [`Salter`]. Out: the same tree
//! in the form of RFC 9901: a member that is kept out leaves its digest in its object's `_sd`, an element leaves
//! `{"...": digest}` in its place. A digest is of a [`Disclosure`], which holds value and salt; whoever has it
//! can check the one against the other ([`Disclosures`]), and without it nothing can be guessed from a small value.
//! The salts of one run come from one key, which is in no log: destroy it, and no disclosure can be made again.

mod disclose;
mod disclosure;
mod marked;
mod reasons;
mod redact;
mod restore;
mod salt;

pub use disclose::disclose;
pub use disclosure::{Disclosure, NoDisclosure};
pub use marked::{Masked, REDACTED, marked, mask};
pub use reasons::reasons_as_written;
pub use redact::{NotRedactable, Redacted, redact};
pub use restore::{Disclosures, InvalidDisclosure, Restored, Unrestored};
pub use salt::{EpochKey, Salter};

/// The same value has the same salt in a decision's leaf, its evidence and its outcome: these are its places.
pub mod places {
    pub const DIGEST: &str = "/request/digest";
    pub const BODY_DIGEST: &str = "/request/body_digest";
    pub const RECEIVED_DIGEST: &str = "/request/received_digest";
    pub const TARGET: &str = "/request/target";
    pub const RESPONSE_BODY_DIGEST: &str = "/response/body_digest";
}
