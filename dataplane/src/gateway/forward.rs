//! Hands a request on to the role that answers it, and its answer back, both as they flow.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use api::Code;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::{Authority, Scheme};
use axum::http::{Method, Uri, Version};
use axum::response::Response;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rand::RngExt;
use runtime::http::refusal;
use runtime::logging::chain;
use runtime::traces::pass_on;

/// Longest wait for a connection: the role is in the same cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the beginning of an answer, sending the request included: longer than ingest waits for a body,
/// so that its refusal of a slow one arrives.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections kept idle to each role, and for how long: below the 60 s after which it closes them.
const IDLE_CONNECTIONS: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections to a role are used. A Service spreads connections, not requests: without an end to them, pods
/// that were added get nothing as long as the load is steady. Well above what a connection costs, well below the minutes
/// in which an autoscaler decides.
const CONNECTIONS_AGE: Duration = Duration::from_secs(60);

/// Headers that speak of one connection, not of the request (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that the roles act on. A proxy that copies its client's `Connection` may name any of them.
const END_TO_END: [&str; 13] = [
    "accept",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "idempotency-key",
    "origin",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-forwarded-for",
    "x-scope-orgid",
    "x-tenant",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One role to forward to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream {
    authority: Authority,
    connections: Arc<Connections>,
}

impl Upstream {
    /// The role at `url`, such as `http://loggerhub-search`: plain HTTP, without a path.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is not a URL"))?;
        anyhow::ensure!(uri.scheme() == Some(&Scheme::HTTP), "`{url}` doesn't begin with http://");
        anyhow::ensure!(uri.path() == "/" && uri.query().is_none(), "`{url}` has a path");
        let authority = uri.authority().cloned().with_context(|| format!("`{url}` names no host"))?;
        Ok(Self { authority, connections: Arc::new(Connections::of_age(CONNECTIONS_AGE)) })
    }

    /// With connections that are used for `age`.
    pub fn reconnecting_after(self, age: Duration) -> Self {
        Self { connections: Arc::new(Connections::of_age(age)), ..self }
    }

    /// The role's answer, or the refusal that says why there is none.
    pub async fn forward(&self, request: Request, peer: SocketAddr) -> Response {
        let again = repeatable(&request);
        let request = match self.outgoing(request, peer) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "refuse a request that can't be forwarded");
                return refusal(Code::InvalidParameter, "the request's path can't be forwarded");
            }
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
            match self.connections.client().request(request).await {
                // The role may have gone while its connection was idle.
                Err(_) if let Some(again) = again.and_then(|request| self.outgoing(request, peer).ok()) => {
                    self.connections.client().request(again).await
                }
                answered => answered,
            }
        });
        match answered.await {
            Ok(Ok(answer)) => {
                let (mut parts, body) = answer.into_parts();
                remove_hop_by_hop(&mut parts.headers);
                Response::from_parts(parts, Body::new(body))
            }
            Ok(Err(error)) => self.unanswered(&error),
            Err(_) => refusal(Code::UpstreamTimeout, "the answer took too long; try again later"),
        }
    }

    /// The request as the role gets it.
    fn outgoing(&self, request: Request, peer: SocketAddr) -> Result<Request, axum::http::Error> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri =
            Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query(path).build()?;
        parts.version = Version::HTTP_11;
        remove_hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::HOST);
        pass_on(&mut parts.headers);
        let forwarded_for = forwarded_for(&parts.headers, peer)?;
        parts.headers.insert(FORWARDED_FOR, forwarded_for);
        parts.extensions.clear();
        Ok(Request::from_parts(parts, body))
    }

    fn unanswered(&self, error: &hyper_util::client::legacy::Error) -> Response {
        if client_went_away(error) {
            // Nobody reads this: the sender's connection broke, or its chunks did, while its body was forwarded.
            tracing::debug!(error = %chain(error), "a request's body ended early");
            return refusal(Code::IncompleteBody, "the request's body ended early");
        }
        tracing::warn!(upstream = %self.authority, error = %chain(error), "{} doesn't answer", self.authority);
        if error.is_connect() {
            return refusal(Code::UpstreamUnavailable, "the service behind this route doesn't answer; try again");
        }
        let message = "the service behind this route broke off; whether it took the request is not known";
        refusal(Code::UpstreamFailed, message)
    }
}

/// The connections to a role: a client that keeps them, and when another takes its place.
#[derive(Debug)]
struct Connections {
    age: Duration,
    current: Mutex<(Client<HttpConnector, Body>, Instant)>,
}

impl Connections {
    fn of_age(age: Duration) -> Self {
        Self { age, current: Mutex::new((client(), Instant::now() + jittered(age))) }
    }

    /// The client of now. One that is too old is given up: its idle connections close, and each busy one once its answer
    /// has been read.
    fn client(&self) -> Client<HttpConnector, Body> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if current.1 <= now {
            *current = (client(), now + jittered(self.age));
        }
        current.0.clone()
    }
}

/// A client without connections.
fn client() -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(connector)
}

/// Between half of the age and the whole, so that gateways that began together don't connect together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// A copy of a request that may be sent twice: one that only reads and has no body.
fn repeatable(request: &Request) -> Option<Request> {
    if request.method() != Method::GET || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whether sending failed because the request's own body did.
fn client_went_away(error: &hyper_util::client::legacy::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_user)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` names further headers of its kind. Those that say who asks, and for what, are none.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| !END_TO_END.contains(&name.as_str()))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whom the request comes from, after those whom it says that it came from.
fn forwarded_for(headers: &HeaderMap, peer: SocketAddr) -> Result<HeaderValue, axum::http::Error> {
    let mut hops: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let peer = peer.ip().to_string();
    hops.push(&peer);
    Ok(HeaderValue::try_from(hops.join(", "))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_a_plain_url_without_a_path_is_an_upstream() {
        for good in ["http://loggerhub-search", "http://127.0.0.1:8080", "http://host:80/"] {
            assert!(Upstream::new(good).is_ok(), "{good}");
        }
        for bad in ["", "host", "https://host", "http://host/path", "http://host/?q", "http://"] {
            assert!(Upstream::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_of_a_connection_stay_behind() {
        let mut sent = headers(&[
            ("connection", "close, x-mine, x-api-key, Content-Encoding"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-api-key", "k"),
            ("content-encoding", "gzip"),
        ]);
        remove_hop_by_hop(&mut sent);
        assert_eq!(sent, headers(&[("x-api-key", "k"), ("content-encoding", "gzip")]));
    }

    #[test]
    fn the_peer_stands_last_in_forwarded_for() {
        let peer = "10.0.0.9:1234".parse().unwrap();
        assert_eq!(forwarded_for(&headers(&[]), peer).unwrap(), "10.0.0.9");
        assert_eq!(forwarded_for(&headers(&[("x-forwarded-for", "1.2.3.4")]), peer).unwrap(), "1.2.3.4, 10.0.0.9");
    }

    #[tokio::test]
    async fn the_request_keeps_its_path_and_loses_its_host() {
        let upstream = Upstream::new("http://search:81").unwrap();
        let request = Request::get("/api/logs?limit=5&service=a%2Cb").header("host", "front.example");
        let outgoing = upstream.outgoing(request.body(Body::empty()).unwrap(), "10.0.0.9:1".parse().unwrap()).unwrap();
        assert_eq!(outgoing.uri(), "http://search:81/api/logs?limit=5&service=a%2Cb");
        assert_eq!(outgoing.headers(), &headers(&[("x-forwarded-for", "10.0.0.9")]));
    }
}
