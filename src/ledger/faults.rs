//! The fault matrix: every operation of a whole life of a log fails in every way, and the log stands.
//!
//! After each fault: nothing that was released is lost or changed, the log opens again, verifies, and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::restart::{self, RestartPoint};
use super::seal::{Progress, Sealer};
use super::simulated::{Failure, Simulated, Target};
use super::storage::Storage;
use super::tests::{activation, administration, clock, confirmed, rejection, settings, signer, start};
use super::*;
use crate::merkle::note::Signer;
use crate::merkle::tree::leaf_hash;
use crate::model::LeafIndex;
use crate::model::entry::AdminAction;
use crate::verify::walk::{Step, Walk};
use crate::verify::{Form, Source, Verdict, verify_log};

/// What was released, and must be in the log for ever.
#[derive(Default)]
pub(super) struct Model {
    released: Vec<Receipt>,
    refused: usize,
}

impl Model {
    fn note(&mut self, answer: Result<Receipt, Unrecorded>) {
        match answer {
            Ok(receipt) => self.released.push(receipt),
            Err(_) => self.refused += 1,
        }
    }

    fn check(&self, storage: &Simulated, when: &str) {
        let hashes = leaf_hashes(storage);
        for receipt in &self.released {
            assert_eq!(hashes.get(receipt.index.0 as usize), Some(&receipt.leaf_hash), "{when}: {receipt:?}");
        }
    }
}

pub(super) fn leaf_hashes(storage: &Simulated) -> Vec<Digest> {
    let mut walk = Walk::new(storage, signer().verifier().name()).expect("readable");
    let mut hashes = Vec::new();
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        hashes.extend(frame.entries.iter().map(|e| leaf_hash(e)));
    }
    hashes
}

pub(super) fn open(storage: &Arc<Simulated>) -> Result<(Ledger, Opened), OpenError> {
    open_with(storage, signer(), super::tests::SEGMENT_BYTES)
}

pub(super) fn open_with(
    storage: &Arc<Simulated>,
    signers: impl Into<Signers>,
    segment_bytes: u64,
) -> Result<(Ledger, Opened), OpenError> {
    let storage: Arc<Simulated> = Arc::clone(storage);
    let settings = Settings { segment_bytes, ..settings("/nowhere".as_ref()) };
    Ledger::open_on(storage, settings, signers, clock(), start())
}

/// A policy input of so many bytes.
fn input(bytes: usize) -> Bytes {
    format!("\"{}\"", "1".repeat(bytes - 2)).into()
}

/// A small life: all kinds of leaves, large evidence that fills segments, a clean end.
pub(super) async fn live(storage: &Arc<Simulated>, model: &mut Model) -> Option<Closed> {
    let (ledger, _) = open(storage).ok()?;
    let large = input(100_000);
    model.note(ledger.record_policy(activation()).await);
    for input in [Bytes::from_static(b"{}"), large.clone(), large.clone(), large] {
        match ledger.decide_on(Decision::Permit, input).await {
            Ok(done) => {
                model.note(Ok(done.receipt));
                let outcome = done.open.expect("a permit").close(confirmed());
                model.note(outcome.durable().await);
            }
            Err(error) => model.note(Err(error)),
        }
        model.note(ledger.decide(Decision::Deny).await.map(|d| d.receipt));
    }
    model.note(ledger.record_rejection(rejection("agent-7")).await.map(|r| r.expect("first of its actor")));
    let closed = ledger.close(Duration::ZERO).await;
    Some(closed)
}

/// Opens what a fault left, checks it, adds a permit and its outcome, closes, and verifies again.
async fn stands(storage: &Arc<Simulated>, model: &Model, when: &str) {
    model.check(storage, when);
    let (ledger, _) = open(storage).unwrap_or_else(|e| panic!("{when}: {e}"));
    ledger.record_policy(activation()).await.unwrap_or_else(|e| panic!("{when}: {e}"));
    let done = ledger.decide(Decision::Permit).await.unwrap_or_else(|e| panic!("{when}: {e}"));
    done.open.expect("a permit").close(confirmed()).durable().await.unwrap_or_else(|e| panic!("{when}: {e}"));
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean, "{when}");
    drop(ledger);
    model.check(storage, when);
    let report = verify_log(&**storage, signer().verifier()).expect("readable");
    assert!(report.passed() && report.open_count == 0, "{when}:\n{report}");
    assert_eq!(report.unsigned_tail, 0, "{when}");
}

