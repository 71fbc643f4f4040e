//! Which lines and rules of a bundle its tests come to.
//!
//! As `opa test --coverage` counts: a line of an expression is covered when the expression was evaluated, the line of a
//! rule's head when the rule held. The engine counts lines it evaluates anything on, which cannot tell the two apart.
//! So the tests run once more on a copy of every file in which each statement begins a line of its own, and each body
//! ends with one that says it was reached. Lines of the copy are led back to lines of the file.
//!
//! What a test gives there must be what it gave before; else the copy is wrong, and nothing is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use regorus::Value;
use serde::Serialize;

use super::super::check::names::{Scope, bind, declared, imports_of};
use super::super::engine;
use super::super::fault::{BundleError, Fault};
use super::super::source::Sources;
use super::super::syntax::{Expr, Literal, Parsed, Query, Rule, RuleHead, Span};
use super::{Additions, Outcome, Suite, TestResult, is_test, prepared};
use crate::limits;

/// Lines from 1, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LineRange {
    pub start: u32,
    pub end: u32,
}

/// What the tests come to in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCoverage {
    pub file: Arc<str>,
    pub is_test: bool,
    pub covered: BTreeSet<u32>,
    pub not_covered: BTreeSet<u32>,
    /// Bodies of rules that held in some test, of those there are; rules that are tests do not count.
    pub rules_covered: usize,
    pub rules_not_covered: BTreeSet<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By name.
    pub files: Vec<FileCoverage>,
}

impl FileCoverage {
    /// 100 for a file without any.
    pub fn percent(&self) -> f64 {
        percent(self.covered.len(), self.not_covered.len())
    }
}

impl Coverage {
    pub fn covered_lines(&self) -> usize {
        self.files.iter().map(|file| file.covered.len()).sum()
    }

    pub fn not_covered_lines(&self) -> usize {
        self.files.iter().map(|file| file.not_covered.len()).sum()
    }

    /// Of lines, in percent, with two digits behind the point as `opa test` has them.
    pub fn lines(&self) -> f64 {
        percent(self.covered_lines(), self.not_covered_lines())
    }

    /// Of bodies of rules, in percent.
    pub fn rules(&self) -> f64 {
        percent(self.covered_rules(), self.not_covered_rules())
    }

    pub fn covered_rules(&self) -> usize {
        self.files.iter().map(|file| file.rules_covered).sum()
    }

    pub fn not_covered_rules(&self) -> usize {
        self.files.iter().map(|file| file.rules_not_covered.len()).sum()
    }
}

/// Lines as ranges of lines that follow each other.
pub fn ranges(lines: &BTreeSet<u32>) -> Vec<LineRange> {
    let mut ranges: Vec<LineRange> = Vec::new();
    for &line in lines {
        match ranges.last_mut() {
            Some(last) if last.end + 1 == line => last.end = line,
            Some(_) | None => ranges.push(LineRange { start: line, end: line }),
        }
    }
    ranges
}

fn percent(covered: usize, not_covered: usize) -> f64 {
    match covered + not_covered {
        0 => 100.0,
        all => (covered as f64 * 10_000.0 / all as f64).round() / 100.0,
    }
}

/// Runs the tests of `results` once more.
pub(super) fn measure(
    suite: &Suite,
    sources: &Sources,
    results: &[TestResult],
) -> Result<Coverage, BundleError> {
    let each = suite.modules.iter().zip(&suite.additions);
    let copies: Vec<Copy> = each.map(|(parsed, added)| Copy::of(parsed, added)).collect();
    let named = suite.modules.iter().zip(&copies);
    let files = named.map(|(parsed, copy)| (parsed.file.name.to_string(), copy.text.clone()));
    let failed = |what: String| BundleError::from(Fault::of_bundle("coverage_failed", what));
    let pristine = prepared(files, sources).map_err(|e| failed(e.to_string()))?;
    let mut hit: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for result in results.iter().filter(|result| result.outcome != Outcome::Skipped) {
        let path = format!("data.{}", result.full_name());
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let mut engine = pristine.clone();
            engine.set_enable_coverage(true);
            // A statement more for each body, so a bound that is not met by what the copy adds.
            engine::bound(&mut engine, limits::EVALUATION_STEPS_MAX_DEFAULT.saturating_mul(2));
            engine.set_gather_prints(true);
            engine.set_input(Value::new_object());
            let given = engine.eval_rule(path.clone());
            (given.map_err(|e| e.to_string()), engine.get_coverage_report())
        }));
        let Ok((given, report)) = asked else { continue };
        let passed = given == Ok(Value::Bool(true)) || matches!(given, Ok(Value::Object(_)));
        let had_passed = result.outcome == Outcome::Passed || !result.cases.is_empty();
        // What the engine fails on may be a rule that nobody asked for: the copy does not ask for it.
        let is_comparable = !matches!(result.outcome, Outcome::Error(_));
        if is_comparable && passed != had_passed {
            return Err(failed(format!("{path} gives another result while lines are counted: {given:?}")));
        }
        for file in report.map_err(|e| failed(e.to_string()))?.files {
            hit.entry(file.path).or_default().extend(file.covered);
        }
    }
    let none = BTreeSet::new();
    let mut files: Vec<FileCoverage> = suite
        .modules
        .iter()
        .zip(&copies)
        .map(|(parsed, copy)| {
            let is_test = sources.tests.iter().any(|file| file.name == parsed.file.name);
            copy.read(&parsed.file.name, is_test, hit.get(&*parsed.file.name).unwrap_or(&none))
        })
        .collect();
    files.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(Coverage { files })
}

