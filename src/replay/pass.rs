//! The walk over the log: what is signed, which bundle was active, and a job for each decision.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;

use super::bundles::{Bundles, Changed, Held};
use super::judge::{self, Job, Replayed};
use super::records::Records;
use super::report::{Left, Report, Tally, WhyNot};
use super::{Progress, Selection};
use crate::limits;
use crate::merkle::checkpoint::Checkpoint;
use crate::merkle::frame::Frame;
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::merkle::trust::Trust;
use crate::model::entry::{Common, DecisionEntry, EntryType, PolicyEntry};
use crate::model::{Digest, LeafIndex, TreeSize};
use crate::policy::{ENGINE, Offline};
use crate::verify::source::CHECKPOINT_FILE;
use crate::verify::walk::{Damage, Spot, Step, Walk};
use crate::verify::{Check, Problem, Source};

pub struct Options {
    pub selection: Selection,
    pub given: Option<Offline>,
    pub accept_engine: bool,
    pub threads: NonZeroUsize,
}

pub struct Pass {
    trust: Trust,
    selection: Selection,
    given: Option<Arc<Offline>>,
    accept_engine: bool,
    jobs: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
    batch_bytes: usize,
    signed: Option<Checkpoint>,
    /// Root of the tree at the signed size, once it was that large.
    root_at_signed: Option<Digest>,
    edge: RightEdge,
    bundles: Bundles,
    decisions: u64,
    tally: Tally,
    problems: Problems,
}

#[derive(Default)]
struct Problems {
    named: Vec<Problem>,
    count: u64,
    /// The first failing check in `verify`'s order.
    first: Option<Check>,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        self.count += 1;
        self.first = Some(self.first.map_or(problem.check, |first| first.min(problem.check)));
        if self.named.len() < limits::PROBLEMS_NAMED_MAX {
            self.named.push(problem);
        }
    }
}

impl Pass {
    /// Reads the checkpoint, before any frame.
    pub fn new<S: Source + ?Sized>(
        source: &S,
        trust: &Trust,
        options: Options,
        jobs: SyncSender<Vec<Job>>,
    ) -> io::Result<Self> {
        let Options { selection, given, accept_engine, threads } = options;
        let parsed = match source.checkpoint()? {
            None => Err("there is no checkpoint".to_owned()),
            Some(note) => trust.checkpoint(&note).map_err(|e| e.to_string()),
        };
        let mut problems = Problems::default();
        let signed = match parsed {
            Ok(verified) => Some(verified.checkpoint().clone()),
            Err(what) => {
                problems.add(of_checkpoint(what));
                None
            }
        };
        let edge = RightEdge::empty();
        let root_at_signed = signed.as_ref().filter(|c| c.size == TreeSize(0)).map(|_| edge.root());
        Ok(Self {
            trust: trust.clone(),
            selection,
            given: given.map(Arc::new),
            accept_engine,
            jobs,
            batch: Vec::new(),
            batch_bytes: 0,
            signed,
            root_at_signed,
            edge,
            bundles: Bundles::new(threads),
            decisions: 0,
            tally: Tally::default(),
            problems,
        })
    }

    /// Reads every frame. When it returns, all jobs are with the threads and none will follow.
    pub fn walk<S: Source + ?Sized>(
        mut self,
        source: &S,
        progress: &mut impl FnMut(Progress),
    ) -> io::Result<Finished> {
        let mut walk = Walk::new(source, self.trust.log())?;
        let mut looked_again = None;
        loop {
            match walk.step()? {
                Step::Frame(frame, spot) => self.frame(&frame, spot),
                Step::End(_) => break,
                Step::Damaged(damage) if damage.may_be_whole_now(&mut looked_again) => {}
                Step::Damaged(damage) => {
                    self.damage(&damage);
                    break;
                }
            }
            progress(Progress { read: self.edge.size(), signed: self.signed_size() });
        }
        self.hand_over();
        let is_signed = self.is_signed();
        let Self { trust, given, signed, edge, bundles, decisions, tally, problems, .. } = self;
        Ok(Finished { trust, given, signed, edge, bundles, decisions, tally, problems, is_signed })
    }

