//! JSON Schema as a type. A keyword that is not read only makes the type larger.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::lattice::{Booleans, Member, Numbers, Rest, Shape, Texts, Type};
use crate::limits;
use crate::model::{Json, Object};

/// What fits `schema`.
pub(super) fn of(schema: &Json) -> Type {
    let mut reader = Reader { root: schema, left: limits::POLICY_TYPE_NODES_MAX };
    reader.read(schema, 0)
}

struct Reader<'s> {
    root: &'s Json,
    /// Schemas that may still be read: one that refers to itself has no end.
    left: usize,
}

impl Reader<'_> {
    fn read(&mut self, schema: &Json, depth: usize) -> Type {
        let object = match schema {
            Json::Bool(false) => return Type::never(),
            Json::Object(object) if depth < limits::POLICY_TYPE_DEPTH_MAX && self.left > 0 => object,
            _ => return Type::any(),
        };
        self.left -= 1;
        let mut ty = self.kinds(object);
        if let Some(shape) = self.shape(object, depth) {
            ty = ty.meet(&Type { object: Some(Rc::new(shape)), ..Type::json() });
        }
        if let Some(items) = self.items(object, depth) {
            ty = ty.meet(&Type { array: Some(Rc::new(items)), ..Type::json() });
        }
        if let Some(Json::Array(values)) = object.member("enum") {
            ty = ty.meet(&Type::joined(values.iter().map(Type::of_constant)));
        }
        if let Some(value) = object.member("const") {
            ty = ty.meet(&Type::of_constant(value));
        }
        if let Some(Json::String(reference)) = object.member("$ref")
            && let Some(target) = self.target(reference)
        {
            ty = ty.meet(&self.read(&target, depth + 1));
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Json::Array(schemas)) = object.member(keyword) {
                let choices: Vec<Type> = schemas.iter().map(|schema| self.read(schema, depth + 1)).collect();
                ty = ty.meet(&Type::joined(choices));
            }
        }
        if let Some(Json::Array(schemas)) = object.member("allOf") {
            for schema in schemas {
                ty = ty.meet(&self.read(schema, depth + 1));
            }
        }
        ty
    }

    fn kinds(&self, object: &Object) -> Type {
        let names: Vec<&str> = match object.member("type") {
            Some(Json::String(name)) => vec![name],
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
            _ => return Type::json(),
        };
        Type::joined(names.into_iter().map(|name| match name {
            "null" => Type::null(),
            "boolean" => Type { boolean: Some(Booleans { yes: true, no: true }), ..Type::never() },
            "integer" => Type::number(Some(true)),
            "number" => {
                let whole = object.member("multipleOf").is_some_and(is_whole);
                Type { number: Some(Numbers { whole: Some(whole), only: None }), ..Type::never() }
            }
            "string" => Type { text: Some(Texts(None)), ..Type::never() },
            "array" => Type::array(Type::any()),
            "object" => Type::open_object(),
            _ => Type::any(),
        }))
    }

    fn shape(&mut self, object: &Object, depth: usize) -> Option<Shape> {
        let additional = object.member("additionalProperties");
        let properties = object.member("properties").and_then(Json::as_object);
        let required = object.member("required");
        if properties.is_none() && additional.is_none() && required.is_none() {
            return None;
        }
        let patterns = object.member("patternProperties").is_some();
        let rest = match additional {
            Some(Json::Bool(false)) if !patterns => Rest::Closed,
            Some(Json::Object(_)) if !patterns => {
                Rest::Open(Rc::new(additional.map_or(Type::any(), |schema| self.read(schema, depth + 1))))
            }
            // Members are listed, and a typo is likelier than one that nobody wrote down.
            None if properties.is_some_and(|p| !p.members().is_empty()) && !patterns => Rest::Undeclared,
            Some(_) | None => Rest::Open(Rc::new(Type::any())),
        };
        let mut members: BTreeMap<Arc<str>, Member> = BTreeMap::new();
        for (name, schema) in properties.iter().flat_map(|p| p.members()) {
            let ty = Rc::new(self.read(schema, depth + 1));
            members.insert(name.clone(), Member { ty, required: false });
        }
        if let Some(Json::Array(names)) = required {
            for name in names.iter().filter_map(Json::as_str) {
                let unlisted = || match &rest {
                    Rest::Open(ty) => ty.clone(),
                    Rest::Closed | Rest::Undeclared => Rc::new(Type::any()),
                };
                let member =
                    members.entry(name.into()).or_insert_with(|| Member { ty: unlisted(), required: true });
                member.required = true;
            }
        }
        Some(Shape { members, rest })
    }

    fn items(&mut self, object: &Object, depth: usize) -> Option<Type> {
        let prefix = match object.member("prefixItems") {
            Some(Json::Array(schemas)) => schemas.iter().map(|s| self.read(s, depth + 1)).collect(),
            _ => Vec::new(),
        };
        let items = object.member("items").map(|schema| match schema {
            // Drafts before 2020-12.
            Json::Array(_) => Type::any(),
            schema => self.read(schema, depth + 1),
        });
        match (prefix.is_empty(), items) {
            (true, items) => items,
            (false, items) => Some(Type::joined(prefix).join(items.unwrap_or(Type::any()))),
        }
    }

    /// A place in the same text.
    fn target(&self, reference: &str) -> Option<Json> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() {
            return Some(self.root.clone());
        }
        let mut at = self.root;
        for step in pointer.strip_prefix('/')?.split('/') {
            let step = step.replace("~1", "/").replace("~0", "~");
            at = match at {
                Json::Object(object) => object.member(&step)?,
                Json::Array(items) => items.get(step.parse::<usize>().ok()?)?,
                Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return None,
            };
        }
        Some(at.clone())
    }
}

