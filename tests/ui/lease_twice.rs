//! One request for each lease at a time.

use interlock::upstream::{Lease, PermittedRequest};

fn twice(first: PermittedRequest, second: PermittedRequest, lease: Lease) {
    let _ = first.forward(lease);
    let _ = second.forward(lease);
}

fn main() {}
