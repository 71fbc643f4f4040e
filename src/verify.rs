//! Offline verification of a log directory, with a pinned key and nothing else.
//!
//! In: a [`Source`] (a [`Directory`]) and a verifier key. Out: a [`Report`] with one verdict for each question
//! of RECEIPTS.md and every problem by index, file and offset. Reads only; memory grows with the permits that
//! are open, not with the log. The ledger's recovery walks frames with the same [`walk`].
//!
//! Exit codes of `interlock verify`: 0 everything passed; 1 cannot be read; 2 wrong usage; 10 frames or
//! leaves malformed; 11 a leaf is not included; 12 not signed; 13 permits and outcomes not paired; 14 epochs;
//! 15 evidence. The lowest failing one wins (`the_first_failing_check_decides_the_exit_code`).

mod leaves;
mod log;
mod report;
pub mod seekable;
pub mod source;
mod strict;
pub mod walk;

pub use log::verify_log;
pub use report::{Check, Open, Problem, Report, Verdict, Verdicts, escape, escape_json};
pub use source::{Directory, Form, Source, segment_file};
pub use strict::{NotCanonical, strict_canonical};
