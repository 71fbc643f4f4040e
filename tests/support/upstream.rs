//! An upstream that records every byte it gets, before anything else looks at them.
//!
//! It is its own TCP loop, on purpose no HTTP library: what a library would repair, merge or drop is what the tests
//! are about. Each connection has a thread. A message is a head and `content-length` bytes; whatever follows
//! is the next message, so that a smuggled one shows as an effect of its own. A [`Script`] says how it answers.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interlock::model::Digest;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it arrived, or the beginning of one.
#[derive(Clone, Debug)]
pub struct Capture {
    /// When its first byte was seen, nanoseconds since 1970.
    pub arrived_unix_ns: u64,
    pub bytes: Vec<u8>,
    /// Length of the head, once it was all there.
    pub head_len: Option<usize>,
    pub is_whole: bool,
}

impl Capture {
    pub fn head(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.head_len.unwrap_or(self.bytes.len())]).into_owned()
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_len.unwrap_or(self.bytes.len())..]
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}: ");
        self.head().split("\r\n").find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    /// The message with the secret replaced by its slot's name: what receipts are about.
    pub fn without_secret(&self, secret: &str, name: &str) -> Vec<u8> {
        let head_len = self.head_len.unwrap_or(self.bytes.len());
        let head = String::from_utf8_lossy(&self.bytes[..head_len]).into_owned();
        let mut message = head.replace(secret, &format!("{{credential:{name}}}")).into_bytes();
        message.extend_from_slice(&self.bytes[head_len..]);
        message
    }

    pub fn digest(&self, secret: &str, name: &str) -> Digest {
        Digest::of(&self.without_secret(secret, name))
    }
}

/// How much is read before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Message,
    Head,
}

#[derive(Clone)]
pub enum Step {
    Write(Vec<u8>),
    Sleep(Duration),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Reads what is left of the message.
    ReadRest,
    /// Closes the connection. If something is unread, the peer sees a reset.
    Close,
    /// Neither reads nor writes until the upstream is dropped or the peer is gone.
    Hang,
}

/// How one request is answered. The connection stays open unless a step closes it.
#[derive(Clone)]
pub struct Script {
    pub reads: Reads,
    pub steps: Vec<Step>,
}

impl Script {
    pub fn answer(bytes: impl Into<Vec<u8>>) -> Self {
        Self { reads: Reads::Message, steps: vec![Step::Write(bytes.into())] }
    }

    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { reads: Reads::Message, steps: steps.into_iter().collect() }
    }

    pub fn reads(self, reads: Reads) -> Self {
        Self { reads, ..self }
    }

    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub fn ok(body: &str) -> Self {
        Self::json(200, body)
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::answer(format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// Opened once by the test; steps wait for it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().expect("unpoisoned") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.0.lock().expect("unpoisoned");
        while !*open {
            let (next, timed_out) = self.0.1.wait_timeout(open, Duration::from_secs(60)).expect("unpoisoned");
            open = next;
            assert!(!timed_out.timed_out(), "the test never opened the gate");
        }
    }
}

#[derive(Default)]
struct Shared {
    captures: Mutex<Vec<Capture>>,
    changed: Condvar,
    next: Mutex<VecDeque<Script>>,
    by_target: Mutex<HashMap<String, Script>>,
    connections: AtomicUsize,
    stopping: AtomicBool,
}

pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    pub fn plain() -> Self {
        Self::start(None)
    }

    /// On a port where nobody listens.
    pub fn at(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::start_on(TcpListener::bind(address).expect("a free port"), tls)
    }

    pub fn tls(config: Arc<ServerConfig>) -> Self {
        Self::start(Some(config))
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").expect("a free loopback port"), tls)
    }

    fn start_on(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, tls) = (serving.clone(), tls.clone());
                thread::spawn(move || {
                    // A connection that ends in an error has shown in its captures what it got.
                    let _ = Connection::serve(&shared, stream, tls);
                });
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the next request that has no script of its own is answered. In the order given.
    pub fn next(&self, script: Script) {
        self.shared.next.lock().expect("unpoisoned").push_back(script);
    }

    /// How every request whose path (without query) is this one is answered.
    pub fn on(&self, path: &str, script: Script) {
        self.shared.by_target.lock().expect("unpoisoned").insert(path.to_owned(), script);
    }

    pub fn captures(&self) -> Vec<Capture> {
        self.shared.captures.lock().expect("unpoisoned").clone()
    }

    /// As if this, and nothing else, had arrived so far.
    pub fn put_captures(&self, captures: Vec<Capture>) {
        *self.shared.captures.lock().expect("unpoisoned") = captures;
    }

    /// Gives out what arrived so far, and forgets it.
    pub fn take_captures(&self) -> Vec<Capture> {
        std::mem::take(&mut *self.shared.captures.lock().expect("unpoisoned"))
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until this many whole requests have arrived.
    pub fn wait_for(&self, count: usize) -> Vec<Capture> {
        self.wait_until(|captures| captures.iter().filter(|c| c.is_whole).count() >= count)
    }

    pub fn wait_until(&self, done: impl Fn(&[Capture]) -> bool) -> Vec<Capture> {
        let mut captures = self.shared.captures.lock().expect("unpoisoned");
        let mut waited = Duration::ZERO;
        while !done(&captures) {
            assert!(waited < Duration::from_secs(20), "the upstream got only {} requests", captures.len());
            let step = Duration::from_millis(50);
            captures = self.shared.changed.wait_timeout(captures, step).expect("unpoisoned").0;
            waited += step;
        }
        captures.clone()
    }

    /// The one request that arrived.
    pub fn the_one(&self) -> Capture {
        let captures = self.captures();
        assert_eq!(captures.len(), 1, "one request arrived: {captures:?}");
        captures[0].clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Connection<'a> {
    shared: &'a Shared,
    stream: Box<dyn Stream>,
    socket: TcpStream,
    /// Received, not yet part of a capture.
    ahead: Vec<u8>,
}

impl Connection<'_> {
    fn serve(shared: &Shared, socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
        socket.set_nodelay(true)?;
        // Short, so that a connection notices that the upstream is being dropped.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let plain = socket.try_clone()?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(plain),
            Some(config) => {
                let session = ServerConnection::new(config).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, plain))
            }
        };
        let mut connection = Connection { shared, stream, socket, ahead: Vec::new() };
        while connection.exchange()? {}
        Ok(())
    }

    /// One request and its answer. `false`: the connection is closed.
    fn exchange(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() && !self.receive()? {
            return Ok(false);
        }
        let index = self.begin();
        while self.capture(index).head_len.is_none() {
            if !self.more(index)? {
                return Ok(false);
            }
        }
        let script = self.script(&self.capture(index).head());
        match script.reads {
            Reads::Message => {
                if !self.read_rest(index)? {
                    return Ok(false);
                }
            }
            Reads::Head => {}
        }
        for step in script.steps {
            match step {
                Step::Write(bytes) => {
                    self.stream.write_all(&bytes)?;
                    self.stream.flush()?;
                }
                Step::Sleep(time) => thread::sleep(time),
                Step::Wait(gate) => gate.wait(),
                Step::ReadRest => {
                    if !self.read_rest(index)? {
                        return Ok(false);
                    }
                }
                Step::Close => {
                    let _ = self.socket.shutdown(Shutdown::Both);
                    return Ok(false);
                }
                Step::Hang => {
                    while !self.shared.stopping.load(Ordering::SeqCst) {
                        if !self.receive()? {
                            return Ok(false);
                        }
                    }
                    return Ok(false);
                }
            }
        }
        if script.reads == Reads::Message || self.read_rest(index)? {
            return Ok(true);
        }
        Ok(false)
    }

    fn script(&self, head: &str) -> Script {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let by_target = self.shared.by_target.lock().expect("unpoisoned").get(path).cloned();
        by_target
            .or_else(|| self.shared.next.lock().expect("unpoisoned").pop_front())
            .unwrap_or_else(|| Script::ok(r#"{"done":true}"#))
    }

    fn capture(&self, index: usize) -> Capture {
        self.shared.captures.lock().expect("unpoisoned")[index].clone()
    }

    fn begin(&mut self) -> usize {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        let mut captures = self.shared.captures.lock().expect("unpoisoned");
        captures.push(Capture { arrived_unix_ns: now, bytes: Vec::new(), head_len: None, is_whole: false });
        let index = captures.len() - 1;
        take(&mut captures[index], &mut self.ahead);
        self.shared.changed.notify_all();
        index
    }

    /// Reads some bytes into the capture. `false`: there are no more.
    fn more(&mut self, index: usize) -> io::Result<bool> {
        if self.ahead.is_empty() && !self.receive()? {
            return Ok(false);
        }
        let mut captures = self.shared.captures.lock().expect("unpoisoned");
        take(&mut captures[index], &mut self.ahead);
        self.shared.changed.notify_all();
        Ok(true)
    }

    fn read_rest(&mut self, index: usize) -> io::Result<bool> {
        loop {
            let is_whole = self.shared.captures.lock().expect("unpoisoned")[index].is_whole;
            if is_whole {
                return Ok(true);
            }
            if !self.more(index)? {
                return Ok(false);
            }
        }
    }

    /// Waits for bytes. `false`: the peer is done, or the upstream is being dropped.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.ahead.extend_from_slice(&buffer[..n]);
                    return Ok(true);
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.shared.stopping.load(Ordering::SeqCst) {
                        return Ok(false);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Moves what belongs to this message; the rest stays for the next one.
fn take(capture: &mut Capture, ahead: &mut Vec<u8>) {
    if capture.head_len.is_none() {
        let from = capture.bytes.len().saturating_sub(3);
        capture.bytes.append(ahead);
        let end = capture.bytes[from..].windows(4).position(|w| w == b"\r\n\r\n").map(|at| from + at + 4);
        let Some(end) = end else { return };
        capture.head_len = Some(end);
        *ahead = capture.bytes.split_off(end);
    }
    let head_len = capture.head_len.expect("set above");
    let body_len: usize = capture.header("content-length").map_or(0, |n| n.parse().expect("digits"));
    let missing = head_len + body_len - capture.bytes.len();
    let rest = ahead.split_off(missing.min(ahead.len()));
    capture.bytes.append(ahead);
    *ahead = rest;
    capture.is_whole = capture.bytes.len() == head_len + body_len;
}
