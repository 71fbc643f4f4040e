//! JSON Schema (2020-12) of `input`, for authors and their editors; shipped as policies/input.schema.json.

use crate::model::{Json, Number};

/// What [`super::Pdp::judge`] hands to policy. A test holds it against real inputs and the shipped file.
pub fn input_schema() -> Json {
    let members = [
        ("surface", text("The exposed interface, such as `payments`.")),
        ("action", text("What the route does, such as `charge.create`.")),
        ("idempotency_key", text("As the caller sent it; absent if there is none.")),
        ("actor", actor()),
        ("request", request()),
        ("context", context()),
        ("time", time()),
    ];
    let required = ["surface", "action", "actor", "request", "context", "time"];
    let mut schema = vec![
        ("$schema".into(), Json::string("https://json-schema.org/draft/2020-12/schema")),
        ("title".into(), Json::string("Interlock policy input")),
    ];
    if let Json::Object(body) =
        closed("One execution request, and what is known about it.", members, &required)
    {
        schema.extend(body.members().iter().cloned());
    }
    Json::Object(crate::model::Object::new(schema).expect("the names above differ"))
}

fn actor() -> Json {
    let method = Json::object([
        ("description", Json::string("How the identity was proved.")),
        ("enum", Json::Array(["mtls", "jwt", "api_key"].map(Json::string).to_vec())),
    ]);
    let members = [
        ("id", text("The proved identity.")),
        ("method", method),
        ("claims", open("What the credential says about the actor.")),
    ];
    closed("Who asks.", members, &["id", "method", "claims"])
}

fn request() -> Json {
    let query = Json::object([
        ("description", Json::string("Name to text; to a list of texts for names declared as lists.")),
        ("type", Json::string("object")),
        (
            "additionalProperties",
            Json::object([("anyOf", Json::Array(vec![kind("string"), list(kind("string"))]))]),
        ),
    ]);
    let body =
        described("The JSON body, or a form as nested objects of texts; absent for opaque bodies and none.");
    let digest = Json::object([
        ("description", Json::string("Of the exact message that would be written.")),
        ("type", Json::string("string")),
        ("pattern", Json::string("^sha-256:[0-9a-f]{64}$")),
    ]);
    let members = [
        ("method", text("Uppercase.")),
        ("authority", text("The upstream's, as written in `host`.")),
        ("path", text("In its one form, percent-encoded.")),
        ("params", texts("Path parameters, decoded.")),
        ("query", query),
        ("headers", texts("Every header that would be written, lowercase, without the credential's.")),
        ("body", body),
        ("media_type", text("`type/subtype`; absent without a body.")),
        ("size", whole("Bytes of the body.")),
        ("digest", digest),
    ];
    let required = ["method", "authority", "path", "params", "query", "headers", "size", "digest"];
    closed("The canonical request: the bytes that leave, parsed.", members, &required)
}

fn context() -> Json {
    let members = [
        ("facts", open("Declared facts by name: each is the whole document of its source.")),
        ("budgets", budgets()),
        ("approvals", list(approval())),
        ("attempt", whole("Evaluations of this request so far, counting this one.")),
    ];
    closed("What authority knows.", members, &["facts", "budgets", "approvals", "attempt"])
}

fn budgets() -> Json {
    let members = [
        ("spent", amount("What confirmed requests drew in this window.")),
        (
            "in_flight",
            amount("What is reserved: permitted requests without an outcome, or with an unknown one."),
        ),
    ];
    let budget = closed("Before this request.", members, &["spent", "in_flight"]);
    Json::object([
        ("description", Json::string("Declared budgets of this action by name.")),
        ("type", Json::string("object")),
        ("additionalProperties", budget),
    ])
}

fn approval() -> Json {
    let role = Json::object([
        ("description", Json::string("In which role.")),
        ("enum", Json::Array(["approver", "operator", "administrator"].map(Json::string).to_vec())),
    ]);
    let members = [
        ("by", text("The operator.")),
        ("role", role),
        ("at", text("When: UTC, six fractional digits.")),
        ("reason", text("Why.")),
    ];
    closed("One operator's word for exactly this request.", members, &["by", "role", "at", "reason"])
}

fn amount(description: &str) -> Json {
    let zero = Json::Number(Number::new(0.0).expect("zero is finite"));
    Json::object([
        ("description", Json::string(description)),
        ("type", Json::string("number")),
        ("minimum", zero),
    ])
}

fn time() -> Json {
    let members = [
        ("unix_ns", whole("Nanoseconds since 1970, whole microseconds.")),
        ("rfc3339", text("The same moment, UTC, six fractional digits.")),
    ];
    closed("When it is decided. The only clock policy has.", members, &["unix_ns", "rfc3339"])
}

fn described(description: &str) -> Json {
    Json::object([("description", Json::string(description))])
}

fn kind(name: &str) -> Json {
    Json::object([("type", Json::string(name))])
}

fn text(description: &str) -> Json {
    Json::object([("description", Json::string(description)), ("type", Json::string("string"))])
}

fn whole(description: &str) -> Json {
    let zero = Json::Number(Number::new(0.0).expect("zero is finite"));
    Json::object([
        ("description", Json::string(description)),
        ("type", Json::string("integer")),
        ("minimum", zero),
    ])
}

fn list(items: Json) -> Json {
    Json::object([("type", Json::string("array")), ("items", items)])
}

fn open(description: &str) -> Json {
    Json::object([("description", Json::string(description)), ("type", Json::string("object"))])
}

fn texts(description: &str) -> Json {
    Json::object([
        ("description", Json::string(description)),
        ("type", Json::string("object")),
        ("additionalProperties", kind("string")),
    ])
}

/// An object with these members and no others.
fn closed<const N: usize>(description: &str, members: [(&str, Json); N], required: &[&str]) -> Json {
    Json::object([
        ("description", Json::string(description)),
        ("type", Json::string("object")),
        ("properties", Json::object(members)),
        ("required", Json::Array(required.iter().map(|name| Json::string(name)).collect())),
        ("additionalProperties", Json::Bool(false)),
    ])
}
