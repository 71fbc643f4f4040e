//! `interlock policy check`: everything that loading refuses, and the type check against the routes of a config.

mod sarif;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use interlock::clock::Clock;
use interlock::config::{Config, SecretsAre, Surroundings};
use interlock::limits;
use interlock::policy::{self, BundleError, Problem, Severity, Sources};
use serde::Serialize;

/// There are errors, or warnings that are denied.
const FOUND: u8 = 10;

/// Exit codes: 0 nothing is wrong, or warnings only; 1 a bundle or the config cannot be read; 2 wrong usage; 10 there
/// are errors, or warnings with --deny-warnings.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    /// Directories of bundles, or single Rego files, each checked on its own; without one, the config's policies
    #[arg(value_name = "PATH", required_unless_present = "config")]
    paths: Vec<PathBuf>,
    /// The config whose routes, schemas, facts and budgets the rules are checked against; secrets need not be there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "human")]
    format: Format,
    /// Warnings fail the check too
    #[arg(long)]
    deny_warnings: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For people: each finding with its line
    Human,
    /// One object with a list of findings
    Json,
    /// SARIF 2.1.0, for code review
    Sarif,
}

/// A finding, and the file it is in.
struct Found {
    problem: Problem,
    /// As a person would open it.
    path: PathBuf,
    /// The line it is on, if there is one.
    line: Option<String>,
}

pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    let config = args.config.as_deref().map(read_config).transpose()?;
    let mut found = Vec::new();
    if let ([], Some(config)) = (&args.paths[..], &config) {
        let source = &config.policy.source;
        found.extend(check(source.path(), source.read().map(|found| found.sources), Some(config), true)?);
    }
    for path in &args.paths {
        let is_dir = path.is_dir();
        let read = if is_dir { Sources::read(path) } else { Sources::from_files([single(path)?]) };
        found.extend(check(path, read, config.as_ref(), is_dir)?);
    }
    let text = match args.format {
        Format::Human => human(&found),
        Format::Json => json(&found)?,
        Format::Sarif => sarif::log(&found)?,
    };
    stdout().lock().write_all(text.as_bytes())?;
    let fails = |found: &Found| args.deny_warnings || found.problem.severity == Severity::Error;
    Ok(if found.iter().any(fails) { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn read_config(file: &Path) -> Result<Config> {
    let clock = Clock::system();
    let mut surroundings = Surroundings::of_process(&clock);
    surroundings.secrets = SecretsAre::Optional;
    Config::load(file, surroundings).map_err(|invalid| anyhow::anyhow!("{invalid}"))
}

fn check(
    path: &Path,
    read: Result<Sources, BundleError>,
    config: Option<&Config>,
    is_whole: bool,
) -> Result<Vec<Found>> {
    let problems = match read {
        Ok(sources) => {
            ensure!(
                !sources.policies.is_empty(),
                "{} holds no policy: no `*.rego` file that is no test",
                path.display()
            );
            let (surroundings, packages) = match config {
                Some(config) if is_whole => (Some(config.policy_surroundings()), config.policy_packages()),
                // One file of a bundle need not hold every package.
                Some(config) => (Some(config.policy_surroundings()), Vec::new()),
                None => (None, Vec::new()),
            };
            policy::examine(sources, &packages, surroundings.as_ref()).problems
        }
        Err(error) if error.faults().iter().any(|fault| fault.rule == "unreadable") => bail!("{error}"),
        Err(error) => error.faults().iter().map(Problem::from).collect(),
    };
    Ok(problems.into_iter().map(|problem| Found::of(problem, path)).collect())
}

/// A file that is checked alone, by its own name.
fn single(path: &Path) -> Result<(String, Vec<u8>)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has no name that is UTF-8", path.display()))?;
    ensure!(name.ends_with(".rego"), "{} is neither a directory nor a `*.rego` file", path.display());
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    ensure!(
        size <= limits::POLICY_FILE_BYTES_MAX as u64,
        "{} has more than {} bytes",
        path.display(),
        limits::POLICY_FILE_BYTES_MAX
    );
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((name.to_owned(), bytes))
}

impl Found {
    fn of(problem: Problem, root: &Path) -> Self {
        let path = match (problem.file.is_empty(), root.is_dir()) {
            (false, true) => root.join(&*problem.file),
            (true, _) | (false, false) => root.to_owned(),
        };
        let number = (problem.line as usize).checked_sub(1);
        let text = number.and_then(|_| std::fs::read_to_string(&path).ok());
        let line = number.zip(text).and_then(|(n, text)| text.lines().nth(n).map(str::to_owned));
        Self { problem, path, line }
    }
}

fn human(found: &[Found]) -> String {
    let mut text: String =
        found.iter().map(|found| show(&found.problem, &found.path, found.line.as_deref())).collect();
    let count = |severity| found.iter().filter(|found| found.problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let plural = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    text.push_str(&format!("{}, {}\n", plural(errors, "error"), plural(warnings, "warning")));
    text
}

/// `file:line:column: severity[rule]: message`, the line with carets under the place, and what to write instead.
pub fn show(problem: &Problem, path: &Path, line: Option<&str>) -> String {
    let place = match problem.line {
        0 => path.display().to_string(),
        line => format!("{}:{line}:{}", path.display(), problem.column),
    };
    let mut text = format!("{place}: {}[{}]: {}\n", problem.severity.as_str(), problem.rule, problem.message);
    let number = problem.line.to_string();
    let gutter = " ".repeat(number.len());
    if let Some(line) = line {
        // Tabs and control characters would move the carets, or the terminal.
        let shown: String =
            line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_SHOWN_MAX).collect();
        let column = problem.column.saturating_sub(1) as usize;
        let room = shown.chars().count().saturating_sub(column).max(1);
        let carets = (problem.end_column.saturating_sub(problem.column) as usize).clamp(1, room);
        text.push_str(&format!(
            "{gutter} |\n{number} | {shown}\n{gutter} | {}{}\n",
            " ".repeat(column.min(LINE_SHOWN_MAX)),
            "^".repeat(carets)
        ));
    }
    if let Some(help) = &problem.help {
        text.push_str(&format!("{gutter} = help: {help}\n"));
    }
    text
}

const LINE_SHOWN_MAX: usize = 160;

#[derive(Serialize)]
struct JsonReport<'f> {
    findings: Vec<JsonFinding<'f>>,
}