fn is_whole(value: &Json) -> bool {
    matches!(value, Json::Number(n) if n.as_exact_i64().is_some())
}

#[cfg(test)]
mod tests {
    use super::super::lattice::Step;
    use super::*;
    use crate::canonical::json;

    fn read(text: &str) -> Type {
        of(&json::parse(text.as_bytes(), json::Bounds::BODY).expect(text))
    }

    fn member(ty: &Type, name: &str) -> (String, bool) {
        match ty.member(name) {
            Step::Found { ty, certain } => (ty.shown(), certain),
            Step::Undeclared { .. } => ("undeclared".into(), false),
            Step::Absent { .. } => ("absent".into(), false),
            Step::NotAContainer => ("no container".into(), false),
        }
    }

    #[test]
    fn members_have_their_kinds_and_whether_they_are_always_there() {
        let ty = read(
            r##"{"type":"object","required":["a"],"additionalProperties":false,"properties":{
                "a":{"type":"integer"},"b":{"enum":["x","y"]},"c":{"$ref":"#/$defs/c"}},
                "$defs":{"c":{"anyOf":[{"type":"string"},{"type":"null"}]}}}"##,
        );
        assert_eq!(ty.kinds(), ["object"]);
        assert_eq!(member(&ty, "a"), ("number".into(), true));
        assert_eq!(member(&ty, "b"), ("\"x\" or \"y\"".into(), false));
        assert_eq!(member(&ty, "c"), ("null or string".into(), false));
        assert_eq!(member(&ty, "d").0, "absent");
    }

    #[test]
    fn what_is_neither_allowed_nor_forbidden_is_undeclared() {
        assert_eq!(member(&read(r#"{"type":"object","properties":{"a":{}}}"#), "b").0, "undeclared");
        let open = r#"{"type":"object","properties":{"a":{}},"additionalProperties":{"type":"string"}}"#;
        assert_eq!(member(&read(open), "b").0, "string");
        assert_eq!(member(&read(r#"{"type":"object"}"#), "b").0, "anything");
    }

    #[test]
    fn a_schema_that_refers_to_itself_has_a_type() {
        let ty =
            read(r##"{"type":"object","properties":{"next":{"$ref":"#"}},"additionalProperties":false}"##);
        assert_eq!(member(&ty, "next").0, "object");
        assert!(!read(r##"{"$ref":"#"}"##).is_never());
        assert!(!read(r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##).is_never());
    }

    #[test]
    fn parts_that_must_all_hold_are_met_and_choices_are_joined() {
        let ty = read(
            r#"{"allOf":[{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]},
                {"properties":{"b":{"type":"integer"}}}]}"#,
        );
        assert_eq!(member(&ty, "a"), ("string".into(), true));
        assert_eq!(member(&ty, "b"), ("number".into(), false));
        let ty = read(
            r#"{"oneOf":[{"type":"object","properties":{"k":{"const":"x"},"a":{}},"required":["k"],"additionalProperties":false},
                {"type":"object","properties":{"k":{"const":"y"},"b":{}},"required":["k"],"additionalProperties":false}]}"#,
        );
        assert_eq!(member(&ty, "k"), ("\"x\" or \"y\"".into(), true));
        assert!(!member(&ty, "a").1);
        assert_eq!(member(&ty, "c").0, "absent");
    }
}
