//! The log on real files: what is changed is found and named, what a crash leaves is recovered.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use interlock::clock::{Clock, WallTime};
use interlock::ledger::{
    Closed, FileSigner, Ledger, OpenError, Opened, PolicyActivation, Rejection, Settings, Start,
};
use interlock::merkle::checkpoint::Checkpoint;
use interlock::merkle::frame::{self, Evidence, FrameParts};
use interlock::merkle::note::{Signer, SigningFailed, VerifierKey};
use interlock::merkle::tree::{RightEdge, leaf_hash};
use interlock::model::entry::policy_revision;
use interlock::model::{Actor, AuthenticationMethod, Digest, Json, LeafIndex, ReasonCode};
use interlock::verify::{Check, Directory, Report, Verdict, verify_log};
use serde_json::{Value, json};

use crate::support::Mounted;

pub(super) const ORIGIN: &str = "example.org/log";
pub(super) const SEGMENT_BYTES: u64 = interlock::limits::SEGMENT_BYTES_MIN;
pub(super) const FIRST_SEGMENT: &str = "frames/00000000000000000000.frames";

/// One key for a test, as often as it is needed.
#[derive(Clone)]
pub(super) struct Key(Arc<FileSigner>);

impl Key {
    pub fn new() -> Self {
        Self::named(ORIGIN)
    }

    pub fn named(name: &str) -> Self {
        Self(Arc::new(FileSigner::generate(name.parse().expect("a name")).expect("a key").0))
    }
}

impl Signer for Key {
    fn verifier(&self) -> &VerifierKey {
        self.0.verifier()
    }

    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SigningFailed> {
        self.0.sign(text)
    }
}

pub(super) struct Log {
    pub dir: tempfile::TempDir,
    pub key: Key,
}

impl Log {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), key: Key::new() }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn open(&self) -> Result<(Ledger, Opened), OpenError> {
        open(self.dir.path(), &self.key)
    }

    pub fn refused(&self) -> String {
        self.open().expect_err("refused").to_string()
    }

    /// A log of `leaves` frames with one leaf each, ended by a clean stop.
    pub async fn with_leaves(leaves: usize) -> Self {
        let log = Self::new();
        let (ledger, _) = log.open().expect("opens");
        log.fill(&ledger, leaves - 2).await;
        assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
        log
    }

    pub async fn fill(&self, ledger: &Ledger, leaves: usize) {
        for n in 0..leaves {
            ledger.record_policy(activation(n)).await.expect("recorded");
        }
    }

    pub fn verify(&self) -> Report {
        verify(self.dir.path(), self.key.verifier())
    }

    pub fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(file)).expect("readable");
        change(&mut bytes);
        write(&self.path(file), &bytes);
    }

    pub fn frame(&self, number: usize) -> Vec<u8> {
        fs::read(self.path(FIRST_SEGMENT)).expect("readable")[number * 4_096..][..4_096].to_vec()
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests change logs")]
pub(super) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("written");
}

pub(super) fn open(dir: &Path, key: &Key) -> Result<(Ledger, Opened), OpenError> {
    let settings = Settings {
        dir: dir.to_owned(),
        origin: key.verifier().name().clone(),
        segment_bytes: SEGMENT_BYTES,
        salts: None,
        heartbeat: None,
    };
    let clock = Clock::manual(WallTime::from_unix_ns(1_763_643_600_000_000_000));
    Ledger::open(settings, Box::new(key.clone()), clock, start())
}

pub(super) fn start() -> Start {
    Start {
        follower: std::sync::Arc::new(()),
        binary_digest: Digest::of(b"binary"),
        config_digest: Digest::of(b"config"),
        observer: Arc::new(()),
    }
}

pub(super) fn verify(dir: &Path, key: &VerifierKey) -> Report {
    verify_log(&Directory::open(dir).expect("a log"), key).expect("readable")
}

pub(super) fn activation(n: usize) -> PolicyActivation {
    let engine: Arc<str> = "regorus/0.14.1 strict".into();
    let revision = policy_revision(&engine, &[]);
    PolicyActivation {
        activated_by: format!("operator-{n}").into(),
        engine,
        files: Vec::new(),
        revision,
        older_than: None,
        ordered: None,
        version: None,
    }
}

