//! What the demo prints: a table for people, or JSON lines. Everything that came over the wire is escaped.

use std::io::{self, IsTerminal, Write};

use serde_json::json;

use super::script::{Expected, Step};
use interlock::config::process_environment;
use interlock::verify::escape;

/// What was seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Observed {
    pub status: u16,
    pub decision: Option<String>,
    pub reason: Option<String>,
    pub outcome: Option<String>,
    /// Index of the leaf that the answer names.
    pub receipt: Option<u64>,
    pub arrived: u64,
    pub streamed: bool,
    pub replayed: bool,
    pub permitted: Option<usize>,
}

impl Observed {
    pub fn is(&self, expected: &Expected) -> bool {
        let Expected { status, decision, reason, outcome, receipt, arrived, streamed, replayed, permitted } =
            expected;
        self.status == *status
            && self.decision.as_deref() == *decision
            && self.reason.as_deref() == *reason
            && self.outcome.as_deref() == *outcome
            && self.receipt.is_some() == *receipt
            && self.arrived == *arrived
            && self.replayed == *replayed
            && self.permitted == *permitted
            // An answer in one piece may still come in two reads.
            && (self.streamed || !streamed)
    }
}

/// One thing that was checked after the requests.
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    pub found: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
    Coloured,
}

pub struct Show(Form);

const WIDTHS: [usize; 7] = [2, 37, 17, 3, 10, 32, 7];

impl Show {
    pub fn new(json: bool) -> Self {
        let no_color = process_environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(match json {
            true => Form::Json,
            false if io::stdout().is_terminal() && !no_color => Form::Coloured,
            false => Form::Plain,
        })
    }

    pub fn head(&self, place: &str) -> io::Result<()> {
        if self.0 == Form::Json {
            return Ok(());
        }
        let names = ["#", "request", "expected", "got", "decision", "reason", "receipt"];
        let text = format!("{}\n\n{}  upstream", escape(place), columns(names));
        self.line(&text)
    }

    pub fn row(&self, number: usize, step: &Step, got: &Observed) -> io::Result<()> {
        let matched = got.is(&step.expected);
        if self.0 == Form::Json {
            return self.line(
                &json!({
                    "type": "request", "number": number, "what": step.what, "sent": step.sent,
                    "expected": step.expected, "got": got, "as_expected": matched,
                })
                .to_string(),
            );
        }
        let of = |permitted: Option<usize>| permitted.map(|n| format!("{n} ")).unwrap_or_default();
        let Expected { status, decision, permitted, .. } = step.expected;
        let expected = format!("{status} {}{}", of(permitted), decision.unwrap_or_default());
        let decision = got.decision.as_deref().unwrap_or("-");
        let reason = match (&got.reason, &got.outcome) {
            (Some(reason), Some(outcome)) => format!("{reason} ({outcome})"),
            (Some(reason), None) if got.permitted.is_some() => format!("all others: {reason}"),
            (Some(reason), None) => reason.clone(),
            (None, _) if got.replayed => "the kept answer".into(),
            (None, _) if got.streamed => "streamed".into(),
            (None, _) => String::new(),
        };
        let cells = columns([
            &number.to_string(),
            step.what,
            expected.trim_end(),
            &got.status.to_string(),
            &escape(&format!("{}{decision}", of(got.permitted))),
            &escape(&reason),
            &got.receipt.map_or("-".into(), |index| format!("#{index}")),
        ]);
        let arrived = got.arrived;
        let verdict = if matched { "" } else { "  NOT AS EXPECTED" };
        let colour = if !matched {
            "31"
        } else if got.arrived > 0 {
            "32"
        } else {
            "0"
        };
        self.line(&format!("{}  {arrived}{verdict}", self.paint(colour, &cells)))?;
        let sent = escape(&step.sent);
        self.line(&self.paint("2", &format!("    {}", cut(&sent, 110))))?;
        if !matched {
            self.line(&escape(&format!("    expected {:?}", step.expected)))?;
            self.line(&escape(&format!("    got      {got:?}")))?;
        }
        Ok(())
    }

    pub fn checks(&self, checks: &[Check]) -> io::Result<()> {
        if self.0 != Form::Json {
            self.line("")?;
        }
        for Check { name, passed, found } in checks {
            if self.0 == Form::Json {
                let value = json!({ "type": "check", "name": name, "passed": passed, "found": found });
                self.line(&value.to_string())?;
                continue;
            }
            let verdict = if *passed { self.paint("32", "ok  ") } else { self.paint("31", "FAIL") };
            self.line(&format!("{verdict} {name}: {}", escape(found)))?;
        }
        Ok(())
    }

    /// How it went, and what to do now.
    pub fn end(&self, passed: bool, requests: usize, seconds: f64, next: &[String]) -> io::Result<()> {
        if self.0 == Form::Json {
            let value = json!({ "type": "end", "passed": passed, "requests": requests, "next": next });
            return self.line(&value.to_string());
        }
        let verdict = if passed { "everything was as expected" } else { "NOT everything was as expected" };
        self.line(&format!("\n{requests} requests in {seconds:.1} s: {verdict}."))?;
        self.line("")?;
        next.iter().try_for_each(|line| self.line(&escape(line)))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.0 == Form::Coloured { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }
}

fn columns(cells: [&str; 7]) -> String {
    let padded: Vec<_> = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:<width$}")).collect();
    padded.join("  ")
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_difference_is_seen() {
        let expected = Expected {
            status: 403,
            decision: Some("DENY"),
            reason: Some("over_limit"),
            outcome: None,
            receipt: true,
            arrived: 0,
            streamed: false,
            replayed: false,
            permitted: None,
        };
        let got = Observed {
            status: 403,
            decision: Some("DENY".into()),
            reason: Some("over_limit".into()),
            outcome: None,
            receipt: Some(7),
            arrived: 0,
            streamed: false,
            replayed: false,
            permitted: None,
        };
        assert!(got.is(&expected));
        let differing: [fn(&mut Observed); 8] = [
            |o| o.status = 200,
            |o| o.decision = None,
            |o| o.reason = Some("other".into()),
            |o| o.outcome = Some("not_sent".into()),
            |o| o.receipt = None,
            |o| o.arrived = 1,
            |o| o.replayed = true,
            |o| o.permitted = Some(1),
        ];
        for change in differing {
            let mut other = got.clone();
            change(&mut other);
            assert!(!other.is(&expected), "{other:?}");
        }
        assert!(!got.is(&Expected { streamed: true, ..expected }));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(cut("äöü", 2), "äö...");
        assert_eq!(cut("äöü", 3), "äöü");
    }
}
