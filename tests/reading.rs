//! Receipts can be proved by whoever holds them, and read by whoever may: proofs in answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use interlock::merkle::checkpoint::parse_checkpoint;
use interlock::merkle::note::VerifierKey;
use interlock::merkle::proof::verify_inclusion;
use interlock::merkle::tree::leaf_hash;
use interlock::model::{Digest, LeafIndex};

use crate::support::client::Response;
use crate::support::{KEY, OTHER_KEY, Setup, World, request};

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

/// The exact bytes of all leaves, from the files.
fn leaves(world: &World) -> Vec<Vec<u8>> {
    use interlock::verify::walk::{Step, Walk};
    let directory = interlock::verify::Directory::open(&world.path("ledger")).expect("readable");
    let mut walk = Walk::new(&directory, world.key.name()).expect("readable");
    let mut leaves = Vec::new();
    loop {
        match walk.step().expect("readable") {
            Step::Frame(frame, _) => leaves.extend(frame.entries.iter().map(|e| e.to_vec())),
            Step::End(_) => return leaves,
            Step::Damaged(damage) => panic!("{damage:?}"),
        }
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
    world.finish_here(interlock::gateway::Stopped::Clean);
    let leaves = leaves(&world);
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
    world.finish_here(interlock::gateway::Stopped::Clean);
    let leaves = leaves(&world);
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
    world.finish_here(interlock::gateway::Stopped::Clean);
    let leaves = leaves(&world);
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