fn rejection() -> Rejection {
    let actor = Actor {
        id: "agent-7".parse().expect("an id"),
        method: AuthenticationMethod::ApiKey,
        credential_digest: None,
        claims: Json::object([]),
        valid_until: None,
    };
    Rejection {
        actor: Arc::new(actor),
        surface: None,
        code: ReasonCode::SchemaMismatch,
        place: None,
        received_digest: None,
        redacts: false,
    }
}

/// Fails with a problem of this check at this entry of the first segment, in the frame at this offset.
pub(super) fn assert_named(report: &Report, check: Check, index: u64, offset: u64) {
    assert_eq!(report.verdicts.of(check), Verdict::Fail, "{report}");
    assert_eq!(report.exit_code(), check.exit_code(), "{report}");
    let problem = report.problems.iter().find(|p| p.check == check).expect("named");
    assert_eq!(problem.index, Some(LeafIndex(index)), "{report}");
    assert_eq!(problem.file.as_deref(), Some(FIRST_SEGMENT), "{report}");
    assert_eq!(problem.offset, Some(offset), "{report}");
}

#[tokio::test]
async fn a_log_of_the_ledger_verifies_and_continues() {
    let log = Log::with_leaves(6).await;
    let report = log.verify();
    assert!(report.passed() && report.exit_code() == 0, "{report}");
    assert_eq!((report.size.0, report.epochs, report.unsigned_tail), (6, 1, 0));
    let (ledger, opened) = log.open().expect("opens");
    assert_eq!((opened.epoch.0, opened.clean, opened.size.0), (2, true, 7));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert!(log.verify().passed());
}

#[tokio::test]
async fn a_flipped_bit_in_every_region_of_a_frame_is_named_with_entry_and_file() {
    let log = Log::with_leaves(6).await;
    let length = u32::from_be_bytes(log.frame(2)[12..16].try_into().expect("4 bytes")) as usize;
    let regions =
        [0, 8, 10, 12, 16, 24, 28, 32, 36, 40, 72, 104, 106, length - 33, length - 1, length, 4_095];
    let sound = fs::read(log.path(FIRST_SEGMENT)).expect("readable");
    for number in [0, 2, 5] {
        for region in regions {
            let at = number * 4_096 + region;
            log.change(FIRST_SEGMENT, |bytes| bytes[at] ^= 1);
            assert_named(&log.verify(), Check::Frames, number as u64, number as u64 * 4_096);
            // Damage before other frames is no torn write, and damage in what was signed is a cut.
            let refused = log.refused();
            if number < 5 {
                assert!(refused.contains(FIRST_SEGMENT) && refused.contains("the log goes on"), "{refused}");
            } else {
                assert!(refused.contains("the log was cut"), "{refused}");
            }
            write(&log.path(FIRST_SEGMENT), &sound);
        }
    }
    assert!(log.verify().passed());
}

#[tokio::test]
async fn a_bit_after_the_last_frame_is_found() {
    let log = Log::with_leaves(3).await;
    log.change(FIRST_SEGMENT, |bytes| bytes[20 * 4_096] = 1);
    let report = log.verify();
    // After everything that was signed: what a crash leaves, and so a note.
    assert!(report.passed(), "{report}");
    assert!(report.notes.iter().any(|n| n.contains("unfinished frame")), "{report}");
}

#[tokio::test]
async fn dropped_swapped_and_duplicated_frames_are_named() {
    let block = |n: usize| n * 4_096..(n + 1) * 4_096;
    let log = Log::with_leaves(6).await;
    let sound = fs::read(log.path(FIRST_SEGMENT)).expect("readable");
    log.change(FIRST_SEGMENT, |bytes| bytes.copy_within(block(3).start..block(5).end, block(2).start));
    assert_named(&log.verify(), Check::Frames, 2, 2 * 4_096);
    assert!(log.refused().contains("begins with entry 3, expected entry 2"), "{}", log.refused());

    write(&log.path(FIRST_SEGMENT), &sound);
    log.change(FIRST_SEGMENT, |bytes| {
        let second = bytes[block(2)].to_vec();
        bytes.copy_within(block(3), block(2).start);
        bytes[block(3)].copy_from_slice(&second);
    });
    assert_named(&log.verify(), Check::Frames, 2, 2 * 4_096);

    write(&log.path(FIRST_SEGMENT), &sound);
    log.change(FIRST_SEGMENT, |bytes| bytes.copy_within(block(5), block(6).start));
    assert_named(&log.verify(), Check::Frames, 6, 6 * 4_096);
    assert!(log.refused().contains("begins with entry 5, expected entry 6"), "{}", log.refused());
}

