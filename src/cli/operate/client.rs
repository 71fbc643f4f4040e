//! One request to the admin listener: plain on loopback, TLS, or a Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use interlock::canonical::json::{self, Bounds};
use interlock::config::{process_environment, read_private};
use interlock::limits;
use interlock::model::Json;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

const EXCHANGE_MAX: Duration = Duration::from_secs(30);
/// A hold is shown with the whole policy input.
const ANSWER_BYTES_MAX: usize = limits::EVIDENCE_BYTES_MAX + 1024 * 1024;
const TOKEN_VARIABLE: &str = "INTERLOCK_ADMIN_TOKEN";

/// Where the gateway is operated, and as whom.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// The admin listener: http://HOST:PORT (loopback), https://HOST:PORT, or unix:PATH
    #[arg(long, env = "INTERLOCK_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:9095")]
    admin: String,
    /// File with the operator's token, readable by nobody else; else the environment's INTERLOCK_ADMIN_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// For https: PEM file with the roots that vouch for the listener, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For https: PEM file with the operator's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// For https: PEM file with its key, readable by nobody else
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the gateway answered.
pub struct Answer {
    pub status: u16,
    pub body: Json,
}

impl AdminArgs {
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.exchange(Method::GET, path, None)
    }

    pub fn post(&self, path: &str, body: &Json) -> Result<Answer> {
        self.exchange(Method::POST, path, Some(json::write(body)))
    }

    fn exchange(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let exchange = timeout(EXCHANGE_MAX, self.exchange_on_runtime(method, path, body)).await;
            exchange.with_context(|| format!("no answer from {} in time", self.admin))?
        })
    }

    async fn exchange_on_runtime(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer> {
        let unreachable = || format!("cannot reach the gateway at {}", self.admin);
        let token = self.token()?;
        if let Some(socket) = self.admin.strip_prefix("unix:") {
            let stream = UnixStream::connect(socket).await.with_context(unreachable)?;
            return ask(stream, request("localhost", method, path, body, token.as_ref())?).await;
        }
        let url: Uri = self.admin.parse().with_context(|| format!("`{}` is not a URL", self.admin))?;
        let authority = url.authority().context("--admin needs a host")?.as_str();
        let host = url.host().context("--admin needs a host")?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            bail!("--admin is a listener, and has no path");
        }
        let is_tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => bail!("--admin starts with http://, https:// or unix:"),
        };
        if !is_tls && token.is_some() && !is_loopback(host) {
            bail!("a token is not sent over a network in plain text; use https");
        }
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']');
        #[expect(clippy::disallowed_methods, reason = "an operator's client in front of the admin listener")]
        let stream = TcpStream::connect((name, port)).await.with_context(unreachable)?;
        let request = request(authority, method, path, body, token.as_ref())?;
        if !is_tls {
            return ask(stream, request).await;
        }
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let server = ServerName::try_from(name.to_owned()).context("--admin needs a host")?;
        let stream = connector.connect(server, stream).await.with_context(unreachable)?;
        ask(stream, request).await
    }

    fn token(&self) -> Result<Option<HeaderValue>> {
        let text = match &self.token_file {
            Some(file) => Some(read_text(file)?),
            None => process_environment(TOKEN_VARIABLE).map(Zeroizing::new),
        };
        let Some(text) = text else { return Ok(None) };
        let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
        let mut value = HeaderValue::from_str(&bearer).ok().context("the token is not visible ASCII")?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn tls(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                for certificate in certificates(file)? {
                    roots.add(certificate).with_context(|| format!("{}", file.display()))?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let private = read_private(key).map_err(|why| anyhow::anyhow!("{}: {why}", key.display()))?;
        let private = PrivateKeyDer::from_pem_slice(&private)
            .with_context(|| format!("{} holds no private key", key.display()))?;
        builder.with_client_auth_cert(certificates(cert)?, private).context("the certificate cannot be used")
    }
}

fn read_text(file: &Path) -> Result<Zeroizing<String>> {
    let bytes = read_private(file).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not text", file.display()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.with_context(|| format!("{} holds no certificates", file.display()))?;
    if found.is_empty() { bail!("{} holds no certificates", file.display()) } else { Ok(found) }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

fn request(
    host: &str,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
    token: Option<&HeaderValue>,
) -> Result<Request<Full<bytes::Bytes>>> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    Ok(request.body(Full::from(body.unwrap_or_default()))?)
}

async fn ask<S>(stream: S, request: Request<Full<bytes::Bytes>>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.context("the gateway did not answer")?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the gateway's answer was cut: {error}"))?.to_bytes();
    let bounds = Bounds { depth_max: limits::REPLAY_INPUT_DEPTH_MAX, values_max: ANSWER_BYTES_MAX };
    let body = json::parse(&body, bounds)
        .ok()
        .with_context(|| format!("the answer ({status}) is not from an admin listener that has operators"))?;
    Ok(Answer { status, body })
}
