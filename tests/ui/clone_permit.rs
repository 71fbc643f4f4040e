//! A permit cannot be copied.

use interlock::policy::Permit;

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<Permit>();
}
