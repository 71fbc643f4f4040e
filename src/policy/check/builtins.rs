//! The builtins a policy may call, by name, and those a test may. What is not listed is refused, so a new engine version cannot
//! bring one in unseen.

use super::super::syntax::Expr;

/// Bounded by the size of their arguments, deterministic, and an error (not `undefined`) on a wrong type,
/// so that a call on defined arguments has a value.
const TOTAL: &[&str] = &[
    "abs",
    "array.concat",
    "array.reverse",
    "base64.encode",
    "base64.is_valid",
    "base64url.encode",
    "base64url.encode_no_pad",
    "ceil",
    "concat",
    "contains",
    "count",
    "endswith",
    "floor",
    "format_int",
    "hex.encode",
    "indexof",
    "indexof_n",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "json.is_valid",
    "json.marshal",
    "lower",
    "object.get",
    "object.keys",
    "replace",
    "round",
    "semver.is_valid",
    "sort",
    "split",
    "startswith",
    "strings.reverse",
    "sum",
    "to_number",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "type_name",
    "upper",
];

/// The same, but some defined arguments give `undefined`.
const PARTIAL: &[&str] = &[
    "array.slice",
    "base64.decode",
    "base64url.decode",
    "bits.and",
    "bits.negate",
    "bits.or",
    "bits.xor",
    "hex.decode",
    "intersection",
    "json.filter",
    "json.remove",
    "max",
    "min",
    "net.cidr_contains",
    "net.cidr_is_valid",
    "object.filter",
    "object.remove",
    "object.subset",
    "object.union",
    "object.union_n",
    "product",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "semver.compare",
    "strings.replace_n",
    "substring",
    "time.clock",
    "time.date",
    "time.diff",
    "time.format",
    "time.parse_duration_ns",
    "time.parse_ns",
    "time.parse_rfc3339_ns",
    "time.weekday",
    "union",
];

/// Allowed if their arguments are constant as [`constrained`] says.
const CONSTRAINED: &[&str] = &[
    "bits.lsh",
    "bits.rsh",
    "glob.match",
    "numbers.range",
    "numbers.range_step",
    "regex.find_n",
    "regex.match",
    "regex.replace",
    "regex.split",
    "sprintf",
    "strings.count",
];

/// Known, and refused whatever the arguments.
const REFUSED: &[(&str, &str)] = &[
    ("time.now_ns", "time is input: use `input.time.unix_ns`, so that a replay sees the same time"),
    ("time.add_date", "it clamps the ends of months where OPA runs over; compute with nanoseconds"),
    ("http.send", "policy reads only its input; declare a fact"),
    ("opa.runtime", "it reads the host; a replay elsewhere would differ"),
    ("net.lookup_ip_addr", "it asks the network; a replay would differ"),
    ("net.cidr_expand", "it may list millions of addresses; use `net.cidr_contains`"),
    ("trace", "it belongs in tests"),
    ("print", "it belongs in tests"),
    (
        "walk",
        "it visits every value of an unbounded tree in one call; name the members, or use `some ... in`",
    ),
    ("graph.reachable", "one call has no bound"),
    ("graph.reachable_paths", "one call has no bound"),
    ("regex.template_match", "it panics on short values; use `regex.match` with a constant pattern"),
    ("regex.globs_match", "it builds patterns from both arguments; use `glob.match` with a constant pattern"),
    ("json.unmarshal", "it keeps the last of duplicate names and rounds numbers; send JSON as the body"),
    ("yaml.unmarshal", "it is a second reading of the same bytes; send JSON as the body"),
];

/// Whether a call of this name could be meant as a builtin.
pub(in crate::policy) fn is_known(name: &str) -> bool {
    TOTAL.contains(&name)
        || PARTIAL.contains(&name)
        || CONSTRAINED.contains(&name)
        || REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// Every builtin that may be called.
#[cfg(test)]
pub(in crate::policy) fn allowed() -> impl Iterator<Item = &'static str> {
    TOTAL.iter().chain(PARTIAL).chain(CONSTRAINED).copied()
}

/// Whether a call on defined arguments always has a value.
pub(super) fn is_total(name: &str) -> bool {
    TOTAL.contains(&name) || (CONSTRAINED.contains(&name) && name != "regex.find_n")
}

/// Why this call is refused, if it is.
pub(super) fn refusal(name: &str, arguments: &[Expr]) -> Option<(&'static str, String)> {
    if TOTAL.contains(&name) || PARTIAL.contains(&name) {
        return None;
    }
    if CONSTRAINED.contains(&name) {
        return constrained(name, arguments)
            .err()
            .map(|why| ("builtin_unbounded", format!("`{name}`: {why}")));
    }
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Some(("builtin_refused", format!("`{name}` is refused: {why}")));
    }
    if name.starts_with("rand.") || name.starts_with("uuid.") {
        return Some(("builtin_refused", format!("`{name}` is refused: a replay would differ")));
    }
    Some((
        "builtin_unknown",
        format!("`{name}` is neither a function of this bundle nor a builtin that is allowed here"),
    ))
}

