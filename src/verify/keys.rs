//! The keys of a log over its epochs: what start leaves list, what key leaves say, and whose word counts when.
//!
//! A log's first start lists the keys it begins with. From then on each change is a `key` leaf after the start that
//! first lists the new set. A key that was retired or compromised has no say over what stands after that leaf, and no
//! leaf brings it back: whoever found it could write that leaf.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::limits;
use crate::merkle::note::VerifierKey;
use crate::merkle::trust::Trust;
use crate::model::entry::{KeyEntry, KeyEvent};
use crate::model::{LeafIndex, LogOrigin, TreeSize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    /// By the leaf at this index.
    Retired(LeafIndex),
    Compromised(LeafIndex),
}

#[derive(Debug)]
struct Key {
    state: State,
    /// The leaf that added it; `None` of the keys that the log began with.
    added: Option<LeafIndex>,
}

#[derive(Debug)]
pub struct Keys {
    log: LogOrigin,
    trusted: BTreeSet<String>,
    known: BTreeMap<Arc<str>, Key>,
    begun: bool,
    /// What the last start lists, until the key leaves after it should have said the same.
    due: Option<BTreeSet<Arc<str>>>,
    /// What the last start lists.
    listed: BTreeSet<Arc<str>>,
    /// Starts that list no trusted key: the first, the last, and how many.
    strange: Option<(LeafIndex, LeafIndex, u64)>,
}

impl Keys {
    pub fn new(trust: &Trust) -> Self {
        Self {
            log: trust.log().clone(),
            trusted: trust.keys().iter().map(ToString::to_string).collect(),
            known: BTreeMap::new(),
            begun: false,
            due: None,
            listed: BTreeSet::new(),
            strange: None,
        }
    }

    /// A start that lists these keys.
    pub fn start(&mut self, vkeys: &[Arc<str>], index: LeafIndex) -> Option<String> {
        let listed: BTreeSet<Arc<str>> = vkeys.iter().take(limits::NOTE_SIGNATURES_MAX).cloned().collect();
        if !listed.iter().any(|vkey| self.trusted.contains(&**vkey)) {
            let (first, _, count) = self.strange.unwrap_or((index, index, 0));
            self.strange = Some((first, index, count + 1));
        }
        let what = self.wrong_list(vkeys, &listed);
        if self.begun {
            self.due = Some(listed.clone());
        } else {
            self.begun = true;
            let active = |vkey: &Arc<str>| (Arc::clone(vkey), Key { state: State::Active, added: None });
            self.known = listed.iter().map(active).collect();
        }
        self.listed = listed;
        what
    }

    /// A stop lists what its start did.
    pub fn stop(&self, vkeys: &[Arc<str>]) -> Option<String> {
        let listed: BTreeSet<Arc<str>> = vkeys.iter().cloned().collect();
        (listed != self.listed).then(|| "a stop that lists other keys than its start".into())
    }

    fn wrong_list(&self, vkeys: &[Arc<str>], listed: &BTreeSet<Arc<str>>) -> Option<String> {
        let is_of_log = |vkey: &Arc<str>| vkey.parse().is_ok_and(|key: VerifierKey| *key.name() == self.log);
        if vkeys.len() != listed.len() {
            return Some(format!("lists a key twice, or more than {} keys", limits::NOTE_SIGNATURES_MAX));
        }
        listed
            .iter()
            .find(|vkey| !is_of_log(vkey))
            .map(|vkey| format!("lists `{vkey}`, which is no key of this log"))
    }

