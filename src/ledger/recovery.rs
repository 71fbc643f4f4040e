//! What a log says when it is opened, and making it fit to be appended to.
//!
//! Every frame from the newest usable restart point on, or from the first one, is walked: chain, indexes, digests and roots; and after the last checkpoint, which is what a start
//! would sign anew, the seal. A torn last write is copied to `quarantine/`
//! and cleared; anything else that is wrong refuses the start, naming file and offset. Memory grows only
//! with permits that have no outcome.
//!
//! Those permits get `indeterminate` and never `not_sent`: the log holds nothing between "receipt durable"
//! and "outcome durable", so after a crash no record can show that the first byte did not leave.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::appender::Tail;
use super::follow::{Follower, changes_of};
use super::key_events::KeysSeen;
use super::restart::{self, RestartPoint};
use super::signers::Recognized;
use super::storage::{Storage, TornRange};
use crate::limits;
use crate::merkle::checkpoint::{CheckpointError, parse_checkpoint_by_any};
use crate::merkle::frame::Frame;
use crate::merkle::note::{NoteError, parse_note_unverified};
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::model::entry::{EntryType, EpochEvent, KeyEvent};
use crate::model::{Decision, Digest, Epoch, LeafIndex, ReceiptId, Settled, TreeSize};
use crate::verify::Form;
use crate::verify::walk::{Damage, Spot, Step, Walk};

/// The log cannot be appended to; nothing was changed, unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum Unrecoverable {
    #[error("the log cannot be read: {0}")]
    Read(io::Error),
    #[error("{spot}: {fault}, where entry {index} should be{}", followed(.followed_by.as_ref()))]
    Damaged { spot: Spot, index: LeafIndex, fault: String, followed_by: Option<Spot> },
    #[error("{spot}: the entries from {first} on do not give the root that the frame names")]
    Root { spot: Spot, first: LeafIndex },
    #[error(
        "{spot}: the entries from {index} on came after the last checkpoint, and none of the log's keys sealed them: they were not written by this gateway"
    )]
    Unsealed { spot: Spot, index: LeafIndex },
    #[error("{spot}: entry {index} is not one this version can read: {why}")]
    Entry { spot: Spot, index: LeafIndex, why: String },
    #[error("the checkpoint is not one of this log and key: {0}")]
    Checkpoint(CheckpointError),
    #[error(
        "the checkpoint is not one of this log and key: {found} signed it, and no configured key did. To exchange a key, \
         start with both (`ledger.signing_key` and `ledger.also_sign_with`) before you leave the old one out"
    )]
    OtherKeys { found: String },
    #[error("the log says that {vkey} is compromised: it may not sign any more; configure another key")]
    Compromised { vkey: String },
    #[error(
        "the log says that {vkey} was retired: what it signs counts no more; leave it out, or make another new key"
    )]
    Retired { vkey: String },
    #[error(
        "the checkpoint is gone: {found} entries are there that it was signed for; bring it back, or any older one of this log"
    )]
    CheckpointGone { found: TreeSize },
    #[error("the log was cut: the checkpoint was signed for {signed} entries, the frames hold {found}")]
    Cut { signed: TreeSize, found: TreeSize },
    #[error(
        "the log was changed: at {size} entries the checkpoint was signed for root {signed}, the frames give {found}"
    )]
    Forked { size: TreeSize, signed: Digest, found: Digest },
    #[error("the torn end of the log could not be set aside: {0}")]
    Quarantine(io::Error),
}

fn followed(by: Option<&Spot>) -> String {
    by.map_or_else(String::new, |spot| format!("; the log goes on in {spot}, so this is no torn last write"))
}

/// What the leaves say, in as much memory as there are open permits. Restart points hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// PERMITs without an outcome.
    pub open: BTreeMap<LeafIndex, ReceiptId>,
    pub last_epoch: Option<Epoch>,
    pub ends_with_stop: bool,
    /// Whether anything but starts is there: then somebody was served, and a checkpoint was in place before.
    pub served: bool,
    pub keys: KeysSeen,
}

/// A log that was read to its end.
#[derive(Debug)]
pub struct Recovered {
    pub tail: Tail,
    pub fold: Fold,
    pub torn_bytes: u64,
    /// Name of the copy, if anything was torn.
    pub quarantined: Option<String>,
}

