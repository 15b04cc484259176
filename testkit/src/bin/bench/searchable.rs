//! How many events a second go the whole way and are found, for as long as wanted, while what waits
//! stays bounded; and how near that is to OpenSearch without us.
//!
//! Control and subject take turns in one run: half of the control, the whole subject, the other half.
//! Rates are of documents that a search counts, so after the refresh, at both ends of the window.
//! Afterwards catalog and index must hold exactly what was accepted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use testkit::{Tenant, eventually};

use crate::bed::{Bed, gate, indices};
use crate::control::{self, Ids};
use crate::load::{Running, Target, saturate};
use crate::meter::{Stage, Usage, Watched};
use crate::report::{Figure, Report, rounded};
use crate::roles::{EARLY, Mode, Role};
use crate::warm;

/// Events that may wait in the queue: about a second of work.
pub(crate) const BACKLOG: i64 = 40_000;
/// Events a request, and connections: what a shipper sends, and more than the pipeline can take.
pub(crate) const EVENTS: usize = 500;
pub(crate) const CONNECTIONS: usize = 4;
/// Time until rates are steady.
const WARM: Duration = Duration::from_secs(5);
/// Seconds of the rate that other scenarios relate to, where this one did not run.
const REFERENCE: Duration = Duration::from_secs(10);
/// Longest wait for maintain's first pass over all tenants.
const FIRST_PASS: Duration = Duration::from_secs(120);
/// Longest wait until everything accepted is searchable.
const SETTLE: Duration = Duration::from_secs(60);

/// The roles on the path of a log line, and `maintain` behind it.
pub(crate) struct Path {
    pub(crate) ingest: Role,
    pub(crate) process: Role,
    pub(crate) maintain: Role,
}

impl Path {
    pub(crate) async fn start(bed: &Bed, mode: Mode) -> anyhow::Result<Self> {
        Self::archiving(bed, mode, EARLY).await
    }

    pub(crate) async fn archiving(bed: &Bed, mode: Mode, archive_after: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            ingest: bed.roles.ingest(mode).await?,
            process: bed.roles.process(mode).await?,
            maintain: bed.roles.maintain(archive_after).await?,
        })
    }

    pub(crate) fn roles(&self) -> [&Role; 3] {
        [&self.ingest, &self.process, &self.maintain]
    }

    /// Events that the processor stored at once, on average since its start: small flushes are dear.
    pub(crate) async fn events_per_flush(&self) -> anyhow::Result<f64> {
        let flushes = self.process.metric("loggerhub_process_flush_seconds_count").await?;
        let stored = self.process.metric("loggerhub_process_stored_events_total").await?;
        Ok(rounded(stored / flushes.max(1.0)))
    }

    /// Waits until `maintain` has passed over all tenants once: it begins with what is else due every five
    /// minutes.
    pub(crate) async fn first_pass(&self) -> anyhow::Result<()> {
        let passed = async || {
            let passes = self.maintain.metric("loggerhub_maintain_passes_total").await?;
            ensure!(passes >= 1.0, "{passes} passes");
            Ok(())
        };
        eventually("maintain passes over all tenants", FIRST_PASS, passed).await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.ingest.stop().await?;
        self.process.stop().await?;
        self.maintain.stop().await
    }
}

/// Documents that became searchable in a window.
#[derive(Clone)]
pub(crate) struct Phase {
    pub(crate) events: u64,
    pub(crate) usage: Usage,
}

impl Phase {
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.usage.wall.as_secs_f64()
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self { events: self.events + other.events, usage: self.usage.plus(&other.usage) }
    }

    pub(crate) fn micros(&self, stage: Stage) -> f64 {
        rounded(self.usage.per_event(self.events).get(&stage).copied().unwrap_or(0.0))
    }
}

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, ids: Ids) -> anyhow::Result<()> {
    let subject = Tenant::named("subject").dedicated().provision(&bed.stores).await?;
    let plain = Tenant::named("control").dedicated().provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let watched = bed.watch(path.roles());
    warm::up(bed).await?;

    let half = Duration::from_secs(bed.seconds.div_ceil(2));
    let bulk = control::target(bed, &plain, ids)?;
    let before = plain_bulk(bed, &watched, &bulk, &plain, half).await?;
    let ours = sustained(bed, &watched, &path, &subject, Duration::from_secs(bed.seconds)).await?;
    let after = plain_bulk(bed, &watched, &bulk, &plain, half).await?;
    let control = before.plus(&after);

    let detail = json!({
        "documents": ours.events,
        "events_per_request": EVENTS,
        "backlog_bound": BACKLOG,
        "events_per_flush": path.events_per_flush().await?,
        "opensearch_us_per_event": ours.micros(Stage::OpenSearch),
        "control_opensearch_us_per_document": control.micros(Stage::OpenSearch),
        "control_documents": control.events,
        "control_rates": [rounded(before.rate()), rounded(after.rate())],
        "control_ids": format!("{ids:?}").to_lowercase(),
        "control_foreign_cpu_percent": rounded(control.usage.foreign_percent()),
    });
    let name = "searchable_events_per_second";
    report.add(Figure::new(name, ours.rate(), "events/s", &ours.usage).against(control.rate()).with(detail));
    let both = ours.usage.plus(&control.usage);
    let ratio = ours.rate() / control.rate();
    report.add(Figure::new("searchable_ratio_to_opensearch", ratio, "ratio", &both));
    let own: f64 =
        ours.usage.stages.iter().filter(|(stage, _)| **stage != Stage::OpenSearch).map(|(_, time)| time).sum();
    let own = own * 1e6 / ours.events.max(1) as f64;
    report.add(Figure::new("own_cpu_us_per_event", own, "µs", &ours.usage));
    report.add_stages("searchable", &ours.usage, ours.events);
    report.add_stages("control", &control.usage, control.events);
    let peak = path.process.peak_rss_mb()?;
    report.add(Figure::new("processor_rss_mb", peak, "MiB", &ours.usage).with(json!({"of": "VmHWM of the process"})));
    archive(bed, report, &subject, &ours.usage).await?;

    path.stop().await?;
    subject.retire().await?;
    plain.retire().await
}

