//! Facts from HTTP endpoints: what is asked, what is taken, and that an endpoint that is hostile changes nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use interlock::authority::{Credential, FactSource, FactSpec, Facts, Unread, Versions, parse_json};
use interlock::clock::Clock;
use interlock::model::{ReadSet, SurfaceName};
use interlock::telemetry::Metrics;
use interlock::upstream::{Endpoint, HttpSource, OwnCredential, Scheme};

const BYTES_MAX: usize = 1_000;
/// For what answers, and for what does not.
const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

/// Gives every connection to the function, one at a time, with the head of the question.
fn serve(answer: impl Fn(&mut TcpStream, &str) + Send + 'static) -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            answer(&mut stream, &String::from_utf8_lossy(&head));
        }
    });
    port
}

/// Answers every question with these bytes, and closes.
fn says(bytes: impl Into<Vec<u8>>) -> u16 {
    let bytes = bytes.into();
    // It may be hung up on before it has said everything.
    serve(move |stream, _| drop(stream.write_all(&bytes)))
}

fn source(port: u16, timeout: Duration) -> HttpSource {
    let secret = Arc::new(Credential::new(b"s3cret".to_vec().into()).expect("visible"));
    let credential = OwnCredential { header: http::header::AUTHORIZATION, prefix: "Bearer ".into(), secret };
    let endpoint = Endpoint {
        scheme: Scheme::Plain,
        host: "127.0.0.1".into(),
        port,
        authority: format!("127.0.0.1:{port}").into(),
        target: "/v1/rates?of=EUR".into(),
        credential: Some(credential),
        timeout,
    };
    HttpSource::new(Arc::new(endpoint), BYTES_MAX).expect("no roots needed")
}

async fn read(port: u16, timeout: Duration) -> Result<Vec<u8>, Unread> {
    source(port, timeout).read().await.map(|bytes| bytes.to_vec())
}

fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn an_endpoint_is_asked_for_json_with_its_credential_and_nothing_else() {
    let asked = Arc::new(Mutex::new(String::new()));
    let seen = asked.clone();
    let port = serve(move |stream, head| {
        *seen.lock().expect("no panic") = head.to_owned();
        stream.write_all(json("{\"a\":1}").as_bytes()).expect("it listens");
    });
    assert_eq!(read(port, PATIENCE).await, Ok(b"{\"a\":1}".to_vec()));
    let mut lines: Vec<String> =
        asked.lock().expect("no panic").trim_end().lines().map(str::to_ascii_lowercase).collect();
    assert_eq!(lines.remove(0), "get /v1/rates?of=eur http/1.1");
    lines.sort();
    let expected = [
        "accept: application/json".to_owned(),
        "authorization: bearer s3cret".to_owned(),
        "cache-control: no-cache".to_owned(),
        "connection: close".to_owned(),
        format!("host: 127.0.0.1:{port}"),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_document_whose_end_is_marked_is_taken_in_each_form() {
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=UTF-8\r\n\
                   Transfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n";
    assert_eq!(read(says(chunked), PATIENCE).await, Ok(b"[1]".to_vec()));
    let informed = format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}", json("[1]"));
    assert_eq!(read(says(informed), PATIENCE).await, Ok(b"[1]".to_vec()));
}

#[tokio::test]
async fn what_is_no_json_document_of_status_200_is_refused() {
    let typed = |header: &str| format!("HTTP/1.1 200 OK\r\n{header}content-length: 1\r\n\r\n1");
    for answer in [
        "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1".to_owned(),
        json("1").replace("200 OK", "201 Created"),
        json("1").replace("200 OK", "206 Partial Content"),
        json("1").replace("200 OK", "404 Not Found"),
        json("1").replace("200 OK", "500 Internal Server Error"),
        "HTTP/1.1 204 No Content\r\ncontent-type: application/json\r\n\r\n".to_owned(),
        typed(""),
        typed("content-type: text/html\r\n"),
        typed("content-type: application/problem+json\r\n"),
        typed("content-type: application/json; charset=iso-8859-1\r\n"),
        typed("content-type: application/json\r\ncontent-type: application/json\r\n"),
        typed("content-type: application/json\r\ncontent-encoding: gzip\r\n"),
        // Cut off, it would look whole.
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n1".to_owned(),
        json("1").replace("HTTP/1.1", "HTTP/1.0"),
    ] {
        let refused = read(says(answer.clone()), PATIENCE).await;
        assert!(matches!(refused, Err(Unread::Refused(_))), "{answer}: {refused:?}");
    }
}

#[tokio::test]
async fn a_document_over_its_bound_is_not_read_to_its_end() {
    let exact = format!("\"{}\"", "x".repeat(BYTES_MAX - 2));
    assert_eq!(read(says(json(&exact)), PATIENCE).await, Ok(exact.into_bytes()));
    let claimed = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n";
    let port = serve(move |stream, _| {
        stream.write_all(claimed.as_bytes()).expect("it listens");
        // For ever, if nobody hangs up.
        while stream.write_all(&[b'1'; 4_096]).is_ok() {}
    });
    assert_eq!(read(port, PATIENCE).await, Err(Unread::TooLarge(BYTES_MAX)));
    let port = serve(|stream, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("it listens");
        while stream.write_all(b"8\r\n11111111\r\n").is_ok() {}
    });
    assert_eq!(read(port, PATIENCE).await, Err(Unread::TooLarge(BYTES_MAX)));
}

