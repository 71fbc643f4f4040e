//! Reading what stands beside a leaf: the frame of an entry is found by its index, without scanning the log.
//!
//! A segment's name says where it begins, and each frame's header says which entry it begins with and how long it is. So
//! the first question about a segment walks over its headers up to the entry; where frames begin is remembered, for the
//! segments that were asked about last. Nothing is taken on trust: a frame is decoded whole, which checks the digest of
//! each record.
//!
//! Only frames of durable entries are looked at, so none is read while it is written.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::reader::ReadError;
use crate::limits;
use crate::merkle::frame::{self, HEADER_BYTES};
use crate::model::{Digest, LeafIndex};
use crate::verify::{Directory, Source};

const FIRST_BLOCK: usize = limits::FRAME_ALIGNMENT_BYTES;
const _: () = assert!(HEADER_BYTES <= FIRST_BLOCK);

/// Reads the frames of one log's directory.
#[derive(Debug)]
pub struct EvidenceReader {
    dir: PathBuf,
    /// The one asked about last is the last one.
    maps: Mutex<VecDeque<Map>>,
}

/// Where the frames of a segment begin, from its first one on.
#[derive(Debug)]
struct Map {
    segment: LeafIndex,
    frames: Vec<(LeafIndex, u64)>,
    /// With which entry the next one would begin, and where.
    next: (LeafIndex, u64),
}

impl EvidenceReader {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), maps: Mutex::default() }
    }

    /// See [`super::Reader::evidence_of`].
    pub fn read(&self, index: LeafIndex, digest: &Digest) -> Result<Option<Bytes>, ReadError> {
        let failed = |source: io::Error| ReadError::Frames { index, source };
        let no_frame = |_| ReadError::NoFrame { index };
        // Opened for each question: a segment may get its sealed form in between.
        let source = Directory::open(&self.dir).map_err(failed)?;
        let segments = source.segments().map_err(failed)?;
        let after = segments.partition_point(|first| *first <= index);
        let segment = after.checked_sub(1).map(|at| segments[at]).ok_or(ReadError::NoFrame { index })?;
        let mut map = self.take(segment);
        let offset = map.find(&source, index)?;
        let mut bytes = vec![0; FIRST_BLOCK];
        source.read_at(segment, offset, &mut bytes).map_err(failed)?;
        let length = frame::decode_header(&bytes).map_err(no_frame)?.padded_bytes;
        bytes.resize(length, 0);
        source.read_at(segment, offset, &mut bytes).map_err(failed)?;
        let frame = frame::decode(&bytes).map_err(no_frame)?;
        // Only a walk that led to a whole frame is remembered.
        self.keep(map);
        let record = frame.evidence.iter().find(|record| record.digest == *digest);
        Ok(record.map(|record| Bytes::copy_from_slice(record.bytes)))
    }

    fn take(&self, segment: LeafIndex) -> Map {
        let mut maps = self.lock();
        let known = maps.iter().position(|map| map.segment == segment);
        known.and_then(|at| maps.remove(at)).unwrap_or(Map {
            segment,
            frames: Vec::new(),
            next: (segment, 0),
        })
    }

    fn keep(&self, map: Map) {
        let mut maps = self.lock();
        // Somebody else may have walked over the same segment meanwhile.
        maps.retain(|other| other.segment != map.segment);
        if maps.len() == limits::SEGMENTS_MAPPED_MAX {
            maps.pop_front();
        }
        maps.push_back(map);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Map>> {
        // It is whole after every statement.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    /// Where the frame with this entry begins. Goes no further than that frame.
    fn find(&mut self, source: &Directory, index: LeafIndex) -> Result<u64, ReadError> {
        while self.next.0 <= index {
            let (expected, offset) = self.next;
            let mut header = [0; HEADER_BYTES];
            let failed = |source| ReadError::Frames { index, source };
            source.read_at(self.segment, offset, &mut header).map_err(failed)?;
            let header = frame::decode_header(&header).map_err(|_| ReadError::NoFrame { index })?;
            if header.first != expected {
                return Err(ReadError::NoFrame { index });
            }
            self.frames.push((expected, offset));
            self.next = (header.end(), offset + header.padded_bytes as u64);
        }
        let after = self.frames.partition_point(|(first, _)| *first <= index);
        let at = after.checked_sub(1).ok_or(ReadError::NoFrame { index })?;
        Ok(self.frames[at].1)
    }
}
