//! Leases from the buckets in Redis, and how many replicas share them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use crds::names::INGEST_REPLICAS;
use redis::Script;
use runtime::logging::chain;
use runtime::stores::{self, Connection, Redis};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::share::{Answer, Ask, Leased, Wanted};

/// Longest wait for a lease: a round-trip takes a millisecond, and a request waits behind it.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long Redis is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two signs of life of a replica.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// A replica not heard of for so long does not count.
const ALIVE_FOR: Duration = Duration::from_secs(15);

/// KEYS bucket; ARGV for bytes, then for events: rate, burst, need, want. Gives back, as text since a
/// number would be cut: granted and left of bytes, granted and left of events. A request is granted in
/// both dimensions or in none. A need above the burst is granted from a full bucket, and leaves it
/// below zero. Redis's clock counts, so replicas' clocks don't matter.
const LEASE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local held = redis.call('HMGET', KEYS[1], 'at', 'bytes', 'events')
local at = tonumber(held[1])
local names, left, granted = { 'bytes', 'events' }, { 0, 0 }, { 0, 0 }
local enough, keep = true, 1000
for i = 1, 2 do
    local rate, burst, need = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
    if rate > 0 then
        local tokens = tonumber(held[i + 1])
        if at and tokens then
            tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000000)
        else
            tokens = burst
        end
        left[i] = tokens
        keep = math.max(keep, 1000 * (burst - tokens + need) / rate)
        if tokens < math.min(need, burst) then enough = false end
    end
end
local fields = { 'at', string.format('%.0f', now) }
for i = 1, 2 do
    if tonumber(ARGV[4 * i - 3]) > 0 then
        if enough then
            granted[i] = math.max(tonumber(ARGV[4 * i - 1]), math.min(tonumber(ARGV[4 * i]), left[i]))
            left[i] = left[i] - granted[i]
        end
        fields[#fields + 1] = names[i]
        fields[#fields + 1] = string.format('%.3f', left[i])
    end
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(keep, 86400000) + 60000))
local function text(number) return string.format('%.3f', number) end
return { text(granted[1]), text(left[1]), text(granted[2]), text(left[2]) }
";

/// KEYS replicas; ARGV this replica, milliseconds for which one counts. Gives back how many there are.
const ALIVE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return redis.call('ZCARD', KEYS[1])
";

/// The way to the buckets. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leases {
    connection: Connection,
    script: Arc<Script>,
    replicas: Arc<AtomicU64>,
    paused_until: Arc<Mutex<Option<Instant>>>,
}

impl Leases {
    pub(super) fn new(redis: &Redis, stop: CancellationToken) -> Result<Self, stores::Error> {
        let replicas = Arc::new(AtomicU64::new(1));
        tokio::spawn(count_replicas(redis.connection()?, Arc::clone(&replicas), stop));
        Ok(Self {
            connection: redis.connection()?,
            script: Arc::new(Script::new(LEASE)),
            replicas,
            paused_until: Arc::default(),
        })
    }

    /// Replicas of ingest as last counted; at least this one.
    pub(super) fn replicas(&self) -> u64 {
        self.replicas.load(Ordering::Relaxed).max(1)
    }

    /// Leases what is asked for; `None` while Redis doesn't answer.
    pub(super) async fn lease(&self, tenant: &TenantName, ask: &Ask) -> Option<Answer> {
        if self.paused_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let mut call = self.script.key(tenant.quota_bucket());
        for Wanted { rate, burst, need, want } in [ask.bytes, ask.events] {
            call.arg(rate).arg(burst).arg(need).arg(want);
        }
        type Reply = (f64, f64, f64, f64);
        let mut connection = self.connection.clone();
        let failure = match tokio::time::timeout(TIMEOUT, call.invoke_async::<Reply>(&mut connection)).await {
            Ok(Ok((bytes_granted, bytes_left, events_granted, events_left))) => {
                return Some(Answer {
                    bytes: Leased { granted: bytes_granted, left: bytes_left },
                    events: Leased { granted: events_granted, left: events_left },
                });
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(error = failure, "quotas are kept without Redis for a moment");
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        None
    }

    fn paused_until(&self) -> Option<Instant> {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that this replica is there, and counts all that say so.
async fn count_replicas(mut connection: Connection, replicas: Arc<AtomicU64>, stop: CancellationToken) {
    let (script, id) = (Script::new(ALIVE), Uuid::now_v7().to_string());
    loop {
        let alive_for = u64::try_from(ALIVE_FOR.as_millis()).unwrap_or(u64::MAX);
        // While Redis is away, the last number stays.
        if let Ok(count) =
            script.key(INGEST_REPLICAS).arg(&id).arg(alive_for).invoke_async::<u64>(&mut connection).await
        {
            replicas.store(count, Ordering::Relaxed);
        }
        tokio::select! {
            () = tokio::time::sleep(ALIVE_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}
