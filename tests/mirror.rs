//! A mirror: what a gateway serves to read, copied by somebody who has no access to the log's directory, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use interlock::gateway::Stopped;
use interlock::merkle::checkpoint::{Checkpoint, parse_checkpoint};
use interlock::merkle::note::Signer;
use interlock::merkle::tile::{TilePath, complete, partial_tiles};
use interlock::model::TreeSize;
use serde_json::Value;

use super::ledger_faults::{Key, Log, ORIGIN, interlock, write};
use super::reading::{fill, wait_until_readable};
use crate::support::World;

/// Paths and bytes.
type Files = BTreeMap<String, Vec<u8>>;

/// Every tile and bundle of a tree of this size, as a mirror asks for them.
fn paths(size: TreeSize) -> Vec<String> {
    let full = (0..8).flat_map(|level| {
        (0..complete(size, level) / 256).map(move |number| TilePath::hashes(level, number))
    });
    let bundles = (0..size.0 / 256).map(TilePath::entries);
    full.chain(bundles).chain(partial_tiles(size)).map(|path| format!("tile/{path}")).collect()
}

fn lay_out(files: &Files, dir: &Path) {
    for (name, bytes) in files {
        fs::create_dir_all(dir.join(name).parent().expect("it has one")).expect("made");
        write(&dir.join(name), bytes);
    }
}

/// Exit code and report of both programs, which say the same.
fn verify(files: &Files, vkey: &str, more: &[&str]) -> (i32, Value) {
    let dir = tempfile::tempdir().expect("a directory");
    lay_out(files, dir.path());
    let run = |program: &str, first: &[&str]| {
        let mut command = Command::new(program);
        command.args(first).arg("--mirror").arg(dir.path()).args(["--key", vkey, "--json"]).args(more);
        command.output().expect("runs")
    };
    let one = run(env!("CARGO_BIN_EXE_interlock-verify"), &[]);
    let report = serde_json::from_slice(&one.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&one.stderr)));
    (one.status.code().expect("it ended"), report)
}

/// Whether a problem of the report names this file, and an entry if it is no checkpoint.
fn names(report: &Value, file: &str) -> bool {
    let problems = report["problems"].as_array().expect("a list");
    problems
        .iter()
        .any(|problem| problem["file"] == *file && (file == "checkpoint" || problem["index"].is_u64()))
}

#[test]
fn a_mirror_of_what_is_served_verifies_and_each_change_of_it_is_found() {
    let mut world = World::start();
    fill(&world, 520);
    for _ in 0..4 {
        assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
    }
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    wait_until_readable(&world);
    let note = world.admin("/checkpoint").body;
    let size = parse_checkpoint(&note, &world.key).expect("signed").checkpoint().size;
    let mut files = Files::from([("checkpoint".to_owned(), note)]);
    for path in paths(size) {
        let served = world.admin(&format!("/{path}"));
        assert_eq!(served.status, 200, "{path}");
        files.insert(path, served.body);
    }
    let vkey = world.key.to_string();
    world.finish_here(Stopped::Clean);
    assert!(size.0 > 520 && files.len() >= 8, "{size} {:?}", files.keys());

    let (code, report) = verify(&files, &vkey, &[]);
    assert_eq!((code, &report["size"], &report["permits"]), (0, &size.0.into(), &4.into()), "{report}");
    for (check, verdict) in [
        ("frames", "not_checked"),
        ("evidence", "not_checked"),
        ("replayed", "not_checked"),
        ("well_formed", "pass"),
        ("included", "pass"),
        ("signed", "pass"),
        ("paired", "pass"),
        ("epochs", "pass"),
        ("tiles", "pass"),
    ] {
        assert_eq!(report["verdicts"][check], verdict, "{check}: {report}");
    }
    let noted = report["notes"].as_array().expect("a list").iter().filter_map(Value::as_str);
    assert!(noted.into_iter().any(|note| note.contains("no frames and no evidence")), "{report}");
    each_change_is_found(&files, &vkey);

    // A whole file in a partial one's place begins like it.
    let mut longer = files.clone();
    let last = format!("tile/0/002.p/{}", size.0 % 256);
    let mut bytes = longer.remove(&last).expect("the last tile");
    bytes.resize(256 * 32, 7);
    longer.insert("tile/0/002".into(), bytes);
    let (code, report) = verify(&longer, &vkey, &[]);
    assert_eq!(code, 0, "{report}");
}

