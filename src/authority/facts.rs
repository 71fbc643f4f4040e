//! Facts: named values from outside the request that policy reads, such as a price list or an exchange rate.
//!
//! In: the sources that a surface declares. Out: all their values at once with digest and age, or the name of the one
//! that cannot be used. After: a value that policy saw is younger than its `max_age`, its digest is the version
//! `fact:SURFACE/NAME`, and once a source has said something else, or nothing for too long, no permit that rests on the
//! earlier value begins to be sent.
//!
//! Each source has one task, which is its only reader: it asks again before the value is too old, keeps the last good
//! value when that fails, and says so when the value became too old. A request only looks at what is there; it never
//! waits for a source, and however many requests come, a source is asked once at a time.
//! docs/adr/0015-facts-are-kept-not-cached.md says why this is not a cache.

mod file;
mod keep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::state::Answer;
use super::versions::Versions;
use crate::canonical::json;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::model::{Digest, FactName, Json, ReadItem, SurfaceName, reserved_name};
use crate::telemetry::Metrics;
use keep::Keeper;

pub use file::FileSource;

/// Where a fact comes from.
pub trait FactSource: fmt::Debug + Send + 'static {
    /// The whole document as it is now. Ends within a time of its own; may be dropped at any await and asked again.
    fn read(&mut self) -> Answer<'_, Result<Bytes, Unread>>;
}

/// How a document becomes a value. The error says what is wrong with it, and may quote it: it is for the log.
pub type Parse = fn(&[u8]) -> Result<Json, String>;

/// Strict JSON, within the bounds of a fact.
pub fn parse_json(document: &[u8]) -> Result<Json, String> {
    json::parse(document, BOUNDS).map_err(|malformed| {
        let place = malformed.place.map(|place| format!(" at {place}")).unwrap_or_default();
        format!("{}{place}", malformed.code.as_str())
    })
}

const BOUNDS: json::Bounds =
    json::Bounds { depth_max: limits::FACT_DEPTH_MAX, values_max: limits::FACT_VALUES_MAX };

/// A source, and how its document is read.
#[derive(Debug)]
pub struct FactSpec {
    pub name: FactName,
    pub source: Box<dyn FactSource>,
    pub parse: Parse,
    /// Of the value in its RFC 8785 form.
    pub bytes_max: usize,
    /// From the beginning of the read that brought a value until it is too old.
    pub max_age: Duration,
    /// From the end of one good read to the next.
    pub refresh_every: Duration,
}

/// The source could not be read, or what it said is not to be used. The earlier value stays until it is too old.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("nothing whole within its time")]
    Late,
    #[error("{0}")]
    Unreachable(String),
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// An answer that is not a document: a redirect, another status, another media type.
    #[error("{0}")]
    Refused(String),
    #[error("the document is not accepted: {0}")]
    NotAccepted(String),
}

/// There is no value, or it is too old. Nothing can be decided on this surface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fact `{name}` is not available")]
pub struct FactUnavailable {
    pub name: FactName,
}

/// One value as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct FactRead {
    pub name: FactName,
    /// The item's name in a read set: `fact:SURFACE/NAME`.
    pub version_name: Arc<str>,
    pub value: Arc<Json>,
    /// Of the RFC 8785 form, as text; the item's version.
    pub digest: Arc<str>,
    /// Milliseconds since the read that brought it began.
    pub age_ms: u64,
}

/// The facts of one surface. Cheap to clone; when the last clone is gone, nothing is read any more.
#[derive(Clone)]
pub struct Facts(Arc<Kept>);

struct Kept {
    /// In the order of their names.
    cells: Vec<Arc<Cell>>,
    _keepers: Vec<AbortOnDropHandle<()>>,
}

/// What requests look at.
#[derive(Debug)]
struct Cell {
    name: FactName,
    version_name: Arc<str>,
    max_age: Duration,
    held: ArcSwapOption<Held>,
}

#[derive(Debug)]
struct Held {
    value: Arc<Json>,
    digest: Arc<str>,
    /// The value is at least as young as this.
    read_from: Moment,
}

impl Facts {
    /// Of a surface that declares none.
    pub fn none() -> Self {
        Self(Arc::new(Kept { cells: Vec::new(), _keepers: Vec::new() }))
    }

    /// Asks every source once and waits for all of them, within their own times, then keeps them up to date. A source
    /// that fails does not keep the gateway from starting: its fact is not available until it can be read.
    pub async fn start(
        surface: &SurfaceName,
        mut specs: Vec<FactSpec>,
        clock: &Clock,
        versions: &Versions,
        metrics: &Arc<Metrics>,
    ) -> Self {
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(specs.windows(2).all(|w| w[0].name != w[1].name), "config refuses a name that appears twice");
        let (mut cells, mut keepers, mut first_reads) = (Vec::new(), Vec::new(), Vec::new());
        for spec in specs {
            let keeper = Keeper::new(surface, spec, clock.clone(), versions.clone(), metrics.clone());
            cells.push(keeper.cell());
            let (read, first_read) = oneshot::channel();
            first_reads.push(first_read);
            keepers.push(AbortOnDropHandle::new(tokio::spawn(keeper.run(read))));
        }
        for first_read in first_reads {
            // A keeper that is gone has panicked, which was logged; its fact is not available.
            let _ = first_read.await;
        }
        Self(Arc::new(Kept { cells, _keepers: keepers }))
    }

    /// All values, in the order of their names, or the first that cannot be used. Never waits.
    pub fn read(&self, now: Moment) -> Result<Vec<FactRead>, FactUnavailable> {
        self.0.cells.iter().map(|cell| cell.read(now)).collect()
    }

    /// `Err`: every request to the surface would be refused now.
    pub fn available(&self, now: Moment) -> Result<(), FactUnavailable> {
        self.0.cells.iter().try_for_each(|cell| cell.young(now).map(|_held| ()))
    }
}

impl FactRead {
    /// As it stands in a read set, among what is watched.
    pub fn item(&self) -> ReadItem {
        ReadItem { age_ms: self.age_ms, name: self.version_name.clone(), version: self.digest.clone() }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.cells.iter().map(|cell| &cell.version_name)).finish()
    }
}

impl Cell {
    fn young(&self, now: Moment) -> Result<Arc<Held>, FactUnavailable> {
        let held = self.held.load_full().filter(|held| now.since(held.read_from) < self.max_age);
        held.ok_or_else(|| FactUnavailable { name: self.name.clone() })
    }

    fn read(&self, now: Moment) -> Result<FactRead, FactUnavailable> {
        let held = self.young(now)?;
        Ok(FactRead {
            name: self.name.clone(),
            version_name: self.version_name.clone(),
            value: held.value.clone(),
            digest: held.digest.clone(),
            age_ms: u64::try_from(now.since(held.read_from).as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Held {
    /// The value with its digest; the size of its RFC 8785 form is within the bound.
    fn new(value: Json, bytes_max: usize, read_from: Moment) -> Result<Self, Unread> {
        if let Some(place) = reserved_name(&value) {
            return Err(Unread::NotAccepted(format!(
                "the name at {place} has a meaning of its own in receipts"
            )));
        }
        let written = json::write(&value);
        if written.len() > bytes_max {
            return Err(Unread::TooLarge(bytes_max));
        }
        let digest = Digest::of(&written).to_string().into();
        Ok(Self { value: Arc::new(value), digest, read_from })
    }
}

#[cfg(test)]
mod tests;