#[tokio::test]
async fn a_cut_log_does_not_pass_and_does_not_start() {
    let log = Log::with_leaves(6).await;
    log.change(FIRST_SEGMENT, |bytes| bytes[4 * 4_096..].fill(0));
    let report = log.verify();
    assert_eq!((report.verdicts.frames, report.exit_code()), (Verdict::Pass, 12), "{report}");
    assert!(log.refused().contains("signed for 6 entries, the frames hold 4"), "{}", log.refused());
    log.change(FIRST_SEGMENT, |bytes| bytes.truncate(3 * 4_096));
    assert_eq!(log.verify().exit_code(), 12);
    let rest = Log::with_leaves(6).await;
    rest.change(FIRST_SEGMENT, |bytes| bytes.truncate(3 * 4_096 + 100));
    assert_eq!(rest.verify().exit_code(), 10);
    assert!(rest.refused().contains("after the last whole block"), "{}", rest.refused());
}

#[tokio::test]
async fn a_missing_segment_is_named() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 3 * 64).await;
    ledger.close(Duration::ZERO).await;
    assert!(log.verify().passed());
    // It may have been sealed already, and so may the one after it.
    let there = |first: &str, form: &str| log.path(&format!("frames/{first}.frames{form}"));
    let form = |first: &str| if there(first, "").exists() { "" } else { ".zst" };
    let (second, third) = ("00000000000000000064", "00000000000000000128");
    fs::remove_file(there(second, form(second))).expect("removed");
    let report = log.verify();
    assert_eq!(report.exit_code(), 10);
    let named = format!("frames/{third}.frames{}", form(third));
    assert_eq!(report.problems[0].file.as_deref(), Some(&*named), "{report}");
    assert!(log.refused().contains("named for entry 128, expected entry 64"), "{}", log.refused());
}

#[tokio::test]
async fn a_checkpoint_by_another_key_or_of_another_tree_is_refused() {
    let log = Log::with_leaves(4).await;
    let sound = fs::read(log.path("checkpoint")).expect("readable");
    let other = Key::new();
    assert_eq!(verify(log.dir.path(), other.verifier()).exit_code(), 12, "another key is pinned");
    let refused = open(log.dir.path(), &other).expect_err("refused").to_string();
    assert!(refused.contains("is not one of this log and key"), "{refused}");

    let forged = Checkpoint {
        origin: ORIGIN.parse().expect("a name"),
        size: interlock::model::TreeSize(4),
        root: Digest::of(b"other"),
    };
    write(&log.path("checkpoint"), forged.sign(&other).expect("signs").as_bytes());
    assert_eq!(log.verify().exit_code(), 12, "signed by another key");
    write(&log.path("checkpoint"), forged.sign(&log.key).expect("signs").as_bytes());
    assert_eq!(log.verify().exit_code(), 12, "another root under the right key");
    assert!(log.refused().contains("the log was changed"), "{}", log.refused());

    log.change("checkpoint", |bytes| *bytes = sound.clone());
    log.change("checkpoint", |bytes| bytes[ORIGIN.len() + 1] = b'3');
    assert_eq!(log.verify().exit_code(), 12, "a changed size");
    fs::remove_file(log.path("checkpoint")).expect("removed");
    assert_eq!(log.verify().exit_code(), 12, "none at all");
    write(&log.path("checkpoint"), &sound);
    assert!(log.verify().passed());
}

