//! The demo as people run it: the built binary, its table, the directory it leaves, and every command on that.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use interlock::clock::Clock;
use serde_json::Value;

const INTERLOCK: &str = env!("CARGO_BIN_EXE_interlock");

fn interlock(args: &[&str]) -> Output {
    Command::new(INTERLOCK).args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A command that runs until it is told to stop.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// Returns when a line of its output contains `ready`.
    fn start(args: &[&str], ready: &str) -> Self {
        Self::start_in(args, ready, &[])
    }

    fn start_in(args: &[&str], ready: &str, environment: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(INTERLOCK)
            .args(args)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut seen = String::new();
        while !seen.contains(ready) {
            let read = out.read_line(&mut seen).expect("readable");
            assert!(read > 0, "{args:?} ended after: {seen}");
        }
        Self { child, out }
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(told.success());
    }

    /// SIGTERM, and the exit code.
    fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.ended()
    }

    fn ended(&mut self) -> Option<i32> {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("readable");
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone, unless a test has failed.
        let _ = self.child.kill();
    }
}

fn file(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().expect("UTF-8").to_owned()
}

/// The address that follows `before` in the config.
fn address(config: &str, before: &str) -> String {
    let (_, rest) = config.split_once(before).unwrap_or_else(|| panic!("{before} in {config}"));
    rest.split('"').next().expect("a rest").to_owned()
}

fn charge(gateway: &str, key: &str, amount: u32) -> String {
    let mut stream = sent_charge(gateway, key, amount);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn sent_charge(gateway: &str, key: &str, amount: u32) -> TcpStream {
    let body = format!(r#"{{"amount":{amount},"currency":"EUR","customer":"cus_1"}}"#);
    let mut stream = TcpStream::connect(gateway).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    write!(
        stream,
        "POST /v1/charges HTTP/1.1\r\nhost: {gateway}\r\nx-api-key: {key}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("written");
    stream
}

/// A directory that the demo has left, with its config changed.
fn left_by_the_demo(dir: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let place = dir.join("demo");
    assert_eq!(interlock(&["demo", "--dir", place.to_str().expect("UTF-8")]).status.code(), Some(0));
    let config = place.join("interlock.yaml");
    let text = change(std::fs::read_to_string(&config).expect("a config"));
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(&config).expect("opens");
    file.write_all(text.as_bytes()).expect("written");
    place
}

#[test]
fn the_demo_ends_soon_with_every_row_as_expected() {
    let clock = Clock::system();
    let began = clock.monotonic();
    let ended = interlock(&["demo", "--json"]);
    let took = clock.monotonic().since(began);
    let out = text(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{out}\n{}", text(&ended.stderr));
    assert!(took < Duration::from_secs(60), "{took:?}");

    let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect();
    let of = |kind: &str| lines.iter().filter(|l| l["type"] == kind).collect::<Vec<_>>();
    let requests = of("request");
    assert!(requests.len() >= 30, "{} requests", requests.len());
    assert!(requests.iter().all(|r| r["as_expected"] == true));
    for decision in ["PERMIT", "DENY", "SILENCE", "ESCALATE", "QUARANTINE"] {
        assert!(requests.iter().any(|r| r["got"]["decision"] == decision), "no row with {decision}");
    }
    for request in &requests {
        let got = &request["got"];
        let at_once = got["permitted"].as_u64();
        let permitted = got["decision"] == "PERMIT" && got["replayed"] == false;
        assert_eq!(got["arrived"], at_once.unwrap_or(u64::from(permitted)), "{request}");
        if got["decision"].is_string() && at_once.is_none() {
            assert!(request["got"]["receipt"].is_u64(), "{request}");
        }
    }
    let row = |what: &str| {
        let found = requests.iter().position(|r| r["what"] == what);
        found.unwrap_or_else(|| panic!("no row `{what}`"))
    };
    let got = |row: usize| &requests[row]["got"];
    // One key, one effect; other bytes under it are refused.
    let first = row("a charge with an idempotency key");
    assert_eq!((&got(first)["arrived"], &got(first)["replayed"]), (&1.into(), &false.into()));
    assert_eq!((&got(first + 1)["arrived"], &got(first + 1)["replayed"]), (&0.into(), &true.into()));
    assert_eq!(got(first)["receipt"], got(first + 1)["receipt"], "the receipt of the one effect");
    assert_eq!(got(first + 2)["reason"], "idempotency_key_reused");
    // Sixteen charges against a budget of ten.
    let burst = got(row("16 at once, budget for 10"));
    assert_eq!((&burst["permitted"], &burst["arrived"]), (&10.into(), &10.into()));
    assert_eq!(burst["reason"], "over_budget", "of all others");
    // What an operator does decides what comes after, and stands in the log.
    for (operated, before, after) in [
        ("the operator approves it", "ESCALATE", "PERMIT"),
        ("the operator releases the agent", "QUARANTINE", "PERMIT"),
        ("the operator ends the freeze", "SILENCE", "PERMIT"),
    ] {
        let at = row(operated);
        assert_eq!(got(at - 1)["decision"], before, "before: {operated}");
        assert_eq!(got(at + 1)["decision"], after, "after: {operated}");
        assert!(got(at)["receipt"].is_u64(), "{operated}");
    }
    assert_eq!(got(row("the same again: approved only once"))["decision"], "ESCALATE");
    let checks = of("check");
    assert_eq!(checks.len(), 5);
    assert!(checks.iter().any(|c| c["found"].as_str().is_some_and(|f| f.starts_with("replayed "))));
    assert!(checks.iter().all(|c| c["passed"] == true), "{checks:?}");
    assert_eq!(of("end")[0]["passed"], true);
}

#[test]
fn the_table_is_plain_text_when_nobody_watches() {
    let ended = interlock(&["demo"]);
    let out = text(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{out}");
    assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "control characters in {out:?}");
    for seen in [
        "over_budget",
        "the kept answer",
        "actor_quarantined",
        "frozen",
        "over_limit",
        "json_duplicate_name",
        "framing_conflict",
        "upstream_silent (indeterminate)",
    ] {
        assert!(out.contains(seen), "{seen} in {out}");
    }
    assert!(!out.contains("NOT"), "{out}");
}

#[test]
fn what_the_demo_leaves_verifies_and_runs_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("demo");
    let demo = ["demo", "--dir", place.to_str().expect("UTF-8")];
    let first = interlock(&demo);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stdout));
    let log = ["verify", "--log", &file(&place, "ledger"), "--key", &file(&place, "log.vkey")];
    let verified = interlock(&log);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));

    let again = interlock(&demo);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("holds a log from an earlier demo"), "{}", text(&again.stderr));

    let config = std::fs::read_to_string(place.join("interlock.yaml")).expect("a config");
    let upstream = address(&config, "url: \"http://");
    let gateway = address(&config, "name: main, address: \"");
    let secret = file(&place, "upstream.secret");
    let api = Running::start(&["sample-api", "--listen", &upstream, "--secret", &secret], "sample API on");
    let running = Running::start(&["run", "--config", &file(&place, "interlock.yaml")], "ready\n");
    let key = std::fs::read_to_string(place.join("agent.key")).expect("a key");
    let permitted = charge(&gateway, key.trim(), 4_200);
    assert!(permitted.starts_with("HTTP/1.1 200 ") && permitted.contains("decision=PERMIT"), "{permitted}");
    let denied = charge(&gateway, key.trim(), 600_000);
    assert!(denied.starts_with("HTTP/1.1 403 ") && denied.contains("over_limit"), "{denied}");
    assert_eq!(running.stop(), Some(0), "a clean stop");
    assert_eq!(api.stop(), Some(0));
    assert_eq!(interlock(&log).status.code(), Some(0), "the log still verifies");
}

