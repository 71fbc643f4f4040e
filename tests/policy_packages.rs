//! The shipped packages under `policies/`: their own tests, the load checks, and all five verdicts through
//! the decision point; and every Rego snippet of docs/POLICY.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::template::PathTemplate;
use interlock::canonical::{
    BodyRules, ExecutionRequest, Forward, Received, ReceivedHead, Required, Rules, Version, canonicalize,
    json,
};
use interlock::clock::{Clock, WallTime};
use interlock::model::{
    Actor, AuthenticationMethod, Decision, Digest, Json, PackageName, ReadSet, ReasonCode,
};
use interlock::policy::{Bundle, Context, Judgment, Pdp, Question, Settings, Sources, testing};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn packages() -> Vec<PackageName> {
    ["gateway.payments", "gateway.exports", "gateway.configuration"]
        .map(|p| p.parse().expect("name"))
        .to_vec()
}

fn pdp() -> Pdp {
    let bundle = Bundle::load(&policies(), &packages()).unwrap_or_else(|e| panic!("{e}"));
    Pdp::start(bundle, Settings::default(), Clock::system(), None).unwrap_or_else(|e| panic!("{e}"))
}

/// One request as it would come, with the route it fits.
struct Sample {
    package: &'static str,
    action: &'static str,
    method: &'static str,
    template: &'static str,
    target: &'static str,
    media_type: Option<&'static str>,
    body: &'static str,
    roles: &'static [&'static str],
    approvers: &'static [&'static str],
    /// Within the configuration window and business hours unless a sample says otherwise.
    at: &'static str,
}

const CHARGE: Sample = Sample {
    package: "gateway.payments",
    action: "charge.create",
    method: "POST",
    template: "/v1/charges",
    target: "/v1/charges",
    media_type: Some("application/json"),
    body: r#"{"amount":4200,"currency":"eur","customer":"cus_1"}"#,
    roles: &["agent"],
    approvers: &[],
    at: "2026-11-19T10:00:00.123456Z",
};

impl Sample {
    fn question(&self) -> Question {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("api.example"));
        if let Some(media_type) = self.media_type {
            headers.insert("content-type", HeaderValue::from_static(media_type));
        }
        let head = ReceivedHead {
            version: Version::Http11,
            method: self.method.parse().expect("method"),
            target: self.target.into(),
            authority: None,
            headers,
        };
        let target = CanonicalTarget::parse(&head).expect("target");
        let params = PathTemplate::parse(self.template).expect("template").matches(&target).expect("fits");
        let body = match self.media_type {
            Some("application/json") => {
                BodyRules::Json { forward: Forward::Canonical, required: Required::Required }
            }
            Some(_) => BodyRules::Form { required: Required::Required },
            None => BodyRules::None,
        };
        let rules = Rules {
            upstream_authority: "upstream.example".into(),
            body,
            body_bytes_max: 65_536,
            schema: None,
            forward_headers: Default::default(),
            identity_headers: Default::default(),
            credential: None,
            path: Default::default(),
            query_lists: Default::default(),
            idempotency_key: Required::Optional,
            redaction: None,
        };
        let received = Received { head, body: Bytes::from_static(self.body.as_bytes()) };
        let request = canonicalize(received, target, params, &rules).expect("canonical");
        let strings = |list: &[&str]| Json::Array(list.iter().map(|s| Json::string(s)).collect());
        let approval = |by: &&str| Json::object([("by", Json::string(by)), ("at", Json::string(self.at))]);
        Question {
            execution: ExecutionRequest {
                surface: "sample".parse().expect("name"),
                action: self.action.parse().expect("name"),
                actor: Arc::new(Actor {
                    id: "agent-7".parse().expect("id"),
                    method: AuthenticationMethod::ApiKey,
                    credential_digest: None,
                    claims: Json::object([("roles", strings(self.roles))]),
                    valid_until: None,
                }),
                trace: None,
                request,
            },
            package: self.package.parse().expect("name"),
            context: Context {
                facts: Json::object([]),
                budgets: Json::object([]),
                approvals: Json::Array(self.approvers.iter().map(approval).collect()),
                attempt: 1,
            },
            read_set: ReadSet {
                watched: Vec::new(),
                state: Vec::new(),
                captured_at: Clock::system().monotonic(),
                approvals_until: None,
            },
            now: WallTime::parse_rfc3339(self.at).expect("time"),
        }
    }
}

async fn judged(pdp: &Pdp, sample: Sample) -> (Decision, Vec<String>) {
    let codes =
        |reasons: &[interlock::model::PolicyReason]| reasons.iter().map(|r| r.code.to_string()).collect();
    match pdp.judge(sample.question()).await {
        Judgment::Permit(permit) => (Decision::Permit, codes(permit.verdict().reasons())),
        Judgment::Refusal(refusal) => (refusal.verdict().decision(), codes(refusal.verdict().reasons())),
    }
}

