//! Full segments on real files: sealed behind the gateway, read like the others, checked, repaired and copied.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use interlock::clock::{Clock, WallTime};
use interlock::ledger::{Closed, Ledger, PolicyActivation, Settings};
use interlock::merkle::frame::{self, MAGIC};
use interlock::merkle::note::Signer;
use interlock::model::{Digest, LeafIndex};
use interlock::policy::BundleFile;
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Check, Source, Verdict};
use redb::{Database, TableDefinition};
use serde_json::Value;

use super::ledger_faults::{
    FIRST_SEGMENT, Log, ORIGIN, SEGMENT_BYTES, activation, interlock, start, stdout, write,
};

pub(super) const FIRST_SEALED: &str = "frames/00000000000000000000.frames.zst";
pub(super) const SECOND_SEALED: &str = "frames/00000000000000000064.frames.zst";
const NEWEST_RESTART: &str = "restart/00000000000000000128.json";
/// One leaf a frame, one frame a block: two full segments, and half of a third.
const LEAVES: usize = 160;

/// Two segments are sealed, a restart point stands after each, and the log is closed.
pub(super) async fn sealed_log() -> Log {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, LEAVES - 2).await;
    for _ in 0..2_000 {
        let names = [FIRST_SEALED, SECOND_SEALED, NEWEST_RESTART];
        let raw_is_gone = !log.path(SECOND_SEALED.trim_end_matches(".zst")).exists();
        if raw_is_gone && names.iter().all(|name| log.path(name).exists()) {
            assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
            return log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the segments are not sealed: {:?}", fs::read_dir(log.path("frames")).expect("listed"));
}

fn log_command(command: &str, log: &Log, more: &[&str]) -> Output {
    let dir = log.dir.path().to_str().expect("UTF-8").to_owned();
    interlock(&[&["log", command, "--log", &dir], more].concat())
}

fn fsck(log: &Log, more: &[&str]) -> (Option<i32>, String) {
    let key = log.key.verifier().to_string();
    let output = log_command("fsck", log, &[&["--key", &key], more].concat());
    let errors = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    (output.status.code(), stdout(&output) + &errors)
}

#[tokio::test]
async fn a_full_segment_is_sealed_and_the_log_verifies_and_goes_on() {
    let log = sealed_log().await;
    assert!(!log.path(FIRST_SEGMENT).exists());
    let raw =
        Command::new("zstd").arg("-dc").arg(log.path(FIRST_SEALED)).output().expect("zstd is installed");
    assert!(raw.status.success());
    assert_eq!((raw.stdout.len() as u64, &raw.stdout[..8]), (SEGMENT_BYTES, &MAGIC[..]));
    assert_eq!(frame::decode(&raw.stdout).expect("a frame").first, LeafIndex(0));
    let report = log.verify();
    assert!(report.passed() && report.size.0 == LEAVES as u64, "{report}");
    let (ledger, opened) = log.open().expect("opens");
    assert_eq!((opened.size.0, opened.clean), (LEAVES as u64 + 1, true));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    assert!(log.verify().passed());
}

#[tokio::test]
async fn if_both_forms_are_there_the_raw_one_counts_and_is_sealed_again() {
    let log = sealed_log().await;
    let raw = Command::new("zstd").arg("-dc").arg(log.path(FIRST_SEALED)).output().expect("runs").stdout;
    let sound = fs::read(log.path(FIRST_SEALED)).expect("readable");
    // A crash before the raw form was removed; and one while another was being made.
    write(&log.path(FIRST_SEGMENT), &raw);
    write(&log.path(FIRST_SEALED), b"half");
    write(&log.path("frames/sealing"), b"half of another");
    assert!(log.verify().passed(), "{}", log.verify());
    let (ledger, _) = log.open().expect("opens");
    while log.path(FIRST_SEGMENT).exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(ledger);
    assert_eq!(fs::read(log.path(FIRST_SEALED)).expect("readable"), sound);
    assert!(!log.path("frames/sealing").exists() && log.verify().passed());
}

#[tokio::test]
async fn damage_in_a_sealed_segment_is_named_with_file_and_offset_and_never_cleared() {
    let log = sealed_log().await;
    let sound = fs::read(log.path(FIRST_SEALED)).expect("readable");
    let end = sound.len();
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 4] = [
        ("a bit", |bytes| bytes[1_000] ^= 1),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("its table", |bytes| {
            let at = bytes.len() - 12;
            bytes[at] ^= 1;
        }),
    ];
    for (name, change) in changes {
        log.change(FIRST_SEALED, change);
        let report = log.verify();
        assert_eq!(report.exit_code(), Check::Frames.exit_code(), "{name}: {report}");
        let problem = &report.problems[0];
        assert_eq!(problem.file.as_deref(), Some(FIRST_SEALED), "{name}");
        assert_eq!((problem.offset, problem.index), (Some(0), Some(LeafIndex(0))), "{name}");
        let (code, said) = fsck(&log, &["--repair"]);
        assert_eq!(code, Some(10), "{name}: {said}");
        assert!(said.contains("not looked at"), "{name}: {said}");
        let (dir, key) = (log.dir.path().to_str().expect("UTF-8"), log.key.verifier().to_string());
        let replayed = interlock(&["replay", "--log", dir, "--key", &key]);
        assert_eq!(replayed.status.code(), Some(10), "{name}");
        let place = format!("[{FIRST_SEALED}, offset 0]");
        assert!(stdout(&replayed).contains(&place), "{name}: {}", stdout(&replayed));
        // A start reads from the restart point on, and says so when it cannot.
        for first in ["00000000000000000064", "00000000000000000128"] {
            // Gone from the first round on.
            let _ = fs::remove_file(log.path(&format!("restart/{first}.json")));
        }
        assert!(log.refused().contains(FIRST_SEALED), "{name}: {}", log.refused());
        write(&log.path(FIRST_SEALED), &sound);
    }
    assert_eq!(fs::read(log.path(FIRST_SEALED)).expect("readable").len(), end);
    log.open().expect("opens");
}

