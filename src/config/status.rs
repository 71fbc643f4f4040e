//! `status_lookup`: how a surface's upstream is asked what became of a request that it did not answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderName;

use super::fields;
use super::reader::{Fields, Reader};
use super::route::{self, RouteConfig};
use super::yaml::{At, Node};
use crate::canonical::CredentialSlot;
use crate::limits;
use crate::model::ActionName;
use crate::reconcile::StatusLookup;
use crate::upstream::{AnswerPointer, InvalidStatusQuestion, NotFoundIs, StatusQuestion, StatusRules};

/// As declared; whose requests it is about is known once the routes are read.
pub struct Declared {
    at: At,
    lookup: StatusLookup,
    /// Absent: all that can be asked about.
    actions: Option<Vec<(At, ActionName)>>,
}

/// The header of the surface's credential is the gateway's own.
pub fn read(reader: &mut Reader<'_>, node: &Node, credential: Option<&CredentialSlot>) -> Option<Declared> {
    let fields = reader.fields(node, &fields::STATUS_LOOKUP)?;
    let question = read_question(reader, &fields, credential);
    let status = fields.optional("status").and_then(|n| read_pointer(reader, n));
    let echo = match fields.optional("echo") {
        Some(n) => read_pointer(reader, n).map(Some),
        None => Some(None),
    };
    let confirmed = fields.optional("confirmed").and_then(|n| read_values(reader, n));
    let failed = match fields.optional("failed") {
        Some(n) => read_values(reader, n),
        None => Some(Vec::new()),
    };
    if let (Some(confirmed), Some(failed)) = (&confirmed, &failed) {
        for (at, value) in
            failed.iter().filter(|(_, value)| confirmed.iter().any(|(_, other)| other == value))
        {
            reader.error(*at, format!("`{value}` stands for `confirmed` as well"));
        }
    }
    let not_found = [("unknown", NotFoundIs::Unknown), ("failed", NotFoundIs::Failed)];
    let not_found = reader.choice(&fields, "not_found", &not_found);
    if not_found == Some(NotFoundIs::Failed) && fields.optional("after_ms").is_none() {
        reader.error(
            fields.place("not_found"),
            "`not_found: failed` needs `after_ms`: for how long the upstream may not know yet what it was sent",
        );
    }
    let actions = match fields.optional("actions") {
        Some(n) => read_actions(reader, n).map(Some),
        None => Some(None),
    };
    let (after, again_max) =
        (reader.milliseconds(&fields, "after_ms"), reader.milliseconds(&fields, "again_ms_max"));
    let timeout = reader.milliseconds(&fields, "timeout_ms");
    let bytes_max = reader.number(&fields, "bytes_max").and_then(|n| usize::try_from(n).ok());
    let (question, echo) = (question?, echo?);
    if echo.is_none() && !question.is_path() {
        reader.warn(
            node.at,
            "an upstream that overlooks the key would answer about another request: name with `echo` where its answers \
             repeat the key",
        );
    }
    let values = |values: Vec<(At, Arc<str>)>| values.into_iter().map(|(_, value)| value).collect();
    let rules = StatusRules {
        question,
        status: status?,
        echo,
        confirmed: values(confirmed?),
        failed: values(failed?),
        not_found: not_found?,
        timeout: timeout?,
        bytes_max: bytes_max?,
    };
    let rules = Arc::new(rules);
    let lookup = StatusLookup { rules, actions: BTreeSet::new(), after: after?, again_max: again_max? };
    Some(Declared { at: node.at, lookup, actions: actions? })
}

fn read_question(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    credential: Option<&CredentialSlot>,
) -> Option<StatusQuestion> {
    let path = fields.optional("path").and_then(|n| Some((n.at, reader.text(n, "a path")?)));
    let header = match fields.optional("header") {
        Some(n) => Some(read_header(reader, n, credential)?),
        None => None,
    };
    let (at, path) = path?;
    let question = StatusQuestion::new(path, header);
    question
        .map_err(|why| {
            let hint = match why {
                InvalidStatusQuestion::NoKey => ", or `header` names a header that carries the key",
                InvalidStatusQuestion::Form
                | InvalidStatusQuestion::Long
                | InvalidStatusQuestion::TwoKeys => "",
            };
            reader.error(at, format!("`{path}`: {why}{hint}"));
        })
        .ok()
}

