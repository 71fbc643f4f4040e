//! Group `evaluate`: one evaluation, bare engine against the decision point (threads, input, evidence).

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderMap, HeaderValue};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::{
    BodyRules, ExecutionRequest, Forward, Received, ReceivedHead, Required, Rules, Version, canonicalize,
    json,
};
use interlock::clock::{Clock, WallTime};
use interlock::model::{Actor, AuthenticationMethod, Json, PackageName, ReadSet};
use interlock::policy::{Bundle, Context, Judgment, Pdp, Question, Settings, Sources};

const TRIVIAL: &str =
    "package gateway.trivial\npermit contains \"yes\" if input.request.method == \"POST\"\n";

pub fn group(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().expect("a runtime");
    let mut group = c.benchmark_group("evaluate");
    for (name, package) in [("trivial", "gateway.trivial"), ("payments_1000_entries", "gateway.payments")] {
        let package: PackageName = package.parse().expect("a name");
        let bundle =
            Bundle::from_sources(sources(), std::slice::from_ref(&package)).unwrap_or_else(|e| panic!("{e}"));
        let pdp = Pdp::start(bundle, Settings::default(), Clock::system(), None).expect("threads");

        group.bench_function(format!("judge/{name}"), |b| {
            b.iter_batched(
                || question(&package),
                |question| match runtime.block_on(pdp.judge(question)) {
                    Judgment::Permit(permit) => permit,
                    Judgment::Refusal(refusal) => panic!("refused: {:?}", refusal.verdict().reasons()),
                },
                criterion::BatchSize::SmallInput,
            );
        });

        let Judgment::Permit(permit) = runtime.block_on(pdp.judge(question(&package))) else {
            panic!("refused")
        };
        let bounds = json::Bounds { depth_max: 64, values_max: 10_000 };
        let input = json::parse(&permit.evaluation().input, bounds).expect("evidence");
        let bare = pdp.bare(&package).expect("the package");
        group.bench_function(format!("bare/{name}"), |b| b.iter(|| bare.find(black_box(&input))));
    }
    group.finish();
}

/// The shipped bundle, the trivial package, and a table of 1,000 blocked counterparties.
fn sources() -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let shipped = Sources::read(&root).unwrap_or_else(|e| panic!("{e}"));
    let blocked: String = (0..1_000).map(|n| format!("\"cus_{n:04}\":\"case {n}\",")).collect();
    let table = format!("{{\"blocked\":{{{}}},\"canaries\":{{}}}}", blocked.trim_end_matches(','));
    let rego = shipped.policies.iter().map(|f| (f.name.to_string(), f.text.as_bytes().to_vec()));
    let data = shipped.data.iter().map(|f| (f.name.to_string(), json::write(&f.value)));
    let mut files: Vec<(String, Vec<u8>)> = rego.chain(data).collect();
    files.retain(|(name, _)| name != "ref/counterparties.json");
    files.push(("ref/counterparties.json".into(), table.into_bytes()));
    files.push(("trivial/trivial.rego".into(), TRIVIAL.into()));
    Sources::from_files(files).unwrap_or_else(|e| panic!("{e}"))
}

fn question(package: &PackageName) -> Question {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("api.example"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let head = ReceivedHead {
        version: Version::Http11,
        method: http::Method::POST,
        target: "/v1/charges".into(),
        authority: None,
        headers,
    };
    let target = CanonicalTarget::parse(&head).expect("a target");
    let rules = Rules {
        upstream_authority: "upstream.example".into(),
        body: BodyRules::Json { forward: Forward::Canonical, required: Required::Required },
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
    let body =
        Bytes::from_static(br#"{"amount":4200,"currency":"eur","customer":"cus_1","description":"order 7"}"#);
    let request = canonicalize(Received { head, body }, target, Vec::new(), &rules).expect("canonical");
    Question {
        execution: ExecutionRequest {
            surface: "payments".parse().expect("a name"),
            action: "charge.create".parse().expect("a name"),
            actor: Arc::new(Actor {
                id: "agent-7".parse().expect("an id"),
                method: AuthenticationMethod::ApiKey,
                credential_digest: None,
                claims: Json::object([("roles", Json::Array(vec![Json::string("agent")]))]),
                valid_until: None,
            }),
            trace: None,
            request,
        },
        package: package.clone(),
        context: Context {
            facts: Json::object([]),
            budgets: Json::object([]),
            approvals: Json::Array(Vec::new()),
            attempt: 1,
        },
        read_set: ReadSet {
            watched: Vec::new(),
            state: Vec::new(),
            captured_at: Clock::system().monotonic(),
            approvals_until: None,
        },
        now: WallTime::from_unix_ns(1_795_082_400_000_000_000),
    }
}
