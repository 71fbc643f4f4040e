//! Which fields of the upstream's answer pass to the caller: all but those of this hop (RFC 9110 section 7.6.1), and
//! those that the gateway alone may say.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// In the order in which they came. `announced_len` is the body's exact length, if there is one.
pub fn passed_fields(
    received: &HeaderMap,
    announced_len: Option<u64>,
) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let nominated = connection_nominated(received);
    received.iter().filter(move |(name, _)| {
        // A length beside another framing is not the body's (RFC 9112 section 6.3).
        let is_false_length = **name == header::CONTENT_LENGTH && announced_len.is_none();
        !is_hop_by_hop(name) && !nominated.contains(name) && !is_ours(name) && !is_false_length
    })
}

/// The trailers of an answer as they may be passed on.
pub fn passed_trailers(received: HeaderMap) -> HeaderMap {
    let mut trailers = received;
    let names: Vec<_> =
        trailers.keys().filter(|name| is_hop_by_hop(name) || is_ours(name)).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
    trailers
}

/// What the gateway alone says: nobody else's receipt or replay.
fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("interlock-")
}

/// RFC 9110 section 7.6.1, and what was in use before it.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
    )
}

fn connection_nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // What frames or describes the message is not a hop's to take away.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
        .collect()
}
