//! The files of a log, and the one place that writes them.
//!
//! Every method returns only after what it promises is true on disk, except [`Storage::write_at`], which is
//! true after [`Storage::sync`]. Segments are preallocated, so a frame in one never meets a full disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, CWD, FallocateFlags, RenameFlags, fadvise, fallocate, renameat_with};

use super::snapshots::STATE_FILE_BYTES_MAX;
use crate::limits;
use crate::model::LeafIndex;
use crate::verify::source::{
    CHECKPOINT_FILE, FRAMES_DIR, Form, Segments, Source, form_file, open_regular, read_checkpoint,
    segment_file, segment_files,
};

const LOCK_FILE: &str = "lock";
pub const QUARANTINE_DIR: &str = "quarantine";
pub const RESTART_DIR: &str = "restart";
const SPARE_FILE: &str = "frames/spare";
/// A sealed segment that is not finished; a start removes it.
pub const SEALING_FILE: &str = "frames/sealing";
const INDEX_DIGITS: usize = 20;
/// Read by owner and group: receipts hold what agents asked for.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// Writes a log. The committer is the only writer of frames, the publisher of the checkpoint, the sealer of sealed
/// segments and state snapshots, the archiver of restart points.
pub trait Storage: Source + Send + Sync + 'static {
    /// Length of the spare segment, if there is one and all of its room is taken.
    fn spare_length(&self) -> io::Result<Option<u64>>;
    /// A spare of zeros of this length, room for all of it taken, durable with its name. A spare of another length is
    /// made to fit; on failure it stays as it was.
    fn create_spare(&self, bytes: u64) -> io::Result<()>;
    /// The spare becomes the segment that begins with this entry; durable.
    fn promote_spare(&self, first: LeafIndex) -> io::Result<()>;
    fn write_at(&self, segment: LeafIndex, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written to the segment is durable.
    fn sync(&self, segment: LeafIndex) -> io::Result<()>;
    /// Copies a range of a segment aside, durable; the name of the copy. `index` is the entry that was expected there.
    fn quarantine(&self, index: LeafIndex, torn: TornRange) -> io::Result<String>;
    /// Bytes of the largest copy that was set aside where this entry was expected: without it, no start has named them.
    fn quarantined_at(&self, index: LeafIndex) -> io::Result<Option<(String, u64)>>;
    /// Replaces the checkpoint; a crash leaves the old one or the new one.
    fn write_checkpoint(&self, note: &[u8]) -> io::Result<()>;
    /// After it, a power cut leaves the checkpoint that was written last.
    fn sync_checkpoint(&self) -> io::Result<()>;

    /// Every segment file; of a segment in both forms both.
    fn segment_forms(&self) -> io::Result<Vec<(LeafIndex, Form)>>;
    /// Begins a sealed segment that has no name yet, and drops an unfinished one.
    fn start_sealed(&self) -> io::Result<()>;
    fn write_sealed(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written is durable, and is read from the disk from now on, where the system can be told so.
    fn sync_sealed(&self) -> io::Result<()>;
    fn read_sealed(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// The sealed segment gets its name; durable.
    fn keep_sealed(&self, segment: LeafIndex) -> io::Result<()>;
    /// Removes the unfinished sealed segment, if there is one.
    fn drop_sealed(&self) -> io::Result<()>;
    /// Removes the raw form of a segment; durable. Never of one without a sealed form.
    fn remove_raw(&self, segment: LeafIndex) -> io::Result<()>;

    /// First indexes of all restart points, ascending.
    fn restart_points(&self) -> io::Result<Vec<LeafIndex>>;
    /// At most [`limits::RESTART_BYTES_MAX`] and one byte.
    fn read_restart(&self, first: LeafIndex) -> io::Result<Vec<u8>>;
    /// Puts a restart point in place; a crash leaves none or all of it.
    fn write_restart(&self, first: LeafIndex, bytes: &[u8]) -> io::Result<()>;
    fn remove_restart(&self, first: LeafIndex) -> io::Result<()>;
    /// First indexes of all state snapshots, ascending.
    fn states(&self) -> io::Result<Vec<LeafIndex>>;
    /// At most [`STATE_FILE_BYTES_MAX`] and one byte.
    fn read_state(&self, first: LeafIndex) -> io::Result<Vec<u8>>;
    /// Puts a state snapshot in place; a crash leaves none or all of it.
    fn write_state(&self, first: LeafIndex, bytes: &[u8]) -> io::Result<()>;
    fn remove_state(&self, first: LeafIndex) -> io::Result<()>;
    /// The log's directory, where what is derived from the log lies beside it. Without one, nothing is derived.
    fn directory(&self) -> Option<&Path>;
}

/// Torn bytes of a segment.
#[derive(Clone, Copy, Debug)]
pub struct TornRange {
    pub segment: LeafIndex,
    pub offset: u64,
    pub length: u64,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("another process has the log in {0} open")]
    Locked(PathBuf),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Keeps every other process that takes it out of a log. The file is what older versions lock; the directory stays
/// locked when somebody removes the file.
#[derive(Debug)]
pub struct Lock(Vec<File>);

impl Lock {
    /// Takes the lock of a writer, or says who has it.
    pub fn take(root: &Path) -> Result<Self, Unusable> {
        let path = root.join(LOCK_FILE);
        let file = options().create(true).truncate(false).open(&path);
        let file = held(file, root, path)?;
        let Self(mut files) = Self::take_directory(root)?;
        files.push(file);
        Ok(Self(files))
    }

    /// The same without making a file, for whoever may only read.
    pub fn take_directory(root: &Path) -> Result<Self, Unusable> {
        Ok(Self(vec![held(File::open(root), root, root.to_owned())?]))
    }
}

fn held(file: io::Result<File>, root: &Path, path: PathBuf) -> Result<File, Unusable> {
    let file = match file {
        Ok(file) => file,
        Err(source) => return Err(Unusable::Io { path, source }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Unusable::Locked(root.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(Unusable::Io { path, source }),
    }
}

/// A directory on a disk, locked for this process as long as this value lives.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    /// Names become durable when their directory is synced.
    frames: File,
    /// The segment that is written. Readers have files of their own: they may be far behind.
    current: Mutex<Option<(LeafIndex, Arc<File>)>>,
    read: Segments,
    _lock: Lock,
}

impl Disk {
    /// Creates what is missing and takes the lock.
    pub fn open(root: &Path) -> Result<Self, Unusable> {
        let at = |path: PathBuf| move |source| Unusable::Io { path, source };
        let missing: Vec<&Path> = root.ancestors().take_while(|dir| !dir.exists()).collect();
        let make = |dir: &Path| DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
        for dir in [root.to_owned(), root.join(FRAMES_DIR), root.join(QUARANTINE_DIR)] {
            make(&dir).map_err(at(dir))?;
        }
        if let Err(error) = make(&root.join(RESTART_DIR)) {
            // Derived: a start reads more without it.
            tracing::warn!(%error, "there is no place for restart points");
        }
        let lock = Lock::take(root)?;
        let frames = File::open(root.join(FRAMES_DIR)).map_err(at(root.join(FRAMES_DIR)))?;
        // The last process may have died between giving a segment its name and making the name durable. What is
        // seen here is built on, so it must outlive a power cut; and so must the directories made just now.
        frames.sync_all().map_err(at(root.join(FRAMES_DIR)))?;
        sync_dir(root).map_err(at(root.to_owned()))?;
        for parent in missing.iter().filter_map(|dir| dir.parent()).filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent).map_err(at(parent.to_owned()))?;
        }
        let (root, read) = (root.to_owned(), Segments::new(root));
        Ok(Self { root, frames, current: Mutex::new(None), read, _lock: lock })
    }

    fn segment(&self, first: LeafIndex) -> io::Result<Arc<File>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((open, file)) if *open == first => Ok(Arc::clone(file)),
            Some(_) | None => {
                let file = Arc::new(options().open(self.root.join(segment_file(first)))?);
                *current = Some((first, Arc::clone(&file)));
                Ok(file)
            }
        }
    }

    fn list_restart(&self, index: fn(&str) -> Option<LeafIndex>) -> io::Result<Vec<LeafIndex>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(RESTART_DIR))? {
            found.extend(entry?.file_name().to_str().and_then(index));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn spare(&self) -> PathBuf {
        self.root.join(SPARE_FILE)
    }
}

