//! Runs the `test_*` rules of a bundle's `*_test.rego` files.
//!
//! A test passes if its rule is `true`, nothing else. The engine is the one that decides (strict, bounded in
//! steps); test files may use `with`, and add rules to packages, because they are never part of a bundle.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use regorus::{Engine, Value};

use super::check::package_of;
use super::fault::{BundleError, Fault};
use super::source::Sources;
use super::syntax::{self, Parsed};
use super::{convert, engine, lexical};
use crate::limits;

/// What became of each test, by name (`package.rule`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestReport {
    pub passed: Vec<String>,
    /// With what the rule gave instead of `true`.
    pub failed: Vec<(String, String)>,
}

/// `Err` if the files do not parse, or if there is no test: a run that proves nothing is not a success.
pub fn run(sources: &Sources) -> Result<TestReport, BundleError> {
    let spawned = thread::scope(|scope| {
        thread::Builder::new()
            .name("policy-test".into())
            .stack_size(limits::EVALUATION_STACK_BYTES)
            .spawn_scoped(scope, || run_here(sources))
            .map(|thread| thread.join())
    });
    match spawned {
        Ok(Ok(report)) => report,
        Ok(Err(_)) => {
            Err(Fault::of_bundle("engine_panicked", "the engine panicked on a test file".into()).into())
        }
        Err(e) => Err(Fault::of_bundle("no_thread", format!("no thread to test on: {e}")).into()),
    }
}

fn run_here(sources: &Sources) -> Result<TestReport, BundleError> {
    let files = || sources.policies.iter().chain(&sources.tests);
    BundleError::unless_none(files().flat_map(lexical::faults).collect())?;
    let mut pristine = engine::strict();
    let mut tests = BTreeSet::new();
    for file in files() {
        pristine
            .add_policy(file.name.to_string(), file.text.to_string())
            .map_err(|e| syntax::engine_fault(&[file], "syntax", &e.to_string()))?;
    }
    for file in &sources.tests {
        let parsed = Parsed::parse(file)?;
        let Some(package) = package_of(&parsed) else { continue };
        let rules =
            parsed.module.rules.iter().map(|rule| rule.name()).filter(|name| name.starts_with("test_"));
        tests.extend(rules.map(|name| format!("{package}.{name}")));
    }
    pristine
        .add_data(convert::value_of(&sources.data_document()))
        .map_err(|e| Fault::of_bundle("data_invalid", e.to_string()))?;
    if tests.is_empty() {
        let message = "there is no `test_...` rule in any `*_test.rego` file";
        return Err(Fault::of_bundle("no_tests", message.into()).into());
    }
    let mut report = TestReport::default();
    for test in tests {
        match outcome(&pristine, &test) {
            Ok(()) => report.passed.push(test),
            Err(why) => report.failed.push((test, why)),
        }
    }
    Ok(report)
}

fn outcome(pristine: &Engine, test: &str) -> Result<(), String> {
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let mut engine = pristine.clone();
        engine::bound(&mut engine, limits::EVALUATION_STEPS_MAX_DEFAULT);
        engine.set_input(Value::new_object());
        engine.eval_rule(format!("data.{test}"))
    }));
    match evaluated {
        Ok(Ok(Value::Bool(true))) => Ok(()),
        Ok(Ok(Value::Undefined)) => Err("undefined".into()),
        Ok(Ok(other)) => Err(serde_json::to_string(&other).unwrap_or_else(|_| "a value with no text".into())),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("the engine panicked".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(test: &str) -> Result<TestReport, BundleError> {
        let files = [("p.rego", "package p\nx := 1 if input.a\n"), ("p_test.rego", test)];
        let files = files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
        run(&Sources::from_files(files).expect("sources"))
    }

    #[test]
    fn only_true_passes() {
        let text = "package p_test\nimport data.p\n\
            test_true if p.x == 1 with input as {\"a\": 1}\n\
            test_undefined if p.x == 2 with input as {\"a\": 1}\n\
            test_number := 3\n\
            test_error if to_number(\"a\")\n";
        let report = report(text).expect("report");
        assert_eq!(report.passed, ["p_test.test_true"]);
        let failed: Vec<_> = report.failed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(failed, ["p_test.test_error", "p_test.test_number", "p_test.test_undefined"]);
        assert_eq!(report.failed[1].1, "3");
    }

    #[test]
    fn a_run_without_tests_is_an_error() {
        let error = report("package p_test\nnot_a_test := true\n").expect_err("no tests");
        assert_eq!(error.faults()[0].rule, "no_tests");
    }
}
