//! Exchanging a key while every operation of every start fails in every way: each change is said once, in its place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::faults::open_with;
use super::simulated::{Failure, Simulated, Target};
use super::tests::{ORIGIN, SEGMENT_BYTES};
use super::*;
use crate::merkle::note::Signer;
use crate::merkle::note::tests::SeedSigner;
use crate::model::entry::{EpochEvent, KeyEvent};
use crate::verify::walk::{Step, Walk};

/// Keys by their seed, the primary first.
const STEPS: [&[u8]; 3] = [&[1, 2], &[2, 1], &[2]];
/// More outcomes than one frame of a small segment takes, so that a start is several writes.
const PERMITS: usize = 300;

fn signers(seeds: &[u8]) -> Signers {
    let mut all = seeds.iter().map(|&seed| Box::new(SeedSigner::new(ORIGIN, seed)) as Box<dyn Signer>);
    let primary = all.next().expect("a primary key");
    Signers::new(primary, all.collect(), Vec::new()).expect("they sign together")
}

fn vkey(seed: u8) -> String {
    SeedSigner::new(ORIGIN, seed).verifier().to_string()
}

/// A log of the first key alone, ended by a kill with many permits open.
async fn begun() -> Arc<Simulated> {
    let storage = Arc::new(Simulated::new());
    let (ledger, _) = open_with(&storage, signers(&[1]), SEGMENT_BYTES * 64).expect("opens");
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..PERMITS {
        let ledger = ledger.clone();
        asked.spawn(async move { ledger.decide(Decision::Permit).await.expect("recorded") });
    }
    let open = asked.join_all().await;
    drop(ledger);
    drop(open);
    storage
}

/// One run with these keys; whether it came to its end.
async fn step(storage: &Arc<Simulated>, seeds: &[u8]) -> Result<(), String> {
    let (ledger, _) = open_with(storage, signers(seeds), SEGMENT_BYTES).map_err(|e| e.to_string())?;
    let decided = ledger.decide(Decision::Deny).await;
    let closed = ledger.close(Duration::ZERO).await;
    decided.map_err(|e| e.to_string())?;
    if closed == Closed::Clean { Ok(()) } else { Err(format!("{closed:?}")) }
}

fn entries(storage: &Simulated) -> Vec<Entry> {
    let mut walk = Walk::new(storage, &ORIGIN.parse().expect("a name")).expect("readable");
    let mut entries = Vec::new();
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        entries.extend(frame.entries.iter().map(|e| Entry::from_bytes_unverified(e).expect("an entry")));
    }
    entries
}

/// Whoever is served is served by the keys that the key leaves give, and each change is said once. Returns whether a
/// start ended before it had said what was new.
fn check(storage: &Simulated, when: &str) -> bool {
    let mut left_unsaid = false;
    let mut active = BTreeSet::from([vkey(1)]);
    let mut listed = BTreeSet::new();
    let mut said = Vec::new();
    for entry in entries(storage) {
        match entry {
            Entry::Epoch(e) if e.event == EpochEvent::Start => {
                left_unsaid |= !listed.is_empty() && listed != active;
                listed = e.vkeys.iter().map(|vkey| vkey.to_string()).collect();
            }
            Entry::Key(e) => {
                let vkey = e.vkey.to_string();
                said.push((e.event, vkey.clone()));
                match e.event {
                    KeyEvent::Add => assert!(active.insert(vkey), "{when}"),
                    KeyEvent::Retire => assert!(active.remove(&vkey), "{when}"),
                    KeyEvent::Compromised => panic!("{when}: nobody said so"),
                }
            }
            Entry::Outcome(_) => {}
            Entry::Admin(_)
            | Entry::Decision(_)
            | Entry::Epoch(_)
            | Entry::Heartbeat(_)
            | Entry::Policy(_)
            | Entry::Refusal(_) => {
                assert_eq!(listed, active, "{when}");
            }
        }
    }
    assert_eq!(said, [(KeyEvent::Add, vkey(2)), (KeyEvent::Retire, vkey(1))], "{when}");
    left_unsaid
}

#[tokio::test]
async fn a_key_is_exchanged_whatever_operation_of_a_start_fails_in_whatever_way() {
    let storage = begun().await;
    let before = storage.history().0.len();
    for seeds in STEPS {
        step(&storage, seeds).await.expect("nothing fails");
    }
    assert!(!check(&storage, "nothing fails"));
    let operations = storage.history().0.len() - before;
    let (mut failed, mut left_unsaid) = (0, 0);
    for operation in 0..operations {
        for failure in [Failure::FailsAndNotPersisted, Failure::FailsButPersisted, Failure::PowerCut] {
            let when = format!("{operation} {failure:?}");
            let storage = begun().await;
            storage.plan(Target::Operation(storage.history().0.len() + operation), failure);
            for seeds in STEPS {
                if step(&storage, seeds).await.is_ok() {
                    continue;
                }
                failed += 1;
                match failure {
                    Failure::PowerCut => storage.restart_machine(),
                    _ => storage.restart_process(),
                }
                step(&storage, seeds).await.unwrap_or_else(|e| panic!("{when}: {e}"));
            }
            left_unsaid += usize::from(check(&storage, &when));
        }
    }
    assert!(failed > operations, "most faults are noticed: {failed}");
    assert!(left_unsaid > 0, "some start is cut between its own leaf and the key leaves");
}
