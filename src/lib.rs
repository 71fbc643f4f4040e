//! Interlock: an inline HTTP gateway between software agents and production APIs.
//!
//! No PERMIT, no execution: a request leaves only if policy permitted exactly those bytes at that
//! moment, and only after the signed, append-only log holds a durable receipt of it.
//!
//! The modules stand in layer order. A module may import only modules declared above it;
//! `tests/architecture.rs` reads the order from this file and checks every import.

#![forbid(unsafe_code)]

// Vocabulary: bounds with units, the only reader of time, names of metrics and fields, newtypes.
pub mod limits;
pub mod clock;
pub mod model;
pub mod telemetry;

// Pure: no async, no I/O.
pub mod canonical;
pub mod redaction;
pub mod merkle;

// Offline: reads a log directory, trusts nothing but a key.
pub mod verify;

// The decision point: the only user of the Rego engine.
pub mod policy;

// Offline: evaluates what a log records once more.
pub mod replay;

// The only writer of files.
pub mod ledger;

// What is true now, and which versions were read.
pub mod authority;

// The only HTTP client, behind the airlock.
pub mod upstream;

// What becomes known later of outcomes that nobody knew.
pub mod reconcile;

// Receipts, streamed out as they become durable.
pub mod sinks;

// One request, from admission to answer.
pub mod pep;
pub mod respond;

// Edges and wiring.
pub mod ingress;
pub mod admin;
pub mod config;
pub mod gateway;
