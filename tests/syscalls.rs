//! Every call that the program makes on a file of its own: each one failing once, and each one the program's last.
//!
//! One scenario runs under strace, and every call that names a file below the world's directory, or has one open, is
//! listed, whatever the call is: config, policy, schema, keys and certificates, the keys of salts, and the log with all
//! that is derived from it and the positions of its sinks. The scenario: a start that finds a torn frame and a PERMIT
//! without an outcome, some requests that fill a tile and a segment, one of them redacted, the sealing of that segment,
//! a clean stop. Then, for each of these calls, the same scenario runs from the same state, once with EIO at that call
//! and once with SIGKILL at it. Whatever happens: what cannot be read at the start is named by a start that is refused;
//! `log fsck` finds the evidence whole, the next start serves, and the Auditor finds no effect without its PERMIT, no
//! PERMIT without its outcome. strace's own output says which faults fired.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use interlock::gateway::Stopped;

use crate::crash::{ask, tear};
use crate::support::{KEY, Saved, Script, Setup, Step, Upstream, World, request};

/// Side by side; most of a run is waiting for the program and its disk.
const LANES: usize = 4;
/// Requests of the scenario, two of them large.
const REQUESTS: usize = 10;
/// Before it: leaves up to just below a full tile, and a segment in which two more large requests find no room. Many at
/// once share a frame, so that reading them again takes few calls.
const SEEDED_AT_ONCE: usize = 24;
const SEEDED_EACH: usize = 5;
const SEEDED_LARGE: usize = 3;
/// Bytes of a large body; what policy judged stands in the segment, which has 4 MiB.
const LARGE: usize = 900_000;

/// What strace knows as calls with a file's name, and calls on a descriptor.
const CALLS: &str = "trace=%file,%desc";
/// A value that is redacted, and the agent's header in which it comes.
const PATIENT: &str = "pat!ent";
const ROUTES: &str = r#"
      - { action: thing.create, method: POST, path: /v1/things, body: json, headers: [x-want] }
      - { action: person.create, method: POST, path: /v1/people, body: json, headers: [x-want, x-patient-id] }
      - { action: shaped.create, method: POST, path: /v1/shaped, body: json, headers: [x-want], schema: ./schema.json }
"#;
/// What the program only reads.
const INPUTS: [&str; 6] =
    ["running.yaml", "policies/test.rego", "schema.json", "log.key", "upstream.key", "tls.crt"];
/// Of what was planned, so much fires at least: where threads share a file, a call now and then is another one's.
const FIRED_PERCENT_MIN: usize = 90;

/// One call on one file, the n-th of its thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    name: String,
    /// Below the world's directory; empty for the directory itself.
    path: String,
    when: usize,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Error,
    Kill,
}

impl Fault {
    fn injection(self, call: &Call) -> String {
        match self {
            Self::Error => format!("inject={}:error=EIO:when={}", call.name, call.when),
            Self::Kill => format!("inject={}:signal=KILL:when={}", call.name, call.when),
        }
    }

    /// What strace writes when it happens.
    fn mark(self) -> &'static str {
        match self {
            Self::Error => "(INJECTED)",
            Self::Kill => "+++ killed by SIGKILL",
        }
    }
}

/// How many were planned, and how many fired.
#[derive(Default)]
struct Tally {
    planned: AtomicUsize,
    fired: AtomicUsize,
}

/// A world to be broken, what it is put back to, and the collector of its sink.
struct Lane {
    world: World,
    saved: Saved,
    collector: Upstream,
}

fn lane() -> Lane {
    let collector = Upstream::plain();
    let sink = format!("{{ name: siem, kind: http, url: \"http://{}/in\" }}", collector.address());
    let setup = Setup {
        segment_mib: 4,
        upstream_tls: true,
        sinks: vec![sink],
        routes: ROUTES.into(),
        surface: &["redact: { headers: [x-patient-id] }"],
        redacted: &[PATIENT],
        ..Setup::default()
    };
    let mut world = setup.lay_out();
    world.run_program(&[]);
    thread::scope(|scope| {
        for agent in 0..SEEDED_AT_ONCE {
            let world = &world;
            scope.spawn(move || {
                for n in 0..SEEDED_EACH {
                    let body = format!("{{\"agent\":{agent},\"seed\":{n}}}");
                    assert_eq!(world.ask("POST", "/v1/things", "permit", body).status, 200);
                }
            });
        }
    });
    for n in 0..SEEDED_LARGE {
        assert_eq!(world.ask("POST", "/v1/things", "permit", large(n)).status, 200);
    }
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    world.stop_program();
    // Then a life that ends in the middle: a PERMIT whose message left, and half a frame after it.
    world.run_program(&[]);
    world.upstream.next(Script::steps([Step::Hang]));
    let before = world.upstream.captures().len();
    let mut client = world.client();
    let headers = [("x-api-key", KEY), ("x-want", "permit"), ("content-type", "application/json")];
    client.send(request("POST", "/v1/things", &headers, "{\"hangs\":1}"));
    world.upstream.wait_until(|captures| captures.len() > before && captures.iter().all(|c| c.is_whole));
    world.kill();
    let segments = std::fs::read_dir(world.path("ledger/frames")).expect("listed").count();
    assert_eq!(segments, 2, "the first segment and a spare: however few shared a frame, it is not full");
    tear(&world);
    let saved = world.save();
    Lane { world, saved, collector }
}

