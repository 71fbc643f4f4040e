//! OPA bundles: the same files as a directory's, in one `.tar.gz`, with a manifest and a signature.
//!
//! In: the bytes of a bundle and the keys that are pinned. Out: [`Sources`], of which a revision is the same whether they
//! came as a directory or as the bundle that was built of it: `ref/limits/data.json` of a bundle, as OPA names it, is
//! `ref/limits.json` of a directory. A `data.json` at the root is taken apart by its members, each a document of its own
//! in RFC 8785 form. What OPA would read and this gateway does not (`data.yaml`, WebAssembly, plans) is refused; other
//! names decide nothing, and are no part of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::archive::{self, Files};
use super::fault::{BundleError, Fault};
use super::signature::{self, BundleKey, SigningKey};
use super::source::Sources;
use crate::canonical::json::{self, Bounds};
use crate::limits;
use crate::model::{Digest, Json, Number, Object};

pub(super) const MANIFEST: &str = ".manifest";
/// In the manifest's `metadata`: what must not go down.
const VERSION: &str = "interlock_version";

/// A bundle as it was read, before its policy was looked at.
#[derive(Debug)]
pub struct Packaged {
    pub sources: Sources,
    /// As its builder called it; nothing rests on it.
    pub label: Option<Arc<str>>,
    /// The key that signed it, by its pinned id.
    pub signed_by: Option<Arc<str>>,
    pub version: Option<u64>,
}

/// What is taken of a bundle's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// It must be there, by a pinned key.
    Required,
    /// If it is there, it must be by a pinned key.
    Checked,
    /// Not looked at: nobody acts on what is read.
    Shown,
}

impl Packaged {
    /// Blocks for as long as unpacking takes.
    pub fn read(bytes: &[u8], keys: &[BundleKey], signatures: Signatures) -> Result<Self, BundleError> {
        let files = archive::read(bytes)?;
        let is_signed = files.contains_key(signature::FILE);
        let signed_by = match signatures {
            Signatures::Required | Signatures::Checked if is_signed => Some(signature::verify(&files, keys)?),
            Signatures::Required => {
                let message = format!("has no `{}`, and the config requires one", signature::FILE);
                return Err(Fault::of_bundle("signature_missing", message).into());
            }
            Signatures::Checked | Signatures::Shown => None,
        };
        let Manifest { label, version, roots } = Manifest::of(&files)?;
        let mut sources = Sources::from_files(directory(files)?)?;
        sources.roots = roots;
        Ok(Self { sources, label, signed_by, version })
    }

    /// The bundle of these files: the same bytes for the same files. The signature covers the version.
    pub fn build(
        sources: &Sources,
        revision: Digest,
        version: Option<u64>,
        key: Option<&SigningKey>,
    ) -> Result<Vec<u8>, BundleError> {
        let mut files = Files::new();
        for file in sources.policies.iter().chain(&sources.tests) {
            files.insert(file.name.to_string(), file.text.as_bytes().to_vec());
        }
        for document in &sources.data {
            let stem = document.name.strip_suffix(".json").unwrap_or(&document.name);
            files.insert(format!("{stem}/data.json"), document.bytes.to_vec());
        }
        let mut members = vec![("revision", Json::string(&revision.to_string()))];
        if let Some(version) = version {
            members.push(("metadata", Json::object([(VERSION, number(version)?)])));
        }
        members.push(("rego_version", number(1)?));
        members.push(("roots", Json::Array(vec![Json::string("")])));
        files.insert(MANIFEST.to_owned(), json::write(&object_of(members)));
        if let Some(key) = key {
            let signed = signature::sign(&files, key)?;
            files.insert(signature::FILE.to_owned(), signed);
        }
        archive::write(&files)
    }
}

/// Names that differ.
pub(super) fn object_of(members: Vec<(&str, Json)>) -> Json {
    let members = members.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Json::Object(Object::new(members).expect("the caller's names are literals, each once"))
}

fn number(whole: u64) -> Result<Json, BundleError> {
    // Below 2^53 a double is exact.
    let number = (whole < 1 << 53).then(|| Number::new(whole as f64)).flatten();
    let fault = || Fault::of_bundle("version_invalid", "a version is a whole number below 2^53".into());
    Ok(Json::Number(number.ok_or_else(fault)?))
}

