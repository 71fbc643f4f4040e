//! Why a rule made what it made, or did not: which expression of which body failed first, with the values of what
//! stands in it.
//!
//! In: parsed modules, a prepared engine, an input. Out: a [`RuleTrace`] for each rule that was asked about. The
//! engine answers, not a second evaluator: the statements of a body, one more at a time and in the order in which they
//! need each other, are asked as rules of their own ([`probe`]). The first prefix that no binding fulfils names the
//! expression; `every`, functions and the rules it rests on are followed down. Nothing here decides anything.
//!
//! Where the input holds what its route keeps out of the log, only places of the input are shown, as the log has them:
//! what was computed from them could tell ([`Values::Redacted`]).

mod heads;
mod operands;
mod probe;
mod source;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use regorus::{Engine, Value};
use serde_json::Value as Shown;

use super::check::names::{Named, Place, Root, Scope, World, declared};
use super::syntax::{Expr, Literal, Parsed, Rule, RuleBody, RuleHead, Span, Statement, Step, WithModifier};
use crate::limits;
use crate::model::Json;
pub(super) use heads::{Bound, cases};
use operands::{Operand, operands};
use probe::{Ground, Probes};
use source::{ordered, place, source, without_space};
pub use trace::{At, Became, Binding, BodyTrace, Failure, How, RuleTrace, Seen, SetTrace, Values};

/// A bundle and an input, to be asked about. Runs on a stack of [`limits::EVALUATION_STACK_BYTES`].
pub(super) struct Explainer<'a> {
    world: Rc<World<'a>>,
    rules: Rc<BTreeMap<String, Vec<(usize, &'a Rule)>>>,
    ground: Ground<'a>,
    values: Values,
}

/// A body that is asked about, or the inside of an `every` in one.
struct Chain<'a> {
    module: usize,
    /// Statements that hold, as text.
    before: Vec<String>,
    statements: Vec<&'a Statement>,
    /// Names that the body declares, and arguments.
    scope: Scope,
    documents: Vec<Value>,
    /// What was chosen on the way here, such as the element of an `every`.
    chosen: Vec<Binding>,
}

/// What a statement replaces while it is evaluated.
#[derive(Clone, Copy)]
struct With<'a> {
    text: &'a str,
    replaced: &'a [WithModifier],
}

impl With<'_> {
    const NOTHING: Self = Self { text: "", replaced: &[] };
}

/// Where in the search we are.
#[derive(Clone, Copy)]
struct Depth(usize);

impl<'a> Explainer<'a> {
    /// `engine` holds the modules and their documents, and is prepared.
    pub(super) fn new(
        modules: &'a [Parsed],
        world: World<'a>,
        engine: &'a Engine,
        input: Value,
        values: Values,
        steps_max: u32,
    ) -> Self {
        let mut rules: BTreeMap<String, Vec<(usize, &Rule)>> = BTreeMap::new();
        for (number, module) in world.modules.iter().enumerate() {
            for rule in &module.parsed.module.rules {
                let name = format!("{}.{}", module.package.join("."), rule.name());
                rules.entry(name).or_default().push((number, rule));
            }
        }
        let ground = Ground::new(engine, input, steps_max, modules);
        Self { world: Rc::new(world), rules: Rc::new(rules), ground, values }
    }

    /// The same bundle under another input.
    fn under(&self, input: Value) -> Self {
        let Ground { pristine, steps_max, mark, .. } = &self.ground;
        let ground = Ground { pristine, input, steps_max: *steps_max, mark: Arc::clone(mark) };
        Self {
            world: Rc::clone(&self.world),
            rules: Rc::clone(&self.rules),
            ground,
            values: self.values.clone(),
        }
    }

    /// All definitions of a rule: `gateway.payments.permit`.
    pub(super) fn rule(&self, name: &str) -> RuleTrace {
        self.trace(name, None, Depth(0), &mut BTreeSet::new())
    }

