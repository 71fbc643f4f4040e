//! Wiring: from a valid config to a running gateway, and back down in order.
//!
//! Up: sockets are bound, policy is loaded and checked, the log is opened and recovered, the policy's activation is
//! recorded, and only then the first connection is accepted. Down: listeners close, what runs is finished (or given up after `drain_max`), the log
//! is closed with its stop leaf. A poisoned log ends the process; recovery decides at the next start.

mod admin_socket;
mod identity;
mod observe;
mod policy;
mod policy_source;
#[cfg(test)]
mod simulation;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin, Control, Door, LogApi, PolicyAsks, PolicyHealth, Rate};
use crate::authority::{Credentials, FactSpec, Facts, Fold, Versions};
use crate::clock::Clock;
use crate::config::{AdminListen, Config, IdentityPart, LedgerConfig, ListenerName, Older, SurfaceConfig};
use crate::ingress::{self, Bounds, Listener, SharedTls};
use crate::ledger::{
    self, Closed, FileSigner, InvalidSigners, KeyError, Ledger, OpenError, PolicyActivation, Positions,
    Signers, Start, Unrecorded,
};
use crate::limits;
use crate::merkle::note::Signer;
use crate::model::{self, Activated, Digest, Digester, SurfaceName};
use crate::pep::{self, Authority, Gate, Surface, Turns};
use crate::policy::{BundleError, Pdp, Settings};
use crate::reconcile::{Lookups, Reconciler, StatusLookup};
use crate::sinks::{self, Sinks};
use crate::telemetry::{Alarm, Metrics};
use crate::upstream::{InvalidRoots, OwnCredential, StatusSource, Upstream};
use identity::{Epoch, Fetches};
use observe::Observed;
use policy_source::Policy;

/// A running gateway.
pub struct Gateway {
    ledger: Ledger,
    metrics: Arc<Metrics>,
    listeners: Vec<(ListenerName, SocketAddr)>,
    admin: AdminListen,
    tasks: TaskTracker,
    accepting: Vec<JoinHandle<()>>,
    drain: CancellationToken,
    abandon: CancellationToken,
    end: CancellationToken,
    drain_max: Duration,
    sinks: Sinks,
    log: LogApi,
    reload: watch::Sender<()>,
}

