//! The files of a bundle, read whole and bounded, before anything parses them.
//!
//! In: a directory, or named bytes (replay, tests). Out: Rego files, test files and data documents, each
//! sorted by name. `*_test.rego` is a test; any other `*.rego` decides; `a/b.json` is the document
//! `data.a.b`; `*.schema.json`, hidden names and everything else are no part of a bundle. A symbolic
//! link to a file is followed only inside the root (as mounted config volumes have them).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::fault::{BundleError, Fault};
use super::opa;
use crate::canonical::json::{self, Bounds};
use crate::limits;
use crate::model::{Digest, Digester, Json};

/// A Rego file.
#[derive(Clone, Debug)]
pub struct RegoFile {
    pub name: Arc<str>,
    pub text: Arc<str>,
    pub sha256: Digest,
}

/// A data document and the path under `data` where it stands.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub name: Arc<str>,
    pub sha256: Digest,
    pub mount: Vec<Arc<str>>,
    pub value: Json,
    /// As it was read: what `sha256` is of.
    pub bytes: Bytes,
}

/// A file that decides, as it was read: evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFile {
    /// Relative to the bundle's root, with `/`.
    pub name: Arc<str>,
    pub bytes: Bytes,
}

/// Everything a bundle is made of, each list sorted by name.
#[derive(Clone, Debug)]
pub struct Sources {
    pub policies: Vec<RegoFile>,
    pub tests: Vec<RegoFile>,
    pub data: Vec<DataFile>,
    /// Paths under `data` that a bundle says it owns; `None`: it does not say.
    pub roots: Option<Vec<Arc<str>>>,
}

impl Sources {
    /// Reads a directory and everything below it.
    pub fn read(root: &Path) -> Result<Self, BundleError> {
        Self::from_files(Found::all(root)?)
    }

    /// What a person names, to be tested together: directories, bundles (`.tar.gz`, whoever signed them) and single Rego
    /// files. `data.json` of a directory is the document of its place, as OPA has it. Of several paths, a file's name
    /// begins with its path.
    pub fn read_all(paths: &[PathBuf]) -> Result<Self, BundleError> {
        let mut all = Self { policies: Vec::new(), tests: Vec::new(), data: Vec::new(), roots: None };
        let mut faults = Vec::new();
        for path in paths {
            let read = match (path.is_dir(), path.extension().is_some_and(|e| e == "rego")) {
                (true, _) => Self::read_as_opa(path),
                (false, true) => single(path).and_then(|file| Self::from_files([file])),
                (false, false) => opa::read_archive(path)
                    .and_then(|bytes| opa::Packaged::read(&bytes, &[], opa::Signatures::Shown))
                    .map(|packaged| packaged.sources),
            };
            let mut read = match read {
                Ok(read) => read,
                Err(error) => {
                    faults.extend_from_slice(error.faults());
                    continue;
                }
            };
            if paths.len() > 1 && path.is_dir() {
                let parts = path.components().filter_map(|part| match part {
                    std::path::Component::Normal(part) => part.to_str(),
                    _ => None,
                });
                let before = parts.collect::<Vec<_>>().join("/");
                for file in read.policies.iter_mut().chain(&mut read.tests) {
                    file.name = format!("{before}/{}", file.name).into();
                }
            }
            all.policies.append(&mut read.policies);
            all.tests.append(&mut read.tests);
            all.data.append(&mut read.data);
        }
        for files in [&mut all.policies, &mut all.tests] {
            files.sort_by(|a, b| a.name.cmp(&b.name));
            if let Some(pair) = files.windows(2).find(|pair| pair[0].name == pair[1].name) {
                faults.push(Fault::of_file(&pair[0].name, "named_twice", "is among the files twice".into()));
            }
        }
        faults.extend(nested_documents(&all.data));
        BundleError::unless_none(faults)?;
        Ok(all)
    }

