//! Offline verification of a log directory: what is read, how it is walked, what it must look like.
//!
//! Nothing here writes, and nothing needs the gateway. [`walk`] is also how the ledger reads its own log.

pub mod source;
mod strict;
pub mod walk;

pub use source::{Directory, Source, segment_file};
pub use strict::{NotCanonical, strict_canonical};
