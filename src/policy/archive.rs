//! The files of a `.tar.gz`, read in memory and bounded, or written so that equal files give equal bytes.
//!
//! In: bytes that may be hostile. Out: names and contents, or the fault. Nothing is ever unpacked to a disk, so a name
//! leads nowhere; it is held to one spelling all the same, because it decides what a file is. Only regular files and
//! directories: no links, devices, sparse files or extended headers. One leading `/` is what OPA writes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use tar::{Archive, Builder, EntryType, Header};

use super::fault::{BundleError, Fault};
use crate::limits;

/// Contents by name, relative to the root, with `/`.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn read(bytes: &[u8]) -> Result<Files, BundleError> {
    if bytes.len() > limits::POLICY_ARCHIVE_BYTES_MAX {
        let message = format!("is larger than {} bytes", limits::POLICY_ARCHIVE_BYTES_MAX);
        return Err(fault("archive_too_large", message));
    }
    let unpacked_max = limits::POLICY_UNPACKED_BYTES_MAX.min(
        bytes.len().saturating_mul(limits::POLICY_ARCHIVE_RATIO_MAX).max(limits::POLICY_UNPACKED_BYTES_MIN),
    );
    let mut rest = bytes;
    let bounded = Bounded { inner: GzDecoder::new(&mut rest), left: unpacked_max };
    let mut archive = Archive::new(bounded);
    let files = entries(&mut archive)?;
    let mut tail = archive.into_inner();
    let mut block = [0; 4_096];
    loop {
        match tail.read(&mut block).map_err(unreadable)? {
            0 => break,
            n if block[..n].iter().all(|byte| *byte == 0) => {}
            _ => return Err(fault("archive_goes_on", "has content after its end".into())),
        }
    }
    drop(tail);
    match rest.is_empty() {
        true => Ok(files),
        false => Err(fault("archive_goes_on", "has content after its end".into())),
    }
}

fn entries(archive: &mut Archive<impl Read>) -> Result<Files, BundleError> {
    let mut files = Files::new();
    let mut count = 0_usize;
    // Raw: an extended header is an entry, and refused as one.
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(unreadable)?;
        count += 1;
        if count > limits::POLICY_ARCHIVE_ENTRIES_MAX {
            let message = format!("has more than {} entries", limits::POLICY_ARCHIVE_ENTRIES_MAX);
            return Err(fault("archive_entries_over", message));
        }
        let path = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        let name = name_of(&path, kind == EntryType::Directory)?;
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular => {}
            other => {
                let message = format!(
                    "`{name}` is no regular file (type {:?}): no links, devices or extended headers; give files names of \
                     at most 100 bytes of ASCII",
                    char::from(other.as_byte())
                );
                return Err(fault("archive_entry_kind", message));
            }
        }
        let size = entry.header().size().map_err(unreadable)?;
        if size > limits::POLICY_BUNDLE_BYTES_MAX as u64 {
            return Err(fault("file_too_large", format!("`{name}` is {size} bytes")));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(unreadable)?;
        if content.len() as u64 != size {
            return Err(fault("archive_unreadable", format!("`{name}` is cut off")));
        }
        if files.insert(name.clone(), content).is_some() {
            return Err(fault("archive_name_twice", format!("holds `{name}` twice")));
        }
    }
    Ok(files)
}

/// The one spelling of a name.
fn name_of(path: &[u8], is_directory: bool) -> Result<String, BundleError> {
    let refused = || {
        let shown = String::from_utf8_lossy(path).escape_debug().to_string();
        fault("archive_name", format!("`{shown}` is no plain relative name of a file"))
    };
    let text = std::str::from_utf8(path).map_err(|_| refused())?;
    let text = text.strip_prefix('/').or_else(|| text.strip_prefix("./")).unwrap_or(text);
    let text = if is_directory { text.strip_suffix('/').unwrap_or(text) } else { text };
    if is_directory && matches!(text, "" | ".") {
        return Ok(String::new());
    }
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.contains('\\') && !part.chars().any(char::is_control)
    };
    if text.split('/').all(is_plain) { Ok(text.to_owned()) } else { Err(refused()) }
}

/// Sorted, without times, owners or a file name: equal files give equal bytes.
pub(super) fn write(files: &Files) -> Result<Vec<u8>, BundleError> {
    let packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut builder = Builder::new(packed);
    for (name, content) in files {
        let mut header = Header::new_ustar();
        let named = format!("/{name}");
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        set_name(&mut header, &named)?;
        header.set_cksum();
        builder.append(&header, &content[..]).map_err(unreadable)?;
    }
    let packed = builder.into_inner().map_err(unreadable)?;
    let mut bytes = packed.finish().map_err(unreadable)?;
    bytes.flush().map_err(unreadable)?;
    Ok(bytes)
}

