//! A gateway between a raw client and a raw upstream, in a directory of its own.
//!
//! [`World::finish`] stops the gateway and calls the Auditor; a world that is dropped without it panics, so that no
//! test can forget to be audited.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use interlock::clock::{Clock, WallTime};
use interlock::config::{AdminListen, Config, SecretsAre, Surroundings};
use interlock::gateway::{Gateway, Stopped};
use interlock::ledger::FileSigner;
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::model::Digest;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::auditor::{self, Asked, Audit, Lookup, Slot};
use super::client::{Client, Response, request};
use super::upstream::{Capture, Upstream};

/// The agent's key, and another agent's.
pub const KEY: &str = "ilk_agent007Zm9vYmFyYmF6cXV4MTIzNA";
pub const OTHER_KEY: &str = "ilk_agent008cXV4YmF6YmFyZm9vNDMyMQ";
pub const SLOT: Slot = Slot { secret: "sk_upstream_9b1c6f0e5d", name: "upstream-key" };

/// What the tests permit: what says so itself, in a header or a query parameter, unless an amount is too large.
pub const POLICY: &str = r#"package gateway.test

wanted contains input.request.headers["x-want"]

wanted contains input.request.query.want

permit contains "wanted" if "permit" in wanted

deny contains {"code": "amount_over", "message": "at most 1000"} if input.request.body.amount > 1000

deny contains "not_wanted" if "deny" in wanted

escalate contains "ask_somebody" if "escalate" in wanted

quarantine contains "isolated" if "quarantine" in wanted

permit contains 1 if "broken" in wanted

permit contains "late" if {
	"late" in wanted
	count([x | some x in numbers.range(1, 1000); some y in numbers.range(1, 1000); x == y]) > 0
}
"#;

const ROUTES: &str = r#"
      - { action: thing.create, method: POST, path: /v1/things, body: json, headers: [x-want, accept, idempotency-key], body_required: false }
      - { action: thing.list, method: GET, path: /v1/things, body: none, headers: [x-want, accept], query_lists: ["expand[]"] }
      - { action: thing.head, method: HEAD, path: /v1/things, body: none, headers: [x-want] }
      - { action: thing.read, method: GET, path: "/v1/things/{id}", body: none, headers: [x-want, accept] }
      - { action: thing.delete, method: DELETE, path: "/v1/things/{id}", body: none, headers: [x-want] }
      - { action: form.create, method: POST, path: /v1/forms, body: form, headers: [x-want] }
      - { action: verbatim.create, method: POST, path: /v1/verbatim, body: json, forward: verbatim, headers: [x-want] }
      - { action: keyed.create, method: POST, path: /v1/keyed, body: json, headers: [x-want, idempotency-key], idempotency_key: required }
      - { action: small.create, method: POST, path: /v1/small, body: json, headers: [x-want], body_bytes_max: 64 }
      - { action: shaped.create, method: POST, path: /v1/shaped, body: json, headers: [x-want], schema: ./schema.json }
      - { action: blob.put, method: PUT, path: "/v1/blobs/{id}", body: { opaque: [application/octet-stream] }, headers: [x-want], body_bytes_max: 67108864 }
"#;

