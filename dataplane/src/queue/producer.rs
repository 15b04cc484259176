//! Group commit: what queued while Redis wrote the last round goes in the next. No timer, so a
//! lone request waits for nothing, and a thousand share one write to disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use crds::TenantName;
use crds::names::Lane;
use redis::{Pipeline, RedisResult, Value};
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use zstd::bulk::Compressor;

use super::Error;
use super::backlog::{Backlogs, share};
use super::budget::Claim;
use super::entry::{self, BatchHeader, Encoded, Header};
use super::grouping::{MAX_FRAME, Weighed, group};
use super::health::{self, Health};
use crate::tenancy::Tenant;

/// Batches that wait for a round; more are refused. Ten rounds of what 512 busy connections send.
const WAITING: usize = 5_120;
/// Raw bytes that one round is filled up to: some 40 ms to compress and write, so that Redis's
/// answer is never near its timeout.
const ROUND_BYTES: usize = 16 * 1024 * 1024;
/// Raw bytes above which a round is compressed on a thread of its own: about half a millisecond.
const COMPRESS_INLINE: usize = 256 * 1024;

/// Which batches are committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// What gathered while the last round was under way.
    Grouped,
    /// Each alone, in a round-trip and an entry of its own, without waiting for others: what one
    /// write per event costs, as the benchmark's control.
    Alone,
}

/// Longest wait for replicas: below the client's own 5 s for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// What an accepted batch is safe from, and how much may wait.
#[derive(Args, Clone, Copy, Debug)]
pub struct ProducerSettings {
    /// Replicas of the queue's Redis that must have a batch before it is accepted. 0: Redis's own disk
    /// alone.
    #[arg(long = "queue-wait-replicas", env = "LOGGERHUB_QUEUE_WAIT_REPLICAS", default_value_t = 0)]
    pub wait_replicas: u32,
    /// Longest wait for them, in milliseconds; at most 4000.
    #[arg(long = "queue-wait-timeout-ms", env = "LOGGERHUB_QUEUE_WAIT_TIMEOUT_MS", default_value_t = 1000)]
    pub wait_timeout_ms: u64,
    /// Part of Redis's `maxmemory`, in percent, that one tenant's waiting entries may take: four greedy
    /// tenants still leave the others a fifth of what is accepted at all.
    #[arg(long = "queue-tenant-percent", env = "LOGGERHUB_QUEUE_TENANT_PERCENT", default_value_t = 25)]
    pub tenant_percent: u8,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self { wait_replicas: 0, wait_timeout_ms: 1000, tenant_percent: 25 }
    }
}

/// One request batch of one tenant.
#[derive(Debug)]
pub struct Batch {
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    /// What it holds.
    pub header: BatchHeader,
    /// The raw lines, end to end.
    pub raw: Vec<u8>,
    /// The memory that it may take until it is answered.
    pub claim: Claim,
}

/// Why a batch was not accepted. With [`Self::Unavailable`] and [`Self::TooFewReplicas`] it may have been written all the same:
/// the client sends it again, and with an `Idempotency-Key` that has one effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many batches wait.
    #[error("too many batches wait for the queue")]
    Overloaded,
    /// Redis is near its memory limit.
    #[error("the queue is full")]
    Full,
    /// The tenant has as much waiting as it may.
    #[error("the tenant's share of the queue is full")]
    TenantFull,
    /// Fewer replicas have it, or are there, than were asked for.
    #[error("the queue has too few replicas")]
    TooFewReplicas,
    /// Redis does not answer, or not as it should.
    #[error("the queue does not answer")]
    Unavailable,
}

/// The way into the queue. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    settings: ProducerSettings,
    waiting: mpsc::Sender<Waiting>,
    health: watch::Receiver<Health>,
    backlogs: Backlogs,
}

/// A batch and who waits for it.
struct Waiting {
    lane: Lane,
    batch: Batch,
    answer: oneshot::Sender<Result<(), SendError>>,
}

