//! Whose word on a log is believed: C2SP tlog-policy.
//!
//! In: a file of lines `log <vkey> [<url>]`, `witness <name> <vkey> [<url>]`, `group <name> any|all|<k> <name>...`
//! and one `quorum <name>`; comments begin with `#`. Out: the keys of one log. All of it is checked; a quorum other
//! than `none` is refused, because cosignatures are not yet checked and must not seem to be.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Checkpoint, CheckpointError, parse_checkpoint_unverified};
use super::note::{VerifierKey, signers_of_note};
use crate::limits;
use crate::model::{Digest, LogOrigin};

/// Signature type of a cosignature over a checkpoint (C2SP tlog-cosignature).
const ALGORITHM_COSIGNATURE: u8 = 0x04;

/// Keys of one log, at least one. A checkpoint is believed if one of them signed it and none of them wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<VerifierKey>,
}

/// A checkpoint of the trusted log, and who of the trusted signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    signers: Vec<VerifierKey>,
}

impl SignedCheckpoint {
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// At least one.
    pub fn signers(&self) -> &[VerifierKey] {
        &self.signers
    }
}

/// Why a trust file is refused. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrust {
    #[error("the file is larger than {max} bytes", max = limits::TRUST_FILE_BYTES_MAX)]
    TooLarge,
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
    #[error("there is no `log` line, so nothing would be believed")]
    NoLog,
    #[error("there is no `quorum` line; `quorum none` asks for no witnesses")]
    NoQuorum,
}

impl From<VerifierKey> for Trust {
    fn from(key: VerifierKey) -> Self {
        Self { keys: vec![key] }
    }
}

impl Trust {
    /// Name of the log, and of all its keys.
    pub fn log(&self) -> &LogOrigin {
        self.keys.first().expect("a trust has at least one key").name()
    }

    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// Reads a trust file.
    pub fn parse(file: &[u8]) -> Result<Self, InvalidTrust> {
        if file.len() > limits::TRUST_FILE_BYTES_MAX {
            return Err(InvalidTrust::TooLarge);
        }
        let mut reading = Reading::default();
        let text = file.strip_suffix(b"\n").unwrap_or(file);
        for (at, line) in text.split(|&b| b == b'\n').enumerate() {
            reading.line(line).map_err(|what| InvalidTrust::Line { line: at + 1, what })?;
        }
        if !reading.quorum {
            return Err(InvalidTrust::NoQuorum);
        }
        if reading.logs.is_empty() { Err(InvalidTrust::NoLog) } else { Ok(Self { keys: reading.logs }) }
    }

    /// Reads a checkpoint of this log that at least one of the keys signed and none of them wrongly.
    pub fn checkpoint(&self, note: &[u8]) -> Result<SignedCheckpoint, CheckpointError> {
        let signers = signers_of_note(note, &self.keys)?;
        let checkpoint = parse_checkpoint_unverified(note)?;
        if checkpoint.origin != *self.log() {
            return Err(CheckpointError::OtherLog { found: checkpoint.origin, expected: self.log().clone() });
        }
        Ok(SignedCheckpoint { checkpoint, signers })
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<VerifierKey>,
    /// Names of witnesses and groups: those that no group has taken yet.
    names: BTreeMap<Vec<u8>, bool>,
    witnesses: BTreeSet<Vec<u8>>,
    lines: usize,
    quorum: bool,
}

impl Reading {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if line.iter().any(|&b| b < 0x20 && b != b'\t' || b == 0x7f) {
            return Err("holds a control character; lines end in LF alone".into());
        }
        let words: Vec<&[u8]> =
            line.split(|&b| b == b' ' || b == b'\t').filter(|word| !word.is_empty()).collect();
        let Some((&kind, words)) = words.split_first().filter(|(kind, _)| !kind.starts_with(b"#")) else {
            return Ok(());
        };
        self.lines += 1;
        if self.lines > limits::TRUST_LINES_MAX {
            return Err(format!("more than {} lines that say something", limits::TRUST_LINES_MAX));
        }
        match (kind, words) {
            (b"log", [vkey] | [vkey, _]) => self.log(vkey),
            (b"witness", [name, vkey] | [name, vkey, _]) => self.witness(name, vkey),
            (b"group", [name, threshold, members @ ..]) if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            (b"quorum", [name]) => self.quorum(name),
            (b"log" | b"witness" | b"group" | b"quorum", _) => {
                Err(format!("a `{}` line has other words than these", lossy(kind)))
            }
            (other, _) => Err(format!("`{}` is none of `log`, `witness`, `group`, `quorum`", lossy(other))),
        }
    }

