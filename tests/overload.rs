//! Too much at once, no room on disk, and going away.

use std::fs;
use std::time::{Duration, Instant};

use interlock::gateway::Stopped;

use crate::support::{Client, Gate, KEY, Script, Setup, Step, World, request};

fn get(want: &str) -> Vec<u8> {
    request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", want)], "")
}

fn answer() -> Step {
    Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec())
}

/// Open file descriptors, and resident memory in bytes.
fn held_by(pid: u32) -> (usize, usize) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).expect("a process");
    let resident: usize = pages.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("pages");
    (descriptors, resident * 4096)
}

#[test]
fn a_thousand_connections_at_once_are_served_and_leave_nothing_behind() {
    let mut world = Setup {
        upstream: &["leases_max: 32", "lease_wait_ms_max: 60000", "idle_ms_max: 300"],
        ..Setup::default()
    }
    .start_program();
    let pid = world.program().pid();
    let round = |world: &World| {
        let mut clients: Vec<Client> = (0..1_000).map(|_| world.client()).collect();
        clients.iter_mut().for_each(|c| c.send(get("permit")));
        for client in &mut clients {
            let answer = client.response();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    // The first round pays for what is allocated once.
    round(&world);
    let settled = |world: &World| {
        world.wait_for_metric("interlock_connections", 0.0);
        world.wait_for_metric("interlock_requests_in_flight", 0.0);
        world.wait_for_metric("interlock_ledger_open_permits", 0.0);
        world.wait_for_metric("interlock_upstream_connections{state=\"idle\",surface=\"test\"}", 0.0);
        world.wait_for_metric("interlock_upstream_connections{state=\"leased\",surface=\"test\"}", 0.0);
    };
    settled(&world);
    let before = held_by(pid);
    round(&world);
    round(&world);
    settled(&world);
    let start = Instant::now();
    while held_by(pid).0 > before.0 && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = held_by(pid);
    assert!(after.0 <= before.0, "file descriptors: {} before, {} after", before.0, after.0);
    assert!(after.1 < before.1 + 64 * 1024 * 1024, "memory: {} before, {} after", before.1, after.1);
    let audit = world.finish();
    assert_eq!(audit.effects, 3_000);
}

#[test]
fn over_the_limit_of_requests_is_a_503_and_no_decision() {
    let world = Setup { limits: &["requests_in_flight_max: 1"], ..Setup::default() }.start();
    let gate = Gate::default();
    world.upstream.next(Script::steps([Step::Wait(gate.clone()), answer()]));
    let mut first = world.client();
    first.send(get("permit"));
    world.upstream.wait_for(1);
    let refused = world.ask("GET", "/v1/things", "permit", "");
    refused.assert_refused(503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    gate.open();
    assert_eq!(first.response().status, 200);
    let audit = world.finish();
    assert_eq!((audit.effects, audit.decisions().len()), (1, 1));
}

#[test]
fn over_the_limit_of_connections_waits() {
    let world = Setup { limits: &["connections_max: 2"], ..Setup::default() }.start();
    let (mut first, second, mut third) = (world.client(), world.client(), world.client());
    world.wait_for_metric("interlock_connections", 2.0);
    third.send(get("permit"));
    first.send(get("permit"));
    assert_eq!(first.response().status, 200);
    assert_eq!(world.metric("interlock_connections"), 2.0);
    drop(second);
    assert_eq!(third.response().status, 200);
    drop((first, third));
    world.finish();
}

#[test]
fn a_full_disk_refuses_decisions_keeps_outcomes_and_ends_when_there_is_room() {
    let mut world = Setup::default().lay_out();
    // The first segment and its spare are there; the next spare finds no room, forty times.
    world.run_program(&[
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fallocate",
        "-e",
        "inject=fallocate:error=ENOSPC:when=3..42",
    ]);
    // Permitted before it is full, answered when it is.
    let gate = Gate::default();
    world.upstream.next(Script::steps([Step::Wait(gate.clone()), answer()]));
    let mut open = world.client();
    open.send(get("permit"));
    world.upstream.wait_for(1);
    // What was judged is kept beside the leaf: large requests fill the segment.
    let large = format!("{{\"amount\":10,\"text\":\"{}\"}}", "a".repeat(1_000_000));
    let mut permitted = 0;
    let refused = loop {
        let answer = world.ask("POST", "/v1/things", "permit", &large);
        match answer.status {
            200 => permitted += 1,
            _ => break answer,
        }
        assert!(permitted < 200, "the segment never fills");
    };
    refused.assert_refused(503, "ledger_full");
    assert!(refused.header("retry-after").is_some());
    assert!(permitted > 0);
    assert_eq!(world.admin("/readyz").status, 503);
    assert_eq!(world.metric("interlock_ledger_health{state=\"full\"}"), 1.0);
    assert_eq!(world.upstream.captures().len(), permitted + 1, "what cannot be recorded is not forwarded");
    world.ask("GET", "/v1/things", "deny", "").assert_refused(503, "ledger_full");
    gate.open();
    assert_eq!(open.response().status, 200);
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    // There is room again: nobody has to restart anything.
    world.wait_for_metric("interlock_ledger_health{state=\"accepting\"}", 1.0);
    assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
    assert_eq!(world.admin("/readyz").status, 200);
    world.finish();
}

#[test]
fn a_permit_that_grew_old_while_it_was_recorded_is_not_used() {
    let mut world = Setup { surface: &["permit_age_ms_max: 100"], ..Setup::default() }.lay_out();
    // A disk that takes three times as long as a permit may be old.
    world.run_program(&[
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_exit=300000",
    ]);
    let answer = world.ask("GET", "/v1/things", "permit", "");
    answer.assert_refused(503, "read_set_moved");
    assert_eq!(answer.json()["outcome"], "not_sent");
    assert!(world.upstream.captures().is_empty());
    let audit = world.finish();
    assert_eq!((audit.verdicts(), audit.statuses()), (vec!["PERMIT"; 3], vec!["not_sent"; 3]));
    // Each says which one it stands in for.
    let decisions = audit.decisions();
    assert_eq!(decisions[1].supersedes, Some(decisions[0].id));
    assert_eq!(decisions[2].supersedes, Some(decisions[1].id));
}

#[test]
fn a_log_that_cannot_be_opened_keeps_the_gateway_from_starting() {
    let mut world = Setup::default().lay_out();
    world.write("ledger", "a file where a directory should be", 0o600);
    assert!(!world.try_run_program(&[]), "it does not become ready");
    let (status, log) = world.wait_for_end();
    assert_eq!(status.code(), Some(5), "{log}");
    assert!(log.contains("ledger"), "it says why: {log}");
    world.nothing_to_audit();
}

#[test]
fn a_log_has_one_gateway() {
    let mut world = Setup::default().start_program();
    let mut second = Setup::default().lay_out();
    let yaml = fs::read_to_string(second.path("interlock.yaml")).expect("readable");
    let shared = world.path("ledger");
    second.write(
        "interlock.yaml",
        &yaml.replace("dir: ledger", &format!("dir: {}", shared.display())),
        0o644,
    );
    fs::copy(world.path("log.key"), second.path("log.key")).expect("copied");
    assert!(!second.try_run_program(&[]));
    let (status, log) = second.wait_for_end();
    assert_eq!(status.code(), Some(5), "{log}");
    assert!(log.contains("another process"), "{log}");
    second.nothing_to_audit();
    assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
    world.finish_here(Stopped::Clean);
}

#[test]
fn a_signal_lets_what_runs_finish() {
    let mut world = Setup::default().start_program();
    let gate = Gate::default();
    world.upstream.next(Script::steps([Step::Wait(gate.clone()), answer()]));
    let mut running = world.client();
    running.send(get("permit"));
    world.upstream.wait_for(1);
    let mut idle = world.client();
    idle.send(get("permit"));
    assert_eq!(idle.response().status, 200);
    world.program().terminate();
    // The idle connection ends, the listener is closed, and readiness says so while the one request runs.
    assert_eq!(idle.read_to_end(), b"");
    let start = Instant::now();
    while world.admin("/readyz").status != 503 {
        assert!(start.elapsed() < Duration::from_secs(10), "still ready");
    }
    assert!(std::net::TcpStream::connect(world.address()).is_err(), "the listener is closed");
    gate.open();
    let answer = running.response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let (status, log) = world.wait_for_end();
    assert_eq!(status.code(), Some(0), "{log}");
    let audit = world.audit();
    assert_eq!((audit.statuses(), audit.stops()), (vec!["confirmed", "confirmed"], 1));
}

#[test]
fn what_does_not_finish_in_time_is_given_up_and_recorded() {
    let mut world = Setup { limits: &["drain_ms_max: 200"], ..Setup::default() }.start_program();
    world.upstream.next(Script::steps([Step::Hang]));
    let mut running = world.client();
    running.send(get("permit"));
    world.upstream.wait_for(1);
    world.program().terminate();
    let answer = running.try_response(false);
    assert!(answer.is_none_or(|a| a.status >= 500), "no success");
    let (status, log) = world.wait_for_end();
    assert_eq!(status.code(), Some(3), "{log}");
    let audit = world.audit();
    assert_eq!((audit.statuses(), audit.stops()), (vec!["indeterminate"], 1));
}

#[test]
fn a_restart_goes_on_with_the_same_log() {
    let mut world = Setup::default().start_program();
    for round in 1..=3 {
        assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
        world.ask("GET", "/v1/things", "deny", "").assert_refused(403, "policy_denied");
        let audit = world.finish_here(Stopped::Clean);
        assert_eq!((audit.stops(), audit.decisions().len()), (round, 2 * round));
        if round < 3 {
            world.run_program(&[]);
        }
    }
}
