//! Decisions and outcomes as nearly all are written, read in one pass without building an entry.
//!
//! In: a leaf's bytes. Out: its fact, or `None`, which says nothing: the leaf is then read by its type, and that
//! reading alone says what is wrong with it. `Some` only for bytes of which that reading would complain of nothing and
//! give this fact (`what_is_seen_at_a_glance_is_what_the_types_say`). Canonical form has one order of members and one
//! spelling of each value, so the bytes are held against it from left to right.
//!
//! Left to the types: escapes in strings, integers of sixteen digits, a reason's detail, holds and budgets, what
//! contradicts itself.

use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::prepare::{DecisionFact, Message, OutcomeFact, are_for_what_is_left_out, contradiction, is_time};
use crate::model::entry::{BodyForm, DisclosureDigest, EvaluationStatus, Mode, SPEC};
use crate::model::{
    ActionName, ActorId, AuthenticationMethod, Decision, Digest, Epoch, IdempotencyKey, LeafIndex,
    OutcomeStatus, PackageName, ReceiptId, Settled, SurfaceName,
};

/// A decision, and the digest of its policy input.
pub fn decision(bytes: &[u8]) -> Option<(DecisionFact, Digest)> {
    let mut at = Cursor::after(r#"{"action":"#, bytes)?;
    at.string().filter(|text| ActionName::is_valid(text))?;

    at.pass(r#","actor":{"#)?;
    at.digest_before("credential_digest")?;
    at.pass(r#""id":"#)?;
    at.string().filter(|text| ActorId::is_valid(text))?;
    at.pass(r#","method":"#)?;
    at.word::<AuthenticationMethod>()?;

    at.pass("}")?;
    let has_claim = at.is_at(r#","claim":{"until":"#);
    if has_claim {
        at.string().filter(|time| is_time(time))?;
        at.pass("}")?;
    }
    at.pass(r#","decision":"#)?;
    let is_permit = at.word::<Decision>()? == Decision::Permit;
    at.pass(r#","epoch":"#)?;
    let epoch = Epoch(at.integer()?);

    at.pass(r#","evaluation":{"#)?;
    let has_cause = at.is_at(r#""cause":"#);
    if has_cause {
        at.string()?;
        at.pass(",")?;
    }
    at.pass(r#""input_digest":"#)?;
    let input = at.digest()?;
    at.pass(r#","read_set":"#)?;
    at.list(|item| {
        item.pass(r#"{"age_ms":"#)?;
        item.integer()?;
        item.pass(r#","name":"#)?;
        item.string()?;
        item.pass(r#","version":"#)?;
        item.string()?;
        item.pass("}")
    })?;
    at.pass(r#","status":"#)?;
    let is_evaluated = at.word::<EvaluationStatus>()? == EvaluationStatus::Evaluated;

    at.pass(r#"},"id":"#)?;
    let id = at.receipt()?;
    let has_key = at.is_at(r#","idempotency_key":"#);
    if has_key {
        at.string().filter(|text| IdempotencyKey::is_valid(text))?;
    }
    at.pass(r#","mode":"#)?;
    at.word::<Mode>()?;

    at.pass(r#","policy":{"engine":"#)?;
    at.string()?;
    at.pass(r#","package":"#)?;
    at.string().filter(|text| PackageName::is_valid(text))?;
    at.pass(r#","revision":"#)?;
    let revision = at.digest()?;

    at.pass(r#"},"reasons":"#)?;
    let reasons = at.list(|reason| {
        reason.pass(r#"{"code":"#)?;
        reason.string()?;
        if reason.is_at(r#","message":"#) {
            reason.string()?;
        }
        reason.pass("}")
    })?;

    at.pass(r#","request":{"#)?;
    let disclosures = at.disclosures()?;
    let body_digest = at.digest_before("body_digest")?;
    let digest = at.digest_before("digest")?;
    at.pass(r#""form":"#)?;
    at.word::<BodyForm>()?;
    if at.is_at(r#","media_type":"#) {
        at.string()?;
    }
    at.pass(r#","method":"#)?;
    at.string()?;
    let has_received = at.is_at(r#","received_digest":"#);
    if has_received {
        at.digest()?;
    }
    at.pass(r#","size":"#)?;
    at.integer()?;
    let has_target = at.is_at(r#","target":"#);
    if has_target {
        at.string()?;
    }

    at.pass(r#"},"reserves":[]"#)?;
    at.spec()?;
    let supersedes = if at.is_at(r#","supersedes":"#) { Some(at.receipt()?) } else { None };
    at.pass(r#","surface":"#)?;
    at.string().filter(|text| SurfaceName::is_valid(text))?;
    at.time()?;
    if at.is_at(r#","trace":"#) {
        at.string()?;
    }
    at.end(r#","type":"decision"}"#)?;

    let present = [body_digest.is_some(), digest.is_some(), has_received, has_target];
    let left_out = present.into_iter().filter(|is_present| !is_present).count();
    let is_sound = is_evaluated != has_cause
        && (!has_claim || (is_permit && has_key))
        && !(is_permit && (!is_evaluated || reasons == 0))
        && supersedes.is_none_or(|earlier| earlier != id)
        && (digest.is_some() || !disclosures.is_empty())
        && are_for_what_is_left_out(&disclosures, left_out);
    let request = Message { digest, disclosures };
    is_sound.then_some((
        DecisionFact { epoch, id, is_permit, budgets: Vec::new(), request, revision, supersedes },
        input,
    ))
}

/// An outcome that the gateway attests.
pub fn outcome(bytes: &[u8]) -> Option<OutcomeFact> {
    let mut at = Cursor::after(r#"{"attestation":"#, bytes)?;
    at.word::<Settled>().filter(|by| *by == Settled::Gateway)?;
    if at.is_at(r#","cause":"#) {
        at.string()?;
    }
    at.pass(r#","decision_id":"#)?;
    let decision_id = at.receipt()?;
    at.pass(r#","decision_index":"#)?;
    let decision_index = LeafIndex(at.integer()?);
    at.pass(r#","duration_us":"#)?;
    at.integer()?;
    at.pass(r#","epoch":"#)?;
    let epoch = Epoch(at.integer()?);

    let mut status_code = None;
    if at.is_at(r#","response":{"#) {
        at.disclosures()?;
        at.digest_before("body_digest")?;
        at.pass(r#""size":"#)?;
        at.integer()?;
        at.pass(r#","status_code":"#)?;
        status_code = Some(u16::try_from(at.integer()?).ok()?);
        at.pass("}")?;
    }
    let mut sent = None;
    if at.is_at(r#","sent":{"#) {
        let disclosures = at.disclosures()?;
        sent = Some(Message { digest: at.digest_before("digest")?, disclosures });
        at.pass(r#""size":"#)?;
        at.integer()?;
        at.pass("}")?;
    }

    at.pass(r#","settles":[]"#)?;
    at.spec()?;
    at.pass(r#","status":"#)?;
    let status = at.word::<OutcomeStatus>()?;
    at.time()?;
    at.end(r#","type":"outcome"}"#)?;

    let contradiction = contradiction(status, sent.is_some(), status_code);
    let (attestation, settles) = (Settled::Gateway, Vec::new());
    Some(OutcomeFact {
        epoch,
        decision_index,
        decision_id,
        status,
        attestation,
        settles,
        sent,
        contradiction,
    })
}

/// What is left of a leaf. Each step passes over what it names, or the glance is over.
struct Cursor<'b>(&'b str);

impl<'b> Cursor<'b> {
    /// Fifteen digits are below 2^53.
    const DIGITS_MAX: usize = 15;
    const DIGEST_BYTES: usize = 72;

    fn after(begin: &str, bytes: &'b [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(begin.as_bytes())?;
        std::str::from_utf8(rest).ok().map(Self)
    }

    /// Inlined, so that a text of known length is compared as a few words.
    #[inline(always)]
    fn pass(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// Passes over the text if it stands here.
    #[inline(always)]
    fn is_at(&mut self, text: &str) -> bool {
        self.pass(text).is_some()
    }

    fn end(self, text: &str) -> Option<()> {
        (self.0 == text).then_some(())
    }

    /// A string without escapes: what stands between the quotes is what it says.
    fn string(&mut self) -> Option<&'b str> {
        self.pass("\"")?;
        let end = self.0.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..0x20))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix('"')?;
        Some(text)
    }

    fn integer(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (text, rest) = self.0.split_at(digits);
        if digits == 0 || digits > Self::DIGITS_MAX || (digits > 1 && text.starts_with('0')) {
            return None;
        }
        self.0 = rest;
        Some(text.bytes().fold(0, |value, digit| 10 * value + u64::from(digit - b'0')))
    }

    /// Of known length: no quote is looked for.
    fn digest(&mut self) -> Option<Digest> {
        self.pass("\"")?;
        let (text, rest) = self.0.split_at_checked(Self::DIGEST_BYTES)?;
        self.0 = rest.strip_prefix('"')?;
        text.parse().ok()
    }

    /// A digest under this name, with the comma behind it, or nothing of both.
    fn digest_before(&mut self, name: &str) -> Option<Option<Digest>> {
        let mut ahead = Self(self.0);
        let is_there = ahead.is_at("\"") && ahead.is_at(name) && ahead.is_at("\":");
        if !is_there {
            return Some(None);
        }
        let digest = ahead.digest()?;
        ahead.pass(",")?;
        *self = ahead;
        Some(Some(digest))
    }

    /// Those of an object, which stand first in it; an empty list is left out.
    fn disclosures(&mut self) -> Option<Vec<DisclosureDigest>> {
        let mut digests = Vec::new();
        if self.is_at(r#""_sd":"#) {
            self.list(|item| {
                digests.push(item.string()?.parse().ok()?);
                Some(())
            })?;
            self.pass(",").filter(|()| !digests.is_empty())?;
        }
        Some(digests)
    }

    fn receipt(&mut self) -> Option<ReceiptId> {
        self.string()?.parse().ok()
    }

    /// One of the words that a type is written as.
    fn word<T: DeserializeOwned>(&mut self) -> Option<T> {
        let word: StrDeserializer<'_, Error> = self.string()?.into_deserializer();
        T::deserialize(word).ok()
    }

    /// Returns the number of items.
    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<usize> {
        self.pass("[")?;
        if self.is_at("]") {
            return Some(0);
        }
        let mut items = 1;
        item(self)?;
        while self.is_at(",") {
            item(self)?;
            items += 1;
        }
        self.pass("]")?;
        Some(items)
    }

    fn spec(&mut self) -> Option<()> {
        self.pass(r#","spec":"#)?;
        self.string().filter(|spec| *spec == SPEC).map(drop)
    }

    fn time(&mut self) -> Option<()> {
        self.pass(r#","time":"#)?;
        self.string().filter(|time| is_time(time)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::prepare;
    use super::*;
    use crate::model::entry::Entry;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn canonical(value: &Value) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(value).expect("canonical")
    }

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    /// Has every member that a decision may have.
    fn whole_decision() -> Value {
        json!({
            "type": "decision", "id": "019aa159-acfb-7707-8707-000000000001", "surface": "payments",
            "action": "charge.create", "idempotency_key": "order-1", "decision": "PERMIT", "mode": "enforce",
            "actor": {"id": "agent-7", "method": "api_key", "credential_digest": digest(1)},
            "claim": {"until": "2025-11-21T13:00:00.123456Z"},
            "policy": {"package": "gateway.payments", "engine": "regorus/0.14.1", "revision": digest(2)},
            "evaluation": {"status": "evaluated", "input_digest": digest(3), "read_set": [
                {"name": "policy", "version": "v1", "age_ms": 0}, {"name": "é", "version": "", "age_ms": 15}]},
            "reasons": [{"code": "within_limit", "message": "The amount is within the limit."}, {"code": ""}],
            "request": {"method": "POST", "target": "/v1/charges", "media_type": "application/json",
                "size": 142, "form": "json_canonical", "digest": digest(4), "body_digest": digest(5),
                "received_digest": digest(6)},
            "reserves": [], "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "supersedes": "019aa159-acfb-7707-8707-000000000000",
            "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.123456Z", "epoch": 1,
        })
    }

    fn whole_outcome() -> Value {
        json!({
            "type": "outcome", "decision_id": "019aa159-acfb-7707-8707-000000000001", "decision_index": 2,
            "status": "confirmed", "cause": "recovered", "sent": {"digest": digest(4), "size": 612},
            "attestation": "gateway", "duration_us": 18_412, "settles": [],
            "response": {"status_code": 201, "size": 512, "body_digest": digest(7)},
            "spec": "interlock-receipt/1", "time": "2025-11-20T13:00:00.143456Z", "epoch": 1,
        })
    }

    /// One of several, in ascending order.
    fn disclosure(n: usize) -> DisclosureDigest {
        let mut all = ["a", "b", "c", "d"].map(DisclosureDigest::of);
        all.sort();
        all[n].clone()
    }

    /// Of objects in it, the members that can be left out.
    const OPTIONAL: [&[&str]; 16] = [
        &["claim"],
        &["idempotency_key"],
        &["trace"],
        &["supersedes"],
        &["cause"],
        &["sent"],
        &["response"],
        &["actor", "credential_digest"],
        &["request", "target"],
        &["request", "media_type"],
        &["request", "body_digest"],
        &["request", "received_digest"],
        &["request", "digest"],
        &["response", "body_digest"],
        &["sent", "digest"],
        &["evaluation", "cause"],
    ];

    fn leave_out(leaf: &mut Value, path: &[&str]) {
        let (name, objects) = path.split_last().expect("not empty");
        let object = objects.iter().try_fold(leaf, |at, name| at.get_mut(name));
        if let Some(Value::Object(members)) = object {
            members.remove(*name);
        }
    }

    /// What the types say of bytes in which they find nothing wrong.
    fn by_type(bytes: &[u8]) -> Option<Entry> {
        let entry = prepare::read_entry(bytes).ok()?;
        let is_good = prepare::form_of(bytes, &entry).is_none() && prepare::common(&entry).is_none();
        is_good.then_some(entry)
    }

    /// Returns whether it was seen at a glance.
    #[track_caller]
    fn holds(bytes: &[u8]) -> bool {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        if let Some((fact, input)) = decision(bytes) {
            let Some(Entry::Decision(entry)) = by_type(bytes) else { panic!("{}", text()) };
            assert!(prepare::contradictions_of(&Entry::Decision(entry.clone())).is_empty(), "{}", text());
            assert_eq!(
                (fact, input),
                (prepare::decision(&entry), entry.evaluation.input_digest),
                "{}",
                text()
            );
            return true;
        }
        if let Some(fact) = outcome(bytes) {
            let Some(Entry::Outcome(entry)) = by_type(bytes) else { panic!("{}", text()) };
            assert_eq!(fact, prepare::outcome(&entry), "{}", text());
            return true;
        }
        false
    }

    #[test]
    fn leaves_as_they_are_written_are_seen_at_a_glance() {
        for whole in [whole_decision(), whole_outcome()] {
            assert!(holds(&canonical(&whole)), "{whole}");
            let without = |paths: &[&[&str]]| {
                let mut leaf = whole.clone();
                paths.iter().for_each(|path| leave_out(&mut leaf, path));
                leaf
            };
            let alone =
                |path: &&&[&str]| !path.ends_with(&["digest"]) && !path.ends_with(&["idempotency_key"]);
            for path in OPTIONAL.iter().filter(alone) {
                let leaf = without(&[path]);
                assert!(holds(&canonical(&leaf)), "{leaf}");
            }
            let leaf = without(&OPTIONAL[..12]);
            assert!(holds(&canonical(&leaf)), "{leaf}");
        }
        let mut decision = whole_decision();
        leave_out(&mut decision, &["request", "digest"]);
        leave_out(&mut decision, &["request", "target"]);
        for disclosures in [vec![disclosure(0)], vec![disclosure(0), disclosure(1)]] {
            decision["request"]["_sd"] = json!(disclosures);
            assert!(holds(&canonical(&decision)), "{decision}");
        }
        let mut outcome = whole_outcome();
        leave_out(&mut outcome, &["sent", "digest"]);
        for object in ["sent", "response"] {
            outcome[object]["_sd"] = json!([disclosure(1), disclosure(0)]);
            assert!(holds(&canonical(&outcome)), "{outcome}");
        }
    }

    #[test]
    fn a_decision_without_evaluation_is_seen_at_a_glance_unless_it_permits() {
        for (verdict, cause, is_seen) in [
            ("DENY", Some("policy_error"), true),
            ("PERMIT", Some("policy_error"), false),
            ("DENY", None, false),
        ] {
            let mut leaf = whole_decision();
            leave_out(&mut leaf, &["claim"]);
            leaf["decision"] = verdict.into();
            leaf["evaluation"]["status"] = "not_evaluated".into();
            if let Some(cause) = cause {
                leaf["evaluation"]["cause"] = cause.into();
            }
            assert_eq!(holds(&canonical(&leaf)), is_seen, "{leaf}");
        }
    }

    /// Each is a leaf of which the types complain, or that they read otherwise than a glance would.
    #[test]
    fn what_is_not_as_usual_is_left_to_the_types() {
        let bend = |whole: &Value, path: &str, to: Value| {
            let mut leaf = whole.clone();
            *leaf.pointer_mut(path).expect("a member") = to;
            assert!(!holds(&canonical(&leaf)), "{leaf}");
        };
        let of_decision: [(&str, Value); 29] = [
            ("/action", json!("Charge")),
            ("/actor/id", json!("agent 7")),
            ("/actor/method", json!("password")),
            ("/actor/credential_digest", json!("sha-256:00")),
            ("/decision", json!("permit")),
            ("/epoch", json!(-1)),
            ("/epoch", json!(9_007_199_254_740_993_u64)),
            ("/epoch", json!("1")),
            ("/evaluation/input_digest", json!(digest(3).to_string().to_uppercase())),
            ("/evaluation/read_set/0/age_ms", json!(0.5)),
            ("/evaluation/status", json!("not_evaluated")),
            ("/claim/until", json!("tomorrow")),
            ("/id", json!("019AA159-ACFB-7707-8707-000000000001")),
            ("/idempotency_key", json!("order 1")),
            ("/mode", json!("off")),
            ("/policy/package", json!("gateway.")),
            ("/policy/revision", json!("")),
            ("/reasons", json!([])),
            ("/reasons/0/message", json!("a \"quoted\" word")),
            ("/reasons/0/message", json!("a\nline")),
            ("/request/form", json!("xml")),
            ("/request/size", json!(true)),
            ("/request/target", json!(["/"])),
            (
                "/reserves",
                json!([{"amount": "1", "budget": "a", "key": digest(1), "until": "2025-11-21T13:00:00.123456Z"}]),
            ),
            ("/spec", json!("interlock-receipt/2")),
            ("/supersedes", json!("019aa159-acfb-7707-8707-000000000001")),
            ("/surface", json!("")),
            ("/time", json!("2025-11-20T13:00:00.123Z")),
            ("/type", json!("outcome")),
        ];
        of_decision.into_iter().for_each(|(path, to)| bend(&whole_decision(), path, to));
        let redacted = |disclosures: Value| {
            let mut leaf = whole_decision();
            leave_out(&mut leaf, &["request", "digest"]);
            leaf["request"]["_sd"] = disclosures;
            leaf
        };
        assert!(holds(&canonical(&redacted(json!([disclosure(0)])))));
        for (mut leaf, object) in
            [(whole_decision(), "request"), (whole_outcome(), "sent"), (whole_outcome(), "response")]
        {
            leaf[object]["_sd"] = json!([]);
            assert!(!holds(&canonical(&leaf)), "an empty list is left out: {leaf}");
        }
        bend(&redacted(json!([disclosure(0)])), "/request/_sd", json!([disclosure(0), disclosure(1)]));
        bend(&redacted(json!([disclosure(0)])), "/request/_sd/0", json!("short"));
        let mut unnamed = whole_decision();
        leave_out(&mut unnamed, &["request", "digest"]);
        assert!(!holds(&canonical(&unnamed)));
        let of_outcome: [(&str, Value); 6] = [
            ("/attestation", json!("operator")),
            ("/decision_index", json!(1.5)),
            ("/response/status_code", json!(65_536)),
            ("/sent/digest", Value::Null),
            ("/status", json!("done")),
            ("/settles", json!([{"budget": "a", "settled_as": "spent"}])),
        ];
        of_outcome.into_iter().for_each(|(path, to)| bend(&whole_outcome(), path, to));
        for whole in [whole_decision(), whole_outcome()] {
            let text = String::from_utf8(canonical(&whole)).expect("UTF-8");
            for (from, to) in [
                ("\"epoch\":1,", "\"epoch\":01,"),
                ("\"epoch\":1,", "\"epoch\": 1,"),
                ("\"epoch\":1,", "\"epoch\":1,\"epoch\":1,"),
                ("\"epoch\":1,", "\"epoch\":,"),
                ("\"spec\":\"i", "\"spec\":\"\\u0069"),
                ("receipt/1\"", "receipt/1\","),
                ("receipt/1\"", "receipt/1\u{1}\""),
            ] {
                let other = text.replacen(from, to, 1);
                assert_ne!(text, other, "{from}");
                assert!(!holds(other.as_bytes()), "{other}");
            }
            assert!(!holds(format!("{text}\n").as_bytes()));
            assert!(!holds(&[text.as_bytes(), b"\xff"].concat()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_seen_at_a_glance_is_what_the_types_say(
            is_decision: bool,
            left_out in any::<u16>(),
            status in prop::sample::select(vec!["not_sent", "confirmed", "failed", "indeterminate"]),
            verdict in prop::sample::select(vec!["PERMIT", "DENY"]),
            disclosures in prop::collection::vec(0..4_usize, 0..4),
            text in ".{0,12}",
            number in any::<u64>(),
            at in any::<prop::sample::Index>(),
            length in 0..4_usize,
            instead in prop::sample::select(vec![
                "", " ", ",", "\"", "\\", "0", "9", "a", "A", "\u{7f}", "é", "null", "{}", "[]", "true", "\"a\":1,",
            ]),
            copied in any::<prop::sample::Index>(),
        ) {
            let mut leaf = if is_decision { whole_decision() } else { whole_outcome() };
            OPTIONAL.iter().enumerate().filter(|(n, _)| left_out >> n & 1 == 1).for_each(|(_, path)| {
                leave_out(&mut leaf, path);
            });
            for object in ["request", "sent", "response"] {
                if let Some(members) = leaf.get_mut(object).filter(|_| !disclosures.is_empty()) {
                    members["_sd"] = disclosures.iter().map(|n| json!(disclosure(*n))).collect();
                }
            }
            if is_decision {
                leaf["decision"] = verdict.into();
                leaf["trace"] = text.into();
                leaf["request"]["size"] = number.into();
            } else {
                leaf["status"] = status.into();
                leaf["cause"] = text.into();
                leaf["duration_us"] = number.into();
            }
            let good = serde_json::to_vec(&leaf).expect("JSON");
            holds(&good);
            // A piece of it is changed, and a piece of it stands once more elsewhere.
            let at = at.index(good.len());
            let end = (at + length).min(good.len());
            holds(&[&good[..at], instead.as_bytes(), &good[end..]].concat());
            let from = copied.index(good.len());
            let piece = &good[from..(from + 8 * length).min(good.len())];
            holds(&[&good[..at], piece, &good[end..]].concat());
            for bit in 0..8 {
                let mut bent = good.clone();
                bent[at] ^= 1 << bit;
                holds(&bent);
            }
        }
    }
}