/// What differs from the usual world. Lines are YAML, indented as their section needs.
pub struct Setup {
    pub policy: String,
    pub policy_dir: Option<PathBuf>,
    pub routes: String,
    pub package: &'static str,
    /// `name: value` pairs of `limits`, `upstream` and the surface.
    pub limits: &'static [&'static str],
    pub upstream: &'static [&'static str],
    pub surface: &'static [&'static str],
    /// More of `admin`, as `name: value`.
    pub admin: Vec<String>,
    pub credential: &'static str,
    pub when_sent: &'static str,
    pub claims: &'static str,
    /// `not_after` of the keys, from now.
    pub keys_last: Option<Duration>,
    pub listener_tls: bool,
    /// More fields of the listener's `tls`.
    pub client_tls: &'static str,
    /// `identity` of the surface.
    pub identity: String,
    /// Instead of the list of API keys.
    pub api_keys: Option<&'static str>,
    /// Files beside the config, private ones.
    pub files: Vec<(&'static str, String)>,
    pub upstream_tls: bool,
    pub segment_mib: u64,
    /// Instead of the upstream's own address.
    pub upstream_url: Option<String>,
    /// Items of `sinks`.
    pub sinks: Vec<String>,
    /// Values that the surface redacts, and that nothing may show; with any, there is a directory of salts.
    pub redacted: &'static [&'static str],
    /// How the surface's upstream is asked what became of requests.
    pub status_lookup: Option<Lookup>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: POLICY.into(),
            policy_dir: None,
            routes: ROUTES.into(),
            package: "gateway.test",
            limits: &[],
            upstream: &[],
            surface: &[],
            admin: Vec::new(),
            credential: "authorization",
            when_sent: "refuse",
            claims: "{ roles: [agent] }",
            keys_last: None,
            listener_tls: false,
            client_tls: "",
            identity: "{ api_key: { headers: [x-api-key, authorization] } }".into(),
            api_keys: None,
            files: Vec::new(),
            upstream_tls: false,
            segment_mib: 32,
            upstream_url: None,
            sinks: Vec::new(),
            redacted: &[],
            status_lookup: None,
        }
    }
}

impl Setup {
    /// In this process.
    pub fn start(self) -> World {
        let mut world = self.lay_out();
        world.run_inside();
        world
    }

    /// As the real program.
    pub fn start_program(self) -> World {
        let mut world = self.lay_out();
        world.run_program(&[]);
        world
    }

