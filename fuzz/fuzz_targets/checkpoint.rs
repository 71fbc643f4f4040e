//! Any bytes are a checkpoint or refused; nothing verifies that the pinned key did not sign.

#![no_main]

use std::sync::LazyLock;

use interlock::merkle::checkpoint::{parse_checkpoint, parse_checkpoint_unverified};
use interlock::merkle::note::{VerifierKey, parse_note_unverified};
use libfuzzer_sys::fuzz_target;

/// A published key: the fuzzer cannot sign for it.
static KEY: LazyLock<VerifierKey> = LazyLock::new(|| {
    "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8".parse().expect("a key")
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok((text, lines)) = parse_note_unverified(bytes) {
        assert!(text.ends_with('\n') && (1..=16).contains(&lines.len()));
    }
    if let Ok(checkpoint) = parse_checkpoint_unverified(bytes) {
        assert!(bytes.starts_with(checkpoint.text().as_bytes()));
    }
    assert!(parse_checkpoint(bytes, &KEY).is_err());
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = text.parse::<VerifierKey>()
    {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
});
