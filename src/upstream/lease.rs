//! Connections to one upstream: a small, bounded pool of connected, idle ones.
//!
//! A [`Lease`] is exclusive: one connection, connected, TLS complete, idle, and sealed shut. It is taken before
//! policy decides, so that nothing waits between the decision and the first byte. A connection goes back only
//! after a whole exchange; everything else closes it.

use std::collections::VecDeque;
use std::io;
#[cfg(test)]
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::departed::{Counted, Departed};
use super::sealed_io::{Seal, SealedIo};
use super::{InvalidRoots, Roots, Scheme, Settings, tls};
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::model::ReasonCode;

/// One upstream and its connections. Cheap to clone.
#[derive(Clone)]
pub struct Upstream(Arc<Pool>);

/// How a simulated upstream is reached: within the process.
#[cfg(test)]
pub(crate) type Reach =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>> + Send + Sync>;

/// A stream of bytes that a simulation is at the other end of.
#[cfg(test)]
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

struct Pool {
    settings: Settings,
    #[cfg(test)]
    reach: Option<Reach>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    clock: Clock,
    leases: Arc<Semaphore>,
    /// Newest last; taken from the end, so that spare connections age and close.
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    connection: Connection,
    /// Since when the upstream has seen nothing on it.
    since: Moment,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    seal: Seal,
}

/// Exclusive use of one connected, idle connection.
pub struct Lease {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) seal: Seal,
    /// Since when the upstream has seen nothing on it.
    idle_since: Moment,
    pool: Upstream,
    _slot: OwnedSemaphorePermit,
}

/// No lease. Nothing was sent in any case.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// All connections stayed leased for `lease_wait_max`.
    #[error("all connections to the upstream are in use")]
    Busy,
    #[error("the upstream could not be reached: {0}")]
    Unreachable(io::Error),
}

impl LeaseError {
    pub const fn code(&self) -> ReasonCode {
        match self {
            Self::Busy => ReasonCode::UpstreamBusy,
            Self::Unreachable(_) => ReasonCode::UpstreamUnreachable,
        }
    }
}

/// How the pool is used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolGauge {
    pub leased: usize,
    pub idle: usize,
}

impl Upstream {
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, InvalidRoots> {
        let tls = match &settings.scheme {
            Scheme::Plain => None,
            Scheme::Tls(roots) => Some(connector(roots, &settings.host)?),
        };
        let leases = Arc::new(Semaphore::new(settings.leases_max));
        Ok(Self(Arc::new(Pool {
            settings,
            #[cfg(test)]
            reach: None,
            tls,
            clock,
            leases,
            idle: Mutex::default(),
        })))
    }

    #[cfg(test)]
    pub(crate) fn simulated(settings: Settings, clock: Clock, reach: Reach) -> Self {
        let leases = Arc::new(Semaphore::new(settings.leases_max));
        let (tls, idle) = (None, Mutex::default());
        Self(Arc::new(Pool { settings, reach: Some(reach), tls, clock, leases, idle }))
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub fn gauge(&self) -> PoolGauge {
        PoolGauge {
            leased: self.0.settings.leases_max - self.0.leases.available_permits(),
            idle: self.idle().len(),
        }
    }

    /// A connection that is idle right now, if there is one; never waits and never connects.
    pub fn try_idle(&self) -> Option<Lease> {
        let slot = self.0.leases.clone().try_acquire_owned().ok()?;
        self.take_idle(slot).ok()
    }

    /// An idle connection, or a new one.
    pub async fn lease(&self) -> Result<Lease, LeaseError> {
        let wait = self.0.settings.lease_wait_max;
        let slot = match timeout(wait, self.0.leases.clone().acquire_owned()).await {
            Ok(slot) => slot.expect("the pool's semaphore is never closed"),
            Err(_elapsed) => return Err(LeaseError::Busy),
        };
        match self.take_idle(slot) {
            Ok(lease) => Ok(lease),
            Err(slot) => self.connect(slot).await,
        }
    }

    /// A new connection, whatever is idle: for a second try after an idle one turned out to be closed.
    pub async fn lease_new(&self) -> Result<Lease, LeaseError> {
        let wait = self.0.settings.lease_wait_max;
        match timeout(wait, self.0.leases.clone().acquire_owned()).await {
            Ok(slot) => self.connect(slot.expect("the pool's semaphore is never closed")).await,
            Err(_elapsed) => Err(LeaseError::Busy),
        }
    }

    /// Closes connections that have been idle for too long. Called now and then by the gateway.
    pub fn close_aged(&self) {
        let now = self.0.clock.monotonic();
        self.idle().retain(|idle| self.is_fresh(idle, now));
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        // The queue is whole between any two calls on it.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, idle: &Idle, now: Moment) -> bool {
        now.since(idle.since) < self.0.settings.idle_max && idle.connection.sender.is_ready()
    }

    fn take_idle(&self, slot: OwnedSemaphorePermit) -> Result<Lease, OwnedSemaphorePermit> {
        let now = self.0.clock.monotonic();
        let mut queue = self.idle();
        while let Some(idle) = queue.pop_back() {
            if self.is_fresh(&idle, now) {
                let Idle { connection: Connection { sender, seal }, since: idle_since } = idle;
                return Ok(Lease { sender, seal, idle_since, pool: self.clone(), _slot: slot });
            }
        }
        Err(slot)
    }

    async fn connect(&self, slot: OwnedSemaphorePermit) -> Result<Lease, LeaseError> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
        let Connection { sender, seal } = timeout(self.0.settings.connect_max, self.0.open())
            .await
            .unwrap_or_else(|_elapsed| Err(late()))
            .map_err(LeaseError::Unreachable)?;
        let idle_since = self.0.clock.monotonic();
        Ok(Lease { sender, seal, idle_since, pool: self.clone(), _slot: slot })
    }
}

