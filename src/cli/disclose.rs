//! `interlock disclose`: the disclosure of a value that a receipt keeps out, made from the value and the run's key.

use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use interlock::canonical::json;
use interlock::ledger::salts;
use interlock::limits;
use interlock::merkle::checkpoint::parse_checkpoint_unverified;
use interlock::model::entry::{DecisionEntry, DisclosureDigest, Entry, OutcomeEntry};
use interlock::model::{Decision, Digest, Digester, Json, LeafIndex, ReceiptId};
use interlock::redaction::{self, Disclosure, Salter, places};
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Directory, Source};

/// Prints the disclosure (RFC 9901), one line, if the receipt or its evidence holds its digest. Whoever has that
/// line can check value and receipt against each other without any key. Exit codes: 0 it is held; 1 it is not, or
/// something cannot be read; 2 wrong usage. The log is read, not verified.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DiscloseArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Directory of the keys (`ledger.salts`)
    #[arg(long, value_name = "DIR")]
    salts: PathBuf,
    /// The decision's id, as in `interlock-receipt`
    #[arg(long, value_name = "ID")]
    receipt: ReceiptId,
    /// Place of the value: of the policy input, or `/request/digest`, `/request/body_digest`,
    /// `/request/received_digest`, `/request/target`, `/response/body_digest` of the leaves
    #[arg(long, value_name = "POINTER", verbatim_doc_comment)]
    pointer: String,
    #[command(flatten)]
    value: ValueArgs,
}

/// The value; without any of these it is JSON on standard input.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct ValueArgs {
    /// The value, JSON. It may stay in the shell's history; a file does not
    #[arg(long, value_name = "JSON")]
    value: Option<String>,
    /// The value, a string, without JSON's quotes
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// A file that holds the value, JSON
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// A file whose bytes have the digest that is the value
    #[arg(long, value_name = "FILE")]
    digest_of: Option<PathBuf>,
}

pub fn run(args: &DiscloseArgs) -> Result<ExitCode> {
    let value = args.value.read()?;
    let found = Found::read(&args.log, args.receipt)?;
    let key = salts::load(&args.salts, found.decision.epoch).with_context(|| {
        format!("no key of epoch {}: what that run kept out cannot be disclosed", found.decision.epoch)
    })?;
    let Some((disclosure, held_by)) = found.disclose(&args.pointer, value, &key.salter(args.receipt)) else {
        eprintln!("interlock: the receipt has no place `{}`", args.pointer);
        return Ok(ExitCode::FAILURE);
    };
    if held_by.is_empty() {
        eprintln!("interlock: neither receipt nor evidence holds this value at `{}`", args.pointer);
        return Ok(ExitCode::FAILURE);
    }
    writeln!(stdout().lock(), "{}", disclosure.as_str())?;
    eprintln!("interlock: held by the {}", held_by.join("; the "));
    Ok(ExitCode::SUCCESS)
}

impl ValueArgs {
    fn read(&self) -> Result<Json> {
        let cannot_read = |path: &Path| format!("cannot read {}", path.display());
        let Self { value, text, value_file, digest_of } = self;
        if let Some(text) = text {
            return Ok(Json::string(text));
        }
        if let Some(path) = digest_of {
            return Ok(Json::string(&digest_of_file(path).with_context(|| cannot_read(path))?.to_string()));
        }
        let bytes = match (value, value_file) {
            (Some(value), _) => value.clone().into_bytes(),
            (None, Some(path)) => std::fs::read(path).with_context(|| cannot_read(path))?,
            (None, None) => {
                let mut bytes = Vec::new();
                let bound = limits::EVIDENCE_BYTES_MAX as u64 + 1;
                stdin().take(bound).read_to_end(&mut bytes).context("cannot read standard input")?;
                bytes
            }
        };
        json::parse(&bytes, VALUE).map_err(|why| {
            let place = why.place.map(|place| format!(" ({place})")).unwrap_or_default();
            anyhow::anyhow!("the value is not JSON as a request may hold it: {}{place}", why.code.title())
        })
    }
}

const VALUE: json::Bounds = json::Bounds { depth_max: limits::JSON_DEPTH_MAX, values_max: usize::MAX };

fn digest_of_file(path: &Path) -> std::io::Result<Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut digester = Digester::new();
    let mut buffer = vec![0; limits::READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digester.finish()),
            n => digester.update(&buffer[..n]),
        }
    }
}

