//! What a replay found.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::judge::Replayed;
use crate::limits;
use crate::model::{
    ActionName, ActorId, Decision, Digest, LeafIndex, PolicyReason, ReceiptId, SurfaceName, TreeSize,
};
use crate::policy::SetTrace;
use crate::verify::{Check, Problem, escape};

/// Which decision is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    pub index: LeafIndex,
    pub id: ReceiptId,
    pub surface: SurfaceName,
    pub action: ActionName,
    pub actor: ActorId,
}

/// A verdict with its reasons. `cause` is there if policy was not evaluated to the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    pub decision: Decision,
    pub reasons: Vec<PolicyReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<str>>,
}

/// Why a decision came out as it did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    #[serde(flatten)]
    pub about: About,
    /// As recorded.
    pub before: Said,
    /// As evaluated again; what is explained.
    pub after: Said,
    pub sets: Vec<SetTrace>,
}

/// A decision that comes out otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    #[serde(flatten)]
    pub about: About,
    pub before: Said,
    pub after: Said,
}

/// Why a decision cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// Not under a checkpoint that a trusted key signed.
    Unsigned,
    /// A time-out, overload or missing fact decided, not policy.
    NotEvaluated,
    /// No leaf before it activates the revision that it names.
    BundleUnknown,
    /// The files of its bundle are not in the log.
    BundleMissing,
    /// What is in the log as its bundle is not what the leaf names, or is not loaded by this version.
    BundleRefused,
    /// Judged by another engine than this program has.
    OtherEngine,
    /// Its policy input is not in the log.
    InputMissing,
    /// Its policy input is not strict JSON, or its disclosures contradict it.
    InputUnreadable,
    /// Members of its policy input were redacted, and no disclosure is at hand.
    InputRedacted,
}

impl WhyNot {
    pub const ALL: [Self; 9] = [
        Self::Unsigned,
        Self::NotEvaluated,
        Self::BundleUnknown,
        Self::BundleMissing,
        Self::BundleRefused,
        Self::OtherEngine,
        Self::InputMissing,
        Self::InputUnreadable,
        Self::InputRedacted,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::NotEvaluated => "not_evaluated",
            Self::BundleUnknown => "bundle_unknown",
            Self::BundleMissing => "bundle_missing",
            Self::BundleRefused => "bundle_refused",
            Self::OtherEngine => "other_engine",
            Self::InputMissing => "input_missing",
            Self::InputUnreadable => "input_unreadable",
            Self::InputRedacted => "input_redacted",
        }
    }
}

/// A decision that was not replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    #[serde(flatten)]
    pub about: About,
    pub why: WhyNot,
    pub what: String,
}

/// How many verdicts became which other, or kept their word with other reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub before: Decision,
    pub after: Decision,
    pub count: u64,
}

/// All of it. Lists name at most [`limits::REPLAY_NAMED_MAX`] decisions each, those of the lowest index.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub log: String,
    /// Keys that are trusted.
    pub keys: Vec<String>,
    /// Leaves that were read, and their root.
    pub size: TreeSize,
    pub root: Digest,
    /// Leaves that a trusted key signed as they are; without it, nothing was replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_size: Option<TreeSize>,
    /// This program's.
    pub engine: &'static str,
    /// Of the bundle given instead of the recorded ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_revision: Option<Digest>,
    /// Policy leaves used.
    pub activations: u64,
    /// Decisions that were asked for and found.
    pub decisions: u64,
    /// Verdict and reasons as recorded.
    pub exact: u64,
    pub differ: u64,
    /// Of both, those that another engine had judged.
    pub by_other_engine: u64,
    pub changes: Vec<Change>,
    pub not_replayed: BTreeMap<WhyNot, u64>,
    pub differences: Vec<Difference>,
    pub left: Vec<Left>,
    /// Of [`Replayer::explain`](super::Replayer::explain).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<Explanation>,
    /// What is wrong with the log itself.
    pub problems: Vec<Problem>,
    /// With those that are not named.
    pub problem_count: u64,
    #[serde(skip)]
    pub(super) first_failed: Option<Check>,
}

/// Some differ.
const DIFFER: u8 = 17;
/// Some, or all, could not be replayed.
const INCOMPLETE: u8 = 3;

impl Report {
    pub fn not_replayed(&self) -> u64 {
        self.not_replayed.values().sum()
    }

    /// Every decision that was asked for and that policy had made came out exactly as recorded, and there was one.
    pub fn all_exact(&self) -> bool {
        self.exit_code() == 0
    }

    /// Something that policy had judged was not judged again, or nothing was.
    pub(super) fn is_incomplete(&self) -> bool {
        let not_judged = self.not_replayed.iter().filter(|(why, _)| **why != WhyNot::NotEvaluated);
        self.exact + self.differ == 0 || not_judged.count() > 0
    }

    /// Whether every signed decision that policy had made came out exactly as recorded. What stands after the checkpoint,
    /// in a log that is being written, is the next checkpoint's.
    pub fn says_all_of_the_signed(&self) -> bool {
        let others = [WhyNot::NotEvaluated, WhyNot::Unsigned];
        let is_whole = self.not_replayed.keys().all(|why| others.contains(why));
        self.signed_size.is_some() && self.problem_count == 0 && self.differ == 0 && is_whole
    }

    pub fn exit_code(&self) -> u8 {
        match self.first_failed {
            Some(check) => check.exit_code(),
            None if self.differ > 0 => DIFFER,
            None if self.is_incomplete() => INCOMPLETE,
            None => 0,
        }
    }
}

