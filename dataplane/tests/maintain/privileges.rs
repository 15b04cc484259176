//! `process` and `maintain` with the rights that are shipped for them and no more.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use crds::names::{BucketLayout, index_name};
use dataplane::maintain::{
    Archived, Rooms, SeriesLimits, VerifyOptions, archive, expire, maintain_series, partitions, rebuild, repair,
    roll_up, verify,
};
use dataplane::stores::archive::Archive;
use dataplane::stores::index::Index;
use dataplane::tenancy::{Peppers, Registry};
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use testkit::RoleProxy;
use testkit::s3_policy::{denied, sees_only, shipped};

use super::bench::{Bench, Processor, lines, now};

const ALL: VerifyOptions = VerifyOptions { span: (i64::MIN, i64::MAX), max_differences: 20 };
const DAY: i64 = 24 * 3_600_000_000;
/// What names of tenants' buckets begin with here.
const BUCKETS: &str = "lh-test-";

/// `maintain`'s rooms behind its OpenSearch role, with its policy of the object store.
async fn rooms(bench: &Bench, proxy: &RoleProxy) -> anyhow::Result<Rooms> {
    let opensearch = runtime::stores::opensearch(&proxy.settings(), &bench.stores.tls)?;
    let s3 = bench.stores.s3_by(shipped::MAINTAIN, BUCKETS).await?;
    Ok(Rooms { index: Index::new(opensearch), archive: Archive::new(s3), ..bench.rooms().await? })
}

#[tokio::test]
async fn a_log_goes_its_whole_way_with_the_rights_that_are_shipped() -> anyhow::Result<()> {
    let bench = Bench::new("rights").await?;
    let process = RoleProxy::start(&bench.stores.opensearch, "loggerhub_process").await?;
    let maintain = RoleProxy::start(&bench.stores.opensearch, "loggerhub_maintain").await?;
    let rooms = rooms(&bench, &maintain).await?;
    let tenant = &bench.tenant;

    let mut settings = bench.settings("p-0").await?;
    settings.opensearch = process.settings();
    let index = Index::new(runtime::stores::opensearch(&settings.opensearch, &bench.stores.tls)?);
    let processor = Processor::start(settings).await?;

    // The end of what is kept no longer: rows, object and index.
    let series = &tenant.registered().index_series;
    let full = SeriesLimits { bytes: u64::MAX, documents: 10 };
    bench.keeps_from(now() - 50 * DAY).await?;
    bench.send_at(now() - 40 * DAY, &lines(10)).await?;
    bench.drained().await?;
    bench.holds(10).await?;
    archive(&rooms, tenant, Duration::ZERO, now()).await?;
    roll_up(&rooms, tenant).await?;
    maintain_series(&rooms, series, full, now()).await?;
    ensure!(rooms.index.exists(&index_name(series, 2)).await?);
    maintain_series(&rooms, series, full, now()).await?;
    ensure!(!rooms.index.exists(&index_name(series, 1)).await?);
    let expired = expire(&rooms, tenant, now()).await?;
    ensure!(expired.objects == 1 && expired.partitions > 0, "{expired:?}");

    let mut with_poison = lines(31);
    with_poison[7] = "poison".into();
    bench.send(&with_poison).await?;
    bench.drained().await?;
    processor.stop().await?;
    index.ping().await?;
    bench.holds(30).await?;

    let archived = archive(&rooms, tenant, Duration::ZERO, now()).await?;
    ensure!(matches!(archived, Archived::Object { .. }), "{archived:?}");
    roll_up(&rooms, tenant).await?;
    partitions(&rooms, tenant, now()).await?;
    bench.execute("UPDATE {}.batches SET indexed_at = NULL").await?;
    bench.indexed(&rooms).await?;

    // What a repair makes again, what it removes, and what a rebuild reads.
    bench.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'").await?;
    let documents = rooms.index.listed(tenant, (0, now() + 1_000_000)).await?;
    rooms.index.remove(tenant, &documents[..5]).await?;
    ensure!(!verify(&rooms, tenant, ALL, now()).await?.is_clean());
    let repaired = repair(&rooms, tenant, ALL, now()).await?;
    ensure!(repaired.is_clean() && repaired.repaired.is_some(), "{repaired}");
    for table in ["logs", "dead_letters", "batches"] {
        bench.execute(&format!("DELETE FROM {{}}.{table}")).await?;
    }
    ensure!(rebuild(&rooms, tenant, true, now()).await?.batches == 1);
    bench.execute("UPDATE {}.batches SET stored_at = stored_at - interval '1 minute'").await?;
    bench.indexed(&rooms).await?;
    let clean = verify(&rooms, tenant, ALL, now()).await?;
    ensure!(clean.is_clean() && clean.documents == 30, "{clean}");

    for (proxy, expected) in [
        (&process, &["GET /", "POST /_bulk"][..]),
        (
            &maintain,
            &[
                "DELETE /{index}",
                "GET /_cat/indices/{index}",
                "GET /{index}/_alias",
                "GET /{index}/_settings/{name}",
                "POST /_bulk",
                "POST /{index}/_count",
                "POST /{index}/_refresh",
                "POST /{index}/_search",
                "PUT /{index}",
            ][..],
        ),
    ] {
        ensure!(proxy.refused().is_empty(), "{:#?}", proxy.refused());
        ensure!(proxy.passed().iter().eq(expected), "{:#?}", proxy.passed());
        // So that the proxy is one that refuses.
        let client = runtime::stores::opensearch(&proxy.settings(), &bench.stores.tls)?;
        for (method, path) in [
            (Method::Get, "/_search".to_owned()),
            (Method::Post, format!("/{}/_delete_by_query", tenant.name().index_alias())),
            (Method::Delete, "/others".to_owned()),
            (Method::Put, "/_cluster/settings".to_owned()),
        ] {
            let answer = client.send(method, &path, HeaderMap::new(), None::<&()>, Some("{}"), None).await?;
            ensure!(answer.status_code().as_u16() == 403, "{path}: {}", answer.status_code());
        }
        ensure!(proxy.refused().len() == 4, "{:#?}", proxy.refused());
    }
    bench.retire().await
}

