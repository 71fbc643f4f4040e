//! The part of the tree that one group commit made: enough to prove each of its leaves, and no more.
//!
//! In: the right edge before the batch, and the batch's leaf hashes. Out: a [`HashReader`] for
//! [`prove_inclusion`](super::proof::prove_inclusion) of any leaf of the batch in the tree that ends with it, so that
//! a receipt is proved without reading anything. On such a path everything to the left that ends at or before the
//! batch is a peak of the old edge; all other siblings have a leaf of the batch in them.

use std::sync::OnceLock;

use super::proof::HashReader;
use super::tree::{RightEdge, node_hash};
use crate::model::{Digest, TreeSize};

/// A batch in its tree.
#[derive(Debug)]
pub struct BatchTree {
    before: RightEdge,
    leaves: Vec<Digest>,
    /// By level, the complete subtrees with a leaf of the batch in them. Made by the first proof: a batch whose
    /// proofs nobody wants costs no hash.
    levels: OnceLock<Vec<Vec<Digest>>>,
}

/// The hash is not on the path of any leaf of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash of subtree {position} on level {level} is not kept")]
pub struct NotKept {
    pub level: u32,
    pub position: u64,
}

impl BatchTree {
    /// `before` is the edge without these leaves.
    pub const fn new(before: RightEdge, leaves: Vec<Digest>) -> Self {
        Self { before, leaves, levels: OnceLock::new() }
    }

    /// Of the tree that ends with the batch.
    pub const fn size(&self) -> TreeSize {
        TreeSize(self.before.size().0 + self.leaves.len() as u64)
    }

    /// Position of the first subtree of a level that has a leaf of the batch in it.
    fn first(&self, level: u32) -> u64 {
        self.before.size().0.checked_shr(level).unwrap_or(0)
    }

    fn levels(&self) -> &[Vec<Digest>] {
        self.levels.get_or_init(|| {
            let mut levels = vec![self.leaves.clone()];
            for level in 1..u64::BITS {
                let below = levels.last().expect("level 0 is there");
                let end = self.size().0 >> level;
                let subtrees: Vec<_> = (self.first(level)..end).map(|n| self.join(level, n, below)).collect();
                if subtrees.is_empty() {
                    break;
                }
                levels.push(subtrees);
            }
            levels
        })
    }

    /// The subtree at `position` of `level`, from what is kept of the level below it.
    fn join(&self, level: u32, position: u64, below: &[Digest]) -> Digest {
        let first = self.first(level - 1);
        let at = |position: u64| below[(position - first) as usize];
        let (left, right) = (2 * position, 2 * position + 1);
        // The old size has a one at this bit exactly if its last complete subtree of this level is a peak, and then
        // that subtree is the only child of ours that ends before the batch begins.
        let left = match self.before.peak(level - 1) {
            Some((place, peak)) if place == left => peak,
            Some(_) | None => at(left),
        };
        node_hash(&left, &at(right))
    }
}

impl HashReader for BatchTree {
    type Error = NotKept;

    fn subtree(&self, level: u32, position: u64) -> Result<Digest, NotKept> {
        let in_batch = position.checked_sub(self.first(level)).and_then(|at| usize::try_from(at).ok());
        let subtrees = self.levels().get(level as usize);
        let kept = in_batch.and_then(|at| subtrees?.get(at).copied());
        let old = || self.before.peak(level).filter(|(place, _)| *place == position).map(|(_, peak)| peak);
        kept.or_else(old).ok_or(NotKept { level, position })
    }
}

#[cfg(test)]
mod tests {
    use super::super::proof::{prove_inclusion, verify_inclusion};
    use super::super::tree::{leaf_hash, node_hash};
    use super::*;
    use crate::model::LeafIndex;
    use proptest::prelude::*;

    /// All complete subtrees of a tree, by level.
    struct Whole(Vec<Vec<Digest>>);

    impl Whole {
        fn of(leaves: u64) -> Self {
            let mut levels = vec![(0..leaves).map(|n| leaf_hash(&n.to_be_bytes())).collect::<Vec<_>>()];
            while levels.last().is_some_and(|last| last.len() > 1) {
                let pairs = levels.last().expect("not empty").chunks_exact(2);
                levels.push(pairs.map(|pair| node_hash(&pair[0], &pair[1])).collect());
            }
            Self(levels)
        }

        fn edge(&self, size: u64) -> RightEdge {
            let mut edge = RightEdge::empty();
            self.0[0].iter().take(size as usize).for_each(|leaf| edge.append(*leaf));
            edge
        }

        fn batch(&self, from: u64, to: u64) -> BatchTree {
            BatchTree::new(self.edge(from), self.0[0][from as usize..to as usize].to_vec())
        }
    }

    impl HashReader for Whole {
        type Error = std::convert::Infallible;

        fn subtree(&self, level: u32, position: u64) -> Result<Digest, Self::Error> {
            Ok(self.0[level as usize][position as usize])
        }
    }

    fn proves_like_the_whole_tree(whole: &Whole, from: u64, to: u64) {
        let batch = whole.batch(from, to);
        assert_eq!(batch.size(), TreeSize(to));
        let root = whole.edge(to).root();
        for index in (from..to).map(LeafIndex) {
            let path = prove_inclusion(&batch, index, TreeSize(to)).expect("a batch proves its leaves");
            assert_eq!(
                Ok(&path),
                prove_inclusion(whole, index, TreeSize(to)).as_ref(),
                "{from}..{to} {index}"
            );
            let leaf = whole.0[0][index.0 as usize];
            assert_eq!(verify_inclusion(leaf, index, TreeSize(to), &path, root), Ok(()));
        }
    }

    #[test]
    fn a_batch_proves_each_of_its_leaves_as_the_whole_tree_does() {
        let whole = Whole::of(300);
        for to in 1..=300_u64 {
            // Every small batch, and one of every other length.
            let froms = (to.saturating_sub(9)..to).chain((0..to).step_by(7));
            froms.for_each(|from| proves_like_the_whole_tree(&whole, from, to));
        }
    }

    #[test]
    fn what_stands_on_no_path_of_the_batch_is_not_kept() {
        let batch = Whole::of(13).batch(6, 13);
        assert_eq!(batch.subtree(0, 0), Err(NotKept { level: 0, position: 0 }));
        assert_eq!(batch.subtree(0, 13), Err(NotKept { level: 0, position: 13 }));
        assert_eq!(batch.subtree(63, 1), Err(NotKept { level: 63, position: 1 }));
        assert!(batch.subtree(1, 2).is_ok(), "leaves 4 and 5 are a peak of the old edge");
    }

    proptest! {
        #[test]
        fn batches_of_any_length_anywhere_prove_their_leaves(from in 0..3_000u64, length in 1..600u64) {
            proves_like_the_whole_tree(&Whole::of(from + length), from, from + length);
        }
    }
}