/// What a line of the copy stands for.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// A statement, by the line it begins on.
    Statement(u32),
    /// The end of a body, by the line of its head; whether it is a rule that counts.
    Held { head: u32, counts: bool },
    /// Part of the statement before.
    More,
}

/// A file with a line for each statement.
struct Copy {
    text: String,
    /// From the first line of the copy that stands for something.
    lines: BTreeMap<u32, Line>,
}

/// Text that is put in at an offset, in the place of `over` bytes.
struct Inserted {
    at: usize,
    over: usize,
    text: String,
    /// What the line stands for that begins with the last character of `text`'s first line feed.
    line: Option<Line>,
}

impl Inserted {
    fn new(at: usize, text: &str, line: Option<Line>) -> Self {
        Self { at, over: 0, text: text.to_owned(), line }
    }
}

impl Copy {
    fn of(parsed: &Parsed, added: &Additions) -> Self {
        let own =
            |(at, text): &(usize, String)| Inserted { at: *at, over: 0, text: text.clone(), line: None };
        let mut inserted: Vec<Inserted> = added.iter().map(own).collect();
        for rule in &parsed.module.rules {
            rule_lines(parsed, rule, &mut inserted);
            whole_names(parsed, rule, &mut inserted);
        }
        // At one offset, what ends comes before what begins, and a line before what stands on it.
        inserted.sort_by_key(|i| (i.at, i.line.is_none() && i.text.starts_with("data.")));
        let source = &*parsed.file.text;
        let (mut text, mut lines, mut done, mut line) = (String::new(), BTreeMap::new(), 0, 1);
        for Inserted { at, over, text: more, line: stands_for } in inserted {
            let kept = source.get(done..at).unwrap_or_default();
            for _ in kept.matches('\n') {
                line += 1;
                lines.entry(line).or_insert(Line::More);
            }
            text.push_str(kept);
            text.push_str(&more);
            let before = line;
            line += u32::try_from(more.matches('\n').count()).unwrap_or(u32::MAX);
            if let Some(stands_for) = stands_for {
                lines.insert(before + 1, stands_for);
            }
            done = at + over;
        }
        text.push_str(source.get(done..).unwrap_or_default());
        Self { text, lines }
    }

    fn read(&self, file: &Arc<str>, is_test: bool, hit: &BTreeSet<u32>) -> FileCoverage {
        let (mut covered, mut all) = (BTreeSet::new(), BTreeSet::new());
        let (mut rules_covered, mut rules_not_covered) = (0, BTreeSet::new());
        let mut statement = None;
        for (number, stands_for) in &self.lines {
            let is_hit = hit.contains(number);
            match *stands_for {
                Line::Statement(line) => {
                    statement = Some(line);
                    all.insert(line);
                    covered.extend(is_hit.then_some(line));
                }
                Line::More => covered.extend(statement.filter(|_| is_hit)),
                Line::Held { head, counts } => {
                    statement = None;
                    all.insert(head);
                    covered.extend(is_hit.then_some(head));
                    match (counts, is_hit) {
                        (true, true) => rules_covered += 1,
                        (true, false) => {
                            rules_not_covered.insert(head);
                        }
                        (false, _) => {}
                    }
                }
            }
        }
        let not_covered = all.difference(&covered).copied().collect();
        FileCoverage { file: file.clone(), is_test, covered, not_covered, rules_covered, rules_not_covered }
    }
}

