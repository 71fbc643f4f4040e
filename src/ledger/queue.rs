//! What waits for the committer, and the ledger's state that callers and committer share.
//!
//! Decisions and refusals are bounded and turned away; outcomes never are, because each was promised room
//! when its permit was taken in. Leaves are built before they are queued, so the committer only writes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::Health;
use super::appender::{Duty, Leaf};
use super::archive::Feed;
use super::publisher::Publisher;
use super::recorded::{Guard, OpenPermit, Receipt, Unrecorded};
use super::statistics::Counters;
use crate::clock::Clock;
use crate::limits;
use crate::model::entry::Entry;
use crate::model::{BudgetName, Change, Decision, Epoch, ReceiptId};
use crate::redaction::EpochKey;

/// A durable, signed leaf. Dropping it unseen drops its permit, which then records `not_sent`.
#[derive(Debug)]
pub struct Done {
    pub receipt: Receipt,
    /// For a PERMIT.
    pub open: Option<OpenPermit>,
}

pub type Reply = oneshot::Sender<Result<Done, Unrecorded>>;
pub type Answer = oneshot::Receiver<Result<Done, Unrecorded>>;

/// What a leaf is, as far as the committer must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Decision(ReceiptId, Decision),
    /// A refusal, a heartbeat.
    Note,
    /// A policy activation, what an operator did, an outcome that somebody else vouches for.
    Event,
    Outcome,
}

impl Kind {
    pub const fn duty(self) -> Duty {
        match self {
            Self::Decision(..) | Self::Note => Duty::Optional,
            Self::Event => Duty::Wanted,
            Self::Outcome => Duty::Owed,
        }
    }

    pub const fn opens_permit(self) -> bool {
        matches!(self, Self::Decision(_, Decision::Permit))
    }
}

/// What a leaf does beyond standing in the log, once it is durable.
#[derive(Debug, Default)]
pub struct Effect {
    /// Of the state that follows the log.
    pub change: Option<Change>,
    /// Dropped when the change is applied, or when the leaf is not written.
    pub guard: Option<Guard>,
}

impl Effect {
    /// Of a PERMIT: the budgets it takes of, which its outcome settles.
    fn budgets(&self) -> Vec<BudgetName> {
        match &self.change {
            Some(Change::Permitted(permitted)) => {
                permitted.reserves.iter().map(|reserve| reserve.budget.clone()).collect()
            }
            Some(
                Change::Held(_)
                | Change::Quarantined { .. }
                | Change::Settled(_)
                | Change::Administered(_)
                | Change::Activated(_),
            )
            | None => Vec::new(),
        }
    }

    /// The leaf is written without its evidence.
    pub fn without_answer(&mut self) {
        if let Some(Change::Settled(settlement)) = &mut self.change {
            settlement.answer = None;
        }
    }
}

/// What the leaf changes in the state that follows the log.
pub fn change_of(entry: &Entry) -> Option<Change> {
    // Our own leaves have times that can be read.
    Change::of(entry).expect("a leaf made here is valid")
}

#[derive(Debug)]
pub struct Pending {
    pub leaf: Leaf,
    pub effect: Effect,
    pub kind: Kind,
    /// Of a PERMIT: what its outcome settles.
    pub budgets: Vec<BudgetName>,
    pub reply: Reply,
}

impl Pending {
    /// Leaves out evidence for which there is no room.
    fn make_lean(&mut self) {
        if self.leaf.make_lean() {
            self.effect.without_answer();
        }
    }

    fn answer_bytes(&self) -> usize {
        if self.leaf.lean.is_some() { self.leaf.cost() } else { 0 }
    }
}

/// How the ledger is coming to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Running,
    /// Outcomes are taken until all permits are closed; nothing else is.
    Closing,
    /// Nothing is taken.
    Ended,
}

#[derive(Debug)]
pub struct Queue {
    pub items: VecDeque<Pending>,
    /// Those of them that may be turned away.
    pub optional: usize,
    /// Those that are wanted.
    pub events: usize,
    /// Bytes of those with evidence that may be left out.
    pub answer_bytes: usize,
    /// PERMITs queued or recorded, whose outcome is not durable.
    pub open_permits: usize,
    pub stage: Stage,
    /// The committer waits for a change, and nobody has woken it: one wake is enough, and none while it writes.
    pub is_waited_on: bool,
}

