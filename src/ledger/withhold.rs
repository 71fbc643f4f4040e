//! What of a decision and its outcome goes to disk on a route that redacts.
//!
//! In memory everything stays as it is: policy judges it, the caller is answered with it, the upstream gets it.
//! Leaf and evidence are made here without the declared values, and without the digests from which a small value
//! could be guessed; their disclosure digests (RFC 9901) take their place.

use std::sync::Arc;

use bytes::Bytes;

use super::recorded::Unrecorded;
use crate::canonical::json;
use crate::limits;
use crate::model::entry::{
    DecisionEntry, DisclosureDigest, OutcomeEntry, RequestEntry, ResponseEntry, SentEntry,
};
use crate::model::{Digest, Json, Place, Redaction};
use crate::redaction::{Disclosure, Salter, places, reasons_as_written, redact};

/// A decision and its evidence without what the route keeps out.
pub fn decision(
    mut entry: DecisionEntry,
    input: &[u8],
    redaction: &Redaction,
    salter: &Salter,
) -> Result<(DecisionEntry, Bytes), Unrecorded> {
    let tree = json::parse(input, INPUT).map_err(|malformed| {
        tracing::error!(code = %malformed.code, "a policy input cannot be read back");
        Unrecorded::NotRedactable
    })?;
    // Canonical form and config refuse reserved names wherever they could come from.
    let redacted = redact(tree, redaction, salter).map_err(|_| Unrecorded::NotRedactable)?;
    let evidence = Bytes::from(json::write(&redacted.value));
    entry.evaluation.input_digest = Digest::of(&evidence);
    entry.reasons = reasons_as_written(&entry.reasons, &redacted.withheld);
    entry.request = request(entry.request, redaction, salter);
    Ok((entry, evidence))
}

/// A policy input is a body and some levels around it; claims come from a config file of bounded depth.
const INPUT: json::Bounds =
    json::Bounds { depth_max: limits::JSON_DEPTH_MAX + limits::CONFIG_DEPTH_MAX, values_max: usize::MAX };

fn request(entry: RequestEntry, redaction: &Redaction, salter: &Salter) -> RequestEntry {
    let RequestEntry { body_digest, digest, received_digest, target, .. } = &entry;
    let withheld = [
        disclosed(salter, places::BODY_DIGEST, body_digest),
        disclosed(salter, places::DIGEST, digest),
        disclosed(salter, places::RECEIVED_DIGEST, received_digest),
    ];
    let mut disclosures: Vec<_> = withheld.into_iter().flatten().collect();
    let target = match target {
        Some(text) if redaction.withholds_target() => {
            disclosures.push(digest_of(salter, places::TARGET, Json::String(Arc::clone(text))));
            None
        }
        kept => kept.clone(),
    };
    // By digest, so that the order says nothing about the names.
    disclosures.sort();
    RequestEntry { disclosures, body_digest: None, digest: None, received_digest: None, target, ..entry }
}

/// The outcome of a decision that was written by [`decision`]. Its digest of what was sent is disclosed by the
/// same disclosure as the decision's own, so that the two still pair.
pub fn outcome(entry: OutcomeEntry, salter: &Salter) -> OutcomeEntry {
    let sent = entry.sent.map(|sent| SentEntry {
        disclosures: disclosed(salter, places::DIGEST, &sent.digest).into_iter().collect(),
        digest: None,
        size: sent.size,
    });
    let response = entry.response.map(|response| ResponseEntry {
        disclosures: disclosed(salter, places::RESPONSE_BODY_DIGEST, &response.body_digest)
            .into_iter()
            .collect(),
        body_digest: None,
        ..response
    });
    OutcomeEntry { sent, response, ..entry }
}

fn disclosed(salter: &Salter, place: &str, digest: &Option<Digest>) -> Option<DisclosureDigest> {
    digest.map(|digest| digest_of(salter, place, Json::string(&digest.to_string())))
}

fn digest_of(salter: &Salter, place: &str, value: Json) -> DisclosureDigest {
    let name = place.rsplit('/').next().expect("a split has at least one part");
    Disclosure::of_member(&salter.salt(place), name, value).digest()
}

