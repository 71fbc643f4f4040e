//! What identity rests on, kept up to date: files are looked at, key sets are fetched.
//!
//! In: the parts that config read and has slots for. Out: new content in the slots, and then a new version of `identity`,
//! so that no decision rests on an actor who was proved before. What cannot be used is left, with a log line and a
//! metric, and the last good state stays in force. Nothing here runs in a request's path.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::authority::{Algorithm, IDENTITY, KeySet, KeySource, Versions};
use crate::clock::Clock;
use crate::config::{IdentityPart, KeySetFetch};
use crate::limits;
use crate::model::{Digest, Digester};
use crate::telemetry::Metrics;
use crate::upstream::{Client, InvalidRoots};

/// One version over the config and everything that may change while it is in force.
#[derive(Clone)]
pub(super) struct Epoch {
    config: Digest,
    digests: Arc<Mutex<Vec<Digest>>>,
    versions: Versions,
}

impl Epoch {
    pub fn new(config: Digest, parts: impl Iterator<Item = Digest>, versions: Versions) -> Self {
        let epoch = Self { config, digests: Arc::new(Mutex::new(parts.collect())), versions };
        epoch.publish(&epoch.digests());
        epoch
    }

    /// A place for what is not there yet.
    fn add(&self) -> usize {
        let mut digests = self.digests();
        digests.push(Digest::of(b""));
        digests.len() - 1
    }

    /// After the new state is in force: an actor who is proved from here on is proved under it.
    fn set(&self, at: usize, digest: Digest) {
        let mut digests = self.digests();
        if let Some(slot) = digests.get_mut(at) {
            *slot = digest;
        }
        // Under the lock, so that an earlier state is never published after a later one.
        self.publish(&digests);
    }

    /// A panic elsewhere leaves a vector of digests, each of them whole.
    fn digests(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, digests: &[Digest]) {
        let mut digester = Digester::new();
        digester.update(self.config.as_bytes());
        digests.iter().for_each(|digest| digester.update(digest.as_bytes()));
        let version = if digests.is_empty() { self.config } else { digester.finish() };
        self.versions.set(IDENTITY, &version.to_string());
    }
}

/// Key sets with clients that can fetch them.
pub(super) struct Fetches(Vec<(Fetch, Client)>);

/// A [`KeySetFetch`] without its endpoint, which its client has.
struct Fetch {
    name: String,
    algorithms: Vec<Algorithm>,
    source: Arc<KeySource>,
    refresh: Duration,
    refetch_min: Duration,
}

impl Fetches {
    pub fn new(sets: Vec<KeySetFetch>) -> Result<Self, InvalidRoots> {
        let ready = sets.into_iter().map(|set| {
            let KeySetFetch { endpoint, algorithms, source, refresh, refetch_min } = set;
            let name = format!("{}{}", endpoint.authority, endpoint.target);
            let set = Fetch { name, algorithms, source, refresh, refetch_min };
            Client::new(endpoint).map(|client| (set, client))
        });
        Ok(Self(ready.collect::<Result<_, _>>()?))
    }
}

/// What every task that keeps identity up to date needs.
#[derive(Clone)]
pub(super) struct Watched {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub epoch: Epoch,
    /// Somebody wants everything looked at now.
    pub asked: watch::Receiver<()>,
    pub end: CancellationToken,
}

impl Watched {
    /// One task for all files, and one for each address.
    pub fn start(self, parts: Vec<IdentityPart>, fetches: Fetches) {
        for (set, client) in fetches.0 {
            let watched = self.clone();
            let at = watched.epoch.add();
            tokio::spawn(async move {
                let end = watched.end.clone();
                tokio::select! {
                    () = end.cancelled() => {}
                    () = watched.fetch(set, client, at) => {}
                }
            });
        }
        if parts.is_empty() {
            return;
        }
        tokio::spawn(async move {
            let end = self.end.clone();
            tokio::select! {
                () = end.cancelled() => {}
                () = self.look_at_files(parts) => {}
            }
        });
    }

