//! Checks a log's directory while no gateway has it open: the evidence as `verify` does, then what is derived from it.
//!
//! Evidence is `frames/` and `checkpoint`; it is read, and damage in it is named. Derived are restart points, tiles,
//! entry bundles and the index: what of them does not fit the evidence can be removed and made again. While evidence
//! fails, nothing is touched, and nothing derived is looked at: there would be nothing to hold it against.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::archive::{self, Index, IndexError, Seen, Term, Tiles};
use super::restart::{self, RestartPoint};
use super::snapshots::{self, STATE_FILE_BYTES_MAX};
use super::storage::{
    Lock, RESTART_DIR, SEALING_FILE, Unusable, read_bounded, restart_file, restart_index, state_file,
    state_index,
};
use crate::clock::Clock;
use crate::limits;
use crate::merkle::checkpoint::parse_checkpoint;
use crate::merkle::note::VerifierKey;
use crate::merkle::tile::{self, Fringe, TILE_WIDTH, TilePath};
use crate::merkle::tree::leaf_hash;
use crate::model::{LeafIndex, LogOrigin, TreeSize};
use crate::verify::walk::{Step, Walk};
use crate::verify::{Check, Directory, Form, Report, Source, Verdict, verify_log};

/// What was found.
#[derive(Debug)]
pub struct Checked {
    pub evidence: Report,
    /// At most [`limits::PROBLEMS_NAMED_MAX`] of them by name.
    pub derived: Vec<Unfit>,
    pub derived_count: u64,
    /// Whether what is derived was looked at, which is so if no check of the evidence failed.
    pub derived_checked: bool,
    pub repaired: bool,
    pub notes: Vec<String>,
}

/// A derived file that does not say what the frames say.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unfit {
    pub file: String,
    pub what: String,
}

/// The log cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Uncheckable {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("what is derived could not be made again: {0}")]
    NotRepaired(String),
}

impl Checked {
    pub fn derived_is_unfit(&self) -> bool {
        self.derived_count > 0
    }

    fn unfit(&mut self, file: impl Into<String>, what: impl Into<String>) {
        self.derived_count += 1;
        if self.derived.len() < limits::PROBLEMS_NAMED_MAX {
            self.derived.push(Unfit { file: file.into(), what: what.into() });
        }
    }
}

/// Checks the log in a directory; with `repair`, removes what is derived and wrong, and makes tiles and index again.
pub fn fsck(root: &Path, key: &VerifierKey, repair: bool, clock: Clock) -> Result<Checked, Uncheckable> {
    let _lock = if repair { Lock::take(root)? } else { Lock::take_directory(root)? };
    let source = Directory::open(root)?;
    let evidence = verify_log(&EvidenceOf(&source), key)?;
    let failed = Check::ALL.iter().any(|&check| evidence.verdicts.of(check) == Verdict::Fail);
    let mut checked = Checked {
        evidence,
        derived: Vec::new(),
        derived_count: 0,
        derived_checked: !failed,
        repaired: false,
        notes: Vec::new(),
    };
    if failed {
        return Ok(checked);
    }
    let unfit_points = check_restart_points(root, &source, key.name(), &mut checked)?;
    let unfit_states = check_states(root, &source, key.name(), &mut checked)?;
    let before = checked.derived_count;
    check_archive(root, &source, key.name(), &mut checked)?;
    // Those that stand beside the archive's position, like partial ones.
    if checked.derived_count == before && checked.evidence.verdicts.tiles == Verdict::Fail {
        checked.unfit("tile", "tiles that are not what the frames give");
    }
    let archive_is_unfit = checked.derived_count > before;
    if root.join(SEALING_FILE).exists() {
        checked
            .notes
            .push(format!("{SEALING_FILE} is of a sealing that was cut short; the next start drops it"));
    }
    if repair && checked.derived_count > 0 {
        for first in unfit_points {
            fs::remove_file(root.join(restart_file(first)))?;
        }
        for first in unfit_states {
            fs::remove_file(root.join(state_file(first)))?;
        }
        if archive_is_unfit {
            make_archive_again(root, &source, key, clock)?;
            checked.evidence = verify_log(&source, key)?;
        }
        checked.repaired = true;
    }
    Ok(checked)
}

