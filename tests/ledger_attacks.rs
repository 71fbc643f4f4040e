//! Attempts to make the log lie: odd directories, forged logs, chance damage.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use interlock::ledger::Closed;

use interlock::merkle::frame::Evidence;
use interlock::merkle::note::Signer;
use interlock::model::entry::{PolicyFile, policy_revision};
use interlock::model::{Digest, LeafIndex};
use interlock::verify::{Check, Directory, Source, verify_log};

use serde_json::json;

use super::ledger_faults::{
    FIRST_SEGMENT, Forged, Key, Log, assert_named, golden, interlock, open as ledger_open, stdout, write,
};

#[tokio::test]
async fn an_empty_file_in_the_next_segments_place_takes_no_leaf_with_it() {
    let log = Log::with_leaves(64).await;
    write(&log.path("frames/00000000000000000064.frames"), b"");
    let (ledger, opened) = log.open().expect("opens");
    assert_eq!(opened.size.0, 65);
    log.fill(&ledger, 3).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    drop(ledger);
    let report = log.verify();
    assert!(report.passed() && report.size.0 == 69, "{report}");
    assert!(fs::metadata(log.path("frames/00000000000000000064.frames")).expect("there").len() > 0);
}

#[tokio::test]
async fn a_pipe_in_a_files_place_is_an_error_and_not_a_wait() {
    for file in ["checkpoint", FIRST_SEGMENT] {
        let log = Log::with_leaves(3).await;
        fs::remove_file(log.path(file)).expect("removed");
        assert!(Command::new("mkfifo").arg(log.path(file)).status().expect("runs").success());
        let source = Directory::open(log.dir.path()).expect("a directory");
        let verified = verify_log(&source, log.key.verifier());
        let told = match verified {
            // Without a checkpoint nothing is signed, and the rest is still told.
            Ok(report) if file == "checkpoint" => {
                assert_eq!(report.exit_code(), Check::Signed.exit_code(), "{report}");
                report.to_string()
            }
            Ok(report) => panic!("{file}: {report}"),
            Err(error) => error.to_string(),
        };
        assert!(told.contains("is no file"), "{told}");
    }
}

#[test]
fn a_decision_whose_policy_input_is_gone_exchanged_or_doubled_is_named() {
    let record = |bytes| Evidence { digest: Digest::of(bytes), bytes };
    let cases = [
        ("gone", "decision", vec![], 1),
        ("exchanged", "decision", vec![record(&b"{\"surface\":\"other\"}"[..])], 2),
        ("of no decision", "refusal", vec![record(b"{}")], 1),
    ];
    for (name, leaf, evidence, problems) in cases {
        let mut forged = Forged::under_policy();
        let leaf = serde_json_canonicalizer::to_vec(&golden(leaf)).expect("canonical");
        forged.add_frame(&leaf, None, Some(evidence));
        let report = forged.verify();
        assert_named(&report, Check::Evidence, 2, 2 * 4_096);
        assert_eq!(report.problem_count, problems, "{name}:\n{report}");
    }
}

#[test]
fn a_bundles_file_that_is_gone_exchanged_or_out_of_order_is_named() {
    let record = |bytes| Evidence { digest: Digest::of(bytes), bytes };
    // Two files whose names are their bytes.
    let (a, b) = (record(&b"a.rego"[..]), record(&b"b.rego"[..]));
    let cases = [
        ("sound", vec![a.clone(), b.clone()], 0),
        ("none", vec![], 2),
        ("one gone", vec![b.clone()], 1),
        ("out of order", vec![b.clone(), a.clone()], 2),
        ("exchanged", vec![a.clone(), record(b"c.rego")], 2),
        ("one too many", vec![a.clone(), b.clone(), record(b"{}")], 1),
    ];
    for (name, evidence, problems) in cases {
        let mut forged = Forged::new();
        let mut leaf = golden("policy");
        let files = [a.clone(), b.clone()].map(|r| PolicyFile {
            name: std::str::from_utf8(r.bytes).expect("a name").into(),
            sha256: r.digest,
        });
        leaf["revision"] = json!(policy_revision("regorus/0.14.1 strict", &files));
        leaf["files"] = json!(files);
        let leaf = serde_json_canonicalizer::to_vec(&leaf).expect("canonical");
        forged.add_frame(&leaf, None, Some(evidence));
        let report = forged.verify();
        assert_eq!(report.problem_count, problems, "{name}:\n{report}");
        if problems > 0 {
            assert_named(&report, Check::Evidence, 1, 4_096);
        }
    }
}

#[test]
fn a_list_in_a_structs_place_is_not_well_formed() {
    let mut decision = golden("decision");
    let actor = decision["actor"].clone();
    decision["actor"] = json!([actor["credential_digest"], actor["id"], actor["method"]]);
    let mut forged = Forged::new();
    forged.add(&decision);
    assert_named(&forged.verify(), Check::WellFormed, 1, 4_096);
}

#[test]
fn a_run_that_goes_on_without_settling_the_last_ones_permits_is_named() {
    let mut forged = Forged::under_policy();
    forged.add(&golden("decision"));
    let start = forged.epoch("start", 2, false);
    forged.add(&start);
    assert!(forged.verify().passed(), "killed before it could settle anything");
    let start = forged.epoch("start", 3, false);
    forged.add(&start);
    let mut refusal = golden("refusal");
    refusal["epoch"] = json!(3);
    forged.add(&refusal);
    forged.add(&refusal);
    let report = forged.verify();
    assert_named(&report, Check::Paired, 5, 5 * 4_096);
    assert_eq!(report.problem_count, 1, "{report}");
}