impl Pool {
    async fn open(&self) -> io::Result<Connection> {
        #[cfg(test)]
        if let Some(reach) = &self.reach {
            let (wire, departed) = Counted::new(reach().await?);
            return handshake(wire, departed).await;
        }
        let tcp = dial(&self.settings.host, self.settings.port).await?;
        let (tcp, departed) = Counted::new(tcp);
        match &self.tls {
            None => handshake(tcp, departed).await,
            Some((connector, name)) => handshake(connector.connect(name.clone(), tcp).await?, departed).await,
        }
    }
}

pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "the one place that connects")]
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// TLS towards this host, and the name its certificate must have.
pub(super) fn connector(
    roots: &Roots,
    host: &str,
) -> Result<(TlsConnector, ServerName<'static>), InvalidRoots> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| InvalidRoots::Refused(rustls::Error::General(e.to_string())))?;
    Ok((TlsConnector::from(tls::client_config(roots)?), name))
}

async fn handshake<T>(io: T, departed: Departed) -> io::Result<Connection>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, seal) = SealedIo::new(io, departed);
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(limits::RESPONSE_HEADERS_MAX)
        .max_buf_size(limits::RESPONSE_HEAD_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        // How an exchange ends is told to whoever waits for its answer; the connection itself has nothing to add.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    sender.ready().await.map_err(io::Error::other)?;
    Ok(Connection { sender, seal })
}

impl Lease {
    /// Gives the connection back after a whole exchange.
    pub(super) fn give_back(mut self) {
        self.idle_since = self.pool.0.clock.monotonic();
        self.give_back_unused();
    }

    /// Gives the connection back as it was taken: not a moment younger, however often it was taken for nothing.
    pub fn give_back_unused(self) {
        let Lease { mut sender, seal, idle_since, pool, _slot } = self;
        if seal.is_violated() || sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            pool.put(Connection { sender, seal }, idle_since);
        } else {
            // hyper is still finishing the exchange: the connection is ready a moment later, or closed.
            tokio::spawn(async move {
                if let Ok(Ok(())) = timeout(SETTLE_MAX, sender.ready()).await {
                    pool.put(Connection { sender, seal }, idle_since);
                }
                drop(_slot);
            });
        }
    }
}

const SETTLE_MAX: Duration = Duration::from_millis(100);

impl Upstream {
    fn put(&self, connection: Connection, since: Moment) {
        self.idle().push_back(Idle { connection, since });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    #[tokio::test]
    async fn a_connection_taken_for_nothing_does_not_become_younger() {
        #[expect(clippy::disallowed_methods, reason = "a test's upstream")]
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let second = Duration::from_secs(1);
        let settings = Settings {
            scheme: Scheme::Plain,
            host: "127.0.0.1".into(),
            port: socket.local_addr().expect("bound").port(),
            authority: "a".into(),
            leases_max: 1,
            idle_max: 3 * second,
            connect_max: second,
            lease_wait_max: second,
            response_head_max: second,
            response_idle_max: second,
        };
        let upstream = Upstream::new(settings, clock.clone()).expect("no roots needed");
        upstream.lease().await.expect("it listens").give_back_unused();
        for _ in 0..2 {
            clock.advance(second);
            upstream.try_idle().expect("idle for less than its bound").give_back_unused();
        }
        clock.advance(second);
        assert!(upstream.try_idle().is_none(), "the upstream may be about to close it");
    }
}
