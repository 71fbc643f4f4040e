//! `interlock policy test`: what it runs, what it says of what fails, what it counts, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use interlock::policy::testing::{Options, Outcome, TestsIn, run};
use interlock::policy::{Bundle, Sources};
use serde_json::{Value, json};
use tempfile::TempDir;

const POLICY: &str = r#"package shop

limit := data.ref.limits[input.currency]

permit contains {"code": "small", "amount": input.amount} if {
	input.amount <= limit
	not blocked
}

blocked if {
	some name in input.names
	name == "bad"
}

deny contains "closed" if input.hour > 18

size(n) := "big" if n > 10
else := "small"
"#;

const TEST: &str = r#"package shop_test

import data.shop

asked(amount) := {"amount": amount, "currency": "EUR"}

test_small if {
	permit := shop.permit with input as asked(5)
	permit == {{"code": "small", "amount": 5}}
}

test_large if {
	permit := shop.permit with input as asked(500)
	print("permitted:", permit)
	count(permit) == 1
}

test_limits[note] if {
	some note, tc in {
		"at": {"amount": 100, "permitted": 1},
		"over": {"amount": 101, "permitted": 1},
	}
	permit := shop.permit with input as asked(tc.amount)
	count(permit) == tc.permitted
}

test_document if shop.limit == 7 with input as asked(1) with data.ref.limits as {"EUR": 7}

todo_test_hours if false
"#;

fn shop() -> TempDir {
    directory(&[
        ("shop/shop.rego", POLICY),
        ("shop/shop_test.rego", TEST),
        ("ref/limits.json", "{\"EUR\": 100}"),
    ])
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }
    dir
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
    command.args(["policy", "test", "."]).args(arguments).current_dir(dir).stdin(Stdio::null());
    command
}

