//! Every way a request can end becomes one response here, in one exhaustive match.
//!
//! The upstream's answer passes as it came, less its hop-by-hop fields (RFC 9110 section 7.6.1), plus the receipt.
//! Everything else is problem+json (RFC 9457) with a stable code in `type` and `reason`.

mod body;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

pub use body::{AnswerCut, Piece, ResponseBody};

use crate::canonical::Malformed;
use crate::ledger::{Receipt, Unrecorded};
use crate::model::{
    Decision, Digest, LeafIndex, OutcomeStatus, Place, PolicyReason, ReasonClass, ReasonCode, ReceiptId,
    TreeSize,
};
use crate::pep::{OriginalReceipt, Refused, Replayed};
use crate::upstream::{Answer, passed_fields};

/// RFC 9651 dictionary: where the receipt of this request stands in the log.
pub const RECEIPT_HEADER: HeaderName = HeaderName::from_static("interlock-receipt");

/// The proof of that receipt, a tlog-proof as an RFC 9651 byte sequence; only for callers that want it.
pub const PROOF_HEADER: HeaderName = HeaderName::from_static("interlock-receipt-proof");

/// `true` on the kept answer to an earlier request with the same idempotency key; its receipt is that request's.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("interlock-replayed");

/// RFC 7240 section 3: how long the gateway waited, or was ready to.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What the caller wants to know of its receipt beyond the receipt's own header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantReceipt {
    /// The proof in a problem's body, and nowhere else.
    Usual,
    /// The proof in the header of every answer that has a receipt.
    Proof,
}

/// Refused before it became an execution request.
#[derive(Debug)]
pub struct Rejected {
    pub malformed: Malformed,
    /// Of the refusal leaf, if one was written.
    pub receipt: Option<Receipt>,
    /// For `route_method_not_declared`.
    pub allow: Vec<Method>,
}

impl From<ReasonCode> for Rejected {
    fn from(code: ReasonCode) -> Self {
        let malformed = Malformed { code, place: None, detail: None };
        Self { malformed, receipt: None, allow: Vec::new() }
    }
}

/// RFC 9457, members in RFC 8785 order.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    error: ErrorMember,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldMember>,
    /// The request that has the idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<OriginalMember>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a Place>,
    /// A tlog-proof of the receipt, as it can be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
    reason: ReasonCode,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reasons: &'a [PolicyReason],
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptMember>,
    status: u16,
    title: &'static str,
    #[serde(rename = "type")]
    problem_type: String,
}

/// Client libraries of payment and model APIs know a failure by an `error` object in the body; some look at nothing
/// else, and would hand a 403 without it to the agent as a success. Same words as `type`, `reason` and `title`.
#[derive(Serialize)]
struct ErrorMember {
    code: ReasonCode,
    message: &'static str,
    #[serde(rename = "type")]
    error_type: String,
}

#[derive(Serialize)]
struct ReceiptMember {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<ReceiptId>,
    index: LeafIndex,
    leaf: Digest,
    size: TreeSize,
}

/// What waits for people.
#[derive(Serialize)]
struct HoldMember {
    id: ReceiptId,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<&'static str>,
    /// RFC 3339.
    until: String,
}

const RESUME: &str = "Send exactly the same request again after an operator has approved it, or send it with \
    `Prefer: wait=N` to wait up to N seconds in place.";

#[derive(Serialize)]
struct OriginalMember {
    id: ReceiptId,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<LeafIndex>,
}

fn problem_type(reason: ReasonCode) -> String {
    format!("urn:interlock:reason:{reason}")
}

impl<'a> Problem<'a> {
    fn new(reason: ReasonCode, receipt: Option<&Receipt>) -> Self {
        Self {
            decision: None,
            detail: None,
            error: ErrorMember { code: reason, message: reason.title(), error_type: problem_type(reason) },
            hold: None,
            original: None,
            outcome: None,
            place: None,
            proof: receipt.map(|r| r.proof().to_string()),
            reason,
            reasons: &[],
            receipt: receipt.map(|r| ReceiptMember {
                id: r.id,
                index: r.index,
                leaf: r.leaf_hash,
                size: r.size,
            }),
            status: reason.status(),
            title: reason.title(),
            problem_type: problem_type(reason),
        }
    }

    fn response(self, receipt: Option<&Receipt>, want: WantReceipt) -> Response<ResponseBody> {
        let body = serde_json::to_vec(&self).expect("a problem holds strings, numbers and lists only");
        let mut response = Response::new(ResponseBody::whole(body));
        // A reason's status is tested to be a client or server error.
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(receipt) = receipt {
            headers.insert(RECEIPT_HEADER, receipt_header(receipt));
        }
        if let (WantReceipt::Proof, Some(proof)) = (want, &self.proof) {
            headers.insert(PROOF_HEADER, proof_header(proof));
        }
        response
    }
}

