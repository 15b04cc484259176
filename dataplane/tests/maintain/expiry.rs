//! What is kept no longer, and a clock that is ahead.

use std::time::Duration;

use super::bench::{Bench, SOON, header, lines, now};
use anyhow::{bail, ensure};
use dataplane::event::keyed_batch_id;
use dataplane::maintain::{Rooms, archive, expire, partitions, roll_up};
use dataplane::queue::entry::BatchHeader;
use dataplane::stores::archive::Archive;
use tokio::time::timeout;

const DAY: i64 = 24 * 3_600_000_000;

#[tokio::test]
async fn expired_rows_go_then_what_they_refer_to_then_objects() -> anyhow::Result<()> {
    let bench = Bench::new("expiry").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    bench.keeps_from(now() - 50 * DAY).await?;
    bench.send_at(now() - 40 * DAY, &lines(20)).await?;
    bench.drained().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.send(&lines(5)).await?;
    bench.drained().await?;
    processor.stop().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    roll_up(&rooms, &bench.tenant).await?;

    let expired = expire(&rooms, &bench.tenant, now() - 20 * DAY).await?;
    ensure!((expired.partitions, expired.rows, expired.objects) == (0, 0, 0), "{expired:?}");
    bench.holds(25).await?;

    // However far our clock is ahead, what is kept by PostgreSQL's stays.
    let expired = expire(&rooms, &bench.tenant, now() + 100 * DAY).await?;
    ensure!(expired.partitions > 0 && expired.objects == 1, "{expired:?}");
    for (table, kept) in [("logs", 5), ("batches", 1), ("objects", 1), ("usage_ledger", 1)] {
        let left = bench.count(&format!("SELECT count(*) FROM {{}}.{table}")).await?;
        ensure!(left == kept, "{left} rows of {table}");
    }
    let bucket = &bench.tenant.registered().archive.bucket;
    let left = bench.stores.s3()?.list_objects_v2().bucket(bucket).prefix("logs/").send().await?;
    ensure!(left.contents().len() == 1, "{left:?}");
    bench.retire().await
}

#[tokio::test]
async fn a_ledger_that_is_not_counted_yet_stays() -> anyhow::Result<()> {
    let bench = Bench::new("uncounted").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    bench.keeps_from(now() - 50 * DAY).await?;
    bench.send_at(now() - 40 * DAY, &lines(3)).await?;
    bench.drained().await?;
    processor.stop().await?;
    expire(&rooms, &bench.tenant, now()).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.batches").await? == 0);
    ensure!(bench.count("SELECT count(*) FROM {}.usage_ledger").await? == 1);
    bench.retire().await
}

#[tokio::test]
async fn a_clients_key_is_forgotten_after_its_window() -> anyhow::Result<()> {
    let bench = Bench::new("window").await?;
    let rooms = bench.rooms().await?;
    for hours in [71, 73] {
        let insert = format!(
            "INSERT INTO {{}}.idempotency (batch_id, body_hash, created_at)
             VALUES (gen_random_uuid(), 'x', now() - interval '{hours} hours')"
        );
        bench.execute(&insert).await?;
    }
    expire(&rooms, &bench.tenant, now() + DAY).await?;
    ensure!(
        bench.count("SELECT count(*) FROM {}.idempotency WHERE created_at > now() - interval '72 hours'").await? == 1
    );
    ensure!(bench.count("SELECT count(*) FROM {}.idempotency").await? == 1);
    bench.retire().await
}

#[tokio::test]
async fn a_clients_key_is_remembered_while_its_resend_may_wait() -> anyhow::Result<()> {
    let bench = Bench::new("waits").await?;
    let rooms = bench.rooms().await?;
    bench.keeps_from(now() - 10 * DAY).await?;
    let id = keyed_batch_id(bench.tenant.name(), b"nightly");
    let lines = lines(3);
    let keyed = |accepted_at| BatchHeader { body_hash: Some([1; 32]), ..header(id, accepted_at, &lines) };
    let at = now() - 5 * DAY;
    bench.send_as(&keyed(at), &lines).await?;
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    processor.stop().await?;
    // Sent again a day later, and nobody has taken it since.
    bench.send_as(&keyed(at + DAY), &lines).await?;
    expire(&rooms, &bench.tenant, now()).await?;
    let processor = bench.processor("p-0").await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.holds(3).await?;
    expire(&rooms, &bench.tenant, now()).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.idempotency").await? == 0, "nothing waits any more");
    bench.retire().await
}

