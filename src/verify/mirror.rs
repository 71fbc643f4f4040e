//! The verification of a mirror: what a log serves to read, `checkpoint` and `tile/`, without frames.
//!
//! The checkpoint says how many leaves there are. Their entries come from the bundles, and every tile of a tree of that
//! size must be there and hold what the entries give; the last one of a row as the partial one of that width, or the full one.
//! Where a bundle cannot be read, the hash tile beside it stands in for it, so that what is wrong elsewhere is found too;
//! what leaves owe each other is not followed past it. Of frames and evidence, which nobody serves, nothing is said.

use std::io;

use super::log::{Options, Pass, Place};
use super::prepare::prepare_alone;
use super::report::{Check, Problem, Report, Verdict};
use super::source::{CHECKPOINT_FILE, Source};
use super::tiles::{Against, Row, TILE_WIDTH};
use crate::merkle::checkpoint::parse_checkpoint_unverified;
use crate::merkle::tile::{BUNDLE_BYTES_MAX, FULL_TILE_BYTES, entry_ranges, parse_hashes};
use crate::merkle::tree::leaf_hash;
use crate::merkle::trust::Trust;
use crate::model::{Digest, LeafIndex, TreeSize};

/// Verifies a mirror against a set of keys. `Err` only if something cannot be read at all; `options.wait` is not used: a
/// mirror does not grow while it is read.
pub fn verify_mirror<S: Source + ?Sized>(
    source: &S,
    trust: &Trust,
    options: Options<'_>,
) -> io::Result<Report> {
    let mut pass = Pass::new(source, trust, Against::Bundles, options.progress);
    pass.report.verdicts.frames = Verdict::NotChecked;
    pass.report.verdicts.evidence = Verdict::NotChecked;
    pass.report.notes.push("a mirror: it has no frames and no evidence, and nothing is said of them".into());
    for (name, note) in options.archived {
        pass.checkpoint(name, Some(&note), trust, true);
    }
    let note = source.checkpoint()?;
    let signed = pass.checkpoint(CHECKPOINT_FILE.into(), note.as_deref(), trust, false);
    // What nobody signed still says how far to look.
    let named = note.and_then(|note| parse_checkpoint_unverified(&note).ok()).map(|named| named.size);
    let Some(size) = signed.or(named) else {
        pass.walked_to_end = false;
        return Ok(pass.finish(source));
    };
    let mut mirror = Mirror { source, size, pass };
    let bundles = size.0.div_ceil(TILE_WIDTH as u64);
    for number in 0..bundles {
        if !mirror.bundle(number) {
            mirror.pass.walked_to_end = false;
            break;
        }
        mirror.pass.progress();
    }
    let Mirror { mut pass, .. } = mirror;
    if signed.is_none() {
        pass.report.not_established(Check::Included);
    }
    if pass.entries_missing {
        // Keys may have been retired there, too.
        for check in [Check::WellFormed, Check::Signed, Check::Paired, Check::Epochs] {
            pass.report.not_established(check);
        }
    }
    Ok(pass.finish(source))
}

/// A file of tiles or entries, and its bytes.
type Found = (String, Vec<u8>);

/// The name of a file of so many items.
fn wanted(row: Row, number: u64, width: usize) -> String {
    let full = row.path(number);
    if width == TILE_WIDTH { full } else { format!("{full}.p/{width}") }
}

struct Mirror<'m, 'v, S: Source + ?Sized> {
    source: &'m S,
    size: TreeSize,
    pass: Pass<'v>,
}

