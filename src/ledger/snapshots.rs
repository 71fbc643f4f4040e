//! State snapshots: what a follower of the log knew where a segment begins, so that a start need not fold all of it.
//!
//! `restart/<first entry of the segment, 20 digits>.state` holds a line of JSON that names log, place, root of the tree
//! before it, length and digest of the snapshot; a line with an HMAC of that line by the log's frame key, in hex; and
//! then the snapshot, whose form is the follower's. It is made when everything before the segment is applied and
//! nothing after, and written in the background. A start takes a restart point only together with the snapshot of the
//! same place and root. One that is missing, cut, forged, of another log or version is passed over: an older pair, or
//! the whole log, gives the same state.

use std::io;

use serde::{Deserialize, Serialize};

use super::restart::{Unfit, hex, unhex};
use super::storage::Storage;
use crate::limits;
use crate::merkle::frame::FrameKey;
use crate::model::{Digest, LeafIndex, LogOrigin};

const SPEC: &str = "interlock-state/1";

/// A snapshot that is still to be written out.
pub struct StateJob {
    /// First entry of the segment, and as many leaves are before it.
    pub first: LeafIndex,
    /// Of the tree before it.
    pub root: Digest,
    /// From [`super::Follower::snapshot`].
    pub snapshot: Box<dyn FnOnce() -> Vec<u8> + Send>,
}

impl std::fmt::Debug for StateJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateJob").field("first", &self.first).finish_non_exhaustive()
    }
}

/// The first line of the file. Members in the order of their names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    bytes: u64,
    first: LeafIndex,
    log: LogOrigin,
    root: Digest,
    sha256: Digest,
    spec: Box<str>,
}

/// Writes snapshots of one log.
#[derive(Debug)]
pub struct StateKeeper {
    pub log: LogOrigin,
    pub key: FrameKey,
}

impl StateKeeper {
    /// Writes one and removes those that are too old to be needed, and any of a log that was longer.
    pub fn keep(&self, storage: &dyn Storage, job: StateJob) -> io::Result<()> {
        let StateJob { first, root, snapshot } = job;
        let snapshot = snapshot();
        if snapshot.len() > limits::STATE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more state than a snapshot holds"));
        }
        storage.write_state(first, &self.to_bytes(first, root, snapshot)?)?;
        let (mut states, strange): (Vec<_>, Vec<_>) =
            storage.states()?.into_iter().partition(|other| *other <= first);
        states.truncate(states.len().saturating_sub(limits::STATES_MAX));
        let removed = states.iter().chain(&strange).map(|first| storage.remove_state(*first));
        // One that cannot be removed does not keep the others.
        removed.fold(Ok(()), Result::and)
    }

    fn to_bytes(&self, first: LeafIndex, root: Digest, snapshot: Vec<u8>) -> io::Result<Vec<u8>> {
        let sha256 = Digest::of(&snapshot);
        let (bytes, log) = (snapshot.len() as u64, self.log.clone());
        let written = Written { bytes, first, log, root, sha256, spec: SPEC.into() };
        let mut file = serde_json::to_vec(&written)?;
        let tag = hex(&self.key.tag(&file));
        file.push(b'\n');
        file.extend(tag.as_bytes());
        file.push(b'\n');
        file.extend(snapshot);
        Ok(file)
    }
}

/// The snapshot in the file of the segment that begins with `first`, of a log with this root there, if `is_tagged` says
/// of the first line and its tag that one of the log's keys made it.
pub fn parse<'b>(
    bytes: &'b [u8],
    (first, root): (LeafIndex, Digest),
    log: &LogOrigin,
    is_tagged: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<&'b [u8], Unfit> {
    if bytes.len() > STATE_FILE_BYTES_MAX {
        return Err(Unfit::Long);
    }
    let mut parts = bytes.splitn(3, |&b| b == b'\n');
    let (line, tag) = parts.next().zip(parts.next()).ok_or(Unfit::Lines)?;
    let snapshot = parts.next().ok_or(Unfit::Lines)?;
    let tag = unhex(tag).ok_or(Unfit::Lines)?;
    if !is_tagged(line, &tag) {
        return Err(Unfit::Tag);
    }
    let written: Written = serde_json::from_slice(line).map_err(|e| Unfit::Form(e.to_string()))?;
    if &*written.spec != SPEC {
        return Err(Unfit::Form(format!("`{}`", written.spec)));
    }
    if written.first != first || written.log != *log || written.root != root {
        return Err(Unfit::Elsewhere);
    }
    if written.bytes != snapshot.len() as u64 || written.sha256 != Digest::of(snapshot) {
        return Err(Unfit::Changed);
    }
    Ok(snapshot)
}

/// Both lines are short.
pub const STATE_FILE_BYTES_MAX: usize = limits::STATE_BYTES_MAX + 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::simulated::Simulated;

    fn keeper(seed: u8) -> StateKeeper {
        StateKeeper { log: "example.org/log".parse().expect("a name"), key: FrameKey::new(&[seed; 32]) }
    }

    fn root(first: u64) -> Digest {
        Digest::of(&first.to_be_bytes())
    }

    fn job(first: u64, snapshot: &[u8]) -> StateJob {
        let snapshot = snapshot.to_vec();
        StateJob { first: LeafIndex(first), root: root(first), snapshot: Box::new(move || snapshot) }
    }

    fn parsed(bytes: &[u8], first: u64, seed: u8) -> Result<&[u8], Unfit> {
        let keeper = keeper(seed);
        parse(bytes, (LeafIndex(first), root(first)), &keeper.log, |line, tag| keeper.key.tagged(line, tag))
    }

    #[test]
    fn a_snapshot_reads_back_and_one_that_was_cut_changed_moved_or_made_by_another_does_not() {
        let storage = Simulated::new();
        let content = b"claims\nand\nbudgets";
        keeper(1).keep(&storage, job(7, content)).expect("kept");
        let bytes = storage.read_state(LeafIndex(7)).expect("there");
        assert_eq!(parsed(&bytes, 7, 1).expect("a snapshot"), content);
        for cut in 0..bytes.len() {
            assert!(parsed(&bytes[..cut], 7, 1).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(parsed(&bent, 7, 1).is_err(), "byte {at}");
        }
        assert!(matches!(parsed(&bytes, 7, 2), Err(Unfit::Tag)), "another key");
        assert!(matches!(parsed(&bytes, 3, 1), Err(Unfit::Elsewhere)), "another place");
        let other = "example.org/other".parse().expect("a name");
        let moved = parse(&bytes, (LeafIndex(7), root(7)), &other, |_, _| true);
        assert!(matches!(moved, Err(Unfit::Elsewhere)), "another log");
        let forked = parse(&bytes, (LeafIndex(7), root(8)), &keeper(1).log, |_, _| true);
        assert!(matches!(forked, Err(Unfit::Elsewhere)), "another history");
    }

    #[test]
    fn only_the_newest_snapshots_are_kept() {
        let storage = Simulated::new();
        // One of a log that was longer, and was brought back from an older copy.
        storage.write_state(LeafIndex(100), b"of the longer log").expect("written");
        for first in 1..=limits::STATES_MAX as u64 + 2 {
            keeper(1).keep(&storage, job(first, b"state")).expect("kept");
        }
        let kept = storage.states().expect("listed");
        assert_eq!((kept.len(), kept[0]), (limits::STATES_MAX, LeafIndex(3)));
    }
}
