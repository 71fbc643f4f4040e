//! A bundle of Rego and data that was read, checked and compiled: the only thing that can be activated.
//!
//! In: a directory (or named bytes) and the packages that surfaces name. Out: a [`Bundle`], or a
//! [`BundleError`] with every fault. After: each package exists and has a `permit` set, no rule can
//! reach what REGORUS-class faults need (see `check`), and the whole compiles. Parsing runs on a thread
//! of its own with a large stack and a deadline; a hostile source could still cost memory, so operators
//! who take bundles from strangers load them in a child process first.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use regorus::Engine;

use super::explain::At;
use super::fault::{BundleError, Fault};
use super::source::{RegoFile, Sources};
use super::syntax::{self, Parsed};
use super::testing::{Options, TestsIn};
use super::{check, convert, engine, lexical, testing};
use crate::limits;
use crate::model::entry::{PolicyFile, policy_revision};
use crate::model::{Digest, PackageName};

/// The evaluator as receipts name it.
pub const ENGINE: &str = "regorus/0.14.1 interpreter strict";

/// The four sets of the contract, in precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ContractSet {
    Quarantine,
    Deny,
    Escalate,
    Permit,
}

impl ContractSet {
    pub(super) const ALL: [Self; 4] = [Self::Quarantine, Self::Deny, Self::Escalate, Self::Permit];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Deny => "deny",
            Self::Escalate => "escalate",
            Self::Permit => "permit",
        }
    }
}

/// The sets a package defines, as the engine's rule paths.
pub(super) type Sets = Vec<(ContractSet, String)>;

/// Checked and compiled policy.
#[derive(Debug)]
pub struct Bundle {
    sources: Sources,
    revision: Digest,
    files: Vec<PolicyFile>,
    packages: BTreeMap<PackageName, Sets>,
}

impl Bundle {
    /// Reads and checks a directory. `packages` are those that surfaces name. Blocks for as long as
    /// compiling takes.
    pub fn load(root: &Path, packages: &[PackageName]) -> Result<Self, BundleError> {
        Self::from_sources(Sources::read(root)?, packages)
    }

    /// The same from files already in memory.
    pub fn from_sources(sources: Sources, packages: &[PackageName]) -> Result<Self, BundleError> {
        Self::checked(sources, packages, Checks::All)
    }

    /// [`Bundle::from_sources`], and its own tests pass, if it has any: what a gateway activates. Blocks. The tests have
    /// the same deadline.
    pub fn tested(sources: Sources, packages: &[PackageName]) -> Result<Self, BundleError> {
        Self::checked(sources, packages, Checks::AllAndTests)
    }

    /// Without the static checks, so that a test can show what they keep out.
    #[cfg(test)]
    pub(in crate::policy) fn unchecked(
        sources: Sources,
        packages: &[PackageName],
    ) -> Result<Self, BundleError> {
        Self::checked(sources, packages, Checks::Compile)
    }

    fn checked(sources: Sources, packages: &[PackageName], checks: Checks) -> Result<Self, BundleError> {
        let wanted = packages.to_vec();
        let (send, receive) = sync_channel(1);
        let worker = move || {
            let made = catch_unwind(AssertUnwindSafe(|| build(sources, &wanted, checks)));
            let made = made.unwrap_or_else(|_| Err(BundleError::engine_panicked()));
            // Nobody waits any more after the deadline; then the bundle is dropped here.
            let _ = send.send(made);
        };
        let spawned = thread::Builder::new()
            .name("policy-load".into())
            .stack_size(limits::EVALUATION_STACK_BYTES)
            .spawn(worker);
        if let Err(e) = spawned {
            return Err(Fault::of_bundle("no_thread", format!("no thread to load it on: {e}")).into());
        }
        match receive.recv_timeout(Duration::from_millis(limits::POLICY_LOAD_MAX_MS)) {
            Ok(made) => made,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let message = format!("could not be loaded within {} ms", limits::POLICY_LOAD_MAX_MS);
                Err(Fault::of_bundle("load_timeout", message).into())
            }
        }
    }

    /// RECEIPTS.md `policy.revision`. Covers every file that can influence a decision: Rego and data,
    /// not tests.
    pub fn revision(&self) -> Digest {
        self.revision
    }

    /// What the revision covers, sorted by name.
    pub fn files(&self) -> &[PolicyFile] {
        &self.files
    }

    pub fn packages(&self) -> impl Iterator<Item = &PackageName> {
        self.packages.keys()
    }

    /// The files themselves: evidence for replay.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(super) fn sets(&self, package: &PackageName) -> Option<&Sets> {
        self.packages.get(package)
    }

    /// A prepared engine that shares nothing with any other.
    pub(super) fn engine(&self) -> Result<Engine, BundleError> {
        compile(&self.sources, &self.packages)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    All,
    AllAndTests,
    #[cfg(test)]
    Compile,
}

