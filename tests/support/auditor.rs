//! The Auditor: compares what the log says with what the upstream really got.
//!
//! It reads the log as a stranger would, from its files with the pinned key, after the gateway is gone, and holds
//! four things: the log verifies; every effect (a request of which any byte arrived) has a PERMIT of its own, dated
//! before it, over exactly the bytes that arrived; every PERMIT has exactly one outcome by the gateway; what the outcome
//! says does not contradict what arrived (`not_sent` had no effect, `confirmed` had one). Where a route redacts, it
//! has the keys of the salts, and compares disclosure digests instead of plain ones.
//!
//! What is no effect although it arrived: the question that the world's config declares, word for word, about a PERMIT
//! whose outcome was recorded as unknown by then. Nothing else is set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use interlock::clock::WallTime;
use interlock::ledger::salts;
use interlock::merkle::note::VerifierKey;
use interlock::model::entry::{
    DecisionEntry, DisclosureDigest, Entry, EpochEvent, OutcomeEntry, RefusalEntry,
};
use interlock::model::{Decision, Digest, Json, OutcomeStatus, ReceiptId, Settled};
use interlock::redaction::{Disclosure, places};
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Check, Directory, Verdict, verify_log};

use super::upstream::Capture;

/// What the log holds, in order, after everything about it was found in order.
#[derive(Debug)]
pub struct Audit {
    pub entries: Vec<Entry>,
    pub effects: usize,
    /// Questions about unknown outcomes that arrived.
    pub lookups: usize,
}

impl Audit {
    pub fn decisions(&self) -> Vec<&DecisionEntry> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| match entry {
                Entry::Decision(d) => Some(Box::as_ref(d)),
                _ => None,
            })
            .collect()
    }

    pub fn outcomes(&self) -> Vec<&OutcomeEntry> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| match entry {
                Entry::Outcome(o) => Some(Box::as_ref(o)),
                _ => None,
            })
            .collect()
    }

    pub fn refusals(&self) -> Vec<&RefusalEntry> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| match entry {
                Entry::Refusal(r) => Some(Box::as_ref(r)),
                _ => None,
            })
            .collect()
    }

    /// Decisions in order, as their words.
    pub fn verdicts(&self) -> Vec<&'static str> {
        self.decisions().iter().map(|d| d.decision.as_str()).collect()
    }

    /// Outcomes in order, as their words.
    pub fn statuses(&self) -> Vec<&'static str> {
        self.outcomes().iter().map(|o| o.status.as_str()).collect()
    }

    pub fn stops(&self) -> usize {
        let is_stop = |e: &&Entry| matches!(e, Entry::Epoch(e) if e.event == EpochEvent::Stop);
        self.entries.iter().filter(is_stop).count()
    }
}

/// The secret that the gateway injects, and its name in receipts.
#[derive(Clone, Copy)]
pub struct Slot {
    pub secret: &'static str,
    pub name: &'static str,
}

/// How the upstream is asked what became of a request, as config declares it.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// With `{idempotency_key}` where the key stands, unless a header carries it.
    pub path: &'static str,
    pub header: Option<&'static str>,
    /// The other fields.
    pub more: &'static str,
}

/// Where, and how, questions are asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub lookup: Lookup,
    /// As in `host`.
    pub authority: String,
    /// The header of the credential.
    pub credential: &'static str,
}

pub fn audit(
    log: &Path,
    key: &VerifierKey,
    slot: Slot,
    captures: &[Capture],
    salts: &Path,
    asked: Option<&Asked>,
) -> Audit {
    let directory = Directory::open(log).expect("the log can be read");
    let report = verify_log(&directory, key).expect("the log can be read");
    for check in Check::ALL {
        // Verification evaluates nothing: only `--replay` answers the last one.
        let wanted = if check == Check::Replayed { Verdict::NotChecked } else { Verdict::Pass };
        assert_eq!(report.verdicts.of(check), wanted, "{}: {report:#?}", check.as_str());
    }
    assert_eq!(report.open_count, 0, "every PERMIT has its outcome: {report:#?}");
    no_secret_in(log, slot.secret);
    let entries = entries(&directory, key);
    let permits = permits(&entries);
    let (questions, effects): (Vec<_>, Vec<_>) = captures
        .iter()
        .cloned()
        .partition(|c| asked.is_some_and(|asked| asked.is_question(c, &permits, slot)));
    match_effects(&permits, slot, &effects, salts);
    Audit { entries, effects: effects.len(), lookups: questions.len() }
}

