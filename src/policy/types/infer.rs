//! One body on one route: what its expressions may be, and what of it can never hold there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::check::names::{Named, Root, Scope};
use super::super::check::negation::dotted;
use super::super::problem::{Problem, Severity};
use super::super::syntax::{AssignOp, BoolOp, Expr, Literal, Reference, Span, Statement, Step as Part};
use super::calls;
use super::lattice::{Step, Type};
use super::reference::unfolded;
use super::{Checker, Test};

/// What is known of a value.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub ty: Type,
    /// Members of the request that may be missing, and without which there is no value.
    pub from: BTreeSet<String>,
    /// The place in `input` or in a document, if it is exactly one.
    pub path: Option<String>,
    /// Says which route it is, and so is no mistake where it does not fit.
    pub of_route: bool,
}

impl Value {
    pub(super) fn of(ty: Type) -> Self {
        Self { ty, from: BTreeSet::new(), path: None, of_route: false }
    }

    pub(super) fn any() -> Self {
        Self::of(Type::any())
    }
}

/// Names that have a value, and what conditions say about them.
#[derive(Clone, Default)]
pub(super) struct Env {
    pub vars: BTreeMap<String, Value>,
    pub narrowed: BTreeMap<String, Type>,
}

/// A finding, and where its place begins.
pub(super) struct Noted {
    pub start: u32,
    pub problem: Problem,
    /// Other routes of the package have what is missing here.
    pub is_weak: bool,
}

impl Noted {
    /// Holds on some routes and not on others, so that it must hold on all to be a finding.
    pub(super) fn is_of_route(&self) -> bool {
        self.problem.severity == Severity::Error || self.problem.rule == "input_undeclared"
    }
}

/// What was found out about a body so far.
#[derive(Default)]
pub(super) struct State {
    pub problems: Vec<Noted>,
    /// Never holds, for a reason that is reported.
    pub loud: bool,
    /// Never holds on this route, as it is meant to.
    pub quiet: bool,
    /// For a value of another kind than this route has.
    pub is_of_other_kind: bool,
    /// A condition on the route that does not hold on it.
    pub guard: Option<Problem>,
    pub needs: BTreeSet<String>,
    pub tests: BTreeMap<String, Test>,
    /// Nothing is reported in the first of two passes.
    muted: bool,
}

impl State {
    pub(super) fn is_dead_quietly(&self) -> bool {
        self.quiet || self.guard.is_some()
    }
}

/// Members that say which route it is.
pub(super) const OF_ROUTE: [&str; 3] = ["input.action", "input.surface", "input.request.method"];

impl<'a> Checker<'a> {
    pub(super) fn module(&self) -> &'a Named<'a> {
        &self.world.modules[self.at]
    }

    pub(super) fn problem(
        &self,
        span: Span,
        severity: Severity,
        rule: &'static str,
        message: String,
        help: Option<String>,
    ) -> Problem {
        self.module().parsed.problem(span, severity, rule, message, help)
    }

    pub(super) fn report(
        &mut self,
        span: Span,
        severity: Severity,
        rule: &'static str,
        message: String,
        help: Option<String>,
    ) {
        if !self.state.muted {
            let problem = self.problem(span, severity, rule, message, help);
            self.state.problems.push(Noted { start: span.start, problem, is_weak: false });
        }
    }

    pub(super) fn error(&mut self, span: Span, rule: &'static str, message: String, help: Option<String>) {
        self.report(span, Severity::Error, rule, message, help);
        self.state.loud = true;
    }

    /// `on POST /v1/charges (charge.create)`, for messages.
    pub(super) fn on_route(&self) -> String {
        match self.routes[self.route].shown.as_str() {
            "" => String::new(),
            shown => format!(" on {shown}"),
        }
    }

    /// All statements. Conditions narrow what they test wherever it stands, so they are read twice.
    pub(super) fn statements(&mut self, statements: &'a [Statement], env: &mut Env) {
        let outermost = !std::mem::replace(&mut self.state.muted, true);
        let loud = self.state.loud;
        let guards = statements.iter().filter(|s| self.is_guard(s));
        let guards: Vec<_> = guards.collect();
        for statement in guards.into_iter().chain(statements) {
            self.statement(statement, env);
            if self.state.is_dead_quietly() {
                break;
            }
        }
        self.state.muted = !outermost;
        self.state.loud = loud;
        if self.state.is_dead_quietly() {
            return;
        }
        statements.iter().for_each(|statement| self.statement(statement, env));
    }