#[tokio::test]
async fn frames_of_another_log_do_not_chain() {
    let log = Log::with_leaves(3).await;
    let other = Key::named("example.org/other");
    assert_eq!(verify(log.dir.path(), other.verifier()).exit_code(), 10);
    fs::remove_file(log.path("checkpoint")).expect("removed");
    let refused = open(log.dir.path(), &other).expect_err("refused").to_string();
    assert!(refused.contains("does not name the one before it"), "{refused}");
}

#[tokio::test]
async fn a_key_of_another_name_opens_nothing() {
    let log = Log::new();
    let settings = Settings {
        dir: log.dir.path().to_owned(),
        origin: "example.org/other".parse().expect("a name"),
        segment_bytes: SEGMENT_BYTES,
        salts: None,
        heartbeat: None,
    };
    let opened = Ledger::open(settings, Box::new(log.key.clone()), Clock::system(), start());
    assert!(matches!(opened, Err(OpenError::OtherKey { .. })));
}

#[tokio::test]
async fn a_segment_size_that_frames_do_not_fit_is_refused() {
    for segment_bytes in [0, SEGMENT_BYTES - 4_096, SEGMENT_BYTES + 1, u64::MAX] {
        let log = Log::new();
        let origin = ORIGIN.parse().expect("a name");
        let settings =
            Settings { dir: log.dir.path().to_owned(), origin, segment_bytes, salts: None, heartbeat: None };
        let opened = Ledger::open(settings, Box::new(log.key.clone()), Clock::system(), start());
        assert!(matches!(opened, Err(OpenError::SegmentBytes)), "{segment_bytes}");
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_while_the_first_lives() {
    let log = Log::new();
    let (first, _) = log.open().expect("opens");
    assert!(log.refused().starts_with("another process has the log in"), "{}", log.refused());
    drop(first);
    log.open().expect("opens again");
}

#[tokio::test]
async fn a_torn_tail_is_quarantined_and_reported_in_the_start_leaf() {
    let log = Log::with_leaves(4).await;
    log.change(FIRST_SEGMENT, |bytes| {
        let torn = bytes[3 * 4_096..][..600].to_vec();
        bytes[4 * 4_096..][..600].copy_from_slice(&torn);
        bytes[4 * 4_096 + 20] = 0xff;
        bytes[6 * 4_096 - 1] = 1;
    });
    let (ledger, opened) = log.open().expect("opens");
    assert_eq!((opened.torn_bytes, opened.clean), (2 * 4_096, false));
    let copy = fs::read(log.path(&opened.quarantined.expect("a copy"))).expect("readable");
    assert_eq!((copy.len(), copy[20], copy[2 * 4_096 - 1]), (2 * 4_096, 0xff, 1));
    log.fill(&ledger, 3).await;
    ledger.close(Duration::ZERO).await;
    let report = log.verify();
    assert!(report.passed(), "{report}");
    let start: Value =
        serde_json::from_slice(frame::decode(&log.frame(4)).expect("a frame").entries[0]).expect("json");
    assert_eq!((&start["torn_bytes"], &start["clean"]), (&json!(8_192), &json!(false)));
}

#[tokio::test]
async fn a_log_that_was_not_closed_verifies_with_a_note_and_recovers() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 3).await;
    ledger.record_rejection(rejection()).await.expect("recorded").expect("written");
    drop(ledger);
    assert!(log.verify().passed());
    assert!(!log.open().expect("opens").1.clean);
}