/// Whether this engine has it at all.
pub(super) fn is_in_the_engine(name: &str) -> bool {
    name == "print" || regorus::unstable::BUILTINS.contains_key(name)
}

/// Why this call is refused even where nothing is decided: it may end the process, or reach out of it.
pub(super) fn refusal_in_a_test(name: &str, arguments: &[Expr]) -> Option<(&'static str, String)> {
    if !is_in_the_engine(name) {
        let message =
            format!("`{name}` is neither a function of these files nor a builtin that the engine has");
        return Some(("builtin_unknown", message));
    }
    match name {
        "numbers.range" | "numbers.range_step" | "sprintf" | "bits.lsh" | "bits.rsh" => {
            let why = constrained(name, arguments).err()?;
            Some(("builtin_unbounded", format!("`{name}`: {why}")))
        }
        "net.cidr_expand" | "graph.reachable" | "graph.reachable_paths" => {
            Some(("builtin_unbounded", format!("`{name}`: one call has no bound")))
        }
        "http.send" | "net.lookup_ip_addr" | "opa.runtime" => {
            Some(("builtin_refused", format!("`{name}` is refused: a test rests on its files alone")))
        }
        _ => None,
    }
}

const RANGE_MAX: i64 = 10_000;
const RANGE_END_MAX: i64 = 1_000_000_000_000;
const SHIFT_MAX: i64 = 63;
const WIDTH_MAX: u32 = 100;

fn constrained(name: &str, arguments: &[Expr]) -> Result<(), String> {
    let constant = |at: usize| arguments.get(at).and_then(Expr::as_string);
    match name {
        "bits.lsh" | "bits.rsh" => match arguments.get(1).and_then(Expr::as_integer) {
            Some(0..=SHIFT_MAX) => Ok(()),
            _ => Err(format!("the distance must be a constant from 0 to {SHIFT_MAX}")),
        },
        "numbers.range" | "numbers.range_step" => range(arguments),
        "strings.count" => match constant(1) {
            Some(needle) if !needle.is_empty() => Ok(()),
            _ => Err("what is counted must be a constant that is not empty (an empty one panics)".into()),
        },
        "sprintf" => format_string(constant(0)),
        "regex.match" | "regex.split" | "regex.find_n" => pattern(constant(0)),
        "regex.replace" => pattern(constant(1)),
        "glob.match" => glob(arguments),
        _ => Err("is not examined".into()),
    }
}

fn range(arguments: &[Expr]) -> Result<(), String> {
    let numbers: Option<Vec<i64>> = arguments.iter().map(Expr::as_integer).collect();
    let fits = match numbers.as_deref() {
        Some([from, to]) => ends_fit(*from, *to),
        Some([from, to, step]) => *step >= 1 && ends_fit(*from, *to),
        Some(_) | None => false,
    };
    if fits { Ok(()) } else { Err(format!("ends and step must be constants that span at most {RANGE_MAX}")) }
}

fn ends_fit(from: i64, to: i64) -> bool {
    [from, to].iter().all(|end| end.unsigned_abs() <= RANGE_END_MAX as u64) && (to - from).abs() <= RANGE_MAX
}

fn format_string(format: Option<&str>) -> Result<(), String> {
    let Some(format) = format else { return Err("the format must be a constant".into()) };
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        let digits: String = after.trim_start_matches('.').chars().take_while(char::is_ascii_digit).collect();
        if after.starts_with('*') || digits.parse::<u32>().is_ok_and(|w| w > WIDTH_MAX) || digits.len() > 3 {
            return Err(format!("widths must be constants of at most {WIDTH_MAX}"));
        }
        rest = after.strip_prefix('%').unwrap_or(after);
    }
    Ok(())
}

/// `\d`, `\w`, `\s` and `\b` match all of Unicode here and ASCII in OPA: `^\d+$` would pass an Arabic digit.
fn pattern(pattern: Option<&str>) -> Result<(), String> {
    let Some(pattern) = pattern else { return Err("the pattern must be a constant".into()) };
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        let instead = match chars.next() {
            Some('d' | 'D') => "`[0-9]` or `[^0-9]`",
            Some('w' | 'W') => "`[0-9A-Za-z_]` or `[^0-9A-Za-z_]`",
            Some('s' | 'S') => "`[ \\t\\r\\n]` or its negation",
            Some('b' | 'B') => "the characters that delimit",
            Some(_) | None => continue,
        };
        return Err(format!("this class matches all of Unicode here and ASCII in OPA; write {instead}"));
    }
    Ok(())
}

fn glob(arguments: &[Expr]) -> Result<(), String> {
    let pattern = arguments.first().and_then(Expr::as_string).is_some();
    let delimiters = match arguments.get(1) {
        Some(Expr::Null { .. }) => true,
        Some(Expr::Array { items, .. }) => {
            items.iter().all(|d| matches!(d.as_string(), Some("." | "/" | "-")))
        }
        Some(_) | None => false,
    };
    if pattern && delimiters {
        return Ok(());
    }
    Err("pattern and delimiters must be constants, and the delimiters `.`, `/` or `-` (`:` is not one here)"
        .into())
}
