//! The spool's bound: nothing is acknowledged beyond it, nobody else is held up, nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use dataplane::event::new_batch_id;
use dataplane::maintain::{Archived, Rooms, archive};
use dataplane::process::SpoolSettings;
use dataplane::tenancy::{Peppers, Registry};
use testkit::{eventually, holds};

use super::bench::{Bench, Processor, SOON, header, lines, now};

/// 50 lines of 20 KB that shrink to half.
fn noise() -> Vec<String> {
    (0..50)
        .map(|_| {
            let hex: String = (0..1_250).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
            format!(r#"{{"service":"noisy","message":"m","full_log":"{hex}"}}"#)
        })
        .collect()
}

#[tokio::test]
async fn a_full_spool_stops_its_tenant_alone_and_empties_without_loss() -> anyhow::Result<()> {
    const BATCHES: i64 = 8;
    const SHARE: i64 = 1024 * 1024;
    let bench = Bench::new("spoolfull").await?;
    let neighbour = testkit::Tenant::named("neighbour").dedicated().on_pipeline(&bench.pipeline);
    let neighbour = neighbour.provision(&bench.stores).await?;
    let known = Registry::fixed([neighbour.registered.clone()], Peppers::none());
    let other = known.tenant(neighbour.desired.name()).expect("it was given");
    let mut settings = bench.settings("p-0").await?;
    settings.spool = SpoolSettings { max_bytes: 100 * SHARE as u64, tenant_percent: 1 };
    let processor = Processor::start(settings).await?;

    // The object store is away: what is stored stays in the spool.
    let away = Rooms { archive: away()?, ..bench.rooms().await? };
    let mut raw = 0;
    for _ in 0..BATCHES {
        let lines = noise();
        raw += lines.iter().map(String::len).sum::<usize>() as i64;
        bench.send(&lines).await?;
    }
    ensure!(archive(&away, &bench.tenant, Duration::ZERO, now()).await.is_err() || spooled(&bench).await? == 0);
    eventually("the spool is near its bound", SOON, async || {
        let spooled = spooled(&bench).await?;
        ensure!(spooled > SHARE / 3, "{spooled}");
        Ok(())
    })
    .await?;
    holds("nothing goes beyond the bound", Duration::from_secs(8), async || {
        let (spooled, backlog) = (spooled(&bench).await?, bench.backlog().await?);
        ensure!(spooled <= SHARE + SHARE / 8, "{spooled} in the spool");
        ensure!(backlog > 0, "everything was acknowledged");
        Ok(())
    })
    .await?;
    ensure!(archive(&away, &bench.tenant, Duration::ZERO, now()).await.is_err(), "the object store is away");

    let few = lines(10);
    bench.send_to(&Arc::clone(&other), &header(new_batch_id(), now(), &few), &few).await?;
    let of_neighbour = format!("SELECT count(*) FROM {}.logs", other.name().database_schema());
    eventually("the neighbour's events are stored", SOON, async || {
        ensure!(bench.count(&of_neighbour).await? == 10);
        Ok(())
    })
    .await?;

    // It is back.
    let rooms = bench.rooms().await?;
    eventually("all of it is stored", 3 * SOON, async || {
        while let Archived::Object { .. } = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await? {}
        let backlog = bench.backlog().await?;
        ensure!(backlog == 0, "{backlog} still wait");
        Ok(())
    })
    .await?;
    while let Archived::Object { .. } = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await? {}
    bench.holds(50 * BATCHES).await?;
    let archived = bench.count("SELECT sum(raw_bytes)::bigint FROM {}.objects").await?;
    ensure!(archived == raw, "{archived} of {raw} bytes are archived");
    ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 0);
    processor.stop().await?;
    neighbour.retire().await?;
    bench.retire().await
}

/// An archive where nothing listens.
fn away() -> anyhow::Result<dataplane::stores::archive::Archive> {
    let mut stores = testkit::Stores::from_environment()?;
    stores.s3.endpoint = "http://127.0.0.1:9".to_owned();
    Ok(dataplane::stores::archive::Archive::new(stores.s3()?))
}

async fn spooled(bench: &Bench) -> anyhow::Result<i64> {
    bench.count("SELECT coalesce(sum(octet_length(frame)), 0)::bigint FROM {}.spool").await
}

#[tokio::test]
async fn a_spool_that_somebody_has_for_himself_keeps_nobody_from_measuring_the_others() -> anyhow::Result<()> {
    let (bench, other) = (Bench::new("locked").await?, Bench::new("measured").await?);
    let catalog = bench.rooms().await?.catalog;
    let measured = async || -> anyhow::Result<Vec<bool>> {
        let sizes = tokio::time::timeout(SOON / 4, catalog.spool_sizes()).await??;
        let is_there = |bench: &Bench| sizes.iter().any(|size| size.schema == bench.tenant.name().database_schema());
        Ok([&bench, &other].map(is_there).to_vec())
    };
    // As VACUUM FULL does.
    let mut vacuum = bench.admin.begin().await?;
    let schema = bench.tenant.name().database_schema();
    sqlx::query(&format!("LOCK TABLE {schema}.spool IN ACCESS EXCLUSIVE MODE")).execute(&mut *vacuum).await?;
    ensure!(measured().await? == [false, true]);
    let of_other = other.tenant.name().database_schema();
    ensure!(catalog.spool_bytes(&schema).await?.is_none() && catalog.spool_bytes(&of_other).await?.is_some());
    vacuum.rollback().await?;
    ensure!(measured().await? == [true, true]);
    other.retire().await?;
    bench.retire().await
}
