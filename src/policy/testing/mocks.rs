//! Functions that tests replace by `with`.
//!
//! The engine keeps what replaces a function under its whole path, and looks a call up as it is written: a call from
//! inside the function's own package, which names it alone, is not replaced, in silence. So in the files that tests
//! run on, such calls are written with the whole path. Where nothing is replaced, every file is as it is.

use std::collections::BTreeSet;

use super::super::check::names::{Kind, Named, Place, Root, Scope, World};
use super::super::syntax::{Expr, Step};

/// What to put in where, in the text of one module.
pub(super) type Additions = Vec<(usize, String)>;

/// For every module of `world`, by its number.
pub(super) fn additions(world: &World<'_>) -> Vec<Additions> {
    let mut replaced: BTreeSet<String> = BTreeSet::new();
    for module in &world.modules {
        for rule in &module.parsed.module.rules {
            rule.each_modifier(&mut |modifier| {
                let Some(reference) = modifier.refr.reference() else { return };
                let root = world.root(module, &Scope::new(), reference.root);
                let Root::Data(mut path) = root else { return };
                path.extend(reference.steps.iter().filter_map(|step| match step {
                    Step::Name(name) => Some((*name).to_owned()),
                    Step::Index(_) => None,
                }));
                if let Place::Rule { node, kind: Kind::Function, exact: true } = world.place(&path) {
                    replaced.insert(node);
                }
            });
        }
    }
    let of_module = |module: &Named<'_>| {
        let mut additions = Additions::new();
        let package = module.package.join(".");
        for rule in &module.parsed.module.rules {
            rule.each_expr(&mut |expr| {
                let Expr::Call { fcn, .. } = expr else { return };
                let Expr::Var { span, value } = &**fcn else { return };
                if replaced.contains(&format!("{package}.{value}")) {
                    additions.push((span.start as usize, format!("data.{package}.")));
                }
            });
        }
        additions
    };
    world.modules.iter().map(of_module).collect()
}

/// The text with its additions.
pub(super) fn applied(text: &str, additions: &Additions) -> String {
    let mut additions = additions.clone();
    additions.sort();
    let (mut whole, mut done) = (String::with_capacity(text.len()), 0);
    for (at, added) in additions {
        whole.push_str(text.get(done..at).unwrap_or_default());
        whole.push_str(&added);
        done = at;
    }
    whole + text.get(done..).unwrap_or_default()
}
