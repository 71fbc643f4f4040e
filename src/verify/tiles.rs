//! Compares what was derived for reading with what the frames give: C2SP tlog-tiles and entry bundles below `tile/`.
//!
//! A file that is missing is nothing: tiles are behind the log, and can be made again; but in a mirror they are all there
//! is, and one that is missing is a problem. One that is there and differs, or something else in its place, is a problem of
//! its own, and never keeps the entries from being judged. Memory: the unfinished tile of each level, and the unfinished
//! bundle.

use super::report::{Check, Problem, Report};
use super::source::{Source, TILE_DIR};
use crate::limits;
use crate::merkle::frame;
use crate::merkle::tile::{Fringe, FullTile};
use crate::model::{Digest, LeafIndex};

pub const TILE_WIDTH: usize = 256;
/// Levels of tiles in a tree of fewer than 2^64 leaves.
const LEVELS_MAX: usize = 8;

/// A row of tiles, or of bundles: `tile/0`, `tile/entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    Level(usize),
    Entries,
}

impl Row {
    fn dir(self) -> String {
        match self {
            Self::Level(level) => format!("{TILE_DIR}/{level}"),
            Self::Entries => format!("{TILE_DIR}/entries"),
        }
    }

    pub fn path(self, number: u64) -> String {
        format!("{}/{}", self.dir(), grouped(number))
    }

    /// The first entry below an item of a file.
    pub fn index(self, number: u64, item: usize) -> LeafIndex {
        let level = match self {
            Self::Level(level) => level,
            Self::Entries => 0,
        };
        LeafIndex((number * TILE_WIDTH as u64 + item as u64) << (8 * level))
    }
}

/// Groups of three digits, all but the last behind an `x`.
fn grouped(number: u64) -> String {
    let mut text = format!("{:03}", number % 1_000);
    let mut rest = number / 1_000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1_000);
        rest /= 1_000;
    }
    text
}

/// What a file of `width` items holds, as far as the log has come.
#[derive(Debug, Default)]
struct Filling {
    bytes: Vec<u8>,
    /// Where each item ends.
    ends: Vec<usize>,
}

impl Filling {
    fn of(hashes: &[Digest]) -> Self {
        let mut filling = Self::default();
        hashes.iter().for_each(|hash| filling.push(&[hash.as_bytes()]));
        filling
    }

    fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    fn prefix(&self, width: usize) -> &[u8] {
        let end = width.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or_default();
        &self.bytes[..end]
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// What tiles are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Tiles are derived from them.
    Frames,
    /// The entries of the bundles: there is nothing else.
    Bundles,
}

#[derive(Debug)]
pub struct Tiles {
    against: Against,
    /// There are any.
    present: bool,
    size: u64,
    bundle: Filling,
}

impl Tiles {
    pub fn new<S: Source + ?Sized>(source: &S, against: Against, report: &mut Report) -> Self {
        let present = match source.derived_names(TILE_DIR) {
            Ok(names) => !names.is_empty(),
            Err(why) => {
                report.problem(unlisted(TILE_DIR.into(), None, &why));
                false
            }
        };
        let present = present || against == Against::Bundles;
        Self { against, present, size: 0, bundle: Filling::default() }
    }

    /// The next frame, which the walk has accepted, and the tiles that its leaves made full, in their order.
    pub fn frame<S: Source + ?Sized>(
        &mut self,
        source: &S,
        bytes: &[u8],
        full: Vec<FullTile>,
        report: &mut Report,
    ) {
        if !self.present {
            return;
        }
        let sections =
            frame::sections_of_decoded(bytes).expect("the walk has decoded these very bytes before");
        let mut full = full.into_iter().peekable();
        for entry in sections.entries {
            let mut filled = Vec::new();
            if (self.size + 1).is_multiple_of(TILE_WIDTH as u64) {
                // The leaf that fills a bundle fills a tile of each level up to some one.
                while let Some(tile) = full.next_if(|tile| usize::from(tile.level) == filled.len()) {
                    filled.push(tile);
                }
            }
            self.leaf(source, Some(entry), &filled, report);
        }
    }

