//! What an operator can ask for: paths, methods, roles, and bodies read strictly.

use std::sync::Arc;

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Refusal;
use crate::authority::Scope;
use crate::ledger::Attested;
use crate::limits;
use crate::model::entry::Role;
use crate::model::{ActorId, Digest, InvalidName, ReceiptId, SurfaceName};

/// One path of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Holds,
    Hold(ReceiptId),
    Restrictions,
    Unknown,
    Change(Change),
}

/// One that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Approve(ReceiptId),
    Refuse(ReceiptId),
    Freeze,
    Unfreeze,
    Quarantine,
    Release,
    Resolve(ReceiptId),
    ReloadPolicy,
}

impl Endpoint {
    /// `None`: the path is nothing of the control plane's.
    pub fn of(path: &str) -> Option<Result<Self, Refusal>> {
        let known = match path {
            "/holds" => Self::Holds,
            "/restrictions" => Self::Restrictions,
            "/outcomes/unknown" => Self::Unknown,
            "/freeze" => Self::Change(Change::Freeze),
            "/unfreeze" => Self::Change(Change::Unfreeze),
            "/quarantine" => Self::Change(Change::Quarantine),
            "/release" => Self::Change(Change::Release),
            "/policy/reload" => Self::Change(Change::ReloadPolicy),
            _ => return Self::with_id(path),
        };
        Some(Ok(known))
    }

    fn with_id(path: &str) -> Option<Result<Self, Refusal>> {
        let (id, endpoint): (_, fn(ReceiptId) -> Self) = if let Some(rest) = path.strip_prefix("/holds/") {
            match (rest.strip_suffix("/approve"), rest.strip_suffix("/refuse")) {
                (Some(id), _) => (id, |id| Self::Change(Change::Approve(id))),
                (None, Some(id)) => (id, |id| Self::Change(Change::Refuse(id))),
                (None, None) => (rest, Self::Hold),
            }
        } else {
            let id = path.strip_prefix("/outcomes/")?.strip_suffix("/resolve")?;
            (id, |id| Self::Change(Change::Resolve(id)))
        };
        Some(id.parse().map(endpoint).map_err(|_| Refusal::NoReceiptId))
    }

    pub fn takes(&self, method: &Method) -> Result<(), Refusal> {
        match self {
            Self::Holds | Self::Hold(_) | Self::Restrictions | Self::Unknown => takes_reads(method),
            Self::Change(_) if *method == Method::POST => Ok(()),
            Self::Change(_) => Err(Refusal::Method { allow: "POST" }),
        }
    }

    pub fn needed(&self) -> Role {
        match self {
            Self::Holds | Self::Hold(_) | Self::Restrictions | Self::Unknown => Role::Viewer,
            Self::Change(Change::Approve(_) | Change::Refuse(_)) => Role::Approver,
            Self::Change(
                Change::Freeze | Change::Unfreeze | Change::Quarantine | Change::Release | Change::Resolve(_),
            ) => Role::Operator,
            Self::Change(Change::ReloadPolicy) => Role::Administrator,
        }
    }
}

/// Any path that only reads.
pub fn takes_reads(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Refusal::Method { allow: "GET, HEAD" }),
    }
}

