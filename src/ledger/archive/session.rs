//! One run of the archiver over the frames: from its durable position until the feed ends or something is wrong.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::feed::{End, Order, Written};
use super::index::{Index, Position, Rows};
use super::seen::Seen;
use super::tiles::{TileError, Tiles, Unsynced};
use super::{Halt, INDEX_FILE};
use crate::clock::Moment;
use crate::ledger::full::FullSegments;
use crate::ledger::queue::Shared;
use crate::ledger::reader::Snapshot;
use crate::ledger::recovery::Fold;
use crate::ledger::statistics::Counters;
use crate::limits;
use crate::merkle::checkpoint::{Checkpoint, parse_checkpoint_unverified};
use crate::merkle::frame::Frame;
use crate::merkle::tile::{self, Fringe, FullTile, TILE_WIDTH, TileKind, TilePath};
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::model::{Digest, LeafIndex, LogOrigin, TreeSize};
use crate::verify::walk::{Spot, Step, Walk};
use crate::verify::{Form, Source};

/// Where one segment ends and the next begins, and everything that came before.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// The first entry of the later segment, which is its name.
    pub first: LeafIndex,
    /// Of the tree before it.
    pub edge: RightEdge,
    /// Closing digest of the last frame before it.
    pub chain: Digest,
    /// Of the entries before it.
    pub fold: Fold,
}

pub struct Session {
    shared: Arc<Shared>,
    root: PathBuf,
    tiles: Tiles,
    index: Arc<Index>,
    fringe: Fringe,
    /// The entries of the last bundle, which is not full, and what they are found by.
    entries: Vec<Bytes>,
    seen: Vec<Seen>,
    /// After the last full bundle. Durable when it is written to the index.
    position: Position,
    /// The segment of the last frame.
    segment: LeafIndex,
    full: Option<Arc<FullSegments>>,
    rows: Rows,
    unsynced: Unsynced,
    /// Full bundles since the durable position.
    unsynced_bundles: usize,
    synced_at: Moment,
    deadline: Deadline,
}

impl Session {
    /// Goes on from the durable position. Without one, nothing that was derived earlier counts.
    pub fn resume(
        shared: Arc<Shared>,
        root: &Path,
        origin: &LogOrigin,
        full: Option<Arc<FullSegments>>,
    ) -> Result<Self, Halt> {
        let tiles = Tiles::new(root);
        let index = Index::open(&root.join(INDEX_FILE))?;
        let position = match index.position()? {
            Some(position) => position,
            None => {
                if tiles.clear().map_err(Halt::io("old tiles cannot be removed"))? {
                    tracing::warn!("there are tiles without an index: both are made again from the frames");
                }
                let start = Position::at_start(origin);
                index.move_to(&mut Rows::default(), &start)?;
                start
            }
        };
        let fringe = restore(&tiles, position.size)?;
        if fringe.root() != position.root {
            return Err(Halt::Unfit("the tiles do not give the root that the index names".into()));
        }
        let synced_at = shared.clock.monotonic();
        let segment = position.segment;
        Ok(Self {
            shared,
            root: root.to_owned(),
            tiles,
            index: Arc::new(index),
            fringe,
            entries: Vec::new(),
            seen: Vec::new(),
            position,
            segment,
            full,
            rows: Rows::default(),
            unsynced: Unsynced::default(),
            unsynced_bundles: 0,
            synced_at,
            deadline: Deadline::default(),
        })
    }

