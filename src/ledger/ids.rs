//! Where the random part of receipt ids comes from.

use ring::rand::{SecureRandom, SystemRandom};

/// Handed in, so that a simulation can repeat its ids.
#[derive(Debug)]
pub enum IdSource {
    System(SystemRandom),
    /// The next of a sequence that begins with a seed.
    #[cfg(test)]
    Seeded(std::sync::atomic::AtomicU64),
}

impl IdSource {
    pub fn system() -> Self {
        Self::System(SystemRandom::new())
    }

    /// `None`: the system has none.
    pub fn random(&self) -> Option<[u8; 10]> {
        let mut random = [0; 10];
        match self {
            Self::System(system) => system.fill(&mut random).ok()?,
            #[cfg(test)]
            Self::Seeded(next) => {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                random.copy_from_slice(&crate::model::Digest::of(&n.to_be_bytes()).as_bytes()[..10]);
            }
        }
        Some(random)
    }
}
