//! `interlock policy eval`: what policy says to one request, and why, without a gateway.

use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use interlock::clock::{Clock, WallTime};
use interlock::config::{Config, SecretsAre, Surroundings};
use interlock::model::{Actor, AuthenticationMethod, Decision, Json, PackageName};
use interlock::policy::{Bundle, Sources};
use interlock::redaction::Disclosures;
use interlock::trial::{self, Asked, Given, NotAsked, Tried, curl};
use interlock::verify::{escape, escape_json};
use serde_json::json;

use super::super::replay;
use super::trace;

/// The request never reaches policy, or what was given cannot be used.
const REFUSED: u8 = 11;
/// Policy refuses.
const NOT_PERMITTED: u8 = 10;

/// Exit codes: 0 PERMIT; 10 any other verdict; 11 the request is refused before policy is asked, as its client would be
/// told; 1 something cannot be read or does not go together; 2 wrong usage.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct EvalArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// The config whose surfaces, routes and policy are used; its secrets need not be there
    #[arg(long, value_name = "FILE", required_unless_present = "policy")]
    config: Option<PathBuf>,
    /// A directory or bundle to evaluate instead of the config's
    #[arg(long, value_name = "PATH")]
    policy: Option<PathBuf>,
    /// The package that is asked; otherwise that of the surface
    #[arg(long, value_name = "NAME")]
    package: Option<PackageName>,
    /// The surface that the message is for; otherwise that of its host
    #[arg(long, value_name = "NAME")]
    surface: Option<String>,
    /// Who asks: nothing is proved here
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// How the actor would have been proved
    #[arg(long, value_name = "METHOD", value_enum, default_value = "api_key", requires = "actor")]
    actor_method: Method,
    /// What the credential would say about the actor, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "actor")]
    claims: String,
    /// A JSON object with `facts`, `budgets`, `approvals`; budgets that are not in it have nothing spent
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// When it is asked (RFC 3339); otherwise now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<WallTime>,
    /// Disclosures of a recorded input, one a line; what they disclose is judged, and not shown
    #[arg(long, value_name = "FILE", requires = "input")]
    disclosures: Option<PathBuf>,
    /// Say of every rule what made it hold, or which expression kept it from it, with values
    #[arg(long)]
    explain: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RequestArgs {
    /// A policy input, recorded or hand-written (JSON); `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// A curl command line
    #[arg(long, value_name = "COMMAND")]
    curl: Option<String>,
    /// A raw HTTP/1.1 message, every line of its head ending in CRLF; `-` is standard input
    #[arg(long, value_name = "FILE")]
    http: Option<PathBuf>,
    /// The same, with a head that an editor wrote: its lines end in LF
    #[arg(long, value_name = "FILE")]
    http_text: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    Mtls,
    Jwt,
    #[value(name = "api_key")]
    ApiKey,
}

fn parse_time(text: &str) -> Result<WallTime, String> {
    WallTime::parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-11-20T13:00:00Z".into())
}

pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    let config = args.config.as_deref().map(read_config).transpose()?;
    let asked = match args.asked(config.as_ref())? {
        Ok(asked) => asked,
        Err(refused) => {
            args.show_refused(&refused)?;
            return Ok(ExitCode::from(REFUSED));
        }
    };
    let sources = match (&args.policy, &config) {
        (Some(path), _) => Sources::read_bundle(path).map_err(|faults| anyhow!("{faults}"))?,
        (None, Some(config)) => config.policy.source.read().map_err(|faults| anyhow!("{faults}"))?.sources,
        (None, None) => bail!("there is no policy: give --config or --policy"),
    };
    let bundle = Bundle::from_sources(sources, &[]).map_err(|faults| anyhow!("{faults}"))?;
    let tried = trial::evaluate(bundle, &asked, args.explain).map_err(|faults| anyhow!("{faults}"))?;
    args.show(&asked, &tried)?;
    let is_permit = tried.finding.not_evaluated.is_none() && tried.finding.decision == Decision::Permit;
    Ok(if is_permit { ExitCode::SUCCESS } else { ExitCode::from(NOT_PERMITTED) })
}

pub fn read_config(file: &Path) -> Result<Config> {
    let clock = Clock::system();
    let mut surroundings = Surroundings::of_process(&clock);
    surroundings.secrets = SecretsAre::Optional;
    Config::load(file, surroundings).map_err(|invalid| anyhow!("{invalid}"))
}

