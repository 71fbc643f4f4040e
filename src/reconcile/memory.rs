//! Which unknown outcomes are one surface's, and when each is asked about next.
//!
//! The state lists all unknown outcomes, of every surface. They are passed over in slices, one a round; a leaf is read once,
//! when its outcome is met for the first time, and its outcome is forgotten when a later round no longer meets it. By a
//! monotonic clock, from when an outcome was met: a wall clock that is set brings no question forward.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::authority::UnknownOutcome;
use crate::clock::Moment;
use crate::limits;
use crate::model::{BudgetName, IdempotencyKey, LeafIndex, ReceiptId};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub id: ReceiptId,
    pub index: LeafIndex,
    pub key: IdempotencyKey,
    /// Of which the decision reserved.
    pub budgets: Vec<BudgetName>,
    /// The route keeps digests out of the log.
    pub withholds: bool,
}

/// How long until the first question about an outcome, and at most from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub after: Duration,
    pub again_max: Duration,
}

#[derive(Debug)]
enum Remembered {
    /// Of another surface or action, or nothing that can be asked about.
    Passed,
    Ours(Waiting),
}

#[derive(Debug)]
struct Waiting {
    subject: Subject,
    questions: u32,
    since: Moment,
    wait: Duration,
}

#[derive(Debug)]
pub struct Memory {
    pace: Pace,
    slice_max: usize,
    remembered_max: usize,
    by_decision: BTreeMap<LeafIndex, Remembered>,
    /// The last one that was passed over.
    cursor: Option<LeafIndex>,
}

impl Memory {
    pub fn new(pace: Pace) -> Self {
        let (slice_max, remembered_max) = (limits::STATUS_SLICE_MAX, limits::STATUS_REMEMBERED_MAX);
        Self { pace, slice_max, remembered_max, by_decision: BTreeMap::new(), cursor: None }
    }

    /// Which outcomes come next: after the one, and how many.
    pub fn next_slice(&self) -> (Option<LeafIndex>, usize) {
        (self.cursor, self.slice_max)
    }

    /// Those of the slice that were not met before.
    pub fn unmet(&self, slice: &[UnknownOutcome]) -> Vec<UnknownOutcome> {
        let is_unmet = |outcome: &&UnknownOutcome| !self.by_decision.contains_key(&outcome.decision_index);
        slice.iter().filter(is_unmet).copied().collect()
    }

    /// One that nobody asks about.
    pub fn pass(&mut self, decision: LeafIndex) {
        if self.has_room() {
            self.by_decision.insert(decision, Remembered::Passed);
        }
    }

    /// One that is asked about, from some time after now on.
    pub fn add(&mut self, subject: Subject, now: Moment) {
        if self.has_room() {
            let (index, wait) = (subject.index, self.pace.after);
            let waiting = Waiting { subject, questions: 0, since: now, wait };
            self.by_decision.insert(index, Remembered::Ours(waiting));
        }
    }

    /// What was passed over may be read again; what is asked about stays.
    fn has_room(&mut self) -> bool {
        if self.by_decision.len() >= self.remembered_max {
            self.by_decision.retain(|_, remembered| matches!(remembered, Remembered::Ours(_)));
        }
        self.by_decision.len() < self.remembered_max
    }

    /// The slice is done, and the next one follows it: forgets, and gives, what should have been in it and is not unknown
    /// any more.
    pub fn advance(&mut self, slice: &[UnknownOutcome]) -> Vec<LeafIndex> {
        let from = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let last =
            slice.last().map(|outcome| outcome.decision_index).filter(|_| slice.len() >= self.slice_max);
        let to = last.map_or(Bound::Unbounded, Bound::Included);
        let met: BTreeSet<LeafIndex> = slice.iter().map(|outcome| outcome.decision_index).collect();
        let known: Vec<_> = self
            .by_decision
            .range((from, to))
            .map(|(index, _)| *index)
            .filter(|i| !met.contains(i))
            .collect();
        for index in &known {
            self.by_decision.remove(index);
        }
        self.cursor = last;
        known
    }

