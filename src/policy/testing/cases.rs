//! Table-driven tests: `test_limit[note] if { some note, tc in {...}; ... }`, one case for each name.
//!
//! A case that passes is a member that is `true`. One that fails leaves nothing behind, so its name is asked for: what the
//! first statements of the body bind the names of the head to.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;

use super::super::explain::{Bound, cases};
use super::{Case, Outcome, Suite, Test, name_of};

impl Suite {
    /// Every case, by name, with whether it passed.
    pub(super) fn cases(&self, test: &Test, given: &Value, explains: bool) -> Vec<Case> {
        let mut passed = BTreeSet::new();
        leaves(given, &mut Vec::new(), &mut passed);
        let explainer = self.explainer();
        let mut found: BTreeMap<String, Case> = BTreeMap::new();
        let path = format!("{}.{}", test.package, test.name);
        for Bound { indices, failure } in cases(&explainer, &path, explains) {
            let name = indices.iter().map(name_of).collect::<Vec<_>>().join("/");
            // What the engine gave decides; the reason is for people.
            let is_passed = passed.contains(&name);
            let failure = failure.filter(|_| !is_passed);
            found.insert(name.clone(), Case { name, passed: is_passed, failure });
        }
        for name in passed {
            found.entry(name.clone()).or_insert(Case { name, passed: true, failure: None });
        }
        found.into_values().collect()
    }
}

/// All pass, and there is one.
pub(super) fn outcome(cases: &[Case]) -> Outcome {
    let failed = cases.iter().filter(|case| !case.passed).count();
    match (failed, cases.len()) {
        (0, 0) => Outcome::Failed("no case".into()),
        (0, _) => Outcome::Passed,
        (failed, all) => Outcome::Failed(format!("{failed} of {all} cases")),
    }
}

/// Paths to members that are `true`.
fn leaves(value: &Value, path: &mut Vec<String>, passed: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, below) in members.iter_sorted() {
                path.push(name_of(name));
                leaves(below, path, passed);
                path.pop();
            }
        }
        Value::Bool(true) => {
            passed.insert(path.join("/"));
        }
        Value::Bool(false)
        | Value::Null
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Set(_)
        | Value::Undefined => {}
    }
}
