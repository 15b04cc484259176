//! A pipeline that may have no processors: it wakes for what waits, and what a processor left that died waits too.

use super::bench::{Bench, SOON, lines};
use anyhow::ensure;
use testkit::{eventually, scaler};

const BATCHES: u64 = 5;
const EVENTS: u64 = 100;

#[tokio::test]
async fn what_a_killed_processor_left_wakes_a_pipeline_of_none_and_is_stored_once() -> anyhow::Result<()> {
    let bench = Bench::new("none").await?;
    let wanted = async |replicas| scaler::wanted(&bench.stores, &bench.pipeline, replicas).await;
    ensure!(wanted(0).await? == 0, "nothing waits");

    // Nothing can be stored: what is handed out stays with its processor.
    let mut catalog = bench.admin.begin().await?;
    let batches = format!("{}.batches", bench.tenant.name().database_schema());
    sqlx::query(&format!("LOCK TABLE {batches}")).execute(&mut *catalog).await?;
    bench.send(&lines(EVENTS as usize)).await?;
    ensure!(wanted(0).await? == 1, "it wakes for the first batch");
    for _ in 1..BATCHES {
        bench.send(&lines(EVENTS as usize)).await?;
    }
    let killed = bench.processor("p-0").await?;
    eventually("all of it is handed out", SOON, async || {
        let waiting = waiting(&bench).await?;
        ensure!(waiting == (BATCHES * EVENTS, BATCHES), "events and pending entries: {waiting:?}");
        Ok(())
    })
    .await?;
    ensure!(wanted(1).await? == 1, "nobody is taken away from what is in work");
    killed.kill();
    ensure!(waiting(&bench).await? == (BATCHES * EVENTS, BATCHES), "it counts on without its processor");
    ensure!(wanted(0).await? == 1, "it wakes for what was left");
    catalog.rollback().await?;

    let next = bench.processor("p-1").await?;
    bench.drained().await?;
    bench.holds((BATCHES * EVENTS) as i64).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 0);
    ensure!(wanted(1).await? == 0, "nothing waits any more");
    next.stop().await?;
    bench.retire().await
}

/// Events in the lane, and its entries that are handed out and not acknowledged.
async fn waiting(bench: &Bench) -> anyhow::Result<(u64, u64)> {
    let lanes = bench.lanes.status(std::slice::from_ref(&bench.pipeline), 0).await?;
    Ok((lanes.iter().map(|lane| lane.events).sum(), lanes.iter().map(|lane| lane.pending).sum()))
}
