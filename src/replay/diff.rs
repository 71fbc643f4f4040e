//! What another bundle would have said to recorded traffic: which verdicts become which, where, for whom, by which rules,
//! and how much is at stake.
//!
//! Everything is counted as the threads go. Counts and sums are whole; only lists of actors and of decisions are bounded, and
//! keep what comes first by name or index, so the result is the same whatever thread came to which decision.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use super::report::{Difference, Report};
use crate::limits;
use crate::model::{ActionName, ActorId, Decision, Json, SurfaceName};
use crate::verify::escape;

/// Says how much a request is about.
pub trait Measure: fmt::Debug + Sync {
    /// Of one policy input, as it was judged: each thing that is counted, once.
    fn amounts(&self, input: &Json) -> Vec<Amount>;
}

/// Counts decisions only.
#[derive(Clone, Copy, Debug)]
pub struct NoAmounts;

impl Measure for NoAmounts {
    fn amounts(&self, _: &Json) -> Vec<Amount> {
        Vec::new()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    /// What is counted, such as a budget's name.
    pub name: Arc<str>,
    pub unit: Arc<str>,
    pub amount: Decimal,
}

/// Where something changes, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub surface: SurfaceName,
    pub action: ActionName,
    pub before: Decision,
    pub after: Decision,
}

/// All decisions with one change in one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    #[serde(flatten)]
    pub place: Place,
    #[serde(flatten)]
    pub changed: Changed,
    /// At most [`limits::DIFF_ACTORS_MAX`], in the order of their names.
    pub actors: BTreeMap<ActorId, Changed>,
    /// Decisions of actors that are not among them.
    pub other_actors: u64,
    /// Reason codes that come, and that go, each with the number of decisions.
    pub codes_gained: BTreeMap<Arc<str>, u64>,
    pub codes_lost: BTreeMap<Arc<str>, u64>,
}

/// How many, and how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Changed {
    pub count: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "as_list")]
    /// By name and unit; at most [`limits::DIFF_SUMS_MAX`], in their order.
    pub sums: BTreeMap<(Arc<str>, Arc<str>), Sum>,
    /// Amounts that are in no sum.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_summed: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// `None`: more than can be written exactly.
    pub total: Option<Decimal>,
    /// Decisions that have such an amount.
    pub of: u64,
}

impl Sum {
    fn add(self, other: Self) -> Self {
        let total = self.total.zip(other.total).and_then(|(a, b)| a.checked_add(b));
        Self { total, of: self.of + other.of }
    }
}

fn as_list<S: Serializer>(
    sums: &BTreeMap<(Arc<str>, Arc<str>), Sum>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Item<'s> {
        name: &'s str,
        of: u64,
        total: Option<String>,
        unit: &'s str,
    }
    serializer.collect_seq(sums.iter().map(|((name, unit), sum)| Item {
        name,
        of: sum.of,
        total: sum.total.map(|total| total.to_string()),
        unit,
    }))
}

impl Changed {
    fn one(amounts: &[Amount]) -> Self {
        let sums = amounts.iter().map(|Amount { name, unit, amount }| {
            ((Arc::clone(name), Arc::clone(unit)), Sum { total: Some(*amount), of: 1 })
        });
        Self { count: 1, sums: sums.collect(), not_summed: 0 }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        for (key, sum) in &other.sums {
            self.sums.entry(key.clone()).and_modify(|own| *own = own.add(*sum)).or_insert(*sum);
        }
        self.not_summed += other.not_summed;
        // As with actors: what is left out comes after all that stays.
        while self.sums.len() > limits::DIFF_SUMS_MAX {
            self.not_summed += self.sums.pop_last().map_or(0, |(_, sum)| sum.of);
        }
    }
}

/// Changes by place.
#[derive(Debug, Default)]
pub struct Groups(BTreeMap<Place, Group>);

impl Groups {
    pub fn add(&mut self, difference: &Difference, amounts: &[Amount]) {
        let Difference { about, before, after } = difference;
        let place = Place {
            surface: about.surface.clone(),
            action: about.action.clone(),
            before: before.decision,
            after: after.decision,
        };
        let one = Changed::one(amounts);
        let group = self.0.entry(place.clone()).or_insert_with(|| Group::empty(place));
        group.changed.add(&one);
        group.of_actor(about.actor.clone(), &one);
        let codes = |said: &super::Said| {
            let mut codes: Vec<_> = said.reasons.iter().map(|reason| Arc::clone(&reason.code)).collect();
            codes.extend(said.cause.clone());
            codes.sort_unstable();
            codes.dedup();
            codes
        };
        let (before, after) = (codes(before), codes(after));
        for code in after.iter().filter(|code| !before.contains(code)) {
            *group.codes_gained.entry(Arc::clone(code)).or_default() += 1;
        }
        for code in before.iter().filter(|code| !after.contains(code)) {
            *group.codes_lost.entry(Arc::clone(code)).or_default() += 1;
        }
    }

