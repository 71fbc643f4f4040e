//! The verifier against whoever does not have the key: every change is found and located, or is of no evidence, and
//! says why. Receipts, trust in several keys, checkpoints from elsewhere, logs that are being written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use interlock::limits;
use interlock::merkle::checkpoint::Checkpoint;
use interlock::merkle::frame::{self, Evidence, FrameParts};
use interlock::merkle::note::Signer;
use interlock::merkle::proof::{HashReader, prove_inclusion};
use interlock::merkle::tlog_proof::TlogProof;
use interlock::merkle::tree::{RightEdge, leaf_hash};
use interlock::merkle::trust::Trust;
use interlock::model::entry::DisclosureDigest;
use interlock::model::{Digest, LeafIndex, TreeSize, append_line};
use interlock::verify::{
    Check, Options, Report, Source, Verdict, segment_file, verify_log, verify_log_with, verify_receipt,
};
use serde_json::{Value, json};

use super::ledger_faults::{Key, ORIGIN, golden, write};

const BLOCK: usize = 4_096;
const SEGMENT_BYTES: usize = 12 * BLOCK;

/// A log in memory, by the names of its files.
#[derive(Clone, Debug, Default, PartialEq)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn segment(&self, first: LeafIndex) -> io::Result<&Vec<u8>> {
        self.0.get(&segment_file(first)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Source for Files {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        let names = self.0.keys().filter_map(|name| name.strip_prefix("frames/")?.strip_suffix(".frames"));
        Ok(names.filter_map(|digits| digits.parse().ok().map(LeafIndex)).collect())
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        Ok(self.segment(segment)?.len() as u64)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.segment(segment)?.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get("checkpoint").cloned())
    }

    fn derived(&self, path: &str, _: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
    }

    fn derived_names(&self, dir: &str) -> io::Result<Vec<String>> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(dir)?.strip_prefix('/'));
        let mut names: Vec<_> = below
            .map(|rest| match rest.split_once('/') {
                Some((name, _)) => format!("{name}/"),
                None => rest.to_owned(),
            })
            .collect();
        names.dedup();
        Ok(names)
    }
}

/// Leaves and evidence of one frame.
type Batch = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Writes a log leaf by leaf, as a ledger would and as it would not.
#[derive(Clone)]
struct Made {
    key: Key,
    /// The keys that a start lists.
    listed: Vec<String>,
    epoch: u64,
    frames: Vec<Batch>,
    leaves: Vec<Vec<u8>>,
    edge: RightEdge,
}

/// What [`Made::laid_out`] makes of frames.
struct LaidOut {
    files: Files,
    /// First entry of each frame, its segment, its offset there.
    spots: Vec<(u64, LeafIndex, usize)>,
}

/// What `outcome_with_answer` names.
const KEPT_ANSWER: &[u8] = br#"{"body":"e30=","headers":[["content-type","application/json"]],"status":201}"#;

fn canonical(value: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("canonical")
}

fn id(n: u64) -> String {
    format!("019aa159-acfb-7707-8707-{n:012x}")
}

impl Made {
    /// The start and the policy, in one frame.
    fn new(key: &Key) -> Self {
        let mut made = Self {
            key: key.clone(),
            listed: vec![key.verifier().to_string()],
            epoch: 0,
            frames: Vec::new(),
            leaves: Vec::new(),
            edge: RightEdge::empty(),
        };
        made.start(&[]);
        made
    }

    fn of_epoch(&self, mut value: Value) -> Vec<u8> {
        value["epoch"] = json!(self.epoch);
        canonical(&value)
    }

    fn event(&self, event: &str, clean: bool) -> Vec<u8> {
        self.of_epoch(json!({
            "type": "epoch", "event": event, "clean": clean, "torn_bytes": 0,
            "previous": {"size": self.edge.size(), "root": self.edge.root()},
            "binary_digest": Digest::of(b""), "config_digest": Digest::of(b""), "vkeys": self.listed,
            "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.000000Z",
        }))
    }

    fn key_leaf(&self, event: &str, vkey: &str) -> Vec<u8> {
        self.of_epoch(json!({
            "type": "key", "event": event, "vkey": vkey,
            "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.000000Z",
        }))
    }

    fn start(&mut self, changes: &[(&str, &Key)]) {
        self.epoch += 1;
        let clean = self.epoch == 1;
        let start = self.event("start", clean);
        let mut leaves = vec![start];
        leaves.extend(changes.iter().map(|(event, key)| self.key_leaf(event, &key.verifier().to_string())));
        leaves.push(self.of_epoch(golden("policy")));
        self.frame(leaves, Vec::new());
    }

    fn stop(&mut self) {
        let stop = self.event("stop", true);
        self.frame(vec![stop], Vec::new());
    }

    fn frame(&mut self, leaves: Vec<Vec<u8>>, evidence: Vec<Vec<u8>>) {
        leaves.iter().for_each(|leaf| self.edge.append(leaf_hash(leaf)));
        self.leaves.extend(leaves.iter().cloned());
        self.frames.push((leaves, evidence));
    }

    /// A frame of so many permits, and one of their outcomes and what was said of them later.
    fn permits(&mut self, count: u64) {
        let first = self.edge.size().0;
        let inputs: Vec<_> = (0..count)
            .map(|n| canonical(&json!({"surface": "payments", "n": (first + n).to_string()})))
            .collect();
        // Some claim their key and keep an answer, and of some it is said later what became of them.
        let kept = |n: u64| (first + n).is_multiple_of(3);
        let unknown = |n: u64| (first + n) % 3 == 1;
        let decisions = (0..count).zip(&inputs).map(|(n, input)| {
            let mut decision = golden(if kept(n) { "decision_of_claim" } else { "decision" });
            decision["id"] = json!(id(first + n));
            // Free-form, and so read twice; other tests have it.
            decision["reasons"][0].as_object_mut().expect("an object").remove("detail");
            decision["policy"] = golden("decision")["policy"].clone();
            decision["evaluation"]["input_digest"] = json!(Digest::of(input));
            self.of_epoch(decision)
        });
        let decisions = decisions.collect();
        self.frame(decisions, inputs);
        let outcomes = (0..count).map(|n| {
            let mut outcome = golden(if kept(n) { "outcome_with_answer" } else { "outcome" });
            if unknown(n) {
                outcome["status"] = json!("indeterminate");
            }
            self.about(outcome, first + n)
        });
        let mut settled: Vec<_> = outcomes.collect();
        let answers = (0..count).filter(|n| kept(*n)).map(|_| KEPT_ANSWER.to_vec()).collect();
        settled.extend((0..count).filter(|n| unknown(*n)).map(|n| {
            let by = if n % 2 == 0 { "outcome_by_operator" } else { "outcome_by_upstream_log" };
            let mut outcome = golden(by);
            outcome["settles"] = json!([]);
            self.about(outcome, first + n)
        }));
        let admin = ["admin", "admin_of_quarantine", "admin_of_approval"][(first % 3) as usize];
        settled.push(self.of_epoch(golden(admin)));
        let mut before = self.edge.clone();
        settled.iter().for_each(|leaf| before.append(leaf_hash(leaf)));
        let mut heartbeat = golden("heartbeat");
        heartbeat["previous"] = json!({"size": before.size(), "root": before.root()});
        settled.push(self.of_epoch(heartbeat));
        self.frame(settled, answers);
    }

    /// An outcome of the decision at this index.
    fn about(&self, mut outcome: Value, decision: u64) -> Vec<u8> {
        outcome["decision_id"] = json!(id(decision));
        outcome["decision_index"] = json!(decision);
        self.of_epoch(outcome)
    }

    fn signed(&self, keys: &[&Key]) -> Vec<u8> {
        sign(self.edge.size(), self.edge.root(), keys)
    }