    /// One directory or bundle, as a gateway reads it.
    pub fn read_bundle(path: &Path) -> Result<Self, BundleError> {
        if path.is_dir() {
            return Self::read(path);
        }
        let bytes = opa::read_archive(path)?;
        Ok(opa::Packaged::read(&bytes, &[], opa::Signatures::Shown)?.sources)
    }

    fn read_as_opa(root: &Path) -> Result<Self, BundleError> {
        let found = Found::all(root)?;
        let mut files = Vec::new();
        for (name, bytes) in found {
            match name.strip_suffix("data.json") {
                Some("") => match opa::members(&bytes) {
                    Ok(members) => files.extend(members),
                    Err(why) => return Err(Fault::of_file(&name.into(), "data_invalid", why).into()),
                },
                Some(place) if place.ends_with('/') => {
                    files.push((format!("{}.json", place.trim_end_matches('/')), bytes));
                }
                Some(_) | None => files.push((name, bytes)),
            }
        }
        Self::from_files(files)
    }

    /// The same from memory: names relative to the root, with `/`.
    pub fn from_files(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, BundleError> {
        let mut faults = Vec::new();
        let mut sources = Self { policies: Vec::new(), tests: Vec::new(), data: Vec::new(), roots: None };
        let mut bytes_total = 0;
        let files: BTreeMap<String, Vec<u8>> = files.into_iter().collect();
        if files.len() > limits::POLICY_FILES_MAX {
            faults.push(Fault::of_bundle(
                "files_over",
                format!("{} files, at most {}", files.len(), limits::POLICY_FILES_MAX),
            ));
        }
        for (name, bytes) in files {
            let name: Arc<str> = name.into();
            bytes_total += bytes.len();
            if bytes.len() > limits::POLICY_FILE_BYTES_MAX {
                faults.push(file_too_large(&name, bytes.len() as u64));
                continue;
            }
            let read = match Kind::of(&name) {
                Kind::Policy => rego(&name, bytes).map(|f| sources.policies.push(f)),
                Kind::Test => rego(&name, bytes).map(|f| sources.tests.push(f)),
                Kind::Data => data(&name, bytes).map(|f| sources.data.push(f)),
                Kind::Other => Ok(()),
            };
            faults.extend(read.err());
        }
        if bytes_total > limits::POLICY_BUNDLE_BYTES_MAX {
            faults.push(Fault::of_bundle(
                "bundle_too_large",
                format!("{bytes_total} bytes, at most {}", limits::POLICY_BUNDLE_BYTES_MAX),
            ));
        }
        faults.extend(nested_documents(&sources.data));
        BundleError::unless_none(faults)?;
        Ok(sources)
    }

    /// Of every name and byte, tests included: whether anything changed.
    pub fn digest(&self) -> Digest {
        let rego = self.policies.iter().chain(&self.tests).map(|f| (&f.name, f.sha256));
        let data = self.data.iter().map(|f| (&f.name, f.sha256));
        let mut digester = Digester::new();
        for (name, sha256) in rego.chain(data) {
            // Digests of a fixed length, so that no byte can move from one to the next.
            digester.update(Digest::of(name.as_bytes()).as_bytes());
            digester.update(sha256.as_bytes());
        }
        digester.finish()
    }

    /// Every file that decides, sorted by name: Rego and data, no tests.
    pub fn deciding(&self) -> Vec<BundleFile> {
        let policies = self.policies.iter().map(|f| (&f.name, Bytes::copy_from_slice(f.text.as_bytes())));
        let data = self.data.iter().map(|f| (&f.name, f.bytes.clone()));
        let files = policies.chain(data).map(|(name, bytes)| BundleFile { name: name.clone(), bytes });
        let mut files: Vec<_> = files.collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    }

    /// All documents as one object.
    pub(in crate::policy) fn data_document(&self) -> Json {
        let mut root = Tree::default();
        for file in &self.data {
            root.put(&file.mount, &file.value);
        }
        root.into_json()
    }
}

enum Kind {
    Policy,
    Test,
    Data,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let hidden = name.split('/').any(|part| part.starts_with('.'));
        if hidden || name.ends_with(".schema.json") {
            Self::Other
        } else if name.ends_with("_test.rego") {
            Self::Test
        } else if name.ends_with(".rego") {
            Self::Policy
        } else if name.ends_with(".json") {
            Self::Data
        } else {
            Self::Other
        }
    }
}

