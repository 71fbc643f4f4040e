//! Whether bytes are the RFC 8785 form of one JSON value, seen in one pass and without building the value.
//!
//! For evidence, which may hold null and fractions and be large. What is refused has another spelling, a second
//! reading (two members of one name), or no reading.

use std::cmp::Ordering;

use super::strict::NotCanonical;
use crate::limits;

/// `Ok` only for bytes that have one reading, and are the one way to write it.
pub fn canonical_json(bytes: &[u8]) -> Result<(), NotCanonical> {
    let text = std::str::from_utf8(bytes).map_err(|e| NotCanonical::Json(e.to_string()))?;
    let mut scan = Scan { text, at: 0 };
    scan.value(0)?;
    if scan.at == text.len() { Ok(()) } else { Err(NotCanonical::Form) }
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

/// A string as it stands between its quotes.
#[derive(Clone, Copy)]
struct Raw<'t> {
    text: &'t str,
    /// ASCII without escapes: its bytes sort as its UTF-16 code units do.
    plain: bool,
}

impl<'t> Scan<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, wanted: &str) -> Result<(), NotCanonical> {
        if !self.text.as_bytes()[self.at..].starts_with(wanted.as_bytes()) {
            return Err(self.unexpected());
        }
        self.at += wanted.len();
        Ok(())
    }

    fn unexpected(&self) -> NotCanonical {
        NotCanonical::Json(format!("unexpected at byte {}", self.at))
    }

    fn value(&mut self, depth: usize) -> Result<(), NotCanonical> {
        if depth > limits::EVIDENCE_DEPTH_MAX {
            return Err(NotCanonical::Json(format!("nested deeper than {depth}")));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.expect("true"),
            Some(b'f') => self.expect("false"),
            Some(b'n') => self.expect("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => Err(self.unexpected()),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), NotCanonical> {
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break self.at += 1,
                Some(_) | None => return Err(self.unexpected()),
            }
        }
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), NotCanonical> {
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut last: Option<Raw<'t>> = None;
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let name = self.string()?;
            match last.map(|last| order(last, name)) {
                None | Some(Ordering::Less) => last = Some(name),
                Some(Ordering::Equal) => {
                    return Err(NotCanonical::Json(format!("member `{}` appears twice", name.text)));
                }
                Some(Ordering::Greater) => return Err(NotCanonical::Form),
            }
            self.expect(":")?;
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break self.at += 1,
                Some(_) | None => return Err(self.unexpected()),
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Raw<'t>, NotCanonical> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut plain = true;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    at += 1 + escape_length(&bytes[at + 1..]).ok_or(NotCanonical::Form)?;
                }
                Some(0..0x20) | None => {
                    self.at = at;
                    return Err(self.unexpected());
                }
                Some(0x80..) => {
                    plain = false;
                    at += 1;
                }
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        // Quotes and backslashes are ASCII: the cuts are between characters.
        Ok(Raw { text: &self.text[start..at], plain })
    }

    fn number(&mut self) -> Result<(), NotCanonical> {
        let rest = &self.text[self.at..];
        let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let token = &rest[..rest.bytes().take_while(|b| is_part(b)).count()];
        let digits = token.strip_prefix('-').unwrap_or(token);
        // Fifteen digits are exact in a double, and written as they are.
        let is_plain = digits.len() <= 15
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (!digits.starts_with('0') || token == "0")
            && !digits.is_empty();
        if !is_plain {
            let value: f64 = token.parse().map_err(|_| self.unexpected())?;
            if !value.is_finite() {
                return Err(NotCanonical::Value);
            }
            if es6(value) != token {
                return Err(NotCanonical::Form);
            }
        }
        self.at += token.len();
        Ok(())
    }
}

/// Bytes after the backslash of the only escapes that RFC 8785 writes.
fn escape_length(after: &[u8]) -> Option<usize> {
    match after.first()? {
        b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Some(1),
        b'u' => {
            let code = after.get(1..5)?;
            let low = match code[3] {
                b @ b'0'..=b'9' => b - b'0',
                b @ b'a'..=b'f' => b - b'a' + 10,
                _ => return None,
            };
            let high = match code[2] {
                b'0' => 0,
                b'1' => 16,
                _ => return None,
            };
            // Those five have escapes of their own.
            let short = matches!(high + low, 8 | 9 | 10 | 12 | 13);
            (code[..2] == *b"00" && !short).then_some(5)
        }
        _ => None,
    }
}

/// RFC 8785 section 3.2.3: by UTF-16 code units of the names themselves.
fn order(a: Raw<'_>, b: Raw<'_>) -> Ordering {
    if a.plain && b.plain { a.text.cmp(b.text) } else { units(a.text).cmp(units(b.text)) }
}

