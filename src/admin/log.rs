//! The read API of the log: checkpoint, tiles, receipts with their proofs and outcomes, and leaves to follow.
//!
//! Everything is read at one [`Snapshot`], so that what one answer says fits one signed tree. Files are read off the
//! async threads, a few at a time. Nothing here writes, and nothing here waits for the log or makes it wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::Refusal;
use super::query::{Filter, Wanted};
use crate::ledger::{Ledger, ReadError, Reader, Search, Snapshot};
use crate::limits;
use crate::merkle::tile::TilePath;
use crate::model::entry::{DecisionEntry, Entry};
use crate::model::{Decision, LeafIndex, ReceiptId, append_line};
use crate::respond::{Piece, ResponseBody};

/// What the read API needs. Cheap to clone.
#[derive(Clone)]
pub struct LogApi {
    ledger: Ledger,
    reader: Reader,
    reads: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// Followers that are not at their end.
    following: TaskTracker,
    /// The log is closed: followers get its last leaves, and end.
    last: CancellationToken,
}

type Answer = Result<Response<ResponseBody>, Refusal>;
type Found = Option<(LeafIndex, Bytes)>;

impl LogApi {
    pub fn new(ledger: Ledger) -> Self {
        Self {
            reader: ledger.reader(),
            ledger,
            reads: Arc::new(Semaphore::new(limits::ADMIN_READS_MAX)),
            followers: Arc::new(Semaphore::new(limits::ADMIN_FOLLOWERS_MAX)),
            following: TaskTracker::new(),
            last: CancellationToken::new(),
        }
    }

    /// `None`: the path is nothing of the log's.
    pub async fn answer(&self, path: &str, query: Option<&str>) -> Option<Response<ResponseBody>> {
        let answer = match path {
            "/checkpoint" => match no_parameters(query) {
                Ok(()) => Ok(self.checkpoint()),
                Err(refusal) => Err(refusal),
            },
            "/receipts" => self.receipts(query).await,
            _ => {
                if let Some(tile) = path.strip_prefix("/tile/") {
                    self.tile(tile, query).await
                } else if let Some(receipt) = path.strip_prefix("/receipts/") {
                    self.receipt(receipt, query).await
                } else {
                    return None;
                }
            }
        };
        Some(answer.unwrap_or_else(|refusal| refusal.response()))
    }

    /// The log is closed: followers get what is left, for at most `wait`.
    pub async fn finish(&self, wait: Duration) {
        self.last.cancel();
        self.following.close();
        if timeout(wait, self.following.wait()).await.is_err() {
            tracing::warn!(followers = self.following.len(), "not every follower took the last leaves");
        }
    }

    fn checkpoint(&self) -> Response<ResponseBody> {
        let checkpoint = self.reader.snapshot().checkpoint().to_string();
        typed("text/plain; charset=utf-8", checkpoint)
    }

    async fn tile(&self, name: &str, query: Option<&str>) -> Answer {
        no_parameters(query)?;
        let path: TilePath = name.parse().map_err(|e| Refusal::NoTileName(format!("{e}.")))?;
        let at = self.reader.snapshot();
        let tile = self.read(move |reader| reader.tile(&at, &path)).await?.ok_or(Refusal::NoSuchTile)?;
        let mut response = typed("application/octet-stream", tile);
        if path.partial.is_none() {
            // A full tile never changes, nor does what it stands for.
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            response.headers_mut().insert(CACHE_CONTROL, forever);
        }
        Ok(response)
    }

    /// `{id}`, `{id}.tlog-proof` or `{id}/outcome`.
    async fn receipt(&self, name: &str, query: Option<&str>) -> Answer {
        no_parameters(query)?;
        let (id, what) = match (name.strip_suffix(".tlog-proof"), name.strip_suffix("/outcome")) {
            (Some(id), _) => (id, Part::Proof),
            (None, Some(id)) => (id, Part::Outcome),
            (None, None) => (name, Part::Leaf),
        };
        let id: ReceiptId = id.parse().map_err(|_| Refusal::NoReceiptId)?;
        let at = self.up_to_date().await;
        let snapshot = at.clone();
        let found = self.read(move |reader| reader.find(&snapshot, id)).await?;
        let (index, leaf) = found.ok_or(Refusal::NoSuchReceipt)?;
        match what {
            Part::Leaf => Ok(line(index, &leaf)),
            Part::Proof => {
                let proof = self.read(move |reader| reader.proof(&at, index)).await?;
                Ok(typed("text/plain; charset=utf-8", proof.to_string()))
            }
            Part::Outcome => {
                let outcome: Found = self.read(move |reader| reader.outcome(&at, index)).await?;
                match outcome {
                    Some((index, leaf)) => Ok(line(index, &leaf)),
                    None if is_permit(&leaf) => Err(Refusal::NoOutcomeYet),
                    None => Err(Refusal::NeverAnOutcome),
                }
            }
        }
    }

