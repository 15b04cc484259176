//! Stopping and starting the instance's stores, as an outage would, through `dev/stores`.

use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::environment::variable;

/// A server of the instance, by the name that `dev/stores` knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// PostgreSQL.
    Postgres,
    /// The queue's Redis.
    RedisQueue,
    /// The Redis of cache and live tail.
    RedisCache,
    /// The object store.
    Minio,
    /// OpenSearch.
    OpenSearch,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::RedisQueue => "redis-queue",
            Self::RedisCache => "redis-cache",
            Self::Minio => "minio",
            Self::OpenSearch => "opensearch",
        }
    }
}

/// A store that is down, and comes back when this value ends: a failing test leaves no store down.
#[derive(Debug)]
#[must_use = "the store comes back as soon as the outage is dropped"]
pub struct Outage {
    store: Store,
    over: bool,
}

impl Outage {
    /// Stops `store`.
    pub async fn of(store: Store) -> anyhow::Result<Self> {
        // First, so that the store is started also if stopping it fails half way.
        let outage = Self { store, over: false };
        act("stop", store).await?;
        Ok(outage)
    }

    /// Ends `store` without warning, as a power cut would.
    pub async fn killed(store: Store) -> anyhow::Result<Self> {
        let outage = Self { store, over: false };
        act("kill", store).await?;
        Ok(outage)
    }

    /// Starts the store and waits until it answers.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.over = true;
        act("start", self.store).await
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let started = stores_command("start", self.store)
            .and_then(|command| Ok(command.into_std().status().context("run dev/stores start")?.success()));
        if !matches!(started, Ok(true)) {
            tracing::error!(?started, "{} is left stopped", self.store.name());
        }
    }
}

/// The process of a store's server.
pub async fn pid(store: Store) -> anyhow::Result<u32> {
    let output = stores_command("status", store)?.stdout(Stdio::piped()).output().await.context("run dev/stores")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace().skip_while(|word| *word != "pid").skip(1);
    let pid = words.next().and_then(|pid| pid.parse().ok());
    pid.with_context(|| format!("dev/stores status {}: {said}", store.name()))
}

async fn act(action: &str, store: Store) -> anyhow::Result<()> {
    let output = stores_command(action, store)?.output().await.context("run dev/stores")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dev/stores {action} {}: {said}", store.name());
    Ok(())
}

fn stores_command(action: &str, store: Store) -> anyhow::Result<Command> {
    let mut command = Command::new(format!("{}/stores", variable("LOGGERHUB_DEV")?));
    command.env("LOGGERHUB_INSTANCE", variable("LOGGERHUB_INSTANCE")?).args([action, store.name()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}