/// Refused before an execution request existed.
pub fn rejected(rejected: &Rejected, want: WantReceipt) -> Response<ResponseBody> {
    let Rejected { malformed, receipt, allow } = rejected;
    let mut problem = Problem::new(malformed.code, receipt.as_ref());
    problem.place = malformed.place.as_ref();
    problem.detail = match (&malformed.place, &malformed.detail) {
        (None, None) => None,
        (None, Some(detail)) => Some(detail.clone()),
        (Some(place), None) => Some(format!("In {place}.")),
        (Some(place), Some(detail)) => Some(format!("In {place}: {detail}")),
    };
    let mut response = problem.response(receipt.as_ref(), want);
    let headers = response.headers_mut();
    match malformed.code {
        ReasonCode::CredentialMissing | ReasonCode::CredentialInvalid | ReasonCode::CredentialAmbiguous => {
            ask_for_credential(headers);
        }
        // RFC 9110 section 15.5.6.
        ReasonCode::RouteMethodNotDeclared => {
            let methods: Vec<_> = allow.iter().map(Method::as_str).collect();
            // Methods are tokens.
            if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
                headers.insert(header::ALLOW, value);
            }
        }
        // RFC 9110 sections 15.5.9 and 15.5.14: we stop reading, so the connection ends.
        ReasonCode::BodyTimeout | ReasonCode::BodyTooLarge => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        code if code.status() == 503 => retry_later(headers),
        _ => {}
    }
    response
}

/// Refused by the enforcement point.
pub fn refused(refused: &Refused, want: WantReceipt) -> Response<ResponseBody> {
    match refused {
        Refused::Verdict { code, decision, reasons, receipt, held } => {
            let mut problem = Problem::new(*code, Some(receipt));
            problem.decision = Some(*decision);
            problem.reasons = reasons;
            problem.detail = next_step(*code).map(str::to_owned);
            problem.hold = held.as_ref().map(|held| HoldMember {
                id: held.id,
                resume: (!held.is_refused).then_some(RESUME),
                until: held.until.rfc3339(),
            });
            let mut response = problem.response(Some(receipt), want);
            if code.status() == 503 {
                retry_later(response.headers_mut());
            }
            response
        }
        Refused::Repeats { code, original, receipt } => {
            let mut problem = Problem::new(*code, receipt.as_ref());
            problem.detail = next_step(*code).map(str::to_owned);
            problem.original = Some(OriginalMember { id: original.id, index: original.index });
            let mut response = problem.response(receipt.as_ref(), want);
            match code {
                ReasonCode::IdempotencyRunning | ReasonCode::LedgerUnavailable => {
                    retry_later(response.headers_mut());
                }
                _ => never_retry(response.headers_mut()),
            }
            response
        }
        Refused::Unrecorded(unrecorded) => {
            let code = match unrecorded {
                Unrecorded::Full => ReasonCode::LedgerFull,
                Unrecorded::Busy => ReasonCode::Overloaded,
                Unrecorded::TooLarge => ReasonCode::EntryTooLarge,
                Unrecorded::NotRedactable | Unrecorded::Poisoned => ReasonCode::LedgerUnavailable,
            };
            let mut response = Problem::new(code, None).response(None, want);
            // A receipt that is too large is too large the next time as well.
            if code != ReasonCode::EntryTooLarge {
                retry_later(response.headers_mut());
            }
            response
        }
        Refused::NotLeased { error, receipt } => {
            let mut problem = Problem::new(error.code(), receipt.as_ref());
            problem.outcome = Some(OutcomeStatus::NotSent);
            let mut response = problem.response(receipt.as_ref(), want);
            retry_later(response.headers_mut());
            response
        }
        Refused::NotSent { code, receipt } => {
            let mut problem = Problem::new(*code, Some(receipt));
            problem.decision = Some(Decision::Permit);
            problem.outcome = Some(OutcomeStatus::NotSent);
            let mut response = problem.response(Some(receipt), want);
            match code.class() {
                ReasonClass::Unauthenticated => ask_for_credential(response.headers_mut()),
                _ => retry_later(response.headers_mut()),
            }
            response
        }
        Refused::NoAnswer { code, receipt } => {
            let mut problem = Problem::new(*code, Some(receipt));
            problem.decision = Some(Decision::Permit);
            problem.outcome = Some(OutcomeStatus::Indeterminate);
            let mut response = problem.response(Some(receipt), want);
            never_retry(response.headers_mut());
            response
        }
    }
}

