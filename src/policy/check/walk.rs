//! One pass over every rule: calls, references, negations, and who depends on whom.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fault::Fault;
use super::super::syntax::{Expr, Literal, Query, Reference, Rule, RuleHead, Span, Statement, Step};
use super::builtins;
use super::names::{Kind, Named, Place, Root, Scope, World, bind, declared};
use super::negation::{Here, Proofs, dotted, without};

/// Rule to the rules it needs.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

pub(super) struct Walk<'a> {
    world: &'a World<'a>,
    module: &'a Named<'a>,
    node: String,
    pub graph: Graph,
    pub places: BTreeMap<String, (usize, Span)>,
    pub faults: Vec<Fault>,
}

impl<'a> Walk<'a> {
    /// Over all modules; `None` if there are none.
    pub(super) fn over(world: &'a World<'a>) -> Option<Self> {
        let mut walk = Self {
            world,
            module: world.modules.first()?,
            node: String::new(),
            graph: Graph::new(),
            places: BTreeMap::new(),
            faults: Vec::new(),
        };
        for (number, module) in world.modules.iter().enumerate() {
            walk.module = module;
            walk.imports();
            for rule in &module.parsed.module.rules {
                walk.node = format!("{}.{}", module.package.join("."), rule.name());
                walk.graph.entry(walk.node.clone()).or_default();
                walk.places.entry(walk.node.clone()).or_insert((number, rule.span()));
                walk.rule(rule);
            }
        }
        Some(walk)
    }

    fn fault(&mut self, span: Span, rule: &'static str, message: String) {
        let fault = self.module.parsed.fault(span, rule, message);
        self.faults.push(fault);
    }

    /// The engine goes on reading `input` and `data` as themselves, whatever stands under these names.
    fn shadows(&mut self, span: Span, names: &Scope) {
        for name in ["input", "data"].into_iter().filter(|name| names.contains(*name)) {
            self.fault(
                span,
                "name_shadowed",
                format!("`{name}` cannot be the name of anything else; rename it"),
            );
        }
    }

    fn imports(&mut self) {
        let itself = |alias: &String, path: &Vec<String>| matches!(&path[..], [only] if only == alias);
        let aliases = self.module.imports.iter().filter(|(alias, path)| !itself(alias, path));
        let aliases: Scope = aliases.map(|(alias, _)| alias.clone()).collect();
        self.shadows(self.module.parsed.module.package.span, &aliases);
    }

    fn rule(&mut self, rule: &'a Rule) {
        if builtins::is_known(rule.name()) {
            let message = format!("a rule named `{}` hides the builtin of that name; rename it", rule.name());
            self.fault(rule.span(), "builtin_hidden", message);
        }
        let (head, bodies) = match rule {
            Rule::Default { value, .. } => return self.expr(value, &Scope::new(), &Proofs::new()),
            Rule::Spec { head, bodies, .. } => (head, bodies),
        };
        let mut arguments = Scope::new();
        let mut heads: Vec<&Expr> = match head {
            RuleHead::Compr { assign, .. } => assign.iter().map(|a| &a.value).collect(),
            RuleHead::Set { key, .. } => key.iter().collect(),
            RuleHead::Func { args, assign, .. } => {
                args.iter().for_each(|arg| bind(arg, &mut arguments));
                assign.iter().map(|a| &a.value).collect()
            }
        };
        if let Some(reference) = head.refr().reference() {
            heads.extend(reference.steps.iter().filter_map(|step| match step {
                Step::Index(index) => Some(*index),
                Step::Name(_) => None,
            }));
        }
        self.shadows(rule.span(), &arguments);
        let is_function = matches!(head, RuleHead::Func { .. });
        if bodies.is_empty() {
            heads.iter().for_each(|expr| self.expr(expr, &arguments, &Proofs::new()));
            if !is_function {
                self.looping_head(&heads, &[], &arguments);
            }
        }
        for body in bodies {
            let assigned = body.assign.iter().map(|a| &a.value);
            let terms: Vec<&Expr> = heads.iter().copied().chain(assigned).collect();
            self.query(&terms, &body.query, &arguments, &Proofs::new());
            if !is_function {
                self.looping_head(&terms, &body.query.stmts, &arguments);
            }
        }
    }

