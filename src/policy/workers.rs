//! Evaluation threads behind a bounded queue.
//!
//! An engine call cannot be interrupted. So a caller waits no longer than its deadline and then leaves; the
//! thread is counted as stuck until it comes back. When every thread is stuck, or the queue is full, a
//! question is turned away at once, so a runaway costs at most the threads there are.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::evaluate::Finding;
use crate::limits;
use crate::model::ReasonCode;

/// What a thread runs: it is told its number, so that it can use its own copy of an engine.
type Work = Box<dyn FnOnce(usize) -> Finding + Send>;

struct Job {
    work: Work,
    state: Arc<AtomicU8>,
    reply: oneshot::Sender<Finding>,
}

// The life of a job, known to the caller and the thread.
const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
/// The caller left before it ran: it never will.
const ABANDONED: u8 = 3;
/// The caller left while it ran: its thread counts as stuck.
const STUCK: u8 = 4;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    queue_max: usize,
    workers: usize,
    stuck: AtomicUsize,
}

/// The threads end when this is dropped; a stuck one when its call returns.
pub(super) struct Workers(Arc<Shared>);

/// How long each evaluation takes where there are no threads: a simulation says it.
#[cfg(test)]
pub(crate) type Pace = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Where evaluations run.
pub(super) enum Place {
    Threads(Workers),
    #[cfg(test)]
    Here(Pace),
}

impl Place {
    pub(super) fn stuck(&self) -> usize {
        match self {
            Self::Threads(workers) => workers.stuck(),
            #[cfg(test)]
            Self::Here(_) => 0,
        }
    }

    /// Waits for the answer, but no longer than `deadline`.
    pub(super) async fn run(
        &self,
        deadline: Duration,
        work: impl FnOnce(usize) -> Finding + Send + 'static,
    ) -> Finding {
        match self {
            Self::Threads(workers) => workers.run(deadline, work).await,
            #[cfg(test)]
            Self::Here(pace) => match pace() {
                late if late > deadline => {
                    tokio::time::sleep(deadline).await;
                    Finding::silence(ReasonCode::EvaluationTimeout, "simulated".into())
                }
                took => {
                    tokio::time::sleep(took).await;
                    work(0)
                }
            },
        }
    }
}

impl Workers {
    pub(super) fn start(workers: NonZeroUsize, queue_max: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            queue_max,
            workers: workers.get(),
            stuck: AtomicUsize::new(0),
        });
        let started = Self(shared.clone());
        for number in 0..workers.get() {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("policy-{number}"))
                .stack_size(limits::EVALUATION_STACK_BYTES)
                .spawn(move || shared.serve(number))?;
        }
        Ok(started)
    }

    pub(super) fn stuck(&self) -> usize {
        self.0.stuck.load(Ordering::Acquire)
    }

    /// Waits for the answer, but no longer than `deadline`.
    pub(super) async fn run(
        &self,
        deadline: Duration,
        work: impl FnOnce(usize) -> Finding + Send + 'static,
    ) -> Finding {
        let (reply, answer) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(QUEUED));
        if let Err(why) = self.0.enqueue(Job { work: Box::new(work), state: state.clone(), reply }) {
            return Finding::silence(ReasonCode::EvaluationOverloaded, why.into());
        }
        // Dropping this, by the deadline or because the caller went away, is leaving.
        let _waiting = Waiting { shared: &self.0, state: state.clone() };
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(_)) => {
                Finding::silence(ReasonCode::EvaluationOverloaded, "the evaluation threads are ending".into())
            }
            Err(_) if state.load(Ordering::Acquire) == QUEUED => {
                let cause = "no evaluation thread was free before the deadline".into();
                Finding::silence(ReasonCode::EvaluationOverloaded, cause)
            }
            Err(_) => {
                let cause = format!("no verdict within {} ms", deadline.as_millis());
                Finding::silence(ReasonCode::EvaluationTimeout, cause)
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.0.ready.notify_all();
    }
}

struct Waiting<'a> {
    shared: &'a Shared,
    state: Arc<AtomicU8>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Acquire) == DONE
            || self.state.compare_exchange(QUEUED, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            return;
        }
        // Counted before it is marked: the thread subtracts only what it sees marked.
        self.shared.stuck.fetch_add(1, Ordering::AcqRel);
        if self.state.compare_exchange(RUNNING, STUCK, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.shared.stuck.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Shared {
    /// No code of ours panics while it holds the lock, and the queue is whole at every step.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, job: Job) -> Result<(), &'static str> {
        if self.stuck.load(Ordering::Acquire) >= self.workers {
            return Err("every evaluation thread is stuck");
        }
        let mut queue = self.lock();
        if queue.jobs.len() >= self.queue_max {
            return Err("the evaluation queue is full");
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.ready.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn serve(&self, number: usize) {
        while let Some(Job { work, state, reply }) = self.next() {
            if state.compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_err() {
                continue;
            }
            let finding = work(number);
            if state.swap(DONE, Ordering::AcqRel) == STUCK {
                self.stuck.fetch_sub(1, Ordering::AcqRel);
            }
            // The caller may have left; then nobody needs it.
            let _ = reply.send(finding);
        }
    }
}
