//! How many events a second are accepted, and how long a 202 takes.
//!
//! Only ingest and the queue's Redis work here: processors are not running, so that this is the
//! bound of accepting, not of indexing. Every 202 is behind an fsync (`appendfsync always`).
//!
//! - Ceilings: closed loop. A rate is given for each size of request and number of connections. The
//!   batched figure is the lowest over 100 to 1,000 events a request, since senders choose the
//!   size; the single-event figure is the highest over 64 to 512 connections, since those are what
//!   the server is saturated with.
//! - Latency: open loop at half of each ceiling; the worse of batched and single counts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::Tenant;

use crate::bed::Bed;
use crate::load::{Running, Target, keep_rate, saturate};
use crate::meter::{Usage, Watched};
use crate::report::{Figure, Report, rounded};
use crate::roles::{Mode, Role};

/// Seconds before each measurement, and of it.
const WARM: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(8);
/// Events a request and connections: together they hold less than ingest's budget in flight.
const BATCHED: [(usize, usize); 2] = [(100, 64), (1000, 16)];
/// Connections that send single events.
const SINGLE: [usize; 3] = [64, 256, 512];
/// Connections of the open loop: more than ever wait at once, or they would hide the queueing.
const OPEN: usize = 512;

/// What is reported of a measurement.
type Reading = fn(&Case) -> f64;

/// One measurement.
struct Case {
    events_per_request: usize,
    events: u64,
    requests: u64,
    usage: Usage,
    detail: Value,
    p50_ms: f64,
    p99_ms: f64,
}

impl Case {
    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.usage.wall.as_secs_f64()
    }

    fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.usage.wall.as_secs_f64()
    }
}

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report) -> anyhow::Result<()> {
    let tenant = Tenant::named("accept").dedicated().provision(&bed.stores).await?;
    let ingest = bed.roles.ingest(Mode::Batched).await?;
    let watched = bed.watch([&ingest]);

    let mut batched = Vec::new();
    for (events, connections) in BATCHED {
        let target = bed.logs(ingest.address, &tenant.key, events, connections);
        batched.push(measure(bed, &watched, events, &target, saturate(&target, None)).await?);
    }
    ceiling(report, "accepted_batched_events_per_second", "events/s", &batched, Case::events_per_second, f64::min);
    if let Some(first) = batched.first() {
        report.add_stages("accept_batched", &first.usage, first.events);
    }

    let mut single = Vec::new();
    for connections in SINGLE {
        let target = bed.logs(ingest.address, &tenant.key, 1, connections);
        single.push(measure(bed, &watched, 1, &target, saturate(&target, None)).await?);
    }
    ceiling(report, "accepted_single_requests_per_second", "requests/s", &single, Case::requests_per_second, f64::max);
    if let Some(last) = single.last() {
        report.add_stages("accept_single", &last.usage, last.events);
    }

    latency(bed, report, &watched, &ingest, &tenant, [&batched, &single]).await?;
    let all = batched.iter().chain(&single).map(|case| case.usage.clone()).reduce(|a, b| a.plus(&b));
    if let Some(usage) = all {
        let peak = ingest.peak_rss_mb()?;
        report.add(Figure::new("ingest_rss_mb", peak, "MiB", &usage).with(json!({"of": "VmHWM of the process"})));
    }
    ingest.stop().await?;
    tenant.retire().await
}

/// 202 latency at half of the first batched ceiling and half of the best single-event ceiling.
async fn latency(
    bed: &Arc<Bed>,
    report: &mut Report,
    watched: &Watched,
    ingest: &Role,
    tenant: &Tenant,
    [batched, single]: [&[Case]; 2],
) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for (events, ceiling) in [
        (batched[0].events_per_request, batched[0].requests_per_second()),
        (1, single.iter().map(Case::requests_per_second).fold(0.0, f64::max)),
    ] {
        let target = bed.logs(ingest.address, &tenant.key, events, OPEN);
        cases.push(measure(bed, watched, events, &target, keep_rate(&target, ceiling / 2.0)).await?);
    }
    let figures: [(&str, Reading); 2] = [("accept_p50_ms", |case| case.p50_ms), ("accept_p99_ms", |case| case.p99_ms)];
    for (name, of) in figures {
        let Some(worst) = cases.iter().max_by(|a, b| of(a).total_cmp(&of(b))) else { continue };
        let detail: Vec<&Value> = cases.iter().map(|case| &case.detail).collect();
        report.add(Figure::new(name, of(worst), "ms", &worst.usage).with(json!({"cases": detail})));
    }
    Ok(())
}

fn ceiling(
    report: &mut Report,
    name: &str,
    unit: &'static str,
    cases: &[Case],
    of: impl Fn(&Case) -> f64,
    choose: impl Fn(f64, f64) -> f64,
) {
    let Some(value) = cases.iter().map(&of).reduce(choose) else { return };
    let Some(usage) = cases.iter().map(|case| case.usage.clone()).reduce(|a, b| a.plus(&b)) else { return };
    let detail: Vec<&Value> = cases.iter().map(|case| &case.detail).collect();
    report.add(Figure::new(name, value, unit, &usage).with(json!({"cases": detail})));
}

async fn measure(
    bed: &Arc<Bed>,
    watched: &Watched,
    events_per_request: usize,
    target: &Target,
    running: Running,
) -> anyhow::Result<Case> {
    tokio::time::sleep(WARM).await;
    let tally = Arc::clone(&running.tally);
    tally.forget_latencies();
    let (events, requests, begun) = (tally.events(), tally.requests(), watched.read()?);
    tokio::time::sleep(MEASURE).await;
    let usage = begun.until(&watched.read()?);
    let (events, requests) = (tally.events() - events, tally.requests() - requests);
    let (p50_ms, p99_ms, p999_ms) = (tally.percentile_ms(50.0), tally.percentile_ms(99.0), tally.percentile_ms(99.9));
    let tally = running.end().await;
    bed.empty_queue().await?;
    ensure!(requests > 0, "nothing was accepted: {tally}");
    let detail = json!({
        "events_per_request": events_per_request,
        "connections": target.connections,
        "requests_per_second": rounded(requests as f64 / usage.wall.as_secs_f64()),
        "events_per_second": rounded(events as f64 / usage.wall.as_secs_f64()),
        "p50_ms": rounded(p50_ms),
        "p99_ms": rounded(p99_ms),
        "p999_ms": rounded(p999_ms),
        "refused": tally.refused.load(std::sync::atomic::Ordering::Relaxed),
        "failed": tally.failed.load(std::sync::atomic::Ordering::Relaxed),
        "foreign_cpu_percent": rounded(usage.foreign_percent()),
    });
    eprintln!("  {detail}");
    Ok(Case { events_per_request, events, requests, usage, detail, p50_ms, p99_ms })
}
