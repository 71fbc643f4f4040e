//! Any bytes: refused, or read as `serde_json` reads them and written as a fixed point.
#![no_main]

use interlock::canonical::json::{self, Bounds};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = json::parse(bytes, Bounds::BODY) else { return };
    let written = json::write(&value);
    let again = json::parse(&written, Bounds::BODY).expect("its own form");
    assert!(again == value && json::write(&again) == written);
    let theirs: serde_json::Value = serde_json::from_slice(bytes).expect("what is taken here is JSON");
    let of_ours: serde_json::Value = serde_json::from_slice(&written).expect("JSON");
    assert_eq!(theirs, of_ours);
});
