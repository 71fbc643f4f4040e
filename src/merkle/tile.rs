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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::tree::leaf_hash;
    use super::*;

    /// The hashes of each level of a tree, computed pair by pair: shares no code with the fringe.
    pub(crate) fn levels_by_pairs(leaves: &[Digest]) -> Vec<Vec<Digest>> {
        let mut levels = vec![leaves.to_vec()];
        while levels.last().is_some_and(|below| below.len() >= TILE_WIDTH) {
            let mut hashes = levels.last().expect("there is one").clone();
            hashes.truncate(hashes.len() / TILE_WIDTH * TILE_WIDTH);
            for _ in 0..TILE_HEIGHT {
                hashes =
                    hashes.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
            }
            levels.push(hashes);
        }
        levels
    }

    fn leaf(n: u64) -> Digest {
        leaf_hash(&n.to_be_bytes())
    }

    /// What of the tree an oracle has stored.
    struct Stored(Vec<tlog_tiles::Hash>);

    impl Stored {
        fn of(leaves: u64) -> Self {
            let mut stored = Self(Vec::new());
            for n in 0..leaves {
                let more = tlog_tiles::stored_hashes(n, &n.to_be_bytes(), &stored).expect("stored");
                stored.0.extend(more);
            }
            stored
        }
    }

    impl tlog_tiles::HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|at| self.0[*at as usize]).collect())
        }
    }

    /// All tiles of a tree of this size, by the fringe.
    fn tiles_of(size: u64) -> (BTreeMap<TilePath, Vec<u8>>, Fringe) {
        let (mut tiles, mut fringe) = (BTreeMap::new(), Fringe::default());
        for n in 0..size {
            for FullTile { level, number, hashes } in fringe.append(leaf(n)) {
                tiles.insert(TilePath::hashes(level, number), hash_bytes(&hashes));
            }
        }
        for path in partial_tiles(TreeSize(size)) {
            if let TileKind::Hashes { level } = path.kind {
                assert_eq!(fringe.level(level).len(), path.width());
                tiles.insert(path, hash_bytes(fringe.level(level)));
            }
        }
        (tiles, fringe)
    }

    #[track_caller]
    fn agrees_with_the_oracles(size: u64) {
        let (tiles, fringe) = tiles_of(size);
        let stored = Stored::of(size);
        let theirs: BTreeMap<TilePath, Vec<u8>> = tlog_tiles::Tile::new_tiles(8, 0, size)
            .into_iter()
            .map(|tile| {
                let path = tile.path();
                let path = path.strip_prefix("tile/8/").expect("of height 8");
                (path.parse().expect("one spelling"), tile.read_data(&stored).expect("read"))
            })
            .collect();
        // Theirs leave out the upper levels' narrower forms only where a wider one exists, which is nowhere here.
        assert_eq!(tiles, theirs, "{size} leaves");
        let root = tlog_tiles::tree_hash(size, &stored).expect("a root");
        assert_eq!(fringe.root().as_bytes(), &root.0);
        assert_eq!(fringe.edge().root(), fringe.root());
        let mut memory = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, [u8; 8]>::new();
        (0..size).for_each(|n| memory.push(n.to_be_bytes()));
        assert_eq!(memory.root().as_bytes().as_slice(), fringe.root().as_bytes());
    }

    #[test]
    fn tiles_and_roots_are_those_of_other_implementations() {
        for size in (1..=20).chain([255, 256, 257, 511, 512, 513, 1_000, 65_535, 65_536, 65_537, 65_792]) {
            agrees_with_the_oracles(size);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn tiles_of_random_trees_are_those_of_other_implementations(size in 1u64..4_000) {
            agrees_with_the_oracles(size);
        }

        #[test]
        fn every_name_has_one_spelling_that_others_read(
            level in 0u8..=63, number in any::<u64>(), width in 1usize..=256, entries: bool,
        ) {
            let path = if entries { TilePath::entries(number) } else { TilePath::hashes(level, number) };
            let path = path.with_width(width).expect("a width");
            let text = path.to_string();
            prop_assert_eq!(text.parse::<TilePath>(), Ok(path));
            let theirs = tlog_tiles::Tile::new(8, if entries { 0 } else { level }, number, width as u32, entries);
            let expected = theirs.path();
            let expected = expected.strip_prefix("tile/8/").expect("of height 8");
            prop_assert_eq!(text, expected.replacen("data/", "entries/", 1));
        }

        #[test]
        fn any_text_is_one_name_or_none(text in "(entries|[0-9]{1,2})/(x[0-9]{3}/){0,3}[0-9]{3}(\\.p/[0-9]{1,3})?") {
            if let Ok(path) = text.parse::<TilePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn a_fringe_made_again_from_its_hashes_goes_on_alike(size in 0u64..70_000, more in 0u64..600) {
            let leaves: Vec<Digest> = (0..size).map(leaf).collect();
            let levels = levels_by_pairs(&leaves);
            let last: Vec<Vec<Digest>> = levels
                .iter()
                .take_while(|hashes| !hashes.is_empty())
                .map(|hashes| hashes[hashes.len() / TILE_WIDTH * TILE_WIDTH..].to_vec())
                .collect();
            let mut made_again = Fringe::resume(TreeSize(size), &last).expect("they fit");
            let mut edge = RightEdge::empty();
            leaves.iter().for_each(|leaf| edge.append(*leaf));
            prop_assert_eq!(&made_again.edge(), &edge);
            for n in size..size + more {
                let full = made_again.append(leaf(n));
                edge.append(leaf(n));
                prop_assert_eq!(full.is_empty(), !(n + 1).is_multiple_of(TILE_WIDTH as u64));
                prop_assert_eq!(made_again.root(), edge.root());
            }
        }
    }

    #[test]
    fn a_fringe_of_another_size_is_refused() {
        assert!(Fringe::resume(TreeSize(256), &[vec![], vec![leaf(0)]]).is_some());
        for levels in [vec![], vec![vec![]], vec![vec![leaf(0)], vec![leaf(0)]], vec![vec![], vec![]]] {
            assert!(Fringe::resume(TreeSize(256), &levels).is_none(), "{levels:?}");
        }
        assert!(Fringe::resume(TreeSize(0), &[vec![leaf(0)]]).is_none());
        assert_eq!(Fringe::resume(TreeSize(0), &[]).expect("empty").root(), super::super::tree::empty_root());
    }

    #[test]
    fn other_spellings_of_a_name_are_refused() {
        for good in
            ["0/000", "0/x001/067", "63/x001/x234/067.p/112", "entries/999.p/1", "entries/x001/000.p/255"]
        {
            assert_eq!(good.parse::<TilePath>().expect("a name").to_string(), good);
        }
        let others = [
            "",
            "0",
            "0/",
            "/000",
            "0/0",
            "0/00",
            "0/0000",
            "0/1000",
            "0/x000/001",
            "0/x1/001",
            "0/001/001",
            "0/xx001/001",
            "0/x001/x001",
            "00/000",
            "64/000",
            "-1/000",
            "+1/000",
            "x/000",
            "data/000",
            "entries/",
            "entries//000",
            "0/000.p",
            "0/000.p/",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/+1",
            "0/000.p/1/",
            "0/000.p/1.p/1",
            "0/000/",
            "0/000 ",
            " 0/000",
            "0/00\u{661}",
            "tile/0/000",
            "0/../000",
            "0/x018/x446/x744/x073/x709/x551/616",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
        ];
        for other in others {
            assert_eq!(other.parse::<TilePath>(), Err(NoTilePath), "{other:?}");
        }
        assert!("0/x018/x446/x744/x073/x709/x551/615".parse::<TilePath>().is_ok(), "2^64 - 1");
    }

    #[test]
    fn a_tree_of_70_000_leaves_has_the_tiles_of_the_specification() {
        let size = TreeSize(70_000);
        let partial: Vec<String> = partial_tiles(size).iter().map(ToString::to_string).collect();
        assert_eq!(partial, ["0/273.p/112", "1/001.p/17", "2/000.p/1", "entries/273.p/112"]);
        let available = |path: &str| path.parse::<TilePath>().expect("a name").available(size);
        assert_eq!(["0/272", "0/273", "0/274"].map(available), [256, 112, 0]);
        assert_eq!(
            ["1/000", "1/001", "1/002", "2/000", "2/001", "3/000"].map(available),
            [256, 17, 0, 1, 0, 0]
        );
        assert_eq!(["entries/272", "entries/273", "entries/274"].map(available), [256, 112, 0]);
        let of_256: Vec<String> = partial_tiles(TreeSize(256)).iter().map(ToString::to_string).collect();
        assert_eq!(of_256, ["1/000.p/1"]);
        assert_eq!(partial_tiles(TreeSize(0)), []);
        assert_eq!(TilePath::hashes(63, u64::MAX).available(TreeSize(u64::MAX)), 0);
        assert_eq!(TilePath::entries(u64::MAX).available(TreeSize(u64::MAX)), 0);
    }

    #[test]
    fn bundles_that_do_not_hold_whole_entries_are_refused() {
        let mut bundle = Vec::new();
        for entry in [&b""[..], b"a", &[b'x'; limits::ENTRY_BYTES_MAX]] {
            push_entry(&mut bundle, entry);
        }
        let ranges = entry_ranges(&bundle).expect("whole");
        assert_eq!(ranges.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), [0, 1, 65_535]);
        assert_eq!(entry_ranges(&[]), Some(Vec::new()));
        for cut in [1, 3, 4, 6, bundle.len() - 1] {
            assert_eq!(entry_ranges(&bundle[..cut]), None, "{cut}");
        }
        assert!(entry_ranges(&[0; 2 * TILE_WIDTH]).is_some());
        assert_eq!(entry_ranges(&[0; 2 * TILE_WIDTH + 2]), None, "more than 256");
        assert_eq!(parse_hashes(&[0; 33]), None);
    }
}
