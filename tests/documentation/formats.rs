//! A second verifier, written from docs/RECEIPTS.md alone: it uses nothing of the crate, so what it needs is in the
//! document. It reads the log that a demo leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest(&SHA256, &parts.concat()).as_ref().try_into().expect("32 bytes")
}

fn named(hash: [u8; 32]) -> String {
    hash.iter().fold("sha-256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            sha256(&[&[1], &root(&leaves[..split]), &root(&leaves[split..])])
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, &byte| n << 8 | usize::from(byte))
}

/// What a log holds, after every frame was held to the document.
#[derive(Default)]
struct Log {
    entries: Vec<Value>,
    leaves: Vec<[u8; 32]>,
    evidence: BTreeMap<String, Vec<u8>>,
}

impl Log {
    fn read(dir: &Path, name: &str) -> Self {
        let mut log = Self::default();
        let mut previous = sha256(&[b"interlock-frames-v1\n", name.as_bytes(), b"\n"]);
        let mut segments: Vec<PathBuf> = fs::read_dir(dir.join("frames"))
            .expect("frames")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|e| e == "frames"))
            .collect();
        segments.sort();
        for path in segments {
            let first: usize = path.file_stem().and_then(|s| s.to_str()?.parse().ok()).expect("an index");
            assert_eq!(first, log.entries.len());
            let bytes = fs::read(&path).expect("a segment");
            let mut at = 0;
            while bytes[at..].starts_with(b"ILKFRAME") {
                let length = number(&bytes[at + 12..at + 16]);
                previous = log.frame(&bytes[at..at + length], previous);
                at += length.next_multiple_of(4_096);
            }
            assert!(bytes[at..].iter().all(|&byte| byte == 0), "zeros to the end");
        }
        log
    }

    /// Returns the closing digest.
    fn frame(&mut self, frame: &[u8], previous: [u8; 32]) -> [u8; 32] {
        let (content, closing) = frame.split_at(frame.len() - 32);
        assert_eq!(sha256(&[content]), closing);
        assert_eq!((number(&frame[8..10]), number(&frame[10..12])), (2, 0));
        assert_eq!(number(&frame[16..24]), self.entries.len());
        assert_eq!(frame[40..72], previous);
        // The seal is for the key's holder.
        let content = &content[..content.len() - 32];
        let (mut entries, mut evidence) = content[104..].split_at(number(&frame[28..32]));
        for _ in 0..number(&frame[24..28]) {
            let (entry, rest) = entries[2..].split_at(number(&entries[..2]));
            self.leaves.push(sha256(&[&[0], entry]));
            self.entries.push(serde_json::from_slice(entry).expect("JSON"));
            entries = rest;
        }
        assert_eq!(evidence.len(), number(&frame[36..40]));
        for _ in 0..number(&frame[32..36]) {
            let (record, rest) = evidence[36..].split_at(number(&evidence[32..36]));
            assert_eq!(evidence[..32], sha256(&[record]));
            self.evidence.insert(named(sha256(&[record])), record.to_vec());
            evidence = rest;
        }
        assert!(entries.is_empty() && evidence.is_empty());
        assert_eq!(root(&self.leaves), frame[72..104]);
        closing.try_into().expect("32 bytes")
    }

    fn of_type<'l>(&'l self, wanted: &'l str) -> impl Iterator<Item = &'l Value> {
        self.entries.iter().filter(move |entry| entry["type"] == wanted)
    }
}

/// The key's name and its 32 bytes.
fn verifier_key(text: &str) -> (String, Vec<u8>) {
    let parts: Vec<_> = text.trim_end().splitn(3, '+').collect();
    let key = STANDARD.decode(parts[2]).expect("base64");
    assert_eq!(key[0], 1);
    let id = sha256(&[parts[0].as_bytes(), b"\n", &key]);
    assert!(named(id).starts_with(&format!("sha-256:{}", parts[1])));
    (parts[0].to_owned(), key[1..].to_vec())
}