    /// The decision with this id, and where it stands.
    pub async fn decision(&self, id: ReceiptId) -> Result<(LeafIndex, Box<DecisionEntry>), Refusal> {
        let (index, leaf) = self.decision_leaf(id).await?;
        match Entry::from_bytes_unverified(&leaf) {
            Ok(Entry::Decision(decision)) => Ok((index, decision)),
            // The index of ids holds decisions alone.
            Ok(_) | Err(_) => Err(Refusal::NoSuchReceipt),
        }
    }

    /// Its exact bytes, and those of the policy input that it was made on, as they were recorded.
    pub async fn decision_with_input(&self, id: ReceiptId) -> Result<(Bytes, Bytes), Refusal> {
        let (index, leaf) = self.decision_leaf(id).await?;
        let Ok(Entry::Decision(decision)) = Entry::from_bytes_unverified(&leaf) else {
            return Err(Refusal::NoSuchReceipt);
        };
        let digest = decision.evaluation.input_digest;
        let input = self.read(move |reader| reader.evidence_of(index, &digest)).await?;
        Ok((leaf, input.ok_or(Refusal::EvidenceMissing)?))
    }

    /// Of the decisions at these indices, in their order.
    pub async fn decisions(&self, indices: Vec<LeafIndex>) -> Result<Vec<DecisionEntry>, Refusal> {
        let at = self.up_to_date().await;
        let leaves = self.read(move |reader| {
            let one = |index: &LeafIndex| reader.entries(&at, *index, 1);
            indices.iter().map(one).collect::<Result<Vec<_>, _>>()
        });
        let decisions =
            leaves.await?.into_iter().flatten().map(|leaf| match Entry::from_bytes_unverified(&leaf) {
                Ok(Entry::Decision(decision)) => Ok(*decision),
                Ok(_) | Err(_) => Err(Refusal::NoSuchReceipt),
            });
        decisions.collect()
    }

    async fn decision_leaf(&self, id: ReceiptId) -> Result<(LeafIndex, Bytes), Refusal> {
        let at = self.up_to_date().await;
        let found = self.read(move |reader| reader.find(&at, id)).await?;
        found.ok_or(Refusal::NoSuchReceipt)
    }

    async fn receipts(&self, query: Option<&str>) -> Answer {
        let wanted = Wanted::parse(query)?;
        let slot = match wanted.follow {
            true => {
                let slot = self.followers.clone().try_acquire_owned();
                Some(slot.map_err(|_| Refusal::FollowersOver)?)
            }
            false => None,
        };
        let at = self.up_to_date().await;
        let (body, pieces) = ResponseBody::pulled();
        let stream = Stream { api: self.clone(), next: wanted.since, filter: wanted.filter, pieces };
        self.following.spawn(stream.run(at, slot));
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// A snapshot that has everything that was durable when this was called, so that whoever asks with a receipt in
    /// hand finds it; or the newest one, if that takes too long.
    async fn up_to_date(&self) -> Arc<Snapshot> {
        let leaves = self.ledger.statistics().leaves;
        let mut snapshots = self.reader.subscribe();
        let wait = Duration::from_millis(limits::ADMIN_UP_TO_DATE_MS_MAX);
        if let Ok(Ok(at)) = timeout(wait, snapshots.wait_for(|at| at.size().0 >= leaves)).await {
            return at.clone();
        }
        // Late, or nobody publishes any more.
        self.reader.snapshot()
    }

    /// Reads files off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let slot = self.reads.clone().acquire_owned().await;
        let reader = self.reader.clone();
        let reading = spawn_blocking(move || {
            let _slot = slot.expect("the semaphore is never closed");
            read(&reader)
        });
        reading.await.map_err(|_panicked| Refusal::Panicked)?.map_err(Refusal::Unreadable)
    }
}

#[derive(Clone, Copy)]
enum Part {
    Leaf,
    Proof,
    Outcome,
}