    fn laid_out(&self) -> LaidOut {
        lay_out(&self.frames, &self.key, self.signed(&[&self.key]))
    }
}

fn sign(size: TreeSize, root: Digest, keys: &[&Key]) -> Vec<u8> {
    let checkpoint = Checkpoint { origin: ORIGIN.parse().expect("a name"), size, root };
    let mut notes = keys.iter().map(|key| checkpoint.sign(*key).expect("signs"));
    let first = notes.next().expect("a key");
    let more: String = notes.map(|note| format!("{}\n", note.lines().last().expect("a line"))).collect();
    format!("{first}{more}").into_bytes()
}

/// Segments of frames with right digests, chain and roots. Seals are by the key, which nobody without it can check.
fn lay_out(frames: &[Batch], key: &Key, checkpoint: Vec<u8>) -> LaidOut {
    let mut chain = frame::genesis(key.verifier().name());
    let mut edge = RightEdge::empty();
    let (mut files, mut spots) = (Files::default(), Vec::new());
    let mut segment = (LeafIndex(0), Vec::new());
    let end = |files: &mut Files, (first, mut bytes): (LeafIndex, Vec<u8>)| {
        bytes.resize(bytes.len().max(SEGMENT_BYTES), 0);
        files.0.insert(segment_file(first), bytes);
    };
    for (leaves, evidence) in frames {
        let first = LeafIndex(edge.size().0);
        leaves.iter().for_each(|leaf| edge.append(leaf_hash(leaf)));
        let parts = FrameParts {
            first,
            previous: chain,
            root: edge.root(),
            entries: leaves.iter().map(Vec::as_slice).collect(),
            evidence: evidence.iter().map(|bytes| Evidence { digest: Digest::of(bytes), bytes }).collect(),
        };
        let (bytes, closing) = frame::encode(&parts, &key.frame_key().expect("signs"));
        chain = closing;
        if segment.1.len() + bytes.len() > SEGMENT_BYTES {
            end(&mut files, std::mem::replace(&mut segment, (first, Vec::new())));
        }
        spots.push((first.0, segment.0, segment.1.len()));
        segment.1.extend(bytes);
    }
    end(&mut files, segment);
    files.0.insert("checkpoint".into(), checkpoint);
    LaidOut { files, spots }
}

