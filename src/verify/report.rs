//! What a verification found: one verdict for each question, never one boolean.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::limits;
use crate::merkle::trust::Trust;
use crate::model::{Digest, LeafIndex, ReceiptId, TreeSize};

/// The questions, in the order in which a failing one decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Every frame is whole, in its place, and names the one before it.
    Frames,
    /// Every leaf is strict JSON in canonical form, of a known type with its members.
    WellFormed,
    /// Each frame's root is the root of the leaves up to it.
    Included,
    /// Every checkpoint is signed by a trusted key of this log, its root is the tree's at its size, and none is missing
    /// for leaves at the end.
    Signed,
    /// Each PERMIT has exactly one outcome, later and about the same bytes.
    Paired,
    /// Starts and stops follow each other and name the tree they found; keys come and go by their leaves, and decisions
    /// stand under a policy that their epoch activated.
    Epochs,
    /// Beside each decision stand the bytes that policy judged, as its `input_digest` names them, beside each policy
    /// its files, and nothing else.
    Evidence,
    /// What was derived for reading (tiles and entry bundles) is what the frames give.
    Tiles,
    /// The recorded input under the recorded policy gives the recorded verdict. This module cannot say: it evaluates
    /// nothing, and takes the word of whoever does.
    Replayed,
}

impl Check {
    pub const ALL: [Check; 9] = [
        Self::Frames,
        Self::WellFormed,
        Self::Included,
        Self::Signed,
        Self::Paired,
        Self::Epochs,
        Self::Evidence,
        Self::Tiles,
        Self::Replayed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::WellFormed => "well-formed",
            Self::Included => "included",
            Self::Signed => "signed",
            Self::Paired => "paired",
            Self::Epochs => "epochs",
            Self::Evidence => "evidence",
            Self::Tiles => "tiles",
            Self::Replayed => "replayed",
        }
    }

    /// Exit code of `interlock verify` when this is the first check that failed.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Frames | Self::WellFormed => 10,
            Self::Included => 11,
            Self::Signed => 12,
            Self::Paired => 13,
            Self::Epochs => 14,
            Self::Evidence => 15,
            Self::Tiles => 16,
            Self::Replayed => 17,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    /// Nothing wrong was seen, but not all was looked at, because something else failed; or leaves stand in the log that
    /// nobody has signed.
    NotEstablished,
    /// Nobody asked.
    NotChecked,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotEstablished => "not established",
            Self::NotChecked => "not checked",
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub check: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<LeafIndex>,
    /// Relative to the log's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Of the frame that holds it, bytes from the start of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    pub what: String,
}

/// For people, on one line; what comes from the log is escaped.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.check.as_str())?;
        if let Some(index) = self.index {
            write!(f, "entry {index}: ")?;
        }
        write!(f, "{}", escape(&self.what))?;
        if let Some(file) = &self.file {
            write!(f, " [{}", escape(file))?;
            if let Some(offset) = self.offset {
                write!(f, ", offset {offset}")?;
            }
            f.write_char(']')?;
        }
        Ok(())
    }
}

/// A PERMIT at the end of the log that has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Open {
    pub index: LeafIndex,
    pub id: ReceiptId,
}

/// A checkpoint that was kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Archived {
    pub file: String,
    pub size: TreeSize,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub log: String,
    /// Keys that are trusted.
    pub keys: Vec<String>,
    /// Leaves that were read, and their root.
    pub size: TreeSize,
    pub root: Digest,
    /// Size of the newest checkpoint, if a trusted key signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_size: Option<TreeSize>,
    /// The trusted keys that did.
    pub signed_by: Vec<String>,
    /// Leaves after it.
    pub unsigned_tail: u64,
    /// Checkpoints from elsewhere that a trusted key signed.
    pub archived: Vec<Archived>,
    /// Tiles and entry bundles that were compared with the frames, whole and partial ones.
    pub tiles_compared: u64,
    pub epochs: u64,
    pub decisions: u64,
    pub permits: u64,
    /// At most [`limits::PROBLEMS_NAMED_MAX`] of them by name.
    pub open: Vec<Open>,
    pub open_count: u64,
    pub verdicts: Verdicts,
    pub problems: Vec<Problem>,
    /// With those that are not named.
    pub problem_count: u64,
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    pub frames: Verdict,
    pub well_formed: Verdict,
    pub included: Verdict,
    pub signed: Verdict,
    pub paired: Verdict,
    pub epochs: Verdict,
    pub evidence: Verdict,
    pub tiles: Verdict,
    pub replayed: Verdict,
}

impl Verdicts {
    pub const fn of(&self, check: Check) -> Verdict {
        match check {
            Check::Frames => self.frames,
            Check::WellFormed => self.well_formed,
            Check::Included => self.included,
            Check::Signed => self.signed,
            Check::Paired => self.paired,
            Check::Epochs => self.epochs,
            Check::Evidence => self.evidence,
            Check::Tiles => self.tiles,
            Check::Replayed => self.replayed,
        }
    }

    pub(super) fn of_mut(&mut self, check: Check) -> &mut Verdict {
        match check {
            Check::Frames => &mut self.frames,
            Check::WellFormed => &mut self.well_formed,
            Check::Included => &mut self.included,
            Check::Signed => &mut self.signed,
            Check::Paired => &mut self.paired,
            Check::Epochs => &mut self.epochs,
            Check::Evidence => &mut self.evidence,
            Check::Tiles => &mut self.tiles,
            Check::Replayed => &mut self.replayed,
        }
    }
}

