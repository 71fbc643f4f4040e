//! Checks a log's directory while no gateway has it open: the evidence as `verify` does, then what is derived from it.
//! Whatever stands where something derived should is a finding like any other, and keeps nothing from being checked.
//!
//! Evidence is `frames/` and `checkpoint`; it is read, and damage in it is named. Derived are restart points, tiles,
//! entry bundles and the index: what of them does not fit the evidence can be removed and made again. While evidence
//! fails, nothing is touched, and nothing derived is judged here: there would be nothing to hold it against.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::archive::{self, Index, IndexError, Seen, TILE_DIR, Term, Tiles};
use super::restart::{self, RestartPoint};
use super::snapshots::{self, STATE_FILE_BYTES_MAX};
use super::storage::{
    Lock, RESTART_DIR, SEALING_FILE, Unusable, read_bounded, restart_file, restart_index, state_file,
    state_index,
};
use crate::clock::Clock;
use crate::limits;
use crate::merkle::tile::{Fringe, TILE_WIDTH, TilePath};
use crate::merkle::tree::leaf_hash;
use crate::merkle::trust::Trust;
use crate::model::{LeafIndex, LogOrigin, TreeSize};
use crate::verify::walk::{Step, Walk};
use crate::verify::{Check, Directory, Options, Problem, Report, Source, Verdict, verify_log_with};

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
pub fn fsck(root: &Path, trust: &Trust, repair: bool, clock: Clock) -> Result<Checked, Uncheckable> {
    let _lock = if repair { Lock::take(root)? } else { Lock::take_directory(root)? };
    let source = Directory::open(root)?;
    let verified = || verify_log_with(&source, trust, Options::default());
    let evidence = verified()?;
    let failed = Check::ALL.iter().any(|&check| {
        // Tiles are derived.
        check != Check::Tiles && evidence.verdicts.of(check) == Verdict::Fail
    });
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
    let unfit = check_restart(root, &source, trust.log(), &mut checked)?;
    let before = checked.derived_count;
    check_tiles(&mut checked);
    check_archive(root, &source, trust.log(), &mut checked)?;
    let archive_is_unfit = checked.derived_count > before;
    if root.join(SEALING_FILE).exists() {
        checked
            .notes
            .push(format!("{SEALING_FILE} is of a sealing that was cut short; the next start drops it"));
    }
    if repair && checked.derived_count > 0 {
        for file in unfit {
            remove(&root.join(file))?;
        }
        if archive_is_unfit {
            make_archive_again(root, &source, trust, clock)?;
            checked.evidence = verified()?;
        }
        checked.repaired = true;
    }
    Ok(checked)
}

/// Restart points and state snapshots. Returns the files to be removed.
fn check_restart(
    root: &Path,
    source: &Directory,
    log: &LogOrigin,
    checked: &mut Checked,
) -> Result<Vec<String>, Uncheckable> {
    let names = match names_in(&root.join(RESTART_DIR)) {
        Ok(names) => names,
        Err(why) => {
            checked.unfit(RESTART_DIR, format!("cannot be listed: {why}"));
            return Ok(vec![RESTART_DIR.to_owned()]);
        }
    };
    let points = names.iter().filter_map(|name| restart_index(name)).collect();
    let states = names.iter().filter_map(|name| state_index(name)).collect();
    let mut unfit = check_restart_points(root, points, source, log, checked)?;
    unfit.extend(check_states(root, states, source, log, checked)?);
    Ok(unfit)
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        listed => {
            for entry in listed? {
                names.extend(entry?.file_name().into_string());
            }
        }
    }
    Ok(names)
}

/// Their tag is not asked for, which would need the signing key: what they say is held against the log itself, and a
/// start asks for both.
fn check_restart_points(
    root: &Path,
    mut points: BTreeSet<LeafIndex>,
    source: &Directory,
    log: &LogOrigin,
    checked: &mut Checked,
) -> Result<Vec<String>, Uncheckable> {
    let segments = source.segments()?;
    let mut unfit = Vec::new();
    restart::derive(source, log, |truth| {
        if !points.remove(&truth.first) {
            return Ok(());
        }
        let file = restart_file(truth.first);
        let what = match read_bounded(&root.join(&file), limits::RESTART_BYTES_MAX) {
            Err(why) => format!("cannot be read: {why}"),
            Ok(bytes) => match RestartPoint::parse(&bytes, truth.first, &segments, log, |_, _| true) {
                Err(why) => why.to_string(),
                Ok(point) if !point.says_the_same(&truth) => "it says something else than the frames".into(),
                Ok(_) => return Ok(()),
            },
        };
        checked.unfit(file.as_str(), what);
        unfit.push(file);
        Ok(())
    })?;
    for first in points {
        checked.unfit(restart_file(first), "no segment begins there");
        unfit.push(restart_file(first));
    }
    Ok(unfit)
}

