//! Stores that agree, stores that do not, and what a repair makes of them.

use std::time::Duration;

use super::bench::{Bench, lines, now};
use anyhow::{Context, ensure};
use aws_sdk_s3::primitives::ByteStream;
use dataplane::maintain::{Kind, Report, Rooms, VerifyOptions, archive, repair, roll_up, verify};
use dataplane::stores::index::Listed;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use opensearch::http::request::JsonBody;
use serde_json::json;
use uuid::Uuid;

const ALL: VerifyOptions = VerifyOptions { span: (i64::MIN, i64::MAX), max_differences: 20 };
const AGED: &str = "UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'";

/// A tenant with 90 events and a dead letter: one part archived, the other in the spool, all indexed.
async fn filled(prefix: &str) -> anyhow::Result<(Bench, Rooms)> {
    let bench = Bench::new(prefix).await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    let mut with_poison = lines(41);
    with_poison[7] = "poison".into();
    bench.send(&with_poison).await?;
    bench.send(&lines(20)).await?;
    bench.drained().await?;
    archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    bench.send(&lines(30)).await?;
    bench.drained().await?;
    processor.stop().await?;
    bench.indexed(&rooms).await?;
    bench.execute(AGED).await?;
    Ok((bench, rooms))
}

fn kinds(report: &Report) -> Vec<(Kind, u64)> {
    report.differences.iter().map(|difference| (difference.kind, difference.count)).collect()
}

async fn agrees(bench: &Bench, rooms: &Rooms) -> anyhow::Result<()> {
    let report = verify(rooms, &bench.tenant, ALL, now()).await?;
    ensure!(report.is_clean(), "{report}");
    ensure!((report.batches, report.events, report.dead_letters, report.documents) == (3, 90, 1, 90), "{report}");
    Ok(())
}

/// The only object of the tenant.
async fn object(bench: &Bench) -> anyhow::Result<String> {
    let schema = bench.tenant.name().database_schema();
    let key = format!("SELECT key FROM {schema}.objects");
    Ok(sqlx::query_scalar(&key).fetch_one(&bench.admin).await?)
}

