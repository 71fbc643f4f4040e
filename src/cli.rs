//! Flags and exit codes; no logic.

pub mod check;