    async fn look_at_files(mut self, parts: Vec<IdentityPart>) {
        let mut places = 0..;
        let states = parts.into_iter().map(|part| {
            let (at, seen) = (part.is_of_agents().then(|| places.next()).flatten(), Ok(part.digest()));
            FileState { at, part: Arc::new(part), seen, is_failing: false }
        });
        let mut states: Vec<FileState> = states.collect();
        loop {
            tokio::select! {
                () = sleep(Duration::from_millis(limits::IDENTITY_POLL_MS)) => {}
                asked = self.asked.changed() => if asked.is_err() { return },
            }
            for state in &mut states {
                self.look_at(state).await;
            }
        }
    }

    /// Reads one part, and puts it in force if it is another than last time.
    async fn look_at(&self, state: &mut FileState) {
        let (part, clock, seen) = (state.part.clone(), self.clock.clone(), state.seen.clone());
        let was_refused = state.is_failing;
        let looking = tokio::task::spawn_blocking(move || match part.read() {
            Err(why) if seen.as_ref() == Err(&why) => None,
            Err(why) => Some((Err(why.clone()), Err(why))),
            Ok(files) if seen == Ok(files.digest()) && !was_refused => None,
            // What was refused may have been too early: a certificate becomes valid without changing.
            Ok(files) => Some((Ok(files.digest()), part.put(&files, &clock).map(|()| files.digest()))),
        });
        // A panic in there is a bug; the next round looks again.
        let Ok(Some((seen, put))) = looking.await else { return };
        let is_known = state.seen == seen && was_refused && put.is_err();
        state.seen = seen;
        if is_known {
            return;
        }
        let (kind, name) = (state.part.kind(), state.part.name());
        let was_failing = std::mem::replace(&mut state.is_failing, put.is_err());
        match put {
            Ok(digest) => {
                if let Some(at) = state.at {
                    self.epoch.set(at, digest);
                }
                self.now_in_force(kind, &name, was_failing);
            }
            Err(why) => self.not_in_force(kind, &name, &why, was_failing),
        }
    }

    async fn fetch(mut self, set: Fetch, client: Client, at: usize) {
        let kind = "fetched_key_set";
        let mut is_failing = false;
        loop {
            let fetched = fetch_once(&client, &set).await;
            let was_failing = std::mem::replace(&mut is_failing, fetched.is_err());
            let wait = match fetched {
                Ok(keys) => {
                    let digest = keys.digest();
                    // What is fetched again keeps the set from going stale, and is no news otherwise.
                    if set.source.put(keys) || was_failing {
                        self.epoch.set(at, digest);
                        self.now_in_force(kind, &set.name, was_failing);
                    }
                    set.refresh
                }
                Err(why) => {
                    self.not_in_force(kind, &set.name, &why, was_failing);
                    set.refetch_min
                }
            };
            // The least time first, whoever asks; what was asked in it is answered after it.
            sleep(set.refetch_min).await;
            tokio::select! {
                () = sleep(wait.saturating_sub(set.refetch_min)) => {}
                () = set.source.wanted() => {}
                asked = self.asked.changed() => if asked.is_err() { return },
            }
        }
    }

    fn now_in_force(&self, kind: &'static str, name: &str, was_failing: bool) {
        self.metrics.identity_reloaded(kind, true);
        if was_failing {
            self.metrics.identity_failing.dec();
        }
        tracing::info!(part = kind, name, "identity changed");
    }

    fn not_in_force(&self, kind: &'static str, name: &str, why: &str, was_failing: bool) {
        self.metrics.identity_reloaded(kind, false);
        if !was_failing {
            self.metrics.identity_failing.inc();
        }
        tracing::error!(part = kind, name, why, "identity not changed: the last good state stays in force");
    }
}

struct FileState {
    /// Its place among the digests of the epoch, if agents' proofs rest on it.
    at: Option<usize>,
    part: Arc<IdentityPart>,
    /// What was found the last time, in force or not: the same is not tried, and not told, again.
    seen: Result<Digest, String>,
    is_failing: bool,
}

async fn fetch_once(client: &Client, set: &Fetch) -> Result<KeySet, String> {
    let media_types = &["application/jwk-set+json", "application/json"];
    let answer = client.json_document(media_types, limits::KEY_SET_BYTES_MAX).await;
    let body = answer.map_err(|error| error.to_string())?;
    KeySet::parse(&body, &set.algorithms).map_err(|why| format!("the answer {why}"))
}
