//! Reads one tenant's tail from Redis while somebody watches: lease, stream, duplicates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::TenantName;
use redis::streams::{StreamId, StreamReadReply};
use runtime::logging::chain;
use runtime::stores::{Connection, Redis};
use tokio::sync::{broadcast, watch};

use super::frames::{self, TailEvent};
use super::recent::Recent;
use super::tail::{SourceState, TailEntry};

/// How long a lease holds, in seconds: a gateway that died is published for no longer.
const LEASE_SECONDS: u64 = 15;
/// How often it is renewed: two renewals may fail before it ends.
const RENEW_AFTER: Duration = Duration::from_secs(5);
/// Longest wait for an entry; below the renewal, which comes between two waits.
const BLOCK: Duration = Duration::from_secs(4);
/// Entries read at once.
const ENTRIES_AT_ONCE: usize = 16;
/// Entries whose ids are learned before the first is read: what the sockets of another gateway were shown last.
const LEARNED: usize = 32;
/// Pauses while Redis doesn't answer.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What goes wrong while Redis is read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// The client can't be made.
    #[error("connect to the cache")]
    Store(#[from] runtime::stores::Error),
    /// Redis doesn't answer.
    #[error("read the live tail")]
    Redis(#[from] redis::RedisError),
}

/// The reader of one tenant's tail.
pub(super) struct TailReader {
    tenant: TenantName,
    entries: broadcast::Sender<TailEntry>,
    state: watch::Sender<SourceState>,
    /// The last entry read; `None` until Redis told where the stream ends.
    last: Option<String>,
    recent: Arc<Mutex<Recent>>,
    /// Events published so far.
    count: u64,
}

impl TailReader {
    pub(super) fn new(
        tenant: TenantName,
        entries: broadcast::Sender<TailEntry>,
        state: watch::Sender<SourceState>,
        recent: Arc<Mutex<Recent>>,
    ) -> Self {
        Self { tenant, entries, state, last: None, recent, count: 0 }
    }

    /// Reads until it is dropped, over every failure of Redis.
    pub(super) async fn run(mut self, redis: &Redis) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.follow(redis).await;
            if self.state.send_replace(SourceState::Interrupted) == SourceState::Live {
                pause = FIRST_PAUSE;
                tracing::warn!(tenant.name = %self.tenant, error = %chain(&error), "the live tail is interrupted");
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn follow(&mut self, redis: &Redis) -> Result<std::convert::Infallible, TailError> {
        let mut connection = redis.blocking_connection(BLOCK)?;
        let mut renewed = self.renew(&mut connection).await?;
        // The lease comes first: nothing is published between the end we see and our first read.
        let mut last = match self.last.take() {
            Some(last) => last,
            None => self.learn(&mut connection).await?,
        };
        self.state.send_replace(SourceState::Live);
        loop {
            self.last = Some(last.clone());
            if renewed.elapsed() >= RENEW_AFTER {
                renewed = self.renew(&mut connection).await?;
            }
            for entry in read(&mut connection, &self.tenant, &last).await? {
                self.publish(&entry);
                last = entry.id;
            }
        }
    }

    async fn renew(&self, connection: &mut Connection) -> Result<Instant, TailError> {
        let mut set = redis::cmd("SET");
        set.arg(self.tenant.tail_lease()).arg(1).arg("EX").arg(LEASE_SECONDS);
        let at = Instant::now();
        set.query_async::<()>(connection).await?;
        Ok(at)
    }

    /// Learns what was published last, and where the stream ends.
    async fn learn(&self, connection: &mut Connection) -> Result<String, TailError> {
        let last = last_entries(connection, &self.tenant).await?;
        for entry in last.iter().rev() {
            let events = entry.get::<Vec<u8>>("e").and_then(|compressed| frames::events(&compressed).ok());
            events.iter().flatten().for_each(|event| _ = self.is_new(event));
        }
        Ok(last.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
    }

    fn is_new(&self, event: &TailEvent) -> bool {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).is_new(event.id)
    }

    fn publish(&mut self, entry: &StreamId) {
        let events = entry.get::<Vec<u8>>("e").map(|compressed| frames::events(&compressed));
        let mut events = match events {
            Some(Ok(events)) => events,
            Some(Err(error)) => {
                tracing::warn!(tenant.name = %self.tenant, %error, "leave out an entry of the live tail");
                return;
            }
            None => return,
        };
        events.retain(|event: &TailEvent| self.is_new(event));
        let left_out = entry.get("d").unwrap_or(0);
        let entry = TailEntry { first: self.count, events: events.into(), left_out };
        self.count += entry.events.len() as u64 + left_out;
        // Without a receiver the last socket is just leaving.
        if self.entries.send(entry).is_err() {
            tracing::debug!(tenant.name = %self.tenant, "nobody watches any more");
        }
    }
}

/// The newest entries, newest first.
async fn last_entries(connection: &mut Connection, tenant: &TenantName) -> Result<Vec<StreamId>, TailError> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(tenant.tail_stream()).arg("+").arg("-").arg("COUNT").arg(LEARNED);
    let last: redis::streams::StreamRangeReply = last.query_async(connection).await?;
    Ok(last.ids)
}

async fn read(connection: &mut Connection, tenant: &TenantName, last: &str) -> Result<Vec<StreamId>, TailError> {
    let mut read = redis::cmd("XREAD");
    read.arg("COUNT").arg(ENTRIES_AT_ONCE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
    read.arg("STREAMS").arg(tenant.tail_stream()).arg(last);
    let reply: Option<StreamReadReply> = read.query_async(connection).await?;
    Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
}
