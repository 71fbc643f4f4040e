//! What a surface declares about its upstream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One upstream: an origin server, HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Settings {
    pub scheme: Scheme,
    /// DNS name or IP address to connect to, and to verify when TLS.
    pub host: Arc<str>,
    pub port: u16,
    /// Written as `host`: the host, with the port unless it is the scheme's default.
    pub authority: Arc<str>,
    /// Connections at once.
    pub leases_max: usize,
    /// A connection idle for longer is closed, not used. Keep it below the upstream's own bound.
    pub idle_max: Duration,
    /// TCP and TLS together.
    pub connect_max: Duration,
    /// Waiting for a connection when all are leased.
    pub lease_wait_max: Duration,
    /// From the first byte sent to the head of the answer.
    pub response_head_max: Duration,
    /// Between two pieces of the answer's body.
    pub response_idle_max: Duration,
}

#[derive(Clone, Debug)]
pub enum Scheme {
    Plain,
    Tls(Roots),
}

/// Whom an upstream's certificate must come from.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Mozilla's, compiled in.
    WebPki,
    /// The host's store.
    Native,
    /// A PEM file.
    File(PathBuf),
}
