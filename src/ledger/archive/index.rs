//! The index: which bundles of 256 entries hold what is looked for. A redb file, rebuilt from the frames if lost.
//!
//! | table | row | means |
//! |---|---|---|
//! | `terms` | term, bundle `u64be` | an entry in this bundle has the term |
//! | `times` | level, span | the least and the greatest time in the span, unix ms; of level 0 it is one bundle, of each higher level 64 spans of the one below |
//! | `state` | `position` | how far the archive is durable, and what is needed to go on there |
//!
//! A term is a letter and bytes: `i` a receipt id's ms `u48be`, `a` an actor's id, `k` the first 16 bytes of an
//! idempotency key's SHA-256, `o` the bundle `u64be` of the decision that an outcome is of. Candidates are read and
//! compared entry by entry, so a term may say too much, and never too little.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::tiles::is_in_the_way;
use crate::ledger::recovery::Fold;
use crate::limits;
use crate::merkle::frame;
use crate::merkle::tile::TILE_WIDTH;
use crate::merkle::tree::empty_root;
use crate::model::{Digest, LeafIndex, LogOrigin, ReceiptId, TreeSize};

const TERMS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("terms");
const TIMES: TableDefinition<'_, (u32, u64), (u64, u64)> = TableDefinition::new("times");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const POSITION: &str = "position";
/// Another number, another form of the rows: the index is made again.
const FORM: u32 = 2;
const FILE_MODE: u32 = 0o640;
/// 64 spans make one of the next level. One of the highest level is 4 billion leaves.
const SPAN_BITS: u32 = 6;
const SPAN_LEVEL_MAX: u32 = 4;

/// The index cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{0}")]
    Storage(#[source] Box<redb::Error>),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its position cannot be read: {0}")]
    Position(#[from] serde_json::Error),
    #[error("it is of another form or version")]
    OtherForm,
    /// The archiver that had it open has ended.
    #[error("it is closed")]
    Closed,
}

fn failed<E: Into<redb::Error>>(error: E) -> IndexError {
    IndexError::Storage(Box::new(error.into()))
}

impl IndexError {
    /// Whether the file is not what it should be; else it may do to try again.
    pub fn is_unfit(&self) -> bool {
        match self {
            Self::Storage(error) => match &**error {
                redb::Error::Io(e) => {
                    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
                        || is_in_the_way(e)
                }
                redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                    false
                }
                // Not ours to name all of: whatever else is wrong with a file that can be read, a new one has not.
                _ => true,
            },
            Self::Position(_) | Self::OtherForm => true,
            // A link to nothing is not found, where a file would have been made.
            Self::Io(e) => is_in_the_way(e) || e.kind() == io::ErrorKind::NotFound,
            Self::Closed => false,
        }
    }
}

/// What an entry can be looked up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term(Vec<u8>);

impl Term {
    /// Receipt ids begin with the time at which they were made.
    pub fn id(id: &ReceiptId) -> Self {
        Self::new(b'i', &id.as_bytes()[..6])
    }

    pub fn actor(id: &str) -> Self {
        Self::new(b'a', id.as_bytes())
    }

    pub fn key(digest: &[u8]) -> Self {
        Self::new(b'k', digest)
    }

    /// Outcomes of decisions in the bundle of this one.
    pub fn outcome_of(decision: LeafIndex) -> Self {
        Self::new(b'o', &(decision.0 / TILE_WIDTH as u64).to_be_bytes())
    }

    fn new(kind: u8, value: &[u8]) -> Self {
        Self([&[kind], value].concat())
    }

    fn row(&self, bundle: u64) -> Vec<u8> {
        [self.0.as_slice(), &bundle.to_be_bytes()].concat()
    }
}

/// The rows of some bundles, not yet in the index.
#[derive(Debug, Default)]
pub struct Rows {
    terms: BTreeSet<Vec<u8>>,
    times: Vec<(u64, (u64, u64))>,
    pub bundles: usize,
}

impl Rows {
    pub fn add_terms(&mut self, bundle: u64, terms: impl Iterator<Item = Term>) {
        self.terms.extend(terms.map(|term| term.row(bundle)));
    }

    /// `times` are the least and the greatest in it, unix ms.
    pub fn add_bundle(&mut self, bundle: u64, times: Option<(u64, u64)>) {
        self.times.extend(times.map(|range| (bundle, range)));
        self.bundles += 1;
    }

