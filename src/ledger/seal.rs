//! Makes the sealed form of full segments, in the background, one block at a time.
//!
//! | after this step | a crash leaves |
//! |---|---|
//! | written and synced under a name that is no segment's | that file, which the next start drops |
//! | read back and compared with the raw form | the same |
//! | renamed, directory synced | both forms: the raw one counts, and the sealed one is made again |
//! | raw form removed, directory synced | both again, or the sealed one alone |
//!
//! A failure here loses nothing: the raw form is there until the sealed one was read back. It is told, and tried again.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::snapshots::{StateJob, StateKeeper};
use super::storage::Storage;
use crate::clock::Clock;
use crate::limits;
use crate::merkle::frame;
use crate::model::LeafIndex;
use crate::verify::Form;
use crate::verify::seekable::{self, BlockWriter, ReadAt, Seekable};
use crate::verify::source::form_file;

const BLOCK: u64 = limits::SEALED_BLOCK_BYTES as u64;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing waits.
    Idle,
    /// One block, or one operation on a file.
    Working,
    Sealed {
        segment: LeafIndex,
        raw_bytes: u64,
        sealed_bytes: u64,
    },
}

/// Seals what waits, a step at a time.
pub struct Sealer {
    storage: Arc<dyn Storage>,
    waiting: VecDeque<LeafIndex>,
    work: Option<Work>,
}

struct Work {
    segment: LeafIndex,
    raw_bytes: u64,
    sealed_bytes: u64,
    /// Of the raw form, written or compared.
    done: u64,
    stage: Stage,
}

enum Stage {
    Writing { writer: BlockWriter, blocks: Vec<(u32, u32)> },
    Comparing(Seekable<Written>),
    Keeping,
    Removing,
}

/// The sealed form before it has its name.
struct Written(Arc<dyn Storage>);

impl ReadAt for Written {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_sealed(offset, buffer)
    }
}

impl Sealer {
    /// With every segment waiting that is not the last one and has a raw form.
    pub fn new(storage: Arc<dyn Storage>) -> io::Result<Self> {
        storage.drop_sealed()?;
        let forms = storage.segment_forms()?;
        let last = forms.last().map(|(first, _)| *first);
        let full = forms.into_iter().filter(|(first, form)| *form == Form::Raw && Some(*first) != last);
        Ok(Self { storage, waiting: full.map(|(first, _)| first).collect(), work: None })
    }

    /// A later segment holds frames now, so nothing is appended to this one.
    pub fn add(&mut self, segment: LeafIndex) {
        if !self.waiting.contains(&segment) && self.work.as_ref().is_none_or(|w| w.segment != segment) {
            self.waiting.push_back(segment);
        }
    }

    /// One block or one operation. After an error the segment waits again, behind the others.
    pub fn step(&mut self) -> io::Result<Progress> {
        let Some(mut work) = self.work.take() else { return self.begin() };
        match self.advance(&mut work) {
            Ok(Some(sealed)) => Ok(sealed),
            Ok(None) => {
                self.work = Some(work);
                Ok(Progress::Working)
            }
            Err(error) => {
                self.waiting.push_back(work.segment);
                // Its room is worth having back; the next attempt and the next start drop it too.
                let _ = self.storage.drop_sealed();
                Err(error)
            }
        }
    }

    fn begin(&mut self) -> io::Result<Progress> {
        let Some(segment) = self.waiting.pop_front() else { return Ok(Progress::Idle) };
        self.begin_with(segment).inspect_err(|_| self.waiting.push_back(segment))
    }

    fn begin_with(&mut self, segment: LeafIndex) -> io::Result<Progress> {
        let forms = self.storage.segment_forms()?;
        let is_full = forms.iter().any(|(first, _)| *first > segment);
        if !is_full || !forms.contains(&(segment, Form::Raw)) {
            return Ok(Progress::Working);
        }
        let raw_bytes = self.storage.length(segment)?;
        // An empty file in a segment's place, or one that no setting allows: left as it is, for `verify` to name.
        if !(1..=limits::SEGMENT_BYTES_MAX).contains(&raw_bytes) {
            return Ok(Progress::Working);
        }
        // A sealed form was compared with a raw one before it got its name. What is no segment does not take its place.
        let has_sealed = forms.contains(&(segment, Form::Sealed));
        if has_sealed && !reads_as_segment(&*self.storage, segment, raw_bytes)? {
            let file = form_file(segment, Form::Raw);
            tracing::error!(
                file,
                "beside a sealed segment, and no segment itself: both are left as they are"
            );
            return Ok(Progress::Working);
        }
        self.storage.start_sealed()?;
        let writer = BlockWriter::new()?;
        let stage = Stage::Writing { writer, blocks: Vec::new() };
        self.work = Some(Work { segment, raw_bytes, sealed_bytes: 0, done: 0, stage });
        Ok(Progress::Working)
    }

