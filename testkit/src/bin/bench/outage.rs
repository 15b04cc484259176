//! OpenSearch stands still while millions of events arrive, and goes on. How much more the queue's Redis holds
//! meanwhile, and how fast what is missing is indexed while new events go on coming.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::{Tenant, eventually};

use crate::bed::{Bed, indices};
use crate::load::{Running, keep_rate};
use crate::meter::{Stage, Watched};
use crate::report::{Figure, Report, rounded};
use crate::roles::Mode;
use crate::searchable::{EVENTS, Path};
use crate::warm;

/// Events a second during the outage, and after it.
const DURING: f64 = 15_000.0;
const AFTER: f64 = 10_000.0;
const CONNECTIONS: usize = 16;
/// Time before the outage, in which the tenant's first events are indexed.
const WARM: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Events accepted and not yet found by which the index is level: two seconds of what comes.
const LEVEL: u64 = 20_000;
/// Longest wait until it is level, for each million that was missed, and at all.
const PATIENCE: Duration = Duration::from_secs(600);
const SETTLE: Duration = Duration::from_secs(120);

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, missed: u64) -> anyhow::Result<()> {
    warm::up(bed).await?;
    let tenant = Tenant::named("outage").dedicated().provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let watched = bed.watch(path.roles());
    let load =
        |rate: f64| keep_rate(&bed.logs(path.ingest.address, &tenant.key, EVENTS, CONNECTIONS), rate / EVENTS as f64);

    let running = load(DURING);
    tokio::time::sleep(WARM).await;
    let accepted = outage(bed, report, &watched, running, missed).await?;
    let accepted = accepted + catch_up(bed, report, &watched, load(AFTER), &tenant, accepted).await?;

    bed.drained().await?;
    eventually("everything accepted is searchable", SETTLE, async || {
        let found = bed.searchable(&indices(&tenant)).await?;
        ensure!(found == accepted, "{found} of {accepted} events are searchable");
        Ok(())
    })
    .await?;
    let stored = bed.stored(&tenant).await?;
    ensure!(stored == accepted, "the catalog holds {stored} of {accepted} events");
    eprintln!("  {accepted} events accepted, stored and found");
    path.stop().await?;
    tenant.retire().await
}

/// Sends until so many were accepted while OpenSearch stands still. Gives back how many there are in all.
async fn outage(
    bed: &Bed,
    report: &mut Report,
    watched: &Watched,
    running: Running,
    missed: u64,
) -> anyhow::Result<u64> {
    let stopped = Stopped::now(bed)?;
    let (before, begun, first) = (bed.queue_memory().await?, watched.read()?, running.tally.events());
    let (mut most, mut waiting) = (before, 0);
    let patience = Duration::from_secs_f64(missed as f64 / DURING * 3.0) + SETTLE;
    let until = Instant::now() + patience;
    while running.tally.events() - first < missed {
        ensure!(Instant::now() < until, "only {} events were accepted in {patience:?}", running.tally.events() - first);
        tokio::time::sleep(LOOK).await;
        most = most.max(bed.queue_memory().await?);
        waiting = waiting.max(bed.backlog().await?);
    }
    let (usage, events) = (begun.until(&watched.read()?), running.tally.events() - first);
    stopped.goes_on()?;
    let tally = running.end().await;
    let (refused, failed) = (tally.refused.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    ensure!(failed == 0, "{failed} connections broke: what they sent may be stored or not");
    let detail = json!({
        "events": events, "events_per_second": rounded(events as f64 / usage.wall.as_secs_f64()), "most_waiting": waiting,
        "refused_requests": refused,
    });
    let grown = most.saturating_sub(before) as f64 / 1024.0 / 1024.0;
    report.add(Figure::new("outage_queue_mb", grown, "MiB", &usage).with(detail));
    report.add_stages("outage", &usage, events);
    Ok(tally.events())
}

/// Waits, under load, until what is accepted is found but for the last seconds. Gives back how many were accepted.
async fn catch_up(
    bed: &Bed,
    report: &mut Report,
    watched: &Watched,
    running: Running,
    tenant: &Tenant,
    accepted: u64,
) -> anyhow::Result<u64> {
    let (begun, found) = (watched.read()?, bed.searchable(&indices(tenant)).await?);
    let missing = accepted.saturating_sub(found);
    let patience = PATIENCE.mul_f64((missing as f64 / 1e6).max(1.0));
    let until = Instant::now() + patience;
    let indexed = loop {
        tokio::time::sleep(LOOK).await;
        let (now, all) = (bed.searchable(&indices(tenant)).await?, accepted + running.tally.events());
        if all.saturating_sub(now) <= LEVEL {
            break now - found;
        }
        ensure!(Instant::now() < until, "{} of {all} events are missing after {patience:?}", all - now);
    };
    let usage = begun.until(&watched.read()?);
    let tally = running.end().await;
    let failed = tally.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} connections broke: what they sent may be stored or not");
    let new = tally.events();
    let detail = json!({
        "missing": missing, "indexed": indexed, "accepted_meanwhile": new,
        "new_events_per_second": rounded(new as f64 / usage.wall.as_secs_f64()),
        "opensearch_us_per_event": rounded(usage.per_event(indexed).get(&Stage::OpenSearch).copied().unwrap_or(0.0)),
    });
    let rate = indexed as f64 / usage.wall.as_secs_f64();
    report.add(Figure::new("catch_up_events_per_second", rate, "events/s", &usage).with(detail));
    report.add_stages("catch_up", &usage, indexed);
    Ok(new)
}

/// OpenSearch, standing still: it takes connections and answers nothing. Goes on when this is dropped.
struct Stopped {
    pid: u32,
}

impl Stopped {
    fn now(bed: &Bed) -> anyhow::Result<Self> {
        let server = bed.servers.processes.iter().find(|(stage, _)| *stage == Stage::OpenSearch);
        let (_, pid) = server.context("OpenSearch is not watched")?;
        signal(*pid, "-STOP")?;
        Ok(Self { pid: *pid })
    }

    fn goes_on(self) -> anyhow::Result<()> {
        signal(self.pid, "-CONT")
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that goes on already does not notice.
        if let Err(error) = signal(self.pid, "-CONT") {
            eprintln!("  {error:#}");
        }
    }
}

fn signal(pid: u32, signal: &str) -> anyhow::Result<()> {
    let done = Command::new("kill").args([signal, &pid.to_string()]).status().context("run kill")?;
    ensure!(done.success(), "kill {signal} {pid} failed");
    Ok(())
}
