//! The data plane's roles as plain processes of the shipped binary, with the settings that the chart
//! and the operator give them.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use testkit::processes::peak_rss_mb;
use testkit::{Stores, eventually, free_address};
use tokio::process::{Child, Command};

use crate::meter::Stage;

/// Longest wait for an answer of a role.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait until a role is ready, and until it has stopped: it may drain for 20 s.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);
/// How old raw lines may become before they are archived even if they fill no object. The chart says 300 s;
/// most runs are shorter, and what they wrote is to be archived within them.
pub(crate) const EARLY: Duration = Duration::from_secs(20);
pub(crate) const AS_SHIPPED: Duration = Duration::from_secs(300);

/// How the path of a log line is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As shipped.
    Batched,
    /// `--batch=1`: one write per event into every store. Many workers, since each waits for a
    /// store most of the time.
    PerEvent,
}

/// What roles are started with.
pub(crate) struct Roles {
    pub(crate) binary: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) stores: Stores,
}

/// A running role; it ends with [`Role::stop`], or when it is dropped.
pub(crate) struct Role {
    pub(crate) stage: Stage,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    /// Where it says how it is.
    admin: SocketAddr,
    child: Child,
}

impl Roles {
    pub(crate) async fn ingest(&self, mode: Mode) -> anyhow::Result<Role> {
        let mut settings = self.queue();
        settings.push(("LOGGERHUB_PEPPERS", path(&self.stores.peppers()?)?));
        // One tenant is all there is in most scenarios.
        settings.push(("LOGGERHUB_QUEUE_TENANT_PERCENT", "80".into()));
        if mode == Mode::PerEvent {
            settings.push(("LOGGERHUB_INGEST_BATCH", "1".into()));
        }
        self.start(Stage::Ingest, "ingest", settings).await
    }

    pub(crate) async fn process(&self, mode: Mode) -> anyhow::Result<Role> {
        let mut settings = self.queue();
        settings.extend(self.postgres(&self.stores.as_data_role().await?)?);
        settings.extend(self.cache());
        settings.push(("LOGGERHUB_OPENSEARCH_URL", self.stores.opensearch.url.to_string()));
        settings.push(("LOGGERHUB_CONSUMER", "bench-0".into()));
        settings.push(("MIMALLOC_PURGE_DELAY", "1000".into()));
        let (events, workers) = match mode {
            Mode::Batched => ("2000", "2"),
            Mode::PerEvent => ("1", "12"),
        };
        settings.push(("LOGGERHUB_BATCH_MAX_EVENTS", events.into()));
        settings.push(("LOGGERHUB_WORKERS", workers.into()));
        self.start(Stage::Process, "process", settings).await
    }

    pub(crate) async fn maintain(&self, archive_after: Duration) -> anyhow::Result<Role> {
        let mut settings = self.queue();
        settings.extend(self.postgres(&self.stores.as_maintain_role().await?)?);
        settings.extend(self.s3()?);
        settings.push(("LOGGERHUB_OPENSEARCH_URL", self.stores.opensearch.url.to_string()));
        settings.push(("LOGGERHUB_ARCHIVE_MAX_AGE_SECONDS", archive_after.as_secs().to_string()));
        self.start(Stage::Maintain, "maintain", settings).await
    }

    pub(crate) async fn search(&self) -> anyhow::Result<Role> {
        self.search_with(self.stores.opensearch.url.to_string()).await
    }

    /// Search, OpenSearch being at a port where nothing listens.
    pub(crate) async fn search_without_index(&self) -> anyhow::Result<Role> {
        self.search_with(format!("http://{}", free_address()?)).await
    }

    async fn search_with(&self, opensearch: String) -> anyhow::Result<Role> {
        let mut settings = self.queue();
        settings.push(("LOGGERHUB_PEPPERS", path(&self.stores.peppers()?)?));
        settings.extend(self.postgres(&self.stores.as_search_role().await?)?);
        settings.extend(self.s3()?);
        settings.push(("LOGGERHUB_OPENSEARCH_URL", opensearch));
        self.start(Stage::Search, "search", settings).await
    }

