//! What every scenario stands on: the instance's stores, the roles, the lines, and what the stores
//! hold right now.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use crds::PipelineName;
use crds::names::PROCESSOR_DATABASE;
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use redis::AsyncCommands;
use runtime::stores::Connection;
use serde_json::Value;
use sqlx::PgPool;
use testkit::{Stores, Tenant, eventually};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::corpus::{Stamp, Texts};
use crate::load::{Gate, Source, Target};
use crate::meter::{Stage, Watched};
use crate::random::Random;
use crate::roles::{Role, Roles};
use crate::wire;

/// How often the backlog is looked at: at 60,000 events a second it grows by 600 meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait until nothing waits any more once nothing is sent.
const DRAIN: Duration = Duration::from_secs(120);
/// Events in a tenant's catalog, for [`Bed::number`].
pub(crate) const EVENTS_STORED: &str = "SELECT count(*) FROM {schema}.logs";
/// Longest wait until OpenSearch merges no more, so that one measurement doesn't pay for another.
const MERGES: Duration = Duration::from_secs(30);

pub(crate) struct Bed {
    pub(crate) stores: Stores,
    pub(crate) roles: Roles,
    /// The stores' servers.
    pub(crate) servers: Watched,
    pub(crate) lines: Arc<Texts>,
    pub(crate) random: Arc<Random>,
    /// Seconds that the sustained measurement takes.
    pub(crate) seconds: u64,
    pub(crate) catalog: PgPool,
    /// Documents after which the JVM is warm: cold, one costs it three times as much.
    pub(crate) warm_documents: u64,
    /// Whether the stores are as after running for a while: see `warm`.
    pub(crate) warmed: OnceCell<()>,
    opensearch: opensearch::OpenSearch,
    queue: Connection,
}

impl Bed {
    /// `run` is the instance's folder of process ids.
    pub(crate) fn new(
        roles: Roles,
        run: &Path,
        lines: Texts,
        seconds: u64,
        warm_documents: u64,
    ) -> anyhow::Result<Self> {
        let stores = roles.stores.clone();
        let mut servers = Watched::default();
        for (stage, name) in [
            (Stage::Redis, "redis-queue"),
            (Stage::Redis, "redis-cache"),
            (Stage::Postgres, "postgres"),
            (Stage::Minio, "minio"),
            (Stage::OpenSearch, "opensearch"),
        ] {
            servers = servers.with(stage, pid(run, name)?);
        }
        Ok(Self {
            catalog: stores.postgres(PROCESSOR_DATABASE)?,
            warm_documents,
            warmed: OnceCell::new(),
            opensearch: stores.opensearch()?,
            queue: stores.queue()?.connection()?,
            stores,
            roles,
            servers,
            lines: Arc::new(lines),
            random: Arc::new(Random::new(seed())),
            seconds,
        })
    }

