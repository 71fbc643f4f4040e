//! What is true now about this request, and which versions were read.

mod credentials;
mod identity;
mod versions;

pub use credentials::{Credential, Credentials};
pub use identity::{Identity, Presented, Unauthenticated};
pub use versions::{Moved, Versions};