    fn log(&mut self, vkey: &[u8]) -> Result<(), String> {
        let key: VerifierKey = lossy(vkey).parse().map_err(|e| format!("not a log's key: {e}"))?;
        if let Some(first) = self.logs.first()
            && first.name() != key.name()
        {
            return Err(format!(
                "a key of `{}`, after one of `{}`: one log at a time",
                key.name(),
                first.name()
            ));
        }
        if self.logs.iter().any(|known| known.has_public_key_of(&key)) {
            return Err("the same public key a second time".into());
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &[u8], vkey: &[u8]) -> Result<(), String> {
        let key = cosigner(vkey).ok_or("not a witness's key (a verifier key of type 4)")?;
        if !self.witnesses.insert(key) {
            return Err("the same public key a second time".into());
        }
        self.define(name)
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), String> {
        let is_number = threshold.first().is_some_and(|b| (b'1'..=b'9').contains(b))
            && threshold.iter().all(u8::is_ascii_digit);
        let reachable =
            is_number && lossy(threshold).parse::<usize>().is_ok_and(|needed| needed <= members.len());
        if !(threshold == b"any" || threshold == b"all" || reachable) {
            return Err(format!("`{}` is no threshold for {} members", lossy(threshold), members.len()));
        }
        for &member in members {
            match self.names.get_mut(member) {
                Some(taken @ false) => *taken = true,
                Some(true) => return Err(format!("`{}` is in a group already", lossy(member))),
                None => return Err(format!("`{}` is not defined above", lossy(member))),
            }
        }
        self.define(name)
    }

    fn define(&mut self, name: &[u8]) -> Result<(), String> {
        if name == b"none" || self.names.insert(name.to_vec(), false).is_some() {
            return Err(format!("the name `{}` is taken", lossy(name)));
        }
        Ok(())
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), String> {
        if std::mem::replace(&mut self.quorum, true) {
            return Err("a second `quorum` line".into());
        }
        if name == b"none" {
            return Ok(());
        }
        Err(match self.names.contains_key(name) {
            true => "a quorum of witnesses is asked for, and cosignatures are not checked yet: `quorum none`"
                .into(),
            false => format!("`{}` is not defined above", lossy(name)),
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The public key of a cosigner: `name+8 hex digits+base64(0x04 || key)`, the digits as in a signed note.
fn cosigner(vkey: &[u8]) -> Option<Vec<u8>> {
    let mut parts = vkey.splitn(3, |&b| b == b'+');
    let (name, id, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let typed = STANDARD.decode(encoded).ok()?;
    let (&algorithm, key) = typed.split_first()?;
    let [a, b, c, d, ..] = *Digest::of(&[name, b"\n", &typed].concat()).as_bytes();
    let expected = format!("{a:02x}{b:02x}{c:02x}{d:02x}");
    let fits = !name.is_empty() && algorithm == ALGORITHM_COSIGNATURE && key.len() == 32;
    (fits && id == expected.as_bytes()).then(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::note::Signer;
    use super::super::note::tests::SeedSigner;
    use super::*;
    use crate::model::TreeSize;

    fn signer(seed: u8) -> SeedSigner {
        SeedSigner::new("example.org/log", seed)
    }

    fn witness(name: &str, seed: u8) -> String {
        let typed = [&[ALGORITHM_COSIGNATURE][..], &[seed; 32]].concat();
        let [a, b, c, d, ..] = *Digest::of(&[name.as_bytes(), b"\n", &typed].concat()).as_bytes();
        format!("{name}+{a:02x}{b:02x}{c:02x}{d:02x}+{}", STANDARD.encode(typed))
    }

    #[test]
    fn a_file_of_the_form_is_read_and_its_log_keys_are_what_is_trusted() {
        let (one, two) = (signer(1), signer(2));
        let file = format!(
            "# whom we believe\n\n \tlog {} https://example.org/log\nlog\t{}\n\
             witness w1 {}\nwitness W\u{f6} {} https://w.example\n  # both\ngroup both 2 w1 W\u{f6}\n\
             group g any both\nquorum none\n",
            one.verifier(),
            two.verifier(),
            witness("w.example/1", 1),
            witness("w.example/2", 2),
        );
        let trust = Trust::parse(file.as_bytes()).expect("a trust file");
        assert_eq!(trust.keys(), [one.verifier().clone(), two.verifier().clone()]);
        assert_eq!(trust.log().as_str(), "example.org/log");
        assert_eq!(Trust::parse(file.trim_end().as_bytes()), Ok(trust), "without the last line's end");
    }

    #[test]
    fn every_line_that_is_not_as_it_should_be_is_refused_by_number() {
        let key = signer(1).verifier().to_string();
        let (w, v) = (witness("w.example/1", 1), witness("w.example/2", 2));
        let other = SeedSigner::new("example.org/other", 3).verifier().to_string();
        let cases = [
            ("log".to_owned(), "other words"),
            (format!("log {w}"), "not a log's key"),
            (format!("log {key} url more"), "other words"),
            (format!("log {key}\nlog {key}"), "a second time"),
            (format!("log {key}\nlog {other}"), "one log at a time"),
            (format!("log {key}\r"), "control character"),
            (format!("LOG {key}"), "none of"),
            (format!("witness w {key}"), "not a witness's key"),
            (format!("witness w {}", w.replacen("+", "+0", 1)), "not a witness's key"),
            (format!("witness none {w}"), "is taken"),
            (format!("witness w {w}\nwitness w {v}"), "is taken"),
            (format!("witness w {w}\nwitness v {w}"), "a second time"),
            (format!("witness w {w}\ngroup g"), "other words"),
            (format!("witness w {w}\ngroup g all"), "other words"),
            (format!("witness w {w}\ngroup g 0 w"), "no threshold"),
            (format!("witness w {w}\ngroup g 2 w"), "no threshold"),
            (format!("witness w {w}\ngroup g +1 w"), "no threshold"),
            (format!("witness w {w}\ngroup g any v"), "not defined"),
            (format!("witness w {w}\ngroup g any none"), "not defined"),
            (format!("witness w {w}\ngroup g all w w"), "in a group already"),
            (format!("witness w {w}\ngroup g all w\ngroup h all w"), "in a group already"),
            (format!("witness w {w}\nquorum w"), "not checked yet"),
            ("quorum w".to_owned(), "not defined"),
            ("quorum none\nquorum none".to_owned(), "a second"),
            ("quorum".to_owned(), "other words"),
        ];
        for (lines, wanted) in cases {
            let refused = Trust::parse(format!("{lines}\n").as_bytes()).expect_err(&lines);
            let last = lines.lines().count();
            let InvalidTrust::Line { line, what } = refused else { panic!("{lines}: {refused}") };
            assert!(line == last && what.contains(wanted), "{lines}: line {line}: {what}");
        }
        assert_eq!(Trust::parse(format!("log {key}\n").as_bytes()), Err(InvalidTrust::NoQuorum));
        assert_eq!(Trust::parse(b"quorum none\n"), Err(InvalidTrust::NoLog));
        let large = vec![b'\n'; limits::TRUST_FILE_BYTES_MAX + 1];
        assert_eq!(Trust::parse(&large), Err(InvalidTrust::TooLarge));
        let many = "group\n".repeat(limits::TRUST_LINES_MAX + 1);
        assert!(matches!(Trust::parse(many.as_bytes()), Err(InvalidTrust::Line { line: 1, .. })));
    }

    #[test]
    fn one_trusted_key_is_enough_and_one_wrong_signature_too_many() {
        let checkpoint = Checkpoint {
            origin: "example.org/log".parse().expect("a name"),
            size: TreeSize(3),
            root: Digest::of(b""),
        };
        let (one, two) = (signer(1), signer(2));
        let (by_one, by_two) = (checkpoint.sign(&one).expect("signs"), checkpoint.sign(&two).expect("signs"));
        let line_of = |note: &str| note.lines().last().map(|l| format!("{l}\n")).expect("a line");
        let both = format!("{by_one}{}", line_of(&by_two));
        let trust = Trust { keys: vec![one.verifier().clone(), two.verifier().clone()] };
        let signers = |note: &str| trust.checkpoint(note.as_bytes()).map(|c| c.signers().len());
        assert_eq!((signers(&by_one), signers(&by_two), signers(&both)), (Ok(1), Ok(1), Ok(2)));
        assert_eq!(
            Trust::from(two.verifier().clone()).checkpoint(both.as_bytes()).map(|c| c.signers().len()),
            Ok(1)
        );
        let of_more = Checkpoint { size: TreeSize(4), ..checkpoint };
        let wrong = format!("{by_one}{}", line_of(&of_more.sign(&two).expect("signs")));
        assert!(trust.checkpoint(wrong.as_bytes()).is_err());
        assert!(
            Trust::from(one.verifier().clone()).checkpoint(wrong.as_bytes()).is_ok(),
            "of an unknown key"
        );
        assert!(Trust::from(signer(3).verifier().clone()).checkpoint(both.as_bytes()).is_err());
    }
}
