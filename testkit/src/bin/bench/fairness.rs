//! What a tenant notices of a greedy neighbour. Both send all the time; the neighbour first as much as its
//! quota lets it, then ten times that, so that nine of ten of its requests are refused.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use testkit::Tenant;

use crate::bed::Bed;
use crate::load::keep_rate;
use crate::meter::Usage;
use crate::probes::Probes;
use crate::report::{Figure, Report, rounded};
use crate::roles::{Mode, Role};
use crate::searchable::Path;
use crate::warm;

/// Seconds before each measurement, and of it.
const WARM: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(30);
/// Events a second of the tenant that is measured, and quota of the other.
const RATE: f64 = 1_000.0;
const QUOTA: u64 = 1_000;
const GREED: f64 = 10.0;
/// Events of each request.
const EVENTS: usize = 100;
const CONNECTIONS: usize = 32;

/// What the measured tenant's requests took.
struct Noticed {
    accept_p99_ms: f64,
    to_catalog_p99_ms: f64,
    refused: u64,
    usage: Usage,
}

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report) -> anyhow::Result<()> {
    warm::up(bed).await?;
    let polite = Tenant::named("polite").dedicated().provision(&bed.stores).await?;
    let greedy = Tenant::named("greedy").dedicated().limited(QUOTA).provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let search = bed.roles.search().await?;
    let gateway = bed.roles.gateway(&path.ingest, &search).await?;
    let within = measure(bed, &path, &gateway, [&polite, &greedy], 1.0).await?;
    let beyond = measure(bed, &path, &gateway, [&polite, &greedy], GREED).await?;

    let both = within.usage.plus(&beyond.usage);
    for (name, alone, beside) in [
        ("greedy_accept_p99_times", within.accept_p99_ms, beyond.accept_p99_ms),
        ("greedy_to_catalog_p99_times", within.to_catalog_p99_ms, beyond.to_catalog_p99_ms),
    ] {
        let detail = json!({
            "within_quota_ms": rounded(alone), "beyond_ms": rounded(beside), "refused_requests": beyond.refused,
            "quota_events_per_second": QUOTA, "offered": GREED * QUOTA as f64, "measured_tenant_events_per_second": RATE,
        });
        report.add(Figure::new(name, beside / alone, "times", &both).with(detail));
    }
    gateway.stop().await?;
    search.stop().await?;
    path.stop().await?;
    polite.retire().await?;
    greedy.retire().await
}

/// Both send; the second `greed` times its quota.
async fn measure(
    bed: &Arc<Bed>,
    path: &Path,
    gateway: &Role,
    [polite, greedy]: [&Tenant; 2],
    greed: f64,
) -> anyhow::Result<Noticed> {
    bed.quiet().await;
    let watched = bed.watch(path.roles());
    let load = |tenant: &Tenant, rate: f64| {
        keep_rate(&bed.logs(path.ingest.address, &tenant.key, EVENTS, CONNECTIONS), rate / EVENTS as f64)
    };
    let (measured, beside) = (load(polite, RATE), load(greedy, greed * QUOTA as f64));
    tokio::time::sleep(WARM).await;
    measured.tally.forget_latencies();
    let begun = watched.read()?;
    let delays = Probes::new(bed, polite, &path.ingest, gateway).measure(MEASURE).await?;
    let usage = begun.until(&watched.read()?);
    let accept_p99_ms = measured.tally.percentile_ms(99.0);
    measured.end().await;
    let refused = beside.end().await.refused.load(std::sync::atomic::Ordering::Relaxed);
    bed.drained().await?;
    let to_catalog_p99_ms = delays.catalog.value_at_percentile(99.0) as f64 / 1000.0;
    eprintln!(
        "  {greed} times the quota: accept {accept_p99_ms:.1} ms, catalog {to_catalog_p99_ms:.1} ms, {refused} refused"
    );
    Ok(Noticed { accept_p99_ms, to_catalog_p99_ms, refused, usage })
}
