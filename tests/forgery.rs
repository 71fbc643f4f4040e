//! Somebody who may write the log's directory, has read the verifier, and has no key. Each attempt is made on a log as a
//! gateway leaves it: two sealed segments, one that is not, tiles, an index. What no verifier can see in one directory
//! alone, a checkpoint that was kept elsewhere shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use interlock::ledger::Closed;
use interlock::limits;
use interlock::merkle::checkpoint::Checkpoint;
use interlock::merkle::frame::{self, Evidence, FrameParts};
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::merkle::tree::{RightEdge, leaf_hash};
use interlock::merkle::trust::Trust;
use interlock::model::{Digest, LeafIndex};
use interlock::verify::seekable::{BlockWriter, table};
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Check, Directory, Options, Report, Verdict, verify_log_with};
use serde_json::{Value, json};

use super::ledger_faults::{FIRST_SEGMENT, Key, Log, ORIGIN, SEGMENT_BYTES, interlock, verify, write};
use super::ledger_sealed::{FIRST_SEALED, SECOND_SEALED, sealed_log};

const THIRD: &str = "frames/00000000000000000128.frames";

/// A segment's sealed form, by anybody.
fn sealed(raw: &[u8]) -> Vec<u8> {
    let mut writer = BlockWriter::new().expect("a compressor");
    let (mut out, mut blocks) = (Vec::new(), Vec::new());
    for piece in raw.chunks(limits::SEALED_BLOCK_BYTES) {
        let block = writer.block(piece).expect("compressed");
        blocks.push((block.len() as u32, piece.len() as u32));
        out.extend(block);
    }
    out.extend(table(&blocks));
    out
}

fn raw(sealed: &[u8]) -> Vec<u8> {
    zstd::stream::decode_all(sealed).expect("any decoder reads it")
}

fn put(log: &Log, file: &str, bytes: &[u8]) {
    let path = log.path(file);
    // Full tiles are read-only.
    let _ = fs::remove_file(&path);
    fs::create_dir_all(path.parent().expect("it has one")).expect("made");
    write(&path, bytes);
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("readable").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir_all(&to).expect("made");
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
}

#[track_caller]
fn found(report: &Report, check: Check, file: &str, what: &str) {
    let is_it = |p: &&interlock::verify::Problem| {
        p.check == check && p.file.as_deref() == Some(file) && p.what.contains(what)
    };
    assert!(report.problems.iter().any(|p| is_it(&p)), "{check:?} {file} `{what}`:\n{report}");
    assert_eq!(report.verdicts_of(check), Verdict::Fail);
    assert_ne!(report.exit_code(), 0, "{report}");
}

trait Of {
    fn verdicts_of(&self, check: Check) -> Verdict;
}

impl Of for Report {
    fn verdicts_of(&self, check: Check) -> Verdict {
        self.verdicts.of(check)
    }
}

/// Leaves and evidence of every frame.
type Frames = Vec<(Vec<Vec<u8>>, Vec<Vec<u8>>)>;

fn frames_of(dir: &Path, key: &VerifierKey) -> Frames {
    let source = Directory::open(dir).expect("a log");
    let mut walk = Walk::new(&source, key.name()).expect("readable");
    let mut frames = Vec::new();
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        let entries = frame.entries.iter().map(|entry| entry.to_vec()).collect();
        frames.push((entries, frame.evidence.iter().map(|record| record.bytes.to_vec()).collect()));
    }
    frames
}

/// Writes frames as the log's own, with all that needs no key: indexes, chain, roots, digests.
fn lay(log: &Log, frames: &Frames) {
    fs::remove_dir_all(log.path("frames")).expect("removed");
    let stranger = Key::named(ORIGIN);
    let mut edge = RightEdge::empty();
    let mut chain = frame::genesis(log.key.verifier().name());
    let mut bytes = Vec::new();
    for (entries, evidence) in frames {
        let first = LeafIndex(edge.size().0);
        entries.iter().for_each(|entry| edge.append(leaf_hash(entry)));
        let parts = FrameParts {
            first,
            previous: chain,
            root: edge.root(),
            entries: entries.iter().map(Vec::as_slice).collect(),
            evidence: evidence.iter().map(|bytes| Evidence { digest: Digest::of(bytes), bytes }).collect(),
        };
        let (encoded, closing) = frame::encode(&parts, &stranger.frame_key().expect("signs"));
        chain = closing;
        bytes.extend(encoded);
    }
    put(log, FIRST_SEGMENT, &bytes);
}

