//! Every store over TLS: trusted by the CA bundle, and not without it.

use std::time::Duration;

use anyhow::ensure;
use dataplane::maintain::{Archived, archive};
use runtime::settings::TlsSettings;
use testkit::Stores;

use super::bench::{Bench, lines, now};

/// Provisioning, queue, catalog, index and archive: no connection of this test is in the clear.
#[tokio::test]
async fn a_log_goes_its_whole_way_over_tls() -> anyhow::Result<()> {
    let bench = Bench::on(Stores::from_environment()?.over_tls()?, "tls").await?;
    let processor = bench.processor("p-0").await?;
    bench.send(&lines(100)).await?;
    bench.drained().await?;
    bench.holds(100).await?;
    processor.stop().await?;
    let encrypted = bench.count("SELECT count(*) FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()").await?;
    ensure!(encrypted == 1, "PostgreSQL sees an encrypted session");

    let rooms = bench.rooms().await?;
    let archived = archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    ensure!(matches!(archived, Archived::Object { .. }), "{archived:?}");
    bench.retire().await
}

/// A certificate of an unknown authority ends each connection before a credential is sent.
#[tokio::test]
async fn no_store_is_trusted_without_its_ca() -> anyhow::Result<()> {
    let mut unknown = Stores::from_environment()?.over_tls()?;
    unknown.tls = TlsSettings::default();
    let mut trusted = Vec::new();
    if unknown.postgres("postgres")?.acquire().await.is_ok() {
        trusted.push("PostgreSQL");
    }
    let ping = redis::cmd("PING");
    if ping.query_async::<String>(&mut unknown.queue()?.connection()?).await.is_ok() {
        trusted.push("Redis, queue");
    }
    if ping.query_async::<String>(&mut unknown.cache()?.connection()?).await.is_ok() {
        trusted.push("Redis, cache");
    }
    if unknown.s3()?.list_buckets().send().await.is_ok() {
        trusted.push("S3");
    }
    if unknown.opensearch()?.ping().send().await.is_ok() {
        trusted.push("OpenSearch");
    }
    ensure!(trusted.is_empty(), "{trusted:?} answered an installation that does not know its CA");
    Ok(())
}
