//! What identity rests on in files, read again while the gateway runs.
//!
//! In: the files that a valid config named. Out: the same slots, filled anew, after the same checks as at the start; or
//! why not, and then what was in force stays so. A file's bytes decide whether it changed, never its date.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::reader::{Reader, read_bounded};
use super::yaml;
use super::{ListenerName, admin, keys, secret, tls};
use crate::admin::{Operators, SharedOperators};
use crate::authority::{Algorithm, ApiKeys, KeySet, KeySource, SharedApiKeys};
use crate::clock::Clock;
use crate::ingress::SharedTls;
use crate::model::{Digest, Digester, SurfaceName};

/// One thing that is exchanged as a whole.
#[derive(Debug)]
pub enum Part {
    Tls {
        listener: ListenerName,
        paths: tls::Paths,
        slot: SharedTls,
    },
    ApiKeys {
        path: PathBuf,
        slot: SharedApiKeys,
        surfaces: BTreeSet<SurfaceName>,
        operators: SharedOperators,
    },
    KeySet {
        path: PathBuf,
        algorithms: Vec<Algorithm>,
        source: Arc<KeySource>,
    },
    AdminTls {
        paths: tls::Paths,
        slot: SharedTls,
    },
    Operators {
        path: PathBuf,
        slot: SharedOperators,
        takes: admin::Takes,
        keys: SharedApiKeys,
        /// Of the config, which changes only with a restart.
        workloads: admin::Workloads,
    },
}

/// A part, and the digest of what was read of it at the start.
#[derive(Debug)]
pub struct IdentityPart {
    part: Part,
    digest: Digest,
}

/// The bytes of a part's files, in the order of its paths.
pub struct Files {
    bytes: Vec<Zeroizing<Vec<u8>>>,
    digest: Digest,
}

impl Files {
    pub fn of(bytes: Vec<Zeroizing<Vec<u8>>>) -> Self {
        let mut digester = Digester::new();
        // Digests of a fixed length, so that no byte can move from one file to the next.
        bytes.iter().for_each(|file| digester.update(Digest::of(file).as_bytes()));
        Self { digest: digester.finish(), bytes }
    }

    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl IdentityPart {
    pub fn new(part: Part, files: &Files) -> Self {
        Self { part, digest: files.digest }
    }

    /// Of what was in force at the start.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// For metrics: a closed list.
    pub const fn kind(&self) -> &'static str {
        match self.part {
            Part::Tls { .. } => "tls",
            Part::ApiKeys { .. } => "api_keys",
            Part::KeySet { .. } => "key_set",
            Part::AdminTls { .. } => "admin_tls",
            Part::Operators { .. } => "operators",
        }
    }

    /// Whether the proofs of agents rest on it: then its changes move the version of `identity`.
    pub const fn is_of_agents(&self) -> bool {
        match self.part {
            Part::Tls { .. } | Part::ApiKeys { .. } | Part::KeySet { .. } => true,
            Part::AdminTls { .. } | Part::Operators { .. } => false,
        }
    }

    /// For logs.
    pub fn name(&self) -> String {
        match &self.part {
            Part::Tls { listener, .. } => format!("listener {listener}"),
            Part::AdminTls { .. } => "admin listener".to_owned(),
            Part::ApiKeys { path, .. } | Part::KeySet { path, .. } | Part::Operators { path, .. } => {
                path.display().to_string()
            }
        }
    }

    /// Reads its files; blocks.
    pub fn read(&self) -> Result<Files, String> {
        let bytes = match &self.part {
            Part::Tls { paths, .. } | Part::AdminTls { paths, .. } => paths.read()?,
            Part::ApiKeys { path, .. } | Part::KeySet { path, .. } | Part::Operators { path, .. } => {
                vec![read_named(path)?.into()]
            }
        };
        Ok(Files::of(bytes))
    }

    /// Puts what was read in force, if it can be used.
    pub fn put(&self, files: &Files, clock: &Clock) -> Result<(), String> {
        match &self.part {
            Part::Tls { paths, slot, .. } | Part::AdminTls { paths, slot } => {
                let (tls, _) = paths.build(&files.bytes, clock).map_err(|(at, why)| {
                    let path = paths.all().nth(at).map(|path| path.display().to_string());
                    format!("{} {why}", path.unwrap_or_default())
                })?;
                slot.store(Arc::new(tls));
            }
            Part::ApiKeys { path, slot, surfaces, operators } => {
                let keys = read_api_keys(path, single(files), clock, surfaces)?;
                are_apart(path, &operators.load(), &keys)?;
                slot.store(Arc::new(keys));
            }
            Part::KeySet { path, algorithms, source } => {
                let keys = KeySet::parse(single(files), algorithms);
                source.put(keys.map_err(|why| format!("{} {why}", path.display()))?);
            }
            Part::Operators { path, slot, takes, keys, workloads } => {
                let operators = admin::read_operators_file(path, single(files), *takes, clock.wall());
                let operators = operators.map_err(|problems| problems.join("; "))?;
                are_apart(path, &operators, &keys.load())?;
                if let Some(why) = admin::also_workloads(&operators, workloads).next() {
                    return Err(format!("{}: {why}", path.display()));
                }
                slot.store(Arc::new(operators));
            }
        }
        Ok(())
    }
}

/// What is an operator's is no agent's, whichever of the two changed.
fn are_apart(path: &Path, operators: &Operators, keys: &ApiKeys) -> Result<(), String> {
    match admin::shared(operators, keys).next() {
        Some(why) => Err(format!("{}: {why}", path.display())),
        None => Ok(()),
    }
}

fn single(files: &Files) -> &[u8] {
    files.bytes.first().map_or(&[], |file| file)
}

pub fn read_named(path: &Path) -> Result<Vec<u8>, String> {
    read_bounded(path).map_err(|why| format!("{}: {why}", path.display()))
}

pub fn read_private_named(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    secret::read_private(path).map_err(|why| format!("{}: {why}", path.display()))
}

/// All the problems of a file of keys, as one text.
fn read_api_keys(
    path: &Path,
    bytes: &[u8],
    clock: &Clock,
    surfaces: &BTreeSet<SurfaceName>,
) -> Result<ApiKeys, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    let at =
        |place: yaml::At, why: &str| format!("{}:{}:{}: {why}", path.display(), place.line, place.column);
    let tree = yaml::parse(text).map_err(|e| at(e.at, &e.message))?;
    let mut reader = Reader::new(path.parent().unwrap_or(Path::new("")));
    let (keys, named) = keys::read(&mut reader, &tree, clock.wall());
    for (place, surface) in named {
        if !surfaces.contains(&surface) {
            reader.error(place, format!("there is no surface `{surface}`"));
        }
    }
    match reader.problems.is_empty() {
        true => Ok(keys),
        false => {
            let problems: Vec<_> = reader.problems.iter().map(|p| at(p.at, &p.message)).collect();
            Err(problems.join("; "))
        }
    }
}
