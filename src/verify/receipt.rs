//! One receipt, its proof and a trust: what a caller can check alone, without the log.
//!
//! Three questions, each with its own verdict: is the leaf well-formed, is it in the tree that the proof's checkpoint
//! names, and did a trusted key sign that checkpoint. A fourth one if disclosures are at hand: do they belong to it. What
//! a receipt says of the log around it stays open.

use std::fmt::{self, Write};

use serde::Serialize;

use super::disclosures::{Answer, Disclosed, Disclosures};
use super::prepare::{common, contradictions_of, form_of, read_entry};
use super::report::{Check, Problem, Verdict, escape};
use crate::merkle::checkpoint::parse_checkpoint_unverified;
use crate::merkle::proof::verify_inclusion;
use crate::merkle::tlog_proof::TlogProof;
use crate::merkle::tree::leaf_hash;
use crate::merkle::trust::Trust;
use crate::model::entry::Entry;
use crate::model::{Digest, LeafIndex, TreeSize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptVerdicts {
    pub well_formed: Verdict,
    pub included: Verdict,
    pub signed: Verdict,
    /// Each disclosure that was handed over belongs to the leaf or to its evidence.
    pub disclosed: Verdict,
}

/// What was found about one receipt.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiptReport {
    pub log: String,
    /// Keys that are trusted.
    pub keys: Vec<String>,
    /// The trusted keys that signed.
    pub signed_by: Vec<String>,
    /// Where the proof says that the leaf stands.
    pub index: LeafIndex,
    pub leaf_hash: Digest,
    /// Of the checkpoint in the proof, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<TreeSize>,
    /// What the leaf is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf: Option<String>,
    pub verdicts: ReceiptVerdicts,
    /// What was handed over to show what the leaf or its evidence keeps out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disclosures: Vec<Disclosed>,
    /// What is wrong with the evidence that was handed over with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    pub problems: Vec<Problem>,
}

/// Exit code when a disclosure is found nowhere, and all else passed.
const NOT_DISCLOSED: u8 = 18;

/// Checks exactly these bytes of a leaf.
pub fn verify_receipt(leaf: &[u8], proof: &TlogProof, trust: &Trust) -> ReceiptReport {
    let mut report = ReceiptReport::of(leaf_hash(leaf), proof, Verdict::Pass, trust);
    report.read_leaf(leaf);
    report.read_proof(proof, trust);
    report
}

/// The same for whoever has no more of the leaf than its hash, as the `interlock-receipt` header gives it.
pub fn verify_leaf_hash(hash: Digest, proof: &TlogProof, trust: &Trust) -> ReceiptReport {
    let mut report = ReceiptReport::of(hash, proof, Verdict::NotChecked, trust);
    report.read_proof(proof, trust);
    report
}

impl ReceiptReport {
    fn of(hash: Digest, proof: &TlogProof, well_formed: Verdict, trust: &Trust) -> Self {
        Self {
            log: trust.log().to_string(),
            keys: trust.keys().iter().map(ToString::to_string).collect(),
            signed_by: Vec::new(),
            index: proof.index,
            leaf_hash: hash,
            size: None,
            leaf: None,
            verdicts: ReceiptVerdicts {
                well_formed,
                included: Verdict::Pass,
                signed: Verdict::Pass,
                disclosed: Verdict::NotChecked,
            },
            disclosures: Vec::new(),
            evidence: None,
            problems: Vec::new(),
        }
    }

    fn read_proof(&mut self, proof: &TlogProof, trust: &Trust) {
        let checkpoint = match parse_checkpoint_unverified(proof.checkpoint.as_bytes()) {
            Ok(checkpoint) => checkpoint,
            Err(why) => {
                self.verdicts.included = Verdict::NotEstablished;
                return self.problem(Check::Signed, why.to_string());
            }
        };
        let (size, root) = (checkpoint.size, checkpoint.root);
        self.size = Some(size);
        if let Err(why) = verify_inclusion(self.leaf_hash, proof.index, size, &proof.path, root) {
            self.problem(Check::Included, why.to_string());
        }
        match trust.checkpoint(proof.checkpoint.as_bytes()) {
            Ok(signed) => self.signed_by = signed.signers().iter().map(ToString::to_string).collect(),
            Err(why) => self.problem(Check::Signed, why.to_string()),
        }
    }

    /// Whoever handed the leaf over said where it stands.
    pub fn was_said_to_stand_at(&mut self, index: LeafIndex) {
        if index != self.index {
            let what = format!("the leaf was said to be entry {index}, the proof is of entry {}", self.index);
            self.problem(Check::Included, what);
        }
    }

