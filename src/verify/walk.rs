//! Reads a log frame by frame and holds each to its place: name, index, chain, digest, padding.
//!
//! The verifier and the ledger's recovery walk with this same code. One frame is in memory at a time.
//! The walk ends at [`Step::End`], where the next frame would go, or at the first [`Damage`]; it then
//! says whether anything follows the damage, which is what tells a torn last write from a changed log.

use std::fmt;
use std::io;

use super::seekable::Broken;
use super::source::{Form, Source, form_file};
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
    /// Bytes from the start of the segment in its raw form.
    pub offset: u64,
    pub form: Form,
}

impl Spot {
    /// The file, relative to the log's directory.
    pub fn file(&self) -> String {
        form_file(self.segment, self.form)
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.file(), self.offset)
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
    #[error("a segment of {0} bytes, more than one can have")]
    Length(u64),
    #[error("bytes that are not zero after the last whole block of the segment")]
    Rest,
    #[error("{0}")]
    Sealed(Broken),
}

impl Fault {
    /// Whether a write that was cut short could leave this.
    pub fn can_be_torn(&self) -> bool {
        match self {
            Self::Frame(_) | Self::NotZero => true,
            // A segment has its length, whole blocks, before anything is written to it.
            Self::Index { .. }
            | Self::Chain
            | Self::Name { .. }
            | Self::Length(_)
            | Self::Rest
            | Self::Sealed(_) => false,
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
    /// A cut-short last write, and nothing else. Into what is sealed nothing is written.
    pub fn is_torn_tail(&self) -> bool {
        self.spot.form == Form::Raw && self.fault.can_be_torn() && self.followed_by.is_none()
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

    /// A walk from a later frame on: the one at this spot, whose first entry is `next`, and which names `previous` as
    /// the closing digest of the one before it.
    pub fn resume(source: &'s S, from: Spot, next: LeafIndex, previous: Digest) -> io::Result<Self> {
        let segments = source.segments()?;
        let at = segments
            .binary_search(&from.segment)
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", from.file())))?;
        Ok(Self { source, segments, at, offset: from.offset, next, previous, buffer: Vec::new() })
    }

    /// Learns of segments that were begun meanwhile. After an end, the next step looks there.
    pub fn look_again(&mut self) -> io::Result<()> {
        let segments = self.source.segments()?;
        // Segments are only ever added, after the others.
        if segments.starts_with(&self.segments) {
            self.segments = segments;
        }
        Ok(())
    }

    /// Closing digest of the last frame given out; of the log's name before the first.
    pub fn chain(&self) -> Digest {
        self.previous
    }

    /// The bytes of the frame that was given out last, padding included. `spare` is read into from here on.
    pub fn swap_buffer(&mut self, spare: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.buffer, spare)
    }

    /// The next frame. After an end or damage, the same place again.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        let spot = match self.fill() {
            Ok(Filled::Frame(spot)) => spot,
            Ok(Filled::End(spot)) => return Ok(Step::End(spot)),
            Ok(Filled::Damaged(damage)) => return Ok(Step::Damaged(damage)),
            Err(error) => return self.broken(error).map(Step::Damaged),
        };
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
        self.damaged(spot, fault).or_else(|error| self.broken(error)).map(Step::Damaged)
    }

    /// Reads the bytes of the next frame into the buffer.
    fn fill(&mut self) -> io::Result<Filled> {
        loop {
            let Some((spot, length)) = self.next_block()? else { return Ok(Filled::End(self.end()?)) };
            if length > limits::SEGMENT_BYTES_MAX {
                return self.damaged(spot, Fault::Length(length)).map(Filled::Damaged);
            }
            if spot.offset == 0 && spot.segment != self.next {
                let fault = Fault::Name { expected: self.next, found: spot.segment };
                return self.damaged(spot, fault).map(Filled::Damaged);
            }
            if length - spot.offset < BLOCK {
                match self.last_used_block(spot, length)? {
                    Some(_) => return self.damaged(spot, Fault::Rest).map(Filled::Damaged),
                    None if self.at + 1 == self.segments.len() => return Ok(Filled::End(Some(spot))),
                    None => (self.at, self.offset) = (self.at + 1, 0),
                }
                continue;
            }
            self.buffer.resize(BLOCK as usize, 0);
            self.source.read_at(spot.segment, spot.offset, &mut self.buffer)?;
            if self.buffer != EMPTY_BLOCK {
                return match self.read_frame(spot, length)? {
                    Ok(()) => Ok(Filled::Frame(spot)),
                    Err(fault) => self.damaged(spot, fault.into()).map(Filled::Damaged),
                };
            }
            match self.last_used_block(spot, length)? {
                Some(_) => return self.damaged(spot, Fault::NotZero).map(Filled::Damaged),
                // Zero to the end of the segment: it is either the last one, or the next frame did not fit.
                None if self.at + 1 == self.segments.len() => return Ok(Filled::End(Some(spot))),
                None => (self.at, self.offset) = (self.at + 1, 0),
            }
        }
    }

