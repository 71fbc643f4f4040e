//! What needs no types: names that nothing uses, imports that hide each other, rules that contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use super::super::check::names::{Named, World};
use super::super::problem::{Problem, Severity};
use super::super::syntax::{AssignOp, Expr, Literal, Query, Rule, RuleBody, RuleHead, Span, Step};

pub(super) fn problems(world: &World<'_>) -> Vec<Problem> {
    let called = called(world);
    let mut lint = Lint { found: Vec::new() };
    for module in &world.modules {
        lint.imports(world, module);
        for rule in &module.parsed.module.rules {
            lint.variables(module, rule);
            lint.function(module, rule, &called);
            lint.conflict(module, rule);
        }
    }
    lint.found
}

struct Lint {
    found: Vec<Problem>,
}

impl Lint {
    fn add(
        &mut self,
        module: &Named<'_>,
        span: Span,
        severity: Severity,
        rule: &'static str,
        message: String,
        help: Option<&str>,
    ) {
        self.found.push(module.parsed.problem(span, severity, rule, message, help.map(str::to_string)));
    }

    fn imports(&mut self, world: &World<'_>, module: &Named<'_>) {
        let rules = world.packages.get(&module.package);
        let mut used = BTreeSet::new();
        let mut locals = BTreeMap::new();
        for rule in &module.parsed.module.rules {
            for expr in every(rule) {
                if let Expr::Var { value, .. } = expr {
                    used.insert(value.as_str());
                }
            }
            for (name, span) in binders(module, rule) {
                locals.entry(name).or_insert(span);
            }
        }
        let mut seen = BTreeSet::new();
        for import in &module.parsed.module.imports {
            let Some(reference) = import.refr.reference() else { continue };
            if !matches!(reference.root, "input" | "data") {
                continue; // rego.v1, future.keywords
            }
            let last = reference.steps.iter().rev().find_map(|step| match step {
                Step::Name(name) => Some(*name),
                Step::Index(_) => None,
            });
            let name = import.alias.map_or(last.unwrap_or(reference.root), |span| module.parsed.text(span));
            if !seen.insert(name.to_string()) {
                let message = format!("a second import named `{name}` hides the first");
                self.add(
                    module,
                    import.span,
                    Severity::Error,
                    "import_shadowed",
                    message,
                    Some("name one of them with `as`"),
                );
            } else if rules.is_some_and(|rules| rules.contains_key(name)) {
                let message = format!("the import `{name}` has the name of a rule of this package");
                self.add(
                    module,
                    import.span,
                    Severity::Error,
                    "import_shadowed",
                    message,
                    Some("name it with `as`"),
                );
            } else if let Some(span) = locals.get(name) {
                let message = format!("`{name}` hides the import of that name");
                self.add(module, *span, Severity::Warning, "import_shadowed", message, Some("rename it"));
            } else if !used.contains(name) {
                let message = format!("nothing uses the import `{name}`");
                self.add(module, import.span, Severity::Warning, "unused_import", message, None);
            }
        }
    }

    fn variables(&mut self, module: &Named<'_>, rule: &Rule) {
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        for expr in every(rule) {
            if let Expr::Var { value, .. } = expr {
                *uses.entry(value).or_default() += 1;
            }
        }
        let mut bound: BTreeMap<String, (usize, Span)> = BTreeMap::new();
        for (name, span) in binders(module, rule) {
            bound.entry(name).or_insert((0, span)).0 += 1;
        }
        for (name, (times, span)) in bound {
            // A binder is itself a use of the name where the tree has it as an expression.
            let as_expression = uses.get(name.as_str()).copied().unwrap_or(0);
            let spans_only = named_by_span(module, rule).iter().filter(|n| **n == name).count();
            if as_expression + spans_only <= times && name != "_" {
                let message = format!("nothing uses `{name}`");
                let help = "write `_` where something only has to exist";
                self.add(module, span, Severity::Warning, "unused_variable", message, Some(help));
            }
        }
    }

    fn function(&mut self, module: &Named<'_>, rule: &Rule, called: &BTreeSet<String>) {
        let Rule::Spec { head: RuleHead::Func { refr, .. }, .. } = rule else { return };
        if !called.contains(rule.name()) {
            let message = format!("nothing calls `{}`", rule.name());
            self.add(module, refr.span(), Severity::Warning, "unused_function", message, None);
        }
    }

    /// Two values for one name.
    fn conflict(&mut self, module: &Named<'_>, rule: &Rule) {
        let node = format!("{}.{}", module.package.join("."), rule.name());
        let own = |other: &Rule| other.name() == rule.name();
        let before =
            module.parsed.module.rules.iter().take_while(|other| other.span().start < rule.span().start);
        for other in before.filter(|other| own(other)) {
            match (other, rule) {
                (Rule::Default { .. }, Rule::Default { span, .. }) => {
                    let message = format!("`{node}` has a default already, at line {}", other.span().line);
                    return self.add(module, *span, Severity::Error, "default_conflict", message, None);
                }
                (Rule::Spec { head: a, bodies: first, .. }, Rule::Spec { head: b, bodies: second, span }) => {
                    if same_condition(module, first, second)
                        && let (Some(a), Some(b)) = (constant(module, a), constant(module, b))
                        && a != b
                    {
                        let message = format!(
                            "`{node}` is {a} at line {} under the same condition, and cannot be {b} as well: an evaluation error",
                            other.span().line
                        );
                        return self.add(module, *span, Severity::Error, "rule_conflict", message, None);
                    }
                }
                (Rule::Default { .. }, Rule::Spec { .. }) | (Rule::Spec { .. }, Rule::Default { .. }) => {}
            }
        }
    }
}

