//! Why a request to the admin listener is not answered with what was asked for: problem+json (RFC 9457).

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::operators::role_name;
use crate::ledger::{ReadError, Unrecorded};
use crate::model::entry::Role;
use crate::respond::ResponseBody;

/// What went wrong; closed, each with a stable word.
#[derive(Debug)]
pub enum Refusal {
    /// A parameter that is not one of this path's, or stands twice, or does not say what it must.
    Parameter {
        name: String,
        detail: String,
    },
    /// Not the form of a receipt's id.
    NoReceiptId,
    NoSuchReceipt,
    /// The decision is a PERMIT, and what became of it is not recorded yet.
    NoOutcomeYet,
    /// The decision is no PERMIT: nothing came of it, and nothing will.
    NeverAnOutcome,
    /// Not the name of a tile.
    NoTileName(String),
    /// The tree is not that large, or has a full tile in its place.
    NoSuchTile,
    FollowersOver,
    Unreadable(ReadError),
    /// The task panicked.
    Panicked,
    /// Nobody operates this gateway.
    NotConfigured,
    /// The request comes from a web page.
    CrossSite,
    /// The request is for another host.
    HostNotHere,
    CredentialMissing,
    CredentialInvalid,
    RoleInsufficient {
        needed: Role,
    },
    /// The operator is the one whose request is held.
    OwnRequest,
    TooMany {
        wait_s: u64,
    },
    NoSuchPath,
    Method {
        allow: &'static str,
    },
    NotJson,
    BodyTooLarge,
    BodyLate,
    Body {
        detail: String,
    },
    HoldUnknown,
    /// Expired, refused, or used up.
    HoldOver {
        how: &'static str,
    },
    ApprovedAlready,
    SurfaceUnknown,
    NotFrozen,
    NotQuarantined,
    /// The PERMIT's outcome is known, or it has none yet, or it is no PERMIT.
    NotIndeterminate,
    /// What the decision was made on is not in the log's files.
    EvidenceMissing,
    /// What policy is read from cannot be used; the last good one judges on.
    PolicyNotActivated {
        detail: String,
    },
    /// The bundle is not after the newest that was active, and the order does not name it.
    PolicyOlder {
        detail: String,
    },
    Unrecorded(Unrecorded),
}

/// Members in RFC 8785 order.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    reason: &'static str,
    status: u16,
    title: &'static str,
    #[serde(rename = "type")]
    problem_type: String,
}

