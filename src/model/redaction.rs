//! What a route keeps out of the log: places of the policy input, by RFC 6901 pointer.
//!
//! Built by `config` from what a surface and a route declare, carried by each canonical request, used by
//! `redaction` when the request's leaf and evidence are made. Two declared places never overlap.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::Json;
use crate::limits;

/// One step of a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `*`: every member of an object, every element of a list.
    Every,
    /// A member's name, or the decimal index of an element.
    Name(Arc<str>),
}

impl Step {
    pub fn fits(&self, name: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Name(own) => **own == *name,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a == b,
            (Self::Every, Self::Every | Self::Name(_)) | (Self::Name(_), Self::Every) => true,
        }
    }
}

/// Places of the policy input: `/request/body/items/*/iban`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Arc<str>,
    steps: Vec<Step>,
}

/// Why a text is no such pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPointer {
    #[error("a pointer begins with `/`, and `~` in it is written `~0`, `/` is `~1` (RFC 6901)")]
    Form,
    #[error(
        "a pointer begins with `/request/body`, `/request/query`, `/request/params`, `/request/headers/NAME`, \
         `/actor/claims` or `/context`"
    )]
    Root,
    #[error("a header pointer is `/request/headers/` and one lowercase header name")]
    Header,
    #[error(
        "a pointer has at most {} steps and {} bytes",
        limits::REDACT_STEPS_MAX,
        limits::REDACT_POINTER_BYTES_MAX
    )]
    Long,
}

impl Pointer {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Of one forwarded header.
    pub fn of_header(name: &str) -> Self {
        Self::of_names(&["request", "headers", name])
    }

    fn of_names(names: &[&str]) -> Self {
        let text: String = names.iter().map(|name| format!("/{}", escape_step(name))).collect();
        let steps = names.iter().map(|name| Step::Name((*name).into())).collect();
        Self { text: text.into(), steps }
    }

    /// The header's name, if this is a header's place.
    pub fn header(&self) -> Option<&str> {
        self.below(&["request", "headers"])
    }

    /// The name of the path parameter, if it is about one only.
    pub fn parameter(&self) -> Option<&str> {
        self.below(&["request", "params"])
    }

    /// The claim's name, if it is about one or what is in it.
    pub fn claim(&self) -> Option<&str> {
        self.below(&["actor", "claims"])
    }

    pub fn is_in_body(&self) -> bool {
        self.is_below(&["request", "body"])
    }

    fn below(&self, names: &[&str]) -> Option<&str> {
        match self.steps.get(names.len()) {
            Some(Step::Name(name)) if self.is_below(names) => Some(name),
            Some(Step::Name(_) | Step::Every) | None => None,
        }
    }

    /// Whether the place is this one or inside it.
    fn is_below(&self, names: &[&str]) -> bool {
        let literal = |(step, name): (&Step, &&str)| matches!(step, Step::Name(own) if **own == **name);
        self.steps.len() >= names.len() && self.steps.iter().zip(names).all(literal)
    }

    /// Whether some place can be both, or one can be inside the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.steps.iter().zip(&other.steps).all(|(a, b)| a.meets(b))
    }
}

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        if text.len() > limits::REDACT_POINTER_BYTES_MAX {
            return Err(InvalidPointer::Long);
        }
        let rest = text.strip_prefix('/').ok_or(InvalidPointer::Form)?;
        let steps = rest.split('/').map(step).collect::<Option<Vec<_>>>().ok_or(InvalidPointer::Form)?;
        if steps.len() > limits::REDACT_STEPS_MAX {
            return Err(InvalidPointer::Long);
        }
        let pointer = Self { text: text.into(), steps };
        let is_known = [
            &["request", "body"][..],
            &["request", "query"],
            &["request", "params"],
            &["request", "headers"],
            &["actor", "claims"],
            &["context"],
        ]
        .iter()
        .any(|root| pointer.is_below(root));
        match is_known {
            false => Err(InvalidPointer::Root),
            // All headers at once would hold some that the leaf has as well.
            true if pointer.is_below(&["request", "headers"]) => match pointer.header() {
                Some(_) if pointer.steps.len() == 3 => Ok(pointer),
                Some(_) | None => Err(InvalidPointer::Header),
            },
            true => Ok(pointer),
        }
    }
}

fn step(text: &str) -> Option<Step> {
    if text == "*" { Some(Step::Every) } else { unescape_step(text).map(Step::Name) }
}

/// The steps of any RFC 6901 pointer.
pub fn unescape_pointer(text: &str) -> Option<Vec<Arc<str>>> {
    text.strip_prefix('/')?.split('/').map(unescape_step).collect()
}

