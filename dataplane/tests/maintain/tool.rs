//! `loggerhub rebuild` and `loggerhub verify` as people run them: the program with its environment, its
//! exit codes, what it prints, and its death in the middle.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_s3::primitives::ByteStream;
use dataplane::maintain::{Rooms, archive};
use serde_json::Value;
use testkit::eventually;
use tokio::process::Command;

use super::bench::{Bench, SOON, lines, now};

/// Objects of the tenant that is lost: a rebuild restores one after the other.
const OBJECTS: usize = 6;
const EVENTS: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tenant_comes_back_by_the_program_also_if_it_dies_meanwhile() -> anyhow::Result<()> {
    let bench = Bench::new("tool").await?;
    let rooms = bench.rooms().await?;
    let processor = bench.processor("p-0").await?;
    for _ in 0..OBJECTS {
        bench.send(&lines(EVENTS)).await?;
        bench.drained().await?;
        archive(&rooms, &bench.tenant, Duration::ZERO, now()).await?;
    }
    processor.stop().await?;
    bench.indexed(&rooms).await?;

    let refused = run(&bench, &["rebuild"]).await?;
    ensure!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{refused:?}");
    ensure!(text(&refused.stderr).contains("--into-existing"), "{refused:?}");
    let nobody = program(&bench).await?.args(["rebuild", "--tenant", "nobody-of-this-name"]).output().await?;
    ensure!(nobody.status.code() == Some(2), "{nobody:?}");

    lose(&bench, &rooms).await?;
    let verified = run(&bench, &["verify"]).await?;
    ensure!(verified.status.code() == Some(1) && text(&verified.stdout).contains("object-unknown"), "{verified:?}");

    // It dies once it has restored something; what it had begun is neither there by half nor in the way.
    let mut dying = command(&bench, &["rebuild"]).await?.spawn().context("start the program")?;
    eventually("a batch is restored", SOON, async || {
        let restored = bench.count("SELECT count(*) FROM {}.batches").await?;
        ensure!(restored > 0, "none so far");
        Ok(())
    })
    .await?;
    dying.kill().await?;
    let restored = bench.count("SELECT count(*) FROM {}.batches").await?;
    let again = run(&bench, &["rebuild", "--into-existing", "--output", "json"]).await?;
    ensure!(again.status.success(), "{again:?}");
    let report: Value = serde_json::from_slice(&again.stdout)?;
    ensure!(report["unreadable"].as_array().is_some_and(Vec::is_empty), "{report}");
    ensure!(report["batches"].as_i64().is_some_and(|batches| batches <= OBJECTS as i64 - restored), "{report}");
    bench.indexed(&rooms).await?;
    let verified = run(&bench, &["verify"]).await?;
    ensure!(verified.status.success(), "{verified:?}");
    bench.holds((OBJECTS * EVENTS) as i64).await?;

    // An object that can't be read is named, and the others are restored all the same.
    let location = &bench.tenant.registered().archive;
    let at = now() / 1000;
    let key = format!("{}logs/{}/2026-01-02/03/{at}-{at}-0000.lhz", location.prefix, bench.tenant.name());
    let put = bench.stores.s3()?.put_object().bucket(&location.bucket).key(&key);
    put.body(ByteStream::from_static(b"not an object of ours")).send().await?;
    lose(&bench, &rooms).await?;
    let partly = run(&bench, &["rebuild"]).await?;
    ensure!(partly.status.code() == Some(1) && text(&partly.stdout).contains(&key), "{partly:?}");
    bench.indexed(&rooms).await?;
    bench.holds((OBJECTS * EVENTS) as i64).await?;
    bench.retire().await
}

/// Loses everything of the tenant but its archive, and gives it empty stores, as the operator does.
async fn lose(bench: &Bench, rooms: &Rooms) -> anyhow::Result<()> {
    bench.execute("DROP SCHEMA {} CASCADE").await?;
    bench.forget_series().await?;
    for index in rooms.index.of_series(&bench.tenant.registered().index_series).await? {
        rooms.index.drop_index(&index.name).await?;
    }
    bench.reprovision().await
}

async fn run(bench: &Bench, arguments: &[&str]) -> anyhow::Result<Output> {
    command(bench, arguments).await?.output().await.context("run the program")
}

async fn command(bench: &Bench, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = program(bench).await?;
    command.args(arguments).args(["--tenant", bench.tenant.name().as_str()]);
    Ok(command)
}

/// The program with the environment that the chart gives `maintain`.
async fn program(bench: &Bench) -> anyhow::Result<Command> {
    let stores = &bench.stores;
    let postgres = stores.as_maintain_role().await?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_loggerhub"));
    command
        .env_clear()
        .env("LOGGERHUB_LOG_FORMAT", "text")
        .env("LOGGERHUB_POSTGRES_HOST", &postgres.host)
        .env("LOGGERHUB_POSTGRES_PORT", postgres.port.to_string())
        .env("LOGGERHUB_POSTGRES_CREDENTIALS", &postgres.credentials)
        .env("LOGGERHUB_REDIS_QUEUE_URL", &stores.queue.queue_url)
        .envs(stores.queue.queue_credentials.iter().map(|folder| ("LOGGERHUB_REDIS_QUEUE_CREDENTIALS", folder)))
        .env("LOGGERHUB_S3_ENDPOINT", &stores.s3.endpoint)
        .env("LOGGERHUB_S3_REGION", &stores.s3.region)
        .env("LOGGERHUB_S3_CREDENTIALS", &stores.s3.s3_credentials)
        .env("LOGGERHUB_OPENSEARCH_URL", stores.opensearch.url.as_str())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
