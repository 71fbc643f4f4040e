//! Any bytes decode to a frame or are refused; a frame is written back as the same bytes, up to its seal, which only the
//! key's holder can write.

#![no_main]

use interlock::merkle::frame::{self, FrameKey, FrameParts};
use libfuzzer_sys::fuzz_target;

/// The seal and the closing digest over it.
const TRAILER_BYTES: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = frame::decode_header(bytes) {
        assert!(header.padded_bytes <= interlock::limits::FRAME_BYTES_MAX.next_multiple_of(4_096));
    }
    let Ok(frame) = frame::decode(bytes) else { return };
    let parts = FrameParts {
        first: frame.first,
        previous: frame.previous,
        root: frame.root,
        entries: frame.entries.clone(),
        evidence: frame.evidence.clone(),
    };
    let key = FrameKey::new(&[7; 32]);
    let (written, digest) = frame::encode(&parts, &key);
    assert_eq!(written.len(), frame.padded_bytes);
    // Where a frame's header has its length without padding: bytes 12 to 15.
    let length = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    assert_eq!(written[..length - TRAILER_BYTES], bytes[..length - TRAILER_BYTES]);
    let again = frame::decode(&written).expect("what is encoded is decoded");
    assert!(key.sealed(&again) && again.digest == digest);
});
