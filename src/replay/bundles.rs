//! The bundles of a log by revision, from the evidence of their activations.
//!
//! A bundle is used only if its files have the digests that the leaf names, those give the revision that the leaf
//! names, and the files that decide are exactly those. The newest ones are kept; a decision names the one that was
//! active or, if it was on its way during an activation, the one before.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::records::Records;
use super::report::WhyNot;
use crate::limits;
use crate::model::Digest;
use crate::model::entry::{PolicyEntry, policy_revision};
use crate::policy::{Bundle, Offline, Sources};

/// What is known of a revision.
#[derive(Clone)]
pub enum Held {
    Ready {
        policy: Arc<Offline>,
        /// As the activation names it.
        engine: Arc<str>,
    },
    Not {
        why: WhyNot,
        what: Arc<str>,
    },
}

pub struct Bundles {
    threads: NonZeroUsize,
    /// The newest last.
    held: VecDeque<(Digest, Held)>,
    /// Activations of other revisions than the one before.
    pub activations: u64,
}

/// What the leaf says is not what stands beside it: changed after it was written.
pub struct Changed(pub String);

impl Bundles {
    pub fn new(threads: NonZeroUsize) -> Self {
        Self { threads, held: VecDeque::new(), activations: 0 }
    }

    pub fn find(&self, revision: &Digest) -> Option<&Held> {
        self.held.iter().rev().find(|(of, _)| of == revision).map(|(_, held)| held)
    }

    /// Takes the bundle that a leaf activates. `records` are the evidence of its frame.
    pub fn activate(&mut self, leaf: &PolicyEntry, records: &Records<'_>) -> Result<(), Changed> {
        self.activations += 1;
        let known = self.held.iter().position(|(of, _)| *of == leaf.revision);
        if let Some(known) = known.and_then(|at| self.held.remove(at))
            && matches!(known.1, Held::Ready { .. })
        {
            // The same revision is the same files.
            self.held.push_back(known);
            return Ok(());
        }
        let (held, changed) = self.load(leaf, records);
        self.held.push_back((leaf.revision, held));
        if self.held.len() > limits::REPLAY_BUNDLES_MAX {
            self.held.pop_front();
        }
        changed.map_or(Ok(()), |what| Err(Changed(what)))
    }

    /// With what to report as a change, if it is one.
    fn load(&self, leaf: &PolicyEntry, records: &Records<'_>) -> (Held, Option<String>) {
        let not = |why, what: &str| Held::Not { why, what: what.into() };
        let computed = policy_revision(&leaf.engine, &leaf.files);
        if computed != leaf.revision {
            let what = format!("the leaf names revision {}, its files give {computed}", leaf.revision);
            return (not(WhyNot::BundleRefused, &what), Some(what));
        }
        let mut files = Vec::new();
        for file in &leaf.files {
            let Some(bytes) = records.get(&file.sha256) else {
                let named =
                    format!("the bundle's file `{}` is not beside its leaf as {}", file.name, file.sha256);
                return match records.stray() {
                    None => (not(WhyNot::BundleMissing, &named), None),
                    Some(other) => {
                        let what = format!("{named}; {other} is there instead");
                        (not(WhyNot::BundleRefused, &what), Some(what))
                    }
                };
            };
            files.push((file.name.to_string(), bytes.to_vec()));
        }
        // Which packages surfaces named is not recorded, and not needed: a decision names its own.
        let bundle = match Sources::from_files(files).and_then(|sources| Bundle::from_sources(sources, &[])) {
            Ok(bundle) => bundle,
            Err(faults) => {
                let what = format!("this version does not load the bundle: {faults}");
                return (not(WhyNot::BundleRefused, &what), None);
            }
        };
        if bundle.files() != leaf.files {
            let what = "the leaf names files that are no part of a bundle".to_owned();
            return (not(WhyNot::BundleRefused, &what), Some(what));
        }
        match Offline::new(bundle, self.threads) {
            Ok(policy) => (Held::Ready { policy: Arc::new(policy), engine: Arc::clone(&leaf.engine) }, None),
            Err(faults) => {
                let what = format!("this version does not compile the bundle: {faults}");
                (not(WhyNot::BundleRefused, &what), None)
            }
        }
    }
}