    /// Those whose time has come, the longest overdue first.
    pub fn due(&self, now: Moment, max: usize) -> Vec<Subject> {
        let overdue = |waiting: &Waiting| now.since(waiting.since).checked_sub(waiting.wait);
        let mut due: Vec<_> =
            self.waiting().filter_map(|waiting| Some((overdue(waiting)?, &waiting.subject))).collect();
        due.sort_by_key(|(overdue, subject)| (std::cmp::Reverse(*overdue), subject.index));
        due.into_iter().take(max).map(|(_, subject)| subject.clone()).collect()
    }

    /// It was asked about, and is still unknown; how often by now.
    pub fn asked(&mut self, decision: LeafIndex, now: Moment) -> u32 {
        let Some(Remembered::Ours(waiting)) = self.by_decision.get_mut(&decision) else { return 0 };
        waiting.wait = self.pace.wait(waiting.questions, waiting.subject.id);
        waiting.questions = waiting.questions.saturating_add(1);
        waiting.since = now;
        waiting.questions
    }

    /// Nobody has to ask about it any more.
    pub fn settled(&mut self, decision: LeafIndex) {
        self.by_decision.remove(&decision);
    }

    /// How many are asked about.
    pub fn waiting_count(&self) -> usize {
        self.waiting().count()
    }

    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.by_decision.values().filter_map(|remembered| match remembered {
            Remembered::Ours(waiting) => Some(waiting),
            Remembered::Passed => None,
        })
    }
}

impl Pace {
    /// After so many earlier questions: twice as long each time, and between half of that and all of it, by the random bits
    /// of the receipt's id, so that what became unknown together is not asked about together.
    fn wait(self, earlier: u32, id: ReceiptId) -> Duration {
        let first = Duration::from_millis(limits::STATUS_AGAIN_MS_FIRST);
        let whole = first.saturating_mul(1 << earlier.min(31)).min(self.again_max);
        // The last seven bytes of a version 7 UUID are random.
        let random = id.as_bytes()[9 + earlier as usize % 7];
        whole / 2 + whole / 2 * u32::from(random) / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, WallTime};

    const PACE: Pace = Pace { after: Duration::from_secs(30), again_max: Duration::from_secs(100) };

    fn id(random: u8) -> ReceiptId {
        ReceiptId::new(WallTime::from_unix_ns(0), [random; 10])
    }

    fn unknown(index: u64) -> UnknownOutcome {
        let at = WallTime::from_unix_ns(0);
        UnknownOutcome { decision_id: id(7), decision_index: LeafIndex(index), at }
    }

    fn subject(index: u64) -> Subject {
        let (key, index) = (format!("order-{index}").parse().expect("a key"), LeafIndex(index));
        Subject { id: id(7), index, key, budgets: Vec::new(), withholds: false }
    }

    /// One round over what is unknown: who is met for the first time, and who is forgotten.
    fn round(memory: &mut Memory, unknown_now: &[u64], now: Moment) -> (Vec<u64>, Vec<u64>) {
        let (after, max) = memory.next_slice();
        let next = unknown_now.iter().filter(|n| after.is_none_or(|after| **n > after.0)).take(max);
        let slice: Vec<_> = next.map(|n| unknown(*n)).collect();
        let unmet: Vec<u64> = memory.unmet(&slice).iter().map(|outcome| outcome.decision_index.0).collect();
        unmet.iter().for_each(|n| memory.add(subject(*n), now));
        (unmet, memory.advance(&slice).iter().map(|index| index.0).collect())
    }

