//! The decision point as a whole, on small bundles.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::bundle::Bundle;
use super::source::Sources;
use super::{Finding, Pdp, Settings};
use crate::clock::Clock;
use crate::model::{Decision, Json, Number, PackageName, ReasonCode};

fn package() -> PackageName {
    "gateway.p".parse().expect("a package name")
}

fn sources(body: &str) -> Sources {
    let text = format!("package gateway.p\n{body}\n");
    Sources::from_files([("gateway/p.rego".to_string(), text.into_bytes())]).expect("sources")
}

fn settings(workers: usize) -> Settings {
    Settings {
        workers: NonZeroUsize::new(workers).expect("not zero"),
        queue_max: 4,
        evaluation_max: Duration::from_secs(5),
        steps_max: NonZeroU32::new(200_000).expect("not zero"),
    }
}

fn pdp(body: &str) -> Pdp {
    let bundle = Bundle::from_sources(sources(body), &[package()]).expect("bundle");
    Pdp::start(bundle, settings(1), Clock::system(), None).expect("pdp")
}

fn unchecked(body: &str, settings: Settings) -> Pdp {
    let bundle = Bundle::unchecked(sources(body), &[package()]).expect("bundle");
    Pdp::start(bundle, settings, Clock::system(), None).expect("pdp")
}

fn number(n: f64) -> Json {
    Json::Number(Number::new(n).expect("finite"))
}

fn input(name: &str, value: Json) -> Json {
    Json::object([(name, value)])
}

fn codes(finding: &Finding) -> Vec<&str> {
    finding.reasons.iter().map(|r| &*r.code).collect()
}

