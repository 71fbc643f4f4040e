//! The type check of a bundle's rules against what can be in the input and in the documents.
//!
//! In: the syntax trees, the documents, and what the config says about routes. Every set of a package is read
//! once for each route its surface has, and what it needs is read with it, so that a finding is about a request
//! that can really come. A body that cannot hold on any route it is about is an error: a `deny` in it would never
//! fire, and nothing else would tell.

mod calls;
mod compare;
mod expr;
mod infer;
mod input;
mod lattice;
mod lint;
mod reference;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::bundle::ContractSet;
use super::check::names::World;
use super::check::package_of;
use super::problem::{Problem, Severity};
use super::source::DataFile;
use super::surroundings::Surroundings;
use super::syntax::{Expr, Parsed, Rule, RuleBody, RuleHead, Span};
use crate::limits;
use crate::model::Json;
use infer::{Env, State, Value};
pub(super) use infer::{end_of, place_of};
use input::Route;
use lattice::{Step, Type};

/// Everything an author should know, sorted by place. Runs on the loading thread's large stack.
pub(super) fn problems(
    modules: &[Parsed],
    files: &[DataFile],
    data: &Json,
    surroundings: Option<&Surroundings>,
) -> BTreeSet<Problem> {
    let world = World::new(modules, files, data);
    let mut checker = Checker::new(&world, surroundings);
    checker.sets();
    checker.unvisited();
    let mut found = checker.findings();
    found.extend(lint::problems(&world));
    found
}

/// Where a condition stands that a missing member keeps from being true.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    module: usize,
    span: Span,
}

/// One definition of a rule.
#[derive(Clone, Copy)]
struct Definition<'a> {
    module: usize,
    rule: &'a Rule,
}

/// What a rule is on one route.
#[derive(Clone)]
struct Outcome {
    ty: Type,
    needs: BTreeSet<String>,
    tests: BTreeMap<String, Test>,
    /// No body holds.
    is_dead: bool,
}

/// What all readings of one body together say.
#[derive(Default)]
struct Readings {
    total: usize,
    /// On routes the body can be about.
    about: Together,
    /// On routes that lack what other routes of the package have.
    beside: Together,
    /// Some route has a value of another kind than the body is for.
    is_of_other_kind: bool,
    /// Conditions on the route that did not hold.
    guards: Vec<Problem>,
}

#[derive(Default)]
struct Together {
    readings: usize,
    lives: bool,
    /// By place and rule: what every reading found.
    common: BTreeMap<(u32, &'static str), Problem>,
    errors: BTreeSet<Problem>,
    warnings: BTreeSet<Problem>,
}

/// A body of `deny`, `escalate` or `quarantine`, or of `permit`, that can hold on a route.
struct Verdict {
    route: usize,
    package: Vec<String>,
    set: ContractSet,
    needs: BTreeSet<String>,
    tests: BTreeMap<String, Test>,
}

pub(super) struct Checker<'a> {
    world: &'a World<'a>,
    documents: Type,
    routes: Vec<Route>,
    definitions: BTreeMap<String, Vec<Definition<'a>>>,
    /// The route that is read.
    route: usize,
    /// The module that is read.
    at: usize,
    state: State,
    known: BTreeMap<(String, usize), Outcome>,
    readings: BTreeMap<(usize, u32), Readings>,
    verdicts: Vec<Verdict>,
    /// Members of the request whose absence some rule sees, by route.
    covered: BTreeSet<(usize, String)>,
    /// Findings that do not depend on the route.
    apart_from_routes: BTreeSet<Problem>,
    depth: usize,
    bodies_left: usize,
}

