//! The versions of everything an evaluation can read, and the gate through which a permitted request starts.
//!
//! Each piece of state that can change an answer and that no decision takes for itself (`policy`, `identity`,
//! `freezes`, a fact) has a name and an opaque version here; whoever changes it sets the version. A read set holds
//! some of them by name, and is valid as long as each is still what it was.
//!
//! **The barrier.** The first byte of a message is written inside [`Versions::start`], which validates its read set and
//! writes while it holds the gate for reading; [`Versions::set`] takes the gate for writing. So when `set` has
//! returned, every start that read the earlier version is over, and every later one is refused: an operator whose
//! `freeze` has returned knows that no earlier permit starts sending. What has started goes on; what has started is in
//! the log as sent. Tests: `no_start_happens_after_set_has_returned` here, and end to end in `tests/authority.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::model::{ReadItem, ReadSet};

/// The version of what nobody has set yet.
pub const UNSET: &str = "unset";

/// Something the evaluation read is no longer what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: Arc<str>,
}

/// The current versions. Cheap to clone; capturing and validating never wait, and see either all of a change or none
/// of it.
#[derive(Clone, Debug, Default)]
pub struct Versions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    current: ArcSwap<BTreeMap<Arc<str>, Arc<str>>>,
    /// Held for reading while a message starts, for writing while a version changes.
    gate: RwLock<()>,
}

impl Versions {
    pub fn new() -> Self {
        Self::default()
    }

    /// After this returns, no read set captured earlier is valid, unless the version is the one it had, and nothing
    /// that was permitted by one of them starts. Waits for the starts that are under way: a write to a socket each,
    /// none of which waits. Not to be called from within [`Versions::start`].
    pub fn set(&self, name: &str, version: &str) {
        self.set_after(name, version, || ());
    }

    /// [`Versions::set`] of what `change` changes, and nothing starts between the two: a request that read the earlier
    /// version and was judged after the change does not start either.
    pub fn set_after(&self, name: &str, version: &str, change: impl FnOnce()) {
        // A start that panicked has changed nothing here.
        let _no_start = self.0.gate.write().unwrap_or_else(PoisonError::into_inner);
        change();
        self.0.current.rcu(|current| {
            let mut next = BTreeMap::clone(current);
            next.insert(name.into(), version.into());
            next
        });
    }

    /// The version of one piece of state as it is now.
    pub fn version(&self, name: &str) -> Option<Arc<str>> {
        self.0.current.load().get(name).cloned()
    }

