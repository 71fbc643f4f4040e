//! Receipts can be proved by whoever holds them, and read by whoever may: proofs in answers, and the read API
//! of the admin listener.

use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use interlock::gateway::Stopped;
use interlock::merkle::checkpoint::parse_checkpoint;
use interlock::merkle::note::VerifierKey;
use interlock::merkle::proof::verify_inclusion;
use interlock::merkle::tree::leaf_hash;
use interlock::model::{Digest, LeafIndex};

use crate::support::client::Response;
use crate::support::{Client, Gate, KEY, OTHER_KEY, Script, Setup, Step, World, request};

/// A tlog-proof, read by its specification.
struct Proof {
    index: LeafIndex,
    path: Vec<Digest>,
    checkpoint: String,
}

impl Proof {
    #[track_caller]
    fn read(text: &str) -> Self {
        let (head, checkpoint) = text.split_once("\n\n").expect("an empty line");
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("c2sp.org/tlog-proof@v1"));
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).expect("an index");
        let path = lines.map(|line| {
            let bytes = STANDARD.decode(line).expect("base64");
            Digest::from_bytes(bytes.try_into().expect("32 bytes"))
        });
        Self {
            index: LeafIndex(index.parse().expect("a number")),
            path: path.collect(),
            checkpoint: checkpoint.into(),
        }
    }

    /// Of the header, which is an RFC 9651 byte sequence.
    #[track_caller]
    fn of_header(answer: &Response) -> Self {
        let value = answer.header("interlock-receipt-proof").expect("the header");
        let inner = value.strip_prefix(':').and_then(|v| v.strip_suffix(':')).expect("a byte sequence");
        Self::read(&String::from_utf8(STANDARD.decode(inner).expect("base64")).expect("text"))
    }

    #[track_caller]
    fn verify(&self, leaf: &[u8], key: &VerifierKey) {
        let signed = parse_checkpoint(self.checkpoint.as_bytes(), key).expect("signed by the pinned key");
        let of = signed.checkpoint();
        verify_inclusion(leaf_hash(leaf), self.index, of.size, &self.path, of.root).expect("included");
    }
}

#[track_caller]
fn ask(world: &World, want: &str, headers: &[(&str, &str)]) -> Response {
    let all = [&[("x-api-key", KEY), ("x-want", want), ("connection", "close")], headers].concat();
    world.send(request("GET", "/v1/things", &all, ""))
}

const WANT_PROOF: (&str, &str) = ("want-receipt", "proof");

#[test]
fn every_answer_with_a_receipt_proves_it_if_asked() {
    let mut world = World::start();
    let answers = [
        ask(&world, "permit", &[WANT_PROOF]),
        ask(&world, "deny", &[WANT_PROOF]),
        // Refused before policy: the actor is known, so there is a leaf.
        world.send(request(
            "GET",
            "/nowhere",
            &[("x-api-key", KEY), ("connection", "close"), WANT_PROOF],
            "",
        )),
    ];
    assert_eq!(answers.each_ref().map(|a| a.status), [200, 403, 404]);
    let key = world.key.clone();
    world.finish_here(Stopped::Clean);
    let leaves = world.leaves();
    for answer in &answers {
        let proof = Proof::of_header(answer);
        let receipt = answer.header("interlock-receipt").expect("a receipt");
        assert!(receipt.contains(&format!("index={},", proof.index)), "{receipt}");
        proof.verify(&leaves[proof.index.0 as usize], &key);
    }
}