    fn signed_size(&self) -> TreeSize {
        self.signed.as_ref().map_or(TreeSize(0), |c| c.size)
    }

    fn frame(&mut self, frame: &Frame<'_>, spot: Spot) {
        let records = Records::of(frame);
        for &entry in &frame.entries {
            let index = LeafIndex(self.edge.size().0);
            if let Err(what) = self.leaf(index, entry, &records, spot) {
                self.problems.add(at(Check::WellFormed, index, spot, what.to_string()));
            }
            self.edge.append(leaf_hash(entry));
            if self.signed.as_ref().is_some_and(|c| c.size == self.edge.size()) {
                self.root_at_signed = Some(self.edge.root());
            }
        }
        if self.edge.root() != frame.root {
            let what = format!("the leaves give root {}, the frame names {}", self.edge.root(), frame.root);
            self.problems.add(at(Check::Included, frame.first, spot, what));
        }
    }

    /// Reads what a replay needs, and no more of the other leaves than their type.
    fn leaf(
        &mut self,
        index: LeafIndex,
        entry: &[u8],
        records: &Records<'_>,
        spot: Spot,
    ) -> Result<(), serde_json::Error> {
        let common: Common = serde_json::from_slice(entry)?;
        match common.entry_type {
            EntryType::Decision => self.decision(index, serde_json::from_slice(entry)?, records, spot),
            // Of no use under another bundle.
            EntryType::Policy if self.given.is_none() => {
                let leaf: PolicyEntry = serde_json::from_slice(entry)?;
                if let Err(Changed(what)) = self.bundles.activate(&leaf, records) {
                    self.problems.add(at(Check::Evidence, index, spot, what));
                }
            }
            EntryType::Admin
            | EntryType::Epoch
            | EntryType::Heartbeat
            | EntryType::Key
            | EntryType::Outcome
            | EntryType::Policy
            | EntryType::Refusal => {}
        }
        Ok(())
    }

    fn decision(&mut self, index: LeafIndex, d: DecisionEntry, records: &Records<'_>, spot: Spot) {
        let is_selected = match self.selection {
            Selection::All => true,
            Selection::Receipt(id) => d.id == id,
            Selection::Entries { from, to } => (from..=to).contains(&index),
        };
        if !is_selected {
            return;
        }
        self.decisions += 1;
        match self.job(index, &d, records) {
            Ok(job) => {
                self.batch_bytes += job.input.len();
                self.batch.push(job);
                let is_full = self.batch.len() >= limits::REPLAY_BATCH_DECISIONS_MAX
                    || self.batch_bytes >= limits::REPLAY_BATCH_BYTES_MAX;
                if is_full {
                    self.hand_over();
                }
            }
            Err((why, mut what)) => {
                if why == WhyNot::InputMissing
                    && let Some(other) = records.stray()
                {
                    what = format!("{what}; {other} is there instead");
                    self.problems.add(at(Check::Evidence, index, spot, what.clone()));
                }
                let about = judge::about(index, &d);
                self.tally.add(Replayed::Not(Box::new(Left { about, why, what })));
            }
        }
    }