fn verify(files: &Files, key: &Key) -> Report {
    verify_log(files, key.verifier()).expect("readable")
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Three segments, two runs, permits with outcomes, tiles beside it, and files that are no evidence.
fn sound() -> (Made, LaidOut) {
    let key = Key::new();
    let mut made = Made::new(&key);
    for count in [3, 5, 1, 6, 2] {
        made.permits(count);
    }
    made.start(&[]);
    for count in [4, 2, 9, 1, 5, 7] {
        made.permits(count);
    }
    made.stop();
    let mut laid_out = made.laid_out();
    let files = &mut laid_out.files.0;
    let hashes = made.leaves.iter().flat_map(|leaf| *leaf_hash(leaf).as_bytes()).collect::<Vec<u8>>();
    let bundle = |leaves: &[Vec<u8>]| {
        let entries = leaves.iter().map(|l| [&(l.len() as u16).to_be_bytes()[..], l].concat());
        entries.collect::<Vec<_>>().concat()
    };
    let size = made.leaves.len();
    assert!(size < 256 && files.len() >= 4, "{size} leaves, {} files", files.len());
    files.insert(format!("tile/0/000.p/{size}"), hashes.clone());
    files.insert("tile/0/000.p/50".into(), hashes[..1_600].to_vec());
    files.insert(format!("tile/entries/000.p/{size}"), bundle(&made.leaves));
    files.insert("frames/spare".into(), vec![0; SEGMENT_BYTES]);
    files.insert("lock".into(), b"4711".to_vec());
    files.insert("quarantine/0-0".into(), vec![7; 600]);
    files.insert("index.redb".into(), vec![8; 600]);
    (made, laid_out)
}

/// What a change is, and where its first byte is.
struct Change {
    class: &'static str,
    what: String,
    /// The frame at which it begins, or `None` if it is to no frame.
    frame: Option<usize>,
    /// Whether the bytes are no evidence, and why.
    no_evidence: Option<&'static str>,
}

impl Change {
    fn of_frame(class: &'static str, what: String, frame: usize) -> Self {
        Self { class, what, frame: Some(frame), no_evidence: None }
    }

    fn of_file(class: &'static str, what: String) -> Self {
        Self { class, what, frame: None, no_evidence: None }
    }
}

/// The frame that holds this byte of the segment, or `None` if it lies after the last one there.
fn frame_at(laid_out: &LaidOut, segment: LeafIndex, at: usize) -> Option<usize> {
    let mut of_segment = laid_out.spots.iter().enumerate().filter(|(_, (_, s, _))| *s == segment);
    let (number, (_, _, offset)) = of_segment.rfind(|(_, (_, _, offset))| *offset <= at)?;
    let bytes = &laid_out.files.segment(segment).expect("there")[*offset..];
    let length = u32::from_be_bytes(bytes[12..16].try_into().expect("4 bytes")) as usize;
    (at < offset + length.next_multiple_of(BLOCK)).then_some(number)
}

/// One change by somebody who can write every file and has no key. `None` if it changed nothing.
fn change(chance: &mut Chance, made: &Made, laid_out: &LaidOut, files: &mut Files) -> Option<Change> {
    let segments = laid_out.files.segments().expect("there");
    let segment = segments[chance.below(segments.len())];
    let last = *segments.last().expect("one");
    let name = segment_file(segment);
    let number = chance.below(laid_out.spots.len());
    let span = |n: usize| {
        let (_, segment, offset) = laid_out.spots[n];
        let bytes = &laid_out.files.segment(segment).expect("there")[offset..];
        let length = u32::from_be_bytes(bytes[12..16].try_into().expect("4 bytes")) as usize;
        (segment_file(segment), offset..offset + length.next_multiple_of(BLOCK))
    };
    let checkpoint = laid_out.files.0["checkpoint"].clone();
    let change = match chance.below(16) {
        0..=3 => {
            let (at, bit) = (chance.below(SEGMENT_BYTES), chance.below(8));
            files.0.get_mut(&name)?[at] ^= 1 << bit;
            let frame = frame_at(laid_out, segment, at);
            let in_padding = frame.is_none() && segment == last;
            Change {
                class: if frame.is_some() {
                    "a bit in a frame"
                } else {
                    "a bit after the last frame of a segment"
                },
                what: format!("bit {bit} of byte {at} of {name}"),
                frame: frame.or_else(|| laid_out.spots.iter().position(|(_, s, _)| *s > segment)),
                no_evidence: in_padding.then_some("unfinished frame"),
            }
        }
        4 => {
            let at = chance.below(SEGMENT_BYTES);
            files.0.get_mut(&name)?.truncate(at);
            let cut = laid_out.spots.iter().enumerate().filter(|(_, (_, s, _))| *s == segment);
            // The first frame of which a byte is gone.
            let frame = cut.map(|(n, _)| n).find(|n| span(*n).1.end > at);
            let padding_only = frame.is_none();
            Change {
                class: "a segment cut",
                what: format!("{name} cut at {at}"),
                frame,
                no_evidence: padding_only.then_some("zeros after the last frame of a segment may be missing"),
            }
        }
        5 => {
            let (file, range) = span(number);
            files.0.get_mut(&file)?[range].fill(0);
            Change::of_frame("a frame emptied", format!("frame {number}"), number)
        }
        6 => {
            let other = chance.below(laid_out.spots.len());
            let ((a, from), (b, to)) = (span(number), span(other));
            let length = from.len().min(to.len());
            let (left, right) =
                (laid_out.files.0[&a][from.clone()].to_vec(), laid_out.files.0[&b][to.clone()].to_vec());
            files.0.get_mut(&a)?[from.start..from.start + length].copy_from_slice(&right[..length]);
            files.0.get_mut(&b)?[to.start..to.start + length].copy_from_slice(&left[..length]);
            Change::of_frame("frames exchanged", format!("{number} and {other}"), number.min(other))
        }
        7 => {
            let (from, to) = (chance.below(SEGMENT_BYTES - 64), chance.below(SEGMENT_BYTES - 64));
            let other = segments[chance.below(segments.len())];
            let piece = laid_out.files.segment(other).expect("there")[from..from + 64].to_vec();
            files.0.get_mut(&name)?[to..to + 64].copy_from_slice(&piece);
            let (before, after) = (laid_out.files.segment(segment).expect("there"), &files.0[&name]);
            let first = before.iter().zip(after).position(|(a, b)| a != b)?;
            let frame = frame_at(laid_out, segment, first);
            let in_padding = frame.is_none() && segment == last;
            Change {
                class: "a splice from another file",
                what: format!("64 bytes from {from} of {other} to {to} of {name}"),
                frame: frame.or_else(|| laid_out.spots.iter().position(|(_, s, _)| *s > segment)),
                no_evidence: in_padding.then_some("unfinished frame"),
            }
        }
        8 => {
            files.0.remove(&name);
            let frame = laid_out.spots.iter().position(|(_, s, _)| *s == segment)?;
            Change::of_frame("a segment removed", name, frame)
        }
        9 => {
            let note = files.0.get_mut("checkpoint")?;
            let (at, bit) = (chance.below(note.len()), chance.below(8));
            match chance.below(3) {
                0 => note.truncate(at),
                _ => note[at] ^= 1 << bit,
            }
            Change::of_file("the checkpoint changed", format!("byte {at}"))
        }
        10 => {
            let forger = Key::named(ORIGIN);
            let size = TreeSize(chance.below(made.leaves.len() + 9) as u64);
            files.0.insert("checkpoint".into(), sign(size, Digest::of(b"forged"), &[&forger]));
            Change::of_file("a checkpoint by another key", format!("of {size} leaves"))
        }
        11 => {
            // Entries of one frame dropped, doubled or exchanged, and every digest after it made right again.
            let mut frames = made.frames.clone();
            let leaves = &mut frames[number].0;
            let (a, b) = (chance.below(leaves.len()), chance.below(leaves.len()));
            match chance.below(3) {
                0 if leaves.len() > 1 => drop(leaves.remove(a)),
                1 => leaves.insert(b, leaves[a].clone()),
                _ => leaves.swap(a, b),
            }
            if frames == made.frames {
                return None;
            }
            *files = relaid(&frames, files, checkpoint);
            Change::of_file("entries moved, digests made right", format!("{a}, {b} of frame {number}"))
        }
        12 => {
            // One member of one entry changed, and every digest after it made right again.
            let mut frames = made.frames.clone();
            let leaves = &mut frames[number].0;
            let at = chance.below(leaves.len());
            let digits: Vec<_> =
                leaves[at].iter().enumerate().filter(|(_, b)| b.is_ascii_digit()).map(|(n, _)| n).collect();
            let digit = digits[chance.below(digits.len())];
            leaves[at][digit] = b'0' + (leaves[at][digit] - b'0' + 1) % 10;
            *files = relaid(&frames, files, checkpoint);
            Change::of_file("an entry changed, digests made right", format!("byte {digit} of entry {at}"))
        }
        13 => {
            // Evidence exchanged, dropped or added: it is not in the tree, but entries name it.
            let mut frames = made.frames.clone();
            let evidence = &mut frames[number].1;
            match evidence.len() {
                0 => evidence.push(b"{}".to_vec()),
                count => match chance.below(3) {
                    0 => drop(evidence.remove(chance.below(count))),
                    1 => evidence.insert(chance.below(count), b"{}".to_vec()),
                    _ => evidence[chance.below(count)] = b"{\"n\":\"other\"}".to_vec(),
                },
            }
            *files = relaid(&frames, files, checkpoint);
            Change::of_frame("evidence changed, digests made right", format!("frame {number}"), number)
        }
        14 => {
            let derived: Vec<_> = files.0.keys().filter(|name| name.starts_with("tile/")).cloned().collect();
            let name = derived[chance.below(derived.len())].clone();
            let bytes = files.0.get_mut(&name)?;
            let at = chance.below(bytes.len());
            match chance.below(3) {
                0 => bytes.truncate(at),
                _ => bytes[at] ^= 1 << chance.below(8),
            }
            Change::of_file("a derived file changed", name)
        }
        _ => {
            let others = ["frames/spare", "lock", "quarantine/0-0", "index.redb"];
            let name = others[chance.below(others.len())];
            let bytes = files.0.get_mut(name)?;
            let at = chance.below(bytes.len());
            bytes[at] ^= 1 << chance.below(8);
            Change {
                class: "a file that is no evidence changed",
                what: name.into(),
                frame: None,
                no_evidence: Some("not part of the log"),
            }
        }
    };
    (*files != laid_out.files).then_some(change)
}

/// The frames laid out anew, beside the other files as they are.
fn relaid(frames: &[Batch], files: &Files, checkpoint: Vec<u8>) -> Files {
    // Whoever has no key writes seals of its own making: no verifier can tell, and the log's next start does.
    let mut relaid = lay_out(frames, &Key::named(ORIGIN), checkpoint).files;
    for (name, bytes) in files.0.iter().filter(|(name, _)| !name.ends_with(".frames")) {
        relaid.0.insert(name.clone(), bytes.clone());
    }
    relaid
}

/// Whether a report that fails says where: the frame at which the change begins, or the file.
fn is_located(report: &Report, change: &Change, laid_out: &LaidOut) -> bool {
    let named = |wanted: u64, segment: &LeafIndex, offset: &usize| {
        report.problems.iter().any(|p| {
            let in_frame =
                p.file.as_deref() == Some(&segment_file(*segment)) && p.offset == Some(*offset as u64);
            in_frame || p.index == Some(LeafIndex(wanted)) && p.file.is_some()
        })
    };
    match (change.class, change.frame) {
        // What follows the last frame of a segment is named there, for the entry that was expected.
        (_, Some(number)) => {
            let (first, segment, offset) = &laid_out.spots[number];
            // A log that is cut at the end of a frame names what is missing by the checkpoint.
            named(*first, segment, offset)
                || report.problems.iter().any(|p| p.what.contains("the log was cut"))
                    && report.size.0 <= *first
        }
        ("a derived file changed", None) => {
            let file = change.what.as_str();
            report.problems.iter().any(|p| p.file.as_deref() == Some(file) && p.index.is_some())
        }
        (_, None) => report.problems.iter().any(|p| p.file.as_deref() == Some("checkpoint")),
    }
}

/// How many changes of a class were found how.
type Counts = BTreeMap<(&'static str, &'static str), u32>;

fn chance_changes(made: &Made, laid_out: &LaidOut, mut seed: u64, wanted: u32) -> Counts {
    let mut counts: Counts = BTreeMap::new();
    while counts.values().sum::<u32>() < wanted {
        seed += 1;
        let mut files = laid_out.files.clone();
        let Some(change) = change(&mut Chance(seed), made, laid_out, &mut files) else { continue };
        let report = verify(&files, &made.key);
        let (class, what) = (change.class, &change.what);
        let found = match change.no_evidence {
            Some(why) => {
                assert!(report.passed(), "{seed}: {class}: {what}: {why}\n{report}");
                let noted = report.notes.iter().any(|note| note.contains(why));
                assert!(noted || why != "unfinished frame", "{seed}: {class}: {what}\n{report}");
                why
            }
            None => {
                assert!(!report.passed() && report.exit_code() != 0, "{seed}: {class}: {what}\n{report}");
                assert!(is_located(&report, &change, laid_out), "{seed}: {class}: {what}\n{report}");
                let first = Check::ALL.into_iter().find(|c| report.verdicts.of(*c) == Verdict::Fail);
                first.map_or("not established", Check::as_str)
            }
        };
        *counts.entry((class, found)).or_default() += 1;
    }
    counts
}

#[test]
fn ten_thousand_chance_changes_are_found_and_located_or_touch_no_evidence() {
    let (made, laid_out) = sound();
    let report = verify(&laid_out.files, &made.key);
    assert!(report.passed() && report.tiles_compared == 3 && report.notes.is_empty(), "{report}");

    // Each thread makes its own changes, the same in every run.
    let mut counts: Counts = BTreeMap::new();
    std::thread::scope(|scope| {
        let shards = [0, 1, 2, 3].map(|shard| {
            let (made, laid_out) = (&made, &laid_out);
            scope.spawn(move || chance_changes(made, laid_out, shard << 32, 2_500))
        });
        for (kind, count) in shards.into_iter().flat_map(|shard| shard.join().expect("every change is found"))
        {
            *counts.entry(kind).or_default() += count;
        }
    });
    for ((class, found), count) in &counts {
        println!("{count:6}  {class}: {found}");
    }
    let classes: std::collections::BTreeSet<_> = counts.keys().map(|(class, _)| class).collect();
    assert_eq!(classes.len(), 14, "{classes:?}");
    let of = |class: &str, found: &str| counts.get(&(class, found)).copied().unwrap_or_default();
    assert_eq!(
        of("a derived file changed", "tiles"),
        counts.iter().filter(|((c, _), _)| *c == "a derived file changed").map(|(_, n)| *n).sum::<u32>()
    );
}

#[test]
fn regrouped_frames_and_other_seals_are_the_same_evidence() {
    let (made, laid_out) = sound();
    let leaves: Vec<_> = made.frames.iter().flat_map(|(leaves, _)| leaves.clone()).collect();
    let evidence: Vec<_> = made.frames.iter().flat_map(|(_, evidence)| evidence.clone()).collect();
    let one = [(leaves, evidence)];
    let files = lay_out(&one, &Key::named(ORIGIN), laid_out.files.0["checkpoint"].clone()).files;
    let report = verify(&files, &made.key);
    assert!(report.passed(), "the signed tree is the same: {report}");
}

struct Hashes<'l>(&'l [Vec<u8>]);