#[test]
fn a_refusal_holds_the_proof_of_its_receipt_and_an_answer_only_if_asked() {
    let mut world = World::start();
    let denied = ask(&world, "deny", &[]);
    let rejected = world.send(request("GET", "/nowhere", &[("x-api-key", KEY), ("connection", "close")], ""));
    let permitted = ask(&world, "permit", &[]);
    let stranger = world.send(request("GET", "/v1/things", &[("connection", "close"), WANT_PROOF], ""));
    for answer in [&denied, &rejected, &permitted, &stranger] {
        assert_eq!(answer.header("interlock-receipt-proof"), None);
    }
    assert!(stranger.json()["proof"].is_null(), "who is not known has no receipt");
    let key = world.key.clone();
    world.finish_here(Stopped::Clean);
    let leaves = world.leaves();
    for answer in [denied, rejected] {
        let body = answer.json();
        let proof = Proof::read(body["proof"].as_str().expect("a proof"));
        assert_eq!(body["receipt"]["index"], proof.index.0);
        proof.verify(&leaves[proof.index.0 as usize], &key);
        // It proves this leaf and no other.
        let other = &leaves[proof.index.0 as usize - 1];
        let of = parse_checkpoint(proof.checkpoint.as_bytes(), &key).expect("signed");
        let (size, root) = (of.checkpoint().size, of.checkpoint().root);
        assert!(verify_inclusion(leaf_hash(other), proof.index, size, &proof.path, root).is_err());
    }
}

#[test]
fn proofs_hold_for_every_leaf_of_shared_commits() {
    let mut world = Setup::default().start();
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let (world, want) = (&world, if n % 2 == 0 { "permit" } else { "deny" });
                scope.spawn(move || (0..8).map(|_| ask(world, want, &[WANT_PROOF])).collect::<Vec<_>>())
            })
            .collect();
        tasks.into_iter().flat_map(|task| task.join().expect("no panic")).collect()
    });
    let key = world.key.clone();
    world.finish_here(Stopped::Clean);
    let leaves = world.leaves();
    for answer in answers {
        let proof = Proof::of_header(&answer);
        proof.verify(&leaves[proof.index.0 as usize], &key);
    }
}

#[test]
fn want_receipt_has_one_value_and_is_never_forwarded() {
    let world = World::start();
    for (header, reason) in
        [(("want-receipt", "cose"), "want_receipt_invalid"), (("want-receipt", ""), "want_receipt_invalid")]
    {
        let refused = ask(&world, "permit", &[header]);
        refused.assert_refused(400, reason);
        assert!(refused.text().contains("want-receipt"), "{}", refused.text());
    }
    ask(&world, "permit", &[WANT_PROOF, WANT_PROOF]).assert_refused(400, "header_duplicate");
    let other = world.send(request(
        "GET",
        "/v1/things",
        &[("x-api-key", OTHER_KEY), ("x-want", "permit"), ("connection", "close"), WANT_PROOF],
        "",
    ));
    assert_eq!(other.status, 200);
    assert_eq!(world.upstream.the_one().header("want-receipt"), None);
    world.finish();
}

const NONE: [usize; 0] = [];
const LOOK: Duration = Duration::from_millis(10);

/// Waits until the archive has everything that is durable.
pub(super) fn wait_until_readable(world: &World) {
    let leaves = world.metric("interlock_ledger_leaves");
    let size = || {
        let checkpoint = world.admin("/checkpoint").text();
        checkpoint.lines().nth(1).and_then(|size| size.parse::<f64>().ok()).unwrap_or_default()
    };
    let start = Instant::now();
    while size() < leaves {
        assert!(start.elapsed() < Duration::from_secs(20), "{} of {leaves} leaves can be read", size());
        thread::sleep(LOOK);
    }
}

/// Many refusals, one leaf each, on a few connections.
pub(super) fn fill(world: &World, leaves: usize) {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = world.client();
                for _ in 0..leaves.div_ceil(8) {
                    client.send(request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", "deny")], ""));
                    assert_eq!(client.response().status, 403);
                }
            });
        }
    });
}

/// The id in `interlock-receipt`, and the index.
fn receipt_of(answer: &Response) -> (String, usize) {
    let header = answer.header("interlock-receipt").expect("a receipt");
    let id = header.split('"').nth(1).expect("an id").to_owned();
    let index = header.split("index=").nth(1).and_then(|rest| rest.split(',').next()).expect("an index");
    (id, index.parse().expect("a number"))
}

