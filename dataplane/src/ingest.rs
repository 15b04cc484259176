//! The role `ingest`: takes logs over HTTP and answers 202 once the queue has them on disk.
//!
//! ```text
//!  headers ─► admit ─► read body (bounded) ─► decompress, parse (structure, time) ─► quota ─► Producer ─► 202 + receipt
//! ```
//! It needs the queue's Redis only. The cache's, if it is there, lets it tell a reused
//! `Idempotency-Key` at once, and `POST /data/` wait until its batch is stored. Nothing of a log line is interpreted here, and none shows in our own logs.

mod answer;
mod body;
mod inspect;
mod keys;
mod lexical;
mod metrics;
mod parse;
mod quota;
mod refusal;
#[cfg(test)]
mod tests;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use crds::TenantName;
use crds::tenant::Scope;
use runtime::http::{Limits, refusal, serve};
use runtime::metrics::Metrics;
use runtime::settings::{AdminSettings, QueueSettings, TlsSettings};
use runtime::stores::Redis;
use runtime::traces::traced;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::cache::{Cache, Fate, OptionalCacheSettings};
use crate::event::{Micros, keyed_batch_id, new_batch_id};
use crate::fail_points::{Point, reach};
use crate::fair::workers::Workers;
use crate::queue::entry::BatchHeader;
use crate::queue::{Batch, Budget, Claim, Commit, Lanes, Producer, ProducerSettings};
use crate::status::{self, Status};
use crate::tenancy::{AuthError, Caller, Receipt, Registry, RegistrySettings, Tenant};

use body::Decoding;
use keys::{Keys, Seen};
use metrics::{IngestMetrics, Outcome};
use parse::{ContentType, Parsed, Taking, body_hash, parse};
use quota::{Cost, Quotas};
use refusal::Refusal;

/// What a request takes from the budget before its body: header, buffers and its task.
const REQUEST_COST: usize = 16 * 1024;
/// Bodies above this are decompressed and parsed on a thread of their own: about half a millisecond of work.
const PARSE_INLINE: usize = 256 * 1024;
/// Longest wait for the last round after the drain; both fit into a pod's 30 s.
const LAST_ROUND: Duration = Duration::from_secs(6);
/// Longest `Idempotency-Key`.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// Longest that `POST /data/` waits until its batch is stored; an ordinary flush takes a tenth of a
/// second. Less than a server waits for requests in flight at a stop.
const STORED_WITHIN: Duration = Duration::from_secs(10);
/// Requests that wait for that at once; others are answered as soon as their batch is queued. Each
/// looks twenty times a second, so that these are 10,000 commands a second, a tenth of what a Redis can.
const WAITING_FOR_STORED: usize = 512;

/// Settings of the role.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    #[arg(long, env = "LOGGERHUB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where health, status and metrics are.
    #[command(flatten)]
    pub admin: AdminSettings,
    /// Bytes that unanswered requests may hold; more are refused. Leave as much again of the
    /// pod's memory for compression and connections.
    #[arg(long, env = "LOGGERHUB_MAX_IN_FLIGHT_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub max_in_flight_bytes: usize,
    /// 1: each request is written to the queue by itself, whatever else waits. For the benchmark,
    /// which compares grouping with one write per event; 0, the default, groups.
    #[arg(long, env = "LOGGERHUB_INGEST_BATCH", hide = true, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub batch: u8,
    /// Seconds for a whole body to arrive: 20 MiB at 700 KiB/s. Less than the 60 s that the gateway waits for our answer.
    #[arg(long, env = "LOGGERHUB_BODY_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub body_timeout_seconds: u64,
    /// Connections open at once, of which one peer may have half of what the others leave; more are closed.
    #[arg(long, env = "LOGGERHUB_MAX_CONNECTIONS", default_value_t = Limits::default().connections)]
    pub max_connections: usize,
    /// What a 202 promises, and how much of the queue a tenant may take.
    #[command(flatten)]
    pub producer: ProducerSettings,
    /// The queue.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// The cache; without it, what it is good for is left out.
    #[command(flatten)]
    pub cache: OptionalCacheSettings,
    /// The registry.
    #[command(flatten)]
    pub registry: RegistrySettings,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsSettings,
}

impl Settings {
    fn commit(&self) -> Commit {
        if self.batch == 1 { Commit::Alone } else { Commit::Grouped }
    }
}

/// Runs until `stop`.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen).await?;
    let admin = settings.admin.bind().await?;
    run_on(listener, admin, settings, stop).await
}

