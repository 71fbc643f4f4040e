//! The bytes that were judged cannot be exchanged for others.

use bytes::Bytes;
use interlock::canonical::CanonicalRequest;

fn exchange(request: &CanonicalRequest, other: Bytes) {
    request.wire().body = other;
}

fn main() {}
