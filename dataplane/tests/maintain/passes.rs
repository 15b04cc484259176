//! Whole passes over some tenants: what has a time by which it must be done waits for nobody's archive.

use std::time::Duration;

use anyhow::{bail, ensure};
use dataplane::maintain::{Rooms, pass_over};
use dataplane::stores::archive::Archive;
use dataplane::tenancy::{Peppers, Registry};
use testkit::eventually;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, lines, now};

const DAY: i64 = 24 * 3_600_000_000;
/// Less than one attempt at a store that takes requests and never answers, of which there are three.
const BEFORE_THE_STORE_IS_GIVEN_UP: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_hangs_holds_up_what_it_is_needed_for() -> anyhow::Result<()> {
    // As many tenants as are worked on at once have something for the archive, and come first.
    let busy = [Bench::new("a-busy").await?, Bench::new("a-busy").await?, Bench::new("a-busy").await?];
    let other = Bench::new("z-other").await?;
    for bench in &busy {
        let processor = bench.processor("p-0").await?;
        bench.send(&lines(3)).await?;
        bench.drained().await?;
        processor.stop().await?;
    }
    other.keeps_from(now() - 100 * DAY).await?;
    let leaf = "SELECT name FROM {}.partitions WHERE begins > now() ORDER BY begins DESC LIMIT 1";
    let leaf = leaf.replace("{}", &other.tenant.name().database_schema());
    let leaf: String = sqlx::query_scalar(&leaf).fetch_one(&other.admin).await?;
    other.execute(&format!("DROP TABLE {{}}.{leaf}")).await?;

    // The kernel takes what is sent to it, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let mut s3 = other.stores.s3.clone();
    s3.endpoint = format!("http://{}", silent.local_addr()?);
    let archive = Archive::new(runtime::stores::s3(&s3, &other.stores.tls)?);
    let rooms = Rooms { archive, ..other.rooms().await? };
    let all = busy.iter().chain([&other]).map(|bench| bench.tenant.registered().clone());
    let registry = Registry::fixed(all, Peppers::none());
    let done =
        eventually("partitions are made, and those of long ago are gone", BEFORE_THE_STORE_IS_GIVEN_UP, async || {
            let made = format!("SELECT count(*) FROM pg_class WHERE oid = to_regclass('{{}}.{leaf}')");
            ensure!(other.count(&made).await? == 1, "not made");
            let old = "SELECT count(*) FROM {}.partitions WHERE ends < now() - interval '30 days'";
            ensure!(other.count(old).await? == 0, "not gone");
            Ok(())
        });
    tokio::select! {
        () = pass_over(rooms, registry, Duration::ZERO, CancellationToken::new()) => bail!("the passes ended"),
        done = done => done?,
    }
    for bench in &busy {
        ensure!(bench.count("SELECT count(*) FROM {}.spool").await? == 1, "nothing is lost meanwhile");
    }
    for bench in busy.into_iter().chain([other]) {
        bench.retire().await?;
    }
    Ok(())
}
