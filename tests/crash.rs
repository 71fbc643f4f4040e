//! The real program, killed and starved of its disk. Whatever the moment: no effect without a durable PERMIT, no answer
//! whose receipt is not in the log, the log opens, and what was open ends as `not_sent` or `indeterminate`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use interlock::gateway::Stopped;
use interlock::merkle::tree::leaf_hash;
use interlock::model::Digest;
use interlock::model::entry::Entry;
use interlock::verify::Directory;
use interlock::verify::walk::{Step, Walk};

use crate::support::{KEY, Setup, World, request};

const KILLS: u32 = 1_000;
/// Worlds that are killed side by side; the machine has few cores, and most of a restart is waiting.
const LANES: u32 = 4;
/// Kills between two looks at the log as a kill left it.
const LOOK_EVERY: u32 = 10;

static REQUESTS: AtomicUsize = AtomicUsize::new(0);

/// xorshift64*: the same moments on every run.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }
}

/// What an answer's `interlock-receipt` says: this decision is the leaf at this index, with this hash.
#[derive(Debug)]
pub struct Receipt {
    id: String,
    index: usize,
    leaf: Digest,
    decision: String,
}

impl Receipt {
    fn parse(header: &str) -> Self {
        let member = |name: &str| {
            let found = header.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("`{name}` is missing: {header}"))
        };
        let leaf = STANDARD.decode(member("leaf").trim_matches(':')).expect("base64");
        Self {
            id: member("id").trim_matches('"').to_owned(),
            index: member("index").parse().expect("a number"),
            leaf: Digest::from_bytes(leaf.try_into().expect("32 bytes")),
            decision: member("decision").to_owned(),
        }
    }
}

/// An answer whose head arrived whole, whatever became of the rest.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub receipt: Option<Receipt>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).expect("the gateway's own heads are text");
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().expect("a status");
        // What was no decision, as when there was no connection, has a leaf and no id.
        let header = head.lines().find_map(|line| line.strip_prefix("interlock-receipt: "));
        let of_decision = header.filter(|header| header.starts_with("id=") || [200, 403].contains(&status));
        Some(Self { status, receipt: of_decision.map(Receipt::parse) })
    }
}

/// Every receipt that a caller got stands in the log: its leaf, at its index, of its decision. The log may end torn, as
/// a kill leaves it.
fn none_is_lost(world: &World, receipts: &[Receipt]) {
    let directory = Directory::open(&world.path("ledger")).expect("a log");
    let mut walk = Walk::new(&directory, world.key.name()).expect("readable");
    let mut leaves = Vec::new();
    while let Step::Frame(frame, _) = walk.step().expect("readable") {
        leaves.extend(frame.entries.iter().map(|leaf| leaf.to_vec()));
    }
    for receipt in receipts {
        let leaf = leaves.get(receipt.index).unwrap_or_else(|| panic!("a lost receipt: {receipt:?}"));
        assert_eq!(leaf_hash(leaf), receipt.leaf, "{receipt:?}");
        let Ok(Entry::Decision(decision)) = Entry::from_bytes_unverified(leaf) else {
            panic!("{receipt:?} is about another leaf: {}", String::from_utf8_lossy(leaf))
        };
        let said = (receipt.id.clone(), receipt.decision.as_str());
        assert_eq!((decision.id.to_string(), decision.decision.as_str()), said, "{receipt:?}");
    }
}

/// Agents that ask until they are stopped, and do not mind dying connections.
struct Load {
    stop: Arc<AtomicBool>,
    agents: Vec<JoinHandle<Vec<Answer>>>,
}

impl Load {
    fn start(address: SocketAddr, agents: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |agent| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut answers = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    // Each a message of its own, so that every effect names its PERMIT.
                    let n = REQUESTS.fetch_add(1, Ordering::SeqCst);
                    let want = if n.is_multiple_of(5) { "deny" } else { "permit" };
                    let body = format!("{{\"agent\":{agent},\"n\":{n}}}");
                    answers.extend(ask(address, want, &body));
                }
                answers
            })
        };
        let agents = (0..agents).map(spawn).collect();
        Self { stop, agents }
    }

    /// What was answered.
    fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::SeqCst);
        self.agents.into_iter().flat_map(|agent| agent.join().expect("agents do not panic")).collect()
    }
}

