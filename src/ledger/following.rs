//! Who follows the log has the same state live and after every kind of start: it is the fold of what the log says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::faults::leaf_hashes;
use super::follow::changes_of;
use super::restart;
use super::simulated::{Failure, Simulated, Target};
use super::snapshots::StateKeeper;
use super::storage::Storage;
use super::tests::{activation, administration, clock, confirmed, decision_entry, settings, signer, start};
use super::*;
use crate::merkle::note::Signer;
use crate::model::entry::{AdminAction, AttestedBy, ClaimEntry, HoldEntry, Reserve};
use crate::model::{Change, LeafIndex, OutcomeStatus, TreeSize};
use crate::verify::Source;
use crate::verify::walk::{Step, Walk};

/// Keeps every change, as text, a line each.
#[derive(Default)]
struct Recorder(Mutex<(Vec<String>, u64)>);

fn line(index: LeafIndex, change: &Change) -> String {
    format!("{index} {change:?}")
}

impl Recorder {
    fn state(&self) -> (Vec<String>, u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Follower for Recorder {
    fn apply(&self, changes: Vec<(LeafIndex, Change)>, size: TreeSize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(size.0 > state.1, "batches come in the order of the log");
        for (index, change) in changes {
            assert!((state.1..size.0).contains(&index.0), "a change is of its batch");
            state.0.push(line(index, &change));
        }
        state.1 = size.0;
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let (lines, size) = self.state();
        Box::new(move || format!("{size}\n{}", lines.join("\n")).into_bytes())
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), String> {
        self.clear();
        let text = std::str::from_utf8(snapshot).map_err(|e| e.to_string())?;
        let (size, lines) = text.split_once('\n').ok_or("no size")?;
        let size = size.parse().map_err(|_| "no size".to_owned())?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            (lines.lines().map(str::to_owned).collect(), size);
        Ok(())
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

/// What the log says, read from its frames alone.
fn truth(storage: &impl Source) -> (Vec<String>, u64) {
    let mut walk = Walk::new(storage, signer().verifier().name()).expect("readable");
    let (mut lines, mut size) = (Vec::new(), 0);
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        let changes = changes_of(&frame).expect("our own leaves");
        lines.extend(changes.iter().map(|(index, change)| line(*index, change)));
        size = frame.first.0 + frame.entries.len() as u64;
    }
    (lines, size)
}

fn open(storage: &Arc<Simulated>) -> Result<(Ledger, Arc<Recorder>), OpenError> {
    let recorder = Arc::new(Recorder::default());
    let on: Arc<Simulated> = Arc::clone(storage);
    let start = Start { follower: Arc::clone(&recorder) as Arc<dyn Follower>, ..start() };
    let (ledger, _) = Ledger::open_on(on, settings("/nowhere".as_ref()), signer(), clock(), start)?;
    Ok((ledger, recorder))
}

/// What the sealer and the archiver do behind the committer.
fn in_background(ledger: &Ledger, storage: &Simulated) {
    let log = signer().verifier().name().clone();
    let key = || signer().frame_key().expect("signs");
    let sealing = {
        let threads = ledger.0.threads.lock().expect("whole");
        threads.as_ref().map(|threads| threads.sealer.queue())
    };
    let keeper = StateKeeper { log: log.clone(), key: key() };
    while let Some(job) = sealing.as_ref().and_then(|sealing| sealing.next_state()) {
        // What fails here is only told of.
        let _ = keeper.keep(storage, job);
    }
    let _ = restart::derive(storage, &log, |point| restart::keep(storage, &log, &key(), &point));
}

async fn decide(ledger: &Ledger, decision: Decision, input: Bytes) -> Result<queue::Done, Unrecorded> {
    let id = ledger.new_id()?;
    let mut entry = decision_entry(id, decision, ledger.epoch(), &input);
    let until: Arc<str> = "2026-11-20T14:00:00.123456Z".into();
    match decision {
        Decision::Permit => {
            entry.idempotency_key = Some("order-9".parse().expect("a key"));
            entry.claim = Some(ClaimEntry { until: Arc::clone(&until) });
            let (amount, budget) = ("12.50".into(), "daily".parse().expect("a name"));
            entry.reserves = vec![Reserve { amount, budget, key: Digest::of(b"key"), until }];
        }
        Decision::Escalate => entry.hold = Some(HoldEntry { id, until }),
        Decision::Quarantine | Decision::Deny | Decision::Silence => {}
    }
    let entry = Entry::Decision(Box::new(entry));
    ledger.append_decision(entry, (id, decision), (Digest::of(&input), input), None).await
}

fn large() -> Bytes {
    format!("\"{}\"", "1".repeat(120_000)).into()
}

/// Permits with so much evidence that they fill one segment, and some.
const SHORT: u32 = 4;
const LONG: u32 = 6;

/// Every kind of change, in several segments. A permit is left open.
async fn all_changes(ledger: &Ledger, storage: &Simulated, permits: u32) -> Result<OpenPermit, Unrecorded> {
    ledger.record_policy(activation()).await?;
    for n in 0..permits {
        let done = decide(ledger, Decision::Permit, large()).await?;
        let (id, index) = (done.receipt.id.expect("a decision"), done.receipt.index);
        let mut open = done.open.expect("a permit");
        let outcome = match n {
            0 => Some(Outcome { answer: Some(Bytes::from_static(b"{\"status\":201}")), ..confirmed() }),
            1 => Some(Outcome { status: OutcomeStatus::Indeterminate, ..confirmed() }),
            2 => Some(Outcome { status: OutcomeStatus::Failed, ..confirmed() }),
            // Abandoned.
            _ => None,
        };
        match outcome {
            Some(outcome) => {
                open.bytes_may_leave();
                open.close(outcome).durable().await?;
            }
            None => drop(open),
        }
        if n == 1 {
            let by = AttestedBy { evidence: "ticket 7".into(), operator: None };
            let (status, budgets) = (Attested::Confirmed, vec!["daily".parse().expect("a name")]);
            let attestation = Attestation { decision_id: id, decision_index: index, status, by, budgets };
            ledger.record_attestation(attestation).await?;
        }
        for decision in [Decision::Escalate, Decision::Quarantine, Decision::Deny] {
            decide(ledger, decision, Bytes::from_static(b"{}")).await?;
        }
        ledger.record_admin(administration(AdminAction::Freeze)).await?;
        in_background(ledger, storage);
    }
    let done = decide(ledger, Decision::Permit, Bytes::from_static(b"{}")).await?;
    in_background(ledger, storage);
    Ok(done.open.expect("a permit"))
}

/// One run that is killed in the end, or before by a fault. Whether it came to its end.
async fn live(storage: &Arc<Simulated>, permits: u32) -> bool {
    let Ok((ledger, recorder)) = open(storage) else { return false };
    let left_open = all_changes(&ledger, storage, permits).await;
    let (heard, size) = recorder.state();
    let (lines, leaves) = truth(&**storage);
    match &left_open {
        Ok(_) => assert_eq!((&heard, size), (&lines, leaves), "the follower has what the log says"),
        Err(_) => assert!(lines.starts_with(&heard) && leaves >= size, "what it heard of is durable"),
    }
    drop(ledger);
    left_open.is_ok()
}

/// A start gives the state that the log says, and goes on with it.
async fn stands(storage: &Arc<Simulated>, when: &str) {
    let (ledger, recorder) = open(storage).unwrap_or_else(|e| panic!("{when}: {e}"));
    assert_eq!(recorder.state(), truth(&**storage), "{when}");
    ledger
        .record_admin(administration(AdminAction::Unfreeze))
        .await
        .unwrap_or_else(|e| panic!("{when}: {e}"));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean, "{when}");
    assert_eq!(recorder.state(), truth(&**storage), "{when}");
    in_background(&ledger, storage);
}

async fn survives(target: Target, failure: Failure, faults: &mut usize) {
    let when = format!("{target:?} {failure:?}");
    let storage = Arc::new(Simulated::new());
    storage.plan(target, failure);
    *faults += usize::from(!live(&storage, SHORT).await);
    match failure {
        Failure::FailsAndNotPersisted | Failure::FailsButPersisted => storage.restart_process(),
        Failure::TornAfter(_) | Failure::TornBefore(_) | Failure::PowerCut => storage.restart_machine(),
    }
    stands(&storage, &when).await;
    storage.restart_machine();
    stands(&storage, &format!("{when}, then a power cut")).await;
}

/// Only what writes bytes can be torn.
fn failures(operation: &str) -> Vec<Failure> {
    let whole = [Failure::FailsAndNotPersisted, Failure::FailsButPersisted, Failure::PowerCut];
    let torn = operation.starts_with("write").then_some([Failure::TornAfter(1), Failure::TornBefore(1)]);
    whole.into_iter().chain(torn.into_iter().flatten()).collect()
}

#[tokio::test]
async fn a_follower_has_the_same_state_after_a_start_whatever_operation_failed_before() {
    let storage = Arc::new(Simulated::new());
    assert!(live(&storage, SHORT).await);
    let (operations, _) = storage.history();
    let mut faults = 0;
    for (operation, name) in operations.iter().enumerate() {
        for failure in failures(name) {
            survives(Target::Operation(operation), failure, &mut faults).await;
        }
    }
    assert!(faults >= 3 * operations.len(), "{faults} of {} operations", operations.len());
}

#[tokio::test]
async fn a_follower_has_the_same_state_after_a_start_whatever_failed_in_the_background() {
    let storage = Arc::new(Simulated::new());
    assert!(live(&storage, SHORT).await);
    let operations = storage.background();
    assert!(operations.iter().any(|(name, _)| *name == "write_state"));
    for (operation, (name, _)) in operations.iter().enumerate() {
        for failure in failures(name) {
            survives(Target::Background(operation), failure, &mut 0).await;
        }
    }
}

#[tokio::test]
async fn a_start_folds_from_the_newest_pair_that_fits_and_says_the_same_without_one() {
    let storage = Arc::new(Simulated::new());
    assert!(live(&storage, LONG).await);
    let states = storage.states().expect("listed");
    let points = storage.restart_points().expect("listed");
    assert!(states.len() >= 2 && states.iter().all(|first| points.contains(first)), "{states:?} {points:?}");
    let newest = *states.last().expect("one");
    let same = |from: LeafIndex, when: &str| {
        storage.restart_machine();
        let (ledger, recorder) = open(&storage).expect("opens");
        drop(ledger);
        let segments = storage.segments().expect("listed");
        for segment in segments {
            // The walk to compare with reads all of it.
            assert_eq!(storage.was_read(segment), segment >= from, "{when}: {segment}");
        }
        assert_eq!(recorder.state(), truth(&*storage), "{when}");
    };
    same(newest, "untouched");
    storage.change_state(newest, |bytes| *bytes.last_mut().expect("some") ^= 1);
    same(states[states.len() - 2], "the newest is forged");
    let point = |first: LeafIndex| storage.read_restart(first).expect("there");
    let kept: Vec<_> = points.iter().map(|first| (*first, point(*first))).collect();
    for first in &points {
        storage.remove_restart(*first).expect("removed");
    }
    same(LeafIndex(0), "snapshots without restart points");
    for (first, bytes) in kept {
        storage.write_restart(first, &bytes).expect("written");
    }
    for first in &states {
        storage.change_state(*first, |bytes| bytes.truncate(bytes.len() / 2));
    }
    same(LeafIndex(0), "all are cut");
    for first in &states {
        storage.remove_state(*first).expect("removed");
    }
    same(LeafIndex(0), "all are gone");
}

#[tokio::test]
async fn a_snapshot_that_the_follower_refuses_is_passed_over_and_nobody_who_keeps_no_state_needs_one() {
    let storage = Arc::new(Simulated::new());
    assert!(live(&storage, LONG).await);
    let newest = *storage.states().expect("listed").last().expect("one");
    // Tagged by the log's key, and not of this version of the follower.
    let (signer, first) = (signer(), newest);
    let mut root = None;
    restart::derive(&*storage, signer.verifier().name(), |point| {
        root = root.or((point.first == first).then(|| point.edge.root()));
        Ok(())
    })
    .expect("readable");
    let keeper =
        StateKeeper { log: signer.verifier().name().clone(), key: signer.frame_key().expect("signs") };
    let snapshot = Box::new(|| b"another version".to_vec());
    let job = snapshots::StateJob { first, root: root.expect("a boundary"), snapshot };
    keeper.keep(&*storage, job).expect("kept");
    stands(&storage, "refused by the follower").await;
    for first in storage.states().expect("listed") {
        storage.remove_state(first).expect("removed");
    }
    storage.restart_machine();
    drop(super::faults::open(&storage).expect("opens"));
    assert!(!storage.was_read(LeafIndex(0)), "a start without a follower reads from the restart point");
    assert!(leaf_hashes(&storage).len() > 30);
}

#[tokio::test]
async fn snapshots_are_written_to_the_disk_by_themselves_and_fsck_names_one_that_is_not_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = || {
        let recorder = Arc::new(Recorder::default());
        let start = Start { follower: Arc::clone(&recorder) as Arc<dyn Follower>, ..start() };
        let (ledger, _) = Ledger::open(settings(dir.path()), signer(), clock(), start).expect("opens");
        (ledger, recorder)
    };
    let (ledger, recorder) = opened();
    ledger.record_policy(activation()).await.expect("recorded");
    for _ in 0..8 {
        decide(&ledger, Decision::Permit, large()).await.expect("recorded");
    }
    let states = || -> Vec<_> {
        let files = std::fs::read_dir(dir.path().join("restart")).expect("readable");
        let paths = files.map(|file| file.expect("readable").path());
        let mut states: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|e| e == "state")).collect();
        states.sort();
        states
    };
    for _ in 0..500 {
        if states().len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ledger.close(Duration::from_secs(5)).await, Closed::Clean);
    drop(ledger);
    let source = crate::verify::Directory::open(dir.path()).expect("a log");
    assert_eq!(recorder.state(), truth(&source));
    let check =
        |repair| fsck(dir.path(), &signer().verifier().clone().into(), repair, clock()).expect("checkable");
    let checked = check(false);
    assert!(checked.derived.is_empty(), "{:?}", checked.derived);
    let newest = states().pop().expect("at least two");
    let mut bytes = std::fs::read(&newest).expect("readable");
    *bytes.last_mut().expect("some") ^= 1;
    crate::ledger::tests::overwrite(&newest, &bytes);
    let checked = check(true);
    assert_eq!(checked.derived.len(), 1, "{:?}", checked.derived);
    assert!(newest.ends_with(&checked.derived[0].file), "{:?}", checked.derived);
    assert!(!newest.exists());
    let (ledger, recorder) = opened();
    let source = crate::verify::Directory::open(dir.path()).expect("a log");
    assert_eq!(recorder.state(), truth(&source));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
}