fn units(raw: &str) -> impl Iterator<Item = u16> + '_ {
    let mut rest = raw.chars();
    let characters = std::iter::from_fn(move || match rest.next()? {
        '\\' => Some(match rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            // Four hex digits below 0x20, as `escape_length` has seen.
            'u' => (0..4).fold('\0', |code, _| {
                let digit = rest.next().and_then(|c| c.to_digit(16)).unwrap_or_default();
                char::from((u32::from(code) * 16 + digit) as u8)
            }),
            itself => itself,
        }),
        c => Some(c),
    });
    characters.flat_map(|c| {
        let mut pair = [0; 2];
        let length = c.encode_utf16(&mut pair).len();
        pair.into_iter().take(length)
    })
}

/// ECMAScript's `Number::toString`, which RFC 8785 section 3.2.2.3 prescribes.
fn es6(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    // The shortest decimal that reads back as the value, of those the nearest to it, of two the even one. The standard
    // library's own takes the upper of two.
    let mut buffer = zmij::Buffer::new();
    let (digits, point) = digits_of(buffer.format_finite(value.abs()));
    let count = digits.len() as i32;
    let zeros = |n: i32| "0".repeat(n.max(0) as usize);
    match point {
        _ if count <= point && point <= 21 => format!("{sign}{digits}{}", zeros(point - count)),
        1..=21 => format!("{sign}{}.{}", &digits[..point as usize], &digits[point as usize..]),
        -5..=0 => format!("{sign}0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{sign}{first}{dot}{rest}e{}{}", if point > 0 { "+" } else { "-" }, (point - 1).abs())
        }
    }
}

/// The digits of a decimal text without zeros at either end; its value is 0.digits times ten to the second.
fn digits_of(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let significant = all.trim_start_matches('0');
    let leading = (all.len() - significant.len()) as i32;
    let point = whole.len() as i32 - leading + exponent.parse::<i32>().unwrap_or_default();
    (significant.trim_end_matches('0').to_owned(), point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn canonical(value: &Value) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(value).expect("canonical")
    }

    #[test]
    fn other_spellings_are_refused() {
        for good in [
            r#"{"a":[1,-2,true,false,null,"\n\u001f\"\\é😀\u007f"],"b":{},"c":[]}"#,
            r#"{"":0,"\u0000":1,"\b":2,"\r":3,"1":4,"\\":5,"a":6,"ö":7,"😀":8,"דּ":9}"#,
            "0",
            "-1",
            "9007199254740993000",
            "1e+21",
            "1e-7",
            "0.000001",
            "333333333.3333333",
        ] {
            let value: Value = serde_json::from_str(good).expect("json");
            let is_canonical = canonical(&value) == good.as_bytes();
            assert_eq!(canonical_json(good.as_bytes()).is_ok(), is_canonical, "{good}");
        }
        for bad in [
            "",
            " 1",
            "1 ",
            "{}{}",
            "{} ",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\" :1}",
            "{\"a\":1,\"a\":2}",
            "{\"b\":1,\"a\":2}",
            "{\"a\":1 }",
            "\"a",
            "\"\u{1}\"",
            r#""\u0041""#,
            r#""\/""#,
            r#""\u001F""#,
            r#""\u000a""#,
            r#""\u0008""#,
            r#""\ud83d\ude00""#,
            "1.0",
            "01",
            "-0",
            "-",
            "+1",
            "1e2",
            "1E400",
            "1e400",
            "0.10",
            ".5",
            "1.",
            "1e21",
            "--1",
            "1-1",
            "nul",
            "truee",
            "[",
            "{",
            "{\"a\"",
            "{1:2}",
            "10000000000000000000000",
            "9007199254740993",
        ] {
            assert!(canonical_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(canonical_json(b"\"\xff\"").is_err());
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(canonical_json(deep(limits::EVIDENCE_DEPTH_MAX).as_bytes()).is_ok());
        assert!(canonical_json(deep(limits::EVIDENCE_DEPTH_MAX + 2).as_bytes()).is_err());
        assert!(canonical_json(deep(1_000_000).as_bytes()).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn of_two_shortest_decimals_the_even_one_is_canonical() {
        for even in ["2044857308941158.2", "-1899670229078958.2"] {
            assert_eq!(canonical_json(even.as_bytes()), Ok(()), "{even}");
        }
        assert_eq!(canonical_json(b"2044857308941158.3"), Err(NotCanonical::Form));
    }

    proptest! {
        #[test]
        fn what_an_independent_canonicalizer_writes_passes_and_nothing_near_it_does(
            value in any_json(), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let bytes = canonical(&value);
            prop_assert_eq!(canonical_json(&bytes), Ok(()), "{}", String::from_utf8_lossy(&bytes));
            let mut bent = bytes.clone();
            let at = at.index(bent.len());
            bent[at] ^= 1 << bit;
            // The bent text passes only if it is the canonical form of some other value.
            let reads: Option<Value> = serde_json::from_slice(&bent).ok();
            let is_canonical = reads.is_some_and(|v| canonical(&v) == bent);
            prop_assert_eq!(canonical_json(&bent).is_ok(), is_canonical, "{}", String::from_utf8_lossy(&bent));
        }
    }
}