/// Counts of one thread.
#[derive(Default)]
pub struct Tally {
    pub exact: u64,
    pub differ: u64,
    pub by_other_engine: u64,
    changes: BTreeMap<(Decision, Decision), u64>,
    pub not_replayed: BTreeMap<WhyNot, u64>,
    pub differences: Vec<Difference>,
    pub left: Vec<Left>,
    pub explanations: Vec<Explanation>,
}

impl Tally {
    /// In the order of the log: a list that is full keeps what comes first there.
    pub fn add(&mut self, replayed: Replayed) {
        match replayed {
            Replayed::Exact { by_other_engine } => {
                self.exact += 1;
                self.by_other_engine += u64::from(by_other_engine);
            }
            Replayed::Differs { difference, by_other_engine } => {
                self.differ += 1;
                self.by_other_engine += u64::from(by_other_engine);
                let change = (difference.before.decision, difference.after.decision);
                *self.changes.entry(change).or_default() += 1;
                if self.differences.len() < limits::REPLAY_NAMED_MAX {
                    self.differences.push(*difference);
                }
            }
            Replayed::Not(left) => {
                *self.not_replayed.entry(left.why).or_default() += 1;
                if self.left.len() < limits::REPLAY_NAMED_MAX {
                    self.left.push(*left);
                }
            }
        }
    }

    /// The same whatever thread came to which decision: each holds the first of its own.
    pub fn merge(mut self, other: Self) -> Self {
        self.exact += other.exact;
        self.differ += other.differ;
        self.by_other_engine += other.by_other_engine;
        for (change, count) in other.changes {
            *self.changes.entry(change).or_default() += count;
        }
        for (why, count) in other.not_replayed {
            *self.not_replayed.entry(why).or_default() += count;
        }
        self.differences.extend(other.differences);
        self.differences.sort_by_key(|d| d.about.index);
        self.differences.truncate(limits::REPLAY_NAMED_MAX);
        self.left.extend(other.left);
        self.left.sort_by_key(|l| l.about.index);
        self.left.truncate(limits::REPLAY_NAMED_MAX);
        self.explanations.extend(other.explanations);
        self.explanations.sort_by_key(|e| e.about.index);
        self
    }

    pub fn changes(&self) -> Vec<Change> {
        let changes = self.changes.iter();
        changes.map(|(&(before, after), &count)| Change { before, after, count }).collect()
    }

    /// The leaves turned out not to be those that were signed: whatever was evaluated proves nothing.
    pub fn nothing_is_signed(mut self) -> Self {
        let evaluated = self.exact + self.differ;
        if evaluated > 0 {
            *self.not_replayed.entry(WhyNot::Unsigned).or_default() += evaluated;
        }
        Self { not_replayed: self.not_replayed, left: self.left, ..Self::default() }
    }
}

/// For people. Everything that comes from the log is escaped.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(f)?;
        self.write_rest(f)
    }
}

impl Report {
    /// Which log, how far it is signed, and by what it was judged.
    pub(super) fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log        {}", escape(&self.log))?;
        self.keys.iter().try_for_each(|key| writeln!(f, "key        {}", escape(key)))?;
        match self.signed_size {
            Some(signed) => writeln!(f, "leaves     {}, the first {signed} of them signed", self.size)?,
            None => writeln!(f, "leaves     {}, none of them signed as they are", self.size)?,
        }
        writeln!(f, "root       {}", self.root)?;
        writeln!(f, "engine     {}", self.engine)?;
        match &self.given_revision {
            Some(revision) => writeln!(f, "policy     {revision}, given instead of the recorded ones"),
            None => writeln!(f, "policy     as recorded, {} activations", self.activations),
        }
    }

    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nreplayed {} of {} decisions exactly", self.exact, self.decisions)?;
        if self.by_other_engine > 0 {
            writeln!(
                f,
                "{} were judged by another engine at the time; evaluated as asked",
                self.by_other_engine
            )?;
        }
        writeln!(f, "\n{:<18} {}", "exact", self.exact)?;
        writeln!(f, "{:<18} {}", "differ", self.differ)?;
        for Change { before, after, count } in &self.changes {
            let other = if before == after { " for other reasons" } else { "" };
            writeln!(f, "  {} to {}{other}: {count}", before.as_str(), after.as_str())?;
        }
        for (why, count) in &self.not_replayed {
            writeln!(f, "{:<18} {count}", why.as_str())?;
        }
        for difference in &self.differences {
            writeln!(f, "differs  {}", difference.about)?;
            writeln!(f, "         was {}", difference.before)?;
            writeln!(f, "         is  {}", difference.after)?;
        }
        more(f, "differs ", self.differ, self.differences.len())?;
        for left in &self.left {
            writeln!(f, "left     {}: {}: {}", left.about, left.why.as_str(), escape(&left.what))?;
        }
        more(f, "left    ", self.not_replayed(), self.left.len())?;
        for problem in &self.problems {
            writeln!(f, "problem  {problem}")?;
        }
        more(f, "problem ", self.problem_count, self.problems.len())
    }
}

fn more(f: &mut fmt::Formatter<'_>, what: &str, count: u64, named: usize) -> fmt::Result {
    match count - named as u64 {
        0 => Ok(()),
        more => writeln!(f, "{what} {more} more"),
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, id, surface, action, actor } = self;
        write!(f, "entry {index}, receipt {id}, {surface}/{action} by {actor}")
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = serde_json::to_string(&self.reasons).map_err(|_| fmt::Error)?;
        write!(f, "{} {}", self.decision.as_str(), escape(&reasons))?;
        match &self.cause {
            Some(cause) => write!(f, ", not evaluated: {}", escape(cause)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_agree_with_serde() {
        for why in WhyNot::ALL {
            assert_eq!(serde_json::to_string(&why).expect("plain"), format!("\"{}\"", why.as_str()));
        }
    }
}
