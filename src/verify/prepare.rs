//! What can be said of one frame without the rest of the log: its leaves' form, their hashes, their evidence.
//!
//! Frames are prepared on several threads at once; [`super::leaves`] then takes the [`Fact`]s in order. A fact holds
//! only what later leaves are held to, so that little goes from one thread to the other.

use std::slice;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::canonical::canonical_json;
use super::glance;
use super::leaves::Complaint;
use super::report::Check;
use super::strict::{NotCanonical, strict_canonical};
use super::walk::Spot;
use crate::clock::WallTime;
use crate::limits;
use crate::merkle::frame::{self, Evidence};
use crate::merkle::tree::leaf_hash;
use crate::model::entry::{
    AdminAction, AdminEntry, DecisionEntry, DisclosureDigest, Entry, EntryType, EpochEntry, EvaluationStatus,
    HeartbeatEntry, KeyEntry, OutcomeEntry, PolicyEntry, PreviousTree, RefusalEntry, RequestEntry, Reserve,
    SPEC, SettledAs, policy_revision,
};
use crate::model::{
    Activated, BudgetName, Decision, Digest, Epoch, LeafIndex, OutcomeStatus, ReceiptId, Settled,
};

/// A frame as the walk gave it out.
pub struct Raw {
    pub bytes: Vec<u8>,
    pub spot: Spot,
}

/// The same, looked through.
pub struct Prepared {
    pub raw: Raw,
    pub first: LeafIndex,
    /// As the frame names it.
    pub root: Digest,
    pub leaves: Vec<Leaf>,
    /// By the leaf's place in the frame.
    pub complaints: Vec<(usize, Complaint)>,
}

pub struct Leaf {
    pub hash: Digest,
    pub fact: Fact,
}

/// What a leaf says that others are held to.
pub enum Fact {
    Decision(DecisionFact),
    Outcome(OutcomeFact),
    Epoch(Box<EpochEntry>),
    Heartbeat { epoch: Epoch, previous: PreviousTree },
    Key(Box<KeyEntry>),
    Policy { epoch: Epoch, activated: Activated, older_than: Option<u64> },
    Refusal { epoch: Epoch },
    Admin { epoch: Epoch },
    Unreadable,
}

#[derive(Debug, PartialEq, Eq)]
pub struct DecisionFact {
    pub epoch: Epoch,
    pub id: ReceiptId,
    pub is_permit: bool,
    /// Of which it reserves, in its order.
    pub budgets: Vec<BudgetName>,
    pub request: Message,
    pub revision: Digest,
    pub supersedes: Option<ReceiptId>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct OutcomeFact {
    pub epoch: Epoch,
    pub decision_index: LeafIndex,
    pub decision_id: ReceiptId,
    pub status: OutcomeStatus,
    pub attestation: Settled,
    /// The budgets it settles, in its order.
    pub settles: Vec<BudgetName>,
    /// What the gateway says was sent; an operator need not have seen the bytes.
    pub sent: Option<Message>,
    /// What it says that cannot be true, whatever the decision was.
    pub contradiction: Option<&'static str>,
}

/// How a leaf names the message: by its digest, or by digests of disclosures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(super) digest: Option<Digest>,
    pub(super) disclosures: Vec<DisclosureDigest>,
}

impl Message {
    fn of_request(request: &RequestEntry) -> Self {
        Self { digest: request.digest, disclosures: request.disclosures.clone() }
    }

    /// Whether what was sent is what was permitted: by the plain digest, or by that of its disclosure.
    pub fn is_of(&self, permitted: &Self) -> bool {
        match (&self.digest, &*self.disclosures) {
            (Some(digest), []) => permitted.digest == Some(*digest),
            (None, [disclosure]) => permitted.digest.is_none() && permitted.disclosures.contains(disclosure),
            (Some(_), [_, ..]) | (None, [] | [_, _, ..]) => false,
        }
    }
}

/// Looks through one frame that the walk has accepted.
pub fn prepare(raw: Raw) -> Prepared {
    let sections =
        frame::sections_of_decoded(&raw.bytes).expect("the walk has decoded these very bytes before");
    let mut evidence = Beside::Records(sections.evidence.iter());
    let mut complaints = Vec::new();
    let mut leaves = Vec::with_capacity(sections.entries.len());
    for (at, entry) in sections.entries.iter().enumerate() {
        let mut found = Vec::new();
        let fact = read(entry, &mut evidence, &mut found);
        complaints.extend(found.into_iter().map(|complaint| (at, complaint)));
        leaves.push(Leaf { hash: leaf_hash(entry), fact });
    }
    if let Beside::Records(left) = &evidence
        && left.len() > 0
    {
        let what = format!("{} evidence records of the frame belong to no leaf", left.len());
        complaints.push((0, (Check::Evidence, what)));
    }
    let (first, root) = (sections.first, sections.root);
    Prepared { raw, first, root, leaves, complaints }
}

