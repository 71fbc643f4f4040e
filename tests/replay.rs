//! Replay: what was recorded comes out again, what was changed does not, and what cannot be replayed says why.

pub mod recording;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use interlock::clock::Clock;
use interlock::merkle::note::Signer;
use interlock::model::entry::DisclosureDigest;
use interlock::model::{Decision, Json, LeafIndex, ReasonCode};
use interlock::policy::{Bundle, ENGINE, Judgment, Pdp};
use interlock::replay::{
    Amount, Comparison, Disclosures, Gate, Group, Measure, Place, Replayer, Report, Selection, Under, WhyNot,
};
use interlock::verify::{Check, Directory, Verdict, verify_log};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::ledger_faults::{FIRST_SEGMENT, Key, write};
use recording::{Ask, Content, Recorder, bounds, bundle, charge, generous, mixed, shipped};

/// A surface as the recorded requests name it, with a budget.
const CONFIG: &str = r#"
log_origin: example.org/log
ledger: { dir: ./ledger, signing_key: ./log.key }
policy: { dir: . }
admin: { listen: 127.0.0.1:0 }
listeners: [{ name: main, address: 127.0.0.1:0 }]
api_keys: [{ id: agent-7, prefix: ilk_agent007, sha256: 0000000000000000000000000000000000000000000000000000000000000000 }]
surfaces:
  - name: sample
    listener: main
    package: gateway.payments
    identity: { api_key: { headers: [x-api-key] } }
    upstream: { url: "http://127.0.0.1:9" }
    budgets: [{ name: day, amount: /request/body/amount, window: { calendar: day, zone: UTC }, unit: cents }]
    routes:
      - { action: charge.create, method: POST, path: /v1/charges, body: json }
"#;

fn replayer(key: &Key) -> Replayer {
    Replayer {
        trust: key.verifier().clone().into(),
        selection: Selection::All,
        under: Under::Recorded,
        disclosures: Disclosures::default(),
        accept_engine: false,
        threads: NonZeroUsize::new(2).expect("two"),
    }
}

fn run(dir: &Path, replayer: Replayer) -> Report {
    replayer.run(&Directory::open(dir).expect("a log"), |_| {}).expect("readable")
}

/// A small log of the shipped bundle: one decision of each of these.
async fn log_of(asks: &[Ask]) -> (TempDir, Key) {
    let (dir, key) = (tempfile::tempdir().expect("a directory"), Key::new());
    let recorder = Recorder::start(dir.path(), &key, shipped()).await;
    for ask in asks {
        recorder.ask(ask).await;
    }
    recorder.close().await;
    (dir, key)
}

fn under(bundle: Bundle) -> Under {
    Under::Given(Box::new(bundle))
}

