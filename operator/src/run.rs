//! `loggerhub-operator run`: what starts, and how it stops.
//!
//! Nothing here needs a store to be up: clients are lazy, and what waits says so in readiness and
//! in conditions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use crds::{LogPipeline, Tenant};
use futures::Stream;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use runtime::http::{Limits, common_routes, serve};
use runtime::logging::LogSettings;
use runtime::metrics::Metrics;
use runtime::settings::{OpenSearchSettings, PostgresSettings, QueueSettings, S3Settings, TlsSettings};
use runtime::stores::{self, Redis};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;
use crate::health::StoresUp;
use crate::metrics::OperatorMetrics;
use crate::plans::{self, Plans};
use crate::provision::{ObjectStore, Postgres, Registry, Search, Stores};
use crate::scaler::Pipelines;
use crate::settings::Settings;
use crate::{default_pipeline, health, pipeline, platform, scaler, sweep, tenant};

/// Time between two looks for the CRDs.
const CRD_INTERVAL: Duration = Duration::from_secs(2);
/// Time for reconciliations in flight to end; below the 30 s that Kubernetes grants.
const DRAIN: Duration = Duration::from_secs(20);

/// Settings of `run`.
#[derive(Args)]
pub struct RunSettings {
    /// YAML file that describes the installation.
    #[arg(long, env = "LOGGERHUB_OPERATOR_CONFIG")]
    pub config: PathBuf,
    /// Address of /health, /ready and /metrics.
    #[arg(long, env = "LOGGERHUB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// PostgreSQL, as its administrator.
    #[command(flatten)]
    pub postgres: PostgresSettings,
    /// The queue's Redis.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// The object store.
    #[command(flatten)]
    pub s3: S3Settings,
    /// OpenSearch.
    #[command(flatten)]
    pub opensearch: OpenSearchSettings,
    /// Trust towards the stores.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// Logs.
    #[command(flatten)]
    pub log: LogSettings,
}

/// Runs until `shutdown`.
pub async fn run(settings: RunSettings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let installation = Settings::read(&settings.config)?;
    let stores = connect(&settings, &installation)?;
    let client = Client::try_default().await.context("find the Kubernetes API")?;
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("listen on {}", settings.listen))?;
    let (publish, plans) = watch::channel(installation.plans.clone());
    tokio::spawn(plans::follow(settings.config, publish, shutdown.clone()));
    operate(installation, plans, stores, client, listener, shutdown).await;
    Ok(())
}

fn connect(settings: &RunSettings, installation: &Settings) -> anyhow::Result<Stores> {
    let tls = &settings.tls;
    let postgres = stores::postgres_options(&settings.postgres, tls, "postgres", "loggerhub-operator")?;
    let opensearch = stores::opensearch(&settings.opensearch, tls)?;
    Ok(Stores {
        postgres: Postgres::new(postgres),
        object_store: ObjectStore::new(stores::s3(&settings.s3, tls)?),
        search: Search::new(opensearch, &installation.installation, installation.opensearch.replicas),
        registry: Registry::new(Redis::queue(&settings.queue, tls)?.connection()?),
    })
}