fn restart_after(storage: &Simulated, failure: Failure) {
    match failure {
        // The process starts again on a machine whose memory still shows what never reached the disk.
        Failure::FailsAndNotPersisted | Failure::FailsButPersisted => storage.restart_process(),
        Failure::TornAfter(_) | Failure::TornBefore(_) | Failure::PowerCut => storage.restart_machine(),
    }
}

async fn survives(target: Target, failure: Failure, faults: &mut usize) {
    let when = format!("{target:?} {failure:?}");
    let storage = Arc::new(Simulated::new());
    storage.plan(target, failure);
    let mut model = Model::default();
    let closed = live(&storage, &mut model).await;
    if closed != Some(Closed::Clean) {
        *faults += 1;
    }
    restart_after(&storage, failure);
    stands(&storage, &model, &when).await;
    // And what was built on it is there after the power is cut in the end.
    storage.restart_machine();
    stands(&storage, &model, &format!("{when}, then a power cut")).await;
}

#[tokio::test]
async fn the_log_stands_whatever_operation_fails_in_whatever_way() {
    let storage = Arc::new(Simulated::new());
    let mut model = Model::default();
    assert_eq!(live(&storage, &mut model).await, Some(Closed::Clean));
    assert_eq!((model.released.len(), model.refused), (14, 0));
    let (operations, _) = storage.history();
    for name in ["create_spare", "promote_spare", "write_at", "sync"] {
        assert!(
            operations.iter().filter(|o| **o == name).count() >= 2,
            "the life is too short: {operations:?}"
        );
    }
    let mut faults = 0;
    let failures = [Failure::FailsAndNotPersisted, Failure::FailsButPersisted, Failure::PowerCut];
    for operation in 0..operations.len() {
        for failure in failures {
            survives(Target::Operation(operation), failure, &mut faults).await;
        }
    }
    let planned = operations.len() * failures.len();
    eprintln!("{} operations, {planned} faults, {faults} of them noticed", operations.len());
    assert!(faults >= operations.len(), "most faults are noticed: {faults}");
}

#[tokio::test]
async fn the_log_stands_when_a_write_is_torn_at_any_512_byte_block() {
    let storage = Arc::new(Simulated::new());
    live(&storage, &mut Model::default()).await;
    let (mut faults, mut planned, mut operations) = (0, 0, 0);
    for (operation, bytes) in storage.extents().into_iter().enumerate() {
        operations += usize::from(bytes > 0);
        for blocks in 1..bytes.div_ceil(512) {
            for failure in [Failure::TornAfter(blocks), Failure::TornBefore(blocks)] {
                survives(Target::Operation(operation), failure, &mut faults).await;
                planned += 1;
            }
        }
    }
    eprintln!("{operations} writes and syncs, {planned} tears, {faults} of them noticed");
    // Three frames of 100 kB, written and synced.
    assert!(planned > 3 * 2 * 2 * 195 && faults == planned, "{faults} of {planned}");
}

/// A shorter life, for many of them: a policy, a permit and its outcome, a denial, a clean end.
async fn live_briefly(storage: &Arc<Simulated>, model: &mut Model) -> Option<Closed> {
    let (ledger, _) = open(storage).ok()?;
    model.note(ledger.record_policy(activation()).await);
    match ledger.decide(Decision::Permit).await {
        Ok(done) => {
            model.note(Ok(done.receipt));
            model.note(done.open.expect("a permit").close(confirmed()).durable().await);
        }
        Err(error) => model.note(Err(error)),
    }
    model.note(ledger.decide(Decision::Deny).await.map(|d| d.receipt));
    Some(ledger.close(Duration::ZERO).await)
}

