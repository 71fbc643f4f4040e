//! The auditor: whether what happened may happen, by what left the gateway, what the disk holds, and who was told what.
//!
//! It uses nothing of the gateway but the names of the two policies and `verify`: it reads the disk's bytes itself
//! (`log`), hashes what left itself, and has sums, claims and holds from leaves of its own reading. The rules stand where
//! they are checked; each has a name, by which [`super::wirings`] are told apart.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{self, AUTHORITY, SECRET};
use super::coverage::{self, Coverage};
use super::journal::{Happened, What};
use super::log::{self, Leaf, unix_ns};
use super::script::{Limits, POLICIES, Script, Wish};
use super::world::{World, prepared};
use crate::ledger::stepped::signer;
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
pub struct Permitted<'l> {
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

impl Permitted<'_> {
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
    auditor.check();
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
    pub permits: Vec<Permitted<'a>>,
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

fn permits<'l>(leaves: &'l [Leaf], happened: &[Happened], found: &mut Found) -> Vec<Permitted<'l>> {
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
            permits.push(Permitted {
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
            let Some(permit) = permits.iter_mut().find(|permit: &&mut Permitted<'_>| permit.id == of) else {
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
            let is_open = |permit: &Permitted<'_>| {
                permit.leaf.durable.is_some_and(|durable| durable < first)
                    && permit.outcome.is_none_or(|outcome| outcome.leaf.durable.is_none_or(|end| end > first))
            };
            let fits = |permit: &Permitted<'_>| {
                permit.message.is_none()
                    && permit.status() != "not_sent"
                    && digests.contains(permit.digest)
                    && is_open(permit)
            };
            let certainty =
                |permit: &Permitted<'_>| (permit.leaf.durable, permit.sent().is_some() == message.is_whole);
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
}
