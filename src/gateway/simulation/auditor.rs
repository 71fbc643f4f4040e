//! The auditor: whether what happened may happen, by what left the gateway, what the disk holds, and who was told what.
//!
//! It uses nothing of the gateway but the names of the two policies and `verify`: it reads the disk's bytes itself
//! (`log`), hashes what left itself, and has sums, claims and holds from leaves of its own reading. The rules stand where
//! they are checked; each has a name, by which [`super::wirings`] are told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::{self, AUTHORITY, SECRET};
use super::coverage::{self, Coverage};
use super::journal::{Happened, Sums, Told, What};
use super::log::{self, Leaf, unix_ns};
use super::script::{ACTORS, Frozen, Limits, PERMIT_AGE_MAX, POLICIES, Script, TRAP, Wish};
use super::world::{START, World, prepared};
use crate::ledger::stepped::signer;
use crate::limits::ENDED_KEPT_MS;
use crate::merkle::note::Signer;
use crate::verify::verify_log;

/// Of so many logs one is put to `verify` as well.
const VERIFIED_EACH: u64 = 3;

/// What must not be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The log opens, verifies, and holds all that the disk ever said is durable.
    Log,
    /// What left is one that was wished for, byte for byte, and has an earlier durable PERMIT of its own.
    Effect,
    /// Each PERMIT has one outcome of the gateway's, which does not contradict what left.
    Outcome,
    /// Nothing starts after a freeze or a quarantine has returned.
    Restricted,
    /// What is spent and in flight never exceeds the limit.
    Budget,
    /// A key is carried out once.
    Key,
    /// Approvals are of this request, by people, used once, and not after their end.
    Approval,
    /// What leaves was judged by the policy in force, and that one permits it.
    Policy,
    /// Nor by an actor who was proved under what has changed.
    Identity,
    /// Nor after the actor's credential has ended.
    Credential,
    /// Nor by a permit that has grown old.
    Age,
    /// Nothing is decided by a clock that was set by more than a minute.
    Clock,
    /// The state is what the leaves say.
    State,
    /// Who was told of a receipt can find it.
    Told,
    /// Everybody gets an answer, and nothing panics.
    Lives,
}

/// A PERMIT, and what became of it.
pub struct Permit<'l> {
    pub leaf: &'l Leaf,
    pub index: usize,
    pub id: &'l str,
    pub digest: &'l str,
    pub actor: &'l str,
    pub outcome: Option<Outcome<'l>>,
    /// Later, by somebody else.
    pub attested: Option<Outcome<'l>>,
    /// Place in the journal, and time of the run.
    pub reserved: Option<(usize, Duration)>,
    pub message: Option<usize>,
}

#[derive(Clone, Copy)]
pub struct Outcome<'l> {
    pub leaf: &'l Leaf,
    pub index: usize,
    pub status: &'l str,
}

impl Permit<'_> {
    fn limits(&self) -> Option<Limits> {
        let revision = self.leaf.text(&["policy", "revision"])?;
        (0..POLICIES.len()).find(|n| revision_of(*n) == revision).map(|n| POLICIES[n])
    }

    /// The last that is known before this leaf.
    fn status_before(&self, index: usize) -> Option<&str> {
        let known = [self.attested, self.outcome].into_iter().flatten().find(|outcome| outcome.index < index);
        known.map(|outcome| outcome.status)
    }

    /// Amount and end of what it took.
    fn reserves(&self) -> Vec<(i128, i128)> {
        let reserves = self.leaf.json["reserves"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        reserves
            .iter()
            .map(|r| (text(&r["amount"]).parse().expect("a number"), unix_ns(&text(&r["until"]))))
            .collect()
    }

    /// When it was judged, by the clock that can be set.
    fn judged_ns(&self) -> i128 {
        let input = self.leaf.input.as_ref().expect("each decision has its input");
        let time = &input["time"]["unix_ns"];
        time.as_str().map_or_else(|| time.as_i64().map(i128::from), |text| text.parse().ok()).expect("a time")
    }

    /// Digest of the message, if the outcome says that all of it left.
    fn sent(&self) -> Option<&str> {
        self.outcome.and_then(|outcome| outcome.leaf.text(&["sent", "digest"]))
    }

    pub fn status(&self) -> &str {
        self.outcome.map_or("none", |outcome| outcome.status)
    }
}

