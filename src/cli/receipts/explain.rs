//! One decision for an auditor: what was proposed, what was consulted, what decided, and what happened.
//!
//! Every line is escaped: agents, upstreams and operators wrote what stands in it. What a route keeps out of the log
//! is marked as redacted, and not guessed.

use std::fmt::Write as _;

use interlock::model::entry::{AttestedBy, DecisionEntry, EvaluationStatus, Mode, OutcomeEntry, SettledAs};
use interlock::model::{Decision, Digest, Json, Object, OutcomeStatus, PolicyReason, ReadItem, Settled};
use interlock::redaction::{REDACTED, marked};
use interlock::verify::escape;

use super::super::operate::show::{indent, items, member, text, written};
use super::story::{At, Other, Restricted, Story};

/// Characters of a fact, or of a kept body, that are shown.
const VALUE_CHARS_MAX: usize = 2_000;

/// The whole account, lines that end in a line feed.
pub fn explain(story: &Story) -> String {
    let mut page = Page::default();
    let d = &story.decision.entry;
    page.line("decision", d.decision.as_str());
    page.line("receipt", &format!("{} (entry {}, epoch {})", d.id, story.decision.index, d.epoch));
    page.line("time", &d.time);
    proposed(&mut page, story);
    consulted(&mut page, story);
    decided(&mut page, story);
    happened(&mut page, story);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn section(&mut self, title: &str) {
        writeln!(self.0, "\n{title}").expect("a string takes any write");
    }

    fn line(&mut self, name: &str, value: &str) {
        let line = escape(&format!("{name:<14} {value}"));
        writeln!(self.0, "{}", line.trim_end()).expect("a string takes any write");
    }

    fn json(&mut self, name: &str, value: &Json) {
        self.line(name, "");
        indent(value, 1, &mut self.0);
        self.0.push('\n');
    }
}

fn proposed(page: &mut Page, story: &Story) {
    let d = &story.decision.entry;
    page.section("PROPOSED");
    page.line("actor", &format!("{} ({})", d.actor.id, d.actor.method.as_str()));
    page.line("surface", &format!("{} / {}", d.surface, d.action));
    page.line("request", &format!("{} {}", d.request.method, or_redacted(&d.request.target)));
    page.line("digest", &or_redacted(&d.request.digest));
    let body = or_redacted(&d.request.body_digest);
    page.line("body", &format!("{} bytes, {body}", d.request.size));
    if let Some(key) = &d.idempotency_key {
        page.line("idempotency", &key.to_string());
    }
    if let Some(trace) = &d.trace {
        page.line("trace", trace);
    }
    let Some(input) = &story.input else {
        page.line("input", &format!("{}: not in the log, or not readable", d.evaluation.input_digest));
        return;
    };
    page.line("input", &d.evaluation.input_digest.to_string());
    // Only there do the names that stand for digests mean anything.
    let is_redacted = d.request.digest.is_none();
    let input = if is_redacted { marked(input) } else { input.clone() };
    let nothing = Json::Null;
    let of = |name| member(&input, name).unwrap_or(&nothing);
    let request = of("request");
    if let Some(claims) = member(of("actor"), "claims").filter(|claims| !is_empty(claims)) {
        page.line("claims", &written(claims));
    }
    page.line("host", &text(request, "authority"));
    for part in ["params", "query", "headers"] {
        let members = member(request, part).and_then(Json::as_object).map_or(&[][..], Object::members);
        for (name, value) in members {
            page.line(part, &format!("{name}: {}", plain(value)));
        }
    }
    if let Some(media_type) = &d.request.media_type {
        page.line("media type", media_type);
    }
    if let Some(body) = member(request, "body") {
        page.json("as parsed", body);
    }
    if let Some(withheld) = member(request, REDACTED) {
        page.line("redacted", &format!("{} of the request", plain(withheld)));
    }
}