#[tokio::test]
async fn sealed_segments_that_are_exchanged_doubled_or_gone_are_named() {
    let log = sealed_log().await;
    let (first, second) =
        (fs::read(log.path(FIRST_SEALED)).expect("there"), fs::read(log.path(SECOND_SEALED)).expect("there"));
    put(&log, FIRST_SEALED, &second);
    put(&log, SECOND_SEALED, &first);
    found(&log.verify(), Check::Frames, FIRST_SEALED, "begins with entry 64, expected entry 0");
    put(&log, FIRST_SEALED, &first);
    found(&log.verify(), Check::Frames, SECOND_SEALED, "begins with entry 0, expected entry 64");
    fs::remove_file(log.path(SECOND_SEALED)).expect("removed");
    found(&log.verify(), Check::Frames, THIRD, "named for entry 128, expected entry 64");
    put(&log, SECOND_SEALED, &second);
    assert!(log.verify().passed());
    // A raw one beside it counts, whatever it holds; and one that is the same is the same.
    let mut beside = raw(&second);
    put(&log, SECOND_SEALED.trim_end_matches(".zst"), &beside);
    assert!(log.verify().passed());
    beside[4_096 + 300] ^= 1;
    put(&log, SECOND_SEALED.trim_end_matches(".zst"), &beside);
    found(&log.verify(), Check::Frames, SECOND_SEALED.trim_end_matches(".zst"), "");
    fs::remove_file(log.path(SECOND_SEALED.trim_end_matches(".zst"))).expect("removed");
    // The same bytes, compressed once more by somebody else, are the same segment.
    put(&log, FIRST_SEALED, &sealed(&raw(&first)));
    assert!(log.verify().passed());
}

