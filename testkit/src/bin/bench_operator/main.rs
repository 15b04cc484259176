//! `loggerhub-bench-operator`: how fast the operator onboards tenants, and what it costs while
//! nothing changes. Real stores and a real API server; `dev/bench-operator` starts them and this.

mod arrivals;
mod figures;
mod tenants;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::json;
use testkit::processes::peak_rss_mb;
use testkit::{Cluster, OperatorProcess, OperatorProgram, Stores, eventually, operator_ground, unique};

use arrivals::Arrivals;
use figures::{Cpu, Figure, Report, percentile, rounded};
use tenants::Tenants;

/// Longest wait until all Tenants are Ready, and until one alone is.
const ALL_READY: Duration = Duration::from_secs(900);
const ONE_READY: Duration = Duration::from_secs(30);
/// What the operator's resync is in the chart.
const RESYNC_SECONDS: u64 = 300;
/// A resync that comes so often that two of all Tenants can be waited for.
const SHORT_RESYNC_SECONDS: u64 = 30;
/// Longest wait for those two.
const TWO_RESYNCS: Duration = Duration::from_secs(300);
/// Rest before a measurement of nothing.
const REST: Duration = Duration::from_secs(15);

#[derive(Parser)]
#[command(version, about = "Measures the operator")]
struct Settings {
    /// The operator, built with --release.
    #[arg(long)]
    program: PathBuf,
    /// The instance's folder of process ids.
    #[arg(long)]
    run: PathBuf,
    /// Where the figures and the operator's logs go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The commit that is measured.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Tenants that are applied at once.
    #[arg(long, env = "BENCH_TENANTS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tenants: u32,
    /// Tenants that are applied one after the other.
    #[arg(long, env = "BENCH_SINGLES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    singles: u32,
    /// Seconds in which nothing changes: a whole resync, so that each Tenant is looked at.
    #[arg(long, env = "BENCH_QUIET_SECONDS", default_value_t = RESYNC_SECONDS)]
    quiet_seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    std::fs::create_dir_all(&settings.out)?;
    let mut cluster = Cluster::connect().await?;
    let class = unique("bench");
    cluster.namespace = class.clone();
    operator_ground::prepare(&cluster).await?;
    let tenants = Tenants::new(cluster, class);
    tenants.pipeline().await?;
    let program = OperatorProgram {
        program: settings.program.clone(),
        stores: Stores::from_environment()?,
        logs: settings.out.clone(),
    };
    let operator = program.start(&tenants.operator_settings(RESYNC_SECONDS), &[])?;
    operator.leads().await?;
    let arrivals = Arrivals::watch(&tenants);

    let mut report = Report::new(&settings.commit);
    one_by_one(&tenants, &arrivals, settings.singles, &mut report).await?;
    all_at_once(&tenants, &arrivals, &settings, &operator, &mut report).await?;
    quiet(&operator, &settings, &mut report).await?;
    report.add(Figure::new("operator_rss_mb", peak_rss_mb(operator.pid)?, "MB", Some(150.0)));
    operator.stop().await?;
    let operator = program.start(&tenants.operator_settings(SHORT_RESYNC_SECONDS), &[])?;
    operator.leads().await?;
    nothing_is_written(&tenants, &operator, settings.singles + settings.tenants, &mut report).await?;
    operator.stop().await?;
    let path = settings.out.join("operator.json");
    report.write(&path)?;
    eprintln!("{}written: {}", report.table(), path.display());
    Ok(())
}

