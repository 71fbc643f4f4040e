//! The log's formats, pure: RFC 6962 tree and proofs, C2SP signed notes and checkpoints, frames.
