//! The rules, each where it is checked: what leaves show alone, what is so as each first byte leaves, what was told.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::journal::{Sums, Told, What};
use super::super::log::{self, Leaf, unix_ns};
use super::super::script::{ACTORS, Frozen, PERMIT_AGE_MAX, TRAP};
use super::super::world::START;
use super::{Auditor, Outcome, Permitted, Rule, revision_of};
use crate::limits::ENDED_KEPT_MS;

impl<'a> Auditor<'a> {
    /// All of them.
    pub(super) fn check(&mut self) {
        self.check_outcomes();
        self.check_log_order();
        self.check_in_time();
        self.check_told();
        self.check_again();
        self.check_states();
    }

    fn check_outcomes(&mut self) {
        let Self { permits, messages, found, .. } = self;
        for permit in permits {
            let Some(outcome) = permit.outcome else {
                found.add(Rule::Outcome, format!("PERMIT {} has none", permit.id));
                continue;
            };
            let is_whole = permit.message.map(|n| messages[n].is_whole);
            let holds = match outcome.status {
                "not_sent" => is_whole.is_none(),
                "confirmed" | "failed" => is_whole == Some(true),
                "indeterminate" => true,
                _ => false,
            };
            found.unless(holds, Rule::Outcome, || {
                format!("PERMIT {} is {}, and what left is whole: {is_whole:?}", permit.id, outcome.status)
            });
            let holds = permit.sent().is_none_or(|sent| sent == permit.digest && is_whole == Some(true));
            found.unless(holds, Rule::Outcome, || format!("PERMIT {} did not send what it says", permit.id));
        }
    }

