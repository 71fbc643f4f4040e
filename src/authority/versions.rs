//! The versions of everything an evaluation can read.
//!
//! Each piece of state that can change an answer (`policy`, `identity`, a freeze) has a name and an opaque
//! version here; whoever changes it sets the version. A read set is a copy of all of them, and it holds as long
//! as the copy is still equal: a version that changed, a name that appeared and one that went all count as moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::model::{ReadItem, ReadSet};

/// Something the evaluation read is no longer what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: Arc<str>,
}

/// The current versions. Cheap to clone; readers never wait, and see either all of a change or none of it.
#[derive(Clone, Debug, Default)]
pub struct Versions(Arc<ArcSwap<BTreeMap<Arc<str>, Arc<str>>>>);

impl Versions {
    pub fn new() -> Self {
        Self::default()
    }

    /// After this returns, no read set captured earlier is valid, unless the version is the one it had.
    pub fn set(&self, name: &str, version: &str) {
        self.0.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.insert(name.into(), version.into());
            next
        });
    }

    /// The version of one piece of state as it is now.
    pub fn version(&self, name: &str) -> Option<Arc<str>> {
        self.0.load().get(name).cloned()
    }

    /// Every version as it is now.
    pub fn capture(&self, clock: &Clock) -> ReadSet {
        // The time first: a permit is never younger than what it rests on.
        let captured_at = clock.monotonic();
        let items = self
            .0
            .load()
            .iter()
            .map(|(name, version)| ReadItem { age_ms: 0, name: name.clone(), version: version.clone() })
            .collect();
        ReadSet { items, captured_at }
    }

    /// Whether everything is still as it was read. One step without an await, against one state of the versions.
    pub fn validate(&self, read: &ReadSet) -> Result<(), Moved> {
        let current = self.0.load();
        let moved = |name: &Arc<str>| Err(Moved { name: name.clone() });
        for item in &read.items {
            if current.get(&item.name) != Some(&item.version) {
                return moved(&item.name);
            }
        }
        match current.keys().find(|name| !read.items.iter().any(|item| item.name == **name)) {
            Some(appeared) => moved(appeared),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use std::time::Duration;

    fn clock() -> Clock {
        Clock::manual(WallTime::from_unix_ns(0))
    }

    #[test]
    fn what_has_not_moved_is_valid_and_carries_the_time_of_its_capture() {
        let (versions, clock) = (Versions::new(), clock());
        versions.set("policy", "sha-256:aa");
        clock.advance(Duration::from_millis(5));
        let read = versions.capture(&clock);
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.monotonic().since(read.captured_at), Duration::from_millis(5));
        assert_eq!(versions.validate(&read), Ok(()));
        assert_eq!(read.items, [ReadItem { age_ms: 0, name: "policy".into(), version: "sha-256:aa".into() }]);
    }

    #[test]
    fn a_version_that_changed_has_moved_and_names_itself() {
        let versions = Versions::new();
        versions.set("identity", "1");
        versions.set("policy", "1");
        let read = versions.capture(&clock());
        versions.set("policy", "2");
        assert_eq!(versions.validate(&read), Err(Moved { name: "policy".into() }));
        versions.set("policy", "1");
        assert_eq!(versions.validate(&read), Ok(()));
    }

    #[test]
    fn a_name_that_appeared_after_the_capture_has_moved() {
        let versions = Versions::new();
        versions.set("policy", "1");
        let read = versions.capture(&clock());
        versions.set("freeze", "1");
        assert_eq!(versions.validate(&read), Err(Moved { name: "freeze".into() }));
    }

    #[test]
    fn a_name_that_is_not_held_here_has_moved() {
        let versions = Versions::new();
        versions.set("policy", "1");
        let read = versions.capture(&clock());
        assert_eq!(Versions::new().validate(&read), Err(Moved { name: "policy".into() }));
    }

    #[test]
    fn changes_made_at_once_are_all_kept() {
        let versions = Versions::new();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let versions = &versions;
                scope.spawn(move || versions.set(&format!("fact-{n}"), "1"));
            }
        });
        assert_eq!(versions.capture(&clock()).items.len(), 8);
    }
}
