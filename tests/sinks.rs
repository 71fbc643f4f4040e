//! Sinks get every leaf, in order, at least once, byte for byte, whatever becomes of them or of the gateway; and no
//! request waits for them.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use interlock::gateway::Stopped;

use crate::ledger_faults::{interlock, stdout};
use crate::support::upstream::Capture;
use crate::support::{Script, Setup, Step, Upstream, World};

fn setup(url: &str) -> Setup {
    let sink = format!("{{ name: siem, kind: http, url: \"{url}\", timeout_ms_max: 1000 }}");
    Setup { sinks: vec![sink], ..Setup::default() }
}

fn url(collector: SocketAddr) -> String {
    format!("http://{collector}/in?from=test")
}

/// A port that is free, as long as nobody else takes it.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound")
}

/// Index and entry of each line, as they stand in it.
fn lines(body: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let text = std::str::from_utf8(body).expect("UTF-8");
    assert!(text.ends_with('\n'), "whole lines");
    text.lines()
        .map(|line| {
            let inner = line.strip_prefix("{\"entry\":").and_then(|l| l.strip_suffix('}')).expect("a line");
            let (entry, index) = inner.rsplit_once(",\"index\":").expect("an index");
            (index.parse().expect("a number"), entry.as_bytes().to_vec())
        })
        .collect()
}

/// What a collector has that takes each of these deliveries: fails on a gap, and on two versions of a leaf.
#[track_caller]
fn received(deliveries: &[Capture]) -> Vec<Vec<u8>> {
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    for delivery in deliveries.iter().filter(|d| d.is_whole) {
        for (index, entry) in lines(delivery.body()) {
            match leaves.get(index) {
                Some(earlier) => assert_eq!(*earlier, entry, "leaf {index}"),
                None => {
                    assert_eq!(index, leaves.len(), "a gap");
                    leaves.push(entry);
                }
            }
        }
    }
    leaves
}

#[track_caller]
fn ask(world: &World, times: usize) {
    for _ in 0..times {
        assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
    }
}

const LAG: &str = "interlock_sink_lag_leaves{sink=\"siem\"}";
const FAILURES: &str = "interlock_sink_failures_total{sink=\"siem\"}";

#[test]
fn a_collector_that_fails_hangs_and_comes_back_gets_every_leaf_in_order() {
    let collector = Upstream::plain();
    let failures = [
        Script::json(500, "{}"),
        Script::steps([Step::Close]),
        Script::steps([Step::Hang]),
        Script::json(429, "{}"),
        Script::steps([Step::Write(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), Step::Close]),
    ];
    let count = failures.len();
    failures.into_iter().for_each(|script| collector.next(script));
    let mut world = setup(&url(collector.address())).start();
    ask(&world, 10);
    world.wait_for_metric(FAILURES, count as f64);
    world.wait_for_metric(LAG, 0.0);
    ask(&world, 3);
    world.finish_here(Stopped::Clean);
    let deliveries = collector.captures();
    assert_eq!(received(&deliveries[count..]), world.leaves(), "the stop leaf included");
    let first = &deliveries[0];
    assert!(first.head().starts_with("POST /in?from=test HTTP/1.1\r\n"), "{}", first.head());
    assert_eq!(first.header("content-type").as_deref(), Some("application/x-ndjson"));
}

