//! Results of tests for people, for programs (the forms of `opa test`) and for CI (JUnit XML).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use interlock::policy::testing::{Counts, Coverage, FileCoverage, Outcome, TestReport, TestResult, ranges};
use interlock::verify::escape;
use serde_json::{Map, Value, json};

use super::super::trace;

/// Failures, or everything, by file; what failed in them; and the counts.
pub fn pretty(report: &TestReport, root: &Path, verbose: bool) -> String {
    let mut page = String::new();
    let mut file = None;
    for result in &report.results {
        if !verbose && result.outcome == Outcome::Passed {
            continue;
        }
        if file != Some(&result.at.file) {
            file = Some(&result.at.file);
            line(&mut page, &format!("{}:", root.join(&*result.at.file).display()));
        }
        let time = format!("({:.3}ms)", result.duration.as_secs_f64() * 1_000.0);
        let said = match &result.outcome {
            Outcome::Passed => format!("PASS {time}"),
            Outcome::Failed(_) => format!("FAIL {time}"),
            Outcome::Error(_) => format!("ERROR {time}"),
            Outcome::Skipped => "SKIPPED".into(),
        };
        line(&mut page, &format!("data.{}: {said}", result.full_name()));
        for case in &result.cases {
            let said = if case.passed { "PASS" } else { "FAIL" };
            line(&mut page, &format!("  {}: {said}", case.name));
            case.failure.iter().for_each(|failure| trace::failure(&mut page, 2, failure));
        }
        if let Outcome::Error(why) = &result.outcome {
            why.lines().for_each(|why| line(&mut page, &format!("  {why}")));
        }
        failing(&mut page, result);
        if verbose || result.outcome != Outcome::Passed {
            result.output.iter().for_each(|printed| line(&mut page, &format!("  | {printed}")));
        }
    }
    if !page.is_empty() {
        line(&mut page, &"-".repeat(80));
    }
    let Counts { passed, failed, errors, skipped } = report.counts();
    let all = passed + failed + errors + skipped;
    for (what, count) in [("PASS", passed), ("FAIL", failed), ("ERROR", errors), ("SKIPPED", skipped)] {
        if count > 0 || what == "PASS" && all == passed {
            line(&mut page, &format!("{what}: {count}/{all}"));
        }
    }
    page
}

fn failing(page: &mut String, result: &TestResult) {
    if let Outcome::Failed(gave) = &result.outcome {
        let plain = ["undefined", "false"].contains(&gave.as_str()) || !result.cases.is_empty();
        if !plain {
            line(page, &format!("  it gives {gave}, which is not true"));
        }
    }
    result.assertion.iter().for_each(|trace| trace::bodies(page, 1, trace));
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{}", escape(text)).expect("a string takes any write");
}

/// As `opa test --format json` has it, with `assertion` beside it: a list.
pub fn json(report: &TestReport) -> Result<String> {
    let results: Vec<Value> = report.results.iter().map(result).collect();
    Ok(serde_json::to_string_pretty(&results)? + "\n")
}

fn result(result: &TestResult) -> Value {
    let mut members = Map::new();
    let at = &result.at;
    members.insert("location".into(), json!({"file": &*at.file, "row": at.line, "col": at.column}));
    members.insert("package".into(), format!("data.{}", result.package).into());
    members.insert("name".into(), result.name.clone().into());
    members.insert("duration".into(), u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX).into());
    match &result.outcome {
        Outcome::Passed => {}
        Outcome::Failed(gave) => {
            members.insert("fail".into(), true.into());
            members.insert("gave".into(), gave.clone().into());
        }
        Outcome::Error(why) => {
            members.insert("error".into(), json!({"message": why}));
        }
        Outcome::Skipped => {
            members.insert("skip".into(), true.into());
        }
    }
    if !result.cases.is_empty() {
        let cases = result.cases.iter().map(|case| {
            let of = match case.passed {
                true => json!({"name": case.name}),
                false => json!({"name": case.name, "fail": true, "failure": case.failure}),
            };
            (case.name.clone(), of)
        });
        members.insert("sub_results".into(), Value::Object(cases.collect()));
    }
    if !result.output.is_empty() {
        members.insert("printed".into(), result.output.clone().into());
    }
    if let Some(assertion) = &result.assertion {
        members.insert("assertion".into(), serde_json::to_value(assertion).unwrap_or_default());
    }
    Value::Object(members)
}

