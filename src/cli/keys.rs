//! `interlock keys`: signing keys of logs and who trusts them, API keys of agents, tokens of operators.

use std::fs::OpenOptions;
use std::io::{Write, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use interlock::admin::TOKEN_START;
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
    /// Make a token for an operator; it is shown once and stored nowhere
    Operator {
        #[arg(long, value_name = "ID")]
        id: ActorId,
        #[arg(long)]
        role: RoleName,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleName {
    /// Reads
    Viewer,
    /// Also approves and refuses what is held
    Approver,
    /// Also freezes, quarantines, releases and reconciles
    Operator,
    /// Everything
    Administrator,
}

impl RoleName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

pub fn run(args: KeysArgs) -> Result<ExitCode> {
    match args.command {
        KeysCommand::Generate { origin, out } => generate(origin, &out)?,
        KeysCommand::Show { file } => writeln!(stdout(), "{}", FileSigner::load(&file)?.verifier())?,
        KeysCommand::Trust { keys } => write!(stdout(), "{}", trust(&keys)?)?,
        KeysCommand::ApiKey { actor } => api_key(&actor)?,
        KeysCommand::Operator { id, role } => operator(&id, role)?,
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
    let secret = Secret::new("ilk_")?;
    let mut out = stdout().lock();
    writeln!(out, "{}\n", secret.text)?;
    writeln!(out, "# Shown once. In the configuration, under the API keys:")?;
    // JSON strings are YAML strings: an id may hold characters that YAML reads otherwise.
    writeln!(out, "- id: {}", serde_json::to_string(actor)?)?;
    secret.declare(&mut out)
}

fn operator(id: &ActorId, role: RoleName) -> Result<()> {
    let secret = Secret::new(TOKEN_START)?;
    let mut out = stdout().lock();
    writeln!(out, "{}\n", secret.text)?;
    writeln!(out, "# Shown once. In the configuration, under the operators of the admin section:")?;
    writeln!(out, "- id: {}", serde_json::to_string(id)?)?;
    writeln!(out, "  role: {}", role.as_str())?;
    secret.declare(&mut out)
}

/// What its holder keeps, and what config says of it.
struct Secret {
    text: String,
    prefix: String,
}

impl Secret {
    fn new(start: &str) -> Result<Self> {
        let prefix = format!("{start}{}", random_text::<6>()?);
        Ok(Self { text: format!("{prefix}_{}", random_text::<32>()?), prefix })
    }

    fn declare(&self, out: &mut impl Write) -> Result<()> {
        let digest = Digest::of(self.text.as_bytes()).to_string();
        writeln!(out, "  prefix: {}", serde_json::to_string(&self.prefix)?)?;
        writeln!(out, "  sha256: \"{}\"", digest.trim_start_matches("sha-256:"))?;
        Ok(())
    }
}

/// Random bytes as base64url: 6 give 8 characters, 32 give 43.
fn random_text<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system has no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