    /// What the leaves alone show, in their order.
    fn check_log_order(&mut self) {
        let Self { leaves, permits, found, .. } = self;
        let mut active: BTreeSet<&str> = BTreeSet::new();
        for (index, leaf) in leaves.iter().enumerate() {
            if leaf.is("policy") {
                active.insert(leaf.text(&["revision"]).expect("a revision"));
            }
            if leaf.is("decision") {
                let revision = leaf.text(&["policy", "revision"]).expect("a revision");
                found.unless(active.contains(revision), Rule::Policy, || {
                    format!("decision {index} names a policy that the log does not have before it")
                });
            }
        }
        for (n, permit) in permits.iter().enumerate() {
            let earlier = &permits[..n];
            let (id, index, judged) = (permit.id, permit.index, permit.judged_ns());
            // Spent and in flight.
            let live = |(amount, until): (i128, i128)| if until > judged { amount } else { 0 };
            let taken: i128 = earlier
                .iter()
                .filter(|other| !matches!(other.status_before(index), Some("not_sent" | "failed")))
                .chain([permit])
                .flat_map(|other| other.reserves().into_iter().map(live))
                .sum();
            let limits = permit.limits();
            found.unless(
                limits.is_some_and(|limits| taken <= i128::from(limits.budget_max)),
                Rule::Budget,
                || format!("PERMIT {id} takes it to {taken} of {limits:?}"),
            );
            // Keys.
            if let (Some(key), true) =
                (permit.leaf.text(&["idempotency_key"]), permit.leaf.json.get("claim").is_some())
            {
                let has_it = |other: &&Permitted<'_>| {
                    other.actor == permit.actor && other.leaf.text(&["idempotency_key"]) == Some(key)
                };
                let until =
                    |other: &Permitted<'_>| unix_ns(other.leaf.text(&["claim", "until"]).expect("a time"));
                let is_over = |other: &Permitted<'_>| match other.status_before(index) {
                    Some("not_sent") => true,
                    Some("confirmed" | "failed") => until(other) <= judged,
                    _ => false,
                };
                let holder = earlier.iter().filter(has_it).find(|other| !is_over(other));
                found.unless(holder.is_none(), Rule::Key, || format!("PERMIT {id} claims {key} once more"));
            }
            // Approvals.
            let Some(hold) = permit.leaf.text(&["approved_hold"]) else { continue };
            let is_used = |other: &&Permitted<'_>| {
                other.leaf.text(&["approved_hold"]) == Some(hold)
                    && other.status_before(index) != Some("not_sent")
            };
            found.unless(!earlier.iter().any(|other| is_used(&other)), Rule::Approval, || {
                format!("PERMIT {id} uses hold {hold} once more")
            });
            let opened = leaves[..index].iter().find(|leaf| leaf.text(&["id"]) == Some(hold));
            let is_of_it = opened.is_some_and(|opened| {
                opened.text(&["decision"]) == Some("ESCALATE")
                    && opened.text(&["request", "digest"]) == Some(permit.digest)
                    && opened.text(&["actor", "id"]) == Some(permit.actor)
            });
            let said = |word: &str| leaves[..index].iter().any(|leaf| is_word(leaf, word, hold));
            let holds = is_of_it && said("approve");
            found.unless(holds, Rule::Approval, || {
                format!("PERMIT {id} rests on hold {hold}, which is not its own")
            });
        }
    }

    /// What is so at the moment at which each first byte leaves.
    fn check_in_time(&mut self) {
        let firsts: BTreeMap<usize, usize> =
            self.messages.iter().enumerate().map(|(n, message)| (message.first, n)).collect();
        let mut now = Now::default();
        for (place, happened) in self.happened.iter().enumerate() {
            now.goes_on(self, place);
            if let What::Reserved(id) = &happened.what
                && let Some(permit) = self.permits.iter().find(|permit| permit.id == id)
            {
                // Its clock was read at most half a second before.
                let read = permit.judged_ns() - i128::from(START.unix_ns()) - happened.at.as_nanos() as i128;
                let stepped = (read - i128::from(now.wrong_at_start)).abs();
                self.found.unless(stepped <= 61_000_000_000, Rule::Clock, || {
                    format!("PERMIT {id} was decided by a clock that was set by {stepped} ns")
                });
            }
            let Some(message) = firsts.get(&place).map(|n| &self.messages[*n]) else { continue };
            let (wish, wall) = (message.wish, i128::from(happened.wall.unix_ns()));
            let mut wrong = |holds: bool, rule: Rule, what: &str| {
                self.found.unless(holds, rule, || format!("wish {} left at {place} {what}", wish.number));
            };
            wrong(!now.is_closed(wish.actor), Rule::Restricted, "after it was frozen or quarantined");
            let ends =
                wish.credential_ends.map(|after| i128::from(START.unix_ns()) + after.as_nanos() as i128);
            wrong(ends.is_none_or(|ends| wall < ends), Rule::Credential, "after its credential's end");
            wrong(now.proved.contains(&wish.number), Rule::Identity, "by an actor who was proved before");
            let Some(permit) = message.permit.map(|n| &self.permits[n]) else { continue };
            let is_current = now
                .policies
                .iter()
                .any(|policy| permit.leaf.text(&["policy", "revision"]) == Some(&revision_of(*policy)));
            wrong(is_current, Rule::Policy, "by a policy that is not in force");
            let approved = permit.leaf.text(&["approved_hold"]);
            let may =
                permit.limits().is_some_and(|limits| wish.amount <= limits.alone_max || approved.is_some());
            wrong(may && wish.amount != TRAP, Rule::Policy, "and the policy does not permit it");
            let takes: Vec<_> = permit.reserves().iter().map(|(amount, _)| *amount).collect();
            wrong(takes == [i128::from(wish.amount)], Rule::Budget, "and did not take what it draws");
            wrong(
                wish.key.is_some() == permit.leaf.json.get("claim").is_some(),
                Rule::Key,
                "and its key claims nothing",
            );
            let age = permit.reserved.map(|(_, at)| happened.at - at);
            wrong(age.is_some_and(|age| age <= PERMIT_AGE_MAX), Rule::Age, "by a permit that had grown old");
            let end = approved.and_then(|hold| {
                let opened = self.leaves.iter().find(|leaf| leaf.text(&["id"]) == Some(hold))?;
                opened.text(&["hold", "until"]).map(unix_ns)
            });
            wrong(end.is_none_or(|end| wall < end), Rule::Approval, "after the end of its approvals");
            let is_over = |hold| {
                let is_end = |leaf: &Leaf| is_word(leaf, "refuse", hold) || is_word(leaf, "expire", hold);
                let mut ends = self.leaves.iter().filter(|leaf| is_end(leaf));
                ends.any(|leaf| leaf.durable.is_some_and(|durable| durable < place))
            };
            wrong(
                !approved.is_some_and(is_over),
                Rule::Approval,
                "after its hold was refused or has expired",
            );
        }
    }

    fn check_told(&mut self) {
        for happened in self.happened {
            match &happened.what {
                What::Answered(told) => self.check_receipt(told),
                What::Hung(ask) => self.found.add(Rule::Lives, format!("ask {ask} has no answer")),
                What::Panicked(why) => self.found.add(Rule::Lives, why.clone()),
                What::Broken(why) => self.found.add(Rule::Log, why.clone()),
                _ => {}
            }
        }
    }

    /// What is given again is what was given.
    fn check_again(&mut self) {
        let told = self.happened.iter().filter_map(|happened| match &happened.what {
            What::Answered(told) if told.body.is_some() => Some(told),
            _ => None,
        });
        let (again, given): (Vec<&Told>, Vec<&Told>) = told.partition(|told| told.is_replayed);
        let id = |told: &Told| {
            told.receipt.as_deref().and_then(|receipt| receipt.split(", ").next()).map(str::to_owned)
        };
        for again in again {
            let original = given.iter().find(|given| id(given) == id(again));
            let is_same =
                original.is_none_or(|given| (given.status, &given.body) == (again.status, &again.body));
            self.found
                .unless(is_same, Rule::Told, || format!("ask {} was not given the same again", again.ask));
        }
    }

    fn check_receipt(&mut self, told: &Told) {
        if told.reason.as_deref() == Some("internal_error") {
            self.found.add(Rule::Lives, format!("ask {}: internal error", told.ask));
        }
        let Some(receipt) = &told.receipt else { return };
        let member = |name: &str| {
            receipt
                .split(", ")
                .find_map(|member| member.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let leaf = member("index").and_then(|index| self.leaves.get(index.parse::<usize>().ok()?));
        let hash = member("leaf").and_then(|leaf| STANDARD.decode(leaf.trim_matches(':')).ok());
        let is_it = leaf.is_some_and(|leaf| {
            hash.as_deref() == Some(&log::leaf_hash(&leaf.bytes)[..])
                && leaf.text(&["decision"]).map(str::to_owned) == member("decision")
        });
        self.found.unless(is_it, Rule::Told, || format!("ask {} was told {receipt}", told.ask));
        let permit =
            self.permits.iter().find(|permit| leaf.is_some_and(|leaf| std::ptr::eq(leaf, permit.leaf)));
        // A whole answer of the upstream's to a whole message: its outcome says so, unless the process died before it was
        // recorded.
        let is_answer = matches!(told.status, 200 | 201 | 402) && told.body.is_some();
        let is_known = |permit: &Permitted<'_>| {
            let is_settled = matches!(permit.status(), "confirmed" | "failed");
            let is_whole = permit.message.is_some_and(|n| self.messages[n].is_whole);
            is_settled
                || !is_whole
                || permit.outcome.is_some_and(|outcome| outcome.leaf.text(&["cause"]) == Some("recovered"))
        };
        let holds = !is_answer || permit.is_some_and(is_known);
        self.found.unless(holds, Rule::Told, || {
            format!(
                "ask {} has an answer, and the log does not know of it: {:?}",
                told.ask,
                permit.map(Permitted::status)
            )
        });
    }

    fn check_states(&mut self) {
        for (place, happened) in self.happened.iter().enumerate() {
            let What::State(said) = &happened.what else { continue };
            let own = Sums { at: said.at, ..self.sums(place, said.at.unix_ns()) };
            // By a clock that was set back, some of what the state has let go of would count again; it permits nothing then.
            let latest =
                self.leaves.iter().filter(|leaf| leaf.durable < Some(place)).map(|leaf| leaf.text(&["time"]));
            let latest = latest.flatten().map(unix_ns).max().unwrap_or_default() as u64;
            let kept = latest.saturating_sub(ENDED_KEPT_MS * 1_000_000).max(said.at.unix_ns());
            let least = Sums { at: said.at, ..self.sums(place, kept) };
            let is_between = |least: &str, said: &str, most: &str| {
                let number = |text: &str| text.parse::<i128>().ok();
                number(least) <= number(said) && number(said) <= number(most)
            };
            let holds = is_between(&least.spent, &said.spent, &own.spent)
                && is_between(&least.in_flight, &said.in_flight, &own.in_flight)
                && (said.open, said.unknown, said.frozen) == (own.open, own.unknown, own.frozen);
            self.found.unless(holds, Rule::State, || {
                format!("at {place} the state says {said:?}, and the leaves {own:?}")
            });
        }
    }

    /// What the leaves say that were durable at this place.
    fn sums(&self, place: usize, at: u64) -> Sums {
        let is_durable = |leaf: &Leaf| leaf.durable.is_some_and(|durable| durable < place);
        let (mut spent, mut in_flight, mut open, mut unknown) = (0, 0, 0, 0);
        for permit in self.permits.iter().filter(|permit| is_durable(permit.leaf)) {
            let known = |outcome: Option<Outcome<'a>>| outcome.filter(|outcome| is_durable(outcome.leaf));
            let status = known(permit.attested).or(known(permit.outcome)).map(|outcome| outcome.status);
            let amount: i128 = permit
                .reserves()
                .iter()
                .filter(|(_, until)| *until > i128::from(at))
                .map(|(amount, _)| amount)
                .sum();
            match status {
                Some("confirmed") => spent += amount,
                Some("not_sent" | "failed") => {}
                _ => {
                    in_flight += amount;
                    open += 1;
                    unknown += usize::from(status.is_some());
                }
            }
        }
        let mut closed: BTreeSet<(Option<&str>, Option<&str>, bool)> = BTreeSet::new();
        for leaf in self.leaves.iter().filter(|leaf| is_durable(leaf)) {
            let (surface, actor) = (leaf.text(&["surface"]), leaf.text(&["actor"]));
            match (leaf.text(&["type"]), leaf.text(&["action"])) {
                (Some("admin"), Some("freeze")) => drop(closed.insert((surface, actor, false))),
                (Some("admin"), Some("unfreeze")) => drop(closed.remove(&(surface, actor, false))),
                (Some("admin"), Some("quarantine")) => drop(closed.insert((surface, actor, true))),
                (Some("admin"), Some("release")) => drop(closed.remove(&(surface, actor, true))),
                (Some("decision"), _) if is_trap(leaf) => {
                    closed.insert((surface, leaf.text(&["actor", "id"]), true));
                }
                _ => {}
            }
        }
        let (spent, in_flight, frozen) = (spent.to_string(), in_flight.to_string(), closed.len());
        Sums { at: START, spent, in_flight, open, unknown, frozen }
    }
}

