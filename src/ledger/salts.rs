//! The keys of redacted values: one file for each run, `<epoch>.salt`, 32 random bytes, mode 0600, outside the log.
//!
//! A key is durable before the first receipt that uses it. Whoever has it and a value can make the value's
//! disclosure again; when the file is destroyed, nobody can, and what the log says about that run's values is
//! noise. So a file that is there is never written over.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::model::Epoch;
use crate::redaction::EpochKey;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SaltsError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: mode {mode:04o} lets others read it (chmod go= {path})")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{0}: not the 32 bytes of a key")]
    Form(PathBuf),
    #[error("{0} is inside the directory of the log, which must not hold the keys of what it keeps out")]
    InsideLog(PathBuf),
    #[error("the system has no randomness for a new key")]
    NoRandomness,
}

/// The key of a run that begins: a new one, durable with its name.
///
/// If the file is there, an earlier start got so far and no further, or the log was put back to an older state;
/// its key is used again, which is safe, because every salt depends on the receipt's id as well.
pub fn begin(dir: &Path, log: &Path, epoch: Epoch) -> Result<EpochKey, SaltsError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SaltsError::Io { path, source }
    };
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    check_private(dir, &File::open(dir).map_err(at(dir))?)?;
    if let (Ok(own), Ok(log)) = (dir.canonicalize(), log.canonicalize())
        && own.starts_with(log)
    {
        return Err(SaltsError::InsideLog(dir.to_owned()));
    }
    let path = file_of(dir, epoch);
    if !path.try_exists().map_err(at(&path))? {
        create(dir, &path).map_err(at(&path))?;
    }
    let key = load(dir, epoch)?;
    // Of what is seen here also if an earlier start has made it: from now on receipts rest on it.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))?;
    for parent in missing.iter().filter_map(|dir| dir.parent()).filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(at(parent))?;
    }
    Ok(key)
}

/// The key of a run, if it has not been destroyed.
pub fn load(dir: &Path, epoch: Epoch) -> Result<EpochKey, SaltsError> {
    let path = file_of(dir, epoch);
    let at = |source| SaltsError::Io { path: path.clone(), source };
    let mut file = File::open(&path).map_err(at)?;
    check_private(&path, &file)?;
    let mut key = Zeroizing::new([0; EpochKey::BYTES]);
    let wrong = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => SaltsError::Form(path.clone()),
        _ => at(e),
    };
    file.read_exact(&mut *key).map_err(wrong)?;
    match file.read(&mut [0]).map_err(at)? {
        0 => Ok(EpochKey::new(key)),
        _ => Err(SaltsError::Form(path)),
    }
}

pub fn file_of(dir: &Path, epoch: Epoch) -> PathBuf {
    dir.join(format!("{epoch}.salt"))
}

fn check_private(path: &Path, file: &File) -> Result<(), SaltsError> {
    let found = file.metadata().map_err(|source| SaltsError::Io { path: path.to_owned(), source })?;
    match found.permissions().mode() & 0o7777 {
        private if private & 0o077 == 0 => Ok(()),
        mode => Err(SaltsError::Exposed { path: path.to_owned(), mode }),
    }
}

/// The content before the name: a crash leaves no half of a key under its name.
#[expect(clippy::disallowed_methods, reason = "the ledger owns its files")]
fn create(dir: &Path, path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; EpochKey::BYTES]);
    SystemRandom::new().fill(&mut *key).map_err(|_| io::Error::other(SaltsError::NoRandomness))?;
    let new = dir.join("new.salt");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&*key)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::model::ReceiptId;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn salts(&self) -> PathBuf {
            self.0.path().join("keys/salts")
        }

        fn begin(&self, epoch: u64) -> Result<EpochKey, SaltsError> {
            begin(&self.salts(), &self.0.path().join("log"), Epoch(epoch))
        }

        fn mode(&self, path: &Path, mode: u32) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permitted");
        }
    }

    fn salt(key: &EpochKey) -> std::sync::Arc<str> {
        key.salter(ReceiptId::new(WallTime::from_unix_ns(0), [0; 10])).salt("/a")
    }

    #[test]
    fn each_run_has_a_private_key_of_its_own_which_can_be_read_again() {
        let place = Place::new();
        let (first, second) = (place.begin(1).expect("made"), place.begin(2).expect("made"));
        assert_ne!(salt(&first), salt(&second));
        assert_eq!(salt(&load(&place.salts(), Epoch(1)).expect("there")), salt(&first));
        assert_eq!(salt(&place.begin(1).expect("there")), salt(&first));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&place.salts()), mode(&file_of(&place.salts(), Epoch(1)))), (0o700, 0o600));
        let names = fs::read_dir(place.salts()).expect("readable").count();
        assert_eq!(names, 2);
        fs::remove_file(file_of(&place.salts(), Epoch(1))).expect("removed");
        assert!(matches!(load(&place.salts(), Epoch(1)), Err(SaltsError::Io { .. })));
    }

    #[test]
    fn what_others_can_read_or_is_no_key_is_refused() {
        let place = Place::new();
        place.begin(1).expect("made");
        let file = file_of(&place.salts(), Epoch(1));
        place.mode(&file, 0o640);
        assert!(matches!(place.begin(1), Err(SaltsError::Exposed { mode: 0o640, .. })));
        place.mode(&file, 0o600);
        place.mode(&place.salts(), 0o711);
        assert!(matches!(place.begin(1), Err(SaltsError::Exposed { mode: 0o711, .. })));
        place.mode(&place.salts(), 0o700);
        for length in [0, 31, 33] {
            let file = OpenOptions::new().write(true).open(&file).expect("there");
            file.set_len(length).expect("cut");
            assert!(matches!(place.begin(1), Err(SaltsError::Form(_))), "{length}");
        }
    }

    #[test]
    fn keys_are_not_kept_in_the_log() {
        let place = Place::new();
        let log = place.0.path().join("log");
        for inside in [log.clone(), log.join("frames/../salts")] {
            fs::create_dir_all(log.join("frames")).expect("made");
            place.mode(&log, 0o700);
            assert!(matches!(begin(&inside, &log, Epoch(1)), Err(SaltsError::InsideLog(_))), "{inside:?}");
        }
    }
}
