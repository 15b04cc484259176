//! A thousand tenants instead of one: each request is of one tenant, picked by Zipf's law (exponent
//! 1.1), so that a few send much and most send little.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use testkit::Tenant;
use testkit::tenant::platform;

use crate::bed::{Bed, EVENTS_STORED, headers, indices};
use crate::random::Zipf;
use crate::report::{Figure, Report, rounded};
use crate::roles::{AS_SHIPPED, Mode};
use crate::searchable::{BACKLOG, CONNECTIONS, EVENTS, Path, flow, reference};
use crate::warm;

const EXPONENT: f64 = 1.1;
/// Tenants provisioned at once; each waits for the stores most of the time.
const AT_ONCE: usize = 8;
/// Objects in a tenant's archive, for [`sum`].
pub(crate) const OBJECTS: &str = "SELECT count(*) FROM {schema}.objects";
/// What is measured: a whole minute, since MinIO looks through its buckets for a quarter of each, with a third of a core,
/// and autovacuum begins once in it. Half a minute held all of that or nothing.
const MEASURE: Duration = Duration::from_secs(60);

pub(crate) async fn run(bed: &Arc<Bed>, report: &mut Report, count: usize, retire: bool) -> anyhow::Result<()> {
    warm::up(bed).await?;
    let one = reference(bed, report).await?;
    let tenants = provision(bed, count).await?;
    // As shipped each archives once in 300 s. Sooner, all of them would within the window, as never happens.
    let path = Path::archiving(bed, Mode::Batched, AS_SHIPPED).await?;
    path.first_pass().await?;
    let watched = bed.watch(path.roles());
    let zipf = Zipf::new(count, EXPONENT);
    let keys = tenants.iter().map(|tenant| headers(&tenant.key)).collect();
    let target = bed.logs_of(path.ingest.address, keys, move |random| zipf.pick(random), EVENTS, CONNECTIONS);
    let mut series: Vec<String> = tenants.iter().map(indices).collect();
    series.sort();
    series.dedup();
    let stored = async || Ok(u64::try_from(sum(bed, &tenants, EVENTS_STORED).await?)?);
    let phase = flow(bed, &watched, &target, BACKLOG, MEASURE, &series.join(","), stored).await?;

    let (relations, objects) = (relations(bed).await?, sum(bed, &tenants, OBJECTS).await?);
    let detail = json!({
        "events_per_second": rounded(phase.rate()), "events": phase.events, "tenants": count,
        "zipf_exponent": EXPONENT, "indices": series.len(), "relations": relations, "objects": objects,
        "events_per_request": EVENTS, "events_per_flush": path.events_per_flush().await?,
    });
    let figure = Figure::new("thousand_tenants_ratio", phase.rate() / one, "ratio", &phase.usage).with(detail);
    report.add(Figure { control: Some(rounded(one)), ..figure });
    report.add_stages("thousand_tenants", &phase.usage, phase.events);
    path.stop().await?;
    if retire { take_away(tenants).await } else { Ok(()) }
}

/// Many tenants, in pools.
pub(crate) async fn provision(bed: &Bed, count: usize) -> anyhow::Result<Vec<Tenant>> {
    let begun = Instant::now();
    let platform = platform(&bed.stores).await?;
    let tenants = futures::stream::iter(0..count)
        .map(|_| Tenant::named("many").provision_by(&platform))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .context("provision the tenants")?;
    eprintln!("  {count} tenants provisioned in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(tenants)
}

pub(crate) async fn take_away(tenants: Vec<Tenant>) -> anyhow::Result<()> {
    futures::stream::iter(tenants).map(Tenant::retire).buffer_unordered(AT_ONCE).try_collect().await
}

/// A number of each tenant's schema, summed up.
pub(crate) async fn sum(bed: &Bed, tenants: &[Tenant], sql: &str) -> anyhow::Result<i64> {
    let mut sum = 0;
    for tenant in tenants {
        sum += bed.number(tenant, sql).await?;
    }
    Ok(sum)
}

/// Tables, indices and whatever else PostgreSQL keeps in files, in the database of the tenants.
pub(crate) async fn relations(bed: &Bed) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM pg_class").fetch_one(&bed.catalog).await?)
}