    /// The next place that holds anything, and its segment's length.
    fn next_block(&mut self) -> io::Result<Option<(Spot, u64)>> {
        while let Some(&segment) = self.segments.get(self.at) {
            let length = self.source.length(segment)?;
            if self.offset < length {
                let form = self.source.form(segment)?;
                return Ok(Some((Spot { segment, offset: self.offset, form }, length)));
            }
            if self.at + 1 == self.segments.len() {
                break;
            }
            (self.at, self.offset) = (self.at + 1, 0);
        }
        Ok(None)
    }

    fn end(&self) -> io::Result<Option<Spot>> {
        let Some(&segment) = self.segments.get(self.at) else { return Ok(None) };
        Ok(Some(Spot { segment, offset: self.offset, form: self.source.form(segment)? }))
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

    fn damaged(&self, spot: Spot, fault: Fault) -> io::Result<Damage> {
        let length = self.source.length(spot.segment)?;
        let last = self.last_used_block(spot, length)?;
        let bytes = last.map_or(BLOCK, |last| last + BLOCK - spot.offset);
        // No write of ours reaches past the whole blocks, so none that was cut short left this.
        let is_rest = last.is_some_and(|last| length - last < BLOCK);
        let fault = if is_rest && fault.can_be_torn() { Fault::Rest } else { fault };
        let followed_by = match self.whole_frame_after(spot, length)? {
            Some(found) => Some(found),
            None => self.anything_in_later_segments()?,
        };
        Ok(Damage { spot, index: self.next, fault, bytes, followed_by })
    }

    /// A sealed segment of which a part cannot be read; what stands in the rest of it is not looked for.
    fn broken(&self, error: io::Error) -> io::Result<Damage> {
        let Some(broken) = Broken::of(&error).cloned() else { return Err(error) };
        let segment = self.segments[self.at];
        let spot = Spot { segment, offset: self.offset, form: Form::Sealed };
        // Its table may be what is broken: then how much is lost is not known.
        let bytes = self.source.length(segment).map_or(0, |length| length.saturating_sub(spot.offset));
        let followed_by = self.anything_in_later_segments()?;
        Ok(Damage { spot, index: self.next, fault: Fault::Sealed(broken), bytes, followed_by })
    }

    /// Offset of the last block at or after the spot that is not zero.
    fn last_used_block(&self, spot: Spot, length: u64) -> io::Result<Option<u64>> {
        let mut last = None;
        let mut piece = vec![0; SCAN_BYTES];
        let mut offset = spot.offset;
        // A file can say that it is longer than any disk.
        let length = length.min(limits::SEGMENT_BYTES_MAX);
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

    /// A whole frame of later entries. Hostile bytes can look like the start of one in every block, each as long as the
    /// segment; so no more is hashed than twice the segment, and past that something is taken to follow: a start that
    /// is refused loses nothing.
    fn whole_frame_after(&self, spot: Spot, length: u64) -> io::Result<Option<Spot>> {
        let mut block = vec![0; BLOCK as usize];
        let mut whole = Vec::new();
        let length = length.min(limits::SEGMENT_BYTES_MAX);
        let mut left = 2 * length;
        let mut offset = spot.offset + BLOCK;
        while offset + BLOCK <= length {
            self.source.read_at(spot.segment, offset, &mut block)?;
            if let Ok(header) = frame::decode_header(&block)
                && header.first >= self.next
                && header.padded_bytes as u64 <= length - offset
            {
                let candidate = Spot { offset, ..spot };
                match left.checked_sub(header.padded_bytes as u64) {
                    Some(rest) => left = rest,
                    None => return Ok(Some(candidate)),
                }
                whole.resize(header.padded_bytes, 0);
                self.source.read_at(spot.segment, offset, &mut whole)?;
                if frame::decode(&whole).is_ok() {
                    return Ok(Some(candidate));
                }
            }
            offset += BLOCK;
        }
        Ok(None)
    }

    fn anything_in_later_segments(&self) -> io::Result<Option<Spot>> {
        for &segment in self.segments.iter().skip(self.at + 1) {
            let spot = |form| Spot { segment, offset: 0, form };
            let used = self
                .source
                .length(segment)
                .and_then(|length| self.last_used_block(spot(Form::Raw), length))
                .and_then(|used| Ok(used.is_some().then_some(spot(self.source.form(segment)?))));
            match used {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(Some(found)),
                // It cannot be read, so it is there.
                Err(e) if Broken::of(&e).is_some() => return Ok(Some(spot(Form::Sealed))),
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// What stands at the next place.
enum Filled {
    /// All of it is in the buffer.
    Frame(Spot),
    End(Option<Spot>),
    Damaged(Damage),
}