impl Weighed for Waiting {
    fn lane(&self) -> &Lane {
        &self.lane
    }
    fn tenant(&self) -> &TenantName {
        self.batch.tenant.name()
    }
    fn events(&self) -> usize {
        self.batch.header.events.len()
    }
    fn raw_bytes(&self) -> usize {
        self.batch.raw.len()
    }
    fn keyed(&self) -> Option<Uuid> {
        self.batch.header.body_hash.map(|_| self.batch.header.batch_id)
    }
}

impl Waiting {
    fn answer(self, outcome: Result<(), SendError>) {
        // Whoever hung up does not want to know.
        self.answer.send(outcome).ok();
    }
}

impl Producer {
    /// Begins to commit, with what holds by default.
    pub fn start(redis: &Redis, stop: CancellationToken) -> Result<(Self, JoinHandle<()>), Error> {
        Self::start_with(redis, ProducerSettings::default(), Commit::Grouped, stop)
    }

    /// Begins to commit. The task ends once every clone of the producer is dropped and what they
    /// sent is answered; `stop` only ends the look at Redis's health.
    pub fn start_with(
        redis: &Redis,
        settings: ProducerSettings,
        commit: Commit,
        stop: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let (waiting, queued) = mpsc::channel(WAITING);
        let (publish, health) = watch::channel(Health::UNKNOWN);
        let backlogs = Backlogs::default();
        tokio::spawn(look_at_backlogs(backlogs.clone(), redis.connection()?, health.clone(), settings));
        tokio::spawn(health::watch(redis.connection()?, publish, stop));
        let committer = Committer {
            settings,
            connection: redis.connection()?,
            compressor: Arc::new(Mutex::new(entry::compressor()?)),
            health: health.clone(),
            backlogs: backlogs.clone(),
        };
        let committing = match commit {
            Commit::Grouped => tokio::spawn(committer.run(queued)),
            Commit::Alone => tokio::spawn(committer.run_alone(queued)),
        };
        Ok((Self { settings, waiting, health, backlogs }, committing))
    }

    /// Replicas that must have a batch before it is accepted.
    pub fn wait_replicas(&self) -> u32 {
        self.settings.wait_replicas
    }

    /// Redis as last seen.
    pub fn health(&self) -> Health {
        *self.health.borrow()
    }

    /// Queues a batch. Returns once Redis has answered, so once it is on disk where Redis is set so.
    pub async fn send(&self, batch: Batch) -> Result<(), SendError> {
        match self.health() {
            Health { answering: false, .. } => return Err(SendError::Unavailable),
            Health { full: true, .. } => return Err(SendError::Full),
            // Nothing is written that is known to be refused afterwards.
            Health { replicas, .. } if replicas < self.settings.wait_replicas => return Err(SendError::TooFewReplicas),
            _ => {}
        }
        let lane = batch.tenant.lane();
        if self.backlogs.is_full(batch.tenant.name(), &lane) {
            return Err(SendError::TenantFull);
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { lane, batch, answer };
        self.waiting.try_send(waiting).map_err(|_| SendError::Overloaded)?;
        answered.await.unwrap_or(Err(SendError::Unavailable))
    }
}

/// The one task that writes.
#[derive(Clone)]
struct Committer {
    settings: ProducerSettings,
    connection: Connection,
    /// Kept from round to round, since making one costs more than a small entry's compression.
    compressor: Arc<Mutex<Compressor<'static>>>,
    health: watch::Receiver<Health>,
    backlogs: Backlogs,
}

/// Looks once a second, as often as Redis's health is, at the tenants that are refused. Ends with the
/// look at its health.
async fn look_at_backlogs(
    backlogs: Backlogs,
    connection: Connection,
    mut health: watch::Receiver<Health>,
    settings: ProducerSettings,
) {
    while health.changed().await.is_ok() {
        let max_memory = health.borrow_and_update().max_memory;
        if let Err(error) = backlogs.look(&connection, share(max_memory, settings.tenant_percent)).await {
            tracing::debug!(error = chain(&error), "look at the tenants' backlogs");
        }
    }
}

/// An entry, and whom its fate concerns.
struct Prepared {
    waiting: Vec<Waiting>,
    encoded: Encoded,
}

impl Prepared {
    fn lane(&self) -> &Lane {
        &self.waiting[0].lane
    }

