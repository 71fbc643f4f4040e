//! Where a log is read from: its segments and its checkpoint, as they lie in a directory.
//!
//! `frames/<index of the first entry, 20 digits>.frames` are the segments, `checkpoint` the signed note.
//! [`Source`] is a trait so that the ledger's storage, real or simulated, is read by the same code.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits;
use crate::model::LeafIndex;

pub const FRAMES_DIR: &str = "frames";
pub const CHECKPOINT_FILE: &str = "checkpoint";
const SUFFIX: &str = ".frames";
const INDEX_DIGITS: usize = 20;

/// Path of a segment inside the log's directory, by the index of its first entry.
pub fn segment_file(first: LeafIndex) -> String {
    format!("{FRAMES_DIR}/{first:0width$}{SUFFIX}", first = first.0, width = INDEX_DIGITS)
}

/// Reads a log. Offsets and lengths in bytes.
pub trait Source {
    /// First indexes of all segments, ascending.
    fn segments(&self) -> io::Result<Vec<LeafIndex>>;
    fn length(&self, segment: LeafIndex) -> io::Result<u64>;
    /// Fills the buffer, or fails.
    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// `None` if there is none. At most [`limits::NOTE_BYTES_MAX`] and one byte are read.
    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>>;

    /// A file below `tile/`, by its path in the log's directory; `None` if there is none. At most `bytes_max` and one
    /// byte are read.
    fn derived(&self, _path: &str, _bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Names in a directory below `tile/`, those of directories with a `/` at the end; none if there is none.
    fn derived_names(&self, _dir: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

/// A log's directory, opened for reading only.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// Segments are read front to back: the last one used is nearly always the next one.
    last: Mutex<Option<(LeafIndex, Arc<File>)>>,
}

impl Directory {
    /// `Err` if it is no directory, or holds no `frames`.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::read_dir(root.join(FRAMES_DIR))?;
        Ok(Self { root: root.to_owned(), last: Mutex::new(None) })
    }

    fn file(&self, segment: LeafIndex) -> io::Result<Arc<File>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((open, file)) if *open == segment => Ok(Arc::clone(file)),
            Some(_) | None => {
                let file = Arc::new(open_regular(&self.root.join(segment_file(segment)))?);
                *last = Some((segment, Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

impl Source for Directory {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        list_segments(&self.root)
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        Ok(self.file(segment)?.metadata()?.len())
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file(segment)?.read_exact_at(buffer, offset)
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        read_checkpoint(&self.root)
    }

    fn derived(&self, path: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        read_regular(&self.root.join(path), bytes_max)
    }

    fn derived_names(&self, dir: &str) -> io::Result<Vec<String>> {
        list_names(&self.root.join(dir))
    }
}

/// Segments in `root/frames`; files of other names are not segments.
pub fn list_segments(root: &Path) -> io::Result<Vec<LeafIndex>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(FRAMES_DIR))? {
        found.extend(entry?.file_name().to_str().and_then(parse_segment_name));
    }
    found.sort_unstable();
    Ok(found)
}

pub fn read_checkpoint(root: &Path) -> io::Result<Option<Vec<u8>>> {
    read_regular(&root.join(CHECKPOINT_FILE), limits::NOTE_BYTES_MAX)
}

fn read_regular(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    use io::Read;
    let file = match open_regular(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn list_names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries.take(limits::DERIVED_NAMES_MAX) {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(names)
}

/// A log comes from strangers: opening a pipe would wait for ever, a device has no end.
fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file", path.display())));
    }
    File::open(path)
}

fn parse_segment_name(name: &str) -> Option<LeafIndex> {
    let digits = name.strip_suffix(SUFFIX)?;
    let whole = digits.len() == INDEX_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    whole.then(|| digits.parse().ok().map(LeafIndex)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_write_are_segments() {
        assert_eq!(segment_file(LeafIndex(42)), "frames/00000000000000000042.frames");
        assert_eq!(parse_segment_name("00000000000000000042.frames"), Some(LeafIndex(42)));
        for other in
            ["42.frames", "spare.frames", "0000000000000000004x.frames", "99999999999999999999.frames"]
        {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
