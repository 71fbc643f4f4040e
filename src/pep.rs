//! pep.
