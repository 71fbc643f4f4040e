//! Requests of the gateway's own, such as those of sinks: nobody's request, so nothing of the airlock.
//!
//! In: an [`Endpoint`] and whole bodies of the gateway's making. Out: the status of the answer. One connection, used
//! again as long as it stands; one request at a time. Bytes of an execution request never come here: those are
//! readable only in `permit`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{InvalidRoots, Scheme, lease};
use crate::authority::Credential;
use crate::limits;

/// Where requests go.
#[derive(Debug)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// DNS name or IP address to connect to, and to verify when TLS.
    pub host: Arc<str>,
    pub port: u16,
    /// Written as `host`.
    pub authority: Arc<str>,
    /// Path and query, in origin form.
    pub target: Arc<str>,
    pub credential: Option<OwnCredential>,
    /// For connecting, sending and the whole answer together.
    pub timeout: Duration,
}

/// A header that proves who the gateway is.
#[derive(Debug)]
pub struct OwnCredential {
    pub header: HeaderName,
    /// Written before the secret, such as `Bearer `.
    pub prefix: Arc<str>,
    pub secret: Credential,
}

pub struct Client {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    credential: Option<(HeaderName, HeaderValue)>,
    /// Idle, after a whole exchange.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Result<Self, InvalidRoots> {
        let tls = match &endpoint.scheme {
            Scheme::Plain => None,
            Scheme::Tls(roots) => Some(lease::connector(roots, &endpoint.host)?),
        };
        let credential = endpoint.credential.as_ref().map(|own| {
            let mut value = Vec::from(own.prefix.as_bytes());
            value.extend_from_slice(own.secret.expose());
            let mut value = HeaderValue::from_maybe_shared(Bytes::from(value))
                .expect("config took a prefix and a secret of visible ASCII and spaces only");
            value.set_sensitive(true);
            (own.header.clone(), value)
        });
        Ok(Self { endpoint, tls, credential, connection: None })
    }

    /// Sends one body and waits for the whole answer. After an error it is not known whether the body arrived.
    pub async fn post(&mut self, media_type: &'static str, body: Bytes) -> io::Result<StatusCode> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
        let time = self.endpoint.timeout;
        timeout(time, self.exchange(media_type, body)).await.unwrap_or_else(|_elapsed| Err(late()))
    }

    /// Asks for a document and waits for the whole of it, at most `bytes_max`. Nothing is followed or decompressed.
    pub async fn get(&mut self, accept: &'static str, bytes_max: usize) -> io::Result<(StatusCode, Bytes)> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no whole answer in time");
        let time = self.endpoint.timeout;
        let document = timeout(time, self.document(accept, bytes_max)).await;
        document.unwrap_or_else(|_elapsed| Err(late()))
    }

    async fn document(&mut self, accept: &'static str, bytes_max: usize) -> io::Result<(StatusCode, Bytes)> {
        let request = Request::get(&*self.endpoint.target).header(ACCEPT, accept).body(Full::default());
        let (mut sender, response) = self.send(request.map_err(io::Error::other)?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        if sender.ready().await.is_ok() {
            self.connection = Some(sender);
        }
        Ok((status, body))
    }

    async fn exchange(&mut self, media_type: &'static str, body: Bytes) -> io::Result<StatusCode> {
        let request =
            Request::post(&*self.endpoint.target).header(CONTENT_TYPE, media_type).body(Full::new(body));
        let (mut sender, response) = self.send(request.map_err(io::Error::other)?).await?;
        let status = response.status();
        if drained(response.into_body()).await && sender.ready().await.is_ok() {
            self.connection = Some(sender);
        }
        Ok(status)
    }

    async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> io::Result<(SendRequest<Full<Bytes>>, Response<Incoming>)> {
        // Taken, so that an exchange that is given up halfway takes its connection with it.
        let mut sender = match self.connection.take().filter(SendRequest::is_ready) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let host = HeaderValue::from_str(&self.endpoint.authority).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
        if let Some((name, value)) = &self.credential {
            request.headers_mut().insert(name, value.clone());
        }
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok((sender, response))
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let tcp = lease::dial(&self.endpoint.host, self.endpoint.port).await?;
        match &self.tls {
            None => handshake(tcp).await,
            Some((connector, name)) => handshake(connector.connect(name.clone(), tcp).await?).await,
        }
    }
}

/// Reads an answer's body for nobody. `false`: it did not end, or not within its bound.
async fn drained(body: Incoming) -> bool {
    body.is_end_stream() || Limited::new(body, limits::OWN_ANSWER_BYTES_MAX).collect().await.is_ok()
}

async fn handshake<T>(io: T) -> io::Result<SendRequest<Full<Bytes>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits::RESPONSE_HEADERS_MAX)
        .max_buf_size(limits::RESPONSE_HEAD_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    // It ends when the sender is dropped; what went wrong is told to whoever waits for the answer.
    tokio::spawn(connection);
    Ok(sender)
}
