//! C2SP tlog-tiles: the tree as tiles of 256 hashes, and the entries in bundles of 256.
//!
//! [`TilePath`] is the one spelling of a tile's name, `0/x001/067` or `entries/x001/067.p/112`. [`Fringe`] is what
//! of a growing tree is in no full tile yet; appending to it gives the tiles that became full. Tile `n` of level `l`
//! holds the roots of the subtrees of `256^l` leaves from leaf `n * 256^(l+1)` on.

use std::fmt;
use std::num::NonZeroU8;
use std::ops::Range;
use std::str::FromStr;

use super::tree::{RightEdge, node_hash};
use crate::limits;
use crate::model::{Digest, TreeSize};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: usize = 256;
/// Levels of subtrees that one tile spans: 2^8 = 256.
pub const TILE_HEIGHT: u32 = 8;
pub const HASH_BYTES: usize = 32;
pub const FULL_TILE_BYTES: usize = TILE_WIDTH * HASH_BYTES;
/// The largest bundle there can be.
pub const BUNDLE_BYTES_MAX: usize = TILE_WIDTH * (2 + limits::ENTRY_BYTES_MAX);
/// C2SP: a level has at most two digits, of which 64-bit trees use the first eight.
const LEVEL_MAX: u8 = 63;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of subtrees of `256^level` leaves.
    Hashes { level: u8 },
    /// Entries, each `u16be length, bytes`.
    Entries,
}

/// The name of a tile, below `tile/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    pub kind: TileKind,
    pub number: u64,
    /// Only the first so many, of a tile that is or was the last of its level.
    pub partial: Option<NonZeroU8>,
}

/// The text is no tile's name, or not the one spelling of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `<level>/<number>` or `entries/<number>`, numbers as in `x001/067`, `.p/<width>` for partial tiles"
)]
pub struct NoTilePath;

impl TilePath {
    pub const fn hashes(level: u8, number: u64) -> Self {
        Self { kind: TileKind::Hashes { level }, number, partial: None }
    }

    pub const fn entries(number: u64) -> Self {
        Self { kind: TileKind::Entries, number, partial: None }
    }

    /// The same tile, of this width. 256 is the full one.
    pub fn with_width(self, width: usize) -> Option<Self> {
        match width {
            TILE_WIDTH => Some(Self { partial: None, ..self }),
            width => {
                let partial = NonZeroU8::new(u8::try_from(width).ok()?)?;
                Some(Self { partial: Some(partial), ..self })
            }
        }
    }

    /// Hashes or entries that a tile of this name holds.
    pub fn width(&self) -> usize {
        self.partial.map_or(TILE_WIDTH, |w| usize::from(w.get()))
    }

    /// How much of this tile a tree of this size has: 0 to 256.
    pub fn available(&self, size: TreeSize) -> usize {
        let level = match self.kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let hashes = complete(size, level);
        let Some(start) = self.number.checked_mul(TILE_WIDTH as u64) else { return 0 };
        hashes.saturating_sub(start).min(TILE_WIDTH as u64) as usize
    }
}

/// Complete subtrees of `256^level` leaves in a tree of this size: the hashes of that level.
pub fn complete(size: TreeSize, level: u8) -> u64 {
    size.0.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0)
}

/// The tiles of a tree that are not full, none of them empty.
pub fn partial_tiles(size: TreeSize) -> Vec<TilePath> {
    let of = |path: TilePath, hashes: u64| {
        let path = TilePath { number: hashes / TILE_WIDTH as u64, ..path };
        path.with_width((hashes % TILE_WIDTH as u64) as usize)
    };
    let levels = (0..=LEVEL_MAX).map_while(|level| {
        let hashes = complete(size, level);
        (hashes > 0).then_some((TilePath::hashes(level, 0), hashes))
    });
    let bundle = (TilePath::entries(0), size.0);
    levels.chain([bundle]).filter_map(|(path, hashes)| of(path, hashes)).collect()
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "{level}/")?,
            TileKind::Entries => f.write_str("entries/")?,
        }
        let mut groups = vec![self.number % 1_000];
        let mut rest = self.number / 1_000;
        while rest > 0 {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for (place, group) in groups.iter().enumerate().rev() {
            if place > 0 {
                write!(f, "x{group:03}/")?;
            } else {
                write!(f, "{group:03}")?;
            }
        }
        self.partial.map_or(Ok(()), |width| write!(f, ".p/{width}"))
    }
}

impl FromStr for TilePath {
    type Err = NoTilePath;