/// `Header::set_path` takes no leading `/`, which OPA writes.
fn set_name(header: &mut Header, name: &str) -> Result<(), BundleError> {
    let Some(ustar) = header.as_ustar_mut() else {
        return Err(fault("archive_name", "no room for a name".into()));
    };
    match ustar.name.get_mut(..name.len()) {
        Some(room) => {
            room.copy_from_slice(name.as_bytes());
            Ok(())
        }
        None => Err(fault("archive_name", format!("`{name}` is longer than 100 bytes"))),
    }
}

fn fault(rule: &'static str, message: String) -> BundleError {
    Fault::of_bundle(rule, message).into()
}

fn unreadable(error: io::Error) -> BundleError {
    match error.get_ref().is_some_and(|inner| inner.is::<Over>()) {
        true => fault("archive_ratio", Over.to_string()),
        false => fault("archive_unreadable", format!("cannot be read: {error}")),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unpacks to more than a bundle may hold, or to more than its size allows")]
struct Over;

/// Fails where more comes out than may.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n).ok_or_else(|| io::Error::other(Over))?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(bytes: &[u8]) -> &'static str {
        read(bytes).map_or_else(|error| error.faults()[0].rule, |_| "")
    }

    /// One entry, exactly as it is said, valid or not.
    fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_size(content.len() as u64);
        let ustar = header.as_ustar_mut().expect("ustar");
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
        ustar.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn packed(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut gz = GzBuilder::new().write(Vec::new(), Compression::best());
        entries.iter().for_each(|entry| gz.write_all(entry).expect("a Vec"));
        gz.write_all(&[0; 1024]).expect("a Vec");
        gz.finish().expect("a Vec")
    }

    #[test]
    fn what_is_written_is_read_and_equal_files_are_equal_bytes() {
        let files: Files = [("p/p.rego", "package p\n"), (".manifest", "{}")]
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .into();
        let bytes = write(&files).expect("short names");
        assert_eq!(bytes, write(&files.clone()).expect("short names"));
        assert_eq!(read(&bytes).expect("plain"), files);
    }

    #[test]
    fn a_hostile_archive_is_refused_by_what_is_wrong_with_it() {
        let plain = |name: &str| entry(name, b'0', "", b"package p\n");
        assert_eq!(rule(&packed(&[plain("p.rego"), entry("d/", b'5', "", b"")])), "");
        assert_eq!(rule(&packed(&[plain("/p.rego")])), "", "as OPA writes it");
        for name in
            ["../p.rego", "a/../p.rego", "//p.rego", "a//p.rego", "/", "a/./p.rego", "a\\p.rego", "a\np", ""]
        {
            assert_eq!(rule(&packed(&[plain(name)])), "archive_name", "{name:?}");
        }
        for kind in *b"123467xgLKSV" {
            let linked = entry("p.rego", kind, "/etc/passwd", b"");
            assert_eq!(rule(&packed(&[linked])), "archive_entry_kind", "{}", char::from(kind));
        }
        for twice in ["p.rego", "/p.rego", "./p.rego"] {
            assert_eq!(rule(&packed(&[plain("p.rego"), plain(twice)])), "archive_name_twice");
        }
        let many = vec![entry("d/", b'5', "", b""); limits::POLICY_ARCHIVE_ENTRIES_MAX + 1];
        assert_eq!(rule(&packed(&many)), "archive_entries_over");
        let bomb = vec![entry("zeros", b'0', "", &vec![0; 8 * 1024 * 1024])];
        assert_eq!(rule(&packed(&bomb)), "archive_ratio");
        assert_eq!(rule(&vec![0; limits::POLICY_ARCHIVE_BYTES_MAX + 1]), "archive_too_large");
        assert_eq!(rule(b"no archive"), "archive_unreadable");
        let whole = packed(&[plain("p.rego")]);
        assert_eq!(rule(&whole[..whole.len() / 2]), "archive_unreadable");
        assert_eq!(rule(&[&whole[..], b"x"].concat()), "archive_goes_on");
        let after = packed(&[plain("p.rego"), vec![0; 1024], plain("q.rego")]);
        assert_eq!(rule(&after), "archive_goes_on", "a second archive hides behind the end of the first");
        let mut damaged = plain("p.rego");
        damaged[0] = b'q';
        assert_eq!(rule(&packed(&[damaged])), "archive_unreadable", "the header's checksum");
        let mut cut = plain("p.rego");
        cut[124..136].copy_from_slice(b"00077777777\0");
        assert_ne!(rule(&packed(&[cut])), "", "a size that leads past the end");
    }
}
