//! An auditor is handed disclosures (RFC 9901) and holds them against one receipt. The leaves and the evidence are the
//! golden ones, which a program of its own made from docs/REDACTION.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use interlock::clock::WallTime;
use interlock::merkle::checkpoint::Checkpoint;
use interlock::merkle::note::Signer;
use interlock::merkle::tlog_proof::TlogProof;
use interlock::merkle::tree::{RightEdge, leaf_hash};
use interlock::merkle::trust::Trust;
use interlock::model::entry::DisclosureDigest;
use interlock::model::{Digest, Json, LeafIndex, ReceiptId};
use interlock::redaction::{Disclosure, EpochKey, places};
use interlock::verify::{Disclosures, Holder, ReceiptReport, Verdict, verify_receipt};
use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ledger_faults::{Key, ORIGIN, write};

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read(path).expect("the golden file is there").trim_ascii_end().to_vec()
}

fn salt(place: &str) -> std::sync::Arc<str> {
    let id = ReceiptId::new(WallTime::from_unix_ns(1_763_643_600_123_456_000), [7; 10]);
    EpochKey::new(Zeroizing::new([3; 32])).salter(id).salt(place)
}

fn member(place: &str, value: Json) -> String {
    let name = place.rsplit('/').next().expect("a name");
    Disclosure::of_member(&salt(place), name, value).as_str().to_owned()
}

fn digest_of(place: &str, bytes: &[u8]) -> String {
    member(place, Json::string(&Digest::of(bytes).to_string()))
}

fn element(place: &str, value: &str) -> String {
    let value = serde_json::from_str(value).expect("JSON");
    Disclosure::of_element(&salt(place), value).as_str().to_owned()
}

fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// All that the golden decision keeps out of its leaf.
fn of_leaf() -> Vec<String> {
    vec![
        digest_of(places::DIGEST, b"message"),
        digest_of(places::BODY_DIGEST, b"body"),
        digest_of(places::RECEIVED_DIGEST, b"received"),
        member(places::TARGET, Json::string("/v1/charges")),
    ]
}