impl Refusal {
    const fn parts(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Parameter { .. } => {
                (StatusCode::BAD_REQUEST, "parameter_invalid", "A parameter is not one this path takes.")
            }
            Self::NoReceiptId => {
                (StatusCode::BAD_REQUEST, "receipt_id_invalid", "A receipt's id is a lowercase UUIDv7.")
            }
            Self::NoSuchReceipt => {
                (StatusCode::NOT_FOUND, "receipt_unknown", "No decision in the log has this id.")
            }
            Self::NoOutcomeYet => {
                (StatusCode::NOT_FOUND, "outcome_open", "What became of this PERMIT is not recorded yet.")
            }
            Self::NeverAnOutcome => {
                (StatusCode::NOT_FOUND, "outcome_never", "Only a PERMIT has an outcome, and this is none.")
            }
            Self::NoTileName(_) => (
                StatusCode::BAD_REQUEST,
                "tile_name_invalid",
                "A tile's name has one form (C2SP tlog-tiles).",
            ),
            Self::NoSuchTile => (StatusCode::NOT_FOUND, "tile_unknown", "The signed tree has no such tile."),
            Self::FollowersOver => {
                (StatusCode::SERVICE_UNAVAILABLE, "followers_over", "Too many follow the log already.")
            }
            Self::Unreadable(_) | Self::Panicked | Self::EvidenceMissing => {
                (StatusCode::INTERNAL_SERVER_ERROR, "log_unreadable", "The log's files could not be read.")
            }
            Self::NotConfigured => (
                StatusCode::FORBIDDEN,
                "operators_not_configured",
                "The config names no operators, so nobody operates this gateway.",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "cross_site",
                "Nothing here is for web pages, of this site or another.",
            ),
            Self::HostNotHere => {
                (StatusCode::MISDIRECTED_REQUEST, "host_not_here", "The host is not a name of this listener.")
            }
            Self::CredentialMissing => {
                (StatusCode::UNAUTHORIZED, "credential_missing", "An operator has to prove who they are.")
            }
            Self::CredentialInvalid => {
                (StatusCode::UNAUTHORIZED, "credential_invalid", "This credential proves no operator.")
            }
            Self::RoleInsufficient { .. } => {
                (StatusCode::FORBIDDEN, "role_insufficient", "The operator's role does not include this.")
            }
            Self::OwnRequest => {
                (StatusCode::FORBIDDEN, "own_request", "Nobody decides on what they asked for themselves.")
            }
            Self::TooMany { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many requests from here, or of this operator.",
            ),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "path_unknown", "Nothing is here."),
            Self::Method { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path takes another method.")
            }
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "The body has to be application/json, and say so.",
            ),
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than 16 KiB.")
            }
            Self::BodyLate => (StatusCode::REQUEST_TIMEOUT, "body_late", "The body did not come in time."),
            Self::Body { .. } => {
                (StatusCode::BAD_REQUEST, "body_invalid", "The body is not what this path takes.")
            }
            Self::HoldUnknown => (StatusCode::NOT_FOUND, "hold_unknown", "No request is held under this id."),
            Self::HoldOver { .. } => (StatusCode::CONFLICT, "hold_over", "The hold is over."),
            Self::ApprovedAlready => {
                (StatusCode::CONFLICT, "approved_already", "This operator has approved the hold already.")
            }
            Self::SurfaceUnknown => {
                (StatusCode::NOT_FOUND, "surface_unknown", "The config has no such surface.")
            }
            Self::NotFrozen => (StatusCode::CONFLICT, "not_frozen", "This is not frozen."),
            Self::NotQuarantined => {
                (StatusCode::CONFLICT, "not_quarantined", "The actor is not quarantined on the surface.")
            }
            Self::NotIndeterminate => (
                StatusCode::CONFLICT,
                "not_indeterminate",
                "Only an outcome that is indeterminate can be resolved, and only once.",
            ),
            Self::PolicyNotActivated { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "policy_not_activated",
                "The bundle cannot be used, and the one before it judges on.",
            ),
            Self::PolicyOlder { .. } => (
                StatusCode::CONFLICT,
                "policy_older",
                "The bundle is not newer than one that was active. To activate it all the same, name its revision in `older`.",
            ),
            Self::Unrecorded(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_recorded",
                "The log did not take it. Look whether it was done before asking again.",
            ),
        }
    }

    /// The stable word for it.
    pub fn reason(&self) -> &'static str {
        self.parts().1
    }

    pub fn status(&self) -> StatusCode {
        self.parts().0
    }

    pub fn response(&self) -> Response<ResponseBody> {
        let (status, reason, title) = self.parts();
        let Details { parameter, detail, header } = self.details();
        let problem_type = format!("urn:interlock:admin:{reason}");
        let detail = detail.as_deref();
        let problem = Problem { detail, parameter, reason, status: status.as_u16(), title, problem_type };
        let body = serde_json::to_vec(&problem).expect("strings and a number");
        let mut response = Response::new(ResponseBody::whole(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = header {
            headers.insert(name, value);
        }
        response
    }

    /// More for whoever asked. What is for the log alone is logged here.
    fn details(&self) -> Details<'_> {
        let nothing = Details::default();
        let detail = |detail: String| Details { detail: Some(detail), ..Details::default() };
        let header = |name, value| Details { header: Some((name, value)), ..Details::default() };
        match self {
            Self::Parameter { name, detail } => {
                Details { parameter: Some(name), detail: Some(detail.clone()), header: None }
            }
            Self::NoTileName(why)
            | Self::Body { detail: why }
            | Self::PolicyNotActivated { detail: why }
            | Self::PolicyOlder { detail: why } => detail(why.clone()),
            Self::RoleInsufficient { needed } => {
                detail(format!("It needs the role `{}`.", role_name(*needed)))
            }
            Self::HoldOver { how } => detail(format!("It {how}.")),
            Self::NoSuchPath => detail(
                "Here are /healthz, /readyz, /metrics, /checkpoint, /tile/..., /receipts, /receipts/{id}, and for operators \
                 /holds, /restrictions, /outcomes/unknown."
                    .to_owned(),
            ),
            Self::Method { allow } => header(ALLOW, HeaderValue::from_static(allow)),
            Self::CredentialMissing | Self::CredentialInvalid => {
                header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            }
            Self::TooMany { wait_s } => header(RETRY_AFTER, HeaderValue::from(*wait_s)),
            Self::Unrecorded(error) => {
                let header = match error {
                    Unrecorded::Full | Unrecorded::Busy => Some((RETRY_AFTER, HeaderValue::from(1))),
                    Unrecorded::TooLarge | Unrecorded::NotRedactable | Unrecorded::Poisoned => None,
                };
                Details { detail: Some(format!("Because {error}.")), header, parameter: None }
            }
            Self::Unreadable(error) => {
                // Where files lie and what the system said is for the log.
                tracing::error!(%error, "a read for the admin listener failed");
                nothing
            }
            Self::NoReceiptId
            | Self::NoSuchReceipt
            | Self::NoOutcomeYet
            | Self::NeverAnOutcome
            | Self::NoSuchTile
            | Self::FollowersOver
            | Self::Panicked
            | Self::NotConfigured
            | Self::CrossSite
            | Self::HostNotHere
            | Self::OwnRequest
            | Self::NotJson
            | Self::BodyTooLarge
            | Self::BodyLate
            | Self::HoldUnknown
            | Self::ApprovedAlready
            | Self::SurfaceUnknown
            | Self::NotFrozen
            | Self::NotQuarantined
            | Self::NotIndeterminate
            | Self::EvidenceMissing => nothing,
        }
    }
}

#[derive(Default)]
struct Details<'a> {
    parameter: Option<&'a str>,
    detail: Option<String>,
    header: Option<(HeaderName, HeaderValue)>,
}
