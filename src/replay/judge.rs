//! One decision, evaluated again and held against its leaf.

use std::sync::Arc;

use bytes::Bytes;

use super::report::{About, Difference, Explanation, Left, Said, WhyNot};
use crate::model::entry::DecisionEntry;
use crate::model::{Json, LeafIndex, PackageName, ReasonCode};
use crate::policy::{Finding, Offline, Values, read_input};
use crate::redaction::{Disclosures, Unrestored, marked, reasons_as_written};

/// Everything one evaluation needs, on its way to a thread.
pub struct Job {
    pub about: About,
    pub before: Said,
    pub package: PackageName,
    /// Whether members of the input stand as digests of disclosures.
    pub is_redacted: bool,
    pub input: Bytes,
    pub policy: Arc<Offline>,
    /// Judged by another engine, and evaluated by this one because the caller asked for it.
    pub is_other_engine: bool,
}

/// What became of one decision.
pub enum Replayed {
    Exact { by_other_engine: bool },
    Differs { difference: Box<Difference>, by_other_engine: bool },
    Not(Box<Left>),
}

impl Job {
    /// `copy` is the number of the thread.
    pub fn run(self, copy: usize, disclosures: &Disclosures) -> Replayed {
        self.run_and_keep(copy, disclosures).0
    }

    /// The same, with the input as policy saw it, if it was evaluated.
    pub fn run_and_keep(self, copy: usize, disclosures: &Disclosures) -> (Replayed, Option<Json>) {
        let judged = match self.judged(disclosures) {
            Ok(judged) => judged,
            Err((why, what)) => {
                return (Replayed::Not(Box::new(Left { about: self.about, why, what })), None);
            }
        };
        let after = self.said(copy, &judged);
        let by_other_engine = self.is_other_engine;
        let replayed = if after == self.before {
            Replayed::Exact { by_other_engine }
        } else {
            let difference = Box::new(Difference { about: self.about, before: self.before, after });
            Replayed::Differs { difference, by_other_engine }
        };
        (replayed, Some(judged.input))
    }
}

/// The input as policy saw it.
struct Judged {
    input: Json,
    /// As the log has it, and what it keeps out; `None`: it keeps nothing out.
    redacted: Option<(Json, Vec<Json>)>,
}

impl Job {
    fn judged(&self, disclosures: &Disclosures) -> Result<Judged, (WhyNot, String)> {
        let recorded = read_input(&self.input).map_err(|what| (WhyNot::InputUnreadable, what))?;
        if !self.is_redacted {
            // Without redaction `_sd` is a name like any other, which a caller may have sent.
            return Ok(Judged { input: recorded, redacted: None });
        }
        let restored = disclosures.restore(recorded.clone()).map_err(|why| match why {
            Unrestored::Missing { .. } => (WhyNot::InputRedacted, why.to_string()),
            Unrestored::Malformed { .. } => (WhyNot::InputUnreadable, why.to_string()),
        })?;
        Ok(Judged { input: restored.value, redacted: Some((recorded, restored.withheld)) })
    }

    fn said(&self, copy: usize, judged: &Judged) -> Said {
        let mut after = said(self.policy.find(copy, &self.package, &judged.input));
        if let Some((_, withheld)) = &judged.redacted {
            // As the leaf was written: without what could repeat a redacted value.
            after.reasons = reasons_as_written(&after.reasons, withheld);
        }
        after
    }

    /// Which rules made the verdict, and what kept the others from it; `None` if it cannot be replayed.
    pub fn explain(&self, copy: usize, disclosures: &Disclosures) -> Option<Explanation> {
        let judged = self.judged(disclosures).ok()?;
        let after = self.said(copy, &judged);
        let values = match &judged.redacted {
            None => Values::All,
            Some((recorded, _)) => Values::Redacted(marked(recorded)),
        };
        let sets = self.policy.explain(copy, &self.package, &judged.input, values);
        Some(Explanation { about: self.about.clone(), before: self.before.clone(), after, sets })
    }
}

pub fn about(index: LeafIndex, d: &DecisionEntry) -> About {
    About { index, id: d.id, surface: d.surface.clone(), action: d.action.clone(), actor: d.actor.id.clone() }
}

pub fn recorded(d: &DecisionEntry) -> Said {
    Said { decision: d.decision, reasons: d.reasons.clone(), cause: d.evaluation.cause.clone() }
}

fn said(finding: Finding) -> Said {
    let cause = finding.not_evaluated.map(|code| code.as_str().into());
    Said { decision: finding.decision, reasons: finding.reasons, cause }
}

/// Whether evaluating the same input again gives the same failure. What a clock, the load or the surroundings caused
/// does not come again.
pub fn comes_again(cause: &str) -> bool {
    let again =
        [ReasonCode::EvaluationError, ReasonCode::EvaluationResultInvalid, ReasonCode::EvaluationPanic];
    again.iter().any(|code| code.as_str() == cause)
}

/// Members were left out of the leaf, and so of the evidence: the digest of the message itself is one of them.
pub fn is_redacted(d: &DecisionEntry) -> bool {
    !d.request.disclosures.is_empty() || d.request.digest.is_none()
}
