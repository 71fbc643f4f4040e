//! Findings as SARIF 2.1.0 (OASIS), as code review systems read it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use anyhow::Result;
use serde_json::{Value, json};

use super::Found;

pub(super) fn log(found: &[Found]) -> Result<String> {
    let rules: BTreeSet<&str> = found.iter().map(|found| found.problem.rule).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let results: Vec<Value> = found.iter().map(|found| result(found, &rules)).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "interlock policy check",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|rule| json!({"id": rule})).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    Ok(serde_json::to_string_pretty(&log)? + "\n")
}

fn result(found: &Found, rules: &[&str]) -> Value {
    let problem = &found.problem;
    let message = match &problem.help {
        Some(help) => format!("{}. {help}", problem.message),
        None => problem.message.clone(),
    };
    let mut location = json!({"artifactLocation": {"uri": uri(&found.path)}});
    if problem.line > 0 {
        location["region"] = json!({
            "startLine": problem.line,
            "startColumn": problem.column,
            "endColumn": problem.end_column,
        });
    }
    json!({
        "ruleId": problem.rule,
        "ruleIndex": rules.iter().position(|rule| *rule == problem.rule),
        "level": problem.severity.as_str(),
        "message": {"text": message},
        "locations": [{"physicalLocation": location}],
    })
}

/// A relative reference, or a `file:` URI; anything but unreserved characters and `/` as `%XX` (RFC 3986).
fn uri(path: &Path) -> String {
    let mut text = String::new();
    for part in path.components() {
        match part {
            Component::CurDir | Component::Prefix(_) => continue,
            Component::RootDir => {
                text.push_str("file://");
                continue;
            }
            Component::ParentDir | Component::Normal(_) => {}
        }
        if !text.is_empty() {
            text.push('/');
        }
        for byte in part.as_os_str().as_encoded_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(*byte))
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_references_that_a_reader_can_resolve() {
        assert_eq!(uri(Path::new("./policies/a b.rego")), "policies/a%20b.rego");
        assert_eq!(uri(Path::new("/etc/policies/p.rego")), "file:///etc/policies/p.rego");
        assert_eq!(uri(Path::new("../p.rego")), "../p.rego");
    }
}