#[derive(Default)]
struct Found {
    files: Vec<(String, Vec<u8>)>,
    faults: Vec<Fault>,
}

impl Found {
    fn all(root: &Path) -> Result<Vec<(String, Vec<u8>)>, BundleError> {
        let mut found = Self::default();
        match fs::canonicalize(root) {
            Ok(real) => found.directory(&real, &real, 0),
            Err(e) => found.fault("", "unreadable", format!("{} cannot be read: {e}", root.display())),
        }
        BundleError::unless_none(found.faults)?;
        Ok(found.files)
    }

    fn fault(&mut self, name: &str, rule: &'static str, message: String) {
        self.faults.push(Fault::of_file(&name.into(), rule, message));
    }

    fn directory(&mut self, root: &Path, directory: &Path, depth: usize) {
        let shown = name_of(root, directory).unwrap_or_default();
        if depth > limits::POLICY_DIRECTORY_DEPTH_MAX {
            let message = format!("directories nest deeper than {}", limits::POLICY_DIRECTORY_DEPTH_MAX);
            return self.fault(&shown, "directory_too_deep", message);
        }
        let entries: Result<Vec<PathBuf>, _> =
            fs::read_dir(directory).and_then(|all| all.map(|e| e.map(|e| e.path())).collect());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(e) => return self.fault(&shown, "unreadable", format!("cannot be read: {e}")),
        };
        entries.sort();
        for path in entries {
            let Some(name) = name_of(root, &path) else {
                self.fault(&shown, "name_not_utf8", "holds a name that is not UTF-8".into());
                continue;
            };
            if path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            if self.files.len() > limits::POLICY_FILES_MAX {
                return; // from_files reports it
            }
            self.entry(root, &path, name, depth);
        }
    }

    fn entry(&mut self, root: &Path, path: &Path, name: String, depth: usize) {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(e) => return self.fault(&name, "unreadable", format!("cannot be read: {e}")),
        };
        if metadata.is_dir() {
            return self.directory(root, path, depth + 1);
        }
        if matches!(Kind::of(&name), Kind::Other) {
            return;
        }
        let real = match fs::canonicalize(path) {
            Ok(real) if real.starts_with(root) => real,
            Ok(_) => {
                let message = "is a symbolic link out of the bundle; copy the file into it".to_string();
                return self.fault(&name, "link_escapes", message);
            }
            Err(e) => return self.fault(&name, "unreadable", format!("cannot be read: {e}")),
        };
        match read_bounded(&real) {
            Ok(bytes) => self.files.push((name, bytes)),
            Err(e) => self.fault(&name, "unreadable", format!("cannot be read: {e}")),
        }
    }
}

/// One byte over the bound is enough to see that a file is too large.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    file.take(limits::POLICY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that stands alone, by its own name.
fn single(path: &Path) -> Result<(String, Vec<u8>), BundleError> {
    let unreadable =
        |why: String| BundleError::from(Fault::of_bundle("unreadable", format!("{} {why}", path.display())));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| unreadable("has no name that is UTF-8".into()))?;
    let bytes = read_bounded(path).map_err(|e| unreadable(format!("cannot be read: {e}")))?;
    Ok((name.to_owned(), bytes))
}

fn name_of(root: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> =
        path.strip_prefix(root).ok()?.components().map(|c| c.as_os_str().to_str()).collect();
    Some(parts?.join("/"))
}

