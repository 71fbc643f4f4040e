//! Leaves appended with a real fdatasync, by how many callers wait at once: the batch that shares a sync.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use interlock::clock::Clock;
use interlock::ledger::{FileSigner, Ledger, PolicyActivation, Settings, Start};
use interlock::model::{Digest, LogOrigin};
use tokio::task::JoinSet;

pub fn group(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let mut group = c.benchmark_group("append");
    group.measurement_time(Duration::from_secs(5)).sample_size(20);
    for callers in [1usize, 16, 64, 256] {
        // Beside the build, on a real disk: a temporary directory may be memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let ledger = open(dir.path());
        group.throughput(Throughput::Elements(callers as u64));
        group.bench_function(BenchmarkId::from_parameter(callers), |b| {
            b.iter(|| runtime.block_on(append(&ledger, callers)));
        });
        drop(ledger);
    }
    group.finish();
}

fn open(dir: &std::path::Path) -> Ledger {
    let origin: LogOrigin = "example.org/bench".parse().expect("a name");
    let (signer, _) = FileSigner::generate(origin.clone()).expect("a key");
    let settings = Settings {
        dir: dir.to_owned(),
        origin,
        segment_bytes: interlock::limits::SEGMENT_BYTES_DEFAULT,
        salts: None,
    };
    let start = Start {
        follower: std::sync::Arc::new(()),
        binary_digest: Digest::of(b"binary"),
        config_digest: Digest::of(b"config"),
        observer: std::sync::Arc::new(()),
    };
    Ledger::open(settings, Box::new(signer), Clock::system(), start).expect("opens").0
}

async fn append(ledger: &Ledger, callers: usize) {
    let mut tasks = JoinSet::new();
    for n in 0..callers {
        let ledger = ledger.clone();
        tasks.spawn(async move { ledger.record_policy(activation(n)).await.expect("recorded") });
    }
    while let Some(receipt) = tasks.join_next().await {
        black_box(receipt.expect("ends"));
    }
}

/// About 1 KiB, as a decision leaf is.
fn activation(n: usize) -> PolicyActivation {
    PolicyActivation {
        activated_by: "a".repeat(700).into(),
        engine: "regorus/0.14.1 strict".into(),
        files: Vec::new(),
        revision: Digest::of(&n.to_be_bytes()), ordered: None, version: None }
}