/// A bundle's bytes, as far as a bundle may go.
pub fn read_archive(path: &Path) -> Result<Vec<u8>, BundleError> {
    let unreadable = |error: io::Error| {
        BundleError::from(Fault::of_bundle(
            "unreadable",
            format!("{} cannot be read: {error}", path.display()),
        ))
    };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("not a file")));
    }
    let mut bytes = Vec::new();
    // One byte over the bound is enough to see that it is too large.
    file.take(limits::POLICY_ARCHIVE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// The names a directory would have.
fn directory(files: Files) -> Result<Vec<(String, Vec<u8>)>, BundleError> {
    let mut named = Vec::new();
    let mut faults = Vec::new();
    for (name, bytes) in files {
        let of_file = |rule, message: &str| Fault::of_file(&name.as_str().into(), rule, message.into());
        let base = name.rsplit('/').next().unwrap_or(&name);
        match base {
            "data.yaml" | "data.yml" => {
                faults.push(of_file("data_yaml", "is YAML; write it as `data.json`, which has one reading"));
            }
            "data.json" => match name.strip_suffix("/data.json") {
                Some(place) => named.push((format!("{place}.json"), bytes)),
                None => match members(&bytes) {
                    Ok(members) => named.extend(members),
                    Err(why) => faults.push(of_file("data_invalid", &why)),
                },
            },
            _ if base.ends_with(".wasm") || base == "plan.json" || base == "patch.json" => {
                let message = "is compiled policy or a delta; a bundle holds its Rego and data whole";
                faults.push(of_file("bundle_kind", message));
            }
            _ if base.ends_with(".json") && !base.ends_with(".schema.json") && !base.starts_with('.') => {
                let message = "is no document of an OPA bundle, where every document is called `data.json`";
                faults.push(of_file("data_name", message));
            }
            _ => named.push((name, bytes)),
        }
    }
    let mut names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("`{}` comes from two documents; merge them", pair[0]);
        faults.push(Fault::of_bundle("data_overlap", message));
    }
    BundleError::unless_none(faults)?;
    Ok(named)
}

/// Of a `data.json` at the root: one document each.
pub(super) fn members(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let document = object(bytes, limits::POLICY_DATA_VALUES_MAX)?;
    let members = document.members().iter();
    Ok(members.map(|(name, value)| (format!("{name}.json"), json::write(value))).collect())
}

fn object(bytes: &[u8], values_max: usize) -> Result<Object, String> {
    let bounds = Bounds { depth_max: limits::JSON_DEPTH_MAX, values_max };
    match json::parse(bytes, bounds) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_)) => {
            Err("is no JSON object".into())
        }
        Err(malformed) => Err(format!("is not strict JSON: {}", malformed.code.title())),
    }
}

#[derive(Default)]
struct Manifest {
    label: Option<Arc<str>>,
    version: Option<u64>,
    roots: Option<Vec<Arc<str>>>,
}

