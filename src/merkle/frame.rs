//! Frames: the write-ahead form of the log, one per group commit. All integers are big-endian.
//!
//! | offset | bytes | field |
//! |-------:|------:|-------|
//! | 0   | 8  | magic, `ILKFRAME` |
//! | 8   | 2  | version, 2 |
//! | 10  | 2  | zero |
//! | 12  | 4  | frame length: bytes from the magic up to and with the closing digest, without padding |
//! | 16  | 8  | index of the first entry |
//! | 24  | 4  | number of entries, at least 1 |
//! | 28  | 4  | bytes of the entries section |
//! | 32  | 4  | number of evidence records |
//! | 36  | 4  | bytes of the evidence section |
//! | 40  | 32 | closing digest of the previous frame; of the first frame, [`genesis`] of the log's name |
//! | 72  | 32 | root of the tree after this frame |
//! | 104 | .. | entries, each `u16 length, bytes`, exactly as in a C2SP entry bundle |
//! | ..  | .. | evidence, each `SHA-256 of the bytes, u32 length, bytes`; not in the tree, in the order of the entries that name it |
//! | ..  | 32 | seal: HMAC-SHA-256 by the log's [`FrameKey`] over the SHA-256 of all before it |
//! | ..  | 32 | closing digest: SHA-256 of all before it |
//!
//! Zero bytes follow up to the next multiple of 4,096, where the next frame may start: no later write
//! touches a block that holds acknowledged leaves. Decoding checks every bound before it allocates.
//!
//! The seal is for whoever holds the signing key: a start signs nothing that the last run did not write. Anybody
//! else sees that it was not changed since, and trusts the checkpoint's signature instead.

use std::fmt;

use ring::hmac;

use crate::limits;
use crate::model::{Digest, Digester, LeafIndex, LogOrigin};

pub const MAGIC: [u8; 8] = *b"ILKFRAME";
pub const VERSION: u16 = 2;
pub const HEADER_BYTES: usize = 104;
const DIGEST_BYTES: usize = 32;
/// Seal and closing digest.
const TRAILER_BYTES: usize = 2 * DIGEST_BYTES;
const ENTRY_HEADER_BYTES: usize = 2;
/// 32 bytes and more.
const TAG_PREFIX: &[u8] = b"interlock-beside-the-frames-v1\n\n";
const _: () = assert!(TAG_PREFIX.len() >= DIGEST_BYTES);
const EVIDENCE_HEADER_BYTES: usize = DIGEST_BYTES + 4;

/// What the first frame of a log names as its previous one: logs of different names cannot be mixed.
pub fn genesis(origin: &LogOrigin) -> Digest {
    Digest::of(format!("interlock-frames-v1\n{origin}\n").as_bytes())
}

/// Seals frames. Known only to who can sign for the log: derived from the signing key, see [`super::note::Signer`].
pub struct FrameKey(hmac::Key);

impl FrameKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn seal(&self, content: &Digest) -> [u8; DIGEST_BYTES] {
        let mut seal = [0; DIGEST_BYTES];
        seal.copy_from_slice(hmac::sign(&self.0, content.as_bytes()).as_ref());
        seal
    }

    /// For what the log's own next start reads beside the frames, such as a restart point. Not a seal: what is sealed
    /// is 32 bytes long, and this never is.
    pub fn tag(&self, bytes: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut tag = [0; DIGEST_BYTES];
        tag.copy_from_slice(hmac::sign(&self.0, &[TAG_PREFIX, bytes].concat()).as_ref());
        tag
    }

    /// Whether [`FrameKey::tag`] of this key made it.
    pub fn tagged(&self, bytes: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, &[TAG_PREFIX, bytes].concat(), tag).is_ok()
    }

    /// Whether this key sealed the frame.
    pub fn sealed(&self, frame: &Frame<'_>) -> bool {
        hmac::verify(&self.0, frame.content.as_bytes(), frame.seal).is_ok()
    }
}

/// Never shows the key.
impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameKey")
    }
}

/// Bytes that stand beside the log, named by digest in an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence<'f> {
    pub digest: Digest,
    pub bytes: &'f [u8],
}

