//! What every role says of itself: `/health`, `/ready`, `/queue/status` and `/metrics`, and how it
//! measures what it answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use api::Code;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use crds::PipelineName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::http::refusal;
use runtime::logging::chain;
use runtime::metrics::Metrics;
use serde::Serialize;

use crate::queue::{Durability, Lanes, Producer};
use crate::tenancy::Registry;

/// What the answers are made of. Cheap to clone.
#[derive(Clone)]
pub struct Status {
    /// The tenants: without them no key can be checked, so the role is not ready.
    registry: Registry,
    /// The queue, of a role that may look into it.
    lanes: Option<Lanes>,
    /// The way into the queue, of a role that writes to it.
    producer: Option<Producer>,
    /// Whether the role gets on, of one that can tell.
    alive: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Status {
    /// What a role says that has nothing to do with the queue: it has no `/queue/status`.
    pub fn new(registry: Registry) -> Self {
        Self { registry, lanes: None, producer: None, alive: None }
    }

    /// What a role says that works on the queue.
    pub fn with_queue(self, lanes: Lanes) -> Self {
        Self { lanes: Some(lanes), ..self }
    }

    /// What a role says that knows when only a restart helps: its health then says so.
    pub fn alive_while(self, alive: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { alive: Some(Arc::new(alive)), ..self }
    }

    /// What a role says that writes to the queue: it is ready only while the queue answers, and its
    /// health says what an accepted event is safe from.
    pub fn writing(self, producer: Producer) -> Self {
        Self { producer: Some(producer), ..self }
    }
}

/// The routes that a role merges into its own.
pub fn routes(status: Status, metrics: Metrics) -> Router {
    routes_refreshed(status, metrics, || {})
}

/// Like [`routes`]; `refresh` sets, before metrics are shown, those that say how things are now.
pub fn routes_refreshed(
    status: Status,
    metrics: Metrics,
    refresh: impl Fn() + Clone + Send + Sync + 'static,
) -> Router {
    let (registry, refused) = (status.registry.clone(), Gauge::<i64>::default());
    metrics.registry().register(
        "loggerhub_registry_refused_entries",
        "Entries of the tenant registry that are not believed: not the operator's, or older than what was believed before",
        refused.clone(),
    );
    let show_metrics = move || {
        refresh();
        refused.set(i64::try_from(registry.refused()).unwrap_or(i64::MAX));
        std::future::ready(metrics.response())
    };
    let queue = match status.lanes.clone() {
        Some(lanes) => {
            Router::new().route("/queue/status", get(queue_status)).with_state((status.registry.clone(), lanes))
        }
        None => Router::new(),
    };
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(status)
        .merge(queue)
}

#[derive(Serialize)]
struct HealthBody {
    status: &'static str,
    #[serde(flatten)]
    queue: Option<QueueHealth>,
}

/// What a 202 means right now.
#[derive(Serialize)]
struct QueueHealth {
    durability: Durability,
    /// Replicas of the queue's Redis that must have an event before it is answered.
    replicas_required: u32,
    /// Replicas that are connected.
    replicas_connected: u32,
}

/// The process runs, and its work gets on.
async fn health(State(status): State<Status>) -> (StatusCode, Json<HealthBody>) {
    let queue = status.producer.as_ref().map(|producer| {
        let health = producer.health();
        QueueHealth {
            durability: health.durability,
            replicas_required: producer.wait_replicas(),
            replicas_connected: health.replicas,
        }
    });
    let alive = status.alive.is_none_or(|alive| alive());
    let code = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(HealthBody { status: if alive { "ok" } else { "a step of work does not end" }, queue }))
}

#[derive(Serialize)]
struct ReadyBody {
    registry_loaded: bool,
    registry_age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_answering: Option<bool>,
}

/// Ready to serve: keys are known, and the queue answers where the role writes to it.
async fn ready(State(status): State<Status>) -> (StatusCode, Json<ReadyBody>) {
    let body = ReadyBody {
        registry_loaded: status.registry.is_loaded(),
        registry_age_seconds: status.registry.age().map(|age| age.as_secs()),
        queue_answering: status.producer.as_ref().map(|producer| producer.health().answering),
    };
    let ready = body.registry_loaded && body.queue_answering != Some(false);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

/// The lanes of every pipeline that a tenant uses, of `default`, and of those that went away.
async fn queue_status(State((registry, lanes)): State<(Registry, Lanes)>) -> Response {
    let mut pipelines = BTreeSet::from([PipelineName::default_pipeline()]);
    pipelines.extend(registry.tenants().iter().map(|tenant| tenant.registered().pipeline.clone()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let status = async {
        pipelines.extend(lanes.orphaned_pipelines().await?);
        lanes.status_with_held(pipelines, u64::try_from(now).unwrap_or(u64::MAX)).await
    };
    match status.await {
        Ok(lanes) => Json(lanes).into_response(),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the queue's status can't be read");
            refusal(Code::QueueUnavailable, "the queue doesn't answer")
        }
    }
}

/// What was asked and answered. Both sets are closed: our routes, and HTTP's codes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: String,
    status: u16,
}

#[derive(Clone)]
struct Answers {
    count: Family<Answer, Counter>,
    seconds: Histogram,
}

/// The router, counting its answers by route and status, and the time to their beginning.
pub fn measured(router: Router, metrics: &Metrics) -> Router {
    // From 1 ms to 32 s.
    let answers = Answers { count: Family::default(), seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)) };
    let mut registry = metrics.registry();
    registry.register("loggerhub_http_answers", "Requests answered", answers.count.clone());
    registry.register("loggerhub_http_answer_seconds", "Time until an answer begins", answers.seconds.clone());
    drop(registry);
    router.layer(from_fn_with_state(answers, measure))
}

async fn measure(State(answers): State<Answers>, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    answers.seconds.observe(begun.elapsed().as_secs_f64());
    answers.count.get_or_create(&Answer { route, status: response.status().as_u16() }).inc();
    response
}
