//! `loggerhub-operator run`: what starts, who leads, and how it stops.
//!
//! Nothing here needs a store to be up: clients are lazy, and what waits says so in readiness and
//! in conditions.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use crds::{LogPipeline, Tenant};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use runtime::http::{Limits, common_routes, serve};
use runtime::logging::LogSettings;
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, OpenSearchSettings, PostgresSettings, QueueSettings, S3Settings, TlsSettings};
use runtime::stores::{self, Redis};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::election::{Election, Leadership};
use crate::health::{self, StoresUp};
use crate::leader::{self, Work};
use crate::metrics::OperatorMetrics;
use crate::plans::{self, Plans};
use crate::platform;
use crate::provision::{Claim, Failure, ObjectStore, Postgres, Registry, Search, Stores};
use crate::settings::Settings;

/// Time between two looks for the CRDs.
const CRD_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two looks whose the stores are.
const BOUND_INTERVAL: Duration = Duration::from_secs(15);
/// Annotation of the lease: what the installation was bound to when PostgreSQL answered last.
const BOUND_ANNOTATION: &str = "loggerhub.io/bound";
/// Time for reconciliations in flight to end; below the 30 s that Kubernetes grants.
const DRAIN: Duration = Duration::from_secs(20);

/// Settings of `run`.
#[derive(Args)]
pub struct RunSettings {
    /// YAML file that describes the installation.
    #[arg(long, env = "LOGGERHUB_OPERATOR_CONFIG")]
    pub config: PathBuf,
    /// Where health and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
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
    let listener = settings.admin.bind().await?;
    let (publish, plans) = watch::channel(installation.plans.clone());
    tokio::spawn(plans::follow::follow(settings.config, publish, shutdown.clone()));
    Ok(operate(installation, plans, stores, client, listener, shutdown).await?)
}

fn connect(settings: &RunSettings, installation: &Settings) -> anyhow::Result<Stores> {
    let tls = &settings.tls;
    let postgres = stores::postgres_options(&settings.postgres, tls, "postgres", "loggerhub-operator")?;
    let opensearch = stores::opensearch(&settings.opensearch, tls)?;
    Ok(Stores {
        postgres: Postgres::new(postgres).with_pools_of(installation.opensearch.pool_tenants),
        object_store: ObjectStore::new(stores::s3(&settings.s3, tls)?),
        search: Search::new(opensearch, &installation.installation, installation.opensearch.shape()),
        registry: Registry::new(Redis::queue(&settings.queue, tls)?.connection()?),
    })
}

/// Why an operator ended that nobody told to stop. A new process begins anew, as a candidate.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another operator may lead by now.
    #[error("the lease was lost: all work was stopped at once")]
    LeaseLost,
    /// Another cluster, or another installation, has taken these stores over.
    #[error("these stores are another's by now: all work was stopped at once")]
    Displaced,
    /// A part of the operator ended by a bug of ours; half an operator is worse than the next one.
    #[error("a part of the operator ended")]
    Broken(#[source] tokio::task::JoinError),
}

/// Runs the operator over what it is given until `shutdown`; tests run it in their own process.
pub async fn operate(
    settings: Settings,
    plans: watch::Receiver<Plans>,
    stores: Stores,
    client: Client,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Ended> {
    let metrics = Metrics::default();
    let operator_metrics = OperatorMetrics::register(&metrics);
    let stands = Arc::new(AtomicU8::new(Standing::WaitsForCrds as u8));
    let router = common_routes(metrics).merge(readiness(Arc::clone(&stands)));
    // However this ends, what it has begun ends with it.
    let mut beside = JoinSet::new();
    let server = serve(listener, router, Limits::admin(), shutdown.clone());
    beside.spawn(async move {
        let cut = server.await;
        tracing::debug!(cut, "the HTTP server has stopped");
    });
    let (answers, health) = watch::channel(StoresUp::default());
    beside.spawn(health::run(stores.clone(), operator_metrics.clone(), answers, shutdown.clone()));

    if !crds_exist(&client, &shutdown).await {
        return Ok(());
    }
    stands.store(Standing::StandsBy as u8, Ordering::Relaxed);
    let lease = format!("{}-operator", settings.release);
    let election = Election::new(client.clone(), &settings.namespace, lease.clone());
    operator_metrics.leads(&lease, false);
    tracing::info!(identity = election.identity(), "stands by until it leads");
    let leadership = tokio::select! {
        leadership = election.win() => leadership,
        () = shutdown.cancelled() => return Ok(()),
    };
    stands.store(Standing::Leads as u8, Ordering::Relaxed);
    operator_metrics.leads(&lease, true);
    tracing::info!(identity = election.identity(), "holds the lease");
    let mut leadership = leadership;
    let home = tokio::select! {
        home = bound(&mut leadership, &client, &settings, &stores.postgres, &operator_metrics, &stands) => home,
        () = shutdown.cancelled() => None,
    };
    let displaced = CancellationToken::new();
    let tasks = match home {
        Some(claim) => {
            stands.store(Standing::Leads as u8, Ordering::Relaxed);
            tracing::info!(identity = election.identity(), "leads");
            let (metrics, displaced) = (operator_metrics.clone(), displaced.clone());
            leader::begin(Work { client, settings, plans, stores, health, metrics, claim, displaced }, &shutdown)
        }
        None => JoinSet::new(),
    };
    let ended = match shutdown.is_cancelled() || !tasks.is_empty() {
        true => lead(leadership, tasks, &displaced, &shutdown).await,
        false => Err(Ended::LeaseLost),
    };
    operator_metrics.leads(&lease, false);
    if ended.is_ok() {
        // They were told to stop, too.
        while beside.join_next().await.is_some() {}
    }
    ended
}

/// Lets the tasks work for as long as the lease is ours, and gives it back when they have ended.
async fn lead(
    mut leadership: Leadership,
    mut tasks: JoinSet<()>,
    displaced: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<(), Ended> {
    let done = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(Ended::Broken)?;
        }
        Ok(())
    };
    let stopped = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
        tracing::warn!("stopped before all reconciliations had ended; the next leader takes them up again");
        Ok(())
    };
    let ended = tokio::select! {
        () = leadership.lost() => Err(Ended::LeaseLost),
        () = displaced.cancelled() => Err(Ended::Displaced),
        ended = done => ended,
        ended = stopped => ended,
    };
    // Whatever is still going on: nothing of ours happens once somebody else may lead.
    tasks.shutdown().await;
    if matches!(ended, Err(Ended::Displaced)) {
        forget_bound(&leadership).await;
    }
    if !matches!(ended, Err(Ended::LeaseLost)) {
        leadership.resign().await;
    }
    ended
}