/// The members that recovery needs; the verifier reads everything.
#[derive(Clone, Debug, Deserialize)]
pub struct Glance {
    #[serde(rename = "type")]
    pub entry_type: EntryType,
    pub epoch: Epoch,
    pub id: Option<ReceiptId>,
    pub decision: Option<Decision>,
    pub decision_index: Option<LeafIndex>,
    /// Of an outcome; by the gateway, if it says nothing.
    pub attestation: Option<Settled>,
    pub event: Option<Event>,
    pub vkey: Option<Arc<str>>,
    pub vkeys: Option<Vec<Arc<str>>>,
}

/// Of an `epoch` or a `key` leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Epoch(EpochEvent),
    Key(KeyEvent),
}

impl Fold {
    /// Reads the next leaf.
    pub fn add(&mut self, index: LeafIndex, entry: &[u8]) -> Result<(), String> {
        self.apply(index, &serde_json::from_slice(entry).map_err(|e| e.to_string())?)
    }

    /// The entry at this index follows those so far.
    pub fn apply(&mut self, index: LeafIndex, seen: &Glance) -> Result<(), String> {
        self.ends_with_stop = false;
        self.last_epoch = Some(seen.epoch);
        // A start that was cut short may have written what is new about the keys, and no checkpoint.
        self.served |= !matches!(seen.event, Some(Event::Epoch(EpochEvent::Start) | Event::Key(_)));
        match seen.entry_type {
            EntryType::Decision => match (seen.decision, seen.id) {
                (Some(Decision::Permit), Some(id)) => {
                    self.open.insert(index, id);
                }
                (
                    Some(Decision::Deny | Decision::Silence | Decision::Escalate | Decision::Quarantine),
                    Some(_),
                ) => {}
                (None, _) | (_, None) => return Err("a decision without `decision` or `id`".into()),
            },
            EntryType::Outcome => {
                let of = seen.decision_index.ok_or("an outcome without `decision_index`")?;
                match seen.attestation {
                    Some(Settled::Gateway) | None => {
                        let open = self.open.remove(&of);
                        open.ok_or_else(|| format!("an outcome of entry {of}, which is no open permit"))?;
                    }
                    // After the gateway's own; which one that was is the verifier's question.
                    Some(Settled::Operator | Settled::UpstreamLog) if self.open.contains_key(&of) => {
                        return Err(format!("an attested outcome of entry {of}, which is still open"));
                    }
                    Some(Settled::Operator | Settled::UpstreamLog) => {}
                }
            }
            EntryType::Epoch => {
                self.ends_with_stop = seen.event == Some(Event::Epoch(EpochEvent::Stop));
                if !self.ends_with_stop {
                    self.keys.read_start(seen.vkeys.clone().ok_or("a start without `vkeys`")?);
                }
            }
            EntryType::Key => match (seen.event, &seen.vkey) {
                (Some(Event::Key(event)), Some(vkey)) => self.keys.read_event(event, Arc::clone(vkey)),
                (Some(Event::Epoch(_)) | None, _) | (_, None) => {
                    return Err("a key leaf without `event` or `vkey`".into());
                }
            },
            EntryType::Admin | EntryType::Heartbeat | EntryType::Policy | EntryType::Refusal => {}
        }
        Ok(())
    }
}

/// Reads the log from the newest restart point on, or all of it, and clears a torn end. What no checkpoint covers must
/// be sealed by a recognized key. The follower then has the state of all that was read; after an error, none.
pub fn recover(
    storage: &dyn Storage,
    recognized: &Recognized,
    segment_bytes: u64,
    follower: &dyn Follower,
) -> Result<Recovered, Unrecoverable> {
    let signed = match storage.checkpoint().map_err(Unrecoverable::Read)? {
        Some(note) => {
            let verified = parse_checkpoint_by_any(&note, &recognized.verifiers)
                .map_err(|error| not_ours(error, &note, recognized))?;
            Some((verified.checkpoint().size, verified.checkpoint().root))
        }
        None => None,
    };
    let log = Signed { storage, recognized, signed, follower };
    read(&log)
        .and_then(|read| make_fit(storage, read, signed, segment_bytes))
        .inspect_err(|_| follower.clear())
}

/// A log and what was signed of it.
struct Signed<'l> {
    storage: &'l dyn Storage,
    recognized: &'l Recognized,
    signed: Option<(TreeSize, Digest)>,
    follower: &'l dyn Follower,
}

/// A log as it was found.
struct Read {
    edge: RightEdge,
    fold: Fold,
    chain: Digest,
    /// Where it ends.
    end: Option<Spot>,
    torn: Option<Damage>,
    /// The last frame, if one was read, and its bytes.
    last: Option<(Spot, usize)>,
}