    /// The frames from the position on.
    pub fn walk<'s, S: Source + ?Sized>(&self, source: &'s S) -> Result<Frames<'s, S>, Halt> {
        let Position { segment, offset, first, chain, .. } = self.position;
        let mut frames = Frames { source, walk: None, next: Next { segment, offset, first, chain } };
        frames.on_disk()?;
        Ok(frames)
    }

    /// Follows the log until the feed ends.
    pub fn follow<S: Source + ?Sized>(&mut self, source: &S) -> Result<(), Halt> {
        let mut walk = self.walk(source)?;
        let shared = Arc::clone(&self.shared);
        shared.archive.begin();
        loop {
            let quiet = (self.unsynced_bundles > 0).then_some(SYNC_INTERVAL);
            match shared.archive.next(quiet) {
                Order::Follow(checkpoint) => {
                    if self.follow_to(&mut walk, checkpoint)? {
                        // Not woken again at once: at full load a pass takes what came meanwhile.
                        shared.archive.pause(PASS_INTERVAL);
                    }
                }
                Order::Quiet => self.sync()?,
                Order::End(End::Now) => return Ok(()),
                Order::End(End::CatchUp) => return self.finish(&mut walk),
            }
        }
    }

    /// The last checkpoint, as far as there is time, and what no full tile holds.
    fn finish<S: Source + ?Sized>(&mut self, walk: &mut Frames<'_, S>) -> Result<(), Halt> {
        let shared = Arc::clone(&self.shared);
        let Some(checkpoint) = shared.archive.newest() else { return Ok(()) };
        if self.follow_to(walk, checkpoint)? {
            self.write_partial_tiles()?;
        }
        self.sync()
    }

    /// Archives the frames up to this checkpoint and publishes it. False if the end came first.
    pub fn follow_to<S: Source + ?Sized>(
        &mut self,
        walk: &mut Frames<'_, S>,
        note: Arc<str>,
    ) -> Result<bool, Halt> {
        let Ok(checkpoint) = parse_checkpoint_unverified(note.as_bytes()) else {
            return Err(Halt::Unfit("the committer's checkpoint is none".into()));
        };
        if checkpoint.size < self.fringe.size() {
            return Err(Halt::Unfit("the archive is ahead of the log".into()));
        }
        while self.fringe.size() < checkpoint.size {
            if self.deadline.has_passed(&self.shared) {
                return Ok(false);
            }
            self.step(walk, checkpoint.size)?;
            if self.rows.bundles >= limits::ARCHIVE_ROWS_BUNDLES_MAX {
                self.index.add(&mut self.rows)?;
            }
            if self.unsynced_bundles >= limits::ARCHIVE_SYNC_BUNDLES_MAX {
                self.sync()?;
            }
        }
        if self.fringe.root() != checkpoint.root {
            return Err(Halt::Unfit("the archive has another root than was signed".into()));
        }
        self.publish(note, &checkpoint)?;
        if self.unsynced_bundles > 0 && self.since_sync() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(true)
    }

    /// Archives the next frame, which is there: it was signed.
    fn step<S: Source + ?Sized>(&mut self, frames: &mut Frames<'_, S>, signed: TreeSize) -> Result<(), Halt> {
        if let Some(written) = self.shared.archive.frame_at(self.fringe.size()) {
            frames.pass(&written);
            return self.add_written(written);
        }
        let unreadable = || Halt::io("the frames cannot be read");
        let walk = frames.on_disk()?;
        let chain = walk.chain();
        if let Step::Frame(frame, spot) = walk.step().map_err(unreadable())? {
            return self.add_frame(&frame, spot, chain);
        }
        // The segments that the walk knew of are at their end: a later one is there.
        walk.look_again().map_err(unreadable())?;
        match walk.step().map_err(unreadable())? {
            Step::Frame(frame, spot) => self.add_frame(&frame, spot, chain),
            Step::End(_) => Err(Halt::Short { signed: signed.0, found: self.fringe.size().0 }),
            Step::Damaged(damage) => Err(Halt::Damaged(damage)),
        }
    }

    /// A frame as it was written, with the hashes that were signed.
    fn add_written(&mut self, frame: Written) -> Result<(), Halt> {
        let Written { first, leaves, root, spot, end: _, previous, chain: _ } = frame;
        self.begin_frame(first, spot, previous)?;
        let archived = self.archived_of(first);
        for (entry, hash) in leaves.into_iter().skip(archived) {
            self.add_entry(entry.into(), hash, &Place { spot, first, previous })?;
        }
        self.end_frame(spot, root)
    }

    fn add_frame(&mut self, frame: &Frame<'_>, spot: Spot, previous: Digest) -> Result<(), Halt> {
        if let Some(full) = &self.full {
            full.frame(frame);
        }
        let first = frame.first;
        self.begin_frame(first, spot, previous)?;
        let archived = self.archived_of(first);
        for entry in frame.entries.iter().skip(archived) {
            let hash = leaf_hash(entry);
            self.add_entry(Bytes::copy_from_slice(entry), hash, &Place { spot, first, previous })?;
        }
        self.end_frame(spot, frame.root)
    }

    fn begin_frame(&mut self, first: LeafIndex, spot: Spot, previous: Digest) -> Result<(), Halt> {
        if spot.segment != self.segment {
            self.passed_segment(&self.boundary(first, previous)?);
            self.segment = spot.segment;
        }
        Ok(())
    }

    /// How many leaves of the frame are archived already.
    fn archived_of(&self, first: LeafIndex) -> usize {
        self.fringe.size().0.saturating_sub(first.0) as usize
    }

    fn end_frame(&self, spot: Spot, root: Digest) -> Result<(), Halt> {
        if self.fringe.root() == root {
            Ok(())
        } else {
            Err(Halt::Unfit(format!("{spot}: the archive has another root than the frame")))
        }
    }

    fn add_entry(&mut self, entry: Bytes, hash: Digest, place: &Place) -> Result<(), Halt> {
        let index = self.fringe.size();
        let seen = Seen::of(&entry).map_err(|e| Halt::Unfit(format!("entry {index} cannot be read: {e}")))?;
        if let Some(full) = &self.full {
            full.entry(LeafIndex(index.0), &seen.glance);
        }
        self.entries.push(entry);
        self.seen.push(seen);
        let full = self.fringe.append(hash);
        if !full.is_empty() {
            self.add_tiles(&full)?;
            self.position.segment = place.spot.segment;
            self.position.offset = place.spot.offset;
            self.position.first = place.first;
            self.position.chain = place.previous;
        }
        Ok(())
    }

    /// Writes what became full, and moves the position behind it.
    fn add_tiles(&mut self, full: &[FullTile]) -> Result<(), Halt> {
        let mut bundle = Vec::with_capacity(self.entries.iter().map(|e| 2 + e.len()).sum());
        self.entries.iter().for_each(|entry| tile::push_entry(&mut bundle, entry));
        let number = self.position.size.0 / TILE_WIDTH as u64;
        self.put(&TilePath::entries(number), &bundle)?;
        for FullTile { level, number, hashes } in full {
            self.put(&TilePath::hashes(*level, *number), &tile::hash_bytes(hashes))?;
        }
        apply(&mut self.position.fold, self.position.size, &self.seen)?;
        self.position.size = self.fringe.size();
        self.position.root = self.fringe.root();
        let mut times = None;
        for seen in self.seen.drain(..) {
            self.rows.add_terms(number, seen.terms());
            if let Some(ms) = seen.time.map(|time| time.unix_ms()) {
                let (least, greatest) = times.unwrap_or((ms, ms));
                times = Some((ms.min(least), ms.max(greatest)));
            }
        }
        self.rows.add_bundle(number, times);
        self.entries.clear();
        self.unsynced_bundles += 1;
        Ok(())
    }

    fn put(&mut self, path: &TilePath, bytes: &[u8]) -> Result<(), Halt> {
        let put = self.tiles.put(path, bytes, &mut self.unsynced);
        put.map_err(|source| Halt::Io { what: format!("tile/{path} was not written"), source })
    }

    /// The fold of everything archived: of the full bundles, and of what is in none yet.
    fn fold(&self) -> Result<Fold, Halt> {
        let mut fold = self.position.fold.clone();
        apply(&mut fold, self.position.size, &self.seen)?;
        Ok(fold)
    }

    /// Everything archived so far ends where this segment begins.
    pub fn boundary(&self, first: LeafIndex, chain: Digest) -> Result<Boundary, Halt> {
        Ok(Boundary { first, edge: self.fringe.edge(), chain, fold: self.fold()? })
    }

    /// Called when the walk goes over into a later segment, before anything of it is archived. After a crash it may
    /// be called again for the same boundary; from the first on, when all is made again.
    fn passed_segment(&self, boundary: &Boundary) {
        let Boundary { first, edge, chain, fold } = boundary;
        let (root, open) = (edge.root(), fold.open.len());
        tracing::debug!(%first, %root, %chain, open, "a segment is full");
        if let Some(full) = &self.full {
            full.passed(self.segment, boundary);
        }
    }

    fn publish(&mut self, note: Arc<str>, checkpoint: &Checkpoint) -> Result<(), Halt> {
        // Rows before the snapshot: whoever sees a full bundle finds what is in it.
        self.index.add(&mut self.rows)?;
        let snapshot = Snapshot::new(note, checkpoint, &self.fringe, &self.entries, Arc::clone(&self.index));
        // Counted first: whoever was woken by the snapshot finds no lag.
        Counters::set(&self.shared.counters.archived, checkpoint.size.0);
        self.shared.archive.publish(snapshot);
        Ok(())
    }

    fn since_sync(&self) -> Duration {
        self.shared.clock.monotonic().since(self.synced_at)
    }

    /// Tiles first, then the position that says that they are there.
    pub fn sync(&mut self) -> Result<(), Halt> {
        self.unsynced.sync(&self.root).map_err(Halt::io("tiles were not made durable"))?;
        if self.unsynced_bundles > 0 {
            self.index.move_to(&mut self.rows, &self.position)?;
        }
        self.unsynced_bundles = 0;
        self.synced_at = self.shared.clock.monotonic();
        Ok(())
    }

    pub fn write_partial_tiles(&mut self) -> Result<(), Halt> {
        for path in tile::partial_tiles(self.fringe.size()) {
            let bytes = match path.kind {
                TileKind::Hashes { level } => tile::hash_bytes(self.fringe.level(level)),
                TileKind::Entries => {
                    let mut bundle = Vec::new();
                    self.entries.iter().for_each(|entry| tile::push_entry(&mut bundle, entry));
                    bundle
                }
            };
            self.put(&path, &bytes)?;
        }
        Ok(())
    }
}

