//! Dead letters that are tried again: each line is an event once, under its own id, or stays.

use std::time::Duration;

use super::bench::{Bench, Processor, header, lines, now};
use anyhow::ensure;
use dataplane::event::{event_id, keyed_batch_id, new_batch_id};
use dataplane::maintain::{Rooms, archive, expire, late_index, redrive};
use dataplane::queue::entry::{BatchHeader, Rejection};

const DAY: i64 = 24 * 3_600_000_000;

/// Events that became of letters, and letters that failed again.
async fn tried(rooms: &Rooms, bench: &Bench) -> anyhow::Result<(u64, u64)> {
    Ok(redrive(rooms, &bench.tenant, Duration::ZERO, now()).await?)
}

/// A batch of 20 lines; PostgreSQL refuses three of them, ingest refused one, and one is broken.
async fn with_letters(bench: &Bench) -> anyhow::Result<BatchHeader> {
    with_letters_at(bench, now()).await
}

/// The same, accepted then.
async fn with_letters_at(bench: &Bench, accepted_at: i64) -> anyhow::Result<BatchHeader> {
    bench.execute("ALTER TABLE {}.logs ADD CONSTRAINT no_poison CHECK (message NOT LIKE 'poison%')").await?;
    let mut lines = lines(20);
    for at in [2, 9, 19] {
        lines[at] = format!(r#"{{"message":"poison {at}","n":{at}}}"#);
    }
    lines[5] = "broken".into();
    lines[6] = r#"{"message":"too deep, says ingest"}"#.into();
    let mut header = header(new_batch_id(), accepted_at, &lines);
    header.events[6].rejected = Some(Rejection::TooDeep);
    let processor = bench.processor("p-0").await?;
    bench.send_as(&header, &lines).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.holds(15).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 5);
    Ok(header)
}

/// Checks that every line stands in its place once, `events` of them as events.
async fn stands(bench: &Bench, events: i64) -> anyhow::Result<()> {
    let all = "SELECT count(DISTINCT id) FROM (SELECT event_id AS id FROM {}.logs UNION ALL
               SELECT event_id FROM {}.dead_letters) AS lines";
    let found = bench.count(all).await?;
    ensure!(found == 20, "{found} lines, not 20");
    for (what, statement) in [
        ("rows", "SELECT count(*) FROM {}.logs"),
        ("counted", "SELECT sum(events)::bigint FROM {}.batches"),
        ("letters", "SELECT 20 - count(*) FROM {}.dead_letters"),
        ("letters counted", "SELECT 20 - sum(dead_letters)::bigint FROM {}.batches"),
    ] {
        let found = bench.count(statement).await?;
        ensure!(found == events, "{what}: {found}, not {events}");
    }
    let documents = bench.documents().await?;
    ensure!(documents == events, "{documents} documents, not {events}");
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE indexed_at IS NULL").await? == 0);
    Ok(())
}

#[tokio::test]
async fn a_letter_becomes_the_event_that_it_would_have_been_and_others_stay() -> anyhow::Result<()> {
    let bench = Bench::new("redrive").await?;
    let rooms = bench.rooms().await?;
    let header = with_letters(&bench).await?;
    ensure!(tried(&rooms, &bench).await? == (0, 0), "nobody asked");

    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    ensure!(tried(&rooms, &bench).await? == (0, 5), "nothing was put right");
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE attempts = 2 AND retried_at IS NOT NULL AND redrive_at IS NULL").await?
            == 5
    );
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'refused' AND error LIKE '%no_poison%'").await?
            == 3
    );
    stands(&bench, 15).await?;

    // What was refused is put right, and one of three is purged before it is tried.
    bench.execute("ALTER TABLE {}.logs DROP CONSTRAINT no_poison").await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    let purged = event_id(header.batch_id, header.accepted_at, 9);
    bench.execute(&format!("UPDATE {{}}.dead_letters SET purged_at = now() WHERE event_id = '{purged}'")).await?;
    ensure!(tried(&rooms, &bench).await? == (2, 2));
    ensure!(tried(&rooms, &bench).await? == (0, 0), "and no more");
    stands(&bench, 17).await?;
    let id = event_id(header.batch_id, header.accepted_at, 19);
    let same = format!("SELECT count(*) FROM {{}}.logs WHERE event_id = '{id}' AND message = 'poison 19'");
    ensure!(bench.count(&same).await? == 1, "under its own id");
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'too_deep' AND attempts = 3").await? == 1);

    // Late indexing comes to the same.
    bench.execute("UPDATE {}.batches SET indexed_at = NULL, stored_at = stored_at - interval '1 minute'").await?;
    late_index(&rooms, &bench.tenant, now()).await?;
    stands(&bench, 17).await?;
    bench.retire().await
}

#[tokio::test]
async fn a_letter_is_tried_again_from_the_archive() -> anyhow::Result<()> {
    let bench = Bench::new("redrivearch").await?;
    let rooms = bench.rooms().await?;
    with_letters(&bench).await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.execute("ALTER TABLE {}.logs DROP CONSTRAINT no_poison").await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    ensure!(tried(&rooms, &bench).await? == (3, 2));
    stands(&bench, 18).await?;
    bench.retire().await
}

