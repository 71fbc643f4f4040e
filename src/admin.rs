//! The admin listener: metrics, liveness, readiness, the log to read, and what operators do. Loopback unless config
//! says otherwise.
//!
//! `/healthz` answers while the process runs. `/readyz` is 200 only if a request could be permitted now, and says
//! which part is not ready. `/metrics` is Prometheus text. These three are open to whoever reaches the listener.
//! `log` has the rest of what is read, `control` what is changed: for operators only (`operators`), who come through
//! `door`, at the pace of `rate`, each to the `endpoint` of their role. If config names no operators, the log is
//! open as well, and nothing can be changed.

mod control;
mod door;
mod endpoint;
mod listing;
mod log;
mod operators;
mod policy;
mod problem;
mod query;
mod rate;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use control::Control;
pub use control::Done;
pub use door::Door;
#[cfg(test)]
pub(crate) use endpoint::Asked;
pub use log::LogApi;
pub use operators::{CertificateOf, NotAnOperator, Operator, Operators, SharedOperators, TOKEN_START, Token};
pub use policy::{PolicyAsk, PolicyAsks, PolicyHealth, PolicyOrder, PolicyOrders};
pub use problem::Refusal;
pub use rate::{Rate, Whence};

use crate::authority::{MtlsIdentity, PeerCertificate, Restricted, fault_of_handshake};
use crate::clock::{Anchor, Clock};
use crate::ingress::{self, Impatient, SharedTls};
use crate::ledger::{Health, Ledger};
use crate::limits;
use crate::model::{CredentialFault, LeafIndex, ReceiptId, SurfaceName};
use crate::policy::Pdp;
use crate::respond::ResponseBody;
use crate::sinks;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use endpoint::{Change, Endpoint, takes_reads};
use listing::Page;
use operators::{Presented, Unproved, role_name};

/// What the admin listener can see and do.
pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub ledger: Ledger,
    pub pdp: Pdp,
    pub pools: Vec<(SurfaceName, Upstream)>,
    pub sinks: Vec<sinks::Progress>,
    pub log: LogApi,
    pub drain: CancellationToken,
    /// Of the start.
    pub anchor: Anchor,
    pub control: Arc<Control>,
    pub operators: SharedOperators,
    /// Whose certificates surfaces take as agents'.
    pub agents: Vec<MtlsIdentity>,
    pub door: Door,
    pub rate: Rate<Arc<str>>,
    pub peers: Rate<Whence>,
    pub policy: PolicyHealth,
}

/// Where connections come from.
pub enum Socket {
    Tcp(TcpListener),
    Tls(TcpListener, SharedTls),
    Unix(UnixListener),
}

/// What the connection itself tells of who is at the other end.
#[derive(Default)]
struct Peer {
    from: Option<Whence>,
    /// A certificate that the handshake verified; under what is in force now, each request asks again.
    certified: Option<(Arc<ingress::Peer>, SharedTls)>,
    uid: Option<u32>,
    /// Who the last request was proved to be from: an answer may last longer than that holds.
    proved: Mutex<Option<Arc<Operator>>>,
}

enum Accepted {
    Tcp(TcpStream, Whence),
    Tls(TcpStream, Whence, SharedTls),
    Unix(UnixStream),
}

impl Socket {
    async fn accept(&self) -> std::io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Accepted::Tcp(stream, Whence::of(address))
            }
            Self::Tls(socket, tls) => {
                let (stream, address) = socket.accept().await?;
                Accepted::Tls(stream, Whence::of(address), tls.clone())
            }
            Self::Unix(socket) => Accepted::Unix(socket.accept().await?.0),
        })
    }
}

/// Members in RFC 8785 order.
#[derive(Serialize)]
struct Readiness {
    clock: &'static str,
    draining: bool,
    ledger: &'static str,
    policy: String,
    /// `failing`: what it is read from cannot be used, and this revision is an older one.
    policy_source: &'static str,
    ready: bool,
}

const fn health_name(health: Health) -> &'static str {
    match health {
        Health::Accepting => "accepting",
        Health::Full => "full",
        Health::Poisoned => "poisoned",
        Health::Closed => "closed",
    }
}

/// Serves until `stop`; longer than the gateway drains, so that the drain can be watched.
pub async fn serve(admin: Arc<Admin>, socket: Socket, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(slot) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok(accepted) = accepted else {
            sleep(Duration::from_millis(limits::ACCEPT_RETRY_MS)).await;
            continue;
        };
        let (admin, stop) = (admin.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = admin.meet(accepted) => {}
                () = stop.cancelled() => {}
            }
            drop(slot);
        });
    }
}

