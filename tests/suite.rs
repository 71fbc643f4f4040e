//! Every integration test, in one binary.

mod architecture;
mod canonical_properties;
mod configuration;
mod deployment;
mod ledger_faults;
mod policy_packages;