/// A frame to be written. The closing digest is made by [`encode`].
#[derive(Clone, Debug)]
pub struct FrameParts<'f> {
    pub first: LeafIndex,
    pub previous: Digest,
    pub root: Digest,
    pub entries: Vec<&'f [u8]>,
    pub evidence: Vec<Evidence<'f>>,
}

/// A frame whose lengths and closing digest were checked. Its chain and root are the reader's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'f> {
    pub first: LeafIndex,
    pub previous: Digest,
    pub root: Digest,
    pub entries: Vec<&'f [u8]>,
    pub evidence: Vec<Evidence<'f>>,
    /// Over what was sealed; see [`FrameKey::sealed`].
    content: Digest,
    seal: &'f [u8],
    /// The closing digest; the next frame names it.
    pub digest: Digest,
    /// Bytes on disk, padding included.
    pub padded_bytes: usize,
}

/// What is wrong with bytes that should be a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("no frame starts here")]
    Magic,
    #[error("an unknown frame version")]
    Version,
    #[error("the header's lengths disagree or are out of bounds")]
    Lengths,
    #[error("the frame ends before its length")]
    Short,
    #[error("the closing digest does not match")]
    Digest,
    #[error("the entries do not fill their section")]
    Entries,
    #[error("the evidence does not fill its section")]
    EvidenceSection,
    #[error("an evidence record does not match its digest")]
    EvidenceDigest,
    #[error("bytes between the frame and the next block are not zero")]
    Padding,
}

/// Bytes that an entry takes in a frame.
pub const fn entry_cost(entry_bytes: usize) -> usize {
    ENTRY_HEADER_BYTES + entry_bytes
}

/// Bytes that an evidence record takes in a frame.
pub const fn evidence_cost(bytes: usize) -> usize {
    EVIDENCE_HEADER_BYTES + bytes
}

/// Bytes on disk of a frame whose sections have this many bytes together.
pub const fn padded_length(section_bytes: usize) -> usize {
    (HEADER_BYTES + section_bytes + TRAILER_BYTES).next_multiple_of(limits::FRAME_ALIGNMENT_BYTES)
}

