//! The program in surroundings that fail it: no file descriptors, a directory that cannot be written.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use interlock::gateway::Stopped;

use crate::crash::ask;
use crate::support::Setup;

#[test]
fn a_program_without_file_descriptors_refuses_and_comes_back() {
    let mut world = Setup { segment_mib: 4, ..Setup::default() }.lay_out();
    world.run_program(&["prlimit", "--nofile=64:64", "--"]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    // Idle connections take every descriptor there is; the log needs one for its next segment meanwhile.
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..100 {
        idle.extend(TcpStream::connect(world.address()));
    }
    thread::sleep(Duration::from_millis(100));
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
    // As a file system mounted read-only answers.
    let log = world.path("ledger");
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