#[tokio::test]
async fn what_can_be_made_again_is_repaired() -> anyhow::Result<()> {
    let (bench, rooms) = filled("repair").await?;
    agrees(&bench, &rooms).await?;
    let index = rooms.catalog.write_index(&bench.tenant).await?;
    for (damage, expected) in [
        ("DELETE FROM {}.logs WHERE raw_offset = 0", (Kind::RowsMissing, 3)),
        ("DELETE FROM {}.batches WHERE object_id IS NOT NULL", (Kind::RowsExtra, 60)),
        ("UPDATE {}.batches SET indexed_at = NULL", (Kind::DocumentsMissing, 0)),
    ] {
        bench.execute(damage).await?;
        let report = verify(&rooms, &bench.tenant, ALL, now()).await?;
        let found: u64 = kinds(&report).iter().filter(|(kind, _)| *kind == expected.0).map(|(_, count)| count).sum();
        ensure!(found == expected.1, "{damage}: {report}");
        let report = repair(&rooms, &bench.tenant, ALL, now()).await?;
        ensure!(report.is_clean() && report.repaired.is_some(), "{damage}: {report}");
        bench.execute(AGED).await?;
        agrees(&bench, &rooms).await?;
    }

    let gone = rooms.index.listed(&bench.tenant, (0, now() + 1_000_000)).await?;
    ensure!(gone.len() == 90 && gone.iter().all(|listed| listed.index == index));
    rooms.index.remove(&bench.tenant, &gone[..50]).await?;
    let report = verify(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(kinds(&report).iter().all(|(kind, _)| *kind == Kind::DocumentsMissing) && !report.is_clean(), "{report}");
    let report = repair(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(report.is_clean() && report.repaired.is_some_and(|done| done.indexed_batches > 0), "{report}");
    agrees(&bench, &rooms).await?;

    rooms.index.drop_index(&index).await?;
    bench.reprovision().await?;
    ensure!(!verify(&rooms, &bench.tenant, ALL, now()).await?.is_clean());
    ensure!(repair(&rooms, &bench.tenant, ALL, now()).await?.is_clean());
    agrees(&bench, &rooms).await?;
    bench.retire().await
}

#[tokio::test]
async fn a_document_that_no_row_stands_for_is_removed() -> anyhow::Result<()> {
    let (bench, rooms) = filled("extra").await?;
    let index = rooms.catalog.write_index(&bench.tenant).await?;
    let client = bench.stores.opensearch()?;
    let stray = Uuid::now_v7();
    let put = async |tenant: &str, id: Uuid| {
        let path = format!("/{index}/_doc/{id}?routing={tenant}&refresh=true");
        let accepted_at = dataplane::event::rfc3339(now() - 1_000_000);
        let body = json!({"id": id, "tenant": tenant, "accepted_at": accepted_at, "@timestamp": accepted_at});
        let body = Some(JsonBody::new(body));
        let put = client.send(Method::Put, &path, HeaderMap::new(), None::<&()>, body, None).await?;
        ensure!(put.status_code().is_success());
        anyhow::Ok(())
    };
    put(bench.tenant.name().as_str(), stray).await?;
    put("somebody-else", Uuid::now_v7()).await?;
    let report = verify(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(
        kinds(&report) == [(Kind::DocumentsExtra, 1)] && report.to_string().contains(&stray.to_string()),
        "{report}"
    );
    let report = repair(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(report.is_clean() && report.repaired.is_some_and(|done| done.documents_removed == 1), "{report}");
    agrees(&bench, &rooms).await?;
    let all = bench.stores.documents(&index).await?;
    ensure!(all == 91, "another tenant's document stays: {all}");
    bench.retire().await
}

#[tokio::test]
async fn what_is_lost_for_good_is_reported_and_stays_so() -> anyhow::Result<()> {
    let (bench, rooms) = filled("lost").await?;
    let (s3, bucket, key) =
        (bench.stores.s3()?, bench.tenant.registered().archive.bucket.clone(), object(&bench).await?);
    let whole = s3.get_object().bucket(&bucket).key(&key).send().await?.body.collect().await?.into_bytes().to_vec();
    let put = async |bytes: &[u8]| {
        let body = ByteStream::from(bytes.to_vec());
        s3.put_object().bucket(&bucket).key(&key).body(body).send().await.map(|_| ()).context("put the object")
    };
    let mut bit = whole.clone();
    bit[10] ^= 1;
    for damaged in [bit.as_slice(), &whole[..whole.len() - 5]] {
        put(damaged).await?;
        let report = verify(&rooms, &bench.tenant, ALL, now()).await?;
        ensure!(kinds(&report) == [(Kind::RawDamaged, 1); 2], "{report}");
    }
    s3.delete_object().bucket(&bucket).key(&key).send().await?;
    let report = repair(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(kinds(&report) == [(Kind::RawMissing, 1); 2], "{report}");
    put(&whole).await?;
    agrees(&bench, &rooms).await?;

    bench.execute("UPDATE {}.logs SET raw_offset = raw_offset + 1 WHERE raw_offset = 0").await?;
    bench.execute("DELETE FROM {}.usage_ledger WHERE events = 20").await?;
    let report = verify(&rooms, &bench.tenant, ALL, now()).await?;
    let mut found = kinds(&report);
    found.sort();
    let misplaced = (Kind::RowsMisplaced, 1);
    ensure!(found == [misplaced, misplaced, misplaced, (Kind::UsageDiffers, 1)], "{report}");
    let one = VerifyOptions { max_differences: 1, ..ALL };
    let report = verify(&rooms, &bench.tenant, one, now()).await?;
    ensure!((report.differences.len(), report.difference_count) == (1, 4), "{report}");
    bench.retire().await
}

#[tokio::test]
async fn a_batch_that_only_the_archive_knows_is_restored_and_billed_once() -> anyhow::Result<()> {
    let (bench, rooms) = filled("unknown").await?;
    roll_up(&rooms, &bench.tenant).await?;
    let used = bench.used().await?;
    // As after a restore of PostgreSQL to a moment before the object was made.
    for table in ["logs", "dead_letters", "usage_ledger"] {
        let archived = "batch_id IN (SELECT batch_id FROM {}.batches WHERE object_id IS NOT NULL)";
        bench.execute(&format!("DELETE FROM {{}}.{table} WHERE {archived}")).await?;
    }
    bench.execute("DELETE FROM {}.batches WHERE object_id IS NOT NULL").await?;
    bench.execute("DELETE FROM {}.objects").await?;
    let report = verify(&rooms, &bench.tenant, ALL, now()).await?;
    ensure!(kinds(&report) == [(Kind::DocumentsExtra, 60), (Kind::ObjectUnknown, 2)], "{report}");
    let report = repair(&rooms, &bench.tenant, ALL, now()).await?;
    let done = report.repaired.context("repaired")?;
    ensure!(report.is_clean() && (done.batches, done.documents_removed) == (2, 0), "{report}");
    agrees(&bench, &rooms).await?;
    ensure!(roll_up(&rooms, &bench.tenant).await? == 0 && bench.used().await? == used);
    bench.retire().await
}

#[tokio::test]
async fn a_span_holds_what_was_accepted_in_it() -> anyhow::Result<()> {
    let (bench, rooms) = filled("span").await?;
    let all = rooms.catalog.acceptances(&bench.tenant, (0, now()), 10).await?;
    let (first, last) = (all[0].0, all[2].0);
    for (span, batches) in [((first, last + 1), 3), ((0, first - 1_000), 0), ((last + 1_000, i64::MAX), 0)] {
        let options = VerifyOptions { span, ..ALL };
        let report = verify(&rooms, &bench.tenant, options, now()).await?;
        ensure!(report.is_clean() && report.batches == batches, "{span:?}: {report}");
    }
    let listed: Vec<Listed> = rooms.index.listed(&bench.tenant, (0, now())).await?;
    ensure!(listed.len() == 90 && listed.is_sorted());
    bench.retire().await
}