fn each_change_is_found(sound: &Files, vkey: &str) {
    for (name, bytes) in sound {
        let mut changed = sound.clone();
        changed.remove(name);
        let (code, report) = verify(&changed, vkey, &[]);
        assert!(code >= 10 && names(&report, name), "without {name}: {code} {report}");

        let change = |bytes: Vec<u8>| verify(&Files::from([(name.clone(), bytes)]).with(sound), vkey, &[]);
        let middle = bytes.len() / 2;
        let mut bent = bytes.clone();
        bent[middle] ^= 1;
        let (code, report) = change(bent);
        assert!(code >= 10 && names(&report, name), "a bit of {name}: {code} {report}");
        if let Some(number) = name.strip_prefix("tile/0/") {
            let first = number[..3].parse::<usize>().expect("a number") * 256 + middle / 32;
            let at = report["problems"].as_array().expect("a list").iter().find(|p| p["file"] == **name);
            assert_eq!(at.expect("named")["index"], first, "{name}: {report}");
        }
        for shorter in [&bytes[..middle], &[]] {
            let (code, report) = change(shorter.to_vec());
            assert!(code >= 10 && names(&report, name), "{name} cut: {code} {report}");
        }
        for (other, their) in sound.iter().filter(|(other, their)| *other > name && *their != bytes) {
            let mut changed = sound.clone();
            changed.insert(name.clone(), their.clone());
            changed.insert(other.clone(), bytes.clone());
            let (code, report) = verify(&changed, vkey, &[]);
            assert!(code >= 10, "{name} and {other} exchanged: {report}");
            assert!(names(&report, name) || names(&report, other), "{name} and {other}: {report}");
        }
    }
}

trait With {
    fn with(self, others: &Files) -> Files;
}

impl With for Files {
    fn with(self, others: &Files) -> Files {
        let mut all = others.clone();
        all.extend(self);
        all
    }
}

fn read_all(root: &Path, dir: &Path, found: &mut Files) {
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            read_all(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("below it").to_str().expect("UTF-8").to_owned();
            found.insert(name, fs::read(&path).expect("readable"));
        }
    }
}