#[tokio::test]
async fn an_older_checkpoint_is_an_unsigned_tail_but_not_after_a_clean_stop() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    let old = fs::read(log.path("checkpoint")).expect("readable");
    log.fill(&ledger, 3).await;
    drop(ledger);
    write(&log.path("checkpoint"), &old);
    let report = log.verify();
    assert_eq!((report.unsigned_tail, report.problem_count, report.exit_code()), (3, 0, 12), "{report}");
    assert_eq!(report.verdicts.signed, Verdict::NotEstablished, "{report}");
    assert!(report.notes.iter().any(|n| n.contains("3 leaves after the checkpoint")), "{report}");

    let (ledger, _) = log.open().expect("opens");
    ledger.close(Duration::ZERO).await;
    write(&log.path("checkpoint"), &old);
    assert_eq!(log.verify().exit_code(), 12);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused() {
    let log = Log::new();
    let file = log.path("file");
    write(&file, b"");
    let refused = open(&file.join("log"), &log.key).expect_err("refused");
    assert!(matches!(refused, OpenError::Unusable(_)), "{refused}");
    // Modes refuse no root, a mount does; whoever may not mount is refused by modes.
    let mounted = Mounted::read_only(log.dir.path());
    fs::set_permissions(log.dir.path(), fs::Permissions::from_mode(0o500)).ok();
    assert!(fs::create_dir(log.path("probe")).is_err(), "neither a mount nor a mode refuses a write here");
    assert!(matches!(log.open(), Err(OpenError::Unusable(_))));
    drop(mounted);
    fs::set_permissions(log.dir.path(), fs::Permissions::from_mode(0o700)).expect("set");
    assert!(log.open().is_ok());
}

/// A log made by hand, to say what the ledger would never write.
pub(super) struct Forged {
    pub log: Log,
    pub edge: RightEdge,
    pub chain: Digest,
    pub segment: Vec<u8>,
}

impl Forged {
    pub fn new() -> Self {
        let log = Log::new();
        let chain = frame::genesis(log.key.verifier().name());
        let mut forged = Self { log, edge: RightEdge::empty(), chain, segment: Vec::new() };
        let start = forged.epoch("start", 1, true);
        forged.add(&start);
        forged
    }

    /// The same, with the policy that the golden decisions stand under: at entry 1.
    pub fn under_policy() -> Self {
        let mut forged = Self::new();
        forged.add(&golden("policy"));
        forged
    }

    pub fn epoch(&self, event: &str, epoch: u64, clean: bool) -> Value {
        json!({
            "type": "epoch", "event": event, "clean": clean, "torn_bytes": 0,
            "previous": {"size": self.edge.size(), "root": self.edge.root()},
            "binary_digest": Digest::of(b""), "config_digest": Digest::of(b""),
            "vkeys": [self.log.key.verifier().to_string()],
            "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.000000Z", "epoch": epoch,
        })
    }

    pub fn add(&mut self, entry: &Value) -> u64 {
        self.add_bytes(&serde_json_canonicalizer::to_vec(entry).expect("canonical"), None)
    }

    /// One frame with one entry; `root` replaces the right one.
    pub fn add_bytes(&mut self, entry: &[u8], root: Option<Digest>) -> u64 {
        self.add_frame(entry, root, None)
    }

    /// The same; `evidence` replaces the policy input of a decision.
    pub fn add_frame(
        &mut self,
        entry: &[u8],
        root: Option<Digest>,
        evidence: Option<Vec<Evidence<'_>>>,
    ) -> u64 {
        let index = self.edge.size().0;
        self.edge.append(leaf_hash(entry));
        let value: Value = serde_json::from_slice(entry).unwrap_or_default();
        let input =
            (value["type"] == "decision").then_some(Evidence { digest: Digest::of(b"{}"), bytes: b"{}" });
        let parts = FrameParts {
            first: LeafIndex(index),
            previous: self.chain,
            root: root.unwrap_or_else(|| self.edge.root()),
            entries: vec![entry],
            evidence: evidence.unwrap_or_else(|| input.into_iter().collect()),
        };
        let (bytes, chain) = frame::encode(&parts, &self.log.key.frame_key().expect("signs"));
        self.chain = chain;
        self.segment.extend(bytes);
        index
    }

    pub fn verify(&mut self) -> Report {
        fs::create_dir_all(self.log.path("frames")).expect("made");
        write(&self.log.path(FIRST_SEGMENT), &self.segment);
        let size = self.edge.size();
        let checkpoint = Checkpoint { origin: ORIGIN.parse().expect("a name"), size, root: self.edge.root() };
        write(&self.log.path("checkpoint"), checkpoint.sign(&self.log.key).expect("signs").as_bytes());
        self.log.verify()
    }
}