#[test]
fn an_idle_gateway_is_heard_by_sinks_and_readers_and_its_state_stays() {
    let collector = Upstream::plain();
    let mut world = setup(&url(collector.address())).lay_out();
    super::keys::configure(&world, "./log.key, heartbeat_s: 1");
    for _ in 0..2 {
        world.run_inside();
        ask(&world, 1);
        let before = world.admin("/receipts?since=0").text().matches("\"type\":\"heartbeat\"").count();
        let begun = Instant::now();
        while world.admin("/receipts?since=0").text().matches("\"type\":\"heartbeat\"").count() < before + 2 {
            assert!(begun.elapsed() < Duration::from_secs(30), "two heartbeats in two seconds");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(begun.elapsed() >= Duration::from_secs(1), "the second one after a second");
        ask(&world, 1);
        world.finish_here(Stopped::Clean);
    }
    let leaves = world.leaves();
    assert_eq!(received(&collector.captures()), leaves);
    let is_one = |leaf: &&Vec<u8>| leaf.ends_with(b"\"type\":\"heartbeat\"}");
    let beats = leaves.iter().filter(is_one).count();
    assert!(beats >= 4, "{beats}");
    let log = world.path("ledger").display().to_string();
    let listed = interlock(&["receipts", "list", "--log", &log, "--type", "heartbeat"]);
    assert_eq!(stdout(&listed).lines().count(), beats);
    let counted = stdout(&interlock(&["log", "stat", "--log", &log, "--json"]));
    assert!(counted.contains("\"heartbeat\""), "{counted}");
}

#[test]
fn requests_are_answered_while_a_collector_is_down() {
    let address = free_address();
    let mut world = setup(&url(address)).start();
    ask(&world, 20);
    assert!(world.metric(LAG) >= 40.0 && world.metric(FAILURES) > 0.0);
    let collector = Upstream::at(address, None);
    world.wait_for_metric(LAG, 0.0);
    world.finish_here(Stopped::Clean);
    assert_eq!(received(&collector.captures()), world.leaves());
}

#[test]
fn a_collector_that_stays_away_does_not_hold_up_the_end() {
    let collector = Upstream::plain();
    collector.on("/in", Script::steps([Step::Hang]));
    let sink = format!(
        "{{ name: siem, kind: http, url: \"{}\", timeout_ms_max: 300000 }}",
        url(collector.address())
    );
    let mut world = Setup { sinks: vec![sink], ..Setup::default() }.start();
    ask(&world, 1);
    let begun = Instant::now();
    world.finish_here(Stopped::Clean);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn what_a_collector_refuses_is_never_left_out() {
    let collector = Upstream::plain();
    collector.next(Script::json(400, "{}"));
    let mut world = setup(&url(collector.address())).start();
    world.wait_for_metric(FAILURES, 1.0);
    ask(&world, 2);
    thread::sleep(Duration::from_millis(600));
    assert_eq!(collector.captures().len(), 1, "not soon again, and nothing after it");
    assert!(world.metric(LAG) >= 4.0);
    world.finish_here(Stopped::Clean);
    assert_eq!(received(&collector.captures()[1..]), world.leaves());
}

#[test]
fn after_kills_of_the_gateway_the_collector_has_every_leaf() {
    let collector = Upstream::plain();
    let mut world = setup(&url(collector.address())).start_program();
    for _ in 0..3 {
        ask(&world, 5);
        world.kill();
        world.run_program(&[]);
    }
    ask(&world, 5);
    world.finish_here(Stopped::Clean);
    assert_eq!(received(&collector.captures()), world.leaves());
}

#[test]
fn a_sink_goes_on_where_it_was_and_begins_again_without_a_position() {
    let collector = Upstream::plain();
    let mut world = setup(&url(collector.address())).start();
    let first_index = |deliveries: &[Capture]| lines(deliveries[0].body())[0].0;
    ask(&world, 3);
    world.finish_here(Stopped::Clean);
    let size = world.leaves().len();
    assert_eq!(received(&collector.take_captures()).len(), size);
    world.run_inside();
    world.finish_here(Stopped::Clean);
    assert_eq!(first_index(&collector.take_captures()), size, "nothing twice after a clean stop");
    // Damaged, and past the end of the log: both begin again.
    for position in ["7", "99999\n"] {
        world.write("ledger/sinks/siem.position", position, 0o640);
        world.run_inside();
        world.finish_here(Stopped::Clean);
        assert_eq!(received(&collector.take_captures()), world.leaves(), "{position:?}");
    }
}

#[test]
fn a_position_that_could_not_be_read_is_not_replaced() {
    let collector = Upstream::plain();
    let mut world = setup(&url(collector.address())).start();
    ask(&world, 1);
    world.finish_here(Stopped::Clean);
    let place = world.path("ledger/sinks/siem.position");
    std::fs::remove_file(&place).expect("written by the sink");
    // It leads to a directory: an error, and no position that is known to be damaged.
    std::fs::create_dir(world.path("ledger/sinks/empty")).expect("made");
    std::os::unix::fs::symlink("empty", &place).expect("made");
    world.run_inside();
    ask(&world, 1);
    world.finish_here(Stopped::Clean);
    assert!(place.is_symlink());
    assert_eq!(received(&collector.take_captures()).len(), 5, "nothing was delivered without a position");
}

#[test]
fn a_collector_behind_tls_is_shown_the_credential() {
    let address = free_address();
    let sink = format!(
        "{{ name: siem, kind: http, url: \"https://localhost:{}/in\", roots: {{ file: ./tls.crt }}, \
         batch_leaves_max: 2, credential: {{ header: authorization, prefix: \"Splunk \", from_file: ./siem.key }} }}",
        address.port()
    );
    let mut world = Setup { sinks: vec![sink], ..Setup::default() }.lay_out();
    world.write("siem.key", "s1em-s3cret\n", 0o600);
    let collector = Upstream::at(address, Some(world.tls.server_config()));
    world.run_inside();
    ask(&world, 4);
    world.finish_here(Stopped::Clean);
    let deliveries = collector.captures();
    assert_eq!(received(&deliveries), world.leaves());
    for delivery in deliveries {
        assert_eq!(delivery.header("authorization").as_deref(), Some("Splunk s1em-s3cret"));
        assert!(lines(delivery.body()).len() <= 2);
    }
}

#[test]
fn standard_output_holds_receipts_alone() {
    let sink = "{ name: out, kind: stdout }".to_owned();
    let mut world = Setup { sinks: vec![sink], ..Setup::default() }.start_program();
    ask(&world, 5);
    let (out, log) = (world.program().out.clone(), world.program().log.clone());
    world.finish_here(Stopped::Clean);
    let out = out.lock().expect("unpoisoned").clone();
    let leaves: Vec<_> = lines(out.as_bytes());
    let expected: Vec<_> = world.leaves().into_iter().enumerate().collect();
    assert_eq!(leaves, expected);
    assert!(log.lock().expect("unpoisoned").contains("\nready\n"), "said on standard error");
}
