//! The one reader of a source: asks it again ahead of time, and tells the versions what became of the value.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Cell, FactSource, FactSpec, Held, Parse, Unread};
use crate::authority::Versions;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::model::{Digest, SurfaceName};
use crate::telemetry::Metrics;

/// The version of a fact that cannot be used. No digest has this form.
pub(super) const UNAVAILABLE: &str = "unavailable";

pub(super) struct Keeper {
    source: Box<dyn FactSource>,
    refresh_every: Duration,
    shelf: Shelf,
}

/// A fact's value, and everybody who is told of it.
struct Shelf {
    cell: Arc<Cell>,
    parse: Parse,
    bytes_max: usize,
    /// SHA-256 of the document that brought the value.
    document: Option<Digest>,
    /// What the versions say.
    announced: Arc<str>,
    failing: bool,
    surface: SurfaceName,
    versions: Versions,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// From here on the versions have the fact, as one that is not available yet.
    pub(super) fn new(
        surface: &SurfaceName,
        spec: FactSpec,
        clock: Clock,
        versions: Versions,
        metrics: Arc<Metrics>,
    ) -> Self {
        let FactSpec { name, source, parse, bytes_max, max_age, refresh_every } = spec;
        let version_name: Arc<str> = format!("fact:{surface}/{name}").into();
        versions.set(&version_name, UNAVAILABLE);
        let held = ArcSwapOption::const_empty();
        let shelf = Shelf {
            cell: Arc::new(Cell { name, version_name, max_age, held }),
            parse,
            bytes_max,
            document: None,
            announced: UNAVAILABLE.into(),
            failing: false,
            surface: surface.clone(),
            versions,
            clock,
            metrics,
        };
        shelf.failures().inc_by(0);
        shelf.available().set(0);
        Self { source, refresh_every, shelf }
    }

    pub(super) fn cell(&self) -> Arc<Cell> {
        self.shelf.cell.clone()
    }

    /// Reads for as long as it is not dropped.
    pub(super) async fn run(mut self, first_read: oneshot::Sender<()>) {
        let mut first_read = Some(first_read);
        loop {
            let pause = match self.refresh().await {
                Ok(()) => self.refresh_every,
                Err(_told) => self.retry_after(),
            };
            if let Some(waiting) = first_read.take() {
                // Whoever started the facts may have given up.
                let _ = waiting.send(());
            }
            self.shelf.watch(sleep(pause)).await;
        }
    }

    /// One read, taken over if it is good, and told to everybody either way.
    pub(super) async fn refresh(&mut self) -> Result<(), Unread> {
        let (began, began_at) = (self.shelf.clock.monotonic(), self.shelf.clock.wall());
        let read = self.shelf.watch(self.source.read()).await;
        let taken = match read {
            Ok(document) => self.shelf.take(document, began).await,
            Err(unread) => Err(unread),
        };
        if taken.is_ok() {
            let seconds = began_at.unix_ms() as f64 / 1_000.0;
            self.shelf.metrics.fact_read_at.with_label_values(&self.shelf.labels()).set(seconds);
        }
        self.shelf.tell(taken.as_ref().err());
        taken
    }

    fn retry_after(&self) -> Duration {
        let least = Duration::from_millis(limits::FACT_RETRY_MS_MIN);
        let most = Duration::from_millis(limits::FACT_RETRY_MS_MAX);
        (self.shelf.cell.max_age / limits::FACT_RETRY_PARTS).clamp(least, most)
    }
}

impl Shelf {
    /// Waits for something, and says so when the value becomes too old meanwhile.
    async fn watch<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        loop {
            let Some(left) = self.young_for() else { return something.await };
            tokio::select! {
                done = &mut something => return done,
                () = sleep(left) => self.expire(),
            }
        }
    }

    /// How long the announced value may still be used; `None` if none is announced.
    fn young_for(&self) -> Option<Duration> {
        if *self.announced == *UNAVAILABLE {
            return None;
        }
        let held = self.cell.held.load_full()?;
        let age = self.clock.monotonic().since(held.read_from);
        Some(self.cell.max_age.saturating_sub(age))
    }

    async fn take(&mut self, document: Bytes, began: Moment) -> Result<(), Unread> {
        let digest = Digest::of(&document);
        let earlier = self.cell.held.load_full().filter(|_| self.document == Some(digest));
        let held = match earlier {
            Some(same) => Held { value: same.value.clone(), digest: same.digest.clone(), read_from: began },
            // Parsing takes its time with a large document, and requests do not wait for it.
            None => {
                let (parse, bytes_max) = (self.parse, self.bytes_max);
                let parsing = tokio::task::spawn_blocking(move || {
                    let value = parse(&document).map_err(Unread::NotAccepted)?;
                    Held::new(value, bytes_max, began)
                });
                let failed = |error: tokio::task::JoinError| Err(Unread::NotAccepted(error.to_string()));
                self.watch(parsing).await.unwrap_or_else(failed)?
            }
        };
        self.document = Some(digest);
        let version = held.digest.clone();
        // The value first: whoever reads it before its version is set is told that it moved and asks again, and after
        // the version is set no permit with the earlier one begins to be sent.
        self.cell.held.store(Some(Arc::new(held)));
        self.announce(version);
        self.expire();
        Ok(())
    }

    /// After this no permit that rests on the value begins to be sent, if it is too old.
    fn expire(&mut self) {
        if self.cell.young(self.clock.monotonic()).is_err() {
            self.announce(UNAVAILABLE.into());
        }
    }

    fn announce(&mut self, version: Arc<str>) {
        if self.announced == version {
            return;
        }
        self.versions.set(&self.cell.version_name, &version);
        let available = *version != *UNAVAILABLE;
        self.available().set(i64::from(available));
        let fact = &self.cell.version_name;
        if available {
            tracing::info!(%fact, %version, "fact changed");
        } else {
            tracing::error!(%fact, "fact too old: its surface refuses every request");
        }
        self.announced = version;
    }

    fn tell(&mut self, unread: Option<&Unread>) {
        self.expire();
        let fact = &self.cell.version_name;
        match unread {
            Some(unread) => {
                self.failures().inc();
                if !self.failing {
                    tracing::warn!(%fact, %unread, "fact not read; tried again until it can be");
                }
            }
            None if self.failing => tracing::info!(%fact, "fact read again"),
            None => {}
        }
        self.failing = unread.is_some();
    }

    fn labels(&self) -> [&str; 2] {
        [self.surface.as_str(), self.cell.name.as_str()]
    }

    fn failures(&self) -> prometheus::IntCounter {
        self.metrics.fact_failures.with_label_values(&self.labels())
    }

    fn available(&self) -> prometheus::IntGauge {
        self.metrics.fact_available.with_label_values(&self.labels())
    }
}