/// What to change, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Approve { hold: ReceiptId, reason: Arc<str> },
    Refuse { hold: ReceiptId, reason: Arc<str> },
    Freeze { scope: Scope, reason: Arc<str> },
    Unfreeze { scope: Scope, reason: Arc<str> },
    Quarantine { surface: SurfaceName, actor: ActorId, reason: Arc<str> },
    Release { surface: SurfaceName, actor: ActorId, reason: Arc<str> },
    Resolve { decision: ReceiptId, status: Attested, evidence: Arc<str>, reason: Arc<str> },
    ReloadPolicy { reason: Arc<str>, older: Option<Digest> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    older: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeBody {
    all: Option<bool>,
    surface: Option<String>,
    actor: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActorBody {
    surface: String,
    actor: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResolveBody {
    status: Status,
    evidence: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Confirmed,
    Failed,
}

impl Change {
    /// Every member is there, once, and nothing else is.
    pub fn read(self, body: &[u8]) -> Result<Asked, Refusal> {
        Ok(match self {
            Self::Approve(hold) => Asked::Approve { hold, reason: reason(body)? },
            Self::Refuse(hold) => Asked::Refuse { hold, reason: reason(body)? },
            Self::Freeze => {
                let (scope, reason) = scope(body)?;
                Asked::Freeze { scope, reason }
            }
            Self::Unfreeze => {
                let (scope, reason) = scope(body)?;
                Asked::Unfreeze { scope, reason }
            }
            Self::Quarantine => {
                let (surface, actor, reason) = actor(body)?;
                Asked::Quarantine { surface, actor, reason }
            }
            Self::Release => {
                let (surface, actor, reason) = actor(body)?;
                Asked::Release { surface, actor, reason }
            }
            Self::ReloadPolicy => {
                let ReloadBody { older, reason } = parse(body)?;
                let older = older.map(|older| older.parse()).transpose();
                let older = older.map_err(|e| Refusal::Body { detail: format!("`older`: {e}.") })?;
                Asked::ReloadPolicy { reason: text("reason", reason)?, older }
            }
            Self::Resolve(decision) => {
                let ResolveBody { status, evidence, reason } = parse(body)?;
                let status = match status {
                    Status::Confirmed => Attested::Confirmed,
                    Status::Failed => Attested::Failed,
                };
                let (evidence, reason) = (text("evidence", evidence)?, text("reason", reason)?);
                Asked::Resolve { decision, status, evidence, reason }
            }
        })
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Body { detail: format!("{error}.") })
}

fn reason(body: &[u8]) -> Result<Arc<str>, Refusal> {
    text("reason", parse::<ReasonBody>(body)?.reason)
}

fn scope(body: &[u8]) -> Result<(Scope, Arc<str>), Refusal> {
    let ScopeBody { all, surface, actor, reason } = parse(body)?;
    let scope = match (all, surface, actor) {
        (Some(true), None, None) => Scope::All,
        (None, Some(surface), None) => Scope::Surface(name("surface", &surface)?),
        (None, None, Some(actor)) => Scope::Actor(name("actor", &actor)?),
        _others => {
            let detail = "Exactly one of `all` (true), `surface` and `actor`.".to_owned();
            return Err(Refusal::Body { detail });
        }
    };
    Ok((scope, text("reason", reason)?))
}

fn actor(body: &[u8]) -> Result<(SurfaceName, ActorId, Arc<str>), Refusal> {
    let ActorBody { surface, actor, reason } = parse(body)?;
    Ok((name("surface", &surface)?, name("actor", &actor)?, text("reason", reason)?))
}

fn name<T: std::str::FromStr<Err = InvalidName>>(member: &str, value: &str) -> Result<T, Refusal> {
    value.parse().map_err(|e: InvalidName| Refusal::Body { detail: format!("`{member}`: {e}.") })
}

/// What a person wrote for other people: one line, not empty.
fn text(member: &str, value: String) -> Result<Arc<str>, Refusal> {
    let max = limits::OPERATOR_TEXT_BYTES_MAX;
    let is_line = !value.trim().is_empty() && value.len() <= max && !value.chars().any(char::is_control);
    if !is_line {
        let detail = format!("`{member}` has to be one line of 1 to {max} bytes.");
        return Err(Refusal::Body { detail });
    }
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01a1f952-9919-7203-be62-067bad0065eb";

    fn id() -> ReceiptId {
        ID.parse().expect("an id")
    }

    #[test]
    fn every_path_leads_to_its_endpoint_with_its_method_and_role() {
        use Change::*;
        let cases = [
            ("/holds".to_owned(), Endpoint::Holds, Role::Viewer),
            (format!("/holds/{ID}"), Endpoint::Hold(id()), Role::Viewer),
            ("/restrictions".into(), Endpoint::Restrictions, Role::Viewer),
            ("/outcomes/unknown".into(), Endpoint::Unknown, Role::Viewer),
            (format!("/holds/{ID}/approve"), Endpoint::Change(Approve(id())), Role::Approver),
            (format!("/holds/{ID}/refuse"), Endpoint::Change(Refuse(id())), Role::Approver),
            ("/freeze".into(), Endpoint::Change(Freeze), Role::Operator),
            ("/unfreeze".into(), Endpoint::Change(Unfreeze), Role::Operator),
            ("/quarantine".into(), Endpoint::Change(Quarantine), Role::Operator),
            ("/release".into(), Endpoint::Change(Release), Role::Operator),
            (format!("/outcomes/{ID}/resolve"), Endpoint::Change(Resolve(id())), Role::Operator),
            ("/policy/reload".into(), Endpoint::Change(ReloadPolicy), Role::Administrator),
        ];
        for (path, expected, role) in cases {
            let endpoint = Endpoint::of(&path).expect(&path).expect(&path);
            assert_eq!((endpoint, endpoint.needed()), (expected, role), "{path}");
            let changes = matches!(endpoint, Endpoint::Change(_));
            assert_eq!(endpoint.takes(&Method::POST).is_ok(), changes, "{path}");
            assert_eq!(endpoint.takes(&Method::GET).is_ok(), !changes, "{path}");
            assert!(endpoint.takes(&Method::DELETE).is_err());
        }
        for path in ["/", "/hold", "/holds/", "/outcomes", "/freeze/", "/receipts"] {
            assert!(!matches!(Endpoint::of(path), Some(Ok(_))), "{path}");
        }
        let upper = format!("/holds/{}", ID.to_uppercase());
        assert!(matches!(Endpoint::of(&upper), Some(Err(Refusal::NoReceiptId))));
    }

    #[test]
    fn bodies_are_read_whole_or_refused() {
        let freeze = |body: &str| Change::Freeze.read(body.as_bytes());
        let reason: Arc<str> = "why".into();
        let expected = Asked::Freeze { scope: Scope::All, reason: reason.clone() };
        assert_eq!(freeze(r#"{"all":true,"reason":"why"}"#).expect("valid"), expected);
        let scope = Scope::Actor("agent-7".parse().expect("an id"));
        let expected = Asked::Freeze { scope, reason: reason.clone() };
        assert_eq!(freeze(r#"{"actor":"agent-7","reason":"why"}"#).expect("valid"), expected);
        for body in [
            "",
            "{}",
            "[]",
            r#"{"all":true}"#,
            r#"{"all":false,"reason":"why"}"#,
            r#"{"reason":"why"}"#,
            r#"{"all":true,"surface":"a","reason":"why"}"#,
            r#"{"surface":"a","actor":"b","reason":"why"}"#,
            r#"{"surface":"A B","reason":"why"}"#,
            r#"{"all":true,"reason":""}"#,
            r#"{"all":true,"reason":"  "}"#,
            r#"{"all":true,"reason":"two\nlines"}"#,
            r#"{"all":true,"reason":"\u001b[2J"}"#,
            r#"{"all":true,"reason":"why","reason":"why"}"#,
            r#"{"all":true,"reason":"why","more":1}"#,
            r#"{"all":true,"reason":"why"} x"#,
            r#"{"all":"true","reason":"why"}"#,
        ] {
            assert!(matches!(freeze(body), Err(Refusal::Body { .. })), "{body}");
        }
        let long = format!(r#"{{"all":true,"reason":"{}"}}"#, "x".repeat(1_001));
        assert!(freeze(&long).is_err());
        let resolve = |body: &str| Change::Resolve(id()).read(body.as_bytes());
        let read = resolve(r#"{"status":"failed","evidence":"ticket 4","reason":"why"}"#).expect("valid");
        let (decision, evidence) = (id(), "ticket 4".into());
        assert_eq!(read, Asked::Resolve { decision, status: Attested::Failed, evidence, reason });
        for status in ["indeterminate", "not_sent", ""] {
            let body = format!(r#"{{"status":"{status}","evidence":"e","reason":"r"}}"#);
            assert!(resolve(&body).is_err(), "{status}");
        }
        assert!(resolve(r#"{"status":"failed","evidence":"","reason":"r"}"#).is_err());
    }
}