/// The frame that an entry stands in.
struct Place {
    spot: Spot,
    first: LeafIndex,
    /// Closing digest of the frame before it.
    previous: Digest,
}

/// The frames on disk. Those that were handed over are passed by without being read.
pub struct Frames<'s, S: Source + ?Sized> {
    source: &'s S,
    /// `None` if frames were passed by since it was used.
    walk: Option<Walk<'s, S>>,
    next: Next,
}

/// Where to go on after what was passed by.
struct Next {
    segment: LeafIndex,
    offset: u64,
    first: LeafIndex,
    chain: Digest,
}

impl<'s, S: Source + ?Sized> Frames<'s, S> {
    fn pass(&mut self, frame: &Written) {
        let Written { spot, end, chain, .. } = *frame;
        self.walk = None;
        self.next = Next { segment: spot.segment, offset: end, first: frame.next(), chain };
    }

    pub fn on_disk(&mut self) -> Result<&mut Walk<'s, S>, Halt> {
        let walk = match self.walk.take() {
            Some(walk) => walk,
            None => {
                let Next { segment, offset, first, chain } = self.next;
                let spot = Spot { segment, offset, form: Form::Raw };
                Walk::resume(self.source, spot, first, chain).map_err(|error| match error.kind() {
                    // The index is of a longer log, or of another.
                    io::ErrorKind::NotFound => Halt::Unfit(error.to_string()),
                    _ => Halt::io("the frames cannot be read")(error),
                })?
            }
        };
        Ok(self.walk.insert(walk))
    }
}