pub(super) fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut value: Value = serde_json::from_slice(&fs::read(path).expect("readable")).expect("json");
    value["epoch"] = json!(1);
    // The goldens show every member; together in one log they have to be true as well.
    let engine: Arc<str> = "regorus/0.14.1 strict".into();
    let revision = json!(policy_revision(&engine, &[]));
    if name == "decision" {
        value.as_object_mut().expect("an object").remove("supersedes");
        value["policy"]["revision"] = revision;
    } else if name == "policy" {
        value["files"] = json!([]);
        value["revision"] = revision;
    }
    value
}

pub(super) fn outcome_of(index: u64) -> Value {
    let mut outcome = golden("outcome");
    outcome["decision_index"] = json!(index);
    outcome
}

/// Where the first decision under a policy stands.
const PERMIT: u64 = 2;

#[test]
fn permits_and_outcomes_that_do_not_pair_are_named() {
    let mut sound = Forged::under_policy();
    let at = sound.add(&golden("decision"));
    sound.add(&outcome_of(at));
    let report = sound.verify();
    assert!(report.passed() && report.permits == 1 && report.open_count == 0, "{report}");

    // What stands after the permit at entry 2, and the entry that is named.
    let with = |member: &str, value: Value| {
        let mut outcome = outcome_of(PERMIT);
        outcome[member] = value;
        outcome
    };
    let without = |member: &str| {
        let mut outcome = outcome_of(PERMIT);
        outcome.as_object_mut().expect("an object").remove(member);
        outcome
    };
    let other_bytes = json!({"digest": Digest::of(b"other"), "size": 120});
    let mut denied = golden("decision");
    denied["decision"] = json!("DENY");
    let cases = [
        ("a second outcome", vec![outcome_of(PERMIT), outcome_of(PERMIT)], 4),
        ("of itself", vec![outcome_of(PERMIT + 1)], 3),
        ("of a later entry", vec![outcome_of(9)], 3),
        ("of no decision", vec![outcome_of(0)], 3),
        ("of a refusal", vec![denied, outcome_of(PERMIT + 1)], 4),
        ("of another receipt", vec![with("decision_id", json!("019aa1b6-0e7b-7707-8707-070707070708"))], 3),
        ("other bytes", vec![with("sent", other_bytes)], 3),
        ("nothing sent", vec![without("sent")], 3),
        ("no answer", vec![without("response")], 3),
        ("not sent, yet answered", vec![with("status", json!("not_sent"))], 3),
        ("failed by 201", vec![with("status", json!("failed"))], 3),
    ];
    for (name, leaves, named) in cases {
        let mut forged = Forged::under_policy();
        forged.add(&golden("decision"));
        leaves.iter().for_each(|l| {
            forged.add(l);
        });
        let report = forged.verify();
        assert_named(&report, Check::Paired, named, named * 4_096);
        assert_eq!(report.problem_count, 1, "{name}:\n{report}");
    }
}

#[test]
fn a_permit_without_an_outcome_is_open_at_the_end_and_wrong_at_a_clean_stop() {
    let mut forged = Forged::under_policy();
    forged.add(&golden("decision"));
    let report = forged.verify();
    assert!(report.passed(), "{report}");
    assert_eq!((report.open_count, report.open[0].index), (1, LeafIndex(PERMIT)));
    let stop = forged.epoch("stop", 1, true);
    forged.add(&stop);
    assert_named(&forged.verify(), Check::Paired, 3, 3 * 4_096);
}

