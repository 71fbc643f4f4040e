//! One surface's status lookups: asks the upstream what became of requests that it did not answer.
//!
//! A task beside all requests, which nobody waits for. Each round passes over a slice of the unknown outcomes, then asks
//! about those whose time has come, one after the other. An answer settles an outcome only if it can be about no other
//! request: the key is looked for in the log before the question and again after the answer, because a PERMIT is durable
//! before its request can have an effect that the upstream could tell of. Everything else changes nothing, and is asked
//! again later. While the surface is frozen no question is asked: nothing is sent there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::memory::{Memory, Pace, Subject};
use super::records::{Records, Unread};
use super::{LookupResult, NotSettled, Progress, Reconciler};
use crate::authority::{Restricted, Scope};
use crate::clock::Clock;
use crate::ledger::{Attestation, Attested};
use crate::limits;
use crate::model::entry::{AttestedBy, DecisionEntry};
use crate::model::{ActionName, LeafIndex, SurfaceName};
use crate::telemetry::Metrics;
use crate::upstream::{NoStatus, Said, StatusAnswer, StatusRules, StatusSource};

/// What a surface declares.
#[derive(Clone, Debug)]
pub struct StatusLookup {
    pub rules: Arc<StatusRules>,
    /// Whose requests are asked about; each forwards its key.
    pub actions: BTreeSet<ActionName>,
    /// From when the outcome is met as unknown to the first question.
    pub after: Duration,
    /// At most from one question about an outcome to the next.
    pub again_max: Duration,
}