fn test(dir: &TempDir, arguments: &[&str]) -> Output {
    command(dir.path(), arguments).output().expect("the program runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn sources(files: &[(&str, &str)]) -> Sources {
    let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
    Sources::from_files(files).expect("sources")
}

/// Without times, which differ.
fn timeless(text: &str) -> String {
    let line = |line: &str| match line.rfind(" (").filter(|_| line.ends_with("ms)")) {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_failing_test_says_which_expression_failed_where_and_with_which_values() {
    let dir = shop();
    let run = test(&dir, &["-v"]);
    assert_eq!(run.status.code(), Some(2), "{}", err(&run));
    let expected = "\
./shop/shop_test.rego:
data.shop_test.test_small: PASS
data.shop_test.test_large: FAIL
  - shop/shop_test.rego:12:1  test_large
    shop/shop_test.rego:15:2: `count(permit) == 1` is false
      count(permit) = 0
      permit = []
  | shop/shop_test.rego:14: permitted: {}
data.shop_test.test_limits: FAIL
  at: PASS
  over: FAIL
    shop/shop_test.rego:24:2: `count(permit) == tc.permitted` is false
      note = \"over\"
      count(permit) = 0
      permit = []
      tc.permitted = 1
data.shop_test.test_document: PASS
data.shop_test.todo_test_hours: SKIPPED
--------------------------------------------------------------------------------
PASS: 2/5
FAIL: 2/5
SKIPPED: 1/5";
    assert_eq!(timeless(&out(&run)), expected);
}

#[test]
fn the_exit_code_is_that_of_opa_test() {
    let dir = shop();
    let code = |arguments: &[&str]| test(&dir, arguments).status.code();
    assert_eq!(code(&[]), Some(2), "a failure");
    assert_eq!(code(&["--run", "small"]), Some(0));
    assert_eq!(code(&["--run", "^data\\.shop_test\\.test_(small|document)$"]), Some(0));
    assert_eq!(code(&["--run", "todo"]), Some(2), "a skipped test is no success");
    assert_eq!(code(&["--run", "todo", "-z"]), Some(0));
    assert_eq!(code(&["--run", "nothing"]), Some(1), "a run without a test proves nothing");
    assert_eq!(code(&["--run", "small", "--threshold", "5"]), Some(0));
    assert_eq!(code(&["--run", "small", "--threshold", "99"]), Some(2));
    assert_eq!(code(&["--run", "small", "--rule-threshold", "99"]), Some(2));
    assert_eq!(code(&["--no-such-flag"]), Some(2));
    let broken = directory(&[("p.rego", "package p\nx := \n")]);
    let run = test(&broken, &[]);
    assert_eq!(run.status.code(), Some(1));
    assert!(err(&run).contains("[syntax]"), "{}", err(&run));
    let error = directory(&[("p_test.rego", "package p_test\ntest_a if to_number(\"a\") == 1\n")]);
    assert_eq!(test(&error, &[]).status.code(), Some(2), "an error");
}

#[test]
fn json_and_junit_say_the_same() {
    let dir = shop();
    let results: Value = serde_json::from_slice(&test(&dir, &["-f", "json"]).stdout).expect("JSON");
    let results = results.as_array().expect("a list");
    let names: Vec<_> = results.iter().map(|r| r["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["test_small", "test_large", "test_limits", "test_document", "todo_test_hours"]);
    assert_eq!(results[0]["package"], "data.shop_test");
    assert_eq!(results[0]["location"], json!({"file": "shop/shop_test.rego", "row": 7, "col": 1}));
    assert!(results[0]["fail"].is_null() && results[0]["duration"].is_u64());
    assert_eq!((&results[1]["fail"], &results[1]["gave"]), (&json!(true), &json!("undefined")));
    let body = &results[1]["assertion"]["bodies"][0];
    assert_eq!(
        (&body["line"], &body["how"], &body["expression"]),
        (&json!(15), &json!("false"), &json!("count(permit) == 1"))
    );
    assert_eq!(body["rows"][0][0], json!({"name": "count(permit)", "value": 0}));
    assert_eq!(results[2]["sub_results"]["at"], json!({"name": "at"}));
    assert_eq!(results[2]["sub_results"]["over"]["fail"], true);
    assert_eq!(results[4]["skip"], true);

    let junit = out(&test(&dir, &["-f", "junit"]));
    assert!(junit.contains("<testsuites tests=\"5\" failures=\"2\" errors=\"0\" skipped=\"1\""), "{junit}");
    assert!(
        junit.contains("classname=\"shop_test\" name=\"test_small\" file=\"shop/shop_test.rego\" line=\"7\""),
        "{junit}"
    );
    assert!(junit.contains("`count(permit) == 1` is false") && junit.contains("over: FAIL"), "{junit}");
    assert!(junit.contains("<skipped/>") && !junit.contains("{\"code\""), "{junit}");
    let opened = junit.matches("<testcase").count();
    assert_eq!(opened, junit.matches("</testcase>").count() + junit.matches("\"/>").count());
}

/// Counted by hand. `test_small` and `test_document` leave the second statement of `permit`'s body evaluated, `blocked`
/// without an element, `deny` and `size` never asked for.
#[test]
fn coverage_is_what_a_hand_counts() {
    let dir = shop();
    let report = |run: &str| -> Value {
        let output = test(&dir, &["--run", run, "--coverage", "-f", "json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", out(&output), err(&output)))
    };
    let rows = |rows: &[(u32, u32)]| {
        let rows = rows.iter().map(|(start, end)| json!({"start": {"row": start}, "end": {"row": end}}));
        Value::Array(rows.collect())
    };
    let small = report("test_small");
    let shop = &small["files"]["shop/shop.rego"];
    // 3 limit; 5-7 permit; 10 head of blocked, which does not hold; 11 some; 12 never; 15 one line; 17, 18 the function.
    assert_eq!(shop["covered"], rows(&[(3, 3), (5, 7), (11, 11)]), "{small:#}");
    assert_eq!(shop["not_covered"], rows(&[(10, 10), (12, 12), (15, 15), (17, 18)]), "{small:#}");
    assert_eq!((&shop["covered_lines"], &shop["not_covered_lines"]), (&json!(5), &json!(5)));
    assert_eq!(shop["coverage"], json!(50.0));
    // `limit` and `permit` hold; `blocked`, `deny` and both definitions of `size` do not.
    assert_eq!(shop["covered_rules"], 2);
    assert_eq!(shop["not_covered_rules"], rows(&[(10, 10), (15, 15), (17, 18)]), "{small:#}");

    // With a name that is bad, `blocked` holds and `permit` does not: another file says so.
    fs::write(
        dir.path().join("shop/more_test.rego"),
        "package more_test\n\nimport data.shop\n\ntest_more if {\n\tpermit := shop.permit with input as {\"amount\": 1, \"currency\": \"EUR\", \"names\": [\"x\", \"bad\"]}\n\t\
         count(permit) == 0\n\tdeny := shop.deny with input as {\"hour\": 20}\n\tdeny == {\"closed\"}\n\tshop.size(11) == \"big\"\n\tshop.size(1) == \"small\"\n}\n",
    )
    .expect("written");
    let both = report("test_small|test_more");
    let shop = &both["files"]["shop/shop.rego"];
    assert_eq!((&shop["coverage"], &shop["covered_rules"]), (&json!(100.0), &json!(6)), "{both:#}");
    assert!(shop["not_covered"].is_null());
    let covered = both["covered_lines"].as_f64().expect("a number");
    let all = covered + both["not_covered_lines"].as_f64().expect("a number");
    let percent = (covered * 10_000.0 / all).round() / 100.0;
    assert_eq!(both["coverage"], json!(percent));

    let html = dir.path().join("coverage.html");
    let file = dir.path().join("coverage.json");
    let written = test(
        &dir,
        &["--run", "test_small", "--coverage-html", "coverage.html", "--coverage-json", "coverage.json"],
    );
    assert_eq!(written.status.code(), Some(0), "{}", err(&written));
    let page = fs::read_to_string(html).expect("a page");
    assert!(page.contains("<span class=\"n\">blocked if {</span>"), "{page}");
    assert!(page.contains("<span class=\"c\">\tnot blocked</span>"), "{page}");
    assert!(page.contains("50.00%"), "{page}");
    let again: Value = serde_json::from_str(&fs::read_to_string(file).expect("a report")).expect("JSON");
    assert_eq!(again["files"]["shop/shop.rego"], small["files"]["shop/shop.rego"]);
    let met = test(&dir, &["--run", "test_small", "--rule-threshold", "50"]);
    assert!(err(&met).contains("Rule coverage threshold not met: got "), "{}", err(&met));
}

#[test]
fn every_shape_of_a_rule_can_be_counted_without_a_change_of_what_it_gives() {
    let policy = "package p\n\nimport rego.v1\n\nconstant := {\"a\": \"x\", \"b\": [1, 2]}\n\ntext := \"x\"\n\n\"lit\" in_set\n";
    // Every form that a body can have; the last statement of some ends with a text.
    let policy = policy.replace("\"lit\" in_set\n", "")
        + "one if input.a == \"x\"\n\ntwo if { input.a == \"x\"; input.b == `y` }\n\nset contains \"a\"\n\nset contains x if some x in [\"b\"]\n\n\
         obj[k] := v if some k, v in {\"a\": \"1\"}\n\ndeep.x.y := 3 if {\n\tevery k, v in {\"a\": \"1\"} {\n\t\tk == \"a\"\n\t\tv == \"1\"\n\t}\n}\n\nf(x) := y if {\n\tcount(x) > 1\n\ty := [z |\n\t\tsome z in x # all\n\t\tz > 1\n\t]\n} else := \"none\" if {\n\tx == [\"n\"]\n} else := \"other\"\n\n\
         g(x) if \"a\" in x\n\ndefault h := \"d\"\n\nh := \"e\" if not input.c\n\nwithout if {\n\t{1, 2} == {1, 2}\n\t\"x\" == input.a with input.a as \"x\"\n}\n";
    let test = "package p_test\n\nimport data.p\n\ntest_all if {\n\tp.one with input as {\"a\": \"x\"}\n\tp.two with input as {\"a\": \"x\", \"b\": \"y\"}\n\tp.set == {\"a\", \"b\"}\n\tp.obj == {\"a\": \"1\"}\n\t\
         p.deep.x.y == 3\n\tp.f([1, 2, 3]) == [2, 3]\n\tp.f([\"n\"]) == \"none\"\n\tp.f([]) == \"other\"\n\tp.g([\"a\"])\n\tp.h == \"e\"\n\tp.h == \"d\" with input as {\"c\": true}\n\tp.without\n\tp.constant.b[1] == 2\n\tp.text == \"x\"\n}\n";
    let sources = sources(&[("p.rego", &policy), ("p_test.rego", test)]);
    let options = Options { coverage: true, explain: true, ..Options::plain() };
    let report = run(&sources, TestsIn::EveryFile, &options).unwrap_or_else(|e| panic!("{e}\n{policy}"));
    assert_eq!(report.results[0].outcome, Outcome::Passed, "{:#?}", report.results[0]);
    let coverage = report.coverage.expect("counted");
    let file = &coverage.files[0];
    assert!(file.not_covered.is_empty() && file.rules_not_covered.is_empty(), "{file:#?}\n{policy}");
}

#[test]
fn the_shipped_policies_are_counted_too() {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).expect("sources");
    let options = Options { coverage: true, ..Options::plain() };
    let report = run(&sources, TestsIn::TestFiles, &options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(report.failures().count(), 0);
    let coverage = report.coverage.expect("counted");
    assert!(coverage.lines() > 90.0 && coverage.rules() > 90.0, "{} {}", coverage.lines(), coverage.rules());
}

#[test]
fn threads_change_nothing_but_the_time() {
    let mut files = vec![("p.rego".to_owned(), b"package p\nx := 1\n".to_vec())];
    for n in 0..40 {
        let wrong = if n % 3 == 0 { 2 } else { 1 };
        let text =
            format!("package p{n}_test\nimport data.p\ntest_a if p.x == {wrong}\ntest_b if p.x == 1\n");
        files.push((format!("p{n:02}_test.rego"), text.into_bytes()));
    }
    let sources = Sources::from_files(files).expect("sources");
    let outcomes = |threads| {
        let options = Options { threads: NonZeroUsize::new(threads).expect("some"), ..Options::plain() };
        let report = run(&sources, TestsIn::TestFiles, &options).expect("a report");
        let of =
            |result: &interlock::policy::testing::TestResult| (result.full_name(), result.outcome.clone());
        report.results.iter().map(of).collect::<Vec<_>>()
    };
    let alone = outcomes(1);
    assert_eq!(alone.len(), 80);
    assert_eq!(alone.iter().filter(|(_, outcome)| *outcome == Outcome::Passed).count(), 66);
    assert_eq!(outcomes(7), alone);
}

/// Neither the command nor a gateway ends with the process when a test asks for a terabyte.
#[test]
fn a_test_that_would_end_the_process_is_refused_by_name_and_place() {
    let runaway = "package p_test\n\ntest_a if {\n\tcount(numbers.range(1, 1000000000000)) > 0\n}\n";
    let policy = "package p\npermit contains \"a\" if input.a\n";
    let dir = directory(&[("p.rego", policy), ("p_test.rego", runaway)]);
    let run = test(&dir, &[]);
    assert_eq!(run.status.code(), Some(1));
    assert!(err(&run).starts_with("p_test.rego:4:"), "{}", err(&run));
    assert!(
        err(&run).contains("numbers.range") && err(&run).contains("[builtin_unbounded]"),
        "{}",
        err(&run)
    );
    let sources = Sources::read(dir.path()).expect("sources");
    for loaded in [Bundle::tested(sources.clone(), &[]), Bundle::from_sources(sources, &[])] {
        let error = loaded.expect_err("refused");
        assert_eq!((error.faults()[0].rule, error.faults()[0].line), ("builtin_unbounded", 4), "{error}");
    }
}

/// As `policy build` and a gateway say it.
#[test]
fn a_bundle_whose_own_test_fails_is_refused_at_the_place_of_the_test() {
    let test = "package p_test\n\nimport data.p\n\ntest_table[note] if {\n\tsome note, n in {\"a\": 0, \"b\": 1}\n\tcount(p.permit) == n\n}\n";
    let files = [("p.rego", "package p\npermit contains \"a\" if input.a\n"), ("p_test.rego", test)];
    let error = Bundle::tested(sources(&files), &[]).expect_err("refused");
    let fault = &error.faults()[0];
    assert_eq!((&*fault.file, fault.line, fault.rule), ("p_test.rego", 5, "test_failed"), "{error}");
    assert!(fault.message.ends_with("p_test.test_table does not pass: 1 of 2 cases"), "{error}");
}

/// A library as such are published: `data.json`, v1 imports, mocks, helpers in packages of their own; OPA's names.
#[test]
fn a_library_with_its_tests_runs_unchanged_and_a_builtin_that_is_not_there_is_named() {
    let library = "package lib.kubernetes\n\nimport rego.v1\n\ndefault is_gatekeeper := false\n\nis_gatekeeper if input.review.object\n\nobject := input.review.object if is_gatekeeper\n\nobject := input if not is_gatekeeper\n\n\
         containers contains container if some container in object.spec.containers\n\nregistry(image) := split(image, \"/\")[0]\n\ndeny contains msg if {\n\tsome c in containers\n\tnot registry(c.image) in data.registries\n\tmsg := sprintf(\"%s comes from %s\", [c.name, registry(c.image)])\n}\n\n\
         deny contains \"too late\" if time.now_ns() > data.deadline\n";
    let tests = "package lib.kubernetes_test\n\nimport data.lib.kubernetes\nimport rego.v1\n\npod(image) := {\"review\": {\"object\": {\"spec\": {\"containers\": [{\"name\": \"c\", \"image\": image}]}}}}\n\n\
         test_foreign_registry if {\n\tkubernetes.deny == {\"c comes from evil.example\"} with input as pod(\"evil.example/x\") with time.now_ns as 1\n}\n\n\
         test_own_registry if count(kubernetes.deny) == 0 with input as pod(\"good.example/x\") with time.now_ns as 1\n\n\
         test_mocked_data if count(kubernetes.deny) == 0 with input as pod(\"evil.example/x\") with data.registries as [\"evil.example\"] with time.now_ns as 1\n\n\
         test_mocked_function if kubernetes.deny == {\"c comes from mocked\"} with input as pod(\"good.example/x\") with kubernetes.registry as \"mocked\" with time.now_ns as 1\n\n\
         test_deadline if \"too late\" in kubernetes.deny with input as pod(\"good.example/x\") with time.now_ns as 2000\n";
    let data = "{\"registries\": [\"good.example\"], \"deadline\": 1000}";
    let dir = directory(&[
        ("lib/kubernetes.rego", library),
        ("lib/kubernetes_test.rego", tests),
        ("data.json", data),
    ]);
    let run = test(&dir, &["-v"]);
    assert_eq!(run.status.code(), Some(0), "{}{}", out(&run), err(&run));
    assert!(out(&run).ends_with("PASS: 5/5\n"), "{}", out(&run));

    fs::write(
        dir.path().join("lib/jwt.rego"),
        "package lib.jwt\n\nclaims := c if {\n\t[_, c, _] := io.jwt.decode(input.token)\n}\n",
    )
    .expect("written");
    let run = test(&dir, &[]);
    assert_eq!(run.status.code(), Some(1));
    assert!(err(&run).starts_with("lib/jwt.rego:4:"), "{}", err(&run));
    assert!(err(&run).contains("`io.jwt.decode` is neither"), "{}", err(&run));
}

#[test]
fn files_directories_and_bundles_are_tested_together() {
    let dir = shop();
    let other = directory(&[("q.rego", "package q\n\ntest_in_any_file if 1 == 1\n")]);
    let paths: Vec<PathBuf> =
        vec![dir.path().join("shop/shop.rego"), dir.path().join("ref"), other.path().to_owned()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_interlock"));
    let run = command.args(["policy", "test", "-v"]).args(paths).output().expect("the program runs");
    assert_eq!(run.status.code(), Some(0), "{}", err(&run));
    assert!(out(&run).contains("data.q.test_in_any_file: PASS"), "{}", out(&run));
}

#[test]
fn watching_runs_again_when_the_content_changes_and_only_then() {
    let dir = directory(&[
        ("p.rego", "package p\nx := 1\n"),
        ("p_test.rego", "package p_test\nimport data.p\ntest_a if p.x == 1\n"),
    ]);
    let mut child =
        command(dir.path(), &["--watch"]).stdout(Stdio::piped()).spawn().expect("the program runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (send, receive) = channel();
    let reader = thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let until = |wanted: &str| {
        loop {
            let line =
                receive.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            if line.contains(wanted) {
                return;
            }
        }
    };
    until("PASS: 1/1");
    until("watching for changes");
    fs::write(dir.path().join("p.rego"), "package p\nx := 2\n").expect("written");
    until("FAIL: 1/1");
    until("watching for changes");
    fs::write(dir.path().join("p.rego"), "package p\nx := \n").expect("written");
    until("watching for changes");
    // The same bytes again are no change.
    fs::write(dir.path().join("p.rego"), "package p\nx := \n").expect("written");
    assert!(receive.recv_timeout(Duration::from_millis(2_500)).is_err(), "nothing has changed");
    fs::write(dir.path().join("p.rego"), "package p\nx := 1\n").expect("written");
    until("PASS: 1/1");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    drop(receive);
    let _ = reader.join();
}
