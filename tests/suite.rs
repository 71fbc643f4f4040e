//! Every integration test, in one binary.

mod architecture;
mod canonical_properties;
mod configuration;
mod demo;
mod deployment;
mod documentation;
mod ledger_attacks;
mod ledger_faults;
mod policy_packages;
