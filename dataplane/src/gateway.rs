//! The role `gateway`: the one front door. It forwards to the roles behind it, and shows live tails.
//!
//! ```text
//!  /logs, /data/… ─► ingest          /ws/logs ─► key ─► Tails ─► socket
//!  /api/…         ─► search                              ▲ one reader a watched tenant
//! ```

pub mod forward;
mod frames;
mod filter;
mod tail;
mod tail_reader;
mod socket;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use clap::Args;
use crds::tenant::Scope;
use runtime::headers::{Origins, guarded, shared_with};
use runtime::http::{Limits, refusal, serve};
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, CacheSettings, QueueSettings, TlsSettings};
use runtime::stores::Redis;
use runtime::traces::traced;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::status::{self, Status};
use crate::tenancy::{Registry, RegistrySettings};
use filter::KEY_PROTOCOL;
use forward::Upstream;
use tail::TooMany;

pub use tail::Tails;

/// The subprotocol of the live tail, which a browser has to offer beside its key to be answered at all.
const PROTOCOL: &str = "loggerhub";
/// Longest message of a client's: it has nothing to say but pongs and a close frame.
const MAX_CLIENT_MESSAGE: usize = 4096;
/// Time for the sockets to take their close frames.
const CLOSE_SOCKETS: Duration = Duration::from_secs(2);

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    #[arg(long, env = "LOGGERHUB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where health, status and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// URL of the role ingest.
    #[arg(long, env = "LOGGERHUB_INGEST_URL")]
    pub ingest_url: String,
    /// URL of the role search.
    #[arg(long, env = "LOGGERHUB_SEARCH_URL")]
    pub search_url: String,
    /// Origins whose pages may read answers in a browser, such as https://logs.example.com,https://b.example.com; none if
    /// not said.
    #[arg(long, env = "LOGGERHUB_CORS_ORIGINS", default_value = "")]
    pub cors_origins: Origins,
    #[command(flatten)]
    pub registry: RegistrySettings,
    #[command(flatten)]
    pub queue: QueueSettings,
    #[command(flatten)]
    pub cache: CacheSettings,
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// What the routes work with. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    /// Whose tail may be watched.
    pub registry: Registry,
    /// Takes logs.
    pub ingest: Upstream,
    /// Answers queries.
    pub search: Upstream,
    /// The live tails.
    pub tails: Tails,
    /// The open sockets, to wait for at stop.
    pub sockets: TaskTracker,
    /// When the sockets are to end.
    pub stop: CancellationToken,
}

/// Runs until `stop`.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let queue = Redis::queue(&settings.queue, &settings.tls)?;
    let registry = Registry::check_keys(&queue, &settings.registry, stop.clone())?;
    let gateway = Gateway {
        registry: registry.clone(),
        ingest: Upstream::new(&settings.ingest_url).context("LOGGERHUB_INGEST_URL")?,
        search: Upstream::new(&settings.search_url).context("LOGGERHUB_SEARCH_URL")?,
        tails: Tails::new(Redis::cache(&settings.cache, &settings.tls)?),
        sockets: TaskTracker::new(),
        stop: stop.clone(),
    };
    let sockets = gateway.sockets.clone();
    let status = Status::new(registry);
    let metrics = Metrics::default();
    let router = traced(status::measured(shared_with(router(gateway), settings.cors_origins), &metrics));
    let admin = serve(settings.admin.bind().await?, status::routes(status, metrics), Limits::admin(), stop.clone());
    let listener = TcpListener::bind(settings.listen).await.context("listen")?;
    tracing::info!(listen = %settings.listen, "the gateway answers on {}", settings.listen);
    tokio::join!(serve(listener, router, Limits::default(), stop), admin);
    sockets.close();
    if tokio::time::timeout(CLOSE_SOCKETS, sockets.wait()).await.is_err() {
        tracing::warn!(cut = sockets.len(), "cut sockets that didn't take their close frame");
    }
    Ok(())
}

