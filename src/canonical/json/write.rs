//! RFC 8785: no spaces, members sorted, the shortest escapes.

use super::number;
use crate::model::Json;

/// The RFC 8785 form.
pub fn write(value: &Json) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(true) => out.extend_from_slice(b"true"),
        Json::Bool(false) => out.extend_from_slice(b"false"),
        Json::Number(n) => number::write(*n, out),
        Json::String(text) => write_string(text, out),
        Json::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        Json::Object(object) => {
            out.push(b'{');
            // The type keeps its members in the order of RFC 8785 section 3.2.3.
            for (i, (name, value)) in object.members().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_value(value, out);
            }
            out.push(b'}');
        }
    }
}

/// Section 3.2.2.2: only `"`, `\` and the controls below space are escaped.
fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_escape_what_rfc_8785_escapes_and_nothing_else() {
        let all: String = (0..0x20).map(char::from).chain("\"\\/\u{7f}é\u{1f600}\u{2028}".chars()).collect();
        let expected = concat!(
            r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f"#,
            r#"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f"#,
            "\\\"\\\\/\u{7f}é\u{1f600}\u{2028}\""
        );
        assert_eq!(String::from_utf8(write(&Json::string(&all))).expect("UTF-8"), expected);
    }

    #[test]
    fn containers_have_no_spaces() {
        let value = Json::object([
            ("b", Json::Array(vec![Json::Null, Json::Bool(true), Json::Bool(false)])),
            ("a", Json::object([])),
            ("c", Json::Array(vec![])),
        ]);
        assert_eq!(write(&value), br#"{"a":{},"b":[null,true,false],"c":[]}"#);
    }
}
