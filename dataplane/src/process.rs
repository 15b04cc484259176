//! The role `process`: from the queue into the catalog and the index, then acknowledged.
//!
//! ```text
//!  Consumer ─► plan: flushes of one tenant ─► stages, map lines ─► catalog ─► live tail ─► index ─► acknowledge
//! ```
//! Nothing is acknowledged before the catalog has it. What fails is tried again for as long as the
//! process lives; what it leaves behind is claimed by another. An index that stays away is not
//! waited for: `maintain` indexes later.

mod flush;
mod liveness;
mod marks;
mod measures;
mod memory;
mod plan;
mod reader;
mod redelivered;
mod set_aside;
mod spool;
mod staged;
mod tail;

pub use liveness::{Life, Liveness};
pub use spool::SpoolSettings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use crds::PipelineName;
use crds::names::PROCESSOR_DATABASE;
use runtime::http::{Limits, serve};
use runtime::metrics::Metrics;
use runtime::settings::{
    AdminSettings, CacheSettings, OpenSearchSettings, PostgresSettings, QueueSettings, TlsSettings,
};
use runtime::stores::{self, Redis};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::fair::workers::Workers;
use crate::queue::{Consumer, ConsumerSettings, Lanes, Suspects};
use crate::status::{self, Status};
use crate::stores::catalog::{Catalog, Provenance};
use crate::stores::index::{Index, IndexHealth, UnusableIndices};
use crate::tenancy::{Registry, TrustSettings};
use flush::Flusher;
use marks::Marks;
use measures::Measures;
use memory::Memory;
use reader::Reader;
use set_aside::SetAside;
use spool::Spool;
use tail::Tail;

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where health, status and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// Where PostgreSQL is.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// Where the queue is.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// Where the live tail goes.
    #[command(flatten)]
    pub cache: CacheSettings,
    /// Where OpenSearch is.
    #[command(flatten)]
    pub opensearch: OpenSearchSettings,
    /// The certificates that stores are trusted by.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// Pipeline whose lanes are processed.
    #[arg(long, env = "LOGGERHUB_PIPELINE", default_value = "default", value_parser = parse_pipeline)]
    pub pipeline: PipelineName,
    /// Generation of the pipeline, kept with everything that it stores.
    #[arg(long, env = "LOGGERHUB_PIPELINE_GENERATION", default_value_t = 0)]
    pub pipeline_generation: i64,
    /// What is done to each line before it is stored: the pipeline's `spec.stages`, as JSON.
    #[arg(long, env = "LOGGERHUB_STAGES", value_parser = parse_stages, default_value = "[]", hide_default_value = true)]
    pub stages: Stages,
    /// Name among the pipeline's processors, the same after a restart: the pod's.
    #[arg(long, env = "LOGGERHUB_CONSUMER")]
    pub consumer: String,
    /// Events that end a flush.
    #[arg(long, aliases = ["batch-size", "batch"], env = "LOGGERHUB_BATCH_MAX_EVENTS", default_value_t = 2000)]
    pub batch_max_events: usize,
    /// Raw bytes that end a flush.
    #[arg(long, env = "LOGGERHUB_BATCH_MAX_BYTES", default_value_t = 4 * 1024 * 1024)]
    pub batch_max_bytes: usize,
    /// Deliveries of an entry after which it is worked on alone, and dead-lettered if that ends the
    /// processor once more.
    #[arg(long, env = "LOGGERHUB_MAX_RETRIES", default_value_t = 3)]
    pub max_retries: u64,
    /// Flushes worked on at once.
    #[arg(long, env = "LOGGERHUB_WORKERS", default_value_t = 2)]
    pub workers: usize,
    /// Seconds without a sign of life after which another processor's entries are claimed.
    #[arg(long, env = "LOGGERHUB_CLAIM_IDLE_SECONDS", default_value_t = 30)]
    pub claim_idle_seconds: u64,
    /// How much may wait for the archive.
    #[command(flatten)]
    pub spool: SpoolSettings,
    /// What the registry is verified with.
    #[command(flatten)]
    pub trust: TrustSettings,
}

fn parse_pipeline(name: &str) -> Result<PipelineName, String> {
    name.parse().map_err(|error: crds::names::InvalidName| error.to_string())
}

/// The stages of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Stages(pub Vec<stages::Stage>);

fn parse_stages(json: &str) -> Result<Stages, String> {
    serde_json::from_str(json).map(Stages).map_err(|error| error.to_string())
}

