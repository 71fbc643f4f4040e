//! What operators do: approve and refuse what is held, freeze, quarantine, reconcile.
//!
//! In: a proved operator and what they ask for. Out: a leaf that names who and why, or why not. Changes take turns:
//! one looks at the state, records its leaf, and by then the state has it (`ledger::Follower`), before the next one
//! looks. A change that was begun is finished, also if whoever asked has gone.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::endpoint::Asked;
use super::log::LogApi;
use super::operators::{Operator, SharedOperators};
use super::policy::{PolicyAsk, PolicyAsks};
use super::problem::Refusal;
use crate::authority::{Fold, HoldStatus, Restricted, RestrictionStatus, Scope};
use crate::clock::Clock;
use crate::ledger::{Administration, Attestation, Ledger, Receipt, Unrecorded};
use crate::limits;
use crate::model::entry::{AdminAction, AttestedBy, OperatorEntry, Role};
use crate::model::{ActorId, Decision, ReceiptId, SurfaceName};
use crate::reconcile::{NotSettled, Reconciler};

/// Shared by the listener's connections and the task that lets holds expire.
pub struct Control {
    pub fold: Arc<Fold>,
    pub ledger: Ledger,
    pub reconciler: Reconciler,
    pub log: LogApi,
    /// Those of the config.
    pub surfaces: Vec<SurfaceName>,
    pub clock: Clock,
    policy: PolicyAsks,
    operators: SharedOperators,
    turn: Arc<Mutex<()>>,
}

/// What was done. Members in RFC 8785 order.
#[derive(Debug, Serialize)]
pub struct Done {
    /// `false`: it was so already, and there is no leaf.
    pub changed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<DoneReceipt>,
}

/// The leaf of what was done.
#[derive(Debug, Serialize)]
pub struct DoneReceipt {
    pub entry: u64,
    pub leaf_hash: String,
    /// C2SP tlog-proof.
    pub proof: String,
    pub tree_size: u64,
}

impl Done {
    pub const UNCHANGED: Self = Self { changed: false, receipt: None };

    pub fn recorded(receipt: &Receipt) -> Self {
        let receipt = DoneReceipt {
            entry: receipt.index.0,
            leaf_hash: receipt.leaf_hash.to_string(),
            proof: receipt.proof().to_string(),
            tree_size: receipt.size.0,
        };
        Self { changed: true, receipt: Some(receipt) }
    }
}

impl Control {
    pub fn new(
        reconciler: Reconciler,
        log: LogApi,
        surfaces: Vec<SurfaceName>,
        operators: SharedOperators,
        clock: Clock,
        policy: PolicyAsks,
    ) -> Self {
        let (fold, ledger) = (reconciler.fold().clone(), reconciler.ledger().clone());
        Self { fold, ledger, reconciler, log, surfaces, clock, policy, operators, turn: Arc::default() }
    }

    /// In turn, and to its end.
    pub async fn carry_out(self: Arc<Self>, operator: Arc<Operator>, asked: Asked) -> Result<Done, Refusal> {
        // A reload has a turn of its own: nobody who freezes waits for a bundle to be compiled.
        let turn = match matches!(asked, Asked::ReloadPolicy { .. }) {
            true => None,
            false => Some(self.turn.clone().lock_owned().await),
        };
        let doing = tokio::spawn(async move {
            let _turn = turn;
            let what = asked.name();
            let done = self.change(&operator, asked).await;
            match &done {
                Ok(Done { receipt: Some(receipt), .. }) => {
                    tracing::info!(operator = %operator.id, action = what, entry = receipt.entry, "operated");
                }
                Ok(Done { receipt: None, .. }) => {
                    tracing::info!(operator = %operator.id, action = what, "was so already");
                }
                Err(refusal) => {
                    let reason = refusal.reason();
                    tracing::info!(operator = %operator.id, action = what, reason, "operation refused");
                }
            }
            done
        });
        doing.await.map_err(|_panicked| Refusal::Panicked)?
    }

    /// As [`Control::carry_out`], in the task of whoever asks: what asks in a fixed order is carried out in it.
    #[cfg(test)]
    pub(crate) async fn carry_out_here(&self, operator: &Operator, asked: Asked) -> Result<Done, Refusal> {
        let _turn = self.turn.lock().await;
        self.change(operator, asked).await
    }

