//! Leaves appended with a real fdatasync, by how many share one.
//!
//! `cargo bench --bench append -- [SECONDS] [--callers N[xB][,..]] [--dir DIR]`. Each of N callers hands in B leaves at once
//! (1 if it is not said) and waits until all of them are durable and signed, in a loop. While one batch is written the next
//! one gathers, so the batch that shares a sync is measured, not set. With 1 leaf a caller, as requests are, it is about half
//! of the callers, because the others' answers are on their way; `2x64` gives batches of 64.
//!
//! Archiver and sealer follow behind on the same cores. What they had not done when the time was over is told too: how many
//! leaves were not archived, how many segments not sealed, and the rate until all was archived. CPU time includes
//! that. Each line is a log of its own, first run warm.

#![allow(clippy::disallowed_methods, reason = "a bench lays out its own files and measures time")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use interlock::clock::Clock;
use interlock::ledger::{Closed, FileSigner, Ledger, Observer, PolicyActivation, Settings, Start};
use interlock::model::{Digest, LogOrigin};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const SECONDS_DEFAULT: u64 = 5;
/// Callers, and leaves that each hands in at once.
const CALLERS_DEFAULT: [(usize, usize); 6] = [(1, 1), (2, 16), (2, 64), (2, 256), (32, 1), (128, 1)];
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
                .and_then(|list| list.split(',').map(callers_and_leaves).collect())
                .map(|list| callers = list),
            "--dir" => arguments.next().map(|path| dir = Some(PathBuf::from(path))),
            number => number.parse().ok().map(|number| seconds = number),
        };
        if read.is_none() {
            eprintln!("usage: cargo bench --bench append -- [SECONDS] [--callers N[xB][,..]] [--dir DIR]");
            return ExitCode::from(2);
        }
    }
    // Beside the build, on a real disk: a temporary directory may be memory.
    let dir = dir.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    println!(
        "callers  leaves a batch   leaves/s  commit us  sync us  leaves/s of commits     p50 us     p99 us  CPU us a leaf  \
         not archived  leaves/s archived  not sealed"
    );
    // Removed at the end of all: for minutes ext4 looks for files just removed whenever one is made, as the archiver does.
    let logs: Vec<_> =
        callers.into_iter().map(|callers| measure(&dir, callers, Duration::from_secs(seconds))).collect();
    drop(logs);
    ExitCode::SUCCESS
}

/// `N` or `NxB`.
fn callers_and_leaves(text: &str) -> Option<(usize, usize)> {
    let (callers, leaves) = text.split_once('x').unwrap_or((text, "1"));
    Some((callers.parse().ok()?, leaves.parse().ok().filter(|leaves| *leaves > 0)?))
}

fn measure(dir: &Path, (callers, at_once): (usize, usize), time: Duration) -> TempDir {
    let dir = tempfile::tempdir_in(dir).expect("a directory");
    let runtime = runtime();
    let commits = Arc::new(Commits::default());
    let ledger = open(dir.path(), Arc::clone(&commits));
    runtime.block_on(run(&ledger, (callers, at_once), WARM_UP));
    commits.forget();
    let (before, cpu, begun) = (ledger.statistics(), cpu_seconds(), Instant::now());
    let mut latencies = runtime.block_on(run(&ledger, (callers, at_once), time));
    let (after, took) = (ledger.statistics(), begun.elapsed().as_secs_f64());
    let not_sealed = raw_segments(dir.path()).saturating_sub(1);
    while ledger.reader().lag() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (cpu, until_archived) = (cpu_seconds() - cpu, begun.elapsed().as_secs_f64());
    assert_eq!(runtime.block_on(ledger.close(Duration::ZERO)), Closed::Clean);

    let (leaves, frames) = ((after.leaves - before.leaves) as f64, (after.frames - before.frames) as f64);
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    println!(
        "{:>7}  {:>14.1}  {:>9.0}  {:>9.0}  {:>7.0}  {:>19.0}  {:>9}  {:>9}  {:>13.2}  {:>12}  {:>17.0}  {:>10}",
        format!("{callers}x{at_once}"),
        leaves / frames,
        leaves / took,
        commits.took() / frames * 1e6,
        commits.synced() / frames * 1e6,
        leaves / commits.took(),
        at(50),
        at(99),
        cpu / leaves * 1e6,
        after.archive_lag,
        leaves / until_archived,
        not_sealed,
    );
    dir
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Every caller in a loop of its own; how long each wait was, us.
async fn run(ledger: &Ledger, (callers, at_once): (usize, usize), time: Duration) -> Vec<u32> {
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
                let appends = (0..at_once).map(|_| ledger.record_policy(activation.clone()));
                for recorded in join_all(appends).await {
                    recorded.expect("recorded");
                }
                latencies.push(begun.elapsed().as_micros() as u32);
            }
        });
    }
    tasks.join_all().await.concat()
}

/// The segment that is appended to, and those that are full and not sealed.
fn raw_segments(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("frames")).expect("readable");
    files
        .filter(|file| file.as_ref().is_ok_and(|f| f.file_name().as_encoded_bytes().ends_with(b".frames")))
        .count()
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
        heartbeat: None,
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
        older_than: None,
        ordered: None,
        version: None,
    }
}
