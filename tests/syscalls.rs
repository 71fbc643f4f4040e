//! Every call that the program makes on its files, each one failing once, and each one the program's last.
//!
//! One scenario runs under strace and every file call is listed, on the log and on what stands beside it: config, policy,
//! keys, salts, a sink's position. The scenario is a start that recovers nothing,
//! some requests that fill a tile and a segment, the sealing of that segment, a clean stop. Then, for each of these calls, the same scenario runs from
//! the same log, once with EIO at that call and once with SIGKILL at it. Whatever happens: `log fsck` finds the
//! evidence whole, the next start serves, and the Auditor finds no effect without its PERMIT and no PERMIT
//! without its outcome. Where a fault left every file and the upstream exactly as they were before, that is known already.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use interlock::gateway::Stopped;

use crate::crash::ask;
use crate::support::{Saved, Setup, World};

/// Side by side; most of a run is waiting for the program and its disk.
const LANES: usize = 4;
/// Requests of the scenario, the first of them large.
const REQUESTS: usize = 10;
/// Before it: leaves up to just below a full tile, and a segment in which one more large request finds no room. Many at
/// once share a frame, so that reading them again takes few calls.
const SEEDED_AT_ONCE: usize = 24;
const SEEDED_EACH: usize = 5;
const SEEDED_LARGE: usize = 4;
/// Bytes of a large body; what policy judged stands in the segment, which has 4 MiB.
const LARGE: usize = 900_000;

const CALLS: &str = "open,openat,creat,read,readv,pread64,preadv,write,writev,pwrite64,pwritev,fsync,fdatasync,sync_file_range,\
    ftruncate,truncate,fallocate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,fchmod,fchmodat,\
    flock,getdents64,stat,lstat,fstat,newfstatat,statx,access,faccessat,faccessat2,lseek,close,mmap,copy_file_range";

/// One call on one file, the n-th of its thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    name: String,
    /// Below the world's directory.
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
}

fn laid_out() -> World {
    let sinks = vec!["{ name: lines, kind: stdout }".to_owned()];
    let mut world = Setup { segment_mib: 4, sinks, ..Setup::default() }.lay_out();
    let yaml = std::fs::read_to_string(world.path("interlock.yaml")).expect("readable");
    world.write("interlock.yaml", &yaml.replace("dir: ledger,", "dir: ledger, salts: ./salts,"), 0o644);
    world.strip_program();
    world
}

/// With the log that all lanes begin with: calls are counted, so they have to be the same ones.
fn seeded() -> (World, Saved) {
    let mut world = laid_out();
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
    let saved = world.save();
    (world, saved)
}

/// Another world for the same log.
fn lane(first: &World) -> World {
    let mut world = laid_out();
    let key = std::fs::read_to_string(first.path("log.key")).expect("readable");
    world.write("log.key", &key, 0o600);
    world.key = first.key.clone();
    world
}

fn large(n: usize) -> String {
    format!("{{\"n\":{n},\"text\":\"{}\"}}", "a".repeat(LARGE))
}

