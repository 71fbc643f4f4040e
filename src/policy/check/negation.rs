//! Negation over operands that may be undefined.
//!
//! `not input.x > 3` with no `x`: OPA takes the operand out of the negation, so the rule does not fire; the
//! engine negates the undefined comparison, so it does. A policy written for OPA would permit here. So
//! every operand inside a negation must have a value whatever the input: a bound variable, a constant, a
//! rule that always has one, or a reference that another statement of the same body needs too.

use std::collections::BTreeSet;

use super::super::syntax::{AssignOp, Expr, Literal, Reference, Span, Statement, Step};
use super::builtins;
use super::names::{Kind, Named, Place, Root, Scope, World, bind};

/// References that have a value wherever the whole body holds, as canonical text.
pub(super) type Proofs = BTreeSet<String>;

/// Members every policy input has.
const ALWAYS: &[&str] = &[
    "input",
    "input.surface",
    "input.action",
    "input.actor",
    "input.actor.id",
    "input.actor.method",
    "input.actor.claims",
    "input.request",
    "input.request.method",
    "input.request.authority",
    "input.request.path",
    "input.request.params",
    "input.request.query",
    "input.request.headers",
    "input.request.size",
    "input.request.digest",
    "input.context",
    "input.context.facts",
    "input.context.budgets",
    "input.context.approvals",
    "input.context.attempt",
    "input.time",
    "input.time.unix_ns",
    "input.time.rfc3339",
];

/// Names in one place of one module.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub world: &'a World<'a>,
    pub module: &'a Named<'a>,
    pub scope: &'a Scope,
}

