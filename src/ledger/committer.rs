//! The one thread that writes the log: group commit without a timer.
//!
//! It takes everything that waits, appends it as one frame, and only when that is durable and signed tells
//! the callers. While it writes, the next batch gathers. It ends when the ledger is closed, dropped, or
//! poisoned: by an error that leaves the disk's state unknown, or by a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::appender::{Appended, Appender, Duty, Leaf, NotAppended};
use super::archive::{End, Written};
use super::entries::{self, EpochFacts};
use super::follow::Following;
use super::heartbeat::Heartbeat;
use super::queue::{Done, Effect, Kind, Pending, Shared, Stage};
use super::recorded::{Batch, OpenPermit, Receipt, Unrecorded};
use super::statistics::{Counters, Observer};
use super::{Health, Start};
use crate::limits;
use crate::merkle::batch::BatchTree;
use crate::model::entry::{EpochEvent, RefusalEntry};
use crate::model::{Decision, Digest, LeafIndex};

/// How [`super::Ledger::close`] found the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The stop leaf is the last one, and the checkpoint covers it.
    Clean,
    /// Permits without an outcome remained; the next start settles them.
    PermitsOpen(usize),
    /// The log could not be written to its end.
    Poisoned,
}

/// What a close asks for, kept with the committer's end of the channel.
pub struct Closing {
    pub wait: Duration,
    /// Refusals that were counted and not written.
    pub remainders: Vec<RefusalEntry>,
}

pub struct Committer {
    pub shared: Arc<Shared>,
    pub appender: Appender,
    pub observer: Arc<dyn Observer>,
    pub start: Start,
    pub following: Following,
    pub batch_bytes_max: usize,
    /// `None`: an idle log stays as it is.
    pub heartbeat: Option<Heartbeat>,
    /// Filled by [`super::Ledger::close`]; empty when the last handle was dropped instead.
    pub closing: Arc<std::sync::Mutex<Option<Closing>>>,
}

impl Committer {
    /// The committer's thread.
    pub fn run(mut self) -> Closed {
        // The closure owns all it may leave half-done, and nothing of it is used after a panic.
        let ended =
            catch_unwind(AssertUnwindSafe(|| self.commit_until_closed().and_then(|open| self.stop(open))));
        let (health, closed) = match ended {
            Ok(Ok(closed)) => (Health::Closed, closed),
            Ok(Err(error)) => {
                tracing::error!(%error, "the log is poisoned");
                (Health::Poisoned, Closed::Poisoned)
            }
            Err(_) => {
                tracing::error!("the log is poisoned: the committer panicked");
                (Health::Poisoned, Closed::Poisoned)
            }
        };
        let is_closing = self.shared.lock().stage == Stage::Closing;
        self.shared.end(health);
        self.shared.publisher.close();
        self.shared.archive.end(match health {
            Health::Closed if is_closing => End::CatchUp,
            Health::Accepting | Health::Full | Health::Poisoned | Health::Closed => End::Now,
        });
        closed
    }

    /// Returns how many permits are still open.
    fn commit_until_closed(&mut self) -> Result<usize, NotAppended> {
        let mut patience = None;
        loop {
            let mut queue = self.shared.lock();
            loop {
                if !queue.items.is_empty() {
                    break;
                }
                queue.is_waited_on = true;
                match queue.stage {
                    Stage::Running if self.appender.has_spare() => match self.until_heartbeat() {
                        None => {
                            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                        }
                        Some(left) if !left.is_zero() => {
                            let waited = self.shared.changed.wait_timeout(queue, left);
                            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                        }
                        Some(_) => {
                            queue.is_waited_on = false;
                            drop(queue);
                            self.beat()?;
                            queue = self.shared.lock();
                        }
                    },
                    // Full: looks for room also when nobody asks, or a gateway that is not ready stays so.
                    Stage::Running => {
                        let waited = self.shared.changed.wait_timeout(queue, ROOM_RETRY);
                        drop(waited.unwrap_or_else(PoisonError::into_inner).0);
                        self.look_for_room();
                        queue = self.shared.lock();
                    }
                    Stage::Closing if queue.open_permits == 0 => return Ok(0),
                    Stage::Closing => {
                        let left = patience.get_or_insert_with(|| self.patience());
                        let waited = self.shared.changed.wait_timeout(queue, PATIENCE_STEP.min(*left));
                        let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                        queue = woken;
                        if timeout.timed_out() {
                            *left = left.saturating_sub(PATIENCE_STEP);
                        }
                        if left.is_zero() && queue.items.is_empty() {
                            return Ok(queue.open_permits);
                        }
                    }
                    Stage::Ended => return Ok(queue.open_permits),
                }
            }
            queue.is_waited_on = false;
            let batch = self.shared.drain(&mut queue, self.batch_bytes_max);
            drop(queue);
            self.commit(batch)?;
        }
    }

