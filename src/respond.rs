//! respond.