/// The same for an entry that stands alone: of what it names as evidence nothing is said.
pub fn prepare_alone(entry: &[u8]) -> (Leaf, Vec<Complaint>) {
    let mut complaints = Vec::new();
    let fact = read(entry, &mut Beside::NotHere, &mut complaints);
    (Leaf { hash: leaf_hash(entry), fact }, complaints)
}

/// What stands beside the entries of a frame, as far as no entry has taken it.
enum Beside<'r, 'f> {
    Records(slice::Iter<'r, Evidence<'f>>),
    /// Nobody looks for it here.
    NotHere,
}

/// What an entry names as its evidence.
enum Named<'f> {
    There(&'f [u8]),
    Missing,
    NotHere,
}

fn read(bytes: &[u8], evidence: &mut Beside<'_, '_>, complaints: &mut Vec<Complaint>) -> Fact {
    if let Some((fact, input_digest)) = glance::decision(bytes) {
        complaints.extend(input_of(take(evidence, &input_digest)).map(|what| (Check::Evidence, what)));
        return Fact::Decision(fact);
    }
    if let Some(fact) = glance::outcome(bytes) {
        return Fact::Outcome(fact);
    }
    let entry = match read_entry(bytes) {
        Ok(entry) => entry,
        Err(why) => {
            complaints.extend(why.into_iter().map(|what| (Check::WellFormed, what)));
            return Fact::Unreadable;
        }
    };
    complaints.extend(form_of(bytes, &entry).map(|what| (Check::WellFormed, what)));
    complaints.extend(common(&entry).map(|what| (Check::WellFormed, what)));
    match entry {
        Entry::Decision(d) => {
            let record = take(evidence, &d.evaluation.input_digest);
            complaints.extend(input_of(record).map(|what| (Check::Evidence, what)));
            complaints.extend(contradictions(&d).map(|what| (Check::WellFormed, what.into())));
            Fact::Decision(decision(&d))
        }
        Entry::Outcome(o) => {
            if let Some(digest) = &o.answer_digest {
                let found = answer_of(take(evidence, digest));
                complaints.extend(found.map(|what| (Check::Evidence, what)));
            }
            complaints.extend(malformed_outcome(&o).map(|what| (Check::WellFormed, what.into())));
            Fact::Outcome(outcome(&o))
        }
        Entry::Epoch(e) => Fact::Epoch(e),
        Entry::Heartbeat(h) => {
            complaints.extend(malformed_heartbeat(&h).map(|what| (Check::WellFormed, what.into())));
            Fact::Heartbeat { epoch: h.epoch, previous: h.previous }
        }
        Entry::Key(k) => Fact::Key(k),
        Entry::Policy(p) => {
            complaints.extend(read_policy(&p, evidence));
            let activated = Activated { revision: p.revision, version: p.version };
            Fact::Policy { epoch: p.epoch, activated, older_than: p.older_than }
        }
        Entry::Refusal(r) => Fact::Refusal { epoch: r.epoch },
        Entry::Admin(a) => {
            complaints.extend(malformed_admin(&a).map(|what| (Check::WellFormed, what.into())));
            Fact::Admin { epoch: a.epoch }
        }
    }
}

/// The leaf's members. `Err` says everything that is wrong with bytes that have none.
pub(super) fn read_entry(bytes: &[u8]) -> Result<Entry, Vec<String>> {
    // Nearly all leaves end with their type, which saves reading them twice.
    fn of<T: DeserializeOwned>(bytes: &[u8], wrap: fn(Box<T>) -> Entry) -> Result<Entry, serde_json::Error> {
        serde_json::from_slice(bytes).map(|entry| wrap(Box::new(entry)))
    }
    let read = if bytes.ends_with(br#""type":"decision"}"#) {
        of::<DecisionEntry>(bytes, Entry::Decision)
    } else if bytes.ends_with(br#""type":"outcome"}"#) {
        of::<OutcomeEntry>(bytes, Entry::Outcome)
    } else if bytes.ends_with(br#""type":"refusal"}"#) {
        of::<RefusalEntry>(bytes, Entry::Refusal)
    } else {
        Entry::from_bytes_unverified(bytes)
    };
    let entry = read.map_err(|why| {
        let strict = strict_canonical(bytes).err().map(|e| e.to_string());
        strict.into_iter().chain([why.to_string()]).collect::<Vec<_>>()
    })?;
    if is_of_its_type(&entry) { Ok(entry) } else { Err(vec!["its members are of another type".into()]) }
}

