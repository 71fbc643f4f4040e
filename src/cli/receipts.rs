//! `interlock receipts`: reads the leaves of a log, for people and for pipes. Verifies nothing but frames.

use std::io::{IsTerminal, StdoutLock, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use interlock::clock::WallTime;
use interlock::merkle::checkpoint::parse_checkpoint_unverified;
use interlock::model::entry::{DecisionEntry, Entry, KeyEvent, OutcomeEntry};
use interlock::model::{Decision, LeafIndex, LogOrigin, ReceiptId, append_line};
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Directory, Source, escape, escape_json};

#[derive(Debug, clap::Args)]
pub struct ReceiptsArgs {
    #[command(subcommand)]
    command: ReceiptsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ReceiptsCommand {
    /// List leaves: a table on a terminal, JSON lines otherwise or with --json
    List(ListArgs),
    /// Show one decision and its outcome
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Only leaves at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<WallTime>,
    /// Only leaves before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<WallTime>,
    /// Only leaves about this actor
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only leaves about this surface
    #[arg(long, value_name = "NAME")]
    surface: Option<String>,
    /// Only decisions with this verdict
    #[arg(long)]
    decision: Option<DecisionName>,
    /// Only leaves of this type
    #[arg(long = "type")]
    leaf_type: Option<TypeName>,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The decision's id, as in `interlock-receipt`
    #[arg(value_name = "ID")]
    id: ReceiptId,
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Print both leaves as JSON lines, exactly as they are in the log when not on a terminal
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DecisionName {
    Permit,
    Deny,
    Silence,
    Escalate,
    Quarantine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TypeName {
    Admin,
    Decision,
    Outcome,
    Refusal,
    Epoch,
    Key,
    Policy,
}

fn parse_time(text: &str) -> Result<WallTime, String> {
    WallTime::parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-11-20T13:00:00Z".into())
}

pub fn run(args: ReceiptsArgs) -> Result<ExitCode> {
    match args.command {
        ReceiptsCommand::List(args) => list(&args),
        ReceiptsCommand::Show(args) => show(&args),
    }
}

fn list(args: &ListArgs) -> Result<ExitCode> {
    let mut out = stdout().lock();
    let table = !args.json && out.is_terminal();
    if table {
        writeln!(out, "{:>8}  {:<27}  {:<8}  {:<13}  ABOUT", "ENTRY", "TIME", "TYPE", "RESULT")?;
    }
    each_leaf(&args.log, |index, bytes, entry| {
        if !args.admits(entry) {
            return Ok(true);
        }
        if table {
            let (time, leaf_type, result, about) = row(entry);
            writeln!(
                out,
                "{:>8}  {:<27}  {leaf_type:<8}  {:<13}  {}",
                index.0,
                escape(time),
                result,
                escape(&about)
            )?;
        } else {
            write_leaf(&mut out, index, bytes)?;
        }
        Ok(true)
    })?;
    Ok(ExitCode::SUCCESS)
}

impl ListArgs {
    fn admits(&self, entry: &Entry) -> bool {
        let seen = Seen::of(entry);
        let time = WallTime::parse_rfc3339(seen.time);
        self.since.is_none_or(|since| time.is_some_and(|t| t >= since))
            && self.until.is_none_or(|until| time.is_some_and(|t| t < until))
            && self.actor.as_deref().is_none_or(|a| seen.actor == Some(a))
            && self.surface.as_deref().is_none_or(|s| seen.surface == Some(s))
            && self.decision.is_none_or(|d| seen.decision == Some(d))
            && self.leaf_type.is_none_or(|t| seen.leaf_type == t)
    }
}

/// What the filters look at.
struct Seen<'e> {
    time: &'e str,
    leaf_type: TypeName,
    actor: Option<&'e str>,
    surface: Option<&'e str>,
    decision: Option<DecisionName>,
}

impl<'e> Seen<'e> {
    fn of(entry: &'e Entry) -> Self {
        let of = |time, leaf_type| Seen { time, leaf_type, actor: None, surface: None, decision: None };
        match entry {
            Entry::Decision(d) => Seen {
                actor: Some(d.actor.id.as_str()),
                surface: Some(d.surface.as_str()),
                decision: Some(match d.decision {
                    Decision::Permit => DecisionName::Permit,
                    Decision::Deny => DecisionName::Deny,
                    Decision::Silence => DecisionName::Silence,
                    Decision::Escalate => DecisionName::Escalate,
                    Decision::Quarantine => DecisionName::Quarantine,
                }),
                ..of(&d.time, TypeName::Decision)
            },
            Entry::Refusal(r) => Seen {
                actor: Some(r.actor.id.as_str()),
                surface: r.surface.as_ref().map(|s| s.as_str()),
                ..of(&r.time, TypeName::Refusal)
            },
            Entry::Outcome(o) => of(&o.time, TypeName::Outcome),
            Entry::Epoch(e) => of(&e.time, TypeName::Epoch),
            Entry::Key(k) => of(&k.time, TypeName::Key),
            Entry::Policy(p) => of(&p.time, TypeName::Policy),
            Entry::Admin(a) => Seen {
                actor: a.actor.as_ref().map(|id| id.as_str()),
                surface: a.surface.as_ref().map(|s| s.as_str()),
                ..of(&a.time, TypeName::Admin)
            },
        }
    }
}

/// Time, type, result and subject of a leaf.
fn row(entry: &Entry) -> (&str, &'static str, String, String) {
    match entry {
        Entry::Decision(d) => {
            let about = format!("{} {}/{} by {}", d.id, d.surface, d.action, d.actor.id);
            (&d.time, "decision", d.decision.as_str().into(), about)
        }
        Entry::Outcome(o) => {
            let cause = o.cause.as_deref().map(|c| format!(" ({c})")).unwrap_or_default();
            let about = format!("{} of entry {}{cause}", o.decision_id, o.decision_index);
            (&o.time, "outcome", o.status.as_str().into(), about)
        }
        Entry::Refusal(r) => {
            let more = if r.suppressed > 0 { format!(", {} more", r.suppressed) } else { String::new() };
            let surface = r.surface.as_ref().map_or("-", |s| s.as_str());
            (
                &r.time,
                "refusal",
                "refused".into(),
                format!("{} on {surface} by {}{more}", r.reason, r.actor.id),
            )
        }
        Entry::Epoch(e) => {
            let event = match e.event {
                interlock::model::entry::EpochEvent::Start => "start",
                interlock::model::entry::EpochEvent::Stop => "stop",
            };
            let after = if e.clean { "" } else { ", after no clean stop" };
            (&e.time, "epoch", event.into(), format!("epoch {}{after}", e.epoch))
        }
        Entry::Key(k) => {
            let event = match k.event {
                KeyEvent::Add => "add",
                KeyEvent::Retire => "retire",
                KeyEvent::Compromised => "compromised",
            };
            (&k.time, "key", event.into(), k.vkey.to_string())
        }
        Entry::Policy(p) => {
            (&p.time, "policy", "active".into(), format!("{} by {}", p.revision, p.activated_by))
        }
        Entry::Admin(a) => {
            let surface = a.surface.iter().map(|s| format!(" surface {s}"));
            let actor = a.actor.iter().map(|id| format!(" actor {id}"));
            let hold = a.hold.iter().map(|id| format!(" hold {id}"));
            let subject: String = surface.chain(actor).chain(hold).collect();
            (&a.time, "admin", a.action.as_str().into(), format!("by {}{subject}: {}", a.by.id, a.reason))
        }
    }
}

fn show(args: &ShowArgs) -> Result<ExitCode> {
    let mut found: Option<(LeafIndex, Vec<u8>, Box<DecisionEntry>)> = None;
    let mut outcome: Option<(LeafIndex, Vec<u8>, Box<OutcomeEntry>)> = None;
    each_leaf(&args.log, |index, bytes, entry| {
        match (entry, &found) {
            (Entry::Decision(d), None) if d.id == args.id => found = Some((index, bytes.to_vec(), d.clone())),
            (Entry::Outcome(o), Some((at, ..))) if o.decision_index == *at => {
                outcome = Some((index, bytes.to_vec(), o.clone()));
            }
            (
                Entry::Admin(_)
                | Entry::Decision(_)
                | Entry::Outcome(_)
                | Entry::Epoch(_)
                | Entry::Key(_)
                | Entry::Policy(_)
                | Entry::Refusal(_),
                _,
            ) => {}
        }
        let done =
            found.as_ref().is_some_and(|(_, _, d)| d.decision != Decision::Permit || outcome.is_some());
        Ok(!done)
    })?;
    let Some((index, bytes, decision)) = found else { bail!("no decision has the id {}", args.id) };
    let mut out = stdout().lock();
    if args.json {
        write_leaf(&mut out, index, &bytes)?;
        if let Some((index, bytes, _)) = &outcome {
            write_leaf(&mut out, *index, bytes)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in decision_lines(index, &decision) {
        writeln!(out, "{name:<14} {}", escape(&value))?;
    }
    match outcome {
        Some((at, _, o)) => {
            for (name, value) in outcome_lines(at, &o) {
                writeln!(out, "{name:<14} {}", escape(&value))?;
            }
        }
        None if decision.decision == Decision::Permit => writeln!(out, "{:<14} none yet", "outcome")?,
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A member that a route keeps out of the log.
fn or_redacted<T: std::fmt::Display>(member: &Option<T>) -> String {
    member.as_ref().map_or_else(|| "(redacted)".into(), T::to_string)
}

fn decision_lines(index: LeafIndex, d: &DecisionEntry) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("decision", d.decision.as_str().to_owned()),
        ("receipt", format!("{} (entry {index}, epoch {})", d.id, d.epoch)),
        ("time", d.time.to_string()),
        ("actor", format!("{} ({})", d.actor.id, d.actor.method.as_str())),
        ("surface", format!("{} / {}", d.surface, d.action)),
        ("request", format!("{} {}", d.request.method, or_redacted(&d.request.target))),
        ("body", format!("{} bytes, {}", d.request.size, or_redacted(&d.request.body_digest))),
        ("digest", or_redacted(&d.request.digest)),
        ("policy", format!("{} at {} ({})", d.policy.package, d.policy.revision, d.policy.engine)),
        ("input", d.evaluation.input_digest.to_string()),
    ];
    lines.extend(d.idempotency_key.as_ref().map(|k| ("idempotency", k.to_string())));
    lines.extend(d.evaluation.cause.as_ref().map(|c| ("not evaluated", c.to_string())));
    for reason in &d.reasons {
        let message = reason.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        lines.push(("reason", format!("{}{message}", reason.code)));
    }
    for item in &d.evaluation.read_set {
        lines.push(("read", format!("{} version {}, {} ms old", item.name, item.version, item.age_ms)));
    }
    lines.extend(d.supersedes.map(|id| ("supersedes", id.to_string())));
    lines.extend(d.trace.as_ref().map(|t| ("trace", t.to_string())));
    lines
}

fn outcome_lines(index: LeafIndex, o: &OutcomeEntry) -> Vec<(&'static str, String)> {
    let cause = o.cause.as_deref().map(|c| format!(", {c}")).unwrap_or_default();
    let mut lines = vec![
        ("outcome", format!("{}{cause} (entry {index})", o.status.as_str())),
        ("settled", format!("{} after {} us", o.time, o.duration_us)),
    ];
    lines.extend(o.sent.as_ref().map(|s| ("sent", format!("{} bytes, {}", s.size, or_redacted(&s.digest)))));
    lines.extend(o.response.as_ref().map(|r| {
        ("answer", format!("{}, {} bytes, {}", r.status_code, r.size, or_redacted(&r.body_digest)))
    }));
    lines
}

/// A leaf as a line, in the form that sinks get: its exact bytes for a program, the same JSON without a terminal's
/// control characters for a person.
fn write_leaf(out: &mut StdoutLock<'_>, index: LeafIndex, bytes: &[u8]) -> Result<()> {
    let mut line = Vec::new();
    append_line(&mut line, index, bytes);
    if out.is_terminal() {
        writeln!(out, "{}", escape_json(String::from_utf8_lossy(&line).trim_end()))?;
    } else {
        out.write_all(&line)?;
    }
    Ok(())
}

/// Gives each leaf to `visit` until it returns false. A damaged log is read up to the damage, then refused.
fn each_leaf(log: &Path, mut visit: impl FnMut(LeafIndex, &[u8], &Entry) -> Result<bool>) -> Result<()> {
    let cannot_read = || format!("cannot read the log in {}", log.display());
    let source = Directory::open(log).with_context(cannot_read)?;
    let origin = log_origin(&source).with_context(cannot_read)?;
    let mut walk = Walk::new(&source, &origin).with_context(cannot_read)?;
    let mut looked_again = None;
    loop {
        match walk.step().with_context(cannot_read)? {
            Step::Frame(frame, spot) => {
                for (index, bytes) in (frame.first.0..).map(LeafIndex).zip(&frame.entries) {
                    // Canonical JSON has none; a line feed between members would make one leaf look like two.
                    if bytes.iter().any(|&byte| byte < b' ') {
                        bail!("entry {index} in {spot} is not canonical JSON; `verify` says more");
                    }
                    let entry = Entry::from_bytes_unverified(bytes).with_context(|| {
                        format!("entry {index} in {spot} is not one this version can read")
                    })?;
                    if !visit(index, bytes, &entry)? {
                        return Ok(());
                    }
                }
            }
            Step::End(_) => return Ok(()),
            Step::Damaged(damage) if damage.may_be_whole_now(&mut looked_again) => {}
            Step::Damaged(damage) if damage.is_torn_tail() => {
                eprintln!("interlock: {}: an unfinished frame, not shown", damage.spot);
                return Ok(());
            }
            Step::Damaged(damage) => bail!("{}: {} (entry {})", damage.spot, damage.fault, damage.index),
        }
    }
}

/// The log's name, as its checkpoint says: the frames of a log of another name do not chain from it.
fn log_origin(source: &Directory) -> Result<LogOrigin> {
    let note = source.checkpoint()?.context("there is no checkpoint")?;
    Ok(parse_checkpoint_unverified(&note)?.origin)
}