/// The log without what is derived, which is looked at here on its own.
struct EvidenceOf<'d>(&'d Directory);

impl Source for EvidenceOf<'_> {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        self.0.segments()
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        self.0.length(segment)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(segment, offset, buffer)
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        self.0.checkpoint()
    }

    fn form(&self, segment: LeafIndex) -> io::Result<Form> {
        self.0.form(segment)
    }
}

/// Returns those to be removed. Their tag is not asked for, which would need the signing key: what they say is held
/// against the log itself, and a start asks for both.
fn check_restart_points(
    root: &Path,
    source: &Directory,
    log: &LogOrigin,
    checked: &mut Checked,
) -> Result<Vec<LeafIndex>, Uncheckable> {
    let mut points = BTreeMap::new();
    match fs::read_dir(root.join(RESTART_DIR)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => {
            for entry in listed? {
                if let Some(first) = entry?.file_name().to_str().and_then(restart_index) {
                    let path = root.join(restart_file(first));
                    points.insert(first, read_bounded(&path, limits::RESTART_BYTES_MAX)?);
                }
            }
        }
    }
    let segments = source.segments()?;
    let mut unfit = Vec::new();
    restart::derive(source, log, |truth| {
        let Some(bytes) = points.remove(&truth.first) else { return Ok(()) };
        let what = match RestartPoint::parse(&bytes, truth.first, &segments, log, |_, _| true) {
            Err(why) => why.to_string(),
            Ok(point) if !point.says_the_same(&truth) => "it says something else than the frames".into(),
            Ok(_) => return Ok(()),
        };
        checked.unfit(restart_file(truth.first), what);
        unfit.push(truth.first);
        Ok(())
    })?;
    for first in points.into_keys() {
        checked.unfit(restart_file(first), "no segment begins there");
        unfit.push(first);
    }
    Ok(unfit)
}

/// The same for state snapshots: that they are whole, and of this place and history. What they say of the state only the
/// gateway's own next start can read.
fn check_states(
    root: &Path,
    source: &Directory,
    log: &LogOrigin,
    checked: &mut Checked,
) -> Result<Vec<LeafIndex>, Uncheckable> {
    let mut states = BTreeSet::new();
    match fs::read_dir(root.join(RESTART_DIR)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => {
            for entry in listed? {
                states.extend(entry?.file_name().to_str().and_then(state_index));
            }
        }
    }
    if states.is_empty() {
        return Ok(Vec::new());
    }
    let mut unfit = Vec::new();
    restart::derive(source, log, |truth| {
        if !states.remove(&truth.first) {
            return Ok(());
        }
        let file = state_file(truth.first);
        let bytes = read_bounded(&root.join(&file), STATE_FILE_BYTES_MAX)?;
        let place = (truth.first, truth.edge.root());
        if let Err(why) = snapshots::parse(&bytes, place, log, |_, _| true) {
            checked.unfit(file, why.to_string());
            unfit.push(truth.first);
        }
        Ok(())
    })?;
    for first in states {
        checked.unfit(state_file(first), "no segment begins there");
        unfit.push(first);
    }
    Ok(unfit)
}

