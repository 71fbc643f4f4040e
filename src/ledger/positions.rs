//! How far each sink has delivered: one small file a sink, `sinks/<name>.position`, beside the log.
//!
//! It holds the index of the next leaf to deliver, in decimal digits and a line feed, and is replaced atomically. It
//! is no evidence: without it a sink begins at the first leaf again.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::model::{LeafIndex, SinkName};
use crate::verify::source::open_regular;

pub const SINKS_DIR: &str = "sinks";
/// Digits of a u64 and a line feed.
const POSITION_BYTES_MAX: u64 = 21;

/// The positions of the sinks of one log.
#[derive(Clone, Debug)]
pub struct Positions(PathBuf);

impl Positions {
    /// Of the log in this directory, which this process has open.
    pub fn of(log: &Path) -> Self {
        Self(log.join(SINKS_DIR))
    }

    /// The next leaf to deliver; `None` if nothing was recorded. [`io::ErrorKind::InvalidData`]: it is no position.
    pub fn read(&self, sink: &SinkName) -> io::Result<Option<LeafIndex>> {
        let file = match open_regular(&self.place(sink)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(POSITION_BYTES_MAX + 1).read_to_string(&mut text)?;
        let index = text.strip_suffix('\n').and_then(|digits| digits.parse().ok());
        // One spelling: no sign, no leading zeros.
        let index = index.filter(|index: &u64| format!("{index}\n") == text).map(LeafIndex);
        let no_position = || io::Error::new(io::ErrorKind::InvalidData, "the file holds no position");
        index.map(Some).ok_or_else(no_position)
    }

    /// Replaces the position. A crash leaves the old one or the new one.
    #[expect(clippy::disallowed_methods, reason = "the ledger owns the files of its directory")]
    pub fn write(&self, sink: &SinkName, next: LeafIndex) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o750).create(&self.0)?;
        let place = self.place(sink);
        let new = place.with_extension("position.new");
        // For reading too, so that a pipe in its place is an error, and nothing to wait for.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o640);
        let mut file = options.open(&new)?;
        file.write_all(format!("{next}\n").as_bytes())?;
        // The content before the name, so that what is seen after a crash is whole.
        file.sync_data()?;
        fs::rename(new, place)
    }

    fn place(&self, sink: &SinkName) -> PathBuf {
        self.0.join(format!("{sink}.position"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_position_reads_back_and_anything_else_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let (positions, siem) = (Positions::of(dir.path()), "siem".parse().expect("a name"));
        assert_eq!(positions.read(&siem).expect("readable"), None);
        for index in [0, 7, u64::MAX] {
            positions.write(&siem, LeafIndex(index)).expect("written");
            assert_eq!(positions.read(&siem).expect("readable"), Some(LeafIndex(index)));
        }
        let other = "other".parse().expect("a name");
        assert_eq!(positions.read(&other).expect("readable"), None);
        for bad in ["", "7", "07\n", "+7\n", "7\n\n", "-1\n", "18446744073709551616\n", "x\n"] {
            let mut file =
                File::options().write(true).truncate(true).open(positions.place(&siem)).expect("there");
            file.write_all(bad.as_bytes()).expect("written");
            let error = positions.read(&siem).expect_err(bad);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
    }
}
