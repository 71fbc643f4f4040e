//! The demo's directory: config, policies, keys and log, so that every other command works on it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

use super::embedded;
use interlock::admin::TOKEN_START;
use interlock::ledger::FileSigner;
use interlock::limits;
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::model::Digest;

/// Must be the `log_origin` of the config.
const LOG_ORIGIN: &str = "interlock.demo/log";

/// Where the demo's files are; removed at the end if nobody asked for them.
pub struct Place {
    dir: PathBuf,
    is_temporary: bool,
    /// What agents show.
    pub agent_key: String,
    /// What the operator shows the admin listener.
    pub operator_token: String,
    /// What the gateway shows the upstream.
    pub upstream_secret: String,
    pub verifier: VerifierKey,
}

/// What is only known when the demo runs.
pub struct Addresses {
    pub gateway: SocketAddr,
    pub admin: SocketAddr,
    pub upstream: SocketAddr,
    /// Where nothing listens.
    pub nobody: SocketAddr,
}

impl Place {
    /// In `dir`, which must be new or empty, or in a temporary directory.
    pub fn make(dir: Option<&Path>) -> Result<Self> {
        let (dir, is_temporary) = match dir {
            Some(dir) => (take(dir)?, false),
            None => (temporary()?, true),
        };
        let (signer, private) = FileSigner::generate(LOG_ORIGIN.parse()?)?;
        let place = Self {
            dir,
            is_temporary,
            agent_key: format!("ilk_{}_{}", random::<6>()?, random::<24>()?),
            operator_token: format!("{TOKEN_START}{}_{}", random::<6>()?, random::<24>()?),
            upstream_secret: random::<24>()?,
            verifier: signer.verifier().clone(),
        };
        place.write("log.key", 0o600, &private)?;
        place.write("log.vkey", 0o644, &format!("{}\n", place.verifier))?;
        place.write("agent.key", 0o600, &format!("{}\n", place.agent_key))?;
        place.write("operator.token", 0o600, &format!("{}\n", place.operator_token))?;
        place.write("upstream.secret", 0o600, &format!("{}\n", place.upstream_secret))?;
        for (name, text) in embedded::POLICIES {
            place.write(&format!("policies/{name}"), 0o644, text)?;
        }
        Ok(place)
    }

    /// Writes the config; again if addresses had to change.
    pub fn configure(&self, addresses: &Addresses) -> Result<PathBuf> {
        let sha256 =
            |text: &str| Digest::of(text.as_bytes()).to_string().trim_start_matches("sha-256:").to_owned();
        let text = embedded::CONFIG
            .replace("@GATEWAY@", &addresses.gateway.to_string())
            .replace("@ADMIN@", &addresses.admin.to_string())
            .replace("@UPSTREAM@", &addresses.upstream.to_string())
            .replace("@NOBODY@", &addresses.nobody.to_string())
            .replace("@KEY_PREFIX@", &self.agent_key[..limits::API_KEY_PREFIX_BYTES])
            .replace("@KEY_SHA256@", &sha256(&self.agent_key))
            .replace("@TOKEN_PREFIX@", &self.operator_token[..limits::API_KEY_PREFIX_BYTES])
            .replace("@TOKEN_SHA256@", &sha256(&self.operator_token));
        let file = self.file("interlock.yaml");
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            Ok(()) | Err(_) => {}
        }
        self.write("interlock.yaml", 0o644, &text)?;
        Ok(file)
    }

    pub fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new file below the directory.
    fn write(&self, name: &str, mode: u32, text: &str) -> Result<()> {
        let path = self.file(name);
        let cannot = || format!("cannot create {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(cannot)?;
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        made.and_then(|mut file| file.write_all(text.as_bytes())).with_context(cannot)
    }

    /// A copy of the log as the verifier reads it.
    pub fn copy_log(&self, name: &str) -> Result<PathBuf> {
        let (from, to) = (self.file("ledger"), self.file(name));
        fs::create_dir_all(to.join("frames"))?;
        fs::copy(from.join("checkpoint"), to.join("checkpoint"))?;
        for entry in fs::read_dir(from.join("frames"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "frames")
                && let Some(name) = path.file_name()
            {
                fs::copy(&path, to.join("frames").join(name))?;
            }
        }
        Ok(to)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_temporary {
            // Nothing depends on it; the system clears its temporary directory some day.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A directory that holds nothing yet.
fn take(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let dir = fs::canonicalize(dir)?;
    let is_empty = fs::read_dir(&dir)?.next().is_none();
    match is_empty {
        true => Ok(dir),
        false if dir.join("log.vkey").exists() && dir.join("ledger").exists() => bail!(
            "{} holds a log from an earlier demo. A log is only ever added to, so the demo leaves it alone: \
             remove the directory, or name another",
            dir.display()
        ),
        false => bail!("{} is not empty; name a directory that is new or empty", dir.display()),
    }
}

fn temporary() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("interlock-demo-{}", random::<9>()?));
    DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Random bytes as base64url: 6 give 8 characters, 24 give 32.
fn random<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system has no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_holds_something_is_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |place: &Place, name| {
            fs::metadata(place.file(name)).expect("a file").permissions().mode() & 0o777
        };
        let place = Place::make(Some(dir.path())).expect("an empty directory");
        assert_eq!(mode(&place, "log.key"), 0o600);
        assert_eq!(mode(&place, "agent.key"), 0o600);
        assert_eq!(mode(&place, "operator.token"), 0o600);
        let again = Place::make(Some(dir.path())).err().expect("refused").to_string();
        assert!(again.contains("is not empty"), "{again}");
        fs::create_dir(place.file("ledger")).expect("a directory");
        let again = Place::make(Some(dir.path())).err().expect("refused").to_string();
        assert!(again.contains("earlier demo"), "{again}");
    }

    #[test]
    fn a_temporary_place_goes_with_its_value() {
        let place = Place::make(None).expect("a directory");
        let dir = place.dir.clone();
        assert!(dir.join("policies/payments/payments.rego").exists());
        drop(place);
        assert!(!dir.exists());
    }
}