    fn tenant(&self) -> &TenantName {
        self.waiting[0].tenant()
    }
}

impl Committer {
    async fn run(mut self, mut queued: mpsc::Receiver<Waiting>) {
        while let Some(first) = queued.recv().await {
            let mut bytes = first.raw_bytes();
            let mut round = vec![first];
            while bytes < ROUND_BYTES
                && let Ok(next) = queued.try_recv()
            {
                bytes += next.raw_bytes();
                round.push(next);
            }
            let entries = self.prepare(round, bytes).await;
            self.commit(entries).await;
        }
    }

    /// A round for each batch. Many are under way at once, at most one for each open request.
    async fn run_alone(self, mut queued: mpsc::Receiver<Waiting>) {
        let rounds = TaskTracker::new();
        while let Some(waiting) = queued.recv().await {
            let mut committer = self.clone();
            let bytes = waiting.raw_bytes();
            rounds.spawn(async move {
                let entries = committer.prepare(vec![waiting], bytes).await;
                committer.commit(entries).await;
            });
        }
        rounds.close();
        rounds.wait().await;
    }

    async fn prepare(&mut self, round: Vec<Waiting>, bytes: usize) -> Vec<Prepared> {
        let compressor = Arc::clone(&self.compressor);
        let prepare = move || {
            let mut compressor = compressor.lock().unwrap_or_else(PoisonError::into_inner);
            let mut entries = Vec::new();
            group(round).into_iter().for_each(|waiting| encode(&mut compressor, waiting, &mut entries));
            entries
        };
        if bytes <= COMPRESS_INLINE {
            return prepare();
        }
        match tokio::task::spawn_blocking(prepare).await {
            Ok(entries) => entries,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Adds entries and counts them, one transaction a lane, all in one round-trip.
    async fn commit(&mut self, entries: Vec<Prepared>) {
        let mut pipe = redis::pipe();
        let mut replies_of_lanes = Vec::new();
        for lane in entries.chunk_by(|a, b| a.lane() == b.lane()) {
            let before = pipe.len();
            let tenants = add_transaction(&mut pipe, lane);
            replies_of_lanes.push((lane.len(), pipe.len() - before, tenants));
        }
        if self.settings.wait_replicas > 0 {
            // The connection is the committer's alone: nobody else waits behind it.
            let wait =
                Duration::from_millis(self.settings.wait_timeout_ms).clamp(Duration::from_millis(1), LONGEST_WAIT);
            pipe.cmd("WAIT").arg(self.settings.wait_replicas).arg(wait.as_millis() as u64);
        }
        let replies: RedisResult<Vec<RedisResult<Value>>> =
            pipe.ignore_errors().query_async(&mut self.connection).await;
        let mut replies = replies.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "add entries to the queue");
            Vec::new()
        });
        let replicated = self.settings.wait_replicas == 0 || self.is_replicated(replies.pop());
        let share = share(self.health.borrow().max_memory, self.settings.tenant_percent);
        let mut entries = entries.into_iter();
        for (entry_count, reply_count, tenants) in replies_of_lanes {
            let replies: Vec<_> = replies.drain(..reply_count.min(replies.len())).collect();
            let outcome = match outcome(&replies) {
                Ok(waiting) => {
                    for ((lane, tenant), bytes) in tenants.iter().zip(waiting) {
                        self.backlogs.seen(tenant, lane, bytes, share);
                    }
                    if replicated { Ok(()) } else { Err(SendError::TooFewReplicas) }
                }
                Err(error) => Err(error),
            };
            for waiting in entries.by_ref().take(entry_count).flat_map(|entry| entry.waiting) {
                waiting.answer(outcome);
            }
        }
    }
}

impl Committer {
    /// Whether as many replicas have all of this as are asked for.
    fn is_replicated(&self, reply: Option<RedisResult<Value>>) -> bool {
        let replicas = match reply {
            Some(Ok(Value::Int(replicas))) => u32::try_from(replicas).unwrap_or(0),
            _ => 0,
        };
        let enough = replicas >= self.settings.wait_replicas;
        if !enough {
            tracing::warn!(replicas, wanted = self.settings.wait_replicas, "too few replicas have what was queued");
        }
        enough
    }
}

