//! Why something was refused: one closed list of stable codes, shared by receipts, metrics and answers.
//!
//! A code never changes its meaning and is never reused. [`ReasonCode::status`] is the one place where
//! a code meets an HTTP status (RFC 9110 section 15); [`ReasonCode::title`] is the rule it names.
//! Reasons that policy gives are not in this list: they are the policy author's own ([`PolicyReason`]).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Json;

/// Where in the request the culprit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A value in a JSON body: RFC 6901 pointer, and the offset of its first byte in the body.
    Json { byte: u64, pointer: String },
    /// A value in a form body, by its decoded key.
    FormKey(String),
    /// An offset into the body, from 0.
    BodyByte(u64),
    /// A header, lowercase.
    Header(String),
    /// An offset into the request target as it came, from 0.
    TargetByte(u64),
    /// A query parameter, by its decoded name.
    Query(String),
    /// An offset into the bytes of the message head as they came (HTTP/1.1), from 0.
    HeadByte(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { byte, pointer } => write!(f, "body at `{pointer}` (byte {byte})"),
            Self::FormKey(key) => write!(f, "form key `{key}`"),
            Self::BodyByte(at) => write!(f, "body, byte {at}"),
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::TargetByte(at) => write!(f, "request target, byte {at}"),
            Self::Query(name) => write!(f, "query parameter `{name}`"),
            Self::HeadByte(at) => write!(f, "message head, byte {at}"),
        }
    }
}

/// Families of codes, for metrics and dashboards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonClass {
    /// Two readings exist, or none.
    Malformed,
    /// Over a declared bound.
    Limit,
    /// Nobody proved to be anybody.
    Unauthenticated,
    /// Well-formed, but nothing this surface declares.
    NotDeclared,
    /// Policy said no.
    Verdict,
    /// An earlier request with the same idempotency key stands in the way.
    Repeated,
    /// Policy could not say.
    CannotDecide,
    /// The log could not take the receipt.
    CannotRecord,
    /// The upstream could not be reached or did not answer.
    Upstream,
    /// Too much at once, or going away.
    Overload,
}

impl ReasonClass {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Limit => "limit",
            Self::Unauthenticated => "unauthenticated",
            Self::NotDeclared => "not_declared",
            Self::Verdict => "verdict",
            Self::Repeated => "repeated",
            Self::CannotDecide => "cannot_decide",
            Self::CannotRecord => "cannot_record",
            Self::Upstream => "upstream",
            Self::Overload => "overload",
        }
    }
}

