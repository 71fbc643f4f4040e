//! A log of many leaves: how fast it grows, and what it costs to start, to look up, to prove and to verify.
//!
//! `cargo bench --bench log -- [LEAVES] [--dir DIR]` (10 million by default, about 15 GB). Each figure comes from a process
//! of its own, so that memory is that of what is measured and of nothing before it. Start and memory are those of
//! `interlock run` itself: on an empty log, on the log after a clean stop, after a kill in the midst of writing, and after a
//! kill of the gateway.
//!
//! Leaves are those of a gateway: each decision has its policy input beside it, an actor out of 1,000, and an idempotency key of
//! its own, one in a hundred of them claimed. What claims take is another question (`--bench state`).

#![allow(clippy::disallowed_methods, reason = "a bench lays out its own files and measures time")]

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use interlock::authority::{Fold, Versions};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::{
    BodyRules, ExecutionRequest, Forward, Received, ReceivedHead, Required, Rules, Version, canonicalize,
};
use interlock::clock::{Clock, WallTime};
use interlock::ledger::{
    FileSigner, Ledger, Outcome, PolicyActivation, Reader, Recording, ResponseSeen, Search, Sent, Settings,
    Start,
};
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::merkle::proof::verify_inclusion;
use interlock::merkle::tree::leaf_hash;
use interlock::model::entry::Entry;
use interlock::model::{
    Actor, AuthenticationMethod, Digest, Json, LeafIndex, LogOrigin, OutcomeStatus, PackageName, ReadSet,
};
use interlock::policy::{self, Bundle, Context, Judgment, Pdp, Question, Sources};
use interlock::replay::{Disclosures, NoAmounts, Replayer, Selection, Under};
use interlock::verify::{Directory, verify_log};
use tokio::task::JoinSet;

const LEAVES_DEFAULT: u64 = 10_000_000;
/// Requests at one time.
const CALLERS: usize = 64;
const LOOKUPS: usize = 1_000;
const ACTORS: u64 = 1_000;
const CLAIMED: Duration = Duration::from_secs(1);
/// A claim stays in memory for minutes after its end, which is longer than building takes.
const CLAIMED_ONE_IN: u64 = 100;
const ORIGIN: &str = "example.org/bench";
const POLICY: &str = "package bench\npermit contains \"small\" if input.request.body.amount < 1000000\n";

const CANDIDATE: &str = "package bench\npermit contains \"small\" if input.request.body.amount < 1000\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *words.as_slice() {
        ["empty", dir] => empty(Path::new(dir)),
        ["build", dir, leaves] => build(Path::new(dir), leaves.parse().expect("a number")),
        ["look-up", dir] => look_up_all(Path::new(dir)),
        ["gateway", dir, end] => gateway(Path::new(dir), end == "kill"),
        ["crash", dir] => crash(Path::new(dir)),
        ["verify", dir] => verify(Path::new(dir)),
        ["diff", dir] => diff(Path::new(dir)),
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
    let built =
        run(&["empty", none]) && run(&["gateway", none, "stop"]) && run(&["build", log, &leaves.to_string()]);
    say("after a clean stop", "");
    let built = built && run(&["gateway", log, "stop"]) && run(&["look-up", log]);
    // It ends without closing, as a kill would end it; how it ended says nothing.
    run(&["crash", log]);
    built
        && run(&["gateway", log, "kill"])
        && run(&["gateway", log, "stop"])
        && run(&["verify", log])
        && run(&["diff", log])
}

fn say(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<44} {figure}");
    let _ = io::stdout().flush();
}

/// Resident memory of this process, MiB.
fn resident() -> f64 {
    resident_of(std::process::id())
}

fn resident_of(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
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
        heartbeat: None,
    };
    let start = Start {
        // What claims leave behind is kept, or the gateway would have to make it of all leaves.
        follower: Fold::new(Versions::new()),
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
    say("memory of the ledger alone, empty log", format_args!("{:.1} MiB", resident()));
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
                for n in 0..share {
                    one(&ledger, &pdp, &clock, n * CALLERS as u64 + caller).await;
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
        older_than: None,
        ordered: None,
        version: None,
    };
    ledger.record_policy(activation).await.expect("recorded");
}

