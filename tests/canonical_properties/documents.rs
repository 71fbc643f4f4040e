//! The strict reader against `serde_json`, and the writer against an RFC 8785 implementation, on more than a
//! million documents from a seeded generator, broken ones included.
//!
//! What `serde_json` takes, we take, but for exactly two kinds of text: a member name that appears twice, and
//! a number whose decimal value its RFC 8785 form would change. Both are decided here by other means than the
//! reader's. What `serde_json` refuses, we refuse, with no difference allowed.

use std::collections::HashSet;
use std::fmt;

use interlock::canonical::json::{self, Bounds};
use interlock::model::ReasonCode;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Source;

const DOCUMENTS: u64 = 1_050_000;
const THREADS: u64 = 4;

#[test]
fn a_million_documents_are_read_and_written_as_the_oracles_do() {
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                let mut source = Source::new(thread + 1);
                for _ in 0..DOCUMENTS / THREADS {
                    let mut document = Vec::new();
                    write_value(&mut source, 0, &mut document);
                    if source.one_in(2) {
                        spoil(&mut source, &mut document);
                    }
                    seen.count(compare(&document));
                }
                seen
            })
        })
        .collect();
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().expect("every document compares equal");
        all = Seen {
            taken: all.taken + seen.taken,
            invalid: all.invalid + seen.invalid,
            repeated: all.repeated + seen.repeated,
            inexact: all.inexact + seen.inexact,
        };
    }
    // The generator reaches every outcome often, or the comparison would prove little.
    assert!(all.taken > 300_000 && all.invalid > 100_000, "{all:?}");
    assert!(all.repeated > 10_000 && all.inexact > 10_000, "{all:?}");
}

#[derive(Debug, Default)]
struct Seen {
    taken: u64,
    invalid: u64,
    repeated: u64,
    inexact: u64,
}

impl Seen {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Taken => self.taken += 1,
            Outcome::Invalid => self.invalid += 1,
            Outcome::Repeated => self.repeated += 1,
            Outcome::Inexact => self.inexact += 1,
        }
    }
}

enum Outcome {
    Taken,
    Invalid,
    Repeated,
    Inexact,
}

fn compare(document: &[u8]) -> Outcome {
    let ours = json::parse(document, Bounds::BODY);
    let shown = || String::from_utf8_lossy(document).into_owned();
    let Ok(theirs) = serde_json::from_slice::<serde_json::Value>(document) else {
        // An overflowing number is the one thing that is an error there and has its own name here.
        let code = ours.expect_err(&shown()).code;
        assert!(
            matches!(
                code,
                ReasonCode::JsonInvalid
                    | ReasonCode::JsonNotUtf8
                    | ReasonCode::JsonByteOrderMark
                    | ReasonCode::JsonLoneSurrogate
                    | ReasonCode::JsonTrailing
                    | ReasonCode::JsonNumberInexact
                    | ReasonCode::JsonDuplicateName
            ),
            "{code}: {}",
            shown()
        );
        return Outcome::Invalid;
    };
    let has_repeated =
        serde_json::from_slice::<Names>(document).expect("serde_json has read it before").repeated;
    let has_inexact = numbers_of(document).iter().any(|lexeme| !is_exact(lexeme));
    match ours {
        Ok(value) => {
            assert!(!has_repeated && !has_inexact, "taken: {}", shown());
            let written = json::write(&value);
            let expected = serde_json_canonicalizer::to_vec(&theirs).expect("a value");
            assert_eq!(
                String::from_utf8_lossy(&written),
                String::from_utf8_lossy(&expected),
                "written: {}",
                shown()
            );
            // Idempotent: the one form is read back as the same value, and written as the same bytes.
            let again = json::parse(&written, Bounds::BODY).expect("its own form");
            assert!(again == value && json::write(&again) == written, "again: {}", shown());
            Outcome::Taken
        }
        Err(refused) if refused.code == ReasonCode::JsonDuplicateName => {
            assert!(has_repeated, "no name is repeated: {}", shown());
            Outcome::Repeated
        }
        Err(refused) => {
            assert_eq!(refused.code, ReasonCode::JsonNumberInexact, "{}", shown());
            assert!(has_inexact, "every number is exact: {}", shown());
            Outcome::Inexact
        }
    }
}

/// Whether any object of a document repeats a name.
struct Names {
    repeated: bool,
}

