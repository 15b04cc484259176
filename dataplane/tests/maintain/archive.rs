//! From the spool into objects, and back by ranged reads.

use std::time::Duration;

use super::bench::{Bench, header, lines, now};
use super::look::look;
use anyhow::{Context, ensure};
use dataplane::event::new_batch_id;
use dataplane::maintain::{Archived, Kind, VerifyOptions, archive, expire, verify};
use dataplane::stores::archive::Frames;

#[tokio::test]
async fn every_event_reads_back_from_the_archive_byte_for_byte() -> anyhow::Result<()> {
    let bench = Bench::new("archive").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    let mut sent = lines(3000);
    sent.push(format!(r#"{{"message":"long","full_log":"{}"}}"#, "é".repeat(200_000)));
    for chunk in sent.chunks(700) {
        bench.send(chunk).await?;
    }
    bench.drained().await?;
    processor.stop().await?;

    ensure!(archive(&rooms, &bench.tenant, Duration::from_secs(300), now()).await? == Archived::Nothing, "too young");
    let Archived::Object { key } = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await? else {
        anyhow::bail!("nothing was archived")
    };
    ensure!(archive(&rooms, &bench.tenant, Duration::ZERO, now()).await? == Archived::Nothing);
    ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 0);
    ensure!(bench.count("SELECT count(*) FROM {}.archiving").await? == 0);
    ensure!(bench.count("SELECT count(*) FROM {}.batches WHERE object_id IS NULL OR archived_at IS NULL").await? == 0);
    ensure!(keys(&bench).await? == [key]);

    let mut read = read_all(&bench).await?;
    read.sort();
    sent.sort();
    ensure!(read == sent, "{} of {} events read back", read.len(), sent.len());
    bench.retire().await
}

#[tokio::test]
async fn a_death_between_put_and_stamp_leaves_one_object() -> anyhow::Result<()> {
    let bench = Bench::new("archdeath").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    bench.send(&lines(100)).await?;
    bench.drained().await?;
    // The object is put, then the database refuses the stamp: as if we had died in between.
    bench.execute("ALTER TABLE {}.objects ADD CONSTRAINT no_stamp CHECK (events < 0)").await?;
    ensure!(archive(&rooms, &bench.tenant, Duration::ZERO, now()).await.is_err());
    let put = keys(&bench).await?;
    ensure!(put.len() == 1 && bench.count("SELECT count(*) FROM {}.spool").await? > 0);
    // More came meanwhile: it must not change what the second attempt makes.
    bench.send(&lines(50)).await?;
    bench.drained().await?;
    bench.execute("ALTER TABLE {}.objects DROP CONSTRAINT no_stamp").await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(keys(&bench).await? == put, "the very same object");
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(keys(&bench).await?.len() == 2);
    ensure!(read_all(&bench).await?.len() == 150);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn lines_of_a_batch_that_lost_are_not_archived_twice() -> anyhow::Result<()> {
    let bench = Bench::new("archtwice").await?;
    let rooms = bench.rooms().await?;
    let lines = lines(20);
    let twice = header(new_batch_id(), now(), &lines);
    let processor = bench.processor("p-0").await?;
    for _ in 0..3 {
        bench.send_as(&twice, &lines).await?;
        bench.drained().await?;
    }
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(bench.count("SELECT sum(events)::bigint FROM {}.objects").await? == 20);
    processor.stop().await?;
    bench.retire().await
}

#[tokio::test]
async fn a_spool_row_that_cannot_be_read_holds_up_no_other() -> anyhow::Result<()> {
    let bench = Bench::new("archbad").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    for _ in 0..6 {
        bench.send(&lines(10)).await?;
        bench.drained().await?;
    }
    processor.stop().await?;
    bench.indexed(&rooms).await?;
    let row =
        |number: i64| format!("spool_id = (SELECT spool_id FROM {{}}.spool ORDER BY spool_id OFFSET {number} LIMIT 1)");
    for damage in [
        format!("UPDATE {{}}.spool SET frame = '\\x00' WHERE {}", row(0)),
        format!("UPDATE {{}}.spool SET header = '\\xff' WHERE {}", row(1)),
        // Whole by itself, and another's.
        format!(
            "UPDATE {{}}.spool SET (header, frame) = (SELECT header, frame FROM {{}}.spool WHERE {}) WHERE {}",
            row(5),
            row(2)
        ),
    ] {
        bench.execute(&damage).await?;
    }
    let archived = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(archived == Archived::SetAside { rows: 3 }, "{archived:?}");
    // A row that goes between two attempts is none that anybody can read.
    bench
        .execute(
            "INSERT INTO {}.archiving (spool_ids) SELECT array_agg(spool_id) FROM {}.spool WHERE unreadable IS NULL",
        )
        .await?;
    bench.execute(&format!("DELETE FROM {{}}.spool WHERE {}", row(3))).await?;
    let archived = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(archived == Archived::SetAside { rows: 0 }, "{archived:?}");
    let archived = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(matches!(archived, Archived::Object { .. }), "{archived:?}");
    ensure!(
        archive(&rooms, &bench.tenant, Duration::ZERO, now()).await? == Archived::Nothing,
        "they are not tried again"
    );
    ensure!(read_all(&bench).await?.len() == 20, "the others are archived");
    ensure!(
        bench.count("SELECT count(*) FROM {}.spool WHERE unreadable <> '' AND unreadable_at IS NOT NULL").await? == 3
    );

    let look = look(&rooms, &[&bench]).await?[&bench.tenant.name().database_schema()].clone();
    ensure!(
        (look.spooled_since, look.spooled_rows, look.archiving) == (None, 0, false),
        "they wait for nothing: {look:?}"
    );
    let all = VerifyOptions { span: (i64::MIN, i64::MAX), max_differences: 20 };
    let report = verify(&rooms, &bench.tenant, all, now()).await?;
    let mut kinds: Vec<Kind> = report.differences.iter().map(|difference| difference.kind).collect();
    kinds.sort();
    ensure!(kinds == [Kind::RawMissing, Kind::RawMissing, Kind::RawDamaged, Kind::RawDamaged], "{report}");

    // They stay until nothing of their time is kept.
    expire(&rooms, &bench.tenant, now()).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 3);
    bench.execute("UPDATE {}.spool SET created_at = now() - interval '1000 days'").await?;
    expire(&rooms, &bench.tenant, now()).await?;
    ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 0);
    bench.retire().await
}

