//! The keys that sign for a log, and those that must not any more.
//!
//! The primary key seals frames. Every key signs every checkpoint, so that a reader who has pinned any one of
//! them goes on reading while the others come and go. All are named like the log; no two share a key id, because
//! a reader finds the key of a signature line by name and id.

use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::merkle::checkpoint::Checkpoint;
use crate::merkle::frame::{Frame, FrameKey};
use crate::merkle::note::{Signer, SigningFailed, VerifierKey};
use crate::model::LogOrigin;

/// 1 to [`limits::NOTE_SIGNATURES_MAX`] signers of one log, the primary first.
pub struct Signers {
    all: Vec<Box<dyn Signer>>,
    compromised: Vec<VerifierKey>,
}

/// These keys cannot sign for one log together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigners {
    #[error("the key {vkey} is of another log; all keys of this one are called `{origin}`")]
    OtherName { origin: LogOrigin, vkey: VerifierKey },
    #[error(
        "two keys have the id of {vkey}; is one file named twice? If the keys differ, make another new one"
    )]
    SameId { vkey: VerifierKey },
    #[error("{found} keys, and a checkpoint has at most {max} signatures", max = limits::NOTE_SIGNATURES_MAX)]
    TooMany { found: usize },
    #[error("the key {vkey} is listed as compromised and may not sign")]
    Compromised { vkey: VerifierKey },
}

impl Signers {
    /// `compromised` are keys that somebody else may have: they are declared so in the log, once.
    pub fn new(
        primary: Box<dyn Signer>,
        others: Vec<Box<dyn Signer>>,
        compromised: Vec<VerifierKey>,
    ) -> Result<Self, InvalidSigners> {
        let origin = primary.verifier().name().clone();
        let mut all = vec![primary];
        for signer in others {
            let vkey = signer.verifier();
            if all.iter().any(|known| known.verifier().id() == vkey.id()) {
                return Err(InvalidSigners::SameId { vkey: vkey.clone() });
            }
            all.push(signer);
        }
        if all.len() > limits::NOTE_SIGNATURES_MAX {
            return Err(InvalidSigners::TooMany { found: all.len() });
        }
        let keys = all.iter().map(|signer| signer.verifier());
        if let Some(other) = keys.clone().chain(&compromised).find(|key| *key.name() != origin) {
            return Err(InvalidSigners::OtherName { origin, vkey: other.clone() });
        }
        if let Some(stolen) = keys.clone().find(|key| compromised.contains(key)) {
            return Err(InvalidSigners::Compromised { vkey: stolen.clone() });
        }
        Ok(Self { all, compromised })
    }

    pub fn origin(&self) -> &LogOrigin {
        self.primary().verifier().name()
    }

    /// Signs the checkpoint with every key, the primary first.
    pub fn sign(&self, checkpoint: &Checkpoint) -> Result<String, SigningFailed> {
        checkpoint.sign_with_all(self.all.iter().map(|signer| &**signer))
    }

    /// The key that seals new frames.
    pub fn frame_key(&self) -> Result<FrameKey, SigningFailed> {
        self.primary().frame_key()
    }

    /// As they stand in a start leaf, the primary first.
    pub fn vkeys(&self) -> Vec<Arc<str>> {
        self.all.iter().map(|signer| text(signer.verifier())).collect()
    }

    pub fn compromised(&self) -> Vec<Arc<str>> {
        self.compromised.iter().map(text).collect()
    }

    /// Whose work this log goes on with.
    pub fn recognized(&self) -> Result<Recognized, SigningFailed> {
        Ok(Recognized {
            verifiers: self.all.iter().map(|signer| signer.verifier().clone()).collect(),
            frame_keys: self.all.iter().map(|signer| signer.frame_key()).collect::<Result<_, _>>()?,
        })
    }

    fn primary(&self) -> &dyn Signer {
        // `new` puts one in, and nothing takes one out.
        &*self.all[0]
    }
}

/// One key that signs alone.
impl<S: Signer + 'static> From<Box<S>> for Signers {
    fn from(signer: Box<S>) -> Self {
        Self { all: vec![signer], compromised: Vec::new() }
    }
}

impl fmt::Debug for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signers").field("vkeys", &self.vkeys()).finish_non_exhaustive()
    }
}

fn text(key: &VerifierKey) -> Arc<str> {
    key.to_string().into()
}

/// What a start takes for the last run's work: a checkpoint that any of its keys signed, and frames that any of
/// them sealed. After a rotation the last run's primary key is one of the others, or the other way round.
#[derive(Debug)]
pub struct Recognized {
    /// Never empty; all of one name.
    pub verifiers: Vec<VerifierKey>,
    frame_keys: Vec<FrameKey>,
}

impl Recognized {
    pub fn origin(&self) -> &LogOrigin {
        // Made of `Signers`, which hold at least one.
        self.verifiers[0].name()
    }

    pub fn sealed(&self, frame: &Frame<'_>) -> bool {
        self.frame_keys.iter().any(|key| key.sealed(frame))
    }

    /// Whether one of the keys vouches for bytes beside the frames.
    pub fn tagged(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.frame_keys.iter().any(|key| key.tagged(bytes, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::note::tests::SeedSigner;

    fn signer(seed: u8) -> Box<dyn Signer> {
        Box::new(SeedSigner::new("example.org/log", seed))
    }

    fn refused(others: Vec<Box<dyn Signer>>, compromised: Vec<VerifierKey>) -> InvalidSigners {
        Signers::new(signer(1), others, compromised).expect_err("refused")
    }

    #[test]
    fn the_primary_key_comes_first_and_seals_and_every_key_is_recognized() {
        let signers = Signers::new(signer(3), vec![signer(1), signer(2)], Vec::new()).expect("three keys");
        let expected = [3, 1, 2].map(|seed| signer(seed).verifier().to_string());
        assert_eq!(signers.vkeys().iter().map(|v| v.to_string()).collect::<Vec<_>>(), expected);
        let recognized = signers.recognized().expect("signs");
        assert_eq!(recognized.verifiers.len(), 3);
        assert_eq!(recognized.origin().as_str(), "example.org/log");
    }

    #[test]
    fn keys_that_cannot_sign_together_are_refused() {
        let other: Box<dyn Signer> = Box::new(SeedSigner::new("example.org/other", 2));
        let vkey = other.verifier().clone();
        let origin: LogOrigin = "example.org/log".parse().expect("a name");
        assert_eq!(
            refused(vec![other], Vec::new()),
            InvalidSigners::OtherName { origin: origin.clone(), vkey: vkey.clone() }
        );
        assert_eq!(refused(Vec::new(), vec![vkey.clone()]), InvalidSigners::OtherName { origin, vkey });
        let twice = signer(1).verifier().clone();
        assert_eq!(refused(vec![signer(2), signer(1)], Vec::new()), InvalidSigners::SameId { vkey: twice });
        let stolen = signer(2).verifier().clone();
        assert_eq!(
            refused(vec![signer(2)], vec![stolen.clone()]),
            InvalidSigners::Compromised { vkey: stolen }
        );
    }

    #[test]
    fn the_seventeenth_key_is_refused() {
        let others = |n: u8| (2..=n).map(signer).collect::<Vec<_>>();
        assert_eq!(refused(others(17), Vec::new()), InvalidSigners::TooMany { found: 17 });
        let signers = Signers::new(signer(1), others(16), Vec::new()).expect("sixteen");
        assert_eq!(signers.vkeys().len(), limits::NOTE_SIGNATURES_MAX);
    }
}
