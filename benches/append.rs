//! Leaves appended with a real fdatasync, by how many callers there are.
//!
//! `cargo bench --bench append -- [SECONDS] [--callers N[,N..]] [--dir DIR]`. Each caller appends in a loop, as requests
//! do: while one batch is written, the next one gathers. So the batch that shares a sync is measured, not set: it is about
//! half of the callers, because the others' answers are on their way. Each line is a log of its own, first run warm; the
//! archiver and the sealer follow behind on the same cores.

#![allow(clippy::disallowed_methods, reason = "a bench lays out its own files and measures time")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use interlock::clock::Clock;
use interlock::ledger::{Closed, FileSigner, Ledger, Observer, PolicyActivation, Settings, Start};
use interlock::model::{Digest, LogOrigin};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const SECONDS_DEFAULT: u64 = 5;
/// Batches of about 1, 16, 64 and 256 come of these.
const CALLERS_DEFAULT: [usize; 4] = [1, 32, 128, 512];
const WARM_UP: Duration = Duration::from_secs(1);
/// How many clock ticks `/proc/self/stat` counts in a second, on every Linux.
const TICKS: f64 = 100.0;

fn main() -> ExitCode {
    let (mut seconds, mut callers, mut dir) = (SECONDS_DEFAULT, CALLERS_DEFAULT.to_vec(), None);
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(argument) = arguments.next() {
        let read = match argument.as_str() {
            "--callers" => arguments
                .next()
                .and_then(|list| list.split(',').map(|n| n.parse().ok()).collect())
                .map(|list| callers = list),
            "--dir" => arguments.next().map(|path| dir = Some(PathBuf::from(path))),
            number => number.parse().ok().map(|number| seconds = number),
        };
        if read.is_none() {
            eprintln!("usage: cargo bench --bench append -- [SECONDS] [--callers N[,N..]] [--dir DIR]");
            return ExitCode::from(2);
        }
    }
    // Beside the build, on a real disk: a temporary directory may be memory.
    let dir = dir.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    println!(
        "callers  leaves a batch   leaves/s  commit us  sync us  leaves/s of commits     p50 us     p99 us  CPU us a leaf"
    );
    // Removed at the end of all: for minutes ext4 looks for files just removed whenever one is made, as the archiver does.
    let logs: Vec<_> =
        callers.into_iter().map(|callers| measure(&dir, callers, Duration::from_secs(seconds))).collect();
    drop(logs);
    ExitCode::SUCCESS
}

fn measure(dir: &Path, callers: usize, time: Duration) -> TempDir {
    let dir = tempfile::tempdir_in(dir).expect("a directory");
    let runtime = runtime();
    let commits = Arc::new(Commits::default());
    let ledger = open(dir.path(), Arc::clone(&commits));
    runtime.block_on(run(&ledger, callers, WARM_UP));
    commits.forget();
    let (before, cpu, begun) = (ledger.statistics(), cpu_seconds(), Instant::now());
    let mut latencies = runtime.block_on(run(&ledger, callers, time));
    let (after, cpu, took) = (ledger.statistics(), cpu_seconds() - cpu, begun.elapsed().as_secs_f64());
    assert_eq!(runtime.block_on(ledger.close(Duration::ZERO)), Closed::Clean);

    let (leaves, frames) = ((after.leaves - before.leaves) as f64, (after.frames - before.frames) as f64);
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    println!(
        "{callers:>7}  {:>14.1}  {:>9.0}  {:>9.0}  {:>7.0}  {:>19.0}  {:>9}  {:>9}  {:>13.2}",
        leaves / frames,
        leaves / took,
        commits.took() / frames * 1e6,
        commits.synced() / frames * 1e6,
        leaves / commits.took(),
        at(50),
        at(99),
        cpu / leaves * 1e6,
    );
    dir
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Every caller in a loop of its own; how long each append took, us.
async fn run(ledger: &Ledger, callers: usize, time: Duration) -> Vec<u32> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let ledger = ledger.clone();
        let activation = activation(caller);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let begun = Instant::now();
                if begun >= until {
                    return latencies;
                }
                ledger.record_policy(activation.clone()).await.expect("recorded");
                latencies.push(begun.elapsed().as_micros() as u32);
            }
        });
    }
    tasks.join_all().await.concat()
}

/// What all threads of this process took so far, in user and kernel mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = |n: usize| fields.split_whitespace().nth(n).and_then(|f| f.parse().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

/// How long the committer was at work: from taking a batch until it is durable and signed. What callers and the other
/// threads do meanwhile is no part of it, unless they take its core.
#[derive(Default)]
struct Commits {
    took_ns: AtomicU64,
    synced_ns: AtomicU64,
}

impl Commits {
    fn forget(&self) {
        self.took_ns.store(0, Ordering::Relaxed);
        self.synced_ns.store(0, Ordering::Relaxed);
    }

    fn took(&self) -> f64 {
        self.took_ns.load(Ordering::Relaxed) as f64 / 1e9
    }

    fn synced(&self) -> f64 {
        self.synced_ns.load(Ordering::Relaxed) as f64 / 1e9
    }
}

impl Observer for Commits {
    fn committed(&self, _leaves: usize, took: Duration, sync: Duration) {
        self.took_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.synced_ns.fetch_add(sync.as_nanos() as u64, Ordering::Relaxed);
    }
}

fn open(dir: &Path, commits: Arc<Commits>) -> Ledger {
    let origin: LogOrigin = "example.org/bench".parse().expect("a name");
    let (signer, _) = FileSigner::generate(origin.clone()).expect("a key");
    let settings = Settings {
        dir: dir.to_owned(),
        origin,
        segment_bytes: interlock::limits::SEGMENT_BYTES_DEFAULT,
        salts: None,
    };
    let start = Start {
        binary_digest: Digest::of(b"binary"),
        config_digest: Digest::of(b"config"),
        observer: commits,
        follower: Arc::new(()),
    };
    Ledger::open(settings, Box::new(signer), Clock::system(), start).expect("opens").0
}

/// About 1 KiB, as a decision leaf is.
fn activation(n: usize) -> PolicyActivation {
    PolicyActivation {
        activated_by: "a".repeat(700).into(),
        engine: "regorus/0.14.1 strict".into(),
        files: Vec::new(),
        revision: Digest::of(&n.to_be_bytes()),
        ordered: None,
        version: None,
    }
}