#[tokio::test]
async fn the_log_stands_when_the_life_after_a_fault_fails_too_at_any_operation() {
    let failures = [
        Failure::FailsAndNotPersisted,
        Failure::FailsButPersisted,
        Failure::TornAfter(1),
        Failure::TornBefore(1),
        Failure::PowerCut,
    ];
    let storage = Arc::new(Simulated::new());
    assert_eq!(live_briefly(&storage, &mut Model::default()).await, Some(Closed::Clean));
    let operations = storage.history().0.len();
    let (mut pairs, mut reached) = (0, 0);
    for first in 0..operations {
        for failure in failures {
            for second in 0.. {
                let mut is_reached = false;
                for again in failures {
                    let when = format!("operation {first} {failure:?}, then {second} {again:?}");
                    let storage = Arc::new(Simulated::new());
                    let mut model = Model::default();
                    storage.plan(Target::Operation(first), failure);
                    live_briefly(&storage, &mut model).await;
                    restart_after(&storage, failure);
                    model.check(&storage, &when);
                    let before = storage.history().0.len();
                    storage.plan(Target::Operation(before + second), again);
                    live_briefly(&storage, &mut model).await;
                    is_reached |= storage.history().0.len() > before + second;
                    restart_after(&storage, again);
                    stands(&storage, &model, &when).await;
                    pairs += 1;
                }
                if !is_reached {
                    break;
                }
                reached += 1;
            }
        }
    }
    eprintln!("{operations} operations, {reached} of the lives after them, {pairs} pairs of faults");
    assert!(reached > operations * failures.len() * 8, "the second life is too short: {reached}");
}

/// What the archiver and the sealer do behind the committer: a restart point for each segment, then the sealed form
/// of each full one. Returns how many were sealed.
fn in_background(storage: &Arc<Simulated>) -> std::io::Result<usize> {
    let (signer, on) = (signer(), Arc::clone(storage));
    let (log, key) = (signer.verifier().name().clone(), signer.frame_key().expect("signs"));
    let mut points = Vec::new();
    restart::derive(&**storage, &log, |point| {
        points.push(point);
        Ok(())
    })?;
    points.iter().try_for_each(|point| restart::keep(&**storage, &log, &key, point))?;
    let mut sealer = Sealer::new(on)?;
    let mut sealed = 0;
    loop {
        match sealer.step()? {
            Progress::Idle => return Ok(sealed),
            Progress::Working => {}
            Progress::Sealed { .. } => sealed += 1,
        }
    }
}

/// Everything that is derived says what the log says, or nothing.
fn derived_fits(storage: &Simulated, when: &str) {
    let (log, key) = (signer().verifier().name().clone(), signer().frame_key().expect("signs"));
    let segments = storage.segments().expect("listed");
    let mut truth = BTreeMap::new();
    restart::derive(storage, &log, |point| {
        truth.insert(point.first, point);
        Ok(())
    })
    .expect("readable");
    for first in storage.restart_points().expect("listed") {
        let bytes = storage.read_restart(first).expect("readable");
        let is_tagged = |point: &[u8], tag: &[u8]| key.tagged(point, tag);
        if let Ok(point) = RestartPoint::parse(&bytes, first, &segments, &log, is_tagged) {
            let true_point = &truth[&first];
            assert_eq!((&point.edge, point.chain), (&true_point.edge, true_point.chain), "{when}");
            assert_eq!(point.fold, true_point.fold, "{when}");
        }
    }
}

/// Raw bytes of every segment.
fn raw(storage: &Simulated) -> BTreeMap<LeafIndex, Vec<u8>> {
    let read = |segment| {
        let mut bytes = vec![0; storage.length(segment).expect("there") as usize];
        storage.read_at(segment, 0, &mut bytes).expect("readable");
        (segment, bytes)
    };
    storage.segments().expect("listed").into_iter().map(read).collect()
}

