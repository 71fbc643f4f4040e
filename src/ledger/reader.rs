//! Reading the log: entries, tiles, proofs, lookups. Always as of a [`Snapshot`], whose signed checkpoint covers all
//! that is read; never from the frames, and never in the committer's way.
//!
//! Every call reads at most some files, and blocks while it does: call it off the async threads. What is not as it
//! should be on disk is an error, and nothing is served from it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::archive::{Index, IndexError, Seen, Term, TileError, Tiles, View, key_digest};
use super::evidence::EvidenceReader;
use super::queue::Shared;
use crate::clock::WallTime;
use crate::limits;
use crate::merkle::checkpoint::Checkpoint;
use crate::merkle::proof::{HashReader, Unprovable, prove_inclusion, verify_inclusion};
use crate::merkle::tile::{self, Fringe, TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath};
use crate::merkle::tlog_proof::TlogProof;
use crate::merkle::tree::{empty_root, leaf_hash};
use crate::model::entry::EntryType;
use crate::model::{ActorId, Digest, IdempotencyKey, LeafIndex, ReceiptId, Settled, TreeSize};

/// The log at one signed size. While nothing is archived it is the empty log.
#[derive(Clone)]
pub struct Snapshot {
    checkpoint: Arc<str>,
    size: TreeSize,
    root: Digest,
    /// The hashes in no full tile, lowest level first.
    levels: Vec<Vec<Digest>>,
    /// The entries in no full bundle.
    entries: Vec<Bytes>,
    index: Option<Arc<Index>>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn of_nothing(checkpoint: Arc<str>) -> Self {
        let (levels, entries) = (Vec::new(), Vec::new());
        Self { checkpoint, size: TreeSize(0), root: empty_root(), levels, entries, index: None }
    }

    /// `entries` are those in no full bundle.
    pub(super) fn new(
        note: Arc<str>,
        checkpoint: &Checkpoint,
        fringe: &Fringe,
        entries: &[Bytes],
        index: Arc<Index>,
    ) -> Self {
        assert_eq!((checkpoint.size, checkpoint.root), (fringe.size(), fringe.root()), "one tree");
        let levels = (0..fringe.levels()).map(|level| fringe.level(level).to_vec()).collect();
        let (size, root) = (checkpoint.size, checkpoint.root);
        Self { checkpoint: note, size, root, levels, entries: entries.to_vec(), index: Some(index) }
    }

    /// The signed note of exactly this tree.
    pub fn checkpoint(&self) -> &Arc<str> {
        &self.checkpoint
    }

    pub fn size(&self) -> TreeSize {
        self.size
    }

    pub fn root(&self) -> Digest {
        self.root
    }

    /// A lookup that goes on until it is dropped.
    #[cfg(test)]
    pub(super) fn lookup(&self) -> View<'_> {
        open(self).expect("readable").expect("a full bundle")
    }

    /// Bundles that are full, and so on disk.
    fn full_bundles(&self) -> u64 {
        self.size.0 / TILE_WIDTH as u64
    }
}

