//! Which policy was active, and what may become it: a signed version does not go back by itself.

use super::{Digest, LeafIndex};

/// A bundle became the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activated {
    pub revision: Digest,
    /// As the bundle's signature covers it; `None` of a directory, and of a bundle without.
    pub version: Option<u64>,
}

/// What the activations of a log say, in the order of its leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activations {
    /// The highest version that was ever active.
    pub highest: Option<Highest>,
    /// The revision of the last activation.
    pub last: Option<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Highest {
    pub version: u64,
    pub revision: Digest,
    pub entry: LeafIndex,
}

/// Somebody who cannot sign bundles can still put an earlier one in the place of a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is not after version {}, which entry {} made active (revision {})",
    .version.map_or("a bundle without a version".to_owned(), |version| format!("version {version}")),
    .than.version, .than.entry, .than.revision
)]
pub struct Older {
    pub version: Option<u64>,
    pub than: Highest,
}

impl Activations {
    pub fn take(&mut self, entry: LeafIndex, Activated { revision, version }: Activated) {
        self.last = Some(revision);
        let Some(version) = version else { return };
        if self.highest.is_none_or(|highest| highest.version < version) {
            self.highest = Some(Highest { version, revision, entry });
        }
    }

    /// Whether this may become active without anybody's word. What is active already may, also when it was an older one
    /// that somebody answered for; so may the bundle of the highest version. Another one of the same version may not.
    pub fn judge(&self, Activated { revision, version }: Activated) -> Result<(), Older> {
        let Some(than) = self.highest else { return Ok(()) };
        let is_newer = version.is_some_and(|version| version > than.version);
        let is_known =
            self.last == Some(revision) || version == Some(than.version) && revision == than.revision;
        if is_newer || is_known { Ok(()) } else { Err(Older { version, than }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activated(revision: u8, version: Option<u64>) -> Activated {
        Activated { revision: Digest::of(&[revision]), version }
    }

    fn after(taken: &[(u8, Option<u64>)]) -> Activations {
        let mut activations = Activations::default();
        for (entry, (revision, version)) in (0..).map(LeafIndex).zip(taken) {
            activations.take(entry, activated(*revision, *version));
        }
        activations
    }

    #[test]
    fn only_a_higher_version_and_what_is_known_follow_without_a_word() {
        let nothing_signed = after(&[(1, None), (2, None)]);
        let seven = after(&[(1, None), (7, Some(7))]);
        // Somebody answered for an older one, and it was in force last.
        let back = after(&[(7, Some(7)), (9, Some(9)), (7, Some(7))]);
        for (activations, (revision, version), may) in [
            (nothing_signed, (3, None), true),
            (nothing_signed, (3, Some(0)), true),
            (seven, (8, Some(8)), true),
            (seven, (7, Some(7)), true),
            (seven, (8, Some(7)), false),
            (seven, (6, Some(6)), false),
            (seven, (6, None), false),
            (seven, (1, None), false),
            (back, (7, Some(7)), true),
            (back, (9, Some(9)), true),
            (back, (8, Some(8)), false),
            (back, (10, Some(10)), true),
        ] {
            assert_eq!(
                activations.judge(activated(revision, version)).is_ok(),
                may,
                "{revision} {version:?}"
            );
        }
        let error = seven.judge(activated(6, None)).expect_err("older").to_string();
        assert!(
            error.starts_with("a bundle without a version is not after version 7, which entry 1 made"),
            "{error}"
        );
    }
}