/// `None` if no whole head of an answer came.
pub fn ask(address: SocketAddr, want: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let headers =
        [("x-api-key", KEY), ("x-want", want), ("content-type", "application/json"), ("connection", "close")];
    stream.write_all(&request("POST", "/v1/things", &headers, body)).ok()?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        // A connection that breaks takes back nothing of what was said before.
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Answer::parse(&answer)
}

fn killed_again_and_again(seed: u64, kills: u32) {
    let mut moments = Moments(seed);
    // Small segments: kills come while one is left for the next, and while a full one is sealed.
    let mut world = Setup { segment_mib: 4, ..Setup::default() }.lay_out();
    world.strip_program();
    let mut receipts = Vec::new();
    for kill in 1..=kills {
        // A start that is killed by the clock below it is a moment like any other.
        world.run_program(&[]);
        let load = Load::start(world.address(), 3);
        thread::sleep(Duration::from_micros(moments.next(60_000)));
        world.kill();
        receipts.extend(load.stop().into_iter().filter_map(|answer| answer.receipt));
        if kill.is_multiple_of(LOOK_EVERY) {
            none_is_lost(&world, &receipts);
        }
    }
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let audit = world.finish_here(Stopped::Clean);
    let recovered = audit.outcomes().iter().filter(|o| o.cause.as_deref() == Some("recovered")).count();
    none_is_lost(&world, &receipts);
    let of = |decision: &str| receipts.iter().filter(|receipt| receipt.decision == decision).count();
    let (permits, denials) = (of("PERMIT"), of("DENY"));
    eprintln!(
        "{kills} kills, {permits} receipts of permits and {denials} of denials answered and in the log, {} effects, \
         {recovered} outcomes by recovery",
        audit.effects
    );
    assert!(audit.effects > 0 && permits > 0 && denials > 0, "the kills came under load");
    assert!(recovered > 0, "some kill found a permit open");
}

