//! The role `gateway`: the one front door. It forwards to the roles behind it, and shows live tails.
//!
//! ```text
//!  /logs, /data/… ─► ingest     /ws/logs, /api/tail, /loki/…/tail ─► key ─► Tails ─► socket, events
//!  /api/…, /loki/… ─► search                                                ▲ one reader a watched tenant
//! ```

pub mod forward;
mod frames;
mod filter;
mod tail;
mod tail_reader;
mod recent;
mod history;
mod loki;
mod socket;
mod events;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use api::routes;
use api::tail::{KEY_PROTOCOL, PROTOCOL};
use api::{Code, Refusal};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use clap::Args;
use crds::tenant::Scope;
use futures::StreamExt;
use query::params::InvalidParams;
use query::params::tail::Tail;
use runtime::headers::{Origins, guarded, shared_with};
use runtime::http::{Limits, after, refusal, refusal_with, serve};
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, CacheSettings, QueueSettings, TlsSettings};
use runtime::stores::Redis;
use runtime::traces::traced;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::status::{self, Status};
use crate::tenancy::{Caller, Registry, RegistrySettings};
use forward::Upstream;
use history::{Asking, History};
use tail::{Subscription, TooMany};

pub use tail::Tails;

/// Longest message of a client's: it has nothing to say but pongs and a close frame.
const MAX_CLIENT_MESSAGE: usize = 4096;
/// How a client of server-sent events says what it saw last.
const LAST_EVENT_ID: &str = "last-event-id";
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
        .route(routes::INDEX, get(index))
        .route(routes::OPENAPI, get(document))
        .route(routes::LOGS, any(to_ingest))
        .route(routes::DATA_BARE, any(to_ingest))
        .route(routes::DATA, any(to_ingest))
        .route("/data/{*rest}", any(to_ingest))
        .route(routes::TAIL_EVENTS, get(tail_events))
        .route("/api/{*rest}", any(to_search))
        .route("/loki/{*rest}", any(loki::to_search))
        .route("/loki/api/v1/tail", get(loki::tail))
        .route(routes::TAIL, get(live_tail))
        .fallback(|| async { refusal(Code::NotFound, "there is no such route; see GET /") })
        .method_not_allowed_fallback(|| async { refusal(Code::MethodNotAllowed, "this route answers GET only") })
        .with_state(gateway);
    guarded(router)
}

async fn index() -> Response {
    let routes: Map<String, Value> =
        api::ROUTES.iter().map(|route| (route.to_string(), route.summary.into())).collect();
    Json(json!({
        "service": "LoggerHub",
        "routes": routes,
        "document": routes::OPENAPI,
        "loki": "/loki/api/v1: the API of Loki, for Grafana and logcli; see docs/grafana.md",
        "authentication": "Authorization: Bearer <key>, X-API-Key: <key>, or Basic with the key as the password",
    }))
    .into_response()
}

async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], api::OPENAPI).into_response()
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
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let asked = match asked(&uri) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
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
        Err(error) => return refusal_with(error.status(), Code::InvalidUpgrade, error.body_text()),
    };
    let (tail, history) = match watch(&gateway, &caller, &headers, peer, &asked).await {
        Ok(watched) => watched,
        Err(refused) => return refused,
    };
    let admitted = move || gateway.registry.admit(&headers, Scope::Query).is_ok();
    let (sockets, stop) = (gateway.sockets, gateway.stop);
    // A frame is gathered before it counts as a message: by itself it may have 16 MiB.
    let upgrade = upgrade.max_frame_size(MAX_CLIENT_MESSAGE).max_message_size(MAX_CLIENT_MESSAGE);
    upgrade.protocols([PROTOCOL]).on_upgrade(move |websocket| async move {
        let run = socket::run(websocket.split(), tail, asked.tail, history, admitted, stop);
        sockets.track_future(run).await;
    })
}

async fn tail_events(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let caller = match gateway.registry.admit(&headers, Scope::Query) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let mut asked = match asked(&uri) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    // A client that comes back says it so, and its URL is that of its first request.
    if let Some(last) = headers.get(LAST_EVENT_ID) {
        match last.to_str().ok().and_then(|last| last.trim().parse().ok()) {
            Some(last) => asked.tail.after = Some(last),
            None => return refusal(Code::InvalidParameter, "Last-Event-ID: is the id of an event"),
        }
    }
    let (tail, history) = match watch(&gateway, &caller, &headers, peer, &asked).await {
        Ok(watched) => watched,
        Err(refused) => return refused,
    };
    let (response, out, client) = events::open();
    let admitted = move || gateway.registry.admit(&headers, Scope::Query).is_ok();
    let (sockets, stop) = (gateway.sockets, gateway.stop);
    let run = socket::run((out, client), tail, asked.tail, history, admitted, stop);
    tokio::spawn(sockets.track_future(run));
    response
}

/// What is asked of a tail, and as it was written.
struct Asked {
    tail: Tail,
    pairs: Vec<(String, String)>,
}

fn asked(uri: &Uri) -> Result<Asked, Box<Response>> {
    let invalid = |error: String| Box::new(refusal(Code::InvalidParameter, error));
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| invalid(error.body_text()))?;
    match filter::read(&pairs) {
        Ok(tail) => Ok(Asked { tail, pairs }),
        Err(InvalidParams::Query(error)) => {
            let refusal =
                Refusal::new(Code::InvalidQuery, error.to_string()).at(error.at.clone(), error.repairs.clone());
            Err(Box::new((StatusCode::BAD_REQUEST, Json(refusal)).into_response()))
        }
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// A place at a tenant's tail, and what was stored before it.
async fn watch(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    peer: SocketAddr,
    asked: &Asked,
) -> Result<(Subscription, Option<History>), Response> {
    let mut tail = gateway.tails.watch(caller.tenant.name()).map_err(too_many)?;
    let Some(after) = asked.tail.after else { return Ok((tail, None)) };
    let (search, headers, pairs) = (gateway.search.clone(), headers.clone(), asked.pairs.clone());
    let history = history::begin(Asking { search, headers, peer, pairs }, after, &mut tail).await?;
    Ok((tail, Some(history)))
}

/// Keys among the subprotocols that a client offers.
fn keys_of_browser(headers: &HeaderMap) -> Vec<HeaderValue> {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let keys = offered.flat_map(|value| value.split(',')).filter_map(|name| name.trim().strip_prefix(KEY_PROTOCOL));
    keys.filter_map(|key| HeaderValue::from_str(key).ok()).collect()
}

fn too_many(error: TooMany) -> Response {
    let code = match error {
        TooMany::OfTenant => Code::TooManyTails,
        TooMany::OfProcess => Code::Overloaded,
    };
    after(refusal(code, error.to_string()), 5)
}
