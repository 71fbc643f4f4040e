//! A log of many leaves: how fast it grows, and what it costs to start, to look up, to prove and to verify.
//!
//! `cargo bench --bench log -- [LEAVES] [--dir DIR]` (10 million by default, about 15 GB). Each figure comes from a process
//! of its own, so that memory is that of what is measured and of nothing before it.

#![allow(clippy::disallowed_methods, reason = "a bench lays out its own files and measures time")]

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::{
    BodyRules, ExecutionRequest, Forward, Received, ReceivedHead, Required, Rules, Version, canonicalize,
};
use interlock::clock::Clock;
use interlock::ledger::{
    FileSigner, Ledger, Outcome, PolicyActivation, Reader, Recording, ResponseSeen, Sent, Settings, Start,
};
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::merkle::proof::verify_inclusion;
use interlock::merkle::tree::leaf_hash;
use interlock::model::entry::Entry;
use interlock::model::{
    Actor, AuthenticationMethod, Digest, Json, LeafIndex, LogOrigin, OutcomeStatus, PackageName, ReadSet,
};
use interlock::policy::{self, Bundle, Context, Judgment, Pdp, Question, Sources};
use interlock::verify::{Directory, verify_log};
use tokio::task::JoinSet;

const LEAVES_DEFAULT: u64 = 10_000_000;
/// Requests at one time.
const CALLERS: usize = 64;
const LOOKUPS: usize = 1_000;
const ORIGIN: &str = "example.org/bench";
const POLICY: &str = "package bench\npermit contains \"small\" if input.request.body.amount < 1000000\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *words.as_slice() {
        ["empty", dir] => empty(Path::new(dir)),
        ["build", dir, leaves] => build(Path::new(dir), leaves.parse().expect("a number")),
        ["start", dir] => start(Path::new(dir)),
        ["crash", dir] => crash(Path::new(dir)),
        ["verify", dir] => verify(Path::new(dir)),
        [] => all(LEAVES_DEFAULT, None),
        [leaves] => all(leaves.parse().expect("a number of leaves"), None),
        [leaves, "--dir", dir] => all(leaves.parse().expect("a number of leaves"), Some(dir.into())),
        _ => {
            eprintln!("usage: cargo bench --bench log -- [LEAVES] [--dir DIR]");
            return ExitCode::from(2);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every part in a process of its own, one after the other.
fn all(leaves: u64, dir: Option<PathBuf>) -> bool {
    let made = dir.is_none().then(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"));
    let dir = dir.unwrap_or_else(|| made.as_ref().expect("made").path().to_owned());
    let own = std::env::current_exe().expect("this program");
    let run = |words: &[&str]| Command::new(&own).args(words).status().is_ok_and(|status| status.success());
    let (log, none) = (dir.join("log"), dir.join("empty"));
    let (log, none) = (log.to_str().expect("UTF-8"), none.to_str().expect("UTF-8"));
    let built = run(&["empty", none]) && run(&["build", log, &leaves.to_string()]) && run(&["start", log]);
    // It ends without closing, as a kill would end it; how it ended says nothing.
    run(&["crash", log]);
    built && run(&["start", log]) && run(&["verify", log])
}

fn say(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<44} {figure}");
    let _ = io::stdout().flush();
}

/// Resident memory of this process, MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a line");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib / 1024.0
}

fn key(dir: &Path) -> FileSigner {
    let file = dir.with_extension("key");
    if !file.exists() {
        let origin: LogOrigin = ORIGIN.parse().expect("a name");
        let (_, text) = FileSigner::generate(origin).expect("a key");
        std::fs::write(&file, &*text).expect("written");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("mode set");
    }
    FileSigner::load(&file).expect("a key")
}

