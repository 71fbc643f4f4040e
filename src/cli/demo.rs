//! `interlock demo`: the real gateway with its real log on loopback, an upstream behind it, an agent in front and an
//! operator at the admin listener.
//!
//! Agent and operator send what `script` lists; each request is shown with what was expected and what came. Then the
//! gateway stops, its log is verified with the code of `interlock verify` and replayed, PERMITs are held against what reached
//! the upstream, and one flipped bit in a copy of the log has to be found. Exit code 0: all of it was as expected.

mod agent;
mod embedded;
mod place;
mod script;
mod show;

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use zeroize::Zeroizing;

use super::sample_api::SampleApi;
use agent::Answer;
use interlock::clock::Clock;
use interlock::config::{Config, Surroundings};
use interlock::gateway::{Gateway, StartError, Stopped};
use interlock::redaction::Disclosures;
use interlock::replay::{Replayer, Selection, Under, WhyNot};
use interlock::verify::{Directory, Report, verify_log};
use place::{Addresses, Place};
use script::{Act, Step};
use show::{Check, Observed, Show};

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Keep everything in this directory, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print JSON lines instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Something was not as expected.
const DIFFERED: u8 = 1;
/// The gateway settles what it answered a moment later.
const SETTLE_POLL: Duration = Duration::from_millis(5);
const SETTLE_POLLS_MAX: u32 = 1_000;
/// A port that was free may be taken by the time it is used.
const START_ATTEMPTS_MAX: u32 = 5;

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let clock = Clock::system();
    let began = clock.monotonic();
    let show = Show::new(args.json);
    let place = Place::make(args.dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let played = runtime.block_on(play(&place, &show, &clock))?;

    let report = verify_log(&Directory::open(&place.file("ledger"))?, &place.verifier)?;
    let checks = [
        Check {
            name: "stop",
            passed: played.stopped == Stopped::Clean,
            found: format!("the gateway stopped: {:?}", played.stopped),
        },
        verified(&report),
        Check {
            name: "no PERMIT, no execution",
            passed: report.permits == played.arrived && report.open_count == 0,
            found: format!(
                "{} PERMITs in the log, {} requests reached the upstream, {} without an outcome",
                report.permits, played.arrived, report.open_count
            ),
        },
        replayed(&place)?,
        tampered(&place)?,
    ];
    show.checks(&checks)?;
    let passed = played.as_expected && checks.iter().all(|check| check.passed);
    let next = match place.is_temporary() {
        true => vec![format!("To keep config, keys and log: {} demo --dir DIR", program())],
        false => next_commands(&place, &played),
    };
    show.end(passed, played.rows, clock.monotonic().since(began).as_secs_f64(), &next)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(DIFFERED) })
}

struct Played {
    addresses: Addresses,
    rows: usize,
    as_expected: bool,
    /// Id of the receipt of the charge that was approved.
    approved: Option<String>,
    arrived: u64,
    stopped: Stopped,
}

async fn play(place: &Place, show: &Show, clock: &Clock) -> Result<Played> {
    let secret = Zeroizing::new(place.upstream_secret.clone());
    let api = SampleApi::start(loopback(0), Some(secret), None).await.context("the sample API")?;
    let (gateway, addresses) = start(place, api.address(), clock).await?;
    show.head(&format!(
        "gateway on http://{}, upstream on http://{}",
        addresses.gateway, addresses.upstream
    ))?;
    let steps = script::steps(&place.agent_key);
    let mut stage = Stage { place, addresses: &addresses, hold: None, approved: None, last: Vec::new() };
    let mut as_expected = true;
    for (number, step) in (1..).zip(&steps) {
        stage.settled().await?;
        let before = api.arrivals();
        let mut got = stage.act(step).await.context(step.what)?;
        got.arrived = api.arrivals() - before;
        as_expected &= got.is(&step.expected);
        show.row(number, step, &got)?;
    }
    let approved = stage.approved;
    let stopped = gateway.stop().await;
    Ok(Played { addresses, rows: steps.len(), as_expected, approved, arrived: api.arrivals(), stopped })
}

/// Where agent and operator act.
struct Stage<'p> {
    place: &'p Place,
    addresses: &'p Addresses,
    /// The hold that was opened last.
    hold: Option<String>,
    /// The PERMIT after an operator's approval.
    approved: Option<String>,
    /// Body of the answer before.
    last: Vec<u8>,
}

