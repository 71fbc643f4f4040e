//! How long a client may keep a connection without using it: by not reading its answers, or by asking nothing.
//!
//! hyper bounds neither. [`Impatient`] fails a write that has made no progress for its bound; [`Requests`] tells when
//! an HTTP/2 connection has had no request for a while, pings or not.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

/// A stream whose peer must take what is written.
pub struct Impatient<T> {
    io: T,
    stall_max: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Impatient<T> {
    pub fn new(io: T, stall_max: Duration) -> Self {
        Self { io, stall_max, waiting: None }
    }

    fn bounded<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.stall_max)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Impatient<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.bounded(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.bounded(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.bounded(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        this.bounded(cx, result)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Impatient<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

/// The requests of one connection.
pub(super) struct Requests {
    open: watch::Sender<()>,
    begun: AtomicU64,
}

/// Held for as long as a request is worked on.
pub(super) struct Open {
    _open: watch::Receiver<()>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { open: watch::Sender::new(()), begun: AtomicU64::new(0) }
    }

    pub(super) fn begin(&self) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Open { _open: self.open.subscribe() }
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Resolves after `idle_max` without a request.
    pub(super) async fn idle(&self, idle_max: Duration) {
        loop {
            self.open.closed().await;
            let begun = self.begun();
            sleep(idle_max).await;
            if self.open.is_closed() && self.begun() == begun {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_peer_that_does_not_read_ends_the_write_and_a_slow_one_does_not() {
        let (near, far) = tokio::io::duplex(4);
        let mut io = Impatient::new(near, SHORT);
        let error = io.write_all(b"more than four").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);

        let (near, mut far) = tokio::io::duplex(4);
        let mut io = Impatient::new(near, 4 * SHORT);
        let reading = tokio::spawn(async move {
            let mut text = Vec::new();
            for _ in 0..7 {
                sleep(SHORT).await;
                let mut two = [0; 2];
                far.read_exact(&mut two).await.expect("open");
                text.extend(two);
            }
            text
        });
        io.write_all(b"more than four").await.expect("slow, but reading");
        assert_eq!(reading.await.expect("no panic"), b"more than four");
    }

    #[tokio::test]
    async fn a_connection_is_idle_only_while_nothing_is_worked_on() {
        let requests = Requests::new();
        let open = requests.begin();
        assert!(timeout(4 * SHORT, requests.idle(SHORT)).await.is_err());
        drop(open);
        assert!(timeout(4 * SHORT, requests.idle(SHORT)).await.is_ok());
    }
}
