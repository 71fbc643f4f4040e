//! What policy can know of this config: the shape of the requests its rules will judge.

use std::sync::Arc;

use super::{Config, RouteConfig, SurfaceConfig};
use crate::canonical::{BodyRules, Required};
use crate::model::{Json, PackageName};
use crate::policy::{BodyShape, BudgetShape, RouteShape, SurfaceShape, Surroundings};

impl Config {
    /// Surfaces and routes, for the type check of policy.
    pub fn policy_surroundings(&self) -> Surroundings {
        Surroundings { surfaces: self.surfaces.iter().map(surface).collect() }
    }

    /// The packages that surfaces name.
    pub fn policy_packages(&self) -> Vec<PackageName> {
        self.surfaces.iter().map(|surface| surface.package.clone()).collect()
    }
}

fn surface(surface: &SurfaceConfig) -> SurfaceShape {
    let budgets = surface.budgets.iter().map(|rule| BudgetShape {
        name: rule.name.as_str().into(),
        actions: rule.actions.as_ref().map(|names| names.iter().map(|name| name.as_str().into()).collect()),
    });
    SurfaceShape {
        name: surface.name.as_str().into(),
        package: surface.package.clone(),
        facts: surface.facts.iter().map(|fact| fact.name.as_str().into()).collect(),
        budgets: budgets.collect(),
        routes: surface.routes.iter().map(route).collect(),
    }
}

fn route(route: &RouteConfig) -> RouteShape {
    let rules = &route.rules;
    RouteShape {
        action: route.action.as_str().into(),
        method: route.method.as_str().into(),
        path: route.path_text.clone(),
        params: route.path.parameters().map(Arc::from).collect(),
        query_lists: rules.query_lists.clone(),
        forward_headers: rules.forward_headers.clone(),
        body: body(&rules.body, rules.schema.as_ref().map(|schema| schema.document().clone())),
        idempotency_key_required: rules.idempotency_key == Required::Required,
    }
}

fn body(rules: &BodyRules, schema: Option<Json>) -> BodyShape {
    let is = |required: Required| required == Required::Required;
    match rules {
        BodyRules::None => BodyShape::None,
        BodyRules::Opaque { required, .. } => BodyShape::Opaque { required: is(*required) },
        BodyRules::Form { required } => BodyShape::Form { required: is(*required), schema },
        BodyRules::Json { required, .. } => BodyShape::Json { required: is(*required), schema },
    }
}
