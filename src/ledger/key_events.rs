//! What the log says of its signing keys, and what a start has to say: `add`, `retire`, `compromised`.
//!
//! A start leaf names the keys that sign its epoch. Where they are not the ones that signed before, a `key` leaf
//! for each difference follows, before anything is signed. The fold goes by those leaves and not by the last start
//! leaf: a crash between the two leaves the difference to the next start.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::entry::KeyEvent;

/// What the log last said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Active,
    /// As well as this, for good.
    Retired,
    Compromised,
}

/// Every key that ever signed for the log, by its verifier key as text. Grows with rotations only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysSeen(BTreeMap<Arc<str>, Standing>);

impl KeysSeen {
    /// Reads the `vkeys` of a start leaf. A log begins with the keys of its first start; later ones follow their
    /// `add`.
    pub fn read_start(&mut self, vkeys: Vec<Arc<str>>) {
        if self.0.is_empty() {
            self.0 = vkeys.into_iter().map(|vkey| (vkey, Standing::Active)).collect();
        }
    }

    /// Reads a `key` leaf.
    pub fn read_event(&mut self, event: KeyEvent, vkey: Arc<str>) {
        let standing = match event {
            // There is no way back.
            _ if self.is_compromised(&vkey) => Standing::Compromised,
            KeyEvent::Add if self.is_retired(&vkey) => Standing::Retired,
            KeyEvent::Add => Standing::Active,
            KeyEvent::Retire => Standing::Retired,
            KeyEvent::Compromised => Standing::Compromised,
        };
        self.0.insert(vkey, standing);
    }

    pub fn is_compromised(&self, vkey: &str) -> bool {
        self.0.get(vkey) == Some(&Standing::Compromised)
    }

    pub fn is_retired(&self, vkey: &str) -> bool {
        self.0.get(vkey) == Some(&Standing::Retired)
    }

    /// What the log does not say yet when these keys sign and those are compromised, in the order in which it is
    /// written. Nothing if the log has no start; nothing of a compromised key that it never had.
    pub fn unsaid(&self, signing: &[Arc<str>], compromised: &[Arc<str>]) -> Vec<(KeyEvent, Arc<str>)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        // A start whose keys were retired or compromised was refused.
        let added = signing.iter().filter(|vkey| !self.0.contains_key(*vkey));
        let gone = self.0.iter().filter_map(|(vkey, standing)| {
            let event = match standing {
                Standing::Active | Standing::Retired if compromised.contains(vkey) => KeyEvent::Compromised,
                Standing::Active if !signing.contains(vkey) => KeyEvent::Retire,
                Standing::Active | Standing::Retired | Standing::Compromised => return None,
            };
            Some((event, Arc::clone(vkey)))
        });
        added.map(|vkey| (KeyEvent::Add, Arc::clone(vkey))).chain(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<const N: usize>(names: [&str; N]) -> Vec<Arc<str>> {
        names.map(Into::into).to_vec()
    }

    fn seen(first: &[Arc<str>]) -> KeysSeen {
        let mut seen = KeysSeen::default();
        seen.read_start(first.to_vec());
        seen
    }

    fn said(events: Vec<(KeyEvent, Arc<str>)>) -> Vec<(KeyEvent, String)> {
        events.into_iter().map(|(event, vkey)| (event, vkey.to_string())).collect()
    }

    fn of(event: KeyEvent, vkey: &str) -> (KeyEvent, String) {
        (event, vkey.to_owned())
    }

    /// Reads what is written, as the next start does.
    fn write(seen: &mut KeysSeen, signing: &[Arc<str>], compromised: &[Arc<str>]) -> Vec<(KeyEvent, String)> {
        let events = seen.unsaid(signing, compromised);
        seen.read_start(signing.to_vec());
        events.iter().for_each(|(event, vkey)| seen.read_event(*event, Arc::clone(vkey)));
        said(events)
    }

    #[test]
    fn the_first_keys_need_no_leaf_and_the_same_keys_again_need_none() {
        assert_eq!(KeysSeen::default().unsaid(&keys(["a"]), &keys(["z"])), []);
        let mut seen = seen(&keys(["a", "b"]));
        assert_eq!(write(&mut seen, &keys(["b", "a"]), &[]), []);
        assert_eq!(write(&mut seen, &keys(["a", "b"]), &[]), []);
    }

    #[test]
    fn every_difference_is_said_once() {
        let mut seen = seen(&keys(["a"]));
        assert_eq!(write(&mut seen, &keys(["a", "b"]), &[]), [of(KeyEvent::Add, "b")]);
        assert_eq!(write(&mut seen, &keys(["b", "a"]), &[]), []);
        assert_eq!(write(&mut seen, &keys(["b"]), &[]), [of(KeyEvent::Retire, "a")]);
        assert_eq!(write(&mut seen, &keys(["b"]), &[]), []);
        let exchanged = [of(KeyEvent::Add, "c"), of(KeyEvent::Retire, "b")];
        assert_eq!(write(&mut seen, &keys(["c"]), &[]), exchanged);
        assert!(seen.is_retired("a") && seen.is_retired("b") && !seen.is_retired("c"));
        seen.read_event(KeyEvent::Add, "a".into());
        assert!(seen.is_retired("a"), "there is no way back");
    }

    #[test]
    fn a_compromised_key_is_said_once_whether_it_signed_last_or_long_ago() {
        let mut seen = seen(&keys(["a", "b"]));
        assert_eq!(write(&mut seen, &keys(["b"]), &keys(["a"])), [of(KeyEvent::Compromised, "a")]);
        assert_eq!(write(&mut seen, &keys(["b"]), &keys(["a"])), []);
        assert_eq!(write(&mut seen, &keys(["c"]), &[]), [of(KeyEvent::Add, "c"), of(KeyEvent::Retire, "b")]);
        assert_eq!(
            write(&mut seen, &keys(["c"]), &keys(["a", "b", "stranger"])),
            [of(KeyEvent::Compromised, "b")]
        );
        assert!(seen.is_compromised("a") && seen.is_compromised("b") && !seen.is_compromised("c"));
        assert!(!seen.is_compromised("stranger"));
        seen.read_event(KeyEvent::Add, "a".into());
        assert!(seen.is_compromised("a"), "there is no way back");
    }

    #[test]
    fn what_a_crash_left_unsaid_is_said_by_the_next_start() {
        let mut seen = seen(&keys(["a"]));
        // The start leaf is durable, the key leaves are not.
        seen.read_start(keys(["b"]));
        let both = [of(KeyEvent::Add, "b"), of(KeyEvent::Retire, "a")];
        assert_eq!(said(seen.unsaid(&keys(["b"]), &[])), both);
        // Gone again before its `add` was written: it never signed anything.
        assert_eq!(said(seen.unsaid(&keys(["a"]), &[])), []);
        assert_eq!(said(seen.unsaid(&keys(["a"]), &keys(["b"]))), []);
    }
}
