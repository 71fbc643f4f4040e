//! The documents say what is: commands parse, files and tests exist, metrics and reasons are all there.

mod formats;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use interlock::model::{CredentialFault, Decision, OutcomeStatus, ReasonCode};
use interlock::reconcile::LookupResult;
use interlock::replay::WhyNot;
use interlock::telemetry::{Alarm, Metrics};

/// Every document, by its path from the top.
fn documents() -> BTreeMap<PathBuf, String> {
    fn below(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                below(&path, extension, found);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    let mut found: Vec<_> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(PathBuf::from).into();
    for dir in ["docs", "deploy", "policies"] {
        below(Path::new(dir), "md", &mut found);
    }
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("UTF-8"))).collect()
}

/// A document in pieces: code blocks with their language, and the text around them.
fn blocks(text: &str) -> (Vec<(&str, String)>, String) {
    let (mut code, mut prose) = (Vec::new(), String::new());
    let mut open: Option<(&str, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((language.trim(), String::new())),
            (Some(_), Some(block)) => code.push(block),
            (None, Some((language, mut block))) => {
                block.push_str(line);
                block.push('\n');
                open = Some((language, block));
            }
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a code block does not end");
    (code, prose)
}

/// What stands between backticks.
fn spans(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// The arguments of each `interlock ...` in a shell block.
fn commands(block: &str) -> Vec<Vec<String>> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().flat_map(|line| line.split("&&"));
    lines
        .filter_map(|line| {
            let line = line.trim().replace("cargo run --release --", "interlock");
            let mut words = line.trim_end_matches('&').split_whitespace().map(str::to_owned);
            let program = words.next()?;
            (program == "interlock" || program.ends_with("/interlock")).then(|| words.collect())
        })
        .collect()
}

/// Whether the program knows the command and its flags.
fn parses(arguments: &[String]) -> bool {
    let asked = Command::new(env!("CARGO_BIN_EXE_interlock"))
        .args(arguments)
        .arg("--help")
        .output()
        .expect("the binary runs");
    asked.status.success()
}

#[test]
fn every_command_in_a_document_is_one() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(!parses(&words("verify --logg x")) && !parses(&words("verfy")), "this test sees nothing");
    let mut seen = BTreeSet::new();
    for (path, text) in documents() {
        let (code, prose) = blocks(&text);
        let shell = code.iter().filter(|(language, _)| *language == "sh").flat_map(|(_, b)| commands(b));
        let inline = spans(&prose).into_iter().filter_map(|s| s.strip_prefix("interlock ")).map(words);
        for arguments in shell.chain(inline) {
            assert!(parses(&arguments), "{}: interlock {}", path.display(), arguments.join(" "));
            seen.extend(arguments.into_iter().next());
        }
    }
    for command in ["run", "check", "keys", "verify", "replay", "receipts", "demo", "sample-api"] {
        assert!(seen.contains(command), "no document shows `interlock {command}`");
    }
}

#[test]
fn every_file_named_in_a_document_is_there() {
    const FOLDERS: [&str; 8] =
        ["src/", "docs/", "deploy/", "tests/", "policies/", "benches/", "fuzz/", "certs/"];
    let mut seen = 0;
    for (path, text) in documents() {
        let (code, prose) = blocks(&text);
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = path.parent().expect("a file").join(file);
            assert!(target.exists(), "{} links to {link}", path.display());
            seen += 1;
        }
        for span in spans(&prose) {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder))
                && !span.contains(|c: char| c.is_whitespace() || "*<{".contains(c));
            assert!(!is_path || Path::new(span).exists(), "{} names {span}", path.display());
            seen += usize::from(is_path);
        }
        for word in code.iter().flat_map(|(_, block)| block.split_whitespace()) {
            let is_source = word.ends_with(".rs") && !word.starts_with('-');
            assert!(
                !is_source || Path::new("src").join(word).exists(),
                "{} shows {word}, which is not in src",
                path.display()
            );
            seen += usize::from(is_source);
        }
    }
    assert!(seen > 50, "only {seen} files found: the test does not see them");
}

