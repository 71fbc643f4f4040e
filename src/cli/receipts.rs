//! `interlock receipts`: reads the leaves of a log, for people and for pipes. Verifies nothing but frames.

mod explain;
mod story;

use std::io::{IsTerminal, StdoutLock, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use interlock::clock::WallTime;
use interlock::merkle::checkpoint::parse_checkpoint_unverified;
use interlock::merkle::frame::Evidence;
use interlock::model::entry::{Entry, KeyEvent};
use interlock::model::{Decision, LeafIndex, LogOrigin, ReceiptId, append_line};
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Directory, Source, escape, escape_json};
use story::Listener;

#[derive(Debug, clap::Args)]
pub struct ReceiptsArgs {
    #[command(subcommand)]
    command: ReceiptsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ReceiptsCommand {
    /// List leaves: a table on a terminal, JSON lines otherwise or with --json
    List(ListArgs),
    /// Show what was proposed, consulted and decided, and what happened
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
    /// Print its leaf and those of its outcomes as JSON lines, exactly as they are in the log when not on a terminal
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
    Heartbeat,
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
        writeln!(out, "{:>8}  {:<27}  {:<9}  {:<13}  ABOUT", "ENTRY", "TIME", "TYPE", "RESULT")?;
    }
    each_leaf(&args.log, |index, bytes, entry, _evidence| {
        if !args.admits(entry) {
            return Ok(true);
        }
        if table {
            let (time, leaf_type, result, about) = row(entry);
            writeln!(
                out,
                "{:>8}  {:<27}  {leaf_type:<9}  {:<13}  {}",
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
            Entry::Heartbeat(h) => of(&h.time, TypeName::Heartbeat),
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
        Entry::Heartbeat(h) => {
            let about = format!("nothing else for {} s, after {} leaves", h.every_s, h.previous.size);
            (&h.time, "heartbeat", "alive".into(), about)
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
    let mut listener = Listener::new(args.id);
    each_leaf(&args.log, |index, bytes, entry, evidence| Ok(listener.hear(index, bytes, entry, evidence)))?;
    let Some(story) = listener.finish() else { bail!("no decision has the id {}", args.id) };
    let mut out = stdout().lock();
    if !args.json {
        write!(out, "{}", explain::explain(&story))?;
        return Ok(ExitCode::SUCCESS);
    }
    write_leaf(&mut out, story.decision.index, &story.decision.bytes)?;
    for outcome in story.outcome.iter().chain(&story.attested) {
        write_leaf(&mut out, outcome.index, &outcome.bytes)?;
    }
    Ok(ExitCode::SUCCESS)
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

/// Gives each leaf, and the evidence of its frame, to `visit` until it returns false. A damaged log is read up to the damage, then refused.
fn each_leaf(
    log: &Path,
    mut visit: impl FnMut(LeafIndex, &[u8], &Entry, &[Evidence<'_>]) -> Result<bool>,
) -> Result<()> {
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
                    if !visit(index, bytes, &entry, &frame.evidence)? {
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
