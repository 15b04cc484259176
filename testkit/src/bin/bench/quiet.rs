//! A thousand tenants that send next to nothing: each an event a minute. What that costs at rest: objects put
//! into the archive, relations, memory of PostgreSQL's backends, and CPU, with the chart's age of what is
//! archived.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use testkit::processes::{Table, memory_mb};

use crate::bed::{Bed, EVENTS_STORED, headers};
use crate::load::keep_rate;
use crate::meter::Stage;
use crate::report::{Figure, Report, rounded};
use crate::roles::{AS_SHIPPED, Mode};
use crate::searchable::Path;
use crate::tenants::{OBJECTS, provision, relations, sum, take_away};

/// Events a second of each tenant.
const RATE: f64 = 1.0 / 60.0;
const CONNECTIONS: usize = 16;

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, count: usize, retire: bool) -> anyhow::Result<()> {
    let tenants = provision(bed, count).await?;
    let path = Path::archiving(bed, Mode::Batched, AS_SHIPPED).await?;
    path.first_pass().await?;
    let watched = bed.watch(path.roles());
    let keys: Vec<String> = tenants.iter().map(|tenant| headers(&tenant.key)).collect();
    let anybody = move |random: &crate::random::Random| random.below(count as u64) as usize;
    let target = bed.logs_of(path.ingest.address, keys, anybody, 1, CONNECTIONS);
    let running = keep_rate(&target, RATE * count as f64);
    // From when the first lines have become old, objects are made at an even pace.
    tokio::time::sleep(AS_SHIPPED).await;
    let counted = async || anyhow::Ok((sum(bed, &tenants, OBJECTS).await?, sum(bed, &tenants, EVENTS_STORED).await?));
    let (before, begun) = (counted().await?, watched.read()?);
    tokio::time::sleep(Duration::from_secs(bed.seconds)).await;
    let usage = begun.until(&watched.read()?);
    let after = counted().await?;
    let (put, events) = (after.0 - before.0, after.1 - before.1);
    let backends = backends(bed)?;
    running.end().await;

    let hours = usage.wall.as_secs_f64() / 3600.0;
    let detail = json!({"tenants": count, "events": events, "objects": put});
    report.add(Figure::new("quiet_puts_per_hour", put as f64 / hours, "objects", &usage).with(detail));
    let detail = json!({"tenants": count});
    report.add(Figure::new("quiet_relations", relations(bed).await? as f64, "relations", &usage).with(detail));
    let detail = json!({"backends": backends.len(), "most": backends.iter().copied().fold(0.0, f64::max)});
    report.add(Figure::new("quiet_backends_mb", backends.iter().sum(), "MiB", &usage).with(detail));
    let percent = |seconds: f64| rounded(seconds / usage.wall.as_secs_f64() * 100.0);
    let stages: serde_json::Map<_, _> =
        usage.stages.iter().map(|(stage, seconds)| (stage.name().to_owned(), percent(*seconds).into())).collect();
    let all = percent(usage.stages.values().sum());
    report.add(Figure::new("quiet_percent_of_a_core", all, "%", &usage).with(stages.into()));
    path.stop().await?;
    if retire { take_away(tenants).await } else { Ok(()) }
}

/// Memory of each of PostgreSQL's processes, in MiB. One that ended meanwhile counts no more.
fn backends(bed: &Bed) -> anyhow::Result<Vec<f64>> {
    let table = Table::read()?;
    let servers = bed.servers.processes.iter().filter(|(stage, _)| *stage == Stage::Postgres);
    let backends = servers.flat_map(|(_, pid)| table.children(*pid));
    Ok(backends.filter_map(|pid| memory_mb(*pid).ok()).collect())
}
