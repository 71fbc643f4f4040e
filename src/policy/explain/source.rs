//! The text of parts of a rule, and the order in which its statements need each other.

use std::collections::BTreeSet;

use super::super::check::names::{Scope, bind};
use super::super::syntax::{AssignOp, Expr, Literal, Parsed, Query, Span, Statement, Step};
use super::super::types::{end_of, place_of};

/// An expression as written, with the parentheses it needs: the tree does not know them. An object's span begins at its
/// last member.
pub(super) fn source(parsed: &Parsed, expr: &Expr) -> String {
    let (start, end) = whole(parsed, expr);
    parsed.file.text.get(start..end).unwrap_or_default().to_owned()
}

/// Brackets that are looked at to find the one that opens an expression.
const OPENERS_MAX: usize = 256;

/// Where it begins.
pub(super) fn place(parsed: &Parsed, expr: &Expr) -> Span {
    let (start, end) = whole(parsed, expr);
    let lines = parsed.file.text.get(..start).unwrap_or_default().matches('\n').count();
    let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { line: short(lines) + 1, start: short(start), end: short(end), ..expr.span() }
}

fn whole(parsed: &Parsed, expr: &Expr) -> (usize, usize) {
    let text = &*parsed.file.text;
    let span = Span { end: end_of(expr), ..place_of(expr) };
    let (mut start, mut end) = parsed.extent(span);
    loop {
        let (closing, opening) = unmatched(text.get(start..end).unwrap_or_default());
        if closing > 0 {
            let is_whole = |at: &usize| unmatched(text.get(*at..end).unwrap_or_default()).0 < closing;
            let openers = text[..start].char_indices().rev().filter(|(_, c)| matches!(c, '(' | '[' | '{'));
            match openers.map(|(at, _)| at).take(OPENERS_MAX).find(is_whole) {
                Some(at) => start = at,
                None => break,
            }
        } else if opening > 0 {
            let rest = &text[end..];
            match rest.trim_start().chars().next() {
                Some(')' | ']' | '}') => end += rest.len() - rest.trim_start().len() + 1,
                _ => break,
            }
        } else {
            break;
        }
    }
    (start, end)
}

/// Brackets that close what was not opened, and that open what is not closed; those in texts and comments do not count.
fn unmatched(text: &str) -> (usize, usize) {
    let (mut closing, mut open) = (0, 0_usize);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                while let Some(inner) = chars.next() {
                    match inner {
                        '\\' => {
                            chars.next();
                        }
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '`' => {
                chars.by_ref().find(|c| *c == '`');
            }
            '#' => {
                chars.by_ref().find(|c| *c == '\n');
            }
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' if open > 0 => open -= 1,
            ')' | ']' | '}' => closing += 1,
            _ => {}
        }
    }
    (closing, open)
}

/// On one line, for people.
pub(super) fn without_space(text: &str) -> String {
    // On a line of its own, or behind one of several: a comment would swallow what comes after.
    let is_one = text.trim_end().lines().count() == 1;
    let cut = |line: &'_ str| if is_one { line.len() } else { line.find(" #").unwrap_or(line.len()) };
    let words = text.lines().flat_map(|line| line[..cut(line)].split_whitespace());
    words.collect::<Vec<_>>().join(" ")
}

/// The statements as written, except that each comes after those that bind what it uses, as the engine runs them.
pub(super) fn ordered<'a>(statements: &'a [Statement], scope: &Scope) -> Vec<&'a Statement> {
    let own: Vec<Scope> = statements.iter().map(bound).collect();
    let all: Scope = own.iter().flatten().cloned().collect();
    let uses: Vec<Scope> = statements
        .iter()
        .zip(&own)
        .map(|(statement, own)| {
            let mut names = Scope::new();
            used(&statement.literal, &mut names);
            statement.with_mods.iter().for_each(|modifier| variables(&modifier.value, &mut names));
            names.into_iter().filter(|name| all.contains(name) && !own.contains(name)).collect()
        })
        .collect();
    let mut known: BTreeSet<&String> = scope.iter().filter(|name| !all.contains(*name)).collect();
    let mut left: Vec<usize> = (0..statements.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let is_ready = |number: &usize| uses[*number].iter().all(|name| known.contains(name));
        let next = left.iter().position(is_ready).unwrap_or(0);
        let number = left.remove(next);
        known.extend(own[number].iter());
        order.push(&statements[number]);
    }
    order
}

/// Names that a statement gives a value to.
fn bound(statement: &Statement) -> Scope {
    let mut scope = Scope::new();
    match &statement.literal {
        Literal::SomeIn { key, value, .. } => {
            key.iter().chain([value]).for_each(|pattern| bind(pattern, &mut scope));
        }
        Literal::Expr { expr: Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } } => bind(lhs, &mut scope),
        // Either side may be what has a value already; to put it before its uses is right in both cases.
        Literal::Expr { expr: Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } } => {
            [lhs, rhs].into_iter().for_each(|side| bind(side, &mut scope));
        }
        Literal::SomeVars { .. } | Literal::Expr { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {
        }
    }
    scope
}

fn used(literal: &Literal, names: &mut Scope) {
    match literal {
        Literal::SomeVars { .. } => {}
        Literal::SomeIn { collection, .. } => variables(collection, names),
        Literal::Expr { expr: Expr::AssignExpr { op: AssignOp::ColEq, rhs, .. } } => variables(rhs, names),
        Literal::Expr { expr } | Literal::NotExpr { expr } => variables(expr, names),
        Literal::Every { domain, query, .. } => {
            variables(domain, names);
            inside(query, names);
        }
    }
}

fn inside(query: &Query, names: &mut Scope) {
    for statement in &query.stmts {
        used(&statement.literal, names);
        statement.with_mods.iter().for_each(|modifier| variables(&modifier.value, names));
    }
}

/// Every name that stands in an expression, whoever binds it.
pub(super) fn variables(expr: &Expr, names: &mut Scope) {
    if let Some(reference) = expr.reference() {
        names.insert(reference.root.to_owned());
        for step in reference.steps {
            if let Step::Index(index) = step {
                variables(index, names);
            }
        }
        return;
    }
    match expr {
        Expr::ArrayCompr { query, .. } | Expr::SetCompr { query, .. } | Expr::ObjectCompr { query, .. } => {
            inside(query, names);
        }
        Expr::Call { params, .. } => return params.iter().for_each(|param| variables(param, names)),
        _ => {}
    }
    expr.parts().into_iter().for_each(|part| variables(part, names));
}