#[tokio::test]
async fn an_endpoint_that_is_slow_or_gone_or_breaks_off_ends_within_its_time() {
    let silent = serve(|stream, _| {
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(read(silent, SHORT).await, Err(Unread::Late));
    let dripping = serve(|stream, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("it listens");
        while stream.write_all(b"1").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(read(dripping, SHORT).await, Err(Unread::Late));
    for broken in [
        String::new(),
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n[1]".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1]\r\n"
            .to_owned(),
        "no HTTP at all".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1024 * 1024)),
    ] {
        let unread = read(says(broken.clone()), PATIENCE).await;
        assert!(matches!(unread, Err(Unread::Unreachable(_))), "{:.80}: {unread:?}", broken);
    }
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    assert!(matches!(read(closed, PATIENCE).await, Err(Unread::Unreachable(_))));
}

/// Facts over a real endpoint: a change supersedes, a hostile answer changes nothing, and then it is too old.
#[tokio::test]
async fn a_fact_follows_its_endpoint_and_outlives_its_failures_until_it_is_too_old() {
    let body = Arc::new(Mutex::new(json("{\"rate\":1}")));
    let said = body.clone();
    let port = serve(move |stream, _| {
        let answer = said.lock().expect("no panic").clone();
        let _ = stream.write_all(answer.as_bytes());
    });
    let surface: SurfaceName = "payments".parse().expect("a name");
    let (clock, versions) = (Clock::system(), Versions::new());
    let spec = FactSpec {
        name: "rates".parse().expect("a name"),
        source: Box::new(source(port, SHORT)),
        parse: parse_json,
        bytes_max: BYTES_MAX,
        max_age: Duration::from_secs(2),
        refresh_every: Duration::from_millis(20),
    };
    let metrics = Arc::new(Metrics::new().expect("valid names"));
    let facts = Facts::start(&surface, vec![spec], &clock, &versions, &metrics).await;
    let consulted = || {
        let watched = facts.read(clock.monotonic()).expect("available").iter().map(|f| f.item()).collect();
        ReadSet { watched, state: Vec::new(), captured_at: clock.monotonic(), approvals_until: None }
    };
    let moved = async |read: &ReadSet| {
        while versions.validate(read).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let first = consulted();
    *body.lock().expect("no panic") = json("{\"rate\":2}");
    moved(&first).await;
    let second = consulted();
    assert_ne!(first.watched[0].version, second.watched[0].version);
    // A member twice: which one is meant?
    *body.lock().expect("no panic") = json("{\"rate\":2,\"rate\":3}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(versions.validate(&second), Ok(()));
    assert!(facts.available(clock.monotonic()).is_ok());
    moved(&second).await;
    let missing = facts.read(clock.monotonic()).expect_err("too old");
    assert_eq!(missing.name.as_str(), "rates");
    *body.lock().expect("no panic") = json("{\"rate\":2}");
    while facts.available(clock.monotonic()).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(consulted().watched[0].version, second.watched[0].version);
}