impl Checks {
    const fn are_static(self) -> bool {
        match self {
            Self::All | Self::AllAndTests => true,
            #[cfg(test)]
            Self::Compile => false,
        }
    }
}

fn build(sources: Sources, wanted: &[PackageName], checks: Checks) -> Result<Bundle, BundleError> {
    let all_rego = || sources.policies.iter().chain(&sources.tests);
    let mut faults: Vec<Fault> = all_rego().flat_map(lexical::faults).collect();
    BundleError::unless_none(std::mem::take(&mut faults))?;

    let mut modules = Vec::new();
    for file in &sources.policies {
        match Parsed::parse(file) {
            Ok(parsed) => modules.push(parsed),
            Err(fault) => faults.push(fault),
        }
    }
    let mut tests = Vec::new();
    for file in &sources.tests {
        match Parsed::parse(file) {
            Ok(parsed) => tests.push(parsed),
            Err(fault) => faults.push(fault),
        }
    }
    BundleError::unless_none(std::mem::take(&mut faults))?;

    faults.extend(outside_roots(&sources, &modules));
    let data = sources.data_document();
    let (packages, contract) = check::contract(&modules, wanted);
    faults.extend(contract);
    if checks.are_static() {
        faults.extend(check::faults(&modules, &sources.data, &data));
        let held = |name: &str| sources.tests.iter().any(|file| *file.name == *name);
        let count = modules.len();
        modules.append(&mut tests);
        faults.extend(testing::test_faults(&modules, &sources, held));
        modules.truncate(count);
    }
    BundleError::unless_none(faults)?;

    let engine = compile(&sources, &packages)?;
    trial(&engine, &packages)?;
    let files = files(&sources);
    fits_a_leaf(&files)?;
    let revision = policy_revision(ENGINE, &files);
    if checks == Checks::AllAndTests {
        passes_its_tests(&sources)?;
    }
    Ok(Bundle { sources, revision, files, packages })
}

/// What a bundle holds beside the roots it declares: another bundle's place, where OPA would refuse it as well.
fn outside_roots(sources: &Sources, modules: &[Parsed]) -> Vec<Fault> {
    let Some(roots) = &sources.roots else { return Vec::new() };
    let is_owned = |path: &str| {
        let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        roots.iter().any(|root| root.is_empty() || **root == *path || below(root))
    };
    let fault = |file: &Arc<str>, path: &str| {
        let message = format!("stands at `{path}`, outside of the roots that the manifest declares");
        (!is_owned(path)).then(|| Fault::of_file(file, "roots", message))
    };
    let packages = modules.iter().zip(&sources.policies).filter_map(|(parsed, file)| {
        // One that has no plain name is in no root but the whole.
        fault(&file.name, &check::package_of(parsed).unwrap_or_default().replace('.', "/"))
    });
    let documents = sources.data.iter().filter_map(|file| fault(&file.name, &file.mount.join("/")));
    packages.chain(documents).collect()
}

/// Adds every deciding file and document to a new engine and compiles each entry point.
fn compile(sources: &Sources, packages: &BTreeMap<PackageName, Sets>) -> Result<Engine, BundleError> {
    let mut engine = engine::strict();
    let files: Vec<&RegoFile> = sources.policies.iter().collect();
    for file in &sources.policies {
        engine
            .add_policy(file.name.to_string(), file.text.to_string())
            .map_err(|e| syntax::engine_fault(&[file], "syntax", &e.to_string()))?;
    }
    engine
        .add_data(convert::value_of(&sources.data_document()))
        .map_err(|e| Fault::of_bundle("data_invalid", e.to_string()))?;
    for (_, path) in packages.values().flatten() {
        engine
            .compile_with_entrypoint(&Arc::from(path.as_str()))
            .map_err(|e| syntax::engine_fault(&files, "does_not_compile", &e.to_string()))?;
    }
    Ok(engine)
}

/// Evaluates each set once on an empty input. It may fail for want of members; it may not panic, and it
/// may not need more than an evaluation's steps.
fn trial(engine: &Engine, packages: &BTreeMap<PackageName, Sets>) -> Result<(), BundleError> {
    for (_, path) in packages.values().flatten() {
        let mut engine = engine.clone();
        engine::bound(&mut engine, limits::EVALUATION_STEPS_MAX_DEFAULT);
        engine.set_input(regorus::Value::new_object());
        let tried = catch_unwind(AssertUnwindSafe(|| engine.eval_rule(path.clone())));
        let message = match tried {
            Ok(Ok(_)) => continue,
            Ok(Err(e)) if engine::is_step_limit(&e) => {
                "needs more steps than an evaluation may take, on an empty input"
            }
            Ok(Err(_)) => continue,
            Err(_) => "makes the engine panic on an empty input",
        };
        return Err(Fault::of_bundle("trial_failed", format!("{path} {message}")).into());
    }
    Ok(())
}

