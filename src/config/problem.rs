//! What is wrong with a config file, shown at the place where it is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use super::yaml::At;
use crate::limits;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub at: At,
    pub message: String,
}

/// The file cannot be used. Shows every problem that was found, not only the first.
#[derive(Clone, Debug)]
pub struct Invalid {
    file: PathBuf,
    /// The text of the file, for the lines shown; empty if it could not be read.
    text: String,
    problems: Vec<Problem>,
}

impl Invalid {
    pub(super) fn new(file: &Path, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| p.at);
        Self { file: file.to_owned(), text: text.to_owned(), problems }
    }

    /// In the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(limits::CONFIG_PROBLEMS_MAX) {
            show(f, "error", &self.file, &self.text, problem)?;
        }
        let hidden = self.problems.len().saturating_sub(limits::CONFIG_PROBLEMS_MAX);
        if hidden > 0 {
            writeln!(f, "and {hidden} more")?;
        }
        match self.problems.len() {
            1 => write!(f, "{}: 1 error", self.file.display()),
            n => write!(f, "{}: {n} errors", self.file.display()),
        }
    }
}

/// `file:line:column: kind: message`, the line, and carets under the place.
pub(super) fn show(
    f: &mut dyn fmt::Write,
    kind: &str,
    file: &Path,
    text: &str,
    problem: &Problem,
) -> fmt::Result {
    let At { line, column, width } = problem.at;
    writeln!(f, "{}:{line}:{column}: {kind}: {}", file.display(), problem.message)?;
    let Some(shown) = text.lines().nth(line - 1) else { return Ok(()) };
    // A long line is cut to a window around the place, in characters.
    let from = column.saturating_sub(COLUMNS_BEFORE_MAX);
    let window: String = shown.chars().skip(from).take(COLUMNS_MAX).map(printable).collect();
    let indent = column - 1 - from.min(column - 1);
    let carets = width.min(COLUMNS_MAX.saturating_sub(indent)).max(1);
    let gutter = line.to_string();
    let blank = " ".repeat(gutter.len());
    writeln!(f, "{blank} |\n{gutter} | {window}\n{blank} | {}{}", " ".repeat(indent), "^".repeat(carets))
}

const COLUMNS_MAX: usize = 140;
const COLUMNS_BEFORE_MAX: usize = 100;

/// Tabs and control characters would move the carets, or the terminal.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_file_line_column_and_carets() {
        let at = At { line: 2, column: 6, width: 3 };
        let problem = Problem { at, message: "expected a number".into() };
        let shown = Invalid::new(Path::new("gate.yaml"), "x: 1\n  y: abc # why\n", vec![problem]).to_string();
        let expected = "gate.yaml:2:6: error: expected a number\n  |\n2 |   y: abc # why\n  |      ^^^\ngate.yaml: 1 error";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_place_far_to_the_right_stays_in_sight() {
        let text = format!("{}abc", "x".repeat(500));
        let problem = Problem { at: At { line: 1, column: 501, width: 3 }, message: "m".into() };
        let shown = Invalid::new(Path::new("f"), &text, vec![problem]).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].find('^').expect("carets");
        assert_eq!(&lines[2][caret..], "abc");
    }
}