fn run_tests(sources: &Sources) -> testing::TestReport {
    let options = testing::Options::plain();
    testing::run(sources, testing::TestsIn::TestFiles, &options).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_shipped_packages_pass_their_own_tests() {
    let sources = Sources::read(&policies()).unwrap_or_else(|e| panic!("{e}"));
    let report = run_tests(&sources);
    assert_eq!(report.failures().collect::<Vec<_>>(), []);
    for package in packages() {
        let own = report.results.iter().filter(|test| test.package == format!("{package}_test")).count();
        assert!(own >= 5, "{package} has {own} tests");
    }
}

#[tokio::test]
async fn payments_give_all_five_verdicts() {
    let pdp = pdp();
    let json = |body: &'static str| Sample { body, ..CHARGE };
    let cases = [
        (CHARGE, Decision::Permit, "within_limit"),
        (json(r#"{"amount":50001,"currency":"EUR","customer":"cus_1"}"#), Decision::Deny, "over_limit"),
        (
            Sample { roles: &["senior"], ..json(r#"{"amount":100001,"currency":"EUR","customer":"cus_1"}"#) },
            Decision::Escalate,
            "needs_approval",
        ),
        (
            Sample {
                roles: &["senior"],
                approvers: &["lea"],
                ..json(r#"{"amount":100001,"currency":"EUR","customer":"cus_1"}"#)
            },
            Decision::Permit,
            "within_limit",
        ),
        (
            json(r#"{"amount":1,"currency":"EUR","customer":"cus_canary"}"#),
            Decision::Quarantine,
            "canary_touched",
        ),
        (Sample { action: "charge.capture", ..CHARGE }, Decision::Silence, "policy_silent"),
        (
            Sample {
                media_type: Some("application/x-www-form-urlencoded"),
                body: "amount=4200&currency=eur&customer=cus_1",
                ..CHARGE
            },
            Decision::Permit,
            "within_limit",
        ),
        (
            Sample {
                action: "charge.list",
                method: "GET",
                target: "/v1/charges?limit=10",
                media_type: None,
                body: "",
                ..CHARGE
            },
            Decision::Permit,
            "may_read",
        ),
    ];
    for (sample, decision, code) in cases {
        let shown = (sample.action, sample.body);
        assert_eq!(judged(&pdp, sample).await, (decision, vec![code.to_string()]), "{shown:?}");
    }
}

#[tokio::test]
async fn exports_and_configuration_decide_by_time_and_people() {
    let pdp = pdp();
    let export = |at| Sample {
        package: "gateway.exports",
        action: "export.create",
        template: "/exports",
        target: "/exports",
        body: r#"{"dataset":"orders","rows_max":500,"format":"csv"}"#,
        roles: &["analyst"],
        at,
        ..CHARGE
    };
    let change = |target, approvers, at| Sample {
        package: "gateway.configuration",
        action: "config.change",
        method: "PUT",
        template: "/config/{key}",
        target,
        body: r#"{"value":"on"}"#,
        roles: &["operator"],
        approvers,
        at,
        ..CHARGE
    };
    let cases = [
        (export("2026-11-20T09:00:00Z"), Decision::Permit, "export_allowed"),
        (export("2026-11-21T09:00:00Z"), Decision::Escalate, "outside_business_hours"),
        (change("/config/feature.x", &["lea"], CHARGE.at), Decision::Permit, "change_in_window"),
        (change("/config/feature.x", &["agent-7"], CHARGE.at), Decision::Escalate, "second_person"),
        (change("/config/feature.x", &["lea"], "2026-11-20T10:00:00Z"), Decision::Deny, "outside_window"),
        (change("/config/audit.enabled", &["lea"], CHARGE.at), Decision::Quarantine, "protected_key"),
    ];
    for (sample, decision, code) in cases {
        let shown = (sample.target, sample.at);
        assert_eq!(judged(&pdp, sample).await, (decision, vec![code.to_string()]), "{shown:?}");
    }
}

#[tokio::test]
async fn the_evidence_of_a_judgment_replays_to_the_same_finding() {
    let pdp = pdp();
    let Judgment::Permit(permit) = pdp.judge(CHARGE.question()).await else { panic!("no permit") };
    let evaluation = permit.evaluation();
    assert_eq!(evaluation.input_digest, Digest::of(&evaluation.input));
    assert_eq!(evaluation.revision, pdp.revision());
    let bounds = json::Bounds { depth_max: 64, values_max: 100_000 };
    let input = json::parse(&evaluation.input, bounds).expect("evidence is strict JSON");
    assert_eq!(json::write(&input), evaluation.input);
    let replayed = pdp.find_on(&evaluation.package, input).await;
    assert_eq!((replayed.decision, &replayed.reasons[..]), (Decision::Permit, permit.verdict().reasons()));
    // The digits of the time are those of the microsecond.
    let text = String::from_utf8(evaluation.input.to_vec()).expect("UTF-8");
    assert!(
        text.contains(r#""rfc3339":"2026-11-19T10:00:00.123456Z","unix_ns":1795082400123456000"#),
        "{text}"
    );
}

#[tokio::test]
async fn silence_without_asking_policy_says_why() {
    let refusal = pdp().silence(CHARGE.question(), ReasonCode::ReadSetMoved);
    assert_eq!(refusal.verdict().decision(), Decision::Silence);
    assert_eq!(refusal.verdict().code(), ReasonCode::ReadSetMoved);
    assert_eq!(refusal.evaluation().not_evaluated, Some(ReasonCode::ReadSetMoved));
    assert_eq!(&*refusal.verdict().reasons()[0].code, "read_set_moved");
}

#[tokio::test]
async fn the_shipped_schema_is_the_generated_one_and_real_inputs_fit_it() {
    let generated = interlock::policy::input_schema();
    let text = serde_json::to_string_pretty(&generated).expect("text") + "\n";
    let shipped = std::fs::read_to_string(policies().join("input.schema.json")).unwrap_or_default();
    assert!(shipped == text, "policies/input.schema.json must be exactly:\n{text}");
    let schema = interlock::canonical::schema::Schema::compile(&text).expect("a schema");
    let pdp = pdp();
    let none = Sample { method: "GET", media_type: None, body: "", target: "/v1/charges?limit=1", ..CHARGE };
    for sample in [CHARGE, none] {
        let evaluation = match pdp.judge(sample.question()).await {
            Judgment::Permit(evaluated) => evaluated.evaluation().clone(),
            Judgment::Refusal(evaluated) => evaluated.evaluation().clone(),
        };
        let bounds = json::Bounds { depth_max: 64, values_max: 100_000 };
        let input = json::parse(&evaluation.input, bounds).expect("strict JSON");
        schema.check(&input).expect("the input fits");
    }
}

/// The snippets of a document fenced as `rego`, with what they are for: the words after `rego`.
fn snippets(document: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (Some(_), Some(_)) => found.extend(open.take().filter(|(info, _)| info.starts_with("rego"))),
            (None, Some(info)) => open = Some((info.trim().to_string(), String::new())),
            (None, None) => {}
        }
    }
    found
}

/// `rego` is a whole file and must load; `rego refused RULE` must be refused by that rule and no other;
/// `rego test` is a test file for the snippet before it and must pass.
#[test]
fn every_snippet_of_the_policy_document_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/POLICY.md")).expect("docs/POLICY.md");
    let mut last = String::new();
    let mut counts = [0, 0, 0];
    for (info, text) in snippets(&document) {
        let limits = std::fs::read(policies().join("ref/limits.json")).expect("reference data");
        let file = |name: &str, text: &str| (name.to_string(), text.as_bytes().to_vec());
        let mut files = vec![("ref/limits.json".to_string(), limits)];
        let words: Vec<&str> = info.split_whitespace().collect();
        match words[..] {
            ["rego"] => {
                files.push(file("example/p.rego", &text));
                let loaded = Sources::from_files(files).and_then(|s| Bundle::from_sources(s, &[]));
                assert!(loaded.is_ok(), "{}\n{text}", loaded.expect_err("refused"));
                last = text;
                counts[0] += 1;
            }
            ["rego", "refused", rule] => {
                files.push(file("example/p.rego", &text));
                let error = Sources::from_files(files)
                    .and_then(|s| Bundle::from_sources(s, &[]))
                    .expect_err(&format!("must be refused by {rule}:\n{text}"));
                let rules: Vec<_> = error.faults().iter().map(|fault| fault.rule).collect();
                assert!(rules.iter().all(|found| *found == rule), "{rule}: {error}");
                counts[1] += 1;
            }
            ["rego", "test"] => {
                files.push(file("example/p.rego", &last));
                files.push(file("example/p_test.rego", &text));
                let report = run_tests(&Sources::from_files(files).expect("sources"));
                assert_eq!(report.failures().collect::<Vec<_>>(), [], "{text}");
                counts[2] += 1;
            }
            _ => panic!("unknown kind of snippet: {info}"),
        }
    }
    assert!(counts.iter().all(|n| *n > 0), "no snippet of some kind: {counts:?}");
}