/// Written by the client of the gateway's own requests.
const OWN_HEADERS: [&str; 2] = ["accept", "cache-control"];

fn read_header(
    reader: &mut Reader<'_>,
    node: &Node,
    credential: Option<&CredentialSlot>,
) -> Option<HeaderName> {
    let text = reader.text(node, "a header name")?;
    let name = route::header_name(reader, node.at, text)?;
    if credential.is_some_and(|slot| slot.header == name) {
        reader.error(node.at, format!("`{name}` holds the gateway's credential"));
        return None;
    }
    if OWN_HEADERS.contains(&&*name) {
        reader.error(node.at, format!("`{name}` is written by the gateway itself and cannot carry the key"));
        return None;
    }
    HeaderName::from_bytes(name.as_bytes()).ok()
}

fn read_pointer(reader: &mut Reader<'_>, node: &Node) -> Option<AnswerPointer> {
    let text = reader.text(node, "a pointer")?;
    text.parse().map_err(|why| reader.error(node.at, format!("`{text}`: {why}"))).ok()
}

fn read_values(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(At, Arc<str>)>> {
    let texts = reader.texts(node, "values")?;
    if texts.is_empty() {
        reader.error(node.at, "expected at least one value");
    }
    if texts.len() > limits::STATUS_VALUES_MAX {
        reader.error(node.at, format!("more than {} values", limits::STATUS_VALUES_MAX));
        return None;
    }
    let mut values: Vec<(At, Arc<str>)> = Vec::new();
    for (at, text) in texts {
        let is_plain = text.len() <= limits::STATUS_VALUE_BYTES_MAX && !text.chars().any(char::is_control);
        if !is_plain {
            let most = limits::STATUS_VALUE_BYTES_MAX;
            reader.error(at, format!("a value has at most {most} bytes and no control characters"));
        } else if values.iter().any(|(_, other)| **other == *text) {
            reader.error(at, format!("`{text}` appears twice"));
        }
        values.push((at, text.into()));
    }
    Some(values)
}

fn read_actions(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(At, ActionName)>> {
    let items = reader.items(node, "actions")?;
    if items.is_empty() {
        reader.error(
            node.at,
            "expected at least one action; leave `actions` out to ask about all that send a key",
        );
    }
    let read: Vec<_> = items.iter().map(|item| reader.name(item).map(|name| (item.at, name))).collect();
    read.into_iter().collect()
}

/// The lookup with its actions: those whose requests bring the upstream a key that they alone have.
pub fn about(
    reader: &mut Reader<'_>,
    declared: Declared,
    routes: &[RouteConfig],
    claims_keys: bool,
) -> Option<StatusLookup> {
    let Declared { at, lookup, actions } = declared;
    if !claims_keys {
        reader.error(at, "`status_lookup` needs `idempotency`: without it several requests may have one key");
        return None;
    }
    let sends_key = |route: &&RouteConfig| route.rules.forward_headers.contains("idempotency-key");
    let known: BTreeSet<ActionName> =
        routes.iter().filter(sends_key).map(|route| route.action.clone()).collect();
    let actions = match actions {
        None if known.is_empty() => {
            reader.error(at, "no route of this surface forwards `idempotency-key`: the upstream knows no key to be asked about");
            return None;
        }
        None => known,
        Some(named) => {
            for (at, action) in named.iter().filter(|(_, action)| !known.contains(action)) {
                let why = match routes.iter().any(|route| route.action == *action) {
                    true => "does not forward `idempotency-key`: the upstream knows no key to be asked about",
                    false => "is no action of this surface",
                };
                reader.error(*at, format!("`{action}` {why}"));
            }
            named.into_iter().map(|(_, action)| action).collect()
        }
    };
    Some(StatusLookup { actions, ..lookup })
}