/// What left the gateway as one request, or began to.
pub struct Message<'s> {
    /// Of its first byte in the journal.
    pub first: usize,
    /// Of what broke off early: of its PERMIT.
    pub wish: &'s Wish,
    /// Bytes of it that left.
    length: usize,
    pub is_whole: bool,
    pub permit: Option<usize>,
}

pub struct Audit {
    pub violations: Vec<Violation>,
    pub coverage: Coverage,
}

pub fn audit(world: &World, happened: &[Happened]) -> Audit {
    let mut found = Found::default();
    let leaves = read_log(world, happened, &mut found);
    let permits = permits(&leaves, happened, &mut found);
    let mut auditor =
        Auditor { script: &world.script, happened, leaves: &leaves, permits, messages: Vec::new(), found };
    auditor.read_messages();
    auditor.assign();
    auditor.check_outcomes();
    auditor.check_log_order();
    auditor.check_in_time();
    auditor.check_told();
    auditor.check_states();
    let coverage = coverage::of(&auditor);
    Audit { violations: auditor.found.0, coverage }
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: Rule, what: impl Into<String>) {
        self.0.push(Violation { rule, what: what.into() });
    }

    fn unless(&mut self, holds: bool, rule: Rule, what: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, what());
        }
    }
}

pub struct Auditor<'a> {
    pub script: &'a Script,
    pub happened: &'a [Happened],
    pub leaves: &'a [Leaf],
    pub permits: Vec<Permit<'a>>,
    pub messages: Vec<Message<'a>>,
    found: Found,
}

fn revision_of(policy: usize) -> String {
    prepared(policy).bundle().revision().to_string()
}

/// What a wish looks like on the wire, `credential` in its slot.
fn message_of(wish: &Wish, credential: &str) -> String {
    let body = client::body(wish);
    let key = wish.key.as_ref().map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
    format!(
        "POST /v1/charges/{} HTTP/1.1\r\nhost: {AUTHORITY}\r\nauthorization: Bearer {credential}\r\n\
         content-length: {}\r\ncontent-type: application/json\r\n{key}\r\n{body}",
        wish.number,
        body.len()
    )
}

pub fn digest_of(wish: &Wish) -> String {
    log::sha256(message_of(wish, "{credential:stripe}").as_bytes())
}

fn read_log(world: &World, happened: &[Happened], found: &mut Found) -> Vec<Leaf> {
    // The auditor does without it, and it takes half as long as all the rest.
    if world.seed.is_multiple_of(VERIFIED_EACH) {
        match verify_log(&*world.storage, signer().verifier()) {
            Ok(report) => {
                let holds = report.passed() && report.open_count == 0 && report.unsigned_tail == 0;
                found.unless(holds, Rule::Log, || format!("{report}"));
            }
            Err(error) => found.add(Rule::Log, error.to_string()),
        }
    }
    let mut leaves = Vec::new();
    for (_, bytes) in world.storage.durable_segments() {
        for frame in log::frames(&bytes) {
            for entry in frame.entries {
                let json: serde_json::Value = serde_json::from_slice(&entry).expect("JSON");
                let input = json.pointer("/evaluation/input_digest").and_then(|digest| digest.as_str());
                let input = input.and_then(|digest| frame.evidence.get(digest));
                let input = input.map(|input| serde_json::from_slice(input).expect("JSON"));
                leaves.push(Leaf { bytes: entry, json, input, durable: None });
            }
        }
    }
    for (place, happened) in happened.iter().enumerate() {
        let What::Durable(bytes) = &happened.what else { continue };
        for frame in log::frames(bytes) {
            for (index, entry) in (frame.first as usize..).zip(frame.entries) {
                match leaves.get_mut(index) {
                    Some(leaf) if leaf.bytes == entry => leaf.durable = leaf.durable.or(Some(place)),
                    Some(_) | None => found.add(Rule::Log, format!("leaf {index} was durable, and is gone")),
                }
            }
        }
    }
    leaves
}