/// Scrapers reconnect, so a connection takes no more requests after its time. An answer that is being read goes on:
/// it may follow the log for days, as long as whoever asked for it is an operator still.
async fn connection<S>(admin: &Admin, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let peer = &peer;
    let service = service_fn(async |request| Ok::<_, Infallible>(admin.answer(request, peer).await));
    let idle_max = Duration::from_millis(limits::ADMIN_CONNECTION_MS_MAX);
    let stall_max = Duration::from_millis(limits::ADMIN_STALL_MS_MAX);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_max)
        .serve_connection(TokioIo::new(Impatient::new(stream, stall_max)), service);
    let mut serving = pin!(serving);
    let mut age = pin!(sleep(idle_max));
    let mut look = interval(Duration::from_millis(limits::IDENTITY_POLL_MS));
    loop {
        tokio::select! {
            // An error is a client that is gone, or one that takes nothing.
            _ended = serving.as_mut() => return,
            () = age.as_mut(), if !age.is_elapsed() => serving.as_mut().graceful_shutdown(),
            _tick = look.tick() => if !admin.is_still_proved(peer) {
                tracing::info!("a connection of somebody who is no operator any more was closed");
                return;
            },
        }
    }
}

impl Admin {
    async fn meet(&self, accepted: Accepted) {
        match accepted {
            Accepted::Tcp(stream, from) => {
                connection(self, stream, Peer { from: Some(from), ..Peer::default() }).await;
            }
            Accepted::Tls(stream, from, tls) => {
                let handshake_max = Duration::from_millis(limits::ADMIN_HANDSHAKE_MS_MAX);
                let in_force = tls.load_full();
                let accepting = TlsAcceptor::from(in_force.config.clone()).accept(stream);
                // A client that cannot be spoken to learns it from TLS.
                let stream = match timeout(handshake_max, accepting).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return self.handshake_failed(&error),
                    Err(_elapsed) => return,
                };
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = ingress::Peer::new(chain, in_force, &self.control.clock);
                let certified = peer.map(|peer| (peer, tls));
                connection(self, stream, Peer { from: Some(from), certified, ..Peer::default() }).await;
            }
            Accepted::Unix(stream) => {
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                connection(self, stream, Peer { from: uid.map(Whence::User), uid, ..Peer::default() }).await;
            }
        }
    }

    /// One that failed at the client's certificate is a credential that was refused.
    fn handshake_failed(&self, error: &std::io::Error) {
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        if let Some(fault) = error.and_then(fault_of_handshake) {
            self.metrics.unproved(None, fault);
            tracing::warn!(fault = fault.as_str(), "handshake of the admin listener refused");
        }
    }

    /// Whether whoever this connection last answered is an operator still; also if that was nobody.
    fn is_still_proved(&self, peer: &Peer) -> bool {
        let proved = peer.proved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(operator) = proved else { return true };
        let Ok(certificate) = peer.certificate(&self.control.clock) else { return false };
        let headers = HeaderMap::new();
        let presented = Presented { headers: &headers, certificate, uid: peer.uid };
        self.operators.load().still_prove(&operator, &presented, self.control.clock.wall())
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<ResponseBody> {
        let (parts, body) = Request::into_parts(request);
        match parts.uri.path() {
            "/healthz" | "/readyz" | "/metrics" => {
                if let Err(refusal) = takes_reads(&parts.method) {
                    return refusal.response();
                }
                match parts.uri.path() {
                    "/healthz" => text(StatusCode::OK, "ok\n"),
                    "/readyz" => self.readiness(),
                    _metrics => self.metrics(),
                }
            }
            path if self.operators.load().is_empty() => match Endpoint::of(path) {
                Some(_) => Refusal::NotConfigured.response(),
                None => self.read(&parts).await,
            },
            _ => {
                let (role, answer) = self.operate(&parts, body, peer).await;
                let answer = answer.unwrap_or_else(|refusal| refusal.response());
                self.metrics.operated(role, result_of(answer.status()));
                answer
            }
        }
    }

    /// What is read of the log.
    async fn read(&self, parts: &Parts) -> Response<ResponseBody> {
        if let Err(refusal) = takes_reads(&parts.method) {
            return refusal.response();
        }
        match self.log.answer(parts.uri.path(), parts.uri.query()).await {
            Some(answer) => answer,
            None => Refusal::NoSuchPath.response(),
        }
    }

    /// Who asks comes first: nobody else learns what is here. The role's name goes to the metrics.
    async fn operate(
        &self,
        parts: &Parts,
        body: Incoming,
        peer: &Peer,
    ) -> (&'static str, Result<Response<ResponseBody>, Refusal>) {
        if let Err(wait) = self.peers.admit(peer.from.as_ref()) {
            return ("none", Err(Refusal::TooMany { wait_s: wait.as_secs() + 1 }));
        }
        if let Err(refusal) = self.door.admits(parts) {
            return ("none", Err(refusal));
        }
        let certificate = match peer.certificate(&self.control.clock) {
            Ok(certificate) => certificate,
            Err(fault) => {
                // As a new handshake would: whatever else it has.
                self.metrics.unproved(None, fault);
                tracing::warn!(fault = fault.as_str(), "an operator's certificate is not good any more");
                return ("none", Err(Refusal::CredentialInvalid));
            }
        };
        let id = certificate.and_then(PeerCertificate::spiffe_id);
        if id.is_some_and(|id| self.agents.iter().any(|agents| agents.takes(id))) {
            // Whatever else it has, and however an operator is pinned.
            tracing::warn!("an agent's certificate was shown to operate");
            return ("none", Err(Refusal::CredentialInvalid));
        }
        let presented = Presented { headers: &parts.headers, certificate, uid: peer.uid };
        let proved = self.operators.load().authenticate(&presented, self.control.clock.wall());
        let operator = match proved {
            Ok(operator) => {
                *peer.proved.lock().unwrap_or_else(PoisonError::into_inner) = Some(operator.clone());
                operator
            }
            Err(Unproved::Missing) => return ("none", Err(Refusal::CredentialMissing)),
            Err(Unproved::Invalid) => {
                tracing::warn!(path = ?parts.uri.path(), "somebody who is no operator asked");
                return ("none", Err(Refusal::CredentialInvalid));
            }
        };
        let role = role_name(operator.role);
        if let Err(wait) = self.rate.admit(Some(&operator.id)) {
            return (role, Err(Refusal::TooMany { wait_s: wait.as_secs() + 1 }));
        }
        (role, self.admitted(parts, body, operator).await)
    }

    async fn admitted(
        &self,
        parts: &Parts,
        body: Incoming,
        operator: Arc<Operator>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let Some(endpoint) = Endpoint::of(parts.uri.path()) else { return Ok(self.read(parts).await) };
        let endpoint = endpoint?;
        endpoint.takes(&parts.method)?;
        if operator.role < endpoint.needed() {
            return Err(Refusal::RoleInsufficient { needed: endpoint.needed() });
        }
        let (query, fold) = (parts.uri.query(), &self.control.fold);
        match endpoint {
            Endpoint::Holds => {
                let after = query::after(query)?;
                let page = Page::of(fold.holds(self.control.clock.wall()), |hold| hold.index, after);
                Ok(json(&page.listed(|hold| listing::HoldShown::from(hold))))
            }
            Endpoint::Restrictions => {
                let after = query::after(query)?;
                let page = Page::of(fold.restrictions(), |status| status.index, after);
                Ok(json(&page.listed(|status| listing::RestrictionShown::from(status))))
            }
            Endpoint::Unknown => self.unknown(query::after(query)?).await,
            Endpoint::Hold(id) => {
                log::no_parameters(query)?;
                self.hold(id).await
            }
            Endpoint::Change(change) => {
                log::no_parameters(query)?;
                self.change(parts, body, operator, change).await
            }
        }
    }

    async fn change(
        &self,
        parts: &Parts,
        body: Incoming,
        operator: Arc<Operator>,
        change: Change,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if !door::is_json(parts) {
            return Err(Refusal::NotJson);
        }
        let bounded = Limited::new(body, limits::ADMIN_BODY_BYTES_MAX).collect();
        let in_time = timeout(Duration::from_millis(limits::ADMIN_BODY_MS_MAX), bounded).await;
        let body = match in_time {
            Err(_late) => return Err(Refusal::BodyLate),
            // One that was cut is not answered any more, so only the bound is left to tell of.
            Ok(body) => body.map_err(|_| Refusal::BodyTooLarge)?.to_bytes(),
        };
        let asked = change.read(&body)?;
        let done = self.control.clone().carry_out(operator, asked).await?;
        Ok(json(&done))
    }

    async fn unknown(&self, after: Option<LeafIndex>) -> Result<Response<ResponseBody>, Refusal> {
        let page = Page::of(self.control.fold.unknown(), |outcome| outcome.decision_index, after);
        let indices = page.items.iter().map(|outcome| outcome.decision_index).collect();
        let mut decisions = self.log.decisions(indices).await?.into_iter();
        Ok(json(&page.listed(|outcome| {
            let decision = decisions.next().expect("`decisions` gives one for each, in their order");
            let lookup = self.control.reconciler.progress(outcome.decision_index);
            listing::UnknownShown::of(outcome, &decision, lookup)
        })))
    }

    /// With its decision's leaf and what policy was asked, byte for byte as they were recorded.
    async fn hold(&self, id: ReceiptId) -> Result<Response<ResponseBody>, Refusal> {
        let hold = self.control.fold.hold(id, self.control.clock.wall()).ok_or(Refusal::HoldUnknown)?;
        let (leaf, input) = self.log.decision_with_input(id).await?;
        let shown = serde_json::to_vec(&listing::HoldShown::from(&hold)).expect("strings and lists");
        let mut body = Vec::with_capacity(leaf.len() + input.len() + shown.len() + 64);
        for (name, value) in
            [(&b"{\"decision\":"[..], &leaf[..]), (b",\"hold\":", &shown), (b",\"input\":", &input)]
        {
            body.extend_from_slice(name);
            body.extend_from_slice(value);
        }
        body.extend_from_slice(b"}\n");
        Ok(typed(StatusCode::OK, "application/json", body))
    }

    fn readiness(&self) -> Response<ResponseBody> {
        let health = self.ledger.health();
        let draining = self.drain.is_cancelled();
        let is_right =
            self.anchor.stepped(&self.control.clock) <= Duration::from_millis(limits::CLOCK_STEP_MS_MAX);
        let ready = health == Health::Accepting && !draining && is_right;
        let readiness = Readiness {
            clock: if is_right { "right" } else { "stepped" },
            draining,
            ledger: health_name(health),
            policy: self.pdp.revision().to_string(),
            policy_source: self.policy.word(),
            ready,
        };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = serde_json::to_string(&readiness).expect("strings and booleans");
        body.push('\n');
        typed(status, "application/json", body)
    }

    fn metrics(&self) -> Response<ResponseBody> {
        let statistics = self.ledger.statistics();
        self.metrics.ledger_leaves.set(saturating(statistics.leaves));
        self.metrics.ledger_queue.set(saturating(statistics.queued));
        self.metrics.ledger_open_permits.set(saturating(statistics.open_permits));
        self.metrics.ledger_archive_lag.set(saturating(statistics.archive_lag));
        self.metrics.archive_failed(statistics.archive_failures);
        let health = self.ledger.health();
        for state in [Health::Accepting, Health::Full, Health::Poisoned, Health::Closed] {
            let gauge = self.metrics.ledger_health.with_label_values(&[health_name(state)]);
            gauge.set(i64::from(state == health));
        }
        for (surface, upstream) in &self.pools {
            let gauge = upstream.gauge();
            for (state, count) in [("leased", gauge.leased), ("idle", gauge.idle)] {
                let pool = self.metrics.pool.with_label_values(&[surface.as_str(), state]);
                pool.set(saturating(count as u64));
            }
        }
        let fold = &self.control.fold;
        self.metrics.holds_open.set(saturating(fold.population().holds as u64));
        self.metrics.outcomes_unknown.set(saturating(fold.population().unknown as u64));
        let restrictions = fold.restrictions();
        let frozen = restrictions.iter().filter(|r| matches!(r.what, Restricted::Frozen(_))).count();
        for (kind, count) in [("freeze", frozen), ("quarantine", restrictions.len() - frozen)] {
            self.metrics.restrictions.with_label_values(&[kind]).set(saturating(count as u64));
        }
        for sink in &self.sinks {
            let lag = statistics.leaves.saturating_sub(sink.next().0);
            self.metrics.sink_lag.with_label_values(&[sink.name.as_str()]).set(saturating(lag));
        }
        match self.metrics.render() {
            Ok(body) => typed(StatusCode::OK, "text/plain; version=0.0.4", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }
}

impl Peer {
    /// The client's own certificate, verified under what is in force now; `None`: it sent none.
    fn certificate(&self, clock: &Clock) -> Result<Option<&PeerCertificate>, CredentialFault> {
        let Some((peer, tls)) = &self.certified else { return Ok(None) };
        peer.certificate(tls, clock).map(Some)
    }
}

/// For the metrics: a closed list.
fn result_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "done",
        401 | 403 | 421 => "denied",
        429 => "too_many",
        500..=599 => "failed",
        _refused => "refused",
    }
}

fn json(body: &impl Serialize) -> Response<ResponseBody> {
    let mut body = serde_json::to_vec(body).expect("strings, numbers and lists");
    body.push(b'\n');
    typed(StatusCode::OK, "application/json", body)
}

fn saturating(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn text(status: StatusCode, body: &str) -> Response<ResponseBody> {
    typed(status, "text/plain; charset=utf-8", body.to_owned())
}

fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
