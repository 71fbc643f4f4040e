//! The spare segment: room that is taken before it is needed, and filled with zeros while it waits.
//!
//! A frame in room that was only preallocated costs more to make durable: the file system must note in its journal that
//! the room is used now, and with that it writes what other threads just wrote elsewhere. So zeros are written over the
//! spare in the background, in pieces of [`limits::SPARE_PIECE_BYTES`]. Promises: the room is there when
//! [`Spare::create`] returns, filled or not; and no zero is ever written to a file that has a segment's name.
//!
//! | after this step | a crash leaves |
//! |---|---|
//! | room taken, durable | a spare that reads as zeros |
//! | a piece written and synced | the same; the next start goes on behind it |
//! | renamed | a segment that reads as zeros |

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, fstatfs, seek};
use rustix::io::Errno;

use super::storage::{STAT_BLOCK_BYTES, options, remove_if_there};
use crate::limits;

const BLOCK: u64 = limits::FRAME_ALIGNMENT_BYTES as u64;
const PIECE: usize = limits::SPARE_PIECE_BYTES;
const _: () = assert!(PIECE.is_multiple_of(limits::FRAME_ALIGNMENT_BYTES));
/// `f_type` of ext2 to ext4, and of XFS, which write over a block in its place. Elsewhere a block that was written may
/// need new room to be written again, which a preallocated one does not: such a spare is not filled.
const FILLED_FILE_SYSTEMS: [u64; 2] = [0xef53, 0x5846_5342];

/// The file of this path, which is no part of the log until it is promoted.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    /// Held while zeros are written, and while the file gets another length or another name.
    filling: Mutex<Filling>,
}

#[derive(Debug)]
enum Filling {
    /// What has this path was not looked at.
    Unknown,
    Under(Fill),
    /// To its end, or as far as it goes.
    Over,
}

impl Spare {
    pub fn new(path: PathBuf) -> Self {
        Self { path, filling: Mutex::new(Filling::Unknown) }
    }

