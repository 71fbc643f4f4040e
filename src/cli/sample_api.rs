//! `interlock sample-api`: a small API to put behind the gateway, for trying it out.
//!
//! Payments (`/v1/charges`, `/v1/refunds`), exports (`/exports`) and settings (`/config`), in memory, over plain
//! HTTP/1.1. Like a real API it wants a credential, answers 401 without one, and acts on whatever it is told: what
//! must not happen is the gateway's business. It counts what reached it, so that a log can be held against it.
//!
//! One customer is special, so that a lost answer can be seen: a charge for [`store::DYING_CUSTOMER`] is made, and
//! then the connection ends without an answer.

mod store;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use interlock::limits;
use interlock::verify::escape;
use store::{Export, Reply, Store};

#[derive(Debug, clap::Args)]
pub struct SampleApiArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// File with the one credential that is accepted; without it, any `Authorization: Bearer` is.
    #[arg(long, env = "INTERLOCK_SAMPLE_SECRET", value_name = "FILE")]
    pub secret: Option<PathBuf>,
}

/// Serves until the process is told to stop. Prints one line for each request that reaches it.
pub fn run(args: &SampleApiArgs) -> anyhow::Result<ExitCode> {
    let secret = args.secret.as_deref().map(read_secret).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let api = SampleApi::start(args.listen, secret, Some(print_line))
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        println!("sample API on http://{}", api.address());
        super::run::stop_signal().await?;
        println!("{} requests arrived, {} had an effect", api.arrivals(), api.effects());
        Ok(ExitCode::SUCCESS)
    })
}

fn read_secret(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

fn print_line(line: &str) {
    println!("{}", escape(line));
}

/// A running API. Ends when dropped.
pub struct SampleApi {
    address: SocketAddr,
    server: Arc<Server>,
    end: CancellationToken,
}

struct Server {
    secret: Option<Zeroizing<String>>,
    store: Mutex<Store>,
    arrivals: AtomicU64,
    seen: Option<fn(&str)>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl SampleApi {
    /// `seen` is told about each request with a valid credential.
    pub async fn start(
        listen: SocketAddr,
        secret: Option<Zeroizing<String>>,
        seen: Option<fn(&str)>,
    ) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the sample API is a server of its own, no gateway")]
        let socket = TcpListener::bind(listen).await?;
        let address = socket.local_addr()?;
        let server = Arc::new(Server { secret, store: Mutex::default(), arrivals: AtomicU64::new(0), seen });
        let end = CancellationToken::new();
        tokio::spawn(accept(server.clone(), socket, end.clone()));
        Ok(Self { address, server, end })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that came with a valid credential.
    pub fn arrivals(&self) -> u64 {
        self.server.arrivals.load(Ordering::SeqCst)
    }

    /// Those that changed something.
    pub fn effects(&self) -> u64 {
        self.server.store().effects()
    }
}

impl Drop for SampleApi {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn accept(server: Arc<Server>, socket: TcpListener, end: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(limits::ACCEPT_RETRY_MS)).await;
            continue;
        };
        let (server, end) = (server.clone(), end.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| server.answer(request));
            tokio::select! {
                // An error is a connection that broke, which is the other side's to notice.
                _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                () = end.cancelled() => {}
            }
        });
    }
}

impl Server {
    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        // Every change of the store is one push or one insert.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error ends the connection without an answer.
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, limits::BODY_BYTES_MAX_DEFAULT).collect().await {
            Ok(whole) => whole.to_bytes(),
            Err(_) => return Ok(problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broken")),
        };
        if !self.is_authorized(&head.headers) {
            let mut refused = problem(StatusCode::UNAUTHORIZED, "a valid credential is needed");
            refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Ok(refused);
        }
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        let reply = self.store().act(&head.method, head.uri.path(), &head.headers, &body);
        if let Some(seen) = self.seen {
            let what = match &reply {
                Reply::Json(status, _) => status.to_string(),
                Reply::Rows(_) => "200 OK, streamed".to_owned(),
                Reply::Nothing => "no answer".to_owned(),
            };
            seen(&format!("{} {} -> {what}", head.method, head.uri));
        }
        match reply {
            Reply::Json(status, value) => Ok(json(status, &value)),
            Reply::Rows(export) => Ok(rows(export)),
            Reply::Nothing => Err(io::Error::other("the sample API dies for this customer")),
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(presented) = value.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        match &self.secret {
            Some(secret) => presented.as_bytes().ct_eq(secret.as_bytes()).into(),
            None => !presented.is_empty(),
        }
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn problem(status: StatusCode, what: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "error": what }))
}

/// Row by row, with a pause after each: what a long export looks like from outside.
fn rows(export: Export) -> Response<Body> {
    const PAUSE: Duration = Duration::from_millis(30);
    let media_type = export.media_type;
    let pieces = stream::unfold(export.pieces.into_iter(), |mut pieces| async move {
        let piece = pieces.next()?;
        tokio::time::sleep(PAUSE).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(piece))), pieces))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: Option<&'static str>) -> HeaderMap {
        value.map(|v| (AUTHORIZATION, HeaderValue::from_static(v))).into_iter().collect()
    }

    #[test]
    fn only_the_one_credential_is_accepted() {
        let server = |secret: Option<&str>| Server {
            secret: secret.map(|s| Zeroizing::new(s.to_owned())),
            store: Mutex::default(),
            arrivals: AtomicU64::new(0),
            seen: None,
        };
        for (secret, presented, accepted) in [
            (Some("s3cret"), Some("Bearer s3cret"), true),
            (Some("s3cret"), Some("Bearer s3cre"), false),
            (Some("s3cret"), Some("s3cret"), false),
            (Some("s3cret"), None, false),
            (None, Some("Bearer anything"), true),
            (None, Some("Bearer "), false),
            (None, None, false),
        ] {
            assert_eq!(
                server(secret).is_authorized(&headers(presented)),
                accepted,
                "{secret:?} {presented:?}"
            );
        }
    }
}
