//! The runs: ten thousand seeds that must hold, some of them twice, and wirings that must not hold.

use std::collections::BTreeSet;

use super::auditor::Rule;
use super::coverage::{self, Coverage};
use super::journal::{digest_of, trace_of};
use super::wirings::Wiring;
use super::{Run, run};

/// Seeds of a usual run, in parts that run at once.
const RUNS: u64 = 10_000;
const PARTS: u64 = 4;
/// How many seeds to run instead.
const RUNS_VARIABLE: &str = "INTERLOCK_SIMULATION_RUNS";

/// Seeds past the usual ones that once found something, and what. A change of the script makes other runs of all seeds: then
/// what is listed here has to be found again, or its scenario written into the script.
const REGRESSIONS: &[(u64, &str)] = &[];

fn runs() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test may take is up to whoever runs it")]
    let wanted = std::env::var(RUNS_VARIABLE);
    wanted.map_or(RUNS, |wanted| {
        wanted.parse().unwrap_or_else(|_| panic!("{RUNS_VARIABLE} is a number of runs"))
    })
}

fn show(seed: u64, run: &Run) -> String {
    let violations: String = run
        .violations
        .iter()
        .map(|violation| format!("  {:?}: {}\n", violation.rule, violation.what))
        .collect();
    format!("seed {seed}:\n{violations}{}", trace_of(&run.happened))
}

/// Every fourth seed, from this one on: all of them hold, and everything that is to be tested happens.
fn part(first: u64) {
    let mut coverage = Coverage::new();
    let usual = (first..runs()).step_by(PARTS as usize).map(|seed| (seed, ""));
    let once_found = REGRESSIONS.iter().copied().filter(|(seed, _)| seed % PARTS == first);
    for (seed, what) in once_found.chain(usual) {
        let run = run(seed, Wiring::Right);
        assert!(run.violations.is_empty(), "{what} {}", show(seed, &run));
        for (name, times) in run.coverage {
            *coverage.entry(name).or_default() += times;
        }
    }
    let row = |name: &&str| format!("{:>7} {name}\n", coverage.get(name).copied().unwrap_or_default());
    let table: String = coverage::ALL.iter().map(row).collect();
    println!("{table}");
    let never = coverage::ALL.iter().find(|name| coverage.get(*name).is_none_or(|times| *times == 0));
    assert!(never.is_none() || runs() < RUNS, "{never:?} was never tested:\n{table}");
}

#[test]
fn the_auditor_holds_in_the_first_part_of_ten_thousand_runs() {
    part(0);
}

#[test]
fn the_auditor_holds_in_the_second_part_of_ten_thousand_runs() {
    part(1);
}

#[test]
fn the_auditor_holds_in_the_third_part_of_ten_thousand_runs() {
    part(2);
}

#[test]
fn the_auditor_holds_in_the_fourth_part_of_ten_thousand_runs() {
    part(3);
}

/// All that happened, when, and every byte that reached the disk or left the gateway.
#[test]
fn the_same_seed_is_the_same_run() {
    let digests: Vec<String> = (0..100).map(|seed| digest_of(&run(seed, Wiring::Right).happened)).collect();
    for (seed, digest) in (0..).zip(&digests) {
        let again = run(seed, Wiring::Right);
        assert_eq!(*digest, digest_of(&again.happened), "{}", show(seed, &again));
    }
    let distinct: BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len(), "another seed is another run");
}

/// A wiring that is wrong, and the rule by which it is found.
const WRONG: &[(Wiring, Rule)] = &[
    (Wiring::DiskLies, Rule::Effect),
    (Wiring::FreezesAreNotWatched, Rule::Restricted),
    (Wiring::PolicyIsNotWatched, Rule::Policy),
    (Wiring::IdentityIsNotWatched, Rule::Identity),
    (Wiring::VersionsStandStill, Rule::Restricted),
    (Wiring::PermitsNeverAge, Rule::Age),
    (Wiring::TakenIsGivenBack, Rule::Budget),
    (Wiring::TakenIsGivenBack, Rule::Key),
    (Wiring::ApprovalsAreNotTaken, Rule::Approval),
    // What a seed of the first simulation found: a clock that jumps past the end of approvals on their way to the wire.
    (Wiring::ApprovalsHaveNoEnd, Rule::Approval),
    (Wiring::KeysAreNotTaken, Rule::Key),
    (Wiring::BudgetsAreNotTaken, Rule::Budget),
    (Wiring::OutcomesAreNotFolded, Rule::State),
    (Wiring::FollowerIsLate, Rule::Restricted),
    (Wiring::ClockIsTrusted, Rule::Clock),
    (Wiring::CredentialsHaveNoEnd, Rule::Credential),
    (Wiring::UpstreamIsSentAgain, Rule::Effect),
    (Wiring::PolicyIsActiveBeforeItsLeaf, Rule::Policy),
];

/// Seeds that one wiring may take until it is found.
const TRIES: u64 = 2_000;

fn each_is_found(wrong: &[(Wiring, Rule)]) {
    for (wiring, rule) in wrong {
        let breaks = |run: &Run| run.violations.iter().any(|violation| violation.rule == *rule);
        let found = (0..TRIES).find(|seed| breaks(&run(*seed, *wiring)));
        let seed = found.unwrap_or_else(|| panic!("{wiring:?} is not found by {rule:?}"));
        println!("{wiring:?}: seed {seed}, by {rule:?}");
        assert!(run(seed, Wiring::Right).violations.is_empty(), "what is wrong at seed {seed} is the wiring");
    }
}

#[test]
fn the_first_wirings_that_are_wrong_are_found() {
    each_is_found(&WRONG[..WRONG.len() / 2]);
}

#[test]
fn the_other_wirings_that_are_wrong_are_found() {
    each_is_found(&WRONG[WRONG.len() / 2..]);
}
