//! Secrets: from the environment or from a private file, never from the config itself.
//!
//! This is the only reader of the environment. A file must be readable by nobody but its owner; if root owns
//! it, as with secrets that an orchestrator mounts, its group may read it too.

use std::path::Path;

use zeroize::Zeroizing;

use super::reader::read_bounded;

/// Where variables come from. Handed in, so that a test needs no environment of its own.
pub type ReadVariable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
#[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The bytes of a private file. The message does not repeat the path, and never holds its content.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    check_private(path)?;
    read_bounded(path).map(Zeroizing::new)
}

/// Refuses a file that others can read.
pub fn check_private(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() {
        return Err("is not a regular file".to_owned());
    }
    match is_private(found.mode(), found.uid()) {
        true => Ok(()),
        false => Err(format!(
            "is readable by others (mode {:03o}); use 0600, or 0640 if root owns it",
            found.mode() & 0o777
        )),
    }
}

const fn is_private(mode: u32, owner: u32) -> bool {
    let others_may = if owner == 0 { 0o037 } else { 0o077 };
    mode & others_may == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_or_the_group_of_a_file_of_root_may_read_a_secret() {
        for (mode, owner, private) in [
            (0o100_600, 1000, true),
            (0o100_400, 1000, true),
            (0o100_640, 1000, false),
            (0o100_604, 1000, false),
            (0o100_640, 0, true),
            (0o100_660, 0, false),
            (0o100_644, 0, false),
        ] {
            assert_eq!(is_private(mode, owner), private, "{mode:o} {owner}");
        }
    }
}