impl HashReader for Hashes<'_> {
    type Error = std::convert::Infallible;

    fn subtree(&self, level: u32, position: u64) -> Result<Digest, Self::Error> {
        let from = (position << level) as usize;
        let mut edge = RightEdge::empty();
        self.0[from..from + (1 << level)].iter().for_each(|leaf| edge.append(leaf_hash(leaf)));
        Ok(edge.root())
    }
}

fn proof_of(made: &Made, index: u64) -> TlogProof {
    let checkpoint = String::from_utf8(made.signed(&[&made.key])).expect("UTF-8");
    proof_in(&made.leaves, index, checkpoint)
}

/// Of one of these leaves, in the tree of all of them.
pub(super) fn proof_in(leaves: &[Vec<u8>], index: u64, checkpoint: String) -> TlogProof {
    let (index, size) = (LeafIndex(index), TreeSize(leaves.len() as u64));
    let path = prove_inclusion(&Hashes(leaves), index, size).expect("in the tree");
    TlogProof { index, path, checkpoint }
}

#[test]
fn a_receipt_is_checked_alone_with_a_verdict_for_each_question() {
    let (made, _) = sound();
    let trust = Trust::from(made.key.verifier().clone());
    for (index, leaf) in made.leaves.iter().enumerate() {
        let report = verify_receipt(leaf, &proof_of(&made, index as u64), &trust);
        assert!(report.passed(), "{report}");
    }
    let (leaf, proof) = (&made.leaves[2], proof_of(&made, 2));
    let verdicts = |leaf: &[u8], proof: &TlogProof, trust: &Trust| {
        let report = verify_receipt(leaf, proof, trust);
        let v = report.verdicts;
        (v.well_formed, v.included, v.signed, report.exit_code())
    };
    use Verdict::{Fail, NotEstablished, Pass};
    let other = Trust::from(Key::new().verifier().clone());
    assert_eq!(verdicts(leaf, &proof, &other), (Pass, Pass, Fail, 12), "another key");
    assert_eq!(verdicts(&made.leaves[3], &proof, &trust), (Pass, Fail, Pass, 11), "another leaf");
    assert_eq!(
        verdicts(&[leaf, &b"\n"[..]].concat(), &proof, &trust),
        (Fail, Fail, Pass, 10),
        "one byte more"
    );
    let elsewhere = TlogProof { index: LeafIndex(3), ..proof.clone() };
    assert_eq!(verdicts(leaf, &elsewhere, &trust), (Pass, Fail, Pass, 11), "another index");
    let shorter = TlogProof { path: proof.path[1..].to_vec(), ..proof.clone() };
    assert_eq!(verdicts(leaf, &shorter, &trust), (Pass, Fail, Pass, 11), "a hash less");
    let bent = TlogProof { checkpoint: proof.checkpoint.replacen('\n', "\n1", 1), ..proof.clone() };
    assert_eq!(verdicts(leaf, &bent, &trust), (Pass, Fail, Fail, 11), "another size");
    let none = TlogProof { checkpoint: "nothing\n".into(), ..proof.clone() };
    assert_eq!(verdicts(leaf, &none, &trust), (Pass, NotEstablished, Fail, 12), "no checkpoint");
}