const NONE: Names = Names { repeated: false };

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Names, E> {
                Ok(NONE)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Names, E> {
                Ok(NONE)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Names, E> {
                Ok(NONE)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Names, E> {
                Ok(NONE)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Names, E> {
                Ok(NONE)
            }
            fn visit_str<E>(self, _: &str) -> Result<Names, E> {
                Ok(NONE)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut repeated = false;
                while let Some(item) = seq.next_element::<Names>()? {
                    repeated |= item.repeated;
                }
                Ok(Names { repeated })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut repeated = false;
                let mut names = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, Names>()? {
                    repeated |= value.repeated || !names.insert(name);
                }
                Ok(Names { repeated })
            }
        }
        d.deserialize_any(Walk)
    }
}

/// The numbers of a valid document, as they stand in it.
fn numbers_of(document: &[u8]) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < document.len() {
        match document[at] {
            b'"' => {
                at += 1;
                while document[at] != b'"' {
                    at += if document[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let rest = &document[at..];
                let is_part = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
                found.push(std::str::from_utf8(&rest[..length]).expect("ASCII"));
                at += length;
            }
            _ => at += 1,
        }
    }
    found
}

/// The definition, with the oracle's digits and with strings in place of the reader's. (Not the standard
/// library's digits: of two shortest decimals equally near to a double, ECMAScript takes the even one.)
fn is_exact(lexeme: &str) -> bool {
    let value: f64 = lexeme.parse().expect("a number");
    let printed = serde_json_canonicalizer::to_string(&value);
    value.is_finite() && normal(lexeme) == normal(&printed.expect("a finite number"))
}

/// Significant digits, and the power of ten of the last one.
fn normal(lexeme: &str) -> (String, i128) {
    let text = lexeme.trim_start_matches('-').to_ascii_lowercase();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let stripped = digits.trim_end_matches('0');
    let last = exponent.parse::<i128>().expect("an exponent") - fraction.len() as i128
        + (digits.len() - stripped.len()) as i128;
    let significant = stripped.trim_start_matches('0');
    if significant.is_empty() { (String::new(), 0) } else { (significant.to_owned(), last) }
}

fn write_value(source: &mut Source, depth: u64, out: &mut Vec<u8>) {
    space(source, out);
    let kinds = if depth < 4 { 10 } else { 6 };
    match source.below(kinds) {
        0..=2 => write_number(source, out),
        3..=4 => write_string(source, out),
        5 => out.extend_from_slice(source.pick(&["true", "false", "null"]).as_bytes()),
        6..=7 => write_items(source, b"[]", out, |source, out| write_value(source, depth + 1, out)),
        _ => write_items(source, b"{}", out, |source, out| {
            space(source, out);
            write_string(source, out);
            space(source, out);
            out.push(b':');
            write_value(source, depth + 1, out);
        }),
    }
    space(source, out);
}

fn write_items(
    source: &mut Source,
    brackets: &[u8; 2],
    out: &mut Vec<u8>,
    item: impl Fn(&mut Source, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for i in 0..source.below(5) {
        if i > 0 {
            out.push(b',');
        }
        item(source, out);
    }
    out.push(brackets[1]);
}

fn space(source: &mut Source, out: &mut Vec<u8>) {
    if source.one_in(8) {
        out.extend_from_slice(source.pick(&[" ", "\n", "\r\n", "\t", "  "]).as_bytes());
    }
}

fn write_string(source: &mut Source, out: &mut Vec<u8>) {
    const PIECES: &[&str] = &[
        "a",
        "b",
        "c",
        "id",
        "amount",
        "x",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u0061",
        "\\u0000",
        "\\u001F",
        "é",
        "€",
        "\u{1f600}",
        "\\uD83D\\uDE00",
        "\u{fb33}",
        "\\uFB33",
        "\u{7f}",
        "\u{2028}",
        "\\b\\f\\r\\t",
        " ",
        "1",
        "e5",
        "[",
        "}",
        ",",
        ":",
    ];
    out.push(b'"');
    for _ in 0..source.below(4) {
        out.extend_from_slice(source.pick(PIECES).as_bytes());
    }
    out.push(b'"');
}

fn write_number(source: &mut Source, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let any = f64::from_bits(source.next());
    let any = if any.is_finite() { any } else { 0.5 };
    match source.below(9) {
        0 => write!(out, "{}", source.below(1000)),
        1 => write!(out, "-{}.{:02}", source.below(100_000), source.below(100)),
        // Any double, shortest, in both layouts of the standard library.
        2 => write!(out, "{any:e}"),
        3 if any.abs() < 1e40 && any.abs() > 1e-40 => write!(out, "{any}"),
        // Any double with 17 digits, which often are not the shortest ones.
        3 | 4 => write!(out, "{any:.16e}"),
        // Whole numbers around 2^53 and up to 2^64.
        5 => write!(out, "{}", (1_u64 << 53) - 50 + source.below(100)),
        6 => write!(out, "{}", source.next() >> source.below(64)),
        // Anything of the grammar, overflow and underflow included.
        7 => {
            let (whole, fraction, zeros) = (source.next() >> 30, source.below(1_000_000), source.below(4));
            let zeros = "0".repeat(zeros as usize);
            let letter = source.pick(&["e", "E", "e+", "E-", "e-0"]);
            write!(out, "{whole}.{zeros}{fraction}{zeros}{letter}{}", source.below(360))
        }
        _ => write!(
            out,
            "{}",
            source.pick(&["-0", "0", "0.0", "-0.0e0", "0e999", "1E400", "5e-324", "1e-400", "1e23"])
        ),
    }
    .expect("a vector takes every write");
}

/// One to three random changes: bytes changed, removed, added, doubled, or the end cut off.
fn spoil(source: &mut Source, document: &mut Vec<u8>) {
    const BYTES: &[u8] = b"\"\\{}[]:,-+.eE0123456789tfnu \n\x00\x1f\x7f\x80\xbf\xc3\xed\xef\xff";
    for _ in 0..=source.below(2) {
        if document.is_empty() {
            return;
        }
        let at = source.below(document.len() as u64) as usize;
        let byte = BYTES[source.below(BYTES.len() as u64) as usize];
        match source.below(6) {
            0 => document[at] = byte,
            1 => drop(document.remove(at)),
            2 => document.insert(at, byte),
            3 => document.insert(at, document[at]),
            4 => document[at] ^= 1 << source.below(8),
            _ => document.truncate(at),
        }
    }
}