#[tokio::test]
async fn a_fault_while_segments_are_sealed_or_restart_points_written_loses_nothing() {
    let lived = || async {
        let storage = Arc::new(Simulated::new());
        let mut model = Model::default();
        assert_eq!(live(&storage, &mut model).await, Some(Closed::Clean));
        (storage, model)
    };
    let (storage, _) = lived().await;
    let sealed = in_background(&storage).expect("nothing fails");
    assert!(sealed >= 1, "the life is too short");
    let operations = storage.background();
    let mut faults = 0;
    for (number, (name, bytes)) in operations.iter().enumerate() {
        let blocks = (1..bytes.div_ceil(512)).flat_map(|n| [Failure::TornAfter(n), Failure::TornBefore(n)]);
        let whole = [Failure::FailsAndNotPersisted, Failure::FailsButPersisted, Failure::PowerCut];
        for failure in whole.into_iter().chain(blocks) {
            let when = format!("{name}, operation {number}, {failure:?}");
            let (storage, model) = lived().await;
            let before = raw(&storage);
            storage.plan(Target::Background(number), failure);
            // What is only dropped to tidy up may fail unheard.
            faults += usize::from(in_background(&storage).is_err());
            restart_after(&storage, failure);
            assert_eq!(raw(&storage), before, "{when}");
            derived_fits(&storage, &when);
            stands(&storage, &model, &when).await;
            in_background(&storage).unwrap_or_else(|e| panic!("{when}: {e}"));
            storage.restart_machine();
            derived_fits(&storage, &when);
            let (forms, points) = storage.derived();
            let last = forms.last().expect("there is one").0;
            for (first, form) in forms {
                assert_eq!(form == Form::Raw, first == last, "{when}: {first} is in {form:?} form");
            }
            assert!(!points.is_empty(), "{when}");
            stands(&storage, &model, &format!("{when}, then sealed")).await;
        }
    }
    eprintln!("{} operations in the background, {faults} faults", operations.len());
    assert!(faults >= 3 * operations.len(), "{faults}");
}

#[tokio::test]
async fn a_start_reads_from_the_newest_restart_point_that_fits_and_says_the_same_without_one() {
    let storage = Arc::new(Simulated::new());
    for _ in 0..3 {
        live(&storage, &mut Model::default()).await;
    }
    let recovered = |storage: &Simulated| {
        storage.restart_machine();
        let recognized = Signers::from(signer()).recognized().expect("signs");
        recovery::recover(storage, &recognized, settings("/nowhere".as_ref()).segment_bytes, &())
    };
    let truth = recovered(&storage).expect("recovers");
    in_background(&storage).expect("nothing fails");
    let (forms, points) = storage.derived();
    let (first, newest) = (forms[0].0, *points.last().expect("a point"));
    assert!(points.len() >= 2 && forms[0].1 == Form::Sealed, "{forms:?}");
    let same = |storage: &Simulated, reads_all: bool| {
        let found = recovered(storage).expect("recovers");
        assert_eq!(storage.was_read(first), reads_all);
        assert_eq!((&found.tail.edge, found.tail.chain), (&truth.tail.edge, truth.tail.chain));
        assert_eq!((&found.fold, found.tail.spot), (&truth.fold, truth.tail.spot));
    };
    same(&storage, false);
    // The newest one is forged: the one before it is taken, and that is still not the whole log.
    storage.change_restart(newest, |bytes| bytes[10] ^= 1);
    same(&storage, false);
    for point in &points {
        storage.change_restart(*point, |bytes| bytes.truncate(bytes.len() / 2));
    }
    same(&storage, true);
    for point in points {
        storage.remove_restart(point).expect("removed");
    }
    same(&storage, true);
}

