//! The upstream and the wire to it: connections within the process, that fail as those of a network do.
//!
//! What leaves the gateway is written down as it leaves, in the gateway's own write. What the upstream does with it, it
//! decides by its dice: answers, loses the reply, says nothing, cuts, closes while idle; and all its connections end
//! when it restarts.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::journal::{Conduct, Journal, What};
use super::script::Rng;
use super::wirings::Wiring;
use crate::upstream::{Reach, Wire};

/// The gateway waits so long for the head of an answer.
pub const HEAD_MAX: Duration = Duration::from_millis(1_500);
pub const IDLE_MAX: Duration = Duration::from_millis(800);

pub struct Upstream {
    seed: u64,
    wire_bytes: usize,
    wiring: Wiring,
    journal: Journal,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: usize,
    /// Time of the run.
    down_until: Duration,
    /// Ends the connections there are.
    restart: CancellationToken,
}

impl Upstream {
    pub fn new(seed: u64, wire_bytes: usize, wiring: Wiring, journal: Journal) -> Arc<Self> {
        Arc::new(Self { seed, wire_bytes, wiring, journal, state: Mutex::default() })
    }

    pub fn restart(&self, down: Duration) {
        let mut state = self.state.lock().expect("nothing panics in here");
        state.down_until = state.down_until.max(self.journal.now() + down);
        std::mem::take(&mut state.restart).cancel();
    }

    /// How the gateway reaches it.
    pub fn reach(self: &Arc<Self>) -> Reach {
        let upstream = Arc::clone(self);
        Arc::new(move || {
            let upstream = Arc::clone(&upstream);
            Box::pin(async move { upstream.connect().await })
        })
    }

