//! Standard output, for collectors that read what a container prints.
//!
//! A pipe that nobody reads blocks whoever writes to it, so a thread of its own does: a sink that hangs must hold up
//! neither the async threads nor the end of the process.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Batch, Sink, Undelivered};

type Writing = (Bytes, oneshot::Sender<io::Result<()>>);

pub struct Stdout {
    writer: mpsc::Sender<Writing>,
    /// Of a delivery that was dropped halfway: its lines are still on their way, and come before any others.
    pending: Option<oneshot::Receiver<io::Result<()>>>,
}

impl Stdout {
    pub fn new() -> Self {
        let (writer, work) = mpsc::channel::<Writing>();
        // Not joined: it ends with its sender, or with the process. Without it every delivery fails, and says so.
        let started = thread::Builder::new().name("sink-stdout".into()).spawn(move || {
            for (lines, done) in work {
                let mut out = io::stdout().lock();
                // Nobody waits any more if the gateway is ending.
                let _ = done.send(out.write_all(&lines).and_then(|()| out.flush()));
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "no thread for standard output");
        }
        Self { writer, pending: None }
    }
}

impl Sink for Stdout {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), Undelivered> {
        let gone = || Undelivered::Unavailable("the thread that writes is gone".to_owned());
        if let Some(pending) = self.pending.take() {
            // Whether it was written is the question of the delivery that was dropped.
            let _ = pending.await;
        }
        let (done, written) = oneshot::channel();
        self.writer.send((batch.lines.clone(), done)).map_err(|_| gone())?;
        let written = self.pending.insert(written).await;
        self.pending = None;
        written.map_err(|_| gone())?.map_err(|error| Undelivered::Unavailable(error.to_string()))
    }
}