/// What the caller can do about it, beyond what the reason's title says.
fn next_step(code: ReasonCode) -> Option<&'static str> {
    Some(match code {
        ReasonCode::Frozen => {
            "Wait until an operator has unfrozen it; sending again before that changes nothing."
        }
        ReasonCode::ActorQuarantined => "Ask an operator to release the actor on this surface.",
        ReasonCode::HoldRefused => {
            "Exactly this request is not asked again before `hold.until`; a different request is decided anew."
        }
        ReasonCode::IdempotencyRunning => {
            "Send the same request again later for its answer; it is not sent twice."
        }
        ReasonCode::IdempotencyKeyReused => "Use a new Idempotency-Key for a new request.",
        ReasonCode::IdempotencyUnknown => {
            "Ask the upstream whether `original` took effect, and an operator to record that with \
             `interlock reconcile resolve`. Do not send it again under another key before that."
        }
        ReasonCode::IdempotencyAnswerNotKept => {
            "Read what became of `original` from its outcome in the log, and the result from the upstream."
        }
        ReasonCode::BudgetUnusable => {
            "Amounts are decimals of at most 28 digits where the surface's budgets say; ask its operator."
        }
        ReasonCode::FactUnavailable => "Try again when the source of the fact answers.",
        ReasonCode::StateFull => "Try again when earlier claims, windows or holds have ended.",
        _ => return None,
    })
}

/// The kept answer once more.
pub fn replayed(replayed: &Replayed, want: WantReceipt) -> Response<ResponseBody> {
    let Replayed { answer, receipt } = replayed;
    let mut response = Response::new(ResponseBody::whole(answer.body.clone()));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.reserve(answer.headers.len() + 3);
    let length = HeaderValue::from(answer.body.len());
    for (name, value) in &answer.headers {
        // An answer to HEAD announces a body that it does not have.
        let is_false_length = *name == header::CONTENT_LENGTH && *value != length;
        if !is_false_length {
            headers.append(name, value.clone());
        }
    }
    headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    let OriginalReceipt { id, index, size, leaf_hash, proof } = receipt;
    let of = ReceiptFields {
        id: Some(*id),
        index: *index,
        size: *size,
        leaf_hash: *leaf_hash,
        decision: Some(Decision::Permit),
    };
    headers.insert(RECEIPT_HEADER, of.header());
    match want {
        WantReceipt::Usual => {}
        WantReceipt::Proof => {
            headers.insert(PROOF_HEADER, proof_header(proof));
        }
    }
    response
}

/// Says that the gateway has waited for people, as it was asked to.
pub fn waited(response: &mut Response<ResponseBody>, wait: Duration) {
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs())).expect("digits are visible ASCII");
    response.headers_mut().insert(PREFERENCE_APPLIED, value);
}

/// Bytes have left: client libraries that would send a 504 once more by themselves are told not to, in the headers
/// that those of payment and model APIs obey.
fn never_retry(headers: &mut HeaderMap) {
    for name in ["x-should-retry", "stripe-should-retry"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("false"));
    }
}

/// RFC 9110 section 15.5.2: a 401 names a scheme.
fn ask_for_credential(headers: &mut HeaderMap) {
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
}

/// Only where nothing was sent.
fn retry_later(headers: &mut HeaderMap) {
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
}

/// The upstream's answer, its body still to come: whoever holds the sender streams it.
pub fn answered(answer: &Answer, want: WantReceipt) -> (Response<ResponseBody>, mpsc::Sender<Piece>) {
    let (body, pieces) = ResponseBody::streamed(answer.announced_len());
    let mut response = Response::new(body);
    *response.status_mut() = answer.status();
    let headers = response.headers_mut();
    headers.reserve(answer.headers().len() + 2);
    for (name, value) in passed_fields(answer.headers(), answer.announced_len()) {
        headers.append(name, value.clone());
    }
    headers.insert(RECEIPT_HEADER, receipt_header(answer.receipt()));
    match want {
        WantReceipt::Usual => {}
        WantReceipt::Proof => {
            headers.insert(PROOF_HEADER, proof_header(&answer.receipt().proof().to_string()));
        }
    }
    (response, pieces)
}

fn receipt_header(receipt: &Receipt) -> HeaderValue {
    let Receipt { id, index, size, leaf_hash, decision, .. } = *receipt;
    ReceiptFields { id, index, size, leaf_hash, decision }.header()
}

struct ReceiptFields {
    id: Option<ReceiptId>,
    index: LeafIndex,
    size: TreeSize,
    leaf_hash: Digest,
    decision: Option<Decision>,
}

impl ReceiptFields {
    /// `id="...", index=295, size=300, leaf=:<base64>:, decision=PERMIT`.
    fn header(&self) -> HeaderValue {
        let id = self.id.map_or(String::new(), |id| format!("id=\"{id}\", "));
        let decision = self.decision.map_or(String::new(), |d| format!(", decision={}", d.as_str()));
        let leaf = STANDARD.encode(self.leaf_hash.as_bytes());
        let text = format!("{id}index={}, size={}, leaf=:{leaf}:{decision}", self.index, self.size);
        HeaderValue::try_from(text).expect("UUIDs, integers, base64 and fixed words are visible ASCII")
    }
}

