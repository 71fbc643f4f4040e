//! Random trees and notes, ours against the crates `ct-merkle`, `tlog_tiles` and `signed_note`, in both directions.

use std::convert::Infallible;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use interlock::ledger::FileSigner;
use interlock::merkle::checkpoint::{Checkpoint, parse_checkpoint, parse_checkpoint_by_any};
use interlock::merkle::note::Signer;
use interlock::merkle::proof::{
    HashReader, prove_consistency, prove_inclusion, verify_consistency, verify_inclusion,
};
use interlock::merkle::tree::{RightEdge, leaf_hash, node_hash};
use interlock::model::{Digest, LeafIndex, TreeSize};
use proptest::prelude::*;
use sha2::Sha256;
use sha2::digest::Output;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{Hash, check_record, check_tree, prove_record, prove_tree, stored_hashes, tree_hash};

/// Every hash of a tree, level by level.
pub struct Levels(pub Vec<Vec<Digest>>);

impl Levels {
    pub fn of<E: AsRef<[u8]>>(entries: &[E]) -> Self {
        let mut levels = vec![entries.iter().map(|e| leaf_hash(e.as_ref())).collect::<Vec<_>>()];
        while levels[levels.len() - 1].len() > 1 {
            let pairs = levels[levels.len() - 1].chunks_exact(2);
            levels.push(pairs.map(|pair| node_hash(&pair[0], &pair[1])).collect());
        }
        Self(levels)
    }
}

impl HashReader for Levels {
    type Error = Infallible;

    fn subtree(&self, level: u32, position: u64) -> Result<Digest, Infallible> {
        Ok(self.0[level as usize][position as usize])
    }
}

/// The order in which the checksum database stores hashes.
struct Stored(Vec<Hash>);

impl Stored {
    fn of(entries: &[Vec<u8>]) -> Self {
        let mut stored = Self(Vec::new());
        for (n, entry) in entries.iter().enumerate() {
            let new = stored_hashes(n as u64, entry, &stored).expect("stored");
            stored.0.extend(new);
        }
        stored
    }
}

impl tlog_tiles::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|&at| self.0[at as usize]).collect())
    }
}

fn ours(hash: &[u8]) -> Digest {
    Digest::from_bytes(hash.try_into().expect("32 bytes"))
}

fn theirs(digest: &Digest) -> Hash {
    Hash(*digest.as_bytes())
}

fn outputs(path: &[Digest]) -> Vec<Output<Sha256>> {
    path.iter().map(|digest| (*digest.as_bytes()).into()).collect()
}

fn root(entries: &[Vec<u8>]) -> Digest {
    let mut edge = RightEdge::empty();
    entries.iter().for_each(|entry| edge.append(leaf_hash(entry)));
    edge.root()
}