#[derive(Serialize)]
struct JsonFinding<'f> {
    file: String,
    line: u32,
    column: u32,
    end_column: u32,
    severity: &'f str,
    rule: &'f str,
    message: &'f str,
    help: Option<&'f str>,
}

fn json(found: &[Found]) -> Result<String> {
    let findings = found.iter().map(|Found { problem, path, .. }| JsonFinding {
        file: path.display().to_string(),
        line: problem.line,
        column: problem.column,
        end_column: problem.end_column,
        severity: problem.severity.as_str(),
        rule: problem.rule,
        message: &problem.message,
        help: problem.help.as_deref(),
    });
    let report = JsonReport { findings: findings.collect() };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_shown_with_its_line_carets_and_help() {
        let problem = Problem {
            file: "p.rego".into(),
            line: 3,
            column: 9,
            end_column: 14,
            severity: Severity::Error,
            rule: "input_unknown",
            message: "there is no member `amout` here".into(),
            help: Some("did you mean `amount`?".into()),
        };
        let shown = show(&problem, Path::new("p/p.rego"), Some("\tx.body.amout > 5"));
        let expected = "p/p.rego:3:9: error[input_unknown]: there is no member `amout` here\n  |\n3 |  x.body.amout > 5\n  \
                        |         ^^^^^\n  = help: did you mean `amount`?\n";
        assert_eq!(shown, expected);
    }
}