#[tokio::test]
async fn a_schema_of_the_version_before_is_archived() -> anyhow::Result<()> {
    let bench = Bench::new("archold").await?;
    let rooms = bench.rooms().await?;
    bench.execute("ALTER TABLE {}.spool DROP COLUMN unreadable_at, DROP COLUMN unreadable").await?;
    let processor = bench.processor("p-0").await?;
    bench.send(&lines(10)).await?;
    bench.drained().await?;
    processor.stop().await?;
    let look = look(&rooms, &[&bench]).await?[&bench.tenant.name().database_schema()].clone();
    ensure!(look.spooled_rows == 1 && look.spooled_since.is_some(), "{look:?}");
    let archived = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(matches!(archived, Archived::Object { .. }), "{archived:?}");
    expire(&rooms, &bench.tenant, now()).await?;
    bench.retire().await
}

/// Keys of the tenant's bucket that hold logs.
async fn keys(bench: &Bench) -> anyhow::Result<Vec<String>> {
    let bucket = &bench.tenant.registered().archive.bucket;
    let prefix = format!("{}logs/", bench.tenant.registered().archive.prefix);
    let listed = bench.stores.s3()?.list_objects_v2().bucket(bucket).prefix(prefix).send().await?;
    listed.contents().iter().map(|object| Ok(object.key().context("a key")?.to_owned())).collect()
}

/// Every event's line, each by one ranged read.
async fn read_all(bench: &Bench) -> anyhow::Result<Vec<String>> {
    let rooms = bench.rooms().await?;
    let schema = bench.tenant.name().database_schema();
    type Row = (String, Vec<i64>, Vec<i64>, i64, i32);
    let rows: Vec<Row> = sqlx::query_as(&format!(
        "SELECT o.key, o.raw_starts, o.starts, b.raw_start + l.raw_offset, l.raw_length
         FROM {schema}.logs l JOIN {schema}.batches b USING (batch_id) JOIN {schema}.objects o USING (object_id)"
    ))
    .fetch_all(&bench.admin)
    .await?;
    let mut lines = Vec::new();
    for (key, raw_starts, starts, start, length) in rows {
        let frames = Frames { raw_starts, starts };
        let raw = rooms.archive.read(&bench.tenant, &key, &frames, start as u64, length as u64).await?;
        lines.push(String::from_utf8(raw)?);
    }
    Ok(lines)
}
