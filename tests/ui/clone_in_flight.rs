//! A request on the wire cannot be copied.

use interlock::upstream::InFlight;

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<InFlight>();
}
