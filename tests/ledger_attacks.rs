//! Attempts to make the log lie: odd directories, forged logs, chance damage.

use std::fs;
use std::time::Duration;

use interlock::ledger::Closed;


use super::ledger_faults::{Log, write};

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
