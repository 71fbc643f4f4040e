//! policy_packages.
