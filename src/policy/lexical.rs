//! What is checked on the characters of Rego, before the engine's parser sees them.
//!
//! The parser's time doubles with every level of a nested literal, and it reads a line that begins with
//! `(` as a call of what stood before. Neither may depend on the parser to be found.

use super::fault::Fault;
use super::source::RegoFile;
use crate::limits;

/// Everything wrong with the characters of one file.
pub(super) fn faults(file: &RegoFile) -> Vec<Fault> {
    let mut scan = Scan { file, faults: Vec::new(), line: 1, column: 0, open: Vec::new(), before: None };
    scan.run();
    let mut faults = scan.faults;
    for (number, line) in (1..).zip(file.text.lines()) {
        if line.len() > limits::POLICY_LINE_BYTES_MAX {
            let message =
                format!("the line is {} bytes, at most {}", line.len(), limits::POLICY_LINE_BYTES_MAX);
            faults.push(fault(file, number, 1, "line_too_long", message));
        }
    }
    faults
}

fn fault(file: &RegoFile, line: u32, column: u32, rule: &'static str, message: String) -> Fault {
    Fault { file: file.name.clone(), line, column, rule, message }
}

struct Scan<'a> {
    file: &'a RegoFile,
    faults: Vec<Fault>,
    line: u32,
    column: u32,
    open: Vec<char>,
    /// The last character that was not space or comment, and its line.
    before: Option<(char, u32)>,
}

impl Scan<'_> {
    fn run(&mut self) {
        let text = self.file.text.clone();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            self.advance(c);
            match c {
                '#' => {
                    while chars.next_if(|c| *c != '\n').is_some() {}
                    continue;
                }
                '"' => {
                    while let Some(inner) = chars.next() {
                        self.advance(inner);
                        match inner {
                            '\\' => {
                                if let Some(escaped) = chars.next() {
                                    self.advance(escaped);
                                }
                            }
                            '"' | '\n' => break,
                            _ => {}
                        }
                    }
                }
                '`' => {
                    for inner in chars.by_ref() {
                        self.advance(inner);
                        if inner == '`' {
                            break;
                        }
                    }
                }
                '(' | '[' | '{' => self.opens(c),
                ')' | ']' | '}' => {
                    self.open.pop();
                }
                c if c.is_whitespace() => continue,
                c if c.is_control() || c == '\u{feff}' => {
                    self.fault("character_refused", format!("the character U+{:04X} is refused", c as u32));
                }
                _ => {}
            }
            self.before = Some((c, self.line));
        }
    }

    fn advance(&mut self, c: char) {
        if c == '\n' {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
    }

    fn fault(&mut self, rule: &'static str, message: String) {
        self.faults.push(fault(self.file, self.line, self.column, rule, message));
    }

    fn opens(&mut self, c: char) {
        let ends_a_term = |b: char| b.is_alphanumeric() || matches!(b, '_' | ']' | '}' | ')' | '"' | '`');
        let begins_a_line = self.before.is_some_and(|(b, line)| line < self.line && ends_a_term(b));
        if begins_a_line && c == '(' {
            let message = "a line that begins with `(` is read as a call of what stands before it; begin the line with \
                           the other operand, or bind the parenthesis to a variable";
            self.fault("parenthesis_begins_line", message.into());
        }
        self.open.push(c);
        let parentheses = self.open.iter().filter(|c| **c == '(').count();
        if parentheses == limits::POLICY_PARENTHESES_MAX + 1 && c == '(' {
            let message = format!("parentheses nest deeper than {}", limits::POLICY_PARENTHESES_MAX);
            self.fault("nesting_too_deep", message);
        }
        if self.open.len() - parentheses == limits::POLICY_NESTING_MAX + 1 && c != '(' {
            let max = limits::POLICY_NESTING_MAX;
            self.fault(
                "nesting_too_deep",
                format!("brackets and braces nest deeper than {max}; use rules in between"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    fn rules_of(text: &str) -> Vec<(&'static str, u32)> {
        let file = RegoFile { name: "a.rego".into(), text: text.into(), sha256: Digest::of(text.as_bytes()) };
        faults(&file).into_iter().map(|f| (f.rule, f.line)).collect()
    }

    #[test]
    fn deep_literals_never_reach_the_parser() {
        let deep = |n: usize| format!("package p\nx := {}1{}\n", "[".repeat(n), "]".repeat(n));
        assert_eq!(rules_of(&deep(limits::POLICY_NESTING_MAX)), []);
        assert_eq!(rules_of(&deep(limits::POLICY_NESTING_MAX + 1)), [("nesting_too_deep", 2)]);
        let braces = format!("package p\nx := {}", "{\"a\":".repeat(60));
        assert_eq!(rules_of(&braces), [("nesting_too_deep", 2)]);
        let round = format!("package p\nx := {}1", "(".repeat(40));
        assert_eq!(rules_of(&round), [("nesting_too_deep", 2)]);
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        let quoted = "[".repeat(50);
        assert_eq!(
            rules_of(&format!("package p\n# {quoted}\nx := \"\\\"{quoted}\"\ny := `{quoted}\n(`\n")),
            []
        );
    }

    #[test]
    fn a_line_that_begins_with_a_parenthesis_after_a_term_is_refused() {
        assert_eq!(rules_of("package p\na if {\n  b\n  (c == 1)\n}\n"), [("parenthesis_begins_line", 4)]);
        assert_eq!(rules_of("package p\na if {\n  (c == 1)\n}\n"), []);
        assert_eq!(rules_of("package p\na := f(\n  (1 + 2),\n  (3 + 4))\n"), []);
    }

    #[test]
    fn long_lines_and_control_characters_are_refused() {
        assert_eq!(rules_of(&format!("package p\n# {}", "a".repeat(1_000))), [("line_too_long", 2)]);
        assert_eq!(rules_of("package p\nx := 1\u{0}\n"), [("character_refused", 2)]);
        assert_eq!(rules_of("\u{feff}package p\n"), [("character_refused", 1)]);
    }
}