    /// These versions as they are now, [`UNSET`] where there is none.
    pub fn capture<'n>(&self, clock: &Clock, names: impl IntoIterator<Item = &'n Arc<str>>) -> ReadSet {
        // The time first: a permit is never younger than what it rests on.
        let captured_at = clock.monotonic();
        let current = self.0.current.load();
        let unset: Arc<str> = UNSET.into();
        let item = |name: &Arc<str>| {
            let version = current.get(name).unwrap_or(&unset).clone();
            ReadItem { age_ms: 0, name: name.clone(), version }
        };
        let watched = names.into_iter().map(item).collect();
        ReadSet { watched, state: Vec::new(), captured_at, approvals_until: None }
    }

    /// Whether everything that is watched is still as it was read. One step without an await, against one state of the
    /// versions.
    pub fn validate(&self, read: &ReadSet) -> Result<(), Moved> {
        let current = self.0.current.load();
        let is_as_read =
            |item: &&ReadItem| current.get(&item.name).map_or(UNSET, |version| &**version) == &*item.version;
        match read.watched.iter().find(|item| !is_as_read(item)) {
            Some(item) => Err(Moved { name: item.name.clone() }),
            None => Ok(()),
        }
    }

    /// Runs the first write of a message, if everything it rests on is still as it was read. No version changes in
    /// between. `write` must not wait.
    pub fn start<T>(&self, read: &ReadSet, write: impl FnOnce() -> T) -> Result<T, Moved> {
        let _no_change = self.0.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.validate(read)?;
        Ok(write())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    fn clock() -> Clock {
        Clock::manual(WallTime::from_unix_ns(0))
    }

    fn names<const N: usize>(names: [&str; N]) -> [Arc<str>; N] {
        names.map(Arc::from)
    }

    #[test]
    fn what_has_not_moved_is_valid_and_carries_the_time_of_its_capture() {
        let (versions, clock) = (Versions::new(), clock());
        versions.set("policy", "sha-256:aa");
        clock.advance(Duration::from_millis(5));
        let read = versions.capture(&clock, &names(["policy"]));
        clock.advance(Duration::from_millis(5));
        assert_eq!(clock.monotonic().since(read.captured_at), Duration::from_millis(5));
        assert_eq!(versions.validate(&read), Ok(()));
        let item = ReadItem { age_ms: 0, name: "policy".into(), version: "sha-256:aa".into() };
        assert_eq!(read.items(), [item]);
    }

    #[test]
    fn a_version_that_changed_has_moved_and_names_itself() {
        let versions = Versions::new();
        versions.set("identity", "1");
        versions.set("policy", "1");
        let read = versions.capture(&clock(), &names(["identity", "policy"]));
        versions.set("policy", "2");
        assert_eq!(versions.validate(&read), Err(Moved { name: "policy".into() }));
        assert_eq!(versions.start(&read, || ()), Err(Moved { name: "policy".into() }));
        versions.set("policy", "1");
        assert_eq!(versions.validate(&read), Ok(()));
        assert_eq!(versions.start(&read, || 7), Ok(7));
    }

    #[test]
    fn a_version_that_is_set_for_the_first_time_after_the_capture_has_moved() {
        let versions = Versions::new();
        let read = versions.capture(&clock(), &names(["freezes"]));
        assert_eq!(&*read.watched[0].version, UNSET);
        assert_eq!(versions.validate(&read), Ok(()));
        versions.set("freezes", "17");
        assert_eq!(versions.validate(&read), Err(Moved { name: "freezes".into() }));
    }

    #[test]
    fn what_was_not_asked_for_may_move() {
        let versions = Versions::new();
        let read = versions.capture(&clock(), &names(["fact:payments/rates"]));
        versions.set("fact:mail/senders", "1");
        assert_eq!(versions.validate(&read), Ok(()));
    }

    #[test]
    fn changes_made_at_once_are_all_kept() {
        let versions = Versions::new();
        let facts: Vec<Arc<str>> = (0..8).map(|n| format!("fact-{n}").into()).collect();
        std::thread::scope(|scope| {
            for name in &facts {
                let versions = &versions;
                scope.spawn(move || versions.set(name, "1"));
            }
        });
        let read = versions.capture(&clock(), &facts);
        assert!(read.watched.iter().all(|item| &*item.version == "1"));
    }

    /// Starts race with a change, many times; one that happened after the change returned would be seen.
    #[test]
    fn no_start_happens_after_set_has_returned() {
        const STARTERS: usize = 4;
        for round in 0..500 {
            let versions = Versions::new();
            let read = versions.capture(&clock(), &names(["freezes"]));
            let (has_returned, late, begin) =
                (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(STARTERS + 1));
            std::thread::scope(|scope| {
                for _ in 0..STARTERS {
                    scope.spawn(|| {
                        begin.wait();
                        let write = || {
                            // As a write to a socket would: some time passes between the check and the end.
                            (0..round % 50).for_each(|_| std::hint::spin_loop());
                            late.fetch_add(u64::from(has_returned.load(Ordering::SeqCst)), Ordering::SeqCst);
                        };
                        while versions.start(&read, write).is_ok() {}
                    });
                }
                begin.wait();
                (0..round).for_each(|_| std::hint::spin_loop());
                versions.set("freezes", "1");
                has_returned.store(true, Ordering::SeqCst);
            });
            assert_eq!(late.load(Ordering::SeqCst), 0, "round {round}");
        }
    }
}
