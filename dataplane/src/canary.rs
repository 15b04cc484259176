//! The role `canary`: sends an event every so often as a tenant of a pipeline would, waits until it
//! is listed, found and shown live, and measures how long that takes.
//!
//! It holds an API key and nothing else: what it sees is what a tenant sees. `/metrics` has the
//! times, `/canary` the last round trip, which the operator reads for the pipeline's condition.

mod metrics;
mod round_trip;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use crds::canary::{Report, RoundTrip, StageReport, failure};
use runtime::http::{Limits, common_routes, serve};
use runtime::metrics::Metrics;
use runtime::settings::AdminSettings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateway::forward::Upstream;
use metrics::CanaryMetrics;
use round_trip::Way;

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where health, metrics and `/canary` are.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// URL of ingest, such as http://loggerhub-default-ingest.
    #[arg(long, env = "LOGGERHUB_INGEST_URL")]
    pub ingest_url: String,
    /// URL of the gateway, such as http://loggerhub-gateway.
    #[arg(long, env = "LOGGERHUB_GATEWAY_URL")]
    pub gateway_url: String,
    /// Folder with the file `apiKey`: a key of the scopes Ingest and Query. Read for each round trip.
    #[arg(long, env = "LOGGERHUB_CANARY_CREDENTIALS")]
    pub credentials: PathBuf,
    /// Seconds between two round trips.
    #[arg(long, env = "LOGGERHUB_CANARY_INTERVAL_SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval_seconds: u64,
    /// Seconds after which a round trip has failed.
    #[arg(long, env = "LOGGERHUB_CANARY_TIMEOUT_SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout_seconds: u64,
}

/// The last round trip, and when it ended.
type Last = Arc<Mutex<Option<(Instant, Vec<StageReport>)>>>;

/// Runs until `stop`.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let way = Way {
        ingest: Upstream::new(&settings.ingest_url).context("LOGGERHUB_INGEST_URL")?,
        gateway: Upstream::new(&settings.gateway_url).context("LOGGERHUB_GATEWAY_URL")?,
        live: settings.gateway_url.trim_end_matches('/').replacen("http://", "ws://", 1) + "/ws/logs",
        credentials: settings.credentials,
        timeout: Duration::from_secs(settings.timeout_seconds),
    };
    let metrics = Metrics::default();
    let measured = CanaryMetrics::register(&metrics, now());
    let last = Last::default();
    let router = common_routes(metrics).merge(routes(Arc::clone(&last)));
    let listener = settings.admin.bind().await?;
    tracing::info!(listen = %settings.admin.admin_listen, "the canary answers on {}", settings.admin.admin_listen);
    let server = tokio::spawn(serve(listener, router, Limits::admin(), stop.clone()));
    let interval = Duration::from_secs(settings.interval_seconds);
    // A round trip that is cut off at stop is neither a success nor a failure.
    stop.run_until_cancelled(go(&way, interval, &measured, &last)).await;
    server.await?;
    Ok(())
}

async fn go(way: &Way, interval: Duration, metrics: &CanaryMetrics, last: &Last) {
    loop {
        let stages = way.go().await;
        metrics.record(&stages, now());
        let ended = (Instant::now(), stages.clone());
        let before = last.lock().unwrap_or_else(PoisonError::into_inner).replace(ended);
        tell(before.is_some_and(|(_, stages)| failure(&stages).is_some()), &stages);
        tokio::time::sleep(interval).await;
    }
}

/// Says what is new: a failure each time, a success after one.
fn tell(failed_before: bool, stages: &[StageReport]) {
    match failure(stages) {
        Some((stage, error)) => {
            let stage = stage.as_str();
            tracing::warn!(stage, error, "the canary's event got stuck at {stage}");
        }
        None if failed_before => tracing::info!("the canary's event goes its whole way again"),
        None => tracing::debug!(?stages, "the canary's event went its whole way"),
    }
}

/// `/ready`, which says nothing of the way: a canary that fails is one to listen to. And `/canary`.
fn routes(last: Last) -> Router {
    let report = move || {
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let last = last.map(|(ended, stages)| RoundTrip { age_seconds: ended.elapsed().as_secs(), stages });
        std::future::ready(Json(Report { last }))
    };
    Router::new().route("/ready", get(|| async { (StatusCode::OK, "ready\n") })).route("/canary", get(report))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