/// The same for state snapshots: that they are whole, and of this place and history. What they say of the state only the
/// gateway's own next start can read.
fn check_states(
    root: &Path,
    mut states: BTreeSet<LeafIndex>,
    source: &Directory,
    log: &LogOrigin,
    checked: &mut Checked,
) -> Result<Vec<String>, Uncheckable> {
    if states.is_empty() {
        return Ok(Vec::new());
    }
    let mut unfit = Vec::new();
    restart::derive(source, log, |truth| {
        if !states.remove(&truth.first) {
            return Ok(());
        }
        let file = state_file(truth.first);
        let place = (truth.first, truth.edge.root());
        let what = match read_bounded(&root.join(&file), STATE_FILE_BYTES_MAX) {
            Err(why) => format!("cannot be read: {why}"),
            Ok(bytes) => match snapshots::parse(&bytes, place, log, |_, _| true) {
                Err(why) => why.to_string(),
                Ok(_) => return Ok(()),
            },
        };
        checked.unfit(file.as_str(), what);
        unfit.push(file);
        Ok(())
    })?;
    for first in states {
        checked.unfit(state_file(first), "no segment begins there");
        unfit.push(state_file(first));
    }
    Ok(unfit)
}

/// Tiles and bundles that are there and differ from the frames, partial ones too: `verify` compares them, whether there
/// is an index or not.
fn check_tiles(checked: &mut Checked) {
    let wrong: Vec<Problem> =
        checked.evidence.problems.iter().filter(|problem| problem.check == Check::Tiles).cloned().collect();
    for Problem { file, what, .. } in wrong {
        checked.unfit(file.unwrap_or_else(|| TILE_DIR.to_owned()), what);
    }
}

/// Whether full tiles and bundles are there up to the archive's own position, and the index rows of each bundle.
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
    let mut walk = Walk::new(source, log)?;
    let (mut fringe, mut terms, mut times) = (Fringe::default(), BTreeSet::new(), BTreeSet::new());
    while fringe.size() < size {
        let Step::Frame(frame, spot) = walk.step()? else { break };
        for entry in &frame.entries {
            if fringe.size() == size {
                break;
            }
            let number = fringe.size().0 / TILE_WIDTH as u64;
            let seen = Seen::of(entry).map_err(|e| io::Error::other(format!("{spot}: {e}")))?;
            terms.extend(seen.terms());
            times.extend(seen.time.map(|time| time.unix_ms()));
            let full = fringe.append(leaf_hash(entry));
            for tile in &full {
                is_there(root, &TilePath::hashes(tile.level, tile.number), checked);
            }
            if full.is_empty() {
                continue;
            }
            is_there(root, &TilePath::entries(number), checked);
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

/// What stands there was compared already.
fn is_there(root: &Path, path: &TilePath, checked: &mut Checked) {
    let file = format!("{TILE_DIR}/{path}");
    if matches!(fs::metadata(root.join(&file)), Err(e) if e.kind() == io::ErrorKind::NotFound) {
        checked.unfit(file, "it is missing, and the index says that it is there");
    }
}

/// Removes tiles and index, and makes them again up to the checkpoint.
fn make_archive_again(
    root: &Path,
    source: &Directory,
    trust: &Trust,
    clock: Clock,
) -> Result<(), Uncheckable> {
    let not_made = |why: String| Uncheckable::NotRepaired(why);
    let note = source.checkpoint()?.ok_or_else(|| not_made("there is no checkpoint".into()))?;
    let size = trust.checkpoint(&note).map_err(|e| not_made(e.to_string()))?.checkpoint().size;
    let text: Arc<str> = String::from_utf8(note).map_err(|e| not_made(e.to_string()))?.into();
    // A directory may be a mount, and a link may lead to another disk: both stay.
    let tile_dir = root.join(TILE_DIR);
    if fs::symlink_metadata(&tile_dir).is_ok_and(|found| !found.is_dir() && !found.is_symlink()) {
        fs::remove_file(&tile_dir)?;
    }
    Tiles::new(root).clear()?;
    remove(&root.join(archive::INDEX_FILE))?;
    if archive::make(root, trust.log(), clock, text, size) {
        return Ok(());
    }
    Err(not_made("see the log for why".into()))
}

/// Whatever stands there; nothing if nothing does.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        found => {
            if found?.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            }
        }
    }
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
