//! The input of one route, as a type: the generic input with what the config says about this route.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::super::schema::input_schema;
use super::super::surroundings::{BodyShape, RouteShape, SurfaceShape, Surroundings};
use super::lattice::{Member, Rest, Shape, Type};
use super::schema;
use crate::model::PackageName;

/// What one request may be about.
pub(super) struct Route {
    /// `POST /v1/charges (charge.create)`; empty where nothing is known.
    pub shown: String,
    /// Of its surface; `None` where nothing is known.
    pub package: Option<PackageName>,
    pub input: Type,
}

/// Every route of the config, and last one of which nothing is known, for packages that no surface names.
pub(super) fn routes(surroundings: Option<&Surroundings>) -> Vec<Route> {
    let generic = schema::of(&input_schema());
    let surfaces = surroundings.iter().flat_map(|surroundings| &surroundings.surfaces);
    let all = surfaces.flat_map(|surface| surface.routes.iter().map(move |route| (surface, route)));
    let known = all.map(|(surface, route)| Route {
        shown: format!("{} {} ({})", route.method, route.path, route.action),
        package: Some(surface.package.clone()),
        input: input_of(&generic, surface, route),
    });
    let mut routes: Vec<Route> = known.collect();
    routes.push(Route { shown: String::new(), package: None, input: of_any_route(&generic) });
    routes
}

fn input_of(generic: &Type, surface: &SurfaceShape, route: &RouteShape) -> Type {
    let mut input = members_of(generic);
    put(&mut input, "surface", Type::texts([&*surface.name]), true);
    put(&mut input, "action", Type::texts([&*route.action]), true);
    if route.idempotency_key_required {
        put(&mut input, "idempotency_key", Type::text(), true);
    }
    let mut request = members_of(&taken(&input, "request"));
    put(&mut request, "method", Type::texts([&*route.method]), true);
    put(
        &mut request,
        "params",
        closed(route.params.iter().map(|name| (name.clone(), Type::text(), true))),
        true,
    );
    put(&mut request, "headers", headers(route), true);
    put(&mut request, "query", query(route), true);
    match body(&route.body) {
        Some((body, required)) => {
            put(&mut request, "body", body, required);
        }
        None => drop(request.members.remove("body")),
    }
    match &route.body {
        BodyShape::None => drop(request.members.remove("media_type")),
        BodyShape::Opaque { required }
        | BodyShape::Form { required, .. }
        | BodyShape::Json { required, .. } => {
            put(&mut request, "media_type", Type::text(), *required);
        }
    }
    put(&mut input, "request", Type::object(request), true);
    let mut context = members_of(&taken(&input, "context"));
    let facts = surface.facts.iter().map(|name| (name.clone(), Type::json(), true));
    put(&mut context, "facts", closed(facts), true);
    let budgets = surface.budgets_of(&route.action).map(|name| (name.clone(), sums(), true));
    put(&mut context, "budgets", closed(budgets), true);
    put(&mut input, "context", Type::object(context), true);
    Type::object(input)
}

/// Of budgets nobody has declared yet, the unit is not known to have fractions.
fn of_any_route(generic: &Type) -> Type {
    let mut input = members_of(generic);
    let mut context = members_of(&taken(&input, "context"));
    let budgets = Shape { members: BTreeMap::new(), rest: Rest::Open(Rc::new(sums())) };
    put(&mut context, "budgets", Type::object(budgets), true);
    put(&mut input, "context", Type::object(context), true);
    Type::object(input)
}

fn sums() -> Type {
    closed(["spent", "in_flight"].map(|name| (name.into(), Type::number(None), true)))
}

fn headers(route: &RouteShape) -> Type {
    // Ours, beside those of the caller.
    let own = ["host", "content-length", "content-type", "idempotency-key"].map(Arc::from);
    closed(route.forward_headers.iter().cloned().chain(own).map(|name| (name, Type::text(), false)))
}

fn query(route: &RouteShape) -> Type {
    let lists = route.query_lists.iter();
    let list =
        |name: &Arc<str>| (name.clone(), Member { ty: Rc::new(Type::array(Type::text())), required: false });
    // A name that ends in `[]` is a list, and no identifier.
    Type::object(Shape { members: lists.map(list).collect(), rest: Rest::Open(Rc::new(Type::text())) })
}

/// `None` if policy never sees one.
fn body(shape: &BodyShape) -> Option<(Type, bool)> {
    let read = |schema: &Option<crate::model::Json>| schema.as_ref().map_or(Type::json(), schema::of);
    match shape {
        BodyShape::None | BodyShape::Opaque { .. } => None,
        BodyShape::Json { required, schema } => Some((read(schema), *required)),
        BodyShape::Form { required, schema } => Some((read(schema).meet(&form()), *required)),
    }
}

/// Texts, and lists and objects of them.
fn form() -> Type {
    let nested = || Shape { members: BTreeMap::new(), rest: Rest::Open(Rc::new(Type::any())) };
    let leaf = Type::text().join(Type::array(Type::any())).join(Type::object(nested()));
    Type::object(Shape { members: BTreeMap::new(), rest: Rest::Open(Rc::new(leaf)) })
}

fn closed(members: impl IntoIterator<Item = (Arc<str>, Type, bool)>) -> Type {
    let member = |(name, ty, required)| (name, Member { ty: Rc::new(ty), required });
    Type::object(Shape { members: members.into_iter().map(member).collect(), rest: Rest::Closed })
}

fn put(shape: &mut Shape, name: &str, ty: Type, required: bool) {
    shape.members.insert(name.into(), Member { ty: Rc::new(ty), required });
}

fn taken(shape: &Shape, name: &str) -> Type {
    shape.members.get(name).map_or(Type::open_object(), |member| (*member.ty).clone())
}

fn members_of(ty: &Type) -> Shape {
    ty.object
        .as_ref()
        .map_or(Shape { members: BTreeMap::new(), rest: Rest::Closed }, |shape| (**shape).clone())
}