fn is_of_its_type(entry: &Entry) -> bool {
    match entry {
        Entry::Admin(e) => e.entry_type == EntryType::Admin,
        Entry::Decision(e) => e.entry_type == EntryType::Decision,
        Entry::Epoch(e) => e.entry_type == EntryType::Epoch,
        Entry::Heartbeat(e) => e.entry_type == EntryType::Heartbeat,
        Entry::Key(e) => e.entry_type == EntryType::Key,
        Entry::Outcome(e) => e.entry_type == EntryType::Outcome,
        Entry::Policy(e) => e.entry_type == EntryType::Policy,
        Entry::Refusal(e) => e.entry_type == EntryType::Refusal,
    }
}

/// Whether the bytes are the one way to write the entry; if not, why.
///
/// Our writer makes RFC 8785 form of strings, booleans and small integers, which is all that the types of entries
/// hold, but for two cases: an integer at or past 2^53, which has sixteen digits, and the free-form detail of a
/// reason. Only for those the bytes are read a second time, by rule instead of by type.
pub(super) fn form_of(bytes: &[u8], entry: &Entry) -> Option<String> {
    let free_form = match entry {
        Entry::Decision(d) => d.reasons.iter().any(|reason| reason.detail.is_some()),
        Entry::Admin(_)
        | Entry::Epoch(_)
        | Entry::Heartbeat(_)
        | Entry::Key(_)
        | Entry::Outcome(_)
        | Entry::Policy(_)
        | Entry::Refusal(_) => false,
    };
    let same = is_written_as(bytes, entry);
    if same && !free_form && !has_digits_in_a_row(bytes, 16) {
        return None;
    }
    match strict_canonical(bytes) {
        Err(why) => Some(why.to_string()),
        // Reading is more generous than writing: a list of the right values is taken for a struct.
        Ok(()) if !same => Some("its members are not written as the format says".into()),
        Ok(()) => None,
    }
}

/// Takes what is written for as long as it is what stands there.
struct Same<'b>(&'b [u8]);

impl std::io::Write for Same<'_> {
    fn write(&mut self, written: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.strip_prefix(written).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(written.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn is_written_as(bytes: &[u8], entry: &Entry) -> bool {
    fn same<T: Serialize>(bytes: &[u8], entry: &T) -> bool {
        let mut rest = Same(bytes);
        serde_json::to_writer(&mut rest, entry).is_ok() && rest.0.is_empty()
    }
    match entry {
        Entry::Admin(e) => same(bytes, e),
        Entry::Decision(e) => same(bytes, e),
        Entry::Epoch(e) => same(bytes, e),
        Entry::Heartbeat(e) => same(bytes, e),
        Entry::Key(e) => same(bytes, e),
        Entry::Outcome(e) => same(bytes, e),
        Entry::Policy(e) => same(bytes, e),
        Entry::Refusal(e) => same(bytes, e),
    }
}

/// A run of so many digits covers a byte at a multiple of that number: only those are looked at.
fn has_digits_in_a_row(bytes: &[u8], count: usize) -> bool {
    let mut at = count - 1;
    while let Some(byte) = bytes.get(at) {
        if byte.is_ascii_digit() {
            let before = bytes[..at].iter().rev().take_while(|b| b.is_ascii_digit()).count();
            let after = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            if before + after >= count {
                return true;
            }
        }
        at += count;
    }
    false
}

/// `spec` and `time`, which every leaf has.
pub(super) fn common(entry: &Entry) -> Option<String> {
    let (spec, time) = match entry {
        Entry::Admin(e) => (&e.spec, &e.time),
        Entry::Decision(e) => (&e.spec, &e.time),
        Entry::Epoch(e) => (&e.spec, &e.time),
        Entry::Heartbeat(e) => (&e.spec, &e.time),
        Entry::Key(e) => (&e.spec, &e.time),
        Entry::Outcome(e) => (&e.spec, &e.time),
        Entry::Policy(e) => (&e.spec, &e.time),
        Entry::Refusal(e) => (&e.spec, &e.time),
    };
    if &**spec != SPEC {
        return Some(format!("of another specification, `{spec}`"));
    }
    (!is_time(time)).then(|| format!("`{time}` is not a time in UTC with microseconds"))
}

pub(super) fn is_time(text: &str) -> bool {
    is_plain_time(text) || WallTime::parse_rfc3339(text).is_some_and(|t| t.rfc3339() == text)
}

/// Nearly every time, at a glance: a day that every month has, of a year that the clock can show.
fn is_plain_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd.ddddddZ";
    let fits =
        |(byte, wanted): (&u8, &u8)| if *wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return false;
    }
    let two = |at: usize| (bytes[at] - b'0') * 10 + (bytes[at + 1] - b'0');
    two(0) == 20
        && (1..=12).contains(&two(5))
        && (1..=28).contains(&two(8))
        && two(11) < 24
        && two(14) < 60
        && two(17) < 60
}

