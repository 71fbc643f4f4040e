//! Logs for the replay's tests: real judgments through a real ledger, and copies of them that were changed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::template::PathTemplate;
use interlock::canonical::{
    BodyRules, ExecutionRequest, Forward, Received, ReceivedHead, Required, Rules, Version, canonicalize,
};
use interlock::clock::{Clock, WallTime};
use interlock::ledger::{Closed, Ledger, PolicyActivation, Recording, Settings};
use interlock::limits;
use interlock::merkle::checkpoint::Checkpoint;
use interlock::merkle::frame::{self, Evidence, FrameParts};
use interlock::merkle::note::Signer;
use interlock::merkle::tree::{RightEdge, leaf_hash};
use interlock::model::{Actor, AuthenticationMethod, Digest, Json, LeafIndex, ReadSet, ReasonCode};
use interlock::policy::{self, Bundle, Context, Judgment, Pdp, Question, Sources};
use interlock::verify::Directory;
use interlock::verify::walk::{Step, Walk};
use serde_json::Value;

use crate::ledger_faults::{FIRST_SEGMENT, Key, ORIGIN, start, write};

/// A package for what the shipped ones never do: fail in ways that come again.
const FAILING: &str = r#"package gateway.failing

permit contains 1 if input.request.body.amount == 1

permit contains "number" if to_number(input.request.body.text) > 0

permit contains "late" if {
	input.request.body.amount == 3
	count([x | some x in numbers.range(1, 2000); some y in numbers.range(1, 2000); x == y]) > 0
}
"#;

/// The shipped files and [`FAILING`]; `change` edits the text of a file.
pub fn bundle(change: impl Fn(&str, String) -> String) -> Bundle {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let shipped = Sources::read(&root).unwrap_or_else(|e| panic!("{e}")).deciding();
    let shipped = shipped.into_iter().map(|f| (f.name.to_string(), f.bytes.to_vec()));
    let files = shipped.chain([("failing/failing.rego".to_owned(), FAILING.into())]).map(|(name, bytes)| {
        let text = change(&name, String::from_utf8(bytes).expect("UTF-8"));
        (name, text.into_bytes())
    });
    Sources::from_files(files)
        .and_then(|sources| Bundle::from_sources(sources, &[]))
        .unwrap_or_else(|e| panic!("{e}"))
}

pub fn shipped() -> Bundle {
    bundle(|_, text| text)
}

/// Agents may spend ten times as much.
pub fn generous() -> Bundle {
    bundle(|name, text| match name {
        "ref/limits.json" => text.replace("\"agent\": 50000", "\"agent\": 500000"),
        _ => text,
    })
}

/// What is asked, as a route of the shipped config would have it.
#[derive(Clone)]
pub struct Ask {
    pub package: &'static str,
    pub action: &'static str,
    pub target: String,
    pub body: String,
    pub role: &'static str,
    pub approver: Option<&'static str>,
    pub at: &'static str,
}