fn permits<'l>(leaves: &'l [Leaf], happened: &[Happened], found: &mut Found) -> Vec<Permit<'l>> {
    let mut reserved = BTreeMap::new();
    for (place, Happened { at, what, .. }) in happened.iter().enumerate() {
        if let What::Reserved(id) = what {
            reserved.insert(id.as_str(), (place, *at));
        }
    }
    let mut permits = Vec::new();
    for (index, leaf) in leaves.iter().enumerate() {
        if leaf.is("decision") && leaf.text(&["decision"]) == Some("PERMIT") {
            let id = leaf.text(&["id"]).expect("an id");
            let digest = leaf.text(&["request", "digest"]).expect("a digest");
            let actor = leaf.text(&["actor", "id"]).expect("an actor");
            let reserved = reserved.get(id).copied();
            permits.push(Permit {
                leaf,
                index,
                id,
                digest,
                actor,
                outcome: None,
                attested: None,
                reserved,
                message: None,
            });
        }
        if leaf.is("outcome") {
            let status = leaf.text(&["status"]).expect("a status");
            let of = leaf.text(&["decision_id"]).expect("an id");
            let Some(permit) = permits.iter_mut().find(|permit: &&mut Permit<'_>| permit.id == of) else {
                found.add(Rule::Outcome, format!("outcome {index} is of no earlier PERMIT"));
                continue;
            };
            let slot = match leaf.text(&["attestation"]) {
                Some("gateway") => &mut permit.outcome,
                _ => &mut permit.attested,
            };
            found.unless(slot.is_none(), Rule::Outcome, || {
                format!("PERMIT {of} has a second outcome, {index}")
            });
            *slot = Some(Outcome { leaf, index, status });
        }
    }
    permits
}

