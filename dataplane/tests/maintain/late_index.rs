//! Batches that were acknowledged without being indexed.

use std::time::{Duration, Instant};

use super::bench::{Bench, Processor, SOON, header, lines, now};
use anyhow::{Context, ensure};
use crds::names::index_name;
use dataplane::event::new_batch_id;
use dataplane::maintain::{LateIndexer, archive, late_index};
use dataplane::queue::entry::BatchHeader;

/// Makes every batch old enough for processors to have given it up.
const AGED: &str = "UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'";

/// A processor that finds no index.
async fn without_index(bench: &Bench) -> anyhow::Result<Processor> {
    let mut settings = bench.settings("p-0").await?;
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    Processor::start(settings).await
}

#[tokio::test]
async fn what_was_left_behind_is_indexed_from_the_spool_and_from_the_archive() -> anyhow::Result<()> {
    let bench = Bench::new("late").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    let mut with_poison = lines(30);
    with_poison[7] = "poison".into();
    bench.send(&with_poison).await?;
    bench.send(&lines(10)).await?;
    bench.drained().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.send(&lines(40)).await?;
    bench.drained().await?;
    processor.stop().await?;
    ensure!(bench.documents().await? == 0);

    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 0, "a processor may still be at it");
    bench.indexed(&rooms).await?;
    bench.holds(79).await?;
    bench.execute("UPDATE {}.batches SET indexed_at = NULL").await?;
    bench.indexed(&rooms).await?;
    bench.holds(79).await?;
    bench.retire().await
}

/// A client that gives up waiting sends again under the same key. What lost may be queued and spooled with another batch.
#[tokio::test]
async fn a_batch_that_lost_is_not_indexed_beside_the_one_that_is_stored() -> anyhow::Result<()> {
    let bench = Bench::new("latelost").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    let (twice, other) = (lines(5), lines(3));
    let won = header(new_batch_id(), now(), &twice);
    bench.send_as(&won, &twice).await?;
    bench.drained().await?;
    let lost = BatchHeader { accepted_at: won.accepted_at + 1_000_000, ..won };
    let raw = [twice.concat(), other.concat()].concat();
    bench.send_entry(&[lost, header(new_batch_id(), now(), &other)], raw.as_bytes()).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.execute(AGED).await?;
    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 2);
    bench.holds(8).await?;
    bench.retire().await
}

#[tokio::test]
async fn what_is_no_longer_hot_is_not_indexed() -> anyhow::Result<()> {
    let bench = Bench::new("cold").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    bench.send(&lines(5)).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.execute(AGED).await?;
    let later = now() + (i64::from(bench.tenant.registered().hot_days) * 24 + 1) * 3_600_000_000;
    ensure!(late_index(&rooms, &bench.tenant, later).await? == 1);
    ensure!(bench.documents().await? == 0);
    bench.retire().await
}

#[tokio::test]
async fn a_spool_row_that_cannot_be_read_keeps_no_other_waiting() -> anyhow::Result<()> {
    let bench = Bench::new("latebad").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    for count in [5, 7] {
        bench.send(&lines(count)).await?;
        bench.drained().await?;
    }
    processor.stop().await?;
    bench.execute(AGED).await?;
    bench.execute("UPDATE {}.spool SET frame = 'x' WHERE spool_id = (SELECT min(spool_id) FROM {}.spool)").await?;
    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 1);
    ensure!(bench.documents().await? == 7);
    bench.retire().await
}

#[tokio::test]
async fn batches_whose_index_is_gone_go_to_the_one_that_is_written_to() -> anyhow::Result<()> {
    let bench = Bench::new("lategone").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    bench.send(&lines(5)).await?;
    bench.drained().await?;
    processor.stop().await?;
    let gone = index_name(&bench.tenant.registered().index_series, 77);
    bench.execute(&format!("UPDATE {{}}.batches SET index_name = '{gone}'")).await?;
    bench.execute(AGED).await?;
    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 1);
    ensure!(!rooms.index.exists(&gone).await?, "a write made the index again");
    bench.holds(5).await?;
    bench.retire().await
}

