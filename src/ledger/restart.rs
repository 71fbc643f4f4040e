//! Restart points: what recovery would know after reading the log up to the start of a segment.
//!
//! `restart/<first entry of the segment, 20 digits>.json` holds two lines: the point as JSON, and an HMAC of that line
//! by the log's frame key in hex, so that nobody without the signing key can make a start forget a permit. A point is
//! derived: without it the start reads more, and says the same. One that is missing, cut, forged, of another log or
//! version, or past what the checkpoint covers is passed over.

use std::io;

use serde::{Deserialize, Serialize};

use super::follow::Follower;
use super::recovery::Fold;
use super::signers::Recognized;
use super::snapshots;
use super::storage::{Storage, restart_file};
use crate::limits;
use crate::merkle::frame::FrameKey;
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::model::{Digest, Digester, LeafIndex, LogOrigin, TreeSize};
use crate::verify::Source;
use crate::verify::walk::{Step, Walk};

const SPEC: &str = "interlock-restart/1";

/// The log before the first frame of a segment.
#[derive(Clone, Debug)]
pub struct RestartPoint {
    /// First entry of the segment, and as many leaves are before it.
    pub first: LeafIndex,
    pub edge: RightEdge,
    /// Closing digest of the last frame before the segment.
    pub chain: Digest,
    pub fold: Fold,
}

/// The first line of the file. Members in the order of their names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    chain: Digest,
    first: LeafIndex,
    fold: Fold,
    log: LogOrigin,
    peaks: Vec<Digest>,
    /// [`names`] of the segments before this one: a start reads none of them, and still sees that one is gone.
    segments: Digest,
    spec: Box<str>,
}

/// Why a restart point is passed over.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    #[error("it is longer than a restart point can be")]
    Long,
    #[error("it is not a point and its tag, each on a line")]
    Lines,
    #[error("none of the log's keys made it")]
    Tag,
    #[error("it is not a point of this version: {0}")]
    Form(String),
    #[error("it is a point of another place or log")]
    Elsewhere,
    #[error("the segments up to it are not the ones that were there when it was made")]
    Segments,
    #[error("it is not as long as it says, or has another digest")]
    Changed,
    #[error("the state snapshot beside it cannot be used: {0}")]
    State(String),
}

impl RestartPoint {
    fn to_bytes(&self, segments: &[LeafIndex], log: &LogOrigin, key: &FrameKey) -> io::Result<Vec<u8>> {
        let written = Written {
            chain: self.chain,
            first: self.first,
            fold: self.fold.clone(),
            log: log.clone(),
            peaks: self.edge.peaks().to_vec(),
            segments: names(segments, self.first),
            spec: SPEC.into(),
        };
        let mut bytes = serde_json::to_vec(&written)?;
        let tag = hex(&key.tag(&bytes));
        bytes.push(b'\n');
        bytes.extend(tag.as_bytes());
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What the file of the segment that begins with `first` holds, of a log with these segments, if `is_tagged` says of
    /// the point and its tag that one of the log's keys made it.
    pub fn parse(
        bytes: &[u8],
        first: LeafIndex,
        segments: &[LeafIndex],
        log: &LogOrigin,
        is_tagged: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<Self, Unfit> {
        if bytes.len() > limits::RESTART_BYTES_MAX {
            return Err(Unfit::Long);
        }
        let mut lines = bytes.strip_suffix(b"\n").ok_or(Unfit::Lines)?.splitn(2, |&b| b == b'\n');
        let (point, tag) = lines.next().zip(lines.next()).ok_or(Unfit::Lines)?;
        let tag = unhex(tag).ok_or(Unfit::Lines)?;
        if !is_tagged(point, &tag) {
            return Err(Unfit::Tag);
        }
        let written: Written = serde_json::from_slice(point).map_err(|e| Unfit::Form(e.to_string()))?;
        if &*written.spec != SPEC {
            return Err(Unfit::Form(format!("`{}`", written.spec)));
        }
        if written.first != first || written.log != *log {
            return Err(Unfit::Elsewhere);
        }
        if written.segments != names(segments, first) || segments.binary_search(&first).is_err() {
            return Err(Unfit::Segments);
        }
        let edge = RightEdge::from_peaks(TreeSize(first.0), written.peaks)
            .ok_or_else(|| Unfit::Form("peaks of a tree of another size".into()))?;
        Ok(Self { first, edge, chain: written.chain, fold: written.fold })
    }
}

/// Writes a point and removes those that are too old to be needed.
pub fn keep(storage: &dyn Storage, log: &LogOrigin, key: &FrameKey, point: &RestartPoint) -> io::Result<()> {
    let bytes = point.to_bytes(&storage.segments()?, log, key)?;
    if bytes.len() > limits::RESTART_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more open permits than a restart point names",
        ));
    }
    storage.write_restart(point.first, &bytes)?;
    // None is newer than this one: what says so is of a log that was longer, and would outlive those of this one.
    let (points, strange): (Vec<_>, Vec<_>) =
        storage.restart_points()?.into_iter().partition(|first| *first <= point.first);
    // A point is ahead of the checkpoint until that is published: the ones before it are what a crash then needs.
    let surplus = points.len().saturating_sub(limits::RESTARTS_MAX);
    let removed = points[..surplus].iter().chain(&strange).map(|first| storage.remove_restart(*first));
    // One that cannot be removed does not keep the others.
    removed.fold(Ok(()), Result::and)
}