/// The role's routes, without those that every role has.
pub fn router(gateway: Gateway) -> Router {
    let router = Router::new()
        .route("/", get(index))
        .route("/logs", any(to_ingest))
        .route("/data", any(to_ingest))
        .route("/data/", any(to_ingest))
        .route("/data/{*rest}", any(to_ingest))
        .route("/api/{*rest}", any(to_search))
        .route("/ws/logs", get(live_tail))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "not_found", "there is no such route; see GET /") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route answers GET only")
        })
        .with_state(gateway);
    guarded(router)
}

async fn index() -> Response {
    Json(json!({
        "service": "LoggerHub",
        "routes": {
            "POST /logs": "send events: a JSON object, an array, or NDJSON; gzip or zstd",
            "POST /data/": "the same, answered once the events are stored, or after 10 s",
            "GET /api/logs": "list events, newest first: limit, cursor, service, level, from, to, text",
            "GET /api/search?q=": "search events: words, \"phrases\", -not, OR, (…), field:value, prefix*",
            "GET /api/logs/{id}": "one whole event",
            "GET /api/batches/{id}": "how far a batch has come: receipt",
            "GET /api/dead-letters": "lines that could not be events, newest first: limit, cursor, code, pipeline, batch, from, to",
            "GET /api/dead-letters/{id}": "one of them, with its original bytes",
            "POST /api/dead-letters/redrive": "try them again: {\"ids\": […]}, {\"filter\": {…}} or {\"all\": true}",
            "POST /api/dead-letters/{id}/redrive": "try one again",
            "DELETE /api/dead-letters": "purge them: code, pipeline, batch, from, to, or all=true",
            "DELETE /api/dead-letters/{id}": "purge one",
            "WS /ws/logs": "events as they are stored: service, level",
        },
        "authentication": "Authorization: Bearer <key>, or X-API-Key: <key>",
    }))
    .into_response()
}

async fn to_ingest(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    gateway.ingest.forward(request, peer).await
}

async fn to_search(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    gateway.search.forward(request, peer).await
}

async fn live_tail(
    State(gateway): State<Gateway>,
    mut headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let invalid = |error: String| refusal(StatusCode::BAD_REQUEST, "invalid_parameter", error);
    let pairs = match Query::try_from_uri(&uri) {
        Ok(Query(pairs)) => pairs,
        Err(error) => return invalid(error.body_text()),
    };
    let filter = match filter::read(pairs) {
        Ok(filter) => filter,
        Err(error) => return invalid(error.to_string()),
    };
    for key in keys_of_browser(&headers) {
        headers.append("x-api-key", key);
    }
    let caller = match gateway.registry.admit(&headers, Scope::Query) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(error) => return refusal(error.status(), "invalid_upgrade", error.body_text()),
    };
    let tail = match gateway.tails.watch(caller.tenant.name()) {
        Ok(tail) => tail,
        Err(error) => return too_many(error),
    };
    let admitted = move || gateway.registry.admit(&headers, Scope::Query).is_ok();
    let (sockets, stop) = (gateway.sockets, gateway.stop);
    // A frame is gathered before it counts as a message: by itself it may have 16 MiB.
    let upgrade = upgrade.max_frame_size(MAX_CLIENT_MESSAGE).max_message_size(MAX_CLIENT_MESSAGE);
    upgrade.protocols([PROTOCOL]).on_upgrade(move |websocket| async move {
        sockets.track_future(socket::run(websocket, tail, filter, admitted, stop)).await;
    })
}

/// Keys among the subprotocols that a client offers.
fn keys_of_browser(headers: &HeaderMap) -> Vec<HeaderValue> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let keys = offered.flat_map(|value| value.split(',')).filter_map(|name| name.trim().strip_prefix(KEY_PROTOCOL));
    keys.filter_map(|key| HeaderValue::from_str(key).ok()).collect()
}

fn too_many(error: TooMany) -> Response {
    let (status, code) = match error {
        TooMany::OfTenant => (StatusCode::TOO_MANY_REQUESTS, "too_many_tails"),
        TooMany::OfProcess => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
    };
    let mut response = refusal(status, code, error.to_string());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}
