use std::num::NonZeroUsize;

use super::*;
use crate::canonical::json::{self, Bounds};
use crate::policy::{Bundle, Offline, Sources};

/// What a package of one file says to an input, all checks off: some of these are what checks refuse.
fn sets(rules: &str, input: &str) -> Vec<SetTrace> {
    let text = format!("package p\n\n{rules}");
    let files = [("p.rego", text.as_str()), ("ref/t.json", r#"{"EUR":{"most":100},"names":["a","b"]}"#)];
    let files = files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
    let bundle = Bundle::unchecked(Sources::from_files(files).expect("sources"), &[]).expect("a bundle");
    let policy = Offline::new(bundle, NonZeroUsize::MIN).expect("engines");
    let input = json::parse(input.as_bytes(), Bounds::BODY).expect("JSON");
    policy.explain(0, &"p".parse().expect("a name"), &input, Values::All)
}

fn failure_of(rules: &str, input: &str) -> Failure {
    let sets = sets(rules, input);
    let bodies = sets.iter().filter(|set| set.set == "permit").flat_map(|set| &set.trace.bodies);
    let failures: Vec<_> = bodies
        .map(|body| match &body.became {
            Became::Failed(failure) => (**failure).clone(),
            other => panic!("{rules}: {other:?}"),
        })
        .collect();
    let [failure] = &failures[..] else { panic!("{rules}: {failures:#?}") };
    failure.clone()
}

/// The last failure that reasons lead down to.
fn deepest(failure: &Failure) -> &Failure {
    let below = failure.because.iter().flat_map(|trace| &trace.bodies).find_map(|body| match &body.became {
        Became::Failed(failure) => Some(&**failure),
        _ => None,
    });
    below.map_or(failure, deepest)
}

#[test]
fn the_first_expression_that_fails_is_named_by_its_line_with_its_values() {
    let body = |statements: &str| {
        format!("permit contains \"x\" if {{\n\t{}\n}}\n", statements.replace('\n', "\n\t"))
    };
    /// Name, rules from line 3 on, input, the failing expression's line and how it fails, and what is shown of it.
    type Fails = (&'static str, String, &'static str, (u32, How), &'static str);
    let cases: Vec<Fails> = vec![
        ("comparison", body("input.a == 1\ninput.b > 5"), r#"{"a":1,"b":3}"#, (5, How::False), "input.b = 3"),
        (
            "undefined",
            body("input.a == 1\ninput.b.c > 5"),
            r#"{"a":1,"b":3}"#,
            (5, How::Undefined),
            "input.b.c undefined",
        ),
        (
            "text at the end",
            body("input.a == \"yes\"\ninput.b == \"no\""),
            r#"{"a":"yes","b":"so"}"#,
            (5, How::False),
            "input.b = \"so\"",
        ),
        (
            "text at the start",
            body("\"yes\" == input.a\n\"no\" in input.b"),
            r#"{"a":"yes","b":["so"]}"#,
            (5, How::False),
            "input.b = [\"so\"]",
        ),
        (
            "negation",
            body("input.a == 1\nnot input.b"),
            r#"{"a":1,"b":true}"#,
            (5, How::Holds),
            "input.b = true",
        ),
        ("negated comparison", body("a := input.a\nnot a > 3"), r#"{"a":5}"#, (5, How::Holds), "a = 5"),
        ("some", body("some x in input.l\nx > 3\ninput.a"), r#"{"l":[1,2],"a":1}"#, (5, How::False), "x = 1"),
        (
            "some of nothing",
            body("input.a\nsome x in input.l\nx > 3"),
            r#"{"l":[],"a":1}"#,
            (5, How::NoElement),
            "input.l = []",
        ),
        (
            "some and a witness",
            body("some x in input.l\nx > 1\nx > 3"),
            r#"{"l":[1,2],"a":1}"#,
            (6, How::False),
            "x = 2",
        ),
        (
            "every",
            body("input.a\nevery x in input.l {\n\tx.n > 1\n\tx.ok\n}"),
            r#"{"a":1,"l":[{"n":2,"ok":true},{"n":2,"ok":false}]}"#,
            (7, How::False),
            "x = {\"n\":2,\"ok\":false}",
        ),
        (
            "every of a set",
            body("every x in {1, 2, 3} {\n\tx < input.a\n}"),
            r#"{"a":3}"#,
            (5, How::False),
            "x = 3",
        ),
        (
            "comprehension",
            body("count([x | some x in input.l; x > 1]) == 2"),
            r#"{"l":[1,2]}"#,
            (4, How::False),
            "[x | some x in input.l; x > 1] = [2]",
        ),
        (
            "set comprehension",
            body("names := {n | some n in input.l}\ncount(names & {\"a\"}) > 0"),
            r#"{"l":["b"]}"#,
            (5, How::False),
            "names = [\"b\"]",
        ),
        (
            "a builtin",
            body("input.a\nstartswith(input.b, \"x\")"),
            r#"{"a":1,"b":"yx"}"#,
            (5, How::False),
            "input.b = \"yx\"",
        ),
        (
            "an error",
            body("input.a\nto_number(input.b) > 1"),
            r#"{"a":1,"b":"x"}"#,
            (5, How::Error),
            "input.b = \"x\"",
        ),
        (
            "a document",
            body("row := data.ref.t[input.cur]\ninput.a <= row.most"),
            r#"{"a":500,"cur":"EUR"}"#,
            (5, How::False),
            "row.most = 100",
        ),
        (
            "no such document",
            body("row := data.ref.t[input.cur]\ninput.a <= row.most"),
            r#"{"a":500,"cur":"USD"}"#,
            (4, How::Undefined),
            "data.ref.t[input.cur] undefined",
        ),
        ("out of order", body("y > 3\ny = input.a + 1"), r#"{"a":1}"#, (4, How::False), "y = 2"),
        (
            "an object",
            body(
                "{\"a\": input.a, \"b\": {\"c\": 1, \"d\": 2}}.a == 2\ncount({\"a\": 1, \"b\": input.a}) == 3",
            ),
            r#"{"a":2}"#,
            (5, How::False),
            "count({\"a\": 1, \"b\": input.a}) = 2",
        ),
        (
            "parentheses",
            body("(input.a + input.b) * 2 == 10"),
            r#"{"a":1,"b":2}"#,
            (4, How::False),
            "(input.a + input.b) * 2 = 6",
        ),
        ("destructuring", body("[x, 2] = input.l\nx == 3"), r#"{"l":[1,2]}"#, (5, How::False), "x = 1"),
        (
            "every index",
            body("input.l[_].ok == true"),
            r#"{"l":[{"ok":false},{"ok":false}]}"#,
            (4, How::False),
            "input.l[_].ok = each",
        ),
        (
            "several lines",
            body("input.a == 1\nobject.get(\n\tinput,\n\t\"b\", # the second\n\t0\n) > 5"),
            r#"{"a":1,"b":3}"#,
            (5, How::False),
            "= 3",
        ),
        (
            "without braces",
            "permit contains \"x\" if input.a == 1\n".into(),
            r#"{"a":2}"#,
            (3, How::False),
            "input.a = 2",
        ),
        (
            "the head",
            "permit contains {\"code\": \"x\", \"n\": input.n} if {\n\tinput.a == 1\n}\n".into(),
            r#"{"a":1}"#,
            (3, How::HeadUndefined),
            "input.n undefined",
        ),
    ];
    assert!(cases.len() >= 15);
    for (name, rules, input, (line, how), shown) in cases {
        let failure = failure_of(&rules, input);
        assert_eq!((failure.at.line, failure.how), (line, how), "{name}: {failure:#?}");
        let rows = failure.rows.iter().flatten();
        let texts: Vec<String> = rows
            .map(|binding| match &binding.value {
                Seen::Value(value) => format!("{} = {value}", binding.name),
                Seen::Each(values) => format!("{} = each {values:?}", binding.name),
                Seen::Undefined => format!("{} undefined", binding.name),
                Seen::Withheld => format!("{} withheld", binding.name),
            })
            .collect();
        assert!(texts.iter().any(|text| text.contains(shown)), "{name}: {shown} in {texts:#?}");
    }
}

/// The same, where a rule or a function stands between.
#[test]
fn a_failure_is_followed_into_the_rules_that_it_rests_on() {
    let cases: Vec<(&str, &str, &str, u32, u32)> = vec![
        (
            "a rule",
            "permit contains \"x\" if limit > 3\n\nlimit := m if {\n\tm := input.m\n\tm > 10\n}\n",
            r#"{"m":5}"#,
            3,
            7,
        ),
        (
            "two rules",
            "permit contains \"x\" if a\n\na if {\n\tb\n}\n\nb if {\n\tinput.x\n\tinput.y == 2\n}\n",
            r#"{"x":1,"y":1}"#,
            3,
            11,
        ),
        (
            "a function",
            "permit contains \"x\" if {\n\tinput.a\n\tbig(input.n, 10)\n}\n\nbig(n, least) if {\n\tn > 1\n\tn > least\n}\n",
            r#"{"a":1,"n":5}"#,
            5,
            10,
        ),
        (
            "an else",
            "permit contains \"x\" if size\n\nsize := \"big\" if {\n\tinput.n > 10\n} else := \"small\" if {\n\tinput.n < 3\n}\n",
            r#"{"n":5}"#,
            3,
            6,
        ),
        (
            "a default",
            "default ok := false\n\npermit contains \"x\" if ok\n\nok if {\n\tinput.a == 1\n}\n",
            r#"{"a":2}"#,
            5,
            8,
        ),
        (
            "a partial object",
            "permit contains \"x\" if quota[input.who] > 3\n\nquota[who] := n if {\n\tsome who, n in input.quotas\n\tn > 10\n}\n",
            r#"{"who":"a","quotas":{"a":5}}"#,
            3,
            7,
        ),
        (
            "a partial set",
            "permit contains \"x\" if count(roles) > 0\n\nroles contains r if {\n\tsome r in input.roles\n\tr in {\"agent\"}\n}\n",
            r#"{"roles":["x"]}"#,
            3,
            7,
        ),
    ];
    for (name, rules, input, line, deep) in cases {
        let failure = failure_of(rules, input);
        assert_eq!(failure.at.line, line, "{name}: {failure:#?}");
        assert_eq!(deepest(&failure).at.line, deep, "{name}: {failure:#?}");
    }
}

#[test]
fn what_holds_says_what_it_gives() {
    let rules = "permit contains {\"code\": \"x\", \"n\": n} if {\n\tsome n in input.l\n\tn > 1\n}\n\npermit contains \"y\"\n\ndeny contains \"z\" if {\n\tnot data.p.permit\n}\n";
    let sets = sets(rules, r#"{"l":[1,2,3]}"#);
    let names: Vec<_> = sets.iter().map(|set| set.set).collect();
    assert_eq!(names, ["deny", "permit"], "in precedence");
    let made: Vec<_> = sets[1].trace.bodies.iter().map(|body| (body.at.line, body.became.clone())).collect();
    let seen = |values: &[serde_json::Value]| Became::Made {
        values: values.iter().cloned().map(Seen::Value).collect(),
    };
    let of = |n: u32| serde_json::json!({"code": "x", "n": n});
    assert_eq!(made, [(3, seen(&[of(2), of(3)])), (8, seen(&["y".into()]))]);
    let Became::Failed(failure) = &sets[0].trace.bodies[0].became else { panic!("{sets:#?}") };
    assert_eq!(failure.how, How::Holds);
    assert_eq!(failure.because[0].rule, "data.p.permit");
}

#[test]
fn an_else_that_nobody_comes_to_and_a_default_say_so() {
    let rules = "permit contains \"x\" if size == \"none\"\n\ndefault size := \"none\"\n\nsize := \"big\" if input.n > 10\nelse := \"small\"\n";
    let policy = sets(rules, r#"{"n":50}"#);
    let Became::Failed(failure) = &policy[0].trace.bodies[0].became else { panic!("{policy:#?}") };
    assert_eq!((failure.how, failure.at.line), (How::False, 3));
    // The rule has a value: nothing to follow, and what it is stands in the row.
    assert_eq!(failure.rows[0][0].value, Seen::Value("big".into()));
}

#[test]
fn where_something_is_redacted_only_places_of_the_recorded_input_are_shown() {
    let text = "package p\n\npermit contains \"x\" if {\n\tcard := input.request.card\n\tstartswith(card, \"41\")\n\tinput.request.amount > to_number(input.request.card)\n}\n";
    let files = [("p.rego".to_string(), text.as_bytes().to_vec())];
    let bundle = Bundle::unchecked(Sources::from_files(files).expect("sources"), &[]).expect("a bundle");
    let policy = Offline::new(bundle, NonZeroUsize::MIN).expect("engines");
    let parse = |text: &str| json::parse(text.as_bytes(), Bounds::BODY).expect("JSON");
    let whole = parse(r#"{"request":{"card":"4111222233334444","amount":5}}"#);
    let shown = parse(r#"{"request":{"(redacted)":"1 member","amount":5}}"#);
    let sets = policy.explain(0, &"p".parse().expect("a name"), &whole, Values::Redacted(shown));
    let text = serde_json::to_string(&sets).expect("JSON");
    assert!(!text.contains("4111"), "{text}");
    let Became::Failed(failure) = &sets[0].trace.bodies[0].became else { panic!("{sets:#?}") };
    assert_eq!(failure.at.line, 6);
    let values: BTreeMap<_, _> = failure.rows[0].iter().map(|b| (b.name.as_str(), &b.value)).collect();
    assert_eq!(values["input.request.amount"], &Seen::Value(5.into()));
    assert_eq!(values["input.request.card"], &Seen::Withheld);
    assert_eq!(values["to_number(input.request.card)"], &Seen::Withheld);
}

#[test]
fn a_body_of_any_length_is_followed_to_its_end() {
    let mut body: Vec<String> = (0..400).map(|n| format!("\tinput.a != {}", n + 10)).collect();
    body.insert(390, "\tinput.a == 2".into());
    let rules = format!("permit contains \"x\" if {{\n{}\n}}\n", body.join("\n"));
    let failure = failure_of(&rules, r#"{"a":1}"#);
    assert_eq!((failure.at.line, failure.expression.as_str()), (394, "input.a == 2"));
}

#[test]
fn a_definition_that_is_for_other_arguments_says_so() {
    let rules = "permit contains \"x\" if f(input.a) == 3\n\nf(\"a\") := 1\n\nf(\"b\") := 2 if input.a\n\nf([x, y]) := x if y > 1\n";
    let failure = failure_of(rules, r#"{"a":[5,0]}"#);
    assert_eq!(failure.how, How::Undefined);
    let bodies = &failure.because[0].bodies;
    let became: Vec<_> =
        bodies.iter().map(|body| (body.at.line, matches!(body.became, Became::Unknown { .. }))).collect();
    assert_eq!(became, [(5, true), (7, true), (9, false)], "{bodies:#?}");
    let Became::Failed(failure) = &bodies[2].became else { panic!("{bodies:#?}") };
    assert_eq!(failure.rows[0], [Binding { name: "y".into(), value: Seen::Value(0.into()) }]);
}
