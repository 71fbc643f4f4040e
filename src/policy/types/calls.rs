//! What the allowed builtins take and give.

use super::super::syntax::Expr;
use super::lattice::Type;

/// Arguments and result: `s` string, `n` number, `i` whole number, `b` boolean, `a` array, `t` set, `o` object,
/// `c` collection, `C` collection or string, `l` array or set of strings, `S` string or list of strings, `x` anything.
const SIGNATURES: &[(&str, &str, &str)] = &[
    ("abs", "n", "n"),
    ("array.concat", "aa", "a"),
    ("array.reverse", "a", "a"),
    ("array.slice", "ann", "a"),
    ("base64.decode", "s", "s"),
    ("base64.encode", "s", "s"),
    ("base64.is_valid", "x", "b"),
    ("base64url.decode", "s", "s"),
    ("base64url.encode", "s", "s"),
    ("base64url.encode_no_pad", "s", "s"),
    ("bits.and", "nn", "i"),
    ("bits.lsh", "nn", "i"),
    ("bits.negate", "n", "i"),
    ("bits.or", "nn", "i"),
    ("bits.rsh", "nn", "i"),
    ("bits.xor", "nn", "i"),
    ("ceil", "n", "i"),
    ("concat", "sl", "s"),
    ("contains", "ss", "b"),
    ("count", "C", "i"),
    ("endswith", "ss", "b"),
    ("floor", "n", "i"),
    ("format_int", "nn", "s"),
    ("glob.match", "sxs", "b"),
    ("hex.decode", "s", "s"),
    ("hex.encode", "s", "s"),
    ("indexof", "ss", "i"),
    ("indexof_n", "ss", "a"),
    ("intersection", "t", "t"),
    ("is_array", "x", "b"),
    ("is_boolean", "x", "b"),
    ("is_null", "x", "b"),
    ("is_number", "x", "b"),
    ("is_object", "x", "b"),
    ("is_set", "x", "b"),
    ("is_string", "x", "b"),
    ("json.filter", "ox", "o"),
    ("json.is_valid", "x", "b"),
    ("json.marshal", "x", "s"),
    ("json.remove", "ox", "o"),
    ("lower", "s", "s"),
    ("max", "c", "x"),
    ("min", "c", "x"),
    ("net.cidr_contains", "ss", "b"),
    ("net.cidr_is_valid", "x", "b"),
    ("numbers.range", "nn", "a"),
    ("numbers.range_step", "nnn", "a"),
    ("object.filter", "ox", "o"),
    ("object.get", "xxx", "x"),
    ("object.keys", "o", "t"),
    ("object.remove", "ox", "o"),
    ("object.subset", "xx", "b"),
    ("object.union", "oo", "o"),
    ("object.union_n", "a", "o"),
    ("product", "c", "n"),
    ("regex.find_n", "ssn", "a"),
    ("regex.match", "ss", "b"),
    ("regex.replace", "sss", "s"),
    ("regex.split", "ss", "a"),
    ("replace", "sss", "s"),
    ("round", "n", "i"),
    ("semver.compare", "ss", "i"),
    ("semver.is_valid", "x", "b"),
    ("sort", "c", "a"),
    ("split", "ss", "a"),
    ("sprintf", "sa", "s"),
    ("startswith", "ss", "b"),
    ("strings.any_prefix_match", "SS", "b"),
    ("strings.any_suffix_match", "SS", "b"),
    ("strings.count", "ss", "i"),
    ("strings.replace_n", "os", "s"),
    ("strings.reverse", "s", "s"),
    ("substring", "snn", "s"),
    ("sum", "c", "n"),
    ("time.clock", "x", "a"),
    ("time.date", "x", "a"),
    ("time.diff", "xx", "a"),
    ("time.format", "x", "s"),
    ("time.parse_duration_ns", "s", "i"),
    ("time.parse_ns", "ss", "i"),
    ("time.parse_rfc3339_ns", "s", "i"),
    ("time.weekday", "x", "s"),
    ("to_number", "x", "n"),
    ("trim", "ss", "s"),
    ("trim_left", "ss", "s"),
    ("trim_prefix", "ss", "s"),
    ("trim_right", "ss", "s"),
    ("trim_space", "s", "s"),
    ("trim_suffix", "ss", "s"),
    ("type_name", "x", "s"),
    ("union", "t", "t"),
    ("upper", "s", "s"),
];