/// Whether an operator, or the gateway, says this of the hold.
fn is_word(leaf: &Leaf, word: &str, hold: &str) -> bool {
    leaf.is("admin") && leaf.text(&["action"]) == Some(word) && leaf.text(&["hold"]) == Some(hold)
}

/// A decision by which policy isolates the actor.
fn is_trap(leaf: &Leaf) -> bool {
    let reason = leaf.json.pointer("/reasons/0/code").and_then(|code| code.as_str());
    leaf.text(&["decision"]) == Some("QUARANTINE") && reason == Some("trap")
}

/// What is so as the journal goes on.
#[derive(Default)]
struct Now {
    frozen: Vec<Frozen>,
    isolated: BTreeSet<usize>,
    /// When each actor's release was asked for last.
    released: BTreeMap<usize, usize>,
    /// Those that may judge: two while one takes the other's place.
    policies: Vec<usize>,
    /// Wishes whose actor was proved under what identity rests on now.
    proved: BTreeSet<usize>,
    wrong: i64,
    /// Where the clock stood when it began to be relied on.
    wrong_at_start: i64,
}

impl Now {
    fn is_closed(&self, actor: usize) -> bool {
        self.isolated.contains(&actor)
            || self.frozen.iter().any(|frozen| match frozen {
                Frozen::All | Frozen::Surface => true,
                Frozen::Actor(own) => *own == actor,
            })
    }