fn open(dir: &Path) -> Ledger {
    let settings = Settings {
        dir: dir.to_owned(),
        origin: ORIGIN.parse().expect("a name"),
        segment_bytes: interlock::limits::SEGMENT_BYTES_DEFAULT,
        salts: None,
    };
    let start = Start {
        follower: std::sync::Arc::new(()),
        binary_digest: Digest::of(b"binary"),
        config_digest: Digest::of(b"config"),
        observer: Arc::new(()),
    };
    Ledger::open(settings, Box::new(key(dir)), Clock::system(), start).expect("opens").0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn empty(dir: &Path) -> bool {
    let ledger = open(dir);
    std::thread::sleep(Duration::from_millis(200));
    say("memory, empty log", format_args!("{:.1} MiB", resident()));
    runtime().block_on(ledger.close(Duration::ZERO));
    true
}

fn build(dir: &Path, leaves: u64) -> bool {
    let runtime = runtime();
    let ledger = open(dir);
    let pdp = pdp();
    runtime.block_on(activate(&ledger, &pdp));
    let clock = Clock::system();
    let begun = Instant::now();
    let pairs = leaves / 2;
    runtime.block_on(async {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS as u64 {
            let (ledger, pdp, clock) = (ledger.clone(), pdp.clone(), clock.clone());
            let share = pairs / CALLERS as u64 + u64::from(caller < pairs % CALLERS as u64);
            callers.spawn(async move {
                for _ in 0..share {
                    one(&ledger, &pdp, &clock).await;
                }
            });
        }
        while callers.join_next().await.is_some() {}
    });
    let took = begun.elapsed();
    say(
        "decisions with policy, recorded and settled",
        format_args!("{:.0} leaves/s over {leaves} leaves", leaves as f64 / took.as_secs_f64()),
    );
    let reader = ledger.reader();
    let begun = Instant::now();
    while reader.lag() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    say("archived after the last one", format_args!("{:.2} s", begun.elapsed().as_secs_f64()));
    say("memory after that", format_args!("{:.1} MiB", resident()));
    runtime.block_on(ledger.close(Duration::ZERO));
    true
}

async fn activate(ledger: &Ledger, pdp: &Pdp) {
    let activation = PolicyActivation {
        activated_by: "start".into(),
        engine: pdp.engine().into(),
        files: pdp.files(),
        revision: pdp.revision(),
        ordered: None,
        version: None,
    };
    ledger.record_policy(activation).await.expect("recorded");
}

async fn one(ledger: &Ledger, pdp: &Pdp, clock: &Clock) {
    let Judgment::Permit(permit) = pdp.judge(question(clock)).await else { panic!("permitted") };
    let recorded = ledger
        .record_permit(permit, Recording::new(ledger.new_id().expect("random"), None))
        .await
        .expect("recorded");
    let (evaluated, _, mut open) = recorded.into_parts();
    open.bytes_may_leave();
    let request = &evaluated.execution().request;
    let outcome = Outcome {
        status: OutcomeStatus::Confirmed,
        cause: None,
        sent: Some(Sent { digest: request.digest(), size: request.size() }),
        response: Some(ResponseSeen { status_code: 200, size: 2, body_digest: Digest::of(b"ok") }),
        answer: None,
        duration: Duration::from_millis(3),
    };
    open.close(outcome).durable().await.expect("recorded");
}

/// Opens the log as a start does: time, memory, lookups and proofs.
fn start(dir: &Path) -> bool {
    let begun = Instant::now();
    let ledger = open(dir);
    say("start", format_args!("{:.3} s", begun.elapsed().as_secs_f64()));
    let reader = ledger.reader();
    while reader.lag() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    say("memory", format_args!("{:.1} MiB", resident()));
    look_up(&reader, &key(dir).verifier().clone());
    say("memory after that", format_args!("{:.1} MiB", resident()));
    runtime().block_on(ledger.close(Duration::ZERO));
    true
}

fn look_up(reader: &Reader, key: &VerifierKey) {
    let at = reader.snapshot();
    let size = at.size().0;
    let checkpoint = interlock::merkle::checkpoint::parse_checkpoint(at.checkpoint().as_bytes(), key)
        .expect("signed")
        .checkpoint()
        .clone();
    let (mut proofs, mut lookups) = (Vec::new(), Vec::new());
    let mut position = 0x9e37_79b9_7f4a_7c15_u64;
    while proofs.len() < LOOKUPS {
        position = position.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let index = LeafIndex((position >> 16) % size);
        let begun = Instant::now();
        let proof = reader.proof(&at, index).expect("proved");
        proofs.push(begun.elapsed());
        let entry = reader.entries(&at, index, 1).expect("read").remove(0);
        verify_inclusion(leaf_hash(&entry), index, checkpoint.size, &proof.path, checkpoint.root)
            .expect("it holds");
        if let Ok(Entry::Decision(decision)) = Entry::from_bytes_unverified(&entry) {
            let begun = Instant::now();
            let found = reader.find(&at, decision.id).expect("looked up").expect("found");
            lookups.push(begun.elapsed());
            assert_eq!(found.0, index);
        }
    }
    say("one proof", percentiles(proofs));
    say("one lookup by id", percentiles(lookups));
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_micros();
    format!("p50 {} us, p99 {} us ({} random ones)", at(50), at(99), times.len())
}

fn crash(dir: &Path) -> bool {
    let ledger = open(dir);
    let pdp = pdp();
    let clock = Clock::system();
    runtime().block_on(async {
        activate(&ledger, &pdp).await;
        for _ in 0..1_000 {
            one(&ledger, &pdp, &clock).await;
        }
    });
    say("killed", "");
    std::process::abort();
}

fn verify(dir: &Path) -> bool {
    let key = key(dir).verifier().clone();
    let begun = Instant::now();
    let report = verify_log(&Directory::open(dir).expect("a log"), &key).expect("readable");
    let took = begun.elapsed().as_secs_f64();
    say(
        "verify",
        format_args!("{:.0} leaves/s, {took:.1} s, {:.1} MiB", report.size.0 as f64 / took, resident()),
    );
    report.passed()
}

fn pdp() -> Pdp {
    let package: PackageName = "bench".parse().expect("a name");
    let sources = Sources::from_files([("bench.rego".to_owned(), POLICY.as_bytes().to_vec())])
        .unwrap_or_else(|e| panic!("{e}"));
    let bundle = Bundle::from_sources(sources, &[package]).unwrap_or_else(|e| panic!("{e}"));
    Pdp::start(bundle, policy::Settings::default(), Clock::system(), None).expect("threads")
}

/// What every agent of this bench asks, made anew each time: a request is no value to copy.
fn question(clock: &Clock) -> Question {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("api.example"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let head = ReceivedHead {
        version: Version::Http11,
        method: http::Method::POST,
        target: "/v1/charges".into(),
        authority: None,
        headers,
    };
    let target = CanonicalTarget::parse(&head).expect("a target");
    let rules = Rules {
        upstream_authority: "upstream.example".into(),
        body: BodyRules::Json { forward: Forward::Canonical, required: Required::Required },
        body_bytes_max: 65_536,
        schema: None,
        redaction: Default::default(),
        forward_headers: Default::default(),
        identity_headers: Default::default(),
        credential: None,
        path: Default::default(),
        query_lists: Default::default(),
        idempotency_key: Required::Optional,
    };
    let body =
        Bytes::from_static(br#"{"amount":4200,"currency":"eur","customer":"cus_1","description":"order 7"}"#);
    let request = canonicalize(Received { head, body }, target, Vec::new(), &rules).expect("canonical");
    let actor = Actor {
        id: "agent-7".parse().expect("an id"),
        method: AuthenticationMethod::ApiKey,
        credential_digest: None,
        claims: Json::object([("roles", Json::Array(vec![Json::string("agent")]))]),
        valid_until: None,
    };
    Question {
        execution: ExecutionRequest {
            surface: "payments".parse().expect("a name"),
            action: "charge.create".parse().expect("a name"),
            actor: Arc::new(actor),
            trace: None,
            request,
        },
        package: "bench".parse().expect("a name"),
        context: Context::empty(1),
        read_set: ReadSet { watched: Vec::new(), state: Vec::new(), captured_at: clock.monotonic() },
        now: clock.wall(),
    }
}
