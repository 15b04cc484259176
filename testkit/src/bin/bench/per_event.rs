//! Against itself with one write per event: `--batch=1` all the way. What systems do that store each
//! event as it comes, on this machine and in this run.
//!
//! One event a request; each has its own entry and round-trip into the queue (Redis may still fsync
//! several at once), its own transaction in PostgreSQL, its own `_bulk` of one document, its own
//! acknowledgement. Twelve of them are worked on at once. Left as it is, in favour of this mode: the
//! archive still puts many events into one object.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use testkit::Tenant;

use crate::bed::{Bed, indices};
use crate::report::{Figure, Report, rounded};
use crate::roles::Mode;
use crate::searchable::{Path, flow, reference};
use crate::warm;

/// Seconds that are measured.
const MEASURE: Duration = Duration::from_secs(15);
/// Events that may wait: some seconds of work.
const BACKLOG: i64 = 1000;
const CONNECTIONS: usize = 64;

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report) -> anyhow::Result<()> {
    warm::up(bed).await?;
    let batched = reference(bed, report).await?;
    let tenant = Tenant::named("single").dedicated().provision(&bed.stores).await?;
    let path = Path::start(bed, Mode::PerEvent).await?;
    let watched = bed.watch(path.roles());
    let target = bed.logs(path.ingest.address, &tenant.key, 1, CONNECTIONS);
    let stored = async || bed.stored(&tenant).await;
    let phase = flow(bed, &watched, &target, BACKLOG, MEASURE, &indices(&tenant), stored).await?;

    let cpu: f64 = phase.usage.stages.values().sum::<f64>() * 1e6 / phase.events.max(1) as f64;
    let detail = json!({"events": phase.events, "workers": 12, "cpu_us_per_event_all_servers": rounded(cpu)});
    let figure = Figure::new("ratio_to_per_event_mode", batched / phase.rate(), "ratio", &phase.usage).with(detail);
    report.add(Figure { control: Some(rounded(phase.rate())), ..figure });
    report.add_stages("per_event", &phase.usage, phase.events);
    path.stop().await?;
    tenant.retire().await
}
