//! A lease cannot be copied.

use interlock::upstream::Lease;

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<Lease>();
}
