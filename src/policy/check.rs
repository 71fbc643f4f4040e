//! Static checks on the syntax trees of a bundle, with every fault named by file and line.
//!
//! They keep out what the engine cannot bound or contain, what a replay could not repeat, and what means
//! something else here than in OPA in the direction of a permit. docs/POLICY.md is the author's side of it.

pub(super) mod bounds;
pub(super) mod builtins;
mod graph;
pub(super) mod names;
pub(super) mod negation;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;

use super::bundle::{ContractSet, Sets};
use super::fault::Fault;
use super::source::DataFile;
use super::syntax::{Parsed, Rule, RuleHead, Step};
use names::{Named, World};
use walk::Walk;

use crate::model::{Json, PackageName};

/// A package's path without `data.`, if every part is a plain identifier.
pub(super) fn package_of(parsed: &Parsed) -> Option<String> {
    let reference = parsed.module.package.refr.reference()?;
    let mut path = reference.root.to_string();
    for step in reference.steps {
        match step {
            Step::Name(name) => {
                path.push('.');
                path.push_str(name);
            }
            Step::Index(_) => return None,
        }
    }
    path.parse::<PackageName>().ok().map(|_| path)
}

/// The sets each package defines, and what is wrong with them.
pub(super) fn contract(
    modules: &[Parsed],
    wanted: &[PackageName],
) -> (BTreeMap<PackageName, Sets>, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut packages: BTreeMap<PackageName, Sets> = BTreeMap::new();
    for parsed in modules {
        let Some(package) = package_of(parsed) else {
            let message = "a package is plain identifiers joined by dots, at most 128 bytes".into();
            faults.push(parsed.fault(parsed.module.package.span, "package_name", message));
            continue;
        };
        let Ok(name) = package.parse::<PackageName>() else { continue };
        let sets = packages.entry(name).or_default();
        for rule in &parsed.module.rules {
            let Some(set) = ContractSet::ALL.into_iter().find(|set| set.name() == rule.name()) else {
                // A set that nobody reads would load in silence, and a `deny` in it would never fire.
                if let Some(meant) = misspelt(rule).filter(|_| wanted.iter().any(|w| w.as_str() == package)) {
                    let message = format!(
                        "`{}` is none of the four sets a surface asks for, and looks like `{meant}`; write `{meant}`, or \
                         give it a name of its own",
                        rule.name()
                    );
                    faults.push(parsed.fault(rule.span(), "contract_misspelt", message));
                }
                continue;
            };
            if is_partial_set(rule) {
                let path = format!("data.{package}.{}", set.name());
                if !sets.iter().any(|(known, _)| *known == set) {
                    sets.push((set, path));
                }
            } else {
                let message = format!(
                    "`{0}` must be a partial set of reasons: `{0} contains \"code\" if {{ ... }}`; nothing else can be \
                     told apart from a mistake",
                    set.name()
                );
                faults.push(parsed.fault(rule.span(), "contract_shape", message));
            }
        }
        sets.sort();
    }
    for package in wanted {
        match packages.get(package) {
            None => {
                let message = format!("no file defines package {package}, which a surface names");
                faults.push(Fault::of_bundle("package_missing", message));
            }
            Some(sets) if !sets.iter().any(|(set, _)| *set == ContractSet::Permit) => {
                let message = format!(
                    "package {package} has no `permit contains ...` rule, so nothing on its surface could ever be \
                     permitted; to close a surface, freeze it"
                );
                faults.push(Fault::of_bundle("permit_missing", message));
            }
            Some(_) => {}
        }
    }
    // Packages without a single set are libraries; nobody can judge by them.
    packages.retain(|_, sets| !sets.is_empty());
    (packages, faults)
}

/// The contract's name that the name of a set looks like.
fn misspelt(rule: &Rule) -> Option<&'static str> {
    let name = rule.name().to_ascii_lowercase();
    let mut names = ContractSet::ALL.into_iter().map(ContractSet::name);
    names.find(|meant| is_partial_set(rule) && strsim::damerau_levenshtein(&name, meant) <= 2)
}

/// `name contains element`, with nothing after the name.
fn is_partial_set(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head: RuleHead::Set { refr, key: Some(_) }, .. } => {
            refr.reference().is_some_and(|r| r.steps.is_empty())
        }
        Rule::Spec { .. } | Rule::Default { .. } => false,
    }
}

/// Everything wrong with the rules: refused calls, references that lead nowhere or everywhere, negations
/// that fire on missing input, recursion, and packages without one owner.
pub(super) fn faults(modules: &[Parsed], files: &[DataFile], data: &Json) -> Vec<Fault> {
    let world = World::new(modules, files, data);
    let mut faults = owners(&world);
    faults.extend(overlaps(&world, files));
    for parsed in modules.iter().filter(|parsed| !parsed.module.rego_v1) {
        faults.push(parsed.fault(parsed.module.package.span, "not_rego_v1", "is not Rego v1".into()));
    }
    if let Some(walk) = Walk::over(&world) {
        faults.extend(graph::faults(&world, &walk));
        faults.extend(walk.faults);
    }
    faults
}

/// One package, one directory: else any second file could add a `permit` to it.
fn owners(world: &World<'_>) -> Vec<Fault> {
    let directory = |named: &Named<'_>| {
        named
            .parsed
            .file
            .name
            .rsplit_once('/')
            .map_or_else(String::new, |(directory, _)| directory.to_string())
    };
    let mut first: BTreeMap<&[String], String> = BTreeMap::new();
    let mut faults = Vec::new();
    for named in &world.modules {
        let own = directory(named);
        let owner = first.entry(&named.package).or_insert_with(|| own.clone());
        if *owner != own {
            let message = format!(
                "package {} belongs to the directory `{owner}`; a package has one directory, so that nobody else can \
                 add rules to it",
                named.package.join(".")
            );
            faults.push(named.parsed.fault(named.parsed.module.package.span, "package_owner", message));
        }
        faults.extend(rules_over_packages(world, named));
    }
    faults
}

/// A rule at another package's path, as `p.permit contains ...` in the package above `p`, is one of its rules
/// to the engine.
fn rules_over_packages(world: &World<'_>, named: &Named<'_>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for rule in &named.parsed.module.rules {
        let path: Vec<String> = named.package.iter().cloned().chain([rule.name().to_string()]).collect();
        if let Some(package) = world.packages.keys().find(|package| package.starts_with(&path)) {
            let message = format!(
                "the rule {} stands where package {} does, and would add to its rules; rename one of them",
                path.join("."),
                package.join(".")
            );
            faults.push(named.parsed.fault(rule.span(), "package_owner", message));
        }
    }
    faults
}

/// A document at a rule's path would override the rule.
fn overlaps(world: &World<'_>, files: &[DataFile]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (file, mount) in files.iter().zip(&world.mounts) {
        for package in world.packages.keys() {
            if package.starts_with(mount) || mount.starts_with(package) {
                let message = format!(
                    "the document data.{} overlaps package {}, whose rules it would override; keep documents under a \
                     root of their own, such as `ref/`",
                    mount.join("."),
                    package.join(".")
                );
                faults.push(Fault::of_file(&file.name, "data_overlap", message));
            }
        }
    }
    faults
}