fn only(report: &Report, why: WhyNot, count: u64) {
    assert_eq!(report.not_replayed, BTreeMap::from([(why, count)]), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_mixed_decisions_come_out_exactly_as_recorded() {
    const DECISIONS: u64 = 100_000;
    const CALLERS: u64 = 512;
    let (dir, key) = (tempfile::tempdir().expect("a directory"), Key::new());
    let recorder = Recorder::start(dir.path(), &key, shipped()).await;
    // What another bundle says is asked of it, one request after the other.
    let other = Pdp::start(generous(), bounds(), Clock::system(), None).expect("threads");
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (recorder, other) = (recorder.clone(), other.clone());
        callers.spawn(async move {
            let mut seen: BTreeMap<String, u64> = BTreeMap::new();
            let mut changes = Changes::default();
            for n in (caller..DECISIONS).step_by(CALLERS as usize) {
                let ask = mixed(n);
                let judgment = recorder.judge(&ask).await;
                changes.add(&ask, &judgment, &other.judge(ask.question()).await);
                let verdict = match &judgment {
                    Judgment::Permit(_) => "PERMIT".to_owned(),
                    Judgment::Refusal(r) => match r.evaluation().not_evaluated {
                        None => r.verdict().decision().as_str().to_owned(),
                        Some(code) => code.as_str().to_owned(),
                    },
                };
                *seen.entry(format!("{} {verdict}", ask.package)).or_default() += 1;
                recorder.record(judgment).await;
            }
            (seen, changes)
        });
    }
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut changes = Changes::default();
    while let Some(of_one) = callers.join_next().await {
        let (counts, of_one) = of_one.expect("no panic");
        for (what, count) in counts {
            *seen.entry(what).or_default() += count;
        }
        changes.merge(of_one);
    }
    recorder.close().await;
    for verdict in ["PERMIT", "DENY", "SILENCE", "ESCALATE", "QUARANTINE"] {
        let of = |package: &str| seen.get(&format!("gateway.{package} {verdict}")).copied().unwrap_or(0);
        assert!(of("payments") + of("exports") + of("configuration") > 1_000, "{verdict} in {seen:?}");
    }
    for code in [ReasonCode::EvaluationError, ReasonCode::EvaluationResultInvalid] {
        assert!(seen[&format!("gateway.failing {code}")] > 1_000, "{code} in {seen:?}");
    }

    let report = run(dir.path(), replayer(&key));
    println!("{seen:?}\n{report}");
    assert_eq!((report.decisions, report.exact), (DECISIONS, DECISIONS), "{report}");
    assert!(report.all_exact() && report.problem_count == 0 && report.signed_size == Some(report.size));

    let under_other = Replayer { under: under(generous()), ..replayer(&key) };
    let log = Directory::open(dir.path()).expect("a log");
    let comparison = under_other.compare(&log, &ByAmount, |_| {}).expect("readable");
    println!("{}", comparison.show(0));
    assert_eq!(Changes::of(&comparison), changes);
    let permitted = comparison.groups.iter().filter(|group| group.is_new_permit());
    assert!(permitted.map(|group| group.changed.count).sum::<u64>() > 1_000);
    assert_eq!(comparison.exit_code(&[Gate::NewPermit]), 20);
    assert_eq!(comparison.exit_code(&[]), 0);
}

/// How often which verdict becomes which, with the sum of what is at `amount`.
#[derive(Debug, Default, PartialEq)]
struct Changes(BTreeMap<(String, Decision, Decision), (u64, u64)>);

impl Changes {
    fn add(&mut self, ask: &Ask, before: &Judgment, after: &Judgment) {
        let said = |judgment: &Judgment| match judgment {
            Judgment::Permit(permit) => (Decision::Permit, permit.verdict().reasons().to_vec(), None),
            Judgment::Refusal(refusal) => {
                let verdict = refusal.verdict();
                (verdict.decision(), verdict.reasons().to_vec(), refusal.evaluation().not_evaluated)
            }
        };
        let (before, after) = (said(before), said(after));
        if before == after {
            return;
        }
        let body: Value = serde_json::from_str(&ask.body).expect("JSON");
        let change = self.0.entry((ask.action.to_owned(), before.0, after.0)).or_default();
        change.0 += 1;
        change.1 += body["amount"].as_u64().unwrap_or(0);
    }

    fn merge(&mut self, other: Self) {
        for (key, (count, sum)) in other.0 {
            let change = self.0.entry(key).or_default();
            *change = (change.0 + count, change.1 + sum);
        }
    }

    fn of(comparison: &Comparison) -> Self {
        let of_group = |group: &Group| {
            let Place { action, before, after, .. } = &group.place;
            let sum = group
                .changed
                .sums
                .values()
                .map(|sum| u64::try_from(sum.total.expect("small")).expect("whole"));
            ((action.to_string(), *before, *after), (group.changed.count, sum.sum()))
        };
        Self(comparison.groups.iter().map(of_group).collect())
    }
}

/// The number at `/request/body/amount`.
#[derive(Debug)]
struct ByAmount;

impl Measure for ByAmount {
    fn amounts(&self, input: &Json) -> Vec<Amount> {
        let member =
            |json: &Json, name: &str| json.as_object().and_then(|object| object.member(name).cloned());
        let body = member(input, "request").and_then(|request| member(&request, "body"));
        let Some(Json::Number(amount)) = body.and_then(|body| member(&body, "amount")) else {
            return Vec::new();
        };
        let amount = amount.as_exact_i64().expect("whole").into();
        vec![Amount { name: "amount".into(), unit: "cents".into(), amount }]
    }
}

#[tokio::test]
async fn the_program_says_what_a_bundle_would_change_and_its_gates_hold() {
    let (dir, key) = log_of(&[charge(100, "cus_1"), charge(60_000, "cus_1"), charge(300_000, "cus_2")]).await;
    let candidate = tempfile::tempdir().expect("a directory");
    let put = |name: &str, text: &str| {
        let path = candidate.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    // Permits what is not over 100,000, and nothing else is said of anything.
    put(
        "payments.rego",
        "package gateway.payments\n\npermit contains \"small\" if input.request.body.amount <= 100000\n",
    );
    let config = candidate.path().join("interlock.yaml");
    std::fs::write(&config, CONFIG).expect("written");
    let diff = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_interlock"))
            .args(["policy", "diff", "--policy"])
            .arg(candidate.path())
            .arg("--log")
            .arg(dir.path())
            .args(["--key", &key.verifier().to_string()])
            .args(more)
            .output()
            .expect("runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    };
    let (code, text) = diff(&[]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "of 3 decisions 0 stay as they are, 3 differ",
        "sample/charge.create: 1 newly permitted, DENY to PERMIT\n  + small 1\n  - over_limit 1\n  by agent-7: 1\n",
        "sample/charge.create: 1 for other reasons, PERMIT to PERMIT\n  + small 1\n  - within_limit 1\n",
        "sample/charge.create: 1 refused otherwise, DENY to SILENCE\n  + policy_silent 1\n  - over_limit 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(diff(&["--fail-on", "new-permit"]).0, Some(20));
    assert_eq!(diff(&["--fail-on", "new-refusal"]).0, Some(0));
    assert_eq!(diff(&["--fail-on", "new-refusal", "--fail-on", "any-verdict"]).0, Some(20));
    // Nothing there to be judged is no success.
    assert_eq!(diff(&["--from", "1000"]).0, Some(3));
    let currency = ["--by", "/request/body/currency"];
    let (code, text) =
        diff(&[&["--config", config.to_str().expect("UTF-8"), "--json"], &currency[..]].concat());
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let permitted = report["groups"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|group| group["after"] == "PERMIT" && group["before"] == "DENY");
    let sum = json!([{ "name": "day", "of": 1, "total": "60000", "unit": "cents EUR" }]);
    assert_eq!(permitted.expect("there")["sums"], sum, "{text}");
    assert_eq!(report["differences"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn one_changed_rule_in_the_stored_bundle_is_refused_by_its_digest_and_named() {
    let (dir, key) = log_of(&[charge(60_000, "cus_1"), charge(5, "cus_2")]).await;
    let sound = Content::of(dir.path(), &key);
    let loosen = |content: &mut Content| {
        let limits = content.records().find(|record| record.starts_with(b"{\n  \"EUR\"")).expect("the file");
        let text = String::from_utf8(limits.clone()).expect("UTF-8");
        *limits = text.replace("\"agent\": 50000", "\"agent\": 90000").into_bytes();
    };

    // The bytes alone.
    let segment = dir.path().join(FIRST_SEGMENT);
    let mut bytes = std::fs::read(&segment).expect("readable");
    let at = bytes.windows(16).position(|w| w == b"\"agent\": 50000, ").expect("there") + 9;
    bytes[at] = b'9';
    write(&segment, &bytes);
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (0, 10), "{report}");
    let problem = &report.problems[0];
    assert_eq!((problem.check, problem.index), (Check::Frames, Some(LeafIndex(1))), "{report}");
    assert_eq!(problem.file.as_deref(), Some(FIRST_SEGMENT));

    // With every digest of the frames put right, which needs no key.
    let mut changed = sound.clone();
    loosen(&mut changed);
    let (_, offsets) = changed.write(dir.path(), &Key::new());
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.differ, report.exit_code()), (0, 0, 15), "{report}");
    only(&report, WhyNot::BundleRefused, 2);
    let problem = &report.problems[0];
    assert_eq!((problem.check, problem.index), (Check::Evidence, Some(LeafIndex(1))), "{report}");
    assert_eq!((problem.file.as_deref(), problem.offset), (Some(FIRST_SEGMENT), Some(offsets[1])));
    assert!(problem.what.contains("`ref/limits.json`"), "{}", problem.what);
    let verified =
        verify_log(&Directory::open(dir.path()).expect("a log"), key.verifier()).expect("readable");
    assert_eq!(verified.verdicts.evidence, Verdict::Fail, "{verified}");

    // With the leaves put right too: then they are not the ones that were signed.
    let digest = changed
        .records()
        .find(|record| record.starts_with(b"{\n  \"EUR\""))
        .map(|record| interlock::model::Digest::of(record))
        .expect("the file");
    let mut revision = Value::Null;
    changed.leaves("policy", |leaf| {
        let files = leaf["files"].as_array_mut().expect("a list");
        let file = files.iter_mut().find(|file| file["name"] == "ref/limits.json").expect("the file");
        file["sha256"] = json!(digest);
        let files = serde_json::from_value::<Vec<_>>(leaf["files"].clone()).expect("files");
        revision = json!(interlock::model::entry::policy_revision(ENGINE, &files));
        leaf["revision"] = revision.clone();
    });
    changed.leaves("decision", |leaf| leaf["policy"]["revision"] = revision.clone());
    changed.write(dir.path(), &Key::new());
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.differ, report.exit_code()), (0, 0, 12), "{report}");
    only(&report, WhyNot::Unsigned, 2);
    assert_eq!((report.signed_size, report.differences.len()), (None, 0));

    sound.write(dir.path(), &key);
    assert_eq!(run(dir.path(), replayer(&key)).exact, 2);
}

#[tokio::test]
async fn another_bundle_given_explicitly_names_exactly_the_decisions_that_change() {
    let amounts = [100, 50_000, 50_001, 60_000, 300_000, 500_001, 7];
    let asks: Vec<_> = amounts.iter().map(|&amount| charge(amount, "cus_1")).collect();
    let (dir, key) = log_of(&asks).await;
    let report = run(dir.path(), Replayer { under: under(generous()), ..replayer(&key) });
    assert_eq!(report.exit_code(), 17, "{report}");
    assert_eq!(report.given_revision, Some(generous().revision()));
    let changed: Vec<_> = report
        .differences
        .iter()
        .map(|d| (d.before.decision, d.after.decision, &*d.after.reasons[0].code))
        .collect();
    let expected = [
        // The reasons name the limit, so every one of them changes.
        (Decision::Permit, Decision::Permit, "within_limit"),
        (Decision::Permit, Decision::Permit, "within_limit"),
        (Decision::Deny, Decision::Permit, "within_limit"),
        (Decision::Deny, Decision::Permit, "within_limit"),
        (Decision::Deny, Decision::Escalate, "needs_approval"),
        (Decision::Deny, Decision::Deny, "over_limit"),
        (Decision::Permit, Decision::Permit, "within_limit"),
    ];
    assert_eq!(changed, expected, "{report}");
    let count = |before, after| {
        report.changes.iter().find(|c| (c.before, c.after) == (before, after)).map(|c| c.count)
    };
    assert_eq!(count(Decision::Deny, Decision::Permit), Some(2));
    assert_eq!(count(Decision::Permit, Decision::Permit), Some(3));

    // A rule that touches one decision only.
    let blocking = bundle(|name, text| match name {
        "payments/payments.rego" => {
            text + "\ndeny contains \"unlucky\" if input.request.body.amount == 300000\n\
                    \ndeny contains \"sevens\" if input.request.body.amount == 7\n"
        }
        _ => text,
    });
    let report = run(dir.path(), Replayer { under: under(blocking), ..replayer(&key) });
    assert_eq!((report.exact, report.differ), (5, 2), "{report}");
    let named: Vec<_> = report.differences.iter().map(|d| d.before.decision.as_str()).collect();
    assert_eq!(named, ["DENY", "PERMIT"]);
    let last = &report.differences[1];
    assert_eq!((last.about.surface.as_str(), last.about.action.as_str()), ("sample", "charge.create"));
    assert_eq!(last.about.actor.as_str(), "agent-7");
    assert_eq!(&*last.after.reasons[0].code, "sevens");

    // The same bundle again is no other.
    let same = run(dir.path(), Replayer { under: under(shipped()), ..replayer(&key) });
    assert_eq!((same.exact, same.exit_code()), (7, 0), "{same}");
}

#[tokio::test]
async fn each_decision_is_replayed_by_the_bundle_that_judged_it() {
    let (dir, key) = (tempfile::tempdir().expect("a directory"), Key::new());
    let recorder = Recorder::start(dir.path(), &key, shipped()).await;
    let ask = charge(60_000, "cus_1");
    recorder.ask(&ask).await;
    // Judged by the first bundle, and recorded after the second became the active one.
    let on_its_way = recorder.judge(&ask).await;
    recorder.activate(generous()).await;
    recorder.record(on_its_way).await;
    recorder.ask(&ask).await;
    recorder.activate(shipped()).await;
    recorder.ask(&ask).await;
    recorder.close().await;
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.decisions, report.exact, report.activations), (4, 4, 3), "{report}");

    let under_the_first = run(dir.path(), Replayer { under: under(shipped()), ..replayer(&key) });
    assert_eq!((under_the_first.exact, under_the_first.differ), (3, 1), "{under_the_first}");
    let difference = &under_the_first.differences[0];
    assert_eq!((difference.before.decision, difference.after.decision), (Decision::Permit, Decision::Deny));
}