/// Records stand in the order in which leaves name them, and a frame's digests of them were checked.
fn take<'f>(evidence: &mut Beside<'_, 'f>, named: &Digest) -> Named<'f> {
    let Beside::Records(records) = evidence else { return Named::NotHere };
    let Some(record) = records.as_slice().first().filter(|record| record.digest == *named) else {
        return Named::Missing;
    };
    *records = records.as_slice()[1..].iter();
    Named::There(record.bytes)
}

fn input_of(record: Named<'_>) -> Option<String> {
    let bytes = match record {
        Named::There(bytes) => bytes,
        Named::Missing => {
            return Some("the policy input that its `input_digest` names is not beside it".into());
        }
        Named::NotHere => return None,
    };
    let why: NotCanonical = canonical_json(bytes).err()?;
    Some(format!("its policy input: {why}"))
}

fn answer_of(record: Named<'_>) -> Option<String> {
    let bytes = match record {
        Named::There(bytes) => bytes,
        Named::Missing => {
            return Some("the kept answer that its `answer_digest` names is not beside it".into());
        }
        Named::NotHere => return None,
    };
    let why: NotCanonical = canonical_json(bytes).err()?;
    Some(format!("its kept answer: {why}"))
}

/// What a leaf says that cannot be true, whatever else the log holds.
pub(super) fn contradictions_of(entry: &Entry) -> Vec<&'static str> {
    match entry {
        Entry::Decision(d) => contradictions(d).collect(),
        Entry::Outcome(o) => malformed_outcome(o).chain(outcome(o).contradiction).collect(),
        Entry::Admin(a) => malformed_admin(a).collect(),
        Entry::Heartbeat(h) => malformed_heartbeat(h).into_iter().collect(),
        Entry::Epoch(_) | Entry::Key(_) | Entry::Policy(_) | Entry::Refusal(_) => Vec::new(),
    }
}

/// What a decision says that cannot be true.
fn contradictions(d: &DecisionEntry) -> impl Iterator<Item = &'static str> {
    let not_evaluated = d.evaluation.status == EvaluationStatus::NotEvaluated;
    let is_permit = d.decision == Decision::Permit;
    let found = [
        (is_permit && not_evaluated, "a PERMIT that was not evaluated"),
        (is_permit && d.reasons.is_empty(), "a PERMIT without a reason"),
        (
            not_evaluated != d.evaluation.cause.is_some(),
            "a decision names a cause exactly if policy was not evaluated",
        ),
        (
            !is_permit && (d.claim.is_some() || !d.reserves.is_empty() || d.approved_hold.is_some()),
            "only a PERMIT claims a key, reserves, or uses up approvals",
        ),
        (d.claim.is_some() && d.idempotency_key.is_none(), "a claim without the key that it claims"),
        (d.hold.is_some() && d.decision != Decision::Escalate, "only an ESCALATE is held"),
        (d.approved_hold == Some(d.id), "a PERMIT uses up the approvals of an earlier hold, and not its own"),
        (!are_reserves(&d.reserves), "its reserves are not one for each budget, with exact amounts"),
        (!untils(d).all(is_time), "an `until` is not a time in UTC with microseconds"),
        (d.supersedes == Some(d.id), "a decision supersedes an earlier one, and not itself"),
        (
            d.request.digest.is_none() && d.request.disclosures.is_empty(),
            "a decision about a message that it does not name",
        ),
        (
            !are_for_what_is_left_out(&d.request.disclosures, left_out(&d.request)),
            "`_sd` holds ascending digests, no more than one for each member that is left out",
        ),
    ];
    found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what)
}

