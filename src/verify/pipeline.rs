//! Prepares frames on other threads and gives them back in order, with a bounded number under way.
//!
//! Batches go to the threads in turn and are taken from them in the same turn, so order costs nothing. A log that
//! fits into one batch is prepared where it is read.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

use super::prepare::{Prepared, Raw, prepare};
use crate::limits;

struct Worker {
    batches: SyncSender<Vec<Raw>>,
    prepared: Receiver<Vec<Prepared>>,
}

pub struct Pipeline<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    workers: Vec<Worker>,
    filling: Vec<Raw>,
    filling_bytes: usize,
    /// Workers that owe a batch, in the order in which they were given it.
    owing: VecDeque<usize>,
    next: usize,
}

impl<'scope, 'env> Pipeline<'scope, 'env> {
    pub fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        let threads = thread::available_parallelism().map_or(1, |n| n.get().min(limits::VERIFY_THREADS_MAX));
        Self {
            scope,
            threads,
            workers: Vec::new(),
            filling: Vec::new(),
            filling_bytes: 0,
            owing: VecDeque::new(),
            next: 0,
        }
    }

    /// Puts a frame in; what comes out was put in earlier.
    pub fn put(&mut self, raw: Raw) -> Vec<Prepared> {
        self.filling_bytes += raw.bytes.len();
        self.filling.push(raw);
        if self.filling_bytes < limits::VERIFY_BATCH_BYTES {
            return Vec::new();
        }
        if self.workers.is_empty() {
            self.workers = (0..self.threads).map(|_| worker(self.scope)).collect();
        }
        let full = self.owing.len() >= self.workers.len() * limits::VERIFY_BATCHES_WAITING;
        let out = if full { self.oldest() } else { Vec::new() };
        self.send();
        out
    }

    /// The next ones that are under way; empty once all have come out.
    pub fn drain(&mut self) -> Vec<Prepared> {
        if !self.filling.is_empty() && self.workers.is_empty() {
            self.filling_bytes = 0;
            return std::mem::take(&mut self.filling).into_iter().map(prepare).collect();
        }
        if !self.filling.is_empty() {
            self.send();
        }
        self.oldest()
    }

    fn send(&mut self) {
        self.filling_bytes = 0;
        let batch = std::mem::take(&mut self.filling);
        let worker = &self.workers[self.next];
        worker.batches.send(batch).expect("a worker ends only when its sender is dropped, or by a panic");
        self.owing.push_back(self.next);
        self.next = (self.next + 1) % self.workers.len();
    }

    fn oldest(&mut self) -> Vec<Prepared> {
        let Some(owes) = self.owing.pop_front() else { return Vec::new() };
        self.workers[owes].prepared.recv().expect("a worker answers each batch, or panicked")
    }
}

fn worker<'scope>(scope: &'scope Scope<'scope, '_>) -> Worker {
    // No more than that is ever under way, so neither end waits on a full channel.
    let (batches, todo) = sync_channel::<Vec<Raw>>(limits::VERIFY_BATCHES_WAITING + 1);
    let (done, prepared) = sync_channel(limits::VERIFY_BATCHES_WAITING + 1);
    scope.spawn(move || {
        for batch in todo {
            if done.send(batch.into_iter().map(prepare).collect::<Vec<_>>()).is_err() {
                break;
            }
        }
    });
    Worker { batches, prepared }
}