impl<'a> Auditor<'a> {
    pub fn what(&self, place: usize) -> &'a What {
        &self.happened[place].what
    }

    /// Takes what left on each connection apart, by the bytes that were wished for.
    fn read_messages(&mut self) {
        let mut connections: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for (place, happened) in self.happened.iter().enumerate() {
            if let What::Left(connection, bytes) = &happened.what {
                connections.entry(*connection).or_default().push((place, bytes));
            }
        }
        let wished: Vec<_> = self.script.wishes.iter().map(|wish| (wish, message_of(wish, SECRET))).collect();
        for (connection, pieces) in connections {
            let all: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
            let mut at = 0;
            while at < all.len() {
                let mut before = 0;
                let first = pieces.iter().find(|(_, bytes)| {
                    before += bytes.len();
                    before > at
                });
                let first = first.expect("the byte is in one of them").0;
                let rest = &all[at..];
                let whole = wished.iter().find(|(_, message)| rest.starts_with(message.as_bytes()));
                let begun = || wished.iter().find(|(_, message)| message.as_bytes().starts_with(rest));
                let Some((wish, message)) = whole.or_else(begun) else {
                    let what = format!("on connection {connection}: {:?}", String::from_utf8_lossy(rest));
                    self.found.add(Rule::Effect, what);
                    break;
                };
                let (length, is_whole) = (message.len().min(rest.len()), whole.is_some());
                self.messages.push(Message { first, wish, length, is_whole, permit: None });
                at += length;
            }
        }
        self.messages.sort_by_key(|message| message.first);
    }

    /// Gives each message a PERMIT of its own that was durable before, and whose outcome was not yet: of several the one
    /// that became so last, since a permit is used at once. What broke off early may be any message that begins so.
    fn assign(&mut self) {
        let (wholes, parts): (Vec<_>, Vec<_>) =
            (0..self.messages.len()).partition(|n| self.messages[*n].is_whole);
        for n in wholes.into_iter().chain(parts) {
            let message = &self.messages[n];
            let first = message.first;
            let of = |wish: &Wish| {
                let (own, other) = (message_of(message.wish, SECRET), message_of(wish, SECRET));
                let common = own.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
                wish.number == message.wish.number || (!message.is_whole && common >= message.length)
            };
            let digests: BTreeSet<_> =
                self.script.wishes.iter().filter(|wish| of(wish)).map(digest_of).collect();
            let is_open = |permit: &Permit<'_>| {
                permit.leaf.durable.is_some_and(|durable| durable < first)
                    && permit.outcome.is_none_or(|outcome| outcome.leaf.durable.is_none_or(|end| end > first))
            };
            let fits = |permit: &Permit<'_>| {
                permit.message.is_none()
                    && permit.status() != "not_sent"
                    && digests.contains(permit.digest)
                    && is_open(permit)
            };
            let certainty =
                |permit: &Permit<'_>| (permit.leaf.durable, permit.sent().is_some() == message.is_whole);
            let fitting = (0..self.permits.len()).filter(|n| fits(&self.permits[*n]));
            match fitting.max_by_key(|n| certainty(&self.permits[*n])) {
                Some(permit) => {
                    let wishes = &self.script.wishes;
                    let wish = wishes.iter().find(|wish| digest_of(wish) == self.permits[permit].digest);
                    self.permits[permit].message = Some(n);
                    self.messages[n].permit = Some(permit);
                    self.messages[n].wish = wish.expect("it is of one of them");
                }
                None => {
                    let what =
                        format!("wish {} left at {first} without a PERMIT of its own", message.wish.number);
                    self.found.add(Rule::Effect, what);
                }
            }
        }
    }

    fn check_outcomes(&mut self) {
        let Self { permits, messages, found, .. } = self;
        for permit in permits {
            let Some(outcome) = permit.outcome else {
                found.add(Rule::Outcome, format!("PERMIT {} has none", permit.id));
                continue;
            };
            let is_whole = permit.message.map(|n| messages[n].is_whole);
            let holds = match outcome.status {
                "not_sent" => is_whole.is_none(),
                "confirmed" | "failed" => is_whole == Some(true),
                "indeterminate" => true,
                _ => false,
            };
            found.unless(holds, Rule::Outcome, || {
                format!("PERMIT {} is {}, and what left is whole: {is_whole:?}", permit.id, outcome.status)
            });
            let holds = permit.sent().is_none_or(|sent| sent == permit.digest && is_whole == Some(true));
            found.unless(holds, Rule::Outcome, || format!("PERMIT {} did not send what it says", permit.id));
        }
    }

    /// What the leaves alone show, in their order.
    fn check_log_order(&mut self) {
        let Self { leaves, permits, found, .. } = self;
        let mut active: BTreeSet<&str> = BTreeSet::new();
        for (index, leaf) in leaves.iter().enumerate() {
            if leaf.is("policy") {
                active.insert(leaf.text(&["revision"]).expect("a revision"));
            }
            if leaf.is("decision") {
                let revision = leaf.text(&["policy", "revision"]).expect("a revision");
                found.unless(active.contains(revision), Rule::Policy, || {
                    format!("decision {index} names a policy that the log does not have before it")
                });
            }
        }
        for (n, permit) in permits.iter().enumerate() {
            let earlier = &permits[..n];
            let (id, index, judged) = (permit.id, permit.index, permit.judged_ns());
            // Spent and in flight.
            let live = |(amount, until): (i128, i128)| if until > judged { amount } else { 0 };
            let taken: i128 = earlier
                .iter()
                .filter(|other| !matches!(other.status_before(index), Some("not_sent" | "failed")))
                .chain([permit])
                .flat_map(|other| other.reserves().into_iter().map(live))
                .sum();
            let limits = permit.limits();
            found.unless(
                limits.is_some_and(|limits| taken <= i128::from(limits.budget_max)),
                Rule::Budget,
                || format!("PERMIT {id} takes it to {taken} of {limits:?}"),
            );
            // Keys.
            if let (Some(key), true) =
                (permit.leaf.text(&["idempotency_key"]), permit.leaf.json.get("claim").is_some())
            {
                let has_it = |other: &&Permit<'_>| {
                    other.actor == permit.actor && other.leaf.text(&["idempotency_key"]) == Some(key)
                };
                let until =
                    |other: &Permit<'_>| unix_ns(other.leaf.text(&["claim", "until"]).expect("a time"));
                let is_over = |other: &Permit<'_>| match other.status_before(index) {
                    Some("not_sent") => true,
                    Some("confirmed" | "failed") => until(other) <= judged,
                    _ => false,
                };
                let holder = earlier.iter().filter(has_it).find(|other| !is_over(other));
                found.unless(holder.is_none(), Rule::Key, || format!("PERMIT {id} claims {key} once more"));
            }
            // Approvals.
            let Some(hold) = permit.leaf.text(&["approved_hold"]) else { continue };
            let is_used = |other: &&Permit<'_>| {
                other.leaf.text(&["approved_hold"]) == Some(hold)
                    && other.status_before(index) != Some("not_sent")
            };
            found.unless(!earlier.iter().any(|other| is_used(&other)), Rule::Approval, || {
                format!("PERMIT {id} uses hold {hold} once more")
            });
            let opened = leaves[..index].iter().find(|leaf| leaf.text(&["id"]) == Some(hold));
            let is_of_it = opened.is_some_and(|opened| {
                opened.text(&["decision"]) == Some("ESCALATE")
                    && opened.text(&["request", "digest"]) == Some(permit.digest)
                    && opened.text(&["actor", "id"]) == Some(permit.actor)
            });
            let said = |word: &str| leaves[..index].iter().any(|leaf| is_word(leaf, word, hold));
            let holds = is_of_it && said("approve");
            found.unless(holds, Rule::Approval, || {
                format!("PERMIT {id} rests on hold {hold}, which is not its own")
            });
        }
    }

    /// What is so at the moment at which each first byte leaves.
    fn check_in_time(&mut self) {
        let firsts: BTreeMap<usize, usize> =
            self.messages.iter().enumerate().map(|(n, message)| (message.first, n)).collect();
        let mut now = Now::default();
        for (place, happened) in self.happened.iter().enumerate() {
            now.goes_on(self, place);
            if let What::Reserved(id) = &happened.what
                && let Some(permit) = self.permits.iter().find(|permit| permit.id == id)
            {
                // Its clock was read at most half a second before.
                let read = permit.judged_ns() - i128::from(START.unix_ns()) - happened.at.as_nanos() as i128;
                let stepped = (read - i128::from(now.wrong_at_start)).abs();
                self.found.unless(stepped <= 61_000_000_000, Rule::Clock, || {
                    format!("PERMIT {id} was decided by a clock that was set by {stepped} ns")
                });
            }
            let Some(message) = firsts.get(&place).map(|n| &self.messages[*n]) else { continue };
            let (wish, wall) = (message.wish, i128::from(happened.wall.unix_ns()));
            let mut wrong = |holds: bool, rule: Rule, what: &str| {
                self.found.unless(holds, rule, || format!("wish {} left at {place} {what}", wish.number));
            };
            wrong(!now.is_closed(wish.actor), Rule::Restricted, "after it was frozen or quarantined");
            let ends =
                wish.credential_ends.map(|after| i128::from(START.unix_ns()) + after.as_nanos() as i128);
            wrong(ends.is_none_or(|ends| wall < ends), Rule::Credential, "after its credential's end");
            wrong(now.proved.contains(&wish.number), Rule::Identity, "by an actor who was proved before");
            let Some(permit) = message.permit.map(|n| &self.permits[n]) else { continue };
            let is_current = now
                .policies
                .iter()
                .any(|policy| permit.leaf.text(&["policy", "revision"]) == Some(&revision_of(*policy)));
            wrong(is_current, Rule::Policy, "by a policy that is not in force");
            let approved = permit.leaf.text(&["approved_hold"]);
            let may =
                permit.limits().is_some_and(|limits| wish.amount <= limits.alone_max || approved.is_some());
            wrong(may && wish.amount != TRAP, Rule::Policy, "and the policy does not permit it");
            let takes: Vec<_> = permit.reserves().iter().map(|(amount, _)| *amount).collect();
            wrong(takes == [i128::from(wish.amount)], Rule::Budget, "and did not take what it draws");
            wrong(
                wish.key.is_some() == permit.leaf.json.get("claim").is_some(),
                Rule::Key,
                "and its key claims nothing",
            );
            let age = permit.reserved.map(|(_, at)| happened.at - at);
            wrong(age.is_some_and(|age| age <= PERMIT_AGE_MAX), Rule::Age, "by a permit that had grown old");
            let end = approved.and_then(|hold| {
                let opened = self.leaves.iter().find(|leaf| leaf.text(&["id"]) == Some(hold))?;
                opened.text(&["hold", "until"]).map(unix_ns)
            });
            wrong(end.is_none_or(|end| wall < end), Rule::Approval, "after the end of its approvals");
            let is_over = |hold| {
                let is_end = |leaf: &Leaf| is_word(leaf, "refuse", hold) || is_word(leaf, "expire", hold);
                let mut ends = self.leaves.iter().filter(|leaf| is_end(leaf));
                ends.any(|leaf| leaf.durable.is_some_and(|durable| durable < place))
            };
            wrong(
                !approved.is_some_and(is_over),
                Rule::Approval,
                "after its hold was refused or has expired",
            );
        }
    }

    fn check_told(&mut self) {
        for happened in self.happened {
            match &happened.what {
                What::Answered(told) => self.check_receipt(told),
                What::Hung(ask) => self.found.add(Rule::Lives, format!("ask {ask} has no answer")),
                What::Panicked(why) => self.found.add(Rule::Lives, why.clone()),
                What::Broken(why) => self.found.add(Rule::Log, why.clone()),
                _ => {}
            }
        }
    }

    fn check_receipt(&mut self, told: &Told) {
        if told.reason.as_deref() == Some("internal_error") {
            self.found.add(Rule::Lives, format!("ask {}: internal error", told.ask));
        }
        let Some(receipt) = &told.receipt else { return };
        let member = |name: &str| {
            receipt
                .split(", ")
                .find_map(|member| member.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let leaf = member("index").and_then(|index| self.leaves.get(index.parse::<usize>().ok()?));
        let hash = member("leaf").and_then(|leaf| STANDARD.decode(leaf.trim_matches(':')).ok());
        let is_it = leaf.is_some_and(|leaf| {
            hash.as_deref() == Some(&log::leaf_hash(&leaf.bytes)[..])
                && leaf.text(&["decision"]).map(str::to_owned) == member("decision")
        });
        self.found.unless(is_it, Rule::Told, || format!("ask {} was told {receipt}", told.ask));
        let permit =
            self.permits.iter().find(|permit| leaf.is_some_and(|leaf| std::ptr::eq(leaf, permit.leaf)));
        // A whole answer of the upstream's to a whole message: its outcome says so, unless the process died before it was
        // recorded.
        let is_answer = matches!(told.status, 200 | 201 | 402) && told.body.is_some();
        let is_known = |permit: &Permit<'_>| {
            let is_settled = matches!(permit.status(), "confirmed" | "failed");
            let is_whole = permit.message.is_some_and(|n| self.messages[n].is_whole);
            is_settled
                || !is_whole
                || permit.outcome.is_some_and(|outcome| outcome.leaf.text(&["cause"]) == Some("recovered"))
        };
        let holds = !is_answer || permit.is_some_and(is_known);
        self.found.unless(holds, Rule::Told, || {
            format!(
                "ask {} has an answer, and the log does not know of it: {:?}",
                told.ask,
                permit.map(Permit::status)
            )
        });
    }

    fn check_states(&mut self) {
        for (place, happened) in self.happened.iter().enumerate() {
            let What::State(said) = &happened.what else { continue };
            let own = Sums { at: said.at, ..self.sums(place, said.at.unix_ns()) };
            // By a clock that was set back, some of what the state has let go of would count again; it permits nothing then.
            let latest =
                self.leaves.iter().filter(|leaf| leaf.durable < Some(place)).map(|leaf| leaf.text(&["time"]));
            let latest = latest.flatten().map(unix_ns).max().unwrap_or_default() as u64;
            let kept = latest.saturating_sub(ENDED_KEPT_MS * 1_000_000).max(said.at.unix_ns());
            let least = Sums { at: said.at, ..self.sums(place, kept) };
            let is_between = |least: &str, said: &str, most: &str| {
                let number = |text: &str| text.parse::<i128>().ok();
                number(least) <= number(said) && number(said) <= number(most)
            };
            let holds = is_between(&least.spent, &said.spent, &own.spent)
                && is_between(&least.in_flight, &said.in_flight, &own.in_flight)
                && (said.open, said.unknown, said.frozen) == (own.open, own.unknown, own.frozen);
            self.found.unless(holds, Rule::State, || {
                format!("at {place} the state says {said:?}, and the leaves {own:?}")
            });
        }
    }

    /// What the leaves say that were durable at this place.
    fn sums(&self, place: usize, at: u64) -> Sums {
        let is_durable = |leaf: &Leaf| leaf.durable.is_some_and(|durable| durable < place);
        let (mut spent, mut in_flight, mut open, mut unknown) = (0, 0, 0, 0);
        for permit in self.permits.iter().filter(|permit| is_durable(permit.leaf)) {
            let known = |outcome: Option<Outcome<'a>>| outcome.filter(|outcome| is_durable(outcome.leaf));
            let status = known(permit.attested).or(known(permit.outcome)).map(|outcome| outcome.status);
            let amount: i128 = permit
                .reserves()
                .iter()
                .filter(|(_, until)| *until > i128::from(at))
                .map(|(amount, _)| amount)
                .sum();
            match status {
                Some("confirmed") => spent += amount,
                Some("not_sent" | "failed") => {}
                _ => {
                    in_flight += amount;
                    open += 1;
                    unknown += usize::from(status.is_some());
                }
            }
        }
        let mut closed: BTreeSet<(Option<&str>, Option<&str>, bool)> = BTreeSet::new();
        for leaf in self.leaves.iter().filter(|leaf| is_durable(leaf)) {
            let (surface, actor) = (leaf.text(&["surface"]), leaf.text(&["actor"]));
            match (leaf.text(&["type"]), leaf.text(&["action"])) {
                (Some("admin"), Some("freeze")) => drop(closed.insert((surface, actor, false))),
                (Some("admin"), Some("unfreeze")) => drop(closed.remove(&(surface, actor, false))),
                (Some("admin"), Some("quarantine")) => drop(closed.insert((surface, actor, true))),
                (Some("admin"), Some("release")) => drop(closed.remove(&(surface, actor, true))),
                (Some("decision"), _) if is_trap(leaf) => {
                    closed.insert((surface, leaf.text(&["actor", "id"]), true));
                }
                _ => {}
            }
        }
        let (spent, in_flight, frozen) = (spent.to_string(), in_flight.to_string(), closed.len());
        Sums { at: START, spent, in_flight, open, unknown, frozen }
    }
}