    /// A comparison with what says which route it is.
    pub(super) fn is_guard(&self, statement: &Statement) -> bool {
        let Literal::Expr { expr, .. } = &statement.literal else { return false };
        let names_route = |expr: &Expr| {
            expr.reference().is_some_and(|r| r.root == "input" && OF_ROUTE.contains(&dotted(&r).as_str()))
        };
        let constant =
            |expr: &Expr| expr.as_string().is_some() || matches!(expr, Expr::Set { .. } | Expr::Array { .. });
        match expr {
            Expr::BoolExpr { lhs, rhs, .. } | Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                (names_route(lhs) && constant(rhs)) || (names_route(rhs) && constant(lhs))
            }
            Expr::Membership { value, collection, .. } => names_route(value) && constant(collection),
            _ => false,
        }
    }

    pub(super) fn statement(&mut self, statement: &'a Statement, env: &mut Env) {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                let collection_value = self.expr(collection, env);
                let (keys, values) = self.iterated(collection, &collection_value);
                if let Some(key) = key {
                    self.bind(key, Value { from: collection_value.from.clone(), ..Value::of(keys) }, env);
                }
                self.bind(value, Value { from: collection_value.from, ..Value::of(values) }, env);
            }
            Literal::Expr { expr, .. } => self.condition(expr, env),
            Literal::NotExpr { expr, .. } => self.negation(expr, env),
            Literal::Every { key, value, domain, query, .. } => {
                let domain_value = self.expr(domain, env);
                let (keys, values) = self.iterated(domain, &domain_value);
                let mut inner = env.clone();
                for (span, ty) in key.iter().map(|k| (*k, keys.clone())).chain([(*value, values)]) {
                    let name = self.module().parsed.text(span).to_string();
                    inner.narrowed.remove(&format!("${name}"));
                    inner.vars.insert(name, Value::of(ty));
                }
                self.apart(|checker| checker.statements(&query.stmts, &mut inner));
            }
        }
    }

    pub(super) fn iterated(&mut self, collection: &Expr, value: &Value) -> (Type, Type) {
        if value.ty.is_never() {
            return (Type::any(), Type::any());
        }
        value.ty.iterated().unwrap_or_else(|| {
            let message = format!(
                "`{}` is {}, which has no elements{}",
                self.source(collection),
                value.ty.shown(),
                self.on_route()
            );
            self.error(place_of(collection), "iteration_impossible", message, None);
            (Type::any(), Type::any())
        })
    }

    /// Runs what may fail without ending the body.
    pub(super) fn apart<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let (loud, quiet, guard) = (self.state.loud, self.state.quiet, self.state.guard.take());
        let (needs, tests) = (self.state.needs.clone(), self.state.tests.clone());
        self.state.quiet = false;
        let result = run(self);
        (self.state.loud, self.state.quiet, self.state.guard) = (loud, quiet, guard);
        (self.state.needs, self.state.tests) = (needs, tests);
        result
    }

    pub(super) fn negation(&mut self, expr: &'a Expr, env: &mut Env) {
        let is_reference = expr.reference().is_some();
        let (needs, key) = self.apart(|checker| {
            checker.state.needs.clear();
            let value = checker.expr(expr, env);
            (std::mem::take(&mut checker.state.needs), value.path)
        });
        if is_reference {
            // True where there is none: whoever wrote it thought of that.
            let route = self.route;
            self.covered.extend(needs.into_iter().chain(key).map(|key| (route, key)));
        } else {
            self.tests(place_of(expr), &needs);
        }
    }

    /// A condition that a missing member would keep from being true.
    pub(super) fn tests(&mut self, span: Span, needs: &BTreeSet<String>) {
        for key in needs {
            let test = Test { module: self.at, span };
            self.state.tests.entry(key.clone()).or_insert(test);
        }
    }

    pub(super) fn condition(&mut self, expr: &'a Expr, env: &mut Env) {
        match expr {
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } => {
                let value = self.expr(rhs, env);
                self.bind(lhs, value, env);
            }
            Expr::AssignExpr { op: AssignOp::Eq, span, lhs, rhs } => {
                if self.binds(lhs, env) {
                    let value = self.expr(rhs, env);
                    self.bind(lhs, value, env);
                } else if self.binds(rhs, env) {
                    let value = self.expr(lhs, env);
                    self.bind(rhs, value, env);
                } else {
                    self.compare(*span, BoolOp::Eq, lhs, rhs, env);
                }
            }
            Expr::BoolExpr { op, span, lhs, rhs } => self.compare(*span, *op, lhs, rhs, env),
            Expr::Membership { span, key, value, collection } => {
                if let Some(key) = key {
                    self.expr(key, env);
                }
                self.membership(*span, value, collection, env);
            }
            Expr::Call { fcn, params, .. } => {
                match (self.builtin(fcn).and_then(calls::tested), &params[..]) {
                    (Some(kind), [operand]) => {
                        let value = self.expr(operand, env);
                        let met = value.ty.meet(&kind);
                        // A test that never holds is how one rule for two shapes looks.
                        self.state.quiet |= met.is_never();
                        self.state.is_of_other_kind |= met.is_never();
                        self.narrow(operand, met, env);
                    }
                    _ => self.holds(expr, env),
                }
            }
            _ => self.holds(expr, env),
        }
    }

    pub(super) fn holds(&mut self, expr: &'a Expr, env: &mut Env) {
        let value = self.expr(expr, env);
        self.state.quiet |= value.ty.is_false();
    }

    /// Whether a pattern holds a name without a value.
    pub(super) fn binds(&self, pattern: &Expr, env: &Env) -> bool {
        match pattern {
            Expr::Var { value, .. } => {
                !env.vars.contains_key(value)
                    && matches!(self.world.root(self.module(), &Scope::new(), value), Root::Local)
            }
            Expr::Array { items, .. } => items.iter().any(|item| self.binds(item, env)),
            Expr::Object { fields, .. } => fields.iter().any(|(_, _, value)| self.binds(value, env)),
            _ => false,
        }
    }

    pub(super) fn bind(&mut self, pattern: &'a Expr, value: Value, env: &mut Env) {
        match pattern {
            Expr::Var { value: name, .. } if name != "_" => drop(env.vars.insert(name.clone(), value)),
            Expr::Array { items, .. } => {
                let ty = value.ty.at(&Type::number(Some(true))).unwrap_or(Type::any());
                let item = Value { from: value.from, ..Value::of(ty) };
                items.iter().for_each(|pattern| self.bind(pattern, item.clone(), env));
            }
            Expr::Object { fields, .. } => {
                for (_, key, pattern) in fields {
                    let ty = match key.as_string().map(|name| value.ty.member(name)) {
                        Some(Step::Found { ty, .. }) => ty,
                        Some(Step::Undeclared { .. } | Step::Absent { .. } | Step::NotAContainer) | None => {
                            Type::any()
                        }
                    };
                    self.bind(pattern, Value { from: value.from.clone(), ..Value::of(ty) }, env);
                }
            }
            _ => {}
        }
    }

    /// What conditions say about a name or a place in the input.
    pub(super) fn narrow(&mut self, expr: &Expr, ty: Type, env: &mut Env) {
        let Some(reference) = expr.reference() else { return };
        if let Some(key) = self.key(&reference, env)
            && !ty.is_never()
        {
            let narrowed = env.narrowed.get(&key).map_or(ty.clone(), |known| known.meet(&ty));
            if !narrowed.is_never() {
                env.narrowed.insert(key, narrowed);
            }
        }
    }

    pub(super) fn key(&self, reference: &Reference<'_>, env: &Env) -> Option<String> {
        let plain = reference.steps.iter().all(|step| matches!(step, Part::Name(_)));
        let local = env.vars.contains_key(reference.root);
        match (plain, local, reference.root) {
            (true, true, _) => Some(format!("${}", dotted(reference))),
            (true, false, "input") => Some(dotted(reference)),
            _ => None,
        }
    }

    /// As written.
    pub(super) fn source(&self, expr: &Expr) -> String {
        let parsed = self.module().parsed;
        let (start, end) = (place_of(expr).start, end_of(expr));
        let text = parsed.file.text.get(start as usize..end as usize).unwrap_or_default();
        let mut shown: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if shown.chars().count() > SOURCE_SHOWN_MAX {
            shown = shown.chars().take(SOURCE_SHOWN_MAX).chain(['…']).collect();
        }
        shown
    }
}

