//! Every call that the program makes on its log's files: each one failing once, and each one the program's last.
//!
//! One scenario runs under strace and every file call on the log's directory is listed: a start that recovers nothing,
//! some requests that fill a tile and a segment, the sealing of that segment, a clean stop. Then, for each of these calls, the same scenario runs from
//! the same log, once with EIO at that call and once with SIGKILL at it. Whatever happens: `log fsck` finds the
//! evidence whole, the next start serves, and the Auditor finds no effect without its PERMIT and no PERMIT
//! without its outcome.

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
    /// Below the log's directory; empty for the directory itself.
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

fn lane() -> (World, Saved) {
    let mut world = Setup { segment_mib: 4, ..Setup::default() }.lay_out();
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
    for _ in 0..100 {
        if !started || world.program_has_ended() || sealed.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    world.stop_program();
}

/// Every call on the log's files, as one run makes them.
fn list(world: &mut World) -> Vec<Call> {
    let out = world.path("strace.out");
    let log = world.path("ledger");
    let trace = format!("trace={CALLS}");
    play(
        world,
        &["strace", "-f", "-y", "-qq", "-s", "4096", "-o", out.to_str().expect("UTF-8"), "-e", &trace],
    );
    let text = std::fs::read_to_string(out).expect("strace wrote it");
    let mut counts: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some((thread, name, path)) = parse(line, &log) {
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

/// `pid call(..., "path" or 3</path>, ...) = result`, if a path of it lies in the log's directory.
fn parse(line: &str, log: &Path) -> Option<(String, String, String)> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, arguments) = rest.trim_start().split_once('(')?;
    if name.starts_with('<') {
        return None;
    }
    let at = arguments.find(log.to_str()?)?;
    let path = &arguments[at + log.to_str()?.len()..];
    let end = path.find(['"', '>'])?;
    let path = path[..end].trim_start_matches('/').to_owned();
    Some((thread.to_owned(), name.to_owned(), path))
}

fn broken(world: &mut World, saved: &Saved, call: &Call, fault: Fault) {
    world.restore(saved);
    let file = world.path("ledger").join(&call.path);
    let (file, trace) = (file.to_str().expect("UTF-8").to_owned(), format!("trace={}", call.name));
    let injection = fault.injection(call);
    play(world, &["strace", "-f", "-qq", "-o", "/dev/null", "-P", &file, "-e", &trace, "-e", &injection]);
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
    let (mut first, saved) = lane();
    let calls = list(&mut first);
    let kinds: std::collections::BTreeSet<_> = calls.iter().map(|c| c.name.as_str()).collect();
    eprintln!("{} file calls of {} kinds: {kinds:?}", calls.len(), kinds.len());
    let on = |path: &str| calls.iter().any(|c| c.path.starts_with(path));
    for path in ["frames/sealing", "tile/0/000", "index.redb", "restart/", "checkpoint", "frames/spare"] {
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
    thread::scope(|scope| {
        let mut lanes = vec![(first, saved)];
        lanes.extend((1..LANES).map(|_| lane()));
        for (mut world, saved) in lanes {
            scope.spawn(move || {
                while let Some((call, fault)) = take() {
                    broken(&mut world, &saved, &call, fault);
                }
                world.restore(&saved);
                world.audit();
            });
        }
    });
    eprintln!("{faults} faults, each followed by fsck, a start and the Auditor");
}