macro_rules! reason_codes {
    ($($variant:ident, $code:literal, $class:ident, $status:literal, $title:literal;)*) => {
        /// See the module's text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ReasonCode { $($variant,)* }

        impl ReasonCode {
            pub const ALL: &'static [ReasonCode] = &[$(Self::$variant,)*];

            /// The stable string.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            pub const fn class(self) -> ReasonClass {
                match self { $(Self::$variant => ReasonClass::$class,)* }
            }

            /// The HTTP status code of the answer that carries it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The rule, as one sentence for the caller.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

reason_codes! {
    // Message head and framing (RFC 9112, RFC 9113).
    HeadMalformed, "head_malformed", Malformed, 400, "The message head is not valid HTTP.";
    HeadBareLf, "head_bare_lf", Malformed, 400, "Lines of the message head end in CRLF; a bare LF or CR is refused.";
    HeadObsoleteFold, "head_obsolete_fold", Malformed, 400, "A header continues on the next line, which is obsolete and refused.";
    HeadTooLarge, "head_too_large", Limit, 431, "The message head is over the limit.";
    HeaderCountOver, "header_count_over", Limit, 431, "There are more headers than the limit.";
    HeaderNameInvalid, "header_name_invalid", Malformed, 400, "A header name must be a token with no space before the colon.";
    HeaderValueInvalid, "header_value_invalid", Malformed, 400, "A header value must be visible ASCII, single spaces and tabs inside.";
    HeaderDuplicate, "header_duplicate", Malformed, 400, "A header that is used here appears more than once.";
    HeaderHopByHop, "header_hop_by_hop", Malformed, 400, "A hop-by-hop or connection-nominated header is refused.";
    HeaderMethodOverride, "header_method_override", Malformed, 400, "A header that overrides the method is refused.";
    HeaderCredentialSent, "header_credential_sent", Malformed, 400, "The header of a gateway-held credential must not be sent by the caller.";
    HostMissing, "host_missing", Malformed, 400, "A request must name exactly one host.";
    HostDuplicate, "host_duplicate", Malformed, 400, "A request must name exactly one host; there is more than one.";
    HostInvalid, "host_invalid", Malformed, 400, "The host is not a valid authority.";
    HostMismatch, "host_mismatch", Malformed, 400, "The target's authority and the Host header differ.";
    HostNotServed, "host_not_served", NotDeclared, 421, "This listener serves no surface under that host.";
    VersionUnsupported, "version_unsupported", Malformed, 505, "Only HTTP/1.1 and HTTP/2 are accepted.";
    MethodInvalid, "method_invalid", Malformed, 400, "The method is not a plain uppercase token that can be forwarded.";
    TransferEncodingUnsupported, "transfer_encoding_unsupported", Malformed, 400, "The only transfer coding accepted is a single `chunked`.";
    FramingConflict, "framing_conflict", Malformed, 400, "Content-Length and Transfer-Encoding must not both appear.";
    ContentLengthInvalid, "content_length_invalid", Malformed, 400, "Content-Length must appear at most once, as plain digits.";
    ContentLengthMismatch, "content_length_mismatch", Malformed, 400, "The body is not as long as Content-Length says.";
    ChunkMalformed, "chunk_malformed", Malformed, 400, "The chunked body is not in the one accepted form: no extensions, no bare line ends.";
    TrailersRefused, "trailers_refused", Malformed, 400, "Trailer fields are refused.";
    UpgradeRefused, "upgrade_refused", Malformed, 400, "Upgrade and CONNECT are refused.";
    WantReceiptInvalid, "want_receipt_invalid", Malformed, 400, "The only value of Want-Receipt is `proof`.";
    ExpectationUnsupported, "expectation_unsupported", Malformed, 417, "The only expectation accepted is `100-continue`.";
    ContentEncodingUnsupported, "content_encoding_unsupported", Malformed, 415, "The body must not be content-encoded.";

    // Target (RFC 3986, RFC 9112 section 3.2).
    TargetFormUnsupported, "target_form_unsupported", Malformed, 400, "The target must be a path, or an absolute URI of this host.";
    TargetTooLong, "target_too_long", Limit, 414, "The request target is over the limit.";
    TargetCharacterInvalid, "target_character_invalid", Malformed, 400, "The target holds a character that must be percent-encoded or never appears.";
    TargetFragment, "target_fragment", Malformed, 400, "A request target has no fragment; `#` is refused.";
    TargetPercentInvalid, "target_percent_invalid", Malformed, 400, "A percent sign must be followed by two hex digits.";
    TargetDotSegment, "target_dot_segment", Malformed, 400, "Dot segments are refused, encoded or not.";
    TargetEmptySegment, "target_empty_segment", Malformed, 400, "Empty path segments (`//`) are refused on this route.";
    TargetBackslash, "target_backslash", Malformed, 400, "A backslash in the path is refused, encoded or not.";
    TargetEncodedSlash, "target_encoded_slash", Malformed, 400, "An encoded slash in the path is refused on this route.";
    TargetEncodedControl, "target_encoded_control", Malformed, 400, "An encoded control character in the target is refused.";
    TargetNonAscii, "target_non_ascii", Malformed, 400, "Non-ASCII characters in the path are refused on this route.";
    TargetNotUtf8, "target_not_utf8", Malformed, 400, "Percent-encoded bytes of the target must be UTF-8.";
    TargetParameters, "target_parameters", Malformed, 400, "`;` parameters in the path are refused on this route.";
    QueryDuplicate, "query_duplicate", Malformed, 400, "A query parameter that is not declared as a list appears more than once.";
    QueryMalformed, "query_malformed", Malformed, 400, "The query is not a plain list of `name=value` pairs.";
    QueryCountOver, "query_count_over", Limit, 414, "There are more query parameters than the limit.";
    RouteNotDeclared, "route_not_declared", NotDeclared, 404, "No route of this surface has that method and path.";
    RouteMethodNotDeclared, "route_method_not_declared", NotDeclared, 405, "A route of this surface has that path, but not with that method.";

    // Body.
    BodyTooLarge, "body_too_large", Limit, 413, "The body is over the limit of this route.";
    BodyUnexpected, "body_unexpected", Malformed, 400, "This route takes no body.";
    BodyMissing, "body_missing", Malformed, 400, "This route needs a body.";
    BodyIncomplete, "body_incomplete", Malformed, 400, "The body ended before it was whole.";
    BodyTimeout, "body_timeout", Limit, 408, "The body did not arrive in time.";
    LengthRequired, "length_required", Malformed, 411, "A body must be announced by Content-Length or Transfer-Encoding.";
    MediaTypeMissing, "media_type_missing", Malformed, 415, "A body needs a Content-Type.";
    MediaTypeUnsupported, "media_type_unsupported", Malformed, 415, "The Content-Type is not one this route takes.";
    JsonInvalid, "json_invalid", Malformed, 400, "The body is not valid JSON (RFC 8259).";
    JsonNotUtf8, "json_not_utf8", Malformed, 400, "JSON must be UTF-8.";
    JsonByteOrderMark, "json_byte_order_mark", Malformed, 400, "JSON must not begin with a byte order mark.";
    JsonDuplicateName, "json_duplicate_name", Malformed, 400, "An object has the same member name twice.";
    JsonLoneSurrogate, "json_lone_surrogate", Malformed, 400, "An escape names half of a surrogate pair.";
    JsonNumberInexact, "json_number_inexact", Malformed, 400, "A number's value would change in a double (RFC 8785); send it as a string.";
    JsonTooDeep, "json_too_deep", Limit, 400, "The JSON body is nested deeper than the limit.";
    JsonTooManyMembers, "json_too_many_members", Limit, 400, "The JSON body has more values than the limit.";
    JsonTrailing, "json_trailing", Malformed, 400, "Bytes follow the JSON value.";
    FormInvalid, "form_invalid", Malformed, 400, "The body is not valid application/x-www-form-urlencoded.";
    FormNotUtf8, "form_not_utf8", Malformed, 400, "Form keys and values must be UTF-8 after decoding.";
    FormDuplicateKey, "form_duplicate_key", Malformed, 400, "A form key that does not end in `[]` appears more than once.";
    FormKeyInvalid, "form_key_invalid", Malformed, 400, "A form key's brackets are not balanced and plain.";
    FormKeyConflict, "form_key_conflict", Malformed, 400, "Two form keys give one place two shapes.";
    FormTooManyKeys, "form_too_many_keys", Limit, 400, "The form has more keys, or deeper ones, than the limit.";
    SchemaMismatch, "schema_mismatch", Malformed, 422, "The body does not fit the schema of this route.";
    NameReserved, "name_reserved", Malformed, 400, "On this route no member or parameter may be called `_sd` or `...`.";
    IdempotencyKeyMissing, "idempotency_key_missing", Malformed, 400, "This route needs an Idempotency-Key.";
    IdempotencyKeyInvalid, "idempotency_key_invalid", Malformed, 400, "Idempotency-Key must be 1 to 255 visible ASCII characters.";

    // Identity.
    CredentialMissing, "credential_missing", Unauthenticated, 401, "No credential was presented.";
    CredentialInvalid, "credential_invalid", Unauthenticated, 401, "The credential is not valid here.";
    CredentialAmbiguous, "credential_ambiguous", Unauthenticated, 401, "More than one credential was presented.";

    // Policy gave no permit.
    PolicyDenied, "policy_denied", Verdict, 403, "Policy denies this request.";
    PolicySilent, "policy_silent", Verdict, 403, "No policy rule permits this request.";
    PolicyEscalated, "policy_escalated", Verdict, 403, "Policy holds this request for people to decide.";
    PolicyQuarantined, "policy_quarantined", Verdict, 403, "Policy denies this request and isolates the actor.";

    // People gave no permit.
    Frozen, "frozen", Verdict, 403, "An operator has frozen this; nothing is sent until it is unfrozen.";
    ActorQuarantined, "actor_quarantined", Verdict, 403, "The actor is isolated on this surface until an operator releases it.";
    HoldRefused, "hold_refused", Verdict, 403, "An operator has refused exactly this request.";

    // The idempotency key has been used.
    IdempotencyRunning, "idempotency_running", Repeated, 409, "A request with this Idempotency-Key is being carried out.";
    IdempotencyKeyReused, "idempotency_key_reused", Repeated, 422, "This Idempotency-Key belongs to another request.";
    IdempotencyUnknown, "idempotency_unknown", Repeated, 409, "Whether the request with this Idempotency-Key took effect is not known; it is not sent again.";
    IdempotencyAnswerNotKept, "idempotency_answer_not_kept", Repeated, 409, "The request with this Idempotency-Key was carried out; its answer was not kept.";
    IdempotencyReplayed, "idempotency_replayed", Repeated, 409, "The kept answer was given once more; nothing was sent. Only in the log.";

    // Policy could not say: SILENCE.
    EvaluationError, "evaluation_error", CannotDecide, 503, "Policy could not be evaluated.";
    EvaluationTimeout, "evaluation_timeout", CannotDecide, 503, "Policy could not be evaluated in time.";
    EvaluationPanic, "evaluation_panic", CannotDecide, 503, "Policy could not be evaluated.";
    EvaluationResultInvalid, "evaluation_result_invalid", CannotDecide, 503, "Policy gave a reason that is neither a code nor an object with one.";
    EvaluationOverloaded, "evaluation_overloaded", CannotDecide, 503, "Too many evaluations are running.";
    ReadSetMoved, "read_set_moved", CannotDecide, 503, "What the decision rests on kept changing.";
    BudgetUnusable, "budget_unusable", CannotDecide, 503, "What the request would take of a budget, or the budget's sums, cannot be told exactly.";
    FactUnavailable, "fact_unavailable", CannotDecide, 503, "A fact that policy needs is missing or too old.";
    ClockStepped, "clock_stepped", CannotDecide, 503, "The gateway's clock was set, so it is not known what counts now.";
    StateFull, "state_full", CannotDecide, 503, "There is no room for more claims, budgets or holds.";
    LedgerUnavailable, "ledger_unavailable", CannotRecord, 503, "The decision could not be recorded.";
    LedgerFull, "ledger_full", CannotRecord, 503, "The log has no room for new decisions.";
    EntryTooLarge, "entry_too_large", CannotRecord, 503, "The receipt would be over 65,535 bytes.";

    // Upstream.
    UpstreamUnreachable, "upstream_unreachable", Upstream, 502, "The upstream could not be reached; nothing was sent.";
    UpstreamBusy, "upstream_busy", Overload, 503, "All connections to the upstream are in use; nothing was sent.";
    UpstreamNotSent, "upstream_not_sent", Upstream, 502, "The upstream closed the connection before a byte left; nothing was sent.";
    UpstreamSilent, "upstream_silent", Upstream, 504, "The upstream did not answer; whether it acted is not known.";
    UpstreamMalformed, "upstream_malformed", Upstream, 504, "The upstream's answer was not valid HTTP; whether it acted is not known.";

    // The gateway itself.
    Overloaded, "overloaded", Overload, 503, "The gateway is at its limit of requests.";
    Draining, "draining", Overload, 503, "The gateway is shutting down.";
    InternalError, "internal_error", Overload, 503, "The gateway could not finish this request.";
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// One element of a policy set: a code, and what else the author said.
///
/// In a leaf: an object in RFC 8785 order, `{"code", "detail"?, "message"?}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyReason {
    pub code: Arc<str>,
    /// Members other than `code` and `message`, an object, in a form that leaves allow:
    /// null and numbers that are not integers appear as strings holding their JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
}

impl From<ReasonCode> for PolicyReason {
    fn from(code: ReasonCode) -> Self {
        Self { code: code.as_str().into(), detail: None, message: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_and_never_answer_with_success() {
        let codes: BTreeSet<_> = ReasonCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(codes.len(), ReasonCode::ALL.len());
        for code in ReasonCode::ALL {
            assert!((400..=505).contains(&code.status()), "{code}");
            assert!(code.title().ends_with('.'), "{code}");
        }
    }
}