/// An export of a log that was stopped, and of an older checkpoint of it.
async fn exported() -> (Log, Files, Files) {
    let log = Log::new();
    let (ledger, _) = log.open().expect("opens");
    log.fill(&ledger, 299).await;
    write(&log.path("older"), ledger.checkpoint().expect("signed").as_bytes());
    log.fill(&ledger, 20).await;
    ledger.close(std::time::Duration::ZERO).await;
    let (dir, older) = (log.dir.path().to_str().expect("UTF-8"), log.path("older"));
    let mut copies = [Vec::new(), vec!["--until", older.to_str().expect("UTF-8")]].into_iter().map(|more| {
        let to = tempfile::tempdir().expect("a directory");
        let copy = to.path().join("copy");
        let to = copy.to_str().expect("UTF-8");
        let done = interlock(&[&["log", "export", "--log", dir, "--to", to][..], &more].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut files = Files::new();
        read_all(&copy, &copy, &mut files);
        files
    });
    let (whole, cut) = (copies.next().expect("one"), copies.next().expect("another"));
    (log, whole, cut)
}

#[tokio::test]
async fn an_export_is_a_mirror_and_one_that_was_cut_is_told_by_a_checkpoint_from_elsewhere_only() {
    let (log, whole, cut) = exported().await;
    let vkey = log.key.verifier().to_string();
    assert_eq!(verify(&whole, &vkey, &[]).0, 0);
    // An older checkpoint is a whole log of its own.
    let (code, report) = verify(&cut, &vkey, &[]);
    assert_eq!((code, &report["size"]), (0, &300.into()), "{report}");
    let kept = log.path("checkpoint");
    let kept = kept.to_str().expect("UTF-8");
    let (code, report) = verify(&cut, &vkey, &["--checkpoint", kept]);
    assert!(code == 12 && report.to_string().contains("the log was cut"), "{report}");
    let older = log.path("older");
    assert_eq!(verify(&whole, &vkey, &["--checkpoint", older.to_str().expect("UTF-8")]).0, 0);

    // By a key that nobody trusts; by nobody; over other leaves than are there.
    let mut forged = whole.clone();
    let own =
        parse_checkpoint(&whole["checkpoint"], log.key.verifier()).expect("signed").checkpoint().clone();
    forged.insert("checkpoint".into(), own.sign(&Key::new()).expect("signs").into_bytes());
    let (code, report) = verify(&forged, &vkey, &[]);
    assert_eq!((code, &report["verdicts"]["included"]), (12, &"not_established".into()), "{report}");
    forged.insert("checkpoint".into(), b"nothing\n".to_vec());
    let (code, report) = verify(&forged, &vkey, &[]);
    assert!(code == 12 && report["verdicts"]["tiles"] == "not_established", "{report}");
    let other = Checkpoint { origin: ORIGIN.parse().expect("a name"), ..log_of_another_root(&own) };
    forged.insert("checkpoint".into(), other.sign(&log.key).expect("signs").into_bytes());
    let (code, report) = verify(&forged, &vkey, &[]);
    assert_eq!((code, &report["verdicts"]["signed"]), (11, &"pass".into()), "{report}");
}

fn log_of_another_root(own: &Checkpoint) -> Checkpoint {
    Checkpoint { root: interlock::model::Digest::of(b"other"), ..own.clone() }
}

#[tokio::test]
async fn a_bundle_that_is_gone_costs_no_verdict_about_the_tree_and_a_log_is_not_taken_for_a_mirror() {
    let (log, whole, _) = exported().await;
    let vkey = log.key.verifier().to_string();
    let mut gone = whole.clone();
    gone.remove("tile/entries/000");
    let (code, report) = verify(&gone, &vkey, &[]);
    assert_eq!((code, &report["size"], &report["problem_count"]), (16, &321.into(), &1.into()), "{report}");
    for (check, verdict) in
        [("included", "pass"), ("signed", "not_established"), ("paired", "not_established")]
    {
        assert_eq!(report["verdicts"][check], verdict, "{check}: {report}");
    }
    assert!(names(&report, "tile/entries/000"), "{report}");
    let noted = report["notes"].to_string();
    assert!(!noted.contains("does not end with a stop"), "nobody has seen its end: {noted}");
    // Neither entries nor hashes: nothing past them is said.
    gone.remove("tile/0/000");
    let (code, report) = verify(&gone, &vkey, &[]);
    assert!(code == 16 && names(&report, "tile/0/000"), "{report}");
    assert_eq!((&report["verdicts"]["included"], &report["size"]), (&"not_established".into(), &0.into()));

    let dir = tempfile::tempdir().expect("a directory");
    lay_out(&whole, dir.path());
    let mirror = dir.path().to_str().expect("UTF-8");
    // Nobody takes frames away and has the rest pass as the log.
    let refused = interlock(&["verify", "--log", mirror, "--key", &vkey]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`--mirror`"));
    assert_eq!(interlock(&["verify", "--mirror", mirror, "--key", &vkey]).status.code(), Some(0));
    // There is nothing to replay from.
    assert_eq!(interlock(&["verify", "--mirror", mirror, "--key", &vkey, "--replay"]).status.code(), Some(2));
    let nothing = dir.path().join("tile/0");
    let nothing = interlock(&["verify", "--mirror", nothing.to_str().expect("UTF-8"), "--key", &vkey]);
    assert_eq!(nothing.status.code(), Some(1));
}
