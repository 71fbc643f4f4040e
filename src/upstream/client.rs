//! Requests of the gateway's own, such as those of sinks: nobody's request, so nothing of the airlock.
//!
//! In: an [`Endpoint`] and whole bodies of the gateway's making, or a [`Question`] that is answered with a JSON document.
//! Out: the status of the answer, or the document. One request at a time; posts use one connection as long as it stands,
//! each question has its own. No redirect is followed and no proxy is asked. Bytes of an execution request never come here: those are
//! readable only in `permit`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, TRANSFER_ENCODING,
};
use http::{Request, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
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
    pub secret: Arc<Credential>,
}

/// One GET, and which answers to it are read.
pub(super) struct Question<'q> {
    /// Path and query, in origin form.
    pub target: &'q str,
    /// One more header.
    pub header: Option<(HeaderName, HeaderValue)>,
    pub media_types: &'q [&'q str],
    pub statuses: &'q [StatusCode],
    /// Of the body.
    pub bytes_max: usize,
}

/// A whole answer that was asked for.
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum NoDocument {
    #[error("no whole answer in time")]
    Late,
    #[error("{}", with_sources(.0))]
    Unreachable(io::Error),
    /// Redirects among them: a document comes from where config says.
    #[error("the answer is {0}, which was not asked for")]
    Status(StatusCode),
    #[error("the answer's media type is not one that was asked for")]
    MediaType,
    #[error("the answer has a content coding")]
    Encoded,
    #[error("the answer's length is not marked, or it is not HTTP/1.1")]
    Undelimited,
    #[error("the document has more than {0} bytes")]
    TooLarge(usize),
}

/// hyper tells what it was doing, and only its source tells what went wrong.
fn with_sources(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

pub struct Client {
    endpoint: Arc<Endpoint>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    credential: Option<(HeaderName, HeaderValue)>,
    /// Idle, after a whole exchange.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(endpoint: impl Into<Arc<Endpoint>>) -> Result<Self, InvalidRoots> {
        let endpoint = endpoint.into();
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

    async fn exchange(&mut self, media_type: &'static str, body: Bytes) -> io::Result<StatusCode> {
        // Taken, so that an exchange that is given up halfway takes its connection with it.
        let mut sender = match self.connection.take().filter(SendRequest::is_ready) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::post(&*self.endpoint.target)
            .header(HOST, &*self.endpoint.authority)
            .header(CONTENT_TYPE, media_type)
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        if let Some((name, value)) = &self.credential {
            request.headers_mut().insert(name, value.clone());
        }
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        if drained(response.into_body()).await && sender.ready().await.is_ok() {
            self.connection = Some(sender);
        }
        Ok(status)
    }

    /// Asks for a JSON document (RFC 8259) of one of these media types, of at most so many bytes.
    pub async fn json_document(
        &self,
        media_types: &'static [&'static str],
        bytes_max: usize,
    ) -> Result<Bytes, NoDocument> {
        let (target, statuses) = (&*self.endpoint.target, &[StatusCode::OK]);
        let question = Question { target, header: None, media_types, statuses, bytes_max };
        Ok(self.ask(&question).await?.body)
    }

    /// Within the endpoint's time.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Reply, NoDocument> {
        let asked = timeout(self.endpoint.timeout, self.question(question));
        asked.await.unwrap_or(Err(NoDocument::Late))
    }

    async fn question(&self, question: &Question<'_>) -> Result<Reply, NoDocument> {
        let unreachable = |error: hyper::Error| NoDocument::Unreachable(io::Error::other(error));
        // A connection of its own: the next question comes after any server has closed an idle one.
        let mut sender = self.connect().await.map_err(NoDocument::Unreachable)?;
        let mut request = Request::get(question.target)
            .header(HOST, &*self.endpoint.authority)
            .header(ACCEPT, question.media_types.join(", "))
            .header(CACHE_CONTROL, "no-cache")
            .header(CONNECTION, "close")
            .body(Full::default())
            .map_err(|error| NoDocument::Unreachable(io::Error::other(error)))?;
        for (name, value) in question.header.iter().chain(&self.credential) {
            request.headers_mut().insert(name, value.clone());
        }
        let (head, body) = sender.send_request(request).await.map_err(unreachable)?.into_parts();
        if !question.statuses.contains(&head.status) {
            return Err(NoDocument::Status(head.status));
        }
        check_is_of(question.media_types, &head.headers)?;
        // Without one of these a document that was cut off would look whole.
        let is_delimited = body.size_hint().exact().is_some() || head.headers.contains_key(TRANSFER_ENCODING);
        if head.version != Version::HTTP_11 || !is_delimited {
            return Err(NoDocument::Undelimited);
        }
        match Limited::new(body, question.bytes_max).collect().await {
            Ok(whole) => Ok(Reply { status: head.status, body: whole.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => Err(NoDocument::TooLarge(question.bytes_max)),
            Err(error) => Err(NoDocument::Unreachable(io::Error::other(error))),
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let tcp = lease::dial(&self.endpoint.host, self.endpoint.port).await?;
        match &self.tls {
            None => handshake(tcp).await,
            Some((connector, name)) => handshake(connector.connect(name.clone(), tcp).await?).await,
        }
    }
}

/// Exactly one of the types, at most with the one charset that JSON can have, and nothing that would have to be unpacked.
fn check_is_of(media_types: &[&str], headers: &HeaderMap) -> Result<(), NoDocument> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(NoDocument::Encoded);
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return Err(NoDocument::MediaType) };
    let text = only.to_str().map_err(|_| NoDocument::MediaType)?.to_ascii_lowercase();
    let (essence, parameter) = text.split_once(';').map_or((&*text, None), |(e, p)| (e, Some(p.trim())));
    let is_utf8 = matches!(parameter, None | Some("charset=utf-8" | "charset=\"utf-8\""));
    if media_types.contains(&essence.trim()) && is_utf8 { Ok(()) } else { Err(NoDocument::MediaType) }
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
