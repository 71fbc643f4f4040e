//! Tiles and entry bundles as files below `tile/`: written whole or not at all, read with their shape checked.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::limits;
use crate::merkle::tile::{BUNDLE_BYTES_MAX, HASH_BYTES, TileKind, TilePath, entry_ranges};
use crate::verify::source::open_regular;

pub const TILE_DIR: &str = "tile";
/// A tile gets its name when it is whole.
const NEW_FILE: &str = "tile.new";
const DIR_MODE: u32 = 0o750;
/// A full tile never changes.
const TILE_MODE: u32 = 0o440;

/// A tile that should be there cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TileError {
    #[error("tile/{path} cannot be read: {source}")]
    Io { path: TilePath, source: io::Error },
    #[error("tile/{path} has another length than it should, or holds something else")]
    Shape { path: TilePath },
}

impl TileError {
    /// Whether the file was read, or found missing: trying again will not help, making it again will.
    pub fn is_unfit(&self) -> bool {
        match self {
            Self::Io { path: _, source } => is_in_the_way(source) || source.kind() == io::ErrorKind::NotFound,
            Self::Shape { .. } => true,
        }
    }
}

/// What was written and may not be durable.
#[derive(Debug, Default)]
pub struct Unsynced {
    files: Vec<PathBuf>,
    dirs: BTreeSet<PathBuf>,
}

/// The tiles in a log's directory.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// The log's directory.
    root: PathBuf,
}

impl Tiles {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.root.join(TILE_DIR)
    }

    fn place(&self, path: &TilePath) -> PathBuf {
        self.dir().join(path.to_string())
    }

    /// A tile of hashes, or a bundle of entries, as many as its name says.
    pub fn read(&self, path: &TilePath) -> Result<Vec<u8>, TileError> {
        let bytes = read_bounded(&self.place(path), bytes_max(path))
            .map_err(|source| TileError::Io { path: *path, source })?;
        let fits = match path.kind {
            TileKind::Hashes { .. } => bytes.len() == path.width() * HASH_BYTES,
            TileKind::Entries => entry_ranges(&bytes).is_some_and(|entries| entries.len() == path.width()),
        };
        if fits { Ok(bytes) } else { Err(TileError::Shape { path: *path }) }
    }

    /// Writes a tile unless it is there already. Not durable before [`Unsynced::sync`].
    pub fn put(&self, path: &TilePath, bytes: &[u8], unsynced: &mut Unsynced) -> io::Result<()> {
        let place = self.place(path);
        let is_there = matches!(read_bounded(&place, bytes.len() as u64), Ok(found) if found == bytes);
        if !is_there {
            self.write(&place, bytes, unsynced)?;
        }
        if path.partial.is_none() {
            // What an earlier stop left; the full tile has it all.
            let partials = PathBuf::from(format!("{}.p", place.display()));
            remove_dir_if_there(&partials)?;
        }
        unsynced.dirs.extend(place.parent().map(Path::to_owned));
        unsynced.files.push(place);
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the archive owns the files below tile/")]
    fn write(&self, place: &Path, bytes: &[u8], unsynced: &mut Unsynced) -> io::Result<()> {
        let new = self.root.join(NEW_FILE);
        remove_if_there(&new)?;
        OpenOptions::new().write(true).create_new(true).mode(TILE_MODE).open(&new)?.write_all(bytes)?;
        match fs::rename(&new, place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = place.parent() {
                    DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent)?;
                    let made = parent.ancestors().take_while(|dir| dir.starts_with(&self.root));
                    unsynced.dirs.extend(made.map(Path::to_owned));
                }
                fs::rename(&new, place)
            }
            renamed => renamed,
        }
    }

    /// Removes every tile. Whether there was any.
    pub fn clear(&self) -> io::Result<bool> {
        let found = match fs::read_dir(self.dir()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?,
        };
        let mut any = false;
        for entry in found {
            // Not the directory itself: it may be a mount, or a link to another disk.
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
            any = true;
        }
        Ok(any)
    }
}

impl Unsynced {
    /// What was written is durable, under its names. `root` is any directory on the same disk.
    pub fn sync(&mut self, root: &Path) -> io::Result<()> {
        if self.files.is_empty() && self.dirs.is_empty() {
            return Ok(());
        }
        if self.files.len() > limits::ARCHIVE_SYNC_FILES_MAX {
            // One request instead of thousands, each of which would hold up the committer's own.
            rustix::fs::syncfs(File::open(root.join(TILE_DIR))?)?;
        } else {
            for path in self.files.iter().chain(&self.dirs) {
                File::open(path)?.sync_all()?;
            }
        }
        *self = Self::default();
        Ok(())
    }
}

const fn bytes_max(path: &TilePath) -> u64 {
    match path.kind {
        TileKind::Hashes { .. } => (crate::merkle::tile::TILE_WIDTH * HASH_BYTES) as u64,
        TileKind::Entries => BUNDLE_BYTES_MAX as u64,
    }
}

/// One byte more than `bytes_max` at most, so that a longer file is seen to be longer.
fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::with_capacity(file.metadata()?.len().min(bytes_max) as usize + 1);
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether something of another kind stands where a derived file or directory should: trying again will not help, a
/// place that was cleared will.
pub fn is_in_the_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotSeekable
    )
}

pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn remove_dir_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
