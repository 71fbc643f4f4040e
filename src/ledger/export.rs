//! A static copy of a log for whoever reads C2SP tlog-tiles: checkpoint, hash tiles, entry bundles, and the partial
//! ones of that size; on request the evidence too, each record in a file named by its SHA-256 in hex.
//!
//! Made from the frames, not from the tiles beside them. The checkpoint is written last and only if the entries give
//! the root that it names, so a copy that was cut short is not taken for a whole one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::merkle::checkpoint::{CheckpointError, parse_checkpoint_unverified};
use crate::merkle::frame::Evidence;
use crate::merkle::tile::{self, Fringe, TILE_WIDTH, TileKind, TilePath};
use crate::merkle::tree::leaf_hash;
use crate::model::{Digest, TreeSize};
use crate::verify::Source;
use crate::verify::source::CHECKPOINT_FILE;
use crate::verify::walk::{Damage, Step, Walk};

const DIR_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    pub size: u64,
    pub tiles: u64,
    pub bundles: u64,
    pub evidence: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the log cannot be read: {0}")]
    Read(io::Error),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{0} is not empty; an export is a directory of its own")]
    NotEmpty(PathBuf),
    #[error("there is no checkpoint")]
    NoCheckpoint,
    #[error("the checkpoint cannot be read: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("{}: {}", .0.spot, .0.fault)]
    Damaged(Damage),
    #[error("the checkpoint is of {size} entries, the frames hold {found}")]
    Short { size: TreeSize, found: TreeSize },
    #[error("at {size} entries the checkpoint names root {named}, the frames give {found}")]
    Root { size: TreeSize, named: Digest, found: Digest },
}

/// Copies the log up to a checkpoint, its own newest one if `until` is none, into a directory that is empty or new.
pub fn export<S: Source + ?Sized>(
    source: &S,
    to: &Path,
    until: Option<Vec<u8>>,
    evidence: bool,
) -> Result<Exported, ExportError> {
    let note = match until {
        Some(note) => note,
        None => source.checkpoint().map_err(ExportError::Read)?.ok_or(ExportError::NoCheckpoint)?,
    };
    let checkpoint = parse_checkpoint_unverified(&note)?;
    let mut copy = Copy::begin(to, evidence)?;
    let mut walk = Walk::new(source, &checkpoint.origin).map_err(ExportError::Read)?;
    while copy.fringe.size() < checkpoint.size {
        match walk.step().map_err(ExportError::Read)? {
            Step::Frame(frame, _) => {
                let left =
                    (checkpoint.size.0 - copy.fringe.size().0).min(frame.entries.len() as u64) as usize;
                frame.entries[..left].iter().try_for_each(|entry| copy.entry(entry))?;
                frame.evidence.iter().try_for_each(|record| copy.record(record))?;
            }
            Step::End(_) => {
                return Err(ExportError::Short { size: checkpoint.size, found: copy.fringe.size() });
            }
            Step::Damaged(damage) => return Err(ExportError::Damaged(damage)),
        }
    }
    let found = copy.fringe.root();
    if found != checkpoint.root {
        return Err(ExportError::Root { size: checkpoint.size, named: checkpoint.root, found });
    }
    copy.partial_tiles()?;
    copy.write(Path::new(CHECKPOINT_FILE), &note)?;
    copy.written.size = checkpoint.size.0;
    Ok(copy.written)
}

struct Copy<'t> {
    to: &'t Path,
    evidence: bool,
    fringe: Fringe,
    /// The entries in no full bundle yet.
    bundle: Vec<u8>,
    written: Exported,
}

impl<'t> Copy<'t> {
    fn begin(to: &'t Path, evidence: bool) -> Result<Self, ExportError> {
        let at = |source| ExportError::Write { path: to.to_owned(), source };
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(to).map_err(at)?;
        if fs::read_dir(to).map_err(at)?.next().is_some() {
            return Err(ExportError::NotEmpty(to.to_owned()));
        }
        let written = Exported::default();
        Ok(Self { to, evidence, fringe: Fringe::default(), bundle: Vec::new(), written })
    }

    fn entry(&mut self, entry: &[u8]) -> Result<(), ExportError> {
        let number = self.fringe.size().0 / TILE_WIDTH as u64;
        tile::push_entry(&mut self.bundle, entry);
        let full = self.fringe.append(leaf_hash(entry));
        if !full.is_empty() {
            let bundle = std::mem::take(&mut self.bundle);
            self.tile(&TilePath::entries(number), &bundle)?;
        }
        for tile in full {
            self.tile(&TilePath::hashes(tile.level, tile.number), &tile::hash_bytes(&tile.hashes))?;
        }
        Ok(())
    }

    fn partial_tiles(&mut self) -> Result<(), ExportError> {
        for path in tile::partial_tiles(self.fringe.size()) {
            let bytes = match path.kind {
                TileKind::Hashes { level } => tile::hash_bytes(self.fringe.level(level)),
                TileKind::Entries => std::mem::take(&mut self.bundle),
            };
            self.tile(&path, &bytes)?;
        }
        Ok(())
    }

    fn tile(&mut self, path: &TilePath, bytes: &[u8]) -> Result<(), ExportError> {
        match path.kind {
            TileKind::Hashes { .. } => self.written.tiles += 1,
            TileKind::Entries => self.written.bundles += 1,
        }
        self.write(&Path::new("tile").join(path.to_string()), bytes)
    }

    /// The same bytes may be evidence of many entries.
    fn record(&mut self, record: &Evidence<'_>) -> Result<(), ExportError> {
        if !self.evidence {
            return Ok(());
        }
        let digest = record.digest.to_string();
        let place = Path::new("evidence").join(digest.trim_start_matches("sha-256:"));
        if self.to.join(&place).exists() {
            return Ok(());
        }
        self.written.evidence += 1;
        self.write(&place, record.bytes)
    }

    fn write(&self, place: &Path, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.to.join(place);
        let write = || {
            if let Some(dir) = path.parent() {
                DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
            }
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?.write_all(bytes)
        };
        write().map_err(|source| ExportError::Write { path: path.clone(), source })
    }
}
