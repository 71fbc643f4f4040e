//! What an expression may be.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::check::builtins;
use super::super::check::names::{Place, Root, Scope, declared};
use super::super::check::negation::dotted;
use super::super::problem::Severity;
use super::super::syntax::{ArithOp, BinOp, Expr, Query, Span, Step as Part};
use super::Checker;
use super::calls;
use super::infer::{Env, Value, counted, place_of};
use super::lattice::{Member, Rest, Shape, Step, Type};
use super::reference::rule_of;

impl<'a> Checker<'a> {
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
    pub(super) fn apart_but_needs(&mut self, run: impl FnOnce(&mut Self, &mut Env), env: &mut Env) {
        let mut inner = env.clone();
        let needs = self.apart(|checker| {
            run(checker, &mut inner);
            std::mem::take(&mut checker.state.needs)
        });
        self.state.needs.extend(needs);
        // Names that an index binds keep their values; what the comparison says does not hold outside.
        env.vars = inner.vars;
    }

    pub(super) fn literal(&mut self, fields: &'a [(Span, Expr, Expr)], env: &mut Env) -> Value {
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
    pub(super) fn comprehension(&mut self, query: &'a Query, terms: &[&'a Expr], env: &Env) -> Type {
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

    pub(super) fn operand(&mut self, expr: &Expr, value: &Value, wanted: &Type, name: &str) {
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

    pub(super) fn arithmetic(&mut self, op: ArithOp, lhs: &'a Expr, rhs: &'a Expr, env: &mut Env) -> Value {
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
    pub(super) fn builtin<'e>(&self, function: &'e Expr) -> Option<&'e str> {
        let reference = function.reference()?;
        let local = matches!(self.world.root(self.module(), &Scope::new(), reference.root), Root::Local);
        let name = (reference.steps.is_empty() && local).then_some(reference.root)?;
        builtins::is_known(name).then_some(name)
    }

    pub(super) fn call(
        &mut self,
        span: Span,
        function: &'a Expr,
        params: &'a [Expr],
        env: &mut Env,
    ) -> Value {
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

    pub(super) fn lookup(&mut self, object: &Expr, key: &Expr, base: &Value, default: &Value) -> Type {
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
}