#[tokio::test]
async fn a_death_at_any_step_leaves_each_line_in_one_place() -> anyhow::Result<()> {
    let bench = Bench::new("redrivedeath").await?;
    let rooms = bench.rooms().await?;
    with_letters(&bench).await?;
    bench.execute("ALTER TABLE {}.logs DROP CONSTRAINT no_poison").await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    // The rows are copied, then the database refuses the rest: as if we had died in between.
    bench.execute("ALTER TABLE {}.batches ADD CONSTRAINT no_redrive CHECK (dead_letters >= 5)").await?;
    ensure!(tried(&rooms, &bench).await.is_err());
    stands(&bench, 15).await?;
    bench.execute("ALTER TABLE {}.batches DROP CONSTRAINT no_redrive").await?;

    // It is committed, and we die before the index has it: late indexing does the rest.
    let away = {
        let mut settings = bench.settings("p-1").await?;
        settings.opensearch.url = "http://127.0.0.1:9".parse()?;
        Rooms {
            index: dataplane::stores::index::Index::new(runtime::stores::opensearch(
                &settings.opensearch,
                &settings.tls,
            )?),
            ..rooms.clone()
        }
    };
    ensure!(tried(&away, &bench).await? == (3, 2));
    ensure!(bench.documents().await? == 15);
    bench.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'").await?;
    ensure!(late_index(&rooms, &bench.tenant, now()).await? == 1);
    stands(&bench, 18).await?;
    bench.retire().await
}

#[tokio::test]
async fn a_line_that_ends_whoever_tries_it_is_left_alone() -> anyhow::Result<()> {
    let bench = Bench::new("redrivekill").await?;
    let rooms = bench.rooms().await?;
    with_letters(&bench).await?;
    bench.execute("ALTER TABLE {}.logs DROP CONSTRAINT no_poison").await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now(), redrive_starts = 3").await?;
    ensure!(tried(&rooms, &bench).await? == (0, 5));
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'deliveries' AND redrive_starts = 0").await?
            == 5
    );
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    ensure!(tried(&rooms, &bench).await? == (3, 2), "when it is asked for again");
    bench.retire().await
}

#[tokio::test]
async fn a_reused_keys_lines_become_events_of_their_own_batch() -> anyhow::Result<()> {
    let bench = Bench::new("redrivekey").await?;
    let rooms = bench.rooms().await?;
    let id = keyed_batch_id(bench.tenant.name(), b"k");
    let processor = bench.processor("p-0").await?;
    let at = now();
    for (count, body) in [(12, 1), (8, 2)] {
        let lines = lines(count);
        let header = BatchHeader { body_hash: Some([body; 32]), ..header(id, at, &lines) };
        bench.send_as(&header, &lines).await?;
        bench.drained().await?;
    }
    processor.stop().await?;
    stands(&bench, 12).await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now() WHERE raw_offset = 0").await?;
    ensure!(tried(&rooms, &bench).await? == (1, 0));
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    ensure!(tried(&rooms, &bench).await? == (7, 0));
    stands(&bench, 20).await?;
    bench.retire().await
}

#[tokio::test]
async fn letters_go_with_their_batch_and_late_ones_say_why_they_cannot_be_tried() -> anyhow::Result<()> {
    let bench = Bench::new("redriveold").await?;
    let rooms = bench.rooms().await?;
    bench.keeps_from(now() - 50 * DAY).await?;
    with_letters_at(&bench, now() - 40 * DAY).await?;
    expire(&rooms, &bench.tenant, now() - 20 * DAY).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 5);
    // Kept longer than their batch's partition, for whatever reason: nothing is half done.
    bench.execute("UPDATE {}.batches SET accepted_at = accepted_at - interval '400 days'").await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now()").await?;
    ensure!(tried(&rooms, &bench).await? == (0, 5));
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters WHERE code = 'expired'").await? == 5);
    expire(&rooms, &bench.tenant, now()).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters").await? == 0);
    bench.retire().await
}

#[tokio::test]
async fn bytes_that_cannot_be_read_hold_up_no_other_batch() -> anyhow::Result<()> {
    let bench = Bench::new("redriveaway").await?;
    let rooms = bench.rooms().await?;
    with_letters(&bench).await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.execute("ALTER TABLE {}.logs DROP CONSTRAINT no_poison").await?;
    let mut settings = bench.settings("p-1").await?;
    settings.opensearch.url = "http://127.0.0.1:9".parse()?;
    let processor = Processor::start(settings).await?;
    bench.send(&["broken".to_owned(), r#"{"message":"good"}"#.to_owned()]).await?;
    bench.drained().await?;
    processor.stop().await?;
    let key = "UPDATE {}.objects SET key = key || '.gone'";
    bench.execute(key).await?;
    bench.execute("UPDATE {}.dead_letters SET redrive_at = now() - interval '1 minute' * raw_offset").await?;
    ensure!(tried(&rooms, &bench).await.is_err(), "the object is away");
    ensure!(bench.count("SELECT count(*) FROM {}.dead_letters WHERE attempts = 2").await? == 1, "the other batch's");
    ensure!(
        bench.count("SELECT count(*) FROM {}.dead_letters WHERE redrive_at IS NOT NULL AND redrive_starts = 0").await?
            == 5
    );
    bench.execute("UPDATE {}.objects SET key = replace(key, '.gone', '')").await?;
    ensure!(tried(&rooms, &bench).await? == (3, 2));
    bench.retire().await
}
