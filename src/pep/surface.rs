//! A surface as it is enforced: who may ask, what it declares, where it leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::authority::Identities;
use crate::canonical::Rules;
use crate::canonical::target::CanonicalTarget;
use crate::canonical::template::PathTemplate;
use crate::model::{ActionName, PackageName, SurfaceName};
use crate::upstream::Upstream;

pub struct Surface {
    pub name: SurfaceName,
    pub hosts: Hosts,
    pub package: PackageName,
    pub identities: Identities,
    pub routes: Routes,
    pub upstream: Upstream,
    /// From the capture of the read set to the first byte.
    pub permit_age_max: Duration,
}

pub struct Route {
    pub action: ActionName,
    pub method: Method,
    pub template: PathTemplate,
    pub rules: Arc<Rules>,
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

/// Lowercase `host` or `host:port` a surface is served under; none: any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(BTreeSet<Arc<str>>);

impl Hosts {
    pub fn new(hosts: BTreeSet<Arc<str>>) -> Self {
        Self(hosts)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|host| &**host)
    }

    /// Whether requests under this authority (lowercase, with the port if the caller gave one) are for this
    /// surface. A host declared without a port fits every port.
    pub fn fit(&self, authority: &str) -> bool {
        if self.0.is_empty() || self.0.contains(authority) {
            return true;
        }
        // In an IPv6 address without a port, the last colon is inside the brackets.
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => self.0.contains(host),
            Some(_) | None => false,
        }
    }
}