#[test]
fn decisions_that_contradict_themselves_are_named() {
    let mut unreasoned = golden("decision");
    unreasoned["reasons"] = json!([]);
    let mut uncaused = golden("decision");
    uncaused["decision"] = json!("SILENCE");
    uncaused["evaluation"]["status"] = json!("not_evaluated");
    let mut both = golden("decision");
    both["evaluation"]["cause"] = json!("evaluation_timeout");
    for decision in [unreasoned, uncaused, both] {
        let mut forged = Forged::under_policy();
        forged.add(&decision);
        let report = forged.verify();
        assert_named(&report, Check::WellFormed, 2, 2 * 4_096);
        assert_eq!(report.problem_count, 1, "{report}");
    }
}

/// A log that is being written: the first look at one block sees it as it was before.
struct Live {
    directory: Directory,
    offset: u64,
    looks: Cell<usize>,
}

impl Source for Live {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        self.directory.segments()
    }

    fn length(&self, segment: LeafIndex) -> io::Result<u64> {
        self.directory.length(segment)
    }

    fn read_at(&self, segment: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.directory.read_at(segment, offset, buffer)?;
        if offset == self.offset && self.looks.replace(self.looks.get() + 1) == 0 {
            buffer.fill(0);
        }
        Ok(())
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        self.directory.checkpoint()
    }
}

#[tokio::test]
async fn frames_that_are_written_while_the_log_is_verified_are_no_damage() {
    let log = Log::with_leaves(6).await;
    let directory = Directory::open(log.dir.path()).expect("a log");
    let live = Live { directory, offset: 3 * 4_096, looks: Cell::new(0) };
    let report = verify_log(&live, log.key.verifier()).expect("readable");
    assert!(report.passed() && report.size.0 == 6, "{report}");
}

#[tokio::test]
async fn a_log_without_its_checkpoint_is_not_signed_anew() {
    let log = Log::with_leaves(3).await;
    fs::remove_file(log.path("checkpoint")).expect("removed");
    assert!(log.refused().contains("the checkpoint is gone"), "{}", log.refused());

    // Killed twice before the first checkpoint could be written: nobody was served.
    let log = Log::new();
    for epoch in 1..=3 {
        drop(log.open().expect("opens"));
        assert_eq!(log.open().expect("opens").1.epoch.0, 2 * epoch);
        fs::remove_file(log.path("checkpoint")).expect("removed");
    }
}

#[tokio::test]
async fn a_full_disk_keeps_no_checkpoint_from_its_place() {
    let log = Log::with_leaves(3).await;
    // Every write through it fails as on a full disk.
    symlink("/dev/full", log.path("checkpoint.new")).expect("made");
    let (ledger, _) = log.open().expect("opens");
    assert!(!log.path("checkpoint.new").is_symlink(), "tried, and removed");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert_eq!(ledger.statistics().publish_failures, 0);
    assert!(log.verify().passed(), "{}", log.verify());
}

/// A log whose checkpoint covers the start, with a leaf after it in a frame that this key sealed.
fn with_a_leaf_after_the_checkpoint(sealed_by: Option<Key>) -> Forged {
    let mut forged = Forged::new();
    forged.verify();
    let own = forged.log.key.clone();
    forged.log.key = sealed_by.unwrap_or_else(|| own.clone());
    forged.add(&golden("refusal"));
    forged.log.key = own;
    write(&forged.log.path(FIRST_SEGMENT), &forged.segment);
    forged
}

#[test]
fn leaves_that_were_added_without_the_key_get_no_signature() {
    let forged = with_a_leaf_after_the_checkpoint(Some(Key::new()));
    let found = fs::read(forged.log.path(FIRST_SEGMENT)).expect("readable");
    let refused = forged.log.refused();
    let place =
        format!("{FIRST_SEGMENT} at offset 4096: the entries from 1 on came after the last checkpoint");
    assert!(refused.contains(&place), "{refused}");
    assert_eq!(fs::read(forged.log.path(FIRST_SEGMENT)).expect("readable"), found, "nothing was changed");

    // A start that nobody was served after may have no checkpoint; its seal is asked for all the same.
    let unsigned = Forged::new();
    fs::create_dir_all(unsigned.log.path("frames")).expect("made");
    write(&unsigned.log.path(FIRST_SEGMENT), &unsigned.segment);
    let other = ledger_open(unsigned.log.dir.path(), &Key::new()).expect_err("refused").to_string();
    assert!(other.contains("the entries from 0 on came after"), "{other}");
    assert_eq!(unsigned.log.open().expect("opens").1.size.0, 2);
}

#[test]
fn a_frame_of_a_killed_gateway_that_no_checkpoint_covers_counts() {
    let forged = with_a_leaf_after_the_checkpoint(None);
    let (_, opened) = forged.log.open().expect("opens");
    assert_eq!((opened.size.0, opened.clean), (3, false));
    assert!(forged.log.verify().passed());
}

#[test]
fn a_leaf_that_spans_lines_is_not_listed_as_lines() {
    let refusal = serde_json_canonicalizer::to_string(&golden("refusal")).expect("canonical");
    let mut forged = Forged::new();
    forged.add_bytes(refusal.replacen("\"actor\":", "\"actor\":\n", 1).as_bytes(), None);
    forged.verify();
    let log = forged.log.dir.path().to_str().expect("UTF-8");
    let listed = interlock(&["receipts", "list", "--log", log]);
    assert_eq!((listed.status.code(), stdout(&listed).lines().count()), (Some(1), 1), "the start alone");
    let why = String::from_utf8(listed.stderr).expect("UTF-8");
    assert!(why.contains("entry 1 in frames/00000000000000000000.frames at offset 4096"), "{why}");
}