/// The newest point that can be started from: of this log, by one of its keys, of leaves that all were signed, and with a
/// snapshot of the follower's state, if that keeps any; then the follower has it.
pub fn choose(
    storage: &dyn Storage,
    recognized: &Recognized,
    signed: TreeSize,
    follower: &dyn Follower,
) -> io::Result<Option<RestartPoint>> {
    let segments = storage.segments()?;
    let points = storage.restart_points().unwrap_or_else(|error| {
        tracing::warn!(%error, "restart points cannot be listed: all of the log is read");
        Vec::new()
    });
    for first in points.into_iter().rev().filter(|first| first.0 <= signed.0) {
        let point = storage.read_restart(first).map_err(Unfit::Read).and_then(|bytes| {
            let is_tagged = |point: &[u8], tag: &[u8]| recognized.tagged(point, tag);
            let point = RestartPoint::parse(&bytes, first, &segments, recognized.origin(), is_tagged)?;
            if follower.keeps_state() {
                restore(storage, recognized, &point, follower)
                    .map_err(|why| Unfit::State(why.to_string()))?;
            }
            Ok(point)
        });
        match point {
            Ok(point) => return Ok(Some(point)),
            Err(why) => pass_over(first, &why),
        }
    }
    Ok(None)
}

fn restore(
    storage: &dyn Storage,
    recognized: &Recognized,
    point: &RestartPoint,
    follower: &dyn Follower,
) -> Result<(), Unfit> {
    let bytes = storage.read_state(point.first).map_err(Unfit::Read)?;
    let place = (point.first, point.edge.root());
    let snapshot =
        snapshots::parse(&bytes, place, recognized.origin(), |line, tag| recognized.tagged(line, tag))?;
    follower.restore(snapshot).map_err(Unfit::Form)
}

/// What a restart point of every segment but the first one would say, read from the frames; up to the first damage.
pub fn derive<S: Source + ?Sized>(
    source: &S,
    log: &LogOrigin,
    mut each: impl FnMut(RestartPoint) -> io::Result<()>,
) -> io::Result<()> {
    let mut walk = Walk::new(source, log)?;
    let (mut edge, mut fold) = (RightEdge::empty(), Fold::default());
    loop {
        let chain = walk.chain();
        let Step::Frame(frame, spot) = walk.step()? else { return Ok(()) };
        if spot.offset == 0 && frame.first > LeafIndex(0) {
            each(RestartPoint { first: frame.first, edge: edge.clone(), chain, fold: fold.clone() })?;
        }
        for (index, entry) in (frame.first.0..).map(LeafIndex).zip(&frame.entries) {
            if fold.add(index, entry).is_err() {
                return Ok(());
            }
            edge.append(leaf_hash(entry));
        }
    }
}

/// One digest for the first indexes of the segments before this one, in their order.
fn names(segments: &[LeafIndex], before: LeafIndex) -> Digest {
    let mut digester = Digester::new();
    segments
        .iter()
        .filter(|first| **first < before)
        .for_each(|first| digester.update(&first.0.to_be_bytes()));
    digester.finish()
}