impl Asked {
    /// Whether this is the declared question about one of the permits, and asked after its outcome was recorded as unknown.
    fn is_question(&self, capture: &Capture, permits: &[Permit<'_>], slot: Slot) -> bool {
        let (mut head, end) = match capture.head().strip_suffix("\r\n\r\n") {
            Some(head) => (head.split("\r\n").map(str::to_owned).collect::<Vec<_>>(), capture.head_len),
            None => return false,
        };
        let is_bare = capture.is_whole && end == Some(capture.bytes.len());
        let line = head.remove(0);
        head.sort();
        is_bare
            && permits.iter().any(|permit| {
                let recorded = WallTime::parse_rfc3339(&permit.outcome.time).expect("verified above");
                let key = permit.decision.idempotency_key.as_ref().map(|key| key.as_str());
                permit.outcome.status == OutcomeStatus::Indeterminate
                    && recorded.unix_ns() <= capture.arrived_unix_ns
                    && key.is_some_and(|key| (line.clone(), head.clone()) == self.question(key, slot))
            })
    }

    /// Request line, and sorted headers.
    fn question(&self, key: &str, slot: Slot) -> (String, Vec<String>) {
        let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let encoded: String = key
            .bytes()
            .map(|b| if is_unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let line = format!("GET {} HTTP/1.1", self.lookup.path.replace("{idempotency_key}", &encoded));
        let mut headers = vec![
            "accept: application/json, application/problem+json".to_owned(),
            "cache-control: no-cache".to_owned(),
            "connection: close".to_owned(),
            format!("host: {}", self.authority),
            format!("{}: Bearer {}", self.credential, slot.secret),
        ];
        headers.extend(self.lookup.header.map(|name| format!("{name}: {key}")));
        headers.sort();
        (line, headers)
    }
}

fn entries(directory: &Directory, key: &VerifierKey) -> Vec<Entry> {
    let mut walk = Walk::new(directory, key.name()).expect("the log can be read");
    let mut entries = Vec::new();
    loop {
        match walk.step().expect("the log can be read") {
            Step::Frame(frame, _) => entries.extend(
                frame.entries.iter().map(|e| Entry::from_bytes_unverified(e).expect("verified above")),
            ),
            Step::End(_) => return entries,
            Step::Damaged(damage) => panic!("verified above: {damage:?}"),
        }
    }
}

/// A PERMIT and its one outcome.
struct Permit<'a> {
    decision: &'a DecisionEntry,
    outcome: &'a OutcomeEntry,
}

fn permits(entries: &[Entry]) -> Vec<Permit<'_>> {
    let mut outcomes: BTreeMap<ReceiptId, &OutcomeEntry> = BTreeMap::new();
    let mut attested = BTreeSet::new();
    for entry in entries {
        if let Entry::Outcome(outcome) = entry {
            if outcome.attestation != Settled::Gateway {
                // What somebody said later is no word of the gateway's, which is held to what arrived.
                let earlier = outcomes.get(&outcome.decision_id).expect("the gateway's word comes first");
                assert_eq!(
                    earlier.status,
                    OutcomeStatus::Indeterminate,
                    "only what is not known: {outcome:?}"
                );
                assert!(attested.insert(outcome.decision_id), "said twice: {outcome:?}");
                continue;
            }
            let earlier = outcomes.insert(outcome.decision_id, outcome);
            assert!(earlier.is_none(), "two outcomes of one PERMIT: {outcome:?}");
        }
    }
    let mut permits = Vec::new();
    for entry in entries {
        if let Entry::Decision(decision) = entry
            && decision.decision == Decision::Permit
        {
            let outcome = outcomes.remove(&decision.id);
            let outcome = outcome.unwrap_or_else(|| panic!("a PERMIT without an outcome: {decision:?}"));
            permits.push(Permit { decision, outcome });
        }
    }
    assert!(outcomes.is_empty(), "outcomes of what was not permitted: {outcomes:?}");
    permits
}

