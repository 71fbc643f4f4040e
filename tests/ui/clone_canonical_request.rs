//! A canonical request cannot be copied.

use interlock::canonical::CanonicalRequest;

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<CanonicalRequest>();
}