fn unescape_step(text: &str) -> Option<Arc<str>> {
    let mut name = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        name.push(match c {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(name.into())
}

/// Member of a redacted object: digests of the members that are not there (RFC 9901 section 4.2.4.1).
pub const DIGESTS: &str = "_sd";
/// The one member of an object that stands for a redacted element of a list (section 4.2.4.2).
pub const ELEMENT: &str = "...";

/// The pointer of a member whose name has a meaning in redacted JSON, and so may not be its own.
pub fn reserved_name(tree: &Json) -> Option<String> {
    let below =
        |step: &str, value| reserved_name(value).map(|rest: String| format!("/{}{rest}", escape_step(step)));
    match tree {
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        Json::Array(items) => items.iter().enumerate().find_map(|(at, item)| below(&at.to_string(), item)),
        Json::Object(object) => object.members().iter().find_map(|(name, value)| match is_reserved(name) {
            true => Some(format!("/{name}")),
            false => below(name, value),
        }),
    }
}

pub fn is_reserved(name: &str) -> bool {
    matches!(name, DIGESTS | ELEMENT)
}

/// One step of a pointer as RFC 6901 section 3 writes it.
pub fn escape_step(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Everything that a route keeps out of leaf and evidence. A route that keeps nothing out has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    pointers: Vec<Pointer>,
    withholds_target: bool,
}

impl Redaction {
    /// `declared` are the surface's; a `sensitive` route keeps its whole body out. `None` if that is nothing.
    ///
    /// What would give a declared place away is added: the digest of the message, and with a parameter the path.
    pub fn new(declared: &[Pointer], sensitive: bool) -> Option<Self> {
        let body = Pointer::of_names(&["request", "body"]);
        let mut pointers: Vec<Pointer> =
            declared.iter().filter(|p| !(sensitive && p.overlaps(&body))).cloned().collect();
        if sensitive {
            pointers.push(body);
        }
        if pointers.is_empty() {
            return None;
        }
        let has = |names: &[&str]| pointers.iter().any(|p| p.is_below(names));
        let (query, params) = (has(&["request", "query"]), has(&["request", "params"]));
        pointers.push(Pointer::of_names(&["request", "digest"]));
        if params {
            pointers.push(Pointer::of_names(&["request", "path"]));
        }
        Some(Self { pointers, withholds_target: query || params })
    }

    /// Places of the policy input, none inside another.
    pub fn pointers(&self) -> &[Pointer] {
        &self.pointers
    }

    /// Whether path and query are kept out of the leaf.
    pub fn withholds_target(&self) -> bool {
        self.withholds_target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        text.parse().expect(text)
    }

    #[test]
    fn a_pointer_names_a_place_of_what_the_caller_sent_or_is() {
        for text in [
            "/request/body",
            "/request/body/items/*/iban",
            "/request/query/email",
            "/request/params/id",
            "/request/headers/x-patient-id",
            "/actor/claims/mail",
            "/context",
            "/request/body/a~1b/c~0d/",
        ] {
            assert_eq!(pointer(text).as_str(), text);
        }
        for (text, why) in [
            ("", InvalidPointer::Form),
            ("request/body", InvalidPointer::Form),
            ("/request/body/a~", InvalidPointer::Form),
            ("/request/body/a~2", InvalidPointer::Form),
            ("/", InvalidPointer::Root),
            ("/request", InvalidPointer::Root),
            ("/*/body", InvalidPointer::Root),
            ("/request/*/a", InvalidPointer::Root),
            ("/request/bodyguard", InvalidPointer::Root),
            ("/request/digest", InvalidPointer::Root),
            ("/actor/id", InvalidPointer::Root),
            ("/time", InvalidPointer::Root),
            ("/request/headers", InvalidPointer::Header),
            ("/request/headers/*", InvalidPointer::Header),
            ("/request/headers/a/b", InvalidPointer::Header),
            (&format!("/request/body{}", "/a".repeat(limits::REDACT_STEPS_MAX)), InvalidPointer::Long),
            (
                &format!("/request/body/{}", "a".repeat(limits::REDACT_POINTER_BYTES_MAX)),
                InvalidPointer::Long,
            ),
        ] {
            assert_eq!(text.parse::<Pointer>(), Err(why), "{text}");
        }
    }

    #[test]
    fn steps_are_unescaped_once() {
        let steps = |text: &str| pointer(text).steps()[2].clone();
        assert_eq!(steps("/request/body/a~1b"), Step::Name("a/b".into()));
        assert_eq!(steps("/request/body/~01"), Step::Name("~1".into()));
        assert_eq!(steps("/request/body/*"), Step::Every);
        assert_eq!(steps("/request/body/**"), Step::Name("**".into()));
        assert_eq!(pointer("/request/headers/x-a"), Pointer::of_header("x-a"));
    }

    #[test]
    fn two_pointers_overlap_if_a_place_could_be_in_both() {
        for (a, b, overlaps) in [
            ("/request/body/a", "/request/body/a", true),
            ("/request/body", "/request/body/a/b", true),
            ("/request/body/*", "/request/body/a/b", true),
            ("/request/body/*/c", "/request/body/a/c", true),
            ("/request/body/*/c", "/request/body/a", true),
            ("/request/body/*/b", "/request/body/a/c", false),
            ("/request/body/ab", "/request/body/a", false),
            ("/request/query/a", "/request/body/a", false),
        ] {
            assert_eq!(pointer(a).overlaps(&pointer(b)), overlaps, "{a} {b}");
            assert_eq!(pointer(b).overlaps(&pointer(a)), overlaps, "{b} {a}");
        }
    }

    #[test]
    fn what_would_give_a_place_away_is_kept_out_with_it() {
        let of = |texts: &[&str], sensitive| {
            let declared: Vec<Pointer> = texts.iter().map(|t| pointer(t)).collect();
            let redaction = Redaction::new(&declared, sensitive)?;
            let texts: Vec<String> = redaction.pointers().iter().map(|p| p.to_string()).collect();
            Some((texts.join(" "), redaction.withholds_target()))
        };
        assert_eq!(of(&[], false), None);
        assert_eq!(of(&["/request/body/a"], false), Some(("/request/body/a /request/digest".into(), false)));
        assert_eq!(of(&["/request/query/a"], false), Some(("/request/query/a /request/digest".into(), true)));
        let params = "/request/params/a /request/digest /request/path";
        assert_eq!(of(&["/request/params/a"], false), Some((params.into(), true)));
        // The whole body, once.
        let sensitive = "/actor/claims/a /request/body /request/digest";
        assert_eq!(of(&["/request/body/a", "/actor/claims/a"], true), Some((sensitive.into(), false)));
        assert_eq!(of(&[], true), Some(("/request/body /request/digest".into(), false)));
    }
}
