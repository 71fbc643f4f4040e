//! C2SP tlog-proof: what a caller keeps of one receipt, and checks alone.
//!
//! Form: `c2sp.org/tlog-proof@v1`, optionally `extra <base64>`, `index <n>`, the inclusion path as one base64 hash a
//! line from the leaf up, an empty line, the checkpoint.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::limits;
use crate::model::{Digest, LeafIndex};

const VERSION_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A leaf's place in the tree of a signed checkpoint. Says nothing until it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    pub index: LeafIndex,
    /// From the leaf to the root.
    pub path: Vec<Digest>,
    /// A signed note.
    pub checkpoint: String,
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{VERSION_LINE}\nindex {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash.as_bytes())))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why a text is not a proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    #[error("more than {max} bytes", max = limits::PROOF_BYTES_MAX)]
    TooLarge,
    #[error("the first line is not `c2sp.org/tlog-proof@v1`")]
    Version,
    #[error("the `extra` line is not `extra`, a space and base64")]
    Extra,
    #[error("the `index` line is not `index`, a space and a decimal number without leading zeros")]
    Index,
    #[error("line {0} is not the base64 of a hash")]
    Hash(usize),
    #[error("more than {max} hashes", max = limits::PROOF_HASHES_MAX)]
    TooLong,
    #[error("there is no empty line before the checkpoint, or nothing after it")]
    NoCheckpoint,
}

/// Reads the one spelling of a proof. Extra data is nobody's word for anything, and is left out.
impl FromStr for TlogProof {
    type Err = InvalidProof;

    fn from_str(text: &str) -> Result<Self, InvalidProof> {
        if text.len() > limits::PROOF_BYTES_MAX {
            return Err(InvalidProof::TooLarge);
        }
        let mut rest = text;
        let mut number = 0;
        let mut line = || {
            let (line, after) = rest.split_once('\n').ok_or(InvalidProof::NoCheckpoint)?;
            rest = after;
            number += 1;
            Ok((line, number))
        };
        if line()?.0 != VERSION_LINE {
            return Err(InvalidProof::Version);
        }
        let (mut next, _) = line()?;
        if let Some(extra) = next.strip_prefix("extra ") {
            // The engine refuses missing padding, line breaks and bits past the last byte.
            STANDARD.decode(extra).ok().filter(|data| !data.is_empty()).ok_or(InvalidProof::Extra)?;
            (next, _) = line()?;
        }
        let index: u64 =
            next.strip_prefix("index ").and_then(|n| n.parse().ok()).ok_or(InvalidProof::Index)?;
        if format!("index {index}") != next {
            return Err(InvalidProof::Index);
        }
        let mut path = Vec::new();
        loop {
            let (hash, at) = line()?;
            if hash.is_empty() {
                break;
            }
            let hash = STANDARD.decode(hash).ok().and_then(|bytes| bytes.try_into().ok());
            path.push(Digest::from_bytes(hash.ok_or(InvalidProof::Hash(at))?));
            if path.len() > limits::PROOF_HASHES_MAX {
                return Err(InvalidProof::TooLong);
            }
        }
        if rest.is_empty() {
            return Err(InvalidProof::NoCheckpoint);
        }
        Ok(Self { index: LeafIndex(index), path, checkpoint: rest.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> TlogProof {
        TlogProof {
            index: LeafIndex(5),
            path: vec![Digest::of(b"a"), Digest::of(b"b")],
            checkpoint: "example.org/log\n6\nroot\n\n\u{2014} example.org/log AAAA\n".into(),
        }
    }

    #[test]
    fn a_proof_reads_back_with_and_without_extra_data() {
        let text = proof().to_string();
        assert_eq!(text.parse(), Ok(proof()));
        assert_eq!(text.replacen("index", "extra YWJj\nindex", 1).parse(), Ok(proof()));
        let single = TlogProof { path: Vec::new(), index: LeafIndex(0), ..proof() };
        assert_eq!(single.to_string().parse(), Ok(single));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let text = proof().to_string();
        let hash = STANDARD.encode(Digest::of(b"a").as_bytes());
        let bad = |from: &str, to: &str| {
            let spelling = text.replacen(from, to, 1);
            assert_ne!(spelling, text, "{from}");
            spelling.parse::<TlogProof>().expect_err(&spelling)
        };
        assert_eq!(bad("v1", "v2"), InvalidProof::Version);
        assert_eq!(bad("v1\n", "v1\r\n"), InvalidProof::Version);
        assert_eq!(bad("c2sp", " c2sp"), InvalidProof::Version);
        for index in ["05", "+5", "-5", " 5", "5 ", "", "18446744073709551616"] {
            assert_eq!(bad("index 5", &format!("index {index}")), InvalidProof::Index);
        }
        assert_eq!(bad("index 5\n", ""), InvalidProof::Index);
        assert_eq!(bad("index", "extra \nindex"), InvalidProof::Extra);
        assert_eq!(bad("index", "extra YWI\nindex"), InvalidProof::Extra);
        assert_eq!(bad("index", "extra YWJj\nextra YWJj\nindex"), InvalidProof::Index);
        assert_eq!(bad(&hash, "AAAA"), InvalidProof::Hash(3));
        assert_eq!(bad(&hash, &hash[..43]), InvalidProof::Hash(3));
        assert_eq!(bad(&hash, &format!("{hash} ")), InvalidProof::Hash(3));
        assert_eq!(bad(&hash, &hash.replace('=', "==")), InvalidProof::Hash(3));
        let long = format!("{hash}\n").repeat(limits::PROOF_HASHES_MAX) + &hash;
        assert_eq!(bad(&hash, &long), InvalidProof::TooLong);
        assert_eq!(bad("\n\nexample", "\nexample"), InvalidProof::Hash(5));
        assert_eq!("".parse::<TlogProof>(), Err(InvalidProof::NoCheckpoint));
        assert_eq!(
            format!("{VERSION_LINE}\nindex 0\n\n").parse::<TlogProof>(),
            Err(InvalidProof::NoCheckpoint)
        );
        let large = format!("{text}{}", "a".repeat(limits::PROOF_BYTES_MAX));
        assert_eq!(large.parse::<TlogProof>(), Err(InvalidProof::TooLarge));
        // A shorter checkpoint is for its own reader to refuse; a shorter path or index is refused here.
        let checkpoint_at = text.len() - proof().checkpoint.len();
        for cut in 0..=checkpoint_at {
            assert!(text[..cut].parse::<TlogProof>().is_err(), "cut at {cut}");
        }
    }
}
