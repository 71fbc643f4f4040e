//! The runs.

use super::wirings::Wiring;
use super::{Run, journal, run};

fn show(seed: u64, run: &Run) -> String {
    let violations: String =
        run.violations.iter().map(|violation| format!("  {:?}: {}\n", violation.rule, violation.what)).collect();
    format!("seed {seed}:\n{violations}{}", journal::trace_of(&run.happened))
}

#[test]
fn first_seeds() {
    let mut coverage = super::Coverage::new();
    let mut bad = 0;
    let began = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let n: u64 = std::env::var("SIM_N").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for seed in 0..n {
        let run = run(seed, Wiring::Right);
        if !run.violations.is_empty() {
            bad += 1;
            if bad <= 8 { eprintln!("{}", show(seed, &run)); }
        }
        for (name, times) in run.coverage {
            *coverage.entry(name).or_default() += times;
        }
    }
    eprintln!("{:?} for {n}; bad {bad}", std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() - began);
    for name in super::coverage::ALL {
        eprintln!("{name}: {}", coverage.get(name).copied().unwrap_or_default());
    }
}