impl Here<'_> {
    /// Adds what must be defined for this statement to hold.
    pub(super) fn prove(&self, literal: &Literal, proofs: &mut Proofs) {
        match literal {
            Literal::Expr { expr: Expr::Membership { key, value, collection, .. } } => {
                key.iter()
                    .map(|k| &**k)
                    .chain([&**value, &**collection])
                    .for_each(|e| self.strict(e, proofs));
            }
            Literal::Expr { expr } => self.strict(expr, proofs),
            Literal::SomeIn { collection, .. } => self.strict(collection, proofs),
            Literal::Every { domain, .. } => self.strict(domain, proofs),
            Literal::NotExpr { .. } | Literal::SomeVars { .. } => {}
        }
    }

    /// Adds every reference without which `expr` is undefined.
    fn strict(&self, expr: &Expr, proofs: &mut Proofs) {
        if let Some(reference) = expr.reference() {
            for end in 0..=reference.steps.len() {
                proofs.extend(self.key(&reference, end));
            }
            for step in &reference.steps {
                if let Step::Index(index) = step {
                    self.strict(index, proofs);
                }
            }
            return;
        }
        match expr {
            // Undefined in a collection is no member of it: the expression is false, and has a value.
            Expr::Membership { .. } => {}
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => {}
            Expr::Call { params, .. } => params.iter().for_each(|p| self.strict(p, proofs)),
            other => other.parts().into_iter().for_each(|part| self.strict(part, proofs)),
        }
    }

    /// What `not expr` needs proved and is not: the place and the text of each such operand.
    pub(super) fn unproved(&self, expr: &Expr, proofs: &Proofs) -> Vec<(Span, String)> {
        let mut missing = Vec::new();
        match (expr.reference(), expr) {
            // `not input.x` says what it means: there is none, or it is false. Its indices are operands.
            (Some(reference), _) => self.indices(&reference, proofs, &mut missing),
            (None, Expr::Call { params, .. }) => {
                params.iter().for_each(|p| self.operand(p, proofs, &mut missing));
            }
            (None, other) => self.parts(other, proofs, &mut missing),
        }
        missing
    }

    /// What of `expr` may have no value: the place and the text of each such operand.
    pub(super) fn undefined(&self, expr: &Expr, proofs: &Proofs) -> Vec<(Span, String)> {
        let mut missing = Vec::new();
        self.operand(expr, proofs, &mut missing);
        missing
    }

    /// Whether a body, or the terms that see its names, may hold in more than one way.
    pub(super) fn loops(&self, terms: &[&Expr], body: &[Statement]) -> bool {
        let mut bound = Scope::new();
        let mut seen: Vec<&Expr> = terms.to_vec();
        for statement in body {
            match &statement.literal {
                Literal::SomeIn { .. } => return true,
                Literal::Expr { expr } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr {
                        bind(lhs, &mut bound);
                    }
                    seen.push(expr);
                }
                Literal::Every { domain, .. } => seen.push(domain),
                Literal::NotExpr { .. } | Literal::SomeVars { .. } => {}
            }
        }
        seen.into_iter().any(|expr| self.ranges(expr, &bound))
    }

    /// Whether an index in `expr` stands for every index there is: `_`, or a name only its use binds.
    fn ranges(&self, expr: &Expr, bound: &Scope) -> bool {
        let is_free = |index: &Expr| match index {
            Expr::Var { value, .. } => {
                !bound.contains(value)
                    && matches!(self.world.root(self.module, self.scope, value), Root::Local)
            }
            other => self.ranges(other, bound),
        };
        if let Some(reference) = expr.reference() {
            return reference.steps.iter().any(|step| matches!(step, Step::Index(index) if is_free(index)));
        }
        match expr {
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => false,
            other => other.parts().into_iter().any(|part| self.ranges(part, bound)),
        }
    }

    fn parts(&self, expr: &Expr, proofs: &Proofs, missing: &mut Vec<(Span, String)>) {
        match expr {
            Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => {}
            other => other.parts().into_iter().for_each(|part| self.operand(part, proofs, missing)),
        }
    }

    fn indices(&self, reference: &Reference<'_>, proofs: &Proofs, missing: &mut Vec<(Span, String)>) {
        for step in &reference.steps {
            if let Step::Index(index) = step {
                self.operand(index, proofs, missing);
            }
        }
    }

    fn operand(&self, expr: &Expr, proofs: &Proofs, missing: &mut Vec<(Span, String)>) {
        let text = || (expr.span(), self.source(expr));
        if matches!(expr, Expr::Var { value, .. } if value == "_") {
            return; // every element there is; the reference it indexes is reported
        }
        if let Some(reference) = expr.reference() {
            self.indices(&reference, proofs, missing);
            if !self.is_defined(&reference, proofs) {
                missing.push(text());
            }
            return;
        }
        match expr {
            Expr::Call { fcn, params, .. } => {
                let name = fcn.reference().map(|r| dotted(&r)).unwrap_or_default();
                if !builtins::is_total(&name) || self.is_rule(&name) {
                    missing.push((expr.span(), format!("{name}(...)")));
                }
                params.iter().for_each(|p| self.operand(p, proofs, missing));
            }
            other => self.parts(other, proofs, missing),
        }
    }

    fn is_rule(&self, name: &str) -> bool {
        self.world.packages.get(&self.module.package).is_some_and(|rules| rules.contains_key(name))
    }

    fn is_defined(&self, reference: &Reference<'_>, proofs: &Proofs) -> bool {
        let Some(key) = self.key(reference, reference.steps.len()) else { return false };
        if proofs.contains(&key) || ALWAYS.contains(&key.as_str()) {
            return true;
        }
        match self.world.root(self.module, self.scope, reference.root) {
            Root::Local => reference.steps.is_empty(),
            Root::Input(_) => false,
            Root::Data(mut path) => {
                for step in &reference.steps {
                    match step {
                        Step::Name(name) => path.push((*name).to_string()),
                        Step::Index(_) => return false,
                    }
                }
                match self.world.place(&path) {
                    Place::Rule { kind, exact, .. } => exact && kind == Kind::Defined,
                    Place::Document => self.world.has_value(&path),
                    Place::Packages | Place::Nowhere => false,
                }
            }
        }
    }

    /// One text for one place, however it is written; `None` if two uses may mean two places.
    fn key(&self, reference: &Reference<'_>, steps: usize) -> Option<String> {
        let mut key = match self.world.root(self.module, self.scope, reference.root) {
            Root::Local if reference.root == "_" => return None,
            Root::Local => format!("${}", reference.root),
            Root::Input(path) => {
                std::iter::once("input".to_string()).chain(path).collect::<Vec<_>>().join(".")
            }
            Root::Data(path) => std::iter::once("data".to_string()).chain(path).collect::<Vec<_>>().join("."),
        };
        for step in reference.steps.iter().take(steps) {
            match step {
                // `["a.b"]` is not `.a.b`.
                Step::Name(name) if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                    key.push_str(&format!("[{name:?}]"));
                }
                Step::Name(name) => {
                    key.push('.');
                    key.push_str(name);
                }
                Step::Index(index) => {
                    let inner = match (index.as_integer(), index.reference()) {
                        (Some(n), _) => n.to_string(),
                        (None, Some(r)) => self.key(&r, r.steps.len())?,
                        (None, None) => return None,
                    };
                    key.push_str(&format!("[{inner}]"));
                }
            }
        }
        Some(key)
    }

    /// The text of a reference as written; the engine's span covers only its last step.
    fn source(&self, expr: &Expr) -> String {
        let Some(reference) = expr.reference() else {
            return self.module.parsed.text(expr.span()).to_string();
        };
        let from = reference.root_span.start as usize;
        let text = self.module.parsed.file.text.get(from..).unwrap_or_default();
        let mut depth = 0_i32;
        let end = text.find(|c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            depth < 0 || (depth == 0 && !(c.is_alphanumeric() || matches!(c, '_' | '.' | ']')))
        });
        text[..end.unwrap_or(text.len())].trim_end_matches('.').to_string()
    }
}

/// `a.b.c` of a function's name.
pub(in crate::policy) fn dotted(reference: &Reference<'_>) -> String {
    let mut name = reference.root.to_string();
    for step in &reference.steps {
        match step {
            Step::Name(part) => {
                name.push('.');
                name.push_str(part);
            }
            Step::Index(_) => name.push_str("[...]"),
        }
    }
    name
}

/// Drops what was proved about names that an inner query binds anew.
pub(super) fn without(proofs: &Proofs, rebound: &Scope) -> Proofs {
    let mentions = |key: &str, name: &str| {
        key.match_indices(&format!("${name}")).any(|(at, found)| {
            !key[at + found.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    proofs.iter().filter(|key| !rebound.iter().any(|name| mentions(key, name))).cloned().collect()
}
