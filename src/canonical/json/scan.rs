//! The reader: one pass over the text, recursion no deeper than the bound.

use std::sync::Arc;

use super::{Bounds, number};
use crate::canonical::Malformed;
use crate::model::{Json, Object, Place, ReasonCode};

pub(super) fn document(bytes: &[u8], bounds: Bounds) -> Result<Json, Malformed> {
    let at_byte = |code, at: usize| Malformed::new(code, Place::BodyByte(at as u64));
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(at_byte(ReasonCode::JsonByteOrderMark, 0));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| at_byte(ReasonCode::JsonNotUtf8, e.valid_up_to()))?;
    let mut scanner = Scanner { text, at: 0, values_left: bounds.values_max, names: Vec::new() };
    scanner.space();
    let value = scanner.value(bounds.depth_max).map_err(|fault| fault.into_malformed())?;
    scanner.space();
    match scanner.peek() {
        None => Ok(value),
        Some(_) => Err(at_byte(ReasonCode::JsonTrailing, scanner.at)),
    }
}

/// A refusal on its way up: every level adds the step that leads down to it.
struct Fault {
    code: ReasonCode,
    at: usize,
    detail: &'static str,
    /// Steps of the pointer, innermost first.
    steps: Vec<String>,
}

impl Fault {
    fn below(mut self: Box<Self>, step: impl Into<String>) -> Box<Self> {
        self.steps.push(step.into());
        self
    }

    fn into_malformed(self) -> Malformed {
        let mut pointer = String::new();
        for step in self.steps.iter().rev() {
            // RFC 6901 section 3.
            pointer.push('/');
            pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        Malformed::new(self.code, Place::Json { byte: self.at as u64, pointer }).because(self.detail)
    }
}

type Scanned<T> = Result<T, Box<Fault>>;

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    values_left: usize,
    /// Where the member names of the open objects begin, outermost first.
    names: Vec<usize>,
}