/// Whether an operator, or the gateway, says this of the hold.
fn is_word(leaf: &Leaf, word: &str, hold: &str) -> bool {
    leaf.is("admin") && leaf.text(&["action"]) == Some(word) && leaf.text(&["hold"]) == Some(hold)
}

/// A decision by which policy isolates the actor.
fn is_trap(leaf: &Leaf) -> bool {
    let reason = leaf.json.pointer("/reasons/0/code").and_then(|code| code.as_str());
    leaf.text(&["decision"]) == Some("QUARANTINE") && reason == Some("trap")
}

/// What is so as the journal goes on.
#[derive(Default)]
struct Now {
    frozen: Vec<Frozen>,
    isolated: BTreeSet<usize>,
    /// When each actor's release was asked for last.
    released: BTreeMap<usize, usize>,
    /// Those that may judge: two while one takes the other's place.
    policies: Vec<usize>,
    /// Wishes whose actor was proved under what identity rests on now.
    proved: BTreeSet<usize>,
    wrong: i64,
    /// Where the clock stood when it began to be relied on.
    wrong_at_start: i64,
}

impl Now {
    fn is_closed(&self, actor: usize) -> bool {
        self.isolated.contains(&actor)
            || self.frozen.iter().any(|frozen| match frozen {
                Frozen::All | Frozen::Surface => true,
                Frozen::Actor(own) => *own == actor,
            })
    }

