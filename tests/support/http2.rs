//! HTTP/2 frames as bytes (RFC 9113), with header blocks that no library would let through.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

/// What came of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Whole, with this body.
    Answered(Vec<u8>),
    /// RST_STREAM, with its error code.
    Reset(u32),
    /// GOAWAY, with its error code.
    GoneAway(u32),
    Closed,
}

impl Ended {
    /// `reason` of a problem+json answer.
    pub fn reason(&self) -> Option<String> {
        let Self::Answered(body) = self else { return None };
        let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(problem["reason"].as_str()?.to_owned())
    }
}

pub struct Http2 {
    stream: TcpStream,
    next: u32,
}

impl Http2 {
    /// With prior knowledge, over plain TCP.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let mut client = Self { stream, next: 1 };
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.frame(4, 0, 0, &[]);
        client
    }

    /// Sends one request, and waits for its end.
    pub fn ask(&mut self, fields: &[(&[u8], &[u8])], body: Option<&[u8]>) -> Ended {
        let id = self.send(fields, body);
        self.ended(id)
    }

    /// RST_STREAM with CANCEL: the client does not want the answer any more.
    pub fn cancel(&mut self, stream: u32) {
        self.frame(3, 0, stream, &8_u32.to_be_bytes());
    }

    /// Waits until this many streams have ended; how many of them were answered.
    pub fn answered(&mut self, streams: usize) -> usize {
        let mut ended = 0;
        let mut answered = 0;
        while ended < streams {
            let Some((kind, flags, _, payload)) = self.read_frame() else { return answered };
            match kind {
                4 if flags & 1 == 0 => self.frame(4, 1, 0, &[]),
                6 if flags & 1 == 0 => self.frame(6, 1, 0, &payload),
                3 => ended += 1,
                0 | 1 if flags & 1 == 1 => {
                    ended += 1;
                    answered += 1;
                }
                _ => {}
            }
        }
        answered
    }

    /// Sends one request; the number of its stream.
    pub fn send(&mut self, fields: &[(&[u8], &[u8])], body: Option<&[u8]>) -> u32 {
        let id = self.next;
        self.next += 2;
        let mut block = Vec::new();
        for (name, value) in fields {
            // Literal without indexing, new name (RFC 7541 section 6.2.2), no Huffman coding.
            block.push(0);
            for text in [name, value] {
                length(&mut block, text.len());
                block.extend_from_slice(text);
            }
        }
        let end_stream = if body.is_none() { 1 } else { 0 };
        self.frame(1, 4 | end_stream, id, &block);
        if let Some(body) = body {
            self.frame(0, 1, id, body);
        }
        id
    }

    /// Answers pings and settings; whether the peer closes within this time.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            match self.read_frame() {
                Some((4, flags, _, _)) if flags & 1 == 0 => self.frame(4, 1, 0, &[]),
                Some((6, flags, _, payload)) if flags & 1 == 0 => self.frame(6, 1, 0, &payload),
                Some(_) => {}
                None => return true,
            }
        }
        false
    }

    fn ended(&mut self, id: u32) -> Ended {
        let mut body = Vec::new();
        loop {
            let Some((kind, flags, stream, payload)) = self.read_frame() else { return Ended::Closed };
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
            match kind {
                0 if stream == id => body.extend_from_slice(&payload),
                3 if stream == id => return Ended::Reset(code(0)),
                4 if flags & 1 == 0 => self.frame(4, 1, 0, &[]),
                6 if flags & 1 == 0 => self.frame(6, 1, 0, &payload),
                7 => return Ended::GoneAway(code(4)),
                _ => {}
            }
            if stream == id && (kind == 0 || kind == 1) && flags & 1 == 1 {
                return Ended::Answered(body);
            }
        }
    }

    fn read_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], stream, payload))
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        // The peer may have gone away; what it said before is what is looked at.
        let _ = self.stream.write_all(bytes);
    }
}

/// An integer with a 7-bit prefix (RFC 7541 section 5.1).
fn length(block: &mut Vec<u8>, len: usize) {
    if len < 127 {
        block.push(len as u8);
        return;
    }
    block.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}