#[tokio::test]
async fn a_restart_point_ahead_of_the_checkpoint_or_of_another_history_is_not_started_from() {
    let storage = Arc::new(Simulated::new());
    let (ledger, _) = open(&storage).expect("opens");
    let old = storage.checkpoint().expect("readable");
    drop(ledger);
    for _ in 0..2 {
        live(&storage, &mut Model::default()).await;
    }
    in_background(&storage).expect("nothing fails");
    // The checkpoint of the first start: whatever came after it must be read, and its seals checked.
    let behind = Arc::new(storage.changed(|_, checkpoint| *checkpoint = old));
    assert!(open(&behind).is_ok());
    assert!(behind.was_read(LeafIndex(0)));
    // Without any, what is there was signed once and is not signed anew.
    let unsigned = Arc::new(storage.changed(|_, checkpoint| *checkpoint = None));
    let error = open(&unsigned).expect_err("refused").to_string();
    assert!(error.contains("the checkpoint is gone"), "{error}");
    // A segment that no start would read is still missed.
    let second = storage.derived().0[1].0;
    storage.remove_segment(second);
    let error = open(&storage).expect_err("refused").to_string();
    assert!(error.contains(&format!("expected entry {second}")), "{error}");
}

#[tokio::test]
async fn a_start_that_is_ended_before_its_leaf_still_leaves_word_of_what_was_torn() {
    let storage = Arc::new(Simulated::new());
    let (ledger, _) = open(&storage).expect("opens");
    let operations = storage.history().0.len();
    storage.plan(Target::Operation(operations + 1), Failure::TornAfter(1));
    assert_eq!(ledger.decide(Decision::Deny).await.err(), Some(Unrecorded::Poisoned));
    drop(ledger);
    storage.restart_machine();
    // Set aside, cleared, synced; then the start leaf is not written.
    let operations = storage.history().0.len();
    let names = ["quarantine", "write_at", "sync"];
    let leaf = operations + names.len();
    storage.plan(Target::Operation(leaf), Failure::PowerCut);
    let refused = open(&storage).expect_err("the leaf was not written").to_string();
    assert_eq!(storage.history().0[operations..][..3], names, "{refused}");
    assert_eq!(storage.history().0[leaf], "write_at");
    storage.restart_machine();
    let (_, opened) = open(&storage).expect("opens");
    assert_eq!((opened.torn_bytes, opened.clean), (4_096, false));
    assert!(opened.quarantined.is_some());
    assert_eq!(storage.quarantined().len(), 1);
    storage.restart_machine();
    assert_eq!(open(&storage).expect("opens").1.torn_bytes, 0, "told once");
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_published_stops_nothing() {
    for failure in [Failure::FailsAndNotPersisted, Failure::FailsButPersisted] {
        for write in 1..3 {
            let storage = Arc::new(Simulated::new());
            storage.plan(Target::Checkpoint(write), failure);
            let mut model = Model::default();
            live(&storage, &mut model).await;
            assert_eq!(model.refused, 0);
            storage.restart_machine();
            stands(&storage, &model, &format!("checkpoint {write} {failure:?}")).await;
        }
    }
}

#[tokio::test]
async fn a_power_cut_after_a_clean_stop_leaves_the_last_checkpoint() {
    let storage = Arc::new(Simulated::new());
    assert_eq!(live(&storage, &mut Model::default()).await, Some(Closed::Clean));
    storage.restart_machine();
    let report = verify_log(&*storage, signer().verifier()).expect("readable");
    assert!(report.passed() && report.signed_size == Some(report.size), "{report}");
}

#[tokio::test]
async fn a_checkpoint_that_was_not_published_is_tried_again_without_a_new_leaf() {
    let storage = Arc::new(Simulated::new());
    let (ledger, _) = open(&storage).expect("opens");
    // The start leaf's checkpoint is offered once more, and then one a commit.
    while storage.history().1 < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    storage.plan(Target::Checkpoint(2), Failure::FailsAndNotPersisted);
    ledger.decide(Decision::Deny).await.expect("recorded");
    while storage.checkpoint().expect("readable").as_deref()
        != ledger.checkpoint().map(|c| c.as_bytes().to_vec()).as_deref()
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ledger.statistics().publish_failures, 1);
}

