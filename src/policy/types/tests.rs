use super::super::source::Sources;
use super::super::surroundings::{BodyShape, BudgetShape, RouteShape, SurfaceShape, Surroundings};
use super::super::{Problem, examine};
use crate::canonical::json;

fn route(action: &str, method: &str, body: BodyShape) -> RouteShape {
    RouteShape {
        action: action.into(),
        method: method.into(),
        path: format!("/{action}").into(),
        params: ["id".into()].into(),
        query_lists: ["tag".into()].into(),
        forward_headers: ["accept".into()].into(),
        body,
        idempotency_key_required: false,
    }
}

/// A charge with a schema, and a list without a body.
fn surroundings() -> Surroundings {
    let schema = r#"{"type":"object","additionalProperties":false,"required":["amount","currency"],"properties":{
        "amount":{"type":"integer"},"currency":{"enum":["EUR","USD"]},"note":{"type":"string"},
        "discount":{"type":"integer"},"rate":{"type":"number"},
        "items":{"type":"array","items":{"type":"object","additionalProperties":false,"properties":{"sku":{"type":"string"}}}}}}"#;
    let schema = json::parse(schema.as_bytes(), json::Bounds::BODY).expect("JSON");
    let body = BodyShape::Json { required: true, schema: Some(schema) };
    let budgets = vec![BudgetShape { name: "day".into(), actions: Some(["charge.create".into()].into()) }];
    Surroundings {
        surfaces: vec![SurfaceShape {
            name: "payments".into(),
            package: "p".parse().expect("a name"),
            facts: ["stock".into()].into(),
            budgets,
            routes: vec![route("charge.create", "POST", body), route("charge.list", "GET", BodyShape::None)],
        }],
    }
}

fn examined(rules: &str) -> Vec<Problem> {
    let text = format!("package p\n\npermit contains \"ok\" if input.action == \"charge.list\"\n\n{rules}\n");
    let limits = r#"{"EUR":{"most":100},"USD":{"most":200}}"#;
    let files = [("p/p.rego", text.as_str()), ("ref/limits.json", limits)];
    let files = files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
    let sources = Sources::from_files(files).expect("sources");
    examine(sources, &["p".parse().expect("a name")], Some(&surroundings())).problems
}

/// The rules that were broken, each with line and column.
fn found(rules: &str) -> Vec<(&'static str, u32, u32)> {
    examined(rules).into_iter().map(|p| (p.rule, p.line, p.column)).collect()
}

#[test]
fn a_member_that_no_schema_has_is_found_where_it_stands_with_what_is_meant() {
    let problems = examined("deny contains \"large\" if input.request.body.amout > 5");
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(
        (problem.rule, problem.line, problem.column, problem.end_column),
        ("input_unknown", 5, 45, 50)
    );
    assert_eq!(problem.help.as_deref(), Some("did you mean `amount`?"));
}

#[test]
fn a_reference_is_judged_on_the_routes_its_body_can_be_about() {
    let list =
        "deny contains \"x\" if {\n\tinput.action == \"charge.list\"\n\tinput.request.body.amount > 5\n}";
    assert_eq!(found(list), [("input_unknown", 7, 16)]);
    let create =
        "deny contains \"x\" if {\n\tinput.action == \"charge.create\"\n\tinput.request.body.amount > 5\n}";
    assert_eq!(found(create), []);
    // Through a rule that says which route it is.
    let helper = "lists if input.action in {\"charge.list\"}\n\ndeny contains \"x\" if {\n\tlists\n\tinput.request.body.amount > 5\n}";
    assert_eq!(found(helper), [("input_unknown", 9, 16)]);
}

#[test]
fn an_action_that_no_route_has_makes_a_rule_unreachable() {
    assert_eq!(
        found("deny contains \"x\" if input.action == \"charge.creat\""),
        [("rule_unreachable", 5, 22)]
    );
    assert_eq!(
        found("deny contains \"x\" if input.action in {\"charge.create\", \"charge.lst\"}"),
        [("action_unknown", 5, 56)]
    );
    assert_eq!(
        found("deny contains \"x\" if input.request.method == \"PUT\""),
        [("rule_unreachable", 5, 22)]
    );
}

#[test]
fn comparisons_that_never_hold_are_found() {
    for (body, column) in [
        ("input.request.body.amount == \"5\"", 22),
        ("input.request.body.amount > \"5\"", 22),
        ("input.request.query.limit > 5", 22),
        ("input.request.body.currency == \"GBP\"", 22),
        ("input.request.body.currency in {\"GBP\", \"CHF\"}", 22),
        ("input.request.body.note == null", 22),
    ] {
        let found = found(&format!("deny contains \"x\" if {body}"));
        assert_eq!(found, [("comparison_impossible", 5, column)], "{body}");
    }
    assert_eq!(found("deny contains \"x\" if input.request.body.currency == \"EUR\""), []);
}

#[test]
fn a_rule_for_two_shapes_is_no_mistake() {
    let text = "amount := value if {\n\tvalue := input.request.body.amount\n\tis_number(value)\n}\n\namount := value if {\n\t\
                text := input.request.body.amount\n\tis_string(text)\n\tvalue := to_number(text)\n}\n\n\
                deny contains \"x\" if amount > 5";
    assert_eq!(found(text), []);
}

#[test]
fn a_refusal_that_an_absent_member_evades_is_warned_of_where_a_permit_holds_without_it() {
    let permit = "permit contains \"charge\" if input.request.body.amount < 100\n\n";
    let deny = "deny contains \"x\" if input.request.body.discount > 50";
    assert_eq!(found(deny), [], "nothing permits a charge");
    assert_eq!(found(&format!("{permit}{deny}")), [("optional_unguarded", 7, 22)]);
    let sees = "\n\ndeny contains \"missing\" if not input.request.body.discount";
    assert_eq!(found(&format!("{permit}{deny}{sees}")), []);
    let required = "deny contains \"x\" if input.request.body.amount > 50";
    assert_eq!(found(&format!("{permit}{required}")), []);
    let blocked = "deny contains \"x\" if input.request.body.note == \"bad\"";
    assert_eq!(found(&format!("{permit}{blocked}")), [], "absent is not the value that is blocked");
}

#[test]
fn documents_functions_and_facts_are_checked_too() {
    for (text, expected) in [
        ("deny contains \"x\" if data.ref.limits.EUR.mots < 5", ("data_unknown", 5, 42)),
        (
            "deny contains \"x\" if data.ref.limits[input.request.body.currency].mots < 5",
            ("data_unknown", 5, 67),
        ),
        ("deny contains \"x\" if input.context.facts.stok.left < 5", ("input_unknown", 5, 42)),
        ("deny contains \"x\" if startswith(input.request.body.amount, \"1\")", ("argument_type", 5, 33)),
        ("deny contains \"x\" if count(input.request.body.amount) > 1", ("argument_type", 5, 28)),
        (
            "deny contains \"x\" if {\n\tsome item in input.request.body.items\n\titem.skuu == \"a\"\n}",
            ("input_unknown", 7, 7),
        ),
        ("deny contains 5 if input.request.body.amount > 1", ("reason_shape", 5, 15)),
        ("deny contains {\"message\": \"x\"} if input.request.body.amount > 1", ("reason_shape", 5, 15)),
    ] {
        let found = found(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!((found[0].1, found[0].2), (expected.1, expected.2), "{text}: {found:?}");
        assert!(found[0].0 == expected.0 || found[0].0 == "member_unknown", "{text}: {found:?}");
    }
}