impl Report {
    /// Everything that was checked.
    pub fn passed(&self) -> bool {
        self.exit_code() == 0
    }

    /// What a replay of the same log found: its verdict, the decisions that differ, and a word for people.
    pub fn replayed(&mut self, verdict: Verdict, differ: Vec<Problem>, note: String) {
        self.verdicts.replayed = verdict;
        differ.into_iter().for_each(|problem| self.problem(problem));
        self.notes.push(note);
    }

    /// 0 if everything passed, else the code of the first check that failed, else of the first not established.
    pub fn exit_code(&self) -> u8 {
        let first = |wanted| Check::ALL.into_iter().find(|&c| self.verdicts.of(c) == wanted);
        first(Verdict::Fail).or(first(Verdict::NotEstablished)).map_or(0, Check::exit_code)
    }

    /// Nothing wrong was found yet.
    pub(super) fn new(trust: &Trust, root: Digest) -> Self {
        Self {
            log: trust.log().to_string(),
            keys: trust.keys().iter().map(ToString::to_string).collect(),
            size: TreeSize(0),
            root,
            signed_size: None,
            signed_by: Vec::new(),
            unsigned_tail: 0,
            archived: Vec::new(),
            tiles_compared: 0,
            epochs: 0,
            decisions: 0,
            permits: 0,
            open: Vec::new(),
            open_count: 0,
            verdicts: Verdicts {
                frames: Verdict::Pass,
                well_formed: Verdict::Pass,
                included: Verdict::Pass,
                signed: Verdict::Pass,
                paired: Verdict::Pass,
                epochs: Verdict::Pass,
                evidence: Verdict::Pass,
                tiles: Verdict::Pass,
                replayed: Verdict::NotChecked,
            },
            problems: Vec::new(),
            problem_count: 0,
            notes: Vec::new(),
        }
    }

    /// What has not failed was not looked at to the end.
    pub(super) fn not_established(&mut self, check: Check) {
        let verdict = self.verdicts.of_mut(check);
        if *verdict == Verdict::Pass {
            *verdict = Verdict::NotEstablished;
        }
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        *self.verdicts.of_mut(problem.check) = Verdict::Fail;
        self.problem_count += 1;
        // A flood of one kind does not keep the first ones of another from being named.
        let of_kind = || self.problems.iter().filter(|named| named.check == problem.check).count();
        if self.problems.len() < limits::PROBLEMS_NAMED_MAX || of_kind() < limits::PROBLEMS_OF_KIND_NAMED {
            self.problems.push(problem);
        }
    }
}

/// For people. Everything that comes from the log is escaped.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log     {}", escape(&self.log))?;
        self.keys.iter().try_for_each(|key| writeln!(f, "key     {}", escape(key)))?;
        writeln!(
            f,
            "leaves  {} ({} decisions, {} permits, {} epochs)",
            self.size, self.decisions, self.permits, self.epochs
        )?;
        writeln!(f, "root    {}", self.root)?;
        match self.signed_size {
            Some(size) => writeln!(f, "signed  {size} leaves, {} after them", self.unsigned_tail)?,
            None => writeln!(f, "signed  nothing")?,
        }
        for archived in &self.archived {
            writeln!(f, "kept    {} leaves, {}", archived.size, escape(&archived.file))?;
        }
        if self.tiles_compared > 0 {
            writeln!(f, "tiles   {} compared", self.tiles_compared)?;
        }
        writeln!(f)?;
        for check in Check::ALL {
            writeln!(f, "{:<12} {}", check.as_str(), self.verdicts.of(check).as_str())?;
        }
        for open in &self.open {
            writeln!(f, "open     entry {}, receipt {}", open.index, open.id)?;
        }
        for note in &self.notes {
            writeln!(f, "note     {}", escape(note))?;
        }
        for problem in &self.problems {
            writeln!(f, "problem  {problem}")?;
        }
        let unnamed = self.problem_count - self.problems.len() as u64;
        if unnamed > 0 {
            writeln!(f, "problem  {unnamed} more")?;
        }
        Ok(())
    }
}

/// Text from a log, safe for a terminal: control characters, and those that turn or hide text, as `\u{..}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers_terminal(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for JSON, which stays the same JSON: the characters stand in strings, and become `\uXXXX` there.
/// Line feeds between members stay.
pub fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && steers_terminal(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// All of these have four hex digits.
fn steers_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_log_cannot_steer_a_terminal() {
        assert_eq!(escape("a\u{1b}[2Jb\r\n\u{9b}\u{202e}é"), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}\\u{202e}é");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let text = "{\n  \"a\": \"\u{9b}\u{7f}\u{202e}\\u001b é\"\n}";
        let escaped = escape_json(text);
        assert!(!escaped.contains(|c| c != '\n' && steers_terminal(c)), "{escaped}");
        let read = |t: &str| serde_json::from_str::<serde_json::Value>(t).expect("json");
        assert_eq!(read(&escaped), read(text));
    }

    #[test]
    fn the_first_failing_check_decides_the_exit_code() {
        let codes: Vec<_> = Check::ALL.iter().map(|c| c.exit_code()).collect();
        assert_eq!(codes, [10, 10, 11, 12, 13, 14, 15, 16, 17]);
    }
}
