//! What operators do, one after the other, and the gateway by itself: holds expire, old connections close.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::journal::What;
use super::life::Life;
use super::script::{ACTORS, Event, Frozen, SURFACE};
use crate::admin::{Asked, Control, Done, LogApi, Operator, PolicyAsks, Refusal};
use crate::authority::Scope;
use crate::ledger::{Attestation, Attested};
use crate::limits;
use crate::model::ReceiptId;
use crate::model::entry::{AttestedBy, Role};
use crate::reconcile::Reconciler;

pub struct Operators {
    life: Arc<Life>,
    control: Control,
    /// Two, so that one request can have two approvals.
    people: [Operator; 2],
}

impl Operators {
    pub fn new(life: &Arc<Life>) -> Self {
        let (asks, _orders) = PolicyAsks::new();
        let control = Control::new(
            Reconciler::new(Arc::clone(&life.fold), life.ledger.clone()),
            LogApi::new(life.ledger.clone()),
            vec![SURFACE.parse().expect("a name")],
            Default::default(),
            life.world.clock.clone(),
            asks,
        );
        let people = ["ann", "bob"].map(|id| Operator {
            id: id.into(),
            role: Role::Administrator,
            token: None,
            certificate: None,
            uid: None,
            not_after: None,
        });
        Self { life: Arc::clone(life), control, people }
    }

    /// Until there is nothing more to do.
    pub async fn keep_operating(self, mut events: mpsc::UnboundedReceiver<Event>) {
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.operate(event).await,
                    None => return self.control.expire().await,
                },
                () = sleep(Duration::from_millis(limits::HOLDS_EXPIRE_EVERY_MS)) => {
                    self.control.expire().await;
                    self.life.surface.upstream.close_aged();
                }
            }
        }
    }

    async fn operate(&self, event: Event) {
        let (journal, reason) = (&self.life.world.journal, Arc::from("as scripted"));
        match event {
            Event::Approve(nth, by) => {
                if let Some(hold) = self.hold(nth) {
                    // Of one that has expired, is used or was refused there is nothing more to say.
                    let _ =
                        self.control.carry_out_here(&self.people[by], Asked::Approve { hold, reason }).await;
                }
            }
            Event::Refuse(nth) => {
                if let Some(hold) = self.hold(nth) {
                    let _ =
                        self.control.carry_out_here(&self.people[0], Asked::Refuse { hold, reason }).await;
                }
            }
            Event::Freeze(what) => {
                let asked = Asked::Freeze { scope: scope(what), reason };
                if self.carried_out(asked).await.is_ok() {
                    journal.add(What::FreezeReturned(what));
                }
            }
            Event::Unfreeze(what) => {
                journal.add(What::UnfreezeAsked(what));
                let _ = self.carried_out(Asked::Unfreeze { scope: scope(what), reason }).await;
            }
            Event::Quarantine(actor) => {
                let (surface, whom) =
                    (SURFACE.parse().expect("a name"), ACTORS[actor].parse().expect("an id"));
                if self.carried_out(Asked::Quarantine { surface, actor: whom, reason }).await.is_ok() {
                    journal.add(What::QuarantineReturned(actor));
                }
            }
            Event::Release(actor) => {
                journal.add(What::ReleaseAsked(actor));
                let (surface, whom) =
                    (SURFACE.parse().expect("a name"), ACTORS[actor].parse().expect("an id"));
                let _ = self.carried_out(Asked::Release { surface, actor: whom, reason }).await;
            }
            Event::Resolve => self.resolve().await,
            other => unreachable!("no operator's: {other:?}"),
        }
    }

    async fn carried_out(&self, asked: Asked) -> Result<Done, Refusal> {
        self.control.carry_out_here(&self.people[0], asked).await
    }

    fn hold(&self, nth: usize) -> Option<ReceiptId> {
        let holds = self.life.fold.holds(self.life.world.clock.wall());
        (!holds.is_empty()).then(|| holds[nth % holds.len()].id)
    }

    /// What nobody knows, somebody finds out: as `Control` does it, after it has read the decision from the archive.
    async fn resolve(&self) {
        let Some(unknown) = self.life.fold.unknown().first().copied() else { return };
        let status = if self.life.world.dice(|dice| dice.percent(50)) {
            Attested::Confirmed
        } else {
            Attested::Failed
        };
        let attestation = Attestation {
            decision_id: unknown.decision_id,
            decision_index: unknown.decision_index,
            status,
            by: AttestedBy { evidence: "as scripted".into(), operator: Some(self.people[1].entry()) },
            budgets: vec!["spend".parse().expect("a name")],
        };
        // Somebody else may have said so meanwhile.
        let _ = self.control.reconciler.settle(attestation).await;
    }
}

fn scope(what: Frozen) -> Scope {
    match what {
        Frozen::All => Scope::All,
        Frozen::Surface => Scope::Surface(SURFACE.parse().expect("a name")),
        Frozen::Actor(actor) => Scope::Actor(ACTORS[actor].parse().expect("an id")),
    }
}
