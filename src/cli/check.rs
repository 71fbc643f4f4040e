//! `interlock check`: whether a config, with everything it names, could run. Opens no port and sends nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use interlock::authority::{Amount, BudgetRule, CalendarUnit, InputPointer, Require, Window};
use interlock::canonical::{BodyRules, Forward};
use interlock::clock::Clock;
use interlock::config::{Config, FactConfig, FactFrom, RouteConfig, SecretsAre, SurfaceConfig, Surroundings};
use interlock::gateway::load_signers;
use interlock::policy::{Bundle, Problem, Severity, examine};
use interlock::upstream::{Roots, Scheme};

use super::policy::show;

/// The config cannot be used.
const INVALID: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The config file.
    #[arg(long, env = "INTERLOCK_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
    /// Only warn if a secret or a private key is not there, as on a build machine.
    #[arg(long)]
    pub without_secrets: bool,
}

/// Prints to standard output what was checked, and to standard error what is wrong.
///
/// Exit code 0: could run. 2: could not. The signing keys are read, to see that they can sign together.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let mut surroundings = Surroundings::of_process(&clock);
    if args.without_secrets {
        surroundings.secrets = SecretsAre::Optional;
    }
    let config = match Config::load(&args.config, surroundings) {
        Ok(config) => config,
        Err(invalid) => {
            eprintln!("{invalid}");
            return Ok(ExitCode::from(INVALID));
        }
    };
    for warning in config.warnings() {
        eprint!("{}", config.show_warning(warning));
    }
    let problems = check_policies(&config);
    for problem in &problems {
        eprint!("{}", show(problem, &config.policy.source.path().join(&*problem.file), None));
    }
    let mut is_valid = problems.iter().all(|problem| problem.severity != Severity::Error);
    if !args.without_secrets
        && let Err(why) = load_signers(&config.ledger)
    {
        eprintln!("error: {}: {why}", config.file.display());
        is_valid = false;
    }
    if !is_valid {
        return Ok(ExitCode::from(INVALID));
    }
    print!("{}", report(&config));
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with the policies in view of what this config says about routes, and with their own tests.
fn check_policies(config: &Config) -> Vec<Problem> {
    let packages = config.policy_packages();
    let found = match config.policy.source.read() {
        Ok(found) => found,
        Err(error) => return error.faults().iter().map(Problem::from).collect(),
    };
    let mut problems =
        examine(found.sources.clone(), &packages, Some(&config.policy_surroundings())).problems;
    if !problems.iter().any(|problem| problem.severity == Severity::Error)
        && let Err(error) = Bundle::tested(found.sources, &packages)
    {
        problems.extend(error.faults().iter().map(Problem::from));
    }
    problems
}