/// Writes a frame with its padding; returns it with its closing digest.
pub fn encode(parts: &FrameParts<'_>, key: &FrameKey) -> (Vec<u8>, Digest) {
    let entries_bytes: usize = parts.entries.iter().map(|e| entry_cost(e.len())).sum();
    let evidence_bytes: usize = parts.evidence.iter().map(|e| evidence_cost(e.bytes.len())).sum();
    let length = HEADER_BYTES + entries_bytes + evidence_bytes + TRAILER_BYTES;
    assert!((1..=limits::FRAME_ENTRIES_MAX).contains(&parts.entries.len()), "a frame has 1 to 4,096 entries");
    assert!(length <= limits::FRAME_BYTES_MAX, "a batch is bounded before it is encoded");

    let mut out = Vec::with_capacity(padded_length(entries_bytes + evidence_bytes));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    // The bound asserted above is below u32::MAX (limits.rs), so none of these is cut.
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&parts.first.0.to_be_bytes());
    out.extend_from_slice(&(parts.entries.len() as u32).to_be_bytes());
    out.extend_from_slice(&(entries_bytes as u32).to_be_bytes());
    out.extend_from_slice(&(parts.evidence.len() as u32).to_be_bytes());
    out.extend_from_slice(&(evidence_bytes as u32).to_be_bytes());
    out.extend_from_slice(parts.previous.as_bytes());
    out.extend_from_slice(parts.root.as_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    for entry in &parts.entries {
        let length =
            u16::try_from(entry.len()).expect("entries over 65,535 bytes are refused before queueing");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(entry);
    }
    for record in &parts.evidence {
        out.extend_from_slice(record.digest.as_bytes());
        out.extend_from_slice(&(record.bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(record.bytes);
    }
    let mut digester = Digester::new();
    digester.update(&out);
    let seal = key.seal(&digester.clone().finish());
    digester.update(&seal);
    let digest = digester.finish();
    out.extend_from_slice(&seal);
    out.extend_from_slice(digest.as_bytes());
    debug_assert_eq!(out.len(), length);
    out.resize(length.next_multiple_of(limits::FRAME_ALIGNMENT_BYTES), 0);
    (out, digest)
}

/// What the first [`HEADER_BYTES`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes to read for the whole frame, padding included; at most the bound of limits.rs.
    pub padded_bytes: usize,
    /// Index of the first entry.
    pub first: LeafIndex,
    length: usize,
    count: usize,
    entries_bytes: usize,
    evidence_count: usize,
    evidence_bytes: usize,
}

impl Header {
    /// Index after the last entry.
    pub fn end(&self) -> LeafIndex {
        LeafIndex(self.first.0 + self.count as u64)
    }
}

/// Reads and bounds a header. `bytes` holds at least [`HEADER_BYTES`], or the frame is short.
pub fn decode_header(bytes: &[u8]) -> Result<Header, FrameError> {
    let mut r = Reader(bytes);
    if r.array::<8>() != Some(MAGIC) {
        return Err(FrameError::Magic);
    }
    let (version, reserved) = (r.u16().ok_or(FrameError::Short)?, r.u16().ok_or(FrameError::Short)?);
    if version != VERSION || reserved != 0 {
        return Err(FrameError::Version);
    }
    let length = r.length().ok_or(FrameError::Short)?;
    let first = LeafIndex(r.u64().ok_or(FrameError::Short)?);
    let mut next = || r.length().ok_or(FrameError::Short);
    let (count, entries_bytes, evidence_count, evidence_bytes) = (next()?, next()?, next()?, next()?);

    let bounded = length <= limits::FRAME_BYTES_MAX
        && (1..=limits::FRAME_ENTRIES_MAX).contains(&count)
        && evidence_count <= evidence_bytes / EVIDENCE_HEADER_BYTES
        && first.0.checked_add(count as u64).is_some();
    let sum = HEADER_BYTES as u64 + entries_bytes as u64 + evidence_bytes as u64 + TRAILER_BYTES as u64;
    if !bounded || sum != length as u64 {
        return Err(FrameError::Lengths);
    }
    let padded_bytes = length.next_multiple_of(limits::FRAME_ALIGNMENT_BYTES);
    Ok(Header { padded_bytes, first, length, count, entries_bytes, evidence_count, evidence_bytes })
}

/// Reads the frame at the start of `bytes`, padding included.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let header = decode_header(bytes)?;
    let padded = bytes.get(..header.padded_bytes).ok_or(FrameError::Short)?;
    let (frame, padding) = padded.split_at(header.length);
    let (sealed, closing) = frame.split_at(header.length - DIGEST_BYTES);
    let (content, seal) = sealed.split_at(header.length - TRAILER_BYTES);
    let mut digester = Digester::new();
    digester.update(content);
    let content_digest = digester.clone().finish();
    digester.update(seal);
    let digest = digester.finish();
    if digest.as_bytes() != closing {
        return Err(FrameError::Digest);
    }
    if padding.iter().any(|&b| b != 0) {
        return Err(FrameError::Padding);
    }
    let mut r = Reader(&content[40..]);
    let previous = r.digest().ok_or(FrameError::Short)?;
    let root = r.digest().ok_or(FrameError::Short)?;
    let (entries, evidence) = content[HEADER_BYTES..].split_at(header.entries_bytes);
    Ok(Frame {
        first: header.first,
        previous,
        root,
        entries: decode_entries(entries, header.count)?,
        evidence: decode_evidence(evidence, header.evidence_count)?,
        content: content_digest,
        seal,
        digest,
        padded_bytes: header.padded_bytes,
    })
}

/// What a frame holds, without its digests.
#[derive(Clone, Debug)]
pub struct Sections<'f> {
    pub first: LeafIndex,
    pub root: Digest,
    pub entries: Vec<&'f [u8]>,
    pub evidence: Vec<Evidence<'f>>,
}