#[tokio::test]
async fn recovery_itself_may_fail_at_any_operation_and_be_tried_again() {
    // A log with a torn end and an open permit.
    let torn = || async {
        let storage = Arc::new(Simulated::new());
        let (ledger, _) = open(&storage).expect("opens");
        let mut model = Model::default();
        model.note(ledger.record_policy(activation()).await);
        let done = ledger.decide(Decision::Permit).await.expect("recorded");
        model.note(Ok(done.receipt.clone()));
        let (operations, _) = storage.history();
        storage.plan(Target::Operation(operations.len() + 1), Failure::TornAfter(1));
        assert_eq!(ledger.decide(Decision::Deny).await.err(), Some(Unrecorded::Poisoned));
        drop((done, ledger));
        storage.restart_machine();
        (storage, model)
    };
    let (storage, _) = torn().await;
    let before = storage.history().0.len();
    drop(open(&storage).expect("opens"));
    assert_eq!(storage.quarantined().len(), 1);
    let after = storage.history().0.len();
    assert!(after - before >= 5, "quarantine, clear, sync, start leaf");
    for operation in before..after {
        for failure in [
            Failure::FailsAndNotPersisted,
            Failure::FailsButPersisted,
            Failure::PowerCut,
            Failure::TornAfter(4),
        ] {
            let (storage, model) = torn().await;
            storage.plan(Target::Operation(operation), failure);
            drop(open(&storage));
            storage.restart_machine();
            stands(&storage, &model, &format!("recovery {operation} {failure:?}")).await;
        }
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_built_on_bytes_that_only_memory_shows() {
    let storage = Arc::new(Simulated::new());
    let (ledger, _) = open(&storage).expect("opens");
    let (operations, _) = storage.history();
    storage.plan(Target::Operation(operations.len() + 1), Failure::FailsAndNotPersisted);
    assert_eq!(ledger.decide(Decision::Deny).await.err(), Some(Unrecorded::Poisoned));
    drop(ledger);
    storage.restart_process();
    let (ledger, opened) = open(&storage).expect("opens");
    assert_eq!(opened.size.0, 3, "start, the decision as memory shows it, start");
    drop(ledger);
    storage.restart_machine();
    assert_eq!(leaf_hashes(&storage).len(), 3);
    let report = verify_log(&*storage, signer().verifier()).expect("readable");
    assert_eq!(report.verdicts.frames, Verdict::Pass, "{report}");
}

#[tokio::test]
async fn a_frame_that_the_checkpoint_covers_is_not_written_again() {
    let storage = Arc::new(Simulated::new());
    live(&storage, &mut Model::default()).await;
    let before = storage.history().0.len();
    let (ledger, _) = open(&storage).expect("opens");
    drop(ledger);
    assert_eq!(storage.history().0[before..], ["write_at", "sync"], "the start leaf and nothing else");
}

#[tokio::test]
async fn a_full_disk_turns_decisions_away_but_takes_outcomes_and_ends_when_there_is_room() {
    let storage = Arc::new(Simulated::new());
    storage.set_room(2);
    let time = clock();
    let on: Arc<Simulated> = Arc::clone(&storage);
    let opened = Ledger::open_on(on, settings("/nowhere".as_ref()), signer(), time.clone(), start());
    let (ledger, _) = opened.expect("opens");
    let large = input(120_000);
    ledger.record_policy(activation()).await.expect("recorded");
    let mut open_permits = Vec::new();
    let refused = loop {
        match ledger.decide_on(Decision::Permit, large.clone()).await {
            Ok(done) => open_permits.push(done.open.expect("a permit")),
            Err(error) => break error,
        }
    };
    assert_eq!((refused, ledger.health()), (Unrecorded::Full, Health::Full));
    assert_eq!(open_permits.len(), 2, "what fits while a spare remains");
    assert_eq!(ledger.decide(Decision::Deny).await.err(), Some(Unrecorded::Full));
    assert_eq!(ledger.record_rejection(rejection("a")).await.err(), Some(Unrecorded::Full));
    for permit in open_permits {
        permit.close(confirmed()).durable().await.expect("an outcome fits");
    }
    assert_eq!(ledger.statistics().open_permits, 0);
    storage.set_room(1);
    time.advance(Duration::from_millis(crate::limits::ROOM_RETRY_MS));
    ledger.decide(Decision::Deny).await.expect("there is room again");
    assert_eq!(ledger.health(), Health::Accepting);
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let report = verify_log(&*storage, signer().verifier()).expect("readable");
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn the_outcomes_of_all_permits_fit_when_the_disk_is_full() {
    let storage = Arc::new(Simulated::new());
    storage.set_room(3);
    let (ledger, _) = open(&storage).expect("opens");
    let mut permits = Vec::new();
    while let Ok(done) = ledger.decide(Decision::Permit).await {
        permits.push(done.open.expect("a permit"));
    }
    assert_eq!(permits.len(), 32, "half the blocks of the smallest segment");
    for permit in permits {
        // One at a time: each alone in its frame, which takes the most room.
        permit.close(confirmed()).durable().await.expect("an outcome fits");
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
}

#[tokio::test]
async fn decisions_never_take_the_room_that_an_open_permit_needs() {
    let storage = Arc::new(Simulated::new());
    storage.set_room(2);
    let (ledger, _) = open(&storage).expect("opens");
    let permit = ledger.decide(Decision::Permit).await.expect("recorded").open.expect("a permit");
    let mut refusals = 0;
    while ledger.decide(Decision::Deny).await.is_ok() {
        refusals += 1;
    }
    assert_eq!(refusals, 62, "the first segment, without the start and the permit");
    permit.close(confirmed()).durable().await.expect("the outcome fits");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
}

#[tokio::test]
async fn a_frame_damaged_before_others_refuses_the_start_and_names_both() {
    let storage = Arc::new(Simulated::new());
    live(&storage, &mut Model::default()).await;
    let flip = |segments: &mut BTreeMap<LeafIndex, Vec<u8>>, _: &mut _| {
        segments.get_mut(&LeafIndex(0)).expect("the first")[200] ^= 0x40;
    };
    let storage = Arc::new(storage.changed(flip));
    let error = open(&storage).expect_err("refused").to_string();
    let file = "frames/00000000000000000000.frames";
    assert!(error.contains(&format!("{file} at offset 0: ")), "{error}");
    assert!(error.contains(&format!("the log goes on in {file} at offset 4096")), "{error}");
}

#[tokio::test]
async fn what_operators_do_is_recorded_on_a_full_disk_until_only_what_is_owed_has_room() {
    let storage = Arc::new(Simulated::new());
    storage.set_room(3);
    let (ledger, _) = open(&storage).expect("opens");
    let mut permits = Vec::new();
    while let Ok(done) = ledger.decide(Decision::Permit).await {
        permits.push(done.open.expect("a permit"));
    }
    let mut refused = None;
    // Decisions that are turned away do not end it.
    while ledger.decide(Decision::Deny).await.is_ok() {}
    let mut recorded = 0;
    while refused.is_none() && recorded < 1_000 {
        match ledger.record_admin(administration(AdminAction::Freeze)).await {
            Ok(_) => recorded += 1,
            Err(error) => refused = Some(error),
        }
    }
    assert_eq!((refused, ledger.health()), (Some(Unrecorded::Full), Health::Full));
    assert_eq!(recorded, 64 - permits.len() - crate::limits::STOP_FRAMES_MAX, "the rest is owed");
    assert_eq!(ledger.record_policy(activation()).await.err(), Some(Unrecorded::Full));
    for permit in permits {
        // The answer finds no room to spare, and the outcome is written without it.
        let outcome = Outcome { answer: Some(Bytes::from_static(b"{}")), ..confirmed() };
        permit.close(outcome).durable().await.expect("an outcome fits");
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let report = verify_log(&*storage, signer().verifier()).expect("readable");
    let only_policy = |what: &str| what.contains("under policy");
    assert!(report.problems.iter().all(|problem| only_policy(&problem.what)), "{report}");
}
