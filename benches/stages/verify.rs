//! The verification of a whole log of decisions and outcomes, as many leaves a second as it takes in.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use interlock::ledger::FileSigner;
use interlock::merkle::checkpoint::Checkpoint;
use interlock::merkle::frame::{self, Evidence, FrameKey, FrameParts};
use interlock::merkle::note::Signer;
use interlock::merkle::tree::{RightEdge, leaf_hash};
use interlock::model::entry::policy_revision;
use interlock::model::{Digest, LeafIndex, LogOrigin};
use interlock::verify::{Directory, verify_log};
use serde_json::json;

/// Twice as many leaves. `INTERLOCK_BENCH_PAIRS` asks for another number.
const PAIRS: u64 = 100_000;
/// Decisions and outcomes of one group commit.
const PAIRS_PER_FRAME: u64 = 32;
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

pub fn group(c: &mut Criterion) {
    let pairs = option_env!("INTERLOCK_BENCH_PAIRS").and_then(|n| n.parse().ok()).unwrap_or(PAIRS);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (signer, _) = FileSigner::generate("example.org/bench".parse().expect("a name")).expect("a key");
    let leaves = write_log(dir.path(), &signer, pairs);
    let mut group = c.benchmark_group("verify");
    group.sample_size(10);
    group.throughput(Throughput::Elements(leaves));
    group.bench_function("log", |b| {
        b.iter(|| {
            let log = Directory::open(dir.path()).expect("a log");
            let report = verify_log(black_box(&log), signer.verifier()).expect("readable");
            assert!(report.passed() && report.size.0 == leaves, "{report}");
        });
    });
    group.finish();
}

/// Writes frames as the ledger does, without its waiting for the disk. Returns the number of leaves.
fn write_log(dir: &Path, signer: &FileSigner, pairs: u64) -> u64 {
    std::fs::create_dir_all(dir.join("frames")).expect("made");
    let mut log = Writer {
        dir,
        key: signer.frame_key().expect("signs"),
        edge: RightEdge::empty(),
        chain: frame::genesis(signer.verifier().name()),
        segment: Vec::new(),
        first: LeafIndex(0),
    };
    let vkey = signer.verifier().to_string();
    log.frame(&[start(&vkey), policy()], &[]);
    for at in (0..pairs).step_by(PAIRS_PER_FRAME as usize) {
        let now = PAIRS_PER_FRAME.min(pairs - at);
        let first = log.edge.size().0;
        let inputs: Vec<_> = (at..at + now).map(input).collect();
        let decisions = (at..at + now).zip(&inputs).map(|(n, input)| decision(n, input));
        let outcomes = (0..now).map(|n| outcome(at + n, first + n));
        let leaves: Vec<_> = decisions.chain(outcomes).collect();
        log.frame(&leaves, &inputs);
    }
    let (size, root) = (log.edge.size(), log.edge.root());
    let stop = json!({
        "type": "epoch", "event": "stop", "clean": true, "torn_bytes": 0, "previous": {"size": size, "root": root},
        "binary_digest": Digest::of(b""), "config_digest": Digest::of(b""), "vkeys": [vkey],
        "spec": "interlock-receipt/1", "time": "2025-11-20T14:00:00.000000Z", "epoch": 1,
    });
    log.frame(&[canonical(&stop)], &[]);
    log.end_segment();
    let origin: LogOrigin = signer.verifier().name().clone();
    let checkpoint = Checkpoint { origin, size: log.edge.size(), root: log.edge.root() };
    write(&dir.join("checkpoint"), checkpoint.sign(signer).expect("signs").as_bytes());
    log.edge.size().0
}

struct Writer<'d> {
    dir: &'d Path,
    key: FrameKey,
    edge: RightEdge,
    chain: Digest,
    segment: Vec<u8>,
    first: LeafIndex,
}