/// What the config says, surface by surface, for people.
pub fn report(config: &Config) -> String {
    let mut lines = vec![
        format!("{}: valid ({})", config.file.display(), config.digest),
        format!("log {} in {}", config.log_origin, config.ledger.dir.display()),
        format!("policies in {}", config.policy.source.path().display()),
        format!("admin on {}", config.admin.listen),
        format!(
            "{} API keys, {} credentials",
            config.api_keys.load().len(),
            config.credentials.names().count()
        ),
    ];
    for listener in &config.listeners {
        let tls = if listener.tls.is_some() { "TLS" } else { "no TLS" };
        lines.push(format!("listener {} on {} ({tls})", listener.name, listener.address));
    }
    for surface in &config.surfaces {
        lines.push(String::new());
        lines.extend(surface_lines(surface));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn surface_lines(surface: &SurfaceConfig) -> Vec<String> {
    let hosts: Vec<&str> = surface.hosts.names().collect();
    let hosts = if hosts.is_empty() { "every host".to_owned() } else { hosts.join(", ") };
    let roots = match &surface.upstream.scheme {
        Scheme::Plain => "no TLS".to_owned(),
        Scheme::Tls(Roots::WebPki) => "TLS, webpki roots".to_owned(),
        Scheme::Tls(Roots::Native) => "TLS, native roots".to_owned(),
        Scheme::Tls(Roots::File(path)) => format!("TLS, roots in {}", path.display()),
    };
    let credential = match &surface.credential {
        Some(slot) => format!("credential {} in `{}`", slot.secret, slot.header),
        None => "no credential".to_owned(),
    };
    let (name, listener, package) = (&surface.name, &surface.listener, &surface.package);
    let mut lines = vec![
        format!("surface {name}: {hosts} on {listener}, policy package {package}"),
        format!("  upstream {} ({roots}), {credential}", surface.upstream.authority),
        format!("  identity by {}", taken(surface)),
    ];
    lines.extend(surface.facts.iter().map(fact_line));
    lines.extend(surface.budgets.iter().map(budget_line));
    if let Some(idempotency) = &surface.idempotency {
        let (hours, bytes) = (idempotency.keep.as_secs() / 3_600, idempotency.answer_bytes_max);
        lines.push(format!("  idempotency keys taken for {hours} h, answers of at most {bytes} bytes kept"));
    }
    if let Some(lookup) = &surface.status_lookup {
        let actions: Vec<&str> = lookup.actions.iter().map(|action| action.as_str()).collect();
        let question = lookup.rules.question.as_str();
        lines.push(format!("  asks the upstream what became of {}: GET {question}", actions.join(", ")));
    }
    let (expire, wait) = (surface.holds.expire_after.as_secs() / 60, surface.holds.wait_max.as_secs());
    lines.push(format!("  holds expire after {expire} min, callers may wait {wait} s in place"));
    let rows: Vec<[String; 5]> = surface.routes.iter().map(row).collect();
    lines.extend(table(&["METHOD", "PATH", "ACTION", "BODY", "SCHEMA"], &rows));
    lines
}

fn fact_line(fact: &FactConfig) -> String {
    let from = match &fact.from {
        FactFrom::File { path, .. } => path.display().to_string(),
        FactFrom::Url(endpoint) => {
            let scheme = match endpoint.scheme {
                Scheme::Plain => "http",
                Scheme::Tls(_) => "https",
            };
            format!("{scheme}://{}{}", endpoint.authority, endpoint.target)
        }
    };
    let (age, bytes) = (fact.max_age.as_millis(), fact.bytes_max);
    format!("  fact {} from {from}, at most {age} ms old, {bytes} bytes", fact.name)
}

fn budget_line(budget: &BudgetRule) -> String {
    let amount = match &budget.amount {
        Amount::Fixed(amount) => amount.to_string(),
        Amount::At(pointer) => pointer.to_string(),
    };
    let window = match &budget.window {
        Window::Calendar { unit, zone } => {
            let unit = match unit {
                CalendarUnit::Hour => "hour",
                CalendarUnit::Day => "day",
                CalendarUnit::Week => "week",
                CalendarUnit::Month => "month",
            };
            format!("calendar {unit} in {zone}")
        }
        Window::Sliding(length) => format!("last {} min", length.as_secs() / 60),
    };
    let key: Vec<&str> = budget.key.iter().map(InputPointer::as_str).collect();
    let key = if key.is_empty() { "the whole surface".to_owned() } else { key.join(", ") };
    let actions = budget.actions.iter().flatten().map(|name| name.as_str()).collect::<Vec<_>>();
    let actions = if actions.is_empty() { "every action".to_owned() } else { actions.join(", ") };
    format!("  budget {}: {amount} {} of {actions} by {key}, {window}", budget.name, budget.unit)
}

fn taken(surface: &SurfaceConfig) -> String {
    let taken = surface.identities.taken();
    let ways = [
        ("certificate", taken.mtls.is_some()),
        ("token", taken.jwt.is_some()),
        ("API key", taken.api_key.is_some()),
    ];
    let ways: Vec<_> = ways.iter().filter(|(_, is_taken)| *is_taken).map(|(way, _)| *way).collect();
    ways.join(match taken.require {
        Require::One => " or ",
        Require::CertificateAndToken => " and ",
    })
}

fn row(route: &RouteConfig) -> [String; 5] {
    let body = match &route.rules.body {
        BodyRules::None => "none".to_owned(),
        BodyRules::Json { forward: Forward::Canonical, .. } => "json".to_owned(),
        BodyRules::Json { forward: Forward::Verbatim, .. } => "json, verbatim".to_owned(),
        BodyRules::Form { .. } => "form".to_owned(),
        BodyRules::Opaque { media_types, .. } => media_types.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    let schema = route.schema_file.as_ref().map_or("-".to_owned(), |p| p.display().to_string());
    [route.method.to_string(), route.path_text.to_string(), route.action.to_string(), body, schema]
}

fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> Vec<String> {
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["x".to_owned(), "1".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows), ["  A     B", "  x     1", "  long  2"]);
    }
}
