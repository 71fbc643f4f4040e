//! Any bytes: refused, or brought into a form that is a fixed point with the same value.
#![no_main]

use interlock::canonical::form;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(once) = form::parse(bytes) else { return };
    assert!(once.encoded.is_ascii());
    let again = form::parse(&once.encoded).expect("its own form");
    assert!(again == once);
});