#[test]
fn both_programs_check_a_receipt_and_a_log_the_same() {
    let (made, laid_out) = sound();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    for (name, bytes) in &laid_out.files.0 {
        fs::create_dir_all(dir.path().join("log").join(name).parent().expect("a parent")).expect("made");
        write(&dir.path().join("log").join(name), bytes);
    }
    write(path("leaf.json").as_ref(), &[&made.leaves[2][..], b"\n"].concat());
    write(path("other.json").as_ref(), &made.leaves[3]);
    write(path("proof").as_ref(), proof_of(&made, 2).to_string().as_bytes());
    write(path("trust").as_ref(), format!("log {}\nquorum none\n", made.key.verifier()).as_bytes());
    write(path("kept").as_ref(), &made.signed(&[&made.key]));
    let vkey = made.key.verifier().to_string();
    let run = |args: &[&str]| {
        let [one, two] = [
            Command::new(env!("CARGO_BIN_EXE_interlock")).arg("verify").args(args).output().expect("runs"),
            Command::new(env!("CARGO_BIN_EXE_interlock-verify")).args(args).output().expect("runs"),
        ];
        assert_eq!((one.status, &one.stdout), (two.status, &two.stdout), "{args:?}");
        (one.status.code(), String::from_utf8(one.stdout).expect("UTF-8"))
    };
    let log = path("log");
    assert_eq!(run(&["--log", &log, "--key", &vkey]).0, Some(0));
    let (code, json) =
        run(&["--log", &log, "--trust", &path("trust"), "--checkpoint", &path("kept"), "--json"]);
    let report: Value = serde_json::from_str(&json).expect("json");
    assert_eq!(
        (code, &report["archived"][0]["size"], &report["verdicts"]["tiles"]),
        (Some(0), &json!(made.leaves.len()), &json!("pass"))
    );
    assert_eq!(run(&["--receipt", &path("leaf.json"), "--proof", &path("proof"), "--key", &vkey]).0, Some(0));
    assert_eq!(
        run(&["--receipt", &path("other.json"), "--proof", &path("proof"), "--trust", &path("trust")]).0,
        Some(11)
    );
    assert_eq!(run(&["--receipt", &path("leaf.json"), "--proof", &path("kept"), "--key", &vkey]).0, Some(1));
    assert_eq!(report["verdicts"]["replayed"], "not_checked");

    // The line in which receipts are listed, and what a caller has who kept the header alone.
    for (index, code) in [(2, 0), (3, 11)] {
        let mut line = Vec::new();
        append_line(&mut line, LeafIndex(index), &made.leaves[2]);
        write(path("line.json").as_ref(), &line);
        let line = run(&["--receipt", &path("line.json"), "--proof", &path("proof"), "--key", &vkey]);
        assert_eq!(line.0, Some(code), "{}", line.1);
    }
    let hash = |leaf: usize| leaf_hash(&made.leaves[leaf]);
    let base64 = base64::engine::general_purpose::STANDARD.encode(hash(2).as_bytes());
    for (leaf, code) in [
        (hash(2).to_string(), 0),
        (base64.clone(), 0),
        (format!(":{base64}:"), 0),
        (hash(3).to_string(), 11),
        ("sha-256:00".to_owned(), 2),
    ] {
        let (found, text) = run(&["--leaf", &leaf, "--proof", &path("proof"), "--key", &vkey]);
        assert_eq!(found, Some(code), "{leaf}: {text}");
        assert!(code == 2 || text.contains("well-formed  not checked"), "{text}");
    }
    for wrong in [
        &["--log", &log][..],
        &["--key", &vkey],
        &["--log", &log, "--key", &vkey, "--trust", "t"],
        &["--receipt", "r", "--key", &vkey],
        &["--leaf", &base64, "--key", &vkey],
        &["--proof", "p", "--log", &log, "--key", &vkey],
        &["--log", &log, "--receipt", "r", "--proof", "p", "--key", &vkey],
        &["--receipt", "r", "--proof", "p", "--key", &vkey, "--checkpoint", "c"],
    ] {
        assert_eq!(run(wrong).0, Some(2), "{wrong:?}");
    }
}

fn with(files: &Files, trust: &Trust, archived: Vec<(String, Vec<u8>)>) -> Report {
    verify_log_with(files, trust, Options { archived, ..Options::default() }).expect("readable")
}

fn trust_in(keys: &[&Key]) -> Trust {
    let lines: String = keys.iter().map(|key| format!("log {}\n", key.verifier())).collect();
    Trust::parse(format!("{lines}quorum none\n").as_bytes()).expect("a trust file")
}

#[test]
fn checkpoints_from_elsewhere_lie_on_the_history_or_are_named() {
    let (made, laid_out) = sound();
    let trust = Trust::from(made.key.verifier().clone());
    let at = |size: usize| {
        let mut edge = RightEdge::empty();
        made.leaves[..size].iter().for_each(|leaf| edge.append(leaf_hash(leaf)));
        (edge.size(), edge.root())
    };
    let kept = |size: usize, key: &Key| {
        let (size, root) = at(size);
        ("kept".to_owned(), sign(size, root, &[key]))
    };
    for size in [0, 1, 17, made.leaves.len()] {
        let report = with(&laid_out.files, &trust, vec![kept(3, &made.key), kept(size, &made.key)]);
        assert!(report.passed() && report.archived.len() == 2, "{report}");
    }
    let forked = ("kept".to_owned(), sign(TreeSize(17), Digest::of(b"another history"), &[&made.key]));
    let longer = ("kept".to_owned(), sign(TreeSize(10_000), Digest::of(b"later"), &[&made.key]));
    let cases = [
        (forked, "at 17 leaves root"),
        (longer, "the log was cut"),
        (kept(17, &Key::new()), "no signature by a known key"),
        (("kept".to_owned(), b"nothing".to_vec()), "not a signed note"),
    ];
    for (archived, wanted) in cases {
        let report = with(&laid_out.files, &trust, vec![archived]);
        assert_eq!((report.exit_code(), report.problem_count), (12, 1), "{report}");
        let problem = &report.problems[0];
        assert!(problem.file.as_deref() == Some("kept") && problem.what.contains(wanted), "{report}");
    }
}

/// It is in the trust file before the gateway signs with it, so whoever finds it early could sign a history of their own.
#[test]
fn a_key_that_no_leaf_of_the_log_has_named_signs_nothing_yet() {
    let (old, next) = (Key::new(), Key::new());
    let mut made = Made::new(&old);
    made.permits(1);
    made.stop();
    let check = |signers: &[&Key]| {
        let files = lay_out(&made.frames, &old, made.signed(signers)).files;
        with(&files, &trust_in(&[&old, &next]), Vec::new())
    };
    let report = check(&[&next]);
    assert_eq!((report.verdicts.signed, report.exit_code()), (Verdict::Fail, 12), "{report}");
    assert!(report.problems[0].what.contains("never named it"), "{report}");
    assert!(check(&[&old]).passed() && check(&[&old, &next]).passed());
}

#[test]
fn trust_outlives_a_rotation_and_ends_with_a_lost_key() {
    let (old, new) = (Key::new(), Key::new());
    let rotated = |event: &str| {
        let mut made = Made::new(&old);
        made.permits(2);
        made.listed = vec![new.verifier().to_string()];
        made.start(&[("add", &new), (event, &old)]);
        made.permits(1);
        made.stop();
        made
    };
    let check = |made: &Made, signers: &[&Key], trusted: &[&Key]| {
        let files = lay_out(&made.frames, &old, made.signed(signers)).files;
        with(&files, &trust_in(trusted), Vec::new())
    };
    for event in ["retire", "compromised"] {
        let made = rotated(event);
        for (signers, trusted) in
            [(&[&new][..], &[&old, &new][..]), (&[&new], &[&new]), (&[&old, &new], &[&new, &old])]
        {
            let report = check(&made, signers, trusted);
            assert!(report.passed(), "{event}: {report}");
        }
        // Its word ends where the log says so, whoever still believes it.
        for trusted in [&[&old][..], &[&old, &new]] {
            let report = check(&made, &[&old], trusted);
            assert_eq!(report.verdicts.signed, Verdict::Fail, "{event}: {report}");
            assert_eq!(report.exit_code(), 12);
        }
        // What it signed before stands.
        let mut edge = RightEdge::empty();
        made.leaves[..6].iter().for_each(|leaf| edge.append(leaf_hash(leaf)));
        let kept = vec![("kept".to_owned(), sign(edge.size(), edge.root(), &[&old]))];
        let files = lay_out(&made.frames, &old, made.signed(&[&new])).files;
        assert!(with(&files, &trust_in(&[&old, &new]), kept).passed());
    }
    // Whoever finds it cannot write it back, nor lengthen its say by a leaf that calls it compromised.
    let mut back = rotated("retire");
    back.listed.push(old.verifier().to_string());
    back.start(&[("add", &old)]);
    back.permits(1);
    let report = check(&back, &[&old], &[&old, &new]);
    assert_eq!((report.verdicts.signed, report.verdicts.epochs), (Verdict::Fail, Verdict::Fail), "{report}");
    let mut called = rotated("retire");
    let signed = called.signed(&[&old]);
    called.start(&[("compromised", &old)]);
    let files = lay_out(&called.frames, &old, signed).files;
    assert_eq!(with(&files, &trust_in(&[&old, &new]), Vec::new()).verdicts.signed, Verdict::Fail);
    // A key that no leaf added does not vouch for what came before it.
    let mut silent = Made::new(&old);
    silent.listed = vec![new.verifier().to_string()];
    silent.start(&[]);
    silent.stop();
    let report = check(&silent, &[&new], &[&new]);
    assert_eq!(report.exit_code(), 14, "{report}");
    assert!(
        report.problems.iter().any(|p| p.what.contains("other keys than the key leaves give")),
        "{report}"
    );
    assert!(
        report.problems.iter().any(|p| p.what.contains("no trusted key") && p.index == Some(LeafIndex(0))),
        "{report}"
    );
}