    fn advance(&self, work: &mut Work) -> io::Result<Option<Progress>> {
        match &mut work.stage {
            Stage::Writing { writer, blocks } if work.done < work.raw_bytes => {
                let bytes = raw_block(&*self.storage, work.segment, work.done, work.raw_bytes)?;
                let block = writer.block(&bytes)?;
                self.storage.write_sealed(work.sealed_bytes, &block)?;
                work.done += bytes.len() as u64;
                work.sealed_bytes += block.len() as u64;
                // Both are at most a block and what zstd adds to one.
                blocks.push((block.len() as u32, bytes.len() as u32));
            }
            Stage::Writing { writer: _, blocks } => {
                let table = seekable::table(blocks);
                self.storage.write_sealed(work.sealed_bytes, &table)?;
                self.storage.sync_sealed()?;
                work.sealed_bytes += table.len() as u64;
                work.done = 0;
                let name = form_file(work.segment, Form::Sealed);
                let written = Seekable::open(Written(Arc::clone(&self.storage)), name, work.sealed_bytes)?;
                if written.length() != work.raw_bytes {
                    return Err(differs(work.segment, written.length().min(work.raw_bytes)));
                }
                work.stage = Stage::Comparing(written);
            }
            Stage::Comparing(written) if work.done < work.raw_bytes => {
                let bytes = raw_block(&*self.storage, work.segment, work.done, work.raw_bytes)?;
                let mut back = vec![0; bytes.len()];
                written.read_at(work.done, &mut back)?;
                if back != bytes {
                    return Err(differs(work.segment, work.done));
                }
                work.done += bytes.len() as u64;
            }
            Stage::Comparing(_) => work.stage = Stage::Keeping,
            Stage::Keeping => {
                self.storage.keep_sealed(work.segment)?;
                work.stage = Stage::Removing;
            }
            Stage::Removing => {
                self.storage.remove_raw(work.segment)?;
                let Work { segment, raw_bytes, sealed_bytes, .. } = *work;
                return Ok(Some(Progress::Sealed { segment, raw_bytes, sealed_bytes }));
            }
        }
        Ok(None)
    }
}

fn raw_block(storage: &dyn Storage, segment: LeafIndex, done: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (length - done).min(BLOCK) as usize];
    storage.read_at(segment, done, &mut bytes)?;
    Ok(bytes)
}