    async fn change(&self, operator: &Operator, asked: Asked) -> Result<Done, Refusal> {
        match asked {
            Asked::Approve { hold, reason } => {
                let open = self.open_hold(hold, operator).await?;
                if open.approvals.iter().any(|approval| approval.by == operator.id) {
                    return Err(Refusal::ApprovedAlready);
                }
                if open.approvals.len() >= limits::APPROVALS_PER_HOLD_MAX {
                    return Err(Refusal::HoldOver { how: "has as many approvals as are counted" });
                }
                self.record(of_hold(AdminAction::Approve, operator.entry(), open.id, reason)).await
            }
            Asked::Refuse { hold, reason } => {
                let open = self.open_hold(hold, operator).await?;
                self.record(of_hold(AdminAction::Refuse, operator.entry(), open.id, reason)).await
            }
            Asked::Freeze { scope, reason } => {
                if self.is_frozen(&scope) {
                    return Ok(Done::UNCHANGED);
                }
                if let Scope::Surface(surface) = &scope {
                    self.is_declared(surface)?;
                }
                self.record(of_scope(AdminAction::Freeze, operator.entry(), scope, reason)).await
            }
            Asked::Unfreeze { scope, reason } => {
                if !self.is_frozen(&scope) {
                    return Err(Refusal::NotFrozen);
                }
                if let Scope::Actor(actor) = &scope {
                    self.is_of_another(operator, actor)?;
                }
                self.record(of_scope(AdminAction::Unfreeze, operator.entry(), scope, reason)).await
            }
            Asked::Quarantine { surface, actor, reason } => {
                if self.is_quarantined(&surface, &actor) {
                    return Ok(Done::UNCHANGED);
                }
                self.is_declared(&surface)?;
                let by = operator.entry();
                self.record(of_actor(AdminAction::Quarantine, by, surface, actor, reason)).await
            }
            Asked::Release { surface, actor, reason } => {
                if !self.is_quarantined(&surface, &actor) {
                    return Err(Refusal::NotQuarantined);
                }
                self.is_of_another(operator, &actor)?;
                self.record(of_actor(AdminAction::Release, operator.entry(), surface, actor, reason)).await
            }
            Asked::ReloadPolicy { reason, older } => {
                self.policy.ask(PolicyAsk { by: operator.entry(), reason, older }).await
            }
            Asked::Resolve { decision, status, evidence, reason } => {
                // An id that is none is told from one whose outcome is known.
                let (decision_index, leaf) = self.log.decision(decision).await?;
                if !self.fold.is_unknown(decision_index) {
                    return Err(Refusal::NotIndeterminate);
                }
                self.is_of_another(operator, &leaf.actor.id)?;
                let by = AttestedBy {
                    evidence: format!("{evidence} ({reason})").into(),
                    operator: Some(operator.entry()),
                };
                let budgets = leaf.reserves.into_iter().map(|reserve| reserve.budget).collect();
                let attestation = Attestation { decision_id: decision, decision_index, status, by, budgets };
                // The upstream may be saying it at the same time, or have said it since.
                let settled = self.reconciler.settle(attestation).await;
                settled.map(|receipt| Done::recorded(&receipt)).map_err(|why| match why {
                    NotSettled::NotUnknown => Refusal::NotIndeterminate,
                    NotSettled::Unrecorded(unrecorded) => Refusal::Unrecorded(unrecorded),
                    NotSettled::Panicked => Refusal::Panicked,
                })
            }
        }
    }

    /// One that can still be decided on, by this operator.
    async fn open_hold(&self, id: ReceiptId, operator: &Operator) -> Result<HoldStatus, Refusal> {
        let Some(hold) = self.fold.hold(id, self.clock.wall()) else {
            // It was one, if its decision says so.
            let (_, decision) = self.log.decision(id).await.map_err(|refusal| match refusal {
                Refusal::NoSuchReceipt => Refusal::HoldUnknown,
                other => other,
            })?;
            let is_hold = decision.decision == Decision::Escalate
                && decision.hold.as_ref().is_some_and(|hold| hold.id == decision.id);
            let over = Refusal::HoldOver { how: "expired, was refused, or its approvals were used" };
            return Err(if is_hold { over } else { Refusal::HoldUnknown });
        };
        if hold.is_expired {
            return Err(Refusal::HoldOver { how: "expired" });
        }
        if hold.refused.is_some() {
            return Err(Refusal::HoldOver { how: "was refused" });
        }
        if hold.used_by.is_some() {
            return Err(Refusal::HoldOver { how: "is used: its request was permitted" });
        }
        self.is_of_another(operator, &hold.actor)?;
        Ok(hold)
    }