/// Why the gateway did not start. Nothing listens, and nothing was admitted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "policy: {0}; order it while a gateway runs (`policy reload --older`), or say so in `policy.older`"
    )]
    Older(#[from] model::Older),
    #[error("policy: {0}")]
    Policy(#[from] BundleError),
    #[error("signing key: {0}")]
    Key(#[from] KeyError),
    #[error("signing keys: {0}")]
    Keys(#[from] InvalidSigners),
    #[error("log: {0}")]
    Log(#[from] OpenError),
    #[error("log: the active policy could not be recorded: {0}")]
    Unrecorded(#[from] Unrecorded),
    #[error("surface {surface}: {source}")]
    Upstream { surface: SurfaceName, source: InvalidRoots },
    #[error("key set: {0}")]
    KeySet(InvalidRoots),
    #[error(transparent)]
    Sink(#[from] sinks::Unusable),
    #[error("{address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{}: {source}", path.display())]
    ListenUnix { path: PathBuf, source: io::Error },
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the program's own file cannot be read: {0}")]
    Binary(io::Error),
    #[error("a task that starts the gateway has panicked")]
    Panicked,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything was finished, and the stop leaf is durable.
    Clean,
    /// Some requests were given up after `drain_max`; their outcomes and the stop leaf are durable.
    Abandoned,
    /// The log could not be closed.
    Unclean,
}

impl Gateway {
    pub async fn start(mut config: Config, clock: Clock) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        // What can fail without the log comes before the log: a start that fails leaves no run in it.
        let parts = config.surfaces.iter().map(|s| part(s, &clock)).collect::<Result<Vec<_>, _>>()?;
        let lookups = config.surfaces.iter().map(|s| lookup(s, &config.credentials));
        let lookups = lookups.collect::<Result<Vec<_>, _>>()?;
        let fetches = Fetches::new(std::mem::take(&mut config.key_sets)).map_err(StartError::KeySet)?;
        let sinks = sinks::Ready::new(config.sinks.drain(..).collect())?;
        let (admin_address, admin_socket) = admin_socket::open(&config.admin).await?;
        let mut sockets = Vec::new();
        for listener in &config.listeners {
            sockets.push(listen(listener.address).await?);
        }
        let versions = Versions::new();
        // Before the log is opened, which tells it what the leaves have left behind.
        let fold = Fold::new(versions.clone());
        let packages = config.surfaces.iter().map(|s| s.package.clone()).collect();
        let policy = Policy { source: config.policy.source.clone(), packages };
        let (pdp, ledger, (content, version)) =
            open(&config, policy.clone(), &clock, &metrics, fold.clone()).await?;
        let activation =
            match record_policy(&pdp, version, (&policy, config.policy.older), &fold, &ledger).await {
                Ok(receipt) => receipt,
                Err(error) => {
                    ledger.close(ABANDON_MAX).await;
                    return Err(error);
                }
            };
        let mut surfaces = Vec::new();
        for (declared, part) in config.surfaces.iter().zip(parts) {
            surfaces.push(surface(declared, part, &clock, &versions, &metrics).await);
        }
        // Nothing below fails, so no part of a gateway is left running.
        metrics.policy_activated(&pdp.revision().to_string(), clock.wall().unix_ms() as f64 / 1_000.0);
        versions.set(policy::POLICY, &policy::version_of(activation.index));
        let parts = std::mem::take(&mut config.identity_parts);
        let epoch = Epoch::new(
            config.digest,
            parts.iter().filter(|part| part.is_of_agents()).map(IdentityPart::digest),
            versions.clone(),
        );
        let anchor = clock.anchor();
        let gate = Gate {
            pdp: pdp.clone(),
            ledger: ledger.clone(),
            versions: versions.clone(),
            state: fold.clone(),
            hold_changes: fold.hold_changes(),
            turns: Turns::default(),
            answers: Arc::default(),
            waiters: pep::waiters(),
            drain: CancellationToken::new(),
            watched: ["freezes", "identity", policy::POLICY].map(Arc::from).into(),
            credentials: Arc::new(config.credentials),
            clock: clock.clone(),
            anchor,
            metrics: metrics.clone(),
        };
        let drain = gate.drain.clone();
        let shared = Shared {
            gate,
            connections: Arc::new(Semaphore::new(config.limits.connections_max)),
            in_flight: Arc::new(Semaphore::new(config.limits.requests_in_flight_max)),
            bodies: Arc::new(Semaphore::new(limits::BODIES_BYTES_MAX)),
            tasks: TaskTracker::new(),
            drain,
            abandon: CancellationToken::new(),
            bounds: Bounds {
                head_max: config.limits.head_max,
                body_max: config.limits.body_max,
                client_stall_max: Duration::from_millis(limits::CLIENT_STALL_MS_MAX),
                connection_age_max: config.limits.connection_age_max,
            },
        };
        let end = CancellationToken::new();
        let pools: Vec<_> = surfaces.iter().map(|(_, s)| (s.name.clone(), s.upstream.clone())).collect();
        let sinks = sinks.start(&ledger, &Positions::of(&config.ledger.dir), &metrics, &clock);
        let log = LogApi::new(ledger.clone());
        let surface_names = pools.iter().map(|(name, _)| name.clone()).collect();
        let operators = config.admin.operators.clone();
        let (asks, orders) = PolicyAsks::new();
        let policy_health = PolicyHealth::default();
        let reconciler = Reconciler::new(fold.clone(), ledger.clone());
        let control = Arc::new(Control::new(
            reconciler.clone(),
            log.clone(),
            surface_names,
            operators,
            clock.clone(),
            asks,
        ));
        let door = Door {
            address: match &admin_address {
                AdminListen::Tcp(address) => Some(*address),
                AdminListen::Unix(_) => None,
            },
            host: config.admin.host,
        };
        let admin = Admin {
            anchor,
            metrics: metrics.clone(),
            ledger: ledger.clone(),
            pdp: pdp.clone(),
            pools: pools.clone(),
            sinks: sinks.progress(),
            log: log.clone(),
            drain: shared.drain.clone(),
            control: control.clone(),
            operators: config.admin.operators,
            agents: config.admin.agents,
            door,
            rate: Rate::of_operators(clock.clone()),
            peers: Rate::of_peers(clock.clone()),
            policy: policy_health.clone(),
        };
        tokio::spawn(control.keep_expiring(shared.drain.clone()));
        for (surface, declared, source) in lookups.into_iter().flatten() {
            let (reconciler, clock, metrics) = (reconciler.clone(), clock.clone(), metrics.clone());
            let lookups = Lookups::new(surface, &declared, source, reconciler, clock, metrics);
            tokio::spawn(lookups.run(shared.drain.clone()));
        }
        tokio::spawn(admin::serve(Arc::new(admin), admin_socket, end.clone()));
        tokio::spawn(close_aged(pools.into_iter().map(|(_, upstream)| upstream).collect(), end.clone()));
        let (reload, asked) = watch::channel(());
        let watched = policy::Watched {
            policy,
            fold: fold.clone(),
            pdp,
            ledger: ledger.clone(),
            versions,
            metrics: metrics.clone(),
            clock: clock.clone(),
            health: policy_health,
            asked: asked.clone(),
            orders,
            end: end.clone(),
        };
        watched.start((content, version));
        let watched = identity::Watched { clock, metrics: metrics.clone(), epoch, asked, end: end.clone() };
        watched.start(parts, fetches);
        let mut listeners = Vec::new();
        let mut accepting = Vec::new();
        for (listener, (address, socket)) in config.listeners.into_iter().zip(sockets) {
            let behind = surfaces.iter().filter(|(name, _)| *name == listener.name);
            let behind = behind.map(|(_, surface)| surface.clone()).collect();
            let served = Arc::new(shared.listener(behind, listener.tls));
            tracing::info!(listener = %listener.name, %address, "listening");
            accepting.push(tokio::spawn(ingress::serve(served, socket)));
            listeners.push((listener.name, address));
        }
        Ok(Self {
            ledger,
            metrics,
            listeners,
            admin: admin_address,
            tasks: shared.tasks,
            accepting,
            drain: shared.drain,
            abandon: shared.abandon,
            end,
            drain_max: config.limits.drain_max,
            sinks,
            log,
            reload,
        })
    }

    /// Where the listener of this name really listens: config may say port 0.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(name, _)| name.as_str() == listener).map(|(_, address)| *address)
    }

    /// Where the admin listener really is.
    pub fn admin_address(&self) -> &AdminListen {
        &self.admin
    }

    /// What it records in, for whoever runs a gateway inside its own process.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Looks now at policy and everything that identity rests on, and fetches key sets as soon as their bounds allow.
    pub fn reload(&self) {
        self.reload.send_replace(());
    }

    /// Resolves when the log is poisoned: the process must end, and recovery decides.
    pub async fn failed(&self) {
        self.ledger.poisoned().await;
        self.metrics.alarm(Alarm::LedgerPoisoned);
    }

    /// Drains and closes: stop accepting, finish what has been recorded, write the stop leaf.
    pub async fn stop(self) -> Stopped {
        self.drain.cancel();
        for task in self.accepting {
            // It returns when drained; a panic in it has ended it already.
            let _ = task.await;
        }
        self.tasks.close();
        let finished = timeout(self.drain_max, self.tasks.wait()).await.is_ok();
        if !finished {
            tracing::warn!(open = self.tasks.len(), "drain time is over, giving up what still runs");
            self.abandon.cancel();
            // What is dropped records its own outcome as it goes; connections that never end are left behind.
            let _ = timeout(ABANDON_MAX, self.tasks.wait()).await;
        }
        let closed = self.ledger.close(ABANDON_MAX).await;
        // Whoever reads along gets the stop leaf too, if it does not take too long.
        let last = Duration::from_millis(limits::LAST_LEAVES_MS_MAX);
        tokio::join!(self.sinks.finish(last), self.log.finish(last));
        self.end.cancel();
        match closed {
            Closed::Clean if finished => Stopped::Clean,
            Closed::Clean => Stopped::Abandoned,
            Closed::PermitsOpen(_) | Closed::Poisoned => Stopped::Unclean,
        }
    }
}

/// How long requests that were given up get to record that.
const ABANDON_MAX: Duration = Duration::from_secs(2);
const CLOSE_AGED_EVERY: Duration = Duration::from_secs(1);

/// What all listeners have in common.
struct Shared {
    gate: Gate,
    connections: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    tasks: TaskTracker,
    drain: CancellationToken,
    abandon: CancellationToken,
    bounds: Bounds,
}

impl Shared {
    fn listener(&self, surfaces: Vec<Arc<Surface>>, tls: Option<SharedTls>) -> Listener {
        Listener {
            surfaces,
            tls,
            gate: self.gate.clone(),
            bounds: self.bounds.clone(),
            connections: self.connections.clone(),
            in_flight: self.in_flight.clone(),
            bodies: self.bodies.clone(),
            tasks: self.tasks.clone(),
            drain: self.drain.clone(),
            abandon: self.abandon.clone(),
        }
    }
}

/// The first leaf after the run's own.
async fn record_policy(
    pdp: &Pdp,
    version: Option<u64>,
    (policy, older): (&Policy, Option<Older>),
    fold: &Fold,
    ledger: &Ledger,
) -> Result<ledger::Receipt, StartError> {
    let activated = Activated { revision: pdp.revision(), version };
    let before = fold.activations();
    // The config's word is about one step back, and is spent when a newer version has come.
    let highest = before.highest.map(|highest| highest.version);
    let answered_for = older.filter(|older| Some(older.than) == highest).map(|older| older.revision);
    let older_than = policy.follows(before, activated, answered_for)?;
    let activation = PolicyActivation {
        activated_by: "start".into(),
        engine: pdp.engine().into(),
        files: pdp.files(),
        older_than,
        ordered: None,
        revision: activated.revision,
        version,
    };
    Ok(ledger.record_policy(activation).await?)
}

/// Policy, log, and digest and version of what policy was read from; off the async threads: compiling and recovering take their time.
async fn open(
    config: &Config,
    policy: Policy,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    fold: Arc<Fold>,
) -> Result<(Pdp, Ledger, (Digest, Option<u64>)), StartError> {
    let policy_settings = Settings {
        workers: NonZeroUsize::new(config.limits.evaluation_threads).unwrap_or(NonZeroUsize::MIN),
        evaluation_max: config.limits.evaluation_max,
        ..Settings::default()
    };
    let log_settings = ledger::Settings {
        dir: config.ledger.dir.clone(),
        origin: config.log_origin.clone(),
        segment_bytes: config.ledger.segment_bytes,
        salts: config.ledger.salts.clone(),
        heartbeat: config.ledger.heartbeat,
    };
    let ledger_config = config.ledger.clone();
    let config_digest = config.digest;
    let (clock, observer) = (clock.clone(), Arc::new(Observed(metrics.clone())));
    let opening = tokio::task::spawn_blocking(move || {
        // Policy first: a bundle that does not load leaves the log untouched.
        let found = policy.source.read()?;
        let content = (found.digest, found.version);
        let bundle = policy.load_here(found)?;
        let pdp = Pdp::start(bundle, policy_settings, clock.clone(), Some(observer.clone()))?;
        let signers = load_signers(&ledger_config)?;
        let binary_digest = binary_digest().map_err(StartError::Binary)?;
        let start = Start { binary_digest, config_digest, observer, follower: fold };
        let (ledger, opened) = Ledger::open(log_settings, signers, clock, start)?;
        tracing::info!(
            epoch = opened.epoch.0,
            leaves = opened.size.0,
            clean = opened.clean,
            torn_bytes = opened.torn_bytes,
            recovered_permits = opened.recovered_permits,
            "log opened"
        );
        Ok((pdp, ledger, content))
    });
    opening.await.map_err(|_panicked| StartError::Panicked)?
}

/// The keys that the config names: all of one log, and none that is compromised.
pub fn load_signers(config: &LedgerConfig) -> Result<Signers, StartError> {
    let primary = FileSigner::load(&config.signing_key)?;
    let mut others: Vec<Box<dyn Signer>> = Vec::new();
    for path in &config.also_sign_with {
        others.push(Box::new(FileSigner::load(path)?));
    }
    Ok(Signers::new(Box::new(primary), others, config.compromised_keys.clone())?)
}

fn binary_digest() -> io::Result<Digest> {
    let mut file = std::fs::File::open(std::env::current_exe()?)?;
    let mut digester = Digester::new();
    let mut buffer = vec![0; limits::READ_BYTES];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(digester.finish()),
            n => digester.update(&buffer[..n]),
        }
    }
}

/// What of a surface can fail.
struct Part {
    upstream: Upstream,
    facts: Vec<FactSpec>,
}

fn part(config: &SurfaceConfig, clock: &Clock) -> Result<Part, StartError> {
    let failed = |source| StartError::Upstream { surface: config.name.clone(), source };
    let upstream = Upstream::new(config.upstream.clone(), clock.clone()).map_err(failed)?;
    let facts = config.facts.iter().map(|fact| fact.spec().map_err(failed)).collect::<Result<_, _>>()?;
    Ok(Part { upstream, facts })
}

/// How the surface's upstream is asked what became of requests, if it is; with the surface's own credential.
fn lookup(
    config: &SurfaceConfig,
    credentials: &Credentials,
) -> Result<Option<(SurfaceName, StatusLookup, StatusSource)>, StartError> {
    let Some(declared) = &config.status_lookup else { return Ok(None) };
    let credential = config.credential.as_ref().map(|slot| OwnCredential {
        header: HeaderName::from_bytes(slot.header.as_bytes()).expect("config takes header names only"),
        prefix: slot.prefix.clone(),
        secret: credentials.find(&slot.secret).expect("config reads the secret of every slot").clone(),
    });
    let source = StatusSource::new(&config.upstream, declared.rules.clone(), credential);
    let source = source.map_err(|source| StartError::Upstream { surface: config.name.clone(), source })?;
    Ok(Some((config.name.clone(), declared.clone(), source)))
}

/// Waits for the first reading of its facts.
async fn surface(
    config: &SurfaceConfig,
    part: Part,
    clock: &Clock,
    versions: &Versions,
    metrics: &Arc<Metrics>,
) -> (ListenerName, Arc<Surface>) {
    let surface = Surface {
        name: config.name.clone(),
        hosts: config.hosts.clone(),
        package: config.package.clone(),
        identities: config.identities.clone(),
        routes: config.enforced_routes(),
        upstream: part.upstream,
        permit_age_max: config.permit_age_max,
        authority: Authority {
            budgets: config.budgets.clone().into(),
            facts: Facts::start(&config.name, part.facts, clock, versions, metrics).await,
            idempotency: config.idempotency,
            holds: config.holds,
        },
    };
    (config.listener.clone(), Arc::new(surface))
}

async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Listen { address, source };
    #[expect(clippy::disallowed_methods, reason = "the one place that listens")]
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    Ok((socket.local_addr().map_err(failed)?, socket))
}

/// Idle connections to upstreams do not outlive their bound for want of requests.
async fn close_aged(upstreams: Vec<Upstream>, end: CancellationToken) {
    let mut every = interval(CLOSE_AGED_EVERY);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _tick = every.tick() => upstreams.iter().for_each(Upstream::close_aged),
        }
    }
}
