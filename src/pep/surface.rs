//! A surface as it is enforced: who may ask, what it declares, where it leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::authority::{BudgetRule, Facts, Identities};
use crate::canonical::target::CanonicalTarget;
use crate::canonical::template::PathTemplate;
use crate::canonical::{ExecutionRequest, Rules};
use crate::limits;
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
    pub authority: Authority,
}

/// What a surface declares about the state that its decisions rest on and change.
#[derive(Clone, Debug)]
pub struct Authority {
    /// What each request draws on, and policy sees the sums of.
    pub budgets: Arc<[BudgetRule]>,
    pub facts: Facts,
    /// `None`: keys are passed on, and claim nothing.
    pub idempotency: Option<Idempotency>,
    pub holds: Holds,
}

/// One execution for one `Idempotency-Key`, for an actor on this surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// How long a key is taken, from its PERMIT on.
    pub keep: Duration,
    /// The largest answer that is kept for repeated requests, bytes of its body; 0 keeps none.
    pub answer_bytes_max: usize,
}

/// Requests that policy holds for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// How long approvals count, from the ESCALATE on.
    pub expire_after: Duration,
    /// The longest `Prefer: wait=N` that is honoured.
    pub wait_max: Duration,
}

impl Default for Authority {
    fn default() -> Self {
        let holds = Holds {
            expire_after: Duration::from_secs(limits::HOLD_EXPIRE_MINUTES_DEFAULT * 60),
            wait_max: Duration::from_secs(limits::HOLD_WAIT_SECONDS_DEFAULT),
        };
        Self { budgets: Arc::new([]), facts: Facts::none(), idempotency: None, holds }
    }
}

impl Surface {
    /// Bytes of the largest answer that is kept for requests with the same key; `None` if none is kept for this one.
    /// What must not reach the disk does not do so as an answer either.
    pub(super) fn keep_max(&self, execution: &ExecutionRequest) -> Option<usize> {
        let claims = self.authority.idempotency?;
        let request = &execution.request;
        let is_kept = request.idempotency_key().is_some() && request.redaction().is_none();
        (is_kept && claims.answer_bytes_max > 0).then_some(claims.answer_bytes_max)
    }
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
