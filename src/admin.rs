//! The admin listener: metrics, liveness, readiness, and the log to read. Loopback unless config says otherwise;
//! reads only.
//!
//! `/healthz` answers while the process runs. `/readyz` is 200 only if a request could be permitted now, and says
//! which part is not ready. `/metrics` is Prometheus text. `log` has the rest.

mod log;
mod problem;
mod query;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use log::LogApi;

use crate::ingress::Impatient;
use crate::ledger::{Health, Ledger};
use crate::limits;
use crate::model::SurfaceName;
use crate::policy::Pdp;
use crate::respond::ResponseBody;
use crate::sinks;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// What the admin listener can see.
pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub ledger: Ledger,
    pub pdp: Pdp,
    pub pools: Vec<(SurfaceName, Upstream)>,
    pub sinks: Vec<sinks::Progress>,
    pub log: LogApi,
    pub drain: CancellationToken,
}

/// Members in RFC 8785 order.
#[derive(Serialize)]
struct Readiness {
    draining: bool,
    ledger: &'static str,
    policy: String,
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
pub async fn serve(admin: Arc<Admin>, socket: TcpListener, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(slot) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(Duration::from_millis(limits::ACCEPT_RETRY_MS)).await;
            continue;
        };
        let (admin, stop) = (admin.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(&admin, stream) => {}
                () = stop.cancelled() => {}
            }
            drop(slot);
        });
    }
}

/// Scrapers reconnect, so a connection takes no more requests after its time. An answer that is being read goes on:
/// it may follow the log for days.
async fn connection(admin: &Admin, stream: TcpStream) {
    let service = service_fn(async |request| Ok::<_, Infallible>(admin.answer(&request).await));
    let idle_max = Duration::from_millis(limits::ADMIN_CONNECTION_MS_MAX);
    let stall_max = Duration::from_millis(limits::ADMIN_STALL_MS_MAX);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_max)
        .serve_connection(TokioIo::new(Impatient::new(stream, stall_max)), service);
    let mut serving = pin!(serving);
    if timeout(idle_max, serving.as_mut()).await.is_err() {
        serving.as_mut().graceful_shutdown();
        // An error is a client that is gone, or one that takes nothing.
        let _ = serving.await;
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<ResponseBody> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            _ if !is_read => text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n"),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            path => match self.log.answer(path, request.uri().query()).await {
                Some(answer) => answer,
                None => text(
                    StatusCode::NOT_FOUND,
                    "/healthz, /readyz, /metrics, /checkpoint, /tile/..., /receipts or /receipts/{id}\n",
                ),
            },
        }
    }

    fn readiness(&self) -> Response<ResponseBody> {
        let health = self.ledger.health();
        let draining = self.drain.is_cancelled();
        let ready = health == Health::Accepting && !draining;
        let readiness = Readiness {
            draining,
            ledger: health_name(health),
            policy: self.pdp.revision().to_string(),
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