#[test]
fn key_leaves_that_make_no_sense_are_named() {
    let (one, two, three) = (Key::new(), Key::new(), Key::new());
    let elsewhere = Key::named("example.org/other");
    let cases: [(&[(&str, &Key)], &str); 7] = [
        (&[("add", &two), ("retire", &two), ("add", &two)], "was retired"),
        (&[("add", &one)], "signs already"),
        (&[("retire", &two)], "does not sign"),
        (&[("compromised", &two)], "never signed"),
        (&[("add", &two), ("compromised", &two), ("add", &two)], "was compromised"),
        (&[("add", &elsewhere)], "no key of this log"),
        (&[("add", &three), ("retire", &three), ("retire", &three)], "does not sign"),
    ];
    for (changes, wanted) in cases {
        let mut made = Made::new(&one);
        made.start(changes);
        made.stop();
        let report = verify(&made.laid_out().files, &one);
        assert_eq!(report.exit_code(), 14, "{report}");
        assert!(report.problems.iter().any(|p| p.what.contains(wanted)), "{wanted}: {report}");
    }
}

#[test]
fn decisions_stand_under_a_policy_of_their_epoch_and_supersede_what_was_not_sent() {
    let key = Key::new();
    let mut made = Made::new(&key);
    made.start(&[]);
    let other = |made: &Made, member: &str, value: Value| {
        let mut decision = golden("decision");
        decision["decision"] = json!("DENY");
        decision["id"] = json!(id(99));
        match member {
            "revision" => decision["policy"]["revision"] = value,
            member => decision[member] = value,
        }
        made.of_epoch(decision)
    };
    let input = vec![b"{}".to_vec()];
    let named = |made: &Made, leaf: Vec<u8>, check: Check, wanted: &str| {
        let mut made = made.clone();
        let index = made.edge.size().0;
        made.frame(vec![leaf], input.clone());
        made.stop();
        let report = verify(&made.laid_out().files, &key);
        assert_eq!((report.exit_code(), report.problem_count), (check.exit_code(), 1), "{report}");
        let problem = &report.problems[0];
        assert!(problem.index == Some(LeafIndex(index)) && problem.what.contains(wanted), "{report}");
    };
    named(&made, other(&made, "revision", json!(Digest::of(b"other"))), Check::Epochs, "of which no leaf");
    named(&made, other(&made, "supersedes", json!(id(99))), Check::WellFormed, "not itself");
    let at = made.edge.size().0;
    made.permits(3);
    let sent = id(at + 1);
    named(&made, other(&made, "supersedes", json!(sent)), Check::Paired, "which ended as confirmed");
    // Of what nobody remembers nothing is said.
    made.frame(vec![other(&made, "supersedes", json!(id(77)))], input.clone());
    made.stop();
    assert!(verify(&made.laid_out().files, &key).passed());
}

#[test]
fn a_decision_is_about_one_message_and_says_which() {
    let key = Key::new();
    let sd = |texts: &[&str]| -> Vec<String> {
        texts.iter().map(|text| DisclosureDigest::of(text).as_str().to_owned()).collect()
    };
    let many = |count: usize| {
        let mut digests = sd(&["a", "b", "c", "d", "e"][..count]);
        digests.sort();
        digests
    };
    let backwards = || many(2).into_iter().rev().collect::<Vec<_>>();
    // The target stays: three members can be left out.
    for (digests, sound) in
        [(many(3), true), (many(4), false), (many(5), false), (backwards(), false), (sd(&[]), false)]
    {
        let mut made = Made::new(&key);
        let input = canonical(&json!({}));
        let mut decision = golden("decision");
        decision["decision"] = json!("DENY");
        decision["evaluation"]["input_digest"] = json!(Digest::of(&input));
        let request = decision["request"].as_object_mut().expect("an object");
        request.retain(|name, _| !name.ends_with("digest"));
        if !digests.is_empty() {
            request.insert("_sd".into(), json!(digests));
        }
        let leaf = made.of_epoch(decision);
        made.frame(vec![leaf], vec![input]);
        made.stop();
        let report = verify(&made.laid_out().files, &key);
        assert_eq!(
            (report.passed(), report.exit_code()),
            (sound, if sound { 0 } else { 10 }),
            "{digests:?}\n{report}"
        );
    }
}

#[test]
fn permits_without_an_outcome_are_remembered_up_to_a_bound() {
    let key = Key::new();
    let bound = limits::PERMITS_IN_FLIGHT_MAX as u64;
    let mut made = Made::new(&key);
    let input = canonical(&json!({}));
    let mut decision = golden("decision");
    decision["evaluation"]["input_digest"] = json!(Digest::of(&input));
    let leaf = made.of_epoch(decision);
    for _ in 0..=bound / 512 {
        made.frame(vec![leaf.clone(); 512], vec![input.clone(); 512]);
    }
    let report = verify(&made.laid_out().files, &key);
    assert_eq!((report.verdicts.paired, report.open_count), (Verdict::Fail, bound), "{report}");
    assert_eq!(report.problem_count, 512);
}

#[test]
fn a_policy_whose_revision_is_not_that_of_its_files_is_named() {
    let key = Key::new();
    let mut made = Made::new(&key);
    let mut policy = golden("policy");
    policy["files"] = json!([{"name": "p.rego", "sha256": Digest::of(b"package p")}]);
    made.frame(vec![made.of_epoch(policy)], Vec::new());
    made.stop();
    let report = verify(&made.laid_out().files, &key);
    assert_eq!((report.exit_code(), report.problems[0].index), (15, Some(LeafIndex(2))), "{report}");
}

#[test]
fn a_policy_input_that_is_not_canonical_json_is_named() {
    for input in ["{ }", "nothing", "{\"a\":1,\"a\":1}", "1.0"] {
        let key = Key::new();
        let mut made = Made::new(&key);
        let mut decision = golden("decision");
        decision["decision"] = json!("DENY");
        decision["evaluation"]["input_digest"] = json!(Digest::of(input.as_bytes()));
        made.frame(vec![made.of_epoch(decision)], vec![input.into()]);
        made.stop();
        let report = verify(&made.laid_out().files, &key);
        assert_eq!((report.exit_code(), report.problems[0].index), (15, Some(LeafIndex(2))), "{report}");
    }
}

/// A log that grows: each look at the checkpoint finds the next state of the files.
struct Growing {
    states: Vec<Files>,
    looks: RefCell<usize>,
}

impl Growing {
    fn now(&self) -> &Files {
        &self.states[(*self.looks.borrow()).min(self.states.len() - 1)]
    }
}

impl Source for Growing {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        self.now().segments()
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        self.now().length(segment)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.now().read_at(segment, offset, buffer)
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        let found = self.now().checkpoint();
        *self.looks.borrow_mut() += 1;
        found
    }
}