    #[test]
    fn every_outcome_is_met_once_in_slices_that_go_around_and_forgotten_when_it_is_known() {
        let now = Clock::manual(WallTime::from_unix_ns(0)).monotonic();
        let mut memory = Memory { slice_max: 2, ..Memory::new(PACE) };
        assert_eq!(round(&mut memory, &[1, 5, 9], now), (vec![1, 5], vec![]));
        assert_eq!(round(&mut memory, &[1, 5, 9], now), (vec![9], vec![]));
        assert_eq!(round(&mut memory, &[1, 5, 9], now), (vec![], vec![]));
        // 9 is known by now, and 7, decided before it, has become unknown after it.
        assert_eq!(round(&mut memory, &[1, 5, 7], now), (vec![7], vec![9]));
        assert_eq!(round(&mut memory, &[7, 8], now), (vec![8], vec![1, 5]));
        assert_eq!(round(&mut memory, &[], now), (vec![], vec![]));
        assert_eq!(round(&mut memory, &[], now), (vec![], vec![7, 8]));
        assert_eq!(memory.waiting_count(), 0);
    }

    #[test]
    fn what_is_passed_over_gives_way_when_memory_is_full_and_what_is_asked_about_does_not() {
        let now = Clock::manual(WallTime::from_unix_ns(0)).monotonic();
        let mut memory = Memory { remembered_max: 3, ..Memory::new(PACE) };
        (1..3).for_each(|n| memory.pass(LeafIndex(n)));
        memory.add(subject(3), now);
        memory.add(subject(4), now);
        assert_eq!((memory.by_decision.len(), memory.waiting_count()), (2, 2));
        (5..9).for_each(|n| memory.add(subject(n), now));
        assert_eq!(memory.waiting_count(), 3);
        memory.pass(LeafIndex(9));
        assert_eq!(memory.unmet(&[unknown(3), unknown(8), unknown(9)]), [unknown(8), unknown(9)]);
    }

    #[test]
    fn a_question_comes_after_its_time_and_again_ever_later_up_to_the_ceiling() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let mut memory = Memory::new(PACE);
        memory.add(subject(1), clock.monotonic());
        let due = |memory: &Memory, clock: &Clock| memory.due(clock.monotonic(), 9).len();
        clock.advance(PACE.after - Duration::from_millis(1));
        assert_eq!(due(&memory, &clock), 0);
        // A wall clock that is set brings nothing forward.
        clock.set_wall(WallTime::from_unix_ns(u64::MAX));
        assert_eq!(due(&memory, &clock), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(due(&memory, &clock), 1);
        for (earlier, whole) in [1, 2, 4, 8, 16, 32, 64, 100, 100].into_iter().enumerate() {
            assert_eq!(memory.asked(LeafIndex(1), clock.monotonic()), earlier as u32 + 1);
            let whole = Duration::from_secs(whole);
            clock.advance(whole / 2 - Duration::from_millis(1));
            assert_eq!(due(&memory, &clock), 0, "{earlier}");
            clock.advance(whole / 2 + Duration::from_millis(1));
            assert_eq!(due(&memory, &clock), 1, "{earlier}");
        }
        assert_eq!(PACE.wait(0, id(0)), Duration::from_millis(500));
        assert_eq!(PACE.wait(u32::MAX, id(255)), PACE.again_max);
    }

    #[test]
    fn the_longest_overdue_is_asked_about_first() {
        let clock = Clock::manual(WallTime::from_unix_ns(0));
        let mut memory = Memory::new(Pace { after: Duration::ZERO, ..PACE });
        for n in [3, 1, 2] {
            memory.add(subject(n), clock.monotonic());
            clock.advance(Duration::from_secs(1));
        }
        let due = |memory: &Memory, max| {
            memory.due(clock.monotonic(), max).iter().map(|subject| subject.index.0).collect::<Vec<_>>()
        };
        assert_eq!(due(&memory, 2), [3, 1]);
        memory.asked(LeafIndex(3), clock.monotonic());
        memory.settled(LeafIndex(1));
        assert_eq!(due(&memory, 9), [2]);
    }
}