    /// Zero: now. `None`: never.
    fn until_heartbeat(&self) -> Option<Duration> {
        let heartbeat = self.heartbeat.as_ref()?;
        Some(heartbeat.left(self.shared.clock.monotonic()).unwrap_or_default())
    }

    /// Writes a leaf that says that nothing was written. Where there is no room for it, nothing is lost.
    fn beat(&mut self) -> Result<(), NotAppended> {
        let Some(heartbeat) = &mut self.heartbeat else { return Ok(()) };
        heartbeat.begin_again(self.shared.clock.monotonic());
        let (every_s, now) = (heartbeat.every_s(), self.shared.clock.wall());
        let bytes = entries::heartbeat_bytes(every_s, self.appender.edge(), self.shared.epoch, now);
        let leaf = Leaf::new(bytes, Vec::new(), Kind::Note.duty());
        // Nobody waits for it.
        let (reply, _) = oneshot::channel();
        let (effect, budgets) = (Effect::default(), Vec::new());
        self.commit(vec![Pending { leaf, effect, kind: Kind::Note, budgets, reply }])
    }

    fn patience(&self) -> Duration {
        self.closing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map_or(Duration::ZERO, |c| c.wait)
    }

    pub(super) fn commit(&mut self, mut batch: Vec<Pending>) -> Result<(), NotAppended> {
        let drained = self.shared.clock.monotonic();
        let mut leaves: Vec<Leaf> = batch.iter_mut().map(|p| take_leaf(&mut p.leaf)).collect();
        let Some(appended) = self.append_what_fits(&mut batch, &mut leaves)? else { return Ok(()) };
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.begin_again(self.shared.clock.monotonic());
        }
        let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf.hash).collect();
        self.set_health(if self.appender.has_spare() { Health::Accepting } else { Health::Full });
        self.shared.publisher.offer(Arc::clone(&appended.checkpoint));
        self.shared.archive.offer_frame(Arc::clone(&appended.checkpoint), written(&appended, leaves));
        self.follow(&mut batch, &appended);
        self.count(&appended, hashes.len(), drained);
        self.release(batch, hashes, appended);
        Ok(())
    }

    /// Whoever follows the log hears of it before the callers do.
    fn follow(&self, batch: &mut [Pending], appended: &Appended) {
        let effects = batch.iter_mut().map(|p| std::mem::take(&mut p.effect));
        let (mut changes, mut guards) = (Vec::new(), Vec::new());
        for (index, Effect { change, guard }) in (appended.first.0..).map(LeafIndex).zip(effects) {
            changes.extend(change.map(|change| (index, change)));
            guards.extend(guard);
        }
        self.following.tell(appended, changes);
        // What they kept is the follower's now.
        drop(guards);
    }

    /// `None` if nothing of the batch is left.
    fn append_what_fits(
        &mut self,
        batch: &mut Vec<Pending>,
        leaves: &mut Vec<Leaf>,
    ) -> Result<Option<Appended>, NotAppended> {
        self.appender.keep_room_for(self.shared.lock().open_permits);
        loop {
            let error = match self.appender.append(leaves) {
                Err(NotAppended::NoRoom(error)) => error,
                appended => return appended.map(Some),
            };
            self.set_health(Health::Full);
            if leaves.iter().any(Leaf::needs_spare) {
                tracing::warn!(%error, "the log has no room for decisions");
                self.turn_away(Duty::Optional, batch, leaves);
                for (item, leaf) in batch.iter_mut().zip(leaves.iter_mut()) {
                    if leaf.make_lean() {
                        item.effect.without_answer();
                    }
                }
            } else if leaves.iter().any(|l| l.duty == Duty::Wanted) {
                tracing::warn!(%error, "the log has room only for what it owes");
                self.turn_away(Duty::Wanted, batch, leaves);
            } else {
                return Err(NotAppended::NoRoom(error));
            }
            if leaves.is_empty() {
                return Ok(None);
            }
        }
    }

    fn turn_away(&self, duty: Duty, batch: &mut Vec<Pending>, leaves: &mut Vec<Leaf>) {
        leaves.retain(|l| l.duty != duty);
        let (kept, turned_away): (Vec<_>, Vec<_>) =
            std::mem::take(batch).into_iter().partition(|p| p.kind.duty() != duty);
        *batch = kept;
        self.shared.permits_closed(turned_away.iter().filter(|p| p.kind.opens_permit()).count());
        for item in turned_away {
            // Nothing was written, so a caller that no longer waits has lost nothing.
            let _ = item.reply.send(Err(Unrecorded::Full));
        }
    }

    fn count(&self, appended: &Appended, leaves: usize, drained: crate::clock::Moment) {
        let took = self.shared.clock.monotonic().since(drained);
        let counters = &self.shared.counters;
        Counters::set(&counters.leaves, appended.size.0);
        Counters::add(&counters.frames, 1);
        Counters::set(&counters.last_batch, leaves as u64);
        Counters::set(&counters.last_commit_us, took.as_micros() as u64);
        self.observer.committed(leaves, took, appended.sync);
    }

    fn release(&self, batch: Vec<Pending>, hashes: Vec<Digest>, appended: Appended) {
        let Appended { first, before, size, checkpoint, .. } = appended;
        let tree = BatchTree::new(before, hashes.clone());
        let committed = Arc::new(Batch { tree, checkpoint });
        self.shared.permits_closed(batch.iter().filter(|p| p.kind == Kind::Outcome).count());
        for ((index, item), leaf_hash) in (first.0..).map(LeafIndex).zip(batch).zip(hashes) {
            let (id, decision) = match item.kind {
                Kind::Decision(id, decision) => (Some(id), Some(decision)),
                Kind::Note | Kind::Event | Kind::Outcome => (None, None),
            };
            let open = match item.kind {
                Kind::Decision(id, Decision::Permit) => {
                    Some(OpenPermit::new(Arc::clone(&self.shared), id, index, item.budgets))
                }
                Kind::Decision(..) | Kind::Note | Kind::Event | Kind::Outcome => None,
            };
            let batch = Arc::clone(&committed);
            let receipt = Receipt { id, index, size, leaf_hash, decision, batch };
            // A caller that no longer waits drops its permit here, and that queues its `not_sent`.
            let _ = item.reply.send(Ok(Done { receipt, open }));
        }
    }

    fn look_for_room(&mut self) {
        if self.appender.take_spare().is_ok() {
            self.set_health(Health::Accepting);
        }
    }

    fn set_health(&self, health: Health) {
        self.shared.health.send_if_modified(|now| {
            let changed = *now != health;
            *now = health;
            changed
        });
    }

    /// Remainders, the stop leaf, the last checkpoint. Without a close, or with open permits, nothing.
    pub(super) fn stop(&mut self, open: usize) -> Result<Closed, NotAppended> {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(closing) = closing.filter(|_| open == 0) else { return Ok(Closed::PermitsOpen(open)) };
        let remainders: Vec<Leaf> = closing
            .remainders
            .into_iter()
            .map(|r| Leaf::new(entries::refusal_bytes(r), Vec::new(), Duty::Optional))
            .collect();
        for frame in remainders.chunks(limits::FRAME_ENTRIES_MAX) {
            match self.append_last(frame) {
                Err(NotAppended::NoRoom(error)) => {
                    tracing::warn!(%error, "no room for the counts of suppressed refusals");
                    break;
                }
                written => written?,
            }
        }
        let facts = EpochFacts {
            epoch: self.shared.epoch,
            now: self.shared.clock.wall(),
            start: &self.start,
            vkeys: self.appender.signers().vkeys(),
            tree: self.appender.edge(),
            clean: true,
            torn_bytes: 0,
        };
        let stop = entries::epoch_bytes(EpochEvent::Stop, facts);
        self.append_last(&[Leaf::new(stop, Vec::new(), Duty::Owed)])?;
        Ok(Closed::Clean)
    }

    fn append_last(&mut self, leaves: &[Leaf]) -> Result<(), NotAppended> {
        let appended = self.appender.append(leaves)?;
        self.shared.publisher.offer(Arc::clone(&appended.checkpoint));
        self.shared.archive.offer(Arc::clone(&appended.checkpoint));
        Counters::set(&self.shared.counters.leaves, appended.size.0);
        self.following.tell(&appended, Vec::new());
        Ok(())
    }
}

const ROOM_RETRY: Duration = Duration::from_millis(limits::ROOM_RETRY_MS);

/// How often a close looks whether permits are still open.
const PATIENCE_STEP: Duration = Duration::from_millis(10);

/// What the archiver need not read and hash again.
fn written(appended: &Appended, leaves: Vec<Leaf>) -> Written {
    let Appended { first, spot, end, previous, chain, root, .. } = *appended;
    let leaves = leaves.into_iter().map(|leaf| (leaf.bytes, leaf.hash)).collect();
    Written { first, leaves, root, spot, end, previous, chain }
}

/// The leaf moves into the frame; its place in the batch keeps kind and reply.
fn take_leaf(leaf: &mut Leaf) -> Leaf {
    let Leaf { hash, duty, .. } = *leaf;
    let (bytes, evidence) = (std::mem::take(&mut leaf.bytes), std::mem::take(&mut leaf.evidence));
    Leaf { bytes, hash, evidence, duty, lean: leaf.lean.take() }
}