/// Time at a stop for what is in work to end, of the 30 s that Kubernetes grants.
const DRAIN_TIME: Duration = Duration::from_secs(20);
/// Bytes of raw lines in memory. Mapped, a line takes some five times its length, so this is the
/// greater part of a pod's 512 MiB; one entry of the largest size still fits.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// Connections to the catalog besides one for each worker: for notes of what is indexed, and for what is asked now
/// and then.
const FURTHER_CONNECTIONS: usize = 2;

/// No more connections to the catalog than are used at once: each learns, and keeps in PostgreSQL's memory, what
/// every tenant's tables look like.
fn catalog_settings(settings: &Settings) -> PostgresSettings {
    let used = u32::try_from(settings.workers.max(1) + FURTHER_CONNECTIONS).unwrap_or(u32::MAX);
    PostgresSettings { max_connections: settings.postgres.max_connections.min(used), ..settings.postgres.clone() }
}

/// Runs until `stop`, then finishes what is in work.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = settings.admin.bind().await?;
    run_on(listener, settings, stop).await
}

/// Like [`run`], on a listener that is bound already.
pub async fn run_on(listener: TcpListener, settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let pipeline = stages::Pipeline::compile(&settings.stages.0).context("compile the pipeline's stages")?;
    let redis = Redis::queue(&settings.queue, &settings.tls)?;
    let cache = Redis::cache(&settings.cache, &settings.tls)?;
    let lanes = Lanes::new(&redis)?;
    // Reading the registry and serving status go on while the last flushes are finished.
    let last = CancellationToken::new();
    let registry = Registry::follow(&redis, &settings.trust, last.clone())?;
    let metrics = Metrics::default();
    let measures = Measures::register(&metrics);
    let pool = stores::postgres(&catalog_settings(&settings), &settings.tls, PROCESSOR_DATABASE, &settings.consumer)?;

    let workers = Workers::new(settings.workers);
    let liveness = Liveness::of(&workers);
    let (shown, watched, probed) = (measures.clone(), liveness.clone(), liveness.clone());
    let refresh = move || {
        shown.oldest_step_seconds.set(watched.oldest_step(Instant::now()).as_secs_f64());
    };
    let status = Status::new(registry.clone())
        .with_queue(lanes.clone())
        .alive_while(move || probed.at(Instant::now()) == Life::Healthy);
    let router = status::routes_refreshed(status, metrics, refresh);
    let server = tokio::spawn(serve(listener, router, Limits::admin(), last.clone()));

    let consumer_settings = ConsumerSettings {
        pipeline: settings.pipeline.clone(),
        consumer: settings.consumer.clone(),
        claim_idle: Duration::from_secs(settings.claim_idle_seconds.max(1)),
    };
    let catalog = Catalog::new(pool);
    let spool = Arc::new(Spool::new(settings.spool, measures.clone()));
    let (measured, measuring, until) = (Arc::clone(&spool), catalog.clone(), last.clone());
    tokio::spawn(async move { measured.measure(measuring, until).await });
    let index = Index::new(stores::opensearch(&settings.opensearch, &settings.tls)?);
    // One event at a time means that in the index, too, and in what is noted of it.
    let (index, marks) = match settings.batch_max_events {
        0 | 1 => (index, Marks::alone(catalog.clone())),
        _ => (index.together(), Marks::together(catalog.clone())),
    };
    let flusher = Flusher {
        catalog,
        index,
        marks,
        index_health: IndexHealth::new(flush::PATIENCE),
        unusable: UnusableIndices::default(),
        tail: Tail::new(&cache)?,
        cache: Cache::new(&cache)?,
        suspects: Suspects::new(&redis)?,
        lanes: lanes.clone(),
        stages: Some(Arc::new(pipeline)).filter(|pipeline| !pipeline.is_empty()),
        from: Provenance { pipeline: settings.pipeline.to_string(), generation: settings.pipeline_generation },
        workers,
        abandon: CancellationToken::new(),
        measures: measures.clone(),
    };
    let reader = Reader {
        consumer: Consumer::new(&redis, consumer_settings.clone())?,
        lanes,
        registry,
        flusher: Arc::new(flusher),
        settings: consumer_settings,
        limits: plan::Limits {
            events: settings.batch_max_events.max(1),
            bytes: settings.batch_max_bytes.max(1),
            max_retries: settings.max_retries,
        },
        memory: Memory::new(MEMORY_BYTES),
        spool,
        set_aside: SetAside::new(measures),
        keeping: Arc::new(Semaphore::new(reader::KEPT_AT_ONCE)),
        liveness,
    };
    tracing::info!(consumer = settings.consumer, "processing pipeline {}", settings.pipeline);
    reader.run(stop).await;
    last.cancel();
    server.await.context("serve status")?;
    Ok(())
}