/// What a builtin takes, and what it gives. `None` if it is not known here.
pub(super) fn signature(name: &str) -> Option<(Vec<Type>, Type)> {
    let (_, takes, gives) = SIGNATURES.iter().find(|(known, ..)| *known == name)?;
    let result = match name {
        "time.weekday" => {
            let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
            Type::texts(days)
        }
        "time.clock" | "time.date" | "time.diff" => Type::array(Type::number(Some(true))),
        "split" | "regex.split" => Type::array(Type::text()),
        "type_name" => Type::texts(["array", "boolean", "null", "number", "object", "set", "string"]),
        _ => gives.chars().map(kind).fold(Type::never(), Type::join),
    };
    Some((takes.chars().map(kind).collect(), result))
}

fn kind(letter: char) -> Type {
    let list = || Type::array(Type::any()).join(Type::set(Type::any()));
    match letter {
        's' => Type::text(),
        'n' => Type::number(None),
        'i' => Type::number(Some(true)),
        'b' => Type::boolean(),
        'a' => Type::array(Type::any()),
        't' => Type::set(Type::any()),
        'o' => Type::open_object(),
        'c' => list(),
        'l' => Type::array(Type::text()).join(Type::set(Type::text())),
        'S' => list().join(Type::text()),
        'C' => list().join(Type::open_object()).join(Type::text()),
        _ => Type::any(),
    }
}

/// The kind that a type test asks for.
pub(super) fn tested(name: &str) -> Option<Type> {
    Some(match name {
        "is_array" => Type::array(Type::any()),
        "is_boolean" => Type::boolean(),
        "is_null" => Type::null(),
        "is_number" => Type::number(None),
        "is_object" => Type::open_object(),
        "is_set" => Type::set(Type::any()),
        "is_string" => Type::text(),
        _ => return None,
    })
}

/// What of a pattern means more here, or to another reader, than it seems to.
pub(super) fn pattern_note(name: &str, arguments: &[Expr]) -> Option<&'static str> {
    let at = |n: usize| arguments.get(n).and_then(Expr::as_string);
    let pattern = match name {
        "regex.match" | "regex.split" | "regex.find_n" => at(0)?,
        "regex.replace" => at(1)?,
        "glob.match" => {
            return at(0)?.contains(':').then_some(
                "`:` delimits nothing in `glob.match` here, so `*` goes over it: `urn:*:pay` matches `urn:a:b:pay`",
            );
        }
        _ => return None,
    };
    let ignores_case = pattern.split("(?").skip(1).any(|rest| {
        rest.split([')', ':', '-'])
            .next()
            .is_some_and(|flags| flags.contains('i') && !flags.contains(['<', '=']))
    });
    ignores_case
        .then_some("`(?i)` folds all of Unicode: `k` matches the Kelvin sign, `s` the long s; write `[Kk]`, or test `lower` of ASCII text")
}

#[cfg(test)]
mod tests {
    use super::super::super::check::builtins;
    use super::*;

    #[test]
    fn every_builtin_that_has_a_signature_is_one_and_the_kinds_are_known() {
        for (name, takes, gives) in SIGNATURES {
            assert!(builtins::is_known(name), "{name}");
            let letters = takes.chars().chain(gives.chars());
            assert!(letters.clone().all(|c| "snibatoclCSx".contains(c)), "{name}");
            assert_eq!(signature(name).map(|(takes, _)| takes.len()), Some(takes.len()));
        }
        assert!(
            builtins::allowed().all(|name| signature(name).is_some()),
            "an allowed builtin has no signature"
        );
    }
}
