//! Static checks on the syntax trees of a bundle.

use std::collections::BTreeMap;

use super::bundle::{ContractSet, Sets};
use super::fault::Fault;
use super::source::DataFile;
use super::syntax::{Parsed, Rule, RuleHead, Step};
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

/// `name contains element`, with nothing after the name.
fn is_partial_set(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head: RuleHead::Set { refr, key: Some(_) }, .. } => {
            refr.reference().is_some_and(|r| r.steps.is_empty())
        }
        Rule::Spec { .. } | Rule::Default { .. } => false,
    }
}

pub(super) fn faults(modules: &[Parsed], files: &[DataFile], data: &Json) -> Vec<Fault> {
    let _ = (modules, files, data);
    Vec::new()
}