    /// A head that is undefined in one turn of its rule's loop takes the elements of all other turns with
    /// it; in OPA it is only left out itself. Functions do not share the fault.
    fn looping_head(&mut self, terms: &[&'a Expr], body: &'a [Statement], arguments: &Scope) {
        let scope: Scope = arguments.union(&declared(self.module.parsed, body)).cloned().collect();
        let here = Here { world: self.world, module: self.module, scope: &scope };
        if !here.loops(terms, body) {
            return;
        }
        let mut proofs = Proofs::new();
        body.iter().for_each(|statement| here.prove(&statement.literal, &mut proofs));
        let undefined: BTreeMap<String, Span> = terms
            .iter()
            .flat_map(|term| here.undefined(term, &proofs))
            .map(|(span, text)| (text, span))
            .collect();
        for (text, span) in undefined {
            let message = format!(
                "`{text}` may be undefined in one turn of this rule's loop: the elements of every other turn are then \
                 lost here (OPA: only that one). Bind it in the body: `v := {text}`, and use `v` in the head"
            );
            self.fault(span, "head_undefined", message);
        }
    }

    /// A query and the terms that see its names.
    fn query(&mut self, terms: &[&Expr], query: &Query, outer: &Scope, proved: &Proofs) {
        let own = declared(self.module.parsed, &query.stmts);
        if let Some(first) = query.stmts.first() {
            self.shadows(first.span, &own);
        }
        let mut proofs = without(proved, &own);
        let scope: Scope = outer.union(&own).cloned().collect();
        let here = Here { world: self.world, module: self.module, scope: &scope };
        query.stmts.iter().for_each(|statement| here.prove(&statement.literal, &mut proofs));

        for statement in &query.stmts {
            if let Some(modifier) = statement.with_mods.first() {
                let message = "`with` belongs in tests: a decision rests on the one input it is given";
                self.fault(modifier.span, "with_refused", message.into());
            }
            match &statement.literal {
                Literal::SomeVars { vars } => {
                    for span in vars {
                        let name = self.module.parsed.text(*span);
                        if !proofs.contains(&format!("${name}")) {
                            let message =
                                format!("nothing in this body binds `{name}`, so it never has a value");
                            self.fault(*span, "name_unbound", message);
                        }
                    }
                }
                Literal::SomeIn { key, value, collection } => {
                    key.iter().chain([value, collection]).for_each(|e| self.expr(e, &scope, &proofs));
                }
                Literal::Expr { expr } => self.condition(expr, &scope, &proofs),
                Literal::NotExpr { expr } => {
                    self.negation(expr, here, &proofs);
                    self.condition(expr, &scope, &proofs);
                }
                Literal::Every { key, value, domain, query } => {
                    self.expr(domain, &scope, &proofs);
                    let spans = key.iter().chain([value]);
                    let bound: Scope = spans.map(|s| self.module.parsed.text(*s).to_string()).collect();
                    self.shadows(*value, &bound);
                    let inner = scope.union(&bound).cloned().collect();
                    self.query(&[], query, &inner, &without(&proofs, &bound));
                }
            }
        }
        terms.iter().for_each(|term| self.expr(term, &scope, &proofs));
    }

    fn negation(&mut self, expr: &Expr, here: Here<'_>, proofs: &Proofs) {
        for (span, text) in here.unproved(expr, proofs) {
            let message = format!(
                "`not` over `{text}`, which may be undefined: the negation is then true here (OPA: undefined, so the rule \
                 does not fire). Bind it in the same body and negate the variable: `v := {text}` and `not ... v ...`; \
                 if a missing value should count as well, write a second rule with `not` over the reference alone"
            );
            self.fault(span, "negation_unguarded", message);
        }
    }

    /// A whole statement: whether it is false or undefined is the same to it.
    fn condition(&mut self, expr: &Expr, scope: &Scope, proofs: &Proofs) {
        match expr {
            Expr::Membership { .. } => {
                expr.parts().into_iter().for_each(|part| self.expr(part, scope, proofs));
            }
            other => self.expr(other, scope, proofs),
        }
    }

    /// `in` whose value is used: with an undefined operand it is `false` here, and undefined in OPA.
    fn membership(&mut self, expr: &Expr, scope: &Scope, proofs: &Proofs) {
        let here = Here { world: self.world, module: self.module, scope };
        for (span, text) in here.undefined(expr, proofs) {
            let message = format!(
                "the value of `in` over `{text}`, which may be undefined, is `false` here (OPA: undefined). Bind it in \
                 the same body: `v := {text}`, or use `in` as a condition of its own"
            );
            self.fault(span, "membership_undefined", message);
        }
    }

    fn expr(&mut self, expr: &Expr, scope: &Scope, proofs: &Proofs) {
        if let Some(reference) = expr.reference() {
            self.reference(expr, &reference, scope);
            for step in &reference.steps {
                if let Step::Index(index) = step {
                    self.expr(index, scope, proofs);
                }
            }
            return;
        }
        match expr {
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.query(&[term], query, scope, proofs);
            }
            Expr::ObjectCompr { key, value, query, .. } => self.query(&[key, value], query, scope, proofs),
            Expr::Call { span, fcn, params } => {
                self.call(*span, fcn, params, scope);
                params.iter().for_each(|p| self.expr(p, scope, proofs));
            }
            other => {
                if matches!(other, Expr::Membership { .. }) {
                    self.membership(other, scope, proofs);
                }
                other.parts().into_iter().for_each(|part| self.expr(part, scope, proofs));
            }
        }
    }

