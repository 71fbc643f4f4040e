//! Table-driven tests: what the head of a partial object's rules is bound to, and why the body holds or not for each.

use std::collections::BTreeSet;

use regorus::Value;

use super::super::check::names::Scope;
use super::super::syntax::{Expr, Literal, Rule, RuleHead, Statement, Step};
use super::source::{source, variables};
use super::{Binding, Depth, Explainer, Failure, elements};

/// One way in which the indices of a head are bound.
pub(in crate::policy) struct Bound {
    pub indices: Vec<Value>,
    /// `None`: the body holds, or nobody asked.
    pub failure: Option<Failure>,
}

/// Of every rule of this name; why bodies fail only if `explains`.
pub(in crate::policy) fn cases(explainer: &Explainer<'_>, name: &str, explains: bool) -> Vec<Bound> {
    let mut found = Vec::new();
    for (module, rule) in explainer.rules.get(name).into_iter().flatten() {
        let Rule::Spec { head: RuleHead::Compr { refr, .. }, bodies, .. } = rule else { continue };
        let Some(reference) = refr.reference() else { continue };
        let index = |step: &Step<'_>| match step {
            Step::Index(index) => Some(source(explainer.module(*module).parsed, index)),
            Step::Name(_) => None,
        };
        let texts: Vec<String> = reference.steps.iter().filter_map(index).collect();
        let mut wanted = Scope::new();
        for step in &reference.steps {
            if let Step::Index(index) = step {
                variables(index, &mut wanted);
            }
        }
        for body in bodies {
            found.extend(of_body(explainer, *module, &body.query.stmts, (&texts, &wanted), explains));
        }
    }
    found
}

fn of_body<'a>(
    explainer: &Explainer<'a>,
    module: usize,
    statements: &'a [Statement],
    (texts, wanted): (&[String], &Scope),
    explains: bool,
) -> Vec<Bound> {
    let Ok(chain) = explainer.chain(module, statements, None) else { return Vec::new() };
    let parsed = explainer.module(module).parsed;
    let row = format!("[{}]", texts.join(", "));
    // The shortest start of the body that gives every name a value.
    for last in (0..chain.statements.len()).filter(|at| names(chain.statements[*at], wanted)) {
        let mut start = explainer.copy(&chain);
        start.before.extend(chain.statements[..=last].iter().map(|s| parsed.whole(s.span).to_owned()));
        let Ok(rows) = explainer.given(&start, &row) else { continue };
        let rest = &chain.statements[last + 1..];
        let one = |bound: &Value| {
            let mut own = explainer.copy(&start);
            own.statements = rest.to_vec();
            own.before.push(format!("{row} == {}", explainer.ground.document(own.documents.len())));
            own.documents.push(bound.clone());
            let indices: Vec<Value> = elements(bound).into_iter().cloned().collect();
            if !explains {
                return Some(Bound { indices, failure: None });
            }
            let named = texts.iter().zip(&indices);
            own.chosen =
                named.map(|(name, v)| Binding { name: name.clone(), value: explainer.seen(v) }).collect();
            let failure = explainer.first_failure(own, Depth(0), &mut BTreeSet::new()).ok()?.err();
            Some(Bound { indices, failure })
        };
        return rows.iter().filter_map(one).collect();
    }
    Vec::new()
}

/// Whether a statement may give one of the names a value.
fn names(statement: &Statement, wanted: &Scope) -> bool {
    let mut names = Scope::new();
    match &statement.literal {
        Literal::SomeIn { key, value, .. } => {
            key.iter().chain([value]).for_each(|pattern| variables(pattern, &mut names));
        }
        Literal::Expr { expr: Expr::AssignExpr { lhs, rhs, .. } } => {
            variables(lhs, &mut names);
            variables(rhs, &mut names);
        }
        Literal::Expr { expr } => variables(expr, &mut names),
        Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
    }
    names.iter().any(|name| wanted.contains(name))
}
