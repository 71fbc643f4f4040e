//! What the end-to-end tests stand on: a raw client, a raw upstream, a gateway between them, and the Auditor.

pub mod auditor;
pub mod client;
pub mod http2;
pub mod mounted;
pub mod upstream;
pub mod world;

pub use auditor::Lookup;
pub use client::{Client, request};
pub use mounted::Mounted;
pub use upstream::{Gate, Reads, Script, Step, Upstream};
pub use world::{KEY, OTHER_KEY, SLOT, Saved, Setup, World};