/// Runs the operator over what it is given until `shutdown`; tests run it in their own process.
pub async fn operate(
    settings: Settings,
    plans: watch::Receiver<Plans>,
    stores: Stores,
    client: Client,
    listener: TcpListener,
    shutdown: CancellationToken,
) {
    let metrics = Metrics::default();
    let operator_metrics = OperatorMetrics::register(&metrics);
    let ready = Arc::new(AtomicBool::new(false));
    let router = common_routes(metrics).merge(readiness(Arc::clone(&ready)));
    let tasks = TaskTracker::new();
    let server = serve(listener, router, Limits { connections: 64, ..Limits::default() }, shutdown.clone());
    tasks.spawn(async move {
        let cut = server.await;
        tracing::debug!(cut, "the HTTP server has stopped");
    });

    let (answers, health) = watch::channel(StoresUp::default());
    tasks.spawn(health::run(stores.clone(), operator_metrics.clone(), answers, shutdown.clone()));
    let (pepper_sender, peppers) = watch::channel(Vec::new());
    tasks.spawn(platform::run(
        client.clone(),
        settings.clone(),
        stores.postgres.clone(),
        pepper_sender,
        health.clone(),
        shutdown.clone(),
    ));
    if !crds_exist(&client, &shutdown).await {
        return;
    }
    ready.store(true, Ordering::Relaxed);
    let reporter = Reporter { controller: "loggerhub-operator".to_owned(), instance: Some(settings.release.clone()) };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        settings,
        plans: plans.clone(),
        stores,
        health: health.clone(),
        peppers: peppers.clone(),
        metrics: operator_metrics,
        tenant_backoff: Default::default(),
        pipeline_backoff: Default::default(),
        refused_since: Default::default(),
    });
    let pipelines = Pipelines::default();
    let wake = |ctx: &Arc<Context>| wakes(Arc::clone(ctx), health.clone(), peppers.clone(), plans.clone());
    tasks.spawn(plans::run(Arc::clone(&ctx), plans.clone(), shutdown.clone()));
    tasks.spawn(tenant::run(Arc::clone(&ctx), wake(&ctx), shutdown.clone()));
    tasks.spawn(pipeline::run(Arc::clone(&ctx), pipelines.clone(), wake(&ctx), shutdown.clone()));
    tasks.spawn(default_pipeline::run(ctx.client.clone(), ctx.settings.clone(), shutdown.clone()));
    tasks.spawn(scaler::run(Arc::clone(&ctx), pipelines, shutdown.clone()));
    tasks.spawn(sweep::run(ctx, shutdown.clone()));
    tracing::info!("the operator runs");
    shutdown.cancelled().await;
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("stopped before all reconciliations had ended; they are taken up again at the next start");
    }
}

/// One item each time that what Tenants wait for is there: a store answers again, peppers are known,
/// the plans are others.
fn wakes(
    ctx: Arc<Context>,
    health: watch::Receiver<StoresUp>,
    peppers: watch::Receiver<Vec<crds::apikey::Pepper>>,
    plans: watch::Receiver<Plans>,
) -> impl Stream<Item = ()> + Send + 'static {
    let before = StoresUp::default();
    futures::stream::unfold((ctx, health, peppers, plans, before), |waits| async move {
        let (ctx, mut health, mut peppers, mut plans, mut before) = waits;
        loop {
            tokio::select! {
                changed = health.changed() => {
                    changed.ok()?;
                    let now = *health.borrow_and_update();
                    let recovered = now.recovered_since(before);
                    before = now;
                    if !recovered {
                        continue;
                    }
                }
                changed = peppers.changed() => changed.ok()?,
                () = next_plans(&mut plans) => {}
            }
            ctx.tenant_backoff.clear();
            ctx.pipeline_backoff.clear();
            return Some(((), (ctx, health, peppers, plans, before)));
        }
    })
}

/// Waits for other plans; for ever if nobody looks for them.
async fn next_plans(plans: &mut watch::Receiver<Plans>) {
    if plans.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Waits until both CRDs are served with the fields that we write. False if told to stop first.
async fn crds_exist(client: &Client, shutdown: &CancellationToken) -> bool {
    let tenants = Api::<Tenant>::all(client.clone());
    let pipelines = Api::<LogPipeline>::all(client.clone());
    let one = kube::api::ListParams::default().limit(1);
    loop {
        let (tenant, pipeline) = tokio::join!(tenants.list_metadata(&one), pipelines.list_metadata(&one));
        match tenant.map(drop).and(pipeline.map(drop)) {
            Ok(()) => return true,
            Err(error) => {
                tracing::warn!("wait for the CRDs: {}", crate::kubernetes::explain(&error));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(CRD_INTERVAL) => {}
            () = shutdown.cancelled() => return false,
        }
    }
}

/// `/ready`: whether the CRDs are there and the controllers run. Stores that are down are conditions
/// of Tenants, not of the operator.
fn readiness(ready: Arc<AtomicBool>) -> Router {
    let answer = move || {
        let ready = ready.load(Ordering::Relaxed);
        std::future::ready(match ready {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "waits for the CRDs tenants and logpipelines of loggerhub.io\n"),
        })
    };
    Router::new().route("/ready", get(answer))
}