    /// The times of these bundles, and of every span that they are in.
    fn spans(&self) -> BTreeMap<(u32, u64), (u64, u64)> {
        let mut spans = BTreeMap::new();
        for &(bundle, (least, greatest)) in &self.times {
            for level in 0..=SPAN_LEVEL_MAX {
                let (l, g) = spans.entry((level, bundle >> (level * SPAN_BITS))).or_insert((least, greatest));
                (*l, *g) = ((*l).min(least), (*g).max(greatest));
            }
        }
        spans
    }
}

/// How far the archive is, and what is needed to go on: the frame that holds the next leaf, and what came before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    form: u32,
    /// Archived leaves, a multiple of 256.
    pub size: TreeSize,
    /// Of the tree of this size.
    pub root: Digest,
    /// Of these leaves.
    pub fold: Fold,
    /// Where the frame lies, its first entry, and the closing digest of the one before it.
    pub segment: LeafIndex,
    pub offset: u64,
    pub first: LeafIndex,
    pub chain: Digest,
}

impl Position {
    pub fn at_start(origin: &LogOrigin) -> Self {
        Self {
            form: FORM,
            size: TreeSize(0),
            root: empty_root(),
            fold: Fold::default(),
            segment: LeafIndex(0),
            offset: 0,
            first: LeafIndex(0),
            chain: frame::genesis(origin),
        }
    }
}

pub struct Index(RwLock<Option<Database>>);

impl Index {
    /// Opens the file, or makes an empty one.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(limits::INDEX_CACHE_BYTES);
        let database = builder.create_file(file).map_err(failed)?;
        Ok(Self(RwLock::new(Some(database))))
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        // It is open or closed, never half of either.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lookups that run are waited for; later ones find it closed.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// `None` if nothing was ever written.
    pub fn position(&self) -> Result<Option<Position>, IndexError> {
        let guard = self.database();
        let read = guard.as_ref().ok_or(IndexError::Closed)?.begin_read().map_err(failed)?;
        let state = match read.open_table(STATE) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let Some(row) = state.get(POSITION).map_err(failed)? else { return Ok(None) };
        let position: Position = serde_json::from_slice(row.value())?;
        if position.form == FORM { Ok(Some(position)) } else { Err(IndexError::OtherForm) }
    }

    /// Rows that lookups see from now on. Durable with the next position.
    pub fn add(&self, rows: &mut Rows) -> Result<(), IndexError> {
        if rows.bundles == 0 {
            return Ok(());
        }
        self.write(rows, Durability::None, |_| Ok(()))
    }