    /// Everything but a running gateway.
    pub fn lay_out(self) -> World {
        // Only one of the tests in a process can be first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let tls = Authority::new();
        let upstream = if self.upstream_tls { Upstream::tls(tls.server_config()) } else { Upstream::plain() };
        let (signer, signing_key) =
            FileSigner::generate("interlock.test/log".parse().expect("a name")).expect("a key");
        let host = if self.upstream_tls { "localhost" } else { "127.0.0.1" };
        let asked = self.status_lookup.map(|lookup| Asked {
            lookup,
            authority: format!("{host}:{}", upstream.address().port()),
            credential: self.credential,
        });
        let world = World {
            asked,
            upstream,
            key: signer.verifier().clone(),
            tls,
            running: Running::Not,
            addresses: None,
            is_listener_tls: self.listener_tls,
            is_audited: false,
            redacted: self.redacted,
            program_file: None,
            dir,
        };
        world.write("log.key", signing_key.as_str(), 0o600);
        world.write("upstream.key", SLOT.secret, 0o600);
        world.write("schema.json", r#"{"type":"object","required":["name"],"properties":{"name":{"type":"string"}},"additionalProperties":false}"#, 0o644);
        world.write("tls.crt", &world.tls.certificate, 0o644);
        world.write("tls.key", &world.tls.key, 0o600);
        for (name, content) in &self.files {
            world.write(name, content, 0o600);
        }
        if self.policy_dir.is_none() {
            fs::create_dir(world.path("policies")).expect("a directory");
            world.write("policies/test.rego", &self.policy, 0o644);
        }
        world.write("interlock.yaml", &self.yaml(&world), 0o644);
        world
    }

    fn yaml(&self, world: &World) -> String {
        let digest = |key: &str| Digest::of(key.as_bytes()).to_string().split_off("sha-256:".len());
        let policies = self.policy_dir.clone().unwrap_or_else(|| world.path("policies"));
        let scheme = if self.upstream_tls { "https" } else { "http" };
        let host = if self.upstream_tls { "localhost" } else { "127.0.0.1" };
        let url = self
            .upstream_url
            .clone()
            .unwrap_or_else(|| format!("{scheme}://{host}:{}", world.upstream.address().port()));
        let mut upstream = or_generous(self.upstream, &["lease_wait_ms_max: 20000", "connect_ms_max: 20000"]);
        if self.upstream_tls {
            upstream.push("roots: { file: ./tls.crt }");
        }
        let client_tls = self.client_tls;
        let listener_tls = if self.listener_tls {
            format!(", tls: {{ certificate: ./tls.crt, key: ./tls.key{client_tls} }}")
        } else {
            String::new()
        };
        let mut yaml = format!(
            "log_origin: interlock.test/log\n\
             ledger: {{ dir: ledger, signing_key: ./log.key, segment_mib: {}{} }}\n\
             policy: {{ dir: {} }}\n\
             admin: {{ listen: 127.0.0.1:ADMIN_PORT{} }}\n\
             telemetry: {{ format: json, level: {} }}\n",
            self.segment_mib,
            if self.redacted.is_empty() { "" } else { ", salts: ./salts" },
            policies.display(),
            self.admin.iter().map(|line| format!(", {line}")).collect::<String>(),
            if self.redacted.is_empty() { "info" } else { "trace" },
        );
        let limits = or_generous(self.limits, &["evaluation_ms_max: 10000"]);
        writeln!(yaml, "limits: {{ {} }}", limits.join(", ")).expect("a string");
        writeln!(yaml, "listeners:\n  - {{ name: main, address: 127.0.0.1:MAIN_PORT{listener_tls} }}")
            .expect("a string");
        writeln!(yaml, "api_keys: {}", self.api_keys.unwrap_or_default()).expect("a string");
        let not_after = self.keys_last.map_or_else(String::new, |last| {
            let end = Clock::system().wall().unix_ns() + last.as_nanos() as u64;
            format!(", not_after: \"{}\"", WallTime::from_unix_ns(end).rfc3339())
        });
        let keys = [("agent-7", KEY), ("agent-8", OTHER_KEY)];
        for (id, key) in keys.into_iter().filter(|_| self.api_keys.is_none()) {
            writeln!(
                yaml,
                "  - {{ id: {id}, prefix: {}, sha256: {}, claims: {}{not_after} }}",
                &key[..12],
                digest(key),
                self.claims
            )
            .expect("a string");
        }
        writeln!(
            yaml,
            "surfaces:\n  - name: test\n    listener: main\n    package: {}\n    \
             identity: {}\n    \
             upstream: {{ url: \"{url}\"{} }}\n    \
             credential: {{ name: {}, header: {}, prefix: \"Bearer \", from_file: ./upstream.key, when_sent: {} }}",
            self.package,
            self.identity,
            upstream.iter().map(|line| format!(", {line}")).collect::<String>(),
            SLOT.name,
            self.credential,
            self.when_sent
        )
        .expect("a string");
        for line in
            or_generous(self.surface, &["permit_age_ms_max: 20000", "idempotency: { keep_hours: 24 }"])
        {
            writeln!(yaml, "    {line}").expect("a string");
        }
        if let Some(Lookup { path, header, more }) = self.status_lookup {
            let header = header.map_or_else(String::new, |name| format!(", header: {name}"));
            writeln!(yaml, "    status_lookup: {{ path: \"{path}\"{header}, {more} }}").expect("a string");
        }
        let sinks: String = self.sinks.iter().map(|sink| format!("  - {sink}\n")).collect();
        let sinks = if sinks.is_empty() { sinks } else { format!("\nsinks:\n{sinks}") };
        yaml + "    routes:" + &self.routes + &sinks
    }
}

/// Bounds on time that hold on a slow and busy machine, unless the test is about them.
fn or_generous(given: &[&'static str], generous: &[&'static str]) -> Vec<&'static str> {
    let name = |line: &&str| line.split(':').next().map(str::to_owned);
    let missing = generous.iter().filter(|line| !given.iter().any(|g| name(g) == name(line)));
    given.iter().chain(missing).copied().collect()
}

enum Running {
    Not,
    Inside { runtime: Runtime, gateway: Box<Gateway> },
    Program(Program),
}

