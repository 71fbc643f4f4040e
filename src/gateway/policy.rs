//! The active policy, kept up to date: looked at, tried, recorded, and only then put in force.
//!
//! In: what policy is read from, a tick, a signal, or an operator's word. Out: another active bundle and the leaf of its
//! activation; or the last good one, with an alarm. One task does it all, one change after the other.
//!
//! ```text
//! read twice    the same bytes both times: nobody activates half of a change
//! try           static checks, compiled, its own tests pass; compiled for every thread: nothing left that can fail
//! record        the leaf with the bundle; a crash here leaves a bundle in the log that judged nothing
//! activate      and the version of `policy` moves in the same step, in which nothing starts to be sent
//! ```
//!
//! The leaf comes before the first verdict of its bundle, so a decision never names a revision that the log does not hold
//! at a lower index. Between leaf and activation the bundle before judges, and decisions say so. A request that read the
//! earlier version never starts after the step, whichever of the two has judged it, because each activation is a version
//! of its own, also that of a revision that was active before. So it is judged again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::policy_source::Policy;
use crate::admin::{Done, PolicyAsk, PolicyHealth, PolicyOrder, PolicyOrders, Refusal};
use crate::authority::{Fold, Versions};
use crate::clock::Clock;
use crate::config::FoundPolicy;
use crate::ledger::{Ledger, Ordered, PolicyActivation, Receipt, Unrecorded};
use crate::limits;
use crate::model::{Activated, Digest, LeafIndex, Older};
use crate::policy::{Bundle, BundleError, ENGINE, Pdp, Prepared};
use crate::telemetry::Metrics;

/// As read sets name it.
pub(super) const POLICY: &str = "policy";

/// Each activation is a version: the entry that records it.
pub(super) fn version_of(activation: LeafIndex) -> String {
    activation.to_string()
}

/// What the task needs.
pub(super) struct Watched {
    pub policy: Policy,
    pub pdp: Pdp,
    pub ledger: Ledger,
    pub fold: Arc<Fold>,
    pub versions: Versions,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub health: PolicyHealth,
    /// Somebody wants everything looked at now.
    pub asked: watch::Receiver<()>,
    pub orders: PolicyOrders,
    pub end: CancellationToken,
}

/// What made the task look.
enum Because {
    Tick,
    Signal,
    Order(PolicyOrder),
}

/// Why what was read is not in force.
enum Failed {
    NotLoaded(BundleError),
    Older(Older),
    NotRecorded(Unrecorded),
}

/// What the task remembers.
struct State {
    /// Of the content in force.
    active: Digest,
    version: Option<u64>,
    /// Of the content, or the reason, that failed the last time: the same is not tried, and not told, again.
    failed: Option<String>,
}

impl Watched {
    /// Digest and version are of the content that judges already.
    pub fn start(self, (active, version): (Digest, Option<u64>)) {
        tokio::spawn(async move {
            let end = self.end.clone();
            tokio::select! {
                () = end.cancelled() => {}
                () = self.keep(State { active, version, failed: None }) => {}
            }
        });
    }

    async fn keep(mut self, mut state: State) {
        loop {
            let because = tokio::select! {
                () = sleep(Duration::from_millis(limits::POLICY_POLL_MS)) => Because::Tick,
                asked = self.asked.changed() => match asked {
                    Ok(()) => Because::Signal,
                    Err(_stopped) => return,
                },
                order = self.orders.recv() => match order {
                    Some(order) => Because::Order(order),
                    None => return,
                },
            };
            self.look(&mut state, because).await;
        }
    }

    async fn look(&self, state: &mut State, because: Because) {
        let (activated_by, order) = match because {
            Because::Tick => ("change", None),
            Because::Signal => ("signal", None),
            Because::Order(order) => ("operator", Some(order)),
        };
        // What has failed is not tried again at each tick, but whenever somebody asks.
        let known_failure = state.failed.take().filter(|_| activated_by == "change");
        let read = match self.policy.read().await {
            Ok(read) if read.digest == state.active => {
                if self.health.is_failing() {
                    tracing::info!(revision = %self.pdp.revision(), "what policy is read from is what judges again");
                }
                self.in_force();
                return answer(order, Ok(Done::UNCHANGED));
            }
            Ok(read) if known_failure.as_deref() == Some(&*read.digest.to_string()) => {
                state.failed = known_failure;
                return;
            }
            Ok(read) => self.settled(read).await,
            Err(faults) => Err(faults),
        };
        let read = match read {
            Ok(Some(read)) => read,
            // It is being changed: the next tick looks again. An operator is told what is true.
            Ok(None) => {
                let detail = "what it is read from is being changed; ask again".to_owned();
                return answer(order, Err(Refusal::PolicyNotActivated { detail }));
            }
            Err(faults) => {
                let what = faults.to_string();
                if known_failure.as_deref() == Some(&*what) {
                    state.failed = known_failure;
                    return;
                }
                state.failed = Some(what);
                return self.fail(Failed::NotLoaded(faults), order);
            }
        };
        let (digest, version) = (read.digest, read.version);
        let is_same_version = version == state.version;
        let ordered = order.as_ref().map(|order| {
            let PolicyAsk { by, reason, older: _ } = &order.ask;
            Ordered { by: by.clone(), reason: reason.clone() }
        });
        let older = order.as_ref().and_then(|order| order.ask.older);
        match self.put(read, is_same_version, activated_by, (ordered, older)).await {
            Ok(receipt) => {
                (state.active, state.version) = (digest, version);
                self.in_force();
                let done = receipt.as_ref().map_or(Done::UNCHANGED, Done::recorded);
                answer(order, Ok(done));
                // Requests that were overtaken are judged again before the next activation.
                sleep(Duration::from_millis(limits::POLICY_ACTIVATION_MS_MIN)).await;
            }
            Err(failed) => {
                // What the log did not take is tried again; what is wrong with the bundle stays wrong.
                state.failed =
                    matches!(failed, Failed::NotLoaded(_) | Failed::Older(_)).then(|| digest.to_string());
                self.fail(failed, order);
            }
        }
    }

