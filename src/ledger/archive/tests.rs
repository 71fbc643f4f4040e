//! The archive on real directories, against what is computed from the entries alone.

use std::time::Duration;

use super::super::tests::{confirmed, open};
use crate::ledger::{Ledger, Snapshot};
use crate::merkle::proof::verify_inclusion;
use crate::merkle::tree::leaf_hash;
use crate::model::{Decision, LeafIndex};

/// The snapshot of everything that is durable now.
async fn caught_up(ledger: &Ledger) -> std::sync::Arc<Snapshot> {
    let leaves = ledger.statistics().leaves;
    let mut snapshots = ledger.reader().subscribe();
    let reached = tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(|s| s.size().0 >= leaves));
    std::sync::Arc::clone(&reached.await.expect("the archive follows").expect("the sender lives"))
}

#[tokio::test]
async fn what_is_durable_can_be_read_and_proved() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    for _ in 0..300 {
        let done = ledger.decide(Decision::Permit).await.expect("recorded");
        done.open.expect("a permit").close(confirmed()).durable().await.expect("recorded");
    }
    let (at, reader) = (caught_up(&ledger).await, ledger.reader());
    assert_eq!(at.size().0, 601);
    let entries = reader.entries(&at, LeafIndex(0), usize::MAX).expect("read");
    assert_eq!(entries.len(), 601);
    for (index, entry) in (0..).map(LeafIndex).zip(&entries) {
        let proof = reader.proof(&at, index).expect("proved");
        assert_eq!(verify_inclusion(leaf_hash(entry), index, at.size(), &proof.path, at.root()), Ok(()));
    }
}