fn proof_header(proof: &str) -> HeaderValue {
    let text = format!(":{}:", STANDARD.encode(proof));
    HeaderValue::try_from(text).expect("base64 and colons are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::passed_trailers;
    use http_body_util::BodyExt;

    fn receipt() -> Receipt {
        let id = ReceiptId::new(crate::clock::WallTime::from_unix_ns(1_000_000_000), [7; 10]);
        Receipt::of_first_leaf(id, Decision::Deny, "log\n1\nroot\n\n\u{2014} log sig\n")
    }

    async fn json(response: Response<ResponseBody>) -> serde_json::Value {
        let bytes = response.into_body().collect().await.expect("whole").to_bytes();
        serde_json::from_slice(&bytes).expect("json")
    }

    #[tokio::test]
    async fn a_verdict_names_decision_reasons_and_receipt_and_is_never_a_success() {
        let refused_ = Refused::Verdict {
            code: ReasonCode::PolicyDenied,
            decision: Decision::Deny,
            reasons: vec![PolicyReason {
                code: "over_limit".into(),
                detail: None,
                message: Some("m".into()),
            }],
            receipt: receipt(),
            held: None,
        };
        let response = refused(&refused_, WantReceipt::Usual);
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()[RECEIPT_HEADER],
            format!(
                "id=\"{}\", index=0, size=1, leaf=:{}:, decision=DENY",
                receipt().id.expect("set"),
                STANDARD.encode([1; 32])
            )
        );
        let body = json(response).await;
        assert_eq!(body["decision"], "DENY");
        assert_eq!(body["reasons"][0]["code"], "over_limit");
        assert_eq!(body["receipt"]["index"], 0);
        assert_eq!(body["type"], "urn:interlock:reason:policy_denied");
    }

    #[tokio::test]
    async fn a_refusal_has_its_golden_bytes() {
        let refused_ = Refused::Verdict {
            code: ReasonCode::PolicyDenied,
            decision: Decision::Deny,
            reasons: vec![ReasonCode::PolicyDenied.into()],
            receipt: receipt(),
            held: None,
        };
        let response = refused(&refused_, WantReceipt::Proof);
        let header = response.headers()[PROOF_HEADER].to_str().expect("ASCII").to_owned();
        assert!(!refused(&refused_, WantReceipt::Usual).headers().contains_key(PROOF_HEADER));
        let bytes = response.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(String::from_utf8_lossy(&bytes), include_str!("../tests/golden/problem.json").trim_end());
        let proof = STANDARD.decode(header.trim_matches(':')).expect("base64");
        assert_eq!(String::from_utf8_lossy(&proof), receipt().proof().to_string());
    }

    #[tokio::test]
    async fn retry_after_appears_only_where_nothing_was_sent() {
        let not_sent = Refused::NotSent { code: ReasonCode::UpstreamNotSent, receipt: receipt() };
        assert!(refused(&not_sent, WantReceipt::Usual).headers().contains_key(header::RETRY_AFTER));
        let silent = Refused::NoAnswer { code: ReasonCode::UpstreamSilent, receipt: receipt() };
        let response = refused(&silent, WantReceipt::Usual);
        assert_eq!(response.status(), 504);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(response.headers()["stripe-should-retry"], "false");
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert_eq!(json(response).await["outcome"], "indeterminate");
    }

    #[tokio::test]
    async fn a_rejection_names_rule_and_place() {
        let malformed = Malformed {
            code: ReasonCode::JsonDuplicateName,
            place: Some(Place::Json { byte: 9, pointer: "/amount".into() }),
            detail: None,
        };
        let response = rejected(&Rejected { malformed, receipt: None, allow: vec![] }, WantReceipt::Usual);
        assert_eq!(response.status(), 400);
        let body = json(response).await;
        assert_eq!(body["reason"], "json_duplicate_name");
        assert_eq!(body["place"]["json"]["pointer"], "/amount");
    }

    #[test]
    fn trailers_neither_speak_for_the_gateway_nor_of_the_connection() {
        let of = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("x"));
        let received = HeaderMap::from_iter(["x-sum", "interlock-receipt", "connection"].map(of));
        assert_eq!(passed_trailers(received), HeaderMap::from_iter([of("x-sum")]));
    }

    #[test]
    fn a_401_names_a_scheme_and_a_405_the_methods() {
        let response = rejected(&ReasonCode::CredentialInvalid.into(), WantReceipt::Usual);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let mut wrong_method: Rejected = ReasonCode::RouteMethodNotDeclared.into();
        wrong_method.allow = vec![Method::GET, Method::POST];
        assert_eq!(rejected(&wrong_method, WantReceipt::Usual).headers()[header::ALLOW], "GET, POST");
    }
}
