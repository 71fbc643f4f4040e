//! Wiring: from a valid config to a running gateway, and back down in order.
//!
//! Up: policy is loaded and checked, the log is opened and recovered, the policy's activation is recorded, and only
//! then the listeners open. Down: listeners close, what runs is finished (or given up after `drain_max`), the log
//! is closed with its stop leaf.

use std::net::SocketAddr;

use crate::clock::Clock;
use crate::config::Config;

/// A running gateway.
pub struct Gateway {
    _private: (),
}

/// Why the gateway did not start. Nothing listens, and nothing was admitted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything was finished, and the stop leaf is durable.
    Clean,
    /// Some requests were given up after `drain_max`; their outcomes and the stop leaf are durable.
    Abandoned,
    /// The log could not be closed.
    Unclean,
}

impl Gateway {
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let _ = (config, clock);
        todo!()
    }

    /// Where the listener of this name really listens: config may say port 0.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let _ = listener;
        todo!()
    }

    pub fn admin_address(&self) -> SocketAddr {
        todo!()
    }

    /// Resolves when the log is poisoned: the process must end, and recovery decides.
    pub async fn failed(&self) {
        todo!()
    }

    /// Drains and closes.
    pub async fn stop(self) -> Stopped {
        todo!()
    }
}