/// One entry of these batches, or two if it came out too large for Redis's liking.
fn encode(compressor: &mut Compressor<'_>, mut waiting: Vec<Waiting>, entries: &mut Vec<Prepared>) {
    let header = Header { batches: waiting.iter().map(|waiting| waiting.batch.header.clone()).collect() };
    let encoded = match waiting.as_slice() {
        [alone] => entry::encode(compressor, &header, &alone.batch.raw),
        several => {
            let raw: Vec<&[u8]> = several.iter().map(|waiting| waiting.batch.raw.as_slice()).collect();
            entry::encode(compressor, &header, &raw.concat())
        }
    };
    match encoded {
        Ok(encoded) if encoded.frame.len() > MAX_FRAME && waiting.len() > 1 => {
            let second = waiting.split_off(waiting.len() / 2);
            encode(compressor, waiting, entries);
            encode(compressor, second, entries);
        }
        Ok(encoded) => entries.push(Prepared { waiting, encoded }),
        Err(error) => {
            tracing::error!(%error, "encode an entry");
            waiting.into_iter().for_each(|waiting| waiting.answer(Err(SendError::Unavailable)));
        }
    }
}

/// Adds a lane's entries and counts them. Gives back whose shares are counted, in the order of the
/// transaction's last replies.
fn add_transaction(pipe: &mut Pipeline, entries: &[Prepared]) -> Vec<(Lane, TenantName)> {
    let lane = entries[0].lane();
    let stream = lane.stream();
    pipe.cmd("MULTI");
    for Prepared { waiting, encoded } in entries {
        pipe.cmd("XADD").arg(&stream).arg("*");
        pipe.arg("v").arg(entry::VERSION).arg("t").arg(waiting[0].tenant().as_str());
        pipe.arg("n").arg(encoded.events).arg("b").arg(encoded.raw_bytes);
        pipe.arg("h").arg(encoded.header.as_slice()).arg("p").arg(encoded.frame.as_slice());
    }
    let events: usize = entries.iter().map(|entry| entry.encoded.events).sum();
    let bytes: usize = entries.iter().map(|entry| entry.encoded.frame.len()).sum();
    pipe.cmd("INCRBY").arg(lane.events_counter()).arg(events);
    pipe.cmd("INCRBY").arg(lane.bytes_counter()).arg(bytes);
    let mut shares: BTreeMap<&TenantName, u64> = BTreeMap::new();
    for entry in entries {
        let Encoded { header, frame, .. } = &entry.encoded;
        let (_, weight) = entry::tenant_weight(entry.tenant().as_str(), header.len(), frame.len());
        *shares.entry(entry.tenant()).or_default() += weight;
    }
    for (tenant, bytes) in &shares {
        pipe.cmd("HINCRBY").arg(lane.tenant_bytes()).arg(tenant.as_str()).arg(*bytes);
    }
    pipe.cmd("EXEC");
    shares.into_keys().map(|tenant| (lane.clone(), tenant.clone())).collect()
}

/// What a lane's transaction came to: Redis runs all of it or nothing, and says which last. Gives back
/// what the tenants' shares are now, in order.
fn outcome(replies: &[RedisResult<Value>]) -> Result<Vec<u64>, SendError> {
    let mut errors = replies.iter().filter_map(|reply| reply.as_ref().err());
    if errors.any(|error| error.code() == Some("OOM")) {
        return Err(SendError::Full);
    }
    match replies.last() {
        Some(Ok(Value::Array(done))) if !done.iter().any(|reply| matches!(reply, Value::ServerError(_))) => {
            // An XADD is answered with an id, and the two counters come first.
            let counts = done.iter().filter_map(|reply| match reply {
                Value::Int(count) => Some(u64::try_from(*count).unwrap_or(0)),
                _ => None,
            });
            Ok(counts.skip(2).collect())
        }
        Some(Err(error)) => {
            tracing::warn!(error = chain(error), "add entries to the queue");
            Err(SendError::Unavailable)
        }
        _ => Err(SendError::Unavailable),
    }
}
