//! What stands beside the leaves of one frame, by digest.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::merkle::frame::Frame;
use crate::model::Digest;
use crate::model::entry::Entry;

/// A frame's evidence. That the bytes have their digests was checked when the frame was read; that they stand in
/// the order of the leaves is `verify`'s question.
pub struct Records<'f> {
    frame: &'f Frame<'f>,
    by_digest: BTreeMap<Digest, &'f [u8]>,
    stray: OnceCell<Option<Digest>>,
}

impl<'f> Records<'f> {
    pub fn of(frame: &'f Frame<'f>) -> Self {
        let by_digest = frame.evidence.iter().map(|record| (record.digest, record.bytes)).collect();
        Self { frame, by_digest, stray: OnceCell::new() }
    }

    pub fn get(&self, digest: &Digest) -> Option<&'f [u8]> {
        self.by_digest.get(digest).copied()
    }

    /// A record that no leaf of the frame names: what stands in the place of one that is missing. Read once, however
    /// many are missing.
    pub fn stray(&self) -> Option<Digest> {
        *self.stray.get_or_init(|| {
            let named: BTreeSet<_> = self.frame.entries.iter().flat_map(|entry| named(entry)).collect();
            self.by_digest.keys().find(|digest| !named.contains(digest)).copied()
        })
    }
}

fn named(entry: &[u8]) -> Vec<Digest> {
    match Entry::from_bytes_unverified(entry) {
        Ok(Entry::Decision(d)) => vec![d.evaluation.input_digest],
        Ok(Entry::Policy(p)) => p.files.iter().map(|file| file.sha256).collect(),
        Ok(Entry::Outcome(o)) => o.answer_digest.into_iter().collect(),
        Ok(Entry::Admin(_) | Entry::Epoch(_) | Entry::Heartbeat(_) | Entry::Key(_) | Entry::Refusal(_))
        | Err(_) => Vec::new(),
    }
}
