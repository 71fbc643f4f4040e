//! One receipt, its proof and a trust: what a caller can check alone, without the log.
//!
//! Three questions, each with its own verdict: is the leaf well-formed, is it in the tree that the proof's checkpoint
//! names, and did a trusted key sign that checkpoint. What a receipt says of the log around it stays open.

use std::fmt::{self, Write};

use serde::Serialize;

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
    pub problems: Vec<Problem>,
}

/// Checks exactly these bytes of a leaf.
pub fn verify_receipt(leaf: &[u8], proof: &TlogProof, trust: &Trust) -> ReceiptReport {
    let hash = leaf_hash(leaf);
    let mut report = ReceiptReport {
        log: trust.log().to_string(),
        keys: trust.keys().iter().map(ToString::to_string).collect(),
        signed_by: Vec::new(),
        index: proof.index,
        leaf_hash: hash,
        size: None,
        leaf: None,
        verdicts: ReceiptVerdicts {
            well_formed: Verdict::Pass,
            included: Verdict::Pass,
            signed: Verdict::Pass,
        },
        problems: Vec::new(),
    };
    report.read_leaf(leaf);
    match parse_checkpoint_unverified(proof.checkpoint.as_bytes()) {
        Err(why) => {
            report.verdicts.included = Verdict::NotEstablished;
            report.problem(Check::Signed, why.to_string());
        }
        Ok(checkpoint) => {
            report.size = Some(checkpoint.size);
            let included = verify_inclusion(hash, proof.index, checkpoint.size, &proof.path, checkpoint.root);
            if let Err(why) = included {
                report.problem(Check::Included, why.to_string());
            }
            match trust.checkpoint(proof.checkpoint.as_bytes()) {
                Ok(signed) => report.signed_by = signed.signers().iter().map(ToString::to_string).collect(),
                Err(why) => report.problem(Check::Signed, why.to_string()),
            }
        }
    }
    report
}

impl ReceiptReport {
    pub fn passed(&self) -> bool {
        self.exit_code() == 0
    }

    /// 0 if everything passed, else the code of the first check that did not.
    pub fn exit_code(&self) -> u8 {
        let ReceiptVerdicts { well_formed, included, signed } = self.verdicts;
        let verdicts =
            [(Check::WellFormed, well_formed), (Check::Included, included), (Check::Signed, signed)];
        let first = |wanted| verdicts.into_iter().find(|(_, verdict)| *verdict == wanted);
        first(Verdict::Fail).or(first(Verdict::NotEstablished)).map_or(0, |(check, _)| check.exit_code())
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
            | Check::Tiles => self.verdicts.well_formed = Verdict::Fail,
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
        let ReceiptVerdicts { well_formed, included, signed } = self.verdicts;
        for (check, verdict) in
            [(Check::WellFormed, well_formed), (Check::Included, included), (Check::Signed, signed)]
        {
            writeln!(f, "{:<12} {}", check.as_str(), verdict.as_str())?;
        }
        for problem in &self.problems {
            writeln!(f, "problem  {}: {}", problem.check.as_str(), escape(&problem.what))?;
        }
        Ok(())
    }
}