#[test]
fn a_config_that_is_not_valid_is_shown_and_exits_with_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("interlock.yaml");
    std::fs::copy("Cargo.toml", &config).expect("a file that is no config");
    let ended = interlock(&["run", "--config", config.to_str().expect("UTF-8")]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(text(&ended.stderr).contains("interlock.yaml"), "{}", text(&ended.stderr));
}

#[test]
fn a_gateway_that_cannot_have_its_log_exits_with_5() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = left_by_the_demo(dir.path(), |config| config);
    let config = file(&place, "interlock.yaml");
    let first = Running::start(&["run", "--config", &config], "ready\n");
    // The same log, other ports: those of the first are taken.
    let text_of_config = std::fs::read_to_string(&config).expect("a config");
    let mut other = text_of_config.clone();
    for marker in ["name: main, address: \"", "admin: { listen: \""] {
        other = other.replace(&address(&text_of_config, marker), "127.0.0.1:0");
    }
    std::fs::write(place.join("other.yaml"), other).expect("written");
    let second = interlock(&["run", "--config", &file(&place, "other.yaml")]);
    assert_eq!(second.status.code(), Some(5));
    assert!(text(&second.stderr).contains("another process has the log"), "{}", text(&second.stderr));
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn a_request_that_is_given_up_ends_as_indeterminate_and_the_gateway_with_3() {
    let dir = tempfile::tempdir().expect("a directory");
    let place =
        left_by_the_demo(dir.path(), |config| config.replace("drain_ms_max: 5000", "drain_ms_max: 50"));
    let config = std::fs::read_to_string(place.join("interlock.yaml")).expect("a config");
    let silent = TcpListener::bind(address(&config, "url: \"http://")).expect("the demo's upstream is gone");
    let mut running = Running::start(&["run", "--config", &file(&place, "interlock.yaml")], "ready\n");
    let key = std::fs::read_to_string(place.join("agent.key")).expect("a key");
    let client = sent_charge(&address(&config, "name: main, address: \""), key.trim(), 4_200);
    let (mut taken, _) = silent.accept().expect("the gateway connects");
    assert!(taken.read(&mut [0; 16]).expect("the request arrives") > 0);
    running.terminate();
    assert_eq!(running.ended(), Some(3));
    drop((client, taken));

    let log = file(&place, "ledger");
    let verified = interlock(&["verify", "--log", &log, "--key", &file(&place, "log.vkey")]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    let outcomes = interlock(&["receipts", "list", "--log", &log, "--type", "outcome", "--json"]);
    let outcomes = text(&outcomes.stdout);
    let last: Value = serde_json::from_str(outcomes.lines().last().expect("an outcome")).expect("JSON");
    let last = &last["entry"];
    assert_eq!((&last["status"], &last["cause"]), (&"indeterminate".into(), &"abandoned".into()), "{last}");
}

#[test]
fn a_service_manager_is_told_of_start_and_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = left_by_the_demo(dir.path(), |config| config);
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let config = file(&place, "interlock.yaml");
    let running = Running::start_in(&["run", "--config", &config], "ready\n", &[("NOTIFY_SOCKET", &socket)]);
    let mut heard = [0; 64];
    let mut hear = || {
        let n = manager.recv(&mut heard).expect("told");
        text(&heard[..n])
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(running.stop(), Some(0));
    assert_eq!(hear(), "STOPPING=1");
}

#[test]
fn receipts_of_the_demo_tell_what_people_did_and_what_became_of_budgets_and_keys() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("demo");
    let demo = interlock(&["demo", "--json", "--dir", place.to_str().expect("UTF-8")]);
    let rows = text(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{rows}");
    let log = file(&place, "ledger");
    let leaves = text(&interlock(&["receipts", "list", "--log", &log, "--json"]).stdout);
    let leaves: Vec<Value> = leaves.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let rows: Vec<Value> = rows.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let id = |what: &str| {
        let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no row `{what}`"));
        let index = row["got"]["receipt"].as_u64().expect("a receipt") as usize;
        leaves[index]["entry"]["id"].as_str().expect("a decision").to_owned()
    };
    let show = |id: &str| text(&interlock(&["receipts", "show", id, "--log", &log]).stdout);
    let holds = |shown: &str, expected: &[&str]| {
        for part in expected {
            assert!(shown.contains(part), "`{part}` in:\n{shown}");
        }
    };

    let (held, approved) = (id("a charge that needs a second person"), id("the same charge, approved"));
    let shown = show(&approved);
    let approval = "ann (operator) at 20";
    holds(&shown, &["PROPOSED", "\"amount\": 200000", "CONSULTED", approval, ": invoice 4711 was checked"]);
    holds(&shown, &["spent 4200, in flight 0, before this request", "DECIDED", "within_limit", "HAPPENED"]);
    holds(&shown, &[&format!("used up        the approvals of hold {held}"), "customer_day: 200000 spent"]);
    holds(&shown, &["the whole message that was decided on", "answer         200, "]);
    let shown = show(&held);
    holds(&shown, &["needs_approval: above 100000 EUR", "none: nothing was sent", "(opened), until 20"]);
    holds(&shown, &["approve        by ann (operator)", &format!("used by        {approved} (PERMIT")]);

    let frozen = show(&id("a charge while payments are frozen"));
    holds(&frozen, &["freeze of surface payments by ann (operator)", "the bank reports an incident"]);
    holds(&frozen, &["not evaluated  frozen"]);
    let after = show(&id("a charge after the freeze"));
    holds(&after, &["nothing in force on this surface and actor"]);
    let isolated = show(&id("any charge by the isolated agent"));
    let canary = id("a charge to a canary customer");
    holds(&isolated, &[&format!("quarantine of surface payments of actor agent-7 by policy in {canary}")]);

    let keyed = show(&id("a charge with an idempotency key"));
    holds(&keyed, &["claimed        idempotency key order-77", "kept answer    200, ", "\"id\":\"ch_"]);

    // What nobody knows is reserved, until an operator says what became of it.
    let lost = id("the upstream dies after reading");
    holds(&show(&lost), &["indeterminate, upstream_silent", "100 reserved until the outcome is reconciled"]);
    let config = std::fs::read_to_string(place.join("interlock.yaml")).expect("a config");
    let running = Running::start(&["run", "--config", &file(&place, "interlock.yaml")], "ready\n");
    let admin = format!("http://{}", address(&config, "admin: { listen: \""));
    let told = interlock(&[
        "reconcile",
        "resolve",
        &lost,
        "--confirmed",
        "--evidence",
        "statement 9",
        "--reason",
        "the bank has it",
        "--admin",
        &admin,
        "--token-file",
        &file(&place, "operator.token"),
    ]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert_eq!(running.stop(), Some(0));
    let shown = show(&lost);
    holds(&shown, &["attested       confirmed by ann (operator)", "evidence: statement 9", "100 spent"]);
}
