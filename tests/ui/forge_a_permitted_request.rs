//! Only the seal makes a request that may leave.

use interlock::upstream::PermittedRequest;

fn redirect(permitted: PermittedRequest, other: PermittedRequest) -> PermittedRequest {
    PermittedRequest { request: other.request, ..permitted }
}

fn main() {}