    /// All rows so far and the position, durable together.
    pub fn move_to(&self, rows: &mut Rows, position: &Position) -> Result<(), IndexError> {
        let text = serde_json::to_vec(position)?;
        self.write(rows, Durability::Immediate, |write| {
            write.open_table(STATE).map_err(failed)?.insert(POSITION, text.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    fn write(
        &self,
        rows: &mut Rows,
        durability: Durability,
        more: impl FnOnce(&WriteTransaction) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let guard = self.database();
        let mut write = guard.as_ref().ok_or(IndexError::Closed)?.begin_write().map_err(failed)?;
        write.set_durability(durability).map_err(failed)?;
        // After a crash the file is opened without being read from end to end.
        write.set_quick_repair(matches!(durability, Durability::Immediate));
        {
            let mut terms = write.open_table(TERMS).map_err(failed)?;
            for row in &rows.terms {
                terms.insert(row.as_slice(), ()).map_err(failed)?;
            }
            let mut times = write.open_table(TIMES).map_err(failed)?;
            for ((level, span), (least, greatest)) in rows.spans() {
                let row = times.get((level, span)).map_err(failed)?.map(|row| row.value());
                // A bundle that is added again is in its spans already.
                let (l, g) = row.unwrap_or((least, greatest));
                times.insert((level, span), (l.min(least), g.max(greatest))).map_err(failed)?;
            }
        }
        more(&write)?;
        write.commit().map_err(failed)?;
        *rows = Rows::default();
        Ok(())
    }

    /// The index as it is now, for one lookup.
    pub fn view(&self) -> Result<View<'_>, IndexError> {
        let guard = self.database();
        let read = guard.as_ref().ok_or(IndexError::Closed)?.begin_read().map_err(failed)?;
        let terms = read.open_table(TERMS).map_err(failed)?;
        let times = read.open_table(TIMES).map_err(failed)?;
        Ok(View { terms, times, _open: guard })
    }
}

/// One state of the index.
pub struct View<'i> {
    terms: ReadOnlyTable<&'static [u8], ()>,
    times: ReadOnlyTable<(u32, u64), (u64, u64)>,
    _open: RwLockReadGuard<'i, Option<Database>>,
}

impl View<'_> {
    /// The first of these bundles with the term.
    pub fn with_term(&self, term: &Term, bundles: Range<u64>) -> Result<Option<u64>, IndexError> {
        if bundles.is_empty() {
            return Ok(None);
        }
        let (first, end) = (term.row(bundles.start), term.row(bundles.end));
        for row in self.terms.range(first.as_slice()..end.as_slice()).map_err(failed)? {
            let (key, ()) = (row.map_err(failed)?.0, ());
            // A longer actor id that begins with this one stands elsewhere: bundle numbers begin with a zero byte.
            let key = key.value();
            if key.len() == first.len()
                && let Some(bundle) = key.last_chunk()
            {
                return Ok(Some(u64::from_be_bytes(*bundle)));
            }
        }
        Ok(None)
    }

    /// The first of these bundles in which an entry may have a time from `since` to `until`, unix ms, both included.
    pub fn with_time(
        &self,
        (since, until): (u64, u64),
        bundles: Range<u64>,
    ) -> Result<Option<u64>, IndexError> {
        // A clock may go back, so times are in no order: a span is passed over if nothing in it can fit, and looked into
        // a level lower if something can.
        let (mut at, mut level) = (bundles.start, SPAN_LEVEL_MAX);
        while at < bundles.end {
            level = level.min(at.trailing_zeros() / SPAN_BITS);
            match (self.may_fit((since, until), level, at)?, level) {
                (true, 0) => return Ok(Some(at)),
                (true, _) => level -= 1,
                (false, _) => {
                    at += 1 << (level * SPAN_BITS);
                    level = SPAN_LEVEL_MAX;
                }
            }
        }
        Ok(None)
    }

    /// Whether a lookup of this time finds the bundle: no span that it is in is passed over.
    pub fn has_time(&self, ms: u64, bundle: u64) -> Result<bool, IndexError> {
        for level in 0..=SPAN_LEVEL_MAX {
            if !self.may_fit((ms, ms), level, bundle)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the span of this level that the bundle is in may have such a time.
    fn may_fit(&self, (since, until): (u64, u64), level: u32, bundle: u64) -> Result<bool, IndexError> {
        let row = self.times.get((level, bundle >> (level * SPAN_BITS))).map_err(failed)?;
        Ok(row.map(|row| row.value()).is_some_and(|(least, greatest)| least <= until && greatest >= since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An index with these times, one a bundle, added in steps of so many.
    fn index_of(times: &[Option<(u64, u64)>], step: usize) -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().expect("a directory");
        let index = Index::open(&dir.path().join("index.redb")).expect("opens");
        let mut rows = Rows::default();
        for (bundle, range) in times.iter().enumerate() {
            rows.add_bundle(bundle as u64, *range);
            if rows.bundles == step {
                index.add(&mut rows).expect("added");
            }
        }
        index.add(&mut rows).expect("added");
        (dir, index)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_lookup_by_time_finds_what_reading_every_row_would(
            times in prop::collection::vec(prop::option::of((0..500u64, 0..40u64)), 1..400),
            step in 1..90usize,
            asked in prop::collection::vec((0..540u64, 0..60u64, 0..400u64, 0..400u64), 40),
        ) {
            let times: Vec<_> =
                times.into_iter().map(|range| range.map(|(least, more)| (least, least + more))).collect();
            let (_dir, index) = index_of(&times, step);
            let view = index.view().expect("readable");
            for (since, more, from, to) in asked {
                let until = since + more;
                let fits = |bundle: &u64| {
                    let range = times.get(*bundle as usize).copied().flatten();
                    range.is_some_and(|(least, greatest)| least <= until && greatest >= since)
                };
                prop_assert_eq!(
                    view.with_time((since, until), from..to).expect("readable"),
                    (from..to).find(fits)
                );
            }
        }
    }
}