impl Stage<'_> {
    /// Everything but what arrived.
    async fn act(&mut self, step: &Step) -> Result<Observed> {
        match &step.act {
            Act::Ask(bytes) => {
                let answer = agent::send(self.addresses.gateway, bytes).await?;
                let mut got = observed(&answer);
                got.replayed &= answer.body == self.last;
                if got.status == 200 && self.hold.is_some() && self.approved.is_none() {
                    self.approved = receipt_member(&answer, "id").map(|id| id.trim_matches('"').to_owned());
                }
                if let Some(hold) = problem(&answer)["hold"]["id"].as_str() {
                    self.hold = Some(hold.to_owned());
                }
                self.last = answer.body;
                Ok(got)
            }
            Act::AskAtOnce(bytes, times) => {
                let all = (0..*times).map(|_| agent::send(self.addresses.gateway, bytes));
                let answers: Vec<_> = try_join_all(all).await?.iter().map(observed).collect();
                Ok(together(&answers))
            }
            Act::Operate { path, body } => {
                let hold = self.hold.as_deref().unwrap_or_default();
                let answer = self.operate(&path.replace("{hold}", hold), body).await?;
                let done: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let receipt = done["receipt"]["entry"].as_u64();
                Ok(Observed { receipt, ..observed(&answer) })
            }
        }
    }

    /// What was answered has its outcome in the log, so that the next row does not depend on time.
    async fn settled(&self) -> Result<()> {
        for _ in 0..SETTLE_POLLS_MAX {
            let metrics = self.admin("GET /metrics", "", "").await?;
            let text = String::from_utf8_lossy(&metrics.body);
            if text.lines().any(|line| line == "interlock_ledger_open_permits 0") {
                return Ok(());
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
        bail!("a permitted request has no outcome")
    }

    async fn operate(&self, path: &str, body: &str) -> Result<Answer> {
        let token = &self.place.operator_token;
        let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
        self.admin(&format!("POST {path}"), &headers, body).await
    }

    async fn admin(&self, line: &str, headers: &str, body: &str) -> Result<Answer> {
        let admin = self.addresses.admin;
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n{headers}");
        let request = format!("{head}content-length: {length}\r\n\r\n{body}");
        agent::send(admin, request.as_bytes()).await
    }
}

/// Requests that were sent at once: how many were permitted, and why all others were not.
fn together(answers: &[Observed]) -> Observed {
    let is_permitted = |got: &&Observed| got.status == 200 && got.decision.as_deref() == Some("PERMIT");
    let permitted = answers.iter().filter(is_permitted).count();
    let mut reasons: Vec<_> = answers
        .iter()
        .filter(|got| !is_permitted(got))
        .map(|got| got.reason.clone().unwrap_or_else(|| got.status.to_string()))
        .collect();
    reasons.sort();
    reasons.dedup();
    Observed {
        status: 200,
        decision: Some("PERMIT".to_owned()),
        reason: (!reasons.is_empty()).then(|| reasons.join(", ")),
        permitted: Some(permitted),
        ..Observed::default()
    }
}

async fn start(place: &Place, upstream: SocketAddr, clock: &Clock) -> Result<(Gateway, Addresses)> {
    for _ in 0..START_ATTEMPTS_MAX {
        let [gateway, admin, nobody] = free_addresses()?;
        let addresses = Addresses { gateway, admin, upstream, nobody };
        let file = place.configure(&addresses)?;
        let config = Config::load(&file, Surroundings::of_process(clock))?;
        match Gateway::start(config, clock.clone()).await {
            Ok(running) => return Ok((running, addresses)),
            Err(StartError::Listen { .. }) => {}
            Err(error) => return Err(error).context("the gateway did not start"),
        }
    }
    bail!("no free ports on loopback")
}

/// Three that nobody listens on now; bound at once, so that they differ.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    let bind = || TcpListener::bind(loopback(0));
    let sockets = [bind()?, bind()?, bind()?];
    Ok([sockets[0].local_addr()?, sockets[1].local_addr()?, sockets[2].local_addr()?])
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A member of the receipt header.
fn receipt_member<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let receipt = answer.header("interlock-receipt")?;
    receipt.split(", ").find_map(|m| m.strip_prefix(name)?.strip_prefix('='))
}

/// Null if the answer is none.
fn problem(answer: &Answer) -> serde_json::Value {
    let is_problem = answer.header("content-type") == Some("application/problem+json");
    Some(())
        .filter(|()| is_problem)
        .and_then(|()| serde_json::from_slice(&answer.body).ok())
        .unwrap_or_default()
}

/// What the answer says: its status, its receipt header, and if it is a problem, the reason.
fn observed(answer: &Answer) -> Observed {
    let problem = problem(answer);
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Observed {
        status: answer.status,
        decision: receipt_member(answer, "decision").map(str::to_owned),
        reason: text(&problem["reasons"][0]["code"]).or_else(|| text(&problem["reason"])),
        outcome: text(&problem["outcome"]),
        receipt: receipt_member(answer, "index").and_then(|index| index.parse().ok()),
        arrived: 0,
        streamed: answer.header("content-type") == Some("text/event-stream") && answer.pieces > 1,
        replayed: answer.header("interlock-replayed") == Some("true"),
        permitted: None,
    }
}

fn verified(report: &Report) -> Check {
    let found = match report.problems.first() {
        None => format!("{} leaves, {} decisions, root {}", report.size, report.decisions, report.root),
        Some(problem) => format!("{problem:?}"),
    };
    Check { name: "log verified against log.vkey", passed: report.passed(), found }
}

