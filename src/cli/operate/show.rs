//! Answers of the admin listener for people. Everything in them is escaped: agents wrote some of it.

use std::fmt::Write as _;

use interlock::canonical::json;
use interlock::model::Json;
use interlock::verify::{escape, escape_json};

/// Lines of a table, each cell escaped and padded.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|c| escape(c)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|c| c.chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let head = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A member of an object, as text; `-` if it is not there.
pub fn text(object: &Json, name: &str) -> String {
    match member(object, name) {
        Some(Json::String(text)) => text.to_string(),
        Some(other) => written(other),
        None => "-".to_owned(),
    }
}

pub fn member<'j>(object: &'j Json, name: &str) -> Option<&'j Json> {
    object.as_object()?.member(name)
}

pub fn items<'j>(object: &'j Json, name: &str) -> &'j [Json] {
    match member(object, name) {
        Some(Json::Array(items)) => items,
        Some(_) | None => &[],
    }
}

pub fn written(value: &Json) -> String {
    String::from_utf8_lossy(&json::write(value)).into_owned()
}

pub fn holds(answer: &Json) -> String {
    let rows: Vec<_> = items(answer, "items")
        .iter()
        .map(|hold| {
            let on = format!("{}/{}", text(hold, "surface"), text(hold, "action"));
            let approvals = items(hold, "approvals").len().to_string();
            vec![
                text(hold, "id"),
                text(hold, "until"),
                state(hold).into(),
                approvals,
                on,
                text(hold, "actor"),
            ]
        })
        .collect();
    table(&["ID", "UNTIL", "STATE", "APPROVALS", "ON", "ACTOR"], &rows) + &more(answer)
}

fn state(hold: &Json) -> &'static str {
    let is = |name| member(hold, name) == Some(&Json::Bool(true));
    match (member(hold, "refused").is_some(), is("used"), is("expired")) {
        (true, ..) => "refused",
        (false, true, _) => "used",
        (false, false, true) => "expired",
        (false, false, false) => "open",
    }
}

/// How many there are that are not shown.
fn more(answer: &Json) -> String {
    let shown = items(answer, "items").len();
    let total = text(answer, "total").parse::<usize>().unwrap_or(shown);
    if total > shown { format!("and {} more\n", total - shown) } else { String::new() }
}

pub fn restrictions(answer: &Json) -> String {
    let rows: Vec<_> = items(answer, "items")
        .iter()
        .map(|item| {
            ["kind", "surface", "actor", "since", "by", "reason"].iter().map(|n| text(item, n)).collect()
        })
        .collect();
    table(&["WHAT", "SURFACE", "ACTOR", "SINCE", "BY", "REASON"], &rows) + &more(answer)
}

pub fn unknown(answer: &Json) -> String {
    let rows: Vec<_> = items(answer, "items")
        .iter()
        .map(|item| {
            let lookup = member(item, "lookup").map_or_else(String::new, |lookup| {
                format!("{} ({})", text(lookup, "last"), text(lookup, "questions"))
            });
            let of = |name: &&str| text(item, name);
            ["id", "entry", "since", "surface", "actor"].iter().map(of).chain([lookup]).collect()
        })
        .collect();
    table(&["ID", "ENTRY", "SINCE", "SURFACE", "ACTOR", "LOOKUP"], &rows) + &more(answer)
}

/// A hold, why policy holds it, and the request as the upstream would get it, as far as the log may show it.
pub fn hold(answer: &Json) -> String {
    let nothing = Json::Null;
    let of = |name| member(answer, name).unwrap_or(&nothing);
    let (hold, decision, input) = (of("hold"), of("decision"), of("input"));
    let request = member(input, "request").unwrap_or(&nothing);
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(out, "{name:<12} {}", escape(value)).expect("a string takes any write");
    };
    line("hold", &format!("{} ({})", text(hold, "id"), state(hold)));
    line("until", &text(hold, "until"));
    line("actor", &text(hold, "actor"));
    line("surface", &format!("{} / {}", text(hold, "surface"), text(hold, "action")));
    line("digest", &text(hold, "digest"));
    for reason in items(decision, "reasons") {
        let message = member(reason, "message").and_then(Json::as_str);
        let message = message.map(|m| format!(": {m}")).unwrap_or_default();
        line("reason", &format!("{}{message}", text(reason, "code")));
    }
    for approval in items(hold, "approvals") {
        line("approved", &word(approval));
    }
    if let Some(refused) = member(hold, "refused") {
        line("refused", &word(refused));
    }
    line("request", &format!("{} {}", text(request, "method"), text(request, "path")));
    line("host", &text(request, "authority"));
    for part in ["params", "query", "headers"] {
        for (name, value) in member(request, part).and_then(Json::as_object).map_or(&[][..], |o| o.members())
        {
            let value = value.as_str().map_or_else(|| written(value), str::to_owned);
            line(part, &format!("{name}: {value}"));
        }
    }
    line("size", &format!("{} bytes", text(request, "size")));
    if let Some(body) = member(request, "body") {
        line("body", "");
        indent(body, 1, &mut out);
        out.push('\n');
    }
    out
}