/// Gives every effect a PERMIT of its own, and looks at what is left over.
fn match_effects(permits: &[Permit<'_>], slot: Slot, captures: &[Capture], salts: &Path) {
    // Those whose bytes may have left, the certain ones first: an uncertain one had perhaps no effect.
    let mut free: BTreeMap<Digest, Vec<&Permit<'_>>> = BTreeMap::new();
    let mut redacted: Vec<&Permit<'_>> = Vec::new();
    for permit in permits.iter().filter(|p| p.outcome.status != OutcomeStatus::NotSent) {
        match permit.decision.request.digest {
            Some(digest) => free.entry(digest).or_default().push(permit),
            None => redacted.push(permit),
        }
    }
    for same in free.values_mut().chain([&mut redacted]) {
        same.sort_by_key(|p| (p.outcome.status == OutcomeStatus::Indeterminate, p.decision.time.clone()));
    }
    // In the order of their arrival, not of the upstream's threads: then the earliest PERMIT that is left is always
    // a right one to take, and none is taken from an effect that came before.
    let mut whole: Vec<_> = captures.iter().filter(|c| c.is_whole).collect();
    whole.sort_by_key(|capture| capture.arrived_unix_ns);
    for capture in whole {
        let digest = capture.digest(slot.secret, slot.name);
        let same = free.get_mut(&digest);
        let permit = same.and_then(|same| {
            let at = same.iter().position(|permit| is_dated_before(permit, capture))?;
            Some(same.remove(at))
        });
        let permit = permit.or_else(|| {
            let is_over =
                |p: &Permit<'_>| p.decision.request.disclosures.contains(&disclosed(p, digest, salts));
            let at = redacted.iter().position(|p| is_dated_before(p, capture) && is_over(p))?;
            Some(redacted.remove(at))
        });
        let permit = permit.unwrap_or_else(|| {
            panic!("an effect without an earlier PERMIT of its own over {digest}:\n{}", capture.head())
        });
        let size = capture.without_secret(slot.secret, slot.name).len() as u64;
        if let Some(sent) = &permit.outcome.sent {
            let (plain, disclosures) = match permit.decision.request.digest {
                Some(digest) => (Some(digest), Vec::new()),
                None => (None, vec![disclosed(permit, digest, salts)]),
            };
            let said = (sent.digest, &sent.disclosures, sent.size);
            assert_eq!(said, (plain, &disclosures, size), "the outcome is about what arrived");
        }
    }
    let mut left: Vec<_> = free.into_values().flatten().chain(redacted).collect();
    for part in captures.iter().filter(|c| !c.is_whole) {
        let at = left.iter().position(|p| can_begin(p, part, slot) && is_dated_before(p, part));
        let at = at.unwrap_or_else(|| panic!("part of a message that no PERMIT is about:\n{}", part.head()));
        left.remove(at);
    }
    for permit in left {
        assert_eq!(
            permit.outcome.status,
            OutcomeStatus::Indeterminate,
            "sent according to the log, but nothing arrived: {:?} {:?}",
            permit.decision,
            permit.outcome
        );
    }
}

/// What stands in the permit's leaf if it is about a message of this digest.
fn disclosed(permit: &Permit<'_>, digest: Digest, salts: &Path) -> DisclosureDigest {
    let key = salts::load(salts, permit.decision.epoch).expect("the keys of this world are kept");
    let salt = key.salter(permit.decision.id).salt(places::DIGEST);
    Disclosure::of_member(&salt, "digest", Json::string(&digest.to_string())).digest()
}

/// Whether the bytes can be the beginning of the permitted message.
fn can_begin(permit: &Permit<'_>, part: &Capture, slot: Slot) -> bool {
    let request = &permit.decision.request;
    let line = match &request.target {
        Some(target) => format!("{} {target} HTTP/1.1\r\n", request.method),
        // Redacted: only the method is known.
        None => format!("{} ", request.method),
    };
    let message = part.without_secret(slot.secret, slot.name);
    let common = message.len().min(line.len());
    let announced = part.head_len.and_then(|_| part.header("content-length"));
    message[..common] == line.as_bytes()[..common]
        && announced.is_none_or(|length| length == request.size.to_string())
}

fn is_dated_before(permit: &Permit<'_>, capture: &Capture) -> bool {
    let dated = WallTime::parse_rfc3339(&permit.decision.time).expect("verified above");
    dated.unix_ns() <= capture.arrived_unix_ns
}

/// No file of the log holds the secret, whatever the file is.
pub fn no_secret_in(dir: &Path, secret: &str) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            no_secret_in(&path, secret);
        } else {
            let bytes = std::fs::read(&path).expect("readable");
            let bytes = match path.extension().is_some_and(|e| e == "zst") {
                true => zstd::decode_all(bytes.as_slice()).expect("compressed"),
                false => bytes,
            };
            assert!(
                !holds(&bytes, secret),
                "{} holds the credential or a redacted value, `{secret}`",
                path.display()
            );
        }
    }
}

/// Whether the bytes hold the text. Segments are mostly blocks of zeros, which are skipped as a whole.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    const BLOCK: usize = 4096;
    let zeros = [0; BLOCK];
    let mut run = Vec::new();
    for block in bytes.chunks(BLOCK) {
        if block == &zeros[..block.len()] {
            run.clear();
        } else {
            // What begins in the block before ends in this one.
            let kept = run.len().saturating_sub(text.len());
            run.drain(..kept);
            run.extend_from_slice(block);
            if String::from_utf8_lossy(&run).contains(text) {
                return true;
            }
        }
    }
    false
}