#[tokio::test]
async fn maintains_policy_is_for_logs_and_for_nothing_else() -> anyhow::Result<()> {
    let bench = Bench::new("policy").await?;
    let admin = bench.stores.s3()?;
    let own = &bench.tenant.registered().archive.bucket;
    let other = testkit::unique("others");
    admin.create_bucket().bucket(&other).send().await?;
    admin.put_object().bucket(&other).key("logs/x").body(b"x".to_vec().into()).send().await?;
    admin.put_object().bucket(own).key("beside").body(b"x".to_vec().into()).send().await?;
    for (policy, prefix) in [(shipped::MAINTAIN, BUCKETS), (shipped::MAINTAIN_SHARED, own.as_str())] {
        let s3 = bench.stores.s3_by(policy, prefix).await?;
        let put = |bucket: &str, key: &str| s3.put_object().bucket(bucket).key(key).body(b"x".to_vec().into()).send();
        denied("write beside the logs", put(own, "beside").await)?;
        denied("read beside the logs", s3.get_object().bucket(own).key("beside").send().await)?;
        denied("delete beside the logs", s3.delete_object().bucket(own).key("beside").send().await)?;
        denied("write to another bucket", put(&other, "logs/x").await)?;
        denied("read another bucket", s3.get_object().bucket(&other).key("logs/x").send().await)?;
        denied("list another bucket", s3.list_objects_v2().bucket(&other).send().await)?;
        denied("make a bucket", s3.create_bucket().bucket(format!("{BUCKETS}stolen")).send().await)?;
        denied("delete a bucket", s3.delete_bucket().bucket(own).send().await)?;
        denied("open a bucket", s3.put_bucket_policy().bucket(own).policy("{}").send().await)?;
        denied("read a bucket's tags", s3.get_bucket_tagging().bucket(own).send().await)?;
        denied("drop the lifecycle", s3.delete_bucket_lifecycle().bucket(own).send().await)?;
        sees_only(&s3, prefix).await?;
    }
    admin.delete_object().bucket(&other).key("logs/x").send().await?;
    admin.delete_bucket().bucket(&other).send().await?;
    bench.retire().await
}

/// One bucket for all tenants: the other layout, and its policies.
#[tokio::test]
async fn the_archive_of_a_shared_bucket_needs_no_more_than_its_policies() -> anyhow::Result<()> {
    let bench = Bench::new("shared").await?;
    let name = bench.tenant.name();
    let bucket = testkit::unique("shared");
    bench.stores.s3()?.create_bucket().bucket(&bucket).send().await?;
    let mut registered = bench.tenant.registered().clone();
    registered.archive = name.archive(BucketLayout::Shared, &bucket);
    let key = format!("{}logs/{name}/1", registered.archive.prefix);
    let tenant = Registry::fixed([registered], Peppers::none()).tenant(name).context("it was given")?;

    let s3 = bench.stores.s3_by(shipped::MAINTAIN_SHARED, &bucket).await?;
    let archive = Archive::new(s3.clone());
    archive.put(&tenant, &key, Bytes::from_static(b"0123456789")).await?;
    ensure!(archive.objects(&tenant).await? == [(key.clone(), 10)]);
    let marker = format!(".loggerhub/tenants/{name}");
    let forged = s3.put_object().bucket(&bucket).key(&marker).body(b"x".to_vec().into()).send().await;
    denied("forge an owner's marker", forged)?;

    let search = bench.stores.s3_by(shipped::SEARCH_SHARED, &bucket).await?;
    let read = search.get_object().bucket(&bucket).key(&key).range("bytes=3-5").send().await?;
    ensure!(read.body.collect().await?.into_bytes() == &b"345"[..]);
    denied("read a marker", search.get_object().bucket(&bucket).key(&marker).send().await)?;
    denied("delete a log", search.delete_object().bucket(&bucket).key(&key).send().await)?;

    archive.delete(&tenant, &key).await?;
    ensure!(archive.objects(&tenant).await?.is_empty());
    bench.stores.s3()?.delete_bucket().bucket(&bucket).send().await?;
    bench.retire().await
}
