//! Inclusion and consistency proofs (RFC 6962 sections 2.1.1 and 2.1.2): made from stored hashes, checked alone.
//!
//! A [`HashReader`] gives the hash of any complete subtree by level and position, as C2SP tiles store
//! them. Checking follows the fold of RECEIPTS.md: `inner` hashes steered by the bits of the index,
//! then `border` hashes from the left.

use super::tree::{empty_root, node_hash};
use crate::model::{Digest, LeafIndex, TreeSize};

/// Reads hashes of complete subtrees: level 0 is leaves, `(level, n)` covers leaves `n << level` and on.
pub trait HashReader {
    type Error;
    fn subtree(&self, level: u32, position: u64) -> Result<Digest, Self::Error>;
}

/// Why a proof could not be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprovable<E> {
    #[error("there is no such leaf in a tree of this size")]
    OutOfRange,
    #[error("a stored hash cannot be read")]
    Unreadable(E),
}

/// The proof does not show what it should. Nothing is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProved {
    #[error("the index is outside the tree")]
    OutOfRange,
    #[error("the path has the wrong number of hashes")]
    WrongLength,
    #[error("the path leads to another root")]
    OtherRoot,
    #[error("consistency with the empty tree says nothing")]
    FromEmpty,
}

/// Audit path of the leaf at `index` in the tree of the first `size` leaves, leaf to root.
pub fn prove_inclusion<R: HashReader>(
    hashes: &R,
    index: LeafIndex,
    size: TreeSize,
) -> Result<Vec<Digest>, Unprovable<R::Error>> {
    if index.0 >= size.0 {
        return Err(Unprovable::OutOfRange);
    }
    let mut path = Vec::new();
    let (mut from, mut to) = (0, size.0);
    // Down from the root, noting the sibling at each step; the path is listed from the leaf up.
    while to - from > 1 {
        let split = from + largest_power_of_two_below(to - from);
        if index.0 < split {
            path.push(range_root(hashes, split, to)?);
            to = split;
        } else {
            path.push(range_root(hashes, from, split)?);
            from = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// Proof that the tree of `old` leaves is a prefix of the tree of `new` leaves.
pub fn prove_consistency<R: HashReader>(
    hashes: &R,
    old: TreeSize,
    new: TreeSize,
) -> Result<Vec<Digest>, Unprovable<R::Error>> {
    if old.0 == 0 || old.0 > new.0 {
        return Err(Unprovable::OutOfRange);
    }
    let mut path = Vec::new();
    let (mut from, mut to) = (0, new.0);
    // RFC 6962 SUBPROOF: `whole` while the old tree's root is the root of this very range's left part.
    let mut whole = true;
    while to != old.0 {
        let split = from + largest_power_of_two_below(to - from);
        if old.0 <= split {
            path.push(range_root(hashes, split, to)?);
            to = split;
        } else {
            path.push(range_root(hashes, from, split)?);
            from = split;
            whole = false;
        }
    }
    if !whole {
        path.push(range_root(hashes, from, to)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks that the leaf is at `index` of the tree of `size` leaves with this root.
pub fn verify_inclusion(
    leaf: Digest,
    index: LeafIndex,
    size: TreeSize,
    path: &[Digest],
    root: Digest,
) -> Result<(), NotProved> {
    if index.0 >= size.0 {
        return Err(NotProved::OutOfRange);
    }
    let (inner, border) = shape(index.0, size.0);
    if path.len() != inner + border {
        return Err(NotProved::WrongLength);
    }
    let (inner_path, border_path) = path.split_at(inner);
    let seed = fold_inner(leaf, inner_path, index.0);
    if fold_border(seed, border_path) == root { Ok(()) } else { Err(NotProved::OtherRoot) }
}

/// Checks that the second tree begins with the first.
pub fn verify_consistency(
    old: (TreeSize, Digest),
    new: (TreeSize, Digest),
    path: &[Digest],
) -> Result<(), NotProved> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size.0 == 0 {
        return Err(NotProved::FromEmpty);
    }
    if old_size.0 > new_size.0 {
        return Err(NotProved::OutOfRange);
    }
    if old_size == new_size {
        return match path {
            [] if old_root == new_root => Ok(()),
            [] => Err(NotProved::OtherRoot),
            [_, ..] => Err(NotProved::WrongLength),
        };
    }
    // The path starts at the last complete subtree of the old tree: the whole old tree if its size is a
    // power of two (its root is then not repeated), else the path's first hash.
    let level = old_size.0.trailing_zeros();
    let (seed, rest) = if old_size.0.is_power_of_two() {
        (old_root, path)
    } else {
        let (first, rest) = path.split_first().ok_or(NotProved::WrongLength)?;
        (*first, rest)
    };
    let (inner_all, border) = shape(old_size.0 - 1, new_size.0);
    let inner = inner_all - level as usize;
    if rest.len() != inner + border {
        return Err(NotProved::WrongLength);
    }
    let (inner_path, border_path) = rest.split_at(inner);
    let position = (old_size.0 - 1) >> level;
    // The old root uses only what stands to the left; the new root uses everything.
    let old_inner = inner_path.iter().enumerate().filter(|(bit, _)| position >> bit & 1 == 1);
    let old_seed = old_inner.fold(seed, |right, (_, left)| node_hash(left, &right));
    let new_seed = fold_inner(seed, inner_path, position);
    let agrees =
        fold_border(old_seed, border_path) == old_root && fold_border(new_seed, border_path) == new_root;
    if agrees { Ok(()) } else { Err(NotProved::OtherRoot) }
}

/// Lengths of the two parts of an audit path: `(inner, border)`.
fn shape(index: u64, size: u64) -> (usize, usize) {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner as usize, border as usize)
}

fn fold_inner(seed: Digest, path: &[Digest], position: u64) -> Digest {
    path.iter().enumerate().fold(seed, |node, (bit, sibling)| {
        if position >> bit & 1 == 0 { node_hash(&node, sibling) } else { node_hash(sibling, &node) }
    })
}

fn fold_border(seed: Digest, path: &[Digest]) -> Digest {
    path.iter().fold(seed, |right, left| node_hash(left, &right))
}

const fn largest_power_of_two_below(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// Root of leaves `from..to`, where `from` is a multiple of the smallest power of two that holds the range.
fn range_root<R: HashReader>(hashes: &R, from: u64, to: u64) -> Result<Digest, Unprovable<R::Error>> {
    let mut subtrees = Vec::new();
    let mut at = from;
    while at < to {
        let level = (to - at).ilog2();
        subtrees.push(hashes.subtree(level, at >> level).map_err(Unprovable::Unreadable)?);
        at += 1 << level;
    }
    let last = subtrees.pop();
    Ok(last.map_or_else(empty_root, |seed| {
        subtrees.iter().rev().fold(seed, |right, left| node_hash(left, &right))
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tree::leaf_hash;
    use super::super::tree::tests::root_by_definition;
    use super::*;
    use proptest::prelude::*;

    /// RFC 6962 section 2.1.1, word for word.
    fn path_by_definition(index: usize, leaves: &[Vec<u8>]) -> Vec<Digest> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (mut path, sibling) = if index < split {
            (path_by_definition(index, left), root_by_definition(right))
        } else {
            (path_by_definition(index - split, right), root_by_definition(left))
        };
        path.push(sibling);
        path
    }

    /// RFC 6962 section 2.1.2, word for word.
    fn subproof_by_definition(old: usize, leaves: &[Vec<u8>], whole: bool) -> Vec<Digest> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![root_by_definition(leaves)] };
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(split);
        let (mut path, sibling) = if old <= split {
            (subproof_by_definition(old, left, whole), root_by_definition(right))
        } else {
            (subproof_by_definition(old - split, right, false), root_by_definition(left))
        };
        path.push(sibling);
        path
    }

    struct Leaves(Vec<Vec<u8>>);

    impl HashReader for Leaves {
        type Error = std::convert::Infallible;

        fn subtree(&self, level: u32, position: u64) -> Result<Digest, Self::Error> {
            let from = (position << level) as usize;
            Ok(root_by_definition(&self.0[from..from + (1 << level)]))
        }
    }

    fn leaves() -> Leaves {
        Leaves((0..20u8).map(|n| vec![n]).collect())
    }

    #[test]
    fn every_inclusion_proof_is_the_defined_one_and_verifies() {
        let all = leaves();
        for size in 1..=all.0.len() {
            let root = root_by_definition(&all.0[..size]);
            for index in 0..size {
                let (at, of) = (LeafIndex(index as u64), TreeSize(size as u64));
                let path = prove_inclusion(&all, at, of).expect("in range");
                assert_eq!(path, path_by_definition(index, &all.0[..size]), "{index} of {size}");
                let leaf = leaf_hash(&all.0[index]);
                assert_eq!(verify_inclusion(leaf, at, of, &path, root), Ok(()));
                assert_eq!(
                    verify_inclusion(leaf_hash(b"other"), at, of, &path, root),
                    Err(NotProved::OtherRoot)
                );
            }
        }
    }

    #[test]
    fn every_consistency_proof_is_the_defined_one_and_verifies() {
        let all = leaves();
        for new in 1..=all.0.len() {
            for old in 1..=new {
                let (a, b) = (TreeSize(old as u64), TreeSize(new as u64));
                let (old_root, new_root) =
                    (root_by_definition(&all.0[..old]), root_by_definition(&all.0[..new]));
                let path = prove_consistency(&all, a, b).expect("in range");
                assert_eq!(path, subproof_by_definition(old, &all.0[..new], true), "{old} of {new}");
                assert_eq!(verify_consistency((a, old_root), (b, new_root), &path), Ok(()), "{old} of {new}");
                let other = leaf_hash(b"other");
                assert!(verify_consistency((a, other), (b, new_root), &path).is_err());
                assert!(verify_consistency((a, old_root), (b, other), &path).is_err());
                for at in 0..path.len() {
                    let mut bent = path.clone();
                    bent[at] = other;
                    assert!(verify_consistency((a, old_root), (b, new_root), &bent).is_err());
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn proofs_of_any_size_are_the_defined_ones_and_show_nothing_else(
            size in 1..1_200usize, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
        ) {
            let all = Leaves((0..size as u32).map(|n| n.to_be_bytes().to_vec()).collect());
            let (index, old) = (a.index(size), b.index(size) + 1);
            let (root, old_root) = (root_by_definition(&all.0), root_by_definition(&all.0[..old]));
            let (at, of, from) = (LeafIndex(index as u64), TreeSize(size as u64), TreeSize(old as u64));
            let leaf = leaf_hash(&all.0[index]);

            let path = prove_inclusion(&all, at, of).expect("in range");
            prop_assert_eq!(&path, &path_by_definition(index, &all.0));
            prop_assert_eq!(verify_inclusion(leaf, at, of, &path, root), Ok(()));
            for other in [index ^ 1, index + 1, size - 1 - index].into_iter().filter(|i| *i != index) {
                let other = LeafIndex(other as u64);
                prop_assert!(verify_inclusion(leaf, other, of, &path, root).is_err(), "at another index");
            }

            let path = prove_consistency(&all, from, of).expect("in range");
            prop_assert_eq!(&path, &subproof_by_definition(old, &all.0, true));
            prop_assert_eq!(verify_consistency((from, old_root), (of, root), &path), Ok(()));
            let longer = TreeSize(old as u64 + 1);
            prop_assert!(verify_consistency((longer, old_root), (of, root), &path).is_err(), "of another size");
        }
    }

    #[test]
    fn a_path_of_the_wrong_length_is_refused() {
        let all = leaves();
        let root = root_by_definition(&all.0[..7]);
        let mut path = prove_inclusion(&all, LeafIndex(2), TreeSize(7)).expect("in range");
        let leaf = leaf_hash(&[2]);
        path.push(root);
        let verify = |path: &[Digest]| verify_inclusion(leaf, LeafIndex(2), TreeSize(7), path, root);
        assert_eq!(verify(&path), Err(NotProved::WrongLength));
        assert_eq!(verify(&path[..2]), Err(NotProved::WrongLength));
        let old = (TreeSize(3), root_by_definition(&all.0[..3]));
        let long =
            [prove_consistency(&all, TreeSize(3), TreeSize(7)).expect("in range"), vec![root]].concat();
        assert_eq!(verify_consistency(old, (TreeSize(7), root), &long), Err(NotProved::WrongLength));
        assert_eq!(verify_consistency(old, (TreeSize(7), root), &[]), Err(NotProved::WrongLength));
        assert_eq!(verify_consistency(old, old, &[root]), Err(NotProved::WrongLength));
    }

    #[test]
    fn indexes_and_sizes_outside_the_tree_are_refused() {
        let all = leaves();
        let root = root_by_definition(&all.0);
        let size = TreeSize(20);
        assert_eq!(verify_inclusion(root, LeafIndex(20), size, &[], root), Err(NotProved::OutOfRange));
        assert_eq!(verify_inclusion(root, LeafIndex(0), TreeSize(0), &[], root), Err(NotProved::OutOfRange));
        let empty = (TreeSize(0), empty_root());
        assert_eq!(verify_consistency(empty, (size, root), &[]), Err(NotProved::FromEmpty));
        assert_eq!(verify_consistency((size, root), empty, &[]), Err(NotProved::OutOfRange));
        assert_eq!(prove_inclusion(&all, LeafIndex(20), size), Err(Unprovable::OutOfRange));
        assert_eq!(prove_consistency(&all, TreeSize(0), size), Err(Unprovable::OutOfRange));
        assert_eq!(prove_consistency(&all, TreeSize(21), size), Err(Unprovable::OutOfRange));
        assert_eq!(
            verify_inclusion(root, LeafIndex(u64::MAX - 1), TreeSize(u64::MAX), &[], root),
            Err(NotProved::WrongLength)
        );
    }
}