    /// A key leaf.
    pub fn event(&mut self, leaf: &KeyEntry, index: LeafIndex) -> Option<String> {
        let is_of_log = leaf.vkey.parse().is_ok_and(|key: VerifierKey| *key.name() == self.log);
        if !is_of_log {
            return Some(format!("of `{}`, which is no key of this log", leaf.vkey));
        }
        let state = self.known.get(&leaf.vkey).map(|key| key.state);
        let wrong = match (leaf.event, state) {
            (KeyEvent::Add, None)
            | (KeyEvent::Retire, Some(State::Active))
            | (KeyEvent::Compromised, Some(State::Active | State::Retired(_))) => None,
            (KeyEvent::Add, Some(State::Active)) => Some("adds a key that signs already"),
            (KeyEvent::Add, Some(State::Retired(_))) => Some("adds a key that was retired"),
            (KeyEvent::Add, Some(State::Compromised(_))) => Some("adds a key that was compromised"),
            (KeyEvent::Retire, None | Some(State::Retired(_) | State::Compromised(_))) => {
                Some("retires a key that does not sign")
            }
            (KeyEvent::Compromised, None) => Some("calls a key compromised that never signed"),
            (KeyEvent::Compromised, Some(State::Compromised(_))) => {
                Some("calls a key compromised a second time")
            }
        };
        if wrong.is_none() && state.is_none() && self.known.len() >= limits::LOG_KEYS_MAX {
            return Some(format!("more than {} keys", limits::LOG_KEYS_MAX));
        }
        let key =
            self.known.entry(Arc::clone(&leaf.vkey)).or_insert(Key { state: State::Active, added: None });
        match (leaf.event, key.state) {
            (KeyEvent::Add, State::Active) => key.added = Some(index),
            (KeyEvent::Retire, State::Active) => key.state = State::Retired(index),
            (KeyEvent::Compromised, State::Active) => key.state = State::Compromised(index),
            // Its word ended before.
            (KeyEvent::Compromised, State::Retired(ended)) => key.state = State::Compromised(ended),
            (KeyEvent::Add | KeyEvent::Retire, State::Retired(_)) | (_, State::Compromised(_)) => {}
        }
        wrong.map(Into::into)
    }

    /// The first leaf after a start that is neither its key leaves nor the outcomes that were owed.
    pub fn settled(&mut self) -> Option<String> {
        let due = self.due.take()?;
        let signs = |vkey: &Arc<str>| matches!(self.known.get(vkey), Some(Key { state: State::Active, .. }));
        let active = self.known.values().filter(|key| key.state == State::Active).count();
        if due.len() == active && due.iter().all(signs) {
            return None;
        }
        // Said once: from here on what the start lists is what signs.
        for (vkey, key) in &mut self.known {
            if key.state == State::Active && !due.contains(vkey) {
                key.state = State::Retired(LeafIndex(u64::MAX));
            }
        }
        for vkey in due {
            let active = Key { state: State::Active, added: None };
            if self.known.len() < limits::LOG_KEYS_MAX {
                self.known.entry(vkey).or_insert(active);
            }
        }
        Some("the start before it lists other keys than the key leaves give".into())
    }

    /// Whether the log has named this key, as far as it goes: in a start, or by a leaf that adds it. Of the tree without
    /// leaves nothing has named one, and a start that names no trusted key is a problem of its own.
    pub fn is_named(&self, key: &VerifierKey, size: TreeSize) -> bool {
        let key = key.to_string();
        let has_strange = self.strange.is_some();
        size.0 == 0
            || !self.begun
            || has_strange
            || self.known.contains_key(key.as_str())
            || self.listed.contains(key.as_str())
    }

    /// Whether this key's word counts over a tree of this size.
    pub fn may_sign(&self, key: &VerifierKey, size: TreeSize) -> bool {
        match self.known.get(key.to_string().as_str()).map(|key| key.state) {
            // That no start lists it is a problem of its own.
            None | Some(State::Active) => true,
            Some(State::Retired(index) | State::Compromised(index)) => size.0 <= index.0,
        }
    }

    /// The first start that lists no trusted key.
    pub fn first_strange(&self) -> Option<LeafIndex> {
        self.strange.map(|(first, _, _)| first)
    }

    /// Starts that list no trusted key, unless a trusted key was added later and signed over them: the first, and how
    /// many.
    pub fn strange_starts(&self, signers: &[VerifierKey], size: TreeSize) -> Option<(LeafIndex, u64)> {
        let (first, last, count) = self.strange?;
        let vouches = |key: &VerifierKey| {
            let added = self.known.get(key.to_string().as_str()).and_then(|key| key.added);
            added.is_some_and(|added| last < added && added.0 < size.0) && self.may_sign(key, size)
        };
        (!signers.iter().any(vouches)).then_some((first, count))
    }
}
