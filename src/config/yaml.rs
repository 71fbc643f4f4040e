//! YAML as a tree in which every key and value knows where it stands.
//!
//! In: the bytes of a file. Out: one [`Node`], or the first place where it is not YAML. Only the plain part of
//! the language is accepted: one document, no anchors, aliases, merges or tags, text keys, bounded depth. A
//! scalar keeps its spelling: what it means is decided by the field it is given to, never by how it looks.

use granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use crate::limits;

/// A stretch of the file, for messages. Lines and columns from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub line: usize,
    pub column: usize,
    /// Characters on that line, at least 1.
    pub width: usize,
}

impl At {
    pub const START: At = At { line: 1, column: 1, width: 1 };
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `plain` is true unless it is quoted or a block.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order written; keys may repeat, which the reader refuses.
    Mapping(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub at: At,
    pub name: String,
}

/// The bytes are not YAML that is accepted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotYaml {
    pub at: At,
    pub message: String,
}

/// A collection whose end has not been seen.
enum Open {
    Sequence { at: At, items: Vec<Node> },
    Mapping { at: At, entries: Vec<(Key, Node)>, key: Option<Key> },
}

/// Reads exactly one document.
pub fn parse(text: &str) -> Result<Node, NotYaml> {
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    let mut documents = 0_usize;
    let mut parser = Parser::new_from_str_with_options(text, Options::default());
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| NotYaml {
            at: At { line: e.marker().line().max(1), column: e.marker().col() + 1, width: 1 },
            message: e.info(),
        })?;
        let at = place(&span);
        let refuse = |message: &str| Err(NotYaml { at, message: message.to_owned() });
        let finished = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return refuse("a second document begins here; the file must hold one");
                }
                continue;
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Comment(..) => continue,
            Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Anchor(..) => {
                return refuse("anchors and aliases are not accepted; write the value out");
            }
            Event::Scalar(_, _, anchor, ref tag)
            | Event::SequenceStart(_, anchor, ref tag)
            | Event::MappingStart(_, anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                return refuse("anchors and tags are not accepted; write the value out");
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= limits::CONFIG_DEPTH_MAX => {
                return refuse("nested too deeply");
            }
            Event::SequenceStart(..) => {
                open.push(Open::Sequence { at, items: Vec::new() });
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping { at, entries: Vec::new(), key: None });
                continue;
            }
            Event::Scalar(text, style, ..) => Node {
                at,
                value: Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain },
            },
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence { at, items }) => Node { at, value: Value::Sequence(items) },
                Some(Open::Mapping { at, entries, .. }) => Node { at, value: Value::Mapping(entries) },
                None => return refuse("a collection ends that did not begin"),
            },
            // The parser's enum is open: a kind of event that is not known here is nothing we accept.
            _ => return refuse("this is not accepted here"),
        };
        match open.last_mut() {
            None => root = Some(finished),
            Some(Open::Sequence { items, .. }) => items.push(finished),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                Some(name) => entries.push((name, finished)),
                None => match finished.value {
                    Value::Scalar { text, .. } => *key = Some(Key { at: finished.at, name: text }),
                    Value::Sequence(_) | Value::Mapping(_) => {
                        return Err(NotYaml {
                            at: finished.at,
                            message: "a key must be plain text".to_owned(),
                        });
                    }
                },
            },
        }
    }
    root.ok_or_else(|| NotYaml { at: At::START, message: "the file is empty".to_owned() })
}

fn place(span: &Span) -> At {
    let (start, end) = (&span.start, &span.end);
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()).max(1) } else { 1 };
    At { line: start.line().max(1), column: start.col() + 1, width }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_place_and_keeps_its_spelling() {
        let node = parse("a: 0x10\nb:\n  - \"no\"\n  - {c: no}\n").expect("plain YAML");
        let Value::Mapping(entries) = node.value else { panic!("a mapping") };
        assert_eq!(entries[0].0, Key { at: At { line: 1, column: 1, width: 1 }, name: "a".into() });
        assert_eq!(entries[0].1.at, At { line: 1, column: 4, width: 4 });
        assert_eq!(entries[0].1.value, Value::Scalar { text: "0x10".into(), plain: true });
        let Value::Sequence(items) = &entries[1].1.value else { panic!("a sequence") };
        assert_eq!(items[0].at, At { line: 3, column: 5, width: 4 });
        assert_eq!(items[0].value, Value::Scalar { text: "no".into(), plain: false });
    }

    #[test]
    fn what_is_not_plain_yaml_is_refused_with_its_place() {
        for (text, line) in [
            ("a: &x 1\nb: *x\n", 1),
            ("a: !!str 1\n", 1),
            ("a: 1\n---\nb: 1\n", 2),
            ("a: 1\n? [x]\n: 2\n", 2),
            ("a: [1\nb: 2\n", 2),
            ("", 1),
            (&format!("{}1{}", "[".repeat(40), "]".repeat(40)), 1),
        ] {
            let refused = parse(text).expect_err(text);
            assert_eq!(refused.at.line, line, "{text}: {refused:?}");
        }
    }
}
