//! How often each thing that a simulation is about did happen: one that never does is not tested.

use std::collections::BTreeMap;

use super::auditor::{Auditor, Permitted};
use super::journal::{Conduct, How, What};
use super::log::Leaf;

pub type Coverage = BTreeMap<&'static str, u64>;

/// Everything that has to happen.
pub const ALL: &[&str] = &[
    "a clock is set back",
    "a clock is set forward",
    "a clock that was set decides nothing",
    "a client goes before its answer",
    "a credential ends between proof and first byte",
    "a freeze comes between evaluation and first byte",
    "a hold expires",
    "a key is used for other bytes",
    "a key is used while its request runs",
    "a key's answer is given again",
    "a message breaks off halfway",
    "a permit grows old before its first byte",
    "a poisoned log ends the process",
    "a process is killed with a permit open",
    "a reload comes between evaluation and first byte",
    "a reply is lost",
    "a retry after an outcome that nobody knows",
    "a start after a stop in order",
    "a torn frame is set aside",
    "a turn for a budget is judged again",
    "a waiting request is released by an approval",
    "an actor is quarantined by policy",
    "an actor's proof is outdated between evaluation and first byte",
    "an answer is cut",
    "an answer stalls",
    "an approval ends before it is used",
    "an approval is consumed",
    "an approval is given back by what was not sent",
    "an evaluation takes too long",
    "an operator refuses a hold",
    "an outcome is abandoned",
    "an outcome is recovered",
    "an outcome that nobody knew is settled later",
    "the budget is exhausted",
    "the connection is half open",
    "the disk is full",
    "the read set moves too often",
    "the upstream refuses",
    "the upstream restarts under an exchange",
    "the upstream takes no connection",
    "what was superseded is permitted again",
];

pub fn of(auditor: &Auditor<'_>) -> Coverage {
    let mut counts = Coverage::new();
    let mut count = |name: &'static str, times: usize| {
        assert!(ALL.contains(&name), "{name}");
        *counts.entry(name).or_default() += times as u64;
    };
    of_leaves(auditor, &mut count);
    of_permits(auditor, &mut count);
    of_journal(auditor, &mut count);
    counts
}

fn of_leaves(auditor: &Auditor<'_>, count: &mut impl FnMut(&'static str, usize)) {
    for leaf in auditor.leaves {
        let code = leaf.json.pointer("/reasons/0/code").and_then(|code| code.as_str()).unwrap_or_default();
        match (leaf.text(&["type"]), leaf.text(&["decision"]).or(leaf.text(&["action"])), code) {
            (Some("decision"), Some("SILENCE"), "clock_stepped") => {
                count("a clock that was set decides nothing", 1)
            }
            (Some("decision"), Some("SILENCE"), "read_set_moved") => count("the read set moves too often", 1),
            (Some("decision"), Some("SILENCE"), "evaluation_timeout") => {
                count("an evaluation takes too long", 1)
            }
            (Some("decision"), Some("QUARANTINE"), "trap") => count("an actor is quarantined by policy", 1),
            (Some("decision"), Some("DENY"), "budget") => count("the budget is exhausted", 1),
            (Some("decision"), Some("DENY"), "hold_refused") => count("an operator refuses a hold", 1),
            (Some("admin"), Some("expire"), _) => count("a hold expires", 1),
            _ => {}
        }
        match leaf.text(&["reason"]) {
            Some("idempotency_key_reused") => count("a key is used for other bytes", 1),
            Some("idempotency_running") => count("a key is used while its request runs", 1),
            Some("idempotency_unknown") => count("a retry after an outcome that nobody knows", 1),
            _ => {}
        }
        let attempt = leaf.input.as_ref().and_then(|input| input.pointer("/context/attempt")?.as_u64());
        let is_first = leaf.text(&["supersedes"]).is_none();
        count("a turn for a budget is judged again", usize::from(attempt > Some(1) && is_first));
        let torn = leaf.json.get("torn_bytes").and_then(serde_json::Value::as_u64);
        count("a torn frame is set aside", usize::from(torn > Some(0)));
    }
}

fn of_permits(auditor: &Auditor<'_>, count: &mut impl FnMut(&'static str, usize)) {
    for permit in &auditor.permits {
        let cause = permit.outcome.and_then(|outcome| outcome.leaf.text(&["cause"])).unwrap_or_default();
        let is_superseded = permit.status() == "not_sent" && cause == "superseded";
        count("an outcome is abandoned", usize::from(cause == "abandoned"));
        count("an outcome is recovered", usize::from(cause == "recovered"));
        count("an answer is cut", usize::from(cause == "answer_cut"));
        count("an outcome that nobody knew is settled later", usize::from(permit.attested.is_some()));
        count("the upstream refuses", usize::from(permit.status() == "failed"));
        count(
            "what was superseded is permitted again",
            usize::from(permit.leaf.text(&["supersedes"]).is_some()),
        );
        let is_part = permit.message.is_some_and(|n| !auditor.messages[n].is_whole);
        count("a message breaks off halfway", usize::from(is_part));
        let is_approved = permit.leaf.text(&["approved_hold"]).is_some();
        count("an approval is consumed", usize::from(is_approved && permit.message.is_some()));
        count(
            "an approval is given back by what was not sent",
            usize::from(is_approved && permit.status() == "not_sent"),
        );
        if is_superseded {
            since(auditor, permit, count);
        }
    }
}

