//! What stands where a derived file should, and readers that hold on: no start, no commit and no close waits for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::seal::{Progress, Sealer};
use super::storage::Disk;
use super::tests::{confirmed, open};
use super::{Closed, Ledger};
use crate::model::{Decision, LeafIndex};
use crate::verify::source::segment_file;
use crate::verify::{Directory, Source};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "the tests change files")]
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("written");
}

#[expect(clippy::disallowed_methods, reason = "the tests change files")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("renamed");
}

/// Opening one for reading waits until somebody writes to it.
fn pipe(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).expect("a pipe");
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// Permits and their outcomes, at least so many leaves.
async fn fill(ledger: &Ledger, leaves: u64) {
    let until = ledger.statistics().leaves + leaves;
    while ledger.statistics().leaves < until {
        for done in join_all((0..32).map(|_| ledger.decide(Decision::Permit))).await {
            let permit = done.expect("recorded").open.expect("a permit");
            permit.close(confirmed()).durable().await.expect("recorded");
        }
    }
}

/// A log of several segments with everything that is derived from it.
async fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    fill(&ledger, 700).await;
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    dir
}

async fn catches_up(ledger: &Ledger) -> bool {
    let leaves = ledger.statistics().leaves;
    let mut snapshots = ledger.reader().subscribe();
    tokio::time::timeout(PATIENCE, snapshots.wait_for(|at| at.size().0 >= leaves)).await.is_ok()
}

/// Opens the log, appends to it, waits for the archive if it is to come, and closes the log; on a thread of its own.
fn lives(dir: PathBuf, archived: bool) -> Option<Closed> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let closed = runtime.block_on(async {
            let (ledger, opened) = open(&dir);
            assert!(opened.clean);
            fill(&ledger, 70).await;
            assert!(!archived || catches_up(&ledger).await, "everything can be read in the end");
            ledger.close(Duration::ZERO).await
        });
        let _ = tell.send(closed);
    });
    told.recv_timeout(PATIENCE).ok()
}

#[tokio::test]
async fn whatever_stands_where_a_derived_file_should_keeps_no_log_from_starting_and_stopping() {
    let used = used().await;
    let points = fs::read_dir(used.path().join("restart")).expect("readable");
    let newest = points.map(|entry| entry.expect("readable").file_name()).max().expect("a full segment");
    let newest = format!("restart/{}", newest.to_str().expect("UTF-8"));
    type Put = fn(&Path);
    let things: [(&str, Put); 4] = [
        ("a pipe", pipe),
        ("a file", |at| write(at, b"in the way")),
        ("a directory", |at| fs::create_dir(at).expect("made")),
        ("a link to nothing", |at| symlink("nowhere/at/all", at).expect("made")),
    ];
    let places = ["tile", "tile/0", "tile/0/000", "tile/entries", "index.redb", "restart", &newest];
    for place in places {
        for (what, put) in things {
            let dir = tempfile::tempdir().expect("a directory");
            copy(used.path(), dir.path());
            let at = dir.path().join(place);
            remove(&at);
            put(&at);
            // `tile` itself may be a mount or a link to another disk, and is left alone.
            let archived = place != "tile" || what == "a directory";
            assert_eq!(lives(dir.path().to_owned(), archived), Some(Closed::Clean), "{what} at {place}");
        }
    }
}

#[tokio::test]
async fn a_lookup_that_does_not_end_holds_up_no_close() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    fill(&ledger, 300).await;
    assert!(catches_up(&ledger).await);
    let at = ledger.reader().snapshot();
    let lookup = at.lookup();
    let closed = tokio::time::timeout(PATIENCE, ledger.close(Duration::ZERO)).await;
    assert_eq!(closed, Ok(Closed::Clean));
    drop(lookup);
}

#[tokio::test]
async fn a_segment_that_could_not_be_looked_at_is_sealed_later() {
    let used = used().await;
    let dir = used.path();
    let first = LeafIndex(0);
    let raw = dir.join(segment_file(first));
    let source = Directory::open(dir).expect("a log");
    let mut bytes = vec![0; source.length(first).expect("there") as usize];
    source.read_at(first, 0, &mut bytes).expect("readable");
    write(&raw, &bytes);
    let storage = Arc::new(Disk::open(dir).expect("opens"));
    let mut sealer = Sealer::new(storage).expect("listed");
    let aside = dir.join("aside");
    rename(&raw, &aside);
    fs::create_dir(&raw).expect("made");
    sealer.step().expect_err("it is no file");
    fs::remove_dir(&raw).expect("removed");
    rename(&aside, &raw);
    let steps = (0..1_000).map(|_| sealer.step().expect("sealed"));
    let sealed = steps
        .take_while(|step| *step != Progress::Idle)
        .any(|step| matches!(step, Progress::Sealed { segment, .. } if segment == first));
    assert!(sealed);
}
