//! The verification of a whole log.
//!
//! The checkpoint is read before the frames, and the walk goes to its size. If leaves stand after it, a gateway may
//! be writing: then a newer checkpoint is waited for, and the walk ends exactly where that one does. If none comes,
//! nobody has signed those leaves.

use std::collections::BTreeMap;
use std::io;
use std::thread::{self, Scope};
use std::time::Duration;

use super::keys::Keys;
use super::leaves::Leaves;
use super::pipeline::Pipeline;
use super::prepare::{Fact, Leaf, Prepared, Raw};
use super::report::{Archived, Check, Open, Problem, Report};
use super::source::{CHECKPOINT_FILE, Source};
use super::tiles::{Against, Tiles};
use super::walk::{Damage, Spot, Step, Walk};
use crate::limits;
use crate::merkle::note::VerifierKey;
use crate::merkle::tile::{Fringe, FullTile};
use crate::merkle::trust::{SignedCheckpoint, Trust};
use crate::model::{Digest, LeafIndex, TreeSize};

/// How a log is verified.
#[derive(Default)]
pub struct Options<'o> {
    /// How long a checkpoint is waited for that covers the leaves after the one that was found.
    pub wait: Duration,
    /// Checkpoints of this log from elsewhere: name and bytes. Each must be signed and lie on the log's history.
    pub archived: Vec<(String, Vec<u8>)>,
    /// Called now and then with the leaves that were read, and how many are signed.
    pub progress: Option<Box<Progress<'o>>>,
}

/// Verifies a log against one pinned key. `Err` only if something cannot be read.
pub fn verify_log<S: Source + ?Sized>(source: &S, key: &VerifierKey) -> io::Result<Report> {
    verify_log_with(source, &Trust::from(key.clone()), Options::default())
}

/// The same against a set of keys, and with all that can be asked.
pub fn verify_log_with<S: Source + ?Sized>(
    source: &S,
    trust: &Trust,
    options: Options<'_>,
) -> io::Result<Report> {
    thread::scope(|scope| Verification::new(source, trust, options, scope)?.run())
}

/// Called with the leaves that were read, and how many are signed.
pub type Progress<'o> = dyn FnMut(TreeSize, Option<TreeSize>) + 'o;

/// While leaves are written as fast as they are read, so often a newer checkpoint is walked to as if it were the last.
const CHASES_MAX: u32 = 8;
/// Buffers of frames that were looked through, kept for frames to come.
const SPARE_BUFFERS_MAX: usize = 64;

/// Where the walk is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Towards {
    /// The size of the newest checkpoint; if leaves stand after it, a newer one is looked for.
    Checkpoint(TreeSize),
    /// The size of a checkpoint that came while unsigned leaves were there: the walk ends there.
    NewCheckpoint(TreeSize),
    /// Nothing is signed from here on.
    End,
}

struct Verification<'v, 'scope, 'env, S: Source + ?Sized> {
    source: &'v S,
    trust: &'v Trust,
    wait: Duration,
    walk: Walk<'v, S>,
    pipeline: Pipeline<'scope, 'env>,
    pass: Pass<'v>,
    towards: Towards,
    chases: u32,
    /// Leaves that were walked over.
    walked: TreeSize,
    spare: Vec<Vec<u8>>,
}