fn file_too_large(name: &Arc<str>, bytes: u64) -> Fault {
    let message = format!("is {bytes} bytes or more, at most {}", limits::POLICY_FILE_BYTES_MAX);
    Fault::of_file(name, "file_too_large", message)
}

fn rego(name: &Arc<str>, bytes: Vec<u8>) -> Result<RegoFile, Fault> {
    let sha256 = Digest::of(&bytes);
    match String::from_utf8(bytes) {
        Ok(text) => Ok(RegoFile { name: name.clone(), text: text.into(), sha256 }),
        Err(_) => Err(Fault::of_file(name, "not_utf8", "is not UTF-8".into())),
    }
}

fn data(name: &Arc<str>, bytes: Vec<u8>) -> Result<DataFile, Fault> {
    let stem = name.strip_suffix(".json").unwrap_or(name);
    let mount: Vec<Arc<str>> = stem.split('/').map(Arc::from).collect();
    if mount.last().is_some_and(|last| &**last == "data") {
        let message = "a document is named after what it holds: `ref/limits.json` is `data.ref.limits`; `data.json` \
                       would be `data.…data` here and something else elsewhere";
        return Err(Fault::of_file(name, "data_name", message.into()));
    }
    let is_identifier = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if !mount.iter().all(|part| is_identifier(part)) {
        let message = "every part of a document's path must be a plain identifier, as in `data.ref.limits`";
        return Err(Fault::of_file(name, "data_name", message.into()));
    }
    let value = read_json(&bytes).map_err(|e| Fault::of_file(name, "data_invalid", e))?;
    Ok(DataFile { name: name.clone(), sha256: Digest::of(&bytes), mount, value, bytes: bytes.into() })
}

/// The strict reader: no duplicate names, no number that a double cannot hold exactly.
fn read_json(bytes: &[u8]) -> Result<Json, String> {
    let bounds = Bounds { depth_max: limits::JSON_DEPTH_MAX, values_max: limits::POLICY_DATA_VALUES_MAX };
    json::parse(bytes, bounds).map_err(|malformed| {
        let place = malformed.place.map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{}{place}", malformed.code.title())
    })
}

/// A document inside another document's place would hide part of it.
fn nested_documents(data: &[DataFile]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for inner in data {
        for outer in data {
            if inner.mount.len() > outer.mount.len() && inner.mount.starts_with(&outer.mount) {
                let message = format!("stands inside the document of {}; merge the two", outer.name);
                faults.push(Fault::of_file(&inner.name, "data_overlap", message));
            }
        }
    }
    faults
}

#[derive(Default)]
struct Tree<'a>(BTreeMap<Arc<str>, Branch<'a>>);