/// Takes apart the bytes of a frame that [`decode`] has accepted, without computing its digests a second time.
pub fn sections_of_decoded(bytes: &[u8]) -> Result<Sections<'_>, FrameError> {
    let header = decode_header(bytes)?;
    let content = bytes.get(..header.length - TRAILER_BYTES).ok_or(FrameError::Short)?;
    let root = Reader(&content[72..]).digest().ok_or(FrameError::Short)?;
    let (entries, evidence) = content[HEADER_BYTES..].split_at(header.entries_bytes);
    let mut records = Vec::with_capacity(header.evidence_count);
    let mut r = Reader(evidence);
    for _ in 0..header.evidence_count {
        records.push(r.evidence().ok_or(FrameError::EvidenceSection)?);
    }
    Ok(Sections {
        first: header.first,
        root,
        entries: decode_entries(entries, header.count)?,
        evidence: records,
    })
}

fn decode_entries(section: &[u8], count: usize) -> Result<Vec<&[u8]>, FrameError> {
    let mut r = Reader(section);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let length = r.u16().ok_or(FrameError::Entries)?;
        entries.push(r.take(usize::from(length)).ok_or(FrameError::Entries)?);
    }
    if r.0.is_empty() { Ok(entries) } else { Err(FrameError::Entries) }
}

fn decode_evidence(section: &[u8], count: usize) -> Result<Vec<Evidence<'_>>, FrameError> {
    let mut r = Reader(section);
    let mut evidence = Vec::with_capacity(count);
    for _ in 0..count {
        let record = r.evidence().ok_or(FrameError::EvidenceSection)?;
        if Digest::of(record.bytes) != record.digest {
            return Err(FrameError::EvidenceDigest);
        }
        evidence.push(record);
    }
    if r.0.is_empty() { Ok(evidence) } else { Err(FrameError::EvidenceSection) }
}

