//! Stores that are away.

use std::time::Duration;

use super::bench::{Bench, Processor, SOON, header, lines, now};
use anyhow::ensure;
use crds::names::index_name;
use dataplane::event::new_batch_id;
use dataplane::maintain::{Error, late_index};
use dataplane::tenancy::{Peppers, Registry};
use opensearch::indices::{IndicesCreateParts, IndicesDeleteParts, IndicesPutSettingsParts};
use runtime::settings::SslMode;
use serde_json::json;
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

/// One that is blocked refuses at once; one without a shard waits, and all that is in the same request with it.
#[tokio::test]
async fn an_index_that_takes_nothing_holds_up_no_other() -> anyhow::Result<()> {
    for (name, takes_nothing) in [("blocked", Block::Write), ("red", Block::NoShard)] {
        let bench = Bench::new("indexes").await?;
        let neighbour = testkit::Tenant::named(name).dedicated().on_pipeline(&bench.pipeline);
        let neighbour = neighbour.provision(&bench.stores).await?;
        let known = Registry::fixed([neighbour.registered.clone()], Peppers::none());
        let other = known.tenant(neighbour.desired.name()).expect("it was given");
        let index = index_name(&other.registered().index_series, 1);
        takes_nothing.begin(&bench, &index).await?;
        let processor = bench.processor("p-0").await?;
        for _ in 0..5 {
            bench.send_to(&other, &header(new_batch_id(), now(), &lines(10)), &lines(10)).await?;
            bench.send(&lines(10)).await?;
            bench.drained().await?;
        }
        processor.stop().await?;
        bench.holds(50).await?;
        let schema = other.name().database_schema();
        let unindexed = format!("SELECT count(*) FROM {schema}.batches WHERE indexed_at IS NULL");
        ensure!(bench.count(&unindexed).await? == 5, "{name}: left to maintain");

        let rooms = bench.rooms().await?;
        bench.execute(&format!("UPDATE {schema}.batches SET stored_at = stored_at - interval '1 minute'")).await?;
        let refused = late_index(&rooms, &other, now()).await;
        let concerns_one_index = matches!(&refused, Err(Error::Index(error)) if error.concerns_one_index());
        ensure!(concerns_one_index, "{name}: {refused:?}");
        takes_nothing.end(&bench, &index).await?;
        eventually("it is indexed late", SOON, async || {
            ensure!(late_index(&rooms, &other, now()).await? == 5);
            Ok(())
        })
        .await?;
        neighbour.retire().await?;
        bench.retire().await?;
    }
    Ok(())
}

/// Why an index takes nothing.
#[derive(Clone, Copy)]
enum Block {
    Write,
    NoShard,
}

impl Block {
    async fn begin(self, bench: &Bench, index: &str) -> anyhow::Result<()> {
        match self {
            Self::Write => set(bench, index, json!({"index.blocks.write": true})).await,
            Self::NoShard => again(bench, index, json!({"index.routing.allocation.require._name": "nobody"})).await,
        }
    }

    async fn end(self, bench: &Bench, index: &str) -> anyhow::Result<()> {
        match self {
            Self::Write => set(bench, index, json!({"index.blocks.write": null})).await,
            Self::NoShard => set(bench, index, json!({"index.routing.allocation.require._name": null})).await,
        }
    }
}

async fn set(bench: &Bench, index: &str, settings: serde_json::Value) -> anyhow::Result<()> {
    let client = bench.stores.opensearch()?;
    let parts = IndicesPutSettingsParts::Index(&[index]);
    client.indices().put_settings(parts).body(settings).send().await?.error_for_status_code()?;
    Ok(())
}

/// Makes the index anew, with these settings from the start: a shard that was there once would stay.
async fn again(bench: &Bench, index: &str, settings: serde_json::Value) -> anyhow::Result<()> {
    let client = bench.stores.opensearch()?;
    client.indices().delete(IndicesDeleteParts::Index(&[index])).send().await?.error_for_status_code()?;
    let indices = client.indices();
    let create = indices.create(IndicesCreateParts::Index(index)).wait_for_active_shards("0");
    create.body(json!({"settings": settings})).send().await?.error_for_status_code()?;
    Ok(())
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
