//! The last check before the wire: a stream that writes nothing but the sealed bytes.
//!
//! [`SealedIo`] sits between hyper's HTTP/1.1 client connection and the TCP or TLS stream. Unarmed it refuses
//! every write. Armed with a message it lets exactly the next bytes of that message through, and once they
//! have all left it is unarmed again. What hyper does above it does not matter: a byte that policy did not
//! judge has no way out.
//!
//! Before the first byte of a message its [`Conditions`] are looked at once more, and the write happens while none of
//! them can change. If one has, the message is withdrawn whole: the seal is unarmed, and says why.
//!
//! [`Seal::revoke`] takes the permission back and says how many bytes had left. Zero is proof that nothing
//! was sent *and nothing will be*: any later write is refused. That proof is what `not_sent` rests on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use super::conditions::Conditions;
use super::departed::Departed;

/// The exact bytes of one permitted request, credential in place. Wiped when dropped, as far as they hold it.
pub(super) struct SealedMessage {
    head: Zeroizing<Vec<u8>>,
    body: Bytes,
    /// Of its first byte.
    conditions: Conditions,
}

impl SealedMessage {
    pub(super) fn new(head: Zeroizing<Vec<u8>>, body: Bytes, conditions: Conditions) -> Self {
        Self { head, body, conditions }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether `bytes` are the message's own from offset `at`.
    fn has_at(&self, at: usize, bytes: &[u8]) -> bool {
        if bytes.len() > self.len() - at {
            return false;
        }
        let of_head = self.head.get(at..).unwrap_or_default();
        let (first, second) = bytes.split_at(bytes.len().min(of_head.len()));
        let body_at = (at + first.len()).saturating_sub(self.head.len());
        first == &of_head[..first.len()] && second == &self.body[body_at..body_at + second.len()]
    }
}

/// The permission to write, shared by the stream and whoever armed it.
#[derive(Clone, Default)]
pub(super) struct Seal(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    armed: Option<SealedMessage>,
    written: usize,
    /// A write that was not the next slice of the message was asked for. The connection is done for.
    violated: bool,
    /// What had moved when the first byte of the message was about to leave.
    superseded: Option<Arc<str>>,
}

impl Seal {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single assignment, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the permission. Panics if one is already given: one request per lease.
    pub(super) fn arm(&self, message: SealedMessage) {
        let mut state = self.state();
        assert!(state.armed.is_none() && !state.violated, "a lease is armed once at a time");
        state.written = 0;
        state.superseded = None;
        state.armed = Some(message);
    }

    /// Takes the permission back, for good, and tells how many bytes of the message had left: 0 is certain, and
    /// so is the whole length.
    pub(super) fn revoke(&self) -> usize {
        let mut state = self.state();
        state.armed = None;
        state.written
    }

    /// Bytes of the last message that have left so far.
    #[cfg(test)]
    pub(super) fn written(&self) -> usize {
        self.state().written
    }

    pub(super) fn is_violated(&self) -> bool {
        self.state().violated
    }

    /// What had moved, if the message was withdrawn at its first byte.
    pub(super) fn superseded(&self) -> Option<Arc<str>> {
        self.state().superseded.clone()
    }
}

impl State {
    /// `Ok` if `slices`, one after the other, are the next bytes of the message.
    fn check<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let mut at = self.written;
        for slice in slices {
            let allowed = self.armed.as_ref().is_some_and(|message| message.has_at(at, slice));
            if !allowed {
                self.violated = true;
                self.armed = None;
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "write refused: not the next bytes of a permitted request",
                ));
            }
            at += slice.len();
        }
        Ok(())
    }

    /// The write itself: the first one of a message only while its conditions hold.
    fn write<T>(&mut self, write: impl FnOnce() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let message = self.armed.as_ref().filter(|_| self.written == 0);
        let Some(message) = message else { return write() };
        match message.conditions.start(write) {
            Ok(written) => written,
            Err(moved) => {
                self.superseded = Some(moved);
                self.armed = None;
                let text = "write refused: what the permit rests on has moved";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, text)))
            }
        }
    }

    fn advance(&mut self, n: usize) {
        self.written += n;
        if self.armed.as_ref().is_some_and(|message| self.written == message.len()) {
            self.armed = None;
        }
    }

    /// A write failed after something had left: how much of it was the message is not known, only that it is not
    /// nothing, and not the whole.
    fn broke_off(&mut self) {
        self.written = self.written.max(1);
        self.armed = None;
    }
}

pub(super) struct SealedIo<T> {
    io: T,
    seal: Seal,
    /// What the socket below `io` has taken.
    departed: Departed,
    /// A write failed. What lies in the layers below may be part of it, and is never pushed out.
    broken: bool,
}

impl<T> SealedIo<T> {
    pub(super) fn new(io: T, departed: Departed) -> (Self, Seal) {
        let seal = Seal::default();
        (Self { io, seal: seal.clone(), departed, broken: false }, seal)
    }

    /// One checked write, counted by what it took, or by what had left when it failed.
    fn write_checked<'b>(
        &mut self,
        slices: impl Iterator<Item = &'b [u8]>,
        write: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        T: Unpin,
    {
        let mut state = self.seal.state();
        state.check(slices)?;
        let before = self.departed.bytes();
        let io = Pin::new(&mut self.io);
        let result = ready!(state.write(|| write(io)));
        match &result {
            Ok(n) => state.advance(*n),
            Err(_) if self.departed.bytes() != before => state.broke_off(),
            Err(_) => {}
        }
        self.broken |= result.is_err();
        Poll::Ready(result)
    }