/// Full tiles and bundles up to the archive's own position, and the index rows of each bundle.
fn check_archive(
    root: &Path,
    source: &Directory,
    log: &LogOrigin,
    checked: &mut Checked,
) -> Result<(), Uncheckable> {
    let file = root.join(archive::INDEX_FILE);
    if !file.exists() {
        checked.notes.push("there is no index: the next start makes it and the tiles".into());
        return Ok(());
    }
    let opened = Index::open(&file).and_then(|index| index.position().map(|position| (index, position)));
    let (index, size) = match opened {
        Ok((_, None)) => return Ok(()),
        Ok((index, Some(position))) => (index, position.size),
        Err(error) => {
            checked.unfit(archive::INDEX_FILE, error.to_string());
            return Ok(());
        }
    };
    if size > checked.evidence.size {
        checked.unfit(archive::INDEX_FILE, format!("it is ahead of the frames, at {size} entries"));
        return Ok(());
    }
    checked.notes.push(format!("tiles and index were held against the first {size} entries"));
    let tiles = Tiles::new(root);
    let mut walk = Walk::new(source, log)?;
    let (mut fringe, mut bundle, mut terms) = (Fringe::default(), Vec::new(), BTreeSet::new());
    let mut times = BTreeSet::new();
    while fringe.size() < size {
        let Step::Frame(frame, spot) = walk.step()? else { break };
        for entry in &frame.entries {
            if fringe.size() == size {
                break;
            }
            let number = fringe.size().0 / TILE_WIDTH as u64;
            tile::push_entry(&mut bundle, entry);
            let seen = Seen::of(entry).map_err(|e| io::Error::other(format!("{spot}: {e}")))?;
            terms.extend(seen.terms());
            times.extend(seen.time.map(|time| time.unix_ms()));
            let full = fringe.append(leaf_hash(entry));
            for tile in &full {
                let path = TilePath::hashes(tile.level, tile.number);
                hold(&tiles, &path, &tile::hash_bytes(&tile.hashes), checked);
            }
            if full.is_empty() {
                continue;
            }
            hold(&tiles, &TilePath::entries(number), &bundle, checked);
            bundle.clear();
            let (terms, times) = (std::mem::take(&mut terms), std::mem::take(&mut times));
            match rows_missing(&index, number, &terms, &times) {
                Ok(false) => {}
                Ok(true) => {
                    checked.unfit(archive::INDEX_FILE, format!("a row of bundle {number} is missing"));
                }
                Err(error) => {
                    checked.unfit(archive::INDEX_FILE, error.to_string());
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Whether a lookup of one of these terms or times would pass over the bundle.
fn rows_missing(
    index: &Index,
    bundle: u64,
    terms: &BTreeSet<Term>,
    times: &BTreeSet<u64>,
) -> Result<bool, IndexError> {
    let view = index.view()?;
    for term in terms {
        if view.with_term(term, bundle..bundle + 1)?.is_none() {
            return Ok(true);
        }
    }
    // All others lie between these two.
    for &ms in times.first().into_iter().chain(times.last()) {
        if !view.has_time(ms, bundle)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hold(tiles: &Tiles, path: &TilePath, truth: &[u8], checked: &mut Checked) {
    match tiles.read(path) {
        Ok(found) if found == truth => {}
        Ok(_) => checked.unfit(format!("tile/{path}"), "it says something else than the frames"),
        Err(error) => checked.unfit(format!("tile/{path}"), error.to_string()),
    }
}

/// Removes tiles and index, and makes them again up to the checkpoint.
fn make_archive_again(
    root: &Path,
    source: &Directory,
    key: &VerifierKey,
    clock: Clock,
) -> Result<(), Uncheckable> {
    let not_made = |why: String| Uncheckable::NotRepaired(why);
    let note = source.checkpoint()?.ok_or_else(|| not_made("there is no checkpoint".into()))?;
    let size = parse_checkpoint(&note, key).map_err(|e| not_made(e.to_string()))?.checkpoint().size;
    let text: Arc<str> = String::from_utf8(note).map_err(|e| not_made(e.to_string()))?.into();
    Tiles::new(root).clear()?;
    archive::remove_if_there(&root.join(archive::INDEX_FILE))?;
    if archive::make(root, key.name(), clock, text, size) {
        return Ok(());
    }
    Err(not_made("see the log for why".into()))
}

/// How often a rebuild is looked at.
pub(super) const REBUILD_LOOK: Duration = Duration::from_millis(10);

impl RestartPoint {
    fn says_the_same(&self, truth: &Self) -> bool {
        let leaves = TreeSize(truth.first.0);
        self.edge.size() == leaves
            && (&self.edge, self.chain, &self.fold) == (&truth.edge, truth.chain, &truth.fold)
    }
}