/// The gateway as a process.
pub struct Program {
    child: Child,
    is_under: bool,
    pub log: Arc<Mutex<String>>,
    /// Standard output alone.
    pub out: Arc<Mutex<String>>,
}

pub struct World {
    pub upstream: Upstream,
    pub key: VerifierKey,
    pub tls: Authority,
    running: Running,
    addresses: Option<(SocketAddr, SocketAddr)>,
    is_listener_tls: bool,
    is_audited: bool,
    asked: Option<Asked>,
    /// What must be nowhere in the log, in logs and in metrics.
    redacted: &'static [&'static str],
    /// Instead of the program as it was built.
    program_file: Option<PathBuf>,
    dir: TempDir,
}

impl World {
    /// The usual one, in this process.
    pub fn start() -> Self {
        Setup::default().start()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str, mode: u32) {
        fs::write(self.path(name), content).expect("written");
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).expect("permitted");
    }

    /// The config with these ports in place; the file's name.
    fn config_file(&self, main: u16, admin: u16) -> PathBuf {
        let yaml = fs::read_to_string(self.path("interlock.yaml")).expect("readable");
        let yaml = yaml.replace("MAIN_PORT", &main.to_string()).replace("ADMIN_PORT", &admin.to_string());
        self.write("running.yaml", &yaml, 0o644);
        self.path("running.yaml")
    }

    pub fn run_inside(&mut self) {
        self.run_inside_at(Clock::system());
    }

    /// In this process, by this clock.
    pub fn run_inside_at(&mut self, clock: Clock) {
        let file = self.config_file(0, 0);
        let surroundings = Surroundings { clock: &clock, variable: &|_| None, secrets: SecretsAre::Needed };
        let config = Config::load(&file, surroundings).unwrap_or_else(|invalid| panic!("{invalid}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .build()
            .expect("built");
        let gateway = runtime
            .block_on(Gateway::start(config, clock))
            .unwrap_or_else(|error| panic!("the gateway starts: {error}"));
        let AdminListen::Tcp(admin) = *gateway.admin_address() else {
            panic!("the admin listener has no port")
        };
        self.addresses = Some((gateway.address("main").expect("declared"), admin));
        self.running = Running::Inside { runtime, gateway: Box::new(gateway) };
        self.wait_until_ready();
    }

    /// Starts the real program, `under` some other one such as strace.
    pub fn run_program(&mut self, under: &[&str]) {
        for _ in 0..5 {
            if self.try_run_program(under) {
                return;
            }
        }
        panic!("the gateway does not become ready: {}", self.program_log());
    }

    /// Starts the real program; `false` if it ended before it was ready.
    pub fn try_run_program(&mut self, under: &[&str]) -> bool {
        self.spawn(under);
        self.becomes_ready()
    }

    pub fn start_without_waiting(&mut self) {
        self.spawn(&[]);
    }

    /// Runs a copy of the program without what is there for debuggers: every start reads the file for its digest, which
    /// shows where there are thousands of them.
    pub fn strip_program(&mut self) {
        let file = self.path("interlock");
        let Some(built) = option_env!("CARGO_BIN_EXE_interlock") else { panic!("no program was built") };
        let stripped = Command::new("strip").arg("-o").arg(&file).arg(built).status();
        assert!(stripped.expect("runs").success(), "stripped");
        self.program_file = Some(file);
    }

    fn spawn(&mut self, under: &[&str]) {
        let (main, admin) = free_ports();
        let file = self.config_file(main, admin);
        // Not in a fuzz target, which includes this file and stays inside its process.
        let Some(built) = option_env!("CARGO_BIN_EXE_interlock") else { panic!("no program was built") };
        let program = self.program_file.as_deref().unwrap_or(Path::new(built));
        let mut command = match under.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.arg("run").arg("--config").arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} starts: {e}"));
        let log = Arc::new(Mutex::new(String::new()));
        let out = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("piped"), vec![log.clone(), out.clone()]);
        collect(child.stderr.take().expect("piped"), vec![log.clone()]);
        self.addresses =
            Some((SocketAddr::from(([127, 0, 0, 1], main)), SocketAddr::from(([127, 0, 0, 1], admin))));
        self.running = Running::Program(Program { child, is_under: !under.is_empty(), log, out });
    }

    pub fn program(&mut self) -> &mut Program {
        match &mut self.running {
            Running::Program(program) => program,
            Running::Not | Running::Inside { .. } => panic!("no program runs"),
        }
    }

    pub fn program_log(&self) -> String {
        match &self.running {
            Running::Program(program) => program.log.lock().expect("unpoisoned").clone(),
            Running::Not | Running::Inside { .. } => String::new(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses.expect("running").0
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.addresses.expect("running").1
    }

    /// What an operator does, of a gateway in this process. When it returns, it is done.
    pub fn administer(&self, administration: interlock::ledger::Administration) {
        let Running::Inside { runtime, gateway } = &self.running else { panic!("a gateway in this process") };
        runtime.block_on(gateway.ledger().record_admin(administration)).expect("recorded");
    }

    fn wait_until_ready(&mut self) {
        assert!(self.becomes_ready(), "the gateway becomes ready: {}", self.program_log());
    }

    fn becomes_ready(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if let Running::Program(program) = &mut self.running
                && program.child.try_wait().expect("a child").is_some()
            {
                return false;
            }
            if std::net::TcpStream::connect(self.admin_address()).is_ok()
                && self.admin("/readyz").status == 200
            {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    pub fn client(&self) -> Client {
        match self.is_listener_tls {
            false => Client::connect(self.address()),
            true => Client::connect_tls(self.address(), self.tls.client_config(&[])),
        }
    }

    /// Looks now at everything that identity rests on.
    pub fn reload(&mut self) {
        match &mut self.running {
            Running::Not => panic!("no gateway runs"),
            Running::Inside { gateway, .. } => gateway.reload(),
            Running::Program(program) => signal(program.pid(), "-HUP"),
        }
    }

    /// One request of the agent on a connection of its own. `want` is for the policy.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, want: &str, body: impl AsRef<[u8]>) -> Response {
        let media_type = match target {
            t if t.starts_with("/v1/forms") => "application/x-www-form-urlencoded",
            t if t.starts_with("/v1/blobs") => "application/octet-stream",
            _ => "application/json",
        };
        let mut headers = vec![("x-api-key", KEY), ("x-want", want), ("connection", "close")];
        if !body.as_ref().is_empty() {
            headers.push(("content-type", media_type));
        }
        let mut client = self.client();
        client.send(request(method, target, &headers, body));
        client.try_response(method == "HEAD").expect("an answer")
    }

    /// Exactly these bytes on a connection of its own.
    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.client();
        client.send(bytes);
        client.response()
    }

    pub fn admin(&self, path: &str) -> Response {
        let mut client = Client::connect(self.admin_address());
        client.send(request("GET", path, &[("connection", "close")], ""));
        client.try_response(false).unwrap_or_default()
    }

    /// The value of a metric, its labels included in the name; 0 if it does not exist yet.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").text();
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(n, _)| n == name));
        line.map_or(0.0, |line| line.rsplit_once(' ').expect("a value").1.parse().expect("a number"))
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(15), "{name} is {}, not {value}", self.metric(name));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the gateway cleanly and audits.
    pub fn finish(self) -> Audit {
        self.finish_as(Stopped::Clean)
    }

    pub fn finish_as(mut self, expected: Stopped) -> Audit {
        self.finish_here(expected)
    }

    /// Whoever runs a gateway in this world by other means audits it; or none runs at all.
    pub fn is_looked_at_later(&mut self) {
        self.is_audited = true;
    }

    /// As [`World::finish_as`], and the world stays to be looked at.
    pub fn finish_here(&mut self, expected: Stopped) -> Audit {
        self.is_audited = true;
        if expected == Stopped::Clean {
            // Nothing is left behind: no request, no permit.
            self.wait_for_metric("interlock_requests_in_flight", 0.0);
            self.wait_for_metric("interlock_ledger_open_permits", 0.0);
        }
        let metrics = self.admin("/metrics").text();
        let redacted = self.redacted;
        let secrets = || std::iter::once(&SLOT.secret).chain(redacted);
        secrets().for_each(|secret| assert!(!metrics.contains(secret), "metrics hold `{secret}`"));
        let log = self.program_log();
        match std::mem::replace(&mut self.running, Running::Not) {
            Running::Not => {}
            Running::Inside { runtime, gateway } => {
                assert_eq!(runtime.block_on(gateway.stop()), expected);
                runtime.shutdown_timeout(Duration::from_secs(10));
            }
            Running::Program(mut program) => {
                program.terminate();
                let status = program.wait();
                assert_eq!(status.success(), expected == Stopped::Clean, "{status}: {}", program.text());
            }
        }
        secrets().for_each(|secret| assert!(!log.contains(secret), "the program's log holds `{secret}`"));
        self.audit()
    }

    /// The exact bytes of every leaf, from the files.
    pub fn leaves(&self) -> Vec<Vec<u8>> {
        use interlock::verify::walk::{Step, Walk};
        let directory = interlock::verify::Directory::open(&self.path("ledger")).expect("readable");
        let mut walk = Walk::new(&directory, self.key.name()).expect("readable");
        let mut leaves = Vec::new();
        loop {
            match walk.step().expect("readable") {
                Step::Frame(frame, _) => leaves.extend(frame.entries.iter().map(|e| e.to_vec())),
                Step::End(_) => return leaves,
                Step::Damaged(damage) => panic!("{damage:?}"),
            }
        }
    }

    /// Audits what is there; no gateway may be running.
    pub fn audit(&mut self) -> Audit {
        self.is_audited = true;
        assert!(matches!(self.running, Running::Not), "the gateway still runs");
        let audit = auditor::audit(
            &self.path("ledger"),
            &self.key,
            SLOT,
            &self.upstream.captures(),
            &self.path("salts"),
            self.asked.as_ref(),
        );
        self.redacted.iter().for_each(|value| auditor::no_secret_in(&self.path("ledger"), value));
        audit
    }

    /// Asks a program to stop and waits, however it ends; its log is looked at later.
    pub fn stop_program(&mut self) {
        if matches!(self.running, Running::Program(_)) {
            self.end_program();
        }
    }

    /// The same; how it ended, and what it said.
    pub fn end_program(&mut self) -> (ExitStatus, String) {
        // It may have ended already.
        let pid = self.program().pid().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        self.wait_for_end()
    }

    pub fn program_has_ended(&mut self) -> bool {
        self.program().child.try_wait().is_ok_and(|ended| ended.is_some())
    }

    /// The pinned verifier key as text.
    pub fn vkey(&self) -> String {
        self.key.to_string()
    }

    /// Keeps the log and the keys of salts as they lie there, and what the upstream got until now; nothing may be
    /// running.
    pub fn save(&self) -> Saved {
        assert!(matches!(self.running, Running::Not), "the gateway still runs");
        let dir = TempDir::new_in(self.dir.path()).expect("made");
        for name in ["ledger", "salts"].iter().filter(|name| self.path(name).exists()) {
            copy_dir(&self.path(name), &dir.path().join(name));
        }
        Saved { dir, captures: self.upstream.captures() }
    }

    /// Goes back to what was saved.
    pub fn restore(&mut self, saved: &Saved) {
        assert!(matches!(self.running, Running::Not), "the gateway still runs");
        for name in ["ledger", "salts"].iter().filter(|name| self.path(name).exists()) {
            fs::remove_dir_all(self.path(name)).expect("removed");
        }
        for name in ["ledger", "salts"].iter().filter(|name| saved.dir.path().join(name).exists()) {
            copy_dir(&saved.dir.path().join(name), &self.path(name));
        }
        self.upstream.put_captures(saved.captures.clone());
    }

    /// Ends the program at once, as a power cut would end it.
    pub fn kill(&mut self) {
        self.program().kill();
        self.running = Running::Not;
    }

    /// Waits for a program that ends by itself; how it ended, and what it logged.
    pub fn wait_for_end(&mut self) -> (ExitStatus, String) {
        let Running::Program(mut program) = std::mem::replace(&mut self.running, Running::Not) else {
            panic!("no program runs");
        };
        (program.wait(), program.text())
    }

    /// For tests in which no gateway ever ran.
    pub fn nothing_to_audit(&mut self) {
        assert!(matches!(self.running, Running::Not), "the gateway still runs");
        assert!(self.upstream.captures().is_empty(), "nothing arrived without a gateway");
        self.is_audited = true;
    }
}

