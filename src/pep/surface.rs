//! A surface as it is enforced: who may ask, what it declares, where it leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::authority::{Credential, Identity, Presented, Unauthenticated};
use crate::canonical::Rules;
use crate::canonical::target::CanonicalTarget;
use crate::canonical::template::PathTemplate;
use crate::model::{ActionName, Actor, PackageName, ReasonCode, SurfaceName};
use crate::upstream::Upstream;

pub struct Surface {
    pub name: SurfaceName,
    /// Lowercase authorities it is served under; empty: any.
    pub hosts: BTreeSet<Arc<str>>,
    pub package: PackageName,
    /// The first that recognizes a credential decides.
    pub identities: Vec<Box<dyn Identity>>,
    pub routes: Routes,
    pub upstream: Upstream,
    pub credential: Option<Credential>,
    /// From the capture of the read set to the first byte.
    pub permit_age_max: Duration,
}

pub struct Route {
    pub action: ActionName,
    pub method: Method,
    pub template: PathTemplate,
    pub rules: Rules,
}

/// The routes of a surface, most specific first.
pub struct Routes(Vec<Route>);

/// A route, and the parameters its template took from the path.
pub struct Matched<'a> {
    pub route: &'a Route,
    pub params: Vec<(Arc<str>, String)>,
}

/// No route fits.
#[derive(Debug, PartialEq, Eq)]
pub enum NoRoute {
    Path,
    /// The path fits routes with these methods only.
    Method(Vec<Method>),
}

impl Routes {
    pub fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by(|a, b| a.template.specificity(&b.template));
        Self(routes)
    }

    pub fn find(&self, method: &Method, target: &CanonicalTarget) -> Result<Matched<'_>, NoRoute> {
        let mut methods = Vec::new();
        for route in &self.0 {
            let Some(params) = route.template.matches(target) else { continue };
            if route.method == *method {
                return Ok(Matched { route, params });
            }
            methods.push(route.method.clone());
        }
        Err(if methods.is_empty() { NoRoute::Path } else { NoRoute::Method(methods) })
    }
}

impl Surface {
    pub fn authenticate(&self, presented: &Presented<'_>) -> Result<Arc<Actor>, Unauthenticated> {
        for identity in &self.identities {
            if let Some(actor) = identity.authenticate(presented)? {
                return Ok(actor);
            }
        }
        Err(Unauthenticated(ReasonCode::CredentialMissing))
    }
}