#[tokio::test]
async fn what_another_engine_judged_is_named_and_evaluated_only_if_asked_for() {
    let (dir, key) = log_of(&[charge(5, "cus_1"), charge(60_000, "cus_1")]).await;
    let mut content = Content::of(dir.path(), &key);
    const OTHER: &str = "regorus/9.9.9 interpreter strict";
    let mut revision = Value::Null;
    content.leaves("policy", |leaf| {
        let files = serde_json::from_value::<Vec<_>>(leaf["files"].clone()).expect("files");
        leaf["engine"] = json!(OTHER);
        revision = json!(interlock::model::entry::policy_revision(OTHER, &files));
        leaf["revision"] = revision.clone();
    });
    content.leaves("decision", |leaf| {
        leaf["policy"]["engine"] = json!(OTHER);
        leaf["policy"]["revision"] = revision.clone();
    });
    content.write_signed(dir.path(), &key);
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (0, 3), "{report}");
    only(&report, WhyNot::OtherEngine, 2);
    let what = &report.left[0].what;
    assert!(what.contains(OTHER) && what.contains(ENGINE), "{what}");

    let report = run(dir.path(), Replayer { accept_engine: true, ..replayer(&key) });
    assert_eq!((report.exact, report.by_other_engine, report.exit_code()), (2, 2, 0), "{report}");
    assert!(report.to_string().contains("2 were judged by another engine"), "{report}");

    // The decision says one thing, the activation of its bundle another.
    content.leaves("decision", |leaf| leaf["policy"]["engine"] = json!(ENGINE));
    content.write_signed(dir.path(), &key);
    only(&run(dir.path(), replayer(&key)), WhyNot::OtherEngine, 2);
}