/// Whether the raw form is whole frames from the segment's first entry on, each naming the one before it, and then zeros.
fn reads_as_segment(storage: &dyn Storage, segment: LeafIndex, length: u64) -> io::Result<bool> {
    const ALIGNMENT: u64 = limits::FRAME_ALIGNMENT_BYTES as u64;
    let (mut offset, mut next, mut previous) = (0, segment, None);
    let mut bytes = Vec::new();
    while length - offset >= ALIGNMENT {
        bytes.resize(ALIGNMENT as usize, 0);
        storage.read_at(segment, offset, &mut bytes)?;
        let Ok(header) = frame::decode_header(&bytes) else { break };
        if header.padded_bytes as u64 > length - offset {
            return Ok(false);
        }
        bytes.resize(header.padded_bytes, 0);
        storage.read_at(segment, offset, &mut bytes)?;
        let Ok(frame) = frame::decode(&bytes) else { return Ok(false) };
        if frame.first != next || previous.is_some_and(|previous| previous != frame.previous) {
            return Ok(false);
        }
        offset += frame.padded_bytes as u64;
        next = LeafIndex(frame.first.0 + frame.entries.len() as u64);
        previous = Some(frame.digest);
    }
    let has_frames = previous.is_some();
    while offset < length {
        let piece = (length - offset).min(BLOCK);
        bytes.resize(piece as usize, 0);
        storage.read_at(segment, offset, &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += piece;
    }
    Ok(has_frames)
}

fn differs(segment: LeafIndex, offset: u64) -> io::Error {
    let file = form_file(segment, Form::Sealed);
    io::Error::other(format!("{file} does not read back as it was written, at offset {offset}"))
}

/// Segments on their way to the sealer's thread.
#[derive(Debug, Default)]
pub struct Sealing {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    full: Vec<LeafIndex>,
    states: VecDeque<StateJob>,
    closing: bool,
}

impl Sealing {
    /// A later segment holds frames now. Never waits.
    pub fn passed(&self, segment: LeafIndex) {
        self.lock().full.push(segment);
        self.changed.notify_all();
    }

    /// A state snapshot is to be written. Never waits; while many do, the oldest is given up.
    pub fn write_state(&self, job: StateJob) {
        let mut slot = self.lock();
        if slot.states.len() == limits::STATES_WAITING_MAX {
            slot.states.pop_front();
        }
        slot.states.push_back(job);
        drop(slot);
        self.changed.notify_all();
    }

    /// The snapshot that waits longest.
    pub fn next_state(&self) -> Option<StateJob> {
        self.lock().states.pop_front()
    }

    fn write_states(&self, storage: &dyn Storage, keeper: &StateKeeper) {
        while let Some(job) = self.next_state() {
            let first = job.first;
            // A job owns all it may leave half-done.
            match catch_unwind(AssertUnwindSafe(|| keeper.keep(storage, job))) {
                Ok(Ok(())) => tracing::debug!(%first, "the state was written"),
                // The next start reads more.
                Ok(Err(error)) => tracing::warn!(%error, %first, "a state snapshot was not written"),
                Err(_) => tracing::error!(%first, "a state snapshot was not written: it panicked"),
            }
        }
    }

    /// The thread ends after the step it is at. What is not done is begun again by the next start.
    pub fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// The thread. It works half of the time at most: after each step it rests for as long as that took, so that
    /// it neither holds a core nor the disk while there is a backlog.
    pub fn run(&self, storage: Arc<dyn Storage>, clock: &Clock, keeper: &StateKeeper) {
        let mut sealer = loop {
            match Sealer::new(Arc::clone(&storage)) {
                Ok(sealer) => break sealer,
                Err(error) => tracing::warn!(%error, "segments cannot be sealed"),
            }
            self.write_states(&*storage, keeper);
            if !self.rest(Duration::from_millis(limits::SEAL_RETRY_MS)) {
                return;
            }
        };
        while let Some(passed) = self.take() {
            self.write_states(&*storage, keeper);
            passed.into_iter().for_each(|segment| sealer.add(segment));
            let began = clock.monotonic();
            let rest = match sealer.step() {
                Ok(Progress::Idle) => {
                    self.wait();
                    continue;
                }
                Ok(Progress::Working) => clock.monotonic().since(began),
                Ok(Progress::Sealed { segment, raw_bytes, sealed_bytes }) => {
                    tracing::info!(segment = segment.0, raw_bytes, sealed_bytes, "a segment was sealed");
                    clock.monotonic().since(began)
                }
                Err(error) => {
                    tracing::warn!(%error, "a segment was not sealed");
                    Duration::from_millis(limits::SEAL_RETRY_MS)
                }
            };
            if !self.rest(rest) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        // The slot is whole after every statement: a panic elsewhere leaves nothing half-done in it.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was passed since; `None` if it is over.
    fn take(&self) -> Option<Vec<LeafIndex>> {
        let mut slot = self.lock();
        (!slot.closing).then(|| std::mem::take(&mut slot.full))
    }

    fn wait(&self) {
        let idle = |s: &mut Slot| s.full.is_empty() && s.states.is_empty() && !s.closing;
        drop(self.changed.wait_while(self.lock(), idle));
    }

    /// Whether to go on afterwards.
    fn rest(&self, time: Duration) -> bool {
        let resting = |s: &mut Slot| s.states.is_empty() && !s.closing;
        let waited = self.changed.wait_timeout_while(self.lock(), time, resting);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}

/// The thread that seals, if there are files to seal. Ended when dropped.
#[derive(Debug)]
pub struct SealerThread {
    sealing: Arc<Sealing>,
    wanted: bool,
    thread: Option<JoinHandle<()>>,
}

impl SealerThread {
    pub fn new(wanted: bool) -> Self {
        Self { sealing: Arc::default(), wanted, thread: None }
    }

    pub fn queue(&self) -> Arc<Sealing> {
        Arc::clone(&self.sealing)
    }

    pub fn start(&mut self, storage: Arc<dyn Storage>, clock: Clock, keeper: StateKeeper) -> io::Result<()> {
        if self.wanted {
            let sealing = Arc::clone(&self.sealing);
            let named = thread::Builder::new().name("ledger-sealer".into());
            self.thread = Some(named.spawn(move || sealing.run(storage, &clock, &keeper))?);
        }
        Ok(())
    }

    /// Waits for the step that it is at.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for SealerThread {
    fn drop(&mut self) {
        self.sealing.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the sealer panicked; full segments stay as they are");
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.work.as_ref().map(|work| work.segment);
        f.debug_struct("Sealer").field("waiting", &self.waiting).field("at", &at).finish_non_exhaustive()
    }
}
