//! Every integration test, in one binary.
#![allow(clippy::disallowed_methods, reason = "tests lay out files, connect, listen and measure time")]

mod support;

mod answers;
mod architecture;
mod canonical_properties;
mod configuration;
mod deployment;
mod ledger_faults;
mod path;
mod policy_packages;