#[test]
fn leaves_after_the_checkpoint_are_waited_for_and_otherwise_not_established() {
    let key = Key::new();
    let mut made = Made::new(&key);
    let mut early = None;
    let mut states = Vec::new();
    // Enough for a second segment to be begun while the log is verified.
    for round in 0..20 {
        made.permits(1);
        early.get_or_insert_with(|| made.signed(&[&key]));
        let mut state = made.laid_out();
        if round < 10 {
            state.files.0.insert("checkpoint".into(), early.clone().expect("set"));
        }
        states.push(state.files);
    }
    let run = |states: Vec<Files>, wait: u64| {
        let source = Growing { states, looks: RefCell::new(0) };
        let options = Options { wait: Duration::from_millis(wait), ..Options::default() };
        verify_log_with(&source, &Trust::from(key.verifier().clone()), options).expect("readable")
    };
    let grown = run(states.clone(), 60_000);
    assert!(grown.passed() && grown.unsigned_tail == 0 && grown.size.0 > 20, "{grown}");
    assert!(grown.notes.iter().any(|n| n.contains("is being written")), "{grown}");

    let stale = run(states[..10].to_vec(), 0);
    assert_eq!((stale.verdicts.signed, stale.exit_code()), (Verdict::NotEstablished, 12), "{stale}");
    assert!(stale.problem_count == 0 && stale.unsigned_tail > 0, "{stale}");
    assert!(stale.notes.iter().any(|n| n.contains("signed by nobody")), "{stale}");
    let stale = run(states[..10].to_vec(), 50);
    assert_eq!(stale.exit_code(), 12, "waited, and nothing came: {stale}");
}

#[test]
fn a_log_of_another_name_and_a_log_cut_at_a_frame_are_named() {
    let (made, laid_out) = sound();
    let other = Key::named("example.org/other");
    assert_eq!(verify(&laid_out.files, &other).exit_code(), 10);
    for cut in 1..made.frames.len() {
        let files = lay_out(&made.frames[..cut], &made.key, made.signed(&[&made.key])).files;
        let report = verify(&files, &made.key);
        assert_eq!(report.exit_code(), 12, "{report}");
        assert!(report.problems[0].what.contains("the log was cut"), "{report}");
    }
}

#[test]
fn whole_tiles_of_every_level_are_compared() {
    let key = Key::new();
    let mut made = Made::new(&key);
    while made.leaves.len() < 600 {
        made.permits(20);
    }
    made.stop();
    let mut files = made.laid_out().files;
    let hashes: Vec<_> = made.leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let level_0: Vec<_> = hashes.iter().flat_map(|h| *h.as_bytes()).collect();
    let level_1: Vec<_> = hashes
        .chunks_exact(256)
        .flat_map(|chunk| {
            let mut edge = RightEdge::empty();
            chunk.iter().for_each(|hash| edge.append(*hash));
            *edge.root().as_bytes()
        })
        .collect();
    files.0.insert("tile/0/000".into(), level_0[..8_192].to_vec());
    files.0.insert("tile/0/001".into(), level_0[8_192..16_384].to_vec());
    files.0.insert("tile/0/001.p/7".into(), level_0[8_192..8_192 + 224].to_vec());
    files.0.insert("tile/1/000.p/2".into(), level_1);
    files.0.insert("tile/0/002.p/255".into(), vec![0; 255 * 32]);
    files.0.insert("tile/0/000.tmp".into(), b"left by a crash".to_vec());
    let report = verify(&files, &key);
    assert!(report.passed() && report.tiles_compared == 4, "{report}");
    assert_eq!(report.notes.iter().filter(|n| n.contains("is no tile")).count(), 2, "{report}");
    for (file, index) in [("tile/0/001", 256 + 31), ("tile/0/001.p/7", 256 + 6), ("tile/1/000.p/2", 256)] {
        let mut bent = files.clone();
        let bytes = bent.0.get_mut(file).expect("there");
        let at = match file {
            "tile/0/001" => 31 * 32,
            _ => bytes.len() - 1,
        };
        bytes[at] ^= 1;
        let report = verify(&bent, &key);
        assert_eq!((report.exit_code(), report.problem_count), (16, 1), "{report}");
        assert_eq!(
            (report.problems[0].file.as_deref(), report.problems[0].index),
            (Some(file), Some(LeafIndex(index))),
            "{report}"
        );
    }
}

/// A sound run with these leaves in it, each in a frame of its own with its evidence; what is said about them. The first
/// permit is entry 2, and entry 3 if it claims.
fn told(leaves: impl IntoIterator<Item = (Value, Vec<Vec<u8>>)>) -> Report {
    let key = Key::new();
    let mut made = Made::new(&key);
    for (leaf, evidence) in leaves {
        let leaf = made.of_epoch(leaf);
        made.frame(vec![leaf], evidence);
    }
    made.stop();
    verify(&made.laid_out().files, &key)
}

fn refused(report: &Report, index: u64, check: Check, wanted: &str) {
    let problem = &report.problems[0];
    assert_eq!((report.exit_code(), report.problem_count), (check.exit_code(), 1), "{wanted}: {report}");
    assert!(problem.index == Some(LeafIndex(index)) && problem.what.contains(wanted), "{wanted}: {report}");
}

/// `base` with these members changed; null removes.
fn changed(base: &str, members: Value) -> Value {
    let mut leaf = golden(base);
    let object = leaf.as_object_mut().expect("an object");
    for (name, value) in members.as_object().expect("an object") {
        match value {
            Value::Null => drop(object.remove(name)),
            value => drop(object.insert(name.clone(), value.clone())),
        }
    }
    leaf
}

/// A decision and its input.
fn decision(base: &str, members: Value) -> (Value, Vec<Vec<u8>>) {
    let mut leaf = changed(base, members);
    leaf["policy"] = golden("decision")["policy"].clone();
    leaf["evaluation"]["input_digest"] = json!(Digest::of(b"{}"));
    (leaf, vec![b"{}".to_vec()])
}

/// An outcome of the decision at entry 2.
fn outcome(base: &str, members: Value) -> (Value, Vec<Vec<u8>>) {
    let mut leaf = changed(base, members);
    leaf["decision_index"] = json!(2);
    (leaf, Vec::new())
}

#[test]
fn an_operators_leaf_has_the_members_of_its_action_and_names_who_did_it() {
    let (actor, surface) = (json!("agent-7"), json!("payments"));
    let hold = json!(id(7));
    // Whether surface, actor and hold fit, for each action.
    let fits = |action: &str, s: bool, a: bool, h: bool| match action {
        "freeze" | "unfreeze" => !(h || s && a),
        "quarantine" | "release" => s && a && !h,
        _ => h && !s && !a,
    };
    for action in ["freeze", "unfreeze", "quarantine", "release", "approve", "refuse", "expire"] {
        for bits in 0..8 {
            let [s, a, h] = [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0];
            let or_null = |is_there: bool, value: &Value| if is_there { value.clone() } else { Value::Null };
            let members = json!({
                "action": action, "surface": or_null(s, &surface), "actor": or_null(a, &actor),
                "hold": or_null(h, &hold),
            });
            let report = told([(changed("admin", members), Vec::new())]);
            if fits(action, s, a, h) {
                assert!(report.passed(), "{action} {bits}: {report}");
            } else {
                refused(&report, 2, Check::WellFormed, "are not those of its action");
            }
        }
    }
    let nobody = changed("admin", json!({"by": {"id": "", "role": "operator"}}));
    refused(&told([(nobody, Vec::new())]), 2, Check::WellFormed, "nobody did it");
}

