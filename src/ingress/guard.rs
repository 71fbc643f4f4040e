//! The guard in front of hyper's HTTP/1.1 server: it follows the framing byte by byte and lets only what has one
//! reading through.
//!
//! In: bytes from a client. Out, to hyper: the same bytes, head by head and body by body, each only after it was
//! read strictly. A head that is refused never reaches hyper; hyper gets [`STAND_IN`] and then the end of input,
//! and the service answers the stand-in with the refusal. A body that breaks its framing ends in a read error.
//! [`Heads`] carries one verdict for every head, in order. Responses pass unchanged.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::head::{self, Framing, RawHead};
use crate::canonical::Malformed;
use crate::limits;
use crate::model::{Place, ReasonCode};

/// What hyper reads in place of a refused head. It closes the connection after its answer.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// The same for a head that looks like one of HEAD: its answer has no body, whatever else is wrong with it.
const STAND_IN_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// As many as a u64 has.
const CHUNK_SIZE_DIGITS_MAX: usize = 16;

/// What the guard tells the service about the connection.
#[derive(Clone, Default)]
pub(super) struct Heads(Arc<Mutex<Verdicts>>);

#[derive(Default)]
struct Verdicts {
    heads: VecDeque<Result<RawHead, Malformed>>,
    body: Option<Malformed>,
}

impl Heads {
    fn lock(&self) -> MutexGuard<'_, Verdicts> {
        // Pushes and pops leave the queue whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict on the head that hyper has just read. `None` is a broken promise: hyper and the guard disagree.
    pub(super) fn next(&self) -> Option<Result<RawHead, Malformed>> {
        self.lock().heads.pop_front()
    }

    /// Why the body that is being read was cut off, if the guard did it.
    pub(super) fn body_refusal(&self) -> Option<Malformed> {
        self.lock().body.clone()
    }
}

/// Where in the message the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Length(u64),
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    LastChunkEnd,
    /// A body broke its framing: reads fail.
    BodyRefused,
    /// A head was refused: after the stand-in, the input is at its end.
    HeadRefused,
}

pub(super) struct Guard<T> {
    io: T,
    heads: Heads,
    phase: Phase,
    /// Read from the client, not judged yet: part of a head or of a chunk line.
    pending: Vec<u8>,
    /// How much of a pending head has been looked at.
    scanned: usize,
    /// Judged, on its way to hyper.
    released: VecDeque<u8>,
    /// Bytes of the current body so far, for places.
    body_at: u64,
    /// Running while we wait for the client to stop sending after the last answer.
    linger: Option<Linger>,
}

struct Linger {
    deadline: Pin<Box<Sleep>>,
    budget: usize,
}

impl<T> Guard<T> {
    pub(super) fn new(io: T) -> (Self, Heads) {
        let heads = Heads::default();
        let guard = Self {
            io,
            heads: heads.clone(),
            phase: Phase::Head,
            pending: Vec::new(),
            scanned: 0,
            released: VecDeque::new(),
            body_at: 0,
            linger: None,
        };
        (guard, heads)
    }

