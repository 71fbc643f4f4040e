//! Canonicalization against oracles and against itself.

mod documents;
mod requests;
