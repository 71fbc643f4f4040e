//! The verification of a whole log.

use std::io;

use super::leaves::Leaves;
use super::report::{Check, Open, Problem, Report, Verdict, Verdicts};
use super::source::{CHECKPOINT_FILE, Source};
use super::walk::{Damage, Spot, Step, Walk};
use crate::limits;
use crate::merkle::checkpoint::{Checkpoint, parse_checkpoint};
use crate::merkle::frame::Frame;
use crate::merkle::note::VerifierKey;
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::model::{Digest, LeafIndex, TreeSize};

/// Verifies a log against a pinned key. `Err` only if something cannot be read.
///
/// The checkpoint is read before the frames: what a running gateway appends meanwhile is an unsigned tail.
pub fn verify_log<S: Source + ?Sized>(source: &S, key: &VerifierKey) -> io::Result<Report> {
    let mut pass = Pass::new(source, key)?;
    let mut walk = Walk::new(source, key.name())?;
    let mut looked_again = None;
    loop {
        match walk.step()? {
            Step::Frame(frame, spot) => pass.frame(&frame, spot),
            Step::End(_) => break,
            Step::Damaged(damage) if damage.may_be_whole_now(&mut looked_again) => {}
            Step::Damaged(damage) => {
                pass.damage(&damage);
                break;
            }
        }
    }
    Ok(pass.finish())
}

struct Pass {
    report: Report,
    vkey: String,
    signed: Option<Checkpoint>,
    /// Root of the tree at the signed size, once it was that large.
    root_at_signed: Option<Digest>,
    edge: RightEdge,
    leaves: Leaves,
    walked_to_end: bool,
}

impl Pass {
    fn new<S: Source + ?Sized>(source: &S, key: &VerifierKey) -> io::Result<Self> {
        let passing = Verdicts {
            frames: Verdict::Pass,
            well_formed: Verdict::Pass,
            included: Verdict::Pass,
            signed: Verdict::Pass,
            paired: Verdict::Pass,
            epochs: Verdict::Pass,
            evidence: Verdict::Pass,
        };
        let edge = RightEdge::empty();
        let mut report = Report {
            log: key.name().to_string(),
            key: key.to_string(),
            size: edge.size(),
            root: edge.root(),
            signed_size: None,
            unsigned_tail: 0,
            epochs: 0,
            decisions: 0,
            permits: 0,
            open: Vec::new(),
            open_count: 0,
            verdicts: passing,
            problems: Vec::new(),
            problem_count: 0,
            notes: Vec::new(),
        };
        let parsed = match source.checkpoint()? {
            None => Err("there is no checkpoint".to_owned()),
            Some(note) => parse_checkpoint(&note, key).map_err(|e| e.to_string()),
        };
        let signed = match parsed {
            Ok(verified) => Some(verified.checkpoint().clone()),
            Err(what) => {
                report.problem(of_checkpoint(what));
                None
            }
        };
        report.signed_size = signed.as_ref().map(|c| c.size);
        let root_at_signed = signed.as_ref().filter(|c| c.size == TreeSize(0)).map(|_| edge.root());
        let (vkey, leaves) = (key.to_string(), Leaves::default());
        Ok(Self { report, vkey, signed, root_at_signed, edge, leaves, walked_to_end: true })
    }

    fn frame(&mut self, frame: &Frame<'_>, spot: Spot) {
        let mut evidence = frame.evidence.iter();
        for entry in &frame.entries {
            let index = LeafIndex(self.edge.size().0);
            for (check, what) in self.leaves.read(entry, &self.edge, &mut evidence, &self.vkey) {
                self.report.problem(at(check, index, spot, what));
            }
            self.edge.append(leaf_hash(entry));
            if self.signed.as_ref().is_some_and(|c| c.size == self.edge.size()) {
                self.root_at_signed = Some(self.edge.root());
            }
        }
        if evidence.len() > 0 {
            let what = format!("{} evidence records of the frame belong to no leaf", evidence.len());
            self.report.problem(at(Check::Evidence, frame.first, spot, what));
        }
        if self.edge.root() != frame.root {
            let what = format!("the leaves give root {}, the frame names {}", self.edge.root(), frame.root);
            self.report.problem(at(Check::Included, frame.first, spot, what));
        }
    }

    fn damage(&mut self, damage: &Damage) {
        let Damage { spot, index, fault, bytes, followed_by } = damage;
        let signed_size = self.signed.as_ref().map_or(TreeSize(u64::MAX), |c| c.size);
        if damage.is_torn_tail() && index.0 >= signed_size.0 {
            self.report.notes.push(format!(
                "{bytes} bytes of an unfinished frame at the end, after everything that was signed ({spot}): \
                 a gateway is writing, or was killed"
            ));
            return;
        }
        let after = followed_by
            .map_or_else(|| "nothing follows".to_owned(), |next| format!("the log goes on in {next}"));
        self.report.problem(at(Check::Frames, *index, *spot, format!("{fault}; {after}")));
        self.walked_to_end = false;
    }

    fn finish(mut self) -> Report {
        self.report.size = self.edge.size();
        self.report.root = self.edge.root();
        self.report.epochs = self.leaves.epochs;
        self.report.decisions = self.leaves.decisions;
        self.report.permits = self.leaves.permits;
        self.finish_open();
        self.finish_signed();
        if !self.walked_to_end {
            for check in Check::ALL {
                let verdict = self.report.verdicts.of_mut(check);
                if *verdict == Verdict::Pass {
                    *verdict = Verdict::NotEstablished;
                }
            }
        }
        self.report
    }

    fn finish_open(&mut self) {
        self.report.open_count = self.leaves.open.len() as u64;
        let named = self.leaves.open.iter().take(limits::PROBLEMS_NAMED_MAX);
        self.report.open = named.map(|(&index, open)| Open { index, id: open.id }).collect();
        if self.edge.size() == TreeSize(0) && self.walked_to_end {
            self.report.problem(Problem {
                check: Check::Epochs,
                index: None,
                file: None,
                offset: None,
                what: "the log is empty: not even a start".into(),
            });
        }
    }

    fn finish_signed(&mut self) {
        let Some(signed) = &self.signed else { return };
        let size = self.edge.size();
        self.report.unsigned_tail = size.0.saturating_sub(signed.size.0);
        match self.root_at_signed {
            // Of a log that could not be read to the end, what is missing says nothing more.
            None if !self.walked_to_end => {}
            None => {
                let what =
                    format!("{} leaves were signed, the frames hold {size}: the log was cut", signed.size);
                self.report.problem(of_checkpoint(what));
            }
            Some(root) if root != signed.root => {
                let what = format!(
                    "at {} leaves root {} was signed, the frames give {root}",
                    signed.size, signed.root
                );
                self.report.problem(of_checkpoint(what));
            }
            Some(_) if self.report.unsigned_tail == 0 => {}
            Some(_) if self.leaves.ends_with_stop() => {
                let what = format!(
                    "the log ends with a clean stop, and yet {} leaves are not signed",
                    self.report.unsigned_tail
                );
                self.report.problem(of_checkpoint(what));
            }
            Some(_) => self.report.notes.push(format!(
                "{} leaves after the checkpoint are not signed yet: a gateway is running, or was killed",
                self.report.unsigned_tail
            )),
        }
    }
}

fn at(check: Check, index: LeafIndex, spot: Spot, what: String) -> Problem {
    Problem { check, index: Some(index), file: Some(spot.file()), offset: Some(spot.offset), what }
}

fn of_checkpoint(what: String) -> Problem {
    Problem { check: Check::Signed, index: None, file: Some(CHECKPOINT_FILE.into()), offset: None, what }
}