/// The value of a complete rule that is written out.
fn constant<'m>(module: &Named<'m>, head: &RuleHead) -> Option<&'m str> {
    let RuleHead::Compr { refr, assign, .. } = head else { return None };
    if refr.reference().is_none_or(|r| !r.steps.is_empty()) {
        return None;
    }
    match assign.as_ref().map(|assign| &assign.value) {
        None => Some("true"),
        Some(
            value @ (Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }),
        ) => Some(module.parsed.text(value.span())),
        Some(_) => None,
    }
}

fn same_condition(module: &Named<'_>, first: &[RuleBody], second: &[RuleBody]) -> bool {
    let text = |bodies: &[RuleBody]| {
        let texts = bodies.iter().map(|body| {
            let statements = body.query.stmts.iter().map(|s| module.parsed.text(s.span));
            statements.collect::<Vec<_>>().join(";")
        });
        texts.collect::<Vec<_>>()
    };
    first.len() <= 1 && second.len() <= 1 && text(first) == text(second)
}

/// Every name that is called anywhere, by its last part.
fn called(world: &World<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for module in &world.modules {
        for rule in &module.parsed.module.rules {
            for expr in every(rule) {
                if let Expr::Call { fcn, .. } = expr
                    && let Some(reference) = fcn.reference()
                {
                    let last = reference.steps.iter().rev().find_map(|step| match step {
                        Step::Name(name) => Some(*name),
                        Step::Index(_) => None,
                    });
                    names.insert(last.unwrap_or(reference.root).to_string());
                }
            }
        }
    }
    names
}

fn heads(rule: &Rule) -> Vec<&Expr> {
    match rule {
        Rule::Default { value, .. } => vec![value],
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, assign } => {
                std::iter::once(refr).chain(assign.iter().map(|a| &a.value)).collect()
            }
            RuleHead::Set { refr, key } => std::iter::once(refr).chain(key).collect(),
            RuleHead::Func { args, assign, .. } => {
                args.iter().chain(assign.iter().map(|a| &a.value)).collect()
            }
        },
    }
}

fn bodies(rule: &Rule) -> &[RuleBody] {
    match rule {
        Rule::Spec { bodies, .. } => bodies,
        Rule::Default { .. } => &[],
    }
}

/// Every expression of a rule, those inside others included.
fn every(rule: &Rule) -> Vec<&Expr> {
    let mut found = Vec::new();
    heads(rule).into_iter().for_each(|expr| inside(expr, &mut found));
    for body in bodies(rule) {
        body.assign.iter().for_each(|assign| inside(&assign.value, &mut found));
        in_query(&body.query, &mut found);
    }
    found
}

fn in_query<'q>(query: &'q Query, found: &mut Vec<&'q Expr>) {
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().chain([value, collection]).for_each(|expr| inside(expr, found));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => inside(expr, found),
            Literal::Every { domain, query, .. } => {
                inside(domain, found);
                in_query(query, found);
            }
        }
    }
}

fn inside<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
    found.push(expr);
    expr.parts().into_iter().for_each(|part| inside(part, found));
    if let Expr::ArrayCompr { query, .. } | Expr::SetCompr { query, .. } | Expr::ObjectCompr { query, .. } =
        expr
    {
        in_query(query, found);
    }
}

/// Every query of a rule.
fn queries(rule: &Rule) -> Vec<&Query> {
    let mut found: Vec<&Query> = bodies(rule).iter().map(|body| &body.query).collect();
    for expr in every(rule) {
        if let Expr::ArrayCompr { query, .. }
        | Expr::SetCompr { query, .. }
        | Expr::ObjectCompr { query, .. } = expr
        {
            found.push(query);
        }
    }
    let mut at = 0;
    while let Some(query) = found.get(at).copied() {
        for statement in &query.stmts {
            if let Literal::Every { query, .. } = &statement.literal {
                found.push(query);
            }
        }
        at += 1;
    }
    found
}

/// The names that `some x` and `every x in` give by their place only.
fn named_by_span(module: &Named<'_>, rule: &Rule) -> Vec<String> {
    let mut names = Vec::new();
    for query in queries(rule) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    names.extend(vars.iter().map(|s| module.parsed.text(*s).to_string()))
                }
                Literal::Every { key, value, .. } => {
                    names.extend(key.iter().chain([value]).map(|s| module.parsed.text(*s).to_string()));
                }
                Literal::SomeIn { .. } | Literal::Expr { .. } | Literal::NotExpr { .. } => {}
            }
        }
    }
    names
}

/// Names that a rule's bodies bind, with their places.
fn binders(module: &Named<'_>, rule: &Rule) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    for query in queries(rule) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    found.extend(vars.iter().map(|span| (module.parsed.text(*span).to_string(), *span)));
                }
                Literal::SomeIn { key, value, .. } => {
                    key.iter().chain([value]).for_each(|p| places(p, &mut found))
                }
                Literal::Expr { expr: Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. }, .. } => {
                    places(lhs, &mut found);
                }
                Literal::Every { key, value, .. } => {
                    found.extend(
                        key.iter().chain([value]).map(|span| (module.parsed.text(*span).to_string(), *span)),
                    );
                }
                Literal::Expr { .. } | Literal::NotExpr { .. } => {}
            }
        }
    }
    found
}

fn places(pattern: &Expr, found: &mut Vec<(String, Span)>) {
    match pattern {
        Expr::Var { span, value } => found.push((value.clone(), *span)),
        Expr::Array { items, .. } => items.iter().for_each(|item| places(item, found)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| places(value, found)),
        _ => {}
    }
}