/// What it keeps out of its evidence besides.
fn of_evidence() -> Vec<String> {
    vec![
        member("/request/body/card/number", Json::string("4111")),
        element("/request/body/items/0", r#"{"iban":"DE1","n":1}"#),
        element("/request/body/items/1", "7"),
        member("/request/headers/x-patient-id", Json::string("p-1")),
        member("/request/query/email", Json::string("a@b")),
    ]
}

/// A log of this one leaf.
fn proof(leaf: &[u8], key: &Key) -> TlogProof {
    let mut edge = RightEdge::empty();
    edge.append(leaf_hash(leaf));
    let checkpoint =
        Checkpoint { origin: ORIGIN.parse().expect("a name"), size: edge.size(), root: edge.root() };
    TlogProof { index: LeafIndex(0), path: Vec::new(), checkpoint: checkpoint.sign(key).expect("signs") }
}

fn told(leaf: &[u8], handed: &[String], evidence: Option<&[u8]>) -> ReceiptReport {
    let key = Key::new();
    let mut report = verify_receipt(leaf, &proof(leaf, &key), &Trust::from(key.verifier().clone()));
    assert!(report.passed(), "{report}");
    assert_eq!(report.verdicts.disclosed, Verdict::NotChecked);
    report.disclose(leaf, &Disclosures::parse(&handed.join("\n")).expect("disclosures"), evidence);
    report
}

/// Each: where it stands, and its value.
fn places_of(report: &ReceiptReport) -> Vec<String> {
    let place = |one: &interlock::verify::Disclosed| {
        let at = one.held_at.iter().map(|at| match at.holder {
            Holder::Leaf => format!("leaf {}", at.pointer),
            Holder::Evidence => format!("evidence {}", at.pointer),
        });
        format!("{} = {}", at.collect::<Vec<_>>().join(", "), one.value)
    };
    report.disclosures.iter().map(place).collect()
}

#[test]
fn disclosures_are_found_in_leaf_and_evidence_or_nowhere() {
    let (leaf, evidence) = (golden("decision_redacted.json"), golden("evidence_redacted.json"));
    let hash = |bytes: &[u8]| format!("\"{}\"", Digest::of(bytes));
    let (message, body, received) = (hash(b"message"), hash(b"body"), hash(b"received"));
    let report = told(&leaf, &of_leaf(), None);
    assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Pass, 0), "{report}");
    let in_leaf = [
        format!("leaf /request/digest = {message}"),
        format!("leaf /request/body_digest = {body}"),
        format!("leaf /request/received_digest = {received}"),
        "leaf /request/target = \"/v1/charges\"".to_owned(),
    ];
    assert_eq!(places_of(&report), in_leaf);

    // With the evidence, those that are in it; the digest of the message is in both.
    let all = [of_leaf(), of_evidence()].concat();
    let report = told(&leaf, &all, Some(&evidence));
    assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Pass, 0), "{report}");
    let mut expected = in_leaf.to_vec();
    expected[0] = format!("leaf /request/digest, evidence /request/digest = {message}");
    expected.extend(
        [
            r#"evidence /request/body/card/number = "4111""#,
            r#"evidence /request/body/items/0 = {"iban":"DE1","n":1}"#,
            "evidence /request/body/items/1 = 7",
            r#"evidence /request/headers/x-patient-id = "p-1""#,
            r#"evidence /request/query/email = "a@b""#,
        ]
        .map(str::to_owned),
    );
    assert_eq!(places_of(&report), expected);

    // Without it, nobody can say where those belong. With it, a value that is not the redacted one is found nowhere.
    let report = told(&leaf, &all, None);
    assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::NotEstablished, 18), "{report}");
    assert_eq!(places_of(&report)[..4], in_leaf);
    let other = member("/request/body/card/number", Json::string("4112"));
    let report = told(&leaf, std::slice::from_ref(&other), Some(&evidence));
    assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Fail, 18), "{report}");
    assert!(report.to_string().contains("nowhere  number ("), "{report}");
    assert_eq!(report.disclosures[0].digest, DisclosureDigest::of(&other));
    // Other evidence than the leaf names.
    let report = told(&leaf, &of_leaf(), Some(&b"{}"[..]));
    assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Fail, 18), "{report}");
    assert!(report.to_string().contains("the leaf names sha-256:"), "{report}");

    // An outcome has digests of its own, and no evidence to disclose.
    let outcome = golden("outcome_redacted.json");
    let seen = digest_of(places::RESPONSE_BODY_DIGEST, b"{}");
    let sent = digest_of(places::DIGEST, b"message");
    let report = told(&outcome, std::slice::from_ref(&sent), None);
    assert_eq!(places_of(&report), [format!("leaf /sent/digest = {message}")], "{report}");
    let report = told(&outcome, &[sent.clone(), of_evidence().remove(0)], None);
    assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Fail, 18), "{report}");
    assert_eq!(told(&outcome, &[sent], Some(&evidence)).exit_code(), 18);
    let report = told(&outcome, &[seen], None);
    assert_eq!(places_of(&report), [format!("leaf /response/body_digest = {}", hash(b"{}"))], "{report}");
    assert!(report.passed());
    // A leaf that redacts nothing holds nothing.
    assert_eq!(told(&golden("decision_of_permit.json"), &of_leaf(), None).exit_code(), 18);
}