impl Writer<'_> {
    fn frame(&mut self, entries: &[Vec<u8>], evidence: &[Vec<u8>]) {
        let first = LeafIndex(self.edge.size().0);
        entries.iter().for_each(|entry| self.edge.append(leaf_hash(entry)));
        let parts = FrameParts {
            first,
            previous: self.chain,
            root: self.edge.root(),
            entries: entries.iter().map(Vec::as_slice).collect(),
            evidence: evidence.iter().map(|bytes| Evidence { digest: Digest::of(bytes), bytes }).collect(),
        };
        let (bytes, chain) = frame::encode(&parts, &self.key);
        self.chain = chain;
        if self.segment.len() + bytes.len() > SEGMENT_BYTES {
            self.end_segment();
            self.first = first;
        }
        self.segment.extend(bytes);
    }

    fn end_segment(&mut self) {
        self.segment.resize(SEGMENT_BYTES, 0);
        write(&self.dir.join(interlock::verify::segment_file(self.first)), &self.segment);
        self.segment.clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "the benchmark lays out a log")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

fn canonical(value: &serde_json::Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("canonical")
}

fn id(n: u64) -> String {
    format!("019aa159-acfb-7707-8707-{n:012x}")
}

fn digest(n: u64) -> Digest {
    Digest::of(&n.to_be_bytes())
}

fn engine() -> Arc<str> {
    "regorus/0.14.1 interpreter strict".into()
}

fn start(vkey: &str) -> Vec<u8> {
    let edge = RightEdge::empty();
    canonical(&json!({
        "type": "epoch", "event": "start", "clean": true, "torn_bytes": 0,
        "previous": {"size": edge.size(), "root": edge.root()},
        "binary_digest": Digest::of(b""), "config_digest": Digest::of(b""), "vkeys": [vkey],
        "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.000000Z", "epoch": 1,
    }))
}

fn policy() -> Vec<u8> {
    canonical(&json!({
        "type": "policy", "activated_by": "start", "engine": engine(), "files": [],
        "revision": policy_revision(&engine(), &[]),
        "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.000001Z", "epoch": 1,
    }))
}

/// About 0.8 KB, as a small charge makes it.
fn input(n: u64) -> Vec<u8> {
    canonical(&json!({
        "surface": "payments", "action": "charge.create", "idempotency_key": format!("order-{n}"),
        "actor": {"id": "agent-7", "method": "api_key", "claims": {"role": "buyer", "team": "procurement"}},
        "request": {
            "method": "POST", "authority": "api.payments.example", "path": "/v1/charges", "params": {}, "query": {},
            "headers": {"content-type": "application/json", "idempotency-key": format!("order-{n}")},
            "body": {"amount": 1_250 + n % 1_000, "currency": "eur", "customer": format!("cus_{n}"),
                "description": "Paper, ten boxes, and two desks for the new office", "metadata": {"cost_center": "4711"}},
            "media_type": "application/json", "size": 142, "digest": digest(n),
        },
        "context": {"facts": {}, "budgets": {}, "approvals": [], "attempt": 1},
        "time": {"unix_ns": "1763643600123456000", "rfc3339": "2025-11-20T13:00:00.123456Z"},
    }))
}

/// About 1.2 KB.
fn decision(n: u64, input: &[u8]) -> Vec<u8> {
    canonical(&json!({
        "type": "decision", "id": id(n), "surface": "payments", "action": "charge.create",
        "actor": {"id": "agent-7", "method": "api_key", "credential_digest": digest(7)},
        "idempotency_key": format!("order-{n}"), "decision": "PERMIT", "mode": "enforce",
        "policy": {"package": "gateway.payments", "engine": engine(), "revision": policy_revision(&engine(), &[])},
        "evaluation": {"status": "evaluated", "input_digest": Digest::of(input),
            "read_set": [{"name": "policy", "version": digest(1).to_string(), "age_ms": 0}]},
        "reasons": [{"code": "within_limit", "message": "The amount is within the limit."}],
        "request": {"method": "POST", "target": "/v1/charges", "media_type": "application/json", "size": 142,
            "form": "json_canonical", "digest": digest(n), "body_digest": digest(n + 1), "received_digest": digest(n + 2)},
        "reserves": [], "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.123456Z", "epoch": 1,
    }))
}

/// About 0.6 KB.
fn outcome(n: u64, index: u64) -> Vec<u8> {
    canonical(&json!({
        "type": "outcome", "decision_id": id(n), "decision_index": index, "status": "confirmed",
        "sent": {"digest": digest(n), "size": 612}, "attestation": "gateway", "duration_us": 18_412, "settles": [],
        "response": {"status_code": 201, "size": 512, "body_digest": digest(n + 3)},
        "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.143456Z", "epoch": 1,
    }))
}