/// Shared by every handle, every open permit and the committer.
pub struct Shared {
    queue: Mutex<Queue>,
    pub changed: Condvar,
    /// As `changed`, for a committer that is no thread.
    #[cfg(test)]
    pub pushed: tokio::sync::Notify,
    pub health: watch::Sender<Health>,
    pub counters: Counters,
    pub publisher: Publisher,
    pub archive: Feed,
    pub clock: Clock,
    pub epoch: Epoch,
    /// The run's key for what is kept out of the log.
    pub salts: Option<EpochKey>,
    pub permits_max: usize,
    /// What one leaf and its evidence may take in a frame.
    pub leaf_cost_max: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(
        clock: Clock,
        epoch: Epoch,
        salts: Option<EpochKey>,
        archive: Feed,
        permits_max: usize,
        leaf_cost_max: usize,
    ) -> Self {
        Self {
            queue: Mutex::new(Queue {
                items: VecDeque::new(),
                optional: 0,
                events: 0,
                answer_bytes: 0,
                open_permits: 0,
                stage: Stage::Running,
                is_waited_on: false,
            }),
            changed: Condvar::new(),
            #[cfg(test)]
            pushed: tokio::sync::Notify::new(),
            health: watch::Sender::new(Health::Accepting),
            counters: Counters::default(),
            publisher: Publisher::default(),
            archive,
            clock,
            epoch,
            salts,
            permits_max,
            leaf_cost_max,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole after every statement that holds it; what a panic means is the committer's question.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a leaf; the answer comes when it is durable and signed.
    pub fn push(&self, leaf: Leaf, kind: Kind, effect: Effect) -> Result<Answer, Unrecorded> {
        assert!(leaf.duty == kind.duty(), "a leaf and its kind agree on what may become of it");
        let (reply, answer) = oneshot::channel();
        let budgets = effect.budgets();
        let mut item = Pending { leaf, effect, kind, budgets, reply };
        if self.is_too_large(&item.leaf) {
            item.make_lean();
        }
        if self.is_too_large(&item.leaf) {
            return Err(Unrecorded::TooLarge);
        }
        let mut queue = self.lock();
        queue.admit(kind, self.permits_max)?;
        if queue.answer_bytes + item.answer_bytes() > limits::QUEUED_ANSWERS_BYTES_MAX {
            item.make_lean();
        }
        queue.answer_bytes += item.answer_bytes();
        queue.items.push_back(item);
        Counters::set(&self.counters.queued, queue.items.len() as u64);
        Counters::set(&self.counters.open_permits, queue.open_permits as u64);
        self.wake(queue);
        Ok(answer)
    }

    fn is_too_large(&self, leaf: &Leaf) -> bool {
        leaf.bytes.len() > limits::ENTRY_BYTES_MAX
            || leaf.cost() > self.leaf_cost_max
            || leaf.evidence.iter().any(|(_, bytes)| bytes.len() > limits::EVIDENCE_BYTES_MAX)
    }

    /// Takes what one frame can hold off the front. `bytes_max` bounds all but the last.
    pub fn drain(&self, queue: &mut Queue, bytes_max: usize) -> Vec<Pending> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && batch.len() < limits::FRAME_ENTRIES_MAX {
            let Some(item) = queue.items.pop_front() else { break };
            bytes += item.leaf.cost();
            queue.optional -= usize::from(item.kind.duty() == Duty::Optional);
            queue.events -= usize::from(item.kind.duty() == Duty::Wanted);
            queue.answer_bytes -= item.answer_bytes();
            batch.push(item);
        }
        Counters::set(&self.counters.queued, queue.items.len() as u64);
        batch
    }

    /// Permits that will have no outcome to come, or just had it.
    pub fn permits_closed(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut queue = self.lock();
        assert!(queue.open_permits >= count, "a permit is closed once");
        queue.open_permits -= count;
        Counters::set(&self.counters.open_permits, queue.open_permits as u64);
        self.wake(queue);
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let waits = std::mem::take(&mut queue.is_waited_on);
        drop(queue);
        #[cfg(test)]
        self.pushed.notify_one();
        if waits {
            self.changed.notify_one();
        }
    }

    /// Nothing more is taken, and nothing that waits will be written.
    pub fn end(&self, health: Health) {
        let mut queue = self.lock();
        queue.stage = Stage::Ended;
        let waiting = std::mem::take(&mut queue.items);
        (queue.optional, queue.events, queue.answer_bytes) = (0, 0, 0);
        Counters::set(&self.counters.queued, 0);
        drop(queue);
        self.health.send_replace(health);
        for item in waiting {
            // A caller that no longer waits has lost nothing: nothing was written.
            let _ = item.reply.send(Err(Unrecorded::Poisoned));
        }
    }
}

impl Queue {
    fn admit(&mut self, kind: Kind, permits_max: usize) -> Result<(), Unrecorded> {
        match (self.stage, kind.duty()) {
            (Stage::Ended, _) | (Stage::Closing, Duty::Optional | Duty::Wanted) => {
                return Err(Unrecorded::Poisoned);
            }
            (Stage::Running, _) | (Stage::Closing, Duty::Owed) => {}
        }
        if kind.duty() == Duty::Wanted {
            if self.events >= limits::QUEUED_EVENTS_MAX {
                return Err(Unrecorded::Busy);
            }
            self.events += 1;
        }
        if kind.duty() == Duty::Optional {
            if self.optional >= limits::QUEUED_DECISIONS_MAX {
                return Err(Unrecorded::Busy);
            }
            if kind.opens_permit() && self.open_permits >= permits_max {
                return Err(Unrecorded::Busy);
            }
            self.optional += 1;
            self.open_permits += usize::from(kind.opens_permit());
        }
        Ok(())
    }
}