/// Where a refusal's culprit stands, without names that the caller has chosen: on a route that redacts, an account
/// number may be one.
pub fn place(place: Place) -> Option<Place> {
    match place {
        Place::Json { byte, pointer: _ } => Some(Place::BodyByte(byte)),
        Place::FormKey(_) | Place::Query(_) => None,
        Place::BodyByte(_) | Place::Header(_) | Place::TargetByte(_) | Place::HeadByte(_) => Some(place),
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::clock::WallTime;
    use crate::ledger::entries;
    use crate::ledger::tests::{confirmed, decision_entry};
    use crate::model::entry::Entry;
    use crate::model::{Decision, Epoch, LeafIndex, ReceiptId};
    use crate::redaction::EpochKey;

    const POINTERS: [&str; 4] = [
        "/request/body/card/number",
        "/request/body/items/*",
        "/request/headers/x-patient-id",
        "/request/query/email",
    ];

    fn now() -> WallTime {
        WallTime::from_unix_ns(1_763_643_600_123_456_000)
    }

    fn id() -> ReceiptId {
        ReceiptId::new(now(), [7; 10])
    }

    fn salter() -> Salter {
        EpochKey::new(Zeroizing::new([3; 32])).salter(id())
    }

    fn redaction(pointers: &[&str]) -> Redaction {
        let pointers: Vec<_> = pointers.iter().map(|p| p.parse().expect(p)).collect();
        Redaction::new(&pointers, false).expect("something")
    }

    fn input() -> String {
        let digest = Digest::of(b"message");
        format!(
            r#"{{"request":{{"body":{{"card":{{"number":"4111"}},"items":[{{"iban":"DE1","n":1}},7],"note":"kept"}},"digest":"{digest}","headers":{{"x-patient-id":"p-1"}},"query":{{"email":"a@b","n":"1"}}}},"surface":"payments"}}"#
        )
    }

    fn written(redaction: &Redaction) -> (DecisionEntry, Bytes) {
        let mut entry = decision_entry(id(), Decision::Permit, Epoch(3), input().as_bytes());
        entry.reasons[0].message = Some("card 4111".into());
        decision(entry, input().as_bytes(), redaction, &salter()).expect("redacted")
    }

    /// The golden files were made by another program, from docs/REDACTION.md.
    #[test]
    fn a_redacted_decision_its_evidence_and_its_outcome_have_their_golden_bytes() {
        let (entry, evidence) = written(&redaction(&POINTERS));
        assert_eq!(entry.evaluation.input_digest, Digest::of(&evidence));
        let evidence = String::from_utf8(evidence.to_vec()).expect("UTF-8");
        assert_eq!(evidence, include_str!("../../tests/golden/evidence_redacted.json").trim_end());
        let leaf = String::from_utf8(entries::bytes(&Entry::Decision(Box::new(entry)))).expect("UTF-8");
        assert_eq!(leaf, include_str!("../../tests/golden/decision_redacted.json").trim_end());
        let settled = entries::outcome(confirmed(), id(), LeafIndex(1), Epoch(3), now());
        let settled = String::from_utf8(entries::outcome_bytes(outcome(settled, &salter()))).expect("UTF-8");
        assert_eq!(settled, include_str!("../../tests/golden/outcome_redacted.json").trim_end());
    }

    #[test]
    fn the_target_stays_where_nothing_of_it_is_redacted() {
        let (entry, _) = written(&redaction(&["/request/body/card"]));
        assert_eq!(
            (entry.request.target.as_deref(), entry.request.disclosures.len()),
            (Some("/v1/charges"), 3)
        );
    }

    #[test]
    fn what_cannot_be_redacted_is_not_recorded() {
        for input in ["{", r#"{"request":{"body":{"_sd":["x"]}}}"#] {
            let entry = decision_entry(id(), Decision::Deny, Epoch(3), input.as_bytes());
            let refused = decision(entry, input.as_bytes(), &redaction(&POINTERS), &salter());
            assert_eq!(refused.err(), Some(Unrecorded::NotRedactable), "{input}");
        }
    }

    #[test]
    fn the_place_of_a_refusal_keeps_no_name_that_the_caller_chose() {
        let json = Place::Json { byte: 9, pointer: "/accounts/4111".into() };
        assert_eq!(place(json), Some(Place::BodyByte(9)));
        assert_eq!((place(Place::FormKey("4111".into())), place(Place::Query("4111".into()))), (None, None));
        let header = Place::Header("x-patient-id".into());
        assert_eq!(place(header.clone()), Some(header));
    }
}