    fn job(
        &self,
        index: LeafIndex,
        d: &DecisionEntry,
        records: &Records<'_>,
    ) -> Result<Job, (WhyNot, String)> {
        let signed = self.signed_size();
        if index.0 >= signed.0 {
            return Err((WhyNot::Unsigned, format!("the trusted keys have signed {signed} leaves")));
        }
        if let Some(cause) = d.evaluation.cause.as_deref().filter(|cause| !judge::comes_again(cause)) {
            return Err((WhyNot::NotEvaluated, format!("not evaluated at the time: {cause}")));
        }
        let (policy, activated) = match &self.given {
            Some(given) => (given, None),
            None => match self.bundles.find(&d.policy.revision) {
                Some(Held::Ready { policy, engine }) => (policy, Some(engine)),
                Some(Held::Not { why, what }) => return Err((*why, what.to_string())),
                None => {
                    let what =
                        format!("no activation of {} among the last ones before it", d.policy.revision);
                    return Err((WhyNot::BundleUnknown, what));
                }
            },
        };
        let mut engines = [Some(&d.policy.engine), activated].into_iter().flatten();
        let other_engine = engines.find(|engine| &***engine != ENGINE);
        if let Some(engine) = other_engine.filter(|_| !self.accept_engine) {
            return Err((WhyNot::OtherEngine, format!("judged by `{engine}`, this is `{ENGINE}`")));
        }
        let digest = d.evaluation.input_digest;
        let Some(input) = records.get(&digest) else {
            return Err((WhyNot::InputMissing, format!("the policy input {digest} is not beside its leaf")));
        };
        Ok(Job {
            about: judge::about(index, d),
            before: judge::recorded(d),
            package: d.policy.package.clone(),
            is_redacted: judge::is_redacted(d),
            input: Bytes::copy_from_slice(input),
            policy: Arc::clone(policy),
            is_other_engine: other_engine.is_some(),
        })
    }

    fn hand_over(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            // An error means that every thread has panicked, which joining them finds.
            let _ = self.jobs.send(batch);
        }
    }

    fn damage(&mut self, damage: &Damage) {
        let Damage { spot, index, fault, .. } = damage;
        let is_unsigned_tail = damage.is_torn_tail() && index.0 >= self.signed_size().0;
        // Without a signature there is nothing that a tail could be after.
        if !is_unsigned_tail || self.signed.is_none() {
            self.problems.add(at(Check::Frames, *index, *spot, fault.to_string()));
        }
    }

    /// Whether the leaves up to the signed size are those that were signed.
    fn is_signed(&mut self) -> bool {
        let Some(signed) = &self.signed else { return false };
        let what = match self.root_at_signed {
            Some(root) if root == signed.root => return true,
            Some(root) => {
                format!("at {} leaves root {} was signed, the frames give {root}", signed.size, signed.root)
            }
            None => format!("{} leaves were signed, the frames give {}", signed.size, self.edge.size()),
        };
        self.problems.add(of_checkpoint(what));
        false
    }
}

/// What the walk leaves behind.
pub struct Finished {
    trust: Trust,
    given: Option<Arc<Offline>>,
    signed: Option<Checkpoint>,
    edge: RightEdge,
    bundles: Bundles,
    decisions: u64,
    tally: Tally,
    problems: Problems,
    is_signed: bool,
}

impl Finished {
    /// With what the threads found.
    pub fn report(self, tallies: Vec<Tally>) -> Report {
        let mut tally = tallies.into_iter().fold(self.tally, Tally::merge);
        if !self.is_signed {
            tally = tally.nothing_is_signed();
        }
        Report {
            log: self.trust.log().to_string(),
            keys: self.trust.keys().iter().map(ToString::to_string).collect(),
            size: self.edge.size(),
            root: self.edge.root(),
            signed_size: self.signed.filter(|_| self.is_signed).map(|c| c.size),
            engine: ENGINE,
            given_revision: self.given.map(|given| given.bundle().revision()),
            activations: self.bundles.activations,
            decisions: self.decisions,
            exact: tally.exact,
            differ: tally.differ,
            by_other_engine: tally.by_other_engine,
            changes: tally.changes(),
            not_replayed: tally.not_replayed,
            differences: tally.differences,
            left: tally.left,
            problems: self.problems.named,
            problem_count: self.problems.count,
            first_failed: self.problems.first,
        }
    }
}

fn at(check: Check, index: LeafIndex, spot: Spot, what: String) -> Problem {
    Problem { check, index: Some(index), file: Some(spot.file()), offset: Some(spot.offset), what }
}

fn of_checkpoint(what: String) -> Problem {
    Problem { check: Check::Signed, index: None, file: Some(CHECKPOINT_FILE.into()), offset: None, what }
}