fn large(n: usize) -> String {
    format!("{{\"n\":{n},\"text\":\"{}\"}}", "a".repeat(LARGE))
}

/// The scenario under strace; what the program answers when it is being broken is its own affair. Whether it became
/// ready, how it ended, and what it said.
fn play(world: &mut World, strace: &[&str]) -> (bool, ExitStatus, String) {
    let started = world.try_run_program(strace);
    for n in 0..REQUESTS {
        if !started || world.program_has_ended() {
            break;
        }
        let want = if n % 4 == 3 { "deny" } else { "permit" };
        let body = if n == 0 || n == 2 { large(SEEDED_LARGE + n) } else { format!("{{\"n\":{n}}}") };
        ask(world.address(), want, &body);
        if n == 1 {
            ask_redacted(world);
        }
    }
    // The full segment is sealed behind the requests; when the program is being broken, perhaps not.
    let sealed = world.path("ledger/frames/00000000000000000000.frames.zst");
    for _ in 0..100 {
        if !started || world.program_has_ended() || sealed.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let (status, log) = world.end_program();
    (started, status, log)
}

/// One whose leaf holds a disclosure digest, so that the epoch's salts are needed.
fn ask_redacted(world: &World) {
    let Ok(mut stream) = TcpStream::connect(world.address()) else { return };
    let headers = [
        ("x-api-key", KEY),
        ("x-want", "permit"),
        ("x-patient-id", PATIENT),
        ("content-type", "application/json"),
        ("connection", "close"),
    ];
    // It may be dying.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(&request("POST", "/v1/people", &headers, "{}"));
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Every call on the world's files, as one run makes them.
fn list(world: &mut World) -> Vec<Call> {
    let out = world.path("strace.out");
    let root = world.path("");
    let root = root.to_str().expect("UTF-8").trim_end_matches('/').to_owned();
    let strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-s",
        "4096",
        "-o",
        out.to_str().expect("UTF-8"),
        "-e",
        CALLS,
    ];
    let (started, status, log) = play(world, &strace);
    assert!(started && status.success(), "{log}");
    let text = std::fs::read_to_string(out).expect("strace wrote it");
    let mut counts: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some((thread, name, path)) = parse(line, root.as_ref()) {
            *counts.entry((name, path, thread)).or_default() += 1;
        }
    }
    // The filter is by file, the count by thread: where two threads make the same call on the same file, both fail.
    let mut most: BTreeMap<(String, String), usize> = BTreeMap::new();
    for ((name, path, _), count) in counts {
        let entry = most.entry((name, path)).or_default();
        *entry = count.max(*entry);
    }
    most.into_iter()
        .flat_map(|((name, path), count)| {
            (1..=count).map(move |when| Call { name: name.clone(), path: path.clone(), when })
        })
        .collect()
}

/// `pid call(..., "path" or 3</path>, ...) = result`, if a path of it lies in this directory.
fn parse(line: &str, root: &Path) -> Option<(String, String, String)> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, arguments) = rest.trim_start().split_once('(')?;
    if name.starts_with('<') {
        return None;
    }
    // What a file holds is shown too, and may name others.
    let root = root.to_str()?;
    let named = |before: char| arguments.find(&format!("{before}{root}"));
    let at = named('"').into_iter().chain(named('<')).min()? + 1;
    let path = &arguments[at + root.len()..];
    let end = path.find(['"', '>'])?;
    let path = path[..end].trim_start_matches('/').to_owned();
    Some((thread.to_owned(), name.to_owned(), path))
}