fn untils(d: &DecisionEntry) -> impl Iterator<Item = &str> {
    let claim = d.claim.iter().map(|claim| &*claim.until);
    claim.chain(d.hold.iter().map(|hold| &*hold.until)).chain(d.reserves.iter().map(|r| &*r.until))
}

fn are_reserves(reserves: &[Reserve]) -> bool {
    let is_twice =
        |(at, reserve): (usize, &Reserve)| reserves[..at].iter().any(|r| r.budget == reserve.budget);
    reserves.len() <= limits::RESERVES_MAX
        && reserves.iter().all(|reserve| is_amount(&reserve.amount))
        && !reserves.iter().enumerate().any(is_twice)
}

/// Digits, and perhaps a point and more digits.
fn is_amount(text: &str) -> bool {
    let are_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    text.len() <= limits::AMOUNT_BYTES_MAX
        && match text.split_once('.') {
            Some((whole, fraction)) => are_digits(whole) && are_digits(fraction),
            None => are_digits(text),
        }
}

/// The members that the action needs, and no others.
fn malformed_admin(a: &AdminEntry) -> impl Iterator<Item = &'static str> {
    let (surface, actor, hold) = (a.surface.is_some(), a.actor.is_some(), a.hold.is_some());
    let fits = match a.action {
        AdminAction::Freeze | AdminAction::Unfreeze => !(hold || surface && actor),
        AdminAction::Approve | AdminAction::Refuse | AdminAction::Expire => hold && !surface && !actor,
        AdminAction::Quarantine | AdminAction::Release => surface && actor && !hold,
    };
    let found = [
        (!fits, "its `surface`, `actor` and `hold` are not those of its action"),
        (a.by.id.is_empty(), "nobody did it: `by.id` is empty"),
    ];
    found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what)
}

fn malformed_heartbeat(h: &HeartbeatEntry) -> Option<&'static str> {
    (h.every_s == 0).then_some("a heartbeat of a log that has none: `every_s` is 0")
}

/// What an outcome of whoever vouches for it cannot look like.
fn malformed_outcome(o: &OutcomeEntry) -> impl Iterator<Item = &'static str> {
    let by_gateway = o.attestation == Settled::Gateway;
    let operator = o.attested_by.as_ref().and_then(|by| by.operator.as_ref());
    let is_known = matches!(o.status, OutcomeStatus::Confirmed | OutcomeStatus::Failed);
    let settled_as = match o.status {
        OutcomeStatus::Confirmed => Some(SettledAs::Spent),
        OutcomeStatus::NotSent | OutcomeStatus::Failed => Some(SettledAs::Released),
        OutcomeStatus::Indeterminate => None,
    };
    let found = [
        (
            by_gateway == o.attested_by.is_some(),
            "it names who vouches for it exactly if the gateway does not",
        ),
        (
            !by_gateway && operator.is_some() != (o.attestation == Settled::Operator),
            "it names an operator exactly if one vouches for it",
        ),
        (operator.is_some_and(|by| by.id.is_empty()), "nobody vouches for it: `operator.id` is empty"),
        (!by_gateway && !is_known, "what somebody vouches for is `confirmed` or `failed`"),
        (
            !by_gateway && (o.sent.is_some() || o.response.is_some() || o.answer_digest.is_some()),
            "only the gateway sees what is sent and answered",
        ),
        (o.answer_digest.is_some() && !is_known, "an answer is kept of what was `confirmed` or `failed`"),
        (
            o.settles.iter().any(|settle| Some(settle.settled_as) != settled_as),
            "what it does to budgets is not what its status stands for",
        ),
    ];
    found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what)
}

/// How many members that a disclosure can stand for are left out.
fn left_out(request: &RequestEntry) -> usize {
    let RequestEntry { body_digest, digest, received_digest, target, .. } = request;
    let digests = [body_digest, digest, received_digest].into_iter().filter(|digest| digest.is_none());
    digests.count() + usize::from(target.is_none())
}

/// More of them would be a decision about any of several messages.
pub(super) fn are_for_what_is_left_out(disclosures: &[DisclosureDigest], left_out: usize) -> bool {
    disclosures.len() <= left_out && disclosures.windows(2).all(|pair| pair[0] < pair[1])
}

