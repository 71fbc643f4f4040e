//! Each check, by a bundle that only it refuses.

use super::super::bundle::Bundle;
use super::super::source::Sources;
use crate::limits;

fn load(files: &[(&str, &str)]) -> Vec<(&'static str, u32, String)> {
    let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
    let loaded = Sources::from_files(files)
        .and_then(|sources| Bundle::from_sources(sources, &["gateway.p".parse().expect("name")]));
    match loaded {
        Ok(_) => Vec::new(),
        Err(e) => e.faults().iter().map(|f| (f.rule, f.line, f.message.clone())).collect(),
    }
}

/// The rules that refuse this body; line 3 is its first.
fn rules(body: &str) -> Vec<(&'static str, u32)> {
    let text = format!("package gateway.p\npermit contains \"p\" if input.ok\n{body}\n");
    let limits = r#"{"EUR": {"max": 100}, "list": ["a"]}"#;
    load(&[("p/p.rego", &text), ("ref/limits.json", limits)])
        .into_iter()
        .map(|(rule, line, _)| (rule, line))
        .collect()
}

#[track_caller]
fn accepted(body: &str) {
    assert_eq!(rules(body), [], "{body}");
}

#[track_caller]
fn refused(body: &str, rule: &str) {
    let found: Vec<_> = rules(body).into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(found, [rule], "{body}");
}

#[test]
fn ordinary_policy_is_accepted() {
    accepted(
        r#"
limit := data.ref.limits[input.request.body.currency].max
deny contains {"code": "over", "message": sprintf("over %d", [limit])} if {
	amount := to_number(input.request.body.amount)
	amount > limit
}
deny contains "prefix" if {
	id := input.request.body.customer
	not startswith(id, "cus_")
}
deny contains "unlisted" if not known
known if input.request.body.customer in data.ref.limits.list
deny contains "roles" if {
	roles := {r | some r in input.actor.claims.roles}
	count(roles & {"a", "b"}) == 0
}
escalate contains "n" if count(input.context.approvals) < 2
total := sum([x.amount | some x in input.request.body.items])
double(x) := x * 2
deny contains "d" if double(input.request.size) > 100
deny contains "every" if {
	every item in input.request.body.items { not item in {"a"} }
}
default mode := "strict"
deny contains "mode" if not mode == "strict"
"#,
    );
}

#[test]
fn builtins_that_a_replay_cannot_repeat_are_refused() {
    for call in
        ["time.now_ns()", "http.send({})", "opa.runtime()", "rand.intn(\"a\", 3)", "uuid.rfc4122(\"a\")"]
    {
        refused(&format!("x := {call}"), "builtin_refused");
    }
    for call in [
        "net.lookup_ip_addr(\"a\")",
        "trace(\"a\")",
        "print(\"a\")",
        "walk(input)",
        "json.unmarshal(input.x)",
    ] {
        refused(&format!("x if {call}"), "builtin_refused");
    }
}

#[test]
fn an_unknown_builtin_is_named_with_its_line() {
    assert_eq!(rules("\nx := crypto.sha256(\"a\")"), [("builtin_unknown", 4)]);
    refused("x := io.jwt.decode(\"a\")", "builtin_unknown");
    refused("x := no_such(1)", "builtin_unknown");
}

