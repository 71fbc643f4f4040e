//! What stands in an expression and has a value of its own.

use super::super::check::names::{Named, Root, Scope, World, declared};
use super::super::syntax::{Expr, Parsed, Query, Step};
use super::source::{source, variables, without_space};
use crate::limits;

pub(super) struct Operand<'a> {
    pub expr: &'a Expr,
    /// As written.
    pub source: String,
    /// The same on one line, for people.
    pub text: String,
    /// The place in the input, if it is exactly one.
    pub input_path: Option<Vec<String>>,
}

/// Of each of the expressions, outermost first, at most [`limits::EXPLAIN_OPERANDS_MAX`]. Constants are none.
pub(super) fn operands<'a>(
    world: &World<'_>,
    module: &Named<'_>,
    scope: &Scope,
    expressions: &[&'a Expr],
) -> Vec<Operand<'a>> {
    let mut find = Find { world, module, scope, inner: Scope::new(), found: Vec::new() };
    expressions.iter().for_each(|expr| find.expr(expr));
    // A call alone is the expression itself; its value says why it failed all the same.
    let mut texts = Scope::new();
    find.found.retain(|operand| texts.insert(operand.text.clone()));
    find.found.truncate(limits::EXPLAIN_OPERANDS_MAX);
    find.found
}

struct Find<'w, 'a> {
    world: &'w World<'w>,
    module: &'w Named<'w>,
    scope: &'w Scope,
    /// Names that a comprehension around binds: what rests on them has no value outside.
    inner: Scope,
    found: Vec<Operand<'a>>,
}

impl<'a> Find<'_, 'a> {
    fn parsed(&self) -> &Parsed {
        self.module.parsed
    }

    fn take(&mut self, expr: &'a Expr) {
        let mut names = Scope::new();
        variables(expr, &mut names);
        if names.iter().any(|name| self.inner.contains(name)) {
            return;
        }
        let source = source(self.parsed(), expr);
        let text = without_space(&source);
        let input_path = self.input_path(expr);
        self.found.push(Operand { expr, source, text, input_path });
    }

    fn input_path(&self, expr: &Expr) -> Option<Vec<String>> {
        let reference = expr.reference()?;
        let Root::Input(mut path) = self.world.root(self.module, self.scope, reference.root) else {
            return None;
        };
        for step in &reference.steps {
            match step {
                Step::Name(name) => path.push((*name).to_owned()),
                Step::Index(_) => return None,
            }
        }
        Some(path)
    }

    fn expr(&mut self, expr: &'a Expr) {
        if expr.reference().is_some() {
            if !matches!(expr, Expr::Var { value, .. } if value == "_") {
                self.take(expr);
            }
            return self.indices(expr);
        }
        match expr {
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => {
                self.take(expr);
                self.comprehension(query);
            }
            Expr::Call { params, .. } => {
                self.take(expr);
                params.iter().for_each(|param| self.expr(param));
            }
            Expr::ArithExpr { lhs, rhs, .. } | Expr::BinExpr { lhs, rhs, .. } => {
                self.take(expr);
                self.expr(lhs);
                self.expr(rhs);
            }
            other => other.parts().into_iter().for_each(|part| self.expr(part)),
        }
    }

    fn indices(&mut self, expr: &'a Expr) {
        match expr {
            Expr::RefBrack { refr, index, .. } => {
                self.indices(refr);
                if index.as_string().is_none() {
                    self.expr(index);
                }
            }
            Expr::RefDot { refr, .. } => self.indices(refr),
            _ => {}
        }
    }

    /// What it goes over; not what it makes of it.
    fn comprehension(&mut self, query: &'a Query) {
        let outer = self.inner.clone();
        self.inner.extend(declared(self.parsed(), &query.stmts));
        for statement in &query.stmts {
            super::expressions(&statement.literal).into_iter().for_each(|expr| self.expr(expr));
        }
        self.inner = outer;
    }
}