fn check_checkpoint(note: &str, name: &str, key: &[u8], log: &Log) {
    let (lines, signature) = note.split_once("\n\n").expect("an empty line");
    let text = format!("{lines}\n");
    let line: Vec<_> = signature.trim_end().split(' ').collect();
    assert_eq!((line[0], line[1]), ("\u{2014}", name));
    let signed = STANDARD.decode(line[2]).expect("base64");
    UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signed[4..]).expect("signed");
    let [origin, size, signed_root] = lines.split('\n').collect::<Vec<_>>()[..] else {
        panic!("three lines")
    };
    assert_eq!((origin, size), (name, log.leaves.len().to_string().as_str()));
    assert_eq!(STANDARD.decode(signed_root).expect("base64"), root(&log.leaves));
}

#[test]
fn the_formats_document_is_enough_to_check_a_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("demo");
    let demo = Command::new(env!("CARGO_BIN_EXE_interlock")).arg("demo").arg("--dir").arg(&place).output();
    assert!(demo.expect("the binary runs").status.success());
    let text = |name: &str| fs::read_to_string(place.join(name)).expect("a file");

    let (name, key) = verifier_key(&text("log.vkey"));
    let log = Log::read(&place.join("ledger"), &name);
    check_checkpoint(&text("ledger/checkpoint"), &name, &key, &log);

    let mut permits = 0;
    for decision in log.of_type("decision") {
        let input = decision["evaluation"]["input_digest"].as_str().expect("a digest");
        assert!(log.evidence.contains_key(input), "the policy input is in the log");
        if decision["decision"] == "PERMIT" {
            permits += 1;
            let outcomes: Vec<_> =
                log.of_type("outcome").filter(|o| o["decision_id"] == decision["id"]).collect();
            let by = |o: &Value| o["attestation"].as_str().expect("a text").to_owned();
            assert_eq!(by(outcomes.first().expect("one")), "gateway", "{decision}");
            if let Some(later) = outcomes.get(1) {
                assert!(outcomes[0]["status"] == "indeterminate" && by(later) != "gateway", "{decision}");
            }
            assert!(outcomes.len() <= 2, "{decision}");
            for outcome in outcomes {
                let answer = outcome["answer_digest"].as_str();
                assert!(answer.is_none_or(|digest| log.evidence.contains_key(digest)), "{outcome}");
            }
        }
    }
    let of_gateway = log.of_type("outcome").filter(|o| o["attestation"] == "gateway");
    assert_eq!(permits, of_gateway.count());
    for policy in log.of_type("policy") {
        // Members in RFC 8785 order, as serde_json keeps them.
        let construction = serde_json::json!({
            "construction": "interlock-policy-revision-v1", "engine": policy["engine"], "files": policy["files"],
        });
        assert_eq!(policy["revision"], named(sha256(&[construction.to_string().as_bytes()])));
        for file in policy["files"].as_array().expect("a list") {
            let path = format!("policies/{}", file["name"].as_str().expect("a name"));
            assert_eq!(file["sha256"], named(sha256(&[text(&path).as_bytes()])));
            let recorded = log.evidence.get(file["sha256"].as_str().expect("a digest"));
            assert_eq!(recorded.map(Vec::as_slice), Some(text(&path).as_bytes()), "the bundle is in the log");
        }
    }

    // The message of the demo's first request, with the secret's name in place of the secret.
    let config = text("interlock.yaml");
    let upstream = config.split("url: \"http://").nth(1).and_then(|rest| rest.split('"').next());
    let body = r#"{"amount":4200,"currency":"EUR","customer":"cus_1"}"#;
    let message = format!(
        "POST /v1/charges HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {{credential:upstream-key}}\r\n\
         content-length: {}\r\ncontent-type: application/json\r\n\r\n{body}",
        upstream.expect("an address"),
        body.len()
    );
    let first = log.of_type("decision").next().expect("a decision");
    assert_eq!(first["request"]["digest"], named(sha256(&[message.as_bytes()])));
}