#[tokio::test]
async fn a_decision_whose_input_is_gone_or_exchanged_is_named_and_the_others_are_replayed() {
    let (dir, key) = log_of(&[charge(5, "cus_1"), charge(6, "cus_2"), charge(7, "cus_3")]).await;
    let sound = Content::of(dir.path(), &key);
    let of_second = |batch: &recording::Batch| batch.evidence.iter().any(|r| holds(r, "cus_2"));

    let mut gone = sound.clone();
    gone.0.iter_mut().filter(|b| of_second(b)).for_each(|batch| batch.evidence.clear());
    gone.write(dir.path(), &Key::new());
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (2, 3), "{report}");
    only(&report, WhyNot::InputMissing, 1);

    let mut exchanged = sound.clone();
    let record = exchanged.records().find(|record| holds(record, "cus_2")).expect("there");
    *record = String::from_utf8(record.clone()).expect("UTF-8").replace("cus_2", "cus_9").into_bytes();
    let (_, offsets) = exchanged.write(dir.path(), &Key::new());
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (2, 15), "{report}");
    only(&report, WhyNot::InputMissing, 1);
    let frame = sound.0.iter().position(of_second).expect("there");
    let problem = &report.problems[0];
    assert_eq!((problem.check, problem.index), (Check::Evidence, Some(report.left[0].about.index)));
    assert_eq!((problem.file.as_deref(), problem.offset), (Some(FIRST_SEGMENT), Some(offsets[frame])));
    assert!(problem.what.contains("is there instead"), "{}", problem.what);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_bundle_without_its_bytes_or_with_an_untrue_revision_is_not_replayed() {
    let (dir, key) = log_of(&[charge(5, "cus_1")]).await;
    let sound = Content::of(dir.path(), &key);
    let mut without = sound.clone();
    without.0[1].evidence.clear();
    without.write(dir.path(), &key);
    let report = run(dir.path(), replayer(&key));
    assert_eq!(report.exit_code(), 3, "{report}");
    only(&report, WhyNot::BundleMissing, 1);

    let mut untrue = sound.clone();
    let other = json!(interlock::model::Digest::of(b"other"));
    untrue.leaves("policy", |leaf| leaf["revision"] = other.clone());
    untrue.leaves("decision", |leaf| leaf["policy"]["revision"] = other.clone());
    untrue.write_signed(dir.path(), &key);
    let report = run(dir.path(), replayer(&key));
    assert_eq!(report.exit_code(), 15, "{report}");
    only(&report, WhyNot::BundleRefused, 1);
    assert!(report.problems[0].what.contains("its files give sha-256:"), "{report}");

    let mut unknown = sound.clone();
    unknown.leaves("decision", |leaf| leaf["policy"]["revision"] = other.clone());
    unknown.write_signed(dir.path(), &key);
    let report = run(dir.path(), replayer(&key));
    assert_eq!(report.exit_code(), 3, "{report}");
    only(&report, WhyNot::BundleUnknown, 1);
}

