//! What lies in a log's directory, counted in one reading of the frames. Verifies nothing but frames.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::archive;
use super::storage::{QUARANTINE_DIR, RESTART_DIR, STAT_BLOCK_BYTES, restart_index};
use crate::merkle::checkpoint::parse_checkpoint_unverified;
use crate::model::entry::{Entry, EntryType};
use crate::model::{LeafIndex, TreeSize};
use crate::verify::source::{Directory, Form, Source, form_file, segment_files};
use crate::verify::walk::{Step, Walk};

/// Bytes of files are as they are listed; `disk_bytes` is the room they take.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stat {
    pub log: String,
    pub leaves: u64,
    pub signed_leaves: u64,
    pub epochs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<String>,
    pub open_permits: u64,
    /// Leaves by day in UTC and by type.
    pub days: BTreeMap<String, BTreeMap<&'static str, u64>>,
    pub raw_segments: u64,
    pub raw_bytes: u64,
    pub sealed_segments: u64,
    pub sealed_bytes: u64,
    /// Bytes of the sealed segments in their raw form.
    pub sealed_from_bytes: u64,
    pub restart_points: u64,
    /// The entry that the next start reads from, at best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_restart_point: Option<LeafIndex>,
    pub tile_bytes: u64,
    pub index_bytes: u64,
    pub quarantined_files: u64,
    pub quarantined_bytes: u64,
    pub disk_bytes: u64,
    /// Where the frames end before their time, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

pub fn stat(root: &Path) -> io::Result<Stat> {
    let mut stat = Stat::default();
    // Before the frames: a running gateway may seal a segment meanwhile.
    let source = Directory::open(root)?;
    stat.count_files(root, &source)?;
    stat.read_leaves(&source)?;
    Ok(stat)
}

impl Stat {
    fn count_files(&mut self, root: &Path, source: &Directory) -> io::Result<()> {
        for (first, form) in segment_files(root)? {
            // Sealed between the listing and now: its other form is counted at the next look.
            let Some(bytes) = length(&root.join(form_file(first, form)))? else { continue };
            match form {
                Form::Raw => {
                    (self.raw_segments, self.raw_bytes) = (self.raw_segments + 1, self.raw_bytes + bytes)
                }
                Form::Sealed => {
                    self.sealed_segments += 1;
                    self.sealed_bytes += bytes;
                    // A broken one is what `damage` is about.
                    self.sealed_from_bytes += source.length(first).unwrap_or(0);
                }
            }
        }
        let mut points = BTreeSet::new();
        each_file(&root.join(RESTART_DIR), &mut |name, _| points.extend(restart_index(name)))?;
        self.restart_points = points.len() as u64;
        self.newest_restart_point = points.last().copied();
        each_file(&root.join(QUARANTINE_DIR), &mut |_, found| {
            self.quarantined_files += 1;
            self.quarantined_bytes += found.len();
        })?;
        each_file(&root.join(archive::TILE_DIR), &mut |_, found| self.tile_bytes += found.len())?;
        self.index_bytes = length(&root.join(archive::INDEX_FILE))?.unwrap_or(0);
        each_file(root, &mut |_, found| self.disk_bytes += found.blocks() * STAT_BLOCK_BYTES)
    }

    fn read_leaves(&mut self, source: &Directory) -> io::Result<()> {
        let Some(note) = source.checkpoint()? else {
            self.damage = Some("there is no checkpoint, so the log's name is not known".into());
            return Ok(());
        };
        let signed = parse_checkpoint_unverified(&note).map_err(io::Error::other)?;
        (self.log, self.signed_leaves) = (signed.origin.to_string(), signed.size.0);
        let mut walk = Walk::new(source, &signed.origin)?;
        let mut open = BTreeSet::new();
        let mut looked_again = None;
        loop {
            match walk.step()? {
                Step::Frame(frame, spot) => {
                    for (index, bytes) in (frame.first.0..).map(LeafIndex).zip(&frame.entries) {
                        let entry = Entry::from_bytes_unverified(bytes)
                            .map_err(|e| io::Error::other(format!("entry {index} in {spot}: {e}")))?;
                        self.count(index, &entry, &mut open);
                    }
                }
                Step::End(_) => break,
                Step::Damaged(damage) if damage.may_be_whole_now(&mut looked_again) => {}
                Step::Damaged(damage) => {
                    self.damage = Some(format!("{}: {}", damage.spot, damage.fault));
                    break;
                }
            }
        }
        self.open_permits = open.len() as u64;
        Ok(())
    }

    fn count(&mut self, index: LeafIndex, entry: &Entry, open: &mut BTreeSet<LeafIndex>) {
        let (entry_type, time) = match entry {
            Entry::Admin(e) => (EntryType::Admin, &e.time),
            Entry::Decision(e) => (EntryType::Decision, &e.time),
            Entry::Epoch(e) => (EntryType::Epoch, &e.time),
            Entry::Heartbeat(e) => (EntryType::Heartbeat, &e.time),
            Entry::Key(e) => (EntryType::Key, &e.time),
            Entry::Outcome(e) => (EntryType::Outcome, &e.time),
            Entry::Policy(e) => (EntryType::Policy, &e.time),
            Entry::Refusal(e) => (EntryType::Refusal, &e.time),
        };
        match entry {
            Entry::Decision(e) if e.decision == crate::model::Decision::Permit => {
                open.insert(index);
            }
            Entry::Outcome(e) => {
                open.remove(&e.decision_index);
            }
            Entry::Epoch(e) if e.event == crate::model::entry::EpochEvent::Start => self.epochs += 1,
            Entry::Admin(_)
            | Entry::Decision(_)
            | Entry::Epoch(_)
            | Entry::Heartbeat(_)
            | Entry::Key(_)
            | Entry::Policy(_)
            | Entry::Refusal(_) => {}
        }
        self.leaves += 1;
        self.first_time.get_or_insert_with(|| time.to_string());
        self.last_time = Some(time.to_string());
        let day = time.split('T').next().unwrap_or_default().to_owned();
        *self.days.entry(day).or_default().entry(type_name(entry_type)).or_default() += 1;
    }

    /// Leaves that no signature covers yet.
    pub fn unsigned_leaves(&self) -> TreeSize {
        TreeSize(self.leaves.saturating_sub(self.signed_leaves))
    }
}

fn type_name(entry_type: EntryType) -> &'static str {
    match entry_type {
        EntryType::Admin => "admin",
        EntryType::Decision => "decision",
        EntryType::Epoch => "epoch",
        EntryType::Heartbeat => "heartbeat",
        EntryType::Key => "key",
        EntryType::Outcome => "outcome",
        EntryType::Policy => "policy",
        EntryType::Refusal => "refusal",
    }
}

/// `None` if it is not there, or not any more.
fn length(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Every file below a directory; none if there is no such directory. Symbolic links are not followed.
fn each_file(dir: &Path, each: &mut dyn FnMut(&str, &fs::Metadata)) -> io::Result<()> {
    let listed = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed?,
    };
    for entry in listed {
        let entry = entry?;
        let found = match entry.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        if found.is_dir() {
            each_file(&entry.path(), each)?;
        } else {
            each(&entry.file_name().to_string_lossy(), &found);
        }
    }
    Ok(())
}