impl<S: Source + ?Sized> Mirror<'_, '_, S> {
    /// Takes the leaves of one bundle. `false` if neither their entries nor their hashes can be had.
    fn bundle(&mut self, number: u64) -> bool {
        let width = (self.size.0 - number * TILE_WIDTH as u64).min(TILE_WIDTH as u64) as usize;
        let Some((file, bundle)) = self.read(Row::Entries, number, width, BUNDLE_BYTES_MAX) else {
            return self.hashes(number, width);
        };
        let ranges = entry_ranges(&bundle).filter(|entries| {
            entries.len() == width || entries.len() > width && file == Row::Entries.path(number)
        });
        let Some(entries) = ranges else {
            self.tiles_problem(number, file, format!("not whole entries, {width} of them"));
            return self.hashes(number, width);
        };
        self.compare_hashes(number, &file, entries.iter().take(width).map(|range| &bundle[range.clone()]));
        for range in entries.into_iter().take(width) {
            let index = LeafIndex(self.pass.tree.size().0);
            let entry = &bundle[range];
            let (leaf, complaints) = prepare_alone(entry);
            let place = || Place { file: file.clone(), offset: None };
            for (check, what) in complaints {
                self.pass.report.problem(place().problem(check, index, what));
            }
            if !self.pass.entries_missing {
                self.pass.take(leaf.fact, place);
            }
            self.append(leaf.hash, Some(entry));
        }
        true
    }

    /// An entry that is not the one its tile names: which of the two is wrong, the root says. The tile is compared later.
    fn compare_hashes<'e>(
        &mut self,
        number: u64,
        file: &str,
        entries: impl ExactSizeIterator<Item = &'e [u8]>,
    ) {
        let row = Row::Level(0);
        let Ok(Some((tile, bytes))) = self.find(row, number, entries.len(), FULL_TILE_BYTES) else { return };
        let Some(hashes) = parse_hashes(&bytes) else { return };
        let first = entries.zip(hashes).position(|(entry, hash)| leaf_hash(entry) != hash);
        if let Some(item) = first {
            let (index, file) = (Some(row.index(number, item)), Some(file.to_owned()));
            let what = format!("the entry does not have the hash that `{tile}` names");
            self.pass.report.problem(Problem { check: Check::Included, index, file, offset: None, what });
        }
    }

    /// The leaves' hashes, as their tile has them.
    fn hashes(&mut self, number: u64, width: usize) -> bool {
        self.pass.entries_missing = true;
        let Some((file, tile)) = self.read(Row::Level(0), number, width, FULL_TILE_BYTES) else {
            return false;
        };
        let hashes = parse_hashes(&tile).filter(|hashes| hashes.len() >= width);
        let Some(hashes) = hashes else {
            self.tiles_problem(number, file, format!("not whole hashes, {width} of them"));
            return false;
        };
        hashes.into_iter().take(width).for_each(|hash| self.append(hash, None));
        true
    }

    fn append(&mut self, hash: Digest, entry: Option<&[u8]>) {
        let full = self.pass.append(hash);
        self.pass.tiles.leaf(self.source, entry, &full, &mut self.pass.report);
    }

    /// The file of this width, or the full one. That there is none is a problem.
    fn read(&mut self, row: Row, number: u64, width: usize, bytes_max: usize) -> Option<Found> {
        match self.find(row, number, width, bytes_max) {
            Ok(Some(found)) => return Some(found),
            Ok(None) => self.tiles_problem(number, wanted(row, number, width), "is missing".into()),
            Err((path, why)) => self.tiles_problem(number, path, format!("cannot be read: {why}")),
        }
        None
    }

    /// `Err` with the path of what is there and cannot be read.
    fn find(
        &self,
        row: Row,
        number: u64,
        width: usize,
        bytes_max: usize,
    ) -> Result<Option<Found>, (String, io::Error)> {
        let (wanted, full) = (wanted(row, number, width), row.path(number));
        let other = (wanted != full).then_some(full);
        for path in [wanted].into_iter().chain(other) {
            match self.source.derived(&path, bytes_max) {
                Ok(None) => {}
                Ok(Some(bytes)) => return Ok(Some((path, bytes))),
                Err(why) => return Err((path, why)),
            }
        }
        Ok(None)
    }

    fn tiles_problem(&mut self, number: u64, file: String, what: String) {
        let index = Some(Row::Entries.index(number, 0));
        self.pass.report.problem(Problem {
            check: Check::Tiles,
            index,
            file: Some(file),
            offset: None,
            what,
        });
    }
}