    fn call(&mut self, span: Span, function: &Expr, arguments: &[Expr], scope: &Scope) {
        let Some(reference) = function.reference() else {
            return self.fault(span, "call_dynamic", "a function is called by its name".into());
        };
        let name = dotted(&reference);
        if let Root::Data(mut path) = self.world.root(self.module, scope, reference.root) {
            path.extend(reference.steps.iter().filter_map(|step| match step {
                Step::Name(part) => Some((*part).to_string()),
                Step::Index(_) => None,
            }));
            match self.world.place(&path) {
                Place::Rule { node, kind: Kind::Function, exact: true } => {
                    self.graph.entry(self.node.clone()).or_default().insert(node);
                }
                Place::Rule { .. } | Place::Document | Place::Packages | Place::Nowhere => {
                    self.fault(span, "call_unknown", format!("`{name}` is not a function of this bundle"));
                }
            }
            return;
        }
        if let Some((rule, message)) = builtins::refusal(&name, arguments) {
            self.fault(function.span(), rule, message);
        }
    }

    fn reference(&mut self, expr: &Expr, reference: &Reference<'_>, scope: &Scope) {
        let Root::Data(mut path) = self.world.root(self.module, scope, reference.root) else { return };
        for step in &reference.steps {
            match step {
                Step::Name(name) => path.push((*name).to_string()),
                Step::Index(_) => break,
            }
        }
        let shown = if path.is_empty() { "data".into() } else { format!("data.{}", path.join(".")) };
        match self.world.place(&path) {
            Place::Rule { kind: Kind::Function, .. } => {
                let message = format!("`{shown}` is a function; call it");
                self.fault(expr.span(), "reference_unknown", message);
            }
            Place::Rule { node, .. } => {
                self.graph.entry(self.node.clone()).or_default().insert(node);
            }
            Place::Document => {}
            Place::Packages => {
                let message = format!(
                    "`{shown}` used as a whole or with a computed name can reach every rule below it; name the rule, and \
                     keep documents apart from packages (`data.ref`)"
                );
                self.fault(expr.span(), "reference_dynamic", message);
            }
            Place::Nowhere => {
                let message = format!(
                    "`{shown}` is no rule and no document of this bundle: it would never have a value"
                );
                self.fault(expr.span(), "reference_unknown", message);
            }
        }
    }
}
