//! The state with many live claims: how fast leaves are applied, what a snapshot costs, and what a start from one costs.
//!
//! `cargo bench --bench state -- [CLAIMS]` (1 million by default). Building and starting are processes of their own, so
//! that memory is that of what is measured and of nothing before it.

#![allow(clippy::disallowed_methods, reason = "a bench lays out its own files and measures time")]

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use interlock::authority::{Asked, Fold, Intent, State, Versions};
use interlock::clock::WallTime;
use interlock::ledger::Follower;
use interlock::model::{
    ActorId, Change, Claim, Digest, IdempotencyKey, LeafIndex, OutcomeStatus, Permitted, ReceiptId, Settled,
    Settlement, SurfaceName, TreeSize,
};

const CLAIMS_DEFAULT: u64 = 1_000_000;
/// Decisions that are applied together, each with its outcome.
const BATCH: u64 = 64;
/// Requests that are measured one by one.
const REQUESTS: u64 = 100_000;
const START_NS: u64 = 1_790_000_000_000_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *words.as_slice() {
        ["build", file, claims] => build(Path::new(file), claims.parse().expect("a number")),
        ["start", file, claims] => start(Path::new(file), claims.parse().expect("a number")),
        [] => all(CLAIMS_DEFAULT),
        [claims] => all(claims.parse().expect("a number of claims")),
        _ => {
            eprintln!("usage: cargo bench --bench state -- [CLAIMS]");
            return ExitCode::from(2);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(claims: u64) -> bool {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let file = dir.path().join("state");
    let (file, claims) = (file.to_str().expect("UTF-8"), claims.to_string());
    let own = std::env::current_exe().expect("this program");
    let run =
        |part| Command::new(&own).args([part, file, &claims]).status().is_ok_and(|status| status.success());
    run("build") && run("start")
}

/// With the processor's time since the last line: what is left of a figure when the machine has other work.
fn say(what: &str, figure: impl std::fmt::Display) {
    static LAST_NS: AtomicU64 = AtomicU64::new(0);
    let schedule = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let now: u64 = schedule.split_whitespace().next().and_then(|ns| ns.parse().ok()).expect("a number");
    let spent = Duration::from_nanos(now - LAST_NS.swap(now, Ordering::Relaxed));
    println!("{what:<44} {:<20} {:>12} of processor time", figure.to_string(), ms(spent));
    let _ = io::stdout().flush();
}

/// Of this process, MiB: `VmRSS` is what is resident, `VmHWM` the most that was.
fn memory(of: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with(of)).expect("a line");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib / 1024.0
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn rate(count: u64, time: Duration) -> String {
    format!("{:.0} a second", count as f64 / time.as_secs_f64())
}

fn at(n: u64) -> WallTime {
    WallTime::from_unix_ns(START_NS + n * 1_000_000)
}

/// A day after it was made.
fn until(n: u64) -> WallTime {
    at(n + 24 * 60 * 60 * 1_000)
}

fn id(n: u64) -> ReceiptId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    ReceiptId::new(at(n), random)
}

struct Names {
    surface: SurfaceName,
    actors: Vec<ActorId>,
}

impl Names {
    fn new() -> Self {
        let actor = |n| format!("spiffe://example.org/agent/{n}").parse().expect("a name");
        Self { surface: "payments".parse().expect("a name"), actors: (0..100).map(actor).collect() }
    }

    fn actor(&self, n: u64) -> &ActorId {
        &self.actors[(n % 100) as usize]
    }
}

fn key(n: u64) -> IdempotencyKey {
    format!("order-{n:016}").parse().expect("a key")
}

/// A PERMIT with a claim, and its outcome with an answer that is kept.
fn changes(names: &Names, n: u64) -> [(LeafIndex, Change); 2] {
    let permitted = Permitted {
        id: id(n),
        surface: names.surface.clone(),
        actor: names.actor(n).clone(),
        digest: Some(Digest::of(&n.to_be_bytes())),
        claim: Some(Claim { key: key(n), until: until(n) }),
        reserves: Vec::new(),
        approved_hold: None,
        at: at(n),
    };
    let settlement = Settlement {
        decision_id: id(n),
        decision_index: LeafIndex(2 * n),
        status: OutcomeStatus::Confirmed,
        attestation: Settled::Gateway,
        answer: Some(Digest::of(&n.to_le_bytes())),
        at: at(n),
    };
    [
        (LeafIndex(2 * n), Change::Permitted(Box::new(permitted))),
        (LeafIndex(2 * n + 1), Change::Settled(settlement)),
    ]
}

/// The time in which these are applied, without what it takes to make them.
fn apply(fold: &Fold, names: &Names, numbers: std::ops::Range<u64>) -> Duration {
    let mut spent = Duration::ZERO;
    let mut first = numbers.start;
    while first < numbers.end {
        let last = numbers.end.min(first + BATCH);
        let batch: Vec<_> = (first..last).flat_map(|n| changes(names, n)).collect();
        let before = Instant::now();
        fold.apply(batch, TreeSize(2 * last));
        spent += before.elapsed();
        first = last;
    }
    spent
}

fn build(file: &Path, claims: u64) -> bool {
    let (fold, names) = (Fold::new(Versions::new()), Names::new());
    let empty = memory("VmRSS");
    let spent = apply(&fold, &names, 0..claims);
    say("leaves applied, from none", rate(2 * claims, spent));
    say("memory of the claims", format!("{:.0} MiB", memory("VmRSS") - empty));
    let before = Instant::now();
    let job = fold.snapshot();
    say("a snapshot, while the committer waits", format!("{:.1} us", before.elapsed().as_secs_f64() * 1e6));
    let before = Instant::now();
    let bytes = job();
    say("a snapshot, on another thread", ms(before.elapsed()));
    say("its size", format!("{:.0} MiB", bytes.len() as f64 / f64::from(1 << 20)));
    std::fs::write(file, &bytes).expect("written");
    fold.population().claims as u64 == claims
}

fn start(file: &Path, claims: u64) -> bool {
    let (fold, names) = (Fold::new(Versions::new()), Names::new());
    let empty = memory("VmRSS");
    let before = Instant::now();
    let bytes = std::fs::read(file).expect("readable");
    say("start: the snapshot is read from disk", ms(before.elapsed()));
    let before = Instant::now();
    fold.restore(&bytes).expect("a snapshot");
    say("start: the state is made of it", ms(before.elapsed()));
    drop(bytes);
    say("memory then", format!("{:.0} MiB", memory("VmRSS") - empty));
    say("memory at most", format!("{:.0} MiB", memory("VmHWM") - empty));
    let is_whole = fold.population().claims as u64 == claims;
    let numbers = claims..claims + REQUESTS;
    say("leaves applied, beside all claims", rate(2 * REQUESTS, apply(&fold, &names, numbers)));
    let job = fold.snapshot();
    let numbers = claims + REQUESTS..claims + 2 * REQUESTS;
    say("the same, while a snapshot is held", rate(2 * REQUESTS, apply(&fold, &names, numbers)));
    say("memory with a snapshot held", format!("{:.0} MiB", memory("VmRSS") - empty));
    drop(job);
    requests(&fold, &names, claims + 2 * REQUESTS);
    is_whole
}

/// What a request costs: it reads, and reserves what it read.
fn requests(fold: &Arc<Fold>, names: &Names, from: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let action = "charge".parse().expect("a name");
    let (mut reading, mut reserving) = (Duration::ZERO, Duration::ZERO);
    for n in from..from + REQUESTS {
        let key = key(n);
        let asked = Asked {
            surface: &names.surface,
            action: &action,
            actor: names.actor(n),
            digest: Digest::of(&n.to_be_bytes()),
            key: Some(&key),
            draws: &[],
            now: at(n),
        };
        let before = Instant::now();
        let view = runtime.block_on(fold.read(asked.clone()));
        reading += before.elapsed();
        let intent = Intent { asked, read: &view.read, claim_until: Some(until(n)), approved_hold: None };
        let before = Instant::now();
        drop(runtime.block_on(fold.reserve(id(n), intent)).expect("free"));
        reserving += before.elapsed();
    }
    let each = |time: Duration| format!("{:.2} us", time.as_secs_f64() * 1e6 / REQUESTS as f64);
    say("a request reads", each(reading));
    say("a request reserves, and gives it back", each(reserving));
}
