//! The sealed form of a segment: the zstd *seekable* format, written and read.
//!
//! A file of independent zstd frames, one for each [`limits::SEALED_BLOCK_BYTES`] of the segment (the last one may
//! be shorter), each with its own content checksum; then one skippable frame, which every zstd decoder passes over:
//!
//! | bytes | field, little-endian |
//! |------:|------|
//! | 4 | `0x184D2A5E`, a skippable frame |
//! | 4 | bytes of all that follows |
//! | 8 each | of each block: bytes compressed, bytes of the segment |
//! | 4 | number of blocks |
//! | 1 | descriptor, 0: no checksums in the table |
//! | 4 | `0x8F92EAB1` |
//!
//! So `zstd -dc` gives the segment byte for byte. A file comes from strangers: all of the table is checked against
//! the file's length before a block is read, and a block is read into the bytes that the table declares and no more.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::limits;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const SKIPPABLE_HEADER_BYTES: u64 = 8;
const ENTRY_BYTES: u64 = 8;
const FOOTER_BYTES: u64 = 9;
const BLOCK: u64 = limits::SEALED_BLOCK_BYTES as u64;
/// Receipts repeat themselves: higher levels gain little and cost much.
const LEVEL: i32 = 3;

/// Bytes of a sealed file, read by position.
pub trait ReadAt {
    /// Fills the buffer, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// What is wrong with a sealed file, and where in the file itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} at byte {at}: {what}")]
pub struct Broken {
    /// Relative to the log's directory.
    pub file: String,
    /// Of the sealed file, not of the segment in it.
    pub at: u64,
    pub what: BrokenPart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenPart {
    Short,
    Footer,
    Blocks,
    Table,
    Block,
    Checksum,
}

impl fmt::Display for BrokenPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "too short for a sealed segment",
            Self::Footer => "no seek table ends here",
            Self::Blocks => "more blocks than a segment has, or none",
            Self::Table => "the seek table does not add up to the file",
            Self::Block => "a block of other sizes than sealed segments have",
            Self::Checksum => "a block that cannot be read, or not as what the table says",
        })
    }
}

impl Broken {
    /// If that is why reading failed.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// One block on its way into a sealed file.
pub struct BlockWriter(Compressor<'static>);

impl BlockWriter {
    pub fn new() -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
        Ok(Self(compressor))
    }

    /// At most [`limits::SEALED_BLOCK_BYTES`], and fewer only in the last one.
    pub fn block(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        assert!((1..=limits::SEALED_BLOCK_BYTES).contains(&bytes.len()), "blocks are cut by the caller");
        self.0.compress(bytes)
    }
}

/// The seek table for blocks of these sizes, compressed and not.
pub fn table(blocks: &[(u32, u32)]) -> Vec<u8> {
    assert!((1..=limits::SEALED_BLOCKS_MAX).contains(&blocks.len()), "a segment is bounded");
    let length = blocks.len() as u64 * ENTRY_BYTES + FOOTER_BYTES;
    let mut out = Vec::with_capacity((SKIPPABLE_HEADER_BYTES + length) as usize);
    out.extend(SKIPPABLE_MAGIC.to_le_bytes());
    // Both are bounded by `SEALED_BLOCKS_MAX`.
    out.extend((length as u32).to_le_bytes());
    for (compressed, logical) in blocks {
        out.extend(compressed.to_le_bytes());
        out.extend(logical.to_le_bytes());
    }
    out.extend((blocks.len() as u32).to_le_bytes());
    out.push(0);
    out.extend(SEEKABLE_MAGIC.to_le_bytes());
    out
}

/// A sealed segment, read by offsets in the segment. Holds its table and one block.
pub struct Seekable<R> {
    file: R,
    name: String,
    /// Where each block begins in the file, and where the last one ends.
    starts: Vec<u64>,
    length: u64,
    last: Mutex<Option<(u64, Vec<u8>)>>,
}

impl<R: ReadAt> Seekable<R> {
    /// Reads and checks the table. `name` is for messages, `file_bytes` the length of the file.
    pub fn open(file: R, name: String, file_bytes: u64) -> io::Result<Self> {
        let broken = |at, what| broken(&name, at, what);
        let smallest = SKIPPABLE_HEADER_BYTES + ENTRY_BYTES + FOOTER_BYTES;
        let footer_at = file_bytes.checked_sub(FOOTER_BYTES).filter(|_| file_bytes > smallest);
        let footer_at = footer_at.ok_or_else(|| broken(0, BrokenPart::Short))?;
        let mut footer = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        if u32_at(&footer, 5) != SEEKABLE_MAGIC || footer[4] != 0 {
            return Err(broken(footer_at, BrokenPart::Footer));
        }
        let count = u32_at(&footer, 0) as usize;
        if !(1..=limits::SEALED_BLOCKS_MAX).contains(&count) {
            return Err(broken(footer_at, BrokenPart::Blocks));
        }
        let table_bytes = SKIPPABLE_HEADER_BYTES + count as u64 * ENTRY_BYTES + FOOTER_BYTES;
        let table_at = file_bytes.checked_sub(table_bytes).ok_or_else(|| broken(0, BrokenPart::Short))?;
        // Bounded by `SEALED_BLOCKS_MAX`, and by the file.
        let mut entries = vec![0; (table_bytes - FOOTER_BYTES) as usize];
        file.read_exact_at(&mut entries, table_at)?;
        let header = (u32_at(&entries, 0), u64::from(u32_at(&entries, 4)));
        if header != (SKIPPABLE_MAGIC, table_bytes - SKIPPABLE_HEADER_BYTES) {
            return Err(broken(table_at, BrokenPart::Table));
        }
        let (mut starts, mut length) = (vec![0], 0);
        for (n, entry) in entries[SKIPPABLE_HEADER_BYTES as usize..].chunks(ENTRY_BYTES as usize).enumerate()
        {
            let (compressed, logical) = (u64::from(u32_at(entry, 0)), u64::from(u32_at(entry, 4)));
            let whole = logical == BLOCK || (n + 1 == count && (1..BLOCK).contains(&logical));
            if !whole || compressed == 0 || compressed > compress_bound(limits::SEALED_BLOCK_BYTES) as u64 {
                return Err(broken(table_at, BrokenPart::Block));
            }
            length += logical;
            starts.push(starts[n] + compressed);
        }
        // Blocks stand one after the other, so a sum that is right leaves no gap and no overlap.
        if starts[count] != table_at || length > limits::SEGMENT_BYTES_MAX {
            return Err(broken(table_at, BrokenPart::Table));
        }
        Ok(Self { file, name, starts, length, last: Mutex::new(None) })
    }

