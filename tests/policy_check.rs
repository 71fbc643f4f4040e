//! `interlock policy check`: a corpus of defective policies that are each caught at their place, a corpus of good
//! ones without a false alarm, and what the command prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use interlock::clock::Clock;
use interlock::config::{self, Config, SecretsAre};
use interlock::policy::{Problem, Severity, Sources, Surroundings, examine};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn corpus(name: &str) -> PathBuf {
    root().join("tests/policies").join(name)
}

/// What a config says about routes. Its keys and secrets need not be there.
fn surroundings(file: &Path) -> Surroundings {
    let clock = Clock::system();
    let read =
        config::Surroundings { secrets: SecretsAre::Optional, ..config::Surroundings::of_process(&clock) };
    Config::load(file, read).unwrap_or_else(|e| panic!("{e}")).policy_surroundings()
}

fn files(directory: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(directory).expect("a corpus");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "rego"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).expect("text")))
        .collect();
    files.sort();
    files
}

/// One file as a bundle of its own, beside the shipped documents, for the surfaces of its package.
fn problems(text: &str, all: &Surroundings) -> Vec<Problem> {
    let package = text.lines().find_map(|line| line.strip_prefix("package ")).expect("a package");
    let mut surroundings = all.clone();
    surroundings.surfaces.retain(|surface| surface.package.as_str() == package);
    let mut bundle = vec![("example/p.rego".to_string(), text.as_bytes().to_vec())];
    for entry in std::fs::read_dir(root().join("policies/ref")).expect("documents") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        bundle.push((format!("ref/{name}"), std::fs::read(&path).expect("a document")));
    }
    let packages: Vec<_> = surroundings.surfaces.iter().map(|surface| surface.package.clone()).collect();
    examine(Sources::from_files(bundle).expect("sources"), &packages, Some(&surroundings)).problems
}

#[test]
fn every_defective_policy_is_caught_at_its_place() {
    let all = surroundings(&corpus("config/interlock.yaml"));
    let files = files(&corpus("bad"));
    assert!(files.len() >= 60, "{} files", files.len());
    let mut missed = Vec::new();
    for (name, text) in &files {
        let header = text.lines().next().and_then(|line| line.strip_prefix("# expect ")).expect("a header");
        let (rules, place) = header.split_once(" at ").expect("rule and place");
        let mut place = place.split(':').map(|n| n.parse::<u32>().expect("a number"));
        let (line, column) = (place.next().expect("a line"), place.next());
        let found = problems(text, &all);
        let is_it = |p: &&Problem| {
            rules.split('|').any(|rule| rule == p.rule)
                && p.line == line
                && column.is_none_or(|c| c == p.column)
        };
        if !found.iter().any(|p| is_it(&p)) {
            let found: Vec<_> =
                found.iter().map(|p| format!("{}:{} {} {}", p.line, p.column, p.rule, p.message)).collect();
            missed.push(format!("{name}: {header}\n    found {found:#?}"));
        }
    }
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), files.len(), missed.join("\n"));
}

#[test]
fn no_good_policy_raises_an_alarm() {
    let all = surroundings(&corpus("config/interlock.yaml"));
    let files = files(&corpus("good"));
    assert!(files.len() >= 40, "{} files", files.len());
    let mut alarms = Vec::new();
    for (name, text) in &files {
        for found in problems(text, &all) {
            alarms.push(format!("{name}:{}:{} {} {}", found.line, found.column, found.rule, found.message));
        }
    }
    assert!(alarms.is_empty(), "{}:\n{}", alarms.len(), alarms.join("\n"));
}

#[test]
fn the_shipped_policies_raise_no_alarm() {
    for (config, warned) in [("tests/policies/config/interlock.yaml", false), ("deploy/interlock.yaml", true)]
    {
        let surroundings = surroundings(&root().join(config));
        let sources = Sources::read(&root().join("policies")).expect("sources");
        let problems = examine(sources, &[], Some(&surroundings)).problems;
        // The shipped example declares no budget, and the policy is for surfaces with and without.
        let is_known =
            |p: &Problem| warned && p.rule == "input_undeclared" && p.message.contains("no budget");
        let others: Vec<_> = problems.iter().filter(|p| !is_known(p)).collect();
        assert!(others.is_empty(), "{config}: {others:#?}");
    }
}

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_interlock"))
        .args(["policy", "check"])
        .args(arguments)
        .current_dir(root().join("tests/policies"))
        .output()
        .expect("the program runs")
}

#[test]
fn the_command_tells_people_programs_and_code_review_the_same() {
    let file = "bad/typo_amount.rego";
    let arguments = [file, "--config", "config/interlock.yaml"];
    let human = check(&arguments);
    let text = String::from_utf8_lossy(&human.stdout).to_string();
    assert_eq!(human.status.code(), Some(10), "{text}{}", String::from_utf8_lossy(&human.stderr));
    assert!(text.starts_with("bad/typo_amount.rego:8:21: error[input_unknown]: "), "{text}");
    assert!(text.contains("\n  |                     ^^^^^\n  = help: did you mean `amount`?\n"), "{text}");

    let json = check(&[&arguments[..], &["--format", "json"]].concat());
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["rule"], &finding["line"], &finding["end_column"]),
        (&"input_unknown".into(), &8.into(), &26.into())
    );

    let sarif = check(&[&arguments[..], &["--format", "sarif"]].concat());
    let log: serde_json::Value = serde_json::from_slice(&sarif.stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let result = &run["results"][0];
    assert_eq!(run["tool"]["driver"]["rules"][0]["id"], result["ruleId"]);
    assert_eq!((&result["ruleIndex"], &result["level"]), (&0.into(), &"error".into()));
    assert!(result["message"]["text"].as_str().is_some_and(|t| t.contains("amout")));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], file);
    assert_eq!(place["region"], serde_json::json!({"startLine": 8, "startColumn": 21, "endColumn": 26}));
}

#[test]
fn the_exit_code_says_whether_to_go_on() {
    let with = ["--config", "config/interlock.yaml"];
    let code = |arguments: &[&str]| check(&[arguments, &with[..]].concat()).status.code();
    assert_eq!(code(&["good/amount_limit.rego"]), Some(0));
    assert_eq!(code(&["bad/fraction.rego"]), Some(0), "warnings only");
    assert_eq!(code(&["bad/fraction.rego", "--deny-warnings"]), Some(10));
    assert_eq!(code(&["bad/syntax.rego"]), Some(10));
    assert_eq!(code(&["no-such-directory"]), Some(1));
    assert_eq!(code(&["config"]), Some(1), "no policy is no success");
    assert_eq!(check(&[]).status.code(), Some(2));
    let severe = |p: &Problem| p.severity == Severity::Error;
    let all = surroundings(&corpus("config/interlock.yaml"));
    let text = std::fs::read_to_string(corpus("bad/fraction.rego")).expect("text");
    assert!(!problems(&text, &all).iter().any(severe));
}
