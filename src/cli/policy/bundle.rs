//! `interlock policy build`, `sign` and `inspect`: what the people who ship policy do with a bundle.
//!
//! Exit codes: 0 done; 2 the bundle, key or signature cannot be used.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use interlock::config::read_private;
use interlock::policy::{
    Bundle, BundleError, BundleKey, ENGINE, Packaged, Signatures, SigningKey, Sources, read_archive,
};

/// The bundle cannot be used.
const INVALID: u8 = 2;

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The directory of the Rego files
    dir: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct SignArgs {
    /// The bundle
    bundle: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// The bundle that is written
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A whole number that goes up with every release; the signature covers it
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Sign with this key: PEM of a PKCS#8 private key, RSA, P-256 or Ed25519, readable by nobody else
    #[arg(long, value_name = "FILE", requires = "key_id")]
    key: Option<PathBuf>,
    /// Sign with this secret instead (HS256): whoever verifies can sign
    #[arg(long, value_name = "FILE", requires = "key_id", conflicts_with = "key")]
    secret: Option<PathBuf>,
    /// The id under which gateways pin the key
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The scope of the signature
    #[arg(long, value_name = "TEXT")]
    scope: Option<String>,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A directory or a bundle
    path: PathBuf,
    /// Check the signature against this public key (PEM)
    #[arg(long, value_name = "FILE", requires = "key_id")]
    public_key: Option<PathBuf>,
    /// The id that the signature names
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// The scope that the signature must have
    #[arg(long, value_name = "TEXT", default_value = "")]
    scope: String,
}

pub fn build(args: &BuildArgs) -> Result<ExitCode> {
    args.output.write(Sources::read(&args.dir), None)
}

pub fn sign(args: &SignArgs) -> Result<ExitCode> {
    let read = read_archive(&args.bundle)
        .and_then(|bytes| Packaged::read(&bytes, &[], Signatures::Shown))
        .map(|packaged| (packaged.sources, packaged.version));
    let version = read.as_ref().ok().and_then(|(_, version)| *version);
    args.output.write(read.map(|(sources, _)| sources), version)
}

impl OutputArgs {
    fn write(&self, sources: Result<Sources, BundleError>, version: Option<u64>) -> Result<ExitCode> {
        let key = self.signing_key()?;
        let built = sources.and_then(|sources| {
            let revision = Bundle::tested(sources.clone(), &[])?.revision();
            let version = self.version.or(version);
            Ok((revision, Packaged::build(&sources, revision, version, key.as_ref())?))
        });
        match built {
            Err(faults) => Ok(unusable(&faults)),
            Ok((revision, bytes)) => {
                write_file(&self.output, &bytes)?;
                writeln!(std::io::stdout(), "{revision}")?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn signing_key(&self) -> Result<Option<SigningKey>> {
        let id = self.key_id.as_deref().unwrap_or_default();
        let scope = self.scope.as_deref();
        let (path, key) = match (&self.key, &self.secret) {
            (Some(path), _) => {
                (path, read_private(path).and_then(|bytes| SigningKey::private(id, &bytes, scope)))
            }
            (None, Some(path)) => {
                (path, read_private(path).and_then(|bytes| SigningKey::secret(id, &bytes, scope)))
            }
            (None, None) => return Ok(None),
        };
        key.map(Some).map_err(|why| anyhow::anyhow!("{} {why}", path.display()))
    }
}

#[expect(clippy::disallowed_methods, reason = "what a person asked to be written, beside no log")]
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

fn unusable(faults: &BundleError) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::from(INVALID)
}

pub fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let mut keys = Vec::new();
    if let (Some(path), Some(id)) = (&args.public_key, &args.key_id) {
        let pem = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let key = BundleKey::public(id, &pem, &args.scope);
        keys.push(key.map_err(|why| anyhow::anyhow!("{} {why}", path.display()))?);
    }
    match shown(args, &keys) {
        Ok(lines) => {
            writeln!(std::io::stdout(), "{}", lines.join("\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => Ok(unusable(&faults)),
    }
}

fn shown(args: &InspectArgs, keys: &[BundleKey]) -> Result<Vec<String>, BundleError> {
    let mut about = Vec::new();
    let sources = if args.path.is_dir() {
        Sources::read(&args.path)?
    } else {
        let signatures = if keys.is_empty() { Signatures::Shown } else { Signatures::Required };
        let packaged = Packaged::read(&read_archive(&args.path)?, keys, signatures)?;
        let version = packaged.version.map_or("none".to_owned(), |version| version.to_string());
        about.push(format!("version    {version}"));
        let by = packaged.signed_by.as_deref().map_or("not checked".to_owned(), |id| format!("by `{id}`"));
        about.push(format!("signature  {by}"));
        packaged.sources
    };
    let tests = sources.tests.len();
    let bundle = Bundle::from_sources(sources, &[])?;
    let mut lines = vec![format!("revision   {}", bundle.revision()), format!("engine     {ENGINE}")];
    lines.extend(about);
    lines.extend(bundle.packages().map(|package| format!("package    {package}")));
    lines.extend(bundle.files().iter().map(|file| format!("file       {} {}", file.sha256, file.name)));
    lines.push(format!("tests      {tests} files"));
    Ok(lines)
}
