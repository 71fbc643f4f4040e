//! `interlock keys`: signing keys of logs and who trusts them, API keys of agents.

use std::fs::OpenOptions;
use std::io::{Write, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use interlock::ledger::FileSigner;
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::model::{ActorId, Digest, LogOrigin};
use ring::rand::{SecureRandom, SystemRandom};

#[derive(Debug, clap::Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// Make a signing key: FILE (mode 0600) and FILE.vkey, the verifier key that others pin
    Generate {
        /// The log's name, such as `example.com/interlock/payments`
        #[arg(long, value_name = "NAME")]
        origin: LogOrigin,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the verifier key of a signing key, which others pin
    Show {
        /// The private key's file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a trust file (C2SP tlog-policy) of a log's verifier keys: what is signed by any of them is accepted
    Trust {
        /// Verifier keys (`name+hex+base64`), or files that hold one
        #[arg(required = true, value_name = "FILE-OR-VKEY")]
        keys: Vec<String>,
    },
    /// Make an API key for an agent; it is shown once and stored nowhere
    ApiKey {
        #[arg(long, value_name = "ID")]
        actor: ActorId,
    },
}

pub fn run(args: KeysArgs) -> Result<ExitCode> {
    match args.command {
        KeysCommand::Generate { origin, out } => generate(origin, &out)?,
        KeysCommand::Show { file } => writeln!(stdout(), "{}", FileSigner::load(&file)?.verifier())?,
        KeysCommand::Trust { keys } => write!(stdout(), "{}", trust(&keys)?)?,
        KeysCommand::ApiKey { actor } => api_key(&actor)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn generate(origin: LogOrigin, out: &Path) -> Result<()> {
    let mut name = out.as_os_str().to_owned();
    name.push(".vkey");
    let vkey_file = PathBuf::from(name);
    let (signer, private) = FileSigner::generate(origin)?;
    let vkey = signer.verifier().to_string();
    // The public part first: if the second write is refused, no private key was left behind.
    create(&vkey_file, 0o644, format!("{vkey}\n").as_bytes())?;
    if let Err(error) = create(out, 0o600, private.as_bytes()) {
        // It was made just now and belongs to no key.
        let _ = std::fs::remove_file(&vkey_file);
        return Err(error);
    }
    writeln!(stdout(), "{vkey}")?;
    Ok(())
}

/// A new file; one that is there is never written over.
fn create(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let cannot = || format!("cannot create {}", path.display());
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(cannot)?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(cannot)
}

fn trust(texts: &[String]) -> Result<String> {
    let mut keys: Vec<VerifierKey> = Vec::new();
    for text in texts {
        let key = read_vkey(text)?;
        if let Some(first) = keys.first().filter(|first| first.name() != key.name()) {
            bail!("{key} is of another log than {first}; each log has a trust file of its own");
        }
        if keys.contains(&key) {
            bail!("{key} appears twice");
        }
        keys.push(key);
    }
    let lines: String = keys.iter().map(|key| format!("log {key}\n")).collect();
    Ok(lines + "quorum none\n")
}

fn read_vkey(text: &str) -> Result<VerifierKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let file = std::fs::read_to_string(text)
        .with_context(|| format!("`{text}` is neither a verifier key nor a file that can be read"))?;
    file.trim_end().parse().with_context(|| format!("{text} does not hold a verifier key"))
}

fn api_key(actor: &ActorId) -> Result<()> {
    let prefix = random_text::<6>()?;
    let key = format!("ilk_{prefix}_{}", random_text::<32>()?);
    let digest = Digest::of(key.as_bytes()).to_string();
    let hex = digest.trim_start_matches("sha-256:");
    let mut out = stdout().lock();
    writeln!(out, "{key}\n")?;
    writeln!(out, "# Shown once. In the configuration, under the API keys:")?;
    // JSON strings are YAML strings: an id may hold characters that YAML reads otherwise.
    writeln!(out, "- id: {}", serde_json::to_string(actor)?)?;
    writeln!(out, "  prefix: {}", serde_json::to_string(&format!("ilk_{prefix}"))?)?;
    writeln!(out, "  sha256: \"{hex}\"")?;
    Ok(())
}

/// Random bytes as base64url: 6 give 8 characters, 32 give 43.
fn random_text<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system has no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