fn broken(lane: &mut Lane, call: &Call, fault: Fault, tally: &Tally) {
    let Lane { world, saved, collector } = lane;
    world.restore(saved);
    collector.take_captures();
    let file = if call.path.is_empty() { world.path("") } else { world.path(&call.path) };
    let file = file.to_str().expect("UTF-8").trim_end_matches('/').to_owned();
    let (out, trace) = (world.path("strace.out"), format!("trace={}", call.name));
    let injection = fault.injection(call);
    let strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-o",
        out.to_str().expect("UTF-8"),
        "-P",
        &file,
        "-e",
        &trace,
        "-e",
        &injection,
    ];
    let (started, status, log) = play(world, &strace);
    let fired = std::fs::read_to_string(out).is_ok_and(|text| text.contains(fault.mark()));
    tally.planned.fetch_add(1, Ordering::SeqCst);
    tally.fired.fetch_add(usize::from(fired), Ordering::SeqCst);
    // The standard library panics where the descriptor of a directory cannot be closed, which no file system of Linux
    // refuses; the program ends by it, and all the rest holds.
    let is_by_library = call.name == "close";
    assert!(is_by_library || !log.contains("panicked"), "{call:?} {fault:?}: {log}");
    if matches!(fault, Fault::Error) && fired && !started && !is_by_library {
        let name = call.path.rsplit('/').next().expect("a name");
        let says = status.code().is_some_and(|code| code != 0) && log.contains(name);
        assert!(says, "{call:?}: a refused start names what could not be read: {status} {log}");
    }
    // What is needed and was not read.
    let is_needed = INPUTS.contains(&call.path.as_str()) && call.when == 1;
    if matches!(fault, Fault::Error) && is_needed && ["openat", "read"].contains(&call.name.as_str()) {
        assert!(!started, "{call:?} was not needed: {log}");
    }
    let fsck = Command::new(env!("CARGO_BIN_EXE_interlock"))
        .args(["log", "fsck", "--repair", "--log"])
        .arg(world.path("ledger"))
        .args(["--key", &world.vkey()])
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    // 12: what was written last is not signed yet; the next start does that.
    assert!(
        matches!(fsck.status.code(), Some(0 | 12)),
        "{call:?} {fault:?}: {}{}",
        String::from_utf8_lossy(&fsck.stdout),
        String::from_utf8_lossy(&fsck.stderr)
    );
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200, "{call:?} {fault:?}");
    world.finish_here(Stopped::Clean);
}

#[test]
fn every_file_call_may_fail_and_may_be_the_last() {
    let began = Instant::now();
    let mut first = lane();
    let calls = list(&mut first.world);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    calls.iter().for_each(|call| *kinds.entry(&call.name).or_default() += 1);
    let files: BTreeSet<_> = calls.iter().map(|call| call.path.as_str()).collect();
    eprintln!("{} file calls of {} kinds on {} files: {kinds:?}", calls.len(), kinds.len(), files.len());
    let on = |path: &str| calls.iter().any(|c| c.path.starts_with(path));
    let log = [
        "ledger/frames/sealing",
        "ledger/tile/0/000",
        "ledger/index.redb",
        "ledger/restart/",
        "ledger/checkpoint",
        "ledger/frames/spare",
        "ledger/quarantine/",
        "ledger/sinks/siem.position",
        "salts/",
    ];
    for path in log.into_iter().chain(INPUTS) {
        assert!(on(path), "nothing is called on {path}: {files:?}");
    }
    let mut work: Vec<_> =
        calls.iter().flat_map(|call| [(call.clone(), Fault::Error), (call.clone(), Fault::Kill)]).collect();
    let planned = work.len();
    work.reverse();
    let (work, tally) = (Mutex::new(work), Tally::default());
    let take = || {
        let mut work = work.lock().expect("unpoisoned");
        if work.len().is_multiple_of(200) {
            eprintln!("{} faults to come", work.len());
        }
        work.pop()
    };
    thread::scope(|scope| {
        let mut lanes = vec![first];
        lanes.extend((1..LANES).map(|_| lane()));
        for mut lane in lanes {
            let (take, tally) = (&take, &tally);
            scope.spawn(move || {
                while let Some((call, fault)) = take() {
                    broken(&mut lane, &call, fault, tally);
                }
                lane.world.restore(&lane.saved);
                lane.world.run_program(&[]);
                lane.world.finish_here(Stopped::Clean);
            });
        }
    });
    let fired = tally.fired.into_inner();
    assert_eq!(tally.planned.into_inner(), planned);
    eprintln!(
        "{} file calls, {planned} faults planned, {fired} fired; each followed by fsck, a start and the Auditor; {} s",
        calls.len(),
        began.elapsed().as_secs()
    );
    assert!(fired * 100 >= planned * FIRED_PERCENT_MIN, "{fired} of {planned} faults fired");
}
