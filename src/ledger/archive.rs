//! The archive: what is read of the log, derived from its frames behind the committer's back.
//!
//! One thread follows the durable frames, up to the newest signed checkpoint and never past it (`session`), from memory
//! where the committer handed them over (`feed`) and from the disk where not, and writes
//! tiles and entry bundles (`tiles`, C2SP tlog-tiles) and an index (`index`). It then publishes a
//! [`super::Snapshot`]: that checkpoint, and what is in no full tile yet. All reading goes through it.
//!
//! | after this step | a crash leaves |
//! |---|---|
//! | a full tile is written under a temporary name | the temporary file, replaced by the next one |
//! | it is renamed | a tile that may not be durable; it is written again if it is not what it should be |
//! | files and directories are synced | tiles past the position: written again, the same bytes |
//! | the position moves, with the index rows before it | nothing to do |
//!
//! The frames are the truth. An error here is logged, counted and tried again after a while; it never reaches the
//! ledger. Where index or tiles do not fit the frames, all of it is made again from the first frame on.

mod feed;
mod index;
mod seen;
mod session;
mod tiles;

#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use feed::{End, Feed, Written};
pub use index::{Index, IndexError, Term, View};
pub use seen::{Seen, key_digest};
pub use session::Boundary;
pub use tiles::{TILE_DIR, TileError, Tiles};

use super::full::FullSegments;
use super::queue::Shared;
use super::statistics::Counters;
use crate::clock::Clock;
use crate::limits;
use crate::model::{Epoch, LogOrigin, TreeSize};
use crate::verify::source::Directory;
use crate::verify::walk::Damage;
use session::Session;

pub const INDEX_FILE: &str = "index.redb";

/// Why the archive does not go on. The next attempt begins at its durable position, or at the first frame.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the index cannot be used: {0}")]
    Index(#[from] IndexError),
    /// What was derived earlier does not fit the frames, or is gone.
    #[error("{0}")]
    Unfit(String),
    #[error("{}: {}", .0.spot, .0.fault)]
    Damaged(Damage),
    #[error("the frames end before the signed checkpoint of {signed} entries, at entry {found}")]
    Short { signed: u64, found: u64 },
}

impl Halt {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Whether making everything again from the frames can help.
    fn is_unfit(&self) -> bool {
        match self {
            Self::Unfit(_) | Self::Damaged(_) | Self::Short { .. } => true,
            Self::Index(error) => error.is_unfit(),
            Self::Io { what: _, source } => tiles::is_in_the_way(source),
        }
    }
}

/// Makes tiles and index of a log that nobody appends to, up to this checkpoint. False if they could not be made.
pub fn make(root: &Path, origin: &LogOrigin, clock: Clock, checkpoint: Arc<str>, size: TreeSize) -> bool {
    let feed = Feed::new(Arc::clone(&checkpoint));
    feed.offer(checkpoint);
    let shared = Arc::new(Shared::new(clock, Epoch(0), None, feed, 0, 0));
    let archiver = Archiver::new(Arc::clone(&shared), root, origin.clone(), None);
    let ended = std::thread::scope(|scope| {
        let thread = scope.spawn(|| archiver.run());
        // It begins again by itself once; more would be the same again.
        while shared.archive.archived() < size && shared.counters.read().archive_failures < 2 {
            shared.archive.pause(super::fsck::REBUILD_LOOK);
        }
        shared.archive.end(End::CatchUp);
        thread.join().is_ok()
    });
    ended && shared.archive.archived() >= size
}

/// The archiver's thread.
pub struct Archiver {
    shared: Arc<Shared>,
    root: PathBuf,
    origin: LogOrigin,
    /// None where nothing is appended.
    full: Option<Arc<FullSegments>>,
}

impl Archiver {
    pub fn new(shared: Arc<Shared>, root: &Path, origin: LogOrigin, full: Option<Arc<FullSegments>>) -> Self {
        Self { shared, root: root.to_owned(), origin, full }
    }

    /// Ends when the feed does.
    pub fn run(&self) {
        // Beginning again helps once; what is wrong after that would be wrong for ever, as fast as the disk goes.
        let mut begun_again = None;
        loop {
            let before = self.shared.archive.archived();
            // A session owns all it may leave half-done, and what it left on disk is looked at by the next.
            let ended = catch_unwind(AssertUnwindSafe(|| self.session()));
            let unfit = match ended {
                Ok(Ok(())) => return,
                Ok(Err(halt)) => {
                    tracing::warn!(error = %halt, "the archive is behind the log");
                    halt.is_unfit()
                }
                Err(_) => {
                    tracing::error!("the archive is behind the log: the archiver panicked");
                    true
                }
            };
            Counters::add(&self.shared.counters.archive_failures, 1);
            if unfit && begun_again != Some(before) {
                begun_again = Some(before);
                self.begin_again();
            } else if !self.shared.archive.pause(Duration::from_millis(limits::ARCHIVE_RETRY_MS)) {
                return;
            }
        }
    }

    /// Follows the log until the feed ends, or something is wrong.
    fn session(&self) -> Result<(), Halt> {
        let source = Directory::open(&self.root).map_err(Halt::io("the frames cannot be read"))?;
        let full = self.full.clone();
        Session::resume(Arc::clone(&self.shared), &self.root, &self.origin, full)?.follow(&source)
    }

    /// Without an index a session begins at the first frame.
    fn begin_again(&self) {
        tracing::warn!("tiles and index are made again from the frames");
        let index = self.root.join(INDEX_FILE);
        let removed = match tiles::remove_if_there(&index) {
            Err(error) if index.is_dir() => std::fs::remove_dir_all(&index).map_err(|_| error),
            removed => removed,
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "the index was not removed");
        }
    }
}