    /// The next leaf, with its entry if that is known, and the tiles that it made full.
    pub fn leaf<S: Source + ?Sized>(
        &mut self,
        source: &S,
        entry: Option<&[u8]>,
        full: &[FullTile],
        report: &mut Report,
    ) {
        if let Some(entry) = entry {
            let length = u16::try_from(entry.len()).expect("an entry has a 2-byte length");
            self.bundle.push(&[&length.to_be_bytes(), entry]);
        }
        self.size += 1;
        if !self.size.is_multiple_of(TILE_WIDTH as u64) {
            return;
        }
        for tile in full {
            let (row, filling) = (Row::Level(tile.level.into()), Filling::of(&tile.hashes));
            self.compare(source, row, tile.number, &filling, report);
        }
        // Of a mirror, whether they are there was seen when they were read.
        if self.bundle.ends.len() == TILE_WIDTH {
            let number = self.size / TILE_WIDTH as u64 - 1;
            self.compare(source, Row::Entries, number, &self.bundle, report);
        }
        self.bundle.clear();
    }

    /// A full one, and the partial ones that were published on the way to it.
    fn compare<S: Source + ?Sized>(
        &self,
        source: &S,
        row: Row,
        number: u64,
        filling: &Filling,
        report: &mut Report,
    ) {
        let is_there = self.compare_file(source, row, number, row.path(number), filling, TILE_WIDTH, report);
        if !is_there && self.against == Against::Bundles && row != Row::Entries {
            report.problem(missing(row.index(number, 0), row.path(number)));
        }
        self.compare_partial(source, row, number, filling, report);
    }

    /// The last one of a row: in a mirror it must be there at its width, or longer.
    fn compare_last<S: Source + ?Sized>(
        &self,
        source: &S,
        row: Row,
        number: u64,
        filling: &Filling,
        report: &mut Report,
    ) {
        let width = filling.ends.len();
        let found = self.compare_partial(source, row, number, filling, report);
        if self.against == Against::Frames || row == Row::Entries || width == 0 || found.contains(&width) {
            return;
        }
        if !self.compare_file(source, row, number, row.path(number), filling, width, report) {
            report.problem(missing(row.index(number, 0), format!("{}.p/{width}", row.path(number))));
        }
    }

    /// The unfinished ones, and what else is there.
    pub fn finish<S: Source + ?Sized>(&mut self, source: &S, fringe: &Fringe, report: &mut Report) {
        if !self.present {
            return;
        }
        for level in 0..fringe.levels() {
            let number = self.size >> (8 * (u32::from(level) + 1));
            let hashes = Filling::of(fringe.level(level));
            self.compare_last(source, Row::Level(level.into()), number, &hashes, report);
        }
        self.compare_last(source, Row::Entries, self.size / TILE_WIDTH as u64, &self.bundle, report);
        let mut strange = Vec::new();
        let mut count = 0;
        self.look_through(source, TILE_DIR, 0, &mut |path| {
            count += 1;
            if strange.len() < limits::STRANGE_FILES_NAMED_MAX {
                strange.push(path);
            }
        });
        let unnamed = count - strange.len();
        for path in strange {
            report.notes.push(format!("`{path}` is no tile of this log as far as it was verified"));
        }
        if unnamed > 0 {
            report.notes.push(format!("{unnamed} more files below `{TILE_DIR}` are no tiles of this log"));
        }
    }

    /// Those that are there; their widths.
    fn compare_partial<S: Source + ?Sized>(
        &self,
        source: &S,
        row: Row,
        number: u64,
        filling: &Filling,
        report: &mut Report,
    ) -> Vec<usize> {
        let dir = format!("{}.p", row.path(number));
        let mut found = Vec::new();
        let names = match source.derived_names(&dir) {
            Ok(names) => names,
            Err(why) => {
                report.problem(unlisted(dir, Some(row.index(number, 0)), &why));
                return found;
            }
        };
        for name in names {
            // A directory in a tile's place has a slash behind its name, and is no tile.
            let name = name.strip_suffix('/').unwrap_or(&name);
            let width =
                name.parse().ok().filter(|w: &usize| (1..TILE_WIDTH).contains(w) && w.to_string() == name);
            if let Some(width) = width.filter(|w| *w <= filling.ends.len()) {
                self.compare_file(source, row, number, format!("{dir}/{name}"), filling, width, report);
                found.push(width);
            }
        }
        found
    }

