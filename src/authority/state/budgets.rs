//! What is spent and in flight of each budget key, by the time at which it stops to count.
//!
//! Sums are exact: an addition that a decimal of 28 digits cannot hold is not made. [`Budgets::sums`] is what counts
//! now; what has ended is passed over, and leaves memory as later leaves arrive.

use imbl::{OrdMap, OrdSet};
use rust_decimal::Decimal;

use super::super::budget::{add, subtract};
use crate::clock::WallTime;
use crate::limits;
use crate::model::{BudgetName, Digest, SurfaceName};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BudgetKey {
    pub surface: SurfaceName,
    pub budget: BudgetName,
    /// As in [`crate::model::entry::Reserve::key`].
    pub key: Digest,
}

/// What one decision took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub key: BudgetKey,
    pub amount: Decimal,
    pub until: WallTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    pub spent: Decimal,
    pub in_flight: Decimal,
}

impl Sums {
    pub const ZERO: Self = Self { spent: Decimal::ZERO, in_flight: Decimal::ZERO };

    /// Both together; `None` past the bound.
    pub fn total(self) -> Option<Decimal> {
        add(self.spent, self.in_flight)
    }
}

/// What counts until the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub until: WallTime,
    pub sums: Sums,
}

/// Of one key, ascending by time, each time once: a sliding window has few, a calendar window one or two.
pub type Tally = Vec<Window>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budgets {
    tallies: OrdMap<BudgetKey, Tally>,
    /// When the last of each key's windows ends.
    ends: OrdSet<(WallTime, BudgetKey)>,
}

/// A sum past the bound counts as the largest there is: only a log that no gateway wrote can say so, and it must not
/// leave room that was used.
fn saturating(sum: Option<Decimal>) -> Decimal {
    sum.unwrap_or(Decimal::MAX)
}

impl Budgets {
    pub fn len(&self) -> usize {
        self.tallies.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&BudgetKey, &Tally)> {
        self.tallies.iter()
    }

    pub fn sums(&self, key: &BudgetKey, now: WallTime) -> Sums {
        let windows = self.tallies.get(key).map(Vec::as_slice).unwrap_or_default();
        let ended = windows.partition_point(|window| window.until <= now);
        windows[ended..].iter().fold(Sums::ZERO, |sums, window| Sums {
            spent: saturating(add(sums.spent, window.sums.spent)),
            in_flight: saturating(add(sums.in_flight, window.sums.in_flight)),
        })
    }

    /// Whether so many more keys have room, when what has ended by then may be let go of.
    pub fn has_room(&self, forgotten: WallTime, more: usize) -> bool {
        let ended = self.ends.get_min().is_some_and(|(until, _)| *until <= forgotten);
        more == 0 || self.len().saturating_add(more) <= limits::BUDGET_KEYS_MAX || ended
    }

    pub fn has(&self, key: &BudgetKey) -> bool {
        self.tallies.contains_key(key)
    }

    /// A decision took this. What has ended by `forgotten` is let go of; `false` if that is so of what was taken.
    pub fn reserve(&mut self, taken: &Taken, forgotten: WallTime) -> bool {
        if taken.until <= forgotten {
            return false;
        }
        self.change(&taken.key, |tally| {
            tally.retain(|window| forgotten < window.until);
            let place = match tally.binary_search_by_key(&taken.until, |window| window.until) {
                Ok(place) => place,
                Err(place) => {
                    tally.insert(place, Window { until: taken.until, sums: Sums::ZERO });
                    place
                }
            };
            let sums = &mut tally[place].sums;
            sums.in_flight = saturating(add(sums.in_flight, taken.amount));
        });
        true
    }

    /// What was taken is spent.
    pub fn spend(&mut self, taken: &Taken) {
        self.settle(taken, |sums| sums.spent = saturating(add(sums.spent, taken.amount)));
    }

    /// What was taken is given back.
    pub fn release(&mut self, taken: &Taken) {
        self.settle(taken, |_| {});
    }

    fn settle(&mut self, taken: &Taken, then: impl FnOnce(&mut Sums)) {
        self.change(&taken.key, |tally| {
            // What has ended may be gone: it counts no more, whatever became of it.
            if let Ok(place) = tally.binary_search_by_key(&taken.until, |window| window.until) {
                let sums = &mut tally[place].sums;
                // What cannot be taken off goes on counting.
                sums.in_flight = subtract(sums.in_flight, taken.amount).unwrap_or(sums.in_flight);
                then(sums);
                if sums.spent.is_zero() && sums.in_flight.is_zero() {
                    tally.remove(place);
                }
            }
        });
    }

    fn change(&mut self, key: &BudgetKey, by: impl FnOnce(&mut Tally)) {
        let mut tally = self.tallies.remove(key).unwrap_or_default();
        let before = tally.last().map(|window| window.until);
        by(&mut tally);
        let after = tally.last().map(|window| window.until);
        if before != after
            && let Some(before) = before
        {
            self.ends.remove(&(before, key.clone()));
        }
        if let Some(after) = after {
            self.insert(key.clone(), tally, after);
        }
    }

    fn insert(&mut self, key: BudgetKey, tally: Tally, end: WallTime) {
        self.ends.insert((end, key.clone()));
        self.tallies.insert(key, tally);
    }

    /// As a snapshot has it; `None` if the windows are not in order, or there are none.
    pub fn restore(&mut self, key: BudgetKey, tally: Tally) -> Option<()> {
        let end = tally.last()?.until;
        let ascending = tally.windows(2).all(|pair| pair[0].until < pair[1].until);
        ascending.then(|| self.insert(key, tally, end))
    }

    /// Lets go of some that have ended by then.
    pub fn prune(&mut self, forgotten: WallTime) {
        for _ in 0..limits::ENDED_PER_CHANGE_MAX {
            let Some(end) = self.ends.get_min().filter(|(until, _)| *until <= forgotten).cloned() else {
                return;
            };
            self.ends.remove(&end);
            self.tallies.remove(&end.1);
        }
    }
}