fn line(leaf: &[u8], index: usize) -> String {
    format!("{{\"entry\":{},\"index\":{index}}}\n", String::from_utf8_lossy(leaf))
}

fn all_lines(leaves: &[Vec<u8>]) -> String {
    leaves.iter().enumerate().map(|(index, leaf)| line(leaf, index)).collect()
}

#[test]
fn the_tiles_and_bundles_that_are_served_give_the_signed_root() {
    let mut world = World::start();
    fill(&world, 520);
    wait_until_readable(&world);
    let answer = world.admin("/checkpoint");
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let signed = parse_checkpoint(&answer.body, &world.key).expect("signed by the pinned key");
    let size = signed.checkpoint().size.0 as usize;
    assert!(size > 512, "two full tiles and a part of one: {size}");
    let name = |of: &str, tile: usize, width: usize| match width {
        256 => format!("/tile/{of}/{tile:03}"),
        _ => format!("/tile/{of}/{tile:03}.p/{width}"),
    };
    let (mut edge, mut entries) = (interlock::merkle::tree::RightEdge::empty(), Vec::new());
    for tile in 0..=size / 256 {
        let width = (size - tile * 256).min(256);
        let (bundle, hashes) =
            (world.admin(&name("entries", tile, width)), world.admin(&name("0", tile, width)));
        for served in [&bundle, &hashes] {
            assert_eq!(
                (served.status, served.header("content-type")),
                (200, Some("application/octet-stream"))
            );
            let is_for_ever = served.header("cache-control").expect("a rule").contains("immutable");
            assert_eq!(is_for_ever, width == 256);
        }
        let mut rest = &bundle.body[..];
        while let Some((length, tail)) = rest.split_at_checked(2) {
            let (entry, tail) = tail.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
            let hash = leaf_hash(entry);
            let at = 32 * (entries.len() % 256);
            assert_eq!(&hashes.body[at..at + 32], hash.as_bytes());
            edge.append(hash);
            entries.push(entry.to_vec());
            rest = tail;
        }
    }
    assert_eq!((entries.len(), edge.root()), (size, signed.checkpoint().root));
    // Of every width that the tree ever had, and of none that it has not.
    let whole = world.admin("/tile/entries/000").body;
    for width in [1, 2, 17, 255] {
        let part = world.admin(&name("entries", 0, width));
        assert!(part.status == 200 && whole.starts_with(&part.body), "{width}");
        assert_eq!(world.admin(&name("0", 0, width)).body.len(), 32 * width);
    }
    assert_eq!(world.admin("/tile/1/000.p/2").body.len(), 64);
    for absent in
        ["/tile/0/003", "/tile/entries/x001/000", "/tile/entries/002.p/255", "/tile/1/000", "/tile/2/000.p/1"]
    {
        world.admin(absent).assert_refused(404, "tile_unknown");
    }
    for wrong in
        ["/tile/0/1", "/tile/0/000.p/0", "/tile/0/000.p/256", "/tile/entries", "/tile/0/000/", "/tile/99/000"]
    {
        world.admin(wrong).assert_refused(400, "tile_name_invalid");
    }
    world.finish_here(Stopped::Clean);
    assert_eq!(entries, world.leaves()[..size]);
}

