use super::super::explain::Became;
use super::*;

fn report(test: &str) -> Result<TestReport, BundleError> {
    with(&[("p.rego", "package p\nx := 1 if input.a\n"), ("p_test.rego", test)], &Options::plain())
}

fn with(files: &[(&str, &str)], options: &Options) -> Result<TestReport, BundleError> {
    let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
    run(&Sources::from_files(files).expect("sources"), TestsIn::TestFiles, options)
}

fn rules(error: &BundleError) -> Vec<(&'static str, u32)> {
    error.faults().iter().map(|fault| (fault.rule, fault.line)).collect()
}

#[test]
fn only_true_passes() {
    let text = "package p_test\nimport data.p\n\
        test_true if p.x == 1 with input as {\"a\": 1}\n\
        test_undefined if p.x == 2 with input as {\"a\": 1}\n\
        test_number := 3\n\
        test_error if to_number(\"a\")\n\
        todo_test_later if false\n";
    let report = report(text).expect("report");
    assert_eq!(report.counts(), Counts { passed: 1, failed: 2, errors: 1, skipped: 1 });
    let failed: Vec<_> = report.failures().collect();
    let names: Vec<_> = failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["p_test.test_undefined", "p_test.test_number", "p_test.test_error"]);
    assert_eq!(failed[1].1, "3");
}

#[test]
fn a_run_without_tests_is_an_error() {
    let error = report("package p_test\nnot_a_test := true\n").expect_err("no tests");
    assert_eq!(error.faults()[0].rule, "no_tests");
}

#[test]
fn a_table_has_a_result_for_each_of_its_cases() {
    let text = "package p_test\n\ntest_sum[note] if {\n\tsome note, tc in {\n\t\t\"small\": {\"a\": 1, \"sum\": 2},\n\t\t\
                \"wrong\": {\"a\": 1, \"sum\": 3},\n\t}\n\ttc.a + 1 == tc.sum\n}\n";
    let options = Options { explain: true, ..Options::plain() };
    let report = with(&[("p.rego", "package p\n"), ("p_test.rego", text)], &options).expect("report");
    let [result] = &report.results[..] else { panic!("{report:?}") };
    let cases: Vec<_> = result.cases.iter().map(|case| (case.name.as_str(), case.passed)).collect();
    assert_eq!(cases, [("small", true), ("wrong", false)]);
    assert_eq!(result.cases[1].failure.as_ref().map(|failure| failure.at.line), Some(8));
    assert_eq!(result.outcome, Outcome::Failed("1 of 2 cases".into()));
}

#[test]
fn what_would_take_the_process_with_it_is_refused_in_a_test_by_name_and_place() {
    for (call, rule) in [
        ("count(numbers.range(1, 1000000000000)) > 0", "builtin_unbounded"),
        ("sprintf(\"%*d\", [1000000000, 1]) != \"\"", "builtin_unbounded"),
        ("bits.lsh(1, input.x) > 0", "builtin_unbounded"),
        ("count([1]) > 0 with count as numbers.range", "builtin_unbounded"),
        ("http.send({})", "builtin_unknown"),
        ("no.such(1)", "builtin_unknown"),
    ] {
        let error = report(&format!("package p_test\n\ntest_a if {{\n\t{call}\n}}\n")).expect_err(call);
        assert_eq!(rules(&error), [(rule, 4)], "{call}");
    }
    let recursive = report("package p_test\ntest_a if test_b\ntest_b if test_a\n").expect_err("recursion");
    assert_eq!(recursive.faults()[0].rule, "recursion");
}

#[test]
fn a_test_may_read_the_clock_print_and_mock_what_it_tests() {
    let text = "package p_test\nimport data.p\nnow := 5\ntest_a if {\n\tprint(\"x is\", p.x)\n\ttime.now_ns() == 5 with time.now_ns as now\n\t\
                p.x == 7 with data.p.x as 7\n}\n";
    let report = report(text).expect("report");
    assert_eq!(report.counts().passed, 1, "{report:?}");
}

#[test]
fn a_failure_is_followed_into_the_tested_rule_under_the_mocked_input() {
    let policy = "package p\n\nok if {\n\tinput.a == 1\n\tinput.b > 5\n}\n";
    let text = "package p_test\n\nimport data.p\n\nasked := {\"a\": 1, \"b\": 2}\n\ntest_ok if p.ok with input as asked\n\ntest_two if p.ok with input as asked with data.x as 1\n";
    let options = Options { explain: true, ..Options::plain() };
    let report = with(&[("p.rego", policy), ("p_test.rego", text)], &options).expect("report");
    let failure =
        |number: usize| match &report.results[number].assertion.as_ref().expect("explained").bodies[0].became
        {
            Became::Failed(failure) => failure.clone(),
            other => panic!("{other:?}"),
        };
    let (first, second) = (failure(0), failure(1));
    let Became::Failed(below) = &first.because[0].bodies[0].became else { panic!("{first:#?}") };
    assert_eq!((&*below.at.file, below.at.line, below.expression.as_str()), ("p.rego", 5, "input.b > 5"));
    assert_eq!(second.because, [], "what else is replaced is not known there");
}