    /// `None`: it is being changed.
    async fn settled(&self, first: FoundPolicy) -> Result<Option<FoundPolicy>, BundleError> {
        sleep(Duration::from_millis(limits::POLICY_SETTLE_MS)).await;
        let second = self.policy.read().await?;
        Ok((second.digest == first.digest).then_some(second))
    }

    /// `None`: what decides is what judges already, only tests have changed.
    async fn put(
        &self,
        read: FoundPolicy,
        is_same_version: bool,
        activated_by: &'static str,
        (ordered, older): (Option<Ordered>, Option<Digest>),
    ) -> Result<Option<Receipt>, Failed> {
        let version = read.version;
        let bundle = self.policy.load(read).await.map_err(Failed::NotLoaded)?;
        if is_same_version && bundle.revision() == self.pdp.revision() {
            return Ok(None);
        }
        let activated = Activated { revision: bundle.revision(), version };
        let older_than =
            self.policy.follows(self.fold.activations(), activated, older).map_err(Failed::Older)?;
        let prepared = self.prepared(bundle).await.map_err(Failed::NotLoaded)?;
        let activation = PolicyActivation {
            activated_by: activated_by.into(),
            engine: ENGINE.into(),
            files: prepared.bundle().sources().deciding(),
            older_than,
            ordered,
            revision: activated.revision,
            version,
        };
        let (revision, by) = (activated.revision, activated_by);
        let put = put_in_force(&self.ledger, &self.versions, &self.pdp, (prepared, activation));
        let receipt = put.await.map_err(Failed::NotRecorded)?;
        let now = self.clock.wall().unix_ms() as f64 / 1_000.0;
        self.metrics.policy_reloaded(true);
        self.metrics.policy_activated(&revision.to_string(), now);
        tracing::info!(%revision, by, entry = receipt.index.0, "policy activated");
        Ok(Some(receipt))
    }

    async fn prepared(&self, bundle: Bundle) -> Result<Prepared, BundleError> {
        let pdp = self.pdp.clone();
        let preparing = tokio::task::spawn_blocking(move || pdp.prepare(bundle));
        preparing.await.unwrap_or_else(|_panicked| Err(BundleError::engine_panicked()))
    }

    fn in_force(&self) {
        self.health.set_failing(false);
        self.metrics.policy_failing.set(0);
    }

    fn fail(&self, failed: Failed, order: Option<PolicyOrder>) {
        self.health.set_failing(true);
        self.metrics.policy_reloaded(false);
        let revision = self.pdp.revision();
        let refusal = match failed {
            Failed::NotLoaded(faults) => {
                let mut why = faults.to_string();
                tracing::error!(%revision, why, "policy not changed: the last good bundle judges on");
                why.truncate(why.floor_char_boundary(limits::POLICY_FAULTS_SHOWN_BYTES_MAX));
                Refusal::PolicyNotActivated { detail: why }
            }
            Failed::Older(older) => {
                let why = older.to_string();
                tracing::error!(%revision, why, "policy not changed: nobody answers for an older one");
                Refusal::PolicyOlder { detail: format!("{why}.") }
            }
            Failed::NotRecorded(error) => {
                tracing::error!(%revision, %error, "policy not changed: the log did not take its activation");
                Refusal::Unrecorded(error)
            }
        };
        answer(order, Err(refusal));
    }
}

/// Recorded, and then active, in a step of its own in which nothing starts to be sent.
pub(super) async fn put_in_force(
    ledger: &Ledger,
    versions: &Versions,
    pdp: &Pdp,
    (prepared, activation): (Prepared, PolicyActivation),
) -> Result<Receipt, Unrecorded> {
    let receipt = ledger.record_policy(activation).await?;
    versions.set_after(POLICY, &version_of(receipt.index), || pdp.activate(prepared));
    Ok(receipt)
}

fn answer(order: Option<PolicyOrder>, done: Result<Done, Refusal>) {
    if let Some(order) = order {
        order.answer(done);
    }
}