/// Runs on listeners that are already bound: for logs, and for health, status and metrics. Ends when the requests
/// in flight are answered.
pub async fn run_on(
    listener: TcpListener,
    admin: TcpListener,
    settings: Settings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let redis = Redis::queue(&settings.queue, &settings.tls)?;
    // The registry and the queue outlive the listener: what is in flight still needs them.
    let drained = CancellationToken::new();
    let registry = Registry::check_keys(&redis, &settings.registry, drained.clone())?;
    let commit = settings.commit();
    let (producer, mut committing) = Producer::start_with(&redis, settings.producer, commit, drained.clone())?;
    let cache = settings.cache.connect(&settings.tls)?;
    let metrics = Metrics::default();
    let ingest = Ingest {
        registry: registry.clone(),
        quotas: Quotas::new(&redis, drained.clone())?,
        producer: producer.clone(),
        keys: Keys::new(cache.clone()),
        cache,
        waits: Arc::new(Semaphore::new(WAITING_FOR_STORED)),
        parsing: Workers::new(std::thread::available_parallelism().map_or(1, usize::from)),
        budget: Budget::new(settings.max_in_flight_bytes),
        body_timeout: Duration::from_secs(settings.body_timeout_seconds),
        metrics: IngestMetrics::default(),
    };
    ingest.metrics.register(&metrics);
    let observed = ingest.clone();
    let status = Status::new(registry).with_queue(Lanes::new(&redis)?).writing(producer);
    let about = status::routes_refreshed(status, metrics, move || observed.refresh_metrics());
    let about = serve(admin, about, Limits::admin(), stop.clone());
    let router = traced(router(ingest));
    let limits = Limits { connections: settings.max_connections.max(1), ..Limits::default() };
    tracing::info!(listen = %listener.local_addr()?, "ingest accepts logs");
    tokio::select! {
        _cut = async { tokio::join!(serve(listener, router, limits, stop), about) } => {}
        ended = &mut committing => bail!("the task that writes to the queue ended: {ended:?}"),
    }
    // The router is gone, and with it every producer: the committer ends after its last round,
    // unless a connection that was cut off still holds one.
    if tokio::time::timeout(LAST_ROUND, committing).await.is_err() {
        tracing::warn!("stopped before the last batches were answered");
    }
    drained.cancel();
    Ok(())
}

/// What a request needs.
#[derive(Clone)]
struct Ingest {
    registry: Registry,
    producer: Producer,
    keys: Keys,
    cache: Option<Cache>,
    /// Places for requests that wait until their batch is stored.
    waits: Arc<Semaphore>,
    /// Places for large bodies that are decompressed and parsed: one a core, since each further thread would
    /// only hold memory of its own. Tenants take turns, so that nobody waits behind another's thousand bodies.
    parsing: Workers,
    quotas: Quotas,
    budget: Budget,
    body_timeout: Duration,
    metrics: IngestMetrics,
}

fn router(ingest: Ingest) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/logs", post(take_logs))
        .route("/data/fast", post(take_logs))
        .route("/data", post(take_and_wait))
        .route("/data/", post(take_and_wait))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "not_found", "no such path; send logs to POST /logs") })
        .method_not_allowed_fallback(|| async {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "send logs with POST")
        })
        .with_state(ingest)
        .layer(CatchPanicLayer::custom(|_| {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a defect of LoggerHub; it was logged")
        }))
}

/// What this is, for people, and for a load balancer that asks whether somebody answers.
async fn index() -> &'static str {
    "LoggerHub ingest: send logs to POST /logs\n"
}