#[tokio::test]
async fn precedence_is_quarantine_deny_escalate_permit_silence() {
    let pdp = pdp(r#"
permit contains "p" if input.n >= 1
escalate contains "e" if input.n >= 2
deny contains "d" if input.n >= 3
quarantine contains "q" if input.n >= 4
"#);
    let expected = [
        (Decision::Silence, "policy_silent", Some(ReasonCode::PolicySilent)),
        (Decision::Permit, "p", None),
        (Decision::Escalate, "e", Some(ReasonCode::PolicyEscalated)),
        (Decision::Deny, "d", Some(ReasonCode::PolicyDenied)),
        (Decision::Quarantine, "q", Some(ReasonCode::PolicyQuarantined)),
    ];
    for (n, (decision, code, refusal)) in expected.into_iter().enumerate() {
        let finding = pdp.find_on(&package(), input("n", number(n as f64))).await;
        assert_eq!((finding.decision, codes(&finding)), (decision, vec![code]));
        assert_eq!(finding.refusal_code(), refusal);
        assert_eq!(finding.not_evaluated, None);
    }
}

#[tokio::test]
async fn an_error_in_any_set_is_silence_whatever_the_others_say() {
    let pdp = pdp("permit contains \"p\"\nquarantine contains \"q\" if to_number(input.x) > 3");
    let good = pdp.find_on(&package(), input("x", Json::string("1"))).await;
    assert_eq!(good.decision, Decision::Permit);
    let bad = pdp.find_on(&package(), input("x", Json::string("a"))).await;
    assert_eq!((bad.decision, bad.not_evaluated), (Decision::Silence, Some(ReasonCode::EvaluationError)));
    assert_eq!(codes(&bad), ["evaluation_error"]);
}

#[tokio::test]
async fn an_element_without_a_code_is_an_evaluation_error() {
    for element in
        ["3", "{}", "{\"code\": 3}", "[\"a\"]", "true", "null", "\"\"", "{\"code\": \"a\", \"message\": 3}"]
    {
        let pdp = pdp(&format!("permit contains \"p\"\ndeny contains x if {{ x := {element} }}"));
        let finding = pdp.find_on(&package(), Json::object([])).await;
        assert_eq!(finding.not_evaluated, Some(ReasonCode::EvaluationResultInvalid), "{element}");
        assert_eq!(finding.decision, Decision::Silence, "{element}");
    }
}

#[tokio::test]
async fn reasons_are_sorted_and_hold_only_what_leaves_allow() {
    let pdp = pdp(r#"permit contains "b"
permit contains {"code": "a", "message": "m", "n": 3, "f": 1.5, "z": null, "s": {2, 1}, "big": 9007199254740993}"#);
    let finding = pdp.find_on(&package(), Json::object([])).await;
    let text = serde_json::to_string(&finding.reasons).expect("reasons");
    assert_eq!(
        text,
        r#"[{"code":"a","detail":{"big":"9007199254740993","f":"1.5","n":3,"s":[1,2],"z":"null"},"message":"m"},{"code":"b"}]"#
    );
}

#[tokio::test]
async fn too_many_or_too_large_reasons_are_an_evaluation_error() {
    let many = pdp("permit contains \"p\"\ndeny contains x if some x in input.l");
    let list = |n: usize, size: usize| {
        input("l", Json::Array((0..n).map(|i| Json::string(&format!("{i:0size$}"))).collect()))
    };
    let fits = many.find_on(&package(), list(crate::limits::POLICY_REASONS_MAX, 3)).await;
    assert_eq!(fits.decision, Decision::Deny);
    let over = many.find_on(&package(), list(crate::limits::POLICY_REASONS_MAX + 1, 3)).await;
    assert_eq!(over.not_evaluated, Some(ReasonCode::EvaluationResultInvalid));
    let long = pdp("permit contains \"p\"\ndeny contains {\"code\": \"c\", \"message\": input.m}");
    let large = Json::string(&"m".repeat(crate::limits::POLICY_REASONS_BYTES_MAX));
    assert_eq!(
        long.find_on(&package(), input("m", large)).await.not_evaluated,
        Some(ReasonCode::EvaluationResultInvalid)
    );
}

#[tokio::test]
async fn a_panic_in_the_engine_is_silence_and_the_next_evaluation_is_fine() {
    // Refused at load by the checks; here to show that the containment holds without them.
    let body = "permit contains \"p\" if strings.count(input.x, input.needle) >= 0";
    let pdp = unchecked(body, settings(1));
    let ask = |needle: &str| Json::object([("x", Json::string("abc")), ("needle", Json::string(needle))]);
    let panicked = pdp.find_on(&package(), ask("")).await;
    assert_eq!(
        (panicked.decision, panicked.not_evaluated),
        (Decision::Silence, Some(ReasonCode::EvaluationPanic))
    );
    let next = pdp.find_on(&package(), ask("a")).await;
    assert_eq!(next.decision, Decision::Permit);
    assert_eq!((pdp.counts().panics, pdp.counts().evaluations), (1, 2));
}

#[tokio::test]
async fn the_step_budget_ends_an_evaluation_at_the_same_place_every_time() {
    let body = "permit contains \"p\" if { some x in input.l; some y in input.l; x + y == -1 }";
    let list = input("l", Json::Array((0..1_000).map(|n| number(f64::from(n))).collect()));
    let pdp = pdp(body);
    for _ in 0..3 {
        let finding = pdp.find_on(&package(), list.clone()).await;
        assert_eq!(finding.not_evaluated, Some(ReasonCode::EvaluationError));
        assert!(finding.cause.expect("a cause").contains("more steps"));
    }
    let short = input("l", Json::Array(vec![number(1.0)]));
    assert_eq!(pdp.find_on(&package(), short).await.decision, Decision::Silence);
}

#[tokio::test]
async fn a_call_that_does_not_return_is_silence_at_the_deadline_and_its_thread_counts_as_stuck() {
    // One builtin call is never interrupted by the engine.
    let body = "permit contains \"p\" if count(numbers.range(1, input.n)) > 0";
    let bounds = Settings { evaluation_max: Duration::from_millis(40), ..settings(1) };
    let pdp = unchecked(body, bounds);
    let slow = pdp.find_on(&package(), input("n", number(4e6))).await;
    assert_eq!((slow.decision, slow.not_evaluated), (Decision::Silence, Some(ReasonCode::EvaluationTimeout)));
    assert_eq!(pdp.counts().stuck_workers, 1);
    let turned_away = pdp.find_on(&package(), input("n", number(1.0))).await;
    assert_eq!(turned_away.not_evaluated, Some(ReasonCode::EvaluationOverloaded));
    while pdp.counts().stuck_workers > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pdp.find_on(&package(), input("n", number(1.0))).await.decision, Decision::Permit);
    assert_eq!((pdp.counts().timeouts, pdp.counts().overloads), (1, 1));
}

#[tokio::test]
async fn a_full_queue_turns_away_at_once() {
    let body = "permit contains \"p\" if count(numbers.range(1, input.n)) > 0";
    let pdp = unchecked(body, Settings { queue_max: 1, ..settings(1) });
    let ask = || {
        let pdp = pdp.clone();
        tokio::spawn(async move { pdp.find_on(&package(), input("n", number(1e6))).await })
    };
    let asked: Vec<_> = (0..6).map(|_| ask()).collect();
    let mut turned_away = 0;
    for task in asked {
        let finding = task.await.expect("no panic");
        turned_away += usize::from(finding.not_evaluated == Some(ReasonCode::EvaluationOverloaded));
    }
    assert!((3..=5).contains(&turned_away), "{turned_away}");
}

#[tokio::test]
async fn a_package_the_bundle_lacks_is_silence() {
    let finding =
        pdp("permit contains \"p\"").find_on(&"gateway.q".parse().expect("name"), Json::object([])).await;
    assert_eq!(finding.not_evaluated, Some(ReasonCode::EvaluationError));
}

#[tokio::test]
async fn activation_swaps_the_bundle_and_its_revision() {
    let pdp = pdp("permit contains \"one\"");
    let before = pdp.revision();
    let next = Bundle::from_sources(sources("permit contains \"two\""), &[package()]).expect("bundle");
    let expected = next.revision();
    pdp.activate(pdp.prepare(next).expect("compiles"));
    assert_eq!(pdp.revision(), expected);
    assert_ne!(pdp.revision(), before);
    assert_eq!(codes(&pdp.find_on(&package(), Json::object([])).await), ["two"]);
}

/// A small request, canonicalized for real.
pub(super) fn question(package: &str) -> super::Question {
    use crate::canonical::{
        self, BodyRules, ExecutionRequest, Received, ReceivedHead, Required, Rules, Version,
        target::CanonicalTarget,
    };
    let mut headers = http::HeaderMap::new();
    headers.insert("host", http::HeaderValue::from_static("api.example"));
    headers.insert("idempotency-key", http::HeaderValue::from_static("key-1"));
    let head = ReceivedHead {
        version: Version::Http11,
        method: http::Method::GET,
        target: "/v1/charges?limit=2".into(),
        authority: None,
        headers,
    };
    let target = CanonicalTarget::parse(&head).expect("target");
    let rules = Rules {
        upstream_authority: "upstream.example".into(),
        body: BodyRules::None,
        body_bytes_max: 0,
        schema: None,
        forward_headers: Default::default(),
        identity_headers: Default::default(),
        credential: None,
        path: Default::default(),
        query_lists: Default::default(),
        idempotency_key: Required::Optional,
        redaction: None,
    };
    let received = Received { head, body: bytes::Bytes::new() };
    let request = canonical::canonicalize(received, target, Vec::new(), &rules).expect("canonical");
    super::Question {
        execution: ExecutionRequest {
            surface: "payments".parse().expect("name"),
            action: "charge.list".parse().expect("name"),
            actor: std::sync::Arc::new(crate::model::Actor {
                id: "agent-7".parse().expect("id"),
                method: crate::model::AuthenticationMethod::ApiKey,
                credential_digest: None,
                claims: Json::object([]),
                valid_until: None,
            }),
            trace: None,
            request,
        },
        package: package.parse().expect("name"),
        context: super::Context {
            facts: Json::object([]),
            budgets: Json::object([]),
            approvals: Json::Array(Vec::new()),
            attempt: 2,
        },
        read_set: crate::model::ReadSet {
            watched: Vec::new(),
            state: Vec::new(),
            captured_at: Clock::system().monotonic(),
            approvals_until: None,
        },
        now: crate::clock::WallTime::from_unix_ns(1_763_643_600_123_456_789),
    }
}

#[tokio::test]
async fn policy_sees_exactly_what_the_contract_names() {
    let judged =
        pdp("permit contains {\"code\": \"c\", \"input\": input}").judge(question("gateway.p")).await;
    let super::Judgment::Permit(permit) = judged else { panic!("no permit") };
    let seen = permit.verdict().reasons()[0].detail.clone().expect("detail");
    let digest = permit.execution().request.digest();
    let expected = format!(
        "{{\"input\":{{\"action\":\"charge.list\",\"actor\":{{\"claims\":{{}},\"id\":\"agent-7\",\"method\":\"api_key\"}},\
         \"context\":{{\"approvals\":[],\"attempt\":2,\"budgets\":{{}},\"facts\":{{}}}},\"idempotency_key\":\"key-1\",\
         \"request\":{{\"authority\":\"upstream.example\",\"digest\":\"{digest}\",\"headers\":HEADERS,\"method\":\"GET\",\
         \"params\":{{}},\"path\":\"/v1/charges\",\"query\":{{\"limit\":\"2\"}},\"size\":0}},\"surface\":\"payments\",\
         \"time\":{{\"rfc3339\":\"2025-11-20T13:00:00.123456Z\",\"unix_ns\":\"1763643600123456000\"}}}}}}"
    );
    let headers = crate::model::Object::new(
        permit
            .execution()
            .request
            .headers()
            .iter()
            .map(|(n, v)| (n.clone(), Json::String(v.clone())))
            .collect(),
    );
    let headers = serde_json::to_string(&Json::Object(headers.expect("distinct"))).expect("text");
    assert_eq!(serde_json::to_string(&seen).expect("text"), expected.replace("HEADERS", &headers));
    // The evidence is the same tree, with the time as the number it is.
    let evidence = String::from_utf8(permit.evaluation().input.to_vec()).expect("UTF-8");
    let time_as_text =
        expected.replace("HEADERS", &headers).replace("\"1763643600123456000\"", "1763643600123456000");
    assert_eq!(format!("{{\"input\":{evidence}}}"), time_as_text);
}

#[tokio::test]
async fn a_chain_a_thousand_rules_deep_does_not_end_the_process() {
    // Refused at load above 64; the threads' stacks hold far more.
    let chain =
        (1..1_000).fold("r0 := input.n".to_string(), |text, i| format!("{text}\nr{i} := r{} + 1", i - 1));
    let pdp = unchecked(&format!("{chain}\npermit contains \"p\" if r999 == 1000"), settings(1));
    assert_eq!(pdp.find_on(&package(), input("n", number(1.0))).await.decision, Decision::Permit);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_stuck_thread_behind() {
    let body = "permit contains \"p\" if count(numbers.range(1, input.n)) > 0";
    let pdp = unchecked(body, settings(1));
    let name = package();
    let asked = tokio::time::timeout(Duration::from_millis(5), pdp.find_on(&name, input("n", number(1e6))));
    assert!(asked.await.is_err());
    while pdp.counts().stuck_workers > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(pdp.find_on(&package(), input("n", number(1.0))).await.decision, Decision::Permit);
}

#[tokio::test]
async fn an_evaluation_keeps_the_bundle_it_began_with() {
    let body = "permit contains \"one\" if count(numbers.range(1, input.n)) > 0";
    let pdp = unchecked(body, settings(1));
    let slow = tokio::spawn({
        let pdp = pdp.clone();
        async move { pdp.find_on(&package(), input("n", number(1e6))).await }
    });
    tokio::task::yield_now().await;
    let next = Bundle::from_sources(sources("permit contains \"two\""), &[package()]).expect("bundle");
    pdp.activate(pdp.prepare(next).expect("compiles"));
    assert_eq!(codes(&slow.await.expect("no panic")), ["one"]);
    assert_eq!(codes(&pdp.find_on(&package(), Json::object([])).await), ["two"]);
}