/// Without a checkpoint nothing shows that a restart point is not ahead of what may be built upon.
fn read(log: &Signed<'_>) -> Result<Read, Unrecoverable> {
    let point = match log.signed {
        Some((size, _)) => restart::choose(log.storage, log.recognized, size, log.follower),
        None => Ok(None),
    };
    if let Some(point) = point.map_err(Unrecoverable::Read)? {
        let first = point.first;
        match read_from(log, Some(point)) {
            Ok(read) => return Ok(read),
            // What is wrong is said by a reading of all of it.
            Err(why) => restart::pass_over(first, &why),
        }
    }
    log.follower.clear();
    read_from(log, None)
}

/// Changes nothing.
fn read_from(log: &Signed<'_>, point: Option<RestartPoint>) -> Result<Read, Unrecoverable> {
    let Signed { storage, recognized, signed, follower } = *log;
    let (walk, mut edge, mut fold) = match point {
        Some(RestartPoint { first, edge, chain, fold }) => {
            let start = Spot { segment: first, offset: 0, form: Form::Raw };
            (Walk::resume(storage, start, first, chain), edge, fold)
        }
        None => (Walk::new(storage, recognized.origin()), RightEdge::empty(), Fold::default()),
    };
    same_root(signed, &edge)?;
    let mut last = None;
    let mut walk = walk.map_err(Unrecoverable::Read)?;
    let (end, torn) = loop {
        match walk.step().map_err(Unrecoverable::Read)? {
            Step::Frame(frame, spot) => {
                add_frame(&frame, spot, &mut edge, &mut fold, signed)?;
                check_seal(&frame, spot, signed, recognized)?;
                follow(&frame, spot, follower)?;
                last = Some((spot, frame.padded_bytes));
            }
            Step::End(spot) => break (spot, None),
            Step::Damaged(damage) if damage.is_torn_tail() => break (Some(damage.spot), Some(damage)),
            Step::Damaged(Damage { spot, index, fault, followed_by, bytes: _ }) => {
                return Err(Unrecoverable::Damaged { spot, index, fault: fault.to_string(), followed_by });
            }
        }
    };
    let chain = walk.chain();
    compare(signed, &edge)?;
    if signed.is_none() && fold.served {
        return Err(Unrecoverable::CheckpointGone { found: edge.size() });
    }
    for vkey in recognized.verifiers.iter().map(ToString::to_string) {
        if fold.keys.is_compromised(&vkey) {
            return Err(Unrecoverable::Compromised { vkey });
        }
        if fold.keys.is_retired(&vkey) {
            return Err(Unrecoverable::Retired { vkey });
        }
    }
    Ok(Read { edge, fold, chain, end, torn, last })
}

/// Nothing was changed before: a log that is cut or forked stays as it was found, for whoever looks into it.
fn make_fit(
    storage: &dyn Storage,
    read: Read,
    signed: Option<(TreeSize, Digest)>,
    segment_bytes: u64,
) -> Result<Recovered, Unrecoverable> {
    let Read { edge, fold, chain, end, torn, last } = read;
    let mut torn_bytes = torn.as_ref().map_or(0, |d| d.bytes);
    let mut quarantined =
        torn.map(|d| set_aside(storage, &d)).transpose().map_err(Unrecoverable::Quarantine)?;
    // A start that was ended after it had cleared the place, and before its own leaf stood there, told nobody.
    let untold = storage.quarantined_at(LeafIndex(edge.size().0)).map_err(Unrecoverable::Read)?;
    if let Some((name, bytes)) = untold {
        torn_bytes = torn_bytes.max(bytes);
        quarantined = quarantined.or(Some(name));
    }
    // What the checkpoint covers was durable before it was signed, and what is sealed before it was sealed.
    let unsigned = signed.is_none_or(|(size, _)| size < edge.size());
    if let Some((spot, bytes)) = last.filter(|(spot, _)| unsigned && spot.form == Form::Raw) {
        rewrite(storage, spot, bytes).map_err(Unrecoverable::Read)?;
    }
    let spare = has_whole_spare(storage, segment_bytes).map_err(Unrecoverable::Read)?;
    // After a segment that is sealed the log goes on in a new one.
    let end = end.filter(|spot| spot.form == Form::Raw);
    let segment_length = match end {
        Some(spot) => storage.length(spot.segment).map_err(Unrecoverable::Read)?,
        None => 0,
    };
    let tail = Tail { edge, chain, spot: end, segment_length, spare };
    Ok(Recovered { tail, fold, torn_bytes, quarantined })
}