    /// Bytes of the segment.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills the buffer with bytes of the segment, or fails.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (number, within) = (at / BLOCK, (at % BLOCK) as usize);
            let block = match &mut *last {
                Some((held, block)) if *held == number => block,
                other => &mut other.insert((number, self.block(number)?)).1,
            };
            let take = (block.len() - within).min(buffer.len() - done);
            buffer[done..done + take].copy_from_slice(&block[within..within + take]);
            done += take;
        }
        Ok(())
    }

    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let n = number as usize;
        let (start, end) = (self.starts[n], self.starts[n + 1]);
        let logical = (self.length - number * BLOCK).min(BLOCK) as usize;
        let mut compressed = vec![0; (end - start) as usize];
        self.file.read_exact_at(&mut compressed, start)?;
        // Never more than the capacity, whatever the frame itself declares.
        let mut bytes = Vec::with_capacity(logical);
        let read = Decompressor::new()?.decompress_to_buffer(&compressed, &mut bytes);
        match read {
            Ok(length) if length == logical && bytes.len() == logical => Ok(bytes),
            Ok(_) | Err(_) => Err(broken(&self.name, start, BrokenPart::Checksum)),
        }
    }
}

impl<R> fmt::Debug for Seekable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seekable")
            .field("name", &self.name)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