/// One suite for each package; a table's cases are test cases of their own.
pub fn junit(report: &TestReport) -> String {
    let Counts { passed, failed, errors, skipped } = report.counts();
    let all = passed + failed + errors + skipped;
    let seconds: f64 = report.results.iter().map(|result| result.duration.as_secs_f64()).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!(
        "<testsuites tests=\"{all}\" failures=\"{failed}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{seconds:.6}\">\n"
    ));
    let mut packages: Vec<&str> = report.results.iter().map(|result| result.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        let of: Vec<_> = report.results.iter().filter(|result| result.package == package).collect();
        let count = |is: fn(&Outcome) -> bool| of.iter().filter(|result| is(&result.outcome)).count();
        text.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
            xml(package),
            of.len(),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Error(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped)),
        ));
        of.into_iter().for_each(|result| text.push_str(&junit_case(result)));
        text.push_str("  </testsuite>\n");
    }
    text + "</testsuites>\n"
}

fn junit_case(result: &TestResult) -> String {
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\" time=\"{:.6}\"",
        xml(&result.package),
        xml(&result.name),
        xml(&result.at.file),
        result.at.line,
        result.duration.as_secs_f64()
    );
    let mut details = String::new();
    failing(&mut details, result);
    let failed_cases = result.cases.iter().filter(|case| !case.passed);
    for case in failed_cases {
        details.push_str(&format!("  {}: FAIL\n", case.name));
        case.failure.iter().for_each(|failure| trace::failure(&mut details, 2, failure));
    }
    let inside = match &result.outcome {
        Outcome::Passed => return head + "/>\n",
        Outcome::Skipped => "<skipped/>".into(),
        Outcome::Failed(gave) => format!("<failure message=\"{}\">{}</failure>", xml(gave), xml(&details)),
        Outcome::Error(why) => format!("<error message=\"{}\">{}</error>", xml(why), xml(&details)),
    };
    format!("{head}>\n      {inside}\n    </testcase>\n")
}

/// Text and attribute values; characters that XML 1.0 does not have are left out.
fn xml(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push('\t'),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

/// Percentages by file, and of all.
pub fn coverage(coverage: &Coverage) -> String {
    let mut page = String::new();
    for file in &coverage.files {
        let missed = ranges(&file.not_covered).into_iter().map(|range| match range.start == range.end {
            true => range.start.to_string(),
            false => format!("{}-{}", range.start, range.end),
        });
        let missed = missed.collect::<Vec<_>>().join(", ");
        let missed = if missed.is_empty() { missed } else { format!("  not covered: {missed}") };
        line(&mut page, &format!("{:>6.2}%  {}{missed}", file.percent(), file.file));
    }
    let (lines, rules) = (coverage.covered_lines(), coverage.covered_rules());
    let all_lines = lines + coverage.not_covered_lines();
    let all_rules = rules + coverage.not_covered_rules();
    line(&mut page, &format!("lines: {:.2}% ({lines}/{all_lines})", coverage.lines()));
    line(&mut page, &format!("rules: {:.2}% ({rules}/{all_rules})", coverage.rules()));
    page
}

/// The form of `opa test --coverage`, with the numbers of rules beside it.
pub fn coverage_json(coverage: &Coverage) -> Result<String> {
    let rows = |lines: &BTreeSet<u32>| {
        let each = ranges(lines).into_iter();
        each.map(|r| json!({"start": {"row": r.start}, "end": {"row": r.end}})).collect::<Vec<_>>()
    };
    let file = |file: &FileCoverage| {
        let mut members = Map::new();
        if !file.covered.is_empty() {
            members.insert("covered".into(), rows(&file.covered).into());
            members.insert("covered_lines".into(), file.covered.len().into());
        }
        if !file.not_covered.is_empty() {
            members.insert("not_covered".into(), rows(&file.not_covered).into());
            members.insert("not_covered_lines".into(), file.not_covered.len().into());
        }
        members.insert("coverage".into(), file.percent().into());
        members.insert("covered_rules".into(), file.rules_covered.into());
        members.insert("not_covered_rules".into(), rows(&file.rules_not_covered).into());
        (file.file.to_string(), Value::Object(members))
    };
    let files: Map<String, Value> = coverage.files.iter().map(file).collect();
    let report = json!({
        "files": files,
        "covered_lines": coverage.covered_lines(),
        "not_covered_lines": coverage.not_covered_lines(),
        "coverage": coverage.lines(),
        "covered_rules": coverage.covered_rules(),
        "not_covered_rules": coverage.not_covered_rules(),
        "rule_coverage": coverage.rules(),
    });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}