#[tokio::test]
async fn what_the_clock_or_the_load_decided_is_a_class_of_its_own() {
    let (dir, key) = (tempfile::tempdir().expect("a directory"), Key::new());
    let recorder = Recorder::start(dir.path(), &key, shipped()).await;
    for code in [ReasonCode::EvaluationTimeout, ReasonCode::EvaluationOverloaded, ReasonCode::ReadSetMoved] {
        recorder.not_evaluated(&charge(5, "cus_1"), code).await;
    }
    // An error of policy itself comes again, also that of the step bound.
    for body in [r#"{"amount":1}"#, r#"{"amount":2,"text":"x"}"#, r#"{"amount":3,"text":"1"}"#] {
        let ask = Ask { package: "gateway.failing", body: body.into(), ..charge(1, "cus_1") };
        recorder.ask(&ask).await;
    }
    let missing = Ask { package: "gateway.nowhere", ..charge(1, "cus_1") };
    recorder.ask(&missing).await;
    recorder.close().await;
    let report = run(dir.path(), replayer(&key));
    // No policy decided those, so there is nothing of theirs to come out again.
    assert_eq!((report.exact, report.differ, report.exit_code()), (4, 0, 0), "{report}");
    assert!(report.says_all_of_the_signed(), "{report}");
    only(&report, WhyNot::NotEvaluated, 3);
    assert!(report.left[0].what.contains("evaluation_timeout"), "{report}");

    // Another error than the recorded one is a difference.
    let mut content = Content::of(dir.path(), &key);
    content.leaves("decision", |leaf| {
        if leaf["evaluation"]["cause"] == "evaluation_error" {
            leaf["evaluation"]["cause"] = json!("evaluation_result_invalid");
        }
    });
    content.write_signed(dir.path(), &key);
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.differ), (1, 3), "{report}");
}