#[tokio::test]
async fn a_start_reads_from_the_restart_point_on_and_misses_a_segment_that_is_gone() {
    let log = sealed_log().await;
    let sound = fs::read(log.path(FIRST_SEALED)).expect("readable");
    log.change(FIRST_SEALED, |bytes| bytes[1_000] ^= 1);
    assert_eq!(log.open().expect("it does not read that far back").1.size.0, LEAVES as u64 + 1);
    // An older point, cut in the middle, is no reason to read less.
    log.change(NEWEST_RESTART, |bytes| bytes.truncate(100));
    assert_eq!(log.open().expect("opens").1.size.0, LEAVES as u64 + 2);
    fs::remove_file(log.path(FIRST_SEALED)).expect("removed");
    assert!(log.refused().contains("named for entry 64, expected entry 0"), "{}", log.refused());
    write(&log.path(FIRST_SEALED), &sound);
    assert_eq!(log.open().expect("opens").1.size.0, LEAVES as u64 + 3);
}

#[tokio::test]
async fn stat_counts_what_is_there() {
    let log = sealed_log().await;
    let found: Value = serde_json::from_slice(&log_command("stat", &log, &["--json"]).stdout).expect("json");
    assert_eq!((&found["leaves"], &found["signed_leaves"]), (&LEAVES.into(), &LEAVES.into()));
    assert_eq!((&found["sealed_segments"], &found["raw_segments"]), (&2.into(), &1.into()));
    assert_eq!(found["sealed_from_bytes"], 2 * SEGMENT_BYTES);
    assert!(found["sealed_bytes"].as_u64() < Some(SEGMENT_BYTES), "{found}");
    assert_eq!((&found["restart_points"], &found["newest_restart_point"]), (&2.into(), &128.into()));
    assert_eq!(found["days"]["2025-11-20"]["policy"], LEAVES - 2);
    assert_eq!((&found["epochs"], &found["open_permits"]), (&1.into(), &0.into()));
    let text = stdout(&log_command("stat", &log, &[]));
    assert!(text.contains("sealed       2 segments") && text.contains(ORIGIN), "{text}");
}