#[test]
fn leaves_that_are_not_strict_or_not_canonical_are_named() {
    let canonical = |v: &Value| serde_json_canonicalizer::to_string(v).expect("canonical");
    let refusal = canonical(&golden("refusal"));
    let cases = [
        ("a space", refusal.replacen(':', ": ", 1)),
        ("a duplicate", refusal.replacen('{', "{\"actor\":1,", 1)),
        ("an escape", refusal.replacen("agent", "\\u0061gent", 1)),
        ("an unknown member", refusal.replacen("\"spec\"", "\"solved\":true,\"spec\"", 1)),
        ("a missing member", refusal.replacen("\"suppressed\":4,", "", 1)),
        ("another type", refusal.replacen("\"type\":\"refusal\"", "\"type\":\"rumour\"", 1)),
        ("a float", refusal.replacen("\"suppressed\":4", "\"suppressed\":4.5", 1)),
        ("a large integer", refusal.replacen("\"suppressed\":4", "\"suppressed\":9007199254740992", 1)),
        ("another spec", refusal.replacen("interlock-receipt/1", "interlock-receipt/2", 1)),
        ("another time", refusal.replacen("123456Z", "12Z", 1)),
        ("no JSON", "refusal".to_owned()),
    ];
    for (name, text) in cases {
        assert_ne!(text, refusal, "{name}");
        let mut forged = Forged::new();
        forged.add_bytes(text.as_bytes(), None);
        let report = forged.verify();
        assert_named(&report, Check::WellFormed, 1, 4_096);
        assert_eq!(report.verdicts.included, Verdict::Pass, "{name}: hashes are not the problem");
    }
    let mut unjudged = golden("decision");
    unjudged["evaluation"]["status"] = json!("not_evaluated");
    let mut forged = Forged::new();
    forged.add(&unjudged);
    assert_named(&forged.verify(), Check::WellFormed, 1, 4_096);
}

#[test]
fn a_frame_whose_root_is_not_that_of_its_leaves_is_named() {
    let mut forged = Forged::new();
    let refusal = serde_json_canonicalizer::to_vec(&golden("refusal")).expect("canonical");
    forged.add_bytes(&refusal, Some(Digest::of(b"other")));
    assert_named(&forged.verify(), Check::Included, 1, 4_096);
    assert!(forged.log.refused().contains("do not give the root"), "{}", forged.log.refused());
}

#[test]
fn epochs_that_do_not_follow_each_other_are_named() {
    type Wrong = fn(&mut Forged) -> Value;
    let cases: [(&str, Wrong); 9] = [
        ("skips one", |f| f.epoch("start", 3, false)),
        ("again", |f| f.epoch("start", 1, false)),
        ("clean without a stop", |f| f.epoch("start", 2, true)),
        ("stops another", |f| f.epoch("stop", 2, true)),
        ("stops and is not clean", |f| f.epoch("stop", 1, false)),
        ("another tree", |f| {
            let mut start = f.epoch("start", 2, false);
            start["previous"]["root"] = json!(Digest::of(b"other"));
            start
        }),
        ("another size", |f| {
            let mut start = f.epoch("start", 2, false);
            start["previous"]["size"] = json!(0);
            start
        }),
        ("another key", |f| {
            let mut start = f.epoch("start", 2, false);
            start["vkeys"] = json!([]);
            start
        }),
        ("a leaf of no epoch", |_| {
            let mut refusal = golden("refusal");
            refusal["epoch"] = json!(2);
            refusal
        }),
    ];
    for (name, wrong) in cases {
        let mut forged = Forged::new();
        let leaf = wrong(&mut forged);
        forged.add(&leaf);
        let report = forged.verify();
        assert_named(&report, Check::Epochs, 1, 4_096);
        assert_eq!(report.problem_count, 1, "{name}:\n{report}");
    }
    let mut stopped = Forged::new();
    let stop = stopped.epoch("stop", 1, true);
    stopped.add(&stop);
    assert!(stopped.verify().passed());
    stopped.add(&golden("refusal"));
    assert_named(&stopped.verify(), Check::Epochs, 2, 2 * 4_096);
}

pub(super) fn interlock(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_interlock")).args(args).output().expect("runs")
}

