//! The runs: ten thousand seeds that must hold, some of them twice, those that once did not, and wirings that must not.

use super::coverage::{self, Coverage};
use super::wirings::Wiring;
use super::{Run, journal, run};
use crate::gateway::simulation::auditor::Rule;

/// Seeds of a usual run, in so many parts that run at once.
const RUNS: u64 = 10_000;
const PARTS: u64 = 4;
/// How many seeds to run instead.
const RUNS_VARIABLE: &str = "INTERLOCK_SIMULATION_RUNS";

/// Seeds that once found something, and what.
const REGRESSIONS: &[(u64, &str)] = &[];

fn runs() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test may take is up to who runs it")]
    let wanted = std::env::var(RUNS_VARIABLE);
    wanted.map_or(RUNS, |wanted| wanted.parse().unwrap_or_else(|_| panic!("{RUNS_VARIABLE} is a number of runs")))
}

fn show(seed: u64, run: &Run) -> String {
    let violations: String =
        run.violations.iter().map(|violation| format!("  {:?}: {}\n", violation.rule, violation.what)).collect();
    format!("seed {seed}:\n{violations}{}", journal::trace_of(&run.happened))
}

/// Every so many-th seed, from this one on. All of them hold, and everything that is to be tested happens.
fn part(first: u64) {
    let mut coverage = Coverage::new();
    for seed in (first..runs()).step_by(PARTS as usize) {
        let run = run(seed, Wiring::Right);
        assert!(run.violations.is_empty(), "{}", show(seed, &run));
        for (name, times) in run.coverage {
            *coverage.entry(name).or_default() += times;
        }
    }
    let table: String = coverage::ALL.iter().map(|name| format!("{:>7} {name}\n", coverage.get(name).unwrap_or(&0))).collect();
    println!("{table}");
    let never = coverage::ALL.iter().find(|name| !coverage.contains_key(*name));
    assert_eq!(never, None, "this was never tested:\n{table}");
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

#[test]
fn what_once_failed_holds() {
    for (seed, what) in REGRESSIONS {
        let run = run(*seed, Wiring::Right);
        assert!(run.violations.is_empty(), "{what}: {}", show(*seed, &run));
    }
}

/// All that happened, when, and every byte that reached the disk or left the gateway.
#[test]
fn the_same_seed_is_the_same_run() {
    let digests: Vec<String> = (0..60).map(|seed| journal::digest_of(&run(seed, Wiring::Right).happened)).collect();
    for (seed, digest) in (0..).zip(&digests) {
        let again = run(seed, Wiring::Right);
        assert_eq!(*digest, journal::digest_of(&again.happened), "{}", show(seed, &again));
    }
    let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len(), "another seed is another run");
}

#[test]
fn zz_probe() {
    for (wiring, _) in WIRINGS {
        let mut found = Vec::new();
        for seed in 0..300 {
            let run = std::panic::catch_unwind(|| run(seed, *wiring));
            let Ok(run) = run else { found.push((seed, Vec::new())); break };
            if !run.violations.is_empty() {
                let rules: std::collections::BTreeSet<Rule> = run.violations.iter().map(|v| v.rule).collect();
                found.push((seed, rules.into_iter().collect()));
                if found.len() >= 4 { break; }
            }
        }
        eprintln!("{wiring:?}: {found:?}");
    }
}

const WIRINGS: &[(Wiring, Rule)] = &[
    (Wiring::DiskLies, Rule::Effect),
    (Wiring::FreezesAreNotWatched, Rule::Restricted),
    (Wiring::PolicyIsNotWatched, Rule::Policy),
    (Wiring::IdentityIsNotWatched, Rule::Identity),
    (Wiring::VersionsStandStill, Rule::Restricted),
    (Wiring::PermitsNeverAge, Rule::Age),
    (Wiring::TakenIsGivenBack, Rule::Key),
    (Wiring::ApprovalsAreNotTaken, Rule::Approval),
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

#[test]
fn zz_one() {
    for seed in 0..600 {
        let run = run(seed, Wiring::Right);
        println!("{seed} {}", journal::digest_of(&run.happened));
    }
}