impl Scanner<'_> {
    /// `depth_left` more containers may open.
    fn value(&mut self, depth_left: usize) -> Scanned<Json> {
        self.count()?;
        match self.peek() {
            Some(b'{') => self.object(depth_left),
            Some(b'[') => self.array(depth_left),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(_) => Err(self.invalid("A value was expected.")),
            None => Err(self.invalid("The text ends where a value was expected.")),
        }
    }

    fn object(&mut self, depth_left: usize) -> Scanned<Json> {
        let depth_left = self.open(depth_left)?;
        let first_name = self.names.len();
        let mut members = Vec::new();
        if self.peek() != Some(b'}') {
            loop {
                self.space();
                members.push(self.member(depth_left)?);
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break,
                    _ => return Err(self.invalid("A comma or the end of the object was expected.")),
                }
            }
        }
        self.at += 1;
        let object = Object::new(members).map_err(|name| self.named_twice(first_name, &name))?;
        self.names.truncate(first_name);
        Ok(Json::Object(object))
    }

    fn member(&mut self, depth_left: usize) -> Scanned<(Arc<str>, Json)> {
        if self.peek() != Some(b'"') {
            return Err(self.invalid("A member name was expected."));
        }
        self.count()?;
        self.names.push(self.at);
        let name = self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.invalid("A colon was expected after a member name."));
        }
        self.at += 1;
        self.space();
        match self.value(depth_left) {
            Ok(value) => Ok((name, value)),
            Err(fault) => Err(fault.below(&*name)),
        }
    }

    fn array(&mut self, depth_left: usize) -> Scanned<Json> {
        let depth_left = self.open(depth_left)?;
        let mut items = Vec::new();
        if self.peek() != Some(b']') {
            loop {
                self.space();
                match self.value(depth_left) {
                    Ok(item) => items.push(item),
                    Err(fault) => return Err(fault.below(items.len().to_string())),
                }
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break,
                    _ => return Err(self.invalid("A comma or the end of the array was expected.")),
                }
            }
        }
        self.at += 1;
        Ok(Json::Array(items))
    }

    /// Past an opening bracket and the space after it.
    fn open(&mut self, depth_left: usize) -> Scanned<usize> {
        let Some(left) = depth_left.checked_sub(1) else {
            return Err(self.fault(
                ReasonCode::JsonTooDeep,
                self.at,
                "Arrays and objects are nested too deep.",
            ));
        };
        self.at += 1;
        self.space();
        Ok(left)
    }

    fn number(&mut self) -> Scanned<Json> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let leading_zero = self.peek() == Some(b'0');
        let whole_digits = self.digits()?;
        if leading_zero && whole_digits > 1 {
            return Err(self.fault(ReasonCode::JsonInvalid, start, "A number has no leading zeros."));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        match number::read(&self.text[start..self.at]) {
            Some(number) => Ok(Json::Number(number)),
            None => {
                let detail = "The number is not the shortest decimal of any double.";
                Err(self.fault(ReasonCode::JsonNumberInexact, start, detail))
            }
        }
    }

    /// One digit or more; how many.
    fn digits(&mut self) -> Scanned<usize> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        match self.at - start {
            0 => Err(self.invalid("A digit was expected.")),
            count => Ok(count),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Scanned<Json> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.invalid("A value was expected."));
        }
        self.at += word.len();
        Ok(value)
    }

    /// At an opening quote. Slices begin and end next to ASCII bytes, so never inside a character.
    fn string(&mut self) -> Scanned<Arc<str>> {
        let text = self.text;
        self.at += 1;
        let start = self.at;
        self.plain_characters();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(text[start..self.at - 1].into());
        }
        let mut unescaped = String::from(&text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(unescaped.into());
                }
                Some(b'\\') => unescaped.push(self.escape()?),
                Some(_) => return Err(self.invalid("A control character in a string must be escaped.")),
                None => return Err(self.invalid("The text ends inside a string.")),
            }
            let start = self.at;
            self.plain_characters();
            unescaped.push_str(&text[start..self.at]);
        }
    }

    fn plain_characters(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let is_special = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
        self.at += rest.iter().position(is_special).unwrap_or(rest.len());
    }

    /// At a backslash.
    fn escape(&mut self) -> Scanned<char> {
        let start = self.at;
        let letter = self.text.as_bytes().get(start + 1).copied();
        self.at += 2;
        Ok(match letter {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => return Err(self.fault(ReasonCode::JsonInvalid, start, "No such escape exists.")),
        })
    }

    /// Past `\u`, which stands at `start`.
    fn unicode_escape(&mut self, start: usize) -> Scanned<char> {
        let mut units = [self.hex_unit(start)?, 0];
        let mut count = 1;
        if (0xd800..0xdc00).contains(&units[0]) && self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            let second = self.at;
            self.at += 2;
            units[1] = self.hex_unit(second)?;
            count = 2;
        }
        match char::decode_utf16(units[..count].iter().copied()).next() {
            Some(Ok(character)) => Ok(character),
            _ => Err(self.fault(ReasonCode::JsonLoneSurrogate, start, "The other half does not follow.")),
        }
    }

    fn hex_unit(&mut self, start: usize) -> Scanned<u16> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let unit = digits.iter().try_fold(0, |unit: u16, d| {
            let digit = char::from(*d).to_digit(16)?;
            Some(unit << 4 | digit as u16)
        });
        match unit {
            Some(unit) if !digits.is_empty() => {
                self.at += 4;
                Ok(unit)
            }
            _ => Err(self.fault(ReasonCode::JsonInvalid, start, "`\\u` needs four hex digits.")),
        }
    }

    /// Values and names are counted as they begin.
    fn count(&mut self) -> Scanned<()> {
        match self.values_left.checked_sub(1) {
            Some(left) => {
                self.values_left = left;
                Ok(())
            }
            None => Err(self.fault(ReasonCode::JsonTooManyMembers, self.at, "There are too many values.")),
        }
    }

    /// The second member called `name` of the object whose names begin at `first_name`.
    fn named_twice(&mut self, first_name: usize, name: &str) -> Box<Fault> {
        let places = self.names.split_off(first_name);
        let mut twins = places.into_iter().filter(|&at| {
            self.at = at;
            self.string().is_ok_and(|n| &*n == name)
        });
        let at = twins.nth(1).expect("an object that has a name twice has a second one");
        self.fault(ReasonCode::JsonDuplicateName, at, "The name has appeared in this object before.")
            .below(name)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn invalid(&self, detail: &'static str) -> Box<Fault> {
        self.fault(ReasonCode::JsonInvalid, self.at, detail)
    }

    fn fault(&self, code: ReasonCode, at: usize, detail: &'static str) -> Box<Fault> {
        Box::new(Fault { code, at, detail, steps: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::json::write;

    const BOUNDS: Bounds = Bounds { depth_max: 3, values_max: 12 };

    fn one_form(text: &str) -> Result<String, Malformed> {
        document(text.as_bytes(), BOUNDS).map(|value| String::from_utf8(write(&value)).expect("UTF-8"))
    }

    fn refusal(text: &[u8]) -> (ReasonCode, Option<Place>) {
        let malformed = document(text, BOUNDS).expect_err("refused");
        (malformed.code, malformed.place)
    }

    #[test]
    fn what_has_one_reading_is_written_in_one_form() {
        for (text, form) in [
            (" {\"b\" : [ 1 , 2.50 ] ,\t\"a\":\r\n{ } } ", r#"{"a":{},"b":[1,2.5]}"#),
            ("[true,false,null,[ ],-0,1E2]", "[true,false,null,[],0,100]"),
            (r#""\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00\u000a""#, "\"\\\"\\\\/\\b\\f\\n\\r\\té\u{1f600}\\n\""),
            (r#""aé\nbé""#, "\"aé\\nbé\""),
            ("\"\u{7f}\"", "\"\u{7f}\""),
            ("0", "0"),
            (r#"{"\u0061":1,"A":2,"":3}"#, r#"{"":3,"A":2,"a":1}"#),
            (r#"{"a":{"x":1},"b":{"x":1}}"#, r#"{"a":{"x":1},"b":{"x":1}}"#),
        ] {
            assert_eq!(one_form(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_pointer_and_byte() {
        use ReasonCode::{JsonDuplicateName, JsonInvalid, JsonLoneSurrogate, JsonNumberInexact};
        for (text, code, pointer, byte) in [
            ("", JsonInvalid, "", 0),
            (" ", JsonInvalid, "", 1),
            ("{", JsonInvalid, "", 1),
            ("{]", JsonInvalid, "", 1),
            ("{\"a\"}", JsonInvalid, "", 4),
            ("{\"a\":}", JsonInvalid, "/a", 5),
            ("{\"a\":1", JsonInvalid, "", 6),
            ("{\"a\":1,}", JsonInvalid, "", 7),
            ("{\"a\":1 \"b\":2}", JsonInvalid, "", 7),
            ("{a:1}", JsonInvalid, "", 1),
            ("[1,]", JsonInvalid, "/1", 3),
            ("[1 2]", JsonInvalid, "", 3),
            ("[1", JsonInvalid, "", 2),
            ("[1}", JsonInvalid, "", 2),
            ("[,1]", JsonInvalid, "/0", 1),
            ("[tru]", JsonInvalid, "/0", 1),
            ("[nul", JsonInvalid, "/0", 1),
            ("[False]", JsonInvalid, "/0", 1),
            ("fals", JsonInvalid, "", 0),
            ("NaN", JsonInvalid, "", 0),
            ("'a'", JsonInvalid, "", 0),
            ("[01]", JsonInvalid, "/0", 1),
            ("[-01]", JsonInvalid, "/0", 1),
            ("[-]", JsonInvalid, "/0", 2),
            ("[+1]", JsonInvalid, "/0", 1),
            ("[.5]", JsonInvalid, "/0", 1),
            ("[1.]", JsonInvalid, "/0", 3),
            ("[1.e2]", JsonInvalid, "/0", 3),
            ("[1e]", JsonInvalid, "/0", 3),
            ("[1e+]", JsonInvalid, "/0", 4),
            ("[\"a", JsonInvalid, "/0", 3),
            ("[\"a\\", JsonInvalid, "/0", 3),
            ("[\"a\nb\"]", JsonInvalid, "/0", 3),
            ("[\"\u{1f}\"]", JsonInvalid, "/0", 2),
            ("[\"\\n\u{0}\"]", JsonInvalid, "/0", 4),
            ("[\"\\n", JsonInvalid, "/0", 4),
            (r#"["\x41"]"#, JsonInvalid, "/0", 2),
            (r#"["a\u00g0"]"#, JsonInvalid, "/0", 3),
            (r#"["\u12"]"#, JsonInvalid, "/0", 2),
            (r#"["\u123"#, JsonInvalid, "/0", 2),
            (r#"["\ud83d\u12"]"#, JsonInvalid, "/0", 8),
            (r#"["\ud83d"]"#, JsonLoneSurrogate, "/0", 2),
            (r#"["\ud83dx"]"#, JsonLoneSurrogate, "/0", 2),
            (r#"["\ud83d\n"]"#, JsonLoneSurrogate, "/0", 2),
            (r#"["\ud83d\u0041"]"#, JsonLoneSurrogate, "/0", 2),
            (r#"["\ud83d\ud83d"]"#, JsonLoneSurrogate, "/0", 2),
            (r#"["a\ude00"]"#, JsonLoneSurrogate, "/0", 3),
            (r#"["\uDBFF\uDBFF"]"#, JsonLoneSurrogate, "/0", 2),
            (r#"{"\ud800":1}"#, JsonLoneSurrogate, "", 2),
            ("{\"a\":[0,9007199254740993]}", JsonNumberInexact, "/a/1", 8),
            ("{\"a/b~c\":{\"\":1e400}}", JsonNumberInexact, "/a~1b~0c/", 13),
            ("{\"a\":1,\"b\":2,\"\\u0061\":3}", JsonDuplicateName, "/a", 13),
            ("{\"c\":{\"b\":1,\"a\":[0],\"b\":1,\"b\":2}}", JsonDuplicateName, "/c/b", 20),
            ("[{\"x\":{\"a\":1},\"y\":1,\"x\":{\"a\":2}}]", JsonDuplicateName, "/0/x", 20),
        ] {
            let place = Place::Json { byte, pointer: pointer.into() };
            assert_eq!(refusal(text.as_bytes()), (code, Some(place)), "{text}");
        }
    }

    #[test]
    fn what_surrounds_or_spoils_the_whole_text_is_refused_by_its_byte() {
        for (text, code, at) in [
            (&b"\xef\xbb\xbf{}"[..], ReasonCode::JsonByteOrderMark, 0),
            (b"{\"a\":\"\xff\"}", ReasonCode::JsonNotUtf8, 6),
            (b"\"\xed\xa0\x80\"", ReasonCode::JsonNotUtf8, 1),
            (b"\"\xc0\xaf\"", ReasonCode::JsonNotUtf8, 1),
            (b"{} {}", ReasonCode::JsonTrailing, 3),
            (b"1\0", ReasonCode::JsonTrailing, 1),
            (b"nullx", ReasonCode::JsonTrailing, 4),
        ] {
            assert_eq!(refusal(text), (code, Some(Place::BodyByte(at))), "{text:?}");
        }
    }

    #[test]
    fn depth_and_values_are_bounded() {
        assert!(one_form("[{\"a\":[1]}]").is_ok());
        let deep = Place::Json { byte: 7, pointer: "/0/a/0".into() };
        assert_eq!(refusal(b"[{\"a\":[[]]}]"), (ReasonCode::JsonTooDeep, Some(deep)));
        let deep = Place::Json { byte: 3, pointer: "/0/0/0".into() };
        assert_eq!(refusal(b"[[[{}]]]"), (ReasonCode::JsonTooDeep, Some(deep)));
        // Siblings do not add up to depth.
        assert!(one_form("[[],[],[[]],{},{}]").is_ok());
        assert!(one_form("[1,2,3,4,5,6,7,8,9,10,11]").is_ok());
        let many = Place::Json { byte: 26, pointer: "/11".into() };
        assert_eq!(refusal(b"[1,2,3,4,5,6,7,8,9,10,11, 12]"), (ReasonCode::JsonTooManyMembers, Some(many)));
        // One object, five names, five values, and one name too many after another value.
        assert!(one_form(r#"[{"a":1,"b":2,"c":3,"d":4,"e":5}]"#).is_ok());
        let many = Place::Json { byte: 33, pointer: "/0".into() };
        let text = br#"[{"a":1,"b":2,"c":3,"d":4,"e":5, "f":6}]"#;
        assert_eq!(refusal(text), (ReasonCode::JsonTooManyMembers, Some(many)));
    }

    #[test]
    fn a_hostile_text_takes_linear_time() {
        let bounds = Bounds { depth_max: 64, values_max: usize::MAX };
        let names: Vec<String> = (0..200_000).map(|i| format!("\"{i}\":0")).collect();
        let mut text = format!("{{{}", names.join(","));
        assert!(document(format!("{text}}}").as_bytes(), bounds).is_ok());
        text.push_str(",\"199999\":0}");
        let refused = document(text.as_bytes(), bounds).expect_err("twice");
        assert_eq!(refused.code, ReasonCode::JsonDuplicateName);
        let digits = format!("0.{}1e{}", "0".repeat(1_000_000), "0".repeat(1_000_000));
        let refused = document(digits.as_bytes(), bounds).expect_err("less than the smallest double");
        assert_eq!(refused.code, ReasonCode::JsonNumberInexact);
        let open = "[".repeat(1_000_000);
        assert_eq!(document(open.as_bytes(), bounds).expect_err("deep").code, ReasonCode::JsonTooDeep);
    }
}
