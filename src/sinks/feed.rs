//! One sink's task: reads where it stands, delivers, writes down how far it came.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Batch, Progress, Sink, Undelivered};
use crate::clock::{Clock, Moment};
use crate::ledger::{Ledger, Positions, Reader, Snapshot};
use crate::limits;
use crate::model::{LeafIndex, SinkName, append_line};
use crate::telemetry::Metrics;

pub struct Feed {
    pub name: SinkName,
    pub ledger: Ledger,
    pub positions: Positions,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub batch_leaves_max: usize,
    pub progress: Progress,
    /// The log grows no more.
    pub last: CancellationToken,
}

const RETRY_MIN: Duration = Duration::from_millis(limits::SINK_RETRY_MS_MIN);
const RETRY_MAX: Duration = Duration::from_millis(limits::SINK_RETRY_MS_MAX);
const POSITION_EVERY: Duration = Duration::from_millis(limits::SINK_POSITION_MS);

impl Feed {
    /// Until the log is closed and delivered, or `end`.
    pub async fn run(self, mut sink: impl Sink, end: CancellationToken) {
        let mut place = Place { feed: &self, begun: false, written: None, tried: None };
        tokio::select! {
            () = self.deliver_all(&mut sink, &mut place) => {}
            () = end.cancelled() => {}
        }
        place.keep().await;
        let behind = self.ledger.statistics().leaves.saturating_sub(self.progress.next().0);
        if behind > 0 {
            tracing::warn!(sink = %self.name, leaves = behind, "not everything is delivered; the next start goes on");
        }
    }

    async fn deliver_all(&self, sink: &mut impl Sink, place: &mut Place<'_>) {
        self.progress.set(self.begin().await);
        place.begun = true;
        let reader = self.ledger.reader();
        let mut snapshots = reader.subscribe();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if self.progress.next().0 < snapshot.size().0 {
                let batch = self.read(&reader, &snapshot).await;
                self.deliver(sink, &batch).await;
                self.progress.set(LeafIndex(batch.first.0 + batch.leaves));
                place.keep_now_and_then().await;
            } else if self.last.is_cancelled() && self.progress.next().0 >= self.ledger.statistics().leaves {
                return;
            } else {
                place.keep_now_and_then().await;
                let more = self.wait_for_more(&mut snapshots);
                if place.is_kept() {
                    more.await;
                } else {
                    // Not once a leaf: each is a sync of the disk that the log is on.
                    let _ = timeout(POSITION_EVERY, more).await;
                }
            }
        }
    }

    /// Where the last run ended, or the first leaf.
    async fn begin(&self) -> LeafIndex {
        let mut retry = RETRY_MIN;
        loop {
            let (positions, name) = (self.positions.clone(), self.name.clone());
            match spawn_blocking(move || positions.read(&name)).await {
                Ok(Ok(position)) => return self.within_the_log(position.unwrap_or(LeafIndex(0))),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                    tracing::error!(sink = %self.name, %error, "begins at the first leaf again");
                    return LeafIndex(0);
                }
                Ok(Err(error)) => tracing::error!(sink = %self.name, %error, "its position cannot be read"),
                Err(panicked) => tracing::error!(sink = %self.name, %panicked, "its position cannot be read"),
            }
            self.pause(&mut retry).await;
        }
    }

    /// What was delivered was signed. A log that is shorter is another one, or was cut.
    fn within_the_log(&self, position: LeafIndex) -> LeafIndex {
        let leaves = self.ledger.statistics().leaves;
        if position.0 <= leaves {
            return position;
        }
        tracing::error!(
            sink = %self.name, delivered = position.0, leaves,
            "the log is shorter than what was delivered: was it cut or exchanged? Begins at the first leaf again"
        );
        LeafIndex(0)
    }

    async fn wait_for_more(&self, snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
        let told = async {
            if snapshots.changed().await.is_err() {
                // Nobody will publish any more.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = told => {}
            // The last leaves are published a moment after the log is closed.
            () = self.last.cancelled() => sleep(RETRY_MIN / 10).await,
        }
    }

    /// The next leaves, at least one.
    async fn read(&self, reader: &Reader, snapshot: &Arc<Snapshot>) -> Batch {
        let mut retry = RETRY_MIN;
        loop {
            let (reader, snapshot, first) = (reader.clone(), snapshot.clone(), self.progress.next());
            let leaves_max = self.batch_leaves_max;
            let read = spawn_blocking(move || reader.entries(&snapshot, first, leaves_max)).await;
            match read {
                Ok(Ok(entries)) if !entries.is_empty() => return batch(first, &entries),
                Ok(Ok(_)) => tracing::error!(sink = %self.name, index = first.0, "the log has no such leaf"),
                Ok(Err(error)) => tracing::error!(sink = %self.name, %error, "leaves cannot be read"),
                Err(panicked) => tracing::error!(sink = %self.name, %panicked, "leaves cannot be read"),
            }
            self.metrics.sink_failures.with_label_values(&[self.name.as_str()]).inc();
            self.pause(&mut retry).await;
        }
    }

    /// Until it is delivered: a leaf that a sink does not take holds up those after it, and only at this sink.
    async fn deliver(&self, sink: &mut impl Sink, batch: &Batch) {
        let mut retry = Retry(RETRY_MIN);
        while let Err(undelivered) = sink.deliver(batch).await {
            let mut wait = retry.after(&undelivered);
            self.metrics.sink_failures.with_label_values(&[self.name.as_str()]).inc();
            let (first, leaves) = (batch.first.0, batch.leaves);
            match undelivered {
                Undelivered::Unavailable(why) => {
                    tracing::warn!(sink = %self.name, why, first, leaves, "not delivered, will be tried again");
                }
                Undelivered::Refused(why) => {
                    tracing::error!(
                        sink = %self.name, why, first, leaves,
                        "refused by the sink: nothing more goes there until it takes these leaves"
                    );
                }
            }
            self.pause(&mut wait).await;
        }
    }

    /// Waits, and doubles the next wait. Not for long when the gateway is stopping: then there is little time left.
    async fn pause(&self, retry: &mut Duration) {
        let stopping = async {
            self.last.cancelled().await;
            sleep(RETRY_MIN).await;
        };
        tokio::select! {
            () = sleep(*retry) => {}
            () = stopping => {}
        }
        *retry = (*retry * 2).min(RETRY_MAX);
    }
}

