//! Batches that were acknowledged without being indexed.

use std::time::Duration;

use super::bench::{Bench, Processor, lines, now};
use anyhow::ensure;
use dataplane::maintain::{archive, late_index};

#[tokio::test]
async fn what_was_left_behind_is_indexed_from_the_spool_and_from_the_archive() -> anyhow::Result<()> {
    let bench = Bench::new("late").await?;
    let rooms = bench.rooms().await?;
    let mut settings = bench.settings("p-0").await?;
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let processor = Processor::start(settings).await?;
    let mut with_poison = lines(30);
    with_poison[7] = "poison".into();
    bench.send(&with_poison).await?;
    bench.drained().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.send(&lines(40)).await?;
    bench.drained().await?;
    processor.stop().await?;
    ensure!(bench.documents().await? == 0);

    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 0, "a processor may still be at it");
    bench.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'").await?;
    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 2);
    bench.holds(69).await?;
    bench.execute("UPDATE {}.batches SET indexed_at = NULL").await?;
    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 2, "again");
    bench.holds(69).await?;
    bench.retire().await
}

#[tokio::test]
async fn what_is_no_longer_hot_is_not_indexed() -> anyhow::Result<()> {
    let bench = Bench::new("cold").await?;
    let rooms = bench.rooms().await?;
    let mut settings = bench.settings("p-0").await?;
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let processor = Processor::start(settings).await?;
    bench.send(&lines(5)).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'").await?;
    let later = now() + (i64::from(bench.tenant.registered().hot_days) * 24 + 1) * 3_600_000_000;
    ensure!(late_index(&rooms, &bench.tenant, later).await? == 1);
    ensure!(bench.documents().await? == 0);
    bench.retire().await
}