pub fn pass_over(first: LeafIndex, why: &dyn std::fmt::Display) {
    tracing::warn!(file = restart_file(first), %why, "a restart point is passed over");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.len() == 64 && t.is_ascii())?;
    (0..32).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::simulated::Simulated;
    use crate::model::{Epoch, ReceiptId};

    const SEGMENTS: [LeafIndex; 4] = [LeafIndex(0), LeafIndex(3), LeafIndex(7), LeafIndex(9)];

    fn log() -> LogOrigin {
        "example.org/log".parse().expect("a name")
    }

    fn key(seed: u8) -> FrameKey {
        FrameKey::new(&[seed; 32])
    }

    fn tagged_by(seed: u8) -> impl Fn(&[u8], &[u8]) -> bool {
        move |point, tag| key(seed).tagged(point, tag)
    }

    fn point(leaves: u64) -> RestartPoint {
        let mut edge = RightEdge::empty();
        (0..leaves).for_each(|n| edge.append(Digest::of(&n.to_be_bytes())));
        let id: ReceiptId = "019aa1b6-0e7b-7707-8707-070707070707".parse().expect("an id");
        let fold = Fold {
            open: [(LeafIndex(1), id), (LeafIndex(4), id)].into(),
            last_epoch: Some(Epoch(3)),
            served: true,
            ..Fold::default()
        };
        RestartPoint { first: LeafIndex(leaves), edge, chain: Digest::of(b"chain"), fold }
    }

    fn parsed(bytes: &[u8], first: u64, seed: u8) -> Result<RestartPoint, Unfit> {
        RestartPoint::parse(bytes, LeafIndex(first), &SEGMENTS, &log(), tagged_by(seed))
    }

    #[test]
    fn a_point_reads_back_as_it_was_written() {
        let written = point(7);
        let bytes = written.to_bytes(&SEGMENTS, &log(), &key(1)).expect("bounded");
        let read = parsed(&bytes, 7, 1).expect("a point");
        assert_eq!((read.first, &read.edge, read.chain), (written.first, &written.edge, written.chain));
        assert_eq!(read.fold, written.fold);
    }

    #[test]
    fn a_point_that_was_cut_changed_moved_or_made_by_another_is_not_one() {
        let bytes = point(7).to_bytes(&SEGMENTS, &log(), &key(1)).expect("bounded");
        for cut in 0..bytes.len() {
            assert!(parsed(&bytes[..cut], 7, 1).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(parsed(&bent, 7, 1).is_err(), "byte {at}");
        }
        assert!(matches!(parsed(&bytes, 7, 2), Err(Unfit::Tag)), "another key");
        assert!(matches!(parsed(&bytes, 3, 1), Err(Unfit::Elsewhere)), "another file");
        let other = "example.org/other".parse().expect("a name");
        let moved = RestartPoint::parse(&bytes, LeafIndex(7), &SEGMENTS, &other, tagged_by(1));
        assert!(matches!(moved, Err(Unfit::Elsewhere)), "another log");
        for gone in [1, 2] {
            let mut left = SEGMENTS.to_vec();
            left.remove(gone);
            let point = RestartPoint::parse(&bytes, LeafIndex(7), &left, &log(), tagged_by(1));
            assert!(matches!(point, Err(Unfit::Segments)), "segment {gone} is gone");
        }
        let long = [bytes, vec![b' '; limits::RESTART_BYTES_MAX]].concat();
        assert!(matches!(parsed(&long, 7, 1), Err(Unfit::Long)));
    }

    #[test]
    fn a_point_of_another_version_or_size_is_not_one() {
        let of = |text: String| {
            let tag = hex(&key(1).tag(text.as_bytes()));
            parsed(format!("{text}\n{tag}\n").as_bytes(), 7, 1)
        };
        let bytes = point(7).to_bytes(&SEGMENTS, &log(), &key(1)).expect("bounded");
        let text = String::from_utf8(bytes).expect("UTF-8").lines().next().expect("a line").to_owned();
        assert!(of(text.clone()).is_ok());
        for (from, to) in [
            ("restart/1", "restart/2"),
            ("\"served\":true", "\"served\":true,\"more\":1"),
            (
                "\"peaks\":[",
                "\"peaks\":[\"sha-256:0000000000000000000000000000000000000000000000000000000000000000\",",
            ),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(matches!(of(changed), Err(Unfit::Form(_))), "{to}");
        }
    }

    #[test]
    fn only_the_newest_points_are_kept() {
        let storage = Simulated::new();
        for leaves in 1..=limits::RESTARTS_MAX as u64 + 3 {
            keep(&storage, &log(), &key(1), &point(leaves)).expect("kept");
        }
        let kept = storage.restart_points().expect("readable");
        assert_eq!((kept.len(), kept[0]), (limits::RESTARTS_MAX, LeafIndex(4)));
        // Those of a log that was longer, and was brought back from an older copy.
        for later in 100..100 + limits::RESTARTS_MAX as u64 {
            storage.write_restart(LeafIndex(later), b"a point of the longer log").expect("written");
        }
        keep(&storage, &log(), &key(1), &point(12)).expect("kept");
        let kept = storage.restart_points().expect("readable");
        assert_eq!((kept.len(), kept.last()), (limits::RESTARTS_MAX, Some(&LeafIndex(12))));
    }
}
