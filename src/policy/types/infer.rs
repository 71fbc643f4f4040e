//! One body on one route: what its expressions may be, and what of it can never hold there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::super::check::builtins;
use super::super::check::names::{Named, Place, Root, Scope, declared};
use super::super::check::negation::dotted;
use super::super::problem::{Problem, Severity};
use super::super::syntax::{
    ArithOp, AssignOp, BinOp, BoolOp, Expr, Literal, Query, Reference, Span, Statement, Step as Part,
};
use super::calls;
use super::lattice::{Member, Rest, Shape, Step, Type, meant};
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

    fn any() -> Self {
        Self::of(Type::any())
    }
}

/// Names that have a value, and what conditions say about them.
#[derive(Clone, Default)]
pub(super) struct Env {
    pub vars: BTreeMap<String, Value>,
    narrowed: BTreeMap<String, Type>,
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

/// A step of a reference, with its place.
enum At<'n, 'a> {
    Name(&'n str, Span),
    Index(&'a Expr),
}

/// Parts of the request that a caller may leave out.
const MAY_BE_LEFT_OUT: [&str; 3] = ["input.request.body", "input.request.query", "input.request.headers"];

/// Members that say which route it is.
const OF_ROUTE: [&str; 3] = ["input.action", "input.surface", "input.request.method"];

impl<'a> Checker<'a> {
    fn module(&self) -> &'a Named<'a> {
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
        let parsed = self.module().parsed;
        let (column, end_column) = parsed.columns(span);
        Problem {
            file: parsed.file.name.clone(),
            line: span.line,
            column,
            end_column,
            severity,
            rule,
            message,
            help,
        }
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

    fn error(&mut self, span: Span, rule: &'static str, message: String, help: Option<String>) {
        self.report(span, Severity::Error, rule, message, help);
        self.state.loud = true;
    }

    /// `on POST /v1/charges (charge.create)`, for messages.
    fn on_route(&self) -> String {
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
    fn is_guard(&self, statement: &Statement) -> bool {
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

    fn statement(&mut self, statement: &'a Statement, env: &mut Env) {
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

    fn iterated(&mut self, collection: &Expr, value: &Value) -> (Type, Type) {
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
    fn apart<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let (loud, quiet, guard) = (self.state.loud, self.state.quiet, self.state.guard.take());
        let (needs, tests) = (self.state.needs.clone(), self.state.tests.clone());
        self.state.quiet = false;
        let result = run(self);
        (self.state.loud, self.state.quiet, self.state.guard) = (loud, quiet, guard);
        (self.state.needs, self.state.tests) = (needs, tests);
        result
    }

    fn negation(&mut self, expr: &'a Expr, env: &mut Env) {
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
    fn tests(&mut self, span: Span, needs: &BTreeSet<String>) {
        for key in needs {
            let test = Test { module: self.at, span };
            self.state.tests.entry(key.clone()).or_insert(test);
        }
    }

    fn condition(&mut self, expr: &'a Expr, env: &mut Env) {
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

    fn holds(&mut self, expr: &'a Expr, env: &mut Env) {
        let value = self.expr(expr, env);
        self.state.quiet |= value.ty.is_false();
    }

    /// Whether a pattern holds a name without a value.
    fn binds(&self, pattern: &Expr, env: &Env) -> bool {
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
    fn narrow(&mut self, expr: &Expr, ty: Type, env: &mut Env) {
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

    fn key(&self, reference: &Reference<'_>, env: &Env) -> Option<String> {
        let plain = reference.steps.iter().all(|step| matches!(step, Part::Name(_)));
        let local = env.vars.contains_key(reference.root);
        match (plain, local, reference.root) {
            (true, true, _) => Some(format!("${}", dotted(reference))),
            (true, false, "input") => Some(dotted(reference)),
            _ => None,
        }
    }

    fn compare(&mut self, span: Span, op: BoolOp, lhs: &'a Expr, rhs: &'a Expr, env: &mut Env) {
        let (left, right) = (self.expr(lhs, env), self.expr(rhs, env));
        if left.ty.is_never() || right.ty.is_never() {
            return;
        }
        let of_route = left.of_route || right.of_route;
        let span =
            Span { start: place_of(lhs).start, line: place_of(lhs).line, col: place_of(lhs).col, ..span };
        let span = Span { end: end_of(rhs).max(span.start + 1), ..span };
        if op != BoolOp::Eq {
            let from: BTreeSet<String> = left.from.union(&right.from).cloned().collect();
            self.tests(span, &from);
        }
        let met = left.ty.meet(&right.ty);
        match op {
            BoolOp::Eq if met.is_never() => self.mismatch(span, (lhs, &left), (rhs, &right)),
            BoolOp::Eq => {
                self.narrow(lhs, met.clone(), env);
                self.narrow(rhs, met, env);
            }
            BoolOp::Ne if of_route => self.state.quiet |= left.ty == right.ty,
            BoolOp::Ne | BoolOp::Lt | BoolOp::Le | BoolOp::Gt | BoolOp::Ge => {
                if left.ty.is_of_other_kind(&right.ty) {
                    let always = if op == BoolOp::Ne {
                        "they always differ"
                    } else {
                        "which is greater never depends on what they are"
                    };
                    let message = format!(
                        "`{}` is {} and `{}` is {}: {always}{}",
                        self.source(lhs),
                        left.ty.shown(),
                        self.source(rhs),
                        right.ty.shown(),
                        self.on_route()
                    );
                    let help = self.conversion(&left, &right, lhs, rhs);
                    self.report(span, Severity::Error, "comparison_impossible", message, help);
                }
            }
        }
    }

    fn conversion(&self, left: &Value, right: &Value, lhs: &Expr, rhs: &Expr) -> Option<String> {
        let text = |value: &Value| value.ty.kinds() == ["string"];
        let number = |value: &Value| value.ty.kinds() == ["number"];
        let (which, _) = [(lhs, text(left) && number(right)), (rhs, number(left) && text(right))]
            .into_iter()
            .find(|(_, is)| *is)?;
        if which.as_string().is_some() {
            return Some("write the number without quotes".into());
        }
        Some(format!("check its digits with `regex.match`, then compare `to_number({})`", self.source(which)))
    }

    /// Two sides of an equality, or an element and a collection, that never agree.
    fn mismatch(&mut self, span: Span, (lhs, left): (&Expr, &Value), (rhs, right): (&Expr, &Value)) {
        let (fixed, asked) = if left.of_route { (left, right) } else { (right, left) };
        let fixed_source = self.source(if left.of_route { lhs } else { rhs });
        if !fixed.of_route {
            let message = format!(
                "`{}` is {} and `{}` is {}: they are never equal{}",
                self.source(lhs),
                left.ty.shown(),
                self.source(rhs),
                right.ty.shown(),
                self.on_route()
            );
            let mut help = self.conversion(left, right, lhs, rhs);
            if help.is_none()
                && let (Some(known), Some(only)) = (texts(&left.ty), texts(&right.ty))
            {
                let near = only
                    .iter()
                    .find_map(|text| meant(text, known))
                    .or_else(|| known.iter().find_map(|text| meant(text, only)));
                help = near.map(|near| format!("did you mean {near:?}?"));
            }
            return self.error(span, "comparison_impossible", message, help);
        }
        let known = self.values_of_routes(&fixed_source);
        let message = format!("no route has {fixed_source} {}, so this never holds", asked.ty.shown());
        let near = texts(&asked.ty).and_then(|asked| asked.iter().find_map(|text| meant(text, &known)));
        let known_texts = known.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        let help = match near {
            Some(near) => Some(format!("did you mean {near:?}?")),
            None if known.is_empty() => None,
            None => Some(format!("there are {known_texts}")),
        };
        if self.state.guard.is_none() {
            let problem = self.problem(span, Severity::Error, "rule_unreachable", message, help);
            self.state.guard = Some(problem);
        }
    }

    /// `input.action` on every route that this package judges.
    fn values_of_routes(&self, source: &str) -> BTreeSet<Arc<str>> {
        let package = &self.routes[self.route].package;
        let own = self.routes.iter().filter(|route| route.package == *package);
        let step = |ty: Type, name: &str| match ty.member(name) {
            Step::Found { ty, .. } => ty,
            Step::Undeclared { .. } | Step::Absent { .. } | Step::NotAContainer => Type::never(),
        };
        let value = |input: &Type| source.split('.').skip(1).fold(input.clone(), step);
        own.filter_map(|route| texts(&value(&route.input)).cloned()).flatten().collect()
    }

    fn membership(&mut self, span: Span, value: &'a Expr, collection: &'a Expr, env: &mut Env) {
        let element = self.expr(value, env);
        let whole = self.expr(collection, env);
        let (_, items) = self.iterated(collection, &whole);
        if element.ty.is_never() || whole.ty.is_never() {
            return;
        }
        if element.of_route {
            self.unknown_actions(value, collection);
        }
        let met = element.ty.meet(&items);
        if met.is_never() {
            let start = place_of(value);
            let span = Span { start: start.start, line: start.line, col: start.col, end: span.end };
            let of_items = Value { ty: items, ..whole };
            return self.mismatch(span, (value, &element), (collection, &of_items));
        }
        self.narrow(value, met, env);
    }

    /// Constants beside others that do exist: the rule is reachable, and still misses one.
    fn unknown_actions(&mut self, value: &Expr, collection: &Expr) {
        let (Expr::Set { items, .. } | Expr::Array { items, .. }) = collection else { return };
        let source = self.source(value);
        let known = self.values_of_routes(&source);
        for item in items {
            let Some(text) = item.as_string().filter(|text| !known.contains(*text)) else { continue };
            let near = meant(text, &known);
            let severity = if near.is_some() { Severity::Error } else { Severity::Warning };
            let help = near.map(|near| format!("did you mean {near:?}?"));
            let message = format!("no route has {source} {text:?}");
            let problem = self.problem(place_of(item), severity, "action_unknown", message, help);
            self.apart_from_routes.insert(problem);
        }
    }

    pub(super) fn expr(&mut self, expr: &'a Expr, env: &mut Env) -> Value {
        if matches!(expr, Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. }) {
            let value = self.reference(expr, env);
            self.state.needs.extend(value.from.iter().cloned());
            return value;
        }
        let from_of =
            |values: &[&Value]| values.iter().flat_map(|v| v.from.iter().cloned()).collect::<BTreeSet<_>>();
        match expr {
            Expr::String { .. } | Expr::RawString { .. } => {
                Value::of(expr.as_string().map_or(Type::text(), |text| Type::texts([text])))
            }
            Expr::Number { value, .. } => {
                Value::of(value.as_i64().map_or(Type::number(Some(false)), Type::integer))
            }
            Expr::Bool { value, .. } => Value::of(Type::truth(*value)),
            Expr::Null { .. } => Value::of(Type::null()),
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                let values: Vec<Value> = items.iter().map(|item| self.expr(item, env)).collect();
                let from = from_of(&values.iter().collect::<Vec<_>>());
                let items = Type::joined(values.into_iter().map(|value| value.ty));
                let is_array = matches!(expr, Expr::Array { .. });
                Value { from, ..Value::of(if is_array { Type::array(items) } else { Type::set(items) }) }
            }
            Expr::Object { fields, .. } => self.literal(fields, env),
            Expr::ArrayCompr { term, query, .. } => {
                let items = self.comprehension(query, &[term], env);
                Value::of(Type::array(items))
            }
            Expr::SetCompr { term, query, .. } => {
                let items = self.comprehension(query, &[term], env);
                Value::of(Type::set(items))
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                let members = self.comprehension(query, &[key, value], env);
                let rest = Rest::Open(Rc::new(members));
                Value::of(Type::object(Shape { members: BTreeMap::new(), rest }))
            }
            Expr::Call { span, fcn, params } => self.call(*span, fcn, params, env),
            Expr::UnaryExpr { expr: inner, .. } => {
                let value = self.expr(inner, env);
                let ty = expr
                    .as_integer()
                    .map_or(Type::number(value.ty.number.and_then(|n| n.whole)), Type::integer);
                Value { from: value.from, ..Value::of(ty) }
            }
            Expr::BinExpr { op, lhs, rhs, .. } => {
                let (left, right) = (self.expr(lhs, env), self.expr(rhs, env));
                for (side, value) in [(lhs, &left), (rhs, &right)] {
                    self.operand(side, value, &Type::set(Type::any()), "a set");
                }
                let from = from_of(&[&left, &right]);
                let set = |ty: &Type| ty.set.as_ref().map_or(Type::any(), |items| (**items).clone());
                let items = match op {
                    BinOp::Intersection => set(&left.ty),
                    BinOp::Union => set(&left.ty).join(set(&right.ty)),
                };
                Value { from, ..Value::of(Type::set(items)) }
            }
            Expr::ArithExpr { op, lhs, rhs, .. } => self.arithmetic(*op, lhs, rhs, env),
            Expr::BoolExpr { op, span, lhs, rhs } => {
                self.apart_but_needs(|checker, env| checker.compare(*span, *op, lhs, rhs, env), env);
                Value::of(Type::boolean())
            }
            Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(rhs, env);
                self.expr(lhs, env);
                Value::of(Type::boolean())
            }
            Expr::Membership { span, key, value, collection } => {
                if let Some(key) = key {
                    self.expr(key, env);
                }
                self.apart_but_needs(|checker, env| checker.membership(*span, value, collection, env), env);
                Value::of(Type::boolean())
            }
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => Value::any(),
        }
    }

    /// A comparison whose value is used: it may be false without ending the body, but not be undefined.
    fn apart_but_needs(&mut self, run: impl FnOnce(&mut Self, &mut Env), env: &mut Env) {
        let mut inner = env.clone();
        let needs = self.apart(|checker| {
            run(checker, &mut inner);
            std::mem::take(&mut checker.state.needs)
        });
        self.state.needs.extend(needs);
        // Names that an index binds keep their values; what the comparison says does not hold outside.
        env.vars = inner.vars;
    }

    fn literal(&mut self, fields: &'a [(Span, Expr, Expr)], env: &mut Env) -> Value {
        let mut shape = Shape { members: BTreeMap::new(), rest: Rest::Closed };
        let mut from = BTreeSet::new();
        for (_, key, value) in fields {
            let (key_value, value) = (self.expr(key, env), self.expr(value, env));
            from.extend(key_value.from.into_iter().chain(value.from));
            match key.as_string() {
                Some(name) => {
                    let member = Member { ty: Rc::new(value.ty), required: true };
                    shape.members.insert(name.into(), member);
                }
                None => shape.rest = Rest::Open(Rc::new(Type::any())),
            }
        }
        Value { from, ..Value::of(Type::object(shape)) }
    }

    /// The last term's type. What holds for no element is no end of the body.
    fn comprehension(&mut self, query: &'a Query, terms: &[&'a Expr], env: &Env) -> Type {
        let mut inner = env.clone();
        for name in declared(self.module().parsed, &query.stmts) {
            inner.vars.remove(&name);
            inner
                .narrowed
                .retain(|key, _| key != &format!("${name}") && !key.starts_with(&format!("${name}.")));
        }
        let ty = self.apart(|checker| {
            checker.statements(&query.stmts, &mut inner);
            if checker.state.is_dead_quietly() {
                return Type::any();
            }
            terms.iter().map(|term| checker.expr(term, &mut inner).ty).last().unwrap_or(Type::any())
        });
        if ty.is_never() { Type::any() } else { ty }
    }

    fn operand(&mut self, expr: &Expr, value: &Value, wanted: &Type, name: &str) {
        if !value.ty.is_never() && !value.ty.meets(wanted) {
            let message = format!(
                "`{}` is {}, and {name} is needed{}",
                self.source(expr),
                value.ty.shown(),
                self.on_route()
            );
            self.error(place_of(expr), "argument_type", message, None);
        }
    }

    fn arithmetic(&mut self, op: ArithOp, lhs: &'a Expr, rhs: &'a Expr, env: &mut Env) -> Value {
        let (left, right) = (self.expr(lhs, env), self.expr(rhs, env));
        let from: BTreeSet<String> = left.from.union(&right.from).cloned().collect();
        if op == ArithOp::Sub && (left.ty.set.is_some() || right.ty.set.is_some()) {
            return Value { from, ..Value::of(left.ty) };
        }
        for (side, value) in [(lhs, &left), (rhs, &right)] {
            self.operand(side, value, &Type::number(None), "a number");
            let fraction = !value.ty.any && value.ty.number.as_ref().is_some_and(|n| n.whole == Some(false));
            if fraction {
                let message = format!(
                    "`{}` may have a fraction, and arithmetic is in doubles: 0.1 + 0.2 is not 0.3",
                    self.source(side)
                );
                let help = "compute with integers, such as minor units or basis points".to_string();
                self.report(place_of(side), Severity::Warning, "arithmetic_inexact", message, Some(help));
            }
        }
        let is_whole = |ty: &Type| ty.number.as_ref().is_some_and(|n| n.whole == Some(true));
        let whole = (op != ArithOp::Div && is_whole(&left.ty) && is_whole(&right.ty)).then_some(true);
        Value { from, ..Value::of(Type::number(whole)) }
    }

    /// The name of a call that is no function of the bundle.
    fn builtin<'e>(&self, function: &'e Expr) -> Option<&'e str> {
        let reference = function.reference()?;
        let local = matches!(self.world.root(self.module(), &Scope::new(), reference.root), Root::Local);
        let name = (reference.steps.is_empty() && local).then_some(reference.root)?;
        builtins::is_known(name).then_some(name)
    }

    fn call(&mut self, span: Span, function: &'a Expr, params: &'a [Expr], env: &mut Env) -> Value {
        let arguments: Vec<Value> = params.iter().map(|param| self.expr(param, env)).collect();
        let from: BTreeSet<String> = arguments.iter().flat_map(|a| a.from.iter().cloned()).collect();
        let Some(reference) = function.reference() else { return Value::any() };
        let name = dotted(&reference);
        if let Root::Data(path) = self.world.root(self.module(), &Scope::new(), reference.root) {
            let steps = reference.steps.iter().map(|step| match step {
                Part::Name(name) => Some((*name).to_string()),
                Part::Index(_) => None,
            });
            let path: Option<Vec<String>> = path.into_iter().map(Some).chain(steps).collect();
            let Some(Place::Rule { node, .. }) = path.map(|path| self.world.place(&path)) else {
                return Value::any();
            };
            let types = arguments.into_iter().map(|argument| argument.ty).collect();
            let value = self.function(&node, span, types, (&name, function));
            return Value { from: from.into_iter().chain(value.from).collect(), ..Value::of(value.ty) };
        }
        let Some((takes, mut gives)) = calls::signature(&name) else { return Value::any() };
        if takes.len() != params.len() {
            let message = format!("`{name}` takes {}, not {}", counted(takes.len()), params.len());
            self.error(place_of(function), "arity", message, None);
            return Value::of(gives);
        }
        for ((param, argument), wanted) in params.iter().zip(&arguments).zip(&takes) {
            if !argument.ty.is_never() && !argument.ty.meets(wanted) {
                let message = format!(
                    "`{}` is {}, and `{name}` takes {} there: an evaluation error{}",
                    self.source(param),
                    argument.ty.shown(),
                    wanted.shown(),
                    self.on_route()
                );
                self.error(place_of(param), "argument_type", message, None);
            }
        }
        if let Some(note) = calls::pattern_note(&name, params) {
            self.report(place_of(function), Severity::Warning, "pattern_unicode", note.into(), None);
        }
        if name == "object.get"
            && let ([object, key, _], [base, _, default]) = (params, &arguments[..])
        {
            gives = self.lookup(object, key, base, default);
            // There is always a value: the absence was thought of. What stands above it is still needed.
            return Value { from: base.from.clone(), ..Value::of(gives) };
        }
        if let ("max" | "min", [argument]) = (name.as_str(), &arguments[..]) {
            gives = argument.ty.iterated().map_or(Type::any(), |(_, values)| values);
        }
        Value { from, ..Value::of(gives) }
    }

    fn lookup(&mut self, object: &Expr, key: &Expr, base: &Value, default: &Value) -> Type {
        let Some(name) = key.as_string() else { return Type::any() };
        if let Some(path) = &base.path {
            self.covered.insert((self.route, format!("{path}.{name}")));
        }
        match base.ty.member(name) {
            Step::Found { ty, certain: true } => ty,
            Step::Found { ty, certain: false } => ty.join(default.ty.clone()),
            Step::Undeclared { meant: None } => Type::any(),
            Step::Undeclared { meant } | Step::Absent { meant } => {
                let message = format!(
                    "`{}` never has a member `{name}`{}: this is always the default",
                    self.source(object),
                    self.on_route()
                );
                let help = meant.map(|near| format!("did you mean `{near}`?"));
                let rule = rule_of(base.path.as_deref());
                self.report(place_of(key), Severity::Error, rule, message, help);
                default.ty.clone()
            }
            Step::NotAContainer => Type::any(),
        }
    }

    fn reference(&mut self, expr: &'a Expr, env: &mut Env) -> Value {
        let (base, steps) = unfolded(expr);
        let Expr::Var { value: root, .. } = base else {
            let value = self.expr(base, env);
            return self.walk(expr, value, &steps, env);
        };
        if let Some(value) = env.vars.get(root).cloned() {
            let value = self.narrowed(format!("${root}"), value, env);
            let mut key = format!("${root}");
            if let Some(narrowed) = self.names_narrowed(&mut key, &steps, env) {
                return Value { ty: narrowed, ..self.walk(expr, value, &steps, env) };
            }
            return self.walk(expr, value, &steps, env);
        }
        match self.world.root(self.module(), &Scope::new(), root) {
            Root::Local => {
                let value = Value::any();
                self.walk(expr, value, &steps, env)
            }
            Root::Input(path) => {
                let input =
                    Value { path: Some("input".into()), ..Value::of(self.routes[self.route].input.clone()) };
                let span = base.span();
                let all: Vec<At<'_, 'a>> = path.iter().map(|name| At::Name(name, span)).collect();
                let value = self.walk(expr, input, &all, env);
                self.walk(expr, value, &steps, env)
            }
            Root::Data(path) => self.data(expr, path, &steps, env),
        }
    }

    /// What conditions say about a member of a local name.
    fn names_narrowed(&self, key: &mut String, steps: &[At<'_, '_>], env: &Env) -> Option<Type> {
        if steps.is_empty() {
            return None;
        }
        for step in steps {
            match step {
                At::Name(name, _) => {
                    key.push('.');
                    key.push_str(name);
                }
                At::Index(_) => return None,
            }
        }
        env.narrowed.get(key).cloned()
    }

    fn narrowed(&mut self, key: String, value: Value, env: &Env) -> Value {
        let Some(narrowed) = env.narrowed.get(&key) else { return value };
        let met = value.ty.meet(narrowed);
        if met.is_never() { value } else { Value { ty: met, ..value } }
    }

    fn data(&mut self, expr: &'a Expr, mut path: Vec<String>, steps: &[At<'a, 'a>], env: &mut Env) -> Value {
        let given = path.len();
        path.extend(steps.iter().map_while(|step| match step {
            At::Name(name, _) => Some((*name).to_string()),
            At::Index(_) => None,
        }));
        match self.world.place(&path) {
            Place::Rule { node, .. } => {
                let depth = node.split('.').count();
                let value = self.rule(&node);
                let rest = steps.get(depth.saturating_sub(given)..).unwrap_or_default();
                self.walk(expr, value, rest, env)
            }
            Place::Document => {
                let documents = Value { path: Some("data".into()), ..Value::of(self.documents.clone()) };
                let span = unfolded(expr).0.span();
                let given: Vec<String> = path[..given].to_vec();
                let first: Vec<At<'_, 'a>> = given.iter().map(|name| At::Name(name, span)).collect();
                let value = self.walk(expr, documents, &first, env);
                self.walk(expr, value, steps, env)
            }
            // `check` has said so.
            Place::Packages | Place::Nowhere => Value::any(),
        }
    }

    fn walk(&mut self, whole: &Expr, mut value: Value, steps: &[At<'_, 'a>], env: &mut Env) -> Value {
        for step in steps {
            if value.ty.is_never() {
                return value;
            }
            value = match step {
                At::Name(name, span) => self.member(whole, value, name, *span, env),
                At::Index(index) => self.index(value, index, env),
            };
        }
        value
    }

    fn member(&mut self, whole: &Expr, value: Value, name: &str, span: Span, env: &Env) -> Value {
        let path = value.path.as_ref().map(|path| format!("{path}.{name}"));
        let optional = path.as_deref().filter(|path| {
            MAY_BE_LEFT_OUT.iter().any(|part| {
                path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        });
        let mut from = value.from.clone();
        let from_with = |from: &mut BTreeSet<String>| from.extend(optional.map(str::to_string));
        let rule = rule_of(path.as_deref());
        let shown = self.source(whole);
        let (ty, help, message) = match value.ty.member(name) {
            Step::Found { ty, certain } => {
                if !certain {
                    from_with(&mut from);
                }
                let of_route =
                    path.as_deref().is_some_and(|path| OF_ROUTE.contains(&path)) && texts(&ty).is_some();
                let value = Value { ty, from, path: path.clone(), of_route };
                return match path {
                    Some(path) => self.narrowed(path, value, env),
                    None => value,
                };
            }
            Step::Undeclared { meant } => {
                from_with(&mut from);
                let declared = meant.is_some();
                let help = meant.map(|near| format!("did you mean `{near}`?"));
                let message =
                    format!("the schema{} declares no member `{name}` (in `{shown}`)", self.on_route());
                if !declared {
                    let help = "declare it in the schema".to_string();
                    self.report(span, Severity::Warning, "input_undeclared", message, Some(help));
                    return Value { ty: Type::any(), from, path, of_route: false };
                }
                (Type::any(), help, message)
            }
            Step::Absent { .. } if is_optional_declaration(&value, path.as_deref()) => {
                let what =
                    if path.as_deref().is_some_and(|p| p.starts_with(FACTS)) { "fact" } else { "budget" };
                let message =
                    format!("no {what} is declared{}, so what needs `{shown}` never holds", self.on_route());
                self.report(span, Severity::Warning, "input_undeclared", message, None);
                self.state.loud = true;
                return Value { ty: Type::any(), from, path: None, of_route: false };
            }
            Step::Absent { meant } => {
                let help = meant.map(|near| format!("did you mean `{near}`?"));
                (
                    Type::any(),
                    help,
                    format!("there is no member `{name}` here{} (in `{shown}`)", self.on_route()),
                )
            }
            Step::NotAContainer => {
                let message = format!(
                    "`{name}` is asked of {}, which has no members{} (in `{shown}`)",
                    value.ty.shown(),
                    self.on_route()
                );
                (Type::any(), None, message)
            }
        };
        // A list in a query is no identifier, and no name that a schema would list.
        if name.ends_with("[]") {
            return Value::of(ty);
        }
        let is_weak = path.as_deref().is_some_and(|path| self.is_elsewhere(path));
        self.error(span, rule, message, help);
        if let Some(noted) = self.state.problems.last_mut().filter(|noted| noted.start == span.start) {
            noted.is_weak = is_weak;
        }
        Value { ty, from, path: None, of_route: false }
    }

    /// Whether another route of the package has something at this place of its input.
    fn is_elsewhere(&self, path: &str) -> bool {
        let package = &self.routes[self.route].package;
        let step = |ty: Option<Type>, name: &str| match ty?.member(name) {
            Step::Found { ty, .. } => Some(ty),
            Step::Undeclared { .. } | Step::Absent { .. } | Step::NotAContainer => None,
        };
        let has = |input: &Type| path.split('.').skip(1).fold(Some(input.clone()), step).is_some();
        path.starts_with("input.")
            && self.routes.iter().any(|route| route.package == *package && has(&route.input))
    }

    fn index(&mut self, value: Value, index: &'a Expr, env: &mut Env) -> Value {
        let free = match index {
            Expr::Var { value: name, .. } if name != "_" && self.binds(index, env) => Some(name),
            _ => None,
        };
        if let Some(name) = free {
            let keys = value.ty.iterated().map_or(Type::any(), |(keys, _)| keys);
            env.vars.insert(name.clone(), Value::of(keys));
        }
        let at = self.expr(index, env);
        let mut from = value.from;
        from.extend(at.from);
        if at.ty.is_never() {
            return Value { from, ..Value::any() };
        }
        let key = if matches!(index, Expr::Var { value, .. } if value == "_") { Type::any() } else { at.ty };
        match value.ty.at(&key) {
            Some(ty) => Value { from, ..Value::of(ty) },
            None => {
                let message = format!(
                    "`{}` is {}, and nothing in {} has that index{}",
                    self.source(index),
                    key.shown(),
                    value.ty.shown(),
                    self.on_route()
                );
                self.error(index.span(), rule_of(value.path.as_deref()), message, None);
                Value { from, ..Value::any() }
            }
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

const SOURCE_SHOWN_MAX: usize = 60;

const FACTS: &str = "input.context.facts.";
const BUDGETS: &str = "input.context.budgets.";

/// A package may serve surfaces with facts or budgets and surfaces that declare none at all.
fn is_optional_declaration(value: &Value, path: Option<&str>) -> bool {
    let declared = value.ty.object.as_ref().is_some_and(|shape| !shape.members.is_empty());
    !declared && path.is_some_and(|path| path.starts_with(FACTS) || path.starts_with(BUDGETS))
}

fn rule_of(path: Option<&str>) -> &'static str {
    match path.map(|path| path.split('.').next().unwrap_or_default()) {
        Some("input") => "input_unknown",
        Some("data") => "data_unknown",
        Some(_) | None => "member_unknown",
    }
}

fn texts(ty: &Type) -> Option<&BTreeSet<Arc<str>>> {
    let only_texts = ty.kinds() == ["string"];
    ty.text.as_ref().filter(|_| only_texts).and_then(|texts| texts.0.as_ref())
}

pub(super) fn counted(arguments: usize) -> String {
    if arguments == 1 { "1 argument".into() } else { format!("{arguments} arguments") }
}

/// The base of a reference and its steps, first step first.
fn unfolded(expr: &Expr) -> (&Expr, Vec<At<'_, '_>>) {
    let (mut at, mut steps) = (expr, Vec::new());
    loop {
        match at {
            Expr::RefDot { refr, field, .. } => {
                steps.push(At::Name(field.1.as_str().unwrap_or_default(), field.0));
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                steps.push(match index.as_string() {
                    Some(name) => At::Name(name, place_of(index)),
                    None => At::Index(index),
                });
                at = refr;
            }
            _ => {
                steps.reverse();
                return (at, steps);
            }
        }
    }
}

/// Where an expression begins; the span of a reference covers its last step only.
pub(super) fn place_of(expr: &Expr) -> Span {
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
fn quoted(span: Span) -> Span {
    Span { start: span.start.saturating_sub(1), col: span.col.saturating_sub(1), end: span.end + 1, ..span }
}

fn end_of(expr: &Expr) -> u32 {
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
