//! One client connection, from accept to close.

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Guard;
use super::patience::{Impatient, Requests};
use super::peer::{Peer, SharedTls};
use super::request;
use crate::authority::fault_of_handshake;
use crate::limits;
use crate::pep::{Gate, Surface};

/// Bounds on what clients can make the gateway hold.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// TLS handshake; message head; also how long a connection may stay idle between requests.
    pub head_max: Duration,
    /// From the head to the last byte of the body.
    pub body_max: Duration,
    /// How long a client may take to accept one piece of an answer.
    pub client_stall_max: Duration,
    /// How old a connection may become. An older one is closed as soon as what runs on it has been answered.
    pub connection_age_max: Duration,
}

/// One address, the surfaces behind it, and what their requests share.
pub struct Listener {
    pub surfaces: Vec<Arc<Surface>>,
    pub tls: Option<SharedTls>,
    pub gate: Gate,
    pub bounds: Bounds,
    /// Client connections, all listeners together.
    pub connections: Arc<Semaphore>,
    pub in_flight: Arc<Semaphore>,
    /// Bytes of request bodies held in memory, all listeners together.
    pub bodies: Arc<Semaphore>,
    /// Connections and request tasks: what has to end before the ledger closes.
    pub tasks: TaskTracker,
    /// Stop accepting, finish what runs.
    pub drain: CancellationToken,
    /// Stop waiting for upstreams: what is still open ends as `indeterminate`.
    pub abandon: CancellationToken,
}

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Accepts until drained. Never more connections than the bound: the rest wait in the kernel's backlog.
pub async fn serve(listener: Arc<Listener>, socket: TcpListener) {
    loop {
        let slot = tokio::select! {
            () = listener.drain.cancelled() => return,
            slot = listener.connections.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = listener.drain.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let task = connection(listener.clone(), stream, peer, slot);
                listener.tasks.spawn(task);
            }
            Err(error) => {
                // Out of file descriptors, or a connection that was gone before we took it.
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(limits::ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

async fn connection(
    listener: Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
) {
    let _open = Open::count(listener.gate.metrics.connections.clone());
    let ended = match &listener.tls {
        None => plain(&listener, stream).await,
        Some(tls) => encrypted(&listener, tls, stream).await,
    };
    drop(slot);
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "client connection ended");
    }
}

/// Counts a connection for as long as it is alive.
struct Open(IntGauge);

impl Open {
    fn count(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn plain(listener: &Arc<Listener>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // HTTP/2 with prior knowledge begins with the preface; everything else is HTTP/1.1.
    let (mut reader, writer) = stream.into_split();
    let first = before_request(listener, first_bytes(&mut reader)).await?;
    let is_http2 = first == PREFACE;
    let io = join(Cursor::new(first).chain(reader), writer);
    if is_http2 { http2(listener, io, None).await } else { http1(listener, io, None).await }
}

/// What has to happen before there can be a request: bounded in time, and not waited for while draining.
async fn before_request<T>(listener: &Listener, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        done = timeout(listener.bounds.head_max, step) => {
            done.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        }
        () = listener.drain.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// The HTTP/2 preface, or what came up to where it is none.
async fn first_bytes<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let missing = (PREFACE.len() - first.len()) as u64;
        if (&mut *reader).take(missing).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first)
}

async fn encrypted(listener: &Arc<Listener>, tls: &SharedTls, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // What is in force now, for this connection; what is in force at a request is asked then.
    let in_force = tls.load_full();
    let accepting = TlsAcceptor::from(in_force.config.clone()).accept(stream);
    let accepted = before_request(listener, accepting).await.inspect_err(|error| count(listener, error))?;
    let session = accepted.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = Peer::new(chain, in_force, &listener.gate.clock);
    match session.alpn_protocol() {
        Some(b"h2") => http2(listener, accepted, peer).await,
        _ => http1(listener, accepted, peer).await,
    }
}

/// A handshake that failed at the client's certificate is a credential that was refused.
fn count(listener: &Listener, error: &io::Error) {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(fault) = error.and_then(fault_of_handshake) {
        listener.gate.metrics.unproved(None, fault);
        tracing::info!(fault = fault.as_str(), "handshake refused");
    }
}

/// Resolves when no further request is wanted on a connection.
async fn is_over(listener: &Listener) {
    tokio::select! {
        () = listener.drain.cancelled() => {}
        () = sleep(listener.bounds.connection_age_max) => {}
    }
}

/// How HTTP/1.1 is read behind the guard.
pub(super) fn http1_builder(head_max: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_max)
        .max_headers(limits::HEADERS_MAX + 1)
        // A client that half-closes still gets its answer.
        .half_close(true);
    builder
}

async fn http1<T>(listener: &Arc<Listener>, io: T, peer: Option<Arc<Peer>>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (guard, heads) = Guard::new(Impatient::new(io, listener.bounds.client_stall_max));
    let serving = http1_builder(listener.bounds.head_max).serve_connection(
        TokioIo::new(guard),
        // Whatever happens is an answer: the service itself never fails.
        service_fn(|incoming| {
            request::answer(listener.clone(), Some(heads.clone()), None, peer.clone(), incoming)
                .map(Ok::<_, Infallible>)
        }),
    );
    let mut serving = pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(io::Error::other),
        () = is_over(listener) => serving.as_mut().graceful_shutdown(),
    }
    serving.await.map_err(io::Error::other)
}

async fn http2<T>(listener: &Arc<Listener>, io: T, peer: Option<Arc<Peer>>) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Requests::new();
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        .keep_alive_interval(listener.bounds.head_max)
        .keep_alive_timeout(listener.bounds.head_max)
        .serve_connection(
            TokioIo::new(Impatient::new(io, listener.bounds.client_stall_max)),
            service_fn(|incoming| {
                let open = Some(requests.begin());
                request::answer(listener.clone(), None, open, peer.clone(), incoming).map(Ok::<_, Infallible>)
            }),
        );
    let mut serving = pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(io::Error::other),
        () = is_over(listener) => serving.as_mut().graceful_shutdown(),
        () = requests.idle(listener.bounds.head_max) => serving.as_mut().graceful_shutdown(),
    }
    // Nobody has to be told if nothing was asked. Else what is left may take its time, but not without progress:
    // a stream whose window the client keeps shut is no request any more.
    let left_max = if requests.begun() == 0 { Duration::ZERO } else { listener.bounds.client_stall_max };
    tokio::select! {
        ended = serving.as_mut() => ended.map_err(io::Error::other),
        () = requests.idle(left_max) => Err(io::ErrorKind::TimedOut.into()),
    }
}
