//! Usage in the core database equals what the ledgers say, whatever happens in between.

use super::bench::{Bench, lines};
use anyhow::ensure;
use crds::names::CORE_DATABASE;
use dataplane::maintain::roll_up;

#[tokio::test]
async fn usage_counts_every_event_once() -> anyhow::Result<()> {
    let bench = Bench::new("usage").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    let mut total = 0;
    for round in 1..=3 {
        bench.send(&lines(round * 10)).await?;
        bench.drained().await?;
        let (first, second) = tokio::join!(roll_up(&rooms, &bench.tenant), roll_up(&rooms, &bench.tenant));
        ensure!(first? + second? == round as i64 * 10, "two at once count once");
        total += round as i64 * 10;
        ensure!(counted(&bench).await? == total);
    }
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_row_that_is_not_committed_yet_is_not_skipped() -> anyhow::Result<()> {
    let bench = Bench::new("inflight").await?;
    let rooms = bench.rooms().await?;
    let schema = bench.tenant.name().database_schema();
    let insert = format!(
        "INSERT INTO {schema}.usage_ledger (batch_id, accepted_at, key_id, events, bytes)
         VALUES (gen_random_uuid(), now(), 'k', 1, 1)"
    );
    let mut slow = bench.admin.begin().await?;
    sqlx::query(&insert).execute(&mut *slow).await?;
    sqlx::query(&insert).execute(&bench.admin).await?;
    ensure!(roll_up(&rooms, &bench.tenant).await.is_err(), "it waits for the writer, and not for ever");
    slow.commit().await?;
    ensure!(roll_up(&rooms, &bench.tenant).await? == 2);
    ensure!(counted(&bench).await? == 2);
    bench.retire().await
}

async fn counted(bench: &Bench) -> anyhow::Result<i64> {
    let core = bench.stores.postgres(CORE_DATABASE)?;
    let statement = "SELECT coalesce(sum(events), 0)::bigint FROM public.usage_hourly WHERE tenant = $1";
    Ok(sqlx::query_scalar(statement).bind(bench.tenant.name().as_str()).fetch_one(&core).await?)
}
