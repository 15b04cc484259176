//! Redelivery, resends, and processors that die: one effect.

use super::bench::{Bench, SOON, header, lines, now};
use anyhow::ensure;
use dataplane::event::{keyed_batch_id, new_batch_id};
use testkit::eventually;

#[tokio::test]
async fn what_is_queued_is_stored_indexed_and_acknowledged() -> anyhow::Result<()> {
    let bench = Bench::new("once").await?;
    let processor = bench.processor("p-0").await?;
    for _ in 0..5 {
        bench.send(&lines(200)).await?;
    }
    bench.drained().await?;
    bench.holds(1000).await?;
    let indexed = bench.count("SELECT count(*) FROM {}.batches WHERE indexed_at IS NOT NULL").await?;
    ensure!(indexed == 5, "{indexed} batches are marked");
    ensure!(
        bench.count("SELECT count(*) FROM {}.logs WHERE service = 'checkout' AND level = 'INFO' AND flags = 1").await?
            == 1000
    );
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn the_same_batch_delivered_twice_is_stored_once() -> anyhow::Result<()> {
    let bench = Bench::new("twice").await?;
    let lines = lines(50);
    let header = header(new_batch_id(), now(), &lines);
    // In one flush, in a later one, and by two processors at once.
    bench.send_as(&header, &lines).await?;
    bench.send_as(&header, &lines).await?;
    let first = bench.processor("p-0").await?;
    bench.drained().await?;
    let second = bench.processor("p-1").await?;
    for _ in 0..20 {
        bench.send_as(&header, &lines).await?;
    }
    bench.drained().await?;
    bench.holds(50).await?;
    first.stop().await?;
    second.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn two_processors_that_store_the_same_at_once_store_it_once() -> anyhow::Result<()> {
    let bench = Bench::new("race").await?;
    let batches: Vec<_> = (0..30).map(|_| (header(new_batch_id(), now(), &lines(20)), lines(20))).collect();
    for _ in 0..4 {
        for (header, lines) in &batches {
            bench.send_as(header, lines).await?;
        }
    }
    let mut settings = bench.settings("p-0").await?;
    settings.batch_max_events = 60;
    let first = super::bench::Processor::start(settings.clone()).await?;
    settings.consumer = "p-1".into();
    let second = super::bench::Processor::start(settings).await?;
    bench.drained().await?;
    bench.holds(600).await?;
    first.stop().await?;
    second.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_clients_resend_under_its_key_is_one_batch() -> anyhow::Result<()> {
    let bench = Bench::new("keyed").await?;
    let processor = bench.processor("p-0").await?;
    let lines = lines(10);
    let id = keyed_batch_id(bench.tenant.name(), b"order-7");
    for later in 0..3 {
        let mut header = header(id, now() + later, &lines);
        header.body_hash = Some([7; 32]);
        bench.send_as(&header, &lines).await?;
        bench.drained().await?;
    }
    bench.holds(10).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.idempotency").await? == 1);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_processor_killed_at_any_moment_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let bench = Bench::new("kill").await?;
    for _ in 0..40 {
        bench.send(&lines(100)).await?;
    }
    let mut settings = bench.settings("p-0").await?;
    settings.batch_max_events = 300;
    // It is us who kill, not the entries: however often one is delivered, it is not to be blamed.
    settings.max_retries = 20;
    for pause_ms in [5, 40, 80, 150, 250] {
        let processor = super::bench::Processor::start(settings.clone()).await?;
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        processor.kill();
    }
    settings.consumer = "p-1".into();
    let processor = super::bench::Processor::start(settings).await?;
    bench.drained().await?;
    eventually("everything is indexed", SOON, async || bench.holds(4000).await).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 0);
    processor.stop().await?;
    bench.retire().await
}
