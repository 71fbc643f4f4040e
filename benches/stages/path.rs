//! Group `path`: one request over real sockets through the whole gateway, fdatasync included, against the same
//! request straight to the upstream.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use interlock::clock::Clock;
use interlock::config::{Config, Surroundings};
use interlock::gateway::Gateway;
use interlock::ledger::FileSigner;
use interlock::model::Digest;

const KEY: &str = "ilk_bench000_0123456789012345678901234567890123456789012";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const POLICY: &str = "package gateway.bench

permit contains \"small\" if {
    is_number(input.request.body.amount)
    input.request.body.amount <= 100000
}
";

pub fn group(c: &mut Criterion) {
    // Beside the build, on a real disk: a temporary directory may be memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let upstream = upstream();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let gateway = runtime.block_on(start(dir.path(), upstream));
    let address = gateway.address("main").expect("a listener");

    let mut group = c.benchmark_group("path");
    group.measurement_time(Duration::from_secs(5));
    for (name, address, amount) in
        [("direct", upstream, 5), ("permitted", address, 5), ("refused", address, 500_000)]
    {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("a socket");
        let request = request(amount);
        let status: &[u8] = if name == "refused" { b"HTTP/1.1 403" } else { b"HTTP/1.1 200" };
        group.bench_function(name, |b| b.iter(|| exchange(&mut stream, &request, status)));
    }
    group.finish();
    runtime.block_on(gateway.stop());
}

/// About 600 bytes of JSON and ten headers.
fn request(amount: u64) -> Vec<u8> {
    let note = "n".repeat(520);
    let body =
        format!(r#"{{"amount":{amount},"counterparty":"party-500","currency":"eur","note":"{note}"}}"#);
    let more: String = (0..5).map(|n| format!("x-more-{n}: value\r\n")).collect();
    format!(
        "POST /v1/charges HTTP/1.1\r\nhost: api.example\r\nauthorization: Bearer {KEY}\r\naccept: */*\r\n{more}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn exchange(stream: &mut TcpStream, request: &[u8], status: &[u8]) {
    stream.write_all(request).expect("sent");
    let (mut answer, mut filled) = ([0; 4096], 0);
    loop {
        filled += stream.read(&mut answer[filled..]).expect("an answer");
        let head = answer[..filled].windows(4).position(|w| w == b"\r\n\r\n");
        let Some(head) = head else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if filled == head + 4 + length.expect("a length") {
            assert!(answer.starts_with(status), "{}", String::from_utf8_lossy(&answer[..filled]));
            return;
        }
    }
}

/// Answers every whole request on every connection.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]);
        let length: usize = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok())?;
        if bytes.len() == head + 4 + length {
            bytes.clear();
            stream.write_all(ANSWER).ok()?;
        }
    }
}

async fn start(dir: &Path, upstream: SocketAddr) -> Gateway {
    let private = |name: &str, text: &str| {
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(dir.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
    };
    let (_, signing_key) = FileSigner::generate("bench.example".parse().expect("a name")).expect("a key");
    private("log.key", &signing_key);
    private("secret", "upstream-secret");
    std::fs::create_dir_all(dir.join("policies/bench")).expect("a directory");
    private("policies/bench/bench.rego", POLICY);
    let digest = Digest::of(KEY.as_bytes()).to_string();
    let sha256 = digest.strip_prefix("sha-256:").expect("its form");
    let yaml = format!(
        "log_origin: bench.example
ledger: {{ dir: ./ledger, signing_key: ./log.key }}
policy: {{ dir: ./policies }}
admin: {{ listen: \"127.0.0.1:0\" }}
listeners:
  - {{ name: main, address: \"127.0.0.1:0\" }}
api_keys:
  - {{ id: agent, prefix: ilk_bench000, sha256: {sha256} }}
surfaces:
  - name: payments
    listener: main
    package: gateway.bench
    identity: {{ api_key: {{ headers: [authorization] }} }}
    upstream: {{ url: \"http://{upstream}\" }}
    credential: {{ name: key, header: authorization, prefix: \"Bearer \", from_file: ./secret }}
    routes:
      - {{ action: charge.create, method: POST, path: /v1/charges, body: json, headers: [accept] }}
"
    );
    let clock = Clock::system();
    let file = dir.join("interlock.yaml");
    let config = Config::parse(yaml.as_bytes(), &file, Surroundings::of_process(&clock))
        .unwrap_or_else(|e| panic!("{e}"));
    Gateway::start(config, clock).await.unwrap_or_else(|e| panic!("{e}"))
}
