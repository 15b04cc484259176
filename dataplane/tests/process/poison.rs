//! Lines, rows and entries that can't be processed: kept, told, and in nobody's way.

use super::bench::{Bench, Processor, SOON, header, lines, now};
use anyhow::ensure;
use crds::names::Lane;
use dataplane::event::new_batch_id;
use dataplane::queue::entry::Rejection;
use testkit::eventually;

const DAY: i64 = 24 * 3_600_000_000;

#[tokio::test]
async fn a_poison_line_is_a_dead_letter_and_the_others_are_stored() -> anyhow::Result<()> {
    let bench = Bench::new("poison").await?;
    let processor = bench.processor("p-0").await?;
    let mut lines = lines(1000);
    lines[500] = r#"{"message":"a lone surrogate \ud800"}"#.into();
    lines[700] = "not json".into();
    let mut header = header(new_batch_id(), now(), &lines);
    header.events[700].rejected = Some(Rejection::InvalidJson);
    bench.send_as(&header, &lines).await?;
    bench.drained().await?;
    bench.holds(998).await?;
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'invalid_json' AND raw_length > 0").await? == 2
    );
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_row_that_postgres_refuses_is_found_among_the_others() -> anyhow::Result<()> {
    let bench = Bench::new("refused").await?;
    bench.execute("ALTER TABLE {}.logs ADD CONSTRAINT no_poison CHECK (message <> 'poison')").await?;
    let processor = bench.processor("p-0").await?;
    let mut lines = lines(1000);
    for at in [0, 333, 999] {
        lines[at] = r#"{"message":"poison"}"#.into();
    }
    bench.send(&lines).await?;
    bench.drained().await?;
    bench.holds(997).await?;
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'refused' AND error LIKE '%no_poison%'").await?
            == 3
    );
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_dead_letter_is_not_indexed_by_the_next_delivery() -> anyhow::Result<()> {
    let bench = Bench::new("redead").await?;
    bench.execute("ALTER TABLE {}.logs ADD CONSTRAINT no_poison CHECK (message <> 'poison')").await?;
    let mut lines = lines(10);
    lines[3] = r#"{"message":"poison"}"#.into();
    bench.send(&lines).await?;
    // It stores, finds no index, and dies before it acknowledges without.
    let mut settings = bench.settings("p-0").await?;
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let first = Processor::start(settings).await?;
    eventually("the flush is stored", SOON, async || {
        ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 1);
        Ok(())
    })
    .await?;
    first.kill();
    ensure!(bench.backlog().await? > 0, "it was not acknowledged");
    let second = bench.processor("p-1").await?;
    bench.drained().await?;
    bench.holds(9).await?;
    second.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_document_that_opensearch_refuses_is_indexed_by_its_message() -> anyhow::Result<()> {
    let bench = Bench::new("document").await?;
    let processor = bench.processor("p-0").await?;
    let deep = r#"{"message":"found all the same","metadata":{"":{"":"empty names"}, "a..b": {".": 1}}}"#;
    bench.send(&[deep.to_owned(), r#"{"message":"ordinary"}"#.to_owned()]).await?;
    bench.drained().await?;
    bench.holds(2).await?;
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_kept_for_its_tenant_and_blocks_nobody() -> anyhow::Result<()> {
    let bench = Bench::new("unreadable").await?;
    let lane = bench.tenant.lane();
    let mut connection = bench.stores.queue()?.connection()?;
    for (tenant, payload) in [(bench.tenant.name().as_str(), "garbage"), ("Nobody", "garbage")] {
        let added: String = redis::cmd("XADD")
            .arg(lane.stream())
            .arg(&["*", "v", "1", "t", tenant, "n", "0", "h", "\u{1}", "p", payload])
            .query_async(&mut connection)
            .await?;
        ensure!(!added.is_empty());
    }
    bench.send(&lines(10)).await?;
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(10).await?;
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'undecodable' AND raw IS NOT NULL").await? == 1
    );
    ensure!(quarantined(&bench, &lane).await? == 1);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn an_entry_that_killed_its_processor_is_dead_lettered_as_a_whole() -> anyhow::Result<()> {
    let bench = Bench::new("killer").await?;
    let lane = bench.tenant.lane();
    bench.send(&lines(5)).await?;
    let mut connection = bench.stores.queue()?.connection()?;
    // As if processors had died over it until it was looked at alone, and one more then.
    let id = delivered_too_often(&bench, &lane).await?;
    let () = redis::cmd("SADD").arg(lane.suspects()).arg(&id).query_async(&mut connection).await?;
    bench.send(&lines(7)).await?;
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(7).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'deliveries'").await? == 5);
    ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 2, "its raw lines are kept");
    eventually("the mark is taken away", SOON, async || {
        let marked: u64 = redis::cmd("SCARD").arg(lane.suspects()).query_async(&mut connection.clone()).await?;
        ensure!(marked == 0);
        Ok(())
    })
    .await?;
    processor.stop().await?;
    bench.retire().await
}

async fn quarantined(bench: &Bench, lane: &Lane) -> anyhow::Result<u64> {
    let mut connection = bench.stores.queue()?.connection()?;
    Ok(redis::cmd("XLEN").arg(lane.quarantine()).query_async(&mut connection).await?)
}

/// Makes the only entry of the lane one that came back so often that it goes alone. Gives back its id.
async fn delivered_too_often(bench: &Bench, lane: &Lane) -> anyhow::Result<String> {
    let (mut connection, stream) = (bench.stores.queue()?.connection()?, lane.stream());
    let () = redis::cmd("XGROUP").arg(&["CREATE", &stream, "processors", "0"]).query_async(&mut connection).await?;
    let read: Vec<(String, Vec<(String, redis::Value)>)> = redis::cmd("XREADGROUP")
        .arg(&["GROUP", "processors", "p-dead", "COUNT", "1", "STREAMS", &stream, ">"])
        .query_async(&mut connection)
        .await?;
    let id = read[0].1[0].0.clone();
    let () = redis::cmd("XCLAIM")
        .arg(&[&stream, "processors", "p-dead", "0", &id, "RETRYCOUNT", "5", "JUSTID"])
        .query_async(&mut connection)
        .await?;
    Ok(id)
}

#[tokio::test]
async fn what_was_accepted_out_of_time_is_kept_and_not_tried_for_ever() -> anyhow::Result<()> {
    let bench = Bench::new("outoftime").await?;
    let leaf = "SELECT name FROM {}.partitions WHERE begins <= now() - interval '10 days' AND ends > now() - interval '10 days'";
    let leaf = leaf.replace("{}", &bench.tenant.name().database_schema());
    let leaf: String = sqlx::query_scalar(&leaf).fetch_one(&bench.admin).await?;
    bench.execute(&format!("DROP TABLE {{}}.{leaf}")).await?;

    for (days, count) in [(-40, 3), (40, 2), (-20, 5), (0, 7)] {
        let lines = lines(count);
        bench.send_as(&header(new_batch_id(), now() + days * DAY, &lines), &lines).await?;
    }
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(12).await?;
    let kept = "SELECT count(*) FROM {}.dead_letters WHERE code = 'out_of_time' AND batch_id IS NULL
                AND convert_from(raw, 'UTF8') LIKE '%payment%' AND octet_length(raw) < 100";
    ensure!(bench.count(kept).await? == 5);
    ensure!(bench.count("SELECT count(*) FROM {}.batches").await? == 2);

    // What lacks a partition that it should have waits until maintain has made it.
    let lines = lines(4);
    bench.send_as(&header(new_batch_id(), now() - 10 * DAY, &lines), &lines).await?;
    eventually("it was tried, and is tried again", SOON, async || {
        let put_back = bench.lanes.status(std::slice::from_ref(&bench.pipeline), 0).await?;
        ensure!(put_back.iter().any(|lane| lane.entries > 0), "{put_back:?}");
        Ok(())
    })
    .await?;
    let schema = bench.tenant.name().database_schema();
    bench.execute(&format!("SELECT public.ensure_partitions('{schema}', now())")).await?;
    bench.drained().await?;
    bench.holds(16).await?;
    ensure!(bench.count(kept).await? == 5);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn an_entry_that_postgres_refuses_for_no_row_of_its_events_is_kept_in_the_end() -> anyhow::Result<()> {
    let bench = Bench::new("unbilled").await?;
    bench.execute("ALTER TABLE {}.usage_ledger ADD CONSTRAINT no_five CHECK (events <> 5)").await?;
    bench.send(&lines(5)).await?;
    delivered_too_often(&bench, &bench.tenant.lane()).await?;
    bench.send(&lines(7)).await?;
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    bench.holds(7).await?;
    let kept =
        "SELECT count(*) FROM {}.dead_letters WHERE code = 'refused' AND error LIKE '%no_five%' AND raw IS NOT NULL";
    ensure!(bench.count(kept).await? == 5);
    processor.stop().await?;
    bench.retire().await
}