/// Waits until the stores are ours to work on: bound to this cluster, and no other installation's. `None` once the
/// lease is lost. Where PostgreSQL is away, what was noted on the lease when it answered last is believed.
async fn bound(
    leadership: &mut Leadership,
    client: &Client,
    settings: &Settings,
    postgres: &Postgres,
    metrics: &OperatorMetrics,
    stands: &AtomicU8,
) -> Option<Claim> {
    let reporter = Reporter { controller: "loggerhub-operator".to_owned(), instance: Some(settings.release.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);
    loop {
        match platform::claim(client, settings, postgres).await {
            Ok(claim) => {
                if let Err(error) = leadership.note(BOUND_ANNOTATION, &noted(&claim)).await {
                    tracing::warn!(
                        "note on the lease that the stores are ours: {}",
                        crate::kubernetes::explain(&error)
                    );
                }
                metrics.stands_aside(false);
                return Some(claim);
            }
            Err(platform::Error::Databases(error)) if error.failure() == Failure::Conflict => {
                stands.store(Standing::StandsAside as u8, Ordering::Relaxed);
                metrics.stands_aside(true);
                tracing::error!("{error}");
                forget_bound(leadership).await;
                say(&recorder, settings, &error.to_string()).await;
            }
            Err(error) => {
                tracing::warn!("ask whose these stores are: {}", runtime::logging::chain(&error));
                if let Some(claim) = claim_of_before(leadership, client, settings, postgres).await {
                    return Some(claim);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(BOUND_INTERVAL) => {}
            () = leadership.lost() => return None,
        }
    }
}

/// The claim that stood when PostgreSQL answered last, if it is still the same.
async fn claim_of_before(
    leadership: &Leadership,
    client: &Client,
    settings: &Settings,
    postgres: &Postgres,
) -> Option<Claim> {
    let claim = platform::wished(client, settings).await.ok()?;
    let before = leadership.noted(BOUND_ANNOTATION).await.ok()??;
    (before == noted(&claim)).then(|| postgres.believe(&claim))?;
    Some(claim)
}

/// Notes that the stores are another's: or what stood before would be believed when PostgreSQL is away the next time.
async fn forget_bound(leadership: &Leadership) {
    if let Err(error) = leadership.note(BOUND_ANNOTATION, "").await {
        tracing::warn!("note on the lease whose the stores are: {}", crate::kubernetes::explain(&error));
    }
}

fn noted(claim: &Claim) -> String {
    format!("{} in {}", claim.installation, claim.cluster)
}

/// An Event about the operator's Deployment: the Tenants are not ours to say it of.
async fn say(recorder: &Recorder, settings: &Settings, message: &str) {
    let event = Event {
        type_: EventType::Warning,
        reason: "StandsAside".to_owned(),
        note: Some(message.chars().take(1000).collect()),
        action: "Claim".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &crate::kubernetes::operator_itself(settings)).await {
        tracing::warn!("publish an Event: {}", crate::kubernetes::explain(&error));
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

/// What an operator does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    WaitsForCrds,
    StandsBy,
    Leads,
    StandsAside,
}

/// `/ready`: whether the CRDs are there and this operator leads or would. One that stands by is as
/// ready as the one that leads: it takes over when its turn comes. Stores that are down are
/// conditions of Tenants, not of the operator.
fn readiness(stands: Arc<AtomicU8>) -> Router {
    let answer = move || {
        let stands = stands.load(Ordering::Relaxed);
        std::future::ready(if stands == Standing::Leads as u8 {
            (StatusCode::OK, "ready: leads\n")
        } else if stands == Standing::StandsBy as u8 {
            (StatusCode::OK, "ready: stands by\n")
        } else if stands == Standing::StandsAside as u8 {
            (StatusCode::SERVICE_UNAVAILABLE, "stands aside: these stores are another's; see the log or the Events\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "waits for the CRDs tenants and logpipelines of loggerhub.io\n")
        })
    };
    Router::new().route("/ready", get(answer))
}
