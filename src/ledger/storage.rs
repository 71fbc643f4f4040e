//! The files of a log, and the one place that writes them.
//!
//! Every method returns only after what it promises is true on disk, except [`Storage::write_at`], which is
//! true after [`Storage::sync`]. Segments are preallocated, so a frame in one never meets a full disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};

use crate::model::LeafIndex;
use crate::verify::source::{
    CHECKPOINT_FILE, FRAMES_DIR, Source, list_segments, read_checkpoint, segment_file,
};

const LOCK_FILE: &str = "lock";
const QUARANTINE_DIR: &str = "quarantine";
const SPARE_FILE: &str = "frames/spare";
/// Read by owner and group: receipts hold what agents asked for.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// Writes a log. The committer is its only writer; the publisher writes only the checkpoint.
pub trait Storage: Source + Send + Sync + 'static {
    /// Length of the spare segment, if there is one.
    fn spare_length(&self) -> io::Result<Option<u64>>;
    /// A new spare of zeros, room for all of it taken, durable with its name. On failure there is none.
    fn create_spare(&self, bytes: u64) -> io::Result<()>;
    /// The spare becomes the segment that begins with this entry; durable.
    fn promote_spare(&self, first: LeafIndex) -> io::Result<()>;
    fn write_at(&self, segment: LeafIndex, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written to the segment is durable.
    fn sync(&self, segment: LeafIndex) -> io::Result<()>;
    /// Copies a range of a segment aside, durable; the name of the copy.
    fn quarantine(&self, segment: LeafIndex, offset: u64, length: u64) -> io::Result<String>;
    /// Replaces the checkpoint; a crash leaves the old one or the new one.
    fn write_checkpoint(&self, note: &[u8]) -> io::Result<()>;
    /// The log's directory, where what is derived from the log lies beside it. Without one, nothing is derived.
    fn directory(&self) -> Option<&Path>;
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("another process has the log in {0} open")]
    Locked(PathBuf),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// A directory on a disk, locked for this process as long as this value lives.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    /// Names become durable when their directory is synced.
    frames: File,
    current: Mutex<Option<(LeafIndex, Arc<File>)>>,
    _lock: File,
}

impl Disk {
    /// Creates what is missing and takes the lock.
    pub fn open(root: &Path) -> Result<Self, Unusable> {
        let at = |path: PathBuf| move |source| Unusable::Io { path, source };
        let missing: Vec<&Path> = root.ancestors().take_while(|dir| !dir.exists()).collect();
        for dir in [root.to_owned(), root.join(FRAMES_DIR), root.join(QUARANTINE_DIR)] {
            let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(&dir);
            made.map_err(at(dir))?;
        }
        let path = root.join(LOCK_FILE);
        let lock = options().create(true).truncate(false).open(&path).map_err(at(path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Unusable::Locked(root.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(Unusable::Io { path, source }),
        }
        let frames = File::open(root.join(FRAMES_DIR)).map_err(at(root.join(FRAMES_DIR)))?;
        // The last process may have died between giving a segment its name and making the name durable. What is
        // seen here is built on, so it must outlive a power cut; and so must the directories made just now.
        frames.sync_all().map_err(at(root.join(FRAMES_DIR)))?;
        sync_dir(root).map_err(at(root.to_owned()))?;
        for parent in missing.iter().filter_map(|dir| dir.parent()).filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent).map_err(at(parent.to_owned()))?;
        }
        Ok(Self { root: root.to_owned(), frames, current: Mutex::new(None), _lock: lock })
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

    fn spare(&self) -> PathBuf {
        self.root.join(SPARE_FILE)
    }
}

impl Source for Disk {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        list_segments(&self.root)
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        Ok(self.segment(segment)?.metadata()?.len())
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.segment(segment)?.read_exact_at(buffer, offset)
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        read_checkpoint(&self.root)
    }
}

impl Storage for Disk {
    fn directory(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn spare_length(&self) -> io::Result<Option<u64>> {
        match fs::metadata(self.spare()) {
            Ok(found) => Ok(Some(found.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create_spare(&self, bytes: u64) -> io::Result<()> {
        remove_if_there(&self.spare())?;
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
        self.frames.sync_all()
    }

    fn write_at(&self, segment: LeafIndex, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.segment(segment)?.write_all_at(bytes, offset)
    }

    fn sync(&self, segment: LeafIndex) -> io::Result<()> {
        self.segment(segment)?.sync_data()
    }

    fn quarantine(&self, segment: LeafIndex, offset: u64, length: u64) -> io::Result<String> {
        let dir = self.root.join(QUARANTINE_DIR);
        let mut copies = 0;
        let (name, mut copy) = loop {
            let name = format!("{QUARANTINE_DIR}/{:020}-{offset:010}-{copies}.torn", segment.0);
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
        // From the first one on there always is one; which of two a crash leaves does not matter.
        if is_first { sync_dir(&self.root) } else { Ok(()) }
    }
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