    /// What closes an actor anybody may do, also to themselves; what opens it, or says what came of its request, is for
    /// somebody else.
    fn is_of_another(&self, operator: &Operator, actor: &ActorId) -> Result<(), Refusal> {
        if self.operators.load().is_agent(operator, actor.as_str()) {
            Err(Refusal::OwnRequest)
        } else {
            Ok(())
        }
    }

    fn is_frozen(&self, scope: &Scope) -> bool {
        self.has(|what| matches!(what, Restricted::Frozen(frozen) if frozen == scope))
    }

    fn is_quarantined(&self, on: &SurfaceName, whom: &ActorId) -> bool {
        let is_it = |what: &Restricted| match what {
            Restricted::Quarantined { surface, actor, decision: _ } => surface == on && actor == whom,
            Restricted::Frozen(_) => false,
        };
        self.has(is_it)
    }

    fn has(&self, is_it: impl Fn(&Restricted) -> bool) -> bool {
        self.fold.restrictions().iter().any(|RestrictionStatus { what, .. }| is_it(what))
    }

    fn is_declared(&self, surface: &SurfaceName) -> Result<(), Refusal> {
        if self.surfaces.contains(surface) { Ok(()) } else { Err(Refusal::SurfaceUnknown) }
    }

    async fn record(&self, administration: Administration) -> Result<Done, Refusal> {
        let recorded = self.ledger.record_admin(administration).await;
        recorded.map(|receipt| Done::recorded(&receipt)).map_err(Refusal::Unrecorded)
    }

    /// Records of every hold whose time is over that it is. One that cannot be recorded is tried again later; approvals
    /// do not count after their time in any case.
    pub async fn expire(&self) {
        for hold in self.fold.expired_holds(self.clock.wall()) {
            // One turn each, so that an operator waits for one of them and not for all.
            let _turn = self.turn.lock().await;
            // Since it was listed it may have been used, refused or recorded.
            if !self.fold.has_expired(hold, self.clock.wall()) {
                continue;
            }
            let by = OperatorEntry { id: GATEWAY.into(), role: Role::Administrator };
            let expired = of_hold(AdminAction::Expire, by, hold, "its time is over".into());
            match self.ledger.record_admin(expired).await {
                Ok(_) => {}
                Err(Unrecorded::Full | Unrecorded::Busy | Unrecorded::Poisoned) => return,
                Err(Unrecorded::TooLarge | Unrecorded::NotRedactable) => {
                    tracing::error!(%hold, "that a hold expired cannot be recorded");
                }
            }
        }
    }

    /// Lets holds expire until `stop`.
    pub async fn keep_expiring(self: Arc<Self>, stop: CancellationToken) {
        let mut every = interval(Duration::from_millis(limits::HOLDS_EXPIRE_EVERY_MS));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _tick = every.tick() => self.expire().await,
            }
        }
    }
}

/// Who does what no operator does.
const GATEWAY: &str = "gateway";

impl Asked {
    const fn name(&self) -> &'static str {
        match self {
            Self::Approve { .. } => AdminAction::Approve.as_str(),
            Self::Refuse { .. } => AdminAction::Refuse.as_str(),
            Self::Freeze { .. } => AdminAction::Freeze.as_str(),
            Self::Unfreeze { .. } => AdminAction::Unfreeze.as_str(),
            Self::Quarantine { .. } => AdminAction::Quarantine.as_str(),
            Self::Release { .. } => AdminAction::Release.as_str(),
            Self::Resolve { .. } => "resolve",
            Self::ReloadPolicy { .. } => "reload_policy",
        }
    }
}

fn of_hold(action: AdminAction, by: OperatorEntry, hold: ReceiptId, reason: Arc<str>) -> Administration {
    Administration { action, by, surface: None, actor: None, hold: Some(hold), reason }
}

fn of_scope(action: AdminAction, by: OperatorEntry, scope: Scope, reason: Arc<str>) -> Administration {
    let (surface, actor) = match scope {
        Scope::All => (None, None),
        Scope::Surface(surface) => (Some(surface), None),
        Scope::Actor(actor) => (None, Some(actor)),
    };
    Administration { action, by, surface, actor, hold: None, reason }
}

fn of_actor(
    action: AdminAction,
    by: OperatorEntry,
    surface: SurfaceName,
    actor: ActorId,
    reason: Arc<str>,
) -> Administration {
    Administration { action, by, surface: Some(surface), actor: Some(actor), hold: None, reason }
}