#[test]
fn a_digest_says_what_may_be_disclosed_by_it() {
    let swap = |disclosure: &str| {
        let mut leaf: Value = serde_json::from_slice(&golden("decision_redacted.json")).expect("JSON");
        leaf["request"]["_sd"] = json!([DisclosureDigest::of(disclosure).as_str()]);
        serde_json_canonicalizer::to_vec(&leaf).expect("canonical")
    };
    let text = Digest::of(b"other").to_string();
    for (disclosure, why) in [
        (encoded(r#"["s","method","GET"]"#), "of which no member `method` was left out"),
        (encoded(r#"["s","card","4111"]"#), "of which no member `card` was left out"),
        (encoded(r#"["s","digest","GET"]"#), "its value is none of that member"),
        (encoded(r#"["s","target",7]"#), "its value is none of that member"),
        (encoded(&format!(r#"["s","{text}"]"#)), "it discloses an element of a list"),
    ] {
        let report = told(&swap(&disclosure), &[disclosure], None);
        assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Fail, 18), "{report}");
        assert!(report.to_string().contains(why), "{why}:\n{report}");
    }
    // Two values for one place: whoever made such a leaf could show either.
    let two = [b"one", b"two"].map(|bytes| encoded(&format!(r#"["s","digest","{}"]"#, Digest::of(bytes))));
    let mut leaf: Value = serde_json::from_slice(&golden("decision_redacted.json")).expect("JSON");
    let mut digests = two.clone().map(|one| DisclosureDigest::of(&one).as_str().to_owned());
    digests.sort();
    leaf["request"]["_sd"] = json!(digests);
    let leaf = serde_json_canonicalizer::to_vec(&leaf).expect("canonical");
    assert!(told(&leaf, &two[..1], None).passed());
    let report = told(&leaf, &two, None);
    assert_eq!(report.verdicts.disclosed, Verdict::Fail);
    assert!(report.to_string().contains("another one discloses /request/digest too"), "{report}");
}

/// The leaf names this evidence.
fn with_evidence(evidence: &Value) -> (Vec<u8>, Vec<u8>) {
    let evidence = serde_json_canonicalizer::to_vec(evidence).expect("canonical");
    let mut leaf: Value = serde_json::from_slice(&golden("decision_redacted.json")).expect("JSON");
    leaf["evaluation"]["input_digest"] = json!(Digest::of(&evidence));
    (serde_json_canonicalizer::to_vec(&leaf).expect("canonical"), evidence)
}

#[test]
fn what_is_disclosed_may_hold_more_digests_and_contradictions_are_named() {
    let number = encoded(r#"["s1","number","4242"]"#);
    let digest = |disclosure: &str| DisclosureDigest::of(disclosure).as_str().to_owned();
    let card = encoded(&format!(r#"["s2","card",{{"_sd":["{}"],"brand":"visa"}}]"#, digest(&number)));
    // Beside a time in nanoseconds, which as a double is no integer that has its own double.
    let (leaf, evidence) =
        with_evidence(&json!({"a~/b": [{"_sd": [digest(&card)]}], "ns": 1_763_643_600_123_456_800_f64}));
    assert!(String::from_utf8_lossy(&evidence).contains("1763643600123456800"));
    // In any order; and without the outer one the inner one is nowhere.
    for handed in [[number.clone(), card.clone()], [card.clone(), number.clone()]] {
        let report = told(&leaf, &handed, Some(&evidence));
        let mut places = places_of(&report);
        places.sort();
        assert_eq!(places[1], r#"evidence /a~0~1b/0/card/number = "4242""#, "{report}");
        assert!(places[0].starts_with("evidence /a~0~1b/0/card = ") && report.passed(), "{report}");
    }
    assert_eq!(told(&leaf, std::slice::from_ref(&number), Some(&evidence)).verdicts.disclosed, Verdict::Fail);
    let item = encoded(r#"["s",5]"#);
    for (evidence, handed, why) in [
        (json!([{"_sd": [digest(&number)]}, {"_sd": [digest(&number)]}]), &number, "in more than one place"),
        (json!({"_sd": [digest(&number)], "number": "1"}), &number, "which has a member `number`"),
        (json!({"_sd": [digest(&item)]}), &item, "it discloses an element of a list"),
        (json!([{"...": digest(&number)}]), &number, "it discloses a member"),
    ] {
        let (leaf, evidence) = with_evidence(&evidence);
        let report = told(&leaf, std::slice::from_ref(handed), Some(&evidence));
        assert_eq!((report.verdicts.disclosed, report.exit_code()), (Verdict::Fail, 18), "{report}");
        assert!(report.to_string().contains(why), "{why}:\n{report}");
    }
}

#[test]
fn what_is_no_disclosure_is_refused_by_its_number_and_a_value_cannot_steer_a_terminal() {
    let good = encoded(r#"["s","a",1]"#);
    for (bad, why) in [
        ("a=".to_owned(), "base64url"),
        (encoded("not JSON"), "canonical"),
        (encoded("[1,2]"), "a JSON list"),
        (encoded("{}"), "a JSON list"),
        (encoded(r#"["s","a",1,2]"#), "a JSON list"),
        (encoded(r#"["s","_sd",[]]"#), "`_sd`"),
        (encoded(r#"["s", "a", 1]"#), "canonical"),
        (encoded(r#"["s","a",1.0]"#), "canonical"),
        (good.clone(), "the same as one before it"),
    ] {
        let refused = Disclosures::parse(&format!("{good}\n{bad}\n")).expect_err("refused").to_string();
        assert!(refused.starts_with("disclosure 2: ") && refused.contains(why), "{refused}");
    }
    assert!(Disclosures::parse(" \n~\n").expect_err("none").to_string().contains("there is none"));
    let steering = encoded("[\"s\",\"a\u{202e}\",\"\\u001b[2J\u{9b}\"]");
    let (leaf, evidence) = with_evidence(&json!({"_sd": [DisclosureDigest::of(&steering).as_str()]}));
    let shown = told(&leaf, &[steering], Some(&evidence)).to_string();
    assert!(shown.contains("disclosed  evidence /a\\u{202e}"), "{shown}");
    assert!(!shown.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{shown}");
}

#[test]
fn what_an_auditor_is_handed_is_checked_by_the_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let key = Key::new();
    let leaf = golden("decision_redacted.json");
    write(&path("leaf"), &leaf);
    write(&path("proof"), proof(&leaf, &key).to_string().as_bytes());
    write(&path("evidence"), &golden("evidence_redacted.json"));
    write(&path("all"), [of_leaf(), of_evidence()].concat().join("\n").as_bytes());
    write(&path("broken"), b"{}\n");
    let run = |more: &[&str]| {
        let of = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).current_dir(dir.path());
            command.args(["--receipt", "leaf", "--proof", "proof", "--key", &key.verifier().to_string()]);
            command.args(more).output().expect("runs")
        };
        let one = of(env!("CARGO_BIN_EXE_interlock"), &["verify"]);
        let two = of(env!("CARGO_BIN_EXE_interlock-verify"), &[]);
        assert_eq!((one.status, &one.stdout), (two.status, &two.stdout), "{more:?}");
        (one.status.code(), String::from_utf8(one.stdout).expect("UTF-8"))
    };
    let (code, shown) = run(&["--disclosures", "all", "--evidence", "evidence"]);
    assert_eq!(code, Some(0), "{shown}");
    for line in ["disclosed    pass", "disclosed  leaf /request/target: \"/v1/charges\""] {
        assert!(shown.contains(line), "{shown}");
    }
    let (code, report) = run(&["--disclosures", "all", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((code, &report["verdicts"]["disclosed"]), (Some(18), &json!("not_established")), "{report}");
    assert_eq!(report["disclosures"].as_array().map(Vec::len), Some(9));
    let target = json!({
        "digest": DisclosureDigest::of(&of_leaf()[3]).as_str(), "name": "target", "value": "\"/v1/charges\"",
        "held_at": [{"in": "leaf", "pointer": "/request/target"}],
    });
    assert_eq!(report["disclosures"][3], target);
    assert_eq!(report["disclosures"][4]["held_at"], json!([]));
    assert_eq!(run(&["--disclosures", "broken"]).0, Some(1));
    assert_eq!(run(&["--evidence", "evidence"]).0, Some(2), "evidence of nothing");
}

proptest! {
    /// Whatever is handed over is read or refused, and what is read is found nowhere in a leaf that knows nothing of it.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}\",:a-z0-9_.~\\\\ -]{0,40}", is_encoded: bool, between in "[~ \n]") {
        let one = if is_encoded { encoded(&text) } else { text };
        if let Ok(handed) = Disclosures::parse(&[&*one, &encoded(r#"["s","a",1]"#)].join(&between)) {
            let leaf = golden("decision_redacted.json");
            let key = Key::new();
            let mut report = verify_receipt(&leaf, &proof(&leaf, &key), &Trust::from(key.verifier().clone()));
            report.disclose(&leaf, &handed, Some(&golden("evidence_redacted.json")));
            prop_assert_eq!(report.verdicts.disclosed, Verdict::Fail);
            prop_assert!(report.disclosures.iter().all(|one| one.held_at.is_empty() && one.problem.is_none()));
        }
    }
}