pub(super) const SOURCE_SHOWN_MAX: usize = 60;

pub(super) fn texts(ty: &Type) -> Option<&BTreeSet<Arc<str>>> {
    let only_texts = ty.kinds() == ["string"];
    ty.text.as_ref().filter(|_| only_texts).and_then(|texts| texts.0.as_ref())
}

pub(super) fn counted(arguments: usize) -> String {
    if arguments == 1 { "1 argument".into() } else { format!("{arguments} arguments") }
}

/// Where an expression begins; the span of a reference covers its last step only.
pub(in crate::policy) fn place_of(expr: &Expr) -> Span {
    let first = match expr {
        Expr::RefDot { .. } | Expr::RefBrack { .. } => unfolded(expr).0,
        Expr::Call { fcn, .. } => fcn,
        Expr::BoolExpr { lhs, .. }
        | Expr::ArithExpr { lhs, .. }
        | Expr::BinExpr { lhs, .. }
        | Expr::AssignExpr { lhs, .. } => lhs,
        Expr::Membership { value, .. } => value,
        Expr::String { span, .. } | Expr::RawString { span, .. } => return quoted(*span),
        _ => return expr.span(),
    };
    let first = if matches!(first, Expr::Var { .. }) { first.span() } else { place_of(first) };
    Span { end: end_of(expr).max(first.start + 1), ..first }
}

/// With the quotes, which the engine's span leaves out.
pub(super) fn quoted(span: Span) -> Span {
    Span { start: span.start.saturating_sub(1), col: span.col.saturating_sub(1), end: span.end + 1, ..span }
}

pub(in crate::policy) fn end_of(expr: &Expr) -> u32 {
    let own = match expr {
        Expr::String { span, .. } | Expr::RawString { span, .. } => span.end + 1,
        _ => expr.span().end,
    };
    match expr {
        Expr::RefDot { field, .. } => own.max(field.0.end),
        Expr::BoolExpr { rhs, .. }
        | Expr::ArithExpr { rhs, .. }
        | Expr::BinExpr { rhs, .. }
        | Expr::AssignExpr { rhs, .. } => own.max(end_of(rhs)),
        Expr::Membership { collection, .. } => own.max(end_of(collection)),
        _ => own,
    }
}