#[tokio::test]
async fn bytes_behind_the_last_block_of_a_segment_are_no_place_to_hide() {
    let log = sealed_log().await;
    let second = fs::read(log.path(SECOND_SEALED)).expect("there");
    let whole = raw(&second);
    assert_eq!(whole.len() as u64, SEGMENT_BYTES);
    assert!(whole[whole.len() - 4_096..].starts_with(b"ILKFRAME"), "the segment is full to its end");
    let with = |tail: &[u8]| [&whole[..], tail].concat();
    let raw_file = SECOND_SEALED.trim_end_matches(".zst");
    put(&log, SECOND_SEALED, &sealed(&with(b"hidden")));
    found(&log.verify(), Check::Frames, SECOND_SEALED, "after the last whole block");
    fs::remove_file(log.path(SECOND_SEALED)).expect("removed");
    put(&log, raw_file, &with(b"hidden"));
    found(&log.verify(), Check::Frames, raw_file, "after the last whole block");
    // Zeros are nothing, as everywhere behind the last frame.
    put(&log, raw_file, &with(&[0; 100]));
    assert!(log.verify().passed());
    put(&log, raw_file, &whole);
    let last = fs::read(log.path(THIRD)).expect("there");
    put(&log, THIRD, &[&last[..], b"hidden"].concat());
    let report = log.verify();
    assert!(!report.passed() && report.problems[0].file.as_deref() == Some(THIRD), "{report}");
    // No start takes that for a torn write.
    assert!(log.open().is_err());
    // A file that says that it is longer than any segment costs no more than one.
    put(&log, THIRD, &last);
    let file = fs::OpenOptions::new().write(true).open(log.path(THIRD)).expect("there");
    file.set_len(1 << 42).expect("sparse");
    let began = Instant::now();
    found(&log.verify(), Check::Frames, THIRD, "more than one can have");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_bent_tile_is_found_in_a_crowd_of_other_names() {
    let log = sealed_log().await;
    let partial = format!("tile/0/000.p/{}", log.verify().size);
    let mut bent = fs::read(log.path(&partial)).expect("there");
    bent[40] ^= 1;
    put(&log, &partial, &bent);
    found(&log.verify(), Check::Tiles, &partial, "from byte 40");
    for n in 0..limits::DERIVED_NAMES_MAX {
        put(&log, &format!("tile/0/000.p/x{n}"), b"");
    }
    found(&log.verify(), Check::Tiles, "tile/0/000.p", "more than 4096 names");
}

/// The next start reads from its restart point on, and so does not see what stands beside an older sealed segment.
#[tokio::test]
async fn what_is_no_segment_never_replaces_a_sealed_one() {
    let log = sealed_log().await;
    let sound = fs::read(log.path(FIRST_SEALED)).expect("there");
    let whole = raw(&sound);
    let mut bent = whole.clone();
    bent[20 * 4_096 + 300] ^= 1;
    let mut ends_badly = whole[..whole.len() - 4_096].to_vec();
    ends_badly.extend([7; 4_096]);
    let other = raw(&fs::read(log.path(SECOND_SEALED)).expect("there"));
    let zeros = vec![0; whole.len()];
    for rubbish in [b"rubbish".to_vec(), zeros, bent, ends_badly, other] {
        put(&log, FIRST_SEGMENT, &rubbish);
        let (ledger, _) = log.open().expect("opens");
        log.fill(&ledger, 2).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
        assert!(fs::read(log.path(FIRST_SEALED)).expect("there") == sound, "evidence is not overwritten");
        assert!(fs::read(log.path(FIRST_SEGMENT)).expect("there") == rubbish, "for `verify` to name");
        assert!(!log.verify().passed());
    }
    fs::remove_file(log.path(FIRST_SEGMENT)).expect("removed");
    assert!(log.verify().passed(), "{}", log.verify());
}

/// Every leaf of the log, as values.
fn leaves(frames: &Frames) -> Vec<Value> {
    frames.iter().flat_map(|(entries, _)| entries).map(|e| serde_json::from_slice(e).expect("JSON")).collect()
}

#[tokio::test]
async fn whoever_writes_frames_without_the_key_gets_past_no_checkpoint() {
    let log = sealed_log().await;
    let frames = frames_of(log.dir.path(), log.key.verifier());
    let at_checkpoint = |what: &str| {
        let report = log.verify();
        assert!(!report.passed(), "{what}: {report}");
        report
    };
    // The same leaves in frames of somebody else's are the same evidence.
    lay(&log, &frames);
    assert!(log.verify().passed());

    // A leaf less, twice, another one, in another order.
    let without =
        |n: usize| frames.iter().enumerate().filter(|(at, _)| *at != n).map(|(_, f)| f.clone()).collect();
    lay(&log, &without(70));
    let report = at_checkpoint("a leaf less");
    found(&report, Check::Signed, "checkpoint", "the log was cut");
    let mut twice = frames.clone();
    twice.insert(70, frames[70].clone());
    lay(&log, &twice);
    found(&at_checkpoint("a leaf twice"), Check::Signed, "checkpoint", "the entries give");
    let mut swapped = frames.clone();
    swapped.swap(70, 71);
    lay(&log, &swapped);
    found(&at_checkpoint("two leaves exchanged"), Check::Signed, "checkpoint", "the entries give");

    // A run twice: start to stop, once more after it.
    let mut doubled = frames.clone();
    doubled.extend(frames.clone());
    lay(&log, &doubled);
    let report = at_checkpoint("a run twice");
    found(&report, Check::Epochs, FIRST_SEGMENT, "epoch 1 starts, expected epoch 2");
    found(&report, Check::Signed, "checkpoint", "leaves are not signed");

    // A tail that fits as well as a tail can: a run of the same keys that found the right tree.
    let mut edge = RightEdge::empty();
    frames.iter().flat_map(|(entries, _)| entries).for_each(|entry| edge.append(leaf_hash(entry)));
    let all = leaves(&frames);
    let mut tail = frames.clone();
    for event in ["start", "stop"] {
        let mut leaf = all.iter().find(|leaf| leaf["event"] == *event).expect("one").clone();
        leaf["epoch"] = json!(2);
        leaf["clean"] = json!(true);
        leaf["previous"] = json!({"size": edge.size(), "root": edge.root()});
        let bytes = serde_json_canonicalizer::to_vec(&leaf).expect("canonical");
        edge.append(leaf_hash(&bytes));
        tail.push((vec![bytes], Vec::new()));
        lay(&log, &tail);
        let report = at_checkpoint("a tail that nobody signed");
        assert_eq!((report.exit_code(), report.verdicts.epochs), (12, Verdict::Pass), "{report}");
    }
    // Nor with a checkpoint: signed by a key of the log's name, or with the old signature over the new text.
    let size = edge.size();
    let forged = Checkpoint { origin: ORIGIN.parse().expect("a name"), size, root: edge.root() };
    let own = fs::read_to_string(log.path("checkpoint")).expect("there");
    let by_stranger = forged.sign(&Key::named(ORIGIN)).expect("signs");
    let (text, signature) =
        (by_stranger.split("\n\n").next().expect("text"), own.lines().last().expect("a line"));
    for note in
        [by_stranger.clone(), format!("{text}\n\n{signature}\n"), format!("{by_stranger}{signature}\n")]
    {
        put(&log, "checkpoint", note.as_bytes());
        let report = at_checkpoint("a forged checkpoint");
        assert_eq!((report.exit_code(), report.signed_size), (12, None), "{report}");
        // And no start signs it anew.
        assert!(log.open().is_err());
    }
}

#[tokio::test]
async fn evidence_that_was_taken_out_or_belongs_elsewhere_is_named() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    for n in 0..3 {
        let file =
            interlock::policy::BundleFile { name: "a.rego".into(), bytes: format!("package p{n}").into() };
        let listed =
            interlock::model::entry::PolicyFile { name: file.name.clone(), sha256: Digest::of(&file.bytes) };
        let active = super::ledger_faults::activation(n);
        let revision = interlock::model::entry::policy_revision(&active.engine, &[listed]);
        let active = interlock::ledger::PolicyActivation { files: vec![file], revision, ..active };
        ledger.record_policy(active).await.expect("recorded");
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let frames = frames_of(log.dir.path(), log.key.verifier());
    assert!(frames[1..4].iter().all(|(_, evidence)| evidence.len() == 1));
    let told = |change: &dyn Fn(&mut Frames)| {
        let mut changed = frames.clone();
        change(&mut changed);
        lay(&log, &changed);
        log.verify()
    };
    assert!(told(&|_| {}).passed());
    for (change, what) in [
        (&(|f: &mut Frames| f[2].1.clear()) as &dyn Fn(&mut Frames), "is not beside it"),
        (&|f: &mut Frames| f[2].1 = f[1].1.clone(), "is not beside it"),
        (
            &|f: &mut Frames| {
                let more = f[1].1.clone();
                f[2].1.extend(more);
            },
            "belong to no leaf",
        ),
        (&|f: &mut Frames| f[0].1.push(b"{}".to_vec()), "belong to no leaf"),
        (&|f: &mut Frames| f[2].1[0].push(b' '), "is not beside it"),
    ] {
        let report = told(change);
        found(&report, Check::Evidence, FIRST_SEGMENT, what);
        assert_eq!((report.exit_code(), report.verdicts.signed), (15, Verdict::Pass), "{report}");
    }
}

/// What one directory cannot show: it was whole once. A checkpoint that was kept elsewhere tells, and so does
/// `verify --checkpoint`; what was left of the newer log is noted.
#[tokio::test]
async fn a_directory_as_it_was_is_told_by_a_newer_checkpoint_from_elsewhere() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 10).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let older = tempfile::tempdir().expect("a directory");
    copy(log.dir.path(), older.path());
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 10).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let kept = fs::read(log.path("checkpoint")).expect("there");
    let key = log.key.verifier();

    let with_kept = |dir: &Path| {
        let archived = vec![("kept".to_owned(), kept.clone())];
        let options = Options { archived, ..Options::default() };
        let source = Directory::open(dir).expect("a log");
        verify_log_with(&source, &Trust::from(key.clone()), options).expect("readable")
    };
    assert!(with_kept(log.dir.path()).passed());
    assert!(verify(older.path(), key).passed(), "it was a whole log");
    found(&with_kept(older.path()), Check::Signed, "kept", "the log was cut");
    // Frames and checkpoint set back, and the tiles left as they were.
    for dir in ["frames", "checkpoint"] {
        let (from, to) = (older.path().join(dir), log.path(dir));
        if from.is_dir() {
            fs::remove_dir_all(&to).expect("removed");
            fs::create_dir_all(&to).expect("made");
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("copied");
        }
    }
    let report = log.verify();
    assert!(report.notes.iter().any(|note| note.contains("is no tile of this log")), "{report}");
    found(&with_kept(log.dir.path()), Check::Signed, "kept", "the log was cut");
    // The program says the same.
    put(&log, "kept", &kept);
    let (dir, kept) = (log.dir.path().display().to_string(), log.path("kept").display().to_string());
    let args = ["verify", "--log", &dir, "--key", &key.to_string(), "--checkpoint", &kept];
    assert_eq!(interlock(&args).status.code(), Some(12));

    // Another history of the same length, signed by the real key: a fork is told by what was kept of the other.
    let fork = Log { dir: older, key: log.key.clone() };
    let (ledger, _) = fork.open().expect("opens");
    for n in 0..10 {
        ledger.record_policy(super::ledger_faults::activation(90 + n)).await.expect("recorded");
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert!(fork.verify().passed());
    found(&with_kept(fork.dir.path()), Check::Signed, "kept", "the entries give");
}

/// Restart points, index, positions, a spare and what a start set aside are no evidence: rubbish there changes no verdict.
#[tokio::test]
async fn rubbish_where_nothing_is_evidence_changes_no_verdict() {
    let log = sealed_log().await;
    let sound = log.verify();
    let mut before = BTreeMap::new();
    for file in ["index.redb", "restart/00000000000000000128.json", "frames/sealing", "frames/spare"] {
        before.insert(file, fs::read(log.path(file)).ok());
        put(&log, file, b"rubbish");
    }
    put(&log, "frames/00000000000000000064.frames.bak", b"rubbish");
    put(&log, "quarantine/0-0", b"rubbish");
    let report = log.verify();
    assert!(report.passed() && report.root == sound.root, "{report}");
    assert!(before.values().any(Option::is_some));
}