/// What happened between a PERMIT's reservation and its outcome.
fn since(auditor: &Auditor<'_>, permit: &Permitted<'_>, count: &mut impl FnMut(&'static str, usize)) {
    let Some((from, _)) = permit.reserved else { return };
    let to = permit.outcome.and_then(|outcome| outcome.leaf.durable).unwrap_or(auditor.happened.len());
    let between = &auditor.happened[from..to];
    let any =
        |is_it: &dyn Fn(&What) -> bool| usize::from(between.iter().any(|happened| is_it(&happened.what)));
    count(
        "a freeze comes between evaluation and first byte",
        any(&|what| matches!(what, What::FreezeReturned(_))),
    );
    count("a reload comes between evaluation and first byte", any(&|what| matches!(what, What::InForce(_))));
    let moved = any(&|what| matches!(what, What::IdentityMoved));
    count("an actor's proof is outdated between evaluation and first byte", moved);
    let durable = permit.leaf.durable.map(|place| auditor.happened[place].at);
    let waited = durable.zip(permit.reserved).map(|(durable, (_, reserved))| durable - reserved);
    count(
        "a permit grows old before its first byte",
        usize::from(waited > Some(super::script::PERMIT_AGE_MAX)),
    );
    let wish = auditor.script.wishes.iter().find(|wish| super::auditor::digest_of(wish) == permit.digest);
    let end = wish.and_then(|wish| wish.credential_ends);
    let walls = between
        .iter()
        .map(|happened| happened.wall.unix_ns() - super::world::START.unix_ns().min(happened.wall.unix_ns()));
    let last = walls.max().unwrap_or_default();
    let has_ended = end.is_some_and(|end| u128::from(last) >= end.as_nanos());
    count("a credential ends between proof and first byte", usize::from(has_ended));
    let until = permit.leaf.text(&["approved_hold"]).and_then(|hold| {
        let opened = auditor.leaves.iter().find(|leaf: &&Leaf| leaf.text(&["id"]) == Some(hold))?;
        opened.text(&["hold", "until"]).map(super::log::unix_ns)
    });
    let walls = between.iter().map(|happened| i128::from(happened.wall.unix_ns()));
    let has_ended = until.is_some_and(|until| walls.max() >= Some(until));
    count("an approval ends before it is used", usize::from(has_ended));
}

fn of_journal(auditor: &Auditor<'_>, count: &mut impl FnMut(&'static str, usize)) {
    let mut wrong = 0;
    let mut has_run = None;
    for (place, happened) in auditor.happened.iter().enumerate() {
        match &happened.what {
            What::ClockIs(now) => {
                count("a clock is set back", usize::from(*now < wrong));
                count("a clock is set forward", usize::from(*now > wrong));
                wrong = *now;
            }
            What::Executed(_, Conduct::LosesReply) => count("a reply is lost", 1),
            What::Executed(_, Conduct::Silent) => count("the connection is half open", 1),
            What::Executed(_, Conduct::Stalls) => count("an answer stalls", 1),
            What::Gone { .. } => count("a client goes before its answer", 1),
            What::Scripted(super::script::Event::Restart(_)) => {
                let runs = |permit: &&Permitted<'_>| {
                    let began = permit.message.map(|n| auditor.messages[n].first);
                    let ended = permit.outcome.and_then(|outcome| outcome.leaf.durable);
                    began.is_some_and(|began| began < place) && ended.is_none_or(|ended| ended > place)
                };
                count("the upstream restarts under an exchange", auditor.permits.iter().filter(runs).count());
            }
            What::Ended(How::Poisoned) => count("a poisoned log ends the process", 1),
            What::Ended(How::Killed(_)) => {
                let is_open = |permit: &&Permitted<'_>| {
                    let ended = permit.outcome.and_then(|outcome| outcome.leaf.durable);
                    permit.leaf.durable.is_some_and(|durable| durable < place)
                        && ended.is_none_or(|ended| ended > place)
                };
                count(
                    "a process is killed with a permit open",
                    auditor.permits.iter().filter(is_open).count(),
                );
            }
            What::Started => {
                count("a start after a stop in order", usize::from(has_run == Some(How::Stopped)))
            }
            What::Answered(told) => match told.reason.as_deref() {
                Some("upstream_unreachable") => count("the upstream takes no connection", 1),
                Some("ledger_full") => count("the disk is full", 1),
                _ => count("a key's answer is given again", usize::from(told.is_replayed)),
            },
            _ => {}
        }
        if let What::Ended(how) = &happened.what {
            has_run = Some(*how);
        }
        if let What::Scripted(super::script::Event::Ask(ask)) = &happened.what
            && ask.wait.is_some()
        {
            // Asked once, held, approved while it waited, sent.
            let is_released = |permit: &&Permitted<'_>| {
                let wish = super::auditor::digest_of(&auditor.script.wishes[ask.wish]);
                permit.digest == wish && permit.leaf.text(&["approved_hold"]).is_some()
            };
            count(
                "a waiting request is released by an approval",
                auditor.permits.iter().filter(is_released).count(),
            );
        }
    }
}