    async fn connect(self: Arc<Self>) -> io::Result<Box<dyn Wire>> {
        let number = {
            let mut state = self.state.lock().expect("nothing panics in here");
            state.connections += 1;
            state.connections
        };
        let mut dice = Rng::new(self.seed, 1_000 + number as u64);
        let takes = if dice.percent(4) { dice.ms(900, 1_500) } else { dice.ms(0, 30) };
        sleep(takes).await;
        let restart = {
            let state = self.state.lock().expect("nothing panics in here");
            if self.journal.now() < state.down_until || dice.percent(2) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            state.restart.clone()
        };
        let (near, far) = tokio::io::duplex(self.wire_bytes);
        let breaks_after = dice.percent(4).then(|| dice.below(500) as usize);
        let is_vectored = dice.percent(50);
        self.journal.add(What::Connected(number));
        let upstream = Arc::clone(&self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = restart.cancelled() => {}
                () = upstream.serve(number, far, dice) => {}
            }
        });
        let wire = Line { number, io: near, breaks_after, is_vectored, journal: self.journal.clone() };
        Ok(Box::new(wire))
    }

    /// Until the connection ends. It does so when this returns, too.
    async fn serve(&self, number: usize, mut io: DuplexStream, mut dice: Rng) {
        let mut received = Vec::new();
        loop {
            // Half open: nobody reads, and nobody says so.
            if dice.percent(3) {
                return std::future::pending().await;
            }
            let idle = if dice.percent(30) { dice.ms(0, 400) } else { Duration::from_secs(100) };
            match timeout(idle, self.read_message(&mut io, &mut received, &mut dice)).await {
                Ok(Ok(Read::Message)) => {}
                Ok(Ok(Read::Early)) => {
                    let _ = io.write_all(&plain("200 OK", "early")).await;
                    sleep(dice.ms(0, 200)).await;
                    return;
                }
                Ok(Err(_)) => return,
                // In the middle of a message it goes on for a while.
                Err(_) => {
                    if received.is_empty() {
                        return;
                    }
                    sleep(dice.ms(0, 500)).await;
                    return;
                }
            }
            let conduct = conduct(&mut dice);
            self.journal.add(What::Executed(number, conduct));
            if self.wiring == Wiring::UpstreamIsSentAgain && conduct == Conduct::LosesReply {
                // What a proxy does that means well.
                self.journal.add(What::Connected(number + 100_000));
                self.journal.add(What::Left(number + 100_000, received.clone()));
            }
            received.clear();
            if !self.answer(conduct, &mut io, &mut dice).await {
                return;
            }
        }
    }

    async fn read_message(
        &self,
        io: &mut DuplexStream,
        received: &mut Vec<u8>,
        dice: &mut Rng,
    ) -> io::Result<Read> {
        let is_slow = dice.percent(10);
        let is_early = dice.percent(2);
        let mut buffer = [0; 128];
        loop {
            let n = io.read(&mut buffer).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received.extend_from_slice(&buffer[..n]);
            if is_slow {
                sleep(dice.ms(0, 60)).await;
            }
            if is_early && received.len() > 40 {
                return Ok(Read::Early);
            }
            if is_whole(received) {
                return Ok(Read::Message);
            }
        }
    }

    /// Whether the connection goes on.
    async fn answer(&self, conduct: Conduct, io: &mut DuplexStream, dice: &mut Rng) -> bool {
        let takes = if dice.percent(50) { dice.ms(0, 20) } else { dice.ms(0, 700) };
        sleep(takes).await;
        let body = format!("{{\"id\":{}}}", dice.below(1_000_000));
        let written = match conduct {
            Conduct::Answers => io.write_all(&plain("201 Created", &body)).await,
            Conduct::Refuses => io.write_all(&plain("402 Payment Required", &body)).await,
            Conduct::Fails => io.write_all(&plain("503 Service Unavailable", &body)).await,
            Conduct::Late => {
                sleep(dice.ms(1_000, 2_500)).await;
                io.write_all(&plain("200 OK", &body)).await
            }
            Conduct::Streams => self.stream(&body, io, dice).await,
            Conduct::LosesReply => return false,
            Conduct::Silent => return std::future::pending().await,
            Conduct::Cuts => {
                let whole = plain("200 OK", &body);
                let _ = io.write_all(&whole[..whole.len() - 2]).await;
                return false;
            }
            Conduct::Stalls => {
                let whole = plain("200 OK", &body);
                let _ = io.write_all(&whole[..whole.len() - 2]).await;
                return std::future::pending().await;
            }
            Conduct::Garbles => {
                let _ = io.write_all(b"HTTP/1.1 2x0 what\r\n\r\n").await;
                return false;
            }
            Conduct::SaysClose => {
                let whole = plain("200 OK", &body);
                let text =
                    String::from_utf8(whole).expect("text").replacen("\r\n", "\r\nconnection: close\r\n", 1);
                let _ = io.write_all(text.as_bytes()).await;
                return false;
            }
            // An answer, and then one that nobody asked for.
            Conduct::Promises => {
                let twice = [plain("200 OK", &body), plain("200 OK", "unasked")].concat();
                io.write_all(&twice).await
            }
        };
        written.is_ok()
    }

    async fn stream(&self, body: &str, io: &mut DuplexStream, dice: &mut Rng) -> io::Result<()> {
        io.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        for piece in body.as_bytes().chunks(4) {
            sleep(dice.ms(0, 100)).await;
            io.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            io.write_all(&[piece, b"\r\n"].concat()).await?;
        }
        io.write_all(b"0\r\n\r\n").await
    }
}

enum Read {
    Message,
    /// It answers before it has read it all.
    Early,
}

fn conduct(dice: &mut Rng) -> Conduct {
    match dice.below(100) {
        0..50 => Conduct::Answers,
        50..60 => Conduct::Streams,
        60..66 => Conduct::Refuses,
        66..70 => Conduct::Fails,
        70..79 => Conduct::LosesReply,
        79..85 => Conduct::Silent,
        85..88 => Conduct::Late,
        88..91 => Conduct::Cuts,
        91..94 => Conduct::Stalls,
        94..96 => Conduct::Garbles,
        96..98 => Conduct::SaysClose,
        _ => Conduct::Promises,
    }
}

fn plain(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A head with a length, and as much body.
fn is_whole(received: &[u8]) -> bool {
    let text = String::from_utf8_lossy(received);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
    body.len() >= length
}

/// The gateway's end of a connection.
struct Line {
    number: usize,
    io: DuplexStream,
    /// Takes so many more bytes, then every write fails.
    breaks_after: Option<usize>,
    is_vectored: bool,
    journal: Journal,
}

impl Wire for Line {}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.breaks_after == Some(0) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = this.breaks_after.map_or(bytes.len(), |left| left.min(bytes.len()));
        let written = Pin::new(&mut this.io).poll_write(cx, &bytes[..most]);
        if let Poll::Ready(Ok(n)) = written {
            this.breaks_after = this.breaks_after.map(|left| left - n);
            if n > 0 {
                this.journal.add(What::Left(this.number, bytes[..n].to_vec()));
            }
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buffer)
    }
}