fn passes_its_tests(sources: &Sources) -> Result<(), BundleError> {
    if sources.tests.is_empty() {
        return Ok(());
    }
    let report = testing::run(sources, TestsIn::TestFiles, &Options::plain())?;
    let faults = report.results.iter().filter_map(|result| {
        let why = result.failure()?;
        let message = format!("its own test {} does not pass: {why}", result.full_name());
        let At { file, line, column } = result.at.clone();
        Some(Fault { file, line, column, rule: "test_failed", message })
    });
    BundleError::unless_none(faults.collect())
}

fn files(sources: &Sources) -> Vec<PolicyFile> {
    let policies = sources.policies.iter().map(|f| (&f.name, f.sha256));
    let data = sources.data.iter().map(|f| (&f.name, f.sha256));
    let mut files: Vec<PolicyFile> =
        policies.chain(data).map(|(name, sha256)| PolicyFile { name: name.clone(), sha256 }).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The leaf that activates a bundle names each of its files.
fn fits_a_leaf(files: &[PolicyFile]) -> Result<(), BundleError> {
    let bytes = serde_json::to_vec(files).expect("strings and digests always serialize").len();
    if bytes <= limits::POLICY_FILE_LIST_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the names and digests of its {} files take {bytes} bytes in the receipt of its activation, at most {}: use \
         fewer files, or shorter names",
        files.len(),
        limits::POLICY_FILE_LIST_BYTES_MAX
    );
    Err(Fault::of_bundle("file_list_too_large", message).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::json;
    use crate::model::Json;

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
        Sources::from_files(files).and_then(|s| Bundle::from_sources(s, &[])).expect("bundle")
    }

    const P: (&str, &str) = ("p/p.rego", "package p\npermit contains \"a\" if input.x\n");

    #[test]
    fn the_revision_is_the_digest_of_the_construction_in_rfc_8785_form() {
        let bundle = bundle(&[P, ("ref/\u{e9}.schema.json", "{}"), ("ref/a.json", "{}")]);
        let file = |name: &str, text: &str| {
            let sha256 = Digest::of(text.as_bytes()).to_string();
            Json::object([("name", Json::string(name)), ("sha256", Json::string(&sha256))])
        };
        let construction = Json::object([
            ("construction", Json::string("interlock-policy-revision-v1")),
            ("engine", Json::string("regorus/0.14.1 interpreter strict")),
            ("files", Json::Array(vec![file(P.0, P.1), file("ref/a.json", "{}")])),
        ]);
        assert_eq!(bundle.revision(), Digest::of(&json::write(&construction)));
    }

    #[test]
    fn the_revision_covers_what_decides_and_only_that() {
        let base = bundle(&[P]).revision();
        assert_eq!(bundle(&[P, ("p/p_test.rego", "package p_test\ntest_a := true\n")]).revision(), base);
        assert_eq!(bundle(&[P, ("README.md", "text")]).revision(), base);
        assert_ne!(bundle(&[P, ("ref/a.json", "{}")]).revision(), base);
        assert_ne!(bundle(&[P, ("q/q.rego", "package q\nx := 1\n")]).revision(), base);
        assert_ne!(bundle(&[("p/renamed.rego", P.1)]).revision(), base);
    }

    #[test]
    fn a_list_of_files_that_its_leaf_cannot_hold_is_refused_by_its_bound() {
        let named = |bytes: usize| {
            let files = (0..limits::POLICY_FILES_MAX).map(|n| {
                let directory = "d".repeat(bytes);
                (format!("{directory}/f{n:03}.rego"), format!("package p{n}\nx := {n}\n").into_bytes())
            });
            Sources::from_files(files).and_then(|s| Bundle::from_sources(s, &[]))
        };
        assert!(named(4).is_ok());
        let error = named(40).expect_err("too long");
        assert_eq!(error.faults()[0].rule, "file_list_too_large");
        assert!(error.to_string().contains("at most 60000"), "{error}");
    }

    #[test]
    fn a_bundle_that_runs_away_on_an_empty_input_is_refused() {
        let body = "package p\npermit contains \"a\" if {\n\tsome x in numbers.range(1, 9999)\n\
                    \tsome y in numbers.range(1, 9999)\n\tx + y == 0\n}\n";
        let sources =
            Sources::from_files([("p.rego".to_string(), body.as_bytes().to_vec())]).expect("sources");
        let error = Bundle::from_sources(sources, &[]).expect_err("runs away");
        assert_eq!(error.faults()[0].rule, "trial_failed");
    }
}
