//! A storage in memory that fails on demand, with a page cache that can lie.
//!
//! What is written is seen at once and durable only after a sync, as on Linux. A sync that fails drops the
//! dirty pages: they can still be read, and are gone after a power cut. Operations on the log are numbered
//! from 0 in the order of the committer's thread; checkpoint writes, and what the background does (sealing, restart
//! points), have numbers of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::storage::{Storage, TornRange};
use crate::model::LeafIndex;
use crate::verify::seekable::Seekable;
use crate::verify::source::form_file;
use crate::verify::{Form, Source};

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
    Background(usize),
}

#[derive(Clone, Debug, Default)]
struct Files {
    segments: BTreeMap<LeafIndex, Vec<u8>>,
    spare: Option<u64>,
    checkpoint: Option<Vec<u8>>,
    quarantined: Vec<(LeafIndex, Vec<u8>)>,
    sealed: BTreeMap<LeafIndex, Vec<u8>>,
    /// A sealed segment without its name.
    sealing: Option<Vec<u8>>,
    restarts: BTreeMap<LeafIndex, Vec<u8>>,
    states: BTreeMap<LeafIndex, Vec<u8>>,
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
    /// Bytes of the longest piece that each of them put on the disk.
    extents: Vec<usize>,
    checkpoints: usize,
    background: Vec<(&'static str, usize)>,
    power: bool,
    /// Segments that can still be created.
    room: usize,
    /// Segments that were read since the last restart.
    read: BTreeSet<LeafIndex>,
    /// Says that what was written is durable when it is not.
    lies: bool,
    /// A planned failure came to pass.
    failed: bool,
    witness: Option<Witness>,
}

type Sees = dyn Fn(&[u8]) + Send;

/// Sees what a sync made durable, as it does so.
struct Witness(Box<Sees>);

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
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
            extents: Vec::new(),
            checkpoints: 0,
            background: Vec::new(),
            power: true,
            room: usize::MAX,
            read: BTreeSet::new(),
            lies: false,
            failed: false,
            witness: None,
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

    /// Bytes of each operation so far; 0 where it writes none of a segment.
    pub fn extents(&self) -> Vec<usize> {
        self.state().extents.clone()
    }

    /// The process ended; the machine did not. Nothing fails any more.
    pub fn restart_process(&self) {
        let mut state = self.state();
        state.fault = None;
        state.failed = false;
        state.power = true;
        state.read.clear();
    }

    /// The machine started again.
    pub fn restart_machine(&self) {
        self.restart_process();
        let mut state = self.state();
        state.seen = state.durable.clone();
        state.dirty.clear();
    }

    /// `witness` gets each piece of a segment that a sync made durable, or says so.
    pub(crate) fn tell(&self, witness: impl Fn(&[u8]) + Send + 'static) {
        self.state().witness = Some(Witness(Box::new(witness)));
    }

    /// A disk that says it has what it has not.
    pub(crate) fn lie(&self) {
        self.state().lies = true;
    }

    /// Whether a planned failure has come to pass since the last restart.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Whether the power is cut.
    pub(crate) fn is_dark(&self) -> bool {
        !self.state().power
    }

    /// Segments in raw form, as a power cut would leave them.
    pub(crate) fn durable_segments(&self) -> Vec<(LeafIndex, Vec<u8>)> {
        self.state().durable.segments.iter().map(|(first, bytes)| (*first, bytes.clone())).collect()
    }

    pub fn set_room(&self, segments: usize) {
        self.state().room = segments;
    }

    pub fn quarantined(&self) -> Vec<Vec<u8>> {
        self.state().seen.quarantined.iter().map(|(_, copy)| copy.clone()).collect()
    }

    /// What the background did so far, and how many bytes it wrote.
    pub fn background(&self) -> Vec<(&'static str, usize)> {
        self.state().background.clone()
    }

    /// Which forms of segments and which restart points there are.
    pub fn derived(&self) -> (Vec<(LeafIndex, Form)>, Vec<LeafIndex>) {
        let state = self.state();
        (state.seen.forms(), state.seen.restarts.keys().copied().collect())
    }

    /// Changes a restart point behind everybody's back.
    pub fn change_restart(&self, first: LeafIndex, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let State { seen, durable, .. } = &mut *state;
        for files in [seen, durable] {
            change(files.restarts.get_mut(&first).expect("there is one"));
        }
    }

    /// The same with a state snapshot.
    pub fn change_state(&self, first: LeafIndex, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let State { seen, durable, .. } = &mut *state;
        for files in [seen, durable] {
            change(files.states.get_mut(&first).expect("there is one"));
        }
    }

    /// Somebody removes a segment in both forms.
    pub fn remove_segment(&self, first: LeafIndex) {
        let mut state = self.state();
        let State { seen, durable, .. } = &mut *state;
        for files in [seen, durable] {
            files.segments.remove(&first);
            files.sealed.remove(&first);
        }
    }

