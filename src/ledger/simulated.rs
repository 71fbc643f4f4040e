//! A storage in memory that fails on demand.
