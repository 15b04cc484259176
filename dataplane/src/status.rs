//! What every role says of itself: `/health`, `/ready`, `/queue/status` and `/metrics`, and how it
//! measures what it answers.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::http::{common_routes, refusal};
use runtime::logging::chain;
use runtime::metrics::Metrics;

use crate::queue::Lanes;
use crate::tenancy::Registry;

/// What the answers are made of. Cheap to clone.
#[derive(Clone)]
pub struct Status {
    /// The tenants: without them no key can be checked, so the role is not ready.
    pub registry: Registry,
    /// The queue.
    pub lanes: Lanes,
}

/// The routes that a role merges into its own.
pub fn routes(status: Status, metrics: Metrics) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .with_state(status.clone())
        .merge(queue_route(status))
        .merge(common_routes(metrics))
}

/// `/queue/status` alone, for a role that has more to say of its own readiness.
pub fn queue_route(status: Status) -> Router {
    Router::new().route("/queue/status", get(queue_status)).with_state(status)
}

async fn ready(State(status): State<Status>) -> Response {
    if status.registry.is_loaded() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        refusal(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "the tenant registry has not been read yet")
    }
}

/// The lanes of every pipeline that a tenant uses, of `default`, and of those that went away.
async fn queue_status(State(status): State<Status>) -> Response {
    let mut pipelines = BTreeSet::from([PipelineName::default_pipeline()]);
    pipelines.extend(status.registry.tenants().iter().map(|tenant| tenant.registered().pipeline.clone()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let lanes = async {
        pipelines.extend(status.lanes.orphaned_pipelines().await?);
        let pipelines: Vec<_> = pipelines.into_iter().collect();
        status.lanes.status(&pipelines, u64::try_from(now).unwrap_or(u64::MAX)).await
    };
    match lanes.await {
        Ok(lanes) => Json(lanes).into_response(),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the queue's status can't be read");
            refusal(StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable", "the queue doesn't answer")
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