    pub(crate) async fn gateway(&self, ingest: &Role, search: &Role) -> anyhow::Result<Role> {
        let mut settings = self.queue();
        settings.push(("LOGGERHUB_PEPPERS", path(&self.stores.peppers()?)?));
        settings.extend(self.cache());
        settings.push(("LOGGERHUB_INGEST_URL", format!("http://{}", ingest.address)));
        settings.push(("LOGGERHUB_SEARCH_URL", format!("http://{}", search.address)));
        self.start(Stage::Gateway, "gateway", settings).await
    }

    /// Starts a role with these settings and no other, and waits until it is ready.
    async fn start(&self, stage: Stage, role: &str, settings: Vec<(&str, String)>) -> anyhow::Result<Role> {
        let (address, admin) = (free_address()?, free_address()?);
        let log = File::options().create(true).append(true).open(self.logs.join(format!("{role}.log")))?;
        let mut command = Command::new(&self.binary);
        command
            .arg(role)
            .env_clear()
            .envs(settings)
            .env("LOGGERHUB_LISTEN", address.to_string())
            .env("LOGGERHUB_ADMIN_LISTEN", admin.to_string());
        command.env("LOGGERHUB_LOG", "info").env("LOGGERHUB_LOG_FORMAT", "json");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("start {}", self.binary.display()))?;
        let pid = child.id().context("a process without an id")?;
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        eventually(&format!("{role} is ready"), START, async || {
            let response = client.get(format!("http://{admin}/ready")).send().await?;
            ensure!(response.status().is_success(), "{}", response.text().await?);
            Ok(())
        })
        .await
        .with_context(|| format!("see {}/{role}.log", self.logs.display()))?;
        ensure!(child.try_wait()?.is_none(), "{role} has ended: see {}/{role}.log", self.logs.display());
        Ok(Role { stage, pid, address, admin, child })
    }

    fn queue(&self) -> Vec<(&'static str, String)> {
        let queue = &self.stores.queue;
        let mut settings = vec![("LOGGERHUB_REDIS_QUEUE_URL", queue.queue_url.clone())];
        if let Some(folder) = &queue.queue_credentials {
            settings.push(("LOGGERHUB_REDIS_QUEUE_CREDENTIALS", folder.display().to_string()));
        }
        settings
    }

    fn cache(&self) -> Vec<(&'static str, String)> {
        let cache = &self.stores.cache;
        let mut settings = vec![("LOGGERHUB_REDIS_CACHE_URL", cache.cache_url.clone())];
        if let Some(folder) = &cache.cache_credentials {
            settings.push(("LOGGERHUB_REDIS_CACHE_CREDENTIALS", folder.display().to_string()));
        }
        settings
    }

    fn postgres(&self, login: &runtime::settings::PostgresSettings) -> anyhow::Result<[(&'static str, String); 4]> {
        Ok([
            ("LOGGERHUB_POSTGRES_HOST", login.host.clone()),
            ("LOGGERHUB_POSTGRES_PORT", login.port.to_string()),
            ("LOGGERHUB_POSTGRES_SSL_MODE", "prefer".to_owned()),
            ("LOGGERHUB_POSTGRES_CREDENTIALS", path(&login.credentials)?),
        ])
    }

    fn s3(&self) -> anyhow::Result<[(&'static str, String); 3]> {
        let s3 = &self.stores.s3;
        Ok([
            ("LOGGERHUB_S3_ENDPOINT", s3.endpoint.clone()),
            ("LOGGERHUB_S3_REGION", s3.region.clone()),
            ("LOGGERHUB_S3_CREDENTIALS", path(&s3.s3_credentials)?),
        ])
    }
}

impl Role {
    /// Most memory that it ever held, in MiB.
    pub(crate) fn peak_rss_mb(&self) -> anyhow::Result<f64> {
        peak_rss_mb(self.pid)
    }

    /// One of its metrics, by the name of the whole line.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        let text = client.get(format!("http://{}/metrics", self.admin)).send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("{} has no metric {name}", self.stage.name()))
    }

    /// Asks it to end, as Kubernetes would, and waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let name = self.stage.name();
        Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await.context("run kill")?;
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(status) => ensure!(status?.success(), "{name} ended with {status:?}", status = self.child.try_wait()),
            Err(_) => {
                self.child.kill().await.context("kill a role that does not stop")?;
                anyhow::bail!("{name} did not stop within {STOP:?}");
            }
        }
        Ok(())
    }
}

fn path(path: &std::path::Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("a path that is not text")?.to_owned())
}