/// How long the next outage is waited for: longer each time.
struct Retry(Duration);

impl Retry {
    /// A refusal waits for a person, and an outage after it is an outage like any other.
    fn after(&mut self, undelivered: &Undelivered) -> Duration {
        let (wait, next) = match undelivered {
            Undelivered::Unavailable(_) => (self.0, (self.0 * 2).min(RETRY_MAX)),
            Undelivered::Refused(_) => (RETRY_MAX, RETRY_MIN),
        };
        self.0 = next;
        wait
    }
}

/// As many of the leaves as a batch holds, at least one.
fn batch(first: LeafIndex, entries: &[bytes::Bytes]) -> Batch {
    let mut lines = Vec::new();
    let mut leaves = 0;
    for entry in entries {
        if leaves > 0 && lines.len() + entry.len() > limits::SINK_BATCH_BYTES_MAX {
            break;
        }
        append_line(&mut lines, LeafIndex(first.0 + leaves), entry);
        leaves += 1;
    }
    Batch { first, leaves, lines: lines.into() }
}

/// The position on disk. It may be behind: what was delivered since then is delivered again after a crash.
struct Place<'f> {
    feed: &'f Feed,
    /// Whether it is known where the last run ended: before that there is nothing to write down.
    begun: bool,
    written: Option<LeafIndex>,
    /// When it was last tried, also in vain.
    tried: Option<Moment>,
}

impl Place<'_> {
    async fn keep_now_and_then(&mut self) {
        let now = self.feed.clock.monotonic();
        if self.tried.is_none_or(|at| now.since(at) >= POSITION_EVERY) {
            self.keep().await;
        }
    }

    fn is_kept(&self) -> bool {
        self.written == Some(self.feed.progress.next())
    }

    async fn keep(&mut self) {
        if !self.begun || self.is_kept() {
            return;
        }
        let next = self.feed.progress.next();
        let (positions, name) = (self.feed.positions.clone(), self.feed.name.clone());
        let written = spawn_blocking(move || positions.write(&name, next)).await;
        match written {
            Ok(Ok(())) => self.written = Some(next),
            // Nothing is lost by it: leaves may be delivered once more.
            Ok(Err(error)) => tracing::warn!(sink = %self.feed.name, %error, "its position was not written"),
            Err(panicked) => {
                tracing::warn!(sink = %self.feed.name, %panicked, "its position was not written")
            }
        }
        self.tried = Some(self.feed.clock.monotonic());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn an_outage_after_a_refusal_is_tried_again_soon() {
        let mut retry = Retry(RETRY_MIN);
        let outage = Undelivered::Unavailable("down".into());
        let refusal = Undelivered::Refused("no".into());
        let waits = [&outage, &outage, &refusal, &outage, &outage].map(|why| retry.after(why));
        assert_eq!(waits, [RETRY_MIN, RETRY_MIN * 2, RETRY_MAX, RETRY_MIN, RETRY_MIN * 2]);
        for _ in 0..32 {
            assert!(retry.after(&outage) <= RETRY_MAX);
        }
        assert_eq!(retry.after(&outage), RETRY_MAX);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_holds_at_least_one_leaf() {
        let leaf = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
        let large = limits::SINK_BATCH_BYTES_MAX;
        assert_eq!(batch(LeafIndex(3), &[leaf(large + 1), leaf(1)]).leaves, 1);
        assert_eq!(batch(LeafIndex(3), &[leaf(1), leaf(1), leaf(large)]).leaves, 2);
        let all = batch(LeafIndex(3), &[leaf(1), leaf(1)]);
        assert_eq!((all.first, all.leaves), (LeafIndex(3), 2));
        assert_eq!(&all.lines[..], b"{\"entry\":x,\"index\":3}\n{\"entry\":x,\"index\":4}\n");
    }
}
