//! A request that may leave cannot be copied.

use interlock::upstream::PermittedRequest;

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<PermittedRequest>();
}