    fn goes_on(&mut self, of: &Auditor<'_>, place: usize) {
        match of.what(place) {
            What::Started => {
                self.wrong_at_start = self.wrong;
                self.policies.clear();
                self.proved.clear();
            }
            What::ClockIs(wrong) => self.wrong = *wrong,
            What::FreezeReturned(what) => self.frozen.push(*what),
            What::UnfreezeAsked(what) => self.frozen.retain(|frozen| frozen != what),
            What::QuarantineReturned(actor) => drop(self.isolated.insert(*actor)),
            What::ReleaseAsked(actor) => {
                self.isolated.remove(actor);
                self.released.insert(*actor, place);
            }
            // Whoever is told that policy has isolated it, is; unless somebody has released it since the leaf.
            What::Answered(told) if told.reason.as_deref() == Some("policy_quarantined") => {
                let actor = of.script.wishes[told.wish].actor;
                let leaf = of.leaves.iter().rev().find(|leaf| {
                    is_trap(leaf)
                        && leaf.text(&["actor", "id"]) == Some(ACTORS[actor])
                        && leaf.durable < Some(place)
                });
                if leaf.is_some_and(|leaf| leaf.durable > self.released.get(&actor).copied()) {
                    self.isolated.insert(actor);
                }
            }
            What::ReloadAsked(policy) => self.policies.push(*policy),
            What::InForce(policy) => self.policies = vec![*policy],
            What::IdentityMoved => self.proved.clear(),
            What::Proved { wish, .. } => drop(self.proved.insert(*wish)),
            _ => {}
        }
    }
}
