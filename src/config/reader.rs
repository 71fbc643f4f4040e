//! Reads fields out of the tree and collects what is wrong with them.
//!
//! Every method reports its own problem and answers `None`, and the caller goes on: one run names every
//! problem of the file. A `None` never ends as a usable config, because [`Reader::problems`] is not empty then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::fields::{Rule, Section};
use super::problem::Problem;
use super::yaml::{At, Key, Node, Value};
use crate::limits;
use crate::model::InvalidName;

pub struct Reader<'a> {
    /// Where relative paths begin: the directory of the config file.
    pub base: &'a Path,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

/// One mapping whose field names have been checked.
pub struct Fields<'n> {
    pub at: At,
    section: &'static Section,
    by_name: BTreeMap<&'n str, (&'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    pub fn optional(&self, name: &'static str) -> Option<&'n Node> {
        self.by_name.get(name).map(|(_, node)| *node)
    }

    /// Where the field's name stands, or its mapping if it is absent.
    pub fn place(&self, name: &'static str) -> At {
        self.by_name.get(name).map_or(self.at, |(key, _)| key.at)
    }

    fn rule(&self, name: &'static str) -> Rule {
        let field = self.section.fields.iter().find(|f| f.name == name);
        field.expect("readers name only fields of their own section; every field is read by a test").rule
    }
}

impl<'a> Reader<'a> {
    pub fn new(base: &'a Path) -> Self {
        Self { base, problems: Vec::new(), warnings: Vec::new() }
    }

    pub fn error(&mut self, at: At, message: impl Into<String>) {
        self.problems.push(Problem { at, message: message.into() });
    }

    pub fn warn(&mut self, at: At, message: impl Into<String>) {
        self.warnings.push(Problem { at, message: message.into() });
    }

    /// Takes a node as one of the file's mappings; unknown, repeated and missing fields are problems.
    pub fn fields<'n>(&mut self, node: &'n Node, section: &'static Section) -> Option<Fields<'n>> {
        let known = section.fields.iter().map(|f| f.name);
        let Value::Mapping(entries) = &node.value else {
            let names: Vec<&str> = known.collect();
            let found = found(node);
            self.error(
                node.at,
                format!(
                    "{} must be a mapping with the fields {}, not {found}",
                    section.called,
                    spell(&names)
                ),
            );
            return None;
        };
        let mut by_name = BTreeMap::new();
        for (key, value) in entries {
            if !known.clone().any(|k| k == key.name) {
                self.unknown(key, section);
            } else if by_name.insert(key.name.as_str(), (key, value)).is_some() {
                self.error(key.at, format!("`{}` appears twice in {}", key.name, section.called));
            }
        }
        for field in section.fields {
            if field.rule == Rule::Required && !by_name.contains_key(field.name) {
                self.error(node.at, format!("{} needs the field `{}`", section.called, field.name));
            }
        }
        Some(Fields { at: node.at, section, by_name })
    }

    fn unknown(&mut self, key: &Key, section: &Section) {
        let names: Vec<&str> = section.fields.iter().map(|f| f.name).collect();
        let mut message = format!("unknown field `{}` in {}", key.name, section.called);
        match nearest(&key.name, &names) {
            Some(near) => message.push_str(&format!("; did you mean `{near}`?")),
            None => message.push_str(&format!("; expected {}", one_of(&names))),
        }
        self.error(key.at, message);
    }

