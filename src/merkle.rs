//! The log's formats, pure: no async, no I/O, no clock.
//!
//! [`tree`] is the RFC 6962 Merkle tree as hashes and a right edge, [`proof`] its inclusion and consistency
//! proofs, [`batch`] the tree around one group commit, [`note`] C2SP signed notes, [`checkpoint`] C2SP
//! tlog-checkpoint, [`tile`] C2SP tlog-tiles, [`trust`] C2SP tlog-policy, [`tlog_proof`] what a caller keeps of one leaf,
//! [`frame`] the write-ahead form of one group commit. Bytes come in untrusted; what comes out under a short name has
//! been checked.

pub mod batch;
pub mod checkpoint;
pub mod frame;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
pub mod trust;