    /// Holds disclosures against the leaf that the report is of, and against the policy input it names if that is at
    /// hand.
    pub fn disclose(&mut self, leaf: &[u8], disclosures: &Disclosures, evidence: Option<&[u8]>) {
        debug_assert_eq!(leaf_hash(leaf), self.leaf_hash, "the leaf that was verified");
        let Ok(entry) = read_entry(leaf) else {
            self.verdicts.disclosed = Verdict::NotEstablished;
            return;
        };
        let Answer { disclosed, verdict, evidence } = disclosures.held_by(&entry, evidence);
        self.disclosures = disclosed;
        self.verdicts.disclosed = verdict;
        self.evidence = evidence;
    }

    pub fn passed(&self) -> bool {
        self.exit_code() == 0
    }

    /// 0 if everything passed, else the code of the first check that did not.
    pub fn exit_code(&self) -> u8 {
        let verdicts = self.named_verdicts();
        let first = |wanted| verdicts.into_iter().find(|(_, verdict, _)| *verdict == wanted);
        first(Verdict::Fail).or(first(Verdict::NotEstablished)).map_or(0, |(.., code)| code)
    }

    /// Each with its exit code, in the order in which a failing one decides.
    fn named_verdicts(&self) -> [(&'static str, Verdict, u8); 4] {
        let ReceiptVerdicts { well_formed, included, signed, disclosed } = self.verdicts;
        let of = |check: Check, verdict| (check.as_str(), verdict, check.exit_code());
        [
            of(Check::WellFormed, well_formed),
            of(Check::Included, included),
            of(Check::Signed, signed),
            ("disclosed", disclosed, NOT_DISCLOSED),
        ]
    }

    fn problem(&mut self, check: Check, what: String) {
        match check {
            Check::Included => self.verdicts.included = Verdict::Fail,
            Check::Signed => self.verdicts.signed = Verdict::Fail,
            Check::WellFormed
            | Check::Frames
            | Check::Paired
            | Check::Epochs
            | Check::Evidence
            | Check::Tiles
            | Check::Replayed => self.verdicts.well_formed = Verdict::Fail,
        }
        self.problems.push(Problem { check, index: Some(self.index), file: None, offset: None, what });
    }

    fn read_leaf(&mut self, leaf: &[u8]) {
        let found = match read_entry(leaf) {
            Err(why) => why,
            Ok(entry) => {
                self.leaf = Some(describe(&entry));
                let form = form_of(leaf, &entry).into_iter().chain(common(&entry));
                form.chain(contradictions_of(&entry).into_iter().map(str::to_owned)).collect()
            }
        };
        for what in found {
            self.problem(Check::WellFormed, what);
        }
    }
}

/// One line for people.
fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Decision(d) => {
            format!("{} {} {} by {}, {}", d.decision.as_str(), d.surface, d.action, d.actor.id, d.time)
        }
        Entry::Outcome(o) => {
            format!("outcome {} of entry {}, {}", o.status.as_str(), o.decision_index, o.time)
        }
        Entry::Admin(a) => format!("admin {:?} by {}, {}", a.action, a.by.id, a.time),
        Entry::Refusal(r) => format!("refusal {} of {}, {}", r.reason, r.actor.id, r.time),
        Entry::Epoch(e) => format!("epoch {}, {}", e.epoch, e.time),
        Entry::Heartbeat(h) => format!("heartbeat after {} leaves, {}", h.previous.size, h.time),
        Entry::Key(k) => format!("key {}, {}", k.vkey, k.time),
        Entry::Policy(p) => format!("policy {}, {}", p.revision, p.time),
    }
}

/// For people. Everything that comes from the receipt is escaped.
impl fmt::Display for ReceiptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log     {}", escape(&self.log))?;
        self.keys.iter().try_for_each(|key| writeln!(f, "key     {}", escape(key)))?;
        writeln!(f, "entry   {}", self.index)?;
        if let Some(leaf) = &self.leaf {
            writeln!(f, "leaf    {}", escape(leaf))?;
        }
        match self.size {
            Some(size) => writeln!(f, "size    {size} leaves")?,
            None => writeln!(f, "size    none")?,
        }
        f.write_char('\n')?;
        for (name, verdict, _) in self.named_verdicts() {
            writeln!(f, "{name:<12} {}", verdict.as_str())?;
        }
        self.disclosures.iter().try_for_each(|disclosed| write!(f, "{disclosed}"))?;
        if let Some(what) = &self.evidence {
            writeln!(f, "problem  disclosed: {}", escape(what))?;
        }
        for problem in &self.problems {
            writeln!(f, "problem  {}: {}", problem.check.as_str(), escape(&problem.what))?;
        }
        Ok(())
    }
}
