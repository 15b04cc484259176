//! An HTTP server that can't be held up: bounded connections, header and writing time, and a drain at stop.
//!
//! axum's own `serve` has no timers and no bound on connections, so the accept loop is ours, over
//! hyper-util. Bodies are bounded by each route, which knows how large one may be.
//!
//! What a process says of itself (`/health`, `/ready`, `/metrics`) is served on a listener of its own, so that no
//! crowd at the tenants' door keeps a probe from being answered, and no tenant reads it.

mod connection;
mod peers;
mod strict;
mod unread;

use std::convert::Infallible;
use std::time::Duration;

use api::{Code, Refusal, Retry};
use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::metrics::Metrics;
use connection::Connection;
use peers::Places;

/// How long a stopping server still answers on connections that are open: each answer says that it is
/// the last, so that a client that sends once a second or more loses none to a connection's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Time for a request's header on connections that came while more than half of all places were taken: who has
/// nothing to say makes room for who has.
const CROWDED: Duration = Duration::from_secs(10);

/// Bytes of a connection's buffer at most, which is the bound of a request's head too. A large body passes through
/// it in pieces; several times as much, which is hyper's own bound, makes nothing faster.
const READ_BUFFER: usize = 64 * 1024;

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once, of which one peer may have half of what the others leave. More are told so
    /// and closed: one that waits would look to its client like a server that hangs.
    pub connections: usize,
    /// Time for a request's header to arrive, also of an idle connection's next one.
    pub header_timeout: Duration,
    /// Time in which a client takes nothing of its answer, after which it is given up.
    pub write_timeout: Duration,
    /// Time for requests in flight to end once the server is to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // 4,096 connections at some 40 KB each stay below 160 MB; 60 s outlasts the usual 30 s
        // keep-alive of shippers; 20 s fits into the 30 s that Kubernetes grants a pod.
        Self {
            connections: 4096,
            header_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Serves `router` on `listener` until `shutdown`, then drains. Ends with how many connections
/// were cut off at the deadline.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) -> usize {
    let router = router.layer(from_fn(unread::unread)).layer(from_fn(strict::strict));
    let places = Places::new(limits.connections);
    let connections = TaskTracker::new();
    let http = |header_timeout| {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(READ_BUFFER);
        http
    };
    let (usual, crowded) = (http(limits.header_timeout), http(limits.header_timeout.min(CROWDED)));
    loop {
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
        let Some(place) = places.take(peer.ip()) else {
            turn_away(&stream);
            continue;
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
        let connection = if place.crowded { &crowded } else { &usual }
            .serve_connection(
                TokioIo::new(Connection::new(stream, limits.write_timeout)),
                TowerToHyperService::new(service),
            )
            .with_upgrades();
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let _place = place;
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

/// Says that there is no room, as far as the socket takes it at once, and leaves the rest to the kernel.
fn turn_away(stream: &TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
        connection: close\r\ncontent-length: 99\r\n\r\n\
        {\"error\":{\"code\":\"overloaded\",\"message\":\"too many connections, of this peer or of all; try again\"}}";
    if let Err(error) = stream.try_write(ANSWER) {
        tracing::debug!(%error, "turn a connection away");
    }
}

/// The last response on its connection, unless the connection is no longer HTTP.
fn last(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Limits {
    /// For the listener of `/health`, `/ready` and `/metrics`: the kubelet and a scraper or two.
    pub fn admin() -> Self {
        Self { connections: 64, header_timeout: Duration::from_secs(10), ..Self::default() }
    }
}

/// Routes that every process has: `/health` (the process runs) and `/metrics`. `/ready` is the
/// role's own, because only it knows what it needs.
pub fn common_routes(metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(|| async { (StatusCode::OK, "ok\n") }))
        .route("/metrics", get(move || std::future::ready(metrics.response())))
}

/// Longest text of a refusal. None of ours is longer; the bound is for a text that has a foreign one in it.
const MAX_MESSAGE: usize = 1024;

/// A refusal as a response, with the code's status and, where trying again helps, its `Retry-After`.
pub fn refusal(code: Code, message: impl Into<String>) -> Response {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let response = refusal_with(status, code, message);
    if let Retry::After(seconds) = code.retry() { after(response, seconds) } else { response }
}

/// A refusal whose code has several statuses.
pub fn refusal_with(status: StatusCode, code: Code, message: impl Into<String>) -> Response {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    (status, axum::Json(Refusal::new(code, message))).into_response()
}

/// A refusal after which so many seconds are to pass until the request is sent again.
pub fn after(mut refusal: Response, seconds: u64) -> Response {
    refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    refusal
}
