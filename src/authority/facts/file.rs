//! A fact from a file.
//!
//! The path is followed anew each time, so that a file which is replaced, and a symbolic link that is turned (a mounted
//! Kubernetes ConfigMap), is seen. A file that changes while it is read is not taken: replace files by renaming.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{FactSource, Unread};
use crate::authority::Answer;

/// A regular file of bounded size.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    bytes_max: usize,
    timeout: Duration,
    /// A read that took longer than its time. A file system that hangs keeps one thread, never two.
    running: Option<JoinHandle<Result<Bytes, Unread>>>,
}

impl FileSource {
    pub fn new(path: PathBuf, bytes_max: usize, timeout: Duration) -> Self {
        Self { path, bytes_max, timeout, running: None }
    }
}

impl FactSource for FileSource {
    fn read(&mut self) -> Answer<'_, Result<Bytes, Unread>> {
        Box::pin(async move {
            if let Some(late) = &mut self.running {
                // What it read is from before this read began: it counts for nothing.
                if timeout(self.timeout, late).await.is_err() {
                    return Err(Unread::Late);
                }
            }
            let (path, bytes_max) = (self.path.clone(), self.bytes_max);
            let running = self.running.insert(tokio::task::spawn_blocking(move || whole(&path, bytes_max)));
            let Ok(read) = timeout(self.timeout, running).await else { return Err(Unread::Late) };
            self.running = None;
            read.unwrap_or_else(|error| Err(Unread::Unreachable(error.to_string())))
        })
    }
}

fn whole(path: &Path, bytes_max: usize) -> Result<Bytes, Unread> {
    let unreachable = |error: std::io::Error| Unread::Unreachable(format!("{}: {error}", path.display()));
    // Opening a pipe would wait for its other end.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreachable)?;
    let before = file.metadata().map_err(unreachable)?;
    if !before.is_file() {
        return Err(Unread::Refused(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    let most = bytes_max as u64 + 1;
    Read::take(&file, most).read_to_end(&mut bytes).map_err(unreachable)?;
    if bytes.len() > bytes_max {
        return Err(Unread::TooLarge(bytes_max));
    }
    if changed(&file, &before).map_err(unreachable)? || before.len() != bytes.len() as u64 {
        return Err(Unread::Refused(format!("{} changed while it was read", path.display())));
    }
    Ok(bytes.into())
}

fn changed(file: &File, before: &Metadata) -> std::io::Result<bool> {
    let after = file.metadata()?;
    let stamp = |m: &Metadata| (m.len(), m.mtime(), m.mtime_nsec());
    Ok(stamp(&after) != stamp(before))
}