fn rule_lines(parsed: &Parsed, rule: &Rule, inserted: &mut Vec<Inserted>) {
    let Rule::Spec { span, head, bodies } = rule else { return };
    let counts = !is_test(rule);
    if let RuleHead::Set { key: None, .. } = head {
        return;
    }
    if bodies.is_empty() {
        let line = Some(Line::Held { head: span.line, counts });
        inserted.push(Inserted::new(parsed.extent(*span).1, " if {\ntrue\n}", line));
        return;
    }
    for body in bodies {
        let head = if body.is_else { body.span.line } else { span.line };
        let held = Some(Line::Held { head, counts });
        let (Some(first), Some(last)) = (body.query.stmts.first(), body.query.stmts.last()) else {
            inserted.push(Inserted::new(parsed.extent(body.span).1, " if {\ntrue\n}", held));
            continue;
        };
        // Without them, the query begins where its first statement does.
        let has_braces = body.query.span.start < first.span.start;
        if !has_braces {
            inserted.push(Inserted::new(parsed.extent(first.span).0, "{", None));
        }
        query_lines(parsed, &body.query, inserted);
        let text = if has_braces { "\ntrue\n" } else { "\ntrue\n}" };
        inserted.push(Inserted::new(parsed.extent(last.span).1, text, held));
    }
}

fn query_lines(parsed: &Parsed, query: &Query, inserted: &mut Vec<Inserted>) {
    for statement in &query.stmts {
        // What only declares is never evaluated.
        let counts = !matches!(statement.literal, Literal::SomeVars { .. });
        let line = Some(if counts { Line::Statement(statement.span.line) } else { Line::More });
        inserted.push(Inserted::new(parsed.extent(statement.span).0, "\n", line));
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection } => {
                key.iter().chain([value, collection]).for_each(|expr| nested(parsed, expr, inserted));
            }
            Literal::Expr { expr } | Literal::NotExpr { expr } => nested(parsed, expr, inserted),
            Literal::Every { domain, query, .. } => {
                nested(parsed, domain, inserted);
                query_lines(parsed, query, inserted);
            }
        }
        statement.with_mods.iter().for_each(|modifier| nested(parsed, &modifier.value, inserted));
    }
}

/// The statements inside comprehensions.
fn nested(parsed: &Parsed, expr: &Expr, inserted: &mut Vec<Inserted>) {
    match expr {
        Expr::ArrayCompr { query, .. } | Expr::SetCompr { query, .. } | Expr::ObjectCompr { query, .. } => {
            query_lines(parsed, query, inserted);
        }
        _ => {}
    }
    expr.parts().into_iter().for_each(|part| nested(parsed, part, inserted));
}

/// The engine evaluates every rule of a package that is named by its import. A reference by its whole path needs its rule
/// alone, which is what counts.
fn whole_names(parsed: &Parsed, rule: &Rule, inserted: &mut Vec<Inserted>) {
    let Rule::Spec { head, bodies, .. } = rule else { return };
    let mut names = Names { parsed, bound: Scope::new(), found: Vec::new() };
    let (assign, key) = match head {
        RuleHead::Compr { assign, .. } => (assign.as_ref(), None),
        RuleHead::Func { args, assign, .. } => {
            args.iter().for_each(|arg| bind(arg, &mut names.bound));
            (assign.as_ref(), None)
        }
        RuleHead::Set { key, .. } => (None, key.as_ref()),
    };
    assign.map(|assign| &assign.value).into_iter().chain(key).for_each(|expr| names.expr(expr));
    for body in bodies {
        body.assign.iter().for_each(|assign| names.expr(&assign.value));
        names.query(&body.query);
    }
    let aliases = imports_of(parsed);
    for span in names.found {
        let alias = parsed.text(span);
        let path = aliases.get(alias).filter(|path| path.first().is_some_and(|first| first == "data"));
        // A name that is also bound somewhere in the rule may be that.
        let Some(path) = path.filter(|_| !names.bound.contains(alias)) else { continue };
        let over = (span.end - span.start) as usize;
        inserted.push(Inserted { at: span.start as usize, over, text: path.join("."), line: None });
    }
}

struct Names<'a> {
    parsed: &'a Parsed,
    bound: Scope,
    /// The roots of references.
    found: Vec<Span>,
}

impl Names<'_> {
    fn query(&mut self, query: &Query) {
        self.bound.extend(declared(self.parsed, &query.stmts));
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection } => {
                    key.iter().chain([value, collection]).for_each(|expr| self.expr(expr));
                }
                Literal::Expr { expr } | Literal::NotExpr { expr } => self.expr(expr),
                Literal::Every { key, value, domain, query } => {
                    self.bound
                        .extend(key.iter().chain([value]).map(|span| self.parsed.text(*span).to_owned()));
                    self.expr(domain);
                    self.query(query);
                }
            }
            statement.with_mods.iter().for_each(|modifier| self.expr(&modifier.value));
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            // Alone it is the package as a whole.
            Expr::Var { .. } => return,
            Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => {
                if let Expr::Var { span, .. } = &**refr {
                    self.found.push(*span);
                }
            }
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => {
                self.query(query);
            }
            _ => {}
        }
        expr.parts().into_iter().for_each(|part| self.expr(part));
    }
}
