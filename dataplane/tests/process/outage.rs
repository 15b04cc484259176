//! Stores that are away.

use std::time::Duration;

use super::bench::{Bench, Processor, SOON, header, lines, now};
use anyhow::ensure;
use dataplane::event::new_batch_id;
use runtime::settings::SslMode;
use testkit::chaos::proxy::Proxy;
use testkit::{Mute, eventually, holds};

#[tokio::test]
async fn without_the_index_events_are_stored_and_acknowledged_after_a_while() -> anyhow::Result<()> {
    let bench = Bench::new("noindex").await?;
    let mut settings = bench.settings("p-0").await?;
    // Nothing listens there.
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let processor = Processor::start(settings).await?;
    bench.send(&lines(100)).await?;
    bench.drained().await?;
    ensure!(bench.count("SELECT count(*) FROM {}.logs").await? == 100);
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE indexed_at IS NULL").await? == 1, "left to maintain");
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn an_index_that_accepts_and_never_answers_is_not_waited_for() -> anyhow::Result<()> {
    let bench = Bench::new("muteindex").await?;
    let mut settings = bench.settings("p-0").await?;
    settings.opensearch.url = Mute::start().await?.url;
    let processor = Processor::start(settings).await?;
    for _ in 0..6 {
        bench.send(&lines(10)).await?;
        bench.drained().await?;
    }
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE indexed_at IS NULL").await? == 6, "left to maintain");
    processor.stop().await?;
    bench.retire().await
}

/// A minute is the bound of one transaction.
#[tokio::test]
async fn a_catalog_that_vanished_without_a_word_is_left_for_the_one_in_its_place() -> anyhow::Result<()> {
    let bench = Bench::new("vanished").await?;
    let mut settings = bench.settings("p-0").await?;
    let name = Proxy::start(format!("{}:{}", settings.postgres.host, settings.postgres.port)).await?;
    (settings.postgres.host, settings.postgres.port) = ("127.0.0.1".to_owned(), name.address.port());
    settings.postgres.ssl_mode = SslMode::Disable;
    let processor = Processor::start(settings).await?;
    bench.send(&lines(10)).await?;
    bench.drained().await?;
    // Its connections stay open and say nothing for ever; new ones lead to a server that works.
    name.vanish();
    bench.send(&lines(10)).await?;
    eventually("what was in work is stored", 2 * SOON, async || {
        let backlog = bench.backlog().await?;
        ensure!(backlog == 0, "{backlog} events wait");
        Ok(())
    })
    .await?;
    bench.holds(20).await?;
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn the_catalog_ends_the_session_of_a_machine_that_is_gone() -> anyhow::Result<()> {
    let pool = testkit::Stores::from_environment()?.postgres(crds::names::PROCESSOR_DATABASE)?;
    for (setting, expected) in [
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "3"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "15000"),
    ] {
        // As PostgreSQL reads it back from the socket.
        let set: String = sqlx::query_scalar(&format!("SHOW {setting}")).fetch_one(&pool).await?;
        ensure!(set == expected, "{setting} is {set}");
    }
    Ok(())
}

#[tokio::test]
async fn without_the_catalog_nothing_is_acknowledged() -> anyhow::Result<()> {
    let bench = Bench::new("nocatalog").await?;
    let mut settings = bench.settings("p-0").await?;
    settings.postgres.port = 9;
    let without = Processor::start(settings).await?;
    bench.send(&lines(10)).await?;
    holds("the events wait", Duration::from_secs(3), async || {
        ensure!(bench.backlog().await? > 0);
        Ok(())
    })
    .await?;
    without.kill();
    let processor = bench.processor("p-1").await?;
    bench.drained().await?;
    bench.holds(10).await?;
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_paused_processor_does_not_hold_up_its_successor() -> anyhow::Result<()> {
    let bench = Bench::new("paused").await?;
    let lines = lines(10);
    let header = header(new_batch_id(), now(), &lines);
    // A session as a processor leaves it that was stopped inside its transaction.
    let settings = bench.stores.as_data_role().await?;
    let pool = runtime::stores::postgres(&settings, &bench.stores.tls, crds::names::PROCESSOR_DATABASE, "p-paused")?;
    let mut paused = pool.begin().await?;
    sqlx::query("SELECT set_config('role', $1, true), set_config('search_path', $2, true)")
        .bind(bench.tenant.name().database_role())
        .bind(bench.tenant.name().database_schema())
        .execute(&mut *paused)
        .await?;
    sqlx::query(
        "INSERT INTO batches (batch_id, accepted_at, key_id, pipeline, pipeline_generation, index_name, events,
                              dead_letters, raw_bytes, raw_start, spool_id)
         VALUES ($1, now(), 'k', 'p', 0, 'i', 0, 0, 0, 0, 1)",
    )
    .bind(header.batch_id)
    .execute(&mut *paused)
    .await?;
    bench.send_as(&header, &lines).await?;
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(10).await?;
    ensure!(paused.commit().await.is_err(), "its session was ended");
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_tenant_without_partitions_waits_and_holds_up_nobody_for_ever() -> anyhow::Result<()> {
    let bench = Bench::new("nopart").await?;
    let leaves = bench.count("SELECT count(*) FROM {}.partitions").await?;
    ensure!(leaves > 0);
    bench.execute("ALTER TABLE {}.logs RENAME TO logs_away").await?;
    let processor = bench.processor("p-0").await?;
    bench.send(&lines(10)).await?;
    holds("the events wait", Duration::from_secs(2), async || {
        ensure!(bench.backlog().await? > 0);
        Ok(())
    })
    .await?;
    bench.execute("ALTER TABLE {}.logs_away RENAME TO logs").await?;
    bench.drained().await?;
    eventually("it is all there", SOON, async || bench.holds(10).await).await?;
    processor.stop().await?;
    bench.retire().await
}
