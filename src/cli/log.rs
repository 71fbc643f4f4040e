//! `interlock log`: what lies in a log's directory, whether it fits together, and a copy for others.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use interlock::clock::Clock;
use interlock::ledger::{Checked, Stat, export, fsck, stat};
use interlock::verify::{Directory, escape, escape_json};
use serde_json::json;

use super::verify::Trusted;

/// Exit code of `fsck` when the evidence is sound, and what is derived from it is not.
const DERIVED_UNFIT: u8 = 16;

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LogCommand {
    /// Count what is in the directory: leaves, segments, tiles, room
    Stat(StatArgs),
    /// Check everything while no gateway has the log open, and make again what is derived
    Fsck(FsckArgs),
    /// Copy the log as static C2SP tlog-tiles
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct StatArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    #[arg(long)]
    json: bool,
}

/// Exit codes: as `verify` for the evidence; 16 if the evidence is sound and something derived is not, and was not
/// repaired.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct FsckArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    #[command(flatten)]
    trusted: Trusted,
    /// Remove restart points that do not fit, and make tiles and index again. Evidence is never touched
    #[arg(long)]
    repair: bool,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// Directory of the log
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Directory of the copy, empty or new
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// An earlier checkpoint of this log, to copy the log as it was then
    #[arg(long, value_name = "FILE")]
    until: Option<PathBuf>,
    /// Also write policy inputs and bundle files, each named by its SHA-256
    #[arg(long)]
    evidence: bool,
}

pub fn run(args: LogArgs) -> Result<ExitCode> {
    match args.command {
        LogCommand::Stat(args) => run_stat(&args),
        LogCommand::Fsck(args) => run_fsck(&args),
        LogCommand::Export(args) => run_export(&args),
    }
}

fn run_stat(args: &StatArgs) -> Result<ExitCode> {
    let found = stat(&args.log).with_context(|| format!("cannot read the log in {}", args.log.display()))?;
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(&found)?))?;
    } else {
        print_stat(&mut out, &found)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_stat(out: &mut impl Write, found: &Stat) -> Result<()> {
    let text = |time: &Option<String>| escape(time.as_deref().unwrap_or("never"));
    writeln!(out, "log          {}", escape(&found.log))?;
    writeln!(out, "leaves       {}, {} of them not signed yet", found.leaves, found.unsigned_leaves())?;
    writeln!(out, "time         {} to {}", text(&found.first_time), text(&found.last_time))?;
    writeln!(out, "epochs       {}", found.epochs)?;
    writeln!(out, "permits      {} without an outcome", found.open_permits)?;
    writeln!(out, "raw          {} segments, {} bytes", found.raw_segments, found.raw_bytes)?;
    writeln!(
        out,
        "sealed       {} segments, {} bytes for {}",
        found.sealed_segments, found.sealed_bytes, found.sealed_from_bytes
    )?;
    let newest =
        found.newest_restart_point.map_or_else(String::new, |first| format!(", newest at entry {first}"));
    writeln!(out, "restart      {} points{newest}", found.restart_points)?;
    writeln!(out, "tiles        {} bytes", found.tile_bytes)?;
    writeln!(out, "index        {} bytes", found.index_bytes)?;
    writeln!(out, "quarantine   {} files, {} bytes", found.quarantined_files, found.quarantined_bytes)?;
    writeln!(out, "disk         {} bytes", found.disk_bytes)?;
    for (day, types) in &found.days {
        let counts: Vec<_> = types.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(out, "{}   {}", escape(day), counts.join(", "))?;
    }
    if let Some(damage) = &found.damage {
        writeln!(out, "damage       {}", escape(damage))?;
    }
    Ok(())
}

fn run_fsck(args: &FsckArgs) -> Result<ExitCode> {
    let trust = args.trusted.read()?;
    let checked = fsck(&args.log, &trust, args.repair, Clock::system())
        .with_context(|| format!("cannot check the log in {}", args.log.display()))?;
    let mut out = stdout().lock();
    if args.json {
        let report = json!({
            "evidence": checked.evidence,
            "derived": checked.derived,
            "derived_count": checked.derived_count,
            "derived_checked": checked.derived_checked,
            "repaired": checked.repaired,
            "notes": checked.notes,
        });
        writeln!(out, "{}", escape_json(&serde_json::to_string_pretty(&report)?))?;
    } else {
        print_checked(&mut out, &checked)?;
    }
    let evidence = checked.evidence.exit_code();
    let unfit = checked.derived_is_unfit() && !checked.repaired;
    Ok(ExitCode::from(if evidence == 0 && unfit { DERIVED_UNFIT } else { evidence }))
}

fn print_checked(out: &mut impl Write, checked: &Checked) -> Result<()> {
    write!(out, "{}", checked.evidence)?;
    if !checked.derived_checked {
        writeln!(out, "derived      not looked at: the evidence comes first, and nothing of it is touched")?;
        return Ok(());
    }
    let verdict = match (checked.derived_is_unfit(), checked.repaired) {
        (false, _) => "pass",
        (true, false) => "FAIL",
        (true, true) => "repaired",
    };
    writeln!(out, "derived      {verdict}")?;
    for note in &checked.notes {
        writeln!(out, "note         {}", escape(note))?;
    }
    for unfit in &checked.derived {
        writeln!(out, "problem      derived: {} [{}]", escape(&unfit.what), escape(&unfit.file))?;
    }
    let unnamed = checked.derived_count - checked.derived.len() as u64;
    if unnamed > 0 {
        writeln!(out, "problem      derived: {unnamed} more")?;
    }
    Ok(())
}

fn run_export(args: &ExportArgs) -> Result<ExitCode> {
    let cannot_read = || format!("cannot read the log in {}", args.log.display());
    let source = Directory::open(&args.log).with_context(cannot_read)?;
    let until = args.until.as_ref().map(std::fs::read).transpose().context("cannot read the checkpoint")?;
    let exported = export(&source, &args.to, until, args.evidence)
        .with_context(|| format!("the log in {} was not exported", args.log.display()))?;
    let mut out = stdout().lock();
    writeln!(
        out,
        "{} entries: {} tiles, {} bundles, {} files of evidence",
        exported.size, exported.tiles, exported.bundles, exported.evidence
    )?;
    Ok(ExitCode::SUCCESS)
}