#[test]
fn a_decision_claims_reserves_and_is_held_only_where_that_has_a_meaning() {
    let sound = [
        decision("decision_of_claim", json!({})),
        (outcome("outcome_with_answer", json!({})).0, vec![KEPT_ANSWER.to_vec()]),
        decision("decision_of_hold", json!({})),
    ];
    let report = told(sound);
    assert!(report.passed(), "{report}");
    let wrong = |base: &str, members: Value, wanted: &str| {
        let report = told([decision(base, members)]);
        let problem = report.problems.iter().find(|problem| problem.what.contains(wanted));
        assert!(report.exit_code() == 10 && problem.is_some(), "{wanted}: {report}");
    };
    let not_permitted = [("claim", "claims a key"), ("reserves", "reserves"), ("approved_hold", "uses up")];
    for (kept, wanted) in not_permitted {
        let mut members = json!({"decision": "DENY", "claim": null, "reserves": [], "approved_hold": null});
        members
            .as_object_mut()
            .expect("an object")
            .insert(kept.into(), golden("decision_of_claim")[kept].clone());
        wrong("decision_of_claim", members, wanted);
    }
    wrong("decision_of_claim", json!({"idempotency_key": null}), "without the key");
    wrong("decision_of_claim", json!({"approved_hold": golden("decision")["id"]}), "not its own");
    wrong("decision_of_hold", json!({"decision": "DENY"}), "only an ESCALATE is held");
    wrong("decision_of_claim", json!({"claim": {"until": "tomorrow"}}), "an `until` is not");
    wrong("decision_of_hold", json!({"hold": {"id": id(7), "until": "2025-11-20"}}), "an `until` is not");
    let reserve = |member: &str, value: &str| {
        let mut reserve = golden("decision_of_claim")["reserves"][0].clone();
        reserve[member] = json!(value);
        reserve
    };
    for amount in ["", "-1", "1e3", "1.", ".5", "1.2.3", "+1", " 1", "１", &"1".repeat(65)] {
        wrong("decision_of_claim", json!({"reserves": [reserve("amount", amount)]}), "with exact amounts");
    }
    wrong("decision_of_claim", json!({"reserves": [reserve("until", "never")]}), "an `until` is not");
    let twice = [reserve("amount", "1"), reserve("amount", "2")];
    wrong("decision_of_claim", json!({"reserves": twice}), "one for each budget");
    let many: Vec<_> = (0..=limits::RESERVES_MAX).map(|n| reserve("budget", &format!("b{n}"))).collect();
    wrong("decision_of_claim", json!({"reserves": many}), "one for each budget");
}

#[test]
fn an_outcome_settles_what_was_reserved_and_keeps_an_answer_that_is_there() {
    let claimed = || decision("decision_of_claim", json!({}));
    let with = |members: Value, evidence: &[&[u8]]| {
        let (leaf, _) = outcome("outcome_with_answer", members);
        told([claimed(), (leaf, evidence.iter().map(|record| record.to_vec()).collect())])
    };
    assert!(with(json!({}), &[KEPT_ANSWER]).passed());
    refused(&with(json!({}), &[]), 3, Check::Evidence, "is not beside it");
    let other = with(json!({}), &[b"{}"]);
    assert_eq!((other.exit_code(), other.problem_count), (15, 2), "missing, and one too many: {other}");
    let loose = json!({"answer_digest": Digest::of(b"{ }")});
    refused(&with(loose, &[b"{ }"]), 3, Check::Evidence, "its kept answer");
    let unknown = json!({"status": "indeterminate", "settles": []});
    refused(&with(unknown, &[KEPT_ANSWER]), 3, Check::WellFormed, "an answer is kept");
    for settles in [json!([]), json!([{"budget": "weekly", "settled_as": "spent"}])] {
        refused(&with(json!({"settles": settles}), &[KEPT_ANSWER]), 3, Check::Paired, "other budgets");
    }
    let released = json!({"settles": [{"budget": "daily", "settled_as": "released"}]});
    refused(&with(released, &[KEPT_ANSWER]), 3, Check::WellFormed, "what it does to budgets");
}

#[test]
fn what_others_vouch_for_follows_an_outcome_that_is_not_known_and_names_who_says_so() {
    let permit = || decision("decision_of_claim", json!({}));
    let unknown = || outcome("outcome", json!({"status": "indeterminate"}));
    let by = |base: &str| outcome(base, json!({}));
    let report = told([permit(), unknown(), by("outcome_by_operator")]);
    assert!(report.passed(), "{report}");
    assert!(told([permit(), unknown(), by("outcome_by_upstream_log")]).passed());
    let twice = told([permit(), unknown(), by("outcome_by_operator"), by("outcome_by_upstream_log")]);
    refused(&twice, 5, Check::Paired, "or was attested before");
    let (known, _) = outcome("outcome_with_answer", json!({}));
    let of_known = told([permit(), (known, vec![KEPT_ANSWER.to_vec()]), by("outcome_by_operator")]);
    refused(&of_known, 4, Check::Paired, "is not `indeterminate`");
    let early = told([permit(), by("outcome_by_operator"), unknown()]);
    refused(&early, 3, Check::Paired, "is not `indeterminate`");
    let (mut other, _) = by("outcome_by_operator");
    other["decision_id"] = json!(id(99));
    refused(&told([permit(), unknown(), (other, Vec::new())]), 4, Check::Paired, "the outcome names receipt");
    let other = outcome("outcome_by_operator", json!({"settles": []}));
    refused(&told([permit(), unknown(), other]), 4, Check::Paired, "other budgets");
    let named = json!({"evidence": "ticket 7", "operator": {"id": "", "role": "operator"}});
    for (base, members, wanted) in [
        ("outcome_by_operator", json!({"attested_by": null}), "who vouches for it"),
        ("outcome_by_operator", json!({"attested_by": {"evidence": "ticket 7"}}), "names an operator"),
        ("outcome_by_operator", json!({"attestation": "upstream_log"}), "names an operator"),
        ("outcome_by_operator", json!({"attested_by": named}), "nobody vouches"),
        ("outcome_by_upstream_log", json!({"attestation": "operator"}), "names an operator"),
        ("outcome_by_operator", json!({"sent": golden("outcome")["sent"]}), "only the gateway sees"),
    ] {
        let report = told([permit(), unknown(), outcome(base, members)]);
        let problem = report.problems.iter().find(|problem| problem.what.contains(wanted));
        let index = problem.and_then(|problem| problem.index);
        assert_eq!((report.exit_code(), index), (10, Some(LeafIndex(4))), "{wanted}: {report}");
    }
    for status in ["indeterminate", "not_sent"] {
        let vague = outcome("outcome_by_operator", json!({"status": status, "settles": []}));
        let report = told([permit(), unknown(), vague]);
        assert!(report.problems[0].what.contains("is `confirmed` or `failed`"), "{report}");
    }
    let vouched = outcome("outcome", json!({"attested_by": golden("outcome_by_operator")["attested_by"]}));
    let report = told([decision("decision", json!({})), vouched]);
    refused(&report, 3, Check::WellFormed, "who vouches for it");
}

#[test]
fn a_heartbeat_that_names_another_tree_or_no_time_is_named() {
    let key = Key::new();
    let mut made = Made::new(&key);
    let right = json!({"size": made.edge.size(), "root": made.edge.root()});
    let beat = |previous: Value, every_s: u64| {
        let mut made = made.clone();
        let mut leaf = golden("heartbeat");
        leaf["previous"] = previous;
        leaf["every_s"] = json!(every_s);
        let leaf = made.of_epoch(leaf);
        made.frame(vec![leaf], Vec::new());
        made.stop();
        verify(&made.laid_out().files, &made.key)
    };
    assert!(beat(right.clone(), 1).passed());
    for wrong in [
        json!({"size": 1, "root": made.edge.root()}),
        json!({"size": made.edge.size(), "root": Digest::of(b"other")}),
    ] {
        refused(&beat(wrong, 1), 2, Check::Epochs, "another root or size");
    }
    refused(&beat(right, 0), 2, Check::WellFormed, "`every_s` is 0");
    // After the stop, in nobody's run.
    made.stop();
    let mut leaf = golden("heartbeat");
    leaf["previous"] = json!({"size": made.edge.size(), "root": made.edge.root()});
    let leaf = made.of_epoch(leaf);
    made.frame(vec![leaf], Vec::new());
    refused(
        &verify(&made.laid_out().files, &made.key),
        3,
        Check::Epochs,
        "between a stop and the next start",
    );
}