/// The answer to an accepted batch.
#[derive(Debug, Serialize)]
struct Accepted {
    batch_id: Uuid,
    accepted: usize,
    rejected: usize,
    receipt: String,
    /// Whether the same body was kept before under the same `Idempotency-Key`, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// How far the batch has come, where that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

/// A batch that the queue has.
struct Queued {
    tenant: Arc<Tenant>,
    accepted_at: Micros,
    answer: Accepted,
}

/// What became of a request, and whose it was, if its key says so.
struct Taken {
    tenant: Option<Arc<Tenant>>,
    queued: Result<Queued, Refusal>,
    /// What the request still holds of the budget, until its answer is sent.
    claim: Option<Claim>,
}

/// `POST /logs`: answers as soon as the batch is kept.
async fn take_logs(State(ingest): State<Ingest>, request: Request) -> Response {
    let Taken { tenant, queued, claim } = ingest.take(request, None).await;
    let response = match queued {
        Ok(Queued { answer, .. }) => (StatusCode::ACCEPTED, Json(answer)).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    answer::holding(claim, ingest.labelled(tenant.as_deref(), response))
}

/// `POST /data/`: the same, and then waits until the batch is stored, if a processor can say so.
async fn take_and_wait(State(ingest): State<Ingest>, request: Request) -> Response {
    let place = ingest.waits.clone().try_acquire_owned().ok();
    let cache = ingest.cache.as_ref().filter(|_| place.is_some());
    let Taken { tenant, queued, claim } = ingest.take(request, cache).await;
    let response = match queued {
        Ok(queued) => await_stored(queued, cache).await,
        Err(refusal) => refusal.into_response(),
    };
    answer::holding(claim, ingest.labelled(tenant.as_deref(), response))
}

/// The answer once the batch is stored, or once it has been waited for long enough.
async fn await_stored(queued: Queued, cache: Option<&Cache>) -> Response {
    let Queued { tenant, accepted_at, mut answer } = queued;
    let fate = match cache {
        Some(cache) => cache.await_fate(&tenant, answer.batch_id, accepted_at, STORED_WITHIN).await,
        None => None,
    };
    answer.state = Some(if fate.is_some() { "stored" } else { "queued" });
    let status = match fate {
        Some(Fate::Stored) => StatusCode::CREATED,
        Some(Fate::Duplicate) => {
            answer.duplicate = Some(true);
            StatusCode::OK
        }
        Some(Fate::OtherBody) => return Refusal::IdempotencyKeyReused { kept: true }.into_response(),
        None => StatusCode::ACCEPTED,
    };
    (status, Json(answer)).into_response()
}

impl Ingest {
    /// Takes one request's logs and counts it. Where `telling` is given, processors are asked
    /// there to tell of the batch.
    async fn take(&self, request: Request, telling: Option<&Cache>) -> Taken {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let caller = self.registry.admit(&parts.headers, Scope::Ingest);
        let tenant = caller.as_ref().ok().map(|caller| Arc::clone(&caller.tenant));
        let mut claim = tenant.as_ref().map(|tenant| self.budget.claim_for(tenant.name()));
        let queued = match (caller, &mut claim) {
            (Ok(caller), Some(claim)) => self.try_take(caller, &parts, body, telling, claim).await,
            (Ok(_), None) => Err(AuthError::Missing.into()),
            (Err(error), _) => Err(error.into()),
        };
        let code = queued.as_ref().map_or_else(|refusal| refusal.code().1, |_| "accepted");
        self.metrics.requests.get_or_create(&Outcome { code }).inc();
        self.metrics.seconds.0.observe(began.elapsed().as_secs_f64());
        if let Some(tenant) = &tenant {
            let outcome = queued.as_ref().map_or_else(Refusal::outcome, |_| "accepted");
            self.metrics.by_tenant.count(tenant.name(), outcome);
        }
        Taken { tenant, queued, claim }
    }

    /// The answer with what is left of the tenant's quotas.
    fn labelled(&self, tenant: Option<&Tenant>, mut response: Response) -> Response {
        if let Some(tenant) = tenant {
            self.quotas.label(tenant, &mut response);
        }
        response
    }

    /// Whoever can't be served is told before its body is read.
    async fn try_take(
        &self,
        caller: Caller,
        head: &Parts,
        body: Body,
        telling: Option<&Cache>,
        claim: &mut Claim,
    ) -> Result<Queued, Refusal> {
        let headers = &head.headers;
        let form = ContentType::parse(content_type(headers)?)?;
        let taking = Taking::of(head.uri.query())?;
        let key = idempotency_key(headers)?;
        self.quotas.foresee(&caller.tenant, Cost { bytes: body::least_length(headers), events: 1 })?;
        claim.grow(REQUEST_COST)?;
        let decoding = body::read(headers, body, self.body_timeout, claim).await?;
        let accepted_at = now();
        let reading = Reading { form, taking, keyed: key.is_some(), now: accepted_at };
        let (read, unpacked) = self.read(caller.tenant.name(), decoding, reading, claim).await;
        if read.as_ref().is_err_and(Refusal::is_the_senders) {
            self.quotas.charge(&caller.tenant, refused_cost(unpacked));
        }
        let Read { parsed, body_hash, bytes } = read?;
        let batch_id = match key {
            Some(key) => keyed_batch_id(caller.tenant.name(), key),
            None => new_batch_id(),
        };
        let seen = match &body_hash {
            Some(hash) => self.keys.look_up(&caller.tenant, batch_id, hash).await,
            None => Seen::Unknown,
        };
        if seen == Seen::Other {
            self.quotas.charge(&caller.tenant, refused_cost(unpacked));
            return Err(Refusal::IdempotencyKeyReused { kept: false });
        }
        let Parsed { events, raw, rejected } = parsed;
        let (tenant, cost) = (Arc::clone(&caller.tenant), Cost { bytes, events: events.len() as u64 });
        self.quotas.take(&tenant, cost).await?;
        let receipt = Receipt {
            tenant: caller.tenant.name().clone(),
            batch_id,
            accepted_at,
            events: u32::try_from(events.len()).unwrap_or(u32::MAX),
        };
        let receipt = self.registry.peppers().sign(&receipt);
        let duplicate = (seen == Seen::Same).then_some(true);
        let accepted = events.len() - rejected;
        let answer = Accepted { batch_id, accepted, rejected, receipt, duplicate, state: None };
        let raw_bytes = raw.len();
        let header = BatchHeader { batch_id, accepted_at, key_id: caller.key_id.clone(), body_hash, events };
        if let Some(cache) = telling {
            cache.lease_fates(&tenant).await;
        }
        reach(Point::IngestParsed);
        if let Err(refusal) = self.queue(&caller, header, raw, claim).await {
            self.quotas.give_back(&tenant, cost);
            return Err(refusal);
        }
        reach(Point::IngestQueued);
        if let (Some(hash), Seen::Unknown) = (&body_hash, seen) {
            self.keys.remember(&tenant, batch_id, hash).await;
        }
        self.metrics.events.inc_by(answer.accepted as u64);
        self.metrics.rejected_events.inc_by(answer.rejected as u64);
        self.metrics.raw_bytes.inc_by(raw_bytes as u64);
        Ok(Queued { tenant, accepted_at, answer })
    }

    /// Gives a batch to the queue, in the lane where its tenant's events go now. A body may have been under way for
    /// half a minute: its tenant may be gone since it was admitted, or in another pipeline.
    async fn queue(
        &self,
        caller: &Caller,
        header: BatchHeader,
        raw: Vec<u8>,
        claim: &mut Claim,
    ) -> Result<(), Refusal> {
        let tenant = self.registry.still_admits(caller)?;
        Ok(self.producer.send(Batch { tenant, header, raw, claim: claim.take() }).await?)
    }

    /// Sets the gauges to what holds now.
    fn refresh_metrics(&self) {
        self.metrics.in_flight_bytes.set(i64::try_from(self.budget.in_flight()).unwrap_or(i64::MAX));
        let age = self.registry.age().map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        self.metrics.registry_age_seconds.set(age);
        self.metrics.clock_ahead_seconds.set(self.producer.health().clock_ahead_seconds);
    }

    /// Decompresses and parses a body: where it is small at once, else on a thread of its own. Says how many bytes were
    /// unpacked, also of what is refused.
    async fn read(
        &self,
        tenant: &TenantName,
        mut decoding: Decoding,
        reading: Reading,
        claim: &mut Claim,
    ) -> (Result<Read, Refusal>, usize) {
        match decoding.go_on(PARSE_INLINE, claim) {
            Ok(whole) if whole && decoding.len() <= PARSE_INLINE => {
                return (reading.read(&mut decoding, claim), decoding.len());
            }
            Ok(_) => {}
            Err(refusal) => return (Err(refusal), decoding.len()),
        }
        let _place = self.parsing.place(tenant).await;
        let mut carried = claim.take();
        let work = move || (reading.read(&mut decoding, &mut carried), decoding.len(), carried);
        match tokio::task::spawn_blocking(work).await {
            Ok((read, unpacked, carried)) => {
                *claim = carried;
                (read, unpacked)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// How a body is to be read.
#[derive(Clone, Copy)]
struct Reading {
    form: ContentType,
    taking: Taking,
    /// Whether it came under an `Idempotency-Key`, and is hashed.
    keyed: bool,
    now: Micros,
}

/// What was read.
struct Read {
    parsed: Parsed,
    body_hash: Option<[u8; 32]>,
    /// Length of the body once decompressed.
    bytes: u64,
}

impl Reading {
    fn read(self, decoding: &mut Decoding, claim: &mut Claim) -> Result<Read, Refusal> {
        let body = decoding.whole(claim)?;
        let parsed = parse(body, self.form, self.taking, self.now)?;
        Ok(Read { parsed, body_hash: self.keyed.then(|| body_hash(body)), bytes: body.len() as u64 })
    }
}

/// What a body counts in its tenant's quotas that was unpacked and then refused: reading it took as much as if it had been
/// events of a kilobyte. Without that, bodies of some hundred bytes that unpack to 20 MiB would be for nothing.
fn refused_cost(unpacked: usize) -> Cost {
    let bytes = unpacked as u64;
    Cost { bytes, events: bytes.div_ceil(1024).max(1) }
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let text = headers.get(CONTENT_TYPE).map(|value| value.to_str().map_err(|_| Refusal::UnsupportedContentType));
    text.transpose()
}

/// The client's name for this batch, if it gives one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut sent = headers.get_all("idempotency-key").iter().map(axum::http::HeaderValue::as_bytes);
    match (sent.next(), sent.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) => {
            Ok(Some(key))
        }
        _ => Err(Refusal::InvalidIdempotencyKey),
    }
}

fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}