    fn module(&self, number: usize) -> &Named<'a> {
        &self.world.modules[number]
    }

    fn at(&self, module: usize, span: Span) -> At {
        let parsed = self.module(module).parsed;
        At { file: parsed.file.name.clone(), line: span.line, column: parsed.columns(span).0 }
    }

    fn trace(
        &self,
        name: &str,
        arguments: Option<(&[Binding], &[Value])>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> RuleTrace {
        let mut bodies = Vec::new();
        for (module, rule) in self.rules.get(name).into_iter().flatten() {
            self.definition(*module, rule, arguments.map(|(_, values)| values), depth, seen, &mut bodies);
        }
        bodies.sort_by(|a, b| a.at.cmp(&b.at));
        let arguments = arguments.map(|(shown, _)| shown.to_vec());
        RuleTrace { rule: format!("data.{name}"), arguments, bodies }
    }

    fn definition(
        &self,
        module: usize,
        rule: &'a Rule,
        arguments: Option<&[Value]>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
        found: &mut Vec<BodyTrace>,
    ) {
        let parsed = self.module(module).parsed;
        let (head, bodies) = match rule {
            Rule::Default { span, value, .. } => {
                let chain = self.chain(module, &[], None);
                let value = chain.and_then(|chain| self.given(&chain, &source(parsed, value)));
                let became = match value {
                    Ok(values) => {
                        let value = values.first().map_or(Seen::Undefined, |value| self.seen(value));
                        Became::Default { value }
                    }
                    Err(why) => Became::Unknown { why: self.told(why) },
                };
                let head = without_space(parsed.whole(*span));
                return found.push(BodyTrace { at: self.at(module, *span), head, became });
            }
            Rule::Spec { head, bodies, .. } => (head, bodies),
        };
        let from = rule.span().start as usize;
        let until = bodies.first().map_or(rule.span().end, |body| body.span.start) as usize;
        let until = if bodies.is_empty() { parsed.extent(rule.span()).1 } else { until };
        let text = without_space(parsed.file.text.get(from..until).unwrap_or_default());
        let argued = match (head, arguments) {
            (RuleHead::Func { args, .. }, Some(values)) => Some((&args[..], values)),
            // Nobody says what it is called with.
            (RuleHead::Func { .. }, None) => return,
            (RuleHead::Compr { .. } | RuleHead::Set { .. }, _) => None,
        };
        let mut is_decided = false;
        let mut body_trace = |at, shown: String, body: Option<&'a RuleBody>, is_else: bool| {
            let became = if is_else && is_decided {
                Became::NotReached
            } else {
                self.body(module, head, body, argued, depth, seen)
            };
            is_decided |= matches!(became, Became::Made { .. });
            found.push(BodyTrace { at, head: shown, became });
        };
        if bodies.is_empty() {
            body_trace(self.at(module, rule.span()), text.clone(), None, false);
        }
        for body in bodies {
            let (span, head) = match body.is_else {
                false => (rule.span(), text.clone()),
                true => {
                    let assigned = body.assign.as_ref().map(|assign| source(parsed, &assign.value));
                    let head = assigned.map_or("else".into(), |value| format!("else := {value}"));
                    (body.span, head)
                }
            };
            body_trace(self.at(module, span), head, Some(body), body.is_else);
        }
    }

    fn chain(
        &self,
        module: usize,
        statements: &'a [Statement],
        argued: Option<(&'a [Expr], &[Value])>,
    ) -> Result<Chain<'a>, String> {
        let parsed = self.module(module).parsed;
        let mut scope = declared(parsed, statements);
        let mut before = Vec::new();
        let mut documents = Vec::new();
        if let Some((patterns, values)) = argued {
            if patterns.len() != values.len() {
                return Err(format!("is called with {} arguments, and has {}", values.len(), patterns.len()));
            }
            for (number, (pattern, value)) in patterns.iter().zip(values).enumerate() {
                documents.push(value.clone());
                let document = self.ground.document(number);
                super::check::names::bind(pattern, &mut scope);
                match pattern {
                    Expr::Var { value, .. } if value == "_" => {}
                    Expr::Var { value, .. } => before.push(format!("{value} := {document}")),
                    Expr::Array { .. } | Expr::Object { .. } => {
                        before.push(format!("{} := {document}", source(parsed, pattern)));
                    }
                    constant => before.push(format!("{} == {document}", source(parsed, constant))),
                }
            }
        }
        let statements = ordered(statements, &scope);
        Ok(Chain { module, before, statements, scope, documents, chosen: Vec::new() })
    }

    /// The same start, without statements.
    fn copy(&self, chain: &Chain<'_>) -> Chain<'a> {
        Chain {
            module: chain.module,
            before: chain.before.clone(),
            statements: Vec::new(),
            scope: chain.scope.clone(),
            documents: chain.documents.clone(),
            chosen: chain.chosen.clone(),
        }
    }

    fn body(
        &self,
        module: usize,
        head: &'a RuleHead,
        body: Option<&'a RuleBody>,
        argued: Option<(&'a [Expr], &[Value])>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> Became {
        let statements = body.map_or(&[][..], |body| &body.query.stmts[..]);
        let chain = match self.chain(module, statements, argued) {
            Ok(chain) => chain,
            Err(why) => return Became::Unknown { why },
        };
        match self.first_failure(chain, depth, seen) {
            Err(why) => Became::Unknown { why: self.told(why) },
            Ok(Err(failure)) => Became::Failed(Box::new(failure)),
            Ok(Ok(chain)) => self.made(&chain, head, body, depth, seen),
        }
    }

    /// What a body gives that holds.
    fn made(
        &self,
        chain: &Chain<'a>,
        head: &'a RuleHead,
        body: Option<&'a RuleBody>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> Became {
        let parsed = self.module(chain.module).parsed;
        let own = body.and_then(|body| body.assign.as_ref());
        let (assign, key) = match head {
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => (assign.as_ref(), None),
            RuleHead::Set { key, .. } => (None, key.as_ref()),
        };
        let value = own.or(assign).map(|assign| &assign.value).or(key);
        let mut terms: Vec<&Expr> = Vec::new();
        if let (RuleHead::Compr { .. }, Some(reference)) = (head, head.refr().reference()) {
            terms.extend(reference.steps.iter().filter_map(|step| match step {
                Step::Index(index) => Some(*index),
                Step::Name(_) => None,
            }));
        }
        let is_object = !terms.is_empty();
        terms.extend(value);
        let text = match (&terms[..], is_object) {
            ([], _) => "true".to_owned(),
            ([only], false) => source(parsed, only),
            (all, _) => {
                format!("[{}]", all.iter().map(|term| source(parsed, term)).collect::<Vec<_>>().join(", "))
            }
        };
        match self.given(chain, &text) {
            Ok(values) if values.is_empty() => {
                let expressions: Vec<&Expr> = terms.clone();
                let at = terms.first().map_or(head.refr().span(), |term| place(parsed, term));
                let failure = self.failure(
                    chain,
                    at,
                    text,
                    How::HeadUndefined,
                    &expressions,
                    With::NOTHING,
                    depth,
                    seen,
                );
                Became::Failed(Box::new(failure))
            }
            Ok(values) => {
                let shown = values.iter().take(limits::EXPLAIN_ROWS_MAX);
                Became::Made { values: shown.map(|value| self.seen(value)).collect() }
            }
            Err(why) => {
                let at = terms.first().map_or(head.refr().span(), |term| place(parsed, term));
                Became::Failed(Box::new(Failure {
                    at: self.at(chain.module, at),
                    expression: text,
                    how: How::Error,
                    error: Some(self.told(why)),
                    rows: Vec::new(),
                    more_rows: 0,
                    because: Vec::new(),
                }))
            }
        }
    }

    /// The chain if all of it holds, else where it first does not.
    fn first_failure(
        &self,
        chain: Chain<'a>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> Result<Result<Chain<'a>, Failure>, String> {
        let parsed = self.module(chain.module).parsed;
        let texts: Vec<&str> = chain.statements.iter().map(|s| parsed.whole(s.span)).collect();
        if texts.is_empty() {
            let fits = chain.before.is_empty() || self.holds(&chain)?;
            return if fits { Ok(Ok(chain)) } else { Err(NO_FIT.into()) };
        }
        // As many beginnings of the body at once as the engine's reader takes; each is as long as the body at most.
        let lines: usize = chain
            .before
            .iter()
            .map(String::as_str)
            .chain(texts.iter().copied())
            .map(|text| text.lines().count() + 1)
            .sum();
        let block = (PROBE_LINES_MAX / lines).max(1);
        let numbers: Vec<usize> = (0..texts.len()).collect();
        for numbers in numbers.chunks(block) {
            let beginning = |number: &usize| {
                let held = chain.before.iter().map(String::as_str).chain(texts[..=*number].iter().copied());
                format!("if {{\n{}\n}}", held.collect::<Vec<_>>().join("\n"))
            };
            let probes = self.probes(&chain, &numbers.iter().map(beginning).collect::<Vec<_>>())?;
            for (at, &number) in numbers.iter().enumerate() {
                let statement = chain.statements[number];
                // What only declares cannot fail.
                if matches!(statement.literal, Literal::SomeVars { .. }) {
                    continue;
                }
                let said = probes.ask(at);
                if said == Ok(Value::Bool(true)) {
                    continue;
                }
                let mut before = self.copy(&chain);
                before.before.extend(texts[..number].iter().map(|&text| text.to_owned()));
                if number == 0 && !before.before.is_empty() && said.is_ok() && !self.holds(&before)? {
                    return Err(NO_FIT.into());
                }
                return self.failed(before, statement, said.err(), depth, seen).map(Err);
            }
        }
        let mut held = self.copy(&chain);
        held.before.extend(texts.iter().map(|&text| text.to_owned()));
        Ok(Ok(held))
    }

    fn holds(&self, chain: &Chain<'_>) -> Result<bool, String> {
        let probe = format!("if {{\n{}\n}}", chain.before.join("\n"));
        Ok(self.probes(chain, &[probe])?.ask(0)? == Value::Bool(true))
    }

    /// Why `statement` fails where `chain` holds.
    fn failed(
        &self,
        chain: Chain<'a>,
        statement: &'a Statement,
        error: Option<String>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> Result<Failure, String> {
        let parsed = self.module(chain.module).parsed;
        let expression = without_space(parsed.whole(statement.span));
        let text = statement
            .with_mods
            .first()
            .map_or("", |modifier| parsed.whole(Span { start: modifier.span.start, ..statement.span }));
        let with = With { text, replaced: &statement.with_mods };
        let at = statement.span;
        if let Some(error) = error {
            let mut failure = self.failure(
                &chain,
                at,
                expression,
                How::Error,
                &expressions(&statement.literal),
                with,
                depth,
                seen,
            );
            failure.error = Some(self.told(error));
            return Ok(failure);
        }
        let how = match &statement.literal {
            Literal::Every { key, value, domain, query } if depth.0 < limits::EXPLAIN_DEPTH_MAX => {
                let name = |span: &Span| parsed.text(*span).to_owned();
                let loops = key.iter().chain([value]).map(name).collect::<Vec<_>>();
                if let Some(inner) = self.every(&chain, &loops, domain, &query.stmts, text)? {
                    return match self.first_failure(inner, Depth(depth.0 + 1), seen)? {
                        Err(failure) => Ok(failure),
                        Ok(_) => Err("the element that fails does not fail alone".into()),
                    };
                }
                How::Undefined
            }
            Literal::Every { .. } => How::False,
            Literal::SomeIn { .. } => How::NoElement,
            Literal::NotExpr { .. } => How::Holds,
            Literal::SomeVars { .. } => How::Undefined,
            Literal::Expr { expr: Expr::AssignExpr { .. } } => How::Undefined,
            Literal::Expr { expr } => {
                let mark = &self.ground.mark;
                let probe = format!(
                    "contains {mark}_v if {{\n{}\n{mark}_v := ({}) {text}\n}}",
                    chain.before.join("\n"),
                    source(parsed, expr)
                );
                match self.probes(&chain, &[probe])?.ask(0) {
                    Ok(value) if elements(&value).contains(&&Value::Bool(false)) => How::False,
                    Ok(_) | Err(_) => How::Undefined,
                }
            }
        };
        let expressions = expressions(&statement.literal);
        Ok(self.failure(&chain, at, expression, how, &expressions, with, depth, seen))
    }

    /// The chain inside an `every`, for the first element for which it does not hold; `None` if there is none.
    fn every(
        &self,
        chain: &Chain<'a>,
        names: &[String],
        domain: &Expr,
        inside: &'a [Statement],
        with: &str,
    ) -> Result<Option<Chain<'a>>, String> {
        let parsed = self.module(chain.module).parsed;
        let (mark, before) = (&self.ground.mark, chain.before.join("\n"));
        let body: Vec<&str> = inside.iter().map(|statement| parsed.whole(statement.span)).collect();
        let probe = format!(
            "contains [{}] if {{\n{before}\n{mark}_d := {} {with}\nsome {} in {mark}_d\n{mark}_c := [1 | {}]\ncount({mark}_c) == 0\n}}",
            names.join(", "),
            source(parsed, domain),
            names.join(", "),
            body.join("\n")
        );
        let found = self.probes(chain, &[probe])?.ask(0)?;
        let Some(Value::Array(first)) = elements(&found).into_iter().next() else { return Ok(None) };
        let mut documents = chain.documents.clone();
        let mut before = chain.before.clone();
        let mut chosen = chain.chosen.clone();
        for (name, value) in names.iter().zip(first.iter()).filter(|(name, _)| *name != "_") {
            before.push(format!("{name} := {}", self.ground.document(documents.len())));
            documents.push(value.clone());
            chosen.push(Binding { name: name.clone(), value: self.seen(value) });
        }
        let mut scope: Scope = chain.scope.union(&declared(parsed, inside)).cloned().collect();
        scope.extend(names.iter().cloned());
        let statements = ordered(inside, &scope);
        Ok(Some(Chain { module: chain.module, before, statements, scope, documents, chosen }))
    }

    /// Values of `text` over every way in which the chain holds.
    fn given(&self, chain: &Chain<'_>, text: &str) -> Result<Vec<Value>, String> {
        let mark = &self.ground.mark;
        let probe = format!("contains {mark}_v if {{\n{}\n{mark}_v := {text}\n}}", chain.before.join("\n"),);
        let said = self.probes(chain, &[probe])?.ask(0)?;
        Ok(elements(&said).into_iter().cloned().collect())
    }

    fn probes(&self, chain: &Chain<'_>, bodies: &[String]) -> Result<Probes, String> {
        self.ground.probes(self.module(chain.module).parsed, bodies, &chain.documents)
    }

    #[expect(clippy::too_many_arguments, reason = "one failure, put together in one place")]
    fn failure(
        &self,
        chain: &Chain<'a>,
        at: Span,
        expression: String,
        how: How,
        expressions: &[&'a Expr],
        with: With<'a>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> Failure {
        let named = self.module(chain.module);
        let found = operands(&self.world, named, &chain.scope, expressions);
        let (rows, more_rows) = self.rows(chain, &found, with.text);
        let because = self.because(chain, &found, &rows, how, with, depth, seen);
        let shown = rows.iter().take(limits::EXPLAIN_ROWS_MAX).map(|row| {
            let own = found.iter().zip(row).map(|(operand, values)| Binding {
                name: operand.text.clone(),
                value: self.shown(operand, values),
            });
            chain.chosen.iter().cloned().chain(own).collect()
        });
        let rows: Vec<Vec<Binding>> = shown.collect();
        Failure { at: self.at(chain.module, at), expression, how, error: None, rows, more_rows, because }
    }

    /// The values of the operands, once for each way in which the chain holds; each is a list, empty if undefined.
    fn rows(&self, chain: &Chain<'_>, operands: &[Operand<'_>], with: &str) -> (Vec<Vec<Vec<Value>>>, usize) {
        if operands.is_empty() {
            return (Vec::new(), 0);
        }
        let mark = &self.ground.mark;
        let column = |number: usize, operand: &Operand<'_>| {
            format!("{mark}_c{number} := [{mark}_v | {mark}_v := {} {with}]", operand.source)
        };
        let ask = |chosen: &[usize]| {
            let columns: Vec<String> = chosen.iter().map(|&n| column(n, &operands[n])).collect();
            let names: Vec<String> = chosen.iter().map(|n| format!("{mark}_c{n}")).collect();
            let probe = format!(
                "contains {mark}_row if {{\n{}\n{}\n{mark}_row := [{}]\n}}",
                chain.before.join("\n"),
                columns.join("\n"),
                names.join(", ")
            );
            self.probes(chain, &[probe]).and_then(|probes| probes.ask(0))
        };
        let lists = |row: &Value| match row {
            Value::Array(columns) => {
                columns.iter().map(|c| elements(c).into_iter().cloned().collect()).collect()
            }
            _ => Vec::new(),
        };
        let all: Vec<usize> = (0..operands.len()).collect();
        if let Ok(said) = ask(&all) {
            let rows = elements(&said);
            let more = rows.len().saturating_sub(limits::EXPLAIN_ROWS_MAX);
            return (rows.into_iter().take(limits::EXPLAIN_ROWS_MAX).map(lists).collect(), more);
        }
        // One of them is an error: then each for itself, in no relation to the others.
        let alone = all.iter().map(|&number| {
            let said = ask(&[number]).ok();
            let rows = said.iter().flat_map(|said| elements(said)).map(lists);
            rows.flat_map(|row: Vec<Vec<Value>>| row.into_iter().flatten()).collect::<Vec<Value>>()
        });
        (vec![alone.collect()], 0)
    }

    /// Follows the expression down into the rules and functions that it rests on.
    #[expect(clippy::too_many_arguments, reason = "what `failure` has found")]
    fn because(
        &self,
        chain: &Chain<'a>,
        operands: &[Operand<'a>],
        rows: &[Vec<Vec<Value>>],
        how: How,
        with: With<'a>,
        depth: Depth,
        seen: &mut BTreeSet<String>,
    ) -> Vec<RuleTrace> {
        if depth.0 >= limits::EXPLAIN_DEPTH_MAX {
            return Vec::new();
        }
        let parsed = self.module(chain.module).parsed;
        // Under another input, rules are asked under it. What else `with` replaces can only be replaced by it.
        let under = match with.replaced {
            [] => None,
            [only] if only.refr.reference().is_some_and(|r| r.root == "input" && r.steps.is_empty()) => {
                match self.given(chain, &source(parsed, &only.value)).as_deref() {
                    Ok([input]) => Some(self.under(input.clone())),
                    Ok(_) | Err(_) => return Vec::new(),
                }
            }
            _ => return Vec::new(),
        };
        let asked = under.as_ref().unwrap_or(self);
        let mut traces = Vec::new();
        for (number, operand) in operands.iter().enumerate() {
            let Some(node) = self.node(chain, operand) else { continue };
            let values: Vec<&Vec<Value>> = rows.iter().filter_map(|row| row.get(number)).collect();
            let is_wanted = match how {
                How::Holds => values.iter().any(|list| !list.iter().all(is_nothing)),
                How::Error => false,
                How::False | How::Undefined | How::NoElement | How::HeadUndefined => {
                    values.iter().any(|list| list.iter().all(is_nothing))
                }
            };
            if !is_wanted || seen.len() >= limits::EXPLAIN_RULES_MAX {
                continue;
            }
            let depth = Depth(depth.0 + 1);
            if let Expr::Call { params, .. } = operand.expr {
                if under.is_some() {
                    continue;
                }
                let texts: Vec<String> = params.iter().map(|param| source(parsed, param)).collect();
                let Ok(called) = self.given(chain, &format!("[{}]", texts.join(", "))) else { continue };
                let Some(Value::Array(values)) = called.first() else { continue };
                let values: Vec<Value> = values.iter().cloned().collect();
                let shown = texts.iter().zip(values.iter());
                let shown: Vec<Binding> = shown
                    .map(|(name, value)| Binding { name: name.clone(), value: self.seen(value) })
                    .collect();
                if seen.insert(format!("{node}({})", texts.join(", "))) {
                    traces.push(self.trace(&node, Some((&shown, &values[..])), depth, seen));
                }
            } else if seen.insert(node.clone()) {
                traces.push(asked.trace(&node, None, depth, seen));
            }
        }
        traces
    }

    /// The rule or function that an operand is.
    fn node(&self, chain: &Chain<'_>, operand: &Operand<'_>) -> Option<String> {
        let expr = match operand.expr {
            Expr::Call { fcn, .. } => fcn,
            other => other,
        };
        let reference = expr.reference()?;
        let Root::Data(mut path) = self.world.root(self.module(chain.module), &chain.scope, reference.root)
        else {
            return None;
        };
        for step in &reference.steps {
            match step {
                Step::Name(name) => path.push((*name).to_owned()),
                Step::Index(_) => break,
            }
        }
        match self.world.place(&path) {
            Place::Rule { node, .. } => Some(node),
            Place::Document | Place::Packages | Place::Nowhere => None,
        }
    }

    fn shown(&self, operand: &Operand<'_>, values: &[Value]) -> Seen {
        match (&self.values, values) {
            (Values::Redacted(recorded), _) => operand.input_path.as_ref().map_or(Seen::Withheld, |path| {
                let step = |at: &'_ Json, name: &String| at.as_object().and_then(|o| o.member(name)).cloned();
                let found = path.iter().try_fold(recorded.clone(), |at, name| step(&at, name));
                // A member that is not there may be one that was kept out.
                found.map_or(Seen::Withheld, |json| {
                    Seen::Value(serde_json::to_value(&json).unwrap_or_default())
                })
            }),
            (Values::All, []) => Seen::Undefined,
            (Values::All, [one]) => self.seen(one),
            (Values::All, many) => {
                Seen::Each(many.iter().take(limits::EXPLAIN_ROWS_MAX).map(json_of).collect())
            }
        }
    }

    fn seen(&self, value: &Value) -> Seen {
        match &self.values {
            Values::All => Seen::Value(json_of(value)),
            Values::Redacted(_) => Seen::Withheld,
        }
    }

    /// The engine's words may repeat values.
    fn told(&self, why: String) -> String {
        match &self.values {
            Values::All => why,
            Values::Redacted(_) => "withheld: it may repeat a value that stays out of the log".into(),
        }
    }
}

/// Another definition of the function is meant.
const NO_FIT: &str = "its arguments do not fit";

/// Lines of one module of probes; the engine reads at most 20,000.
const PROBE_LINES_MAX: usize = 8_000;

/// As JSON; sets are lists.
fn json_of(value: &Value) -> Shown {
    serde_json::to_value(value).unwrap_or_else(|_| "a value with no JSON text".into())
}

fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Set(items) => items.iter().collect(),
        Value::Array(items) => items.iter().collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)
        | Value::Undefined => Vec::new(),
    }
}

/// No reason for anything to hold.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Undefined | Value::Bool(false) => true,
        Value::Set(items) => items.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Null | Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

/// What stands in a literal; what `every` asks of its elements is another matter.
fn expressions(literal: &Literal) -> Vec<&Expr> {
    match literal {
        Literal::SomeVars { .. } => Vec::new(),
        Literal::SomeIn { collection, .. } => vec![collection],
        Literal::Expr { expr: Expr::AssignExpr { rhs, op: super::syntax::AssignOp::ColEq, .. } } => vec![rhs],
        Literal::Expr { expr } | Literal::NotExpr { expr } => vec![expr],
        Literal::Every { domain, .. } => vec![domain],
    }
}