pub fn no_parameters(query: Option<&str>) -> Result<(), Refusal> {
    match query.filter(|query| !query.is_empty()) {
        None => Ok(()),
        Some(query) => {
            let name = query.split(['=', '&']).next().unwrap_or_default().to_owned();
            Err(Refusal::Parameter { name, detail: "This path takes no parameters.".to_owned() })
        }
    }
}

fn is_permit(leaf: &[u8]) -> bool {
    let entry = Entry::from_bytes_unverified(leaf);
    matches!(entry, Ok(Entry::Decision(decision)) if decision.decision == Decision::Permit)
}

fn line(index: LeafIndex, leaf: &[u8]) -> Response<ResponseBody> {
    let mut line = Vec::new();
    append_line(&mut line, index, leaf);
    typed("application/json", line)
}

fn typed(media_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Leaves on their way to one client, read as fast as it takes them.
struct Stream {
    api: LogApi,
    next: LeafIndex,
    filter: Filter,
    pieces: mpsc::Sender<Piece>,
}

impl Stream {
    /// Ends the body only if everything was sent that was asked for; a body that is cut is to be resumed.
    async fn run(mut self, mut at: Arc<Snapshot>, follower: Option<OwnedSemaphorePermit>) {
        loop {
            if self.send_up_to(&at).await.is_err() {
                return;
            }
            if follower.is_none() || self.has_all_of_a_closed_log() {
                break;
            }
            at = match self.newer_than(&at).await {
                Some(newer) => newer,
                None => return,
            };
        }
        // A client that is gone does not want the end either.
        let _ = self.pieces.send(Piece::End).await;
    }

    async fn send_up_to(&mut self, at: &Arc<Snapshot>) -> Result<(), Gone> {
        while self.next.0 < at.size().0 {
            // A search may go through all of the log and find nothing to send: it ends with whoever asked.
            if self.pieces.is_closed() {
                return Err(Gone);
            }
            let (lines, next) = match self.read(at).await {
                Ok(read) => read,
                Err(refusal) => {
                    // The head of the answer is long gone: the cut is all that can be said.
                    drop(refusal.response());
                    return Err(Gone);
                }
            };
            if !lines.is_empty() {
                self.pieces.send(Piece::Frame(Frame::data(lines))).await.map_err(|_| Gone)?;
            }
            self.next = next;
        }
        Ok(())
    }

    /// The next lines, and where to go on.
    async fn read(&self, at: &Arc<Snapshot>) -> Result<(Bytes, LeafIndex), Refusal> {
        let (snapshot, from) = (at.clone(), self.next);
        let max = limits::ADMIN_LEAVES_MAX;
        if self.filter.admits_all() {
            let read = move |reader: &Reader| reader.entries(&snapshot, from, max);
            let leaves = self.api.read(read).await?;
            let next = LeafIndex(from.0 + leaves.len() as u64);
            return Ok((lines((from.0..).map(LeafIndex).zip(leaves)), next));
        }
        let Filter { actor, idempotency_key, from: since, until } = self.filter.clone();
        let search = Search { actor, idempotency_key, since, until, from, max };
        let found = self.api.read(move |reader| reader.search(&snapshot, &search)).await?;
        Ok((lines(found.leaves), found.next))
    }

    fn has_all_of_a_closed_log(&self) -> bool {
        self.api.last.is_cancelled() && self.next.0 >= self.api.ledger.statistics().leaves
    }

    /// `None`: the client is gone.
    async fn newer_than(&self, at: &Snapshot) -> Option<Arc<Snapshot>> {
        let mut snapshots = self.api.reader.subscribe();
        let closed_and_all_sent = async {
            self.api.last.cancelled().await;
            if !self.has_all_of_a_closed_log() {
                std::future::pending::<()>().await;
            }
        };
        let newer = async {
            let newer = snapshots.wait_for(|newer| newer.size() > at.size()).await.map(|n| n.clone());
            match newer {
                Ok(newer) => newer,
                // Nobody publishes any more: either all is sent, or the end of the process is near.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            newer = newer => Some(newer),
            () = closed_and_all_sent => Some(self.api.reader.snapshot()),
            () = self.pieces.closed() => None,
        }
    }
}

/// The client, or the log's files.
struct Gone;

fn lines(leaves: impl IntoIterator<Item = (LeafIndex, Bytes)>) -> Bytes {
    let mut lines = Vec::new();
    leaves.into_iter().for_each(|(index, leaf)| append_line(&mut lines, index, &leaf));
    lines.into()
}