    pub fn merge(mut self, other: Self) -> Self {
        for (place, group) in other.0 {
            let own = self.0.entry(place.clone()).or_insert_with(|| Group::empty(place));
            own.changed.add(&group.changed);
            own.other_actors += group.other_actors;
            for (actor, changed) in group.actors {
                own.of_actor(actor, &changed);
            }
            for (codes, of_other) in
                [(&mut own.codes_gained, group.codes_gained), (&mut own.codes_lost, group.codes_lost)]
            {
                for (code, count) in of_other {
                    *codes.entry(code).or_default() += count;
                }
            }
        }
        self
    }

    pub fn into_list(self) -> Vec<Group> {
        self.0.into_values().collect()
    }
}

impl Group {
    fn empty(place: Place) -> Self {
        Self {
            place,
            changed: Changed::default(),
            actors: BTreeMap::new(),
            other_actors: 0,
            codes_gained: BTreeMap::new(),
            codes_lost: BTreeMap::new(),
        }
    }

    /// Whoever is left out comes after so many others by name, and so is left out of the whole as well.
    fn of_actor(&mut self, actor: ActorId, changed: &Changed) {
        self.actors.entry(actor).or_default().add(changed);
        if self.actors.len() > limits::DIFF_ACTORS_MAX
            && let Some((_, last)) = self.actors.pop_last()
        {
            self.other_actors += last.count;
        }
    }

    pub fn is_new_permit(&self) -> bool {
        self.place.after == Decision::Permit && self.place.before != Decision::Permit
    }

    pub fn is_new_refusal(&self) -> bool {
        self.place.before == Decision::Permit && self.place.after != Decision::Permit
    }
}

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// What was not permitted would be.
    NewPermit,
    /// What was permitted would not be.
    NewRefusal,
    /// Any verdict becomes another one.
    AnyVerdict,
}

impl Gate {
    fn holds(self, groups: &[Group]) -> bool {
        !groups.iter().any(|group| match self {
            Self::NewPermit => group.is_new_permit(),
            Self::NewRefusal => group.is_new_refusal(),
            Self::AnyVerdict => group.place.before != group.place.after,
        })
    }
}

/// What a bundle changes.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    #[serde(flatten)]
    pub report: Report,
    /// By surface, action and change.
    pub groups: Vec<Group>,
}

/// A gate does not hold.
const GATE: u8 = 20;
/// Something could not be judged by the bundle, or nothing was there to be judged.
const INCOMPLETE: u8 = 3;

impl Comparison {
    pub fn fails(&self, gates: &[Gate]) -> bool {
        !gates.iter().all(|gate| gate.holds(&self.groups))
    }

    pub fn exit_code(&self, gates: &[Gate]) -> u8 {
        match self.report.first_failed {
            Some(check) => check.exit_code(),
            None if self.fails(gates) => GATE,
            None if self.report.is_incomplete() => INCOMPLETE,
            None => 0,
        }
    }

    /// For people; `named` is how many decisions are listed.
    pub fn show(&self, named: usize) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write(f, named))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, named: usize) -> fmt::Result {
        let report = &self.report;
        report.write_head(f)?;
        writeln!(
            f,
            "\nof {} decisions {} stay as they are, {} differ",
            report.decisions, report.exact, report.differ
        )?;
        for group in &self.groups {
            writeln!(f)?;
            group.write(f)?;
        }
        for (why, count) in &report.not_replayed {
            writeln!(f, "\nnot judged: {count} ({})", why.as_str())?;
        }
        if named > 0 && report.differ > 0 {
            writeln!(f)?;
        }
        for difference in report.differences.iter().take(named) {
            writeln!(f, "{}", difference.about)?;
            writeln!(f, "  was {}", difference.before)?;
            writeln!(f, "  is  {}", difference.after)?;
        }
        if report.differ > named as u64 && named > 0 {
            writeln!(f, "{} more", report.differ - named.min(report.differences.len()) as u64)?;
        }
        report.problems.iter().try_for_each(|problem| writeln!(f, "problem  {problem}"))
    }
}

impl Group {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { surface, action, before, after } = &self.place;
        let what = match (before == after, self.is_new_permit(), self.is_new_refusal()) {
            (true, ..) => "for other reasons",
            (false, true, _) => "newly permitted",
            (false, _, true) => "newly refused",
            (false, false, false) => "refused otherwise",
        };
        writeln!(
            f,
            "{surface}/{action}: {} {what}, {} to {}{}",
            self.changed.count,
            before.as_str(),
            after.as_str(),
            self.changed
        )?;
        for (sign, codes) in [('+', &self.codes_gained), ('-', &self.codes_lost)] {
            codes.iter().try_for_each(|(code, count)| writeln!(f, "  {sign} {} {count}", escape(code)))?;
        }
        for (actor, changed) in &self.actors {
            writeln!(f, "  by {}: {}{changed}", escape(actor.as_str()), changed.count)?;
        }
        if self.other_actors > 0 {
            writeln!(f, "  by others: {}", self.other_actors)?;
        }
        Ok(())
    }
}