enum Branch<'a> {
    Node(Tree<'a>),
    Document(&'a Json),
}

impl<'a> Tree<'a> {
    fn put(&mut self, mount: &[Arc<str>], value: &'a Json) {
        match mount {
            [] => {}
            [last] => {
                self.0.insert(last.clone(), Branch::Document(value));
            }
            [first, rest @ ..] => {
                let node = self.0.entry(first.clone()).or_insert_with(|| Branch::Node(Tree::default()));
                if let Branch::Node(tree) = node {
                    tree.put(rest, value);
                }
            }
        }
    }

    fn into_json(self) -> Json {
        let members = self.0.into_iter().map(|(name, branch)| {
            let value = match branch {
                Branch::Node(tree) => tree.into_json(),
                Branch::Document(value) => value.clone(),
            };
            (name, value)
        });
        Json::Object(crate::model::Object::new(members.collect()).expect("names of a map differ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: Vec<(String, Vec<u8>)>) -> Vec<&'static str> {
        match Sources::from_files(files) {
            Ok(_) => Vec::new(),
            Err(e) => e.faults().iter().map(|f| f.rule).collect(),
        }
    }

    fn named(names: &[&str]) -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| (name.to_string(), b"{}".to_vec())).collect()
    }

    #[test]
    fn names_decide_what_a_file_is() {
        let names = [
            "b.rego",
            "a/a.rego",
            "a/a_test.rego",
            "ref/l.json",
            "input.schema.json",
            "README.md",
            ".x/y.rego",
        ];
        let sources = Sources::from_files(named(&names)).expect("sources");
        let names = |files: &[RegoFile]| files.iter().map(|f| f.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&sources.policies), ["a/a.rego", "b.rego"]);
        assert_eq!(names(&sources.tests), ["a/a_test.rego"]);
        assert_eq!(sources.data_document(), Json::object([("ref", Json::object([("l", Json::object([]))]))]));
    }

    #[test]
    fn number_and_size_of_files_are_bounded() {
        let many: Vec<String> = (0..=limits::POLICY_FILES_MAX).map(|n| format!("f{n}.rego")).collect();
        assert_eq!(rules(many.iter().map(|n| (n.clone(), Vec::new())).collect()), ["files_over"]);
        assert_eq!(rules(many[1..].iter().map(|n| (n.clone(), Vec::new())).collect()), [""; 0]);
        let large = |bytes| vec![("a.rego".to_string(), vec![b' '; bytes])];
        assert_eq!(rules(large(limits::POLICY_FILE_BYTES_MAX)), [""; 0]);
        assert_eq!(rules(large(limits::POLICY_FILE_BYTES_MAX + 1)), ["file_too_large"]);
        let each = limits::POLICY_FILE_BYTES_MAX;
        let count = limits::POLICY_BUNDLE_BYTES_MAX / each + 1;
        let full = (0..count).map(|n| (format!("f{n}.rego"), vec![b' '; each])).collect();
        assert_eq!(rules(full), ["bundle_too_large"]);
    }

    #[test]
    fn text_must_be_utf8_and_document_names_plain() {
        assert_eq!(rules(vec![("a.rego".into(), vec![0xff])]), ["not_utf8"]);
        assert_eq!(rules(named(&["ref/a-b.json"])), ["data_name"]);
        assert_eq!(rules(named(&["data.json"])), ["data_name"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_out_of_the_bundle_is_refused_and_one_inside_is_followed() {
        use std::os::unix::fs::symlink;
        let outside = tempfile::tempdir().expect("directory");
        let secret = outside.path().join("secret.json");
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/ref/limits.json"), &secret).expect("copy");
        let bundle = tempfile::tempdir().expect("directory");
        fs::create_dir(bundle.path().join("..2026")).expect("directory");
        fs::copy(&secret, bundle.path().join("..2026/limits.json")).expect("copy");
        symlink("..2026/limits.json", bundle.path().join("limits.json")).expect("link");
        let inside = Sources::read(bundle.path()).expect("a mounted config volume looks like this");
        assert_eq!(inside.data.len(), 1);
        symlink(&secret, bundle.path().join("secret.json")).expect("link");
        let error = Sources::read(bundle.path()).expect_err("escapes");
        assert_eq!(error.faults().iter().map(|f| f.rule).collect::<Vec<_>>(), ["link_escapes"]);
    }

    #[test]
    fn directories_are_bounded_in_depth() {
        let bundle = tempfile::tempdir().expect("directory");
        let deep: PathBuf = (0..=limits::POLICY_DIRECTORY_DEPTH_MAX).map(|_| "d").collect();
        fs::create_dir_all(bundle.path().join(deep)).expect("directories");
        let error = Sources::read(bundle.path()).expect_err("too deep");
        assert_eq!(error.faults()[0].rule, "directory_too_deep");
    }

    #[test]
    fn a_missing_directory_says_so() {
        let error = Sources::read(Path::new("/nonexistent/policies")).expect_err("missing");
        assert_eq!(error.faults()[0].rule, "unreadable");
    }
}
