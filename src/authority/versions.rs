//! The versions of everything an evaluation can read.

use std::sync::Arc;

use crate::clock::Clock;
use crate::model::ReadSet;

/// Something the evaluation read is no longer what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: Arc<str>,
}

/// The current versions. Readers never wait.
#[derive(Debug)]
pub struct Versions(());

impl Versions {
    pub fn capture(&self, clock: &Clock) -> ReadSet {
        let _ = clock;
        todo!()
    }

    /// One step without an await.
    pub fn validate(&self, read: &ReadSet) -> Result<(), Moved> {
        let _ = read;
        todo!()
    }
}