/// A decision, its evidence, and its outcome if it has one, with the places of both in the log.
struct Found {
    index: LeafIndex,
    decision: Box<DecisionEntry>,
    evidence: Json,
    outcome: Option<(LeafIndex, Box<OutcomeEntry>)>,
}

impl Found {
    fn read(log: &Path, id: ReceiptId) -> Result<Self> {
        let cannot_read = || format!("cannot read the log in {}", log.display());
        let source = Directory::open(log).with_context(cannot_read)?;
        let note = source.checkpoint().with_context(cannot_read)?.context("there is no checkpoint")?;
        let origin = parse_checkpoint_unverified(&note).with_context(cannot_read)?.origin;
        let mut walk = Walk::new(&source, &origin).with_context(cannot_read)?;
        let mut found: Option<Self> = None;
        loop {
            let frame = match walk.step().with_context(cannot_read)? {
                Step::Frame(frame, _) => frame,
                Step::End(_) => break,
                Step::Damaged(damage) if damage.is_torn_tail() => break,
                Step::Damaged(damage) => bail!("{}: {} (entry {})", damage.spot, damage.fault, damage.index),
            };
            for (index, bytes) in (frame.first.0..).map(LeafIndex).zip(&frame.entries) {
                let entry = Entry::from_bytes_unverified(bytes)
                    .with_context(|| format!("entry {index} is not one this version can read"))?;
                match (entry, &mut found) {
                    (Entry::Decision(decision), None) if decision.id == id => {
                        let digest = decision.evaluation.input_digest;
                        let evidence = frame.evidence.iter().find(|record| record.digest == digest);
                        let evidence = evidence.context("the evidence of the decision is not in the log")?;
                        let bounds = json::Bounds { depth_max: VALUE.depth_max * 2, ..VALUE };
                        let evidence = json::parse(evidence.bytes, bounds)
                            .map_err(|why| anyhow::anyhow!("the evidence is not JSON: {}", why.code))?;
                        found = Some(Self { index, decision, evidence, outcome: None });
                    }
                    (Entry::Outcome(outcome), Some(found)) if outcome.decision_index == found.index => {
                        found.outcome = Some((index, outcome));
                    }
                    (
                        Entry::Admin(_)
                        | Entry::Decision(_)
                        | Entry::Outcome(_)
                        | Entry::Epoch(_)
                        | Entry::Heartbeat(_)
                        | Entry::Key(_)
                        | Entry::Policy(_)
                        | Entry::Refusal(_),
                        _,
                    ) => {}
                }
            }
            let is_whole =
                |found: &Self| found.decision.decision != Decision::Permit || found.outcome.is_some();
            if found.as_ref().is_some_and(is_whole) {
                break;
            }
        }
        found.with_context(|| format!("no decision has the id {id}"))
    }

    /// The disclosure, and what holds its digest. `None` if there is no such place.
    fn disclose(&self, pointer: &str, value: Json, salter: &Salter) -> Option<(Disclosure, Vec<String>)> {
        let mut held_by = Vec::new();
        let in_evidence = redaction::disclose(&self.evidence, pointer, value.clone(), salter);
        if in_evidence.as_ref().is_some_and(|(_, held)| *held) {
            held_by.push(format!("evidence of entry {}", self.index));
        }
        let leaf_places = [
            places::DIGEST,
            places::BODY_DIGEST,
            places::RECEIVED_DIGEST,
            places::TARGET,
            places::RESPONSE_BODY_DIGEST,
        ];
        let disclosure = match pointer.rsplit_once('/') {
            Some((_, name)) if leaf_places.contains(&pointer) => {
                Disclosure::of_member(&salter.salt(pointer), name, value)
            }
            Some(_) | None => return in_evidence.map(|(disclosure, _)| (disclosure, held_by)),
        };
        let digest = disclosure.digest();
        let holds = |digests: &[DisclosureDigest]| digests.contains(&digest);
        if holds(&self.decision.request.disclosures) {
            held_by.push(format!("decision, entry {}", self.index));
        }
        if let Some((index, outcome)) = &self.outcome {
            let sent = outcome.sent.as_ref().is_some_and(|sent| holds(&sent.disclosures));
            let response = outcome.response.as_ref().is_some_and(|response| holds(&response.disclosures));
            if sent || response {
                held_by.push(format!("outcome, entry {index}"));
            }
        }
        Some((disclosure, held_by))
    }
}
