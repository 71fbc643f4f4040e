//! A client that sends exactly the bytes it is given, and reads answers strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

/// A whole answer, or one that ended too early.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Status codes of 1xx answers before this one.
    pub interim: Vec<u16>,
    /// The body ended as its framing says.
    pub is_whole: bool,
    pub trailers: Vec<(String, String)>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    /// `reason` of a problem+json answer.
    pub fn reason(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        self.json()["reason"].as_str().expect("a reason").to_owned()
    }

    /// Status and reason, for refusals.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, reason: &str) {
        assert_eq!((self.status, self.reason().as_str()), (status, reason), "{}", self.text());
        assert!(self.is_whole, "a refusal is a whole answer");
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(s) => s.read(buf),
            Self::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(s) => s.write(buf),
            Self::Tls(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

pub struct Client {
    wire: Wire,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = connect(address);
        let wire = Wire::Plain(socket.try_clone().expect("cloned"));
        Self { wire, socket, buffer: Vec::new() }
    }

    pub fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let socket = connect(address);
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config, name).expect("a session");
        let stream = StreamOwned::new(session, socket.try_clone().expect("cloned"));
        Self { wire: Wire::Tls(Box::new(stream)), socket, buffer: Vec::new() }
    }

    /// Sends all bytes, or as many as the gateway takes before it closes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.wire.write_all(bytes.as_ref()).and_then(|()| self.wire.flush());
        if let Err(e) = sent {
            let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(gone.contains(&e.kind()), "sending failed: {e}");
        }
    }

    pub fn half_close(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("shut down");
    }

    /// The next answer; panics if there is none.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response(false).expect("an answer")
    }

    /// The next answer, to a HEAD request.
    #[track_caller]
    pub fn response_to_head(&mut self) -> Response {
        self.try_response(true).expect("an answer")
    }

    /// `None`: the connection was closed before an answer.
    pub fn try_response(&mut self, to_head: bool) -> Option<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            if to_head || matches!(response.status, 204 | 304) {
                response.is_whole = true;
            } else {
                self.read_body(&mut response);
            }
            return Some(response);
        }
    }

    /// Head only; the body is read with [`Client::read_until`].
    pub fn read_head(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a head: {}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).expect("heads are text");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status code");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_owned(), value.trim().to_owned())
        });
        Some(Response { status, headers: headers.collect(), ..Response::default() })
    }

    fn read_body(&mut self, response: &mut Response) {
        if response.header("transfer-encoding") == Some("chunked") {
            response.is_whole = self.read_chunks(response).is_some();
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().expect("digits");
            while self.buffer.len() < length && self.fill() {}
            response.is_whole = self.buffer.len() >= length;
            let take = length.min(self.buffer.len());
            response.body = self.buffer.drain(..take).collect();
        } else {
            while self.fill() {}
            response.body = std::mem::take(&mut self.buffer);
            response.is_whole = true;
        }
    }

    fn read_chunks(&mut self, response: &mut Response) -> Option<()> {
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).expect("a chunk size");
            if size == 0 {
                loop {
                    let line = self.line()?;
                    if line.is_empty() {
                        return Some(());
                    }
                    let (name, value) = line.split_once(':').expect("a trailer");
                    response.trailers.push((name.to_owned(), value.trim().to_owned()));
                }
            }
            while self.buffer.len() < size + 2 {
                if !self.fill() {
                    let take = size.min(self.buffer.len());
                    response.body.extend(self.buffer.drain(..take));
                    return None;
                }
            }
            response.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.buffer.drain(..at + 2).take(at).collect();
                return Some(String::from_utf8(line).expect("text"));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads until the bytes since the last call hold `text`; gives them out.
    pub fn read_until(&mut self, text: &str) -> Option<Vec<u8>> {
        loop {
            if self.buffer.windows(text.len()).any(|w| w == text.as_bytes()) {
                return Some(std::mem::take(&mut self.buffer));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Everything until the connection is closed.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads some bytes. `false`: the connection is closed. Panics after the time-out.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        match self.wire.read(&mut piece) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                true
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("no answer in time; so far: {}", String::from_utf8_lossy(&self.buffer))
            }
            Err(_reset) => false,
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the gateway accepts");
    socket.set_nodelay(true).expect("set");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    socket.set_write_timeout(Some(Duration::from_secs(30))).expect("set");
    socket
}

/// A request with `host`, the headers and, if there is a body, its length.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: api.test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
