//! What is checked on the characters of Rego, before the engine's parser sees them.
//!
//! The parser's time doubles with every level of a nested literal, a chain of operators is a tree as deep as it
//! is long, which no stack holds, and a line that begins with `(` is read as a call of what stood before. None of
//! this may depend on the parser to be found.

use super::fault::Fault;
use super::source::RegoFile;
use crate::limits;

/// Everything wrong with the characters of one file.
pub(super) fn faults(file: &RegoFile) -> Vec<Fault> {
    let mut scan = Scan {
        file,
        faults: Vec::new(),
        line: 1,
        column: 0,
        open: Vec::new(),
        chains: vec![0],
        before: None,
    };
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

fn ends_a_term(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ']' | '}' | ')' | '"' | '`')
}

struct Scan<'a> {
    file: &'a RegoFile,
    faults: Vec<Fault>,
    line: u32,
    column: u32,
    open: Vec<char>,
    /// Links of the chain that runs on, outside all brackets and inside each open one.
    chains: Vec<usize>,
    /// The last character that was not space or comment, and its line.
    before: Option<(char, u32)>,
}

impl Scan<'_> {
    fn run(&mut self) {
        let text = self.file.text.clone();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            self.advance(c);
            if !c.is_whitespace() && c != '#' {
                self.link(c);
            }
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
                    let _ = self.open.pop().and_then(|_| self.chains.pop());
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

    /// Counts the links of a chain. One ends where a line does, unless the next line goes on with it.
    fn link(&mut self, c: char) {
        let Some(chain) = self.chains.last_mut() else { return };
        let is_operator = |c: char| "+-*/%|&=<>!.:[(".contains(c);
        let goes_on = |(before, line): (char, u32)| {
            line == self.line || is_operator(before) || is_operator(c) || ")]}".contains(c)
        };
        if !self.before.is_some_and(goes_on) {
            *chain = 0;
        }
        *chain += usize::from(is_operator(c));
        if is_operator(c) && *chain == limits::POLICY_OPERATORS_MAX + 1 {
            let max = limits::POLICY_OPERATORS_MAX;
            self.fault(
                "expression_too_long",
                format!("more than {max} operators in one expression; use rules in between"),
            );
        }
    }

    fn opens(&mut self, c: char) {
        self.chains.push(0);
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
    fn a_chain_of_operators_never_overflows_the_stack() {
        let links = limits::POLICY_OPERATORS_MAX;
        let refused = |line: u32| vec![("expression_too_long", line)];
        assert_eq!(rules_of(&format!("package p\nx := 1{}\n", "+1\n".repeat(links - 2))), []);
        assert_eq!(
            rules_of(&format!("package p\nx := 1{}\n", "\n+1".repeat(links))),
            refused(links as u32 + 1)
        );
        for text in ["-\n", "1 ==\n", "1 |", "a[1,\n2] +", "f(1\n) +\n", "[\n1] &\n"] {
            let found = rules_of(&format!("package p\nx := {}1\n", text.repeat(links + 1)));
            assert!(found.iter().any(|(rule, _)| *rule == "expression_too_long"), "{text:?}: {found:?}");
        }
        let body = "\tx[i].y == input.z.v + 1\n".repeat(links);
        assert_eq!(rules_of(&format!("package p\na if {{\n{body}}}\n")), []);
        assert_eq!(rules_of(&format!("package p\na := [\n{}]\n", "[1, -1], # +\n".repeat(links))), []);
        assert_eq!(rules_of(&format!("package p\na := {{\n{}}}\n", "\"a\": -1,\n".repeat(links))), []);
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
