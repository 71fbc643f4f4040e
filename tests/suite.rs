//! Every integration test, in one binary.
#![allow(clippy::disallowed_methods, reason = "tests lay out files, connect, listen and measure time")]

mod support;

mod admin_plane;
mod airlock;
mod answers;
mod architecture;
mod auditing;
mod authority;
mod canonical_properties;
mod clients;
mod clock_jumps;
mod configuration;
mod corruption;
mod crash;
mod demo;
mod deployment;
mod disclosures;
mod documentation;
mod environment;
mod exploits;
mod facts;
mod http2;
mod identity;
mod interop;
mod keys;
mod ledger_attacks;
mod ledger_faults;
mod ledger_sealed;
mod model;
mod outcomes;
mod overload;
mod path;
mod policy_check;
mod policy_packages;
mod policy_reload;
mod redaction;
mod reading;
mod receipts;
mod replay;
mod sinks;
mod slow_clients;
mod smuggling;
mod syscalls;
mod ui;
mod verification;