#[test]
fn a_receipt_is_read_by_its_id_with_its_proof_and_outcome() {
    let mut world = World::start();
    let (permitted, denied) = (ask(&world, "permit", &[]), ask(&world, "deny", &[]));
    let ((id, index), (denied_id, denied_index)) = (receipt_of(&permitted), receipt_of(&denied));
    // At once: what was given out can be read.
    let read = world.admin(&format!("/receipts/{id}"));
    let proof = Proof::read(&world.admin(&format!("/receipts/{id}.tlog-proof")).text());
    let refused = world.admin(&format!("/receipts/{denied_id}"));
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    let outcome = world.admin(&format!("/receipts/{id}/outcome"));
    world.admin(&format!("/receipts/{denied_id}/outcome")).assert_refused(404, "outcome_never");
    world.admin("/receipts/01a1f952-9919-7203-be62-067bad0065eb").assert_refused(404, "receipt_unknown");
    world.admin("/receipts/1").assert_refused(400, "receipt_id_invalid");
    world.admin(&format!("/receipts/{}", id.to_uppercase())).assert_refused(400, "receipt_id_invalid");
    let with_parameter = world.admin(&format!("/receipts/{id}?proof=1"));
    with_parameter.assert_refused(400, "parameter_invalid");
    assert_eq!(with_parameter.json()["parameter"], "proof");
    let key = world.key.clone();
    world.finish_here(Stopped::Clean);
    let leaves = world.leaves();
    assert_eq!(read.text(), line(&leaves[index], index));
    assert_eq!(refused.text(), line(&leaves[denied_index], denied_index));
    assert_eq!(proof.index.0 as usize, index);
    proof.verify(&leaves[index], &key);
    let outcome_index = outcome.json()["index"].as_u64().expect("an index") as usize;
    assert_eq!(outcome.text(), line(&leaves[outcome_index], outcome_index));
    assert_eq!(outcome.json()["entry"]["decision_id"], id);
}