#[test]
fn unbounded_calls_need_constant_arguments() {
    for call in [
        "numbers.range(1, input.n)",
        "numbers.range(1, 1000000)",
        "numbers.range_step(1, 10, 0)",
        "sprintf(input.f, [1])",
        "sprintf(\"%*d\", [1, 2])",
        "sprintf(\"%999999d\", [1])",
        "sprintf(\"%.99999f\", [1])",
        "bits.lsh(1, input.n)",
        "bits.lsh(1, 64)",
        "strings.count(input.x, \"\")",
        "strings.count(input.x, input.y)",
        "regex.match(input.p, \"a\")",
        "regex.match(`^\\d+$`, input.x)",
        "regex.replace(input.x, input.p, \"\")",
        "glob.match(input.p, [\".\"], \"a\")",
        "glob.match(\"a:*\", [\":\"], input.x)",
        "regex.split(input.p, \"a\")",
    ] {
        refused(&format!("x := {call}"), "builtin_unbounded");
    }
    for call in [
        "numbers.range(1, 100)",
        "sprintf(\"%5.2f %s %%\", [1, 2])",
        "bits.lsh(1, 10)",
        "strings.count(input.x, \"a\")",
        "regex.match(`^[0-9]+$`, input.x)",
        "glob.match(\"a.*\", [\".\"], input.x)",
    ] {
        accepted(&format!("x := {call}"));
    }
}

#[test]
fn negation_over_an_operand_that_may_be_undefined_is_refused() {
    for body in [
        "x if not input.n > 3",
        "x if not startswith(input.s, \"a\")",
        "x if not input.s in [\"a\"]",
        "x if not max(input.context.approvals) > 1",
        "x if not f(input.n)\nf(v) if v > 3",
        "x if not data.ref.limits[input.k]",
        "x if not limit > 3\nlimit := input.n",
        "x if { some item in input.l; not item.price > 3 }",
        "x if { y := [1 | not input.n > 3]; count(y) == 1 }",
        "x if { every item in [1] { not input.n > item } }",
        "x if not data.ref.limits.USD == 3",
        "f(v) if not v.n > 3\nx if f(input.l)",
        "x if not 3 == input.n",
        "x if not input.n + 1 > 3",
        "x if { y := input.l[_]; not input.l[_] == y }",
        "x if not count(input.l) > 3",
        "x if not g(input.request.size) > 3\ng(v) := 4 if v > 10",
        "x if { some input_n in [1]; y := {n | n := input.n}; not input.n > 3 }",
    ] {
        refused(body, "negation_unguarded");
    }
}

#[test]
fn a_guarded_negation_is_accepted() {
    for body in [
        "x if not input.n",
        "x if not input.a.b[\"c\"]",
        "x if { input.n; not input.n > 3 }",
        "x if { v := input.n; not v > 3 }",
        "x if { not input.n > 3; is_number(input.n) }",
        "x if { input.n.m == 1; not input.n == 3 }",
        "x if { some item in input.l; item.price; not item.price > 3 }",
        "x if { input.n; every item in [1] { not input.n > item } }",
        "x if not input.request.method == \"POST\"",
        "x if not data.ref.limits.EUR.max > 3",
        "x if not s[\"a\"]\ns contains \"b\" if input.n",
        "x if not \"a\" in s\ns contains \"b\" if input.n",
        "x if not count([y | some y in input.l]) > 3",
        "x if { k := input.k; not data.ref.limits[k] }",
        "f(v) if not v > 3\nx if f(input.n)",
        "x if { input[\"n\"] == 1; not input.n > 3 }",
        "x if not input.request.body.member",
        "x if not count(input.context.approvals) < 2",
    ] {
        accepted(body);
    }
}

#[test]
fn every_unguarded_negation_that_is_refused_really_fires_on_missing_input() {
    // The reason for the check, shown on the engine itself.
    for body in
        ["not input.n > 3", "not startswith(input.s, \"a\")", "not input.s in [\"a\"]", "not input.n + 1 > 3"]
    {
        let mut engine = super::super::engine::strict();
        engine.add_policy("a.rego".into(), format!("package p\nx contains 1 if {body}\n")).expect("policy");
        engine.set_input(regorus::Value::new_object());
        let value = engine.eval_rule("data.p.x".into()).expect("value");
        assert_eq!(value.as_set().expect("set").len(), 1, "{body}");
    }
}

