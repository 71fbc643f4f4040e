//! A leaf as a line for machines: its exact bytes, and where it stands.

use super::LeafIndex;

/// Appends `{"entry":<the leaf's exact bytes>,"index":N}` and a line feed. A leaf is one line of JSON, so a line is one.
pub fn append_line(lines: &mut Vec<u8>, index: LeafIndex, entry: &[u8]) {
    lines.extend_from_slice(b"{\"entry\":");
    lines.extend_from_slice(entry);
    lines.extend_from_slice(format!(",\"index\":{index}}}\n").as_bytes());
}

/// The leaf in such a line, without its line feed, and where it was said to stand. `None` if it is none: a leaf alone is
/// never one, because no leaf has a member `entry`.
pub fn parse_line(line: &[u8]) -> Option<(LeafIndex, &[u8])> {
    const BETWEEN: &[u8] = b",\"index\":";
    let inner = line.strip_prefix(b"{\"entry\":")?.strip_suffix(b"}")?;
    let at = inner.windows(BETWEEN.len()).rposition(|part| part == BETWEEN)?;
    let digits = std::str::from_utf8(&inner[at + BETWEEN.len()..]).ok()?;
    let index = digits.parse().ok().filter(|index: &u64| index.to_string() == digits)?;
    Some((LeafIndex(index), &inner[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_the_exact_bytes_of_the_leaf() {
        let mut lines = Vec::new();
        append_line(&mut lines, LeafIndex(7), b"{\"a\":1}");
        append_line(&mut lines, LeafIndex(8), b"{}");
        assert_eq!(lines, b"{\"entry\":{\"a\":1},\"index\":7}\n{\"entry\":{},\"index\":8}\n");
    }

    #[test]
    fn a_line_reads_back_and_a_leaf_alone_is_none() {
        for leaf in [&b"{}"[..], b"{\"a\":\",\\\"index\\\":3}\"}", b"{\"a\":{\"b\":1,\"index\":9}}"] {
            let mut line = Vec::new();
            append_line(&mut line, LeafIndex(7), leaf);
            line.pop();
            assert_eq!(parse_line(&line), Some((LeafIndex(7), leaf)));
            assert_eq!(parse_line(leaf), None);
        }
        for other in [&b"{\"entry\":{},\"index\":07}"[..], b"{\"entry\":{},\"index\":}", b"{\"entry\":{}}"] {
            assert_eq!(parse_line(other), None);
        }
    }
}