    /// Whether bytes of the segment were read since the last restart.
    pub fn was_read(&self, segment: LeafIndex) -> bool {
        self.state().read.contains(&segment)
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
    fn next(&mut self, name: &'static str, bytes: usize) -> io::Result<Fate> {
        let at = Target::Operation(self.operations.len());
        self.operations.push(name);
        self.extents.push(bytes);
        self.fate(at)
    }

    fn next_background(&mut self, name: &'static str, bytes: usize) -> io::Result<Fate> {
        let at = Target::Background(self.background.len());
        self.background.push((name, bytes));
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
                self.failed = true;
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

impl Files {
    fn forms(&self) -> Vec<(LeafIndex, Form)> {
        let raw = self.segments.keys().map(|&first| (first, Form::Raw));
        let mut forms: Vec<_> = raw.chain(self.sealed.keys().map(|&first| (first, Form::Sealed))).collect();
        forms.sort_by_key(|(first, form)| (*first, *form == Form::Sealed));
        forms
    }

    /// The bytes of a segment, in whatever form it is there.
    fn segment(&self, first: LeafIndex) -> io::Result<Vec<u8>> {
        if let Some(raw) = self.segments.get(&first) {
            return Ok(raw.clone());
        }
        let sealed = self.sealed.get(&first).ok_or(io::ErrorKind::NotFound)?.clone();
        let length = sealed.len() as u64;
        let sealed = Seekable::open(sealed, form_file(first, Form::Sealed), length)?;
        let mut bytes = vec![0; sealed.length() as usize];
        sealed.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Source for Simulated {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        let mut all: Vec<_> = self.state().seen.forms().into_iter().map(|(first, _)| first).collect();
        all.dedup();
        Ok(all)
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        let state = self.state();
        match state.seen.segments.get(&segment) {
            Some(raw) => Ok(raw.len() as u64),
            None => Ok(state.seen.segment(segment)?.len() as u64),
        }
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.read.insert(segment);
        let whole;
        let bytes = match state.seen.segments.get(&segment) {
            Some(raw) => raw,
            None => {
                whole = state.seen.segment(segment)?;
                &whole
            }
        };
        let from = offset as usize;
        let found = bytes.get(from..from + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn form(&self, segment: LeafIndex) -> io::Result<Form> {
        let raw = self.state().seen.segments.contains_key(&segment);
        Ok(if raw { Form::Raw } else { Form::Sealed })
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
        let fate = state.next("create_spare", 0)?;
        state.room = state.room.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        state.whole(fate, |f| f.spare = Some(bytes))
    }

    fn promote_spare(&self, first: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next("promote_spare", 0)?;
        state.whole(fate, |f| {
            let length = f.spare.take().expect("there is a spare");
            f.segments.insert(first, vec![0; length as usize]);
        })
    }

    fn write_at(&self, segment: LeafIndex, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next("write_at", bytes.len())?;
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
        let longest = state.dirty.iter().map(|(_, _, bytes)| bytes.len()).max().unwrap_or_default();
        let fate = state.next("sync", longest)?;
        if matches!(fate, Fate::Works)
            && let Some(Witness(witness)) = &state.witness
        {
            state.dirty.iter().for_each(|(_, _, bytes)| witness(bytes));
        }
        if state.lies {
            return Ok(());
        }
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

    fn quarantine(&self, index: LeafIndex, torn: TornRange) -> io::Result<String> {
        let mut state = self.state();
        let fate = state.next("quarantine", 0)?;
        let range = torn.offset as usize..(torn.offset + torn.length) as usize;
        let copy = state.seen.segments[&torn.segment][range].to_vec();
        state.whole(fate, |f| f.quarantined.push((index, copy.clone())))?;
        Ok("quarantine/simulated".into())
    }

    fn quarantined_at(&self, index: LeafIndex) -> io::Result<Option<(String, u64)>> {
        let state = self.state();
        let copies = state.seen.quarantined.iter().filter(|(at, _)| *at == index);
        let largest = copies.map(|(_, copy)| copy.len() as u64).max();
        Ok(largest.map(|bytes| ("quarantine/simulated".into(), bytes)))
    }

    fn write_checkpoint(&self, note: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let at = Target::Checkpoint(state.checkpoints);
        state.checkpoints += 1;
        let fate = state.fate(at)?;
        // A name that is given anew is durable when its directory is; the first one is made so at once.
        let kept = state.durable.checkpoint.clone();
        let is_lazy = matches!(fate, Fate::Works) && kept.is_some();
        let written = state.whole(fate, |f| f.checkpoint = Some(note.to_vec()));
        if is_lazy {
            state.durable.checkpoint = kept;
        }
        written
    }

    fn sync_checkpoint(&self) -> io::Result<()> {
        let mut state = self.state();
        let at = Target::Checkpoint(state.checkpoints);
        state.checkpoints += 1;
        let fate = state.fate(at)?;
        let newest = state.seen.checkpoint.clone();
        state.whole(fate, |f| f.checkpoint.clone_from(&newest))
    }

    fn segment_forms(&self) -> io::Result<Vec<(LeafIndex, Form)>> {
        Ok(self.state().seen.forms())
    }

    fn start_sealed(&self) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next_background("start_sealed", 0)?;
        state.whole(fate, |f| f.sealing = Some(Vec::new()))
    }

    /// Seen at once, and durable with the next sync.
    fn write_sealed(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let (persisted, durable, answer) = match state.next_background("write_sealed", bytes.len())? {
            Fate::Works => (0..bytes.len(), false, Ok(())),
            Fate::Fails(failure) => (surviving(failure, bytes.len()), true, Err(failed())),
        };
        let put = |files: &mut Files| {
            let file = files.sealing.get_or_insert_default();
            file.resize(file.len().max(offset as usize + persisted.end), 0);
            file[offset as usize + persisted.start..offset as usize + persisted.end]
                .copy_from_slice(&bytes[persisted.clone()]);
        };
        put(&mut state.seen);
        if durable {
            put(&mut state.durable);
        }
        answer
    }

    fn sync_sealed(&self) -> io::Result<()> {
        let mut state = self.state();
        let written = state.seen.sealing.clone().unwrap_or_default();
        let fate = state.next_background("sync_sealed", written.len())?;
        let persisted = match fate {
            Fate::Works => 0..written.len(),
            Fate::Fails(failure) => surviving(failure, written.len()),
        };
        let mut kept = vec![0; persisted.end];
        kept[persisted.clone()].copy_from_slice(&written[persisted]);
        state.durable.sealing = Some(kept);
        match fate {
            Fate::Works => Ok(()),
            Fate::Fails(_) => Err(failed()),
        }
    }

    fn read_sealed(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        if let Fate::Fails(_) = state.next_background("read_sealed", 0)? {
            return Err(failed());
        }
        let file = state.seen.sealing.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let found = file.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn keep_sealed(&self, segment: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next_background("keep_sealed", 0)?;
        state.whole(fate, |f| {
            let file = f.sealing.take().expect("it was begun");
            f.sealed.insert(segment, file);
        })
    }

    fn drop_sealed(&self) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next_background("drop_sealed", 0)?;
        state.whole(fate, |f| f.sealing = None)
    }

    fn remove_raw(&self, segment: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next_background("remove_raw", 0)?;
        state.whole(fate, |f| {
            assert!(
                f.sealed.contains_key(&segment),
                "the raw form goes only when the sealed one has its name"
            );
            f.segments.remove(&segment);
        })
    }

    fn restart_points(&self) -> io::Result<Vec<LeafIndex>> {
        Ok(self.state().seen.restarts.keys().copied().collect())
    }

    fn read_restart(&self, first: LeafIndex) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.seen.restarts.get(&first).ok_or(io::ErrorKind::NotFound)?.clone())
    }

    /// Worse than a file system that keeps its promises: a write that fails may leave half of it under the name.
    fn write_restart(&self, first: LeafIndex, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let (persisted, answer) = match state.next_background("write_restart", bytes.len())? {
            Fate::Works => (0..bytes.len(), Ok(())),
            Fate::Fails(failure) => (surviving(failure, bytes.len()), Err(failed())),
        };
        if !persisted.is_empty() {
            let State { seen, durable, .. } = &mut *state;
            for files in [seen, durable] {
                files.restarts.insert(first, bytes[persisted.clone()].to_vec());
            }
        }
        answer
    }

    fn remove_restart(&self, first: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next_background("remove_restart", 0)?;
        state.whole(fate, |f| {
            f.restarts.remove(&first);
        })
    }

    fn states(&self) -> io::Result<Vec<LeafIndex>> {
        Ok(self.state().seen.states.keys().copied().collect())
    }

    fn read_state(&self, first: LeafIndex) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.seen.states.get(&first).ok_or(io::ErrorKind::NotFound)?.clone())
    }

    /// As bad as [`Storage::write_restart`] here.
    fn write_state(&self, first: LeafIndex, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let (persisted, answer) = match state.next_background("write_state", bytes.len())? {
            Fate::Works => (0..bytes.len(), Ok(())),
            Fate::Fails(failure) => (surviving(failure, bytes.len()), Err(failed())),
        };
        if !persisted.is_empty() {
            let State { seen, durable, .. } = &mut *state;
            for files in [seen, durable] {
                files.states.insert(first, bytes[persisted.clone()].to_vec());
            }
        }
        answer
    }

    fn remove_state(&self, first: LeafIndex) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.next_background("remove_state", 0)?;
        state.whole(fate, |f| {
            f.states.remove(&first);
        })
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