#[tokio::test]
async fn a_turn_ends_in_time_and_says_that_there_is_more() -> anyhow::Result<()> {
    let bench = Bench::new("turns").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    for _ in 0..3 {
        bench.send(&lines(10)).await?;
    }
    bench.drained().await?;
    processor.stop().await?;
    bench.execute(AGED).await?;
    let indexer = LateIndexer::new(rooms);
    let over = indexer.turn(&bench.tenant, now(), Some(Instant::now())).await?;
    ensure!(over.batches == 0 && !over.more, "{over:?}");
    let turn = indexer.turn(&bench.tenant, now(), None).await?;
    ensure!(turn.batches == 3 && turn.events == 30 && !turn.more, "{turn:?}");
    bench.retire().await
}

/// Events of a batch that arrives during an outage, and the time from one to the next: 10,000 events a
/// second, which a processor stores on one core.
const ARRIVING: (usize, Duration) = (500, Duration::from_millis(50));
/// Most that the queue's Redis may grow by while the index is away: processors acknowledge without it
/// after some seconds, so what waits is what arrives in these.
const MOST_QUEUED_BYTES: u64 = 64 * 1024 * 1024;

/// The index is away while events arrive: they don't pile up in the queue, and all of them are indexed
/// later, once. What it takes is printed with `--nocapture`; LOGGERHUB_LATE_EVENTS says how many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_in_an_outage_is_indexed_as_a_whole() -> anyhow::Result<()> {
    let events: usize =
        testkit::environment::optional_variable("LOGGERHUB_LATE_EVENTS").map_or(Ok(20_000), |text| text.parse())?;
    // What takes minutes with millions takes some at a thousand a second too.
    let patience = SOON + Duration::from_millis(events as u64);
    let bench = Bench::new("backlog").await?;
    let rooms = bench.rooms().await?;
    let processor = without_index(&bench).await?;
    let (size, pause) = ARRIVING;
    let batch = lines(size);
    let begun = Instant::now();
    let empty = queue_memory(&bench).await?;
    let (mut most_queued, mut most_memory) = (0, 0);
    for sent in 0..events / size {
        tokio::time::sleep_until((begun + pause * sent as u32).into()).await;
        bench.send(&batch).await?;
        if sent % 20 == 0 {
            most_queued = most_queued.max(bench.backlog().await?);
            most_memory = most_memory.max(queue_memory(&bench).await?.saturating_sub(empty));
        }
    }
    bench.drained_within(patience).await?;
    let stored = begun.elapsed();
    processor.stop().await?;
    bench.execute(AGED).await?;
    let begun = (Instant::now(), cpu_time()?);
    bench.indexed_within(&rooms, patience).await?;
    let (indexed, cpu) = (begun.0.elapsed(), cpu_time()? - begun.1);
    let rate = |elapsed: Duration| events as f64 / elapsed.as_secs_f64();
    println!("{events} events: stored without index at {:.0}/s, at most {most_queued} queued, and", rate(stored));
    println!("{most_memory} bytes of Redis more than before;");
    let per_event = cpu.as_secs_f64() * 1e6 / events as f64;
    println!("indexed late at {:.0}/s in {indexed:?}, {per_event:.1} µs of our CPU an event", rate(indexed));
    ensure!(most_memory <= MOST_QUEUED_BYTES, "the queue grew by {most_memory} bytes");
    bench.holds(events as i64).await?;
    bench.retire().await
}

/// Bytes that the queue's Redis holds.
async fn queue_memory(bench: &Bench) -> anyhow::Result<u64> {
    let mut connection = bench.stores.queue()?.connection()?;
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
    Ok(used.trim().parse()?)
}

/// CPU time of this process so far: 100 ticks a second, the 14th and 15th field.
fn cpu_time() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10))
}
