//! What policy is read from, off the async threads, and what surfaces need of it.

use crate::config::{FoundPolicy, PolicySource};
use crate::model::{Activated, Activations, Digest, Older, PackageName};
use crate::policy::{Bundle, BundleError};

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub source: PolicySource,
    pub packages: Vec<PackageName>,
}

impl Policy {
    /// What the leaf of this activation says of being older: nothing, or older than which version, where somebody answers
    /// for exactly this revision.
    pub fn follows(
        &self,
        before: Activations,
        activated: Activated,
        answered_for: Option<Digest>,
    ) -> Result<Option<u64>, Older> {
        if !self.source.has_versions() {
            return Ok(None);
        }
        match before.judge(activated) {
            Ok(()) => Ok(None),
            Err(older) if answered_for == Some(activated.revision) => Ok(Some(older.than.version)),
            Err(older) => Err(older),
        }
    }

    /// Blocks for as long as checking, compiling and its tests take.
    pub fn load_here(&self, found: FoundPolicy) -> Result<Bundle, BundleError> {
        Bundle::tested(found.sources, &self.packages)
    }

    pub async fn read(&self) -> Result<FoundPolicy, BundleError> {
        let own = self.clone();
        off_the_runtime(move || own.source.read()).await
    }

    pub async fn load(&self, found: FoundPolicy) -> Result<Bundle, BundleError> {
        let own = self.clone();
        off_the_runtime(move || own.load_here(found)).await
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_panicked| Err(BundleError::engine_panicked()))
}