async fn one(ledger: &Ledger, pdp: &Pdp, clock: &Clock, number: u64) {
    let Judgment::Permit(permit) = pdp.judge(question(clock, number)).await else { panic!("permitted") };
    let until = WallTime::from_unix_ns(clock.wall().unix_ns() + CLAIMED.as_nanos() as u64);
    let claim_until = number.is_multiple_of(CLAIMED_ONE_IN).then_some(until);
    let recording = Recording { claim_until, ..Recording::new(ledger.new_id().expect("random"), None) };
    let recorded = ledger.record_permit(permit, recording).await.expect("recorded");
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

/// `interlock run` on this log: how long until it is ready, and its memory once all is archived.
fn gateway(dir: &Path, is_killed: bool) -> bool {
    let (main, admin) = (free_port(), free_port());
    let place = dir.with_extension("gateway");
    let policies = place.join("policies");
    std::fs::create_dir_all(&policies).expect("made");
    std::fs::write(policies.join("bench.rego"), POLICY).expect("written");
    drop(key(dir));
    let config = place.join("interlock.yaml");
    let text = format!(
        "log_origin: {ORIGIN}\nledger: {{ dir: {log}, signing_key: {key} }}\npolicy: {{ dir: ./policies }}\n\
         admin: {{ listen: \"127.0.0.1:{admin}\" }}\ntelemetry: {{ format: json, level: error }}\n\
         listeners:\n  - {{ name: main, address: \"127.0.0.1:{main}\" }}\n\
         surfaces:\n  - name: payments\n    listener: main\n    package: bench\n    \
         identity: {{ api_key: {{ headers: [authorization] }} }}\n    \
         upstream: {{ url: \"http://127.0.0.1:9\" }}\n    \
         routes:\n      - {{ action: charge.create, method: POST, path: /v1/charges, body: json }}\n",
        log = dir.display(),
        key = dir.with_extension("key").display(),
    );
    std::fs::write(&config, text).expect("written");
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_interlock"))
        .arg("run")
        .arg("--config")
        .arg(config)
        .spawn()
        .expect("starts");
    while !ask(admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    say("gateway ready", format_args!("{:.3} s", begun.elapsed().as_secs_f64()));
    // What it has to archive is done in this time, and its memory settles.
    std::thread::sleep(Duration::from_secs(2));
    say("memory of the gateway", format_args!("{:.1} MiB", resident_of(child.id())));
    if is_killed {
        child.kill().expect("killed");
        say("gateway killed", "");
        return child.wait().is_ok();
    }
    let told = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    told.is_ok_and(|status| status.success()) && child.wait().is_ok_and(|status| status.success())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("bound").port()
}

fn ask(port: u16, path: &str) -> Option<String> {
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Lookups and proofs, by the ledger in this process.
fn look_up_all(dir: &Path) -> bool {
    let ledger = open(dir);
    let reader = ledger.reader();
    while reader.lag() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    look_up(&reader, &key(dir).verifier().clone());
    say("memory of the ledger alone after that", format_args!("{:.1} MiB", resident()));
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
    let (mut proofs, mut ids, mut actors, mut keys, mut times) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
            ids.push(begun.elapsed());
            assert_eq!(found.0, index);
            let first = |mut query: Search| {
                let begun = Instant::now();
                loop {
                    let found = reader.search(&at, &query).expect("searched");
                    if let Some((index, _)) = found.leaves.first() {
                        return (*index, begun.elapsed());
                    }
                    assert!(found.next < LeafIndex(size), "it is there");
                    query.from = found.next;
                }
            };
            // The next leaf of the actor from anywhere; the only one of a key; the first of a time.
            let all = || Search::from(LeafIndex(0), 1);
            let from_here = Search::from(index, 1);
            let (found, took) = first(Search { actor: Some(decision.actor.id.clone()), ..from_here });
            actors.push(took);
            assert_eq!(found, index);
            let (found, took) = first(Search { idempotency_key: decision.idempotency_key.clone(), ..all() });
            keys.push(took);
            assert_eq!(found, index);
            let time = WallTime::parse_rfc3339(&decision.time).expect("a time");
            let (found, took) = first(Search { since: Some(time), ..all() });
            times.push(took);
            assert!(found <= index);
        }
    }
    say("one proof", percentiles(proofs));
    say("one lookup by id", percentiles(ids));
    say("one lookup by actor", percentiles(actors));
    say("one lookup by idempotency key", percentiles(keys));
    say("one lookup by time", percentiles(times));
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
        for n in 0..1_000 {
            one(&ledger, &pdp, &clock, u64::MAX / 2 + n).await;
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

/// What a bundle that permits less would change of all decisions, as `interlock policy diff` says it.
fn diff(dir: &Path) -> bool {
    let replayer = Replayer {
        trust: key(dir).verifier().clone().into(),
        selection: Selection::All,
        under: Under::Given(Box::new(bundle(CANDIDATE))),
        disclosures: Disclosures::default(),
        accept_engine: false,
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let log = Directory::open(dir).expect("a log");
    let begun = Instant::now();
    let comparison = replayer.compare(&log, &NoAmounts, |_| {}).expect("readable");
    let took = begun.elapsed().as_secs_f64();
    let (decisions, differ) = (comparison.report.decisions, comparison.report.differ);
    let rate = decisions as f64 / took;
    say(
        "policy diff",
        format_args!("{rate:.0} decisions/s, {took:.1} s, {:.1} MiB, {differ} differ", resident()),
    );
    comparison.exit_code(&[]) == 0
}

fn bundle(policy: &str) -> Bundle {
    let package: PackageName = "bench".parse().expect("a name");
    let sources = Sources::from_files([("bench.rego".to_owned(), policy.as_bytes().to_vec())])
        .unwrap_or_else(|e| panic!("{e}"));
    Bundle::from_sources(sources, &[package]).unwrap_or_else(|e| panic!("{e}"))
}

fn pdp() -> Pdp {
    let bundle = bundle(POLICY);
    // Nothing here is about a bound on time, and the disk may stall.
    let bounds = policy::Settings { evaluation_max: Duration::from_secs(60), ..policy::Settings::default() };
    Pdp::start(bundle, bounds, Clock::system(), None).expect("threads")
}

/// What an agent of this bench asks, made anew each time: a request is no value to copy.
fn question(clock: &Clock, number: u64) -> Question {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("api.example"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let key = format!("order-{number:020}");
    headers.insert("idempotency-key", key.parse().expect("visible ASCII"));
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
        idempotency_key: Required::Required,
    };
    let body =
        Bytes::from_static(br#"{"amount":4200,"currency":"eur","customer":"cus_1","description":"order 7"}"#);
    let request = canonicalize(Received { head, body }, target, Vec::new(), &rules).expect("canonical");
    let actor = Actor {
        id: format!("agent-{}", number % ACTORS).parse().expect("an id"),
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
        read_set: ReadSet {
            watched: Vec::new(),
            state: Vec::new(),
            captured_at: clock.monotonic(),
            approvals_until: None,
        },
        now: clock.wall(),
    }
}