impl<'v, 'scope, 'env, S: Source + ?Sized> Verification<'v, 'scope, 'env, S> {
    fn new(
        source: &'v S,
        trust: &'v Trust,
        options: Options<'v>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> io::Result<Self> {
        let Options { wait, archived, progress } = options;
        let mut pass = Pass::new(source, trust, Against::Frames, progress);
        for (name, note) in archived {
            pass.checkpoint(name, Some(&note), trust, true);
        }
        let signed = match source.checkpoint() {
            // Something else stands in its place: the frames can be judged without it.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                pass.report.problem(of_file(CHECKPOINT_FILE.into(), format!("cannot be read: {e}")));
                None
            }
            note => pass.checkpoint(CHECKPOINT_FILE.into(), note?.as_deref(), trust, false),
        };
        Ok(Self {
            source,
            trust,
            wait,
            walk: Walk::new(source, trust.log())?,
            pipeline: Pipeline::new(scope),
            pass,
            towards: signed.map_or(Towards::End, Towards::Checkpoint),
            chases: 0,
            walked: TreeSize(0),
            spare: Vec::new(),
        })
    }

    fn run(mut self) -> io::Result<Report> {
        let mut looked_again = None;
        let mut listed_again = None;
        while !self.has_arrived() {
            let is_short = self.is_short();
            match self.walk.step()? {
                Step::Frame(frame, spot) => {
                    let end = TreeSize(frame.first.0 + frame.entries.len() as u64);
                    drop(frame);
                    let spare = self.spare.pop().unwrap_or_default();
                    let bytes = self.walk.swap_buffer(spare);
                    self.look_for_checkpoint()?;
                    self.walked = end;
                    let prepared = self.pipeline.put(Raw { bytes, spot });
                    self.take(prepared);
                }
                Step::End(_) if is_short && listed_again.replace(self.walked) != Some(self.walked) => {
                    self.walk.look_again()?;
                }
                Step::End(_) => break,
                Step::Damaged(damage) if damage.may_be_whole_now(&mut looked_again) => {}
                Step::Damaged(damage) => {
                    self.drain();
                    self.pass.damage(&damage);
                    break;
                }
            }
        }
        self.drain();
        Ok(self.pass.finish(self.source))
    }

    fn drain(&mut self) {
        loop {
            let prepared = self.pipeline.drain();
            if prepared.is_empty() {
                return;
            }
            self.take(prepared);
        }
    }

    fn take(&mut self, prepared: Vec<Prepared>) {
        for frame in prepared {
            let buffer = self.pass.frame(self.source, frame);
            if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= limits::VERIFY_BATCH_BYTES {
                self.spare.push(buffer);
            }
        }
    }

    /// More leaves are signed than were walked over: a segment may have been begun since the walk began.
    fn is_short(&self) -> bool {
        match self.towards {
            Towards::Checkpoint(size) | Towards::NewCheckpoint(size) => self.walked < size,
            Towards::End => false,
        }
    }

    /// Whether the walk has come to where it ends, whatever follows.
    fn has_arrived(&mut self) -> bool {
        let Towards::NewCheckpoint(size) = self.towards else { return false };
        self.pass.is_live = self.walked >= size;
        self.pass.is_live
    }

    /// Called with a frame in hand: if all that is signed lies before it, looks for a newer checkpoint.
    fn look_for_checkpoint(&mut self) -> io::Result<()> {
        let Towards::Checkpoint(size) = self.towards else { return Ok(()) };
        if self.walked < size {
            return Ok(());
        }
        // Published while the walk was on its way: leaves may stand after that one too.
        if let Some(newer) = self.newer_checkpoint(size)? {
            self.chases += 1;
            let is_last = self.chases > CHASES_MAX;
            self.towards = if is_last { Towards::NewCheckpoint(newer) } else { Towards::Checkpoint(newer) };
            return Ok(());
        }
        let pause = Duration::from_millis(limits::CHECKPOINT_POLL_MS);
        let mut waited = Duration::ZERO;
        while waited < self.wait {
            thread::sleep(pause.min(self.wait - waited));
            waited += pause;
            if let Some(newer) = self.newer_checkpoint(size)? {
                self.towards = Towards::NewCheckpoint(newer);
                return Ok(());
            }
        }
        self.towards = Towards::End;
        Ok(())
    }

    /// The size of a checkpoint that covers more than `size` leaves. One that is not good is not looked at: the
    /// newest good one counts.
    fn newer_checkpoint(&mut self, size: TreeSize) -> io::Result<Option<TreeSize>> {
        let note = self.source.checkpoint()?;
        let signed = note.and_then(|note| self.trust.checkpoint(&note).ok());
        let newer = signed.filter(|signed| signed.checkpoint().size > size);
        Ok(newer.map(|signed| self.pass.expect(CHECKPOINT_FILE.into(), signed, false)))
    }
}

/// A checkpoint whose root is compared when the tree has its size.
struct Expected {
    file: String,
    signed: SignedCheckpoint,
}

pub(super) struct Pass<'v> {
    pub report: Report,
    progress: Option<Box<Progress<'v>>>,
    /// By size; taken out when the tree has it.
    expected: BTreeMap<TreeSize, Vec<Expected>>,
    /// Those that were compared, and are right.
    met: Vec<Expected>,
    /// The newest checkpoint of the log itself, met or not.
    newest: Option<SignedCheckpoint>,
    pub tree: Fringe,
    leaves: Leaves,
    pub tiles: Tiles,
    /// What fails if the entries do not give the root that was signed: with frames, which name their roots, the signature.
    root_is: Check,
    /// Where the first start stands that lists no trusted key.
    strange: Option<Place>,
    pub walked_to_end: bool,
    /// Entries are missing among those that were read: what the others owe to them is not known.
    pub entries_missing: bool,
    /// The walk ended at a checkpoint and not at the end of the log.
    is_live: bool,
}

