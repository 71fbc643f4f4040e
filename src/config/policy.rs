//! Where policy is read from, and whose word a bundle needs.

use std::path::PathBuf;
use std::sync::Arc;

use super::reader::{Reader, read_bounded};
use super::yaml::Node;
use super::{Older, PolicyConfig, SecretsAre, fields, secret};
use crate::limits;
use crate::model::{Digest, Digester};
use crate::policy::{BundleError, BundleKey, Packaged, Signatures, Sources};

/// What is looked at again while the gateway runs.
#[derive(Clone, Debug)]
pub enum PolicySource {
    Dir(PathBuf),
    /// An OPA bundle in one file.
    Bundle {
        path: PathBuf,
        keys: Arc<[BundleKey]>,
        signatures: Signatures,
    },
}

/// What was found there.
#[derive(Debug)]
pub struct FoundPolicy {
    pub sources: Sources,
    /// Of all of it, tests included.
    pub digest: Digest,
    /// Of a bundle whose signature was checked.
    pub version: Option<u64>,
}

impl PolicySource {
    /// Reads it whole; blocks.
    pub fn read(&self) -> Result<FoundPolicy, BundleError> {
        match self {
            Self::Dir(dir) => {
                let sources = Sources::read(dir)?;
                Ok(FoundPolicy { digest: sources.digest(), sources, version: None })
            }
            Self::Bundle { path, keys, signatures } => {
                let bytes = crate::policy::read_archive(path)?;
                let packaged = Packaged::read(&bytes, keys, *signatures)?;
                // A version that nobody vouches for is none.
                let version = packaged.version.filter(|_| packaged.signed_by.is_some());
                let mut digester = Digester::new();
                digester.update(packaged.sources.digest().as_bytes());
                digester.update(version.map(u64::to_be_bytes).as_ref().map_or(&[][..], |bytes| &bytes[..]));
                Ok(FoundPolicy { digest: digester.finish(), sources: packaged.sources, version })
            }
        }
    }

    /// Whether what is there may have a version, so that going back shows.
    pub fn has_versions(&self) -> bool {
        matches!(self, Self::Bundle { .. })
    }

    /// For people.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Dir(path) | Self::Bundle { path, .. } => path,
        }
    }
}

pub fn read(reader: &mut Reader<'_>, node: &Node, secrets: SecretsAre) -> Option<PolicyConfig> {
    let fields = reader.fields(node, &fields::POLICY)?;
    let required = reader.flag(&fields, "require_signature")?;
    let has_keys = fields.optional("keys").is_some();
    let keys = match fields.optional("keys") {
        Some(keys) => read_keys(reader, keys, secrets)?,
        None => Vec::new(),
    };
    let source = match (fields.optional("dir"), fields.optional("bundle")) {
        (Some(node), None) => {
            if fields.optional("keys").is_some() {
                reader.error(fields.place("keys"), "a directory has no signature; `keys` are for a `bundle`");
            }
            let dir = reader.path(node)?;
            if !dir.is_dir() {
                reader.error(node.at, format!("{} is not a directory that can be read", dir.display()));
            }
            PolicySource::Dir(dir)
        }
        (None, Some(node)) => {
            let path = reader.path(node)?;
            if required && !has_keys {
                let message = "pin the keys that may sign it in `keys`, or say `require_signature: false`";
                reader.error(node.at, message);
            }
            let signatures = if required { Signatures::Required } else { Signatures::Checked };
            PolicySource::Bundle { path, keys: keys.into(), signatures }
        }
        (Some(_), Some(_)) | (None, None) => {
            reader.error(node.at, "exactly one of `dir` and `bundle`");
            return None;
        }
    };
    let older = match fields.optional("older") {
        Some(node) => Some(read_older(reader, node, &source)?),
        None => None,
    };
    Some(PolicyConfig { source, older })
}

fn read_older(reader: &mut Reader<'_>, node: &Node, source: &PolicySource) -> Option<Older> {
    if !source.has_versions() {
        reader.error(node.at, "a directory has no version; `older` is for a `bundle`");
    }
    let fields = reader.fields(node, &fields::POLICY_OLDER)?;
    let revision = fields.optional("revision")?;
    let than = fields.optional("than")?;
    let digest = reader.text(revision, "a revision")?.parse();
    let not_one = |why| format!("a revision, as `policy inspect` prints it: {why}");
    let digest = digest.map_err(|why| reader.error(revision.at, not_one(why))).ok();
    let version = reader.text(than, "a version")?;
    let version = version.parse().ok().filter(|_| version.bytes().all(|b| b.is_ascii_digit()));
    if version.is_none() {
        reader.error(than.at, "`than` is the highest version that the log has seen, a whole number");
    }
    Some(Older { revision: digest?, than: version? })
}

fn read_keys(reader: &mut Reader<'_>, node: &Node, secrets: SecretsAre) -> Option<Vec<BundleKey>> {
    let mut keys: Vec<BundleKey> = Vec::new();
    for item in reader.items(node, "keys")? {
        let fields = reader.fields(item, &fields::POLICY_KEY)?;
        let id = reader.text(fields.optional("id")?, "the key's id")?;
        if keys.iter().any(|key| key.id() == id) {
            reader.error(item.at, format!("two keys have the id `{id}`"));
        }
        let scope = match fields.optional("scope") {
            Some(scope) => reader.text(scope, "a scope")?,
            None => "",
        };
        let key = match (fields.optional("public_key"), fields.optional("secret")) {
            (Some(node), None) => {
                let path = reader.path(node)?;
                let read = read_bounded(&path).and_then(|pem| BundleKey::public(id, &pem, scope));
                read.map_err(|why| reader.error(node.at, format!("{}: {why}", path.display()))).ok()
            }
            (None, Some(node)) => {
                let path = reader.path(node)?;
                match secret::read_private(&path).and_then(|bytes| BundleKey::secret(id, &bytes, scope)) {
                    Ok(key) => Some(key),
                    Err(why) if secrets == SecretsAre::Optional => {
                        reader.warn(node.at, format!("{}: {why}", path.display()));
                        None
                    }
                    Err(why) => {
                        reader.error(node.at, format!("{}: {why}", path.display()));
                        None
                    }
                }
            }
            (Some(_), Some(_)) | (None, None) => {
                reader.error(item.at, "exactly one of `public_key` and `secret`");
                None
            }
        };
        keys.extend(key);
        if keys.len() > limits::POLICY_KEYS_MAX {
            reader.error(node.at, format!("at most {} keys", limits::POLICY_KEYS_MAX));
        }
    }
    Some(keys)
}
