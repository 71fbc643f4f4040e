//! `interlock run`: the gateway in the foreground, until a signal or a log that cannot be written.
//!
//! Exit codes: 0 stopped clean; 2 the config is not valid; 3 stopped, but requests were given up or the log could
//! not be closed; 4 the log was poisoned; 5 the gateway could not start. After a second signal the process ends at
//! once, as in a crash: recovery settles what was open at the next start. SIGHUP reads again policy and what identity
//! rests on: certificates, lists of revoked certificates, keys.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{panic, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};

use interlock::clock::Clock;
use interlock::config::{AdminListen, Config, LogFormat, Surroundings, TelemetryConfig, process_environment};
use interlock::gateway::{Gateway, Stopped};
use interlock::sinks::Destination;

/// The config is not valid.
const INVALID: u8 = 2;
/// Requests were given up, or the log could not be closed.
const UNCLEAN: u8 = 3;
/// The log was poisoned while running.
const POISONED: u8 = 4;
/// Nothing listened, and nothing was admitted.
const NOT_STARTED: u8 = 5;

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The config file.
    #[arg(long, env = "INTERLOCK_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
}

pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let config = match Config::load(&args.config, Surroundings::of_process(&clock)) {
        Ok(config) => config,
        Err(invalid) => {
            eprintln!("{invalid}");
            return Ok(ExitCode::from(INVALID));
        }
    };
    for warning in config.warnings() {
        eprint!("{}", config.show_warning(warning));
    }
    init_logs(&config.telemetry);
    tell_of_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(config, clock));
    // The log is closed. A read of a file that hangs, or a long search, does not hold up the end of the process.
    runtime.shutdown_background();
    Ok(ExitCode::from(ended?))
}

async fn serve(config: Config, clock: Clock) -> io::Result<u8> {
    // Before anything is open: a signal that comes while starting is not lost.
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let names: Vec<_> = config.listeners.iter().map(|l| (l.name.clone(), l.tls.is_some())).collect();
    let admin_scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    // Then standard output is for receipts alone.
    let out = match config.sinks.iter().any(|sink| matches!(sink.destination, Destination::Stdout)) {
        true => Out::Error,
        false => Out::Output,
    };
    let log = format!("{} in {}", config.log_origin, config.ledger.dir.display());
    let gateway = match Gateway::start(config, clock).await {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("interlock: not started: {error}");
            return Ok(NOT_STARTED);
        }
    };
    let mut lines = vec![format!("log {log}")];
    for (name, tls) in &names {
        let scheme = if *tls { "https" } else { "http" };
        lines.extend(gateway.address(name.as_str()).map(|a| format!("listener {name} on {scheme}://{a}")));
    }
    let admin = match gateway.admin_address() {
        AdminListen::Tcp(address) => format!("{admin_scheme}://{address}"),
        AdminListen::Unix(path) => format!("unix:{}", path.display()),
    };
    lines.push(format!("admin on {admin}"));
    lines.push("ready".into());
    say(&lines, out);
    notify("READY=1");

    let poisoned = loop {
        tokio::select! {
            () = signals.next() => break false,
            () = gateway.failed() => break true,
            _ = hangup.recv() => gateway.reload(),
        }
    };
    notify("STOPPING=1");
    if poisoned {
        tracing::error!("the log cannot be written any more: stopping");
    } else {
        tracing::info!("stopping");
    }
    let stopped = tokio::select! {
        stopped = gateway.stop() => stopped,
        () = signals.next() => {
            tracing::error!("a second signal: ending at once, recovery settles what is open");
            Stopped::Unclean
        }
    };
    Ok(match stopped {
        _ if poisoned => POISONED,
        Stopped::Clean => 0,
        Stopped::Abandoned | Stopped::Unclean => UNCLEAN,
    })
}

/// SIGTERM and SIGINT alike.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Resolves at the first signal to stop.
pub(super) async fn stop_signal() -> io::Result<()> {
    Signals::new()?.next().await;
    Ok(())
}

/// Where a person reads what was started. Logs always go to standard error.
#[derive(Clone, Copy)]
enum Out {
    Output,
    Error,
}

/// A reader that is gone is no reason to stop.
fn say(lines: &[String], out: Out) {
    let text = format!("{}\n", lines.join("\n"));
    let _ = match out {
        Out::Output => write_whole(&mut io::stdout().lock(), &text),
        Out::Error => write_whole(&mut io::stderr().lock(), &text),
    };
}

fn write_whole(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

fn init_logs(telemetry: &TelemetryConfig) {
    let no_color = process_environment("NO_COLOR").is_some_and(|value| !value.is_empty());
    let logs = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .with_max_level(telemetry.level);
    // An error means that somebody who embeds this has set up logs already.
    let _ = match telemetry.format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Human => logs.try_init(),
    };
}

/// Into the logs, and without what was put into its message: a slice in the Rego engine that does not end between two
/// characters is told with the whole text, which is a caller's. A message that is all in the program stays.
fn tell_of_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let what = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("withheld");
        let thread = thread::current();
        let thread = thread.name().unwrap_or_default();
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => tracing::error!(place, what, thread, %backtrace, "a panic"),
            _ => tracing::error!(place, what, thread, "a panic"),
        }
    }));
}

/// Tells a service manager, if one has asked to be told (sd_notify(3)).
fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = process_environment("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager was not told");
    }
}
