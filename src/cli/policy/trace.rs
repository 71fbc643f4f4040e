//! An explanation for people: every rule with its place, and what made or prevented it.

use std::fmt::Write;

use interlock::limits;
use interlock::policy::{At, Became, Binding, BodyTrace, Failure, How, RuleTrace, Seen, SetTrace};
use interlock::verify::escape;

/// The sets of a package: what decided first, then what did not.
pub fn sets(sets: &[SetTrace]) -> String {
    let mut page = String::new();
    for set in sets {
        line(&mut page, 0, set.set);
        bodies(&mut page, 1, &set.trace);
    }
    page
}

/// One rule, each body on a line and below it why.
pub fn bodies(page: &mut String, depth: usize, trace: &RuleTrace) {
    for body in &trace.bodies {
        self::body(page, depth, body);
    }
}

fn body(page: &mut String, depth: usize, body: &BodyTrace) {
    let BodyTrace { at, head, became } = body;
    let (sign, became) = match became {
        Became::Made { values } => {
            let values: Vec<String> = values.iter().map(seen).collect();
            ("+", format!(" -> {}", values.join(", ")))
        }
        Became::Default { value } => ("=", format!(" -> {} if nothing else", seen(value))),
        Became::NotReached => ("-", " not reached: what stands before it holds".to_owned()),
        Became::Failed(failure) => {
            line(page, depth, &format!("- {}  {}", place(at), cut(head)));
            return self::failure(page, depth + 1, failure);
        }
        Became::Unknown { why } => ("?", format!(" unknown: {why}")),
    };
    line(page, depth, &format!("{sign} {}  {}{became}", place(at), cut(head)));
}

/// The expression that failed, the values in it, and the rules it rests on.
pub fn failure(page: &mut String, depth: usize, failure: &Failure) {
    let Failure { at, expression, how, error, rows, more_rows, because } = failure;
    let error = error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
    line(page, depth, &format!("{}: `{}` {}{error}", place(at), cut(expression), how.words()));
    for row in rows {
        self::row(page, depth + 1, row);
    }
    if *more_rows > 0 {
        line(page, depth + 1, &format!("and {more_rows} more"));
    }
    for trace in because {
        let arguments = trace.arguments.as_ref().map(|arguments| {
            let each = arguments.iter().map(|argument| seen(&argument.value));
            format!("({})", each.collect::<Vec<_>>().join(", "))
        });
        let holds = if *how == How::Holds { "holds" } else { "gives nothing" };
        let name = format!("{}{}", trace.rule, arguments.unwrap_or_default());
        line(page, depth + 1, &format!("{name} {holds}:"));
        bodies(page, depth + 2, trace);
    }
}

fn row(page: &mut String, depth: usize, row: &[Binding]) {
    for Binding { name, value } in row {
        line(page, depth, &format!("{} = {}", cut(name), seen(value)));
    }
    if row.is_empty() {
        line(page, depth, "nothing in it has a name");
    }
}

pub fn seen(value: &Seen) -> String {
    match value {
        Seen::Value(value) => cut(&value.to_string()),
        Seen::Each(values) => {
            let each: Vec<String> = values.iter().map(|value| cut(&value.to_string())).collect();
            format!("each of {}", each.join(", "))
        }
        Seen::Undefined => "undefined".into(),
        Seen::Withheld => "(withheld: it stays out of the log)".into(),
    }
}

pub fn place(at: &At) -> String {
    format!("{}:{}:{}", at.file, at.line, at.column)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(limits::EXPLAIN_VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Everything in it may come from a request: nothing of it moves a terminal.
fn line(page: &mut String, depth: usize, text: &str) {
    writeln!(page, "{}{}", "  ".repeat(depth), escape(text)).expect("a string takes any write");
}
