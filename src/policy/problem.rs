//! What an author is told about policy: everything that keeps a bundle from being loaded, and what is wrong
//! with it in view of the routes it judges.

use std::sync::Arc;

use super::fault::Fault;

/// What it keeps from happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A gateway does not activate the bundle.
    Error,
    /// A gateway logs it.
    Warning,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, with its place. Ordered by file and place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Relative to the bundle's root; empty if the bundle as a whole is meant.
    pub file: Arc<str>,
    /// From 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Where it ends on the same line: one past its last character.
    pub end_column: u32,
    pub severity: Severity,
    /// Stable name of the check, such as `input_unknown`.
    pub rule: &'static str,
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        Self {
            file: fault.file.clone(),
            line: fault.line,
            column: fault.column,
            end_column: fault.column + 1,
            severity: Severity::Error,
            rule: fault.rule,
            message: fault.message.clone(),
            help: None,
        }
    }
}

impl Problem {
    /// As what keeps a bundle from being activated.
    pub(in crate::policy) fn to_fault(&self) -> Fault {
        let message = match &self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message.clone(),
        };
        Fault { file: self.file.clone(), line: self.line, column: self.column, rule: self.rule, message }
    }
}
