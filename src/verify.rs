//! Offline verification of a log directory, of a mirror of it, or of one receipt, with pinned keys and nothing else.
//!
//! In: a [`Source`] (a [`Directory`]) and the [`Trust`](crate::merkle::trust::Trust) in its keys. Out: a [`Report`] with
//! one verdict for each question of RECEIPTS.md and every problem by index, file and offset; or a [`ReceiptReport`], to
//! which [`Disclosures`] can be held.
//! Reads only; memory grows with the permits that are open, which are bounded, not with the log. Depends on `model` and `merkle` alone, and
//! on nothing that a gateway does: tests/architecture.rs. The ledger's recovery walks frames with the same [`walk`].
//!
//! One thread walks; `prepare` says on several threads what can be said of a frame alone, of nearly all leaves at a
//! `glance`; `leaves` holds leaves to each other, in order.
//!
//! Exit codes of `interlock verify`: 0 everything passed; 1 cannot be read; 2 wrong usage; 10 frames or
//! leaves malformed; 11 a leaf is not included; 12 not signed; 13 permits and outcomes not paired; 14 epochs;
//! 15 evidence; 16 tiles; 17 not replayed as recorded; 18 a disclosure belongs to nothing. The lowest failing one wins (`the_first_failing_check_decides_the_exit_code`).

mod canonical;
mod disclosures;
mod glance;
mod keys;
mod leaves;
mod log;
mod mirror;
mod pipeline;
mod prepare;
mod receipt;
mod report;
pub mod seekable;
pub mod source;
mod strict;
mod tiles;
pub mod walk;

pub use canonical::canonical_json;
pub use disclosures::{Disclosed, Disclosures, HeldAt, Holder, NotDisclosures};
pub use log::{Options, Progress, verify_log, verify_log_with};
pub use mirror::verify_mirror;
pub use receipt::{ReceiptReport, ReceiptVerdicts, verify_leaf_hash, verify_receipt};
pub use report::{Archived, Check, Open, Problem, Report, Verdict, Verdicts, escape, escape_json};
pub use source::{Directory, Form, Source, segment_file};
pub use strict::{NotCanonical, strict_canonical};