fn word(approval: &Json) -> String {
    let of = |name| text(approval, name);
    format!("{} ({}) at {}: {}", of("by"), of("role"), of("at"), of("reason"))
}

/// JSON over lines; numbers and strings exactly as they are in the canonical form.
pub fn indent(value: &Json, depth: usize, out: &mut String) {
    let pad = |depth: usize| "  ".repeat(depth);
    let (open, close, parts): (_, _, Vec<(Option<&str>, &Json)>) = match value {
        Json::Array(items) if !items.is_empty() => ('[', ']', items.iter().map(|i| (None, i)).collect()),
        Json::Object(object) if !object.members().is_empty() => {
            ('{', '}', object.members().iter().map(|(name, value)| (Some(&**name), value)).collect())
        }
        leaf => {
            if out.ends_with('\n') {
                out.push_str(&pad(depth));
            }
            out.push_str(&escape_json(&written(leaf)));
            return;
        }
    };
    if out.ends_with('\n') {
        out.push_str(&pad(depth));
    }
    out.push(open);
    out.push('\n');
    for (at, (name, part)) in parts.iter().enumerate() {
        out.push_str(&pad(depth + 1));
        if let Some(name) = name {
            out.push_str(&escape_json(&written(&Json::string(name))));
            out.push_str(": ");
        }
        indent(part, depth + 1, out);
        out.push_str(if at + 1 < parts.len() { ",\n" } else { "\n" });
    }
    out.push_str(&pad(depth));
    out.push(close);
}

/// What a change came to.
pub fn done(answer: &Json) -> String {
    match member(answer, "receipt") {
        Some(receipt) => format!("done: entry {} of the log\n", escape(&text(receipt, "entry"))),
        None => "it was so already; nothing was recorded\n".to_owned(),
    }
}

/// Why it was not done.
pub fn problem(status: u16, answer: &Json) -> String {
    let detail = member(answer, "detail").and_then(Json::as_str);
    let detail = detail.map(|d| format!(" {d}")).unwrap_or_default();
    escape(&format!("refused ({status} {}): {}{detail}", text(answer, "reason"), text(answer, "title")))
}

/// The answer itself, without what could steer a terminal.
pub fn raw(answer: &Json) -> String {
    escape_json(&written(answer)) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use json::Bounds;

    fn of(text: &str) -> Json {
        json::parse(text.as_bytes(), Bounds::BODY).expect("json")
    }

    #[test]
    fn a_held_request_is_shown_whole_and_cannot_steer_a_terminal() {
        let answer = of(r#"{"decision":{"reasons":[{"code":"over","message":"\u001b[2Jmore than 1000"}]},
            "hold":{"id":"h","until":"u","surface":"s","action":"a","actor":"x\u202e","digest":"d",
              "approvals":[{"by":"ann","role":"approver","at":"t","reason":"fine\u001b"}],"used":false},
            "input":{"request":{"method":"POST","path":"/v1/\u001b]0;x","authority":"h","size":12,
              "headers":{"x-a":"1\u009b"},"query":{},"params":{},
              "body":{"amount":0.3,"big":1e21,"list":[1,{"k\u001b":[]}],"memo":"a\nb\u001b[31m"}}}}"#);
        let shown = hold(&answer);
        let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.contains(steers), "{shown}");
        for expected in [
            "hold         h (open)",
            "over: \\u{1b}[2Jmore than 1000",
            "ann (approver) at t: fine",
            "POST /v1/",
            "\"amount\": 0.3",
            "\"big\": 1e+21",
            "\"memo\": \"a\\nb\\u001b[31m\"",
        ] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
        for line in [holds(&of(r#"{"items":[{"id":"\u001b"}],"total":3}"#)), raw(&answer)] {
            assert!(!line.contains(steers), "{line}");
        }
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        assert!(holds(&of(r#"{"items":[{"id":"a"}],"total":3}"#)).ends_with("and 2 more\n"));
        assert!(!holds(&of(r#"{"items":[{"id":"a"}],"total":1}"#)).contains("more"));
    }
}