#[tokio::test]
async fn a_verdict_that_policy_did_not_give_is_found_even_if_the_key_signed_it() {
    let (dir, key) = log_of(&[charge(60_000, "cus_1"), charge(5, "cus_1")]).await;
    let mut content = Content::of(dir.path(), &key);
    let mut seen = 0;
    content.leaves("decision", |leaf| {
        if leaf["decision"] == "DENY" {
            leaf["decision"] = json!("PERMIT");
            seen += 1;
        } else {
            leaf["reasons"][0]["detail"]["limit"] = json!(50_001);
        }
    });
    assert_eq!(seen, 1);
    content.write_signed(dir.path(), &key);
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.differ, report.exit_code()), (0, 2, 17), "{report}");
    assert_eq!(
        (report.differences[0].before.decision, report.differences[0].after.decision),
        (Decision::Permit, Decision::Deny)
    );
    assert_ne!(report.differences[1].before.reasons, report.differences[1].after.reasons);

    let (log, vkey) = (dir.path().to_str().expect("UTF-8"), key.verifier().to_string());
    let args = ["verify", "--replay", "--json", "--log", log, "--key", &vkey];
    let output = Command::new(env!("CARGO_BIN_EXE_interlock")).args(args).output().expect("runs");
    let verified: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(verified["verdicts"]["replayed"], "fail", "{verified}");
    let problems = verified["problems"].as_array().expect("a list");
    assert_eq!(problems.iter().filter(|p| p["check"] == "replayed").count(), 2, "{verified}");
}

