//! Idempotency keys in the catalog: what is the same, and what only has the same key.

use std::time::Duration;

use super::bench::{Bench, SOON, header, lines, now};
use anyhow::{Context, ensure};
use dataplane::cache::{Cache, Fate};
use dataplane::event::keyed_batch_id;
use dataplane::queue::entry::BatchHeader;
use uuid::Uuid;

/// Lines that say whose they are.
fn lines_of(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!(r#"{{"service":"{name}","message":"{name} {n}"}}"#)).collect()
}

fn keyed(id: Uuid, accepted_at: i64, lines: &[String], body: u8) -> BatchHeader {
    BatchHeader { body_hash: Some([body; 32]), ..header(id, accepted_at, lines) }
}

#[tokio::test]
async fn another_body_under_a_key_is_dead_letters_once() -> anyhow::Result<()> {
    let bench = Bench::new("reused").await?;
    let id = keyed_batch_id(bench.tenant.name(), b"order-7");
    let (first, other) = (lines_of("first", 10), lines_of("other", 4));
    let at = now();
    // All in one flush, accepted in the same millisecond; then each again, and in a flush of its own.
    for _ in 0..2 {
        bench.send_as(&keyed(id, at, &first, 1), &first).await?;
        bench.send_as(&keyed(id, at, &other, 2), &other).await?;
    }
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    for (accepted_at, lines, body) in [(at, &other, 2), (at, &first, 1), (at + 5, &other, 2), (at + 6, &first, 1)] {
        bench.send_as(&keyed(id, accepted_at, lines, body), lines).await?;
        bench.drained().await?;
    }
    bench.holds(10).await?;
    let of_other = "SELECT count(*) FROM {}.dead_letters d JOIN {}.batches b USING (batch_id)
                    WHERE d.code = 'idempotency_key_reused' AND b.first_batch_id = (SELECT batch_id FROM {}.idempotency)";
    ensure!(bench.count(of_other).await? == 4);
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 4);
    ensure!(bench.count("SELECT count(*) FROM {}.logs WHERE service <> 'first'").await? == 0);
    ensure!(bench.count("SELECT count(*) FROM {}.logs l JOIN {}.dead_letters d USING (event_id)").await? == 0);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_window_counts_from_acceptance_however_long_its_batches_wait() -> anyhow::Result<()> {
    const HOUR: i64 = 3_600_000_000;
    let bench = Bench::new("held").await?;
    bench.keeps_from(now() - 10 * 24 * HOUR).await?;
    let id = keyed_batch_id(bench.tenant.name(), b"nightly");
    let (first, later) = (lines_of("first", 3), lines_of("later", 5));
    let at = now() - 120 * HOUR;
    // All of them waited for days: two of the first window, then two of a later one.
    for (accepted_at, lines, body) in
        [(at, &first, 1), (at + HOUR, &first, 1), (at + 100 * HOUR, &later, 2), (at + 101 * HOUR, &later, 2)]
    {
        bench.send_as(&keyed(id, accepted_at, lines, body), lines).await?;
    }
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(8).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 0);
    // In flushes of their own, each delivered again.
    for _ in 0..2 {
        for (accepted_at, lines, body) in [(at + 101 * HOUR, &later, 2), (at, &first, 1)] {
            bench.send_as(&keyed(id, accepted_at, lines, body), lines).await?;
            bench.drained().await?;
        }
    }
    bench.holds(8).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE first_batch_id IS NOT NULL").await? == 1);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_key_is_free_again_after_its_window_and_nothing_is_lost() -> anyhow::Result<()> {
    let bench = Bench::new("window").await?;
    let processor = bench.processor("p-0").await?;
    let id = keyed_batch_id(bench.tenant.name(), b"nightly");
    let (first, later) = (lines_of("first", 3), lines_of("later", 5));
    let at = now() - 1_000_000;
    bench.send_as(&keyed(id, at, &first, 1), &first).await?;
    bench.drained().await?;
    bench.execute("DELETE FROM {}.idempotency").await?;
    // The first batch, delivered again after all that time, is nothing new.
    bench.send_as(&keyed(id, at, &first, 1), &first).await?;
    bench.drained().await?;
    bench.holds(3).await?;
    bench.execute("DELETE FROM {}.idempotency").await?;
    for accepted_at in [now(), now() + 1] {
        bench.send_as(&keyed(id, accepted_at, &later, 2), &later).await?;
        bench.drained().await?;
    }
    bench.holds(8).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE first_batch_id IS NOT NULL").await? == 1);
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 0);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn the_spool_names_batches_as_they_are_stored() -> anyhow::Result<()> {
    let bench = Bench::new("spooled").await?;
    let id = keyed_batch_id(bench.tenant.name(), b"k");
    let (first, other) = (lines_of("first", 5), lines_of("other", 3));
    let at = now();
    // One entry holds the first, the first again, and another body.
    let batches = [keyed(id, at, &first, 1), keyed(id, at + 1000, &first, 1), keyed(id, at, &other, 2)];
    let raw = [first.concat(), first.concat(), other.concat()].concat();
    bench.send_entry(&batches, raw.as_bytes()).await?;
    // Nothing listens there: what is stored is indexed later, from the spool.
    let mut settings = bench.settings("p-0").await?;
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let processor = super::bench::Processor::start(settings).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'").await?;
    let rooms = bench.rooms().await?;
    dataplane::maintain::late_index(&rooms, &bench.tenant, now()).await?;
    bench.holds(5).await?;
    dataplane::maintain::archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(bench.count("SELECT sum(events)::bigint FROM {}.objects").await? == 8, "each body once");
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 3);
    bench.retire().await
}

#[tokio::test]
async fn a_schema_of_the_version_before_stores_a_reused_key_too() -> anyhow::Result<()> {
    let bench = Bench::new("oldschema").await?;
    bench.execute("ALTER TABLE {}.batches DROP COLUMN first_batch_id").await?;
    for column in ["attempts", "retried_at", "redrive_at", "redrive_starts", "purged_at"] {
        bench.execute(&format!("ALTER TABLE {{}}.dead_letters DROP COLUMN {column}")).await?;
    }
    let processor = bench.processor("p-0").await?;
    let id = keyed_batch_id(bench.tenant.name(), b"k");
    for (name, body) in [("first", 1), ("other", 2)] {
        let lines = lines_of(name, 5);
        bench.send_as(&keyed(id, now(), &lines, body), &lines).await?;
        bench.drained().await?;
    }
    bench.holds(5).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'idempotency_key_reused'").await? == 5);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn whoever_waits_for_a_batch_is_told_what_became_of_it() -> anyhow::Result<()> {
    let bench = Bench::new("told").await?;
    let processor = bench.processor("p-0").await?;
    let cache = Cache::new(&bench.stores.cache()?)?;
    let id = keyed_batch_id(bench.tenant.name(), b"k");
    testkit::eventually("the cache answers", SOON, async || {
        ensure!(cache.lease_fates(&bench.tenant).await, "not in time");
        Ok(())
    })
    .await?;
    for (name, body, accepted_at, expected) in [
        ("first", 1, now(), Fate::Stored),
        ("first", 1, now() + 1000, Fate::Duplicate),
        ("other", 2, now() + 2000, Fate::OtherBody),
    ] {
        let lines = lines_of(name, 2);
        bench.send_as(&keyed(id, accepted_at, &lines, body), &lines).await?;
        let fate = cache.await_fate(&bench.tenant, id, accepted_at, SOON).await.context("told")?;
        ensure!(fate == expected, "{name}: {fate:?}");
    }
    bench.send(&lines(1)).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.retire().await
}