/// Nothing can be said now: neither that it is there, nor that it is not.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0}")]
    Tile(#[from] TileError),
    #[error("the index: {0}")]
    Index(#[from] IndexError),
    #[error("there is no leaf {index} in a tree of {size} leaves")]
    OutOfRange { index: LeafIndex, size: TreeSize },
    #[error("what is archived does not give the signed root at entry {index}")]
    OtherRoot { index: LeafIndex },
    #[error("entry {index} of the archive cannot be read")]
    Entry { index: LeafIndex },
    #[error("the frame of entry {index} cannot be read: {source}")]
    Frames { index: LeafIndex, source: std::io::Error },
    #[error("there is no frame of entry {index} where it should be")]
    NoFrame { index: LeafIndex },
}

/// What to look for. Members that are absent exclude nothing.
#[derive(Clone, Debug)]
pub struct Search {
    /// Of decisions and refusals, and of what operators did to the actor.
    pub actor: Option<ActorId>,
    /// Of decisions.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The leaf's time, with this one.
    pub since: Option<WallTime>,
    /// The leaf's time, without this one.
    pub until: Option<WallTime>,
    pub from: LeafIndex,
    pub max: usize,
}

/// What one search gives.
#[derive(Clone, Debug)]
pub struct Found {
    pub leaves: Vec<(LeafIndex, Bytes)>,
    /// Every leaf before it was looked at; the next search goes on here. Not before the end of the snapshot: that was all.
    pub next: LeafIndex,
}

/// Cheap to clone. After the ledger is closed, tiles and entries can still be read, and lookups cannot.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    tiles: Tiles,
    evidence: Arc<EvidenceReader>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("tiles", &self.tiles).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, dir: &Path) -> Self {
        Self { shared, tiles: Tiles::new(dir), evidence: Arc::new(EvidenceReader::new(dir)) }
    }

    /// The newest. Of size 0 until something is archived.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.archive.snapshot()
    }

    /// Told of each newer snapshot; those in between may be skipped.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.archive.subscribe()
    }

    /// The evidence of this digest beside the entry at this index, which must be durable; `None` if there is none in its
    /// frame. Read from the frames, so it needs no snapshot: what is given out has the digest that was asked for.
    pub fn evidence_of(&self, index: LeafIndex, digest: &Digest) -> Result<Option<Bytes>, ReadError> {
        self.evidence.read(index, digest)
    }

    /// Leaves that are durable and cannot be read yet.
    pub fn lag(&self) -> u64 {
        self.shared.counters.read().archive_lag
    }

    /// The entries from this index on: at most `max`, at most [`limits::READ_ENTRIES_MAX`], and no more once they have
    /// [`limits::READ_BYTES_MAX`] bytes. None only if `max` is 0 or the log has none there.
    pub fn entries(&self, at: &Snapshot, from: LeafIndex, max: usize) -> Result<Vec<Bytes>, ReadError> {
        let max = max.min(limits::READ_ENTRIES_MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut next = from.0;
        while next < at.size.0 && found.len() < max && bytes < limits::READ_BYTES_MAX {
            let (bundle, within) = (next / TILE_WIDTH as u64, (next % TILE_WIDTH as u64) as usize);
            for entry in self.bundle(at, bundle)?.into_iter().skip(within) {
                if found.len() == max || bytes >= limits::READ_BYTES_MAX {
                    break;
                }
                bytes += entry.len();
                next += 1;
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// A tile as it is served: full, or of any width that the snapshot has. `None` if it has not that much.
    pub fn tile(&self, at: &Snapshot, path: &TilePath) -> Result<Option<Bytes>, ReadError> {
        let available = path.available(at.size);
        if path.width() > available {
            return Ok(None);
        }
        let bytes = match path.kind {
            TileKind::Hashes { level } => {
                let hashes = self.hashes(at, level, path.number)?;
                tile::hash_bytes(&hashes[..path.width()])
            }
            TileKind::Entries => {
                let mut bundle = Vec::new();
                let entries = self.bundle(at, path.number)?;
                entries.iter().take(path.width()).for_each(|entry| tile::push_entry(&mut bundle, entry));
                bundle
            }
        };
        Ok(Some(bytes.into()))
    }

    /// That the leaf is in the tree of the snapshot's checkpoint. It was verified.
    pub fn proof(&self, at: &Snapshot, index: LeafIndex) -> Result<TlogProof, ReadError> {
        let path = self.prove(&Hashes { reader: self, at, read: RefCell::default() }, index)?;
        Ok(TlogProof { index, path, checkpoint: at.checkpoint.to_string() })
    }

    /// The decision with this id.
    pub fn find(&self, at: &Snapshot, id: ReceiptId) -> Result<Option<(LeafIndex, Bytes)>, ReadError> {
        let text = id.to_string();
        let is_it = |entry: &Bytes, seen: &mut dyn FnMut() -> Result<Seen, ReadError>| {
            // Most entries are passed over without being parsed.
            Ok(contains(entry, &text) && seen()?.glance.id == Some(id))
        };
        self.first_with(at, &Term::id(&id), 0, is_it)
    }

    /// The outcome of the decision at this index, if it has one yet: the gateway's own.
    pub fn outcome(
        &self,
        at: &Snapshot,
        decision: LeafIndex,
    ) -> Result<Option<(LeafIndex, Bytes)>, ReadError> {
        self.outcome_by(at, decision, |by| by == Settled::Gateway)
    }

    /// What an operator or the upstream's own log said later, where the outcome is `indeterminate`.
    pub fn attested_outcome(
        &self,
        at: &Snapshot,
        decision: LeafIndex,
    ) -> Result<Option<(LeafIndex, Bytes)>, ReadError> {
        self.outcome_by(at, decision, |by| by != Settled::Gateway)
    }

    fn outcome_by(
        &self,
        at: &Snapshot,
        decision: LeafIndex,
        is_by: impl Fn(Settled) -> bool,
    ) -> Result<Option<(LeafIndex, Bytes)>, ReadError> {
        let text = format!("\"decision_index\":{decision},");
        let is_it = |entry: &Bytes, seen: &mut dyn FnMut() -> Result<Seen, ReadError>| {
            if !contains(entry, &text) {
                return Ok(false);
            }
            let glance = seen()?.glance;
            Ok(glance.entry_type == EntryType::Outcome
                && glance.decision_index == Some(decision)
                && is_by(glance.attestation.unwrap_or(Settled::Gateway)))
        };
        // An outcome is later than its decision.
        self.first_with(at, &Term::outcome_of(decision), decision.0 / TILE_WIDTH as u64, is_it)
    }

    /// Leaves that have all that is asked for, in the order of the log: at most `max`, at most what [`Reader::entries`]
    /// gives at once, and those of at most [`limits::SEARCH_BUNDLES_MAX`] bundles, however few these are.
    pub fn search(&self, at: &Snapshot, query: &Search) -> Result<Found, ReadError> {
        let max = query.max.min(limits::READ_ENTRIES_MAX);
        let (mut leaves, mut bytes) = (Vec::new(), 0);
        let end = at.size.0.max(query.from.0);
        let mut bundle = query.from.0 / TILE_WIDTH as u64;
        for _ in 0..limits::SEARCH_BUNDLES_MAX {
            let Some(candidate) = self.candidate(at, query, bundle)? else {
                return Ok(Found { leaves, next: LeafIndex(end) });
            };
            let first = candidate * TILE_WIDTH as u64;
            for (index, entry) in (first..).map(LeafIndex).zip(self.bundle(at, candidate)?) {
                if index < query.from {
                    continue;
                }
                if leaves.len() >= max || bytes >= limits::READ_BYTES_MAX {
                    return Ok(Found { leaves, next: index });
                }
                if query.asks_for(&parse(index, &entry)?) {
                    bytes += entry.len();
                    leaves.push((index, entry));
                }
            }
            bundle = candidate + 1;
        }
        Ok(Found { leaves, next: LeafIndex((bundle * TILE_WIDTH as u64).min(end)) })
    }

    /// The first bundle from this one on that may hold what is asked for; the last one is always looked at.
    fn candidate(&self, at: &Snapshot, query: &Search, from: u64) -> Result<Option<u64>, ReadError> {
        let full = at.full_bundles();
        let mut from = from;
        if from < full
            && let Some(view) = open(at)?
        {
            let terms = query.terms();
            let times = query.times();
            // Each question moves the candidate forward until all agree.
            let mut agreed = 0;
            let asked = terms.len() + usize::from(times.is_some());
            for question in (0..asked).cycle() {
                let next = match terms.get(question) {
                    Some(term) => view.with_term(term, from..full)?,
                    None => times.map_or(Ok(Some(from)), |times| view.with_time(times, from..full))?,
                };
                agreed = if next == Some(from) { agreed + 1 } else { 1 };
                from = next.unwrap_or(full);
                if agreed == asked || from == full {
                    break;
                }
            }
        }
        let last = at.size.0.div_ceil(TILE_WIDTH as u64);
        Ok((from < last).then_some(from))
    }

    /// The first entry that is it, in the bundles with the term and in the last one.
    fn first_with(
        &self,
        at: &Snapshot,
        term: &Term,
        from: u64,
        is_it: impl Fn(&Bytes, &mut dyn FnMut() -> Result<Seen, ReadError>) -> Result<bool, ReadError>,
    ) -> Result<Option<(LeafIndex, Bytes)>, ReadError> {
        let look = |bundle: u64| {
            let first = bundle * TILE_WIDTH as u64;
            for (index, entry) in (first..).map(LeafIndex).zip(self.bundle(at, bundle)?) {
                if is_it(&entry, &mut || parse(index, &entry))? {
                    return Ok(Some((index, entry)));
                }
            }
            Ok::<_, ReadError>(None)
        };
        let full = at.full_bundles();
        if let Some(view) = open(at)? {
            let mut next = from;
            while let Some(bundle) = view.with_term(term, next..full)? {
                if let Some(found) = look(bundle)? {
                    return Ok(Some(found));
                }
                next = bundle + 1;
            }
        }
        if at.entries.is_empty() { Ok(None) } else { look(full) }
    }

    /// The entries of a bundle, as many as the snapshot has. Whoever can write files could put others there: what is
    /// given out is what was signed.
    fn bundle(&self, at: &Snapshot, number: u64) -> Result<Vec<Bytes>, ReadError> {
        if number >= at.full_bundles() {
            return Ok(at.entries.clone());
        }
        let path = TilePath::entries(number);
        let bytes = Bytes::from(self.tiles.read(&path)?);
        let ranges = tile::entry_ranges(&bytes).ok_or(TileError::Shape { path })?;
        let entries: Vec<Bytes> = ranges.into_iter().map(|range| bytes.slice(range)).collect();
        // The path of one of them goes through the hashes of all the others.
        let index = LeafIndex(number * TILE_WIDTH as u64);
        let hashes = entries.iter().map(|entry| leaf_hash(entry)).collect();
        self.prove(&Hashes::with_tile(self, at, (0, number), hashes), index)?;
        Ok(entries)
    }

    /// The path of this leaf to the signed root. The tiles are files like any other: what they give is compared with
    /// what was signed.
    fn prove(&self, hashes: &Hashes<'_>, index: LeafIndex) -> Result<Vec<Digest>, ReadError> {
        let Snapshot { size, root, .. } = *hashes.at;
        let path = prove_inclusion(hashes, index, size).map_err(|unprovable| match unprovable {
            Unprovable::OutOfRange => ReadError::OutOfRange { index, size },
            Unprovable::Unreadable(error) => error,
        })?;
        let leaf = hashes.subtree(0, index.0)?;
        verify_inclusion(leaf, index, size, &path, root).map_err(|_| ReadError::OtherRoot { index })?;
        Ok(path)
    }

    /// The hashes of a tile, as many as the snapshot has.
    fn hashes(&self, at: &Snapshot, level: u8, number: u64) -> Result<Vec<Digest>, ReadError> {
        let path = TilePath::hashes(level, number);
        if path.available(at.size) < TILE_WIDTH {
            return Ok(at.levels.get(usize::from(level)).cloned().unwrap_or_default());
        }
        let bytes = self.tiles.read(&path)?;
        tile::parse_hashes(&bytes).ok_or_else(|| TileError::Shape { path }.into())
    }
}

impl Search {
    /// Everything from this index on.
    pub fn from(from: LeafIndex, max: usize) -> Self {
        Self { actor: None, idempotency_key: None, since: None, until: None, from, max }
    }

    fn terms(&self) -> Vec<Term> {
        let key = self.idempotency_key.as_ref().map(|key| Term::key(&key_digest(key.as_str())));
        let actor = self.actor.as_ref().map(|actor| Term::actor(actor.as_str()));
        key.into_iter().chain(actor).collect()
    }

    /// Unix ms, both included: the index is coarser than the question.
    fn times(&self) -> Option<(u64, u64)> {
        let bounded = self.since.is_some() || self.until.is_some();
        bounded.then(|| {
            (self.since.map_or(0, WallTime::unix_ms), self.until.map_or(u64::MAX, WallTime::unix_ms))
        })
    }

    fn asks_for(&self, seen: &Seen) -> bool {
        let key = self.idempotency_key.as_ref().map(|key| key_digest(key.as_str()));
        self.actor.as_ref().is_none_or(|actor| seen.actor.as_deref() == Some(actor.as_str()))
            && key.is_none_or(|key| seen.key == Some(key))
            && self.since.is_none_or(|since| seen.time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| seen.time.is_some_and(|time| time < until))
    }
}

/// The index as of now, which holds all that the snapshot has in full bundles. `None` for the empty log.
fn open(at: &Snapshot) -> Result<Option<View<'_>>, ReadError> {
    match &at.index {
        Some(index) if at.full_bundles() > 0 => Ok(Some(index.view()?)),
        Some(_) | None => Ok(None),
    }
}

fn parse(index: LeafIndex, entry: &[u8]) -> Result<Seen, ReadError> {
    Seen::of(entry).map_err(|_| ReadError::Entry { index })
}

fn contains(entry: &[u8], text: &str) -> bool {
    std::str::from_utf8(entry).is_ok_and(|entry| entry.contains(text))
}

/// The hash reader of one proof: each tile is read once.
struct Hashes<'r> {
    reader: &'r Reader,
    at: &'r Snapshot,
    read: RefCell<HashMap<(u8, u64), Vec<Digest>>>,
}

impl<'r> Hashes<'r> {
    /// With the hashes of one tile, by level and number, which is not read.
    fn with_tile(reader: &'r Reader, at: &'r Snapshot, tile: (u8, u64), hashes: Vec<Digest>) -> Self {
        Self { reader, at, read: RefCell::new(HashMap::from([(tile, hashes)])) }
    }
}

impl HashReader for Hashes<'_> {
    type Error = ReadError;

    fn subtree(&self, level: u32, position: u64) -> Result<Digest, ReadError> {
        let (tile_level, within) = ((level / TILE_HEIGHT) as u8, level % TILE_HEIGHT);
        // In hashes of the tile's level.
        let first = position << within;
        let number = first / TILE_WIDTH as u64;
        let start = (first % TILE_WIDTH as u64) as usize;
        let range: Range<usize> = start..start + (1 << within);
        let mut read = self.read.borrow_mut();
        let hashes = match read.entry((tile_level, number)) {
            std::collections::hash_map::Entry::Occupied(tile) => tile.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(self.reader.hashes(self.at, tile_level, number)?)
            }
        };
        let parts = hashes.get(range).ok_or(ReadError::OtherRoot { index: LeafIndex(position << level) })?;
        Ok(tile::subtree_root(parts))
    }
}