pub(super) fn decision(d: &DecisionEntry) -> DecisionFact {
    DecisionFact {
        epoch: d.epoch,
        id: d.id,
        is_permit: d.decision == Decision::Permit,
        budgets: d.reserves.iter().map(|reserve| reserve.budget.clone()).collect(),
        request: Message::of_request(&d.request),
        revision: d.policy.revision,
        supersedes: d.supersedes,
    }
}

pub(super) fn outcome(o: &OutcomeEntry) -> OutcomeFact {
    let by_gateway = o.attestation == Settled::Gateway;
    let sent = o.sent.as_ref().filter(|_| by_gateway);
    OutcomeFact {
        epoch: o.epoch,
        decision_index: o.decision_index,
        decision_id: o.decision_id,
        status: o.status,
        attestation: o.attestation,
        settles: o.settles.iter().map(|settle| settle.budget.clone()).collect(),
        sent: sent.map(|sent| Message { digest: sent.digest, disclosures: sent.disclosures.clone() }),
        // An operator or the upstream's own log may know the truth without having seen the bytes.
        contradiction: by_gateway
            .then(|| {
                contradiction(o.status, o.sent.is_some(), o.response.as_ref().map(|seen| seen.status_code))
            })
            .flatten(),
    }
}

/// What an outcome says that cannot be true: of its status, whether anything was sent, and the answer's status code.
pub(super) fn contradiction(
    status: OutcomeStatus,
    is_sent: bool,
    status_code: Option<u16>,
) -> Option<&'static str> {
    match (status, is_sent, status_code) {
        (OutcomeStatus::NotSent, false, None) | (OutcomeStatus::Indeterminate, _, _) => None,
        (OutcomeStatus::NotSent, _, _) => Some("not sent, and yet something was sent or answered"),
        (OutcomeStatus::Confirmed, false, _) => Some("confirmed, and yet not sent whole"),
        (OutcomeStatus::Confirmed | OutcomeStatus::Failed, _, None) => {
            Some("settled by an answer that is not there")
        }
        // An upstream may refuse with a 4xx before it has read the whole message.
        (OutcomeStatus::Confirmed, true, Some(seen)) | (OutcomeStatus::Failed, _, Some(seen)) => {
            (OutcomeStatus::of_whole_answer(seen) != status)
                .then_some("the status code stands for another outcome")
        }
    }
}

fn read_policy(p: &PolicyEntry, evidence: &mut Beside<'_, '_>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if p.files.windows(2).any(|pair| pair[0].name >= pair[1].name) {
        complaints.push((Check::WellFormed, "its files are not sorted by name, each once".into()));
    }
    if policy_revision(&p.engine, &p.files) != p.revision {
        complaints.push((Check::Evidence, "its `revision` is not that of its files and engine".into()));
    }
    let missing = p.files.iter().filter(|file| matches!(take(evidence, &file.sha256), Named::Missing));
    complaints.extend(missing.map(|file| {
        let what = format!("the bundle's file `{}` is not beside it as `{}`", file.name, file.sha256);
        (Check::Evidence, what)
    }));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_digits_is_found_wherever_it_stands() {
        for before in 0..40 {
            for length in 0..40 {
                let text = format!("{}{}{}", "a".repeat(before), "7".repeat(length), "b".repeat(20));
                assert_eq!(has_digits_in_a_row(text.as_bytes(), 16), length >= 16, "{text}");
            }
        }
        let twice = "123456789012345x123456789012345";
        assert!(!has_digits_in_a_row(twice.as_bytes(), 16));
    }

    #[test]
    fn a_time_at_a_glance_is_a_time() {
        for (text, is) in [
            ("2025-11-20T13:00:00.123456Z", true),
            ("2024-02-29T23:59:59.000000Z", true),
            ("1970-01-01T00:00:00.000000Z", true),
            ("2023-02-29T23:59:59.000000Z", false),
            ("2025-11-20T24:00:00.000000Z", false),
            ("2025-13-20T13:00:00.000000Z", false),
            ("2025-11-00T13:00:00.000000Z", false),
            ("2025-11-20T13:00:60.000000Z", false),
            ("2025-11-20T13:00:00.12Z", false),
            ("2025-11-20t13:00:00.123456Z", false),
            ("2025-11-20T13:00:00.123456+00:00", false),
            ("1969-12-31T23:59:59.000000Z", false),
        ] {
            assert_eq!(is_time(text), is, "{text}");
            let slow = WallTime::parse_rfc3339(text).is_some_and(|t| t.rfc3339() == text);
            assert!(slow || !is_plain_time(text), "{text}");
        }
    }
}