    /// Whether anything is there.
    #[expect(
        clippy::too_many_arguments,
        reason = "a file's place, what it must hold, and where to say that it does not"
    )]
    fn compare_file<S: Source + ?Sized>(
        &self,
        source: &S,
        row: Row,
        number: u64,
        path: String,
        filling: &Filling,
        width: usize,
        report: &mut Report,
    ) -> bool {
        let wanted = filling.prefix(width);
        let mut wrong = |item: usize, what: String| {
            let (index, file) = (Some(row.index(number, item)), Some(path.clone()));
            report.problem(Problem { check: Check::Tiles, index, file, offset: None, what });
        };
        let mut found = match source.derived(&path, wanted.len()) {
            Ok(None) => return false,
            Ok(Some(found)) => found,
            Err(why) => {
                wrong(0, format!("cannot be read: {why}"));
                return true;
            }
        };
        // A full one in the place of a shorter one begins like it.
        if path == row.path(number) && width < TILE_WIDTH {
            found.truncate(wanted.len());
        }
        if found != wanted {
            let same = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            let item = filling.ends.iter().take_while(|end| **end <= same).count().min(width - 1);
            let what = match (self.against, row) {
                (Against::Frames, Row::Level(_)) => "hashes that the frames do not give",
                (Against::Frames, Row::Entries) => "entries that the frames do not hold",
                (Against::Bundles, Row::Level(_)) => "hashes that the entries do not give",
                (Against::Bundles, Row::Entries) => "other entries than the bundle that was read",
            };
            let repair = match self.against {
                Against::Frames => "; `log fsck --repair` makes it again",
                Against::Bundles => "",
            };
            wrong(item, format!("{what}, from byte {same} on{repair}"));
        }
        report.tiles_compared += 1;
        true
    }

    fn look_through<S: Source + ?Sized>(
        &self,
        source: &S,
        dir: &str,
        depth: usize,
        strange: &mut impl FnMut(String),
    ) {
        // Seven groups of three digits are the largest number, below a row and above a partial's directory.
        if depth > 10 {
            return strange(dir.to_owned());
        }
        let Ok(names) = source.derived_names(dir) else { return strange(dir.to_owned()) };
        for name in names {
            let path = format!("{dir}/{name}");
            match path.strip_suffix('/') {
                Some(below) => self.look_through(source, below, depth + 1, strange),
                None if self.is_known(&path) => {}
                None => strange(path),
            }
        }
    }

    /// Whether the path is one that was compared.
    fn is_known(&self, path: &str) -> bool {
        let known = || {
            let (row, rest) = path.strip_prefix(TILE_DIR)?.strip_prefix('/')?.split_once('/')?;
            let row = match row {
                "entries" => Row::Entries,
                level => Row::Level(level.parse().ok().filter(|l| *l < LEVELS_MAX)?),
            };
            let (digits, width) = match rest.split_once(".p/") {
                Some((digits, width)) => (digits, Some(width)),
                None => (rest, None),
            };
            let number: u64 = digits.replace(['x', '/'], "").parse().ok()?;
            let level = match row {
                Row::Level(level) => level,
                Row::Entries => 0,
            };
            let items = self.size >> (8 * level);
            let needed = match width {
                None => TILE_WIDTH as u64,
                Some(width) => width.parse().ok().filter(|w| (1..256).contains(w))?,
            };
            let written = match width {
                None => row.path(number),
                Some(_) => format!("{}.p/{needed}", row.path(number)),
            };
            let fits = number.checked_mul(256)?.checked_add(needed)? <= items;
            (written == path && fits).then_some(())
        };
        known().is_some()
    }
}

/// A directory that is none, or cannot be read.
fn unlisted(dir: String, index: Option<LeafIndex>, why: &std::io::Error) -> Problem {
    let what = format!("cannot be listed: {why}");
    Problem { check: Check::Tiles, index, file: Some(dir), offset: None, what }
}

fn missing(index: LeafIndex, file: String) -> Problem {
    let what = "is missing".to_owned();
    Problem { check: Check::Tiles, index: Some(index), file: Some(file), offset: None, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_groups_of_three_digits() {
        let written = [0, 67, 999, 1_000, 1_234_067].map(grouped);
        assert_eq!(written, ["000", "067", "999", "x001/000", "x001/x234/067"]);
    }

    #[test]
    fn only_tiles_under_the_size_are_known() {
        let tiles = Tiles {
            against: Against::Frames,
            present: true,
            size: 256 * 256 + 256 + 3,
            bundle: Filling::default(),
        };
        for known in [
            "tile/0/000",
            "tile/0/256",
            "tile/0/257.p/3",
            "tile/1/000",
            "tile/1/001.p/1",
            "tile/entries/256",
            "tile/0/000.p/255",
        ] {
            assert!(tiles.is_known(known), "{known}");
        }
        for strange in [
            "tile/0/257",
            "tile/0/257.p/4",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/1/001",
            "tile/00/000",
            "tile/8/000",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/000.p/07",
            "tile/0/000.p",
            "tile/0/000.tmp",
            "tile/entries",
            "tile/x/000",
        ] {
            assert!(!tiles.is_known(strange), "{strange}");
        }
    }
}