fn broken(file: &str, at: u64, what: BrokenPart) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Broken { file: file.to_owned(), at, what })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    impl ReadAt for Vec<u8> {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let from = usize::try_from(offset).expect("in memory");
            let found = self.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(found);
            Ok(())
        }
    }

    /// A whole sealed file.
    pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
        let (mut out, mut blocks) = (Vec::new(), Vec::new());
        let mut writer = BlockWriter::new().expect("a compressor");
        for piece in bytes.chunks(limits::SEALED_BLOCK_BYTES) {
            let block = writer.block(piece).expect("compressed");
            blocks.push((block.len() as u32, piece.len() as u32));
            out.extend(block);
        }
        out.extend(table(&blocks));
        out
    }

    /// Bytes of which half can be compressed; two blocks and a bit.
    fn sample() -> Vec<u8> {
        let mut state = 7_u32;
        (0..2 * limits::SEALED_BLOCK_BYTES + 8_192)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if n % 2 == 0 { b'a' } else { (state >> 24) as u8 }
            })
            .collect()
    }

    fn open(file: Vec<u8>) -> io::Result<Seekable<Vec<u8>>> {
        let length = file.len() as u64;
        Seekable::open(file, "frames/0.frames.zst".into(), length)
    }

    fn part(error: &io::Error) -> BrokenPart {
        Broken::of(error).unwrap_or_else(|| panic!("{error}")).what
    }

    #[test]
    fn any_range_of_a_sealed_segment_reads_as_it_was() {
        let bytes = sample();
        let segment = open(sealed(&bytes)).expect("sealed");
        assert_eq!(segment.length(), bytes.len() as u64);
        let block = limits::SEALED_BLOCK_BYTES;
        for (from, to) in
            [(0, 4_096), (block - 1, block + 1), (0, bytes.len()), (bytes.len() - 1, bytes.len())]
        {
            let mut read = vec![0; to - from];
            segment.read_at(from as u64, &mut read).expect("read");
            assert!(read == bytes[from..to], "{from}..{to}");
        }
        let past = segment.read_at(bytes.len() as u64 - 1, &mut [0; 2]).expect_err("past the end");
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        assert!(segment.read_at(u64::MAX, &mut [0; 2]).is_err());
    }

    #[test]
    fn the_zstd_program_gives_the_segment_byte_for_byte() {
        let bytes = sample();
        let mut zstd = Command::new("zstd")
            .args(["-dc", "--no-progress"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("zstd is installed by `make test-tools`");
        let mut input = zstd.stdin.take().expect("piped");
        let file = sealed(&bytes);
        let writing = std::thread::spawn(move || input.write_all(&file));
        let output = zstd.wait_with_output().expect("ends");
        writing.join().expect("ends").expect("taken");
        assert!(output.status.success() && output.stdout == bytes);
    }

    /// The golden file's segment: a frame, and zeros to the end.
    fn golden_segment() -> Vec<u8> {
        let mut segment = include_bytes!("../../tests/golden/frame.bin").to_vec();
        segment.resize(limits::SEALED_BLOCK_BYTES + 256 * 1_024, 0);
        segment
    }

    /// What of a sealed file is the same whoever compresses: of each block the bytes it declares and its checksum flag, and
    /// the table but for the compressed lengths.
    fn layout(file: &[u8]) -> (Vec<(u64, bool)>, Vec<u32>) {
        let blocks = u32_at(file, file.len() - 9) as usize;
        let table_at = file.len() - (8 + 8 * blocks + 9);
        let words = |range: std::ops::Range<usize>| range.step_by(4).map(|at| u32_at(file, at));
        let entries: Vec<u32> = words(table_at + 8..file.len() - 9).collect();
        let (mut at, mut declared) = (0, Vec::new());
        for entry in entries.chunks(2) {
            assert_eq!(u32_at(file, at), 0xFD2F_B528, "a zstd frame begins at {at}");
            let size = zstd::zstd_safe::get_frame_content_size(&file[at..]).ok().flatten();
            declared.push((size.expect("its length is declared"), file[at + 4] & 0b100 != 0));
            at += entry[0] as usize;
        }
        assert_eq!(at, table_at, "blocks stand one after the other, the table behind them");
        let header = words(table_at..table_at + 8);
        let footer =
            [u32_at(file, file.len() - 9), u32::from(file[file.len() - 5]), u32_at(file, file.len() - 4)];
        (declared, header.chain(entries.iter().skip(1).step_by(2).copied()).chain(footer).collect())
    }

    /// `zstd -3` made the golden file's blocks, and a program of its own the table. What is compressed to how many bytes may
    /// change with the library; what it stands for, and how it is laid out, may not.
    #[test]
    fn a_sealed_segment_reads_and_is_laid_out_as_its_golden_file() {
        let golden = include_bytes!("../../tests/golden/sealed_segment.zst");
        let segment = golden_segment();
        let sealed_now = sealed(&segment);
        for file in [&golden[..], &sealed_now] {
            let opened = open(file.to_vec()).expect("sealed");
            assert_eq!(opened.length(), segment.len() as u64);
            let mut read = vec![1; segment.len()];
            opened.read_at(0, &mut read).expect("read");
            assert!(read == segment);
            assert!(zstd::stream::decode_all(file).expect("any decoder reads it") == segment);
        }
        let (blocks, table) = layout(golden);
        assert_eq!(blocks, [(1 << 20, true), (256 << 10, true)]);
        assert_eq!(table, [0x184D_2A5E, 25, 1 << 20, 256 << 10, 2, 0, 0x8F92_EAB1]);
        assert_eq!(layout(&sealed_now), (blocks, table));
    }

    #[test]
    fn a_table_that_does_not_fit_the_file_is_refused_before_a_block_is_read() {
        let file = sealed(&sample());
        let end = file.len();
        let table_at = end - (8 + 3 * 8 + 9);
        let changed = |at: usize, with: &[u8]| {
            let mut file = file.clone();
            file[at..at + with.len()].copy_from_slice(with);
            part(&open(file).expect_err("refused"))
        };
        let u32s = |n: u32| n.to_le_bytes();
        assert_eq!(changed(end - 4, &[0]), BrokenPart::Footer);
        assert_eq!(changed(end - 5, &[0x80]), BrokenPart::Footer);
        assert_eq!(changed(end - 9, &u32s(0)), BrokenPart::Blocks);
        assert_eq!(changed(end - 9, &u32s(u32::MAX)), BrokenPart::Blocks);
        assert_eq!(changed(end - 9, &u32s(2)), BrokenPart::Table);
        assert_eq!(changed(table_at, &[0]), BrokenPart::Table);
        assert_eq!(changed(table_at + 4, &[0]), BrokenPart::Table);
        // A block that begins inside the one before it, or leaves a gap.
        assert_eq!(changed(table_at + 8, &u32s(10)), BrokenPart::Table);
        assert_eq!(changed(table_at + 8, &u32s(0)), BrokenPart::Block);
        assert_eq!(changed(table_at + 8, &u32s(u32::MAX)), BrokenPart::Block);
        assert_eq!(changed(table_at + 12, &u32s(u32::MAX)), BrokenPart::Block);
        assert_eq!(changed(table_at + 12, &u32s(5)), BrokenPart::Block);
        assert_eq!(changed(end - 13, &u32s(0)), BrokenPart::Block);
        for cut in [0, 1, 9, 25, end - 1] {
            assert!(open(file[..cut].to_vec()).is_err(), "{cut}");
        }
        assert_eq!(part(&open([&file[1..]].concat()).expect_err("a byte is missing")), BrokenPart::Table);
    }

    #[test]
    fn a_block_that_gives_more_or_other_bytes_than_declared_is_named_with_its_place() {
        let small = vec![0; 4_096];
        let bomb = {
            let block = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("compressed");
            [block.clone(), table(&[(block.len() as u32, 4_096)])].concat()
        };
        let short = {
            let block = zstd::bulk::compress(&small, 3).expect("compressed");
            [block.clone(), table(&[(block.len() as u32, 8_192)])].concat()
        };
        for file in [bomb, short] {
            let error = open(file).expect("its table is fine").read_at(0, &mut [0]).expect_err("refused");
            assert_eq!(part(&error), BrokenPart::Checksum);
        }
        let mut flipped = sealed(&sample());
        let second = open(flipped.clone()).expect("sealed").starts[1] as usize;
        flipped[second + 1_000] ^= 1;
        let segment = open(flipped).expect("its table is fine");
        segment.read_at(0, &mut [0; 64]).expect("the first block is sound");
        let error = segment.read_at(limits::SEALED_BLOCK_BYTES as u64, &mut [0]).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("frames/0.frames.zst at byte {second}: {}", BrokenPart::Checksum)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), count in 0..5_u32) {
            let footer = [&count.to_le_bytes()[..], &[0], &SEEKABLE_MAGIC.to_le_bytes()].concat();
            for file in [bytes.clone(), [bytes, footer].concat()] {
                if let Ok(segment) = open(file) {
                    let _ = segment.read_at(0, &mut [0; 16]);
                }
            }
        }

        #[test]
        fn a_flipped_bit_never_reads_as_other_bytes(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let bytes = vec![7; 20_000];
            let mut file = sealed(&bytes);
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            let mut read = vec![0; bytes.len()];
            if let Ok(segment) = open(file)
                && segment.length() == bytes.len() as u64
                && segment.read_at(0, &mut read).is_ok()
            {
                prop_assert!(read == bytes);
            }
        }
    }
}
