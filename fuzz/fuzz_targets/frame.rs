//! Any bytes decode to a frame or are refused; a frame is written back as the same bytes.

#![no_main]

use interlock::merkle::frame::{self, FrameParts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = frame::decode_header(bytes) {
        assert!(header.padded_bytes <= interlock::limits::FRAME_BYTES_MAX.next_multiple_of(4_096));
    }
    let Ok(frame) = frame::decode(bytes) else { return };
    let (written, digest) = frame::encode(&FrameParts {
        first: frame.first,
        previous: frame.previous,
        root: frame.root,
        entries: frame.entries.clone(),
        evidence: frame.evidence.clone(),
    });
    assert_eq!(digest, frame.digest);
    assert_eq!(written, bytes[..frame.padded_bytes]);
});
