//! C2SP tlog-checkpoint 1.0.0: the signed size and root of the log, under its name.
//!
//! Text: `log_origin LF size LF base64(root) LF`, signed as a note by a key named like the log. We write no
//! extension lines and accept none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::note::{
    NoteError, Signer, SigningFailed, VerifierKey, parse_note_unverified, sign_note_with_all, verify_note,
};
use crate::model::{Digest, LogOrigin, TreeSize};

/// What a checkpoint says. Says nothing about who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: LogOrigin,
    pub size: TreeSize,
    pub root: Digest,
}

/// A checkpoint whose signature by the pinned key was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint(Checkpoint);

impl VerifiedCheckpoint {
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.0
    }
}

/// Why a checkpoint is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("{0}")]
    Note(#[from] NoteError),
    #[error("the text is not a checkpoint: log name, size, root, one a line")]
    Malformed,
    #[error("the checkpoint is of the log `{found}`, the key of `{expected}`")]
    OtherLog { found: LogOrigin, expected: LogOrigin },
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The whole note.
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, SigningFailed> {
        self.sign_with_all([signer])
    }

    /// The whole note, with a line for each signer, in their order.
    pub fn sign_with_all<'s>(
        &self,
        signers: impl IntoIterator<Item = &'s dyn Signer>,
    ) -> Result<String, SigningFailed> {
        let of_this_log = signers.into_iter().inspect(|signer| {
            assert_eq!(&self.origin, signer.verifier().name(), "a log signs with keys of its own name");
        });
        sign_note_with_all(&self.text(), of_this_log)
    }
}

/// Reads a note's text as a checkpoint without looking at its signatures.
pub fn parse_checkpoint_unverified(note: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let (text, _) = parse_note_unverified(note)?;
    parse_text(text)
}

/// Reads a checkpoint signed by this key, for the log of the key's name.
pub fn parse_checkpoint(note: &[u8], key: &VerifierKey) -> Result<VerifiedCheckpoint, CheckpointError> {
    parse_checkpoint_by_any(note, std::slice::from_ref(key))
}

/// Reads a checkpoint signed by at least one of these keys, for the log of the keys' name. A wrong signature by
/// any of them refuses it, whatever the others say.
pub fn parse_checkpoint_by_any(
    note: &[u8],
    keys: &[VerifierKey],
) -> Result<VerifiedCheckpoint, CheckpointError> {
    let checkpoint = parse_text(verify_note(note, keys)?)?;
    if let Some(other) = keys.iter().find(|key| *key.name() != checkpoint.origin) {
        return Err(CheckpointError::OtherLog { found: checkpoint.origin, expected: other.name().clone() });
    }
    Ok(VerifiedCheckpoint(checkpoint))
}

