//! A storage in memory that fails on demand, with a page cache that can lie.
//!
//! What is written is seen at once and durable only after a sync, as on Linux. A sync that fails drops the
//! dirty pages: they can still be read, and are gone after a power cut. Operations on the log are numbered
//! from 0 in the order of the committer's thread; checkpoint writes have numbers of their own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::storage::Storage;
use crate::model::LeafIndex;
use crate::verify::Source;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    FailsAndNotPersisted,
    FailsButPersisted,
    /// Only the first so many 512-byte blocks of what was being written persist, and the power is cut.
    TornAfter(usize),
    /// Only the blocks from this one on do.
    TornBefore(usize),
    /// The operation does not happen, and nothing after it.
    PowerCut,
}

/// Which operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Operation(usize),
    Checkpoint(usize),
}

#[derive(Clone, Debug, Default)]
struct Files {
    segments: BTreeMap<LeafIndex, Vec<u8>>,
    spare: Option<u64>,
    checkpoint: Option<Vec<u8>>,
    quarantined: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct State {
    /// What a running process sees.
    seen: Files,
    /// What is left after a power cut.
    durable: Files,
    dirty: Vec<(LeafIndex, u64, Vec<u8>)>,
    fault: Option<(Target, Failure)>,
    operations: Vec<&'static str>,
    checkpoints: usize,
    power: bool,
    /// Segments that can still be created.
    room: usize,
}

/// What the plan says about the operation at hand.
enum Fate {
    Works,
    Fails(Failure),
}

#[derive(Debug)]
pub struct Simulated(Mutex<State>);

impl Simulated {
    pub fn new() -> Self {
        Self(Mutex::new(State {
            seen: Files::default(),
            durable: Files::default(),
            dirty: Vec::new(),
            fault: None,
            operations: Vec::new(),
            checkpoints: 0,
            power: true,
            room: usize::MAX,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn plan(&self, target: Target, failure: Failure) {
        self.state().fault = Some((target, failure));
    }

    /// Names of the operations so far, and the number of checkpoint writes.
    pub fn history(&self) -> (Vec<&'static str>, usize) {
        let state = self.state();
        (state.operations.clone(), state.checkpoints)
    }

    /// The process ended; the machine did not. Nothing fails any more.
    pub fn restart_process(&self) {
        let mut state = self.state();
        state.fault = None;
        state.power = true;
    }

    /// The machine started again.
    pub fn restart_machine(&self) {
        self.restart_process();
        let mut state = self.state();
        state.seen = state.durable.clone();
        state.dirty.clear();
    }

    pub fn set_room(&self, segments: usize) {
        self.state().room = segments;
    }

    pub fn quarantined(&self) -> Vec<Vec<u8>> {
        self.state().seen.quarantined.clone()
    }

    /// Another storage of the same files, with segments and checkpoint changed behind everybody's back.
    pub fn changed(
        &self,
        change: impl FnOnce(&mut BTreeMap<LeafIndex, Vec<u8>>, &mut Option<Vec<u8>>),
    ) -> Self {
        let copy = Self::new();
        let mut files = self.state().durable.clone();
        change(&mut files.segments, &mut files.checkpoint);
        let mut state = copy.state();
        (state.seen, state.durable) = (files.clone(), files);
        drop(state);
        copy
    }
}

fn failed() -> io::Error {
    io::Error::other("simulated failure")
}

impl State {
    fn next(&mut self, name: &'static str) -> io::Result<Fate> {
        let at = Target::Operation(self.operations.len());
        self.operations.push(name);
        self.fate(at)
    }

    fn fate(&mut self, at: Target) -> io::Result<Fate> {
        if !self.power {
            return Err(failed());
        }
        match self.fault {
            Some((target, failure)) if target == at => {
                if !matches!(failure, Failure::FailsAndNotPersisted | Failure::FailsButPersisted) {
                    self.power = false;
                }
                Ok(Fate::Fails(failure))
            }
            Some(_) | None => Ok(Fate::Works),
        }
    }

    /// For operations that happen whole or not at all.
    fn whole(&mut self, fate: Fate, change: impl Fn(&mut Files)) -> io::Result<()> {
        match fate {
            Fate::Works => {}
            Fate::Fails(Failure::FailsButPersisted) => {
                change(&mut self.seen);
                change(&mut self.durable);
                return Err(failed());
            }
            Fate::Fails(_) => return Err(failed()),
        }
        change(&mut self.seen);
        change(&mut self.durable);
        Ok(())
    }
}

fn put(files: &mut Files, segment: LeafIndex, offset: u64, bytes: &[u8]) {
    let file = files.segments.get_mut(&segment).expect("the segment exists");
    file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
}

impl Source for Simulated {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        Ok(self.state().seen.segments.keys().copied().collect())
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        Ok(self.state().seen.segments[&segment].len() as u64)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        let found = state.seen.segments.get(&segment).and_then(|b| b.get(from..from + buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.state().seen.checkpoint.clone())
    }
}

impl Storage for Simulated {
    fn directory(&self) -> Option<&std::path::Path> {
        None
    }

    fn spare_length(&self) -> io::Result<Option<u64>> {
        Ok(self.state().seen.spare)
    }

    fn create_spare(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next("create_spare")?;
        state.room = state.room.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        state.whole(fate, |f| f.spare = Some(bytes))
    }

    fn promote_spare(&self, first: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next("promote_spare")?;
        state.whole(fate, |f| {
            let length = f.spare.take().expect("there is a spare");
            f.segments.insert(first, vec![0; length as usize]);
        })
    }

    fn write_at(&self, segment: LeafIndex, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next("write_at")?;
        let persisted = match fate {
            Fate::Works => {
                put(&mut state.seen, segment, offset, bytes);
                state.dirty.push((segment, offset, bytes.to_vec()));
                return Ok(());
            }
            Fate::Fails(failure) => surviving(failure, bytes.len()),
        };
        let at = offset + persisted.start as u64;
        put(&mut state.seen, segment, at, &bytes[persisted.clone()]);
        put(&mut state.durable, segment, at, &bytes[persisted]);
        Err(failed())
    }

    fn sync(&self, _: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next("sync")?;
        // Synced or failed, the pages are no longer dirty.
        for (segment, offset, bytes) in std::mem::take(&mut state.dirty) {
            let persisted = match fate {
                Fate::Works => 0..bytes.len(),
                Fate::Fails(failure) => surviving(failure, bytes.len()),
            };
            put(&mut state.durable, segment, offset + persisted.start as u64, &bytes[persisted]);
        }
        match fate {
            Fate::Works => Ok(()),
            Fate::Fails(_) => Err(failed()),
        }
    }

    fn quarantine(&self, segment: LeafIndex, offset: u64, length: u64) -> io::Result<String> {
        let mut state = self.state();
        let fate = state.next("quarantine")?;
        let copy = state.seen.segments[&segment][offset as usize..(offset + length) as usize].to_vec();
        state.whole(fate, |f| f.quarantined.push(copy.clone()))?;
        Ok("quarantine/simulated".into())
    }

    fn write_checkpoint(&self, note: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let at = Target::Checkpoint(state.checkpoints);
        state.checkpoints += 1;
        let fate = state.fate(at)?;
        state.whole(fate, |f| f.checkpoint = Some(note.to_vec()))
    }
}

/// Which bytes of a failed write or sync persist all the same.
fn surviving(failure: Failure, length: usize) -> std::ops::Range<usize> {
    match failure {
        Failure::FailsAndNotPersisted | Failure::PowerCut => 0..0,
        Failure::FailsButPersisted => 0..length,
        Failure::TornAfter(blocks) => 0..length.min(blocks * 512),
        Failure::TornBefore(blocks) => length.min(blocks * 512)..length,
    }
}
