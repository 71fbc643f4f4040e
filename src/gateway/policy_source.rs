//! What policy is read from, and how a bundle is made of it.

use std::path::PathBuf;

use crate::model::{Digest, PackageName};
use crate::policy::{Bundle, BundleError, Sources};

/// A directory, and what surfaces need of it.
#[derive(Clone, Debug)]
pub(super) struct PolicySource {
    pub dir: PathBuf,
    pub packages: Vec<PackageName>,
}

/// What was found there.
pub(super) struct Read {
    pub sources: Sources,
    /// Of all of it, tests included.
    pub digest: Digest,
}

impl PolicySource {
    /// Blocks.
    pub fn read_here(&self) -> Result<Read, BundleError> {
        let sources = Sources::read(&self.dir)?;
        Ok(Read { digest: sources.digest(), sources })
    }

    /// Blocks for as long as checking, compiling and its tests take.
    pub fn load_here(&self, read: Read) -> Result<Bundle, BundleError> {
        Bundle::tested(read.sources, &self.packages)
    }

    pub async fn read(&self) -> Result<Read, BundleError> {
        let own = self.clone();
        off_the_runtime(move || own.read_here()).await
    }

    pub async fn load(&self, read: Read) -> Result<Bundle, BundleError> {
        let own = self.clone();
        off_the_runtime(move || own.load_here(read)).await
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_panicked| Err(BundleError::engine_panicked()))
}
