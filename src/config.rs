//! The one config file: YAML in, validated types out, or every problem of it at its line and column.
//!
//! In: a file, the [`Clock`], and where environment variables come from. Out: a [`Config`] that holds
//! canonical rules, upstream settings, identities, secrets and TLS configs ready to use, so that the gateway
//! only wires them; or [`Invalid`], which shows all problems with their lines. Afterwards nothing in a
//! `Config` needs checking again. Paths in the file begin at the file's own directory.
//!
//! `fields` is the table of everything that is accepted, with defaults and bounds; docs/CONFIGURATION.md is
//! held against it by `every_field_is_documented_with_its_default`.

mod admin;
mod authority;
mod budgets;
mod facts;
pub mod fields;
mod identity;
mod keys;
mod policy;
mod problem;
mod reader;
mod redact;
mod reload;
mod route;
mod secret;
mod sections;
mod sinks;
mod status;
mod surface;
mod surroundings;
mod tls;
mod upstream;
mod yaml;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::admin::SharedOperators;
use crate::authority::{Credentials, MtlsIdentity, SharedApiKeys};
use crate::clock::Clock;
use crate::ingress::SharedTls;
use crate::merkle::note::VerifierKey;
use crate::model::{Digest, LogOrigin};

pub use facts::{FactConfig, FactFrom, Form};
pub use identity::KeySetFetch;
pub use keys::EXAMPLE_KEY;
pub use policy::{FoundPolicy, PolicySource};
pub use problem::{Invalid, Problem};
pub use reload::{Files, IdentityPart};
pub use route::RouteConfig;
pub use secret::{ReadVariable, process_environment, read_private};
pub use surface::SurfaceConfig;
pub use yaml::At;

/// A whole, valid config.
#[derive(Debug)]
pub struct Config {
    pub file: PathBuf,
    /// SHA-256 of the file's bytes, for the epoch leaf.
    pub digest: Digest,
    pub log_origin: LogOrigin,
    pub ledger: LedgerConfig,
    pub policy: PolicyConfig,
    pub admin: AdminConfig,
    pub telemetry: TelemetryConfig,
    pub limits: LimitsConfig,
    pub listeners: Vec<ListenerConfig>,
    pub api_keys: SharedApiKeys,
    /// Files that identity rests on, and that are read again while the gateway runs.
    pub identity_parts: Vec<IdentityPart>,
    /// Key sets that are fetched while the gateway runs.
    pub key_sets: Vec<KeySetFetch>,
    pub surfaces: Vec<SurfaceConfig>,
    /// The secrets of all surfaces.
    pub credentials: Credentials,
    pub sinks: Vec<crate::sinks::Settings>,
    warnings: Warnings,
}

#[derive(Clone, Debug)]
pub struct LedgerConfig {
    pub dir: PathBuf,
    /// Exists and is private; its content is the ledger's to read.
    pub signing_key: PathBuf,
    pub segment_bytes: u64,
    /// Where the keys of redacted values are kept; outside `dir`. There if anything is redacted.
    pub salts: Option<PathBuf>,
    /// After so long without a leaf a `heartbeat` is written; whole seconds. `None`: never.
    pub heartbeat: Option<Duration>,
    /// More keys that sign every checkpoint; as `signing_key`.
    pub also_sign_with: Vec<PathBuf>,
    /// Of this log.
    pub compromised_keys: Vec<VerifierKey>,
}

#[derive(Clone, Debug)]
pub struct PolicyConfig {
    pub source: PolicySource,
    /// What a start may make active without an operator's word.
    pub older: Option<Older>,
}

/// One step back: this revision, although that version was active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    pub revision: Digest,
    /// The highest version that the log has seen.
    pub than: u64,
}

#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub listen: AdminListen,
    /// `None`: plain HTTP, or a Unix socket.
    pub tls: Option<SharedTls>,
    /// By which it is asked for, besides loopback names.
    pub host: Option<Arc<str>>,
    /// Empty: nobody operates this gateway.
    pub operators: SharedOperators,
    /// Whose certificates surfaces take: nobody operates with one of those.
    pub agents: Vec<MtlsIdentity>,
}

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Human,
}

#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    pub format: LogFormat,
    pub level: tracing::Level,
}

#[derive(Clone, Debug)]
pub struct LimitsConfig {
    pub requests_in_flight_max: usize,
    /// Client connections of all listeners together.
    pub connections_max: usize,
    /// From accept, or the end of the last answer, to a whole message head.
    pub head_max: Duration,
    /// From the head to the whole body.
    pub body_max: Duration,
    pub evaluation_max: Duration,
    pub evaluation_threads: usize,
    /// An older client connection is closed between two requests.
    pub connection_age_max: Duration,
    /// From the signal to stop until what still runs is given up.
    pub drain_max: Duration,
}

/// The name by which surfaces find a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerName(Arc<str>);

impl ListenerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub name: ListenerName,
    pub address: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<SharedTls>,
    /// Whether clients are asked for certificates.
    pub asks_clients: bool,
}

/// Whether a config without its secrets is a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsAre {
    /// To run.
    Needed,
    /// To check a file where its secrets are not: a missing one is a warning.
    Optional,
}

/// What a config is read against.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub clock: &'a Clock,
    pub variable: ReadVariable<'a>,
    pub secrets: SecretsAre,
}

impl<'a> Surroundings<'a> {
    /// This process: its environment, every secret needed.
    pub fn of_process(clock: &'a Clock) -> Self {
        Self { clock, variable: &process_environment, secrets: SecretsAre::Needed }
    }
}

impl Config {
    pub fn load(file: &Path, surroundings: Surroundings<'_>) -> Result<Self, Invalid> {
        let bytes = reader::read_bounded(file).map_err(|why| {
            Invalid::new(file, "", vec![Problem { at: At::START, message: format!("cannot be read: {why}") }])
        })?;
        Self::parse(&bytes, file, surroundings)
    }

    /// Reads the bytes of `file`; the name is for messages and for relative paths.
    pub fn parse(bytes: &[u8], file: &Path, surroundings: Surroundings<'_>) -> Result<Self, Invalid> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => {
                let message = format!("the file is not UTF-8 (at byte {})", e.valid_up_to());
                return Err(Invalid::new(file, "", vec![Problem { at: At::START, message }]));
            }
        };
        let tree = yaml::parse(text)
            .map_err(|e| Invalid::new(file, text, vec![Problem { at: e.at, message: e.message }]))?;
        let base = file.parent().unwrap_or(Path::new(""));
        let mut reader = reader::Reader::new(base);
        let parts = sections::read(&mut reader, &tree, surroundings);
        match parts {
            Some(parts) if reader.problems.is_empty() => {
                let warnings = Warnings { text: text.to_owned(), problems: reader.warnings };
                Ok(parts.into_config(file, Digest::of(bytes), warnings))
            }
            Some(_) | None => {
                assert!(!reader.problems.is_empty(), "a part that is missing has reported why");
                Err(Invalid::new(file, text, reader.problems))
            }
        }
    }

    /// What is allowed and still worth a look.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings.problems
    }

    /// One warning as text, with its line and carets.
    pub fn show_warning(&self, warning: &Problem) -> String {
        let mut shown = String::new();
        // Writing to a String does not fail.
        let _ = problem::show(&mut shown, "warning", &self.file, &self.warnings.text, warning);
        shown
    }
}

#[derive(Debug)]
struct Warnings {
    text: String,
    problems: Vec<Problem>,
}
