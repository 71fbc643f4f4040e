//! A wall clock that is set years back and forth: between requests, while one waits for its answer, between two runs.
//! The order of the log is that of its indexes; no time in it is asked to go forward. By a clock that was set nothing is
//! permitted, and each such decision has its receipt.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;

use interlock::clock::{Clock, WallTime};
use interlock::gateway::Stopped;
use interlock::limits::CLOCK_STEP_MS_MAX;
use interlock::model::entry::Entry;

use crate::crash::ask;
use crate::support::upstream::Capture;
use crate::support::{Gate, Script, Setup, Step, World};

/// What the clock is set to, one after the other.
const JUMPS: [&str; 8] = [
    "2025-11-20T13:00:00Z",
    "2035-11-20T13:00:00Z",
    "2005-01-01T00:00:00Z",
    "1970-01-01T00:00:01Z",
    "2553-12-31T23:59:59Z",
    "2024-02-29T12:00:00Z",
    "2025-11-20T12:59:59Z",
    "2099-06-01T00:00:00Z",
];
const REQUESTS_EACH: usize = 3;

fn at(text: &str) -> WallTime {
    WallTime::parse_rfc3339(text).expect("a time")
}

/// Further apart than the gateway lives with.
fn is_far(one: WallTime, other: WallTime) -> bool {
    one.unix_ms().abs_diff(other.unix_ms()) > CLOCK_STEP_MS_MAX
}

/// A request that is at the upstream while the clock is set.
fn ask_across(world: &World, clock: &Clock, to: WallTime) {
    let gate = Gate::default();
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    world.upstream.next(Script::steps([Step::Wait(gate.clone()), Step::Write(answer.into())]));
    let before = world.upstream.captures().len();
    let (address, body) = (world.address(), format!("{{\"across\":{}}}", to.unix_ns()));
    let asked = thread::spawn(move || ask(address, "permit", &body).map(|answer| answer.status));
    world.upstream.wait_until(|captures| captures.len() > before && captures.iter().all(|c| c.is_whole));
    clock.set_wall(to);
    gate.open();
    assert_eq!(asked.join().expect("asked"), Some(200), "{}", to.rfc3339());
}

fn time_of(entry: &Entry) -> &str {
    match entry {
        Entry::Admin(e) => &e.time,
        Entry::Decision(e) => &e.time,
        Entry::Epoch(e) => &e.time,
        Entry::Heartbeat(e) => &e.time,
        Entry::Key(e) => &e.time,
        Entry::Outcome(e) => &e.time,
        Entry::Policy(e) => &e.time,
        Entry::Refusal(e) => &e.time,
    }
}

#[test]
fn a_clock_that_jumps_years_back_and_forth_costs_no_receipt_and_no_order() {
    let mut world = Setup::default().lay_out();
    let clock = Clock::manual(at(JUMPS[0]));
    let runs = 2;
    let mut stopped = None;
    for run in 0..runs {
        // The second run begins with a clock that is years behind the end of the first.
        let began = at(JUMPS[run * 2]);
        clock.set_wall(began);
        world.run_inside_at(clock.clone());
        for jump in JUMPS {
            let is_set = is_far(clock.wall(), began);
            for n in 0..REQUESTS_EACH {
                let want = if n == 1 { "deny" } else { "permit" };
                let answer = world.ask("POST", "/v1/things", want, format!("{{\"run\":{run},\"n\":{n}}}"));
                let expected = match (is_set, n) {
                    (true, _) => 503,
                    (false, 1) => 403,
                    (false, _) => 200,
                };
                assert_eq!(answer.status, expected, "{jump}: {}", answer.text());
            }
            if is_set {
                clock.set_wall(at(jump));
                let answer = world.ask("POST", "/v1/things", "permit", "{}");
                assert_eq!(answer.status == 200, !is_far(clock.wall(), began), "{jump}: {}", answer.text());
            } else {
                ask_across(&world, &clock, at(jump));
            }
        }
        world.wait_for_metric("interlock_ledger_archive_lag_leaves", 0.0);
        // The upstream's clock is the true one, and is not compared.
        let captures = world.upstream.take_captures().into_iter();
        world
            .upstream
            .put_captures(captures.map(|capture| Capture { arrived_unix_ns: u64::MAX, ..capture }).collect());
        stopped = Some(world.finish_here(Stopped::Clean));
    }
    let audit = stopped.expect("it ran");
    let each_run = JUMPS.len() * (REQUESTS_EACH + 1);
    assert_eq!(audit.decisions().len(), runs * each_run);
    let ids: BTreeSet<_> = audit.decisions().iter().map(|decision| decision.id).collect();
    assert_eq!(ids.len(), runs * each_run, "no id twice");
    assert!(audit.decisions().is_sorted_by_key(|decision| decision.epoch), "epochs follow each other");
    assert_eq!(audit.stops(), runs);
    // What was recorded in a span of time is found, wherever in the log it stands.
    for window in
        ["1970-01-01T00:00:00Z", "2005-01-01T00:00:00Z", "2035-01-01T00:00:00Z", "2553-01-01T00:00:00Z"]
    {
        let since = at(window);
        let until = WallTime::from_unix_ns(since.unix_ns() + 31_536_000_000_000_000);
        let inside = |entry: &&Entry| (since..until).contains(&at(time_of(entry)));
        let expected = audit.entries.iter().filter(inside).count();
        assert!(expected >= runs * REQUESTS_EACH, "{window}: {expected}");
        let listed = Command::new(env!("CARGO_BIN_EXE_interlock"))
            .args(["receipts", "list", "--since", &since.rfc3339(), "--until", &until.rfc3339(), "--log"])
            .arg(world.path("ledger"))
            .output()
            .expect("runs");
        assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), expected, "{window}");
    }
}