impl<'a> Checker<'a> {
    fn new(world: &'a World<'a>, surroundings: Option<&Surroundings>) -> Self {
        let mut definitions: BTreeMap<String, Vec<Definition<'a>>> = BTreeMap::new();
        for (module, named) in world.modules.iter().enumerate() {
            for rule in &named.parsed.module.rules {
                let node = format!("{}.{}", named.package.join("."), rule.name());
                definitions.entry(node).or_default().push(Definition { module, rule });
            }
        }
        Self {
            world,
            documents: Type::of_document(world.data),
            routes: input::routes(surroundings),
            definitions,
            route: 0,
            at: 0,
            state: State::default(),
            known: BTreeMap::new(),
            readings: BTreeMap::new(),
            verdicts: Vec::new(),
            covered: BTreeSet::new(),
            apart_from_routes: BTreeSet::new(),
            depth: 0,
            bodies_left: limits::POLICY_TYPE_BODIES_MAX,
        }
    }

    /// Reads the four sets of every package, on each route its surfaces have.
    fn sets(&mut self) {
        let packages: BTreeSet<String> =
            self.world.modules.iter().map(|named| named.package.join(".")).collect();
        for package in packages {
            for route in self.routes_of(&package) {
                self.route = route;
                for set in ContractSet::ALL {
                    self.rule(&format!("{package}.{}", set.name()));
                }
            }
        }
    }

    /// Those of the surfaces that name the package; for any other, the one of which nothing is known.
    fn routes_of(&self, package: &str) -> Vec<usize> {
        let is_own = |route: &Route| route.package.as_ref().is_some_and(|own| own.as_str() == package);
        let own: Vec<usize> = (0..self.routes.len()).filter(|at| is_own(&self.routes[*at])).collect();
        if own.is_empty() { vec![self.routes.len() - 1] } else { own }
    }

    /// Reads what no set needs.
    fn unvisited(&mut self) {
        let nodes: Vec<String> = self.definitions.keys().cloned().collect();
        for node in nodes {
            let Some(first) = self.definitions[&node].first().copied() else { continue };
            if self.definitions[&node].iter().all(|d| self.is_visited(d)) {
                continue;
            }
            let package = package_of(self.world.modules[first.module].parsed).unwrap_or_default();
            for route in self.routes_of(&package) {
                self.route = route;
                match first.rule {
                    Rule::Spec { head: RuleHead::Func { args, .. }, .. } => {
                        let anything = args.iter().map(|_| Type::any()).collect();
                        self.evaluate(&node, Some(anything));
                    }
                    Rule::Spec { .. } | Rule::Default { .. } => drop(self.rule(&node)),
                }
            }
        }
    }

    fn is_visited(&self, definition: &Definition<'_>) -> bool {
        match definition.rule {
            Rule::Default { .. } => true,
            Rule::Spec { span, bodies, .. } => {
                let key = bodies.first().map_or(span.start, |body| body.query.span.start);
                self.readings.contains_key(&(definition.module, key))
            }
        }
    }

    /// What a rule that is no function is on this route.
    fn rule(&mut self, node: &str) -> Value {
        let key = (node.to_string(), self.route);
        let outcome = match self.known.get(&key) {
            Some(outcome) => outcome.clone(),
            None => {
                // A rule that needs itself is refused elsewhere; here it only must come to an end.
                let open = Outcome {
                    ty: Type::any(),
                    needs: BTreeSet::new(),
                    tests: BTreeMap::new(),
                    is_dead: false,
                };
                self.known.insert(key.clone(), open);
                let outcome = self.evaluate(node, None);
                self.known.insert(key, outcome.clone());
                outcome
            }
        };
        self.use_of(outcome)
    }

    fn use_of(&mut self, outcome: Outcome) -> Value {
        self.state.quiet |= outcome.is_dead;
        self.state.needs.extend(outcome.needs.iter().cloned());
        for (key, test) in outcome.tests {
            self.state.tests.entry(key).or_insert(test);
        }
        Value { from: outcome.needs, ..Value::of(outcome.ty) }
    }

