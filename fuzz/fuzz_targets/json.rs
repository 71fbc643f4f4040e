//! Any bytes: refused, or read as `serde_json` reads them and written as a fixed point.
#![no_main]

use interlock::canonical::json::{self, Bounds};
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = json::parse(bytes, Bounds::BODY) else { return };
    let written = json::write(&value);
    let again = json::parse(&written, Bounds::BODY).expect("its own form");
    assert!(again == value && json::write(&again) == written);
    let theirs: Value = serde_json::from_slice(bytes).expect("what is taken here is JSON");
    let of_ours: Value = serde_json::from_slice(&written).expect("JSON");
    assert!(is_same(&theirs, &of_ours), "{theirs} and {of_ours}");
});

/// Numbers by their value: RFC 8785 writes minus zero as `0`.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        (a, b) => a == b,
    }
}