/// Events a second that one tenant's whole path takes: of this run, measured briefly if need be.
pub(crate) async fn reference(bed: &Arc<Bed>, report: &Report) -> anyhow::Result<f64> {
    if let Some(rate) = report.value("searchable_events_per_second") {
        return Ok(rate);
    }
    let tenant = Tenant::named("reference").dedicated().provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::Batched).await?;
    let phase = sustained(bed, &bed.watch(path.roles()), &path, &tenant, REFERENCE).await?;
    path.stop().await?;
    tenant.retire().await?;
    Ok(phase.rate())
}

/// Bytes in the archive for each byte that was sent, over all objects of the tenant.
async fn archive(bed: &Bed, report: &mut Report, subject: &Tenant, usage: &Usage) -> anyhow::Result<()> {
    let objects = bed.number(subject, "SELECT count(*) FROM {schema}.objects").await?;
    if objects == 0 {
        eprintln!("  no object was archived within the run: no archive_bytes_ratio");
        return Ok(());
    }
    let stored = bed.number(subject, "SELECT sum(bytes)::bigint FROM {schema}.objects").await?;
    let raw = bed.number(subject, "SELECT sum(raw_bytes)::bigint FROM {schema}.objects").await?;
    let events = bed.number(subject, "SELECT sum(events)::bigint FROM {schema}.objects").await?;
    let detail = json!({"objects": objects, "bytes": stored, "raw_bytes": raw, "events": events});
    report.add(Figure::new("archive_bytes_ratio", stored as f64 / raw as f64, "bytes/byte", usage).with(detail));
    Ok(())
}

/// The subject: the whole path under a load that is held back only by the bound of what may wait.
async fn sustained(
    bed: &Arc<Bed>,
    watched: &Watched,
    path: &Path,
    tenant: &Tenant,
    during: Duration,
) -> anyhow::Result<Phase> {
    let target = bed.logs(path.ingest.address, &tenant.key, EVENTS, CONNECTIONS);
    flow(bed, watched, &target, BACKLOG, during, &indices(tenant), async || bed.stored(tenant).await).await
}

/// Sends as much as a bounded backlog allows, measures, and waits until all of it is stored and
/// searchable; `stored` counts the catalog.
pub(crate) async fn flow(
    bed: &Arc<Bed>,
    watched: &Watched,
    target: &Target,
    backlog: i64,
    during: Duration,
    indices: &str,
    stored: impl AsyncFn() -> anyhow::Result<u64>,
) -> anyhow::Result<Phase> {
    bed.quiet().await;
    let held = bed.searchable(indices).await?;
    let gate = gate(backlog);
    let guard = bed.guard(&gate);
    let phase = window(bed, watched, saturate(target, Some(gate)), WARM, during, indices).await;
    guard.abort();
    let (phase, accepted) = phase?;
    bed.drained().await?;
    eventually("everything accepted is searchable", SETTLE, async || {
        let found = bed.searchable(indices).await? - held;
        ensure!(found == accepted, "{found} of {accepted} events are searchable");
        Ok(())
    })
    .await?;
    let stored = stored().await?;
    ensure!(stored == held + accepted, "the catalog holds {stored} of {} events", held + accepted);
    eprintln!(
        "  {:.0} events/s searchable over {:.0} s; {accepted} accepted, stored and found",
        phase.rate(),
        phase.usage.wall.as_secs_f64()
    );
    Ok(phase)
}

/// The control: `_bulk` of the same documents.
async fn plain_bulk(
    bed: &Bed,
    watched: &Watched,
    target: &Target,
    tenant: &Tenant,
    during: Duration,
) -> anyhow::Result<Phase> {
    bed.quiet().await;
    let (phase, _) = window(bed, watched, saturate(target, None), WARM, during, &indices(tenant)).await?;
    eprintln!("  {:.0} documents/s by plain _bulk", phase.rate());
    Ok(phase)
}

/// Counts and meters from `warm` on, for `during`; then ends the load. Gives back the events that
/// succeeded in all.
async fn window(
    bed: &Bed,
    watched: &Watched,
    running: Running,
    warm: Duration,
    during: Duration,
    indices: &str,
) -> anyhow::Result<(Phase, u64)> {
    tokio::time::sleep(warm).await;
    let (found, begun) = (bed.searchable(indices).await?, watched.read()?);
    tokio::time::sleep(during).await;
    let (events, usage) = (bed.searchable(indices).await? - found, begun.until(&watched.read()?));
    let tally = running.end().await;
    let failed = tally.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} connections broke: what they sent may be stored or not");
    ensure!(events > 0, "nothing became searchable: {tally}");
    Ok((Phase { events, usage }, tally.events()))
}
