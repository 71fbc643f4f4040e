//! Why a read of the log is not answered with what was asked for: problem+json (RFC 9457).

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::ledger::ReadError;
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
    /// The reading task panicked.
    Panicked,
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
            Self::Unreadable(_) | Self::Panicked => {
                (StatusCode::INTERNAL_SERVER_ERROR, "log_unreadable", "The log's files could not be read.")
            }
        }
    }

    pub fn response(&self) -> Response<ResponseBody> {
        let (status, reason, title) = self.parts();
        let (parameter, detail) = match self {
            Self::Parameter { name, detail } => (Some(name.as_str()), Some(detail.as_str())),
            Self::NoTileName(detail) => (None, Some(detail.as_str())),
            Self::Unreadable(error) => {
                // Where files lie and what the system said is for the log.
                tracing::error!(%error, "a read for the admin listener failed");
                (None, None)
            }
            Self::NoReceiptId
            | Self::NoSuchReceipt
            | Self::NoOutcomeYet
            | Self::NeverAnOutcome
            | Self::NoSuchTile
            | Self::FollowersOver
            | Self::Panicked => (None, None),
        };
        let problem_type = format!("urn:interlock:admin:{reason}");
        let problem = Problem { detail, parameter, reason, status: status.as_u16(), title, problem_type };
        let body = serde_json::to_vec(&problem).expect("strings and a number");
        let mut response = Response::new(ResponseBody::whole(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
