//! Where a log is read from: its segments and its checkpoint, as they lie in a directory.
//!
//! `frames/<index of the first entry, 20 digits>.frames` are the segments, `.frames.zst` those that are full and were
//! sealed, `checkpoint` the signed note. Readers see no difference between the two forms but the file's name.
//! [`Source`] is a trait so that the ledger's storage, real or simulated, is read by the same code.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::seekable::{ReadAt, Seekable};
use crate::limits;
use crate::model::LeafIndex;

pub const FRAMES_DIR: &str = "frames";
pub const CHECKPOINT_FILE: &str = "checkpoint";
pub const TILE_DIR: &str = "tile";
const SUFFIX: &str = ".frames";
const SEALED_SUFFIX: &str = ".frames.zst";
const INDEX_DIGITS: usize = 20;
/// A directory that changes at each of so many looks in a row is not one log's.
const LOOKS_MAX: usize = 16;

/// How a segment lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is appended to.
    Raw,
    /// Compressed, see [`super::seekable`]; nothing is appended to it.
    Sealed,
}

/// Path of a segment inside the log's directory, by the index of its first entry.
pub fn segment_file(first: LeafIndex) -> String {
    form_file(first, Form::Raw)
}

/// The same for either form.
pub fn form_file(first: LeafIndex, form: Form) -> String {
    let suffix = match form {
        Form::Raw => SUFFIX,
        Form::Sealed => SEALED_SUFFIX,
    };
    format!("{FRAMES_DIR}/{first:0width$}{suffix}", first = first.0, width = INDEX_DIGITS)
}

/// Reads a log. Offsets and lengths in bytes of the raw form, whatever form is there.
pub trait Source {
    /// First indexes of all segments, ascending.
    fn segments(&self) -> io::Result<Vec<LeafIndex>>;
    fn length(&self, segment: LeafIndex) -> io::Result<u64>;
    /// Fills the buffer, or fails; with [`super::seekable::Broken`] inside if a sealed segment is damaged.
    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// `None` if there is none. At most [`limits::NOTE_BYTES_MAX`] and one byte are read.
    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>>;
    /// The form that is read: what messages name.
    fn form(&self, _segment: LeafIndex) -> io::Result<Form> {
        Ok(Form::Raw)
    }

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
pub struct Directory(Segments);

impl Directory {
    /// What a log serves to read: a `checkpoint` and `tile/`. `Err` if neither is there.
    pub fn open_mirror(root: &Path) -> io::Result<Self> {
        if !root.join(CHECKPOINT_FILE).exists() {
            fs::read_dir(root.join(TILE_DIR))?;
        }
        Ok(Self(Segments::new(root)))
    }

    /// `Err` if it is no directory, or holds no `frames`.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::read_dir(root.join(FRAMES_DIR))?;
        Ok(Self(Segments::new(root)))
    }
}

impl Source for Directory {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        self.0.list()
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        self.0.length(segment)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(segment, offset, buffer)
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        read_checkpoint(&self.0.root)
    }

    fn form(&self, segment: LeafIndex) -> io::Result<Form> {
        self.0.form(segment)
    }

    fn derived(&self, path: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        read_regular(&self.0.root.join(path), bytes_max)
    }

    fn derived_names(&self, dir: &str) -> io::Result<Vec<String>> {
        list_names(&self.0.root.join(dir))
    }
}

/// Reads the segments of a directory in either form. If both are there, the raw one counts: the sealed one was not
/// finished, or a crash came before the raw one was removed.
#[derive(Debug)]
pub struct Segments {
    root: PathBuf,
    /// Segments are read front to back: the last one used is nearly always the next one.
    last: Mutex<Option<(LeafIndex, Arc<Opened>)>>,
}