    /// The servers and these roles.
    pub(crate) fn watch<'a>(&self, roles: impl IntoIterator<Item = &'a Role>) -> Watched {
        roles.into_iter().fold(self.servers.clone(), |watched, role| watched.with(role.stage, role.pid))
    }

    /// `POST /logs` of `events` lines each, under one tenant's key.
    pub(crate) fn logs(&self, ingest: SocketAddr, key: &str, events: usize, connections: usize) -> Target {
        self.logs_of(ingest, vec![headers(key)], |_| 0, events, connections)
    }

    /// The same with the key of another tenant each time: `pick` chooses among `headers`.
    pub(crate) fn logs_of(
        &self,
        address: SocketAddr,
        headers: Vec<String>,
        pick: impl Fn(&Random) -> usize + Send + Sync + 'static,
        events: usize,
        connections: usize,
    ) -> Target {
        let (lines, random, next) = (Arc::clone(&self.lines), Arc::clone(&self.random), AtomicUsize::new(0));
        let source: Source = Arc::new(move |request: &mut Vec<u8>| {
            let first = next.fetch_add(events, Ordering::Relaxed);
            let at = wire::begin(request, "/logs", &headers[pick(&random)]);
            copy(&lines, first, events, &random, request);
            wire::end(request, at);
            events as u64
        });
        Target { address, source, verdict: |answer| answer.status == 202, connections }
    }

    /// Events in the queue, handed out or not.
    pub(crate) async fn backlog(&self) -> anyhow::Result<i64> {
        let counters: Vec<String> =
            PipelineName::default_pipeline().lanes().map(|lane| lane.events_counter()).collect();
        let counts: Vec<Option<i64>> = self.queue.clone().mget(counters).await.context("read the backlog")?;
        Ok(counts.into_iter().flatten().sum())
    }

    /// Bytes that the queue's Redis holds.
    pub(crate) async fn queue_memory(&self) -> anyhow::Result<u64> {
        let info: String = redis::cmd("INFO").arg("memory").query_async(&mut self.queue.clone()).await?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
        Ok(used.trim().parse()?)
    }

    /// Writes the backlog into the gate again and again, until the task is aborted.
    pub(crate) fn guard(self: &Arc<Self>, gate: &Arc<Gate>) -> JoinHandle<()> {
        let (bed, gate) = (Arc::clone(self), Arc::clone(gate));
        tokio::spawn(async move {
            loop {
                // If the queue does not answer, nothing more is sent.
                gate.waiting.store(bed.backlog().await.unwrap_or(i64::MAX), Ordering::Relaxed);
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    /// Waits until the queue is empty.
    pub(crate) async fn drained(&self) -> anyhow::Result<()> {
        eventually("the queue is empty", DRAIN, async || {
            let waiting = self.backlog().await?;
            ensure!(waiting == 0, "{waiting} events wait");
            Ok(())
        })
        .await
    }

    /// Throws away what is queued, and has Redis begin its append-only file anew, so that rewriting what one
    /// case left is no other's work. Only while no processor runs.
    pub(crate) async fn empty_queue(&self) -> anyhow::Result<()> {
        let mut queue = self.queue.clone();
        for lane in PipelineName::default_pipeline().lanes() {
            let keys =
                [lane.stream(), lane.events_counter(), lane.bytes_counter(), lane.tenant_bytes(), lane.suspects()];
            queue.unlink::<_, ()>(&keys).await.context("empty the queue")?;
        }
        // One that is under way holds what is gone by now.
        self.rewritten().await?;
        let () = redis::cmd("BGREWRITEAOF").query_async(&mut queue).await.context("rewrite the append-only file")?;
        self.rewritten().await
    }

    /// Waits until Redis rewrites nothing.
    async fn rewritten(&self) -> anyhow::Result<()> {
        eventually("Redis has rewritten its append-only file", MERGES, async || {
            let mut queue = self.queue.clone();
            let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut queue).await?;
            let idle = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
            ensure!(idle.iter().all(|idle| info.contains(idle)), "it rewrites");
            Ok(())
        })
        .await
    }

    /// Documents that a search finds in these indices, such as `lh-own-a-*`.
    pub(crate) async fn searchable(&self, indices: &str) -> anyhow::Result<u64> {
        let answer = self.search_json(Method::Get, &format!("/{indices}/_count?allow_no_indices=true"), None).await?;
        testkit::stores::every_shard(&answer)?;
        answer["count"].as_u64().context("no count")
    }

    /// Asks OpenSearch.
    pub(crate) async fn search_json(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", opensearch::http::headers::HeaderValue::from_static("application/json"));
        let body = body.map(|body| body.to_string());
        let response = self.opensearch.send(method, path, headers, Option::<&()>::None, body, None).await?;
        let (status, text) = (response.status_code(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// Waits until OpenSearch merges nothing, or long enough.
    pub(crate) async fn quiet(&self) {
        let quiet = eventually("OpenSearch merges nothing", MERGES, async || {
            let answer =
                self.search_json(Method::Get, "/_stats/merge?filter_path=_all.total.merges.current", None).await?;
            ensure!(answer["_all"]["total"]["merges"]["current"] == 0, "{answer}");
            Ok(())
        })
        .await;
        if let Err(error) = quiet {
            eprintln!("  {error:#}");
        }
    }

    /// A number from the tenant's schema.
    pub(crate) async fn number(&self, tenant: &Tenant, sql: &str) -> anyhow::Result<i64> {
        let schema = tenant.desired.name().database_schema();
        let sql = sql.replace("{schema}", &format!("\"{schema}\""));
        Ok(sqlx::query_scalar(&sql).fetch_one(&self.catalog).await?)
    }

    /// Events in the tenant's catalog.
    pub(crate) async fn stored(&self, tenant: &Tenant) -> anyhow::Result<u64> {
        Ok(u64::try_from(self.number(tenant, EVENTS_STORED).await?)?)
    }
}

/// Copies lines into a request, stamped with this moment.
pub(crate) fn copy(texts: &Texts, first: usize, count: usize, random: &Random, request: &mut Vec<u8>) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = dataplane::event::rfc3339(since.as_micros() as i64);
    let nanos = format!("{:019}", since.as_nanos());
    let stamp = Stamp { time: &time, nanos: &nanos, batch: Uuid::now_v7(), random, millis: since.as_millis() as u64 };
    texts.copy(first, count, &stamp, request);
}

/// Headers of a request with logs.
pub(crate) fn headers(key: &str) -> String {
    format!("authorization: Bearer {key}\r\ncontent-type: application/x-ndjson\r\n")
}

/// Where a tenant's own documents are.
pub(crate) fn indices(tenant: &Tenant) -> String {
    format!("{}-*", tenant.registered.index_series)
}

/// A gate at `most` events.
pub(crate) fn gate(most: i64) -> Arc<Gate> {
    Arc::new(Gate { waiting: AtomicI64::new(0), most })
}

/// Another one in each run: ids must not repeat in a store that stays.
fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

fn pid(run: &Path, name: &str) -> anyhow::Result<u32> {
    let path = run.join(format!("{name}.pid"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}: are the stores up?", path.display()))?;
    text.split_whitespace().next().and_then(|pid| pid.parse().ok()).with_context(|| format!("no pid in {text}"))
}
