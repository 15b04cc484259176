//! The role `ingest`: takes logs by several protocols and answers once the queue has them on disk.
//!
//! ```text
//!  protocols ─► accept: budget, unpack, events (structure, time), key, quota, queue ─► protocols: 202 + receipt
//! ```
//! It needs the queue's Redis only. The cache's, if it is there, lets it tell a reused
//! idempotency key at once, and `POST /data/` wait until its batch is stored. Nothing of a log line is interpreted here, and none shows in our own logs.

pub mod accept;
mod protocols;
mod events;
mod parse;
mod inspect;
mod lexical;
mod unpack;
mod quota;
mod keys;
mod limits;
mod refusal;
mod metrics;
#[cfg(test)]
mod tests;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use api::Code;
use axum::Router;
use axum::routing::get;
use clap::Args;
use runtime::http::{Limits, refusal, serve};
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, QueueSettings, TlsSettings};
use runtime::stores::Redis;
use runtime::traces::traced;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::cache::OptionalCacheSettings;
use crate::queue::{Commit, Lanes, Producer, ProducerSettings};
use crate::status::{self, Status};
use crate::tenancy::{Registry, RegistrySettings};

use accept::Intake;
use protocols::http::Http;
use protocols::native;

/// Longest wait for the last round after the drain; both fit into a pod's 30 s.
const LAST_ROUND: Duration = Duration::from_secs(6);

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    #[arg(long, env = "LOGGERHUB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where health, status and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// Bytes that unanswered requests may hold; more are refused. Leave as much again of the
    /// pod's memory for compression and connections.
    #[arg(long, env = "LOGGERHUB_MAX_IN_FLIGHT_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub max_in_flight_bytes: usize,
    /// 1: each request is written to the queue by itself, whatever else waits. For the benchmark,
    /// which compares grouping with one write per event; 0, the default, groups.
    #[arg(long, env = "LOGGERHUB_INGEST_BATCH", hide = true, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub batch: u8,
    /// Seconds for a whole body to arrive: 20 MiB at 700 KiB/s. Less than the 60 s that the gateway waits for our answer.
    #[arg(long, env = "LOGGERHUB_BODY_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub body_timeout_seconds: u64,
    /// Connections open at once, of which one peer may have half of what the others leave; more are closed.
    #[arg(long, env = "LOGGERHUB_MAX_CONNECTIONS", default_value_t = Limits::default().connections)]
    pub max_connections: usize,
    /// What a 202 promises, and how much of the queue a tenant may take.
    #[command(flatten)]
    pub producer: ProducerSettings,
    /// The queue.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// The cache; without it, what it is good for is left out.
    #[command(flatten)]
    pub cache: OptionalCacheSettings,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistrySettings,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsSettings,
}

impl Settings {
    fn commit(&self) -> Commit {
        if self.batch == 1 { Commit::Alone } else { Commit::Grouped }
    }
}

/// Runs until `stop`.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen).await?;
    let admin = settings.admin.bind().await?;
    run_on(listener, admin, settings, stop).await
}

/// Runs on listeners that are already bound: for logs, and for health, status and metrics. Ends when the requests
/// in flight are answered.
pub async fn run_on(
    listener: TcpListener,
    admin: TcpListener,
    settings: Settings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let redis = Redis::queue(&settings.queue, &settings.tls)?;
    // The registry and the queue outlive the listener: what is in flight still needs them.
    let drained = CancellationToken::new();
    let registry = Registry::check_keys(&redis, &settings.registry, drained.clone())?;
    let commit = settings.commit();
    let (producer, mut committing) = Producer::start_with(&redis, settings.producer, commit, drained.clone())?;
    let cache = settings.cache.connect(&settings.tls)?;
    let metrics = Metrics::default();
    let most = settings.max_in_flight_bytes;
    let intake = Intake::start(&redis, registry.clone(), producer.clone(), cache, most, drained.clone())?;
    intake.register(&metrics);
    let observed = intake.clone();
    let status = Status::new(registry).with_queue(Lanes::new(&redis)?).writing(producer);
    let about = status::routes_refreshed(status, metrics, move || observed.refresh_metrics());
    let about = serve(admin, about, Limits::admin(), stop.clone());
    let body_timeout = Duration::from_secs(settings.body_timeout_seconds);
    let router = traced(router(Http { intake, body_timeout }));
    let limits = Limits { connections: settings.max_connections.max(1), ..Limits::default() };
    tracing::info!(listen = %listener.local_addr()?, "ingest accepts logs");
    tokio::select! {
        _cut = async { tokio::join!(serve(listener, router, limits, stop), about) } => {}
        ended = &mut committing => bail!("the task that writes to the queue ended: {ended:?}"),
    }
    // The router is gone, and with it every producer: the committer ends after its last round,
    // unless a connection that was cut off still holds one.
    if tokio::time::timeout(LAST_ROUND, committing).await.is_err() {
        tracing::warn!("stopped before the last batches were answered");
    }
    drained.cancel();
    Ok(())
}

fn router(http: Http) -> Router {
    Router::new()
        .route("/", get(index))
        .merge(native::routes())
        .fallback(|| async { refusal(Code::NotFound, "no such path; send logs to POST /logs") })
        .method_not_allowed_fallback(|| async { refusal(Code::MethodNotAllowed, "send logs with POST") })
        .with_state(http)
        .layer(CatchPanicLayer::custom(|_| refusal(Code::Internal, "a defect of LoggerHub; it was logged")))
}

/// What this is, for people, and for a load balancer that asks whether somebody answers.
async fn index() -> &'static str {
    "LoggerHub ingest: send logs to POST /logs\n"
}
