//! Who keeps state as a fold of the log hears of every durable leaf that changes it, here.

use crate::model::{Change, LeafIndex, TreeSize};

/// Follows the log. Called by the committer alone, in the order of the log, before any caller learns that its leaf is
/// durable; and at a start, for what is there already. Must not wait, and must not panic.
pub trait Follower: Send + Sync {
    /// These leaves are durable; `size` is the log's size with all leaves of their batch.
    fn apply(&self, changes: Vec<(LeafIndex, Change)>, size: TreeSize);

    /// The state with everything applied so far, and nothing else. Quick; what the returned job does may take its time,
    /// on another thread. Its bytes are what [`Follower::restore`] takes.
    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send>;

    /// Takes the place of all state so far. `Err` says why the bytes are no snapshot of this version, and leaves the
    /// state empty.
    fn restore(&self, snapshot: &[u8]) -> Result<(), String>;

    /// Back to the state of an empty log.
    fn clear(&self);
}

/// Nobody keeps state.
impl Follower for () {
    fn apply(&self, _: Vec<(LeafIndex, Change)>, _: TreeSize) {}

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        Box::new(Vec::new)
    }

    fn restore(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn clear(&self) {}
}