    /// Judges `bytes` in order; what passes is released.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.phase {
                Phase::Head => self.feed_head(bytes),
                Phase::Length(left) => self.feed_data(bytes, left, Phase::Length, Phase::Head),
                Phase::ChunkData(left) => self.feed_data(bytes, left, Phase::ChunkData, Phase::ChunkEnd),
                Phase::ChunkLine => self.feed_chunk_line(bytes),
                Phase::ChunkEnd => self.feed_line_end(bytes, Phase::ChunkLine, ReasonCode::ChunkMalformed),
                Phase::LastChunkEnd => self.feed_line_end(bytes, Phase::Head, ReasonCode::TrailersRefused),
                Phase::BodyRefused | Phase::HeadRefused => &[],
            };
        }
    }

    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let before = self.pending.len();
        self.pending.extend_from_slice(bytes);
        match head::end(&self.pending, self.scanned) {
            Ok(None) => {
                self.scanned = self.pending.len();
                &[]
            }
            Ok(Some(end)) => {
                let verdict = head::read(&self.pending[..end]);
                match &verdict {
                    Ok(raw) => {
                        self.released.extend(&self.pending[..end]);
                        self.begin_body(raw.framing);
                    }
                    Err(_) => self.refuse_head(),
                }
                self.heads.lock().heads.push_back(verdict);
                self.pending.clear();
                self.scanned = 0;
                &bytes[end - before..]
            }
            Err(malformed) => {
                self.refuse_head();
                self.heads.lock().heads.push_back(Err(malformed));
                &[]
            }
        }
    }

    fn refuse_head(&mut self) {
        let is_head = self.pending.starts_with(b"HEAD ");
        self.released.extend(if is_head { STAND_IN_HEAD } else { STAND_IN });
        self.phase = Phase::HeadRefused;
    }

    fn begin_body(&mut self, framing: Framing) {
        self.body_at = 0;
        self.phase = match framing {
            Framing::None | Framing::Length(0) => Phase::Head,
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::ChunkLine,
        };
    }

    fn feed_data<'a>(&mut self, bytes: &'a [u8], left: u64, more: fn(u64) -> Phase, done: Phase) -> &'a [u8] {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.released.extend(&bytes[..take]);
        self.body_at += take as u64;
        let left = left - take as u64;
        self.phase = if left == 0 { done } else { more(left) };
        &bytes[take..]
    }

    /// `1*16HEXDIG CRLF` (RFC 9112 section 7.1, without extensions).
    fn feed_chunk_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (byte, rest) = (bytes[0], &bytes[1..]);
        self.body_at += 1;
        let has_cr = self.pending.ends_with(b"\r");
        let is_next = match byte {
            b'\n' => has_cr,
            b'\r' => !has_cr && !self.pending.is_empty(),
            _ => !has_cr && hex_value(byte).is_some() && self.pending.len() < CHUNK_SIZE_DIGITS_MAX,
        };
        if !is_next {
            return self.refuse_body(ReasonCode::ChunkMalformed);
        }
        self.pending.push(byte);
        if byte == b'\n' {
            let size =
                self.pending.iter().filter_map(|&d| hex_value(d)).fold(0, |n, d| n << 4 | u64::from(d));
            self.released.extend(&self.pending);
            self.pending.clear();
            self.phase = if size == 0 { Phase::LastChunkEnd } else { Phase::ChunkData(size) };
        }
        rest
    }

    /// Exactly CRLF.
    fn feed_line_end<'a>(&mut self, bytes: &'a [u8], then: Phase, otherwise: ReasonCode) -> &'a [u8] {
        let (byte, rest) = (bytes[0], &bytes[1..]);
        self.body_at += 1;
        self.pending.push(byte);
        match self.pending.as_slice() {
            b"\r" => rest,
            b"\r\n" => {
                self.released.extend(&self.pending);
                self.pending.clear();
                self.phase = then;
                rest
            }
            _ => self.refuse_body(otherwise),
        }
    }

    fn refuse_body<'a>(&mut self, code: ReasonCode) -> &'a [u8] {
        let place = Some(Place::BodyByte(self.body_at - 1));
        self.heads.lock().body = Some(Malformed { code, place, detail: None });
        self.phase = Phase::BodyRefused;
        &[]
    }

    fn is_mid_message(&self) -> bool {
        !matches!(self.phase, Phase::Head) || !self.pending.is_empty()
    }
}

fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|d| d as u8)
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.released.is_empty() {
                let (first, _) = this.released.as_slices();
                let take = first.len().min(buf.remaining());
                buf.put_slice(&first[..take]);
                this.released.drain(..take);
                return Poll::Ready(Ok(()));
            }
            match this.phase {
                Phase::HeadRefused => return Poll::Ready(Ok(())),
                Phase::BodyRefused => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "body framing refused",
                    )));
                }
                Phase::Head
                | Phase::Length(_)
                | Phase::ChunkLine
                | Phase::ChunkData(_)
                | Phase::ChunkEnd
                | Phase::LastChunkEnd => {}
            }
            let mut storage = [0; limits::READ_BYTES];
            let mut read = ReadBuf::new(&mut storage);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.feed(read.filled());
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    /// Ends our side, then reads and drops what the client still sends, for a while: closing a socket with unread
    /// input makes the kernel reset it, and the client would lose the refusal we have just written
    /// (RFC 9112 section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        if !this.is_mid_message() {
            return Poll::Ready(Ok(()));
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            deadline: Box::pin(sleep(Duration::from_millis(limits::LINGER_MS_MAX))),
            budget: limits::LINGER_BYTES_MAX,
        });
        loop {
            if linger.deadline.as_mut().poll(cx).is_ready() || linger.budget == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut storage = [0; limits::READ_BYTES];
            let mut read = ReadBuf::new(&mut storage);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {
                    linger.budget = linger.budget.saturating_sub(read.filled().len());
                }
                // The client is done, or gone: nothing left to wait for.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// What hyper would read, how it ends, and the verdicts; fed in pieces of `piece` bytes.
    async fn through(input: &[u8], piece: usize) -> (Vec<u8>, bool, Heads) {
        let mut builder = tokio_test_reader(input, piece);
        let (mut guard, heads) = Guard::new(&mut builder);
        let mut out = Vec::new();
        let failed = guard.read_to_end(&mut out).await.is_err();
        (out, failed, heads)
    }

    /// A reader that hands out at most `piece` bytes at a time.
    fn tokio_test_reader(input: &[u8], piece: usize) -> Pieces {
        Pieces { input: input.to_vec(), at: 0, piece }
    }

    struct Pieces {
        input: Vec<u8>,
        at: usize,
        piece: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            let end = (this.at + this.piece.min(buf.remaining())).min(this.input.len());
            buf.put_slice(&this.input[this.at..end]);
            this.at = end;
            Poll::Ready(Ok(()))
        }
    }

    fn drain(heads: &Heads) -> Vec<Result<Framing, ReasonCode>> {
        std::iter::from_fn(|| heads.next()).map(|v| v.map(|h| h.framing).map_err(|m| m.code)).collect()
    }

    #[tokio::test]
    async fn well_formed_messages_pass_unchanged_in_any_pieces() {
        let input = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n\
            GET /d HTTP/1.1\r\nHost: x\r\n\r\n";
        for piece in 1..input.len() {
            let (out, failed, heads) = through(input, piece).await;
            assert!(!failed && out == input, "{piece}");
            let expected =
                [Ok(Framing::Length(5)), Ok(Framing::None), Ok(Framing::Chunked), Ok(Framing::None)];
            assert_eq!(drain(&heads), expected, "{piece}");
        }
    }

    #[tokio::test]
    async fn a_refused_head_never_reaches_hyper() {
        let input = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\nX: y\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n";
        for piece in 1..input.len() {
            let (out, failed, heads) = through(input, piece).await;
            let expected = [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", STAND_IN].concat();
            assert!(!failed && out == expected, "{piece}: {}", String::from_utf8_lossy(&out));
            assert_eq!(drain(&heads), [Ok(Framing::None), Err(ReasonCode::HeadBareLf)], "{piece}");
        }
    }

    #[tokio::test]
    async fn the_stand_in_of_a_refused_head_request_is_one_too() {
        for piece in [1, 7, 1000] {
            let (out, _, heads) = through(b"HEAD /a HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", piece).await;
            assert_eq!(out, STAND_IN_HEAD, "{piece}");
            assert_eq!(drain(&heads), [Err(ReasonCode::HeadBareLf)], "{piece}");
        }
    }

    #[tokio::test]
    async fn a_smuggled_second_request_is_inside_the_first_ones_length_or_nowhere() {
        let smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";
        let head = format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", smuggled.len());
        let input = format!("{head}{smuggled}");
        let (out, _, heads) = through(input.as_bytes(), 7).await;
        assert_eq!(out, input.as_bytes());
        assert_eq!(drain(&heads), [Ok(Framing::Length(smuggled.len() as u64))]);
    }

    #[tokio::test]
    async fn a_chunked_body_has_one_accepted_form() {
        let chunked = |body: &str| {
            format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
        };
        for (body, code) in [
            ("5;a=b\r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("\r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5 \r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("0x5\r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("-5\r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5\rhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5\r\r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("00000000000000005\r\nhello\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5\r\nhelloX\r\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5\r\nhello\n0\r\n\r\n", ReasonCode::ChunkMalformed),
            ("5\r\nhello\r\n0\r\nX: y\r\n\r\n", ReasonCode::TrailersRefused),
            ("5\r\nhello\r\n0\r\n\n", ReasonCode::TrailersRefused),
        ] {
            for piece in [1, 3, 1000] {
                let (_, failed, heads) = through(&chunked(body), piece).await;
                assert!(failed, "{body:?}");
                assert_eq!(heads.body_refusal().map(|m| m.code), Some(code), "{body:?}");
            }
        }
        let (out, failed, heads) = through(&chunked("0000000000000005\r\nhello\r\n0\r\n\r\n"), 2).await;
        assert!(!failed && heads.body_refusal().is_none() && out.ends_with(b"0\r\n\r\n"));
    }
}