#[test]
fn a_kill_at_any_moment_leaves_no_effect_without_a_permit_and_loses_no_receipt() {
    let lanes = (0..LANES).map(|lane| {
        thread::spawn(move || {
            killed_again_and_again(0x9e37_79b9_7f4a_7c15 ^ u64::from(lane) << 7, KILLS / LANES)
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.join().expect("every lane is in order");
    }
}

#[test]
fn a_kill_while_it_starts_is_one_more_restart() {
    let mut world = Setup::default().start_program();
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.kill();
    for ms in [1, 3, 5, 10, 20, 40, 80, 160] {
        world.start_without_waiting();
        thread::sleep(Duration::from_millis(ms));
        world.kill();
    }
    world.run_program(&[]);
    let audit = world.finish_here(Stopped::Clean);
    assert_eq!(audit.effects, 1);
}

/// Under load, with the n-th call of this kind failing: the program ends, and says so.
fn starved(call: &str, error: &str, when: &str) {
    let mut world = Setup::default().lay_out();
    let inject = format!("inject={call}:error={error}:when={when}");
    let trace = format!("trace={call}");
    let started =
        world.try_run_program(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
    let mut receipts = Vec::new();
    if started {
        let load = Load::start(world.address(), 3);
        let (status, log) = world.wait_for_end();
        receipts.extend(load.stop().into_iter().filter_map(|answer| answer.receipt));
        assert_eq!(status.code(), Some(4), "{call} {when}: a poisoned log ends the program: {log}");
    } else {
        let (status, log) = world.wait_for_end();
        assert_eq!(status.code(), Some(5), "{call} {when}: {log}");
    }
    // The disk is well again.
    let before = world.upstream.captures().len();
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let audit = world.finish_here(Stopped::Clean);
    assert_eq!(audit.effects, before + 1);
    none_is_lost(&world, &receipts);
}

#[test]
fn a_failed_sync_ends_the_program_and_nothing_unrecorded_was_sent() {
    for when in ["1+", "2+", "3+", "5+", "8+", "13+", "40+"] {
        starved("fdatasync", "EIO", when);
    }
    // The error is reported once; the next sync would claim success (as Linux does).
    for when in ["4", "9", "20"] {
        starved("fdatasync", "EIO", when);
    }
}

#[test]
fn a_failed_write_ends_the_program_and_nothing_unrecorded_was_sent() {
    for when in ["1+", "2+", "6+", "25+"] {
        starved("pwrite64", "EIO", when);
    }
    starved("pwrite64", "ENOSPC", "7");
    starved("pwrite64", "EROFS", "9+");
}

/// Every other call that touches the log's files, failing from the n-th time on. Some end the program and some only
/// delay what it publishes; none may cost a receipt.
#[test]
fn no_failing_file_call_costs_a_receipt() {
    for (call, whens) in [
        ("fsync", &["1+", "2", "3", "4+"][..]),
        ("fallocate", &["1+", "2+"]),
        ("/^rename", &["1+", "2+", "3"]),
        ("/^mkdir", &["1+"]),
        ("flock", &["1"]),
    ] {
        for when in whens {
            let mut world = Setup::default().lay_out();
            let (inject, trace) = (format!("inject={call}:error=EIO:when={when}"), format!("trace={call}"));
            let under = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let mut receipts = Vec::new();
            if world.try_run_program(&under) {
                let load = Load::start(world.address(), 2);
                thread::sleep(Duration::from_millis(150));
                receipts.extend(load.stop().into_iter().filter_map(|answer| answer.receipt));
                world.kill();
            } else {
                let (status, log) = world.wait_for_end();
                assert_eq!(status.code(), Some(5), "{call} {when}: {log}");
            }
            world.run_program(&[]);
            assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200, "{call} {when}");
            world.finish_here(Stopped::Clean);
            none_is_lost(&world, &receipts);
        }
    }
}

#[test]
fn a_log_that_was_changed_is_not_continued() {
    let mut world = Setup::default().start_program();
    for _ in 0..3 {
        assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    }
    world.finish_here(Stopped::Clean);
    let segment = world.path("ledger/frames/00000000000000000000.frames");
    let file = std::fs::File::options().read(true).write(true).open(&segment).expect("a segment");
    let mut byte = [0];
    // Inside the second frame.
    file.read_exact_at(&mut byte, 4096 + 200).expect("read");
    file.write_all_at(&[byte[0] ^ 1], 4096 + 200).expect("written");
    assert!(!world.try_run_program(&[]));
    let (status, log) = world.wait_for_end();
    assert_eq!(status.code(), Some(5), "{log}");
    assert!(log.contains("offset 4096"), "it says where: {log}");
    // Put right, it goes on.
    file.write_all_at(&byte, 4096 + 200).expect("written");
    world.run_program(&[]);
    world.finish_here(Stopped::Clean);
}

/// Leaves after the last frame what a write leaves of which one sector arrived, and not the first one.
fn tear(world: &World) {
    let segment = world.path("ledger/frames/00000000000000000000.frames");
    let file = std::fs::File::options().read(true).write(true).open(&segment).expect("a segment");
    let bytes = std::fs::read(&segment).expect("readable");
    let end = bytes.chunks(4096).position(|block| block.iter().all(|&b| b == 0)).expect("room") * 4096;
    file.write_all_at(&bytes[end - 3584..end - 3072], end as u64 + 512).expect("written");
}

#[test]
fn a_torn_last_frame_is_set_aside() {
    let mut world = Setup::default().start_program();
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    world.kill();
    tear(&world);
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let audit = world.finish_here(Stopped::Clean);
    let torn = audit
        .entries
        .iter()
        .any(|e| matches!(e, interlock::model::entry::Entry::Epoch(e) if e.torn_bytes > 0 && !e.clean));
    assert!(torn, "the start says what it found");
    assert!(std::fs::read_dir(world.path("ledger/quarantine")).expect("a directory").count() > 0);
}
