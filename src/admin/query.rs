//! What `GET /receipts` is asked for: parameters read strictly, each at most once.

use std::str::FromStr;

use super::problem::Refusal;
use crate::clock::WallTime;
use crate::model::{ActorId, IdempotencyKey, LeafIndex};

/// Which leaves, from where on, and whether to go on with those to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Index of the first leaf.
    pub since: LeafIndex,
    pub follow: bool,
    pub filter: Filter,
}

/// Only leaves that fit all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub actor: Option<ActorId>,
    pub idempotency_key: Option<IdempotencyKey>,
    /// From this time on.
    pub from: Option<WallTime>,
    /// Before this time.
    pub until: Option<WallTime>,
}

impl Filter {
    pub fn admits_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Of a list: only what comes after this leaf.
pub fn after(query: Option<&str>) -> Result<Option<LeafIndex>, Refusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let (name, value) = query.split_once('=').unwrap_or((query, ""));
    let refuse = |detail: &str| Refusal::Parameter { name: name.to_owned(), detail: detail.to_owned() };
    if name != "after" {
        return Err(refuse("Expected `after`."));
    }
    index(value).map(|index| Some(LeafIndex(index))).ok_or_else(|| refuse("An index: digits."))
}

impl Wanted {
    pub fn parse(query: Option<&str>) -> Result<Self, Refusal> {
        let mut wanted = Self { since: LeafIndex(0), follow: false, filter: Filter::default() };
        let mut seen: Vec<String> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let refuse =
                |detail: &str| Refusal::Parameter { name: name.to_owned(), detail: detail.to_owned() };
            if seen.iter().any(|other| other == name) {
                return Err(refuse("It stands here twice."));
            }
            seen.push(name.to_owned());
            let value = decode(value).ok_or_else(|| refuse("Its value is not percent-encoded UTF-8."))?;
            match name {
                "since" => {
                    wanted.since = LeafIndex(index(&value).ok_or_else(|| refuse("An index: digits."))?)
                }
                "follow" => {
                    wanted.follow = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err(refuse("`true` or `false`.")),
                    };
                }
                "actor" => wanted.filter.actor = Some(named(&value).map_err(|rule| refuse(&rule))?),
                "idempotency_key" => {
                    wanted.filter.idempotency_key = Some(named(&value).map_err(|rule| refuse(&rule))?);
                }
                "from" => wanted.filter.from = Some(time(&value).ok_or_else(|| refuse(TIME))?),
                "until" => wanted.filter.until = Some(time(&value).ok_or_else(|| refuse(TIME))?),
                _ => {
                    return Err(refuse(
                        "Expected `since`, `follow`, `actor`, `idempotency_key`, `from` or `until`.",
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

const TIME: &str = "An RFC 3339 time, such as `2026-11-20T13:00:00Z`.";

/// One spelling of a number: no sign, no leading zeros.
fn index(text: &str) -> Option<u64> {
    text.parse().ok().filter(|index: &u64| index.to_string() == text)
}

fn time(text: &str) -> Option<WallTime> {
    WallTime::parse_rfc3339(text)
}

fn named<T: FromStr<Err = crate::model::InvalidName>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|invalid: crate::model::InvalidName| invalid.to_string())
}

/// RFC 3986 section 2.1. A plus sign means itself: nothing that is asked for here has a space in it, and times have
/// plus signs.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
        match byte {
            b'%' => bytes.push((digit()? << 4 | digit()?) as u8),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_read() {
        let query = "since=7&follow=true&actor=spiffe%3A%2F%2Fa/b&idempotency_key=k%25&from=2026-11-20T15:00:00+02:00&\
                     until=2026-11-20T13%3A00%3A01Z";
        let expected = Wanted {
            since: LeafIndex(7),
            follow: true,
            filter: Filter {
                actor: Some("spiffe://a/b".parse().expect("an id")),
                idempotency_key: Some("k%".parse().expect("a key")),
                from: WallTime::parse_rfc3339("2026-11-20T13:00:00Z"),
                until: WallTime::parse_rfc3339("2026-11-20T13:00:01Z"),
            },
        };
        assert_eq!(Wanted::parse(Some(query)).expect("valid"), expected);
        let all = Wanted::parse(None).expect("valid");
        assert!(all.since == LeafIndex(0) && !all.follow && all.filter.admits_all());
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (query, name) in [
            ("since=-1", "since"),
            ("since=+1", "since"),
            ("since=01", "since"),
            ("since=", "since"),
            ("since=18446744073709551616", "since"),
            ("since=1&since=1", "since"),
            ("follow=yes", "follow"),
            ("follow", "follow"),
            ("actor=", "actor"),
            ("actor=a%20b", "actor"),
            ("actor=%zz", "actor"),
            ("actor=%c3", "actor"),
            ("actor=%a", "actor"),
            ("idempotency_key=", "idempotency_key"),
            ("from=yesterday", "from"),
            ("until=2026-11-20", "until"),
            ("sinse=1", "sinse"),
            ("Since=1", "Since"),
        ] {
            let refused = Wanted::parse(Some(query)).expect_err(query);
            assert!(
                matches!(&refused, Refusal::Parameter { name: n, .. } if n == name),
                "{query}: {refused:?}"
            );
        }
    }
}