impl<'v> Pass<'v> {
    pub fn new<S: Source + ?Sized>(
        source: &S,
        trust: &Trust,
        against: Against,
        progress: Option<Box<Progress<'v>>>,
    ) -> Self {
        let tree = Fringe::default();
        let mut report = Report::new(trust, tree.root());
        let tiles = Tiles::new(source, against, &mut report);
        Self {
            report,
            progress,
            expected: BTreeMap::new(),
            met: Vec::new(),
            newest: None,
            tree,
            leaves: Leaves::new(Keys::new(trust)),
            tiles,
            root_is: match against {
                Against::Frames => Check::Signed,
                Against::Bundles => Check::Included,
            },
            strange: None,
            walked_to_end: true,
            entries_missing: false,
            is_live: false,
        }
    }

    /// Reads a checkpoint and expects its root; returns its size.
    pub fn checkpoint(
        &mut self,
        file: String,
        note: Option<&[u8]>,
        trust: &Trust,
        archived: bool,
    ) -> Option<TreeSize> {
        let signed = match note {
            None => Err("there is no checkpoint".to_owned()),
            Some(note) => trust.checkpoint(note).map_err(|e| e.to_string()),
        };
        match signed {
            Ok(signed) => Some(self.expect(file, signed, archived)),
            Err(what) => {
                self.report.problem(of_file(file, what));
                None
            }
        }
    }

    fn expect(&mut self, file: String, signed: SignedCheckpoint, archived: bool) -> TreeSize {
        let size = signed.checkpoint().size;
        if archived {
            self.report.archived.push(Archived { file: file.clone(), size });
        } else {
            self.newest = Some(signed.clone());
            self.report.signed_size = Some(size);
            self.report.signed_by = signed.signers().iter().map(ToString::to_string).collect();
        }
        self.expected.entry(size).or_default().push(Expected { file, signed });
        self.compare();
        size
    }

    /// Compares the checkpoints of the tree as it is now.
    fn compare(&mut self) {
        let Some(expected) = self.expected.remove(&self.tree.size()) else { return };
        let root = self.tree.root();
        for expected in expected {
            let named = expected.signed.checkpoint();
            if named.root == root {
                self.met.push(expected);
                continue;
            }
            let what =
                format!("at {} leaves root {} was signed, the entries give {root}", named.size, named.root);
            self.report.problem(Problem { check: self.root_is, ..of_file(expected.file, what) });
        }
    }

    /// Takes the next frame; gives its buffer back.
    fn frame<S: Source + ?Sized>(&mut self, source: &S, prepared: Prepared) -> Vec<u8> {
        let Prepared { raw: Raw { bytes, spot }, first, root, leaves, complaints } = prepared;
        for (at_leaf, (check, what)) in complaints {
            self.report.problem(at(check, LeafIndex(first.0 + at_leaf as u64), spot, what));
        }
        let mut full = Vec::new();
        for Leaf { hash, fact } in leaves {
            self.take(fact, || Place::of(spot));
            full.extend(self.append(hash));
        }
        if self.tree.root() != root {
            let what = format!("the leaves give root {}, the frame names {root}", self.tree.root());
            self.report.problem(at(Check::Included, first, spot, what));
        }
        self.tiles.frame(source, &bytes, full, &mut self.report);
        self.progress();
        bytes
    }