    /// Its bytes, if it is there and all of its room is taken.
    pub fn length(&self) -> io::Result<Option<u64>> {
        match fs::metadata(&self.path) {
            // A file can be as long as a segment and have no room: then a frame in it would meet a full disk.
            Ok(found) => Ok(Some(found.len()).filter(|&length| found.blocks() * STAT_BLOCK_BYTES >= length)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes room for so many bytes; durable with its name in `directory`. On failure what was there stays.
    pub fn create(&self, bytes: u64, directory: &File) -> io::Result<()> {
        let mut filling = self.filling();
        *filling = Filling::Unknown;
        match options().open(&self.path) {
            Ok(old) => {
                let length = old.metadata()?.len();
                let grown = fallocate(&old, FallocateFlags::empty(), 0, bytes);
                if let Err(error) = grown {
                    // The room that it has is still good for what was set before.
                    old.set_len(length)?;
                    return Err(error.into());
                }
                old.set_len(bytes)?;
                old.sync_all()?;
                return directory.sync_all();
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let made = options().create_new(true).open(&self.path).and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            // Length and allocation, then the name: a spare that is seen after a crash is whole.
            file.sync_all()?;
            directory.sync_all()
        });
        if made.is_err() {
            // Half a spare must not take the room that it could not get; a failure here changes nothing.
            let _ = remove_if_there(&self.path);
        }
        made
    }

    /// Writes zeros over the next piece that was never written to, durable. False if there is nothing to do. After an
    /// error the rest is left until there is another spare or another start; this one is as good as it was.
    pub fn fill(&self) -> io::Result<bool> {
        let mut filling = self.filling();
        let mut fill = match std::mem::replace(&mut *filling, Filling::Over) {
            Filling::Over => return Ok(false),
            Filling::Under(fill) => fill,
            // Past the page cache: pages of zeros that nobody reads cost more than the writing.
            Filling::Unknown => match options().custom_flags(OFlags::DIRECT.bits() as i32).open(&self.path) {
                Ok(file) => match Fill::begin(file)? {
                    Some(fill) => fill,
                    None => return Ok(false),
                },
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    *filling = Filling::Unknown;
                    return Ok(false);
                }
                // A file system without such writes.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ok(false),
                Err(e) => return Err(e),
            },
        };
        fill.write_piece()?;
        if fill.at < fill.length {
            *filling = Filling::Under(fill);
        }
        Ok(true)
    }

    /// Gives it the name of a segment, whose directory is not synced yet.
    #[expect(clippy::disallowed_methods, reason = "the ledger's storage owns its files")]
    pub fn promote(&self, segment: &Path) -> io::Result<()> {
        // The file that zeros are written to is closed before it has a segment's name, and nobody opens it as the spare
        // until it has that name.
        let mut filling = self.filling();
        *filling = Filling::Unknown;
        fs::rename(&self.path, segment)
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        // Whoever panicked here wrote zeros to the spare, and no more.
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A spare, and how much of it was written.
#[derive(Debug)]
struct Fill {
    file: File,
    length: u64,
    at: u64,
    /// More zeros than a piece, because what is written past the page cache must begin at a whole block in memory.
    zeros: Vec<u8>,
}

impl Fill {
    /// From the first place on that was never written: what is only preallocated is found as a hole.
    fn begin(file: File) -> io::Result<Option<Self>> {
        if !is_filled(&file)? {
            return Ok(None);
        }
        let length = file.metadata()?.len();
        match seek(&file, SeekFrom::Hole(0)) {
            Ok(hole) if hole < length => {
                let zeros = vec![0; PIECE + BLOCK as usize];
                Ok(Some(Self { file, length, at: hole - hole % BLOCK, zeros }))
            }
            // An empty file has no hole.
            Ok(_) | Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write_piece(&mut self) -> io::Result<()> {
        let length = (self.length - self.at).min(PIECE as u64) as usize;
        let skipped = self.zeros.as_ptr().align_offset(BLOCK as usize);
        self.file.write_all_at(&self.zeros[skipped..skipped + length], self.at)?;
        // By the piece: what a promotion leaves unsynced, the first frame would have to wait for.
        self.file.sync_data()?;
        self.at += length as u64;
        Ok(())
    }
}

fn is_filled(file: &File) -> io::Result<bool> {
    Ok(FILLED_FILE_SYSTEMS.contains(&(fstatfs(file)?.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::ledger::storage::{Disk, Storage};
    use crate::model::LeafIndex;
    use crate::verify::Source;

    const PIECE: u64 = super::PIECE as u64;
    const PIECES: u64 = 4;
    const FRAME: [u8; 4_096] = [0xab; 4_096];

    /// Whether a spare in this directory is filled at all.
    fn fills(disk: &Disk) -> bool {
        let root = disk.directory().expect("files");
        is_filled(&File::open(root).expect("a directory")).expect("a file system")
    }

    fn filled(disk: &Disk) -> u64 {
        (0..).take_while(|_| disk.fill_spare().expect("filled")).count() as u64
    }

    fn write(disk: &Disk, segment: LeafIndex) {
        for offset in (0..PIECES * PIECE).step_by(PIECE as usize / 4) {
            disk.write_at(segment, offset, &FRAME).expect("written");
        }
        disk.sync(segment).expect("synced");
    }

    fn is_whole(disk: &Disk, segment: LeafIndex) -> bool {
        let mut found = FRAME;
        (0..PIECES * PIECE).step_by(PIECE as usize / 4).all(|offset| {
            disk.read_at(segment, offset, &mut found).expect("read");
            found == FRAME
        })
    }

    /// Ends the filling also when the test fails.
    struct Stop<'s>(&'s AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn no_frame_is_overwritten_however_the_filling_races_with_the_promotion() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(dir.path()).expect("opens");
        let stop = AtomicBool::new(false);
        let rounds = 40;
        let pieces = thread::scope(|scope| {
            let filling = scope.spawn(|| {
                let mut pieces = 0;
                while !stop.load(Ordering::Relaxed) {
                    pieces += u64::from(disk.fill_spare().expect("filled"));
                }
                pieces
            });
            let stopping = Stop(&stop);
            for round in 0..rounds {
                disk.create_spare(PIECES * PIECE).expect("room");
                // From before the first piece to after the last one.
                thread::sleep(Duration::from_micros(500 * (round % 20)));
                disk.promote_spare(LeafIndex(round)).expect("promoted");
                write(&disk, LeafIndex(round));
                assert!(is_whole(&disk, LeafIndex(round)), "round {round}");
            }
            drop(stopping);
            filling.join().expect("no panic")
        });
        for round in 0..rounds {
            assert!(is_whole(&disk, LeafIndex(round)), "round {round}, afterwards");
        }
        assert!(!fills(&disk) || (1..rounds * PIECES).contains(&pieces), "{pieces}: some, and not all");
    }

    #[test]
    fn a_spare_is_filled_once_to_its_length_and_goes_on_after_a_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::open(dir.path()).expect("opens");
        assert_eq!(filled(&disk), 0, "there is none");
        if !fills(&disk) {
            return;
        }
        disk.create_spare(PIECES * PIECE).expect("room");
        assert!(disk.fill_spare().expect("filled"));
        drop(disk);
        let disk = Disk::open(dir.path()).expect("opens");
        assert_eq!(filled(&disk), PIECES - 1);
        assert_eq!(disk.spare_length().expect("there"), Some(PIECES * PIECE));
        drop(disk);
        let disk = Disk::open(dir.path()).expect("opens");
        assert_eq!(filled(&disk), 0, "all of it was");
        for (pieces, left) in [(PIECES - 1, 0), (PIECES + 1, 2)] {
            disk.create_spare(pieces * PIECE).expect("room");
            assert_eq!(filled(&disk), left);
            assert_eq!(disk.spare_length().expect("there"), Some(pieces * PIECE));
        }
        disk.promote_spare(LeafIndex(0)).expect("promoted");
        assert_eq!(filled(&disk), 0, "it is no spare any more");
    }
}