    /// TLS may hold records of a write that failed: a flush or a goodbye would send them after all.
    fn check_whole(&self) -> io::Result<()> {
        if self.broken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for SealedIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write_checked(std::iter::once(buf), |io| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices = bufs.iter().map(|b| &**b);
        self.get_mut().write_checked(slices, |io| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_whole()?;
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_whole()?;
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for SealedIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::super::departed::Counted;
    use super::*;
    use crate::authority::Versions;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    fn message(head: &str, body: &str) -> SealedMessage {
        message_while(&Versions::new(), head, body)
    }

    fn message_while(versions: &Versions, head: &str, body: &str) -> SealedMessage {
        let conditions = Conditions::while_unset(versions, "freezes");
        SealedMessage::new(Zeroizing::new(head.into()), Bytes::copy_from_slice(body.as_bytes()), conditions)
    }

    fn sealed() -> (SealedIo<Counted<DuplexStream>>, Seal, DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        let (io, departed) = Counted::new(near);
        let (io, seal) = SealedIo::new(io, departed);
        (io, seal, far)
    }

    async fn arrived(io: SealedIo<Counted<DuplexStream>>, mut far: DuplexStream) -> String {
        drop(io);
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("duplex");
        text
    }

    #[tokio::test]
    async fn an_unarmed_stream_writes_nothing() {
        let (mut io, seal, far) = sealed();
        let refused = io.write(b"x").await.expect_err("unarmed");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(seal.is_violated());
        assert_eq!(arrived(io, far).await, "");
    }

    #[tokio::test]
    async fn the_sealed_bytes_leave_once_in_any_slicing() {
        for cut in 0..=8 {
            let (mut io, seal, far) = sealed();
            seal.arm(message("head", "body"));
            io.write_all(&b"headbody"[..cut]).await.expect("next slice");
            io.write_all(&b"headbody"[cut..]).await.expect("next slice");
            assert_eq!(seal.written(), 8);
            io.write(b"headbody").await.expect_err("once");
            assert_eq!(arrived(io, far).await, "headbody");
        }
    }

    #[tokio::test]
    async fn a_vectored_write_is_checked_across_its_slices() {
        let (mut io, seal, far) = sealed();
        seal.arm(message("head", "body"));
        let good = [IoSlice::new(b"hea"), IoSlice::new(b"dbo"), IoSlice::new(b"dy")];
        let written = io.write_vectored(&good).await.expect("the message");
        assert_eq!(seal.written(), written);
        let rest = &b"headbody"[written..];
        io.write_all(rest).await.expect("the rest");
        assert_eq!(arrived(io, far).await, "headbody");

        let (mut io, seal, far) = sealed();
        seal.arm(message("head", "body"));
        io.write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"bodY")]).await.expect_err("another byte");
        assert_eq!((seal.written(), seal.is_violated()), (0, true));
        assert_eq!(arrived(io, far).await, "");
    }

    #[tokio::test]
    async fn another_byte_or_one_too_many_is_refused() {
        for wrong in ["hEad", "headbodyx", "body", "eadbody"] {
            let (mut io, seal, far) = sealed();
            seal.arm(message("head", "body"));
            io.write(wrong.as_bytes()).await.expect_err(wrong);
            assert!(seal.is_violated());
            assert_eq!(arrived(io, far).await, "", "{wrong}");
        }
    }

    #[tokio::test]
    async fn after_revoke_no_byte_leaves_and_the_count_is_final() {
        let (mut io, seal, far) = sealed();
        seal.arm(message("head", "body"));
        io.write_all(b"hea").await.expect("next slice");
        assert_eq!(seal.revoke(), 3);
        io.write(b"dbody").await.expect_err("revoked");
        assert_eq!(seal.revoke(), 3);
        assert_eq!(arrived(io, far).await, "hea");
    }

    #[tokio::test]
    async fn a_message_whose_conditions_have_moved_never_starts_and_is_no_violation() {
        let versions = Versions::new();
        let (mut io, seal, far) = sealed();
        seal.arm(message_while(&versions, "head", "body"));
        versions.set("freezes", "17");
        let refused = io.write(b"headbody").await.expect_err("moved");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!((seal.superseded().as_deref(), seal.is_violated()), (Some("freezes"), false));
        assert_eq!(seal.revoke(), 0);
        io.write(b"headbody").await.expect_err("withdrawn");
        assert_eq!(arrived(io, far).await, "");
    }

    #[tokio::test]
    async fn a_message_that_has_started_goes_on_whatever_moves() {
        let versions = Versions::new();
        let (mut io, seal, far) = sealed();
        seal.arm(message_while(&versions, "head", "body"));
        io.write_all(b"h").await.expect("nothing has moved");
        versions.set("freezes", "17");
        io.write_all(b"eadbody").await.expect("it has started");
        assert_eq!((seal.revoke(), seal.superseded()), (8, None));
        assert_eq!(arrived(io, far).await, "headbody");
    }

    #[tokio::test]
    #[should_panic(expected = "armed once")]
    async fn arming_twice_is_a_broken_promise() {
        let (_io, seal, _far) = sealed();
        seal.arm(message("a", ""));
        seal.arm(message("b", ""));
    }
}
