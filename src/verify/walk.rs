//! Reads a log frame by frame and holds each to its place: name, index, chain, digest, padding.
//!
//! The verifier and the ledger's recovery walk with this same code. One frame is in memory at a time.
//! The walk ends at [`Step::End`], where the next frame would go, or at the first [`Damage`]; it then
//! says whether anything follows the damage, which is what tells a torn last write from a changed log.

use std::fmt;
use std::io;

use super::source::{Source, segment_file};
use crate::limits;
use crate::merkle::frame::{self, Frame, FrameError};
use crate::model::{Digest, LeafIndex, LogOrigin};

const BLOCK: u64 = limits::FRAME_ALIGNMENT_BYTES as u64;
const EMPTY_BLOCK: [u8; limits::FRAME_ALIGNMENT_BYTES] = [0; limits::FRAME_ALIGNMENT_BYTES];
/// Zero blocks are looked through in pieces of this size.
const SCAN_BYTES: usize = 256 * limits::FRAME_ALIGNMENT_BYTES;

/// A position in the log's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub segment: LeafIndex,
    /// Bytes from the start of the segment.
    pub offset: u64,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", segment_file(self.segment), self.offset)
    }
}

/// What stands where a frame should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("bytes that are not zero follow an empty block")]
    NotZero,
    #[error("the frame begins with entry {found}, expected entry {expected}")]
    Index { expected: LeafIndex, found: LeafIndex },
    #[error("the frame does not name the one before it")]
    Chain,
    #[error("the segment is named for entry {found}, expected entry {expected}")]
    Name { expected: LeafIndex, found: LeafIndex },
}

impl Fault {
    /// Whether a write that was cut short could leave this.
    pub fn can_be_torn(&self) -> bool {
        match self {
            Self::Frame(_) | Self::NotZero => true,
            Self::Index { .. } | Self::Chain | Self::Name { .. } => false,
        }
    }
}

/// The first thing in the log that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub spot: Spot,
    /// Index of the entry that was expected here.
    pub index: LeafIndex,
    pub fault: Fault,
    /// Bytes from the spot to the end of the last block in this segment that is not zero.
    pub bytes: u64,
    /// A whole frame of later entries in this segment, or anything at all in a later one.
    pub followed_by: Option<Spot>,
}

impl Damage {
    /// A cut-short last write, and nothing else.
    pub fn is_torn_tail(&self) -> bool {
        self.fault.can_be_torn() && self.followed_by.is_none()
    }

    /// Whether to ask for the same step once more: a gateway that was writing this frame when it was read has
    /// made it whole before it wrote what follows.
    pub fn may_be_whole_now(&self, looked_again: &mut Option<Spot>) -> bool {
        self.fault.can_be_torn()
            && self.followed_by.is_some()
            && looked_again.replace(self.spot) != Some(self.spot)
    }
}

#[derive(Debug)]
pub enum Step<'w> {
    Frame(Frame<'w>, Spot),
    /// Where the next frame goes; `None` if there is no segment at all.
    End(Option<Spot>),
    Damaged(Damage),
}

/// A walk from the first frame on.
pub struct Walk<'s, S: Source + ?Sized> {
    source: &'s S,
    segments: Vec<LeafIndex>,
    /// Position in `segments`, and in that segment.
    at: usize,
    offset: u64,
    next: LeafIndex,
    previous: Digest,
    buffer: Vec<u8>,
}

impl<'s, S: Source + ?Sized> Walk<'s, S> {
    pub fn new(source: &'s S, origin: &LogOrigin) -> io::Result<Self> {
        Ok(Self {
            source,
            segments: source.segments()?,
            at: 0,
            offset: 0,
            next: LeafIndex(0),
            previous: frame::genesis(origin),
            buffer: Vec::new(),
        })
    }

    /// Closing digest of the last frame given out; of the log's name before the first.
    pub fn chain(&self) -> Digest {
        self.previous
    }

