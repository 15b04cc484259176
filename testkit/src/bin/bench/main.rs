//! `loggerhub-bench`: how fast LoggerHub is, how much CPU each stage takes per event, and how that
//! compares with its controls in the same run. `make bench` runs it; docs/benchmarks.md says what
//! each figure means.
//!
//! ```text
//!  corpus ─► wire ◄─ load: closed or open loop ─► roles (shipped binary) ─► stores of an instance
//!                            │                             └── meter: /proc ──┘
//!  accept · searchable (with control) · … ─► report: summary.json, table, change since last time
//! ```
//! Nothing here is asserted by tests: it measures, and says when it was disturbed.

mod random;
mod corpus;
mod wire;
mod load;
mod pace;
mod meter;
mod report;
mod roles;
mod bed;
mod control;
mod warm;
mod accept;
mod searchable;
mod probes;
mod delay;
mod per_event;
mod tenants;
mod quiet;
mod fairness;
mod hostile;
mod outage;
mod scan;
mod peers;
mod machine;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use testkit::Stores;

use bed::Bed;
use control::Ids;
use meter::Watched;
use report::Report;
use roles::Roles;

/// Measures LoggerHub on the instance that the environment names.
#[derive(Parser)]
#[command(name = "loggerhub-bench", version)]
struct Settings {
    /// The shipped binary; built with `--release`, unless only changes from run to run matter.
    #[arg(long)]
    binary: PathBuf,
    /// The instance's folder of process ids.
    #[arg(long)]
    run: PathBuf,
    /// Where results and the roles' logs go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// What the last run measured of each stage.
    #[arg(long)]
    history: PathBuf,
    /// The commit that is measured.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Seconds of the sustained measurement.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=3600))]
    seconds: u64,
    /// Documents that warm OpenSearch's JVM up: after 300,000, a document still costs it a tenth more.
    #[arg(long, env = "BENCH_WARM_DOCUMENTS", default_value_t = 1_000_000)]
    warm_documents: u64,
    /// Scenarios to run; all of them unless said, but for `quiet`, `outage` and `scan`, which take long.
    #[arg(long, env = "ONLY", value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Tenants of the scenario with many: a thousand, unless the harness itself is tried out.
    #[arg(long, env = "BENCH_TENANTS", default_value_t = 1000, value_parser = tenants)]
    tenants: usize,
    /// Events a second of the scenario `delay`: half of what can be made searchable, unless said.
    #[arg(long, env = "BENCH_DELAY_RATE", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    delay_rate: Option<u32>,
    /// Events that arrive while OpenSearch stands still.
    #[arg(long, env = "BENCH_OUTAGE_EVENTS", default_value_t = 3_000_000)]
    outage_events: u64,
    /// Events in the archive that is searched line by line.
    #[arg(long, env = "BENCH_SCAN_EVENTS", default_value_t = 2_000_000)]
    scan_events: u64,
    /// Take the thousand tenants away again: for stores that stay.
    #[arg(long)]
    retire: bool,
    #[command(flatten)]
    peers: peers::PeerSettings,
    /// Who makes the ids of the control's documents.
    #[arg(long, env = "BENCH_CONTROL_IDS", value_enum, default_value_t = Ids::Own)]
    control_ids: Ids,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Ceilings and latency of accepting.
    Accept,
    /// The whole path, sustained, against plain OpenSearch.
    Searchable,
    /// From acceptance to catalog, live tail and search, at half load.
    Delay,
    /// A tenant that offers ten times its quota, and what its neighbour notices of it.
    Fairness,
    /// A hostile tenant, and what a good one at the same door notices of it.
    Hostile,
    /// Against one write per event.
    PerEvent,
    /// Other systems, those whose addresses are given.
    Peers,
    /// A thousand tenants against one.
    Tenants,
    /// A thousand tenants that send next to nothing.
    Quiet,
    /// OpenSearch stands still while millions of events arrive, and has to be caught up with.
    Outage,
    /// A search of the archive while OpenSearch is away.
    Scan,
}

fn tenants(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=10_000).contains(count)).ok_or_else(|| "1 to 10,000".to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    ensure!(settings.binary.is_file(), "{} is not there: build it", settings.binary.display());
    std::fs::create_dir_all(&settings.out)?;
    let roles = Roles { binary: settings.binary, logs: settings.out.clone(), stores: Stores::from_environment()? };
    let bed = Arc::new(Bed::new(roles, &settings.run, corpus::lines(), settings.seconds, settings.warm_documents)?);
    eprintln!("{} distinct lines of {:.0} bytes", bed.lines.len(), bed.lines.mean_bytes());

    pace::watch();
    let everything = Watched::default();
    let begun = everything.read()?;
    let mut report = Report::default();
    for scenario in Scenario::value_variants() {
        let unasked =
            settings.only.is_empty() && !matches!(scenario, Scenario::Quiet | Scenario::Outage | Scenario::Scan);
        if !unasked && !settings.only.contains(scenario) {
            continue;
        }
        eprintln!("{scenario:?}");
        // A run that failed may have left something.
        bed.empty_queue().await?;
        match scenario {
            Scenario::Accept => accept::run(&bed, &mut report).await?,
            Scenario::Searchable => searchable::run(&bed, &mut report, settings.control_ids).await?,
            Scenario::Delay => delay::run(&bed, &mut report, settings.delay_rate).await?,
            Scenario::Fairness => fairness::run(&bed, &mut report).await?,
            Scenario::Hostile => hostile::run(&bed, &mut report).await?,
            Scenario::PerEvent => per_event::run(&bed, &mut report).await?,
            Scenario::Peers if !settings.peers.any() => eprintln!("  none: see PEER_VICTORIALOGS_URL"),
            Scenario::Peers => peers::run(&bed, &mut report, &settings.peers).await?,
            Scenario::Tenants => tenants::run(&bed, &mut report, settings.tenants, settings.retire).await?,
            Scenario::Quiet => quiet::run(&bed, &mut report, settings.tenants, settings.retire).await?,
            Scenario::Outage => outage::run(&bed, &mut report, settings.outage_events).await?,
            Scenario::Scan => scan::run(&bed, &mut report, settings.scan_events).await?,
        }
        // What is measured so far is there also if a later scenario fails.
        report.write(&settings.out.join("summary.json"))?;
    }
    let usage = begun.until(&everything.read()?);
    let mut run = machine::figure(&bed, &settings.commit, &usage).await?;
    run.noisy = report.figures.iter().any(|figure| figure.noisy);
    report.figures.insert(0, run);
    report.write(&settings.out.join("summary.json"))?;
    let changes = report.changes(&settings.history)?;
    eprintln!("\n{}\nCPU per event since the last run here:\n{changes}", report.table());
    Ok(())
}
