//! What the config says about the requests a policy will judge: surfaces, their routes, and what is in the
//! input there.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{Json, PackageName};

/// All surfaces of a config.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub surfaces: Vec<SurfaceShape>,
}

#[derive(Clone, Debug)]
pub struct SurfaceShape {
    pub name: Arc<str>,
    pub package: PackageName,
    /// Names of declared facts.
    pub facts: BTreeSet<Arc<str>>,
    pub budgets: Vec<BudgetShape>,
    pub routes: Vec<RouteShape>,
}

#[derive(Clone, Debug)]
pub struct BudgetShape {
    pub name: Arc<str>,
    /// `None`: every action.
    pub actions: Option<BTreeSet<Arc<str>>>,
}

#[derive(Clone, Debug)]
pub struct RouteShape {
    pub action: Arc<str>,
    pub method: Arc<str>,
    /// As the config writes it, for messages.
    pub path: Arc<str>,
    pub params: BTreeSet<Arc<str>>,
    /// Query names that policy sees as lists.
    pub query_lists: BTreeSet<Arc<str>>,
    /// Lowercase.
    pub forward_headers: BTreeSet<Arc<str>>,
    pub body: BodyShape,
    pub idempotency_key_required: bool,
}

/// What policy sees of a route's body.
#[derive(Clone, Debug)]
pub enum BodyShape {
    /// Nothing is accepted.
    None,
    /// Something policy sees only size, type and digest of.
    Opaque {
        required: bool,
    },
    /// Nested objects of texts.
    Form {
        required: bool,
        schema: Option<Json>,
    },
    Json {
        required: bool,
        schema: Option<Json>,
    },
}

impl SurfaceShape {
    /// Names of the budgets that count this action.
    pub(in crate::policy) fn budgets_of(&self, action: &str) -> impl Iterator<Item = &Arc<str>> {
        let counts = move |budget: &&BudgetShape| {
            budget.actions.as_ref().is_none_or(|actions| actions.contains(action))
        };
        self.budgets.iter().filter(counts).map(|budget| &budget.name)
    }
}