fn parse_text(text: &str) -> Result<Checkpoint, CheckpointError> {
    let parsed = || {
        let mut lines = text.split_terminator('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let checkpoint = Checkpoint {
            origin: origin.parse().ok()?,
            size: TreeSize(size.parse().ok()?),
            root: Digest::from_bytes(STANDARD.decode(root).ok()?.try_into().ok()?),
        };
        // One text for one checkpoint: no leading zeros or signs, no extension lines.
        (checkpoint.text() == text).then_some(checkpoint)
    };
    parsed().ok_or(CheckpointError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::super::note::sign_note;
    use super::super::note::tests::SeedSigner;
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "example.org/log".parse().expect("a name"),
            size: TreeSize(300),
            root: Digest::of(b"root"),
        }
    }

    #[test]
    fn a_signed_checkpoint_has_its_golden_bytes_and_reads_back() {
        let signer = SeedSigner::new("example.org/log", 1);
        let note = checkpoint().sign(&signer).expect("signs");
        assert_eq!(note, include_str!("../../tests/golden/checkpoint.txt"));
        let read = parse_checkpoint(note.as_bytes(), signer.verifier()).expect("verifies");
        assert_eq!(*read.checkpoint(), checkpoint());
        assert_eq!(parse_checkpoint_unverified(note.as_bytes()), Ok(checkpoint()));
    }

    #[test]
    fn a_checkpoint_of_two_signers_has_its_golden_bytes_and_either_key_reads_it() {
        let [a, b] = [1, 2].map(|seed| SeedSigner::new("example.org/log", seed));
        let note = checkpoint().sign_with_all([&a as &dyn Signer, &b]).expect("signs");
        assert_eq!(note, include_str!("../../tests/golden/checkpoint_of_two_signers.txt"));
        for key in [a.verifier(), b.verifier()] {
            assert_eq!(*parse_checkpoint(note.as_bytes(), key).expect("verifies").checkpoint(), checkpoint());
        }
    }

    #[test]
    fn any_of_several_keys_is_enough_but_a_wrong_signature_of_one_is_too_much() {
        let [a, b, c] = [1, 2, 3].map(|seed| SeedSigner::new("example.org/log", seed));
        let keys = [a.verifier().clone(), b.verifier().clone()];
        let by = |signer: &SeedSigner| checkpoint().sign(signer).expect("signs");
        assert!(parse_checkpoint_by_any(by(&b).as_bytes(), &keys).is_ok());
        let refused = parse_checkpoint_by_any(by(&c).as_bytes(), &keys);
        assert_eq!(refused, Err(CheckpointError::Note(NoteError::NotSigned)));
        // Two notes of one text: the lines of the first, and a line of `b` over something else.
        let text = checkpoint().text();
        let wrong = sign_note("another\n", &b).expect("signs").split_off("another\n\n".len());
        let mixed = by(&a) + &wrong;
        assert!(mixed.starts_with(&text) && parse_checkpoint_by_any(mixed.as_bytes(), &keys[..1]).is_ok());
        let refused = parse_checkpoint_by_any(mixed.as_bytes(), &keys);
        assert_eq!(refused, Err(CheckpointError::Note(NoteError::BadSignature)));
    }

    #[test]
    fn no_key_reads_no_checkpoint() {
        let note = checkpoint().sign(&SeedSigner::new("example.org/log", 1)).expect("signs");
        let refused = parse_checkpoint_by_any(note.as_bytes(), &[]);
        assert_eq!(refused, Err(CheckpointError::Note(NoteError::NotSigned)));
    }

    #[test]
    fn another_key_of_the_same_name_does_not_verify_it() {
        let note = checkpoint().sign(&SeedSigner::new("example.org/log", 1)).expect("signs");
        let other = SeedSigner::new("example.org/log", 2);
        let refused = parse_checkpoint(note.as_bytes(), other.verifier());
        assert_eq!(refused, Err(CheckpointError::Note(NoteError::NotSigned)));
    }

    #[test]
    fn a_checkpoint_of_another_log_is_refused_even_when_this_key_signed_it() {
        let signer = SeedSigner::new("example.org/other", 1);
        let note = sign_note(&checkpoint().text(), &signer).expect("signs");
        let refused = parse_checkpoint(note.as_bytes(), signer.verifier());
        assert!(matches!(refused, Err(CheckpointError::OtherLog { .. })), "{refused:?}");
    }

    #[test]
    fn other_spellings_of_the_text_are_refused() {
        let text = checkpoint().text();
        let spellings = [
            text.replace("300", "0300"),
            text.replace("300", "+300"),
            text.replace("300", "-1"),
            text.replace("300", "18446744073709551616"),
            format!("{text}extension\n"),
            text.replace('=', ""),
            "example.org/log\n300\n".to_owned(),
            "example.org/log\n300\nAAAA\n".to_owned(),
        ];
        for spelling in spellings {
            assert_eq!(parse_text(&spelling), Err(CheckpointError::Malformed), "{spelling:?}");
        }
    }

    #[test]
    fn a_note_with_any_bit_changed_or_anything_added_is_refused() {
        let signer = SeedSigner::new("example.org/log", 1);
        let note = checkpoint().sign(&signer).expect("signs");
        let refused = |bytes: &[u8]| parse_checkpoint(bytes, signer.verifier()).is_err();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bent = note.clone().into_bytes();
                bent[at] ^= 1 << bit;
                assert!(refused(&bent), "byte {at} bit {bit}");
            }
            assert!(refused(&note.as_bytes()[..at]), "cut at {at}");
        }
        let (text, line) = note.split_once("\n\n").expect("two parts");
        let spellings = [
            note.replace('\n', "\r\n"),
            format!("{text}\n\n{}\r\n", line.trim_end()),
            format!("{note}\n"),
            format!("{note} "),
            format!("{note}\0"),
            format!("\u{feff}{note}"),
            format!(" {note}"),
            note.replace("\u{2014} ", "\u{2014}  "),
            format!("{text}\n\n\n{line}"),
            format!("{text}\n\n{}=\n", line.trim_end()),
            format!("{text}\n\n{}\n", line.trim_end().trim_end_matches('=')),
            format!("{text}\n\n{}", line.replacen(' ', "\u{a0}", 1)),
        ];
        for spelling in spellings {
            assert!(refused(spelling.as_bytes()), "{spelling:?}");
        }
    }
}
