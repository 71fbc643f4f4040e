//! What a file that decides nothing is held to, such as a test: calls that end, and that the engine has.
//!
//! A test may read the clock, mock, and use what no decision may rest on. It may not call what takes the process with
//! it: one call of the engine is never interrupted, and an allocation that fails cannot be caught.

use super::super::fault::Fault;
use super::super::syntax::{Expr, Literal, Query, Rule, RuleHead, Step, WithModifier};
use super::names::{Named, Root, Scope, World};
use super::negation::dotted;
use super::walk::Walk;
use super::{builtins, graph};

/// Of the modules whose files `held` names. `world` holds all of them, so that a call of a function is known as one.
pub(in crate::policy) fn faults(world: &World<'_>, held: impl Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for module in world.modules.iter().filter(|module| held(&module.parsed.file.name)) {
        let mut visit = Visit { world, module, faults: Vec::new() };
        module.parsed.module.rules.iter().for_each(|rule| visit.rule(rule));
        faults.append(&mut visit.faults);
    }
    if let Some(walk) = Walk::over(world) {
        faults.extend(graph::faults(world, &walk).into_iter().filter(|fault| held(&fault.file)));
    }
    faults
}

struct Visit<'a> {
    world: &'a World<'a>,
    module: &'a Named<'a>,
    faults: Vec<Fault>,
}

impl Visit<'_> {
    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { value, .. } => self.expr(value),
            Rule::Spec { head, bodies, .. } => {
                let (assign, key) = match head {
                    RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => (assign.as_ref(), None),
                    RuleHead::Set { key, .. } => (None, key.as_ref()),
                };
                self.expr(head.refr());
                assign.map(|assign| &assign.value).into_iter().chain(key).for_each(|expr| self.expr(expr));
                for body in bodies {
                    body.assign.iter().for_each(|assign| self.expr(&assign.value));
                    self.query(&body.query);
                }
            }
        }
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection } => {
                    key.iter().chain([value, collection]).for_each(|expr| self.expr(expr));
                }
                Literal::Expr { expr } | Literal::NotExpr { expr } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.query(query);
                }
            }
            statement.with_mods.iter().for_each(|modifier| self.modifier(modifier));
        }
    }

    /// In the place of a function, a builtin takes arguments that nobody has looked at.
    fn modifier(&mut self, modifier: &WithModifier) {
        self.expr(&modifier.value);
        let Some(name) = self.builtin(&modifier.value) else { return };
        if builtins::is_in_the_engine(&name)
            && let Some((rule, message)) = builtins::refusal_in_a_test(&name, &[])
        {
            let fault = self.module.parsed.fault(modifier.value.span(), rule, message);
            self.faults.push(fault);
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::ArrayCompr { query, .. }
            | Expr::SetCompr { query, .. }
            | Expr::ObjectCompr { query, .. } => {
                self.query(query);
            }
            Expr::Call { span, fcn, params } => {
                match self.builtin(fcn) {
                    Some(name) => {
                        if let Some((rule, message)) = builtins::refusal_in_a_test(&name, params) {
                            self.faults.push(self.module.parsed.fault(fcn.span(), rule, message));
                        }
                    }
                    None if fcn.reference().is_none() => {
                        let message = "a function is called by its name".into();
                        self.faults.push(self.module.parsed.fault(*span, "call_dynamic", message));
                    }
                    None => {}
                }
                params.iter().for_each(|param| self.expr(param));
                return;
            }
            _ => {}
        }
        expr.parts().into_iter().for_each(|part| self.expr(part));
    }

    /// The name of what is no function of these files. One that the engine knows may be its own whatever the files say.
    fn builtin(&self, function: &Expr) -> Option<String> {
        let reference = function.reference()?;
        let is_plain = reference.steps.iter().all(|step| matches!(step, Step::Name(_)));
        let name = is_plain.then(|| dotted(&reference))?;
        match self.world.root(self.module, &Scope::new(), reference.root) {
            Root::Data(_) | Root::Input(_) if !builtins::is_in_the_engine(&name) => None,
            Root::Data(_) | Root::Input(_) | Root::Local => Some(name),
        }
    }
}