#[tokio::test]
async fn fsck_names_what_is_derived_and_wrong_and_makes_it_again() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 400).await;
    let (code, said) = fsck(&log, &[]);
    assert!(code == Some(1) && said.contains("another process"), "{said}");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    drop(ledger);
    assert_eq!(fsck(&log, &[]).0, Some(0), "{}", fsck(&log, &[]).1);

    let (tile, bundle) = (log.path("tile/0/000"), log.path("tile/entries/000"));
    let (sound_tile, sound_bundle) =
        (fs::read(&tile).expect("readable"), fs::read(&bundle).expect("readable"));
    fs::remove_file(&bundle).expect("removed");
    write(&log.path("restart/00000000000000000007.json"), b"{}\n");
    let mut bent = sound_tile.clone();
    bent[100] ^= 1;
    fs::remove_file(&tile).expect("removed");
    write(&tile, &bent);
    let (code, said) = fsck(&log, &[]);
    assert_eq!(code, Some(16), "{said}");
    for file in ["[tile/0/000]", "[tile/entries/000]", "[restart/00000000000000000007.json]"] {
        assert!(said.contains(file), "{said}");
    }
    assert!(!bundle.exists(), "looking changes nothing");
    // A trust file says the same as the key in it.
    write(&log.path("trust"), format!("log {}\nquorum none\n", log.key.verifier()).as_bytes());
    let trust = log.path("trust");
    let by_file = log_command("fsck", &log, &["--trust", trust.to_str().expect("UTF-8")]);
    assert_eq!((by_file.status.code(), stdout(&by_file)), (code, said));
    let (code, said) = fsck(&log, &["--repair"]);
    assert!(code == Some(0) && said.contains("repaired"), "{said}");
    assert_eq!(fs::read(&tile).expect("made"), sound_tile);
    assert_eq!(fs::read(&bundle).expect("made"), sound_bundle);
    assert_eq!(fsck(&log, &[]).0, Some(0), "{}", fsck(&log, &[]).1);
    assert!(log.verify().passed());
    log.open().expect("opens");
}

/// A stopped log of 402 leaves with full and partial tiles.
async fn stopped_log() -> Log {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 400).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    log
}

fn remove(path: &std::path::Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

#[tokio::test]
async fn a_bent_tile_is_found_and_made_again_whole_or_partial_with_and_without_an_index() {
    let log = stopped_log().await;
    let files =
        ["tile/0/000", "tile/0/001.p/146", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/146"];
    for file in files {
        let sound = fs::read(log.path(file)).expect("it is there");
        for has_index in [true, false] {
            let mut bent = sound.clone();
            bent[20] ^= 1;
            // It is read-only.
            remove(&log.path(file));
            write(&log.path(file), &bent);
            if !has_index {
                remove(&log.path("index.redb"));
            }
            let report = log.verify();
            assert_eq!((report.exit_code(), report.problem_count), (16, 1), "{file}: {report}");
            let (code, said) = fsck(&log, &[]);
            assert!(code == Some(16) && said.contains(&format!("[{file}]")), "{file} {has_index}: {said}");
            assert_eq!(fs::read(log.path(file)).expect("readable"), bent, "looking changes nothing");
            let (code, said) = fsck(&log, &["--repair"]);
            assert!(code == Some(0) && said.contains("repaired"), "{file} {has_index}: {said}");
            assert_eq!(fs::read(log.path(file)).expect("made again"), sound, "{file} {has_index}");
            let (code, said) = fsck(&log, &[]);
            assert!(code == Some(0) && log.path("index.redb").exists(), "{file} {has_index}: {said}");
            assert!(log.verify().passed(), "{file}: {}", log.verify());
        }
    }
}

/// Opening one for reading waits until somebody writes to it.
fn pipe(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("runs").success());
}

#[tokio::test]
async fn whatever_stands_where_something_derived_should_costs_no_verdict_about_the_evidence() {
    type Put = fn(&std::path::Path);
    let things: [(&str, Put); 3] = [
        ("a pipe", pipe),
        ("a file", |at| write(at, b"in the way")),
        ("a directory", |at| fs::create_dir(at).expect("made")),
    ];
    let log = sealed_log().await;
    let sound = |check| log.verify().verdicts.of(check) == Verdict::Pass;
    let places = [
        "tile",
        "tile/0",
        "tile/0/000.p",
        "tile/0/000.p/160",
        "tile/entries",
        "index.redb",
        "restart",
        NEWEST_RESTART,
    ];
    for place in places {
        for (what, put) in things {
            let at = log.path(place);
            // A directory is what belongs there, and tells nothing when it is empty.
            let dirs = ["tile", "tile/0", "tile/0/000.p", "tile/entries", "restart"];
            let is_fit = what == "a directory" && dirs.contains(&place);
            remove(&at);
            put(&at);
            // Whether the log replays is not asked.
            let asked = |check: &Check| ![Check::Tiles, Check::Replayed].contains(check);
            for check in Check::ALL.into_iter().filter(asked) {
                assert!(sound(check), "{what} at {place}: {}", log.verify());
            }
            let is_tile = place.starts_with("tile");
            assert_eq!(sound(Check::Tiles), !is_tile || is_fit, "{what} at {place}: {}", log.verify());
            let (code, said) = fsck(&log, &[]);
            assert_eq!(code, Some(if is_fit { 0 } else { 16 }), "{what} at {place}: {said}");
            assert!(said.contains("frames       pass"), "{what} at {place}: {said}");
            let (code, said) = fsck(&log, &["--repair"]);
            assert_eq!(code, Some(0), "{what} at {place}: {said}");
            assert_eq!(fsck(&log, &[]).0, Some(0), "{what} at {place}: {}", fsck(&log, &[]).1);
            // What was made again, or made by the next start.
            drop(log.open().expect("opens"));
            fs::create_dir_all(log.path("restart")).expect("made");
            fs::create_dir_all(log.path("tile/0/000.p")).expect("made");
        }
    }
    remove(&log.path("checkpoint"));
    fs::create_dir(log.path("checkpoint")).expect("made");
    let report = log.verify();
    assert_eq!(report.exit_code(), Check::Signed.exit_code(), "{report}");
    assert!(report.problems[0].what.contains("cannot be read"), "{report}");
    assert_eq!(report.verdicts.of(Check::Frames), Verdict::Pass, "{report}");
}

#[tokio::test]
async fn fsck_finds_a_row_without_which_a_search_would_pass_over_a_bundle() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 400).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    drop(ledger);
    let times: TableDefinition<'_, (u32, u64), (u64, u64)> = TableDefinition::new("times");
    // Of the bundle itself, and of a span of many.
    for (level, range) in [(0, None), (0, Some((0, 1))), (3, None), (3, Some((0, 1)))] {
        let index = Database::open(log.path("index.redb")).expect("a database");
        let change = index.begin_write().expect("begun");
        {
            let mut rows = change.open_table(times).expect("a table");
            match range {
                None => drop(rows.remove((level, 0)).expect("removed")),
                Some(range) => drop(rows.insert((level, 0), range).expect("changed")),
            }
        }
        change.commit().expect("committed");
        drop(index);
        let (code, said) = fsck(&log, &[]);
        assert!(
            code == Some(16) && said.contains("a row of bundle 0 is missing"),
            "{level} {range:?} {said}"
        );
        assert_eq!(fsck(&log, &["--repair"]).0, Some(0));
        assert_eq!(fsck(&log, &[]).0, Some(0));
    }
}