impl EvalArgs {
    fn asked(&self, config: Option<&Config>) -> Result<Result<Asked, NotAsked>> {
        let RequestArgs { input, curl, http, http_text } = &self.request;
        let read = |path: &PathBuf| trial::read_bounded(path).map_err(|why| anyhow!(why));
        if let Some(path) = input {
            return self.recorded(path, config).map(Ok);
        }
        let message = match (curl, http, http_text) {
            (Some(command), _, _) => {
                curl::message(command, trial::read_bounded).map_err(|why| anyhow!(why))?
            }
            (None, Some(path), _) => read(path)?,
            (None, None, Some(path)) => trial::with_crlf(&read(path)?),
            (None, None, None) => bail!("no request"),
        };
        let config = config.context("a message needs --config, which has the routes it is held to")?;
        let given = Given {
            actor: self.actor()?,
            surface: self.surface.clone(),
            context: match &self.context {
                Some(path) => trial::read_json(path).map_err(|why| anyhow!(why))?,
                None => Json::object([]),
            },
            now: self.time.unwrap_or_else(|| Clock::system().wall()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut asked = match runtime.block_on(trial::ask(config, &message, given)) {
            Ok(asked) => asked,
            Err(NotAsked::Given(why)) => bail!(why),
            Err(refused @ NotAsked::Refused { .. }) => return Ok(Err(refused)),
        };
        if let Some(package) = &self.package {
            asked.package = package.clone();
        }
        Ok(Ok(asked))
    }

    /// A policy input as it is, for the package that is named, or that of the surface it names.
    fn recorded(&self, path: &Path, config: Option<&Config>) -> Result<Asked> {
        let input = trial::read_json(path).map_err(|why| anyhow!(why))?;
        let surface = input.as_object().and_then(|o| o.member("surface")).and_then(Json::as_str);
        let surface = self.surface.as_deref().or(surface);
        let of_surface = |name: &str| {
            let found = config?.surfaces.iter().find(|surface| surface.name.as_str() == name);
            found.map(|surface| surface.package.clone())
        };
        let package = self.package.clone().or_else(|| surface.and_then(of_surface));
        let package = package
            .context("which package is asked? give --package, or --config with the input's surface")?;
        let disclosures = match &self.disclosures {
            Some(path) => replay::disclosures(path)?,
            None => Disclosures::default(),
        };
        trial::recorded(input, package, &disclosures).map_err(|why| anyhow!(why))
    }

    fn actor(&self) -> Result<Actor> {
        let id = self.actor.as_deref().context("who asks? give --actor")?;
        let claims = trial::parse_json(self.claims.as_bytes()).map_err(|why| anyhow!("--claims: {why}"))?;
        if claims.as_object().is_none() {
            bail!("--claims is no JSON object");
        }
        let method = match self.actor_method {
            Method::Mtls => AuthenticationMethod::Mtls,
            Method::Jwt => AuthenticationMethod::Jwt,
            Method::ApiKey => AuthenticationMethod::ApiKey,
        };
        let id = id.parse().map_err(|why| anyhow!("--actor: {why}"))?;
        Ok(Actor { id, method, credential_digest: None, claims, valid_until: None })
    }

    fn show_refused(&self, refused: &NotAsked) -> Result<()> {
        let NotAsked::Refused { code, place, detail } = refused else { bail!("nothing was refused") };
        if self.json {
            let page = json!({"refused": {
                "status": code.status(), "reason": code.as_str(), "title": code.title(), "place": place, "detail": detail,
            }});
            writeln!(stdout(), "{}", escape_json(&serde_json::to_string_pretty(&page)?))?;
            return Ok(());
        }
        let place = place.as_deref().map(|place| format!(" ({place})")).unwrap_or_default();
        let detail = detail.as_deref().map(|detail| format!(" {detail}")).unwrap_or_default();
        let line = format!("refused    {} {}: {}{place}{detail}", code.status(), code.as_str(), code.title());
        writeln!(stdout(), "{}", escape(&line))?;
        writeln!(stderr(), "policy is not asked")?;
        Ok(())
    }

    fn show(&self, asked: &Asked, tried: &Tried) -> Result<()> {
        let Tried { finding, reasons, sets, .. } = tried;
        let cause = finding.not_evaluated.map(|code| code.as_str());
        let detail = finding.cause.as_deref().filter(|_| !asked.is_redacted());
        if self.json {
            let page = json!({
                "package": asked.package.as_str(), "revision": tried.revision.to_string(), "decision": finding.decision.as_str(),
                "reasons": reasons, "not_evaluated": cause, "cause": detail, "input": asked.shown(),
                "explanation": self.explain.then_some(sets),
            });
            writeln!(stdout(), "{}", escape_json(&serde_json::to_string_pretty(&page)?))?;
            return Ok(());
        }
        let mut page = format!("verdict    {}\n", finding.decision.as_str());
        page.push_str(&format!("package    {} at {}\n", asked.package, tried.revision));
        for reason in reasons {
            page.push_str(&format!("reason     {}\n", escape(&serde_json::to_string(reason)?)));
        }
        if let Some(cause) = cause {
            let detail = detail.map(|detail| format!(": {}", detail.replace('\n', " "))).unwrap_or_default();
            page.push_str(&format!("cause      {}\n", escape(&format!("{cause}{detail}"))));
        }
        if self.explain {
            page.push('\n');
            page.push_str(&trace::sets(sets));
        }
        write!(stdout(), "{page}")?;
        Ok(())
    }
}
