//! Chance changes to a whole log: each is found by the verifier, and none is built upon by recovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Closed;
use super::faults::{Model, leaf_hashes, live, open};
use super::simulated::Simulated;
use super::tests::signer;
use crate::merkle::note::Signer;
use crate::model::{Digest, LeafIndex};
use crate::verify::{Report, verify_log};

type Segments = BTreeMap<LeafIndex, Vec<u8>>;

const BLOCK: usize = crate::limits::FRAME_ALIGNMENT_BYTES;
const CHANGES: u64 = 400;

/// Numbers that look random and are the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// One change; what it was, or `None` if it left everything as it was.
fn change(chance: &mut Chance, segments: &mut Segments, checkpoint: &mut Option<Vec<u8>>) -> Option<String> {
    let before = (segments.clone(), checkpoint.clone());
    let names: Vec<LeafIndex> = segments.keys().copied().collect();
    let (a, b) = (names[chance.below(names.len())], names[chance.below(names.len())]);
    let used = |s: &Segments, of| s[&of].iter().rposition(|&byte| byte != 0).map_or(BLOCK, |at| at + 1);
    let (used_a, used_b) = (used(segments, a), used(segments, b));
    let block = |chance: &mut Chance, used: usize| chance.below(used.div_ceil(BLOCK)) * BLOCK;
    let what = match chance.below(9) {
        0 | 1 => {
            let (at, bit) = (chance.below(used_a), chance.below(8));
            segments.get_mut(&a)?[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {a}")
        }
        2 => {
            let note = checkpoint.as_mut()?;
            let (at, bit) = (chance.below(note.len()), chance.below(8));
            note[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of the checkpoint")
        }
        3 => {
            let note = checkpoint.as_mut()?;
            let at = chance.below(note.len());
            note.truncate(at);
            format!("the checkpoint cut at {at}")
        }
        4 => {
            let at = chance.below(used_a);
            segments.get_mut(&a)?.truncate(at);
            format!("{a} cut at {at}")
        }
        5 => {
            let at = block(chance, used_a);
            segments.get_mut(&a)?[at..].fill(0);
            format!("{a} emptied from {at}")
        }
        6 => {
            let (from, to) = (block(chance, used_a), block(chance, used_b));
            let (left, right) =
                (segments[&a][from..from + BLOCK].to_vec(), segments[&b][to..to + BLOCK].to_vec());
            segments.get_mut(&a)?[from..from + BLOCK].copy_from_slice(&right);
            segments.get_mut(&b)?[to..to + BLOCK].copy_from_slice(&left);
            format!("block {from} of {a} and block {to} of {b} exchanged")
        }
        7 => {
            let (from, to) = (chance.below(used_a), chance.below(used_b));
            let piece = segments[&a][from..used_a.min(from + 64)].to_vec();
            let target = segments.get_mut(&b)?;
            target[to..to + piece.len()].copy_from_slice(&piece);
            format!("64 bytes from {from} of {a} to {to} of {b}")
        }
        _ => {
            let gone = segments.remove(&a)?;
            if chance.below(2) == 0 {
                segments.insert(b, gone);
            }
            format!("{a} removed, or under the name of {b}")
        }
    };
    (before != (segments.clone(), checkpoint.clone())).then_some(what)
}

fn verified(storage: &Simulated) -> Report {
    verify_log(storage, signer().verifier()).expect("readable")
}

#[tokio::test]
async fn no_chance_change_to_a_closed_log_passes_or_is_built_upon() {
    let sound = Arc::new(Simulated::new());
    live(&sound, &mut Model::default()).await;
    assert!(verified(&sound).passed());
    let leaves: Vec<Digest> = leaf_hashes(&sound);
    let mut recovered = 0;
    for seed in 0..CHANGES {
        let mut what = None;
        let storage = Arc::new(sound.changed(|s, c| what = change(&mut Chance(seed), s, c)));
        let Some(what) = what else { continue };
        let report = verified(&storage);
        assert!(!report.passed() && report.exit_code() != 0, "{seed}: {what}\n{report}");
        // Recovery asks less: a leaf may be unreadable to an auditor and still be the one that was signed.
        let Ok((ledger, _)) = open(&storage) else { continue };
        recovered += 1;
        assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
        assert_eq!(leaf_hashes(&storage)[..leaves.len()], leaves, "{seed}: {what}");
    }
    assert_eq!(recovered, 0);
}
