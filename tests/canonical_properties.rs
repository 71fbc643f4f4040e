//! canonical_properties.
