//! Offline verification of a log directory.