/// Takes bytes off the front, or nothing.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, n: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A u32, as the lengths and counts of a frame are.
    fn length(&mut self) -> Option<usize> {
        self.array().map(|b| u32::from_be_bytes(b) as usize)
    }

    fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest::from_bytes)
    }

    fn evidence(&mut self) -> Option<Evidence<'b>> {
        let digest = self.digest()?;
        let length = self.length()?;
        Some(Evidence { digest, bytes: self.take(length)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Vec<u8>, Digest) {
        let input = b"{\"input\":1}";
        encode(
            &FrameParts {
                first: LeafIndex(7),
                previous: genesis(&"example.org/log".parse().expect("a name")),
                root: Digest::of(b"root"),
                entries: vec![b"{\"a\":1}", b""],
                evidence: vec![Evidence { digest: Digest::of(input), bytes: input }],
            },
            &FrameKey::new(&[7; 32]),
        )
    }

    /// Replaces bytes and closes the frame again, so that only the changed field can be at fault.
    fn reclosed(at: usize, with: &[u8]) -> Vec<u8> {
        let (mut bytes, _) = sample();
        let length = decode_header(&bytes).expect("a frame").length;
        bytes[at..at + with.len()].copy_from_slice(with);
        let digest = Digest::of(&bytes[..length - DIGEST_BYTES]);
        bytes[length - DIGEST_BYTES..length].copy_from_slice(digest.as_bytes());
        bytes
    }

    #[test]
    fn a_frame_has_its_golden_bytes_and_reads_back() {
        let (bytes, digest) = sample();
        assert_eq!(bytes, include_bytes!("../../tests/golden/frame.bin"));
        let frame = decode(&bytes).expect("a frame");
        assert_eq!((frame.first, frame.digest, frame.padded_bytes), (LeafIndex(7), digest, 4_096));
        assert_eq!(frame.entries, [&b"{\"a\":1}"[..], b""]);
        assert_eq!(frame.evidence[0].bytes, b"{\"input\":1}");
        assert_eq!(frame.root, Digest::of(b"root"));
        assert_eq!(bytes.len(), padded_length(entry_cost(7) + entry_cost(0) + evidence_cost(11)));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let (bytes, _) = sample();
        for at in (0..400).chain([4_095]) {
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[at] ^= 1 << bit;
                assert!(decode(&bent).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn each_check_refuses_on_its_own() {
        let u32s = |n: u32| n.to_be_bytes();
        let (bytes, _) = sample();
        assert_eq!(decode(&reclosed(0, b"X")), Err(FrameError::Magic));
        assert_eq!(decode(&reclosed(9, &[1])), Err(FrameError::Version));
        assert_eq!(decode(&reclosed(11, &[1])), Err(FrameError::Version));
        assert_eq!(decode(&reclosed(24, &u32s(0))), Err(FrameError::Lengths));
        assert_eq!(decode(&reclosed(24, &u32s(4_097))), Err(FrameError::Lengths));
        assert_eq!(decode(&reclosed(16, &u64::MAX.to_be_bytes())), Err(FrameError::Lengths));
        assert_eq!(decode(&reclosed(28, &u32s(10))), Err(FrameError::Lengths));
        assert_eq!(decode(&reclosed(28, &u32s(u32::MAX))), Err(FrameError::Lengths));
        assert_eq!(decode(&reclosed(32, &u32s(2))), Err(FrameError::Lengths));
        assert_eq!(decode(&reclosed(24, &u32s(1))), Err(FrameError::Entries));
        assert_eq!(decode(&reclosed(24, &u32s(3))), Err(FrameError::Entries));
        assert_eq!(decode(&reclosed(32, &u32s(0))), Err(FrameError::EvidenceSection));
        let evidence_at = HEADER_BYTES + entry_cost(7) + entry_cost(0);
        assert_eq!(decode(&reclosed(evidence_at, &[0])), Err(FrameError::EvidenceDigest));
        assert_eq!(decode(&bytes[..4_095]), Err(FrameError::Short));
        assert_eq!(decode(&bytes[..50]), Err(FrameError::Short));
        assert_eq!(decode(&bytes[..20]), Err(FrameError::Short));
        let mut padded = bytes;
        padded[4_095] = 1;
        assert_eq!(decode(&padded), Err(FrameError::Padding));
    }

    #[test]
    fn lengths_past_the_bound_are_refused_before_anything_is_read() {
        let mut bytes = reclosed(12, &u32::MAX.to_be_bytes());
        bytes[28..32].copy_from_slice(&(u32::MAX - HEADER_BYTES as u32 - 64 - 47).to_be_bytes());
        assert_eq!(decode_header(&bytes), Err(FrameError::Lengths));
    }

    #[test]
    fn a_tag_is_by_one_key_over_some_bytes_and_never_a_seal() {
        let key = FrameKey::new(&[7; 32]);
        let tag = key.tag(b"some");
        assert!(key.tagged(b"some", &tag));
        assert!(!key.tagged(b"same", &tag) && !key.tagged(b"some", &tag[1..]));
        assert!(!FrameKey::new(&[8; 32]).tagged(b"some", &tag));
        let content = Digest::of(b"content");
        assert_ne!(key.seal(&content), key.tag(content.as_bytes()));
    }

    #[test]
    fn logs_of_different_names_begin_differently() {
        let name = |n: &str| genesis(&n.parse().expect("a name"));
        assert_ne!(name("a"), name("b"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
            evidence in prop::option::of(prop::collection::vec(any::<u8>(), 0..9_000)),
            first in 0..u64::MAX / 2,
        ) {
            let parts = FrameParts {
                first: LeafIndex(first),
                previous: Digest::of(b"previous"),
                root: Digest::of(b"root"),
                entries: entries.iter().map(Vec::as_slice).collect(),
                evidence: evidence.iter().map(|b| Evidence { digest: Digest::of(b), bytes: b }).collect(),
            };
            let key = FrameKey::new(&[1; 32]);
            let (bytes, digest) = encode(&parts, &key);
            prop_assert_eq!(bytes.len() % limits::FRAME_ALIGNMENT_BYTES, 0);
            let frame = decode(&bytes).expect("a frame");
            prop_assert!(key.sealed(&frame) && !FrameKey::new(&[2; 32]).sealed(&frame));
            prop_assert_eq!(frame.digest, digest);
            prop_assert_eq!(frame.entries, parts.entries);
            prop_assert_eq!(frame.evidence, parts.evidence);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&[&MAGIC[..], &bytes].concat());
            let _ = decode(&bytes);
        }
    }
}
