//! Form bodies.