    fn from_str(text: &str) -> Result<Self, NoTilePath> {
        let read = || {
            let (kind, rest) = text.split_once('/')?;
            let kind = match kind {
                "entries" => TileKind::Entries,
                level => TileKind::Hashes { level: level.parse().ok().filter(|l| *l <= LEVEL_MAX)? },
            };
            let (number, partial) = match rest.split_once(".p/") {
                Some((number, width)) => (number, Some(width.parse().ok()?)),
                None => (rest, None),
            };
            let number = number.split('/').try_fold(0u64, |number, group| {
                let group: u64 = group.trim_start_matches('x').parse().ok()?;
                number.checked_mul(1_000)?.checked_add(group)
            })?;
            Some(Self { kind, number, partial })
        };
        // Reading is generous, writing has one form: what is not written like this is not a name.
        read().filter(|path| path.to_string() == text).ok_or(NoTilePath)
    }
}

/// Appends one entry to a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).expect("a frame's entries have lengths of two bytes");
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// Where the entries of a bundle lie in it. `None` if it does not hold whole entries and nothing else.
pub fn entry_ranges(bundle: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut ranges = Vec::with_capacity(TILE_WIDTH);
    let mut at = 0;
    while at < bundle.len() {
        let length = bundle.get(at..at + 2)?;
        let start = at + 2;
        at = start + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if at > bundle.len() || ranges.len() == TILE_WIDTH {
            return None;
        }
        ranges.push(start..at);
    }
    Some(ranges)
}

/// The bytes of a hash tile.
pub fn hash_bytes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The hashes of a tile. `None` if it is not whole hashes.
pub fn parse_hashes(tile: &[u8]) -> Option<Vec<Digest>> {
    let (hashes, rest) = tile.as_chunks::<HASH_BYTES>();
    rest.is_empty().then(|| hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
}

/// Root of a perfect subtree, from the roots of its parts: a power of two of them.
pub fn subtree_root(parts: &[Digest]) -> Digest {
    assert!(parts.len().is_power_of_two(), "a perfect subtree has a power of two of equal parts");
    let mut edge = RightEdge::empty();
    parts.iter().for_each(|part| edge.append(*part));
    edge.root()
}

/// A tile that has just become full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullTile {
    pub level: u8,
    pub number: u64,
    pub hashes: Vec<Digest>,
}

/// The hashes of a growing tree that are in no full tile: at most 255 a level.
#[derive(Clone, Debug, Default)]
pub struct Fringe {
    size: u64,
    levels: Vec<Level>,
}

/// The last tile of a level, not full, and its tree.
#[derive(Clone, Debug)]
struct Level {
    hashes: Vec<Digest>,
    edge: RightEdge,
}

impl Level {
    const fn empty() -> Self {
        Self { hashes: Vec::new(), edge: RightEdge::empty() }
    }

    fn push(&mut self, hash: Digest) {
        self.hashes.push(hash);
        self.edge.append(hash);
    }
}

impl Fringe {
    /// The fringe of a tree of this size, from the hashes of its last tiles, lowest level first. `None` if they are
    /// more or fewer than such a tree has.
    pub fn resume(size: TreeSize, levels: &[Vec<Digest>]) -> Option<Self> {
        let mut fringe = Self { size: size.0, levels: Vec::new() };
        for (level, hashes) in (0u8..).zip(levels) {
            if hashes.len() as u64 != complete(size, level) % TILE_WIDTH as u64 {
                return None;
            }
            let mut restored = Level::empty();
            hashes.iter().for_each(|hash| restored.push(*hash));
            fringe.levels.push(restored);
        }
        (complete(size, levels.len() as u8) == 0).then_some(fringe)
    }

    pub const fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Appends the leaf with this hash. What becomes full is given back, lowest level first.
    pub fn append(&mut self, leaf: Digest) -> Vec<FullTile> {
        self.size += 1;
        let mut full = Vec::new();
        let mut carried = leaf;
        for level in 0u8.. {
            let at = usize::from(level);
            if at == self.levels.len() {
                self.levels.push(Level::empty());
            }
            self.levels[at].push(carried);
            if self.levels[at].hashes.len() < TILE_WIDTH {
                break;
            }
            let Level { hashes, edge } = std::mem::replace(&mut self.levels[at], Level::empty());
            carried = edge.root();
            full.push(FullTile { level, number: complete(self.size(), level + 1) - 1, hashes });
        }
        full
    }

    /// The hashes of the level's last tile; none if the tile before it is full, or the tree has no such level.
    pub fn level(&self, level: u8) -> &[Digest] {
        self.levels.get(usize::from(level)).map_or(&[], |l| &l.hashes)
    }

    /// How many levels there are.
    pub fn levels(&self) -> u8 {
        self.levels.len() as u8
    }

    /// The tree's right edge: the peaks within the last tiles, highest first.
    pub fn edge(&self) -> RightEdge {
        let peaks = self.levels.iter().rev().flat_map(|l| l.edge.peaks()).copied().collect();
        RightEdge::from_peaks(self.size(), peaks)
            .expect("each level has the peaks of its eight bits of the size")
    }

    pub fn root(&self) -> Digest {
        let peaks = self.levels.iter().flat_map(|l| l.edge.peaks().iter().rev());
        peaks.copied().reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(super::tree::empty_root)
    }
}