#[test]
fn every_test_named_in_a_document_is_one() {
    fn sources(dir: &Path, text: &mut String) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&fs::read_to_string(&path).expect("UTF-8"));
            }
        }
    }
    let mut code = String::new();
    sources(Path::new("src"), &mut code);
    sources(Path::new("tests"), &mut code);
    let mut seen = 0;
    for (path, text) in documents() {
        for span in spans(&blocks(&text).1) {
            let is_sentence = span.matches('_').count() >= 4
                && span.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && !span.starts_with("interlock_");
            let exists = code.contains(&format!("fn {span}("));
            assert!(!is_sentence || exists, "{} names the test {span}", path.display());
            seen += usize::from(is_sentence);
        }
    }
    assert!(seen > 15, "only {seen} tests found: the test does not see them");
}

/// Names of all metrics, as a scrape shows them.
fn rendered() -> BTreeSet<String> {
    let metrics = Metrics::new().expect("names and labels are valid");
    let surface = "payments".parse().expect("a name");
    let (action, second) = ("charge.create".parse().expect("a name"), Duration::from_secs(1));
    metrics.decided(&surface, &action, Decision::Permit, None);
    metrics.refused(None, ReasonCode::Overloaded);
    metrics.settled(&surface, OutcomeStatus::Confirmed);
    metrics.added(&surface, second);
    metrics.answered(&surface, second);
    metrics.ledger_health.with_label_values(&["accepting"]).set(1);
    metrics.pool.with_label_values(&["payments", "idle"]).set(1);
    metrics.sink_lag.with_label_values(&["siem"]).set(1);
    metrics.unproved(None, CredentialFault::CertificateRevoked);
    metrics.identity_reloaded("tls", true);
    metrics.policy_activated("sha-256:00", 1.0);
    metrics.sink_failures.with_label_values(&["siem"]).inc();
    metrics.fact_read_at.with_label_values(&["payments", "rates"]).set(1.0);
    metrics.fact_available.with_label_values(&["payments", "rates"]).set(1);
    metrics.fact_failures.with_label_values(&["payments", "rates"]).inc();
    metrics.status_looked_up(&surface, "open", 1);
    metrics.status_lookups_waiting(&surface, 1);
    let text = String::from_utf8(metrics.render().expect("renders")).expect("UTF-8");
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Words that begin with `interlock_`.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("interlock_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_explained_and_every_explained_metric_is_one() {
    let operations = fs::read_to_string("docs/OPERATIONS.md").expect("the document");
    let rows = operations.lines().filter_map(|line| line.strip_prefix("| `interlock_")?.split('`').next());
    let explained: BTreeSet<_> = rows.map(|name| format!("interlock_{name}")).collect();
    let declared = rendered();
    assert!(declared.len() > 15, "{declared:?}");
    for name in metric_names(&operations) {
        assert!(declared.contains(&name), "docs/OPERATIONS.md names {name}");
    }
    assert_eq!(explained, declared);
    for alarm in Alarm::ALL {
        assert!(operations.contains(&format!("`{}`", alarm.as_str())), "{}", alarm.as_str());
    }
    for result in LookupResult::ALL {
        assert!(operations.contains(&format!("`{}`", result.as_str())), "{}", result.as_str());
    }
}

#[test]
fn every_alert_watches_a_metric_that_exists() {
    let declared = rendered();
    let alerts = fs::read_to_string("deploy/alerts.yml").expect("the alerts");
    let names = metric_names(&alerts);
    assert!(names.len() > 4, "{names:?}");
    for name in names {
        let family = name.trim_end_matches("_bucket");
        assert!(declared.contains(family), "deploy/alerts.yml watches {name}");
    }
}

#[test]
fn every_reason_is_in_the_table() {
    let document = fs::read_to_string("docs/REASONS.md").expect("the document");
    let table: String =
        document.lines().filter(|l| l.starts_with("| `")).fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        });
    let mut expected = String::new();
    for code in ReasonCode::ALL {
        let (status, class) = (code.status(), code.class().as_str());
        writeln!(expected, "| `{code}` | {status} | {class} | {} |", code.title()).expect("a string");
    }
    assert_eq!(table, expected, "the table of docs/REASONS.md is the list in src/model/reason.rs");
}

#[test]
fn every_reason_why_a_decision_is_not_replayed_is_explained() {
    let document = fs::read_to_string("docs/RECEIPTS.md").expect("the document");
    let (_, replay) = document.split_once("## Replay").expect("a section");
    let rows = replay.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), WhyNot::ALL.map(WhyNot::as_str));
}