#[tokio::test]
async fn an_export_is_the_log_as_static_tiles_up_to_the_checkpoint() {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 299).await;
    let older = ledger.checkpoint().expect("signed");
    write(&log.path("older"), older.as_bytes());
    log.fill(&ledger, 5).await;
    let rules = ["package a", "package b"];
    for _ in 0..2 {
        let file =
            |text: &'static str| BundleFile { name: text.into(), bytes: Bytes::from_static(text.as_bytes()) };
        let active = PolicyActivation { files: rules.map(file).into(), ..activation(0) };
        ledger.record_policy(active).await.expect("recorded");
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let (to, until) = (log.path("copy"), log.path("older"));
    let (to, until) = (to.to_str().expect("UTF-8"), until.to_str().expect("UTF-8"));
    let exported = log_command("export", &log, &["--to", to, "--until", until]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    assert_eq!(stdout(&exported), "300 entries: 3 tiles, 2 bundles, 0 files of evidence\n");
    assert_eq!(fs::read(log.path("copy/checkpoint")).expect("written"), older.as_bytes());
    let same = |name: &str| {
        let bytes = fs::read(log.path(&format!("copy/tile/{name}"))).expect("written");
        assert_eq!(bytes, fs::read(log.path(&format!("tile/{name}"))).expect("the archive's own"), "{name}");
    };
    same("0/000");
    same("entries/000");
    assert_eq!(fs::read(log.path("copy/tile/0/001.p/44")).expect("partial").len(), 44 * 32);
    assert_eq!(fs::read(log.path("copy/tile/1/000.p/1")).expect("partial").len(), 32);
    assert!(log.path("copy/tile/entries/001.p/44").exists());

    // With its evidence: every record once, under the digest of its bytes.
    let with = format!("{to}1");
    let exported = log_command("export", &log, &["--to", &with, "--evidence"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let files: Vec<_> = fs::read_dir(log.path("copy1/evidence"))
        .expect("made")
        .map(|e| e.expect("readable").path())
        .collect();
    let said = format!(", {} files of evidence\n", files.len());
    assert!(stdout(&exported).ends_with(&said), "{}", stdout(&exported));
    for file in &files {
        let digest = Digest::of(&fs::read(file).expect("readable")).to_string();
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(digest, format!("sha-256:{name}"));
    }
    assert_eq!(files.len(), rules.len(), "each once, however often it was active");
    assert!(!log.path("copy/evidence").exists(), "only when asked");

    let again = log_command("export", &log, &["--to", to]);
    assert_eq!(again.status.code(), Some(1), "never into what is there");
    write(&log.path("other"), older.replace("\n300\n", "\n299\n").as_bytes());
    let other = log.path("other");
    let wrong = log_command(
        "export",
        &log,
        &["--to", &format!("{to}2"), "--until", other.to_str().expect("UTF-8"), "--evidence"],
    );
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("names root"));
    assert!(!log.path("copy2/checkpoint").exists(), "no checkpoint over what it does not cover");
}

#[tokio::test]
async fn a_second_writer_is_refused_also_when_somebody_removed_the_lock() {
    let log = Log::new();
    let (first, _) = log.open().expect("opens");
    fs::remove_file(log.path("lock")).expect("removed");
    assert!(log.refused().starts_with("another process has the log in"), "{}", log.refused());
    drop(first);
    log.open().expect("opens");
}

fn open_with(log: &Log, segment_bytes: u64) -> Ledger {
    let origin = ORIGIN.parse().expect("a name");
    let settings =
        Settings { dir: log.dir.path().to_owned(), origin, segment_bytes, salts: None, heartbeat: None };
    let clock = Clock::manual(WallTime::from_unix_ns(1_763_643_600_000_000_000));
    Ledger::open(settings, Box::new(log.key.clone()), clock, start()).expect("opens").0
}

#[tokio::test]
async fn a_spare_without_its_room_or_of_another_length_is_made_whole() {
    let log = Log::with_leaves(3).await;
    let spare = log.path("frames/spare");
    let room = || {
        let found = fs::metadata(&spare).expect("there");
        (found.len(), found.blocks() * 512 >= found.len())
    };
    assert_eq!(room(), (SEGMENT_BYTES, true));
    fs::remove_file(&spare).expect("removed");
    let hollow = fs::File::options().write(true).create_new(true).open(&spare).expect("made");
    hollow.set_len(SEGMENT_BYTES).expect("set");
    assert_eq!(room(), (SEGMENT_BYTES, false), "the file system knows holes");
    drop(open_with(&log, SEGMENT_BYTES));
    assert_eq!(room(), (SEGMENT_BYTES, true));
    for segment_bytes in [2 * SEGMENT_BYTES, SEGMENT_BYTES] {
        drop(open_with(&log, segment_bytes));
        assert_eq!(room(), (segment_bytes, true));
    }
    assert_eq!(log.verify().verdicts.of(Check::Frames), Verdict::Pass);
}

/// A segment of which every block looks like the start of a frame as long as the rest of it.
struct Hostile {
    bytes: Vec<u8>,
    read: Cell<usize>,
}

impl Source for Hostile {
    fn segments(&self) -> io::Result<Vec<LeafIndex>> {
        Ok(vec![LeafIndex(0)])
    }

    fn length(&self, _: LeafIndex) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_at(&self, _: LeafIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read.set(self.read.get() + buffer.len());
        buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[test]
fn a_segment_full_of_frame_headers_is_read_a_few_times_and_no_more() {
    let blocks = 1_024;
    let mut bytes = vec![0; blocks * 4_096];
    for block in 1..blocks {
        let (at, length) = (block * 4_096, ((blocks - block) * 4_096) as u32);
        let mut header = Vec::from(MAGIC);
        header.extend([0, 2, 0, 0]);
        header.extend(length.to_be_bytes());
        header.extend(0_u64.to_be_bytes());
        // One entry, which takes all of it but header and trailer.
        for field in [1, length - 104 - 64, 0, 0] {
            header.extend(field.to_be_bytes());
        }
        bytes[at..at + header.len()].copy_from_slice(&header);
        assert!(frame::decode_header(&bytes[at..at + 4_096]).is_ok());
    }
    bytes[0] = 1;
    let hostile = Hostile { bytes, read: Cell::new(0) };
    let mut walk = Walk::new(&hostile, &ORIGIN.parse().expect("a name")).expect("readable");
    let Step::Damaged(damage) = walk.step().expect("readable") else { panic!("no frame stands there") };
    assert!(!damage.is_torn_tail(), "what was not looked through is not taken for nothing");
    assert!(hostile.read.get() < 5 * blocks * 4_096, "{} bytes read", hostile.read.get());
}
