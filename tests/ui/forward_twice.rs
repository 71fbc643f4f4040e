//! A permitted request leaves once.

use interlock::upstream::{Lease, PermittedRequest};

fn twice(permitted: PermittedRequest, first: Lease, second: Lease) {
    let _ = permitted.forward(first);
    let _ = permitted.forward(second);
}

fn main() {}