/// A checkpoint by other keys of the same name is one of a rotation that skipped a step.
fn not_ours(error: CheckpointError, note: &[u8], recognized: &Recognized) -> Unrecoverable {
    let lines = parse_note_unverified(note).map_or_else(|_| Vec::new(), |(_, lines)| lines);
    let origin = recognized.origin().as_str();
    let ids: Vec<_> =
        lines.iter().filter(|l| l.name == origin).map(|l| format!("{origin}+{}", l.id)).collect();
    match error {
        CheckpointError::Note(NoteError::NotSigned) if !ids.is_empty() => {
            Unrecoverable::OtherKeys { found: ids.join(", ") }
        }
        CheckpointError::Note(_) | CheckpointError::Malformed | CheckpointError::OtherLog { .. } => {
            Unrecoverable::Checkpoint(error)
        }
    }
}

/// The follower hears of a frame as the last run's follower did.
fn follow(frame: &Frame<'_>, spot: Spot, follower: &dyn Follower) -> Result<(), Unrecoverable> {
    if !follower.keeps_state() {
        return Ok(());
    }
    let changes = changes_of(frame).map_err(|(index, why)| Unrecoverable::Entry { spot, index, why })?;
    follower.apply(changes, TreeSize(frame.first.0 + frame.entries.len() as u64));
    Ok(())
}

fn add_frame(
    frame: &Frame<'_>,
    spot: Spot,
    edge: &mut RightEdge,
    fold: &mut Fold,
    signed: Option<(TreeSize, Digest)>,
) -> Result<(), Unrecoverable> {
    let first = frame.first;
    for (index, entry) in (first.0..).map(LeafIndex).zip(&frame.entries) {
        fold.add(index, entry).map_err(|why| Unrecoverable::Entry { spot, index, why })?;
        edge.append(leaf_hash(entry));
        same_root(signed, edge)?;
    }
    if edge.root() != frame.root {
        return Err(Unrecoverable::Root { spot, first });
    }
    Ok(())
}

/// At the signed size the tree has the signed root.
fn same_root(signed: Option<(TreeSize, Digest)>, edge: &RightEdge) -> Result<(), Unrecoverable> {
    match signed {
        Some((size, root)) if edge.size() == size && edge.root() != root => {
            Err(Unrecoverable::Forked { size, signed: root, found: edge.root() })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whoever can write files can write frames that chain. Only who holds the key can seal them, and only what is sealed
/// gets a signature from this start. What a checkpoint covers has one.
fn check_seal(
    frame: &Frame<'_>,
    spot: Spot,
    signed: Option<(TreeSize, Digest)>,
    recognized: &Recognized,
) -> Result<(), Unrecoverable> {
    let end = frame.first.0 + frame.entries.len() as u64;
    let covered = signed.is_some_and(|(size, _)| end <= size.0);
    if covered || recognized.sealed(frame) {
        return Ok(());
    }
    Err(Unrecoverable::Unsealed { spot, index: frame.first })
}

fn compare(signed: Option<(TreeSize, Digest)>, edge: &RightEdge) -> Result<(), Unrecoverable> {
    match signed {
        Some((size, _)) if size > edge.size() => Err(Unrecoverable::Cut { signed: size, found: edge.size() }),
        // Of an equal or smaller size: its root was compared on the way.
        Some(_) | None => Ok(()),
    }
}

/// Copies the torn bytes, then clears them. A crash in between leaves a copy and does it again.
fn set_aside(storage: &dyn Storage, damage: &Damage) -> io::Result<String> {
    let Spot { segment, offset, form: _ } = damage.spot;
    let copy = storage.quarantine(damage.index, TornRange { segment, offset, length: damage.bytes })?;
    let zeros = vec![0; limits::FRAME_ALIGNMENT_BYTES];
    let mut cleared = 0;
    while cleared < damage.bytes {
        let take = (damage.bytes - cleared).min(zeros.len() as u64) as usize;
        storage.write_at(segment, offset + cleared, &zeros[..take])?;
        cleared += take as u64;
    }
    storage.sync(segment)?;
    Ok(copy)
}

/// Writes the last frame once more, unchanged. After a failed sync the system may show bytes from memory
/// that never reached the disk; nothing may be built on them before they did.
fn rewrite(storage: &dyn Storage, spot: Spot, bytes: usize) -> io::Result<()> {
    let mut frame = vec![0; bytes];
    storage.read_at(spot.segment, spot.offset, &mut frame)?;
    storage.write_at(spot.segment, spot.offset, &frame)?;
    storage.sync(spot.segment)
}

/// A spare of another length is made anew when one is needed.
fn has_whole_spare(storage: &dyn Storage, segment_bytes: u64) -> io::Result<bool> {
    Ok(storage.spare_length()? == Some(segment_bytes))
}