impl Source for Disk {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        self.read.list()
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        self.read.length(segment)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read.read_at(segment, offset, buffer)
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        read_checkpoint(&self.root)
    }

    fn form(&self, segment: LeafIndex) -> io::Result<Form> {
        self.read.form(segment)
    }
}

impl Storage for Disk {
    fn directory(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn spare_length(&self) -> io::Result<Option<u64>> {
        match fs::metadata(self.spare()) {
            // A file can be as long as a segment and have no room: then a frame in it would meet a full disk.
            Ok(found) => Ok(Some(found.len()).filter(|&length| found.blocks() * STAT_BLOCK_BYTES >= length)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create_spare(&self, bytes: u64) -> io::Result<()> {
        match options().open(self.spare()) {
            Ok(old) => {
                let length = old.metadata()?.len();
                let grown = fallocate(&old, FallocateFlags::empty(), 0, bytes);
                if let Err(error) = grown {
                    // The room that it has is still good for what was set before.
                    old.set_len(length)?;
                    return Err(error.into());
                }
                old.set_len(bytes)?;
                old.sync_all()?;
                return self.frames.sync_all();
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let made = options().create_new(true).open(self.spare()).and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            // Length and allocation, then the name: a spare that is seen after a crash is whole.
            file.sync_all()?;
            self.frames.sync_all()
        });
        if made.is_err() {
            // Half a spare must not take the room that it could not get; a failure here changes nothing.
            let _ = remove_if_there(&self.spare());
        }
        made
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger's storage owns its files")]
    fn promote_spare(&self, first: LeafIndex) -> io::Result<()> {
        fs::rename(self.spare(), self.root.join(segment_file(first)))?;
        // An empty file of that name, open here, is no longer the one in the directory.
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.read.forget();
        self.frames.sync_all()
    }

    fn write_at(&self, segment: LeafIndex, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.segment(segment)?.write_all_at(bytes, offset)
    }

    fn sync(&self, segment: LeafIndex) -> io::Result<()> {
        self.segment(segment)?.sync_data()
    }

    fn quarantine(&self, index: LeafIndex, torn: TornRange) -> io::Result<String> {
        let TornRange { segment, offset, length } = torn;
        let dir = self.root.join(QUARANTINE_DIR);
        let mut copies = 0;
        let (name, mut copy) = loop {
            let name = format!("{QUARANTINE_DIR}/{:020}-{offset:010}-{copies}{TORN_SUFFIX}", index.0);
            match options().create_new(true).open(self.root.join(&name)) {
                Ok(file) => break (name, file),
                // A crash while an earlier copy's original was being cleared.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => copies += 1,
                Err(e) => return Err(e),
            }
        };
        let source = self.segment(segment)?;
        let mut piece = vec![0; 1 << 20];
        let mut copied = 0;
        while copied < length {
            let take = (length - copied).min(piece.len() as u64) as usize;
            source.read_exact_at(&mut piece[..take], offset + copied)?;
            copy.write_all(&piece[..take])?;
            copied += take as u64;
        }
        copy.sync_all()?;
        sync_dir(&dir)?;
        Ok(name)
    }

    fn quarantined_at(&self, index: LeafIndex) -> io::Result<Option<(String, u64)>> {
        let mut largest = None;
        for entry in fs::read_dir(self.root.join(QUARANTINE_DIR))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| n.ends_with(TORN_SUFFIX)) else { continue };
            if leading_index(name) != Some(index) {
                continue;
            }
            let length = entry.metadata()?.len();
            if largest.as_ref().is_none_or(|(_, most)| *most < length) {
                largest = Some((format!("{QUARANTINE_DIR}/{name}"), length));
            }
        }
        Ok(largest)
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger's storage owns its files")]
    fn write_checkpoint(&self, note: &[u8]) -> io::Result<()> {
        let (new, spare) = (self.root.join("checkpoint.new"), self.root.join("checkpoint.spare"));
        let place = self.root.join(CHECKPOINT_FILE);
        // The content before the name: a crash never shows an empty checkpoint.
        match write_whole(&new, note) {
            Ok(()) => {}
            // What was acknowledged must be covered also when the disk is full: the spare has its room already. It
            // changes places with the checkpoint, whose file is the next spare.
            Err(e) if e.kind() == io::ErrorKind::StorageFull && spare.exists() => {
                remove_if_there(&new)?;
                write_whole(&spare, note)?;
                return Ok(renameat_with(CWD, &spare, CWD, &place, RenameFlags::EXCHANGE)?);
            }
            Err(e) => return Err(e),
        }
        let is_first = !place.exists();
        fs::rename(new, place)?;
        if !spare.exists() {
            write_whole(&spare, note)?;
        }
        // From the first one on there always is one; which of two a crash leaves does not matter before the last.
        if is_first { sync_dir(&self.root) } else { Ok(()) }
    }

    fn sync_checkpoint(&self) -> io::Result<()> {
        sync_dir(&self.root)
    }

    fn segment_forms(&self) -> io::Result<Vec<(LeafIndex, Form)>> {
        segment_files(&self.root)
    }

    fn start_sealed(&self) -> io::Result<()> {
        self.drop_sealed()?;
        options().create_new(true).open(self.root.join(SEALING_FILE)).map(drop)
    }

    fn write_sealed(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        options().open(self.root.join(SEALING_FILE))?.write_all_at(bytes, offset)
    }

    fn sync_sealed(&self) -> io::Result<()> {
        let file = options().open(self.root.join(SEALING_FILE))?;
        file.sync_all()?;
        // What is read back is to come from the disk. Where the system does not do so, it still compares memory.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Ok(())
    }

    fn read_sealed(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        File::open(self.root.join(SEALING_FILE))?.read_exact_at(buffer, offset)
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger's storage owns its files")]
    fn keep_sealed(&self, segment: LeafIndex) -> io::Result<()> {
        fs::rename(self.root.join(SEALING_FILE), self.root.join(form_file(segment, Form::Sealed)))?;
        self.frames.sync_all()
    }

    fn drop_sealed(&self) -> io::Result<()> {
        remove_if_there(&self.root.join(SEALING_FILE))
    }

    fn remove_raw(&self, segment: LeafIndex) -> io::Result<()> {
        let sealed = self.root.join(form_file(segment, Form::Sealed));
        assert!(sealed.exists(), "the raw form goes only when the sealed one has its name");
        fs::remove_file(self.root.join(segment_file(segment)))?;
        // An open file keeps its room.
        self.read.forget();
        self.frames.sync_all()
    }

    fn restart_points(&self) -> io::Result<Vec<LeafIndex>> {
        self.list_restart(restart_index)
    }

    fn read_restart(&self, first: LeafIndex) -> io::Result<Vec<u8>> {
        read_bounded(&self.root.join(restart_file(first)), limits::RESTART_BYTES_MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger's storage owns its files")]
    fn write_restart(&self, first: LeafIndex, bytes: &[u8]) -> io::Result<()> {
        let new = self.root.join(RESTART_DIR).join("new");
        write_whole(&new, bytes)?;
        fs::rename(new, self.root.join(restart_file(first)))?;
        sync_dir(&self.root.join(RESTART_DIR))
    }

    fn remove_restart(&self, first: LeafIndex) -> io::Result<()> {
        remove_if_there(&self.root.join(restart_file(first)))
    }

    fn states(&self) -> io::Result<Vec<LeafIndex>> {
        self.list_restart(state_index)
    }

    fn read_state(&self, first: LeafIndex) -> io::Result<Vec<u8>> {
        read_bounded(&self.root.join(state_file(first)), STATE_FILE_BYTES_MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "the ledger's storage owns its files")]
    fn write_state(&self, first: LeafIndex, bytes: &[u8]) -> io::Result<()> {
        // Of another name than a restart point's: they are written by different threads.
        let new = self.root.join(RESTART_DIR).join("new.state");
        write_whole(&new, bytes)?;
        fs::rename(new, self.root.join(state_file(first)))?;
        sync_dir(&self.root.join(RESTART_DIR))
    }

    fn remove_state(&self, first: LeafIndex) -> io::Result<()> {
        remove_if_there(&self.root.join(state_file(first)))
    }
}

/// What `blocks` of a file's status counts, on every system.
pub const STAT_BLOCK_BYTES: u64 = 512;
const TORN_SUFFIX: &str = ".torn";
const RESTART_SUFFIX: &str = ".json";
const STATE_SUFFIX: &str = ".state";

/// Path of a restart point inside the log's directory.
pub fn restart_file(first: LeafIndex) -> String {
    format!("{RESTART_DIR}/{:020}{RESTART_SUFFIX}", first.0)
}

/// Path of a state snapshot inside the log's directory.
pub fn state_file(first: LeafIndex) -> String {
    format!("{RESTART_DIR}/{:020}{STATE_SUFFIX}", first.0)
}

/// The index of a restart point's file, by its name in its directory.
pub fn restart_index(name: &str) -> Option<LeafIndex> {
    index_with(name, RESTART_SUFFIX)
}

/// The index of a state snapshot's file, by its name in its directory.
pub fn state_index(name: &str) -> Option<LeafIndex> {
    index_with(name, STATE_SUFFIX)
}

fn index_with(name: &str, suffix: &str) -> Option<LeafIndex> {
    let first = leading_index(name)?;
    (name.len() == INDEX_DIGITS + suffix.len() && name.ends_with(suffix)).then_some(first)
}

fn leading_index(name: &str) -> Option<LeafIndex> {
    let digits = name.get(..INDEX_DIGITS)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok().map(LeafIndex)).flatten()
}

/// At most `bytes_max` and one byte of a file.
pub fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes over what is there, so that no room is needed that the file has; durable, but not its name.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = options().create(true).truncate(false).open(path)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_data()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
