//! Appends one batch of leaves as one frame: room, write, sync, tree, signature, in this order.
//!
//! | after this step | a crash leaves |
//! |---|---|
//! | room | at most a new spare, or an empty segment: both are found again |
//! | write | nothing, a torn frame (quarantined at the next start), or a whole one (then it counts) |
//! | sync | a whole frame that nobody was told of: its permits are settled as `indeterminate` |
//! | signature | the same; the checkpoint is made again from the frames |
//!
//! A decision is written only while a whole spare segment exists after it, so that every outcome it may
//! cause has its room before it is needed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::signers::Signers;
use super::storage::Storage;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::merkle::checkpoint::Checkpoint;
use crate::merkle::frame::{self, Evidence, FrameKey, FrameParts};
use crate::merkle::note::SigningFailed;
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::model::{Digest, LeafIndex, LogOrigin, TreeSize};
use crate::verify::Form;
use crate::verify::walk::Spot;

/// One leaf to be written, with what stands beside it.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub bytes: Vec<u8>,
    pub hash: Digest,
    /// What the leaf names by digest, in the order in which it names it.
    pub evidence: Vec<(Digest, Bytes)>,
    pub duty: Duty,
    /// Of an owed leaf with evidence: its bytes without, for when there is no room to spare.
    pub lean: Option<Vec<u8>>,
}

/// Whether a leaf may be turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// A decision, refusal or heartbeat: needs room to spare.
    Optional,
    /// A policy activation, what an operator did: written when the disk is full, as long as what is owed keeps its room.
    Wanted,
    /// An outcome, start or stop: uses the room that the others kept free.
    Owed,
}

impl Leaf {
    pub fn new(bytes: Vec<u8>, evidence: Vec<(Digest, Bytes)>, duty: Duty) -> Self {
        Self { hash: leaf_hash(&bytes), bytes, evidence, duty, lean: None }
    }

    /// Owed, with evidence that is left out where there is no room for it: then these are the leaf's bytes.
    pub fn with_spare_evidence(bytes: Vec<u8>, evidence: (Digest, Bytes), lean: Vec<u8>) -> Self {
        Self { lean: Some(lean), ..Self::new(bytes, vec![evidence], Duty::Owed) }
    }

    /// Leaves out the evidence that is written only where there is room. Whether there was any.
    pub fn make_lean(&mut self) -> bool {
        let Some(lean) = self.lean.take() else { return false };
        *self = Self::new(lean, Vec::new(), self.duty);
        true
    }

    /// Whether it is written only while a whole spare segment is left over.
    pub fn needs_spare(&self) -> bool {
        self.duty == Duty::Optional || self.lean.is_some()
    }

    /// Bytes it takes in a frame.
    pub fn cost(&self) -> usize {
        frame::entry_cost(self.bytes.len())
            + self.evidence.iter().map(|(_, bytes)| frame::evidence_cost(bytes.len())).sum::<usize>()
    }
}

/// Where the log stands on disk.
#[derive(Clone, Debug)]
pub struct Tail {
    pub edge: RightEdge,
    /// Closing digest of the last frame.
    pub chain: Digest,
    /// Where the next frame goes, if there is a segment.
    pub spot: Option<Spot>,
    /// Length of that segment; it may have been made under another setting.
    pub segment_length: u64,
    pub spare: bool,
}

/// A durable, signed batch.
#[derive(Debug)]
pub struct Appended {
    pub first: LeafIndex,
    pub spot: Spot,
    /// Where in that segment the next frame goes.
    pub end: u64,
    /// Closing digest of the frame before, and of this one.
    pub previous: Digest,
    pub chain: Digest,
    /// The edge that the batch was appended to.
    pub before: RightEdge,
    pub size: TreeSize,
    pub root: Digest,
    /// The signed checkpoint of exactly this size.
    pub checkpoint: Arc<str>,
    pub sync: Duration,
}