    fn goes_on(&mut self, of: &Auditor<'_>, place: usize) {
        match of.what(place) {
            What::Started => {
                self.wrong_at_start = self.wrong;
                self.policies.clear();
                self.proved.clear();
            }
            What::ClockIs(wrong) => self.wrong = *wrong,
            What::FreezeReturned(what) => self.frozen.push(*what),
            What::UnfreezeAsked(what) => self.frozen.retain(|frozen| frozen != what),
            What::QuarantineReturned(actor) => drop(self.isolated.insert(*actor)),
            What::ReleaseAsked(actor) => {
                self.isolated.remove(actor);
                self.released.insert(*actor, place);
            }
            // Whoever is told that policy has isolated it, is; unless somebody has released it since the leaf.
            What::Answered(told) if told.reason.as_deref() == Some("policy_quarantined") => {
                let actor = of.script.wishes[told.wish].actor;
                let leaf = of.leaves.iter().rev().find(|leaf| {
                    is_trap(leaf)
                        && leaf.text(&["actor", "id"]) == Some(ACTORS[actor])
                        && leaf.durable < Some(place)
                });
                if leaf.is_some_and(|leaf| leaf.durable > self.released.get(&actor).copied()) {
                    self.isolated.insert(actor);
                }
            }
            What::ReloadAsked(policy) => self.policies.push(*policy),
            What::InForce(policy) => self.policies = vec![*policy],
            What::IdentityMoved => self.proved.clear(),
            What::Proved { wish, .. } => drop(self.proved.insert(*wish)),
            _ => {}
        }
    }
}
