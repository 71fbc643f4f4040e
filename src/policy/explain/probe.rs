//! Rules that are added beside a bundle's own to ask the engine about a part of one of them.
//!
//! A probe stands in a module of its own, with the package and the imports of the module it is about, so that every
//! name means in it what it means there. Its text is the author's, cut at the spans of the syntax tree. Values that a
//! probe rests on come as documents, never as text.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use regorus::{Engine, Value};

use super::super::check::package_of;
use super::super::engine;
use super::super::syntax::Parsed;

/// Where probes are asked: a compiled bundle and one input.
pub(super) struct Ground<'a> {
    pub pristine: &'a Engine,
    pub input: Value,
    pub steps_max: u32,
    /// What every name of ours begins with, and none of the bundle's.
    pub mark: Arc<str>,
}

/// What the engine says to one probe.
pub(super) type Said = Result<Value, String>;

/// Probes of one module, compiled together.
pub(super) struct Probes {
    engine: Engine,
    package: String,
    steps_max: u32,
    mark: Arc<str>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(pristine: &'a Engine, input: Value, steps_max: u32, modules: &[Parsed]) -> Self {
        let mut mark = "interlock_probe".to_owned();
        while modules.iter().any(|parsed| parsed.file.text.contains(&mark)) {
            mark.push('_');
        }
        Self { pristine, input, steps_max, mark: mark.into() }
    }

    /// `bodies` are what follows the name of each rule; `values` are documents, by number.
    pub(super) fn probes(
        &self,
        module: &Parsed,
        bodies: &[String],
        values: &[Value],
    ) -> Result<Probes, String> {
        let package = package_of(module).ok_or("its package has no plain name")?;
        let imports = module.module.imports.iter().map(|import| module.text(import.span));
        let mut text = format!("package {package}\n\n");
        // Rego v1 is what the engine reads; what else is imported decides what names mean.
        for import in
            imports.filter(|import| !import.contains("rego.v1") && !import.contains("future.keywords"))
        {
            text.push_str(import);
            text.push('\n');
        }
        for (number, body) in bodies.iter().enumerate() {
            text.push_str(&format!("\n{}_{number} {body}\n", self.mark));
        }
        let mut engine = self.pristine.clone();
        let failed = |e: anyhow::Error| trouble(&e.to_string(), &self.mark);
        engine.add_policy(format!("{}.rego", self.mark), text).map_err(failed)?;
        let numbered = values.iter().enumerate();
        let documents: regorus::value::Object =
            numbered.map(|(n, value)| (Value::String(format!("v{n}").into()), value.clone())).collect();
        let root = [(Value::String(Arc::clone(&self.mark)), documents.into_value())];
        let root: regorus::value::Object = root.into_iter().collect();
        engine.add_data(root.into_value()).map_err(failed)?;
        let first = format!("data.{package}.{}_0", self.mark);
        engine.compile_with_entrypoint(&Arc::from(first.as_str())).map_err(failed)?;
        engine.set_input(self.input.clone());
        Ok(Probes { engine, package, steps_max: self.steps_max, mark: Arc::clone(&self.mark) })
    }

    /// The document that holds a value of [`Ground::probes`].
    pub(super) fn document(&self, number: usize) -> String {
        format!("data.{}.v{number}", self.mark)
    }
}

impl Probes {
    pub(super) fn ask(&self, number: usize) -> Said {
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let mut engine = self.engine.clone();
            engine::bound(&mut engine, self.steps_max);
            engine.eval_rule(format!("data.{}.{}_{number}", self.package, self.mark))
        }));
        match asked {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) if engine::is_step_limit(&e) => {
                Err("needs more steps than an evaluation may take".into())
            }
            Ok(Err(e)) => Err(trouble(&e.to_string(), &self.mark)),
            Err(_) => Err("the engine panicked".into()),
        }
    }
}

/// What the engine says is wrong, with its place if that is in a file of the bundle.
fn trouble(error: &str, mark: &str) -> String {
    let message = error.rsplit("error: ").next().unwrap_or(error).trim().replace('\n', " ");
    let place = error.split_once("--> ").and_then(|(_, rest)| rest.lines().next());
    match place.map(str::trim).filter(|place| !place.starts_with(mark)) {
        Some(place) => format!("{place}: {message}"),
        None => message,
    }
}