#[tokio::test]
async fn nothing_is_called_replayed_that_the_pinned_key_has_not_signed() {
    let (dir, key) = (tempfile::tempdir().expect("a directory"), Key::new());
    let recorder = Recorder::start(dir.path(), &key, shipped()).await;
    recorder.ask(&charge(60_000, "cus_1")).await;
    let early = recorder.ledger.checkpoint().expect("signed");
    recorder.ask(&charge(60_001, "cus_1")).await;
    recorder.close().await;

    write(&dir.path().join("checkpoint"), early.as_bytes());
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.decisions, report.exact, report.exit_code()), (2, 1, 3), "{report}");
    only(&report, WhyNot::Unsigned, 1);

    let stranger = run(dir.path(), replayer(&Key::new()));
    assert_eq!((stranger.exact, stranger.exit_code()), (0, 12), "{stranger}");
    only(&stranger, WhyNot::Unsigned, 2);

    std::fs::remove_file(dir.path().join("checkpoint")).expect("removed");
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (0, 12), "{report}");
}

/// Takes a member out of an object and puts the digest of its disclosure there. Returns the disclosure.
fn redact(object: &mut Value, name: &str) -> String {
    let value = object.as_object_mut().expect("an object").remove(name).expect("the member");
    let text = json!([format!("salt of {name}"), name, value]).to_string();
    let disclosure = URL_SAFE_NO_PAD.encode(text);
    let digest = json!(DisclosureDigest::of(&disclosure).as_str());
    match &mut object["_sd"] {
        Value::Array(digests) => digests.push(digest),
        other => *other = json!([digest]),
    }
    disclosure
}

#[tokio::test]
async fn redacted_evidence_is_replayed_with_its_disclosures_and_names_what_is_missing_without() {
    let (dir, key) = log_of(&[charge(5, "cus_1"), charge(60_000, "cus_2")]).await;
    let mut content = Content::of(dir.path(), &key);
    let mut disclosures = Vec::new();
    let mut digests = Vec::new();
    for record in content.records().filter(|record| record.starts_with(b"{\"action\"")) {
        let mut input: Value = serde_json::from_slice(record).expect("JSON");
        disclosures.push(redact(&mut input["request"]["body"], "customer"));
        disclosures.push(redact(&mut input["request"], "digest"));
        *record = serde_json_canonicalizer::to_vec(&input).expect("canonical");
        digests.push(json!(interlock::model::Digest::of(record)));
    }
    let mut inputs = digests.into_iter();
    content.leaves("decision", |leaf| {
        leaf["evaluation"]["input_digest"] = inputs.next().expect("one each");
        redact(&mut leaf["request"], "digest");
        // Such a leaf has the codes only.
        for reason in leaf["reasons"].as_array_mut().expect("a list") {
            *reason = json!({"code": reason["code"]});
        }
    });
    content.write_signed(dir.path(), &key);

    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (0, 3), "{report}");
    only(&report, WhyNot::InputRedacted, 2);
    let what = &report.left[0].what;
    assert!(what.contains("/request/body/_sd/0") && what.contains("/request/_sd/0"), "{what}");

    let some = Disclosures::parse(&disclosures[..2].join("\n")).expect("disclosures");
    let report = run(dir.path(), Replayer { disclosures: some, ..replayer(&key) });
    assert_eq!(report.exact, 1, "{report}");
    only(&report, WhyNot::InputRedacted, 1);

    let all = Disclosures::parse(&disclosures.join("\n")).expect("disclosures");
    let report = run(dir.path(), Replayer { disclosures: all, ..replayer(&key) });
    assert_eq!((report.exact, report.exit_code()), (2, 0), "{report}");

    // A disclosure of something else has another digest.
    let untrue = redact(&mut json!({"customer": "cus_canary"}), "customer");
    let untrue = Disclosures::parse(&untrue).expect("a disclosure");
    let report = run(dir.path(), Replayer { disclosures: untrue, ..replayer(&key) });
    only(&report, WhyNot::InputRedacted, 2);
}

#[tokio::test]
async fn a_member_that_only_looks_redacted_is_what_the_caller_sent() {
    let body = r#"{"_sd":["x"],"amount":5,"currency":"EUR","customer":"cus_1","list":[{"...":1}]}"#;
    let (dir, key) = log_of(&[Ask { body: body.into(), ..charge(5, "cus_1") }]).await;
    let report = run(dir.path(), replayer(&key));
    assert_eq!((report.exact, report.exit_code()), (1, 0), "{report}");
}

