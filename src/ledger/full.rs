//! What becomes of a segment that is full: a restart point where the next one begins, and its sealed form.
//!
//! The archiver tells of every frame that it reads. What it remembers across a restart lies in files that anybody with
//! access may change, so a restart point is made of none of it: its fold begins with what recovery found, and goes on
//! only over frames that this run's key sealed.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::archive::Boundary;
use super::recovery::{Fold, Glance};
use super::restart::{self, RestartPoint};
use super::seal::Sealing;
use super::storage::Storage;
use crate::merkle::frame::{Frame, FrameKey};
use crate::model::{LeafIndex, LogOrigin, TreeSize};

pub struct FullSegments {
    storage: Arc<dyn Storage>,
    origin: LogOrigin,
    frame_key: FrameKey,
    sealing: Arc<Sealing>,
    /// `None` once it read what this run did not write.
    known: Mutex<Option<Known>>,
}

/// The leaves so far.
struct Known {
    size: TreeSize,
    fold: Fold,
}

impl FullSegments {
    /// `size` and `fold` are what recovery found.
    pub fn new(
        storage: Arc<dyn Storage>,
        origin: LogOrigin,
        frame_key: FrameKey,
        sealing: Arc<Sealing>,
        (size, fold): (TreeSize, Fold),
    ) -> Self {
        Self { storage, origin, frame_key, sealing, known: Mutex::new(Some(Known { size, fold })) }
    }

    /// A frame that was read, before anything is told of its entries.
    pub fn frame(&self, frame: &Frame<'_>) {
        let mut known = self.known();
        let end = frame.first.0 + frame.entries.len() as u64;
        if known.as_ref().is_some_and(|known| end > known.size.0) && !self.frame_key.sealed(frame) {
            tracing::error!(first = %frame.first, "a frame of this run was changed: no more restart points");
            *known = None;
        }
    }

    /// The entry at this index. One that was read before is passed over.
    pub fn entry(&self, index: LeafIndex, glance: &Glance) {
        let mut known = self.known();
        let Some(Known { size, fold }) = known.as_mut().filter(|known| known.size.0 == index.0) else {
            return;
        };
        size.0 += 1;
        if let Err(why) = fold.apply(index, glance) {
            tracing::error!(%index, why, "an entry of this run cannot be read: no more restart points");
            *known = None;
        }
    }

    /// The walk went over from this segment into the next one, whose first frame was told of.
    pub fn passed(&self, segment: LeafIndex, boundary: &Boundary) {
        self.sealing.passed(segment);
        if let Err(error) = self.keep_restart_point(boundary) {
            // The next start reads more.
            tracing::warn!(%error, first = %boundary.first, "a restart point was not written");
        }
    }

    fn keep_restart_point(&self, boundary: &Boundary) -> io::Result<()> {
        let Boundary { first, edge, chain, fold: _ } = boundary;
        let fold = match &*self.known() {
            Some(known) if known.size.0 == first.0 => known.fold.clone(),
            Some(_) | None => return Ok(()),
        };
        let point = RestartPoint { first: *first, edge: edge.clone(), chain: *chain, fold };
        restart::keep(&*self.storage, &self.origin, &self.frame_key, &point)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
