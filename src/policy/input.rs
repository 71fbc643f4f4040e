//! The policy input: one tree, from which both the engine's value and the evidence bytes are made.
//!
//! The bytes are RFC 8785, the value is `convert::value_of` of the same tree, so that what a receipt names by
//! `input_digest` is what policy judged, and a replay that reads the bytes back gets the same tree.
//! `time.unix_ns` is the wall time cut to whole microseconds, as `time.rfc3339` shows it. Such a number is
//! beyond 2^53 but has a double of its own until 2116, and RFC 8785 writes that double with exactly the
//! digits of the microsecond; the engine gets those digits as an integer.

use std::sync::Arc;

use bytes::Bytes;

use super::pdp::{Context, Question};
use crate::canonical::{CanonicalRequest, ExecutionRequest, PolicyBody};
use crate::clock::WallTime;
use crate::model::{Actor, Json, Number, Object};

/// Built once per question.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub tree: Json,
    /// RFC 8785.
    pub bytes: Bytes,
}

impl Input {
    pub(super) fn of(question: &Question) -> Self {
        let Question { execution, context, now, .. } = question;
        Self::from_tree(input_of(execution, context, *now))
    }

    pub(super) fn from_tree(tree: Json) -> Self {
        let bytes = Bytes::from(canonical_bytes(&tree));
        Self { tree, bytes }
    }
}

/// The whole input: what the request determines, what is true, and when it is asked.
pub fn input_of(execution: &ExecutionRequest, context: &Context, now: WallTime) -> Json {
    let mut members = subject_members(execution);
    members.push(member("context", context_of(context)));
    members.push(member("time", time_of(now)));
    object(members)
}

/// What the request alone determines of the input: everything but `context` and `time`.
pub fn subject(execution: &ExecutionRequest) -> Json {
    object(subject_members(execution))
}

fn subject_members(execution: &ExecutionRequest) -> Vec<(Arc<str>, Json)> {
    let ExecutionRequest { surface, action, actor, request, .. } = execution;
    let mut members = vec![
        member("surface", Json::string(surface.as_str())),
        member("action", Json::string(action.as_str())),
        member("actor", actor_of(actor)),
        member("request", request_of(request)),
    ];
    if let Some(key) = request.idempotency_key() {
        members.push(member("idempotency_key", Json::string(key.as_str())));
    }
    members
}

fn canonical_bytes(tree: &Json) -> Vec<u8> {
    crate::canonical::json::write(tree)
}

fn member(name: &str, value: Json) -> (Arc<str>, Json) {
    (name.into(), value)
}

fn object(members: Vec<(Arc<str>, Json)>) -> Json {
    Json::Object(Object::new(members).expect("callers name each member once"))
}

fn whole(n: u64) -> Json {
    Json::Number(Number::new(n as f64).expect("an integer is finite"))
}

fn actor_of(actor: &Actor) -> Json {
    Json::object([
        ("id", Json::string(actor.id.as_str())),
        ("method", Json::string(actor.method.as_str())),
        ("claims", actor.claims.clone()),
    ])
}

fn request_of(request: &CanonicalRequest) -> Json {
    // A route's parameters and the headers of one message have distinct names.
    let params = request.params().iter().map(|(name, value)| (name.clone(), Json::string(value)));
    let headers = request.headers().iter().map(|(name, value)| (name.clone(), Json::String(value.clone())));
    let mut members = vec![
        member("method", Json::string(request.method().as_str())),
        member("authority", Json::string(request.authority())),
        member("path", Json::String(request.path().clone())),
        member("params", object(params.collect())),
        member("query", request.query().clone()),
        member("headers", object(headers.collect())),
        member("size", whole(request.size())),
        member("digest", Json::string(&request.digest().to_string())),
    ];
    match request.body() {
        PolicyBody::Value(body) => members.push(member("body", body.clone())),
        PolicyBody::Absent => {}
    }
    if let Some(media_type) = request.media_type() {
        members.push(member("media_type", Json::String(media_type.clone())));
    }
    object(members)
}

fn context_of(context: &Context) -> Json {
    Json::object([
        ("facts", context.facts.clone()),
        ("budgets", context.budgets.clone()),
        ("approvals", context.approvals.clone()),
        ("attempt", whole(context.attempt.into())),
    ])
}

fn time_of(now: WallTime) -> Json {
    let microseconds = WallTime::from_unix_ns(now.unix_ns() / 1_000 * 1_000);
    Json::object([
        ("unix_ns", whole(microseconds.unix_ns())),
        ("rfc3339", Json::string(&microseconds.rfc3339())),
    ])
}
