//! C2SP tlog-proof: what a caller keeps of one receipt, and checks alone.
//!
//! Form: `c2sp.org/tlog-proof@v1`, optionally `extra <base64>`, `index <n>`, the inclusion path as one base64 hash a
//! line from the leaf up, an empty line, the checkpoint.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
