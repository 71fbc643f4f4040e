//! What an explanation says, as it is shown and written as JSON.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value as Shown;

use crate::model::Json;

/// A place in a file of the bundle, line and column from 1, in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct At {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

/// One rule, all definitions of its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleTrace {
    /// `data.gateway.payments.limit`.
    pub rule: String,
    /// Of a function: what it was called with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<Binding>>,
    pub bodies: Vec<BodyTrace>,
}

/// One of the four sets of a package.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetTrace {
    /// `permit`, `deny`, ...
    pub set: &'static str,
    #[serde(flatten)]
    pub trace: RuleTrace,
}

/// One body, or a definition without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BodyTrace {
    #[serde(flatten)]
    pub at: At,
    /// Its head, or `else`, as written.
    pub head: String,
    #[serde(flatten)]
    pub became: Became,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "became", rename_all = "snake_case")]
pub enum Became {
    /// It holds, and this is what it gives. A set's or object's body may give several.
    Made {
        values: Vec<Seen>,
    },
    /// It is the value of its rule if no other body gives one.
    Default {
        value: Seen,
    },
    /// An `else` that nobody came to: a body before it holds.
    NotReached,
    Failed(Box<Failure>),
    /// The engine did not answer.
    Unknown {
        why: String,
    },
}

/// The first expression that nothing fulfils.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    #[serde(flatten)]
    pub at: At,
    pub expression: String,
    pub how: How,
    /// Of an error, what the engine says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What stands in it, once for each way in which everything before it holds; at most [`crate::limits::EXPLAIN_ROWS_MAX`].
    pub rows: Vec<Vec<Binding>>,
    /// Rows that are not here.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_rows: usize,
    /// The rules that it rests on, where they have no value, are false or empty; or hold, and it is negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<RuleTrace>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is false, each time.
    False,
    /// Something in it has no value.
    Undefined,
    /// What it negates holds.
    Holds,
    /// There is nothing to take an element from, or no element fits.
    NoElement,
    /// It is the head: everything before it holds, and the head has no value.
    HeadUndefined,
    Error,
}

impl How {
    /// As the end of a sentence that begins with the expression.
    pub const fn words(self) -> &'static str {
        match self {
            Self::False => "is false",
            Self::Undefined => "is undefined",
            Self::Holds => "does not hold: what it negates is true",
            Self::NoElement => "has no element",
            Self::HeadUndefined => "has no value (everything before it holds)",
            Self::Error => "is an error",
        }
    }
}

/// What stands in an expression, and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Binding {
    pub name: String,
    #[serde(flatten)]
    pub value: Seen,
}

/// A value as it may be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    Value(Shown),
    /// Of a reference that goes through every element: each of them, as many as are shown.
    Each(Vec<Shown>),
    Undefined,
    /// Computed from what stays out of the log.
    Withheld,
}

/// Which values may be shown.
#[derive(Clone, Debug)]
pub enum Values {
    All,
    /// This is the input as the log has it.
    Redacted(Json),
}
