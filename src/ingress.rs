//! The edge towards the agents: HTTP/1.1 and HTTP/2, plain and TLS.
//!
//! In: connections. Out: whole, bounded, authenticated requests matched to a route, handed to the enforcement point
//! in a task of their own; and the responses. Before hyper reads an HTTP/1.1 head, `guard` has read it strictly.

mod connection;
mod guard;
mod head;
mod patience;
mod peer;
mod rehearsal;
mod request;

pub use connection::{Bounds, Listener, serve};
pub use patience::Impatient;
pub use peer::{Peer, ServerTls, SharedTls};
pub use rehearsal::{Door, NotTaken, Taken, rehearse};
#[cfg(test)]
pub(crate) use request::run_admissible;