fn consulted(page: &mut Page, story: &Story) {
    let d = &story.decision.entry;
    page.section("CONSULTED");
    let nothing = Json::Null;
    let context = story.input.as_ref().and_then(|input| member(input, "context")).unwrap_or(&nothing);
    let value = |part: &str, name: &str| member(member(context, part)?, name);
    for item in &d.evaluation.read_set {
        let ReadItem { age_ms, name, version } = item;
        page.line(name, &format!("version {version}, {age_ms} ms old"));
        let mut note = |text: &str| page.line("", &format!("  {text}"));
        match name.split_once(':').unwrap_or((name, "")) {
            ("policy", "") => {
                if let Some(At { index, entry, .. }) = &story.policy {
                    note(&format!("activated by {} at {} (entry {index})", entry.activated_by, entry.time));
                }
            }
            ("budget", name) => {
                if let Some(sums) = value("budgets", name) {
                    let (spent, in_flight) = (text(sums, "spent"), text(sums, "in_flight"));
                    note(&format!("spent {spent}, in flight {in_flight}, before this request"));
                }
            }
            ("fact", name) => {
                let name = name.rsplit('/').next().unwrap_or(name);
                if let Some(fact) = value("facts", name) {
                    note(&cut(&written(fact)));
                }
            }
            ("approvals", "") => {
                let approvals = items(context, "approvals");
                // Where policy was not asked, it was told of none in any case.
                if approvals.is_empty() && d.evaluation.status == EvaluationStatus::Evaluated {
                    note("none");
                }
                for approval in approvals {
                    let of = |name| text(approval, name);
                    note(&format!("{} ({}) at {}: {}", of("by"), of("role"), of("at"), of("reason")));
                }
            }
            ("freezes", "") => {
                if story.restrictions.is_empty() {
                    note("nothing in force on this surface and actor");
                }
                story.restrictions.iter().for_each(|restricted| note(&in_words(restricted)));
            }
            _others => {}
        }
    }
}

fn in_words(restricted: &Restricted) -> String {
    let Restricted { index, surface, actor, is_quarantine, by } = restricted;
    let what = if *is_quarantine { "quarantine" } else { "freeze" };
    let of = |name: &str, value: Option<&str>| value.map(|v| format!(" of {name} {v}")).unwrap_or_default();
    let surface = of("surface", surface.as_ref().map(|s| s.as_str()));
    let actor = of("actor", actor.as_ref().map(|a| a.as_str()));
    let scope =
        if surface.is_empty() && actor.is_empty() { " of everything".into() } else { surface + &actor };
    format!("{what}{scope} {by} (entry {index})")
}

fn decided(page: &mut Page, story: &Story) {
    let d = &story.decision.entry;
    page.section("DECIDED");
    let is_observed = match d.mode {
        Mode::Enforce => "",
        Mode::Observe => ", observed and not enforced",
    };
    page.line("verdict", &format!("{}{is_observed}", d.decision.as_str()));
    page.line("policy", &format!("{} at {} ({})", d.policy.package, d.policy.revision, d.policy.engine));
    if let Some(cause) = &d.evaluation.cause {
        page.line("not evaluated", cause);
    }
    for PolicyReason { code, detail, message } in &d.reasons {
        let message = message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        let detail = detail.as_ref().map(|d| format!(" {}", written(d))).unwrap_or_default();
        page.line("reason", &format!("{code}{message}{detail}"));
    }
    if let Some(hold) = d.approved_hold {
        page.line("used up", &format!("the approvals of hold {hold}"));
    }
    if let (Some(claim), Some(key)) = (&d.claim, &d.idempotency_key) {
        page.line("claimed", &format!("idempotency key {key} of this actor until {}", claim.until));
    }
    if let Some(id) = d.supersedes {
        page.line("supersedes", &format!("{id}, which was not sent"));
    }
}

fn happened(page: &mut Page, story: &Story) {
    let d = &story.decision.entry;
    page.section("HAPPENED");
    match (&story.outcome, d.decision) {
        (Some(outcome), _) => {
            settled(page, d, outcome);
            if let Some(digest) = outcome.entry.answer_digest {
                kept(page, story, &digest);
            }
        }
        (None, Decision::Permit) => page.line("outcome", "none yet"),
        (None, Decision::Deny | Decision::Silence | Decision::Escalate | Decision::Quarantine) => {
            page.line("outcome", "none: nothing was sent");
        }
    }
    if let Some(attested) = &story.attested {
        self::attested(page, attested);
    }
    let last = story.attested.as_ref().or(story.outcome.as_ref());
    reserves(page, d, last.map(|at| &*at.entry));
    if let Some(hold) = &d.hold {
        let joined = if hold.id == d.id { "opened" } else { "joined" };
        page.line("hold", &format!("{} ({joined}), until {}", hold.id, hold.until));
    }
    for At { index, entry, .. } in &story.words {
        let by = format!("by {} ({}) at {}", entry.by.id, entry.by.role.as_str(), entry.time);
        page.line(entry.action.as_str(), &format!("{by} (entry {index}): {}", entry.reason));
    }
    let other =
        |Other { index, id, decision }: &Other| format!("{id} ({}, entry {index})", decision.as_str());
    if let Some(used_by) = &story.used_by {
        page.line("used by", &other(used_by));
    }
    if let Some(superseded_by) = &story.superseded_by {
        page.line("superseded by", &other(superseded_by));
    }
}