pub fn charge(amount: u64, customer: &str) -> Ask {
    Ask {
        package: "gateway.payments",
        action: "charge.create",
        target: "/v1/charges".into(),
        body: format!(r#"{{"amount":{amount},"currency":"EUR","customer":"{customer}"}}"#),
        role: "agent",
        approver: None,
        at: "2026-11-19T10:00:00.123456Z",
    }
}

/// Of many kinds, by number.
pub fn mixed(n: u64) -> Ask {
    let export = |at| Ask {
        package: "gateway.exports",
        action: "export.create",
        target: "/exports".into(),
        body: format!(r#"{{"dataset":"orders","rows_max":{},"format":"csv"}}"#, n % 700),
        role: "analyst",
        at,
        ..charge(1, "cus_1")
    };
    let change = |key: &str, approver, at| Ask {
        package: "gateway.configuration",
        action: "config.change",
        target: format!("/config/{key}"),
        body: format!(r#"{{"value":"on","ratio":{}.25}}"#, n % 900),
        role: "operator",
        approver,
        at,
    };
    let failing = |body: &str| Ask { package: "gateway.failing", body: body.into(), ..charge(1, "cus_1") };
    match n % 16 {
        0..=3 => charge(1 + n % 70_000, &format!("cus_{n}")),
        4 => charge(1 + n % 1_000, "cus_blocked"),
        5 => charge(1, "cus_canary"),
        6 => Ask { role: "senior", ..charge(90_000 + n % 20_000, "cus_2") },
        7 => Ask { action: "charge.capture", ..charge(n, "cus_3") },
        8 => Ask {
            body: format!(r#"{{"amount":"{n}","currency":"usd","customer":"k\u00f6ln {n}"}}"#),
            ..charge(1, "")
        },
        9 => export("2026-11-20T09:00:00Z"),
        10 => export("2026-11-21T09:00:00Z"),
        11 => change("feature.x", Some("lea"), "2026-11-19T10:00:00.123456Z"),
        12 => change("feature.x", None, "2026-11-20T10:00:00Z"),
        13 => change("audit.enabled", Some("lea"), "2026-11-19T10:00:00.123456Z"),
        14 => failing(r#"{"amount":1}"#),
        _ => failing(r#"{"amount":2,"text":"no number"}"#),
    }
}

impl Ask {
    pub fn question(&self) -> Question {
        let headers = [("host", "api.example"), ("content-type", "application/json")];
        let headers: HeaderMap = headers
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .into_iter()
            .collect();
        let head = ReceivedHead {
            version: Version::Http11,
            method: if self.action == "config.change" { http::Method::PUT } else { http::Method::POST },
            target: self.target.as_str().into(),
            authority: None,
            headers,
        };
        let target = CanonicalTarget::parse(&head).expect("a target");
        let template = if self.action == "config.change" { "/config/{key}" } else { &self.target };
        let params = PathTemplate::parse(template).expect("a template").matches(&target).expect("fits");
        let rules = Rules {
            upstream_authority: "upstream.example".into(),
            body: BodyRules::Json { forward: Forward::Canonical, required: Required::Required },
            body_bytes_max: 65_536,
            schema: None,
            redaction: Default::default(),
            forward_headers: Default::default(),
            identity_headers: Default::default(),
            credential: None,
            path: Default::default(),
            query_lists: Default::default(),
            idempotency_key: Required::Optional,
        };
        let received = Received { head, body: Bytes::from(self.body.clone()) };
        let request = canonicalize(received, target, params, &rules).expect("canonical");
        let approvals =
            self.approver.map(|by| Json::object([("by", Json::string(by)), ("at", Json::string(self.at))]));
        Question {
            execution: ExecutionRequest {
                surface: "sample".parse().expect("a name"),
                action: self.action.parse().expect("a name"),
                actor: Arc::new(Actor {
                    id: "agent-7".parse().expect("an id"),
                    method: AuthenticationMethod::ApiKey,
                    credential_digest: None,
                    claims: Json::object([("roles", Json::Array(vec![Json::string(self.role)]))]),
                    valid_until: None,
                }),
                trace: None,
                request,
            },
            package: self.package.parse().expect("a name"),
            context: Context { approvals: Json::Array(approvals.into_iter().collect()), ..Context::empty(1) },
            read_set: ReadSet {
                watched: Vec::new(),
                state: Vec::new(),
                captured_at: Clock::system().monotonic(),
                approvals_until: None,
            },
            now: WallTime::parse_rfc3339(self.at).expect("a time"),
        }
    }
}

/// A gateway without its edges: decision point and ledger.
#[derive(Clone)]
pub struct Recorder {
    pub pdp: Pdp,
    pub ledger: Ledger,
}

impl Recorder {
    pub async fn start(dir: &Path, key: &Key, bundle: Bundle) -> Self {
        let settings = Settings {
            dir: dir.to_owned(),
            origin: ORIGIN.parse().expect("a name"),
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT,
            salts: None,
            heartbeat: None,
        };
        let (ledger, _) =
            Ledger::open(settings, Box::new(key.clone()), Clock::system(), start()).expect("opens");
        // On a busy machine nothing here may end in a time-out.
        let bounds =
            policy::Settings { evaluation_max: Duration::from_secs(300), ..policy::Settings::default() };
        let pdp = Pdp::start(bundle, bounds, Clock::system(), None).expect("threads");
        let recorder = Self { pdp, ledger };
        recorder.record_policy().await;
        recorder
    }

    pub async fn activate(&self, bundle: Bundle) {
        self.pdp.activate(self.pdp.prepare(bundle).expect("compiles"));
        self.record_policy().await;
    }

    pub async fn record_policy(&self) {
        let activation = PolicyActivation {
            activated_by: "start".into(),
            engine: self.pdp.engine().into(),
            files: self.pdp.files(),
            revision: self.pdp.revision(),
            older_than: None,
            ordered: None,
            version: None,
        };
        self.ledger.record_policy(activation).await.expect("recorded");
    }

    fn recording(&self) -> Recording {
        Recording::new(self.ledger.new_id().expect("random"), None)
    }

    pub async fn judge(&self, ask: &Ask) -> Judgment {
        self.pdp.judge(ask.question()).await
    }

    /// A PERMIT is given up at once: its outcome is `not_sent`.
    pub async fn record(&self, judgment: Judgment) -> LeafIndex {
        match judgment {
            Judgment::Permit(permit) => {
                self.ledger.record_permit(permit, self.recording()).await.expect("recorded").receipt().index
            }
            Judgment::Refusal(refusal) => {
                self.ledger.record_refusal(refusal, self.recording()).await.expect("recorded").receipt().index
            }
        }
    }

    pub async fn ask(&self, ask: &Ask) -> LeafIndex {
        let judgment = self.judge(ask).await;
        self.record(judgment).await
    }

    pub async fn not_evaluated(&self, ask: &Ask, code: ReasonCode) -> LeafIndex {
        let refusal = self.pdp.silence(ask.question(), code);
        self.record(Judgment::Refusal(refusal)).await
    }

    pub async fn close(self) {
        assert_eq!(self.ledger.close(Duration::from_secs(60)).await, Closed::Clean);
    }
}

/// A frame's leaves and records, to be changed.
#[derive(Clone)]
pub struct Batch {
    pub entries: Vec<Vec<u8>>,
    pub evidence: Vec<Vec<u8>>,
}

/// What a log holds, without what binds it together.
#[derive(Clone)]
pub struct Content(pub Vec<Batch>);

impl Content {
    pub fn of(dir: &Path, key: &Key) -> Self {
        let source = Directory::open(dir).expect("a log");
        let mut walk = Walk::new(&source, key.verifier().name()).expect("readable");
        let mut batches = Vec::new();
        loop {
            match walk.step().expect("readable") {
                Step::Frame(frame, _) => batches.push(Batch {
                    entries: frame.entries.iter().map(|entry| entry.to_vec()).collect(),
                    evidence: frame.evidence.iter().map(|record| record.bytes.to_vec()).collect(),
                }),
                Step::End(_) => return Self(batches),
                Step::Damaged(damage) => panic!("{damage:?}"),
            }
        }
    }

    /// Changes every leaf of a type.
    pub fn leaves(&mut self, leaf_type: &str, mut change: impl FnMut(&mut Value)) {
        for entry in self.0.iter_mut().flat_map(|batch| &mut batch.entries) {
            let mut value: Value = serde_json::from_slice(entry).expect("JSON");
            if value["type"] == leaf_type {
                change(&mut value);
                *entry = serde_json_canonicalizer::to_vec(&value).expect("canonical");
            }
        }
    }

    pub fn records(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        self.0.iter_mut().flat_map(|batch| &mut batch.evidence)
    }

    /// A log with this content in one segment: every digest, link and root of it is right, and the seal is `seal`'s.
    /// The checkpoint is left alone.
    pub fn write(&self, dir: &Path, seal: &Key) -> (RightEdge, Vec<u64>) {
        let (mut edge, mut chain, mut segment) =
            (RightEdge::empty(), frame::genesis(&ORIGIN.parse().expect("a name")), Vec::new());
        let frame_key = seal.frame_key().expect("signs");
        let mut offsets = Vec::new();
        for batch in &self.0 {
            let first = LeafIndex(edge.size().0);
            batch.entries.iter().for_each(|entry| edge.append(leaf_hash(entry)));
            let record = |bytes: &'_ Vec<u8>| Digest::of(bytes);
            let parts = FrameParts {
                first,
                previous: chain,
                root: edge.root(),
                entries: batch.entries.iter().map(Vec::as_slice).collect(),
                evidence: batch
                    .evidence
                    .iter()
                    .map(|bytes| Evidence { digest: record(bytes), bytes })
                    .collect(),
            };
            let (bytes, closing) = frame::encode(&parts, &frame_key);
            offsets.push(segment.len() as u64);
            chain = closing;
            segment.extend(bytes);
        }
        fs::create_dir_all(dir.join("frames")).expect("made");
        write(&dir.join(FIRST_SEGMENT), &segment);
        (edge, offsets)
    }

    /// The same, signed: what the holder of the key can write.
    pub fn write_signed(&self, dir: &Path, key: &Key) {
        let (edge, _) = self.write(dir, key);
        let checkpoint =
            Checkpoint { origin: ORIGIN.parse().expect("a name"), size: edge.size(), root: edge.root() };
        write(&dir.join("checkpoint"), checkpoint.sign(key).expect("signs").as_bytes());
    }
}