    /// A call of a function of the bundle.
    fn function(
        &mut self,
        node: &str,
        span: Span,
        arguments: Vec<Type>,
        (name, called): (&str, &Expr),
    ) -> Value {
        let wanted = self.definitions.get(node).into_iter().flatten().find_map(|d| match d.rule {
            Rule::Spec { head: RuleHead::Func { args, .. }, .. } => Some(args.len()),
            Rule::Default { args, .. } if !args.is_empty() => Some(args.len()),
            Rule::Spec { .. } | Rule::Default { .. } => None,
        });
        let Some(wanted) = wanted else { return Value::of(Type::any()) };
        if wanted != arguments.len() {
            let message = format!("`{name}` takes {}, not {}", infer::counted(wanted), arguments.len());
            let at = infer::place_of(called);
            self.report(Span { end: span.end, ..at }, Severity::Error, "arity", message, None);
            self.state.loud = true;
            return Value::of(Type::any());
        }
        if self.depth >= limits::POLICY_TYPE_CALLS_MAX {
            return Value::of(Type::any());
        }
        self.depth += 1;
        let outcome = self.evaluate(node, Some(arguments));
        self.depth -= 1;
        self.use_of(outcome)
    }

    fn evaluate(&mut self, node: &str, arguments: Option<Vec<Type>>) -> Outcome {
        let definitions = self.definitions.get(node).cloned().unwrap_or_default();
        let mut types = Type::never();
        let mut needs: Option<BTreeSet<String>> = None;
        let mut tests = BTreeMap::new();
        let (mut always, mut lives, mut collects) = (false, false, false);
        for Definition { module, rule } in definitions {
            let (head, bodies) = match rule {
                Rule::Default { value, .. } => {
                    always = true;
                    lives = true;
                    types = types.join(self.reading(module, None, value.span(), &[value], None).ty);
                    continue;
                }
                Rule::Spec { head, bodies, .. } => (head, bodies),
            };
            let is_set = matches!(head, RuleHead::Set { .. });
            let is_part = head.refr().reference().is_none_or(|r| !r.steps.is_empty());
            let pattern: &[Expr] = match head {
                RuleHead::Func { args, .. } => args,
                RuleHead::Compr { .. } | RuleHead::Set { .. } => &[],
            };
            always |= is_set || is_part;
            let whole = [None];
            let each: Vec<Option<&RuleBody>> =
                if bodies.is_empty() { whole.to_vec() } else { bodies.iter().map(Some).collect() };
            for body in each {
                let terms = terms(head, body);
                let given = arguments.as_deref().map(|types| (pattern, types));
                let set = ContractSet::ALL.into_iter().find(|set| is_set && set.name() == rule.name());
                let read = self.reading(module, body, rule.span(), &terms, given);
                if let Some(set) = set {
                    self.reason(module, &terms, &read.ty);
                    if !read.is_dead {
                        let package = self.world.modules[module].package.clone();
                        let (needs, tests) = (read.needs.clone(), read.tests.clone());
                        self.verdicts.push(Verdict { route: self.route, package, set, needs, tests });
                    }
                }
                if read.is_dead {
                    continue;
                }
                lives = true;
                types = types.join(if is_part { Type::any() } else { read.ty });
                needs = Some(match needs {
                    None => read.needs,
                    Some(known) => known.intersection(&read.needs).cloned().collect(),
                });
                for (key, test) in read.tests {
                    tests.entry(key).or_insert(test);
                }
            }
            collects |= is_set && !is_part;
        }
        if always {
            let ty = if types.is_never() { Type::any() } else { types };
            let ty = if collects { Type::set(ty) } else { ty };
            return Outcome { ty, needs: BTreeSet::new(), tests: BTreeMap::new(), is_dead: false };
        }
        Outcome { ty: types, needs: needs.unwrap_or_default(), tests, is_dead: !lives }
    }