#[tokio::test]
async fn the_report_is_the_same_with_any_number_of_threads() {
    let asks: Vec<_> = (0..320).map(mixed).collect();
    let (dir, key) = log_of(&asks).await;
    let with = |threads: usize| {
        let threads = NonZeroUsize::new(threads).expect("some");
        let report = run(dir.path(), Replayer { under: under(generous()), threads, ..replayer(&key) });
        assert!(report.differ > 40 && report.exact > 100, "{report}");
        serde_json::to_string(&report).expect("JSON")
    };
    assert_eq!(with(1), with(5));
}

#[tokio::test]
async fn the_program_replays_a_log_a_range_or_a_receipt_and_exits_accordingly() {
    let (dir, key) = log_of(&[charge(5, "cus_1"), charge(60_000, "cus_2"), charge(7, "cus_canary")]).await;
    let vkey = key.verifier().to_string();
    let log = dir.path().to_str().expect("UTF-8").to_owned();
    let replay = |more: &[&str]| -> (Option<i32>, Value) {
        let args = [&["replay", "--log", &log, "--key", &vkey, "--json"], more].concat();
        let Output { status, stdout, stderr } =
            Command::new(env!("CARGO_BIN_EXE_interlock")).args(args).output().expect("runs");
        assert!(stderr.is_empty() || status.code() != Some(0), "{}", String::from_utf8_lossy(&stderr));
        (status.code(), serde_json::from_slice(&stdout).unwrap_or_default())
    };
    let (code, all) = replay(&[]);
    assert_eq!((code, &all["exact"], &all["decisions"]), (Some(0), &json!(3), &json!(3)));
    write(&dir.path().join("trust"), format!("log {vkey}\nquorum none\n").as_bytes());
    let trust = dir.path().join("trust");
    let args = ["replay", "--log", &log, "--json", "--trust", trust.to_str().expect("UTF-8")];
    let by_file = Command::new(env!("CARGO_BIN_EXE_interlock")).args(args).output().expect("runs");
    assert_eq!(serde_json::from_slice::<Value>(&by_file.stdout).expect("JSON"), all);

    // As a verdict among the others, by the program that has an engine.
    let verify = |program: &str, more: &[&str]| {
        let args = [more, &["--log", &log, "--key", &vkey, "--json"]].concat();
        let output = Command::new(program).args(args).output().expect("runs");
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default())
    };
    let (full, small) = (env!("CARGO_BIN_EXE_interlock"), env!("CARGO_BIN_EXE_interlock-verify"));
    let (code, asked) = verify(full, &["verify", "--replay"]);
    assert_eq!((code, &asked["verdicts"]["replayed"]), (Some(0), &json!("pass")), "{asked}");
    let (code, unasked) = verify(full, &["verify"]);
    assert_eq!((code, &unasked["verdicts"]["replayed"]), (Some(0), &json!("not_checked")));
    assert_eq!(verify(small, &[]), (Some(0), unasked));
    assert_eq!(verify(small, &["--replay"]).0, Some(2), "it holds no engine");

    let (code, other) = replay(&["--policy", &format!("{}/policies", env!("CARGO_MANIFEST_DIR"))]);
    assert_eq!((code, &other["exact"]), (Some(0), &json!(3)), "the shipped files decide the same");
    let strict = tempfile::tempdir().expect("a directory");
    write(&strict.path().join("p.rego"), b"package gateway.payments\ndeny contains \"closed\"\n");
    let (code, other) = replay(&["--policy", strict.path().to_str().expect("UTF-8")]);
    assert_eq!((code, &other["differ"]), (Some(17), &json!(3)));
    let difference = &other["differences"][0];
    let (index, id) = (difference["index"].as_u64().expect("a number"), difference["id"].as_str());
    assert_eq!(difference["after"], json!({"decision": "DENY", "reasons": [{"code": "closed"}]}));

    let (code, one) = replay(&["--receipt", id.expect("an id")]);
    assert_eq!((code, &one["exact"], &one["decisions"]), (Some(0), &json!(1), &json!(1)));
    let (code, rest) = replay(&["--from", &(index + 1).to_string()]);
    assert_eq!((code, &rest["exact"]), (Some(0), &json!(2)));
    let (code, first) = replay(&["--to", &index.to_string()]);
    assert_eq!((code, &first["exact"]), (Some(0), &json!(1)));
    assert_eq!(replay(&["--from", "0", "--to", "1"]).0, Some(3), "no decision is no success");
    assert_eq!(replay(&["--receipt", "019aa1b6-0e7b-7707-8707-070707070708"]).0, Some(1));
    assert_eq!(replay(&["--receipt", "x"]).0, Some(2));
}
