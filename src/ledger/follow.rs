//! Who keeps state as a fold of the log hears of every durable leaf that changes it, here.

use std::sync::Arc;

use serde::Deserialize;

use super::appender::Appended;
use super::seal::Sealing;
use super::snapshots::StateJob;
use crate::merkle::frame::Frame;
use crate::model::entry::{Entry, EntryType};
use crate::model::{Change, Decision, LeafIndex, TreeSize};

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

    /// Whether there is state at all: if not, no snapshots are made, and a start needs none.
    fn keeps_state(&self) -> bool {
        true
    }
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

    fn keeps_state(&self) -> bool {
        false
    }
}

/// Tells the follower of each batch as it becomes durable. Where a segment begins, its state is taken first: with all
/// leaves before the segment, and none of it.
#[derive(Clone)]
pub struct Following {
    pub follower: Arc<dyn Follower>,
    /// Writes the snapshots.
    pub sealing: Arc<Sealing>,
}

impl Following {
    pub fn tell(&self, appended: &Appended, changes: Vec<(LeafIndex, Change)>) {
        let Appended { first, before, size, .. } = appended;
        if appended.begins_segment() && first.0 > 0 && self.follower.keeps_state() {
            let (root, snapshot) = (before.root(), self.follower.snapshot());
            self.sealing.write_state(StateJob { first: *first, root, snapshot });
        }
        self.follower.apply(changes, *size);
    }
}

/// What the frame's entries change, read back from the log. `Err` names the first entry that cannot be read, and why.
pub fn changes_of(frame: &Frame<'_>) -> Result<Vec<(LeafIndex, Change)>, (LeafIndex, String)> {
    let mut changes = Vec::new();
    for (index, bytes) in (frame.first.0..).map(LeafIndex).zip(&frame.entries) {
        let change = change_of(bytes).map_err(|why| (index, why))?;
        changes.extend(change.map(|change| (index, change)));
    }
    Ok(changes)
}

fn change_of(bytes: &[u8]) -> Result<Option<Change>, String> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        entry_type: EntryType,
        decision: Option<Decision>,
    }
    let kind: Kind = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    match (kind.entry_type, kind.decision) {
        (EntryType::Epoch | EntryType::Heartbeat | EntryType::Key | EntryType::Refusal, _)
        | (EntryType::Decision, Some(Decision::Deny | Decision::Silence)) => Ok(None),
        (EntryType::Decision | EntryType::Outcome | EntryType::Admin | EntryType::Policy, _) => {
            let entry = Entry::from_bytes_unverified(bytes).map_err(|e| e.to_string())?;
            Change::of(&entry).map_err(|e| e.to_string())
        }
    }
}
