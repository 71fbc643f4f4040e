//! Two values that are compared, and whether they can ever be equal.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::problem::Severity;
use super::super::syntax::{BoolOp, Expr, Span};
use super::Checker;
use super::infer::{Env, Value, end_of, place_of, texts};
use super::lattice::{Step, Type, meant};

impl<'a> Checker<'a> {
    pub(super) fn compare(&mut self, span: Span, op: BoolOp, lhs: &'a Expr, rhs: &'a Expr, env: &mut Env) {
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

    pub(super) fn conversion(&self, left: &Value, right: &Value, lhs: &Expr, rhs: &Expr) -> Option<String> {
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
    pub(super) fn mismatch(
        &mut self,
        span: Span,
        (lhs, left): (&Expr, &Value),
        (rhs, right): (&Expr, &Value),
    ) {
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
    pub(super) fn values_of_routes(&self, source: &str) -> BTreeSet<Arc<str>> {
        let package = &self.routes[self.route].package;
        let own = self.routes.iter().filter(|route| route.package == *package);
        let step = |ty: Type, name: &str| match ty.member(name) {
            Step::Found { ty, .. } => ty,
            Step::Undeclared { .. } | Step::Absent { .. } | Step::NotAContainer => Type::never(),
        };
        let value = |input: &Type| source.split('.').skip(1).fold(input.clone(), step);
        own.filter_map(|route| texts(&value(&route.input)).cloned()).flatten().collect()
    }

    pub(super) fn membership(&mut self, span: Span, value: &'a Expr, collection: &'a Expr, env: &mut Env) {
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
    pub(super) fn unknown_actions(&mut self, value: &Expr, collection: &Expr) {
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
}
