//! Receipts streamed out as they become durable: at least once, in order, to each sink at its own pace.
//!
//! In: the log's [`Reader`](crate::ledger::Reader) and the sinks that config declares. Out: every leaf, as a JSON line
//! with its exact bytes, to each of them. A sink has a task of its own and reads from the files of the log, so one
//! that hangs costs a task and no more: no request and no commit ever waits for it, and nothing gathers in memory.
//! How far it came is kept beside the log; after a crash it goes on from there or a little before.

mod feed;
mod http;
mod stdout;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::{Ledger, Positions};
use crate::model::{LeafIndex, SinkName};
use crate::telemetry::Metrics;
use crate::upstream::{Client, Endpoint, InvalidRoots};
use feed::Feed;

/// One sink as config declares it.
#[derive(Debug)]
pub struct Settings {
    pub name: SinkName,
    /// Leaves of one delivery.
    pub batch_leaves_max: usize,
    pub destination: Destination,
}

#[derive(Debug)]
pub enum Destination {
    /// Standard output, a line a leaf.
    Stdout,
    /// A collector that takes JSON lines by POST and answers 2xx once it has them.
    Http(Endpoint),
}

/// Leaves in order, without a gap.
#[derive(Clone, Debug)]
pub struct Batch {
    pub first: LeafIndex,
    /// At least 1.
    pub leaves: u64,
    /// A JSON line a leaf: `{"entry":<its exact bytes>,"index":N}`.
    pub lines: Bytes,
}

/// The batch may not have arrived. It is delivered again: nothing is ever left out.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// May work soon.
    #[error("{0}")]
    Unavailable(String),
    /// The sink says that it will not take these bytes. A person must look.
    #[error("refused: {0}")]
    Refused(String),
}

/// Where leaves go. Whatever takes a batch as a whole can be one: an object store, a message broker.
pub trait Sink: Send + 'static {
    /// Returns after the sink has the whole batch in its own keeping. May be given a batch again that it already
    /// took, or took in part. May be dropped at any await.
    fn deliver(&mut self, batch: &Batch) -> impl Future<Output = Result<(), Undelivered>> + Send;
}

/// The roots that a sink's certificate must come from cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {source}")]
pub struct Unusable {
    pub sink: SinkName,
    pub source: InvalidRoots,
}

/// Sinks that can be started.
pub struct Ready(Vec<(SinkName, usize, Opened)>);

enum Opened {
    Stdout,
    Http(Box<Client>),
}

/// How far a sink came.
#[derive(Clone)]
pub struct Progress {
    pub name: SinkName,
    next: Arc<AtomicU64>,
}

/// Sinks at work.
pub struct Sinks {
    tasks: Vec<JoinHandle<()>>,
    progress: Vec<Progress>,
    last: CancellationToken,
    end: CancellationToken,
}

impl Progress {
    /// Of the next leaf to deliver.
    pub fn next(&self) -> LeafIndex {
        LeafIndex(self.next.load(Ordering::Relaxed))
    }

    fn set(&self, next: LeafIndex) {
        self.next.store(next.0, Ordering::Relaxed);
    }
}

impl Ready {
    /// Everything that can fail without the log.
    pub fn new(settings: Vec<Settings>) -> Result<Self, Unusable> {
        let opened = settings.into_iter().map(|Settings { name, batch_leaves_max, destination }| {
            let opened = match destination {
                Destination::Stdout => Opened::Stdout,
                Destination::Http(endpoint) => match Client::new(endpoint) {
                    Ok(client) => Opened::Http(Box::new(client)),
                    Err(source) => return Err(Unusable { sink: name, source }),
                },
            };
            Ok((name, batch_leaves_max, opened))
        });
        opened.collect::<Result<_, _>>().map(Self)
    }

    pub fn start(
        self,
        ledger: &Ledger,
        positions: &Positions,
        metrics: &Arc<Metrics>,
        clock: &Clock,
    ) -> Sinks {
        let (last, end) = (CancellationToken::new(), CancellationToken::new());
        let mut sinks = Sinks { tasks: Vec::new(), progress: Vec::new(), last, end };
        for (name, batch_leaves_max, opened) in self.0 {
            metrics.sink_failures.with_label_values(&[name.as_str()]).inc_by(0);
            let progress = Progress { name: name.clone(), next: Arc::default() };
            sinks.progress.push(progress.clone());
            let feed = Feed {
                name,
                ledger: ledger.clone(),
                positions: positions.clone(),
                metrics: metrics.clone(),
                clock: clock.clone(),
                batch_leaves_max,
                progress,
                last: sinks.last.clone(),
            };
            let end = sinks.end.clone();
            sinks.tasks.push(match opened {
                Opened::Stdout => tokio::spawn(feed.run(stdout::Stdout::new(), end)),
                Opened::Http(client) => tokio::spawn(feed.run(http::Http(client), end)),
            });
        }
        sinks
    }
}

impl Sinks {
    pub fn progress(&self) -> Vec<Progress> {
        self.progress.clone()
    }

    /// The log is closed: delivers what is left, its last leaf included, for at most `wait`.
    pub async fn finish(self, wait: Duration) {
        self.last.cancel();
        let abort: Vec<_> = self.tasks.iter().map(JoinHandle::abort_handle).collect();
        let all = async {
            for task in self.tasks {
                // A panic in it has ended it already, and was logged.
                let _ = task.await;
            }
        };
        tokio::pin!(all);
        if timeout(wait, &mut all).await.is_ok() {
            return;
        }
        // Each writes down how far it came, and ends.
        self.end.cancel();
        if timeout(wait, all).await.is_err() {
            abort.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}