    /// Reads one body, and keeps what was found.
    fn reading(
        &mut self,
        module: usize,
        body: Option<&'a RuleBody>,
        rule: Span,
        terms: &[&'a Expr],
        given: Option<(&'a [Expr], &[Type])>,
    ) -> Outcome {
        let open =
            Outcome { ty: Type::any(), needs: BTreeSet::new(), tests: BTreeMap::new(), is_dead: false };
        if self.bodies_left == 0 {
            return open;
        }
        self.bodies_left -= 1;
        let outer = (self.at, std::mem::take(&mut self.state));
        self.at = module;
        let mut env = Env::default();
        for (pattern, ty) in given.into_iter().flat_map(|(patterns, types)| patterns.iter().zip(types)) {
            self.bind(pattern, Value::of(ty.clone()), &mut env);
        }
        if let Some(body) = body {
            self.statements(&body.query.stmts, &mut env);
        }
        let mut ty = Type::truth(true);
        if !self.state.is_dead_quietly() {
            for term in terms {
                ty = self.expr(term, &mut env).ty;
            }
        }
        let state = std::mem::replace(&mut self.state, outer.1);
        self.at = outer.0;
        let key = (module, body.map_or(rule.start, |body| body.query.span.start));
        let is_dead = state.loud || state.is_dead_quietly();
        let (needs, tests) = (state.needs.clone(), state.tests.clone());
        self.readings.entry(key).or_default().add(state);
        Outcome { ty: if is_dead { Type::never() } else { ty }, needs, tests, is_dead }
    }

    /// Whether an element of a set can be a reason.
    fn reason(&mut self, module: usize, terms: &[&Expr], ty: &Type) {
        let code = |ty: Type| ty.meets(&Type::text());
        let is_reason = ty.any
            || ty.is_never()
            || ty.text.is_some()
            || ty.object.is_some()
                && match ty.member("code") {
                    Step::Found { ty, .. } => code(ty),
                    Step::Undeclared { .. } => true,
                    Step::Absent { .. } | Step::NotAContainer => false,
                };
        let Some(term) = terms.last().filter(|_| !is_reason) else { return };
        let outer = std::mem::replace(&mut self.at, module);
        let message = format!(
            "`{}` is no reason: an element that is neither a string nor an object with a string `code` is an evaluation error",
            self.source(term)
        );
        let help = Some("write `\"code\"` or `{\"code\": \"...\", ...}`".to_string());
        let problem = self.problem(infer::place_of(term), Severity::Error, "reason_shape", message, help);
        self.at = outer;
        self.apart_from_routes.insert(problem);
    }

    fn findings(self) -> BTreeSet<Problem> {
        let unguarded = self.unguarded();
        let mut found = self.apart_from_routes;
        found.extend(unguarded);
        for readings in self.readings.into_values() {
            found.extend(readings.findings());
        }
        // What can never hold is not evaded either.
        let wrong: BTreeSet<_> = found
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .map(|p| (p.file.clone(), p.line, p.column))
            .collect();
        found.retain(|p| {
            p.severity == Severity::Error || !wrong.contains(&(p.file.clone(), p.line, p.column))
        });
        found
    }

    /// Conditions of refusals that a caller can keep from being true by leaving a member out, on a route where a
    /// `permit` holds without it and no rule sees that it is missing.
    fn unguarded(&self) -> BTreeSet<Problem> {
        let mut found = BTreeSet::new();
        for refusal in self.verdicts.iter().filter(|v| v.set != ContractSet::Permit) {
            for (key, test) in &refusal.tests {
                if !refusal.needs.contains(key) && !refusal.tests.contains_key(key) {
                    continue;
                }
                let sees = |covered: &String| covered == key || covered.starts_with(&format!("{key}."));
                if self.covered.iter().any(|(route, covered)| *route == refusal.route && sees(covered)) {
                    continue;
                }
                let stands_above = |other: &String| other.starts_with(&format!("{key}."));
                if refusal.tests.keys().any(stands_above) {
                    continue;
                }
                let permits = self.verdicts.iter().any(|v| {
                    v.set == ContractSet::Permit
                        && v.route == refusal.route
                        && v.package == refusal.package
                        && !v.needs.contains(key)
                });
                if permits && !self.routes[refusal.route].shown.is_empty() {
                    found.insert(self.unguarded_problem(refusal, key, test));
                }
            }
        }
        // One finding for one place, whatever the number of routes.
        let mut places = BTreeSet::new();
        found.into_iter().filter(|p| places.insert((p.file.clone(), p.line, p.column))).collect()
    }

    fn unguarded_problem(&self, refusal: &Verdict, key: &str, test: &Test) -> Problem {
        let parsed = self.world.modules[test.module].parsed;
        let set = refusal.set.name();
        let route = &self.routes[refusal.route].shown;
        let name = key.rsplit('.').next().unwrap_or_default();
        let (column, end_column) = parsed.columns(test.span);
        Problem {
            file: parsed.file.name.clone(),
            line: test.span.line,
            column,
            end_column,
            severity: Severity::Warning,
            rule: "optional_unguarded",
            message: format!(
                "`{key}` may be missing on {route}: this `{set}` then does not fire, and a `permit` may hold without it"
            ),
            help: Some(format!(
                "add `{set} contains \"{name}_missing\" if not {key}`, or require it in the schema"
            )),
        }
    }
}

impl Readings {
    fn add(&mut self, state: State) {
        self.total += 1;
        self.is_of_other_kind |= state.is_of_other_kind;
        if state.is_dead_quietly() {
            self.guards.extend(state.guard);
            return;
        }
        let errors = || state.problems.iter().filter(|noted| noted.is_of_route());
        let is_beside = errors().next().is_some() && errors().all(|noted| noted.is_weak);
        let together = if is_beside { &mut self.beside } else { &mut self.about };
        together.add(&state);
    }

    /// On every route the body can be about; where it never holds, whatever was found.
    fn findings(self) -> Vec<Problem> {
        if self.about.readings > 0 {
            return self.about.findings();
        }
        if self.beside.readings > 0 {
            // One rule for two shapes: on the routes that have the member it is of the other shape.
            return if self.is_of_other_kind { Vec::new() } else { self.beside.findings() };
        }
        let never = self.total > 0 && self.guards.len() == self.total;
        self.guards.into_iter().filter(|_| never).take(1).collect()
    }
}

impl Together {
    fn add(&mut self, state: &State) {
        let (errors, warnings): (Vec<_>, Vec<_>) =
            state.problems.iter().partition(|noted| noted.is_of_route());
        self.warnings.extend(warnings.into_iter().map(|noted| noted.problem.clone()));
        let errors: BTreeMap<_, _> = errors
            .into_iter()
            .map(|noted| ((noted.start, noted.problem.rule), noted.problem.clone()))
            .collect();
        self.errors.extend(errors.values().cloned());
        if self.readings == 0 {
            self.common = errors;
        } else {
            self.common.retain(|key, _| errors.contains_key(key));
        }
        self.lives |= !state.loud;
        self.readings += 1;
    }

    fn findings(self) -> Vec<Problem> {
        let mut found: Vec<Problem> = self.warnings.into_iter().collect();
        if self.lives || !self.common.is_empty() {
            found.extend(self.common.into_values());
        } else {
            found.extend(self.errors);
        }
        // The same place on many routes is one finding.
        let mut places = BTreeSet::new();
        found.into_iter().filter(|p| places.insert((p.line, p.column, p.rule))).collect()
    }
}

/// The terms of a head that see a body's names; the last one is its value.
fn terms<'a>(head: &'a RuleHead, body: Option<&'a RuleBody>) -> Vec<&'a Expr> {
    let own = body.and_then(|body| body.assign.as_ref());
    let (assign, key) = match head {
        RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => (assign.as_ref(), None),
        RuleHead::Set { key, .. } => (None, key.as_ref()),
    };
    own.or(assign).map(|assign| &assign.value).or(key).into_iter().collect()
}
