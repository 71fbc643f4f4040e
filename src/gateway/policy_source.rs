//! What policy is read from, off the async threads, and what surfaces need of it.

use crate::config::{FoundPolicy, PolicySource};
use crate::model::PackageName;
use crate::policy::{Bundle, BundleError};

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub source: PolicySource,
    pub packages: Vec<PackageName>,
}

impl Policy {
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
