//! Indices that are full, and indices whose time is over.

use super::bench::{Bench, lines, now};
use anyhow::ensure;
use crds::names::index_name;
use dataplane::maintain::{SeriesLimits, maintain_series};

const DAY: i64 = 24 * 3_600_000_000;

#[tokio::test]
async fn a_full_index_is_followed_by_the_next_and_dropped_when_it_is_cold() -> anyhow::Result<()> {
    let bench = Bench::new("series").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    let series = bench.tenant.registered().index_series.clone();
    // Older than what its class keeps in the index.
    let days = i64::from(bench.tenant.registered().hot_days) + 1;
    bench.send_at(now() - days * DAY, &lines(10)).await?;
    bench.drained().await?;
    bench.holds(10).await?;

    let limits = SeriesLimits { bytes: u64::MAX, documents: 10 };
    maintain_series(&rooms, &series, limits, now()).await?;
    let number: i64 = sqlx::query_scalar("SELECT write_number FROM public.index_series WHERE series = $1")
        .bind(&series)
        .fetch_one(&bench.admin)
        .await?;
    ensure!(number == 2, "{number}");
    bench.send(&lines(5)).await?;
    bench.drained().await?;
    bench.holds(15).await?;
    let second = index_name(&series, 2);
    let written = bench.count(&format!("SELECT count(*) FROM {{}}.batches WHERE index_name = '{second}'")).await?;
    ensure!(written == 1);
    processor.stop().await?;

    // However far our clock is ahead, what is hot by PostgreSQL's stays.
    maintain_series(&rooms, &series, limits, now() + 100 * DAY).await?;
    let numbers: Vec<i64> = rooms.index.of_series(&series).await?.iter().map(|index| index.state.number).collect();
    ensure!(numbers == [2], "{numbers:?}");
    bench.indexed(&rooms).await?;
    ensure!(bench.documents().await? == 5);
    bench.retire().await
}
