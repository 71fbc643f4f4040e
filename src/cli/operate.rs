//! `interlock approvals`, `freeze`, `unfreeze`, `quarantines` and `reconcile`: operating a running gateway, over its
//! admin listener.
//!
//! Exit codes: 0 done, or so already; 1 the gateway was not reached, or did not answer; 2 the command line is wrong;
//! 3 the gateway refused whoever asks (401, 403, 421); 4 there is no such thing, or it cannot be done any more (404,
//! 409); 5 the gateway cannot now (429, 5xx); 6 it refused for any other reason.

mod client;
pub(super) mod show;

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use interlock::model::{ActorId, Digest, Json, ReceiptId, SurfaceName};

use client::{AdminArgs, Answer};

#[derive(Debug, Args)]
pub struct ApprovalsArgs {
    #[command(subcommand)]
    command: ApprovalsCommand,
}

#[derive(Debug, Subcommand)]
enum ApprovalsCommand {
    /// List the requests that are held for people
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Show one of them: the request, why policy holds it, who has approved
    Show {
        /// The hold's id
        id: ReceiptId,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Approve one, for one execution
    Approve(WordArgs),
    /// Refuse one, until it would have expired
    Refuse(WordArgs),
}

#[derive(Debug, Args)]
struct WordArgs {
    /// The hold's id
    id: ReceiptId,
    /// Why; it stands in the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Exactly one scope.
#[derive(Debug, Args)]
pub struct FreezeArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Why; it stands in the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScopeArgs {
    /// Everything
    #[arg(long)]
    all: bool,
    /// One surface
    #[arg(long, value_name = "NAME")]
    surface: Option<SurfaceName>,
    /// One actor, on every surface
    #[arg(long, value_name = "ID")]
    actor: Option<ActorId>,
}

#[derive(Debug, Args)]
pub struct QuarantinesArgs {
    #[command(subcommand)]
    command: QuarantinesCommand,
}

#[derive(Debug, Subcommand)]
enum QuarantinesCommand {
    /// List what is frozen and who is quarantined
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Isolate an actor on a surface
    Add(ActorArgs),
    /// Release an actor on a surface
    Release(ActorArgs),
}

#[derive(Debug, Args)]
struct ActorArgs {
    #[arg(long, value_name = "NAME")]
    surface: SurfaceName,
    #[arg(long, value_name = "ID")]
    actor: ActorId,
    /// Why; it stands in the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct ReconcileArgs {
    #[command(subcommand)]
    command: ReconcileCommand,
}

#[derive(Debug, Subcommand)]
enum ReconcileCommand {
    /// List the outcomes that are not known
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Say what became of one, once and for all
    Resolve(ResolveArgs),
}

#[derive(Debug, Args)]
struct ResolveArgs {
    /// The id of the PERMIT
    id: ReceiptId,
    #[command(flatten)]
    became: BecameArgs,
    /// Where it can be looked up: a ticket, a transaction's id
    #[arg(long)]
    evidence: String,
    /// Why; it stands in the log
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct BecameArgs {
    /// It took effect
    #[arg(long)]
    confirmed: bool,
    /// It did not
    #[arg(long)]
    failed: bool,
}

pub fn approvals(args: &ApprovalsArgs) -> Result<ExitCode> {
    match &args.command {
        ApprovalsCommand::List { admin } => print(admin, &list(admin, "/holds")?, show::holds),
        ApprovalsCommand::Show { id, admin } => {
            print(admin, &admin.get(&format!("/holds/{id}"))?, show::hold)
        }
        ApprovalsCommand::Approve(word) => word.say("approve"),
        ApprovalsCommand::Refuse(word) => word.say("refuse"),
    }
}

impl WordArgs {
    fn say(&self, what: &str) -> Result<ExitCode> {
        let body = Json::object([("reason", Json::string(&self.reason))]);
        change(&self.admin, &format!("/holds/{}/{what}", self.id), &body)
    }
}

pub fn freeze(args: &FreezeArgs) -> Result<ExitCode> {
    args.send("/freeze")
}

pub fn unfreeze(args: &FreezeArgs) -> Result<ExitCode> {
    args.send("/unfreeze")
}

impl FreezeArgs {
    fn send(&self, path: &str) -> Result<ExitCode> {
        let scope = match (&self.scope.surface, &self.scope.actor) {
            (Some(surface), _) => ("surface", Json::string(surface.as_str())),
            (None, Some(actor)) => ("actor", Json::string(actor.as_str())),
            (None, None) => ("all", Json::Bool(self.scope.all)),
        };
        change(&self.admin, path, &Json::object([scope, ("reason", Json::string(&self.reason))]))
    }
}

#[derive(Debug, Args)]
pub struct PolicyReloadArgs {
    /// Why; it stands in the log
    #[arg(long)]
    reason: String,
    /// The revision (as `policy inspect` prints it) that may be activated although a newer one was active
    #[arg(long, value_name = "REVISION")]
    older: Option<Digest>,
    #[command(flatten)]
    admin: AdminArgs,
}

pub fn reload_policy(args: &PolicyReloadArgs) -> Result<ExitCode> {
    let reason = ("reason", Json::string(&args.reason));
    let body = match args.older {
        Some(revision) => Json::object([("older", Json::string(&revision.to_string())), reason]),
        None => Json::object([reason]),
    };
    change(&args.admin, "/policy/reload", &body)
}

pub fn quarantines(args: &QuarantinesArgs) -> Result<ExitCode> {
    match &args.command {
        QuarantinesCommand::List { admin } => {
            print(admin, &list(admin, "/restrictions")?, show::restrictions)
        }
        QuarantinesCommand::Add(actor) => actor.send("/quarantine"),
        QuarantinesCommand::Release(actor) => actor.send("/release"),
    }
}

impl ActorArgs {
    fn send(&self, path: &str) -> Result<ExitCode> {
        let body = Json::object([
            ("actor", Json::string(self.actor.as_str())),
            ("reason", Json::string(&self.reason)),
            ("surface", Json::string(self.surface.as_str())),
        ]);
        change(&self.admin, path, &body)
    }
}

pub fn reconcile(args: &ReconcileArgs) -> Result<ExitCode> {
    match &args.command {
        ReconcileCommand::List { admin } => print(admin, &list(admin, "/outcomes/unknown")?, show::unknown),
        ReconcileCommand::Resolve(resolve) => {
            let ResolveArgs { id, became, evidence, reason, admin } = resolve;
            let body = Json::object([
                ("evidence", Json::string(evidence)),
                ("reason", Json::string(reason)),
                ("status", Json::string(if became.confirmed { "confirmed" } else { "failed" })),
            ]);
            change(admin, &format!("/outcomes/{id}/resolve"), &body)
        }
    }
}

/// Every page of a list, as one.
fn list(admin: &AdminArgs, path: &str) -> Result<Answer> {
    let (mut items, mut query) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("{path}{query}"))?;
        let of = |name| page.body.as_object().and_then(|list| list.member(name));
        if let (200, Some(Json::Array(more))) = (page.status, of("items")) {
            items.extend(more.iter().cloned());
        } else {
            return Ok(page);
        }
        match (of("next"), of("total")) {
            (Some(Json::Number(next)), _) => {
                query = format!("?after={}", next.as_exact_i64().context("`next` is no index")?);
            }
            (_, total) => {
                let total = total.cloned().context("a list without its `total`")?;
                let body = Json::object([("items", Json::Array(items)), ("total", total)]);
                return Ok(Answer { status: page.status, body });
            }
        }
    }
}

fn change(admin: &AdminArgs, path: &str, body: &Json) -> Result<ExitCode> {
    print(admin, &admin.post(path, body)?, show::done)
}

fn print(admin: &AdminArgs, answer: &Answer, shown: impl Fn(&Json) -> String) -> Result<ExitCode> {
    let is_done = (200..300).contains(&answer.status);
    if admin.json {
        write!(stdout(), "{}", show::raw(&answer.body))?;
    } else if is_done {
        write!(stdout(), "{}", shown(&answer.body))?;
    } else {
        eprintln!("interlock: {}", show::problem(answer.status, &answer.body));
    }
    Ok(ExitCode::from(exit_code(answer.status)))
}

const fn exit_code(status: u16) -> u8 {
    match status {
        200..=299 => 0,
        401 | 403 | 421 => 3,
        404 | 409 => 4,
        429 | 500..=599 => 5,
        _others => 6,
    }
}