#[tokio::test]
async fn a_dump_holds_up_the_drop_and_nothing_else() -> anyhow::Result<()> {
    let (bench, other) = (Bench::new("dumped").await?, Bench::new("undumped").await?);
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    for bench in [&bench, &other] {
        bench.keeps_from(now() - 100 * DAY).await?;
    }
    let mut dump = bench.admin.begin().await?;
    let reads = format!("LOCK TABLE {}.logs IN ACCESS SHARE MODE", bench.tenant.name().database_schema());
    sqlx::query(&reads).execute(&mut *dump).await?;

    let made = timeout(SOON, partitions(&rooms, &bench.tenant, now() + 40 * DAY)).await??;
    ensure!(made > 0, "those of later are made beside whoever reads");
    let (expired, sent) = tokio::join!(timeout(SOON, expire(&rooms, &bench.tenant, now())), async {
        bench.send(&lines(10)).await?;
        bench.drained().await
    });
    sent?;
    let Err(error) = expired? else { bail!("partitions were dropped below somebody who reads them") };
    ensure!(runtime::logging::chain(&error).contains("lock timeout"), "{error:?}");
    ensure!(expire(&rooms, &other.tenant, now()).await?.partitions > 0, "another's go");
    bench.holds(10).await?;

    dump.rollback().await?;
    ensure!(expire(&rooms, &bench.tenant, now()).await?.partitions > 0);
    processor.stop().await?;
    other.retire().await?;
    bench.retire().await
}

/// A row of `batches`, `usage_ledger` and `dead_letters` for each of so many requests of forty days ago, each in a second
/// of its own, and objects that hold none of them.
async fn with_old_requests(bench: &Bench, requests: usize, objects: usize) -> anyhow::Result<()> {
    let old = format!(
        "FROM (SELECT n, now() - interval '40 days' - n * interval '1 second' AS at
                             FROM generate_series(1, {requests}) AS n) AS request"
    );
    for insert in [
        format!(
            "INSERT INTO {{}}.batches (batch_id, accepted_at, key_id, pipeline, pipeline_generation, index_name, events,
                                       dead_letters, raw_bytes, raw_start, object_id, indexed_at)
             SELECT gen_random_uuid(), at, 'k', 'default', 1, 'i', 1, 0, 9, 0, n / 1000, now() {old}"
        ),
        format!(
            "INSERT INTO {{}}.usage_ledger (batch_id, accepted_at, key_id, events, bytes)
             SELECT gen_random_uuid(), at, 'k', 1, 9 {old} ORDER BY at"
        ),
        // Half of them have a batch, and half are alone.
        format!(
            "INSERT INTO {{}}.dead_letters (event_id, batch_id, code, error, pipeline, pipeline_generation, created_at)
             SELECT (left(public.uuid_floor(at)::text, 14) || right(gen_random_uuid()::text, 22))::uuid,
                    CASE WHEN n % 2 = 0 THEN gen_random_uuid() END, 'refused', 'no', 'default', 1, at {old}"
        ),
        format!(
            "INSERT INTO {{}}.objects (key, bytes, raw_bytes, events, min_accepted, max_accepted, raw_starts, starts)
             SELECT 'logs/none/' || n, 1, 1, 1, at, now() - interval '40 days', ARRAY[]::bigint[], ARRAY[]::bigint[]
             FROM (SELECT n, now() - interval '41 days' AS at FROM generate_series(1, {objects}) AS n) AS object"
        ),
    ] {
        bench.execute(&insert).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whatever_is_old_goes_in_turns_that_end() -> anyhow::Result<()> {
    const REQUESTS: usize = 110_000;
    const OBJECTS: usize = 1_100;
    let bench = Bench::new("busy").await?;
    let rooms = bench.rooms().await?;
    with_old_requests(&bench, REQUESTS, OBJECTS).await?;
    bench.uses_counted(REQUESTS as i64).await?;
    let left = "SELECT (SELECT count(*) FROM {}.batches) + (SELECT count(*) FROM {}.usage_ledger)
                     + (SELECT count(*) FROM {}.dead_letters)";

    // The objects' store is away: rows go, and the objects are not forgotten.
    let mut s3 = bench.stores.s3.clone();
    s3.endpoint = "http://127.0.0.1:9".into();
    let away = Rooms { archive: Archive::new(runtime::stores::s3(&s3, &bench.stores.tls)?), ..rooms.clone() };
    let mut turns = 0;
    while expire(&away, &bench.tenant, now()).await.is_ok_and(|expired| expired.more) {
        turns += 1;
        ensure!(turns < 100, "{} are left", bench.count(left).await?);
    }
    ensure!(bench.count(left).await? == 0);
    ensure!(bench.count("SELECT count(*) FROM {}.objects").await? == OBJECTS as i64);

    let expired = expire(&rooms, &bench.tenant, now()).await?;
    ensure!(expired.objects == OBJECTS as u64 && !expired.more, "{expired:?}");
    ensure!(bench.count("SELECT count(*) FROM {}.objects").await? == 0);
    bench.retire().await
}