    pub fn items<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::Sequence(items) => Some(items),
            Value::Scalar { .. } | Value::Mapping(_) => {
                self.error(node.at, format!("expected a list of {what}, not {}", found(node)));
                None
            }
        }
    }

    /// Text that is not empty.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !is_nothing(node) && !text.is_empty() => Some(text),
            Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => {
                self.error(node.at, format!("expected {what}, not {}", found(node)));
                None
            }
        }
    }

    pub fn texts<'n>(&mut self, node: &'n Node, what: &str) -> Option<Vec<(At, &'n str)>> {
        let items = self.items(node, what)?;
        let read: Vec<_> = items.iter().map(|i| self.text(i, what).map(|t| (i.at, t))).collect();
        read.into_iter().collect()
    }

    /// A checked name of the model, or anything else that says in its error what it must be.
    pub fn name<T: FromStr<Err = InvalidName>>(&mut self, node: &Node) -> Option<T> {
        let text = self.text(node, "a name")?;
        text.parse().map_err(|e: InvalidName| self.error(node.at, e.to_string())).ok()
    }

    pub fn one_of<T: Copy>(&mut self, node: &Node, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
        let expected = one_of(&names);
        let text = self.text(node, &expected)?;
        if let Some((_, value)) = choices.iter().find(|(n, _)| *n == text) {
            return Some(*value);
        }
        let hint = nearest(text, &names).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        self.error(node.at, format!("expected {expected}, not `{text}`{hint}"));
        None
    }

    /// The field's choice, or the default that the table of fields names.
    pub fn choice<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        match (fields.optional(name), fields.rule(name)) {
            (Some(node), _) => self.one_of(node, choices),
            (None, Rule::Default(text)) => choices.iter().find(|(n, _)| *n == text).map(|(_, v)| *v),
            (None, Rule::Required | Rule::Optional | Rule::Number { .. }) => None,
        }
    }

    pub fn flag(&mut self, fields: &Fields<'_>, name: &'static str) -> Option<bool> {
        self.choice(fields, name, &[("true", true), ("false", false)])
    }

    /// The field's text, or the default that the table of fields names.
    pub fn text_or_default<'n>(
        &mut self,
        fields: &Fields<'n>,
        name: &'static str,
        what: &str,
    ) -> Option<&'n str> {
        match (fields.optional(name), fields.rule(name)) {
            (Some(node), _) => self.text(node, what),
            (None, Rule::Default(text)) => Some(text),
            (None, Rule::Required | Rule::Optional | Rule::Number { .. }) => None,
        }
    }

    /// The field's whole number within its bounds, or its default.
    pub fn number(&mut self, fields: &Fields<'_>, name: &'static str) -> Option<u64> {
        let Rule::Number { default, min, max } = fields.rule(name) else {
            unreachable!("`{name}` is declared a number in the table of fields");
        };
        let Some(node) = fields.optional(name) else { return Some(default) };
        let expected = format!("a whole number from {min} to {max}");
        let text = self.text(node, &expected)?;
        // `u64::from_str` takes a leading `+`, which no one writes on purpose.
        let parsed = text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        match parsed {
            Some(n) if (min..=max).contains(&n) => Some(n),
            Some(_) | None => {
                self.error(node.at, format!("`{name}` must be {expected}, not `{text}`"));
                None
            }
        }
    }

    pub fn milliseconds(&mut self, fields: &Fields<'_>, name: &'static str) -> Option<Duration> {
        self.number(fields, name).map(Duration::from_millis)
    }

    /// A path, taken from the config file's directory.
    pub fn path(&mut self, node: &Node) -> Option<PathBuf> {
        self.text(node, "a path").map(|text| self.base.join(text))
    }

    /// The whole of a file that the config names.
    pub fn file(&mut self, node: &Node) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path(node)?;
        match read_bounded(&path) {
            Ok(bytes) => Some((path, bytes)),
            Err(why) => {
                self.error(node.at, format!("{}: {why}", path.display()));
                None
            }
        }
    }
}

/// Reads a regular file of a bounded size. The message does not repeat the path.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    // Asked before opening: opening a pipe would wait for its other end.
    let found = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    // With room for all of it from the start, a secret is not left behind in a smaller copy.
    let mut bytes = Vec::with_capacity(found.len().min(limits::CONFIG_FILE_BYTES_MAX) as usize + 1);
    file.take(limits::CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limits::CONFIG_FILE_BYTES_MAX {
        return Err(format!("is larger than {} bytes", limits::CONFIG_FILE_BYTES_MAX));
    }
    Ok(bytes)
}

fn is_nothing(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
}

fn found(node: &Node) -> &'static str {
    match &node.value {
        _ if is_nothing(node) => "nothing",
        Value::Scalar { text, .. } if text.is_empty() => "empty text",
        Value::Scalar { .. } => "a single value",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
    }
}

fn spell(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

pub fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("`{only}`"),
        _ => format!("one of {}", spell(names)),
    }
}

/// The name that is at most a third of its letters away.
pub fn nearest<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    // A long text is near no name, and its distance would cost the product of the lengths.
    if text.len() > limits::NAME_BYTES_MAX {
        return None;
    }
    let distance = |n: &&str| strsim::damerau_levenshtein(text, n);
    names.iter().min_by_key(|n| distance(n)).filter(|n| distance(n) <= n.len().div_ceil(3)).copied()
}