    pub fn progress(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress(self.tree.size(), self.report.signed_size);
        }
    }

    /// What the next leaf says, before it is appended to the tree.
    pub fn take(&mut self, fact: Fact, place: impl Fn() -> Place) {
        let index = LeafIndex(self.tree.size().0);
        for (check, what) in self.leaves.take(fact, &self.tree) {
            self.report.problem(place().problem(check, index, what));
        }
        if self.strange.is_none() && self.leaves.keys.first_strange() == Some(index) {
            self.strange = Some(place());
        }
    }

    /// The hash of the next leaf. What becomes full is given back.
    pub fn append(&mut self, hash: Digest) -> Vec<FullTile> {
        let full = self.tree.append(hash);
        self.compare();
        full
    }

    fn damage(&mut self, damage: &Damage) {
        let Damage { spot, index, fault, bytes, followed_by } = damage;
        let signed_size = self.newest.as_ref().map_or(TreeSize(u64::MAX), |c| c.checkpoint().size);
        if damage.is_torn_tail() && index.0 >= signed_size.0 {
            self.report.notes.push(format!(
                "{bytes} bytes of an unfinished frame at the end, after everything that was signed ({spot}): \
                 a gateway is writing, or was killed"
            ));
            return;
        }
        let after = followed_by
            .map_or_else(|| "nothing follows".to_owned(), |next| format!("the log goes on in {next}"));
        self.report.problem(at(Check::Frames, *index, *spot, format!("{fault}; {after}")));
        self.walked_to_end = false;
    }

    pub fn finish<S: Source + ?Sized>(mut self, source: &S) -> Report {
        self.report.size = self.tree.size();
        self.report.root = self.tree.root();
        self.report.epochs = self.leaves.epochs;
        self.report.decisions = self.leaves.decisions;
        self.report.permits = self.leaves.permits;
        self.finish_open();
        self.finish_signed();
        self.finish_keys();
        self.tiles.finish(source, &self.tree, &mut self.report);
        if !self.walked_to_end {
            for check in Check::ALL {
                self.report.not_established(check);
            }
        }
        self.report
    }

    fn finish_open(&mut self) {
        if self.entries_missing {
            return;
        }
        self.report.open_count = self.leaves.open.len() as u64;
        let named = self.leaves.open.iter().take(limits::PROBLEMS_NAMED_MAX);
        self.report.open = named.map(|(&index, open)| Open { index, id: open.id }).collect();
        if !self.walked_to_end {
            return;
        }
        if self.report.open_count > 0 && !self.is_live {
            let note = format!(
                "{} permits have no outcome yet, and `paired` is about the others: the next start settles them",
                self.report.open_count
            );
            self.report.notes.push(note);
        }
        if self.tree.size() == TreeSize(0) {
            self.report.problem(Problem {
                check: Check::Epochs,
                index: None,
                file: None,
                offset: None,
                what: "the log is empty: not even a start".into(),
            });
        } else if self.is_live {
            let size = self.tree.size();
            let note = format!("the log is being written: verified up to its checkpoint of {size} leaves");
            self.report.notes.push(note);
        } else if !self.leaves.ends_with_stop() {
            self.report
                .notes
                .push("the log does not end with a stop: a gateway is running, or was killed".into());
        }
    }

    fn finish_signed(&mut self) {
        let size = self.tree.size();
        // Of a log that could not be read to the end, what is missing says nothing more.
        if self.walked_to_end {
            for expected in std::mem::take(&mut self.expected).into_values().flatten() {
                let signed = expected.signed.checkpoint().size;
                let what = format!("{signed} leaves were signed, the log holds {size}: the log was cut");
                self.report.problem(of_file(expected.file, what));
            }
        }
        for Expected { file, signed } in std::mem::take(&mut self.met) {
            let size = signed.checkpoint().size;
            let keys = &self.leaves.keys;
            let may_sign =
                |key| keys.may_sign(key, size) && (self.entries_missing || keys.is_named(key, size));
            if !signed.signers().iter().any(may_sign) {
                let what = format!(
                    "the log had retired every key that signed these {size} leaves, or lost it, or never named it"
                );
                self.report.problem(of_file(file, what));
            }
        }
        let Some(newest) = &self.newest else { return };
        let tail = size.0.saturating_sub(newest.checkpoint().size.0);
        self.report.unsigned_tail = tail;
        if tail == 0 {
            return;
        }
        if self.leaves.ends_with_stop() && self.walked_to_end {
            let what = format!("the log ends with a clean stop, and yet {tail} leaves are not signed");
            self.report.problem(of_file(CHECKPOINT_FILE.into(), what));
            return;
        }
        self.report.not_established(Check::Signed);
        self.report.notes.push(format!(
            "{tail} leaves after the checkpoint are signed by nobody: a gateway was killed, or somebody added them; \
             the next start tells which"
        ));
    }

    /// A start that lists no trusted key stands if a trusted key was added later, and signed over it.
    fn finish_keys(&mut self) {
        let Some(place) = self.strange.take() else { return };
        let signed = self.newest.as_ref();
        let (signers, size) = signed.map_or((&[][..], TreeSize(0)), |s| (s.signers(), s.checkpoint().size));
        if let Some((first, count)) = self.leaves.keys.strange_starts(signers, size) {
            let more = if count > 1 { format!(", and {} later starts", count - 1) } else { String::new() };
            let what = format!("no trusted key is among the keys of this epoch{more}");
            self.report.problem(place.problem(Check::Epochs, first, what));
        }
    }
}

/// Where a leaf was read.
pub(super) struct Place {
    pub file: String,
    /// Of its frame.
    pub offset: Option<u64>,
}

impl Place {
    fn of(spot: Spot) -> Self {
        Self { file: spot.file(), offset: Some(spot.offset) }
    }

    pub fn problem(self, check: Check, index: LeafIndex, what: String) -> Problem {
        Problem { check, index: Some(index), file: Some(self.file), offset: self.offset, what }
    }
}

fn at(check: Check, index: LeafIndex, spot: Spot, what: String) -> Problem {
    Place::of(spot).problem(check, index, what)
}

fn of_file(file: String, what: String) -> Problem {
    Problem { check: Check::Signed, index: None, file: Some(file), offset: None, what }
}