    /// The bytes of the frame that was given out last, padding included. `spare` is read into from here on.
    pub fn swap_buffer(&mut self, spare: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.buffer, spare)
    }

    /// Looks for segments that were begun since: after an end there may be more.
    pub fn look_again(&mut self) -> io::Result<()> {
        self.segments = self.source.segments()?;
        Ok(())
    }

    /// The next frame. After an end there is nothing more to ask for; after damage, the same place again.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        let Some((spot, length)) = self.next_block()? else { return Ok(Step::End(self.end())) };
        if spot.offset == 0 && spot.segment != self.next {
            return self.damaged(spot, Fault::Name { expected: self.next, found: spot.segment });
        }
        self.buffer.resize(BLOCK as usize, 0);
        self.source.read_at(spot.segment, spot.offset, &mut self.buffer)?;
        if self.buffer == EMPTY_BLOCK {
            return match self.last_used_block(spot, length)? {
                Some(_) => self.damaged(spot, Fault::NotZero),
                // Zero to the end of the segment: it is either the last one, or the next frame did not fit.
                None if self.at + 1 == self.segments.len() => Ok(Step::End(Some(spot))),
                None => {
                    (self.at, self.offset) = (self.at + 1, 0);
                    self.step()
                }
            };
        }
        if let Err(fault) = self.read_frame(spot, length)? {
            return self.damaged(spot, fault.into());
        }
        let fault = match frame::decode(&self.buffer) {
            Err(fault) => fault.into(),
            Ok(frame) if frame.first != self.next => Fault::Index { expected: self.next, found: frame.first },
            Ok(frame) if frame.previous != self.previous => Fault::Chain,
            Ok(frame) => {
                self.offset += frame.padded_bytes as u64;
                self.next = LeafIndex(frame.first.0 + frame.entries.len() as u64);
                self.previous = frame.digest;
                return Ok(Step::Frame(frame, spot));
            }
        };
        self.damaged(spot, fault)
    }

    /// The next place that can hold a frame, and its segment's length.
    fn next_block(&mut self) -> io::Result<Option<(Spot, u64)>> {
        while let Some(&segment) = self.segments.get(self.at) {
            let length = self.source.length(segment)?;
            if self.offset + BLOCK <= length {
                return Ok(Some((Spot { segment, offset: self.offset }, length)));
            }
            if self.at + 1 == self.segments.len() {
                break;
            }
            (self.at, self.offset) = (self.at + 1, 0);
        }
        Ok(None)
    }

    fn end(&self) -> Option<Spot> {
        self.segments.get(self.at).map(|&segment| Spot { segment, offset: self.offset })
    }

    /// Reads all of the frame whose first block is in the buffer.
    fn read_frame(&mut self, spot: Spot, length: u64) -> io::Result<Result<(), FrameError>> {
        let header = match frame::decode_header(&self.buffer) {
            Ok(header) => header,
            Err(e) => return Ok(Err(e)),
        };
        if header.padded_bytes as u64 > length - spot.offset {
            return Ok(Err(FrameError::Lengths));
        }
        self.buffer.resize(header.padded_bytes, 0);
        self.source.read_at(spot.segment, spot.offset, &mut self.buffer)?;
        Ok(Ok(()))
    }

    fn damaged(&self, spot: Spot, fault: Fault) -> io::Result<Step<'static>> {
        let length = self.source.length(spot.segment)?;
        let bytes = self.last_used_block(spot, length)?.map_or(BLOCK, |last| last + BLOCK - spot.offset);
        let followed_by = match self.whole_frame_after(spot, length)? {
            Some(found) => Some(found),
            None => self.anything_in_later_segments()?,
        };
        Ok(Step::Damaged(Damage { spot, index: self.next, fault, bytes, followed_by }))
    }

    /// Offset of the last block at or after the spot that is not zero.
    fn last_used_block(&self, spot: Spot, length: u64) -> io::Result<Option<u64>> {
        let mut last = None;
        let mut piece = vec![0; SCAN_BYTES];
        let mut offset = spot.offset;
        while offset < length {
            let take = (length - offset).min(SCAN_BYTES as u64) as usize;
            self.source.read_at(spot.segment, offset, &mut piece[..take])?;
            // Block by block, from the back: comparing slices is much faster than looking at bytes.
            let mut blocks = piece[..take].chunks(BLOCK as usize);
            let used = blocks.rposition(|block| *block != EMPTY_BLOCK[..block.len()]);
            last = used.map(|at| offset + at as u64 * BLOCK).or(last);
            offset += take as u64;
        }
        Ok(last)
    }

    fn whole_frame_after(&self, spot: Spot, length: u64) -> io::Result<Option<Spot>> {
        let mut block = vec![0; BLOCK as usize];
        let mut offset = spot.offset + BLOCK;
        while offset + BLOCK <= length {
            self.source.read_at(spot.segment, offset, &mut block)?;
            if let Ok(header) = frame::decode_header(&block)
                && header.first >= self.next
                && header.padded_bytes as u64 <= length - offset
            {
                let mut whole = vec![0; header.padded_bytes];
                self.source.read_at(spot.segment, offset, &mut whole)?;
                if frame::decode(&whole).is_ok() {
                    return Ok(Some(Spot { segment: spot.segment, offset }));
                }
            }
            offset += BLOCK;
        }
        Ok(None)
    }

    fn anything_in_later_segments(&self) -> io::Result<Option<Spot>> {
        for &segment in self.segments.iter().skip(self.at + 1) {
            let start = Spot { segment, offset: 0 };
            if self.last_used_block(start, self.source.length(segment)?)?.is_some() {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }
}
