//! An HTTP server that can't be held up: bounded connections and header time, and a drain at stop.
//!
//! axum's own `serve` has no timers and no bound on connections, so the accept loop is ours, over
//! hyper-util. Bodies are bounded by each route, which knows how large one may be.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::metrics::Metrics;

/// How long a stopping server still answers on connections that are open: each answer says that it is
/// the last, so that a client that sends once a second or more loses none to a connection's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a connection's buffer at most, which is the bound of a request's head too. A large body passes through
/// it in pieces; several times as much, which is hyper's own bound, makes nothing faster.
const READ_BUFFER: usize = 64 * 1024;

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; more wait in the kernel's backlog.
    pub connections: usize,
    /// Time for a request's header to arrive, also of an idle connection's next one.
    pub header_timeout: Duration,
    /// Time for requests in flight to end once the server is to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // 4,096 connections at some 40 KB each stay below 160 MB; 60 s outlasts the usual 30 s
        // keep-alive of shippers; 20 s fits into the 30 s that Kubernetes grants a pod.
        Self { connections: 4096, header_timeout: Duration::from_secs(60), drain_timeout: Duration::from_secs(20) }
    }
}

/// Serves `router` on `listener` until `shutdown`, then drains. Ends with how many connections
/// were cut off at the deadline.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) -> usize {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(READ_BUFFER);
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the peer is gone already: neither ends the server.
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
        let service = router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let stopping = shutdown.clone();
        let service =
            service.map_response(move |response| if stopping.is_cancelled() { last(response) } else { response });
        let service = service.map_err(|never: Infallible| match never {});
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).with_upgrades();
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                // A request that has come is taken before the connection is looked at as idle.
                biased;
                ended = connection.as_mut() => ended,
                () = async { shutdown.cancelled().await; tokio::time::sleep(FAREWELL).await } => {
                    // The request in flight is finished; an idle connection closes at once.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended early");
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain_timeout, connections.wait()).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    tracing::warn!(cut, "cut connections at the drain deadline");
    cut
}

/// The last response on its connection, unless the connection is no longer HTTP.
fn last(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Routes that every process has: `/health` (the process runs) and `/metrics`. `/ready` is the
/// role's own, because only it knows what it needs.
pub fn common_routes(metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(|| async { (StatusCode::OK, "ok\n") }))
        .route("/metrics", get(move || std::future::ready(metrics.response())))
}

/// The body of every refusal: `{"error": {"code", "message"}}`, codes being stable.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ErrorBody {
    /// What was wrong.
    pub error: ErrorDetail,
}

/// What was wrong.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ErrorDetail {
    /// Stable, for programs.
    pub code: &'static str,
    /// What was wrong, where, and what to do, for people.
    pub message: String,
}

/// A refusal as a response.
pub fn refusal(status: StatusCode, code: &'static str, message: impl Into<String>) -> Response {
    let body = ErrorBody { error: ErrorDetail { code, message: message.into() } };
    (status, axum::Json(body)).into_response()
}