/// A log at rest, and the effects it knows of.
pub struct Saved {
    dir: TempDir,
    captures: Vec<Capture>,
}

impl Saved {
    /// Every file of the log and of the salts by its path, with its bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files_in(self.dir.path())
    }

    /// Whether nothing changed since: no file, and nothing at the upstream.
    pub fn is_as_in(&self, world: &World) -> bool {
        self.captures.len() == world.upstream.captures().len() && self.files() == files_in(world.dir.path())
    }
}

fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs: Vec<_> =
        ["ledger", "salts"].iter().map(|name| dir.join(name)).filter(|dir| dir.exists()).collect();
    while let Some(below) = dirs.pop() {
        for entry in fs::read_dir(below).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below it").to_owned();
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

/// Files with their modes; zeros are written, so that room which was taken stays taken.
fn copy_dir(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--sparse=never"]).arg(from).arg(to).status();
    assert!(copied.expect("runs").success(), "copied");
}

impl Drop for World {
    fn drop(&mut self) {
        if let Running::Program(program) = &mut self.running {
            program.kill();
        }
        if !thread::panicking() {
            assert!(self.is_audited, "every end-to-end test ends with the Auditor: call `finish`");
        }
    }
}

impl Program {
    /// Of the gateway itself, also when it runs under another program.
    pub fn pid(&self) -> u32 {
        let own = self.child.id();
        if !self.is_under {
            return own;
        }
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        children.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or(own)
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), "-TERM");
    }

    pub fn kill(&mut self) {
        // It may have ended already.
        if self.is_under && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("kill").args(["-KILL", &self.pid().to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ends; panics if it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // The readers see the end of the output a moment later.
                thread::sleep(Duration::from_millis(20));
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the program does not end: {}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn text(&self) -> String {
        self.log.lock().expect("unpoisoned").clone()
    }
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(name).arg(pid.to_string()).status().expect("kill runs");
    assert!(status.success(), "kill {name} {pid}");
}

/// Keeps reading, so that the program never waits for us.
fn collect(from: impl std::io::Read + Send + 'static, into: Vec<Arc<Mutex<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            for text in &into {
                let mut text = text.lock().expect("unpoisoned");
                text.push_str(&line);
                text.push('\n');
            }
        }
    });
}

fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (a, b) = (bind(), bind());
    (a.local_addr().expect("bound").port(), b.local_addr().expect("bound").port())
}

/// A certificate for localhost that is its own root.
pub struct Authority {
    pub certificate: String,
    key: String,
    der: (Vec<u8>, Vec<u8>),
}

impl Authority {
    fn new() -> Self {
        let names = vec!["localhost".to_owned(), "api.test".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let der = (made.cert.der().to_vec(), made.signing_key.serialize_der());
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem(), der }
    }

    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.der.1.clone()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.0.clone().into()], key)
            .expect("a certificate");
        Arc::new(config)
    }

    pub fn client_config(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.0.clone().into()).expect("a root");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