/// Every decision again, from what the log holds.
fn replayed(place: &Place) -> Result<Check> {
    let replayer = Replayer {
        trust: place.verifier.clone().into(),
        selection: Selection::All,
        under: Under::Recorded,
        disclosures: Disclosures::default(),
        accept_engine: false,
        threads: NonZeroUsize::MIN,
    };
    let report = replayer.run(&Directory::open(&place.file("ledger"))?, |_| {})?;
    let found = format!("replayed {} of {} decisions exactly", report.exact, report.decisions);
    // A time-out is no verdict of policy: a busy machine may have one.
    let timed_out = report.not_replayed.get(&WhyNot::NotEvaluated).copied().unwrap_or(0);
    let passed =
        report.problem_count == 0 && report.exact > 0 && report.exact + timed_out == report.decisions;
    Ok(Check { name: "decisions replayed from the log", passed, found })
}

/// One bit of one verdict, in a copy of the log.
fn tampered(place: &Place) -> Result<Check> {
    let copy = place.copy_log("tampered")?;
    let changed = flip(&copy.join("frames"));
    let report = changed.and_then(|_| Ok(verify_log(&Directory::open(&copy)?, &place.verifier)?));
    fs::remove_dir_all(&copy)?;
    let report = report?;
    let named = report.problems.iter().find(|p| p.file.is_some() && p.index.is_some());
    let found = match named {
        Some(p) => format!(
            "found at entry {}, {}, offset {}: {}",
            p.index.map_or(0, |index| index.0),
            p.file.as_deref().unwrap_or_default(),
            p.offset.unwrap_or_default(),
            p.what
        ),
        None => "not found".to_owned(),
    };
    Ok(Check {
        name: "one bit flipped in a copy of the log",
        passed: !report.passed() && named.is_some(),
        found,
    })
}

/// The first DENY becomes something else.
fn flip(frames: &Path) -> Result<()> {
    const WANTED: &[u8] = br#""decision":"DENY""#;
    for entry in fs::read_dir(frames)? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        if let Some(at) = bytes.windows(WANTED.len()).position(|window| window == WANTED) {
            let offset = at + WANTED.len() - "DENY\"".len();
            let file = OpenOptions::new().write(true).open(&path)?;
            return Ok(file.write_all_at(&[bytes[offset] ^ 1], offset as u64)?);
        }
    }
    bail!("the log holds no DENY to change")
}

/// What works on the directory that is left.
fn next_commands(place: &Place, played: &Played) -> Vec<String> {
    let program = program();
    let addresses = &played.addresses;
    let show = |id: &String| {
        format!(
            "  {program} receipts show {id} --log {}",
            quoted(&place.file("ledger").display().to_string())
        )
    };
    let file = |name: &str| quoted(&place.file(name).display().to_string());
    vec![
        "What you can do now:".to_owned(),
        format!("  {program} verify --log {} --key {}", file("ledger"), file("log.vkey")),
        format!("  {program} replay --log {} --key {}", file("ledger"), file("log.vkey")),
        played.approved.as_ref().map(show).unwrap_or_default(),
        format!(
            "  {program} sample-api --listen {} --secret {} &",
            addresses.upstream,
            file("upstream.secret")
        ),
        format!("  {program} run --config {} &", file("interlock.yaml")),
        format!(
            "  curl -i http://{}/v1/charges -H \"x-api-key: $(cat {})\" -H 'content-type: application/json' \\",
            addresses.gateway,
            file("agent.key")
        ),
        r#"    -d '{"amount":4200,"currency":"EUR","customer":"cus_1"}'     (600000 is refused)"#.to_owned(),
    ]
}

/// As it was called.
fn program() -> String {
    std::env::args().next().map_or_else(|| "interlock".to_owned(), |name| quoted(&name))
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_for_its_receipt_and_reason() {
        let answer = Answer {
            status: 403,
            headers: vec![
                ("content-type".into(), "application/problem+json".into()),
                ("interlock-receipt".into(), "id=\"x\", index=7, size=8, leaf=:a=:, decision=DENY".into()),
            ],
            body: br#"{"reason":"policy_denied","reasons":[{"code":"over_limit"}]}"#.to_vec(),
            pieces: 1,
        };
        let got = observed(&answer);
        assert_eq!((got.status, got.receipt), (403, Some(7)));
        assert_eq!((got.decision.as_deref(), got.reason.as_deref()), (Some("DENY"), Some("over_limit")));
    }

    #[test]
    fn of_requests_at_once_every_reason_is_seen() {
        let got = |status, decision: &str, reason: Option<&str>| Observed {
            status,
            decision: Some(decision.to_owned()),
            reason: reason.map(str::to_owned),
            ..Observed::default()
        };
        let (permit, deny) = (got(200, "PERMIT", None), got(403, "DENY", Some("over_budget")));
        let all = together(&[permit.clone(), deny.clone(), permit, deny.clone()]);
        assert_eq!((all.permitted, all.reason.as_deref()), (Some(2), Some("over_budget")));
        let mixed = together(&[deny, got(504, "PERMIT", None)]);
        assert_eq!((mixed.permitted, mixed.reason.as_deref()), (Some(0), Some("504, over_budget")));
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        assert_eq!(quoted("/tmp/demo-1"), "/tmp/demo-1");
        assert_eq!(quoted("/tmp/it's here"), r"'/tmp/it'\''s here'");
    }
}
