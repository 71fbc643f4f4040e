//! A client that sends exactly the bytes it is given, malformed ones too, and reads what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const EXCHANGE_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What came back.
pub struct Answer {
    pub status: u16,
    /// Names in lowercase.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How many reads brought something: more than one for an answer that streams.
    pub pieces: usize,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// One request on a connection of its own, which the gateway closes after its answer.
pub async fn send(gateway: SocketAddr, request: &[u8]) -> Result<Answer> {
    let exchange = async {
        #[expect(clippy::disallowed_methods, reason = "the demo's agent is a client in front of the gateway")]
        let mut stream = TcpStream::connect(gateway).await?;
        // The gateway may answer, and close, before it has read everything.
        let written = stream.write_all(request).await;
        let mut received = Vec::new();
        let mut pieces = 0;
        loop {
            match stream.read_buf(&mut received).await {
                Ok(0) => break,
                Ok(_) if received.len() > ANSWER_BYTES_MAX => {
                    return Err(io::Error::other("the answer is too long"));
                }
                Ok(_) => pieces += 1,
                Err(_) if !received.is_empty() => break,
                Err(error) => return Err(written.err().unwrap_or(error)),
            }
        }
        Ok((received, pieces))
    };
    let (received, pieces) = timeout(EXCHANGE_MAX, exchange).await.context("no answer in time")??;
    read(&received, pieces)
}

fn read(received: &[u8], pieces: usize) -> Result<Answer> {
    let end = received.windows(4).position(|w| w == b"\r\n\r\n").context("an answer without a whole head")?;
    let head = std::str::from_utf8(&received[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let rest = &received[end + 4..];
    let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if is_chunked { dechunked(rest)? } else { rest.to_vec() };
    Ok(Answer { status, headers, body, pieces })
}

fn dechunked(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").context("a chunk without its size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line])?, 16)?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        if rest.len() < size + 2 {
            bail!("a chunk was cut");
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_in_both_framings() {
        let plain = b"HTTP/1.1 403 Forbidden\r\nA: b\r\ncontent-length: 2\r\n\r\nno";
        let answer = read(plain, 1).expect("an answer");
        assert_eq!((answer.status, answer.header("a"), &answer.body[..]), (403, Some("b"), &b"no"[..]));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(read(chunked, 1).expect("an answer").body, b"abc");
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        for cut in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
        ] {
            assert!(read(cut, 1).is_err());
        }
    }
}