impl Drop for Session {
    /// Whoever still holds a snapshot of this session finds the index closed, and never an older one.
    fn drop(&mut self) {
        self.index.close();
    }
}

/// How long the last frames may take once the feed has ended.
#[derive(Default)]
struct Deadline {
    since: Option<Moment>,
}

impl Deadline {
    fn has_passed(&mut self, shared: &Shared) -> bool {
        match shared.archive.ending() {
            None => false,
            Some(End::Now) => true,
            Some(End::CatchUp) => {
                let now = shared.clock.monotonic();
                now.since(*self.since.get_or_insert(now))
                    > Duration::from_millis(limits::ARCHIVE_CLOSE_MS_MAX)
            }
        }
    }
}

/// The entries after those of the fold.
fn apply(fold: &mut Fold, size: TreeSize, seen: &[Seen]) -> Result<(), Halt> {
    for (index, seen) in (size.0..).map(LeafIndex).zip(seen) {
        fold.apply(index, &seen.glance).map_err(|why| Halt::Unfit(format!("entry {index}: {why}")))?;
    }
    Ok(())
}

const SYNC_INTERVAL: Duration = Duration::from_millis(limits::ARCHIVE_SYNC_INTERVAL_MS);
const PASS_INTERVAL: Duration = Duration::from_millis(limits::ARCHIVE_PASS_INTERVAL_MS);

/// The hashes that are in no full tile, made again from the full tiles below them.
fn restore(tiles: &Tiles, size: TreeSize) -> Result<Fringe, Halt> {
    let unfit = |why: &dyn std::fmt::Display| Halt::Unfit(why.to_string());
    let mut levels = vec![Vec::new()];
    for level in 1u8.. {
        let hashes = tile::complete(size, level);
        if hashes == 0 {
            break;
        }
        let first = hashes - hashes % TILE_WIDTH as u64;
        let mut last_tile = Vec::new();
        for number in first..hashes {
            let below = match tiles.read(&TilePath::hashes(level - 1, number)) {
                Ok(below) => below,
                Err(error) if error.is_unfit() => return Err(unfit(&error)),
                Err(TileError::Io { path, source }) => {
                    return Err(Halt::Io { what: format!("tile/{path} cannot be read"), source });
                }
                Err(error @ TileError::Shape { .. }) => return Err(unfit(&error)),
            };
            let below = tile::parse_hashes(&below).expect("a tile that was read holds whole hashes");
            last_tile.push(tile::subtree_root(&below));
        }
        levels.push(last_tile);
    }
    Fringe::resume(size, &levels)
        .ok_or_else(|| Halt::Unfit(format!("the index names {size} archived leaves")))
}
