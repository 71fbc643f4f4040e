//! What the names of a bundle stand for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::source::DataFile;
use super::super::syntax::{AssignOp, Expr, Literal, Parsed, Reference, Rule, RuleHead, Statement, Step};
use super::package_of;
use crate::model::Json;

/// What a rule gives when none of its bodies holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Kind {
    Function,
    /// Partial sets and objects, and rules with a default or a constant: there is always a value.
    Defined,
    Undefined,
}

/// A module with its package and imports.
pub(in crate::policy) struct Named<'a> {
    pub parsed: &'a Parsed,
    pub package: Vec<String>,
    /// Alias to path, `input` or `data` first.
    pub imports: BTreeMap<String, Vec<String>>,
}

/// Every package, rule and document of the bundle.
pub(in crate::policy) struct World<'a> {
    pub modules: Vec<Named<'a>>,
    pub packages: BTreeMap<Vec<String>, BTreeMap<String, Kind>>,
    pub mounts: Vec<Vec<String>>,
    pub data: &'a Json,
}

/// Names that are bound here.
pub(in crate::policy) type Scope = BTreeSet<String>;

/// What a reference begins at.
pub(in crate::policy) enum Root {
    Local,
    Input(Vec<String>),
    Data(Vec<String>),
}

/// Where a path under `data` leads.
pub(in crate::policy) enum Place {
    Rule {
        node: String,
        kind: Kind,
        exact: bool,
    },
    Document,
    /// A package as a whole, or something above packages.
    Packages,
    Nowhere,
}

impl<'a> World<'a> {
    pub(in crate::policy) fn new(modules: &'a [Parsed], files: &[DataFile], data: &'a Json) -> Self {
        let mut world = Self { modules: Vec::new(), packages: BTreeMap::new(), mounts: Vec::new(), data };
        for file in files {
            world.mounts.push(file.mount.iter().map(|part| part.to_string()).collect());
        }
        for parsed in modules {
            // `contract` has reported a package that is no plain path.
            let Some(package) = package_of(parsed) else { continue };
            let package: Vec<String> = package.split('.').map(str::to_string).collect();
            let rules = world.packages.entry(package.clone()).or_default();
            for rule in &parsed.module.rules {
                let kind = kind_of(rule);
                let known = rules.entry(rule.name().to_string()).or_insert(kind);
                if kind == Kind::Defined && *known == Kind::Undefined {
                    *known = kind;
                }
            }
            world.modules.push(Named { parsed, package, imports: imports_of(parsed) });
        }
        world
    }

    pub(in crate::policy) fn root(&self, module: &Named<'_>, scope: &Scope, name: &str) -> Root {
        if scope.contains(name) {
            return Root::Local;
        }
        match module.imports.get(name).map(Vec::as_slice) {
            Some([first, rest @ ..]) if first == "input" => return Root::Input(rest.to_vec()),
            Some([_, rest @ ..]) => return Root::Data(rest.to_vec()),
            Some([]) | None => {}
        }
        match name {
            "input" => Root::Input(Vec::new()),
            "data" => Root::Data(Vec::new()),
            _ if self.packages.get(&module.package).is_some_and(|rules| rules.contains_key(name)) => {
                Root::Data(module.package.iter().cloned().chain([name.to_string()]).collect())
            }
            // Bound by its use, as an index or in a unification.
            _ => Root::Local,
        }
    }

    pub(in crate::policy) fn place(&self, path: &[String]) -> Place {
        let longest = self.packages.iter().filter(|(p, _)| path.starts_with(p)).max_by_key(|(p, _)| p.len());
        if let Some((package, rules)) = longest {
            let Some(name) = path.get(package.len()) else { return Place::Packages };
            return match rules.get(name) {
                Some(kind) => Place::Rule {
                    node: format!("{}.{name}", package.join(".")),
                    kind: *kind,
                    exact: path.len() == package.len() + 1,
                },
                None if self.packages.keys().any(|p| p.starts_with(path)) => Place::Packages,
                None => Place::Nowhere,
            };
        }
        if self.packages.keys().any(|package| package.starts_with(path)) {
            return Place::Packages;
        }
        let documented = |mount: &Vec<String>| path.starts_with(mount) || mount.starts_with(path);
        if self.mounts.iter().any(documented) { Place::Document } else { Place::Nowhere }
    }

    /// Whether the documents hold a value at exactly this path.
    pub(in crate::policy) fn has_value(&self, path: &[String]) -> bool {
        let step = |at: &'a Json, name: &String| at.as_object().and_then(|o| o.member(name));
        path.iter().try_fold(self.data, step).is_some()
    }
}

fn kind_of(rule: &Rule) -> Kind {
    match rule {
        Rule::Default { args, .. } if args.is_empty() => Kind::Defined,
        Rule::Default { .. } => Kind::Function,
        Rule::Spec { head: RuleHead::Func { .. }, .. } => Kind::Function,
        Rule::Spec { head: RuleHead::Set { .. }, .. } => Kind::Defined,
        Rule::Spec { head: RuleHead::Compr { refr, assign, .. }, bodies, .. } => {
            let indexed =
                refr.reference().is_some_and(|r| r.steps.iter().any(|s| matches!(s, Step::Index(_))));
            let constant = bodies.is_empty() && assign.as_ref().is_none_or(|a| is_constant(&a.value));
            if indexed || constant { Kind::Defined } else { Kind::Undefined }
        }
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Var { .. } | Expr::Call { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => false,
        Expr::ArrayCompr { .. } | Expr::SetCompr { .. } | Expr::ObjectCompr { .. } => true,
        other => other.parts().into_iter().all(is_constant),
    }
}

pub(in crate::policy) fn imports_of(parsed: &Parsed) -> BTreeMap<String, Vec<String>> {
    let mut imports = BTreeMap::new();
    for import in &parsed.module.imports {
        let Some(path) = import.refr.reference().and_then(|r| static_path(&r)) else { continue };
        if path.first().is_none_or(|first| first != "input" && first != "data") {
            continue; // rego.v1, future.keywords
        }
        let alias = match import.alias {
            Some(span) => parsed.text(span).to_string(),
            None => path.last().cloned().unwrap_or_default(),
        };
        imports.insert(alias, path);
    }
    imports
}

fn static_path(reference: &Reference<'_>) -> Option<Vec<String>> {
    let steps = reference.steps.iter().map(|step| match step {
        Step::Name(name) => Some((*name).to_string()),
        Step::Index(_) => None,
    });
    std::iter::once(Some(reference.root.to_string())).chain(steps).collect()
}

/// Adds the names a pattern binds.
pub(in crate::policy) fn bind(pattern: &Expr, scope: &mut Scope) {
    match pattern {
        Expr::Var { value, .. } => {
            scope.insert(value.clone());
        }
        Expr::Array { items, .. } => items.iter().for_each(|item| bind(item, scope)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| bind(value, scope)),
        _ => {}
    }
}

/// The names a query declares for itself and what is inside it.
pub(in crate::policy) fn declared(parsed: &Parsed, body: &[Statement]) -> Scope {
    let mut scope = Scope::new();
    for statement in body {
        match &statement.literal {
            Literal::SomeVars { vars } => {
                scope.extend(vars.iter().map(|span| parsed.text(*span).to_string()));
            }
            Literal::SomeIn { key, value, .. } => {
                key.iter().chain([value]).for_each(|pattern| bind(pattern, &mut scope));
            }
            Literal::Expr { expr: Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } } => {
                bind(lhs, &mut scope)
            }
            Literal::Expr { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
        }
    }
    scope
}
