//! The log as the auditor reads it: from the bytes of the disk, by what `docs/RECEIPTS.md` says of them, with nothing of
//! the code that wrote them.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8] = b"ILKFRAME";
const HEADER: usize = 104;
const BLOCK: usize = 4_096;

/// What one frame holds.
pub struct Frame {
    pub first: u64,
    pub entries: Vec<Vec<u8>>,
    /// By digest, hex.
    pub evidence: BTreeMap<String, Vec<u8>>,
}

/// All frames in these bytes of a segment, from its beginning up to where none follows.
pub fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut all = Vec::new();
    let mut at = 0;
    while bytes.get(at..at + HEADER).is_some_and(|header| header.starts_with(MAGIC)) {
        let frame = &bytes[at..];
        let number = |from: usize, length: usize| {
            frame[from..from + length].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let (length, first, count) = (number(12, 4) as usize, number(16, 8), number(24, 4));
        let (entries_bytes, records) = (number(28, 4) as usize, number(32, 4));
        let mut entries = Vec::new();
        let mut place = HEADER;
        for _ in 0..count {
            let length = number(place, 2) as usize;
            entries.push(frame[place + 2..place + 2 + length].to_vec());
            place += 2 + length;
        }
        assert_eq!(place, HEADER + entries_bytes, "the entries take what the header says");
        let mut evidence = BTreeMap::new();
        for _ in 0..records {
            let length = number(place + 32, 4) as usize;
            let content = frame[place + 36..place + 36 + length].to_vec();
            assert_eq!(
                Sha256::digest(&content)[..],
                frame[place..place + 32],
                "evidence is what its digest names"
            );
            evidence.insert(sha256(&content), content);
            place += 36 + length;
        }
        all.push(Frame { first, entries, evidence });
        at += length.div_ceil(BLOCK) * BLOCK;
    }
    all
}

/// `sha-256:` and hex, as leaves write it.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha-256:{}", super::journal::hex(&Sha256::digest(bytes)))
}

/// RFC 6962.
pub fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// An entry of the log.
pub struct Leaf {
    pub bytes: Vec<u8>,
    pub json: Value,
    /// The policy input that a decision was made on.
    pub input: Option<Value>,
    /// Place in the journal at which the disk said that it is durable; `None`: it never did.
    pub durable: Option<usize>,
}

impl Leaf {
    /// The text at these members, one below the other.
    pub fn text(&self, path: &[&str]) -> Option<&str> {
        path.iter().try_fold(&self.json, |value, member| value.get(member))?.as_str()
    }

    pub fn is(&self, kind: &str) -> bool {
        self.text(&["type"]) == Some(kind)
    }
}

/// RFC 3339, as nanoseconds since 1970.
pub fn unix_ns(text: &str) -> i128 {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    time.expect("a time").unix_timestamp_nanos()
}
