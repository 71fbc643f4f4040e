//! A verdict cannot be copied.

use interlock::policy::{Evaluated, Permit};

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<Evaluated<Permit>>();
}