impl Manifest {
    fn of(files: &Files) -> Result<Self, BundleError> {
        match files.get(MANIFEST) {
            None => Ok(Self::default()),
            Some(bytes) => Self::parse(bytes)
                .map_err(|why| Fault::of_file(&MANIFEST.into(), "manifest_invalid", why).into()),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut manifest = Self::default();
        for (name, value) in object(bytes, limits::JSON_VALUES_MAX)?.members() {
            match &**name {
                "revision" => {
                    manifest.label = Some(value.as_str().ok_or("`revision` is no text")?.into());
                }
                "roots" => {
                    let Json::Array(items) = value else { return Err("`roots` is no list".into()) };
                    let roots = items.iter().map(|root| root.as_str().map(|r| r.trim_matches('/').into()));
                    manifest.roots = Some(roots.collect::<Option<_>>().ok_or("a root is no text")?);
                }
                "rego_version" => {
                    let is_v1 = matches!(value, Json::Number(n) if n.as_exact_i64() == Some(1));
                    if !is_v1 {
                        return Err("`rego_version` must be 1".into());
                    }
                }
                "metadata" => {
                    let metadata = value.as_object().ok_or("`metadata` is no object")?;
                    manifest.version = metadata.member(VERSION).map(version).transpose()?;
                }
                other => return Err(format!("`{other}` is nothing this gateway knows what to do with")),
            }
        }
        Ok(manifest)
    }
}

fn version(value: &Json) -> Result<u64, String> {
    let whole = match value {
        Json::Number(n) => n.as_exact_i64().and_then(|n| u64::try_from(n).ok()),
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    };
    whole
        .filter(|n| *n < 1 << 53)
        .ok_or_else(|| format!("`metadata.{VERSION}` is no whole number below 2^53"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Bundle;

    const P: &str = "package p\n\npermit contains \"a\" if input.x == data.ref.limits.x\n";

    fn sources(files: &[(&str, &str)]) -> Sources {
        let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
        Sources::from_files(files).expect("sources")
    }

    fn packed(files: &[(&str, &str)]) -> Vec<u8> {
        let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
        archive::write(&files.collect()).expect("short names")
    }

    fn read(bytes: &[u8]) -> Result<Packaged, BundleError> {
        Packaged::read(bytes, &[], Signatures::Checked)
    }

    fn rule(files: &[(&str, &str)]) -> &'static str {
        let loaded = read(&packed(files)).and_then(|packaged| Bundle::from_sources(packaged.sources, &[]));
        loaded.map_or_else(|error| error.faults()[0].rule, |_| "")
    }

    #[test]
    fn a_directory_and_the_bundle_built_of_it_have_one_revision() {
        let own = sources(&[
            ("p/p.rego", P),
            ("ref/limits.json", "{\"x\": 1.0}"),
            ("p/p_test.rego", "package t\n"),
        ]);
        let bundle = Bundle::from_sources(own.clone(), &[]).expect("loads");
        let bytes = Packaged::build(&own, bundle.revision(), Some(7), None).expect("builds");
        assert_eq!(bytes, Packaged::build(&own, bundle.revision(), Some(7), None).expect("builds"));
        let packaged = read(&bytes).expect("reads");
        assert_eq!((packaged.version, packaged.signed_by), (Some(7), None));
        assert_eq!(packaged.label.as_deref(), Some(&*bundle.revision().to_string()));
        assert_eq!(packaged.sources.digest(), own.digest());
        let again = Bundle::from_sources(packaged.sources, &[]).expect("loads");
        assert_eq!(again.revision(), bundle.revision());
    }

    #[test]
    fn a_bundle_as_opa_writes_it_is_read_and_the_rest_is_refused_by_name() {
        let p = ("p/p.rego", P);
        let root = ("data.json", "{\"ref\":{\"limits\":{\"x\":1}}}");
        assert_eq!(rule(&[p, root, (".manifest", "{\"revision\":\"\",\"roots\":[\"p\",\"ref\"]}")]), "");
        assert_eq!(rule(&[p, ("ref/limits/data.json", "{\"x\":1}")]), "");
        for (file, expected) in [
            (("ref/data.yaml", "x: 1"), "data_yaml"),
            (("ref/limits.json", "{}"), "data_name"),
            (("policy.wasm", ""), "bundle_kind"),
            (("patch.json", "{}"), "bundle_kind"),
            (("data.json", "{\"a\":1,\"a\":2}"), "data_invalid"),
            (("data.json", "[]"), "data_invalid"),
            ((".manifest", "{\"roots\":[\"p\"]}"), "roots"),
            ((".manifest", "{\"roots\":[]}"), "roots"),
            ((".manifest", "{\"roots\":\"p\"}"), "manifest_invalid"),
            ((".manifest", "{\"rego_version\":0}"), "manifest_invalid"),
            ((".manifest", "{\"wasm\":[]}"), "manifest_invalid"),
            ((".manifest", "{\"metadata\":{\"interlock_version\":-1}}"), "manifest_invalid"),
            ((".manifest", "{\"metadata\":{\"interlock_version\":\"1\"}}"), "manifest_invalid"),
        ] {
            let mut files = vec![p, file];
            if file.0 != "data.json" {
                files.push(root);
            }
            assert_eq!(rule(&files), expected, "{file:?}");
        }
        assert_eq!(rule(&[p, ("ref/data.json", "{}"), root]), "data_overlap");
    }
}
