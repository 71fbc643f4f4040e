//! The RFC 6962 Merkle tree over SHA-256 (section 2.1): hashes, and the right edge that grows it.
//!
//! A tree of n leaves is the list of its perfect subtrees, largest first, one for each set bit of n
//! ([`RightEdge`]). Appending and taking the root need nothing else, so memory is O(log n).

use crate::model::{Digest, Digester, TreeSize};

/// Root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// Hash of a leaf, `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut d = Digester::new();
    d.update(&[0]);
    d.update(entry);
    d.finish()
}

/// Hash of an inner node, `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut d = Digester::new();
    d.update(&[1]);
    d.update(left.as_bytes());
    d.update(right.as_bytes());
    d.finish()
}

/// All that is needed to append to a tree and to know its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    /// Roots of the perfect subtrees, largest first: as many as `size` has set bits.
    peaks: Vec<Digest>,
}

impl RightEdge {
    /// The edge of the empty tree.
    pub const fn empty() -> Self {
        Self { size: 0, peaks: Vec::new() }
    }

    /// The edge with these peaks, largest subtree first. `None` if a tree of this size has more or fewer.
    pub fn from_peaks(size: TreeSize, peaks: Vec<Digest>) -> Option<Self> {
        (peaks.len() == size.0.count_ones() as usize).then_some(Self { size: size.0, peaks })
    }

    /// Roots of the perfect subtrees, largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    pub const fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Appends the leaf with this [`leaf_hash`].
    pub fn append(&mut self, leaf: Digest) {
        let mut carried = leaf;
        // Each trailing one bit of the size is a subtree as large as the carried one: they join.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is one peak for each set bit of the size");
            carried = node_hash(&left, &carried);
        }
        self.peaks.push(carried);
        self.size += 1;
        debug_assert_eq!(self.peaks.len(), self.size.count_ones() as usize);
    }

    /// The perfect subtree of this level that the edge holds, and its position among those of its level.
    pub fn peak(&self, level: u32) -> Option<(u64, Digest)> {
        let position = self.size.checked_shr(level).filter(|n| n & 1 == 1)?;
        // One peak for each set bit above this one stands before it.
        Some((position - 1, self.peaks[(position >> 1).count_ones() as usize]))
    }

    pub fn root(&self) -> Digest {
        let mut smallest_first = self.peaks.iter().rev();
        let Some(smallest) = smallest_first.next() else { return empty_root() };
        smallest_first.fold(*smallest, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// RFC 6962 section 2.1, word for word: an oracle that shares no code with the edge.
    pub(crate) fn root_by_definition(leaves: &[Vec<u8>]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [one] => Digest::of(&[&[0u8][..], one].concat()),
            many => {
                let mut split = 1;
                while split * 2 < many.len() {
                    split *= 2;
                }
                let (left, right) = many.split_at(split);
                let (left, right) = (root_by_definition(left), root_by_definition(right));
                Digest::of(&[&[1u8][..], left.as_bytes(), right.as_bytes()].concat())
            }
        }
    }

    /// The leaves of the reference trees used by Certificate Transparency implementations.
    pub(crate) fn reference_leaves() -> Vec<Vec<u8>> {
        let hex = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        hex.iter()
            .map(|h| {
                (0..h.len() / 2).map(|i| u8::from_str_radix(&h[2 * i..2 * i + 2], 16).expect("hex")).collect()
            })
            .collect()
    }

    #[test]
    fn the_edge_has_the_root_of_the_recursive_definition_at_every_size() {
        let leaves: Vec<Vec<u8>> = (0..130u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut edge = RightEdge::empty();
        for n in 0..=leaves.len() {
            assert_eq!(edge.size(), TreeSize(n as u64));
            assert_eq!(edge.root(), root_by_definition(&leaves[..n]), "{n} leaves");
            if let Some(leaf) = leaves.get(n) {
                edge.append(leaf_hash(leaf));
            }
        }
    }

    #[test]
    fn the_reference_tree_of_eight_leaves_has_its_published_roots() {
        let published = [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        for (size, hex) in published {
            let mut edge = RightEdge::empty();
            reference_leaves().iter().take(size).for_each(|l| edge.append(leaf_hash(l)));
            assert_eq!(edge.root().to_string(), format!("sha-256:{hex}"), "{size} leaves");
        }
    }

    #[test]
    fn a_leaf_cannot_pass_for_a_node() {
        let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
        let spelled = [a.as_bytes().as_slice(), b.as_bytes().as_slice()].concat();
        assert_ne!(leaf_hash(&spelled), node_hash(&a, &b));
    }
}