#[test]
fn a_head_that_may_be_undefined_in_a_loop_is_refused() {
    for body in [
        "deny contains {\"code\": \"d\", \"name\": x.name} if some x in input.l",
        "deny contains input.o[x] if some x in input.l",
        "deny contains sprintf(\"%v\", [input.o[k]]) if input.l[_] == k",
        "deny contains input.l[_].name",
        "deny contains {\"code\": \"d\", \"n\": f(x)} if some x in input.l\nf(x) := x.name",
        "names contains x.name if some x in input.l",
        "names[k] := x.name if some k, x in input.l",
        "names[x.name] := 1 if some x in input.l",
        "bad := x.bad if some x in input.l",
        "bad := input.l[i].bad if { some i; input.l[i].on }",
        "bad := 1 if input.n else := x.bad if { some x in input.l }",
    ] {
        refused(body, "head_undefined");
    }
    for body in [
        "deny contains {\"code\": \"d\", \"name\": name} if { some x in input.l; name := x.name }",
        "deny contains {\"code\": \"d\", \"name\": x.name} if { some x in input.l; x.name != \"a\" }",
        "deny contains {\"code\": x} if some x in input.l",
        "deny contains {\"code\": \"d\", \"name\": input.name} if input.n",
        "deny contains {\"code\": \"d\", \"l\": data.ref.limits[k].max} if k := input.k",
        "names := {x.name | some x in input.l}",
        "f(k) := x.name if { some x in input.l; x.k == k }",
    ] {
        accepted(body);
    }
}

