//! The program in surroundings that fail it: no file descriptors, no room, a disk that turns read-only, a directory
//! that cannot be written.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use interlock::gateway::Stopped;

use crate::crash::ask;
use crate::support::{Gate, Mounted, Script, Setup, Step, Upstream, World};

const DESCRIPTORS: usize = 64;

/// Waits for it, not for ever.
fn comes_true(what: impl Fn() -> bool) -> bool {
    (0..1_000).any(|_| {
        let is = what();
        if !is {
            thread::sleep(Duration::from_millis(20));
        }
        is
    })
}

#[test]
fn a_program_without_file_descriptors_refuses_and_comes_back() {
    let mut world = Setup { segment_mib: 4, ..Setup::default() }.lay_out();
    world.run_program(&["prlimit", &format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"), "--"]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    // Idle connections take every descriptor there is; the log needs one for its next segment meanwhile.
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..100 {
        idle.extend(TcpStream::connect(world.address()));
    }
    let open = format!("/proc/{}/fd", world.program().pid());
    let taken = || fs::read_dir(&open).expect("it runs").count();
    assert!(comes_true(|| taken() == DESCRIPTORS), "only {} descriptors are taken", taken());
    idle.truncate(20);
    for n in 0..600 {
        // What is answered meanwhile may be a refusal.
        ask(world.address(), "permit", &format!("{{\"n\":{n}}}"));
        if n % 50 == 0 {
            idle.extend((0..5).filter_map(|_| TcpStream::connect(world.address()).ok()));
        }
    }
    drop(idle);
    let answered = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(20));
        world.admin("/readyz").status == 200
    });
    assert!(answered, "{}", world.program_log());
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.finish_here(Stopped::Clean);
}

#[test]
fn a_directory_that_cannot_be_written_refuses_the_start_and_changes_nothing() {
    let mut world = Setup::default().start_program();
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    world.stop_program();
    let before = world.save();
    let log = world.path("ledger");
    if let Some(mounted) = Mounted::read_only(&log) {
        let refused = File::create(log.join("probe")).expect_err("read-only");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "also for root");
        assert!(!world.try_run_program(&[]));
        let (status, text) = world.wait_for_end();
        assert_eq!(status.code(), Some(5), "{text}");
        assert!(text.contains("Read-only file system") && text.contains("ledger"), "{text}");
        drop(mounted);
        assert_eq!(before.files(), world.save().files());
    }
    // The same as strace pretends it, where nothing can be mounted.
    let under = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", log.to_str().expect("UTF-8"), "-P"];
    let frames = log.join("frames/00000000000000000000.frames");
    let lock = log.join("lock");
    let rest = ["-P", lock.to_str().expect("UTF-8"), "-e", "trace=openat", "-e", "inject=openat:error=EROFS"];
    let under: Vec<&str> =
        under.iter().chain([&frames.to_str().expect("UTF-8")]).chain(&rest).copied().collect();
    assert!(!world.try_run_program(&under));
    let (status, text) = world.wait_for_end();
    assert_eq!(status.code(), Some(5), "{text}");
    assert!(text.contains("Read-only file system") && text.contains("ledger"), "{text}");
    assert_eq!(before.files(), world.save().files());
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.finish_here(Stopped::Clean);
}

/// A request of the agent that waits at the upstream until the gate opens; gives the answer's status.
fn ask_behind(world: &World, gate: &Gate) -> thread::JoinHandle<Option<u16>> {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    world.upstream.next(Script::steps([Step::Wait(gate.clone()), Step::Write(answer.into())]));
    let (address, before) = (world.address(), world.upstream.captures().len());
    let asked = thread::spawn(move || ask(address, "permit", "{\"waits\":1}").map(|answer| answer.status));
    world.upstream.wait_until(|captures| captures.len() > before && captures.iter().all(|c| c.is_whole));
    asked
}

/// Text that no compression makes much shorter, another one each time.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    format!("{{\"noise\":\"{}\"}}", (0..12_000).map(|_| word()).collect::<String>())
}

#[test]
fn a_disk_that_is_full_refuses_with_503_keeps_what_is_owed_and_all_goes_on_when_there_is_room() {
    let collector = Upstream::plain();
    let sink = format!("{{ name: siem, kind: http, url: \"http://{}/in\" }}", collector.address());
    let mut world = Setup { segment_mib: 4, sinks: vec![sink], ..Setup::default() }.lay_out();
    // Log, tiles, index, checkpoint and the sink's position share it.
    let mounted = Mounted::small(&world.path("ledger"), "24m");
    match mounted {
        Some(_) => world.run_program(&[]),
        // The first segment and its spare have room, and the next six attempts at a spare have none.
        None => world.run_program(&[
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fallocate",
            "-e",
            "inject=fallocate:error=ENOSPC:when=3..8",
        ]),
    }
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let gate = Gate::default();
    let waiting = ask_behind(&world, &gate);
    let filler = world.path("ledger/filler");
    if mounted.is_some() {
        let mut file = File::create(&filler).expect("made");
        let full = (0..).find_map(|_| file.write_all(&[7; 4096]).err()).expect("it ends");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
    let mut asked = 0;
    let refused = loop {
        asked += 1;
        match world.ask("POST", "/v1/things", "permit", noise(asked)) {
            answer if answer.status == 200 => assert!(asked < 200, "the disk is not full"),
            answer => break answer,
        }
    };
    assert_eq!(refused.status, 503, "{}", refused.text());
    if mounted.is_some() {
        assert_eq!(world.ask("POST", "/v1/things", "deny", "{}").status, 503, "nor is a denial recorded");
        assert_ne!(world.admin("/readyz").status, 200);
    }
    // The outcome of what was sent has its room.
    gate.open();
    assert_eq!(waiting.join().expect("asked"), Some(200));
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    if mounted.is_some() {
        fs::remove_file(&filler).expect("removed");
    }
    assert!(comes_true(|| world.admin("/readyz").status == 200), "{}", world.program_log());
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    // By themselves, and without a restart: what is read, and what others are told.
    world.wait_for_metric("interlock_ledger_archive_lag_leaves", 0.0);
    world.wait_for_metric("interlock_sink_lag_leaves{sink=\"siem\"}", 0.0);
    world.finish_here(Stopped::Clean);
}

#[test]
fn a_disk_that_turns_read_only_under_the_program_ends_it_and_the_next_start_decides_what_was_open() {
    let mut world = Setup { segment_mib: 4, ..Setup::default() }.lay_out();
    let (image, ledger) = (world.path("disk.img"), world.path("ledger"));
    // Without one, `crash::a_failed_write_ends_the_program` has what strace can pretend.
    let Some(disk) = Mounted::disk(&image, &ledger) else {
        world.nothing_to_audit();
        return;
    };
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let gate = Gate::default();
    let waiting = ask_behind(&world, &gate);
    let before = world.upstream.captures().len();
    disk.fail();
    let refused = ask(world.address(), "permit", "{\"late\":1}");
    assert!(refused.is_none_or(|answer| answer.status == 503 && answer.receipt.is_none()));
    let (status, text) = world.wait_for_end();
    assert_eq!(status.code(), Some(4), "{text}");
    gate.open();
    // It was sent, and how it ended is not known.
    let _ = waiting.join().expect("asked");
    assert_eq!(world.upstream.captures().len(), before, "what was not recorded was not sent");
    drop(disk);
    let _disk = Mounted::disk(&image, &ledger).expect("as before");
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    let audit = world.finish_here(Stopped::Clean);
    assert_eq!(audit.outcomes().iter().filter(|o| o.cause.as_deref() == Some("recovered")).count(), 1);
}
