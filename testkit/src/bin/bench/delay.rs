//! How long after its acceptance an event is in PostgreSQL, on a live tail, and searchable, while
//! the pipeline runs at half of what it can, or at a given rate.
//!
//! The load is an open loop. Beside it, single-event requests of the service `probe` go out at even
//! distances, and each of them is looked for: committed, by its batch's row; live, by the gateway's
//! WebSocket; searchable, by a search for its id, which finds it only after the refresh. Every delay
//! counts from ingest's own note of the acceptance, which is before the fsync, to the moment at
//! which we saw it: so it holds up to one pause between two looks too much.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use testkit::Tenant;

use crate::bed::Bed;
use crate::load::keep_rate;
use crate::probes::{Delays, Probes};
use crate::report::{Figure, Report, rounded};
use crate::roles::Mode;
use crate::searchable::{Path, reference};
use crate::warm;

/// Seconds before probes go out, and during which they do.
const WARM: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(30);
/// Events of each request of the load.
const EVENTS: usize = 100;
const CONNECTIONS: usize = 64;

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, rate: Option<u32>) -> anyhow::Result<()> {
    warm::up(bed).await?;
    let rate = match rate {
        Some(rate) => f64::from(rate),
        None => reference(bed, report).await? / 2.0,
    };
    let tenant = Tenant::named("delay").dedicated().provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let search = bed.roles.search().await?;
    let gateway = bed.roles.gateway(&path.ingest, &search).await?;
    let watched = bed.watch(path.roles().into_iter().chain([&search, &gateway]));
    bed.quiet().await;

    let target = bed.logs(path.ingest.address, &tenant.key, EVENTS, CONNECTIONS);
    let running = keep_rate(&target, rate / EVENTS as f64);
    tokio::time::sleep(WARM).await;
    let (events, begun) = (running.tally.events(), watched.read()?);
    let delays = Probes::new(bed, &tenant, &path.ingest, &gateway).measure(MEASURE).await?;
    let (events, usage) = (running.tally.events() - events, begun.until(&watched.read()?));
    let offered = events as f64 / usage.wall.as_secs_f64();
    let tally = running.end().await;
    ensure!(offered > 0.9 * rate, "only {offered:.0} of {rate:.0} events a second went out: {tally}");
    bed.drained().await?;
    let per_flush = path.events_per_flush().await?;

    let Delays { sent, catalog, live, searchable } = &delays;
    for (name, histogram) in
        [("to_catalog_p99_ms", catalog), ("to_live_p99_ms", live), ("to_searchable_p99_ms", searchable)]
    {
        let ms = |percent: f64| rounded(histogram.value_at_percentile(percent) as f64 / 1000.0);
        let detail = json!({
            "probes": sent, "load_events_per_second": rounded(offered), "events_per_flush": per_flush,
            "p50_ms": ms(50.0), "p90_ms": ms(90.0), "p999_ms": ms(99.9), "max_ms": ms(100.0),
        });
        report.add(Figure::new(name, ms(99.0), "ms", &usage).with(detail));
    }
    report.add_stages("half_load", &usage, events);
    gateway.stop().await?;
    search.stop().await?;
    path.stop().await?;
    tenant.retire().await
}