/// The reason for the check, shown on the engine itself.
#[test]
fn one_undefined_head_takes_the_elements_of_every_other_turn_with_it() {
    let mut engine = super::super::engine::strict();
    let text =
        "package p\nx contains i.n if some i in input.l\ny contains n if { some i in input.l; n := i.n }\n";
    engine.add_policy("a.rego".into(), text.into()).expect("policy");
    engine.set_input(regorus::Value::from_json_str(r#"{"l": [{"n": 1}, {}]}"#).expect("JSON"));
    let mut count =
        |rule: &str| engine.eval_rule(rule.into()).expect("value").as_set().map_or(0, |set| set.len());
    assert_eq!((count("data.p.x"), count("data.p.y")), (0, 1));
}

#[test]
fn the_value_of_in_over_what_may_be_undefined_is_refused() {
    for body in [
        "blocked := input.c in data.ref.limits.list",
        "x if (input.c in data.ref.limits.list) == false",
        "x if { y := 1 in input.l; y == false }",
        "x if f(input.c in [\"a\"])\nf(v) if v == false",
        "x := [y | y := input.c in [1]]",
        "x contains input.c in [1] if input.n",
    ] {
        refused(body, "membership_undefined");
    }
    for body in [
        "blocked if input.c in data.ref.limits.list",
        "x if { c := input.c; y := c in data.ref.limits.list; y == false }",
        "x if { input.c; y := input.c in [1]; y == false }",
        "f(v) := v in data.ref.limits.list",
        "x if { c := input.c; not c in data.ref.limits.list }",
        "x if every y in input.l { y in [1] }",
    ] {
        accepted(body);
    }
    let both: Vec<_> =
        rules("x if { y := input.n in [1]; not input.n > 3 }").into_iter().map(|(r, _)| r).collect();
    assert_eq!(both, ["membership_undefined", "negation_unguarded"], "such a value proves nothing either");
    // The reason for the check, shown on the engine itself.
    let mut engine = super::super::engine::strict();
    let text = "package p\nx := input.c in [1]\n".to_string();
    engine.add_policy("a.rego".into(), text).expect("policy");
    engine.set_input(regorus::Value::new_object());
    assert_eq!(engine.eval_rule("data.p.x".into()).expect("value"), regorus::Value::from(false));
}

#[test]
fn references_to_nothing_or_to_everything_are_refused() {
    refused("x if data.ref.limmits.EUR", "reference_unknown");
    refused("x if data.gateway.p.typo", "reference_unknown");
    refused("x if data[input.k]", "reference_dynamic");
    refused("x if data.gateway[input.k]", "reference_dynamic");
    refused("x if data.gateway.p[input.k]", "reference_dynamic");
    refused("x := count(data)", "reference_dynamic");
    refused("x if f\nf(v) if v", "reference_unknown");
    refused("x if permit(1)", "call_unknown");
}

#[test]
fn recursion_and_long_chains_are_refused() {
    refused("a if b\nb if a", "recursion");
    refused("f(x) := f(x)", "recursion");
    refused("a if data.gateway.p.b\nb if { y := [1 | a]; y }", "recursion");
    let chain =
        |n: usize| (1..n).fold("r0 := 1".to_string(), |text, i| format!("{text}\nr{i} := r{} + 1", i - 1));
    accepted(&chain(limits::POLICY_RULE_CHAIN_MAX));
    refused(&chain(limits::POLICY_RULE_CHAIN_MAX + 1), "chain_too_long");
}

#[test]
fn contract_names_must_be_partial_sets() {
    for body in [
        "deny := true",
        "deny if input.x",
        "default deny := false",
        "escalate(x) if x",
        "quarantine[x] := 1 if x := input.y",
        "deny.a contains 1 if input.x",
    ] {
        refused(body, "contract_shape");
    }
}

#[test]
fn a_surface_needs_its_package_and_a_permit_in_it() {
    let only = |text: &str| load(&[("p.rego", text)]).into_iter().map(|(rule, ..)| rule).collect::<Vec<_>>();
    assert_eq!(only("package gateway.q\npermit contains \"a\"\n"), ["package_missing"]);
    assert_eq!(only("package gateway.p\ndeny contains \"a\"\n"), ["permit_missing"]);
    assert_eq!(
        only("package gateway[\"p-q\"]\npermit contains \"a\"\n"),
        ["package_missing", "package_name"]
    );
}

#[test]
fn a_package_has_one_directory_and_no_document_over_it() {
    let p = "package gateway.p\npermit contains \"a\"\n";
    let rules = |files: &[(&str, &str)]| load(files).into_iter().map(|(rule, ..)| rule).collect::<Vec<_>>();
    assert_eq!(
        rules(&[("a/p.rego", p), ("a/q.rego", "package gateway.p\ndeny contains \"d\" if input.x\n")]),
        [""; 0]
    );
    assert_eq!(rules(&[("a/p.rego", p), ("b/q.rego", p)]), ["package_owner"]);
    assert_eq!(rules(&[("a/p.rego", p), ("gateway/p.json", "{\"permit\": [\"x\"]}")]), ["data_overlap"]);
    assert_eq!(rules(&[("a/p.rego", p), ("gateway.json", "{}")]), ["data_overlap"]);
    assert_eq!(rules(&[("a/p.rego", p), ("gateway/p/permit.json", "{}")]), ["data_overlap"]);
    assert_eq!(rules(&[("a/p.rego", p), ("ref.json", "{}"), ("ref/a.json", "{}")]), ["data_overlap"]);
    assert_eq!(rules(&[("a/p.rego", p), ("ref/data.json", "{}")]), ["data_name"]);
    assert_eq!(rules(&[("a/p.rego", p), ("ref/a.json", "{\"a\":1,\"a\":2}")]), ["data_invalid"]);
}

#[test]
fn a_rule_never_stands_at_the_path_of_a_package() {
    let p = ("a/p.rego", "package gateway.p\npermit contains \"a\" if input.x\ndeny contains \"d\"\n");
    let rules =
        |text: &str| load(&[p, ("evil/e.rego", text)]).into_iter().map(|(rule, ..)| rule).collect::<Vec<_>>();
    for text in [
        "package gateway\np.permit contains \"evil\" if true\n",
        "package gateway\np := {\"permit\": {\"evil\"}}\n",
        "package gateway\np[k] := {\"evil\"} if k := \"permit\"\n",
        "package gateway\np contains \"deny\"\n",
        "package gateway.p.deny\nx := true\n",
        "package gateway.p.deny.x\ny := true\n",
    ] {
        assert_eq!(rules(text), ["package_owner"], "{text}");
    }
    assert_eq!(rules("package gateway\nq := 1\n"), [""; 0]);
    assert_eq!(rules("package gateway.p.helpers\npermit := 1 if input.x\n"), ["contract_shape"]);
    assert_eq!(rules("package gateway.p.helpers\nx := 1\n"), [""; 0]);
}

#[test]
fn nothing_is_named_input_or_data() {
    for body in [
        "f(input) if input > 3",
        "f(data) := data",
        "x if { some data in [1]; data == 1 }",
        "x if every input in [1] { input == 1 }",
    ] {
        refused(body, "name_shadowed");
    }
    let rules = |text: &str| {
        let limits = ("ref/limits.json", r#"{"EUR": {"max": 100}}"#);
        load(&[("p/p.rego", text), limits]).into_iter().map(|(rule, ..)| rule).collect::<Vec<_>>()
    };
    let text = "package gateway.p\nimport data.ref.limits.EUR as input\npermit contains \"a\" if not input.max > 3\n";
    assert_eq!(rules(text), ["name_shadowed"]);
    let text =
        "package gateway.p\nimport input.request as data\npermit contains \"a\" if data.gateway[input.k]\n";
    assert_eq!(rules(text), ["name_shadowed"]);
    assert_eq!(rules("package gateway.p\nimport input\npermit contains \"a\" if input.x\n"), [""; 0]);
}

#[test]
fn a_name_that_nothing_binds_is_refused() {
    refused("x if { some v; not v > 3 }", "name_unbound");
    refused("x if { some v; not startswith(v, \"a\") }", "name_unbound");
    refused("x if { some i, j; input.l[i] > 3; not j > 3 }", "name_unbound");
    accepted("x if { some i; input.l[i] > 3; not i > 3 }");
    accepted("x if { some i, v; input.l[i] = v; v > 3 }");
    accepted("x if { some v; v = input.n; not v > 3 }");
    accepted("x if { some v; [v, _] = input.l; not v > 3 }");
    accepted("x if { some k, v; input.o[k][v].z }");
}

#[test]
fn a_member_with_a_dot_in_its_name_proves_nothing_about_a_path() {
    refused("x if { input[\"a.b\"]; not input.a.b > 3 }", "negation_unguarded");
    refused("x if { input[\"a[1]\"]; not input.a[1] > 3 }", "negation_unguarded");
    refused("x if not input[\"request.method\"] == \"a\"", "negation_unguarded");
    accepted("x if { input[\"a.b\"]; not input[\"a.b\"] > 3 }");
}

#[test]
fn with_and_hidden_builtins_are_refused() {
    refused("x if permit with input.ok as true", "with_refused");
    refused("count := 3", "builtin_hidden");
}

#[test]
fn what_does_not_parse_or_compile_has_its_line() {
    assert_eq!(rules("x if {"), [("syntax", 4)]);
    assert_eq!(rules("x { input.y }"), [("syntax", 3)]);
    assert_eq!(rules("\ny if nothing == 3"), [("does_not_compile", 4)]);
}

#[test]
fn all_faults_are_reported_at_once() {
    assert_eq!(
        rules("a := time.now_ns()\nb := rand.intn(\"x\", 2)\nc if not input.n > 3"),
        [("builtin_refused", 3), ("builtin_refused", 4), ("negation_unguarded", 5)]
    );
}

#[test]
fn the_message_shows_the_reference_and_the_guarded_form() {
    let found =
        load(&[("p.rego", "package gateway.p\npermit contains \"a\" if not input.body.amount > 3\n")]);
    assert!(found[0].2.contains("`v := input.body.amount`"), "{found:?}");
}