/// The task of one surface.
pub struct Lookups {
    surface: SurfaceName,
    actions: BTreeSet<ActionName>,
    source: StatusSource,
    reconciler: Reconciler,
    records: Records,
    memory: Memory,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Lookups {
    /// `source` asks by the rules of `declared`.
    pub fn new(
        surface: SurfaceName,
        declared: &StatusLookup,
        source: StatusSource,
        reconciler: Reconciler,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let StatusLookup { actions, after, again_max, rules: _ } = declared.clone();
        let memory = Memory::new(Pace { after, again_max });
        let records = Records::new(reconciler.ledger().clone());
        LookupResult::ALL.iter().for_each(|result| metrics.status_looked_up(&surface, result.as_str(), 0));
        metrics.status_lookups_waiting(&surface, 0);
        Self { surface, actions, source, reconciler, records, memory, clock, metrics }
    }

    /// Asks until `stop`; a question that is on its way then is given up.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut every = interval(Duration::from_millis(limits::STATUS_ROUND_MS));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rounds = async {
            loop {
                every.tick().await;
                self.round().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }

    async fn round(&mut self) {
        if let Err(why) = self.pass_over().await {
            self.not_read(&why);
        }
        let waiting = self.memory.waiting_count();
        self.metrics.status_lookups_waiting(&self.surface, waiting);
        for subject in self.memory.due(self.clock.monotonic(), limits::STATUS_QUESTIONS_PER_ROUND_MAX) {
            if self.is_frozen() {
                return;
            }
            // An operator may have said it meanwhile; the next slice forgets it.
            if self.reconciler.fold().is_unknown(subject.index) {
                let Some(result) = self.look_up(&subject).await else { return };
                self.conclude(&subject, result);
            }
        }
    }

    /// The next slice of what is unknown.
    async fn pass_over(&mut self) -> Result<(), Unread> {
        let (after, max) = self.memory.next_slice();
        let slice = self.reconciler.fold().unknown_after(after, max);
        let unmet = self.memory.unmet(&slice);
        if !unmet.is_empty() {
            for (outcome, decision) in self.records.decisions(unmet).await? {
                self.meet(outcome.decision_index, decision);
            }
        }
        let known = self.memory.advance(&slice);
        self.reconciler.forget(&known);
        Ok(())
    }

    fn meet(&mut self, index: LeafIndex, decision: DecisionEntry) {
        if decision.surface != self.surface || !self.actions.contains(&decision.action) {
            return self.memory.pass(index);
        }
        match decision.idempotency_key.filter(|key| self.source.rules().question.takes(key)) {
            Some(key) => {
                let budgets = decision.reserves.into_iter().map(|reserve| reserve.budget).collect();
                let withholds = decision.request.digest.is_none();
                let subject = Subject { id: decision.id, index, key, budgets, withholds };
                self.memory.add(subject, self.clock.monotonic());
            }
            None => {
                self.count(index, 0, LookupResult::NoKey);
                self.memory.pass(index);
            }
        }
    }

    /// `None`: it is frozen now, and nothing was asked.
    async fn look_up(&self, subject: &Subject) -> Option<LookupResult> {
        // Nobody is asked what could not be told apart anyway.
        if let Some(why_not) = self.why_not_told_apart(subject).await {
            return Some(why_not);
        }
        // That took a while.
        if self.is_frozen() {
            return None;
        }
        let result = match self.source.ask(&subject.key).await {
            Ok(answer) => self.take(subject, &answer).await,
            Err(why) => {
                let (surface, receipt) = (&self.surface, subject.id);
                tracing::warn!(%surface, %receipt, %why, "the upstream did not say what became of a request");
                match why {
                    NoStatus::Unanswered(_) => LookupResult::Unanswered,
                    NoStatus::Unusable(_) => LookupResult::Unusable,
                }
            }
        };
        Some(result)
    }

    async fn take(&self, subject: &Subject, answer: &StatusAnswer) -> LookupResult {
        let (status, result) = match answer.said {
            Said::Confirmed => (Attested::Confirmed, LookupResult::Confirmed),
            Said::Failed => (Attested::Failed, LookupResult::Failed),
            Said::Open => return LookupResult::Open,
            Said::NotFound => return LookupResult::NotFound,
        };
        if let Some(why_not) = self.why_not_told_apart(subject).await {
            return why_not;
        }
        let evidence = evidence(self.source.rules(), answer, subject.withholds).into();
        let attestation = Attestation {
            decision_id: subject.id,
            decision_index: subject.index,
            status,
            by: AttestedBy { evidence, operator: None },
            budgets: subject.budgets.clone(),
        };
        match self.reconciler.settle(attestation).await {
            Ok(receipt) => {
                let (surface, entry, status) = (&self.surface, receipt.index.0, result.as_str());
                tracing::info!(%surface, receipt = %subject.id, entry, status, "the upstream said what became of it");
                result
            }
            Err(NotSettled::NotUnknown) => LookupResult::SettledAlready,
            Err(why @ (NotSettled::Unrecorded(_) | NotSettled::Panicked)) => {
                tracing::error!(surface = %self.surface, receipt = %subject.id, ?why, "what became of it is not recorded");
                LookupResult::LogUnavailable
            }
        }
    }

    async fn why_not_told_apart(&self, subject: &Subject) -> Option<LookupResult> {
        match self.records.is_shared(subject.key.clone(), subject.index).await {
            Ok(false) => None,
            Ok(true) => Some(LookupResult::SharedKey),
            Err(why) => {
                self.not_read(&why);
                Some(LookupResult::LogUnavailable)
            }
        }
    }

    fn not_read(&self, why: &Unread) {
        let surface = &self.surface;
        match why {
            // After a start this is so until the archive has caught up.
            Unread::Behind => tracing::debug!(%surface, %why, "the log cannot be asked yet"),
            Unread::Failed(_) | Unread::NoDecision(_) | Unread::Panicked => {
                tracing::warn!(%surface, %why, "the log cannot be asked about unknown outcomes; tried again");
            }
        }
    }

    fn conclude(&mut self, subject: &Subject, result: LookupResult) {
        let is_over = match result {
            LookupResult::Confirmed | LookupResult::Failed | LookupResult::SettledAlready => true,
            LookupResult::Open
            | LookupResult::NotFound
            | LookupResult::Unanswered
            | LookupResult::Unusable
            | LookupResult::NoKey
            | LookupResult::SharedKey
            | LookupResult::LogUnavailable => false,
        };
        let questions = self.memory.asked(subject.index, self.clock.monotonic());
        self.count(subject.index, questions, result);
        if is_over {
            self.memory.settled(subject.index);
            self.reconciler.forget(&[subject.index]);
        }
    }

    fn count(&self, index: LeafIndex, questions: u32, result: LookupResult) {
        self.metrics.status_looked_up(&self.surface, result.as_str(), 1);
        self.reconciler.note(index, Progress { questions, last: result });
    }

    fn is_frozen(&self) -> bool {
        self.reconciler.fold().restrictions().iter().any(|status| match &status.what {
            Restricted::Frozen(Scope::All) => true,
            Restricted::Frozen(Scope::Surface(surface)) => *surface == self.surface,
            Restricted::Frozen(Scope::Actor(_)) | Restricted::Quarantined { .. } => false,
        })
    }
}

/// What the leaf says of the answer. On a route that redacts without its digest: an answer may be as easy to guess as what
/// is kept out of the leaf.
fn evidence(rules: &StatusRules, answer: &StatusAnswer, withholds: bool) -> String {
    let StatusAnswer { said: _, status_code, value, size, digest } = answer;
    let question = rules.question.as_str();
    let value = value.as_ref().map(|value| format!(", `{value}` at `{}`", rules.status)).unwrap_or_default();
    let body = if withholds { String::new() } else { format!(", {size} bytes, {digest}") };
    format!("GET {question}: {status_code}{value}{body}")
}