fn trees() -> impl Strategy<Value = (Vec<Vec<u8>>, usize, usize)> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..600).prop_flat_map(|entries| {
        let size = entries.len();
        (Just(entries), 0..size, 1..=size)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn roots_and_proofs_are_those_of_other_implementations((entries, index, old) in trees()) {
        let (size, entry) = (entries.len(), &entries[index]);
        let (levels, stored) = (Levels::of(&entries), Stored::of(&entries));
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        entries.iter().for_each(|entry| tree.push(entry.clone()));
        let (whole, part) = (root(&entries), root(&entries[..old]));
        prop_assert_eq!(whole, ours(tree.root().as_bytes()));
        prop_assert_eq!(theirs(&whole), tree_hash(size as u64, &stored).expect("a root"));
        prop_assert_eq!(theirs(&part), tree_hash(old as u64, &stored).expect("a root"));

        let (at, sizes) = (LeafIndex(index as u64), (TreeSize(old as u64), TreeSize(size as u64)));
        let path = prove_inclusion(&levels, at, sizes.1).expect("a proof");
        let their_path: Vec<_> = path.iter().map(theirs).collect();
        let record = prove_record(size as u64, index as u64, &stored).expect("a proof");
        prop_assert_eq!(&record, &their_path);
        let leaf = theirs(&leaf_hash(entry));
        prop_assert!(check_record(&their_path, size as u64, theirs(&whole), index as u64, leaf).is_ok());
        let outputs_of_path = outputs(&path);
        let proof = InclusionProof::<Sha256>::from_digests(&outputs_of_path);
        prop_assert!(tree.root().verify_inclusion(entry, index as u64, &proof).is_ok());
        let from_them: Vec<_> = tree.prove_inclusion(index).as_bytes().chunks(32).map(ours).collect();
        prop_assert_eq!(verify_inclusion(leaf_hash(entry), at, sizes.1, &from_them, whole), Ok(()));

        let path = prove_consistency(&levels, sizes.0, sizes.1).expect("a proof");
        let their_path: Vec<_> = path.iter().map(theirs).collect();
        prop_assert_eq!(&prove_tree(size as u64, old as u64, &stored).expect("a proof"), &their_path);
        prop_assert!(check_tree(&their_path, size as u64, theirs(&whole), old as u64, theirs(&part)).is_ok());
        let mut older = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        entries[..old].iter().for_each(|entry| older.push(entry.clone()));
        let outputs_of_path = outputs(&path);
        let proof = ConsistencyProof::<Sha256>::from_digests(&outputs_of_path);
        prop_assert!(tree.root().verify_consistency(&older.root(), &proof).is_ok());
        let from_them: Vec<_> = tree.prove_consistency(size - old).as_bytes().chunks(32).map(ours).collect();
        prop_assert_eq!(verify_consistency((sizes.0, part), (sizes.1, whole), &from_them), Ok(()));
    }

    #[test]
    fn notes_are_those_of_another_implementation(size in any::<u64>(), root in any::<[u8; 32]>(), count in 1..4_usize) {
        let name = "example.org/log";
        let made = || FileSigner::generate(name.parse().expect("a name")).expect("a key");
        let keys: Vec<_> = (0..count).map(|_| made()).collect();
        let checkpoint = Checkpoint {
            origin: name.parse().expect("a name"),
            size: TreeSize(size),
            root: Digest::from_bytes(root),
        };
        let signers = keys.iter().map(|(signer, _)| signer as &dyn Signer);
        let note = checkpoint.sign_with_all(signers).expect("signs");

        // Theirs reads ours, with each key alone.
        let parsed = Note::from_bytes(note.as_bytes()).expect("a note");
        let read = tlog_tiles::Checkpoint::from_bytes(parsed.text()).expect("a checkpoint");
        prop_assert_eq!((read.origin(), read.size(), read.hash().0), (name, size, root));
        for (signer, _) in &keys {
            let verifier = StandardVerifier::new(&signer.verifier().to_string()).expect("a key");
            let (verified, unknown) = parsed.verify(&VerifierList::new(vec![Box::new(verifier)])).expect("signed");
            prop_assert_eq!((verified.len(), unknown.len()), (1, count - 1));
        }
        // Ours reads theirs, made from our key files; it is the same to the byte.
        let standard: Vec<_> =
            keys.iter().map(|(_, text)| StandardSigner::new(text.trim_end()).expect("a key")).collect();
        let text = tlog_tiles::Checkpoint::new(name, size, Hash(root), "").expect("a checkpoint").to_bytes();
        let mut from_them = Note::new(&text, &[]).expect("a note");
        from_them.add_sigs(&standard.iter().map(|s| s as &dyn signed_note::Signer).collect::<Vec<_>>()).expect("signs");
        prop_assert_eq!(String::from_utf8(from_them.to_bytes()).expect("UTF-8"), note);
        let vkeys: Vec<_> = keys.iter().map(|(signer, _)| signer.verifier().clone()).collect();
        prop_assert!(parse_checkpoint_by_any(&from_them.to_bytes(), &vkeys).is_ok());
        let read = parse_checkpoint(&from_them.to_bytes(), &vkeys[0]).expect("signed");
        prop_assert_eq!(read.checkpoint(), &checkpoint);
    }
}