/// The stores have nothing else to do.
async fn one_by_one(tenants: &Tenants, arrivals: &Arrivals, count: u32, report: &mut Report) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
    for number in 0..count {
        let name = format!("single-{number}");
        let begun = Instant::now();
        let name = tenants.apply(&name).await?;
        let ready = arrivals.ready(std::slice::from_ref(&name), ONE_READY).await?;
        seconds.push((ready[0] - begun).as_secs_f64());
    }
    let detail = json!({"tenants": count, "seconds": seconds.iter().copied().map(rounded).collect::<Vec<_>>()});
    report.add(Figure::new("apply_to_ready_p50_seconds", percentile(&mut seconds, 0.50), "s", Some(1.0)));
    report.add(Figure::new("apply_to_ready_p99_seconds", percentile(&mut seconds, 0.99), "s", Some(3.0)).with(detail));
    Ok(())
}

async fn all_at_once(
    tenants: &Tenants,
    arrivals: &Arrivals,
    settings: &Settings,
    operator: &OperatorProcess,
    report: &mut Report,
) -> anyhow::Result<()> {
    let cpu = Cpu::read(&settings.run, operator.pid)?;
    let begun = Instant::now();
    let names = tenants.apply_all(settings.tenants).await?;
    let applied = begun.elapsed();
    let ready = arrivals.ready(&names, ALL_READY).await?;
    let last = ready.iter().max().context("no Tenant")?;
    let mut seconds: Vec<f64> = ready.iter().map(|ready| (*ready - begun).as_secs_f64()).collect();
    let used = Cpu::read(&settings.run, operator.pid)?.since(&cpu);
    let detail = json!({
        "tenants": settings.tenants,
        "applied_after_seconds": rounded(applied.as_secs_f64()),
        "half_ready_after_seconds": rounded(percentile(&mut seconds, 0.5)),
        "cpu_seconds": used,
    });
    let took = (*last - begun).as_secs_f64();
    report.add(Figure::new("thousand_tenants_ready_seconds", took, "s", Some(180.0)).with(detail));
    Ok(())
}

async fn quiet(operator: &OperatorProcess, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    tokio::time::sleep(REST).await;
    let (cpu, reconciled, begun) =
        (Cpu::read(&settings.run, operator.pid)?, reconciles(operator).await?, Instant::now());
    tokio::time::sleep(Duration::from_secs(settings.quiet_seconds)).await;
    let (used, wall) = (Cpu::read(&settings.run, operator.pid)?.since(&cpu), begun.elapsed().as_secs_f64());
    let own = used.get("operator").copied().unwrap_or_default();
    let detail = json!({
        "reconciles": reconciles(operator).await? - reconciled,
        "seconds": rounded(wall),
        "cpu_seconds": used,
    });
    report.add(Figure::new("quiet_percent_of_a_core", own * 100.0 / wall, "%", Some(2.0)).with(detail));
    Ok(())
}

/// Two resyncs of everything change no object.
async fn nothing_is_written(
    tenants: &Tenants,
    operator: &OperatorProcess,
    count: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let passes = async |passes: u32| {
        eventually("all Tenants are looked at", TWO_RESYNCS, async || {
            let done = reconciles(operator).await?;
            ensure!(done >= f64::from(passes * count), "{done} so far");
            Ok(())
        })
        .await
    };
    passes(1).await?;
    let before = tenants.versions().await?;
    // Each comes within 1.2 of its time; some come more often than others.
    passes(3).await?;
    tokio::time::sleep(Duration::from_secs(SHORT_RESYNC_SECONDS / 2)).await;
    let after = tenants.versions().await?;
    let changed: Vec<&String> = after
        .iter()
        .filter(|(object, version)| before.get(*object) != Some(*version))
        .map(|(object, _)| object)
        .collect();
    let detail = json!({"objects": after.len(), "changed": changed.iter().take(10).collect::<Vec<_>>()});
    report.add(Figure::new("writes_in_two_resyncs", changed.len() as f64, "objects", Some(0.0)).with(detail));
    Ok(())
}

/// How many reconciliations of Tenants have ended.
async fn reconciles(operator: &OperatorProcess) -> anyhow::Result<f64> {
    let text = operator.get("/metrics").await?;
    let lines =
        text.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total{controller=\"tenant\""));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}
