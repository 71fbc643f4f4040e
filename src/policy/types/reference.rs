//! What a reference leads to, a step at a time: through the input, a document, a rule or a name.

use std::collections::BTreeSet;

use super::super::check::names::{Place, Root, Scope};
use super::super::problem::Severity;
use super::super::syntax::{Expr, Span};
use super::Checker;
use super::infer::{Env, OF_ROUTE, Value, place_of, texts};
use super::lattice::{Step, Type};

/// A step of a reference, with its place.
pub(super) enum At<'n, 'a> {
    Name(&'n str, Span),
    Index(&'a Expr),
}

/// Parts of the request that a caller may leave out.
const MAY_BE_LEFT_OUT: [&str; 3] = ["input.request.body", "input.request.query", "input.request.headers"];

impl<'a> Checker<'a> {
    pub(super) fn reference(&mut self, expr: &'a Expr, env: &mut Env) -> Value {
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
    pub(super) fn names_narrowed(&self, key: &mut String, steps: &[At<'_, '_>], env: &Env) -> Option<Type> {
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

    pub(super) fn narrowed(&mut self, key: String, value: Value, env: &Env) -> Value {
        let Some(narrowed) = env.narrowed.get(&key) else { return value };
        let met = value.ty.meet(narrowed);
        if met.is_never() { value } else { Value { ty: met, ..value } }
    }

    pub(super) fn data(
        &mut self,
        expr: &'a Expr,
        mut path: Vec<String>,
        steps: &[At<'a, 'a>],
        env: &mut Env,
    ) -> Value {
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

    pub(super) fn walk(
        &mut self,
        whole: &Expr,
        mut value: Value,
        steps: &[At<'_, 'a>],
        env: &mut Env,
    ) -> Value {
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

    pub(super) fn member(&mut self, whole: &Expr, value: Value, name: &str, span: Span, env: &Env) -> Value {
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
    pub(super) fn is_elsewhere(&self, path: &str) -> bool {
        let package = &self.routes[self.route].package;
        let step = |ty: Option<Type>, name: &str| match ty?.member(name) {
            Step::Found { ty, .. } => Some(ty),
            Step::Undeclared { .. } | Step::Absent { .. } | Step::NotAContainer => None,
        };
        let has = |input: &Type| path.split('.').skip(1).fold(Some(input.clone()), step).is_some();
        path.starts_with("input.")
            && self.routes.iter().any(|route| route.package == *package && has(&route.input))
    }

    pub(super) fn index(&mut self, value: Value, index: &'a Expr, env: &mut Env) -> Value {
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
}

pub(super) const FACTS: &str = "input.context.facts.";
pub(super) const BUDGETS: &str = "input.context.budgets.";

/// A package may serve surfaces with facts or budgets and surfaces that declare none at all.
pub(super) fn is_optional_declaration(value: &Value, path: Option<&str>) -> bool {
    let declared = value.ty.object.as_ref().is_some_and(|shape| !shape.members.is_empty());
    !declared && path.is_some_and(|path| path.starts_with(FACTS) || path.starts_with(BUDGETS))
}

pub(super) fn rule_of(path: Option<&str>) -> &'static str {
    match path.map(|path| path.split('.').next().unwrap_or_default()) {
        Some("input") => "input_unknown",
        Some("data") => "data_unknown",
        Some(_) | None => "member_unknown",
    }
}

/// The base of a reference and its steps, first step first.
pub(super) fn unfolded(expr: &Expr) -> (&Expr, Vec<At<'_, '_>>) {
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