#[test]
fn the_outcome_of_an_open_permit_is_not_there_yet() {
    let world = World::start();
    let gate = Gate::default();
    world.upstream.next(Script::steps([
        Step::Wait(gate.clone()),
        Step::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
    ]));
    let mut client = world.client();
    client.send(request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", "permit")], ""));
    world.upstream.wait_for(1);
    let listed = world.admin("/receipts?actor=agent-7").text();
    let decision: serde_json::Value =
        serde_json::from_str(listed.lines().next().expect("one")).expect("JSON");
    let id = decision["entry"]["id"].as_str().expect("an id").to_owned();
    world.admin(&format!("/receipts/{id}/outcome")).assert_refused(404, "outcome_open");
    gate.open();
    assert_eq!(client.response().status, 200);
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    let outcome = world.admin(&format!("/receipts/{id}/outcome")).json();
    assert_eq!(outcome["entry"]["status"], "confirmed");
    drop(client);
    world.finish();
}

#[test]
fn leaves_are_listed_from_an_index_by_actor_key_and_time() {
    let mut world = World::start();
    let keyed = |key: &str| {
        let headers = [
            ("x-api-key", OTHER_KEY),
            ("x-want", "permit"),
            ("connection", "close"),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        world.send(request("POST", "/v1/keyed", &headers, "{}"))
    };
    let (first, second) = (receipt_of(&keyed("one")), receipt_of(&keyed("two")));
    let denied = receipt_of(&ask(&world, "deny", &[]));
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
    let indexes = |query: &str| {
        let answer = world.admin(&format!("/receipts?{query}"));
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"), "{}", answer.text());
        assert!(answer.is_whole, "{query}");
        let lines = answer.text();
        let index =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["index"].as_u64();
        lines.lines().map(|line| index(line).expect("an index") as usize).collect::<Vec<_>>()
    };
    let size = indexes("").len();
    assert_eq!(indexes("since=2"), (2..size).collect::<Vec<_>>());
    assert_eq!(indexes(&format!("since={}", size + 5)), NONE);
    assert_eq!(indexes("actor=agent-8"), [first.1, second.1]);
    assert_eq!(indexes(&format!("actor=agent-8&since={}", first.1 + 1)), [second.1]);
    assert_eq!(indexes("idempotency_key=two"), [second.1]);
    assert_eq!(indexes("idempotency_key=two&actor=agent-7"), NONE);
    assert_eq!(indexes("actor=agent-7"), [denied.1]);
    assert_eq!(indexes("until=2020-01-01T00:00:00Z"), NONE);
    assert_eq!(indexes("from=2020-01-01T00:00:00Z").len(), size);
    for (query, name) in
        [("since=x", "since"), ("sinse=1", "sinse"), ("from=now", "from"), ("follow=1", "follow")]
    {
        let refused = world.admin(&format!("/receipts?{query}"));
        refused.assert_refused(400, "parameter_invalid");
        assert_eq!(refused.json()["parameter"], name);
    }
    let all = world.admin("/receipts").text();
    world.finish_here(Stopped::Clean);
    assert_eq!(all, all_lines(&world.leaves()[..size]));
}

fn follow(world: &World, query: &str) -> Client {
    let mut client = Client::connect(world.admin_address());
    client.send(request("GET", &format!("/receipts?follow=true{query}"), &[], ""));
    client
}

#[test]
fn a_follower_that_was_cut_off_goes_on_where_it_was() {
    let mut world = World::start();
    let mut follower = follow(&world, "");
    assert_eq!(follower.read_head().expect("a head").status, 200);
    let first = receipt_of(&ask(&world, "deny", &[]));
    // Live: before anything else happens, and although the answer does not end.
    let seen = follower.read_until(&format!("\"index\":{}}}\n", first.1)).expect("the leaf");
    assert!(String::from_utf8_lossy(&seen).contains(&first.0));
    drop(follower);
    let missed = receipt_of(&ask(&world, "deny", &[]));
    let mut follower = follow(&world, &format!("&since={}", first.1 + 1));
    follower.read_head().expect("a head");
    let seen = follower.read_until(&format!("\"index\":{}}}\n", missed.1)).expect("what was missed");
    assert!(String::from_utf8_lossy(&seen).contains(&missed.0));
    assert!(!String::from_utf8_lossy(&seen).contains(&first.0), "nothing twice");
    world.finish_here(Stopped::Clean);
}

#[test]
fn a_follower_gets_the_stop_leaf_and_then_the_end() {
    let mut world = World::start();
    let mut follower = follow(&world, "");
    let mut filtered = follow(&world, "&actor=agent-7");
    let reading = thread::spawn(move || (follower.response(), filtered.response()));
    (0..5).for_each(|_| assert_eq!(ask(&world, "permit", &[]).status, 200));
    world.finish_here(Stopped::Clean);
    let (all, filtered) = reading.join().expect("no panic");
    assert!(all.is_whole, "ended, not cut");
    assert_eq!(all.text(), all_lines(&world.leaves()));
    assert!(filtered.is_whole && filtered.text().lines().count() == 5, "{}", filtered.text());
}

#[test]
fn followers_are_bounded_and_cost_nobody_anything() {
    let world = World::start();
    // They never read.
    let mut followers: Vec<Client> = (0..interlock::limits::ADMIN_FOLLOWERS_MAX)
        .map(|_| {
            let mut follower = follow(&world, "");
            assert_eq!(follower.read_head().expect("a head").status, 200);
            follower
        })
        .collect();
    let refused = follow(&world, "").response();
    refused.assert_refused(503, "followers_over");
    fill(&world, 200);
    assert_eq!(world.admin("/readyz").status, 200);
    // The place of one that has left is free again.
    followers.pop();
    let start = Instant::now();
    while follow(&world, "").read_head().expect("a head").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(10), "a place becomes free");
        thread::sleep(LOOK);
    }
    drop(followers);
    world.finish();
}

#[test]
fn what_is_written_is_refused_and_what_is_not_there_is_named() {
    let world = World::start();
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let mut client = Client::connect(world.admin_address());
        client.send(request(method, "/receipts", &[("connection", "close")], ""));
        assert_eq!(client.response().status, 405);
    }
    let nothing = world.admin("/receiptz");
    nothing.assert_refused(404, "path_unknown");
    assert!(nothing.text().contains("/receipts"), "{}", nothing.text());
    world.admin("/checkpoint?size=1").assert_refused(400, "parameter_invalid");
    world.finish();
}