impl Appended {
    /// Whether the batch is the first in its segment.
    pub fn begins_segment(&self) -> bool {
        self.spot.offset == 0
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum NotAppended {
    /// Nothing was written. Without its optional leaves the batch may still fit.
    #[error("the disk has no room for a segment: {0}")]
    NoRoom(std::io::Error),
    /// What is on disk is not known; nothing more may be written.
    #[error("{what}: {source}")]
    Unknown { what: &'static str, source: std::io::Error },
    /// The frame is durable, but no checkpoint could be signed: nothing may be released.
    #[error("the signing key cannot be used")]
    NotSigned,
}

pub struct Appender {
    storage: Arc<dyn Storage>,
    signers: Signers,
    frame_key: FrameKey,
    clock: Clock,
    segment_bytes: u64,
    tail: Tail,
    /// Outcomes that may still have to be written.
    owed: usize,
    /// When room was last looked for in vain, and what was said.
    refused: Option<(Moment, std::io::ErrorKind)>,
}

impl Appender {
    pub fn new(
        storage: Arc<dyn Storage>,
        signers: Signers,
        clock: Clock,
        segment_bytes: u64,
        tail: Tail,
    ) -> Result<Self, SigningFailed> {
        let frame_key = signers.frame_key()?;
        Ok(Self { storage, signers, frame_key, clock, segment_bytes, tail, owed: 0, refused: None })
    }

    pub fn edge(&self) -> &RightEdge {
        &self.tail.edge
    }

    pub fn has_spare(&self) -> bool {
        self.tail.spare
    }

    /// Makes sure that there is a spare. On failure decisions are turned away until there is one.
    pub fn take_spare(&mut self) -> Result<(), NotAppended> {
        self.ensure_spare()
    }

    /// Without a spare, what is only wanted leaves room for so many outcomes, each alone in its frame.
    pub fn keep_room_for(&mut self, outcomes: usize) {
        self.owed = outcomes;
    }

    fn origin(&self) -> &LogOrigin {
        self.signers.origin()
    }

    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// Appends 1 to [`limits::FRAME_ENTRIES_MAX`] leaves as one frame.
    pub fn append(&mut self, leaves: &[Leaf]) -> Result<Appended, NotAppended> {
        let sections: usize = leaves.iter().map(Leaf::cost).sum();
        let spot = self.make_room(frame::padded_length(sections) as u64, leaves)?;

        let first = LeafIndex(self.tail.edge.size().0);
        let mut edge = self.tail.edge.clone();
        leaves.iter().for_each(|l| edge.append(l.hash));
        let (previous, root) = (self.tail.chain, edge.root());
        let parts = FrameParts {
            first,
            previous,
            root,
            entries: leaves.iter().map(|l| l.bytes.as_slice()).collect(),
            evidence: leaves
                .iter()
                .flat_map(|l| &l.evidence)
                .map(|(digest, bytes)| Evidence { digest: *digest, bytes })
                .collect(),
        };
        let (bytes, chain) = frame::encode(&parts, &self.frame_key);
        assert!(spot.offset + bytes.len() as u64 <= self.tail.segment_length, "a frame stays in its segment");

        let unknown = |what| move |source| NotAppended::Unknown { what, source };
        self.storage
            .write_at(spot.segment, spot.offset, &bytes)
            .map_err(unknown("a frame was not written"))?;
        let before_sync = self.clock.monotonic();
        self.storage.sync(spot.segment).map_err(unknown("a frame was not made durable"))?;
        let sync = self.clock.monotonic().since(before_sync);

        // Durable. The tree in memory follows the disk, then the signature follows the tree.
        let before = std::mem::replace(&mut self.tail.edge, edge);
        self.tail.chain = chain;
        let end = spot.offset + bytes.len() as u64;
        self.tail.spot = Some(Spot { offset: end, ..spot });
        let (size, checkpoint) = (self.tail.edge.size(), self.checkpoint()?);
        Ok(Appended { first, spot, end, previous, chain, before, size, root, checkpoint, sync })
    }

    /// Signs the tree as it is on disk.
    pub fn checkpoint(&self) -> Result<Arc<str>, NotAppended> {
        self.sign(&self.tail.edge)
    }

    /// Signs the tree without leaves, which every log was once.
    pub fn checkpoint_of_nothing(&self) -> Result<Arc<str>, NotAppended> {
        self.sign(&RightEdge::empty())
    }

    fn sign(&self, edge: &RightEdge) -> Result<Arc<str>, NotAppended> {
        let checkpoint = Checkpoint { origin: self.origin().clone(), size: edge.size(), root: edge.root() };
        self.signers.sign(&checkpoint).map(Into::into).map_err(|_| NotAppended::NotSigned)
    }

    /// Where a frame of this length goes, and what its leaves ask for to be left over afterwards.
    fn make_room(&mut self, frame_bytes: u64, leaves: &[Leaf]) -> Result<Spot, NotAppended> {
        assert!(frame_bytes <= self.segment_bytes, "batches are bounded by the segment");
        let fitting = self.tail.spot.filter(|s| s.offset + frame_bytes <= self.tail.segment_length);
        let spot = match fitting {
            Some(spot) => spot,
            None => {
                self.ensure_spare()?;
                self.promote_spare()?
            }
        };
        let left = self.tail.segment_length - spot.offset - frame_bytes;
        let is_wanted = leaves.iter().any(|l| l.duty == Duty::Wanted);
        if leaves.iter().any(Leaf::needs_spare) || is_wanted && left < self.owed_bytes() {
            self.ensure_spare()?;
        }
        Ok(spot)
    }

    /// Of outcomes alone in their frames, and of the leaves of a stop.
    fn owed_bytes(&self) -> u64 {
        ((self.owed + limits::STOP_FRAMES_MAX) * limits::FRAME_ALIGNMENT_BYTES) as u64
    }

    fn promote_spare(&mut self) -> Result<Spot, NotAppended> {
        let segment = LeafIndex(self.tail.edge.size().0);
        self.storage
            .promote_spare(segment)
            .map_err(|source| NotAppended::Unknown { what: "a segment was not put in place", source })?;
        let spot = Spot { segment, offset: 0, form: Form::Raw };
        self.tail.spare = false;
        self.tail.segment_length = self.segment_bytes;
        self.tail.spot = Some(spot);
        Ok(spot)
    }

    /// Takes room for a spare, but asks a full disk only every [`limits::ROOM_RETRY_MS`].
    fn ensure_spare(&mut self) -> Result<(), NotAppended> {
        if self.tail.spare {
            return Ok(());
        }
        let now = self.clock.monotonic();
        if let Some((at, kind)) = self.refused
            && now.since(at) < Duration::from_millis(limits::ROOM_RETRY_MS)
        {
            return Err(NotAppended::NoRoom(kind.into()));
        }
        match self.storage.create_spare(self.segment_bytes) {
            Ok(()) => {
                self.tail.spare = true;
                self.refused = None;
                Ok(())
            }
            Err(source) => {
                self.refused = Some((now, source.kind()));
                Err(NotAppended::NoRoom(source))
            }
        }
    }
}