#[derive(Debug)]
enum Opened {
    Raw(File),
    Sealed(Seekable<File>),
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl Segments {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), last: Mutex::new(None) }
    }

    /// First indexes of all segments, ascending. While a gateway seals one, its two names change under the listing,
    /// which then may have seen neither: a list counts only if the next one is the same.
    pub fn list(&self) -> io::Result<Vec<LeafIndex>> {
        let mut before = list_once(&self.root)?;
        for _ in 0..LOOKS_MAX {
            let now = list_once(&self.root)?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before.into_iter().collect())
    }

    pub fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        match &*self.opened(segment)? {
            Opened::Raw(file) => Ok(file.metadata()?.len()),
            Opened::Sealed(sealed) => Ok(sealed.length()),
        }
    }

    pub fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &*self.opened(segment)? {
            Opened::Raw(file) => FileExt::read_exact_at(file, buffer, offset),
            Opened::Sealed(sealed) => sealed.read_at(offset, buffer),
        }
    }

    pub fn form(&self, segment: LeafIndex) -> io::Result<Form> {
        Ok(match &*self.opened(segment)? {
            Opened::Raw(_) => Form::Raw,
            Opened::Sealed(_) => Form::Sealed,
        })
    }

    /// What was opened may have been replaced under its name.
    pub fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn opened(&self, segment: LeafIndex) -> io::Result<Arc<Opened>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((open, file)) if *open == segment => Ok(Arc::clone(file)),
            Some(_) | None => {
                let file = Arc::new(self.open(segment)?);
                *last = Some((segment, Arc::clone(&file)));
                Ok(file)
            }
        }
    }

    fn open(&self, segment: LeafIndex) -> io::Result<Opened> {
        match open_regular(&self.root.join(segment_file(segment))) {
            Ok(file) => return Ok(Opened::Raw(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let name = form_file(segment, Form::Sealed);
        let file = open_regular(&self.root.join(&name))?;
        let bytes = file.metadata()?.len();
        Ok(Opened::Sealed(Seekable::open(file, name, bytes)?))
    }
}

/// Segments in `root/frames`; files of other names are not segments.
fn list_once(root: &Path) -> io::Result<BTreeSet<LeafIndex>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root.join(FRAMES_DIR))? {
        found.extend(entry?.file_name().to_str().and_then(parse_segment_name).map(|(first, _)| first));
    }
    Ok(found)
}

/// Every file that holds a segment, both forms of one included.
pub fn segment_files(root: &Path) -> io::Result<Vec<(LeafIndex, Form)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(FRAMES_DIR))? {
        found.extend(entry?.file_name().to_str().and_then(parse_segment_name));
    }
    found.sort_unstable_by_key(|(first, form)| (*first, *form == Form::Sealed));
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
    // As long as it is now, and one more, so that its end is seen without growing.
    let length = file.metadata()?.len().min(bytes_max as u64);
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn list_names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // Of a longer list, what is left out would be taken for what is not there.
        if names.len() == limits::DERIVED_NAMES_MAX {
            let what = format!("more than {} names in {}", limits::DERIVED_NAMES_MAX, dir.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(names)
}

/// A log comes from strangers: opening a pipe would wait for ever, a device has no end.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no file", path.display())));
    }
    File::open(path)
}

fn parse_segment_name(name: &str) -> Option<(LeafIndex, Form)> {
    let (digits, form) = match name.strip_suffix(SEALED_SUFFIX) {
        Some(digits) => (digits, Form::Sealed),
        None => (name.strip_suffix(SUFFIX)?, Form::Raw),
    };
    let whole = digits.len() == INDEX_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    whole.then(|| digits.parse().ok().map(|first| (LeafIndex(first), form))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_write_are_segments() {
        assert_eq!(segment_file(LeafIndex(42)), "frames/00000000000000000042.frames");
        for form in [Form::Raw, Form::Sealed] {
            let name = form_file(LeafIndex(42), form);
            let name = name.strip_prefix("frames/").expect("in its directory");
            assert_eq!(parse_segment_name(name), Some((LeafIndex(42), form)));
        }
        for other in [
            "42.frames",
            "spare.frames",
            "0000000000000000004x.frames",
            "99999999999999999999.frames",
            "00000000000000000042.zst",
            "00000000000000000042.frames.zst.new",
        ] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