/// The scenario under strace; what the program answers when it is being broken is its own affair.
fn play(world: &mut World, strace: &[&str]) {
    let started = world.try_run_program(strace);
    for n in 0..REQUESTS {
        if !started || world.program_has_ended() {
            break;
        }
        let want = if n % 4 == 3 { "deny" } else { "permit" };
        let body = if n == 0 { large(SEEDED_LARGE) } else { format!("{{\"n\":{n}}}") };
        ask(world.address(), want, &body);
    }
    // The full segment is sealed behind the requests; when the program is being broken, perhaps not.
    let sealed = world.path("ledger/frames/00000000000000000000.frames.zst");
    for _ in 0..300 {
        if !started || world.program_has_ended() || sealed.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    world.stop_program();
}

/// Every call on a file of the world, as one run makes them.
fn list(world: &mut World) -> Vec<Call> {
    let out = world.path("strace.out");
    let trace = format!("trace={CALLS}");
    // Of data nothing is printed: a path in it is no path of the call.
    play(world, &["strace", "-f", "-y", "-qq", "-s", "0", "-o", out.to_str().expect("UTF-8"), "-e", &trace]);
    let text = std::fs::read_to_string(out).expect("strace wrote it");
    let mut counts: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some((thread, name, path)) = parse(line, &world.path("")) {
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

/// `pid call(..., "path" or 3</path>, ...) = result`, if a path of it lies in the world's directory. The program itself is
/// there too, but is the kernel's to read.
fn parse(line: &str, world: &Path) -> Option<(String, String, String)> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, arguments) = rest.trim_start().split_once('(')?;
    if name.starts_with('<') {
        return None;
    }
    let at = arguments.find(world.to_str()?)?;
    let path = &arguments[at + world.to_str()?.len()..];
    let end = path.find(['"', '>'])?;
    let path = path[..end].trim_start_matches('/').to_owned();
    (path != "interlock").then(|| (thread.to_owned(), name.to_owned(), path))
}

/// What came of a fault.
#[derive(Clone, Copy, Default)]
struct Came {
    /// The call was made, and failed or was the last.
    fired: usize,
    /// It left something behind.
    changed: usize,
}

fn broken(world: &mut World, saved: &Saved, call: &Call, fault: Fault) -> Came {
    world.restore(saved);
    let file = world.path(&call.path);
    let (file, trace) = (file.to_str().expect("UTF-8").to_owned(), format!("trace={}", call.name));
    let injection = fault.injection(call);
    let out = world.path("strace.out");
    let out = out.to_str().expect("UTF-8");
    play(world, &["strace", "-f", "-qq", "-s", "0", "-o", out, "-P", &file, "-e", &trace, "-e", &injection]);
    let text = std::fs::read_to_string(out).expect("strace wrote it");
    let fired = usize::from(text.contains("(INJECTED)") || text.contains("killed by SIGKILL"));
    if saved.is_as_in(world) {
        return Came { fired, changed: 0 };
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
    Came { fired, changed: 1 }
}

#[test]
fn every_file_call_may_fail_and_may_be_the_last() {
    let (mut first, saved) = seeded();
    let calls = list(&mut first);
    let kinds: std::collections::BTreeSet<_> = calls.iter().map(|c| c.name.as_str()).collect();
    eprintln!("{} file calls of {} kinds: {kinds:?}", calls.len(), kinds.len());
    let on = |path: &str| calls.iter().any(|c| c.path.starts_with(path));
    for path in
        ["frames/sealing", "tile/0/000", "index.redb", "restart/", "checkpoint", "frames/spare", "sinks/"]
    {
        assert!(on(&format!("ledger/{path}")), "nothing is called on {path}");
    }
    for path in ["running.yaml", "policies", "log.key", "upstream.key", "salts/"] {
        assert!(on(path), "nothing is called on {path}");
    }
    let mut work: Vec<_> =
        calls.iter().flat_map(|call| [(call.clone(), Fault::Error), (call.clone(), Fault::Kill)]).collect();
    let faults = work.len();
    work.reverse();
    let work = Mutex::new(work);
    let take = || {
        let mut work = work.lock().expect("unpoisoned");
        if work.len().is_multiple_of(200) {
            eprintln!("{} faults to come", work.len());
        }
        work.pop()
    };
    let came = Mutex::new(Came::default());
    thread::scope(|scope| {
        let mut lanes: Vec<World> = (1..LANES).map(|_| lane(&first)).collect();
        lanes.push(first);
        let (take, came, saved) = (&take, &came, &saved);
        let run = |mut world: World| {
            scope.spawn(move || {
                while let Some((call, fault)) = take() {
                    let one = broken(&mut world, saved, &call, fault);
                    let mut came = came.lock().expect("unpoisoned");
                    came.fired += one.fired;
                    came.changed += one.changed;
                }
                world.restore(saved);
                world.audit();
                world
            })
        };
        let running: Vec<_> = lanes.into_iter().map(run).collect();
        // What was saved lies in the first world, so no world goes before all are done.
        let done: Vec<_> = running.into_iter().map(|lane| lane.join()).collect();
        assert!(done.iter().all(Result::is_ok), "every lane came to its end");
    });
    let Came { fired, changed } = came.into_inner().expect("unpoisoned");
    eprintln!(
        "{faults} faults, {fired} struck, {changed} left something, each of these followed by fsck, a start and the Auditor"
    );
    // How many there are depends on the moment: which requests share a frame, and how often something is looked for.
    assert!(fired * 3 >= faults * 2, "{fired} of {faults} faults struck");
}