fn settled(page: &mut Page, d: &DecisionEntry, outcome: &At<OutcomeEntry>) {
    let o = &outcome.entry;
    let cause = o.cause.as_deref().map(|c| format!(", {c}")).unwrap_or_default();
    page.line(
        "outcome",
        &format!("{}{cause}, seen by the gateway (entry {})", o.status.as_str(), outcome.index),
    );
    page.line("settled", &format!("{} after {} us", o.time, o.duration_us));
    if let Some(sent) = &o.sent {
        let whole = match (&sent.digest, &d.request.digest) {
            (Some(sent), Some(decided)) if sent == decided => ": the whole message that was decided on",
            (Some(_), _) | (None, _) => "",
        };
        page.line("sent", &format!("{} bytes, {}{whole}", sent.size, or_redacted(&sent.digest)));
    }
    if let Some(r) = &o.response {
        let digest = or_redacted(&r.body_digest);
        page.line("answer", &format!("{}, {} bytes, {digest}", r.status_code, r.size));
    }
}

fn kept(page: &mut Page, story: &Story, digest: &Digest) {
    let Some(answer) = &story.kept else {
        page.line("kept answer", &format!("{digest}: not in the log, or not readable"));
        return;
    };
    let (status, size) = (answer.status.as_u16(), answer.body.len());
    page.line("kept answer", &format!("{status}, {size} bytes, for repeats of the key ({digest})"));
    for (name, value) in &answer.headers {
        page.line("", &format!("  {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    let body = std::str::from_utf8(&answer.body).map_or_else(|_| "(not text)".to_owned(), cut);
    page.line("", &format!("  {body}"));
}

fn attested(page: &mut Page, attested: &At<OutcomeEntry>) {
    let o = &attested.entry;
    let by_operator = o.attested_by.as_ref().and_then(|by| by.operator.as_ref());
    let by = match (o.attestation, by_operator) {
        (Settled::Operator, Some(operator)) => format!("by {} ({})", operator.id, operator.role.as_str()),
        (Settled::Operator, None) => "by an operator".to_owned(),
        (Settled::UpstreamLog, _) => "by the upstream's own log".to_owned(),
        (Settled::Gateway, _) => "by the gateway".to_owned(),
    };
    let cause = o.cause.as_deref().map(|c| format!(": {c}")).unwrap_or_default();
    page.line(
        "attested",
        &format!("{} {by} at {} (entry {}){cause}", o.status.as_str(), o.time, attested.index),
    );
    if let Some(AttestedBy { evidence, .. }) = &o.attested_by {
        page.line("", &format!("  evidence: {evidence}"));
    }
}

/// What the decision took of budgets, and what the last word on it made of that.
fn reserves(page: &mut Page, d: &DecisionEntry, last: Option<&OutcomeEntry>) {
    for reserve in &d.reserves {
        let settle = last.and_then(|o| o.settles.iter().find(|settle| settle.budget == reserve.budget));
        let became = match (settle.map(|settle| settle.settled_as), last.map(|o| o.status)) {
            (Some(SettledAs::Spent), _) => "spent",
            (Some(SettledAs::Released), _) => "released",
            (None, Some(OutcomeStatus::Indeterminate)) => "reserved until the outcome is reconciled",
            (None, _) => "reserved",
        };
        let (budget, amount, until) = (&reserve.budget, &reserve.amount, &reserve.until);
        page.line("budget", &format!("{budget}: {amount} {became}; counts until {until}"));
        page.line("", &format!("  key {}", reserve.key));
    }
}

/// A member that a route keeps out of the log.
fn or_redacted<T: std::fmt::Display>(member: &Option<T>) -> String {
    member.as_ref().map_or_else(|| REDACTED.into(), T::to_string)
}

fn is_empty(value: &Json) -> bool {
    value.as_object().is_some_and(|object| object.members().is_empty())
}

/// A string without JSON's quotes.
fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| written(value), str::to_owned)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}... ({} bytes in all)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}
