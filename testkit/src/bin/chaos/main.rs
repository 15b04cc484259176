//! `loggerhub-chaos`: runs the fault matrix against real servers, prints fault × invariant, and fails
//! if anything accepted was lost or doubled.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use testkit::chaos::{self, Fault, Report, Settings};

/// Breaks things and checks that every 202 was kept.
#[derive(Parser)]
#[command(name = "loggerhub-chaos", version)]
struct Arguments {
    /// The program `loggerhub` as it is shipped.
    #[arg(long)]
    program: PathBuf,
    /// The same with the feature `failpoints`.
    #[arg(long)]
    fail_points: Option<PathBuf>,
    /// Where logs, ledgers and summary.json go.
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// Where all chance comes from; another one each time unless given.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many random kills of the shipped program there are.
    #[arg(long, env = "KILLS", default_value_t = 200)]
    kills: u32,
    /// Only faults with this in their name.
    #[arg(long, env = "ONLY")]
    only: Option<String>,
    /// Only the short run.
    #[arg(long)]
    short: bool,
    /// Faults beside each other, as far as they don't touch common servers.
    #[arg(long, env = "AT_ONCE", default_value_t = 3)]
    at_once: usize,
    /// Names the faults and does nothing.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut faults = if arguments.short { Fault::short() } else { Fault::all(arguments.kills) };
    faults.retain(|fault| arguments.only.as_ref().is_none_or(|only| fault.name().contains(only.as_str())));
    ensure!(!faults.is_empty(), "no fault is named so; --list names them");
    let mut out = std::io::stdout();
    if arguments.list {
        faults.iter().try_for_each(|fault| writeln!(out, "{}", fault.name()))?;
        return Ok(());
    }
    fs::create_dir_all(&arguments.folder).with_context(|| format!("make {}", arguments.folder.display()))?;
    let settings = Settings {
        program: arguments.program,
        fail_points: arguments.fail_points,
        folder: fs::canonicalize(&arguments.folder)?,
        seed: arguments.seed.unwrap_or_else(rand::random),
        at_once: arguments.at_once,
    };
    writeln!(out, "{} faults, seed {}", faults.len(), settings.seed)?;
    writeln!(out, "{}", Report::head())?;
    let report = chaos::run(&settings, &faults, |outcome| {
        // Nobody reads on: the summary has it all the same.
        writeln!(std::io::stdout(), "{}", outcome.line()).ok();
    })
    .await?;
    let summary = settings.folder.join("summary.json");
    fs::write(&summary, serde_json::to_vec_pretty(&report.cells())?)
        .with_context(|| format!("write {}", summary.display()))?;
    let failed: Vec<&str> =
        report.outcomes.iter().filter(|outcome| !outcome.held()).map(|outcome| outcome.fault.as_str()).collect();
    writeln!(out, "{} of {} faults held; {}", report.outcomes.len() - failed.len(), faults.len(), summary.display())?;
    ensure!(failed.is_empty(), "with SEED={} these did not hold: {}", settings.seed, failed.join(", "));
    Ok(())
}