pub(super) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn keys_are_generated_once_and_verify_answers_with_exit_codes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let generate = || interlock(&["keys", "generate", "--origin", ORIGIN, "--out", &path("key")]);
    let generated = generate();
    assert!(generated.status.success());
    let vkey = stdout(&generated).trim_end().to_owned();
    assert_eq!(fs::read_to_string(path("key.vkey")).expect("readable"), format!("{vkey}\n"));
    assert_eq!(fs::metadata(path("key")).expect("there").permissions().mode() & 0o777, 0o600);
    let private = fs::read(path("key")).expect("readable");
    assert_eq!(generate().status.code(), Some(1), "never written over");
    assert_eq!(fs::read(path("key")).expect("readable"), private);

    let mut forged = Forged::new();
    forged.log.key = Key(Arc::new(FileSigner::load(path("key").as_ref()).expect("a key")));
    forged.edge = RightEdge::empty();
    forged.segment.clear();
    forged.chain = frame::genesis(forged.log.key.verifier().name());
    let start = forged.epoch("start", 1, true);
    forged.add(&start);
    forged.add(&golden("policy"));
    let mut hostile = golden("decision");
    hostile["reasons"][0]["message"] = json!("\u{9b}2J\u{202e}");
    let id = hostile["id"].as_str().expect("an id").to_owned();
    forged.add(&hostile);
    forged.add(&outcome_of(PERMIT));
    forged.verify();
    let log = forged.log.dir.path().to_str().expect("UTF-8");

    let by_file = interlock(&["verify", "--log", log, "--key", &path("key.vkey")]);
    assert_eq!(by_file.status.code(), Some(0), "{}", stdout(&by_file));
    let by_text = interlock(&["verify", "--log", log, "--key", &vkey, "--json"]);
    let report: Value = serde_json::from_slice(&by_text.stdout).expect("json");
    assert_eq!((&report["verdicts"]["paired"], &report["size"]), (&json!("pass"), &json!(4)));
    assert_eq!(interlock(&["verify", "--log", &path("none"), "--key", &vkey]).status.code(), Some(1));
    assert_eq!(interlock(&["verify", "--log", log, "--key", "nothing"]).status.code(), Some(1));
    let other = Key::new().verifier().to_string();
    assert_eq!(interlock(&["verify", "--log", log, "--key", &other]).status.code(), Some(12));

    let listed = interlock(&["receipts", "list", "--log", log, "--decision", "permit", "--actor", "agent-7"]);
    let lines = stdout(&listed);
    assert_eq!(lines.lines().count(), 1);
    assert_eq!(
        serde_json::from_str::<Value>(&lines).expect("json"),
        json!({ "entry": hostile, "index": PERMIT })
    );
    let count = |filter: &[&str]| {
        let args = [&["receipts", "list", "--log", log][..], filter].concat();
        stdout(&interlock(&args)).lines().count()
    };
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--type", "outcome"]), 1);
    assert_eq!(count(&["--surface", "payments"]), 1);
    assert_eq!(count(&["--surface", "other"]), 0);
    assert_eq!(count(&["--actor", "other"]), 0);
    assert_eq!(count(&["--since", "2025-11-20T13:00:00.000001Z"]), 3);
    assert_eq!(count(&["--until", "2025-11-20T14:00:00.000001+01:00"]), 1);

    let shown = stdout(&interlock(&["receipts", "show", &id, "--log", log]));
    assert!(shown.contains("PERMIT") && shown.contains("confirmed"), "{shown}");
    assert!(shown.contains("\\u{9b}2J\\u{202e}") && !shown.contains('\u{9b}'), "{shown}");
    let both = stdout(&interlock(&["receipts", "show", &id, "--log", log, "--json"]));
    assert_eq!(both.lines().count(), 2);
    let unknown = "019aa1b6-0e7b-7707-8707-070707070708";
    assert_eq!(interlock(&["receipts", "show", unknown, "--log", log]).status.code(), Some(1));
}

#[test]
fn an_api_key_is_printed_with_the_digest_of_the_whole_key() {
    let text = stdout(&interlock(&["keys", "api-key", "--actor", "agent-7"]));
    let key = text.lines().next().expect("a line");
    assert_eq!((key.len(), &key[..4], &key[12..13]), (4 + 8 + 1 + 43, "ilk_", "_"));
    let digest = Digest::of(key.as_bytes()).to_string();
    assert!(text.contains(&format!("sha256: \"{}\"", &digest["sha-256:".len()..])), "{text}");
    assert!(
        text.contains(&format!("prefix: \"{}\"", &key[..12])) && text.contains("- id: \"agent-7\""),
        "{text}"
    );
    assert_ne!(text, stdout(&interlock(&["keys", "api-key", "--actor", "agent-7"])));
}