/// The sums, each after a comma.
impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, unit), Sum { total, of }) in &self.sums {
            match total {
                Some(total) => write!(f, ", {total} {} ({name})", escape(unit))?,
                None => write!(f, ", more {} than can be counted ({name})", escape(unit))?,
            }
            if *of != self.count {
                write!(f, " in {of} of them")?;
            }
        }
        if self.not_summed > 0 {
            write!(f, ", {} amounts in other units", self.not_summed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{About, Said};
    use super::*;
    use crate::clock::WallTime;
    use crate::model::{LeafIndex, PolicyReason, ReceiptId};

    fn said(decision: Decision, codes: &[&str]) -> Said {
        let reason = |code: &&str| PolicyReason { code: (*code).into(), detail: None, message: None };
        Said { decision, reasons: codes.iter().map(reason).collect(), cause: None }
    }

    fn difference(n: u64, actor: &str, before: Said, after: Said) -> Difference {
        let about = About {
            index: LeafIndex(n),
            id: ReceiptId::new(WallTime::from_unix_ns(1), [0; 10]),
            surface: "payments".parse().expect("a name"),
            action: "charge".parse().expect("a name"),
            actor: actor.parse().expect("a name"),
        };
        Difference { about, before, after }
    }

    fn euros(amount: i64) -> Vec<Amount> {
        vec![Amount { name: "day".into(), unit: "EUR".into(), amount: Decimal::new(amount, 2) }]
    }

    #[test]
    fn counts_and_sums_are_the_same_however_the_work_is_split() {
        let all: Vec<_> = (0..3_000u64)
            .map(|n| {
                let (before, after) = match n % 3 {
                    0 => (said(Decision::Deny, &["over"]), said(Decision::Permit, &["small"])),
                    1 => (said(Decision::Permit, &["small"]), said(Decision::Deny, &["over", "late"])),
                    _ => (said(Decision::Deny, &["over"]), said(Decision::Deny, &["late"])),
                };
                (difference(n, &format!("agent-{}", n * 7 % 2_003), before, after), euros(n as i64))
            })
            .collect();
        let counted = |parts: usize| {
            let mut groups: Vec<_> = (0..parts).map(|_| Groups::default()).collect();
            for (n, (difference, amounts)) in all.iter().enumerate() {
                groups[n % parts].add(difference, amounts);
            }
            groups.into_iter().fold(Groups::default(), Groups::merge).into_list()
        };
        let whole = counted(1);
        assert_eq!(whole, counted(7));
        assert_eq!(whole.iter().map(|group| group.changed.count).collect::<Vec<_>>(), [1_000, 1_000, 1_000]);
        let permitted = whole.iter().find(|group| group.is_new_permit()).expect("there");
        let sum = permitted.changed.sums.values().next().expect("one");
        let cents: i64 = (0..3_000).step_by(3).sum();
        assert_eq!((sum.total, sum.of), (Some(Decimal::new(cents, 2)), 1_000));
        assert_eq!(permitted.codes_gained.get("small"), Some(&1_000));
        assert_eq!(permitted.codes_lost.get("over"), Some(&1_000));
        for group in &whole {
            let named: u64 = group.actors.values().map(|changed| changed.count).sum();
            assert_eq!(named + group.other_actors, group.changed.count);
            assert!(group.actors.len() <= limits::DIFF_ACTORS_MAX);
        }
    }

    #[test]
    fn a_gate_is_about_its_change_alone() {
        let groups = |before, after| {
            let mut groups = Groups::default();
            groups.add(&difference(1, "a", said(before, &["x"]), said(after, &["y"])), &[]);
            groups.into_list()
        };
        use Decision::{Deny, Escalate, Permit};
        use Gate::{AnyVerdict, NewPermit, NewRefusal};
        for (before, after, holding) in [
            (Deny, Permit, [false, true, false]),
            (Escalate, Permit, [false, true, false]),
            (Permit, Deny, [true, false, false]),
            (Deny, Escalate, [true, true, false]),
            (Permit, Permit, [true, true, true]),
        ] {
            let groups = groups(before, after);
            assert_eq!([NewPermit, NewRefusal, AnyVerdict].map(|gate| gate.holds(&groups)), holding);
        }
    }

    #[test]
    fn a_sum_that_cannot_be_written_says_so() {
        let largest = Sum { total: Some(Decimal::MAX), of: 1 };
        assert_eq!(largest.add(largest), Sum { total: None, of: 2 });
    }
}
