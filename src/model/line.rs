//! A leaf as a line for machines: its exact bytes, and where it stands.

use super::LeafIndex;

/// Appends `{"entry":<the leaf's exact bytes>,"index":N}` and a line feed. A leaf is one line of JSON, so a line is one.
pub fn append_line(lines: &mut Vec<u8>, index: LeafIndex, entry: &[u8]) {
    lines.extend_from_slice(b"{\"entry\":");
    lines.extend_from_slice(entry);
    lines.extend_from_slice(format!(",\"index\":{index}}}\n").as_bytes());
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
}
