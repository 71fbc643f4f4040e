//! The only HTTP client: leases, the airlock, and what became of a sent request.

mod settings;

pub use settings::{Roots, Scheme, Settings};
