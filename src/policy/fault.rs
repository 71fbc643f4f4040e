//! What is wrong with a bundle: all of it, each with its place and what to do.

use std::fmt;
use std::sync::Arc;

/// One thing that keeps a bundle from being loaded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Relative to the bundle's root; empty if the bundle as a whole is meant.
    pub file: Arc<str>,
    /// From 1; 0 if the file as a whole is meant.
    pub line: u32,
    pub column: u32,
    /// Stable name of the check, such as `builtin_refused`.
    pub rule: &'static str,
    /// What was found, and what to write instead.
    pub message: String,
}

impl Fault {
    pub(in crate::policy) fn of_file(file: &Arc<str>, rule: &'static str, message: String) -> Self {
        Self { file: file.clone(), line: 0, column: 0, rule, message }
    }

    pub(in crate::policy) fn of_bundle(rule: &'static str, message: String) -> Self {
        Self { file: "".into(), line: 0, column: 0, rule, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.line) {
            (true, _) => write!(f, "bundle: ")?,
            (false, 0) => write!(f, "{}: ", self.file)?,
            (false, line) => write!(f, "{}:{line}:{}: ", self.file, self.column)?,
        }
        write!(f, "{} [{}]", self.message, self.rule)
    }
}

/// The bundle cannot be used; nothing of it was activated. Shows every fault, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BundleError {
    faults: Vec<Fault>,
}

impl BundleError {
    /// `Err` if there is any fault.
    pub(in crate::policy) fn unless_none(mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort();
        faults.dedup();
        Err(Self { faults })
    }

    /// The engine, or what reads for it, has panicked outside of a thread that says more.
    pub fn engine_panicked() -> Self {
        Fault::of_bundle("engine_panicked", "the engine panicked on this bundle".into()).into()
    }

    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl From<Fault> for BundleError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}
